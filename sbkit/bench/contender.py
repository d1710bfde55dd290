"""What is timed: a subject, its contenders, and the work of a library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sbkit.conv import ConvShape
from sbkit.way import Way


class Contender(NamedTuple):
    """One way to compute a subject, checked and ready to be timed."""

    way: Way
    call: Callable[[], Any]
    columns: dict[str, Any]  # of its row in the record, where they are not those of `benchmark.BASELINE`


class Subject(NamedTuple):
    """What a number of contenders compute."""

    columns: dict[str, Any]  # of every row: layer, C, H, W, K, batch, and the dense weight_bytes, adds, multiplies
    macs: int  # multiply-accumulates of the whole batch, dense; 0: each contender has its own, and no row tells gmacs
    contenders: list[Contender]


def layer(shape: ConvShape, contenders: list[Contender]) -> Subject:
    """The subject of one layer."""
    place = {"layer": f"{shape.C}→{shape.K} @{shape.H}", "C": shape.C, "H": shape.H, "W": shape.W, "K": shape.K}
    return Subject(place | dense([shape], shape.N), shape.macs, contenders)


def dense(shapes: list[ConvShape], batch: int) -> dict[str, Any]:
    """Columns of what these layers need in float32 and without a plan."""
    macs = sum(shape.macs // shape.N for shape in shapes)
    weight_bytes = 4 * sum(shape.weights for shape in shapes)
    return {"batch": batch, "weight_bytes": weight_bytes, "adds": macs, "multiplies": macs}


@dataclass(frozen=True, eq=False)
class Work:
    """What every library computes: a torch module without gradients, on one batch of images.

    ONNX Runtime and OpenVINO read x anew in each call: other images may be copied into it. x and y are float32. With an
    `output_scale` the work is a layer of 8-bit integers from end to end: x and y are uint8, the module's weights are
    integers, and y is the sum over `output_scale`, rounded and clamped to 0 to 255.
    """

    module: nn.Module  # in evaluation mode, float32, contiguous
    x: Tensor  # (N, C, H, W), contiguous
    y: np.ndarray  # the right result, (N, K, P, Q) or logits
    weights: int  # number of its quantized weights
    threads: int
    output_scale: float = 0.0  # 0: floats
    calibration: Tensor | None = None  # images (M, C, H, W) whose ranges ONNX models in int8 take; None: x


class Unusable(RuntimeError):
    """Why a way cannot run on this machine, for people."""


def skip(reason: str, skipped: list[str]) -> None:
    """Print why something is left out and add it to `skipped`, once."""
    if reason not in skipped:
        print(f"skipped {reason}", flush=True)
        skipped.append(reason)


def check(what: str, result: Any, expected: np.ndarray, tolerance: float) -> None:
    """Raises AssertionError if the result is further from the expected one than this fraction of its largest value."""
    result = torch.as_tensor(result)
    result = result.int_repr() if result.is_quantized else result
    difference = np.abs(result.float().numpy() - expected).max()
    allowed = tolerance * np.abs(expected).max()
    if not difference <= allowed:
        raise AssertionError(f"{what} differs from the reference by {difference:.3g}; allowed: {allowed:.3g}")
