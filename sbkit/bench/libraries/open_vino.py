"""OpenVINO, in float32 or int8."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from sbkit.bench.contender import Unusable, Work
from sbkit.bench.libraries import onnx_runtime
from sbkit.cpu import death_in_trial
from sbkit.way import Way

_TRIAL = """
import json, sys, numpy, openvino
model = openvino.compile_model(sys.argv[1], "CPU", json.loads(sys.argv[2]))
model([numpy.zeros(tuple(model.input().shape), model.input().element_type.to_dtype())])
"""
_deaths: dict[tuple, str] = {}  # in the trials so far, by what was tried: one of each kind of work takes seconds


def load(work: Work, way: Way) -> Callable[[], np.ndarray]:
    """Raises ModuleNotFoundError where it or onnx is not installed, Unusable where int8 would stop the process."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": work.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = onnx_runtime.model(work, way.precision)
    if way.precision == "int8":
        key = _TRIAL, isinstance(work.module, nn.Conv2d), bool(work.output_scale)
        if key not in _deaths:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "model.onnx")
                path.write_bytes(model)
                _deaths[key] = death_in_trial(_TRIAL, path, json.dumps(options))
        if _deaths[key]:
            raise Unusable(_deaths[key])
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(work.x.numpy(), shared_memory=True))

    def call() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data

    return call
