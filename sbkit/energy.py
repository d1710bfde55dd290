"""An analytic accelerator: energy, latency and throughput of ResNet-18 under assumptions that are all written down.

Torch-free. The paper's authors state an energy and a throughput, and not for which hardware. This model has every term
that a simulation of both must have, each with a source or marked as an assumption, so that one can see which of them
the paper's ratios hang on. It knows nothing of a circuit: ratios between schemes mean more than its absolute numbers.

The machine is an output-stationary array. A tile of outputs, some filters at some output positions, stays in the
partial-sum registers of the units; weights and activations stream past, an activation serving all filters of the tile
and a weight all its positions. Weights, activations and outputs pass through one on-chip buffer, whose halves hold what
is reused and what streams; what does not fit comes from DRAM again. Scales are folded into the batch norms, which are
not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from sbkit.checks import choice, number, whole
from sbkit.conv import NETWORK_SHAPES, ConvShape
from sbkit.schemes import SCHEMES

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

# The layers of ResNet-18 at 224x224 that stay in full precision: stem, three shortcuts, classifier.
FULL_PRECISION_SHAPES = (
    ConvShape(3, 224, 224, 64, 7, 7, 2, 3, name="stem"),
    *(ConvShape(C, H, H, 2 * C, 1, 1, 2, 0, name=f"shortcut {C}→{2 * C}") for C, H in ((64, 56), (128, 28), (256, 14))),
    ConvShape(512, 1, 1, 1000, 1, 1, 1, 0, name="classifier"),
)


@dataclass(frozen=True)
class Accelerator:
    """What is assumed of the machine and of what it is asked to do. Defaults: the paper's setting where it states one.

    Known are 1-bit weights and activations in full precision (released configuration). That only effectual weights are
    worked on is inferred: the throughput is 1 / density. All else is open; `ASSUMPTIONS` lists what is tried instead.
    """

    variant: str = "sparse"  # dense | sparse: only effectual weights | repetition: the additions of data-flow graphs
    units: int = 256  # multiplier-adders, of STONNE's presets 64, 128 and 256
    filters: int = 16  # of a tile, which share an activation; units / filters positions share a weight
    efficiency: float = 1.0  # fraction of the zeros that cost neither a cycle nor an operation
    skip_reads: bool = True  # leave out activations that no filter of the tile has a weight for
    accumulate: str = "fp32"  # number format of additions and partial sums: int8 | int16 | int32 | fp32
    multiply: str = "none"  # format of a multiplier that weights of one bit pass through: none | int8 | int32 | fp32
    activation_bits: int = 32  # in memory
    storage: str = "packed"  # of weights: packed bits | entropy: compressed to it | words: a bitmap, then non-zeros
    buffer_kib: int = 128  # on-chip
    dram_pj_per_bit: float = DRAM_PJ / 32
    static_share: float = STATIC_SHARE  # energy of a unit in any cycle, over the energy of its operation
    distribution: int = 128  # words that the buffer hands to the array in a cycle
    reduction: int = 128  # outputs that the array hands back in a cycle
    dram_bytes_per_cycle: int = 16
    overlap: bool = True  # DRAM and array work at the same time
    batch: int = 1  # images that are worked on together
    whole_network: bool = False  # count the layers in full precision as well, not the quantized 3x3 layers alone

    def __post_init__(self):
        choice("variant", self.variant, VARIANTS)
        choice("accumulate", self.accumulate, ADD_PJ)
        choice("multiply", self.multiply, MULTIPLY_PJ)
        choice("storage", self.storage, STORAGES)
        for field in fields(self):
            if isinstance(field.default, int) and not isinstance(field.default, bool) and field.name != "buffer_kib":
                whole(field.name, getattr(self, field.name), 1)
        if self.units % self.filters:
            raise ValueError(f"filters = {self.filters}; allowed: a divisor of units = {self.units}")
        number("efficiency", self.efficiency, 0, 1)
        for name in ("dram_pj_per_bit", "static_share"):
            number(name, getattr(self, name), 0)
        number("buffer_kib", self.buffer_kib, min(CACHE_PJ), max(CACHE_PJ))


class Codes(NamedTuple):
    """What the model knows of a scheme's codes; the density is the same in every layer.

    `adds` are the additions of a layer's data-flow graphs for one output position, by (C, H, K, stride) of the layer.
    """

    scheme: str
    density: float
    adds: Mapping[tuple[int, int, int, int], float] = {}

    @property
    def has_graphs(self) -> bool:
        """Whether there are graphs of every layer of ResNet-18."""
        return all(place(shape) in self.adds for shape in NETWORK_SHAPES["resnet18"])


def place(shape: ConvShape) -> tuple[int, int, int, int]:
    """What tells the layers of a network apart: channels, input height, filters, stride."""
    return shape.C, shape.H, shape.K, shape.stride


class Cost(NamedTuple):
    """What one layer, or several together, cost for the whole batch."""

    cycles: float  # until the last output is written
    arithmetic_pj: float
    buffer_pj: float  # on-chip memory
    dram_pj: float
    static_pj: float

    @property
    def energy_pj(self) -> float:
        return self.arithmetic_pj + self.buffer_pj + self.dram_pj + self.static_pj


def buffer_pj_per_bit(kib: float) -> float:
    """Energy of a bit read from an on-chip memory of 8 KiB to 1 MiB, between Horowitz's sizes as a power of the size.

    Raises ValueError for another size.
    """
    number("memory, KiB", kib, min(CACHE_PJ), max(CACHE_PJ))
    sizes, energies = np.log(list(CACHE_PJ)), np.log(list(CACHE_PJ.values()))
    return float(np.exp(np.interp(math.log(kib), sizes, energies))) / 64


def weight_bits(codes: Codes, accelerator: Accelerator) -> float:
    """Bits that a weight takes in memory; the signs of signed binary's filters are counted with the layer.

    packed   the scheme's `stored_bits`
    entropy  of a code at this density: the best that lossless compression of independent codes can do
    words    a bitmap, and a word as wide as an activation for each effectual weight; no bitmap if there are no zeros
    """
    scheme, d = SCHEMES[codes.scheme], codes.density
    if accelerator.storage == "packed" or not scheme.has_codes:
        return scheme.stored_bits
    if accelerator.storage == "words":
        return d * accelerator.activation_bits + (d < 1)
    zeros = -sum(p * math.log2(p) for p in (d, 1 - d) if p > 0)
    return zeros + (d if scheme.signs == "weight" else 0)


class _Work(NamedTuple):
    """What the array does for one layer, before any memory limits it."""

    operations: float
    operation_pj: float
    cycles: float
    words: float  # activations that are read on chip
    weight_bits: float  # what streams past the units once for each tile of positions
    scratch_pj: float = 0.0  # memory beside the units


def _work(shape: ConvShape, codes: Codes, accelerator: Accelerator) -> _Work:
    taps, positions = shape.C * shape.R * shape.S, shape.N * shape.P * shape.Q
    filters, scheme = accelerator.filters, SCHEMES[codes.scheme]
    filter_tiles, position_tiles = _tiles(shape, accelerator)
    addition_pj = ACCUMULATIONS * ADD_PJ[accelerator.accumulate]
    if accelerator.variant == "repetition" and scheme.has_codes:
        choice(f"graph of {codes.scheme} for (C, H, K, stride)", place(shape), codes.adds)
        adds = codes.adds[place(shape)]
        operations, words = positions * adds, positions * taps
        scratch_pj = (operations + words) * accelerator.activation_bits * buffer_pj_per_bit(SCRATCH_KIB)
        return _Work(operations, addition_pj, position_tiles * adds / filters, words, adds * INDEX_BITS, scratch_pj)
    zeros = 1 - codes.density if accelerator.variant != "dense" else 0.0
    executed = 1 - accelerator.efficiency * zeros
    signs = shape.K if scheme.signs == "filter" else 0
    return _Work(
        operations=positions * shape.K * taps * executed,
        operation_pj=addition_pj + MULTIPLY_PJ[accelerator.multiply]
        if scheme.has_codes
        else ACCUMULATIONS * ADD_PJ["fp32"] + MULTIPLY_PJ["fp32"],
        cycles=filter_tiles * position_tiles * taps * executed,
        words=filter_tiles * positions * taps * (1 - zeros**filters if accelerator.skip_reads else 1),
        weight_bits=shape.weights * weight_bits(codes, accelerator) + signs,
    )


def _tiles(shape: ConvShape, accelerator: Accelerator) -> tuple[int, int]:
    """Tiles of filters and of positions."""
    positions_a_tile = accelerator.units // accelerator.filters
    return math.ceil(shape.K / accelerator.filters), math.ceil(shape.N * shape.P * shape.Q / positions_a_tile)


def layer_cost(shape: ConvShape, codes: Codes, accelerator: Accelerator) -> Cost:
    """Cycles and energy of one layer, whose batch is the shape's N.

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
    work, bits = _work(shape, codes, accelerator), accelerator.activation_bits
    weights, outputs = work.weight_bits, shape.N * shape.P * shape.Q * shape.K
    inputs, outputs_bits = shape.N * shape.C * shape.H * shape.W * bits, outputs * bits
    half = accelerator.buffer_kib * 1024 * 8 / 2
    dram = outputs_bits + min(weights + inputs * math.ceil(weights / half), inputs + weights * math.ceil(inputs / half))
    to_array = work.words * bits + weights * _tiles(shape, accelerator)[1]
    array = work.cycles, to_array / bits / accelerator.distribution, outputs / accelerator.reduction
    dram_cycles = dram / 8 / accelerator.dram_bytes_per_cycle
    cycles = max(*array, dram_cycles) if accelerator.overlap else max(array) + dram_cycles
    addition_pj = ACCUMULATIONS * ADD_PJ[accelerator.accumulate]
    return Cost(
        cycles,
        arithmetic_pj=work.operations * work.operation_pj,
        buffer_pj=(to_array + outputs_bits + dram) * buffer_pj_per_bit(accelerator.buffer_kib) + work.scratch_pj,
        dram_pj=dram * accelerator.dram_pj_per_bit,
        static_pj=cycles * accelerator.units * accelerator.static_share * addition_pj,
    )


