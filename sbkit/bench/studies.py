"""The studies of the benchmark: one row each, which says what ways it times and on what. A new study is a new row."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from sbkit.designs import DESIGNS
from sbkit.quantizers import QuantizerConfig
from sbkit.way import AUTO, PEERS, Way


class Study(NamedTuple):
    """What a study times, and on what."""

    subject: str  # what every contender computes, a row of SUBJECTS, or operations
    ways: tuple[Way, ...]  # of our kernels, on random codes of the configuration's density, or of training steps
    at_density: tuple[tuple[Way, float], ...] = ()  # further ways of our kernels, each with the density of its codes
    torch: tuple[Way, ...] = ()
    peers: tuple[str, ...] = ()  # precisions of torch's peers; none: the study is without them
    layers: slice = slice(None)  # which of the network's layers
    best_group: bool = True  # whether a table's operations are counted for every group, minutes for codebooks

    def libraries(self, peers: bool) -> list[Way]:
        """Ways of torch, and of its peers if these are wanted."""
        others = [library for library in PEERS if library != "torch"] if peers else []
        return [*self.torch, *(Way(library, precision=precision) for library in others for precision in self.peers)]

    def kernels(self, algorithms: str) -> list[tuple[Way, float | None]]:
        """Ways of our kernels with these algorithms, each with its density (None: the configuration's)."""
        ways = (*((way, None) for way in self.ways), *self.at_density)
        return [(way, density) for way, density in ways if way.algorithm in algorithms.split()]


TORCH = (Way("torch", variant="contiguous"), Way("torch", variant="channels_last"))
TORCH_BF16 = Way("torch", variant="channels_last", precision="bf16")

# Binary runs in every encoding that an algorithm has, so that it is never held to its worst.
BINARY_TABLES = tuple(Way("table", "binary", encoding) for encoding in ("two_group", "rewritten", "signed"))
BINARY_GRAPHS = tuple(Way("dataflow", "binary", encoding) for encoding in ("two_group", "rewritten"))
TERNARY_TABLES = tuple(Way("table", "ternary_twn", encoding) for encoding in ("two_group", "signed"))
TERNARY_GRAPHS = tuple(Way("dataflow", "ternary_twn", skip_zeros=skip) for skip in (True, False))
SIGNED_BINARY_GRAPHS = tuple(Way("dataflow", "signed_binary", skip_zeros=skip) for skip in (True, False))
FAST_TABLES = (
    Way("table", "signed_binary"),
    Way("table", "binary", "signed"),
    Way("table", "ternary_twn", "signed"),
)

LAYERS = (
    Way("table", "signed_binary"),
    Way("table", "signed_binary", skip_zeros=False),
    Way("table", "signed_binary", regions=4, group=4),
    Way("table", "signed_binary", group=4),  # what the regions compare with
    Way("table", "zero_one"),
    *(*BINARY_TABLES, *TERNARY_TABLES),
    Way("sparse", "signed_binary"),
    Way("sparse", "binary"),
    *SIGNED_BINARY_GRAPHS,
    Way("dataflow", "zero_one"),
    *(*BINARY_GRAPHS, *TERNARY_GRAPHS),
)

OPERATIONS = (
    Way("sparse", "signed_binary"),
    Way("table", "signed_binary"),
    *(*BINARY_TABLES, *TERNARY_TABLES),
    *(*SIGNED_BINARY_GRAPHS, *BINARY_GRAPHS, *TERNARY_GRAPHS),
)

DENSITIES = tuple(round(0.05 + 0.1 * i, 2) for i in range(10))
AT_DENSITIES = tuple(
    (Way(algorithm, scheme, encoding if algorithm == "table" else "two_group"), density)
    for density in DENSITIES
    for scheme, encoding in (("signed_binary", "two_group"), ("ternary_twn", "signed"))
    for algorithm in ("sparse", "table", "dataflow")
)

CODEBOOKS = (
    *BINARY_TABLES,
    Way("table", "signed_binary"),
    *(
        Way(algorithm, "signed_binary", encoding, regions=regions, codebook_bits=bits)
        for bits, regions in ((4, 8), (6, 8), (4, 16), (6, 16), (8, 16))
        for algorithm, encoding in (("table", "two_group"), ("table", "codebook"), ("sparse", "two_group"))
    ),
    *(
        Way("table", "binary", encoding, regions=regions, codebook_bits=bits)
        for bits, regions in ((4, 8), (4, 16), (6, 16))
        for encoding in ("signed", "codebook")
    ),
)
# Any mask may occur in a region: what codebooks compare with, at the density that a threshold of mean|w| gives.
ANY_MASK = (Way("table", "signed_binary", regions=4, group=4), 0.21)

# Ways of integer layers; binary has both encodings that integers have.
SIGNED_BINARY, FINE_SIGNS = Way("table", "signed_binary"), Way("table", "signed_binary", regions=4)
BINARY_IN_INTEGERS = (Way("table", "binary"), Way("table", "binary", "rewritten"))
MASKS = Way("table", "signed_binary", regions=8, codebook_bits=4)


def in_integers(ways: tuple[Way, ...], *bits: int) -> tuple[Way, ...]:
    """These ways by each algorithm that integer activations of so many bits have.

    An entry of a table of `lookup` has 8 bits. With activations of 8 bits only masks of single channels fit: one weight
    a look-up, which is slow and left out.
    """
    return tuple(
        replace(way, algorithm=algorithm, activation_bits=a)
        for a in bits
        for way in ways
        for algorithm in (("table", "lookup") if a < 8 else ("table",))
    )


INTEGERS = in_integers((SIGNED_BINARY, *BINARY_IN_INTEGERS, Way("table", "ternary_twn"), FINE_SIGNS, MASKS), 4, 6, 8)
COSTS = (SIGNED_BINARY, *BINARY_IN_INTEGERS, MASKS)
# Each layer has the faster algorithm.
INTEGER_NETWORKS = tuple(
    replace(way, algorithm=AUTO, activation_bits=bits)
    for bits in (6, 8)
    for way in (SIGNED_BINARY, *BINARY_IN_INTEGERS, FINE_SIGNS, MASKS)
)
TORCH_INT8 = tuple(Way("torch", precision="int8", variant=engine) for engine in ("onednn", "fbgemm"))

CODES = ("binary", "signed_binary", "random_signs", "learned_signs", "masks_16_of_8")
"""Designs whose trained codes are timed, keys of DESIGNS."""

STEPS = (
    "full_precision", "binary", "zero_one", "ternary_twn", "ternary_ttq", "signed_binary", "random_signs",
    "learned_signs", "masks_16_of_8",
)  # fmt: skip
"""Designs whose training steps are timed, keys of DESIGNS."""

STUDIES: dict[str, Study] = {
    # every algorithm on every scheme
    "layers": Study("layer", LAYERS, torch=(*TORCH, TORCH_BF16), peers=("fp32", "int8")),
    # what sparsity, repetition and both are worth, from nearly empty to nearly full codes
    "density": Study(
        "layer", (Way("sparse", "binary"), *BINARY_TABLES, *BINARY_GRAPHS), AT_DENSITIES, TORCH, layers=slice(1, 2)
    ),
    # few patterns a region
    "codebooks": Study("layer", CODEBOOKS, (ANY_MASK,), TORCH, best_group=False),
    # 8-bit integers in and out of a layer, by our kernels with fewer bits as well; floats beside them
    "integers": Study(
        "integers",
        (*FAST_TABLES, *INTEGERS),
        torch=(Way("torch", variant="channels_last"), *TORCH_INT8),
        peers=("fp32", "int8"),
        best_group=False,
    ),
    # how the time of a layer of integers grows with its channels, filters and image, by the shapes "sizes"
    "integer_sizes": Study("integers", in_integers(COSTS, 6), torch=TORCH_INT8, peers=("int8",), best_group=False),
    # how it grows with the bits of activations and the density of codes; batch and threads are the configuration's
    "integer_costs": Study(
        "integers",
        in_integers(COSTS, 2, 4, 6, 8),
        tuple((way, density) for density in (0.05, 0.2, 0.5, 0.8) for way in in_integers((SIGNED_BINARY,), 6)),
        torch=TORCH_INT8,
        peers=("int8",),
        layers=slice(1),
        best_group=False,
    ),
    # the codes that training left in a network's layers, beside random codes
    "integer_codes": Study("codes", in_integers((*COSTS, FINE_SIGNS), 6), best_group=False),
    # a whole network, batch norms folded, through `sbkit.inference`
    "network": Study(
        "network",
        (*FAST_TABLES, Way("table", "signed_binary", "codebook", regions=8, codebook_bits=4)),
        torch=(*TORCH, Way("torch", variant="frozen"), TORCH_BF16),
        peers=("fp32",),
    ),
    # the same with 8-bit integers and fewer between its layers, beside whole networks of 8-bit integers
    "network_integers": Study(
        "network", INTEGER_NETWORKS, torch=(Way("torch", variant="channels_last"), *TORCH_INT8), peers=("int8",)
    ),
    # the networks of a profile: those in integers by our kernels, those in full precision by int8 libraries
    "trained": Study("trained", (), peers=("int8",)),
    # a step of the optimizer under each design
    "training": Study(
        "training",
        tuple(
            Way("training", QuantizerConfig(**DESIGNS[design].options).quantizer, variant=design, precision=precision)
            for precision in ("fp32", "bf16")
            for design in STEPS
        ),
    ),
    # the operations that the plans execute on every layer of a network; nothing is timed
    "operations": Study("operations", OPERATIONS),
}
