"""A network as the graph of its calls, and what can be asked of a call."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from sbkit.models.layers import QuantLayer
from sbkit.models.outer import NarrowShortcut, OuterConv2d
from sbkit.quantizers.activations import LearnedStep

IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)  # when not training
ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
IN_PLACE = tuple(getattr(operator, f"i{name}") for name in ("add", "sub", "mul", "truediv", "pow", "and", "or", "xor"))


class _Tracer(fx.Tracer):
    """Calls of torch's own modules and of these leaves are nodes; every other module is what its `forward` calls."""

    at = ""  # the module that is being traced

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        if isinstance(module, (QuantLayer, NarrowShortcut, OuterConv2d, LearnedStep)):
            return True
        quantized = any(isinstance(part, QuantLayer) for part in module.modules())
        return super().is_leaf_module(module, name) and not quantized

    def call_module(self, module, forward, args, kwargs):
        before, self.at = self.at, self.path_of_module(module)
        result = super().call_module(module, forward, args, kwargs)
        self.at = before
        return result


def evaluated(model: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode, float32, on the CPU, without gradients.

    Raises TypeError naming the module that has hooks or that stands at two places with parameters.
    """
    _check_modules(model)
    return copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)


def trace(model: nn.Module) -> fx.GraphModule:
    """A network in evaluation mode as its graph, which shares the modules that it calls.

    Raises TypeError naming the module that cannot be traced: whose calls depend on the values of tensors.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # whatever the forward of a stranger's module raises when given no tensors
        raise TypeError(
            f"module {tracer.at or 'model'} cannot be traced, as torch.fx says: {error}; allowed: modules that make "
            "the same calls for all images"
        ) from error
    traced = fx.GraphModule(model, graph, type(model).__name__)
    _take_steps_out(traced)
    for node in list(graph.nodes):
        node.type = None  # an annotation, which cannot be pickled where it is a text
        if type(module_of(traced, node)) in IDENTITIES and node.args:
            replace(node, node.args[0])
    return traced


class Step(nn.Module):
    """The formula of `LearnedStep` in plain calls: y = step * clamp(round(x / step), low, high)."""

    def __init__(self, learned: LearnedStep):
        super().__init__()
        self.step, self.low, self.high = learned.step.item(), learned.low, learned.high

    def forward(self, x: Tensor) -> Tensor:
        return (x / self.step).round().clamp(self.low, self.high) * self.step

    def extra_repr(self) -> str:
        return f"step={self.step:.6g}, low={self.low}, high={self.high}"


def _take_steps_out(traced: fx.GraphModule) -> None:
    """Let learned steps be plain ones, and what quantizes the input of a layer a call before it."""
    for node in list(traced.graph.nodes):
        module = module_of(traced, node)
        if isinstance(module, LearnedStep):
            traced.set_submodule(node.target, Step(module))
        elif isinstance(module, (QuantLayer, OuterConv2d)) and isinstance(module.activations, LearnedStep):
            name = f"{node.target}_activations"
            traced.add_submodule(name, Step(module.activations))
            with traced.graph.inserting_before(node):
                call = traced.graph.call_module(name, node.args[:1])
            node.update_arg(0, call)


def _check_modules(model: nn.Module) -> None:
    """Raises TypeError for what a copy would lose, or what would make two layers of one."""
    places: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        hooks = module._forward_hooks or module._forward_pre_hooks
        if hooks or "forward" in vars(module):
            what = "forward hooks" if hooks else "a forward method of its own"
            raise TypeError(f"module {name or 'model'} has {what}; allowed: none, as folding would drop it")
        if (first := places.setdefault(module, name)) != name and any(True for _ in module.parameters()):
            raise TypeError(f"module {name} is {first} at another place; allowed: modules with parameters at one place")


def module_of(traced: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    """The module that a node calls, or None."""
    return traced.get_submodule(node.target) if node is not None and node.op == "call_module" else None


def is_call(traced: fx.GraphModule, node: fx.Node | None, kinds: tuple) -> bool:
    """Whether a node calls a module of exactly one of these classes, or one of these functions or methods."""
    if node is None or node.op not in ("call_module", "call_function", "call_method"):
        return False
    return (type(module_of(traced, node)) if node.op == "call_module" else node.target) in kinds


def calls_of(traced: fx.GraphModule, kinds: type | tuple[type, ...]) -> Iterator[fx.Node]:
    """Nodes that call a module of these classes or their subclasses, and whose module no other node calls."""
    targets = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in list(traced.graph.nodes):
        if isinstance(module_of(traced, node), kinds) and targets.count(node.target) == 1:
            yield node


def only_user(node: fx.Node | None) -> fx.Node | None:
    """The node that alone uses the result of another, or None if there are several or none."""
    return next(iter(node.users)) if node is not None and len(node.users) == 1 else None


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's result, once the graph has run; () if that is no tensor."""
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def past_pools(traced: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node, or the last of the max pools in a row that alone use its result."""
    while is_call(traced, user := only_user(node), (nn.MaxPool2d,)) and not module_of(traced, user).return_indices:
        node = user
    return node


def replace(node: fx.Node, other: fx.Node) -> None:
    """Let every user of a node use another one instead, and remove the node."""
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def writes(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a call may change its arguments in place."""
    if node.op == "call_module":
        return getattr(module_of(traced, node), "inplace", False)
    name = getattr(node.target, "__name__", str(node.target))
    flagged = any(value is True for value in (*node.args, *node.kwargs.values())) or "out" in node.kwargs
    return flagged or name.endswith("_") or node.target in (operator.setitem, *IN_PLACE)
