"""Verdicts: each rule on values made for it, and claims.toml judged whole."""

import math
from pathlib import Path

import pandas as pd
import pytest
from recorded import bench_record, train_record

from sbkit import analysis, claims, records
from sbkit.claims import Evidence, Measured, MissingRecord

CLAIMS = Path(__file__).parents[1] / "notebooks" / "claims.toml"


EFFECT = {"paper": 1.26, "neutral": 1.0, "tolerance": 0.13}
SIGN = {"paper": 6.71, "neutral": 0.0, "tolerance": "sign"}
BELOW = {"paper": 0.35, "neutral": 1.0, "tolerance": 0.1}
EQUAL = {"paper": 0.0, "tolerance": 1.0}


@pytest.mark.parametrize(
    ("claim", "value", "half_width", "expected"),
    [
        (EFFECT, 1.30, 0.05, "reproduced"),
        (EFFECT, 1.14, 0.05, "reproduced"),
        (EFFECT, 1.12, 0.05, "direction only"),  # beyond tolerance
        (EFFECT, 1.20, 0.25, "not reproduced"),  # the interval holds "no effect"
        (EFFECT, 2.00, 0.05, "direction only"),  # beyond tolerance on the other side
        (EFFECT, 0.90, 0.05, "contradicted"),
        (EFFECT, 0.96, 0.05, "not reproduced"),
        (SIGN, 0.5, 0.4, "reproduced"),
        (SIGN, 0.5, 0.6, "not reproduced"),
        (SIGN, -3.0, 1.0, "contradicted"),
        (BELOW, 0.40, 0.02, "reproduced"),
        (BELOW, 0.60, 0.02, "direction only"),
        (BELOW, 1.20, 0.02, "contradicted"),
        (EQUAL, -0.2, 0.7, "reproduced"),
        (EQUAL, -0.2, 0.9, "not reproduced"),
        (EQUAL, -3.0, 1.9, "contradicted"),
        (EQUAL, -0.2, math.nan, "missing record"),
        (EFFECT, 1.26, math.nan, "missing record"),
    ],
)
def test_verdict(claim, value, half_width, expected):
    measured = Measured(value, half_width, 3, ("a",))
    assert claims.verdict(claim, measured, paper_scale=True) == expected
    smaller = "reproduced at smaller scale" if expected == "reproduced" else expected
    assert claims.verdict(claim, measured, paper_scale=False) == smaller
    assert {expected, smaller} <= set(claims.VERDICTS)


def test_claims_toml_is_judged_whole(train, bench, evidence):
    listed = claims.load_claims(CLAIMS)
    table = claims.claims_table(listed, train, bench, evidence.weights).set_index("id")
    assert list(table.index) == [claim["id"] for claim in listed]
    assert set(table["verdict"]) <= set(claims.VERDICTS)
    assert table.loc["C1", "value"] == pytest.approx(1.26) and table.loc["C1", "n"] == 5
    assert table.loc["C1", "verdict"] == "reproduced at smaller scale"
    assert table.loc["C1-rewritten", "verdict"] == "direction only"
    assert table.loc["C1-signed", "value"] == pytest.approx(0.53 / 0.5)
    assert table.loc["C1-dataflow", "value"] == table.loc["C7-signed_binary", "value"] == pytest.approx(2)
    assert table.loc["C2", "value"] == pytest.approx(1.8) and table.loc["C2-signed", "value"] == pytest.approx(1.4)
    assert table.loc["C7-ternary", "verdict"] == "contradicted"
    assert table.loc["C9", "ours"] == "12.00 (exact)" and table.loc["C9", "note"].endswith("layer 64→64 @56")
    assert table.loc["C2", "note"].endswith("2 of 4 timings noisy") and "noisy" not in table.loc["C1", "note"]
    assert table.loc["C5", "value"] == pytest.approx(0.35)
    assert table.loc["C10-zero_one", "ours"] == "11.50 (exact)"
    assert table.loc["C10-signed_binary-dataflow", "ours"] == "12.00 (exact)"
    assert table.loc["C11-zero_one", "value"] == pytest.approx(2) and table.loc["C11-zero_one", "n"] == 5
    by_graphs = table.loc[["C8-ternary-dataflow", "C8-ternary-zeros_kept"], "value"].tolist()
    assert by_graphs == sorted(by_graphs, reverse=True), "keeping zeros costs additions"
    assert table.loc["C12", "verdict"] == "reproduced at smaller scale"
    assert table.loc["C14", "n"] == 3 and "binary_narrow-s0" in table.loc["C14", "note"]
    assert table.loc["C15", "verdict"] == "contradicted"
    assert table.loc["C17-binary", "value"] < 1 < table.loc["C17-ternary", "value"]


