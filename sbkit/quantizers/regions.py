"""Regions: the parts of a layer's weights that share a sign or a pattern; their signs, and codebooks of patterns."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from sbkit.checks import choice, whole
from sbkit.quantizers.base import QuantizerConfig
from sbkit.way import MOST_CHANNELS, MOST_PATTERNS

MAX_CODEBOOK_BITS, MAX_CODEBOOK_CHANNELS = MOST_PATTERNS.bit_length() - 1, MOST_CHANNELS["codebook"]
CODEBOOK_DECAY = 0.99  # what a step leaves of the running sums of a learned codebook


class Regions:
    """How the weights (K, C, ...) of a layer fall into regions: neighbouring channels of a filter, at all taps or one.

    Raises ValueError where region_channels does not divide C.
    """

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


class Codebook(nn.Module):
    """2^b patterns m_1, m_2, ... in {low, 1} for the weights of a region, which all regions of a layer share.

    A region with values v takes the pattern m_j, j = argmax_i m_i . v. `sparsest` masks (low = 0) and `random` patterns
    are fixed before training. `learned` patterns start there (at random ones where low = -1) and then follow the
    regions as the codewords of a vector quantizer do, by a step of Lloyd's algorithm with running sums s:

        s_j <- 0.99 s_j + 0.01 (sum of v over the regions that took m_j),    m_j = 1 where s_j >= 0, else low

    Like the running statistics of a batch norm, learned patterns move at each forward pass in training mode.
    Reference: sub-bit networks (Wang et al., 2021), whose patterns are whole 3x3 kernels of signs.
    """

    options = ("region_channels", "region_taps", "codebook_bits", "codebook")

    @staticmethod
    def check(config: QuantizerConfig) -> None:
        """Raises ValueError for a wrong value of these options."""
        whole("region_channels", config.region_channels, 0)
        whole("region_taps", config.region_taps, 0, 1)
        choice("codebook", config.codebook, ("sparsest", "random", "learned"))
        bits, channels = config.codebook_bits, config.region_channels
        whole("codebook_bits", bits, 0, MAX_CODEBOOK_BITS)
        if bits and not (config.region_taps == 1 and bits <= channels <= MAX_CODEBOOK_CHANNELS):
            raise ValueError(
                f"codebook_bits = {bits} with region_channels = {channels}, region_taps = {config.region_taps}; "
                f"allowed: 0, or up to region_channels with region_taps = 1, region_channels <= {MAX_CODEBOOK_CHANNELS}"
            )
        if config.codebook != "sparsest" and not bits:
            raise ValueError(f"codebook = {config.codebook!r} with codebook_bits = 0; allowed: sparsest")

    def __init__(self, regions: Regions, low: float, config: QuantizerConfig, generator: torch.Generator):
        super().__init__()
        self.regions, self.low, self.learned = regions, low, config.codebook == "learned"
        size, bits = regions.size, config.codebook_bits
        if low or config.codebook == "random":
            patterns = random_patterns(size, bits, low, generator)
        else:
            patterns = sparsest_masks(size, bits, generator)
        self.register_buffer("patterns", patterns)  # float32 (2^b, weights of a region)
        if self.learned:
            self.register_buffer("sums", patterns - (1 + low) / 2)

    def weight_bits(self, shape: tuple[int, ...]) -> float:
        """Stored bits a weight of a layer; fixed patterns cost nothing, as a seed gives them back."""
        kept = self.patterns.numel() if self.learned else 0
        return math.log2(len(self.patterns)) / self.regions.size + kept / math.prod(shape)

    def forward(self, w: Tensor) -> Tensor:
        """The pattern of each region of w, in w's shape; learned patterns then move."""
        regions = self.regions.split(w)
        chosen = (regions @ self.patterns.T).max(3).indices  # (K, groups, blocks); `argmax` is slower
        taken = self.regions.join(self.patterns.index_select(0, chosen.flatten()), w)
        if self.learned and self.training and torch.is_grad_enabled():
            sums = torch.zeros_like(self.patterns).index_add_(0, chosen.flatten(), regions.flatten(0, 2))
            self.sums.lerp_(sums, 1 - CODEBOOK_DECAY)
            self.patterns = torch.where(self.sums >= 0, 1.0, self.low)
        return taken


def sparsest_masks(size: int, bits: int, generator: torch.Generator) -> Tensor:
    """The 2^bits masks of fewest weights over `size` weights, float32 (2^bits, size) in {0, 1}, the empty one first.

    Of the masks of most weights, not all of which fit, as many as do are drawn from `generator`. Raises ValueError
    where there are not so many masks.
    """
    whole("bits", bits, 0, size)
    rows = []
    for weights in range(size + 1):
        masks = list(itertools.combinations(range(size), weights))
        left = 2**bits - len(rows)
        kept = range(len(masks)) if len(masks) <= left else torch.randperm(len(masks), generator=generator)[:left]
        rows += [masks[i] for i in kept]
    book = torch.zeros(2**bits, size)
    for row, mask in enumerate(rows):
        book[row, list(mask)] = 1
    return book


def random_patterns(size: int, bits: int, low: float, generator: torch.Generator) -> Tensor:
    """2^bits different patterns over `size` weights, drawn from `generator`, float32 (2^bits, size) in {low, 1}.

    Raises ValueError where there are not so many.
    """
    whole("bits", bits, 0, size)
    numbers = torch.randperm(2**size, generator=generator)[: 2**bits]
    return torch.where((numbers[:, None] >> torch.arange(size)) % 2 > 0, 1.0, low)
