"""Quantizers: what the network computes with, given the latent weights that the optimiser moves.

"Signed-binary" here means that each region of a filter takes its values from {0, +1} or from {0, -1} (Kuhar et al., arXiv 2312.01581).
Elsewhere (brevitas, for one) `SignedBinary` means plain ±1 weights; that is `binary` here.

Every quantizer takes a latent weight of shape (K, C, ...) of any rank >= 2. `forward` is differentiable by a surrogate gradient, `codes` is the
exact integer form. What is fixed before training (the sign factors) lives in buffers and so travels in the state dict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from sbkit.conv import QuantizedWeight

ALLOWED = {
    "estimator": ("ste", "ede", "sb_ede"),
    "scale": ("none", "mean"),
    "delta_axis": ("filter", "layer", "region"),
    "assignment": ("first_half", "interleaved", "random"),
}


@dataclass(frozen=True)
class QuantizerConfig:
    """The quantization scheme of a network; flat, validated at construction."""

    quantizer: str = "signed_binary"  # a key of QUANTIZERS
    estimator: str = "ste"  # ste | ede | sb_ede
    scale: str = "none"  # none | mean of |w| per filter
    delta_factor: float = 0.05  # threshold as a fraction of max|w|
    delta_axis: str = "filter"  # filter | layer | region: what that maximum is taken over
    region_channels: int = 0  # channels per region, C_t; 0 = all, one sign per filter
    positive_fraction: float = 0.5  # fraction of regions with values {0, +1}
    assignment: str = "first_half"  # first_half | interleaved | random
    channel_signs: bool = False  # fixed random sign per input channel

    def __post_init__(self):
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer = {self.quantizer!r}; allowed: {', '.join(QUANTIZERS)}")
        for name, allowed in ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if not 0 <= self.delta_factor < 1:
            raise ValueError(f"delta_factor = {self.delta_factor}; allowed: 0 <= delta_factor < 1")
        if not 0 <= self.positive_fraction <= 1:
            raise ValueError(f"positive_fraction = {self.positive_fraction}; allowed: 0 to 1")
        if self.region_channels < 0:
            raise ValueError(f"region_channels = {self.region_channels}; allowed: 0 (all channels) or a divisor of C")
        used = QUANTIZERS[self.quantizer].options
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if field.name not in used and value != field.default:
                schemes = ", ".join(key for key, cls in QUANTIZERS.items() if field.name in cls.options)
                raise ValueError(f"{field.name} = {value!r} has no effect on {self.quantizer}; it applies to: {schemes}")
        if self.estimator == "sb_ede" and self.quantizer not in ("signed_binary", "zero_one"):
            raise ValueError(f"estimator = 'sb_ede' needs a threshold per region; {self.quantizer} allows: ste, ede")

    def effective(self) -> dict:
        """The options this scheme uses, its key included: what decides the outcome of a run."""
        return {name: getattr(self, name) for name in ("quantizer", *QUANTIZERS[self.quantizer].options)}


# --- surrogate gradients -------------------------------------------------------------------------------------------


class _Surrogate(torch.autograd.Function):
    """Forward: `quantized`, a value already computed. Backward: the gradient times `window`, to the latent weight alone.

    Scales and thresholds get no gradient: they are statistics of the latent weight that follow it from step to step, and
    the straight-through estimator by definition ignores how they move.
    """

    @staticmethod
    def forward(ctx, w: Tensor, quantized: Tensor, window: Tensor) -> Tensor:
        ctx.save_for_backward(window)
        return quantized

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (window,) = ctx.saved_tensors
        return gradient * window, None, None


def ede_temperature(progress: float) -> tuple[float, float]:
    """t rises from 0.1 to 10 geometrically, k = max(1/t, 1) (IR-Net, and PLUM's `ede`). Returns (t, k)."""
    t = 10.0 ** (2.0 * progress - 1.0)
    return t, max(1.0 / t, 1.0)


# --- quantizers ----------------------------------------------------------------------------------------------------


class Quantizer(nn.Module):
    """Base: holds the configuration and the estimator's progress. Sub-classes give `quantize` and `codes`."""

    options: tuple[str, ...] = ()
    weight_bits: float = 32.0

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig, generator: torch.Generator):
        super().__init__()
        if len(shape) < 2 or 0 in shape:
            raise ValueError(f"weight shape {tuple(shape)}; allowed: (K, C, ...), rank >= 2, no dimension empty")
        self.shape, self.config = tuple(shape), config
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Tell the estimator how far training is, 0 to 1."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress = {progress}; allowed: 0 to 1")
        self.t, self.k = ede_temperature(progress)

    def _window(self, w: Tensor, shift: Tensor | float = 0.0) -> Tensor:
        """d w_q / d w as the configured estimator has it; `shift` moves sb_ede's peak to the threshold."""
        if self.config.estimator == "ste":
            return (w.abs() <= 1).to(w.dtype)
        centre = w - shift if self.config.estimator == "sb_ede" else w
        return self.k * self.t * (1 - torch.tanh(self.t * centre) ** 2)

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.config.effective().items())


