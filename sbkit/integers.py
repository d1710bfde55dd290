"""Integer activations: what `kernels.prepare` needs for them, and how raw sums become the next layer's activations.

Activations are unsigned a-bit integers, a = 2 to 8, which a layer's scale turns into floats. Sums of them are exact.
They go with the algorithms `dense`, `table` and `lookup` (tables of 16 masks in registers, with filters as lanes), and
"auto", the cheaper of the last two; the encodings "two_group" and, but with `dense`, "rewritten" ("auto": the cheaper);
groups to 16 and weights of one scale; not with bias, relu, or skip_zeros off.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbkit.checks import choice, number, whole
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.encodings import check_zeros, one_scale
from sbkit.way import LEAST_BITS, MOST_BITS, MOST_CHANNELS

ENCODINGS_OF = {"dense": ("two_group",), "table": ("two_group", "rewritten"), "lookup": ("two_group", "rewritten")}
"""By algorithm that takes integer activations, how codes become sums: as in `kernels.prepare`."""
FAST = ("table", "lookup")
"""The algorithms of which `algorithm="auto"` takes the cheaper."""


@dataclass(frozen=True, eq=False)
class Rounding:
    """How a layer's sums become unsigned `bits`-bit integers, the next layer's activations:

        y = clamp(round(scale[k] * sum + bias[k] + residual_scale * residual), 0, 2**bits - 1)

    in float32, from left to right, rounding half to even. The clamp at 0 is a ReLU. Batch normalisation, the scales of
    weights and of both layers' activations are folded into scale and bias, float32 (K,).
    """

    scale: np.ndarray
    bias: np.ndarray
    residual_scale: float = 0.0
    bits: int = 8

    def __post_init__(self):
        whole("bits", self.bits, LEAST_BITS, MOST_BITS)
        number("residual_scale", self.residual_scale, -3e38, 3e38)
        for name in ("scale", "bias"):
            value = np.ascontiguousarray(getattr(self, name), np.float32)
            if value.ndim != 1 or not np.isfinite(value).all():
                raise ValueError(f"{name} has shape {value.shape} or is not finite; allowed: finite, (K,)")
            object.__setattr__(self, name, value)

    def apply(self, sums: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        """Round sums, int32 (N, K, P, Q), to uint8; residual is uint8 of the same shape. Kernels equal it exactly."""
        scale, bias = self.scale[:, None, None], self.bias[:, None, None]
        y = sums.astype(np.float32) * scale + bias
        if residual is not None:
            y = y + residual.astype(np.float32) * np.float32(self.residual_scale)
        return np.rint(np.clip(y, 0, 2**self.bits - 1)).astype(np.uint8)


def check_options(algorithm: str, weight: QuantizedWeight, encoding: str, rounding: Any, **floats: Any) -> None:
    """Raises an error naming what integer activations do not go with; `floats` are options that only floats have."""
    choice("algorithm with integer activations", algorithm, (*ENCODINGS_OF, "auto"))
    encodings = ENCODINGS_OF[FAST[0] if algorithm == "auto" else algorithm]
    choice(f"encoding of {algorithm} with integer activations", encoding, (*encodings, "auto"))
    check_zeros(encoding, weight)
    if not one_scale(weight):
        raise ValueError("a weight of two scales with integer activations; allowed: scale equal to negative_scale")
    for name, (value, only) in floats.items():
        if value is not only:
            raise ValueError(f"{name} = {value!r} with integer activations; allowed: {only}")
    if rounding is None:
        return
    if not isinstance(rounding, Rounding):
        raise TypeError(f"rounding is a {type(rounding).__name__}; allowed: Rounding")
    for name in ("scale", "bias"):
        length = len(getattr(rounding, name))
        if length != len(weight.codes):
            raise ValueError(f"{name} of the rounding has {length} values; allowed: {len(weight.codes)}, one a filter")


def pack(
    algorithm: str,
    weight: QuantizedWeight,
    shape: ConvShape,
    encoding: str,
    rounding: Rounding | None,
    **options: Any,
) -> Any:
    """The extension's layer. `options` are activation_bits, isa, lane_bits, group and threads."""
    whole("group", options["group"], 0, MOST_CHANNELS["codebook"])
    choice(f"lane_bits of {algorithm}", options["lane_bits"], (0, 8, 16) if algorithm == "table" else (0,))
    codes = np.ascontiguousarray(weight.codes * weight.channel_sign[None, :, None, None])
    rounded = rounding and (rounding.scale, rounding.bias, rounding.residual_scale, rounding.bits)
    return importlib.import_module("sbkit._kernels").IntegerConvolution(
        algorithm=algorithm,
        codes=codes,
        dims=(shape.N, shape.C, shape.H, shape.W, shape.K, shape.R, shape.S, shape.stride, shape.padding),
        rewritten=encoding == "rewritten",
        rounding=rounded,
        **options,
    )


def seconds(native: Any, shape: ConvShape) -> float:
    """The shortest of a few runs of the extension's layer."""
    x, found = np.zeros((shape.N, shape.C, shape.H, shape.W), np.uint8), []
    for _ in range(5):
        started = time.perf_counter()
        native.run(x, None)
        found.append(time.perf_counter() - started)
    return min(found)


_KINDS = {8: "bytes", 16: "words", 32: "lookups"}  # by bits of a sum's lane, what `peaks` counts


_peaks: dict[str, dict[str, float]] = {}  # by ISA, the best so far


def peaks(isa: str) -> dict[str, float]:
    """Operations a second that one thread reaches with nothing else to do, by kind:

    additions       of vectors in registers
    bytes, words    vectors of 8-bit or 16-bit lanes that are loaded from the first-level cache and added
    lookups         look-ups in a vector that is loaded, each added to a sum; 0 where the ISA has no instructions for it

    Each call measures them for some tens of milliseconds, the first ten times as long, and returns the best so far of
    this process, for other programs can only lower them.
    """
    for _ in range(1 if isa in _peaks else 10):
        found = importlib.import_module("sbkit._kernels").integer_peaks(isa)
        _peaks[isa] = {kind: max(rate, _peaks.get(isa, found)[kind]) for kind, rate in found.items()}
    return dict(_peaks[isa])


def least_summing_seconds(native: Any, isa: str) -> float | None:
    """A bound on the time of summing: what the extension's layer executes for that, at the rates of `peaks`.

    The larger of two times: of its loads with an addition, or look-ups, and of all vector instructions that these and
    the widening of chains take. Tables, rounding, moves of sums and lanes that the image leaves idle are no part of it.
    None where a rate is not known, and for `dense`.
    """
    work, rates = native.sum_work, peaks(isa)
    rate = rates[_KINDS[native.lane_bits]] if work["entries"] else 0
    return max(work["entries"] / rate, work["instructions"] / rates["additions"]) if rate else None


def stage_seconds(native: Any, x: np.ndarray, repeats: int = 20) -> dict[str, float]:
    """How a run's time divides into "tables", "sums" and "finish", by runs that leave out the last stages.

    "tables" is the least time of a run that only makes tables, which includes copying the activations; "finish" is what
    rounding and storing add to that, and "sums" what summing adds to both. So no clock runs within a stage, and the
    three add up to the least time of a whole run.
    """
    runs = {"tables": (False, False), "tables and finish": (False, True), "all": (True, True)}  # sums, finish
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, (sums, finish) in runs.items():
            started = time.perf_counter()
            native.run(x, None, sums=sums, finish=finish)
            least[name] = min(least[name], time.perf_counter() - started)
    tables, finished = least["tables"], least["tables and finish"]
    return {"tables": tables, "sums": least["all"] - finished, "finish": finished - tables}
