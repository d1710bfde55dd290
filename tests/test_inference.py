"""Compiled and folded networks against their models, whose norms hold the statistics of real activations."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn

from sbkit import inference, kernels
from sbkit.conv import load_weights, save_weights
from sbkit.inference import LOGIT_BOUND, compile, fold
from sbkit.models import NONLINEARITIES, build_model, quant_layers, quantized_weights
from sbkit.quantizers import QuantizerConfig
from sbkit.way import KERNELS

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
    name: str, config: QuantizerConfig, nonlinearity: str = "relu", least: float = -0.5, **block: float
) -> nn.Module:
    """A network as training leaves it: statistics of activations, TTQ's scales apart, norms' factors from `least`."""
    size, width = SIZES[name]
    model = build_model(name, quantizer=config, image_size=size, width=width, nonlinearity=nonlinearity, **block)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(least, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
            elif config.quantizer == "ternary_ttq" and hasattr(module, "positive_scale"):
                module.positive_scale.fill_(1.3)
                module.negative_scale.fill_(0.6)
        for seed in range(3, 6):
            model(images(name, batch=16, seed=seed))
    return model.eval().requires_grad_(False)


def assert_agree(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).abs().max() <= LOGIT_BOUND * expected.abs().max()


def modules_left(network, kind) -> list[str]:
    return [step.name for step in network.steps if isinstance(step.call, kind)]


@pytest.mark.parametrize(
    "name, config",
    [*(("resnet8", config) for config in SCHEMES.values()), *((name, SCHEMES["ternary_ttq"]) for name in SIZES)],
)
def test_logits_are_those_of_the_model(name, config):
    model, x = settled(name, config), images(name)
    assert_agree(fold(model)(x), model(x))
    for batch in (1, 3):
        network = compile(model, image=image(name), batch=batch, tune=False)
        assert list(network.layers) == list(quant_layers(model))
        logits = network(x[:batch])
        assert_agree(logits, model(x[:batch]))
        assert torch.equal(network(x[:batch]), logits)  # a call leaves nothing behind


@pytest.mark.parametrize("name", ["resnet8", "vgg_small"])
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_every_nonlinearity(name, nonlinearity):
    model, x = settled(name, SCHEMES["signed_binary"], nonlinearity, least=0.2), images(name)
    network = compile(model, image=image(name), batch=3, tune=False)
    assert_agree(network(x), model(x))
    kind = type(NONLINEARITIES[nonlinearity](1))
    # The kernels do ReLU, of which only the stem's stays in torch.
    assert len(modules_left(network, kind)) == 1 + (0 if kind is nn.ReLU else len(network.layers))


def test_a_block_is_two_kernels_and_a_shortcut():
    network = compile(settled("resnet8", SCHEMES["binary"]), image=image("resnet8"), tune=False)
    blocks = [f"layer{stage}.0.{part}" for stage in (1, 2, 3) for part in ("shortcut", "conv1", "conv2")]
    assert [step.name for step in network.steps] == ["stem.0", "stem.2", *blocks, "pool", "classifier"]
    sources = {step.name: step.sources for step in network.steps}
    assert sources["layer2.0.conv1"] == ("x",) and sources["layer2.0.conv2"] == ("x", "shortcut")


@pytest.mark.parametrize("least, left", [(-0.5, ["5", "12", "19"]), (0.2, [])], ids=["negative factors", "positive"])
def test_a_norm_behind_a_pool_folds_unless_a_factor_is_negative(least, left):
    model, x = settled("vgg_small", SCHEMES["binary"], least=least), images("vgg_small")
    folded = fold(model)
    assert [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)] == left
    network = compile(model, image=image("vgg_small"), batch=3, tune=False)
    assert modules_left(network, nn.BatchNorm2d) == left
    assert len(modules_left(network, nn.ReLU)) == 1 + len(left)
    assert_agree(network(x), model(x))


@pytest.mark.parametrize("algorithm", KERNELS)
@pytest.mark.parametrize("encoding", ["auto", "two_group", "rewritten"])
def test_every_algorithm(algorithm, encoding):
    model, x = settled("resnet8", SCHEMES["binary"]), images("resnet8")
    options = {"algorithm": algorithm, "encoding": encoding, "batch": 3, "isa": kernels.isas()[0], "tune": False}
    if (algorithm, encoding) == ("dense", "rewritten"):
        with pytest.raises(ValueError, match=r"^layer layer1.0.conv1: encoding of dense = 'rewritten'"):
            compile(model, image=image("resnet8"), **options)
        return
    network = compile(model, image=image("resnet8"), **options)
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
    assert_agree(compile(model, image=image("resnet8"), batch=3, tune=False)(x), expected)


def test_a_module_without_parameters_may_stand_at_several_places():
    relu, x = nn.ReLU(), images("vgg_small")
    plain = settled("vgg_small", SCHEMES["binary"])
    model = nn.Sequential(*(relu if isinstance(module, nn.ReLU) else module for module in plain))
    assert_agree(fold(model)(x), plain(x))
    assert_agree(compile(model, image=image("vgg_small"), batch=3, tune=False)(x), plain(x))


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
    for make in (fold, functools.partial(compile, image=image("resnet8"))):
        with pytest.raises(TypeError, match=message):
            make(model)


def test_a_compiled_network_is_held_to_its_model(monkeypatch):
    model = copy.deepcopy(settled("resnet8", SCHEMES["binary"]))
    monkeypatch.setattr(inference, "average_pool", lambda x: x.mean((2, 3)) * 1.001)
    with pytest.raises(RuntimeError, match="the compiled network does not compute what the model does"):
        compile(model, image=image("resnet8"), batch=2, tune=False)
    monkeypatch.undo()
    model.layer1[0].act1[0].weight.fill_(3e38)
    with pytest.raises(ValueError, match="logits that are not finite on random images"):
        compile(model, image=image("resnet8"), tune=False)
    model.layer1[0].act1[0].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"layer layer1.0.conv1: scale holds nan; allowed: finite float32 numbers"):
        compile(model, image=image("resnet8"), tune=False)


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
        network = compile(model, weights, image=image("resnet8"), batch=3, tune=False)
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


def test_oblong_images_of_any_layout_from_torch_or_numpy():
    model = settled("resnet8", SCHEMES["signed_binary"])
    network = compile(model, image=(3, 10, 17), batch=2, tune=False)
    x = torch.randn(2, 3, 10, 17, generator=torch.Generator().manual_seed(7))
    kept, logits = x.clone(), network(x)
    assert_agree(logits, model(x))
    read_only = x.numpy().copy()
    read_only.flags.writeable = False
    alike = [
        x.numpy(),
        read_only,
        np.asfortranarray(x.numpy()),
        x.contiguous(memory_format=torch.channels_last),
        x.clone().requires_grad_(),
    ]
    for same in alike:
        assert_agree(network(same), logits)
    assert torch.equal(x, kept)


def test_a_channels_last_model_reaches_the_kernels_uncopied(monkeypatch):
    """Training keeps models in channels_last, which each kernel would have to undo."""
    model = copy.deepcopy(settled("resnet18", SCHEMES["signed_binary"])).to(memory_format=torch.channels_last)
    network = compile(model, image=image("resnet18"), batch=3)  # tuned
    monkeypatch.setattr(np, "ascontiguousarray", lambda a: a)
    assert_agree(network(images("resnet18")), model(images("resnet18")))  # kernels refuse another layout


def test_repr_lists_totals_and_steps():
    network = compile(settled("resnet8", SCHEMES["binary"]), image=image("resnet8"), tune=False)
    layers = network.layers.values()
    assert network.operations.adds == sum(p.operations.adds for p in layers) > 0
    assert network.weight_bytes == sum(p.weight_bytes for p in layers) > 0
    first, *lines = repr(network).splitlines()
    assert f"6 quantized layers with {network.operations.adds:,} adds" in first
    assert [line.split()[0] for line in lines] == [step.name for step in network.steps]
    assert "x, shortcut → x" in lines[4] and f"table {kernels.isas()[-1]} signed group" in lines[4]


@pytest.mark.parametrize(
    "x, error, message",
    [
        ([[0.0]], TypeError, "x is a list; allowed: a float32 torch tensor or numpy array"),
        (torch.zeros(1, 3, 12, 12, dtype=torch.float64), TypeError, "x has dtype torch.float64; allowed: float32"),
        (np.zeros((1, 3, 12, 12), np.int32), TypeError, "x has dtype int32; allowed: float32"),
        (torch.zeros(3, 12, 12), ValueError, r"x has shape (3, 12, 12); allowed: (1, 3, 12, 12)"),
        (np.zeros((2, 3, 12, 12), np.float32), ValueError, r"x has shape (2, 3, 12, 12); allowed: (1, 3, 12, 12)"),
    ],
)
def test_bad_images_are_named(x, error, message):
    network = compile(settled("resnet8", SCHEMES["binary"]), image=image("resnet8"), tune=False)
    with pytest.raises(error) as caught:
        network(x)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image": (1, 12, 12)}, "image = (1, 12, 12); allowed: what the model runs on"),
        ({"image": (3, 12)}, "image = (3, 12); allowed: (channels, height, width)"),
        ({"image": (3, 12, 0)}, "image width = 0; allowed: an integer >= 1"),
        ({"batch": 0}, "batch = 0; allowed: an integer >= 1"),
        ({"algorithm": "fft"}, "layer layer1.0.conv1: algorithm = 'fft'; allowed: dense, "),
        ({"encoding": "rewritten"}, "layer layer1.0.conv1: encoding = 'rewritten' with codes that hold 0"),
        ({"isa": "mmx"}, "layer layer1.0.conv1: isa = 'mmx'; allowed: "),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError) as caught:
        compile(settled("resnet8", SCHEMES["signed_binary"]), **{"image": image("resnet8"), "tune": False} | options)
    assert message in str(caught.value)


def test_bad_models_are_named():
    with pytest.raises(ValueError, match=r"full precision, without codes; allowed: weights=..., or fold\(model\)"):
        compile(settled("resnet8", FULL), image=image("resnet8"))
    with pytest.raises(TypeError, match=r"model is a Conv2d; allowed: a network of build_model"):
        compile(nn.Conv2d(3, 3, 1), image=image("resnet8"))
    for name in ("mlp", "transformer"):
        model = build_model(name, quantizer=SCHEMES["binary"], image_size=7, width=8)
        with pytest.raises(TypeError, match=r"with the linear quantized layers .*; allowed: .* quantizes convolutions"):
            compile(model, image=(3, 7, 7))
    with pytest.raises(TypeError, match=r"model nests its layers \['0.layer1.0.conv1'.*; allowed: a network"):
        compile(nn.Sequential(settled("resnet8", SCHEMES["binary"])), image=image("resnet8"))
    with pytest.raises(ValueError, match=r"image = \(3, 12, 12\); allowed: what the model runs on"):
        compile(settled("vgg_small", SCHEMES["binary"]), image=(3, 12, 12))


def test_bad_weights_are_named():
    model = settled("resnet8", SCHEMES["signed_binary"])
    weights = quantized_weights(model)
    lacking = {name: weight for name, weight in weights.items() if name != "layer3.0.conv2"}
    for given, message in (
        (lacking, "weights lack the layers ['layer3.0.conv2'] and have [] besides"),
        (weights | {"other": weights["layer1.0.conv1"]}, "weights lack the layers [] and have ['other'] besides"),
        (weights | {"layer1.0.conv1": weights["layer2.0.conv1"]}, "layer1.0.conv1: codes have shape (8, 4, 3, 3)"),
    ):
        for make in (fold, functools.partial(compile, image=image("resnet8"))):
            with pytest.raises(ValueError) as caught:
                make(model, given)
            assert message in str(caught.value)
