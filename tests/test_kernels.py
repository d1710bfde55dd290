"""Every algorithm against an independent convolution, and what its plan counts.

Activations are small integers and scales powers of two, so that every order of summation gives the same float: results
are compared with `==`. One test with random floats holds the rounding error to its bound.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import layers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import convolve

from sbkit import kernels, way
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.encodings import ENCODINGS_OF, largest_group, one_scale

ISAS = kernels.isas()
PACKED = [algorithm for algorithm in ENCODINGS_OF if algorithm != "dense"]  # all but the reference
SCHEMES = (
    "binary",
    "zero_one",
    "ternary_twn",
    "ternary_ttq",
    "signed_binary",
    "region_signs",
    "channel_signs",
    "codebook",
    "empty",
)
SHAPES = [
    *layers.SHAPES,
    ConvShape(5, 7, 7, 64, name="few strips, many filters"),
    ConvShape(64, 7, 7, 3, name="many channels"),
    ConvShape(64, 1, 1, 7, 1, 1, padding=0, name="linear"),
    ConvShape(5, 6, 11, 4, 4, 2, stride=3, padding=0, name="4x2, stride 3"),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


def weight_of(scheme: str, shape: ConvShape, seed: int = 0) -> QuantizedWeight:
    """Random codes of a scheme with power-of-two scales."""
    rng = np.random.default_rng(seed)
    size = (shape.K, shape.C, shape.R, shape.S)
    mask = rng.random(size) < 0.4
    either = rng.choice(np.array([-1, 1], np.int8), size)
    channel = np.arange(shape.C).reshape(1, -1, 1, 1)
    filters = np.arange(shape.K).reshape(-1, 1, 1, 1)
    sign = {
        "binary": either,
        "ternary_twn": either,
        "ternary_ttq": either,
        "zero_one": 1,
        "empty": 0,
        "region_signs": 1 - 2 * ((channel // 2 + filters) % 2),
    }.get(scheme, np.where(filters < shape.K // 2, 1, -1))
    codes = (sign * (mask if scheme != "binary" else 1) * np.ones(size)).astype(np.int8)
    if scheme == "codebook":  # 16 masks of 16 channels, each region with a sign of its own
        codes = layers.masked(rng.random((16, 16)) < 0.3, shape, rng, signs=(-1, 1))
    return QuantizedWeight(
        codes,
        2.0 ** rng.integers(-2, 3, shape.K),
        2.0 ** rng.integers(-2, 3, shape.K) if scheme == "ternary_ttq" else None,
        rng.choice([-1, 1], shape.C) if scheme == "channel_signs" else None,
        scheme,
    )


def encodings_of(algorithm: str, weight: QuantizedWeight) -> list[str]:
    """The encodings that `prepare` allows."""
    barred = () if weight.codes.all() else ("rewritten",)
    found = [encoding for encoding in ENCODINGS_OF[algorithm] if encoding not in barred]
    return found if one_scale(weight) else ["two_group"]


def most_channels(algorithm: str, encoding: str, weight: QuantizedWeight) -> int:
    """The largest group that `prepare` allows."""
    if algorithm == "table":
        return largest_group(weight.codes, encoding)
    return way.MOST_CHANNELS["dataflow"] if algorithm == "dataflow" else 0


def integers(shape: ConvShape, seed: int = 1) -> np.ndarray:
    size = (shape.N, shape.C, shape.H, shape.W)
    return np.random.default_rng(seed).integers(-8, 9, size).astype(np.float32)


def some_epilogue(shape: ConvShape, rng: np.random.Generator) -> tuple[dict, np.ndarray | None]:
    """Options `bias` and `relu` of prepare, and a residual; each there or not, at random."""
    bias = rng.integers(-9, 10, shape.K).astype(np.float32) if rng.random() < 0.5 else None
    residual = rng.integers(-9, 10, (shape.N, shape.K, shape.P, shape.Q)).astype(np.float32)
    return {"bias": bias, "relu": bool(rng.random() < 0.5)}, residual if rng.random() < 0.5 else None


def finished(sums: np.ndarray, bias, relu, residual) -> np.ndarray:
    """What a layer makes of its scaled sums."""
    y = sums if bias is None else sums + bias[:, None, None]
    y = y if residual is None else y + residual
    return np.maximum(y, 0) if relu else y


def assert_computes(prepared: kernels.Prepared, x: np.ndarray, residual, expected: np.ndarray) -> None:
    kernels.conv2d(prepared, np.full_like(x, np.nan), residual)  # what a call leaves in the buffers must not matter
    y = kernels.conv2d(prepared, x, residual)
    assert y.shape == expected.shape and y.dtype == np.float32
    assert (y == expected).all(), (prepared, prepared.relu, prepared.bias, residual is not None)


@shapes
def test_dense_equals_an_independent_convolution(shape):
    rng, x = np.random.default_rng(2), integers(shape)
    for scheme in SCHEMES:
        weight = weight_of(scheme, shape)
        options, residual = some_epilogue(shape, rng)
        prepared = kernels.prepare("dense", weight, shape, **options)
        assert_computes(
            prepared, x, residual, finished(convolve(weight.dense(), x, shape), **options, residual=residual)
        )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", PACKED)
@shapes
def test_equals_an_independent_convolution(shape, algorithm, isa):
    """Schemes, encodings, zeros and groups in all combinations; threads and what follows the sums at random."""
    rng, x = np.random.default_rng(2), integers(shape)
    groups = {"sparse": (0,), "table": (0, 1, 16), "dataflow": (0, 3)}[algorithm]
    for scheme in SCHEMES:
        weight = weight_of(scheme, shape)
        sums = convolve(weight.dense(), x, shape)
        for encoding, skip_zeros, group in itertools.product(encodings_of(algorithm, weight), (True, False), groups):
            options, residual = some_epilogue(shape, rng)
            prepared = kernels.prepare(
                algorithm,
                weight,
                shape,
                isa=isa,
                skip_zeros=skip_zeros,
                encoding=encoding,
                group=min(group, most_channels(algorithm, encoding, weight)),
                threads=int(rng.choice((1, 1, 3))),
                **options,
            )
            assert prepared.isa == isa and prepared.encoding == encoding
            assert_computes(prepared, x, residual, finished(sums, **options, residual=residual))


@st.composite
def any_layer(draw):
    """An algorithm, its options, a layer and a seed of its activations."""

    def size(least: int, most: int) -> int:
        return draw(st.integers(least, most))

    R, S, stride, padding = size(1, 5), size(1, 5), size(1, 4), size(0, 3)
    H, W = (size(max(1, window - 2 * padding), 17) for window in (R, S))
    shape = ConvShape(size(1, 19), H, W, size(1, 9), R, S, stride, padding, N=size(1, 3))
    rng = np.random.default_rng(size(0, 2**32 - 1))
    values = draw(st.sampled_from([(-1, 0, 1), (-1, 1), (0, 1), (-1, 0), (0, 0, 0, 0, -1, 1), (1,)]))
    codes = rng.choice(np.array(values, np.int8), (shape.K, shape.C, R, S))
    scale, negative_scale = rng.choice([-2, -0.5, 0, 0.25, 1, 4], (2, shape.K))
    weight = QuantizedWeight(
        codes, scale, negative_scale if draw(st.booleans()) else None, rng.choice([-1, 1], shape.C)
    )
    algorithm = draw(st.sampled_from(list(ENCODINGS_OF)))
    encoding = draw(st.sampled_from(encodings_of(algorithm, weight)))
    options, residual = some_epilogue(shape, rng)
    options |= {
        "isa": draw(st.sampled_from(kernels.isas())),
        "skip_zeros": draw(st.booleans()),
        "encoding": encoding,
        "group": size(0, most_channels(algorithm, encoding, weight)),
        "threads": draw(st.sampled_from((1, 3, 4))),
    }
    return algorithm, weight, shape, options, residual


@settings(max_examples=200, deadline=None, derandomize=True)
@given(any_layer())
def test_any_layer_equals_an_independent_convolution(layer):
    algorithm, weight, shape, options, residual = layer
    prepared, x = kernels.prepare(algorithm, weight, shape, **options), integers(shape)
    sums = convolve(weight.dense(), x, shape)
    assert_computes(prepared, x, residual, finished(sums, options["bias"], options["relu"], residual))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", PACKED)
@pytest.mark.parametrize("side,C,K", [(56, 5, 6), (14, 64, 48), (7, 96, 130)])
def test_equals_an_independent_convolution_at_resnet_sizes(side, C, K, algorithm, isa):
    shape = ConvShape(C, side, side, K)
    for scheme in ("binary", "signed_binary", "codebook"):
        weight, x = weight_of(scheme, shape), integers(shape)
        sums = convolve(weight.dense(), x, shape)
        for encoding in encodings_of(algorithm, weight):
            prepared = kernels.prepare(algorithm, weight, shape, isa=isa, encoding=encoding)
            assert_computes(prepared, x, None, sums)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "algorithm,encoding", [(algorithm, encoding) for algorithm in PACKED for encoding in ENCODINGS_OF[algorithm]]
)
def test_random_floats_stay_within_the_rounding_bound(algorithm, encoding, isa):
    shape = ConvShape(37, 10, 11, 16)
    rng = np.random.default_rng(0)
    scale = rng.random(shape.K).astype(np.float32) + 0.5
    weight = QuantizedWeight(weight_of("binary", shape).codes, scale, channel_sign=rng.choice([-1, 1], shape.C))
    x = rng.standard_normal((1, shape.C, shape.H, shape.W)).astype(np.float32)
    y = kernels.conv2d(kernels.prepare(algorithm, weight, shape, isa=isa, encoding=encoding), x)
    # n terms in any order: |error| <= n * eps * sum |x*w|; the rewritten form sums twice the plus side and the total.
    terms = shape.C * shape.R * shape.S * (3 if encoding == "rewritten" else 1)
    bound = terms * np.finfo(np.float32).eps * convolve(abs(weight.dense()), abs(x), shape)
    error = abs(y - convolve(weight.dense(), x, shape))
    assert (error <= bound).all()


@pytest.mark.parametrize("algorithm", ENCODINGS_OF)
@pytest.mark.parametrize("shape", [ConvShape(9, 13, 12, 11, N=3), ConvShape(16, 7, 7, 64)], ids=["batch", "one strip"])
def test_threads_do_not_change_the_result(shape, algorithm):
    """Threads share out filters where an image has too few strips for all."""
    blocks, one = False, {}
    for scheme in ("ternary_ttq", "binary"):
        weight, x = weight_of(scheme, shape), integers(shape)
        sums = convolve(weight.dense(), x, shape)
        for encoding, threads in itertools.product(encodings_of(algorithm, weight), (2, 3, 7, 8)):
            prepared = kernels.prepare(algorithm, weight, shape, encoding=encoding, threads=threads)
            assert prepared.operations == one.setdefault((scheme, encoding, prepared.group), prepared.operations)
            assert_computes(prepared, x, None, sums)
            blocks |= "filter blocks" in prepared.geometry
    assert blocks or algorithm in ("dense", "dataflow") or shape.K < 64


@pytest.mark.parametrize("algorithm", ENCODINGS_OF)
def test_tuning_does_not_change_the_result(algorithm):
    shape = ConvShape(17, 9, 10, 12, stride=2)
    weight, x = weight_of("binary", shape), integers(shape)
    sums = convolve(weight.dense(), x, shape)
    for encoding, threads in zip((*encodings_of(algorithm, weight), "auto"), (1, 2, 1, 2, 1), strict=False):
        prepared = kernels.prepare(algorithm, weight, shape, encoding=encoding, threads=threads, tune=True)
        assert_computes(prepared, x, None, sums)
    if algorithm in ("table", "dataflow"):
        assert kernels.prepare(algorithm, weight, shape, group=3, tune=True).group == 3


@pytest.mark.parametrize("algorithm", PACKED)
def test_the_same_input_gives_the_same_plan(algorithm):
    shape = ConvShape(24, 14, 14, 16)
    plans = [kernels.prepare(algorithm, weight_of("binary", shape), shape) for _ in range(2)]
    assert len({(plan.group, plan.geometry, plan.operations, plan.weight_bytes) for plan in plans}) == 1
    assert len(repr(plans[0])) < 600


@pytest.mark.parametrize("isa", ISAS)
def test_auto_takes_the_cheaper_encoding(isa):
    shape = ConvShape(32, 14, 14, 64)  # large enough that none is cheaper by the size of a CPU's L1 cache

    def chosen(scheme: str, algorithm: str = "table", **options) -> str:
        prepared = kernels.prepare(algorithm, weight_of(scheme, shape), shape, encoding="auto", isa=isa, **options)
        return prepared.encoding

    assert chosen("binary") == chosen("binary", group=4) == "signed"
    assert chosen("signed_binary", group=4) == chosen("zero_one", group=4) == "two_group"  # the same program
    assert chosen("codebook") == "codebook"
    assert chosen("ternary_ttq") == chosen("binary", "dataflow") == chosen("binary", "dense") == "two_group"


def test_concurrent_calls():
    """On one plan, where they take turns, and on another at the same time."""
    shape = ConvShape(8, 20, 20, 16)
    weight = weight_of("signed_binary", shape)
    plans = [kernels.prepare("table", weight, shape), kernels.prepare("dataflow", weight, shape, threads=2)]
    inputs = [integers(shape, seed) for seed in range(4)]
    expected = [convolve(weight.dense(), x, shape) for x in inputs]
    wrong = []

    def work(i):
        for turn in range(10):
            if not (kernels.conv2d(plans[turn % 2], inputs[i]) == expected[i]).all():
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def in_a_fork(work) -> int:
    """What `work` returns in a forked child, which is killed after a while."""
    if not (child := os.fork()):
        signal.alarm(60)
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_runs_on_one_thread():
    """After threads of the parent ran, and while another of its threads runs the plan and holds the plan's lock."""
    shape = ConvShape(8, 20, 20, 16)
    weight, x = weight_of("ternary_ttq", shape), integers(shape)
    plans = [kernels.prepare(algorithm, weight, shape, threads=n) for algorithm in ENCODINGS_OF for n in (1, 3)]
    expected = convolve(weight.dense(), x, shape)

    def right() -> int:
        return 0 if all((kernels.conv2d(plan, x) == expected).all() and plan.threads == 1 for plan in plans) else 1

    def refuses_threads() -> int:
        with pytest.raises(ValueError, match="threads = 2 in a forked process; allowed: 1, or a process started by"):
            kernels.prepare("table", weight, shape, threads=2)
        return 0 if (kernels.conv2d(kernels.prepare("table", weight, shape, tune=True), x) == expected).all() else 1

    done = threading.Event()
    busy = threading.Thread(target=lambda: [kernels.conv2d(p, x) for _ in iter(done.is_set, True) for p in plans])
    busy.start()
    try:
        assert [in_a_fork(right) for _ in range(5)] == 5 * [0]
        assert in_a_fork(lambda: in_a_fork(right)) == 0 and in_a_fork(refuses_threads) == 0
    finally:
        done.set()
        busy.join()
    assert [plan.threads for plan in plans] == 4 * [1, 3]


