"""The benchmark on tiny layers and a tiny network: every contender is checked and timed, and its record reads back."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from sbkit import analysis, bench, kernels, models, records
from sbkit.bench import DENSITIES, SHAPES, BenchConfig, measure, run
from sbkit.conv import ConvShape, QuantizedWeight

TINY = BenchConfig(shapes="tiny", peers=False, rounds=3, min_run_ms=0.5)


@pytest.fixture(scope="module", autouse=True)
def without_bf16():
    """The same contenders on every machine; `test_bf16_is_timed_where_it_works` has those in bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "bf16_trouble", lambda: "left out")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    run(TINY, folder, "layers")
    return folder


@pytest.fixture(scope="module")
def record(folder):
    return records.load(folder / "records" / "bench" / "layers.json")


@pytest.fixture(scope="module")
def timings(record):
    return record.metrics["timings"]


@pytest.fixture(scope="module")
def densities():
    return measure(replace(TINY, study="density", rounds=1))["timings"]


@pytest.fixture(scope="module")
def network():
    return measure(replace(TINY, study="network", batch=2))["timings"]


def test_every_contender_is_timed_on_every_layer(timings):
    keys = ("contender", "variant", "encoding", "skip_zeros", "regions")
    found = [tuple(t[key] for key in keys) for t in timings]
    assert len(found) == (2 + len(bench.LAYERS)) * len(SHAPES["tiny"])
    # Signed binary with all signs per filter is timed once more, with the regions' channels per table.
    assert len(set(found)) == 2 + len(bench.LAYERS) - 1
    assert {t["layer"] for t in timings} == {"8→8 @8", "16→16 @4"}
    assert {t["contender"] for t in timings} == {"torch", "sparse", "table", "dataflow"}


def test_timings_are_consistent(timings, densities, network):
    for t in timings + densities + network:
        assert len(t["round_ms"]) == t["rounds"]
        assert t["median_ms"] == np.median(t["round_ms"])
        assert 0 < t["min_ms"] <= t["median_ms"]
        assert (t["reduction"] == 1) == (t["contender"] == "torch")
        assert t["precision"] == "fp32"
    for t in timings:
        assert t["gmacs"] == pytest.approx(t["K"] * t["C"] * 9 * t["H"] * t["W"] / t["median_ms"] / 1e6)


def test_the_fewest_operations_per_position_are_no_more_than_those_executed(timings):
    """What is executed has padded borders, too, and its channels per table are chosen for speed."""
    assert all(t["best_reduction"] >= t["reduction"] for t in timings)
    assert any(t["best_reduction"] > t["reduction"] for t in timings)


def test_regions_have_signs_of_their_own(timings):
    signed_binary = [t for t in timings if (t["layer"], t["scheme"], t["group"]) == ("16→16 @4", "signed_binary", 4)]
    regions = {t["regions"]: t for t in signed_binary if t["contender"] == "table"}
    assert regions.keys() == {0, 4}
    assert regions[4]["density"] == regions[0]["density"]
    assert regions[4]["entropy_bits"] < 1, "a code is zero or its region's sign"


def test_random_regions():
    shape = ConvShape(8, 4, 4, 16)
    codes = bench._random_codes(TINY, shape, bench._way("table", "signed_binary", regions=4)).codes
    blocks = codes.reshape(16, 2, 4, 3, 3)
    signs = np.sign(blocks.sum(axis=(2, 3, 4)))
    assert (np.abs(blocks) == blocks * signs[:, :, None, None, None]).all()
    assert set(signs.ravel()) == {-1, 1}
    assert (signs[:, 0] != signs[:, 1]).any()


def test_bound_is_the_fewest_vectors_to_add():
    shape = ConvShape(2, 8, 8, 1, stride=2, N=3)  # 4x4 outputs: one vector of 16 an image
    costs = [bench.TableCost(entries=18, built=0, operations=0), bench.TableCost(entries=9, built=1, operations=0)]
    assert bench._bound_adds(shape, costs[:1], 16) == 3 * 18
    assert bench._bound_adds(shape, costs, 16) == 3 * (9 + 4)
    # 7x7 outputs: a grid of 4x4 lanes takes 2x2 vectors, 1x16 takes 7.
    assert bench._bound_adds(ConvShape(2, 7, 7, 1), costs[:1], 16) == 4 * 18


