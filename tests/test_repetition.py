"""Density, patterns, entropy, and operation counts that equal what the kernels' plans execute."""

import numpy as np
import pytest

from sbkit import kernels, repetition
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.repetition import (
    SCHEMES,
    density,
    effectual,
    entropy_bits,
    operations,
    pattern_bound,
    random_codes,
    reduction,
    unique_filters,
    unique_patterns,
)

DENSITY = {"binary": 1.0, "ternary_twn": 0.58, "ternary_ttq": 0.8}


def codes_of(scheme, shape=(8, 6, 3, 3), seed=0):
    return random_codes(scheme, shape, DENSITY.get(scheme, 0.35), np.random.default_rng(seed))


def weight(*filters):
    """A weight of 1x1 filters from rows of codes."""
    return QuantizedWeight(np.array(filters, np.int8)[:, :, None, None])


def test_density_counts_the_non_zero_codes():
    codes = weight([1, 0, -1, 0], [0, 0, 0, 1]).codes
    assert effectual(codes) == 3
    assert density(codes) == 3 / 8


def test_unique_filters_counts_2d_patterns():
    codes = np.zeros((2, 3, 3, 3), np.int8)
    codes[0, 1, 1, 1] = codes[1, 2, 1, 1] = 1
    codes[1, 0, 1, 1] = -1
    found = unique_filters(codes)
    assert found == (3, 6)
    assert found.repetition == 2


def test_pattern_bounds_are_the_papers_but_for_the_zero_filter_it_counts_twice():
    assert [pattern_bound(s) for s in ("binary", "signed_binary", "ternary_twn")] == [512, 1023, 19683]
    with pytest.raises(ValueError, match="scheme = 'xnor'; allowed: binary"):
        pattern_bound("xnor")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_pattern_of_a_scheme_is_found_and_no_other(scheme):
    codes = codes_of(scheme, (200, 100, 1, 3))
    assert unique_filters(codes.codes).unique == pattern_bound(scheme, taps=3)


def test_unique_patterns_per_channel_group():
    codes = weight([1, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]).codes
    np.testing.assert_array_equal(unique_patterns(codes, 2), [2, 1, 2])
    assert unique_patterns(codes_of("binary", (64, 6, 3, 3)).codes, 3).tolist() == [8, 8]
    with pytest.raises(ValueError, match="group = 0"):
        unique_patterns(codes, 0)


def test_entropy_is_that_of_a_code_within_its_region():
    assert entropy_bits(weight([1, -1, 1, -1]).codes) == 1
    assert entropy_bits(weight([1, 1, 1, 1], [0, 0, 0, 0]).codes) == 0
    assert entropy_bits(weight([1, 1, 0, 0], [-1, -1, 0, 0]).codes) == 1, "two signed-binary filters, not three values"
    assert entropy_bits(weight([1, 1, -1, -1]).codes, region_channels=2) == 0
    large = codes_of("signed_binary", (16, 512, 3, 3)).codes
    assert entropy_bits(large) == pytest.approx(-0.35 * np.log2(0.35) - 0.65 * np.log2(0.65), abs=0.01)
    with pytest.raises(ValueError, match="region_channels = 3; allowed: 0 or a divisor of C = 4"):
        entropy_bits(weight([1, 1, 0, 0]).codes, region_channels=3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_random_codes_have_the_schemes_values_and_density(scheme):
    codes = codes_of(scheme, (7, 512, 3, 3)).codes
    expected = {"binary": [-1, 1], "zero_one": [0, 1]}.get(scheme, [-1, 0, 1])
    assert np.unique(codes).tolist() == expected
    assert density(codes) == pytest.approx(DENSITY.get(scheme, 0.35), abs=0.02)
    if scheme == "signed_binary":
        assert (codes[:3] >= 0).all() and (codes[3:] <= 0).all()


def test_random_codes_refuses_impossible_densities():
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"density = 0\.5 for binary; allowed: 1"):
        random_codes("binary", (2, 2, 1, 1), 0.5, generator)
    with pytest.raises(ValueError, match=r"density = 1\.5 for zero_one"):
        random_codes("zero_one", (2, 2, 1, 1), 1.5, generator)
    with pytest.raises(ValueError, match="scheme = 'full_precision'"):
        random_codes("full_precision", (2, 2, 1, 1), 1, generator)


# Operation counts, worked out by hand: two filters of four channels, 1x1.
MIXED = weight([1, 1, 0, 0], [1, -1, -1, 0])
PLUS_MINUS = weight([1, 1, -1, -1], [1, 1, 1, 1])


