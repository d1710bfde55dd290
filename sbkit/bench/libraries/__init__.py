"""The libraries a user would pick instead of our kernels.

A new library is a file with a function `load`, a row of LIBRARIES, and its name in `sbkit.way.PEERS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from sbkit.bench.contender import Contender, Unusable, Work, check, skip
from sbkit.bench.libraries import onnx_runtime, open_vino, pytorch
from sbkit.way import Way


class Library(NamedTuple):
    """load    makes a work ready to be called in a way
    onednn  whether oneDNN computes the convolutions of a way, so that HELD_TO holds it to an instruction set
    """

    load: Callable[[Work, Way], Callable[[], Any]]
    onednn: Callable[[Way], bool]


LIBRARIES: dict[str, Library] = {
    "torch": Library(pytorch.load, onednn=lambda way: way.variant != "fbgemm"),
    "onnxruntime": Library(onnx_runtime.load, onednn=lambda way: False),
    "openvino": Library(open_vino.load, onednn=lambda way: True),
}
"""By the algorithm of a way."""

# How far a library may be off, as a fraction of the largest output, and what it reads for each weight.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.05}
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
ONE_STEP = 1 / 255
"""The tolerance of integers, the largest of which is 255: libraries round a value midway either up or down."""
IN_EACH_LAYER = 0.4
"""The tolerance of a network in int8, whose layers round one after the other (measured with random weights: up to 0.13
in residual networks, 0.33 in VGG-small; the logits of two unlike networks differ by more than the largest of them)."""

HELD_TO = "ONEDNN_MAX_CPU_ISA"
"""The environment variable that oneDNN reads once."""


def contenders(work: Work, ways: Iterable[Way], skipped: list[str]) -> Iterator[Contender]:
    """A contender for each way that can run here; the others are printed and added to `skipped`, once.

    Raises AssertionError if one computes anything else than it should.
    """
    for way in ways:
        try:
            call = LIBRARIES[way.algorithm].load(work, way)
        except ModuleNotFoundError as error:
            missing = "" if error.name == way.algorithm else f"{error.name} "
            skip(f"{way.algorithm}: {missing}not installed", skipped)
            continue
        except Unusable as error:
            skip(f"{way.algorithm} {way.precision}: {error}", skipped)
            continue
        with torch.inference_mode():
            check(way.label(), call(), work.y, _tolerance(work, way))
        held = os.environ.get(HELD_TO, "").lower() if LIBRARIES[way.algorithm].onednn(way) else ""
        columns = {"weight_bytes": WEIGHT_BYTES[way.precision] * work.weights, "isa": held}
        yield Contender(way, call, columns)


def _tolerance(work: Work, way: Way) -> float:
    if work.output_scale:
        return ONE_STEP
    return (
        IN_EACH_LAYER
        if way.precision == "int8" and not isinstance(work.module, nn.Conv2d)
        else TOLERANCE[way.precision]
    )