def test_costs_of_tables():
    """8 filters of ones over 2 channels: one entry a tap and group, and one sum of two channels."""
    weight = QuantizedWeight(np.ones((8, 2, 3, 3), np.int8))
    one, two = bench._table_costs(weight, "two_group", True)[:2]
    assert one == (8 * 2 * 9, 0, 8 * 2 * 9 + 8)
    assert two == (8 * 9, 1, 8 * 9 + 1 + 8)


def test_tables_are_bounded_in_the_study_of_layers_alone(record, timings, densities, network):
    for t in timings:
        assert (t["bound_ms"] is None) == (t["contender"] != "table")
        if t["bound_ms"]:
            assert t["bound_ms"] == pytest.approx(t["bound_adds"] / record.metrics["peaks"]["l1_gadds"] / 1e6)
            assert t["roofline_fraction"] == t["bound_ms"] / t["median_ms"]
            assert 0 < t["roofline_fraction"] < 1
    unbounded = densities + network
    assert {t["bound_ms"] for t in unbounded} == {t["roofline_fraction"] for t in unbounded} == {None}


def test_the_study_of_operations_counts_what_plans_execute():
    metrics = measure(replace(TINY, study="operations"))
    rows = metrics["timings"]
    assert metrics["layers"] == 2 and len(rows) == 2 * len(bench.OPERATIONS)
    for row in rows:
        assert row["reduction"] == 2 * row["macs"] / (row["adds"] + row["multiplies"]) > 1
    found = {(r["layer"], r["contender"], r["variant"], r["encoding"], r["skip_zeros"]): r for r in rows}
    shape = SHAPES["tiny"][0]
    weight = bench._random_codes(TINY, shape, bench._way("table", "binary"))
    row = found["8→8 @8", "table", "binary", "signed", True]
    prepared = kernels.prepare("table", weight, shape, encoding="signed", group=row["group"])
    assert (row["adds"], row["multiplies"]) == prepared.operations
    kept, skipped = (found["8→8 @8", "dataflow", "ternary_twn", "two_group", zeros] for zeros in (False, True))
    assert kept["adds"] > skipped["adds"]


def test_the_study_of_threads_times_one_beside_several(capsys):
    timings = measure(replace(TINY, study="threads", threads=2))["timings"]
    ways = {(t["contender"], t["variant"], t["encoding"]) for t in timings}
    assert len(ways) == 2 + len(bench.THREADS)
    on_threads = {(t["layer"], t["on_threads"]): 0 for t in timings}
    assert len(timings) == len(on_threads) * len(ways) and {n for _, n in on_threads} == {1, 2}
    with pytest.raises(ValueError, match="threads = 1 in the study of threads; allowed: 2 or more"):
        replace(TINY, study="threads")


def test_the_study_of_codebooks_runs_the_same_codes_in_every_way():
    rows = measure(replace(TINY, study="codebooks", rounds=1))["timings"]
    assert len(rows) == (2 + len(bench.CODEBOOKS)) * len(SHAPES["tiny"])
    limited = [row for row in rows if row["codebook_bits"]]
    kinds = {(row["layer"], row["codebook_bits"], row["regions"], row["scheme"]): [] for row in limited}
    for row in limited:
        assert row["entropy_bits"] == row["codebook_bits"] / row["regions"] < 1
        kinds[row["layer"], row["codebook_bits"], row["regions"], row["scheme"]].append(row)
    assert len(kinds) == (5 + 3) * 2
    for (*_, scheme), same in kinds.items():
        ways = {("table", "two_group"), ("table", "codebook"), ("sparse", "two_group")}
        if scheme == "binary":
            ways = {("table", "signed"), ("table", "codebook")}
        assert {(row["contender"], row["encoding"]) for row in same} == ways
        assert len({row["density"] for row in same}) == 1


