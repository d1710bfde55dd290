"""Training runs, grouped by configuration, named by design, paired by seed.

Runs whose configurations differ in nothing but the seed form one group, whatever their files are called. A *recipe* is
a configuration without the options of the quantizer; the recipe that most groups of a frame share is its *main* one.
A group's label names the nearest design of `sbkit.designs` and what differs from it and from the main recipe.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from sbkit import records
from sbkit.checks import choice
from sbkit.designs import DESIGNS, QUANTIZER_OPTIONS, Design
from sbkit.evidence.stats import Measured, MissingRecord, measured

Config = Mapping[str, Any]


def read(folder: str | Path) -> DataFrame:
    """The finished training runs below a profile's folder, grouped as `grouped` does."""
    return grouped(records.read(folder, "train"))


def grouped(train: DataFrame) -> DataFrame:
    """A frame of `records.read` with the columns group, label, design and main added, in the order of designs.

    group   the same text for runs of one group, and for no others
    label   the group's name for people, unique in the frame
    design  the key of its design, empty where no design has the quantizer's options
    main    whether its recipe is the main one
    Raises ValueError where a group holds one seed twice, naming the runs.
    """
    if train.empty:
        return train.assign(group=[], label=[], design=[], main=[])
    configs = [unseeded(config) for config in train["config"]]
    main = main_recipe(configs)
    described = [_described(config, main) for config in configs]
    runs = train.assign(
        group=[_text(config) for config in configs],
        label=[label for _, _, label in described],
        design=[design.key if exactly else "" for design, exactly, _ in described],
        main=[recipe(config) == main for config in configs],
        place=[list(DESIGNS).index(design.key) for design, _, _ in described],
    )
    repeated = runs[runs.duplicated(["group", "seed"], keep=False)]
    if len(repeated):
        raise ValueError(f"runs {', '.join(repeated['name'])} have one configuration and one seed; keep one of them")
    order = ["place", "main", "label", "seed"]
    runs = runs.sort_values(order, ascending=[True, False, True, True], kind="stable", ignore_index=True)
    return runs.drop(columns="place").copy()  # in one piece, of which rows are taken much faster


def unseeded(config: Config) -> dict[str, Any]:
    """A configuration without its seed."""
    return {key: value for key, value in config.items() if key != "seed"}


def recipe(config: Config) -> dict[str, Any]:
    """What is left of a configuration without its seed and the options of its quantizer."""
    return {key: value for key, value in unseeded(config).items() if key not in QUANTIZER_OPTIONS}


def main_recipe(configs: Iterable[Config]) -> dict[str, Any]:
    """The recipe that most of the different configurations share.

    Of equally many it is the one with the fewest options that differ from their defaults, then the first by text.
    """
    recipes = {_text(unseeded(config)): recipe(config) for config in configs}.values()
    counts = Counter(map(_text, recipes))
    return min(recipes, key=lambda each: (-counts[_text(each)], len(each), _text(each)))


def changed_options(ours: Config, theirs: Config) -> list[str]:
    """Options but the seed that two configurations set differently; one that is absent has its default."""
    keys = (ours.keys() | theirs.keys()) - {"seed"}
    return sorted(key for key in keys if (key in ours, ours.get(key)) != (key in theirs, theirs.get(key)))


def setting(ours: Config, theirs: Config) -> str:
    """What the first configuration sets otherwise than the second, for people: `epochs = 9, clamp = default`."""
    return ", ".join(f"{key} = {ours.get(key, 'default')}" for key in changed_options(ours, theirs))


def _text(config: Config) -> str:
    return json.dumps(config, sort_keys=True)


def _main(runs: DataFrame) -> dict[str, Any]:
    """The main recipe of the frame that these runs were grouped in; their own where none of them has it."""
    chosen = runs.loc[runs["main"].astype(bool), "config"]
    return recipe(chosen.iloc[0]) if len(chosen) else main_recipe(runs["config"])


