"""Lowered and folded networks against their models, whose norms hold the statistics of real activations."""

import copy
import functools
import gc
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import scatter
from torch import nn

from sbkit import kernels
from sbkit.conv import load_weights, save_weights
from sbkit.encodings import ENCODINGS_OF
from sbkit.inference import LOGIT_BOUND, fold, lower, lowering
from sbkit.models import NONLINEARITIES, QuantConv2d, build_model, quant_layers, quantized_weights
from sbkit.quantizers import QuantizerConfig

SCHEMES = {
    "binary": QuantizerConfig("binary", scale="mean"),
    "zero_one": QuantizerConfig("zero_one", scale="mean"),
    "ternary_twn": QuantizerConfig("ternary_twn"),
    "ternary_ttq": QuantizerConfig("ternary_ttq"),
    "signed_binary": QuantizerConfig(),
    "region_signs": QuantizerConfig(region_channels=2, assignment="random"),
    "channel_signs": QuantizerConfig(channel_signs=True, scale="mean"),
}
FULL = QuantizerConfig("full_precision")
SIZES = {"resnet8": (12, 4), "resnet20": (16, 8), "vgg_small": (16, 8), "resnet18": (32, 8)}  # of the image, width


def image(name: str) -> tuple[int, int, int]:
    return 3, SIZES[name][0], SIZES[name][0]


def images(name: str, batch: int = 3, seed: int = 2) -> torch.Tensor:
    return torch.randn(batch, *image(name), generator=torch.Generator().manual_seed(seed))


@functools.cache
def settled(
    name: str, config: QuantizerConfig, nonlinearity: str = "relu", least: float = -0.5, **block: str
) -> nn.Module:
    """A network as training leaves it: statistics of activations, TTQ's scales apart, norms' factors from `least`."""
    size, width = SIZES[name]
    model = build_model(name, quantizer=config, image_size=size, width=width, nonlinearity=nonlinearity, **block)
    scatter(model, least, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for seed in range(3, 6):
            model(images(name, batch=16, seed=seed))
    return model.eval().requires_grad_(False)


def assert_agree(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).abs().max() <= LOGIT_BOUND * expected.abs().max()


def modules_left(network, kind) -> list[str]:
    return [name for name, module in network.body.named_modules() if type(module) is kind]


@pytest.mark.parametrize(
    "name, config",
    [*(("resnet8", config) for config in SCHEMES.values()), *((name, SCHEMES["ternary_ttq"]) for name in SIZES)],
)
def test_logits_are_those_of_the_model(name, config):
    model, x = settled(name, config), images(name)
    assert_agree(fold(model)(x), model(x))
    for batch in (1, 3):
        network = lower(model, images(name, batch), tune=False)
        assert list(network.layers) == list(quant_layers(model))
        logits = network(x[:batch])
        assert_agree(logits, model(x[:batch]))
        assert torch.equal(network(x[:batch]), logits)  # a call leaves nothing behind


@pytest.mark.parametrize("name", ["resnet8", "vgg_small"])
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_every_nonlinearity(name, nonlinearity):
    model, x = settled(name, SCHEMES["signed_binary"], nonlinearity, least=0.2), images(name)
    network = lower(model, images(name, 3), tune=False)
    assert_agree(network(x), model(x))
    kind = type(NONLINEARITIES[nonlinearity](1))
    # The kernels do ReLU, of which only the stem's stays in torch.
    assert len(modules_left(network, kind)) == 1 + (0 if kind is nn.ReLU else len(network.layers))


def test_the_released_block():
    name = "resnet8"
    model, x = settled(name, SCHEMES["signed_binary"], block="released"), images(name)
    assert_agree(fold(model)(x), model(x))
    network = lower(model, x, tune=False)
    assert_agree(network(x), model(x))
    residuals = [node for node in network.body.graph.nodes if node.target in network.layers and len(node.args) == 2]
    assert len(residuals) == len(network.layers) == 6


def test_a_block_is_two_kernels_and_a_shortcut():
    network = lower(settled("resnet8", SCHEMES["binary"]), images("resnet8", 1), tune=False)
    names = {1: ("conv1", "conv2"), 2: ("conv1", "shortcut.0", "conv2"), 3: ("conv1", "shortcut.0", "conv2")}
    blocks = [f"layer{stage}.0.{part}" for stage, parts in names.items() for part in parts]
    calls = [node.target for node in network.body.graph.nodes]
    assert calls == ["x", "stem.0", "stem.2", *blocks, "mean", "classifier", "output"]
    sources = {node.target: list(map(str, node.args)) for node in network.body.graph.nodes}
    assert sources["layer2.0.conv2"] == ["layer2_0_conv1", "layer2_0_shortcut_0"]


@pytest.mark.parametrize("least, left", [(-0.5, ["5", "12", "19"]), (0.2, [])], ids=["negative factors", "positive"])
def test_a_norm_behind_a_pool_folds_unless_a_factor_is_negative(least, left):
    model, x = settled("vgg_small", SCHEMES["binary"], least=least), images("vgg_small")
    folded = fold(model)
    assert [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)] == left
    network = lower(model, images("vgg_small", 3), tune=False)
    assert modules_left(network, nn.BatchNorm2d) == left
    assert len(modules_left(network, nn.ReLU)) == 1 + len(left)
    assert_agree(network(x), model(x))


