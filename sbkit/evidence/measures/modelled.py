"""Measures of the accelerator model: ratios of two designs' ResNet-18 at their trained densities.

The model's numbers do not vary with the seed in any way that matters. What makes them uncertain is what the paper
leaves open, so their range is the one that single changes of an assumption give. That only effectual weights cost work
is inferred from the paper's throughput, 1 / density, and is not changed.
"""

from __future__ import annotations

from statistics import mean

from sbkit import energy
from sbkit.evidence.gather import Evidence
from sbkit.evidence.measures.registry import Group, measure
from sbkit.evidence.stats import Measured

MACHINE = energy.Accelerator()


def _modelled(evidence: Evidence, ours: Group, over: Group, ratio: str) -> Measured:
    """A ratio of `energy.Ratios`, with the range over single changes of an assumption."""
    mine, theirs = ours.runs(evidence), over.runs(evidence)
    reference = energy.Codes(theirs["quantizer"].iloc[0], theirs["density"].mean())

    def codes(density: float) -> energy.Codes:
        return energy.Codes(mine["quantizer"].iloc[0], density)

    value = mean(getattr(energy.compare(codes(density), reference, MACHINE), ratio) for density in mine["density"])
    changed = [
        getattr(ratios, ratio)
        for _, tried, ratios in energy.single_changes(codes(mine["density"].mean()), reference, MACHINE)
        if tried != "dense"
    ]
    ends = (min(value, *changed), max(value, *changed))
    return Measured(value, 0.0, len(changed), (*mine["name"], *theirs["name"]), "assumptions", ends)


@measure("times", neutral=1.0)
def modelled_energy(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Energy of ResNet-18 by one design over its energy by another."""
    return _modelled(evidence, ours, over, "energy")


@measure("times", neutral=1.0)
def modelled_throughput(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Images a second of ResNet-18 by one design over images a second by another, batch 1."""
    return _modelled(evidence, ours, over, "throughput")


@measure("times", neutral=1.0)
def modelled_latency(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Latency of ResNet-18 by one design over its latency by another, batch 1."""
    return _modelled(evidence, ours, over, "latency")
