"""An analytic accelerator: energy, latency and throughput of ResNet-18 under assumptions that are all written down.

Torch-free. The paper simulates energy and throughput on hardware that it does not describe. This model has every term
that such a simulation must have, each with a source or marked as an assumption, so that one can see which of them the
paper's ratios hang on. It knows nothing of a circuit: ratios between schemes mean more than its absolute numbers.

The machine is an output-stationary array. A tile of outputs, some filters at some output positions, stays in the
partial-sum registers of the units; weights and activations stream past, an activation serving all filters of the tile
and a weight all its positions. Weights, activations and outputs pass through one on-chip buffer, whose halves hold what
is reused and what streams; what does not fit comes from DRAM again. Scales are folded into the batch norms, which are
not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame

from sbkit.conv import RESNET18_SHAPES, ConvShape

# Constants: M. Horowitz, "Computing's energy problem", ISSCC 2014, Fig. 1.1.9 (45 nm, 0.9 V), in pJ.
ADD_PJ = {
    "int8": 0.03,
    "int16": math.sqrt(0.03 * 0.1),  # between its neighbours as a power of the width
    "int32": 0.1,
    "fp32": 0.9,
}
MULTIPLY_PJ = {"none": 0.0, "int8": 0.2, "int32": 3.1, "fp32": 3.7}
CACHE_PJ = {8: 10.0, 32: 20.0, 1024: 100.0}
"""A read of 64 bits from a cache of so many KiB."""
DRAM_PJ = 640.0
"""A read of 32 bits from DRAM: the lower end of 1,300 to 2,600 pJ for 64 bits."""

# STONNE, stonne/energy_tables/energy_model.txt: an adder's static energy a cycle over the energy of its operation, and
# an accumulator that costs what an adder does.
STATIC_SHARE = 0.001505 / 0.111
ACCUMULATIONS = 2  # of an operation: the addition, and its accumulator

INDEX_BITS = 16  # that name an operand of a data-flow graph, and what to do with it
SCRATCH_KIB = 8  # memory beside the units that holds the values of a graph, the smallest that Horowitz lists

VARIANTS = ("dense", "sparse", "repetition")
STORAGES = ("packed", "entropy", "words")

# The paper's ratios of signed binary to binary (Fig. 2; C3 to C6) and of its speed on a CPU (C1).
PAPER = {"energy": 0.51, "throughput": 2.86, "density": 0.35, "latency": 0.78}
PAPER_CPU_SPEEDUP = 1.26

# The layers of ResNet-18 at 224x224 that stay in full precision: stem, three shortcuts, classifier.
FULL_PRECISION_SHAPES = (
    ConvShape(3, 224, 224, 64, 7, 7, 2, 3, name="stem"),
    *(ConvShape(C, H, H, 2 * C, 1, 1, 2, 0, name=f"shortcut {C}→{2 * C}") for C, H in ((64, 56), (128, 28), (256, 14))),
    ConvShape(512, 1, 1, 1000, 1, 1, 1, 0, name="classifier"),
)


@dataclass(frozen=True)
class Accelerator:
    """What is assumed of the machine and of what it is asked to do. Defaults: the paper's setting where it states one.

    The paper states 1-bit weights, activations in full precision, and that only effectual weights are worked on. All
    else is open; `ASSUMPTIONS` lists what is tried instead.
    """

    variant: str = "sparse"  # dense | sparse: only effectual weights | repetition: the additions of data-flow graphs
    units: int = 256  # multiplier-adders, of STONNE's presets 64, 128 and 256
    filters: int = 16  # of a tile, which share an activation; units / filters positions share a weight
    efficiency: float = 1.0  # fraction of the zeros that cost neither a cycle nor an operation
    skip_reads: bool = True  # leave out activations that no filter of the tile has a weight for
    accumulate: str = "fp32"  # number format of additions and partial sums: int8 | int16 | int32 | fp32
    multiply: str = "none"  # format of a multiplier that weights of one bit pass through: none | int8 | int32 | fp32
    activation_bits: int = 32  # in memory
    storage: str = (
        "packed"  # of weights: packed bits | entropy: compressed to it | words: a bitmap, words for non-zeros
    )
    buffer_kib: int = 128  # on-chip
    dram_pj_per_bit: float = DRAM_PJ / 32
    static_share: float = STATIC_SHARE  # energy of a unit in any cycle, over that of its operation
    distribution: int = 128  # words that the buffer hands to the array in a cycle
    reduction: int = 128  # outputs that the array hands back in a cycle
    dram_bytes_per_cycle: int = 16
    overlap: bool = True  # DRAM and array work at the same time
    clock_mhz: int = 1000
    batch: int = 1  # images that are worked on together
    whole_network: bool = False  # count the layers in full precision as well, not the quantized 3x3 layers alone

    def __post_init__(self):
        for name, allowed in (
            ("variant", VARIANTS),
            ("accumulate", ADD_PJ),
            ("multiply", MULTIPLY_PJ),
            ("storage", STORAGES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        for name in ("units", "filters", "activation_bits", "distribution", "reduction", "clock_mhz", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: 1 or more")
        if self.units % self.filters:
            raise ValueError(f"filters = {self.filters}; allowed: a divisor of units = {self.units}")
        if not 0 <= self.efficiency <= 1:
            raise ValueError(f"efficiency = {self.efficiency}; allowed: from 0 to 1")
        if self.dram_bytes_per_cycle <= 0:
            raise ValueError(f"dram_bytes_per_cycle = {self.dram_bytes_per_cycle}; allowed: above 0")
        for name in ("dram_pj_per_bit", "static_share"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: 0 or more")
        buffer_pj_per_bit(self.buffer_kib)


class Codes(NamedTuple):
    """What the model knows of a scheme's codes, the same in every layer but for the graphs."""

    scheme: str
    density: float
    encoding: str = "two_group"  # of the graphs
    adds: Mapping[
        tuple[int, int, int, int], float
    ] = {}  # of a layer's graphs, an output position, by (C, H, K, stride)


