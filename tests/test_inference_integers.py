"""Networks whose activations are integers: each layer by ==, the whole against the model, the test images of a trained
network."""

import copy
import functools
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forked import forked
from networks import scatter
from torch import fx, nn

from sbkit import kernels
from sbkit.data import load
from sbkit.inference import LOGIT_BOUND, ROUNDING_BOUND, KernelConv2d, fold, integers, lower
from sbkit.inference.integers import FromFloats, Grid, IntegerPool, Regrid, Scaled, ToFloats
from sbkit.inference.layers import FullConv2d, Head, OuterKernel
from sbkit.inference.pipeline import Link, Pipeline
from sbkit.models import QuantConv2d, build_model, convert
from sbkit.models.outer import OuterConv2d
from sbkit.quantizers import QuantizerConfig
from sbkit.quantizers.activations import LearnedStep, calibrate

FINE = QuantizerConfig(region_channels=4, region_taps=1, assignment="random", scale="mean")
SIZES = {"resnet8": (12, 8), "vgg_small": (16, 8), "resnet18": (32, 8)}  # of the image, width


@functools.cache
def settled(
    name: str, bits: int, config: QuantizerConfig = FINE, least: float = 0.5, outer: str = "floats"
) -> tuple[nn.Module, torch.Tensor]:
    """A network as training leaves it, and eight images."""
    size, width = SIZES[name]
    options = {"image_size": size, "width": width, "activation_bits": bits, "outer_layers": outer}
    model = build_model(name, quantizer=config, **options)
    generator = torch.Generator().manual_seed(bits)
    images = torch.randn(40, 3, size, size, generator=generator)
    scatter(model, least, generator)
    with torch.no_grad():
        calibrate(model, images)
        for _ in range(3):
            model.train()(images)
    return model.eval().requires_grad_(False), images[:8]


