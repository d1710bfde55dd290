"""A network of `models.build_model` made ready to run: its quantized layers on `kernels`, the others on torch.

In evaluation mode a batch norm is y = factor * x + bias per channel, so it folds into the convolution before it: into
the scales of a quantized layer (a negative factor makes them negative, which is as good), into the weights of another.
The kernel of a quantized layer adds the bias and, in a residual block, the shortcut, and clamps at 0 where ReLU
follows, all before it writes its result; any other non-linearity is a pass of its own, in torch.

VGG-small has max pooling between convolution and norm. ReLU commutes with it, and so does a norm without a negative
factor; any other norm stays where it is, in torch.

The model in evaluation mode, `fold(model)` and `compile(model, ...)` differ only in how float32 rounds:

    max|difference of two logits| <= LOGIT_BOUND * max|logit|        (measured: up to 1e-5, at every depth and scheme)
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sbkit import kernels
from sbkit.checks import whole
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.models import BasicBlock, QuantConv2d, QuantLinear, ResNet, conv_shapes, quant_layers, quantized_weights

LOGIT_BOUND = 5e-5


class Step(NamedTuple):
    """values[target] = call(*(values[s] for s in sources)); "x" flows through the network, "shortcut" past a block."""

    name: str
    call: Callable[..., Tensor]
    sources: tuple[str, ...] = ("x",)
    target: str = "x"


@dataclass(frozen=True, eq=False, repr=False)
class Network:
    """What `compile` returns: call it on images. Its kernels own their buffers: concurrent calls take turns."""

    image: tuple[int, int, int]  # channels, height, width
    batch: int  # images a call
    steps: tuple[Step, ...]
    layers: dict[str, kernels.Prepared]  # the quantized layers by module name, in the order they run

    @torch.inference_mode()
    def __call__(self, x: Tensor | np.ndarray) -> Tensor:
        """Logits, float32 (batch, classes), of images x, float32 (batch, *image), a torch tensor or a numpy array.

        Raises TypeError for another type or dtype, ValueError for another shape.
        """
        if not isinstance(x, (Tensor, np.ndarray)):
            raise TypeError(f"x is a {type(x).__name__}; allowed: a float32 torch tensor or numpy array")
        if x.dtype not in (torch.float32, np.dtype(np.float32)):
            raise TypeError(f"x has dtype {x.dtype}; allowed: float32")
        if tuple(x.shape) != (self.batch, *self.image):
            raise ValueError(f"x has shape {tuple(x.shape)}; allowed: {(self.batch, *self.image)}, the compiled size")
        if isinstance(x, np.ndarray):
            x = torch.from_numpy(np.require(x, requirements=("C", "W")))  # torch warns of what it may not write
        values = {"x": x.detach().cpu()}
        for _, call, sources, target in self.steps:
            values[target] = call(*(values[source] for source in sources))
        return values["x"]

    @property
    def plan_seconds(self) -> float:
        """Offline packing of all quantized layers."""
        return sum(layer.plan_seconds for layer in self.layers.values())

    @property
    def weight_bytes(self) -> int:
        """What the kernels read instead of the quantized weights."""
        return sum(layer.weight_bytes for layer in self.layers.values())

    @property
    def operations(self) -> kernels.Operations:
        """Operations of all quantized layers for one image."""
        adds, multiplies = zip(*(layer.operations for layer in self.layers.values()), strict=True)
        return kernels.Operations(sum(adds), sum(multiplies))

    def __repr__(self) -> str:
        operations = self.operations
        lines = [
            f"Network of images {self.image}, batch {self.batch}: {len(self.layers)} quantized layers with "
            f"{operations.adds:,} adds and {operations.multiplies:,} multiplies an image, {self.weight_bytes:,} bytes"
        ]
        width = max(len(step.name) for step in self.steps)
        for name, call, sources, target in self.steps:
            what = f"torch {getattr(call, '__name__', type(call).__name__).strip('_')}"
            if layer := self.layers.get(name):
                s = layer.shape
                what = f"{layer.algorithm} {layer.isa} {layer.encoding} group {layer.group}, {s.C}→{s.K} @{s.H}x{s.W}"
            lines.append(f"  {name:{width}}  {', '.join(sources) + ' → ' + target:15}  {what}")
        return "\n".join(lines)


def fold(model: nn.Module, weights: Mapping[str, QuantizedWeight] | None = None) -> nn.Module:
    """The same network as plain convolutions with batch norms folded: for torch, or to be exported from it.

    A copy with the same module names, in evaluation mode, float32, contiguous, on the CPU, without gradients. Quantized
    layers have the weights they compute with, or `weights`, named as in `quantized_weights(model)`.
    """
    return _fold(model, {} if weights is None else _checked(model, weights))[0]


def compile(
    model: nn.Module,
    weights: Mapping[str, QuantizedWeight] | None = None,
    *,
    image: tuple[int, int, int],
    batch: int = 1,
    algorithm: str = "table",
    encoding: str = "auto",
    isa: str = "auto",
    threads: int = 1,
    tune: bool = True,
) -> Network:
    """Pack the quantized layers of a network of `build_model` for one algorithm and one size of images.

    weights    codes of every quantized layer, named as in `quantized_weights(model)`, which is what None takes
    image      channels, height, width
    batch      images a call
    encoding   "auto": layer by layer the cheapest of "two_group", "codebook" and, with both signs in a filter, "signed"

    The other options are those of `kernels.prepare`; `threads` is for the kernels, torch's layers have torch's own.
    With `tune`, the last bits of a logit may differ between two compilations. Raises TypeError for another kind of
    model, ValueError naming the argument or layer, its value and what is allowed.
    """
    _check_kind(model)
    weights = quantized_weights(model) if weights is None else weights
    if not weights:
        raise ValueError("model is in full precision, without codes; allowed: weights=..., or fold(model) for torch")
    weights = _checked(model, weights)
    shapes = _shapes(model, image, batch)
    folded, norms = _fold(model, weights)
    if isinstance(folded, ResNet) and any(isinstance(module, nn.MaxPool2d) for module in folded.stem):
        folded.stem.to(memory_format=torch.channels_last)  # as its pool will want it
    options = {"isa": isa, "encoding": encoding, "threads": threads, "tune": tune}
    steps, layers = [], {}
    for step, relu in _merged(_flat(folded), weights):
        if (name := step.name) in weights:
            weight, bias = _scaled(weights[name], *norms[name]) if name in norms else (weights[name], None)
            try:
                layers[name] = kernels.prepare(algorithm, weight, shapes[name], bias=bias, relu=relu, **options)
            except ValueError as error:
                raise ValueError(f"layer {name}: {error}") from error
            step = step._replace(call=functools.partial(_conv2d, layers[name]))
        elif isinstance(pool := step.call, nn.MaxPool2d):
            step = step._replace(call=_MaxPool2d(pool.kernel_size, pool.stride, pool.padding))
        steps.append(step)
    if layers.keys() != weights.keys():
        raise TypeError(f"model nests its layers {list(weights)}; allowed: a network of build_model")
    return Network(tuple(image), batch, tuple(steps), layers)


def _check_kind(model: nn.Module) -> None:
    linear = [name for name, layer in quant_layers(model).items() if isinstance(layer, QuantLinear)]
    if linear or not isinstance(model, (ResNet, nn.Sequential)):
        found = f" with the linear quantized layers {', '.join(linear)}" if linear else ""
        raise TypeError(
            f"model is a {type(model).__name__}{found}; allowed: a network of build_model that quantizes convolutions"
        )


def _merged(steps: Iterable[Step], quantized: Container[str]) -> Iterator[tuple[Step, bool]]:
    """The steps without those that the kernel of a quantized layer does besides: an addition and a ReLU after it.

    A layer takes the sources of its addition; the flag says whether it took a ReLU.
    """
    todo = list(steps)
    while todo:
        step, relu = todo.pop(0), False
        if step.name in quantized:
            if todo[0].call is torch.add:
                step = step._replace(sources=todo.pop(0).sources)
            # A max pool in between does not matter: ReLU commutes with it.
            following = next(i for i, later in enumerate(todo) if not isinstance(later.call, nn.MaxPool2d))
            relu = isinstance(todo[following].call, nn.ReLU)
            if relu:
                del todo[following]
        yield step, relu


class _MaxPool2d(nn.MaxPool2d):
    """Max pooling of a contiguous image in channels_last, in which torch is several times faster; contiguous again."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous(memory_format=torch.channels_last)).contiguous()


