"""The networks: residual ones in CIFAR and ImageNet style, VGG-small, a multilayer perceptron, a vision transformer.

Shortcuts are 1x1 convolutions with batch normalisation where the shape changes (option B of He et al., 2016; CIFAR
ResNets often take the parameter-free option A).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.models.layers import Layers
from sbkit.models.released import ReleasedBlock

PATCHES = 7  # of the transformer's image, a side
HEADS = 4  # of its attention


class BasicBlock(nn.Module):
    """Two quantized 3x3 convolutions and a shortcut around both, which no scheme quantizes.

    With integer activations, what leaves the block and its shortcut has 8 bits, whatever the convolutions take.
    """

    def __init__(self, layers: Layers, C: int, K: int, stride: int):
        super().__init__()
        self.conv1 = layers.conv3x3(C, K, stride, stream=True)
        self.act1 = layers.norm_act(K)
        self.conv2 = layers.conv3x3(K, K)
        self.norm2 = nn.BatchNorm2d(K)
        self.shortcut = nn.Identity()
        if stride != 1 or C != K:
            convolution = layers.shortcut(C, K, stride)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(K), *layers.stream(signed=True))
        self.act2 = layers.nonlinearity(K)
        self.stream = nn.Sequential(*layers.stream())

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.act1(self.conv1(x))))
        return self.stream(self.act2(y + self.shortcut(x)))


BLOCKS: dict[str, type[nn.Module]] = {"basic": BasicBlock, "released": ReleasedBlock}
"""By the value of the option `block`."""


class ResNet(nn.Module):
    """A stem, stages of blocks that halve the image and double the channels, average pooling and a classifier."""

    def __init__(self, layers: Layers, blocks: list[int], width: int, stem: nn.Module, classes: int):
        super().__init__()
        self.stem = stem
        C = width
        for index, count in enumerate(blocks):
            K = width << index
            stride = 1 if index == 0 else 2
            stage = [BLOCKS[layers.block](layers, C if b == 0 else K, K, stride if b == 0 else 1) for b in range(count)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*stage))
            C = K
        self.stages = len(blocks)
        self.classifier = nn.Linear(C, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for index in range(self.stages):
            x = getattr(self, f"layer{index + 1}")(x)
        return self.classifier(x.mean((2, 3)))


def cifar_resnet(
    layers: Layers, in_channels: int, classes: int, image_size: int, width: int, *, depth: int
) -> nn.Module:
    """A 3x3 stem and three stages of (depth - 2) / 6 blocks."""
    width = width or 16
    conv = layers.first(in_channels, width, 3, padding=1)
    stem = nn.Sequential(conv, *layers.norm_act(width), *layers.stream())
    return ResNet(layers, [(depth - 2) // 6] * 3, width, stem, classes)


def imagenet_resnet(
    layers: Layers, in_channels: int, classes: int, image_size: int, width: int, *, blocks: list[int]
) -> nn.Module:
    """A 7x7 stem with pooling, which quarters the image, and four stages."""
    width = width or 64
    stem = nn.Sequential(
        layers.first(in_channels, width, 7, 2, 3),
        *layers.norm_act(width),
        nn.MaxPool2d(3, 2, 1),
        *layers.stream(),
    )
    return ResNet(layers, blocks, width, stem, classes)


def vgg_small(layers: Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
    """VGG-small of the binary-network literature: six 3x3 convolutions, pooling after every second, one classifier."""
    width = width or 128
    modules = [layers.first(in_channels, width, 3, padding=1), *layers.norm_act(width)]
    C = width
    for index, K in enumerate((width, 2 * width, 2 * width, 4 * width, 4 * width), start=1):
        modules.append(layers.conv3x3(C, K))
        if index % 2:
            modules.append(nn.MaxPool2d(2))
        modules += layers.norm_act(K)
        C = K
    side = image_size // 8
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(C * side * side, classes))


def mlp(layers: Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
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

    def __init__(self, layers: Layers, C: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.query, self.key, self.value, self.output = (layers.linear(C, C) for _ in range(4))
        self.up, self.down = layers.linear(C, 4 * C), layers.linear(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        parts = (layer(y).unflatten(2, (HEADS, -1)) for layer in (self.query, self.key, self.value))
        query, key, value = (part.transpose(1, 2) for part in parts)  # (N, HEADS, T, C / HEADS)
        y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # (N, T, C)
        x = x + self.output(y)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A small vision transformer: 7 x 7 patches as tokens, learned positions, two blocks, the mean, a classifier.

    Quantized weights in a residual stream without batch norm: schemes need scale = "mean".
    """

    def __init__(self, layers: Layers, in_channels: int, classes: int, image_size: int, width: int):
        super().__init__()
        width = width or 64
        side = image_size // PATCHES
        self.patches = nn.Conv2d(in_channels, width, side, side, bias=False)
        self.positions = nn.Parameter(torch.empty(PATCHES**2, width))
        self.blocks = nn.Sequential(*(TransformerBlock(layers, width) for _ in range(2)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, C)
        return self.classifier(self.norm(self.blocks(x).mean(1)))
