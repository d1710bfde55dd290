"""03_accuracy: top-1 of each design, paired by seed, against effectual weights, and beside published numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.checks import choice, tables
from sbkit.conv import NETWORK_SHAPES
from sbkit.evidence import runs
from sbkit.evidence.stats import MissingRecord, shown, summary
from sbkit.figures.layout import (
    forest,
    head,
    label_ends,
    label_points,
    percent_axis,
    plain_log,
    rows,
    rows_height,
    scheme_handles,
    seed_lines,
    short,
)
from sbkit.figures.style import COLUMN, LOOKS, PAGE, PALETTE, ROW, drawn, schemes
from sbkit.schemes import SCHEMES

# Top-1 and sizes


def accuracy_table(train: DataFrame) -> DataFrame:
    """One row per group: top-1 mean, 95 % half width and extremes, and the density and size of its models.

    `effectual_weights` are the non-zero ones of the quantized layers, mean over runs; `total_parameters` all that the
    network trains, layers in full precision included. `front` marks groups that no other beats: none has at most their
    effectual weights and at least their top-1, and is better in one of them.
    """
    table = summary(train, ["label", "quantizer"], "top1_percent").rename(columns=_TOP1)
    others = train.groupby("label").agg(
        top1_min_percent=("top1_percent", "min"),
        top1_max_percent=("top1_percent", "max"),
        density=("density", "mean"),
        effectual_weights=("effectual_weights", "mean"),
        total_parameters=("total_parameters", "first"),
        weight_bits=("weight_bits", "first"),
    )
    table = table.join(others, on="label")
    table.insert(2, "top1", list(map(shown, table["top1_mean_percent"], table["top1_half_width_percent"], table["n"])))
    return table.assign(front=pareto_front(table["effectual_weights"], table["top1_mean_percent"]))


_TOP1 = {"top1_percent_mean": "top1_mean_percent", "top1_percent_half_width": "top1_half_width_percent"}


def pareto_front(cost: Iterable[float], value: Iterable[float]) -> np.ndarray:
    """Which points no other point beats: none has at most their cost and at least their value, and betters one."""
    points = list(zip(cost, value, strict=True))
    return np.array(
        [not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points) for cost, value in points]
    )


def seed_table(train: DataFrame) -> DataFrame:
    """One row per run with its group's mean and interval: what `fig_accuracy` draws."""
    columns = ["label", "quantizer", "seed", "top1_percent", "density", "effectual_weights"]
    means = accuracy_table(train).set_index("label")[["top1_mean_percent", "top1_half_width_percent", "n"]]
    return train[columns].join(means, on="label")


@drawn
def fig_accuracy(table: DataFrame) -> Figure:
    """Top-1 of every run of `seed_table` as a pale point; below it the group's mean with its 95 % interval."""
    groups = table.drop_duplicates("label")
    schemes(groups["quantizer"])
    names = [f"{short(row.label, 26, lines=2)} (n={row.n})" for row in groups.itertuples()]
    figure, axis = plt.subplots(figsize=(COLUMN, 0.4 + 1.6 * rows_height(names)))
    heights = rows(axis, names)
    runs_at = table["label"].map(dict(zip(groups["label"], heights, strict=True)))
    colors = table["quantizer"].map(PALETTE)
    axis.scatter(table["top1_percent"], runs_at + 0.22, s=9, c=colors, alpha=0.5, linewidth=0)
    looks = [LOOKS[scheme] for scheme in groups["quantizer"]]
    forest(axis, heights - 0.12, groups["top1_mean_percent"], groups["top1_half_width_percent"], looks, size=5)
    percent_axis(axis, "x")
    axis.set(xlabel="top-1 accuracy, %", ylabel="")
    head(figure, "How accurate each design is: seeds and mean")
    return figure


