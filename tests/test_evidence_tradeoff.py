"""What a density costs, on costs that are exactly proportional to the entropy."""

import math

import pytest
from pandas import DataFrame

from sbkit.evidence import benchmarks, tradeoff
from sbkit.way import Way


def entropy(*probabilities):
    return -sum(p * math.log2(p) for p in probabilities if p > 0)


def timing(way, density, bits, cost):
    return {
        "name": "density", "layer": "128→128 @28", "way": way.options(), "chosen_group": 4, "density": density,
        "entropy_bits": bits, "median_ms": 3 * cost, "iqr_ms": 0.0, "best_reduction": 2 / cost,
    }  # fmt: skip


@pytest.fixture(scope="module")
def table():
    """Signed binary costs its entropy by `table` and its density by `sparse`; binary has two encodings."""
    rows = []
    for density in (0.05, 0.25, 0.5, 0.75, 0.95):
        bits = entropy(density, 1 - density)
        rows.append(timing(Way("table", "signed_binary"), density, bits, 0.2 * bits))
        rows.append(timing(Way("sparse", "signed_binary"), density, bits, density))
    rows.append(timing(Way("table", "binary"), 1.0, 1.0, 0.4))
    rows.append(timing(Way("table", "binary", "signed"), 1.0, 1.0, 0.2))
    rows.append(timing(Way("torch", variant="contiguous"), 1.0, math.nan, 2.0))
    return tradeoff.tradeoff_table(benchmarks.timed(DataFrame(rows)))


def test_entropy_predicts_what_costs_its_entropy(table):
    by_table = table[(table["algorithm"] == "table") & (table["encoding"] != "two_group") | (table["density"] < 1)]
    by_table = by_table[by_table["algorithm"] == "table"]
    assert by_table["predicted_operations"].to_list() == pytest.approx(by_table["operations_per_weight"].to_list())
    assert by_table["predicted_ms"].to_list() == pytest.approx(by_table["median_ms"].to_list())
    assert set(table["algorithm"]) == {"sparse", "table"}, "libraries have no codes"


def test_the_optima_of_each_line(table):
    lines = table.groupby(["algorithm", "scheme", "encoding"])
    assert (lines[["fewest", "fastest", "cheapest_bit"]].sum() == 1).all(axis=None)
    sparse = table[table["algorithm"] == "sparse"].set_index("density")
    assert sparse["fewest"].idxmax() == sparse["cheapest_bit"].idxmax() == 0.05
    assert table.loc[(table["scheme"] == "signed_binary") & table["fastest"], "density"].isin([0.05, 0.95]).all()


def test_no_benchmark_gives_an_empty_table():
    assert tradeoff.tradeoff_table(DataFrame()).empty


def test_a_lower_density_holds_fewer_bits_and_costs_less():
    low, high = (tradeoff.random_table(density).set_index("scheme") for density in (0.1, 0.5))
    for column in ("density", "entropy_bits", "operations_per_weight"):
        zeros = low.index[low.index != "binary"]
        assert (low.loc[zeros, column] < high.loc[zeros, column]).all()
        assert low.loc["binary", column] == high.loc["binary", column]
    assert high.loc["signed_binary", "density"] == pytest.approx(0.5, abs=0.05)
    assert {code for row in high.loc["ternary_twn", "codes"] for code in row} == {-1, 0, 1}
