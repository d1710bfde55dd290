"""Tables of speed against sums done by hand, and figures of the committed benchmarks."""

import numpy as np
import pytest
from drawing import check, labels
from example_runs import REFERENCE
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.figures import speed
from sbkit.way import Way

TORCH, OPENVINO = Way("torch", variant="contiguous"), Way("openvino")
BINARY, SIGNED, OURS = Way("table", "binary"), Way("table", "binary", "signed"), Way("table", "signed_binary")


def timing(way, layer, *rounds, **changes):
    return {
        "name": "a", "study": "layers", "shapes": "resnet18", "threads": 1, "batch": 1, "layer": layer,
        "K": 64, "C": 64, "median_ms": float(np.median(rounds)), "iqr_ms": 0.1, "min_ms": min(rounds),
        "round_ms": list(rounds), "way": way.options(),
        "chosen_group": 6 if way.scheme else 0, "density": 1.0, "gmacs": 1.0, "reduction": 1.0,
        "best_reduction": 1.0, "weight_bytes": 400 if way.scheme == "" else 50, "plan_seconds": 0.25, "flagged": False,
    } | changes  # fmt: skip


@pytest.fixture(scope="module")
def layers():
    """Two layers, two rounds. In round 2 torch takes twice its time."""
    rows = []
    for layer, factor in (("one", 1.0), ("two", 3.0)):
        rows.append(timing(TORCH, layer, 4 * factor, 8 * factor))
        rows.append(timing(BINARY, layer, 2 * factor, 2 * factor))
        rows.append(timing(SIGNED, layer, 1.0, 1.0))
    rows += [timing(OPENVINO, "one", 3.0, 3.0), timing(OPENVINO, "two", 30.0, 30.0)]
    rows.append(timing(OURS, "one", 0.5, 0.5))
    return benchmarks.timed(DataFrame(rows))


def test_references_are_the_best_of_each_layer(layers):
    table = speed.speed_table(layers)
    assert set(table.loc[table["reference"], "way"]) == {TORCH}
    best = table[table["reference_fp32"]].set_index("layer")["way"]
    assert best.to_dict() == {"one": OPENVINO, "two": TORCH}


def test_speed_is_compared_within_rounds_and_summed_over_layers(layers):
    speedup = speed.speedup_table(speed.speed_table(layers))
    table = speedup.set_index(["over", "way", "layer"])
    over = "best fp32 torch"
    assert table.loc[(over, BINARY, "one"), "speedup"] == 3.0  # the mean of 4/2 and 8/2
    assert table.loc[(over, SIGNED, "all"), "speedup"] == 12.0  # of 16/2 and 32/2
    assert table.loc[(over, SIGNED, "geometric mean"), "speedup"] == pytest.approx((np.sqrt(48) + np.sqrt(192)) / 2)
    half = 12.706 * np.std([2, 4], ddof=1) / np.sqrt(2)  # Student's t, one degree of freedom
    assert table.loc[(over, BINARY, "one"), "speedup_half_width"] == pytest.approx(half, rel=1e-4)
    assert table.loc[("best fp32 of all", BINARY, "one"), "speedup"] == 1.5
    assert table.loc[("best binary", BINARY, "all"), "speedup"] == 0.25, "the fastest encoding is the reference"
    assert set(speedup.loc[speedup["way"] == OURS, "layer"]) == {"one"}, "no sum without all layers"


def test_people_see_a_row_for_each_contender_and_reference(layers):
    table = speed.speedup_summary(speed.speedup_table(speed.speed_table(layers)))
    assert list(table) == ["over", "label", "one", "two", "all", "geometric mean"]
    row = table[(table["over"] == "best fp32 torch") & (table["label"] == "table, signed binary")].iloc[0]
    assert row["one"].startswith("12.00 ± ") and row["all"] != row["all"]


