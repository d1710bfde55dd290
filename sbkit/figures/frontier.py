"""11_frontier: top-1 against latency and size of trained networks, what each gains over rivals, how wide it must be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.designs import DESIGNS
from sbkit.evidence import frontier
from sbkit.evidence.frontier import DENSE, Trade
from sbkit.evidence.stats import shown
from sbkit.evidence.widths import must_be
from sbkit.figures import layout, style

_MARKERS = {"random_signs": "P", "learned_signs": "X", "masks_16_of_8": "D"}  # by design; else the scheme's own
_FILLS = {8: {"markerfacecolor": "white"}, 4: {"fillstyle": "left"}}  # by activation bits; others are full


def points_summary(points: DataFrame) -> DataFrame:
    """`frontier.points` for people, from fast to slow; `front` is the mark of networks that no other beats."""
    points = points.sort_values(["may_use", "ms"], kind="stable")
    return DataFrame(
        {
            "may_use": points["may_use"],
            "network": points["family"] + ", width " + points["width"].astype(str),
            "way": points["way"],
            "front": np.where(points["front"], "front", ""),
            "ms": [f"{ms:.3f}" for ms in points["ms"]],
            "kilobytes": [f"{kilobytes:.1f}" for kilobytes in points["kilobytes"]],
            "operations": [layout.count(round(operations / 1e4) * 1e4) for operations in points["operations"]],
            "top1": list(map(shown, points["top1_percent"], points["top1_half_width"], points["n"])),
            "lost": [f"{lost:.2f}" for lost in points["lost_points"]],
        }
    )


def trades_table(table: DataFrame) -> DataFrame:
    """What each network of ours gains over each rival line, from `frontier.networks`.

    `points` is top-1 more at equal latency, its numbers beside it (NaN where no network of the line is as fast).
    `times` is how many times as fast at equal top-1, `low` and `high` its interval, 0 or infinity past a line's ends.
    Without rows where no network shares a seed with a line of rivals, which has two widths at least.
    """
    rows = []
    for row in frontier.trades(table):
        trade: Trade = row.pop("trade")
        points = trade.points
        numbers = {"points_mean": points.value, "points_half_width": points.half_width} if points else {}
        texts = {"points": str(points) if points else "none as fast", "times": times_text(trade)}
        reach = {"times_value": trade.times, "low": trade.low, "high": trade.high}
        rows.append(row | texts | {"points_mean": math.nan, "points_half_width": math.nan} | numbers | reach)
    return DataFrame(rows) if rows else DataFrame(columns=["may_use", "family", "width", "rival", "points", "times"])


def wider_table(table: DataFrame) -> DataFrame:
    """How many times as wide as dense int8 networks each of ours must be to be as accurate, from `frontier.networks`.

    A row for each family and width of ours: `value` is by mean top-1, infinite or 0 beyond the dense networks, and
    `wider` the same for people, with the seeds beside it that all dense widths have. Top-1 is that of the ways which
    are fastest with the first of MAY_USE that was timed. Without rows where no dense network shares a seed.
    """
    rows = []
    alike = table[table["may_use"] == table["may_use"].iloc[0]]
    top1 = alike.pivot_table(index="seed", columns=["family", "width"], values="top1_percent", sort=False)
    dense = top1[DENSE].dropna() if DENSE in top1 else DataFrame()
    for family, width in [column for column in top1 if column[0] != DENSE]:
        if found := must_be(width, top1[family, width].dropna(), dense):
            rows.append({"family": family, "width": width, "wider": str(found), "value": found.value})
    return DataFrame(rows, columns=["family", "width", "wider", "value"])


def times_text(trade: Trade) -> str:
    """`1.52 (1.20 to 1.90)`; `< 0.80` and `> 2.40` are beyond the line's fastest and slowest network."""

    def one(value: float) -> str:
        if 0 < value < math.inf:
            return f"{value:.2f}"
        return f"< {trade.reach[0]:.2f}" if value == 0 else f"> {trade.reach[1]:.2f}"

    ends = [one(trade.low), one(trade.high)]
    return one(trade.times) if ends[0] == ends[1] else f"{one(trade.times)} ({' to '.join(ends)})"


@style.drawn
def fig_frontier(table: DataFrame) -> Figure:
    """Top-1 of `frontier.points` against milliseconds, a panel for what contenders may use, and against kilobytes."""
    uses = list(dict.fromkeys(table["may_use"]))
    panels = [(table[table["may_use"] == use], "ms", f"milliseconds an image\n({use})") for use in uses]
    panels.append((table[table["may_use"] == uses[0]], "kilobytes", "kilobytes of the file"))
    figure, axes = plt.subplots(1, len(panels), figsize=(style.PAGE, 3.0), sharey=True)
    for axis, (points, cost, name) in zip(axes, panels, strict=True):
        _panel(axis, points, cost)
        axis.set_xlabel(name)
    axes[0].set_ylabel("top-1 accuracy, %")
    layout.head(figure, "Which network is most accurate within a latency, and within a size", _handles(table))
    return figure


def _panel(axis: Axes, points: DataFrame, cost: str) -> None:
    axis.set_xscale("log")
    for family, found in points.groupby("family", sort=False):
        found = found.sort_values("width")
        look = _look(found["design"].iloc[0], found["bits"].iloc[0])
        widths = found[cost], found["top1_percent"], found["top1_half_width"].where(found["n"] > 1, 0)
        axis.errorbar(*widths, **look | {"linestyle": "--" if family == DENSE else "-"}, elinewidth=0.5, capsize=0)
        if family == DENSE:
            for row in found.itertuples():
                place = {"xytext": (3, -7), "textcoords": "offset points", "fontsize": 6, "color": look["color"]}
                axis.annotate(f"{row.width}", (getattr(row, cost), row.top1_percent), **place)
    best = points.sort_values([cost, "top1_percent"], ascending=[True, False])
    best = best[~best["top1_percent"].cummax().duplicated()]
    low, high = axis.get_xlim()
    axis.step([*best[cost], high], [*best["top1_percent"], best["top1_percent"].iloc[-1]], where="post", **_FRONT)
    axis.set_xlim(low, high)
    layout.plain_log(axis.xaxis, low, high)


_FRONT: dict[str, Any] = {"color": "0.8", "linewidth": 3, "zorder": 0, "solid_joinstyle": "miter"}


def _look(design: str, bits: int) -> dict[str, Any]:
    own = style.LOOKS[DESIGNS[design].options.get("quantizer", "signed_binary")]
    full = {"color": own.color, "marker": _MARKERS.get(design, own.marker), "markersize": 5, "linewidth": 0.8}
    return full | ({} if design == "full_precision" else _FILLS.get(bits, {}))


def _handles(table: DataFrame) -> list:
    designs = [design for design in DESIGNS if design in set(table["design"])]
    handles = [
        layout.handle(DENSE if design == "full_precision" else DESIGNS[design].label, **_look(design, 0))
        for design in designs
    ]
    grey = {"marker": "s", "markersize": 5}
    others = sorted(set(table.loc[table["family"] != DENSE, "bits"]), reverse=True)
    handles += [layout.handle(f"{bits}-bit activations", **grey | _FILLS.get(bits, {})) for bits in others]
    return [*handles, layout.handle("best within it", **_FRONT | {"linestyle": "-"})]
