"""04_ablate: what one change of the paper's design is worth, and what pattern codebooks save."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.designs import DESIGNS
from sbkit.evidence import benchmarks, runs
from sbkit.evidence.stats import MissingRecord, interval, measured
from sbkit.figures import layout, style

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
}
"""The options that each question is about, in the order of tables.

What the paper's Tables 3 and 5 ablate is not verified. A group belongs to the last question that has one of the options
it changes: regions are assigned at random, but are no test of the assignment.
"""


def ablation_table(train: DataFrame) -> DataFrame:
    """Top-1 of each changed design minus signed binary's at the same seed, by question and best first.

    Compared are the groups of signed-binary runs whose changes all belong to a question: one with another network,
    learning rate or number of epochs is no change of the design. `change` names the group briefly, `setting` lists what
    it sets otherwise, and `over_binary` is the difference to binary. Empty where there is nothing to compare.
    """
    base, binary = (_found(train, design) for design in ("signed_binary", "binary"))
    known = {option for options in QUESTIONS.values() for option in options}
    signed = runs.groups(train[train["quantizer"] == "signed_binary"]) if len(base) else {}
    found = []
    for label, group in signed.items():
        config, own = group["config"].iloc[0], base["config"].iloc[0]
        changed = set(runs.changed_options(config, own))
        if not changed or not changed <= known or not len(runs.paired_differences(group, base)):
            continue
        setting, over_binary = runs.setting(config, own), runs.paired_differences(group, binary)
        found.append(
            {"question": [question for question, options in QUESTIONS.items() if changed & set(options)][-1]}
            | {"change": min(label, setting, key=len), "label": label, "quantizer": "signed_binary"}
            | runs.difference_columns(runs.paired(group, base))
            | {"over_binary": str(measured(over_binary)) if len(over_binary) else ""}
            | {"density": group["density"].mean(), "setting": setting}
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


@style.drawn
def fig_ablation(table: DataFrame) -> Figure:
    """The differences of `ablation_table` with their intervals; pale where an interval holds 0 or is not known."""
    names = [f"{layout.short(row.change, 60)} (n={row.n})" for row in table.itertuples()]
    headings = table["question"].tolist()
    figure, axis = plt.subplots(figsize=(style.PAGE, 0.45 + layout.rows_height(names, headings)))
    means, half_widths = table["difference_mean_points"], table["difference_half_width_points"]
    looks = [style.LOOKS[scheme] for scheme in table["quantizer"]]
    heights = layout.rows(axis, names, headings)
    layout.forest(axis, heights, means, half_widths, looks, faint=~(means.abs() > half_widths))
    layout.points_axis(axis)
    axis.set_xlabel(f"top-1 over {DESIGNS['signed_binary'].label}, points")
    layout.head(figure, "What one change of the paper's signed-binary design is worth, in points of top-1")
    return figure


# Codebooks

_TAP_SIGNS = {"region_taps": 1, "assignment": "random", "threshold": "mean", "delta_factor": 1.0}
"""The options of designs with random signs per region at one tap, apart from the size of a region."""


def codebook_table(train: DataFrame, bench: DataFrame) -> DataFrame:
    """What pattern codebooks cost in accuracy and save in bits and time: a row per design, and two for comparison.

    Designs are the groups under the main recipe (where no codebook was trained by it, under any) with random signs per
    region of G `channels` at one tap, and binary ones with a codebook of signs; `masks` tells how many patterns a
    region chooses among. The others are binary and the paper's signed binary. Differences in top-1 are to binary at the
    same seed. `time` is the latency of the benchmark's layers together, binary in its fastest way being 1, by the
    fastest way for codes like these (`ran`); NaN without such a benchmark. Empty without binary, or if no group has a
    codebook.
    """
    coded = DataFrame(train[["codebook_bits" in config for config in train["config"]]] if len(train) else train)
    binary = _found(train, "binary")
    if binary.empty or coded.empty:
        return DataFrame()
    groups = runs.groups(train[train["main"].astype(bool)] if coded["main"].any() else train)
    configs = {label: group["config"].iloc[0] for label, group in groups.items()}
    times = _times(benchmarks.find(bench, "codebooks"))
    found = []
    for label, group in groups.items():
        config, first = configs[label], group.iloc[0]
        codebook = "codebook_bits" in config or config.items() >= _TAP_SIGNS.items()
        if not codebook and first["design"] not in ("binary", "signed_binary"):
            continue
        scheme, bits, channels = first["quantizer"], config.get("codebook_bits", 0), config.get("region_channels", 0)
        timed = (scheme, bits, channels if bits else 4 * (channels > 0))
        if scheme == "signed_binary" and config.get("codebook") == "random":
            timed = None  # random masks are denser than the sparsest, which the benchmark ran
        time, half_width, ran = times.get(timed, (math.nan, math.nan, ""))
        found.append(
            {"label": label, "quantizer": scheme, "channels": channels, "masks": _masks(config)}
            | {"weight_bits": first["weight_bits"], "density": group["density"].mean()}
            | runs.difference_columns(runs.paired(group, binary))
            | {"time": time, "time_half_width": half_width, "ran": ran}
        )
    order = {"by": ["channels", "weight_bits"], "ascending": [True, False]}
    return DataFrame(found).sort_values(**order, kind="stable", ignore_index=True)


def _masks(config: runs.Config) -> str:
    """What a region chooses among, for people."""
    if "codebook_bits" not in config:
        return "any mask"
    text = f"{2 ** config['codebook_bits']} {config.get('codebook', 'masks')}"
    return text + " of ±1" * (config.get("quantizer") == "binary")


def _times(timings: DataFrame) -> dict[tuple[str, int, int], tuple[float, float, str]]:
    """Latency over binary's best, its half width and the way that took it, by scheme, codebook bits and channels."""
    totals = {way: benchmarks.total_ms(rows) for way, rows in benchmarks.ways_of(timings)} if len(timings) else {}
    fastest = {}
    for way in sorted((way for way in totals if way.scheme), key=lambda way: -np.median(totals[way])):
        fastest[way.scheme, way.codebook_bits, way.regions] = way
    found = {}
    for kind, way in fastest.items():
        found[kind] = (*interval(totals[way] / totals[fastest["binary", 0, 0]]), way.label())
    return found


