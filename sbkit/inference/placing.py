"""Each quantized convolution of a traced network, with what follows it, becomes one call of a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from sbkit.checks import named
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.encodings import one_scale
from sbkit.inference import graph, integers
from sbkit.inference.folding import UNQUANTIZED, Affine
from sbkit.inference.integers import grid
from sbkit.inference.layers import FullConv2d, KernelConv2d, OuterKernel
from sbkit.integers import ENCODINGS_OF, Rounding
from sbkit.models import QuantConv2d
from sbkit.models.layers import RELU
from sbkit.models.outer import OuterConv2d


class Layer(NamedTuple):
    """A quantized convolution: y[k] = factor[k] * (convolution with the weight)[k] + bias[k]."""

    weight: QuantizedWeight
    shape: ConvShape
    factor: np.ndarray  # float64 (K,)
    bias: np.ndarray  # float64 (K,)
    algorithm: str
    options: dict[str, Any]  # of `KernelConv2d`


def put_on_kernels(
    traced: fx.GraphModule,
    weights: Mapping[str, QuantizedWeight],
    norms: Mapping[str, Affine],
    algorithm: str,
    options: dict[str, Any],
) -> None:
    """Raises ValueError naming the layer whose options or numbers the kernels refuse."""
    integers.note_grids(traced)
    for node in list(traced.graph.nodes):
        if type(module := graph.module_of(traced, node)) is not QuantConv2d:
            continue
        name, weight = node.target, weights[node.target]
        factor, bias = _affine(module, norms.get(name))
        with named(f"layer {name}"):
            (N, C, H, W), (K, _, R, S) = graph.shape_of(node.args[0]), weight.codes.shape
            shape = ConvShape(C, H, W, K, R, S, module.stride, module.padding, N, name)
            layer = Layer(weight, shape, factor, bias, algorithm, options)
            source = grid(node.args[0])
            exact = one_scale(weight) and algorithm in ("auto", *ENCODINGS_OF)
            (_on_integers if source and not source.zero and exact else _on_floats)(traced, node, layer)
    for node in graph.calls_of(traced, UNQUANTIZED):
        with named(f"layer {node.target}"):
            _between_integers(traced, node, norms.get(node.target), {key: options[key] for key in ("isa", "threads")})
    integers.drop_relus(traced)
    integers.settle(traced, options["isa"])


def _affine(module: nn.Module, norm: Affine | None) -> Affine:
    """What happens to the bare sums of a convolution: its bias, and then the norm."""
    K = len(module.weight)
    factor, bias = norm or Affine(np.ones(K), np.zeros(K))
    return Affine(factor, bias if module.bias is None else factor * module.bias.double().numpy() + bias)


def _on_floats(traced: fx.GraphModule, node: fx.Node, layer: Layer) -> None:
    """The kernel of floats, with the addition and the ReLU after it."""
    residual, add = _residual(traced, node)
    last = graph.past_pools(traced, add or node)
    relu = graph.only_user(last)
    if relu := relu if graph.is_call(traced, relu, RELU) else None:
        graph.replace(relu, last)
    scales = {field: getattr(layer.weight, field) * layer.factor for field in ("scale", "negative_scale")}
    weight = replace(layer.weight, **scales)
    bias = layer.bias.astype(np.float32) if layer.bias.any() else None
    kernel = KernelConv2d(layer.algorithm, weight, layer.shape, **layer.options, bias=bias, relu=relu is not None)
    _place(traced, node, add, residual, kernel)


def _on_integers(traced: fx.GraphModule, node: fx.Node, layer: Layer) -> None:
    """The kernel of integers, with all that follows up to a step; without one, its exact sums and their scale."""
    source = grid(node.args[0])
    scale = layer.weight.scale * layer.factor * source.step
    options = layer.options | {"activation_bits": source.bits}
    residual, add = _residual(traced, node)
    if add and not grid(residual):
        residual = add = None
    between, step = _up_to_step(traced, add or node)
    if step is None:
        _place(traced, node, None, None, KernelConv2d(layer.algorithm, layer.weight, layer.shape, **options))
        factors = (torch.from_numpy(value.astype(np.float32)) for value in (scale, layer.bias))
        traced.add_submodule(f"{node.name}_scaled", integers.Scaled(*factors))
        with traced.graph.inserting_after(node):
            scaled = traced.graph.call_module(f"{node.name}_scaled", (node,))
        scaled.meta = dict(node.meta)
        node.replace_all_uses_with(scaled, lambda user: user is not scaled)
        return
    target, bias, residual_scale = grid(step), layer.bias, 0.0
    if residual:
        other = grid(residual)
        bias, residual_scale = bias - other.step * other.zero, other.step / target.step
    rounding = Rounding(scale / target.step, bias / target.step + target.zero, residual_scale, target.bits)
    kernel = KernelConv2d(layer.algorithm, layer.weight, layer.shape, **options, rounding=rounding)
    _round_to(traced, _place(traced, node, add, residual, kernel), between, step)


def _between_integers(traced: fx.GraphModule, node: fx.Node, norm: Affine | None, options: dict[str, Any]) -> None:
    """A convolution that no scheme quantizes becomes a kernel that rounds to the step behind it, where there is one."""
    if node.kwargs or not node.args:
        return
    module, source = graph.module_of(traced, node), grid(node.args[0])
    between, step = _up_to_step(traced, node)
    plain = (module.groups, module.dilation, module.padding_mode) == (1, (1, 1), "zeros")
    square = len({*module.stride}) == 1 and not isinstance(module.padding, str) and len({*module.padding}) == 1
    is_outer = isinstance(module, OuterConv2d)
    if step is None or not plain or not square or (not source if is_outer else source and source.zero):
        return
    target = grid(step)
    factor, bias = _affine(module, norm)
    factor, bias = factor * (source.step if source else 1.0) / target.step, bias / target.step + target.zero
    (N, C, H, W), (K, _, R, S) = graph.shape_of(node.args[0]), module.weight.shape
    shape = ConvShape(C, H, W, K, R, S, module.stride[0], module.padding[0], N, node.target)
    if is_outer:
        codes, scale = (value.double().numpy() for value in module.codes())
        rounding = Rounding(factor * scale.reshape(K), bias, bits=target.bits)
        kernel = OuterKernel(codes, rounding, shape, zero=source.zero, **options)
    else:
        weight = module.weight.double().numpy() * factor[:, None, None, None]
        kernel = FullConv2d(weight, bias, shape, bits=target.bits, takes_integers=source is not None, **options)
    traced.set_submodule(node.target, kernel)
    _round_to(traced, node, between, step)


def _round_to(traced: fx.GraphModule, last: fx.Node, between: list[fx.Node], step: fx.Node) -> None:
    """Let the result of a kernel that rounds to a step be that step's, with the ReLUs and pools between them."""
    for call in between:
        if graph.is_call(traced, call, RELU):
            graph.replace(call, call.args[0])
        else:
            pool = integers.IntegerPool(graph.module_of(traced, call), graph.shape_of(call.args[0]))
            call.target = f"{call.name}_integers"  # the pool may have other calls
            traced.add_submodule(call.target, pool)
            last = call
    last.meta["grid"] = grid(step)
    graph.replace(step, last)


