"""Every algorithm against the dense one, and the dense one against an independent convolution.

Activations are small integers and scales powers of two, so that every order of summation gives the same float: results
are compared with `==`. One test with random floats holds the rounding error to its bound.
"""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from sbkit import kernels
from sbkit.conv import ConvShape, QuantizedWeight

ISAS = [
    pytest.param(isa, marks=pytest.mark.skipif(isa not in kernels.isas(), reason=f"this machine cannot run {isa}"))
    for isa in kernels.ISAS
]
SCHEMES = (
    "binary",
    "zero_one",
    "ternary_twn",
    "ternary_ttq",
    "signed_binary",
    "region_signs",
    "channel_signs",
    "empty",
)
SHAPES = [
    ConvShape(1, 1, 1, 1, name="one pixel"),
    ConvShape(5, 9, 9, 6, N=2, name="odd channels"),
    ConvShape(3, 8, 8, 4, stride=2, name="stride 2"),
    ConvShape(8, 14, 14, 12, name="14x14"),
    ConvShape(6, 7, 7, 8, name="7x7"),
    ConvShape(3, 17, 33, 3, name="around the vector width"),
    ConvShape(12, 1, 1, 10, 1, 1, padding=0, N=19, name="linear, batch"),
    ConvShape(40, 1, 1, 7, 1, 1, padding=0, name="linear"),
    ConvShape(4, 11, 13, 2, 5, 3, stride=3, padding=4, N=3, name="5x3, stride 3, padding 4"),
    ConvShape(2, 5, 5, 3, 1, 1, stride=2, padding=0, name="1x1, stride 2 beyond the window"),
    ConvShape(2, 2, 9, 2, 2, 7, stride=1, padding=0, name="one output row"),
    ConvShape(3, 4, 4, 2, 3, 3, padding=7, name="padding wider than the image"),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


def weight_of(scheme: str, shape: ConvShape, seed: int = 0, scales: bool = True) -> QuantizedWeight:
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
    scale = 2.0 ** rng.integers(-2, 3, shape.K) if scales else np.ones(shape.K)
    return QuantizedWeight(
        codes,
        scale,
        2.0 ** rng.integers(-2, 3, shape.K) if scheme == "ternary_ttq" else None,
        rng.choice([-1, 1], shape.C) if scheme == "channel_signs" else None,
        scheme,
    )


def integers(shape: ConvShape, seed: int = 1) -> np.ndarray:
    size = (shape.N, shape.C, shape.H, shape.W)
    return np.random.default_rng(seed).integers(-8, 9, size).astype(np.float32)


def convolve(weights: np.ndarray, x: np.ndarray, shape: ConvShape) -> np.ndarray:
    """An independent convolution in double precision: padded windows and one einsum."""
    pad = shape.padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (shape.R, shape.S), axis=(2, 3))
    return np.einsum("kcrs,ncpqrs->nkpq", weights, windows[:, :, :: shape.stride, :: shape.stride], optimize=True)


def dense(weight: QuantizedWeight, x: np.ndarray, shape: ConvShape) -> np.ndarray:
    return kernels.conv2d(kernels.prepare("dense", weight, shape), x)


@pytest.mark.parametrize("scheme", SCHEMES)
@shapes
def test_dense_equals_an_independent_convolution(shape, scheme):
    weight, x = weight_of(scheme, shape), integers(shape)
    y = dense(weight, x, shape)
    assert y.shape == (shape.N, shape.K, shape.P, shape.Q) and y.dtype == np.float32
    assert (y == convolve(weight.dense(), x, shape)).all()


