"""Patterns, entropy, and operation counts that equal what the kernels' plans execute."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbkit import kernels, repetition
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.encodings import ENCODINGS_OF, largest_group, one_scale
from sbkit.repetition import (
    dataflow_graph,
    entropy_bits,
    operations,
    random_codes,
    table_adds,
    unique_filters,
)
from sbkit.schemes import CODED, SCHEMES

DENSITY = {"binary": 1.0, "ternary_twn": 0.58, "ternary_ttq": 0.8}


def codes_of(scheme, shape=(8, 6, 3, 3), seed=0):
    return random_codes(scheme, shape, DENSITY.get(scheme, 0.35), np.random.default_rng(seed))


def weight(*filters):
    """A weight of 1x1 filters from rows of codes."""
    return QuantizedWeight(np.array(filters, np.int8)[:, :, None, None])


def test_unique_filters_counts_2d_patterns():
    codes = np.zeros((2, 3, 3, 3), np.int8)
    codes[0, 1, 1, 1] = codes[1, 2, 1, 1] = 1
    codes[1, 0, 1, 1] = -1
    found = unique_filters(codes)
    assert found == (3, 6)
    assert found.repetition == 2


@pytest.mark.parametrize("scheme", CODED)
def test_every_pattern_of_a_scheme_is_found_and_no_other(scheme):
    codes = codes_of(scheme, (200, 100, 1, 3))
    assert unique_filters(codes.codes).unique == SCHEMES[scheme].patterns(taps=3)


def test_entropy_is_that_of_a_code_within_its_region():
    assert entropy_bits(weight([1, -1, 1, -1]).codes) == 1
    assert entropy_bits(weight([1, 1, 1, 1], [0, 0, 0, 0]).codes) == 0
    assert entropy_bits(weight([1, 1, 0, 0], [-1, -1, 0, 0]).codes) == 1, "two signed-binary filters, not three values"
    assert entropy_bits(weight([1, 1, -1, -1]).codes, region_channels=2) == 0
    large = codes_of("signed_binary", (16, 512, 3, 3)).codes
    assert entropy_bits(large) == pytest.approx(-0.35 * np.log2(0.35) - 0.65 * np.log2(0.65), abs=0.01)
    with pytest.raises(ValueError, match="region_channels = 3; allowed: 0 or a divisor of C = 4"):
        entropy_bits(weight([1, 1, 0, 0]).codes, region_channels=3)


@pytest.mark.parametrize("scheme", CODED)
def test_random_codes_have_the_schemes_values_and_density(scheme):
    codes = codes_of(scheme, (7, 512, 3, 3)).codes
    expected = {"binary": [-1, 1], "zero_one": [0, 1]}.get(scheme, [-1, 0, 1])
    assert np.unique(codes).tolist() == expected
    assert np.count_nonzero(codes) / codes.size == pytest.approx(DENSITY.get(scheme, 0.35), abs=0.02)
    assert scheme != "signed_binary" or ((codes[:3] >= 0).all() and (codes[3:] <= 0).all())


@pytest.mark.parametrize(
    ("scheme", "density", "message"),
    [
        ("binary", 0.5, r"density = 0\.5 for binary; allowed: 1"),
        ("zero_one", 1.5, r"density = 1\.5 for zero_one; allowed: from 0 to 1"),
        ("full_precision", 1, "scheme = 'full_precision'; allowed: binary, "),
    ],
)
def test_random_codes_refuses_what_a_scheme_cannot_be(scheme, density, message):
    with pytest.raises(ValueError, match=message):
        random_codes(scheme, (2, 2, 1, 1), density, np.random.default_rng(0))


# ---- Data-flow graphs ------------------------------------------------------------------------------------------------


def test_a_shared_pair_becomes_a_node():
    # The paper's toy: one filter needs a+c+e, the other a+c+b. Three additions: a+c, (a+c)+e and (a+c)+b.
    graph = dataflow_graph([[0, 2, 4], [0, 1, 2]], inputs=5)
    assert graph == ([(0, 2)], [[4, 5], [1, 5]])
    assert graph.adds == 3 + 2, "each sum starts at zero"


@pytest.mark.parametrize(
    ("sets", "nodes", "sums"),
    [
        # 1 and 2 share three sets, 0 and 1 but two, and none once 1+2 has replaced them.
        ([[0, 1, 2], [0, 1], [1, 2], [1, 2, 3]], [(1, 2)], [[0, 4], [0, 1], [4], [3, 4]]),
        # All six pairs are in both sets: the smallest first value wins, then the smallest second.
        ([[0, 1, 2, 3], [0, 1, 2, 3]], [(0, 1), (2, 3), (4, 5)], [[6], [6]]),
        # Nodes are shared like inputs: 2+4 joins (0+1), in three sets, with 2, in two.
        ([[0, 1, 2], [0, 1, 2], [0, 1, 3]], [(0, 1), (2, 4)], [[5], [5], [3, 4]]),
        # A pair is no node for one set alone; an empty set needs nothing.
        ([[0, 1, 2, 3], [], [3]], [], [[0, 1, 2, 3], [], [3]]),
        ([], [], []),
    ],
)
def test_dataflow_graphs_by_hand(sets, nodes, sums):
    assert dataflow_graph(sets, inputs=4) == (nodes, sums)
    assert kernels._kernels.merge_pairs(4, sets) == ([list(node) for node in nodes], sums)


def plainest(sets, inputs):
    """Greedy merging word for word: count all pairs, merge the most frequent, count again."""
    sets, nodes = [set(values) for values in sets], []
    while counts := Counter(pair for values in sets for pair in itertools.combinations(sorted(values), 2)):
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[pair] < 2:
            break
        for values in sets:
            if values >= set(pair):
                values -= set(pair)
                values.add(inputs + len(nodes))
        nodes.append(pair)
    return nodes, [sorted(values) for values in sets]


def expand(graph, inputs, value):
    """The inputs that a value sums, each as often as it does."""
    return [value] if value < inputs else expand_all(graph, inputs, graph.nodes[value - inputs])


def expand_all(graph, inputs, values):
    return [i for value in values for i in expand(graph, inputs, value)]


@settings(deadline=None, derandomize=True)
@given(
    st.integers(1, 10).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.sets(st.integers(0, n - 1)), max_size=9)))
)
def test_a_graph_computes_its_sets_and_leaves_nothing_to_share(case):
    inputs, sets = case
    graph = dataflow_graph([sorted(s) for s in sets], inputs)
    assert [sorted(expand_all(graph, inputs, s)) for s in graph.sums] == [sorted(s) for s in sets]
    assert graph.adds <= sum(map(len, sets)) - len(graph.nodes), "a node saves an addition or more"
    left = [pair for s in graph.sums for pair in itertools.combinations(s, 2)]
    assert len(left) == len(set(left))
    assert kernels._kernels.merge_pairs(inputs, [list(s) for s in sets]) == ([list(n) for n in graph.nodes], graph.sums)
    assert graph == plainest(sets, inputs)


@pytest.mark.parametrize("fraction", [0.1, 0.35, 0.5, 0.9])
def test_larger_graphs_are_those_of_the_planner_and_of_plain_counting(fraction):
    rng = np.random.default_rng(1)
    for inputs, count in ((9, 50), (20, 24), (70, 33)):
        sets = [np.flatnonzero(row).tolist() for row in rng.random((count, inputs)) < fraction]
        graph = dataflow_graph(sets, inputs)
        assert kernels._kernels.merge_pairs(inputs, sets) == ([list(n) for n in graph.nodes], graph.sums)
        if inputs <= 20:
            assert graph == plainest(sets, inputs)


@pytest.mark.parametrize("sets", [[[0, 3]], [[-1]], [[1, 1]], [[], [2, 0, 2]]])
def test_the_planner_refuses_sets_that_are_none(sets):
    with pytest.raises(ValueError, match=r"a set holds input -?\d; allowed: each of 0 to inputs - 1 = 2 once"):
        kernels._kernels.merge_pairs(3, sets)


# ---- Operation counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", range(1, 11))
def test_tables_of_subsets_take_an_addition_for_each_subset_of_two_channels_or_more(channels):
    assert table_adds((0, 1), channels) == 2**channels - channels - 1


def test_tables_of_signed_patterns():
    # Of two channels a+b and a-b; of three (a±b)±c besides; of four (a±b)±(c±d) besides a±b and c±d.
    assert [table_adds((-1, 1), channels) for channels in (1, 2, 3, 4, 5, 6)] == [0, 2, 6, 12, 24, 44]
    # All (3^g - 1) / 2 patterns up to their sign, but for the single channels.
    assert [table_adds((-1, 0, 1), channels) for channels in (1, 2, 3, 6)] == [0, 2, 10, 358]


# Worked out by hand: two filters of four channels, 1x1.
MIXED = weight([1, 1, 0, 0], [1, -1, -1, 0])
TWO_SCALES = replace(MIXED, negative_scale=np.full(2, 3))
PLUS_MINUS = weight([1, 1, -1, -1], [1, 1, 1, 1])


@pytest.mark.parametrize(
    ("codes", "algorithm", "options", "expected"),
    [
        (MIXED, "dense", {}, (8, 8)),
        # 2 | 1 and 2 weights, added and subtracted in one row.
        (MIXED, "sparse", {}, (2 + 3, 1 + 1)),
        (MIXED, "sparse", {"skip_zeros": False}, (4 + 4 + 1 + 1, 2 + 2)),
        # rows: + | +, -; the second filter joins two.
        (TWO_SCALES, "sparse", {}, (2 + 3 + 1, 1 + 2)),
        # blocks {0,1} and {2,3}: + uses 1 | +: 1, -: 2; two tables of one addition.
        (MIXED, "table", {"group": 2}, (1 + 3 + 2, 1 + 1)),
        (TWO_SCALES, "table", {"group": 2}, (1 + 3 + 2 + 1, 1 + 2)),
        # the shared sum of two blocks, one and two blocks of +1, one join a filter.
        (PLUS_MINUS, "table", {"group": 2, "encoding": "rewritten"}, (2 + 1 + 2 + 2 + 2, 4)),
        (PLUS_MINUS, "sparse", {"encoding": "rewritten"}, (4 + 2 + 4 + 2, 4)),
        # patterns (1, 1), none | (1, -1), (-1, 0); two tables of a+b and a-b.
        (MIXED, "table", {"group": 2, "encoding": "signed"}, (1 + 2 + 4, 1 + 1)),
        (PLUS_MINUS, "table", {"group": 3, "encoding": "signed"}, (2 + 2 + 6, 1 + 1)),
        # tables: a+b, and a-b of which a-b-c is made
        (MIXED, "table", {"group": 4, "encoding": "codebook"}, (1 + 1 + 3, 1 + 1)),
        (TWO_SCALES, "dataflow", {"group": 4}, (2 + 3 + 1, 1 + 2)),
        # further rows of {2,3} | {3}
        (MIXED, "dataflow", {"group": 4, "skip_zeros": False}, (4 + 4 + 2, 2 + 2)),
        # nodes 0+1 and 2+3, one entry each | both. In smaller tiles less can be shared.
        (PLUS_MINUS, "dataflow", {"group": 4}, (2 + 2 + 2, 1 + 1)),
        (PLUS_MINUS, "dataflow", {"group": 3}, (1 + 3 + 3, 1 + 1)),
        # nodes 0+1, 2+3 and their sum; entries 0+1 | all; all is shared, and joined twice.
        (PLUS_MINUS, "dataflow", {"group": 4, "encoding": "rewritten"}, (3 + 1 + 1 + 1 + 2, 4)),
        # The paper's toy: a+c, and four entries.
        (weight([1, 0, 1, 0, 1], [-1, -1, -1, 0, 0]), "dataflow", {"group": 5}, (1 + 4, 1 + 1)),
    ],
)
def test_operations_by_hand(codes, algorithm, options, expected):
    assert operations(codes, algorithm, **options) == expected


def test_operations_of_a_layer_count_each_input_position_once():
    codes = weight([1, 1], [1, 1])
    layer = ConvShape(C=2, H=4, W=4, K=2, R=1, S=1, stride=3, padding=0)
    assert operations(codes, "table", layer, group=2) == (4 * 2 + 16, 4 * 2)
    assert operations(codes, "dense", layer).total == 2 * layer.macs
    assert operations(weight([0, 0]), "sparse") == (0, 0)


def test_best_group_needs_the_fewest_operations():
    codes = codes_of("binary", (64, 64, 3, 3))
    best = repetition.best_group(codes, encoding="rewritten")
    totals = [operations(codes, "table", group=group, encoding="rewritten").total for group in range(1, 11)]
    assert totals[best - 1] == min(totals) < totals[0]


def test_a_group_keeps_to_the_largest_table():
    codes = codes_of("ternary_twn", (512, 12, 3, 3))
    assert 4 <= repetition.best_group(codes, encoding="signed") <= largest_group(codes.codes, "signed") == 6
    with pytest.raises(ValueError, match="group of table = 7; allowed: an integer from 1 to 6"):
        operations(codes, "table", group=7, encoding="signed")


@pytest.mark.parametrize("scheme", CODED)
def test_dataflow_never_adds_more_than_sparse(scheme):
    codes = codes_of(scheme, (16, 6, 3, 3))
    for skip_zeros in (True, False):
        sparse = operations(codes, "sparse", skip_zeros=skip_zeros)
        for group in (1, 2, 4):
            count = operations(codes, "dataflow", group=group, skip_zeros=skip_zeros)
            assert count.adds < sparse.adds and count.multiplies == sparse.multiplies


def test_operations_names_what_is_wrong():
    with pytest.raises(ValueError, match="encoding of dataflow = 'signed'; allowed: two_group, rewritten"):
        operations(MIXED, "dataflow", encoding="signed")
    with pytest.raises(ValueError, match="group of dataflow = 0; allowed: an integer >= 1"):
        operations(MIXED, "dataflow", group=0)
    with pytest.raises(ValueError, match=r"codes have shape \(2, 4, 1, 1\)"):
        operations(MIXED, "table", ConvShape(C=3, H=4, W=4, K=2, R=1, S=1))


SHAPES = [
    ConvShape(C=6, H=7, W=5, K=8, name="odd"),
    ConvShape(C=5, H=9, W=9, K=3, stride=2, name="stride2"),
    ConvShape(C=7, H=6, W=6, K=4, R=1, S=1, padding=0, name="1x1"),
    ConvShape(C=16, H=8, W=8, K=16, N=2, name="batch2"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("scheme", CODED)
def test_the_plans_execute_these_operations(scheme, shape):
    codes = codes_of(scheme, (shape.K, shape.C, shape.R, shape.S))
    if scheme == "ternary_ttq":
        codes = replace(codes, negative_scale=np.full(shape.K, 2))
    for algorithm, encodings in ENCODINGS_OF.items():
        if not one_scale(codes):
            encodings = ("two_group",)
        for encoding, skip_zeros in itertools.product(encodings, (True, False)):
            if encoding == "rewritten" and not codes.codes.all():
                continue
            for group in (0, 2, 3, 5) if algorithm in ("table", "dataflow") else (0,):
                options = {"skip_zeros": skip_zeros, "encoding": encoding}
                prepared = kernels.prepare(algorithm, codes, shape, group=group, **options)
                expected = operations(codes, algorithm, shape, group=prepared.group or 1, **options)
                assert tuple(prepared.operations) == tuple(expected), (algorithm, group, options)
