"""03_accuracy: top-1 of each design, paired by seed, and against effectual weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.evidence import runs
from sbkit.evidence.stats import shown, summary
from sbkit.figures import layout, style

# Top-1 and sizes


def accuracy_table(train: DataFrame) -> DataFrame:
    """One row per group: top-1 mean, 95 % half width and extremes, and the density and size of its models.

    `effectual_weights` are the non-zero ones of the quantized layers, mean over runs; `total_parameters` all that the
    network trains, layers in full precision included. `front` marks groups that no other beats (`pareto_front`).
    """
    table = summary(train, ["label", "quantizer"], "top1_percent")
    table.columns = ["label", "quantizer", "top1_mean_percent", "top1_half_width_percent", "n"]
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


@style.drawn
def fig_accuracy(table: DataFrame) -> Figure:
    """Top-1 of every run of `seed_table` as a pale point; below it the group's mean with its 95 % interval."""
    groups = table.drop_duplicates("label")
    names = [f"{layout.short(row.label, 26, lines=2)} (n={row.n})" for row in groups.itertuples()]
    figure, axis = plt.subplots(figsize=(style.COLUMN, 0.4 + 1.6 * layout.rows_height(names)))
    heights = layout.rows(axis, names)
    runs_at = table["label"].map(dict(zip(groups["label"], heights, strict=True)))
    colors = table["quantizer"].map(style.PALETTE)
    axis.scatter(table["top1_percent"], runs_at + 0.22, s=9, c=colors, alpha=0.5, linewidth=0)
    looks = [style.LOOKS[scheme] for scheme in groups["quantizer"]]
    layout.forest(axis, heights - 0.12, groups["top1_mean_percent"], groups["top1_half_width_percent"], looks, size=5)
    low, high = axis.get_xlim()
    axis.set(xlim=(max(low, 0), min(high, 100)), xlabel="top-1 accuracy, %", ylabel="")
    layout.head(figure, "How accurate each design is: seeds and mean")
    return figure


@style.drawn
def fig_pareto(table: DataFrame) -> Figure:
    """Top-1 against effectual weights of `accuracy_table`: the front as a line, the groups behind it pale."""
    table = table.sort_values("effectual_weights", kind="stable")
    weights, colors = table["effectual_weights"], table["quantizer"].map(style.PALETTE)
    figure, axis = plt.subplots(figsize=(style.COLUMN, max(2.6, 0.6 + style.ROW * len(table))))
    axis.set(xscale="log", xlabel="effectual weights", ylabel="top-1 accuracy, %")
    for row, color in zip(table.itertuples(), colors, strict=True):
        look = {"fmt": style.MARKERS[row.quantizer], "color": color, "alpha": 1.0 if row.front else 0.4}
        spread = row.top1_half_width_percent if row.n > 1 else None
        place = row.effectual_weights, row.top1_mean_percent
        axis.errorbar(*place, spread, elinewidth=0.8, zorder=3, markeredgewidth=0, **look)
    front = table[table["front"]]
    axis.plot(front["effectual_weights"], front["top1_mean_percent"], color="0.6", linewidth=0.8, zorder=1)
    low, high = weights.min(), weights.max()
    axis.set_xlim(low / 1.25, high * (high / low) ** 0.75 * 1.6)  # room for the names right of the last point
    layout.plain_log(axis.xaxis, low / 1.25, high * 1.25)
    layout.percent_axis(axis)
    names = [layout.short(name, 24) for name in table["label"]]
    layout.label_points(axis, names, colors, weights, table["top1_mean_percent"], high * 1.3)
    layout.head(figure, "Which designs are most accurate for their effectual weights")
    return figure


# Differences at equal seeds


_SIZES = {"total": "total_parameters", "effectual": "effectual_weights"}


def paired_table(train: DataFrame) -> DataFrame:
    """Top-1 of each group minus binary's with the same seed, over the seeds that both have.

    Binary is the plain one under the main recipe. `total_ratio` and `effectual_ratio` are the
    numbers of parameters and of effectual weights over binary's, `differs` the options that differ. Groups without a
    common seed are left out. Raises MissingRecord without such a binary run.
    """
    base = runs.find(train, "binary")
    found = []
    for label, group in runs.groups(train).items():
        if label == base["label"].iloc[0] or not len(runs.paired_differences(group, base)):
            continue
        found.append(
            {"label": label, "quantizer": group["quantizer"].iloc[0], "baseline": base["label"].iloc[0]}
            | runs.difference_columns(runs.paired(group, base))
            | {f"{size}_ratio": group[column].mean() / base[column].mean() for size, column in _SIZES.items()}
            | {"differs": ", ".join(runs.changed_options(group["config"].iloc[0], base["config"].iloc[0]))}
        )
    return DataFrame(found)


def bits_table(train: DataFrame) -> DataFrame:
    """What activations of few bits cost: one row per group that has them, in the frame's order.

    `floats` is the top-1 of the group with activations in floats and all else alike, but for outer layers, which are
    floats then; `difference` is what these integers change at equal seeds. Both are "-" where that group has no run of
    these seeds. Empty where no activations have few bits.
    """
    groups, top1 = runs.groups(train), accuracy_table(train).set_index("label")["top1"]
    configs = {label: runs.unseeded(group["config"].iloc[0]) for label, group in groups.items()}
    found = []
    for label, config in configs.items():
        if "activation_bits" not in config:
            continue
        alike = {key: value for key, value in config.items() if key not in ("activation_bits", "outer_layers")}
        base = next((other for other, theirs in configs.items() if theirs == alike), None)
        row = {"label": label, "bits": config["activation_bits"], "top1": top1[label]}
        row |= {"floats": "-", "n": 0, "difference": "-"}
        if base and len(runs.paired_differences(groups[label], groups[base])):
            row |= {"floats": top1[base]} | runs.difference_columns(runs.paired(groups[label], groups[base]))
        found.append(row)
    return DataFrame(found)


def sizes_table(train: DataFrame) -> DataFrame:
    """The designs of signed binary beside the binary network of nearest size: the paper's two comparisons, and bits.

    One row per design and `size` that is held equal: all `total` parameters, the `effectual` weights, or, for designs
    that take more or less than one bit a weight, the stored `bits` of quantized weights without scales. `rival` is the
    plain binary group of the same model whose size is nearest (in ratio), `ratio` the design's size over its. Empty
    where either is missing.
    """
    groups = runs.groups(train.assign(bits=train["quantized_weights"] * train["weight_bits"]))
    binary = [group for group in groups.values() if group["design"].iloc[0] == "binary"]
    found = []
    for label, group in groups.items():
        first = group.iloc[0]
        rivals = [rival for rival in binary if rival["model"].iloc[0] == first["model"]]
        if first["design"] == "" or first["quantizer"] != "signed_binary" or not rivals:
            continue
        sizes = _SIZES if first["weight_bits"] == 1 else _SIZES | {"bits": "bits"}
        for size, column in sizes.items():
            ratios = [group[column].mean() / rival[column].mean() for rival in rivals]
            ratio, rival = min(zip(ratios, rivals, strict=True), key=lambda pair: abs(math.log(pair[0])))
            if len(runs.paired_differences(group, rival)):
                found.append(
                    {"label": label, "size": size, "rival": rival["label"].iloc[0], "ratio": ratio}
                    | runs.difference_columns(runs.paired(group, rival))
                )
    return DataFrame(found)
