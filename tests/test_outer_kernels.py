"""Outer layers in C++ against a plain convolution with `==`, and what they refuse."""

import layers
import numpy as np
import pytest

from sbkit import kernels
from sbkit.conv import ConvShape
from sbkit.integers import Rounding

GENERATOR = np.random.default_rng(0)
isas = pytest.mark.parametrize("isa", kernels.isas(activation_bits=8))
SHAPES = [
    *layers.SHAPES,
    ConvShape(C=3, H=21, W=40, K=6, R=7, S=7, stride=2, padding=3, name="7x7 stride 2"),
    ConvShape(C=5, H=12, W=33, K=9, R=1, S=1, stride=2, padding=0, name="1x1 stride 2, 5 channels"),
    ConvShape(C=64, H=7, W=9, K=8, R=1, S=1, stride=3, padding=0, N=2, name="1x1 stride 3"),
]


def outer(shape: ConvShape, weights: np.ndarray, **options):
    values = {"scale": np.ones(shape.K, np.float32), "bias": np.zeros(shape.K, np.float32), "bits": 8, "zero": 0}
    dims = (shape.N, shape.C, shape.H, shape.W, shape.K, shape.R, shape.S, shape.stride, shape.padding)
    values |= {"weights": weights.astype(np.int8), "dims": dims, "isa": "scalar", "threads": 1}
    return kernels.step("outer", **values | options)


def alone(step, x: np.ndarray) -> np.ndarray:
    return kernels.pipeline(1, [(step, 0, -1)], [1]).run([x])[0]


@isas
@pytest.mark.parametrize("zero", [0, 128])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_equals_exact_sums_rounded(shape, threads, zero, isa):
    weights = GENERATOR.integers(-63, 64, (shape.K, shape.C, shape.R, shape.S))
    scale = GENERATOR.uniform(0.002, 0.02, shape.K).astype(np.float32)
    bias = GENERATOR.uniform(-50, 100, shape.K).astype(np.float32)
    for bits in (8, 6):
        step = outer(shape, weights, scale=scale, bias=bias, bits=bits, zero=zero, isa=isa, threads=threads)
        rounding = Rounding(scale, bias, bits=bits)
        for _ in range(2):  # whatever the first call left in the step's buffers
            x = GENERATOR.integers(0, 256, (shape.N, shape.C, shape.H, shape.W)).astype(np.uint8)
            sums = layers.convolve(weights, x.astype(np.int64) - zero, shape)
            assert np.array_equal(alone(step, x), rounding.apply(sums.astype(np.int32)))


@isas
@pytest.mark.parametrize(("weight", "zero"), [(63, 0), (-63, 0), (63, 255), (-63, 255), (-63, 128)])
def test_the_largest_sums_are_exact(weight, zero, isa):
    """Of two neighbouring products, in 16 bits, and of all; a single tap less tells them apart."""
    shape = ConvShape(C=16, H=9, W=20, K=5)
    weights = np.full((5, 16, 3, 3), weight)
    weights[2, 3, 1, 1] = 0
    x = np.full((1, 16, 9, 20), 255 if zero < 255 else 0, np.uint8)
    sums = layers.convolve(weights, x.astype(np.int64) - zero, shape)
    most = np.abs(sums).max()
    scale = np.full(5, 250 / most, np.float32) * np.sign(sums[0, 0, 4, 4]).astype(np.float32)
    rounding = Rounding(scale, np.zeros(5, np.float32))
    found = alone(outer(shape, weights, scale=scale, zero=zero, isa=isa), x)
    assert np.array_equal(found, rounding.apply(sums.astype(np.int32))) and found.max() == 250


@isas
@pytest.mark.parametrize(("zero", "bits"), [(0, 8), (128, 8), (0, 4), (8, 4)])
@pytest.mark.parametrize("count", [1, 7, 16, 33, 3072])
def test_bytes_of_floats(count, zero, bits, isa):
    """Ties go to the even one before `zero` is added, as in torch."""
    step = np.float32(0.0371)
    x = (GENERATOR.standard_normal(count) * 2**bits / 2).astype(np.float32) * step
    x[::3] = (GENERATOR.integers(-300, 300, len(x[::3])) + 0.5) * step
    x[-1] = np.float32(1e30 * (-1) ** count)
    expected = np.rint(x / step).clip(-zero, 2**bits - 1 - zero) + zero
    made = kernels.step("quantize", shape=(1, 1, 1, count), step=float(step), zero=zero, bits=bits, isa=isa)
    assert np.array_equal(alone(made, x.reshape(1, 1, 1, -1)).ravel(), expected.astype(np.uint8))


@isas
def test_what_is_no_number_becomes_0_and_infinity_the_largest(isa):
    x = np.array([np.nan, np.inf, -np.inf, 0], np.float32).reshape(1, 1, 1, 4)
    found = alone(kernels.step("quantize", shape=x.shape, step=0.5, zero=128, bits=8, isa=isa), x).ravel()
    assert found.tolist() == [0, 255, 0, 128]


SHAPE = ConvShape(C=3, H=9, W=11, K=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.full((5, 3, 3, 3), 64, np.int8)}, "a weight of 64; allowed: -63 to 63"),
        ({"weights": np.full((5, 3, 3, 3), -128, np.int8)}, "a weight of -128; allowed: -63 to 63"),
        ({"weights": np.zeros((5, 3, 3, 2), np.int8)}, r"weights has shape \(5, 3, 3, 2\); allowed: \(5, 3, 3, 3\)"),
        ({"scale": np.ones(4, np.float32)}, r"scale has shape \(4,\); allowed: \(5,\)"),
        ({"zero": 256}, "zero = 256; allowed: 0 to 255"),
        ({"bits": 9}, "bits = 9; allowed: 2 to 8"),
        ({"threads": 0}, "threads = 0; allowed: 1 to"),
        ({"isa": "sse"}, "isa = .*sse"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        kernels.step(
            "outer",
            **{
                "weights": np.zeros((5, 3, 3, 3), np.int8), "scale": np.ones(5, np.float32),
                "bias": np.zeros(5, np.float32), "dims": (1, 3, 9, 11, 5, 3, 3, 1, 1), "bits": 8, "zero": 0,
                "isa": "scalar", "threads": 1,
            } | options,
        )  # fmt: skip


def test_sums_beyond_32_bits_are_refused():
    shape = ConvShape(C=75_000, H=1, W=1, K=1, R=1, S=1, padding=0)
    with pytest.raises(ValueError, match=r"C \* R \* S = 75000 of weights of 7 bits; allowed: at most 66837"):
        outer(shape, np.zeros((1, 75_000, 1, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.0}, "step = 0.*; allowed: a positive float32"),
        ({"step": 1e-50}, "step = 0.*; allowed: a positive float32"),
        ({"step": float("nan")}, "step = .*nan; allowed: a positive float32"),
        ({"step": float("inf")}, "step = inf; allowed: a positive float32"),
        ({"shape": (1, 2)}, "a shape of other than four dimensions"),
        ({"bits": 1}, "bits = 1; allowed: 2 to 8"),
        ({"zero": -1}, "zero = -1; allowed: 0 to 255"),
        ({"zero": 16, "bits": 4}, "zero = 16; allowed: 0 to 15"),
    ],
)
def test_a_bad_grid_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        kernels.step(
            "quantize", **{"shape": (1, 1, 1, 4), "step": 0.5, "zero": 0, "bits": 8, "isa": "scalar"} | options
        )
