"""Which encodings an algorithm and a layer's codes allow, and how many channels may share a table.

An encoding is how codes become sums; `sbkit.kernels.prepare` says what each means. The extension holds the same rules
(csrc/algorithms.cpp), and a test compares its limits.
"""

from __future__ import annotations

import numpy as np

from sbkit.checks import choice
from sbkit.conv import QuantizedWeight, mixes_signs
from sbkit.way import ENCODINGS, MOST_CHANNELS

ENCODINGS_OF = {
    "dense": ("two_group",),
    "sparse": ("two_group", "rewritten"),
    "table": tuple(ENCODINGS),
    "dataflow": ("two_group", "rewritten"),
}
"""By algorithm of float activations, the encodings it has."""


def one_scale(weight: QuantizedWeight) -> bool:
    """Whether the codes -1 have the scale of the codes +1, in every filter."""
    return np.array_equal(weight.scale, weight.negative_scale)


def check_encoding(algorithm: str, encoding: str, weight: QuantizedWeight) -> None:
    """Raises ValueError for an unknown algorithm or encoding, or one that the other or the weight does not allow.

    "rewritten" needs codes without zeros and scales with which its two sums over activations up to 1 stay finite; every
    encoding but "two_group" needs both scales to be equal.
    """
    choice("algorithm", algorithm, ENCODINGS_OF)
    choice("encoding", encoding, ENCODINGS)
    choice(f"encoding of {algorithm}", encoding, ENCODINGS_OF[algorithm])
    check_zeros(encoding, weight)
    most = np.finfo(np.float32).max / (2 * weight.codes[0].size)
    if encoding == "rewritten" and (largest := float(np.abs(weight.scale).max())) > most:
        raise ValueError(f"encoding = 'rewritten' with a scale of {largest:.3g}; allowed: up to {most:.3g}")
    if encoding != "two_group" and not one_scale(weight):
        raise ValueError(f"encoding = {encoding!r} with two scales; allowed: scale equal to negative_scale")


def check_zeros(encoding: str, weight: QuantizedWeight) -> None:
    """Raises ValueError for the encoding "rewritten" of codes with zeros."""
    if encoding == "rewritten" and not weight.codes.all():
        raise ValueError("encoding = 'rewritten' with codes that hold 0; allowed: every code -1 or +1")


def table_alphabet(codes: np.ndarray, encoding: str = "two_group") -> tuple[int, ...]:
    """The codes that the patterns of a layer's tables are made of, unless the encoding is `codebook`.

    They are (0, 1), which are subsets of channels. With the encoding `signed`, if some filter has both signs, they are
    (-1, 1) for codes without zeros and (-1, 0, 1) for others.
    """
    if encoding != "signed" or not mixes_signs(codes):
        return 0, 1
    return (-1, 1) if codes.all() else (-1, 0, 1)


def largest_group(codes: np.ndarray, encoding: str = "two_group") -> int:
    """Most channels that may share a table: 10, 6 if its patterns are ternary, and 16 with the encoding `codebook`.

    The tables then have at most 1,024 patterns (2^10 subsets, 2^9 patterns of signs, 364 ternary ones), those of a
    codebook because a larger one is refused.
    """
    if encoding == "codebook":
        return MOST_CHANNELS["codebook"]
    return MOST_CHANNELS["ternary" if len(table_alphabet(codes, encoding)) == 3 else "subsets"]
