"""Lowering: each quantized convolution of a traced network, with what follows it, becomes one call of a kernel."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from sbkit import kernels
from sbkit.checks import whole
from sbkit.conv import QuantizedWeight
from sbkit.inference import graph
from sbkit.inference.file import Saved, read, rest, write
from sbkit.inference.folding import checked, finished, fold_norms, make_plain
from sbkit.inference.integers import take_heads
from sbkit.inference.layers import KernelConv2d
from sbkit.inference.pipeline import Pipeline, make_pipelines
from sbkit.inference.placing import put_on_kernels
from sbkit.models import quant_layers, quantized_weights
from sbkit.models.layers import RELU, QuantLayer
from sbkit.way import FLOAT_BITS

LOGIT_BOUND = 5e-5
ROUNDING_BOUND = 0.1


class Network(nn.Module):
    """What `lower` returns: an ordinary module in evaluation mode, for batches of one shape.

    Its kernels own their buffers: concurrent calls take turns. Copies and what is unpickled have plans of their own.
    """

    def __init__(self, body: fx.GraphModule, shape: tuple[int, ...], source: Saved | None = None):
        super().__init__()
        self.body, self.shape, self.source = body, shape, source
        super().train(False)

    def save(
        self,
        path: str | os.PathLike,
        *,
        classes: Sequence[str] = (),
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> Path:
        """Write the network to one file, which `load` reads: see `file.Saved` for what goes with it.

        Raises ValueError for a network that `build_model` does not make, which torch.save takes, or wrong options.
        """
        if self.source is None:
            raise ValueError("save of a network that build_model did not make; allowed: torch.save of the whole module")
        told = {"classes": tuple(classes), "mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
        saved = replace(self.source, **{key: value for key, value in told.items() if value})
        try:
            _hold(self, saved.model(), saved.weights)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"save of a network that was changed after build_model: {error}; allowed: torch.save of the module"
            ) from error
        return write(saved, path)

    def forward(self, x: Tensor) -> Tensor:
        """What the model computes of x, float32 of the shape that it was lowered for, on the CPU.

        Raises TypeError for another type or dtype, ValueError for another shape.
        """
        self._check(x)
        return self.body(x)

    def bind(self, x: Tensor) -> Callable[[], Tensor]:
        """A function that computes what the network makes of the values that x has when it is called.

        These may be changed in place, by x.copy_(...). The function is the shortest way to the kernels: it calls a
        network that is one pipeline without torch's dispatcher, which takes some 15 microseconds. Raises as `forward`
        does, and ValueError for an x that is not contiguous on the CPU.
        """
        self._check(x)
        if x.device.type != "cpu" or not x.is_contiguous():
            raise ValueError(f"x lies on {x.device} with strides {x.stride()}; allowed: contiguous, on the CPU")
        (last,) = next(reversed(self.body.graph.nodes)).args
        whole = graph.module_of(self.body, last)
        if isinstance(whole, Pipeline) and [node.op for node in last.all_input_nodes] == ["placeholder"]:
            return whole.bind(x)
        return functools.partial(self, x)

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            found = f"has dtype {x.dtype}" if isinstance(x, Tensor) else f"is a {type(x).__name__}"
            raise TypeError(f"x {found}; allowed: a float32 torch tensor")
        if tuple(x.shape) != self.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}; allowed: {self.shape}, for which it was lowered")

    def train(self, mode: bool = True) -> Network:
        if mode:
            raise ValueError("train(True) of a lowered network; allowed: to train its model, and to lower that again")
        return super().train(False)

    @property
    def layers(self) -> dict[str, kernels.Prepared]:
        """The convolutions on kernels by module name, in the order they run."""
        found = {}
        for node in graph.calls_of(self.body, (KernelConv2d, Pipeline)):
            module = graph.module_of(self.body, node)
            found |= module.layers if isinstance(module, Pipeline) else {node.target: module.prepared}
        return found

    @property
    def plan_seconds(self) -> float:
        return sum(layer.plan_seconds for layer in self.layers.values())

    @property
    def weight_bytes(self) -> int:
        return sum(layer.weight_bytes for layer in self.layers.values())

    @property
    def operations(self) -> kernels.Operations:
        """Operations of all layers on kernels for one image."""
        found = [layer.operations for layer in self.layers.values()]
        return kernels.Operations(sum(each.adds for each in found), sum(each.multiplies for each in found))

    def extra_repr(self) -> str:
        operations = self.operations
        return (
            f"x {self.shape}: {len(self.layers)} layers on kernels with {operations.adds:,} adds and "
            f"{operations.multiplies:,} multiplies an image, {self.weight_bytes:,} bytes"
        )


def lower(
    model: nn.Module,
    example: Tensor,
    weights: Mapping[str, QuantizedWeight] | None = None,
    *,
    algorithm: str = "auto",
    encoding: str = "auto",
    isa: str = "auto",
    threads: int = 1,
    tune: bool = True,
) -> Network:
    """Put the quantized convolutions of a network on the kernels, for one algorithm and batches of one shape.

    model      takes one tensor and returns one; any network whose calls are the same for all images
    example    a batch, float32, (N, C, H, W) for images: its shape is that of every later batch
    weights    codes of every quantized layer, named as in `quantized_weights(model)`, which is what None takes
    algorithm  "auto": `table`, and for integer activations `table` or `lookup`, whichever is faster
    encoding   "auto": layer by layer the cheapest of "two_group", "codebook" and, with both signs in a filter, "signed"

    The other options are those of `kernels.prepare`; `threads` is for the kernels, torch's layers have torch's own.
    With `tune`, the last bits of a logit may differ between two networks. Raises TypeError for a model that `trace`
    refuses or that returns something else, ValueError naming the argument or layer, its value and what is allowed,
    RuntimeError if the lowered network and the model differ on a random batch.
    """
    if not isinstance(example, Tensor) or example.dtype != torch.float32:
        raise TypeError(f"example is {example!r:.60}; allowed: a float32 torch tensor")
    model = graph.evaluated(model)
    weights = quantized_weights(model) if weights is None else weights
    if not weights:
        raise ValueError("model is in full precision, without codes; allowed: weights=..., or fold(model) for torch")
    weights = checked(model, weights)
    traced = graph.trace(model)
    _note_shapes(traced, example)
    norms = fold_norms(traced)
    options = {"isa": isa, "encoding": encoding, "threads": threads, "tune": tune}
    put_on_kernels(traced, weights, norms, algorithm, options)
    for name in {node.target for node in traced.graph.nodes if node.op == "call_module"}:
        make_plain(traced, name, weights.get(name), norms.get(name))
    _pool_in_channels_last(traced)
    take_heads(traced, isa)
    make_pipelines(traced)
    network = Network(finished(traced), tuple(example.shape), _source(model, example, weights))
    _hold(network, model, weights)
    return network


def load(path: str | os.PathLike, *, batch: int = 1, **options: Any) -> Network:
    """The network of a file that `Network.save` wrote, lowered for this machine; `options` are those of `lower`.

    Its `source` holds the names of the classes, and mean and standard deviation of the images. Raises ValueError naming
    the file for whatever is wrong with it, OSError for a file that cannot be read.
    """
    whole("batch", batch, 1)
    saved = read(path)
    network = lower(saved.model(), torch.zeros(batch, *saved.image), saved.weights, **options)
    network.source = saved
    return network


def _source(model: nn.Module, example: Tensor, weights: Mapping[str, QuantizedWeight]) -> Saved | None:
    """What a file would hold, for a network of `build_model`."""
    options = getattr(model, "options", None)
    if not isinstance(options, dict) or example.ndim != 4:
        return None
    return Saved(options, dict(weights), {k: v.clone() for k, v in rest(model).items()}, tuple(example.shape[1:]))


@torch.inference_mode()
def _note_shapes(traced: fx.GraphModule, example: Tensor) -> None:
    """Run the example: each node gets its result's shape. Raises TypeError for a layer not called as layer(x)."""
    nodes = [node for node in traced.graph.nodes if isinstance(graph.module_of(traced, node), QuantLayer)]
    for node in nodes:
        count = sum(other.target == node.target for other in nodes)
        if count > 1 or node.kwargs:
            found = "by keyword" if node.kwargs else f"{count} times"
            raise TypeError(f"layer {node.target} is called {found}; allowed: quantized layers called once, layer(x)")
    try:
        ShapeProp(traced).propagate(example.detach().cpu().clone())
    except RuntimeError as error:
        raise ValueError(
            f"example has shape {tuple(example.shape)}; allowed: what the model runs on. torch says: {error}"
        ) from error


