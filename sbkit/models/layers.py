"""Quantized layers, what they share within one network, and what can be asked of a network about them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.models.outer import NarrowShortcut, OuterConv2d
from sbkit.quantizers import FullPrecision, QuantizerConfig, make_quantizer
from sbkit.quantizers.activations import STREAM_BITS, LearnedStep
from sbkit.way import FLOAT_BITS

NONLINEARITIES: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda channels: nn.ReLU(inplace=True),
    "prelu": lambda channels: nn.PReLU(channels),
    "leaky_relu": lambda channels: nn.LeakyReLU(0.1, inplace=True),
    "tanh": lambda channels: nn.Tanh(),
    "hardtanh": lambda channels: nn.Hardtanh(-2.0, 2.0, inplace=True),
}


RELU = (nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
"""What a traced network calls for a ReLU: classes of modules, functions, names of methods."""


class QuantLayer(nn.Module):
    """Latent weights of one `shape`, their quantizer, that of what enters the layer, `activations`, and perhaps a bias
    (K,) in full precision.

    A layer quantizes at each call and keeps no result.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        config: QuantizerConfig,
        signs: torch.Generator,
        activations: LearnedStep | None,
        bias: bool,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_parameter("bias", nn.Parameter(torch.zeros(shape[0])) if bias else None)
        self.quantizer = make_quantizer(config, shape, signs)
        self.activations = activations or nn.Identity()

    def quantized(self) -> Tensor:
        """The weights to compute with. Under a tracer (`torch.jit.trace`, the ONNX exporter) they are constants."""
        if torch.jit.is_tracing() and not isinstance(self.quantizer, FullPrecision):
            return torch.from_numpy(self.quantizer.codes(self.weight).dense()).reshape(self.weight.shape)
        return self.quantizer(self.weight)


class QuantConv2d(QuantLayer):
    """Convolution of (N, C, H, W) with quantized weights (K, C, R, R)."""

    def __init__(
        self,
        C: int,
        K: int,
        R: int,
        *,
        stride: int,
        padding: int,
        config: QuantizerConfig,
        signs: torch.Generator,
        activations: LearnedStep | None = None,
        bias: bool = False,
    ):
        super().__init__((K, C, R, R), config, signs, activations, bias)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.activations(x), self.quantized(), self.bias, stride=self.stride, padding=self.padding)


class QuantLinear(QuantLayer):
    """Linear layer of (..., C) with quantized weights (K, C); a filter is a row of the weights.

    Codes alone make its outputs about sqrt(C) times too large: where no batch norm follows to correct that, a scheme
    needs scale = "mean".
    """

    def __init__(
        self,
        C: int,
        K: int,
        *,
        config: QuantizerConfig,
        signs: torch.Generator,
        activations: LearnedStep | None = None,
        bias: bool = False,
    ):
        super().__init__((K, C), config, signs, activations, bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.activations(x), self.quantized(), self.bias)


class Layers:
    """What the layers of one network share: the scheme, the generator of its fixed signs, the non-linearity, the form
    of its residual blocks, the bits of what enters its quantized layers, and what its outer layers compute in.
    """

    def __init__(
        self, config: QuantizerConfig, nonlinearity: str, seed: int, block: str, activation_bits: int, outer: str
    ):
        self.config, self.nonlinearity = config, NONLINEARITIES[nonlinearity]
        self.block, self.activation_bits, self.outer = block, activation_bits, outer
        # The latent weights have `seed` itself: the fixed signs must not be drawn from the same stream.
        self.signs = torch.Generator().manual_seed(seed + 1_000_003)

    def conv3x3(self, C: int, K: int, stride: int = 1, *, stream: bool = False) -> QuantConv2d:
        """`stream`: what enters it has the bits of `self.stream` already."""
        options = {"config": self.config, "signs": self.signs, "activations": self._activations(stream)}
        return QuantConv2d(C, K, 3, stride=stride, padding=1, **options)

    def first(self, C: int, K: int, R: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
        """The convolution that takes the images."""
        if self.outer == "integers":
            return OuterConv2d(C, K, R, stride, padding, images=True)
        return nn.Conv2d(C, K, R, stride, padding, bias=False)

    def shortcut(self, C: int, K: int, stride: int) -> nn.Conv2d:
        """A 1x1 convolution of what has the bits of `self.stream`."""
        if self.outer == "integers":
            return OuterConv2d(C, K, 1, stride, images=False)
        return (NarrowShortcut if C < 8 else nn.Conv2d)(C, K, 1, stride, bias=False)

    def linear(self, C: int, K: int) -> QuantLinear:
        return QuantLinear(C, K, config=self.config, signs=self.signs, activations=self._activations(False))

    def _activations(self, stream: bool) -> LearnedStep | None:
        known = stream and self.activation_bits == STREAM_BITS
        return None if known or self.activation_bits == FLOAT_BITS else LearnedStep(self.activation_bits)

    def stream(self, *, signed: bool = False) -> list[nn.Module]:
        """What quantizes the activations between residual blocks: a module, or none where they are floats."""
        return [] if self.activation_bits == FLOAT_BITS else [LearnedStep(STREAM_BITS, signed=signed)]

    def norm_act(self, K: int, norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
        return nn.Sequential(norm(K), self.nonlinearity(K))


def quant_layers(model: nn.Module) -> dict[str, QuantLayer]:
    """The quantized layers by module name, in the order of construction."""
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantLayer)}


def quantized_weights(model: nn.Module) -> dict[str, QuantizedWeight]:
    """Integer codes of every quantized layer; empty for a full-precision model."""
    return {
        name: layer.quantizer.codes(layer.weight)
        for name, layer in quant_layers(model).items()
        if not isinstance(layer.quantizer, FullPrecision)
    }


def set_progress(model: nn.Module, progress: float) -> None:
    """Tell every quantizer's estimator how far training is, 0 to 1."""
    for layer in quant_layers(model).values():
        layer.quantizer.set_progress(progress)


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """{"total": all trainable parameters, "quantized": latent weights of quantized layers}."""
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "quantized": sum(layer.weight.numel() for layer in quant_layers(model).values()),
    }


@torch.no_grad()
def conv_shapes(model: nn.Module, in_channels: int, image_size: int | tuple[int, int]) -> list[ConvShape]:
    """Shapes of the quantized layers for one image, named as the modules, found by running one.

    `image_size` is the side, or (height, width).
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    names = {layer: name for name, layer in quant_layers(model).items()}
    shapes = []

    def note(layer, inputs, _):
        K, C, *window = layer.weight.shape
        R, S = window or (1, 1)
        H, W = inputs[0].shape[2:] if window else (inputs[0].shape[1:-1].numel(), 1)  # a linear layer's tokens
        stride, padding = (layer.stride, layer.padding) if window else (1, 0)
        shapes.append(ConvShape(C, H, W, K, R, S, stride, padding, name=names[layer]))

    hooks = [layer.register_forward_hook(note) for layer in names]
    training = model.training
    try:
        model.eval()(next(model.parameters()).new_zeros(1, in_channels, *size))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return shapes
