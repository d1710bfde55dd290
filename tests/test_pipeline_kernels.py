"""The steps of pipelines in C++, each against a plain formula with `==`, and pipelines that cannot be."""

import layers
import numpy as np
import pytest

from sbkit import kernels
from sbkit.conv import ConvShape

GENERATOR = np.random.default_rng(0)
isas = pytest.mark.parametrize("isa", kernels.isas(activation_bits=8))


def random_bytes(size: tuple[int, ...]) -> np.ndarray:
    return GENERATOR.integers(0, 256, size).astype(np.uint8)


def alone(step, x: np.ndarray) -> np.ndarray:
    return kernels.pipeline(1, [(step, 0, -1)], [1]).run([x])[0]


def full(shape: ConvShape, weight: np.ndarray, bias: np.ndarray, **options):
    """A step in full precision of `shape`."""
    dims = (shape.N, shape.C, shape.H, shape.W, shape.K, shape.R, shape.S, shape.stride, shape.padding)
    values = {"weights": weight.astype(np.float32), "bias": bias.astype(np.float32), "dims": dims, "bits": 7}
    return kernels.step("full", **values, **{"floats": True, "isa": "scalar", "threads": 1, **options})


@isas
@pytest.mark.parametrize("floats", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", layers.SHAPES, ids=lambda shape: shape.name)
def test_layers_in_full_precision(shape, threads, floats, isa):
    weight = GENERATOR.integers(-8, 9, (shape.K, shape.C, shape.R, shape.S)) / 4  # every order adds them exactly
    bias = GENERATOR.integers(0, 200, shape.K) + 0.5
    size = shape.N, shape.C, shape.H, shape.W
    step = full(shape, weight, bias, floats=floats, isa=isa, threads=threads)
    for _ in range(2):  # whatever the first call left in the step's buffers
        x = GENERATOR.integers(-9, 10, size).astype(np.float32) if floats else random_bytes(size)
        sums = layers.convolve(weight, x, shape) + bias[:, None, None]
        assert np.array_equal(alone(step, x), np.rint(sums.clip(0, 127)).astype(np.uint8))


@isas
@pytest.mark.parametrize("count", [1, 15, 16, 64])
def test_tables_of_bytes(count, isa):
    x = np.concatenate([np.arange(256, dtype=np.uint8), random_bytes((count,))]).reshape(1, 1, 1, -1)
    factors = [0.0, 0.1234, 0.25, 1.0, 7.7, 255.0, *np.exp(GENERATOR.uniform(-5, 1, 20))]
    products = [np.clip(np.rint(np.arange(256) * factor), 0, most) for factor in factors for most in (3, 63, 255)]
    others = random_bytes((256,)), np.full(256, 9), np.append(np.full(255, 9), 0)
    for table in (*products, *others):
        table = table.astype(np.uint8)
        assert np.array_equal(alone(kernels.step("regrid", shape=x.shape, table=table, isa=isa), x), table[x])


def test_rules_of_tables():
    """A table without halves that are rounded to even has a rule, whose 16-bit arithmetic gives all entries."""
    x = np.arange(256)
    for factor in np.exp(GENERATOR.uniform(-5, 1, 100)):
        for most in (3, 15, 63, 255):
            table = np.clip(np.rint(x * factor), 0, most).astype(np.uint8)
            multiplier, bias, shift, largest = kernels._kernels.regrid_rule(table)
            sums = (x * multiplier >> 8) + bias
            assert sums.max() < 2**16 and np.array_equal(np.minimum(sums >> shift, largest), table)
    for table in (random_bytes((256,)), np.append(np.full(255, 9), 0)):
        assert kernels._kernels.regrid_rule(table.astype(np.uint8)) is None


@pytest.mark.parametrize("size", [(11, 14), (5, 6), (9, 40), (16, 16)])
@pytest.mark.parametrize(
    "window, stride, padding",
    [
        ((2, 2), (2, 2), (0, 0)),
        ((3, 3), (2, 2), (1, 1)),
        ((2, 3), (1, 3), (1, 0)),
        ((4, 5), (2, 2), (2, 1)),
        ((1, 4), (3, 2), (2, 3)),  # the first row of windows lies beside the image
    ],
)
def test_pools(window, stride, padding, size):
    x = random_bytes((2, 3, *size))
    padded = np.pad(x, ((0, 0), (0, 0), *((each, each) for each in padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(2, 3))
    step = kernels.step("max_pool", shape=x.shape, window=window, stride=stride, padding=padding)
    assert np.array_equal(alone(step, x), windows[:, :, :: stride[0], :: stride[1]].max((4, 5)))


@isas
@pytest.mark.parametrize("channels, classes", [(3, 1), (7, 10), (64, 1000), (5, 64)])
def test_heads(channels, classes, isa):
    x = random_bytes((2, channels, 3, 5))
    weight = GENERATOR.integers(-8, 9, (classes, channels)) / 4  # every order adds them exactly
    bias = GENERATOR.integers(0, 200, classes) + 0.5
    values = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    found = alone(kernels.step("head", shape=x.shape, isa=isa, **values), x)
    assert found.dtype == np.float32 and np.array_equal(found, x.sum((2, 3)) @ weight.T + bias)


POOL = {"shape": (1, 2, 5, 4), "window": (3, 1), "stride": (1, 1), "padding": (0, 0)}


@pytest.mark.parametrize(
    "links, outputs, message",
    [
        ([(0, -1)], [0], "output 0; allowed: results of links"),
        ([(0, -1)], [2], "output 2; allowed: results of links"),
        ([(1, -1)], [1], "tensor 1 of link 0; allowed: one before the link's own"),
        ([(-1, -1)], [1], "tensor -1 of link 0; allowed: one before the link's own"),
        ([(0, 0)], [1], "link 0 has a residual; allowed: none"),
        ([(0, -2)], [1], "residual -2 of link 0; allowed: -1"),
        ([(0, -1)], [1, 1], "output 1 occurs twice; allowed: each result once"),
        ([(0, -1), (1, -1)], [2], r"tensor 1 of link 1 has bytes of shape \(1, 2, 3, 4\); allowed: "),
    ],
)
def test_bad_links_are_refused(links, outputs, message):
    step = kernels.step("max_pool", **POOL)
    with pytest.raises(ValueError, match=message):
        kernels.pipeline(1, [(step, *link) for link in links], outputs)


def test_floats_are_no_bytes():
    head = {"weight": np.ones((4, 2), np.float32), "bias": np.zeros(4, np.float32), "isa": "scalar"}
    step = kernels.step("head", shape=(1, 2, 5, 4), **head)
    with pytest.raises(ValueError, match=r"tensor 1 of link 1 has floats of shape \(1, 4\); allowed: bytes"):
        kernels.pipeline(1, [(step, 0, -1), (kernels.step("max_pool", **POOL), 1, -1)], [2])
    with pytest.raises(ValueError, match=r"weight has shape \(4, 2\); allowed: \(4, 3\)"):
        kernels.step("head", shape=(1, 3, 5, 4), **head)


def test_a_link_without_a_step_is_refused():
    with pytest.raises(ValueError, match="link 0 has no step; allowed: one"):
        kernels.pipeline(1, [(None, 0, -1)], [1])


def test_an_input_of_no_link_and_a_layer_of_raw_sums_are_refused():
    with pytest.raises(ValueError, match="input 1 is of no link; allowed: of one"):
        kernels.pipeline(2, [(kernels.step("max_pool", **POOL), 0, -1)], [2])
    weight = np.ones((3, 4, 3, 3), np.int8)
    raw = kernels._kernels.IntegerConvolution(
        algorithm="dense", codes=weight, dims=(1, 4, 5, 5, 3, 3, 3, 1, 1), activation_bits=8, isa="scalar", lane_bits=0,
        group=0, rewritten=False, threads=1, rounding=None,
    )  # fmt: skip
    with pytest.raises(ValueError, match="a layer without a rounding in a pipeline; allowed: "):
        kernels.pipeline(1, [(raw, 0, -1)], [1])


def test_bad_inputs_are_refused():
    shape = ConvShape(C=3, H=9, W=11, K=5)
    pipeline = kernels.pipeline(1, [(full(shape, np.zeros((5, 3, 3, 3)), np.zeros(5)), 0, -1)], [1])
    with pytest.raises(TypeError, match="x has dtype float64; allowed: float32"):
        pipeline.run([np.zeros((1, 3, 9, 11))])
    with pytest.raises(ValueError, match=r"x has shape \(1, 3, 9, 10\); allowed: \(1, 3, 9, 11\)"):
        pipeline.run([np.zeros((1, 3, 9, 10), np.float32)])
    with pytest.raises(ValueError, match="inputs = 2; allowed: 1 to 1"):
        pipeline.run([np.zeros((1, 3, 9, 11), np.float32)] * 2)


@pytest.mark.parametrize("option", [{"window": (9, 1)}, {"stride": (0, 1)}, {"padding": (-1, 0)}, {"window": (1,)}])
def test_pools_that_cannot_be_are_refused(option):
    with pytest.raises(ValueError, match=r"pool|pair"):
        kernels.step("max_pool", **POOL | option)
