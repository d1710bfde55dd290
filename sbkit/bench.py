"""Time the kernels against torch and its peers: check first, then interleave all contenders in one process.

Four studies, timed alike, and one that counts:

    layers      single layers of a network: every algorithm on every scheme
    threads     the same layers on one thread and on several, in the same rounds
    density     one layer at densities from 0.05 to 0.95: what sparsity and repetition are worth, and both
    network     a whole network, batch norms folded, through `sbkit.inference`
    operations  every layer of a network: the operations that the plans execute, nothing timed

Every contender computes the same layer shape or network on the same activations; packing of activations counts as run
time, offline packing of weights (`plan_seconds`) does not. Caches are warm. The number of threads is set and recorded.
Each round times every contender once with `torch.utils.benchmark.Timer.blocked_autorange`, so that a change of the
machine's speed meets all of them.

ONNX Runtime and OpenVINO are optional: pip install onnx onnxruntime openvino. Where one is missing, the benchmark says
so and goes on.
"""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.benchmark import Timer

from sbkit import inference, kernels, models, records, repetition
from sbkit.conv import RESNET18_SHAPES, RESNET20_SHAPES, ConvShape, QuantizedWeight
from sbkit.quantizers import QuantizerConfig, random_patterns, sparsest_masks


def _stride_1(shapes: tuple[ConvShape, ...]) -> tuple[ConvShape, ...]:
    """One layer of each shape, without the stride-2 layers that begin a stage."""
    distinct = {(s.C, s.H, s.K): s for s in shapes if s.stride == 1}
    return tuple(distinct.values())


SHAPES: dict[str, tuple[ConvShape, ...]] = {
    "resnet18": _stride_1(RESNET18_SHAPES),
    "resnet20": _stride_1(RESNET20_SHAPES),
    "tiny": (ConvShape(8, 8, 8, 8), ConvShape(16, 4, 4, 16)),
}

# All quantized layers of these networks.
NETWORK_SHAPES = {"resnet18": RESNET18_SHAPES, "resnet20": RESNET20_SHAPES, "tiny": SHAPES["tiny"]}

# The network that each of SHAPES stands for: model, and the options of build_model.
NETWORKS: dict[str, tuple[str, dict[str, int]]] = {
    "resnet18": ("resnet18", {"image_size": 224, "classes": 1000}),
    "resnet20": ("resnet20", {"image_size": 32}),
    "tiny": ("resnet8", {"image_size": 8, "width": 8}),
}

STUDIES = ("layers", "threads", "density", "codebooks", "network", "training", "operations")
ALGORITHMS = ("sparse", "table", "dataflow")  # of the kernels, besides the reference
# How far torch and its peers may be off, as a fraction of the largest output, by precision.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.05}


