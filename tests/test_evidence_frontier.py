"""Lines, fronts and trades against numbers done by hand."""

import math

import numpy as np
import pytest
from pandas import DataFrame

from sbkit.evidence import benchmarks, frontier, runs
from sbkit.evidence.frontier import DENSE, trade
from sbkit.figures import frontier as figures
from sbkit.way import AUTO, Way

BINARY = [Way(AUTO, "binary", encoding, activation_bits=6) for encoding in ("two_group", "rewritten")]
LIBRARIES = [Way(name, precision="int8") for name in ("openvino", "onnxruntime")]


def trained(name, seed, width, **options):
    options = {"quantizer": "binary", "activation_bits": 6} | options
    config = options | ({"width": width} if width != 16 else {}) | ({"seed": seed} if seed else {})
    row = {"id": name, "name": name, "config": config, "quantizer": options["quantizer"], "seed": seed}
    return row | {"width": width, "activation_bits": options["activation_bits"]}


def timed(run, way, ms, top1, isa="auto", held=""):
    row = {"name": f"trained_{isa}", "study": "trained", "shapes": "resnet18", "threads": 1, "batch": 1, "run": run}
    row |= {"config": {} if isa == "auto" else {"isa": isa}, "way": way.options(), "isa": held, "layer": "network"}
    row |= {"min_ms": ms, "round_ms": [ms], "top1_percent": top1, "model_top1_percent": top1 + 0.01}
    row |= {"file_bytes": 5000, "adds": 30, "multiplies": 12, "seed": 9, "width": 99}
    return row | {"provenance_cpu": "x", "provenance_isa": isa, "provenance_started_utc": "2026-01-01"}


@pytest.fixture
def table():
    dense = {"quantizer": "full_precision", "activation_bits": 32}
    train = [trained(f"b{seed}", seed, 16) for seed in (0, 1)]
    train += [trained(f"d{width}{seed}", seed, width, **dense) for width in (8, 16) for seed in (0, 1)]
    bench = [timed(f"b{seed}", way, ms, 83.0 + seed) for seed in (0, 1) for way, ms in zip(BINARY, (3, 2), strict=True)]
    for isa, held in (("auto", ""), ("avx2", "avx2")):
        for width, ms, top1 in ((8, 1.0, 80), (16, 4.0, 84)):
            for seed in (0, 1):
                bench.append(timed(f"d{width}{seed}", LIBRARIES[0], 2 * ms, top1 + seed, isa, held))
                bench.append(timed(f"d{width}{seed}", LIBRARIES[1], ms, top1 + seed, isa))
    return frontier.networks(runs.grouped(DataFrame(train)), benchmarks.timed(DataFrame(bench)))


def test_a_network_has_its_fastest_way_and_its_run(table):
    found = table.set_index(["may_use", "family", "width", "seed"])
    binary = found.loc["all instructions", "binary, 6 bits", 16, 1]
    assert (binary["way"], binary["ms"], binary["top1_percent"]) == (BINARY[1].label(), 2, 84)
    assert (binary["kilobytes"], binary["operations"], binary["bits"]) == (5, 42, 6)
    assert found.loc["all instructions", DENSE, 8, 0]["way"] == "ONNX Runtime int8"
    assert found.loc["AVX2 alone", DENSE, 8, 0]["way"] == "OpenVINO int8", "the other one may use more"
    assert len(found) == 2 + 4 + 4


def test_how_much_wider_is_paired_by_seed(table):
    (row,) = figures.wider_table(table).to_dict("records")
    assert (row["family"], row["width"], row["wider"]) == ("binary, 6 bits", 16, "1.19; 1.19 ± 0.00 (n=2)")
    assert row["value"] == pytest.approx(2**0.25)
    assert figures.wider_table(table[table["family"] != DENSE]).empty


def test_points_are_means_over_seeds(table):
    found = frontier.points(table).set_index(["may_use", "family", "width"])
    binary = found.loc["all instructions", "binary, 6 bits", 16]
    assert (binary["top1_percent"], binary["n"], binary["front"]) == (83.5, 2, True)
    assert binary["lost_points"] == pytest.approx(0.01)
    assert binary["top1_half_width"] == pytest.approx(12.706 * math.sqrt(0.5) / math.sqrt(2), rel=1e-3)