@pytest.mark.parametrize("algorithm", ENCODINGS_OF)
@pytest.mark.parametrize("encoding", ["auto", "two_group", "rewritten"])
def test_every_algorithm(algorithm, encoding):
    model, x = settled("resnet8", SCHEMES["binary"]), images("resnet8")
    options = {"algorithm": algorithm, "encoding": encoding, "isa": kernels.isas()[0], "tune": False}
    if (algorithm, encoding) == ("dense", "rewritten"):
        with pytest.raises(ValueError, match=r"^layer layer1.0.conv1: encoding of dense = 'rewritten'"):
            lower(model, x, **options)
        return
    network = lower(model, x, **options)
    chosen = encoding if encoding != "auto" else "signed" if algorithm == "table" else "two_group"
    assert {(p.algorithm, p.encoding) for p in network.layers.values()} == {(algorithm, chosen)}
    assert_agree(network(x), model(x))


# By what was done to a network of build_model: a change of `model`, which is lowered right.
CHANGES = {
    "SyncBatchNorm": lambda m: setattr(m.layer2[0], "norm2", nn.SyncBatchNorm(8)),
    "GroupNorm after conv2": lambda m: setattr(m.layer2[0], "norm2", nn.GroupNorm(2, 8)),
    "GroupNorm after conv1": lambda m: m.layer2[0].act1.__setitem__(0, nn.GroupNorm(2, 8)),
    "GroupNorm in a shortcut": lambda m: m.layer2[0].shortcut.__setitem__(1, nn.GroupNorm(2, 8)),
    "a norm without factors": lambda m: setattr(m.layer2[0], "norm2", nn.BatchNorm2d(8, affine=False)),
    "a norm of the batch": lambda m: setattr(m.layer2[0], "norm2", nn.BatchNorm2d(8, track_running_stats=False)),
    "appended to a stage": lambda m: m.layer1.extend([nn.BatchNorm2d(4), nn.ReLU(), nn.Tanh()]),
    "a convolution appended": lambda m: m.layer1.append(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))),
    "a stem with bias": lambda m: m.stem.__setitem__(0, nn.Conv2d(3, 4, 3, padding_mode="reflect", padding=1)),
    "a dilated stem": lambda m: m.stem.__setitem__(0, nn.Conv2d(3, 4, 3, padding="same", dilation=2)),
    "a stem of groups": lambda m: m.stem.insert(1, nn.Conv2d(4, 4, 3, groups=2)),
    "a parametrized stem": lambda m: nn.utils.parametrizations.weight_norm(m.stem[0]),
    "a pooled stem": lambda m: m.stem.extend([nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2)]),
    "dropout before a norm": lambda m: m.stem.insert(1, nn.Dropout()),
    "another non-linearity": lambda m: setattr(m.layer1[0], "act2", nn.GELU()),
    "no non-linearity": lambda m: setattr(m.layer1[0], "act1", nn.BatchNorm2d(4)),
    "a shortcut that pools": lambda m: setattr(
        m.layer2[0], "shortcut", nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8))
    ),
    "another classifier": lambda m: setattr(m, "classifier", nn.Sequential(nn.Dropout(), nn.Linear(16, 5))),
    "another padding": lambda m: (setattr(m.layer1[0].conv1, "padding", 0), setattr(m.layer1[0].conv2, "padding", 2)),
    "bfloat16": lambda m: m.to(torch.bfloat16),
    "double": lambda m: m.double(),
}


