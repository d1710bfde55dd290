"""A small vision transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.models.layers import Layers

PATCHES = 7  # patches a side of the image
HEADS = 4


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
