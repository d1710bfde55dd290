"""The residual block of the paper's released code, and its activations without slow passes over memory.

With few channels and channels last, torch adds a value a channel in loops of C steps, and its PReLU of bf16 has no
vector code: together they took longer than the convolutions. `_wide` has the same numbers in rows of W * C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sbkit.models.layers import Layers

CLAMP = 2.0  # what enters a convolution lies within -CLAMP and CLAMP


class LearnedBias(nn.Module):
    """Adds a learned bias (C, 1, 1), at first 0, to x (N, C, H, W)."""

    def __init__(self, C: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(C, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class ReleasedBlock(nn.Module):
    """The block of the paper's released code: two shortcuts, PReLU, learned biases, clamped inputs of convolutions.

        half(x) = PReLU(norm(conv(clamp(x + b0, -2, 2))) + shortcut(x) + b1) + b2

    twice. The first shortcut is average pooling, a 1x1 convolution and a batch norm where the shape changes, else the
    identity, as the second always is. Each convolution there also has a bias, which the batch norm after it takes out
    again: it is left out here. Reference: sachitkuhar/PLUM, quant/models/resnet.py, XnorBasicBlock.

    In training with channels last, `_Clamped` and `_Activated` compute the same with their own gradients; torch.compile
    fuses the plain passes itself. Under autocast these give what float32 biases make them, float32; those keep bf16.
    """

    def __init__(self, layers: Layers, C: int, K: int, stride: int):
        super().__init__()
        self.clamp = nn.Hardtanh(-CLAMP, CLAMP)
        self.conv1, self.conv2 = layers.conv3x3(C, K, stride), layers.conv3x3(K, K)
        self.norm1, self.norm2 = nn.BatchNorm2d(K), nn.BatchNorm2d(K)
        self.shortcut = nn.Identity()
        if stride != 1 or C != K:
            pool = nn.AvgPool2d(2, stride, ceil_mode=True)  # as high and wide as the convolution, for odd images too
            self.shortcut = nn.Sequential(pool, nn.Conv2d(C, K, 1, bias=False), nn.BatchNorm2d(K))
        self.before1, self.before2 = LearnedBias(C), LearnedBias(K)
        self.act1, self.act2 = (nn.Sequential(LearnedBias(K), nn.PReLU(K), LearnedBias(K)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self._act(self.act1, self.norm1(self.conv1(self._before(self.before1, x))), self.shortcut(x))
        return self._act(self.act2, self.norm2(self.conv2(self._before(self.before2, x))), x)

    def _before(self, bias: LearnedBias, x: Tensor) -> Tensor:
        if self.training and _is_slow(x):
            return _Clamped.apply(x, bias.bias)
        return self.clamp(bias(x))

    def _act(self, act: nn.Sequential, y: Tensor, shortcut: Tensor) -> Tensor:
        if self.training and _is_slow(y) and _is_slow(shortcut):
            return _Activated.apply(y, shortcut, act[0].bias, act[1].weight, act[2].bias)
        return act(y + shortcut)


def _is_slow(x: Tensor) -> bool:
    """Whether torch's own passes over x are slow: channels last, and not fused by torch.compile."""
    return not torch.compiler.is_compiling() and x.is_contiguous(memory_format=torch.channels_last)


def _wide(x: Tensor) -> Tensor:
    """x (N, C, H, W) with channels last as a matrix (N * H, W * C), without a copy."""
    return x.permute(0, 2, 3, 1).flatten(2).flatten(0, 1)


def _narrow(x: Tensor, like: Tensor) -> Tensor:
    """`_wide` undone."""
    N, C, H, W = like.shape
    return x.view(N, H, W, C).permute(0, 3, 1, 2)


def _a_column(values: Tensor, x: Tensor) -> Tensor:
    """Values, one for each channel of x, for each column of `_wide(x)`."""
    return values.flatten().to(x.dtype).repeat(x.shape[3])


def _a_channel(gradient: Tensor, values: Tensor) -> Tensor:
    """The gradient of `values` from that of each element of a `_wide` matrix."""
    return gradient.sum(0).to(values.dtype).view(-1, values.numel()).sum(0).view_as(values)


class _Clamped(torch.autograd.Function):
    """clamp(x + bias, -CLAMP, CLAMP)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        y = _wide(x) + _a_column(bias, x)
        y = _narrow(y.clamp_(-CLAMP, CLAMP), x)
        ctx.save_for_backward(y, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        y, bias = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        inside = torch.ops.aten.hardtanh_backward(_wide(gradient), _wide(y), -CLAMP, CLAMP)
        return _narrow(inside, y), _a_channel(inside, bias)


class _Activated(torch.autograd.Function):
    """z = y + shortcut + before;  (z if z > 0 else slope * z) + after"""

    @staticmethod
    def forward(ctx: Any, y: Tensor, shortcut: Tensor, before: Tensor, slope: Tensor, after: Tensor) -> Tensor:
        z = _wide(y) + _wide(shortcut).to(y.dtype)
        z += _a_column(before, y)
        below = z.neg().clamp_(min=0)  # how far below 0
        ctx.save_for_backward(_narrow(below, y), before, slope, after)
        ctx.shortcut_dtype = shortcut.dtype
        z.addcmul_(below, _a_column(1 - slope, y))
        z += _a_column(after, y)
        return _narrow(z, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        narrow, before, slope, after = ctx.saved_tensors
        gradient, below = _wide(gradient.contiguous(memory_format=torch.channels_last)), _wide(narrow)
        where_below = torch.ops.aten.threshold_backward(gradient, below, 0)
        of_z = torch.addcmul(gradient, where_below, _a_column(slope - 1, narrow))
        of_slope, of_after = -_a_channel(gradient * below, slope), _a_channel(gradient, after)
        of_input = _narrow(of_z, narrow)
        return of_input, of_input.to(ctx.shortcut_dtype), _a_channel(of_z, before), of_slope, of_after
