"""Layers and networks of integers on one CPU, ours beside int8 libraries: tables and a figure of notebook 08.

Speeds are those of the least time of a contender, over all blocks of all rounds. Other programs can only add to a time:
on a CPU that they load, medians also measure how much that load slows each contender.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.evidence.benchmarks import MAY_USE
from sbkit.evidence.integers import ALIKE, ANY, BINARY, FLOATS, FORMS
from sbkit.evidence.stats import interval, shown
from sbkit.figures import layout, style
from sbkit.tables import spread
from sbkit.way import FLOAT_BITS


def _fastest(table: DataFrame, *forms: str) -> DataFrame:
    """The timing of least time of each layer among these forms."""
    return benchmarks.fastest(table[table["form"].isin(forms)], "min_ms")


def _with_more(timings: DataFrame) -> DataFrame:
    """The fastest int8 library of each layer if one with more instructions is faster somewhere, else nothing."""
    best = _fastest(timings, ALIKE, ANY)
    return best.assign(form=ANY) if (best["form"] == ANY).any() else best[:0]


def _contests(table: DataFrame) -> Iterator[tuple[str, int, str, DataFrame, DataFrame]]:
    """`may_use`, bits, the reference's name, and the fastest timings of a form of ours and of the reference."""
    for (may_use, bits, form), _ in table[table["form"].isin(FORMS.values())].groupby(
        ["may_use", "activation_bits", "form"], sort=False
    ):
        alike = table[table["may_use"] == may_use]
        same_bits = alike[alike["activation_bits"] == bits]
        ours = same_bits[same_bits["form"] == form]
        if len(int8 := _fastest(alike, ALIKE)):
            yield may_use, bits, ALIKE, _fastest(ours, form), int8
        if len(more := _with_more(alike)):
            yield may_use, bits, ANY, _fastest(ours, form), more
        if (ours["scheme"] == "signed_binary").any():
            yield may_use, bits, BINARY, _fastest(ours, form), _fastest(same_bits, "binary")


def times_table(table: DataFrame) -> DataFrame:
    """How many times as fast as a reference ours are, the geometric mean of the layers, from `integers_table`.

    A row for each of `may_use`, activation bits, form and reference (`over`): ALIKE, the fastest library in 8 bits of
    those with the same instructions, where one was timed; ANY, of all, if another one is faster in a layer; BINARY, the
    fastest way of binary with as many bits. Ours is the fastest of its ways in each layer. `times` is by least times;
    `rounds` and its 95 % half width are over rounds by their medians, each round's ratio taken within the round.
    """
    rows = []
    for may_use, bits, over, ours, reference in _contests(table):
        mine, best = benchmarks.rounds(ours), benchmarks.rounds(reference)
        ratios = np.exp(np.mean([np.log(best[layer] / mine[layer]) for layer in mine], axis=0))
        least = reference.set_index("layer")["min_ms"] / ours.set_index("layer")["min_ms"]
        mean, half_width = interval(ratios)
        rows.append(
            {"may_use": may_use, "over": over, "form": ours["form"].iloc[0], "activation_bits": bits}
            | {"times": np.exp(np.log(least).mean()), "n": len(ratios)}
            | {"rounds": mean, "rounds_half_width": half_width}
        )
    return DataFrame(rows)


def times_summary(times: DataFrame) -> DataFrame:
    """`times_table` for people: a column for each number of activation bits."""
    texts = [f"{row.times:.2f}; {shown(row.rounds, row.rounds_half_width, row.n)}" for row in times.itertuples()]
    bits = [f"{bits} bits" for bits in times["activation_bits"]]
    order = [*MAY_USE.values(), ALIKE, ANY, BINARY]
    rows = times.assign(text=texts, bits=bits).sort_values(
        ["may_use", "over"], key=lambda words: words.map(order.index), kind="stable"
    )
    return spread(rows, ["may_use", "over", "form"], "bits", "text")


