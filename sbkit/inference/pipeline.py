"""The steps of a network that need no torch between them, as one call of C++ instead of one of torch each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor, fx, nn

from sbkit import kernels
from sbkit.inference.graph import module_of
from sbkit.inference.integers import FromFloats, IntegerPool, Regrid
from sbkit.inference.layers import LIBRARY, FullConv2d, Head, KernelConv2d, OuterKernel, array, planned

_pipelines: WeakValueDictionary[str, Pipeline] = WeakValueDictionary()


class Link(NamedTuple):
    """A step and the tensors it reads, which have numbers: first the pipeline's inputs, then each link's result."""

    name: str  # of its module in the network
    x: int
    residual: int = -1


class Pipeline(nn.Module):
    """Modules with a method `step`, run one after the other on buffers of their own; concurrent calls take turns.

    It takes the tensors that no link makes, uint8 or float32 as their links want them, and returns those of `outputs`,
    uint8, or float32 of a `Head`.
    A copy, what is unpickled, and a forked child at its first call, has steps of its own.
    """

    def __init__(self, links: Sequence[Link], modules: Sequence[nn.Module], inputs: int, outputs: Sequence[int]):
        super().__init__()
        self.links, self.inputs, self.outputs = tuple(links), inputs, tuple(outputs)
        self.parts = nn.ModuleList(modules)
        self._build()

    def _build(self) -> None:
        self._pack()
        made = [self.steps[each - self.inputs] for each in self.outputs]
        self.results = [(tuple(step.y_shape), torch.float32 if step.floats_out else torch.uint8) for step in made]
        self.plan = uuid.uuid4().hex
        _pipelines[self.plan] = self

    def _pack(self) -> None:
        self.steps = [module.step() for module in self.parts]
        self.native = self._joined(self.outputs)
        self.forks = kernels.forks()  # last: another thread may ask meanwhile

    def _joined(self, outputs: Sequence[int]) -> Any:
        links = [(step, link.x, link.residual) for step, link in zip(self.steps, self.links, strict=True)]
        return kernels.pipeline(self.inputs, links, outputs)

    def ready(self) -> Pipeline:
        """Itself, with steps that this process has packed."""
        if self.forks != kernels.forks():
            self._pack()
        return self

    @property
    def layers(self) -> dict[str, kernels.Prepared]:
        """The quantized convolutions by name, in the order they run."""
        named = zip(self.links, self.parts, strict=True)
        return {link.name: part.prepared for link, part in named if isinstance(part, KernelConv2d)}

    def forward(self, *x: Tensor) -> Tensor | list[Tensor]:
        found = torch.ops.sbkit.pipeline.default(list(x), self.plan)
        return found[0] if len(found) == 1 else found

    def bind(self, x: Tensor) -> Callable[[], Tensor]:
        """A function that computes the one output of the one input x, contiguous, of the values that x then has."""
        inputs = [array(x)]
        return lambda: torch.from_numpy(self.ready().native.run(inputs)[0])

    def every(self, *x: Tensor) -> dict[str, Tensor]:
        """What each link makes of x, by its name."""
        everything = self.ready()._joined(range(self.inputs, self.inputs + len(self.links)))
        results = everything.run([array(each) for each in x])
        return {link.name: torch.from_numpy(found) for link, found in zip(self.links, results, strict=True)}

    def __getstate__(self) -> dict[str, Any]:
        made = ("forks", "steps", "native", "results", "plan")
        return {key: value for key, value in vars(self).items() if key not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._build()

    def extra_repr(self) -> str:
        return ", ".join(link.name for link in self.links)


LIBRARY.define("pipeline(Tensor[] x, str plan) -> Tensor[]", tags=torch.Tag.pt2_compliant_tag)


@torch.library.impl(LIBRARY, "pipeline", "CPU")
def _run(x: list[Tensor], plan: str) -> list[Tensor]:
    native = planned("pipeline", _pipelines, plan).ready().native
    return [torch.from_numpy(found) for found in native.run([array(each) for each in x])]


@torch.library.register_fake("sbkit::pipeline", lib=LIBRARY)
def _shapes_of(x: list[Tensor], plan: str) -> list[Tensor]:
    return [x[0].new_empty(shape, dtype=dtype) for shape, dtype in planned("pipeline", _pipelines, plan).results]


def make_pipelines(traced: fx.GraphModule) -> None:
    """Make a pipeline of each unbroken run of nodes that have a step."""
    run: list[fx.Node] = []
    for node in [*traced.graph.nodes]:
        if _has_step(module_of(traced, node)):
            run.append(node)
        elif run:
            _join(traced, run)
            run = []


def _has_step(module: nn.Module | None) -> bool:
    if isinstance(module, KernelConv2d):
        return module.returns_integers
    if isinstance(module, (Regrid, FromFloats)):
        return len(module.shape) == 4
    return isinstance(module, (FullConv2d, OuterKernel, IntegerPool, Head))


def _join(traced: fx.GraphModule, run: list[fx.Node]) -> None:
    inputs = list(dict.fromkeys(arg for node in run for arg in node.args if arg is not None and arg not in run))
    tensors = [*inputs, *run]
    links = [Link(node.target, *(tensors.index(arg) for arg in node.args if arg is not None)) for node in run]
    modules = [module_of(traced, node) for node in run]
    made = [node for node in run if any(user not in run for user in node.users)]
    pipeline = Pipeline(links, modules, len(inputs), [tensors.index(node) for node in made])
    name = f"pipeline_{run[0].name}"
    traced.add_submodule(name, pipeline)
    with traced.graph.inserting_before(run[-1].next):
        call = traced.graph.call_module(name, tuple(inputs))
        results = [call] if len(made) == 1 else [traced.graph.call_function(_item, (call, i)) for i in range(len(made))]
    for node, result in zip(made, results, strict=True):
        node.replace_all_uses_with(result, lambda user: user not in run)
        result.meta = dict(node.meta)
    for node in reversed(run):
        traced.graph.erase_node(node)


def _item(found: list[Tensor], index: int) -> Tensor:
    return found[index]
