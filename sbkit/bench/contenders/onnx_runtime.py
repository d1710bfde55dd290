"""ONNX Runtime, in float32 or int8."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sbkit.bench.contender import Work
from sbkit.bench.contenders import onnx_models
from sbkit.way import Way


def load(work: Work, way: Way) -> Callable[[], np.ndarray]:
    """Raises ModuleNotFoundError where it or onnx is not installed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = work.threads
    model = onnx_models.model(work, way.precision)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {"x": work.x.numpy()}
    return lambda: session.run(None, inputs)[0]
