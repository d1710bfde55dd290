"""Tables for people: the text of a cell, Markdown, and rows and columns in the order that was given."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame


def cell(value: Any) -> str:
    """A value for people: four significant digits, no exponent for large numbers, a dash where there is none.

    The spaces of an interval, `1.26 ± 0.03 (n=7)`, do not break.
    """
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace(" ± ", "\u00a0±\u00a0").replace(" (n=", "\u00a0(n=")


def spread(table: DataFrame, place: list[str], column: str, values: str) -> DataFrame:
    """A row for each `place`, the names of columns, and a column of `values` for each value of `column`.

    Rows and columns stand in the order in which they first appear; a cell that no row fills is NaN. Raises ValueError
    where two rows fill one cell.
    """
    wide = table.pivot(index=place, columns=column, values=values)
    rows = list(table[place].drop_duplicates().itertuples(index=False, name=None))
    return wide.loc[rows, list(table[column].drop_duplicates())].reset_index().rename_axis(columns=None)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[str] = ()) -> str:
    """A Markdown table of texts, which are escaped; `align` holds "left" or "right" for each column."""
    rule = ["---:" if side == "right" else "---" for side in align] or ["---"] * len(columns)
    lines = [list(map(_escaped, columns)), rule, *(map(_escaped, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
