"""Integers beside int8 libraries, against ratios done by hand on two layers and two rounds."""

import numpy as np
import pytest
from drawing import check
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.evidence import integers as forms
from sbkit.evidence.integers import ALIKE, ANY, BINARY, integers_table
from sbkit.figures import integers
from sbkit.way import Way

ONEDNN, FBGEMM = (Way("torch", precision="int8", variant=engine) for engine in ("onednn", "fbgemm"))
FLOATS = Way("torch", variant="channels_last")
SIGNED, TABLE, REWRITTEN = (
    Way("lookup", "signed_binary", activation_bits=6),
    Way("table", "binary", activation_bits=6),
    Way("lookup", "binary", "rewritten", activation_bits=6),
)
MILLISECONDS = {  # of two rounds in the layers "one" and "two"
    ONEDNN: ((8.0, 8.0), (2.0, 4.0)),
    FBGEMM: ((4.0, 4.0), (9.0, 9.0)),
    FLOATS: ((16.0, 16.0), (16.0, 16.0)),
    SIGNED: ((2.0, 2.0), (2.0, 2.0)),
    TABLE: ((4.0, 4.0), (9.0, 9.0)),
    REWRITTEN: ((8.0, 8.0), (8.0, 8.0)),
}


def bench(*isas):
    rows = [
        {"name": f"a-{isa}", "study": "integers", "shapes": "resnet18", "threads": 1, "batch": 1, "layer": layer}
        | {"config": {"isa": isa} if isa != "auto" else {}, "way": way.options(), "round_ms": list(rounds)}
        | {"isa": isa if way is ONEDNN and isa != "auto" else "", "min_ms": min(rounds)}
        | {"median_ms": float(np.median(rounds))}
        | {"gmacs": 100 / float(np.median(rounds)), "flagged": False, "provenance_cpu": "x"}
        | {"provenance_isa": isa, "provenance_started_utc": "2026-01-01"}
        for isa in isas
        for way, layers in MILLISECONDS.items()
        for layer, rounds in zip(("one", "two"), layers, strict=True)
    ]
    return benchmarks.timed(DataFrame(rows))


@pytest.fixture
def table():
    return integers_table(bench("auto", "avx2"))


def test_ratios_are_of_the_fastest_in_each_layer_and_round(table):
    table = integers.times_table(table).set_index(["may_use", "over", "form"])
    times = table["rounds"]
    best = np.mean([np.sqrt(4 / 2 * 2 / 2), np.sqrt(4 / 2 * 4 / 2)])  # FBGEMM in layer one, oneDNN in layer two
    held = np.mean([np.sqrt(8 / 2 * 2 / 2), np.sqrt(8 / 2 * 4 / 2)])  # oneDNN alone
    assert times["all instructions", ALIKE, "signed binary"] == pytest.approx(best)
    assert times["AVX2 alone", ALIKE, "signed binary"] == pytest.approx(held)
    assert times["AVX2 alone", ANY, "signed binary"] == pytest.approx(best)
    assert times["AVX2 alone", BINARY, "signed binary"] == pytest.approx(np.sqrt(4 / 2 * 8 / 2))
    assert table.loc[("all instructions", ALIKE, "signed binary"), "times"] == pytest.approx(np.sqrt(4 / 2 * 2 / 2))
    assert ("all instructions", ANY, "signed binary") not in times.index
    assert not any(over == BINARY and form == "binary" for _, over, form in times.index)


def test_people_see_a_column_for_each_number_of_bits(table):
    found = integers.times_summary(integers.times_table(table))
    assert list(found) == ["may_use", "over", "form", "6 bits"]
    assert list(found["over"]) == [ALIKE, ALIKE, BINARY, ALIKE, ALIKE, ANY, ANY, BINARY]
    assert found["6 bits"].iloc[2] == "2.83; 2.83 ± 0.00 (n=2)"


def test_throughput_is_that_of_the_fastest(table):
    found = integers.throughput_table(table).set_index(["may_use", "layer", "form"])
    assert found.loc[("all instructions", "two", "binary"), "gmacs"] == 100 / 8
    assert found.loc[("AVX2 alone", "one", ALIKE), "gmacs"] == 100 / 8
    assert found.loc[("AVX2 alone", "one", ANY), "label"] == FBGEMM.label()
    assert found.loc[("AVX2 alone", "one", ""), "gmacs"] == 100 / 16


def test_the_figure_has_a_panel_for_each_layer_and_instruction_set(table):
    figure = integers.fig_integers(integers.throughput_table(table))
    assert [axis.get_title() for axis in figure.axes] == ["one", "two", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["all instructions", "AVX2 alone"]
    assert [len(axis.lines) for axis in figure.axes] == [5 + 2, 5 + 2, 5 + 3, 5 + 3]
    check(figure)
    with pytest.raises(ValueError, match="fig_integers got an empty table"):
        integers.fig_integers(DataFrame())


def test_whole_networks_are_held_against_the_best_int8_network():
    whole = bench("auto", "avx2")
    whole = whole[whole["layer"] == "two"].assign(study="network_integers", model="resnet18", weight_bytes=5e3)
    found = integers.networks_table(integers_table(whole, "network_integers"))
    rows = found.set_index(["may_use", "form"])
    assert list(rows.loc["all instructions"].index) == [forms.FLOATS, ALIKE, "signed binary", "binary"]
    assert rows.loc[("all instructions", "signed binary"), "times"] == 2 / 2  # oneDNN's least time
    assert rows.loc[("all instructions", "signed binary"), "rounds"] == np.mean([2 / 2, 4 / 2])
    assert rows.loc[("AVX2 alone", "binary"), "ms"] == 8 and set(rows["kilobytes"]) == {5}
    assert list(rows["bits"]) == 2 * [32, 8, 6, 6]
    summary = integers.networks_summary(found)
    assert summary["form"][1] == f"{ALIKE}: {ONEDNN.label()}"
    assert summary["times"][2] == "1.00; 1.50 ± 6.35 (n=2)"
    overview = integers.networks_overview(found)
    assert list(overview) == ["network", "may_use", "int8", "signed binary", "binary"]
    assert overview["may_use"].tolist() == ["all instructions", "AVX2 alone"]
    assert overview["signed binary"][0] == "1.50 ± 6.35 (n=2)"
    assert overview["int8"][0] == f"{rows.loc[('all instructions', ALIKE), 'ms']:.3g} ms, torch onednn"
    assert integers.networks_table(DataFrame()).empty


def test_without_int8_libraries_ours_are_beside_binary_alone(committed):
    """As on a machine where torch has no engine for them, and neither ONNX Runtime nor OpenVINO is installed."""
    bench = committed("int8")._evidence.bench
    bench = bench[bench["precision"] != "int8"]
    layers = integers_table(bench)
    times = integers.times_summary(integers.times_table(layers))
    assert set(times["over"]) == {BINARY} and len(times) == 3
    check(integers.fig_integers(integers.throughput_table(layers)))
    networks = integers.networks_table(integers_table(bench, "network_integers"))
    overview = integers.networks_overview(networks)
    assert len(overview) == 10 and (overview.drop(columns=["network", "may_use"]) == "-").all(axis=None)
    summary = integers.networks_summary(networks)
    assert set(summary["times"]) == {"-"} and not summary["ms"].str.contains("nan").any()


def test_a_profile_without_the_study_has_no_table():
    assert integers_table(DataFrame()).empty
    assert integers_table(bench("auto").assign(study="layers")).empty