def changed(change) -> nn.Module:
    """A changed resnet8, as training leaves it."""
    model = copy.deepcopy(settled("resnet8", SCHEMES["channel_signs"]))
    change(model)
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        model.train()(1.5 * images("resnet8", 16, 4).to(dtype) + 0.3)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_network_is_lowered_right(change):
    model, x = changed(change), images("resnet8")
    expected = copy.deepcopy(model).float()(x)
    assert_agree(fold(model)(x), expected)
    assert_agree(lower(model, images("resnet8", 3), tune=False)(x), expected)


def test_a_module_without_parameters_may_stand_at_several_places():
    relu, x = nn.ReLU(), images("vgg_small")
    plain = settled("vgg_small", SCHEMES["binary"])
    model = nn.Sequential(*(relu if isinstance(module, nn.ReLU) else module for module in plain))
    assert_agree(fold(model)(x), plain(x))
    assert_agree(lower(model, images("vgg_small", 3), tune=False)(x), plain(x))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m.layer1[0].register_forward_hook(lambda *a: 2 * a[2]), "module layer1.0 has forward hooks"),
        (lambda m: m.stem[0].register_forward_pre_hook(lambda *a: None), "module stem.0 has forward hooks"),
        (lambda m: m.register_forward_hook(lambda *a: 2 * a[2]), "module model has forward hooks"),
        (lambda m: setattr(m.layer1[0], "forward", torch.tanh), "module layer1.0 has a forward method of its own"),
        (lambda m: setattr(m.layer1[0], "conv2", m.layer1[0].conv1), "layer1.0.conv2 is layer1.0.conv1 at another"),
    ],
)
def test_what_a_copy_would_drop_is_refused(change, message):
    model = copy.deepcopy(settled("resnet8", SCHEMES["binary"]))
    change(model)
    for make in (fold, functools.partial(lower, example=images("resnet8", 1))):
        with pytest.raises(TypeError, match=message):
            make(model)


def test_a_lowered_network_is_held_to_its_model(monkeypatch):
    model = copy.deepcopy(settled("resnet8", SCHEMES["binary"]))
    model.stem.append(nn.MaxPool2d(1))
    with monkeypatch.context() as context:
        context.setattr(lowering.ChannelsLastPool, "forward", lambda self, x: 1.001 * x)
        with pytest.raises(RuntimeError, match="the lowered network does not compute what the model does"):
            lower(model, images("resnet8", 2), tune=False)
    model.layer1[0].act1[0].weight.fill_(3e38)
    with pytest.raises(ValueError, match="logits that are not finite on random images"):
        lower(model, images("resnet8", 1), tune=False)
    model.layer1[0].act1[0].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"layer layer1.0.conv1: scale holds nan; allowed: finite float32 numbers"):
        lower(model, images("resnet8", 1), tune=False)


class Calls(nn.Module):
    """A network of one quantized convolution in which `call(self, x)` says what is computed."""

    def __init__(self, call):
        super().__init__()
        self.call, self.norm = call, settled("resnet8", SCHEMES["binary"]).layer1[0].norm2
        self.conv = settled("resnet8", SCHEMES["binary"]).layer1[0].conv1
        self.relu, self.add, self.pool = nn.GELU(), nn.PReLU(), nn.MaxPool2d(2)

    def forward(self, x):
        return self.call(self, x)


