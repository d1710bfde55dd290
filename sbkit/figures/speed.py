"""Speed on one CPU: the tables and figures of notebook 08. They read the columns of `evidence.benchmarks.timed`."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import seaborn
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from sbkit.designs import DESIGNS
from sbkit.evidence import benchmarks
from sbkit.evidence.benchmarks import PLACE
from sbkit.evidence.stats import interval, measured, shown
from sbkit.figures import layout, style
from sbkit.tables import spread
from sbkit.way import KERNELS, Way

# Tables


def speed_table(layers: DataFrame) -> DataFrame:
    """One row per layer and contender: latency, spread, dense-equivalent throughput.

    `reference` marks the layer's best fp32 torch, the faster of its memory layouts, and `reference_fp32` the best of
    all libraries in fp32.
    """
    fp32 = layers[benchmarks.is_fp32_library(layers)]
    columns = [*PLACE, "way", "label", "algorithm", "scheme", "encoding", "skip_zeros", "regions", "precision"]
    columns += ["chosen_group", "threads", "density", "median_ms", "iqr_ms", "min_ms", "round_ms", "gmacs", "reduction"]
    columns += ["best_reduction", "weight_bytes", "plan_seconds", "flagged", "of"]
    return layers[columns].assign(
        reference=layers.index.isin(benchmarks.fastest(fp32[fp32["algorithm"] == "torch"]).index),
        reference_fp32=layers.index.isin(benchmarks.fastest(fp32).index),
    )


SUMS = ("all", "geometric mean")
"""What stands in place of a layer in `speedup_table`: the sum of the latencies, and the mean of the layers' ratios."""


def speedup_table(speed: DataFrame) -> DataFrame:
    """Speed of each contender over the fastest of a set of references, layer by layer; 2 is twice as fast.

    One row per reference (`over`), contender and layer, and two more, `SUMS`, for a contender that ran on all layers.
    The mean and 95 % half width are over rounds, each round's ratio taken within the round, or over processes (`of`).

    over  "best fp32 torch"; "best fp32 of all", the other libraries included, where the benchmark has them;
          "best binary", the fastest encoding of binary by `table`
    """
    binary = (speed["algorithm"] == "table") & (speed["scheme"] == "binary")
    references = {"best fp32 torch": speed[speed["reference"]]}
    if (benchmarks.is_fp32_library(speed) & (speed["algorithm"] != "torch")).any():
        references["best fp32 of all"] = speed[speed["reference_fp32"]]
    references["best binary"] = benchmarks.fastest(speed[binary])
    rows = []
    for over, reference in references.items():
        best = benchmarks.rounds(reference)
        for way, timings in benchmarks.ways_of(speed):
            ours = benchmarks.rounds(timings)
            if not ours.keys() <= best.keys():
                continue
            ratios = {layer: best[layer] / ours[layer] for layer in ours}
            if ours.keys() == best.keys():
                sums = sum(best.values()) / sum(ours.values()), np.exp(np.mean(np.log(list(ratios.values())), axis=0))
                ratios |= dict(zip(SUMS, sums, strict=True))
            about = {"way": way, "label": way.label()}
            about |= {key: getattr(way, key) for key in ("algorithm", "scheme", "precision")}
            for layer, ratio in ratios.items():
                speedup, half_width = interval(ratio)
                rows.append(
                    {"name": timings["name"].iloc[0], "over": over, "layer": layer, **about}
                    | {"n": len(ratio), "of": timings["of"].iloc[0]}
                    | {"speedup": speedup, "speedup_half_width": half_width}
                )
    return DataFrame(rows)


def speedup_summary(speedup: DataFrame) -> DataFrame:
    """`speedup_table` for people: one row per contender and reference, a column per layer and sum."""
    texts = [shown(row.speedup, row.speedup_half_width, row.n) for row in speedup.itertuples()]
    return spread(speedup.assign(text=texts), ["over", "label"], "layer", "text")


def training_table(steps: DataFrame) -> DataFrame:
    """What a training step of each design costs over a step of the same network in full precision.

    A row per network, precision and design: median milliseconds, images a second, and `overhead` in percent over full
    precision in the same arithmetic, mean and 95 % half width over rounds, each round's ratio taken within the round.
    `time` is the step's time over full precision's in fp32, likewise. Empty without a benchmark of training.
    """
    rows = []
    for _, timings in steps.groupby(PLACE, sort=False) if len(steps) else ():
        full = timings[timings["variant"] == "full_precision"].set_index("precision")["round_ms"].map(np.array)
        for row in timings.itertuples():
            rounds = np.array(row.round_ms)
            overhead = measured(100 * (rounds / full[row.precision] - 1))
            design = DESIGNS[row.variant].label if row.variant in DESIGNS else row.variant
            rows.append(
                {"model": row.model, "batch": row.batch, "precision": row.precision, "design": design}
                | {"median_ms": row.median_ms, "images_per_second": 1e3 * row.batch / row.median_ms}
                | {"flagged": row.flagged, "time": str(measured(rounds / full["fp32"])), "overhead": str(overhead)}
                | {"overhead_percent": overhead.value, "half_width_percent": overhead.half_width}
            )
    return DataFrame(rows)


