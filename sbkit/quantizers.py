"""Quantizers: what the network computes with, given the latent weights that the optimiser moves.

"Signed-binary" here means that each region of a filter takes its values from {0, +alpha} or from {0, -alpha} (Kuhar et
al., arXiv 2312.01581). Elsewhere (brevitas, for one) `SignedBinary` means plain ±1 weights; that is `binary` here.

Every scheme takes latent weights w of shape (K, C, ...), of any rank >= 2, and factors its output as

    w_q = alpha * channel_sign * codes,    codes in {-1, 0, +1}

The derivative of `codes` is zero almost everywhere; a surrogate slope replaces it, times alpha * channel_sign:

    ste     1 where |w| <= 1, else 0                straight-through estimator (Courbariaux et al., 2016)
    ede     k t (1 - tanh(t w)^2)                   error decay estimator (IR-Net, Qin et al., 2020)
    sb_ede  k t (1 - tanh(t (w - beta Delta))^2)    the same, centred on the signed-binary threshold
            t = 10^(2p - 1), k = max(1/t, 1), p in [0, 1] the share of training done

alpha and the threshold Delta have no gradient: they are statistics of the latent weights that follow them from step to
step, and a straight-through estimator by definition ignores how they move. The signs beta and channel_sign have none
because they are fixed before training; they are buffers, so they travel in the state dict. Under assignment = 'learned'
beta is such a statistic too. Two things are parameters: the scales of TTQ, and under threshold = 'learned' what
fraction of a filter's max|w| its Delta is.

With `standardize`, w stands in all of this, statistics and slopes included, for the standardized latent weights, and
the gradient passes on through the standardization.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields, replace
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbkit.conv import QuantizedWeight

RECORDED_IF_SET = (  # younger than the first records, whose ids must not change
    "threshold", "region_taps", "codebook_bits", "codebook", "swap_at", "standardize",
)  # fmt: skip

MAX_CODEBOOK_BITS, MAX_CODEBOOK_CHANNELS = 10, 16  # what the kernels' tables hold
CODEBOOK_DECAY = 0.99  # of a learned codebook's running sums, a step


@dataclass(frozen=True)
class QuantizerConfig:
    """One scheme and its options, validated at construction; an option that it does not use must keep its default."""

    quantizer: str = "signed_binary"  # a key of QUANTIZERS
    estimator: str = "ste"  # ste | ede | sb_ede (sb_ede: signed_binary, zero_one)
    scale: str = "none"  # none: alpha is 1 | mean: mean |w| of the filter's effectual weights
    threshold: str = "max"  # max | mean | learned: Delta as a share of max|w|, of mean|w|, or a learned one of max|w|
    delta_factor: float = 0.05  # threshold Delta as a fraction of max|w| (mean: of mean|w|; learned: at the start)
    delta_axis: str = "filter"  # filter | layer | region (signed_binary): what that maximum or mean is taken over
    region_channels: int = 0  # input channels per region, C_t; 0: all, one sign per filter. Of binary, of a codebook
    region_taps: int = 0  # kernel taps per region; 0: all R * S | 1: each tap is a region of its own
    codebook_bits: int = 0  # regions choose among 2^b patterns of their layer; 0: among all. Needs region_taps of 1
    codebook: str = "sparsest"  # sparsest (masks of fewest weights) | random, both fixed | learned: follows the weights
    positive_fraction: float = 0.5  # fraction of regions with values {0, +alpha}
    assignment: str = "first_half"  # first_half | interleaved | random | initial_weights | learned: which these are
    swap_at: float = 0.0  # share of training after which all region signs are negated, once; 0: never
    channel_signs: bool = False  # a fixed random sign per input channel
    standardize: bool = False  # subtract each filter's mean and divide by its standard deviation before quantization

    def __post_init__(self):
        _require("quantizer", self.quantizer, QUANTIZERS)
        scheme = QUANTIZERS[self.quantizer]
        _require("estimator", self.estimator, ("ste", "ede", "sb_ede"))
        _require("scale", self.scale, ("none", "mean"))
        _require("threshold", self.threshold, ("max", "mean", "learned"))
        _require("delta_axis", self.delta_axis, ("filter", "layer", "region"))
        _require("assignment", self.assignment, ("first_half", "interleaved", "random", "initial_weights", "learned"))
        limit = math.inf if self.threshold == "mean" else 1  # above max|w| nothing would be effectual
        if not _is_number(self.delta_factor) or not 0 <= self.delta_factor < limit:
            raise ValueError(f"delta_factor = {self.delta_factor!r}; allowed: 0 <= delta_factor < {limit}")
        if not _is_number(self.positive_fraction) or not 0 <= self.positive_fraction <= 1:
            raise ValueError(f"positive_fraction = {self.positive_fraction!r}; allowed: 0 to 1")
        if type(self.region_channels) is not int or self.region_channels < 0:
            raise ValueError(f"region_channels = {self.region_channels!r}; allowed: 0 (all channels) or a divisor of C")
        if type(self.region_taps) is not int or self.region_taps not in (0, 1):
            raise ValueError(f"region_taps = {self.region_taps!r}; allowed: 0 (all taps), 1")
        _require("codebook", self.codebook, ("sparsest", "random", "learned"))
        limited = self.region_taps == 1 and self.region_channels <= MAX_CODEBOOK_CHANNELS
        most = min(self.region_channels, MAX_CODEBOOK_BITS) if limited else 0
        if type(self.codebook_bits) is not int or not 0 <= self.codebook_bits <= most:
            raise ValueError(
                f"codebook_bits = {self.codebook_bits!r} with region_channels = {self.region_channels}, region_taps = "
                f"{self.region_taps}; allowed: 0 (any mask) to region_channels, at most {MAX_CODEBOOK_BITS}, with "
                f"region_taps = 1 and region_channels to {MAX_CODEBOOK_CHANNELS}; else 0"
            )
        if self.codebook != "sparsest" and not self.codebook_bits:
            raise ValueError(f"codebook = {self.codebook!r} with codebook_bits = 0; allowed: sparsest")
        if scheme is Binary:
            for name in ("region_channels", "region_taps"):
                if getattr(self, name) and not self.codebook_bits:
                    raise ValueError(f"{name} = {getattr(self, name)} has no effect on binary without a codebook")
            if self.codebook_bits and self.codebook == "sparsest":
                raise ValueError("codebook = 'sparsest' of binary, which has no zeros; allowed: random, learned")
        if not _is_number(self.swap_at) or not 0 <= self.swap_at < 1:
            raise ValueError(f"swap_at = {self.swap_at!r}; allowed: 0 (never) <= swap_at < 1")
        for name in ("channel_signs", "standardize"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} = {getattr(self, name)!r}; allowed: True, False")
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if field.name not in scheme.options and value != field.default:
                users = ", ".join(key for key, other in QUANTIZERS.items() if field.name in other.options)
                raise ValueError(f"{field.name} = {value!r} has no effect on {self.quantizer}; it applies to: {users}")
        if self.estimator == "sb_ede" and not issubclass(scheme, SignedBinary):
            raise ValueError(f"estimator = 'sb_ede' needs a threshold; {self.quantizer} allows: ste, ede")
        if self.delta_axis == "region" and scheme is not SignedBinary:
            raise ValueError(f"delta_axis = 'region' needs regions; {self.quantizer} allows: filter, layer")
        for name, default in (("positive_fraction", 0.5), ("swap_at", 0.0)):
            if self.assignment == "learned" and getattr(self, name) != default:
                raise ValueError(f"{name} = {getattr(self, name)!r} has no effect on assignment = 'learned'")
        if self.threshold == "learned" and self.delta_axis != "filter":
            raise ValueError(f"delta_axis = {self.delta_axis!r} with threshold = 'learned'; allowed: filter")

    def effective(self) -> dict:
        """The options this scheme uses, its key included: what decides the outcome of a run.

        A scheme's `recorded_if_set` are left out while they have their default.
        """
        scheme = QUANTIZERS[self.quantizer]
        defaults = {field.name: field.default for field in fields(self) if field.name in scheme.recorded_if_set}
        options = {name: getattr(self, name) for name in ("quantizer", *scheme.options)}
        return {name: value for name, value in options.items() if name not in defaults or value != defaults[name]}


def _require(name, value, allowed):
    if value not in tuple(allowed):
        raise ValueError(f"{name} = {value!r}; allowed: {', '.join(allowed)}")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- surrogate gradients ----------------------------------------------------------------------------------------------


class _Surrogate(torch.autograd.Function):
    """Value `w_q`, already computed; gradient `slope` * g, to the first argument alone."""

    @staticmethod
    def forward(ctx, w: Tensor, w_q: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return w_q

    @staticmethod
    def backward(ctx, g: Tensor):
        (slope,) = ctx.saved_tensors
        return g * slope, None, None


def ste_slope(w: Tensor) -> Tensor:
    """1 where |w| <= 1, else 0."""
    return w.abs().le_(1)  # comparing in place keeps floats: on CPUs several times faster than a bool mask


def ede_slope(w: Tensor, t: float, k: float) -> Tensor:
    """k t (1 - tanh(t w)^2), the derivative of k tanh(t w)."""
    return (t * w).tanh_().square_().neg_().add_(1).mul_(k * t)


def ede_temperature(progress: float) -> tuple[float, float]:
    """(t, k): t rises geometrically from 0.1 to 10, k = max(1/t, 1) (IR-Net; the same in PLUM's `ede`)."""
    t = 10.0 ** (2.0 * progress - 1.0)
    return t, max(1.0 / t, 1.0)


# --- quantizers -------------------------------------------------------------------------------------------------------


def standardized(w: Tensor) -> Tensor:
    """Each filter's weights minus their mean, over their standard deviation; finite where that is 0. Differentiable.

    Reference: IR-Net (Qin et al., 2020), "balanced and standardized" weights; the deviation is the population's.
    """
    return F.layer_norm(w, w.shape[1:], eps=1e-12)  # the name of that operation when it normalises activations


def mean_magnitude(w: Tensor, kept: Tensor) -> Tensor:
    """Mean |w| over the mask `kept`, per row of `w` flattened to rows (K, 1, ...); 1 where the mask is empty."""
    count = kept.flatten(1).sum(1)
    mean = (w.abs() * kept).flatten(1).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, 1.0).reshape(-1, *[1] * (w.ndim - 1))


