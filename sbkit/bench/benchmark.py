"""A study of the benchmark, from its configuration to its record."""

from __future__ import annotations

import importlib.metadata
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from sbkit import kernels, records
from sbkit.bench import operations, timing
from sbkit.bench.config import BenchConfig
from sbkit.bench.studies import STUDIES
from sbkit.bench.subjects import SUBJECTS
from sbkit.way import PEERS


def measure(config: BenchConfig) -> dict[str, Any]:
    """Check and time all contenders of a study; prints a line per layer or network. Returns a record's metrics.

    The study of operations has rows without times, of the columns that `operations` lists, and no peaks. Else:

    timings          a dict for each layer or network and each contender, below
    layers           how many layers
    flagged_timings  how many rows are flagged
    peaks            `kernels.peaks()`, the best of several: another program can only slow one down
    skipped          the libraries and precisions that could not run, and why

    A row of timings holds, beside what `timing.BASELINE` names,
      layer, C, H, W, K, batch, model   what ran; of a network, layer is "network" and K the number of classes
      way, on_threads                   how it ran, `Way.options()`, and on how many threads
      chosen_group                      channels per table or tile that the plan chose; 0 where there are none
      median_ms, round_ms               median of the rounds' medians, and those medians
      iqr_ms, min_ms, flagged           over all blocks of all rounds; flagged: iqr above 10 % of the median
      gmacs                             dense-equivalent 1e9 multiply-accumulates a second, of all layers
      weight_bytes, adds, multiplies    of one layer, or of a network's quantized layers, at batch 1
      reduction, best_reduction         dense operations over these; the same per output position with the table's G of
                                        fewest operations, where G here is chosen for speed
      bound_adds                        of `table` in the study of layers: the fewest vectors it must load and add
      bound_ms, roofline_fraction       the time these take from a table in L1 at `peaks`, and that over median_ms
    """
    if STUDIES[config.study].subject == "operations":
        rows = operations.rows(config)
        return {"timings": rows, "layers": len({row["layer"] for row in rows}), "flagged_timings": 0, "skipped": []}
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with threadpool_limits(config.threads):
            rows, peaks, skipped = _timed(config)
    finally:
        torch.set_num_threads(before)
    vector_adds = peaks["l1_gadds"] * 1e9 * config.threads
    return {
        "timings": [timing.under_the_roof(row, vector_adds) for row in rows],
        "layers": len({row["layer"] for row in rows}),
        "flagged_timings": sum(row["flagged"] for row in rows),
        "peaks": peaks,
        "skipped": skipped,
    }


def _timed(config: BenchConfig) -> tuple[list[dict[str, Any]], dict[str, float], list[str]]:
    peaks = kernels.peaks(config.isa)
    rows, skipped = [], []
    started = time.perf_counter()
    for subject in SUBJECTS[STUDIES[config.study].subject](config, peaks["lanes"], skipped):
        found = timing.timings(config, subject)
        peaks = {key: max(value, peaks[key]) for key, value in kernels.peaks(config.isa).items()}
        print(timing.report(found, time.perf_counter() - started), flush=True)
        rows += found
        started = time.perf_counter()
    return rows, peaks, skipped


def run(config: BenchConfig, folder: str | Path, name: str = "") -> records.Record:
    """Measure and write folder/records/bench/<name>.json; `name` is the record's id unless given."""
    started = records.start()
    metrics = measure(config)
    isas = {row["isa"] for row in metrics["timings"] if row.get("isa")}
    timed = {row["way"]["algorithm"] for row in metrics["timings"]} & (PEERS.keys() - {"torch"})
    provenance = records.provenance(
        threads=config.threads,
        started=started,
        options=asdict(config),
        seeds=config.seed,
        extra={
            "isa": ", ".join(sorted(isas)),
            "caches": "warm",
            "peers": {peer: importlib.metadata.version(peer) for peer in sorted(timed)},
        },
    )
    changed = records.changed(config)
    record = records.Record("bench", records.run_id("bench", changed), changed, metrics, {}, provenance)
    records.write(record, Path(folder) / "records" / "bench" / f"{name or record.id}.json")
    return record