def network_table(networks: DataFrame) -> DataFrame:
    """One row per network, batch and contender of benchmarks of whole networks: milliseconds per image.

    `speedup` is over the fastest fp32 contender (marked `reference_fp32`), mean and 95 % half width over rounds.
    Empty without such a benchmark.
    """
    keys = ["name", "model", "batch", "way", "label", "algorithm", "scheme", "encoding", "precision", "threads"]
    rows = []
    for _, timings in speed_table(networks).groupby(PLACE, sort=False) if len(networks) else ():
        best = np.array(timings.loc[timings["reference_fp32"], "round_ms"].iloc[0])
        for row in timings.itertuples():
            speedup, half_width = interval(best / np.array(row.round_ms))
            rows.append(
                {key: getattr(row, key) for key in (*keys, "reference_fp32", "round_ms")}
                | {"ms_per_image": row.median_ms / row.batch, "iqr_ms_per_image": row.iqr_ms / row.batch}
                | {"flagged": row.flagged, "n": len(row.round_ms), "of": row.of}
                | {"speedup": speedup, "speedup_half_width": half_width}
            )
    return DataFrame(rows)


# Contenders as rows

_FORMATS = {"fp32": "full precision", "bf16": "bfloat16", "int8": "8-bit integers"}
_HEADINGS = (*_FORMATS.values(), *KERNELS)


def _heading(way: Way) -> str:
    """Our kernels stand below their algorithm, libraries below their number format."""
    return way.algorithm if way.scheme else _FORMATS[way.precision]


class _Contenders(NamedTuple):
    """Rows of a figure: the ways in order, their names and headings, and how each is drawn."""

    ways: list[Way]
    names: list[str]
    headings: list[str]
    looks: dict[Way, style.Look]
    pale: set[Way]  # variants of a contender that is there too


def _contenders(table: DataFrame) -> _Contenders:
    ways = sorted(dict.fromkeys(table["way"]), key=lambda way: _HEADINGS.index(_heading(way)))
    looks = {way: style.LOOKS[way.scheme or "full_precision"] for way in ways}
    looks |= {way: look._replace(color="0.6") for way, look in looks.items() if way.precision != "fp32"}
    names = [way.label().removeprefix(f"{way.algorithm}, ") if way.scheme else _library(way) for way in ways]
    plain = {way: Way(way.algorithm, way.scheme) for way in ways if way.scheme}
    pale = {way for way in plain if plain[way] != way and plain[way] in looks}
    return _Contenders(ways, names, list(map(_heading, ways)), looks, pale)


def _library(way: Way) -> str:
    """A library without its number format, which the heading says."""
    variant = "" if way.variant == way.precision else way.variant
    return replace(way, precision="fp32", variant=variant).label()


def _grid(who: _Contenders, titles: list[str]) -> tuple[Figure, dict[str, Axes], dict[Way, float]]:
    """A panel for each title, whose rows share the contenders' names, and the height of each contender's row."""
    size = (style.PAGE, 0.65 + layout.rows_height(who.names, who.headings))
    figure, axes = plt.subplots(1, len(titles), figsize=size, sharey=True, squeeze=False)
    heights = dict(zip(who.ways, layout.rows(axes[0, 0], who.names, who.headings), strict=True))
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
        axis.tick_params(axis="y", length=0)
    return figure, dict(zip(titles, axes[0], strict=True)), heights


def _bars(axis: Axes, timings: DataFrame, column: str, heights: dict, who: _Contenders, width: float) -> None:
    """Bars at the medians of the lists of rounds in `column`, on an axis of `width` inches."""
    timings = timings.assign(y=timings["way"].map(heights), end=[np.quantile(r, 0.75) for r in timings[column]])
    rounds = timings[["y", column]].explode(column).astype(float)
    limits = axis.get_ylim()
    seaborn.barplot(
        rounds, x=column, y="y", hue="y", palette={heights[way]: who.looks[way].color for way in who.ways},
        saturation=1, estimator="median", errorbar=("pi", 50), err_kws={"color": "black", "linewidth": 0.8},
        native_scale=True, orient="h", dodge=False, legend=False, edgecolor="white", linewidth=0.3, ax=axis,
    )  # fmt: skip
    for bar in axis.patches:
        way = min(who.ways, key=lambda way: abs(heights[way] - bar.get_y() - bar.get_height() / 2))
        bar.set(hatch=who.looks[way].hatch, alpha=0.5 if way in who.pale else 1.0)
    for row in timings.itertuples():
        look = {"fontweight": "bold" if row.reference_fp32 else "normal", "fontsize": 6, "va": "center"}
        text = f"{row.text}{'*' if row.flagged else ''}"
        axis.annotate(text, (row.end, row.y), xytext=(3, 0), textcoords="offset points", bbox=style.ABOVE_LINES, **look)
    best = np.median(timings.loc[timings["reference_fp32"], column].iloc[0])
    axis.axvline(best, color="black", linewidth=0.7, linestyle=":")
    longest = 5 + 4 * timings["text"].str.len().max()  # points, a character of 6 points being about 4 wide
    axis.set(ylim=limits, xlim=(0, timings["end"].max() / (1 - longest / (72 * width))), xlabel="", ylabel="")
    axis.xaxis.set_major_locator(MaxNLocator(3))


