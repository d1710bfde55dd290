"""What quantized weights repeat and what they skip: density, unique patterns, entropy and operation counts.

Everything here reads integer codes (K, C, R, S) in {-1, 0, +1} and needs numpy alone. The operation counts are those
that the plans of `sbkit.kernels` execute; a test holds the two equal.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sbkit.conv import ConvShape, QuantizedWeight, mixes_signs

ALGORITHMS = ("dense", "sparse", "table", "dataflow")
ENCODINGS = ("two_group", "rewritten", "signed", "codebook")
SCHEMES = ("binary", "zero_one", "ternary_twn", "ternary_ttq", "signed_binary")


def _check(name: str, value, allowed) -> None:
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}; allowed: {', '.join(map(str, allowed))}")


# ---------------------------------------------------------------------------------------------------------------------
# Sparsity and repetition of the codes
# ---------------------------------------------------------------------------------------------------------------------


def effectual(codes: np.ndarray) -> int:
    """Number of effectual (non-zero) weights."""
    return int(np.count_nonzero(codes))


def density(codes: np.ndarray) -> float:
    """Fraction of effectual weights."""
    return effectual(codes) / codes.size


class UniqueFilters(NamedTuple):
    unique: int  # distinct R x S patterns
    total: int  # K·C patterns in the layer

    @property
    def repetition(self) -> float:
        """How often a pattern occurs on average."""
        return self.total / self.unique


def unique_filters(codes: np.ndarray) -> UniqueFilters:
    """Distinct 2-D filters (R x S patterns) among the K·C of a layer."""
    K, C, R, S = codes.shape
    patterns = np.ascontiguousarray(codes).reshape(K * C, R * S).view(f"V{codes.itemsize * R * S}")
    return UniqueFilters(len(np.unique(patterns)), K * C)


def pattern_bound(scheme: str, taps: int = 9) -> int:
    """Pigeonhole bound: how many patterns of `taps` weights a scheme can tell apart (3x3: 512, 512, 19683, 1023).

    Signed binary has 2^taps patterns of each sign and shares the all-zero one, so 2^(taps+1) - 1; the authors' 1,024
    counts it twice.
    """
    _check("scheme", scheme, SCHEMES)
    return {"binary": 2**taps, "zero_one": 2**taps, "signed_binary": 2 ** (taps + 1) - 1}.get(scheme, 3**taps)


def unique_patterns(codes: np.ndarray, group: int) -> np.ndarray:
    """Distinct patterns of `group` neighbouring channels at one tap, over all K filters and R·S taps.

    Returns int64 (ceil(C / group),): for each channel group, how many of its partial-sum table's entries are ever asked
    for. Codes of both signs count as different patterns.
    """
    K, C, R, S = codes.shape
    if group < 1:
        raise ValueError(f"group = {group}; allowed: an integer >= 1")
    return np.array(
        [
            len(np.unique(codes[:, c : c + group].transpose(0, 2, 3, 1).reshape(K * R * S, -1), axis=0))
            for c in range(0, C, group)
        ]
    )


def entropy_bits(codes: np.ndarray, region_channels: int = 0) -> float:
    """Shannon entropy of a code within its region, bits per weight.

    A region is one filter's block of `region_channels` channels (0: the whole filter): its value set is known in
    advance, so a signed-binary weight of density d costs at most H(d), not the entropy of three values. An empirical
    entropy is biased low in regions of few weights.
    """
    K, C, R, S = codes.shape
    block = region_channels or C
    if block < 1 or C % block:
        raise ValueError(f"region_channels = {region_channels}; allowed: 0 or a divisor of C = {C}")
    regions = codes.reshape(K * (C // block), block * R * S)
    p = np.stack([(regions == value).mean(axis=1) for value in (-1, 0, 1)])
    return float(-(p * np.log2(p, where=p > 0, out=np.zeros_like(p))).sum(axis=0).mean())


def random_codes(
    scheme: str, shape: tuple[int, int, int, int], density: float, generator: np.random.Generator
) -> QuantizedWeight:
    """Independent random codes (K, C, R, S) of a scheme, each non-zero with probability `density`; unit scales.

    Of signed binary's filters the first K // 2 are positive and the others negative; a non-zero binary or ternary code
    has either sign with probability 1/2. Raises ValueError for a density outside [0, 1] or a binary one other than 1.
    """
    _check("scheme", scheme, SCHEMES)
    if not 0 <= density <= 1 or (scheme == "binary" and density != 1):
        raise ValueError(f"density = {density} for {scheme}; allowed: {1 if scheme == 'binary' else 'from 0 to 1'}")
    mask = generator.random(shape) < density
    if scheme == "zero_one":
        sign = np.ones(shape, np.int8)
    elif scheme == "signed_binary":
        sign = np.where(np.arange(shape[0]) < shape[0] // 2, 1, -1).reshape(-1, 1, 1, 1)
    else:
        sign = generator.choice(np.array([-1, 1], np.int8), shape)
    return QuantizedWeight((mask * sign).astype(np.int8), scheme=scheme)


# ---------------------------------------------------------------------------------------------------------------------
# Operation counts
# ---------------------------------------------------------------------------------------------------------------------


class Operations(NamedTuple):
    """Scalar additions and multiplications."""

    adds: int
    multiplies: int

    @property
    def total(self) -> int:
        return self.adds + self.multiplies


class DataflowGraph(NamedTuple):
    """Sums that share parts. Values 0 to inputs-1 are inputs, value inputs + i is node i."""

    nodes: list[tuple[int, int]]  # the two earlier values that a node adds
    sums: list[list[int]]  # for each set, the values whose sum is that of the set

    @property
    def adds(self) -> int:
        """One addition a node and one for each value of each sum, which starts at zero."""
        return len(self.nodes) + sum(map(len, self.sums))


def dataflow_graph(sets: Sequence[Sequence[int]], inputs: int) -> DataflowGraph:
    """Greedy merging of shared pairs; sets hold numbers of inputs, each at most once.

    While some pair of values occurs in two sets or more, the most frequent (ties: the smallest first value, then the
    smallest second) becomes a node and replaces the pair in every set that holds both.

    How many sets hold a pair can only fall once both its values exist. So a pair waits under the count it had when it
    was last looked at, and is counted anew when its turn comes.
    """
    holders = [0] * inputs  # of each value the sets that hold it, set i being bit i
    for i, values in enumerate(sets):
        for value in values:
            holders[value] |= 1 << i
    waiting: list[list[int]] = [[] for _ in range(len(sets) + 1)]  # pairs, as numbers that sort like pairs

    def wait(second: int, held: int) -> None:
        """Line up each earlier value's pair with `second`, which the sets `held` hold."""
        for first, bits in enumerate(holders[:second]):
            if bits := bits & held:
                waiting[bits.bit_count()].append(first << 32 | second)

    for value, held in enumerate(holders):
        wait(value, held)
    nodes = []
    for most in range(len(sets), 1, -1):
        queue = []
        for pair in waiting[most]:
            count = (holders[pair >> 32] & holders[pair & 0xFFFFFFFF]).bit_count()
            (queue if count == most else waiting[count]).append(pair)
        heapq.heapify(queue)
        waiting[most] = queue
        while queue:
            pair = heapq.heappop(queue)
            first, second = pair >> 32, pair & 0xFFFFFFFF
            both = holders[first] & holders[second]
            if (count := both.bit_count()) < most:
                waiting[count].append(pair)
                continue
            holders[first] ^= both
            holders[second] ^= both
            nodes.append((first, second))
            length = len(queue)
            wait(len(holders), both)
            if len(queue) > length:  # some of the new pairs are as frequent as the one merged
                heapq.heapify(queue)
            holders.append(both)

    sums: list[list[int]] = [[] for _ in sets]
    for value, held in enumerate(holders):
        while held:
            last = held.bit_length() - 1
            sums[last].append(value)
            held ^= 1 << last
    return DataflowGraph(nodes, sums)


