"""Ternary weights: TWN, whose scale is a statistic of the weights, and TTQ, whose two scales are learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sbkit.conv import QuantizedWeight
from sbkit.quantizers.base import Codes, Quantizer, QuantizerConfig, below_one, mean_magnitude


class TernaryTWN(Quantizer):
    """Values {-alpha, 0, +alpha}; Delta = 0.7 mean|w| and alpha = mean of the |w| > Delta, both per layer.

    Forward: alpha * sign(w) * [|w| > Delta]. Gradient: alpha times the slope of `ste`.
    Reference: TWN (Li et al., 2016), Delta as in its Caffe code; alpha is the least-squares scale of the kept weights.
    """

    def quantize(self, w):
        magnitude = w.abs()
        kept = magnitude.gt_(0.7 * magnitude.mean())
        return Codes(torch.sign(w).mul_(kept), mean_magnitude(w[None], kept[None])[0])


class _TrainedTernary(torch.autograd.Function):
    """W_p where w > Delta, -W_n where w < -Delta, else 0; the gradients that `TernaryTTQ` states."""

    @staticmethod
    def forward(ctx, w, positive_scale, negative_scale, delta):
        positive, negative = w.clone().gt_(delta), w.clone().lt_(-delta)
        ctx.save_for_backward(positive, negative, positive_scale, negative_scale)
        return (positive_scale * positive).sub_(negative_scale * negative)

    @staticmethod
    def backward(ctx, g):
        positive, negative, positive_scale, negative_scale = ctx.saved_tensors
        slope = ((positive_scale - 1) * positive).add_(1).add_((negative_scale - 1) * negative)
        return slope.mul_(g), (g * positive).sum(), -(g * negative).sum(), None


class TernaryTTQ(Quantizer):
    """Values {-W_n, 0, +W_p}, both learned from 1, one pair per layer; Delta = delta_factor * max|w| per layer.

    Forward: W_p where w > Delta, -W_n where w < -Delta, else 0. Gradient to w: W_p g where w > Delta, W_n g where
    w < -Delta, g between; to W_p the sum of g over w > Delta, to W_n minus the sum of g over w < -Delta.
    Reference: TTQ (Zhu et al., 2017) and its released TensorFlow code.
    """

    options = ("delta_factor",)

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        below_one("delta_factor", config.delta_factor)

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig, generator: torch.Generator):
        super().__init__(shape, config, generator)
        self.positive_scale = nn.Parameter(torch.ones(()))
        self.negative_scale = nn.Parameter(torch.ones(()))

    def _delta(self, w: Tensor) -> Tensor:
        return self.config.delta_factor * w.detach().abs().amax()

    def forward(self, w: Tensor) -> Tensor:
        return _TrainedTernary.apply(w, self.positive_scale, self.negative_scale, self._delta(w))

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        delta = self._delta(w)
        return self._pack(w, (w > delta).int() - (w < -delta).int(), self.positive_scale, self.negative_scale)