def region_signs(K: int, B: int, fraction: float, assignment: str, generator: torch.Generator) -> Tensor:
    """Sign beta of the B regions of K filters, float32 (K, B) in {-1, +1}, `fraction` of them positive.

    first_half   all regions of the first floor(fraction K) filters are positive (the released code: K = 7 -> 3)
    interleaved  region (k, b) is positive iff floor((k + b + 1) fraction) > floor((k + b) fraction)
    random       exactly round(fraction K B) regions, drawn from `generator`, are positive
    """
    f = Fraction(str(fraction))  # as written: in floating point 0.29 * 100 is less than 29
    k, b = np.indices((K, B))
    if assignment == "first_half":
        positive = k < math.floor(f * K)
    elif assignment == "interleaved":
        steps = np.array([math.floor((i + 1) * f) > math.floor(i * f) for i in range(K + B)])
        positive = steps[k + b]
    else:
        positive = torch.randperm(K * B, generator=generator).reshape(K, B).numpy() < round(f * K * B)
    return torch.from_numpy(np.where(positive, np.float32(1), np.float32(-1)))


def _check_bits(bits: int, size: int) -> None:
    if not 0 <= bits <= size:
        raise ValueError(f"bits = {bits}; allowed for masks over {size} weights: 0 to {size}")


