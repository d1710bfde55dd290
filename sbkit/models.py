"""The networks: residual networks in CIFAR and ImageNet style, VGG-small, and an MLP and a vision transformer, with
quantized inner layers.

The first layer, the shortcuts and the classifier stay in full precision. In residual networks shortcuts are 1x1
convolutions with batch normalisation where the shape changes (option B of He et al., 2016; CIFAR ResNets often take the
parameter-free option A). EXPECTED_PARAMETERS states the sizes they must have.
"""

from __future__ import annotations

import functools
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.quantizers import FullPrecision, QuantizerConfig, make_quantizer

NONLINEARITIES: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda channels: nn.ReLU(inplace=True),
    "prelu": lambda channels: nn.PReLU(channels),
    "leaky_relu": lambda channels: nn.LeakyReLU(0.1, inplace=True),
    "tanh": lambda channels: nn.Tanh(),
    "hardtanh": lambda channels: nn.Hardtanh(-2.0, 2.0, inplace=True),
}


_BF16_TRIAL = "import torch; x = torch.ones(64, 64, dtype=torch.bfloat16); x @ x"


def has_bf16() -> bool:
    """Whether torch has convolutions in bf16 for this CPU; without them it falls back to ones that take forever."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@functools.cache
def bf16_trouble() -> str:
    """Why networks should not compute in bf16 on this CPU; empty where they may. A second, the first time."""
    if not has_bf16():
        return "torch has no convolutions in it for this CPU"
    return death_in_trial(_BF16_TRIAL)


def death_in_trial(program: str, *arguments: str | os.PathLike) -> str:
    """The signal that a Python program dies of in a process of its own, and what may avoid it; empty if of none.

    A virtual machine may announce AMX and hide the sizes of its tiles (CPUID leaf 1Dh). oneDNN then computes without
    AMX where it asks for them, and stops the process where it does not.
    """
    trial = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    if trial.returncode >= 0:
        return ""
    name = signal.Signals(-trial.returncode).name
    return f"died of {name} in a trial; ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 avoids the AMX unit"


class _QuantLayer(nn.Module):
    """Latent weights of one `shape`, and their quantizer."""

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig, signs: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.quantizer = make_quantizer(config, shape, signs)
        self.ahead: Tensor | None = None  # the quantized weights of a forward pass that has not come to this layer

    def quantized(self) -> Tensor:
        w_q, self.ahead = self.ahead, None
        return self.quantizer(self.weight) if w_q is None else w_q


class QuantConv2d(_QuantLayer):
    """Convolution of (N, C, H, W) with quantized weights (K, C, R, R), without bias."""

    def __init__(
        self, C: int, K: int, R: int, *, stride: int, padding: int, config: QuantizerConfig, signs: torch.Generator
    ):
        super().__init__((K, C, R, R), config, signs)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.quantized(), stride=self.stride, padding=self.padding)


class QuantLinear(_QuantLayer):
    """Linear layer of (..., C) with quantized weights (K, C), without bias; a filter is a row of the weights.

    Codes alone make its outputs about sqrt(C) times too large: where no batch norm follows to correct that, a scheme
    needs scale = "mean".
    """

    def __init__(self, C: int, K: int, *, config: QuantizerConfig, signs: torch.Generator):
        super().__init__((K, C), config, signs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantized())


def _quantize_ahead(model: nn.Module, inputs: tuple) -> None:
    """Forward pre-hook of a network on a CPU: quantizes the weights of all its layers before the first one runs.

    A quantizer is a dozen small operations. Together they run from warm caches, and so do their gradients, which
    autograd then leaves to the end; between large convolutions each takes two to four times as long. On a GPU nothing
    would be gained, and DDP could not send gradients while the rest are computed.
    """
    for layer in quant_layers(model).values():
        if layer.weight.is_cpu and not isinstance(layer.quantizer, FullPrecision):  # its result is a Parameter, which
            layer.ahead = layer.quantizer(layer.weight)  # a module would take for a second one of its own


def _forget(model: nn.Module, inputs: tuple, output: Tensor | None) -> None:
    """Forward hook of a network: after a pass that failed, no layer keeps the weights meant for it."""
    for layer in quant_layers(model).values():
        layer.ahead = None


class _Layers:
    """What the layers of one network share: the scheme, the generator of its fixed signs, the non-linearity, the form
    of its residual blocks.
    """

    def __init__(self, config: QuantizerConfig, nonlinearity: str, seed: int, double_shortcut: bool, clamp: float):
        self.config, self.nonlinearity = config, NONLINEARITIES[nonlinearity]
        self.double_shortcut, self.clamp = double_shortcut, clamp
        # Another seed than that of the latent weights, lest the fixed signs be drawn from the same stream as these.
        self.signs = torch.Generator().manual_seed(seed + 1_000_003)

    def conv3x3(self, C: int, K: int, stride: int = 1) -> QuantConv2d:
        return QuantConv2d(C, K, 3, stride=stride, padding=1, config=self.config, signs=self.signs)

    def linear(self, C: int, K: int) -> QuantLinear:
        return QuantLinear(C, K, config=self.config, signs=self.signs)

    def norm_act(self, K: int, norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
        return nn.Sequential(norm(K), self.nonlinearity(K))


class _NarrowShortcut(nn.Conv2d):
    """A 1x1 convolution that takes its stride first: the same function of the same parameters.

    With a stride, channels last and fewer than 8 input channels, oneDNN on AVX2 writes the gradient of such weights
    past its workspace (oneDNN 3.12, issue 6035): wrong gradients, or a crash.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias)


