"""The quantization schemes: one row each, from which kernels, counts, energy, figures and notebooks take what they ask.

A new scheme is a row here and a class in `sbkit.quantizers`; a test holds the two lists equal. Torch-free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    """What the weights of a scheme can be, apart from their scale.

    key     the name in configurations, records and code
    label   the name wherever a person reads it
    values  what a weight can be, for people
    zeros   whether a weight can be zero
    signs   of a non-zero weight: "plus" always +1, "filter" one sign for each filter (or region of it), "weight" either
            sign, "real" a real number and no code at all
    """

    key: str
    label: str
    values: str
    zeros: bool
    signs: str

    @property
    def has_codes(self) -> bool:
        """Whether the weights are integer codes in {-1, 0, +1}."""
        return self.signs != "real"

    @property
    def values_per_filter(self) -> int:
        """How many values a weight can take within its filter or region."""
        return int(self.zeros) + (2 if self.signs == "weight" else 1)

    @property
    def stored_bits(self) -> float:
        """Bits that a weight takes when it is stored plainly, the signs of filters apart."""
        return math.ceil(math.log2(self.values_per_filter)) if self.has_codes else 32

    def patterns(self, taps: int = 9) -> int:
        """How many patterns of `taps` weights of one filter the scheme can tell apart (3x3: 512, 512, 19683, 1023).

        A signed-binary filter has 2^taps patterns of either sign, which share the all-zero one: 2^(taps + 1) - 1. The
        authors' 1,024 counts that one twice.
        """
        of_one_filter = self.values_per_filter**taps
        return 2 * of_one_filter - 1 if self.signs == "filter" else of_one_filter


_ROWS = (
    Scheme("full_precision", "full precision", "any", zeros=False, signs="real"),
    Scheme("binary", "binary", "{-1, +1}", zeros=False, signs="weight"),
    Scheme("ternary_twn", "ternary (TWN)", "{-1, 0, +1}", zeros=True, signs="weight"),
    Scheme("ternary_ttq", "ternary (TTQ)", "{-a, 0, +b}", zeros=True, signs="weight"),
    Scheme("zero_one", "{0,1}", "{0, +1}", zeros=True, signs="plus"),
    Scheme("signed_binary", "signed binary", "{0, +1} or {0, -1}", zeros=True, signs="filter"),
)

SCHEMES: dict[str, Scheme] = {row.key: row for row in _ROWS}
"""By key, in the order of tables and legends."""

CODED: tuple[str, ...] = tuple(row.key for row in _ROWS if row.has_codes)
"""Keys of the schemes whose weights are codes."""
