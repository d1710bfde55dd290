"""Quantizers: exact codes, surrogate gradients against independently written formulas, fixed signs, bad input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbkit.quantizers import QUANTIZERS, QuantizerConfig, make_quantizer, response

SHAPES = [(7, 16), (7, 16, 3), (8, 16, 3, 3), (1, 4, 1, 1), (6, 8, 5, 5)]
SIGNED = [
    {},
    {"scale": "mean"},
    {"delta_axis": "layer"},
    {"delta_axis": "region", "region_channels": 4, "assignment": "random"},
    {"region_channels": 2, "assignment": "interleaved"},
    {"channel_signs": True, "estimator": "sb_ede"},
    {"positive_fraction": 0.25, "delta_factor": 0.3},
]
CONFIGS = [
    *(QuantizerConfig("binary", scale=scale) for scale in ("none", "mean")),
    *(QuantizerConfig("zero_one", **options) for options in ({}, {"scale": "mean"}, {"channel_signs": True})),
    QuantizerConfig("ternary_twn"),
    QuantizerConfig("ternary_ttq"),
    *(QuantizerConfig("signed_binary", **options) for options in SIGNED),
]


def _id(config):
    return "-".join(str(v) for v in config.effective().values())


def _make(config, shape, seed=0):
    return make_quantizer(config, shape, torch.Generator().manual_seed(seed))


def _latent(shape, seed=0, spread=0.5):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread


def _gradient(quantizer, w, upstream):
    w = w.clone().requires_grad_()
    quantizer(w).backward(upstream)
    return w.grad


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=_id)
def test_codes_and_scales_give_the_forward_value(config, shape):
    quantizer, w = _make(config, shape), _latent(shape)
    weight = quantizer.codes(w)
    assert weight.codes.shape == (*shape, 1, 1)[:4] and weight.codes.dtype == np.int8
    np.testing.assert_array_equal(weight.dense().reshape(shape), quantizer(w).detach().numpy())


def test_signed_binary_values_by_hand():
    config = QuantizerConfig("signed_binary", delta_factor=0.5)
    w = torch.tensor([[1.0, 0.5, 0.49, 0.0, -1.0], [-1.0, -0.5, -0.49, 0.0, 1.0]])  # Delta = 0.5 in both filters
    np.testing.assert_array_equal(_make(config, w.shape)(w), [[1, 1, 0, 0, 0], [-1, -1, 0, 0, 0]])


def test_zero_one_and_binary_values_by_hand():
    w = torch.tensor([[1.0, 0.06, 0.04, 0.0, -1.0]])
    np.testing.assert_array_equal(_make(QuantizerConfig("zero_one"), w.shape)(w), [[1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(_make(QuantizerConfig("binary"), w.shape)(w), [[1, 1, 1, 1, -1]])


def test_delta_axis_decides_what_the_maximum_is_taken_over():
    w = torch.tensor([[1.0, 0.2, 0.10, 0.02], [10.0, 0.6, 0.6, 0.6]])
    for axis, expected in (
        ("filter", [[1, 1, 1, 0], [1, 1, 1, 1]]),  # Delta 0.05 and 0.5
        ("layer", [[1, 0, 0, 0], [1, 1, 1, 1]]),  # Delta 0.5
        ("region", [[1, 1, 1, 1], [1, 1, 1, 1]]),  # second regions: Delta 0.005 and 0.03
    ):
        config = QuantizerConfig("signed_binary", delta_axis=axis, region_channels=2, positive_fraction=1.0)
        np.testing.assert_array_equal(_make(config, w.shape)(w), expected, err_msg=axis)


@pytest.mark.parametrize("fraction, positive", [(0.5, 3), (0.0, 0), (1.0, 7), (0.3, 2)])
def test_first_half_rounds_down_as_the_released_code_does(fraction, positive):
    beta = _make(QuantizerConfig(positive_fraction=fraction), (7, 4)).beta
    assert (beta > 0).sum() == positive and (beta[:positive] > 0).all()


def test_a_fraction_is_taken_as_written():
    beta = _make(QuantizerConfig(positive_fraction=0.29), (100, 4)).beta  # 0.29 * 100 = 28.999999999999996
    assert (beta > 0).sum() == 29


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.7, 1.0])
def test_interleaved_has_the_stated_fraction(fraction):
    beta = _make(QuantizerConfig(assignment="interleaved", positive_fraction=fraction), (40, 4)).beta
    assert (beta > 0).sum() == round(40 * fraction)


def test_half_of_the_channel_signs_are_negative():
    signs = [_make(QuantizerConfig(channel_signs=True), (2, 9), seed=seed).channel_sign for seed in range(3)]
    assert all((sign < 0).sum() == 4 and (sign > 0).sum() == 5 for sign in signs)
    assert not torch.equal(signs[0], signs[1]) or not torch.equal(signs[0], signs[2])


def test_interleaved_is_a_checkerboard_and_random_has_the_exact_count():
    beta = _make(QuantizerConfig(assignment="interleaved", region_channels=2), (4, 8, 3, 3)).beta
    k, b = np.indices(beta.shape)
    np.testing.assert_array_equal(beta, np.where((k + b) % 2, 1, -1))
    config = QuantizerConfig(assignment="random", region_channels=2, positive_fraction=0.3)
    beta = _make(config, (10, 8, 3, 3)).beta
    assert beta.shape == (10, 4) and (beta > 0).sum() == 12
    assert not torch.equal(beta, _make(config, (10, 8, 3, 3), seed=1).beta)
    assert torch.equal(beta, _make(config, (10, 8, 3, 3)).beta)


def test_fixed_signs_travel_in_the_state_dict():
    config = QuantizerConfig(assignment="random", channel_signs=True)
    source, target = _make(config, (8, 6), seed=1), _make(config, (8, 6), seed=2)
    assert not torch.equal(source.beta, target.beta)
    target.load_state_dict(source.state_dict())
    assert torch.equal(source.beta, target.beta) and torch.equal(source.channel_sign, target.channel_sign)
    assert not any(p.requires_grad for p in source.buffers()) and not list(source.parameters())


def test_training_moves_the_latent_weights_and_not_the_signs():
    quantizer = _make(QuantizerConfig(assignment="random", channel_signs=True, region_channels=2), (8, 6))
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    w = torch.nn.Parameter(_latent((8, 6)))
    start = w.detach().clone()
    optimizer = torch.optim.Adam([w, *quantizer.parameters()], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        quantizer(w).square().sum().backward()
        optimizer.step()
    assert not torch.equal(w, start)
    assert before.keys() == {"beta", "channel_sign"}
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize("config", CONFIGS, ids=_id)
def test_evaluation_gives_the_value_of_training(config):
    quantizer, w = _make(config, (8, 16, 3, 3)), _latent((8, 16, 3, 3)).requires_grad_()
    trained = quantizer(w)
    with torch.no_grad():
        evaluated = quantizer(w)
    assert trained.requires_grad and not evaluated.requires_grad
    assert torch.equal(trained.detach(), evaluated)


def _temperature(p):
    t = 0.1 * 10 ** (p * math.log10(10 / 0.1))
    return t, max(1 / t, 1)


def test_ede_temperature_at_start_middle_end():
    quantizer = _make(QuantizerConfig("binary", estimator="ede"), (2, 2))
    for progress, t, k in ((0.0, 0.1, 10.0), (0.5, 1.0, 1.0), (1.0, 10.0, 1.0)):
        quantizer.set_progress(progress)
        assert quantizer.t == pytest.approx(t) and quantizer.k == pytest.approx(k)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("estimator", ["ste", "ede", "sb_ede"])
def test_signed_binary_gradient(estimator, progress):
    shape = (6, 8, 3, 3)
    config = QuantizerConfig(estimator=estimator, channel_signs=True, assignment="interleaved", region_channels=4)
    quantizer, w, upstream = _make(config, shape), _latent(shape, spread=0.7), _latent(shape, 1)
    quantizer.set_progress(progress)
    grad = _gradient(quantizer, w, upstream).numpy()
    t, k = _temperature(progress)
    x = w.double().numpy()
    delta = 0.05 * np.abs(x).max(axis=(1, 2, 3))
    beta = np.repeat(quantizer.beta.numpy(), 4, axis=1)
    for index in np.ndindex(shape):
        shift = beta[index[0], index[1]] * delta[index[0]] if estimator == "sb_ede" else 0.0
        slope = k * t * (1 - np.tanh(t * (x[index] - shift)) ** 2) if estimator != "ste" else float(abs(x[index]) <= 1)
        expected = slope * quantizer.channel_sign[index[1]].item() * upstream[index].item()
        assert grad[index] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_binary_mean_scale_gradient_is_scaled_and_clipped():
    w = torch.tensor([[0.5, -1.5, 0.25, 0.75]])
    grad = _gradient(_make(QuantizerConfig("binary", scale="mean"), w.shape), w, torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    np.testing.assert_allclose(grad, [[0.75, 0.0, 2.25, 3.0]])  # mean|w| = 0.75, no gradient beyond |w| = 1


def test_twn_threshold_and_gradient_by_hand():
    w = torch.tensor([[1.0, -0.5, 0.1, -1.2]])  # 0.7 mean|w| = 0.49
    quantizer = _make(QuantizerConfig("ternary_twn"), w.shape)
    alpha = (1.0 + 0.5 + 1.2) / 3
    np.testing.assert_allclose(quantizer(w), [[alpha, -alpha, 0, -alpha]], rtol=1e-6)
    np.testing.assert_allclose(_gradient(quantizer, w, torch.ones(1, 4)), [[alpha, alpha, alpha, 0]], rtol=1e-6)


def test_ttq_learns_two_scales():
    w = torch.tensor([[1.0, -0.5, 0.01, 0.2]], requires_grad=True)  # Delta = 0.05
    quantizer = _make(QuantizerConfig("ternary_ttq"), w.shape)
    with torch.no_grad():
        quantizer.positive_scale.fill_(2.0)
        quantizer.negative_scale.fill_(3.0)
    quantized = quantizer(w)
    np.testing.assert_array_equal(quantized.detach(), [[2, -3, 0, 2]])
    quantized.backward(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
    np.testing.assert_array_equal(w.grad, [[2, 30, 100, 2000]])
    assert quantizer.positive_scale.grad == 1001 and quantizer.negative_scale.grad == -10


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=24), st.floats(-1, 1))
def test_twn_scale_is_the_least_squares_scale_of_the_kept_weights(values, other):
    w = torch.tensor([values])
    weight = _make(QuantizerConfig("ternary_twn"), w.shape).codes(w)
    codes, alpha = weight.codes.reshape(-1).astype(float), float(weight.scale[0])
    error = lambda a: np.square(np.array(values) * (codes != 0) - a * codes).sum()  # noqa: E731
    assert error(alpha) <= error(alpha + other) + 1e-6


def test_a_filter_of_zeros_and_a_filter_without_effectual_weights():
    config = QuantizerConfig("signed_binary", scale="mean", delta_factor=0.9)
    w = torch.tensor([[-1.0, -0.5], [0.0, 0.0]])  # the positive filter keeps nothing
    weight = _make(config, w.shape).codes(w)
    assert not weight.codes[0].any() and weight.scale[0] == 1
    assert np.isfinite(weight.dense()).all()


def test_every_weight_of_a_zero_filter_is_effectual_and_ternary_zeros_stay_zero():
    zeros = torch.zeros(2, 3)
    np.testing.assert_array_equal(_make(QuantizerConfig(), zeros.shape)(zeros), [[1, 1, 1], [-1, -1, -1]])
    for key in ("ternary_twn", "ternary_ttq"):
        weight = _make(QuantizerConfig(key), zeros.shape).codes(zeros)
        assert not weight.codes.any() and np.isfinite(weight.dense()).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=24), st.floats(-1, 1))
def test_binary_mean_scale_is_the_least_squares_scale(values, other):
    w = torch.tensor([values])
    weight = _make(QuantizerConfig("binary", scale="mean"), w.shape).codes(w)
    codes, alpha = weight.codes.reshape(-1).astype(float), float(weight.scale[0])
    error = lambda a: np.square(np.array(values) - a * codes).sum()  # noqa: E731
    assert error(alpha) <= error(alpha + other) + 1e-6


def test_response_shows_both_signs_of_signed_binary():
    positive, negative = response(QuantizerConfig(estimator="sb_ede", region_channels=4), points=31)
    assert (positive["beta"], negative["beta"]) == (1.0, -1.0)
    np.testing.assert_array_equal(positive["forward"], -np.array(negative["forward"])[::-1])
    assert np.argmax(positive["gradient_end"]) == np.argmin(np.abs(np.array(positive["w"]) - 0.075))
    assert [len(response(QuantizerConfig(key))) for key in QUANTIZERS] == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quantizer": "sb"}, "quantizer = 'sb'; allowed: full_precision, binary"),
        ({"estimator": "st"}, "estimator = 'st'; allowed: ste, ede, sb_ede"),
        ({"delta_factor": 1.5}, "delta_factor = 1.5"),
        ({"delta_factor": math.nan}, "delta_factor = nan"),
        ({"positive_fraction": -0.1}, "positive_fraction = -0.1"),
        ({"region_channels": -4}, "region_channels = -4"),
        ({"region_channels": 2.0}, "region_channels = 2.0"),
        ({"region_channels": True}, "region_channels = True"),
        ({"delta_factor": "0.1"}, "delta_factor = '0.1'; allowed: 0 <= delta_factor < 1"),
        ({"channel_signs": 1}, "channel_signs = 1; allowed: True, False"),
        ({"assignment": "last_half"}, "assignment = 'last_half'; allowed: first_half, interleaved, random"),
        ({"quantizer": "zero_one", "delta_axis": "region"}, "zero_one allows: filter, layer"),
        ({"quantizer": "binary", "delta_factor": 0.1}, "delta_factor = 0.1 has no effect on binary; it applies to:"),
        ({"quantizer": "binary", "estimator": "sb_ede"}, "binary allows: ste, ede"),
        ({"quantizer": "ternary_twn", "estimator": "ede"}, "estimator = 'ede' has no effect on ternary_twn"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError) as error:
        QuantizerConfig(**options)
    assert message in str(error.value)


def test_region_must_divide_the_channels():
    with pytest.raises(
        ValueError, match=r"region_channels = 5 does not divide C = 8; allowed: 0 or one of \[1, 2, 4, 8\]"
    ):
        _make(QuantizerConfig(region_channels=5), (4, 8, 3, 3))


def test_full_precision_has_no_codes():
    quantizer = _make(QuantizerConfig("full_precision"), (2, 2))
    w = _latent((2, 2))
    assert quantizer(w) is w
    with pytest.raises(TypeError, match="no integer codes"):
        quantizer.codes(w)


@pytest.mark.parametrize("config", CONFIGS, ids=_id)
def test_memory_layout_changes_nothing(config):
    shape = (6, 16, 3, 3)
    w, upstream = _latent(shape), _latent(shape, 1)
    last = w.contiguous(memory_format=torch.channels_last)
    quantizer = _make(config, shape)
    torch.testing.assert_close(quantizer(last), quantizer(w))  # sums for alpha may run in another order
    torch.testing.assert_close(_gradient(quantizer, last, upstream), _gradient(quantizer, w, upstream))
