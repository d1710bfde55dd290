"""A quantizer as a curve, to be drawn: its value and its gradient over the latent weight."""

from __future__ import annotations

from dataclasses import replace

import torch

from sbkit.quantizers.config import QuantizerConfig
from sbkit.schemes import SCHEMES


def response(config: QuantizerConfig, points: int = 81) -> list[dict]:
    """The quantizer sampled on latent weights in [-1.5, 1.5]: forward, and the gradient at start, middle and end.

    Returns one dict per kind of filter: {"beta", "w", "forward", "gradient_start", "gradient_middle", "gradient_end"},
    lists of floats; signed-binary has two, beta = +1 and -1, the others one with beta None. Statistics (max|w|,
    mean|w|) are those of the sampled weights, which form one filter of one region; the channel signs are +1, and a
    learned threshold is where it starts. With `standardize`, w is the weight after standardization.
    """
    from sbkit.quantizers import make_quantizer  # not above: the package imports this file

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
