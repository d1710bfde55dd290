"""Rounds of timings, and the rows of a record that they become."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Timer

from sbkit.bench.config import BenchConfig
from sbkit.bench.contender import Contender, Subject
from sbkit.way import Way

BASELINE: dict[str, Any] = {
    "model": "",
    "chosen_group": 0,
    "isa": "",
    "geometry": "",
    "plan_seconds": 0.0,
    "density": 1.0,
    "entropy_bits": None,
    "best_reduction": 1.0,
    "bound_adds": None,
}
"""Columns of a contender without codes."""


def timings(config: BenchConfig, subject: Subject) -> list[dict[str, Any]]:
    """Time all contenders of a subject, round by round: a row of the record for each.

    Each round times every contender once with `Timer.blocked_autorange`, so that a change of the machine's speed meets
    all of them. The order of contenders is drawn anew for each round, by a generator seeded with `config.seed` and the
    round's number, so that none always runs behind the same other one.
    """
    contenders = subject.contenders
    timers = [Timer("call()", globals={"call": c.call}, num_threads=c.threads) for c in contenders]
    round_ms: list[list[float]] = [[] for _ in timers]
    blocks: list[list[float]] = [[] for _ in timers]
    with torch.inference_mode():
        for contender in contenders:
            contender.call()
        for number in range(config.rounds):
            for i in np.random.default_rng((config.seed, number)).permutation(len(timers)):
                found = timers[i].blocked_autorange(min_run_time=config.min_run_ms / 1e3)
                round_ms[i].append(found.median * 1e3)
                blocks[i] += [seconds * 1e3 for seconds in found.times]
    return [_row(subject, *rest) for rest in zip(contenders, round_ms, blocks, strict=True)]


def _row(subject: Subject, contender: Contender, round_ms: list[float], blocks: list[float]) -> dict[str, Any]:
    low, middle, high = np.percentile(blocks, (25, 50, 75))
    median = float(np.median(round_ms))
    row = BASELINE | subject.columns | contender.columns
    return row | {
        "way": contender.way.options(),
        "on_threads": contender.threads,
        "median_ms": median,
        "iqr_ms": float(high - low),
        "min_ms": min(blocks),
        "round_ms": round_ms,
        "rounds": len(round_ms),
        "flagged": bool((high - low) / middle > 0.1),
        "gmacs": subject.macs / median / 1e6,  # dense-equivalent 1e9 multiply-accumulates a second
        "reduction": (subject.columns["adds"] + subject.columns["multiplies"]) / (row["adds"] + row["multiplies"]),
    }


def under_the_roof(row: dict[str, Any], vector_adds: float) -> dict[str, Any]:
    """A row with the time that its least number of additions takes at so many a second."""
    adds = row["bound_adds"]
    bound = None if adds is None else adds / vector_adds * 1e3
    return row | {"bound_ms": bound, "roofline_fraction": bound and bound / row["median_ms"]}


def report(rows: list[dict[str, Any]], seconds: float) -> str:
    """A line for people: the fastest way of each algorithm or library."""
    fastest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["median_ms"]):
        fastest.setdefault(row["way"]["algorithm"], row)
    found = (f"{Way.of(row['way']).label()} {row['median_ms']:.3g} ms" for row in fastest.values())
    noisy = sum(row["flagged"] for row in rows)
    return f"{rows[0]['layer']}: {'; '.join(found)}; {noisy} of {len(rows)} noisy, {seconds:.0f} s"
