"""The integer codes that training left in the layers of a network, each beside random codes of the same density."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from sbkit import records
from sbkit.bench import ours
from sbkit.bench.config import NETWORKS, BenchConfig
from sbkit.bench.contender import Contender, Subject, layer, skip
from sbkit.bench.studies import CODES, STUDIES
from sbkit.conv import ConvShape, QuantizedWeight, load_weights
from sbkit.designs import DESIGNS, QUANTIZER_OPTIONS, Design
from sbkit.quantizers import QuantizerConfig
from sbkit.records import Record

Trained = tuple[Record, dict[str, QuantizedWeight]]
"""A run, and its codes by layer."""


def codes(config: BenchConfig, skipped: list[str]) -> Iterator[Subject]:
    """The layers of `config.shapes` by runs below `config.networks`, one for each design of CODES.

    A run's codes are `weights/<name>.npz` beside its record; its seed is the configuration's, and of several runs of a
    design the one that started first is taken. Rows hold, beside other columns, `codes`, which is "trained" or
    "random", the `design`, and `run`, the id of the training record. Random codes have the density of the trained ones,
    those of a codebook that of its patterns. Designs without such a run are skipped. Raises ValueError if all are.
    """
    runs = {design: first(config, design) for design in CODES}
    for design in (design for design, run in runs.items() if run is None):
        skip(f"{design}: {config.networks} holds no codes of seed {config.seed} in the shapes {config.shapes}", skipped)
    if not any(runs.values()):
        allowed = f"a profile's folder with weights/ of {config.shapes} and seed {config.seed}"
        raise ValueError(f"networks = {config.networks!r} holds no codes of {', '.join(CODES)}; allowed: {allowed}")
    for shape in NETWORKS[config.shapes].layers:
        shape = shape.with_batch(config.batch)
        yield layer(shape, [each for design, run in runs.items() if run for each in _both(config, shape, design, *run)])


def first(config: BenchConfig, design: str) -> Trained | None:
    """The first run of a design below `config.networks`, as `codes` says, and its codes by layer."""
    found = []
    for path in sorted(Path(config.networks, "weights").glob("*.npz")):
        record = records.load(path.parents[1] / "records" / "train" / f"{path.stem}.json")
        options = {name: record.config[name] for name in QUANTIZER_OPTIONS if name in record.config}
        if options == DESIGNS[design].options and record.config.get("seed", 0) == config.seed:
            weights = load_weights(path)
            if all(_fits(weights, shape) for shape in NETWORKS[config.shapes].shapes):
                found.append((record, weights))
    return min(found, key=lambda run: run[0].provenance["started_utc"], default=None)


def form(design: Design) -> tuple[str, int, int]:
    """Scheme, regions and codebook_bits of the ways of a design."""
    config = QuantizerConfig(**design.options)
    return config.quantizer, config.region_channels, config.codebook_bits


def _fits(weights: dict[str, QuantizedWeight], shape: ConvShape) -> bool:
    return shape.name in weights and weights[shape.name].codes.shape == (shape.K, shape.C, shape.R, shape.S)


def _both(
    config: BenchConfig, shape: ConvShape, design: str, record: Record, weights: dict[str, QuantizedWeight]
) -> Iterator[Contender]:
    """The design's ways on trained and on random codes, all of scale 1."""
    trained = replace(weights[shape.name], scale=None, negative_scale=None)
    x = np.random.default_rng(config.seed).integers(0, 256, (shape.N, shape.C, shape.H, shape.W), np.uint8)
    for way, _ in STUDIES[config.study].kernels(config.algorithms):
        if (way.scheme, way.regions, way.codebook_bits) == form(DESIGNS[design]):
            inputs = ours.inputs_of(way, x)
            random = ours.random_codes(config, shape, way, trained.density)
            for kind, weight in (("trained", trained), ("random", random)):
                contender = ours.on_codes(config, way, shape, inputs, weight, ours.exact_sums(weight, shape, inputs))
                told = {"codes": kind, "design": design, "run": record.id}
                yield contender._replace(columns=contender.columns | told)
