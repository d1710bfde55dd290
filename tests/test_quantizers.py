"""Quantizers: exact codes, surrogate gradients against independently written formulas, fixed signs, bad input."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbkit.quantizers import QUANTIZERS, QuantizerConfig, make_quantizer, random_patterns, response, sparsest_masks

SHAPES = [(7, 16), (7, 16, 3), (8, 16, 3, 3), (1, 4, 1, 1), (6, 8, 5, 5)]
SIGNED = [
    {},
    {"scale": "mean"},
    {"delta_axis": "layer"},
    {"delta_axis": "region", "region_channels": 4, "assignment": "random"},
    {"region_channels": 2, "assignment": "interleaved"},
    {"channel_signs": True, "estimator": "sb_ede"},
    {"positive_fraction": 0.25, "delta_factor": 0.3},
    {"assignment": "initial_weights", "region_channels": 4},
    {"swap_at": 0.5, "scale": "mean"},
    {"region_taps": 1, "region_channels": 2, "assignment": "random", "delta_axis": "region"},
    {"assignment": "learned", "threshold": "mean", "delta_factor": 0.7},
    {"assignment": "learned", "region_channels": 4, "channel_signs": True, "estimator": "sb_ede"},
    {"assignment": "learned", "region_channels": 2, "region_taps": 1, "scale": "mean", "delta_axis": "region"},
    {"assignment": "random", "region_channels": 4, "region_taps": 1, "codebook_bits": 3},
    {"region_channels": 4, "region_taps": 1, "codebook_bits": 3, "codebook": "random"},
    {"assignment": "learned", "region_channels": 4, "region_taps": 1, "codebook_bits": 2, "scale": "mean"},
]
STANDARDIZED = {"standardize": True, "scale": "mean"}
SIGN_PATTERNS = {"region_channels": 4, "region_taps": 1, "codebook_bits": 3, "codebook": "random"}
THRESHOLDS = [
    {"threshold": "mean", "delta_factor": 1.2},
    {"threshold": "mean", "delta_factor": 0.7, "delta_axis": "layer"},
    {"threshold": "learned", "delta_factor": 0.3, "scale": "mean"},
    {"threshold": "learned", "estimator": "sb_ede", "channel_signs": True, "standardize": True},
]
CONFIGS = [
    *(QuantizerConfig("binary", **options) for options in ({}, {"scale": "mean"}, STANDARDIZED, SIGN_PATTERNS)),
    *(QuantizerConfig("zero_one", **options) for options in ({}, {"scale": "mean"}, {"channel_signs": True})),
    *(QuantizerConfig(key, **o) for key in ("zero_one", "signed_binary") for o in (STANDARDIZED, *THRESHOLDS)),
    QuantizerConfig("ternary_twn"),
    QuantizerConfig("ternary_ttq"),
    *(QuantizerConfig("signed_binary", **options) for options in SIGNED),
]


def _id(config):
    return "-".join(str(v) for v in config.effective().values())


def _make(config, shape, seed=0):
    quantizer = make_quantizer(config, shape, torch.Generator().manual_seed(seed))
    quantizer.initialize(_latent(shape, seed))
    return quantizer


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


def test_mean_threshold_by_hand():
    w = torch.tensor([[1.0, 0.5, 0.3, 0.2], [-2.0, -2.0, -1.0, 3.0]])  # mean|w| 0.5 and 2, of the layer 1.25
    for axis, factor, expected in (
        ("filter", 1.0, [[1, 1, 0, 0], [-1, -1, 0, 0]]),
        ("filter", 0.5, [[1, 1, 1, 0], [-1, -1, -1, 0]]),
        ("filter", 1.5, [[1, 0, 0, 0], [0, 0, 0, 0]]),
        ("layer", 0.4, [[1, 1, 0, 0], [-1, -1, -1, 0]]),  # Delta 0.5
    ):
        config = QuantizerConfig(threshold="mean", delta_factor=factor, delta_axis=axis)
        np.testing.assert_array_equal(_make(config, w.shape)(w), expected, err_msg=f"{axis} {factor}")
    config = QuantizerConfig(threshold="mean", delta_factor=1.0, delta_axis="region", region_channels=2)
    np.testing.assert_array_equal(_make(config, w.shape)(w), [[1, 0, 1, 0], [-1, -1, 0, 0]])


def test_learned_thresholds_start_as_the_fixed_ones_and_then_differ_by_filter():
    w = torch.tensor([[1.0, 0.5, 0.3, 0.2], [-4.0, -2.0, -1.0, 3.0]])
    quantizer = _make(QuantizerConfig(threshold="learned", delta_factor=0.25), w.shape)
    assert torch.equal(quantizer(w), _make(QuantizerConfig(delta_factor=0.25), w.shape)(w))
    for factors, expected in (
        ((0.4, 0.75), [[1, 1, 0, 0], [-1, 0, 0, 0]]),
        ((-7.0, 9.0), [[1, 1, 1, 1], [-1, 0, 0, 0]]),  # clamped to 0 and 0.95
    ):
        with torch.no_grad():
            quantizer.delta_factors.copy_(torch.tensor(factors).reshape(2, 1))
        np.testing.assert_array_equal(quantizer(w).detach(), expected)


def test_learned_thresholds_travel_in_the_state_dict_and_exist_when_used():
    config = QuantizerConfig(threshold="learned")
    source, target = _make(config, (3, 4)), _make(config, (3, 4))
    torch.nn.init.constant_(source.delta_factors, 0.5)
    target.load_state_dict(source.state_dict())
    assert target.delta_factors.flatten().tolist() == [0.5] * 3
    for other in (QuantizerConfig(), QuantizerConfig(threshold="mean"), QuantizerConfig("zero_one")):
        assert not list(_make(other, (3, 4)).parameters())


def test_standardized_values_by_hand():
    w = torch.tensor([[1.0, 3.0, 5.0, 7.0], [0.25, 0.25, 0.25, 0.25]])  # mean 4, deviation sqrt(5); a constant filter
    x = np.array([-3.0, -1.0, 1.0, 3.0]) / math.sqrt(5)
    binary = QuantizerConfig("binary", standardize=True, scale="mean")
    np.testing.assert_allclose(_make(binary, w.shape)(w)[0], np.sign(x) * np.abs(x).mean(), rtol=1e-6)
    for key, expected in (("zero_one", [0, 0, 0, 1]), ("signed_binary", [0, 0, 0, 1])):
        config = QuantizerConfig(key, standardize=True, delta_factor=0.5)
        np.testing.assert_array_equal(_make(config, w.shape)(w)[0], expected)
    assert _make(binary, w.shape)(w)[1].isfinite().all()


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


# Regions {0, 1}, {2, 3} of two filters; the sums of their latent weights are -3, 4, 2, 1.
RANKED = torch.tensor([[-5.0, 2.0, 3.0, 1.0], [1.0, 1.0, -8.0, 9.0]])


@pytest.mark.parametrize(
    "fraction, beta",
    [(0.0, [[-1, -1], [-1, -1]]), (0.25, [[-1, 1], [-1, -1]]), (0.5, [[-1, 1], [1, -1]]), (0.75, [[-1, 1], [1, 1]])],
)
def test_the_regions_of_largest_initial_weight_are_positive(fraction, beta):
    config = QuantizerConfig(assignment="initial_weights", region_channels=2, positive_fraction=fraction)
    quantizer = make_quantizer(config, RANKED.shape, torch.Generator())
    assert quantizer.beta.isnan().all()  # without its weights it has no signs, and says so
    quantizer.initialize(RANKED)
    np.testing.assert_array_equal(quantizer.beta, beta)
    quantizer(RANKED)
    quantizer(-RANKED)
    np.testing.assert_array_equal(quantizer.beta, beta)  # what the weights become later moves no sign


@pytest.mark.parametrize("taps", [0, 1])
def test_learned_signs_give_the_nearest_codes_of_one_sign_a_region(taps):
    """Against trying every code: of a region of 3 channels at a tap, or of 2 channels at all 3 taps."""
    channels = 2 if taps == 0 else 3
    shape = (5, 6, 3)
    config = QuantizerConfig(
        assignment="learned", region_channels=channels, region_taps=taps, threshold="mean", delta_factor=0.7
    )
    quantizer, w = _make(config, shape), _latent(shape)
    assert quantizer.beta is None and quantizer.weight_bits == 1 + 1 / (3 if taps else 6)
    codes = quantizer(w).numpy()
    x = w.double().numpy()
    masks = np.array(list(itertools.product((0, 1), repeat=3 if taps else 6)))
    patterns = np.concatenate([masks, -masks])
    for k in range(5):
        step = 2 * 0.7 * np.abs(x[k]).mean()
        for c in range(0, 6, channels):
            for tap in range(3) if taps else [slice(None)]:
                region = x[k, c : c + channels, tap].flatten()
                nearest = patterns[((region - step * patterns) ** 2).sum(1).argmin()]
                np.testing.assert_array_equal(codes[k, c : c + channels, tap].flatten(), nearest)
    flipped = quantizer(-w).numpy()
    np.testing.assert_array_equal(flipped, -codes)  # the signs follow the weights


def test_regions_of_one_tap_have_signs_of_their_own():
    config = QuantizerConfig(assignment="random", region_channels=2, region_taps=1, delta_factor=0.0)
    quantizer, w = _make(config, (4, 6, 3, 3)), _latent((4, 6, 3, 3))
    assert quantizer.beta.shape == (4, 27) and quantizer.beta.sum() == 0
    beta = quantizer.signs(w)
    for k, c, r, s in np.ndindex(4, 6, 3, 3):
        assert beta[k, c, r, s] == quantizer.beta[k, (c // 2) * 9 + 3 * r + s]


CODEBOOK = {"region_channels": 4, "region_taps": 1, "threshold": "mean", "delta_factor": 0.8}


@pytest.mark.parametrize("assignment", ["random", "learned"])
def test_a_codebook_of_all_masks_changes_nothing(assignment):
    shape = (6, 8, 3, 3)
    every = _make(QuantizerConfig(assignment=assignment, codebook_bits=4, **CODEBOOK), shape)
    none = _make(QuantizerConfig(assignment=assignment, **CODEBOOK), shape)
    none.beta = every.beta  # the codebook is drawn before them
    np.testing.assert_array_equal(every(_latent(shape)), none(_latent(shape)))
    assert every.weight_bits == none.weight_bits


def test_a_region_takes_the_nearest_mask_of_its_codebook():
    """Against trying every mask, on a grid of step 2 Delta."""
    quantizer = _make(QuantizerConfig(assignment="random", codebook_bits=3, **CODEBOOK), (5, 8, 3))
    assert quantizer.weight_bits == 3 / 4
    w = _latent((5, 8, 3))
    codes, beta, masks = quantizer(w).numpy(), quantizer.signs(w).numpy(), quantizer.codebook.patterns.numpy()
    x = w.double().numpy()
    for k, c, tap in itertools.product(range(5), (0, 4), range(3)):
        region = beta[k, c, tap] * x[k, c : c + 4, tap]
        nearest = masks[((region - 2 * 0.8 * np.abs(x[k]).mean() * masks) ** 2).sum(1).argmin()]
        np.testing.assert_array_equal(beta[k, c, tap] * codes[k, c : c + 4, tap], nearest)


@pytest.mark.parametrize("codebook", ["random", "learned"])
def test_a_region_of_binary_takes_the_nearest_pattern_of_signs(codebook):
    config = QuantizerConfig("binary", **SIGN_PATTERNS | {"codebook": codebook})
    quantizer = _make(config, (5, 8, 3))
    patterns = quantizer.codebook.patterns.double().numpy()
    assert len(np.unique(patterns, axis=0)) == 8 and set(patterns.flat) == {-1, 1}
    assert not np.array_equal(patterns, _make(config, (5, 8, 3), seed=1).codebook.patterns)
    assert quantizer.weight_bits == 3 / 4 + (8 * 4 / (5 * 8 * 3) if codebook == "learned" else 0)
    w = _latent((5, 8, 3))
    codes, x = quantizer(w).numpy(), w.double().numpy()
    for k, c, tap in itertools.product(range(5), (0, 4), range(3)):
        region = x[k, c : c + 4, tap]
        np.testing.assert_array_equal(codes[k, c : c + 4, tap], patterns[((region - patterns) ** 2).sum(1).argmin()])


def test_a_codebook_of_all_signs_is_binary():
    every = _make(QuantizerConfig("binary", **SIGN_PATTERNS | {"codebook_bits": 4}), (6, 8, 3, 3))
    w = _latent((6, 8, 3, 3))
    np.testing.assert_array_equal(every(w), _make(QuantizerConfig("binary"), w.shape)(w))
    assert every.weight_bits == 1


def test_learned_signs_follow_the_regions_that_took_them_and_random_ones_stay():
    fixed = _make(QuantizerConfig("binary", **SIGN_PATTERNS), (16, 8, 3))
    learned = _make(QuantizerConfig("binary", **SIGN_PATTERNS | {"codebook": "learned"}), (16, 8, 3))
    start = fixed.codebook.patterns.double().numpy()
    patterns, sums = start, start.copy()
    for step in range(60):
        latent = (_latent((16, 8, 3), step) - 1).requires_grad_()
        regions = latent.detach().double().numpy().reshape(16, 2, 4, 3).transpose(0, 1, 3, 2).reshape(-1, 4)
        chosen = (regions @ patterns.T).argmax(1)
        for j in range(8):
            sums[j] = 0.99 * sums[j] + 0.01 * regions[chosen == j].sum(0)
        patterns = np.where(sums >= 0, 1.0, -1.0)
        learned(latent), fixed(latent)
        np.testing.assert_array_equal(learned.codebook.patterns, patterns)
    negative = [-1.0] * 4  # a pattern that it started without
    assert negative in patterns.tolist() and negative not in start.tolist()
    np.testing.assert_array_equal(fixed.codebook.patterns, start)


def test_sparsest_masks():
    masks = sparsest_masks(6, 4, torch.Generator().manual_seed(0)).numpy()
    assert masks.sum(1).tolist() == [0] + 6 * [1] + 9 * [2] and len(np.unique(masks, axis=0)) == 16
    other = sparsest_masks(6, 4, torch.Generator().manual_seed(1)).numpy()
    assert (masks[:7] == other[:7]).all() and (masks[7:] != other[7:]).any()
    assert len(np.unique(sparsest_masks(5, 5, torch.Generator()), axis=0)) == 32
    with pytest.raises(ValueError, match="bits = 6; allowed for masks over 5 weights: 0 to 5"):
        sparsest_masks(5, 6, torch.Generator())
    with pytest.raises(ValueError, match="bits = 6; allowed for masks over 5 weights: 0 to 5"):
        random_patterns(5, 6, -1.0, torch.Generator())


def test_a_learned_codebook_follows_the_weights_in_training_steps_alone():
    shape = (16, 8, 3, 3)
    quantizer = _make(QuantizerConfig(assignment="random", codebook_bits=2, codebook="learned", **CODEBOOK), shape)
    assert quantizer.weight_bits == 2 / 4 + 4 * 4 / (16 * 8 * 9)
    start = quantizer.codebook.patterns.numpy().copy()
    sums = start - 0.5
    w = _latent(shape)
    quantizer.codes(w)
    with torch.no_grad():
        quantizer(w)
    np.testing.assert_array_equal(quantizer.codebook.patterns, start)
    together = torch.tensor([1.0, 1, 0, 0] * 2).reshape(8, 1, 1)  # a mask that the codebook lacks
    for step in range(30):
        latent = _latent(shape, step) + quantizer.signs(w) * together
        x = latent.double().numpy()
        excess = quantizer.signs(w).numpy() * x - 0.8 * np.abs(x).mean((1, 2, 3), keepdims=True)
        regions = excess.reshape(16, 2, 4, 9).transpose(0, 1, 3, 2).reshape(-1, 4)
        chosen = (regions @ quantizer.codebook.patterns.double().numpy().T).argmax(1)
        for j in range(4):
            sums[j] = 0.99 * sums[j] + 0.01 * regions[chosen == j].sum(0)
        quantizer(latent.requires_grad_())
        np.testing.assert_array_equal(quantizer.codebook.patterns, sums >= 0)
    assert [1, 1, 0, 0] in quantizer.codebook.patterns.tolist() and [1, 1, 0, 0] not in start.tolist()
    quantizer.eval()
    kept = quantizer.codebook.patterns.clone()
    quantizer(_latent(shape, 99).requires_grad_())
    assert torch.equal(quantizer.codebook.patterns, kept)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.29, 0.5, 0.7, 1.0])
def test_initial_weights_make_as_many_regions_positive_as_random_does(fraction):
    positive = {}
    for assignment in ("random", "initial_weights"):
        config = QuantizerConfig(assignment=assignment, region_channels=2, positive_fraction=fraction)
        positive[assignment] = int((_make(config, (5, 10, 3, 3)).beta > 0).sum())
    assert positive["random"] == positive["initial_weights"] == round(25 * fraction)


def test_initial_weights_change_no_other_assignment():
    for assignment in ("first_half", "interleaved", "random"):
        quantizer = _make(QuantizerConfig(assignment=assignment, region_channels=2), RANKED.shape)
        before = quantizer.beta.clone()
        quantizer.initialize(RANKED)
        assert torch.equal(quantizer.beta, before)


def test_signs_are_swapped_once_when_their_time_has_come():
    quantizer = _make(QuantizerConfig(swap_at=0.5, assignment="interleaved"), (4, 4))
    start = quantizer.beta.clone()
    for progress, sign in ((0.0, 1), (0.49, 1), (0.5, -1), (0.51, -1), (1.0, -1), (0.2, -1)):
        quantizer.set_progress(progress)
        assert torch.equal(quantizer.beta, sign * start), progress


def test_signs_are_never_swapped_by_default():
    quantizer = _make(QuantizerConfig(), (4, 4))
    start = quantizer.beta.clone()
    quantizer.set_progress(1.0)
    assert torch.equal(quantizer.beta, start) and "swapped" not in quantizer.state_dict()


@pytest.mark.parametrize("saved_at, sign", [(0.25, 1), (0.75, -1)])
def test_a_resumed_run_swaps_once_too(saved_at, sign):
    config = QuantizerConfig(swap_at=0.5)
    source, resumed = _make(config, (4, 4)), _make(config, (4, 4))
    start = source.beta.clone()
    source.set_progress(saved_at)
    resumed.load_state_dict(source.state_dict())
    assert torch.equal(resumed.beta, sign * start)
    resumed.set_progress(0.8)
    assert torch.equal(resumed.beta, -start)


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


@pytest.mark.parametrize("key", ["signed_binary", "zero_one"])
@pytest.mark.parametrize("estimator", ["ste", "ede", "sb_ede"])
@pytest.mark.parametrize("scale", ["none", "mean"])
def test_gradient_of_the_learned_thresholds(key, estimator, scale):
    shape, progress = (6, 8, 3, 3), 0.6
    regions = {"assignment": "interleaved", "region_channels": 4} if key == "signed_binary" else {}
    config = QuantizerConfig(key, estimator, scale, "learned", delta_factor=0.2, channel_signs=True, **regions)
    quantizer, w, upstream = _make(config, shape), _latent(shape, spread=0.7), _latent(shape, 1)
    factors = torch.tensor([0.1, 0.2, 0.3, 0.4, -0.1, 1.2])  # the last two out of range: the clamp stops no gradient
    with torch.no_grad():
        quantizer.delta_factors.copy_(factors.reshape(-1, 1))
    quantizer.set_progress(progress)
    grad = _gradient(quantizer, w, upstream).numpy()
    t, k = _temperature(progress)
    for row in range(shape[0]):
        x, g = w[row].double().numpy(), upstream[row].double().numpy()
        beta = np.repeat(quantizer.beta[row].numpy(), 8 // quantizer.beta.shape[1]).reshape(8, 1, 1)
        limit = np.abs(x).max()
        delta = limit * min(max(factors[row].item(), 0), 0.95)
        kept = beta * x >= delta
        alpha = np.abs(x)[kept].mean() if scale == "mean" else 1.0
        sign = quantizer.channel_sign.numpy().reshape(8, 1, 1)
        shift = beta * delta if estimator == "sb_ede" else 0.0
        slope = k * t * (1 - np.tanh(t * (x - shift)) ** 2) if estimator != "ste" else np.abs(x) <= 1
        np.testing.assert_allclose(grad[row], alpha * sign * slope * g, rtol=1e-4, atol=1e-6)
        expected = (-alpha * sign * beta * slope * limit * g).sum()
        assert quantizer.delta_factors.grad[row].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_training_moves_the_learned_thresholds():
    """The upstream gradient asks for fewer weights, so every filter's threshold rises."""
    w = torch.nn.Parameter(_latent((6, 16)))
    quantizer = _make(QuantizerConfig(threshold="learned", positive_fraction=1.0), w.shape)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1e-3)
    before = quantizer(w).sum().item()
    for _ in range(10):
        optimizer.zero_grad()
        quantizer(w).sum().backward()
        optimizer.step()
    assert (quantizer.delta_factors > 0.05).all() and quantizer(w).sum().item() < before


