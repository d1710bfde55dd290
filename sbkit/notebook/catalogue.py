"""Every figure and table that the readers save, as notebooks/catalogue.toml lists them, and which a profile draws."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from sbkit.checks import choice, stem, table, toml
from sbkit.designs import DESIGNS, QUANTIZER_OPTIONS
from sbkit.notebook.experiments import DEFAULTS, NOTEBOOKS, find_root

FORMATS = {"figures": ("pdf", "png", "svg", "csv"), "tables": ("csv", "md", "tex")}
"""The files of what a reader saves, by folder."""

READS = (*NOTEBOOKS, "weights")
"""What a reader reads: the kinds of records, and weight codes."""

_FORMS = {"notebook": str, "paper": str, "caption": str, "reads": list, "needs": dict}


def load_catalogue(root: Path | None = None) -> dict[str, dict[str, Any]]:
    """The entries in reading order, by name: "figures/<stem>" or "tables/<stem>".

    Keys of an entry: notebook (the stem of its file), paper (which of the paper's figures and tables it answers, or
    empty), caption, reads (of READS), needs (options that a run of the profile must have, and `design`, whose options
    it must have, or a list of designs, each of which some run must have; `variant`: a scheme of which some run must
    have another form than the plain one; `column`: one that the timings of such a run must have, as older records may
    lack it).
    Raises ValueError naming the entry and what is wrong with it.
    """
    catalogue = toml((root or find_root()) / "notebooks" / "catalogue.toml")
    for name, entry in catalogue.items():
        folder, _, file = name.partition("/")
        choice(f"catalogue.toml: folder of {name}", folder, FORMATS)
        stem(f"catalogue.toml: {folder}", file)
        table(f"catalogue.toml: {name}", entry, _FORMS, optional=["needs"])
        entry.setdefault("needs", {})
        for kind in entry["reads"]:
            choice(f"catalogue.toml: {name}.reads", kind, READS)
        for design in _designs(entry["needs"]):
            choice(f"catalogue.toml: {name}.needs.design", design, DESIGNS)
    return catalogue


def drawn(
    catalogue: Mapping[str, dict[str, Any]], kinds: Collection[str], runs: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The entries of a catalogue that a profile draws.

    `kinds` are the READS that the profile has, `runs` the options of its runs that differ from their defaults, and a
    training run's quantizer and a benchmark's study in any case; `columns`, where a run gives them, are those of its
    timings. An entry is drawn if there is any of the kinds that it reads and, where it needs options or a design, a run
    with them. One that reads nothing is drawn beside the others of its notebook.
    """
    kinds, runs = set(kinds), list(runs)
    readers = {entry["notebook"] for entry in catalogue.values() if kinds.intersection(entry["reads"])}
    return {
        name: entry
        for name, entry in catalogue.items()
        if entry["notebook"] in readers
        and (not entry["reads"] or kinds.intersection(entry["reads"]))
        and _met(entry["needs"], runs)
    }


def _designs(needs: Mapping[str, Any]) -> list[Any]:
    design = needs.get("design", [])
    return design if isinstance(design, list) else [design]


def _met(needs: Mapping[str, Any], runs: list[Mapping[str, Any]]) -> bool:
    """Whether some run has the options, some run each of the designs, and some run a variant of the scheme."""
    options = {name: value for name, value in needs.items() if name not in ("design", "variant", "column")}
    columns = {needs["column"]} if "column" in needs else set()
    forms = [{name: value for name, value in run.items() if name in QUANTIZER_OPTIONS} for run in runs]
    scheme = needs.get("variant")
    return (
        (
            not options
            or any(options.items() <= run.items() and columns.issubset(run.get("columns", columns)) for run in runs)
        )
        and all(DEFAULTS["train"] | DESIGNS[design].options in forms for design in _designs(needs))
        and (not scheme or any(form.get("quantizer") == scheme and len(form) > 1 for form in forms))
    )
