"""Shapes and quantized weights: derived sizes, exact round trip through a file, bad input."""

import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sbkit.conv import NETWORK_SHAPES, ConvShape, QuantizedWeight, load_weights, save_weights


def _codes(shape=(5, 3, 3, 3), seed=0):
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.int8)


@pytest.fixture
def saved(tmp_path):
    return save_weights(tmp_path / "w.npz", {"a": QuantizedWeight(_codes(), scheme="ternary_twn")})


def test_output_size_and_counts():
    shape = ConvShape(C=3, H=7, W=9, K=4, R=3, S=5, stride=2, padding=1, N=2)
    assert (shape.P, shape.Q) == (4, 4)
    assert shape.weights == 4 * 3 * 3 * 5 and shape.macs == 2 * 4 * 4 * shape.weights
    assert shape.with_batch(1).macs * 2 == shape.macs


@pytest.mark.parametrize(
    "network, layers, weights",
    [
        ("resnet18", 16, 10_985_472),
        ("resnet34", 32, 21_086_208),
        ("resnet20", 18, 267_264),
        ("resnet32", 30, 460_800),
        ("vgg_small", 5, 9 * (128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512)),
    ],
)
def test_the_table_holds_the_quantized_layers_of_the_networks(network, layers, weights):
    shapes = NETWORK_SHAPES[network]
    assert len(shapes) == layers and sum(shape.weights for shape in shapes) == weights


@pytest.mark.parametrize(
    "options, message",
    [
        ({"C": 0}, "ConvShape.C = 0"),
        ({"stride": 0}, "ConvShape.stride = 0"),
        ({"K": 2.0}, "ConvShape.K = 2.0"),
        ({"R": 9}, "a 9x3 window does not fit an input of 4x4 with padding 1"),
    ],
)
def test_impossible_shapes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConvShape(**{"C": 1, "H": 4, "W": 4, "K": 1} | options)


def test_dense_applies_scales_and_signs():
    codes = np.array([[1, -1], [0, 1]]).reshape(2, 2, 1, 1)
    weight = QuantizedWeight(codes, scale=[2, 3], negative_scale=[5, 7], channel_sign=[1, -1])
    np.testing.assert_array_equal(weight.dense().reshape(2, 2), [[2, 5], [0, -3]])
    assert weight.density == 0.75


@pytest.mark.parametrize(
    "options, message",
    [
        ({"codes": np.zeros((2, 3))}, "codes have shape (2, 3)"),
        ({"codes": np.zeros((2, 0, 3, 3))}, "no dimension empty"),
        ({"codes": np.full((1, 1, 1, 1), 2)}, "codes hold [2]; allowed: -1, 0, +1"),
        ({"codes": np.full((1, 1, 1, 1), np.nan)}, "codes hold [nan]; allowed: -1, 0, +1"),
        ({"scale": np.ones(4)}, "scale has shape (4,); allowed: (5,)"),
        ({"scale": [1, 1, np.nan, 1, 1]}, "scale holds nan; allowed: finite float32 numbers"),
        ({"negative_scale": [1, 1, -np.inf, 1, 1]}, "negative_scale holds -inf; allowed: finite float32 numbers"),
        ({"channel_sign": np.ones(5)}, "channel_sign has shape (5,); allowed: (3,)"),
        ({"channel_sign": np.zeros(3)}, "channel_sign holds [0.0]; allowed: -1, +1"),
        ({"channel_sign": [1, np.nan, 1]}, "channel_sign holds"),
    ],
)
def test_bad_weights_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        QuantizedWeight(**{"codes": _codes()} | options)
    assert message in str(error.value)


def test_a_scale_beyond_float32_is_refused():
    with pytest.raises(ValueError, match="scale holds inf"), np.errstate(over="ignore"):
        QuantizedWeight(_codes(), np.full(5, 1e39))


def test_round_trip_is_exact_and_small(tmp_path):
    weights = {
        "b.conv": QuantizedWeight(_codes((64, 64, 3, 3)), np.linspace(0, 1, 64), scheme="ternary_twn"),
        "a": QuantizedWeight(_codes((5, 7, 1, 1), 1), np.ones(5), np.full(5, 2), np.array([1, -1] * 3 + [1])),
    }
    path = save_weights(tmp_path / "new" / "w.npz", weights)
    loaded = load_weights(path)
    assert list(loaded) == list(weights)
    for name, weight in weights.items():
        for field in ("codes", "scale", "negative_scale", "channel_sign"):
            np.testing.assert_array_equal(getattr(loaded[name], field), getattr(weight, field), err_msg=field)
        assert loaded[name].scheme == weight.scheme
    assert path.stat().st_size < 64 * 64 * 9 / 3  # two bits a weight and a little
    assert os.listdir(path.parent) == ["w.npz"]
    assert load_weights(save_weights(path, {})) == {}