def _described(config: Config, main: Config) -> tuple[Design, bool, str]:
    """The nearest design, whether the quantizer's options are exactly its own, and the label."""
    own = {key: value for key, value in config.items() if key in QUANTIZER_OPTIONS}
    same = [row for row in DESIGNS.values() if row.options.get("quantizer") == own.get("quantizer")]
    nearest = min(same, key=lambda row: len(changed_options(own, row.options)))
    differs = filter(None, (setting(own, nearest.options), setting(recipe(config), main)))
    return nearest, own == nearest.options, ", ".join([nearest.label, *differs])


def find(runs: DataFrame, design: str, **changes: Any) -> DataFrame:
    """The runs of one group: a design under the main recipe, with some options of either changed.

    A change to "default" takes an option back to its default. `runs` has the columns of `grouped`. Raises ValueError
    for an unknown design and MissingRecord without such a run.
    """
    choice("design", design, DESIGNS)
    if len(runs):
        wanted = _main(runs) | DESIGNS[design].options | changes
        wanted = {key: value for key, value in wanted.items() if value != "default"}
        found = runs[runs["group"] == _text(wanted)]
        if len(found):
            return found
    differs = "".join(f", {key} = {value}" for key, value in changes.items())
    raise MissingRecord(f"a training run of the design {design}{differs}")


def compared(runs: DataFrame, everything: bool = False) -> DataFrame:
    """The runs that compare designs: named designs under the main recipe or at another width, and full precision.

    Full precision of the main model counts under any recipe that was given as many seeds as any group has. With
    `everything` all runs count, as in a profile of runs made by hand; so they do where no named design is among them.
    """
    if everything or runs.empty:
        return runs
    main = _main(runs)
    widths = np.array([set(changed_options(recipe(config), main)) <= {"width"} for config in runs["config"]])
    seeds = runs.groupby("group")["seed"].transform("size")
    model = np.array([config.get("model") == main.get("model") for config in runs["config"]])
    full = (runs["design"] == "full_precision") & (seeds == seeds.max()) & model
    chosen = runs[((runs["design"] != "") & widths) | full]
    return runs if chosen.empty else chosen


def plain(runs: DataFrame) -> DataFrame:
    """The runs of each scheme in its plain form under the main recipe; all runs where there is none such."""
    chosen = runs[(runs["design"] == runs["quantizer"]) & runs["main"].astype(bool)] if len(runs) else runs
    return runs if chosen.empty else chosen


def groups(runs: DataFrame) -> dict[str, DataFrame]:
    """The runs of each group by its label, in the frame's order."""
    return dict(list(runs.groupby("label", sort=False)))


def paired_differences(ours: DataFrame, theirs: DataFrame, metric: str = "top1_percent") -> np.ndarray:
    """A metric of one group minus the same of another, for each seed that both have."""
    first, second = (frame.set_index("seed")[metric] for frame in (ours, theirs))
    return (first - second).dropna().to_numpy(float)


def paired(ours: DataFrame, theirs: DataFrame, metric: str = "top1_percent") -> Measured:
    """The mean of `paired_differences`. Raises MissingRecord without a common seed."""
    differences = paired_differences(ours, theirs, metric)
    if not len(differences):
        raise MissingRecord(f"a seed that {ours['label'].iloc[0]} and {theirs['label'].iloc[0]} share")
    both = set(ours["seed"]) & set(theirs["seed"])
    names = pd.concat([frame.loc[frame["seed"].isin(both), "name"] for frame in (ours, theirs)])
    return measured(differences, names)


def difference_columns(found: Measured) -> dict[str, Any]:
    """The columns of tables that hold a difference in top-1: n, the text for people, and two numbers in points."""
    numbers = {"difference_mean_points": found.value, "difference_half_width_points": found.half_width}
    return {"n": found.n, "difference": str(found)} | numbers


def history(path: str) -> dict[str, Any]:
    """The history of a record, read again only where the file has changed. It is shared: change nothing in it."""
    return _history(path, os.stat(path).st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _history(path: str, changed_ns: int) -> dict[str, Any]:
    return records.load(path).history


def from_history(runs: DataFrame, rows_of) -> DataFrame:
    """One row per item that `rows_of(history)` yields, with the run's label, quantizer and seed in front."""
    return DataFrame(
        [
            {"label": run.label, "quantizer": run.quantizer, "seed": run.seed} | row
            for run in runs.itertuples()
            for row in rows_of(history(run.path))
        ]
    )
