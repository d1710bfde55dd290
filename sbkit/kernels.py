"""Convolutions with low-bit weights on the CPU, in C++: prepare a layer once, then run it on activations.

Every algorithm computes, for float32 activations,

    y[n, k, p, q] = scale[k] * (sum of x_signed over the codes +1) - negative_scale[k] * (sum over the codes -1)

with x_signed = channel_sign * x. A quantization scheme is data: binary, ternary, {0,1} and signed binary differ only in
their codes.

    dense   the plain loop over all weights: the reference
    sparse  adds the activations of the non-zero codes
    table   partial sums of every subset of G channels, built once per input position and shared by all taps and filters

`skip_zeros=False` is what a system without sparsity support does: `sparse` then also sums the activations of the zero
codes (one more unique weight, of coefficient 0) and `table` adds a zero vector where a pattern is empty.

NaN and infinity: `dense` multiplies every activation, so they reach each output whose window holds them, even under a
zero code (0 * inf = NaN); so does `sparse` without `skip_zeros`. Otherwise `sparse` and `table` read only what they
add, so they reach only the outputs that use them. `encoding="rewritten"` subtracts a shared sum: inf - inf gives NaN.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sbkit.conv import ConvShape, QuantizedWeight

with contextlib.suppress(ImportError):
    importlib.import_module("torch")  # before the extension, so that both use torch's OpenMP runtime
_kernels = importlib.import_module("sbkit._kernels")

ALGORITHMS = ("dense", "sparse", "table")
ENCODINGS = ("two_group", "rewritten")
ISAS = ("scalar", "neon", "avx2", "avx512")  # the narrowest first
MAX_GROUP = 10


class Operations(NamedTuple):
    """Operations of the whole layer at batch 1, as its plan executes them; defined in csrc/conv.h."""

    adds: int
    multiplies: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """A layer packed for one algorithm; run it with `conv2d`. It owns its buffers: concurrent calls take turns."""

    algorithm: str
    isa: str
    shape: ConvShape
    group: int  # channels per table; 0 unless the algorithm is `table`
    encoding: str
    skip_zeros: bool
    threads: int
    plan_seconds: float  # offline packing
    weight_bytes: int  # what the online side reads instead of the weights
    operations: Operations
    adds: dict[str, int]  # the adds, by purpose: "table", "entry", "combine"
    geometry: str  # how lanes and tiles cover the image, for people
    _native: object = field(repr=False)


def isas() -> tuple[str, ...]:
    """Instruction sets usable here, the widest last; the environment variable SBKIT_ISA caps them."""
    usable = tuple(_kernels.isas())
    cap = os.environ.get("SBKIT_ISA")
    if not cap:
        return usable
    if cap not in ISAS:
        raise ValueError(f"SBKIT_ISA = {cap!r}; allowed: {', '.join(ISAS)}")
    return tuple(isa for isa in usable if ISAS.index(isa) <= ISAS.index(cap))


def build_info() -> dict:
    """Compiler, flags, whether OpenMP is in, and the ISAs compiled in."""
    return _kernels.build_info()


def _choice(name: str, value, allowed) -> None:
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}; allowed: {', '.join(allowed)}")


def _integer(name: str, value, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} = {value!r}; allowed: an integer from {least} to {most}")


def prepare(
    algorithm: str,
    weight: QuantizedWeight,
    shape: ConvShape,
    *,
    isa: str = "auto",
    skip_zeros: bool = True,
    encoding: str = "two_group",
    group: int = 0,
    threads: int = 1,
) -> Prepared:
    """Pack a layer's codes into the lists an algorithm walks.

    isa       "auto" (the widest usable) or one of `isas()`; `dense` is plain C++ and reports "scalar"
    encoding  "two_group": sum of the +1 minus sum of the -1. "rewritten": 2 * (sum of the +1) - (sum of all), the
              latter shared by all filters; ValueError unless every code is -1 or +1 and both scales are equal
    group     channels per table, 1 to 10; 0 lets a cost model choose (`table` only)
    threads   OpenMP threads; without OpenMP the work is serial

    Raises ValueError naming the argument, its value and what is allowed, TypeError for a wrong type.
    """
    if not isinstance(weight, QuantizedWeight):
        raise TypeError(f"weight is a {type(weight).__name__}; allowed: QuantizedWeight")
    if not isinstance(shape, ConvShape):
        raise TypeError(f"shape is a {type(shape).__name__}; allowed: ConvShape")
    if not isinstance(skip_zeros, bool):
        raise TypeError(f"skip_zeros = {skip_zeros!r}; allowed: True, False")
    _choice("algorithm", algorithm, ALGORITHMS)
    _choice("encoding", encoding, ENCODINGS)
    usable = isas()
    _choice("isa", isa, ("auto", *usable))
    _integer("group", group, 0, MAX_GROUP)
    _integer("threads", threads, 1, 1024)
    if weight.codes.shape != (shape.K, shape.C, shape.R, shape.S):
        raise ValueError(
            f"codes have shape {weight.codes.shape}; allowed for this layer: {(shape.K, shape.C, shape.R, shape.S)}"
        )
    if group and algorithm != "table":
        raise ValueError(f"group = {group} with algorithm {algorithm!r}; allowed: 0, only 'table' has groups")
    if encoding == "rewritten":
        if algorithm == "dense":
            raise ValueError("encoding = 'rewritten' with algorithm 'dense'; allowed: 'two_group'")
        if not weight.codes.all():
            raise ValueError("encoding = 'rewritten' with codes that hold 0; allowed: every code -1 or +1")
        if not np.array_equal(weight.scale, weight.negative_scale):
            raise ValueError("encoding = 'rewritten' with two scales; allowed: scale equal to negative_scale")
    isa = "scalar" if algorithm == "dense" else usable[-1] if isa == "auto" else isa
    dims = (shape.N, shape.C, shape.H, shape.W, shape.K, shape.R, shape.S, shape.stride, shape.padding)
    started = time.perf_counter()
    native = _kernels.Convolution(
        algorithm=algorithm,
        codes=weight.codes,
        scale=weight.scale,
        negative_scale=weight.negative_scale,
        channel_sign=weight.channel_sign,
        dims=dims,
        isa=isa,
        skip_zeros=skip_zeros,
        rewritten=encoding == "rewritten",
        group=group,
        threads=threads,
    )
    seconds = time.perf_counter() - started
    counts = native.operations
    adds = {purpose: counts[f"{purpose}_adds"] for purpose in ("table", "entry", "combine")}
    return Prepared(
        algorithm,
        isa,
        shape,
        native.group,
        encoding,
        skip_zeros,
        threads,
        seconds,
        native.weight_bytes,
        Operations(sum(adds.values()), counts["multiplies"]),
        adds,
        native.geometry,
        native,
    )


def conv2d(prepared: Prepared, x: np.ndarray) -> np.ndarray:
    """Convolve activations x, float32 (N, C, H, W), C-contiguous, into a new float32 (N, K, P, Q)."""
    if not isinstance(prepared, Prepared):
        raise TypeError(f"prepared is a {type(prepared).__name__}; allowed: what prepare() returns")
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x is a {type(x).__name__}; allowed: a float32 numpy array")
    return prepared._native.run(x)
