"""A study of the benchmark: rounds of timings, and the record that they become."""

from __future__ import annotations

import importlib.metadata
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.benchmark import Timer

from sbkit import records
from sbkit.bench import ours
from sbkit.bench.config import BenchConfig
from sbkit.bench.contender import Contender, Subject
from sbkit.bench.libraries import HELD_TO
from sbkit.bench.studies import STUDIES
from sbkit.bench.subjects import SUBJECTS
from sbkit.checks import stem
from sbkit.way import PEERS, Way

HELD = {"avx2": "AVX2", "avx512": "AVX512_CORE_VNNI"}
"""By ISA of the kernels that was asked for, what oneDNN is held to; "avx512" leaves out the matrix unit (AMX)."""

BASELINE: dict[str, Any] = {
    **{"model": "", "chosen_group": 0, "isa": "", "geometry": "", "plan_seconds": 0.0},
    **{"density": 1.0, "entropy_bits": None, "best_reduction": 1.0},
}
"""Columns of a contender without codes."""


def run(config: BenchConfig, folder: str | Path, name: str = "") -> records.Record:
    """Measure and write folder/records/bench/<name>.json; `name` is the record's id unless given.

    Raises ValueError for a name that is not one word, before anything is measured.
    """
    if name:
        stem("name", name)
    started = records.start()
    metrics = measure(config)
    timed = {row["way"]["algorithm"] for row in metrics["timings"]} & (PEERS.keys() - {"torch"})
    extra = {
        "isa": ", ".join(sorted({row.get("isa") or "" for row in metrics["timings"] if "scheme" in row["way"]} - {""})),
        "caches": "warm",
        "peers": {peer: _version(peer) for peer in sorted(timed)},
    }
    seeds = [config.seed + i for i in range(config.processes)] if config.processes > 1 else config.seed
    provenance = records.provenance(
        threads=config.threads, started=started, options=asdict(config), seeds=seeds, extra=extra
    )
    changed = records.changed(config)
    record = records.Record("bench", records.run_id("bench", changed), changed, metrics, {}, provenance)
    records.write(record, Path(folder) / "records" / "bench" / f"{name or record.id}.json")
    return record


def _version(module: str) -> str:
    """That of the package which brought a module: several bring onnxruntime."""
    packages = importlib.metadata.packages_distributions()
    return importlib.metadata.version(packages.get(module, [module])[0])


def measure(config: BenchConfig) -> dict[str, Any]:
    """Check and time all contenders of a study; prints a line per layer or network. Returns a record's metrics.

    The study of operations has rows without times, of the columns that `ours.operations` lists. Else:

    timings          a dict for each layer or network and each contender, below
    layers           how many layers
    flagged_timings  how many rows are flagged
    skipped          the libraries and precisions that could not run, and why

    A row of timings holds, beside what BASELINE names,
      layer, C, H, W, K, batch, model   what ran; of a network, layer is "network" and K the number of classes
      way                               how it ran, `Way.options()`
      isa                               of our kernels; of a library what it was held to, empty where to nothing
      chosen_group                      channels per table or tile that the plan chose; 0 where there are none
      median_ms, round_ms               median of the rounds' medians, and those medians
      iqr_ms, min_ms, flagged           over all blocks of all rounds; flagged: iqr above 10 % of the median
      gmacs                             dense-equivalent 1e9 multiply-accumulates a second, of all layers
      weight_bytes, adds, multiplies    of one layer, or of a network's quantized layers, at batch 1
      reduction, best_reduction         dense operations over these; the same per output position with the table's G of
                                        fewest operations, where G here is chosen for speed

    and of our kernels on integers, in the study of layers,
      tables_ms, sums_ms, finish_ms     stages of a run, `integers.stage_seconds`
      least_sums_ms                     the least time of the sums, `integers.least_summing_seconds`; None: not known

    A row of the study of trained networks has the columns that `trained` lists, without gmacs and reduction.

    With `config.processes` above 1, each process draws codes with the next seed, plans, checks and times all by itself,
    one process after the other. A row then holds `processes`, and the rounds of all of them, those of the first process
    first; iqr_ms is the largest of a process, and flagged says that some process was noisy. What is counted and not
    timed is that of the first process, and so are the stages of integers.
    """
    if STUDIES[config.study].subject == "operations":
        rows, skipped = list(ours.operations(config)), []
    else:
        rows, skipped = (_pooled if config.processes > 1 or config.isa in HELD else _timed)(config)
    metrics = {"timings": rows, "layers": len({row["layer"] for row in rows}), "skipped": skipped}
    return metrics | {"flagged_timings": sum(row.get("flagged", False) for row in rows)}


