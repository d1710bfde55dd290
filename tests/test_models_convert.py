"""Anybody's network with quantized layers: what is quantized, what is left and why; and lowered to the kernels."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sbkit.data.torchvision import import_torchvision
from sbkit.inference import LOGIT_BOUND, ROUNDING_BOUND, fold, lower
from sbkit.models import QuantConv2d, QuantLinear, convert, quant_layers
from sbkit.quantizers import QuantizerConfig
from sbkit.quantizers.activations import LearnedStep, calibrate

FINE = QuantizerConfig(region_channels=4, region_taps=1, assignment="random", scale="mean")


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, (1, 3)),
        nn.Conv2d(8, 8, 1, stride=(1, 2)),
        nn.Conv1d(8, 8, 1),
        nn.ConvTranspose2d(8, 8, 1, bias=False),
        nn.TransformerEncoderLayer(8, 1, 8),
        nn.Linear(8, 8, bias=False),
        nn.Linear(8, 4),
        nn.Linear(4, 2),
    )


def test_what_is_left_is_listed_with_its_reason():
    model = network()
    state = copy.deepcopy(model.state_dict())
    converted, left = convert(model, FINE)
    inside = "inside a torch TransformerEncoderLayer, which may read its weights itself"
    assert left == {
        "0": "kept as asked",
        "2": "has groups 8",
        "3": "has dilation (2, 2)",
        "4": "has padding_mode reflect",
        "5": "has padding same",
        "6": "has kernel_size (1, 3)",
        "7": "has stride (1, 2)",
        "8": "is a Conv1d",
        "9": "is a ConvTranspose2d",
        **dict.fromkeys(("10.self_attn.out_proj", "10.linear1", "10.linear2"), inside),
        "13": "kept as asked",
    }
    assert {name: type(layer) for name, layer in quant_layers(converted).items()} == {
        "1": QuantConv2d,
        "11": QuantLinear,
        "12": QuantLinear,
    }
    layer = converted[1]
    assert torch.equal(layer.weight, state["1.weight"]) and torch.equal(layer.bias, state["1.bias"])
    assert (layer.stride, layer.padding) == (2, 1) and converted[11].bias is None
    assert not quant_layers(model)  # which is as it was
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_quantized_layer_is_the_layer_with_quantized_weights_and_its_bias():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(32, 5))
    converted, left = convert(model, FINE, keep=())
    assert left == {}
    plain = copy.deepcopy(model).requires_grad_(False)
    for index in (0, 2):
        plain[index].weight.copy_(converted[index].quantized())
    x = torch.randn(2, 4, 4, 4)
    assert torch.equal(converted(x), plain(x))
    converted(x).sum().backward()
    assert all(p.grad is not None for p in converted.parameters())
    for folded in (lower(converted, x), fold(converted)):
        assert (folded(x) - plain(x)).abs().max() <= LOGIT_BOUND * plain(x).abs().max()


def test_keep_and_seed():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    assert list(quant_layers(convert(model, FINE, keep=["1"]).model)) == ["0", "2"]
    shared = nn.Sequential(model[0], model[1], model[1])
    assert convert(shared, FINE, keep=()).left == {"1": "stands at several places"}
    assert convert(network(), FINE, keep=()).left["0"].startswith("region_channels = 4 does not divide C = 3; allowed")
    same, again, other = (convert(model, FINE, seed=seed).model[1].quantizer.beta for seed in (0, 0, 1))
    assert torch.equal(same, again) and not torch.equal(same, other)
    for keep, named in ((["0", "fc"], r"\['fc'\]"), ("0", "0")):
        with pytest.raises(ValueError, match=rf"keep names {named}; allowed: \['0', '1', '2'\]"):
            convert(model, FINE, keep=keep)


class Stranger(nn.Module):
    """ReLUs of every kind, an addition, and layers that other calls feed."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.first, self.second, self.third, self.fourth, self.fifth = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(5))
        self.unused, self.hidden, self.head = nn.Conv2d(8, 8, 1), nn.Linear(32, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        y = F.max_pool2d(F.relu(self.first(x)), 2)
        y = torch.relu_(self.second(y)) + y  # a sum is not what a ReLU wrote
        y = self.third(y)
        y = self.fourth(torch.tanh(y))
        y = self.fifth(F.relu(y, inplace=True))
        return self.head(F.relu(self.hidden(torch.flatten(F.adaptive_avg_pool2d(y.relu(), 2), 1))))


def test_layers_after_a_relu_have_learned_steps():
    torch.manual_seed(0)
    model, left = convert(Stranger(), FINE, activation_bits=4)
    assert left == {
        "stem": "kept as asked",
        "third": "has float activations, written by add, not a ReLU",
        "fourth": "has float activations, written by tanh, not a ReLU",
        "unused": "is not called",
        "head": "kept as asked",
    }
    layers = quant_layers(model)
    stepped = [name for name, layer in layers.items() if isinstance(layer.activations, LearnedStep)]
    assert stepped == ["first", "second", "fifth", "hidden"] and all(layers[n].activations.bits == 4 for n in stepped)
    x = torch.randn(8, 3, 8, 8)
    calibrate(model, x)
    assert all(layers[name].activations.log_step != 0 for name in stepped)
    model.train()(x).sum().backward()
    assert all(layers[name].activations.log_step.grad is not None for name in stepped)
    network = lower(model.eval(), x, tune=False)
    assert {name: layer.activation_bits for name, layer in network.layers.items()} == {
        "first": 4, "second": 4, "third": 32, "fourth": 32, "fifth": 4,
    }  # fmt: skip
    expected = model(x).detach()
    assert (network(x) - expected).norm() <= ROUNDING_BOUND * expected.norm()


def test_bits_that_cannot_be_are_refused():
    class Depends(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="activation_bits = 9"):
        convert(network(), FINE, activation_bits=9)
    with pytest.raises(
        ValueError, match=r"activation_bits = 4 of a network that cannot be traced, as torch\.fx says: "
    ):
        convert(Depends(nn.Conv2d(4, 4, 1), nn.ReLU()), FINE, keep=(), activation_bits=4)


TORCHVISION = {  # by name: layers on kernels, layers left, norms left, additions left
    "resnet18": (19, 2, 0, 0),
    "resnet50": (52, 2, 0, 0),
    "vgg11_bn": (7, 2, 0, 0),
    "mobilenet_v2": (34, 19, 0, 0),
    "densenet121": (119, 2, 62, 0),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision_are_lowered_right(name):
    import_torchvision()
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=10)
    if name == "vgg11_bn":  # its own has 120 million weights
        model.classifier = nn.Sequential(nn.Linear(512 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 10))
    model, left = convert(model, FINE)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 32, 32))
    model, x = model.eval().requires_grad_(False), torch.randn(2, 3, 32, 32)
    network, expected = lower(model, x, encoding="two_group", tune=False), model(x)
    for logits in (network(x), fold(model)(x)):
        assert (logits - expected).abs().max() <= LOGIT_BOUND * expected.abs().max()
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    additions = sum("add" in str(node.target) for node in network.body.graph.nodes)
    assert (len(network.layers), len(left), norms, additions) == TORCHVISION[name]