def sparsest_masks(size: int, bits: int, generator: torch.Generator) -> Tensor:
    """The 2^bits masks of fewest weights over `size` weights, float32 (2^bits, size) in {0, 1}, the empty one first.

    Of the masks of most weights, not all of which fit, as many as do are drawn from `generator`. Raises ValueError
    where there are not so many masks.
    """
    _check_bits(bits, size)
    rows = []
    for weights in range(size + 1):
        masks = list(itertools.combinations(range(size), weights))
        left = 2**bits - len(rows)
        kept = range(len(masks)) if len(masks) <= left else torch.randperm(len(masks), generator=generator)[:left]
        rows += [masks[i] for i in kept]
    book = torch.zeros(2**bits, size)
    for row, mask in enumerate(rows):
        book[row, list(mask)] = 1
    return book


def random_patterns(size: int, bits: int, low: float, generator: torch.Generator) -> Tensor:
    """2^bits different patterns over `size` weights, drawn from `generator`, float32 (2^bits, size) in {low, 1}.

    Raises ValueError where there are not so many.
    """
    _check_bits(bits, size)
    numbers = torch.randperm(2**size, generator=generator)[: 2**bits]
    return torch.where((numbers[:, None] >> torch.arange(size)) % 2 > 0, 1.0, low)


