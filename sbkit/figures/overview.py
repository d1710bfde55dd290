"""00_overview: the tables that set every claim of the paper beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandas import DataFrame

from sbkit.evidence import benchmarks, claims
from sbkit.evidence.gather import gather
from sbkit.evidence.questions import COMMITTED

CLAIMS = ["id", "claim", "paper", "ours", "margin", "unit", "verdict"]
"""The columns of claims that a notebook shows; their CSV holds the settings, sources, CPUs and records as well."""


def tables(root: Path, folder: Path, catalogue: Mapping[str, Mapping[str, Any]]) -> dict[str, DataFrame]:
    """All tables by stem, for the repository at `root`, the records below `folder`, and what is drawn of them.

    claims_headline  what a stranger reads first
    claims           every claim
    claims_tests     which effects stand when all are tested at once
    contradictions   numbers of the paper that do not fit each other
    identities       statements that need no experiment
    inventory        the paper's figures and tables, and what answers them
    claims_cpus      what each CPU says of speed, by these records and the committed ones; only beside a benchmark
    """
    path = root / "notebooks" / "claims.toml"
    listed = claims.load_claims(path)
    evidence = gather(folder)
    table = claims.claims_table(listed, evidence)
    kinds = {"contradictions": "contradiction", "identities": "identity"}
    statements = {stem: claims.statements_table(claims.load_statements(path, kind)) for stem, kind in kinds.items()}
    others = [*statements["contradictions"]["id"], *statements["identities"]["id"]]
    found = {
        "claims_headline": claims.headline_table(listed, table),
        "claims": table,
        "claims_tests": claims.tests_table(table, evidence),
        **statements,
        "inventory": claims.inventory_table(claims.load_inventory(path), table, others, catalogue),
    }
    if len(evidence.bench):
        found["claims_cpus"] = claims.cpus_table(listed, _benchmarks(root / "results", folder))
    return found


def _benchmarks(results: Path, folder: Path) -> dict[str, DataFrame]:
    """The benchmarks of a profile's folder and of all committed ones, by profile."""
    committed = [path.parents[1] for path in sorted(results.glob(f"{COMMITTED}/*/records/bench"))]
    return {str(path.relative_to(results)): benchmarks.read(path) for path in dict.fromkeys([folder, *committed])}
