"""The libraries a user would pick instead of our kernels.

A new library is a file with a function `load`, a row of LIBRARIES, and its name in `sbkit.way.PEERS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from sbkit.bench.contender import Contender, Unusable, Work, check, skip
from sbkit.bench.libraries import onnx_runtime, open_vino, pytorch
from sbkit.way import Way

LIBRARIES: dict[str, Callable[[Work, Way], Callable[[], Any]]] = {
    "torch": pytorch.load,
    "onnxruntime": onnx_runtime.load,
    "openvino": open_vino.load,
}
"""By the algorithm of a way: what makes a work ready to be called in that way."""

# How far a library may be off, as a fraction of the largest output, and what it reads for each weight.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.05}
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
ONE_STEP = 1 / 255
"""The tolerance of integers, the largest of which is 255: libraries round a value midway either up or down."""

HELD_TO = "ONEDNN_MAX_CPU_ISA"
"""The environment variable that oneDNN reads once. torch and OpenVINO compute convolutions by it, FBGEMM does not."""


def contenders(work: Work, ways: Iterable[Way], skipped: list[str]) -> Iterator[Contender]:
    """A contender for each way that can run here; the others are printed and added to `skipped`, once.

    Raises AssertionError if one computes anything else than it should.
    """
    for way in ways:
        try:
            call = LIBRARIES[way.algorithm](work, way)
        except ModuleNotFoundError as error:
            missing = "" if error.name == way.algorithm else f"{error.name} "
            skip(f"{way.algorithm}: {missing}not installed", skipped)
            continue
        except Unusable as error:
            skip(f"{way.algorithm} {way.precision}: {error}", skipped)
            continue
        with torch.inference_mode():
            check(way.label(), call(), work.y, ONE_STEP if work.output_scale else TOLERANCE[way.precision])
        held = way.algorithm != "onnxruntime" and way.variant != "fbgemm" and os.environ.get(HELD_TO, "").lower()
        columns = {"weight_bytes": WEIGHT_BYTES[way.precision] * work.weights, "isa": held or ""}
        yield Contender(way, call, work.threads, columns)
