"""Networks: stated sizes, paired initial weights, shapes, what is quantized and what is not."""

import copy
import io
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from sbkit.conv import NETWORK_SHAPES
from sbkit.models import (
    MODELS,
    NONLINEARITIES,
    QuantLinear,
    build_model,
    conv_shapes,
    parameter_counts,
    quant_layers,
    quantized_weights,
    set_progress,
)
from sbkit.quantizers import QUANTIZERS, QuantizerConfig
from sbkit.quantizers.activations import LearnedStep, calibrate

FULL = QuantizerConfig("full_precision")


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_the_stated_ones(name):
    classes, image_size = {"resnet18": (1000, 224), "resnet34": (1000, 224), "transformer": (10, 28)}.get(
        name, (10, 32)
    )
    model = build_model(name, quantizer=FULL, classes=classes, image_size=image_size)
    assert tuple(parameter_counts(model).values()) == MODELS[name].parameters


@pytest.mark.parametrize(
    "name, size, expected",
    [
        ("resnet20", 32, NETWORK_SHAPES["resnet20"]),
        ("resnet32", 32, NETWORK_SHAPES["resnet32"]),
        ("resnet34", 224, NETWORK_SHAPES["resnet34"]),
        ("vgg_small", 32, NETWORK_SHAPES["vgg_small"]),
    ],
)
def test_shapes_are_those_of_the_table(name, size, expected):
    shapes = conv_shapes(build_model(name, quantizer=QuantizerConfig(), image_size=size), 3, size)
    assert [s.name for s in shapes] == [s.name for s in expected]
    assert shapes == list(expected)


@pytest.mark.parametrize(
    "name, channels, size", [("resnet8", 1, 8), ("resnet20", 1, 14), ("vgg_small", 3, 16), ("mlp", 1, 8)]
)
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_forward_for_small_and_grey_images(name, channels, size, nonlinearity):
    model = build_model(
        name, quantizer=QuantizerConfig(), in_channels=channels, classes=7, image_size=size, width=8,
        nonlinearity=nonlinearity,
    )  # fmt: skip
    logits = model(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 7) and logits.isfinite().all()


@pytest.mark.parametrize("name, in_channels, size", [("mlp", 3, 5), ("transformer", 1, 14), ("transformer", 3, 7)])
def test_networks_of_linear_layers(name, in_channels, size):
    options = {"in_channels": in_channels, "classes": 7, "image_size": size, "width": 16}
    model = build_model(name, quantizer=QuantizerConfig(region_channels=4, assignment="random"), **options)
    x = torch.randn(2, in_channels, size, size)
    logits = model(x)
    assert logits.shape == (2, 7) and logits.isfinite().all()
    layers = quant_layers(model)
    assert len(layers) == {"mlp": 3, "transformer": 12}[name]
    assert all(isinstance(layer, QuantLinear) for layer in layers.values())
    assert {layer.quantizer.beta.shape[1] for layer in layers.values()} == {"mlp": {4}, "transformer": {4, 16}}[name]
    # Full precision at both ends, and each layer's weights count.
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for n, parameter in model.named_parameters() if n != "1.bias")
    inner = {"mlp": (nn.Flatten, nn.Linear), "transformer": (nn.Conv2d,)}[name]
    assert isinstance(next(iter(model.children())), inner) and not isinstance(list(model.children())[-1], QuantLinear)


