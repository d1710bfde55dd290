"""Tables from synthetic records, and every verdict a claim can get."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sbkit import analysis, records
from sbkit.analysis import Evidence, Measured, MissingRecord
from sbkit.conv import QuantizedWeight, save_weights
from sbkit.repetition import random_codes, reduction

CLAIMS = Path(__file__).parents[1] / "notebooks" / "claims.toml"
DENSITY = {"binary": 1.0, "full_precision": 1.0, "ternary_twn": 0.58, "signed_binary": 0.35, "zero_one": 0.3}
RECIPE = {"dataset": "fashion_mnist", "model": "resnet8", "width": 16, "epochs": 3}


def curve(quantizer, beta):
    w = np.linspace(-1.5, 1.5, 61)
    if quantizer == "full_precision":
        forward = w
    elif quantizer == "binary":
        forward = np.where(w >= 0, 1.0, -1.0)
    elif quantizer == "ternary_twn":
        forward = np.sign(w) * (np.abs(w) > 0.5)
    else:
        forward = (beta or 1.0) * ((beta or 1.0) * w > 0.1)
    window = (np.abs(w) <= 1).astype(float)
    gradients = {f"gradient_{stage}": (window * g).tolist() for stage, g in (("start", 1), ("middle", 1), ("end", 1))}
    return {"beta": beta, "w": w.tolist(), "forward": forward.tolist(), **gradients}


def train_record(folder, label, seed, top1, *, codes=None, quantizer=None, **config):
    """Write a training record and, if given, the codes of its layers."""
    quantizer = quantizer or label
    signed = quantizer == "signed_binary"
    counts = np.round(500 * np.exp(-(np.linspace(-3, 3, 41) ** 2))).astype(int)
    effectual = counts * (np.abs(np.linspace(-3, 3, 41)) > 1)
    density = DENSITY[quantizer]
    size = 75_000 * config.get("width", 16) ** 2 // 256
    record = records.Record(
        "train",
        f"{label}-{seed}",
        RECIPE | {"quantizer": quantizer, "seed": seed} | config,
        {
            "top1_percent": top1,
            "density": density,
            "effectual_weights": round(size * density),
            "weight_bits": 2 if quantizer.startswith("ternary") else 32 if quantizer == "full_precision" else 1,
            "train_seconds": 10.0 + seed,
        },
        {
            "epochs": [
                {"epoch": e, "top1_percent": top1 - 9 / e**2, "train_loss": 1 / e, "density": density}
                for e in range(1, 7)
            ],
            "layers": [
                {"name": f"layer{i}.conv", "density": min(1.0, density * (1.2 - 0.08 * i))}
                for i in range(0 if quantizer == "full_precision" else 6)
            ],
            "latent": {
                layer: {
                    "edges": np.linspace(-0.4, 0.4, 42).tolist(),
                    "positive": counts.tolist(),
                    "positive_effectual": (effectual * (np.arange(41) > 20 if signed else 1)).tolist(),
                    "negative": (counts * signed).tolist(),
                    "negative_effectual": (effectual * (np.arange(41) < 20) * signed).tolist(),
                }
                for layer in ("layer1.0.conv1", "layer3.0.conv2")
            },
            "response": [curve(quantizer, beta) for beta in ((1.0, -1.0) if signed else (None,))],
        },
        {"status": "ok", "cpu": "test"},
    )
    records.write(record, folder / "records" / "train" / f"{label}-s{seed}.json")
    if codes:
        save_weights(folder / "weights" / f"{label}-s{seed}.npz", codes)


def timing(layer, contender, scheme, ms, **more):
    base = dict(zip(("C", "K"), (int(layer.split("→")[0]), int(layer.split("→")[1].split()[0])), strict=True))
    rounds = [ms * f for f in (0.98, 1.0, 1.01, 1.0, 1.03)]
    return (
        base
        | {"layer": layer, "contender": contender, "variant": scheme, "scheme": "" if contender == "torch" else scheme}
        | {"encoding": "two_group", "skip_zeros": True, "group": 6, "median_ms": ms, "iqr_ms": ms * 0.02}
        | {
            "min_ms": ms * 0.98,
            "round_ms": rounds,
            "gmacs": 1 / ms,
            "reduction": 9.5,
            "best_reduction": 11.5,
            "weight_bytes": 1000,
        }
        | {"flagged": False, "rounds": 5}
        | more
    )


def bench_record(folder, name="layers", cpu="test", **changes):
    timings = []
    for layer, ms in (("64→64 @56", 1.0), ("512→512 @7", 1.5)):
        timings += [
            timing(layer, "torch", "contiguous", ms * (2 if layer.startswith("64") else 1)),
            timing(layer, "torch", "channels_last", ms * 1.2),
            timing(layer, "sparse", "signed_binary", ms * 1.4),
            timing(layer, "table", "signed_binary", ms * 0.5),
            timing(layer, "table", "zero_one", ms * 0.48),
            timing(layer, "table", "binary", ms * 0.63),
            timing(layer, "table", "binary", ms * 0.55, encoding="rewritten"),
            timing(layer, "table", "ternary_twn", ms * 0.9, flagged=True, iqr_ms=ms * 0.2),
            timing(layer, "table", "signed_binary", ms * 0.57, skip_zeros=False),
        ]
    config = {"shapes": "resnet18", "threads": 1, "rounds": 5} | changes
    provenance = {"status": "ok", "cpu": cpu, "isa": "avx2"}
    record = records.Record("bench", name, config, {"timings": timings}, {}, provenance)
    records.write(record, folder / "records" / "bench" / f"{name}.json")


TOP1 = {
    "full_precision": (89.1, 89.4, 89.0),
    "binary": (87.0, 87.4, 86.9),
    "ternary_twn": (88.0, 88.2, 87.8),
    "zero_one": (78.0, 80.1, 79.2),
    "signed_binary": (83.0, 84.1, 83.6),
}


def write_profile(folder):
    """A whole profile of synthetic records: five schemes and a narrow binary, three seeds each, and a benchmark."""
    for label, scores in TOP1.items():
        for seed, top1 in enumerate(scores):
            codes = None
            if label != "full_precision":
                generator = np.random.default_rng(seed)
                codes = {
                    f"layer{i}.conv": random_codes(label, (K, C, 3, 3), DENSITY[label], generator)
                    for i, (K, C) in enumerate(((16, 16), (32, 32), (64, 64)))
                }
            train_record(folder, label, seed, top1, codes=codes)
    for seed, top1 in enumerate((82.0, 82.5, 82.4)):
        train_record(folder, "binary_narrow", seed, top1, quantizer="binary", width=10)
    bench_record(folder)
    return folder


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return write_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def train(profile):
    return records.read(profile, "train")


@pytest.fixture(scope="module")
def bench(profile):
    return records.read(profile, "bench")


@pytest.fixture(scope="module")
def evidence(train, bench):
    return Evidence(analysis.group_runs(train), bench, analysis.run_weights(train))


# Statistics


def test_interval_is_students():
    mean, half_width = analysis.interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half_width == pytest.approx(4.302653 / math.sqrt(3))  # t(0.975, 2), standard deviation 1
    assert analysis.interval([5.0])[0] == 5 and math.isnan(analysis.interval([5.0])[1])
    with pytest.raises(ValueError, match="no values"):
        analysis.interval([])


def test_shown_says_n_and_hides_a_missing_interval():
    assert analysis.shown(87.1, 0.4, 3) == "87.10 ± 0.40 (n=3)"
    assert analysis.shown(87.1, math.nan, 1) == "87.10 (n=1)"
    assert analysis.shown(87.1, 0.0, 1) == "87.10 (exact)"


# Groups


def test_groups_bear_the_files_name_without_the_seed(train):
    runs = analysis.group_runs(train)
    assert set(runs["label"]) == {*TOP1, "binary_narrow"}
    assert runs.groupby("label")["seed"].apply(list).map(lambda seeds: seeds == [0, 1, 2]).all()


def test_two_configs_under_one_label_are_refused(tmp_path):
    train_record(tmp_path, "binary", 0, 80.0)
    train_record(tmp_path, "binary", 1, 81.0, epochs=9, scale="mean")
    with pytest.raises(ValueError, match="share the label binary but differ in epochs, scale"):
        analysis.accuracy_table(records.read(tmp_path, "train"))


def test_a_repeated_seed_is_refused(tmp_path):
    train_record(tmp_path, "binary", 0, 80.0)
    folder = tmp_path / "records" / "train"
    (folder / "binary-s1.json").write_text((folder / "binary-s0.json").read_text())
    with pytest.raises(ValueError, match="repeat a seed"):
        analysis.accuracy_table(records.read(tmp_path, "train"))


def test_accuracy_table(train):
    row = analysis.accuracy_table(train).set_index("label").loc["binary"]
    assert row["n"] == 3
    assert row["top1_mean_percent"] == pytest.approx(87.1)
    assert row["top1_half_width_percent"] == pytest.approx(analysis.interval([87.0, 87.4, 86.9])[1])
    assert (row["top1_min_percent"], row["top1_max_percent"]) == (86.9, 87.4)
    assert (row["density"], row["effectual_weights"], row["weight_bits"]) == (1, 75_000, 1)


def test_one_seed_has_no_interval(tmp_path):
    train_record(tmp_path, "binary", 0, 80.0)
    row = analysis.accuracy_table(records.read(tmp_path, "train")).iloc[0]
    assert math.isnan(row["top1_half_width_percent"]) and row["top1"] == "80.00 (n=1)"


def test_paired_table_uses_the_common_seeds(tmp_path):
    for seed, top1 in enumerate((80.0, 82.0, 84.0)):
        train_record(tmp_path, "binary", seed, top1)
    for seed, top1 in ((1, 83.0), (2, 85.5), (7, 10.0)):
        train_record(tmp_path, "signed_binary", seed, top1, epochs=9, delta_factor=0.05)
    train_record(tmp_path, "zero_one", 9, 50.0)
    table = analysis.paired_table(records.read(tmp_path, "train"))
    assert table["label"].tolist() == ["signed_binary"], "zero_one has no seed in common"
    row = table.iloc[0]
    assert (row["n"], row["difference_mean_points"]) == (2, 1.25)
    assert row["difference_half_width_points"] == pytest.approx(analysis.interval([1.0, 1.5])[1])
    assert row["differs"] == "epochs, quantizer", "delta_factor is signed binary's own"


def test_paired_table_names_the_possible_baselines(train):
    with pytest.raises(ValueError, match="baseline = 'bnn'; allowed: binary, binary_narrow"):
        analysis.paired_table(train, "bnn")


def test_pareto_front_keeps_the_unbeaten():
    front = analysis.pareto_front([1, 2, 3, 3, 1], [10, 9, 12, 11, 10])
    assert front.tolist() == [True, False, True, False, True], "equal points both stay"


def test_pareto_table(train):
    table = analysis.pareto_table(train).set_index("label")
    assert table["effectual_weights"].is_monotonic_increasing
    assert table["front"].to_dict() == {
        "zero_one": True,
        "signed_binary": True,
        "binary_narrow": False,
        "ternary_twn": True,
        "binary": False,
        "full_precision": True,
    }


# History and codes


def test_history_tables_have_one_row_per_item(train):
    assert len(analysis.curves_table(train)) == 18 * 6
    density = analysis.density_table(train)
    assert len(density) == 15 * 6, "full precision has no layers"
    assert density["depth"].unique().tolist() == [1, 2, 3, 4, 5, 6]
    latent = analysis.latent_table(train)
    assert len(latent) == 2 * 41 * (15 + 3 * 2), "a sign without regions is left out"
    assert (latent["effectual"] <= latent["count"]).all()


def test_response_table_has_a_curve_per_sign(train):
    table = analysis.response_table(train)
    signed = table[table["label"] == "signed_binary"]
    assert sorted(signed["beta"].unique()) == [-1, 1]
    assert table[table["label"] == "binary"]["beta"].isna().all()
    assert len(table) == 61 * 7


def test_run_weights_finds_the_codes_beside_the_records(train):
    weights = analysis.run_weights(train)
    assert len(weights) == 12 and "full_precision-s0" not in weights
    assert weights["binary-s1"]["layer2.conv"].codes.shape == (64, 64, 3, 3)


def test_unique_table(evidence):
    table = analysis.unique_table(evidence.weights)
    row = table[(table["name"] == "binary-s0") & (table["K"] == 64)].iloc[0]
    assert (row["filters"], row["bound"]) == (4096, 512)
    assert row["repetition"] == row["filters"] / row["unique"]
    assert (table["unique"] <= table[["filters", "bound"]].min(axis=1)).all()


def test_unique_table_takes_3x3_layers_only():
    assert analysis.unique_table(
        {"a-s0": {"fc": QuantizedWeight(np.ones((2, 2, 1, 1), np.int8), scheme="binary")}}
    ).empty


def test_operations_table_takes_the_best_group(evidence):
    weights = {"binary-s0": evidence.weights["binary-s0"], "zero_one-s0": evidence.weights["zero_one-s0"]}
    table = analysis.operations_table(weights)
    assert set(table[table["scheme"] == "binary"]["way"]) == {"sparse", "table", "table, rewritten"}
    assert set(table[table["scheme"] == "zero_one"]["way"]) == {"sparse", "table", "table, zeros kept"}
    row = table[(table["name"] == "binary-s0") & (table["K"] == 64) & (table["way"] == "table")].iloc[0]
    codes = weights["binary-s0"]["layer2.conv"]
    assert row["reduction"] == max(reduction(codes, "table", group=group) for group in range(1, 11))
    assert row["reduction"] == pytest.approx(2 * 64 * 64 * 9 / (row["adds"] + row["multiplies"]))


# Benchmarks


def test_speed_table_marks_the_best_torch_of_each_layer(bench):
    table = analysis.speed_table(bench)
    best = table[table["reference"]].set_index("layer")["label"].to_dict()
    assert best == {"64→64 @56": "torch channels_last", "512→512 @7": "torch contiguous"}
    assert set(table["label"]) >= {"table binary, rewritten", "table signed_binary, zeros kept", "sparse signed_binary"}


def test_speed_table_refuses_two_machines(tmp_path):
    bench_record(tmp_path, "a")
    bench_record(tmp_path, "b", cpu="another")
    with pytest.raises(ValueError, match="provenance_cpu: test, another"):
        analysis.speed_table(records.read(tmp_path, "bench"))


def test_speedup_is_over_the_best_torch_and_for_all_layers_over_the_sum(bench):
    table = analysis.speedup_table(bench).set_index(["layer", "label"])
    ours = table.loc[("64→64 @56", "table signed_binary")]
    assert ours["speedup"] == pytest.approx(1.2 / 0.5)
    assert ours["n"] == 5 and ours["speedup_half_width"] == pytest.approx(0, abs=1e-9), (
        "ratios are taken within a round"
    )
    assert table.loc[("all", "table signed_binary"), "speedup"] == pytest.approx((1.2 + 1.5) / (0.5 + 0.75))
    assert table.loc[("all", "torch contiguous"), "speedup"] == pytest.approx((1.2 + 1.5) / (2.0 + 1.5))


# Claims

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
    assert analysis.verdict(claim, measured, paper_scale=True) == expected
    smaller = "reproduced at smaller scale" if expected == "reproduced" else expected
    assert analysis.verdict(claim, measured, paper_scale=False) == smaller
    assert {expected, smaller} <= set(analysis.VERDICTS)


def test_claims_toml_is_judged_whole(train, bench, evidence):
    claims = analysis.load_claims(CLAIMS)
    table = analysis.claims_table(claims, train, bench, evidence.weights).set_index("id")
    assert list(table.index) == [claim["id"] for claim in claims]
    assert set(table["verdict"]) <= set(analysis.VERDICTS)
    assert table.loc["C1", "value"] == pytest.approx(1.26) and table.loc["C1", "n"] == 5
    assert table.loc["C1", "verdict"] == "reproduced at smaller scale"
    assert table.loc["C1-rewritten", "verdict"] == "direction only"
    assert table.loc["C2", "value"] == pytest.approx(1.8)
    assert table.loc["C2", "note"].endswith("2 of 4 timings noisy") and "noisy" not in table.loc["C1", "note"]
    assert table.loc["C5", "value"] == pytest.approx(0.35)
    assert table.loc["C10-zero_one", "ours"] == "11.50 (exact)"
    assert table.loc["C12", "verdict"] == "reproduced at smaller scale"
    assert table.loc["C14", "n"] == 3 and "binary_narrow-s0" in table.loc["C14", "note"]
    assert table.loc["C15", "verdict"] == "contradicted"
    assert table.loc["C17-binary", "value"] < 1 < table.loc["C17-ternary", "value"]


def test_claims_without_records_are_shown_as_missing():
    claims = analysis.load_claims(CLAIMS)
    table = analysis.claims_table(claims, pd.DataFrame(), pd.DataFrame(), {})
    assert (table["verdict"] == "missing record").all() and (table["ours"] == "-").all()
    assert table["note"].str.startswith("missing: a ").all()


def test_a_single_seed_decides_nothing(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 84.0)
    train_record(tmp_path, "binary", 0, 84.0)
    claims = [claim for claim in analysis.load_claims(CLAIMS) if claim["id"] == "C15"]
    row = analysis.claims_table(claims, records.read(tmp_path, "train"), pd.DataFrame(), {}).iloc[0]
    assert (row["verdict"], row["ours"]) == ("missing record", "0.00 (n=1)")
    assert row["note"].startswith("missing: a second seed")


def test_a_claim_without_a_measure_is_out_of_reach(train, bench):
    claim = analysis.load_claims(CLAIMS)[0] | {"measure": ""}
    row = analysis.claims_table([claim], train, bench, {}).iloc[0]
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
    with pytest.raises(MissingRecord, match='a benchmark named "layers" of resnet18 shapes'):
        analysis.bench_speedup(evidence, "signed_binary", "binary")


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
        analysis.load_claims(path)


def test_load_claims_refuses_an_id_twice(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(CLAIMS.read_text() * 2)
    with pytest.raises(ValueError, match="twice: C1"):
        analysis.load_claims(path)


def test_the_recipe_is_all_that_the_quantizer_does_not_set():
    from dataclasses import fields

    from sbkit.quantizers import QuantizerConfig

    assert {field.name for field in fields(QuantizerConfig)} == set(analysis.QUANTIZER_OPTIONS)


def test_newest_is_the_benchmark_that_started_last():
    bench = pd.DataFrame(
        {"name": ["b", "b", "a"], "provenance_started_utc": ["2026-01-02T00:00:00Z"] * 2 + ["2026-01-01T23:59:59Z"]}
    )
    assert analysis.newest(bench)["name"].tolist() == ["b", "b"]