@pytest.mark.parametrize(
    "options",
    [
        {"quantizer": "binary", "scale": "mean"},
        {"estimator": "sb_ede", "delta_factor": 0.3},
        {"quantizer": "zero_one", "threshold": "mean", "delta_factor": 0.7, "estimator": "ede"},
    ],
    ids=str,
)
def test_the_gradient_passes_through_the_standardization(options):
    """Against the same quantizer on weights standardized outside it, by the formula, and torch's own autograd."""
    shape = (5, 8, 3, 3)
    w, upstream = _latent(shape, spread=0.1) + 0.05, _latent(shape, 1)
    inside = _make(QuantizerConfig(**options, standardize=True), shape)
    outside = _make(QuantizerConfig(**options), shape)
    leaf = w.double().requires_grad_()
    flat = leaf.flatten(1)
    deviation = (flat - flat.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
    x = ((flat - flat.mean(1, keepdim=True)) / deviation).reshape(shape)
    np.testing.assert_allclose(inside(w), outside(x.detach().float()), rtol=1e-5)
    x.backward(_gradient(outside, x.detach().float(), upstream).double())
    np.testing.assert_allclose(_gradient(inside, w, upstream), leaf.grad, rtol=1e-3, atol=1e-4)


def test_a_constant_filter_survives_standardization():
    w = torch.full((2, 9), 0.25)
    for key in ("binary", "zero_one", "signed_binary"):
        quantizer = _make(QuantizerConfig(key, standardize=True, scale="mean"), w.shape)
        assert quantizer(w).isfinite().all() and _gradient(quantizer, w, torch.ones(2, 9)).isfinite().all()


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
    "options", [{"swap_at": 0.3}, {"standardize": True}, {"assignment": "initial_weights"}, {"threshold": "learned"}]
)
def test_response_is_that_of_one_filter_before_swap_and_after_standardization(options):
    plain = QuantizerConfig(estimator="sb_ede")
    assert response(replace(plain, **options)) == response(plain)


