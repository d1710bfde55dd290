"""05_weights: densities by layer, and histograms of latent weights."""

import numpy as np
import pytest
from drawing import check, labels
from example_runs import REFERENCE
from scipy import stats

from sbkit.evidence import runs
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


def test_moments_are_those_of_the_distribution():
    edges = np.linspace(-2, 2, 400)
    for made in (stats.norm(0.1, 0.25), stats.laplace(-0.2, 0.2)):
        found = weights.moments((edges[1:] + edges[:-1]) / 2, np.diff(made.cdf(edges)))
        assert found == pytest.approx((made.mean(), made.std()), rel=1e-2)


def test_latent_weights_of_one_run_are_drawn(train):
    table = weights.latent_table(runs.find(train, "signed_binary"))
    assert (table["effectual"] <= table["count"]).all() and len(table) == 3 * 3 * 3 * 41
    totals = table.groupby(["seed", "layer", "region"])["count"].sum().unstack()
    assert (totals["both"] == totals["positive"] + totals["negative"]).all()
    with pytest.raises(ValueError, match="fig_latent draws one run"):
        weights.fig_latent(table)
    figure = weights.fig_latent(table[table["seed"] == 0])
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == table["layer"].unique().tolist()
    check(figure)


def test_layers_come_in_the_networks_order():
    assert sorted(["10", "17", "3"], key=weights._with_numbers) == ["3", "10", "17"]
    assert sorted(["layer2.0", "layer1.10", "layer1.2"], key=weights._with_numbers)[-1] == "layer2.0"