# ---- NaN and infinity ------------------------------------------------------------------------------------------------

NINE = ConvShape(8, 9, 9, 2)
HOLDS_PIXEL = np.zeros((9, 9), bool)  # outputs whose window holds the input pixel (2, 3)
HOLDS_PIXEL[1:4, 2:5] = True


def with_pixel(value: float) -> np.ndarray:
    """Activations of NINE with one odd value, in channel 5."""
    x = integers(NINE)
    x[0, 5, 2, 3] = value
    return x


@pytest.mark.parametrize(
    "algorithm,skip_zeros,group,reads_zeros",
    [
        ("dense", True, 0, True),
        ("sparse", True, 0, False),
        ("sparse", False, 0, True),
        ("table", True, 3, False),
        ("table", False, 3, False),
        ("dataflow", True, 3, False),
        ("dataflow", False, 3, True),
    ],
)
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_nan_and_infinity_reach_what_reads_them(value, algorithm, skip_zeros, group, reads_zeros):
    codes = np.ones((2, 8, 3, 3), np.int8)
    codes[0, 4:] = 0
    expected = convolve(codes, with_pixel(0), NINE)
    expected[0, 1, HOLDS_PIXEL] = value
    if reads_zeros:
        expected[0, 0, HOLDS_PIXEL] = np.nan
    prepared = kernels.prepare(algorithm, QuantizedWeight(codes), NINE, skip_zeros=skip_zeros, group=group)
    np.testing.assert_array_equal(kernels.conv2d(prepared, with_pixel(value)), expected)