class Cost(NamedTuple):
    """Of one layer, or of several together; the whole batch."""

    cycles: float  # until the last output is written
    compute_cycles: float  # what each part would take alone
    distribution_cycles: float
    reduction_cycles: float
    dram_cycles: float
    arithmetic_pj: float
    buffer_pj: float  # on-chip memory
    dram_pj: float
    static_pj: float

    @property
    def energy_pj(self) -> float:
        return self.arithmetic_pj + self.buffer_pj + self.dram_pj + self.static_pj

    @property
    def bound_by(self) -> str:
        """The part that takes longest."""
        parts = ("compute", "distribution", "reduction", "dram")
        return max(parts, key=lambda part: getattr(self, f"{part}_cycles"))


def buffer_pj_per_bit(kib: float) -> float:
    """Energy of a bit read from an on-chip memory, between Horowitz's sizes as a power of the size.

    Raises ValueError outside them, 8 KiB to 1 MiB.
    """
    if not min(CACHE_PJ) <= kib <= max(CACHE_PJ):
        raise ValueError(f"a memory of {kib} KiB; allowed: {min(CACHE_PJ)} to {max(CACHE_PJ)}")
    sizes, energies = np.log(list(CACHE_PJ)), np.log(list(CACHE_PJ.values()))
    return float(np.exp(np.interp(math.log(kib), sizes, energies))) / 64


def weight_bits(codes: Codes, accelerator: Accelerator) -> float:
    """Bits that a weight takes in memory.

    packed   1 (a bitmap, or signs), ternary 2; signed binary's sign per filter is counted with the layer
    entropy  of a code at this density: the best that lossless compression of independent codes can do
    words    a bitmap, and a word as wide as an activation for each effectual weight; no bitmap if there are no zeros
    """
    d = codes.density
    if codes.scheme == "full_precision":
        return 32.0
    if accelerator.storage == "words":
        return d * accelerator.activation_bits + (d < 1)
    ternary = codes.scheme.startswith("ternary")
    if accelerator.storage == "packed" or codes.scheme == "binary":
        return 2.0 if ternary else 1.0
    zeros = -sum(p * math.log2(p) for p in (d, 1 - d) if p > 0)
    return zeros + (d if ternary else 0)