def test_claims_without_records_are_shown_as_missing():
    listed = claims.load_claims(CLAIMS)
    table = claims.claims_table(listed, pd.DataFrame(), pd.DataFrame(), {})
    assert (table["verdict"] == "missing record").all() and (table["ours"] == "-").all()
    assert table["note"].str.startswith("missing: a ").all()


def test_a_single_seed_decides_nothing(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 84.0)
    train_record(tmp_path, "binary", 0, 84.0)
    listed = [claim for claim in claims.load_claims(CLAIMS) if claim["id"] == "C15"]
    row = claims.claims_table(listed, records.read(tmp_path, "train"), pd.DataFrame(), {}).iloc[0]
    assert (row["verdict"], row["ours"]) == ("missing record", "0.00 (n=1)")
    assert row["note"].startswith("missing: a second seed")


def test_a_claim_without_a_measure_is_out_of_reach(train, bench):
    claim = claims.load_claims(CLAIMS)[0] | {"measure": ""}
    row = claims.claims_table([claim], train, bench, {}).iloc[0]
    assert (row["verdict"], row["ours"]) == ("out of reach here", "-")


def test_different_recipes_do_not_compare(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 84.0)
    train_record(tmp_path, "binary", 0, 84.0, epochs=90)
    runs = analysis.group_runs(records.read(tmp_path, "train"))
    with pytest.raises(ValueError, match="signed_binary and binary do not compare: their recipes differ in epochs"):
        analysis.top1_gap(Evidence(runs, pd.DataFrame(), {}), "signed_binary", "binary")


def test_equal_effectual_weights_need_a_model_of_that_size(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 84.0)
    train_record(tmp_path, "binary", 0, 84.0)
    runs = analysis.group_runs(records.read(tmp_path, "train"))
    with pytest.raises(MissingRecord, match="a binary run with about 26,250 effectual weights"):
        analysis.top1_gap_equal_effectual(Evidence(runs, pd.DataFrame(), {}), "signed_binary", "binary")


def test_speed_claims_rest_on_the_main_benchmark_alone(tmp_path):
    bench_record(tmp_path, "sweep")
    bench_record(tmp_path, "layers", shapes="tiny")
    evidence = Evidence(pd.DataFrame({"label": []}), records.read(tmp_path, "bench"), {})
    with pytest.raises(MissingRecord, match='a benchmark named "layers" of resnet18 shapes with table signed_binary'):
        analysis.bench_speedup(evidence, "table signed_binary", "table binary")


def test_what_a_benchmark_did_not_measure_is_missing(old):
    evidence = Evidence(pd.DataFrame({"label": []}), old, {})
    assert analysis.bench_speedup(evidence, "table signed_binary", "table binary").value == pytest.approx(1.26)
    with pytest.raises(MissingRecord, match=r"with table binary, signed$"):
        analysis.bench_speedup(evidence, "table signed_binary", "table binary, signed")
    with pytest.raises(MissingRecord, match=r"with dataflow signed_binary on a \[3, 3, 512, 512\] layer"):
        analysis.bench_reduction(evidence, "signed_binary", 512, "dataflow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('measure = "guess"', "claim X: measure = 'guess'; allowed: top1_gap"),
        ('tolerance = "sign"', "needs neutral"),
        ('tolerance = "about"', "claim X: tolerance = 'about'; allowed"),
        ("colour = 1", "unknown keys colour"),
        ('text = "missing how"', "claim X in .* lacks how"),
    ],
)
def test_load_claims_names_what_is_wrong(tmp_path, change, message):
    lines = {
        "id": '"X"', "text": '"t"', "paper": "1", "unit": '"u"', "setting": '"s"', "source": '"f"', "how": '"h"',
        "tolerance": "1", "measure": '"top1_gap"', "notebook": '"03_accuracy"',
    }  # fmt: skip
    key, _, value = change.partition(" = ")
    lines[key] = value
    if "missing how" in value:
        del lines["how"]
    path = tmp_path / "claims.toml"
    path.write_text("[[claim]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))
    with pytest.raises(ValueError, match=message):
        claims.load_claims(path)


def test_load_claims_refuses_an_id_twice(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(CLAIMS.read_text() * 2)
    with pytest.raises(ValueError, match="twice: C1"):
        claims.load_claims(path)
