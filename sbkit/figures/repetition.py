"""What codes repeat and what they skip, counted: the tables and figures of notebook 06."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.evidence import codes
from sbkit.evidence.codes import Form, Weights
from sbkit.evidence.paper import PAPER
from sbkit.figures import layout, style
from sbkit.schemes import SCHEMES
from sbkit.way import ENCODINGS, KERNELS

# Distinct patterns


def patterns_table(weights: Weights) -> DataFrame:
    """Distinct 3x3 filters of trained codes, of the same codes shuffled within each filter, and the paper's numbers.

    To the columns of `codes.unique_table`, `codes` adds which they are: trained, shuffled, or paper, which
    has a [3, 3, 256, 256] layer of each scheme. Schemes without weights are left out.
    """
    other = {name: codes.shuffled(weights[name], seed) for seed, name in enumerate(sorted(weights))}
    trained, shuffled = codes.unique_table(weights), codes.unique_table(other)
    paper = trained.drop_duplicates("scheme")[["scheme"]]
    paper = paper.assign(filters=256**2, unique=[PAPER.get(f"patterns_{key}", math.nan) for key in paper["scheme"]])
    tables = {"trained": trained, "shuffled": shuffled, "paper": paper.dropna()}
    return pd.concat([table.assign(codes=origin) for origin, table in tables.items()], ignore_index=True)


@style.drawn
def fig_unique_filters(table: DataFrame) -> Figure:
    """Distinct 3x3 filters of `patterns_table` against all filters of a layer; dashed: how many a scheme can have."""
    figure, axis = plt.subplots(figsize=(style.COLUMN, 2.7))
    axis.set(xscale="log", yscale="log")
    low, high = table["filters"].min() / 1.5, table["filters"].max()
    bottom, top = table["unique"].min() / 1.5, table[["bound", "unique"]].max().max() * 2
    for bound, found in table.groupby("bound")["scheme"]:
        color = style.PALETTE[style.schemes(found)[0]]
        axis.plot([low, high], [bound, bound], color=color, linewidth=0.6, linestyle="--", zorder=0)
        beside = {"xytext": (2, 0), "textcoords": "offset points", "va": "bottom"}  # the axis
        axis.annotate(f"{bound:,.0f}", (low, bound), fontsize=style.SMALL, color=color, **beside)
    for origin, line, markers in (("shuffled", ":", False), ("trained", "-", True)):
        seaborn.lineplot(
            table[table["codes"] == origin], x="filters", y="unique", hue="scheme", palette=style.PALETTE,
            style="scheme", markers=style.MARKERS if markers else False, dashes=False, linestyle=line, linewidth=0.8,
            markeredgewidth=0, errorbar=None, legend=False, ax=axis,
        )  # fmt: skip
    paper = table[table["codes"] == "paper"]
    axis.plot(paper["filters"], paper["unique"], **style.PAPER)
    axis.plot([low, top], [low, top], color="0.8", linewidth=0.6, zorder=0)
    if top > 9 * low:
        axis.text(top / 3, top / 3, "all different ", color="0.5", fontsize=6, ha="right", va="bottom")
    axis.set(xlim=(low, high * 1.25), ylim=(bottom, top), xlabel="3x3 filters in the layer", ylabel="distinct filters")
    layout.plain_log(axis.xaxis, low, high)
    layout.plain_log(axis.yaxis, bottom, top)
    handles = layout.scheme_handles(style.schemes(table["scheme"]), linestyle="-")
    handles += [layout.handle(name, linestyle=line) for name, line in (("trained", "-"), ("shuffled", ":"))]
    layout.head(figure, "Large layers must repeat filters", [*handles, layout.handle("paper", **style.PAPER)])
    return figure


# Data-flow graphs


@style.drawn
def fig_dataflow_graph(table: DataFrame) -> Figure:
    """The data-flow graphs of `toy.graphs_table`, one panel per scheme: inputs left, shared sums, outputs right."""
    schemes = style.schemes(table["scheme"])
    figure, axes = plt.subplots(1, len(schemes), figsize=(style.PAGE, 2.4), squeeze=False)
    for axis, scheme in zip(axes[0], schemes, strict=True):
        graph = table[table["scheme"] == scheme]
        _draw_graph(axis, graph, style.PALETTE[scheme])
        outputs = graph[graph["kind"] == "output"]
        filters = "\n".join(f"{row.name}:  {row.codes}".replace("-", "\N{MINUS SIGN}") for row in outputs.itertuples())
        axis.set_title(f"{SCHEMES[scheme].label}: {graph['adds'].iloc[0]} additions\n{filters}")
    layout.head(figure, "Sharing a sum saves additions (dashed: subtracted)")
    return figure


def _draw_graph(axis: Axes, graph: DataFrame, color: str) -> None:
    inputs, sums, outputs = (graph[graph["kind"] == kind] for kind in ("input", "sum", "output"))
    place = {name: (0.0, -float(y)) for y, name in enumerate(inputs["name"])}
    for row in sums.itertuples():
        parts = [place[part[1:]] for part in row.parts.split()]
        x = 1 + max(x for x, _ in parts)
        y = float(np.mean([y for _, y in parts])) + 0.35 + 0.15 * x  # between the inputs, beside lines to the outputs
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
        dark = row.kind != "input" or any(row.name in parts for parts in graph["parts"])
        shape = "circle,pad=0.25" if row.kind == "input" else "round,pad=0.3"
        box = {"boxstyle": shape, "facecolor": "white", "edgecolor": color if dark else "0.8"}
        text = "+".join(row.name) if row.kind == "sum" else row.name
        axis.text(*place[row.name], text, ha="center", va="center", color="black" if dark else "0.7", bbox=box, size=7)
    axis.set(xlim=(-0.4, last + 0.5), ylim=(-len(inputs) + 0.3, 0.7), xticks=[], yticks=[])
    axis.axis("off")


# Arithmetic reduction


def _form_name(form: Form) -> str:
    """A way to execute codes for people, without the scheme: `table, signed patterns`."""
    parts = [form.algorithm] + [ENCODINGS[form.encoding]] * (form.encoding != "two_group")
    return ", ".join(parts + ["zeros kept"] * (not form.skip_zeros))


@style.drawn
def fig_operations(table: DataFrame) -> Figure:
    """Arithmetic reduction of the largest square 3x3 layers of `codes.operations_table`, by form and scheme.

    Bars are means over layers and runs. Raises ValueError without a square layer.
    """
    square = table[(table["R"] == 3) & (table["S"] == 3) & (table["K"] == table["C"])]
    if square.empty:
        raise ValueError("fig_operations got no square 3x3 layer; allowed: a table with one")
    channels = square["C"].max()
    chosen = square[square["C"] == channels]
    means = chosen.groupby(["algorithm", "encoding", "skip_zeros", "scheme"])[["reduction", "paper"]].mean()
    rows = DataFrame(
        {"form": _form_name(form), "algorithm": form.algorithm, "scheme": key} | means.loc[(*form, key)].to_dict()
        for form in codes.FORMS
        for key in style.schemes(chosen["scheme"])
        if (*form, key) in means.index
    )
    panels = [panel for _, panel in rows.groupby(rows["algorithm"] == "dataflow")]
    names = [([SCHEMES[key].label for key in panel["scheme"]], list(panel["form"])) for panel in panels]
    height = 0.5 + max(layout.rows_height(*of_panel) for of_panel in names)
    figure, axes = plt.subplots(1, len(panels), figsize=(style.PAGE, height), squeeze=False)
    for axis, panel, of_panel in zip(axes[0], panels, names, strict=True):
        _reduction_bars(axis, panel.assign(y=layout.rows(axis, *of_panel)))
        axis.set_xlim(0, 1.12 * rows[["reduction", "paper"]].max().max())
        axis.set_ylim(-(height - 0.5) / style.ROW + 0.6, 0.6)
        axis.set_xlabel(f"arithmetic reduction, [3, 3, {channels}, {channels}]")
    paper = [layout.handle("paper", **style.PAPER)] * bool(rows["paper"].notna().any())
    layout.head(figure, "How many times fewer operations trained codes need, by algorithm, encoding and scheme", paper)
    return figure


def _reduction_bars(axis: Axes, rows: DataFrame) -> None:
    axis.barh(rows["y"], rows["reduction"], 0.8, color=rows["scheme"].map(style.PALETTE))
    axis.plot(rows["paper"], rows["y"], **style.PAPER)
    for row in rows.itertuples():
        end = np.fmax(row.reduction, row.paper)
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": style.SMALL}
        axis.annotate(f"{row.reduction:.1f}", (end, row.y), **place)


_LINES: dict[str, Any] = {"two_group": "", "rewritten": (4, 1.5), "signed": (1, 1), "codebook": (6, 2, 1, 2)}
"""By encoding, seaborn's dashes."""


