"""Tables of repetition on codes whose repetition is known, and figures of committed benchmarks."""

from dataclasses import replace

import numpy as np
import pytest
from drawing import check
from example_runs import REFERENCE
from pandas import DataFrame

from sbkit.evidence import benchmarks, codes, toy, tradeoff
from sbkit.figures import repetition
from sbkit.repetition import random_codes


def layer(scheme, channels, density=1.0, seed=0):
    return random_codes(scheme, (channels, channels, 3, 3), density, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def patterns():
    """Layers of 64 x 64 filters that are but 64 different ones, two runs of two schemes."""
    weights = {}
    for scheme, density in (("binary", 1.0), ("signed_binary", 0.4)):
        for seed in (0, 1):
            weight = layer(scheme, 64, density, seed)
            repeated = np.repeat(weight.codes[:, :1], 64, axis=1)
            weights[f"{scheme}-s{seed}"] = {"conv": replace(weight, codes=repeated)}
    return repetition.patterns_table(weights)


@pytest.fixture(scope="module")
def operations():
    weights = {"a-s0": {"small": layer("binary", 8)}, "a-s1": {"large": layer("binary", 16)}}
    weights |= {"b-s0": {"large": layer("signed_binary", 16, 0.35)}, "c-s0": {"large": layer("ternary_twn", 16, 0.6)}}
    return codes.operations_table(weights)


@pytest.fixture(scope="module")
def bench():
    return benchmarks.read(REFERENCE / "quick")


def test_learned_repetition_is_told_from_that_of_chance(patterns):
    counts = patterns.groupby(["codes", "scheme"])["unique"].max()
    assert counts["trained", "binary"] <= 64 and counts["shuffled", "binary"] == 512 == counts["paper", "binary"]
    papers = patterns[patterns["codes"] == "paper"].set_index("scheme")
    assert papers["unique"].to_dict() == {"binary": 512, "signed_binary": 1024}, "no run of ternary"


def test_the_order_of_runs_does_not_change_shuffled_codes():
    weights = {name: {"conv": layer("signed_binary", 16, 0.4)} for name in ("a", "b")}
    one, other = (repetition.patterns_table(dict(runs)) for runs in (weights.items(), reversed(weights.items())))
    place = ["codes", "name"]
    assert one.sort_values(place)["unique"].to_list() == other.sort_values(place)["unique"].to_list()


# Figures


def test_figures_of_all_tables(patterns, operations, bench):
    tables = {
        "unique_filters": patterns,
        "operations": operations,
        "dataflow_graph": toy.graphs_table(),
        "tradeoff": tradeoff.tradeoff_table(benchmarks.find(bench, "density")),
        "random": tradeoff.random_table(0.35),
    }
    assert set(tables) == {name.removeprefix("fig_") for name in vars(repetition) if name.startswith("fig_")}
    for stem, table in tables.items():
        before = table.copy(deep=True)
        draw = getattr(repetition, f"fig_{stem}")
        check(draw(table))
        assert table.equals(before), f"fig_{stem} changed its table"
        with pytest.raises(ValueError, match=f"fig_{stem} got an empty table"):
            draw(DataFrame())


def test_bars_of_operations_are_means_of_the_largest_layers(operations):
    figure = repetition.fig_operations(operations)
    left, right = figure.axes
    large = operations[operations["K"] == 16]
    for axis, rows in (
        (left, large[large["algorithm"] != "dataflow"]),
        (right, large[large["algorithm"] == "dataflow"]),
    ):
        assert sorted(bar.get_width() for bar in axis.patches) == pytest.approx(sorted(rows["reduction"]))
    assert "table, signed patterns" in [tick.get_text() for tick in left.get_yticklabels()]
    with pytest.raises(ValueError, match="no square 3x3 layer"):
        repetition.fig_operations(operations.assign(K=1))
