"""Convolutions with low-bit weights on the CPU, in C++: prepare a layer once, then run it on activations.

Every algorithm computes, for float32 activations,

    y[n, k, p, q] = act(scale[k] * (sum of x_signed over the codes +1) - negative_scale[k] * (sum over the codes -1)
                        + bias[k] + residual[n, k, p, q])

with x_signed = channel_sign * x, act the identity or a ReLU, and bias and residual zero unless given. A quantization
scheme is data: binary, ternary, {0,1} and signed binary differ only in their codes.

    dense     the plain loop over all weights: the reference
    sparse    adds the activations of the non-zero codes
    table     partial sums of the patterns that G channels can have, built once per input position and shared by all
              taps and filters
    dataflow  per tile of a few channels with all taps, a graph of sums that all filters share, found offline by
              greedily merging the pair that most filters have in common (after SumMerge, Prabhakar et al., ICS 2021)
    lookup    integer activations alone: tables of 16 masks in registers, with filters as lanes

`skip_zeros=False` is what a system without sparsity support does: `sparse` and `dataflow` then also sum the activations
of the zero codes (one more unique weight, of coefficient 0), and `table` adds a zero vector where a pattern is empty.

NaN and infinity: `dense` multiplies every activation, so they reach each output whose window holds them, even under a
zero code (0 * inf = NaN); so do `sparse` and `dataflow` without `skip_zeros`. Otherwise only what is added is read, so
they reach only the outputs that use them. `encoding="rewritten"` subtracts a shared sum: inf - inf gives NaN. As in
torch, the ReLU of NaN is NaN.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sbkit import integers
from sbkit.checks import choice, whole
from sbkit.conv import ConvShape, QuantizedWeight, mixes_signs
from sbkit.encodings import check_encoding, largest_group, one_scale
from sbkit.integers import Rounding
from sbkit.way import ENCODINGS, FLOAT_BITS, MOST_CHANNELS, check_bits

with contextlib.suppress(ImportError):
    importlib.import_module("torch")  # before the extension, so that both use torch's OpenMP runtime
_kernels = importlib.import_module("sbkit._kernels")

ISAS = ("scalar", "neon", "avx2", "avx512")
"""Instruction sets that the kernels can be compiled for, the narrowest first."""
MOST_THREADS = 1024


_forks = 0  # from which process this one was forked: their threads and locks are not here


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def forks() -> int:
    """How often this process's ancestors had forked: what one of them packed cannot run here."""
    return _forks


class Operations(NamedTuple):
    """Operations of the whole layer at batch 1, as its plan executes them; defined in csrc/conv.h."""

    adds: int
    multiplies: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """A layer packed for one algorithm; run it with `conv2d`. It owns its buffers: concurrent calls take turns.

    In a forked child process, the threads and locks of the parent are lost: a layer that the parent prepared is packed
    anew at its first run there, for one thread.
    """

    algorithm: str
    isa: str
    shape: ConvShape
    group: int  # channels that share a table or a graph; 0 if none do
    encoding: str
    skip_zeros: bool
    threads: int
    plan_seconds: float  # offline packing
    weight_bytes: int  # what the online side reads instead of the weights
    operations: Operations
    adds: dict[str, int]  # the adds, by purpose: "table", "node", "entry", "combine"
    geometry: str  # how lanes and tiles cover the image, for people
    weight: QuantizedWeight = field(repr=False)  # what was packed: to be read, not changed
    bias: np.ndarray = field(repr=False)
    relu: bool = field(repr=False)
    _native: object = field(repr=False)
    _forks: int = field(repr=False)  # how often this process's ancestors had forked when `_native` was packed
    activation_bits: int = FLOAT_BITS
    rounding: Rounding | None = field(default=None, repr=False)


def isas(activation_bits: int = FLOAT_BITS) -> tuple[str, ...]:
    """Instruction sets usable here, the widest last; the environment variable SBKIT_ISA caps them.

    Integer activations need more of AVX-512 than floats do.
    """
    usable = tuple(_kernels.isas() if activation_bits == FLOAT_BITS else _kernels.integer_isas())
    cap = os.environ.get("SBKIT_ISA")
    if not cap:
        return usable
    choice("SBKIT_ISA", cap, ISAS)
    return tuple(isa for isa in usable if ISAS.index(isa) <= ISAS.index(cap))


