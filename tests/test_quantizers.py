"""Quantizers: exact codes, surrogate gradients against independently written formulas, fixed signs, bad input."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbkit.designs import DESIGNS
from sbkit.quantizers import (
    QUANTIZERS,
    QuantizerConfig,
    activations,
    make_quantizer,
    random_patterns,
    response,
    sparsest_masks,
)
from sbkit.quantizers.activations import LearnedStep, calibrate
from sbkit.records import changed
from sbkit.schemes import SCHEMES

SHAPES = [(7, 16), (7, 16, 3), (8, 16, 3, 3), (1, 4, 1, 1)]
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
    return "-".join(map(str, changed(config).values())) or "default"


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


@pytest.mark.parametrize("key", SCHEMES)
def test_the_schemes_of_the_package_are_the_quantizers_and_take_the_stored_bits(key):
    assert QUANTIZERS.keys() == SCHEMES.keys()
    assert make_quantizer(QuantizerConfig(key), (4, 8), torch.Generator()).weight_bits == SCHEMES[key].stored_bits


@pytest.mark.parametrize("key", DESIGNS)
def test_every_design_is_a_valid_configuration_of_changed_options(key):
    options = DESIGNS[key].options
    assert changed(QuantizerConfig(**options)) == {k: v for k, v in options.items() if v != "signed_binary"}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=_id)
def test_codes_and_scales_give_the_forward_value_in_training_and_evaluation(config, shape):
    quantizer, w = _make(config, shape), _latent(shape).requires_grad_()
    weight, trained = quantizer.codes(w), quantizer(w)
    assert weight.codes.shape == (*shape, 1, 1)[:4] and weight.codes.dtype == np.int8
    np.testing.assert_array_equal(weight.dense().reshape(shape), trained.detach().numpy())
    with torch.no_grad():
        evaluated = quantizer(w)
    assert trained.requires_grad and not evaluated.requires_grad and torch.equal(trained, evaluated)


LEARNED_CODEBOOK = {"region_channels": 4, "region_taps": 1, "codebook_bits": 3, "codebook": "learned"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile itself calls
@pytest.mark.parametrize("config", [*CONFIGS, QuantizerConfig(**LEARNED_CODEBOOK)], ids=_id)
def test_torch_compile_traces_every_quantizer_as_one_graph_of_the_same_values(config):
    plain, upstream = _make(config, (6, 16, 3, 3)), _latent((6, 16, 3, 3), 1)
    other, results = copy.deepcopy(plain), []
    torch.compiler.reset()  # it would refuse the ninth configuration
    for quantizer, call in ((plain, plain), (other, torch.compile(other, backend="aot_eager", fullgraph=True))):
        w = _latent((6, 16, 3, 3)).contiguous(memory_format=torch.channels_last).requires_grad_()
        values = []
        for progress in (0.3, 0.6, 0.9) if config.estimator == "ste" else np.linspace(0, 1, 12):  # no graph for each
            quantizer.set_progress(float(progress))
            values.append(call(w))
            values[-1].backward(upstream)
        results.append([*values, w.grad, *quantizer.buffers()])
    assert len(results[0]) == len(results[1]) and all(map(torch.equal, *results))
    for ours, traced in zip(plain.parameters(), other.parameters(), strict=True):  # sums, in an order of their own
        torch.testing.assert_close(ours.grad, traced.grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("config", [c for c in CONFIGS if c.quantizer != "ternary_ttq"], ids=_id)
def test_values_and_gradients_are_exactly_those_of_the_plain_formulas(config, layout):
    """One operation of the docstring after the other, none in place; only the codes are taken from the quantizer."""
    quantizer, upstream = _make(config, (6, 16, 3, 3)), _latent((6, 16, 3, 3), 1)
    quantizer.set_progress(0.3)
    leaf = _latent((6, 16, 3, 3)).contiguous(memory_format=layout).requires_grad_()
    w = torch.nn.functional.layer_norm(leaf, (16, 3, 3), eps=1e-12) if config.standardize else leaf
    codes, _, _ = quantizer.quantize(w.detach())
    rows = w.detach().abs().flatten(1), codes.abs().flatten(1)
    if config.quantizer == "ternary_twn":
        rows = [row.reshape(1, -1) for row in rows]
    factor = torch.ones(())
    if config.scale == "mean" or config.quantizer == "ternary_twn":
        factor = ((rows[0] * rows[1]).sum(1) / rows[1].sum(1)).reshape(-1, 1, 1, 1)
    if config.channel_signs:
        factor = factor * quantizer.channel_sign.reshape(1, -1, 1, 1)
    centre = torch.zeros(())
    if config.estimator == "sb_ede":
        share = quantizer.delta_factors.detach() if config.threshold == "learned" else config.delta_factor
        delta = (share * rows[0].amax(1, keepdim=True)).reshape(-1, 1, 1, 1)
        centre = quantizer.signs(w.detach()) * delta
    t, k = quantizer.t, quantizer.k
    slope = (w.detach().abs() <= 1).float()
    if config.estimator != "ste":
        slope = k * t * (1 - torch.tanh(t * (w.detach() - centre)) ** 2)
    w.backward(upstream * (factor * slope))
    plain, leaf.grad = leaf.grad, None
    value = quantizer(leaf)
    value.backward(upstream)
    assert torch.equal(value, factor * codes) and torch.equal(leaf.grad, plain)
    # Elsewhere in memory, a convolution in channels_last would have to move the weights at every step.
    if layout is torch.channels_last and not config.standardize:
        assert value.stride() == leaf.grad.stride() == leaf.stride()


W = [[1.0, 0.5, 0.3, 0.2], [-2.0, -2.0, -1.0, 3.0]]  # mean|w| 0.5 and 2, of the layer 1.25
AXES = [[1.0, 0.2, 0.10, 0.02], [10.0, 0.6, 0.6, 0.6]]


@pytest.mark.parametrize(
    "options, w, expected",
    [
        (
            {"delta_factor": 0.5},
            [[1.0, 0.5, 0.49, 0, -1], [-1.0, -0.5, -0.49, 0, 1]],
            [[1, 1, 0, 0, 0], [-1, -1, 0, 0, 0]],
        ),
        ({"quantizer": "zero_one"}, [[1.0, 0.06, 0.04, 0, -1]], [[1, 1, 0, 0, 0]]),
        ({"quantizer": "binary"}, [[1.0, 0.06, 0.04, 0, -1]], [[1, 1, 1, 1, -1]]),
        ({"quantizer": "zero_one", "delta_axis": "filter"}, AXES, [[1, 1, 1, 0], [1, 1, 1, 1]]),  # Delta 0.05 and 0.5
        ({"quantizer": "zero_one", "delta_axis": "layer"}, AXES, [[1, 0, 0, 0], [1, 1, 1, 1]]),  # Delta 0.5
        # Delta of the second regions 0.005 and 0.03
        ({"positive_fraction": 1.0, "delta_axis": "region", "region_channels": 2}, AXES, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        ({"threshold": "mean", "delta_factor": 1.0}, W, [[1, 1, 0, 0], [-1, -1, 0, 0]]),
        ({"threshold": "mean", "delta_factor": 0.5}, W, [[1, 1, 1, 0], [-1, -1, -1, 0]]),
        ({"threshold": "mean", "delta_factor": 1.5}, W, [[1, 0, 0, 0], [0, 0, 0, 0]]),
        ({"threshold": "mean", "delta_factor": 0.4, "delta_axis": "layer"}, W, [[1, 1, 0, 0], [-1, -1, -1, 0]]),
        (
            {"threshold": "mean", "delta_factor": 1.0, "delta_axis": "region", "region_channels": 2},
            W,
            [[1, 0, 1, 0], [-1, -1, 0, 0]],
        ),
    ],
    ids=str,
)
def test_values_by_hand(options, w, expected):
    w = torch.tensor(w)
    np.testing.assert_array_equal(_make(QuantizerConfig(**options), w.shape)(w), expected)


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


@pytest.mark.parametrize(
    "config",
    [
        QuantizerConfig(assignment="random", channel_signs=True),
        QuantizerConfig(threshold="learned", assignment="random"),
    ],
    ids=_id,
)
def test_signs_and_learned_thresholds_travel_in_the_state_dict(config):
    source, target = _make(config, (8, 6), seed=1), _make(config, (8, 6), seed=2)
    for parameter in source.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    assert not torch.equal(source.beta, target.beta)
    target.load_state_dict(source.state_dict())
    w = _latent((8, 6))
    assert torch.equal(source(w), target(w))
    assert len(list(source.parameters())) == (config.threshold == "learned")
    assert not any(buffer.requires_grad for buffer in source.buffers())


def test_standardized_values_by_hand():
    w = torch.tensor([[1.0, 3.0, 5.0, 7.0], [0.25, 0.25, 0.25, 0.25]])  # mean 4, deviation sqrt(5); a constant filter
    x = np.array([-3.0, -1.0, 1.0, 3.0]) / math.sqrt(5)
    binary = QuantizerConfig("binary", standardize=True, scale="mean")
    np.testing.assert_allclose(_make(binary, w.shape)(w)[0], np.sign(x) * np.abs(x).mean(), rtol=1e-6)
    for key, expected in (("zero_one", [0, 0, 0, 1]), ("signed_binary", [0, 0, 0, 1])):
        config = QuantizerConfig(key, standardize=True, delta_factor=0.5)
        np.testing.assert_array_equal(_make(config, w.shape)(w)[0], expected)
    for key in ("binary", "zero_one", "signed_binary"):
        quantizer = _make(QuantizerConfig(key, standardize=True, scale="mean"), w.shape)
        assert quantizer(w).isfinite().all() and _gradient(quantizer, w, torch.ones(2, 4)).isfinite().all()


@pytest.mark.parametrize("size", [1e13, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("key", ["binary", "zero_one", "signed_binary"])
def test_standardization_does_not_depend_on_the_size_of_the_weights(key, size):
    """One large filter beside an ordinary one; the standardized weights of both are finite and right."""
    quantizer = _make(QuantizerConfig(key, standardize=True, scale="mean"), (2, 16))
    w, upstream = _latent((2, 16)).clamp(-1, 1), _latent((2, 16), 1)
    large = w * torch.tensor([[size], [1.0]])
    np.testing.assert_array_equal(quantizer.codes(large).codes, quantizer.codes(w).codes)
    np.testing.assert_allclose(quantizer(large), quantizer(w), rtol=1e-5)
    grown = _gradient(quantizer, large, upstream).double()
    grown[0] *= size
    np.testing.assert_allclose(grown, _gradient(quantizer, w, upstream), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("config", CONFIGS, ids=_id)
def test_weights_that_have_no_codes_are_refused(config, value):
    w = _latent((7, 16))
    w[2:4, 5] = value
    if value == 3e38 and config.standardize:
        assert np.isfinite(_make(config, w.shape).codes(w).dense()).all()
        return
    with pytest.raises(ValueError, match="latent weights have a sum of magnitudes that is not finite"):
        _make(config, w.shape).codes(w)


@pytest.mark.parametrize("K, fraction, positive", [(7, 0.5, 3), (7, 0.0, 0), (7, 1.0, 7), (7, 0.3, 2), (100, 0.29, 29)])
def test_first_half_rounds_down_as_the_released_code_does(K, fraction, positive):
    beta = _make(QuantizerConfig(positive_fraction=fraction), (K, 4)).beta  # 0.29 * 100 = 28.999999999999996
    assert (beta > 0).sum() == positive and (beta[:positive] > 0).all()


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.7, 1.0])
@pytest.mark.parametrize("assignment", ["interleaved", "random", "initial_weights"])
def test_assignments_have_the_stated_fraction(assignment, fraction):
    beta = _make(QuantizerConfig(assignment=assignment, positive_fraction=fraction), (40, 4)).beta
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


CODEBOOK = {"region_channels": 4, "region_taps": 1, "threshold": "mean", "delta_factor": 0.8}


def _regions(x, channels, taps=1):
    """Regions of x (K, C, taps) as rows: of `channels` neighbours, at one tap or (0) at all of them."""
    x = np.asarray(x, np.float64).reshape(len(x), -1, channels, x.shape[2])
    return (x.swapaxes(2, 3) if taps else x).reshape(-1, channels * (1 if taps else x.shape[3]))


@pytest.mark.parametrize(
    "options, bits",
    [
        (CODEBOOK | {"assignment": "learned", "region_channels": 2, "region_taps": 0}, 1 + 1 / 6),
        (CODEBOOK | {"assignment": "learned", "region_channels": 2}, 1 + 1 / 2),
        (CODEBOOK | {"assignment": "random", "codebook_bits": 3}, 3 / 4),
        (SIGN_PATTERNS | {"quantizer": "binary"}, 3 / 4),
        (SIGN_PATTERNS | {"quantizer": "binary", "codebook": "learned"}, 3 / 4 + 8 * 4 / (5 * 8 * 3)),
    ],
    ids=str,
)
def test_a_region_has_the_nearest_of_its_patterns(options, bits):
    """Against trying every pattern, on a grid of step 2 Delta where there is a threshold."""
    config, w = QuantizerConfig(**options), _latent((5, 8, 3))
    quantizer, shape = _make(config, w.shape), (config.region_channels, config.region_taps)
    assert quantizer.weight_bits == pytest.approx(bits)
    codes, x, beta, step = _regions(quantizer(w), *shape), _regions(w, *shape), 1.0, 1.0
    if config.quantizer == "signed_binary":
        step = 2 * 0.8 * _regions(w.double().abs().mean((1, 2), keepdim=True).expand(w.shape), *shape)[:, :1, None]
    if config.assignment == "learned":
        masks = np.array(list(itertools.product((0, 1), repeat=x.shape[1])))
        patterns = np.concatenate([masks, -masks])
    else:
        patterns = quantizer.codebook.patterns.double().numpy()
    if config.assignment == "random":
        beta = _regions(quantizer.signs(w).expand(w.shape), *shape)[:, :1]
    distance = ((((beta * x)[:, :, None] - step * patterns.T) ** 2).sum(1)).argmin(1)
    np.testing.assert_array_equal(beta * codes, patterns[distance])
    if config.assignment == "learned":
        np.testing.assert_array_equal(quantizer(-w), -quantizer(w))  # the signs follow the weights


def test_regions_of_one_tap_have_signs_of_their_own():
    config = QuantizerConfig(assignment="random", region_channels=2, region_taps=1, delta_factor=0.0)
    quantizer, w = _make(config, (4, 6, 3, 3)), _latent((4, 6, 3, 3))
    assert quantizer.beta.shape == (4, 27) and quantizer.beta.sum() == 0
    beta = quantizer.signs(w)
    for k, c, r, s in np.ndindex(4, 6, 3, 3):
        assert beta[k, c, r, s] == quantizer.beta[k, (c // 2) * 9 + 3 * r + s]


@pytest.mark.parametrize("assignment", ["random", "learned"])
def test_a_codebook_of_all_patterns_changes_nothing(assignment):
    shape = (6, 8, 3, 3)
    every = _make(QuantizerConfig(assignment=assignment, codebook_bits=4, **CODEBOOK), shape)
    none = _make(QuantizerConfig(assignment=assignment, **CODEBOOK), shape)
    none.beta = every.beta  # the codebook is drawn before them
    np.testing.assert_array_equal(every(_latent(shape)), none(_latent(shape)))
    assert every.weight_bits == none.weight_bits
    signs, w = _make(QuantizerConfig("binary", **SIGN_PATTERNS | {"codebook_bits": 4}), shape), _latent(shape)
    np.testing.assert_array_equal(signs(w), _make(QuantizerConfig("binary"), shape)(w))
    assert signs.weight_bits == 1


def test_sparsest_masks():
    masks = sparsest_masks(6, 4, torch.Generator().manual_seed(0)).numpy()
    assert masks.sum(1).tolist() == [0] + 6 * [1] + 9 * [2] and len(np.unique(masks, axis=0)) == 16
    other = sparsest_masks(6, 4, torch.Generator().manual_seed(1)).numpy()
    assert (masks[:7] == other[:7]).all() and (masks[7:] != other[7:]).any()
    assert len(np.unique(sparsest_masks(5, 5, torch.Generator()), axis=0)) == 32
    with pytest.raises(ValueError, match="bits = 6; allowed: an integer from 0 to 5"):
        sparsest_masks(5, 6, torch.Generator())
    with pytest.raises(ValueError, match="bits = 6; allowed: an integer from 0 to 5"):
        random_patterns(5, 6, -1.0, torch.Generator())


@pytest.mark.parametrize(
    "options",
    [CODEBOOK | {"assignment": "random", "codebook_bits": 2}, SIGN_PATTERNS | {"quantizer": "binary"}],
    ids=str,
)
def test_a_learned_codebook_follows_the_weights_in_training_steps_alone(options):
    shape, config = (16, 8, 3), QuantizerConfig(**options | {"codebook": "learned"})
    quantizer, w = _make(config, shape), _latent(shape)
    start = quantizer.codebook.patterns.double().numpy().copy()
    low = start.min()
    beta = quantizer.signs(w).expand(shape).double() if low == 0 else torch.ones(shape)
    quantizer.codes(w)
    with torch.no_grad():
        quantizer(w)
    np.testing.assert_array_equal(quantizer.codebook.patterns, start)
    # Most regions ask for one pattern, which the codebook lacks at the start.
    lacking = next(p for p in itertools.product((low, 1.0), repeat=4) if 1 in p and not (start == p).all(1).any())
    together = torch.tensor(2 * lacking).reshape(8, 1)
    patterns, sums = start, start - (1 + low) / 2
    for step in range(60):
        latent = (_latent(shape, step) + beta * together).float()
        x = latent.double()
        delta = 0.8 * x.abs().mean((1, 2), keepdim=True) if low == 0 else 0
        regions = _regions(beta * x - delta, 4)
        chosen = (regions @ patterns.T).argmax(1)
        for j in range(len(patterns)):
            sums[j] = 0.99 * sums[j] + 0.01 * regions[chosen == j].sum(0)
        patterns = np.where(sums >= 0, 1.0, low)
        quantizer(latent.requires_grad_())
        np.testing.assert_array_equal(quantizer.codebook.patterns, patterns)
    assert list(lacking) in patterns.tolist()
    quantizer.eval()
    quantizer(_latent(shape, 99).requires_grad_())
    np.testing.assert_array_equal(quantizer.codebook.patterns, patterns)


def test_signs_are_swapped_once_when_their_time_has_come():
    quantizer = _make(QuantizerConfig(swap_at=0.5, assignment="interleaved"), (4, 4))
    start = quantizer.beta.clone()
    for progress, sign in ((0.0, 1), (0.49, 1), (0.5, -1), (0.51, -1), (1.0, -1), (0.2, -1)):
        quantizer.set_progress(progress)
        assert torch.equal(quantizer.beta, sign * start), progress
    never = _make(QuantizerConfig(assignment="interleaved"), (4, 4))
    never.set_progress(1.0)
    assert torch.equal(never.beta, start) and "swapped" not in never.state_dict()


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


def _temperature(p):
    t = 0.1 * 10 ** (p * math.log10(10 / 0.1))
    return t, max(1 / t, 1)


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


@pytest.mark.parametrize("config", [QuantizerConfig("ternary_twn"), QuantizerConfig("binary", scale="mean")], ids=_id)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(values=st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=24), other=st.floats(-1, 1))
def test_a_mean_scale_is_the_least_squares_scale_of_the_kept_weights(config, values, other):
    w = torch.tensor([values])
    weight = _make(config, w.shape).codes(w)
    codes, alpha = weight.codes.reshape(-1).astype(float), float(weight.scale[0])
    error = lambda a: np.square(np.array(values) * (codes != 0) - a * codes).sum()  # noqa: E731
    assert error(alpha) <= error(alpha + other) + 1e-6


def test_filters_of_zeros_and_filters_without_effectual_weights():
    config, w = QuantizerConfig("signed_binary", scale="mean", delta_factor=0.9), torch.tensor([[-1.0, -0.5], [0, 0]])
    weight = _make(config, w.shape).codes(w)
    assert not weight.codes[0].any() and weight.scale[0] == 1  # the positive filter keeps nothing
    zeros = torch.zeros(2, 3)
    np.testing.assert_array_equal(_make(QuantizerConfig(), zeros.shape)(zeros), [[1, 1, 1], [-1, -1, -1]])
    for key in ("ternary_twn", "ternary_ttq"):
        weight = _make(QuantizerConfig(key), zeros.shape).codes(zeros)
        assert not weight.codes.any() and np.isfinite(weight.dense()).all()


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


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quantizer": "sb"}, "quantizer = 'sb'; allowed: full_precision, binary"),
        ({"estimator": "st"}, "estimator = 'st'; allowed: ste, ede, sb_ede"),
        ({"delta_factor": 1.5}, "delta_factor = 1.5; allowed: a number >= 0 and below 1"),
        ({"quantizer": "ternary_ttq", "delta_factor": 1.0}, "delta_factor = 1.0; allowed: a number >= 0 and below 1"),
        ({"positive_fraction": -0.1}, "positive_fraction = -0.1; allowed: a number from 0 to 1"),
        ({"region_channels": -4}, "region_channels = -4; allowed: an integer >= 0"),
        ({"region_taps": 2}, "region_taps = 2; allowed: an integer from 0 to 1"),
        (
            {"codebook_bits": 5, "region_channels": 4, "region_taps": 1},
            "codebook_bits = 5 with region_channels = 4, region_taps = 1; allowed: 0, or up to region_channels",
        ),
        ({"codebook_bits": 2, "region_channels": 32, "region_taps": 1}, "region_taps = 1, region_channels <= 16"),
        ({"codebook_bits": 11, "region_channels": 16, "region_taps": 1}, "allowed: an integer from 0 to 10"),
        ({"codebook": "learned"}, "codebook = 'learned' with codebook_bits = 0; allowed: sparsest"),
        ({"codebook": "dense"}, "codebook = 'dense'; allowed: sparsest, random, learned"),
        ({"quantizer": "binary", "region_channels": 8}, "= 8 has no effect on binary without a codebook"),
        (
            {"quantizer": "binary", "region_channels": 8, "region_taps": 1, "codebook_bits": 4},
            "codebook = 'sparsest' with binary, which has no zeros; allowed: random, learned",
        ),
        ({"assignment": "learned", "positive_fraction": 0.3}, "positive_fraction = 0.3 has no effect"),
        ({"assignment": "last"}, "assignment = 'last'; allowed: first_half, interleaved, random, initial_weights"),
        ({"channel_signs": 1}, "channel_signs = 1; allowed: True, False"),
        ({"threshold": "median"}, "threshold = 'median'; allowed: max, mean, learned"),
        ({"threshold": "learned", "delta_factor": 1.0}, "delta_factor = 1.0; allowed: a number >= 0 and below 1"),
        ({"threshold": "mean", "delta_factor": math.inf}, "delta_factor = inf; allowed: a number >= 0"),
        ({"threshold": "learned", "delta_axis": "layer"}, "delta_axis = 'layer' with threshold = 'learned'; allowed:"),
        ({"quantizer": "ternary_ttq", "threshold": "learned"}, "it applies to: zero_one, signed_binary"),
        ({"swap_at": 1.0}, "swap_at = 1.0; allowed: a number >= 0 and below 1"),
        ({"quantizer": "zero_one", "swap_at": 0.5}, "swap_at = 0.5 has no effect on zero_one; it applies to: signed_b"),
        ({"quantizer": "zero_one", "delta_axis": "region"}, "delta_axis = 'region'; allowed: filter, layer"),
        ({"quantizer": "binary", "estimator": "sb_ede"}, "estimator = 'sb_ede'; allowed: ste, ede"),
        ({"quantizer": "ternary_twn", "estimator": "ede"}, "estimator = 'ede' has no effect on ternary_twn"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError) as error:
        QuantizerConfig(**options)
    assert message in str(error.value)


def test_full_precision_has_no_codes_and_regions_divide_the_channels():
    with pytest.raises(ValueError, match=r"region_channels = 5 does not divide C = 8; allowed: 0 or one of \[1, 2, 4"):
        _make(QuantizerConfig(region_channels=5), (4, 8, 3, 3))
    quantizer = _make(QuantizerConfig("full_precision"), (2, 2))
    w = _latent((2, 2))
    assert quantizer(w) is w
    with pytest.raises(TypeError, match="no integer codes"):
        quantizer.codes(w)


# Activations


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile itself calls
@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
@pytest.mark.parametrize(("bits", "signed"), [(2, False), (4, False), (8, False), (8, True)])
def test_a_learned_step_is_the_published_formula(bits, signed, fused):
    """Gradients by differences of the step's formula with rounding held fixed, in float64, of a step no x ties at."""
    layer, x = LearnedStep(bits, signed=signed), 2 * _latent((6, 3, 5))
    layer.fused = fused
    x = x if signed else x.relu()
    layer.fit(x)
    high = 2 ** (bits - signed) - 1
    low = -high - 1 if signed else 0
    assert layer.step.item() == pytest.approx(2 * x.abs().mean().item() / high**0.5, rel=1e-6)
    with torch.no_grad():  # so that some x lie beyond the highest level
        layer.log_step.copy_(torch.log(0.5 * x.max() / high))
    x.requires_grad_(), (upstream := _latent((6, 3, 5), 1))
    y = layer(x)
    assert ("Fused" in y.grad_fn.name()) == fused
    s, v = layer.step.item(), x.detach().double().numpy()
    q = np.clip(np.round(v / s), low, high)
    np.testing.assert_allclose(y.detach(), q * s, rtol=1e-6)
    assert 0 < (v / s > high).sum() < v.size
    y.backward(upstream)
    inside = (v / s >= low) & (v / s <= high)
    np.testing.assert_array_equal(x.grad, upstream.numpy() * inside)
    error = np.where(inside, np.round(v / s) - v / s, np.clip(v / s, low, high))
    of_step = (upstream.numpy() * error).sum() / np.sqrt(15 * high)
    assert layer.log_step.grad.item() == pytest.approx(of_step * s, rel=1e-4)


