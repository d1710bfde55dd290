"""Outer layers in integers: their weights, what enters them, their gradients."""

import pytest
import torch
import torch.nn.functional as F

from sbkit.models import build_model
from sbkit.models.outer import MOST_OUTER, OuterConv2d
from sbkit.quantizers import QuantizerConfig
from sbkit.quantizers.activations import LearnedStep, calibrate

INTEGERS = {"quantizer": QuantizerConfig(), "activation_bits": 6, "outer_layers": "integers"}


def images(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [
        ("resnet8", 8, ["stem.0", "layer2.0.shortcut.0", "layer3.0.shortcut.0"]),
        ("vgg_small", 8, ["0"]),
        ("resnet18", 32, ["stem.0", *(f"layer{i}.0.shortcut.0" for i in (2, 3, 4))]),
    ],
)
def test_the_first_convolution_and_every_shortcut_are_outer_layers(name, size, found):
    model = build_model(name, **INTEGERS, image_size=size, width=4)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, OuterConv2d)}
    assert list(layers) == found
    assert [isinstance(layer.activations, LearnedStep) for layer in layers.values()] == [True] + [False] * (
        len(found) - 1
    )


def test_both_forms_begin_with_the_same_weights():
    models = [build_model("resnet8", **INTEGERS | {"outer_layers": form}, width=4) for form in ("integers", "floats")]
    integers, floats = (model.state_dict() for model in models)
    assert integers.keys() - floats.keys() == {"stem.0.activations.log_step"}
    assert all(torch.equal(integers[name], value) for name, value in floats.items())


def test_weights_are_integers_of_seven_bits_times_a_scale_for_each_filter():
    layer = OuterConv2d(3, 5, 3, padding=1, images=True)
    layer.weight.data = images(5, 3, 3, 3) * torch.logspace(-3, 2, 5)[:, None, None, None]
    layer.weight.data[2] = 0
    layer.weight.data[3] = 94 * 2.0**-149  # a scale of which float32 has few digits
    codes, scale = layer.codes()
    assert torch.equal(codes, codes.round())
    assert codes.abs().amax((1, 2, 3)).tolist() == [MOST_OUTER, MOST_OUTER, 0, MOST_OUTER, MOST_OUTER]
    assert torch.equal(layer.quantized(), codes * scale)
    assert ((layer.quantized() - layer.weight).abs() <= 0.5001 * scale)[[0, 1, 2, 4]].all()


@pytest.mark.parametrize(("R", "stride", "padding"), [(3, 1, 1), (7, 2, 3), (1, 2, 0), (1, 1, 0), (1, 2, 1)])
def test_it_is_the_convolution_of_what_both_roundings_leave(R, stride, padding):
    layer = OuterConv2d(3, 4, R, stride, padding, images=R > 1)
    x = images(2, 3, 9, 11).requires_grad_()
    if R > 1:
        layer.activations.fit(x)
    entering = layer.activations(x).detach().requires_grad_()
    weight = layer.quantized().detach().requires_grad_()
    expected = F.conv2d(entering, weight, stride=stride, padding=padding)
    found = layer(x)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad)  # straight through the rounding
    if R == 1:
        torch.testing.assert_close(x.grad, entering.grad)


def test_images_keep_their_whole_range_in_eight_bits():
    model = build_model("resnet8", **INTEGERS, image_size=8, width=4)
    x = images(16, 3, 8, 8)
    calibrate(model, x)
    step = model.stem[0].activations
    assert step.bits == 8 and step.signed
    assert step.step.item() == pytest.approx(float(x.abs().max()) / 127)
    assert (step(x) - x).abs().max() <= 0.5001 * step.step
