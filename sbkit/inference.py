"""A network of `models.build_model` made ready to run: its quantized layers on `kernels`, the others on torch.

In evaluation mode a batch norm is y = factor * x + bias per channel, so it folds into the convolution right before it:
into the scales of a quantized layer (a negative factor makes them negative, which is as good), into the weights of
another. The kernel of a quantized layer adds the bias and, in a residual block, the shortcut, and clamps at 0 where
ReLU follows, all before it writes its result. Every other module, a replaced or appended one too, runs in torch.

VGG-small has max pooling between convolution and norm. ReLU commutes with it, and so does a norm without a negative
factor; any other norm stays where it is, in torch.

The model in evaluation mode, `fold(model)` and `compile(model, ...)` differ only in how float32 rounds:

    max|difference of two logits| <= LOGIT_BOUND * max|logit|        (measured: up to 1e-5, at every depth and scheme)

`compile` runs one random batch through both and raises if they differ by more than ten times that.
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
from sbkit.models.networks import NarrowShortcut

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
        return sum(layer.plan_seconds for layer in self.layers.values())

    @property
    def weight_bytes(self) -> int:
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
            call = getattr(call, "func", call)  # of a partial
            what = f"torch {getattr(call, '__name__', type(call).__name__).strip('_')}"
            if layer := self.layers.get(name):
                s = layer.shape
                what = f"{layer.algorithm} {layer.isa} {layer.encoding} group {layer.group}, {s.C}→{s.K} @{s.H}x{s.W}"
            lines.append(f"  {name:{width}}  {', '.join(sources) + ' → ' + target:15}  {what}")
        return "\n".join(lines)


def fold(model: nn.Module, weights: Mapping[str, QuantizedWeight] | None = None) -> nn.Module:
    """The same network as plain layers with batch norms folded: for torch, or to be exported from it.

    A copy with the same module names, in evaluation mode, float32, contiguous, on the CPU, without gradients. Quantized
    layers have the weights they compute with, or `weights`, named as in `quantized_weights(model)`. Raises TypeError
    for a network with hooks or with a layer at two places, ValueError for weights of other layers or shapes.
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
    model, ValueError naming the argument or layer, its value and what is allowed, RuntimeError if the compiled network
    and the model differ on a random batch.
    """
    linear = [name for name, layer in quant_layers(model).items() if isinstance(layer, QuantLinear)]
    if linear or type(model) not in (ResNet, nn.Sequential):
        found = f" with the linear quantized layers {', '.join(linear)}" if linear else ""
        raise TypeError(
            f"model is a {type(model).__name__}{found}; allowed: a network of build_model that quantizes convolutions"
        )
    _check_modules(model)
    model = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)
    weights = quantized_weights(model) if weights is None else weights
    if not weights:
        raise ValueError("model is in full precision, without codes; allowed: weights=..., or fold(model) for torch")
    weights = _checked(model, weights)
    shapes = _shapes(model, image, batch)
    folded, norms = _fold(model, weights)
    if isinstance(folded, ResNet) and any(isinstance(module, nn.MaxPool2d) for module in folded.stem.modules()):
        folded.stem.to(memory_format=torch.channels_last)  # as its pool will want it
    options = {"isa": isa, "encoding": encoding, "threads": threads, "tune": tune}
    steps, layers = [], {}
    for step, relu in _merged(_flat(folded), weights):
        if (name := step.name) in weights:
            try:
                factor, bias = norms.get(name, (1, None))
                scales = {field: getattr(weights[name], field) * factor for field in ("scale", "negative_scale")}
                weight, bias = replace(weights[name], **scales), None if bias is None else bias.astype(np.float32)
                layers[name] = kernels.prepare(algorithm, weight, shapes[name], bias=bias, relu=relu, **options)
            except ValueError as error:
                raise ValueError(f"layer {name}: {error}") from error
            step = step._replace(call=functools.partial(_conv2d, layers[name]))
        elif type(step.call) is nn.MaxPool2d:
            step = step._replace(call=functools.partial(_max_pool, step.call))
        steps.append(step)
    if layers.keys() != weights.keys():
        raise TypeError(f"model nests its layers {list(weights)}; allowed: a network of build_model")
    network = Network(tuple(image), batch, tuple(steps), layers)
    _hold(network, model, weights)
    return network


@torch.inference_mode()
def _hold(network: Network, model: nn.Module, weights: Mapping[str, QuantizedWeight]) -> None:
    """Raises RuntimeError unless the network computes on random images what the model does with these weights."""
    for name, layer in quant_layers(model).items():  # the rest of the model stays as it was
        layer.quantizer = nn.Identity()
        layer.weight.copy_(torch.from_numpy(weights[name].dense()))
    x = torch.randn(network.batch, *network.image, generator=torch.Generator().manual_seed(0))
    some = sorted({0, network.batch // 2, network.batch - 1})  # images do not meet in evaluation mode
    found, expected = network(x)[some], model(x[some])
    if not expected.isfinite().all():
        raise ValueError(
            "model has logits that are not finite on random images, so that nothing can be held to it; allowed: a "
            "trained network, or one whose batch norms have seen some batches in training mode"
        )
    if found.shape != expected.shape or not (found - expected).abs().max() <= 10 * LOGIT_BOUND * expected.abs().max():
        raise RuntimeError(
            "the compiled network does not compute what the model does, so that the model has something that "
            "compile() does not know; allowed: networks of build_model"
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
            following = next((i for i, later in enumerate(todo) if type(later.call) is not nn.MaxPool2d), None)
            relu = following is not None and type(todo[following].call) is nn.ReLU
            if relu:
                del todo[following]
        yield step, relu


def _max_pool(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """Max pooling of a contiguous image in channels_last, in which torch is several times faster; contiguous again."""
    return pool(x.contiguous(memory_format=torch.channels_last)).contiguous()


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
    for name, value in zip(("image channels", "image height", "image width", "batch"), (*image, batch), strict=True):
        whole(name, value, 1)
    try:
        return {shape.name: shape.with_batch(batch) for shape in conv_shapes(model, image[0], image[1:])}
    except RuntimeError as error:
        raise ValueError(f"image = {image!r}; allowed: what the model runs on. torch says: {error}") from error


def _flat(model: ResNet | nn.Sequential) -> Iterator[Step]:
    """A folded network as the modules it runs, in order."""
    if isinstance(model, nn.Sequential):
        return (yield from _run("", model))
    yield from _run("stem", model.stem)
    for index in range(model.stages):
        yield from _run(f"layer{index + 1}", getattr(model, f"layer{index + 1}"))
    yield Step("pool", average_pool)
    yield from _run("classifier", model.classifier)


def _run(name: str, module: nn.Module) -> Iterator[Step]:
    """A module, or what it consists of."""
    if type(module) is nn.Sequential:
        for child, part in module._modules.items():  # `named_children` leaves out a module's second place
            yield from _run(f"{name}.{child}" if name else child, part)
    elif type(module) is BasicBlock:
        yield from _block(name, module)
    elif type(module) is not nn.Identity:  # a folded norm
        yield Step(name, module)


def _block(name: str, block: BasicBlock) -> Iterator[Step]:
    shortcut = list(_run(f"{name}.shortcut", block.shortcut))
    call = shortcut[0].call if len(shortcut) == 1 else block.shortcut
    yield Step(f"{name}.shortcut", call, target="shortcut")
    yield Step(f"{name}.conv1", block.conv1)
    yield from _run(f"{name}.act1", block.act1)
    yield Step(f"{name}.conv2", block.conv2)
    yield from _run(f"{name}.norm2", block.norm2)
    yield Step(f"{name}.add", torch.add, ("x", "shortcut"))
    yield from _run(f"{name}.act2", block.act2)


# Batch norms


CONVOLUTIONS = (nn.Conv2d, NarrowShortcut, QuantConv2d)
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def _fold(
    model: nn.Module, weights: Mapping[str, QuantizedWeight]
) -> tuple[nn.Module, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The folded copy, and by the name of a convolution the (factor, bias) that its norm became, float64 (K,)."""
    _check_modules(model)
    folded, norms = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False), {}
    for name, norm_name, pooled in list(_pairs(folded)):
        factor, bias = _affine(folded.get_submodule(norm_name))
        if not pooled or (factor >= 0).all():
            norms[name] = factor, bias
            _replace(folded, norm_name, nn.Identity())
    for name, module in list(folded.named_modules()):
        if type(module) in CONVOLUTIONS or isinstance(module, QuantLinear):
            _replace(folded, name, _plain(module, weights.get(name), norms.get(name)))
    return folded.eval(), norms


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


