"""Verdicts: each rule on values made for it, and claims.toml judged whole."""

import itertools
import math
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from recorded import LAYERS, bench_record, timing, train_record, write_bench

from sbkit import analysis, claims, notebook, records
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


@pytest.fixture(scope="module")
def listed():
    return claims.load_claims(CLAIMS)


@pytest.fixture(scope="module")
def table(listed, train, bench, evidence):
    return claims.claims_table(listed, train, bench, evidence.weights).set_index("id")


def test_every_claim_and_inconsistency_is_listed(listed):
    numbers = {claim["id"].partition("-")[0] for claim in listed}
    assert numbers == {f"C{number}" for number in range(1, 23)} | {f"I{number}" for number in range(1, 12)}
    assert all((CLAIMS.parent / f"{claim['notebook']}.ipynb").is_file() for claim in listed)


def test_claims_toml_is_judged_whole(listed, table):
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
    assert table.loc["C1-network", "value"] == pytest.approx(14 / 12.5)
    assert table.loc["C2-network", "value"] == pytest.approx(17.5 / 12.5)
    assert table.loc["C6", "value"] == pytest.approx(1 / 1.26) and table.loc["C6-dataflow", "value"] == pytest.approx(
        0.5
    )
    assert table.loc["C7-signed_binary-table", "value"] == pytest.approx(1.26)
    assert table.loc["C7-ternary-zeros_kept", "value"] == pytest.approx(1.6 / 1.9)
    assert table.loc["C7-ternary-table", "value"] == pytest.approx(0.7)
    assert table.loc["I10-operations", "value"] == pytest.approx(11.5 / 12.0), "{0,1} over signed binary"
    assert table.loc["I10-speed", "value"] == pytest.approx(1) and table.loc["I10-speed", "verdict"] == "not reproduced"


def test_what_needs_no_record_is_reckoned_exactly(table):
    exact = table.loc[["C16", *[f"C17-{what}" for what in ("patterns-binary", "patterns-ternary", "uniform-binary")]]]
    assert exact["ours"].tolist() == ["1 (exact)", "512 (exact)", "19683 (exact)", "128 (exact)"]
    assert set(exact["verdict"]) == {"reproduced"}, "it has no scale"
    contradictions = {
        "I1": 1 / 0.78, "I2": 1.32 / 0.54, "I3": 66.2 - 61.94, "I4": 1023, "I5": 65536 / 19683, "I6": 3, "I7": 2,
        "I8": 0, "I11": 61.94 - 55.23,
    }  # fmt: skip
    assert table.loc[list(contradictions), "value"].to_dict() == pytest.approx(contradictions)
    assert set(table.loc[list(contradictions), "verdict"]) == {"contradicted"}
    assert table.loc["C17-uniform-signed_binary", "value"] == pytest.approx(65536 / 1023)
    assert table.loc["I9", "value"] == pytest.approx(1 / 0.35) and table.loc["I9", "verdict"] == "reproduced"
    assert not table.loc[["C16", "I1", "I9"], "note"].str.contains("records:").any()


def test_the_papers_numbers_are_compared_with_each_other(listed):
    """A number of the paper's that stands in several claims is the same in all."""
    paper = {claim["id"]: claim["paper"] for claim in listed}
    for same, other in (("I1", "C1"), ("I2", "C2"), ("I9", "C4"), ("C1-network", "C1"), ("C19-throughput", "C4")):
        assert paper[same] == paper.get(other, paper[same]), (same, other)
    assert paper["C12"] == pytest.approx(paper["C12-signed_binary"] - paper["C12-zero_one"])
    assert paper["I10-operations"] == pytest.approx(paper["C10-zero_one"] / paper["C10-signed_binary"], abs=5e-4)
    assert paper["I10-speed"] == pytest.approx(paper["C11-zero_one"] / paper["C11-signed_binary"], abs=5e-4)


