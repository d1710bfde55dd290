"""What all quantizers share: the options, the forward pass, its surrogate gradient, and the exact integer codes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.checks import choice, number, switch
from sbkit.conv import QuantizedWeight
from sbkit.schemes import SCHEMES


@dataclass(frozen=True)
class QuantizerConfig:
    """One scheme and its options, checked at construction; an option that the scheme does not use keeps its default.

    Raises ValueError naming the option, its value and what is allowed.
    """

    quantizer: str = "signed_binary"  # a key of QUANTIZERS
    estimator: str = "ste"  # ste | ede | sb_ede: the surrogate gradient
    scale: str = "none"  # none: alpha is 1 | mean: mean |w| of the filter's effectual (non-zero) weights
    threshold: str = "max"  # max | mean | learned: Delta as a share of max|w|, of mean|w|, or a learned one of max|w|
    delta_factor: float = 0.05  # that share; with threshold = "learned", the share at the start
    delta_axis: str = "filter"  # filter | layer | region: the weights whose maximum or mean it is a share of
    region_channels: int = 0  # input channels of a region, C_t; 0: all
    region_taps: int = 0  # kernel taps of a region; 0: all R * S | 1: each tap has regions of its own
    codebook_bits: int = 0  # b: a region has one of 2^b patterns of its layer; 0: any. Needs region_taps = 1
    codebook: str = "sparsest"  # sparsest (masks of fewest weights) | random, both fixed | learned: follows the weights
    positive_fraction: float = 0.5  # fraction of the regions with values {0, +alpha}
    assignment: str = "first_half"  # first_half | interleaved | random | initial_weights | learned: which these are
    swap_at: float = 0.0  # share of training after which all signs of regions are negated, once; 0: never
    channel_signs: bool = False  # a fixed random sign for each input channel
    standardize: bool = False  # subtract each filter's mean and divide by its standard deviation before quantization

    def __post_init__(self):
        from sbkit.quantizers import QUANTIZERS  # not above: the package imports this file

        choice("quantizer", self.quantizer, QUANTIZERS)
        scheme = QUANTIZERS[self.quantizer]
        for field in fields(self)[1:]:
            name, value = field.name, getattr(self, field.name)
            if name not in scheme.options and value != field.default:
                users = ", ".join(key for key, other in QUANTIZERS.items() if name in other.options)
                raise ValueError(f"{name} = {value!r} has no effect on {self.quantizer}; it applies to: {users}")
            if isinstance(field.default, bool):
                switch(name, value)
        scheme.check(self)


class Codes(NamedTuple):
    """The factors of quantized weights, and where the surrogate slope is centred."""

    codes: Tensor  # in {-1, 0, +1}, of w's shape and dtype
    alpha: Tensor | None = None  # (K, 1, ...) or (1, 1, ...); None: 1
    centre: Tensor | None = None  # broadcasts to w; None: 0


class Quantizer(nn.Module):
    """Base of the quantizers of one layer, for latent weights of one `shape` (K, C, ...).

    A scheme names the options it uses, checks them, and defines `quantize`; `forward` and `codes` follow from it.
    The surrogate slopes, of which `estimator` chooses one:

        ste     1 where |w| <= 1, else 0                straight-through estimator (Courbariaux et al., 2016)
        ede     k t (1 - tanh(t w)^2)                   error decay estimator (IR-Net, Qin et al., 2020)
        sb_ede  k t (1 - tanh(t (w - beta Delta))^2)    the same, centred on the threshold of signed-binary weights

    Over training t rises geometrically from 0.1 to 10, and k = max(1/t, 1), as in IR-Net and in the released code of
    signed-binary networks.
    """

    options: tuple[str, ...] = ()  # the fields of QuantizerConfig that the scheme uses
    weight_bits: float  # stored bits a weight, without scales and fixed signs

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        """Raises ValueError for a wrong value of one of the scheme's options."""

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig, generator: torch.Generator):
        super().__init__()
        if len(shape) < 2 or 0 in shape:
            raise ValueError(f"weight shape {tuple(shape)}; allowed: (K, C, ...), rank >= 2, no dimension empty")
        self.shape, self.config = tuple(shape), config
        self.weight_bits = float(SCHEMES[config.quantizer].stored_bits)
        self.register_buffer("channel_sign", None)  # float32 (C,) in {-1, +1} where a scheme has one
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Tell the estimator how far training is, 0 to 1."""
        number("progress", progress, 0, 1)
        self.t = 10.0 ** (2.0 * progress - 1.0)
        self.k = max(1.0 / self.t, 1.0)

    def initialize(self, w: Tensor) -> None:
        """Fix what depends on the initial latent weights; to be called once they are drawn."""

    def quantize(self, w: Tensor) -> Codes:
        """The codes of w, which has no gradient and is standardized where the configuration says so."""
        raise NotImplementedError

    def argument(self, w: Tensor) -> Tensor:
        """What the surrogate slope is a derivative by: w, less whatever else is learned. Its value is not used."""
        return w

    def forward(self, w: Tensor) -> Tensor:
        """Quantized weights in w's shape and dtype, differentiable by the surrogate slope."""
        if self.config.standardize:
            w = standardized(w)
        fixed = w.detach()
        codes, factor, centre = self.quantize(fixed)
        if self.config.channel_signs:
            sign = self.channel_sign.reshape(1, -1, *[1] * (w.ndim - 2))
            factor = sign if factor is None else factor * sign
        w_q = codes if factor is None else factor * codes
        if not (torch.is_grad_enabled() and w.requires_grad):
            return w_q
        if self.config.estimator == "ste":
            slope = fixed.abs().le_(1)  # comparing in place keeps floats: on CPUs several times faster than a bool mask
        else:
            x = self.t * (fixed if centre is None else fixed - centre)
            slope = x.tanh_().square_().neg_().add_(1).mul_(self.k * self.t)
        return _Surrogate.apply(self.argument(w), w_q, slope if factor is None else slope.mul_(factor))

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        """The exact integer form: `codes(w).dense()` equals float32 `forward(w)`. A linear layer has R = S = 1.

        Raises ValueError for latent weights that are not finite or too large for sums of float32.
        """
        w = standardized(w) if self.config.standardize else w
        codes, alpha, _ = self.quantize(w)
        return self._pack(w, codes, alpha)

    def _pack(
        self, w: Tensor, codes: Tensor, alpha: Tensor | None, negative_alpha: Tensor | None = None
    ) -> QuantizedWeight:
        if not w.abs().sum().isfinite():
            raise ValueError(
                "latent weights have a sum of magnitudes that is not finite; allowed: finite weights and sum"
            )
        K, C, *window = codes.shape
        scales = [None if a is None else a.float().flatten().expand(K).cpu().numpy() for a in (alpha, negative_alpha)]
        return QuantizedWeight(
            codes.to("cpu", torch.int8).reshape((K, C, *window) if len(window) == 2 else (K, C, -1, 1)).numpy(),
            *scales,
            channel_sign=None if self.channel_sign is None else self.channel_sign.to("cpu", torch.int8).numpy(),
            scheme=self.config.quantizer,
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self.config, name)!r}" for name in ("quantizer", *self.options))


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