def test_a_beaten_point_is_not_on_the_front(table):
    slower = table.assign(ms=np.where(table["family"] == DENSE, table["ms"], 5.0))
    assert list(frontier.points(slower).query("family != @DENSE")["front"]) == [False]


def test_a_timed_network_without_its_run():
    bench = benchmarks.timed(DataFrame([timed("lost", LIBRARIES[0], 1.0, 80)]))
    with pytest.raises(ValueError, match="timed networks without a training record: lost"):
        frontier.networks(runs.grouped(DataFrame([trained("b0", 0, 16)])), bench)


def line(*top1, ms=(1.0, 4.0)):
    """A line of two networks, with the same top-1 for each of two seeds."""
    rows = [{"width": width, "seed": seed} for width in (8, 16) for seed in (0, 1)]
    return frontier.line(DataFrame(rows).assign(ms=np.repeat(ms, 2), top1_percent=np.repeat(top1, 2)))


def test_a_line_has_none_that_is_slower_and_less_accurate():
    rows = [(8, 1.0, 80.0), (12, 3.0, 79.0), (16, 4.0, 84.0), (24, 9.0, 83.0)]
    rows = [
        {"width": width, "ms": ms, "top1_percent": top1, "seed": seed} for width, ms, top1 in rows for seed in (0, 1)
    ]
    assert list(frontier.line(DataFrame(rows)).top1) == [8, 16]


def network(ms, *top1):
    return DataFrame({"seed": range(len(top1)), "ms": ms, "top1_percent": np.array(top1)})


def test_a_trade_is_read_off_the_line():
    found = trade(network(1.0, 82.0, 82.0), line(80.0, 84.0))
    assert (found.points.value, found.points.half_width, found.points.n) == (2, 0, 2)
    assert (found.times, found.low, found.high) == pytest.approx((2, 2, 2), rel=0.01), "half-way in the logarithm"
    assert found.reach == (1, 4)


def test_the_interval_of_times_holds_what_the_seeds_leave_open():
    found = trade(network(1.0, 81.9, 82.1), line(80.0, 84.0))
    half = 12.706 * 0.1  # t of two seeds times the standard error
    ends = [4 ** ((2 + side * half) / 4) for side in (-1, 1)]
    assert (found.low, found.times, found.high) == pytest.approx((ends[0], 2, ends[1]), rel=0.01)


@pytest.mark.parametrize(
    "ms, top1, points, times",
    [
        (1.0, 85.0, 5.0, (math.inf, 4.0, math.inf)),  # more accurate than the whole line
        (2.0, 79.0, -3.0, (0.0, 0.0, 0.5)),  # less
        (8.0, 82.0, -2.0, (0.25, 0.25, 0.25)),  # slower than the whole line, whose last network stands
        (0.5, 82.0, None, (4.0, 4.0, 4.0)),  # faster
    ],
)
def test_beyond_the_line(ms, top1, points, times):
    found = trade(network(ms, top1, top1), line(80.0, 84.0))
    assert points == (found.points and found.points.value)
    assert (found.times, found.low, found.high) == pytest.approx(times, rel=0.01)


def test_a_trade_is_paired_by_seed():
    alone = line(80.0, 84.0)
    moved = alone._replace(top1=alone.top1 + np.array([[0.0], [3.0]]))
    assert trade(network(1.0, 82.0, 85.0), moved).points.half_width == 0
    assert trade(network(1.0), moved) is None


def test_one_seed_has_no_interval():
    found = trade(network(1.0, 82.0), line(80.0, 84.0))
    assert (found.points.value, found.points.n) == (2, 1)
    assert (found.low, found.times, found.high) == pytest.approx((2, 2, 2), rel=0.01)


def test_every_network_of_ours_is_set_beside_dense_ones(table):
    found = list(frontier.trades(table))
    assert [(row["may_use"], row["family"], row["width"], row["rival"]) for row in found] == [
        ("all instructions", "binary, 6 bits", 16, DENSE)
    ]


def test_a_rival_of_one_width_is_no_line(table):
    """The table has its columns and no row."""
    few = figures.trades_table(table[(table["family"] != DENSE) | (table["width"] == 8)])
    assert few.empty and {"may_use", "rival", "points", "times"} <= set(few.columns)
    assert not figures.trades_table(table).empty
