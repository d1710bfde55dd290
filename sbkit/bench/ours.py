"""Our kernels on random codes: on a layer, on the quantized layers of a network, and the operations of their plans."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sbkit import inference, integers, kernels, repetition
from sbkit.bench.config import NETWORKS, BenchConfig
from sbkit.bench.contender import Contender, check
from sbkit.bench.studies import STUDIES
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.integers import Rounding
from sbkit.models import build_model, quant_layers
from sbkit.quantizers import QuantizerConfig, random_patterns, sparsest_masks
from sbkit.quantizers.activations import calibrate
from sbkit.training.norms import take_statistics
from sbkit.way import FLOAT_BITS, Way

FULL_PRECISION = QuantizerConfig(quantizer="full_precision")


def random_codes(config: BenchConfig, shape: ConvShape, way: Way, density: float | None = None) -> QuantizedWeight:
    """Random codes (K, C, R, S) of a way; ways with the same scheme, density, regions and codebook get the same ones.

    `density` is the probability of a non-zero code, None the configuration's. With `way.regions`, each region of that
    many channels of a filter has a random sign of its own. With `way.codebook_bits`, density is that of the patterns.
    """
    if way.codebook_bits:
        return _codes_of_a_codebook(config, shape, way)
    density = config.density_of(way.scheme) if density is None else density
    generator = np.random.default_rng(config.seed)
    weight = repetition.random_codes(way.scheme, (shape.K, shape.C, shape.R, shape.S), density, generator)
    if way.regions:
        blocks = generator.choice(np.array([-1, 1], np.int8), (shape.K, -(-shape.C // way.regions)))
        signs = blocks.repeat(way.regions, axis=1)[:, : shape.C, None, None]
        weight = replace(weight, codes=np.abs(weight.codes) * signs)
    return weight


def _codes_of_a_codebook(config: BenchConfig, shape: ConvShape, way: Way) -> QuantizedWeight:
    """Codes whose regions hold patterns of one codebook, every pattern being as likely as any other.

    The patterns are random signs for binary. For other schemes they are the sparsest masks, each with a random sign;
    trained codes hold the empty mask more often and are sparser.
    """
    generator, torch_generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    size = (shape.K, -(-shape.C // way.regions), shape.R, shape.S)
    if way.scheme == "binary":
        patterns, signs = random_patterns(way.regions, way.codebook_bits, -1.0, torch_generator), np.int8(1)
    else:
        patterns = sparsest_masks(way.regions, way.codebook_bits, torch_generator)
        signs = generator.choice(np.array([-1, 1], np.int8), (*size, 1))
    patterns = patterns.numpy().astype(np.int8)
    regions = signs * patterns[generator.integers(len(patterns), size=size)]  # (K, blocks, R, S, channels of a block)
    codes = regions.transpose(0, 1, 4, 2, 3).reshape(shape.K, -1, shape.R, shape.S)[:, : shape.C]
    return QuantizedWeight(codes, scheme=way.scheme)


def exact_sums(weight: QuantizedWeight, shape: ConvShape, x: np.ndarray) -> np.ndarray:
    """The layer's sums over integers x, by torch in double precision, which holds every one of them exactly."""
    values, codes = (torch.from_numpy(np.asarray(array, np.float64)) for array in (x, weight.dense()))
    return nn.functional.conv2d(values, codes, stride=shape.stride, padding=shape.padding).numpy()


def rounding_of(sums: np.ndarray, bits: int) -> Rounding:
    """The rounding by which the largest of these sums (N, K, P, Q) becomes the largest integer of so many bits."""
    scale = np.full(sums.shape[1], (2**bits - 1) / max(1, sums.max()), np.float32)
    return Rounding(scale, np.zeros_like(scale), bits=bits)


def on_layer(config: BenchConfig, shape: ConvShape, x: np.ndarray) -> Iterator[Contender]:
    """A contender for each of the study's ways. Raises AssertionError unless each output equals exact arithmetic.

    A way with a-bit activations reads the a highest bits of x, which then holds integers from 0 to 255, and rounds its
    sums to integers of as many bits, as uint8.
    """
    known: dict[tuple, tuple[QuantizedWeight, np.ndarray]] = {}
    for way, density in STUDIES[config.study].kernels(config.algorithms):
        inputs = inputs_of(way, x)
        key = way.scheme, density, way.regions, way.codebook_bits, way.activation_bits
        if key not in known:
            weight = random_codes(config, shape, way, density)
            known[key] = weight, exact_sums(weight, shape, inputs)
        yield on_codes(config, way, shape, inputs, *known[key])


def inputs_of(way: Way, x: np.ndarray) -> np.ndarray:
    """What a way reads of x: all of it, or the highest bits of integers from 0 to 255."""
    bits = way.activation_bits
    return x if bits == FLOAT_BITS else x.astype(np.uint8) >> (8 - bits)


def on_codes(
    config: BenchConfig, way: Way, shape: ConvShape, inputs: np.ndarray, weight: QuantizedWeight, sums: np.ndarray
) -> Contender:
    """A way on these inputs and codes, whose `exact_sums` are given. Raises AssertionError unless it equals them."""
    bits, floats = way.activation_bits, way.activation_bits == FLOAT_BITS
    options = {"encoding": way.encoding, "skip_zeros": way.skip_zeros, "group": way.group, "tune": floats}
    if not floats:
        rounding = rounding_of(sums, bits)
        options |= {"activation_bits": bits, "rounding": rounding}
        sums = rounding.apply(sums.astype(np.int32))
    prepared = kernels.prepare(way.algorithm, weight, shape, isa=config.isa, threads=config.threads, **options)
    check(f"{way.label()} on {shape}", kernels.conv2d(prepared, inputs), sums, 0)
    columns = _columns(config, way, prepared) | ({} if floats else _stages(prepared, inputs))
    return Contender(way, functools.partial(kernels.conv2d, prepared, inputs), columns)


