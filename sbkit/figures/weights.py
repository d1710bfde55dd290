"""05_weights: the density of each layer, and the distribution of latent weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from sbkit.evidence import runs
from sbkit.figures.layout import handle, head, label_ends, seed_lines
from sbkit.figures.style import COLUMN, PAGE, PALETTE, ROW, drawn

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


@drawn
def fig_density(table: DataFrame) -> Figure:
    """Density of each quantized layer of `density_table` from first to last: the mean over seeds, every seed faint."""
    figure, axis = plt.subplots(figsize=(COLUMN, max(2.1, 0.6 + ROW * table["label"].nunique())))
    ends = seed_lines(axis, table, "depth", "density", markers=True)
    axis.set(xlabel="quantized layer", ylabel="density (non-zero fraction)", ylim=(0, 1.04))
    label_ends(axis, ends)
    head(figure, "How many weights each layer keeps")
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
            histogram = history["latent"][layer]
            for region in ("positive", "negative"):
                counts, effectual = histogram[region], histogram[f"{region}_effectual"]
                if any(counts):
                    for row in zip(histogram["edges"][:-1], histogram["edges"][1:], counts, effectual, strict=True):
                        yield {"layer": layer, "region": region} | dict(zip(_COLUMNS, row, strict=True))

    table = runs.from_history(train, rows_of)
    if table.empty:
        return table
    keys = ["label", "quantizer", "seed", "layer", "left", "right"]
    both = table.groupby(keys, sort=False, as_index=False)[["count", "effectual"]].sum().assign(region="both")
    table = pd.concat([table, both], ignore_index=True)
    return table.assign(ineffectual=table["count"] - table["effectual"])


_COLUMNS = ("left", "right", "count", "effectual")


def _with_numbers(name: str) -> list:
    """Sorts names of layers by the numbers in them: VGG's 3 precedes its 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def moments(middles: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of binned weights."""
    mean = np.average(middles, weights=counts)
    return mean, math.sqrt(np.average((middles - mean) ** 2, weights=counts))


def gaussian(x: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Density of a Gaussian."""
    return np.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))


def laplacian(x: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Density of a Laplacian."""
    return np.exp(-np.abs(x - mean) * math.sqrt(2) / std) / (std * math.sqrt(2))


_PANELS = {  # name: region and column of `latent_table`
    "positive regions": ("positive", "count"),
    "negative regions": ("negative", "count"),
    "both, effectual": ("both", "effectual"),
    "both, ineffectual": ("both", "ineffectual"),
}
_LINES = {"-": gaussian, "--": laplacian}


@drawn
def fig_latent(table: DataFrame) -> Figure:
    """Latent weights of `latent_table` beside a Gaussian and a Laplacian of their moments: one run's layers in rows.

    Columns: the regions of each sign, then both together, effectual and ineffectual weights apart. Filled: effectual.
    """
    if len(table[["label", "seed"]].drop_duplicates()) != 1:
        raise ValueError("fig_latent draws one run; allowed: a table with one label and seed")
    layers = list(dict.fromkeys(table["layer"]))
    color = PALETTE[table["quantizer"].iloc[0]]
    size = (PAGE, 0.4 + 1.1 * len(layers))
    figure, axes = plt.subplots(len(layers), len(_PANELS), figsize=size, squeeze=False, sharex="row")
    for layer, row in zip(layers, axes, strict=True):
        for axis, (name, (region, column)) in zip(row, _PANELS.items(), strict=True):
            axis.set_title(name if layer == layers[0] else "")
            axis.set_yticks([])
            axis.axvline(0, color="0.8", linewidth=0.5, zorder=0)
            bins = table[(table["layer"] == layer) & (table["region"] == region)]
            if not bins[column].any():
                continue
            middle, edges = (bins["left"] + bins["right"]) / 2, [*bins["left"], bins["right"].iloc[-1]]
            axis.stairs(bins[column], edges, color=color, linewidth=0.8)
            if column != "ineffectual":
                axis.stairs(bins["effectual"], edges, fill=True, color=color, alpha=0.6, linewidth=0)
            area = bins[column].sum() * (edges[1] - edges[0])
            for line, family in _LINES.items():
                values = area * family(middle, *moments(middle, bins[column]))
                axis.plot(middle, values, "k", linestyle=line, linewidth=0.7)
            axis.xaxis.set_major_locator(MaxNLocator(3))
        row[0].set_ylabel(layer, fontsize=7)
    lines = {family.__name__.capitalize(): line for line, family in _LINES.items()}
    handles = [handle(name, color="black", linestyle=line, linewidth=0.7) for name, line in lines.items()]
    handles.append(Patch(facecolor=color, alpha=0.6, label="effectual"))
    handles.append(Patch(facecolor="none", edgecolor=color, label="all weights, or ineffectual ones"))
    figure.supxlabel("latent weight", fontsize=8)
    head(figure, "Latent weights of one run beside a Gaussian and a Laplacian of their mean and deviation", handles)
    return figure
