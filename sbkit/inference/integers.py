"""Integers between the layers of a network: which activations are integers, and what stands at their borders.

A learned step writes step * q with integers q. In a lowered network such activations are uint8 tensors: q itself, and
q + 128 where q is signed, which the next layer takes out again. The node of such a tensor holds its `Grid`.

    convolution -> norm -> (+ residual) -> ReLU -> (max pools) -> step     one kernel, from uint8 to uint8; a max pool
                                                                           is monotone, so it may as well come last
    the same of a layer in full precision, without residual                a kernel of floats between integers
    the same of an `OuterConv2d`, without residual                         a kernel of integers of any sign
    step of what is uint8 already                                          a table of 256 entries, exact
    step of floats before a kernel                                         its formula, in a pipeline if of an image
    step that floats follow                                                its formula, in torch

A convolution whose result has no such step gives exact sums, which torch scales. Whatever of these follows one another
without a break, the mean and the last layer included, is one call, a `Pipeline`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from sbkit import kernels
from sbkit.inference.graph import Step, calls_of, is_call, module_of, only_user, past_pools, replace, shape_of
from sbkit.inference.layers import FullConv2d, Head, KernelConv2d, OuterKernel
from sbkit.models.layers import RELU
from sbkit.way import MOST_BITS


class Grid(NamedTuple):
    """What uint8 activations q stand for: step * (q - zero), with q from 0 to 2^bits - 1."""

    step: float
    zero: int
    bits: int

    @classmethod
    def of(cls, step: Step) -> Grid:
        return cls(step.step, -step.low, (step.high - step.low).bit_length())


def grid(node: object) -> Grid | None:
    """The grid of a node whose result is, or can be, uint8 activations; None of any other object."""
    return node.meta.get("grid") if isinstance(node, fx.Node) else None


def note_grids(traced: fx.GraphModule) -> None:
    for node in calls_of(traced, Step):
        node.meta["grid"] = Grid.of(module_of(traced, node))


class FromFloats(nn.Module):
    """float32 activations of a shape as uint8 ones: clamp(round(x / step), low, high) + zero."""

    def __init__(self, grid: Grid, shape: tuple[int, ...], isa: str):
        super().__init__()
        self.grid, self.shape, self.isa = grid, shape, isa

    def step(self) -> Any:
        """The step of a pipeline, of an image."""
        isa = kernels.usable_isa(self.isa, MOST_BITS)
        return kernels.step("quantize", shape=self.shape, isa=isa, **self.grid._asdict())

    def forward(self, x: Tensor) -> Tensor:
        low, high = -self.grid.zero, 2**self.grid.bits - 1 - self.grid.zero
        q = (x / self.grid.step).round_().clamp_(low, high)
        return (q.add_(self.grid.zero) if self.grid.zero else q).to(torch.uint8).contiguous()


class ToFloats(nn.Module):
    """uint8 activations as float32 ones: step * (q - zero)."""

    def __init__(self, grid: Grid):
        super().__init__()
        self.grid = grid

    def forward(self, q: Tensor) -> Tensor:
        x = q.to(torch.float32)
        return (x - self.grid.zero if self.grid.zero else x) * self.grid.step


class Regrid(nn.Module):
    """uint8 activations of one grid as those of another, by a table that holds what their steps in torch compute."""

    def __init__(self, source: Grid, target: Grid, shape: tuple[int, ...], isa: str):
        super().__init__()
        every = torch.arange(256, dtype=torch.uint8)
        self.table = FromFloats(target, (256,), isa)(ToFloats(source)(every)).numpy()
        self.shape, self.isa = shape, isa

    def step(self) -> Any:
        """The step of a pipeline, of an image."""
        isa = kernels.usable_isa(self.isa, MOST_BITS)
        return kernels.step("regrid", shape=self.shape, table=self.table, isa=isa)

    def forward(self, q: Tensor) -> Tensor:
        return torch.from_numpy(self.table)[q.int()]


class Scaled(nn.Module):
    """Exact sums, int32 (N, K, P, Q), as float32: scale[k] * sum + bias[k]."""

    def __init__(self, scale: Tensor, bias: Tensor):
        super().__init__()
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("bias", bias[:, None, None])

    def forward(self, sums: Tensor) -> Tensor:
        return sums * self.scale + self.bias


class IntegerPool(nn.Module):
    """Max pooling of unsigned integers of a shape (N, C, H, W). Padding with 0 is no larger."""

    def __init__(self, pool: nn.MaxPool2d, shape: tuple[int, ...]):
        super().__init__()
        self.window = {key: _pair(getattr(pool, name)) for key, name in _POOL.items()}
        self.shape = shape

    @staticmethod
    def takes(pool: nn.MaxPool2d) -> bool:
        return not pool.ceil_mode and _pair(pool.dilation) == (1, 1)

    def step(self) -> Any:
        return kernels.step("max_pool", shape=self.shape, **self.window)


_POOL = {"window": "kernel_size", "stride": "stride", "padding": "padding"}


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def settle(traced: fx.GraphModule, isa: str) -> None:
    """Once the kernels are in place: let every node that has a grid be uint8 for who takes that and floats for others.

    A step between floats stays as it is.
    """
    for node in [node for node in traced.graph.nodes if grid(node)]:
        takers = [user for user in node.users if _takes_integers(traced, user)]
        source, module = node.args[0], module_of(traced, node)
        if isinstance(module, Step):
            if not takers and not grid(source):
                continue
            known = grid(source)
            shape = shape_of(source)
            entry = Regrid(known, grid(node), shape, isa) if known else FromFloats(grid(node), shape, isa)
            traced.set_submodule(node.target, entry)
        others = [user for user in node.users if user not in takers]
        if others:
            name = f"{node.name}_as_floats"
            traced.add_submodule(name, ToFloats(grid(node)))
            with traced.graph.inserting_after(node):
                floats = traced.graph.call_module(name, (node,))
            for user in others:
                user.replace_input_with(node, floats)


def take_heads(traced: fx.GraphModule, isa: str) -> None:
    """Once the other layers are plain: let a linear layer of the mean of integers, over an image, read the integers."""
    for node in calls_of(traced, nn.Linear):
        if node.kwargs or not node.args:
            continue
        mean, linear = node.args[0], module_of(traced, node)
        floats = mean.args[0] if _is_mean(mean) and only_user(mean) is node else None
        entry = module_of(traced, floats) if isinstance(floats, fx.Node) else None
        shape = shape_of(floats.args[0]) if isinstance(entry, ToFloats) else ()
        if len(shape) != 4 or only_user(floats) is not mean:
            continue
        weight = linear.weight.double().numpy()
        bias = 0 if linear.bias is None else linear.bias.double().numpy()
        bias = bias - entry.grid.step * entry.grid.zero * weight.sum(1)
        head = Head(weight * (entry.grid.step / (shape[2] * shape[3])), bias, shape, isa)
        traced.set_submodule(node.target, head)
        node.replace_input_with(mean, floats.args[0])
        traced.graph.erase_node(mean)
        traced.graph.erase_node(floats)


def _is_mean(node: object) -> bool:
    """Whether a node is the mean over rows and columns, as `x.mean((2, 3))`."""
    called = isinstance(node, fx.Node) and node.target in ("mean", torch.mean)
    return called and len(node.args) == 2 and node.args[1] in ((2, 3), (-2, -1), [2, 3], [-2, -1]) and not node.kwargs


def drop_relus(traced: fx.GraphModule) -> None:
    """Take out each ReLU that a step from 0 up follows, perhaps behind max pools: the step clamps at 0 as well."""
    for node in [node for node in traced.graph.nodes if is_call(traced, node, RELU)]:
        step = only_user(past_pools(traced, node))
        known = grid(step) if isinstance(module_of(traced, step), Step) else None
        if known and not known.zero and only_user(node.args[0]) is node:
            replace(node, node.args[0])


def _takes_integers(traced: fx.GraphModule, user: fx.Node) -> bool:
    module = module_of(traced, user)
    return (isinstance(module, Step) and grid(user) is not None) or (
        isinstance(module, (KernelConv2d, FullConv2d, OuterKernel)) and module.takes_integers
    )
