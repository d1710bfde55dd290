"""Measures of the codes that training left: how often patterns repeat, and the operations they need."""

from __future__ import annotations

from pandas import Series

from sbkit.evidence import codes
from sbkit.evidence.codes import Form, Weights
from sbkit.evidence.gather import Evidence
from sbkit.evidence.measures.registry import Group, measure
from sbkit.evidence.stats import Measured, MissingRecord, measured

TABLE = Form("table")


def weights_of(evidence: Evidence, group: Group, channels: int = 0) -> Weights:
    """Codes of a group's 3x3 layers; with `channels`, of its [3, 3, channels, channels] layers alone.

    Raises MissingRecord without any.
    """
    found = codes.only(evidence.weights, group.runs(evidence)["name"])
    square = (channels, channels, 3, 3)
    kept = {
        name: {
            layer: weight
            for layer, weight in of_run.items()
            if weight.codes.shape[2:] == (3, 3) and (not channels or weight.codes.shape == square)
        }
        for name, of_run in found.items()
    }
    kept = {name: of_run for name, of_run in kept.items() if of_run}
    if not kept:
        size = f"a [3, 3, {channels}, {channels}]" if channels else "a 3x3"
        raise MissingRecord(f"codes of a training run of the design {group.design} with {size} layer")
    return kept


def _paired(evidence: Evidence, ours: Series, over: Series, group: Group, other: Group) -> Measured:
    """The mean over seeds of one value per run over another's; both are Series by run name."""
    seeds_of = evidence.train.set_index("name")["seed"]
    mine, theirs = (values.rename(index=seeds_of) for values in (ours, over))
    seeds = mine.index.intersection(theirs.index)
    if seeds.empty:
        raise MissingRecord(f"a seed whose codes {group.design} and {other.design} both kept")
    return measured((mine / theirs).loc[seeds], [*ours.index, *over.index])


def _reduction(evidence: Evidence, group: Group, channels: int, form: Form) -> Series:
    """Arithmetic reduction, mean over the layers of each run."""
    table = codes.operations_table(weights_of(evidence, group, channels), [form])
    if table.empty:
        raise MissingRecord(f"codes of a training run of the design {group.design} to which {form} applies")
    return table.groupby("name")["reduction"].mean()


@measure("times", neutral=1.0)
def operation_reduction(evidence: Evidence, ours: Group, channels: int = 0, form: Form = TABLE) -> Measured:
    """Arithmetic reduction of the trained [3, 3, channels, channels] layers (0: all 3x3): mean of runs' means."""
    per_run = _reduction(evidence, ours, channels, form)
    return measured(per_run, per_run.index)


@measure("times as few", neutral=1.0)
def fewer_operations(
    evidence: Evidence, ours: Group, over: Group, channels: int = 0, form: Form = TABLE, over_form: Form = TABLE
) -> Measured:
    """Arithmetic reduction of `ours` divided by the reduction of `over`, trained layers, paired by seed."""
    mine = _reduction(evidence, ours, channels, form)
    return _paired(evidence, mine, _reduction(evidence, over, channels, over_form), ours, over)


@measure("times as often", neutral=1.0)
def filter_repetition(evidence: Evidence, ours: Group, over: Group) -> Measured:
    """How often a 3x3 filter occurs in the largest layer that both have: one group's count over another's."""
    both = []
    for group in (ours, over):
        table = codes.unique_table(weights_of(evidence, group)).sort_values("filters", kind="stable")
        both.append(table.groupby("name").tail(1).set_index("name"))
    mine, theirs = both
    if set(mine["filters"]) != set(theirs["filters"]):
        raise ValueError(f"{ours.design} and {over.design} do not compare: their largest layers differ in size")
    return _paired(evidence, mine["repetition"], theirs["repetition"], ours, over)


@measure("times as often", neutral=1.0)
def repetition_over_shuffled(evidence: Evidence, ours: Group) -> Measured:
    """How often a 3x3 filter repeats in trained codes, over the same codes shuffled within each filter."""
    trained, shuffled = _and_shuffled(evidence, ours)
    counts = [codes.unique_table(weights).groupby("name")["unique"].sum() for weights in (shuffled, trained)]
    return measured(counts[0] / counts[1], counts[1].index)


@measure("times as few", neutral=1.0)
def operations_over_shuffled(evidence: Evidence, ours: Group) -> Measured:
    """Operations of the same codes shuffled within each filter, divided by the operations of trained codes."""
    tables = [codes.operations_table(weights, [TABLE]).groupby("name") for weights in _and_shuffled(evidence, ours)]
    trained, shuffled = (table["adds"].sum() + table["multiplies"].sum() for table in tables)
    return measured(shuffled / trained, trained.index)


def _and_shuffled(evidence: Evidence, group: Group) -> tuple[Weights, Weights]:
    trained = codes.only(evidence.weights, group.runs(evidence)["name"])
    if not trained:
        raise MissingRecord(f"codes of a training run of the design {group.design}")
    return trained, {name: codes.shuffled(layers) for name, layers in trained.items()}
