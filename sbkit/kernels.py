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

`skip_zeros=False` is what a system without sparsity support does: `sparse` and `dataflow` then also sum the activations
of the zero codes (one more unique weight, of coefficient 0) and `table` adds a zero vector where a pattern is empty.

NaN and infinity: `dense` multiplies every activation, so they reach each output whose window holds them, even under a
zero code (0 * inf = NaN); so do `sparse` and `dataflow` without `skip_zeros`. Otherwise only what is added is read, so
they reach only the outputs that use them. `encoding="rewritten"` subtracts a shared sum: inf - inf gives NaN. As in
torch, the ReLU of NaN is NaN.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import time
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sbkit.conv import ConvShape, QuantizedWeight, mixes_signs
from sbkit.records import write_atomic

with contextlib.suppress(ImportError):
    importlib.import_module("torch")  # before the extension, so that both use torch's OpenMP runtime
_kernels = importlib.import_module("sbkit._kernels")

ALGORITHMS = ("dense", "sparse", "table", "dataflow")
ENCODINGS = ("two_group", "rewritten", "signed", "codebook")
ISAS = ("scalar", "neon", "avx2", "avx512")  # the narrowest first
MAX_GROUP = {"table": 10, "dataflow": 32}
MAX_TERNARY_GROUP = 6  # of `table` and the encoding "signed", with codes of all three values
MAX_CODEBOOK_GROUP = 16  # of `table` and the encoding "codebook"
PLAN_VERSION = 1  # of the files of `save_plan`


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


def peaks(isa: str = "auto") -> dict[str, float]:
    """What one core of this machine reaches, measured in some 50 ms: the roofs of a roofline.

    lanes       floats of a vector
    fma_gmacs   1e9 fused multiply-adds of floats a second, from registers
    l1_gadds    1e9 vectors a second loaded from random places and added, from a table of half the first-level cache
    l2_gadds    the same from a table of 512 KiB

    The loads are as the kernels have them at best: eight neighbouring vectors an index.
    """
    usable = isas()
    _choice("isa", isa, ("auto", *usable))
    found = _kernels.peaks(usable[-1] if isa == "auto" else isa)
    return {
        "lanes": found["lanes"],
        "fma_gmacs": found["multiply_adds"] * found["lanes"] / 1e9,
        "l1_gadds": found["l1_adds"] / 1e9,
        "l2_gadds": found["l2_adds"] / 1e9,
    }


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
) -> Prepared:
    """Pack a layer's codes into the lists an algorithm walks.

    isa       "auto" (the widest usable) or one of `isas()`; `dense` is plain C++ and reports "scalar"
    encoding  "two_group": the +1 are added and the -1 subtracted, each group of one value summed for itself.
              "rewritten": 2 * (sum of the +1) - (sum of all), the latter shared by all filters; ValueError unless every
              code is -1 or +1. "signed", of `table`: a group's whole pattern, +1 and -1 together, is one entry of the
              table, up to its sign; the cheapest for binary (2^(G-1) sums) and ternary ((3^G - 1) / 2 sums).
              "codebook", of `table`: the same, but the table holds only patterns that occur in the layer; for codes
              trained with a codebook. The last three need both scales to be equal. "auto": of "two_group" and, where
              they are allowed, "signed" and "codebook" the cheapest by the cost model, or by time with `tune`
    group     channels per table, 1 to 10 ("signed" with zeros and both signs in a filter: to 6; "codebook": to 16, as
              long as a table's patterns are at most 1,024), or channels per tile of `dataflow`, 1 to 32; 0 chooses: by
              a cost model, for `dataflow` by planning samples
    threads   OpenMP threads; without OpenMP the work is serial
    bias      float32 (K,), added to every output of a filter: with `scale`, a folded batch normalisation
    relu      clamp outputs at 0, after bias and residual
    tune      time the cost model's best choices on this machine and keep the fastest, for some tenths of a second. Off:
              the model decides, and the same input gives the same plan

    Raises ValueError naming the argument, its value and what is allowed, TypeError for a wrong type.
    """
    if not isinstance(weight, QuantizedWeight):
        raise TypeError(f"weight is a {type(weight).__name__}; allowed: QuantizedWeight")
    if not isinstance(shape, ConvShape):
        raise TypeError(f"shape is a {type(shape).__name__}; allowed: ConvShape")
    for name, value in (("skip_zeros", skip_zeros), ("relu", relu), ("tune", tune)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} = {value!r}; allowed: True, False")
    _choice("algorithm", algorithm, ALGORITHMS)
    _choice("encoding", encoding, (*ENCODINGS, "auto"))
    usable = isas()
    _choice("isa", isa, ("auto", *usable))
    if group and algorithm not in MAX_GROUP:
        raise ValueError(
            f"group = {group} with algorithm {algorithm!r}; allowed: 0, only {list(MAX_GROUP)} have groups"
        )
    most = MAX_GROUP.get(algorithm, 0)
    if encoding in ("signed", "codebook"):
        if algorithm != "table":
            raise ValueError(f"encoding = {encoding!r} with algorithm {algorithm!r}; allowed: 'two_group', 'rewritten'")
        if encoding == "codebook":
            most = MAX_CODEBOOK_GROUP
        elif mixes_signs(weight.codes) and not weight.codes.all():
            most = MAX_TERNARY_GROUP
    _integer("group", group, 0, most)
    _integer("threads", threads, 1, 1024)
    if weight.codes.shape != (shape.K, shape.C, shape.R, shape.S):
        raise ValueError(
            f"codes have shape {weight.codes.shape}; allowed for this layer: {(shape.K, shape.C, shape.R, shape.S)}"
        )
    if encoding == "rewritten":
        if algorithm == "dense":
            raise ValueError("encoding = 'rewritten' with algorithm 'dense'; allowed: 'two_group'")
        if not weight.codes.all():
            raise ValueError("encoding = 'rewritten' with codes that hold 0; allowed: every code -1 or +1")
    one_scale = np.array_equal(weight.scale, weight.negative_scale)
    if encoding not in ("two_group", "auto") and not one_scale:
        raise ValueError(f"encoding = {encoding!r} with two scales; allowed: scale equal to negative_scale")
    isa = "scalar" if algorithm == "dense" else usable[-1] if isa == "auto" else isa
    encodings = (encoding,)
    if encoding == "auto":
        encodings = ("two_group",)
        if algorithm == "table" and one_scale:
            ternary = mixes_signs(weight.codes) and group <= MAX_TERNARY_GROUP
            encodings = ("two_group", "signed", "codebook") if ternary else ("two_group", "codebook")
    found = [
        _prepare(algorithm, weight, shape, isa, skip_zeros, encoding, group, threads, bias, relu, tune)
        for encoding in encodings
    ]
    return min(found, key=lambda prepared: prepared._native.cost)


