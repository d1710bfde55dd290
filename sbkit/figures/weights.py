"""05_weights: density of each layer, the distribution of latent weights, and what the filters of a layer share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from sbkit import records
from sbkit.conv import QuantizedWeight
from sbkit.evidence import codes, runs
from sbkit.evidence.stats import beyond, summary
from sbkit.figures.layout import handle, head, label_ends, label_points, make_room, short
from sbkit.figures.style import COLUMN, LOOKS, PAGE, PALETTE, ROW, drawn

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
    groups = table.drop_duplicates("label").set_index("label")["quantizer"]
    figure, axis = plt.subplots(figsize=(COLUMN, max(2.1, 0.6 + ROW * len(groups))))
    lines = {"x": "depth", "y": "density", "hue": "label", "palette": groups.map(PALETTE).to_dict()}
    lines |= {"legend": False, "ax": axis}
    seaborn.lineplot(table, units="seed", estimator=None, alpha=0.3, linewidth=0.6, **lines)
    looks = {"style": "label", "dashes": False, "markers": groups.map(lambda scheme: LOOKS[scheme].marker).to_dict()}
    seaborn.lineplot(table, errorbar=None, **looks, markeredgewidth=0, **lines)
    means = table.groupby(["label", "depth"], sort=False)["density"].mean()
    ends = [(label, means[label].index.max()) for label in groups.index]
    axis.set_ylim(0, 1.04)
    label_ends(axis, [(short(name, 24), PALETTE[groups[name]], end, means[name, end]) for name, end in ends])
    axis.set(xlabel="quantized layer", ylabel="density (non-zero fraction)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    head(figure, "Density of each quantized layer")
    return figure


# Latent weights

PARTS = ("all", "effectual", "ineffectual")


def latent_table(train: DataFrame) -> DataFrame:
    """Histograms of latent weights: one row per run, recorded layer, sign of the region and bin.

    `left` and `right` are the bin's edges, `count` all weights in it, `effectual` those with a non-zero code. A sign
    without regions is left out.
    """

    def rows_of(history: dict) -> Iterable[dict]:
        for layer, histogram in history.get("latent", {}).items():
            edges = histogram["edges"]
            for region in ("positive", "negative"):
                counts, effectual = histogram[region], histogram[f"{region}_effectual"]
                if any(counts):
                    for row in zip(edges[:-1], edges[1:], counts, effectual, strict=True):
                        bin_ = dict(zip(("left", "right", "count", "effectual"), row, strict=True))
                        yield {"layer": layer, "region": region} | bin_

    return runs.from_history(train, rows_of)


def latent_bins(latent: DataFrame) -> DataFrame:
    """The histograms of `latent_table` in parts, each bin beside what a fitted Gaussian and Laplacian would hold.

    One row per run, layer, region (`positive`, `negative` or `both` together), part (`all` weights, the `effectual` or
    the `ineffectual` ones) and bin. `gaussian` and `laplacian` are the numbers of weights that the distribution of the
    largest likelihood, given the counts, expects in the bin.
    """
    keys = ["label", "quantizer", "seed", "layer"]
    both = latent.groupby([*keys, "left", "right"], sort=False, as_index=False)[["count", "effectual"]].sum()
    wide = pd.concat([latent, both.assign(region="both")], ignore_index=True).rename(columns={"count": "all"})
    wide["ineffectual"] = wide["all"] - wide["effectual"]
    keys += ["region"]
    bins = wide.melt([*keys, "left", "right"], PARTS, "part", "count")
    keys += ["part"]
    bins = bins[bins.groupby(keys)["count"].transform("sum") > 0]
    bins = bins.sort_values([*keys, "left"], key=_layers_in_order, kind="stable", ignore_index=True)
    for family, cdf in _CDF.items():
        bins[family] = 0.0
        for _, rows in bins.groupby(keys, sort=False):
            edges = np.append(rows["left"], rows["right"].iloc[-1])
            counts = rows["count"].to_numpy(float)
            bins.loc[rows.index, family] = counts.sum() * fitted(counts, edges, cdf)
    return bins


def _layers_in_order(column: pd.Series) -> pd.Series:
    """Key of a sort by columns: numbers within the names of layers count as such, so that VGG's 3 precedes its 10."""
    if column.name != "layer":
        return column
    return column.str.replace(r"\d+", lambda number: number[0].zfill(4), regex=True)


