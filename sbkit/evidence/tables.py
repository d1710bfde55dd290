"""The tables of TOML files, checked, and tables of Markdown, for claims and questions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pandas import DataFrame

from sbkit.checks import toml


def load(path: str | Path, kind: str, required: Iterable[str], optional: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The tables [[kind]] of a TOML file, told apart by `id`, or by `kind` where no id is required.

    Raises ValueError naming the table, and the key that is missing, unknown or repeated.
    """
    required, optional = set(required), set(optional)
    tables = toml(Path(path)).get(kind, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path}: {kind} = {tables!r}; allowed: tables [[{kind}]]")
    key = "id" if "id" in required else kind
    allowed = ", ".join(sorted(required | optional))
    for table in tables:
        name = table.get(key, "without a name")
        if missing := sorted(required - table.keys()):
            raise ValueError(f"{kind} {name} lacks {', '.join(missing)}; allowed: {allowed}")
        if unknown := sorted(table.keys() - required - optional):
            raise ValueError(f"{kind} {name} holds {', '.join(unknown)}; allowed: {allowed}")
    names = [table[key] for table in tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{kind} {', '.join(twice)} stands twice in {path}; allowed: once")
    return tables


@contextmanager
def named(kind: str, name: str) -> Iterator[None]:
    """Puts the name of a table before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{kind} {name}: {error}") from error


def finite(name: str, value: Any) -> None:
    """Raises ValueError unless the value is a finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} = {value!r}; allowed: a finite number")


def markdown(frame: DataFrame, names: Mapping[str, str]) -> str:
    """A Markdown table of the columns that `names` gives a heading. Spaces around ± do not break."""
    rows = [list(names.values()), ["---"] * len(names)]
    rows += [[cell(value) for value in row] for row in frame[list(names)].itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def cell(value: Any) -> str:
    """The text of one value: numbers to four digits, nothing for NaN."""
    text = ("" if value != value else f"{value:g}") if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ").replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
