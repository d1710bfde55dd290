"""Batch norms folded into the convolutions before them, and quantized layers as plain ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import fx, nn

from sbkit.conv import QuantizedWeight
from sbkit.inference.graph import calls_of, evaluated, is_call, module_of, only_user, past_pools, replace, trace
from sbkit.models import QuantConv2d, QuantLinear, quant_layers
from sbkit.models.layers import QuantLayer
from sbkit.models.outer import NarrowShortcut, OuterConv2d

UNQUANTIZED = (nn.Conv2d, NarrowShortcut, OuterConv2d)  # by no scheme
CONVOLUTIONS = (*UNQUANTIZED, QuantConv2d)
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class Affine(NamedTuple):
    """y = factor * x + bias for each channel, float64 (K,)."""

    factor: np.ndarray
    bias: np.ndarray


def fold(model: nn.Module, weights: Mapping[str, QuantizedWeight] | None = None) -> fx.GraphModule:
    """The same network as plain layers with batch norms folded: for torch, or to be exported from it.

    A copy whose modules have the same names, in evaluation mode, float32, contiguous, on the CPU, without gradients.
    Quantized layers have the weights they compute with, or `weights`, named as in `quantized_weights(model)`. Raises
    TypeError for a network with hooks, with a layer at two places, or that cannot be traced, ValueError for weights of
    other layers or shapes.
    """
    weights = {} if weights is None else checked(model, weights)
    traced = trace(evaluated(model))
    norms = fold_norms(traced)
    for name in {node.target for node in traced.graph.nodes if node.op == "call_module"}:
        make_plain(traced, name, weights.get(name), norms.get(name))
    return finished(traced)


def checked(model: nn.Module, weights: Mapping[str, QuantizedWeight]) -> Mapping[str, QuantizedWeight]:
    """The weights. Raises ValueError unless they are those of the model's quantized layers, of their shapes."""
    layers = quant_layers(model)
    missing, unknown = ([name for name in a if name not in b] for a, b in ((layers, weights), (weights, layers)))
    if missing or unknown:
        raise ValueError(
            f"weights lack the layers {missing} and have {unknown} besides; allowed: the model's quantized layers"
        )
    for name, layer in layers.items():
        expected = (*layer.weight.shape, 1, 1)[:4]
        if weights[name].codes.shape != expected:
            raise ValueError(f"layer {name}: codes have shape {weights[name].codes.shape}; allowed: {expected}")
    return weights


def fold_norms(traced: fx.GraphModule) -> dict[str, Affine]:
    """Take the norms that fold out of the graph; by the name of a convolution, what its norm was."""
    norms = {}
    for node in calls_of(traced, CONVOLUTIONS):
        last = past_pools(traced, node)
        norm = only_user(last)
        if type(module_of(traced, node)) not in CONVOLUTIONS or not is_call(traced, norm, NORMS):
            continue
        if (module := module_of(traced, norm)).running_mean is not None:
            affine = _affine(module)
            if last is node or (affine.factor >= 0).all():
                norms[node.target] = affine
                replace(norm, last)
    return norms


def _affine(norm: nn.Module) -> Affine:
    """What a norm computes in evaluation mode."""
    mean, variance = (value.double().numpy() for value in (norm.running_mean, norm.running_var))
    gamma, beta = (1, 0) if not norm.affine else (value.double().numpy() for value in (norm.weight, norm.bias))
    factor = gamma / np.sqrt(variance + norm.eps)
    return Affine(factor, beta - factor * mean)


def make_plain(traced: fx.GraphModule, name: str, weight: QuantizedWeight | None, norm: Affine | None) -> None:
    """Put in place of a convolution or quantized layer a plain one that does what it does with these codes, if any,
    and then the norm. Other modules stay.
    """
    module = traced.get_submodule(name)
    if type(module) not in CONVOLUTIONS and not isinstance(module, QuantLayer):
        return
    if isinstance(module, QuantLayer) and type(module) not in (QuantConv2d, QuantLinear):
        raise TypeError(f"layer {name} is a {type(module).__name__}; allowed: QuantConv2d, QuantLinear, no subclasses")
    if weight is not None:
        w = torch.from_numpy(weight.dense()).reshape(module.weight.shape)
    else:
        w = module.quantized() if isinstance(module, (QuantLayer, OuterConv2d)) else module.weight
    bias = module.bias
    if norm:
        factor, shift = map(torch.from_numpy, norm)
        w, bias = w * factor.reshape(-1, 1, 1, 1), shift if bias is None else factor * bias + shift
    if isinstance(module, QuantLinear):
        plain = nn.utils.skip_init(nn.Linear, w.shape[1], w.shape[0], bias=bias is not None)
    else:
        more = {key: getattr(module, key) for key in ("dilation", "groups", "padding_mode") if hasattr(module, key)}
        plain = nn.utils.skip_init(
            nn.Conv2d, w.shape[1] * more.get("groups", 1), w.shape[0], w.shape[2:], module.stride, module.padding,
            bias=bias is not None, **more,
        )  # fmt: skip
    plain.requires_grad_(False).weight.copy_(w)  # contiguous, whatever the layout of the model's
    if bias is not None:
        plain.bias.copy_(bias)
    traced.set_submodule(name, plain.eval())


def finished(traced: fx.GraphModule) -> fx.GraphModule:
    """The module of a changed graph, without the modules that it calls no more."""
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
