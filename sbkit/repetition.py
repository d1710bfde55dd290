"""What quantized weights repeat and what they skip: unique patterns, entropy and operation counts.

Everything here reads integer codes (K, C, R, S) in {-1, 0, +1} and needs numpy alone. The operation counts are those
that the plans of `sbkit.kernels` execute; a test holds the two equal.

How operations are counted. A *row* is a sum over a filter's weights of one magnitude, and costs one multiplication. Its
*parts* are the codes +1, which are added, and the codes -1, which are subtracted. A part that the filter lacks does not
count. The encoding says what the rows are:

    two_group  one row of both parts, or two rows if the filter has codes of both signs and scale != negative_scale
    rewritten  y = 2·sum(x where +1) - sum(x): a row of the codes +1, and one row of all inputs of the window, which is
               summed once and shared by all filters
    signed     one row, whose codes of both signs are one part
    codebook   as signed, with tables that hold only the patterns that occur in the layer

Per output position (accumulators start at zero, so a sum of n terms costs n additions, as in the dense count):

    dense      K·C·R·S additions and as many multiplications
    sparse     an addition for each weight of each row
    table      channels form blocks of `group` (G). For each part, an addition for each tap and block in which the part
               has a weight, or, with the zeros kept, for each tap and block
    dataflow   channels form tiles of `group`. For each tile, the additions of the `dataflow_graph` of the parts of all
               filters. The kernels' planner makes the same graphs, faster

The last three multiply once for each row of each filter, the shared row being one of each, and join a filter's rows
with one addition less than that. With the zeros kept, 0 is one more value with a row of its own, except in `table`.
`table` also builds, at each input position that a window touches (padding included) and for each block, the sums of all
its patterns (`tables_adds`), which serve all filters and taps.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sbkit.checks import choice, whole
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.encodings import check_encoding, largest_group, table_alphabet
from sbkit.schemes import CODED, SCHEMES


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

    Where filters have signs, the first K // 2 are positive and the others negative. Where weights have, each sign has
    probability 1/2. Raises ValueError for a scheme without codes, a density outside [0, 1], or one other than 1 where
    the scheme has no zeros.
    """
    choice("scheme", scheme, CODED)
    zeros, signs = SCHEMES[scheme].zeros, SCHEMES[scheme].signs
    if not 0 <= density <= 1 or (density != 1 and not zeros):
        raise ValueError(f"density = {density} for {scheme}; allowed: {'from 0 to 1' if zeros else 1}")
    mask = generator.random(shape) < density
    if signs == "plus":
        sign = np.ones(shape, np.int8)
    elif signs == "filter":
        sign = np.where(np.arange(shape[0]) < shape[0] // 2, 1, -1).reshape(-1, 1, 1, 1)
    else:
        sign = generator.choice(np.array([-1, 1], np.int8), shape)
    return QuantizedWeight((mask * sign).astype(np.int8), scheme=scheme)


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
    sums: list[list[int]]  # for each set, the values that add up to the sum of the set

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
    """Additions that build a table of the sums of `patterns`, all of equally many channels, up to their sign."""
    # A single channel costs nothing. Any other pattern is one addition: its first half of the channels (the larger one)
    # plus its second half, both entries of smaller tables that are built likewise.
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


def operations(
    weight: QuantizedWeight,
    algorithm: str,
    shape: ConvShape | None = None,
    *,
    group: int = 6,
    skip_zeros: bool = True,
    encoding: str = "two_group",
) -> Operations:
    """Additions and multiplications of one convolution, as the plan of `algorithm` executes them (see the module).

    With a `shape` they are counted over all P·Q output positions at batch 1; without one, for one output position in a
    layer that has as many input positions as output positions (stride 1, large image).

    Raises ValueError for an unknown algorithm or encoding, an encoding that the algorithm or the weight does not allow
    (`check_encoding`), a group that is out of range (1 to `largest_group` channels of a table), or a `shape` other than
    that of the codes.
    """
    check_encoding(algorithm, encoding, weight)
    codes = weight.codes
    whole(f"group of {algorithm}", group, 1, largest_group(codes, encoding) if algorithm == "table" else None)
    outputs, inputs = _positions(codes, shape)
    if algorithm == "dense":
        return Operations(outputs * codes.size, outputs * codes.size)
    parts, rows = _parts_and_rows(weight, encoding, zeros_have_rows=algorithm != "table" and not skip_zeros)
    if algorithm == "sparse":
        entries, built = int(parts.sum()), 0
    elif algorithm == "table":
        entries, built = _table_entries(parts, group, skip_zeros), tables_adds(codes, encoding, group)
    else:
        entries, built = _dataflow_adds(parts, group), 0
    joined = int(np.maximum(rows - 1, 0).sum())
    return Operations(outputs * (entries + joined) + inputs * built, outputs * int(rows.sum()))


def _positions(codes: np.ndarray, shape: ConvShape | None) -> tuple[int, int]:
    """Output positions, and input positions that a window touches."""
    if shape is None:
        return 1, 1
    if codes.shape != (shape.K, shape.C, shape.R, shape.S):
        raise ValueError(
            f"codes have shape {codes.shape}; allowed: that of the layer, {shape.K, shape.C, shape.R, shape.S}"
        )
    touched = ((shape.P - 1) * shape.stride + shape.R) * ((shape.Q - 1) * shape.stride + shape.S)
    return shape.P * shape.Q, touched


def _parts_and_rows(weight: QuantizedWeight, encoding: str, zeros_have_rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """The parts of all filters as masks, bool (n, C, R, S), and how many rows each filter joins, int (K,)."""
    codes = weight.codes
    plus, minus = codes > 0, codes < 0
    parts = {"two_group": [plus, minus], "rewritten": [plus]}.get(encoding, [plus | minus])
    present = np.array([part.any(axis=(1, 2, 3)) for part in parts])  # (parts, K)
    rows = np.where(weight.scale != weight.negative_scale, present.sum(axis=0), present.any(axis=0))
    if zeros_have_rows:
        parts.append(codes == 0)
        rows = rows + parts[-1].any(axis=(1, 2, 3))
    if encoding == "rewritten":
        parts.append(np.ones((1, *codes.shape[1:]), bool))  # the row of everything
        rows = rows + 1
    return np.concatenate(parts), rows


def _table_entries(parts: np.ndarray, group: int, skip_zeros: bool) -> int:
    blocks = np.logical_or.reduceat(parts, np.arange(0, parts.shape[1], group), axis=1)  # (n, blocks, R, S)
    return int(blocks.sum()) if skip_zeros else int(blocks.any(axis=(1, 2, 3)).sum()) * blocks[0].size


def _dataflow_adds(parts: np.ndarray, group: int) -> int:
    adds = 0
    for start in range(0, parts.shape[1], group):
        tile = parts[:, start : start + group].reshape(len(parts), -1)
        sets = [list(itertools.compress(range(tile.shape[1]), part)) for part in tile.tolist()]
        adds += dataflow_graph(sets, tile.shape[1]).adds
    return adds


def best_group(weight: QuantizedWeight, *, encoding: str = "two_group", **options) -> int:
    """The G, from 1 to `largest_group` channels, with which `table` needs the fewest operations per output position."""
    groups = range(1, largest_group(weight.codes, encoding) + 1)
    return min(groups, key=lambda group: operations(weight, "table", group=group, encoding=encoding, **options).total)
