"""Networks whose layers follow one another without shortcuts: VGG-small and a multilayer perceptron."""

from __future__ import annotations

from torch import nn

from sbkit.models.layers import Layers


def vgg_small(layers: Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
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


def mlp(layers: Layers, in_channels: int, classes: int, image_size: int, width: int) -> nn.Module:
    """Four linear layers of `width`, all but the first quantized, each with a batch norm; then the classifier."""
    width = width or 256
    modules = [nn.Flatten(), nn.Linear(in_channels * image_size**2, width), *layers.norm_act(width, nn.BatchNorm1d)]
    for _ in range(3):
        modules += [layers.linear(width, width), *layers.norm_act(width, nn.BatchNorm1d)]
    return nn.Sequential(*modules, nn.Linear(width, classes))
