"""Quantizers: what the network computes with, given the latent weights that the optimiser moves.

"Signed-binary" here means that each region of a filter takes its values from {0, +alpha} or from {0, -alpha} (Kuhar et
al., arXiv 2312.01581). Elsewhere (brevitas, for one) `SignedBinary` means plain ±1 weights; that is `binary` here.

Every scheme takes latent weights w of shape (K, C, ...), of any rank >= 2, and factors its output as

    w_q = alpha * channel_sign * codes,    codes in {-1, 0, +1}

The derivative of `codes` is zero almost everywhere; a slope of `sbkit.quantizers.surrogate` replaces it, times
alpha * channel_sign. The statistics of the latent weights, alpha and the threshold Delta, have no gradient: they follow
the weights from step to step, and a straight-through estimator by definition ignores how they move. The signs beta and
channel_sign have none because they are fixed before training; they are buffers, so they travel in the state dict. Under
assignment = 'learned' beta is such a statistic too. Two things are parameters: the scales of TTQ, and under
threshold = 'learned' what fraction of a filter's max|w| its Delta is.

With `standardize`, w stands in all of this, statistics and slopes included, for the standardized latent weights, and
the gradient passes on through the standardization.

A new scheme is a file here with one class, a row of QUANTIZERS, and a row of `sbkit.schemes.SCHEMES`.
"""

from __future__ import annotations

import torch

from sbkit.quantizers.base import FullPrecision, Quantizer
from sbkit.quantizers.binary import Binary
from sbkit.quantizers.codebook import random_patterns, sparsest_masks
from sbkit.quantizers.config import QuantizerConfig
from sbkit.quantizers.response import response
from sbkit.quantizers.signed_binary import SignedBinary, ZeroOne
from sbkit.quantizers.ternary import TernaryTTQ, TernaryTWN

__all__ = [
    "QUANTIZERS", "FullPrecision", "Quantizer", "QuantizerConfig", "make_quantizer", "random_patterns", "response",
    "sparsest_masks",
]  # fmt: skip

QUANTIZERS: dict[str, type[Quantizer]] = {
    "full_precision": FullPrecision,
    "binary": Binary,
    "zero_one": ZeroOne,
    "ternary_twn": TernaryTWN,
    "ternary_ttq": TernaryTTQ,
    "signed_binary": SignedBinary,
}


def make_quantizer(config: QuantizerConfig, shape: tuple[int, ...], generator: torch.Generator) -> Quantizer:
    """The quantizer of one layer with latent weights of `shape`; `generator` draws what is random and fixed in it."""
    return QUANTIZERS[config.quantizer](tuple(shape), config, generator)
