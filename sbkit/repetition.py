"""What quantized weights repeat and what they skip: density, unique patterns, entropy and operation counts.

Everything here reads integer codes (K, C, R, S) in {-1, 0, +1} and needs numpy alone. The operation counts are those
that the plans of `sbkit.kernels` execute; a test holds the two equal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sbkit.conv import ConvShape, QuantizedWeight

ALGORITHMS = ("dense", "sparse", "table")
ENCODINGS = ("two_group", "rewritten")
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
    return UniqueFilters(len(np.unique(codes.reshape(K * C, R * S), axis=0)), K * C)


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

    A *row* of a filter is one sum over its weights of one value; a value that the filter lacks has no row.
      two_group  rows for +1 and -1
      rewritten  for codes without zeros: y = 2·sum(x where +1) - sum(x), a row for +1 and one row for all inputs of
                 the window, summed once and shared by all filters
    Per output position (accumulators start at zero: a sum of n terms costs n additions, as in the dense count):
      dense   K·C·R·S additions and as many multiplications
      sparse  an addition per weight of each row. With the zeros kept, 0 is one more value with a row of its own
      table   channels in blocks of `group` (G); for each row, an addition per tap and block in which the row has a
              weight or, with the zeros kept, per tap and block
      both    a multiplication per row of each filter (the shared row being one of each) and an addition less than that
    table also builds, at each input position a window touches (padding included) and for each block of g channels, the
    2^g partial sums with 2^g - g - 1 additions; they serve all filters and taps.

    Raises ValueError for an unknown algorithm or encoding, group < 1, a `shape` other than the codes', or zeros in
    codes to be rewritten.
    """
    _check("algorithm", algorithm, ALGORITHMS)
    _check("encoding", encoding, ENCODINGS)
    if group < 1:
        raise ValueError(f"group = {group}; allowed: an integer >= 1")
    codes = weight.codes
    K, C, R, S = codes.shape
    if shape is not None and codes.shape != (shape.K, shape.C, shape.R, shape.S):
        raise ValueError(
            f"codes have shape {codes.shape}; allowed: that of the layer, {shape.K, shape.C, shape.R, shape.S}"
        )
    rewritten = encoding == "rewritten"
    if rewritten and not codes.all():
        raise ValueError('encoding = "rewritten" of codes with zeros; allowed: two_group')
    outputs, inputs = 1, 1
    if shape is not None:
        outputs = shape.P * shape.Q
        inputs = ((shape.P - 1) * shape.stride + R) * ((shape.Q - 1) * shape.stride + S)
    if algorithm == "dense":
        return Operations(outputs * codes.size, outputs * codes.size)

    block = group if algorithm == "table" else 1
    starts = np.arange(0, C, block)
    values = [1] if rewritten else [1, -1]
    if algorithm == "sparse" and not skip_zeros:
        values.append(0)
    entries, rows = 0, np.zeros(K, int)
    for value in values:
        used = np.logical_or.reduceat(codes == value, starts, axis=1)  # (K, blocks, R, S)
        present = used.any(axis=(1, 2, 3))
        rows += present
        entries += int(used.sum()) if algorithm == "sparse" or skip_zeros else int(present.sum()) * used[0].size
    if rewritten:
        entries += used[0].size
        rows += 1
    built = 0
    if algorithm == "table":
        built = inputs * sum(2**g - g - 1 for g in np.diff([*starts, C]).tolist())
    joined = int(np.maximum(rows - 1, 0).sum())
    return Operations(outputs * (entries + joined) + built, outputs * int(rows.sum()))


def best_group(weight: QuantizedWeight, **options) -> int:
    """The G from 1 to 10 channels with which `table` needs the fewest operations per output position."""
    return min(range(1, 11), key=lambda group: operations(weight, "table", group=group, **options).total)


def reduction(weight: QuantizedWeight, algorithm: str, shape: ConvShape | None = None, **options) -> float:
    """Arithmetic reduction: the dense operations over those of `operations(...)`; infinite for all-zero weights."""
    count = operations(weight, algorithm, shape, **options).total
    return operations(weight, "dense", shape).total / count if count else float("inf")
