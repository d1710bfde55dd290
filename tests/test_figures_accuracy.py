"""03_accuracy: means and pairs whose numbers fit in the head, and figures of the committed records."""

import numpy as np
import pandas as pd
import pytest
from drawing import check, labels
from example_runs import REFERENCE, frame

from sbkit.evidence import runs
from sbkit.evidence.stats import MissingRecord, interval
from sbkit.figures import accuracy

BINARY = {"quantizer": "binary"}
NARROW = BINARY | {"width": 8}


@pytest.fixture(scope="module", params=["quick", "cifar"])
def train(request):
    return runs.compared(runs.read(REFERENCE / request.param))


@pytest.fixture(scope="module")
def few():
    """Signed binary as accurate as narrow binary, which has half its parameters and all of its effectual weights."""
    small = {"total_parameters": 110, "effectual_weights": 50.0}
    sparse = {"effectual_weights": 50.0, "density": 0.5}
    rows = [("x", 80.0, {}), ("y", 84.0, {"seed": 1}), ("z", 90.0, {"seed": 2})]
    made = frame(*rows).assign(**sparse)
    binary = frame(("b", 85.0, BINARY), ("c", 87.0, BINARY | {"seed": 1}))
    narrow = frame(("n", 81.0, NARROW), ("o", 83.0, NARROW | {"seed": 1})).assign(**small)
    return runs.grouped(pd.concat([made, binary, narrow], ignore_index=True))


def test_a_row_has_the_group_s_mean_interval_and_size(few):
    table = accuracy.accuracy_table(few).set_index("label")
    assert table.index.tolist() == ["binary", "binary, width = 8", "signed binary"]
    row = table.loc["signed binary"]
    mean, half_width = interval([80, 84, 90])
    assert (row["n"], row["top1_mean_percent"], row["top1_half_width_percent"]) == (3, mean, half_width)
    assert row["top1"] == f"84.67 ± {half_width:.2f} (n=3)"
    assert (row["top1_min_percent"], row["top1_max_percent"], row["density"]) == (80, 90, 0.5)
    assert (row["effectual_weights"], row["total_parameters"]) == (50, 200)
    assert table["front"].tolist() == [True, False, True]


def test_the_front_keeps_the_unbeaten():
    front = accuracy.pareto_front([1, 2, 3, 3, 1], [10, 9, 12, 11, 10])
    assert front.tolist() == [True, False, True, False, True], "equal points both stay"


def test_pairs_to_binary_use_the_common_seeds(few):
    table = accuracy.paired_table(few).set_index("label")
    assert table.index.tolist() == ["binary, width = 8", "signed binary"]
    row = table.loc["signed binary"]
    assert (row["n"], row["difference_mean_points"]) == (2, -4)  # 80 - 85 and 84 - 87
    assert row["difference_half_width_points"] == pytest.approx(interval([-5, -3])[1])
    assert (row["effectual_ratio"], row["total_ratio"], row["differs"]) == (0.5, 1, "quantizer")
    with pytest.raises(MissingRecord, match="a training run of the design binary"):
        accuracy.paired_table(few[few["quantizer"] != "binary"])


def test_signed_binary_stands_beside_the_binary_of_each_equal_size(few):
    table = accuracy.sizes_table(few).set_index("size")
    assert table["rival"].to_dict() == {"total": "binary", "effectual": "binary, width = 8"}
    assert table["ratio"].tolist() == [1, 1] and table["difference_mean_points"].tolist() == [-4, 0]
    assert accuracy.sizes_table(few[few["quantizer"] == "binary"]).empty


def test_a_design_of_half_a_bit_stands_beside_the_binary_of_as_many_bits(few):
    signed = few["quantizer"] == "signed_binary"
    bits = np.where(signed, 0.5, 1.0)
    weights = np.where(few["width"] == 8, 45, 100)
    table = accuracy.sizes_table(few.assign(weight_bits=bits, quantized_weights=weights)).set_index("size")
    row = table.loc["bits"]
    assert (row["rival"], row["n"], row["difference_mean_points"]) == ("binary, width = 8", 2, 0)
    assert row["ratio"] == pytest.approx(50 / 45)


def test_bits_of_activations_stand_beside_floats():
    bits = {"activation_bits": 4}
    made = frame(("a", 80.0, {}), ("b", 84.0, {"seed": 1}), ("c", 79.0, bits), ("d", 84.0, bits | {"seed": 1}))
    alone = frame(("e", 70.0, BINARY | bits), ("f", 81.0, bits | {"outer_layers": "integers"}))
    table = accuracy.bits_table(runs.grouped(pd.concat([made, alone], ignore_index=True))).set_index("label")
    assert table["bits"].tolist() == [4] * 3 and table["n"].tolist() == [0, 2, 1]
    assert table.loc[[label for label in table.index if "outer" in label], "difference_mean_points"].tolist() == [1]
    lone, paired = (table.iloc[place] for place in (0, 1))
    assert (lone["top1"], lone["floats"], lone["difference"]) == ("70.00 (n=1)", "-", "-")
    assert paired["difference_mean_points"] == -0.5 and paired["floats"].startswith("82.00 ± ")
    assert accuracy.bits_table(runs.grouped(frame(("a", 80.0, {})))).empty


def test_runs_made_by_hand_appear_whatever_their_names():
    mine = runs.grouped(frame(("my run 7", 80.0, {"epochs": 1}), ("ablate_x-s3", 81.0, BINARY | {"epochs": 1})))
    table = accuracy.accuracy_table(runs.compared(mine, everything=True))
    assert table["label"].tolist() == ["binary", "signed binary"] and table["n"].tolist() == [1, 1]
    assert accuracy.paired_table(mine)["difference"].tolist() == ["-1.00 (n=1)"]
    check(accuracy.fig_accuracy(accuracy.seed_table(mine)))
    check(accuracy.fig_pareto(table))


def test_accuracy_draws_every_seed(train):
    table = accuracy.seed_table(train)
    figure = accuracy.fig_accuracy(table)
    (axis,) = figure.axes
    points = np.concatenate([collection.get_offsets()[:, 0] for collection in axis.collections])
    np.testing.assert_allclose(np.sort(points), np.sort(table["top1_percent"]))
    assert axis.get_yticklabels()[0].get_text() == "full precision (n=3)"
    check(figure)


def test_the_front_is_a_line_and_every_point_has_its_name(train):
    table = accuracy.accuracy_table(train)
    figure = accuracy.fig_pareto(table)
    (axis,) = figure.axes
    front = table[table["front"]].sort_values("effectual_weights")
    lines = [line for line in axis.lines if line.get_color() == "0.6"]
    np.testing.assert_allclose(lines[0].get_xydata(), front[["effectual_weights", "top1_mean_percent"]])
    assert len(labels(axis)) == len(table)
    check(figure)
