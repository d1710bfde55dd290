"""The operations that the plans of all layers of a network execute. Nothing is timed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from sbkit import kernels, repetition
from sbkit.bench.codes import random_codes
from sbkit.bench.config import NETWORKS, BenchConfig
from sbkit.bench.studies import STUDIES
from sbkit.conv import ConvShape
from sbkit.way import Way


def rows(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for each distinct layer and each way; `count` says how many layers of the network are alike.

    The counts of `dataflow` and `sparse` are those of their plans; that of `table` is with the number of channels per
    table that needs the fewest.
    """
    counts = Counter(replace(shape, name="") for shape in NETWORKS[config.shapes].shapes)
    found = []
    for shape, count in counts.items():
        ways = STUDIES[config.study].kernels(config.algorithms)
        found += [_row(config, shape, way) | {"count": count} for way, _ in ways]
        print(f"{found[-1]['layer']}: counted", flush=True)
    return found


def _row(config: BenchConfig, shape: ConvShape, way: Way) -> dict[str, Any]:
    weight = random_codes(config, shape, way)
    coding = {"encoding": way.encoding, "skip_zeros": way.skip_zeros}
    if way.algorithm == "table":
        group = repetition.best_group(weight, shape=shape, **coding)
        operations = repetition.operations(weight, "table", shape, group=group, **coding)
    else:
        prepared = kernels.prepare(way.algorithm, weight, shape, isa="scalar", **coding)
        group, operations = prepared.group, prepared.operations
    stride = f"/{shape.stride}" if shape.stride > 1 else ""
    return {
        **{"layer": f"{shape.C}→{shape.K} @{shape.H}{stride}", "stride": shape.stride, "batch": 1},
        **{"C": shape.C, "H": shape.H, "W": shape.W, "K": shape.K, "density": weight.density},
        **{"way": way.options(), "chosen_group": group, "macs": shape.macs, **operations._asdict()},
        "reduction": 2 * shape.macs / sum(operations),
    }
