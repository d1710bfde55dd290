"""The outer layers of a network, which no scheme quantizes: its first convolution and its 1x1 shortcuts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.quantizers.activations import STREAM_BITS, LearnedStep

OUTER_LAYERS = ("floats", "integers")
"""What the first convolution and the 1x1 shortcuts compute in."""

MOST_OUTER = 63
"""The largest integer weight of an outer layer."""


class NarrowShortcut(nn.Conv2d):
    """A 1x1 convolution that takes every stride-th pixel and then has stride 1: the same function of its parameters.

    With a stride, channels last and fewer than 8 input channels, oneDNN on AVX2 writes the gradient of such weights
    past its workspace (oneDNN 3.12, issue 6035): wrong gradients, or a crash.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias)


class OuterConv2d(nn.Conv2d):
    """A convolution that no scheme quantizes, in integers: the first one of a network, or a shortcut.

        w[k] = scale[k] * round(weight[k] / scale[k]),   scale[k] = max|weight[k]| / MOST_OUTER

    Gradients pass the rounding as they are (straight-through). Seven bits a weight, so that 16 bits hold two products
    with activations of 8 bits, which AVX2 adds at once; libraries call it a reduced range. With `images` it is the
    first convolution and rounds what it takes to 8 bits; a shortcut takes activations that have 8 bits. Under autocast
    to bf16, which has 8 significant bits, weights and images are a little off these values.
    """

    def __init__(self, C: int, K: int, R: int, stride: int = 1, padding: int = 0, *, images: bool):
        super().__init__(C, K, R, stride, padding, bias=False)
        self.activations = LearnedStep(STREAM_BITS, signed=True, widest=True) if images else nn.Identity()

    def codes(self) -> tuple[Tensor, Tensor]:
        """The integers (K, C, R, R), as floats, and the scales (K, 1, 1, 1)."""
        scale = self.weight.detach().abs().amax((1, 2, 3), keepdim=True) / MOST_OUTER
        scale = torch.where(scale > 0, scale, 1.0)
        return (self.weight.detach() / scale).round().clamp(-MOST_OUTER, MOST_OUTER), scale

    def quantized(self) -> Tensor:
        """The weights to compute with."""
        codes, scale = self.codes()
        return codes * scale + (self.weight - self.weight.detach())  # the last is 0, with the gradient

    def forward(self, x: Tensor) -> Tensor:
        x, (rows, columns) = self.activations(x), self.stride
        if (self.kernel_size, self.padding) == ((1, 1), (0, 0)):  # as NarrowShortcut
            return F.conv2d(x[..., ::rows, ::columns], self.quantized())
        return F.conv2d(x, self.quantized(), None, self.stride, self.padding)