def test_a_training_step_is_over_full_precision_in_the_same_arithmetic():
    def step(design, precision, *rounds):
        return timing(Way("training", variant=design, precision=precision), "step", *rounds, batch=10)

    rows = [step("full_precision", "fp32", 10.0, 20.0), step("binary", "fp32", 11.0, 22.0)]
    rows += [step("full_precision", "bf16", 5.0, 10.0), step("binary", "bf16", 6.0, 12.0)]
    table = speed.training_table(benchmarks.timed(DataFrame(rows)))
    assert table["overhead_percent"].to_list() == pytest.approx([0, 10, 0, 20])
    assert [text[:4] for text in table["time"]] == ["1.00", "1.10", "0.50", "0.60"]
    assert table["images_per_second"].iloc[0] == pytest.approx(10 / 0.015)
    assert speed.training_table(DataFrame()).empty


@pytest.fixture(scope="module")
def recorded():
    bench = benchmarks.read(REFERENCE / "speed")
    return {study: benchmarks.find(bench, study) for study in ("layers", "network")}


def test_networks_are_timed_per_image(recorded):
    table = speed.network_table(recorded["network"])
    eight = table[table["batch"] == 8].iloc[0]
    assert eight["ms_per_image"] == pytest.approx(np.median(eight["round_ms"]) / 8)
    best = table[table["reference_fp32"]]
    assert list(best["speedup"]) == [1.0] * table["batch"].nunique()


# Figures


def test_latency_groups_contenders_and_marks_the_best_and_the_noisy(recorded):
    table = speed.speed_table(recorded["layers"])
    figure = speed.fig_latency(table)
    ticks = figure.axes[0].get_yticklabels()
    bold = [tick.get_text() for tick in ticks if tick.get_fontweight() == "bold"]
    assert bold == ["full precision", "bfloat16", "8-bit integers", "sparse", "table", "dataflow"]
    assert len(ticks) == len(bold) + table["way"].nunique()
    for axis, (layer, timings) in zip(figure.axes, table.groupby("layer", sort=False), strict=True):
        assert axis.get_title() == layer and len(axis.patches) == len(timings)
        assert sorted(bar.get_width() for bar in axis.patches) == pytest.approx(sorted(timings["median_ms"]))
        assert sum(text.endswith("*") for text in labels(axis)) == timings["flagged"].sum()
        [best] = [text.get_text() for text in axis.texts if text.get_fontweight() == "bold"]
        assert float(best.rstrip("*")) == float(f"{timings.loc[timings['reference_fp32'], 'median_ms'].iloc[0]:.3g}")
    check(figure)


@pytest.mark.parametrize("stem", ["speedup", "network"])
def test_figures_of_the_committed_benchmarks(stem, recorded):
    tables = {
        "speedup": speed.speedup_table(speed.speed_table(recorded["layers"])),
        "network": speed.network_table(recorded["network"]),
    }
    draw = getattr(speed, f"fig_{stem}")
    figure = draw(tables[stem])
    titles = {"speedup": ["over best fp32 torch", "over best fp32 of all", "over best binary"]}
    expected = titles.get(stem, ["ResNet-18, batch 1", "ResNet-18, batch 8"])
    assert [axis.get_title() for axis in figure.axes] == expected
    check(figure)
    with pytest.raises(ValueError, match=f"fig_{stem} got an empty table"):
        draw(DataFrame())


def test_a_figure_shows_one_benchmark(recorded):
    table = speed.speed_table(recorded["layers"])
    table.loc[table.index[0], "name"] = "b"
    with pytest.raises(ValueError, match="benchmarks b, layers; allowed: one"):
        speed.fig_latency(table)
    torch = speed.speedup_table(speed.speed_table(recorded["layers"]))
    torch = torch[(torch["algorithm"] == "torch") & (torch["precision"] == "fp32")]
    with pytest.raises(ValueError, match="fig_speedup got torch in fp32 alone"):
        speed.fig_speedup(torch)