# What a pass must leave alone, or may take, by how often the kernel takes a residual and whether it takes the ReLU.
AWKWARD = {
    "a residual": (lambda m, x: m.conv(x) + x, 1, False),
    "a residual and a ReLU": (lambda m, x: F.relu(x.add(m.conv(x))), 1, True),
    "itself": (lambda m, x: (y := m.conv(x)) + y, 0, False),
    "used twice": (lambda m, x: (y := m.conv(x)).relu() + y, 0, False),
    "used twice, in place": (lambda m, x: (y := m.conv(x)).relu_() + y, 0, False),
    "a residual that broadcasts": (lambda m, x: m.conv(x) + x.mean((2, 3), keepdim=True), 0, False),
    "a number": (lambda m, x: torch.add(m.conv(x), 2.0), 0, False),
    "a factor": (lambda m, x: torch.add(m.conv(x), x, alpha=2), 0, False),
    "a residual written to": (lambda m, x: (z := x.tanh(), z.__iadd__(m.conv(x)) + z)[1], 0, False),
    "an input written to": (lambda m, x: (z := x.tanh(), y := m.conv(z), y + z.mul_(2) * z)[2], 0, False),
    "a norm used by others": (lambda m, x: m.norm(y := m.conv(x)) + y, 0, False),
    "pools with indices": (lambda m, x: F.max_pool2d(m.conv(x), 2).relu(), 0, False),
    "an upper bound": (lambda m, x: F.relu6(m.conv(x) + x), 1, False),
    "misleading names": (lambda m, x: m.relu(m.add(m.conv(x))), 0, False),
    "a pool twice, by keyword": (lambda m, x: m.pool(input=m.pool(m.conv(x))).relu(), 0, True),
    "dropout": (lambda m, x: F.relu(F.dropout(m.conv(x), 0.5, m.training)), 0, False),
    "a size": (lambda m, x: m.conv(x).view(x.shape[0], -1), 0, False),
    "a constant": (lambda m, x: m.conv(x) * torch.arange(12.0), 0, False),
}


@pytest.mark.parametrize("call, residuals, relu", AWKWARD.values(), ids=AWKWARD)
def test_awkward_calls_are_lowered_right(call, residuals, relu):
    x = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(5))
    model = Calls(call).eval()
    network = lower(model, x, tune=False)
    assert_agree(network(x.clone()), model(x.clone()))
    (layer,) = (node for node in network.body.graph.nodes if node.target == "conv")
    assert (len(layer.args) - 1, network.layers["conv"].relu) == (residuals, relu)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m, x: m.conv(x) if x.sum() > 0 else x, TypeError, "module model cannot be traced"),
        (lambda m, x: m.conv(m.conv(x)), TypeError, "layer conv is called 2 times; allowed: .* called once"),
        (lambda m, x: m.conv(x=x), TypeError, "layer conv is called by keyword; allowed: .* called once"),
        (lambda m, x: (m.conv(x), x), TypeError, "model returns a tuple; allowed: one tensor"),
        (lambda m, x: m.conv(x) + torch.randn(12), RuntimeError, "does not compute what the model does"),
    ],
)
def test_what_cannot_be_lowered_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        lower(Calls(call).eval(), torch.zeros(1, 4, 12, 12), tune=False)


def test_given_weights_replace_those_of_the_model(tmp_path):
    """Independently: a full-precision model whose weights are these numbers. They come from a file, as after a run."""
    file = save_weights(tmp_path / "a.npz", quantized_weights(settled("resnet8", SCHEMES["ternary_ttq"])))
    weights, x = load_weights(file), images("resnet8")
    expected = copy.deepcopy(settled("resnet8", FULL))
    for name, layer in quant_layers(expected).items():
        layer.weight.copy_(torch.from_numpy(weights[name].dense()))
    for config in (FULL, SCHEMES["signed_binary"]):
        model = copy.deepcopy(settled("resnet8", config))
        model.load_state_dict({n: v for n, v in expected.state_dict().items() if "conv" not in n}, strict=False)
        network = lower(model, x, weights, tune=False)
        assert {p.encoding for p in network.layers.values()} == {"two_group"}  # two scales allow no other
        assert_agree(network(x), expected(x))
        assert_agree(fold(model, weights)(x), expected(x))
        assert (model(x) - expected(x)).abs().max() > 1e-2 * expected(x).abs().max()


