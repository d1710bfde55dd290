"""04_ablate: which groups are changes of the design, and what they cost."""

import math

import pandas as pd
import pytest
from drawing import check, labels
from example_runs import REFERENCE, frame

from sbkit.designs import DESIGNS, QUANTIZER_OPTIONS
from sbkit.evidence import benchmarks, runs
from sbkit.evidence.stats import interval
from sbkit.figures import ablate
from sbkit.way import Way

BINARY = {"quantizer": "binary"}
MASKS = DESIGNS["masks_16_of_8"].options


@pytest.fixture(scope="module")
def review():
    return runs.read(REFERENCE / "review")


def test_every_option_of_a_quantizer_belongs_to_one_question():
    asked = [option for options in ablate.QUESTIONS.values() for option in options]
    assert len(asked) == len(set(asked)) and {*QUANTIZER_OPTIONS} - {"quantizer"} <= {*asked}


def test_changes_of_the_design_are_found_by_their_options():
    rows = [(f"run{seed}", 80.0, {"seed": seed}) for seed in (0, 1)]
    rows += [(f"x{seed}", 82.0 + seed, {"seed": seed, "delta_factor": 0.2}) for seed in (0, 1)]
    rows += [
        ("y", 79.0, {"delta_factor": 0.5, "threshold": "mean"}),
        ("learned", 85.0, DESIGNS["learned_signs"].options),
    ]
    rows += [("mlp", 70.0, {"model": "mlp"}), ("rate", 81.0, {"learning_rate": 0.1}), ("b", 84.0, BINARY)]
    rows += [("lonely", 60.0, {"scale": "mean", "seed": 7})]
    table = ablate.ablation_table(runs.grouped(frame(*rows)))
    assert table["change"].tolist() == [
        "delta_factor = 0.2",
        "delta_factor = 0.5, threshold = mean",
        "learned fine signs",
    ]
    assert table["question"].str.split(" ").str[0].tolist() == ["threshold", "threshold", "regions"]
    assert table["difference_mean_points"].tolist() == [2.5, -1, 5] and table["n"].tolist() == [2, 1, 1]
    assert table["difference_half_width_points"][0] == pytest.approx(interval([2, 3])[1])
    assert table["over_binary"].tolist() == ["-2.00 (n=1)", "-5.00 (n=1)", "1.00 (n=1)"]


def test_nothing_is_ablated_without_the_design_or_a_change_of_it():
    assert ablate.ablation_table(runs.grouped(frame(("a", 1.0, BINARY)))).empty
    assert ablate.ablation_table(runs.grouped(frame(("a", 1.0, {}), ("b", 1.0, BINARY)))).empty


def test_the_figure_heads_its_questions_and_stays_readable(review):
    table = ablate.ablation_table(review)
    assert len(table) > 40
    figure = ablate.fig_ablation(table)
    assert len(figure.axes[0].get_yticklabels()) == len(table) + table["question"].nunique()
    check(figure)


def timings():
    """A benchmark of codebooks: two layers, two rounds, binary in two ways."""
    ways = {
        Way("table", "binary"): 4.0,
        Way("table", "binary", encoding="rewritten"): 2.0,
        Way("table", "signed_binary", regions=8, codebook_bits=4): 1.0,
    }
    rows = [
        {"way": way.options(), "layer": layer, "round_ms": [ms, 2 * ms], "name": "bench", "study": "codebooks"}
        | {"threads": 1, "provenance_started_utc": "2024", "provenance_cpu": "x", "provenance_isa": "avx2"}
        for way, ms in ways.items()
        for layer in ("first", "second")
    ]
    return benchmarks.timed(pd.DataFrame(rows))


def test_codebooks_stand_beside_their_bits_and_time():
    signs = BINARY | {"region_channels": 8, "region_taps": 1, "codebook_bits": 4}
    rows = [("a", 90.0, BINARY), ("b", 88.0, {}), ("c", 89.0, MASKS), ("d", 87.0, signs | {"codebook": "random"})]
    rows += [("e", 86.0, signs | {"codebook": "learned"}), ("f", 85.0, MASKS | {"codebook": "random"})]
    rows += [("other recipe", 1.0, MASKS | {"epochs": 9})]
    table = ablate.codebook_table(runs.grouped(frame(*rows)), timings()).set_index("label")
    assert set(table["masks"]) == {"any mask", "16 random of ±1", "16 learned of ±1", "16 masks", "16 random"}
    row = table.loc["16 masks of 8"]
    assert (row["channels"], row["difference_mean_points"], row["n"]) == (8, -1, 1)
    assert row["time"] == pytest.approx(0.5), "binary's best way counts 1"
    assert row["ran"] == "table, signed binary, 16 patterns, regions of 8 channels"
    assert math.isnan(table.loc["16 masks of 8, codebook = random", "time"]), "the benchmark has the sparsest masks"


def test_codebooks_need_one_and_binary():
    assert ablate.codebook_table(runs.grouped(frame(("a", 90.0, BINARY), ("b", 88.0, {}))), timings()).empty
    assert ablate.codebook_table(runs.grouped(frame(("a", 90.0, MASKS))), timings()).empty


def test_codebooks_are_drawn_against_bits_and_latency(review):
    bench = benchmarks.read(REFERENCE / "review")
    table = ablate.codebook_table(review, bench)
    figure = ablate.fig_codebooks(table)
    assert [axis.get_xlabel() for axis in figure.axes] == ["stored bits a weight", "latency, binary = 1"]
    assert [len(labels(axis)) for axis in figure.axes] == [len(table), table["time"].notna().sum()]
    check(figure)
    untimed = ablate.codebook_table(review, bench.head(0))
    check(ablate.fig_codebooks(untimed))