def assert_agree(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Where float32 rounds to the other side of a tie, an activation is another integer. Most images have none."""
    bound = LOGIT_BOUND * expected.abs().max()
    assert ((found - expected).abs().amax(1) <= bound).float().mean() > 0.5
    assert (found - expected).norm() <= ROUNDING_BOUND * expected.norm()


class Checked(fx.Interpreter):
    """Runs a lowered network, and each of its integer kernels against plain sums in float64, which are exact."""

    layers = outer = 0

    def call_module(self, target, args, kwargs):
        found = super().call_module(target, args, kwargs)
        module = self.fetch_attr(target)
        if isinstance(module, KernelConv2d) and module.takes_integers:
            self.check(module.prepared, args[0], None, found)
        elif isinstance(module, Pipeline):
            every = module.every(*args)
            tensors = [*args, *every.values()]
            for link, part in zip(module.links, module.parts, strict=True):
                if isinstance(part, KernelConv2d):
                    residual = tensors[link.residual] if link.residual >= 0 else None
                    self.check(part.prepared, tensors[link.x], residual, every[link.name])
                elif isinstance(part, OuterKernel):
                    self.check_outer(part, tensors[link.x], every[link.name])
                elif isinstance(part, FromFloats):
                    assert torch.equal(part(tensors[link.x]), every[link.name])
        return found

    def check_outer(self, part, x, found):
        values, s = x.double() - part.options["zero"], part.shape
        sums = F.conv2d(values, torch.from_numpy(part.weight).double(), stride=s.stride, padding=s.padding)
        assert np.array_equal(found.numpy(), part.rounding.apply(sums.numpy().astype(np.int32)))
        self.outer += 1

    def check(self, layer, x, residual, found):
        assert x.dtype == torch.uint8 and int(x.max()) < 2**layer.activation_bits
        codes = layer.weight.codes * layer.weight.channel_sign[:, None, None]
        sums = F.conv2d(
            x.double(), torch.from_numpy(codes).double(), stride=layer.shape.stride, padding=layer.shape.padding
        )
        sums = sums.numpy().astype(np.int32)
        expected = (
            layer.rounding.apply(sums, residual if residual is None else residual.numpy()) if layer.rounding else sums
        )
        assert found.dtype == (torch.uint8 if layer.rounding else torch.int32)
        assert np.array_equal(found.numpy(), expected)
        self.layers += 1


def assert_exact(network, x: torch.Tensor, outer: int = 0) -> int:
    """The number of integer layers, each of which equals its reference; so do as many outer layers in integers."""
    checked = Checked(network.body)
    assert torch.equal(checked.run(x), network(x)) and checked.outer == outer
    return checked.layers


OUTER = {"resnet8": 3, "vgg_small": 1, "resnet18": 4}  # layers


@pytest.mark.parametrize("outer", ["floats", "integers"])
@pytest.mark.parametrize("bits", [2, 4, 7, 8])
@pytest.mark.parametrize("name", SIZES)
def test_a_network_of_integers(name, bits, outer):
    model, x = settled(name, bits, outer=outer)
    network = lower(model, x, tune=False)
    assert_exact(network, x, OUTER[name] if outer == "integers" else 0)
    assert_agree(network(x), model(x))
    assert_agree(fold(model)(x), model(x))
    layers = list(network.layers.values())
    assert [layer.activation_bits for layer in layers] == [bits] * len(layers)
    # VGG-small's last layer has no step after it.
    assert [layer.rounding is None for layer in layers] == [False] * (len(layers) - 1) + [name == "vgg_small"]


def test_a_network_is_one_pipeline_from_image_to_logits():
    network = lower(*settled("resnet8", 4), tune=False)
    targets = [node.target for node in network.body.graph.nodes]
    assert (
        targets[:2] == ["x", "pipeline_stem_0"] and sum(str(target).startswith("pipeline") for target in targets) == 1
    )
    pipeline = network.body.get_submodule("pipeline_stem_0")
    kinds = {link.name: type(part) for link, part in zip(pipeline.links, pipeline.parts, strict=True)}
    assert list(kinds)[:4] == ["stem.0", "layer1.0.conv1_activations", "layer1.0.conv1", "layer1.0.conv2"]
    assert kinds["stem.0"] is FullConv2d and kinds["layer1.0.conv1_activations"] is Regrid
    assert kinds["layer2.0.shortcut.0"] is kinds["layer3.0.shortcut.0"] is FullConv2d
    assert list(kinds)[-1] == "classifier" and kinds["classifier"] is Head  # and the mean before it
    assert [node.op for node in network.body.graph.nodes] == ["placeholder", "call_module", "output"]
    bits = [layer.rounding.bits for layer in network.layers.values()]
    assert bits == [4, 8] * 3


def test_outer_layers_in_integers_are_part_of_that_pipeline():
    model, x = settled("resnet8", 4, outer="integers")
    network = lower(model, x, tune=False)
    assert [node.op for node in network.body.graph.nodes] == ["placeholder", "call_module", "output"]
    pipeline = network.body.get_submodule("pipeline_stem_0_activations")
    kinds = {link.name: type(part) for link, part in zip(pipeline.links, pipeline.parts, strict=True)}
    assert list(kinds)[:2] == ["stem.0_activations", "stem.0"] and kinds["stem.0_activations"] is FromFloats
    assert [name for name, kind in kinds.items() if kind is OuterKernel] == [
        "stem.0", "layer2.0.shortcut.0", "layer3.0.shortcut.0",
    ]  # fmt: skip
    assert FullConv2d not in kinds.values()
    for same in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(same(x), network(x))

    def task():
        assert torch.equal(network(x), lower(model, x, tune=False)(x))

    assert forked(task)() == 0


def test_an_outer_layer_that_no_step_follows_is_computed_in_torch():
    """Its weights and images are those of the model, rounded."""
    quantized = QuantConv2d(8, 4, 3, stride=1, padding=0, config=FINE, signs=torch.Generator())
    torch.nn.init.normal_(quantized.weight, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(OuterConv2d(3, 8, 3, padding=1, images=True), nn.Tanh(), LearnedStep(8), quantized)
    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    calibrate(model, x)
    network = lower(model.eval(), x, tune=False)
    assert not any(isinstance(module, OuterKernel) for module in network.modules())
    assert_agree(network(x).flatten(1), model(x).flatten(1))


@pytest.mark.parametrize("bits", [6, 32], ids=["integers", "floats"])
def test_a_bound_network_follows_its_input(bits):
    """In this process and in a forked child, whether the network is one pipeline or calls torch between kernels."""
    model, x = settled("resnet8", bits)
    network, bound = lower(model, x, tune=False), x.clone()
    call = network.bind(bound)
    assert isinstance(call, functools.partial) == (bits == 32), "a network that is one pipeline is called without torch"
    assert torch.equal(call(), network(x))
    bound.copy_(x.flip(3))
    expected = network(x.flip(3))

    def task():
        assert torch.equal(call(), expected)

    task()
    assert forked(task)() == 0


def test_what_a_network_is_not_bound_to():
    model, x = settled("resnet8", 6)
    network = lower(model, x, tune=False)
    with pytest.raises(ValueError, match=r"x has shape .*; allowed: .*, for which it was lowered"):
        network.bind(x[..., 1:])
    with pytest.raises(TypeError, match=r"x has dtype torch.float64; allowed: a float32 torch tensor"):
        network.bind(x.double())
    with pytest.raises(ValueError, match=r"x lies on cpu with strides .*; allowed: contiguous, on the CPU"):
        network.bind(x.transpose(2, 3).contiguous().transpose(2, 3))


@pytest.mark.parametrize(
    "config, least, whole",
    [
        (QuantizerConfig("binary", scale="mean"), 0.5, 5),
        (QuantizerConfig(channel_signs=True, scale="mean"), 0.5, 5),
        (QuantizerConfig("ternary_ttq"), 0.5, 0),  # two scales: kernels of floats, between steps in torch
        (FINE, -0.5, 5),  # negative factors behind pools: sums of integers, scaled in torch
    ],
    ids=["binary", "channel signs", "two scales", "negative factors"],
)
def test_what_the_integer_kernels_cannot_take_is_computed_otherwise(config, least, whole):
    model, x = settled("vgg_small", 5, config, least)
    network = lower(model, x, tune=False)
    assert assert_exact(network, x) == whole
    assert_agree(network(x), model(x))
    scaled = sum(isinstance(module, Scaled) for module in network.modules())
    assert scaled == {(5, 0.5): 1, (0, 0.5): 0, (5, -0.5): 3}[whole, least]


def test_steps_in_anybodys_network():
    """A signed step before a convolution, one between floats, one that two layers share, a step after an addition."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolutions = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(5))
            self.steps = nn.ModuleList(LearnedStep(bits, signed=bits in (5, 6)) for bits in (8, 5, 6, 4, 3))
            self.pool = nn.MaxPool2d(3, 2, 1)

        def forward(self, x):
            a, b, c, d, e = self.convolutions
            first, signed, other, fourth, last = self.steps
            y = first(F.relu(a(x)))
            z = signed(b(y) + y)  # signed, after an addition
            u = fourth(self.pool(F.relu(c(z)) - y))  # a convolution of signed integers, a pool of floats
            v = last(self.pool(F.relu(d(u))) + self.pool(u))
            return other(e(v)).tanh().flatten(1)

    torch.manual_seed(1)
    model = convert(Network(), FINE, keep=["convolutions.0"]).model
    x = torch.randn(8, 8, 9, 11)
    calibrate(model, x)
    model.eval().requires_grad_(False)
    network = lower(model, x, tune=False)
    assert assert_exact(network, x) == 3
    assert_agree(network(x), model(x))
    layers = network.layers
    assert [layers[f"convolutions.{i}"].activation_bits for i in (1, 2, 3, 4)] == [8, 32, 4, 3]
    assert layers["convolutions.1"].rounding.residual_scale > 0
    assert layers["convolutions.3"].rounding is None and layers["convolutions.4"].rounding.bits == 6
    for same in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(same(x), network(x))
    exported = torch.export.export(network, (x,)).module()
    assert torch.equal(exported(x), network(x))


@pytest.mark.parametrize("algorithm", ["dense", "table", "lookup"])
def test_every_algorithm_of_integers(algorithm):
    model, x = settled("resnet8", 4)
    network = lower(model, x, algorithm=algorithm, tune=False)
    assert {layer.algorithm for layer in network.layers.values()} == {algorithm}
    assert torch.equal(network(x), lower(model, x)(x))  # tuned
    with pytest.raises(ValueError, match=r"layer layer1.0.conv1: encoding of .* = 'signed'; allowed: "):
        lower(model, x, algorithm=algorithm, encoding="signed")
    network = lower(model, x, algorithm="dataflow", tune=False)  # which has no integers
    assert {layer.activation_bits for layer in network.layers.values()} == {32}
    assert_agree(network(x), model(x))


def test_integers_are_those_of_the_learned_step():
    for bits, signed in ((8, False), (8, True), (3, False), (4, True)):
        learned = LearnedStep(bits, signed=signed)
        learned.log_step.data.fill_(-1.3)
        grid = Grid.of(integers.Step(learned))
        x = torch.cat([torch.linspace(-40, 80, 3001), torch.arange(-5.5, 20) * learned.step.item()])
        entry = FromFloats(grid, (1, 1, 1, len(x)), "scalar")
        q = entry(x)
        assert torch.equal(Pipeline([Link("entry", 0)], [entry], 1, [1])(x.reshape(entry.shape)).flatten(), q)
        assert torch.equal(ToFloats(grid)(q), learned(x).detach()) and torch.equal(
            integers.Step(learned)(x), learned(x)
        )
        assert grid.bits == bits and int(q.min()) == 0 and int(q.max()) == 2**bits - 1
        other = LearnedStep(4)
        other.log_step.data.fill_(-0.2)
        again = Regrid(grid, Grid.of(integers.Step(other)), (1, 1, 1, len(q)), "scalar")
        slow = again(q)
        again = Pipeline([Link("regrid", 0)], [again], 1, [1])(q.reshape(1, 1, 1, -1)).flatten()
        assert torch.equal(again, slow)
        assert torch.equal(ToFloats(Grid.of(integers.Step(other)))(again), other(learned(x)).detach())


@pytest.mark.parametrize(
    "window, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1), ((2, 3), (1, 2), (1, 0)), (5, 3, 2)]
)
def test_pools_of_integers_are_those_of_floats(window, stride, padding):
    q = torch.randint(0, 256, (2, 3, 11, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pool = nn.MaxPool2d(window, stride, padding)
    found = Pipeline([Link("pool", 0)], [IntegerPool(pool, tuple(q.shape))], 1, [1])(q)
    assert torch.equal(found, pool(q.float()).to(torch.uint8))
    assert not IntegerPool.takes(nn.MaxPool2d(2, ceil_mode=True)) and not IntegerPool.takes(nn.MaxPool2d(2, dilation=2))


class Odd(nn.Module):
    """A step called twice, two steps of what is no image, layers called by keyword, a mean over the last axis."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.step, self.other, self.last = LearnedStep(4), LearnedStep(8), LearnedStep(4)
        self.linear = nn.Linear(8, 5)

    def forward(self, x):
        y = self.step(F.relu(self.first(input=x)))
        y = self.step(F.relu(self.second(y)))
        return self.linear(input=self.last(self.other(F.relu(y.flatten(2).mean(-1)))))


def test_odd_calls_are_lowered_right():
    torch.manual_seed(0)
    model = convert(Odd(), FINE, keep=["first", "linear"]).model
    x = torch.randn(4, 3, 6, 7)
    calibrate(model, x)
    network = lower(model.eval().requires_grad_(False), x, tune=False)
    assert_agree(network(x), model(x))


def test_what_is_unpickled_is_made_for_the_machine_it_meets(monkeypatch):
    content = pickle.dumps(lower(*settled("resnet8", 4), tune=False))
    monkeypatch.setenv("SBKIT_ISA", "scalar")
    network = pickle.loads(content)
    assert {layer.isa for layer in network.layers.values()} == {"scalar"}
    used = []
    monkeypatch.setattr(kernels, "step", lambda kind, isa="", **options: used.append(isa))
    for part in network.body.get_submodule("pipeline_stem_0").parts:
        if not isinstance(part, KernelConv2d):
            part.step()
    assert set(used) == {"scalar"}


def test_onnx_runtime_runs_the_folded_network():
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = settled("resnet8", 4)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs one more package
        torch.onnx.export(fold(model), (x,), buffer, dynamo=False, input_names=["x"], opset_version=17)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    assert_agree(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), model(x))


def test_a_trained_network_is_as_accurate_in_integers():
    data = load("digits")
    model = build_model("resnet8", quantizer=FINE, in_channels=1, image_size=8, width=8, activation_bits=4)
    x, x_test = ((images.float() - 78) / 96 for images in (data.x_train[:512], data.x_test))
    y, y_test = data.y_train[:512], data.y_test
    calibrate(model, x)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(5):
        for at in range(0, len(x), 64):
            loss = F.cross_entropy(model(x[at : at + 64]), y[at : at + 64])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval().requires_grad_(False)
    network = lower(model, x_test)
    right, expected = ((m(x_test).argmax(1) == y_test) for m in (network, model))
    assert expected.float().mean() > 0.8
    assert right.sum() == expected.sum() and (right == expected).float().mean() >= 0.998