def build_info() -> dict:
    """Compiler, flags, whether OpenMP is in, and the ISAs compiled in."""
    return _kernels.build_info()


def usable_isa(isa: str, activation_bits: int = FLOAT_BITS) -> str:
    """The ISA of this name, or the widest for "auto". Raises ValueError for one that is not usable here."""
    usable = isas(activation_bits)
    choice("isa", isa, ("auto", *usable))
    return usable[-1] if isa == "auto" else isa


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
    bias: np.ndarray | None = None,
    relu: bool = False,
    tune: bool = False,
    activation_bits: int = FLOAT_BITS,
    rounding: Rounding | None = None,
    lane_bits: int = 0,
) -> Prepared:
    """Pack a layer's codes into the lists that an algorithm walks.

    algorithm  one of those above; with integers `dense`, `table`, `lookup`, or "auto", the cheaper of the last two by a
              cost model, or by time with `tune`
    isa       "auto" (the widest usable) or one of `isas()`; `dense` is plain C++ and reports "scalar"
    encoding  "two_group": the +1 are added and the -1 subtracted, each group of one value summed for itself.
              "rewritten": 2 * (sum of the +1) - (sum of all), where all filters share the second sum; only for codes -1
              and +1. "signed", only of `table`: the whole pattern of a channel group, +1 and -1 together, is one entry
              of the table, up to its sign; the cheapest for binary (2^(G-1) sums) and ternary ((3^G - 1) / 2 sums).
              "codebook", only of `table`: the same, but the table holds only patterns that occur in the layer; for
              codes trained with a codebook. These three need both scales to be equal. "auto": of "two_group" and, where
              they are allowed, "signed" and "codebook", the cheapest by the cost model, or by time with `tune`
    group     channels per table, 1 to 10 ("signed" with zeros and both signs in a filter: to 6; "codebook": to 16, as
              long as a table has at most 1,024 patterns), or channels per tile of `dataflow`, 1 to 32; 0: a cost model
              chooses, for `dataflow` by planning samples
    threads   OpenMP threads, 1 to 1,024, and 1 in a forked child; without OpenMP the work is serial
    bias      float32 (K,), added to every output of a filter: with `scale`, a folded batch normalisation
    relu      clamp outputs at 0, after bias and residual
    tune      time the cost model's best choices on this machine, with integers those of "auto", and keep the fastest,
              which takes some tenths of a second; without it the model decides, and the same input gives the same plan
    activation_bits  32: floats. 2 to 8: `conv2d` takes unsigned integers, uint8 below 2^activation_bits, and returns
              exact sums over codes times channel signs, int32 without scale; what goes with them is in `integers`
    rounding  with integers: return the next layer's activations, uint8, instead of sums
    lane_bits  with integers and `table`: 8 or 16 bits a position in a vector; 0: the cheaper by a cost model

    Raises ValueError naming the argument, its value and what is allowed, TypeError for a wrong type.
    """
    _check_types(weight, shape, skip_zeros=skip_zeros, relu=relu, tune=tune)
    check_bits(activation_bits)
    isa = usable_isa(isa, activation_bits)
    if activation_bits < FLOAT_BITS:
        floats = {"bias": (bias, None), "relu": (relu, False), "skip_zeros": (skip_zeros, True)}
        integers.check_options(algorithm, weight, encoding, rounding, **floats)
        _check_shared(weight, shape, threads)
        options = {"isa": isa, "activation_bits": activation_bits, "lane_bits": lane_bits, "group": group}
        return _pack_integers(algorithm, weight, shape, encoding, rounding, tune, options | {"threads": threads})
    for name, value, allowed in (("rounding", rounding, None), ("lane_bits", lane_bits, 0)):
        if value != allowed:
            raise ValueError(f"{name} = {value!r} with float activations; allowed: {allowed}")
    _check_options(algorithm, weight, shape, encoding, group, threads)
    isa = "scalar" if algorithm == "dense" else isa
    options = {"isa": isa, "skip_zeros": skip_zeros, "group": group, "threads": threads, "relu": relu, "tune": tune}
    return _cheapest(algorithm, weight, shape, encoding, bias, options)