class ChannelsLastPool(nn.Module):
    """Max pooling of an image in channels_last, in which torch is several times faster; contiguous again."""

    def __init__(self, pool: nn.MaxPool2d):
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x.contiguous(memory_format=torch.channels_last)).contiguous()


def _pool_in_channels_last(traced: fx.GraphModule) -> None:
    """Let max pools, and a plain convolution right before one or before its ReLU, run in channels_last."""
    for node in graph.calls_of(traced, nn.MaxPool2d):
        if node.kwargs:
            continue
        source = node.args[0]
        traced.set_submodule(node.target, ChannelsLastPool(graph.module_of(traced, node)))
        source = source.args[0] if graph.is_call(traced, source, RELU) else source
        if type(module := graph.module_of(traced, source)) is nn.Conv2d:
            module.to(memory_format=torch.channels_last)


@torch.inference_mode()
def _hold(network: Network, model: nn.Module, weights: Mapping[str, QuantizedWeight]) -> None:
    """Raises RuntimeError unless the network computes of a random batch what the model does with these weights.

    The model, a copy, keeps them.
    """
    for name, layer in quant_layers(model).items():  # the rest of the model stays as it was
        layer.quantizer = nn.Identity()
        layer.weight.copy_(torch.from_numpy(weights[name].dense()).reshape(layer.weight.shape))
    x = torch.randn(network.shape, generator=torch.Generator().manual_seed(0))
    found, expected = network(x.clone()), model(x)
    if not isinstance(expected, Tensor):
        raise TypeError(f"model returns a {type(expected).__name__}; allowed: one tensor")
    if not expected.isfinite().all():
        raise ValueError(
            "model has logits that are not finite on random images, so that nothing can be held to it; allowed: a "
            "trained network, or one whose batch norms have seen some batches in training mode"
        )
    if found.shape == expected.shape:
        difference = found - expected
        if any(layer.activation_bits < FLOAT_BITS for layer in network.layers.values()):
            close = difference.norm() <= ROUNDING_BOUND * expected.norm()
        else:
            close = difference.abs().max() <= 10 * LOGIT_BOUND * expected.abs().max()
    if found.shape != expected.shape or not close:
        raise RuntimeError(
            "the lowered network does not compute what the model does; allowed: networks that compute the same of the "
            "same images at every call, in calls that torch.fx sees"
        )
