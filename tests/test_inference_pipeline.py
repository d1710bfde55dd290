"""Pipelines as modules: buffers that tensors share, copies, forked children."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from forked import forked
from torch import nn

from sbkit import kernels
from sbkit.conv import ConvShape
from sbkit.inference.integers import IntegerPool
from sbkit.inference.layers import FullConv2d
from sbkit.inference.pipeline import Link, Pipeline

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


def test_tensors_share_buffers_without_meeting():
    """A residual that is read late, a result that is read twice, and several outputs."""
    shape = ConvShape(C=4, H=6, W=6, K=4)
    layers = [full(shape, False, "scalar")[0] for _ in range(4)]
    pool = IntegerPool(nn.MaxPool2d(3, 1, 1), (1, 4, 6, 6))
    links = [Link("a", 0), Link("b", 1), Link("pool", 1), Link("c", 2), Link("d", 3)]
    pipeline = Pipeline(links, [layers[0], layers[1], pool, layers[2], layers[3]], 1, [4, 5])
    x = torch.from_numpy(random_bytes((1, 4, 6, 6)))
    every = pipeline.every(x)
    tensors = [x, *every.values()]
    for link, part, found in zip(links, pipeline.parts, every.values(), strict=True):
        alone = Pipeline([Link("alone", 0)], [part], 1, [1])
        assert torch.equal(alone(tensors[link.x]), found)
    assert all(torch.equal(a, b) for a, b in zip(pipeline(x), (every["c"], every["d"]), strict=True))
    again = pickle.loads(pickle.dumps(pipeline))
    assert all(torch.equal(a, b) for a, b in zip(again(x), pipeline(x), strict=True))


def test_a_forked_child_has_steps_of_its_own():
    layer, x, expected = full(ConvShape(C=3, H=9, W=11, K=5), True, kernels.isas()[-1], threads=2)
    pipeline = Pipeline([Link("layer", 0)], [layer], 1, [1])
    assert torch.equal(pipeline(x), expected)  # whose threads and lock the child has not

    def task():
        assert torch.equal(pipeline(x), expected) and torch.equal(pipeline.every(x)["layer"], expected)

    assert forked(task)() == 0


def test_two_pipelines_run_the_same_steps_at_once():
    """`every` has a pipeline of its own on the steps of `forward`."""
    pool = IntegerPool(nn.MaxPool2d(3, 2, 1), (1, 32, 40, 40))
    pipeline = Pipeline([Link("pool", 0)], [pool], 1, [1])
    images = [torch.from_numpy(random_bytes((1, 32, 40, 40))) for _ in range(2)]
    expected = [pipeline(x) for x in images]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(100):
            found = threads.submit(pipeline.every, images[0]), threads.submit(pipeline, images[1])
            assert torch.equal(found[0].result()["pool"], expected[0]) and torch.equal(found[1].result(), expected[1])
