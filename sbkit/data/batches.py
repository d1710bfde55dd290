"""Batches of one epoch: whole batches are drawn, augmented and normalized by tensor operations.

Data then never limits training. All randomness is drawn for the whole batch from one generator, so that processes that
share a batch draw the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sbkit.checks import choice
from sbkit.data.dataset import without_margin


def batches(
    x: Tensor,
    y: Tensor,
    batch_size: int,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    augment: str = "none",
    generator: Generator | None = None,
    device: torch.device | str = "cpu",
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of normalized batches: float32 (n, C, H, W) and int64 (n,) on `device`.

    x is uint8 (N, C, H, W), y int64 (N,); only what a batch needs is read of x and sent to `device`. With `shuffle` the
    order comes from `generator` (a CPU generator) and an incomplete last batch is left out; without it, batches follow
    the data to the end. Of each batch, this process gets the images rank, rank + world_size, ...: all processes
    together see the batches of one process.

    augment = "crop_flip" pads by 4 pixels (2 where images are smaller than 20), crops back at a random place and
    mirrors every second image. "resized_crop" resizes a window of 8 to 100 % of the area, 3/4 to 4/3 as wide as high,
    to 7/8 of the image's size and mirrors, like torchvision's RandomResizedCrop but with windows between pixels.

    Raises ValueError for an unknown `augment`, and for randomness without a generator.
    """
    choice("augment", augment, AUGMENTATIONS)
    if (shuffle or augment != "none") and generator is None:
        raise ValueError("generator = None; allowed with shuffle or augmentation: a torch.Generator")
    count = len(x)
    offset = torch.tensor(mean, device=device).view(1, -1, 1, 1) * 255
    factor = 1 / (torch.tensor(std, device=device).view(1, -1, 1, 1).clamp_min(1e-6) * 255)
    order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
    if generator is not None:
        # Drawn even if unused: the order of later epochs is then the same with and without augmentation.
        draws = Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    for start in range(0, count - batch_size + 1 if shuffle else count, batch_size):
        indices = order[start : start + batch_size]
        mine = slice(rank, None, world_size)
        images, labels = (all_.index_select(0, indices[mine].to(all_.device)).to(device) for all_ in (x, y))
        if augment != "none":
            draw, apply = _AUGMENT[augment]
            images = apply(images, *(drawn[mine].to(device) for drawn in draw(images, len(indices), draws)))
        yield (images - offset) * factor, labels


def _padding(x: Tensor) -> int:
    return 4 if min(x.shape[2:]) >= 20 else 2


def _draw_crop_flip(x: Tensor, count: int, generator: Generator) -> tuple[Tensor, ...]:
    """Row and column offset, and whether to mirror, for each of `count` images of the size of x: each (count,)."""
    row, column = torch.randint(2 * _padding(x) + 1, (2, count), generator=generator)
    return row, column, torch.randint(2, (count,), generator=generator).bool()


def _crop_flip(x: Tensor, row: Tensor, column: Tensor, flip: Tensor) -> Tensor:
    """Zero-padded windows of x (n, C, H, W) at (row, column), mirrored where `flip`; row, column, flip are (n,)."""
    H, W = x.shape[2:]
    windows = F.pad(x, (_padding(x),) * 4).unfold(2, H, 1).unfold(3, W, 1)  # (n, C, rows, columns, H, W), a view
    x = windows[torch.arange(len(x), device=x.device), :, row, column]
    return torch.where(flip[:, None, None, None], x.flip(3), x)


def _draw_resized_crop(x: Tensor, count: int, generator: Generator) -> tuple[Tensor, ...]:
    """Centre and half height and half width of the windows of `count` images of the size of x: each (count,).

    All are in halves of the image's side. A half width below 0 means that the window is mirrored.
    """
    H, W = x.shape[2:]
    tries = (count, 10)
    area = torch.empty(tries).uniform_(0.08, 1, generator=generator)
    shape = torch.empty(tries).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    height, width = (area / shape * W / H).sqrt(), (area * shape * H / W).sqrt()
    fits = (height <= 1) & (width <= 1)
    first = fits.int().argmax(1, keepdim=True)  # of the tries that fit; where none does, the largest window
    height, width = (
        torch.where(fits.any(1), side.gather(1, first)[:, 0], min(1, 4 / 3 * most))
        for side, most in ((height, W / H), (width, H / W))
    )
    row, column = torch.empty((2, count)).uniform_(-1, 1, generator=generator)
    mirror = 1 - 2 * torch.randint(2, (count,), generator=generator)
    return row * (1 - height), column * (1 - width), height, mirror * width


def _resized_crop(x: Tensor, row: Tensor, column: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Those windows of x (n, C, H, W), bilinear, float32 (n, C, 7/8 H, 7/8 W)."""
    h, w = map(without_margin, x.shape[2:])
    rows, columns = ((torch.arange(side, device=x.device) + 0.5) * 2 / side - 1 for side in (h, w))
    down = (row[:, None] + height[:, None] * rows)[:, :, None].expand(-1, h, w)
    across = (column[:, None] + width[:, None] * columns)[:, None, :].expand(-1, h, w)
    grid = torch.stack((across, down), 3)  # (n, h, w, 2), from -1 to 1 over the image
    return F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)


_AUGMENT = {"crop_flip": (_draw_crop_flip, _crop_flip), "resized_crop": (_draw_resized_crop, _resized_crop)}
AUGMENTATIONS = ("none", *_AUGMENT)
