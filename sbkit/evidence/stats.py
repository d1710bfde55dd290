"""Means and their intervals.

Every interval is a two-sided 95 % t-interval of a mean over n independent values: the seeds of a group, the paired
differences of two groups, or the rounds of a benchmark. Its half width is NaN for n = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from pandas import DataFrame


class Measured(NamedTuple):
    """One number that records give: a mean with the half width of its interval.

    The half width is 0 for an exact count and NaN where a single run leaves it open. `names` are the records
    it rests on; a number without any was reckoned, not measured. A model has no interval of a mean but a `range`: from
    the least to the greatest that any single change of an assumption gives. `of` says what n counts, one of COUNTED.
    """

    value: float
    half_width: float
    n: int
    names: tuple[str, ...] = ()
    of: str = "seeds"
    range: tuple[float, float] = ()

    @property
    def low(self) -> float:
        """Lower end of the interval, or of the range."""
        return self.range[0] if self.range else self.value - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval, or of the range."""
        return self.range[1] if self.range else self.value + self.half_width

    def __str__(self) -> str:
        if self.range:
            return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"
        return shown(self.value, self.half_width, self.n)


COUNTED = ("seeds", "rounds", "processes", "assumptions", "exact")
"""What the n of a number counts: trained networks, rounds of a timing, processes of a benchmark, or changes of a model.

An exact count has no n.
"""


class MissingRecord(LookupError):
    """No record measures this; the message says which one would."""


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean and half width of its interval. Raises ValueError for no values."""
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take a second to import

    values = np.asarray(list(values), float)
    if values.size == 0:
        raise ValueError("the interval of no values; allowed: at least one")
    if values.size == 1:
        return float(values[0]), math.nan
    return float(values.mean()), float(stdtrit(values.size - 1, 0.975) * values.std(ddof=1) / math.sqrt(values.size))


def two_sided(distance: float, half_width: float, n: int) -> float:
    """The p of a mean this far from "no effect", by the t-test that its interval stands for."""
    from scipy.special import stdtr, stdtrit

    t = abs(distance) / half_width * stdtrit(n - 1, 0.975)
    return float(2 * stdtr(n - 1, -t))


def measured(values: Iterable[float], names: Iterable[str] = (), of: str = "seeds") -> Measured:
    """The mean of values with its interval."""
    values = list(values)
    return Measured(*interval(values), len(values), tuple(names), of)


def exact(value: float, names: Iterable[str] = ()) -> Measured:
    """A count, which has no spread."""
    return Measured(float(value), 0.0, 1, tuple(names), "exact")


def shown(mean: float, half_width: float, n: int, digits: int = 2) -> str:
    """`87.10 ± 0.40 (n=3)`; of one value `87.10 (n=1)`, or `87.10 (exact)` where it has no spread (half width 0).
    A dash for a mean of NaN.
    """
    if math.isnan(mean):
        return "-"
    if n == 1:
        return f"{mean:.{digits}f} ({'exact' if half_width == 0 else 'n=1'})"
    return f"{mean:.{digits}f} ± {half_width:.{digits}f} (n={n})"


def summary(frame: DataFrame, by: list[str], column: str) -> DataFrame:
    """Mean, half width and n of a column by group: columns <column>_mean, <column>_half_width and n, in order."""
    groups = frame.groupby(by, sort=False)[column]
    found = groups.agg(lambda values: interval(values)[0]).to_frame(f"{column}_mean")
    found[f"{column}_half_width"] = groups.agg(lambda values: interval(values)[1])
    found["n"] = groups.size()
    return found.reset_index()