def test_the_transformer_sees_where_a_patch_is_and_every_patch():
    model = build_model("transformer", quantizer=QuantizerConfig(scale="mean"), image_size=14, width=8).eval()
    x = torch.randn(1, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    moved = x.roll(2, 3)  # by one patch
    with torch.no_grad():
        assert not torch.allclose(model(x), model(moved), atol=1e-4)
        model.positions.zero_()
        torch.testing.assert_close(model(x), model(moved))
        for row in range(0, 14, 2):
            changed = x.clone()
            changed[0, :, row, row] += 1
            assert not torch.allclose(model(x), model(changed), atol=1e-6)


def test_attention_is_the_stated_formula():
    model = build_model("transformer", quantizer=FULL, image_size=7, width=8)
    block, x = model.blocks[0], torch.randn(1, 49, 8)
    y = F.layer_norm(x, (8,))
    q, k, v = (y @ layer.weight.T for layer in (block.query, block.key, block.value))
    heads = [slice(2 * head, 2 * head + 2) for head in range(4)]
    attended = [(q[..., h] @ k[..., h].mT / 2**0.5).softmax(2) @ v[..., h] for h in heads]
    between = x + torch.cat(attended, 2) @ block.output.weight.T
    expected = between + F.gelu(F.layer_norm(between, (8,)) @ block.up.weight.T) @ block.down.weight.T
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("name, size", [("resnet8", 32), ("mlp", 32), ("transformer", 28)])
def test_the_same_seed_gives_every_scheme_the_same_latent_weights(name, size):
    options, state = {"image_size": size, "seed": 3}, torch.get_rng_state()
    models = {key: build_model(name, quantizer=QuantizerConfig(key), **options) for key in QUANTIZERS}
    random = QuantizerConfig(assignment="random", region_channels=4, channel_signs=True)
    models["random signs"] = build_model(name, quantizer=random, **options)
    reference = dict(models.pop("full_precision").named_parameters())
    for key, model in models.items():
        parameters = {n: p for n, p in model.named_parameters() if "quantizer" not in n}
        assert parameters.keys() == reference.keys()
        assert all(torch.equal(p, reference[n]) for n, p in parameters.items()), key
    other = build_model(name, quantizer=FULL, image_size=size, seed=4)
    assert not torch.equal(next(other.parameters()), next(iter(reference.values())))
    assert torch.equal(torch.get_rng_state(), state)


def test_fixed_signs_are_reproducible_and_differ_between_seeds_and_layers():
    config = QuantizerConfig(assignment="random", region_channels=4)
    one, same, other = (
        [layer.quantizer.beta for layer in quant_layers(build_model("resnet20", quantizer=config, seed=seed)).values()]
        for seed in (0, 0, 1)
    )
    assert all(map(torch.equal, one, same)) and not all(map(torch.equal, one, other))
    assert not torch.equal(one[0], one[1])


def test_a_linear_layer_has_one_output_position_a_token():
    shapes = conv_shapes(build_model("transformer", quantizer=FULL, image_size=14, width=8), 3, 14)
    assert {(s.C, s.K, s.P, s.Q, s.R, s.S) for s in shapes} == {
        (8, 8, 49, 1, 1, 1),
        (8, 32, 49, 1, 1, 1),
        (32, 8, 49, 1, 1, 1),
    }
    shapes = conv_shapes(build_model("mlp", quantizer=FULL, image_size=8, width=16), 3, 8)
    assert [(s.C, s.K, s.P, s.Q, s.R, s.S) for s in shapes] == 3 * [(16, 16, 1, 1, 1, 1)]


@pytest.mark.parametrize("name, size", [("vgg_small", 14), ("resnet18", 33), ("resnet8", 7)])
def test_stated_shapes_predict_the_real_output_sizes(name, size):
    model = build_model(name, quantizer=QuantizerConfig(), in_channels=1, image_size=size, width=8).eval()
    shapes = conv_shapes(model, 1, size)
    seen = {}
    for module_name, layer in quant_layers(model).items():
        layer.register_forward_hook(lambda _, __, y, key=module_name: seen.update({key: tuple(y.shape)}))
    model(torch.zeros(2, 1, size, size))
    assert seen == {s.name: (2, s.K, s.P, s.Q) for s in shapes} and list(seen) == [s.name for s in shapes]


def test_conv_shapes_takes_oblong_images_and_leaves_the_model_as_it_was():
    model = build_model("resnet8", quantizer=QuantizerConfig(), width=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shapes = conv_shapes(model, 3, (8, 12))
    assert [(s.H, s.W) for s in shapes] == [(8, 12), (8, 12), (8, 12), (4, 6), (4, 6), (2, 3)]
    assert model.training and all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_released_block_is_the_stated_formula():
    """Written from the released code, with the convolutions' own bias, which the block here leaves out."""
    options = {"quantizer": QuantizerConfig(), "width": 4, "seed": 3}
    model, basic = build_model("resnet8", block="released", **options), build_model("resnet8", **options)
    latent, same = ([layer.weight for layer in quant_layers(m).values()] for m in (model, basic))
    assert all(map(torch.equal, latent, same))
    block, generator = model.layer2[0], torch.Generator().manual_seed(0)
    x = 3 * torch.randn(5, 4, 7, 6, generator=generator)
    moves = [block.before1, block.act1[0], block.act1[2], block.before2, block.act2[0], block.act2[2]]
    for parameter in [*(move.bias for move in moves), block.act1[1].weight, block.act2[1].weight]:
        torch.nn.init.normal_(parameter, generator=generator)
    b10, b11, b12, b20, b21, b22 = (move.bias for move in moves)

    def normed(y):  # as a fresh batch norm does in training
        return (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()

    def conv(layer, x, stride):
        bias = torch.randn(8, generator=generator)
        return normed(F.conv2d(x.clamp(-2, 2), layer.quantizer(layer.weight), bias, stride=stride, padding=1))

    def prelu(y, slope):
        return y.where(y > 0, y * slope[:, None, None])

    pooled = F.avg_pool2d(x, 2, ceil_mode=True)
    around = normed(F.conv2d(pooled, block.shortcut[1].weight))
    between = prelu(conv(block.conv1, x + b10, 2) + around + b11, block.act1[1].weight) + b12
    expected = prelu(conv(block.conv2, between + b20, 1) + between + b21, block.act2[1].weight) + b22
    torch.testing.assert_close(block(x), expected, atol=1e-4, rtol=1e-4)


def test_released_block_has_the_same_values_and_gradients_in_channels_last():
    """There it has its own gradients; in the default layout autograd derives those of the formula."""
    model = build_model("resnet8", block="released", quantizer=QuantizerConfig(), width=4, seed=3).double()
    generator, results = torch.Generator().manual_seed(0), []
    x = 3 * torch.randn(5, 4, 7, 6, generator=generator, dtype=torch.float64)
    for name, parameter in model.named_parameters():
        if "before" in name or "act" in name:
            torch.nn.init.normal_(parameter, generator=generator)
    for layout in (torch.contiguous_format, torch.channels_last):
        stages = copy.deepcopy(model.layer1), copy.deepcopy(model.layer2)  # with and without a change of shape
        y = start = x.clone(memory_format=layout).requires_grad_()
        for stage in stages:
            y = stage.to(memory_format=layout)(y)
        (y.sin() * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        results.append([y.detach(), start.grad, *(p.grad for stage in stages for p in stage.parameters())])
    assert "Activated" in y.grad_fn.name()
    for plain, own in zip(*results, strict=True):
        torch.testing.assert_close(own, plain, check_stride=False)


@pytest.mark.parametrize(("bits", "steps"), [(8, 2), (4, 3)])
def test_integer_activations_are_few_levels_wherever_they_meet_quantized_layers(bits, steps):
    """Per block: conv1's, if not the stream's own, conv2's, and the stream after it; one shortcut changes shape."""
    model = build_model("resnet8", quantizer=QuantizerConfig(), width=4, activation_bits=bits)
    found = [m for m in model.modules() if isinstance(m, LearnedStep)]
    assert len(found) == 1 + 3 * steps + 2 and {step.bits for step in found} == {bits, 8}
    assert sum(step.signed for step in found) == 2
    calibrate(model, torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    outputs = {}
    for name, layer in quant_layers(model).items():
        layer.activations.register_forward_hook(lambda _, __, y, name=name: outputs.update({name: y}))
    model(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert len(outputs) == 6 and all(2 < len(y.unique()) <= 2**bits for y in outputs.values())


def test_narrow_networks_have_right_gradients_in_channels_last():
    """On AVX2, which nearly every x86 CPU can be told to be, oneDNN has none for a narrow convolution with a stride."""
    torch.manual_seed(0)
    for width in (1, 7, 8):
        x, gradients = torch.randn(16, 1, 8, 8), []
        for layout in (torch.contiguous_format, torch.channels_last):
            options = {"in_channels": 1, "image_size": 8, "width": width}
            # Not ReLU, whose gradient jumps where a layout's rounding moves an activation over 0.
            model = build_model("resnet8", quantizer=QuantizerConfig(), nonlinearity="tanh", **options)
            model.to(memory_format=layout)(x.contiguous(memory_format=layout)).square().sum().backward()
            gradients.append([p.grad.contiguous() for p in model.parameters()])
        torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)


def test_they_have_on_avx2_too():
    """oneDNN reads this variable as it starts, hence a process of its own."""
    test = f"{__file__}::{test_narrow_networks_have_right_gradients_in_channels_last.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]


def test_quantized_weights_are_what_the_network_computes_with():
    model = build_model("resnet8", quantizer=QuantizerConfig(region_channels=8, assignment="random"))
    weights = quantized_weights(model)
    assert list(weights) == list(quant_layers(model))
    plain = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(plain) == 4  # in full precision: stem, two shortcuts, classifier
    for name, layer in quant_layers(model).items():
        np.testing.assert_array_equal(weights[name].dense(), layer.quantizer(layer.weight).detach().numpy())
    assert quantized_weights(build_model("resnet8", quantizer=FULL)) == {}


# A layer computes with the weights it has when it is called, whatever happened before. The expected values come from
# the numpy codes.


def conv_of_codes(layer, x):
    weight = torch.from_numpy(layer.quantizer.codes(layer.weight).dense())
    return F.conv2d(x, weight, stride=layer.stride, padding=layer.padding)


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("key", [key for key in QUANTIZERS if key != "full_precision"])
def test_an_interrupted_pass_leaves_nothing_in_a_layer_or_its_copies(key):
    model = build_model("resnet8", quantizer=QuantizerConfig(key))
    hook = model.layer2.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(torch.zeros(2, 3, 8, 8))
    hook.remove()
    for network in (copy.deepcopy(model), model):
        layer, x = network.layer3[0].conv2, torch.randn(1, 64, 4, 4)
        with torch.no_grad():
            layer.weight.neg_()
        torch.testing.assert_close(layer(x), conv_of_codes(layer, x))
        layer(x).sum().backward()
        assert layer.weight.grad is not None


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("options", [{"quantizer": "ternary_ttq"}, {"estimator": "sb_ede", "threshold": "learned"}])
def test_gradient_checkpoints_change_no_gradient(options, reentrant):
    model = build_model("resnet8", quantizer=QuantizerConfig(**options), width=4)
    x, gradients = torch.randn(4, 3, 8, 8), []
    for stage in (lambda part, y: part(y), lambda part, y: checkpoint(part, y, use_reentrant=reentrant)):
        network = copy.deepcopy(model)
        y = network.stem(x)
        for part in (network.layer1, network.layer2, network.layer3):
            y = stage(part, y)
        y.square().sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys() and {f"{name}.weight" for name in quant_layers(model)} <= plain.keys()
    assert all(torch.equal(recomputed[name], gradient) for name, gradient in plain.items())


def exported(module, x):
    """What ONNX Runtime computes from the module as torch's tracing exporter writes it."""
    onnxruntime, file = pytest.importorskip("onnxruntime"), io.BytesIO()
    pytest.importorskip("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is old, and that the weights become constants
        torch.onnx.export(module, (x,), file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("key", [key for key in QUANTIZERS if key != "full_precision"])
def test_onnx_export_of_a_layer_and_of_a_network(key):
    model, x = build_model("resnet8", quantizer=QuantizerConfig(key), width=4).eval(), torch.randn(2, 3, 8, 8)
    layer, y = model.layer2[0].conv1, torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(exported(layer, y), conv_of_codes(layer, y), atol=1e-5, rtol=1e-5)
    logits = model(x).detach()  # codes without scales: up to 1e7 where others are near 0, all of one rounding error
    torch.testing.assert_close(exported(model, x), logits, atol=2e-6 * logits.abs().max().item(), rtol=0)


def test_progress_reaches_every_quantizer():
    model = build_model("resnet8", quantizer=QuantizerConfig("binary", estimator="ede"))
    set_progress(model, 1.0)
    assert {layer.quantizer.t for layer in quant_layers(model).values()} == {10.0}
    with pytest.raises(ValueError, match=r"progress = 1.5; allowed: a number from 0 to 1"):
        set_progress(model, 1.5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "resnet19"}, "model = 'resnet19'; allowed: resnet8, resnet20"),
        ({"nonlinearity": "gelu"}, "nonlinearity = 'gelu'; allowed: relu, prelu"),
        ({"width": -1}, "width = -1; allowed: an integer >= 0"),
        ({"classes": 0}, "classes = 0; allowed: an integer >= 1"),
        ({"name": "vgg_small", "image_size": 4}, "image_size of vgg_small = 4; allowed: an integer >= 8"),
        ({"name": "transformer", "image_size": 32}, "image_size = 32 for transformer; allowed: multiples of 7"),
        ({"name": "transformer", "image_size": 14, "width": 30}, "width = 30 for transformer; allowed: multiples of 4"),
        (
            {"name": "transformer", "image_size": 14, "nonlinearity": "prelu"},
            "nonlinearity = 'prelu' has no effect on transformer, which has GELU; allowed: relu",
        ),
        ({"name": "vgg_small", "block": "released"}, "block = 'released' has no effect on vgg_small; allowed"),
        ({"block": "xnor"}, "block = 'xnor'; allowed: basic, released"),
        ({"block": "released", "nonlinearity": "tanh"}, "no effect on resnet8, which has PReLU; allowed: relu"),
        ({"activation_bits": 9}, "activation_bits = 9; allowed: an integer from 2 to 8, or 32 for floats"),
        ({"activation_bits": 8, "nonlinearity": "prelu"}, "with activations of both signs, as prelu leaves them"),
        ({"activation_bits": 8, "block": "released"}, "with activations of both signs, as PReLU leaves them"),
        ({"outer_layers": "int8"}, "outer_layers = 'int8'; allowed: floats, integers"),
        (
            {"outer_layers": "integers"},
            "outer_layers = 'integers' for resnet8 with activation_bits = 32; allowed: networks",
        ),
        (
            {"name": "mlp", "activation_bits": 8, "outer_layers": "integers"},
            "'integers' for mlp with activation_bits = 8",
        ),
        ({"quantizer": QuantizerConfig(region_channels=3)}, "region_channels = 3 does not divide C = 16"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError) as error:
        build_model(**{"name": "resnet8", "quantizer": FULL} | options)
    assert message in str(error.value)