def _pairs(model: nn.Module) -> Iterator[tuple[str, str, bool]]:
    """Names of each convolution and the norm right after it, and whether a max pool lies between."""
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if type(module) is nn.Sequential:
            chain = [(f"{prefix}{child}", part) for child, part in module._modules.items()]
        elif type(module) is BasicBlock:
            chain = [(f"{prefix}conv2", module.conv2), (f"{prefix}norm2", module.norm2)]
            if type(module.act1) is nn.Sequential:
                yield from _adjacent([(f"{prefix}conv1", module.conv1), (f"{prefix}act1.0", module.act1[0])])
        else:
            continue
        yield from _adjacent(chain)


def _adjacent(chain: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, str, bool]]:
    for i, (name, module) in enumerate(chain[:-1]):
        if type(module) in CONVOLUTIONS:
            pooled = type(chain[i + 1][1]) is nn.MaxPool2d
            after = chain[i + 1 + pooled : i + 2 + pooled]
            if after and type(after[0][1]) in NORMS and after[0][1].running_mean is not None:
                yield name, after[0][0], pooled


def _plain(
    module: nn.Module, weight: QuantizedWeight | None, norm: tuple[np.ndarray, np.ndarray] | None
) -> nn.Conv2d | nn.Linear:
    """A plain layer that does what this one does with the given codes, if any, and then the norm's (factor, bias)."""
    if weight is not None:
        w = torch.from_numpy(weight.dense()).reshape(module.weight.shape)
    else:
        w = module.weight if isinstance(module, nn.Conv2d) else module.quantizer(module.weight)
    bias = getattr(module, "bias", None)
    if norm:
        factor, shift = map(torch.from_numpy, norm)
        w, bias = w * factor.reshape(-1, 1, 1, 1), shift if bias is None else factor * bias + shift
    if isinstance(module, QuantLinear):
        plain = nn.utils.skip_init(nn.Linear, w.shape[1], w.shape[0], bias=False)
    else:
        more = {key: getattr(module, key) for key in ("dilation", "groups", "padding_mode") if hasattr(module, key)}
        plain = nn.utils.skip_init(
            nn.Conv2d, w.shape[1] * more.get("groups", 1), w.shape[0], w.shape[2:], module.stride, module.padding,
            bias=bias is not None, **more,
        )  # fmt: skip
    plain.requires_grad_(False).weight.copy_(w)  # contiguous, whatever the layout of the model's
    if bias is not None:
        plain.bias.copy_(bias)
    return plain


def _affine(norm: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """(factor, bias), float64 (K,): in evaluation mode norm(y) = factor * y + bias."""
    mean, variance = (value.double().numpy() for value in (norm.running_mean, norm.running_var))
    gamma, beta = (1, 0) if not norm.affine else (value.double().numpy() for value in (norm.weight, norm.bias))
    factor = gamma / np.sqrt(variance + norm.eps)
    return factor, beta - factor * mean


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