@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
def test_at_ties_a_gradient_passes_at_zero_alone(monkeypatch, fused):
    monkeypatch.setattr(activations, "_one_pass", lambda function: function)
    for signed, x in ((False, [0.0, 15, 16, -0.0, 3.25]), (True, [-8.0, 7, -0.0, 0, 3.25])):
        layer, x = LearnedStep(4, signed=signed), torch.tensor([x], requires_grad=True)
        layer.fused = fused
        layer(x).sum().backward()
        assert x.grad.tolist() == [[float(value == 0 or value == 3.25) for value in x[0]]]
        beyond = 15 + 15 if not signed else -8 + 7
        assert layer.log_step.grad.item() == pytest.approx((beyond - 0.25) / math.sqrt(5 * layer.high))


@pytest.mark.parametrize("shape", [(5,), (6, 5), (6, 3, 5), (6, 3, 5, 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fused_steps_keep_the_layout_and_compute_in_float32(monkeypatch, shape, dtype):
    """Run by torch's own operators, for any rank, as x lies in memory: contiguous or with channels last."""
    monkeypatch.setattr(activations, "_one_pass", lambda function: function)
    x, upstream = (2 * _latent(shape, seed).to(dtype) for seed in (0, 1))
    layouts = [x, x.contiguous(memory_format=torch.channels_last)] if x.ndim == 4 else [x]
    for x in layouts:
        exact, fused = LearnedStep(6, signed=True), LearnedStep(6, signed=True)
        fused.fused = True
        leaves = []
        for layer, leaf in ((exact, x.float()), (fused, x.clone())):
            layer.log_step.data.fill_(math.log(0.07))
            leaves.append(leaf.requires_grad_())
            y = layer(leaf)
            y.backward(upstream.to(leaf.dtype))
        assert y.dtype == dtype and y.stride() == x.stride() == leaves[1].grad.stride()
        assert torch.equal(y, exact(leaves[0]).to(dtype)) and torch.equal(leaves[1].grad, leaves[0].grad.to(dtype))
        torch.testing.assert_close(fused.log_step.grad, exact.log_step.grad, rtol=1e-5, atol=1e-5)


def test_steps_are_fitted_in_order_and_nothing_else_changes():
    parts = (torch.nn.BatchNorm1d(3), torch.nn.ReLU(), LearnedStep(2), torch.nn.Linear(3, 3), LearnedStep(8))
    model = torch.nn.Sequential(*parts)
    before = {name: value.clone() for name, value in model.state_dict().items() if "log_step" not in name}
    x = 5 + _latent((64, 3))
    calibrate(model, x)
    assert model.training and all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    reached = torch.relu((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt())
    first = 2 * reached.mean().item() / 3**0.5
    assert model[2].step.item() == pytest.approx(first, rel=1e-5)
    second = torch.nn.functional.linear((reached / first).round().clamp(0, 3) * first, model[3].weight, model[3].bias)
    assert model[4].step.item() == pytest.approx(2 * second.abs().mean().item() / 255**0.5, rel=1e-4)


def test_a_step_of_zeros_stays_as_it_is_and_wrong_bits_are_refused():
    layer = LearnedStep(4)
    layer.fit(torch.zeros(3, 2))
    assert layer.step.item() == 1
    for bits in (1, 9, 32, 4.0):
        with pytest.raises(ValueError, match=f"bits = {bits}"):
            LearnedStep(bits)
