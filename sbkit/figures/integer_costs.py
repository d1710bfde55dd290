"""How the time of a layer of integers grows, and trained beside random codes: a figure and tables of notebook 08.

Times are the least of a contender, over all blocks of all rounds, as those of `sbkit.figures.integers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pandas import DataFrame, Series

from sbkit.designs import DESIGNS
from sbkit.evidence.benchmarks import MAY_USE
from sbkit.evidence.stats import interval, shown
from sbkit.figures import layout, style

PARAMETERS = {
    "C": "channels C",
    "K": "filters K",
    "positions": "image, positions H·W",
    "batch": "batch, images",
    "activation_bits": "activation bits",
    "density": "density of the codes",
    "threads": "threads",
}
"""By column, what is varied, in the order of panels."""


def narrowest(table: DataFrame) -> DataFrame:
    """The timings of `integers_table` with the fewest instructions of MAY_USE that a benchmark was held to."""
    uses = [use for use in MAY_USE.values() if len(table) and (table["may_use"] == use).any()]
    return table[table["may_use"] == uses[-1]] if uses else table


def costs_table(sizes: DataFrame, costs: DataFrame) -> DataFrame:
    """The fastest way of each form at each value of each parameter, all others being those of the base layer.

    `sizes` and `costs` are `narrowest` timings of the studies integer_sizes and integer_costs; the base layer is the
    first of costs, on its fewest images and threads. A row holds parameter, a key of PARAMETERS, its value, form,
    whether it is `ours`, ms, way, whether the value is the base's, and `around`, the base. Libraries with any
    instructions are the fastest of all. They have dense weights and activations of 8 bits whatever the codes are: a row
    of density 1 and of 8 bits. A parameter of a single value is left out, as are C, K and positions without timings of
    sizes. Empty without timings of costs.

    Raises ValueError where the two studies come from different CPUs or instructions.
    """
    if costs.empty:
        return DataFrame()
    for column in ("may_use", "provenance_cpu"):
        found = {*costs[column], *(sizes[column] if len(sizes) else ())}
        if len(found) > 1:
            values = ", ".join(sorted(found))
            raise ValueError(f"the studies of sizes and costs do not compare; {column}: {values}; allowed: one of them")
    rows, around = [], costs["layer"].iloc[0]
    for parameter, base, timings in _varied(sizes, costs):
        for (form, value), found in _contenders(timings).groupby(["form", parameter], sort=False):
            best = found.loc[found["min_ms"].idxmin()]
            rows.append(
                {"may_use": best["may_use"], "around": around, "parameter": parameter, "value": value}
                | {"base": value == base, "form": form, "ours": bool(best["scheme"])}
                | {"scheme": best["scheme"], "regions": best["regions"]}
                | {"ms": best["min_ms"], "n": len(best["round_ms"]), "way": best["label"]}
            )
    return DataFrame(rows)


def _contenders(timings: DataFrame) -> DataFrame:
    """The timings, and once more those of libraries held to fewer instructions, among those that may use any."""
    libraries = timings[timings["scheme"] == ""]
    held = libraries[libraries["isa"] != ""]
    others = set(libraries["form"]) - set(held["form"])
    return pd.concat([timings, *(held.assign(form=form) for form in others)], ignore_index=True)


def _varied(sizes: DataFrame, costs: DataFrame) -> Iterator[tuple[str, Any, DataFrame]]:
    """A parameter that has several values, that of the base, and the timings that differ in it alone."""
    signed = costs[(costs["scheme"] == "signed_binary") & (costs["regions"] == 0)]
    # The codes of signed binary alone have several densities, the base's first and with every number of bits.
    first = signed.iloc[0]
    base = {"activation_bits": signed["activation_bits"].mode()[0], "positions": first["H"] * first["W"]}
    base |= {name: first[name] for name in ("C", "K", "density")}
    base |= {name: costs[name].min() for name in ("batch", "threads")}
    bits = (costs["scheme"] == "") | (costs["activation_bits"] == base["activation_bits"])
    density = ~costs.index.isin(signed.index) | (costs["density"] == base["density"])
    one = {name: costs[name] == base[name] for name in ("batch", "threads")}
    parts = {
        **_sizes(sizes, base),
        "batch": costs[bits & density & one["threads"]],
        "activation_bits": costs[density & one["batch"] & one["threads"]],
        "density": costs[bits & one["batch"] & one["threads"]],
        "threads": costs[bits & density & one["batch"]],
    }
    for parameter, timings in parts.items():
        if parameter == "activation_bits":
            timings = timings.assign(activation_bits=timings["activation_bits"].where(timings["scheme"] != "", 8))
        if timings[parameter].nunique() > 1:
            yield parameter, base[parameter], timings


def _sizes(sizes: DataFrame, base: dict[str, Any]) -> dict[str, DataFrame]:
    if sizes.empty:
        return {}
    sizes = sizes.assign(positions=sizes["H"] * sizes["W"])
    same = {name: sizes[name] == base[name] for name in ("C", "K", "positions")}
    return {
        "C": sizes[same["K"] & same["positions"]],
        "K": sizes[same["C"] & same["positions"]],
        "positions": sizes[same["C"] & same["K"]],
    }


def costs_summary(table: DataFrame) -> DataFrame:
    """`costs_table` for people: by parameter its least and greatest value, and how many times as long the latter takes.

    `factor` is the one value over the other; a form of a single value has no time to compare and an empty cell.
    """
    rows = []
    for parameter, found in table.groupby("parameter", sort=False):
        low, high = found["value"].min(), found["value"].max()
        if parameter == "density":  # that of the form which has several
            several = found[found.duplicated("form", keep=False)]
            low, high = several["value"].min(), several["value"].max()
        row = {
            "parameter": f"{PARAMETERS[parameter]}: {round(low, 2):g} to {round(high, 2):g}",
            "factor": f"{high / low:.3g}",
        }
        ms = found.set_index(["form", "value"])["ms"]
        for form in table["form"].drop_duplicates():
            ends = [ms.get((form, end)) for end in (low, high)]
            row[form] = "" if None in ends else f"{ends[1] / ends[0]:.2f}"
        rows.append(row)
    return DataFrame(rows)


@style.drawn
def fig_integer_costs(table: DataFrame) -> Figure:
    """Milliseconds of a layer against each parameter, from `costs_table`: a panel for each, its axes logarithmic.

    A grey line through the base layer of signed binary is what growth in proportion would be; in proportion to the
    inverse for threads. A form of one value, which does not depend on the parameter, is a marker, of libraries a line.
    """
    parameters, looks = list(dict.fromkeys(table["parameter"])), _looks(table)
    columns = min(4, len(parameters) + 1)
    rows = -(-(len(parameters) + 1) // columns)  # the last cell is the legend's
    size = (style.PAGE, 1.75 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for axis, parameter in zip(axes.flat, parameters, strict=False):
        _panel(axis, table[table["parameter"] == parameter], looks, table["ms"])
        axis.set_xlabel(PARAMETERS[parameter])
    for axis in axes.flat[len(parameters) :]:
        axis.axis("off")
    handles = [layout.handle(form.replace(", ", ",\n"), **look) for form, look in looks.items()]
    handles.append(layout.handle("in proportion", **_GUIDE))
    axes.flat[-1].legend(handles=handles, loc="center left", handlelength=1.6)
    figure.supylabel("milliseconds of a layer", fontsize=8)
    around, may_use = table[["around", "may_use"]].iloc[0]
    layout.head(figure, f"How the time of integers grows when one thing varies around {around} ({may_use})")
    return figure


_GUIDE: dict[str, Any] = {"color": "0.75", "linestyle": "-", "linewidth": 0.8, "zorder": 0}


def _looks(table: DataFrame) -> dict[str, dict[str, Any]]:
    """By form, ours first."""
    looks, lines = {}, iter(("--", ":"))  # of libraries with the same instructions, and of those with any
    for row in table.drop_duplicates("form").sort_values("ours", ascending=False, kind="stable").itertuples():
        if row.ours:
            looks[row.form] = style.form_look(row.form) | {"markersize": 3.5, "linewidth": 1.0, "linestyle": "-"}
        else:
            looks[row.form] = {"color": "black", "marker": ".", "linewidth": 0.9, "linestyle": next(lines)}
    return looks


def _panel(axis: Axes, found: DataFrame, looks: dict[str, dict[str, Any]], ms: Series) -> None:
    axis.set(xscale="log", yscale="log")
    for form, line in found.groupby("form", sort=False):
        look = looks[form]
        if len(line) == 1 and not line["ours"].iloc[0]:
            axis.axhline(line["ms"].iloc[0], **look | {"marker": ""})
        else:
            seaborn.lineplot(line, x="value", y="ms", ax=axis, errorbar=None, markeredgewidth=0, **look)
    parameter, ours = found["parameter"].iloc[0], found[found["ours"]]
    low, high = ours["value"].min(), ours["value"].max()
    base = ours[(ours["scheme"] == "signed_binary") & (ours["regions"] == 0) & ours["base"]].iloc[0]
    power = -1 if parameter == "threads" else 1
    axis.plot([low, high], [base["ms"] * (end / base["value"]) ** power for end in (low, high)], **_GUIDE)
    if parameter == "density":
        layout.plain_log(axis.xaxis, low, high)
    else:
        values = sorted(set(ours["value"]))
        axis.set_xticks(values, [f"{round(v**0.5)}²" if parameter == "positions" else f"{v:g}" for v in values])
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(ms.min() / 1.25, ms.max() * 1.25)
    layout.plain_log(axis.yaxis, *axis.get_ylim())
    axis.set(xlabel="", ylabel="")


def codes_table(timings: DataFrame) -> DataFrame:
    """The fastest way on trained and on random codes, from `narrowest` timings of the study integer_codes.

    A row for each network, layer and design: the density of both codes, the least microseconds of both, and `least`,
    how many times as long the trained codes take. `rounds` is the same by the medians of n rounds, each round's ratio
    taken within the round, with its 95 % half width.
    """
    rows = []
    for (network, layer, design), found in timings.groupby(["shapes", "layer", "design"], sort=False):
        best = {kind: each.loc[each["min_ms"].idxmin()] for kind, each in found.groupby("codes")}
        trained, random = best["trained"], best["random"]
        mean, half_width = interval(np.array(trained["round_ms"]) / np.array(random["round_ms"]))
        rows.append(
            {"network": network, "layer": layer, "codes": DESIGNS[design].label}
            | {f"density_{kind}": row["density"] for kind, row in best.items()}
            | {f"µs_{kind}": 1e3 * row["min_ms"] for kind, row in best.items()}
            | {"least": trained["min_ms"] / random["min_ms"], "n": len(trained["round_ms"])}
            | {"rounds": mean, "rounds_half_width": half_width}
        )
    return DataFrame(rows)


def codes_summary(table: DataFrame) -> DataFrame:
    """`codes_table` for people."""
    texts = [f"{row.least:.2f}; {shown(row.rounds, row.rounds_half_width, row.n)}" for row in table.itertuples()]
    columns = {name: table[name] for name in ("network", "layer", "codes")}
    for name, form in (("density", "{:.2f}"), ("µs", "{:.1f}")):
        pairs = zip(table[f"{name}_random"], table[f"{name}_trained"], strict=True)
        columns[f"{name}: random; trained"] = ["; ".join(map(form.format, pair)) for pair in pairs]
    return DataFrame(columns | {"trained over random": texts})
