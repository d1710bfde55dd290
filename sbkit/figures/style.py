"""The look of every figure: seaborn's theme at the sizes of a paper, and one colour, marker and hatch for each scheme.

Colours come from seaborn's colour-blind safe palette. Values of the paper are hollow markers. A figure is as wide as
a paper's column or page; its text has 6 to 8 points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib
import seaborn
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pandas import DataFrame

from sbkit.checks import choice
from sbkit.evidence.integers import FORMS
from sbkit.schemes import SCHEMES

COLUMN = 3.25  # inches
PAGE = 6.75  # inches
ROW = 0.165  # inches that one row of a forest plot or one direct label takes
SMALL = 6.5  # points, of numbers beside bars and the like; nothing is below 6
GREY = "#4d4d4d"


class Look(NamedTuple):
    """How a scheme is drawn; the label is the scheme's own."""

    color: str
    marker: str
    hatch: str
    label: str


# Place in seaborn's palette "colorblind", marker and hatch.
_LOOKS = {
    "full_precision": (None, "P", ""),
    "binary": (0, "s", "///"),
    "ternary_twn": (2, "^", "\\\\\\"),
    "ternary_ttq": (9, "v", "xxx"),
    "zero_one": (1, "D", "..."),
    "signed_binary": (4, "o", ""),
}
_COLORS = seaborn.color_palette("colorblind").as_hex()

LOOKS: dict[str, Look] = {
    key: Look(GREY if place is None else _COLORS[place], marker, hatch, SCHEMES[key].label)
    for key, (place, marker, hatch) in _LOOKS.items()
}
"""By scheme, in the order in which figures show them."""

PALETTE: dict[str, str] = {key: look.color for key, look in LOOKS.items()}
"""By scheme, for seaborn's `hue` and `palette`."""

MARKERS: dict[str, str] = {key: look.marker for key, look in LOOKS.items()}
"""By scheme, for seaborn's `style` and `markers`."""

_FORM_MARKERS = {(8, 4): "D", (4, 0): "P"}  # by regions and codebook_bits of a form; else the scheme's own

PAPER: dict[str, Any] = {
    "marker": "D", "color": "black", "markerfacecolor": "white", "linestyle": "", "markersize": 4.5, "zorder": 4,
}  # fmt: skip
"""A value of the paper, as keywords of `Axes.plot`."""

ABOVE_LINES: dict[str, Any] = {"facecolor": "white", "linewidth": 0, "pad": 0.3, "alpha": 0.8}
"""The box of a text that a line may cross, as `bbox` of a text."""

_OWN = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a figure is the same everywhere
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "text.color": "black",
    "axes.labelcolor": "black",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "patch.force_edgecolor": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


def styled() -> AbstractContextManager[None]:
    """The style as a context: matplotlib's defaults, seaborn's theme "ticks" in its context "paper", and our sizes.

    A user's matplotlibrc changes nothing in it.
    """
    theme = seaborn.axes_style("ticks") | seaborn.plotting_context("paper", font_scale=8 / 9.6)  # of 9.6 points
    return matplotlib.style.context(theme | _OWN, after_reset=True)


def drawn(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator of `fig_<stem>(table, **options) -> Figure`: it is drawn in the style.

    The drawing raises ValueError naming itself for an empty table.
    """

    @functools.wraps(draw)
    def in_style(table: DataFrame, **options: Any) -> Figure:
        if table.empty:
            raise ValueError(f"{draw.__name__} got an empty table; allowed: a table of at least one row")
        with styled():
            return draw(table, **options)

    return in_style


def schemes(values: Iterable[str]) -> list[str]:
    """The distinct schemes among values in the order of figures. Raises ValueError for an unknown one."""
    found = set(values)
    for value in sorted(found):
        choice("scheme", value, LOOKS)
    return [scheme for scheme in LOOKS if scheme in found]


def form_look(form: str) -> dict[str, Any]:
    """How a value of `evidence.integers.FORMS` is drawn, as keywords of `Axes.plot`."""
    scheme, *regions = next(key for key, label in FORMS.items() if label == form)
    own = LOOKS[scheme]
    marker = _FORM_MARKERS.get(tuple(regions), own.marker)
    return {"color": own.color, "marker": marker, "markersize": 4, "linewidth": 0.8}


def tint(color: str, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white; strength 1 leaves it as it is, 0 makes it white."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(color))
