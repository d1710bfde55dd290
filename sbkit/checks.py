"""What a wrong value is told: its name, the value and what is allowed. Imports nothing of the package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def choice(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raises ValueError unless the value is one of those allowed."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}; allowed: {', '.join(map(str, allowed))}")


def whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raises ValueError unless the value is an int, and no bool, from `least` to `most` (None: without end)."""
    if type(value) is not int or value < least or (most is not None and value > most):
        allowed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
        raise ValueError(f"{name} = {value!r}; allowed: {allowed}")


def number(name: str, value: Any, least: float, most: float | None = None) -> None:
    """Raises ValueError unless the value is a finite number, no bool, from `least` to `most` (None: without end)."""
    fits = type(value) in (int, float) and least <= value < float("inf") and (most is None or value <= most)
    if not fits:
        allowed = f"a number >= {least}" if most is None else f"a number from {least} to {most}"
        raise ValueError(f"{name} = {value!r}; allowed: {allowed}")


def stem(name: str, value: str) -> None:
    """Raises ValueError unless the value can be the stem of a file: a name of one word that names no other folder."""
    if not isinstance(value, str) or not _STEM.fullmatch(value):
        raise ValueError(
            f"{name} = {value!r}; allowed: up to 100 letters, digits, '_', '.', '-', the first a letter or digit"
        )
