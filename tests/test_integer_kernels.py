"""Every integer kernel against an independent convolution with `==`, at the bounds of its sums and beyond them."""

import re

import layers
import numpy as np
import pytest

from sbkit import integers, kernels
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.integers import Rounding

ISAS = kernels.isas(activation_bits=8)
isas = pytest.mark.parametrize("isa", ISAS)
WAYS = [("dense", 0), ("lookup", 0), ("table", 0), ("table", 8), ("table", 16)]  # and the bits of a lane
ways = pytest.mark.parametrize("algorithm,lane_bits", WAYS, ids=lambda value: str(value))
SCHEMES = ("binary", "ternary", "zero_one", "signed_binary", "random_signs", "masks", "channel_signs", "empty")
SHAPES = [
    *layers.SHAPES,
    ConvShape(9, 7, 7, 33, name="7x7"),
    ConvShape(17, 8, 16, 5, name="16 wide"),
    ConvShape(33, 5, 6, 7, 1, 1, padding=0, name="1x1"),
    ConvShape(2, 40, 40, 2, 37, 37, padding=0, name="a window too large for tables"),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


def weight_of(scheme: str, shape: ConvShape, seed: int = 0) -> QuantizedWeight:
    rng = np.random.default_rng(seed)
    size = (shape.K, shape.C, shape.R, shape.S)
    codes = (rng.random(size) < 0.35).astype(np.int8)
    regions = (shape.K, -(-shape.C // 4), shape.R, shape.S)
    if scheme in ("binary", "ternary"):
        codes = rng.integers(0, 2, size) * 2 - 1 if scheme == "binary" else rng.integers(-1, 2, size)
    elif scheme == "signed_binary":
        codes[shape.K // 2 :] *= -1
    elif scheme == "random_signs":  # one a filter, tap and four channels
        codes *= (rng.integers(0, 2, regions) * 2 - 1).repeat(4, axis=1)[:, : shape.C].astype(np.int8)
    elif scheme == "masks":  # 16 masks of 8 channels
        codes = layers.masked(rng.random((16, 8)) < 0.25, shape, rng)
    elif scheme == "empty":
        codes *= 0
    sign = rng.choice([-1, 1], shape.C) if scheme == "channel_signs" else None
    return QuantizedWeight(codes.astype(np.int8), channel_sign=sign, scheme=scheme)


def activations(shape: ConvShape, bits: int, seed: int = 1) -> np.ndarray:
    x = np.random.default_rng(seed).integers(0, 2**bits, (shape.N, shape.C, shape.H, shape.W)).astype(np.uint8)
    x.flat[0] = 2**bits - 1
    return x


def convolve(weight: QuantizedWeight, x: np.ndarray, shape: ConvShape) -> np.ndarray:
    return layers.convolve(weight.codes * weight.channel_sign[None, :, None, None], x, shape)


def assert_exact(weight, shape, bits, x=None, residual=None, **options) -> kernels.Prepared:
    algorithm = options.pop("algorithm", "table")
    prepared = kernels.prepare(algorithm, weight, shape, activation_bits=bits, **options)
    x = activations(shape, bits) if x is None else x
    y = kernels.conv2d(prepared, x, residual)
    expected = convolve(weight, x, shape).astype(np.int32)
    if prepared.rounding:
        expected = prepared.rounding.apply(expected, residual)
    assert y.dtype == (np.uint8 if prepared.rounding else np.int32) and y.shape == expected.shape
    assert (y == expected).all(), prepared
    return prepared


@isas
@ways
@shapes
def test_equals_an_independent_convolution(algorithm, lane_bits, isa, shape):
    for i, scheme in enumerate(SCHEMES):
        weight = weight_of(scheme, shape, i)
        for bits in {2, 6, 8} if scheme in ("signed_binary", "masks") else {2 + i % 7}:
            assert_exact(weight, shape, bits, algorithm=algorithm, lane_bits=lane_bits, isa=isa)
    for encoding in integers.ENCODINGS_OF[algorithm]:
        options = {"algorithm": algorithm, "lane_bits": lane_bits, "isa": isa, "encoding": encoding}
        assert_exact(weight_of("binary", shape), shape, 5, **options)


@isas
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("lane_bits", (8, 16))
def test_every_group_and_width(bits, lane_bits, isa):
    shape = ConvShape(20, 10, 15, 6)
    for group in (1, 2, 3, 4, 5, 6, 7, 8, 11, 16):
        scheme = "masks" if group >= 7 else "random_signs"
        prepared = assert_exact(weight_of(scheme, shape), shape, bits, group=group, lane_bits=lane_bits, isa=isa)
        assert prepared.group == group and prepared.geometry.startswith(f"{lane_bits}-bit lanes")


@isas
@ways
@pytest.mark.parametrize("bits", (2, 5, 6, 7, 8))
def test_all_activations_at_their_most(algorithm, lane_bits, isa, bits):
    shape = ConvShape(40, 9, 7, 8)
    x = np.full((1, 40, 9, 7), 2**bits - 1, np.uint8)
    codes = np.ones((8, 40, 3, 3), np.int8)
    codes[1], codes[2, 20:], codes[3], codes[4, ::2] = -1, -1, 0, 0
    for encoding in integers.ENCODINGS_OF[algorithm]:
        weight = QuantizedWeight(codes if encoding == "two_group" else np.where(codes, codes, -1))
        assert_exact(
            weight, shape, bits, x, algorithm=algorithm, lane_bits=lane_bits, isa=isa, encoding=encoding, threads=2
        )


@isas
@pytest.mark.parametrize("lane_bits", (8, 16))
@pytest.mark.parametrize("signs", ("plus", "minus", "both"))
@pytest.mark.parametrize("beyond", (0, 1))
def test_sixteen_bits_at_their_bound_and_one_above(beyond, signs, lane_bits, isa):
    """Sums of 65,535 = 257 * 255 need no flush; one more non-zero code does, and both are exact."""
    shape = ConvShape(512, 4, 8, 3, 1, 1, padding=0)
    codes = np.zeros((3, 512, 1, 1), np.int8)
    codes[1, : 257 + beyond] = {"plus": 1, "minus": -1, "both": 1}[signs]
    codes[1, ::2] *= -1 if signs == "both" else 1
    codes[2, 0] = 1
    x = np.full((1, 512, 4, 8), 255, np.uint8)
    assert_exact(QuantizedWeight(codes), shape, 8, x, lane_bits=lane_bits, isa=isa)


@isas
@pytest.mark.parametrize("bits,capacity", [(2, 85), (4, 17), (5, 8), (6, 4), (7, 2), (8, 1)])
def test_bytes_at_their_bound_and_one_above(bits, capacity, isa):
    """A mask of as many channels as a chain of bytes holds, and of one more, which is split."""
    for group in {min(capacity, 16), min(capacity + 1, 16)}:
        shape = ConvShape(16, 5, 9, 4)
        x = np.full((1, 16, 5, 9), 2**bits - 1, np.uint8)
        codes = np.zeros((4, 16, 3, 3), np.int8)
        codes[0], codes[1], codes[2, :group], codes[3, group - 1 :] = 1, -1, 1, -1
        assert_exact(QuantizedWeight(codes), shape, bits, x, lane_bits=8, group=group, isa=isa)


@isas
@pytest.mark.parametrize("bits", (6, 8))
def test_many_channels_flush(bits, isa):
    shape = ConvShape(512, 7, 7, 6)
    x = np.full((1, 512, 7, 7), 2**bits - 1, np.uint8)
    for scheme in ("binary", "zero_one", "random_signs"):
        assert_exact(weight_of(scheme, shape), shape, bits, isa=isa)
    for sign in (1, -1):
        assert_exact(QuantizedWeight(np.full((6, 512, 3, 3), sign, np.int8)), shape, bits, x, isa=isa, group=4)


@isas
@pytest.mark.parametrize("bits,group", [(2, 4), (6, 4), (7, 2), (8, 1), (6, 8), (7, 16)])
def test_lookup_of_every_group(bits, group, isa):
    """Masks of 8 and 16 channels with at most two of them, so that a sum fits a byte."""
    shape = ConvShape(48, 9, 18, 40)
    rng = np.random.default_rng(5)
    masks = np.zeros((16, group), np.int8)
    for mask in masks[1:]:
        mask[rng.integers(0, group, 2)] = 1
    codes = layers.masked(masks, shape, rng, signs=(-1, 1))
    for signed in (codes, np.abs(codes)):
        prepared = assert_exact(QuantizedWeight(signed), shape, bits, algorithm="lookup", group=group, isa=isa)
        assert prepared.group == group


def chains_of(filters, bits: int, group: int) -> str:
    """Of `lookup` with AVX2, by a 1x1 window over activations at their most; each filter holds masks' codes."""
    if "avx2" not in ISAS:
        pytest.skip("this CPU has no AVX2")
    codes = np.array(filters, np.int8)[:, :, None, None]
    shape = ConvShape(codes.shape[1], 3, 5, len(filters), 1, 1, padding=0)
    x = np.full((1, shape.C, 3, 5), 2**bits - 1, np.uint8)
    prepared = assert_exact(QuantizedWeight(codes), shape, bits, x, algorithm="lookup", group=group, isa="avx2")
    return prepared.geometry.partition("chains of ")[2]


@pytest.mark.parametrize(
    "bits,group,filter,chains",
    [
        (4, 3, [1] * 17 + [0], "6 in parts: 1"),  # 17 * 15 = 255
        (4, 3, [1] * 18, "3 in parts: 1"),
        (6, 1, [1, 1, 1, 1], "4 in parts: 1"),  # 4 * 63 = 252
        (6, 1, [1, 1, 1, 1, 1], "3 in parts: 1"),
        (7, 1, [-1, 1], "2 in parts: 1"),  # 127 for each
        (7, 2, [-1, -1, 1, 0], "1 in parts: 1"),  # 255 for what is subtracted, of masks that reach 254
        (4, 4, [-1, 0, 0, 0] * 3 + [1, 1, 1, 1], "4 in parts: 1"),  # 3 * 63 + 60 = 249
        (4, 4, [-1, 0, 0, 0] * 3 + [1, 1, 1, 1, 1, 0, 0, 0], "3 in parts: 1"),  # 249 + 15
        (8, 1, [1] * 257, "1 in parts: 1"),  # 257 * 255 = 65535
        (8, 1, [1] * 258, "1 in parts: 2"),
        (8, 1, [1, -1] * 128 + [1], "1 in parts: 1"),
        (8, 1, [-1, 1] * 129, "1 in parts: 2"),
    ],
)
@pytest.mark.parametrize("filters", (1, 16, 17))
def test_chains_at_their_bounds_and_one_above(bits, group, filter, chains, filters):
    """Blocks of 16 filters and fewer look two groups up at once, which the halves of a register add on their own."""
    if filters <= 16:
        filter = [code for i in range(0, len(filter), group) for code in [*filter[i : i + group], *[0] * group]]
    assert chains_of([filter] * filters, bits, group) == chains


@pytest.mark.parametrize("signs", ((1,), (1, -1)))
@pytest.mark.parametrize("filters", (16, 40))
def test_chains_of_every_length(filters, signs):
    found = set()
    for bits, length in ((7, 1), (7, 2), (6, 3), (6, 4), (5, 6), (5, 8)):
        codes = np.resize(signs, length * 2 if filters == 16 else length)
        found.add(chains_of([codes] * filters, bits, 1).split()[0])
    assert found == {"1", "2", "3", "4", "6", "8"}


@isas
@ways
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4], SHAPES[6], SHAPES[12]], ids=lambda shape: shape.name)
def test_rounds_like_the_formula(algorithm, lane_bits, isa, shape):
    rng = np.random.default_rng(3)
    for threads, bits in ((1, 4), (2, 8)):
        scale = rng.normal(0, 0.1, shape.K)
        scale[0] = 0.5  # halves are rounded to even
        rounding = Rounding(scale, np.where(np.arange(shape.K) == 0, 0, rng.normal(3, 5, shape.K)), 0.75, bits)
        residual = rng.integers(0, 256, (shape.N, shape.K, shape.P, shape.Q)).astype(np.uint8)
        for added in (None, residual):
            weight = weight_of("signed_binary", shape)
            options = {"algorithm": algorithm, "lane_bits": lane_bits, "isa": isa, "threads": threads}
            assert_exact(weight, shape, 6, residual=added, rounding=rounding, **options)
            for encoding in integers.ENCODINGS_OF[algorithm]:
                more = options | {"encoding": encoding, "rounding": rounding, "residual": added}
                assert_exact(weight_of("binary", shape), shape, 6, **more)


@isas
def test_threads_share_filters_and_tiles(isa):
    for shape in (ConvShape(16, 7, 7, 19), ConvShape(8, 30, 30, 5)):
        for threads in (2, 3, 7):
            assert_exact(weight_of("random_signs", shape), shape, 6, threads=threads, isa=isa)


@isas
def test_a_layer_runs_again_on_other_activations(isa):
    shape = ConvShape(7, 12, 12, 5, stride=2)
    weight = weight_of("ternary", shape)
    prepared = kernels.prepare("table", weight, shape, activation_bits=6, isa=isa)
    for seed in range(3):
        x = activations(shape, 6, seed)
        assert (kernels.conv2d(prepared, x) == convolve(weight, x, shape)).all()


COUNTED = [("signed_binary", algorithm, "two_group") for algorithm in integers.ENCODINGS_OF]
COUNTED += [("binary", algorithm, encoding) for algorithm, found in integers.ENCODINGS_OF.items() for encoding in found]


@pytest.mark.parametrize("scheme,algorithm,encoding", COUNTED)
def test_operations_are_an_independent_count(scheme, algorithm, encoding):
    """With so many filters, each of the 16 masks of 4 channels occurs, and 11 of them are sums of two others."""
    shape = ConvShape(8, 6, 5, 60)
    weight = weight_of(scheme, shape)
    options = {} if algorithm == "dense" else {"group": 4, "encoding": encoding}
    prepared = kernels.prepare(algorithm, weight, shape, activation_bits=4, **options)
    positions, padded = 6 * 5, 8 * 7
    if algorithm == "dense":
        assert prepared.operations == (positions * weight.codes.size, positions * weight.codes.size)
        return
    groups = weight.codes.reshape(60, 2, 4, 9)
    entries = sum((groups == sign).any(axis=2).sum() for sign in ((1,) if encoding == "rewritten" else (1, -1)))
    entries += 2 * 9 if encoding == "rewritten" else 0  # of the sum that all filters share
    combined = 60 * positions if encoding == "rewritten" else 0
    # A table adds once for a mask of two channels and more; `lookup` adds the channels of each mask one by one.
    built = {"table": 11, "lookup": 6 * 1 + 4 * 2 + 3}[algorithm]
    assert prepared.adds == {"table": 2 * built * padded, "node": 0, "entry": entries * positions, "combine": combined}
    assert prepared.operations == (sum(prepared.adds.values()), 0)


VECTOR_BYTES = {"scalar": 16, "neon": 16, "avx2": 32, "avx512": 64}


def rows_of_tiles(prepared: kernels.Prepared, shape: ConvShape, lane_bits: int) -> int:
    """Vectors that a table's plan has, side by side and below one another, for all positions."""
    positions, rows = (int(re.search(rf"(\d+) {word}", prepared.geometry)[1]) for word in ("positions", "rows"))
    blocks = -(-shape.P // rows)
    heights = [shape.P * (b + 1) // blocks - shape.P * b // blocks for b in range(blocks)]
    units = sorted(heights * -(-shape.Q // positions) * shape.N, reverse=True)
    return sum(units[:: VECTOR_BYTES[prepared.isa] // lane_bits])


@isas
@pytest.mark.parametrize("bits,lane_bits,group", [(2, 8, 4), (4, 8, 4), (5, 8, 2), (8, 16, 4)])
@pytest.mark.parametrize("scheme,encoding", [("random_signs", "two_group"), ("binary", "rewritten")])
def test_sums_of_table_are_an_independent_count(scheme, encoding, bits, lane_bits, group, isa):
    """A pass's list of a filter is filled up to fours; chains of so few bits never run over: only the last is short."""
    shape = ConvShape(8, 11, 15, 10, N=2)
    weight = weight_of(scheme, shape)
    options = {"activation_bits": bits, "lane_bits": lane_bits, "group": group, "encoding": encoding, "isa": isa}
    prepared = kernels.prepare("table", weight, shape, **options)
    per_pass, chain = map(int, re.search(r"(\d+) groups a pass, chains of (\d)", prepared.geometry).groups())
    codes = weight.codes
    if encoding == "rewritten":
        codes = np.concatenate([codes == 1, np.ones((1, 8, 3, 3), bool)])  # and the sum that all filters share
    groups = codes.reshape(len(codes), 8 // group, group, 9)
    fours = 0
    for first in range(0, 8 // group, per_pass):
        for sign in (1, -1):
            entries = (groups[:, first : first + per_pass] == sign).any(axis=2).sum(axis=(1, 2))
            fours += int(np.ceil(entries / 4).sum())
    entries = 4 * fours * rows_of_tiles(prepared, shape, lane_bits)
    again = entries // chain if lane_bits == 8 else 0
    assert kernels.native(prepared).sum_work == {"entries": entries, "instructions": entries + again}


@isas
@pytest.mark.parametrize("threads", (1, 3))
@pytest.mark.parametrize("window", ((1, 1, 0), (3, 3, 1), (3, 5, 2), (1, 7, 3)), ids=str)
@pytest.mark.parametrize("C", (3, 8))  # one group of four channels, and two
@pytest.mark.parametrize("K", (1, 16, 17, 32, 33))
def test_lookup_of_few_filters_and_groups(K, C, window, threads, isa):
    """A vector of 16 filters or two, taps that share a quad, and tiles that overlap or divide a row."""
    R, S, padding = window
    for W in (15, 16):
        shape = ConvShape(C, 6, W, K, R, S, padding=padding, N=2)
        options = {"algorithm": "lookup", "group": 4, "isa": isa, "threads": threads}
        for scheme in ("signed_binary", "ternary"):
            assert_exact(weight_of(scheme, shape), shape, 4, **options)
        assert_exact(weight_of("binary", shape), shape, 4, encoding="rewritten", **options)
        residual = np.random.default_rng(2).integers(0, 256, (2, K, shape.P, shape.Q)).astype(np.uint8)
        rounding = Rounding(np.full(K, 0.37), np.linspace(-9, 9, K), residual_scale=0.5)
        assert_exact(weight_of("ternary", shape), shape, 4, residual=residual, rounding=rounding, **options)


@pytest.mark.skipif("avx512" not in ISAS, reason="quads are AVX-512's")
@pytest.mark.parametrize("C, K, items, vectors", [(32, 80, 18, 5), (4, 16, 3, 1), (8, 16, 6, 1), (8, 40, 6, 3)])
def test_quads_of_lookup_are_counted(C, K, items, vectors):
    """Dense codes: an item for each tap and four groups, or for a row of taps of fewer; a vector for 16 filters."""
    shape = ConvShape(C, 9, 7, K)
    weight = QuantizedWeight(np.ones((K, C, 3, 3), np.int8))
    prepared = kernels.prepare("lookup", weight, shape, activation_bits=2, group=4, isa="avx512")
    if "chains" not in prepared.geometry:  # without VBMI
        lookups = 9 * 7 * items * vectors
        assert kernels.native(prepared).sum_work == {"entries": lookups, "instructions": 2 * lookups}


@isas
@pytest.mark.parametrize("scheme", ("zero_one", "random_signs"))
def test_sums_of_lookup_are_an_independent_count(scheme, isa):
    """A tap is left out for 32 filters where none of them has a mask there: four groups at once, or a group alone."""
    shape = ConvShape(32, 9, 7, 64, N=2)
    weight = weight_of(scheme, shape)
    codes = weight.codes.copy()
    codes[:32, :16, 1, 1] = codes[32:, 4:8, 0, 2] = 0
    prepared = kernels.prepare("lookup", QuantizedWeight(codes), shape, activation_bits=2, group=4, isa=isa)
    positions, taps = 2 * 9 * 7, codes.reshape(2, 32, 8, 4, 9).any(axis=(1, 3))  # (blocks, groups, taps)
    if "chains" not in prepared.geometry:
        lookups = 2 * positions * int(taps.reshape(2, 2, 4, 9).any(axis=2).sum())
        assert kernels.native(prepared).sum_work == {"entries": lookups, "instructions": 2 * lookups}
        return
    work = {"entries": 0, "instructions": 0}
    for items in taps.sum(axis=(1, 2)):  # 68 and 71
        found = []
        # Of the cheapest length: two additions and a shift widen a chain, whose first look-up is added to nothing.
        for length in (1, 2, 3, 4, 6, 8):
            chains = -(-int(items) // length)
            found.append((chains * (length * (3 if scheme == "random_signs" else 2) + 2), chains * length))
        instructions, entries = min(found, key=lambda each: each[0])
        work = {"entries": work["entries"] + entries, "instructions": work["instructions"] + instructions}
    assert kernels.native(prepared).sum_work == {name: count * positions for name, count in work.items()}


@isas
@ways
def test_stages_left_out_leave_a_layer_as_it_was(algorithm, lane_bits, isa):
    shape = ConvShape(16, 9, 8, 20)
    weight, x = weight_of("random_signs", shape), activations(shape, 4)
    prepared = kernels.prepare(algorithm, weight, shape, activation_bits=4, lane_bits=lane_bits, isa=isa, threads=2)
    native, expected = kernels.native(prepared), convolve(weight, x, shape)
    native.run(x, None, sums=False, finish=False)
    assert (native.run(x, None, sums=False) == expected).all() == (algorithm == "dense")
    for _ in range(2):
        assert (native.run(x, None) == expected).all()
        native.run(x, None, sums=False)
    seconds = integers.stage_seconds(native, x, 3)
    assert list(seconds) == ["tables", "sums", "finish"] and seconds["tables"] > 0 and seconds["sums"] < 1


@isas
def test_the_least_time_of_sums_is_that_of_what_takes_longer(isa, monkeypatch):
    monkeypatch.setattr(integers, "peaks", lambda _: {"additions": 1e9, "bytes": 2e9, "words": 4e9, "lookups": 0})
    shape = ConvShape(8, 9, 8, 20)
    for lane_bits, rate in ((8, 2e9), (16, 4e9)):
        options = {"activation_bits": 4, "lane_bits": lane_bits, "isa": isa}
        native = kernels.native(kernels.prepare("table", weight_of("binary", shape), shape, **options))
        entries, instructions = native.sum_work.values()
        assert integers.least_summing_seconds(native, isa) == max(entries / rate, instructions / 1e9) > 0
    for algorithm in ("lookup", "dense"):
        prepared = kernels.prepare(algorithm, weight_of("binary", shape), shape, activation_bits=4, isa=isa)
        assert integers.least_summing_seconds(kernels.native(prepared), isa) is None


@isas
def test_peaks_are_rates_of_this_cpu(isa):
    peaks = integers.peaks(isa)
    lookups = peaks.pop("lookups")
    assert all(1e7 < rate < 1e12 for rate in peaks.values()) and (lookups > 0) == (isa in ("avx2", "avx512"))
    assert integers.peaks(isa)["bytes"] >= peaks["bytes"], "the best so far"


@isas
@pytest.mark.parametrize("bits", (4, 8))
@pytest.mark.parametrize("scheme", ("binary", "masks"))
def test_auto_takes_the_cheapest(scheme, bits, isa):
    shape = ConvShape(32, 14, 14, 64)
    weight = weight_of(scheme, shape)
    plans = [
        kernels.prepare(algorithm, weight, shape, activation_bits=bits, isa=isa, encoding=encoding)
        for algorithm in ("table", "lookup")
        for encoding in (("two_group", "rewritten") if scheme == "binary" else ("two_group",))
    ]
    cheapest = min(plans, key=lambda plan: plan._native.cost)
    prepared = assert_exact(weight, shape, bits, algorithm="auto", isa=isa, encoding="auto")
    assert (prepared.algorithm, prepared.encoding) == (cheapest.algorithm, cheapest.encoding)
    if bits == 8 or isa not in ("avx2", "avx512"):
        assert prepared.algorithm == "table", "8 bits fill a byte, and no other ISA has the instructions of lookup"


SHAPE = ConvShape(4, 5, 5, 3)
WEIGHT = weight_of("signed_binary", SHAPE)
ROUNDING = Rounding(np.ones(3), np.zeros(3))


@pytest.mark.parametrize("fast", integers.FAST)
def test_tuned_auto_takes_the_one_of_less_time(fast, monkeypatch):
    shape = ConvShape(C=8, H=6, W=6, K=5)
    of_lookup = "filters as lanes"  # what its geometry begins with
    monkeypatch.setattr(integers, "seconds", lambda native, _: (of_lookup in native.geometry) == (fast == "table"))
    weight = weight_of("signed_binary", shape)
    assert kernels.prepare("auto", weight, shape, activation_bits=4, tune=True).algorithm == fast


@pytest.mark.parametrize(
    "options,error,message",
    [
        ({"activation_bits": 1}, ValueError, "activation_bits = 1; allowed: an integer from 2 to 8, or 32"),
        ({"activation_bits": 9}, ValueError, "activation_bits = 9; allowed"),
        ({"activation_bits": 6.0}, ValueError, "activation_bits = 6.0; allowed"),
        (
            {"algorithm": "dataflow"},
            ValueError,
            "algorithm with integer activations = 'dataflow'; allowed: dense, table",
        ),
        *(
            (
                {"algorithm": name, "activation_bits": 32},
                ValueError,
                f"algorithm = '{name}'; allowed: dense, sparse, ta",
            )
            for name in ("auto", "lookup")
        ),
        (
            {"algorithm": "auto", "encoding": "signed"},
            ValueError,
            "encoding of auto with integer activations",
        ),
        ({"algorithm": "auto", "lane_bits": 8}, ValueError, "lane_bits of lookup = 8; allowed: 0"),
        ({"encoding": "signed"}, ValueError, "encoding of table with integer activations = 'signed'; allowed"),
        ({"encoding": "rewritten"}, ValueError, "'rewritten' with codes that hold 0"),
        ({"weight": QuantizedWeight(WEIGHT.codes, negative_scale=np.full(3, 2))}, ValueError, "two scales"),
        ({"bias": np.zeros(3, np.float32)}, ValueError, "bias = .* with integer activations; allowed: None"),
        ({"relu": True}, ValueError, "relu = True with integer activations; allowed: False"),
        ({"skip_zeros": False}, ValueError, "skip_zeros = False with integer activations; allowed: True"),
        ({"group": 17}, ValueError, "group = 17; allowed: an integer from 0 to 16"),
        ({"lane_bits": 32}, ValueError, "lane_bits of table = 32; allowed: 0, 8, 16"),
        ({"rounding": 3}, TypeError, "rounding is a int; allowed: Rounding"),
        ({"rounding": Rounding(np.ones(2), np.ones(2))}, ValueError, "scale of the rounding has 2 values; allowed: 3"),
        ({"activation_bits": 32, "lane_bits": 8}, ValueError, "lane_bits = 8 with float activations; allowed: 0"),
        ({"activation_bits": 32, "rounding": ROUNDING}, ValueError, "rounding = .* with float activations"),
        ({"threads": 0}, ValueError, "threads = 0; allowed"),
        ({"shape": ConvShape(4, 5, 5, 2)}, ValueError, "codes have shape"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, error, message):
    options = {"algorithm": "table", "weight": WEIGHT, "shape": SHAPE, "activation_bits": 6} | options
    with pytest.raises(error, match=message):
        kernels.prepare(options.pop("algorithm"), options.pop("weight"), options.pop("shape"), **options)


@pytest.mark.parametrize(
    "x,residual,error,message",
    [
        (np.zeros((1, 4, 5, 5), np.float32), None, TypeError, "x has dtype float32; allowed: uint8"),
        (np.zeros((1, 4, 5, 5), np.int8), None, TypeError, "x has dtype int8; allowed: uint8"),
        (np.full((1, 4, 5, 5), 64, np.uint8), None, ValueError, "x holds 64; allowed: 0 to 63"),
        (np.zeros((1, 4, 5, 4), np.uint8), None, ValueError, "x has shape .*; allowed"),
        (np.zeros((1, 4, 5, 10), np.uint8)[..., ::2], None, ValueError, "x is not C-contiguous"),
        ([[1]], None, TypeError, "x is a list; allowed: a uint8 numpy array"),
        (np.zeros((1, 4, 5, 5), np.uint8), np.zeros((1, 3, 5, 5), np.uint8), ValueError, "without a rounding"),
    ],
)
def test_activations_that_do_not_fit_are_refused(x, residual, error, message):
    prepared = kernels.prepare("table", WEIGHT, SHAPE, activation_bits=6)
    with pytest.raises(error, match=message):
        kernels.conv2d(prepared, x, residual)


@pytest.mark.parametrize(
    "values,message",
    [
        ({"bits": 9}, "bits = 9; allowed: an integer from 2 to 8"),
        ({"scale": np.array([np.nan] * 3)}, "scale has shape .* not finite"),
        ({"bias": np.zeros((3, 1))}, r"bias has shape \(3, 1\)"),
        ({"residual_scale": float("inf")}, "residual_scale = inf; allowed"),
    ],
)
def test_a_rounding_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Rounding(**({"scale": np.ones(3), "bias": np.zeros(3)} | values))


def test_sums_beyond_32_bits_are_refused():
    shape = ConvShape(470_000, 3, 3, 1)
    with pytest.raises(ValueError, match=r"C \* R \* S = 4230000 with 8-bit activations; allowed: at most 4210752"):
        kernels.prepare("table", QuantizedWeight(np.ones((1, 470_000, 3, 3), np.int8)), shape, activation_bits=8)


def test_the_lists_of_algorithms_agree():
    assert {algorithm for algorithm, _ in WAYS} == set(integers.ENCODINGS_OF)