@pytest.mark.parametrize(
    "algorithm,encoding,plus",
    [
        ("dense", "two_group", np.inf),
        ("sparse", "two_group", np.inf),
        ("sparse", "rewritten", np.nan),
        ("table", "two_group", np.inf),
        ("table", "rewritten", np.nan),
        ("table", "signed", np.inf),
        ("dataflow", "two_group", np.inf),
        ("dataflow", "rewritten", np.nan),
    ],
)
def test_the_rewritten_encoding_turns_infinity_into_nan(algorithm, encoding, plus):
    codes = np.ones((2, 8, 3, 3), np.int8)
    codes[1] = -1
    expected = convolve(codes, with_pixel(0), NINE)
    expected[0, 0, HOLDS_PIXEL], expected[0, 1, HOLDS_PIXEL] = plus, -np.inf
    prepared = kernels.prepare(algorithm, QuantizedWeight(codes), NINE, encoding=encoding)
    np.testing.assert_array_equal(kernels.conv2d(prepared, with_pixel(np.inf)), expected)


@pytest.mark.parametrize("algorithm", PACKED)
def test_rewritten_stays_finite_at_the_largest_scale_that_it_takes(algorithm):
    codes = np.where(np.arange(36) % 2, 1, -1).astype(np.int8).reshape(1, 4, 3, 3)
    weight = QuantizedWeight(codes, np.full(1, 4.7e36))
    prepared = kernels.prepare(algorithm, weight, ConvShape(4, 3, 3, 1, padding=0), encoding="rewritten")
    assert kernels.conv2d(prepared, np.ones((1, 4, 3, 3), np.float32)) == 0


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ENCODINGS_OF)
def test_relu_of_nan_is_that_of_torch(algorithm, isa):
    torch = pytest.importorskip("torch")
    weight = weight_of("binary", NINE)
    plain, relu = (kernels.prepare(algorithm, weight, NINE, isa=isa, relu=relu) for relu in (False, True))
    residual = integers(replace(NINE, C=2))
    residual[0, :, 5, :3] = np.nan, np.inf, -np.inf
    y = kernels.conv2d(plain, with_pixel(np.nan), residual)
    assert np.isnan(y).sum() == 2 * (HOLDS_PIXEL.sum() + 1)
    expected = torch.relu(torch.from_numpy(y)).numpy()
    np.testing.assert_array_equal(kernels.conv2d(relu, with_pixel(np.nan), residual), expected)


