"""Yours beside ours: the verdicts of a profile and the committed ones of the same profile."""

from __future__ import annotations

import pandas as pd

from sbkit.notebook import Run
from sbkit.page.items import Table


def compared(run: Run) -> pd.DataFrame:
    """A row per claim that both tables hold: id, claim, ours, verdict, their_ours, their_verdict, same.

    It is empty for a committed profile, and where either table is missing.
    """
    paths = [folder / "tables" / "claims.csv" for folder in (run.folder, run.root / "results/reference" / run.profile)]
    if run.profile.startswith("reference/") or not all(path.exists() for path in paths):
        return pd.DataFrame(columns=["id", "claim", "ours", "verdict", "their_ours", "their_verdict", "same"])
    yours, committed = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths)
    theirs = committed[["id", "ours", "verdict"]].rename(columns={"ours": "their_ours", "verdict": "their_verdict"})
    both = yours[["id", "claim", "ours", "verdict"]].merge(theirs, on="id")
    return both.assign(same=both["verdict"] == both["their_verdict"])


def as_table(rows: pd.DataFrame) -> Table:
    """The comparison for the page, those that differ first."""
    shown = rows.sort_values("same", kind="stable")[["claim", "ours", "verdict", "their_ours", "their_verdict"]]
    columns = ["claim", "yours", "verdict", "committed", "verdict"]
    return Table(columns, ["left"] * len(columns), shown.to_numpy().tolist())


def as_lines(rows: pd.DataFrame) -> list[str]:
    """The comparison for a terminal: how many verdicts are the same, and each that is not."""
    if rows.empty:
        return []
    differ = rows[~rows["same"]]
    return [f"verdicts  {len(rows) - len(differ)} of {len(rows)} equal the committed ones"] + [
        f"          {row.id}: {row.verdict}, {row.ours}; committed: {row.their_verdict}, {row.their_ours}"
        for row in differ.itertuples()
    ]
