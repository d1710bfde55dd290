"""Random codes of a layer, as our kernels are timed on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sbkit import repetition
from sbkit.bench.config import BenchConfig
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.quantizers import random_patterns, sparsest_masks
from sbkit.way import Way


def random_codes(config: BenchConfig, shape: ConvShape, way: Way, density: float | None = None) -> QuantizedWeight:
    """Random codes (K, C, R, S) of a way; ways with the same scheme, density, regions and codebook get the same ones.

    `density` is the probability of a non-zero code, None the configuration's. With `way.regions`, each region of that
    many channels of a filter has a random sign of its own. With `way.codebook_bits`, density is that of the patterns.
    """
    if way.codebook_bits:
        return _codes_of_a_codebook(config, shape, way)
    density = config.density_of(way.scheme) if density is None else density
    generator = np.random.default_rng(config.seed)
    weight = repetition.random_codes(way.scheme, (shape.K, shape.C, shape.R, shape.S), density, generator)
    if way.regions:
        blocks = generator.choice(np.array([-1, 1], np.int8), (shape.K, -(-shape.C // way.regions)))
        signs = blocks.repeat(way.regions, axis=1)[:, : shape.C, None, None]
        weight = replace(weight, codes=np.abs(weight.codes) * signs)
    return weight


def _codes_of_a_codebook(config: BenchConfig, shape: ConvShape, way: Way) -> QuantizedWeight:
    """Codes whose regions hold patterns of one codebook, every pattern being as likely as any other.

    The patterns are random signs for binary. For other schemes they are the sparsest masks, each with a random sign;
    trained codes hold the empty mask more often and are sparser.
    """
    generator, torch_generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    size = (shape.K, -(-shape.C // way.regions), shape.R, shape.S)
    if way.scheme == "binary":
        patterns, signs = random_patterns(way.regions, way.codebook_bits, -1.0, torch_generator), np.int8(1)
    else:
        patterns = sparsest_masks(way.regions, way.codebook_bits, torch_generator)
        signs = generator.choice(np.array([-1, 1], np.int8), (*size, 1))
    patterns = patterns.numpy().astype(np.int8)
    regions = signs * patterns[generator.integers(len(patterns), size=size)]  # (K, blocks, R, S, channels of a block)
    codes = regions.transpose(0, 1, 4, 2, 3).reshape(shape.K, -1, shape.R, shape.S)[:, : shape.C]
    return QuantizedWeight(np.ascontiguousarray(codes), scheme=way.scheme)