def _program_adds(patterns: set[tuple[int, ...]]) -> int:
    """Additions that build a table of the sums of `patterns` of codes, all of equally many channels, up to their sign.

    A single channel costs nothing. Any other pattern is one addition: the pattern of its first half of the channels
    (the larger, of an odd number) plus that of its second half, which are entries of smaller tables built likewise.
    """
    channels = len(next(iter(patterns)))
    if channels == 1:
        return 0
    half = (channels + 1) // 2
    made = set()
    for pattern in patterns:
        if any(pattern[:half]) and any(pattern[half:]):
            made.add(max(pattern, tuple(-code for code in pattern)))
    first, second = {pattern[:half] for pattern in patterns}, {pattern[half:] for pattern in patterns}
    return len(made) + _program_adds(first) + _program_adds(second)


@functools.cache
def table_adds(alphabet: tuple[int, ...], channels: int) -> int:
    """`_program_adds` of all patterns of codes from an alphabet; of subsets, (0, 1), 2^g - g - 1 for g channels."""
    return _program_adds(set(itertools.product(alphabet, repeat=channels)))


def table_alphabet(codes: np.ndarray, encoding: str = "two_group") -> tuple[int, ...]:
    """Codes that the patterns of a layer's tables are made of, but for the encoding `codebook`.

    (0, 1), subsets of channels, unless the encoding is `signed` and some filter has both signs: then (-1, 1) for codes
    without zeros and (-1, 0, 1) for others.
    """
    if encoding != "signed" or not mixes_signs(codes):
        return 0, 1
    return (-1, 1) if codes.all() else (-1, 0, 1)


