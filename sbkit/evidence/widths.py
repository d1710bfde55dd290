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
    """A network's width over that of dense ones, for each round or seed.

    A single value beyond the narrowest or the widest dense network is that of this end. `beyond` is `> 2.00` or
    `< 0.50` where the mean of the network's latencies or accuracies is beyond it, else empty.
    """

    values: np.ndarray
    beyond: str

    def __str__(self) -> str:
        """The mean, `1.52 ± 0.08 (n=7)`, or `beyond`; a dash for no values."""
        return self.beyond or (str(measured(self.values)) if self.values.size else "-")


def may_be(width: int, ms: Series, dense: DataFrame) -> TimesAsWide:
    """That of a network which takes `ms`, a value for each round; `dense` holds milliseconds by round and width.

    A dense width counts if it is faster than every wider one in the mean. Each width was timed by a benchmark of its
    own, so that rounds share their number alone.
    """
    means = dense.mean().sort_index()
    kept = means.index[means < means[::-1].cummin()[::-1].shift(-1, fill_value=np.inf)]
    return _times_as_wide(width, np.log(ms), np.log(dense[kept]))


def must_be(width: int, top1: Series, dense: DataFrame) -> TimesAsWide:
    """That of a network with `top1`, in percent, for each common seed; `dense` holds top-1 by seed and width.

    A dense width counts if it is more accurate than every narrower one in the mean.
    """
    seeds = dense.index.intersection(top1.index)
    means = dense.loc[seeds].mean().sort_index()
    return _times_as_wide(width, top1[seeds], dense.loc[seeds, means.index[~means.cummax().duplicated()]])


def _times_as_wide(width: int, values: Series, lines: DataFrame) -> TimesAsWide:
    """Of each value, on the line in the row of its name."""
    widths, lines = lines.columns.to_numpy(float), lines.cummax(axis=1)  # in single rounds a wider one may be faster
    dense = np.array([np.exp(np.interp(values[i], lines.loc[i], np.log(widths))) for i in lines.index])
    mean, means = values[lines.index].mean(), lines.mean()
    beyond = f"> {width / widths[0]:.2f}" if mean < means.iloc[0] else ""
    return TimesAsWide(width / dense, f"< {width / widths[-1]:.2f}" if mean > means.iloc[-1] else beyond)
