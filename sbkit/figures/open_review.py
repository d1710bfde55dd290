"""10_open_review: the answers, what one change of the design is worth, linear layers, corruptions and attacks."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from sbkit.designs import DESIGNS
from sbkit.evidence import changed_images, questions, runs
from sbkit.evidence.gather import gather
from sbkit.evidence.measures import Measurer
from sbkit.evidence.measures.registry import Group
from sbkit.evidence.stats import MissingRecord, interval, summary
from sbkit.figures.layout import forest, head, percent_axis, points_axis, rows, rows_height, scheme_handles, short
from sbkit.figures.style import LOOKS, PAGE, ROW, drawn, schemes
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


# What one change is worth


class Comparison(NamedTuple):
    """Groups of training runs that differ from a base in stated options."""

    base: Group
    options: tuple[str, ...]  # of the configuration, all of which differ
    also: tuple[str, ...] = ()  # which may differ besides
    unsaid: tuple[str, ...] = ()  # which a name leaves out
    name: str = ""  # of the base, for people; empty: its label


def _each(base: Group, *options: str, also: tuple[str, ...] = ()) -> tuple[Comparison, ...]:
    """A comparison for each single option."""
    return tuple(Comparison(base, (option,), also) for option in options)


_PLAIN, _LEARNED, _RANDOM, _BINARY = map(Group, ("signed_binary", "learned_signs", "random_signs", "binary"))
_MLP = Group("binary", (("model", "mlp"), ("width", 0)))
_TRANSFORMER = Group("binary", (("scale", "mean"), ("model", "transformer"), ("width", 0)))
_FROZEN = ("start_from", "learning_rate")
_AFTER_TRAINING = ("quantizer", "epochs", "assignment", "region_channels", "scale")
_REGIONS = ("scale", "assignment", "region_channels")
_MASKS = ("codebook_bits",)

TOPICS: dict[tuple[str, str], tuple[Comparison, ...]] = {
    ("R4", "signs of the regions"): (
        *_each(_PLAIN, "positive_fraction", "assignment", "swap_at"),
        *_each(_RANDOM, "assignment"),
    ),
    ("R10", "schemes"): (
        Comparison(_PLAIN, ("quantizer",)),
        Comparison(_PLAIN, ("quantizer", "scale")),  # BWN
        Comparison(_PLAIN, ("quantizer", "estimator"), ("standardize",)),  # IR-Net
    ),
    ("R11", "quantized after training"): (Comparison(_PLAIN, _FROZEN, _AFTER_TRAINING, (*_FROZEN, "epochs", "scale")),),
    ("R12", "from trained weights"): _each(_PLAIN, "start_from"),
    ("R13", "linear layers"): (
        Comparison(_MLP, ("quantizer",), _REGIONS, _REGIONS, "binary, MLP"),
        Comparison(_TRANSFORMER, ("quantizer",), _REGIONS, ("scale", "assignment"), "binary, transformer"),
    ),
    ("Q1", "regions and masks"): (
        *_each(Group("signed_binary", (("assignment", "random"),)), "region_channels"),
        *_each(_LEARNED, "region_channels", "region_taps"),
        *_each(_RANDOM, "region_channels"),
        *(
            Comparison(
                Group("random_signs", (("region_channels", n),)), _MASKS, ("codebook",), name=f"{n}-channel signs"
            )
            for n in (8, 16)
        ),
        Comparison(_BINARY, _MASKS, ("codebook", "region_channels", "region_taps"), ("region_taps",)),
    ),
    ("Q2", "gradient"): (
        *_each(_PLAIN, "estimator", "standardize"),
        Comparison(_PLAIN, ("estimator", "standardize")),
    ),
    ("Q3", "distillation"): (*_each(_PLAIN, "distill_from"), *_each(_BINARY, "distill_from")),
    ("Q7", "threshold"): (
        *_each(_PLAIN, "threshold", "delta_axis", also=("delta_factor",)),
        *_each(_PLAIN, "delta_factor"),
        *_each(_LEARNED, "delta_factor"),
    ),
    ("Q9", "regularizers"): _each(_PLAIN, "l1", "weight_decay"),
    ("R1", "rest of the design"): (
        *_each(_PLAIN, "scale", "nonlinearity", "channel_signs"),
        *_each(_LEARNED, "channel_signs"),
    ),
}
"""By the question that training runs answer first, and what they are compared for."""


def differences_table(train: DataFrame) -> DataFrame:
    """Top-1 of training runs minus that of the group they are compared with, paired by seed: a row per group.

    `what` and `over` name the groups for people, `differs` lists the options that differ. Empty where nothing is to be
    compared.
    """
    found = []
    groups = dict(list(train.groupby("group", sort=False))) if len(train) else {}
    for (question, topic), comparison in ((place, row) for place, own in TOPICS.items() for row in own):
        try:
            base = runs.find(train, comparison.base.design, **dict(comparison.base.changes))
        except MissingRecord:
            continue
        required = set(comparison.options)
        for ours in groups.values():
            config = ours["config"].iloc[0]
            changed = set(runs.changed_options(config, base["config"].iloc[0]))
            if not required <= changed <= required | set(comparison.also) or not set(ours["seed"]) & set(base["seed"]):
                continue
            found.append(
                {"question": question, "topic": topic, "what": _what(config, changed - set(comparison.unsaid))}
                | {"over": comparison.name or base["label"].iloc[0], "quantizer": ours["quantizer"].iloc[0]}
                | runs.difference_columns(runs.paired(ours, base))
                | {"differs": ", ".join(sorted(changed))}
            )
    return DataFrame(found)


_WORDS = {"region_channels": "channels", "codebook_bits": "mask bits", "codebook": "masks"}


def _what(config: Mapping[str, Any], said: Iterable[str]) -> str:
    """What a configuration sets otherwise than the base: the scheme if that differs, and `delta factor 0.2`."""
    scheme = [SCHEMES[config.get("quantizer", "signed_binary")].label] if "quantizer" in said else []
    others = [key for key in sorted(said) if key != "quantizer"]
    parts = [f"{_WORDS.get(key, key)} {config.get(key, 'default')}".replace("_", " ") for key in others]
    return ", ".join(scheme + parts)


@drawn
def fig_review_differences(table: DataFrame) -> Figure:
    """Paired top-1 differences of `differences_table` with their 95 % intervals, a bold heading per question.

    Pale: intervals that hold zero, and single runs, which have none. The axis is linear to 2 points, then logarithmic.
    """
    plain = DESIGNS["signed_binary"].label
    headings = [
        f"{row.question} {row.topic}" + (f"\nover {short(row.over, 30, lines=2)}" if row.over != plain else "")
        for row in table.itertuples()
    ]
    columns = _halves(headings)
    names = [short(what, 34, lines=2) for what in table["what"]]
    tallest = max(rows_height(names[part], headings[part]) for part in columns)
    figure, axes = plt.subplots(1, len(columns), figsize=(PAGE, 0.75 + tallest), sharex=True, squeeze=False)
    for axis, part in zip(axes[0], columns, strict=True):
        half = table[part]
        means, widths = half["difference_mean_points"], half["difference_half_width_points"]
        heights = rows(axis, names[part], headings[part])
        looks = [LOOKS[scheme] for scheme in half["quantizer"]]
        forest(axis, heights, means, widths, looks, faint=~(means.abs() > widths), size=3.5)
        axis.tick_params(axis="y", labelsize=6)
        axis.set_ylim(axis.get_ylim()[1] - tallest / ROW, axis.get_ylim()[1])
        points_axis(axis)
        crowded = [place for place in axis.get_xticks() if place != -10]
        axis.set_xticks(crowded, [f"{place:+g}" if place else "0" for place in crowded])
    figure.supxlabel("difference in top-1, points, 95 % interval (pale: it holds 0, or n = 1)", fontsize=7)
    head(figure, f"What one change does to accuracy, over {plain} or over what the heading names")
    return figure


def _halves(headings: list[str]) -> list[slice]:
    """Two runs of rows of about equal height, cut where a heading changes; one where there is but one heading."""
    starts = [i for i in range(1, len(headings)) if headings[i] != headings[i - 1]]
    if not starts:
        return [slice(0, len(headings))]
    before = [start + sum(other <= start for other in starts) for start in starts]
    cut = starts[int(np.argmin(np.abs(np.array(before) - (len(headings) + len(starts)) / 2)))]
    return [slice(0, cut), slice(cut, len(headings))]


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
