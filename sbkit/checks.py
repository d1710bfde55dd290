"""What a wrong value is told: its name, the value and what is allowed. Imports nothing of the package."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def choice(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raises ValueError unless the value is one of those allowed."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}; allowed: {', '.join(map(str, allowed))}")


def switch(name: str, value: Any) -> None:
    """Raises ValueError unless the value is a bool."""
    if type(value) is not bool:
        raise ValueError(f"{name} = {value!r}; allowed: True, False")


def whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raises ValueError unless the value is an integer (numpy's too) from `least` to `most` (None: without end)."""
    fits = isinstance(value, Integral) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most):
        allowed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
        raise ValueError(f"{name} = {value!r}; allowed: {allowed}")


def number(name: str, value: Any, least: float | None = None, most: float | None = None) -> None:
    """Raises ValueError unless the value is a finite number (numpy's too) from `least` to `most` (None: no end)."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or (least is not None and value < least) or (most is not None and value > most):
        allowed = "a finite number" if least is None else f"a number >= {least}"
        allowed = allowed if most is None else f"a number from {least} to {most}"
        raise ValueError(f"{name} = {value!r}; allowed: {allowed}")


def stem(name: str, value: Any) -> None:
    """Raises ValueError unless the value can be the stem of a file: a name of one word that names no other folder."""
    if not isinstance(value, str) or not _STEM.fullmatch(value) or value.endswith(".partial"):
        raise ValueError(
            f"{name} = {value!r}; allowed: up to 100 letters, digits, '_', '.', '-', the first a letter or digit, "
            "and no '.partial' at the end, which marks unfinished files"
        )


def table(name: str, value: Any, forms: Mapping[str, type], optional: Collection[str] = ()) -> None:
    """Raises ValueError unless the value is a dict that holds these keys and no others, each of its type."""
    allowed = ", ".join(f"{key} ({getattr(form, '__name__', form)})" for key, form in forms.items())
    if not isinstance(value, dict):
        raise ValueError(f"{name} = {value!r}; allowed: a table of {allowed}")
    for key, item in value.items():
        if not isinstance(item, forms.get(key, ())):
            raise ValueError(f"{name}.{key} = {item!r}; allowed: {allowed}")
    if missing := forms.keys() - value.keys() - set(optional):
        raise ValueError(f"{name} lacks {', '.join(sorted(missing))}; allowed: {allowed}")


def toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises ValueError naming a file that is damaged or not in UTF-8."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable TOML file: {type(error).__name__}: {error}") from None


def tables(
    path: Path, kind: str, forms: Mapping[str, type], optional: Collection[str] = (), key: str = ""
) -> list[dict[str, Any]]:
    """The tables [[kind]] of a TOML file, each in the form that `table` checks; a `key` tells them apart.

    Raises ValueError naming the place.
    """
    found = toml(path).get(kind)
    if not isinstance(found, list):
        raise ValueError(f"{path.name}: {kind} = {found!r}; allowed: tables [[{kind}]]")
    names = [item.get(key, number) if isinstance(item, dict) else number for number, item in enumerate(found, 1)]
    for name, item in zip(names, found, strict=True):
        table(f"{path.name}: {kind} {name}", item, forms, optional)
        if names.count(name) > 1:
            raise ValueError(f"{path.name}: {kind} {name} stands twice; allowed: once")
    return found


@contextmanager
def named(place: str) -> Iterator[None]:
    """Puts a place before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
