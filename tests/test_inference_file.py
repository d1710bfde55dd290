"""A network in one file: what comes back, in how many bytes, and what becomes of damaged and forged files."""

import copy
import functools
import hashlib
import json
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from sbkit.conv import QuantizedWeight
from sbkit.inference import load, lower
from sbkit.inference.file import MAGIC, START, VERSION, read
from sbkit.inference.packing import pack, unpack
from sbkit.models import build_model, convert, quantized_weights
from sbkit.quantizers import QuantizerConfig
from sbkit.quantizers.activations import calibrate

FINE = QuantizerConfig(region_channels=4, region_taps=1, assignment="random")
MASKS = QuantizerConfig(region_channels=8, region_taps=1, assignment="random", codebook_bits=4)
SCHEMES = {
    "binary": QuantizerConfig("binary", scale="mean"),
    "ternary_twn": QuantizerConfig("ternary_twn"),
    "ternary_ttq": QuantizerConfig("ternary_ttq"),
    "zero_one": QuantizerConfig("zero_one"),
    "signed_binary": QuantizerConfig(),
    "fine signs": FINE,
    "16 masks": MASKS,
    "channel signs": QuantizerConfig(channel_signs=True),
}


def trained(name: str, config: QuantizerConfig, size: int, width: int, **options) -> tuple[nn.Module, torch.Tensor]:
    model = build_model(name, quantizer=config, image_size=size, width=width, **options)
    x = torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0))
    calibrate(model, x)
    with torch.no_grad():
        for module in model.modules():
            if config.quantizer == "ternary_ttq" and hasattr(module, "positive_scale"):
                module.positive_scale.fill_(1.3)
        for _ in range(3):
            model.train()(x)
    return model.eval().requires_grad_(False), x[:2]


@functools.cache
def small() -> tuple[nn.Module, torch.Tensor]:
    return trained("resnet8", FINE, 8, 4, activation_bits=4)


@pytest.fixture(scope="module")
def network():
    return lower(*small(), tune=False)


@pytest.fixture
def file(network, tmp_path):
    return network.save(tmp_path / "net.sbk", classes=[f"class {i}" for i in range(10)], mean=[0.5] * 3, std=[0.25] * 3)


@pytest.mark.parametrize("config", SCHEMES.values(), ids=SCHEMES)
def test_every_scheme_comes_back(config, tmp_path):
    model, x = trained("resnet8", config, 8, 8)
    network = lower(model, x, tune=False)
    file = network.save(tmp_path / "net.sbk")
    again = load(file, batch=2, tune=False)
    assert torch.equal(again(x), network(x))
    for name, weight in quantized_weights(model).items():
        found = again.source.weights[name]
        for field in ("codes", "scale", "negative_scale", "channel_sign"):
            assert np.array_equal(getattr(found, field), getattr(weight, field)), (name, field)
        assert found.scheme == weight.scheme
    assert again.save(tmp_path / "again.sbk").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    "name, size, width, options",
    [
        ("resnet8", 8, 4, {"block": "released"}),
        ("resnet8", 8, 4, {"nonlinearity": "prelu", "classes": 3}),
        ("resnet18", 32, 4, {"activation_bits": 8}),
        ("vgg_small", 8, 8, {"activation_bits": 3}),
        ("resnet8", 8, 4, {"activation_bits": 6, "outer_layers": "integers"}),
        ("mlp", 5, 8, {}),
        ("transformer", 7, 8, {}),
    ],
)
def test_every_network_comes_back(name, size, width, options, tmp_path):
    model, x = trained(name, FINE, size, width, **options)
    network = lower(model, x, tune=False)
    assert torch.equal(load(network.save(tmp_path / "net.sbk"), batch=2, tune=False)(x), network(x))


def test_what_goes_with_a_network(file, network):
    again = load(file, tune=False)
    assert again.shape == (1, 3, 8, 8)
    assert again.source.classes == tuple(f"class {i}" for i in range(10))
    assert again.source.mean == (0.5,) * 3 and again.source.std == (0.25,) * 3 and network.source.classes == ()


