"""Anybody's network with its convolutions and linear layers quantized."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import nn

from sbkit.models.layers import QuantConv2d, QuantLayer, QuantLinear
from sbkit.quantizers import QuantizerConfig

KEPT = "kept as asked"


class Converted(NamedTuple):
    """What `convert` returns."""

    model: nn.Module
    left: dict[str, str]  # by the name of a layer that stays in full precision, why


def convert(
    model: nn.Module, config: QuantizerConfig, *, keep: Collection[str] | None = None, seed: int = 0
) -> Converted:
    """A copy of a network whose convolutions and linear layers are quantized, with its weights as latent weights.

    keep    names of layers that stay in full precision; None: the first and the last, in the order of construction
    seed    of the scheme's fixed signs

    Biases are kept, in full precision. Layers that the kernels do not have stay in full precision as well and are
    listed with the reason: groups, dilation, windows, strides or paddings that are not square, layers inside a module
    of torch that reads their weights itself, channels that the scheme's regions do not divide. Raises ValueError for
    names in `keep` that are no such layers.
    """
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
    return Converted(model, left)


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
