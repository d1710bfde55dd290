"""Strict parameters: what a parameters cell may hold, and the one line that a wrong value is told.

A parameters cell holds one `name: type = literal  # help` a line; lines that only comment are free. papermill runs a
misspelt parameter with the default and exits 0, so `start` and the engine refuse what the cell does not declare.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TYPES = {"str": str, "int": int, "float": float, "bool": bool}


class OneLine:
    """An exception that a notebook shows as one line: a traceback would lead into this package, not to the mistake."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it, in JupyterLab and under papermill
        return [f"{type(self).__name__}: {self}"]


class ParameterError(OneLine, ValueError):
    """A parameter of a notebook is unknown, of another type, or has a value that is not allowed."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: type
    default: str | int | float | bool

    def checked(self, value: Any) -> str | int | float | bool:
        """The value in the declared type. An int passes for a float, a bool for nothing but a bool.

        Raises ParameterError for another type, for NaN and for infinity.
        """
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type:
            hint = " (papermill -r NAME VALUE passes a number as text)" if self.type is str else ""
            raise ParameterError(
                f"{self.name} = {value!r} is of type {type(value).__name__}; allowed: {self.type.__name__}{hint}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ParameterError(f"{self.name} = {value}; allowed: a finite number")
        return value


def parse_parameters(source: str) -> dict[str, Parameter]:
    """The parameters that a cell declares, by name. Raises ParameterError naming the line that is out of form."""
    declared = {}
    for node in ast.parse(source).body:
        try:
            parameter = Parameter(node.target.id, TYPES[node.annotation.id], ast.literal_eval(node.value))
        except (AttributeError, KeyError, ValueError, TypeError):
            raise ParameterError(
                f"the parameters cell holds `{ast.unparse(node)}`; "
                f"allowed: one `name: type = literal` a line, with a type of {', '.join(TYPES)}"
            ) from None
        if parameter.name in declared:
            raise ParameterError(f"the parameters cell declares {parameter.name} twice")
        default = parameter.checked(parameter.default)
        declared[parameter.name] = Parameter(parameter.name, parameter.type, default)
    return declared


def check_names(names: Iterable[str], allowed: Iterable[str]) -> None:
    """Raises ParameterError for the first name that is not allowed, with the nearest one and all of them."""
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ParameterError(f"unknown parameter {name}{hint}; allowed: {', '.join(allowed) or 'none'}")


def check(declared: Mapping[str, Parameter], passed: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every declared parameter: the one passed, else the default. Raises ParameterError."""
    check_names(passed, declared)
    return {name: parameter.checked(passed.get(name, parameter.default)) for name, parameter in declared.items()}


def executed(history: list[str]) -> tuple[dict[str, Parameter], dict[str, Any]]:
    """What the parameters cell declared when it last ran, and the values that papermill injected after it.

    Reads the sources that the kernel executed, not its variables: a name that an earlier edit of the cell left behind
    is no parameter any more.
    """
    declares_profile = re.compile(r"^profile\s*:", re.MULTILINE)
    last = max((index for index, source in enumerate(history) if declares_profile.search(source)), default=None)
    if last is None:
        raise ParameterError(
            "no parameters cell has run; it holds `profile: str = ...` and runs before start(globals())"
        )
    injected = [source for source in history[last + 1 :] if source.startswith("# Parameters")]
    passed = {}
    for node in ast.parse(injected[-1]).body if injected else []:
        try:
            passed[node.targets[0].id] = ast.literal_eval(node.value)
        except ValueError:
            raise ParameterError(
                f"`{ast.unparse(node)}` is not a literal; allowed: {', '.join(TYPES)}, finite"
            ) from None
    return parse_parameters(history[last]), passed