def _encoding_handles(encodings: pd.Series, color: str, prefix: str) -> list:
    """Keys for the dashes of the encodings that occur."""
    return [
        layout.handle(prefix + ENCODINGS[key], color=color, linestyle=(0, dashes) if dashes else "-")
        for key, dashes in _LINES.items()
        if key in set(encodings)
    ]


# The trade-off between repetition and sparsity


@style.drawn
def fig_tradeoff(table: DataFrame) -> Figure:
    """Operations and latency against density of `tradeoff.tradeoff_table`, one column per algorithm.

    Binary has one density: a horizontal line per encoding.
    """
    algorithms = [algorithm for algorithm in KERNELS if algorithm in set(table["algorithm"])]
    figure, axes = plt.subplots(2, len(algorithms), figsize=(style.PAGE, 3.2), sharex=True, squeeze=False)
    for algorithm, column in zip(algorithms, axes.T, strict=True):
        rows = table[table["algorithm"] == algorithm]
        _draw_costs(column[0], rows, "operations_per_weight", "predicted_operations", "fewest")
        _draw_costs(column[1], rows, "median_ms", "predicted_ms", "fastest")
        for row in rows[rows["cheapest_bit"] & (rows["scheme"] != "binary")].itertuples():
            color = style.PALETTE[row.scheme]
            column[0].plot(row.density, row.operations_per_weight, "o", color=color, mfc="none", mew=0.8, ms=9)
        column[0].set_title(algorithm)
    axes[0, 0].set_ylabel("operations a weight")
    axes[1, 0].set_ylabel("latency, ms")
    figure.supxlabel(f"density (non-zero fraction) of {table['layer'].iloc[0]}", fontsize=8)
    schemes = [scheme for scheme in style.schemes(table["scheme"]) if scheme != "binary"]
    handles = layout.scheme_handles(schemes, linestyle="-")
    binary = table.loc[table["scheme"] == "binary", "encoding"]
    handles += _encoding_handles(binary, style.PALETTE["binary"], "binary, ")
    handles.append(layout.handle("entropy, scaled", linestyle=(0, (4, 2)), linewidth=0.6))
    marks = (("least cost", "*", style.GREY), ("least cost per bit", "o", "none"))
    handles += [layout.handle(name, marker=mark, markerfacecolor=face, markersize=7) for name, mark, face in marks]
    layout.head(figure, "Entropy alone does not predict what a density costs", handles)
    return figure


