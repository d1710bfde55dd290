"""Anybody's network with its convolutions and linear layers quantized."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from sbkit.models.layers import RELU, QuantConv2d, QuantLayer, QuantLinear, quant_layers
from sbkit.quantizers import QuantizerConfig
from sbkit.quantizers.activations import LearnedStep
from sbkit.way import FLOAT_BITS, check_bits

KEPT = "kept as asked"
NOT_NEGATIVE = (*RELU, nn.ReLU6, F.relu6)
SIGN_KEEPING = (  # of what a ReLU wrote they make nothing negative
    nn.Identity, nn.Dropout, nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    F.dropout, torch.flatten, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, "flatten",
)  # fmt: skip


class Converted(NamedTuple):
    """What `convert` returns."""

    model: nn.Module
    left: dict[str, str]  # by the name of a layer that stays in full precision, or whose activations stay floats, why


def convert(
    model: nn.Module,
    config: QuantizerConfig,
    *,
    keep: Collection[str] | None = None,
    activation_bits: int = FLOAT_BITS,
    seed: int = 0,
) -> Converted:
    """A copy of a network whose convolutions and linear layers are quantized, with its weights as latent weights.

    keep             names of layers that stay in full precision; None: the first and the last, as constructed
    activation_bits  of what enters a quantized layer: 2 to 8, by a `LearnedStep`; 32: floats
    seed             of the scheme's fixed signs

    Biases are kept, in full precision. Layers that the kernels do not have stay in full precision as well and are
    listed with the reason: groups, dilation, windows, strides or paddings that are not square, layers inside a module
    of torch that reads their weights itself, channels that the scheme's regions do not divide.

    Learned steps are unsigned. Only layers whose input is what a ReLU wrote, perhaps pooled or flattened, have them;
    the others are listed. Before training, `quantizers.activations.calibrate(model, x)` fits them to a batch of images.

    Raises ValueError for names in `keep` that are no such layers, for other bits, and for bits where the network's
    calls cannot be traced.
    """
    check_bits(activation_bits)
    model = copy.deepcopy(model)
    layers = {name: module for name, module in model.named_modules() if _has_weights(module)}
    if keep is None:
        keep = {*list(layers)[:1], *list(layers)[-1:]}
    if isinstance(keep, str) or (unknown := [name for name in keep if name not in layers]):
        raise ValueError(f"keep names {keep if isinstance(keep, str) else unknown}; allowed: {list(layers)}")
    # The same distance from the seed of the latent weights as in `build_model`.
    signs, left = torch.Generator().manual_seed(seed + 1_000_003), {}
    places = [module for _, module in model.named_modules(remove_duplicate=False)]
    for name, layer in layers.items():
        reason = KEPT if name in keep else _reason(model, name, layer)
        if not reason and places.count(layer) > 1:
            reason = "stands at several places"
        if not reason:
            try:
                model.set_submodule(name, _quantized(layer, config, signs))
            except ValueError as error:
                reason = str(error)
        if reason:
            left[name] = reason
    if activation_bits < FLOAT_BITS:
        left |= _add_steps(model, layers.keys() - left.keys(), activation_bits)
    return Converted(model, left)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, QuantLayer) or super().is_leaf_module(module, name)


def _add_steps(model: nn.Module, names: Collection[str], bits: int) -> dict[str, str]:
    """Let these layers have learned steps; by the name of one that cannot, why."""
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever the forward of a stranger's module raises when given no tensors
        raise ValueError(
            f"activation_bits = {bits} of a network that cannot be traced, as torch.fx says: {error}; allowed: "
            f"{FLOAT_BITS}"
        ) from error
    left = {}
    for name, layer in quant_layers(model).items():
        if name not in names:
            continue
        sources = [_source(model, node) for node in graph.nodes if node.op == "call_module" and node.target == name]
        others = [node.name for node in sources if _called(model, node) not in NOT_NEGATIVE]
        if sources and not others:
            layer.activations = LearnedStep(bits).to(layer.weight.device)
        else:
            left[name] = f"has float activations, written by {others[0]}, not a ReLU" if others else "is not called"
    return left


def _source(model: nn.Module, node: fx.Node) -> fx.Node:
    """What wrote the input of a call, past the calls that keep its sign."""
    while (node := node.all_input_nodes[0]).all_input_nodes and _called(model, node) in SIGN_KEEPING:
        pass
    return node


def _called(model: nn.Module, node: fx.Node) -> object:
    """The class of the module, the function, or the name of the method that a node calls."""
    return type(model.get_submodule(node.target)) if node.op == "call_module" else node.target


def _has_weights(module: nn.Module) -> bool:
    kinds = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd)
    return isinstance(module, kinds) and not isinstance(module, QuantLayer)


def _reason(model: nn.Module, name: str, layer: nn.Module) -> str:
    """Why a layer cannot be quantized, or an empty text."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    parts = name.split(".")
    for depth in range(len(parts)):
        outer = model.get_submodule(".".join(parts[:depth]))
        if type(outer).__module__.startswith("torch.nn.") and not isinstance(outer, containers):
            return f"inside a torch {type(outer).__name__}, which may read its weights itself"
    if type(layer) is nn.Linear:
        return ""
    if type(layer) is not nn.Conv2d:
        return f"is a {type(layer).__name__}"
    allowed = {"groups": 1, "dilation": (1, 1), "padding_mode": "zeros"}
    for field, value in allowed.items():
        if (found := getattr(layer, field)) != value:
            return f"has {field} {found}"
    for field in ("kernel_size", "stride", "padding"):
        if isinstance(sides := getattr(layer, field), str) or sides[0] != sides[1]:
            return f"has {field} {sides}"
    return ""


def _quantized(layer: nn.Conv2d | nn.Linear, config: QuantizerConfig, signs: torch.Generator) -> QuantLayer:
    """A quantized layer with the parameters of this one."""
    options = {"config": config, "signs": signs, "bias": layer.bias is not None}
    if isinstance(layer, nn.Linear):
        quantized = QuantLinear(layer.in_features, layer.out_features, **options)
    else:
        C, K, R = layer.in_channels, layer.out_channels, layer.kernel_size[0]
        quantized = QuantConv2d(C, K, R, stride=layer.stride[0], padding=layer.padding[0], **options)
    quantized.weight, quantized.bias = layer.weight, layer.bias
    quantized.quantizer.initialize(layer.weight)
    return quantized.to(layer.weight.device).train(layer.training)