def _columns(config: BenchConfig, way: Way, prepared: kernels.Prepared) -> dict[str, Any]:
    study, shape, weight = STUDIES[config.study], prepared.shape, prepared.weight
    bits = way.codebook_bits / way.regions if way.codebook_bits else repetition.entropy_bits(weight.codes, way.regions)
    columns = {
        **{key: getattr(prepared, key) for key in ("isa", "geometry", "plan_seconds", "weight_bytes")},
        **prepared.operations._asdict(),
        "chosen_group": prepared.group,
        "density": weight.density,
        "entropy_bits": bits,
        "best_reduction": 2 * shape.macs / shape.N / sum(prepared.operations),
    }
    if way.algorithm == "table" and study.best_group:
        coding = {"encoding": way.encoding, "skip_zeros": way.skip_zeros}
        counted = repetition.operations(weight, "table", group=repetition.best_group(weight, **coding), **coding)
        columns["best_reduction"] = 2 * shape.weights / counted.total
    return columns


def _stages(prepared: kernels.Prepared, x: np.ndarray) -> dict[str, Any]:
    """Milliseconds of a run's stages, and the least that its sums can take (None: not known)."""
    native = kernels.native(prepared)
    least = integers.least_summing_seconds(native, prepared.isa)
    milliseconds = {f"{name}_ms": seconds * 1e3 for name, seconds in integers.stage_seconds(native, x).items()}
    return milliseconds | {"least_sums_ms": least and least * 1e3 / prepared.threads}


def on_network(config: BenchConfig, shapes: list[ConvShape], x: Tensor) -> Iterator[Contender]:
    """A contender for each of the study's ways, on codes of its own. `lower` raises RuntimeError for wrong logits."""
    options = {"isa": config.isa, "threads": config.threads}
    for way in STUDIES[config.study].ways:
        weights = {shape.name: _scaled_codes(config, shape, way) for shape in shapes}
        model = build(config, activation_bits=way.activation_bits, outer_layers=config.outer_layers)
        for name, layer in quant_layers(model).items():
            layer.weight.data = torch.from_numpy(weights[name].dense())
        fit(model, x)
        lowered = inference.lower(model, x, weights, algorithm=way.algorithm, encoding=way.encoding, **options)
        columns = network_columns(lowered, weights)
        columns["best_reduction"] = 2 * sum(shape.macs for shape in shapes) / sum(lowered.operations)
        yield Contender(way, lowered.bind(x), columns)


def network_columns(lowered: inference.Network, weights: Mapping[str, QuantizedWeight]) -> dict[str, Any]:
    """What the row of a network on the kernels says of its quantized layers."""
    codes = np.concatenate([weight.codes.ravel() for weight in weights.values()])
    return {
        "isa": next(iter(lowered.layers.values())).isa,
        "density": np.count_nonzero(codes) / codes.size,
        "plan_seconds": lowered.plan_seconds,
        "weight_bytes": lowered.weight_bytes,
        **lowered.operations._asdict(),
    }


def build(config: BenchConfig, **more: Any) -> nn.Module:
    """The network of a configuration, in full precision unless further options of `build_model` say else."""
    name, size, options, _ = NETWORKS[config.shapes]
    width = {"width": config.width} if config.width else {}
    return build_model(
        name, **{"quantizer": FULL_PRECISION, "seed": config.seed, "image_size": size, **options, **width, **more}
    )


def fit(model: nn.Module, x: Tensor) -> None:
    """Fit the steps of activations and the statistics of batch norms to a batch, as a training would, but at once."""
    calibrate(model, x)
    take_statistics(model, [x])
    model.eval()


def _scaled_codes(config: BenchConfig, shape: ConvShape, way: Way) -> QuantizedWeight:
    """Random codes with the scale that keeps the size of activations behind a ReLU."""
    weight = random_codes(config, shape, way)
    scale = np.full(shape.K, (2 / (shape.C * shape.R * shape.S * weight.density)) ** 0.5)
    return replace(weight, scale=scale, negative_scale=scale)


def operations(config: BenchConfig) -> Iterator[dict[str, Any]]:
    """A row for each distinct layer of a network and each way; `count` says how many of the layers are alike.

    The counts of `dataflow` and `sparse` are those of their plans; that of `table` is with the number of channels per
    table that needs the fewest.
    """
    for shape, count in Counter(replace(shape, name="") for shape in NETWORKS[config.shapes].shapes).items():
        layer = f"{shape.C}→{shape.K} @{shape.H}" + (f"/{shape.stride}" if shape.stride > 1 else "")
        for way, _ in STUDIES[config.study].kernels(config.algorithms):
            weight = random_codes(config, shape, way)
            coding = {"encoding": way.encoding, "skip_zeros": way.skip_zeros}
            if way.algorithm == "table":
                group = repetition.best_group(weight, shape=shape, **coding)
                found = repetition.operations(weight, "table", shape, group=group, **coding)
            else:
                prepared = kernels.prepare(way.algorithm, weight, shape, isa="scalar", **coding)
                group, found = prepared.group, prepared.operations
            yield {
                **{"layer": layer, "stride": shape.stride, "batch": 1, "count": count, "macs": shape.macs},
                **{"C": shape.C, "H": shape.H, "W": shape.W, "K": shape.K, "density": weight.density},
                **{"way": way.options(), "chosen_group": group, **found._asdict()},
                "reduction": 2 * shape.macs / sum(found),
            }
        print(f"{layer}: counted", flush=True)