def test_what_small_records_cannot_measure_names_its_command(listed, table):
    far = table[table["verdict"] == "out of reach here"]
    assert {"C12-signed_binary", "C12-zero_one", "C13", "C18", "C22"} <= set(far.index)
    assert (far["ours"] == "-").all() and far["note"].str.contains("; what would measure it: ").all()
    assert table.loc["C13", "note"].startswith("missing: a training run of signed_binary, resnet18 on image_folder; ")
    assert "PROFILE=imagenet" in table.loc["C13", "note"] and "claim of priority" in table.loc["C18", "note"]
    commands = {claim["id"]: claim["command"] for claim in listed if "command" in claim}
    profiles = notebook.load_experiments(CLAIMS.parents[1])
    assert all(re.search(r"PROFILE=(\w+)|none", command) for command in commands.values())
    assert set(re.findall(r"PROFILE=(\w+)", " ".join(commands.values()))) <= set(profiles)


def test_records_of_the_papers_scale_judge_what_small_ones_cannot(tmp_path, listed):
    for seed, top1 in enumerate((66.0, 66.3, 66.1)):
        train_record(tmp_path, "signed_binary", seed, top1, dataset="image_folder:data/imagenet", model="resnet18")
    train = records.read(tmp_path, "train")
    chosen = [claim for claim in listed if claim["id"] in ("C12-signed_binary", "C12-zero_one", "C13")]
    table = claims.claims_table(chosen, train, pd.DataFrame(), {}, paper_scale=True).set_index("id")
    assert table["verdict"].to_dict() == {
        "C12-signed_binary": "contradicted", "C12-zero_one": "out of reach here", "C13": "reproduced",
    }  # fmt: skip
    assert table.loc["C13", "value"] == pytest.approx(66.1333, abs=1e-3)
    assert "what would measure it" not in table.loc["C13", "note"]


def test_claims_without_records_are_shown_as_missing(listed):
    table = claims.claims_table(listed, pd.DataFrame(), pd.DataFrame(), {})
    missing = table[table["n"] == 0]
    assert set(missing["verdict"]) == {"missing record", "out of reach here"} and (missing["ours"] == "-").all()
    lacking = missing[missing["verdict"] == "missing record"]
    assert lacking["note"].str.startswith("missing: a ").all() and len(lacking) > 30
    assert (table.loc[table["n"] > 0, "half_width"] == 0).all()


def test_a_single_seed_decides_nothing(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 84.0)
    train_record(tmp_path, "binary", 0, 84.0)
    listed = [claim for claim in claims.load_claims(CLAIMS) if claim["id"] == "C15"]
    row = claims.claims_table(listed, records.read(tmp_path, "train"), pd.DataFrame(), {}).iloc[0]
    assert (row["verdict"], row["ours"]) == ("missing record", "0.00 (n=1)")
    assert row["note"].startswith("missing: a second seed")


def test_a_claim_without_a_measure_is_out_of_reach(train, bench):
    claim = claims.load_claims(CLAIMS)[0] | {"measure": "", "how": "no way", "command": "make it"}
    row = claims.claims_table([claim], train, bench, {}).iloc[0]
    assert (row["verdict"], row["ours"]) == ("out of reach here", "-")
    assert row["note"] == "no way; what would measure it: make it"


def test_headline_is_a_part_of_the_table(listed, table):
    headline = claims.headline_table(listed, table.reset_index())
    assert 10 < len(headline) < len(table) / 2
    assert headline["verdict"].tolist() == table.loc[headline["id"], "verdict"].tolist()


def test_inventory_says_where_each_item_is_answered(table):
    items = claims.load_inventory(CLAIMS)
    catalogue = notebook.load_catalogue(CLAIMS.parents[1])
    inventory = claims.inventory_table(items, table.reset_index(), catalogue).set_index("item")
    assert {f"Fig. {number}" for number in range(1, 12)} | {f"Table {n}" for n in range(1, 8)} <= set(inventory.index)
    named = {name for entry in catalogue.values() for name in entry["paper"].split(", ") if name}
    assert named <= set(inventory.index), "the catalogue answers what the paper does not have"
    assert ((inventory["here"] != "-") | (inventory["note"] != "")).all()
    assert inventory.loc["Fig. 6", "here"] == "figures/dataflow_graph, tables/toy_adds"
    assert inventory.loc["Fig. 6", "notebook"] == "06_repetition"
    assert inventory.loc["Fig. 6", "verdict"] == "1 reproduced, 1 contradicted"
    assert inventory.loc["Table 6", ["here", "verdict"]].tolist() == ["-", "no number to check"]


