"""Tables of the accelerator model and their figures, on codes that are made up and on committed records."""

import math

import numpy as np
import pytest
from drawing import check, labels
from example_runs import REFERENCE, frame
from pandas import DataFrame

from sbkit import energy as model
from sbkit.conv import RESNET18_SHAPES
from sbkit.energy import Accelerator, Codes
from sbkit.evidence import benchmarks, runs
from sbkit.evidence.gather import Evidence, gather
from sbkit.figures import energy, style
from sbkit.way import Way


def codes(scheme, density, adds=0.0, encoding="two_group"):
    """Codes with graphs of so many additions per weight and position in every layer of ResNet-18, 0 for none."""
    places = {model.place(shape): adds * shape.weights for shape in RESNET18_SHAPES} if adds else {}
    return Codes(scheme, density, encoding, places)


OURS, BINARY, TERNARY = codes("signed_binary", 0.35, 0.15), codes("binary", 1.0, 0.35), codes("ternary_twn", 0.58)
KNOWN = [BINARY, codes("binary", 1.0, 0.2, "rewritten"), OURS, TERNARY, Codes("full_precision", 1.0)]


@pytest.fixture(scope="module")
def evidence():
    return gather(REFERENCE / "quick")


@pytest.fixture(scope="module")
def sensitivity():
    return energy.sensitivity_table(OURS, BINARY)


# Codes


def test_codes_are_known_from_training_and_from_a_benchmark():
    shape = RESNET18_SHAPES[4]
    assert shape.stride == 2
    trained = [("binary", 1.0, 0), ("binary", 1.0, 1), ("zero_one", 0.2, 0), ("zero_one", 0.3, 1)]
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
            counted(Way("dataflow", "ternary_twn"), 150, 0.58),
            counted(Way("dataflow", "ternary_twn", skip_zeros=False), 90, 0.58),
            counted(Way("table", "ternary_twn"), 50, 0.58),
        ]
    )
    place = (64, 56, 128, 2)
    assert energy.known_codes(Evidence(train, benchmarks.timed(bench), {})) == [
        Codes("binary", 1.0, "two_group", {place: 200}),
        Codes("binary", 1.0, "rewritten", {place: 110}),
        Codes("ternary_twn", 0.58, "two_group", {place: 150}),
        Codes("zero_one", 0.25),
    ]
    nothing = Evidence(runs.grouped(DataFrame()), DataFrame(), {})
    assert energy.known_codes(nothing) == []


# Tables


def test_energy_adds_up_over_parts_and_layers():
    table = energy.energy_table(KNOWN)
    parts = table[[f"{part}_uj" for part in model.PARTS]].sum(axis=1)
    assert parts.to_list() == pytest.approx(table["energy_uj"].to_list())
    place = ["variant", "scheme", "encoding"]
    whole = table[table["layer"] == "all"].set_index(place)
    layers = table[table["layer"] != "all"].groupby(place, sort=False)
    for column in ("energy_uj", "latency_ms", "count"):
        assert layers[column].sum().to_dict() == pytest.approx(whole[column].to_dict())
    assert (whole["images_per_second"] * whole["latency_ms"]).to_list() == pytest.approx([1000] * len(whole))
    expected = model.compare(OURS, BINARY, Accelerator())
    ours = whole.loc[("sparse", "signed_binary", "two_group")]
    assert ours[["energy_over_binary", "throughput_over_binary"]].to_list() == pytest.approx(list(expected))
    graphs = whole[whole.index.get_level_values("variant") == "repetition"]
    assert list(graphs["label"]) == ["binary", "binary, rewritten", "signed binary"]
    exact = whole[whole.index.get_level_values("scheme") == "full_precision"]
    assert list(exact.index.get_level_values("variant")) == ["dense"]
    assert energy.energy_table([OURS])["energy_over_binary"].isna().all(), "no binary, no ratio"


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
    known = energy.by_scheme(energy.known_codes(evidence))
    expected = model.compare(known["signed_binary"], known["binary"], Accelerator())
    assert modelled.loc["throughput", "value"] == pytest.approx(expected.throughput, rel=1e-3)


def test_a_missing_record_is_named_and_not_drawn():
    table = energy.ratios_table(Evidence(runs.grouped(DataFrame()), DataFrame(), {}))
    assert table["value"].isna().all() and table["note"].str.startswith("missing: a ").all()
    with pytest.raises(ValueError, match="fig_ratios got no value"):
        energy.fig_ratios(table)


# Figures


def test_energy_stacks_its_parts_and_leaves_full_precision_out():
    table = energy.energy_table(KNOWN)
    figure = energy.fig_energy(table)
    left, right = figure.axes
    shown = table[(table["layer"] == "all") & (table["scheme"] != "full_precision")]
    assert len(left.patches) == 4 * len(shown) and len(right.patches) == len(shown)
    ends = [bar.get_x() + bar.get_width() for bar in left.patches[-len(shown) :]]
    assert ends == pytest.approx((shown["energy_uj"] / 1e3).to_list())
    names = [tick.get_text() for tick in left.get_yticklabels()]
    assert "binary, rewritten" in names and "full precision" not in names
    assert any(text.endswith("(1.00×)") for text in labels(left))
    check(figure)


def test_sensitivity_shows_the_base_the_paper_and_the_outermost(sensitivity):
    figure = energy.fig_energy_sensitivity(sensitivity)
    axis = figure.axes[0]
    assert "paper 0.51" in labels(axis) and "dense" in labels(axis)
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert "activation bits in memory (32)" in names and len(names) == sensitivity["assumption"].nunique()
    check(figure)


def test_ratios_draw_ranges_and_the_paper(evidence):
    table = energy.ratios_table(evidence)
    figure = energy.fig_ratios(table)
    [axis] = figure.axes
    hollow = [line for line in axis.lines if line.get_marker() == style.PAPER["marker"]]
    papers = [line.get_xdata()[0] for line in hollow if not math.isnan(line.get_xdata()[0])]
    assert papers == table["paper"].dropna().to_list()
    bands = [line for line in axis.lines if line.get_alpha() == 0.35]
    assert [tuple(line.get_xdata()) for line in bands] == [
        (row.low, row.high) for row in table.itertuples() if row.of == "assumptions"
    ]
    check(figure)
