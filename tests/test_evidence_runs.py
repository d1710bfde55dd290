"""Runs are grouped by configuration, whatever their files are called."""

import math

import pytest
from example_runs import REFERENCE, frame

from sbkit.designs import DESIGNS
from sbkit.evidence import runs
from sbkit.evidence.stats import MissingRecord, interval

BINARY = {"quantizer": "binary"}
LEARNED = DESIGNS["learned_signs"].options


@pytest.fixture(scope="module")
def review():
    return runs.read(REFERENCE / "review")


def by_hand():
    """Four runs as a person may call them."""
    return runs.grouped(
        frame(
            ("tuesday", 80.0, {}),
            ("try2", 82.0, {"seed": 1}),
            ("the-baseline", 85.0, BINARY),
            ("ablate_binary", 88.0, BINARY | {"seed": 1}),
        )
    )


def test_groups_are_configurations_without_the_seed():
    found = by_hand()
    assert found.groupby("group")["name"].apply(set).tolist() == [
        {"the-baseline", "ablate_binary"},
        {"tuesday", "try2"},
    ]
    assert found["label"].tolist() == ["binary", "binary", "signed binary", "signed binary"], "in the order of designs"
    assert found["seed"].tolist() == [0, 1, 0, 1] and found["main"].all()


def test_one_configuration_with_one_seed_twice_is_refused():
    with pytest.raises(ValueError, match=r"runs mine, yours have one configuration and one seed; keep one of them"):
        runs.grouped(frame(("mine", 80.0, BINARY), ("yours", 81.0, BINARY)))


def test_labels_are_unique_and_name_what_differs(review):
    assert review.groupby("label")["group"].nunique().max() == review.groupby("group")["label"].nunique().max() == 1
    labels = review.set_index("name")["label"]
    assert labels["learned_signs-s0"] == "learned fine signs"
    assert labels["delta_0.2-s0"] == "signed binary, delta_factor = 0.2"
    assert labels["mlp_binary-s0"] == "binary, model = mlp, width = 0"
    assert labels["learned_all_taps-s0"] == "learned fine signs, region_taps = default"


def test_the_main_recipe_is_what_most_configurations_share():
    longer = BINARY | {"epochs": 9}
    found = runs.grouped(
        frame(("a", 1.0, {}), ("b", 1.0, BINARY), ("c", 1.0, longer), ("d", 1.0, longer | {"seed": 1}))
    )
    assert dict(zip(found["name"], found["main"], strict=True)) == {"b": True, "c": False, "d": False, "a": True}
    assert found.set_index("name")["label"]["c"] == "binary, epochs = 9", "seeds do not count as configurations"


def test_of_recipes_as_many_share_the_main_one_is_nearest_to_the_defaults():
    bits = BINARY | {"activation_bits": 3}
    found = runs.grouped(frame(("a", 1.0, bits), ("b", 1.0, BINARY)))
    assert dict(zip(found["name"], found["label"], strict=True)) == {"b": "binary", "a": "binary, activation_bits = 3"}


def test_no_runs_have_no_groups():
    empty = runs.grouped(frame())
    assert {"group", "label", "design", "main"} <= set(empty.columns)
    assert runs.compared(empty).empty and runs.plain(empty).empty and runs.groups(empty) == {}


def test_find_takes_a_design_with_changes(review):
    assert set(runs.find(review, "binary")["name"]) == {"binary-s0", "binary-s1", "binary-s2"}
    assert set(runs.find(review, "signed_binary", delta_factor=0.2)["seed"]) == {0, 1, 2}
    assert runs.find(review, "learned_signs", delta_factor=2.0)["name"].iloc[0] == "learned_delta_2.0-s0"
    with pytest.raises(MissingRecord, match=r"a training run of the design binary, width = 99"):
        runs.find(review, "binary", width=99)
    with pytest.raises(ValueError, match=r"design = 'xnor'; allowed: full_precision, binary"):
        runs.find(review, "xnor")


def test_changed_options_compare_configurations_but_not_seeds():
    assert runs.changed_options(BINARY | {"seed": 3}, {"epochs": 9}) == ["epochs", "quantizer"]
    assert runs.setting({"epochs": 9}, {"clamp": 1.0}) == "clamp = default, epochs = 9"


def test_designs_are_compared_at_any_width_and_without_what_changes_them(review):
    shown = set(runs.compared(review)["label"])
    assert {"binary", "binary, width = 9", "signed binary", "learned fine signs", "full precision"} <= shown
    assert not any("delta_factor" in label or "model" in label for label in shown)
    everything = runs.compared(review, everything=True)
    assert len(everything) == len(review), "a profile of runs made by hand shows them all"
    odd = runs.grouped(frame(("a", 1.0, {"delta_factor": 0.5}), ("b", 2.0, {"delta_factor": 0.6})))
    assert len(runs.compared(odd)) == 2, "so does one without any named design"


def test_full_precision_counts_under_any_recipe_with_as_many_seeds():
    full = {"quantizer": "full_precision"}
    rows = [
        ("a", 1.0, BINARY),
        ("b", 1.0, {}),
        ("full", 1.0, full | {"epochs": 9}),
        ("mlp", 1.0, full | {"model": "mlp"}),
    ]
    assert set(runs.compared(runs.grouped(frame(*rows)))["name"]) == {"a", "b", "full"}
    rows += [("a1", 1.0, BINARY | {"seed": 1})]
    assert "full" not in set(runs.compared(runs.grouped(frame(*rows)))["name"]), "a search has fewer seeds"


def test_plain_schemes_bear_the_name_of_their_quantizer(review):
    plain = runs.plain(review)
    assert set(plain["label"]) == {
        "full precision", "binary", "ternary (TWN)", "ternary (TTQ)", "{0,1}", "signed binary",
    }  # fmt: skip
    learned = runs.grouped(frame(("a", 1.0, LEARNED)))
    assert len(runs.plain(learned)) == 1, "a profile without them shows all it has"


def test_pairs_have_one_seed():
    found = by_hand()
    ours, theirs = (found[found["label"] == label] for label in ("signed binary", "binary"))
    difference = runs.paired(ours, theirs)
    assert difference[:3] == (-5.5, pytest.approx(interval([-5.0, -6.0])[1]), 2)
    assert set(difference.names) == {"tuesday", "try2", "the-baseline", "ablate_binary"}
    one = runs.paired(ours[ours["seed"] == 1], theirs)
    assert one.value == -6 and one.n == 1 and math.isnan(one.half_width)
    assert set(one.names) == {"try2", "ablate_binary"}, "a run without a partner is no evidence"
    with pytest.raises(MissingRecord, match="a seed that signed binary and binary share"):
        runs.paired(ours[ours["seed"] == 1], theirs[theirs["seed"] == 0])


def test_history_gives_a_row_per_item(review):
    few = review[review["name"].isin(["binary-s0", "signed_binary-s2"])]
    table = runs.from_history(few, lambda history: ({"epoch": epoch["epoch"]} for epoch in history["epochs"]))
    assert table.columns.tolist() == ["label", "quantizer", "seed", "epoch"]
    assert table.groupby(["label", "seed"])["epoch"].max().to_dict() == {("binary", 0): 4, ("signed binary", 2): 4}