def throughput_table(table: DataFrame) -> DataFrame:
    """The fastest of each form, layer and number of bits, from `integers_table`: dense-equivalent GMAC/s, and its way.

    Libraries have a row for each layer: ALIKE; ANY where a library with more instructions is faster; the fastest of
    all in floats, ours included, with the form "".
    """
    parts = []
    for (may_use, form, _), timings in table.groupby(["may_use", "form", "activation_bits"], sort=False):
        parts.append(_with_more(table[table["may_use"] == may_use]) if form == ANY else _fastest(timings, form))
    columns = ["may_use", "layer", "form", "scheme", "activation_bits", "label", "gmacs", "min_ms", "median_ms"]
    found = pd.concat(parts, ignore_index=True)
    return found.assign(gmacs=found["gmacs"] * found["median_ms"] / found["min_ms"])[columns]


def networks_table(table: DataFrame) -> DataFrame:
    """The fastest way of each form in each network, from `integers_table(bench, "network_integers")`.

    A row for each network, width, batch, number of threads, `may_use`, form and activation bits; forms of ours are
    those of FORMS. `ms` is the least time of a batch in milliseconds. `times` is how many times as fast as the fastest
    int8 network that may use the same instructions (ALIKE), by least times; `rounds` and its 95 % half width are over n
    rounds by their medians, each round's ratio taken within the round; NaN where no int8 network was timed.
    `kilobytes` are those that the quantized layers read for their weights.
    """
    return DataFrame([row for _, alike in _comparisons(table) for row in _rows(alike)])


def _comparisons(table: DataFrame) -> Iterator[tuple[Any, DataFrame]]:
    yield from table.groupby(["model", "width", "batch", "threads", "may_use"], sort=False) if len(table) else ()


def _rows(alike: DataFrame) -> Iterator[dict[str, Any]]:
    int8 = _fastest(alike, ALIKE)
    reference = {"min_ms": math.nan, "round_ms": math.nan} if int8.empty else int8.iloc[0]
    parts = [_fastest(alike[alike["form"] == ""], ""), int8, _with_more(alike)]
    for bits in sorted(set(alike.loc[alike["form"].isin(FORMS.values()), "activation_bits"])):
        parts += [_fastest(alike[alike["activation_bits"] == bits], form) for form in FORMS.values()]
    for row in (row for part in parts for _, row in part.iterrows()):
        mean, half_width = interval(np.array(reference["round_ms"]) / np.array(row["round_ms"]))
        yield {
            **{key: row[key] for key in ("width", "batch", "threads", "may_use")},
            "network": row["model"],
            **{"form": row["form"] or FLOATS, "bits": 8 if row["precision"] == "int8" else row["activation_bits"]},
            **{
                "way": row["way"],
                "label": row["label"],
                "ms": row["min_ms"],
                "times": reference["min_ms"] / row["min_ms"],
            },
            **{"rounds": mean, "rounds_half_width": half_width, "n": len(row["round_ms"])},
            "kilobytes": row["weight_bytes"] / 1e3,
        }


def networks_summary(networks: DataFrame) -> DataFrame:
    """`networks_table` for people: the way where it is a library's, times and rounds in one column."""
    texts = [
        "-" if math.isnan(row.times) else f"{row.times:.2f}; {shown(row.rounds, row.rounds_half_width, row.n)}"
        for row in networks.itertuples()
    ]
    libraries = networks["form"].isin([ALIKE, ANY])
    form = networks["form"].where(~libraries, networks["form"] + ": " + networks["label"])
    columns = {"network": _names(networks), "may_use": networks["may_use"], "form": form, "bits": networks["bits"]}
    milliseconds = [f"{ms:.3g}" for ms in networks["ms"]]
    kilobytes = [f"{kilobytes:.0f}" for kilobytes in networks["kilobytes"]]
    return DataFrame(columns | {"ms": milliseconds, "times": texts, "kilobytes": kilobytes})


