"""Tables of the accelerator model and their figures, on codes that are made up and on committed records."""

import numpy as np
import pytest
from drawing import check, labels
from example_runs import REFERENCE, frame
from pandas import DataFrame

from sbkit import energy as model
from sbkit.conv import NETWORK_SHAPES
from sbkit.energy import Accelerator, Codes
from sbkit.evidence import benchmarks, runs
from sbkit.evidence.gather import Evidence, gather
from sbkit.figures import energy, style
from sbkit.way import Way


def codes(scheme, density, adds):
    """Codes with graphs of so many additions per weight and position in every layer of ResNet-18."""
    places = {model.place(shape): adds * shape.weights for shape in NETWORK_SHAPES["resnet18"]}
    return Codes(scheme, density, places)


OURS, BINARY, TERNARY = codes("signed_binary", 0.35, 0.15), codes("binary", 1.0, 0.35), Codes("ternary_twn", 0.58)


@pytest.fixture(scope="module")
def evidence():
    return gather(REFERENCE / "quick")


@pytest.fixture(scope="module")
def sensitivity():
    return energy.sensitivity_table(OURS, BINARY)


# Codes


def test_codes_are_known_from_training_and_from_a_benchmark():
    shape = NETWORK_SHAPES["resnet18"][4]
    assert shape.stride == 2
    trained = [("binary", 1.0, 0), ("binary", 1.0, 1), ("zero_one", 0.2, 0)]
    options = ({"quantizer": scheme, "seed": seed, "density": density} for scheme, density, seed in trained)
    rows = [(f"{o['quantizer']}-s{o['seed']}", 80.0, o) for o in options]
    train = frame(*rows)
    train["config"] = [{key: config[key] for key in ("quantizer", "seed")} for config in train["config"]]
    train = runs.grouped(train)

    def counted(way, adds, density):
        record = {"name": "operations", "study": "operations", "shapes": "resnet18", "threads": 1, "batch": 1}
        record |= {"C": shape.C, "H": shape.H, "K": shape.K, "stride": float(shape.stride), "way": way.options()}
        record |= {"density": density, "adds": adds * shape.P * shape.Q, "provenance_started_utc": "2026-01-01"}
        return record | {"provenance_cpu": "x", "provenance_isa": "avx2"}

    bench = DataFrame(
        [
            counted(Way("dataflow", "binary"), 200, 1.0),
            counted(Way("dataflow", "binary", "rewritten"), 110, 1.0),
            counted(Way("dataflow", "signed_binary"), 150, 0.35),
            counted(Way("dataflow", "signed_binary", skip_zeros=False), 90, 0.35),
            counted(Way("table", "signed_binary"), 50, 0.35),
        ]
    )
    place = (64, 56, 128, 2)
    assert energy.known_codes(Evidence(train, benchmarks.timed(bench), {})) == {
        "binary": Codes("binary", 1.0, {place: 200}),
        "signed_binary": Codes("signed_binary", 0.35, {place: 150}),
    }
    trained = Evidence(train, benchmarks.timed(DataFrame()), {})
    assert energy.known_codes(trained) == {"binary": Codes("binary", 1.0)}
    nothing = Evidence(runs.grouped(DataFrame()), DataFrame(), {})
    assert energy.known_codes(nothing) == {}


# Tables


def test_what_moves_the_energy_most_comes_first(sensitivity):
    spans = sensitivity.groupby("assumption", sort=False)["energy"].agg(np.ptp)
    assert spans.is_monotonic_decreasing
    base = sensitivity[sensitivity["base"]]
    assert len(base) == len(spans) and set(base["energy"]) == {model.compare(OURS, BINARY, Accelerator()).energy}
    bits = sensitivity["assumption"] == "activation bits in memory"
    assert list(sensitivity.loc[bits, "value"]) == ["8", "16", "32"]
    assert set(sensitivity["paper_energy"]) == {0.51} and set(sensitivity["paper_throughput"]) == {2.86}
    assert energy.sensitivity_table(OURS, TERNARY)["paper_energy"].isna().all()


def test_ratios_of_committed_records(evidence):
    table = energy.ratios_table(evidence).set_index(["source", "quantity"])
    density = evidence.train.loc[evidence.train["name"].str.fullmatch(r"signed_binary-s\d"), "density"].mean()
    assert table.loc[("trained", "density"), "value"] == pytest.approx(density)
    assert table["paper"].to_list()[:4] == [0.51, 2.86, 0.78, 0.35] and (table["note"] == "").all()
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    modelled = table.loc["modelled"]
    assert (
        set(modelled["of"]) == {"assumptions"} and modelled.loc["energy", "high"] > modelled.loc["energy", "low"] + 0.1
    )
    known = energy.known_codes(evidence)
    expected = model.compare(known["signed_binary"], known["binary"], Accelerator())
    assert modelled.loc["throughput", "value"] == pytest.approx(expected.throughput, rel=1e-3)


def test_a_missing_record_is_named_and_not_drawn():
    table = energy.ratios_table(Evidence(runs.grouped(DataFrame()), DataFrame(), {}))
    assert table["value"].isna().all() and table["note"].str.startswith("missing: a ").all()
    with pytest.raises(ValueError, match="fig_ratios got no value"):
        energy.fig_ratios(table)


# Figures


def test_figures_show_the_paper_and_stay_readable(evidence, sensitivity):
    figure = energy.fig_energy_sensitivity(sensitivity)
    assert {"paper 0.51", "dense"} <= set(labels(figure.axes[0]))
    check(figure)
    table = energy.ratios_table(evidence)
    figure = energy.fig_ratios(table)
    hollow = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == style.PAPER["marker"]]
    assert [value for value in hollow if value == value] == table["paper"].dropna().to_list()
    check(figure)
