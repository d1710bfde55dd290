"""The integer codes that training left: how often their patterns repeat, and the operations they need."""

from __future__ import annotations

import functools
import math
from collections import UserDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame

from sbkit import repetition
from sbkit.conv import QuantizedWeight, load_weights, mixes_signs
from sbkit.evidence import paper
from sbkit.schemes import SCHEMES
from sbkit.way import Way

Weights = Mapping[str, Mapping[str, QuantizedWeight]]
"""Layers by name, of runs by name."""


class _Files(UserDict):
    """Files of codes by run name, each read when it is first asked for."""

    def __getitem__(self, name: str) -> Mapping[str, QuantizedWeight]:
        return _read(self.data[name])


_read = functools.cache(load_weights)


def of_runs(train: DataFrame) -> Weights:
    """Codes of the runs that left any, by run name: `weights/<name>.npz` beside the folder of records."""
    files = {
        name: Path(path).parents[2] / "weights" / f"{name}.npz"
        for name, path in zip(train["name"], train["path"], strict=True)
    }
    return _Files({name: file for name, file in files.items() if file.is_file()})


def only(weights: Weights, names: Iterable[str]) -> Weights:
    """The codes of some runs, of those that left any."""
    return {name: weights[name] for name in names if name in weights}


def layers(weights: Weights) -> Iterable[tuple[dict[str, Any], QuantizedWeight]]:
    """Each layer of each run with the columns that say which it is: name (the run's), scheme, depth, layer, K, C, R, S,
    density."""
    for name, of_run in weights.items():
        for depth, (layer, weight) in enumerate(of_run.items(), start=1):
            shape = dict(zip("KCRS", weight.codes.shape, strict=True))
            place = {"name": name, "scheme": weight.scheme, "depth": depth, "layer": layer}
            yield place | shape | {"density": weight.density}, weight


def shuffled(of_run: Mapping[str, QuantizedWeight], seed: int = 0) -> dict[str, QuantizedWeight]:
    """The codes in a random order within each filter, which changes no density and no sign of a filter."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, weight in of_run.items():
        filters = generator.permuted(weight.codes.reshape(len(weight.codes), -1), axis=1)
        found[name] = replace(weight, codes=filters.reshape(weight.codes.shape))
    return found


def unique_table(weights: Weights) -> DataFrame:
    """Distinct 3x3 filters of each 3x3 layer: filters, unique, repetition, and bound, how many the scheme can have."""
    rows = []
    for row, weight in layers(weights):
        if (row["R"], row["S"]) == (3, 3):
            found = repetition.unique_filters(weight.codes)
            counts = {"filters": found.total, "unique": found.unique, "repetition": found.repetition}
            rows.append(row | counts | {"bound": SCHEMES[weight.scheme].patterns()})
    return DataFrame(rows)


class Form(NamedTuple):
    """How codes become operations: a Way without its scheme."""

    algorithm: str
    encoding: str = "two_group"
    skip_zeros: bool = True


FORMS = (
    Form("sparse"),
    Form("table"),
    Form("table", skip_zeros=False),
    Form("table", "rewritten"),
    Form("table", "signed"),
    Form("dataflow"),
    Form("dataflow", skip_zeros=False),
    Form("dataflow", "rewritten"),
)
"""Every form that is counted, in the order of figures."""

# Data-flow graphs of trained codes are built here in plain Python: of tiles of so many channels, in square layers of up
# to so many codes a tap. A benchmark's plans count what is beyond.
_TILE = 4
_MOST_FOR_DATAFLOW = 64 * 64


def applies(form: Form, weight: QuantizedWeight) -> bool:
    """Whether these codes can be executed in this form, and it is another than the plain one."""
    K, C = weight.codes.shape[:2]
    if form.algorithm == "dataflow" and (K != C or K * C > _MOST_FOR_DATAFLOW):
        return False
    if not form.skip_zeros:
        return not weight.codes.all()
    if form.encoding == "two_group":
        return True
    fits = weight.codes.all() if form.encoding == "rewritten" else mixes_signs(weight.codes)
    return bool(fits) and np.array_equal(weight.scale, weight.negative_scale)


def paper_reduction(scheme: str, channels: int, form: Form) -> float:
    """The paper's reduction of a [3, 3, channels, channels] layer, NaN where it states none.

    The paper describes codes in two groups; whether its values skip zeros it does not say.
    """
    stated = form.algorithm in ("table", "dataflow") and form.encoding == "two_group"
    return paper.reduction(scheme, channels) if stated else math.nan


@functools.cache
def _counted(weight: QuantizedWeight, form: Form) -> dict[str, Any]:
    """Group and counts of one layer in one form: several claims, questions and figures ask for the same."""
    options = {"encoding": form.encoding, "skip_zeros": form.skip_zeros}
    group = repetition.best_group(weight, **options) if form.algorithm == "table" else _TILE
    counts = repetition.operations(weight, form.algorithm, group=group, **options)
    reduction = 2 * weight.codes.size / counts.total if counts.total else math.inf
    return {"group": group, "adds": counts.adds, "multiplies": counts.multiplies, "reduction": reduction}


def operations_table(weights: Weights, forms: Iterable[Form] = FORMS) -> DataFrame:
    """Arithmetic reduction of each layer in each form that applies, per output position (`repetition.operations`).

    `way` is the form as a Way, `algorithm`, `encoding` and `skip_zeros` its parts. `group` is the table's G of fewest
    operations, or the channels of a tile of `dataflow`. `paper` is the paper's reduction, where it states one.
    """
    rows = []
    for row, weight in layers(weights):
        square = row["C"] if row["K"] == row["C"] and (row["R"], row["S"]) == (3, 3) else 0
        rows += [
            row
            | {"way": Way(scheme=weight.scheme, **form._asdict()), **form._asdict(), **_counted(weight, form)}
            | {"paper": paper_reduction(weight.scheme, square, form)}
            for form in forms
            if applies(form, weight)
        ]
    return DataFrame(rows)
