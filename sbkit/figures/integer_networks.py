"""Whole networks with integers between their layers, ours beside whole int8 networks: a table of notebook 08."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pandas import DataFrame

from sbkit.evidence.stats import interval, shown
from sbkit.figures.integers import ALIKE, ANY, FORMS, fastest, with_more

FLOATS = "full precision, torch"


def networks_table(table: DataFrame) -> DataFrame:
    """The fastest way of each form in each network, from `integers_table(bench, "network_integers")`.

    A row for each network, batch, `may_use`, form and activation bits; forms of ours are those of FORMS. `ms` is the
    least time of a batch in milliseconds. `times` is how many times as fast as the fastest int8 network that may use
    the same instructions (ALIKE), by least times; `rounds` and its 95 % half width are over n rounds by their medians,
    each round's ratio taken within the round. `kilobytes` are those that the quantized layers read for their weights.
    """
    return DataFrame([row for _, alike in _comparisons(table) for row in _rows(alike)])


def _comparisons(table: DataFrame) -> Iterator[tuple[Any, DataFrame]]:
    yield from table.groupby(["model", "batch", "may_use"], sort=False) if len(table) else ()


def _rows(alike: DataFrame) -> Iterator[dict[str, Any]]:
    reference = fastest(alike, ALIKE).iloc[0]
    parts = [fastest(alike[alike["form"] == ""], ""), reference.to_frame().T, with_more(alike)]
    for bits in sorted(set(alike.loc[alike["form"].isin(FORMS.values()), "activation_bits"])):
        parts += [fastest(alike[alike["activation_bits"] == bits], form) for form in FORMS.values()]
    for row in (row for part in parts for _, row in part.iterrows()):
        mean, half_width = interval(np.array(reference["round_ms"]) / np.array(row["round_ms"]))
        yield {
            **{"network": row["model"], "batch": row["batch"], "may_use": row["may_use"]},
            **{"form": row["form"] or FLOATS, "bits": 8 if row["precision"] == "int8" else row["activation_bits"]},
            **{"label": row["label"], "ms": row["min_ms"], "times": reference["min_ms"] / row["min_ms"]},
            **{"rounds": mean, "rounds_half_width": half_width, "n": len(row["round_ms"])},
            "kilobytes": row["weight_bytes"] / 1e3,
        }


def networks_summary(networks: DataFrame) -> DataFrame:
    """`networks_table` for people: the way where it is a library's, times and rounds in one column."""
    texts = [f"{row.times:.2f}; {shown(row.rounds, row.rounds_half_width, row.n)}" for row in networks.itertuples()]
    libraries = networks["form"].isin([ALIKE, ANY])
    form = networks["form"].where(~libraries, networks["form"] + ": " + networks["label"])
    columns = {"network": networks["network"], "may_use": networks["may_use"], "form": form, "bits": networks["bits"]}
    milliseconds = [f"{ms:.3g}" for ms in networks["ms"]]
    kilobytes = [f"{kilobytes:.0f}" for kilobytes in networks["kilobytes"]]
    return DataFrame(columns | {"ms": milliseconds, "times": texts, "kilobytes": kilobytes})