def _cheapest(
    algorithm: str,
    weight: QuantizedWeight,
    shape: ConvShape,
    encoding: str,
    bias: np.ndarray | None,
    options: dict[str, Any],
) -> Prepared:
    options["bias"] = np.zeros(shape.K, np.float32) if bias is None else np.array(bias)
    encodings = _automatic(algorithm, weight, options["group"]) if encoding == "auto" else (encoding,)
    found = [_pack(algorithm, weight, shape, encoding, options) for encoding in encodings]
    return min(found, key=lambda prepared: prepared._native.cost)


def _check_types(weight: Any, shape: Any, **flags: Any) -> None:
    for name, value, allowed in (("weight", weight, QuantizedWeight), ("shape", shape, ConvShape)):
        if not isinstance(value, allowed):
            raise TypeError(f"{name} is a {type(value).__name__}; allowed: {allowed.__name__}")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} = {value!r}; allowed: True, False")


def _check_options(
    algorithm: str, weight: QuantizedWeight, shape: ConvShape, encoding: str, group: int, threads: int
) -> None:
    choice("encoding", encoding, (*ENCODINGS, "auto"))
    check_encoding(algorithm, "two_group" if encoding == "auto" else encoding, weight)
    most = {"table": largest_group(weight.codes, encoding), "dataflow": MOST_CHANNELS["dataflow"]}
    whole(f"group of {algorithm}", group, 0, most.get(algorithm, 0))
    _check_shared(weight, shape, threads)


def _check_shared(weight: QuantizedWeight, shape: ConvShape, threads: int) -> None:
    whole("threads", threads, 1, MOST_THREADS)
    if _forks and threads > 1:
        raise ValueError(f"threads = {threads} in a forked process; allowed: 1, or a process started by 'spawn'")
    allowed = (shape.K, shape.C, shape.R, shape.S)
    if weight.codes.shape != allowed:
        raise ValueError(f"codes have shape {weight.codes.shape}; allowed for this layer: {allowed}")


def _automatic(algorithm: str, weight: QuantizedWeight, group: int) -> tuple[str, ...]:
    """The encodings of which `encoding="auto"` takes the cheapest."""
    if algorithm != "table" or not one_scale(weight):
        return ("two_group",)
    signed = mixes_signs(weight.codes) and group <= MOST_CHANNELS["ternary"]
    return ("two_group", "signed", "codebook") if signed else ("two_group", "codebook")


def _pack(
    algorithm: str, weight: QuantizedWeight, shape: ConvShape, encoding: str, options: dict[str, Any]
) -> Prepared:
    started = time.perf_counter()
    native = _convolution(algorithm, weight, shape, encoding, options)
    own = {name: options[name] for name in ("isa", "skip_zeros", "threads", "bias", "relu")}
    return _prepared(algorithm, weight, shape, encoding, native, started, **own)


def _pack_integers(
    algorithm: str,
    weight: QuantizedWeight,
    shape: ConvShape,
    encoding: str,
    rounding: Rounding | None,
    tune: bool,
    options: dict[str, Any],
) -> Prepared:
    started = time.perf_counter()
    found = []
    for each in integers.FAST if algorithm == "auto" else (algorithm,):
        encodings = (encoding,)
        if encoding == "auto":
            encodings = integers.ENCODINGS_OF[each] if weight.codes.all() else ("two_group",)
        found += [(each, own, integers.pack(each, weight, shape, own, rounding, **options)) for own in encodings]
    key = integers.seconds if tune and len(found) > 1 else lambda native, shape: native.cost
    algorithm, encoding, native = min(found, key=lambda plan: key(plan[2], shape))
    own = {name: options[name] for name in ("threads", "activation_bits")} | {"rounding": rounding, "skip_zeros": True}
    own |= {"bias": np.zeros(shape.K, np.float32), "relu": False}
    isa = "scalar" if algorithm == "dense" else options["isa"]
    return _prepared(algorithm, weight, shape, encoding, native, started, isa=isa, **own)


