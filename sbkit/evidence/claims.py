"""The paper's claims, each beside what the records say, with a verdict by a written rule.

claims.toml holds all words: [[claim]] what the paper says and which measure answers it; [[contradiction]] numbers of
the paper that do not fit each other; [[identity]] statements that hold without an experiment; [[item]] the paper's
figures and tables. The code adds numbers and words from fixed lists.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from sbkit.checks import choice, named, number, tables
from sbkit.evidence.gather import Evidence
from sbkit.evidence.measures import MEASURES, Measurer, prepared
from sbkit.evidence.paper import PAPER
from sbkit.evidence.stats import Measured, MissingRecord, two_sided

VERDICTS = ("stronger", "agrees", "weaker", "no effect measured", "opposite", "out of reach", "no record")
KINDS = ("effect", "as accurate", "level")
NO_RECORD, OUT_OF_REACH = "no record", "out of reach"
ONE_SEED = "a second seed is missing"

RULE = """\
*The rule.* If the 95 % interval holds the value that means "no effect", the verdict is *no effect measured*; if it lies
wholly on the other side of it than the paper's number, *opposite*. On the paper's side, a mean within the margin of the
paper's number *agrees*; else it is *stronger* if further from "no effect" and *weaker* if nearer to it.
"As accurate as" is tested on one side: it *agrees* where the interval lies wholly above minus the margin (one point),
is *opposite* where it lies wholly below, and counts as *no effect measured* in between.
"""

INTERVALS = """\
*The intervals.* A mean ± its two-sided 95 % interval by Student's t; one-sided tests use the same. Accuracy, density:
n trained networks that differ in the seed alone, where a difference is taken for each seed that both designs share.
Speed: n rounds in one process, in which all contenders are timed in turn; or n processes with codes and plans of their
own, where a benchmark pooled several (the column `of`). It says nothing of other CPUs: the table of CPUs does.
A count is exact. The accelerator model has no interval: in brackets stands the range of its result when assumptions are
changed, one at a time. No interval is corrected for the number of claims; the table of tests is.
"""

_STATEMENT = dict.fromkeys(("id", "text", "paper", "measure", "source", "remark"), str) | {
    "margin": int | float,
    "arguments": dict,
}
_OPTIONAL = {"neutral": int | float, "restates": list} | dict.fromkeys(("kind", "better", "command", "headline"), str)
_CLAIM = _STATEMENT | dict.fromkeys(("setting", "how", "notebook"), str) | _OPTIONAL
_CLAIM.pop("remark")
_ITEM = dict.fromkeys(("item", "content", "setting", "note"), str) | {"claims": list}


def load_claims(path: str | Path) -> list[dict[str, Any]]:
    """The [[claim]] tables of claims.toml.

    Keys: id, text, paper (a key of PAPER), margin (in the measure's unit), setting, source, how (it is measured here),
    measure (of MEASURES; empty where nothing here measures it), notebook (that shows it), and where they apply
      neutral    the value that means no effect; an effect needs it
      kind       "effect" if not given, "as accurate", or "level"
      better     of a level: "higher" or "lower"
      arguments  of the measure, with selectors
      command    what would measure it; without records, the claim is out of reach of small ones
      headline   the claim in words for the headline table, if it stands there
      restates   ids of other claims of the paper that are the same number
    Raises ValueError naming the claim, the key, its value and what is allowed.
    """
    claims = tables(Path(path), "claim", _CLAIM, {"arguments", *_OPTIONAL}, key="id")
    ids = [name for claim in claims for name in (claim["id"], *claim.get("restates", ()))]
    for claim in claims:
        with named(f"claim {claim['id']}"):
            _check_measured(claim)
            choice("kind", claim.get("kind", "effect"), KINDS)
            if claim.get("kind") == "level":
                choice("better", claim.get("better"), ("higher", "lower"))
            if claim["measure"] and "kind" not in claim:
                number("neutral", claim.get("neutral"))
            for name in claim.get("restates", ()):
                if ids.count(name) > 1:
                    raise ValueError(f"restates = {name!r}; allowed: an id that no other claim has or restates")
    return claims


def _check_measured(table: Mapping[str, Any]) -> None:
    """The keys paper, margin, measure, arguments and command of a claim or a statement."""
    choice("measure", table["measure"], ("", *MEASURES))
    if not table["measure"]:
        if not table.get("command"):
            raise ValueError('measure = "" without a command; allowed: a command, what would measure it')
        return
    choice("paper", table["paper"], PAPER)
    number("margin", table["margin"], 0)
    prepared(table["measure"], table.get("arguments", {}))


def verdict(claim: Mapping[str, Any], measured: Measured) -> str:
    """One of VERDICTS, by RULE.

    A level has no value that means no effect: an interval within paper ± margin agrees, one wholly beyond it is
    stronger on the better side and weaker on the other, and one that is neither decides nothing ("no effect measured").
    One value whose interval is open has no verdict: "no record".
    """
    if math.isnan(measured.half_width):
        return NO_RECORD
    margin, low, high = claim["margin"], measured.low, measured.high
    paper, kind = PAPER[claim["paper"]], claim.get("kind", "effect")
    if kind == "level":
        if paper - margin <= low and high <= paper + margin:
            return "agrees"
        if paper - margin <= high and low <= paper + margin:
            return "no effect measured"
        return "stronger" if (low > paper) == (claim["better"] == "higher") else "weaker"
    neutral = _neutral(claim)
    upwards = kind == "as accurate" or paper > neutral  # the paper's side
    if low <= neutral <= high:
        return "no effect measured"
    if (low > neutral) != upwards:
        return "opposite"
    if kind == "as accurate" or abs(measured.value - paper) <= margin:
        return "agrees"
    return "stronger" if (measured.value > paper) == upwards else "weaker"


def _neutral(claim: Mapping[str, Any]) -> float:
    """The value on whose two sides a claim holds and does not: "no effect", or the margin below equal accuracy."""
    return -claim["margin"] if claim.get("kind") == "as accurate" else claim.get("neutral", math.nan)


def claims_table(claims: Iterable[Mapping[str, Any]], evidence: Evidence) -> DataFrame:
    """One row per claim: the paper's value, ours, the margin, the verdict, and the records that it rests on.

    Columns: id, claim, restates, paper, ours (for people), value, half_width, low, high, n, of (what n counts),
    neutral (what means no effect, or the least that is as accurate), margin, unit, verdict, notebook, setting, source,
    how, cpu (of the records), records, lacks (what is missing), command.
    """
    measurer, rows = Measurer(evidence), []
    cpus = _cpus(evidence)
    for claim in claims:
        found: Measured | None = None
        lacks = "" if claim["measure"] else "-"
        if claim["measure"]:
            try:
                found = measurer(claim["measure"], claim.get("arguments", {}))
            except MissingRecord as missing:
                lacks = str(missing)
        absent = OUT_OF_REACH if claim.get("command") else NO_RECORD
        names = found.names if found else ()
        rows.append(
            {"id": claim["id"], "claim": claim["text"], "restates": ", ".join(claim.get("restates", ()))}
            | {"paper": PAPER.get(claim["paper"], math.nan)}
            | numbers(found)
            | {"neutral": _neutral(claim), "margin": claim["margin"]}
            | {"unit": MEASURES[claim["measure"]].unit if claim["measure"] else "-"}
            | {"verdict": verdict(claim, found) if found else absent}
            | {key: claim[key] for key in ("notebook", "setting", "source", "how")}
            | {"cpu": ", ".join(sorted({cpus[name] for name in names if name in cpus})), "records": ", ".join(names)}
            | {"lacks": ONE_SEED if found and math.isnan(found.half_width) else lacks}
            | {"command": claim.get("command", "")}
        )
    return DataFrame(rows)


def numbers(found: Measured | None) -> dict[str, Any]:
    """The columns of a table that show a number, or that there is none: ours, value, half_width, low, high, n, of."""
    if found is None:
        return {"ours": "-"} | dict.fromkeys(("value", "half_width", "low", "high"), math.nan) | {"n": 0, "of": "-"}
    values = {"value": found.value, "half_width": found.half_width, "low": found.low, "high": found.high}
    return {"ours": str(found)} | values | {"n": found.n, "of": found.of}


def _cpus(evidence: Evidence) -> dict[str, str]:
    """The CPU of each record by its name. Its instruction set tells generations apart that call themselves the same."""
    columns = ["name", "provenance_cpu", "provenance_isa"]
    frames = [frame[columns] for frame in (evidence.train, evidence.bench) if len(frame)]
    found = pd.concat(frames).dropna().drop_duplicates() if frames else DataFrame()
    return {name: f"{cpu} ({isa})" if isa else cpu for name, cpu, isa in found.itertuples(index=False)}


def tests_table(table: DataFrame, evidence: Evidence) -> DataFrame:
    """One row per effect of `claims_table` that several seeds or rounds measure, the surest first: does it stand when
    all of them are tested at once?

    Columns: id, ours, p (two-sided, of Student's t against the column `neutral`), holm (p corrected for the number of
    rows, Holm 1979), stands ("yes" where that is at most 0.05), across_cpus (how many seeds have runs from more than
    one CPU; "-" where rounds are counted).
    """
    effects = table[table["neutral"].notna() & (table["half_width"] > 0)]
    p = [
        two_sided(row.value - row.neutral, row.half_width, row.n)
        for row in effects[["value", "neutral", "half_width", "n"]].itertuples()
    ]
    across = [_across_cpus(names.split(", "), evidence.train) for names in effects["records"]]
    found = effects[["id", "ours"]].assign(p=p, across_cpus=across).sort_values("p", kind="stable", ignore_index=True)
    corrected = (found["p"] * np.arange(len(found), 0, -1)).cummax().clip(upper=1)
    found.insert(3, "holm", corrected)
    found.insert(4, "stands", corrected.le(0.05).map({True: "yes", False: "no"}))
    return found


def _across_cpus(names: list[str], train: DataFrame) -> str:
    if train.empty or not (runs := train[train["name"].isin(names)]).size:
        return "-"
    cpus = (runs["provenance_cpu"] + runs["provenance_isa"]).groupby(runs["seed"]).nunique()
    return f"{(cpus > 1).sum()} of {len(cpus)}"


def headline_table(claims: Iterable[Mapping[str, Any]], table: DataFrame) -> DataFrame:
    """The rows of `claims_table` for readers who know nothing else, in words of their own."""
    words = {claim["id"]: claim["headline"] for claim in claims if claim.get("headline")}
    rows = table[table["id"].isin(words)]
    columns = ["id", "claim", "paper", "ours", "margin", "unit", "verdict"]
    return rows.assign(claim=rows["id"].map(words))[columns].reset_index(drop=True)


def cpus_table(claims: Iterable[Mapping[str, Any]], benches: Mapping[str, DataFrame]) -> DataFrame:
    """The headline claims of speed on every CPU that was measured: one row per claim and profile that judges it.

    `benches` holds what `benchmarks.read` gives, by profile. Columns: id, claim (as in the headline), cpu, profile,
    paper, ours, of (what n counts), verdict.
    """
    fast = [claim for claim in claims if claim.get("headline") and claim["measure"] == "speedup"]
    parts = [
        claims_table([claim], Evidence(DataFrame(), bench, {})).assign(claim=claim["headline"], profile=profile)
        for claim in fast
        for profile, bench in benches.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    columns = ["id", "claim", "cpu", "profile", "paper", "ours", "of", "verdict"]
    return table.loc[table["n"] > 0, columns].reset_index(drop=True)


# Statements that need no experiment, and the paper's figures and tables


def load_statements(path: str | Path, kind: str) -> list[dict[str, Any]]:
    """The [[contradiction]] or [[identity]] tables of claims.toml.

    Keys: id, text, paper (a key of PAPER), margin (what rounding allows), measure and arguments (what is reckoned),
    source, remark (of a contradiction: what may explain it). Raises ValueError naming the table and what is wrong.
    """
    choice("kind", kind, ("contradiction", "identity"))
    statements = tables(Path(path), kind, _STATEMENT, ("arguments",), key="id")
    for statement in statements:
        with named(f"{kind} {statement['id']}"):
            _check_measured(statement)
    return statements


def statements_table(statements: Iterable[Mapping[str, Any]]) -> DataFrame:
    """One row per statement: the paper's value, what is reckoned, and whether they agree within rounding (`fits`)."""
    measurer, rows = Measurer(Evidence(DataFrame(), DataFrame(), {})), []
    for statement in statements:
        found = measurer(statement["measure"], statement.get("arguments", {}))
        paper = PAPER[statement["paper"]]
        rows.append(
            {"id": statement["id"], "statement": statement["text"], "paper": paper, "reckoned": found.value}
            | {"fits": "yes" if abs(found.value - paper) <= statement["margin"] else "no"}
            | {"remark": statement["remark"], "source": statement["source"]}
        )
    return DataFrame(rows)


def load_inventory(path: str | Path) -> list[dict[str, Any]]:
    """The [[item]] tables of claims.toml: the paper's figures, tables and sections.

    Keys: item ("Fig. 4", as the catalogue's `paper` names it), content, setting, claims (ids of claims and statements
    that it carries; "C8" stands for C8-binary and the like too), note (may be empty).
    """
    return tables(Path(path), "item", _ITEM, key="item")


def inventory_table(
    items: Iterable[Mapping[str, Any]],
    table: DataFrame,
    statements: Iterable[str],
    catalogue: Mapping[str, Mapping[str, Any]],
) -> DataFrame:
    """One row per figure and table of the paper: what answers it here, and how many claims have which verdict.

    `table` is what `claims_table` gave, `statements` are ids of contradictions and identities, `catalogue` holds the
    figures and tables that are drawn, by "figures/<stem>". Raises ValueError for an item that names an unknown claim.
    """
    others = {name for row in table["restates"] for name in row.split(", ")} | set(statements)
    rows = []
    for item in items:
        verdicts = []
        for name in item["claims"]:
            own = table["id"].str.fullmatch(rf"{name}(-.*)?")
            if not own.any() and not any(other == name or other.startswith(f"{name}-") for other in others):
                raise ValueError(f"item {item['item']}: claims = {name!r}; allowed: C8, or C8-binary")
            verdicts += table.loc[own, "verdict"].tolist()
        here = {name: entry for name, entry in catalogue.items() if item["item"] in entry["paper"].split(", ")}
        counts = [f"{word}: {verdicts.count(word)}" for word in VERDICTS if word in verdicts]
        rows.append(
            {"item": item["item"], "content": item["content"], "setting": item["setting"]}
            | {"here": ", ".join(here) or "-"}
            | {"claims": ", ".join(item["claims"]) or "-", "verdicts": ", ".join(counts) or "-", "note": item["note"]}
        )
    return DataFrame(rows)