@pytest.mark.parametrize(
    "config, bits", [("binary", 1), ("zero_one", 1), ("signed_binary", 1), ("fine signs", 1.25), ("16 masks", 0.625)]
)
def test_codes_take_their_true_bits(config, bits):
    model = build_model("resnet8", quantizer=SCHEMES[config], width=64)
    for weight in quantized_weights(model).values():
        packing, data = pack(weight.codes)
        assert len(data) == sum(packing.parts)
        # Beside them, at most the patterns, a sign for each filter and the rest of a byte.
        assert 0 <= len(data) - weight.codes.size * bits / 8 <= 64 + len(weight.codes) / 8 + 3


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 2, 3), (2, 16, 1, 1), (5, 12, 3, 3), (4, 48, 1, 2)])
@pytest.mark.parametrize("values", [(1,), (-1,), (0,), (0, 1), (-1, 1), (-1, 0), (-1, 0, 1)])
def test_packing_loses_nothing(shape, values):
    codes = np.random.default_rng(0).choice(np.array(values, np.int8), shape)
    found = unpack(*pack(codes))
    assert found.dtype == np.int8 and found.flags.c_contiguous and np.array_equal(found, codes)
    QuantizedWeight(found)


def test_what_cannot_be_saved_is_named(network, tmp_path):
    model, x = small()
    path = tmp_path / "net.sbk"
    own = convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2)), FINE).model
    with pytest.raises(ValueError, match=r"network that build_model did not make; allowed: torch.save"):
        lower(own.eval(), x, tune=False).save(path)
    for change in (
        lambda m: setattr(m.layer1[0], "act1", nn.Sequential(m.layer1[0].act1[0], nn.GELU())),
        lambda m: setattr(m.layer2[0], "norm2", nn.GroupNorm(2, 8)),
        lambda m: m.layer3.append(nn.Tanh()),
    ):
        changed = copy.deepcopy(model)
        change(changed)
        with pytest.raises(ValueError, match=r"changed after build_model: .*; allowed: torch.save"):
            lower(changed, x, tune=False).save(path)
    for options, message in (
        ({"classes": ["cat"]}, "number of classes = 1; allowed: 0, 10"),
        ({"classes": [1] * 10}, "class 1; allowed: a text"),
        ({"mean": [0.5]}, "number of values of mean = 1; allowed: 0, 3"),
        ({"std": [0.5, 0.5, float("nan")]}, "std = nan; allowed: a number from 0"),
    ):
        with pytest.raises(ValueError, match=message):
            network.save(path, **options)
    wide = lower(model, torch.zeros(1, 3, 4, 1100), tune=False)
    with pytest.raises(ValueError, match="a size of the image = 1100; allowed"):
        wide.save(path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(file):
    data = file.read_bytes()
    for damaged, message in (
        (b"", r"number of bytes = 0; allowed"),
        (b"PK" + data, r"starts with b'PKsbkit"),
        (data[: START - 2], r"number of bytes = 49; allowed"),
        (data[:-1], "its checksum does not fit: it is cut or damaged"),
        (data + b"\0", "its checksum does not fit"),
        (data[:200] + bytes([data[200] ^ 1]) + data[201:], "its checksum does not fit"),
        (MAGIC + bytes([VERSION + 1]) + data[len(MAGIC) + 1 :], "its version is 2; allowed: 1, or another version"),
    ):
        file.write_bytes(damaged)
        for reader in (read, load):
            with pytest.raises(ValueError, match=message) as caught:
                reader(file)
            assert str(caught.value).startswith(f"{file} is not a readable network file: ")
    with pytest.raises(FileNotFoundError):
        load(file.with_name("none.sbk"))
    with pytest.raises(ValueError, match="batch = 0; allowed"):
        load(file, batch=0)


def forged(data: bytes, change=lambda header: None, payload: bytes = b"") -> bytes:
    """The file with another header or payload and a checksum that fits."""
    length = int.from_bytes(data[START - 4 : START], "little")
    header = json.loads(data[START : START + length])
    change(header)
    text = json.dumps(header).encode()
    body = len(text).to_bytes(4, "little") + text + (payload or data[START + length :])
    return MAGIC + bytes([VERSION]) + hashlib.sha256(body).digest() + body


def test_files_name_outer_layers_only_if_they_are_integers(file, tmp_path):
    """As files from before there was a choice, which are read, and older versions, which read those of floats."""
    assert "outer_layers" not in header_of(file) and read(file).options["outer_layers"] == "floats"
    model, x = trained("resnet8", FINE, 8, 4, activation_bits=6, outer_layers="integers")
    file = lower(model, x, tune=False).save(tmp_path / "integers.sbk")
    assert header_of(file)["outer_layers"] == "integers"


def header_of(file) -> dict:
    found = []
    forged(file.read_bytes(), lambda header: found.append(dict(header["model"])))
    return found[0]


LAYER = "layer1.0.conv1"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda h: h["layers"][LAYER].update(shape=[2**14, 2**14, 1, 1]), "bytes after the header"),
        (lambda h: h["layers"][LAYER].update(shape=[2**20, 2**20, 2**20, 3]), "weights of layer1.0.conv1 = "),
        (lambda h: h["layers"][LAYER].update(shape=[4, 4, 3]), r"shape = \[4, 4, 3\]; allowed: K, C, R, S"),
        (lambda h: h["layers"][LAYER].update(group=3), "group = 3; allowed: 1, 2, 4"),
        (lambda h: h["layers"][LAYER].update(patterns=2**40), "patterns = 1099511627776; allowed"),
        (lambda h: h["layers"][LAYER].update(signs="both"), "signs = 'both'; allowed: layer, filter"),
        (lambda h: h["layers"][LAYER].update(scales=7), "scales = 7; allowed: 0, 1, 2"),
        (lambda h: h["layers"][LAYER].pop("scheme"), "lacks scheme"),
        (lambda h: h["state"].update({"classifier.bias": [-1]}), "a size of classifier.bias = -1"),
        (lambda h: h["state"].update({"classifier.bias": [2**62, 2**62]}), "allowed: an integer from 1"),
        (lambda h: h["state"].update({"classifier.bias": 10}), "shape of classifier.bias = 10; allowed: a list"),
        (lambda h: h["state"].update(other=h["state"].pop("classifier.bias")), "state .*; allowed: that of"),
        (lambda h: h["model"].update(width=4096), "layers .*; allowed: those of"),
        (lambda h: h["model"].update(width=2**40), "model.width = 1099511627776; allowed"),
        (lambda h: h["model"].update(name="resnet9"), "model = 'resnet9'; allowed"),
        (lambda h: h["model"].update(seed=1), r"model.seed = 1; allowed"),
        (lambda h: h["model"].update(outer_layers="int8"), "outer_layers = 'int8'; allowed: floats, integers"),
        (lambda h: h["model"].pop("width"), "model lacks width"),
        (lambda h: h["model"].update(activation_bits=8), "state .*; allowed: that of"),
        (lambda h: h.update(image=[3, 2**20, 8]), "a size of the image = 1048576; allowed"),
        (lambda h: h.update(image=[4, 8, 8]), r"image = \(4, 8, 8\); allowed: 3 channels"),
        (lambda h: h.update(code="import os"), "header.code = 'import os'; allowed"),
    ],
)
def test_a_forged_file_is_named_before_memory_is_taken(file, change, message):
    file.write_bytes(forged(file.read_bytes(), change))
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        read(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_numbers_of_a_forged_file_are_checked(file):
    data = file.read_bytes()
    length = int.from_bytes(data[START - 4 : START], "little")
    payload = bytearray(data[START + length :])
    file.write_bytes(forged(data, payload=bytes(payload[:-4]) + b"\0\0\xc0\x7f"))
    with pytest.raises(ValueError, match=r"holds numbers that are not finite"):
        read(file)
    file.write_bytes(forged(data, payload=b"\xff" * len(payload)))
    with pytest.raises(ValueError, match="codes hold 3 and pattern 3; allowed: up to 2 and 3"):
        read(file)
    file.write_bytes(forged(data))
    assert read(file).options == small()[0].options


def test_mutations_raise_nothing_else(file, mutations=150):
    """Bytes of header and payload changed at random, the checksum mended: a ValueError, or a network of that size."""
    data, generator = file.read_bytes(), np.random.default_rng(0)
    length = int.from_bytes(data[START - 4 : START], "little")
    refused = 0
    tracemalloc.start()
    for trial in range(mutations):
        body = bytearray(data[START - 4 :])
        most = 4 + length if trial % 4 else len(body)
        for at in generator.integers(0, most, generator.integers(1, 4)):
            body[at] = generator.choice(list(b'0123456789"[]{},-e') if at >= 4 else range(256))
        file.write_bytes(MAGIC + bytes([VERSION]) + hashlib.sha256(body).digest() + body)
        try:
            read(file)
        except ValueError as error:
            assert str(file) in str(error)
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mutations > refused > mutations // 2 and peak < 2**24