@drawn
def fig_pareto(table: DataFrame) -> Figure:
    """Top-1 against effectual weights of `accuracy_table`: the front as a line, the groups behind it pale."""
    schemes(table["quantizer"])
    table = table.sort_values("effectual_weights", kind="stable")
    figure, axis = plt.subplots(figsize=(COLUMN, max(2.6, 0.6 + ROW * len(table))))
    axis.set_xscale("log")
    for row in table.itertuples():
        look = LOOKS[row.quantizer]
        spread = row.top1_half_width_percent if row.n > 1 else None
        shade = {"color": look.color, "alpha": 1.0 if row.front else 0.4, "markeredgewidth": 0}
        axis.errorbar(
            row.effectual_weights, row.top1_mean_percent, spread, fmt=look.marker, elinewidth=0.8, zorder=3, **shade
        )
    front = table[table["front"]]
    axis.plot(front["effectual_weights"], front["top1_mean_percent"], color="0.6", linewidth=0.8, zorder=1)
    axis.set_xlabel("effectual weights")
    axis.set_ylabel("top-1 accuracy, %")
    low, high = table["effectual_weights"].min(), table["effectual_weights"].max()
    axis.set_xlim(low / 1.25, high * (high / low) ** 0.75 * 1.6)  # room for the names right of the last point
    plain_log(axis.xaxis, low / 1.25, high * 1.25)
    percent_axis(axis)
    names, colors = [short(name, 24) for name in table["label"]], table["quantizer"].map(PALETTE)
    label_points(axis, names, colors, table["effectual_weights"], table["top1_mean_percent"], high * 1.3)
    head(figure, "Which designs are most accurate for their effectual weights")
    return figure


# Differences at equal seeds


def paired_table(train: DataFrame) -> DataFrame:
    """Top-1 of each group minus that of binary with the same seed, over the seeds that both have.

    Binary is the plain one under the main recipe. `total_ratio` is the number of parameters over binary's,
    `effectual_ratio` that of effectual weights, `differs` the options that differ. Groups without a common seed are
    left out. Raises MissingRecord without such a binary run.
    """
    base = runs.find(train, "binary")
    found = []
    for label, group in runs.groups(train).items():
        try:
            difference = runs.paired(group, base)
        except MissingRecord:
            continue
        found.append(
            {"label": label, "quantizer": group["quantizer"].iloc[0], "baseline": base["label"].iloc[0]}
            | runs.difference_columns(difference)
            | {f"{size}_ratio": group[column].mean() / base[column].mean() for size, column in _SIZES.items()}
            | {"differs": ", ".join(runs.changed_options(group["config"].iloc[0], base["config"].iloc[0]))}
        )
    table = DataFrame(found)
    return table[table["label"] != base["label"].iloc[0]].reset_index(drop=True) if found else table


_SIZES = {"total": "total_parameters", "effectual": "effectual_weights"}


def sizes_table(train: DataFrame) -> DataFrame:
    """The designs of signed binary beside the binary network of nearest size: the paper's two comparisons.

    One row per design and `size` that is held equal, all `total` parameters or the `effectual` weights. `rival` is the
    plain binary group of the same model whose size is nearest (in ratio), `ratio` the design's size over its.
    Empty where either is missing.
    """
    groups = runs.groups(train)
    binary = [group for group in groups.values() if group["design"].iloc[0] == "binary"]
    found = []
    for label, group in groups.items():
        rivals = [rival for rival in binary if rival["model"].iloc[0] == group["model"].iloc[0]]
        if group["design"].iloc[0] == "" or group["quantizer"].iloc[0] != "signed_binary" or not rivals:
            continue
        for size, column in _SIZES.items():
            ours = group[column].mean()
            rival = min(rivals, key=lambda rival: abs(math.log(rival[column].mean() / ours)))
            if not len(runs.paired_differences(group, rival)):
                continue
            found.append(
                {"label": label, "size": size, "rival": rival["label"].iloc[0], "ratio": ours / rival[column].mean()}
                | runs.difference_columns(runs.paired(group, rival))
            )
    return DataFrame(found)


# Published numbers


