"""Timings by way, and the one rule that finds a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame

from sbkit import records
from sbkit.evidence.stats import MissingRecord
from sbkit.way import KERNELS, PEERS, Way

MAY_USE = {"auto": "all instructions", "avx512": "AVX-512 without AMX", "avx2": "AVX2 alone"}
"""By the option `isa` of a benchmark, the instructions that our kernels and the libraries may use.

Our kernels have none for a matrix unit. Libraries built on oneDNN are held to the same; the others are not.
"""

ON_THREADS = ("network_integers", "integer_costs")
"""Studies whose benchmarks on several threads are compared with those on one."""

PLACE = ["name", "layer", "model", "batch"]
"""The columns that all contenders of one comparison share."""


def read(folder: str | Path) -> DataFrame:
    """The timings of the benchmarks below a profile's folder, as `timed` gives them."""
    return timed(records.read(folder, "bench"))


def timed(bench: DataFrame) -> DataFrame:
    """A frame of `records.read` with `way` as a Way, its label, and each of its fields as a column.

    Columns that only some records have are filled: layers have no `model`, older records no `width`. Where a benchmark
    pooled several processes, which share neither codes nor plans, `round_ms` has one value for each of them, the median
    of its rounds, so that intervals count processes. `of` says what the values are of: "rounds" or "processes".
    """
    if bench.empty:
        return bench.assign(way=[], label=[])
    ways = [Way.of(options) for options in bench["way"]]
    own = DataFrame([{field: getattr(way, field) for field in Way.__dataclass_fields__} for way in ways])
    table = bench.reset_index(drop=True).assign(way=ways, label=[way.label() for way in ways])
    table = table.assign(**{name: own[name] for name in own})
    for column, value in {"model": "", "width": 0, "processes": 1}.items():
        table[column] = table[column].fillna(value).astype(type(value)) if column in table else value
    table["of"] = np.where(table["processes"] > 1, "processes", "rounds")
    if (table["of"] == "processes").any():
        pooled = zip(table["round_ms"], table["processes"], strict=True)
        table["round_ms"] = [ms if n == 1 else np.median(np.reshape(ms, (int(n), -1)), axis=1) for ms, n in pooled]
    return table.copy()  # in one piece, of which rows are taken much faster


def find(bench: DataFrame, study: str, shapes: str = "") -> DataFrame:
    """The timings of the newest benchmark of a study on one thread; empty where there is none.

    `shapes` asks for one network's shapes, empty for any. A network, its operations or its codes are benchmarks of
    their own for each network, width and batch, so the newest of each counts; of studies in ON_THREADS, that on several
    threads as well.
    Raises ValueError where timings come from several CPUs or instruction sets.
    """
    if bench.empty:
        return bench
    found = bench[bench["study"] == study]
    found = found if study in ON_THREADS else found[found["threads"] == 1]
    found = found[found["shapes"] == shapes] if shapes else found
    started = found["provenance_started_utc"]
    if study in ("network", "operations", "integer_codes", *ON_THREADS):
        alike = [found[column] for column in ("shapes", "width", "batch", "threads")]
        started = started.groupby(alike).transform("max")
        return one_machine(found[found["provenance_started_utc"] == started])
    return one_machine(found[started == started.max()])


def find_each(bench: DataFrame, study: str) -> DataFrame:
    """What `find` gives for each of MAY_USE, in their order, with the column `may_use`; empty where there is nothing.

    Raises ValueError where timings come from several CPUs.
    """
    parts = []
    for isa, may_use in MAY_USE.items() if len(bench) else ():
        asked = [config.get("isa", "auto") == isa for config in bench["config"]]
        parts.append(find(bench[asked], study).assign(may_use=may_use))
    if not (parts := [part for part in parts if len(part)]):
        return DataFrame()
    return one_machine(pd.concat(parts, ignore_index=True), ["provenance_cpu"])


def one_machine(timings: DataFrame, columns: Iterable[str] = ("provenance_cpu", "provenance_isa")) -> DataFrame:
    """The timings. Raises ValueError, which names the records, if they come from several CPUs or instruction sets."""
    for column in columns:
        names = timings.groupby(column, sort=False)["name"].unique()
        if len(names) > 1:
            found = "; ".join(f"{value} in {', '.join(map(str, each))}" for value, each in names.items())
            raise ValueError(
                f"timings of several machines do not compare; {column}: {found}; allowed: one of them, so remove the "
                "records of the others"
            )
    return timings


def of_way(timings: DataFrame, way: Way, channels: int = 0) -> DataFrame:
    """The timings of one way; with `channels`, on the [3, 3, channels, channels] layer alone.

    Raises MissingRecord if there are none.
    """
    if len(timings):
        timings = timings[timings["way"] == way]
        timings = timings[(timings["K"] == channels) & (timings["C"] == channels)] if channels else timings
    if timings.empty:
        layer = f" on a [3, 3, {channels}, {channels}] layer" if channels else ""
        raise MissingRecord(f"a benchmark with {way.label()}{layer}")
    return timings


def is_ours(timings: DataFrame) -> pd.Series:
    """Which timings are of this package's kernels."""
    return timings["algorithm"].isin(KERNELS)


def is_fp32_library(timings: DataFrame) -> pd.Series:
    """Which timings are of a library in full precision."""
    return timings["algorithm"].isin(PEERS) & (timings["precision"] == "fp32")


def fastest(timings: DataFrame, by: str = "median_ms", place: Sequence[str] = tuple(PLACE)) -> DataFrame:
    """The fastest timing of each place, by a column: what a person who knows them all would pick."""
    return timings.loc[timings.groupby(list(place), sort=False)[by].idxmin()]


def rounds(timings: DataFrame) -> dict[str, np.ndarray]:
    """Milliseconds of each round, by layer. Raises ValueError where a layer occurs twice."""
    if timings["layer"].duplicated().any():
        raise ValueError(f"several timings of one layer: {', '.join(timings['layer'])}; allowed: one of each")
    return {layer: np.array(values) for layer, values in zip(timings["layer"], timings["round_ms"], strict=True)}


def total_ms(timings: DataFrame) -> np.ndarray:
    """Milliseconds of each round, all layers together."""
    return np.sum(list(rounds(timings).values()), axis=0)


def ways_of(timings: DataFrame) -> Iterable[tuple[Way, DataFrame]]:
    """Each way and its timings, in the order in which they were timed."""
    return ((way, timings[timings["way"] == way]) for way in timings["way"].drop_duplicates())
