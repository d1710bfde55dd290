"""Which benchmark is found, and how ways select its timings."""

import numpy as np
import pytest
from example_runs import REFERENCE
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.evidence.stats import MissingRecord, measured
from sbkit.way import Way

TORCH = {"algorithm": "torch", "variant": "contiguous"}
SIGNED = {"algorithm": "table", "scheme": "binary", "encoding": "signed"}


def row(way=TORCH, rounds=(1.0, 2.0), **changes):
    """One timing as `records.read` gives it."""
    record = {"name": "a", "study": "layers", "shapes": "resnet18", "threads": 1, "batch": 1, "layer": "one"}
    record |= {"K": 64, "C": 64, "median_ms": float(np.median(rounds)), "round_ms": list(rounds), "way": way}
    record |= {"provenance_started_utc": "2026-01-01", "provenance_cpu": "x", "provenance_isa": "avx2"}
    return record | changes


def timed(*rows):
    return benchmarks.timed(DataFrame(rows))


def test_a_way_gives_its_fields_and_a_study_lacks_no_column():
    found = timed(row(), row(SIGNED))
    assert list(found["way"]) == [Way.of(TORCH), Way("table", "binary", "signed")]
    assert list(found["label"]) == ["torch contiguous", "table, binary, signed patterns"]
    assert list(found["encoding"]) == ["two_group", "signed"] and list(found["skip_zeros"]) == [True, True]
    assert (found["model"] == "").all()
    assert benchmarks.timed(DataFrame()).empty


def test_the_newest_benchmark_of_a_study_counts():
    bench = timed(
        row(name="old"),
        row(name="new", provenance_started_utc="2026-01-02"),
        row(name="two threads", threads=2, provenance_started_utc="2026-01-03"),
        row(name="other shapes", shapes="resnet20", provenance_started_utc="2026-01-04"),
        row(name="another study", study="codebooks", provenance_started_utc="2026-01-05"),
    )
    assert list(benchmarks.find(bench, "layers")["name"]) == ["other shapes"]
    assert list(benchmarks.find(bench, "layers", "resnet18")["name"]) == ["new"]
    assert benchmarks.find(bench, "density").empty and benchmarks.find(DataFrame(), "layers").empty


@pytest.mark.parametrize("study", ["network", "operations", "integer_codes", "integer_costs"])
def test_each_network_and_batch_has_a_benchmark_of_its_own(study):
    rows = [("a", 1, "resnet18"), ("b", 8, "resnet18"), ("c", 1, "resnet20")]
    bench = timed(*(row(name=name, study=study, batch=batch, shapes=shapes) for name, batch, shapes in rows))
    newer = timed(row(name="d", study=study, batch=8, provenance_started_utc="2026-01-02"))
    found = benchmarks.find(DataFrame([*bench.to_dict("records"), *newer.to_dict("records")]), study)
    assert list(found["name"]) == ["a", "c", "d"]


@pytest.mark.parametrize(
    "study, names", [("network_integers", ["a", "b"]), ("integer_costs", ["a", "b"]), ("network", ["a"])]
)
def test_threads_are_compared_in_some_studies(study, names):
    bench = timed(row(study=study), row(name="b", study=study, threads=2))
    assert list(benchmarks.find(bench, study)["name"]) == names


@pytest.mark.parametrize("column", ["provenance_cpu", "provenance_isa"])
def test_timings_of_two_machines_do_not_compare(column):
    with pytest.raises(
        ValueError, match=rf"several machines do not compare; {column}: \w+ in a; other in b; allowed: one"
    ):
        benchmarks.find(timed(row(), row(name="b", **{column: "other"})), "layers")


def test_a_way_is_found_by_its_fields_alone():
    bench = timed(row(SIGNED), row(SIGNED | {"group": 4}), row(SIGNED, K=128, C=128, layer="two"), row())
    way = Way("table", "binary", "signed")
    assert list(benchmarks.of_way(bench, way)["layer"]) == ["one", "two"]
    assert list(benchmarks.of_way(bench, way, channels=128)["layer"]) == ["two"]
    for channels, where in ((0, ""), (512, r" on a \[3, 3, 512, 512\] layer")):
        with pytest.raises(MissingRecord, match=f"^a benchmark with table, binary{where}$"):
            benchmarks.of_way(bench, Way("table", "binary"), channels)
    assert [found for found, _ in benchmarks.ways_of(bench)] == list(bench["way"].drop_duplicates())


def test_the_fastest_of_each_place_among_libraries_in_fp32():
    openvino = {"algorithm": "openvino"}
    bench = timed(
        row(rounds=(3.0, 3.0)), row(openvino, (2.0, 2.0)), row(openvino | {"precision": "int8"}, (1.0, 1.0)),
        row(SIGNED, (0.5, 0.5)), row(rounds=(1.5, 1.5), layer="two"),
    )  # fmt: skip
    assert list(benchmarks.is_ours(bench)) == [False, False, False, True, False]
    libraries = bench[benchmarks.is_fp32_library(bench)]
    assert list(libraries["median_ms"]) == [3.0, 2.0, 1.5]
    assert sorted(benchmarks.fastest(libraries)["median_ms"]) == [1.5, 2.0]


def test_rounds_add_up_over_layers():
    bench = timed(row(), row(rounds=(10.0, 20.0), layer="two"))
    assert list(benchmarks.total_ms(bench)) == [11.0, 22.0]
    with pytest.raises(ValueError, match="several timings of one layer: one, one"):
        benchmarks.rounds(timed(row(), row()))


@pytest.mark.parametrize("profile", ["quick", "review", "speed"])
def test_committed_benchmarks_have_one_timing_of_each_way(profile):
    bench = benchmarks.read(REFERENCE / profile)
    codes = [column for column in ("codes", "design") if column in bench]  # where trained ones stand beside random ones
    place = ["name", "layer", "batch", "density", "way", *codes]
    assert len(bench) and not bench.duplicated(place).any()
    ways = bench.drop_duplicates("way")
    assert ways["label"].is_unique, "a figure tells all contenders apart"


def test_identical_plans_agree_within_their_intervals():
    """Signs of whole regions change no plan, so such pairs are one contender twice. Of ten intervals one may miss."""
    table = {scheme: Way("table", scheme) for scheme in ("signed_binary", "zero_one")}
    regions, plain = (Way("table", "signed_binary", regions=regions, group=4) for regions in (4, 0))
    plan, ratios = ["layer", "adds", "multiplies", "chosen_group", "geometry", "weight_bytes"], []
    for profile in ("quick", "review", "speed"):
        layers = benchmarks.find(benchmarks.read(REFERENCE / profile), "layers")
        for pair in ((table["signed_binary"], table["zero_one"]), (regions, plain)):
            one, other = (layers[layers["way"] == way].drop_duplicates(plan) for way in pair)
            for row in one.merge(other, on=plan, suffixes=("", "_other")).itertuples():
                ratios.append(measured(np.divide(row.round_ms, row.round_ms_other)))
    missed = [str(ratio) for ratio in ratios if not ratio.low <= 1 <= ratio.high]
    assert len(ratios) > 10 and len(missed) <= len(ratios) / 10, missed
