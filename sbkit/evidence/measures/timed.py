"""Measures of benchmarks: speed over rounds, and exact counts of operations and bytes of random codes.

All are of one thread, and of ResNet-18 unless another network's shapes are asked for.
"""

from __future__ import annotations

import numpy as np
from pandas import DataFrame

from sbkit.checks import choice
from sbkit.evidence import benchmarks
from sbkit.evidence.gather import Evidence
from sbkit.evidence.measures.registry import BEST, measure
from sbkit.evidence.stats import Measured, MissingRecord, exact, measured
from sbkit.way import Way

Contender = Way | str  # or BEST
SHAPES = "resnet18"


def _study(evidence: Evidence, study: str, shapes: str = SHAPES, batch: int = 1) -> DataFrame:
    """The timings of a study. Raises MissingRecord without a benchmark of it."""
    found = benchmarks.find(evidence.bench, study, shapes)
    found = found[found["batch"] == batch] if len(found) else found
    if found.empty:
        raise MissingRecord(f"a benchmark of the study {study}, {shapes}, batch {batch}")
    return found


def _timings(study: DataFrame, contender: Contender, channels: int = 0) -> DataFrame:
    if isinstance(contender, Way):
        return benchmarks.of_way(study, contender, channels)
    libraries = study[benchmarks.is_fp32_library(study)]
    libraries = libraries[(libraries["K"] == channels) & (libraries["C"] == channels)] if channels else libraries
    if libraries.empty:
        raise MissingRecord("a benchmark with a library in full precision")
    return benchmarks.fastest(libraries)


def _both(study: DataFrame, ours: Way, over: Contender, channels: int = 0) -> tuple[DataFrame, DataFrame]:
    """The timings of both contenders. Raises MissingRecord unless they were timed on the same layers."""
    mine, theirs = (_timings(study, contender, channels) for contender in (ours, over))
    if set(mine["layer"]) != set(theirs["layer"]):
        raise MissingRecord("a benchmark of both contenders on the same layers")
    return mine, theirs


@measure("times as fast", neutral=1.0)
def speedup(
    evidence: Evidence,
    ours: Way,
    over: Contender,
    channels: int = 0,
    study: str = "layers",
    shapes: str = SHAPES,
    batch: int = 1,
) -> Measured:
    """Latency of `over` divided by the latency of `ours`: all layers of a study together, or its network.

    n counts rounds, or processes where the benchmark pooled several. With `channels`, of the [3, 3, channels,
    channels] layer alone.
    """
    found = _study(evidence, study, shapes, batch)
    mine, theirs = _both(found, ours, over, channels)
    ratios = benchmarks.total_ms(theirs) / benchmarks.total_ms(mine)
    return measured(ratios, [mine["name"].iloc[0]], of=mine["of"].iloc[0])


@measure("percent of timings")
def noisy_timings(evidence: Evidence) -> Measured:
    """Timings of layers whose spread over rounds marked them as noisy."""
    found = _study(evidence, "layers")
    return exact(100 * found["flagged"].mean(), [found["name"].iloc[0]])


@measure("times", neutral=1.0)
def bench_reduction(evidence: Evidence, ours: Way, channels: int = 0) -> Measured:
    """Arithmetic reduction of a benchmark's random [3, 3, channels, channels] codes; 0: the largest of its layers."""
    timings = _timings(_study(evidence, "layers"), ours, channels)
    return exact(timings["best_reduction"].max(), [timings["name"].iloc[0]])


@measure("times as few", neutral=1.0)
def bench_fewer_operations(evidence: Evidence, ours: Way, over: Way, channels: int = 0) -> Measured:
    """Operations of `over` divided by the operations of `ours`: a benchmark's layers together, random codes."""
    mine, theirs = _both(_study(evidence, "layers"), ours, over, channels)
    needs = []
    for timings in (theirs, mine):
        macs = np.rint(1e6 * timings["gmacs"] * timings["median_ms"])  # an integer, which the throughput rounds
        needs.append((macs / timings["best_reduction"]).sum())
    return exact(needs[0] / needs[1], [mine["name"].iloc[0]])


@measure("bits per weight")
def plan_bits(evidence: Evidence, ours: Way) -> Measured:
    """Bits that a plan reads for one weight, all layers together, its tables' indices and signs included."""
    mine, plain = _both(_study(evidence, "layers"), ours, BEST)
    return exact(32 * mine["weight_bytes"].sum() / plain["weight_bytes"].sum(), [mine["name"].iloc[0]])


COSTS = {
    "operations": lambda table: 2 / table["best_reduction"],  # of a weight and output position; 2 is dense
    "operations per bit": lambda table: 2 / table["best_reduction"] / table["entropy_bits"],
    "time": lambda table: table["median_ms"],
}


def _swept(evidence: Evidence, scheme: str, algorithm: str, cost: str) -> DataFrame:
    """The timings of one layer at several densities of its codes, with the column `cost`."""
    choice("cost", cost, COSTS)
    found = _study(evidence, "density")
    found = found[(found["scheme"] == scheme) & (found["algorithm"] == algorithm)]
    if found.empty:
        raise MissingRecord(f"a benchmark of the study density with {algorithm}, {scheme}")
    return found.assign(cost=COSTS[cost](found))


@measure("density")
def cheapest_density(evidence: Evidence, cost: str) -> Measured:
    """The density at which signed binary's layer by `table` costs least; cost: a key of COSTS."""
    swept = _swept(evidence, "signed_binary", "table", cost)
    return exact(swept.loc[swept["cost"].idxmin(), "density"], [swept["name"].iloc[0]])


@measure("density")
def densest_below_binary(evidence: Evidence, cost: str, algorithm: str = "table") -> Measured:
    """The highest density at which signed binary costs less than binary in its best encoding; 0 if none does."""
    swept, binary = (_swept(evidence, scheme, algorithm, cost) for scheme in ("signed_binary", "binary"))
    below = swept.loc[swept["cost"] < binary["cost"].min(), "density"]
    return exact(max(below, default=0.0), [swept["name"].iloc[0]])
