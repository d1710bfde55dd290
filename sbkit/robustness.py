"""How many images a trained network still classifies when they are corrupted, or changed on purpose to mislead it.

Everything happens to pixels in [0, 1], and the result stays there. The network gets them normalized as in training.

The corruptions are noise, blur, brightness (added to all channels alike) and contrast, with the severities 1, 3 and 5
of CIFAR-10-C by Hendrycks and Dietterich (2019), and two that it lacks, translation and occlusion.

Attacks change each pixel by epsilon at most, up the gradient of the cross-entropy: FGSM (Goodfellow et al., 2015) in
one step from the image, PGD (Madry et al., 2018) in ten steps of epsilon / 4 from a random point, each brought back
into the box around the image. The quantized weights are constants here, so the gradients by the pixels are exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.data import Dataset

EPSILONS = (2 / 255, 4 / 255, 8 / 255, 16 / 255)
PGD_STEPS = 10
BATCH = 500

Network = Callable[[Tensor], Tensor]


# Corruptions of x, float32 (n, C, H, W), by an amount; the generator draws what is random


def gaussian_noise(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return x + amount * torch.randn(x.shape, generator=generator)


def gaussian_blur(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    radius = 4  # pixels; amounts are up to 1
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / amount) ** 2)
    kernel /= kernel.sum()
    weight = (kernel[:, None] * kernel).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, (radius,) * 4, mode="replicate"), weight, groups=x.shape[1])


def brightness(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    return x + amount


def contrast(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + amount * (x - mean)


def translation(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Each image moves by `amount` of the side in one of eight directions, and zeros enter."""
    shift = round(amount * min(x.shape[2:]))
    H, W = x.shape[2:]
    windows = F.pad(x, (shift,) * 4).unfold(2, H, 1).unfold(3, W, 1)  # (n, C, rows, columns, H, W), a view
    direction = torch.randint(8, (len(x),), generator=generator)
    direction += direction >= 4  # of the 3 x 3 directions, all but staying in the middle
    return windows[torch.arange(len(x)), :, direction // 3 * shift, direction % 3 * shift]


def occlusion(x: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """A grey square at a random place of each image, its side `amount` of the image's."""
    H, W = x.shape[2:]
    side = round(amount * min(H, W))
    top, left = (torch.randint(size - side + 1, (len(x), 1), generator=generator) for size in (H, W))
    rows, columns = torch.arange(H), torch.arange(W)
    inside = ((rows >= top) & (rows < top + side))[:, :, None] & ((columns >= left) & (columns < left + side))[:, None]
    return torch.where(inside[:, None], 0.5, x)


CORRUPTIONS: dict[Callable[..., Tensor], tuple[float, float, float]] = {
    gaussian_noise: (0.04, 0.08, 0.10),  # standard deviation
    gaussian_blur: (0.4, 0.7, 1.0),  # standard deviation, pixels
    brightness: (0.05, 0.15, 0.3),  # added
    contrast: (0.75, 0.4, 0.15),  # factor of the differences from an image's mean
    translation: (1 / 14, 2 / 14, 3 / 14),  # share of the side
    occlusion: (0.25, 0.375, 0.5),  # share of the side
}
"""The amounts of the severities 1, 2 and 3."""


# Attacks on x with labels y: `network` takes pixels and gives logits


def _uphill(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """Sign of the gradient of the cross-entropy by the pixels."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(x), y), x)
    return gradient.sign()


def fgsm(network: Network, x: Tensor, y: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    return (x + epsilon * _uphill(network, x, y)).clamp(0, 1)


def pgd(network: Network, x: Tensor, y: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    low, high = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
    changed = low + (high - low) * torch.rand(x.shape, generator=generator)
    for _ in range(PGD_STEPS):
        changed = (changed + epsilon / 4 * _uphill(network, changed, y)).clamp(low, high)
    return changed


@torch.no_grad()
def measure(model: nn.Module, data: Dataset, *, seed: int = 0, images: int = 10_000) -> dict[str, Any]:
    """Top-1 on test images, all or `images` of them evenly drawn: as they are, corrupted, and under attack.

    Returns {"images": their number, "top1_percent", "corruptions": [{"corruption", "severity", "top1_percent"}],
    "attacks": [{"attack", "epsilon", "top1_percent"}]}; severity is 1 to 3, epsilon a fraction of the pixels' range.
    `seed` decides all that is random. The network runs in float32, and the model is left as it is.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    device = next(model.parameters()).device
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (data.mean, data.std))
    chosen = slice(0, None, max(1, len(data.x_test) // images))
    x, y = data.x_test[chosen][:images].float() / 255, data.y_test[chosen][:images].to(device)

    def network(pixels: Tensor) -> Tensor:
        return model((pixels.to(device) - mean) / std.clamp_min(1e-6))

    def top1_percent(change: Callable[[Tensor, Tensor, torch.Generator], Tensor]) -> float:
        generator = torch.Generator().manual_seed(seed)
        parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
        hits = sum(int((network(change(x, y, generator).clamp(0, 1)).argmax(1) == y).sum()) for x, y in parts)
        return 100 * hits / len(x)

    def corrupted(corrupt: Callable[..., Tensor], amount: float) -> float:
        return top1_percent(lambda x, _, generator: corrupt(x, amount, generator))

    def attacked(attack: Callable[..., Tensor], epsilon: float) -> float:
        return top1_percent(lambda x, y, generator: attack(network, x, y, epsilon, generator))

    return {
        "images": len(x),
        "top1_percent": top1_percent(lambda x, *_: x),
        "corruptions": [
            {"corruption": corrupt.__name__, "severity": severity, "top1_percent": corrupted(corrupt, amount)}
            for corrupt, amounts in CORRUPTIONS.items()
            for severity, amount in enumerate(amounts, 1)
        ],
        "attacks": [
            {"attack": attack.__name__, "epsilon": epsilon, "top1_percent": attacked(attack, epsilon)}
            for attack in (fgsm, pgd)
            for epsilon in EPSILONS
        ],
    }
