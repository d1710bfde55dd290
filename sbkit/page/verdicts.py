"""Yours beside ours: the verdicts of a profile and the committed ones of the same profile."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from sbkit.notebook import Run
from sbkit.page.items import Table


class Compared(NamedTuple):
    """A claim with its number and verdict in this profile, and in the committed records."""

    id: str
    claim: str
    yours: str
    your_verdict: str
    committed: str
    committed_verdict: str

    @property
    def same(self) -> bool:
        """Whether both verdicts are the same word."""
        return self.your_verdict == self.committed_verdict


def compared(run: Run) -> list[Compared]:
    """One row per claim that both tables hold; empty of a committed profile, and where either table is missing."""
    table = Path("tables", "claims.csv")
    yours, ours = (folder / table for folder in (run.folder, run.root / "results" / "reference" / run.profile))
    if run.profile.startswith("reference/") or not (yours.exists() and ours.exists()):
        return []
    committed = {row["id"]: row for row in _rows(ours)}
    return [
        Compared(row["id"], row["claim"], row["ours"], row["verdict"], other["ours"], other["verdict"])
        for row in _rows(yours)
        if (other := committed.get(row["id"]))
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def as_table(rows: list[Compared]) -> Table:
    """The comparison for the page, those that differ first."""
    ordered = sorted(rows, key=lambda row: row.same)
    columns = ["claim", "yours", "verdict", "committed", "verdict"]
    cells = [[row.claim, row.yours, row.your_verdict, row.committed, row.committed_verdict] for row in ordered]
    return Table(columns, ["left"] * len(columns), cells)


def as_lines(rows: list[Compared]) -> list[str]:
    """The comparison for a terminal: how many verdicts are the same, and each that is not."""
    if not rows:
        return []
    differ = [row for row in rows if not row.same]
    lines = [f"verdicts  {len(rows) - len(differ)} of {len(rows)} equal the committed ones"]
    for row in differ:
        lines.append(
            f"          {row.id}: {row.your_verdict}, {row.yours}; committed: {row.committed_verdict}, {row.committed}"
        )
    return lines