def _mutated(data: bytes, generator: random.Random, letters: bytes) -> bytes:
    """A few bytes flipped, replaced, removed or inserted."""
    found = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 8))):
        at, length = generator.randrange(len(found)), generator.randrange(1, 20)
        match generator.randrange(4):
            case 0:
                found[at] ^= 1 << generator.randrange(8)
            case 1:
                found[at] = generator.choice(letters)
            case 2 if len(found) > 2 * length:
                del found[at : at + length]
            case _:
                found[at:at] = generator.randbytes(length)
    return bytes(found)


def _damaged(data: bytes, generator: random.Random) -> bytes:
    return _mutated(data, generator, b"\x00\xff\x7fP")


def _forged(data: bytes, generator: random.Random) -> bytes:
    """An archive whose every checksum is right: only what one of its arrays holds was changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = generator.choice(list(members))
    members[name] = _mutated(members[name], generator, b"0123456789()[]'{}<>,")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("harm", [_damaged, _forged])
def test_a_changed_file_is_refused_by_name_or_is_a_weight(saved, monkeypatch, harm):
    """A damaged file that is read at all reads as before."""
    data, generator, refused = saved.read_bytes(), random.Random(0), 0
    for _ in range(1000):
        changed = harm(data, generator)
        monkeypatch.setattr(Path, "read_bytes", lambda _, changed=changed: changed)
        try:
            [weight] = load_weights(saved).values()
        except ValueError as error:
            assert "w.npz is not a readable weights file: " in str(error)
            refused += 1
        else:
            assert weight.codes.shape == (5, 3, 3, 3) and np.isfinite(weight.dense()).all()
            assert harm is _forged or (weight.dense() == _codes()).all()
    assert refused > 500


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"shape": np.array([2**12, 2**10, 50, 50])}, "weights of all layers = 10485760000; allowed: an integer from"),
        ({"shape": np.array([2**62, 2, 1, 1])}, "a size of a = 4611686018427387904; allowed: an integer from 1 to"),
        ({"shape": np.array([5, 3, 3, 4])}, r"positive has shape \(17,\), dtype uint8; allowed: \(23,\), uint8"),
        ({"shape": np.array([5, 3, -3, -3])}, "a size of a = -3"),
        ({"shape": np.array([5.0, 3, 3, 3])}, r"shape has shape \(4,\), dtype float64; allowed: \(4,\), int64"),
        ({"shape": np.array([135])}, r"shape has shape \(1,\)"),
        ({"negative": np.zeros(16, np.uint8)}, r"negative has shape \(16,\)"),
        ({"negative": np.full(17, 255, np.uint8)}, r"a has a code that is \+1 and -1"),
        ({"negative": np.zeros((17, 1), np.uint8)}, r"negative has shape \(17, 1\)"),
        ({"scale": np.ones(5000, np.float32)}, "bytes of a/scale = 20128"),
        ({"scale": np.ones(4, np.float32)}, r"scale has shape \(4,\)"),
        ({"scale": np.ones(5, ">f4")}, "scale has shape .* dtype >f4"),
        ({"scale": np.array([1, 1, np.nan, 1, 1], np.float32)}, "scale holds nan; allowed: finite"),
        ({"scale": np.array([None] * 5)}, "scale has shape .* dtype object"),
        ({"channel_sign": np.zeros(3, np.int8)}, r"channel_sign holds \[0\]"),
        ({"scheme": np.array("x" * 5000)}, "bytes of a/scheme"),
        ({"scheme": np.array(3)}, "scheme has shape .* dtype int64"),
        ({"scheme": None}, "allowed: once for each layer"),
        ({"more": np.zeros(1)}, "allowed: once for each layer"),
    ],
)
def test_a_layer_that_contradicts_its_shape_is_refused(saved, changes, message):
    """A file of 1.4 kB that claims 10^10 weights must not be unpacked."""
    with np.load(saved) as file:
        arrays = dict(file) | {f"a/{field}": value for field, value in changes.items()}
    np.savez_compressed(saved, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=rf"w\.npz is not a readable weights file: .*{message}"):
        load_weights(saved)


def test_the_layers_of_a_file_are_bounded_together(saved):
    """Zeros compress a thousandfold: many layers of the largest size must not be unpacked one after another."""
    zeros = np.zeros(2**13, np.uint8)
    layer = {"shape": np.array([2**6, 2**10, 2**10, 2]), "positive": zeros, "negative": zeros}
    layer |= {"scale": np.ones(2**6, np.float32), "negative_scale": np.ones(2**6, np.float32)}
    layer |= {"channel_sign": np.ones(2**10, np.int8), "scheme": np.array("")}
    np.savez(saved, **{f"{name}/{field}": value for name in "abcde" for field, value in layer.items()})
    with pytest.raises(ValueError, match="weights of all layers = 671088640; allowed: an integer from 0 to 268435456"):
        load_weights(saved)


def test_a_missing_file_is_no_damaged_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "w.npz")


def test_a_failed_write_leaves_the_old_file(saved):
    before = saved.read_bytes()

    class Broken:
        codes = property(lambda self: (_ for _ in ()).throw(RuntimeError("broken")))

    with pytest.raises(RuntimeError, match="broken"):
        save_weights(saved, {"a": Broken()})
    assert saved.read_bytes() == before and os.listdir(saved.parent) == ["w.npz"]