class BasicBlock(nn.Module):
    """Two quantized 3x3 convolutions and a full-precision shortcut around both.

    With `double_shortcut` there is one around each, which ends before the non-linearity, as in Bi-Real net (Liu et al.,
    2018): the same parameters. With `clamp` what enters a convolution, not the shortcut, is kept within +-clamp. The
    paper's released block has both, and learned biases, which batch norms mostly make up for.
    """

    def __init__(self, layers: _Layers, C: int, K: int, stride: int):
        super().__init__()
        self.double_shortcut = layers.double_shortcut
        self.clamp = nn.Hardtanh(-layers.clamp, layers.clamp) if layers.clamp else nn.Identity()
        self.conv1 = layers.conv3x3(C, K, stride)
        self.act1 = layers.norm_act(K)
        self.conv2 = layers.conv3x3(K, K)
        self.norm2 = nn.BatchNorm2d(K)
        self.shortcut = nn.Identity()
        if stride != 1 or C != K:
            shortcut = _NarrowShortcut if C < 8 else nn.Conv2d
            self.shortcut = nn.Sequential(shortcut(C, K, 1, stride, bias=False), nn.BatchNorm2d(K))
        self.act2 = layers.nonlinearity(K)

    def forward(self, x: Tensor) -> Tensor:
        y, shortcut = self.conv1(self.clamp(x)), self.shortcut(x)
        if self.double_shortcut:
            norm1, nonlinearity = self.act1
            y = shortcut = nonlinearity(norm1(y) + shortcut)
        else:
            y = self.act1(y)
        return self.act2(self.norm2(self.conv2(self.clamp(y))) + shortcut)


class ResNet(nn.Module):
    """A stem, stages of basic blocks that halve the image and double the channels, average pooling and a classifier."""

    def __init__(self, layers: _Layers, blocks: list[int], width: int, stem: nn.Module, classes: int):
        super().__init__()
        self.stem = stem
        C = width
        for index, count in enumerate(blocks):
            K = width << index
            stride = 1 if index == 0 else 2
            stage = [BasicBlock(layers, C if b == 0 else K, K, stride if b == 0 else 1) for b in range(count)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*stage))
            C = K
        self.stages = len(blocks)
        self.classifier = nn.Linear(C, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for index in range(self.stages):
            x = getattr(self, f"layer{index + 1}")(x)
        return self.classifier(x.mean((2, 3)))


def _cifar_resnet(depth: int):
    def build(layers: _Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
        width = width or 16
        stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), *layers.norm_act(width))
        return ResNet(layers, [(depth - 2) // 6] * 3, width, stem, classes)

    return build


def _imagenet_resnet(blocks: list[int]):
    def build(layers: _Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
        width = width or 64
        stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, 2, 3, bias=False), *layers.norm_act(width), nn.MaxPool2d(3, 2, 1)
        )
        return ResNet(layers, blocks, width, stem, classes)

    return build


def _vgg_small(layers: _Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
    """VGG-small of the binary-network literature: six 3x3 convolutions, pooling after every second, one classifier."""
    width = width or 128
    modules = [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), *layers.norm_act(width)]
    C = width
    for index, K in enumerate((width, 2 * width, 2 * width, 4 * width, 4 * width), start=1):
        modules.append(layers.conv3x3(C, K))
        if index % 2:
            modules.append(nn.MaxPool2d(2))
        modules += layers.norm_act(K)
        C = K
    side = image_size // 8
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(C * side * side, classes))