def test_response_follows_the_mean_threshold():
    curves = response(QuantizerConfig("zero_one", threshold="mean", delta_factor=1.0), points=31)
    w = np.array(curves[0]["w"])
    np.testing.assert_array_equal(curves[0]["forward"], (w >= np.abs(w).mean()).astype(float))


def test_options_younger_than_the_records_are_recorded_only_if_set():
    assert QuantizerConfig().effective() == {
        "quantizer": "signed_binary", "estimator": "ste", "scale": "none", "delta_factor": 0.05,
        "delta_axis": "filter", "region_channels": 0, "positive_fraction": 0.5, "assignment": "first_half",
        "channel_signs": False,
    }  # fmt: skip
    assert QuantizerConfig("binary").effective() == {"quantizer": "binary", "estimator": "ste", "scale": "none"}
    for name, value in {"threshold": "learned", "region_taps": 1, "swap_at": 0.5, "standardize": True}.items():
        assert QuantizerConfig(**{name: value}).effective() == QuantizerConfig().effective() | {name: value}
    codebook = {"region_channels": 4, "region_taps": 1, "codebook_bits": 3, "codebook": "learned"}
    assert QuantizerConfig(**codebook).effective() == QuantizerConfig().effective() | codebook


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
        ({"region_taps": 2}, "region_taps = 2; allowed: 0 (all taps), 1"),
        (
            {"codebook_bits": 5, "region_channels": 4, "region_taps": 1},
            "codebook_bits = 5 with region_channels = 4, region_taps = 1; allowed: 0 (any mask) to region_channels",
        ),
        ({"codebook_bits": 2, "region_channels": 4}, "codebook_bits = 2 with region_channels = 4, region_taps = 0"),
        ({"codebook_bits": 2.0, "region_channels": 4, "region_taps": 1}, "codebook_bits = 2.0"),
        ({"codebook_bits": 2, "region_channels": 32, "region_taps": 1}, "region_taps = 1 and region_channels to 16"),
        ({"codebook": "learned"}, "codebook = 'learned' with codebook_bits = 0; allowed: sparsest"),
        ({"codebook": "dense"}, "codebook = 'dense'; allowed: sparsest, random, learned"),
        (
            {"quantizer": "binary", "region_channels": 8},
            "region_channels = 8 has no effect on binary without a codebook",
        ),
        ({"quantizer": "binary", "region_taps": 1}, "region_taps = 1 has no effect on binary without a codebook"),
        (
            {"quantizer": "binary", "region_channels": 8, "region_taps": 1, "codebook_bits": 4},
            "codebook = 'sparsest' of binary, which has no zeros; allowed: random, learned",
        ),
        ({"assignment": "learned", "positive_fraction": 0.3}, "positive_fraction = 0.3 has no effect"),
        ({"assignment": "learned", "swap_at": 0.3}, "swap_at = 0.3 has no effect"),
        ({"region_channels": True}, "region_channels = True"),
        ({"delta_factor": "0.1"}, "delta_factor = '0.1'; allowed: 0 <= delta_factor < 1"),
        ({"channel_signs": 1}, "channel_signs = 1; allowed: True, False"),
        ({"assignment": "last"}, "assignment = 'last'; allowed: first_half, interleaved, random, initial_weights"),
        ({"threshold": "median"}, "threshold = 'median'; allowed: max, mean, learned"),
        ({"threshold": "learned", "delta_factor": 1.0}, "delta_factor = 1.0; allowed: 0 <= delta_factor < 1"),
        ({"threshold": "mean", "delta_factor": -0.1}, "delta_factor = -0.1; allowed: 0 <= delta_factor < inf"),
        ({"threshold": "mean", "delta_factor": math.inf}, "delta_factor = inf; allowed: 0 <= delta_factor < inf"),
        ({"threshold": "mean", "delta_factor": math.nan}, "delta_factor = nan"),
        (
            {"threshold": "learned", "delta_axis": "layer"},
            "delta_axis = 'layer' with threshold = 'learned'; allowed: filter",
        ),
        ({"quantizer": "binary", "threshold": "mean"}, "threshold = 'mean' has no effect on binary"),
        ({"quantizer": "ternary_ttq", "threshold": "learned"}, "it applies to: zero_one, signed_binary"),
        ({"swap_at": 1.0}, "swap_at = 1.0; allowed: 0 (never) <= swap_at < 1"),
        ({"swap_at": -0.5}, "swap_at = -0.5"),
        ({"swap_at": "0.5"}, "swap_at = '0.5'"),
        ({"quantizer": "zero_one", "swap_at": 0.5}, "swap_at = 0.5 has no effect on zero_one; it applies to: signed_b"),
        ({"quantizer": "zero_one", "assignment": "initial_weights"}, "has no effect on zero_one"),
        ({"standardize": 1}, "standardize = 1; allowed: True, False"),
        (
            {"quantizer": "ternary_twn", "standardize": True},
            "standardize = True has no effect on ternary_twn; it applies to: binary, zero_one, signed_binary",
        ),
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


@pytest.mark.parametrize("assignment", ["random", "learned"])
@pytest.mark.parametrize("codebook_bits", [0, 2])
def test_weights_keep_their_place_in_memory(assignment, codebook_bits):
    """In a channels_last network a convolution would have to move weights that lie otherwise, at every step."""
    taps = {"region_channels": 4, "region_taps": 1, "threshold": "mean", "delta_factor": 1.0}
    config = QuantizerConfig(assignment=assignment, codebook_bits=codebook_bits, **taps)
    w = torch.randn(6, 8, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    w_q = make_quantizer(config, w.shape, torch.Generator().manual_seed(0))(w)
    assert w_q.stride() == w.stride()
    (w_q * torch.randn_like(w_q)).sum().backward()
    assert w.grad.stride() == w.stride()