def test_inventory_refuses_claims_that_do_not_exist(table):
    item = {"item": "Fig. 12", "content": "", "setting": "", "claims": ["C1", "C99"], "note": ""}
    with pytest.raises(ValueError, match=r"item Fig\. 12: claims name C99"):
        claims.inventory_table([item], table.reset_index(), {})
    with_suffixes = claims.inventory_table([item | {"claims": ["C1"]}], table.reset_index(), {})["verdict"].iloc[0]
    of_c1 = [name for name in table.index if name == "C1" or name.startswith("C1-")]
    assert sum(map(int, re.findall(r"\d+", with_suffixes))) == len(of_c1), "C1 does not stand for C10"


def test_sparsity_counts_at_comparable_accuracy_alone(tmp_path):
    for seed in range(3):
        train_record(tmp_path, "binary", seed, 87.0 + seed)
        train_record(tmp_path, "signed_binary", seed, 83.0 + seed)
        train_record(tmp_path, "ablate_delta_0.2", seed, 86.5 + seed, quantizer="signed_binary", delta_factor=0.2)
        train_record(tmp_path, "ablate_longer", seed, 90.0 + seed, quantizer="signed_binary", epochs=90)

    def sparsity(over, points):
        runs = analysis.group_runs(records.read(tmp_path, "train"))
        return claims.comparable_sparsity(Evidence(runs, pd.DataFrame(), {}), over, points)

    found = sparsity("binary", 1.0)
    assert (found.value, found.n, found.remark) == (pytest.approx(0.65), 3, "that of ablate_delta_0.2")
    none = sparsity("binary", 0.1)
    assert (none.value, none.half_width) == (0, 0) and "ablate_delta_0.2, is 0.50 points below binary" in none.remark
    path = tmp_path / "records" / "train"
    for seed in (1, 2):
        for file in path.glob(f"*-s{seed}.json"):
            file.unlink()
    assert math.isnan(sparsity("binary", 1.0).half_width) and math.isnan(sparsity("binary", 0.1).half_width)
    with pytest.raises(MissingRecord, match="a training run of zero_one"):
        sparsity("zero_one", 1.0)


def test_toy_search_tries_every_pair_of_filters():
    """Over two inputs by brute force, in the order of the inputs and by the graphs that are drawn."""
    latent, inputs = [(1, 1), (1, 0), (-1, 0), (-1, -1)], 2
    counts = Counter()
    for weights in itertools.product(latent, repeat=2 * inputs):
        first, second = weights[:inputs], weights[inputs:]
        filters = {
            "binary": [tuple(sign for sign, _ in row) for row in (first, second)],
            "ternary_twn": [tuple(kept for _, kept in row) for row in (first, second)],
            "signed_binary": [tuple(max(k, 0) for _, k in first), tuple(min(k, 0) for _, k in second)],
        }
        adds = analysis.graphs_table(filters).groupby("scheme")["adds"].first()
        counts[tuple(adds[["binary", "ternary_twn", "signed_binary"]])] += 1
    assert len(counts) > 5
    for adds, count in counts.items():
        measured = claims.toy_exists(None, *adds, inputs=inputs)
        assert (measured.value, measured.remark) == (1, f"{count} of 256 pairs of latent filters")
    assert claims.toy_exists(None, 9, 1, 1, inputs=inputs).value == 0


def test_toy_search_among_the_printed_filters():
    adds = {scheme: claims.toy_adds(None, scheme).value for scheme in analysis.TOY_FILTERS}
    drawn = claims.toy_exists(None, **adds, printed=True)
    assert drawn.value == 1 and drawn.remark.endswith(" of 729 pairs of latent filters"), "those drawn are among them"


