"""Tables for people: the text of a cell, and Markdown."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any


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


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]], align: Sequence[str] = ()) -> str:
    """A Markdown table of texts, which are escaped; `align` holds "left" or "right" for each column."""
    rule = ["---:" if side == "right" else "---" for side in align] or ["---"] * len(columns)
    lines = [list(map(_escaped, columns)), rule, *(map(_escaped, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