@pytest.mark.parametrize("skip_zeros", [True, False], ids=["skip", "noskip"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["sparse", "table"])
@shapes
def test_equals_dense(shape, algorithm, isa, scheme, skip_zeros):
    weight, x = weight_of(scheme, shape), integers(shape)
    expected = dense(weight, x, shape)
    for encoding in kernels.ENCODINGS if scheme == "binary" else kernels.ENCODINGS[:1]:
        for group in (0, 1, 3, 4, 8) if algorithm == "table" else (0,):
            prepared = kernels.prepare(
                algorithm, weight, shape, isa=isa, skip_zeros=skip_zeros, encoding=encoding, group=group
            )
            assert (prepared.isa, prepared.group) == (isa, group or prepared.group)
            for _ in range(2):  # buffers are reused
                assert (kernels.conv2d(prepared, x) == expected).all(), prepared


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["sparse", "table"])
@pytest.mark.parametrize("side,C,K", [(56, 5, 6), (28, 24, 8), (14, 64, 48), (7, 96, 130)])
def test_equals_dense_at_resnet_sizes(side, C, K, algorithm, isa):
    shape = ConvShape(C, side, side, K)
    weight, x = weight_of("signed_binary", shape), integers(shape)
    expected = convolve(weight.dense(), x, shape)
    assert (kernels.conv2d(kernels.prepare(algorithm, weight, shape, isa=isa), x) == expected).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("encoding", kernels.ENCODINGS)
@pytest.mark.parametrize("algorithm", ["sparse", "table"])
def test_random_floats_stay_within_the_rounding_bound(algorithm, encoding, isa):
    shape = ConvShape(37, 10, 11, 16)
    rng = np.random.default_rng(0)
    scale = rng.random(shape.K).astype(np.float32) + 0.5
    weight = QuantizedWeight(weight_of("binary", shape).codes, scale, channel_sign=rng.choice([-1, 1], shape.C))
    x = rng.standard_normal((1, shape.C, shape.H, shape.W)).astype(np.float32)
    y = kernels.conv2d(kernels.prepare(algorithm, weight, shape, isa=isa, encoding=encoding), x)
    # n terms in any order: |error| <= n * eps * sum |x*w|; the rewritten form sums twice the plus side and the total.
    terms = shape.C * shape.R * shape.S * (1 if encoding == "two_group" else 3)
    bound = terms * np.finfo(np.float32).eps * convolve(abs(weight.dense()), abs(x), shape)
    error = abs(y - convolve(weight.dense(), x, shape))
    assert (error <= bound).all()


@pytest.mark.parametrize("algorithm", kernels.ALGORITHMS)
@pytest.mark.parametrize("shape", [ConvShape(9, 13, 12, 11, N=3), ConvShape(16, 7, 7, 16)], ids=["batch", "one strip"])
def test_two_threads_equal_one(shape, algorithm):
    weight = weight_of("ternary_ttq", shape)
    x = np.random.default_rng(2).standard_normal((shape.N, shape.C, shape.H, shape.W)).astype(np.float32)
    group = 4 if algorithm == "table" else 0
    one, two, more = (kernels.prepare(algorithm, weight, shape, group=group, threads=t) for t in (1, 2, 7))
    expected = kernels.conv2d(one, integers(shape))
    assert (kernels.conv2d(two, integers(shape)) == expected).all()
    assert (kernels.conv2d(more, integers(shape)) == expected).all()
    np.testing.assert_allclose(kernels.conv2d(two, x), kernels.conv2d(one, x), rtol=0, atol=1e-4)


def test_concurrent_calls_on_one_plan():
    shape = ConvShape(8, 20, 20, 16)
    weight = weight_of("signed_binary", shape)
    prepared = kernels.prepare("table", weight, shape)
    inputs = [integers(shape, seed) for seed in range(4)]
    expected = [kernels.conv2d(prepared, x) for x in inputs]
    wrong = []

    def work(i):
        for _ in range(50):
            if not (kernels.conv2d(prepared, inputs[i]) == expected[i]).all():
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("algorithm", ["sparse", "table"])
def test_skipped_zeros_touch_no_activation(algorithm):
    shape = ConvShape(8, 6, 6, 2)
    codes = np.zeros((2, 8, 3, 3), np.int8)
    codes[:, :4] = 1
    x = integers(shape)
    x[:, 4:] = np.nan
    y = kernels.conv2d(kernels.prepare(algorithm, QuantizedWeight(codes), shape), x)
    x[:, 4:] = 0
    assert (y == convolve(codes, x, shape)).all()
    assert np.isnan(dense(QuantizedWeight(codes), np.full_like(x, np.nan), shape)).all()