def average_pool(x: Tensor) -> Tensor:
    """Mean over the image: (N, C, H, W) to (N, C)."""
    return x.mean((2, 3))


def _conv2d(prepared: kernels.Prepared, *arrays: Tensor) -> Tensor:
    """The kernel on x and perhaps a residual; nothing is copied that is contiguous."""
    return torch.from_numpy(kernels.conv2d(prepared, *(np.ascontiguousarray(a.numpy()) for a in arrays)))


def _checked(model: nn.Module, weights: Mapping[str, QuantizedWeight]) -> Mapping[str, QuantizedWeight]:
    layers = quant_layers(model)
    missing, unknown = ([name for name in a if name not in b] for a, b in ((layers, weights), (weights, layers)))
    if missing or unknown:
        raise ValueError(
            f"weights lack the layers {missing} and have {unknown} besides; allowed: the model's quantized layers"
        )
    for name, layer in layers.items():
        if weights[name].codes.shape != layer.weight.shape:
            raise ValueError(
                f"layer {name}: codes have shape {weights[name].codes.shape}; allowed: {tuple(layer.weight.shape)}"
            )
    return weights


def _shapes(model: nn.Module, image: tuple[int, int, int], batch: int) -> dict[str, ConvShape]:
    if len(image) != 3:
        raise ValueError(f"image = {image!r}; allowed: (channels, height, width)")
    for name, value in zip(("channels", "height", "width"), image, strict=True):
        whole(f"image {name}", value, 1)
    whole("batch", batch, 1)
    try:
        return {shape.name: shape.with_batch(batch) for shape in conv_shapes(model, image[0], image[1:])}
    except RuntimeError as error:
        raise ValueError(f"image = {image!r}; allowed: what the model runs on. torch says: {error}") from error


