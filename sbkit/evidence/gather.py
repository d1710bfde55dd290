"""All that a claim or a question is judged by: the records and codes below one profile's folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pandas import DataFrame

from sbkit.evidence import benchmarks, codes, runs


class Evidence(NamedTuple):
    """Training runs as `runs.grouped` gives them, benchmarks as `benchmarks.timed` does, and codes by run name."""

    train: DataFrame
    bench: DataFrame
    weights: codes.Weights


def gather(folder: str | Path) -> Evidence:
    """The evidence below a profile's folder; any part of it may be empty."""
    train = runs.read(folder)
    return Evidence(train, benchmarks.read(folder), codes.of_runs(train) if len(train) else {})