def ranked_signs(sums: Tensor, fraction: float) -> Tensor:
    """Sign beta, float32 (K, B) like `sums`: the round(fraction K B) regions of largest sum are positive."""
    beta = torch.full((sums.numel(),), -1.0)
    beta[sums.flatten().argsort(descending=True, stable=True)[: round(Fraction(str(fraction)) * len(beta))]] = 1
    return beta.reshape(sums.shape)


class Regions:
    """How the weights (K, C, ...) of a layer fall into regions: neighbouring channels of a filter, at all taps or one.

    Raises ValueError where region_channels does not divide C.
    """

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig):
        C, taps = shape[1], math.prod(shape[2:])
        channels = config.region_channels or C
        if C % channels:
            divisors = [d for d in range(1, C + 1) if C % d == 0]
            raise ValueError(f"region_channels = {channels} does not divide C = {C}; allowed: 0 or one of {divisors}")
        self.blocks, self.channels = C // channels, channels
        self.groups = taps if config.region_taps else 1  # of taps; a region is a block of channels at a group of taps
        self.count = self.blocks * self.groups  # B, of a filter: region b is block b // groups at group b % groups
        self.size = channels * taps // self.groups  # weights of a region

    def split(self, w: Tensor) -> Tensor:
        """w as (K, groups, blocks, weights of a region): no copy where the channels lie last in memory."""
        w = w.movedim(1, -1) if self.groups > 1 else w
        return w.reshape(len(w), self.groups, self.blocks, self.size)

    def join(self, regions: Tensor, w: Tensor) -> Tensor:
        """(K, groups, blocks, weights of a region), the first three in any shape, in w's shape: undoes `split`."""
        if self.groups > 1:
            return regions.reshape(-1, *w.shape[2:], w.shape[1]).movedim(-1, 1)
        return regions.reshape(-1, *w.shape[1:])

    def numbered(self, per_region: Tensor) -> Tensor:
        """(K, groups, blocks) as (K, B)."""
        return per_region.transpose(1, 2).flatten(1)

    def spread(self, per_region: Tensor, w: Tensor) -> Tensor:
        """(K or 1, B or 1) -> broadcastable to w."""
        if per_region.shape[1] == 1:
            return per_region.reshape(-1, *[1] * (w.ndim - 1))
        blocks_last = per_region.unflatten(1, (self.blocks, self.groups)).mT
        per_channel = blocks_last[..., None].expand(-1, -1, -1, self.channels)  # (K, groups, C), as in channels_last
        if self.groups > 1:
            return per_channel.reshape(-1, *w.shape[2:], w.shape[1]).movedim(-1, 1)
        return per_channel.reshape(-1, w.shape[1], *[1] * (w.ndim - 2))