@pytest.mark.parametrize(
    "name, config", [("resnet8", FULL), ("resnet18", SCHEMES["channel_signs"]), ("vgg_small", SCHEMES["channel_signs"])]
)
def test_fold_is_a_plain_copy(name, config):
    model = copy.deepcopy(settled(name, config)).to(memory_format=torch.channels_last).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    folded = fold(model)
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert_agree(folded(images(name)), settled(name, config)(images(name)))
    assert not quant_layers(folded) and not folded.training
    assert {name for name, _ in folded.named_modules()} <= {name for name, _ in model.named_modules()}
    for parameter in folded.parameters():
        assert parameter.is_contiguous() and not parameter.requires_grad
    assert folded(images(name)).is_contiguous()


def test_oblong_images_of_any_layout():
    model = settled("resnet8", SCHEMES["signed_binary"])
    x = torch.randn(2, 3, 10, 17, generator=torch.Generator().manual_seed(7))
    network = lower(model, x, tune=False)
    kept, logits = x.clone(), network(x)
    assert_agree(logits, model(x))
    for same in (x.contiguous(memory_format=torch.channels_last), x.clone().requires_grad_()):
        assert_agree(network(same), logits)
    assert torch.equal(x, kept)


def test_a_channels_last_model_reaches_the_kernels_uncopied(monkeypatch):
    """Training keeps models in channels_last, which each kernel would have to undo."""
    model = copy.deepcopy(settled("resnet18", SCHEMES["signed_binary"])).to(memory_format=torch.channels_last)
    network = lower(model, images("resnet18", 3))  # tuned
    monkeypatch.setattr(np, "ascontiguousarray", lambda a: a)
    assert_agree(network(images("resnet18")), model(images("resnet18")))  # kernels refuse another layout


def test_repr_lists_totals_and_layers():
    network = lower(settled("resnet8", SCHEMES["binary"]), images("resnet8", 1), tune=False)
    layers = network.layers.values()
    assert network.operations.adds == sum(p.operations.adds for p in layers) > 0
    assert network.weight_bytes == sum(p.weight_bytes for p in layers) > 0
    assert f"6 layers on kernels with {network.operations.adds:,} adds" in repr(network)
    assert repr(network).count(f"(conv1): KernelConv2d(table {kernels.isas()[-1]} signed group") == 3


def test_a_network_is_an_ordinary_module():
    network, x = (
        lower(settled("resnet18", SCHEMES["channel_signs"]), images("resnet18"), tune=False),
        images("resnet18"),
    )
    logits = network(x)
    for same in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert same.layers.keys() == network.layers.keys()
        assert not {id(p) for p in same.layers.values()} & {id(p) for p in network.layers.values()}
        assert torch.equal(same(x), logits)
    assert torch.equal(torch.compile(network, backend="aot_eager", fullgraph=True)(x), logits)
    exported = torch.export.export(network, (x,))
    assert torch.equal(exported.module()(x), logits)
    kernel = torch.ops.sbkit.conv2d.default
    assert sum(node.target is kernel for node in exported.graph.nodes) == len(network.layers)
    part = network.body.get_submodule("layer2.0.conv2")
    y = torch.randn(3, 16, 4, 4)
    torch.library.opcheck(kernel, (y, y, part.plan), test_utils=("test_schema", "test_faketensor"))
    with pytest.raises(ValueError, match=r"train\(True\) of a lowered network"):
        network.train()
    program = exported.module()
    del network, part
    gc.collect()
    with pytest.raises(RuntimeError, match=r"sbkit::conv2d has no plan .*; allowed: to export it again"):
        program(x)