def network_cost(codes: Codes, accelerator: Accelerator) -> Cost:
    """All layers of ResNet-18 one after another; those in full precision too where the accelerator says so."""
    layers = [(codes, shape) for shape in NETWORK_SHAPES["resnet18"]]
    if accelerator.whole_network:
        layers += [(Codes("full_precision", 1.0), shape) for shape in FULL_PRECISION_SHAPES]
    costs = [layer_cost(shape.with_batch(accelerator.batch), own, accelerator) for own, shape in layers]
    return Cost(*map(sum, zip(*costs, strict=True)))


class Ratios(NamedTuple):
    """One scheme over another. The machine works off layer after layer, so latency is the inverse of throughput."""

    energy: float
    throughput: float

    @property
    def latency(self) -> float:
        return 1 / self.throughput


def compare(ours: Codes, over: Codes, accelerator: Accelerator) -> Ratios:
    """Energy and throughput of ResNet-18 by one scheme over ResNet-18 by another, at the accelerator's batch."""
    mine, theirs = (network_cost(codes, accelerator) for codes in (ours, over))
    return Ratios(mine.energy_pj / theirs.energy_pj, theirs.cycles / mine.cycles)


# What is open


class Assumption(NamedTuple):
    """Something unknown of the paper's hardware: what it is called, and what is tried in place of the default."""

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


def value_of(assumption: Assumption, ours: Codes, over: Codes, accelerator: Accelerator) -> Any:
    """What is assumed before any change; None for the density of a scheme that is not compared."""
    field, _, scheme = assumption.name.partition(": ")
    if not scheme:
        return getattr(accelerator, field)
    return {codes.scheme: codes.density for codes in (ours, over)}.get(scheme)


def single_changes(ours: Codes, over: Codes, accelerator: Accelerator) -> Iterator[tuple[Assumption, Any, Ratios]]:
    """Each assumption with each of its alternatives, and the ratios with that one changed.

    An alternative that equals the base is left out, as is one that these codes do not allow.
    """
    graphs = ours.has_graphs and over.has_graphs
    for assumption in ASSUMPTIONS:
        base = value_of(assumption, ours, over, accelerator)
        field, _, scheme = assumption.name.partition(": ")
        for value in assumption.alternatives:
            if base is None or value == base or (value == "repetition" and not graphs):
                continue
            machine = accelerator if scheme else replace(accelerator, **{field: value})
            pair = (codes._replace(density=value) if codes.scheme == scheme else codes for codes in (ours, over))
            yield assumption, value, compare(*pair, machine)
