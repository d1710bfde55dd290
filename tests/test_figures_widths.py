"""The table and the figure of widths at equal latency, on timings of two networks."""

import numpy as np
import pytest
from drawing import check
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.evidence.integers import integers_table
from sbkit.figures import widths
from sbkit.way import AUTO, Way

INT8 = [Way(library, precision="int8") for library in ("openvino", "onnxruntime")]
SIGNED, MASKS, EIGHT = (
    Way(AUTO, "signed_binary", activation_bits=6),
    Way(AUTO, "signed_binary", regions=8, codebook_bits=4, activation_bits=6),
    Way(AUTO, "signed_binary", activation_bits=8),
)


def timed(width, isa, way, ms, held=""):
    row = {"name": f"{width}_{isa}", "study": "network_integers", "shapes": "resnet20", "model": "resnet20"}
    row |= {"width": width, "threads": 1, "batch": 1, "config": {} if isa == "auto" else {"isa": isa}}
    row |= {"way": way.options(), "isa": held, "layer": "network", "min_ms": ms, "round_ms": [ms, ms]}
    return row | {"provenance_cpu": "x", "provenance_isa": isa, "provenance_started_utc": f"2026-01-{width + 1:02}"}


@pytest.fixture
def table():
    rows = [timed(0, "auto", way, 1.0) for way in (*INT8, SIGNED)]  # a network of no width that was asked for
    for isa, held in (("auto", ""), ("avx2", "avx2")):
        for width, ms in ((8, 1.0), (16, 4.0)):
            rows += [timed(width, isa, INT8[0], ms, held), timed(width, isa, INT8[1], ms / 2)]
            rows += [timed(width, isa, SIGNED, ms / 2, isa), timed(width, isa, MASKS, ms / 4, isa)]
            rows.append(timed(width, isa, EIGHT, ms / 2, isa))
    return widths.widths_table(integers_table(benchmarks.timed(DataFrame(rows)), "network_integers"))


def test_each_network_is_beside_the_fastest_dense_ones_of_the_same_instructions(table):
    found = table.set_index(["may_use", "form", "width"])
    assert found.loc[("all instructions", "signed binary", 16), "value"] == pytest.approx(1)
    assert found.loc[("AVX2 alone", "signed binary", 16), "value"] == pytest.approx(2**0.5)
    assert found.loc[("AVX2 alone", "signed binary, 16 masks of 8 channels", 16), "wide"] == "2.00; 2.00 ± 0.00 (n=2)"
    assert found.loc[("AVX2 alone", "signed binary", 8), "wide"] == "> 1.00"
    assert found.loc[("AVX2 alone", "signed binary", 8)]["value"] == np.inf
    assert len(found) == 2 * 2 * 2, "8 bits and networks of their own width are left out"


def test_people_see_a_column_for_each_form(table):
    summary = widths.widths_summary(table)
    masks = "signed binary, 16 masks of 8 channels"
    assert list(summary) == ["network", "may_use", "width", masks, "signed binary"]
    assert summary["may_use"].tolist() == 2 * ["all instructions"] + 2 * ["AVX2 alone"]
    assert summary[masks].tolist() == ["> 1.00", "1.41; 1.41 ± 0.00 (n=2)", "> 1.00", "2.00; 2.00 ± 0.00 (n=2)"]


def test_the_figure_has_a_panel_for_each_instruction_set(table):
    figure = widths.fig_widths(table)
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "milliseconds an image\n(all instructions)",
        "milliseconds an image\n(AVX2 alone)",
    ]
    check(figure)


def test_without_int8_libraries_there_are_dashes_and_a_figure_without_points():
    alone = [timed(width, "auto", SIGNED, 1.0) for width in (8, 16)]
    table = widths.widths_table(integers_table(benchmarks.timed(DataFrame(alone)), "network_integers"))
    assert table["wide"].tolist() == ["-", "-"] and table["value"].isna().all()
    assert widths.widths_summary(table)["signed binary"].tolist() == ["-", "-"]
    check(widths.fig_widths(table))


def test_a_profile_without_widths_has_no_table():
    assert widths.widths_table(DataFrame()).empty
    rows = [timed(0, "auto", way, 1.0) for way in (*INT8, SIGNED)]
    assert widths.widths_table(integers_table(benchmarks.timed(DataFrame(rows)), "network_integers")).empty
