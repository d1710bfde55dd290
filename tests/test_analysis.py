"""Tables from synthetic records, and every verdict a claim can get."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recorded import (
    KERNELS,
    TOP1,
    bench_record,
    density_record,
    timing,
    train_record,
    write_ablations,
    write_bench,
    write_codebooks,
)

from sbkit import analysis, records
from sbkit.conv import QuantizedWeight
from sbkit.repetition import operations, random_codes, reduction

ANCHORS = Path(__file__).parents[1] / "notebooks" / "anchors.toml"

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


def test_beyond_asks_for_the_whole_interval():
    assert [analysis.beyond(mean, 0.5) for mean in (0.6, 0.4, -0.4, -0.6)] == [1, 0, 0, -1]
    assert analysis.beyond(1.2, 0.1, neutral=1.0) == 1 and analysis.beyond(5.0, math.nan) == 0


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
    assert row["total_parameters"] == 77_000


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
    assert (row["total_ratio"], row["effectual_ratio"]) == (1, 0.35)


def test_paired_table_names_the_possible_baselines(train):
    with pytest.raises(ValueError, match="baseline = 'bnn'; allowed: binary, binary_narrow"):
        analysis.paired_table(train, "bnn")


def test_changed_options_count_absence_but_for_another_quantizer_s_own():
    ours = {"quantizer": "signed_binary", "seed": 0, "l1": 1e-4, "delta_factor": 0.05, "epochs": 3}
    base = {"quantizer": "signed_binary", "seed": 1, "delta_factor": 0.2, "epochs": 3}
    assert analysis.changed_options(ours, base) == ["delta_factor", "l1"]
    binary = {"quantizer": "binary", "seed": 0, "epochs": 3}
    assert analysis.changed_options(ours, binary) == ["l1", "quantizer"], "only signed binary has a delta_factor"


def test_size_reading_holds_signed_binary_against_both_equals(train):
    reading = analysis.size_reading(train)
    assert reading == (
        "Signed binary has 1.00 times the total parameters of binary and is less accurate "
        "(-3.53 ± 1.00 (n=3) points); it has 0.90 times the effectual weights of binary narrow and is more accurate "
        "(1.27 ± 0.76 (n=3) points)."
    )


def test_comparisons_of_schemes_leave_ablations_and_reviews_out(tmp_path):
    for label in ("binary", "ablate_ede", "review_mlp_binary", "binary_narrow"):
        train_record(tmp_path, label, 0, 80.0, quantizer="binary")
    train = analysis.without_ablations(records.read(tmp_path, "train"))
    assert train["name"].tolist() == ["binary-s0", "binary_narrow-s0"]


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    return records.read(write_ablations(tmp_path_factory.mktemp("ablations")), "train")


def test_ablation_table_is_by_question_and_best_first(changes):
    table = analysis.ablation_table(changes)
    found = [(question, rows["label"].tolist()) for question, rows in table.groupby("question", sort=False)]
    assert found == [
        ("assignment and split (Tables 2, 4)", ["ablate_interleaved", "ablate_swapped"]),
        ("threshold (Tables 3, 5?)", ["ablate_delta_0.2", "ablate_threshold_learned"]),
        ("regularisation", ["ablate_l1"]),
        ("regions and signs (beyond the paper)", ["signed_binary_regions"]),
        ("other options", ["ablate_epochs"]),
    ]
    rows = table.set_index("label")
    assert rows.loc["ablate_delta_0.2", "setting"] == "delta_factor = 0.2"
    assert rows.loc["ablate_l1", ["differs", "setting"]].tolist() == ["l1", "l1 = 0.0001"]
    assert rows.loc["ablate_l1", "difference_mean_points"] == pytest.approx(-1.0 + 0.1 * 4 / 2)
    assert rows.loc["signed_binary_regions", "differs"] == "assignment, region_channels"
    assert set(table["quantizer"]) == {"signed_binary"}


def test_ablation_table_of_one_design_is_empty(train):
    assert analysis.ablation_table(train).empty
    assert analysis.ablation_table(train[train["quantizer"] == "binary"]).empty
    assert analysis.density_accuracy_table(train).empty


def test_a_profile_without_plain_schemes_shows_all_its_runs(train):
    plain = analysis.scheme_runs(train)
    assert 0 < len(plain) < len(train)
    others = train[~train["name"].isin(plain["name"])]
    assert analysis.scheme_runs(others)["name"].tolist() == others["name"].tolist()


def test_density_accuracy_table_has_the_baseline_in_each_family(changes):
    table = analysis.density_accuracy_table(changes)
    families = {family: set(rows["label"]) for family, rows in table.groupby("family")}
    assert families == {
        "threshold": {"signed_binary", "ablate_delta_0.2", "ablate_threshold_learned"},
        "L1": {"signed_binary", "ablate_l1"},
    }
    row = table[(table["label"] == "signed_binary") & (table["family"] == "L1")].iloc[0]
    assert (row["n"], row["density"], row["top1_mean_percent"]) == (2, 0.35, 80.5)
    assert row["top1_half_width_percent"] == pytest.approx(analysis.interval([80.0, 81.0])[1])


def test_codebook_table_sets_accuracy_beside_bits_and_time(tmp_path):
    folder = write_codebooks(tmp_path)
    frames = [records.read(folder, kind) for kind in ("train", "bench")]
    table = analysis.codebook_table(*frames)
    designs = ["ablate_any", "ablate_codebook", "ablate_few", "ablate_learned_codebook"]
    designs += ["ablate_random_codebook", "ablate_untimed", "ablate_signs"]
    assert table["label"].tolist() == ["binary", "signed_binary", *designs]
    masks = ["64 masks", "16 masks", "64 learned", "64 random", "4 masks", "16 learned of ±1"]
    assert table["masks"].tolist() == ["any mask"] * 3 + masks
    assert table["channels"].tolist() == [0, 0, 8] + 6 * [16] and set(table["n"]) == {3}
    np.testing.assert_allclose(table["difference_mean_points"], [0, -3, -0.5, -1, 0, -1.5, -1.8, -2, -2], atol=1e-12)
    np.testing.assert_allclose(table["difference_half_width_points"][1:], analysis.interval([0, 0.2, -0.2])[1])
    assert table["difference"].tolist()[3] == "-1.00 ± 0.50 (n=3)"
    assert table["same_bits"].tolist() == 4 * [""] + ["2.00 ± 0.00 (n=3)"] + 4 * [""]
    # 0.4 of a layer's milliseconds is binary's fastest; any mask of 8 channels runs as one of 4
    np.testing.assert_allclose(table["time"], [1, 0.9, 0.75, 0.5, np.nan, 0.5, np.nan, np.nan, 0.6])
    assert table["latency"].tolist()[3:] == ["0.50 ± 0.00 (n=5)", "", "0.50 ± 0.00 (n=5)", "", "", "0.60 ± 0.00 (n=5)"]
    assert table["ran"].tolist()[3] == "table signed_binary, codebook, sign per 16 channels, 6-bit codebook"
    assert table["ran"].tolist()[-1] == "table binary, codebook, pattern per 16 channels, 4-bit codebook"
    untimed = analysis.codebook_table(frames[0], frames[1].iloc[:0])
    assert untimed["time"].isna().all() and untimed["difference"].tolist() == table["difference"].tolist()


def test_training_table_is_over_full_precision_round_by_round(tmp_path):
    rounds = {
        ("fp32", "full_precision"): [100.0, 200.0, 100.0],
        ("fp32", "signed_binary"): [110.0, 210.0, 104.0],
        ("bf16", "full_precision"): [50.0, 80.0, 25.0],
        ("bf16", "signed_binary"): [60.0, 100.0, 30.0],
    }
    timings = [
        timing("network", "training", "binary", 100.0, round_ms=ms, batch=20)
        | {"precision": precision, "variant": name, "median_ms": 100.0}
        for (precision, name), ms in rounds.items()
    ]
    write_bench(tmp_path, "training", timings, study="training", batch=20)
    bench = records.read(tmp_path, "bench")
    assert analysis.labelled(bench)["label"].nunique() == 4
    both = analysis.training_table(bench).groupby("precision")
    bf16 = both.get_group("bf16").set_index("design")
    assert bf16["time"].tolist() == [
        analysis.shown(*analysis.interval(r), 3) for r in ([0.5, 0.4, 0.25], [0.6, 0.5, 0.3])
    ]
    assert bf16.loc["signed_binary", "overhead_percent"] == pytest.approx(np.mean([20, 25, 20]))
    table = both.get_group("fp32").set_index("design")
    assert table.loc["full_precision", ["overhead_percent", "half_width_percent"]].tolist() == [0, 0]
    assert table.loc["signed_binary", "overhead"].endswith("(n=3)")
    mean, half_width = analysis.interval([10, 5, 4])
    assert table.loc["signed_binary", "overhead_percent"] == pytest.approx(mean)
    assert table.loc["signed_binary", "half_width_percent"] == pytest.approx(half_width)
    assert table["images_per_second"].tolist() == [200.0, 200.0]
    assert analysis.training_table(pd.DataFrame()).empty


def test_learning_rate_table_has_a_row_per_design(tmp_path):
    for rate, tops in {0.01: (80, 70), 0.002: (75, 72)}.items():
        for label, top1 in zip(("binary", "signed_binary"), tops, strict=True):
            train_record(tmp_path, f"review_{rate}_{label}", 0, top1, quantizer=label, learning_rate=rate)
    train_record(tmp_path, "zero_one", 0, 60.0, learning_rate=0.01)
    table = analysis.learning_rate_table(records.read(tmp_path, "train"))
    assert table.to_dict("records") == [
        {"quantizer": "binary", "epochs": 3, "seed": 0, "0.002": 75, "0.01": 80, "best": 0.01},
        {"quantizer": "signed_binary", "epochs": 3, "seed": 0, "0.002": 72, "0.01": 70, "best": 0.002},
    ]


def test_designs_trained_at_one_rate_were_not_searched(train):
    assert analysis.learning_rate_table(train).empty


def test_codebook_table_without_a_codebook_is_empty(train, changes):
    for runs in (train, changes):
        assert analysis.codebook_table(runs, runs.iloc[:0]).empty


def test_spectrum_of_copies_and_of_orthogonal_filters():
    copies = np.tile(np.array([1, 0, 1, 1], np.int8), (3, 1)) * np.array([[1], [-1], [1]], np.int8)
    orthogonal = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]], np.int8)
    found = [
        analysis.spectrum(QuantizedWeight(codes.reshape(3, 4, 1, 1), np.ones(3, np.float32)))
        for codes in (copies, orthogonal, 0 * copies)
    ]
    assert found[0] == (pytest.approx(1), pytest.approx(1 / 3)) and found[1] == (pytest.approx(1 / 3), pytest.approx(1))
    assert np.isnan(found[2][0]) and found[2][1] == 0


def test_imbalance_is_the_mean_over_the_deviation_of_outputs():
    codes = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [0, 0, 0, 0], [-1, -1, 0, 0]], np.int8).reshape(4, 4, 1, 1)
    weight = QuantizedWeight(codes, np.full(4, 3, np.float32))
    assert analysis.imbalance(weight) == pytest.approx((2 + 0 + math.sqrt(2)) / 3)
    split = replace(weight, channel_sign=np.array([1, -1, 1, -1]))
    assert analysis.imbalance(split) == pytest.approx((0 + 2 + 0) / 3)
    x = 1 + np.random.default_rng(0).standard_normal((4, 100_000))  # mean and standard deviation 1
    y = weight.dense().reshape(4, 4)[0] @ x
    assert y.mean() / y.std() == pytest.approx(2, rel=0.02)
    assert math.isnan(analysis.imbalance(QuantizedWeight(0 * codes)))


def test_common_mode_compares_one_recipe(train):
    weights = analysis.run_weights(train)
    table = analysis.common_mode_table(train, weights).set_index("label")
    assert {"binary", "signed_binary"} <= set(table.index) and "full_precision" not in table.index
    assert "binary_narrow" not in table.index, "another width is another recipe"
    runs = [layers for name, layers in weights.items() if name.startswith("binary-")]
    shares = [np.mean([analysis.spectrum(w)[0] for w in layers.values()]) for layers in runs]
    assert table.loc["binary", "leading_share"] == pytest.approx(np.mean(shares))
    assert table.loc["binary", "signal_percent"] == pytest.approx(100 * np.mean([0.02 / e for e in range(1, 7)]))
    assert table.loc["binary", "leading_share_half_width"] == pytest.approx(analysis.interval(shares)[1])
    assert analysis.common_mode_table(train[~train["name"].str.startswith("binary-")], weights).empty


def test_anchors_are_counted_from_their_networks():
    table = analysis.anchors_table(ANCHORS).set_index(["method", "network", "scheme"])
    assert table.loc[("IR-Net", "resnet18", "binary"), "effectual_weights"] == 10_985_472
    assert table.loc[("paper, final", "resnet18", "signed_binary"), "effectual_weights"] == 0.35 * 10_985_472
    ternary = table.loc[("TTQ", "resnet20", "ternary_ttq")]
    assert ternary["bound"] and ternary["effectual_weights"] == 267_264, "the source states no density"
    assert ternary["top1_percent"] == pytest.approx(100 - 8.87)
    assert table[["top1_percent", "effectual_weights"]].notna().all(axis=None) and table["source"].str.len().min() > 0


def test_an_anchor_of_an_unknown_network_is_refused(tmp_path):
    text = ANCHORS.read_text(encoding="utf-8").replace('"resnet34"', '"resnet99"')
    (tmp_path / "anchors.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="network = 'resnet99' of IR-Net; allowed: resnet18, resnet34"):
        analysis.anchors_table(tmp_path / "anchors.toml")


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


def test_equally_large_networks_keep_the_order_of_their_labels_on_every_cpu(tmp_path):
    labels = [f"ablate_{place:02}" for place in range(40)]
    for label, width in zip(labels, 20 * [16, 8], strict=True):
        train_record(tmp_path, label, 0, 80.0, quantizer="binary", width=width)
    assert analysis.pareto_table(records.read(tmp_path, "train"))["label"].tolist() == labels[1::2] + labels[::2]


# History and codes


def test_history_tables_have_one_row_per_item(train):
    assert len(analysis.curves_table(train)) == 18 * 6
    density = analysis.density_table(train)
    assert len(density) == 15 * 6, "full precision has no layers"
    assert density["depth"].unique().tolist() == [1, 2, 3, 4, 5, 6]
    latent = analysis.latent_table(train)
    assert len(latent) == 2 * 41 * (15 + 3 * 2), "a sign without regions is left out"
    assert (latent["effectual"] <= latent["count"]).all()


def histograms(positive, negative, seeds=(0, 1), weights=100_000):
    """A `latent_table` of one layer whose regions have these distributions (scipy's), a weight beyond 0.1 effectual."""
    edges = np.linspace(-2, 2, 42)
    rows = []
    for seed in seeds:
        for region, family, sign in (("positive", positive, 1), ("negative", negative, -1)):
            counts = np.round(weights * (1 + seed) * np.diff(family.cdf(edges)))
            for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
                row = {"label": "signed_binary", "quantizer": "signed_binary", "seed": seed, "layer": "conv"}
                row |= {"region": region, "left": left, "right": right, "count": count}
                rows.append(row | {"effectual": count * (sign * left > 0.1 - 1e-9)})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("family, other", [("gaussian", "laplacian"), ("laplacian", "gaussian")])
def test_fits_find_the_distribution_that_made_the_counts(family, other):
    from scipy import stats

    made = {"gaussian": stats.norm, "laplacian": stats.laplace}[family]
    latent = histograms(made(0.1, 0.25), made(-0.15, 0.2))
    bins = analysis.latent_bins(latent)
    region = bins[(bins["region"] == "positive") & (bins["part"] == "all") & (bins["seed"] == 0)]
    assert np.abs(region[family] - region["count"]).max() < 60 < np.abs(region[other] - region["count"]).max()
    assert region["count"].sum() == pytest.approx(region[family].sum()), "the outermost bins are open"
    fits = analysis.latent_fits(latent).set_index(["region", "part"])
    row = fits.loc[("positive", "all")]
    assert row[f"ks_{family}"] < 1e-3 < row[f"ks_{other}"]
    assert row["better"] == family.capitalize() and (row["difference"] > 0) == (family == "gaussian")
    assert (row["n"], row["weights"]) == (2, pytest.approx(150_000, rel=1e-3))
    assert row["mean"] == pytest.approx(0.1, abs=2e-3)


def test_layers_come_in_the_network_s_order():
    from scipy import stats

    latent = histograms(stats.norm(0.1, 0.25), stats.norm(-0.1, 0.25), seeds=(0,))
    layers = ["3", "10", "17"]  # those of VGG-small, as a record sorts them: 10, 17, 3
    mixed = pd.concat([latent.assign(layer=layer) for layer in sorted(layers)], ignore_index=True)
    bins = analysis.latent_bins(mixed)
    assert bins["layer"].unique().tolist() == layers
    alone = analysis.latent_bins(latent.assign(layer="10"))
    pd.testing.assert_frame_equal(bins[bins["layer"] == "10"].reset_index(drop=True), alone)
    assert analysis.latent_fits(mixed)["layer"].unique().tolist() == layers


def test_fits_have_the_largest_likelihood():
    from scipy import stats

    rng = np.random.default_rng(0)
    counts, edges = rng.integers(0, 50, (3, 12)), np.tile(np.linspace(-1, 2, 13), (3, 1))
    for family, made in (("gaussian", stats.norm), ("laplacian", stats.laplace)):
        _, found = analysis._maximum_likelihood(counts, edges, family)
        for row, best in zip(counts, found, strict=True):
            tried = []
            for location in np.linspace(-0.5, 1.5, 81):
                for scale in np.linspace(0.4, 3, 131):
                    inner = made(location, scale).cdf(edges[0, 1:-1])
                    tried.append((row * np.log(np.diff([0, *inner, 1]))).sum())
            assert max(tried) <= best + 1e-9 and best < max(tried) + 0.1


def test_fits_know_both_regions_together_and_leave_out_what_fills_too_few_bins():
    from scipy import stats

    latent = histograms(stats.norm(0.1, 0.25), stats.norm(-0.1, 0.25))
    fits = analysis.latent_fits(latent).set_index(["region", "part"])
    assert len(fits) == 9
    both, apart = fits.loc[("both", "all")], fits.loc[[("positive", "all"), ("negative", "all")]]
    assert both["weights"] == apart["weights"].sum() and both["mean"] == pytest.approx(0, abs=1e-9)
    assert fits.loc[("both", "ineffectual"), "weights"] == both["weights"] - fits.loc[("both", "effectual"), "weights"]
    few = latent.assign(effectual=latent["count"] * latent["left"].between(0.1, 0.2))
    assert "effectual" not in set(analysis.latent_fits(few)["part"])


def test_latent_reading_is_computed():
    from scipy import stats

    fits = analysis.latent_fits(histograms(stats.norm(0.3, 0.25), stats.norm(-0.3, 0.25)))
    reading = analysis.latent_reading(fits)
    assert "a single region has a mean other than zero in 2 of 2" in reading
    assert "and is not Laplacian but nearer a Gaussian in 2 of 2 (distance 0.00)" in reading
    assert "nearer a Laplacian in 0 of 1" in reading and "statement holds in part" in reading
    assert "statement holds:" in analysis.latent_reading(
        fits.assign(
            better=np.where((fits["region"] == "both") & (fits["part"] == "effectual"), "Laplacian", "Gaussian")
        )
    )


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


def test_shuffled_codes_keep_every_filter_s_values():
    layers = {"conv": random_codes("signed_binary", (8, 16, 3, 3), 0.4, np.random.default_rng(0))}
    made = analysis.shuffled(layers)["conv"]
    assert (np.sort(made.codes.reshape(8, -1)) == np.sort(layers["conv"].codes.reshape(8, -1))).all()
    assert (made.codes != layers["conv"].codes).any() and made.scheme == "signed_binary"
    assert (analysis.shuffled(layers, 1)["conv"].codes != made.codes).any()


def trained_to_repeat(scheme, seed):
    """A layer of 64 x 64 filters that are but 16 different ones."""
    weight = random_codes(scheme, (64, 64, 3, 3), 1.0 if scheme == "binary" else 0.4, np.random.default_rng(seed))
    codes = weight.codes.copy()
    codes[:] = codes[:, :1]
    return replace(weight, codes=codes)


def test_origins_tell_learned_repetition_from_that_of_chance():
    weights = {f"{scheme}-s{seed}": {"conv": trained_to_repeat(scheme, seed)}
               for scheme in ("binary", "signed_binary") for seed in (0, 1)}  # fmt: skip
    origins = analysis.origins_table(weights)
    counts = origins.groupby(["codes", "scheme"])["unique"].max()
    assert counts["trained", "binary"] <= 64 and counts["random", "binary"] == 512 == counts["shuffled", "binary"]
    table = analysis.repetition_table(origins).set_index(["scheme", "filters"])
    ours = table.loc[("binary", 4096)]
    assert ours["n"] == 2 and ours["bound"] == 512 and ours["least_repetition"] == 8
    assert ours["over_random"] < 0.2 and ours["over_shuffled"] < 0.2
    papers = table.loc[("signed_binary", 65536)]
    assert (papers["paper"], papers["bound"], papers["random"]) == (1024, 1023, "1023.0 (n=1)")
    assert math.isnan(papers["over_random"]) and "ternary_twn" not in table.index.get_level_values("scheme")
    reading = analysis.repetition_reading(origins)
    assert reading.count("fewer than either") == 2 and "largest layers (4,096)" in reading
    even = origins.assign(unique=origins["unique"].where(origins["codes"] != "trained", 512))
    assert analysis.repetition_reading(even).count("not fewer than both") == 2


def test_toy_adds_stand_beside_the_papers():
    table = analysis.toy_adds_table(analysis.graphs_table()).set_index("scheme")
    columns = ["adds_without_sharing", "adds", "paper"]
    assert table.loc["binary", columns].tolist() == [10, 7, 8]
    assert table.loc["ternary_twn", columns].tolist() == [7, 6, 6]
    assert table.loc["signed_binary", columns].tolist() == [4, 3, 4]


def test_operations_table_takes_the_best_group(evidence):
    weights = {name: evidence.weights[name] for name in ("binary-s0", "zero_one-s0", "ternary_twn-s0")}
    table = analysis.operations_table(weights)
    plain, kept, rewritten = {"sparse", "table", "dataflow"}, "zeros kept", "rewritten"
    assert {scheme: set(rows["way"]) for scheme, rows in table.groupby("scheme")} == {
        "binary": plain | {f"table, {rewritten}", f"dataflow, {rewritten}", "table, signed"},
        "zero_one": plain | {f"table, {kept}", f"dataflow, {kept}"},
        "ternary_twn": plain | {f"table, {kept}", f"dataflow, {kept}", "table, signed"},
    }
    row = table[(table["name"] == "binary-s0") & (table["K"] == 64) & (table["way"] == "table")].iloc[0]
    codes = weights["binary-s0"]["layer2.conv"]
    assert row["reduction"] == max(reduction(codes, "table", group=group) for group in range(1, 11))
    assert row["reduction"] == pytest.approx(2 * 64 * 64 * 9 / (row["adds"] + row["multiplies"]))
    graph = table[(table["name"] == "binary-s0") & (table["K"] == 32) & (table["way"] == "dataflow, rewritten")].iloc[0]
    expected = operations(weights["binary-s0"]["layer1.conv"], "dataflow", group=graph["group"], encoding="rewritten")
    assert (graph["adds"], graph["multiplies"]) == expected


def test_operations_table_knows_what_does_not_apply():
    generator = np.random.default_rng(0)
    signed = random_codes("signed_binary", (8, 8, 3, 3), 0.4, generator)
    two_scales = replace(
        random_codes("ternary_ttq", (8, 8, 3, 3), 0.6, generator), scale=np.full(8, 2.0), negative_scale=np.ones(8)
    )
    wide = random_codes("binary", (8, 16, 3, 3), 1.0, generator)
    large = random_codes("zero_one", (65, 65, 1, 1), 0.4, generator)
    layers = {"signed": signed, "two_scales": two_scales, "wide": wide, "large": large}
    ways = analysis.operations_table({"a-s0": layers}).groupby("layer")["way"].agg(set)
    assert not any("table, signed" in ways[layer] for layer in ("signed", "two_scales", "large"))
    assert "table, signed" in ways["wide"] and "dataflow" not in ways["wide"], "graphs of square layers alone"
    assert "dataflow" in ways["signed"] and "dataflow" not in ways["large"], "and of small ones"


def test_operations_table_names_the_papers_value_where_it_has_one(evidence):
    table = analysis.operations_table({"binary-s0": evidence.weights["binary-s0"]}, ["table", "table, signed"])
    assert table.set_index(["K", "way"])["paper"].dropna().to_dict() == {(64, "table"): 5.3}


def test_reductions_table_has_random_and_trained_codes(bench, evidence):
    weights = {name: layers for name, layers in evidence.weights.items() if name.endswith("-s0")}
    counted = analysis.operations_table(weights, ["table", "table, signed", "dataflow, zeros kept"])
    table = analysis.reductions_table(counted, analysis.newest(bench))
    table = table.set_index(["layer", "scheme", "encoding", "codes"])
    small, large = "[3, 3, 64, 64]", "[3, 3, 512, 512]"
    assert set(table.index.get_level_values("layer")) == {small, large}
    assert table.loc[(small, "binary", "two_group", "random"), ["dataflow", "table"]].tolist() == [6.2, 11.5]
    assert table.loc[(large, "signed_binary", "two_group", "random"), "dataflow"] == 12.0
    of_64 = counted[(counted["K"] == 64) & (counted["scheme"] == "signed_binary")].groupby("way")["reduction"].mean()
    ours = table.loc[(small, "signed_binary", "two_group", "trained")]
    assert ours[["table", "dataflow, zeros kept"]].tolist() == of_64[["table", "dataflow, zeros kept"]].tolist()
    assert (ours["paper"], ours["density"]) == (6.65, pytest.approx(0.35, abs=0.01)) and math.isnan(ours["dataflow"])
    assert math.isnan(table.loc[(small, "ternary_twn", "signed", "trained"), "dataflow"])


def test_reductions_table_of_nothing_has_its_columns():
    table = analysis.reductions_table(pd.DataFrame(), pd.DataFrame())
    assert table.empty and list(table)[:5] == ["layer", "scheme", "encoding", "codes", "density"]


def value_of(name, graph):
    """What a name of a data-flow graph adds up to: the coefficient of each input."""
    row = graph.loc[name]
    if row["kind"] == "input":
        return np.array([name == other for other in graph.index[graph["kind"] == "input"]], int)
    return sum((1 if part[0] == "+" else -1) * value_of(part[1:], graph) for part in row["parts"].split())


def test_toy_graphs_compute_their_filters():
    table = analysis.graphs_table()
    for scheme, filters in analysis.TOY_FILTERS.items():
        graph = table[table["scheme"] == scheme].set_index("name")
        assert [value_of(f"y{number}", graph).tolist() for number in (1, 2)] == [list(codes) for codes in filters]


def test_the_papers_graph_takes_three_additions():
    table = analysis.graphs_table()
    ours = table[table["scheme"] == "signed_binary"]
    assert ours.loc[ours["kind"] != "input", "parts"].tolist() == ["+a +c", "+e +ac", "-b -ac"]
    assert table.groupby("scheme")["adds"].first().to_dict() == {"signed_binary": 3, "ternary_twn": 6, "binary": 7}


# Benchmarks


def old_record(folder, name="layers", **changes):
    """A benchmark as it was recorded before there were studies, peers and bounds."""
    new = {"precision", "regions", "model", "bound_ms", "roofline_fraction", "density", "batch"}
    kept = [t for t in json.loads((folder / "new.json").read_text()) if t["contender"] in ("torch", "sparse", "table")]
    kept = [{key: value for key, value in t.items() if key not in new} for t in kept if t["encoding"] != "signed"]
    write_bench(folder, name, [t for t in kept if t["group"] != 4], **changes)


@pytest.fixture
def old(tmp_path):
    bench_record(tmp_path, "layers")
    path = tmp_path / "records" / "bench" / "layers.json"
    record = json.loads(path.read_text())
    (tmp_path / "new.json").write_text(json.dumps(record["metrics"]["timings"]))
    old_record(tmp_path)
    record = json.loads(path.read_text())
    del record["config"]["study"], record["metrics"]["peaks"]
    path.write_text(json.dumps(record))
    return records.read(tmp_path, "bench")


def test_newest_is_the_benchmark_of_a_study_that_started_last(tmp_path):
    for name, started, changes in (
        ("a", "2026-01-02T00:00:00Z", {}),
        ("b", "2026-01-01T23:59:59Z", {}),
        ("c", "2026-01-03T00:00:00Z", {"threads": 2}),
        ("d", "2026-01-04T00:00:00Z", {"study": "network"}),
        ("e", "2026-01-05T00:00:00Z", {"study": "network", "batch": 8}),
        ("f", "2026-01-06T00:00:00Z", {"study": "network", "batch": 8}),
    ):
        timings = [timing("64→64 @56", "torch", "contiguous", 1.0, batch=changes.get("batch", 1))]
        write_bench(tmp_path, name, timings, started=started, **changes)
    bench = records.read(tmp_path, "bench")
    assert analysis.newest(bench)["name"].tolist() == ["a"]
    assert analysis.newest(bench, "network")["name"].tolist() == ["d", "f"], "one of each batch"
    assert analysis.newest(bench, "density").empty and analysis.newest(pd.DataFrame(), "density").empty


def test_a_record_of_an_earlier_version_is_one_of_layers(old):
    timings = analysis.newest(old)
    assert len(timings) == len(old)
    assert set(analysis.speedup_table(timings)["over"]) == {"best fp32 torch", "best binary"}, "there are no peers"
    assert analysis.roofline_table(timings).empty
    assert analysis.newest(old, "threads").empty and analysis.newest(old, "network").empty


def test_an_earlier_record_beside_new_ones(old, tmp_path):
    density_record(tmp_path)
    both = records.read(tmp_path, "bench")
    assert set(analysis.newest(both)["name"]) == {"layers"} and set(analysis.newest(both, "density")["name"]) == {
        "density"
    }


def test_labels_tell_contenders_apart(bench):
    labels = analysis.speed_table(analysis.newest(bench)).groupby("layer", sort=False)["label"].agg(list)
    first, second = labels
    assert first == second and len(set(first)) == len(first) == 2 + len(KERNELS)
    assert {
        "torch bf16", "onnxruntime int8", "table binary, rewritten", "table binary, signed",
        "table signed_binary, zeros kept", "table signed_binary, sign per 4 channels",
        "table signed_binary, G = 4", "dataflow ternary_twn, zeros kept",
    } < set(first)  # fmt: skip


def test_speed_table_marks_the_best_fp32_of_each_layer(bench):
    table = analysis.speed_table(analysis.newest(bench))
    best = {mark: table[table[mark]].set_index("layer")["label"].to_dict() for mark in ("reference", "reference_fp32")}
    assert best == {
        "reference": {"64→64 @56": "torch channels_last", "512→512 @7": "torch contiguous"},
        "reference_fp32": {"64→64 @56": "onnxruntime fp32", "512→512 @7": "torch contiguous"},
    }


def test_speed_table_refuses_two_machines(tmp_path):
    bench_record(tmp_path, "a")
    bench_record(tmp_path, "b", cpu="another")
    with pytest.raises(ValueError, match="provenance_cpu: test, another"):
        analysis.speed_table(records.read(tmp_path, "bench"))


@pytest.fixture(scope="module")
def speedup(bench):
    return analysis.speedup_table(analysis.newest(bench)).set_index(["over", "layer", "label"])


def test_speedup_is_over_the_best_of_each_layer_and_for_all_over_the_sum(speedup):
    ours = speedup.loc[("best fp32 torch", "64→64 @56", "table signed_binary")]
    assert ours["speedup"] == pytest.approx(1.2 / 0.5)
    assert ours["n"] == 5 and ours["speedup_half_width"] == pytest.approx(0, abs=1e-9), (
        "ratios are taken within a round"
    )
    expected = {
        ("best fp32 torch", "all"): (1.2 + 1.5) / (0.5 + 0.75),
        ("best fp32 torch", "geometric mean"): math.sqrt(1.2 / 0.5 * 1.5 / 0.75),
        ("best fp32 of all", "all"): (1.1 + 1.5) / (0.5 + 0.75),
        ("best fp32 of all", "geometric mean"): math.sqrt(1.1 / 0.5 * 1.5 / 0.75),
        ("best binary", "all"): 0.53 / 0.5,
    }
    for (over, layer), value in expected.items():
        assert speedup.loc[(over, layer, "table signed_binary"), "speedup"] == pytest.approx(value), (over, layer)
    assert speedup.loc[("best fp32 torch", "all", "torch contiguous"), "speedup"] == pytest.approx(2.7 / 3.5)
    assert speedup.loc[("best binary", "all", "table binary, signed"), "speedup"] == pytest.approx(1)
    assert speedup.loc[("best binary", "all", "table binary"), "speedup"] == pytest.approx(0.53 / 0.63)


def test_a_contender_that_lacks_a_layer_has_no_sum(bench):
    timings = analysis.newest(bench)
    partial = timings[(timings["contender"] != "openvino") | (timings["layer"] != "512→512 @7")]
    table = analysis.speedup_table(partial)
    assert set(table.loc[table["label"] == "openvino fp32", "layer"]) == {"64→64 @56"}
    assert analysis.speedup_summary(table).set_index("label").loc["openvino fp32", "all"].isna().all()


def test_speedup_interval_is_over_rounds(tmp_path):
    times = {"contiguous": [4.0, 2.0], "signed_binary": [1.0, 1.0], "binary": [1.0, 2.0]}
    timings = [
        timing("64→64 @56", contender, variant, np.median(times[variant]), round_ms=times[variant])
        for contender, variant in (("torch", "contiguous"), ("table", "signed_binary"), ("table", "binary"))
    ]
    write_bench(tmp_path, "layers", timings)
    table = analysis.speedup_table(records.read(tmp_path, "bench"))
    rows = table[(table["label"] == "table signed_binary") & (table["over"] == "best fp32 torch")]
    for row in rows.itertuples():
        assert (row.speedup, row.speedup_half_width) == pytest.approx(analysis.interval([4.0, 2.0]))


def test_speedup_summary_has_a_column_per_layer(speedup):
    table = analysis.speedup_summary(speedup.reset_index())
    assert list(table) == ["over", "label", "64→64 @56", "512→512 @7", "all", "geometric mean"]
    assert len(table) == 3 * (2 + len(KERNELS))
    ours = table.set_index(["over", "label"]).loc[("best fp32 torch", "table signed_binary")]
    assert ours["64→64 @56"] == "2.40 ± 0.00 (n=5)"


def test_layer_reductions_sum_a_network_by_its_operations(tmp_path):
    rows = []
    for layer, C, K, count, macs, adds in (("64→64 @8", 64, 64, 3, 100, 40), ("64→128 @8/2", 64, 128, 1, 300, 60)):
        common = {
            "layer": layer,
            "C": C,
            "K": K,
            "count": count,
            "batch": 1,
            "macs": macs,
            "multiplies": 10,
            "density": 1.0,
        }
        for encoding, factor in (("two_group", 2), ("signed", 1)):
            way = {"contender": "table", "variant": "binary", "scheme": "binary", "encoding": encoding, "group": 3}
            rows.append(common | way | {"skip_zeros": True, "adds": factor * adds})
    write_bench(tmp_path, "operations", rows, study="operations", shapes="tiny")
    bench = records.read(tmp_path, "bench")
    reductions = analysis.layer_reductions(analysis.newest(bench, "operations"))
    papers = reductions.set_index(["layer", "label"])["paper"].dropna()
    assert papers.to_dict() == {("64→64 @8", "table binary"): 5.3}, "not of the signed encoding, nor of other layers"
    table = analysis.layers_table(reductions).set_index("layer")
    assert table["count"].to_dict() == {"64→64 @8": 3, "64→128 @8/2": 1, "all": 4}
    assert table["table binary, signed"].tolist() == [200 / 50, 600 / 70, (3 * 200 + 600) / (3 * 50 + 70)]
    assert table["table binary"].tolist() == [200 / 90, 600 / 130, (3 * 200 + 600) / (3 * 90 + 130)]
    assert analysis.layers_table(analysis.layer_reductions(analysis.newest(bench))).empty


def test_the_columns_that_a_study_lacks_make_no_floats_of_another_s_counts(tmp_path):
    bench_record(tmp_path)
    write_bench(
        tmp_path, "operations", [{"layer": "8→8 @8", "batch": 1, "adds": 1, "multiplies": 1}], study="operations"
    )
    bench = records.read(tmp_path, "bench")
    assert bench["group"].dtype == float
    assert (
        analysis.plans_table(analysis.newest(bench)).set_index("label").loc["table signed_binary", "groups"] == "6, 6"
    )


def test_threads_table_compares_within_rounds(bench):
    table = analysis.threads_table(analysis.newest(bench, "threads")).set_index("label")
    assert list(table) == ["64→64 @56", "512→512 @7", "all"]
    assert table.loc["table signed_binary"].tolist() == ["1.50 ± 0.00 (n=5)"] * 3
    assert table.loc["torch contiguous", "all"] == "1.25 ± 0.00 (n=5)"
    assert analysis.threads_table(analysis.newest(bench[bench["study"] != "threads"], "threads")).empty


def test_plans_table_sums_over_the_layers(bench):
    table = analysis.plans_table(analysis.newest(bench)).set_index("label")
    weights = 9 * (64 * 64 + 512 * 512)
    assert table.loc["torch contiguous", ["weight_bytes", "bits_per_weight", "plan_ms", "groups"]].tolist() == [
        4 * weights, 32, 0, "-",
    ]  # fmt: skip
    ours = table.loc["table signed_binary"]
    assert (ours["bits_per_weight"], ours["plan_ms"], ours["groups"]) == (8, pytest.approx(4), "6, 6")


def test_roofline_takes_the_fastest_way_of_each_scheme(bench):
    table = analysis.roofline_table(analysis.newest(bench))
    labels = table[table["layer"] == "64→64 @56"]["label"].tolist()
    assert labels == [
        "onnxruntime fp32", "table signed_binary", "table zero_one", "table binary, signed", "table ternary_twn, signed"
    ]  # fmt: skip
    ours = table[table["scheme"] != ""]
    assert (ours["gmacs"] / ours["bound_gmacs"]).tolist() == pytest.approx([0.4] * len(ours))
    assert set(table["fma_gmacs"]) == {1.2}


def test_network_table_is_per_image(bench):
    table = analysis.network_table(analysis.newest(bench, "network")).set_index(["batch", "label"])
    ours = table.loc[(8, "table signed_binary")]
    assert (ours["model"], ours["ms_per_image"]) == ("resnet18", pytest.approx(10))
    assert ours["speedup"] == pytest.approx(2), "over ONNX Runtime, the fastest in fp32"
    assert table.index[table["reference_fp32"]].tolist() == [(1, "onnxruntime fp32"), (8, "onnxruntime fp32")]


@pytest.fixture(scope="module")
def tradeoff(bench):
    return analysis.tradeoff_table(analysis.newest(bench, "density"))


def test_tradeoff_predicts_what_costs_its_entropy(tradeoff):
    table = tradeoff[tradeoff["algorithm"] == "table"]
    exact = table[table["encoding"] != "rewritten"]
    exact = exact[(exact["scheme"] != "binary") | (exact["encoding"] == "signed")]
    for cost, predicted in (("operations_per_weight", "predicted_operations"), ("median_ms", "predicted_ms")):
        assert exact[predicted].to_numpy() == pytest.approx(exact[cost].to_numpy())
    sparse = tradeoff[tradeoff["algorithm"] == "sparse"]
    assert (sparse["predicted_operations"] / sparse["operations_per_weight"] - 1).abs().max() > 0.5


def test_tradeoff_marks_the_optima(tradeoff):
    ours = tradeoff[(tradeoff["algorithm"] == "sparse") & (tradeoff["scheme"] == "signed_binary")]
    for mark in ("fewest", "fastest", "cheapest_bit"):
        assert ours.loc[ours[mark], "density"].tolist() == [0.05]
    ratio = ours["operations_per_weight"] / ours["entropy_bits"]
    assert ratio.idxmin() == ours.index[ours["cheapest_bit"]][0]


def test_tradeoff_reading_is_computed(tradeoff):
    reading = analysis.tradeoff_reading(tradeoff)
    assert reading.count(". ") == 1, "two sentences"
    assert "fewest operations at density 0.05 (0.0573 a weight; binary in its best encoding, signed: 0.2)" in reading
    assert "fewer than that binary at 6 of 7 densities (0.05, 0.2, 0.35, 0.65, 0.8, 0.95)" in reading
    assert "table 0% and 0%" in reading
    dearer = tradeoff.assign(median_ms=tradeoff["median_ms"].where(tradeoff["scheme"] == "binary", 9.0))
    assert "less time at 0 of 7 densities;" in analysis.tradeoff_reading(dearer)


# Recipes


def test_the_recipe_is_all_that_the_quantizer_does_not_set():
    from dataclasses import fields

    from sbkit.quantizers import QuantizerConfig

    assert {field.name for field in fields(QuantizerConfig)} == set(analysis.QUANTIZER_OPTIONS)
