"""Measures that need no record: combinatorics, the toy example, constants, and the paper's numbers among themselves."""

from __future__ import annotations

from sbkit import energy
from sbkit.checks import choice
from sbkit.evidence import toy
from sbkit.evidence.gather import Evidence
from sbkit.evidence.measures.registry import measure
from sbkit.evidence.paper import PAPER
from sbkit.evidence.stats import Measured, exact
from sbkit.schemes import SCHEMES


@measure("times")
def dram_over_add(evidence: Evidence) -> Measured:
    """Energy of 32 bits from DRAM over a 32-bit integer addition (Horowitz 2014, Fig. 1.1.9)."""
    return exact(energy.DRAM_PJ / energy.ADD_PJ["int32"])


@measure("times")
def dram_over_multiply(evidence: Evidence) -> Measured:
    """Energy of 32 bits from DRAM over a 32-bit integer multiplication (Horowitz 2014, Fig. 1.1.9)."""
    return exact(energy.DRAM_PJ / energy.MULTIPLY_PJ["int32"])


@measure("filters")
def distinct_patterns(evidence: Evidence, scheme: str) -> Measured:
    """How many 3x3 filters a scheme can tell apart."""
    choice("scheme", scheme, SCHEMES)
    return exact(SCHEMES[scheme].patterns())


@measure("times")
def uniform_repetition(evidence: Evidence, scheme: str, channels: int) -> Measured:
    """The 2-D filters of a [3, 3, channels, channels] layer over those that a scheme can tell apart."""
    return exact(channels**2 / distinct_patterns(evidence, scheme).value)


@measure("additions")
def toy_adds(evidence: Evidence, scheme: str) -> Measured:
    """Additions of a scheme's data-flow graph of the toy filters; signed binary's is the one that the paper prints."""
    graphs = toy.graphs_table()
    return exact(graphs.loc[graphs["scheme"] == scheme, "adds"].iloc[0])


@measure("outputs")
def toy_outputs(evidence: Evidence, scheme: str) -> Measured:
    """Different outputs of that graph."""
    graphs = toy.graphs_table()
    return exact(graphs.loc[(graphs["scheme"] == scheme) & (graphs["kind"] == "output"), "parts"].nunique())


@measure("filters found")
def toy_exists(evidence: Evidence, printed: bool = False) -> Measured:
    """1 if some pair of latent filters needs exactly as many additions by each scheme as the paper says, else 0.

    All pairs over six inputs are tried; with `printed`, those whose signed-binary codes are the printed ones.
    """
    adds = {scheme: int(PAPER[f"toy_{scheme}"]) for scheme in ("signed_binary", "binary", "ternary_twn")}
    return exact(toy.exists(adds, printed=printed))


def _stated(key: str) -> float:
    choice("paper", key, PAPER)
    return PAPER[key]


@measure("as stated")
def paper_value(evidence: Evidence, key: str) -> Measured:
    """Another of the paper's values."""
    return exact(_stated(key))


@measure("as stated")
def paper_ratio(evidence: Evidence, denominator: str, numerator: str = "") -> Measured:
    """One of the paper's values over another; without a numerator, the inverse."""
    return exact((_stated(numerator) if numerator else 1) / _stated(denominator))
