"""ONNX Runtime, in float32 or int8, and the ONNX models of a work, which other libraries read as well."""

from __future__ import annotations

import functools
import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sbkit.bench.contender import Work
from sbkit.way import Way


def load(work: Work, way: Way) -> Callable[[], np.ndarray]:
    """Raises ModuleNotFoundError where it or onnx is not installed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = work.threads
    session = onnxruntime.InferenceSession(model(work, way.precision), options, providers=["CPUExecutionProvider"])
    inputs = {"x": work.x.numpy()}
    return lambda: session.run(None, inputs)[0]


@functools.lru_cache(maxsize=2)  # the libraries of one work share its models
def model(work: Work, precision: str) -> bytes:
    """The work's module as an ONNX model with an input named "x"; precision is fp32 or int8.

    Raises ModuleNotFoundError where onnx or, for int8, onnxruntime is not installed.
    """
    import onnx  # the exporter needs it and would not say so by a ModuleNotFoundError

    if precision == "int8":
        return _quantized(work, onnx.load_from_string(model(work, "fp32")))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs one more package
        # A version of operators that older releases of the libraries read as well.
        torch.onnx.export(work.module, (work.x,), buffer, dynamo=False, input_names=["x"], opset_version=17)
    return buffer.getvalue()


def _quantized(work: Work, graph) -> bytes:
    """Weights have 7 bits and a scale per filter, activations 8 bits and the range that they have on the work's x."""
    import onnx
    from onnxruntime import quantization

    class Calibration(quantization.CalibrationDataReader):
        images = iter([{"x": work.x.numpy()}])

        def get_next(self):
            return next(self.images, None)

    onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})  # nothing to fuse
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantization.quantize_static(
            graph,
            path,
            Calibration(),
            quant_format=quantization.QuantFormat.QDQ,  # the one that OpenVINO runs in 8 bits
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # 7 bits of weights: without VNNI, products of 8 bits overflow
        )
        return path.read_bytes()
