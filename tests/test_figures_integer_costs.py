"""One parameter at a time, the fastest of each form, and what the figure and tables make of a small real benchmark."""

import numpy as np
import pytest
from drawing import check
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.evidence.integers import ALIKE, ANY, integers_table
from sbkit.figures import integer_costs

STUDY = {"study": "integer_costs", "shapes": "tiny", "peers": False, "rounds": 2, "min_run_ms": 0.1}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Real timings of a tiny layer with everything but C, K and the image varied."""
    pytest.importorskip("torch")
    from sbkit.bench import BenchConfig, run

    folder = tmp_path_factory.mktemp("profile")
    for name, options in (("b", {}), ("a", {"batch": 8}), ("c", {"threads": 2})):
        run(BenchConfig(**STUDY | options), folder, name)
    return benchmarks.read(folder)


@pytest.fixture
def costs(bench):
    return integer_costs.narrowest(integers_table(bench, "integer_costs"))


@pytest.fixture
def sizes(costs):
    """The timings of 6 bits as if they were those of several layers, which take as long as their C, K and positions."""
    usual = costs[(costs["batch"] == 1) & (costs["threads"] == 1) & costs["activation_bits"].isin([6, 32])]
    parts = [
        usual.assign(C=C, K=K, H=H, W=H, layer=f"{C}→{K} @{H}", min_ms=(C * K * H * H) / 1e4)
        for C, K, H in ((8, 8, 8), (4, 8, 8), (16, 8, 8), (8, 16, 8), (8, 8, 4))
    ]
    return DataFrame([row for part in parts for row in part.to_dict("records")])


def test_one_parameter_at_a_time(sizes, costs):
    table = integer_costs.costs_table(sizes, costs)
    assert list(dict.fromkeys(table["parameter"])) == list(integer_costs.PARAMETERS)
    values = {
        parameter: sorted(set(found.loc[found["form"] == "signed binary", "value"]))
        for parameter, found in table.groupby("parameter")
    }
    assert values["C"] == [4, 8, 16] and values["K"] == [8, 16] and values["positions"] == [16, 64]
    assert values["batch"] == [1, 8] and values["threads"] == [1, 2] and values["activation_bits"] == [2, 4, 6, 8]
    assert values["density"] == sorted(
        costs.loc[costs["label"] == "table, signed binary, 6-bit activations", "density"][:5]
    )
    base = table[table["base"] & (table["form"] == "signed binary") & ~table["parameter"].isin(["C", "K", "positions"])]
    assert len(base) == 4 and base["ms"].nunique() == 1, "the base is one and the same timing in every panel"
    assert not table.duplicated(["parameter", "form", "value"]).any()


def test_the_fastest_way_counts(costs):
    table = integer_costs.costs_table(DataFrame(), costs)
    [row] = table[(table["parameter"] == "batch") & (table["value"] == 8) & (table["form"] == "binary")].to_dict(
        "records"
    )
    same = costs[(costs["batch"] == 8) & (costs["scheme"] == "binary") & (costs["activation_bits"] == 6)]
    assert len(same) == 4 and row["ms"] == same["min_ms"].min() and row["way"] in set(same["label"])


def test_a_library_held_to_fewer_instructions_is_among_those_with_any(costs):
    own = costs["label"] == "torch onednn int8"
    held = costs.assign(
        isa=np.where(own, "avx2", costs["isa"]),
        form=np.where(costs["label"] == "torch fbgemm int8", ANY, costs["form"]),
    )
    held["min_ms"] = np.where(own, 1e-9, held["min_ms"])
    table = integer_costs.costs_table(DataFrame(), held)
    assert set(table.loc[~table["ours"], "form"]) == {ALIKE, ANY}
    assert (table.loc[~table["ours"], "ms"] == 1e-9).all()


def test_growth_is_told_for_people(sizes, costs):
    summary = integer_costs.costs_summary(integer_costs.costs_table(sizes, costs)).set_index("parameter")
    assert list(summary.loc["channels C: 4 to 16"]) == ["4", *4 * ["4.00"]]
    [density] = [name for name in summary.index if name.startswith("density of the codes: 0.0")]
    assert list(summary.loc[density, ["binary", ALIKE]]) == ["", ""]
    assert float(summary.loc[density, "signed binary"]) > 0


def test_the_figure_has_a_panel_for_each_parameter(sizes, costs):
    figure = integer_costs.fig_integer_costs(integer_costs.costs_table(sizes, costs))
    assert [axis.get_xlabel() for axis in figure.axes] == [*integer_costs.PARAMETERS.values(), ""]
    assert all(axis.get_xscale() == axis.get_yscale() == "log" for axis in figure.axes[:-1])
    channels, threads = figure.axes[0].lines[-1], figure.axes[6].lines[-1]
    assert np.ptp(channels.get_ydata() / channels.get_xdata()) < 1e-12, "in proportion"
    assert np.ptp(threads.get_ydata() * threads.get_xdata()) < 1e-12, "in proportion to the inverse"
    labels = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert labels[0] == "signed binary" and labels[-1] == "in proportion" and len(labels) == 5
    check(figure)
    with pytest.raises(ValueError, match="fig_integer_costs got an empty table"):
        integer_costs.fig_integer_costs(DataFrame())


def test_studies_of_different_machines_do_not_compare(sizes, costs):
    with pytest.raises(ValueError, match=r"do not compare; provenance_cpu: .*other.*; allowed: one of them"):
        integer_costs.costs_table(sizes.assign(provenance_cpu="other"), costs)
    assert integer_costs.costs_table(sizes, DataFrame()).empty
    assert integer_costs.narrowest(DataFrame()).empty


def test_the_fewest_instructions_are_taken(costs):
    both = DataFrame([*costs.to_dict("records"), *costs.assign(may_use="AVX2 alone").to_dict("records")])
    assert set(integer_costs.narrowest(both)["may_use"]) == {"AVX2 alone"}


def test_trained_codes_are_compared_within_a_round():
    rounds = [("random", [2.0, 4.0]), ("random", [9.0, 9.0]), ("trained", [3.0, 4.0]), ("trained", [8.0, 8.0])]
    place = {"shapes": "resnet20", "layer": "one", "design": "random_signs"}
    rows = [place | {"codes": codes, "density": len(codes), "round_ms": ms, "min_ms": min(ms)} for codes, ms in rounds]
    [row] = integer_costs.codes_table(DataFrame(rows)).to_dict("records")
    assert (row["least"], row["rounds"], row["n"]) == (3 / 2, np.mean([3 / 2, 4 / 4]), 2)
    assert (row["µs_random"], row["density_trained"]) == (2000, 7)
    summary = integer_costs.codes_summary(DataFrame([row]))
    assert summary["density: random; trained"][0] == "6.00; 7.00"
    assert summary["codes"][0] == "random fine signs" and summary["trained over random"][0].startswith("1.50; 1.25 ±")
