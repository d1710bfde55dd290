"""Activations of few bits, with a step that is learned: LSQ (Esser et al., "Learned Step Size Quantization", 2020).

    y = step * clamp(round(x / step), low, high)

The low and high are 0 and 2^bits - 1, for signed activations -2^(bits - 1) and 2^(bits - 1) - 1. The gradient of x
passes where x / step lies within them; that of the step is round(x / step) - x / step there, and low or high beyond,
times 1 / sqrt(features * high), where `features` counts the activations of one image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sbkit.way import FLOAT_BITS, MOST_BITS, check_bits

STREAM_BITS = MOST_BITS
"""Bits of the activations between residual blocks, however few those that a convolution takes."""


class LearnedStep(nn.Module):
    """Quantizes activations x (N, ...) of any shape, in their dtype.

    The parameter is the step's logarithm, which keeps the step positive: the published recipe is for SGD, while Adam
    moves every parameter by about its learning rate at first, more than a whole step of 8 bits.
    """

    def __init__(self, bits: int, *, signed: bool = False):
        super().__init__()
        check_bits(bits)
        if bits == FLOAT_BITS:
            raise ValueError(f"bits = {bits} of a learned step; allowed: an integer from 2 to {MOST_BITS}")
        self.bits, self.signed = bits, signed
        self.low, self.high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        self.log_step = nn.Parameter(torch.zeros(()))

    @property
    def step(self) -> Tensor:
        """What one unit of the integers stands for: a positive scalar."""
        return self.log_step.exp()

    def forward(self, x: Tensor) -> Tensor:
        return _Rounded.apply(x, self.log_step, self.low, self.high)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Begin with the published step, 2 mean|x| / sqrt(high); where all x are 0, it stays as it is."""
        if mean := float(x.abs().mean()):
            self.log_step.fill_(math.log(2 * mean / math.sqrt(self.high)))

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}"


class _Rounded(torch.autograd.Function):
    """The formula above, of the step's logarithm. With gx the gradient of x, the sum of g (round(x / step) - x / step)
    over what lies within the limits and of g times a limit over the rest is that of g q less that of gx x / step.
    """

    @staticmethod
    def forward(ctx, x: Tensor, log_step: Tensor, low: int, high: int) -> Tensor:
        step = float(log_step.exp())
        q = (x / step).round_().clamp_(low, high)
        ctx.save_for_backward(x, q)
        ctx.step, ctx.low, ctx.high = step, low, high
        return q * step

    @staticmethod
    def backward(ctx, g: Tensor):
        (x, q), step = ctx.saved_tensors, ctx.step
        # Zero where x is at most the second argument or at least the third: no x of a ReLU is beyond 0.
        gx = torch.ops.aten.hardtanh_backward(g, x, ctx.low * step - 1e-38, ctx.high * step)
        of_step = (g * q).sum(dtype=torch.float32) - (gx * x).sum(dtype=torch.float32) / step
        return gx, of_step * step / math.sqrt(x[0].numel() * ctx.high), None, None


@torch.no_grad()
def calibrate(model: nn.Module, x: Tensor) -> None:
    """Fit every learned step of a network to what reaches it when the network trains on x, one after the other.

    The network is otherwise as it was: its batch norms have not seen x.
    """
    steps = [module for module in model.modules() if isinstance(module, LearnedStep)]
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