def _up_to_step(traced: fx.GraphModule, node: fx.Node) -> tuple[list[fx.Node], fx.Node | None]:
    """The ReLUs and max pools after a node and the step after them, to which a kernel can round; else None."""
    between, user = [], graph.only_user(node)
    relu = False
    while user is not None and not grid(user):
        pool = graph.module_of(traced, user) if graph.is_call(traced, user, (nn.MaxPool2d,)) else None
        relu = relu or graph.is_call(traced, user, RELU)
        if not graph.is_call(traced, user, RELU) and not (pool and integers.IntegerPool.takes(pool)):
            return [], None
        between.append(user)
        user = graph.only_user(user)
    return between, None if user is None or (relu and grid(user).zero) else user


def _place(
    traced: fx.GraphModule, node: fx.Node, add: fx.Node | None, residual: fx.Node | None, kernel: KernelConv2d
) -> fx.Node:
    """The call of the kernel, in place of a convolution and perhaps the addition after it."""
    traced.set_submodule(node.target, kernel)
    if not add:
        return node
    with traced.graph.inserting_before(add):
        call = traced.graph.call_module(node.target, (node.args[0], residual))
    call.meta = dict(add.meta)
    graph.replace(add, call)
    traced.graph.erase_node(node)
    return call


def _residual(traced: fx.GraphModule, node: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    """The other summand of the addition that alone uses a convolution, and the addition; or None, None.

    The kernel will run where the addition stands. What runs between must therefore write nothing in place.
    """
    add = graph.only_user(node)
    if not graph.is_call(traced, add, graph.ADD) or len(add.args) != 2 or add.kwargs or add.args.count(node) != 1:
        return None, None
    residual = add.args[1 - add.args.index(node)]
    if not isinstance(residual, fx.Node) or graph.shape_of(residual) != graph.shape_of(node):
        return None, None
    if add.target in ("add_", *graph.IN_PLACE) and add.args[0] is residual and len(residual.users) > 1:
        return None, None
    between = node.next
    while between is not add:
        if graph.writes(traced, between):
            return None, None
        between = between.next
    return residual, add
