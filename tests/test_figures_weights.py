"""05_weights: densities, fits of latent weights against scipy, and what filters share."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawing import check, labels
from example_runs import REFERENCE
from scipy import stats

from sbkit.conv import QuantizedWeight
from sbkit.evidence import codes, runs
from sbkit.evidence.stats import interval
from sbkit.figures import weights


@pytest.fixture(scope="module")
def train():
    return runs.read(REFERENCE / "quick")


def test_density_has_a_row_per_run_and_layer(train):
    table = weights.density_table(runs.plain(train))
    assert len(table) == 5 * 3 * 6, "full precision has no layers"
    assert (table.loc[table["label"] == "binary", "density"] == 1).all()
    figure = weights.fig_density(table)
    assert set(labels(figure.axes[0])) == set(table["label"])
    check(figure)


def histograms(positive, negative, seeds=(0, 1), count=100_000):
    """A `latent_table` of one layer whose regions have these distributions (scipy's), a weight beyond 0.1 effectual."""
    edges = np.linspace(-2, 2, 42)
    rows = []
    for seed in seeds:
        for region, family, sign in (("positive", positive, 1), ("negative", negative, -1)):
            counts = np.round(count * (1 + seed) * np.diff(family.cdf(edges)))
            for left, right, number in zip(edges[:-1], edges[1:], counts, strict=True):
                row = {"label": "signed binary", "quantizer": "signed_binary", "seed": seed, "layer": "conv"}
                row |= {"region": region, "left": left, "right": right, "count": number}
                rows.append(row | {"effectual": number * (sign * left > 0.1 - 1e-9)})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("family, other", [("gaussian", "laplacian"), ("laplacian", "gaussian")])
def test_fits_find_the_distribution_that_made_the_counts(family, other):
    made = {"gaussian": stats.norm, "laplacian": stats.laplace}[family]
    bins = weights.latent_bins(histograms(made(0.1, 0.25), made(-0.15, 0.2)))
    region = bins[(bins["region"] == "positive") & (bins["part"] == "all") & (bins["seed"] == 0)]
    assert np.abs(region[family] - region["count"]).max() < 60 < np.abs(region[other] - region["count"]).max()
    assert region["count"].sum() == pytest.approx(region[family].sum()), "the outermost bins are open"
    row = weights.latent_fits(bins).set_index(["region", "part"]).loc[("positive", "all")]
    assert row[f"ks_{family}"] < 1e-3 < row[f"ks_{other}"]
    assert row["better"] == family.capitalize() and (row["difference"] > 0) == (family == "gaussian")
    assert (row["n"], row["weights"]) == (2, pytest.approx(150_000, rel=1e-3))
    assert row["mean"] == pytest.approx(0.1, abs=2e-3)


@pytest.mark.parametrize("family, made", [("gaussian", stats.norm), ("laplacian", stats.laplace)])
def test_fits_have_the_largest_likelihood(family, made):
    edges = np.linspace(-1, 2, 13)
    for counts in np.random.default_rng(0).integers(0, 50, (3, 12)).astype(float):
        best = counts @ np.log(weights.fitted(counts, edges.copy(), weights._CDF[family]))
        tried = [
            counts @ np.log(np.diff([0, *made(location, scale).cdf(edges[1:-1]), 1]))
            for location in np.linspace(-0.5, 1.5, 41)
            for scale in np.linspace(0.4, 3, 66)
        ]
        assert max(tried) <= best + 1e-9 and best < max(tried) + 0.4


def test_layers_come_in_the_network_s_order():
    latent = histograms(stats.norm(0.1, 0.25), stats.norm(-0.1, 0.25), seeds=(0,))
    layers = ["3", "10", "17"]  # those of VGG-small, as a record sorts them: 10, 17, 3
    bins = weights.latent_bins(pd.concat([latent.assign(layer=layer) for layer in sorted(layers)], ignore_index=True))
    assert bins["layer"].unique().tolist() == layers
    assert weights.latent_fits(bins)["layer"].unique().tolist() == layers


def test_fits_know_both_regions_together_and_leave_out_what_fills_too_few_bins():
    latent = histograms(stats.norm(0.1, 0.25), stats.norm(-0.1, 0.25))
    fits = weights.latent_fits(weights.latent_bins(latent)).set_index(["region", "part"])
    assert len(fits) == 9
    both, apart = fits.loc[("both", "all")], fits.loc[[("positive", "all"), ("negative", "all")]]
    assert both["weights"] == apart["weights"].sum() and both["mean"] == pytest.approx(0, abs=1e-9)
    assert fits.loc[("both", "ineffectual"), "weights"] == both["weights"] - fits.loc[("both", "effectual"), "weights"]
    few = latent.assign(effectual=latent["count"] * latent["left"].between(0.1, 0.2))
    assert "effectual" not in set(weights.latent_fits(weights.latent_bins(few))["part"])


def test_latent_weights_of_one_run_are_drawn_with_their_fits(train):
    latent = weights.latent_table(runs.find(train, "signed_binary"))
    assert (latent["effectual"] <= latent["count"]).all() and len(latent) == 3 * 3 * 2 * 41
    bins = weights.latent_bins(latent)
    figure = weights.fig_latent(weights.first_run(bins))
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == latent["layer"].unique().tolist()
    assert all(axis.texts[0].get_text().startswith("G 0.") for axis in figure.axes)
    check(figure)
    with pytest.raises(ValueError, match="fig_latent draws one run"):
        weights.fig_latent(bins)


def layer(rows, scale=1.0):
    found = np.array(rows, np.int8)
    return QuantizedWeight(found.reshape(*found.shape, 1, 1), np.full(len(found), scale, np.float32))


def test_spectrum_of_copies_and_of_orthogonal_filters():
    copies = [[1, 0, 1, 1], [-1, 0, -1, -1], [1, 0, 1, 1]]
    assert weights.spectrum(layer(copies)) == (pytest.approx(1), pytest.approx(1 / 3))
    orthogonal = layer([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]])
    assert weights.spectrum(orthogonal) == (pytest.approx(1 / 3), pytest.approx(1))
    share, rank = weights.spectrum(layer(np.zeros((3, 4))))
    assert math.isnan(share) and rank == 0
    made = np.random.default_rng(0).integers(-1, 2, (6, 4))
    p = np.linalg.svd(made.astype(float), compute_uv=False) ** 2
    assert weights.spectrum(layer(made))[0] == pytest.approx(p.max() / p.sum())


