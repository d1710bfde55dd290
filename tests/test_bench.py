"""The benchmark on tiny layers: every contender is checked and timed, and its record feeds the speed tables."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sbkit import analysis, bench, kernels, records
from sbkit.bench import SHAPES, BenchConfig, measure, run

TINY = BenchConfig(shapes="tiny", rounds=3, min_run_ms=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    run(replace(TINY), folder, "layers")
    return folder


@pytest.fixture(scope="module")
def timings(folder):
    return records.load(folder / "records" / "bench" / "layers.json").metrics["timings"]


def test_every_contender_is_timed_on_every_layer(timings):
    ways = {(t["contender"], t["variant"], t["encoding"], t["skip_zeros"]) for t in timings}
    assert len(ways) == 2 + len(bench.CONTENDERS)
    assert len(timings) == len(ways) * len(SHAPES["tiny"])
    assert {t["layer"] for t in timings} == {"8→8 @8", "16→16 @4"}


def test_timings_are_consistent(timings):
    for t in timings:
        assert len(t["round_ms"]) == t["rounds"] == TINY.rounds
        assert t["median_ms"] == np.median(t["round_ms"])
        assert 0 < t["min_ms"] <= t["median_ms"]
        assert t["gmacs"] == pytest.approx(t["K"] * t["C"] * 9 * t["H"] * t["W"] / t["median_ms"] / 1e6)
        assert (t["reduction"] == 1) == (t["contender"] == "torch")


def test_the_record_reads_back_into_the_speed_tables(folder):
    frame = records.read(folder, "bench")
    speed = analysis.speed_table(frame)
    assert speed.groupby("layer")["reference"].sum().tolist() == [1, 1]
    speedup = analysis.speedup_table(frame)
    torch_rows = speedup[(speedup["contender"] == "torch") & (speedup["layer"] != "all")]
    assert (torch_rows.groupby("layer")["speedup"].min() <= 1).all()
    assert set(speedup["n"]) == {TINY.rounds}


def test_the_record_states_where_it_was_measured(folder):
    record = records.load(folder / "records" / "bench" / "layers.json")
    assert record.provenance["threads"] == 1
    assert record.provenance["isa"] == kernels.isas()[-1]
    assert record.config["shapes"] == "tiny"
    assert record.id == records.run_id("bench", record.config)


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    right = kernels.conv2d
    monkeypatch.setattr(kernels, "conv2d", lambda prepared, x: right(prepared, x) + (prepared.algorithm == "table"))
    with pytest.raises(AssertionError, match=r"table signed_binary .* differs from the dense reference"):
        measure(TINY)


def test_threads_are_given_back(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(bench, "_measure_layer", lambda config, shape: [torch.get_num_threads()])
    assert measure(replace(TINY, threads=2)) == [2, 2]
    assert torch.get_num_threads() == before


def test_a_chosen_isa_and_batch_are_used(capsys):
    timings = measure(replace(TINY, rounds=1, isa="scalar", batch=2))
    assert {t["isa"] for t in timings if t["contender"] != "torch"} == {"scalar"}
    assert capsys.readouterr().out.count("\n") == len(SHAPES["tiny"]), "a line per layer"


def test_resnet_shapes_are_the_stride_1_layers():
    assert [(s.C, s.H, s.K, s.stride) for s in SHAPES["resnet18"]] == [
        (64, 56, 64, 1), (128, 28, 128, 1), (256, 14, 256, 1), (512, 7, 512, 1),
    ]  # fmt: skip
    assert [(s.C, s.H) for s in SHAPES["resnet20"]] == [(16, 32), (32, 16), (64, 8)]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("shapes", "vgg", "shapes = 'vgg'; allowed: resnet18, resnet20, tiny"),
        ("density", 0.0, r"density = 0\.0; allowed: above 0"),
        ("ternary_density", 1.5, r"ternary_density = 1\.5"),
        ("rounds", 0, "rounds = 0; allowed: 1 or more"),
        ("threads", 0, "threads = 0"),
        ("batch", -1, "batch = -1"),
        ("min_run_ms", 0.0, r"min_run_ms = 0\.0"),
        ("isa", "sse2", "isa = 'sse2'; allowed here: auto, scalar"),
    ],
)
def test_bad_options_are_refused(option, value, message):
    with pytest.raises(ValueError, match=message):
        BenchConfig(**{option: value})


def test_a_record_without_a_name_is_named_by_its_id(tmp_path):
    record = run(replace(TINY, rounds=1), tmp_path)
    assert [path.stem for path in tmp_path.glob("records/bench/*")] == [record.id]