class Codebook(nn.Module):
    """2^b patterns m_1, m_2, ... in {low, 1} for the weights of a region, which all regions of a layer share.

    A region with values v takes the pattern m_j, j = argmax_i m_i . v. `sparsest` masks (low = 0) and `random` patterns
    are fixed before training. `learned` ones start there (at random ones where low = -1), and then follow the regions
    as the codewords of a vector quantizer do, a step of Lloyd's algorithm with running sums s:

        s_j <- 0.99 s_j + 0.01 (sum of v over the regions that took m_j),    m_j = 1 where s_j >= 0, else low

    Reference: sub-bit networks (Wang et al., 2021), whose patterns are whole 3x3 kernels of signs.
    """

    def __init__(self, regions: Regions, low: float, config: QuantizerConfig, generator: torch.Generator):
        super().__init__()
        self.regions, self.low, self.learned = regions, low, config.codebook == "learned"
        size, bits = regions.size, config.codebook_bits
        if low or config.codebook == "random":
            patterns = random_patterns(size, bits, low, generator)
        else:
            patterns = sparsest_masks(size, bits, generator)
        self.register_buffer("patterns", patterns)  # float32 (2^b, weights of a region)
        if self.learned:
            self.register_buffer("sums", patterns - (1 + low) / 2)

    def weight_bits(self, shape: tuple[int, ...]) -> float:
        """Stored bits a weight of a layer; fixed patterns cost nothing, as a seed gives them back."""
        kept = self.patterns.numel() if self.learned else 0
        return math.log2(len(self.patterns)) / self.regions.size + kept / math.prod(shape)

    def forward(self, w: Tensor) -> Tensor:
        """The pattern of each region of w, in w's shape; in a training step learned ones then follow."""
        regions = self.regions.split(w)
        chosen = (regions @ self.patterns.T).argmax(3)  # (K, groups, blocks)
        taken = self.regions.join(self.patterns.index_select(0, chosen.flatten()), w)
        if self.learned and self.training and torch.is_grad_enabled():
            sums = torch.zeros_like(self.patterns).index_add_(0, chosen.flatten(), regions.flatten(0, 2))
            self.sums.lerp_(sums, 1 - CODEBOOK_DECAY)
            self.patterns = torch.where(self.sums >= 0, 1.0, self.low)
        return taken