def _prepared(
    algorithm: str,
    weight: QuantizedWeight,
    shape: ConvShape,
    encoding: str,
    native: Any,
    started: float,
    **options: Any,
) -> Prepared:
    seconds, counts = time.perf_counter() - started, native.operations
    adds = {purpose: counts[f"{purpose}_adds"] for purpose in ("table", "node", "entry", "combine")}
    return Prepared(
        algorithm=algorithm,
        shape=shape,
        group=native.group,
        encoding=encoding,
        plan_seconds=seconds,
        weight_bytes=native.weight_bytes,
        operations=Operations(sum(adds.values()), counts["multiplies"]),
        adds=adds,
        geometry=native.geometry,
        weight=weight,
        _native=native,
        _forks=_forks,
        **options,
    )


def _convolution(
    algorithm: str, weight: QuantizedWeight, shape: ConvShape, encoding: str, options: dict[str, Any]
) -> Any:
    return _kernels.Convolution(
        algorithm=algorithm,
        codes=weight.codes,
        scale=weight.scale,
        negative_scale=weight.negative_scale,
        channel_sign=weight.channel_sign,
        dims=(shape.N, shape.C, shape.H, shape.W, shape.K, shape.R, shape.S, shape.stride, shape.padding),
        encoding=encoding,
        **options,
    )


def _repack(prepared: Prepared) -> None:
    """Replace what a parent process packed, whose lock may be held and whose threads are gone."""
    layer = prepared.algorithm, prepared.weight, prepared.shape, prepared.encoding
    options = {"isa": prepared.isa, "group": prepared.group, "threads": 1}
    if prepared.activation_bits < FLOAT_BITS:
        options |= {"activation_bits": prepared.activation_bits, "lane_bits": 0}
        native = integers.pack(*layer, prepared.rounding, **options)
    else:
        floats = {name: getattr(prepared, name) for name in ("skip_zeros", "bias", "relu")}
        native = _convolution(*layer, options | floats | {"tune": False})
    for name, value in (("_native", native), ("_forks", _forks), ("threads", 1)):
        object.__setattr__(prepared, name, value)


def conv2d(prepared: Prepared, x: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
    """Convolve activations x, float32 (N, C, H, W), C-contiguous, into a new float32 (N, K, P, Q).

    `residual`, float32 (N, K, P, Q), C-contiguous, is added to the outputs before the ReLU.

    A layer prepared for integers takes x as uint8 and returns its raw sums, int32 (N, K, P, Q). With a rounding it
    returns uint8, and takes a residual of uint8. Raises ValueError for an activation above 2^activation_bits - 1.
    """
    if not isinstance(prepared, Prepared):
        raise TypeError(f"prepared is a {type(prepared).__name__}; allowed: what prepare() returns")
    dtype = "float32" if prepared.activation_bits == FLOAT_BITS else "uint8"
    for name, value in (("x", x), ("residual", residual)):
        if not isinstance(value, np.ndarray) and (value is not None or name == "x"):
            raise TypeError(f"{name} is a {type(value).__name__}; allowed: a {dtype} numpy array")
    return native(prepared).run(x, residual)


def native(prepared: Prepared) -> Any:
    """The extension's layer."""
    if prepared._forks != _forks:
        _repack(prepared)
    return prepared._native


def step(kind: str, **options: Any) -> Any:
    """A step of the extension for `pipeline`: "full", "outer", "quantize", "regrid", "max_pool" or
    "head"."""
    return getattr(_kernels, kind)(**options)


def pipeline(inputs: int, links: Sequence[tuple[Any, int, int]], outputs: Sequence[int]) -> Any:
    """Steps of the extension as one: each link has a step and the numbers of the tensors x and residual (-1: none)."""
    return _kernels.Pipeline(inputs, list(links), list(outputs))