@pytest.mark.parametrize(
    ("codes", "algorithm", "options", "expected"),
    [
        (MIXED, "dense", {}, (8, 8)),
        # 2 | 1 and 2 weights; rows: + | +, -; the second filter joins two.
        (MIXED, "sparse", {}, (2 + 3 + 1, 1 + 2)),
        (MIXED, "sparse", {"skip_zeros": False}, (4 + 4 + 1 + 2, 2 + 3)),
        # blocks {0,1} and {2,3}: + uses 1 | +: 1, -: 2; two tables of one addition.
        (MIXED, "table", {"group": 2}, (1 + 3 + 1 + 2, 1 + 2)),
        (MIXED, "table", {"group": 2, "skip_zeros": False}, (2 + 4 + 1 + 2, 1 + 2)),
        # blocks of 3 and 1 channels: one table of 2^3 - 3 - 1.
        (MIXED, "table", {"group": 3}, (1 + 2 + 1 + 4, 1 + 2)),
        (PLUS_MINUS, "table", {"group": 2}, (2 + 2 + 1 + 2, 2 + 1)),
        # the shared sum of two blocks, one and two blocks of +1, one join a filter.
        (PLUS_MINUS, "table", {"group": 2, "encoding": "rewritten"}, (2 + 1 + 2 + 2 + 2, 4)),
        (PLUS_MINUS, "sparse", {"encoding": "rewritten"}, (4 + 2 + 4 + 2, 4)),
    ],
)
def test_operations_by_hand(codes, algorithm, options, expected):
    assert operations(codes, algorithm, **options) == expected


def test_operations_of_a_layer_count_each_input_position_once():
    codes = weight([1, 1], [1, 1])
    layer = ConvShape(C=2, H=4, W=4, K=2, R=1, S=1, stride=3, padding=0)
    assert operations(codes, "table", layer, group=2) == (4 * 2 + 16, 4 * 2)
    assert operations(codes, "dense", layer).total == 2 * layer.macs


def test_reduction_is_dense_over_executed():
    assert reduction(MIXED, "dense") == 1
    assert reduction(MIXED, "sparse") == 16 / 9
    assert reduction(weight([0, 0]), "sparse") == float("inf")


def test_best_group_needs_the_fewest_operations():
    codes = codes_of("binary", (64, 64, 3, 3))
    best = repetition.best_group(codes, encoding="rewritten")
    totals = [operations(codes, "table", group=group, encoding="rewritten").total for group in range(1, 11)]
    assert totals[best - 1] == min(totals) < totals[0]


def test_operations_names_what_is_wrong():
    with pytest.raises(ValueError, match="algorithm = 'winograd'; allowed: dense, sparse, table"):
        operations(MIXED, "winograd")
    with pytest.raises(ValueError, match="encoding = 'xnor'"):
        operations(MIXED, "table", encoding="xnor")
    with pytest.raises(ValueError, match="codes with zeros"):
        operations(MIXED, "table", encoding="rewritten")
    with pytest.raises(ValueError, match="group = 0"):
        operations(MIXED, "table", group=0)
    with pytest.raises(ValueError, match=r"codes have shape \(2, 4, 1, 1\)"):
        operations(MIXED, "table", ConvShape(C=3, H=4, W=4, K=2, R=1, S=1))


SHAPES = [
    ConvShape(C=6, H=7, W=5, K=8, name="odd"),
    ConvShape(C=5, H=9, W=9, K=3, stride=2, name="stride2"),
    ConvShape(C=7, H=6, W=6, K=4, R=1, S=1, padding=0, name="1x1"),
    ConvShape(C=16, H=8, W=8, K=16, N=2, name="batch2"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_plans_execute_these_operations(scheme, shape):
    codes = codes_of(scheme, (shape.K, shape.C, shape.R, shape.S))
    for algorithm in ("dense", "sparse", "table"):
        for skip_zeros in (True, False):
            for encoding in repetition.ENCODINGS if scheme == "binary" and algorithm != "dense" else ("two_group",):
                options = {"skip_zeros": skip_zeros, "encoding": encoding}
                prepared = kernels.prepare(algorithm, codes, shape, **options)
                group = {"group": prepared.group} if algorithm == "table" else {}
                expected = operations(codes, algorithm, shape, **options, **group)
                assert tuple(prepared.operations) == tuple(expected), (algorithm, options)