def _draw_costs(axis: Axes, rows: DataFrame, cost: str, predicted: str, least: str) -> None:
    curves, lines = rows[rows["scheme"] != "binary"], rows[rows["scheme"] == "binary"]
    look = {"x": "density", "hue": "scheme", "palette": style.PALETTE, "errorbar": None, "legend": False, "ax": axis}
    markers = {"style": "scheme", "markers": style.MARKERS, "dashes": False, "markersize": 2.5, "markeredgewidth": 0}
    seaborn.lineplot(curves, y=cost, **look, **markers)
    seaborn.lineplot(curves, y=predicted, linestyle=(0, (4, 2)), linewidth=0.6, **look)
    for row in curves[curves[least]].itertuples():
        axis.plot(row.density, getattr(row, cost), "*", color=style.PALETTE[row.scheme], markersize=8, zorder=4)
    for row in lines.itertuples():
        dashes = (0, _LINES[row.encoding]) if _LINES[row.encoding] else "-"
        axis.axhline(getattr(row, cost), color=style.PALETTE["binary"], linestyle=dashes, linewidth=0.9)
    axis.set(xlim=(0, 1), ylim=(0, rows[[cost, predicted]].max().max() * 1.08), xlabel="", ylabel="")
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


# A density that moves


@style.drawn
def fig_random(table: DataFrame) -> Figure:
    """The codes of `tradeoff.random_table` at one tap, with density, entropy and operations. Grey: zero."""
    figure, axes = plt.subplots(1, len(table), figsize=(style.PAGE, 2.3), squeeze=False)
    for axis, row in zip(axes[0], table.itertuples(), strict=True):
        axis.imshow(row.codes, cmap="coolwarm", vmin=-1, vmax=1)
        axis.set(title=SCHEMES[row.scheme].label, xticks=[], yticks=[])
        numbers = f"density {row.density:.2f}\n{row.entropy_bits:.2f} bits, {row.operations_per_weight:.2f} operations"
        axis.set_xlabel(numbers, fontsize=7)
    layout.head(figure, "Random codes (rows: filters, columns: channels, grey: zero), bits and operations a weight")
    return figure