def _mlp(layers: _Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
    """Four linear layers of `width`, all but the first quantized, each with a batch norm; then the classifier."""
    width = width or 256
    modules = [nn.Flatten(), nn.Linear(in_channels * image_size**2, width), *layers.norm_act(width, nn.BatchNorm1d)]
    for _ in range(3):
        modules += [layers.linear(width, width), *layers.norm_act(width, nn.BatchNorm1d)]
    return nn.Sequential(*modules, nn.Linear(width, classes))


class TransformerBlock(nn.Module):
    """Attention between tokens (N, T, C), then two layers on each token, by way of 4 C channels; all six quantized.

    A layer norm comes before either part and a shortcut passes it by (pre-norm). The non-linearity is GELU.
    """

    def __init__(self, layers: _Layers, C: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.query, self.key, self.value, self.output = (layers.linear(C, C) for _ in range(4))
        self.up, self.down = layers.linear(C, 4 * C), layers.linear(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        parts = (layer(y).unflatten(2, (self.heads, -1)) for layer in (self.query, self.key, self.value))
        query, key, value = (part.transpose(1, 2) for part in parts)  # (N, heads, T, C / heads)
        y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # (N, T, C)
        x = x + self.output(y)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A small vision transformer: 7 x 7 patches as tokens, learned positions, two blocks, the mean, a classifier.

    Quantized weights in a residual stream without batch norm: schemes need scale = "mean".
    """

    def __init__(self, layers: _Layers, in_channels: int, classes: int, image_size: int, width: int):
        super().__init__()
        side = image_size // 7
        self.patches = nn.Conv2d(in_channels, width, side, side, bias=False)
        self.positions = nn.Parameter(torch.empty(7 * 7, width))
        self.blocks = nn.Sequential(*(TransformerBlock(layers, width) for _ in range(2)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, C)
        return self.classifier(self.norm(self.blocks(x).mean(1)))


def _transformer(layers: _Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
    return Transformer(layers, in_channels, classes, image_size, width or 64)


MODELS = {f"resnet{depth}": _cifar_resnet(depth) for depth in (8, 20, 32, 44, 56, 110)} | {
    "vgg_small": _vgg_small,
    "resnet18": _imagenet_resnet([2, 2, 2, 2]),
    "resnet34": _imagenet_resnet([3, 4, 6, 3]),
    "mlp": _mlp,
    "transformer": _transformer,
}

EXPECTED_PARAMETERS: dict[str, tuple[int, int]] = {
    "resnet8": (78_042, 73_728),
    "resnet20": (272_474, 267_264),
    "resnet32": (466_906, 460_800),
    "resnet44": (661_338, 654_336),
    "resnet56": (855_770, 847_872),
    "resnet110": (1_730_714, 1_718_784),
    "vgg_small": (4_660_106, 4_571_136),
    "resnet18": (11_689_512, 10_985_472),
    "resnet34": (21_797_672, 21_086_208),
    "mlp": (987_914, 196_608),
    "transformer": (105_802, 98_304),
}
"""Parameters and quantized weights of each network in full precision with ReLU: 10 classes at 3x32x32, the
transformer's at 3x28x28; for resnet18 and resnet34 1000 classes at 3x224x224."""


def build_model(
    name: str,
    *,
    quantizer: QuantizerConfig,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int = 32,
    width: int = 0,
    nonlinearity: str = "relu",
    double_shortcut: bool = False,
    clamp: float = 0.0,
    seed: int = 0,
) -> nn.Module:
    """A network by name, for images (N, in_channels, image_size, image_size).

    `width` is the number of channels of the first stage, 0 the architecture's own. The same seed gives the same latent
    weights (He initialisation) under every scheme: what a scheme draws for itself comes from a generator of its own.
    `double_shortcut` and `clamp` (0: none) are those of BasicBlock.
    Raises ValueError for an unknown name or non-linearity, for an image too small for the network, and for an option of
    residual blocks where there are none; the transformer takes sides that are multiples of 7 and widths that are
    multiples of 4, and its non-linearity is GELU.
    """
    if name not in MODELS:
        raise ValueError(f"model = {name!r}; allowed: {', '.join(MODELS)}")
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(f"nonlinearity = {nonlinearity!r}; allowed: {', '.join(NONLINEARITIES)}")
    for option, value, lowest in (("in_channels", in_channels, 1), ("classes", classes, 1), ("width", width, 0)):
        if value < lowest:
            raise ValueError(f"{option} = {value}; allowed: >= {lowest}")
    least = 8 if name == "vgg_small" else 32 if name in ("resnet18", "resnet34") else 4
    if image_size < least:
        raise ValueError(f"image_size = {image_size} for {name}; allowed: >= {least}")
    if name == "transformer":
        for option, value, factor in (("image_size", image_size, 7), ("width", width, 4)):
            if value % factor:
                raise ValueError(f"{option} = {value} for {name}; allowed: multiples of {factor}")
        if nonlinearity != "relu":
            raise ValueError(f"nonlinearity = {nonlinearity!r} has no effect on {name}, which has GELU; allowed: relu")
    if not 0 <= clamp < math.inf:
        raise ValueError(f"clamp = {clamp}; allowed: a number >= 0")
    if not name.startswith("resnet"):
        for option, value in (("double_shortcut", double_shortcut), ("clamp", clamp)):
            if value:
                raise ValueError(f"{option} = {value} has no effect on {name}; allowed for residual networks alone")
    layers = _Layers(quantizer, nonlinearity, seed, double_shortcut, clamp)
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global generator
        model = MODELS[name](layers, in_channels, classes, image_size, width)
    _initialise(model, torch.Generator().manual_seed(seed))
    model.register_forward_pre_hook(_quantize_ahead)
    model.register_forward_hook(_forget, always_call=True)
    return model


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, _QuantLayer)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Transformer):
            nn.init.normal_(module.positions, std=0.02, generator=generator)
    for layer in quant_layers(model).values():
        layer.quantizer.initialize(layer.weight)


def quant_layers(model: nn.Module) -> dict[str, _QuantLayer]:
    """The quantized layers by module name, in the order of construction."""
    return {name: m for name, m in model.named_modules() if isinstance(m, _QuantLayer)}


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
