"""What the weights of a network look like while it trains: densities, flips, histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from sbkit.models import quant_layers, quantized_weights

HISTOGRAM_BINS = 41

Codes = dict[str, np.ndarray]


def codes_of(model: nn.Module) -> Codes:
    """{layer: codes}, int8 (K, C, R, S); empty in full precision."""
    return {name: weight.codes for name, weight in quantized_weights(model).items()}


def density(codes: Codes) -> float:
    """Share of the codes that are not zero; 1 in full precision."""
    if not codes:
        return 1.0
    return sum(int(np.count_nonzero(c)) for c in codes.values()) / sum(c.size for c in codes.values())


def flip_fraction(before: Codes, after: Codes) -> float:
    """Share of the codes that differ; 0 in full precision."""
    if not after:
        return 0.0
    return sum(int(np.count_nonzero(before[n] != after[n])) for n in after) / sum(c.size for c in after.values())


def weight_bits(model: nn.Module) -> float:
    """Mean stored bits of a quantized weight: learned signs of regions count, scales do not."""
    layers = quant_layers(model).values()
    return sum(q.weight.numel() * q.quantizer.weight_bits for q in layers) / sum(q.weight.numel() for q in layers)


def layer_table(codes: Codes) -> list[dict[str, Any]]:
    """Per quantized layer: its name, shape and density."""
    return [
        {"name": name, **dict(zip("KCRS", values.shape, strict=True)), "density": density({name: values})}
        for name, values in codes.items()
    ]


def latent_histograms(model: nn.Module, codes: Codes) -> dict[str, dict[str, list]]:
    """Histograms of the latent weights of the first, middle and last quantized layer.

    {layer: {"edges", "positive", "negative", "positive_effectual", "negative_effectual"}}: counts in the regions of
    sign beta = +1 and -1, and how many of them have a non-zero code. Where a scheme has no such signs all regions are
    positive, in full precision all weights are effectual.
    """
    layers = quant_layers(model)
    names = list(layers)
    histograms = {}
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        quantizer, w = layers[name].quantizer, layers[name].weight.detach().float()
        beta = quantizer.signs(w) if hasattr(quantizer, "signs") else torch.ones(())
        w, beta = w.cpu().numpy(), beta.cpu().numpy()
        positive = np.broadcast_to(beta > 0, w.shape)
        effectual = codes[name].reshape(w.shape) != 0 if name in codes else np.ones_like(positive)
        limit = float(np.abs(w).max())
        edges = np.linspace(-limit, limit, HISTOGRAM_BINS + 1)
        groups = {
            "positive": positive,
            "negative": ~positive,
            "positive_effectual": positive & effectual,
            "negative_effectual": ~positive & effectual,
        }
        counts = {key: np.histogram(w[group], edges)[0].tolist() for key, group in groups.items()}
        histograms[name] = {"edges": edges.tolist(), **counts}
    return histograms