@dataclass(frozen=True)
class BenchConfig:
    """What to time."""

    study: str = "layers"  # layers | threads | density | codebooks | network | training | operations
    shapes: str = "resnet18"  # resnet18: its four stride-1 3x3 shapes, or the network | resnet20: its three | tiny
    density: float = 0.35  # fraction of non-zero codes, signed_binary and zero_one
    ternary_density: float = 0.58  # the same, ternary_twn
    algorithms: str = "sparse table dataflow"  # of the kernels, on layers and at many densities; a network takes table
    peers: bool = True  # ONNX Runtime and OpenVINO as well, where installed; not in the study of densities
    rounds: int = 7  # times every contender is timed, all in turn
    min_run_ms: float = 20.0  # least milliseconds of one timing
    threads: int = 1  # of the kernels, of torch and of its peers; in the study of threads, what one is compared with
    batch: int = 1  # images
    seed: int = 0  # of codes and activations
    isa: str = "auto"  # of the kernels; auto: the widest usable

    def __post_init__(self):
        if self.study not in STUDIES:
            raise ValueError(f"study = {self.study!r}; allowed: {', '.join(STUDIES)}")
        if self.shapes not in SHAPES:
            raise ValueError(f"shapes = {self.shapes!r}; allowed: {', '.join(SHAPES)}")
        words = self.algorithms.split()
        if not words or not set(words) <= set(ALGORITHMS):
            raise ValueError(f"algorithms = {self.algorithms!r}; allowed: one or more of {', '.join(ALGORITHMS)}")
        for name in ("density", "ternary_density"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: above 0, up to 1")
        for name in ("rounds", "threads", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: 1 or more")
        if self.study == "threads" and self.threads == 1:
            raise ValueError("threads = 1 in the study of threads; allowed: 2 or more")
        if self.min_run_ms <= 0:
            raise ValueError(f"min_run_ms = {self.min_run_ms}; allowed: above 0")
        if self.isa not in ("auto", *kernels.isas()):
            raise ValueError(f"isa = {self.isa!r}; allowed here: {', '.join(('auto', *kernels.isas()))}")

    def density_of(self, scheme: str) -> float:
        return {"binary": 1.0, "ternary_twn": self.ternary_density}.get(scheme, self.density)


class Contender(NamedTuple):
    """One way to run a layer or a network, checked and ready to be timed."""

    contender: str  # torch | onnxruntime | openvino | sparse | table | dataflow
    variant: (
        str  # torch: memory format, frozen or bf16; its peers: fp32 | int8; kernels: the scheme; training: the design
    )
    call: Callable[[], Any]
    columns: dict[str, Any]  # of its row in the record, where they are not those of BASELINE


class Subject(NamedTuple):
    """What a number of contenders run: a layer or a network."""

    columns: dict[str, Any]  # of every row: layer, C, H, W, K, batch, and the dense weight_bytes, adds, multiplies
    macs: int  # multiply-accumulates of the whole batch, dense
    contenders: list[Contender]


# Columns of a contender without codes.
BASELINE: dict[str, Any] = {
    "model": "",
    "precision": "fp32",
    "scheme": "",
    "encoding": "",
    "skip_zeros": True,
    "group": 0,
    "regions": 0,
    "codebook_bits": 0,
    "isa": "",
    "geometry": "",
    "plan_seconds": 0.0,
    "density": 1.0,
    "entropy_bits": None,
    "best_reduction": 1.0,
    "bound_adds": None,
}
"""Besides: on_threads, the threads it ran on, `BenchConfig.threads` unless the study is of threads."""


def _check(what: str, result: Any, expected: np.ndarray, tolerance: float) -> None:
    """Raises AssertionError if the result is further from the expected one than this fraction of its largest value."""
    difference = np.abs(np.asarray(result) - expected).max()
    allowed = tolerance * np.abs(expected).max()
    if not difference <= allowed:
        raise AssertionError(f"{what} differs from the reference by {difference:.3g}; allowed: {allowed:.3g}")


# Single layers


class Way(NamedTuple):
    """An algorithm on random codes of a scheme, with options of `kernels.prepare`."""

    algorithm: str
    scheme: str
    options: dict[str, Any]
    density: float | None  # of the codes; None: the config's for this scheme
    regions: int  # channels that share a random sign within a filter; 0: the scheme's own signs
    bits: int  # b: such a region holds, at each tap by itself, one of 2^b patterns; 0: any


def _way(
    algorithm: str, scheme: str, density: float | None = None, regions: int = 0, bits: int = 0, **options: Any
) -> Way:
    return Way(algorithm, scheme, options, density, regions, bits)


# Binary in every encoding that an algorithm has, so that it is never held to its worst.
BINARY_TABLES = (
    _way("table", "binary"),
    _way("table", "binary", encoding="rewritten"),
    _way("table", "binary", encoding="signed"),
)
BINARY_GRAPHS = (_way("dataflow", "binary"), _way("dataflow", "binary", encoding="rewritten"))

LAYERS: tuple[Way, ...] = (
    _way("table", "signed_binary"),
    _way("table", "signed_binary", skip_zeros=False),
    _way("table", "signed_binary", regions=4, group=4),
    _way("table", "signed_binary", group=4),  # what the regions compare with
    _way("table", "zero_one"),
    *BINARY_TABLES,
    _way("table", "ternary_twn"),
    _way("table", "ternary_twn", encoding="signed"),
    _way("sparse", "signed_binary"),
    _way("sparse", "binary"),
    _way("dataflow", "signed_binary"),
    _way("dataflow", "signed_binary", skip_zeros=False),
    _way("dataflow", "zero_one"),
    *BINARY_GRAPHS,
    _way("dataflow", "ternary_twn"),
    _way("dataflow", "ternary_twn", skip_zeros=False),
)

THREADS: tuple[Way, ...] = (
    _way("table", "signed_binary"),
    _way("table", "binary", encoding="signed"),
    _way("table", "ternary_twn", encoding="signed"),
    _way("sparse", "signed_binary"),
)

OPERATIONS: tuple[Way, ...] = (
    _way("sparse", "signed_binary"),
    _way("table", "signed_binary"),
    *BINARY_TABLES,
    _way("table", "ternary_twn"),
    _way("table", "ternary_twn", encoding="signed"),
    _way("dataflow", "signed_binary"),
    _way("dataflow", "signed_binary", skip_zeros=False),
    *BINARY_GRAPHS,
    _way("dataflow", "ternary_twn"),
    _way("dataflow", "ternary_twn", skip_zeros=False),
)

DENSITIES = tuple(round(0.05 + 0.1 * i, 2) for i in range(10))
DENSITY: tuple[Way, ...] = (
    _way("sparse", "binary"),
    *BINARY_TABLES,
    *BINARY_GRAPHS,
    *(
        _way(algorithm, scheme, density, **options)
        for density in DENSITIES
        for scheme, options_of_table in (("signed_binary", {}), ("ternary_twn", {"encoding": "signed"}))
        for algorithm, options in (("sparse", {}), ("table", options_of_table), ("dataflow", {}))
    ),
)

CODEBOOKS: tuple[Way, ...] = (
    *BINARY_TABLES,
    _way("table", "signed_binary"),
    _way("table", "signed_binary", density=0.21, regions=4, group=4),  # any mask; the density of Delta = mean|w|
    *(
        _way(algorithm, "signed_binary", regions=G, bits=b, **options)
        for b, G in ((4, 8), (6, 8), (4, 16), (6, 16), (8, 16))
        for algorithm, options in (("table", {}), ("table", {"encoding": "codebook"}), ("sparse", {}))
    ),
    *(
        _way("table", "binary", regions=G, bits=b, encoding=encoding)
        for b, G in ((4, 8), (4, 16), (6, 16))
        for encoding in ("signed", "codebook")
    ),
)

NETWORK: tuple[Way, ...] = (
    _way("table", "signed_binary", encoding="two_group"),
    _way("table", "binary", encoding="signed"),
    _way("table", "ternary_twn", encoding="signed"),
    _way("table", "signed_binary", regions=8, bits=4, encoding="codebook"),
)


def _random_codes(config: BenchConfig, shape: ConvShape, way: Way) -> QuantizedWeight:
    """Random codes, the same for all contenders with the same scheme, density, regions and bits."""
    if way.bits:
        return _random_patterns(config, shape, way)
    density = config.density_of(way.scheme) if way.density is None else way.density
    generator = np.random.default_rng(config.seed)
    weight = repetition.random_codes(way.scheme, (shape.K, shape.C, shape.R, shape.S), density, generator)
    if way.regions:
        blocks = generator.choice(np.array([-1, 1], np.int8), (shape.K, -(-shape.C // way.regions)))
        signs = blocks.repeat(way.regions, axis=1)[:, : shape.C, None, None]
        weight = replace(weight, codes=np.abs(weight.codes) * signs)
    return weight


def _random_patterns(config: BenchConfig, shape: ConvShape, way: Way) -> QuantizedWeight:
    """Codes of a codebook, every pattern as likely: the sparsest masks, each with a random sign, or binary's signs.

    Trained ones have more empty masks, and are sparser.
    """
    generator, torch_generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    size = (shape.K, -(-shape.C // way.regions), shape.R, shape.S)
    if way.scheme == "binary":
        patterns, signs = random_patterns(way.regions, way.bits, -1.0, torch_generator), np.int8(1)
    else:
        patterns = sparsest_masks(way.regions, way.bits, torch_generator)
        signs = generator.choice(np.array([-1, 1], np.int8), (*size, 1))
    patterns = patterns.numpy().astype(np.int8)
    regions = signs * patterns[generator.integers(len(patterns), size=size)]  # (K, blocks, R, S, channels of a block)
    codes = regions.transpose(0, 1, 4, 2, 3).reshape(shape.K, -1, shape.R, shape.S)[:, : shape.C]
    return QuantizedWeight(np.ascontiguousarray(codes), scheme=way.scheme)


def _layer(config: BenchConfig, shape: ConvShape, ways: Iterable[Way], lanes: int, skipped: list[str]) -> Subject:
    """One layer with all its contenders. Raises AssertionError if one computes anything else than the reference."""
    generator = np.random.default_rng(config.seed)
    # Activations are small integers: every order of summation gives the same floats.
    x = generator.integers(-4, 5, (shape.N, shape.C, shape.H, shape.W)).astype(np.float32)
    binary = _random_codes(config, shape, _way("dense", "binary"))  # to the others all weights are alike
    y = kernels.conv2d(kernels.prepare("dense", binary, shape), x)
    weight = binary.dense()
    dense = shape.macs // shape.N
    columns = {
        **{"layer": f"{shape.C}→{shape.K} @{shape.H}", "C": shape.C, "H": shape.H, "W": shape.W, "K": shape.K},
        **{"batch": shape.N, "weight_bytes": 4 * shape.weights, "adds": dense, "multiplies": dense},
    }
    contenders = []
    for threads in (1, config.threads) if config.study == "threads" else (config.threads,):
        found = _torch_layer(shape, x, weight, y)
        if config.study == "layers" and _has_bf16(skipped):
            found.append(_torch_layer_bf16(shape, x, weight, y))
        if config.peers and config.study == "layers":
            bytes_each = {"fp32": 4 * shape.weights, "int8": shape.weights}
            for peer in _peers(config, lambda: _onnx_layer(shape, weight), x, y, bytes_each, skipped):
                found.append(peer._replace(columns=peer.columns | {"weight_bytes": bytes_each[peer.variant]}))
        found += _kernel_layer(config, shape, x, ways, lanes, threads)
        contenders += [c._replace(columns=c.columns | {"on_threads": threads}) for c in found]
    return Subject(columns, shape.macs, contenders)


def _torch_layer(shape: ConvShape, x: np.ndarray, weight: np.ndarray, y: np.ndarray) -> list[Contender]:
    contenders = []
    for variant in ("contiguous", "channels_last"):
        memory_format = getattr(torch, "contiguous_format" if variant == "contiguous" else variant)
        inputs = [torch.from_numpy(array).contiguous(memory_format=memory_format) for array in (x, weight)]
        call = functools.partial(nn.functional.conv2d, *inputs, stride=shape.stride, padding=shape.padding)
        _check(f"torch {variant} on {shape}", call(), y, TOLERANCE["fp32"])
        contenders.append(Contender("torch", variant, call, {}))
    return contenders


def _has_bf16(skipped: list[str]) -> bool:
    """Whether torch can compute in bf16 here; where not, that is added to `skipped`."""
    trouble = models.bf16_trouble()
    if trouble:
        _skip(f"torch bf16: {trouble}", skipped)
    return not trouble


def _torch_layer_bf16(shape: ConvShape, x: np.ndarray, weight: np.ndarray, y: np.ndarray) -> Contender:
    """Activations and weights in bf16 before and after, as inside a network of that precision."""
    inputs = [torch.from_numpy(array).to(torch.bfloat16, memory_format=torch.channels_last) for array in (x, weight)]
    call = functools.partial(nn.functional.conv2d, *inputs, stride=shape.stride, padding=shape.padding)
    _check(f"torch bf16 on {shape}", call().float(), y, TOLERANCE["bf16"])
    return Contender("torch", "bf16", call, {"precision": "bf16", "weight_bytes": 2 * shape.weights})


def _kernel_layer(
    config: BenchConfig, shape: ConvShape, x: np.ndarray, ways: Iterable[Way], lanes: int, threads: int
) -> list[Contender]:
    codes: dict[tuple, tuple[QuantizedWeight, np.ndarray]] = {}
    contenders = []
    for way in ways:
        key = way.scheme, way.density, way.regions, way.bits
        if key not in codes:
            weight = _random_codes(config, shape, way)
            codes[key] = weight, kernels.conv2d(kernels.prepare("dense", weight, shape), x)
        weight, expected = codes[key]
        table = way.algorithm == "table"
        prepared = kernels.prepare(
            way.algorithm, weight, shape, isa=config.isa, threads=threads, tune=True, **way.options
        )
        _check(f"{way.algorithm} {way.scheme} {way.options} on {shape}", kernels.conv2d(prepared, x), expected, 0)
        columns = {
            "scheme": way.scheme,
            **{key: getattr(prepared, key) for key in ("encoding", "skip_zeros", "group", "isa", "geometry")},
            **{key: getattr(prepared, key) for key in ("plan_seconds", "weight_bytes")},
            **prepared.operations._asdict(),
            "regions": way.regions,
            "codebook_bits": way.bits,
            "density": weight.density,
            "entropy_bits": way.bits / way.regions if way.bits else repetition.entropy_bits(weight.codes, way.regions),
        }
        columns["best_reduction"] = 2 * shape.macs / shape.N / sum(prepared.operations)
        if table and config.study != "codebooks":  # counting its patterns for every G takes minutes
            costs = _table_costs(weight, prepared.encoding, prepared.skip_zeros)
            columns["best_reduction"] = 2 * shape.weights / min(cost.operations for cost in costs)
            if config.study == "layers":
                columns["bound_adds"] = _bound_adds(shape, costs, lanes)
        call = functools.partial(kernels.conv2d, prepared, x)
        contenders.append(Contender(way.algorithm, way.scheme, call, columns))
    return contenders


class TableCost(NamedTuple):
    """What `table` executes with some number of channels per table."""

    entries: int  # additions per output position, of table entries and of rows
    built: int  # additions per input position, which build the tables
    operations: int  # all operations of one output and one input position


def _table_costs(weight: QuantizedWeight, encoding: str, skip_zeros: bool) -> list[TableCost]:
    """The cost for each number of channels per table."""
    costs = []
    for group in range(1, repetition.largest_group(weight.codes, encoding) + 1):
        found = repetition.operations(weight, "table", group=group, encoding=encoding, skip_zeros=skip_zeros)
        built = repetition.tables_adds(weight.codes, encoding, group)
        costs.append(TableCost(found.adds - built, built, found.total))
    return costs


def _bound_adds(shape: ConvShape, costs: list[TableCost], lanes: int) -> int:
    """The least number of vectors to add, with the best number of channels per table.

    Each input position is built once, and the lanes cover the image by the best grid.
    """
    heights = [2**i for i in range(lanes.bit_length())]
    vectors = shape.N * min(-(-shape.P // height) * -(-shape.Q // (lanes // height)) for height in heights)
    return min(cost.entries * vectors + cost.built * vectors * shape.stride**2 for cost in costs)


# Networks


def _network(config: BenchConfig, skipped: list[str]) -> Subject:
    """The whole network with all its contenders. Raises AssertionError if logits differ by more than float32 rounds."""
    name, options = NETWORKS[config.shapes]
    model = models.build_model(name, quantizer=QuantizerConfig("full_precision"), seed=config.seed, **options)
    size = options["image_size"]
    shapes = models.conv_shapes(model, 3, size)
    x = torch.from_numpy(
        np.random.default_rng(config.seed).standard_normal((config.batch, 3, size, size), dtype=np.float32)
    )
    folded = inference.fold(model)
    y, macs = _counted(folded, x)
    dense = sum(shape.macs for shape in shapes)
    columns = {
        **{"layer": "network", "model": name, "C": 3, "H": size, "W": size, "K": y.shape[1], "batch": config.batch},
        **{"weight_bytes": 4 * sum(shape.weights for shape in shapes), "adds": dense, "multiplies": dense},
    }
    contenders = _torch_network(folded, x, y.numpy())
    if _has_bf16(skipped):
        contenders.append(_torch_network_bf16(folded, x, y.numpy(), columns["weight_bytes"] // 2))
    if config.peers:
        contenders += _peers(config, lambda: _onnx_network(folded, x), x.numpy(), y.numpy(), ("fp32",), skipped)
    for way in NETWORK:
        weights = {shape.name: _scaled_codes(config, shape, way) for shape in shapes}
        compiled = inference.compile(
            model, weights, image=(3, size, size), batch=config.batch, isa=config.isa, threads=config.threads,
            **way.options,
        )  # fmt: skip
        expected = inference.fold(model, weights)(x).numpy()
        _check(f"table {way.scheme} on {name}", compiled(x), expected, inference.LOGIT_BOUND)
        own = {
            "scheme": way.scheme,
            "regions": way.regions,
            "codebook_bits": way.bits,
            **way.options,
            "isa": next(iter(compiled.layers.values())).isa,
            "density": sum(np.count_nonzero(weight.codes) for weight in weights.values())
            / sum(weight.codes.size for weight in weights.values()),
            "plan_seconds": compiled.plan_seconds,
            "weight_bytes": compiled.weight_bytes,
            **compiled.operations._asdict(),
            "best_reduction": 2 * dense / sum(compiled.operations),
        }
        contenders.append(Contender("table", way.scheme, functools.partial(compiled, x), own))
    return Subject(columns, macs, contenders)


def _counted(folded: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The logits, and the multiply-accumulates of all convolutions and linear layers."""
    macs = []

    def note(layer, _, y):
        macs.append(y.numel() * layer.weight[0].numel())

    layers = [module for module in folded.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    y = folded(x)
    for hook in hooks:
        hook.remove()
    return y, sum(macs)


def _scaled_codes(config: BenchConfig, shape: ConvShape, way: Way) -> QuantizedWeight:
    """Random codes with the scale that keeps the size of activations behind a ReLU."""
    weight = _random_codes(config, shape, way)
    scale = (2 / (shape.C * shape.R * shape.S * weight.density)) ** 0.5
    return replace(weight, scale=np.full(shape.K, scale), negative_scale=np.full(shape.K, scale))


def _torch_network(folded: nn.Module, x: torch.Tensor, y: np.ndarray) -> list[Contender]:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # torch.compile, its successor, needs a compiler at run time
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(folded, x, check_trace=False)))
    channels_last = copy.deepcopy(folded).to(memory_format=torch.channels_last)
    contenders = []
    for variant, call in {
        "contiguous": functools.partial(folded, x),
        "channels_last": functools.partial(channels_last, x.contiguous(memory_format=torch.channels_last)),
        "frozen": functools.partial(frozen, x),
    }.items():
        with torch.inference_mode():
            _check(f"torch {variant}", call(), y, TOLERANCE["fp32"])
        contenders.append(Contender("torch", variant, call, {}))
    return contenders


def _torch_network_bf16(folded: nn.Module, x: torch.Tensor, y: np.ndarray, weight_bytes: int) -> Contender:
    network = copy.deepcopy(folded).to(torch.bfloat16, memory_format=torch.channels_last)
    call = functools.partial(network, x.to(torch.bfloat16, memory_format=torch.channels_last))
    with torch.inference_mode():
        _check("torch bf16", call().float(), y, TOLERANCE["bf16"])
    return Contender("torch", "bf16", call, {"precision": "bf16", "weight_bytes": weight_bytes})


# Training

_TAPS = {"assignment": "random", "region_channels": 4, "region_taps": 1, "threshold": "mean", "delta_factor": 1.0}
TRAINING: dict[str, QuantizerConfig] = {
    "full_precision": QuantizerConfig("full_precision"),
    "binary": QuantizerConfig("binary"),
    "zero_one": QuantizerConfig("zero_one"),
    "ternary_twn": QuantizerConfig("ternary_twn"),
    "ternary_ttq": QuantizerConfig("ternary_ttq"),
    "signed_binary": QuantizerConfig(),
    "signed_binary_taps": QuantizerConfig(**_TAPS),
    "signed_binary_learned": QuantizerConfig(**_TAPS | {"assignment": "learned"}),
    "signed_binary_codebook": QuantizerConfig(**_TAPS | {"region_channels": 8, "codebook_bits": 4}),
}
"""Designs by name: what a step of each costs is compared with full precision."""


def _training(config: BenchConfig, skipped: list[str]) -> Subject:
    """Steps of Adam on one batch, by the same network under each design, in fp32 and, unless the CPU cannot, which is
    added to `skipped`, by autocast in bf16."""
    name, options = NETWORKS[config.shapes]
    size = options["image_size"]
    generator = torch.Generator().manual_seed(config.seed)
    x = torch.randn(config.batch, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (config.batch,), generator=generator)

    def step(quantizer: QuantizerConfig, precision: str) -> Callable[[], None]:
        model = models.build_model(name, quantizer=quantizer, seed=config.seed, **options)
        model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        return functools.partial(_step, model, optimizer, x, y, precision == "bf16")

    model = models.build_model(name, quantizer=TRAINING["full_precision"], **options)
    dense = sum(shape.macs for shape in models.conv_shapes(model, 3, size))
    weights = models.parameter_counts(model)["quantized"]
    columns = {
        **{"layer": "training step", "model": name, "C": 3, "H": size, "W": size, "K": options.get("classes", 10)},
        **{"batch": config.batch, "weight_bytes": 4 * weights, "adds": dense, "multiplies": dense},
    }
    precisions = ("fp32", "bf16") if _has_bf16(skipped) else ("fp32",)
    contenders = [
        Contender(
            "training", design, step(quantizer, precision), {"scheme": quantizer.quantizer, "precision": precision}
        )
        for precision in precisions
        for design, quantizer in TRAINING.items()
    ]
    return Subject(columns, 3 * dense * config.batch, contenders)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, bf16: bool) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(x)
        loss = nn.functional.cross_entropy(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


# Operations alone


def _operations(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for each distinct layer of a network and each way: the counts of `dataflow` and `sparse` are those of their
    plans, that of `table` is with the number of channels per table that needs the fewest."""
    counts: dict[ConvShape, int] = {}
    for shape in NETWORK_SHAPES[config.shapes]:
        shape = replace(shape, name="")
        counts[shape] = counts.get(shape, 0) + 1
    rows = []
    for shape, count in counts.items():
        for way in (way for way in OPERATIONS if way.algorithm in config.algorithms.split()):
            weight = _random_codes(config, shape, way)
            if way.algorithm == "table":
                group = repetition.best_group(weight, shape=shape, **way.options)
                operations = repetition.operations(weight, "table", shape, group=group, **way.options)
            else:
                prepared = kernels.prepare(way.algorithm, weight, shape, isa="scalar", **way.options)
                group, operations = prepared.group, prepared.operations
            stride = f"/{shape.stride}" if shape.stride > 1 else ""
            rows.append(
                {
                    **{"layer": f"{shape.C}→{shape.K} @{shape.H}{stride}", "count": count, "batch": 1},
                    **{"C": shape.C, "H": shape.H, "W": shape.W, "K": shape.K, "stride": shape.stride},
                    **{"contender": way.algorithm, "variant": way.scheme, "scheme": way.scheme, "group": group},
                    **{"encoding": "two_group", "skip_zeros": True, **way.options, "density": weight.density},
                    **{"macs": shape.macs, "adds": operations.adds, "multiplies": operations.multiplies},
                    "reduction": 2 * shape.macs / sum(operations),
                }
            )
        print(f"{rows[-1]['layer']}: counted", flush=True)
    return rows


# What a user would pick instead


class Unusable(RuntimeError):
    """Why a peer is left out, for people."""


def _peers(
    config: BenchConfig,
    export: Callable[[], bytes],
    x: np.ndarray,
    y: np.ndarray,
    precisions: Iterable[str],
    skipped: list[str],
) -> list[Contender]:
    """ONNX Runtime and OpenVINO on an ONNX model; what cannot run is printed and added to `skipped`, once."""
    contenders, export = [], functools.cache(export)
    for peer, load in {"onnxruntime": _onnxruntime, "openvino": _openvino}.items():
        for precision in precisions:
            try:
                call = load(export(), x, precision, config.threads)
            except ModuleNotFoundError as error:
                reason = f"{peer}: {'' if error.name == peer else f'{error.name} '}not installed"
            except Unusable as error:
                reason = f"{peer} {precision}: {error}"
            else:
                _check(f"{peer} {precision}", call(), y, TOLERANCE[precision])
                contenders.append(Contender(peer, precision, call, {"precision": precision}))
                continue
            _skip(reason, skipped)
    return contenders


def _skip(reason: str, skipped: list[str]) -> None:
    if reason not in skipped:
        print(f"skipped {reason}", flush=True)
        skipped.append(reason)


def _onnxruntime(model: bytes, x: np.ndarray, precision: str, threads: int) -> Callable[[], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    model = _int8(model, x) if precision == "int8" else model
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


_TRIAL = """
import json, sys, numpy, openvino
model = openvino.compile_model(sys.argv[1], "CPU", json.loads(sys.argv[2]))
model([numpy.zeros(tuple(model.input().shape), numpy.float32)])
"""


def _openvino(model: bytes, x: np.ndarray, precision: str, threads: int) -> Callable[[], np.ndarray]:
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    if precision == "int8":
        model = _int8(model, x)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            path.write_bytes(model)
            if death := models.death_in_trial(_TRIAL, path, json.dumps(options)):
                raise Unusable(death)
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))

    def call() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data

    return call


def _int8(model: bytes, x: np.ndarray) -> bytes:
    """The model with weights in 7 bits, a scale per filter, and activations in 8 bits, whose range is that of x."""
    import onnx
    from onnxruntime import quantization

    class Calibration(quantization.CalibrationDataReader):
        images = iter([{"x": x}])

        def get_next(self):
            return next(self.images, None)

    graph = onnx.load_from_string(model)
    onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})  # nothing to fuse
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantization.quantize_static(
            graph,
            path,
            Calibration(),
            quant_format=quantization.QuantFormat.QDQ,  # the one that OpenVINO runs in 8 bits
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # 7 bits of weights: without VNNI, products of 8 bits overflow
        )
        return path.read_bytes()


def _onnx_layer(shape: ConvShape, weight: np.ndarray) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    window = {"kernel_shape": [shape.R, shape.S], "strides": [shape.stride] * 2, "pads": [shape.padding] * 4}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], **window)],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [shape.N, shape.C, shape.H, shape.W])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape.N, shape.K, shape.P, shape.Q])],
        [numpy_helper.from_array(weight, "w")],
    )
    # Versions that older releases of the peers read as well.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def _onnx_network(folded: nn.Module, x: torch.Tensor) -> bytes:
    import onnx  # noqa: F401  the exporter needs it and would not say so by a ModuleNotFoundError

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs one more package
        torch.onnx.export(folded, (x,), buffer, dynamo=False, input_names=["x"], opset_version=17)
    return buffer.getvalue()


# Measurement


def _subjects(config: BenchConfig, lanes: int, skipped: list[str]) -> Iterable[Subject]:
    if config.study == "network":
        yield _network(config, skipped)
        return
    if config.study == "training":
        yield _training(config, skipped)
        return
    shapes = SHAPES[config.shapes]
    if config.study == "density":
        shapes = shapes[1:2]
    ways = {"layers": LAYERS, "threads": THREADS, "density": DENSITY, "codebooks": CODEBOOKS}[config.study]
    ways = [way for way in ways if way.algorithm in config.algorithms.split()]
    for shape in shapes:
        yield _layer(config, shape.with_batch(config.batch), ways, lanes, skipped)


def _time(config: BenchConfig, subject: Subject) -> list[dict[str, Any]]:
    """Time a subject's contenders in turn, round by round: a row of the record for each."""
    threads = [contender.columns.get("on_threads", config.threads) for contender in subject.contenders]
    timers = [
        Timer("call()", globals={"call": contender.call}, num_threads=n)
        for contender, n in zip(subject.contenders, threads, strict=True)
    ]
    round_ms: list[list[float]] = [[] for _ in timers]
    blocks: list[list[float]] = [[] for _ in timers]
    with torch.inference_mode():
        for contender in subject.contenders:
            contender.call()
        for _ in range(config.rounds):
            for i, timer in enumerate(timers):
                found = timer.blocked_autorange(min_run_time=config.min_run_ms / 1e3)
                round_ms[i].append(found.median * 1e3)
                blocks[i] += [seconds * 1e3 for seconds in found.times]
    rows = [_row(subject, *rest) for rest in zip(subject.contenders, round_ms, blocks, strict=True)]
    return [row | {"on_threads": n} for row, n in zip(rows, threads, strict=True)]


def _row(subject: Subject, contender: Contender, round_ms: list[float], blocks: list[float]) -> dict[str, Any]:
    low, middle, high = np.percentile(blocks, (25, 50, 75))
    median = float(np.median(round_ms))
    row = BASELINE | subject.columns | {"contender": contender.contender, "variant": contender.variant}
    row |= contender.columns
    return row | {
        "median_ms": median,
        "iqr_ms": float(high - low),
        "min_ms": min(blocks),
        "round_ms": round_ms,
        "rounds": len(round_ms),
        "flagged": bool((high - low) / middle > 0.1),
        "gmacs": subject.macs / median / 1e6,  # dense-equivalent 1e9 multiply-accumulates a second
        "reduction": (subject.columns["adds"] + subject.columns["multiplies"]) / (row["adds"] + row["multiplies"]),
    }


def _under_the_roof(timing: dict[str, Any], vector_adds: float) -> dict[str, Any]:
    """A row with the time that its least number of additions takes at so many a second."""
    adds = timing["bound_adds"]
    bound = None if adds is None else adds / vector_adds * 1e3
    return timing | {"bound_ms": bound, "roofline_fraction": bound and bound / timing["median_ms"]}


def _report(timings: list[dict[str, Any]], seconds: float) -> None:
    """A line for people: the fastest of each contender."""
    fastest: dict[str, dict[str, Any]] = {}
    for t in sorted(timings, key=lambda t: t["median_ms"]):
        fastest.setdefault(t["contender"], t)
    found = (f"{t['contender']} {t['median_ms']:.3g} ms ({t['variant']})" for t in fastest.values())
    noisy = sum(t["flagged"] for t in timings)
    print(f"{timings[0]['layer']}: {', '.join(found)}; {noisy} of {len(timings)} noisy, {seconds:.0f} s", flush=True)


def measure(config: BenchConfig) -> dict[str, Any]:
    """Check and time all contenders of a study; prints a line per layer or network. Returns a record's metrics.

    The study of operations has rows without times, of the columns that `_operations` lists, and no peaks. Else:

    timings          a dict for each layer or network and each contender, below
    layers           how many layers
    flagged_timings  how many rows are flagged
    peaks            `kernels.peaks()`, the best of several: another program can only slow one down
    skipped          the peers and the precisions that could not run, and why

    A row of timings holds, beside what BASELINE names,
      layer, C, H, W, K, batch, model   what ran; of a network, layer is "network" and K the number of classes
      contender, variant, precision     who ran it
      median_ms, round_ms               median of the rounds' medians, and those medians
      iqr_ms, min_ms, flagged           over all blocks of all rounds; flagged: iqr above 10 % of the median
      gmacs                             dense-equivalent 1e9 multiply-accumulates a second, of all layers
      weight_bytes, adds, multiplies    of one layer, or of a network's quantized layers, at batch 1
      reduction, best_reduction         dense operations over these; the same per output position with the table's G of
                                        fewest operations, where G here is chosen for speed
      bound_adds                        of `table` in the study of layers: the fewest vectors it must load and add
      bound_ms, roofline_fraction       the time these take from a table in L1 at `peaks`, and that over median_ms
    """
    if config.study == "operations":
        rows = _operations(config)
        return {"timings": rows, "layers": len({row["layer"] for row in rows}), "flagged_timings": 0, "skipped": []}
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with threadpool_limits(config.threads):
            peaks = kernels.peaks(config.isa)
            timings, skipped = [], []
            started = time.perf_counter()
            for subject in _subjects(config, peaks["lanes"], skipped):
                found = _time(config, subject)
                peaks = {key: max(value, peaks[key]) for key, value in kernels.peaks(config.isa).items()}
                _report(found, time.perf_counter() - started)
                timings += found
                started = time.perf_counter()
    finally:
        torch.set_num_threads(before)
    return {
        "timings": [_under_the_roof(timing, peaks["l1_gadds"] * 1e9 * config.threads) for timing in timings],
        "layers": len({t["layer"] for t in timings}),
        "flagged_timings": sum(t["flagged"] for t in timings),
        "peaks": peaks,
        "skipped": skipped,
    }


def run(config: BenchConfig, folder: str | Path, name: str = "") -> records.Record:
    """Measure and write folder/records/bench/<name>.json; `name` is the record's id unless given."""
    started = records.start()
    metrics = measure(config)
    options = asdict(config)
    isas = sorted({t["isa"] for t in metrics["timings"] if t.get("isa")})
    timed = {t["contender"] for t in metrics["timings"]} & {"onnxruntime", "openvino"}
    provenance = records.provenance(
        threads=config.threads,
        started=started,
        seeds=config.seed,
        extra={
            "isa": ", ".join(isas),
            "caches": "warm",
            "peers": {peer: importlib.metadata.version(peer) for peer in sorted(timed)},
        },
    )
    record = records.Record("bench", records.run_id("bench", options), options, metrics, {}, provenance)
    records.write(record, Path(folder) / "records" / "bench" / f"{name or record.id}.json")
    return record
