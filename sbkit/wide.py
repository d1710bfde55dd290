"""Convolutions that are kept in full precision, between layers of integers: weights and activations of 16 bits.

    y = clamp(round(scale[k] * s * sum + bias[k]), 0, 2**bits - 1)     sum = sum over the window of weight * q

in float32, from left to right, rounding half to even. q are unsigned integers up to `most_x` and s = 1, or q are floats
rounded to integers, q = round(x / s), with s = max|x| / MOST_OF_FLOATS of each image. The sums are exact in 32 bits, so
the weights, round(w / step[k]), have as many bits as leave room for them, up to 16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sbkit import kernels
from sbkit.conv import ConvShape
from sbkit.integers import Rounding

MOST_OF_FLOATS = 4095
"""The largest integer that stands for a float activation."""
_MOST_WEIGHT, _MOST_SUM = 2**15 - 1, 2**31 - 1


class WideWeight(NamedTuple):
    """A weight of float64 (K, C, R, S) as step[k] * values, int16."""

    values: np.ndarray
    step: np.ndarray  # float64 (K,)


def widen(weight: np.ndarray, most_x: int) -> WideWeight:
    """Round a finite weight (K, C, R, S) to the largest integers whose sums with activations to `most_x` fit 32 bits."""
    if weight.ndim != 4 or not np.isfinite(weight).all():
        raise ValueError(f"weight has shape {weight.shape} or is not finite; allowed: finite, (K, C, R, S)")
    window = weight[0].size
    if (room := _MOST_SUM - most_x * window / 2) <= 0:  # each rounding adds up to a half
        raise ValueError(f"C * R * S = {window} with activations to {most_x}; allowed: below {2 * _MOST_SUM // most_x}")
    size = np.abs(weight.astype(np.float64))
    step = np.maximum(size.max((1, 2, 3)) / _MOST_WEIGHT, size.sum((1, 2, 3)) * most_x / room)
    step[step == 0] = 1.0
    return WideWeight(np.rint(weight / step[:, None, None, None]).astype(np.int16), step)


def pack(
    weight: WideWeight, shape: ConvShape, rounding: Rounding, *, most_x: int, floats: bool, isa: str, threads: int
) -> Any:
    """The extension's step of a chain; the rounding has no residual."""
    return kernels.chain_step(
        "wide",
        weights=np.ascontiguousarray(weight.values),
        dims=(shape.N, shape.C, shape.H, shape.W, shape.K, shape.R, shape.S, shape.stride, shape.padding),
        floats=floats,
        most_x=most_x,
        isa=isa,
        threads=1 if kernels.forks() else threads,
        rounding=(rounding.scale, rounding.bias, rounding.bits),
    )