# ---- Operation counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
def test_operations_do_not_depend_on_the_isa(isa):
    shape = ConvShape(8, 14, 14, 4, stride=2)
    weight = weight_of("ternary_twn", shape)
    first = kernels.prepare("table", weight, shape, isa="scalar", group=4)
    prepared = kernels.prepare("table", weight, shape, isa=isa, group=4)
    assert prepared.adds == first.adds and prepared.operations == first.operations
    assert prepared.adds["table"] == 15 * 15 * 2 * 11  # 7 outputs at stride 2 touch 15 of 16 rows


def test_a_codebook_larger_than_a_table_is_refused():
    shape = ConvShape(64, 4, 4, 64)
    weight = weight_of("signed_binary", shape)
    with pytest.raises(ValueError, match=r"group 16 and stride 1 needs more than 65535 slots .* more than 1024 patt"):
        kernels.prepare("table", weight, shape, encoding="codebook", group=16)
    assert kernels.prepare("table", weight, shape, encoding="codebook").group < 16


@pytest.mark.parametrize("region,taps", [(16, 1), (8, 1), (4, 1), (4, 9), (2, 1)])
def test_signs_of_regions_cost_no_operation(region, taps):
    """Signed binary costs what {0, 1} costs, as long as a region holds the channels that share a table."""
    rng = np.random.default_rng(0)
    shape = ConvShape(16, 9, 9, 24)
    zero_one = abs(weight_of("signed_binary", shape).codes)
    signs = rng.choice(np.array([-1, 1], np.int8), (24, 16 // region, taps)).repeat(region, axis=1)
    signs = signs.reshape(24, 16, *((3, 3) if taps == 9 else (1, 1)))
    plain, signed = (
        kernels.prepare("table", QuantizedWeight(codes), shape, group=4) for codes in (zero_one, zero_one * signs)
    )
    if region >= 4:
        assert signed.adds == plain.adds and signed.operations == plain.operations
        assert signed.weight_bytes == plain.weight_bytes
    else:
        assert signed.operations.adds > plain.operations.adds


# ---- Bad input -------------------------------------------------------------------------------------------------------

SMALL = ConvShape(4, 6, 6, 3)


def small_weight(**changes) -> QuantizedWeight:
    return QuantizedWeight(**{"codes": weight_of("binary", SMALL).codes} | changes)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"algorithm": "fast"}, r"algorithm = 'fast'; allowed: dense, sparse, table, dataflow"),
        ({"encoding": "one_hot"}, r"encoding = 'one_hot'; allowed: two_group, rewritten, signed"),
        ({"isa": "sse9"}, r"isa = 'sse9'; allowed: auto, scalar"),
        ({"group": 11}, r"group of table = 11; allowed: an integer from 0 to 10"),
        ({"group": 17, "encoding": "codebook"}, r"group of table = 17; allowed: an integer from 0 to 16"),
        ({"group": 2.0}, r"group of table = 2\.0"),
        ({"group": 4, "algorithm": "sparse"}, r"group of sparse = 4; allowed: an integer from 0 to 0"),
        ({"group": 33, "algorithm": "dataflow"}, r"group of dataflow = 33; allowed: an integer from 0 to 32"),
        ({"group": 7, "encoding": "signed", "weight": weight_of("ternary_twn", SMALL)}, r"group of table = 7; .* to 6"),
        ({"threads": 0}, r"threads = 0; allowed: an integer from 1 to 1024"),
        ({"shape": ConvShape(5, 6, 6, 3)}, r"codes have shape \(3, 4, 3, 3\); allowed for this layer: \(3, 5, 3, 3\)"),
        ({"encoding": "rewritten", "algorithm": "dense"}, r"encoding of dense = 'rewritten'; allowed: two_group"),
        (
            {"encoding": "rewritten", "weight": small_weight(scale=np.full(3, 1e37))},
            r"'rewritten' with a scale of 1e\+37; allowed: up to 4.73e\+36",
        ),
        ({"bias": np.zeros(4, np.float32)}, r"bias has shape \(4,\); allowed: \(3,\)"),
        ({"bias": np.zeros((3, 1), np.float32)}, r"bias has shape \(3, 1\)"),
    ],
)
def test_prepare_refuses(arguments, message):
    arguments = {"algorithm": "table", "weight": small_weight(), "shape": SMALL} | arguments
    with pytest.raises(ValueError, match=message):
        kernels.prepare(**arguments)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"weight": np.ones((3, 4, 3, 3))}, "weight is a ndarray; allowed: QuantizedWeight"),
        ({"shape": (4, 6, 6, 3)}, "shape is a tuple; allowed: ConvShape"),
        ({"skip_zeros": 1}, "skip_zeros = 1; allowed: True, False"),
        ({"bias": np.zeros(3)}, "bias has dtype float64; allowed: float32"),
    ],
)
def test_prepare_refuses_the_wrong_type(arguments, message):
    arguments = {"algorithm": "table", "weight": small_weight(), "shape": SMALL} | arguments
    with pytest.raises(TypeError, match=message):
        kernels.prepare(**arguments)


