"""Chains of steps from integers to integers: each step against plain formulas, the chain's buffers, bad links."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forked import forked
from torch import nn

from sbkit import kernels
from sbkit.conv import ConvShape
from sbkit.inference.chain import Chain, Link
from sbkit.inference.integers import IntegerPool
from sbkit.inference.layers import FullConv2d

GENERATOR = np.random.default_rng(0)


def full(shape: ConvShape, floats: bool, isa: str, threads: int = 1) -> tuple[FullConv2d, torch.Tensor, torch.Tensor]:
    """A layer of small integers, which every order of summation adds exactly, its input, and what it must return."""
    weight = GENERATOR.integers(-8, 9, (shape.K, shape.C, shape.R, shape.S)) / 4
    bias = GENERATOR.integers(0, 200, shape.K) + 0.5
    size = shape.N, shape.C, shape.H, shape.W
    x = torch.from_numpy(GENERATOR.integers(-9, 10, size).astype(np.float32) if floats else random_bytes(size))
    options = {"bits": 7, "takes_integers": not floats, "isa": isa, "threads": threads}
    sums = F.conv2d(x.double(), torch.from_numpy(weight), torch.from_numpy(bias), shape.stride, shape.padding)
    return FullConv2d(weight, bias, shape, **options), x, sums.round().clamp(0, 127).to(torch.uint8)


def random_bytes(size: tuple[int, ...]) -> np.ndarray:
    return GENERATOR.integers(0, 256, size).astype(np.uint8)


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("floats", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [
        ConvShape(C=3, H=19, W=23, K=7, R=7, S=7, stride=2, padding=3, N=2),
        ConvShape(C=3, H=9, W=11, K=5),
        ConvShape(C=5, H=8, W=8, K=6, R=1, S=1, stride=2, padding=0),
        ConvShape(C=1, H=5, W=6, K=3, R=2, S=2),
        ConvShape(C=4, H=13, W=10, K=9, stride=3, padding=2, N=3),
        ConvShape(C=2, H=6, W=40, K=4, R=1, S=5, stride=1, padding=2),
        ConvShape(C=7, H=3, W=3, K=1, R=1, S=1, stride=4, padding=0),
    ],
    ids=str,
)
def test_layers_in_full_precision(shape, threads, floats, isa):
    layer, x, expected = full(shape, floats, isa, threads)
    chain = Chain([Link("layer", 0)], [layer], 1, [1])
    assert torch.equal(chain(x), expected)
    assert torch.equal(chain(x), expected)  # whatever the first call left in its buffers


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("count", [1, 15, 16, 37])
def test_tables_of_bytes(count, isa):
    x = np.concatenate([np.arange(256, dtype=np.uint8), random_bytes((count,))]).reshape(1, 1, 1, -1)
    products = [np.clip(np.rint(np.arange(256) * factor), 0, 63) for factor in (0.0, 0.1234, 0.25, 1.0, 7.7)]
    for table in (*products, random_bytes((256,)), np.full(256, 9)):  # the last two are no products
        table = table.astype(np.uint8)
        step = kernels.chain_step("regrid", shape=x.shape, table=table, isa=isa)
        assert np.array_equal(kernels.chain(1, [(step, 0, -1)], [1]).run([x])[0], table[x])


def test_tensors_share_buffers_without_meeting():
    """A residual that is read late, a result that is read twice, and several outputs."""
    shape = ConvShape(C=4, H=6, W=6, K=4)
    layers = [full(shape, False, "scalar")[0] for _ in range(4)]
    pool = IntegerPool(nn.MaxPool2d(3, 1, 1), (1, 4, 6, 6))
    links = [Link("a", 0), Link("b", 1), Link("pool", 1), Link("c", 2), Link("d", 3)]
    chain = Chain(links, [layers[0], layers[1], pool, layers[2], layers[3]], 1, [4, 5])
    x = torch.from_numpy(random_bytes((1, 4, 6, 6)))
    every = chain.every(x)
    tensors = [x, *every.values()]
    for link, part, found in zip(links, chain.parts, every.values(), strict=True):
        alone = Chain([Link("alone", 0)], [part], 1, [1])
        assert torch.equal(alone(tensors[link.x]), found)
    assert all(torch.equal(a, b) for a, b in zip(chain(x), (every["c"], every["d"]), strict=True))
    again = pickle.loads(pickle.dumps(chain))
    assert all(torch.equal(a, b) for a, b in zip(again(x), chain(x), strict=True))


def test_a_forked_child_has_steps_of_its_own():
    layer, x, expected = full(ConvShape(C=3, H=9, W=11, K=5), True, kernels.isas()[-1], threads=2)
    chain = Chain([Link("layer", 0)], [layer], 1, [1])
    assert torch.equal(chain(x), expected)  # whose threads and lock the child has not

    def task():
        assert torch.equal(chain(x), expected) and torch.equal(chain.every(x)["layer"], expected)

    assert forked(task)() == 0


@pytest.mark.parametrize(
    "links, outputs, message",
    [
        ([(0, -1)], [0], "output 0; allowed: results of links"),
        ([(0, -1)], [2], "output 2; allowed: results of links"),
        ([(1, -1)], [1], "tensor 1 of link 0; allowed: one before the link's own"),
        ([(0, 0)], [1], "link 0 has a residual; allowed: none"),
        (
            [(0, -1), (1, -1)],
            [2],
            r"tensor 1 of link 1 has bytes of shape \(1, 2, 3, 4\); allowed: ",
        ),
    ],
)
def test_bad_links_are_refused(links, outputs, message):
    shapes = [(1, 2, 5, 4), (1, 2, 5, 4)]
    steps = [kernels.chain_step("max_pool", shape=s, window=(3, 1), stride=(1, 1), padding=(0, 0)) for s in shapes]
    with pytest.raises(ValueError, match=message):
        kernels.chain(1, [(step, *link) for step, link in zip(steps, links, strict=False)], outputs)


def test_bad_inputs_are_refused():
    layer, x, _ = full(ConvShape(C=3, H=9, W=11, K=5), True, "scalar")
    chain = Chain([Link("layer", 0)], [layer], 1, [1])
    with pytest.raises(TypeError, match="x has dtype float64; allowed: float32"):
        chain.native.run([x.double().numpy()])
    with pytest.raises(ValueError, match=r"x has shape \(1, 3, 9, 10\); allowed: \(1, 3, 9, 11\)"):
        chain.native.run([np.zeros((1, 3, 9, 10), np.float32)])
    with pytest.raises(ValueError, match="inputs = 2; allowed: 1 to 1"):
        chain.native.run([x.numpy(), x.numpy()])
    for options in ({"window": (9, 1)}, {"stride": (0, 1)}, {"padding": (-1, 0)}):
        with pytest.raises(ValueError, match="pool"):
            kernels.chain_step(
                "max_pool", shape=(1, 2, 5, 4), **{"window": (2, 2), "stride": (1, 1), "padding": (0, 0)} | options
            )
