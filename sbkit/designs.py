"""The named designs: a scheme with the options that make it what a table or a claim speaks of.

experiments.toml trains a design by `design = "learned_signs"`; claims, questions and figures name the same key. A run
belongs to a design when its configuration says so, whatever its file is called. Torch-free; `sbkit.quantizers` checks
the options, and a test holds every design valid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Design:
    """key: in TOML files and code. label: wherever a person reads it. options: those that differ from their defaults.

    `paper` tells the paper's own designs from those that go beyond it.
    """

    key: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    paper: bool = False


QUANTIZER_OPTIONS = (
    "quantizer", "estimator", "scale", "threshold", "delta_factor", "delta_axis", "region_channels", "region_taps",
    "codebook_bits", "codebook", "positive_fraction", "assignment", "swap_at", "channel_signs", "standardize",
)  # fmt: skip
"""The options of a quantizer, which a design may set; all other options of a run are its recipe.

A test holds them equal to the fields of QuantizerConfig.
"""

# One sign for each filter, tap and group of four channels, and a threshold at the mean magnitude.
_FINE = {"region_channels": 4, "region_taps": 1, "threshold": "mean", "delta_factor": 1.0}

_ROWS = (
    Design("full_precision", "full precision", {"quantizer": "full_precision"}),
    Design("binary", "binary", {"quantizer": "binary"}, paper=True),
    Design("ternary_twn", "ternary (TWN)", {"quantizer": "ternary_twn"}, paper=True),
    Design("ternary_ttq", "ternary (TTQ)", {"quantizer": "ternary_ttq"}),
    Design("zero_one", "{0,1}", {"quantizer": "zero_one"}, paper=True),
    Design("signed_binary", "signed binary", paper=True),
    Design("signed_binary_sb_ede", "signed binary, SB-EDE", {"estimator": "sb_ede"}, paper=True),
    Design("channel_signs", "signed channels", {"channel_signs": True}),
    Design("region_signs", "signs per 4 channels", {"region_channels": 4, "assignment": "random"}),
    Design("random_signs", "random fine signs", _FINE | {"assignment": "random"}),
    Design("learned_signs", "learned fine signs", _FINE | {"assignment": "learned"}),
    Design(
        "masks_16_of_8",
        "16 masks of 8",
        _FINE | {"assignment": "random", "region_channels": 8, "codebook_bits": 4},
    ),
)

DESIGNS: dict[str, Design] = {row.key: row for row in _ROWS}
"""By key, in the order of tables and legends."""
