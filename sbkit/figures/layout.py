"""Parts that several figures share: titles, legends, forest plots with headings, direct labels, log ticks, sliders.

Every function but `sliders` draws into an Axes or Figure that the caller made under `style.drawn`.
"""

from __future__ import annotations

import importlib.util
import itertools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from sbkit.figures.style import GREY, LOOKS, ROW, Look

# Title and legend


def head(figure: Figure, title: str, handles: Sequence[Artist] = ()) -> None:
    """What the figure compares, bold at its top left, and below it the figure's one legend, if there are handles.

    The title is wrapped to the figure's width, the legend has as many columns as fit. The figure grows by the height of
    both, so that its axes and their labels keep the size it was made with.
    """
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(title, int(width * 72 / 5.2))  # a bold character of 8 points is about 5.2 wide
    used = of_title = 0.06 + 0.135 * len(lines)  # inches
    columns = len(handles)
    if handles:
        widths = np.array([0.45 + 0.058 * len(key.get_label()) for key in handles])  # inches, text of 7 points
        columns = next(n for n in range(columns, 0, -1) if n == 1 or _table_width(widths, n) <= width)
        used += 0.09 + 0.146 * -(-len(handles) // columns)
    height += used
    figure.set_size_inches(width, height)
    figure.text(0.01, 1 - 0.03 / height, "\n".join(lines), va="top", fontsize=8, fontweight="bold")
    if handles:
        place = {"bbox_to_anchor": (0, 0, 1, 1 - of_title / height), "bbox_transform": figure.transFigure}
        figure.legend(handles=handles, loc="upper center", ncols=columns, borderaxespad=0.2, **place)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - used / height))


def _table_width(widths: np.ndarray, columns: int) -> float:
    """Width of so many columns of a legend, which is filled column by column."""
    return sum(column.max() for column in np.array_split(widths, columns))


def handle(label: str, **look: Any) -> Line2D:
    """A legend's key for a line or a marker: keywords of Line2D; without a linestyle it is a grey marker alone."""
    return Line2D([], [], label=label, **({"color": GREY, "linestyle": ""} | look))


def scheme_handles(schemes: Iterable[str], **look: Any) -> list[Line2D]:
    """A legend's key for each scheme, its marker in its colour; keywords of Line2D add to it, such as linestyle."""
    looks = (LOOKS[scheme] for scheme in schemes)
    return [handle(own.label, **({"color": own.color, "marker": own.marker} | look)) for own in looks]


# Forest plots


def rows(axis: Axes, names: Sequence[str], headings: Sequence[str] | None = None) -> np.ndarray:
    """Make y an axis of names from top to bottom and return the height of each.

    `headings` gives the heading of each row; where it changes, a bold row with the new one comes first, with half a row
    of space above it. Axes that share y need the call once. Names may have several lines.
    """
    places, titles, bottom = _places(names, headings)
    axis.set_yticks([*places, *titles], [*names, *titles.values()])
    for label in axis.get_yticklabels()[len(names) :]:
        label.set_fontweight("bold")
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(bottom, 0.6)
    return np.array(places)


def rows_height(names: Sequence[str], headings: Sequence[str] | None = None) -> float:
    """Inches that `rows` takes for its rows; a figure needs about 0.4 more for its x axis."""
    return ROW * (0.6 - _places(names, headings)[2])


def _places(names: Sequence[str], headings: Sequence[str] | None) -> tuple[list[float], dict[float, str], float]:
    """Heights of the names, headings by their heights, and where the axis ends, in units of a row."""
    places, titles, y, last = [], {}, 0.0, None
    for i, name in enumerate(names):
        if headings is not None and headings[i] != last:
            y -= 0.5 if i else 0
            titles[y] = last = headings[i]
            y -= 1
        more = 0.45 * name.count("\n")
        places.append(y - more)
        y -= 1 + 2 * more
    return places, titles, y + 0.4


def forest(
    axis: Axes,
    heights: Iterable[float],
    means: Iterable[float],
    half_widths: Iterable[float],
    looks: Iterable[Look],
    *,
    faint: Iterable[bool] = itertools.repeat(False),
    size: float = 4,
) -> None:
    """A marker at each mean with a line over its interval, at heights that `rows` gave.

    A half width of NaN leaves the line out. `faint` marks points that are drawn pale; `size` is the markers', points.
    """
    for y, mean, half, look, weak in zip(heights, means, half_widths, looks, faint, strict=False):
        shade = {"color": look.color, "alpha": 0.4 if weak else 1.0}
        axis.plot([mean - half, mean + half], [y, y], **shade)  # draws nothing where an end is NaN
        axis.plot(mean, y, look.marker, markersize=size, markeredgewidth=0, **shade)
    axis.grid(axis="x")


