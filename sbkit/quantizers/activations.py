"""Activations of few bits, with a step that is learned: LSQ (Esser et al., "Learned Step Size Quantization", 2020).

    y = step * clamp(round(x / step), low, high)

The low and high are 0 and 2^bits - 1, for signed activations -2^(bits - 1) and 2^(bits - 1) - 1. The gradient of x
passes where x / step lies between them, and at 0; that of the step is round(x / step) - x / step there, and low or high
elsewhere, times 1 / sqrt(features * high), where `features` counts the activations of one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sbkit.way import FLOAT_BITS, MOST_BITS, check_bits

STREAM_BITS = MOST_BITS
"""Bits of the activations between residual blocks, however few those that a convolution takes."""


class LearnedStep(nn.Module):
    """Quantizes activations x (N, ...) of any shape, in their dtype.

    The parameter is the step's logarithm, which keeps the step positive: the published recipe is for SGD, while Adam
    moves every parameter by about its learning rate at first, more than a whole step of 8 bits.

    With `widest` it begins as wide as what it is fitted to, for images, whose range is known; the published beginning
    is narrower, as activations have rare large values.

    Where `fused` is set, training takes one pass over memory each way, compiled by torch.compile. That computes in
    float32, where the passes of torch keep the dtype of x: in bf16 some activations then take the level beside.
    """

    def __init__(self, bits: int, *, signed: bool = False, widest: bool = False):
        super().__init__()
        check_bits(bits)
        if bits == FLOAT_BITS:
            raise ValueError(f"bits = {bits} of a learned step; allowed: an integer from 2 to {MOST_BITS}")
        self.bits, self.signed, self.widest, self.fused = bits, signed, widest, False
        self.low, self.high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        self.log_step = nn.Parameter(torch.zeros(()))

    @property
    def step(self) -> Tensor:
        """What one unit of the integers stands for: a positive scalar."""
        return self.log_step.exp()

    def forward(self, x: Tensor) -> Tensor:
        rounded = _Fused if self.fused and self.training else _Rounded
        return rounded.apply(x, self.log_step, self.low, self.high)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Begin with the published step, 2 mean|x| / sqrt(high), or the widest, max|x| / high; where all x are 0, it
        stays as it is.
        """
        size = x.abs()
        if step := float(size.max() / self.high if self.widest else 2 * size.mean() / math.sqrt(self.high)):
            self.log_step.fill_(math.log(step))

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}"


class _Rounded(torch.autograd.Function):
    """The formula above, of the step's logarithm. With q = clamp(round(x / step)) and gx the gradient of x,

        d / d step = (sum of g q - sum of gx x / step) / sqrt(features * high)

    which is the published sum, and d / d log step is step times that.
    """

    @staticmethod
    def forward(ctx, x: Tensor, log_step: Tensor, low: int, high: int) -> Tensor:
        step = float(log_step.exp())
        q = (x / step).round_().clamp_(low, high)
        ctx.save_for_backward(x, q)
        ctx.step, ctx.low, ctx.high = step, low, high
        return q * step

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        (x, q), step = ctx.saved_tensors, ctx.step
        # The gradient is zero at both limits and beyond; the -1e-38 lets that of x = 0 through.
        gx = torch.ops.aten.hardtanh_backward(g, x, ctx.low * step - 1e-38, ctx.high * step)
        of_step = (g * q).sum(dtype=torch.float32) - (gx * x).sum(dtype=torch.float32) / step
        return gx, of_step * step / math.sqrt(x[0].numel() * ctx.high), None, None


class _Fused(torch.autograd.Function):
    """The same, in float32 throughout and in one pass each way, which the functions below are.

    They see all elements in a row, in the order in which they lie in memory: channels may be the last dimension there.
    """

    @staticmethod
    def forward(ctx, x: Tensor, log_step: Tensor, low: int, high: int) -> Tensor:
        step, last = log_step.exp(), -1 if x.ndim < 2 or x.is_contiguous() else 1
        x = x.movedim(last, -1)
        ctx.save_for_backward(x, step)
        ctx.low, ctx.high, ctx.last = low, high, last
        return _one_pass(_values)(x.flatten(), step, low, high).view(x.shape).movedim(-1, last)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        x, step = ctx.saved_tensors
        gx, of_step = _one_pass(_gradients)(g.movedim(ctx.last, -1).flatten(), x.flatten(), step, ctx.low, ctx.high)
        of_step = of_step * step / math.sqrt(x[0].numel() * ctx.high)
        return gx.view(x.shape).movedim(-1, ctx.last), of_step, None, None


@cache
def _one_pass(function: Callable) -> Callable:
    return torch.compile(function, dynamic=True)  # one program for all sizes


def _values(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    return ((x.float() / step).round().clamp(low, high) * step).to(x.dtype)


def _gradients(g: Tensor, x: Tensor, step: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """The gradient of x, and the published sum."""
    g32, in_steps = g.float(), x.float() / step
    q, inside = in_steps.round().clamp(low, high), (in_steps < high) & ((in_steps > low) | (in_steps == 0))
    return torch.where(inside, g32, 0).to(g.dtype), (g32 * torch.where(inside, q - in_steps, q)).sum()


def learned_steps(model: nn.Module) -> list[LearnedStep]:
    return [module for module in model.modules() if isinstance(module, LearnedStep)]


@torch.no_grad()
def calibrate(model: nn.Module, x: Tensor) -> None:
    """Run x through a network in training mode once; each learned step is fitted to its input before it rounds that.

    Buffers are restored afterwards: batch norms have not seen x.
    """
    steps = learned_steps(model)
    state = {name: value.clone() for name, value in model.named_buffers()}
    hooks = [step.register_forward_pre_hook(lambda module, inputs: module.fit(inputs[0])) for step in steps]
    training = model.training
    try:
        if steps:
            model.train()(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
        for name, value in model.named_buffers():
            value.copy_(state[name])
