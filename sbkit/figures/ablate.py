"""04_ablate: what one change of the paper's design is worth, what a lower density costs, and what codebooks save."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.designs import DESIGNS
from sbkit.evidence import benchmarks, runs
from sbkit.evidence.stats import Measured, MissingRecord, measured, summary
from sbkit.figures.layout import (
    forest,
    head,
    label_points,
    make_room,
    points_axis,
    rows,
    rows_height,
    scheme_handles,
    short,
)
from sbkit.figures.style import COLUMN, LOOKS, PAGE, PALETTE, ROW, drawn, schemes, tint

# One change of the design

QUESTIONS: dict[str, tuple[str, ...]] = {
    "assignment and split (Tables 2, 4)": ("positive_fraction", "assignment", "swap_at"),
    "estimator (Tables 3, 5?)": ("estimator", "standardize"),
    "threshold (Tables 3, 5?)": ("threshold", "delta_factor", "delta_axis"),
    "non-linearity": ("nonlinearity",),
    "regularisation": ("l1", "weight_decay"),
    "scale": ("scale",),
    "distillation and starting weights": ("distill_from", "start_from"),
    "regions and signs (beyond the paper)": ("region_channels", "region_taps", "channel_signs"),
    "pattern codebooks (beyond the paper)": ("codebook_bits", "codebook"),
    "arithmetic of training": ("precision",),
}
"""The options that each question is about, in the order of tables.

