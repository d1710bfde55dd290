"""Binary weights."""

from __future__ import annotations

import torch

from sbkit.checks import choice
from sbkit.quantizers.base import Codes, Quantizer, QuantizerConfig, mean_magnitude
from sbkit.quantizers.regions import Codebook, Regions


class Binary(Quantizer):
    """Values {-alpha, +alpha}, alpha = 1 or mean|w| of the filter.

    Forward: alpha * sign(w), with sign(0) = +1. Gradient: alpha times the slope of `ste` or `ede`.

    codebook_bits = b limits the signs of each region, region_channels = G channels at one tap, to the 2^b patterns of a
    `Codebook`, so that a weight takes b / G bits.

    Reference: BWN (XNOR-Net, Rastegari et al., 2016); EDE and `standardize` from IR-Net (Qin et al., 2020).
    """

    options = ("estimator", "scale", "standardize", *Codebook.options)

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        choice("estimator", config.estimator, ("ste", "ede"))
        choice("scale", config.scale, ("none", "mean"))
        Codebook.check(config)
        if config.codebook_bits and config.codebook == "sparsest":
            raise ValueError("codebook = 'sparsest' with binary, which has no zeros; allowed: random, learned")
        for name in ("region_channels", "region_taps"):
            if getattr(config, name) and not config.codebook_bits:
                raise ValueError(f"{name} = {getattr(config, name)} has no effect on binary without a codebook")

    def __init__(self, shape: tuple[int, ...], config: QuantizerConfig, generator: torch.Generator):
        super().__init__(shape, config, generator)
        self.codebook = None
        if config.codebook_bits:
            self.codebook = Codebook(Regions(shape, config), -1.0, config, generator)
            self.weight_bits = self.codebook.weight_bits(shape)

    def quantize(self, w):
        codes = self.codebook(w) if self.codebook else w.clone().ge_(0).mul_(2).sub_(1)
        return Codes(codes, mean_magnitude(w) if self.config.scale == "mean" else None)
