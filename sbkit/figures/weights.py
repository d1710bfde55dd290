"""05_weights: the density of each layer, and the distribution of latent weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame
from scipy import stats  # which seaborn has imported

from sbkit.evidence import runs
from sbkit.figures import layout, style

# Density


def density_table(train: DataFrame) -> DataFrame:
    """One row per run and quantized layer, in the network's order; full precision has none."""
    return runs.from_history(
        train,
        lambda history: (
            {"depth": depth, "layer": layer["name"], "density": layer["density"]}
            for depth, layer in enumerate(history.get("layers", []), start=1)
        ),
    )


@style.drawn
def fig_density(table: DataFrame) -> Figure:
    """Density of each quantized layer of `density_table` from first to last: the mean over seeds, every seed faint."""
    groups = dict(list(table.groupby("label", sort=False)))
    looks = {label: style.LOOKS[own["quantizer"].iloc[0]] for label, own in groups.items()}
    figure, axis = plt.subplots(figsize=(style.COLUMN, max(2.1, 0.6 + style.ROW * len(groups))))
    colors = {"hue": "label", "palette": {label: look.color for label, look in looks.items()}}
    markers = {"style": "label", "markers": {label: look.marker for label, look in looks.items()}, "dashes": False}
    line = {"data": table, "x": "depth", "y": "density", "legend": False, "ax": axis, **colors}
    seaborn.lineplot(units="seed", estimator=None, alpha=0.3, linewidth=0.6, **line)
    seaborn.lineplot(errorbar=None, markeredgewidth=0, **markers, **line)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="quantized layer", ylabel="density (non-zero fraction)", ylim=(0, 1.04))
    ends = []
    for label, own in groups.items():
        mean = own.groupby("depth")["density"].mean()
        ends.append((layout.short(label, 24), looks[label].color, mean.index[-1], mean.iloc[-1]))
    layout.label_ends(axis, ends)
    layout.head(figure, "How many weights each layer keeps")
    return figure


# Latent weights


def latent_table(train: DataFrame) -> DataFrame:
    """Histograms of latent weights: one row per run, recorded layer, region and bin.

    `region` is the sign of the weights' region, "positive" or "negative", or "both" together; a sign without regions is
    left out. `left` and `right` are the bin's edges, `count` all weights in it, `effectual` those with a non-zero code,
    `ineffectual` the others.
    """

    def rows_of(history: dict) -> Iterable[dict]:
        for layer in sorted(history.get("latent", {}), key=_with_numbers):
            found = history["latent"][layer]
            bins = list(zip(found["edges"][:-1], found["edges"][1:], strict=True))
            for region in ("positive", "negative"):
                counts = zip(bins, found[region], found[f"{region}_effectual"], strict=True)
                for (left, right), count, effectual in counts if any(found[region]) else ():
                    place = {"layer": layer, "region": region, "left": left, "right": right}
                    yield place | {"count": count, "effectual": effectual}

    table = runs.from_history(train, rows_of)
    if table.empty:
        return table
    keys = ["label", "quantizer", "seed", "layer", "left", "right"]
    both = table.groupby(keys, sort=False, as_index=False)[["count", "effectual"]].sum().assign(region="both")
    table = pd.concat([table, both], ignore_index=True)
    return table.assign(ineffectual=table["count"] - table["effectual"])


def _with_numbers(name: str) -> list:
    """Sorts names of layers by the numbers in them: VGG's 3 precedes its 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def moments(middles: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of binned weights."""
    mean = np.average(middles, weights=counts)
    return mean, math.sqrt(np.average((middles - mean) ** 2, weights=counts))


_PANELS = {  # name: region and column of `latent_table`
    "positive regions": ("positive", "count"),
    "negative regions": ("negative", "count"),
    "both, effectual": ("both", "effectual"),
    "both, ineffectual": ("both", "ineffectual"),
}


@style.drawn
def fig_latent(table: DataFrame) -> Figure:
    """Latent weights of `latent_table` beside a Gaussian and a Laplacian of their moments: one run's layers in rows."""
    if len(table[["label", "seed"]].drop_duplicates()) != 1:
        raise ValueError("fig_latent draws one run; allowed: a table with one label and seed")
    layers = list(table.groupby("layer", sort=False))
    color = style.PALETTE[table["quantizer"].iloc[0]]
    size = (style.PAGE, 0.4 + 1.1 * len(layers))
    figure, axes = plt.subplots(len(layers), len(_PANELS), figsize=size, squeeze=False, sharex="row")
    for (layer, rows), row in zip(layers, axes, strict=True):
        row[0].set_ylabel(layer, fontsize=7)
        for axis, (region, column) in zip(row, _PANELS.values(), strict=True):
            axis.set_yticks([])
            axis.axvline(0, color="0.8", linewidth=0.5, zorder=0)
            _draw_latent(axis, rows[rows["region"] == region], column, color)
    for axis, name in zip(axes[0], _PANELS, strict=True):
        axis.set_title(name)
    handles = [
        layout.handle("Gaussian", color="black", linestyle="-", linewidth=0.7),
        layout.handle("Laplacian", color="black", linestyle="--", linewidth=0.7),
        Patch(facecolor=color, alpha=0.6, label="effectual"),
        Patch(facecolor="none", edgecolor=color, label="all weights, or ineffectual ones"),
    ]
    figure.supxlabel("latent weight", fontsize=8)
    title = "Latent weights of one run beside a Gaussian and a Laplacian of their mean and deviation"
    layout.head(figure, title, handles)
    return figure


def _draw_latent(axis: Axes, bins: DataFrame, column: str, color: str) -> None:
    if not bins[column].any():
        return
    middle, edges = (bins["left"] + bins["right"]) / 2, [*bins["left"], bins["right"].iloc[-1]]
    axis.stairs(bins[column], edges, color=color, linewidth=0.8)
    if column != "ineffectual":
        axis.stairs(bins["effectual"], edges, fill=True, color=color, alpha=0.6, linewidth=0)
    area = bins[column].sum() * (edges[1] - edges[0])
    mean, std = moments(middle, bins[column])
    axis.plot(middle, area * stats.norm.pdf(middle, mean, std), "k-", linewidth=0.7)
    axis.plot(middle, area * stats.laplace.pdf(middle, mean, std / math.sqrt(2)), "k--", linewidth=0.7)
    axis.xaxis.set_major_locator(MaxNLocator(3))