def points_axis(axis: Axes) -> None:
    """Make x an axis of differences in points around a line at 0: linear to 2 points, logarithmic beyond.

    One collapse then does not squeeze all others together. Call it after drawing.
    """
    axis.set_xscale("symlog", linthresh=2, linscale=1.5)
    axis.axvline(0, color="black", linewidth=0.7, zorder=1)
    low, high = (np.copysign(5, end) if 2 < abs(end) < 5 else end for end in axis.get_xlim())
    axis.set_xlim(low, high)
    left, right = (-10 if low <= -10 else -5), (10 if high >= 10 else 5)  # the first ticks of the logarithmic parts
    places = [place for place in (-50, left, -2, -1, 0, 1, 2, right, 50) if low <= place <= high]
    axis.set_xticks(places, [f"{place:+d}".replace("-", "\N{MINUS SIGN}") if place else "0" for place in places])
    axis.xaxis.set_minor_locator(NullLocator())


# Axes


def short(name: str, characters: int = 30, lines: int = 1) -> str:
    """A long name on so many lines of so many characters, cut at a word where it does not fit."""
    name = name.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")  # an option stays with its value
    return "\n".join(textwrap.wrap(name, characters, max_lines=lines, placeholder=" …"))


def count(value: float) -> str:
    """A count for people: 1200 is 1.2k, 3000000 is 3M."""
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{letter}"
    return f"{value:g}"


def plain_log(axis: Axis, low: float, high: float) -> None:
    """Ticks of a log axis from low to high as plain numbers: decades, or finer where that gives fewer than three."""
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 6)):
        places = [m * 10.0**e for e in range(-3, 12) for m in steps if low <= m * 10.0**e <= high]
        if len(places) >= 3:
            break
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axis.set_minor_locator(NullLocator())


def percent_axis(axis: Axes) -> None:
    """Cut a y axis of percentages at 0 and 100, which an interval of few seeds may leave."""
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 0), min(high, 100))


def make_room(axis: Axes, ticks: int, room: float) -> float:
    """Widen a linear x axis, from 0 on, to the right by `room` times its range; return where names begin."""
    low, high = axis.get_xlim()
    low = max(low, 0)
    axis.xaxis.set_major_locator(MaxNLocator(ticks))
    places = [place for place in axis.get_xticks() if low <= place <= high]
    axis.set_xlim(low, high + room * (high - low))
    axis.set_xticks(places, [f"{place:g}" for place in places])
    return high + 0.06 * (high - low)


# Direct labels


def spread(positions: Iterable[float], gap: float) -> np.ndarray:
    """Positions moved as little as possible (least squares) to be at least `gap` apart, their order kept.

    This is the isotonic regression of the positions less their place in a row of that gap.
    """
    from scipy.optimize import isotonic_regression

    positions = np.asarray(list(positions), float)
    if not positions.size:
        return positions
    order = np.argsort(positions, kind="stable")
    row = gap * np.arange(len(order))
    moved = np.empty(len(order))
    moved[order] = isotonic_regression(positions[order] - row).x + row
    return moved


def _apart(axis: Axes, y: Iterable[float]) -> np.ndarray:
    """Heights for names at y that do not overlap, for which the y axis is made longer where it has to be."""
    inches = max(axis.figure.get_figheight() / axis.get_gridspec().nrows - 0.5, 0.3)  # without the x axis's labels
    bottom, top = axis.get_ylim()
    for _ in range(4):  # a longer axis needs wider gaps
        gap = (top - bottom) * 0.13 / inches
        heights = spread(y, gap)
        bottom, top = min(bottom, heights.min() - gap / 2), max(top, heights.max() + gap / 2)
    axis.set_ylim(bottom, top)
    return heights


def label_points(
    axis: Axes, names: Iterable[str], colors: Iterable[Any], x: Iterable[float], y: Iterable[float], at: float
) -> None:
    """A name for every point (x, y), in a column that begins at x = `at`, tied to its point by a thin line.

    Names are moved apart where they would overlap. The line of the x axis ends at `at`; see `make_room`.
    """
    axis.spines["bottom"].set_bounds(axis.get_xlim()[0], at)
    heights = _apart(axis, y)
    line = {"relpos": (0, 0.5), "arrowstyle": "-", "color": "0.85", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3}
    for name, color, *point, height in zip(names, colors, x, y, heights, strict=True):
        axis.annotate(
            name, point, (at, height), textcoords="data", fontsize=7, va="center", color=color, arrowprops=line
        )


def label_ends(axis: Axes, ends: Sequence[tuple[str, Any, float, float]]) -> None:
    """A name right of where each line ends, moved apart where names would overlap; `ends` are (name, color, x, y)."""
    heights = _apart(axis, [y for *_, y in ends])
    for (name, color, x, _), height in zip(ends, heights, strict=True):
        axis.annotate(
            name, (x, height), xytext=(5, 0), textcoords="offset points", color=color, fontsize=7, va="center"
        )


# Sliders


def sliders(show: Callable[..., None], still: bool, **ranges: tuple[float, float, float]) -> None:
    """Call `show()` and, unless `still`, again each time that a slider moves, where ipywidgets is installed.

    `ranges` are least, greatest and step of the arguments of `show`, whose defaults are where the sliders begin.
    """
    if still or not importlib.util.find_spec("ipywidgets"):
        return show()
    import ipywidgets

    ipywidgets.interact(show, **ranges)
