"""The most accurate network within a latency: trained networks as they are timed, and the lines of their rivals.

A *family* is a design with activations of so many bits, or dense networks in 8-bit integers, at any width. A family of
several widths is a *line*: between two of its networks, accuracy is interpolated in the logarithm of the latency, for
each seed by itself; beyond its last network, that one stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame

from sbkit.designs import DESIGNS
from sbkit.evidence import benchmarks
from sbkit.evidence.stats import Measured, measured

DENSE = "dense int8"
"""The family of networks in full precision, which libraries run in integers."""
STEPS = 400
"""Latencies of a line at which its accuracy is compared."""
NETWORK = ("family", "design", "width", "bits")
MEASURED = ("top1_percent", "model_top1_percent")
SUMMED = ("adds", "multiplies")


def networks(train: DataFrame, bench: DataFrame) -> DataFrame:
    """One row for each trained network and each of MAY_USE, from the frames of `runs.grouped` and `benchmarks.timed`.

    Of a group's contenders, such as libraries or encodings, the one of least milliseconds counts, in the mean of its
    seeds. Columns:

    may_use         the instructions that all may use, a value of `benchmarks.MAY_USE`
    family, design  the family's name for people, and the key of its design
    width, bits     channels of the first stage, and bits of an activation
    group, seed     of the run
    way             the contender's name for people
    ms              least time of one image
    top1_percent, model_top1_percent   as timed, and as trained
    kilobytes, operations              of the file, and of the quantized layers for one image

    Empty without a benchmark of the study of trained networks. Raises ValueError for a timed network without its run.
    """
    timings = _timings(bench)
    if timings.empty:
        return DataFrame()
    if lost := set(timings["run"]) - set(train["id"]):
        raise ValueError(f"timed networks without a training record: {', '.join(sorted(lost))}")
    told = train[train["design"] != ""].set_index("id")[["group", "design", "width", "activation_bits", "seed"]]
    table = timings[["may_use", "run", "label", "min_ms", "file_bytes", *SUMMED, *MEASURED]].join(
        told, on="run", how="inner"
    )
    means = table.groupby(["may_use", "group", "label"])["min_ms"].mean()
    chosen = set(means.groupby(level=["may_use", "group"]).idxmin())
    keys = zip(table["may_use"], table["group"], table["label"], strict=True)
    table = table[[key in chosen for key in keys]]
    dense = table["design"] == "full_precision"
    table["bits"] = table["activation_bits"].where(~dense, 8)
    names = [f"{DESIGNS[row.design].label}, {row.bits} bits" for row in table.itertuples()]
    table["family"] = np.where(dense, DENSE, names)
    table["kilobytes"] = table["file_bytes"] / 1e3
    table["operations"] = table[[*SUMMED]].sum(axis=1)
    table["order"] = table["design"].map(list(DESIGNS).index)
    table = table.rename(columns={"label": "way", "min_ms": "ms"})
    table = table.sort_values(["order", "bits", "width", "seed"], kind="stable", ignore_index=True)
    return table[["may_use", *NETWORK, "group", "seed", "way", "ms", *MEASURED, "kilobytes", "operations"]]


def _timings(bench: DataFrame) -> DataFrame:
    """Those of the newest benchmark for each of MAY_USE, without libraries that may use more."""
    found = benchmarks.find_each(bench, "trained")
    return found[(found["may_use"] == benchmarks.MAY_USE["auto"]) | (found["isa"] != "")] if len(found) else found


def points(table: DataFrame) -> DataFrame:
    """One row for each of MAY_USE and group of `networks`: its mean over seeds, top-1 with half width and n.

    `front` marks points that no other beats: none is as fast and more accurate, or faster and as accurate.
    """
    rows = []
    keys = ["may_use", *NETWORK, "way"]
    for values, runs in table.groupby(keys, sort=False):
        top1 = measured(runs["top1_percent"])
        rows.append(
            dict(zip(keys, values, strict=True))
            | {"ms": runs["ms"].mean(), "kilobytes": runs["kilobytes"].mean(), "operations": runs["operations"].mean()}
            | {"top1_percent": top1.value, "top1_half_width": top1.half_width, "n": top1.n}
            | {"lost_points": (runs["model_top1_percent"] - runs["top1_percent"]).abs().max()}
        )
    found = DataFrame(rows)
    beaten = [
        any(
            (other.ms <= row.ms and other.top1_percent >= row.top1_percent)
            and (other.ms, other.top1_percent) != (row.ms, row.top1_percent)
            for other in found[found["may_use"] == row.may_use].itertuples()
        )
        for row in found.itertuples()
    ]
    return found.assign(front=[not each for each in beaten])


class Line(NamedTuple):
    """A family's networks from fast to slow: their milliseconds (width,), and top-1 in percent by seed and width."""

    ms: np.ndarray
    top1: DataFrame  # a row for each seed that all of them have

    def at(self, ms: Iterable[float]) -> np.ndarray:
        """Top-1 within each of these latencies, by seed: (latencies, seeds)."""
        x, grid = np.log([*ms]), np.log(self.ms)
        return np.stack([np.interp(x, grid, row) for row in self.top1.to_numpy()], axis=1)


