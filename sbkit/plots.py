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

PAPER_REDUCTION = {"binary": 5.3, "signed_binary": 6.65, "ternary_twn": 4.52}
"""The paper's arithmetic reductions of a [3,3,64,64] layer (Fig. 11 and the authors' replies)."""


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


_WAYS = ("sparse", "table", "table, zeros kept", "table, rewritten")


@_figure
def fig_operations(table: DataFrame, channels: int = 0) -> Figure:
    """Arithmetic reduction of the [3, 3, channels, channels] layers of `operations_table`, by way and scheme.

    `channels` = 0 takes the largest. Bars are means over layers and runs. Hollow diamonds are the paper's values of a
    [3,3,64,64] layer.
    """
    square = (table["R"] == 3) & (table["S"] == 3) & (table["K"] == table["C"])
    channels = channels or int(table.loc[square, "C"].max() if square.any() else 0)
    square &= table["C"] == channels
    if not square.any():
        sizes = sorted({f"[{row.R}, {row.S}, {row.C}, {row.K}]" for row in table.itertuples()})
        raise ValueError(f"no [3, 3, {channels}, {channels}] layer in the table; allowed: {', '.join(sizes)}")
    means = table[square].groupby(["way", "scheme"])["reduction"].mean()
    schemes = _schemes(means.index.get_level_values("scheme"))
    ways = [way for way in _WAYS if way in means.index.get_level_values("way")]
    figure, axis = plt.subplots(figsize=(PAGE, 2.3))
    place, centres, named = 0.0, [], set()
    for way in ways:
        start = place
        for scheme in schemes:
            if (way, scheme) not in means.index:
                continue
            look, value = STYLE[scheme], means[way, scheme]
            label = None if scheme in named else look.label
            named.add(scheme)
            axis.bar(place, value, 0.85, color=look.color, hatch=look.hatch, edgecolor="white", label=label)
            axis.text(place, value, f"{value:.1f}", ha="center", va="bottom", fontsize=6.5)
            if way == "table" and channels == 64 and scheme in PAPER_REDUCTION:
                axis.plot(place, PAPER_REDUCTION[scheme], "D", color="black", markerfacecolor="white", markersize=4.5)
            place += 1
        centres.append((start + place - 1) / 2)
        place += 0.8
    if channels == 64:
        axis.plot([], [], "D", color="black", markerfacecolor="white", markersize=4.5, label="paper (SumMerge)")
    axis.set_xticks(centres, [way.replace(", ", ",\n") for way in ways])
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel(f"arithmetic reduction,\n[3, 3, {channels}, {channels}]")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# Speed


def _contender_style(row) -> dict[str, Any]:
    """Bar style of a contender: grey for torch, the scheme's own colour else; variants of one scheme get lighter."""
    if row.contender == "torch":
        return {"color": "#4d4d4d" if "contiguous" in row.label else "#9a9a9a", "hatch": ""}
    look = STYLE[row.scheme]
    lighter = row.contender == "sparse" or row.encoding == "rewritten" or not row.skip_zeros
    return {"color": look.color, "hatch": look.hatch, "alpha": 0.5 if lighter else 1.0}


def _contender_name(label: str) -> str:
    for scheme, look in STYLE.items():
        label = label.replace(scheme, look.label)
    return label


def _one_benchmark(table: DataFrame) -> None:
    if len(names := table["name"].unique()) != 1:
        raise ValueError(f"the figure draws one benchmark; the table holds {', '.join(names)}")


@_figure
def fig_latency(table: DataFrame) -> Figure:
    """Latency of each contender of `speed_table`, one panel per layer, a line at the best fp32 torch.

    Whiskers are as wide as the interquartile range. A star marks timings whose range is above 10 % of the median.
    """
    _one_benchmark(table)
    layers = list(dict.fromkeys(table["layer"]))
    labels = list(dict.fromkeys(table["label"]))
    figure, axes = plt.subplots(1, len(layers), figsize=(PAGE, 0.75 + 0.19 * len(labels)), sharey=True, squeeze=False)
    for axis, layer in zip(axes[0], layers, strict=True):
        rows = table[table["layer"] == layer]
        widest = (rows["median_ms"] + rows["iqr_ms"] / 2).max()
        for row in rows.itertuples():
            y = -labels.index(row.label)
            axis.barh(y, row.median_ms, 0.8, edgecolor="white", linewidth=0.3, **_contender_style(row))
            half = row.iqr_ms / 2
            axis.plot([max(row.median_ms - half, 0), row.median_ms + half], [y, y], color="black", linewidth=0.8)
            text = f" {row.median_ms:.3g}{'*' if row.flagged else ''}"
            axis.text(row.median_ms + half, y, text, va="center", fontsize=6)
        best = rows.loc[rows["reference"], "median_ms"].iloc[0]
        axis.axvline(best, color="black", linewidth=0.7, linestyle=":")
        axis.set_xlim(0, widest * 1.45)
        axis.set_title(layer)
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks([-i for i in range(len(labels))], [_contender_name(label) for label in labels])
    noisy = "; *: spread above 10 %" if table["flagged"].any() else ""
    figure.supxlabel(f"latency, ms (dotted: best fp32 torch{noisy})", fontsize=8)
    return figure


@_figure
def fig_speedup(table: DataFrame) -> Figure:
    """Speed of each contender of `speedup_table` over the best fp32 torch, log axis, 1 being equal.

    Small markers: each layer. Large: the sum of all layers, with its 95 % interval over rounds.
    """
    _one_benchmark(table)
    labels = [label for label in dict.fromkeys(table["label"]) if not label.startswith("torch")]
    if not labels:
        raise ValueError("fig_speedup needs a contender besides torch")
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != "all"]
    figure, axis = plt.subplots(figsize=(COLUMN, 0.8 + 0.27 * len(labels)))
    axis.set_xscale("log")
    axis.axvline(1, color="black", linewidth=0.7)
    for y, label in enumerate(reversed(labels)):
        rows = table[table["label"] == label].set_index("layer")
        look = STYLE[rows["scheme"].iloc[0]]
        axis.plot(
            rows.loc[layers, "speedup"], [y] * len(layers), look.marker, color=look.color, markersize=3, alpha=0.45
        )
        total = rows.loc["all"]
        if total["speedup_half_width"] == total["speedup_half_width"]:
            ends = [total["speedup"] - total["speedup_half_width"], total["speedup"] + total["speedup_half_width"]]
            axis.plot(ends, [y, y], color=look.color)
        axis.plot(total["speedup"], y, look.marker, color=look.color, markersize=6)
    low, high = axis.get_xlim()
    _plain_log(axis.xaxis, low, high)
    axis.set_yticks(range(len(labels)), [_contender_name(label) for label in labels[::-1]])
    axis.set_ylim(-0.6, len(labels) - 0.4)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)
    figure.supxlabel("speed over best fp32 torch (large: all layers)", fontsize=8)
    return figure
