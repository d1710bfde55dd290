"""Figures as the bytes of files; tables as HTML for the screen and as Markdown, LaTeX and CSV for files."""

from __future__ import annotations

import html as markup
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from sbkit.checks import choice
from sbkit.tables import cell, markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

# Figures

# Without these a file holds the time and the version that wrote it.
_METADATA = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
_FOOTER_POINTS = 6


def figure(draw: Callable[[], Figure], formats: Iterable[str], stem: str, label: str) -> tuple[dict[str, bytes], float]:
    """Draw a figure: its file in each format, with the label in grey below it, and its width in inches.

    The figure is closed. A user's matplotlibrc has no effect on it. The order of the formats counts, as a figure that
    was saved before may give other bytes.
    """
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        drawn = draw()
        width = drawn.get_size_inches()[0]
        files = _saved(drawn, formats, stem, label)
    pyplot.close(drawn)
    return files, width


def _saved(figure: Figure, formats: Iterable[str], stem: str, label: str) -> dict[str, bytes]:
    import matplotlib
    from fontTools.subset import Options
    from matplotlib.transforms import Bbox

    # A PDF places each glyph itself: a font's tables of kerning and ligatures serve nothing in it, and cutting them
    # down to the glyphs used takes longer than drawing the page. Neither library has a setting for that.
    dropped = getattr(Options, "_drop_tables_default", ())
    Options._drop_tables_default = sorted({*dropped, "GDEF", "GPOS", "GSUB"})
    width, height = figure.get_size_inches()
    # DejaVu Sans takes about 0.6 em a character. The strip is added below the page, so no layout can collide with it.
    lines = textwrap.wrap(label, int(width * 72 / (0.6 * _FOOTER_POINTS)))
    strip = len(lines) * 1.6 * _FOOTER_POINTS / 72  # inches; whole pixels at 300 dpi, or the page would be blurred
    figure.text(0.5, -strip / height, "\n".join(lines), size=_FOOTER_POINTS, color="0.4", ha="center", va="bottom")
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    # The layout stays as it is now: with any engine left, saving would draw everything once more to find it.
    figure.set_layout_engine(None)
    for legend in figure.legends:  # a figure's legend follows the saved page, not the figure, unless told where
        if legend.get_bbox_to_anchor() is figure.bbox:
            legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    page, files = Bbox([[0, -strip], [width, height]]), {}
    with matplotlib.rc_context({"svg.hashsalt": stem, "svg.fonttype": "none", "pdf.fonttype": 42}):
        for format in formats:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=format, dpi=300, bbox_inches=page, metadata=_METADATA[format])
            files[format] = buffer.getvalue()
    return files


# Tables

MOST_COLUMNS = 7
"""The most columns that a table shows; more do not fit a page."""

_COLOURS = {  # of verdicts: background and text, readable on a light and on a dark page
    "#c8e6c9 #1b5e20": ("stronger", "agrees"),
    "#ffe0a3 #6b4500": ("weaker",),
    "#dadde1 #33373d": ("no effect measured", "undecided"),
    "#f8c9c5 #8b1a12": ("opposite",),
    "#f0f1f2 #6b7075": ("out of reach", "no record"),
}
_VERDICTS = {verdict: colours.split() for colours, verdicts in _COLOURS.items() for verdict in verdicts}


@dataclass(frozen=True)
class Shown:
    """A table for people: the cells as text, and "left" or "right" for each column."""

    text: DataFrame
    align: list[str]


def for_people(frame: DataFrame, stem: str, columns: Sequence[str] | None = None) -> Shown:
    """The columns of a table that are shown, at most seven, as text; row labels that have a name are columns first.

    Raises ValueError for more columns and for one that the table lacks.
    """
    frame = _flat(frame)
    for name in columns or ():
        choice(f"columns of table {stem}", name, frame.columns)
    frame = frame[list(columns)] if columns is not None else frame
    if len(frame.columns) > MOST_COLUMNS:
        raise ValueError(
            f"table {stem} would show {len(frame.columns)} columns; "
            f"allowed: at most {MOST_COLUMNS}, named by columns= out of {', '.join(map(str, frame.columns))}"
        )
    align = ["right" if dtype.kind in "iuf" else "left" for dtype in frame.dtypes]
    return Shown(frame.astype(object).map(cell), align)


def _flat(frame: DataFrame) -> DataFrame:
    """Row labels made columns where they say anything: those that only count rows have no name."""
    named = any(name is not None for name in frame.index.names)
    return frame.reset_index(drop=not named)


def html(shown: Shown, caption: str, fold: bool = False) -> str:
    """The table for a notebook, its verdicts coloured; folded, it opens below its caption."""
    sides = [f'style="text-align:{side}"' for side in shown.align]
    head = "".join(
        f"<th {side}>{markup.escape(str(name)).replace('_', ' ')}</th>"
        for side, name in zip(sides, shown.text.columns, strict=True)
    )
    rows = [
        "".join(f"<td {side}>{_coloured(cell)}</td>" for side, cell in zip(sides, row, strict=True))
        for row in shown.text.itertuples(index=False, name=None)
    ]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    words = re.sub(r"`([^`]+)`", r"<code>\1</code>", markup.escape(caption))
    if fold:
        return f"<details><summary>{words}</summary>\n{table}\n</details>"
    return f"<p>{words}</p>\n{table}" if words else table


def _coloured(cell: str) -> str:
    text = markup.escape(cell)
    if cell not in _VERDICTS:
        return text
    background, colour = _VERDICTS[cell]
    style = f"background:{background};color:{colour};padding:0 .4em;border-radius:.3em;white-space:nowrap"
    return f'<span style="{style}">{text}</span>'


def as_markdown(shown: Shown, caption: str) -> str:
    body = markdown(list(map(str, shown.text.columns)), shown.text.itertuples(index=False), shown.align)
    return f"{markup.escape(caption, quote=False)}\n\n{body}\n" if caption else f"{body}\n"


def latex(shown: Shown, stem: str, caption: str) -> str:
    style = shown.text.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", caption)
    columns = "".join(side[0] for side in shown.align)
    return style.to_latex(
        hrules=True, column_format=columns, position="t", label=f"tab:{stem}", caption=escaped or None
    )


def csv(frame: DataFrame) -> bytes:
    """The whole table. Six digits of a number, as the last of sixteen differ between processors; integers in full."""
    return _flat(frame).map(_digits).to_csv(index=False, lineterminator="\n").encode()


def _digits(value: Any) -> Any:
    if not isinstance(value, Real) or isinstance(value, Integral):
        return value
    if value.is_integer() and abs(value) < 1e15:  # a column of integers that lacks some holds floats
        return str(int(value))
    return f"{value:.6g}" if value == value else None