def line(family: DataFrame) -> Line:
    """The line of `networks` of one family, without those that are slower than a more accurate one in the mean."""
    ms = family.groupby("width")["ms"].mean().sort_values()
    top1 = family.pivot(index="seed", columns="width", values="top1_percent")[ms.index].dropna()
    kept = ~top1.mean().cummax().duplicated()
    return Line(ms[kept].to_numpy(), top1.loc[:, kept])


class Trade(NamedTuple):
    """What a network gains over a line.

    points      top-1 that it has more than the line at its own latency; None where no network of the line is as fast
    times       how many times as fast it is as the line at its own top-1
    low, high   of times: the line's top-1 is below that of the network by more than the 95 % interval at all latencies
                under `low` times the network's, and above it by more at all over `high`
    reach       the ends of the line, as multiples of the network's latency; a number beyond them is 0 or infinity
    """

    points: Measured | None
    times: float
    low: float
    high: float
    reach: tuple[float, float]


def trade(network: DataFrame, rival: Line) -> Trade | None:
    """The trade of one group of `networks`, paired by seed; None without a common seed. One seed has no interval."""
    own, ms = network.set_index("seed")["top1_percent"], network["ms"].mean()
    seeds = rival.top1.index.intersection(own.index)
    if seeds.empty:
        return None
    rival = rival._replace(top1=rival.top1.loc[seeds])
    own = own[seeds].to_numpy()
    latencies = np.geomspace(rival.ms[0], rival.ms[-1], STEPS)
    gains = [measured(own - top1) for top1 in rival.at(latencies)]
    spread = [gain.half_width if gain.n > 1 else 0 for gain in gains]
    ratios = latencies / ms
    not_behind = next((i for i in range(STEPS) if gains[i].value <= spread[i]), STEPS)
    equal = next((i for i in range(STEPS) if gains[i].value <= 0), STEPS)
    ahead = next((i for i in range(STEPS, 0, -1) if gains[i - 1].value >= -spread[i - 1]), 0)  # from there on
    return Trade(
        measured(own - rival.at([ms])[0]) if ms >= rival.ms[0] else None,
        _ratio(ratios, equal),
        ratios[-1] if not_behind == STEPS else _ratio(ratios, not_behind),
        ratios[0] if ahead == 0 else _ratio(ratios, ahead),
        (float(ratios[0]), float(ratios[-1])),
    )


def _ratio(ratios: np.ndarray, index: int) -> float:
    """A place among ratios, of which the first stands for all before it and the one past the last for all beyond."""
    return 0.0 if index == 0 else np.inf if index == STEPS else float(ratios[index])


def trades(table: DataFrame) -> Iterator[dict[str, Any]]:
    """A row for each of MAY_USE, network of ours and rival line: the dense one, and binary of the most widths."""
    for may_use, alike in table.groupby("may_use", sort=False) if len(table) else ():
        widths = alike.groupby("family", sort=False)["width"].nunique()
        binary = widths[[family in set(alike.loc[alike["design"] == "binary", "family"]) for family in widths.index]]
        rivals = [DENSE, *([binary.idxmax()] if len(binary) and binary.max() > 1 else [])]
        lines = {rival: line(alike[alike["family"] == rival]) for rival in rivals if widths.get(rival, 0) > 1}
        ours = alike[alike["family"] != DENSE]
        for (family, width), network in ours.groupby(["family", "width"], sort=False):
            for rival, against in lines.items():
                if rival != family and (found := trade(network, against)):
                    yield {"may_use": may_use, "family": family, "width": width, "rival": rival, "trade": found}
