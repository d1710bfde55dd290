"""The questions of the open review: answers written by hand, and the numbers that they rest on.

questions.toml holds each answer, and below it numbers with the sign that the sentences rely on: "+" or "-" where the
95 % interval must lie wholly on that side of the value that means no effect, "0" where it must hold that value. The
code measures the numbers and says whether the signs hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pandas import DataFrame

from sbkit.checks import choice, named, number, tables
from sbkit.evidence.claims import numbers
from sbkit.evidence.measures import MEASURES, prepared
from sbkit.evidence.stats import Measured, MissingRecord
from sbkit.tables import cell, markdown

SIGNS = ("+", "0", "-")
HOLDS = ("agrees", "undecided", "disagrees", "not measured", "-")
"""Whether a number has the sign that the answer relies on. Undecided: its interval holds the value of no effect,
where a side is relied on. A dash: the answer relies on no sign of it."""

DISAGREES = "These records disagree with this answer."
COMMITTED = "reference"
"""The folder of results that holds the committed profiles."""

_QUESTION = dict.fromkeys(
    ("id", "who", "question", "authors", "experiment", "answer", "text", "command", "notebook", "figure"), str
) | {"numbers": list}


_OWN = ("what", "measure", "profile", "fixed", "sign", "neutral")


def load_questions(path: str | Path) -> list[dict[str, Any]]:
    """The [[question]] tables of questions.toml.

    Keys: id, who (asked), question, authors (their answer and its source), experiment (that answers it), answer (a word
    or two), text (two or three sentences), numbers, command (that repeats the experiment), notebook (that shows more),
    figure (its stem, or empty). A number holds
      what     the number, for people
      measure  of MEASURES; the measure's arguments stand beside it
      profile  whose committed records the answer was written from
      fixed    true where the text names the setting of that profile: then no other records are asked
      sign     of SIGNS, which the text relies on
      neutral  the value of no effect, where the measure has none of its own
    Raises ValueError naming the question, the key, its value and what is allowed.
    """
    questions = tables(Path(path), "question", _QUESTION, key="id")
    for question in questions:
        with named(f"question {question['id']}"):
            for key in ("answer", "text", "question"):
                if not question[key].strip():
                    raise ValueError(f"{key} = ''; allowed: any text")
            for row in question["numbers"]:
                _check(row)
    return questions


def _check(row: Mapping[str, Any]) -> None:
    if missing := {"what", "measure", "profile"} - row.keys():
        raise ValueError(f"the number {row.get('what', '?')!r} lacks {', '.join(sorted(missing))}")
    with named(f"number {row['what']!r}"):
        prepared(row["measure"], _arguments(row))
        if "sign" in row:
            choice("sign", row["sign"], SIGNS)
            number("neutral", _neutral(row))


def _arguments(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in _OWN}


def _neutral(row: Mapping[str, Any]) -> float | None:
    return row.get("neutral", MEASURES[row["measure"]].neutral)


def numbers_table(
    questions: Iterable[Mapping[str, Any]], measurer: Callable[[str], Callable[..., Measured]], first: str = ""
) -> DataFrame:
    """One row per number of each question.

    `measurer` gives the `Measurer` of a profile. The profile `first` is asked before the committed one that the answer
    was written from. Columns: id, what, the columns of `claims.numbers`, neutral, unit, sign, holds (of HOLDS),
    profile, records, lacks (what is missing).
    """
    rows = []
    for question in questions:
        for row in question["numbers"]:
            found, profile, lacks = _measured(row, measurer, first)
            neutral = _neutral(row)
            rows.append(
                {"id": question["id"], "what": row["what"]}
                | numbers(found)
                | {"neutral": math.nan if neutral is None else neutral, "unit": MEASURES[row["measure"]].unit}
                | {"sign": row.get("sign", ""), "holds": holds(row.get("sign", ""), found, neutral)}
                | {"profile": profile, "records": ", ".join(found.names) if found else "", "lacks": lacks}
            )
    return DataFrame(rows)


def _measured(row: Mapping[str, Any], measurer: Callable, first: str) -> tuple[Measured | None, str, str]:
    """The number, the profile whose records gave it, and what is missing if none did."""
    lacks = ""
    committed = f"{COMMITTED}/{row['profile']}"
    for profile in [committed] if row.get("fixed") else dict.fromkeys([first or committed, committed]):
        try:
            found = measurer(profile)(row["measure"], _arguments(row))
        except MissingRecord as missing:
            lacks = str(missing)
        else:
            if not math.isnan(found.half_width):
                return found, profile, ""
            lacks = "a second seed"
    return None, "-", lacks


def holds(sign: str, found: Measured | None, neutral: float | None) -> str:
    """One of HOLDS: whether a number has the sign."""
    if found is None:
        return "not measured"
    if not sign:
        return "-"
    measured = "+" if found.low > neutral else "-" if found.high < neutral else "0"
    if measured == sign:
        return "agrees"
    return "undecided" if measured == "0" else "disagrees"


def answers_table(questions: Iterable[Mapping[str, Any]], table: DataFrame) -> DataFrame:
    """One row per question; `table` is what `numbers_table` gave.

    Columns: id, who, question, answer, text, holds (the worst of its numbers'), authors, experiment, notebook, figure,
    command.
    """
    rows = []
    for question in questions:
        found = set(table.loc[table["id"] == question["id"], "holds"]) if len(table) else set()
        worst = next((word for word in ("disagrees", "not measured", "undecided", "agrees") if word in found), "-")
        keys = ("authors", "experiment", "notebook", "figure", "command")
        rows.append(
            {key: question[key].strip() for key in ("id", "who", "question", "answer", "text")}
            | {"holds": worst}
            | {key: question[key] for key in keys}
        )
    return DataFrame(rows)


_HEADINGS = {
    "what": "what",
    "ours": "measured",
    "unit": "unit",
    "neutral": "no effect",
    "holds": "with the answer",
    "profile": "records",
}


def as_markdown(answers: DataFrame, table: DataFrame) -> str:
    """All questions for people: the answer in bold, its sentences, a warning where records disagree, its numbers."""
    parts = []
    for row in answers.itertuples():
        own = table[table["id"] == row.id] if len(table) else table
        parts.append(f"#### {row.id} · {row.question}\n\n**{row.answer}.** {row.text}\n")
        if row.holds == "disagrees":
            parts.append(f"> **{DISAGREES}**\n")
        if len(own):
            rows = own[list(_HEADINGS)].map(cell).itertuples(index=False)
            parts.append(markdown(list(_HEADINGS.values()), rows) + "\n")
    return "\n".join(parts)