def _per_filter(values: Tensor, w: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (w.dim() - 1))


def _codes4(codes: Tensor) -> np.ndarray:
    K, C = codes.shape[:2]
    array = codes.detach().to("cpu", torch.int8)
    return (array if array.dim() == 4 else array.reshape(K, C, -1, 1)).numpy()


class FullPrecision(Quantizer):
    """Values: any. Forward: w. Gradient: 1."""

    def forward(self, w: Tensor) -> Tensor:
        return w

    def codes(self, w: Tensor) -> QuantizedWeight:
        raise TypeError("full_precision weights have no integer codes")


class Binary(Quantizer):
    """Values {-alpha, +alpha}, alpha = 1 or mean|w| per filter.

    Forward: alpha * sign(w), with sign(0) = +1. Gradient: the window of `ste` or `ede`, times alpha.
    Reference: BWN / XNOR-Net (Rastegari et al., 2016); EDE from IR-Net (Qin et al., 2020).
    """

    options = ("estimator", "scale")
    weight_bits = 1.0

    def _parts(self, w):
        codes = torch.where(w >= 0, 1.0, -1.0).to(w.dtype)
        alpha = w.flatten(1).abs().mean(1) if self.config.scale == "mean" else w.new_ones(len(w))
        return codes, alpha

    def forward(self, w: Tensor) -> Tensor:
        with torch.no_grad():
            codes, alpha = self._parts(w)
            alpha = _per_filter(alpha, w)
            window = self._window(w)
            if self.config.scale == "mean":
                codes, window = codes * alpha, window * alpha
        return _Surrogate.apply(w, codes, window)

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        codes, alpha = self._parts(w)
        return QuantizedWeight(_codes4(codes), alpha.float().cpu().numpy(), scheme=self.config.quantizer)