class Quantizer(nn.Module):
    """Base, for latent weights of one `shape` (K, C, ...). `forward` and `codes` share a scheme's `quantize`."""

    options: tuple[str, ...] = ()  # the fields of QuantizerConfig it uses
    recorded_if_set: tuple[str, ...] = RECORDED_IF_SET
    weight_bits: float = 32.0  # stored bits per weight, scales and signs apart

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig, generator: torch.Generator):
        super().__init__()
        if len(shape) < 2 or 0 in shape:
            raise ValueError(f"weight shape {tuple(shape)}; allowed: (K, C, ...), rank >= 2, no dimension empty")
        self.shape, self.config = tuple(shape), config
        self.register_buffer("channel_sign", None)  # float32 (C,) in {-1, +1} where a scheme has one
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Tell the estimator how far training is, 0 to 1."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress = {progress}; allowed: 0 to 1")
        self.t, self.k = ede_temperature(progress)

    def initialize(self, w: Tensor) -> None:
        """Fix what depends on the initial latent weights; to be called once they are drawn."""

    def quantize(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """(codes, alpha): codes in w's shape and dtype; alpha (K, 1, ...) or (1, 1, ...), None for 1."""
        raise NotImplementedError

    def slope(self, w: Tensor) -> Tensor:
        """The surrogate derivative of the codes."""
        return ste_slope(w) if self.config.estimator == "ste" else ede_slope(w, self.t, self.k)

    def argument(self, w: Tensor) -> Tensor:
        """What the surrogate slope is a derivative by: w, less whatever else is learned. Its value is not used."""
        return w

    def forward(self, w: Tensor) -> Tensor:
        """Quantized weights in w's shape and dtype, differentiable by the surrogate slope."""
        if self.config.standardize:
            w = standardized(w)
        codes, alpha = self.quantize(w.detach())
        factor = alpha
        if self.config.channel_signs:
            sign = self.channel_sign.reshape(1, -1, *[1] * (w.ndim - 2))
            factor = sign if alpha is None else alpha * sign
        w_q = codes if factor is None else factor * codes
        if not (torch.is_grad_enabled() and w.requires_grad):
            return w_q
        slope = self.slope(w.detach())
        return _Surrogate.apply(self.argument(w), w_q, slope if factor is None else factor * slope)

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        """The exact integer form: `codes(w).dense()` equals float32 `forward(w)`. A linear layer has R = S = 1."""
        codes, alpha = self.quantize(standardized(w) if self.config.standardize else w)
        return self._pack(codes, alpha)

    def _pack(self, codes: Tensor, alpha: Tensor | None, negative_alpha: Tensor | None = None) -> QuantizedWeight:
        K, C, *window = codes.shape
        scales = [None if a is None else a.float().flatten().expand(K).cpu().numpy() for a in (alpha, negative_alpha)]
        return QuantizedWeight(
            codes.to("cpu", torch.int8).reshape((K, C, *window) if len(window) == 2 else (K, C, -1, 1)).numpy(),
            *scales,
            channel_sign=None if self.channel_sign is None else self.channel_sign.cpu().numpy(),
            scheme=self.config.quantizer,
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.config.effective().items())


class FullPrecision(Quantizer):
    """Values: any. Forward: w. Gradient: 1."""

    def forward(self, w: Tensor) -> Tensor:
        return w

    def codes(self, w: Tensor) -> QuantizedWeight:
        raise TypeError("full_precision weights have no integer codes")


class Binary(Quantizer):
    """Values {-alpha, +alpha}, alpha = 1 or mean|w| per filter.

    Forward: alpha * sign(w), with sign(0) = +1. Gradient: alpha times the slope of `ste` or `ede`.

    codebook_bits = b limits the signs of each region, region_channels = G channels at one tap, to the 2^b patterns of a
    `Codebook`, so that a weight takes b / G bits.

    Reference: BWN (XNOR-Net, Rastegari et al., 2016); EDE and `standardize` from IR-Net (Qin et al., 2020).
    """

    options = ("estimator", "scale", "standardize", "region_channels", "region_taps", "codebook_bits", "codebook")
    recorded_if_set = (*RECORDED_IF_SET, "region_channels")  # an older option, but new to binary
    weight_bits = 1.0

    def __init__(self, shape, config, generator):
        super().__init__(shape, config, generator)
        self.codebook = None
        if config.codebook_bits:
            self.codebook = Codebook(Regions(shape, config), -1.0, config, generator)
            self.weight_bits = self.codebook.weight_bits(shape)

    def quantize(self, w):
        codes = self.codebook(w) if self.codebook else torch.ge(w, 0, out=torch.empty_like(w)).mul_(2).sub_(1)
        return codes, mean_magnitude(w, torch.ones_like(w)) if self.config.scale == "mean" else None


class SignedBinary(Quantizer):
    """Values {0, +alpha} in regions with beta = +1, {0, -alpha} where beta = -1.

    alpha = 1, or the mean |w| of the filter's effectual weights (1 if it has none).

    Forward: alpha * channel_sign * beta * u, u = [beta * w >= Delta], Delta = delta_factor * max|w| (or mean|w|) over
    the region, filter or layer; hence all of an all-zero filter is effectual. A region is `region_channels`
    neighbouring input channels of one filter (all by default), at each tap by itself with region_taps = 1. beta is
    fixed before training, unless `swap_at` says when to negate all of it.

    assignment = 'learned': a region's beta is the sign under which more magnitude exceeds the threshold, so it follows
    the latent weights and may change at any step:

        beta = +1 if sum max(w - Delta, 0) >= sum max(-w - Delta, 0) over the region, else -1

    Of all codes with one sign a region these are the nearest to w on a grid of step 2 Delta. A sign is one more stored
    bit for each region (`weight_bits`), where fixed ones cost nothing: a seed or a rule gives them back.

    codebook_bits = b limits the mask u of each region of G channels (at one tap) to the 2^b masks m_1, m_2, ... of a
    `Codebook`, so that a weight takes b / G bits. A region takes the mask whose weights exceed the threshold by most in
    sum; among all 2^G masks that is the u above:

        u = m_j,  j = argmax_i m_i . (beta w - Delta)

    Gradient: alpha * channel_sign times the slope of `ste`, `ede` or `sb_ede`.

    threshold = 'learned': Delta_k = min(max(f_k, 0), 0.95) * max|w_k|, with a parameter f_k for filter k that starts
    at delta_factor. The slope stands for du / d(beta w - Delta) times beta, hence

        dw_q / df_k = -alpha * channel_sign * beta * slope * max|w_k|    for each weight of the filter,

    and the gradient of f_k is the sum of these times g. It ignores the clamp, lest a factor that left the range stay
    there for good.
    Reference: Kuhar et al., 2023; the released code's `STESign.forward`, and its `ede` with the forward's own Delta.
    There the gradient is also clamped to [-1, 1], and `ede` is never called. `channel_sign` is not in that code: a
    random sign per input channel, half of them negative, outside the codes, so that inference folds it into the
    activations.
    """

    options = (
        "estimator", "scale", "threshold", "delta_factor", "delta_axis", "region_channels", "positive_fraction",
        "region_taps", "codebook_bits", "codebook", "assignment", "swap_at", "channel_signs", "standardize",
    )  # fmt: skip
    weight_bits = 1.0

    def __init__(self, shape, config, generator):
        super().__init__(shape, config, generator)
        self.regions, self.codebook = Regions(self.shape, config), None
        self.register_buffer("beta", self._draw_beta(generator))
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
        if config.swap_at:
            self.register_buffer("swapped", torch.tensor(False))  # kept, lest a resumed run negate beta again

    def _draw_beta(self, generator):
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
        """beta of each weight, broadcastable to w; `delta` spares finding its thresholds again."""
        if self.config.assignment != "learned":
            return self.regions.spread(self.beta, w)
        delta = self._delta(w) if delta is None else delta
        excess = self.regions.split(w - w.clamp(-delta, delta)).sum(3)
        return self.regions.spread(self.regions.numbered(torch.ones_like(excess).copysign_(excess)), w)

    def _magnitude(self, w: Tensor) -> Tensor:
        """max|w| or mean|w|, (1, 1) of the layer, (K, 1) of its filters or (K, B) of its regions."""
        axis, magnitude = self.config.delta_axis, w.abs()
        if axis == "region":
            parts = self.regions.split(magnitude)
        else:
            parts = magnitude.reshape(1 if axis == "layer" else len(w), 1, 1, -1)
        return self.regions.numbered(parts.mean(3) if self.config.threshold == "mean" else parts.amax(3))

    def _delta(self, w: Tensor) -> Tensor:
        learned = self.config.threshold == "learned"
        factor = self.delta_factors.detach().clamp(0, 0.95) if learned else self.config.delta_factor
        return self.regions.spread(factor * self._magnitude(w), w)

    def quantize(self, w):
        delta = self._delta(w)
        beta = self.signs(w, delta)
        u = self.codebook(beta * w - delta) if self.codebook else (beta * w).ge_(delta)
        alpha = mean_magnitude(w, u) if self.config.scale == "mean" else None
        return u.mul_(beta), alpha

    def slope(self, w):
        if self.config.estimator == "sb_ede":
            delta = self._delta(w)
            w = w - self.signs(w, delta) * delta
        return super().slope(w)

    def argument(self, w):
        if self.config.threshold != "learned":
            return w
        fixed = w.detach()
        return w - self.signs(fixed) * self.regions.spread(self.delta_factors * self._magnitude(fixed), w)


class ZeroOne(SignedBinary):
    """Values {0, +alpha}: `SignedBinary` with beta = +1 everywhere, the paper's naive baseline. Gradient as there."""

    options = ("estimator", "scale", "threshold", "delta_factor", "delta_axis", "channel_signs", "standardize")

    def _draw_beta(self, generator):
        return torch.ones(self.shape[0], 1)


class TernaryTWN(Quantizer):
    """Values {-alpha, 0, +alpha}; Delta = 0.7 mean|w| and alpha = mean of the |w| > Delta, both per layer.

    Forward: alpha * sign(w) * [|w| > Delta]. Gradient: alpha times the slope of `ste`.
    Reference: TWN (Li et al., 2016), Delta as in its Caffe code; alpha is the least-squares scale of the kept weights.
    """

    weight_bits = 2.0

    def quantize(self, w):
        magnitude = w.abs()
        kept = magnitude.gt_(0.7 * magnitude.mean())
        return torch.sign(w) * kept, mean_magnitude(w[None], kept[None])[0]


class _TrainedTernary(torch.autograd.Function):
    """W_p where w > Delta, -W_n where w < -Delta, else 0; the gradients that `TernaryTTQ` states."""

    @staticmethod
    def forward(ctx, w, positive_scale, negative_scale, delta):
        positive, negative = (torch.empty_like(w) for _ in range(2))
        torch.gt(w, delta, out=positive)
        torch.lt(w, -delta, out=negative)
        ctx.save_for_backward(positive, negative, positive_scale, negative_scale)
        return positive_scale * positive - negative_scale * negative

    @staticmethod
    def backward(ctx, g):
        positive, negative, positive_scale, negative_scale = ctx.saved_tensors
        slope = 1 + (positive_scale - 1) * positive + (negative_scale - 1) * negative
        return g * slope, (g * positive).sum(), -(g * negative).sum(), None


class TernaryTTQ(Quantizer):
    """Values {-W_n, 0, +W_p}, both learned from 1, one pair per layer; Delta = delta_factor * max|w| per layer.

    Forward: W_p where w > Delta, -W_n where w < -Delta, else 0. Gradient to w: W_p g where w > Delta, W_n g where
    w < -Delta, g between; to W_p the sum of g over w > Delta, to W_n minus the sum of g over w < -Delta.
    Reference: TTQ (Zhu et al., 2017) and its released TensorFlow code.
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
        return _TrainedTernary.apply(w, self.positive_scale, self.negative_scale, self._delta(w))

    @torch.no_grad()
    def codes(self, w: Tensor) -> QuantizedWeight:
        delta = self._delta(w)
        return self._pack((w > delta).int() - (w < -delta).int(), self.positive_scale, self.negative_scale)


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

    Returns one dict per kind of filter: {"beta", "w", "forward", "gradient_start", "gradient_middle", "gradient_end"},
    lists of floats; signed-binary has two, beta = +1 and -1, the others one with beta None. Statistics (max|w|,
    mean|w|) are those of the sampled weights, which form one filter of one region; the channel signs are +1, and a
    learned threshold is where it starts. With `standardize`, w is the weight after standardization.
    """
    assignment = "first_half" if config.assignment == "learned" else config.assignment  # a kind of filter per sign
    off = {"region_channels": 0, "region_taps": 0, "codebook_bits": 0, "codebook": "sparsest", "swap_at": 0.0}
    plain = replace(config, **off, assignment=assignment, standardize=False)
    quantizer = make_quantizer(plain, (1, 1, points), torch.Generator())
    curves = []
    for beta in (1.0, -1.0) if config.quantizer == "signed_binary" else (None,):
        if beta is not None:
            quantizer.beta.fill_(beta)
        w = torch.linspace(-1.5, 1.5, points).reshape(1, 1, points).requires_grad_()
        curve = {"beta": beta, "w": w.flatten().tolist(), "forward": quantizer(w).flatten().tolist()}
        for moment, progress in (("start", 0.0), ("middle", 0.5), ("end", 1.0)):
            quantizer.set_progress(progress)
            (gradient,) = torch.autograd.grad(quantizer(w).sum(), w)
            curve[f"gradient_{moment}"] = gradient.flatten().tolist()
        curves.append(curve)
    return curves