class FullPrecision(Quantizer):
    """Values: any. Forward: w. Gradient: 1."""

    def forward(self, w: Tensor) -> Tensor:
        return w

    def codes(self, w: Tensor) -> QuantizedWeight:
        raise TypeError("full_precision weights have no integer codes")


def below_one(name: str, value: float) -> None:
    """Raises ValueError unless the value is a number from 0 to less than 1."""
    number(name, value, 0)
    if value >= 1:
        raise ValueError(f"{name} = {value!r}; allowed: a number >= 0 and below 1")


def standardized(w: Tensor) -> Tensor:
    """Each filter's weights minus their mean, over their standard deviation; finite where that is 0. Differentiable.

    A filter whose squares float32 cannot sum is first divided by a power of two, which standardization undoes.
    Reference: IR-Net (Qin et al., 2020), "balanced and standardized" weights; the deviation is the population's.
    """
    largest = w.detach().abs().amax(tuple(range(1, w.ndim)), keepdim=True)
    w = w * torch.where(largest > 2.0**40, torch.exp2(40.0 - largest.frexp().exponent), 1.0)
    return F.layer_norm(w, w.shape[1:], eps=1e-12)  # the name of that operation when it normalises activations


def mean_magnitude(w: Tensor, kept: Tensor | None = None) -> Tensor:
    """Mean |w| over the mask `kept` of each filter of w (K, ...), (K, 1, ...); 1 where the mask is empty. None: all."""
    count = w.new_full((1,), w[0].numel()) if kept is None else kept.sum(tuple(range(1, w.ndim)))
    magnitude = w.abs() if kept is None else w.abs().mul_(kept)
    mean = magnitude.flatten(1).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, 1.0).reshape(-1, *[1] * (w.ndim - 1))