What the paper's Tables 3 and 5 ablate is not verified. A group belongs to the last question that has one of the options
it changes: regions are assigned at random, but are no test of the assignment.
"""


def ablation_table(train: DataFrame) -> DataFrame:
    """Top-1 of each changed design minus that of signed binary at the same seed, by question and best first.

    Compared are the groups of signed-binary runs whose changes all belong to a question: one with another network,
    learning rate or number of epochs is no change of the design. `change` names the group briefly, `setting` lists what
    it sets otherwise, `density` is the mean of its models, and `over_binary` the difference to binary. Empty without a
    signed-binary group under the main recipe, or where nothing was changed.
    """
    try:
        base = runs.find(train, "signed_binary")
    except MissingRecord:
        return DataFrame()
    binary = _found(train, "binary")
    known = {option for options in QUESTIONS.values() for option in options}
    found = []
    for label, group in runs.groups(train[train["quantizer"] == "signed_binary"]).items():
        config, own = group["config"].iloc[0], base["config"].iloc[0]
        changed = set(runs.changed_options(config, own))
        if not changed or not changed <= known or not len(runs.paired_differences(group, base)):
            continue
        difference, setting = runs.paired(group, base), runs.setting(config, own)
        found.append(
            {"question": [question for question, options in QUESTIONS.items() if changed & set(options)][-1]}
            | {"change": min(label, setting, key=len), "label": label, "quantizer": "signed_binary"}
            | {"n": difference.n, "difference": str(difference), "over_binary": _text(group, binary)}
            | {"density": group["density"].mean(), "setting": setting}
            | {"difference_mean_points": difference.value, "difference_half_width_points": difference.half_width}
        )
    if not found:
        return DataFrame()
    table = DataFrame(found).astype({"question": pd.CategoricalDtype(list(QUESTIONS), ordered=True)})
    order = {"by": ["question", "difference_mean_points"], "ascending": [True, False]}
    return table.sort_values(**order, kind="stable", ignore_index=True).astype({"question": str})


def _found(train: DataFrame, design: str) -> DataFrame:
    """The runs of a design under the main recipe, no rows without any."""
    try:
        return runs.find(train, design)
    except MissingRecord:
        return train.head(0)


def _text(group: DataFrame, base: DataFrame) -> str:
    """The paired difference to a base for people, empty without a common seed."""
    differences = runs.paired_differences(group, base)
    return str(measured(differences)) if len(differences) else ""


@drawn
def fig_ablation(table: DataFrame) -> Figure:
    """Paired top-1 differences of `ablation_table` with their 95 % intervals, by question and best first.

    The line at 0 is the paper's design. Pale: an interval that holds 0, or a single run, which has none.
    """
    names = [f"{short(row.change, 60)} (n={row.n})" for row in table.itertuples()]
    headings = table["question"].tolist()
    figure, axis = plt.subplots(figsize=(PAGE, 0.45 + rows_height(names, headings)))
    means, half_widths = table["difference_mean_points"], table["difference_half_width_points"]
    looks = [LOOKS[scheme] for scheme in table["quantizer"]]
    forest(axis, rows(axis, names, headings), means, half_widths, looks, faint=~(means.abs() > half_widths))
    points_axis(axis)
    axis.set_xlabel(f"top-1 over {DESIGNS['signed_binary'].label}, points")
    head(figure, "Top-1 of signed binary with one change of its design, over the paper's design")
    return figure


# Density against accuracy

_FAMILIES = {
    "threshold": ("signed_binary", QUESTIONS["threshold (Tables 3, 5?)"]),
    "threshold, learned signs": ("learned_signs", ("delta_factor",)),
    "L1": ("signed_binary", ("l1",)),
    "weight decay": ("signed_binary", ("weight_decay",)),
}
"""By family the design that it starts from and the options of which its members change some, and nothing else."""


def density_accuracy_table(train: DataFrame) -> DataFrame:
    """Density and top-1 of signed-binary designs and of the groups that change their threshold or penalty alone.

    One row per family and group, the family's start among them, densest last; means and 95 % half widths over seeds.
    `change` names what the group sets otherwise than the start. Families without any change are left out.
    """
    tables = []
    for family, (design, options) in _FAMILIES.items():
        start = _found(train, design)
        if start.empty:
            continue
        own = start["config"].iloc[0]
        changes = {label: runs.setting(g["config"].iloc[0], own) for label, g in runs.groups(train).items()}
        chosen = [set(runs.changed_options(config, own)) <= set(options) for config in train["config"]]
        members = train[chosen]
        if members["label"].nunique() < 2:
            continue
        by = ["label", "quantizer"]
        density, top1 = (summary(members, by, column) for column in ("density", "top1_percent"))
        found = density.merge(top1.drop(columns="n"), on=by).sort_values("density_mean", kind="stable")
        found.insert(0, "change", found["label"].map(changes).replace("", DESIGNS[design].label))
        tables.append(found.assign(family=family))
    return pd.concat(tables, ignore_index=True) if tables else DataFrame()


@drawn
def fig_density_accuracy(table: DataFrame) -> Figure:
    """Top-1 against density of `density_accuracy_table`, a panel per family, every point labelled."""
    families = dict(list(table.groupby("family", sort=False)))
    wide = min(2, len(families))
    tall = -(-len(families) // wide)
    most = max(map(len, families.values()))
    size = (PAGE if wide > 1 else COLUMN, 0.3 + tall * max(1.6, 0.5 + ROW * most))
    figure, axes = plt.subplots(tall, wide, figsize=size, squeeze=False)
    for axis in axes.flat[len(families) :]:
        axis.set_axis_off()
    for axis, (family, points) in zip(axes.flat, families.items(), strict=False):
        for row in points.itertuples():
            look = LOOKS[row.quantizer]
            widths = {"xerr": row.density_half_width, "yerr": row.top1_percent_half_width} if row.n > 1 else {}
            place = (row.density_mean, row.top1_percent_mean)
            axis.errorbar(*place, fmt=look.marker, color=look.color, elinewidth=0.6, **widths)
        axis.set_title(family)
        at = make_room(axis, ticks=3, room=1.0, most=1)
        colors = points["quantizer"].map(PALETTE)
        names = [short(name, 38) for name in points["change"]]
        label_points(axis, names, colors, points["density_mean"], points["top1_percent_mean"], at)
    for axis in axes[:, 0]:
        axis.set_ylabel("top-1 accuracy, %")
    figure.supxlabel("density (non-zero fraction)", fontsize=8)
    head(figure, "Top-1 against the density that a threshold or a penalty leaves")
    return figure


# Codebooks

_TAP_SIGNS = {"region_taps": 1, "assignment": "random", "threshold": "mean", "delta_factor": 1.0}
"""The options of designs with random signs per region at one tap, apart from the size of a region."""


def codebook_table(train: DataFrame, bench: DataFrame) -> DataFrame:
    """What pattern codebooks cost in accuracy and save in bits and time: a row per design, and two for comparison.

    Designs are the groups under the main recipe with random signs per region of G `channels` at one tap, and binary
    ones with a codebook of signs; `masks` tells how many patterns a region chooses among. The others are binary and the
    paper's signed binary. Empty without binary, or if no group has a codebook.

    weight_bits  stored bits a weight
    difference   of top-1 to binary's at the same seed, points, also as two numbers
    same_bits    the same to binary with a codebook of as many patterns for as many channels, the more accurate of its
                 designs
    latency      of the benchmark's layers together, binary in its fastest way being 1, by the fastest way for codes
                 like these (`ran`), over rounds; also as two numbers. Codes of regions of any mask have the density of
                 Delta = mean |w|. NaN without such a benchmark, as of random masks, which are denser
    """
    groups = runs.groups(train[train["main"].astype(bool)]) if len(train) else {}
    configs = {label: group["config"].iloc[0] for label, group in groups.items()}
    binary = _found(train, "binary")
    if binary.empty or not any("codebook_bits" in config for config in configs.values()):
        return DataFrame()
    rivals, times = _rivals(groups), _times(benchmarks.find(bench, "codebooks"))
    found = []
    for label, group in groups.items():
        config = configs[label]
        if not (group["design"].iloc[0] in ("binary", "signed_binary") or _is_codebook(config)):
            continue
        scheme, bits, channels = (
            group["quantizer"].iloc[0],
            config.get("codebook_bits", 0),
            config.get("region_channels", 0),
        )
        rival = rivals.get((bits, channels), train.head(0)) if scheme == "signed_binary" else train.head(0)
        timed = (scheme, bits, channels if bits else 4 * (channels > 0))
        denser = (
            scheme == "signed_binary" and config.get("codebook") == "random"
        )  # the benchmark has the sparsest masks
        time, ran = (None, "") if denser else times.get(timed, (None, ""))
        difference = runs.paired(group, binary)
        found.append(
            {
                "label": label,
                "quantizer": scheme,
                "scheme": LOOKS[scheme].label,
                "channels": channels,
                "masks": _masks(config),
            }
            | {"weight_bits": group["weight_bits"].iloc[0], "density": group["density"].mean()}
            | {"top1_mean_percent": group["top1_percent"].mean(), "n": len(group)}
            | {"difference": str(difference), "same_bits": _text(group, rival)}
            | {"latency": str(time or ""), "ran": ran}
            | {"difference_mean_points": difference.value, "difference_half_width_points": difference.half_width}
            | {"time": time.value if time else math.nan, "time_half_width": time.half_width if time else math.nan}
        )
    order = {"by": ["channels", "weight_bits"], "ascending": [True, False]}
    return DataFrame(found).sort_values(**order, kind="stable", ignore_index=True)


def _is_codebook(config: runs.Config) -> bool:
    return "codebook_bits" in config or config.items() >= _TAP_SIGNS.items()


def _masks(config: runs.Config) -> str:
    """What a region chooses among, for people."""
    if "codebook_bits" not in config:
        return "any mask"
    text = f"{2 ** config['codebook_bits']} {config.get('codebook', 'masks')}"
    return text + " of ±1" * (config.get("quantizer") == "binary")


def _rivals(groups: dict[str, DataFrame]) -> dict[tuple[int, int], DataFrame]:
    """The most accurate group of binary with a codebook, by its bits and channels."""
    found = {}
    for group in sorted(groups.values(), key=lambda group: group["top1_percent"].mean()):
        config = group["config"].iloc[0]
        if config.get("quantizer") == "binary" and "codebook_bits" in config:
            found[config["codebook_bits"], config["region_channels"]] = group
    return found


def _times(timings: DataFrame) -> dict[tuple[str, int, int], tuple[Measured, str]]:
    """Latency over binary's best, and the label of the way that took it, by scheme, codebook bits and channels."""
    if timings.empty:
        return {}
    totals = {way: benchmarks.total_ms(rows) for way, rows in benchmarks.ways_of(timings)}
    fastest = {}
    for way in sorted((way for way in totals if way.scheme), key=lambda way: -np.median(totals[way])):
        fastest[way.scheme, way.codebook_bits, way.regions] = way
    binary = totals[fastest["binary", 0, 0]]
    return {kind: (measured(totals[way] / binary), way.label()) for kind, way in fastest.items()}