def layer_cost(shape: ConvShape, codes: Codes, accelerator: Accelerator) -> Cost:
    """Cycles and energy of one layer; its batch is that of the shape.

    With U units, F filters a tile, d the density, e the efficiency, T = C·R·S taps, M = N·P·Q positions, and bits b
    of a weight (`weight_bits`) and a of an activation:

        operations  M·K·T·x, where x = 1 - e·(1 - d), or 1 if dense         cycles  ⌈K/F⌉·⌈M/(U/F)⌉·T·x
        activations read on chip  ⌈K/F⌉·M·T·y words, where y = 1 - (1 - d)^F, the chance that one of F filters has a
                    weight there, or 1 if no zero is skipped
        weights     K·T·b bits, read on chip once per tile of positions
        DRAM        weights, inputs and outputs once if weights or inputs fit half of the buffer; else one of the two
                    again for each half-buffer full of the other, whichever is less

    A tile's activations are read tap by tap: windows that overlap do not share reads. Every bit to or from DRAM passes
    the buffer once more, as does every output. An operation is an addition and its accumulator, after a multiplication
    if the machine has one.

    `repetition` has the data-flow graphs' additions instead, A at a position: A/F cycles for each tile of positions,
    whose rows of units work on different tiles of channels; activations are read once into a scratch memory beside the
    units, from which every addition takes its operand; in place of weights stream INDEX_BITS for each addition. Weights
    in full precision are words of 32 bits that are multiplied in fp32, whatever the variant.

    Raises ValueError if the codes have no graph of such a layer.
    """
    taps, positions = shape.C * shape.R * shape.S, shape.N * shape.P * shape.Q
    filters = accelerator.filters
    filter_tiles = math.ceil(shape.K / filters)
    position_tiles = math.ceil(positions / (accelerator.units // filters))
    activation_bits = accelerator.activation_bits
    addition_pj = ACCUMULATIONS * ADD_PJ[accelerator.accumulate]
    operation_pj, scratch_pj = addition_pj + MULTIPLY_PJ[accelerator.multiply], 0.0
    if codes.scheme == "full_precision":
        operation_pj = ACCUMULATIONS * ADD_PJ["fp32"] + MULTIPLY_PJ["fp32"]

    if accelerator.variant == "repetition" and codes.scheme != "full_precision":
        place = (shape.C, shape.H, shape.K, shape.stride)
        if place not in codes.adds:
            raise ValueError(f"no graph of {codes.scheme} for {layer_name(shape)}; allowed: {sorted(codes.adds)}")
        adds = codes.adds[place]
        operations, compute = positions * adds, position_tiles * adds / filters
        words, weights = positions * taps, adds * INDEX_BITS
        operation_pj = addition_pj
        scratch_pj = (operations + words) * activation_bits * buffer_pj_per_bit(SCRATCH_KIB)
    else:
        zeros = 1 - codes.density if accelerator.variant != "dense" else 0.0
        executed = 1 - accelerator.efficiency * zeros
        operations, compute = positions * shape.K * taps * executed, filter_tiles * position_tiles * taps * executed
        words = filter_tiles * positions * taps * (1 - zeros**filters if accelerator.skip_reads else 1)
        weights = shape.weights * weight_bits(codes, accelerator)
        weights += shape.K if codes.scheme == "signed_binary" else 0  # the signs

    inputs, outputs = shape.N * shape.C * shape.H * shape.W * activation_bits, positions * shape.K * activation_bits
    half = accelerator.buffer_kib * 1024 * 8 / 2
    dram = outputs + min(weights + inputs * math.ceil(weights / half), inputs + weights * math.ceil(inputs / half))
    to_array = words * activation_bits + weights * position_tiles  # bits
    array = (
        compute,
        to_array / activation_bits / accelerator.distribution,
        positions * shape.K / accelerator.reduction,
    )
    dram_cycles = dram / 8 / accelerator.dram_bytes_per_cycle
    cycles = max(*array, dram_cycles) if accelerator.overlap else max(array) + dram_cycles
    return Cost(
        cycles,
        *array,
        dram_cycles,
        operations * operation_pj,
        (to_array + outputs + dram) * buffer_pj_per_bit(accelerator.buffer_kib) + scratch_pj,
        dram * accelerator.dram_pj_per_bit,
        cycles * accelerator.units * accelerator.static_share * addition_pj,
    )


def layer_name(shape: ConvShape) -> str:
    """`64→128 @56/2`: channels, input height and stride, as benchmarks name layers."""
    return f"{shape.C}→{shape.K} @{shape.H}{f'/{shape.stride}' if shape.stride > 1 else ''}"


def layer_costs(codes: Codes, accelerator: Accelerator) -> list[tuple[ConvShape, int, Cost]]:
    """Each distinct layer, how often ResNet-18 has it, and the cost of one; those in full precision last, if at all."""
    distinct = Counter(replace(shape, name="", N=accelerator.batch) for shape in RESNET18_SHAPES)
    layers = [(shape, count, layer_cost(shape, codes, accelerator)) for shape, count in distinct.items()]
    if accelerator.whole_network:
        exact = Codes("full_precision", 1.0)
        layers += [
            (shape, 1, layer_cost(shape.with_batch(accelerator.batch), exact, accelerator))
            for shape in FULL_PRECISION_SHAPES
        ]
    return layers


def network_cost(codes: Codes, accelerator: Accelerator) -> Cost:
    """All layers one after another. Its parts' cycles are sums as well: what each would take alone."""
    layers = layer_costs(codes, accelerator)
    return Cost(
        *(
            sum(count * value for (_, count, _), value in zip(layers, values, strict=True))
            for values in zip(*(cost for *_, cost in layers), strict=True)
        )
    )


class Ratios(NamedTuple):
    """Of one scheme to another. The machine works off layer after layer: latency is the inverse of throughput."""

    energy: float
    throughput: float

    @property
    def latency(self) -> float:
        return 1 / self.throughput


def compare(ours: Codes, over: Codes, accelerator: Accelerator) -> Ratios:
    """Energy and throughput of one scheme's ResNet-18 over those of another's, at the accelerator's batch."""
    mine, theirs = (network_cost(codes, accelerator) for codes in (ours, over))
    return Ratios(mine.energy_pj / theirs.energy_pj, theirs.cycles / mine.cycles)


# Tables


def known_codes(densities: Mapping[str, float], operations: DataFrame) -> list[Codes]:
    """Codes of each scheme: its trained density, and its graphs' additions in a benchmark of the study of operations.

    The graphs are those of the benchmark's random codes, of the densities that it states; a scheme that was not trained
    has that density. Binary comes twice where its rewritten encoding was counted too. Either argument may be empty.
    """
    graphs: dict[str, dict[str, dict]] = {scheme: {"two_group": {}} for scheme in densities}
    densities = dict(densities)
    if not operations.empty:
        counted = operations[(operations["contender"] == "dataflow") & operations["skip_zeros"].astype(bool)]
        for scheme, of_scheme in counted.groupby("scheme", sort=False):
            densities.setdefault(scheme, of_scheme["density"].mean())
        for row in counted.itertuples():
            stride = int(row.stride)
            outputs = row.batch * ((row.H - 1) // stride + 1) ** 2  # positions
            adds = graphs.setdefault(row.scheme, {"two_group": {}}).setdefault(row.encoding, {})
            adds[int(row.C), int(row.H), int(row.K), stride] = row.adds / outputs
    return [
        Codes(scheme, float(densities[scheme]), encoding, adds)
        for scheme, encodings in graphs.items()
        for encoding, adds in encodings.items()
    ]


def _has_graphs(codes: Codes) -> bool:
    return all((shape.C, shape.H, shape.K, shape.stride) in codes.adds for shape in RESNET18_SHAPES)


def energy_table(known: Iterable[Codes], accelerator: Accelerator | None = None) -> DataFrame:
    """Cost of ResNet-18: a row per variant, scheme, encoding and distinct layer, and "all" for the network.

    Columns: variant, scheme, encoding, density, layer, count, then of `count` such layers arithmetic_uj, buffer_uj,
    dram_uj, static_uj and their sum energy_uj, all an image, latency_ms of the batch, images_per_second, bound_by; last
    energy_over_binary and throughput_over_binary, NaN without binary. Full precision has the variant `dense` alone, and
    `repetition` is there for codes that have graphs of all layers.
    """
    accelerator = accelerator or Accelerator()
    rows = []
    for variant in VARIANTS:
        machine = replace(accelerator, variant=variant)
        for codes in known:
            if variant != "dense" and codes.scheme == "full_precision":
                continue
            if codes.encoding != "two_group" if variant != "repetition" else not _has_graphs(codes):
                continue
            layers = [(layer_name(shape), count, cost) for shape, count, cost in layer_costs(codes, machine)]
            whole = ("all", 1, network_cost(codes, machine))
            for name, count, cost in [*layers, whole]:
                seconds = count * cost.cycles / accelerator.clock_mhz / 1e6
                share = count / accelerator.batch / 1e6
                rows.append(
                    {"variant": variant, "scheme": codes.scheme, "encoding": codes.encoding, "density": codes.density}
                    | {"layer": name, "count": count if name != "all" else sum(count for _, count, _ in layers)}
                    | {f"{part}_uj": share * getattr(cost, f"{part}_pj") for part in (*PARTS, "energy")}
                    | {"latency_ms": 1e3 * seconds, "images_per_second": accelerator.batch / seconds}
                    | {"bound_by": cost.bound_by}
                )
    table = DataFrame(rows)
    binary = table[(table["scheme"] == "binary") & (table["encoding"] == "two_group")]
    binary = binary.set_index(["variant", "layer"])[["energy_uj", "images_per_second"]]
    theirs = binary.reindex(pd.MultiIndex.from_frame(table[["variant", "layer"]])).reset_index(drop=True)
    return table.assign(
        energy_over_binary=table["energy_uj"] / theirs["energy_uj"],
        throughput_over_binary=table["images_per_second"] / theirs["images_per_second"],
    )


PARTS = ("arithmetic", "buffer", "dram", "static")
"""What energy is spent on."""


# What is open


class Assumption(NamedTuple):
    """Something the paper leaves open: what it is called, and what is tried in place of the default."""

    name: str  # a field of Accelerator, or "density: <scheme>"
    label: str
    alternatives: tuple[Any, ...]


ASSUMPTIONS = (
    Assumption("variant", "what the array exploits", ("dense", "repetition")),
    Assumption("efficiency", "fraction of the zeros it skips", (0.5, 0.8)),
    Assumption("skip_reads", "zeros skip reads of activations", (False,)),
    Assumption("filters", "filters that share an activation", (1, 4, 64)),
    Assumption("units", "units", (64, 1024)),
    Assumption("accumulate", "partial sums", ("int16", "int32")),
    Assumption("multiply", "multiplier for 1-bit weights", ("int8", "int32", "fp32")),
    Assumption("activation_bits", "activation bits in memory", (8, 16)),
    Assumption("storage", "weights in memory", ("entropy", "words")),
    Assumption("buffer_kib", "on-chip buffer, KiB", (32, 1024)),
    Assumption("dram_pj_per_bit", "DRAM, pJ a bit", (0.0, 2600 / 64)),
    Assumption("static_share", "static energy over an operation's", (0.0, 1.0)),
    Assumption("distribution", "words to the array a cycle", (16, 64, 256)),
    Assumption("reduction", "outputs back a cycle", (16, 256)),
    Assumption("dram_bytes_per_cycle", "DRAM bytes a cycle", (2, 4, 64)),
    Assumption("overlap", "DRAM and array overlap", (False,)),
    Assumption("batch", "images together", (8, 64)),
    Assumption("whole_network", "layers in full precision count too", (True,)),
    # C20 ("up to 69 % sparsity") and C5; 0.5 and what a threshold of 0.05·max|w| a layer keeps for ternary
    Assumption("density: signed_binary", "density of signed binary", (0.31, 0.35)),
    Assumption("density: ternary_twn", "density of ternary", (0.5, 0.82)),
)


class Case(NamedTuple):
    """What comes out with some assumptions changed."""

    changes: tuple[tuple[str, Any], ...]  # label and value of each
    ratios: Ratios


def _base(assumption: Assumption, ours: Codes, over: Codes, accelerator: Accelerator) -> Any:
    """What is assumed before any change, None of a scheme that is not compared."""
    if not assumption.name.startswith("density: "):
        return getattr(accelerator, assumption.name)
    return {codes.scheme: codes.density for codes in (ours, over)}.get(assumption.name.removeprefix("density: "))


def _options(assumption: Assumption, ours: Codes, over: Codes, accelerator: Accelerator) -> list[Any]:
    """The alternatives that differ from the base and that these codes allow."""
    base = _base(assumption, ours, over, accelerator)
    graphs = _has_graphs(ours) and _has_graphs(over)
    return [
        value
        for value in assumption.alternatives
        if base is not None and value != base and (graphs or value != "repetition")
    ]


def cases(ours: Codes, over: Codes, accelerator: Accelerator, departures: int) -> Iterator[Case]:
    """Every way to change exactly so many assumptions, each to one of its alternatives; no two of one assumption."""
    for chosen in combinations(ASSUMPTIONS, departures):
        for values in product(*(_options(assumption, ours, over, accelerator) for assumption in chosen)):
            machine, pair = accelerator, [ours, over]
            for assumption, value in zip(chosen, values, strict=True):
                if assumption.name.startswith("density: "):
                    scheme = assumption.name.removeprefix("density: ")
                    pair = [codes._replace(density=value) if codes.scheme == scheme else codes for codes in pair]
                else:
                    machine = replace(machine, **{assumption.name: value})
            labels = (assumption.label for assumption in chosen)
            yield Case(tuple(zip(labels, values, strict=True)), compare(*pair, machine))


def sensitivity_table(ours: Codes, others: Iterable[Codes], accelerator: Accelerator | None = None) -> DataFrame:
    """One assumption changed at a time: per other scheme and assumption a row for the base and one per alternative.

    Columns: scheme, over (the other), assumption, value (as text), base (whether it is the default), energy and
    throughput (the two schemes' ratios), paper_energy and paper_throughput (of signed binary over binary, else NaN).
    Assumptions that move the energy most come first.
    """
    accelerator = accelerator or Accelerator()
    rows = []
    for over in others:
        at_base = compare(ours, over, accelerator)
        bases = {assumption.label: _base(assumption, ours, over, accelerator) for assumption in ASSUMPTIONS}
        moved: dict[str, list[tuple[Any, bool, Ratios]]] = {}
        for case in cases(ours, over, accelerator, 1):
            [(label, value)] = case.changes
            moved.setdefault(label, [(bases[label], True, at_base)]).append((value, False, case.ratios))
        paper = PAPER if (ours.scheme, over.scheme) == ("signed_binary", "binary") else {}
        for label, tried in sorted(moved.items(), key=lambda item: _span(item[1]), reverse=True):
            rows += [
                {"scheme": ours.scheme, "over": over.scheme, "assumption": label, "value": _shown(value)}
                | {"base": is_base, "energy": ratios.energy, "throughput": ratios.throughput}
                | {f"paper_{name}": paper.get(name, math.nan) for name in ("energy", "throughput")}
                for value, is_base, ratios in sorted(tried, key=lambda row: 0 if isinstance(row[0], str) else row[0])
            ]
    return DataFrame(rows)


def _span(tried: Iterable[tuple[Any, bool, Ratios]]) -> float:
    energies = [ratios.energy for *_, ratios in tried]
    return max(energies) - min(energies)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


NEAR = 0.05
"""How far from the paper's a ratio may be, as a fraction of it, that `needs_table` counts as the paper's."""


def needs_table(ours: Codes, over: Codes, accelerator: Accelerator | None = None) -> DataFrame:
    """Which assumptions give the paper's energy, throughput and latency of signed binary over binary, in words.

    Columns: ratio, paper, base (under the base assumptions), reading. Computed from every single change of an
    assumption and every pair of changes.
    """
    accelerator = accelerator or Accelerator()
    base = compare(ours, over, accelerator)
    mine, theirs = (network_cost(codes, accelerator) for codes in (ours, over))
    single, pairs = (list(cases(ours, over, accelerator, departures)) for departures in (1, 2))
    effectual = ours.density / over.density

    def near(case: Case, name: str) -> bool:
        return abs(getattr(case.ratios, name) / PAPER[name] - 1) <= NEAR

    def listed(found: Iterable[Case], name: str) -> str:
        texts = []
        for case in found:
            changes = " with ".join(f"{label} = {_shown(value)}" for label, value in case.changes)
            texts.append(f"{changes} ({getattr(case.ratios, name):.2f})")
        return "; ".join(texts) or "none"

    def changes(name: str, *also: str) -> str:
        """How many changes of the base give the paper's ratios, and those that come nearest, single ones first."""
        counts, nearest = [], []
        for kind, tried in (("single changes", single), ("pairs", pairs)):
            found = [case for case in tried if all(near(case, wanted) for wanted in (name, *also))]
            counts.append(f"{len(found)} of {len(tried)} {kind}")
            nearest += sorted(found, key=lambda case: abs(getattr(case.ratios, name) - PAPER[name]))
        wanted = " and ".join(str(PAPER[wanted]) for wanted in (name, *also))
        return f"Within {NEAR:.0%} of {wanted}: {' and '.join(counts)}, as {listed(nearest[:3], name)}."

    def falling(ratio: float) -> str:
        """The share of the energy that must fall with the density for such a ratio."""
        return f"{(1 - ratio) / (1 - effectual):.0%}"

    below = [case for case in single if case.ratios.energy < PAPER["energy"] * (1 - NEAR)]
    lost = [case for case in single if case.ratios.energy > (1 + base.energy) / 2]
    slower = [case for case in single if case.ratios.throughput < base.throughput * (1 - NEAR)]
    memory, their_memory = (cost.buffer_pj + cost.dram_pj for cost in (mine, theirs))
    waiting = (PAPER["latency"] - effectual) / (1 - effectual)
    readings = {
        "energy": (
            f"{falling(PAPER['energy'])} of {over.scheme}'s energy would have to fall with the density "
            f"({effectual:.2f}); {falling(base.energy)} does. The memories take {their_memory / theirs.energy_pj:.0%} "
            f"of it, and {memory / their_memory:.2f} times as much with {ours.scheme}. {changes('energy')} "
            f"Single changes that go below: {listed(below, 'energy')}. "
            f"Single changes that leave less than half of the saving: {listed(lost, 'energy')}."
        ),
        "throughput": (
            f"Skipping all zeros with nothing else in the way gives 1 / density: {1 / effectual:.2f} here, and "
            f"{1 / PAPER['density']:.2f} at the paper's {PAPER['density']}. Single changes that cost more than "
            f"{NEAR:.0%} of the base: {listed(slower, 'throughput')}. {changes('throughput', 'energy')}"
        ),
        "latency": (
            f"A machine that works off layer after layer has a latency of 1 / throughput: {PAPER['throughput']} would "
            f"be {1 / PAPER['throughput']:.2f}, {PAPER['latency']} a throughput of {1 / PAPER['latency']:.2f}. Both "
            f"hold at once only if {waiting:.0%} of {over.scheme}'s latency is waiting that other images fill, or if "
            f"they are of two machines; the CPU's speed-up of {PAPER_CPU_SPEEDUP} is {1 / PAPER_CPU_SPEEDUP:.2f}. "
            f"{changes('latency')}"
        ),
    }
    return DataFrame(
        [
            {"ratio": name, "paper": PAPER[name], "base": getattr(base, name), "reading": reading}
            for name, reading in readings.items()
        ]
    )