def test_a_bias_is_copied():
    bias = np.arange(6, dtype=np.float32)
    prepared = kernels.prepare("table", small_weight(), SMALL, bias=bias[::2])
    bias[:] = 100
    y = kernels.conv2d(prepared, np.zeros((1, 4, 6, 6), np.float32))
    assert (y == np.array([0, 2, 4])[:, None, None]).all()


GOOD = np.zeros((1, 4, 6, 6), np.float32)
# How an array of a shape may be wrong: what it is then, the error and its message.
WRONG = [
    (lambda a: a.astype(np.float64), TypeError, "{} has dtype float64; allowed: float32"),
    (lambda a: a.astype(">f4"), TypeError, "{} has dtype >f4; allowed: float32"),
    (lambda a: a[0], ValueError, r"{} has shape \(\d, 6, 6\); allowed: \(1, \d, 6, 6\)"),
    (lambda a: a[:, :2].copy(), ValueError, r"{} has shape \(1, 2, 6, 6\)"),
    (lambda a: a[:0], ValueError, r"{} has shape \(0, \d, 6, 6\)"),
    (lambda a: a.repeat(2, axis=3)[..., ::2], ValueError, "{} is not C-contiguous"),
    (np.asfortranarray, ValueError, "{} is not C-contiguous"),
    (lambda a: np.zeros(a.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(a.shape), ValueError, "{} .* and aligned"),
    (lambda a: a.tolist(), TypeError, "{} is a list; allowed: a float32 numpy array"),
]


@pytest.mark.parametrize("algorithm", ["dense", "table"])
@pytest.mark.parametrize("wrong,error,message", WRONG)
def test_conv2d_refuses(wrong, error, message, algorithm):
    prepared = kernels.prepare(algorithm, small_weight(), SMALL)
    residual = np.zeros((1, 3, 6, 6), np.float32)
    with pytest.raises(error, match=message.format("x")):
        kernels.conv2d(prepared, wrong(GOOD))
    with pytest.raises(error, match=message.format("residual")):
        kernels.conv2d(prepared, GOOD, wrong(residual))


def test_conv2d_refuses_what_is_no_array_or_no_plan():
    with pytest.raises(TypeError, match="x is a NoneType"):
        kernels.conv2d(kernels.prepare("table", small_weight(), SMALL), None)
    with pytest.raises(TypeError, match="prepared is a str; allowed: what prepare"):
        kernels.conv2d("table", GOOD)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"codes": np.full((3, 4, 3, 3), 2, np.int8)}, "codes hold 2; allowed: -1, 0, "),
        ({"codes": np.ones((3, 4, 3, 3), np.int16)}, "codes has dtype int16; allowed: int8"),
        ({"codes": np.ones((3, 3, 4, 3), np.int8).swapaxes(1, 2)}, "codes is not C-contiguous"),
        ({"channel_sign": np.zeros(4, np.int8)}, "channel_sign holds 0"),
        ({"negative_scale": np.ones(2, np.float32)}, r"negative_scale has shape \(2,\)"),
        ({"dims": (1, 4, 6, 6)}, "dims are N, C, H, W, K, R, S, stride, padding"),
        ({"dims": (0, 4, 6, 6, 3, 3, 3, 1, 1)}, "dims hold 0; allowed: 1 "),
        ({"dims": (1, 4, 2, 6, 3, 3, 3, 1, 0)}, "the window does not fit"),
        ({"encoding": "auto"}, "encoding = 'auto'; allowed: two_group, rewritten, signed"),
        ({"isa": "auto"}, "isa = 'auto'; allowed here: scalar"),
        ({"algorithm": "dataflow", "group": 33}, "group = 33"),
        ({"algorithm": "sparse", "group": 1}, "group = 1; allowed: 0 .automatic. to 0"),
        ({"algorithm": "fast"}, "algorithm = 'fast'; allowed: dense, sparse, table, dataflow"),
        ({"algorithm": "dataflow", "encoding": "signed"}, "encoding 'signed' with algorithm 'dataflow'"),
        ({"encoding": "codebook", "scale": np.full(3, 8, np.float32)}, "'codebook' needs scale == negative_scale"),
        ({"encoding": "rewritten", "codes": np.zeros((3, 4, 3, 3), np.int8)}, "'rewritten' met a code 0"),
        ({"threads": 1025}, "threads = 1025; allowed: 1 to 1024"),
    ],
)
def test_the_extension_checks_what_would_crash_it(changes, message):
    """Callers reach it through `prepare` alone, which refuses most of this with kinder words."""
    weight = small_weight()
    good = {
        "algorithm": "table",
        "codes": weight.codes,
        "scale": weight.scale,
        "negative_scale": weight.negative_scale,
        "channel_sign": weight.channel_sign,
        "dims": (1, 4, 6, 6, 3, 3, 3, 1, 1),
        "isa": "scalar",
        "skip_zeros": True,
        "encoding": "two_group",
        "group": 0,
        "threads": 1,
        "bias": np.zeros(3, np.float32),
        "relu": False,
        "tune": False,
    }
    kernels._kernels.Convolution(**good)
    with pytest.raises((TypeError, ValueError), match=message):
        kernels._kernels.Convolution(**good | changes)