def _panels(table: DataFrame, column: str, places: dict[str, DataFrame], title: str, label: str) -> Figure:
    """A panel of bars for each place; the best library in fp32 is bold and has a dotted line."""
    who = _contenders(table)
    figure, axes, heights = _grid(who, list(places))
    for name, timings in places.items():
        _bars(axes[name], timings, column, heights, who, (style.PAGE - 2.3) / len(places))
    noisy = "; *: spread above 10 %" if table["flagged"].any() else ""
    figure.supxlabel(f"{label} (dotted, bold: best library in fp32{noisy})", fontsize=8)
    layout.head(figure, title)
    return figure


def _one_benchmark(table: DataFrame) -> None:
    if len(names := table["name"].unique()) != 1:
        raise ValueError(f"benchmarks {', '.join(names)}; allowed: one")


# Figures


@style.drawn
def fig_latency(table: DataFrame) -> Figure:
    """Latency of each contender of `speed_table`, one panel per layer: medians and quartiles of the rounds.

    Raises ValueError for timings of several benchmarks.
    """
    _one_benchmark(table)
    table = table.assign(text=[f"{ms:.3g}" for ms in table["median_ms"]])
    label = f"latency, ms, median of {len(table['round_ms'].iloc[0])} {table['of'].iloc[0]}"
    places = dict(list(table.groupby("layer", sort=False)))
    return _panels(table, "round_ms", places, "How long each layer takes by each contender", label)


@style.drawn
def fig_network(table: DataFrame) -> Figure:
    """Milliseconds an image takes through networks of `network_table`, one panel per network and batch."""
    table = table.assign(
        text=[f"{row.ms_per_image:.3g} ({row.speedup:.2g}×)" for row in table.itertuples()],
        image_ms=[np.array(row.round_ms) / row.batch for row in table.itertuples()],
        place=table["model"].str.replace("resnet", "ResNet-") + ", batch " + table["batch"].astype(str),
    )
    label = f"ms an image, median of {table['n'].min()} {table['of'].iloc[0]}; ×: speed over the best"
    places = dict(list(table.groupby("place", sort=False)))
    return _panels(table, "image_ms", places, "How long an image takes through a whole network", label)


@style.drawn
def fig_speedup(table: DataFrame) -> Figure:
    """Speed of each contender of `speedup_table`, one panel per reference: layers, their sum and geometric mean.

    Raises ValueError for several benchmarks, or where torch has no rival.
    """
    _one_benchmark(table)
    table = table[(table["algorithm"] != "torch") | (table["precision"] != "fp32")]
    if table.empty:
        raise ValueError("fig_speedup got torch in fp32 alone; allowed: a table with another contender")
    who = _contenders(table)
    figure, axes, heights = _grid(who, [f"over {over}" for over in table["over"].unique()])
    for over, speeds in table.groupby("over", sort=False):
        axis = axes[f"over {over}"]
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=0.7)
        speeds = speeds.assign(y=speeds["way"].map(heights))
        for row in speeds[~speeds["layer"].isin(SUMS)].itertuples():
            look = who.looks[row.way]
            axis.plot(row.speedup, row.y, look.marker, color=look.color, markersize=2.5, alpha=0.45, mew=0)
        total, mean = (speeds[speeds["layer"] == place] for place in SUMS)
        looks = [who.looks[way] for way in total["way"]]
        layout.forest(axis, total["y"], total["speedup"], total["speedup_half_width"], looks, size=5)
        axis.plot(mean["speedup"], mean["y"], "|", color="black", markersize=7)
        layout.plain_log(axis.xaxis, *axis.get_xlim())
    counted = f"n = {table['n'].min()} {table['of'].iloc[0]}"
    figure.supxlabel(f"times as fast, {counted} (large: all layers, 95 % interval)", fontsize=8)
    handles = [
        layout.handle("each layer", marker="o", markersize=2.5, alpha=0.45),
        layout.handle("all layers together", marker="o", markersize=5, linestyle="-"),
        layout.handle("geometric mean of the layers", marker="|", color="black", markersize=7),
    ]
    layout.head(figure, "How much faster than a reference; right of the line is faster", handles)
    return figure
