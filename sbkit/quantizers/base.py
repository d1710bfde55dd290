"""What all quantizers share: the forward pass, its gradient, and the exact integer codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.checks import number
from sbkit.conv import QuantizedWeight
from sbkit.quantizers.surrogate import ede_slope, ede_temperature, ste_slope, with_slope
from sbkit.schemes import SCHEMES

if TYPE_CHECKING:
    from sbkit.quantizers.config import QuantizerConfig


class Codes(NamedTuple):
    """The factors of quantized weights, and where the surrogate slope is centred."""

    codes: Tensor  # in {-1, 0, +1}, of w's shape and dtype
    alpha: Tensor | None = None  # (K, 1, ...) or (1, 1, ...); None: 1
    centre: Tensor | None = None  # broadcasts to w; None: 0


class Quantizer(nn.Module):
    """Base of the quantizers of one layer, for latent weights of one `shape` (K, C, ...).

    A scheme names the options it uses, checks them, and defines `quantize`; `forward` and `codes` follow from it.
    """

    options: tuple[str, ...] = ()  # the fields of QuantizerConfig that the scheme uses
    weight_bits: float  # stored bits a weight, without scales and fixed signs

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        """Raises ValueError for a wrong value of one of the scheme's options."""

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig, generator: torch.Generator):
        super().__init__()
        if len(shape) < 2 or 0 in shape:
            raise ValueError(f"weight shape {tuple(shape)}; allowed: (K, C, ...), rank >= 2, no dimension empty")
        self.shape, self.config = tuple(shape), config
        self.weight_bits = float(SCHEMES[config.quantizer].stored_bits)
        self.register_buffer("channel_sign", None)  # float32 (C,) in {-1, +1} where a scheme has one
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Tell the estimator how far training is, 0 to 1."""
        number("progress", progress, 0, 1)
        self.t, self.k = ede_temperature(progress)

    def initialize(self, w: Tensor) -> None:
        """Fix what depends on the initial latent weights; to be called once they are drawn."""

    def quantize(self, w: Tensor) -> Codes:
        """The codes of w, which has no gradient and is standardized where the configuration says so."""
        raise NotImplementedError

    def argument(self, w: Tensor) -> Tensor:
        """What the surrogate slope is a derivative by: w, less whatever else is learned. Its value is not used."""
        return w

    def forward(self, w: Tensor) -> Tensor:
        """Quantized weights in w's shape and dtype, differentiable by the surrogate slope."""
        if self.config.standardize:
            w = standardized(w)
        fixed = w.detach()
        codes, factor, centre = self.quantize(fixed)
        if self.config.channel_signs:
            sign = self.channel_sign.reshape(1, -1, *[1] * (w.ndim - 2))
            factor = sign if factor is None else factor * sign
        w_q = codes if factor is None else factor * codes
        if not (torch.is_grad_enabled() and w.requires_grad):
            return w_q
        fixed = fixed if centre is None else fixed - centre
        slope = ste_slope(fixed) if self.config.estimator == "ste" else ede_slope(fixed, self.t, self.k)
        return with_slope(self.argument(w), w_q, slope if factor is None else slope.mul_(factor))

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        """The exact integer form: `codes(w).dense()` equals float32 `forward(w)`. A linear layer has R = S = 1."""
        codes, alpha, _ = self.quantize(standardized(w) if self.config.standardize else w)
        return self._pack(codes, alpha)

    def _pack(self, codes: Tensor, alpha: Tensor | None, negative_alpha: Tensor | None = None) -> QuantizedWeight:
        K, C, *window = codes.shape
        scales = [None if a is None else a.float().flatten().expand(K).cpu().numpy() for a in (alpha, negative_alpha)]
        return QuantizedWeight(
            codes.to("cpu", torch.int8).reshape((K, C, *window) if len(window) == 2 else (K, C, -1, 1)).numpy(),
            *scales,
            channel_sign=None if self.channel_sign is None else self.channel_sign.cpu().numpy(),
            scheme=self.config.quantizer,
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self.config, name)!r}" for name in ("quantizer", *self.options))


class FullPrecision(Quantizer):
    """Values: any. Forward: w. Gradient: 1."""

    def forward(self, w: Tensor) -> Tensor:
        return w

    def codes(self, w: Tensor) -> QuantizedWeight:
        raise TypeError("full_precision weights have no integer codes")


def below_one(name: str, value: float) -> None:
    """Raises ValueError unless the value is a number from 0 to less than 1."""
    number(name, value, 0)
    if value >= 1:
        raise ValueError(f"{name} = {value!r}; allowed: a number >= 0 and below 1")


def standardized(w: Tensor) -> Tensor:
    """Each filter's weights minus their mean, over their standard deviation; finite where that is 0. Differentiable.

    Reference: IR-Net (Qin et al., 2020), "balanced and standardized" weights; the deviation is the population's.
    """
    return F.layer_norm(w, w.shape[1:], eps=1e-12)  # the name of that operation when it normalises activations


def mean_magnitude(w: Tensor, kept: Tensor | None = None) -> Tensor:
    """Mean |w| over the mask `kept` of each filter of w (K, ...), (K, 1, ...); 1 where the mask is empty. None: all."""
    count = w.new_full((1,), w[0].numel()) if kept is None else kept.sum(tuple(range(1, w.ndim)))
    magnitude = w.abs() if kept is None else w.abs().mul_(kept)
    mean = magnitude.flatten(1).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, 1.0).reshape(-1, *[1] * (w.ndim - 1))