class SignedBinary(Quantizer):
    """Values {0, +alpha} in regions with beta = +1, {0, -alpha} where beta = -1; alpha = 1 unless `scale`.

    A region is `region_channels` neighbouring input channels of one filter, all of the filter if 0. beta is fixed before
    training. Forward: alpha * beta * [beta * w >= Delta] * channel_sign, Delta = delta_factor * max|w| over the region, the
    filter or the layer. Gradient: `ste` window |w| <= 1; `ede` k t (1 - tanh(t w)^2); `sb_ede` the same around beta * Delta.
    Reference: Kuhar et al., 2023; the released code's `STESign.forward` and `ede`, with one Delta for both directions.
    `channel_sign`, if enabled, is one fixed random sign per input channel: it stands outside the codes, so inference folds
    it into the activations.
    """

    options = (
        "estimator", "scale", "delta_factor", "delta_axis", "region_channels", "positive_fraction", "assignment",
        "channel_signs",
    )  # fmt: skip
    weight_bits = 1.0

    def __init__(self, shape, config, generator):
        super().__init__(shape, config, generator)
        K, C = self.shape[:2]
        block = config.region_channels or C
        if C % block:
            divisors = [d for d in range(1, C + 1) if C % d == 0]
            raise ValueError(f"region_channels = {block} does not divide C = {C}; allowed: 0 or one of {divisors}")
        self.regions = C // block
        self.register_buffer("beta", self._assign(K, generator))
        sign = torch.ones(C)
        if config.channel_signs:
            sign[torch.randperm(C, generator=generator)[: C // 2]] = -1
        self.register_buffer("channel_sign", sign)

    def _assign(self, K: int, generator: torch.Generator) -> Tensor:
        """beta, float32 (K, C / C_t) in {-1, +1}."""
        f, B = self.config.positive_fraction, self.regions
        k, b = torch.arange(K)[:, None], torch.arange(B)[None, :]
        if self.config.assignment == "first_half":
            positive = (k < math.floor(f * K)).expand(K, B)
        elif self.config.assignment == "interleaved":
            positive = torch.floor((k + b + 1) * f) > torch.floor((k + b) * f)
        else:
            positive = torch.zeros(K * B, dtype=torch.bool)
            positive[torch.randperm(K * B, generator=generator)[: round(f * K * B)]] = True
            positive = positive.reshape(K, B)
        return torch.where(positive, 1.0, -1.0)

    def _signed(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(beta * w, Delta, beta), viewed as (K, B, C_t * rest) and broadcastable to it."""
        K = self.shape[0]
        regions = w.reshape(K, self.regions, -1)
        beta = self.beta.to(w.dtype)[:, :, None]
        peak = regions.abs()
        axis = self.config.delta_axis
        peak = peak.amax() if axis == "layer" else peak.amax((1, 2) if axis == "filter" else 2, keepdim=True)
        return beta * regions, self.config.delta_factor * peak, beta

    def _alpha(self, w: Tensor, u: Tensor) -> Tensor:
        """mean |w| over the effectual weights of each filter, 1 where there are none; (K, 1, 1)."""
        u = u.reshape(len(w), 1, -1)
        count = u.sum(2, keepdim=True)
        mean = (w.reshape(u.shape).abs() * u).sum(2, keepdim=True) / count.clamp(min=1)
        return torch.where(count > 0, mean, torch.ones_like(mean))

    def _channel(self, w: Tensor) -> Tensor:
        return self.channel_sign.to(w.dtype).reshape(1, -1, *[1] * (w.dim() - 2))

    def forward(self, w: Tensor) -> Tensor:
        with torch.no_grad():
            signed, delta, beta = self._signed(w)
            u = (signed >= delta).to(w.dtype)
            quantized = beta * u
            shift = (beta * delta).expand_as(quantized).reshape(w.shape) if self.config.estimator == "sb_ede" else 0.0
            window = self._window(w, shift)
            if self.config.scale == "mean":
                alpha = self._alpha(w, u)
                quantized, window = quantized * alpha, window * alpha.reshape(-1, *[1] * (w.dim() - 1))
            quantized = quantized.reshape(w.shape)
            if self.config.channel_signs:
                quantized, window = quantized * self._channel(w), window * self._channel(w)
        return _Surrogate.apply(w, quantized, window)

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        signed, delta, beta = self._signed(w)
        u = (signed >= delta).to(w.dtype)
        alpha = None
        if self.config.scale == "mean":
            alpha = self._alpha(w, u).flatten().float().cpu().numpy()
        return QuantizedWeight(
            _codes4((beta * u).reshape(w.shape)),
            alpha,
            channel_sign=self.channel_sign.to("cpu", torch.int8).numpy(),
            scheme=self.config.quantizer,
        )


class ZeroOne(SignedBinary):
    """Values {0, +alpha}: `SignedBinary` with beta = +1 everywhere, the paper's naive baseline. Gradient as there."""

    options = ("estimator", "scale", "delta_factor", "delta_axis", "channel_signs")

    def _assign(self, K, generator):
        return torch.ones(K, self.regions)


class TernaryTWN(Quantizer):
    """Values {-alpha, 0, +alpha}; Delta = 0.7 mean|w| per layer, alpha = mean of the |w| > Delta, per layer.

    Forward: alpha * sign(w) * [|w| > Delta]. Gradient: alpha within |w| <= 1.
    Reference: TWN (Li et al., 2016), thresholds as in its Caffe code; alpha is the least-squares scale of the kept weights.
    """

    weight_bits = 2.0

    def _parts(self, w):
        magnitude = w.abs()
        kept = magnitude > 0.7 * magnitude.mean()
        alpha = magnitude[kept].mean() if kept.any() else magnitude.new_ones(())
        return torch.sign(w) * kept, alpha

    def forward(self, w: Tensor) -> Tensor:
        with torch.no_grad():
            codes, alpha = self._parts(w)
            window = self._window(w) * alpha
        return _Surrogate.apply(w, codes * alpha, window)

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        codes, alpha = self._parts(w)
        return QuantizedWeight(_codes4(codes), np.full(len(w), alpha.float().cpu()), scheme=self.config.quantizer)


class _TrainedTernary(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, positive_scale, negative_scale, delta):
        positive, negative = w > delta, w < -delta
        ctx.save_for_backward(positive, negative, positive_scale, negative_scale)
        return positive_scale * positive - negative_scale * negative

    @staticmethod
    def backward(ctx, g):
        positive, negative, positive_scale, negative_scale = ctx.saved_tensors
        factor = torch.where(positive, positive_scale, torch.where(negative, negative_scale, torch.ones_like(g)))
        return g * factor, (g * positive).sum(), -(g * negative).sum(), None


class TernaryTTQ(Quantizer):
    """Values {-W_n, 0, +W_p} with W_p, W_n > 0 learned, one pair per layer; Delta = delta_factor * max|w| per layer.

    Gradient to w: W_p g where w > Delta, W_n g where w < -Delta, g between; to W_p the sum of g over w > Delta, to W_n minus
    the sum of g over w < -Delta. Reference: TTQ (Zhu et al., 2017) and its released TensorFlow code.
    """

    options = ("delta_factor",)
    weight_bits = 2.0

    def __init__(self, shape, config, generator):
        super().__init__(shape, config, generator)
        self.positive_scale = nn.Parameter(torch.ones(()))
        self.negative_scale = nn.Parameter(torch.ones(()))

    def _delta(self, w):
        return self.config.delta_factor * w.detach().abs().amax()

    def forward(self, w: Tensor) -> Tensor:
        return _TrainedTernary.apply(
            w, self.positive_scale.to(w.dtype), self.negative_scale.to(w.dtype), self._delta(w)
        )

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        delta, K = self._delta(w), len(w)
        codes = (w > delta).to(torch.int8) - (w < -delta).to(torch.int8)
        scales = [np.full(K, s.float().cpu(), np.float32) for s in (self.positive_scale, self.negative_scale)]
        return QuantizedWeight(_codes4(codes), *scales, scheme=self.config.quantizer)


QUANTIZERS: dict[str, type[Quantizer]] = {
    "full_precision": FullPrecision,
    "binary": Binary,
    "zero_one": ZeroOne,
    "ternary_twn": TernaryTWN,
    "ternary_ttq": TernaryTTQ,
    "signed_binary": SignedBinary,
}


def make_quantizer(config: QuantizerConfig, shape: tuple[int, ...], generator: torch.Generator) -> Quantizer:
    """The quantizer of one layer with latent weights of `shape`; `generator` draws what is random and fixed in it."""
    return QUANTIZERS[config.quantizer](tuple(shape), config, generator)


def response(config: QuantizerConfig, points: int = 81) -> list[dict]:
    """The quantizer sampled on latent weights in [-1.5, 1.5]: forward, and the gradient at start, middle and end.

    Returns one dict per kind of filter: {"w", "forward", "gradient_start", "gradient_middle", "gradient_end", "beta"}, lists of
    floats; signed-binary has two, beta = +1 and -1, the others one with beta None. Statistics (max|w|, mean|w|) are those of the
    sampled weights themselves, all channel signs are +1.
    """
    w = torch.linspace(-1.5, 1.5, points)
    # One region holds all samples, so that the curve is that of a region of any size.
    quantizer = make_quantizer(replace(config, region_channels=0), (1, points), torch.Generator().manual_seed(0))
    betas = (1.0, -1.0) if config.quantizer == "signed_binary" else (None,)
    curves = []
    for beta in betas:
        if beta is not None:
            quantizer.beta.fill_(beta)
        if hasattr(quantizer, "channel_sign"):
            quantizer.channel_sign.fill_(1.0)
        curve = {"beta": beta, "w": w.tolist()}
        for key, progress in (("start", 0.0), ("middle", 0.5), ("end", 1.0)):
            quantizer.set_progress(progress)
            latent = w[None, :].clone().requires_grad_()
            quantized = quantizer(latent)
            quantized.sum().backward()
            curve["forward"] = quantized.detach()[0].tolist()
            curve[f"gradient_{key}"] = latent.grad[0].tolist()
        curves.append(curve)
    return curves