@style.drawn
def fig_codebooks(table: DataFrame) -> Figure:
    """Accuracy of `codebook_table` against bits a weight and latency; darker: regions of more channels."""
    costs = {"weight_bits": "stored bits a weight", "time": "latency, binary = 1"}
    costs = {column: name for column, name in costs.items() if table[column].notna().any()}
    size = (style.PAGE if len(costs) > 1 else style.COLUMN, max(2.4, 0.6 + style.ROW * len(table)))
    figure, axes = plt.subplots(1, len(costs), figsize=size, squeeze=False, sharey=True)
    most = max(table["channels"].max(), 1)
    for axis, (column, name) in zip(axes.flat, costs.items(), strict=True):
        points = table[table[column].notna()]
        names, colors = [], []
        for row in points.itertuples():
            look = style.LOOKS[row.quantizer]
            names.append(f"{row.masks}, G = {row.channels}" if row.channels else look.label)
            colors.append(style.tint(look.color, 0.55 + 0.45 * row.channels / most if row.channels else 1))
            error = {"xerr": row.time_half_width if column == "time" else 0, "yerr": row.difference_half_width_points}
            error = {side: width for side, width in error.items() if width > 0}  # NaN for one seed
            shape = {"fmt": "o" if row.channels else look.marker, "color": colors[-1], "elinewidth": 0.6, "zorder": 3}
            axis.errorbar(getattr(row, column), row.difference_mean_points, **shape, **error)
        axis.set_xlabel(name)
        axis.set_xlim(left=0)
        at = layout.make_room(axis, ticks=5, room=0.55)
        axis.plot([0, at], [0, 0], color="black", linewidth=0.7, zorder=1)
        layout.label_points(axis, names, colors, points[column], points["difference_mean_points"], at)
    axes[0, 0].set_ylabel("top-1 minus binary's, points")
    title = "What regions that choose among few patterns cost in accuracy, and save in bits and time"
    layout.head(figure, title, layout.scheme_handles(style.schemes(table["quantizer"])))
    return figure
