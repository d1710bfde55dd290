"""Accuracy on corrupted and attacked images, from the histories of the runs that tested it."""

from __future__ import annotations

from pandas import DataFrame

from sbkit.evidence import runs
from sbkit.evidence.stats import MissingRecord

KINDS = {"corruption": "severity", "attack": "epsilon"}
"""By kind of test, the key of its strength in records."""

_RUN = ["label", "quantizer", "seed", "name"]


def tests(train: DataFrame) -> DataFrame:
    """Every accuracy on changed images: one row per run, test and strength; empty where no run tested it.

    Columns: label, quantizer, seed, name, kind (of KINDS), test, strength, images (tested), top1_percent. The strength
    of a corruption is a severity, of an attack epsilon over the range of a pixel; 0 stands for the same images as they
    are.
    """
    rows = []
    for run in train.itertuples():
        found = runs.history(run.path).get("robustness") or dict.fromkeys(("corruptions", "attacks"), ())
        made = [(kind, test[kind], test[key], test) for kind, key in KINDS.items() for test in found[f"{kind}s"]]
        clean = [(kind, name, 0, found) for kind, name in dict.fromkeys(test[:2] for test in made)]
        for kind, test, strength, tested in [*clean, *made]:
            row = {"kind": kind, "test": test, "strength": strength, "images": found["images"]}
            row["top1_percent"] = tested["top1_percent"]
            rows.append({column: getattr(run, column) for column in _RUN} | row)
    return DataFrame(rows)


def kept(train: DataFrame, kind: str, test: str = "") -> DataFrame:
    """The share of its clean accuracy that each run keeps, percent, in the mean over strengths: column `kept`.

    The mean is over all tests of a kind, or one of them. Raises MissingRecord for runs that were not tested so.
    """
    found = tests(train)
    if len(found):
        found = found[(found["kind"] == kind) & ((found["test"] == test) | (test == ""))]
    if found.empty:
        raise MissingRecord(f"a training run of {train['label'].iloc[0]} with robustness = true")
    clean = found[found["strength"] == 0].groupby(_RUN)["top1_percent"].first()
    changed = found[found["strength"] > 0].groupby(_RUN)["top1_percent"].mean()
    return (100 * changed / clean).rename("kept").reset_index()
