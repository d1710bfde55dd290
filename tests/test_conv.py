"""Shapes and quantized weights: derived sizes, exact round trip through a file, bad input."""

import os

import numpy as np
import pytest

from sbkit.conv import NETWORK_SHAPES, ConvShape, QuantizedWeight, load_weights, save_weights


def _codes(shape=(5, 3, 3, 3), seed=0):
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.int8)


def test_output_size_and_counts():
    shape = ConvShape(C=3, H=7, W=9, K=4, R=3, S=5, stride=2, padding=1, N=2)
    assert (shape.P, shape.Q) == (4, 4)
    assert shape.weights == 4 * 3 * 3 * 5 and shape.macs == 2 * 4 * 4 * shape.weights
    assert shape.with_batch(1).macs * 2 == shape.macs


@pytest.mark.parametrize(
    "network, layers, weights",
    [("resnet18", 16, 10_985_472), ("resnet34", 32, 21_086_208), ("resnet20", 18, 267_264), ("resnet32", 30, 460_800)],
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
    with pytest.raises(ValueError) as error:
        ConvShape(**{"C": 1, "H": 4, "W": 4, "K": 1} | options)
    assert message in str(error.value)


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
        ({"scale": np.ones(4)}, "scale has shape (4,); allowed: (5,)"),
        ({"channel_sign": np.ones(5)}, "channel_sign has shape (5,); allowed: (3,)"),
        ({"channel_sign": np.zeros(3)}, "channel_sign holds [0.0]; allowed: -1, +1"),
    ],
)
def test_bad_weights_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        QuantizedWeight(**{"codes": _codes()} | options)
    assert message in str(error.value)


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


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"not a zip file", lambda data: b""]
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = save_weights(tmp_path / "w.npz", {"a": QuantizedWeight(_codes())})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"w\.npz is not a readable weights file"):
        load_weights(path)


def test_any_changed_byte_is_refused_by_name_or_harmless(tmp_path):
    path = save_weights(tmp_path / "w.npz", {"a": QuantizedWeight(_codes())})
    data = path.read_bytes()
    for at in range(0, len(data), 17):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            weights = load_weights(path)
        except ValueError as error:
            assert "w.npz is not a readable weights file" in str(error)
        else:
            assert all(isinstance(weight, QuantizedWeight) for weight in weights.values())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"shape": np.array([2**12, 2**10, 50, 50])}, "a size of a = 10485760000; allowed: an integer from 1 to"),
        ({"shape": np.array([5, 3, 3, 4])}, r"positive has shape \(17,\); allowed: a bit for each of 5x3x3x4"),
        ({"shape": np.array([5, 3, -3, -3])}, "a size of a = -3"),
        ({"shape": np.array([5.0, 3, 3, 3])}, "a size of a = 5.0"),
        ({"shape": np.array([135])}, "shape = .135.; allowed: K, C, R, S"),
        ({"negative": np.zeros(16, np.uint8)}, r"negative has shape \(16,\)"),
        ({"scale": np.ones(5000, np.float32)}, "bytes of a/scale = 20128"),
        ({"scale": np.ones(4, np.float32)}, r"scale has shape \(4,\)"),
        ({"scheme": None}, "scheme"),
    ],
)
def test_a_layer_that_contradicts_its_shape_is_refused(tmp_path, changes, message):
    """A file of 1.4 kB that claims 10^10 weights must not be unpacked."""
    path = save_weights(tmp_path / "w.npz", {"a": QuantizedWeight(_codes())})
    with np.load(path) as file:
        arrays = dict(file) | {f"a/{field}": value for field, value in changes.items()}
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=rf"w\.npz is not a readable weights file: .*{message}"):
        load_weights(path)


def test_a_missing_file_is_no_damaged_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "w.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = save_weights(tmp_path / "w.npz", {"a": QuantizedWeight(_codes())})
    before = path.read_bytes()

    class Broken:
        codes = property(lambda self: (_ for _ in ()).throw(RuntimeError("broken")))

    with pytest.raises(RuntimeError, match="broken"):
        save_weights(path, {"a": Broken()})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["w.npz"]
