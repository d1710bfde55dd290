"""Tables into figures: `fig_<stem>(table)` returns a matplotlib Figure of a table of `sbkit.analysis`. Opens no file.

One scheme has one colour, marker and hatch in every figure; colours are seaborn's colour-blind safe ones. Values of the
paper are hollow markers. Sizes are those of a paper's column (3.25 in) or page (6.75 in) at 8 points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from pandas import DataFrame

COLUMN = 3.25  # inches
PAGE = 6.75  # inches

_COLORS = sns.color_palette("colorblind").as_hex()


class Style(NamedTuple):
    color: str
    marker: str
    hatch: str
    label: str


STYLE: dict[str, Style] = {
    "full_precision": Style("#4d4d4d", "P", "", "full precision"),
    "binary": Style(_COLORS[0], "s", "///", "binary"),
    "ternary_twn": Style(_COLORS[2], "^", "\\\\\\", "ternary (TWN)"),
    "ternary_ttq": Style(_COLORS[9], "v", "xxx", "ternary (TTQ)"),
    "zero_one": Style(_COLORS[1], "D", "...", "{0,1}"),
    "signed_binary": Style(_COLORS[4], "o", "", "signed binary"),
}
"""By quantizer, in the order in which figures show them."""


def style() -> dict[str, Any]:
    """The rc parameters of every figure."""
    return {
        "figure.constrained_layout.use": True,
        "figure.dpi": 150,
        "font.family": "DejaVu Sans",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "hatch.linewidth": 0.5,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
    }


def _figure(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under `style()`; an empty table raises ValueError naming the figure."""

    @functools.wraps(draw)
    def styled(table: DataFrame, **options: Any) -> Figure:
        if table.empty:
            raise ValueError(f"{draw.__name__} got an empty table; there is nothing to draw")
        with plt.rc_context(style()):
            return draw(table, **options)

    return styled


def _schemes(values: Iterable[str]) -> list[str]:
    """The distinct schemes in STYLE's order. Raises ValueError for an unknown one."""
    found = set(values)
    if unknown := sorted(found - STYLE.keys()):
        raise ValueError(f"no style for {', '.join(unknown)}; allowed: {', '.join(STYLE)}")
    return [scheme for scheme in STYLE if scheme in found]


def _ordered_labels(table: DataFrame) -> list[tuple[str, str]]:
    """(label, scheme) of each group, in STYLE's order and then by name."""
    order = list(STYLE)
    pairs = set(zip(table["label"], table["quantizer"], strict=True))
    _schemes(scheme for _, scheme in pairs)
    return sorted(pairs, key=lambda pair: (order.index(pair[1]), pair[0] != pair[1], pair[0]))


def _name(label: str) -> str:
    """A group's name for people: the scheme's own for the main runs, else the label with spaces."""
    return STYLE[label].label if label in STYLE else label.removeprefix("ablate_").replace("_", " ")


def _count(value: float) -> str:
    """1200 -> 1.2k, 3000000 -> 3M."""
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{letter}"
    return f"{value:g}"


def _plain_log(axis: Axis, low: float, high: float) -> None:
    """Ticks of a log axis from low to high as plain numbers: decades, finer ones where that gives fewer than three."""
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 6)):
        places = [m * 10.0**e for e in range(-3, 12) for m in steps if low <= m * 10.0**e <= high]
        if len(places) >= 3:
            break
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))
    axis.set_minor_locator(NullLocator())


