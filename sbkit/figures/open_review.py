"""10_open_review: the answers, and accuracy on corrupted and attacked images."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from sbkit.evidence import changed_images, questions
from sbkit.evidence.gather import gather
from sbkit.evidence.measures import Measurer
from sbkit.evidence.stats import summary
from sbkit.figures import layout, style
from sbkit.schemes import SCHEMES

# Answers


def answers(listed: Iterable[Mapping[str, Any]], results: Path, profile: str) -> tuple[DataFrame, DataFrame]:
    """The tables of answers and of the numbers below them, for the records of a profile below `results`.

    A number that these records do not give is measured on the committed records that its answer was written from.
    """
    listed = list(listed)
    measurer = functools.cache(lambda name: Measurer(gather(results / name)))  # of the profiles that are asked
    numbers = questions.numbers_table(listed, measurer, profile)
    return questions.answers_table(listed, numbers), numbers


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
    plain = train.loc[train["main"].astype(bool) & train["design"].isin(list(SCHEMES)), "label"]
    keys = ["label", "quantizer", "kind", "test", "strength", "images"]
    table = summary(tests, keys, "top1_percent")
    columns = {"top1_percent_mean": "top1_mean_percent", "top1_percent_half_width": "top1_half_width_percent"}
    table = table.rename(columns=columns).assign(plain=table["label"].isin(plain))
    return table[[*keys, "n", "plain", *columns.values()]]


@style.drawn
def fig_robustness(table: DataFrame) -> Figure:
    """Accuracy of the plain schemes of `robustness_table` against the strength of each corruption and attack."""
    table = table[table["plain"]].sort_values("strength", kind="stable")
    tests = dict(list(table.groupby(["kind", "test"], sort=False)))
    shown, wide = style.schemes(table["quantizer"]), min(4, len(tests))
    tall = -(-len(tests) // wide)
    figure, axes = plt.subplots(tall, wide, figsize=(style.PAGE, 0.7 + 1.55 * tall), sharey=True, squeeze=False)
    for axis in axes.flat[len(tests) :]:
        axis.set_visible(False)
    for axis, ((kind, test), of_test) in zip(axes.flat, tests.items(), strict=False):
        scale, name, unit = (255, test.upper(), "ε, of 255") if kind == "attack" else (1, test, "severity")
        for scheme in shown:
            line, look = of_test[of_test["quantizer"] == scheme], style.LOOKS[scheme]
            axis.errorbar(
                scale * line["strength"], line["top1_mean_percent"], yerr=line["top1_half_width_percent"],
                fmt=f"{look.marker}-", color=look.color, markersize=2.5, linewidth=0.9, elinewidth=0.6,
            )  # fmt: skip
        axis.set_title(name.replace("_", " "), fontsize=7)
        axis.set_xlabel(unit, fontsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.grid(axis="y")
    layout.percent_axis(axes[0, 0])
    figure.supylabel("top-1 accuracy, %", fontsize=7)
    title = "How accurate each scheme stays on corrupted and attacked images"
    layout.head(figure, title, layout.scheme_handles(shown, linestyle="-"))
    return figure
