"""10_open_review: the answers, linear layers, corruptions and attacks."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from sbkit.evidence import changed_images, questions, runs
from sbkit.evidence.gather import gather
from sbkit.evidence.measures import Measurer
from sbkit.evidence.stats import interval, summary
from sbkit.figures.layout import forest, head, percent_axis, rows, rows_height, scheme_handles, short
from sbkit.figures.style import LOOKS, PAGE, drawn, schemes
from sbkit.schemes import SCHEMES

LINEAR_MODELS = {"mlp": "MLP", "transformer": "transformer"}
"""By key, the name of the networks without convolutions."""


# Answers


def answers(listed: Iterable[Mapping[str, Any]], results: Path, profile: str) -> tuple[DataFrame, DataFrame]:
    """The tables of answers and of the numbers below them, for the records of a profile below `results`.

    A number that these records do not give is measured on the committed records that its answer was written from.
    """
    listed = list(listed)
    measurer = functools.cache(lambda name: Measurer(gather(results / name)))  # of the profiles that are asked
    numbers = questions.numbers_table(listed, measurer, profile)
    return questions.answers_table(listed, numbers), numbers


# Linear layers


def linear_table(train: DataFrame) -> DataFrame:
    """One row per run of a network without convolutions, with its group's mean and interval.

    Columns: model, label, quantizer, seed, top1_percent, density, top1_percent_mean, top1_percent_half_width, n. Labels
    name what differs from that network's own main recipe. Empty without such a run.
    """
    if "model" not in train:
        return DataFrame()
    tables = []
    for model in LINEAR_MODELS:
        own = train[train["model"] == model]
        if own.empty:
            continue
        own = runs.grouped(own[[name for name in own if name not in ("group", "label", "design", "main")]])
        columns = ["model", "label", "quantizer", "seed", "top1_percent", "density"]
        tables.append(own[columns].merge(summary(own, ["label"], "top1_percent"), on="label"))
    return pd.concat(tables, ignore_index=True) if tables else DataFrame()


@drawn
def fig_linear(table: DataFrame) -> Figure:
    """Top-1 of `linear_table`: a faint point per run, each group's mean and 95 % interval, a heading per network."""
    groups = table.drop_duplicates(["model", "label"])
    names = [short(label, 40) for label in groups["label"]]
    headings = [LINEAR_MODELS[model] for model in groups["model"]]
    figure, axis = plt.subplots(figsize=(PAGE, 0.75 + rows_height(names, headings)))
    heights = rows(axis, names, headings)
    looks = [LOOKS[scheme] for scheme in groups["quantizer"]]
    forest(axis, heights, groups["top1_percent_mean"], groups["top1_percent_half_width"], looks)
    for row, y, look in zip(groups.itertuples(), heights, looks, strict=True):
        own = table[(table["model"] == row.model) & (table["label"] == row.label)]
        axis.plot(own["top1_percent"], [y] * len(own), "|", color=look.color, markersize=6, alpha=0.6)
    axis.set_xlabel("top-1 accuracy, %")
    head(figure, "How accurate networks of quantized linear layers are: each seed, mean and 95 % interval")
    return figure


# Corruptions and attacks


def robustness_table(train: DataFrame) -> DataFrame:
    """Accuracy on corrupted and attacked images: mean and 95 % half width of each group, test and strength.

    `kind` is "corruption", whose strength is a severity, or "attack", whose strength is epsilon over the range of a
    pixel; strength 0 is the same images as they are. `plain` marks schemes without changes. Empty without runs that
    were tested so.
    """
    tests = changed_images.tests(train)
    if tests.empty:
        return tests
    plain = set(train.loc[train["main"].astype(bool) & train["design"].isin(list(SCHEMES)), "label"])
    found = []
    keys = ["label", "quantizer", "kind", "test", "strength"]
    for place, group in tests.groupby(keys, sort=False):
        mean, half_width = interval(group["top1_percent"])
        row = dict(zip(keys, place, strict=True)) | {"n": len(group), "plain": place[0] in plain}
        found.append(row | {"top1_mean_percent": mean, "top1_half_width_percent": half_width})
    return DataFrame(found)


@drawn
def fig_robustness(table: DataFrame) -> Figure:
    """Accuracy of `robustness_table` against the strength of each corruption and attack, with 95 % intervals.

    Strength 0 is the same images as they are. Drawn are the schemes without changes.
    """
    table = table[table["plain"]]
    shown = schemes(table["quantizer"])
    tests = list(dict.fromkeys(zip(table["kind"], table["test"], strict=True)))
    wide = min(4, len(tests))
    tall = -(-len(tests) // wide)
    figure, axes = plt.subplots(tall, wide, figsize=(PAGE, 0.7 + 1.55 * tall), sharey=True, squeeze=False)
    for axis in axes.flat[len(tests) :]:
        axis.set_visible(False)
    for axis, (kind, test) in zip(axes.flat, tests, strict=False):
        of_test = table[(table["kind"] == kind) & (table["test"] == test)].sort_values("strength")
        for scheme in shown:
            line, look = of_test[of_test["quantizer"] == scheme], LOOKS[scheme]
            axis.errorbar(
                255 * line["strength"] if kind == "attack" else line["strength"],
                line["top1_mean_percent"],
                yerr=line["top1_half_width_percent"],
                fmt=f"{look.marker}-",
                color=look.color,
                markersize=2.5,
                linewidth=0.9,
                elinewidth=0.6,
            )
        axis.set_title(test.upper() if kind == "attack" else test.replace("_", " "), fontsize=7)
        axis.set_xlabel("ε, of 255" if kind == "attack" else "severity", fontsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.grid(axis="y")
    percent_axis(axes[0, 0])
    figure.supylabel("top-1 accuracy, %", fontsize=7)
    head(
        figure, "How accurate each scheme stays on corrupted and attacked images", scheme_handles(shown, linestyle="-")
    )
    return figure