def _spread(positions: np.ndarray, gap: float) -> np.ndarray:
    """Positions moved as little as possible (least squares) to be `gap` apart, their order kept."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(positions, kind="stable")
    grid = gap * np.arange(len(order))
    moved = np.empty(len(order))
    moved[order] = isotonic_regression(np.asarray(positions, float)[order] - grid).x + grid
    return moved


# Quantizers and training


@_figure
def fig_quantizers(table: DataFrame) -> Figure:
    """Forward values (step) and surrogate gradients of `response_table`, one column per scheme.

    Three gradients where the estimator changes during training: start, middle, end, light to dark. Two columns for a
    scheme with regions of both signs.
    """
    panels = [
        (label, scheme, beta, rows)
        for label, scheme in _ordered_labels(table)
        for beta, rows in table[table["label"] == label].groupby("beta", dropna=False, sort=False)
    ]
    figure, axes = plt.subplots(
        2, len(panels), figsize=(PAGE, 2.6), sharex=True, sharey="row", squeeze=False, height_ratios=(1, 1)
    )
    for column, (label, scheme, beta, rows) in enumerate(panels):
        forward, gradient = axes[:, column]
        color = STYLE[scheme].color
        sign = "" if beta is None or beta != beta else f"\nβ = {beta:+.0f}".replace("-", "\N{MINUS SIGN}")
        forward.set_title(_name(label) + sign, fontsize=7)
        forward.plot(rows["w"], rows["forward"], color=color)
        changes = not np.allclose(rows["gradient_start"], rows["gradient_end"])
        for stage, alpha in (("start", 0.35), ("middle", 0.65), ("end", 1.0)) if changes else (("end", 1.0),):
            gradient.plot(rows["w"], rows[f"gradient_{stage}"], color=color, alpha=alpha)
        gradient.set_xticks([-1, 0, 1])
        for axis in (forward, gradient):
            axis.axhline(0, color="0.8", linewidth=0.5, zorder=0)
    axes[0, 0].set_ylabel("quantized weight")
    axes[1, 0].set_ylabel("gradient")
    figure.supxlabel("latent weight", fontsize=8)
    return figure


@_figure
def fig_accuracy(table: DataFrame) -> Figure:
    """Top-1 of every run of `seed_table`, with each group's mean and 95 % interval beside them."""
    groups = _ordered_labels(table)
    figure, axis = plt.subplots(figsize=(COLUMN, 0.55 + 0.3 * len(groups)))
    for row, (label, scheme) in enumerate(reversed(groups)):
        runs = table[table["label"] == label]
        look = STYLE[scheme]
        axis.plot(
            runs["top1_percent"], [row + 0.18] * len(runs), look.marker, color=look.color, alpha=0.5, markersize=3
        )
        first = runs.iloc[0]
        mean, half_width = first["top1_mean_percent"], first["top1_half_width_percent"]
        if half_width == half_width:
            axis.plot([mean - half_width, mean + half_width], [row - 0.1] * 2, color=look.color)
        axis.plot(mean, row - 0.1, look.marker, color=look.color, markersize=5)
    names = [f"{_name(label)} (n={int(table.loc[table['label'] == label, 'n'].iloc[0])})" for label, _ in groups]
    axis.set_yticks(range(len(groups)), names[::-1])
    axis.set_ylim(-0.6, len(groups) - 0.4)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, 0), min(high, 100))  # an interval of few seeds may leave what a percentage can be
    axis.set_xlabel("top-1 accuracy, %")
    return figure


@_figure
def fig_ablation(table: DataFrame) -> Figure:
    """Paired top-1 differences of `paired_table`, best first, each with its 95 % interval, 0 being the baseline."""
    table = table.sort_values("difference_mean_points")
    figure, axis = plt.subplots(figsize=(COLUMN, 0.6 + 0.22 * len(table)))
    axis.axvline(0, color="black", linewidth=0.7)
    look = STYLE["signed_binary"]
    for row, group in enumerate(table.itertuples()):
        mean, half_width = group.difference_mean_points, group.difference_half_width_points
        if half_width == half_width:
            axis.plot([mean - half_width, mean + half_width], [row, row], color=look.color)
        axis.plot(mean, row, look.marker, color=look.color)
    names = [f"{_name(group.label)} (n={group.n})" for group in table.itertuples()]
    axis.set_yticks(range(len(table)), names)
    axis.set_ylim(-0.6, len(table) - 0.4)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)
    figure.supxlabel(f"top-1 over {_name(table['baseline'].iloc[0])}, points", fontsize=8)
    return figure