def _flat(model: ResNet | nn.Sequential) -> Iterator[Step]:
    """A folded network as the modules it runs, in order."""

    def run(prefix: str, modules: nn.Module) -> Iterator[Step]:
        for name, module in modules.named_children():
            if not isinstance(module, nn.Identity):  # a folded norm
                yield Step(f"{prefix}{name}", module)

    def clamped(name: str, block: BasicBlock) -> Iterator[Step]:
        if isinstance(block.clamp, nn.Hardtanh):
            yield Step(name, block.clamp)

    if isinstance(model, nn.Sequential):
        yield from run("", model)
        return
    yield from run("stem.", model.stem)
    for name, block in model.named_modules():
        if isinstance(block, BasicBlock):
            shortcut = block.shortcut[0] if isinstance(block.shortcut, nn.Sequential) else block.shortcut
            yield Step(f"{name}.shortcut", shortcut, target="shortcut")
            yield from clamped(f"{name}.clamp1", block)
            yield Step(f"{name}.conv1", block.conv1)
            if block.double_shortcut:
                yield Step(f"{name}.add1", torch.add, ("x", "shortcut"))
            yield from run(f"{name}.act1.", block.act1)
            if block.double_shortcut:
                yield Step(f"{name}.shortcut2", nn.Identity(), target="shortcut")
            yield from clamped(f"{name}.clamp2", block)
            yield Step(f"{name}.conv2", block.conv2)
            yield Step(f"{name}.add", torch.add, ("x", "shortcut"))
            yield Step(f"{name}.act2", block.act2)
    yield Step("pool", average_pool)
    yield Step("classifier", model.classifier)


# Batch norms


def _fold(
    model: nn.Module, weights: Mapping[str, QuantizedWeight]
) -> tuple[nn.Module, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The folded copy, and by the name of a convolution the (factor, bias) that its norm became, float64 (K,)."""
    folded = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)
    convolutions, norms, pooled = {}, {}, False
    for name, module in list(folded.named_modules()):  # in all our networks a norm is registered after its convolution
        if isinstance(module, (nn.Conv2d, QuantConv2d)):
            convolutions[name], pooled = module, False
        elif isinstance(module, nn.MaxPool2d):
            pooled = True
        elif isinstance(module, nn.BatchNorm2d):
            factor, bias = _affine(module)
            if not pooled or (factor >= 0).all():
                norms[next(reversed(convolutions))] = factor, bias
                _replace(folded, name, nn.Identity())
    for name, module in convolutions.items():
        if name in weights:
            weight = torch.from_numpy(weights[name].dense())
        else:
            weight = module.quantizer(module.weight) if isinstance(module, QuantConv2d) else module.weight
        K, C, *window = weight.shape
        plain = nn.utils.skip_init(
            nn.Conv2d, C, K, window, module.stride, module.padding, bias=name in norms
        ).requires_grad_(False)
        if name in norms:
            factor, bias = map(torch.from_numpy, norms[name])
            weight = weight * factor.reshape(-1, 1, 1, 1)
            plain.bias.copy_(bias)
        plain.weight.copy_(weight)  # contiguous, whatever the layout of the model's
        _replace(folded, name, plain)
    return folded.eval(), norms


def _affine(norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """(factor, bias), float64 (K,): in evaluation mode norm(y) = factor * y + bias."""
    mean, variance, gamma, beta = (
        value.double().numpy() for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    factor = gamma / np.sqrt(variance + norm.eps)
    return factor, beta - factor * mean


def _scaled(weight: QuantizedWeight, factor: np.ndarray, bias: np.ndarray) -> tuple[QuantizedWeight, np.ndarray]:
    """The codes with a norm's factor in both scales, and its bias, float32 (K,)."""
    scales = {field: getattr(weight, field) * factor for field in ("scale", "negative_scale")}
    return replace(weight, **scales), bias.astype(np.float32)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