def tables_adds(codes: np.ndarray, encoding: str, group: int) -> int:
    """Additions that build a layer's tables of `group` channels at one input position."""
    C = codes.shape[1]
    sizes = np.diff([*range(0, C, group), C]).tolist()
    if encoding != "codebook":
        return sum(table_adds(table_alphabet(codes, encoding), size) for size in sizes)
    blocks = [codes[:, start : start + group] for start in range(0, C, group)]
    occurring: dict[int, set] = {size: set() for size in sizes}
    for block in blocks:  # the blocks of one size have one program
        rows = np.unique(block.transpose(0, 2, 3, 1).reshape(-1, block.shape[1]), axis=0)
        occurring[block.shape[1]].update(map(tuple, rows.tolist()))
    return sum(_program_adds(occurring[size]) for size in sizes)


def largest_group(codes: np.ndarray, encoding: str = "two_group") -> int:
    """Most channels that share a table: 10 (1,024 subsets, 512 patterns of signs), 6 (364) if codes are ternary; 16 of
    the encoding `codebook`, though no table can have more than 1,024 patterns."""
    if encoding == "codebook":
        return 16
    return 6 if len(table_alphabet(codes, encoding)) == 3 else 10


def operations(
    weight: QuantizedWeight,
    algorithm: str,
    shape: ConvShape | None = None,
    *,
    group: int = 6,
    skip_zeros: bool = True,
    encoding: str = "two_group",
) -> Operations:
    """Additions and multiplications of one convolution, as the plan of `algorithm` executes them.

    With a `shape`, over all P·Q output positions at batch 1. Without, of one output position in a layer that has as
    many input positions as output positions (stride 1, large image), where no image size enters.

    A *row* is a sum over a filter's weights of one magnitude, and one multiplication. Its *parts* are the codes +1,
    which are added, and the codes -1, which are subtracted; what the filter lacks does not count.
      two_group  one row, of both parts. Two if the filter has codes of both signs and scale != negative_scale
      rewritten  for codes without zeros: y = 2·sum(x where +1) - sum(x), a row for +1 and one row for all inputs of
                 the window, summed once and shared by all filters
      signed     of `table` alone: one row, whose codes of both signs are one part
      codebook   the same, with tables of only the patterns that occur in the layer
    Per output position (accumulators start at zero: a sum of n terms costs n additions, as in the dense count):
      dense     K·C·R·S additions and as many multiplications
      sparse    an addition per weight of each row
      table     channels in blocks of `group` (G); for each part, an addition per tap and block in which the part has a
                weight or, with the zeros kept, per tap and block
      dataflow  channels in tiles of `group`; for each tile the additions of the `dataflow_graph` of all parts, those of
                all filters. The kernels' planner makes the same graphs, faster
      all three a multiplication per row of each filter (the shared row being one of each) and an addition less than
                that. With the zeros kept, 0 is one more value with a row of its own (but not of `table`)
    table also builds, at each input position a window touches (padding included) and for each block, the sums of all
    its patterns (`tables_adds`); they serve all filters and taps.

    Raises ValueError for an unknown algorithm or encoding, a group that is out of range (1 to `largest_group` channels
    of a table), a `shape` other than the codes', zeros in codes to be rewritten, or an encoding other than two_group
    where scale != negative_scale.
    """
    _check("algorithm", algorithm, ALGORITHMS)
    _check("encoding", encoding, ENCODINGS)
    codes = weight.codes
    C, R, S = codes.shape[1:]
    if group < 1:
        raise ValueError(f"group = {group}; allowed: an integer >= 1")
    if algorithm == "table" and group > largest_group(codes, encoding):
        raise ValueError(
            f"group = {group} of a table, encoding {encoding!r}; allowed: 1 to {largest_group(codes, encoding)}"
        )
    if shape is not None and codes.shape != (shape.K, shape.C, shape.R, shape.S):
        raise ValueError(
            f"codes have shape {codes.shape}; allowed: that of the layer, {shape.K, shape.C, shape.R, shape.S}"
        )
    rewritten = encoding == "rewritten"
    two_scales = weight.scale != weight.negative_scale
    if rewritten and not codes.all():
        raise ValueError('encoding = "rewritten" of codes with zeros; allowed: two_group')
    if encoding != "two_group" and two_scales.any():
        raise ValueError(f'encoding = "{encoding}" of weights with two scales; allowed: two_group')
    if encoding in ("signed", "codebook") and algorithm != "table":
        raise ValueError(f'encoding = "{encoding}" with algorithm = "{algorithm}"; allowed: table')
    outputs, inputs = 1, 1
    if shape is not None:
        outputs = shape.P * shape.Q
        inputs = ((shape.P - 1) * shape.stride + R) * ((shape.Q - 1) * shape.stride + S)
    if algorithm == "dense":
        return Operations(outputs * codes.size, outputs * codes.size)

    plus, minus = codes > 0, codes < 0
    parts = {"two_group": [plus, minus], "rewritten": [plus]}.get(encoding, [plus | minus])
    present = np.array([part.any(axis=(1, 2, 3)) for part in parts])  # (parts, K)
    rows = np.where(two_scales, present.sum(axis=0), present.any(axis=0))
    if algorithm != "table" and not skip_zeros:
        parts.append(codes == 0)
        rows = rows + parts[-1].any(axis=(1, 2, 3))
    shared = np.ones((int(rewritten), C, R, S), bool)  # the row of everything
    rows = rows + len(shared)
    every_part = np.concatenate([*parts, shared])  # (parts·K, C, R, S), the shared one last

    starts = np.arange(0, C, group)
    built = 0
    if algorithm == "sparse":
        entries = int(every_part.sum())
    elif algorithm == "table":
        used = np.logical_or.reduceat(every_part, starts, axis=1)  # (parts·K, blocks, R, S)
        entries = int(used.sum()) if skip_zeros else int(used.any(axis=(1, 2, 3)).sum()) * used[0].size
        built = inputs * tables_adds(codes, encoding, group)
    else:
        entries = 0
        for start in starts:
            tile = every_part[:, start : start + group].reshape(len(every_part), -1)
            sets = [list(itertools.compress(range(tile.shape[1]), part)) for part in tile.tolist()]
            entries += dataflow_graph(sets, tile.shape[1]).adds
    joined = int(np.maximum(rows - 1, 0).sum())
    return Operations(outputs * (entries + joined) + built, outputs * int(rows.sum()))


def best_group(weight: QuantizedWeight, *, encoding: str = "two_group", **options) -> int:
    """The G, from 1 to `largest_group` channels, with which `table` needs the fewest operations per output position."""
    groups = range(1, largest_group(weight.codes, encoding) + 1)
    return min(groups, key=lambda group: operations(weight, "table", group=group, encoding=encoding, **options).total)


def reduction(weight: QuantizedWeight, algorithm: str, shape: ConvShape | None = None, **options) -> float:
    """Arithmetic reduction: the dense operations over those of `operations(...)`; infinite for all-zero weights."""
    count = operations(weight, algorithm, shape, **options).total
    return operations(weight, "dense", shape).total / count if count else float("inf")