def published_table(path: str | Path) -> DataFrame:
    """Published accuracies of anchors.toml against the effectual weights of their networks' quantized layers.

    `weights` is the scheme's label. `bound` marks those whose source states no density: they have at most that many.
    Raises ValueError naming an anchor's network that is not one of NETWORK_SHAPES.
    """
    found = []
    optional = ("top1_percent", "error_percent", "density")
    forms = dict.fromkeys(("data", "network", "method", "scheme", "setting", "source"), str)
    for anchor in tables(Path(path), "anchor", forms | dict.fromkeys(optional, int | float), optional):
        choice(f"{anchor['method']}: network", anchor["network"], NETWORK_SHAPES)
        weights = sum(shape.weights for shape in NETWORK_SHAPES[anchor["network"]])
        found.append(
            {key: anchor[key] for key in ("data", "network", "method", "scheme")}
            | {"weights": SCHEMES[anchor["scheme"]].label}
            | {"top1_percent": anchor.get("top1_percent", 100 - anchor.get("error_percent", math.nan))}
            | {"quantized_weights": weights, "density": anchor.get("density", math.nan)}
            | {"effectual_weights": weights * anchor.get("density", 1.0), "bound": "density" not in anchor}
            | {key: anchor[key] for key in ("setting", "source")}
        )
    return DataFrame(found)


@drawn
def fig_pareto_published(table: DataFrame) -> Figure:
    """Published accuracies of `published_table` against effectual weights, one panel per data set, all hollow.

    "At most": the source states no density, and the point is the most weights that can be effectual.
    """
    known = schemes(table["scheme"])
    panels = dict(list(table.groupby("data", sort=False)))
    height = max(2.2, 0.6 + ROW * max(map(len, panels.values())))
    figure, axes = plt.subplots(1, len(panels), figsize=(PAGE, height), squeeze=False)
    hollow = {"markerfacecolor": "white", "markeredgewidth": 1.2}
    for axis, (data, points) in zip(axes[0], panels.items(), strict=True):
        axis.set_xscale("log")
        for row in points.itertuples():
            look = LOOKS[row.scheme]
            axis.plot(row.effectual_weights, row.top1_percent, look.marker, color=look.color, ms=5, **hollow)
        axis.margins(y=0.12)
        low, high = points["effectual_weights"].min() / 1.4, points["effectual_weights"].max()
        at = high * (high / low) ** 0.2
        axis.set_xlim(low, at * (at / low) ** 1.6)  # as much room for names as for points
        plain_log(axis.xaxis, low, high * 1.02)
        places = points["method"] + ", " + points["network"].str.replace("resnet", "ResNet-")
        names = places + points["bound"].map({True: " (at most)", False: ""})
        colors = points["scheme"].map(PALETTE)
        label_points(axis, names, colors, points["effectual_weights"], points["top1_percent"], at)
        axis.set_title(data)
    axes[0, 0].set_ylabel("top-1 accuracy, %")
    figure.supxlabel("effectual weights of the quantized layers (published: no run of this profile)", fontsize=8)
    head(
        figure,
        "Published networks: accuracy against effectual weights, each with its own recipe",
        scheme_handles(known, **hollow),
    )
    return figure


# Training


def curves_table(train: DataFrame) -> DataFrame:
    """Top-1 on the test images: one row per run and epoch."""
    columns = ("epoch", "top1_percent")
    return runs.from_history(
        train, lambda history: ({key: epoch[key] for key in columns} for epoch in history["epochs"])
    )


@drawn
def fig_curves(table: DataFrame) -> Figure:
    """Top-1 per epoch of `curves_table`: the mean over seeds as a line, every seed faint behind it."""
    figure, axis = plt.subplots(figsize=(COLUMN, max(2.3, 0.6 + ROW * table["label"].nunique())))
    label_ends(axis, seed_lines(axis, table, "epoch", "top1_percent"))
    axis.set(xlabel="epoch", ylabel="top-1 accuracy, %")
    low, high = axis.get_ylim()  # names may need more room than percentages have
    axis.set_yticks([place for place in axis.get_yticks() if low <= place <= min(high, 100)])
    head(figure, "How accuracy grows with training")
    return figure
