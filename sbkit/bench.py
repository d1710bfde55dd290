"""Time the kernels against torch: check first, then interleave all contenders in one process.

Every contender computes the same layer shape on the same activations; packing of activations counts as run time,
offline packing of weights (`plan_seconds`) does not. Caches are warm. The number of threads is set and recorded. Each
round times every contender once with `torch.utils.benchmark.Timer.blocked_autorange`, so that a change of the machine's
speed meets all of them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.benchmark import Timer

from sbkit import kernels, records, repetition
from sbkit.conv import RESNET18_SHAPES, RESNET20_SHAPES, ConvShape, QuantizedWeight


def _stride_1(shapes: tuple[ConvShape, ...]) -> tuple[ConvShape, ...]:
    """One layer of each shape, without the stride-2 layers that begin a stage."""
    distinct = {(s.C, s.H, s.K): s for s in shapes if s.stride == 1}
    return tuple(distinct.values())


SHAPES: dict[str, tuple[ConvShape, ...]] = {
    "resnet18": _stride_1(RESNET18_SHAPES),
    "resnet20": _stride_1(RESNET20_SHAPES),
    "tiny": (ConvShape(8, 8, 8, 8), ConvShape(16, 4, 4, 16)),
}


@dataclass(frozen=True)
class BenchConfig:
    """What to time."""

    shapes: str = "resnet18"  # resnet18: its four stride-1 3x3 shapes | resnet20: its three | tiny
    density: float = 0.35  # fraction of non-zero codes, signed_binary and zero_one
    ternary_density: float = 0.58  # the same, ternary_twn
    rounds: int = 15  # times every contender is timed, all in turn
    min_run_ms: float = 50.0  # least milliseconds of one timing
    threads: int = 1  # of the kernels and of torch
    batch: int = 1  # images
    seed: int = 0  # of codes and activations
    isa: str = "auto"  # auto: the widest usable

    def __post_init__(self):
        if self.shapes not in SHAPES:
            raise ValueError(f"shapes = {self.shapes!r}; allowed: {', '.join(SHAPES)}")
        for name in ("density", "ternary_density"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: above 0, up to 1")
        for name in ("rounds", "threads", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: 1 or more")
        if self.min_run_ms <= 0:
            raise ValueError(f"min_run_ms = {self.min_run_ms}; allowed: above 0")
        if self.isa not in ("auto", *kernels.isas()):
            raise ValueError(f"isa = {self.isa!r}; allowed here: {', '.join(('auto', *kernels.isas()))}")


class Contender(NamedTuple):
    """One way to run a layer, ready to be timed."""

    contender: str  # torch | sparse | table
    variant: str  # torch: memory format; else the scheme
    call: Callable[[], Any]
    prepared: kernels.Prepared | None = None
    best_reduction: float = 1.0


# (algorithm, scheme, options) besides fp32 torch.
CONTENDERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("sparse", "signed_binary", {}),
    ("table", "signed_binary", {}),
    ("table", "zero_one", {}),
    ("table", "binary", {}),
    ("table", "binary", {"encoding": "rewritten"}),
    ("table", "ternary_twn", {}),
    ("table", "signed_binary", {"skip_zeros": False}),
)


def _codes(config: BenchConfig, shape: ConvShape) -> dict[str, QuantizedWeight]:
    """Random codes of every scheme, the same for all contenders of that scheme."""
    density = {"binary": 1.0, "ternary_twn": config.ternary_density}
    size = (shape.K, shape.C, shape.R, shape.S)
    return {
        scheme: repetition.random_codes(
            scheme, size, density.get(scheme, config.density), np.random.default_rng(config.seed)
        )
        for scheme in sorted({scheme for _, scheme, _ in CONTENDERS})
    }


def _contenders(config: BenchConfig, shape: ConvShape, x: np.ndarray) -> list[Contender]:
    """All contenders of one layer. Raises AssertionError if a result is not that of the dense reference."""
    codes = _codes(config, shape)
    expected = {scheme: kernels.conv2d(kernels.prepare("dense", codes[scheme], shape), x) for scheme in codes}
    image = torch.from_numpy(x)
    weight = torch.from_numpy(codes["binary"].dense())  # the time of a dense convolution does not depend on values
    contenders = []
    for variant in ("contiguous", "channels_last"):
        memory_format = getattr(torch, "contiguous_format" if variant == "contiguous" else variant)
        inputs = image.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format)

        call = functools.partial(torch.nn.functional.conv2d, *inputs, stride=shape.stride, padding=shape.padding)
        if not np.allclose(call().numpy(), expected["binary"], atol=1e-2):  # its algorithm may round
            raise AssertionError(f"torch {variant} on {shape} differs from the dense reference")
        contenders.append(Contender("torch", variant, call))

    for algorithm, scheme, options in CONTENDERS:
        prepared = kernels.prepare(algorithm, codes[scheme], shape, isa=config.isa, threads=config.threads, **options)
        # Activations are small integers: every order of summation gives the same floats.
        if not np.array_equal(kernels.conv2d(prepared, x), expected[scheme]):
            raise AssertionError(f"{algorithm} {scheme} {options} on {shape} differs from the dense reference")
        group = repetition.best_group(codes[scheme], **options) if algorithm == "table" else 1
        reduction = repetition.reduction(codes[scheme], algorithm, group=group, **options)
        call = functools.partial(kernels.conv2d, prepared, x)
        contenders.append(Contender(algorithm, scheme, call, prepared, reduction))
    return contenders


def _layer(shape: ConvShape) -> str:
    return f"{shape.C}→{shape.K} @{shape.H}"


def _timing(config: BenchConfig, shape: ConvShape, contender: Contender, round_ms: list[float], blocks: list[float]):
    """The record's row of one contender and layer."""
    low, middle, high = np.percentile(blocks, (25, 50, 75))
    median = float(np.median(round_ms))
    prepared = contender.prepared
    kernel = {
        "scheme": "",
        "encoding": "",
        "skip_zeros": True,
        "group": 0,
        "isa": "",
        "geometry": "",
        "plan_seconds": 0.0,
    }
    operations = repetition.Operations(shape.macs // shape.N, shape.macs // shape.N)
    weight_bytes = 4 * shape.weights
    if prepared:
        operations = prepared.operations
        weight_bytes = prepared.weight_bytes
        kernel = {"scheme": contender.variant} | {
            key: getattr(prepared, key)
            for key in ("encoding", "skip_zeros", "group", "isa", "geometry", "plan_seconds")
        }
    return {
        "layer": _layer(shape),
        "C": shape.C,
        "H": shape.H,
        "W": shape.W,
        "K": shape.K,
        "contender": contender.contender,
        "variant": contender.variant,
        **kernel,
        "median_ms": median,
        "iqr_ms": float(high - low),
        "min_ms": min(blocks),
        "round_ms": round_ms,
        "rounds": len(round_ms),
        "flagged": bool((high - low) / middle > 0.1),
        "gmacs": shape.macs / median / 1e6,  # dense-equivalent 1e9 multiply-accumulates a second
        "weight_bytes": weight_bytes,
        "adds": operations.adds,
        "multiplies": operations.multiplies,
        "reduction": 2 * shape.macs / shape.N / (operations.adds + operations.multiplies),
        "best_reduction": contender.best_reduction,
    }


def measure(config: BenchConfig) -> list[dict[str, Any]]:
    """Time all contenders on all layers; prints a line per layer. Returns one dict per layer and contender.

    layer, C, H, W, K, contender, variant, and for kernels scheme, encoding, skip_zeros, group, isa, geometry,
    plan_seconds; median_ms (median of the rounds' medians), round_ms (those medians), iqr_ms and min_ms (over all
    blocks of all rounds), flagged (iqr above 10 % of the median), gmacs (dense-equivalent, 1e9 a second), weight_bytes,
    adds and multiplies (the layer at batch 1), reduction (dense operations over them), best_reduction (the same per
    output position with the table's G of fewest operations, where G here is chosen for speed).
    """
    timings = []
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with threadpool_limits(config.threads):
            for shape in SHAPES[config.shapes]:
                timings += _measure_layer(config, shape.with_batch(config.batch))
    finally:
        torch.set_num_threads(before)
    return timings


def _measure_layer(config: BenchConfig, shape: ConvShape) -> list[dict[str, Any]]:
    started = time.perf_counter()
    generator = np.random.default_rng(config.seed)
    x = generator.integers(-4, 5, (shape.N, shape.C, shape.H, shape.W)).astype(np.float32)
    contenders = _contenders(config, shape, x)
    timers = [Timer("call()", globals={"call": contender.call}, num_threads=config.threads) for contender in contenders]
    round_ms: list[list[float]] = [[] for _ in contenders]
    blocks: list[list[float]] = [[] for _ in contenders]
    with torch.inference_mode():
        for contender in contenders:
            contender.call()
        for _ in range(config.rounds):
            for i, timer in enumerate(timers):
                found = timer.blocked_autorange(min_run_time=config.min_run_ms / 1e3)
                round_ms[i].append(found.median * 1e3)
                blocks[i] += [seconds * 1e3 for seconds in found.times]
    timings = [_timing(config, shape, *rest) for rest in zip(contenders, round_ms, blocks, strict=True)]
    best = min(t["median_ms"] for t in timings if t["contender"] == "torch")
    ours = min((t for t in timings if t["contender"] == "table"), key=lambda t: t["median_ms"])
    noisy = sum(t["flagged"] for t in timings)
    print(
        f"{_layer(shape)}: best fp32 torch {best:.3g} ms, best table {ours['median_ms']:.3g} ms ({ours['variant']}), "
        f"{noisy} of {len(timings)} noisy, {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    return timings


def run(config: BenchConfig, folder: str | Path, name: str = "") -> records.Record:
    """Measure and write folder/records/bench/<name>.json; `name` is the record's id unless given."""
    started = records.start()
    timings = measure(config)
    options = asdict(config)
    isas = sorted({t["isa"] for t in timings if t["isa"]})
    metrics = {
        "timings": timings,
        "layers": len(SHAPES[config.shapes]),
        "flagged_timings": sum(t["flagged"] for t in timings),
    }
    provenance = records.provenance(
        threads=config.threads, started=started, seeds=config.seed, extra={"isa": ", ".join(isas), "caches": "warm"}
    )
    record = records.Record("bench", records.run_id("bench", options), options, metrics, {}, provenance)
    records.write(record, Path(folder) / "records" / "bench" / f"{name or record.id}.json")
    return record
