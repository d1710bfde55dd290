"""How many times as wide as a dense int8 network one of few bits may be to be as fast, and must be to be as accurate.

A width is the number of channels of the first stage; those of other stages follow. The dense network that is as fast,
or as accurate, lies between two that are known: the logarithm of its width is interpolated in that of the latency, or
in top-1. A network beats dense ones where it may be wider than it must be.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pandas import DataFrame, Series

from sbkit.evidence.stats import measured


class TimesAsWide(NamedTuple):
    """A network's width over that of dense ones: by least latency or mean top-1, and for each round or seed.

    A number is infinite below the line of dense networks and 0 above it; `ends` are those of its narrowest and widest.
    """

    value: float
    each: np.ndarray
    ends: tuple[float, float]

    def __str__(self) -> str:
        """`1.50; 1.52 ± 0.08 (n=7)`, of one round or seed `1.50 (n=1)`; a value beyond the ends `> 2.00` or `< 0.50`.
        Where some of the rounds or seeds alone are beyond, `1.50; partly > 2.00`.
        """
        value = self._one(self.value)
        if self.each.size == 1:
            return f"{value} (n=1)"
        if not 0 < self.value < np.inf:
            return value
        beyond = dict.fromkeys(self._one(each) for each in self.each if not 0 < each < np.inf)
        return f"{value}; partly {' and '.join(beyond)}" if beyond else f"{value}; {measured(self.each)}"

    def _one(self, value: float) -> str:
        if 0 < value < np.inf:
            return f"{value:.2f}"
        return f"> {self.ends[0]:.2f}" if value else f"< {self.ends[1]:.2f}"


def may_be(width: int, ms: float, rounds: Series, dense_ms: Series, dense_rounds: DataFrame) -> TimesAsWide:
    """That of a network whose least milliseconds are `ms`, and whose milliseconds by round are `rounds`.

    Those of dense networks are by width, and by round and width. A dense width counts if it is faster than every wider
    one by its least time. Each width was timed by a benchmark of its own: rounds of several are not simultaneous.
    """
    dense_ms = dense_ms.sort_index()
    kept = dense_ms.index[dense_ms < dense_ms[::-1].cummin()[::-1].shift(-1, fill_value=np.inf)]
    return _times_as_wide(width, np.log(ms), np.log(rounds), np.log(dense_ms[kept]), np.log(dense_rounds[kept]))


def must_be(width: int, top1: Series, dense: DataFrame) -> TimesAsWide | None:
    """That of a network with `top1`, in percent by seed; `dense` holds top-1 by seed and width.

    A dense width counts if it is more accurate than every narrower one in the mean. None without a common seed.
    """
    seeds = dense.index.intersection(top1.index)
    if seeds.empty:
        return None
    means = dense.loc[seeds].mean().sort_index()
    kept = means.index[~means.cummax().duplicated()]
    return _times_as_wide(width, top1[seeds].mean(), top1[seeds], means[kept], dense.loc[seeds, kept])


def _times_as_wide(width: int, value: float, each: Series, line: Series, lines: DataFrame) -> TimesAsWide:
    """Of `value` on the rising `line`, and of each value on the line in the row of its name."""
    widths = np.log(line.index.to_numpy(float))
    rows = lines.cummax(axis=1)  # in single rounds a wider one may be faster

    def times(value: float, line: Series) -> float:
        return float(width * np.exp(-np.interp(value, line, widths, left=-np.inf, right=np.inf)))

    found = [times(each[i], rows.loc[i]) for i in rows.index.intersection(each.index)]
    return TimesAsWide(times(value, line), np.array(found), (width / line.index[0], width / line.index[-1]))