# ---- Operation counts ------------------------------------------------------------------------------------------------

HAND = ConvShape(4, 3, 3, 2, 1, 1, padding=0)  # 9 output positions, 4 weights a filter


@pytest.mark.parametrize(
    "algorithm,group,skip_zeros,entry,table,combine,multiplies",
    [
        # Filter 0 is [+1, +1, 0, 0], filter 1 is [+1, 0, -1, 0]: 3 rows, so 3 multiplies and 1 add to combine.
        ("dense", 0, True, 8, 0, 0, 8),
        ("sparse", 0, True, 4, 0, 1, 3),
        ("sparse", 0, False, 8, 0, 3, 5),  # each filter's zeros are a further row
        ("table", 2, True, 3, 2, 1, 3),  # two tables of 2^2 - 2 - 1 adds; each row needs one of them
        ("table", 2, False, 6, 2, 1, 3),  # each row takes an entry of both
        ("table", 4, True, 3, 11, 1, 3),
        ("table", 3, True, 3, 4, 1, 3),  # groups of 3 and of 1 channels
    ],
)
def test_operations_counted_by_hand(algorithm, group, skip_zeros, entry, table, combine, multiplies):
    codes = np.array([[1, 1, 0, 0], [1, 0, -1, 0]], np.int8).reshape(2, 4, 1, 1)
    prepared = kernels.prepare(algorithm, QuantizedWeight(codes), HAND, group=group, skip_zeros=skip_zeros)
    assert prepared.adds == {"entry": 9 * entry, "table": 9 * table, "combine": 9 * combine}
    assert prepared.operations == (9 * (entry + table + combine), 9 * multiplies)


def test_operations_of_the_rewritten_encoding():
    codes = np.array([[1, 1, -1, 1], [-1, -1, -1, -1]], np.int8).reshape(2, 4, 1, 1)
    prepared = kernels.prepare("sparse", QuantizedWeight(codes), HAND, encoding="rewritten")
    # Rows: the +1 of filter 0 (3 entries), none of filter 1, and the shared total (4 entries).
    assert prepared.adds == {"entry": 9 * 7, "table": 0, "combine": 9}
    assert prepared.operations.multiplies == 9 * 3


@pytest.mark.parametrize("isa", ISAS)
def test_operations_do_not_depend_on_the_isa(isa):
    shape = ConvShape(8, 14, 14, 4, stride=2)
    weight = weight_of("ternary_twn", shape)
    first = kernels.prepare("table", weight, shape, isa="scalar", group=4)
    prepared = kernels.prepare("table", weight, shape, isa=isa, group=4)
    assert prepared.adds == first.adds and prepared.operations == first.operations
    assert prepared.adds["table"] == 15 * 15 * 2 * 11  # 7 outputs at stride 2 touch 15 of 16 rows


def test_signed_binary_costs_what_zero_one_costs():
    shape = ConvShape(16, 8, 8, 8)
    weight = weight_of("signed_binary", shape)
    sb = kernels.prepare("table", weight, shape, group=4)
    zero_one = kernels.prepare("table", QuantizedWeight(abs(weight.codes)), shape, group=4)
    assert sb.operations == zero_one.operations


# ---- Bad input -------------------------------------------------------------------------------------------------------

SMALL = ConvShape(4, 6, 6, 3)


