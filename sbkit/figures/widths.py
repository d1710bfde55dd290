"""How many times as wide as dense int8 networks those of few bits may be at equal latency: notebook 08."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from sbkit.evidence import benchmarks
from sbkit.evidence.integers import ALIKE, FORMS
from sbkit.evidence.widths import may_be
from sbkit.figures import layout, style
from sbkit.tables import spread

BITS = 6
_LINES = ("-", "--", ":")  # of networks, in their order


def widths_table(table: DataFrame) -> DataFrame:
    """From `integers_table(bench, "network_integers")`, how wide networks of `BITS` may be at equal latency.

    A row for each network, `may_use`, form and width that was asked for: `ms` is the least time in milliseconds,
    `value` how many times as wide by least times, infinite or 0 beyond the dense networks, and `wide` the same for
    people, with the rounds beside it; NaN and a dash where no dense network was timed. The dense network of a width is
    the fastest in 8 bits that may use the same instructions. Empty without networks of a width that was asked for.
    """
    rows = []
    asked = table[(table["width"] > 0) & (table["batch"] == 1) & (table["threads"] == 1)] if len(table) else table
    for (model, may_use), alike in asked.groupby(["model", "may_use"], sort=False) if len(asked) else ():
        dense = _fastest(alike[alike["form"] == ALIKE]).set_index("width")
        rounds = DataFrame({width: Series(ms) for width, ms in dense["round_ms"].items()}).dropna()
        for form in FORMS.values():
            ours = alike[(alike["form"] == form) & (alike["activation_bits"] == BITS)]
            for row in _fastest(ours).itertuples():
                timed = row.width, row.min_ms, Series(row.round_ms)
                wide = may_be(*timed, dense["min_ms"], rounds) if len(dense) else None
                rows.append(
                    {"network": model, "may_use": may_use, "form": form, "width": row.width, "ms": row.min_ms}
                    | {"wide": str(wide or "-"), "value": wide.value if wide else math.nan}
                )
    return DataFrame(rows)


def _fastest(timings: DataFrame) -> DataFrame:
    """The timing of least time of each width."""
    return benchmarks.fastest(timings, "min_ms", ["width"]).sort_values("width")


def widths_summary(widths: DataFrame) -> DataFrame:
    """`widths_table` for people: a column for each form."""
    return spread(widths, ["network", "may_use", "width"], "form", "wide")


@style.drawn
def fig_widths(widths: DataFrame) -> Figure:
    """The value of `widths_table` against milliseconds, a panel for what contenders may use; none beyond the ends."""
    uses, networks = (list(dict.fromkeys(widths[column])) for column in ("may_use", "network"))
    figure, axes = plt.subplots(1, len(uses), figsize=(style.PAGE, 2.6), sharey=True, squeeze=False)
    for axis, may_use in zip(axes[0], uses, strict=True):
        _panel(axis, widths[widths["may_use"] == may_use], networks)
        axis.set_xlabel(f"milliseconds an image\n({may_use})")
    axes[0][0].set_ylabel("times as wide as dense int8")
    forms = [form for form in FORMS.values() if form in set(widths["form"])]
    handles = [layout.handle(form, **style.form_look(form)) for form in forms]
    handles += [layout.handle(name, color="0.3", linestyle=_LINES[i % 3]) for i, name in enumerate(networks)]
    layout.head(figure, "How many times as wide a network of few bits may be at equal latency", handles)
    return figure


def _panel(axis: Axes, widths: DataFrame, networks: list[str]) -> None:
    axis.set_xscale("log")
    axis.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    within = widths[(widths["value"] > 0) & np.isfinite(widths["value"])]
    for (network, form), line in within.groupby(["network", "form"], sort=False):
        shown = style.form_look(form) | {"linestyle": _LINES[networks.index(network) % 3]}
        axis.plot(line["ms"], line["value"], **shown)
    layout.plain_log(axis.xaxis, *axis.get_xlim())