@drawn
def fig_codebooks(table: DataFrame) -> Figure:
    """Accuracy of `codebook_table`, as a difference to binary, against bits a weight and, where timed, latency.

    Designs are circles, the darker the more channels a region has; binary and the paper's design look as everywhere.
    """
    costs = {"weight_bits": "stored bits a weight", "time": "latency, binary = 1"}
    costs = {column: name for column, name in costs.items() if table[column].notna().any()}
    size = (PAGE if len(costs) > 1 else COLUMN, max(2.4, 0.6 + ROW * len(table)))
    figure, axes = plt.subplots(1, len(costs), figsize=size, squeeze=False, sharey=True)
    most = max(table["channels"].max(), 1)
    shade = table["channels"].map(lambda channels: 0.55 + 0.45 * channels / most if channels else 1)
    table = table.assign(
        color=[tint(PALETTE[scheme], strength) for scheme, strength in zip(table["quantizer"], shade, strict=True)],
        name=[
            f"{row.masks}, G = {row.channels}" if row.channels else LOOKS[row.quantizer].label
            for row in table.itertuples()
        ],
    )
    for axis, (column, name) in zip(axes.flat, costs.items(), strict=True):
        points = table[table[column].notna()]
        for row in points.itertuples():
            error = {"xerr": row.time_half_width if column == "time" else 0, "yerr": row.difference_half_width_points}
            error = {side: width for side, width in error.items() if width > 0}  # NaN for one seed
            look = {"fmt": "o" if row.channels else LOOKS[row.quantizer].marker, "color": row.color}
            axis.errorbar(getattr(row, column), row.difference_mean_points, elinewidth=0.6, zorder=3, **look, **error)
        axis.set_xlabel(name)
        axis.set_xlim(left=0)
        at = make_room(axis, ticks=5, room=0.55)
        axis.plot([0, at], [0, 0], color="black", linewidth=0.7, zorder=1)
        label_points(axis, points["name"], points["color"], points[column], points["difference_mean_points"], at)
    axes[0, 0].set_ylabel("top-1 minus binary's, points")
    head(
        figure,
        "Top-1 against bits and latency of regions that choose among few patterns",
        scheme_handles(schemes(table["quantizer"])),
    )
    return figure
