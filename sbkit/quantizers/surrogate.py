"""Surrogate gradients: what replaces the derivative of the codes, which is zero almost everywhere.

    ste     1 where |w| <= 1, else 0                straight-through estimator (Courbariaux et al., 2016)
    ede     k t (1 - tanh(t w)^2)                   error decay estimator (IR-Net, Qin et al., 2020)
    sb_ede  k t (1 - tanh(t (w - beta Delta))^2)    the same, centred on the threshold of signed-binary weights

t and k are the temperatures of `ede_temperature`; beta and Delta are defined in `sbkit.quantizers.signed_binary`.
"""

from __future__ import annotations

import torch
from torch import Tensor


class _Surrogate(torch.autograd.Function):
    """Value `w_q`, already computed; the gradient `slope` * g goes to the first argument alone."""

    @staticmethod
    def forward(ctx, w: Tensor, w_q: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return w_q

    @staticmethod
    def backward(ctx, g: Tensor):
        (slope,) = ctx.saved_tensors
        return g * slope, None, None


def with_slope(w: Tensor, w_q: Tensor, slope: Tensor) -> Tensor:
    """The value `w_q` with `slope` as its derivative by w; all three have one shape."""
    return _Surrogate.apply(w, w_q, slope)


def ste_slope(w: Tensor) -> Tensor:
    """1 where |w| <= 1, else 0."""
    return w.abs().le_(1)  # comparing in place keeps floats: on CPUs several times faster than a bool mask


def ede_slope(w: Tensor, t: float, k: float) -> Tensor:
    """k t (1 - tanh(t w)^2), the derivative of k tanh(t w)."""
    return (t * w).tanh_().square_().neg_().add_(1).mul_(k * t)


def ede_temperature(progress: float) -> tuple[float, float]:
    """(t, k) at the share `progress` of training, 0 to 1: t rises geometrically from 0.1 to 10, k = max(1/t, 1).

    Reference: IR-Net; the released code of signed-binary networks has the same schedule.
    """
    t = 10.0 ** (2.0 * progress - 1.0)
    return t, max(1.0 / t, 1.0)