@pytest.mark.parametrize(
    "x, error, message",
    [
        ([[0.0]], TypeError, "x is a list; allowed: a float32 torch tensor"),
        (np.zeros((1, 3, 12, 12), np.float32), TypeError, "x is a ndarray; allowed: a float32 torch tensor"),
        (torch.zeros(1, 3, 12, 12, dtype=torch.float64), TypeError, "x has dtype torch.float64; allowed: a float32"),
        (torch.zeros(3, 12, 12), ValueError, r"x has shape (3, 12, 12); allowed: (1, 3, 12, 12)"),
        (torch.zeros(2, 3, 12, 12), ValueError, r"x has shape (2, 3, 12, 12); allowed: (1, 3, 12, 12)"),
    ],
)
def test_bad_images_are_named(x, error, message):
    network = lower(settled("resnet8", SCHEMES["binary"]), images("resnet8", 1), tune=False)
    with pytest.raises(error) as caught:
        network(x)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"example": torch.zeros(1, 1, 12, 12)}, "example has shape (1, 1, 12, 12); allowed: what the model runs on"),
        ({"example": torch.zeros(0, 3, 12, 12)}, "ConvShape.N = 0; allowed: an integer >= 1"),
        ({"algorithm": "fft"}, "layer layer1.0.conv1: algorithm = 'fft'; allowed: dense, "),
        ({"encoding": "rewritten"}, "layer layer1.0.conv1: encoding = 'rewritten' with codes that hold 0"),
        ({"isa": "mmx"}, "layer layer1.0.conv1: isa = 'mmx'; allowed: "),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError) as caught:
        lower(settled("resnet8", SCHEMES["signed_binary"]), **{"example": images("resnet8"), "tune": False} | options)
    assert message in str(caught.value)


def test_bad_models_are_named():
    with pytest.raises(ValueError, match=r"full precision, without codes; allowed: weights=..., or fold\(model\)"):
        lower(settled("resnet8", FULL), images("resnet8", 1))
    with pytest.raises(ValueError, match=r"example has shape \(1, 3, 12, 12\); allowed: what the model runs on"):
        lower(settled("vgg_small", SCHEMES["binary"]), torch.zeros(1, 3, 12, 12))
    with pytest.raises(TypeError, match=r"example is \(3, 12, 12\); allowed: a float32 torch tensor"):
        lower(settled("resnet8", SCHEMES["binary"]), (3, 12, 12))


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_linear_layers_become_plain_ones(name):
    model = build_model(name, quantizer=SCHEMES["channel_signs"], image_size=7, width=8).eval()
    x = torch.randn(3, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    network = lower(model, x)
    assert network.layers == {} and not quant_layers(network) and "0 layers on kernels" in repr(network)
    assert_agree(network(x), model(x).detach())
    assert_agree(fold(model)(x), model(x).detach())


def test_bad_weights_are_named():
    model = settled("resnet8", SCHEMES["signed_binary"])
    weights = quantized_weights(model)
    lacking = {name: weight for name, weight in weights.items() if name != "layer3.0.conv2"}
    for given, message in (
        (lacking, "weights lack the layers ['layer3.0.conv2'] and have [] besides"),
        (weights | {"other": weights["layer1.0.conv1"]}, "weights lack the layers [] and have ['other'] besides"),
        (weights | {"layer1.0.conv1": weights["layer2.0.conv1"]}, "layer1.0.conv1: codes have shape (8, 4, 3, 3)"),
    ):
        for make in (fold, lambda model, given: lower(model, images("resnet8"), given)):
            with pytest.raises(ValueError) as caught:
                make(model, given)
            assert message in str(caught.value)


def test_a_subclass_of_a_quantized_layer_is_refused():
    class Shifted(QuantConv2d):
        def forward(self, x):
            return super().forward(x) + 1

    model = build_model("resnet8", quantizer=QuantizerConfig("binary"))
    model.layer1[0].conv1.__class__ = Shifted
    with pytest.raises(TypeError, match=r"layer layer1.0.conv1 is a Shifted; allowed: QuantConv2d, QuantLinear"):
        fold(model)
