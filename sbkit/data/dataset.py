"""One data set, and what happens to its images before training: a subset, a smaller size, a margin, statistics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sbkit.checks import whole

VALIDATION_SEED = 0  # the same images are held out in every run
BLOCK = 4096  # images at a time, because floats take four times the memory of bytes


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set. The images of an image folder are mapped from a file and read when they are used.

    name      what `load` was asked for
    label     how figures call it, such as "Fashion-MNIST"
    x_train   uint8 (n, C, H, W); x_test likewise, 7/8 as high and wide where x_train has a margin
    y_train   int64 (n,), indices into `classes`; y_test likewise
    mean, std of the training images, one per channel, in units of [0, 1]; `prepared` computes them where they are empty
    sha256    of the bytes of x_train, y_train, x_test, y_test as found, before a subset, a resize or a crop; `prepared`
              computes those that are absent
    """

    name: str
    label: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    sha256: dict[str, str] | None = None


def prepared(
    data: Dataset, *, train_images: int, validation_images: int, image_size: int, margin: bool, seed: int
) -> Dataset:
    """The data set as `load` returns it; its options mean what they mean there. Raises ValueError as `load` does."""
    count, native = len(data.x_train), min(data.x_train.shape[2:])
    whole("validation_images", validation_images, 0, count - 1)
    whole("train_images", train_images, 0, count - validation_images)
    size = with_margin(image_size) if margin else image_size
    if size > native:
        whole("image_size", image_size, 0, without_margin(native) if margin else native)

    known = data.sha256 or {}
    arrays = {key: getattr(data, key) for key in ("x_train", "y_train", "x_test", "y_test")}
    sha256 = {key: known.get(key) or hashlib.sha256(value.numpy()).hexdigest() for key, value in arrays.items()}
    x_train, y_train, x_test, y_test = data.x_train, data.y_train, data.x_test, data.y_test
    mean, std = data.mean, data.std
    if validation_images:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(VALIDATION_SEED))
        held, kept = order[:validation_images], order[validation_images:].sort().values
        x_test, y_test, x_train, y_train = x_train[held], y_train[held], x_train[kept], y_train[kept]
    if train_images:
        kept = torch.randperm(len(x_train), generator=torch.Generator().manual_seed(seed))[:train_images]
        x_train, y_train = x_train[kept], y_train[kept]
    if size:
        x_train, x_test = _resized(x_train, size), _resized(x_test, size)
    if margin:
        H, W = x_test.shape[2:]
        h, w = without_margin(H), without_margin(W)
        x_test = x_test[:, :, (H - h) // 2 :, (W - w) // 2 :][:, :, :h, :w]
    if train_images or validation_images or not mean:
        mean, std = mean_std(sum(map(levels, x_train.split(BLOCK))))
    return replace(
        data, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, mean=mean, std=std, sha256=sha256
    )


def with_margin(side: int) -> int:
    """Pixels of a side with its margin: 256 for 224."""
    return -(-side * 8 // 7)


def without_margin(side: int) -> int:
    """Pixels of a side within its margin: 224 of 256."""
    return side * 7 // 8


def _resized(x: Tensor, size: int) -> Tensor:
    """Mean over areas, uint8 (n, C, H, W) -> (n, C, size, size)."""
    if x.shape[2:] == (size, size):
        return x
    return torch.cat([F.adaptive_avg_pool2d(part.float(), size).round_().to(torch.uint8) for part in x.split(BLOCK)])


def levels(x: Tensor) -> Tensor:
    """How often each channel of x, uint8 (n, C, H, W), has each of the 256 levels: int64 (C, 256)."""
    return torch.stack([torch.bincount(x[:, channel].flatten(), minlength=256) for channel in range(x.shape[1])])


def mean_std(counts: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in [0, 1], exact from the counts of the levels, int64 (C, 256)."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for count in counts:
        share = count.double() / count.sum()
        mean = (share * values).sum()
        means.append(float(mean))
        stds.append(float((share * (values - mean) ** 2).sum().sqrt()))
    return tuple(means), tuple(stds)