def small_weight(**changes) -> QuantizedWeight:
    return QuantizedWeight(**{"codes": weight_of("binary", SMALL).codes} | changes)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"algorithm": "fast"}, r"algorithm = 'fast'; allowed: dense, sparse, table"),
        ({"encoding": "one_hot"}, r"encoding = 'one_hot'; allowed: two_group, rewritten"),
        ({"isa": "sse9"}, r"isa = 'sse9'; allowed: auto, scalar"),
        ({"group": 11}, r"group = 11; allowed: an integer from 0 to 10"),
        ({"group": -1}, r"group = -1"),
        ({"group": 2.0}, r"group = 2\.0"),
        ({"group": 4, "algorithm": "sparse"}, r"group = 4 with algorithm 'sparse'"),
        ({"threads": 0}, r"threads = 0; allowed: an integer from 1 to 1024"),
        ({"threads": True}, r"threads = True"),
        ({"encoding": "rewritten", "algorithm": "dense"}, r"encoding = 'rewritten' with algorithm 'dense'"),
        ({"shape": ConvShape(5, 6, 6, 3)}, r"codes have shape \(3, 4, 3, 3\); allowed for this layer: \(3, 5, 3, 3\)"),
        ({"encoding": "rewritten", "weight": weight_of("zero_one", SMALL)}, r"codes that hold 0"),
        ({"encoding": "rewritten", "weight": small_weight(negative_scale=np.full(3, 2.0))}, r"with two scales"),
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
    ],
)
def test_prepare_refuses_the_wrong_type(arguments, message):
    arguments = {"algorithm": "table", "weight": small_weight(), "shape": SMALL} | arguments
    with pytest.raises(TypeError, match=message):
        kernels.prepare(**arguments)


GOOD = np.zeros((1, 4, 6, 6), np.float32)


@pytest.mark.parametrize("algorithm", ["dense", "table"])
@pytest.mark.parametrize(
    "x,error,message",
    [
        (GOOD.astype(np.float64), TypeError, "x has dtype float64; allowed: float32"),
        (GOOD.astype(">f4"), TypeError, "x has dtype >f4; allowed: float32"),
        (GOOD[0], ValueError, r"x has shape \(4, 6, 6\); allowed: \(1, 4, 6, 6\)"),
        (GOOD[:, :3].copy(), ValueError, r"x has shape \(1, 3, 6, 6\)"),
        (np.zeros((0, 4, 6, 6), np.float32), ValueError, r"x has shape \(0, 4, 6, 6\)"),
        (np.zeros((1, 4, 6, 12), np.float32)[..., ::2], ValueError, "x is not C-contiguous"),
        (np.asfortranarray(GOOD), ValueError, "x is not C-contiguous"),
        (np.zeros(4 * 36 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(1, 4, 6, 6), ValueError, "and aligned"),
        (GOOD.tolist(), TypeError, "x is a list; allowed: a float32 numpy array"),
        (None, TypeError, "x is a NoneType"),
    ],
)
def test_conv2d_refuses(x, error, message, algorithm):
    prepared = kernels.prepare(algorithm, small_weight(), SMALL)
    with pytest.raises(error, match=message):
        kernels.conv2d(prepared, x)


def test_conv2d_refuses_what_prepare_did_not_return():
    with pytest.raises(TypeError, match="prepared is a str; allowed: what prepare"):
        kernels.conv2d("table", GOOD)


def test_a_window_too_large_for_its_group_is_refused():
    shape = ConvShape(2, 9, 9, 1, 9, 9)
    with pytest.raises(ValueError, match="9x9 window with group 10 needs more than 65536 slots"):
        kernels.prepare("table", QuantizedWeight(np.ones((1, 2, 9, 9), np.int8)), shape, group=10)


@pytest.mark.parametrize("huge", [ConvShape(1, 2**21, 2**21, 1), ConvShape(1, 1, 1, 1, padding=2**22)])
def test_sizes_that_overflow_are_refused(huge):
    with pytest.raises(ValueError, match=r"sizes exceed 2\^40 elements"):
        kernels.prepare("table", QuantizedWeight(np.ones((1, 1, 3, 3), np.int8)), huge)


def test_a_dimension_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"dims hold 16777217; allowed: 1 \(padding: 0\) to 2\^24"):
        kernels.prepare("table", QuantizedWeight(np.ones((1, 1, 3, 3), np.int8)), ConvShape(1, 2**24 + 1, 3, 1))


def test_build_info_and_isas():
    info = kernels.build_info()
    assert set(info) == {"compiler", "flags", "openmp", "isas"}
    assert kernels.isas()[0] == "scalar" and set(kernels.isas()) <= set(info["isas"])


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
    run = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.count("libgomp") == 1, run.stdout