def _prepare(
    algorithm, weight, shape, isa, skip_zeros, encoding, group, threads, bias, relu, tune, graphs=(), choices=()
) -> Prepared:
    bias = np.zeros(shape.K, np.float32) if bias is None else np.array(bias)
    started = time.perf_counter()
    native = _kernels.Convolution(
        algorithm=algorithm,
        codes=weight.codes,
        scale=weight.scale,
        negative_scale=weight.negative_scale,
        channel_sign=weight.channel_sign,
        dims=(shape.N, shape.C, shape.H, shape.W, shape.K, shape.R, shape.S, shape.stride, shape.padding),
        isa=isa,
        skip_zeros=skip_zeros,
        encoding=encoding,
        group=group,
        threads=threads,
        bias=bias,
        relu=relu,
        tune=tune,
        graphs=graphs,
        choices=choices,
    )
    seconds = time.perf_counter() - started
    counts = native.operations
    adds = {purpose: counts[f"{purpose}_adds"] for purpose in ("table", "node", "entry", "combine")}
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
        weight,
        bias,
        relu,
        native,
    )


def conv2d(prepared: Prepared, x: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
    """Convolve activations x, float32 (N, C, H, W), C-contiguous, into a new float32 (N, K, P, Q).

    `residual`, float32 (N, K, P, Q), C-contiguous, is added to the outputs before the ReLU.
    """
    if not isinstance(prepared, Prepared):
        raise TypeError(f"prepared is a {type(prepared).__name__}; allowed: what prepare() returns")
    for name, value in (("x", x), ("residual", residual)):
        if not isinstance(value, np.ndarray) and (value is not None or name == "x"):
            raise TypeError(f"{name} is a {type(value).__name__}; allowed: a float32 numpy array")
    return prepared._native.run(x, residual)


_GRAPHS = ("graphs", "nodes", "lengths", "sums")  # GraphArrays of csrc/dataflow.h
_DIGEST = hashlib.sha256().digest_size
_UNREADABLE = (AttributeError, EOFError, KeyError, MemoryError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


def save_plan(path: str | os.PathLike, prepared: Prepared) -> Path:
    """Write a prepared layer to one `.npz`, which `load_plan` runs from without its weights; atomic.

    The file holds the codes as two bit planes (+1, -1), scales, signs, bias, the options, how lanes and tiles cover the
    image, and the graphs of `dataflow`.
    Its last 32 bytes, the archive's comment, are the SHA-256 of all bytes before them.
    """
    weight, native = prepared.weight, prepared._native
    options = ("algorithm", "isa", "skip_zeros", "encoding", "group", "threads", "relu")
    header = {
        "version": PLAN_VERSION,
        "shape": asdict(prepared.shape),
        "scheme": weight.scheme,
        "options": {name: getattr(prepared, name) for name in options},
        "choices": native.choices,
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        header=np.array(json.dumps(header)),
        codes=np.packbits(np.stack([weight.codes > 0, weight.codes < 0])),
        scale=weight.scale,
        negative_scale=weight.negative_scale,
        channel_sign=weight.channel_sign,
        bias=prepared.bias,
        **dict(zip(_GRAPHS, native.graphs, strict=True)),
    )
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(_DIGEST)
    data = buffer.getvalue()[:-_DIGEST]
    return write_atomic(path, data + hashlib.sha256(data).digest())


def load_plan(path: str | os.PathLike) -> Prepared:
    """Read what `save_plan` wrote. Packs the codes again, which is fast, but merges no graphs and times nothing.

    Group and geometry are the saved ones, also those of a plan that was tuned.
    Raises ValueError naming the file for one that was damaged, cut or changed, has another version, whose graphs do not
    compute its codes, or that is for an instruction set this machine lacks.
    """
    data = Path(path).read_bytes()
    try:
        if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
            raise ValueError("its checksum is wrong: no plan, or one that was damaged, cut or changed")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header["version"] != PLAN_VERSION:
                raise ValueError(f"its version is {header['version']!r}; allowed: {PLAN_VERSION}")
            _choice("its isa", header["options"]["isa"], isas())
            shape = ConvShape(**header["shape"])
            planes = np.unpackbits(file["codes"])[: 2 * shape.weights].astype(np.int8)
            plus, minus = planes.reshape(2, shape.K, shape.C, shape.R, shape.S)
            scales = [file[name] for name in ("scale", "negative_scale", "channel_sign")]
            return _prepare(
                weight=QuantizedWeight(plus - minus, *scales, header["scheme"]),
                shape=shape,
                bias=file["bias"],
                tune=False,
                graphs=[file[name] for name in _GRAPHS],
                choices=header["choices"],
                **header["options"],
            )
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error