def _timed(config: BenchConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of all subjects, and what was skipped."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with threadpool_limits(config.threads):
            rows, skipped = [], []
            started = time.perf_counter()
            for subject in SUBJECTS[STUDIES[config.study].subject](config, skipped):
                found = timings(config, subject)
                print(_report(found, time.perf_counter() - started), flush=True)
                rows += found
                started = time.perf_counter()
            return rows, skipped
    finally:
        torch.set_num_threads(before)


def _pooled(config: BenchConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """What `_timed` returns, of all processes."""
    found = []
    for i in range(config.processes):
        found.append(in_own_process(_held, replace(config, processes=1, seed=config.seed + i)))
        print(f"process {i + 1} of {config.processes}: {len(found[-1][0])} timings", flush=True)
    rows, skipped = zip(*found, strict=True)
    return [_together(alike) for alike in zip(*rows, strict=True)], sorted({*itertools.chain(*skipped)})


def _held(config: BenchConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """What `_timed` returns, in a process in which oneDNN has not run yet and can be held to an ISA."""
    if config.isa in HELD:
        os.environ[HELD_TO] = HELD[config.isa]
    return _timed(config)


def in_own_process(function: Callable, *arguments: Any) -> Any:
    """The result of an importable function in a fresh process; what it raises is raised here."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _together(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """One contender's row of the rows that its processes measured."""
    round_ms = [ms for row in rows for ms in row["round_ms"]]
    median = float(np.median(round_ms))
    return rows[0] | {
        **{"processes": len(rows), "median_ms": median, "round_ms": round_ms, "rounds": len(round_ms)},
        **{"iqr_ms": max(row["iqr_ms"] for row in rows), "min_ms": min(row["min_ms"] for row in rows)},
        **{"flagged": any(row["flagged"] for row in rows)},
        **({"gmacs": rows[0]["gmacs"] * rows[0]["median_ms"] / median} if "gmacs" in rows[0] else {}),
    }


def timings(config: BenchConfig, subject: Subject) -> list[dict[str, Any]]:
    """Time all contenders of a subject, round by round: a row of the record for each.

    Each round times every contender once with `Timer.blocked_autorange`, so that a change of the machine's speed meets
    all of them. The order of contenders is drawn anew for each round, by a generator seeded with `config.seed` and the
    round's number, so that none always runs behind the same other one.
    """
    contenders = subject.contenders
    timers = [Timer("call()", globals={"call": c.call}, num_threads=config.threads) for c in contenders]
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
    row |= {
        **{"way": contender.way.options(), "median_ms": median, "iqr_ms": float(high - low), "min_ms": min(blocks)},
        **{"round_ms": round_ms, "rounds": len(round_ms), "flagged": bool((high - low) / middle > 0.1)},
    }
    if not subject.macs:
        return row
    dense = subject.columns["adds"] + subject.columns["multiplies"]
    return row | {"gmacs": subject.macs / median / 1e6, "reduction": dense / (row["adds"] + row["multiplies"])}


def _report(rows: list[dict[str, Any]], seconds: float) -> str:
    """A line for people: the fastest way of each algorithm or library."""
    fastest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["median_ms"]):
        fastest.setdefault(row["way"]["algorithm"], row)
    found = (f"{Way.of(row['way']).label()} {row['median_ms']:.3g} ms" for row in fastest.values())
    noisy = sum(row["flagged"] for row in rows)
    return f"{rows[0]['layer']}: {'; '.join(found)}; {noisy} of {len(rows)} noisy, {seconds:.0f} s"