def networks_overview(networks: DataFrame, bits: int = 6) -> DataFrame:
    """`networks_table` in a row for each network and `may_use`: the milliseconds of the best int8 network with the same
    instructions, and how many times as fast each form of ours with so many bits is, mean ± 95 % interval over rounds.
    Dashes where no int8 network was timed.
    """
    named = networks.assign(network=_names(networks))
    int8 = {
        (row.network, row.may_use): f"{row.ms:.3g} ms, {replace(row.way, precision='fp32').label()}"
        for row in named[named["form"] == ALIKE].itertuples()
    }
    ours = named[(named["bits"] == bits) & named["form"].isin(FORMS.values())]
    best = [int8.get(place, "-") for place in zip(ours["network"], ours["may_use"], strict=True)]
    texts = [shown(row.rounds, row.rounds_half_width, row.n) for row in ours.itertuples()]
    return spread(ours.assign(int8=best, text=texts), ["network", "may_use", "int8"], "form", "text")


def _names(networks: DataFrame) -> list[str]:
    return [
        row.network
        + f", width {row.width}" * (row.width > 0)
        + f", batch {row.batch}" * (row.batch > 1)
        + f", {row.threads} threads" * (row.threads > 1)
        for row in networks.itertuples()
    ]


@style.drawn
def fig_integers(table: DataFrame) -> Figure:
    """Throughput against activation bits, from `throughput_table`: a row of panels for what contenders may use.

    Lines are the forms of our codes. Libraries and floats have no choice of bits: they are horizontal lines.
    """
    uses, layers = (list(dict.fromkeys(table[column])) for column in ("may_use", "layer"))
    size = (style.PAGE, 0.4 + 1.5 * len(uses))
    figure, axes = plt.subplots(len(uses), len(layers), figsize=size, sharex=True, sharey="row", squeeze=False)
    for row, may_use in zip(axes, uses, strict=True):
        for axis, layer in zip(row, layers, strict=True):
            _panel(axis, table[(table["may_use"] == may_use) & (table["layer"] == layer)])
        row[0].set_ylabel(may_use)
        row[0].set_ylim(0)
    for axis, layer in zip(axes[0], layers, strict=True):
        axis.set_title(layer)
    figure.supxlabel("activation bits", fontsize=8)
    figure.supylabel("dense-equivalent GMAC/s", fontsize=8)
    forms = [form for form in FORMS.values() if form in set(table["form"])]
    handles = [layout.handle(form, **(style.form_look(form) | {"linestyle": "-"})) for form in forms]
    handles += [layout.handle(name, **line) for name, (_, line) in _LINES.items() if _present(table, name)]
    layout.head(figure, "How fast integers are: ours by form and bits, and the best that int8 libraries reach", handles)
    return figure


_LINES = {
    "best int8 library with the same instructions": (ALIKE, {"color": "black", "linestyle": "--", "linewidth": 0.9}),
    "best int8 library with any instructions": (ANY, {"color": "black", "linestyle": "-.", "linewidth": 0.7}),
    "fastest in floats": ("", {"color": style.GREY, "linestyle": ":", "linewidth": 0.9}),
}


def _present(table: DataFrame, name: str) -> bool:
    return bool((table["form"] == _LINES[name][0]).any())


def _panel(axis: Axes, found: DataFrame) -> None:
    for form in FORMS.values():
        line = found[found["form"] == form].sort_values("activation_bits")
        axis.plot(line["activation_bits"], line["gmacs"], **style.form_look(form))
    for form, drawn in _LINES.values():
        if (best := found.loc[found["form"] == form, "gmacs"]).size:
            axis.axhline(best.max(), **drawn)
    axis.set_xticks(sorted(set(found.loc[found["scheme"] != "", "activation_bits"]) - {FLOAT_BITS}))
