"""The networks, with quantized inner layers: no scheme quantizes the first layer, the shortcuts and the classifier.

A new network is a function or a class here, and a row of MODELS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from sbkit.checks import choice, whole
from sbkit.models import networks
from sbkit.models.convert import Converted, convert
from sbkit.models.layers import (
    NONLINEARITIES,
    Layers,
    QuantConv2d,
    QuantLayer,
    QuantLinear,
    conv_shapes,
    parameter_counts,
    quant_layers,
    quantized_weights,
    set_progress,
)
from sbkit.models.networks import BLOCKS, BasicBlock, ResNet, Transformer
from sbkit.models.outer import OUTER_LAYERS
from sbkit.quantizers import QuantizerConfig
from sbkit.way import FLOAT_BITS, check_bits

__all__ = [
    "BLOCKS", "MODELS", "NONLINEARITIES", "OUTER_LAYERS", "BasicBlock", "Converted", "QuantConv2d", "QuantLinear",
    "ResNet", "build_model", "conv_shapes", "convert", "parameter_counts", "quant_layers", "quantized_weights",
    "set_progress",
]  # fmt: skip


class Architecture(NamedTuple):
    """One row of MODELS.

    build       makes the network from (layers, in_channels, classes, image_size, width), its parameters not yet drawn
    parameters  how many it has in full precision with ReLU, all and quantized: for 10 classes at 3x32x32, the
                transformer at 3x28x28, resnet18 and resnet34 for 1000 classes at 3x224x224
    residual    whether it consists of `BasicBlock`s, which have options of their own
    least_side  of an image
    side_step   the sides of images are multiples of it
    width_step  widths are multiples of it
    fixed       the non-linearity, for people, where it cannot be chosen
    images      whether its first layer is a convolution
    """

    build: Callable[[Layers, int, int, int, int], nn.Module]
    parameters: tuple[int, int]
    residual: bool = False
    least_side: int = 4
    side_step: int = 1
    width_step: int = 1
    fixed: str = ""
    images: bool = True


def _cifar(depth: int, *parameters: int) -> Architecture:
    return Architecture(partial(networks.cifar_resnet, depth=depth), parameters, residual=True)


def _imagenet(blocks: list[int], *parameters: int) -> Architecture:
    return Architecture(partial(networks.imagenet_resnet, blocks=blocks), parameters, residual=True, least_side=32)


MODELS: dict[str, Architecture] = {
    "resnet8": _cifar(8, 78_042, 73_728),
    "resnet20": _cifar(20, 272_474, 267_264),
    "resnet32": _cifar(32, 466_906, 460_800),
    "resnet44": _cifar(44, 661_338, 654_336),
    "resnet56": _cifar(56, 855_770, 847_872),
    "resnet110": _cifar(110, 1_730_714, 1_718_784),
    "vgg_small": Architecture(networks.vgg_small, (4_660_106, 4_571_136), least_side=8),
    "resnet18": _imagenet([2, 2, 2, 2], 11_689_512, 10_985_472),
    "resnet34": _imagenet([3, 4, 6, 3], 21_797_672, 21_086_208),
    "mlp": Architecture(networks.mlp, (987_914, 196_608), images=False),
    "transformer": Architecture(
        Transformer, (105_802, 98_304), side_step=networks.PATCHES, width_step=networks.HEADS, fixed="GELU"
    ),
}


def build_model(
    name: str,
    *,
    quantizer: QuantizerConfig,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    width: int = 0,
    nonlinearity: str = "relu",
    block: str = "basic",
    activation_bits: int = FLOAT_BITS,
    outer_layers: str = "floats",
    seed: int = 0,
) -> nn.Module:
    """A network by name, for images (N, in_channels, image_size, image_size).

    `width` is the number of channels of the first stage, 0 the architecture's own. The same seed gives the same latent
    weights (He initialisation) under every scheme: what a scheme draws for itself comes from a generator of its own.
    `block` is the form of residual blocks, a key of BLOCKS; the released one has its own non-linearity. With
    `activation_bits` of 2 to 8, what enters a quantized layer has learned steps (`LearnedStep`), which `calibrate` sets
    to begin with; that needs activations of one sign, those after a ReLU. The first convolution and the shortcuts are
    then full precision, or with `outer_layers` = "integers" have weights of 7 bits and images of 8 (`OuterConv2d`).
    Raises ValueError for an unknown name or non-linearity, for an image too small for the network, and for an option
    that has no effect on it; the transformer takes sides that are multiples of 7 and widths that are multiples of 4,
    and its non-linearity is GELU.
    """
    choice("model", name, MODELS)
    choice("nonlinearity", nonlinearity, NONLINEARITIES)
    for option, value, least in (("in_channels", in_channels, 1), ("classes", classes, 1), ("width", width, 0)):
        whole(option, value, least)
    architecture = MODELS[name]
    whole(f"image_size of {name}", image_size, architecture.least_side)
    choice("block", block, BLOCKS)
    check_bits(activation_bits)
    for option, value, step in (
        ("image_size", image_size, architecture.side_step),
        ("width", width, architecture.width_step),
    ):
        if value % step:
            raise ValueError(f"{option} = {value} for {name}; allowed: multiples of {step}")
    if block != "basic" and not architecture.residual:
        raise ValueError(f"block = {block!r} has no effect on {name}; allowed for residual networks alone")
    _check_activations(name, block, nonlinearity, activation_bits, outer_layers)
    layers = Layers(quantizer, nonlinearity, seed, block, activation_bits, outer_layers)
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global generator
        model = architecture.build(layers, in_channels, classes, image_size, width)
    _initialise(model, torch.Generator().manual_seed(seed))
    model.options = {  # with them and its state, a file can hold the network
        "name": name, "in_channels": in_channels, "classes": classes, "image_size": image_size, "width": width,
        "nonlinearity": nonlinearity, "block": block, "activation_bits": activation_bits,
        "outer_layers": outer_layers,
    }  # fmt: skip
    return model


def _check_activations(name: str, block: str, nonlinearity: str, activation_bits: int, outer_layers: str) -> None:
    """Raises ValueError for a non-linearity that the network does not have, and for integers that it cannot."""
    fixed = "PReLU" if block == "released" else MODELS[name].fixed
    if fixed and nonlinearity != "relu":
        raise ValueError(f"nonlinearity = {nonlinearity!r} has no effect on {name}, which has {fixed}; allowed: relu")
    if activation_bits < FLOAT_BITS and (fixed or nonlinearity != "relu"):
        raise ValueError(
            f"activation_bits = {activation_bits} with activations of both signs, as {fixed or nonlinearity} leaves "
            f"them; allowed: {FLOAT_BITS}, or a network with ReLU"
        )
    choice("outer_layers", outer_layers, OUTER_LAYERS)
    if outer_layers == "integers" and (activation_bits == FLOAT_BITS or not MODELS[name].images):
        raise ValueError(
            f"outer_layers = 'integers' for {name} with activation_bits = {activation_bits}; allowed: networks of "
            "convolutions with activation_bits of 2 to 8, else floats"
        )


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, QuantLayer)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Transformer):
            nn.init.normal_(module.positions, std=0.02, generator=generator)
    for layer in quant_layers(model).values():
        layer.quantizer.initialize(layer.weight)
