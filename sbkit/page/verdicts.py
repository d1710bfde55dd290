"""Yours beside ours: the verdicts of a profile and the committed ones of the same profile."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sbkit.notebook import Run
from sbkit.page.items import Table


def compared(run: Run) -> pd.DataFrame:
    """What `beside` says of a profile and the committed one; empty for a committed profile, and where either table is
    missing.
    """
    theirs = run.root / "results/reference" / run.profile
    if run.profile.startswith("reference/") or not all(_table(folder).exists() for folder in (run.folder, theirs)):
        return pd.DataFrame(columns=["id", "claim", "ours", "verdict", "their_ours", "their_verdict", "same"])
    return beside(run.folder, theirs)


def _table(folder: Path) -> Path:
    return folder / "tables" / "claims.csv"


def beside(yours: Path, theirs: Path) -> pd.DataFrame:
    """A row per claim that both folders of results judge: id, claim, ours, verdict, their_ours, their_verdict, same.

    Raises FileNotFoundError naming a table that is not there.
    """
    for path in (_table(yours), _table(theirs)):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; allowed: a folder of results whose claims were judged")
    yours, theirs = (pd.read_csv(_table(folder), dtype=str, keep_default_na=False) for folder in (yours, theirs))
    theirs = theirs[["id", "ours", "verdict"]].rename(columns={"ours": "their_ours", "verdict": "their_verdict"})
    both = yours[["id", "claim", "ours", "verdict"]].merge(theirs, on="id")
    return both.assign(same=both["verdict"] == both["their_verdict"])


def as_table(rows: pd.DataFrame) -> Table:
    """The comparison for the page, those that differ first."""
    shown = rows.sort_values("same", kind="stable")[["claim", "ours", "verdict", "their_ours", "their_verdict"]]
    columns = ["claim", "yours", "verdict", "committed", "verdict"]
    return Table(columns, ["left"] * len(columns), shown.to_numpy().tolist())


def as_lines(rows: pd.DataFrame, theirs: str = "committed") -> list[str]:
    """For a terminal: how many verdicts are the same, and each that is not; `theirs` names the others."""
    if rows.empty:
        return []
    differ = rows[~rows["same"]]
    return [f"verdicts  {len(rows) - len(differ)} of {len(rows)} equal the {theirs} ones"] + [
        f"          {row.id}: {row.verdict}, {row.ours}; {theirs}: {row.their_verdict}, {row.their_ours}"
        for row in differ.itertuples()
    ]
