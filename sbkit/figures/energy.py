"""Energy and throughput on an accelerator that is modelled: the tables and figures of notebook 09."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit import energy
from sbkit.energy import ASSUMPTIONS, Accelerator, Codes
from sbkit.evidence import benchmarks
from sbkit.evidence.gather import Evidence
from sbkit.evidence.measures import modelled, timed, trained
from sbkit.evidence.measures.registry import Group
from sbkit.evidence.paper import PAPER
from sbkit.evidence.stats import Measured, MissingRecord
from sbkit.figures import layout, style
from sbkit.schemes import SCHEMES
from sbkit.way import Way

OURS, OVER = "signed_binary", "binary"
"""The scheme whose ratios the paper states, and the one that they are over."""

BASE = Accelerator()  # the machine under the base assumptions

# Tables


def known_codes(evidence: Evidence) -> dict[str, Codes]:
    """What the model knows of the two schemes that are compared, by scheme; one of unknown density is left out.

    The density is the mean over the runs of the scheme's plain design. A scheme that was not trained has the density of
    the random codes in the newest benchmark of the study of operations. The graphs are those of these codes.
    """
    counted = benchmarks.find(evidence.bench, "operations")
    if len(counted):
        counted = counted[counted["way"].isin([Way("dataflow", OURS), Way("dataflow", OVER)])]
    known = {}
    for scheme in (OVER, OURS):
        graphs = counted[counted["scheme"] == scheme] if len(counted) else counted
        trained = evidence.train[(evidence.train["design"] == scheme) & evidence.train["main"].astype(bool)]
        density = (graphs if trained.empty else trained).get("density")
        if density is not None and len(density):
            known[scheme] = Codes(scheme, float(density.mean()), _adds(graphs))
    return known


def _adds(graphs: DataFrame) -> dict[tuple[int, ...], float]:
    """The additions for one output position of each layer, by its place."""
    adds = {}
    for row in graphs.itertuples():
        outputs = row.batch * ((row.H - 1) // row.stride + 1) ** 2
        adds[tuple(map(int, (row.C, row.H, row.K, row.stride)))] = row.adds / outputs
    return adds


def sensitivity_table(ours: Codes, over: Codes) -> DataFrame:
    """One assumption changed at a time: per assumption a row for the base and one per alternative.

    Columns: scheme, over (the other), assumption, value (as text), base (whether it is the default), energy and
    throughput (the two schemes' ratios), paper_energy and paper_throughput (NaN where the paper states none).
    The assumptions that move the energy most come first.
    """
    base, singles = energy.compare(ours, over, BASE), list(energy.single_changes(ours, over, BASE))
    rows = []
    for assumption in ASSUMPTIONS:
        changes = [(value, False, ratios) for changed, value, ratios in singles if changed == assumption]
        tried = [(energy.value_of(assumption, ours, over, BASE), True, base), *changes] if changes else []
        tried.sort(key=lambda option: 0 if isinstance(option[0], str) else option[0])
        rows += [
            {"scheme": ours.scheme, "over": over.scheme, "assumption": assumption.label, "value": _shown(value)}
            | {"base": is_base, "energy": ratios.energy, "throughput": ratios.throughput}
            for value, is_base, ratios in tried
        ]
    table = DataFrame(rows)
    for ratio in ("energy", "throughput"):
        table[f"paper_{ratio}"] = PAPER[ratio] if (ours.scheme, over.scheme) == (OURS, OVER) else math.nan
    spans = table.groupby("assumption")["energy"].transform(np.ptp)
    return table.iloc[np.argsort(-spans.to_numpy(), kind="stable")].reset_index(drop=True)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ratios_table(evidence: Evidence) -> DataFrame:
    """Signed binary over binary in the paper's five quantities.

    Columns: quantity, source, value, low and high, n, of (what n counts: over assumptions, low and high are extremes of
    single changes; over seeds and rounds, a 95 % interval), paper (NaN where it states none), and note: which record is
    missing, with NaN for a value.
    """
    pair = Group(OURS), Group(OVER)
    graphs = Way("dataflow", OVER), Way("dataflow", OURS)  # this way round a speed is our latency over the other one
    rows = []
    for quantity, source, measure, arguments in (
        ("energy", "modelled", modelled.modelled_energy, pair),
        ("throughput", "modelled", modelled.modelled_throughput, pair),
        ("latency", "modelled", modelled.modelled_latency, pair),
        ("density", "trained", trained.density, pair[:1]),
        ("accuracy", "trained", trained.top1_ratio, pair),
        ("latency", "measured: data-flow graphs on this CPU", timed.speedup, graphs),
    ):
        try:
            found, note = measure(evidence, *arguments), ""
        except MissingRecord as missing:
            found, note = Measured(math.nan, math.nan, 0), f"missing: {missing}"
        ends = {key: getattr(found, key) for key in ("value", "low", "high", "n", "of")}
        paper = {"paper": PAPER.get(quantity, math.nan), "note": note}
        rows.append({"quantity": quantity, "source": source, **ends, **paper})
    return DataFrame(rows)


# Figures


@style.drawn
def fig_energy_sensitivity(table: DataFrame) -> Figure:
    """How far each assumption of `sensitivity_table` moves the ratios of energy and throughput, most moving first."""
    bases = table[table["base"]].set_index("assumption")["value"]
    names = [f"{assumption} ({value})" for assumption, value in bases.items()]
    size = (style.PAGE, 0.7 + layout.rows_height(names))
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True)
    heights = dict(zip(bases.index, layout.rows(axes[0], names), strict=True))
    axes[0].set_ylim(axes[0].get_ylim()[0], 1.6)  # the paper's marker stands above the first row
    over = SCHEMES[table["over"].iloc[0]].label
    for axis, ratio in zip(axes, ("energy", "throughput"), strict=True):
        base = _draw_sensitivity(axis, table, ratio, heights)
        axis.set_xlabel(f"{ratio}, {over} = 1 (line: {base:.2f})")
        axis.tick_params(axis="y", length=0)
    layout.head(figure, "Single assumptions that the paper leaves open move its ratios far")
    return figure


def _draw_sensitivity(axis: Axes, table: DataFrame, ratio: str, heights: dict[str, float]) -> float:
    """One panel; returns the ratio under the base assumptions."""
    look = style.LOOKS[table["scheme"].iloc[0]]
    base = table.loc[table["base"], ratio].iloc[0]
    width = np.ptp(table[ratio])
    ends = table.groupby("assumption", sort=False)[ratio].agg(["min", "max"])  # the base among them
    y = ends.index.map(heights)
    axis.hlines(y, ends["min"], ends["max"], color=look.color, linewidth=4, alpha=0.35)
    tried = table[~table["base"]]
    axis.plot(tried[ratio], tried["assumption"].map(heights), look.marker, color=look.color, markersize=3.5)
    for assumption, found in tried.groupby("assumption", sort=False):
        for place, side in ((found[ratio].idxmin(), -1), (found[ratio].idxmax(), 1)):
            outermost = found.loc[place]
            if side * (outermost[ratio] - base) > 0.01 * width:
                _beside(axis, outermost["value"], (outermost[ratio], heights[assumption]), side, 5, 6)
    axis.axvline(base, color=look.color, linewidth=0.8, zorder=0)
    paper = table[f"paper_{ratio}"].iloc[0]
    low, high = np.nanmin([*table[ratio], paper]), np.nanmax([*table[ratio], paper])
    axis.set_xlim(low - 0.3 * (high - low), high + 0.3 * (high - low))  # room for the names of the outermost
    if paper == paper:
        axis.axvline(paper, color="black", linestyle="--", linewidth=0.7, zorder=0)
        axis.plot(paper, 1, **style.PAPER)
        _beside(axis, f"paper {paper:.2f}", (paper, 1), -1 if paper > (low + high) / 2 else 1, 6, style.SMALL)
    return base


def _beside(axis: Axes, text: str, point: tuple[float, float], side: int, distance: float, size: float) -> None:
    """A text left (side -1) or right (1) of a point."""
    look = {"ha": "right" if side < 0 else "left", "va": "center", "fontsize": size, "bbox": style.ABOVE_LINES}
    axis.annotate(text, point, xytext=(side * distance, 0), textcoords="offset points", **look)


@style.drawn
def fig_ratios(table: DataFrame) -> Figure:
    """The ratios of signed binary to binary in `ratios_table`, on a log axis. Raises ValueError without any value."""
    table = table[table["value"].notna()]
    if table.empty:
        raise ValueError("fig_ratios got no value; allowed: a table with at least one")
    names, sources = list(table["quantity"]), list(table["source"])
    figure, axis = plt.subplots(figsize=(style.PAGE, 0.5 + layout.rows_height(names, sources)))
    axis.set_xscale("log")
    look, binary = style.LOOKS[OURS], style.LOOKS[OVER]
    wide = {"linewidth": 4, "alpha": 0.35, "solid_capstyle": "butt"}
    for y, row in zip(layout.rows(axis, names, sources), table.itertuples(), strict=True):
        line = wide if row.of == "assumptions" else {"linewidth": 1}
        axis.plot([row.low, row.high], [y, y], color=look.color, **line)  # draws nothing where n = 1 leaves them open
        axis.plot(row.value, y, look.marker, color=look.color)
        axis.plot(row.paper, y, **style.PAPER)
        text = f"{row.value:.2f}" + ("" if row.paper != row.paper else f"; paper {row.paper:.2f}")
        axis.text(1.01, y, text, transform=axis.get_yaxis_transform(), fontsize=style.SMALL, va="center")
    axis.axvline(1, color=binary.color, zorder=0)
    columns = table[["value", "low", "high", "paper"]]
    low, high = min(np.nanmin(columns), 1) / 1.2, max(np.nanmax(columns), 1) * 1.2
    axis.set_xlim(low, high)
    layout.plain_log(axis.xaxis, low, high)
    axis.set_xlabel("signed binary over binary")
    handles = [
        layout.handle("signed binary, 95 % interval", color=look.color, marker=look.marker, linestyle="-", linewidth=1),
        layout.handle("range over single assumptions", color=look.color, linestyle="-", **wide),
        layout.handle("binary", color=binary.color, linestyle="-"),
        layout.handle("paper", **style.PAPER),
    ]
    layout.head(figure, "Signed binary over binary: modelled, trained and measured, beside the paper", handles)
    return figure
