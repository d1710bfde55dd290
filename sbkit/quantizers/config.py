"""The options of all schemes as one flat, frozen value; each scheme declares which of them it uses and checks those."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sbkit.checks import choice


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
            if isinstance(field.default, bool) and type(value) is not bool:
                raise ValueError(f"{name} = {value!r}; allowed: True, False")
        scheme.check(self)
