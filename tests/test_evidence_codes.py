"""What codes repeat and cost, and the paper's toy example."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from example_runs import REFERENCE

from sbkit.conv import QuantizedWeight
from sbkit.evidence import codes, runs, toy
from sbkit.evidence.codes import Form
from sbkit.repetition import operations, random_codes
from sbkit.way import Way

TABLE, SIGNED = Form("table"), Form("table", "signed")


def layer(scheme, channels, density=1.0, seed=0):
    return random_codes(scheme, (channels, channels, 3, 3), density, np.random.default_rng(seed))


# Codes of runs


def test_codes_lie_beside_the_records():
    train = runs.read(REFERENCE / "quick")
    weights = codes.of_runs(train)
    assert "binary-s0" in weights and "full_precision-s0" not in weights
    assert set(weights) == {path.stem for path in (REFERENCE / "quick" / "weights").glob("*.npz")}
    assert list(codes.only(weights, ["binary-s0", "nobody"])) == ["binary-s0"]
    place, weight = next(iter(codes.layers(codes.only(weights, ["binary-s0"]))))
    assert (place["name"], place["scheme"], place["depth"]) == ("binary-s0", "binary", 1)
    assert (place["K"], place["C"], place["R"], place["S"]) == weight.codes.shape


def test_unique_filters_are_those_of_3x3_layers():
    alike = QuantizedWeight(np.ones((4, 4, 3, 3), np.int8), scheme="signed_binary")
    linear = QuantizedWeight(np.ones((2, 2, 1, 1), np.int8), scheme="binary")
    [row] = codes.unique_table({"a": {"conv": alike, "fc": linear}}).to_dict("records")
    assert (row["layer"], row["filters"], row["unique"], row["repetition"], row["bound"]) == ("conv", 16, 1, 16.0, 1023)


def test_shuffled_codes_keep_every_filters_values():
    made = {"conv": layer("signed_binary", 16, 0.4)}
    shuffled, again = (codes.shuffled(made, seed)["conv"].codes for seed in (0, 1))
    assert (np.sort(shuffled.reshape(16, -1)) == np.sort(made["conv"].codes.reshape(16, -1))).all()
    assert (shuffled != made["conv"].codes).any() and (shuffled != again).any()


# Operations


def test_operations_are_those_of_the_best_group():
    weight = layer("binary", 16)
    table = codes.operations_table({"a": {"conv": weight}}).set_index("way")
    row = table.loc[Way("table", "binary")]
    fewest = min(operations(weight, "table", group=group).total for group in range(1, 11))
    assert row["reduction"] == 2 * weight.codes.size / fewest
    assert row["reduction"] == pytest.approx(2 * weight.codes.size / (row["adds"] + row["multiplies"]))
    graph = table.loc[Way("dataflow", "binary", "rewritten")]
    expected = operations(weight, "dataflow", group=int(graph["group"]), encoding="rewritten")
    assert (graph["adds"], graph["multiplies"]) == expected


@pytest.mark.parametrize(
    ("weight", "left_out"),
    [
        (layer("binary", 8), {("table", "two_group", False), ("dataflow", "two_group", False)}),
        (layer("signed_binary", 8, 0.4), {("table", "rewritten", True), SIGNED, ("dataflow", "rewritten", True)}),
        (layer("ternary_twn", 8, 0.6), {("table", "rewritten", True), ("dataflow", "rewritten", True)}),
        (random_codes("zero_one", (65, 65, 1, 1), 0.4, np.random.default_rng(0)), {"dataflow", "rewritten", "signed"}),
        (random_codes("binary", (8, 16, 3, 3), 1.0, np.random.default_rng(0)), {"dataflow", False}),
    ],
)
def test_a_form_that_does_not_apply_is_left_out(weight, left_out):
    expected = {form for form in codes.FORMS if form not in left_out and not left_out & set(form)}
    assert {form for form in codes.FORMS if codes.applies(form, weight)} == expected


def test_two_scales_have_no_pattern_of_both_signs():
    two_scales = replace(layer("ternary_ttq", 8, 0.6), scale=np.full(8, 2.0), negative_scale=np.ones(8))
    assert not codes.applies(SIGNED, two_scales) and codes.applies(TABLE, two_scales)


def test_the_papers_value_stands_where_it_has_one():
    weights = {"a": {"small": layer("binary", 16), "large": layer("binary", 64)}}
    table = codes.operations_table(weights, [TABLE, SIGNED])
    assert table.set_index(["K", "encoding"])["paper"].dropna().to_dict() == {(64, "two_group"): 5.3}
    assert math.isnan(codes.paper_reduction("binary", 64, Form("sparse")))


# The toy example


def value_of(name, graph):
    """What a name of a data-flow graph adds up to: the coefficient of each input."""
    row = graph.loc[name]
    if row["kind"] == "input":
        return np.array([name == other for other in graph.index[graph["kind"] == "input"]], int)
    return sum((1 if part[0] == "+" else -1) * value_of(part[1:], graph) for part in row["parts"].split())


def test_toy_graphs_compute_their_filters():
    table = toy.graphs_table()
    for scheme, filters in toy.FILTERS.items():
        graph = table[table["scheme"] == scheme].set_index("name")
        assert [value_of(f"y{number}", graph).tolist() for number in (1, 2)] == [list(row) for row in filters]


def test_the_papers_graph_takes_three_additions():
    table = toy.graphs_table()
    ours = table[table["scheme"] == "signed_binary"]
    assert ours.loc[ours["kind"] != "input", "parts"].tolist() == ["+a +c", "+e +ac", "-b -ac"]
    adds = table.groupby("scheme")["adds"].first()
    assert adds.to_dict() == {"binary": 7, "ternary_twn": 6, "signed_binary": 3}


def test_an_example_exists_where_some_pair_of_filters_has_its_additions():
    binary = itertools.product((1, -1), repeat=2)
    adds = {toy.graphs_table({"binary": pair})["adds"].iloc[0] for pair in itertools.product(binary, repeat=2)}
    assert {wanted for wanted in range(6) if toy.exists({"binary": wanted}, inputs=2)} == adds