def test_imbalance_is_the_mean_over_the_deviation_of_outputs():
    weight = layer([[1, 1, 1, 1], [1, -1, 1, -1], [0, 0, 0, 0], [-1, -1, 0, 0]], scale=3)
    assert weights.imbalance(weight) == pytest.approx((2 + 0 + math.sqrt(2)) / 3)
    split = replace(weight, channel_sign=np.array([1, -1, 1, -1]))
    assert weights.imbalance(split) == pytest.approx((0 + 2 + 0) / 3)
    x = 1 + np.random.default_rng(0).standard_normal((4, 100_000))  # mean and standard deviation 1
    y = weight.dense().reshape(4, 4)[0] @ x
    assert y.mean() / y.std() == pytest.approx(2, rel=0.02)
    assert math.isnan(weights.imbalance(layer(np.zeros((2, 4)))))


def test_common_mode_compares_the_main_recipe(train):
    left = codes.of_runs(train)
    table = weights.common_mode_table(train, left).set_index("label")
    assert {"binary", "signed binary"} <= set(table.index) and "full precision" not in table.index
    assert not any("width" in label for label in table.index), "another width is another recipe"
    shares = [np.mean([weights.spectrum(w)[0] for w in left[f"binary-s{seed}"].values()]) for seed in range(3)]
    assert table.loc["binary", "leading_share"] == pytest.approx(np.mean(shares))
    assert table.loc["binary", "leading_share_half_width"] == pytest.approx(interval(shares)[1])
    assert table["leading_share"].is_monotonic_increasing
    assert table["named"].sum() == len(table) - 1 and not table.loc["signed binary, delta_factor = 0.2", "named"]
    figure = weights.fig_common_mode(table.reset_index())
    assert len(labels(figure.axes[0])) == table["named"].sum()
    check(figure)
    assert weights.common_mode_table(train, {}).empty
