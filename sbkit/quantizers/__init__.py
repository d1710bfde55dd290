"""Quantizers: what the network computes with, given the latent weights that the optimiser moves.

"Signed-binary" here means that each region of a filter takes its values from {0, +alpha} or from {0, -alpha} (Kuhar et
al., arXiv 2312.01581). Elsewhere (brevitas, for one) `SignedBinary` means plain ±1 weights; that is `binary` here.

Every scheme takes latent weights w of shape (K, C, ...), of any rank >= 2, and factors its output as

    w_q = alpha * channel_sign * codes,    codes in {-1, 0, +1}

The derivative of `codes` is zero almost everywhere; a surrogate slope (`Quantizer`) replaces it, times
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

from dataclasses import replace

import torch

from sbkit.quantizers.base import FullPrecision, Quantizer, QuantizerConfig
from sbkit.quantizers.binary import Binary
from sbkit.quantizers.regions import random_patterns, sparsest_masks
from sbkit.quantizers.signed_binary import SignedBinary, ZeroOne
from sbkit.quantizers.ternary import TernaryTTQ, TernaryTWN
from sbkit.schemes import SCHEMES

__all__ = [
    "QUANTIZERS", "FullPrecision", "QuantizerConfig", "make_quantizer", "random_patterns", "response", "sparsest_masks",
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


def response(config: QuantizerConfig, points: int = 81) -> list[dict]:
    """The quantizer sampled on latent weights in [-1.5, 1.5]: forward, and the gradient at start, middle and end.

    Returns one dict per kind of filter: {"beta", "w", "forward", "gradient_start", "gradient_middle", "gradient_end"},
    lists of floats; signed-binary has two, beta = +1 and -1, the others one with beta None. Statistics (max|w|,
    mean|w|) are those of the sampled weights, which form one filter of one region; the channel signs are +1, and a
    learned threshold is where it starts. With `standardize`, w is the weight after standardization.
    """
    assignment = "first_half" if config.assignment == "learned" else config.assignment  # a kind of filter per sign
    off = {"region_channels": 0, "region_taps": 0, "codebook_bits": 0, "codebook": "sparsest", "swap_at": 0.0}
    plain = replace(config, **off, assignment=assignment, standardize=False)
    quantizer = make_quantizer(plain, (1, 1, points), torch.Generator())
    curves = []
    for beta in (1.0, -1.0) if SCHEMES[config.quantizer].signs == "filter" else (None,):
        if beta is not None:
            quantizer.beta.fill_(beta)
        w = torch.linspace(-1.5, 1.5, points).reshape(1, 1, points).requires_grad_()
        curve = {"beta": beta, "w": w.flatten().tolist(), "forward": quantizer(w).flatten().tolist()}
        for moment, progress in (("start", 0.0), ("middle", 0.5), ("end", 1.0)):
            quantizer.set_progress(progress)
            (gradient,) = torch.autograd.grad(quantizer(w).sum(), w)
            curve[f"gradient_{moment}"] = gradient.flatten().tolist()
        curves.append(curve)
    return curves
