"""Measures of training runs: accuracy, density, stability of codes, robustness. Differences are paired by seed."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame

from sbkit.checks import choice
from sbkit.evidence import changed_images, runs
from sbkit.evidence.codes import only
from sbkit.evidence.gather import Evidence
from sbkit.evidence.measures.registry import Group, measure
from sbkit.evidence.stats import Measured, MissingRecord, exact, measured
from sbkit.schemes import SCHEMES

CLOSE = 0.15
"""How far the effectual weights of two models may lie apart, as a fraction, that count as equally many."""


@measure("points of top-1", neutral=0.0)
def top1_gap(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Top-1 of `ours` minus top-1 of `over`, in points."""
    return runs.paired(ours.runs(evidence), over.runs(evidence))


@measure("points of top-1", neutral=0.0)
def top1_gap_equal_effectual(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Top-1 of `ours` minus top-1 of a model of the design `over` with as many effectual weights, in points.

    The other model differs in width or depth alone. Of several the nearest in effectual weights counts; without any
    within CLOSE, MissingRecord is raised.
    """
    mine = ours.runs(evidence)
    main = runs.main_recipe(evidence.train["config"])
    sizes = {"width", "model"}
    likely = evidence.train[evidence.train["design"] == over.design]
    alike = [set(runs.changed_options(runs.recipe(config), main)) <= sizes for config in likely["config"]]
    likely = likely[np.array(alike, bool)]
    wanted = mine["effectual_weights"].mean()
    distance = (likely.groupby("group")["effectual_weights"].mean() / wanted - 1).abs()
    if distance.empty or distance.min() > CLOSE:
        raise MissingRecord(f"a training run of the design {over.design} with about {wanted:,.0f} effectual weights")
    return runs.paired(mine, likely[likely["group"] == distance.idxmin()])


@measure("percent of top-1")
def top1(evidence: Evidence, ours: Group, dataset: str, model: str) -> Measured:
    """Top-1 of a group's runs of one model on one data set (the path of an image_folder does not matter)."""
    found = ours.runs(evidence)
    config = found["config"].iloc[0]
    if (config.get("dataset", "").partition(":")[0], config.get("model")) != (dataset, model):
        raise MissingRecord(f"a training run of the design {ours.design}, {model} on {dataset}")
    return measured(found["top1_percent"], found["name"])


@measure("times", neutral=1.0)
def top1_ratio(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Top-1 of `ours` divided by top-1 of `over`."""
    mine, theirs = ours.runs(evidence), over.runs(evidence)
    pairs = mine.merge(theirs, on="seed", suffixes=("", "_over"))
    if pairs.empty:
        raise MissingRecord(f"a seed that {ours.design} and {over.design} share")
    return measured(pairs["top1_percent"] / pairs["top1_percent_over"], [*pairs["name"], *pairs["name_over"]])


@measure("fraction")
def density(evidence: Evidence, ours: Group) -> Measured:
    """Fraction of effectual weights in the quantized layers of the trained models."""
    found = ours.runs(evidence)
    return measured(found["density"], found["name"])


@measure("fraction", neutral=0.0)
def density_gap(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Density of `ours` minus density of `over`."""
    return runs.paired(ours.runs(evidence), over.runs(evidence), "density")


@measure("fraction")
def untrained_density(evidence: Evidence, ours: Group) -> Measured:
    """Density that the paper's threshold gives the same layers before training: of normally distributed weights.

    A weight w of a positive filter is effectual where w > 0.05 * max|w| of its filter; a negative filter is its mirror
    image. One draw of weights per run of the group.
    """
    found = ours.runs(evidence)
    fractions = []
    for number, of_run in enumerate(only(evidence.weights, found["name"]).values()):
        generator, effectual, total = np.random.default_rng(number), 0, 0
        for layer in of_run.values():
            weights = generator.normal(size=(len(layer.codes), layer.codes[0].size))
            effectual += (weights > 0.05 * np.abs(weights).max(axis=1, keepdims=True)).sum()
            total += weights.size
        fractions.append(effectual / total)
    if not fractions:
        raise MissingRecord(f"codes of a training run of the design {ours.design}")
    return measured(fractions, found["name"])


@measure("fraction", neutral=0.0)
def sparsity_at_comparable_accuracy(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Sparsity (1 - density) of one design if it is as accurate as another, else 0.

    It is as accurate where the lower end of the difference's interval lies above -1 point, as for any such claim.
    """
    gap = top1_gap(evidence, ours, over)
    found = ours.runs(evidence)
    sparsity = measured(1 - found["density"], gap.names)
    return sparsity if not gap.low <= -1 else sparsity._replace(value=0.0, half_width=0.0)


@measure("percent of codes", neutral=0.0)
def flips_gap(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Share of codes that changed in the last epoch, percent: `ours` minus `over`."""
    return runs.paired(*(_flips(group.runs(evidence)) for group in (ours, over)), "flips")


def _flips(found: DataFrame) -> DataFrame:
    return found.assign(flips=[100 * runs.history(path)["epochs"][-1]["flip_fraction"] for path in found["path"]])


@measure("percent of clean accuracy")
def kept(evidence: Evidence, ours: Group, kind: str, test: str = "") -> Measured:
    """Share of clean accuracy kept on changed images, percent, mean over strengths; arguments as of `kept_gap`."""
    choice("kind", kind, changed_images.KINDS)
    found = changed_images.kept(ours.runs(evidence), kind, test)
    return measured(found["kept"], found["name"])


@measure("percent of clean accuracy", neutral=0.0)
def kept_gap(evidence: Evidence, ours: Group, over: Group, kind: str, test: str = "") -> Measured:
    """Share of clean accuracy kept on changed images: `ours` minus `over`, in points.

    kind: "corruption" or "attack"; test: one of its tests, all if empty.
    """
    choice("kind", kind, changed_images.KINDS)
    return runs.paired(*(changed_images.kept(group.runs(evidence), kind, test) for group in (ours, over)), "kept")


@measure("points", neutral=0.0)
def worst_class_gap(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Accuracy of the worst class: `ours` minus `over`."""
    return runs.paired(_by_class(evidence, ours), _by_class(evidence, over), "worst")


@measure("points", neutral=0.0)
def class_spread_gap(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """Accuracy of the best class minus accuracy of the worst class: `ours` minus `over`."""
    return runs.paired(_by_class(evidence, ours), _by_class(evidence, over), "spread")


def _by_class(evidence: Evidence, group: Group) -> DataFrame:
    found = group.runs(evidence)
    percents = [runs.history(path)["per_class_percent"] for path in found["path"]]
    tested = [[percent for percent in run if percent is not None] for run in percents]
    return found.assign(worst=list(map(min, tested)), spread=[max(run) - min(run) for run in tested])


@measure("bits")
def code_bits(evidence: Evidence, scheme: str) -> Measured:
    """Bits that a code of a scheme takes when it is stored plainly."""
    choice("scheme", scheme, SCHEMES)
    return exact(SCHEMES[scheme].stored_bits)