def test_different_recipes_do_not_compare(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 84.0)
    train_record(tmp_path, "binary", 0, 84.0, epochs=90)
    runs = analysis.group_runs(records.read(tmp_path, "train"))
    with pytest.raises(ValueError, match="signed_binary and binary do not compare: their recipes differ in epochs"):
        claims.top1_gap(Evidence(runs, pd.DataFrame(), {}), "signed_binary", "binary")


def test_equal_effectual_weights_need_a_model_of_that_size(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 84.0)
    train_record(tmp_path, "binary", 0, 84.0)
    runs = analysis.group_runs(records.read(tmp_path, "train"))
    with pytest.raises(MissingRecord, match="a binary run with about 26,250 effectual weights"):
        claims.top1_gap_equal_effectual(Evidence(runs, pd.DataFrame(), {}), "signed_binary", "binary")


def test_speed_claims_rest_on_the_main_benchmark_alone(tmp_path):
    bench_record(tmp_path, "sweep")
    bench_record(tmp_path, "layers", shapes="tiny")
    evidence = Evidence(pd.DataFrame({"label": []}), records.read(tmp_path, "bench"), {})
    with pytest.raises(MissingRecord, match='a benchmark named "layers" of resnet18 shapes with table signed_binary'):
        claims.bench_speedup(evidence, "table signed_binary", "table binary")


def test_what_a_benchmark_did_not_measure_is_missing(tmp_path):
    timings = [
        timing(layer, "table", scheme, ms * factor)
        for layer, ms in LAYERS
        for scheme, factor in (("signed_binary", 0.5), ("binary", 0.63))
    ]
    write_bench(tmp_path, "layers", timings)
    evidence = Evidence(pd.DataFrame({"label": []}), records.read(tmp_path, "bench"), {})
    assert claims.bench_speedup(evidence, "table signed_binary", "table binary").value == pytest.approx(1.26)
    with pytest.raises(MissingRecord, match=r"with table binary, signed$"):
        claims.bench_speedup(evidence, "table signed_binary", "table binary, signed")
    with pytest.raises(MissingRecord, match=r"with dataflow signed_binary on a \[3, 3, 512, 512\] layer"):
        claims.bench_reduction(evidence, "signed_binary", 512, "dataflow")
    with pytest.raises(MissingRecord, match='a benchmark named "network" of resnet18 shapes with table signed_binary'):
        claims.bench_speedup(evidence, "table signed_binary", "table binary", benchmark="network")
    ratio = claims.bench_reduction(evidence, "signed_binary", 512, over="binary")
    assert (ratio.value, ratio.names) == (1, ("layers",))
    with pytest.raises(MissingRecord, match="with table zero_one on a"):
        claims.bench_reduction(evidence, "signed_binary", 512, over="zero_one")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('measure = "guess"', "claim X: measure = 'guess'; allowed: top1_gap"),
        ('measure = ""', 'claim X: measure = "" needs command'),
        ("paper = nan", "claim X: paper = nan; allowed: a number, or nan without measure"),
        ('measure = "ratio_of_claims"', "claim X: arguments name Y; allowed: ids of claims"),
        ('tolerance = "sign"', "needs neutral"),
        ('tolerance = "about"', "claim X: tolerance = 'about'; allowed"),
        ("colour = 1", "unknown keys colour"),
        ('text = "missing how"', "claim X in .* lacks how"),
    ],
)
def test_load_claims_names_what_is_wrong(tmp_path, change, message):
    lines = {
        "id": '"X"', "text": '"t"', "paper": "1", "unit": '"u"', "setting": '"s"', "source": '"f"', "how": '"h"',
        "tolerance": "1", "measure": '"top1_gap"', "notebook": '"03_accuracy"', "arguments": '{ denominator = "Y" }',
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
    with pytest.raises(ValueError, match="holds these ids twice: C1"):
        claims.load_claims(path)
    with pytest.raises(ValueError, match=r"holds these items twice: Fig\. 1"):
        claims.load_inventory(path)


def test_load_inventory_names_what_is_wrong(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text('[[item]]\nitem = "Fig. 1"\ncontent = "idea"\n')
    with pytest.raises(ValueError, match=r"item Fig\. 1 in .* lacks claims, note, setting"):
        claims.load_inventory(path)
