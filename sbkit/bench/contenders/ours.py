"""Our kernels: on a layer, and on the quantized layers of a network."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from sbkit import inference, kernels, repetition
from sbkit.bench.codes import random_codes
from sbkit.bench.config import BenchConfig
from sbkit.bench.contender import Contender, check
from sbkit.bench.studies import STUDIES
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.way import Way


def on_layer(config: BenchConfig, shape: ConvShape, x: np.ndarray, threads: int, lanes: int) -> Iterator[Contender]:
    """A contender for each of the study's ways. Raises AssertionError if one computes anything else than `dense`."""
    known: dict[tuple, tuple[QuantizedWeight, np.ndarray]] = {}
    for way, density in STUDIES[config.study].kernels(config.algorithms):
        key = way.scheme, density, way.regions, way.codebook_bits
        if key not in known:
            weight = random_codes(config, shape, way, density)
            known[key] = weight, kernels.conv2d(kernels.prepare("dense", weight, shape), x)
        weight, expected = known[key]
        prepared = kernels.prepare(
            way.algorithm,
            weight,
            shape,
            isa=config.isa,
            threads=threads,
            tune=True,
            encoding=way.encoding,
            skip_zeros=way.skip_zeros,
            group=way.group,
        )
        check(f"{way.label()} on {shape}", kernels.conv2d(prepared, x), expected, 0)
        columns = _columns(way, prepared) | _counts(config, way, prepared, lanes)
        yield Contender(way, functools.partial(kernels.conv2d, prepared, x), threads, columns)


def _columns(way: Way, prepared: kernels.Prepared) -> dict[str, Any]:
    codes = prepared.weight.codes
    bits = way.codebook_bits / way.regions if way.codebook_bits else repetition.entropy_bits(codes, way.regions)
    return {
        **{key: getattr(prepared, key) for key in ("isa", "geometry", "plan_seconds", "weight_bytes")},
        **prepared.operations._asdict(),
        "chosen_group": prepared.group,
        "density": prepared.weight.density,
        "entropy_bits": bits,
    }


def _counts(config: BenchConfig, way: Way, prepared: kernels.Prepared, lanes: int) -> dict[str, Any]:
    """best_reduction and, if the study asks for it, bound_adds."""
    study, shape = STUDIES[config.study], prepared.shape
    if way.algorithm != "table" or not study.best_group:
        return {"best_reduction": 2 * shape.macs / shape.N / sum(prepared.operations)}
    costs = table_costs(prepared.weight, way.encoding, way.skip_zeros)
    return {
        "best_reduction": 2 * shape.weights / min(cost.operations for cost in costs),
        "bound_adds": bound_adds(shape, costs, lanes) if study.bound else None,
    }


class TableCost(NamedTuple):
    """What `table` executes with some number of channels per table."""

    entries: int  # additions per output position, of table entries and of rows
    built: int  # additions per input position, which build the tables
    operations: int  # all operations of one output and one input position


def table_costs(weight: QuantizedWeight, encoding: str, skip_zeros: bool) -> list[TableCost]:
    """The cost for each number of channels per table."""
    costs = []
    for group in range(1, repetition.largest_group(weight.codes, encoding) + 1):
        found = repetition.operations(weight, "table", group=group, encoding=encoding, skip_zeros=skip_zeros)
        built = repetition.tables_adds(weight.codes, encoding, group)
        costs.append(TableCost(found.adds - built, built, found.total))
    return costs


def bound_adds(shape: ConvShape, costs: list[TableCost], lanes: int) -> int:
    """The least number of vectors to add, with the best number of channels per table.

    Each input position is built once, and the lanes cover the image by the best grid.
    """
    heights = [2**i for i in range(lanes.bit_length())]
    vectors = shape.N * min(-(-shape.P // height) * -(-shape.Q // (lanes // height)) for height in heights)
    return min(cost.entries * vectors + cost.built * vectors * shape.stride**2 for cost in costs)


def on_network(config: BenchConfig, model: nn.Module, shapes: list[ConvShape], x: Tensor) -> Iterator[Contender]:
    """A contender for each of the study's ways, on codes of its own.

    Raises AssertionError if logits differ by more than float32 rounds.
    """
    dense = sum(shape.macs for shape in shapes)
    for way in STUDIES[config.study].ways:
        weights = {shape.name: _scaled_codes(config, shape, way) for shape in shapes}
        compiled = inference.compile(
            model,
            weights,
            image=tuple(x.shape[1:]),
            batch=len(x),
            algorithm=way.algorithm,
            encoding=way.encoding,
            isa=config.isa,
            threads=config.threads,
        )
        expected = inference.fold(model, weights)(x).numpy()
        check(f"{way.label()} on the network", compiled(x), expected, inference.LOGIT_BOUND)
        effectual = sum(np.count_nonzero(weight.codes) for weight in weights.values())
        columns = {
            "isa": next(iter(compiled.layers.values())).isa,
            "density": effectual / sum(shape.weights for shape in shapes),
            "plan_seconds": compiled.plan_seconds,
            "weight_bytes": compiled.weight_bytes,
            **compiled.operations._asdict(),
            "best_reduction": 2 * dense / sum(compiled.operations),
        }
        yield Contender(way, functools.partial(compiled, x), config.threads, columns)


def _scaled_codes(config: BenchConfig, shape: ConvShape, way: Way) -> QuantizedWeight:
    """Random codes with the scale that keeps the size of activations behind a ReLU."""
    weight = random_codes(config, shape, way)
    scale = np.full(shape.K, (2 / (shape.C * shape.R * shape.S * weight.density)) ** 0.5)
    return replace(weight, scale=scale, negative_scale=scale)
