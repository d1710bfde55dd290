"""Layers on the kernels as modules, and the torch operator that a quantized convolution calls by itself."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from sbkit import kernels
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.integers import Rounding
from sbkit.way import FLOAT_BITS, MOST_BITS

_plans: WeakValueDictionary[str, kernels.Prepared] = WeakValueDictionary()

# An operator of torch, and not a call from Python, so that torch.compile and torch.export keep it as one call.
# A call of it costs 15 to 20 µs more than one of the kernel; by `torch.library.custom_op` it would be up to 40.
LIBRARY = torch.library.Library("sbkit", "FRAGMENT")
LIBRARY.define("conv2d(Tensor x, Tensor? residual, str plan) -> Tensor", tags=torch.Tag.pt2_compliant_tag)


@torch.library.impl(LIBRARY, "conv2d", "CPU")
def _conv2d(x: Tensor, residual: Tensor | None, plan: str) -> Tensor:
    """The kernel on x and perhaps a residual; nothing is copied that is contiguous."""
    added = None if residual is None else array(residual)
    return torch.from_numpy(kernels.conv2d(planned("conv2d", _plans, plan), array(x), added))


def array(x: Tensor) -> np.ndarray:
    """The tensor's values, C-contiguous."""
    return np.ascontiguousarray(x.detach().numpy())


@torch.library.register_fake("sbkit::conv2d", lib=LIBRARY)
def _shape_of(x: Tensor, residual: Tensor | None, plan: str) -> Tensor:
    layer = planned("conv2d", _plans, plan)
    s = layer.shape
    return x.new_empty((s.N, s.K, s.P, s.Q), dtype=_result(layer))


def _result(layer: kernels.Prepared) -> torch.dtype:
    if layer.activation_bits == FLOAT_BITS:
        return torch.float32
    return torch.int32 if layer.rounding is None else torch.uint8


def planned(operator: str, plans: Mapping[str, Any], name: str) -> Any:
    """The plan of this name. Raises RuntimeError where the network that had it is gone."""
    if (found := plans.get(name)) is None:
        raise RuntimeError(
            f"operator sbkit::{operator} has no plan {name}: a graph that calls it lasts as long as the network it was "
            "exported from, in one process; allowed: to export it again from that network"
        )
    return found


class KernelConv2d(nn.Module):
    """A convolution of (N, C, H, W), of one size, by `kernels.prepare(algorithm, weight, shape, **options)`.

    Activations are those of `kernels.conv2d`: float32, or uint8 with the option `activation_bits`. With a residual
    (N, K, P, Q), the kernel adds it before its ReLU. A copy, and what is unpickled, has a plan of its own, made for the
    machine it meets.

    With the algorithm "auto", floats have `table`, and integers what `kernels.prepare` has for them.
    """

    def __init__(self, algorithm: str, weight: QuantizedWeight, shape: ConvShape, **options: Any):
        super().__init__()
        self.layer, self.options = (algorithm, weight, shape), options
        self._prepare()

    def _prepare(self) -> None:
        algorithm, *layer = self.layer
        algorithm = "table" if algorithm == "auto" and not self.takes_integers else algorithm
        self.prepared = kernels.prepare(algorithm, *layer, **self.options)
        self.plan = uuid.uuid4().hex
        _plans[self.plan] = self.prepared

    @property
    def takes_integers(self) -> bool:
        return self.options.get("activation_bits", FLOAT_BITS) < FLOAT_BITS

    @property
    def returns_integers(self) -> bool:
        return self.prepared.rounding is not None

    def step(self) -> Any:
        """The step of a pipeline, of a layer that returns integers."""
        return kernels.native(self.prepared)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return torch.ops.sbkit.conv2d.default(x, residual, self.plan)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("prepared", "plan")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def extra_repr(self) -> str:
        p, s = self.prepared, self.prepared.shape
        return f"{p.algorithm} {p.isa} {p.encoding} group {p.group}, {s.C}→{s.K} @{s.H}x{s.W}{', relu' * p.relu}"


class FullConv2d(nn.Module):
    """A convolution in full precision between integers, the step of a pipeline. From uint8 or float32 activations x, in
    float32:

        y = clamp(round(bias + convolution of x with weight), 0, 2**bits - 1)     uint8
    """

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray, shape: ConvShape, *, bits: int, takes_integers: bool, isa: str,
        threads: int,
    ):  # fmt: skip
        super().__init__()
        self.weight, self.bias = (np.ascontiguousarray(value, np.float32) for value in (weight, bias))
        self.shape, self.takes_integers = shape, takes_integers
        self.options = {"bits": bits, "isa": isa, "threads": threads}

    def step(self) -> Any:
        of_floats = {"floats": not self.takes_integers}
        return _step_of_shape("full", self.shape, self.options, weights=self.weight, bias=self.bias, **of_floats)


class OuterKernel(nn.Module):
    """A convolution of uint8 activations q, which stand for q - zero, with int8 weights of -63 to 63, the step of a
    pipeline:

        y = clamp(round(scale * (convolution of q - zero with the weights) + bias), 0, 2**bits - 1)     uint8

    with exact sums, rounded as by `rounding`.
    """

    def __init__(self, weight: np.ndarray, rounding: Rounding, shape: ConvShape, *, zero: int, isa: str, threads: int):
        super().__init__()
        self.weight, self.rounding, self.shape = np.ascontiguousarray(weight, np.int8), rounding, shape
        self.takes_integers = True
        self.options = {"zero": zero, "isa": isa, "threads": threads}

    def step(self) -> Any:
        rounding = {key: getattr(self.rounding, key) for key in ("scale", "bias", "bits")}
        return _step_of_shape("outer", self.shape, self.options, weights=self.weight, **rounding)


def _step_of_shape(kind: str, s: ConvShape, options: Mapping[str, Any], **more: Any) -> Any:
    """A step of a convolution, for the ISA that its options ask for, in a forked child for one thread."""
    options = (
        options | {"isa": kernels.usable_isa(options["isa"], MOST_BITS)} | ({"threads": 1} if kernels.forks() else {})
    )
    dims = (s.N, s.C, s.H, s.W, s.K, s.R, s.S, s.stride, s.padding)
    return kernels.step(kind, dims=dims, **more, **options)


class Head(nn.Module):
    """The mean over rows and columns of uint8 activations (N, C, H, W) and a linear layer, the last step of a pipeline:

    y[n, k] = bias[k] + sum over c of weight[k, c] * (sum of x[n, c])     float32 (N, K)
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray, shape: tuple[int, ...], isa: str):
        super().__init__()
        self.weight, self.bias = (np.ascontiguousarray(value, np.float32) for value in (weight, bias))
        self.shape, self.isa = shape, isa

    def step(self) -> Any:
        isa = kernels.usable_isa(self.isa, MOST_BITS)
        return kernels.step("head", shape=self.shape, weight=self.weight, bias=self.bias, isa=isa)