@_figure
def fig_pareto(table: DataFrame) -> Figure:
    """Top-1 against effectual weights of `pareto_table`, every point labelled, the front as a line."""
    figure, axis = plt.subplots(figsize=(COLUMN, _height(2.6, table)))
    _schemes(table["quantizer"])
    axis.set_xscale("log")
    for row in table.itertuples():
        look = STYLE[row.quantizer]
        axis.errorbar(
            row.effectual_weights,
            row.top1_mean_percent,
            yerr=None if row.top1_half_width_percent != row.top1_half_width_percent else row.top1_half_width_percent,
            fmt=look.marker,
            color=look.color,
            elinewidth=0.8,
            zorder=3,
        )
    front = table[table["front"]].sort_values("effectual_weights")
    axis.plot(front["effectual_weights"], front["top1_mean_percent"], color="0.6", linewidth=0.8, zorder=1)
    axis.set_xlabel("effectual weights")
    axis.set_ylabel("top-1 accuracy, %")
    low, high = table["effectual_weights"].min(), table["effectual_weights"].max()
    axis.set_xlim(low / 1.25, high * (high / low) ** 0.75 * 1.6)  # room for the labels right of the last point
    _plain_log(axis.xaxis, low / 1.25, high * 1.25)
    bottom, top = max(axis.get_ylim()[0], 0), min(axis.get_ylim()[1], 100)
    gap = (top - bottom) * 0.16 / figure.get_figheight()
    heights = _spread(table["top1_mean_percent"].to_numpy(), gap)
    axis.set_ylim(min(bottom, heights.min() - gap / 2), max(top, heights.max() + gap / 2))
    for row, height in zip(table.itertuples(), heights, strict=True):
        axis.annotate(
            _name(row.label),
            (row.effectual_weights, row.top1_mean_percent),
            xytext=(high * 1.3, height),
            textcoords="data",
            fontsize=7,
            va="center",
            color=STYLE[row.quantizer].color,
            arrowprops={
                "relpos": (0, 0.5),
                "arrowstyle": "-",
                "color": "0.85",
                "linewidth": 0.5,
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )
    return figure


@_figure
def fig_curves(table: DataFrame) -> Figure:
    """Top-1 per epoch of `curves_table`: the mean over seeds as a line, every seed faint behind it."""
    figure, axis = plt.subplots(figsize=(COLUMN, _height(2.4, table)))
    ends = []
    for label, scheme in _ordered_labels(table):
        runs = table[table["label"] == label]
        look = STYLE[scheme]
        for _, run in runs.groupby("seed"):
            axis.plot(run["epoch"], run["top1_percent"], color=look.color, alpha=0.3, linewidth=0.6)
        mean = runs.groupby("epoch")["top1_percent"].mean()
        axis.plot(mean.index, mean, color=look.color, marker=look.marker, markevery=max(1, len(mean) // 8))
        ends.append((label, look.color, mean.index[-1], mean.iloc[-1]))
    _label_ends(axis, ends)
    axis.set_xlabel("epoch")
    axis.set_ylabel("top-1 accuracy, %")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _height(least: float, table: DataFrame) -> float:
    """Inches that leave room for one direct label per group."""
    return max(least, 0.7 + 0.16 * table["label"].nunique())


def _label_ends(axis: Axes, ends: list[tuple[str, str, float, float]]) -> None:
    """Names right of where the lines end, moved apart where they would overlap."""
    bottom, top = axis.get_ylim()
    gap = (top - bottom) * 0.18 / axis.figure.get_figheight()
    heights = _spread(np.array([y for *_, y in ends]), gap)
    for (label, color, x, _), height in zip(ends, heights, strict=True):
        axis.annotate(
            _name(label), (x, height), xytext=(5, 0), textcoords="offset points", color=color, fontsize=7, va="center"
        )
    axis.set_ylim(min(bottom, heights.min()), max(top, heights.max()))


# Weights


@_figure
def fig_density(table: DataFrame) -> Figure:
    """Density of each quantized layer of `density_table` from first to last: the mean over seeds, every seed faint."""
    figure, axis = plt.subplots(figsize=(COLUMN, _height(2.2, table)))
    ends = []
    for label, scheme in _ordered_labels(table):
        runs = table[table["label"] == label]
        look = STYLE[scheme]
        for _, run in runs.groupby("seed"):
            axis.plot(run["depth"], run["density"], color=look.color, alpha=0.3, linewidth=0.6)
        mean = runs.groupby("depth")["density"].mean()
        axis.plot(mean.index, mean, color=look.color, marker=look.marker)
        ends.append((label, look.color, mean.index[-1], mean.iloc[-1]))
    axis.set_ylim(0, 1.04)
    _label_ends(axis, ends)
    axis.set_xlabel("quantized layer")
    axis.set_ylabel("density (non-zero fraction)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@_figure
def fig_latent(table: DataFrame) -> Figure:
    """Latent-weight histograms of `latent_table`: one run's layers in rows, its regions in columns.

    Filled: effectual weights; open: ineffectual ones. Give a table of one run.
    """
    if len(table[["label", "seed"]].drop_duplicates()) != 1:
        raise ValueError("fig_latent draws one run; allowed: a table with one label and seed")
    regions = [region for region in ("positive", "negative") if region in set(table["region"])]
    layers = list(dict.fromkeys(table["layer"]))
    look = STYLE[table["quantizer"].iloc[0]]
    figure, axes = plt.subplots(
        len(layers), len(regions), figsize=(PAGE, 0.6 + 1.1 * len(layers)), squeeze=False, sharex="row", sharey="row"
    )
    for i, layer in enumerate(layers):
        for j, region in enumerate(regions):
            axis = axes[i, j]
            bins = table[(table["layer"] == layer) & (table["region"] == region)]
            edges = np.append(bins["left"], bins["right"].iloc[-1])
            effectual = bins["effectual"].to_numpy()
            ineffectual = bins["count"].to_numpy() - effectual
            axis.stairs(effectual, edges, fill=True, color=look.color, label="effectual")
            axis.stairs(ineffectual, edges, color="0.35", linewidth=0.8, label="ineffectual")
            axis.axvline(0, color="0.8", linewidth=0.5, zorder=0)
            if i == 0 and len(regions) == 2:
                axis.set_title(f"{region} regions")
        axes[i, 0].set_ylabel(f"{layer}\nweights", fontsize=7)
    axes[0, -1].legend(loc="upper right", handlelength=1.2)
    figure.supxlabel("latent weight", fontsize=8)
    return figure


# Repetition


@_figure
def fig_unique_filters(table: DataFrame) -> Figure:
    """Distinct 3x3 filters of `unique_table` against all filters of the layer; dashed: how many a scheme can have.

    Points are means over layers of one size and over runs.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 2.5))
    axis.set_xscale("log")
    axis.set_yscale("log")
    ends = []
    for scheme in _schemes(table["scheme"]):
        means = table[table["scheme"] == scheme].groupby("filters")["unique"].mean()
        look = STYLE[scheme]
        axis.plot(means.index, means, look.marker, color=look.color, linestyle="-", linewidth=0.8)
        ends.append((scheme, look.color, means.index[-1], means.iloc[-1]))
    low, high = table["filters"].min() / 1.5, table["filters"].max()
    bottom, top = table["unique"].min() / 1.5, max(table["bound"].max(), high) * 2
    axis.plot([low, high], [low, high], color="0.8", linewidth=0.6, zorder=0)
    axis.text(high, high * 1.15, "all different", color="0.5", fontsize=6, ha="right", va="bottom")
    for bound, schemes in table.groupby("bound")["scheme"]:
        color = STYLE[_schemes(schemes)[0]].color
        axis.plot([low, high], [bound, bound], color=color, linewidth=0.8, linestyle="--", zorder=0)
        axis.text(low, bound, f"{bound:,}", fontsize=6.5, va="bottom", color=color)
    heights = 10 ** _spread(np.log10([y for *_, y in ends]), np.log10(top / bottom) * 0.07)
    for (scheme, color, x, _), height in zip(ends, heights, strict=True):
        axis.annotate(
            _name(scheme), (x, height), xytext=(5, 0), textcoords="offset points", color=color, fontsize=7, va="center"
        )
    axis.set_xlim(low, high * 1.1)
    axis.set_ylim(bottom, top)
    _plain_log(axis.xaxis, low, high)
    _plain_log(axis.yaxis, bottom, top)
    axis.set_xlabel("3x3 filters in the layer")
    axis.set_ylabel("distinct filters")
    return figure


@_figure
def fig_dataflow_graph(table: DataFrame) -> Figure:
    """The data-flow graphs of `graphs_table`, one panel per scheme: inputs left, shared sums, outputs right.

    Dashed: subtracted. Inputs that no filter uses are grey.
    """
    schemes = _schemes(table["scheme"])
    figure, axes = plt.subplots(1, len(schemes), figsize=(PAGE, 2.4), squeeze=False)
    for axis, scheme in zip(axes[0], schemes, strict=True):
        graph, color = table[table["scheme"] == scheme], STYLE[scheme].color
        used = {part[1:] for parts in graph["parts"] for part in parts.split()}
        inputs, sums, outputs = (graph[graph["kind"] == kind] for kind in ("input", "sum", "output"))
        place = {name: (0.0, -float(y)) for y, name in enumerate(inputs["name"])}
        for row in sums.itertuples():
            parts = [place[part[1:]] for part in row.parts.split()]
            x = 1 + max(x for x, _ in parts)
            y = (
                float(np.mean([y for _, y in parts])) + 0.35 + 0.15 * x
            )  # between the inputs, where lines to the outputs pass
            while any(at == x and abs(y - other) < 1 for at, other in place.values()):
                y -= 0.25
            place[row.name] = (x, y)
        last = 1 + max(x for x, _ in place.values())
        for row, y in zip(outputs.itertuples(), np.linspace(-0.2, -0.7, len(outputs)) * len(inputs), strict=True):
            place[row.name] = (last, float(y))
        for row in (*sums.itertuples(), *outputs.itertuples()):
            for part in row.parts.split():
                line = {"linestyle": "--" if part[0] == "-" else "-", "color": color, "linewidth": 0.8, "zorder": 1}
                axis.plot(*zip(place[part[1:]], place[row.name], strict=True), **line)
        for row in graph.itertuples():
            x, y = place[row.name]
            dark = row.kind != "input" or row.name in used
            circle = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": color if dark else "0.8"}
            text = "+".join(row.name) if row.kind == "sum" else row.name
            box = circle if row.kind == "input" else circle | {"boxstyle": "round,pad=0.3"}
            axis.text(x, y, text, ha="center", va="center", fontsize=7, color="black" if dark else "0.7", bbox=box)
        axis.set_xlim(-0.4, last + 0.5)
        axis.set_ylim(-len(inputs) + 0.3, 0.7)
        axis.axis("off")
        codes = "\n".join(f"{row.name}:  {row.codes}".replace("-", "\N{MINUS SIGN}") for row in outputs.itertuples())
        axis.set_title(f"{STYLE[scheme].label}: {graph['adds'].iloc[0]} adds\n{codes}")
    return figure


_WAYS = (
    ("sparse", "table", "table, zeros kept", "table, rewritten", "table, signed"),
    ("dataflow", "dataflow, zeros kept", "dataflow, rewritten"),
)


@_figure
def fig_operations(table: DataFrame, channels: int = 0) -> Figure:
    """Arithmetic reduction of the [3, 3, channels, channels] layers of `operations_table`, by way and scheme.

    `channels` = 0 takes the largest. Bars are means over layers and runs. Hollow diamonds are the paper's values, on
    the ways that keep -1 and +1 apart, as the paper does; whether it skips zeros there it does not say.
    """
    square = (table["R"] == 3) & (table["S"] == 3) & (table["K"] == table["C"])
    channels = channels or int(table.loc[square, "C"].max() if square.any() else 0)
    square &= table["C"] == channels
    if not square.any():
        sizes = sorted({f"[{row.R}, {row.S}, {row.C}, {row.K}]" for row in table.itertuples()})
        raise ValueError(f"no [3, 3, {channels}, {channels}] layer in the table; allowed: {', '.join(sizes)}")
    means = table[square].groupby(["way", "scheme"])[["reduction", "paper"]].mean()
    schemes = _schemes(means.index.get_level_values("scheme"))
    found = set(means.index.get_level_values("way"))
    panels = [[way for way in ways if way in found] for ways in _WAYS if found & set(ways)]
    figure, axes = plt.subplots(len(panels), 1, figsize=(PAGE, 0.5 + 1.5 * len(panels)), sharey=True, squeeze=False)
    top, labelled, widest = means["reduction"].max(), set(), 0.0
    for axis, ways in zip(axes[:, 0], panels, strict=True):
        place, centres = 0.0, []
        for way in ways:
            start = place
            for scheme in schemes:
                if (way, scheme) not in means.index:
                    continue
                look, (value, paper) = STYLE[scheme], means.loc[way, scheme]
                label = None if scheme in labelled else look.label
                labelled.add(scheme)
                axis.bar(place, value, 0.85, color=look.color, hatch=look.hatch, edgecolor="white", label=label)
                above = np.fmax(value, paper + 0.05 * top)
                axis.text(place, above, f"{value:.1f}", ha="center", va="bottom", fontsize=6.5)
                if paper == paper:
                    label = None if "paper" in labelled else "paper"
                    labelled.add("paper")
                    axis.plot(place, paper, "D", color="black", markerfacecolor="white", markersize=4.5, label=label)
                place += 1
            centres.append((start + place - 1) / 2)
            place += 0.8
        axis.set_xticks(centres, [way.replace(", ", ",\n") for way in ways])
        widest = max(widest, place)
        axis.tick_params(axis="x", length=0)
    for axis in axes[:, 0]:
        axis.set_xlim(-0.7, widest - 1.1)
    figure.supylabel(f"arithmetic reduction, [3, 3, {channels}, {channels}]", fontsize=8)
    figure.legend(loc="outside upper center", ncols=len(labelled))
    return figure


_ENCODING_LINES = {"two_group": "-", "rewritten": "--", "signed": ":"}


@_figure
def fig_tradeoff(table: DataFrame) -> Figure:
    """Operations and latency against density of `tradeoff_table`, one column per algorithm.

    Binary has one density: a horizontal line per encoding. Thin dashed: the entropy of a scheme's codes times the
    panel's one constant. Star: where a scheme costs least; ring: where it needs the fewest operations per bit.
    """
    algorithms = list(dict.fromkeys(table["algorithm"]))
    schemes = [scheme for scheme in _schemes(table["scheme"]) if scheme != "binary"]
    figure, axes = plt.subplots(2, len(algorithms), figsize=(PAGE, 3.9), sharex=True, squeeze=False)
    panels = (
        ("operations_per_weight", "predicted_operations", "fewest", "operations per weight"),
        ("median_ms", "predicted_ms", "fastest", "latency, ms"),
    )
    for column, algorithm in enumerate(algorithms):
        rows = table[table["algorithm"] == algorithm]
        for axis, (cost, predicted, least, name) in zip(axes[:, column], panels, strict=True):
            for scheme in schemes:
                look = STYLE[scheme]
                line = rows[rows["scheme"] == scheme].sort_values("density")
                axis.plot(line["density"], line[cost], look.marker, color=look.color, linestyle="-", markersize=2.5)
                axis.plot(line["density"], line[predicted], color=look.color, linestyle=(0, (4, 2)), linewidth=0.6)
                best, bit = line[line[least]], line[line["cheapest_bit"]]
                axis.plot(best["density"], best[cost], "*", color=look.color, markersize=8, zorder=4)
                if cost == "operations_per_weight":
                    axis.plot(bit["density"], bit[cost], "o", color=look.color, markerfacecolor="none", markersize=10)
            for row in rows[rows["scheme"] == "binary"].itertuples():
                style = _ENCODING_LINES[row.encoding]
                axis.axhline(getattr(row, cost), color=STYLE["binary"].color, linestyle=style, linewidth=0.9)
            axis.set_ylim(0, rows[[cost, predicted]].max().max() * 1.08)
            axis.set_xlim(0, 1)
            axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            if column == 0:
                axis.set_ylabel(name)
        axes[0, column].set_title(algorithm)
    shown = set(table.loc[table["scheme"] == "binary", "encoding"])
    handles = [Line2D([], [], color=STYLE[s].color, marker=STYLE[s].marker, label=STYLE[s].label) for s in schemes]
    handles += [
        Line2D([], [], color=STYLE["binary"].color, linestyle=style, label=f"binary, {encoding.replace('_', ' ')}")
        for encoding, style in _ENCODING_LINES.items()
        if encoding in shown
    ]
    handles.append(Line2D([], [], color="0.4", linestyle=(0, (4, 2)), linewidth=0.6, label="entropy, scaled"))
    marks = {"color": "0.4", "linestyle": "", "markersize": 8}
    handles.append(Line2D([], [], label="least cost", marker="*", **marks))
    handles.append(Line2D([], [], label="least cost per bit", marker="o", markerfacecolor="none", **marks))
    figure.supxlabel(f"density (non-zero fraction) of {table['layer'].iloc[0]}", fontsize=8)
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


# Speed

_KINDS = {
    "fp32": "full precision",
    "int8": "8-bit integers",
    "sparse": "sparse",
    "table": "table",
    "dataflow": "dataflow",
}
_NAMES = 2.0  # inches that the names of contenders take
_ABOVE_LINES = {"facecolor": "white", "linewidth": 0, "pad": 0.3, "alpha": 0.8}  # of a text that a line may cross
_PRODUCTS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def _kind(row) -> str:
    return row.contender if row.contender in _KINDS else row.precision


def _contender_look(row) -> Style:
    """Colour, marker and hatch: grey for what is not ours, else the scheme's."""
    if row.scheme:
        return STYLE[row.scheme]
    return STYLE["full_precision"]._replace(color="#4d4d4d" if row.precision == "fp32" else "#9a9a9a")


def _contender_name(label: str, kind: str) -> str:
    """A contender's name below the heading of its kind: its scheme and what is special about it."""
    for key, name in _PRODUCTS.items():
        label = label.replace(f"{key} fp32", name).replace(f"{key} int8", name)
    for scheme, look in STYLE.items():
        label = label.replace(scheme, look.label)
    return label.removeprefix(f"{kind} ")


def _contender_rows(axis: Axes, table: DataFrame) -> dict[str, int]:
    """Label the y axis with the table's contenders below a bold heading per kind; the place of each label."""
    first = table.drop_duplicates("label")
    places, names, headings = {}, {}, []
    y = 0
    for kind, heading in _KINDS.items():
        rows = [row for row in first.itertuples() if _kind(row) == kind]
        if rows:
            names[y] = heading
            headings.append(y)
            y -= 1
        for row in rows:
            places[row.label], names[y] = y, _contender_name(row.label, kind)
            y -= 1
    axis.set_yticks(list(names), list(names.values()))
    for tick, text in zip(names, axis.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if tick in headings else "normal")
    axis.set_ylim(y + 0.4, 0.6)
    return places


def _one_benchmark(table: DataFrame) -> None:
    if len(names := table["name"].unique()) != 1:
        raise ValueError(f"the figure draws one benchmark; the table holds {', '.join(names)}")


def _bars(
    axis: Axes, rows: DataFrame, places: dict[str, int], value: str, spread: str, texts: list[str], width: float
) -> None:
    """A bar per row with its spread and a text behind it, a dotted line at the best fp32 contender, whose text is bold.

    Variants of a contender that is there too (their label says more after a comma) are lighter. `width` is that of the
    axis, inches.
    """
    labels = set(rows["label"])
    variants = {label for label in labels if ", " in label and label.partition(", ")[0] in labels}
    widest = (rows[value] + rows[spread] / 2).max()
    for row, text in zip(rows.itertuples(), texts, strict=True):
        y, length, half = places[row.label], getattr(row, value), getattr(row, spread) / 2
        look = _contender_look(row)
        shade = {"color": look.color, "hatch": look.hatch, "alpha": 0.5 if row.label in variants else 1.0}
        axis.barh(y, length, 0.8, edgecolor="white", linewidth=0.3, **shade)
        axis.plot([max(length - half, 0), length + half], [y, y], color="black", linewidth=0.8)
        axis.annotate(
            f"{text}{'*' if row.flagged else ''}",
            (length + half, y),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
            fontweight="bold" if row.reference_fp32 else "normal",
            bbox=_ABOVE_LINES,
        )
    axis.axvline(rows.loc[rows["reference_fp32"], value].iloc[0], color="black", linewidth=0.7, linestyle=":")
    longest = 5 + 4 * max(map(len, texts))  # points, a character of 6 points being about 4 wide
    axis.set_xlim(0, widest / (1 - longest / (72 * width)))
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.tick_params(axis="y", length=0)


def _noisy(table: DataFrame) -> str:
    return "; *: spread above 10 %" if table["flagged"].any() else ""


@_figure
def fig_latency(table: DataFrame) -> Figure:
    """Latency of each contender of `speed_table`, one panel per layer, a line at the best fp32 contender.

    Whiskers are as wide as the interquartile range. A star marks timings whose range is above 10 % of the median.
    """
    _one_benchmark(table)
    layers = list(dict.fromkeys(table["layer"]))
    rows = table["label"].nunique() + len({_kind(row) for row in table.itertuples()})
    figure, axes = plt.subplots(1, len(layers), figsize=(PAGE, 0.75 + 0.165 * rows), sharey=True, squeeze=False)
    places = _contender_rows(axes[0, 0], table)
    for axis, layer in zip(axes[0], layers, strict=True):
        timings = table[table["layer"] == layer]
        texts = [f"{ms:.3g}" for ms in timings["median_ms"]]
        _bars(axis, timings, places, "median_ms", "iqr_ms", texts, (PAGE - _NAMES) / len(layers))
        axis.set_title(layer)
    figure.supxlabel(f"latency, ms (dotted, bold: best fp32{_noisy(table)})", fontsize=8)
    return figure


@_figure
def fig_network(table: DataFrame) -> Figure:
    """Milliseconds per image of whole networks of `network_table`, one panel per network and batch.

    Behind each bar its speed over the best fp32 contender, at which the line stands. Whiskers are as wide as the
    interquartile range. A star marks timings whose range is above 10 % of the median.
    """
    panels = list(dict.fromkeys(zip(table["model"], table["batch"], strict=True)))
    rows = table["label"].nunique() + len({_kind(row) for row in table.itertuples()})
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE, 0.75 + 0.19 * rows), sharey=True, squeeze=False)
    places = _contender_rows(axes[0, 0], table)
    for axis, (model, batch) in zip(axes[0], panels, strict=True):
        timings = table[(table["model"] == model) & (table["batch"] == batch)]
        texts = [f"{row.ms_per_image:.3g} ({row.speedup:.2g}×)" for row in timings.itertuples()]
        _bars(axis, timings, places, "ms_per_image", "iqr_ms_per_image", texts, (PAGE - _NAMES) / len(panels))
        axis.set_title(f"{model}, batch {batch}")
    figure.supxlabel(f"latency per image, ms (dotted, bold: best fp32; ×: speed over it{_noisy(table)})", fontsize=8)
    return figure


@_figure
def fig_speedup(table: DataFrame) -> Figure:
    """Speed of each contender of `speedup_table`, one panel per reference, log axis, 1 being equal.

    Small markers: each layer. Large: the sum of all layers, with its 95 % interval over rounds. Bar: geometric mean of
    the layers.
    """
    _one_benchmark(table)
    table = table[(table["contender"] != "torch")]
    if table.empty:
        raise ValueError("fig_speedup needs a contender besides torch")
    panels = list(dict.fromkeys(table["over"]))
    summed = ("all", "geometric mean")
    rows = table["label"].nunique() + len({_kind(row) for row in table.itertuples()})
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE, 0.8 + 0.165 * rows), sharey=True, squeeze=False)
    places = _contender_rows(axes[0, 0], table)
    for axis, over in zip(axes[0], panels, strict=True):
        axis.set_xscale("log")
        axis.axvline(1, color="black", linewidth=0.7)
        for label, speeds in table[table["over"] == over].groupby("label", sort=False):
            y, look = places[label], _contender_look(speeds.iloc[0])
            layers = speeds.loc[~speeds["layer"].isin(summed), "speedup"]
            axis.plot(layers, [y] * len(layers), look.marker, color=look.color, markersize=2.5, alpha=0.45)
            for total in speeds[speeds["layer"] == "all"].itertuples():  # none of a contender that lacks a layer
                ends = [total.speedup - total.speedup_half_width, total.speedup + total.speedup_half_width]
                axis.plot(ends, [y, y], color=look.color)  # nothing where n = 1 leaves the interval open
                axis.plot(total.speedup, y, look.marker, color=look.color, markersize=5)
            mean = speeds.loc[speeds["layer"] == "geometric mean", "speedup"]
            axis.plot(mean, [y] * len(mean), "|", color="black", markersize=7)
        low, high = axis.get_xlim()
        _plain_log(axis.xaxis, low, high)
        axis.set_title(f"speed over {over}")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
    figure.supxlabel("times as fast (small: each layer; large: sum of layers; bar: geometric mean)", fontsize=8)
    return figure