def test_a_training_step_trains_each_design():
    found = measure(replace(TINY, study="training", batch=4, rounds=1))
    assert [(row["precision"], row["variant"]) for row in found["timings"]] == [("fp32", d) for d in bench.TRAINING]
    assert {row["layer"] for row in found["timings"]} == {"training step"}
    assert found["skipped"] == ["torch bf16: left out"]
    for contender in bench._training(replace(TINY, study="training", batch=4), []).contenders:
        parameters = list(contender.call.args[0].parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        with torch.inference_mode():  # as timings are taken
            contender.call()
        changed = [bool((old != new).any()) for old, new in zip(before, parameters, strict=True)]
        assert sum(changed) > len(changed) / 2, contender.variant


_IN_BF16 = """
import json
from sbkit import bench
rows = []
for study in ("layers", "network", "training"):
    config = bench.BenchConfig(study=study, shapes="tiny", peers=False, batch=4, rounds=1, min_run_ms=0.01)
    rows += [row for row in bench.measure(config)["timings"] if row["precision"] == "bf16"]
print(json.dumps([[row["layer"], row["contender"], row["variant"], row["weight_bytes"]] for row in rows]))
"""


def test_bf16_is_timed_where_it_works():
    """In its own process and without AMX, which stops the process in some virtual machines."""
    if not models.has_bf16():
        pytest.skip("torch has no convolutions in bf16 for this CPU")
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
    done = subprocess.run([sys.executable, "-c", _IN_BF16], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    weights = [9 * 8 * 8, 9 * 16 * 16]
    layers = [["8→8 @8", "torch", "bf16", 2 * weights[0]], ["16→16 @4", "torch", "bf16", 2 * weights[1]]]
    assert rows[:2] == layers
    assert rows[2][:3] == ["network", "torch", "bf16"]
    assert [row[1:3] for row in rows[3:]] == [["training", design] for design in bench.TRAINING]


def test_random_masks_are_of_one_codebook():
    shape = ConvShape(32, 8, 8, 24)
    codes = bench._random_codes(TINY, shape, bench._way("table", "signed_binary", regions=16, bits=4)).codes
    regions = codes.reshape(24, 2, 16, 9).transpose(0, 1, 3, 2).reshape(-1, 16)
    assert len(np.unique(abs(regions), axis=0)) == 16 and abs(regions).sum(1).max() == 1  # none, or one of 15 channels
    assert (abs(regions.sum(1)) == abs(regions).sum(1)).all() and {-1, 0, 1} == set(codes.flat)


def test_random_signs_are_of_one_codebook():
    shape = ConvShape(32, 8, 8, 24)
    codes = bench._random_codes(TINY, shape, bench._way("table", "binary", regions=16, bits=4)).codes
    regions = codes.reshape(24, 2, 16, 9).transpose(0, 1, 3, 2).reshape(-1, 16)
    assert len(np.unique(regions, axis=0)) == 16 and {-1, 1} == set(codes.flat)


def test_two_threads_raise_the_roof(monkeypatch):
    contender = bench.Contender("table", "binary", lambda: None, {"bound_adds": 6000})
    subject = bench.Subject({"layer": "one", "adds": 1, "multiplies": 1}, 1, [contender])
    monkeypatch.setattr(bench, "_subjects", lambda *_: [subject])
    monkeypatch.setattr(kernels, "peaks", lambda isa: {"lanes": 16, "l1_gadds": 2.0})
    bounds = [measure(replace(TINY, threads=n))["timings"][0]["bound_ms"] for n in (1, 2)]
    assert bounds == [3e-3, 1.5e-3]


def test_a_disturbed_peak_does_not_count(monkeypatch):
    found = iter((1.0, 3.0, 2.0))
    monkeypatch.setattr(kernels, "peaks", lambda isa: {"lanes": 16, "l1_gadds": next(found)})
    metrics = measure(replace(TINY, algorithms="table", rounds=1))
    assert metrics["peaks"] == {"lanes": 16, "l1_gadds": 3.0}


def test_densities(densities):
    assert {t["layer"] for t in densities} == {"16→16 @4"}
    assert len(densities) == 2 + 6 + len(DENSITIES) * 2 * 3
    for scheme in ("signed_binary", "ternary_twn"):
        for contender in ("sparse", "table", "dataflow"):
            rows = [t for t in densities if (t["scheme"], t["contender"]) == (scheme, contender)]
            assert [t["density"] for t in rows] == pytest.approx(DENSITIES, abs=0.03)
            entropy = [t["entropy_bits"] for t in rows]
            assert 0.9 < max(entropy) <= (1 if scheme == "signed_binary" else np.log2(3))
            if contender == "sparse":
                assert sorted(rows, key=lambda t: t["adds"]) == rows
    assert {t["density"] for t in densities if t["scheme"] == "binary"} == {1}


def test_a_network_is_timed_whole(network):
    rows = {(t["contender"], t["variant"], t["codebook_bits"]): t for t in network}
    torch_rows = [("torch", variant, 0) for variant in ("contiguous", "channels_last", "frozen")]
    table_rows = [("table", scheme, 0) for scheme in ("signed_binary", "binary", "ternary_twn")]
    table_rows.append(("table", "signed_binary", 4))
    assert list(rows) == torch_rows + table_rows
    assert {(t["layer"], t["model"], t["batch"], t["C"], t["H"], t["K"]) for t in network} == {
        ("network", "resnet8", 2, 3, 8, 10)
    }
    assert [rows[row]["encoding"] for row in table_rows] == ["two_group", "signed", "signed", "codebook"]
    # Of 16 masks of 8 channels one is empty, 8 have a channel and 7 two.
    assert [rows[row]["density"] for row in table_rows] == pytest.approx([0.35, 1, 0.58, 22 / 16 / 8], abs=0.02)
    assert all(rows[row]["plan_seconds"] > 0 for row in table_rows)
    # Stem, quantized layers, shortcuts and classifier of ResNet-8 at 8x8, of width 8; two images.
    macs = 8 * 27 * 64 + 2 * 8 * 72 * 64
    macs += (16 * 72 + 16 * 144 + 16 * 8) * 16 + (32 * 144 + 32 * 288 + 32 * 16) * 4 + 32 * 10
    assert {round(t["gmacs"] * t["median_ms"] * 1e6) for t in network} == {2 * macs}


def test_the_record_reads_back_into_the_speed_tables(folder):
    frame = records.read(folder, "bench")
    assert set(frame["study"]) == {"layers"}
    speed = analysis.speed_table(frame)
    assert speed.groupby("layer")["reference"].sum().tolist() == [1, 1]
    assert not speed.duplicated(["layer", "label"]).any()
    speedup = analysis.speedup_table(frame)
    torch_rows = speedup[(speedup["contender"] == "torch") & speedup["layer"].isin(speed["layer"])]
    assert (torch_rows[torch_rows["over"] == "torch"].groupby("layer")["speedup"].min() <= 1).all()
    assert set(speedup["n"]) == {TINY.rounds}


def test_the_record_states_where_it_was_measured(record):
    assert record.provenance["threads"] == 1
    assert record.provenance["isa"] == kernels.isas()[-1]
    assert record.provenance["peers"] == {}
    assert record.config["shapes"] == "tiny"
    assert record.id == records.run_id("bench", record.config)
    assert record.metrics["peaks"].keys() == {"fma_gmacs", "l1_gadds", "l2_gadds", "lanes"}


def wrong(algorithm):
    right = kernels.conv2d
    return lambda prepared, *x: right(prepared, *x) + (prepared.algorithm == algorithm)


@pytest.mark.parametrize("algorithm", ["sparse", "table", "dataflow"])
def test_a_wrong_kernel_is_not_timed(monkeypatch, algorithm):
    monkeypatch.setattr(bench, "_time", lambda *_: pytest.fail("timed"))
    monkeypatch.setattr(kernels, "conv2d", wrong(algorithm))
    with pytest.raises(
        AssertionError, match=f"{algorithm} signed_binary .*differs from the reference by 1; allowed: 0"
    ):
        measure(TINY)


def test_a_wrong_network_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench, "_time", lambda *_: pytest.fail("timed"))
    monkeypatch.setattr(kernels, "conv2d", wrong("table"))
    with pytest.raises(AssertionError, match="table signed_binary on resnet8 differs"):
        measure(replace(TINY, study="network"))


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_wrong_peer_is_not_timed(monkeypatch, value):
    monkeypatch.setattr(bench, "_time", lambda *_: pytest.fail("timed"))
    monkeypatch.setattr(bench, "_onnx_layer", lambda shape, weight: b"")
    monkeypatch.setattr(bench, "_onnxruntime", lambda *_: lambda: np.full((1, 8, 8, 8), value))
    with pytest.raises(AssertionError, match="onnxruntime fp32 differs from the reference"):
        measure(replace(TINY, peers=True))


@pytest.mark.parametrize("study", ["layers", "network"])
def test_absent_peers_are_skipped_visibly(monkeypatch, capsys, tmp_path, study):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(bench, "_onnx_layer", lambda *_: b"")
    monkeypatch.setattr(bench, "_onnx_network", lambda *_: b"")
    found = run(replace(TINY, study=study, peers=True, rounds=1), tmp_path)
    missing = ["onnxruntime: not installed", "openvino: not installed"]
    assert found.metrics["skipped"] == ["torch bf16: left out", *missing]
    assert "skipped openvino: not installed\n" in capsys.readouterr().out
    assert {t["contender"] for t in found.metrics["timings"]} <= {"torch", "sparse", "table", "dataflow"}


@pytest.mark.parametrize("export", [bench._onnx_layer, bench._onnx_network])
def test_peers_without_onnx_are_skipped_visibly(monkeypatch, export):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(bench, "_onnxruntime", pytest.fail)
    monkeypatch.setattr(bench, "_openvino", pytest.fail)
    skipped = []
    assert bench._peers(TINY, lambda: export(None, None), None, None, ["fp32"], skipped) == []
    assert skipped == ["onnxruntime: onnx not installed", "openvino: onnx not installed"]


@pytest.fixture
def peers():
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name)