@pytest.mark.parametrize(
    "shape,message",
    [
        (ConvShape(2, 9, 9, 1, 9, 9), "9x9 window with group 10 and stride 1 needs more than 65535 slots"),
        (ConvShape(1, 2**21, 2**21, 1), r"sizes exceed 2\^40 elements"),
        (ConvShape(1, 1, 1, 1, padding=2**22), r"sizes exceed 2\^40 elements"),
        (ConvShape(1, 3, 3, 1, stride=2**20), "stride = 1048576; allowed: 1 to 65535"),
        (ConvShape(1, 2**24 + 1, 3, 1), r"dims hold 16777217; allowed: 1 \(padding: 0\) to 2\^24"),
    ],
)
def test_a_layer_too_large_for_a_plan_is_refused(shape, message):
    weight = QuantizedWeight(np.ones((shape.K, shape.C, shape.R, shape.S), np.int8))
    with pytest.raises(ValueError, match=message):
        kernels.prepare("table", weight, shape, group=10)


# ---- The machine -----------------------------------------------------------------------------------------------------


def test_the_extension_has_the_limits_that_python_states():
    assert kernels._kernels.limits() == {
        "algorithms": list(ENCODINGS_OF),
        "encodings": list(way.ENCODINGS),
        "channels": way.MOST_CHANNELS,
        "patterns": way.MOST_PATTERNS,
        "threads": kernels.MOST_THREADS,
    }


def test_build_info_and_isas():
    assert kernels.isas()[0] == "scalar" and set(kernels.isas()) <= set(kernels.build_info()["isas"])


def test_environment_caps_the_isa(monkeypatch):
    monkeypatch.setenv("SBKIT_ISA", "scalar")
    assert kernels.isas() == ("scalar",)
    assert kernels.prepare("table", small_weight(), SMALL).isa == "scalar"
    monkeypatch.setenv("SBKIT_ISA", "fastest")
    with pytest.raises(ValueError, match="SBKIT_ISA = 'fastest'; allowed: scalar, neon, avx2, avx512"):
        kernels.isas()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_torch_and_the_kernels_share_one_openmp_runtime():
    pytest.importorskip("torch")
    if not kernels.build_info()["openmp"]:
        pytest.skip("built without OpenMP")
    code = "import sbkit.kernels; print({l.split()[-1] for l in open('/proc/self/maps') if 'gomp' in l})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count("libgomp") == 1, run.stdout
