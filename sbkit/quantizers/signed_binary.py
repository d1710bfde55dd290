"""Signed-binary weights, and the {0,1} weights that they improve on."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sbkit.checks import choice, number
from sbkit.quantizers.base import Codes, Quantizer, QuantizerConfig, below_one, mean_magnitude
from sbkit.quantizers.regions import Codebook, Regions, ranked_signs, region_signs


class SignedBinary(Quantizer):
    """Values {0, +alpha} in regions with beta = +1, {0, -alpha} where beta = -1.

    alpha = 1, or the mean |w| of the filter's effectual (non-zero) weights; 1 if it has none.

    Forward: alpha * channel_sign * beta * u, u = [beta * w >= Delta], Delta = delta_factor * max|w| (or mean|w|) over
    the region, filter or layer; hence all weights of an all-zero filter are effectual. A region is `region_channels`
    neighbouring input channels of one filter (all by default), at each tap by itself with region_taps = 1. beta is
    fixed before training; `swap_at` says when to negate all of it.

    assignment = 'learned': a region's beta is the sign under which more magnitude exceeds the threshold, so it follows
    the latent weights and may change at any step:

        beta = +1 if sum max(w - Delta, 0) >= sum max(-w - Delta, 0) over the region, else -1

    Of all codes with one sign a region these are the nearest to w on a grid of step 2 Delta. A sign is one more stored
    bit for each region (`weight_bits`), where fixed signs cost nothing: a seed or a rule gives them back.

    codebook_bits = b limits the mask u of each region of G channels (at one tap) to the 2^b masks m_1, m_2, ... of a
    `Codebook`, so that a weight takes b / G bits. A region takes the mask whose weights exceed the threshold by most in
    sum; among all 2^G masks that is the u above:

        u = m_j,  j = argmax_i m_i . (beta w - Delta)

    Gradient: alpha * channel_sign times the slope of `ste`, `ede` or `sb_ede`.

    threshold = 'learned': Delta_k = min(max(f_k, 0), 0.95) * max|w_k|, with a parameter f_k for filter k that starts
    at delta_factor. The slope stands for du / d(beta w - Delta) times beta, hence

        dw_q / df_k = -alpha * channel_sign * beta * slope * max|w_k|    for each weight of the filter,

    and the gradient of f_k is the sum of these times g. It ignores the clamp, so that a factor which left the range
    can return.

    Reference: Kuhar et al., 2023; the released code's `STESign.forward`, and its `ede` with the forward's own Delta.
    That code also clamps the gradient to [-1, 1] and never calls `ede`. It has no `channel_sign`: a random sign per
    input channel, half of them negative, outside the codes, so that inference folds it into the activations.
    """

    options = (
        "estimator", "scale", "threshold", "delta_factor", "delta_axis", *Codebook.options, "positive_fraction",
        "assignment", "swap_at", "channel_signs", "standardize",
    )  # fmt: skip
    delta_axes = ("filter", "layer", "region")

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        choice("estimator", config.estimator, ("ste", "ede", "sb_ede"))
        choice("scale", config.scale, ("none", "mean"))
        choice("threshold", config.threshold, ("max", "mean", "learned"))
        if config.threshold == "mean":
            number("delta_factor", config.delta_factor, 0)
        else:  # above max|w| nothing would be effectual
            below_one("delta_factor", config.delta_factor)
        choice("delta_axis", config.delta_axis, cls.delta_axes)
        if config.threshold == "learned" and config.delta_axis != "filter":
            raise ValueError(f"delta_axis = {config.delta_axis!r} with threshold = 'learned'; allowed: filter")
        Codebook.check(config)
        number("positive_fraction", config.positive_fraction, 0, 1)
        choice("assignment", config.assignment, ("first_half", "interleaved", "random", "initial_weights", "learned"))
        below_one("swap_at", config.swap_at)
        for name, default in (("positive_fraction", 0.5), ("swap_at", 0.0)):
            if config.assignment == "learned" and getattr(config, name) != default:
                raise ValueError(f"{name} = {getattr(config, name)!r} has no effect on assignment = 'learned'")

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig, generator: torch.Generator):
        super().__init__(shape, config, generator)
        self.regions, self.codebook = Regions(self.shape, config), None
        self.register_buffer("beta", self._draw_beta(generator))  # float32 (K, B); None where it is learned
        if config.codebook_bits:
            self.codebook = Codebook(self.regions, 0.0, config, generator)
            self.weight_bits = self.codebook.weight_bits(self.shape)
        if config.assignment == "learned":
            self.weight_bits += 1 / self.regions.size
        self.channel_sign = torch.ones(self.shape[1])
        if config.channel_signs:
            self.channel_sign[torch.randperm(self.shape[1], generator=generator)[: self.shape[1] // 2]] = -1
        if config.threshold == "learned":
            self.delta_factors = nn.Parameter(torch.full((self.shape[0], 1), float(config.delta_factor)))
        if config.swap_at:  # part of the state, so that a resumed run does not negate beta again
            self.register_buffer("swapped", torch.tensor(False))

    def _draw_beta(self, generator: torch.Generator) -> Tensor | None:
        K, B = self.shape[0], self.regions.count
        config = self.config
        if config.assignment == "learned":
            return None
        if config.assignment == "initial_weights":
            return torch.full((K, B), math.nan)  # no signs before `initialize`
        return region_signs(K, B, config.positive_fraction, config.assignment, generator)

    @torch.no_grad()
    def initialize(self, w: Tensor) -> None:
        if self.config.assignment == "initial_weights":
            sums = self.regions.numbered(self.regions.split(w.double()).sum(3))
            self.beta.copy_(ranked_signs(sums.cpu(), self.config.positive_fraction))

    def set_progress(self, progress: float) -> None:
        super().set_progress(progress)
        if 0 < self.config.swap_at <= progress and not self.swapped:
            self.beta.neg_()
            self.swapped.fill_(True)

    def signs(self, w: Tensor, delta: Tensor | None = None) -> Tensor:
        """beta of each weight, in a shape that broadcasts to w's; `delta` spares finding its thresholds again."""
        if self.config.assignment != "learned":
            return self.regions.spread(self.regions.laid_out(self.beta), w)
        delta = self._delta(w) if delta is None else delta
        within = torch.minimum(torch.maximum(w, -delta), delta)  # several times faster than `clamp` with tensors
        excess = self.regions.split(w - within).sum(3)
        return self.regions.spread(torch.ones_like(excess).copysign_(excess), w)

    def _magnitude(self, w: Tensor) -> Tensor:
        """max|w| or mean|w|: (1, 1, 1) of the layer, (K, 1, 1) of its filters or (K, groups, blocks) of its regions."""
        axis, mean = self.config.delta_axis, self.config.threshold == "mean"
        if axis == "region":
            parts = self.regions.split(w.abs())
            return parts.mean(3) if mean else parts.amax(3)
        if mean:  # summed in the order of the dimensions, however w lies in memory
            rows = w.abs().contiguous().reshape(1 if axis == "layer" else len(w), -1)
            return rows.mean(1).reshape(-1, 1, 1)
        return w.abs().amax(tuple(range(axis == "filter", w.ndim))).reshape(-1, 1, 1)

    def _delta(self, w: Tensor) -> Tensor:
        factor = self.config.delta_factor
        if self.config.threshold == "learned":
            factor = self.delta_factors.detach().clamp(0, 0.95)[..., None]
        return self.regions.spread(factor * self._magnitude(w), w)

    def quantize(self, w):
        delta = self._delta(w)
        beta = self.signs(w, delta)
        u = self.codebook((beta * w).sub_(delta)) if self.codebook else (beta * w).ge_(delta)
        alpha = mean_magnitude(w, u) if self.config.scale == "mean" else None
        return Codes(u.mul_(beta), alpha, beta * delta if self.config.estimator == "sb_ede" else None)

    def argument(self, w):
        if self.config.threshold != "learned":
            return w
        fixed = w.detach()
        return w - self.signs(fixed) * self.regions.spread(self.delta_factors[..., None] * self._magnitude(fixed), w)


class ZeroOne(SignedBinary):
    """Values {0, +alpha}: `SignedBinary` with beta = +1 everywhere, the paper's naive baseline. Gradient as there."""

    options = ("estimator", "scale", "threshold", "delta_factor", "delta_axis", "channel_signs", "standardize")
    delta_axes = ("filter", "layer")

    def _draw_beta(self, generator):
        return torch.ones(self.shape[0], 1)
