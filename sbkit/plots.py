"""Tables into figures: `fig_<stem>(table)` returns a matplotlib Figure of a table of `sbkit.analysis`. Opens no file.

One scheme has one colour, marker and hatch in every figure; colours are those of seaborn's colour-blind safe palette.
Values of the paper are hollow markers. Sizes are those of a paper's column (3.25 in) or page (6.75 in) at 8 points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from pandas import DataFrame

COLUMN = 3.25  # inches
PAGE = 6.75  # inches


class Style(NamedTuple):
    color: str
    marker: str
    hatch: str
    label: str


STYLE: dict[str, Style] = {
    "full_precision": Style("#4d4d4d", "P", "", "full precision"),
    "binary": Style("#0173b2", "s", "///", "binary"),
    "ternary_twn": Style("#029e73", "^", "\\\\\\", "ternary (TWN)"),
    "ternary_ttq": Style("#56b4e9", "v", "xxx", "ternary (TTQ)"),
    "zero_one": Style("#de8f05", "D", "...", "{0,1}"),
    "signed_binary": Style("#cc78bc", "o", "", "signed binary"),
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
    """Positions moved as little as possible (least squares) to be `gap` apart, their order kept.

    Isotonic regression of the positions less their place in a row: neighbours out of order are pooled to their mean.
    """
    order = np.argsort(positions, kind="stable")
    grid = gap * np.arange(len(order))
    pools: list[list[float]] = []
    for value in np.asarray(positions, float)[order] - grid:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    moved = np.empty(len(order))
    moved[order] = np.concatenate([[np.mean(pool)] * len(pool) for pool in pools] or [[]]) + grid
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
    """Paired top-1 differences of `ablation_table` with their 95 % intervals, by question and best first.

    The line at 0 is the baseline.
    """
    names, headings, places, y = {}, [], {}, 0
    for question, rows in table.groupby("question", sort=False):
        names[y] = question
        headings.append(y)
        for row in rows.itertuples():
            y -= 1
            places[row.label], names[y] = y, f"{_name(row.label)} (n={row.n})"
        y -= 1.3
    figure, axis = plt.subplots(figsize=(PAGE, 0.55 + 0.165 * -y))
    for row in table.itertuples():
        look, mean, half_width = STYLE[row.quantizer], row.difference_mean_points, row.difference_half_width_points
        if half_width == half_width:
            axis.plot([mean - half_width, mean + half_width], [places[row.label]] * 2, color=look.color)
        axis.plot(mean, places[row.label], look.marker, color=look.color)
    axis.set_yticks(list(names), list(names.values()))
    for tick, text in zip(names, axis.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if tick in headings else "normal")
    axis.set_ylim(y + 0.7, 0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)
    _points_axis(axis)
    axis.set_xlabel(f"top-1 over {_name(table['baseline'].iloc[0])}, points")
    return figure


def _points_axis(axis: Axes) -> None:
    """Differences of accuracy on x: linear within 2 points of the line at 0, lest one collapse squeeze the rest."""
    axis.set_xscale("symlog", linthresh=2, linscale=1.5)
    axis.axvline(0, color="black", linewidth=0.7)
    low, high = axis.get_xlim()
    places = [place for place in (-50, -10, -2, -1, 0, 1, 2, 10, 50) if low <= place <= high]
    axis.set_xticks(places, [f"{place:+d}" if place else "0" for place in places])
    axis.xaxis.set_minor_locator(NullLocator())


def _make_room(axis: Axes, ticks: int, room: float, most: float) -> float:
    """Widen x, from 0 to `most`, to the right by `room` times its range, for names; returns where they begin."""
    low, high = axis.get_xlim()
    low = max(low, 0)
    axis.xaxis.set_major_locator(MaxNLocator(ticks))
    places = [place for place in axis.get_xticks() if low <= place <= min(high, most)]
    axis.set_xlim(low, high + room * (high - low))
    axis.set_xticks(places, [f"{place:g}" for place in places])
    return high + 0.06 * (high - low)


def _label_points(axis: Axes, names: list[str], colors: list[str], x: np.ndarray, y: np.ndarray, at: float) -> None:
    """A name for every point, on a leader in a column that begins at x = `at`, moved apart where names would overlap.

    The x axis is drawn up to there.
    """
    axis.spines["bottom"].set_bounds(axis.get_xlim()[0], at)
    bottom, top = axis.get_ylim()
    gap = (top - bottom) * 0.16 * axis.get_gridspec().nrows / axis.figure.get_figheight()
    heights = _spread(y, gap)
    axis.set_ylim(min(bottom, heights.min() - gap / 2), max(top, heights.max() + gap / 2))
    line = {"relpos": (0, 0.5), "arrowstyle": "-", "color": "0.85", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3}
    for name, color, *point, height in zip(names, colors, x, y, heights, strict=True):
        axis.annotate(
            name, point, (at, height), textcoords="data", fontsize=7, va="center", color=color, arrowprops=line
        )


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
    axis.set_ylim(max(axis.get_ylim()[0], 0), min(axis.get_ylim()[1], 100))
    colors = [STYLE[scheme].color for scheme in table["quantizer"]]
    x, y = (table[name].to_numpy() for name in ("effectual_weights", "top1_mean_percent"))
    _label_points(axis, list(map(_name, table["label"])), colors, x, y, high * 1.3)
    return figure


@_figure
def fig_pareto_published(table: DataFrame) -> Figure:
    """Published accuracies of `anchors_table` against effectual weights, one panel per data set, all hollow.

    An arrow to the left: the source states no density, and the point is the most weights that can be effectual.
    """
    data = list(dict.fromkeys(table["data"]))
    _schemes(table["scheme"])
    rows = table["data"].value_counts().max()
    figure, axes = plt.subplots(1, len(data), figsize=(PAGE, max(2.4, 0.8 + 0.16 * rows)), squeeze=False)
    for axis, name in zip(axes[0], data, strict=True):
        points = table[table["data"] == name]
        axis.set_xscale("log")
        low, high = points["effectual_weights"].min() / 1.4, points["effectual_weights"].max()
        for row in points.itertuples():
            look = STYLE[row.scheme]
            if row.bound:
                axis.annotate(
                    "",
                    (row.effectual_weights / 1.25, row.top1_percent),
                    (row.effectual_weights, row.top1_percent),
                    arrowprops={"arrowstyle": "->", "color": look.color, "linewidth": 0.8},
                )
            hollow = {"markerfacecolor": "white", "markeredgewidth": 1.2, "markersize": 5}
            axis.plot(row.effectual_weights, row.top1_percent, look.marker, color=look.color, **hollow)
        names = [f"{row.method}, {row.network.replace('resnet', 'ResNet-')}" for row in points.itertuples()]
        colors = [STYLE[scheme].color for scheme in points["scheme"]]
        axis.margins(y=0.12)
        at = high * (high / low) ** 0.2
        axis.set_xlim(low, at * (at / low) ** 1.6)  # as much room for names as for points
        _plain_log(axis.xaxis, low, high * 1.02)
        x, y = (points[column].to_numpy() for column in ("effectual_weights", "top1_percent"))
        _label_points(axis, names, colors, x, y, at)
        axis.set_title(name)
    axes[0, 0].set_ylabel("top-1 accuracy, %")
    figure.supxlabel("effectual weights of the quantized layers (published: no run of this profile)", fontsize=8)
    shown = [
        Line2D(
            [],
            [],
            color=STYLE[s].color,
            marker=STYLE[s].marker,
            linestyle="",
            label=STYLE[s].label,
            markerfacecolor="white",
            markeredgewidth=1.2,
        )
        for s in _schemes(table["scheme"])
    ]
    figure.legend(handles=shown, loc="outside upper center", ncols=len(shown))
    return figure


@_figure
def fig_density_accuracy(table: DataFrame) -> Figure:
    """Top-1 against density of `density_accuracy_table`, a panel per family, every point labelled."""
    families = list(dict.fromkeys(table["family"]))
    most = table["family"].value_counts().max()
    wide = min(2, len(families))
    tall = -(-len(families) // wide)
    size = (PAGE if wide > 1 else COLUMN, 0.3 + tall * max(1.7, 0.6 + 0.16 * most))
    figure, axes = plt.subplots(tall, wide, figsize=size, squeeze=False)
    for axis in axes.flat[len(families) :]:
        axis.set_axis_off()
    for axis, family in zip(axes.flat, families, strict=False):
        rows = table[table["family"] == family]
        for row in rows.itertuples():
            look = STYLE[row.quantizer]
            widths = {"xerr": row.density_half_width, "yerr": row.top1_half_width_percent}
            widths = {name: width for name, width in widths.items() if width == width}
            axis.errorbar(
                row.density, row.top1_mean_percent, fmt=look.marker, color=look.color, elinewidth=0.6, **widths
            )
        axis.set_title(family)
        at = _make_room(axis, ticks=3, room=0.8, most=1)
        names = [_name(label) for label in rows["label"]]
        colors = [STYLE[scheme].color for scheme in rows["quantizer"]]
        x, y = (rows[name].to_numpy() for name in ("density", "top1_mean_percent"))
        _label_points(axis, names, colors, x, y, at)
    for axis in axes[:, 0]:
        axis.set_ylabel("top-1 accuracy, %")
    figure.supxlabel("density (non-zero fraction)", fontsize=8)
    return figure


@_figure
def fig_codebooks(table: DataFrame) -> Figure:
    """Accuracy of `codebook_table`, as a difference to binary, against bits a weight and, where timed, latency.

    Designs are circles, the darker the more channels a region has; binary and the paper's design look as everywhere.
    """
    costs = {"weight_bits": "stored bits a weight", "time": "latency, binary = 1"}
    costs = {column: name for column, name in costs.items() if table[column].notna().any()}
    size = (PAGE if len(costs) > 1 else COLUMN, max(2.4, 0.7 + 0.16 * len(table)))
    figure, axes = plt.subplots(1, len(costs), figsize=size, squeeze=False, sharey=True)
    most = max(table["channels"].max(), 1)
    colors, names = [], []
    for row in table.itertuples():
        look = STYLE[row.quantizer]
        colors.append(_tint(look.color, 0.55 + 0.45 * row.channels / most) if row.channels else look.color)
        names.append(f"{row.masks}, G = {row.channels}" if row.channels else look.label)
    for axis, (column, name) in zip(axes.flat, costs.items(), strict=True):
        shown = table[column].notna().to_numpy()
        for row, color in zip(table[shown].itertuples(), np.array(colors, object)[shown], strict=True):
            marker = "o" if row.channels else STYLE[row.quantizer].marker
            hollow = {} if row.channels or row.label == "binary" else {"markerfacecolor": "white"}
            error = {"xerr": row.time_half_width if column == "time" else 0, "yerr": row.difference_half_width_points}
            error = {name: width for name, width in error.items() if width > 0}  # NaN for one seed
            look = {"fmt": marker, "color": color, "elinewidth": 0.6, "zorder": 3}
            axis.errorbar(getattr(row, column), row.difference_mean_points, **look, **hollow, **error)
        axis.set_xlabel(name)
        axis.set_xlim(left=0)
        at = _make_room(axis, ticks=5, room=0.55, most=np.inf)
        axis.plot([0, at], [0, 0], color="black", linewidth=0.7, zorder=1)
        x, y = table.loc[shown, column].to_numpy(), table.loc[shown, "difference_mean_points"].to_numpy()
        _label_points(axis, list(np.array(names)[shown]), list(np.array(colors, object)[shown]), x, y, at)
    axes[0, 0].set_ylabel("top-1 minus binary's, points")
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
def fig_common_mode(table: DataFrame) -> Figure:
    """Top-1 against the leading share of `common_mode_table`: schemes by name, one option of them changed faint."""
    figure, axis = plt.subplots(figsize=(COLUMN, 2.6))
    named = ~table["label"].str.startswith(("ablate_", "review_"))
    for row, strong in zip(table.itertuples(), named, strict=True):
        look = STYLE[row.quantizer]
        faint = {} if strong else {"alpha": 0.35, "markeredgewidth": 0}
        axis.plot(100 * row.leading_share, row.top1_percent, look.marker, color=look.color, **faint)
    axis.set_xlabel("share of the first singular vector, %")
    axis.set_ylabel("top-1 accuracy, %")
    at = _make_room(axis, ticks=4, room=1.0, most=100)
    points = table[named]
    names, colors = [_name(label) for label in points["label"]], [STYLE[scheme].color for scheme in points["quantizer"]]
    x, y = 100 * points["leading_share"].to_numpy(), points["top1_percent"].to_numpy()
    _label_points(axis, names, colors, x, y, at)
    return figure


_LATENT_PANELS = (  # region, part, title
    ("positive", "all", "positive regions"),
    ("negative", "all", "negative regions"),
    ("both", "effectual", "both, effectual"),
    ("both", "ineffectual", "both, ineffectual"),
)
_FIT_LINES = {"gaussian": ("-", "Gaussian"), "laplacian": ("--", "Laplacian")}


@_figure
def fig_latent(table: DataFrame) -> Figure:
    """Latent weights of `latent_bins` with fitted Gaussian and Laplacian: one run's layers in rows.

    Columns: the regions of each sign, then both together, effectual and ineffectual weights apart. Filled: effectual.
    Numbers: the largest distance of either fit's distribution function from that of the weights.
    """
    if len(table[["label", "seed"]].drop_duplicates()) != 1:
        raise ValueError("fig_latent draws one run; allowed: a table with one label and seed")
    panels = table.set_index(["layer", "region", "part"]).sort_index()
    layers = list(dict.fromkeys(table["layer"]))
    color = STYLE[table["quantizer"].iloc[0]].color
    figure, axes = plt.subplots(
        len(layers), len(_LATENT_PANELS), figsize=(PAGE, 0.75 + 1.15 * len(layers)), squeeze=False, sharex="row"
    )
    for i, layer in enumerate(layers):
        for axis, (region, part, title) in zip(axes[i], _LATENT_PANELS, strict=True):
            if i == 0:
                axis.set_title(title)
            axis.set_yticks([])
            axis.axvline(0, color="0.8", linewidth=0.5, zorder=0)
            if (layer, region, part) not in panels.index:
                continue
            bins = panels.loc[(layer, region, part)]
            edges = np.append(bins["left"], bins["right"].iloc[-1])
            if part == "all" and (layer, region, "effectual") in panels.index:
                axis.stairs(panels.loc[(layer, region, "effectual"), "count"], edges, fill=True, color=color, alpha=0.6)
            axis.stairs(bins["count"], edges, fill=part == "effectual", color=color, alpha=0.6, linewidth=0.8)
            texts = []
            for family, (line, name) in _FIT_LINES.items():
                inner = bins[1:-1]  # the fits' outermost bins hold their tails
                middle = (inner["left"] + inner["right"]) / 2
                axis.plot(middle, inner[family], color="black", linestyle=line, linewidth=0.7)
                distance = (bins[family].cumsum() - bins["count"].cumsum()).abs().max() / bins["count"].sum()
                texts.append(f"{name[0]} {distance:.3f}")
            axis.text(0.02, 0.97, "\n".join(texts), fontsize=6, ha="left", va="top", transform=axis.transAxes)
            axis.xaxis.set_major_locator(MaxNLocator(3))
        axes[i, 0].set_ylabel(layer, fontsize=7)
    handles = [Line2D([], [], color="black", linestyle=line, linewidth=0.7, label=n) for line, n in _FIT_LINES.values()]
    handles.append(Patch(facecolor=color, alpha=0.6, label="effectual"))
    handles.append(Patch(facecolor="none", edgecolor=color, alpha=0.6, label="all weights, or ineffectual ones"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    figure.supxlabel("latent weight (number: distance of the fit, Kolmogorov-Smirnov)", fontsize=8)
    return figure


# Repetition


@_figure
def fig_unique_filters(table: DataFrame) -> Figure:
    """Distinct 3x3 filters of `origins_table` against all filters of the layer; dashed: how many a scheme can have.

    Solid: trained codes; dotted: random ones of the same density; hollow: the paper's. Points are means over layers of
    one size and over runs.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 2.9))
    axis.set_xscale("log")
    axis.set_yscale("log")
    low, high = table["filters"].min() / 1.5, table["filters"].max()
    bottom, top = table["unique"].min() / 1.5, max(table["bound"].max(), table["unique"].max()) * 2
    for bound, schemes in table.groupby("bound")["scheme"]:
        color = STYLE[_schemes(schemes)[0]].color
        axis.plot([low, high], [bound, bound], color=color, linewidth=0.6, linestyle="--", zorder=0)
        axis.text(low, bound, f"{bound:,}", fontsize=6.5, va="bottom", color=color)
    ends = []
    for scheme in _schemes(table["scheme"]):
        look, rows = STYLE[scheme], table[table["scheme"] == scheme]
        for codes, line in (("random", ":"), ("trained", "-")):
            means = rows[rows["codes"] == codes].groupby("filters")["unique"].mean()
            marker = look.marker if codes == "trained" else ""
            axis.plot(means.index, means, marker=marker, color=look.color, linestyle=line, linewidth=0.8)
            end = (look.color, means.iloc[-1])
        for paper in rows[rows["paper"].notna()].itertuples():
            axis.plot(paper.filters, paper.paper, "D", color="black", markerfacecolor="white", markersize=4.5)
        ends.append((scheme, *end))
    axis.plot([low, top], [low, top], color="0.8", linewidth=0.6, zorder=0)
    axis.text(top / 3, top / 3, "all different ", color="0.5", fontsize=6, ha="right", va="bottom")
    heights = 10 ** _spread(np.log10([y for *_, y in ends]), np.log10(top / bottom) * 0.06)
    last = table.loc[table["codes"] == "trained", "filters"].max()
    for (scheme, color, _), height in zip(ends, heights, strict=True):
        axis.annotate(
            _name(scheme), (last, height), xytext=(5, 0), textcoords="offset points", color=color, fontsize=7,
            va="center", bbox=_ABOVE_LINES,
        )  # fmt: skip
    axis.set_xlim(low, high * 1.25)
    axis.set_ylim(bottom, top)
    _plain_log(axis.xaxis, low, high)
    _plain_log(axis.yaxis, bottom, top)
    axis.set_xlabel("3x3 filters in the layer")
    axis.set_ylabel("distinct filters")
    handles = [
        Line2D([], [], color="0.4", linestyle=line, label=name) for line, name in (("-", "trained"), (":", "random"))
    ]
    handles.append(Line2D([], [], color="black", marker="D", markerfacecolor="white", linestyle="", label="paper"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
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
    height = max(0.5 + 1.5 * len(panels), 2.4)  # of one panel, what the label takes
    figure, axes = plt.subplots(len(panels), 1, figsize=(PAGE, height), sharey=True, squeeze=False)
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
_ENCODING_NAMES = {"two_group": "two groups", "rewritten": "rewritten", "signed": "signed"}


@_figure
def fig_reductions_layers(table: DataFrame, network: str = "") -> Figure:
    """Arithmetic reduction of every layer of a network (the first) of `layer_reductions`, a panel per algorithm.

    Lines: the encoding of the codes, thin where zeros are kept. Hollow: the paper's values, on the ways that keep -1
    and +1 apart; whether it skips zeros there it does not say.
    """
    networks = list(dict.fromkeys(table["network"]))
    network = network or networks[0]
    if network not in networks:
        raise ValueError(f"network = {network!r}; allowed: {', '.join(networks)}")
    table = table[(table["network"] == network) & (table["layer"] != "all")]
    layers = table.drop_duplicates("layer")
    places = {layer: place for place, layer in enumerate(layers["layer"])}
    algorithms = [algorithm for algorithm in ("dataflow", "table") if algorithm in set(table["algorithm"])]
    schemes = _schemes(table["scheme"])
    figure, axes = plt.subplots(
        len(algorithms), 1, figsize=(PAGE, 0.9 + 1.9 * len(algorithms)), sharex=True, sharey=True, squeeze=False
    )
    encodings, kept = set(), False
    for axis, algorithm in zip(axes[:, 0], algorithms, strict=True):
        of_algorithm = table[table["algorithm"] == algorithm]
        for scheme in schemes:
            look = STYLE[scheme]
            rows = of_algorithm[of_algorithm["scheme"] == scheme]
            for (encoding, skips), line in rows.groupby(["encoding", "skip_zeros"], sort=False):
                encodings.add(encoding)
                kept |= not skips
                width = {"linewidth": 1.2, "markersize": 4} if skips else {"linewidth": 0.5, "markersize": 2.5}
                x = [places[layer] for layer in line["layer"]]
                style = {"color": look.color, "marker": look.marker, "linestyle": _ENCODING_LINES[encoding]}
                axis.plot(x, line["reduction"], **style, **width)
            papers = rows[rows["paper"].notna() & rows["skip_zeros"]].drop_duplicates("layer")
            hollow = {"markerfacecolor": "white", "markeredgewidth": 1.2, "markersize": 6, "zorder": 4}
            x = [places[layer] for layer in papers["layer"]]
            axis.plot(x, papers["paper"], look.marker, color=look.color, **hollow)
        axis.set_title(algorithm)
        axis.set_ylim(0, table[["reduction", "paper"]].max().max() * 1.05)
        axis.grid(axis="y", color="0.9", linewidth=0.5)
    names = [f"{row.layer}\n×{row.count}" if row.count > 1 else row.layer for row in layers.itertuples()]
    axes[-1, 0].set_xticks(list(places.values()), names)
    figure.supylabel(f"arithmetic reduction, {network.replace('resnet', 'ResNet-')}", fontsize=8)
    handles = [Line2D([], [], color=STYLE[s].color, marker=STYLE[s].marker, label=STYLE[s].label) for s in schemes]
    handles += [
        Line2D([], [], color="0.4", linestyle=line, label=_ENCODING_NAMES[encoding])
        for encoding, line in _ENCODING_LINES.items()
        if encoding in encodings
    ]
    handles += [Line2D([], [], color="0.4", linewidth=0.5, label="zeros kept")] if kept else []
    hollow = {"marker": "o", "color": "black", "markerfacecolor": "white", "linestyle": ""}
    handles += [Line2D([], [], label="paper", **hollow)] if table["paper"].notna().any() else []
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


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
    "bf16": "bfloat16",
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
    return label.removeprefix(f"{kind} ").removesuffix(f" {kind}")


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
    table = table[(table["contender"] != "torch") | (table["precision"] != "fp32")]
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


# Accelerator model

_VARIANTS = {
    "dense": "every weight (dense)",
    "sparse": "effectual weights (sparse)",
    "repetition": "data-flow graphs (repetition)",
}
_ENERGY_PARTS = {"arithmetic": 1.0, "buffer": 0.62, "dram": 0.3, "static": 0.0}  # strength of the scheme's colour
_PAPER = {"marker": "D", "color": "black", "markerfacecolor": "white", "linestyle": "", "markersize": 4.5, "zorder": 4}


def _tint(color: str, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(color))


@_figure
def fig_energy(table: DataFrame) -> Figure:
    """Energy and throughput of a network of `energy_table`, by what the array exploits and by scheme.

    Energy is split into its parts, dark to light; behind each bar its ratio to binary in two groups. Full precision is
    left to the table: its bar would dwarf the others.
    """
    rows = table[(table["layer"] == "all") & (table["scheme"] != "full_precision")]
    order = _schemes(rows["scheme"])
    y, names, headings, places = 0, {}, [], []
    for variant, heading in _VARIANTS.items():
        of_variant = rows[rows["variant"] == variant]
        if len(of_variant):
            names[y] = heading
            headings.append(y)
            y -= 1
        for row in sorted(of_variant.itertuples(), key=lambda row: order.index(row.scheme)):
            names[y] = STYLE[row.scheme].label + ("" if row.encoding == "two_group" else f", {row.encoding}")
            places.append((y, row))
            y -= 1
    figure, (energy, speed) = plt.subplots(1, 2, figsize=(PAGE, 0.85 + 0.165 * len(names)), sharey=True)
    for y, row in places:
        color, left = STYLE[row.scheme].color, 0.0
        for part, strength in _ENERGY_PARTS.items():
            length = getattr(row, f"{part}_uj") / 1e3
            edge = {"edgecolor": "white" if strength else color, "linewidth": 0.3}
            energy.barh(y, length, 0.8, left=left, color=_tint(color, strength), **edge)
            left += length
        hatch = STYLE[row.scheme].hatch
        speed.barh(y, row.images_per_second, 0.8, color=color, hatch=hatch, edgecolor="white", linewidth=0.3)
        for axis, value, text, ratio in (
            (energy, left, f"{left:.2f}", row.energy_over_binary),
            (speed, row.images_per_second, f"{row.images_per_second:,.0f}", row.throughput_over_binary),
        ):
            text += "" if ratio != ratio else f" ({ratio:.2f}×)"
            axis.annotate(text, (value, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6)
    energy.set_yticks(list(names), list(names.values()))
    for tick, text in zip(names, energy.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if tick in headings else "normal")
    energy.set_ylim(min(names) - 0.6, 0.6)
    for axis, name in ((energy, "energy of an image, mJ"), (speed, "images a second")):
        axis.set_xlim(0, axis.dataLim.x1 * 1.33)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(name)
    grey = STYLE["full_precision"].color
    handles = [
        Patch(facecolor=_tint(grey, strength), edgecolor=grey, linewidth=0.3, label={"dram": "DRAM"}.get(part, part))
        for part, strength in _ENERGY_PARTS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


@_figure
def fig_energy_sensitivity(table: DataFrame) -> Figure:
    """How far each assumption of `sensitivity_table` moves the ratios of energy and throughput, most moving first.

    One scheme over another. Solid line: all base assumptions, which the names give in brackets; markers: what one
    alternative gives, the outermost named; dashed line and hollow marker: the paper's ratio.
    """
    if len(table[["scheme", "over"]].drop_duplicates()) != 1:
        raise ValueError("fig_energy_sensitivity draws one pair of schemes; allowed: a table with one scheme and over")
    assumptions = list(dict.fromkeys(table["assumption"]))
    look, over = STYLE[table["scheme"].iloc[0]], STYLE[table["over"].iloc[0]].label
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 0.85 + 0.19 * len(assumptions)), sharey=True)
    for axis, ratio in zip(axes, ("energy", "throughput"), strict=True):
        base = table.loc[table["base"], ratio].iloc[0]
        width = table[ratio].max() - table[ratio].min()
        for y, assumption in enumerate(assumptions):
            tried = table[(table["assumption"] == assumption) & ~table["base"]]
            low, high = min(tried[ratio].min(), base), max(tried[ratio].max(), base)
            axis.plot([low, high], [-y, -y], color=look.color, linewidth=4, alpha=0.35, solid_capstyle="butt")
            axis.plot(tried[ratio], [-y] * len(tried), look.marker, color=look.color, markersize=3.5)
            for outermost, side in ((low, "right"), (high, "left")):
                if abs(outermost - base) > 0.01 * width:
                    values = tried.loc[tried[ratio] == outermost, "value"]
                    shift = -5 if side == "right" else 5
                    axis.annotate(
                        values.iloc[0],
                        (outermost, -y),
                        xytext=(shift, 0),
                        textcoords="offset points",
                        ha=side,
                        va="center",
                        fontsize=6,
                        bbox=_ABOVE_LINES,
                    )
        axis.axvline(base, color=look.color, linewidth=0.8, zorder=0)
        paper = table[f"paper_{ratio}"].iloc[0]
        low, high = np.nanmin([*table[ratio], paper]), np.nanmax([*table[ratio], paper])
        axis.set_xlim(low - 0.28 * (high - low), high + 0.28 * (high - low))  # room for the names of the outermost
        if paper == paper:
            axis.axvline(paper, color="black", linestyle="--", linewidth=0.7, zorder=0)
            axis.plot(paper, 1, **_PAPER)
            left = paper > (low + high) / 2  # where there is room
            beside = {"xytext": (-6 if left else 6, 0), "ha": "right" if left else "left", "bbox": _ABOVE_LINES}
            axis.annotate(
                f"paper {paper:.2f}", (paper, 1), textcoords="offset points", va="center", fontsize=6.5, **beside
            )
        axis.set_ylim(-len(assumptions) + 0.4, 1.6)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(f"{ratio}, {over} = 1 (line: {base:.2f})")
    bases = table[table["base"]].set_index("assumption")["value"]
    axes[0].set_yticks(
        -np.arange(len(assumptions)), [f"{assumption} ({bases[assumption]})" for assumption in assumptions]
    )
    return figure


_ADVANTAGES = {
    "energy": "energy\nefficiency",
    "throughput": "throughput",
    "density": "sparsity,\n1 / density",
    "latency": "speed,\n1 / latency",
    "accuracy": "accuracy",
}


@_figure
def fig_radar(table: DataFrame) -> Figure:
    """Signed binary over binary in the quantities of `radar_table`: as a radar and as bars.

    The radar shows advantages, larger being better, binary the circle at 1, and of a quantity that has several sources
    the first as a corner and the others as marks. The bars show the ratios themselves with their 95 % intervals, on a
    log axis from 1. Hollow: the paper's values.
    """
    table = table[table["value"].notna()]
    if table.empty:
        raise ValueError("fig_radar got no value; there is nothing to draw")
    look, binary = STYLE["signed_binary"], STYLE["binary"]
    figure = plt.figure(figsize=(PAGE, 2.7))
    radar = figure.add_subplot(1, 2, 1, projection="polar")
    bars = figure.add_subplot(1, 2, 2)

    quantities = [quantity for quantity in _ADVANTAGES if quantity in set(table["quantity"])]
    angles = dict(zip(quantities, 2 * np.pi * np.arange(len(quantities)) / len(quantities), strict=True))
    advantage = {True: lambda ratio: ratio, False: lambda ratio: 1 / ratio}
    turn = np.linspace(0, 2 * np.pi, 200)
    radar.plot(turn, np.ones_like(turn), color=binary.color)
    corners = table.drop_duplicates("quantity").set_index("quantity").loc[quantities]
    for column, line in (
        ("value", {"color": look.color, "marker": look.marker}),
        ("paper", {"linewidth": 0.7} | _PAPER | {"linestyle": "--"}),
    ):
        sides = [advantage[row.higher_is_better](getattr(row, column)) for row in corners.itertuples()]
        # A side that is not known leaves a gap: a line past it would cut through other quantities.
        radar.plot([*angles.values(), 0], [*sides, sides[0]], **line)
        if column == "value":
            radar.fill(list(angles.values()), sides, color=look.color, alpha=0.15)
    for row in table[table["quantity"].duplicated()].itertuples():
        side = advantage[row.higher_is_better](row.value)
        radar.plot(angles[row.quantity], side, "X", color=look.color, markersize=5)
    radar.set_theta_offset(np.pi / 2)
    radar.set_theta_direction(-1)
    radar.set_xticks(list(angles.values()), [_ADVANTAGES[quantity] for quantity in quantities])
    radar.tick_params(axis="x", pad=9)
    radar.set_ylim(0, 1.06 * radar.dataLim.y1)
    radar.yaxis.set_major_locator(FixedLocator(range(1, int(radar.get_ylim()[1]) + 1)))
    radar.tick_params(axis="y", labelsize=6, labelcolor="0.4")
    radar.set_rlabel_position(180 / len(quantities))
    radar.grid(color="0.9", linewidth=0.5)
    radar.spines["polar"].set_visible(False)

    bars.set_xscale("log")
    for y, row in enumerate(table.itertuples()):
        bars.barh(-y, row.value - 1, 0.7, left=1, color=look.color)
        if row.half_width == row.half_width:
            ends = [row.value - row.half_width, row.value + row.half_width]
            bars.plot(ends, [-y, -y], color="black", linewidth=0.8)
        if row.paper == row.paper:
            bars.plot(row.paper, -y, **_PAPER)
        texts = f"{row.value:.2f}" + ("" if row.paper != row.paper else f"; paper {row.paper:.2f}")
        bars.text(1.02, -y, texts, transform=bars.get_yaxis_transform(), fontsize=6.5, va="center")
    bars.axvline(1, color=binary.color)
    bars.set_yticks(-np.arange(len(table)), [f"{row.quantity}\n({row.source})" for row in table.itertuples()])
    bars.tick_params(axis="y", length=0)
    low, high = np.nanmin(table[["value", "paper"]]), np.nanmax(table[["value", "paper"]])
    bars.set_xlim(min(low, 1) / 1.2, max(high, 1) * 1.2)
    _plain_log(bars.xaxis, min(low, 1) / 1.2, max(high, 1) * 1.2)
    bars.set_xlabel("signed binary over binary")
    handles = [
        Line2D([], [], color=look.color, marker=look.marker, label=look.label),
        Line2D([], [], color=binary.color, label=binary.label),
        Line2D([], [], label="paper", **_PAPER),
    ]
    if table["quantity"].duplicated().any():
        handles.insert(1, Line2D([], [], linestyle="", color=look.color, marker="X", label="measured on this CPU"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


# The open review


@_figure
def fig_review_differences(table: DataFrame) -> Figure:
    """Paired top-1 differences of `differences_table` with their 95 % intervals, a bold heading per question.

    Pale: intervals that hold zero, and single runs, which have none. The axis is linear to 2 points, then logarithmic.
    """
    groups = [rows for _, rows in table.groupby(["question", "over"], sort=False)]
    sizes = np.array([1 + len(rows) for rows in groups])  # with the heading
    first = 1 + int(np.argmin(np.abs(np.cumsum(sizes) - sizes.sum() / 2)))  # groups in the left column
    columns = [half for half in (groups[:first], groups[first:]) if half]
    lines = max(sum(1 + len(rows) for rows in half) for half in columns)
    figure, axes = plt.subplots(1, len(columns), figsize=(PAGE, 0.5 + 0.145 * lines), sharex=True, squeeze=False)
    for axis, half in zip(axes[0], columns, strict=True):
        reach = 3 * max(len(what) for rows in half for what in rows["what"])  # points that the names surely take
        names = []
        for rows in half:
            head = rows.iloc[0]
            over = "" if head.over == "signed binary" else f", over {head.over}"
            axis.annotate(
                f"{head.question} {head.topic}{over}",
                (0, -len(names)),
                xycoords=axis.get_yaxis_transform(),
                xytext=(-reach, 0),
                textcoords="offset points",
                va="center",
                fontsize=6.5,
                fontweight="bold",
                bbox=_ABOVE_LINES,
            ).set_in_layout(False)
            names.append("")
            for row in rows.itertuples():
                mean, half_width = row.difference_mean_points, row.difference_half_width_points
                look = {"color": STYLE[row.quantizer].color, "alpha": 1.0 if abs(mean) > half_width else 0.4}
                ends = [mean - half_width, mean + half_width]
                axis.plot(ends, [-len(names)] * 2, **look)  # nothing where n = 1 leaves the interval open
                axis.plot(mean, -len(names), STYLE[row.quantizer].marker, markersize=3.5, markeredgewidth=0, **look)
                names.append(row.what)
        axis.set_yticks(-np.arange(len(names)), names, fontsize=6.5)
        axis.set_ylim(0.6 - lines, 0.6)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
        _points_axis(axis)
    figure.supxlabel(
        "top-1 over signed binary, or over what is named: points, 95 % interval (pale: holds 0, or n = 1)", fontsize=8
    )
    return figure


@_figure
def fig_robustness(table: DataFrame) -> Figure:
    """Accuracy of `robustness_table` against the strength of each corruption and attack, with 95 % intervals.

    Strength 0 is the same images as they are. Drawn are the schemes in their plain form.
    """
    table = table[table["label"] == table["quantizer"]]
    schemes = _schemes(table["quantizer"])
    tests = list(dict.fromkeys(zip(table["kind"], table["test"], strict=True)))
    wide = min(4, len(tests))
    tall = -(-len(tests) // wide)
    figure, axes = plt.subplots(tall, wide, figsize=(PAGE, 0.5 + 1.6 * tall), sharey=True, squeeze=False)
    for axis in axes.flat[len(tests) :]:
        axis.set_visible(False)
    for axis, (kind, test) in zip(axes.flat, tests, strict=False):
        rows = table[(table["kind"] == kind) & (table["test"] == test)].sort_values("strength")
        for scheme in schemes:
            line, look = rows[rows["label"] == scheme], STYLE[scheme]
            axis.errorbar(
                255 * line["strength"] if kind == "attack" else line["strength"],
                line["top1_mean_percent"],
                yerr=line["top1_half_width_percent"],
                fmt=f"{look.marker}-",
                color=look.color,
                markersize=2.5,
                linewidth=0.9,
                elinewidth=0.6,
                label=look.label,
            )
        axis.set_title(test.upper() if kind == "attack" else test.replace("_", " "))
        axis.set_xlabel("ε, of 255" if kind == "attack" else "severity")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.grid(axis="y", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
    axes[0, 0].set_ylim(max(axes[0, 0].get_ylim()[0], 0), min(axes[0, 0].get_ylim()[1], 100))
    figure.supylabel("top-1 accuracy, %", fontsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(schemes))
    return figure


@_figure
def fig_linear(table: DataFrame) -> Figure:
    """Top-1 of every run of `linear_table`, a panel per network, with each group's mean and 95 % interval beside."""
    models = list(dict.fromkeys(table["model"]))
    groups = _ordered_labels(table)
    figure, axes = plt.subplots(1, len(models), figsize=(PAGE, 0.6 + 0.26 * len(groups)), sharey=True, squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        for place, (label, scheme) in enumerate(groups):
            runs = table[(table["model"] == model) & (table["label"] == label)]
            look = STYLE[scheme]
            axis.plot(runs["top1_percent"], [0.18 - place] * len(runs), look.marker, color=look.color, alpha=0.5, ms=3)
            for run in runs.head(1).itertuples():
                ends = [run.top1_mean_percent + side * run.top1_half_width_percent for side in (-1, 1)]
                axis.plot(ends, [-0.1 - place] * 2, color=look.color)  # nothing where n = 1 leaves the interval open
                axis.plot(run.top1_mean_percent, -0.1 - place, look.marker, color=look.color, ms=5)
        axis.set_title({"mlp": "MLP"}.get(model, model))
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="0.9", linewidth=0.5)
        axis.set_axisbelow(True)
    axes[0, 0].set_yticks(-np.arange(len(groups)), [_name(label) for label, _ in groups])
    axes[0, 0].set_ylim(0.6 - len(groups), 0.6)
    figure.supxlabel("top-1 accuracy, %", fontsize=8)
    return figure