@pytest.mark.parametrize("study", ["layers", "network"])
def test_peers_run_where_installed(peers, tmp_path, study):
    found = run(replace(TINY, study=study, peers=True, rounds=1, batch=2), tmp_path)
    rows = {(t["contender"], t["variant"], t["precision"]) for t in found.metrics["timings"]}
    expected = {("onnxruntime", "fp32", "fp32"), ("openvino", "fp32", "fp32")}
    if study == "layers":
        expected.add(("onnxruntime", "int8", "int8"))
        read = {t["variant"]: t["weight_bytes"] for t in found.metrics["timings"] if t["contender"] == "onnxruntime"}
        assert read["fp32"] == 4 * read["int8"] > 0
    assert expected <= rows
    assert found.provenance["peers"].keys() == {"onnxruntime", "openvino"}


def test_a_peer_that_would_kill_the_process_is_skipped(peers, monkeypatch):
    monkeypatch.setattr(bench, "_TRIAL", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    shape = ConvShape(4, 4, 4, 4)
    weight, x = np.ones((4, 4, 3, 3), np.float32), np.ones((1, 4, 4, 4), np.float32)
    with pytest.raises(bench.Unusable, match="died of SIGILL"):
        bench._openvino(bench._onnx_layer(shape, weight), x, "int8", 1)


def test_threads_are_given_back(monkeypatch):
    before = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(bench, "_subjects", lambda *_: seen.append(torch.get_num_threads()) or [])
    measure(replace(TINY, threads=2))
    assert seen == [2]
    assert torch.get_num_threads() == before


def test_a_chosen_isa_and_batch_are_used(capsys):
    timings = measure(replace(TINY, rounds=1, isa="scalar", batch=2))["timings"]
    assert {t["isa"] for t in timings if t["contender"] != "torch"} == {"scalar"}
    assert {t["batch"] for t in timings} == {2}
    assert capsys.readouterr().out.count("\n") == 1 + len(SHAPES["tiny"]), "a line per layer, one of what was left out"


def test_resnet_shapes_are_the_stride_1_layers():
    assert [(s.C, s.H, s.K, s.stride) for s in SHAPES["resnet18"]] == [
        (64, 56, 64, 1), (128, 28, 128, 1), (256, 14, 256, 1), (512, 7, 512, 1),
    ]  # fmt: skip
    assert [(s.C, s.H) for s in SHAPES["resnet20"]] == [(16, 32), (32, 16), (64, 8)]


@pytest.mark.parametrize("study", ["layers", "density"])
def test_only_chosen_algorithms_run(study):
    config = replace(TINY, study=study, algorithms="table sparse", rounds=1)
    assert {t["contender"] for t in measure(config)["timings"]} == {"torch", "table", "sparse"}


def test_config_is_short():
    assert len(fields(BenchConfig)) <= 20


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "study",
            "energy",
            "study = 'energy'; allowed: layers, threads, density, codebooks, network, training, operations",
        ),
        ("shapes", "vgg", "shapes = 'vgg'; allowed: resnet18, resnet20, tiny"),
        ("density", 0.0, r"density = 0\.0; allowed: above 0"),
        ("ternary_density", 1.5, r"ternary_density = 1\.5"),
        ("algorithms", "table dense", "algorithms = 'table dense'; allowed: one or more of sparse, table, dataflow"),
        ("algorithms", " ", "algorithms = ' '"),
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