def _gaussian(z: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return ndtr(z)


def _laplacian(z: np.ndarray) -> np.ndarray:
    tail = np.exp(-np.abs(z)) / 2
    return np.where(z < 0, tail, 1 - tail)


_CDF = {"gaussian": _gaussian, "laplacian": _laplacian}  # of location 0 and scale 1


def fitted(counts: np.ndarray, edges: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Probability of each bin under the member of a symmetric location-scale family that makes the counts likeliest.

    `edges` has one value more than `counts`; the outermost bins are open. The likelihood of binned data has one maximum
    in both families, whose densities are log-concave.
    """
    from scipy.optimize import minimize

    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges).mean()
    share = counts / counts.sum()
    mean = share @ middle
    std = math.sqrt(share @ (middle - mean) ** 2) + width / 9

    def probabilities(parameters: np.ndarray) -> np.ndarray:
        z = (edges - mean - std * parameters[0]) / (std * math.exp(parameters[1]))
        z[0], z[-1] = -np.inf, np.inf
        mirrored = z[:-1] > 0  # the lower tail keeps its digits
        found = cdf(np.where(mirrored, -z[:-1], z[1:])) - cdf(np.where(mirrored, -z[1:], z[:-1]))
        return np.maximum(found, 1e-300)

    least = minimize(
        lambda parameters: -share @ np.log(probabilities(parameters)),
        np.zeros(2),
        method="BFGS",
        options={"gtol": 1e-7},
    )
    return probabilities(least.x)


def first_run(bins: DataFrame) -> DataFrame:
    """The bins of one run: the first group's smallest seed."""
    bins = bins[bins["label"] == bins["label"].iloc[0]]
    return bins[bins["seed"] == bins["seed"].min()]


def latent_fits(bins: DataFrame) -> DataFrame:
    """How well the fits of `latent_bins` are, over all runs: a row per group, layer, region and part.

    n runs of `weights` weights in the mean; `mean` and `std` of a weight with the mean's half width over runs; largest
    distance of each fitted distribution function from the counts' at a bin's edge (Kolmogorov-Smirnov); and
    `difference`, log-likelihood of the Gaussian minus that of the Laplacian, nats per weight. `better` is the family
    that the interval of the difference favours. Parts with fewer than three occupied bins are left out.
    """
    keys = ["label", "quantizer", "layer", "region", "part"]
    fits = DataFrame(
        [
            dict(zip([*keys, "seed"], key, strict=True)) | _fit(rows)
            for key, rows in bins.groupby([*keys, "seed"], sort=False)
        ]
    )
    fits = fits[fits.pop("occupied") >= 3]
    table = summary(fits, keys, "mean").rename(columns={"mean_mean": "mean"})
    others = ["weights", "std", "ks_gaussian", "ks_laplacian"]
    table = table.merge(fits.groupby(keys, sort=False)[others].mean().reset_index(), on=keys)
    difference = summary(fits, keys, "difference").rename(columns={"difference_mean": "difference"})
    table = table.merge(difference.drop(columns="n"), on=keys)
    sides = map(beyond, table["difference"], table["difference_half_width"])
    return table.assign(better=[{1: "Gaussian", -1: "Laplacian", 0: "undecided"}[side] for side in sides])


def _fit(bins: DataFrame) -> dict[str, float]:
    """Moments of one run's counts, and how both fits differ from them."""
    counts, middle = bins["count"].to_numpy(float), (bins["left"] + bins["right"]).to_numpy() / 2
    share = counts / counts.sum()
    mean = share @ middle
    found = {"occupied": (counts > 0).sum(), "weights": counts.sum(), "mean": mean}
    found["std"] = math.sqrt(share @ (middle - mean) ** 2)
    likelihood = {}
    for family in _CDF:
        expected = bins[family].to_numpy() / counts.sum()
        found[f"ks_{family}"] = np.abs(expected.cumsum() - share.cumsum()).max()
        likelihood[family] = share @ np.log(np.maximum(expected, 1e-300))
    return found | {"difference": likelihood["gaussian"] - likelihood["laplacian"]}


_PANELS = {  # by region and part
    ("positive", "all"): "positive regions",
    ("negative", "all"): "negative regions",
    ("both", "effectual"): "both, effectual",
    ("both", "ineffectual"): "both, ineffectual",
}
_LINES = {"gaussian": ("-", "Gaussian"), "laplacian": ("--", "Laplacian")}


@drawn
def fig_latent(table: DataFrame) -> Figure:
    """Latent weights of `latent_bins` with fitted Gaussian and Laplacian: one run's layers in rows.

    Columns: the regions of each sign, then both together, effectual and ineffectual weights apart. Filled: effectual.
    Numbers: the largest distance of either fit's distribution function from the one of the weights.
    """
    if len(table[["label", "seed"]].drop_duplicates()) != 1:
        raise ValueError("fig_latent draws one run; allowed: a table with one label and seed")
    panels = dict(list(table.groupby(["layer", "region", "part"])))
    layers = list(dict.fromkeys(table["layer"]))
    color = PALETTE[table["quantizer"].iloc[0]]
    figure, axes = plt.subplots(
        len(layers), len(_PANELS), figsize=(PAGE, 0.4 + 1.1 * len(layers)), squeeze=False, sharex="row"
    )
    for layer, row in zip(layers, axes, strict=True):
        for axis, ((region, part), name) in zip(row, _PANELS.items(), strict=True):
            axis.set_title(name if layer == layers[0] else "")
            axis.set_yticks([])
            axis.axvline(0, color="0.8", linewidth=0.5, zorder=0)
            if (layer, region, part) not in panels:
                continue
            bins = panels[layer, region, part]
            histogram = {"bins": [*bins["left"], bins["right"].iloc[-1]], "element": "step", "color": color, "ax": axis}
            kept = panels.get((layer, region, "effectual")) if part == "all" else bins if part == "effectual" else None
            for shown, fill in ((bins, False), (kept, True)):
                if shown is not None:
                    middle = (shown["left"] + shown["right"]) / 2
                    seaborn.histplot(
                        x=middle, weights=shown["count"], fill=fill, linewidth=0.8 * (not fill), **histogram
                    )
            inner = bins[1:-1]  # the fits' outermost bins hold their tails
            for family, (line, _) in _LINES.items():
                axis.plot((inner["left"] + inner["right"]) / 2, inner[family], "k", linestyle=line, linewidth=0.7)
            fit = _fit(bins)
            text = "\n".join(f"{name[0]} {fit[f'ks_{family}']:.3f}" for family, (_, name) in _LINES.items())
            axis.text(0.02, 0.97, text, fontsize=6, ha="left", va="top", transform=axis.transAxes)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.set(xlabel="", ylabel="")
        row[0].set_ylabel(layer, fontsize=7, visible=True)  # seaborn hides it where there are no ticks
    handles = [handle(name, color="black", linestyle=line, linewidth=0.7) for line, name in _LINES.values()]
    handles.append(Patch(facecolor=color, alpha=0.6, label="effectual"))
    handles.append(Patch(facecolor="none", edgecolor=color, label="all weights, or ineffectual ones"))
    figure.supxlabel("latent weight (number: distance of the fit, Kolmogorov-Smirnov)", fontsize=8)
    head(figure, "Latent weights of one run beside a fitted Gaussian and a fitted Laplacian", handles)
    return figure


# What filters have in common


def spectrum(weight: QuantizedWeight) -> tuple[float, float]:
    """(leading share, effective rank) of a layer's weights as a matrix W, a row per filter.

    With the singular values s_i of W and p_i = s_i^2 / sum s^2: max p, the share of what all filters have in common (a
    layer whose filters are all copies of one has 1), and exp(entropy of p) over the number of singular values, 1 where
    all are equal (Roy and Vetterli, EUSIPCO 2007). Channel signs change neither.
    """
    w = weight.dense().reshape(len(weight.codes), -1).astype(float)
    w = w if len(w) <= w.shape[1] else w.T
    squares = np.linalg.eigvalsh(w @ w.T)  # much faster than the singular values, and as good where they count
    if not w.any():
        return math.nan, 0.0
    p = squares[squares > 0] / squares.sum()
    return float(p.max()), float(np.exp(-(p * np.log(p)).sum()) / len(squares))


def imbalance(weight: QuantizedWeight) -> float:
    """|sum of w| over sqrt(sum of w^2), the mean over a layer's filters that are not all zero; NaN if all are.

    It is the mean of a filter's output over its standard deviation, for independent inputs whose own mean and standard
    deviation are equal: about 0.8 for weights of random signs, the root of their number for n weights of one sign.
    """
    w = weight.dense().reshape(len(weight.codes), -1).astype(float)
    w = w[w.any(axis=1)]
    return float(np.mean(np.abs(w.sum(1)) / np.sqrt((w**2).sum(1)))) if len(w) else math.nan


def common_mode_table(train: DataFrame, weights: codes.Weights) -> DataFrame:
    """What the filters of a layer have in common, beside the accuracy: a row per group of quantized runs with codes.

    `leading_share` and `effective_rank` are `spectrum` and `imbalance` is that of a filter's outputs, means over a
    run's layers; `flips_percent` of the codes changed in the last epoch; `signal_percent` of a gradient's squared norm
    is common to the batches of an epoch, mean over all epochs (left out where no record says it). Means and 95 % half
    widths over seeds, the smallest share first. Only groups under the main recipe, so that they differ in the
    quantizer's options alone; `named` are those that are a named design.
    """
    train = train[train["main"].astype(bool) & train["name"].isin(list(weights))]
    measures = DataFrame(
        [_measures(row, weights[row.name_]) for row in train.rename(columns={"name": "name_"}).itertuples()]
    )
    if measures.empty:
        return measures
    measures = measures.dropna(axis="columns", how="all")
    by = ["label", "quantizer", "named"]
    tables = [summary(measures, by, column) for column in measures if column not in by]
    table = tables[0][[*by, "n"]]
    for found in tables:
        value, half_width = found.columns[-3:-1]
        table = table.assign(**{value.removesuffix("_mean"): found[value], half_width: found[half_width]})
    return table.sort_values("leading_share", kind="stable", ignore_index=True)


def _measures(run, layers: dict[str, QuantizedWeight]) -> dict:
    """The columns of `common_mode_table` of one run, a row of the frame."""
    spectra = np.array([(*spectrum(weight), imbalance(weight)) for weight in layers.values()])
    epochs = DataFrame(
        records.load(run.path).history["epochs"], columns=["flip_fraction", "gradient_signal"], dtype=float
    )
    return (
        {"label": run.label, "quantizer": run.quantizer, "named": run.design != ""}
        | dict(zip(("leading_share", "effective_rank", "imbalance"), np.nanmean(spectra, axis=0), strict=True))
        | {"flips_percent": 100 * epochs["flip_fraction"].iloc[-1]}
        | {"signal_percent": 100 * epochs["gradient_signal"].mean()}
        | {"density": run.density, "top1_percent": run.top1_percent}
    )


@drawn
def fig_common_mode(table: DataFrame) -> Figure:
    """Top-1 against the leading share of `common_mode_table`: designs by name, others pale."""
    figure, axis = plt.subplots(figsize=(COLUMN, max(2.6, 0.6 + ROW * table["named"].sum())))
    for row in table.itertuples():
        shade = {"alpha": 1.0 if row.named else 0.35, "markeredgewidth": 0}
        axis.plot(
            100 * row.leading_share,
            row.top1_percent,
            LOOKS[row.quantizer].marker,
            color=PALETTE[row.quantizer],
            **shade,
        )
    axis.set_xlabel("share of the first singular vector, %")
    axis.set_ylabel("top-1 accuracy, %")
    at = make_room(axis, ticks=4, room=1.0, most=100)
    points = table[table["named"]]
    names = [short(name, 24) for name in points["label"]]
    label_points(
        axis, names, points["quantizer"].map(PALETTE), 100 * points["leading_share"], points["top1_percent"], at
    )
    head(figure, "Top-1 against what a layer's filters share")
    return figure
