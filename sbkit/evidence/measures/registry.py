"""The list of measures, and how the selectors of a TOML file become their arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pandas import DataFrame

from sbkit.checks import choice
from sbkit.designs import DESIGNS
from sbkit.evidence import runs
from sbkit.evidence.codes import Form
from sbkit.evidence.gather import Evidence
from sbkit.evidence.stats import Measured
from sbkit.way import Way


class Measure(NamedTuple):
    """A function from evidence to a number, its unit, and the value that means no effect (None for a plain level)."""

    function: Callable[..., Measured]
    unit: str
    neutral: float | None


MEASURES: dict[str, Measure] = {}
"""By the name of the function."""


def measure(unit: str, neutral: float | None = None):
    """Enter a function in MEASURES."""

    def enter(function):
        MEASURES[function.__name__] = Measure(function, unit, neutral)
        return function

    return enter


@dataclass(frozen=True)
class Group:
    """Training runs that differ in the seed alone: a design under the main recipe, with some options changed."""

    design: str
    changes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Group:
        """The group of a selector. Raises ValueError for a design that is not known."""
        choice("design", options.get("design"), DESIGNS)
        return cls(options["design"], tuple((key, value) for key, value in options.items() if key != "design"))

    def runs(self, evidence: Evidence) -> DataFrame:
        """Its training runs. Raises MissingRecord without any."""
        return runs.find(evidence.train, self.design, **dict(self.changes))


BEST = "fp32 library"
"""In place of a way: for each layer the fastest library in full precision."""


def contender(options: Mapping[str, Any]) -> Way | str:
    """The contender of a selector, a way or BEST. Raises ValueError for one that is not known."""
    if "best" not in options:
        return Way.of(options)
    choice("best", options["best"], (BEST,))
    return BEST


def form(options: Mapping[str, Any]) -> Form:
    """The form of a selector. Raises ValueError for one that is not known."""
    for name in options:
        choice("field of a form", name, Form._fields)
    Way.of({**options, "scheme": "binary"})
    return Form(**options)


_SELECTORS = {"Group": Group.of, "Way": Way.of, "Contender": contender, "Form": form}


def prepared(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a measure with selectors resolved.

    Raises ValueError for an unknown measure, an unknown or missing argument, or a wrong selector.
    """
    choice("measure", name, MEASURES)
    parameters = dict(list(inspect.signature(MEASURES[name].function).parameters.items())[1:])
    for argument in arguments:
        choice(f"argument of {name}", argument, parameters)
    if missing := [key for key, row in parameters.items() if row.default is row.empty and key not in arguments]:
        raise ValueError(f"{name} lacks {', '.join(missing)}; allowed: {', '.join(parameters)}")
    found = {}
    for argument, value in arguments.items():
        resolve = _SELECTORS.get(parameters[argument].annotation)
        if resolve and not isinstance(value, Mapping):
            raise ValueError(f'{argument} = {value!r}; allowed: a table, such as {{ design = "signed_binary" }}')
        found[argument] = resolve(value) if resolve else value
    return found


class Measurer:
    """Measures one evidence, each number once."""

    def __init__(self, evidence: Evidence):
        self._evidence = evidence
        self._found: dict[Any, Measured] = {}

    def __call__(self, name: str, arguments: Mapping[str, Any]) -> Measured:
        """The number. Raises MissingRecord where no record measures it, ValueError as `prepared` does."""
        resolved = prepared(name, arguments)
        key = (name, *sorted(resolved.items()))
        if key not in self._found:
            self._found[key] = MEASURES[name].function(self._evidence, **resolved)
        return self._found[key]
