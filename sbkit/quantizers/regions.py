"""Regions: the parts of a layer's weights that share a sign or a pattern, and how their signs are drawn."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sbkit.checks import whole

if TYPE_CHECKING:
    from sbkit.quantizers.config import QuantizerConfig


class Regions:
    """How the weights (K, C, ...) of a layer fall into regions: neighbouring channels of a filter, at all taps or one.

    Raises ValueError where region_channels does not divide C.
    """

    options = ("region_channels", "region_taps")

    @staticmethod
    def check(config: QuantizerConfig) -> None:
        """Raises ValueError for a wrong value of these options."""
        whole("region_channels", config.region_channels, 0)
        whole("region_taps", config.region_taps, 0, 1)

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig):
        C, taps = shape[1], math.prod(shape[2:])
        channels = config.region_channels or C
        if C % channels:
            divisors = [d for d in range(1, C + 1) if C % d == 0]
            raise ValueError(f"region_channels = {channels} does not divide C = {C}; allowed: 0 or one of {divisors}")
        self.blocks, self.channels = C // channels, channels
        self.groups = taps if config.region_taps else 1  # of taps; a region is a block of channels at a group of taps
        self.count = self.blocks * self.groups  # B, of a filter: region b is block b // groups at group b % groups
        self.size = channels * taps // self.groups  # weights of a region

    def split(self, w: Tensor) -> Tensor:
        """w as (K, groups, blocks, weights of a region): no copy where the channels lie last in memory."""
        w = w.movedim(1, -1) if self.groups > 1 else w
        return w.reshape(len(w), self.groups, self.blocks, self.size)

    def join(self, regions: Tensor, w: Tensor) -> Tensor:
        """(K, groups, blocks, weights of a region), the first three in any shape, in w's shape: undoes `split`."""
        if self.groups > 1:
            return regions.reshape(-1, *w.shape[2:], w.shape[1]).movedim(-1, 1)
        return regions.reshape(-1, *w.shape[1:])

    def numbered(self, per_region: Tensor) -> Tensor:
        """(K, groups, blocks) as (K, B)."""
        return per_region.transpose(1, 2).flatten(1)

    def laid_out(self, per_region: Tensor) -> Tensor:
        """(K, B) as (K, groups, blocks): undoes `numbered`."""
        return per_region.unflatten(1, (self.blocks, self.groups)).mT

    def spread(self, per_region: Tensor, w: Tensor) -> Tensor:
        """(K or 1, groups or 1, blocks or 1) in a shape that broadcasts to w's."""
        if per_region.shape[1:] == (1, 1):
            return per_region.reshape(-1, *[1] * (w.ndim - 1))
        per_channel = per_region[..., None].expand(-1, self.groups, self.blocks, self.channels)
        if self.groups > 1:  # in memory the channels lie last, as in channels_last
            return per_channel.reshape(-1, *w.shape[2:], w.shape[1]).movedim(-1, 1)
        return per_channel.reshape(-1, w.shape[1], *[1] * (w.ndim - 2))


def region_signs(K: int, B: int, fraction: float, assignment: str, generator: torch.Generator) -> Tensor:
    """Signs beta of the B regions of K filters, float32 (K, B) in {-1, +1}, `fraction` of them positive.

    first_half   all regions of the first floor(fraction K) filters are positive (the released code: K = 7 -> 3)
    interleaved  region (k, b) is positive iff floor((k + b + 1) fraction) > floor((k + b) fraction)
    random       exactly round(fraction K B) regions, drawn from `generator`, are positive
    """
    f = Fraction(str(fraction))  # as written: in floating point 0.29 * 100 is less than 29
    k, b = np.indices((K, B))
    if assignment == "first_half":
        positive = k < math.floor(f * K)
    elif assignment == "interleaved":
        steps = np.array([math.floor((i + 1) * f) > math.floor(i * f) for i in range(K + B)])
        positive = steps[k + b]
    else:
        positive = torch.randperm(K * B, generator=generator).reshape(K, B).numpy() < round(f * K * B)
    return torch.from_numpy(np.where(positive, np.float32(1), np.float32(-1)))


def ranked_signs(sums: Tensor, fraction: float) -> Tensor:
    """Signs beta, float32 (K, B) like `sums`: the round(fraction K B) regions of largest sum are positive."""
    beta = torch.full((sums.numel(),), -1.0)
    beta[sums.flatten().argsort(descending=True, stable=True)[: round(Fraction(str(fraction)) * len(beta))]] = 1
    return beta.reshape(sums.shape)