@_figure
def fig_roofline(table: DataFrame) -> Figure:
    """Throughput of `roofline_table` per layer: bars as measured, hollow caps what table's loads and adds allow.

    Above a bar the fraction of its bound that it reaches. The line is the machine's peak of fp32 multiply-accumulates.
    """
    _one_benchmark(table)
    layers = list(dict.fromkeys(table["layer"]))
    order = ["", *_schemes(scheme for scheme in table["scheme"] if scheme)]
    figure, axis = plt.subplots(figsize=(PAGE, 2.9))
    top = np.nanmax(table[["gmacs", "bound_gmacs", "fma_gmacs"]])
    for place, layer in enumerate(layers):
        rows = table[table["layer"] == layer].set_index("scheme", drop=False)
        for index, row in enumerate(rows.loc[[scheme for scheme in order if scheme in rows.index]].itertuples()):
            look = _contender_look(row)
            x = place * (len(order) + 1) + index
            label = (look.label if row.scheme else "best fp32") if place == 0 else None
            axis.bar(x, row.gmacs, 0.85, color=look.color, hatch=look.hatch, edgecolor="white", label=label)
            if row.bound_gmacs == row.bound_gmacs:
                axis.bar(x, row.bound_gmacs, 0.85, facecolor="none", edgecolor=look.color, linewidth=0.8)
                text = f"{row.fraction:.0%}".replace("%", " %")
                axis.text(x, row.gmacs + 0.015 * top, text, ha="center", va="bottom", fontsize=6, bbox=_ABOVE_LINES)
    width = len(layers) * (len(order) + 1)
    peak = table["fma_gmacs"].iloc[0]
    axis.plot([-1, width - 1], [peak, peak], color="black", linewidth=0.8, linestyle="--", label="fp32 peak (FMA)")
    axis.bar(0, 0, facecolor="none", edgecolor="0.4", linewidth=0.8, label="bound of table")
    axis.set_xticks([place * (len(order) + 1) + (len(order) - 1) / 2 for place in range(len(layers))], layers)
    axis.set_xlim(-1, width - 1)
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("dense-equivalent GMAC/s")
    figure.legend(loc="outside upper center", ncols=4)
    return figure
