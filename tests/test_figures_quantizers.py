"""01_quantizers: curves of recorded quantizers, and the threshold that a slider moves."""

import numpy as np
import pytest
from drawing import check
from example_runs import REFERENCE

from sbkit.evidence import runs
from sbkit.figures import quantizers


@pytest.fixture(scope="module")
def train():
    return runs.read(REFERENCE / "quick")


def test_a_group_has_a_curve_for_each_sign(train):
    table = quantizers.response_table(runs.plain(train))
    betas = table.groupby("label")["beta"].agg(lambda column: set(column.dropna()))
    assert betas["signed binary"] == {-1, 1} and betas["binary"] == set()
    binary = table[table["label"] == "binary"]
    assert len(binary) == 81 and set(binary["forward"]) == {-1, 1}
    figure = quantizers.fig_quantizers(table)
    assert len(figure.axes) == 2 * 7 and not figure.legends
    check(figure)


def test_an_estimator_that_changes_has_three_gradients(train):
    table = quantizers.response_table(train[train["estimator"] == "sb_ede"])
    figure = quantizers.fig_quantizers(table)
    assert [len(axis.lines) for axis in figure.axes] == [2, 2, 4, 4], "each with the line at 0"
    check(figure)


@pytest.mark.parametrize("delta_factor", [0.0, 0.05, 0.9])
def test_the_moved_threshold_is_the_quantizer_s(delta_factor):
    table = quantizers.threshold_table(delta_factor, progress=1.0)
    assert set(table["beta"]) == {1, -1}
    for beta, rows in table.groupby("beta"):
        delta = delta_factor * rows["w"].abs().max()
        assert (rows["code"] == beta * (beta * rows["w"] >= delta)).all()
        steepest = rows.loc[rows["sb_ede"].idxmax(), "w"]
        assert steepest == pytest.approx(beta * delta, abs=0.5) and rows["sb_ede"].max() <= 10
    check(quantizers.fig_threshold(table))


def test_the_estimator_starts_flat_and_sharpens():
    start, end = (quantizers.threshold_table(progress=progress)["sb_ede"] for progress in (0.0, 1.0))
    assert start.max() == pytest.approx(1, abs=1e-3) and start.min() > 0.5
    assert end.max() > 9 and np.median(end) < 0.1


def test_the_slider_agrees_with_the_recorded_quantizer():
    torch = pytest.importorskip("torch")
    from sbkit import quantizers as trained

    config = trained.QuantizerConfig(estimator="sb_ede", delta_factor=0.2)
    table = quantizers.threshold_table(0.2, progress=0.3)
    w = torch.tensor(table["w"].to_numpy(), dtype=torch.float32).reshape(2, -1, 1, 1)
    quantizer = trained.make_quantizer(config, tuple(w.shape), torch.Generator())
    quantizer.set_progress(0.3)
    w.requires_grad_(True)
    out = quantizer(w)
    out.sum().backward()
    np.testing.assert_allclose(out.detach().numpy().ravel(), table["code"], atol=1e-6)
    np.testing.assert_allclose(w.grad.numpy().ravel(), table["sb_ede"], rtol=2e-3, atol=1e-6)
