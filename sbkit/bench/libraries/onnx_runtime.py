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

    if work.output_scale:
        return _of_integers(work)
    if precision == "int8":
        return _quantized(work, onnx.load_from_string(model(work, "fp32")))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs one more package
        # A version of operators that older releases of the libraries read as well.
        torch.onnx.export(work.module, (work.x,), buffer, dynamo=False, input_names=["x"], opset_version=17)
    return buffer.getvalue()


def _of_integers(work: Work) -> bytes:
    """A convolution with input, weights and output in 8 bits: what such a layer is inside a quantized network."""
    from onnx import TensorProto, helper, numpy_helper

    module, filters = work.module, len(work.module.weight)
    place = {"pads": 2 * [*module.padding], "strides": [*module.stride], "kernel_shape": [*module.kernel_size]}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "zero"], ["x_float"]),
        helper.make_node("DequantizeLinear", ["weight", "ones", "zeros"], ["weight_float"], axis=0),
        helper.make_node("Conv", ["x_float", "weight_float"], ["sum"], **place),
        helper.make_node("QuantizeLinear", ["sum", "output_scale", "zero"], ["y"]),
    ]
    values = {
        **{"weight": module.weight.numpy().astype(np.int8), "one": np.float32(1), "zero": np.uint8(0)},
        **{"ones": np.ones(filters, np.float32), "zeros": np.zeros(filters, np.int8)},
        "output_scale": np.float32(work.output_scale),
    }
    ends = zip(("x", "y"), (work.x.shape, work.y.shape), strict=True)
    x, y = (helper.make_tensor_value_info(name, TensorProto.UINT8, list(shape)) for name, shape in ends)
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "layer", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _quantized(work: Work, graph) -> bytes:
    """Weights have 7 bits and a scale per filter, activations 8 bits and the range that they have in calibration."""
    import onnx
    from onnxruntime import quantization

    class Calibration(quantization.CalibrationDataReader):
        batches = work.x[None] if work.calibration is None else work.calibration.split(len(work.x))
        images = iter([{"x": batch.numpy()} for batch in batches])

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
