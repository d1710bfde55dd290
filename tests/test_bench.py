"""The benchmark on tiny layers and a tiny network: every contender is checked and timed, and its record reads back."""

import itertools
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sbkit import inference, kernels, records
from sbkit.bench import BenchConfig, benchmark, libraries, measure, ours, run, subjects
from sbkit.bench.config import NETWORKS
from sbkit.bench.contender import Contender, Subject, Unusable, Work
from sbkit.bench.libraries import open_vino, pytorch
from sbkit.bench.studies import DENSITIES, STEPS, STUDIES
from sbkit.conv import ConvShape, QuantizedWeight
from sbkit.cpu import has_bf16
from sbkit.inference.layers import FullConv2d, OuterKernel
from sbkit.models import conv_shapes
from sbkit.quantizers.activations import LearnedStep
from sbkit.way import FLOAT_BITS, PEERS, Way

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
OF_RUNS = {"trained": "tests/test_bench_trained.py", "integer_codes": "tests/test_bench_codes.py"}
ON_RANDOM_CODES = [study for study in STUDIES if study not in OF_RUNS]
TINY = BenchConfig(shapes="tiny", peers=False, rounds=2, min_run_ms=0.1)


def patch_bf16(patch, trouble):
    for module in (pytorch, subjects):
        patch.setattr(module, "bf16_trouble", lambda: trouble)


@pytest.fixture(scope="module", autouse=True)
def without_bf16():
    """The same contenders on every machine; `test_bf16_is_timed_where_it_works` has those in bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch_bf16(patch, "left out")
        yield


@pytest.fixture(scope="module")
def measured():
    """The metrics of a study on tiny layers, measured once."""
    known = {}

    def of(study):
        if study not in known:
            more = {"network": {"batch": 2, "threads": 2}, "training": {"batch": 4, "rounds": 1}}
            more["network_integers"] = {"outer_layers": "integers"}
            known[study] = measure(replace(TINY, study=study, **more.get(study, {})))
        return known[study]

    return of


@pytest.fixture(scope="module")
def rows(measured):
    return lambda study: [row | {"way": Way.of(row["way"])} for row in measured(study)["timings"]]


MORE = {"bound_adds", "bound_ms", "roofline_fraction", "on_threads", "processes"}
"""Columns of committed records that are not measured any more, as their `peaks` are not, or for several processes."""

STAGES = {"tables_ms", "sums_ms", "finish_ms", "least_sums_ms"}
"""Columns of our kernels on integers, which committed records may lack."""


@pytest.mark.parametrize("study", ON_RANDOM_CODES)
def test_a_study_has_the_ways_and_the_columns_of_the_committed_records(measured, study):
    found, committed = measured(study), records.load(REFERENCE / f"speed/records/bench/{study}.json").metrics
    assert found.keys() == committed.keys() - {"peaks"}
    timed = {frozenset(row) - STAGES for row in found["timings"]}
    assert timed == {frozenset(row) - MORE - STAGES for row in committed["timings"]}
    listed = {*STUDIES[study].ways, *STUDIES[study].libraries(peers=True)}
    listed.update(way for way, _ in STUDIES[study].at_density)
    assert {Way.of(row["way"]) for row in committed["timings"]} == listed


@pytest.mark.parametrize("study", [study for study in ON_RANDOM_CODES if study != "operations"])
def test_every_way_is_timed_once_on_every_subject(rows, study):
    timed = [(row["layer"], row["way"], row["density"]) for row in rows(study)]
    assert len(set(timed)) == len(timed)
    layers = {
        "network": ["network"],
        "network_integers": ["network"],
        "training": ["training step"],
        "density": ["16→16 @4"],
        "integer_costs": ["8→8 @8"],
    }
    ways = {way for way, _ in STUDIES[study].kernels(TINY.algorithms)} | {*STUDIES[study].ways, *STUDIES[study].torch}
    ways = {way for way in ways if way.precision != "bf16"}
    expected = itertools.product(layers.get(study, ["8→8 @8", "16→16 @4"]), ways)
    assert {timing[:2] for timing in timed} == set(expected)


@pytest.mark.parametrize("study", ["layers", "density", "network"])
def test_timings_are_consistent(rows, study):
    for row in rows(study):
        assert len(row["round_ms"]) == row["rounds"] == TINY.rounds
        assert row["median_ms"] == np.median(row["round_ms"])
        assert 0 < row["min_ms"] <= row["median_ms"]
        assert (row["reduction"] == 1) == (row["way"].algorithm == "torch")
        if study == "layers":
            assert row["gmacs"] == pytest.approx(row["K"] * row["C"] * 9 * row["H"] ** 2 / row["median_ms"] / 1e6)
            # What is executed has padded borders, too, and its channels per table are chosen for speed.
            assert row["best_reduction"] >= row["reduction"]


def test_shapes_vary_one_at_a_time_around_the_first():
    base, *others = NETWORKS["sizes"].layers
    assert (base.C, base.H, base.K, base.R, base.stride) == (128, 28, 128, 3, 1)
    varied = {"C": {base.C}, "K": {base.K}, "H": {base.H}}
    for shape in others:
        [name] = [name for name in varied if getattr(shape, name) != getattr(base, name)]
        varied[name].add(getattr(shape, name))
        assert shape == replace(base, **{name: getattr(shape, name)} | ({"W": shape.H} if name == "H" else {}))
    sizes = {32, 64, 128, 256, 512}
    assert varied == {"C": sizes, "K": sizes, "H": {7, 14, 28, 56}} and len(others) == 11


def test_bits_and_densities_vary_one_at_a_time(rows):
    found = {(row["way"].activation_bits, round(row["density"], 1)) for row in rows("integer_costs") if signed(row)}
    usual = TINY.density
    assert {bits for bits, density in found if abs(density - usual) < 0.06} >= {2, 4, 6, 8}
    assert len({density for bits, density in found}) == 5 and {b for b, d in found if abs(d - usual) > 0.06} == {6}


def signed(row):
    return row["way"].scheme == "signed_binary" and not row["way"].codebook_bits


def test_each_round_has_an_order_of_its_own(monkeypatch):
    order = []

    class Timer:
        def __init__(self, _, globals, num_threads):
            self.call = globals["call"]

        def blocked_autorange(self, min_run_time):
            self.call()
            return type("Measurement", (), {"median": 1.0, "times": [1.0]})

    monkeypatch.setattr(benchmark, "Timer", Timer)
    found = [Contender(Way("torch"), lambda i=i: order.append(i), {}) for i in range(8)]
    subject = Subject({"adds": 1, "multiplies": 1}, 1, found)
    for _ in range(2):
        benchmark.timings(replace(TINY, rounds=3), subject)
    warm_up, *rounds = (tuple(order[i : i + 8]) for i in range(0, 32, 8))
    assert warm_up == tuple(range(8)) and len({warm_up, *rounds}) == 4
    assert all(sorted(numbers) == list(range(8)) for numbers in rounds)
    assert order[32:] == order[:32], "the same seed gives the same order"


def test_processes_are_pooled(monkeypatch, tmp_path):
    parts = []

    def inline(function, config):
        parts.append((config, function(config)))
        return parts[-1][1]

    monkeypatch.setattr(benchmark, "in_own_process", inline)
    config = replace(TINY, processes=3, seed=5, algorithms="sparse")
    record = run(config, tmp_path)
    assert [part for part, _ in parts] == [replace(config, processes=1, seed=seed) for seed in (5, 6, 7)]
    assert record.provenance["seeds"] == [5, 6, 7] and record.config["processes"] == 3
    each = [rows for _, (rows, _) in parts]
    assert len({rows[2]["density"] for rows in each}) == 3, "codes are drawn anew"
    for row, *alone in zip(record.metrics["timings"], *each, strict=True):
        assert row["round_ms"] == [ms for one in alone for ms in one["round_ms"]]
        assert (row["processes"], row["rounds"], row["median_ms"]) == (3, 6, np.median(row["round_ms"]))
        assert row["iqr_ms"] == max(one["iqr_ms"] for one in alone)
        assert row["min_ms"] == min(one["min_ms"] for one in alone)
        assert row["gmacs"] * row["median_ms"] == pytest.approx(alone[0]["gmacs"] * alone[0]["median_ms"])
        assert [row[key] for key in ("way", "adds", "density")] == [alone[0][key] for key in ("way", "adds", "density")]
    assert record.metrics["skipped"] == ["torch bf16: left out"]


def test_a_process_of_its_own():
    assert benchmark.in_own_process(os.getpid) != os.getpid()
    with pytest.raises(ZeroDivisionError):
        benchmark.in_own_process(divmod, 1, 0)


def test_operations_are_those_of_the_committed_record():
    """Of the first layer, as the others take minutes."""
    committed = records.load(REFERENCE / "quick/records/bench/operations.json").metrics["timings"]
    first = [row for row in committed if row["layer"] == committed[0]["layer"]]
    assert list(itertools.islice(ours.operations(BenchConfig(study="operations")), len(first))) == first


def test_densities(rows):
    densities = {}
    for row in rows("density"):
        densities.setdefault((row["way"].scheme, row["way"].algorithm), []).append(row["density"])
    for kind in itertools.product(("signed_binary", "ternary_twn"), ("sparse", "table", "dataflow")):
        assert densities[kind] == pytest.approx(DENSITIES, abs=0.03)


def test_ways_of_one_codebook_run_the_same_codes(rows):
    densities = {}
    for row in rows("codebooks"):
        if bits := row["way"].codebook_bits:
            assert row["entropy_bits"] == bits / row["way"].regions < 1
            densities.setdefault((row["layer"], bits, row["way"].regions, row["way"].scheme), set()).add(row["density"])
    assert len(densities) == (5 + 3) * 2 and {len(found) for found in densities.values()} == {1}


def test_a_network_is_timed_whole(rows):
    found = rows("network")
    columns = ("layer", "model", "batch", "C", "H", "K")
    assert {tuple(row[column] for column in columns) for row in found} == {("network", "resnet8", 2, 3, 8, 10)}
    # Of 16 masks of 8 channels one is empty, 8 have a channel and 7 two.
    densities = [row["density"] for row in found if row["way"].algorithm == "table"]
    assert densities == pytest.approx([0.35, 1, 0.58, 22 / 16 / 8], abs=0.02)
    # Stem, quantized layers, shortcuts and classifier of ResNet-8 at 8x8, of width 8; two images.
    macs = 8 * 27 * 64 + 2 * 8 * 72 * 64
    macs += (16 * 72 + 16 * 144 + 16 * 8) * 16 + (32 * 144 + 32 * 288 + 32 * 16) * 4 + 32 * 10
    assert {round(row["gmacs"] * row["median_ms"] * 1e6) for row in found} == {2 * macs}


@pytest.mark.parametrize(("form", "kind"), [("floats", FullConv2d), ("integers", OuterKernel)])
def test_outer_layers_are_what_the_option_says(form, kind, monkeypatch):
    lowered, lower = [], inference.lower
    monkeypatch.setattr(inference, "lower", lambda *a, **options: lowered.append(lower(*a, **options)) or lowered[-1])
    config = replace(TINY, study="network_integers", outer_layers=form)
    shapes, x = (
        conv_shapes(ours.build(config), 3, 8),
        torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    )
    next(ours.on_network(config, shapes, x))
    kinds = [type(part) for part in lowered[0].modules() if isinstance(part, (FullConv2d, OuterKernel))]
    assert kinds == [kind] * 3


def test_a_network_is_as_wide_as_asked_for():
    config = replace(TINY, study="network_integers")
    assert [conv_shapes(ours.build(replace(config, width=width)), 3, 8)[0].K for width in (0, 12)] == [8, 12]


def test_a_fitted_network_has_the_statistics_of_its_batch():
    config = replace(TINY, study="network_integers")
    model, x = (
        ours.build(config, activation_bits=6),
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    )
    ours.fit(model, x)
    stem, norm = model.stem[0], model.stem[1]
    assert torch.allclose(norm.running_mean, stem(x).detach().mean((0, 2, 3)), atol=1e-6) and not model.training
    steps = [module for module in model.modules() if isinstance(module, LearnedStep)]
    assert steps and all(step.log_step.item() != 0 for step in steps)


def test_a_training_step_trains_each_design(measured, rows):
    assert [row["way"].variant for row in rows("training")] == list(STEPS)
    assert measured("training")["skipped"] == ["torch bf16: left out"]
    (subject,) = subjects.training(replace(TINY, study="training", batch=4), [])
    for contender in subject.contenders:
        parameters = list(contender.call.args[0].parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        with torch.inference_mode():  # as timings are taken
            contender.call()
        changed = [bool((old != new).any()) for old, new in zip(before, parameters, strict=True)]
        assert sum(changed) > len(changed) / 2, contender.way


def test_bf16_is_timed_where_it_works(monkeypatch):
    if not has_bf16():
        pytest.skip("torch has no convolutions in bf16 for this CPU")
    patch_bf16(monkeypatch, "")
    rows = []
    for study in ("layers", "network", "training"):
        config = replace(TINY, study=study, batch=2, rounds=1, min_run_ms=0.01, algorithms="sparse")
        rows += [row for row in measure(config)["timings"] if row["way"].get("precision") == "bf16"]
    assert [row["weight_bytes"] for row in rows[:2]] == [2 * 9 * 8 * 8, 2 * 9 * 16 * 16]
    assert [row["way"]["variant"] for row in rows] == ["channels_last"] * 3 + [*STEPS]


def regions_of(way, shape):
    """Codes (filters, blocks, taps, channels of a block) of a way."""
    codes = ours.random_codes(TINY, shape, way).codes
    return codes.reshape(shape.K, -1, way.regions, 9).transpose(0, 1, 3, 2)


def test_random_regions():
    blocks = regions_of(Way("table", "signed_binary", regions=4), ConvShape(8, 4, 4, 16))
    signs = np.sign(blocks.sum(axis=(2, 3)))  # (filters, blocks)
    assert (np.abs(blocks) == blocks * signs[:, :, None, None]).all()
    assert set(signs.ravel()) == {-1, 1} and (signs[:, 0] != signs[:, 1]).any()


def test_random_codes_are_of_one_codebook():
    shape = ConvShape(32, 8, 8, 24)
    masks = regions_of(Way("table", "signed_binary", regions=16, codebook_bits=4), shape).reshape(-1, 16)
    assert len(np.unique(abs(masks), axis=0)) == 16 and abs(masks).sum(1).max() == 1  # none, or one of 15 channels
    assert {-1, 0, 1} == set(masks.flat)
    signs = regions_of(Way("table", "binary", regions=16, codebook_bits=4), shape).reshape(-1, 16)
    assert len(np.unique(signs, axis=0)) == 16 and {-1, 1} == set(signs.flat)


@pytest.mark.parametrize(
    ("study", "algorithm", "message"),
    [
        *(("layers", name, f"{name}, signed binary .*by 1; allowed: 0") for name in ("sparse", "table", "dataflow")),
        ("integers", "lookup", "lookup, signed binary, 4-bit activations .*by 1; allowed: 0"),
        ("network", "table", "the lowered network does not compute what the model does"),
    ],
)
def test_a_wrong_kernel_is_not_timed(monkeypatch, study, algorithm, message):
    right = kernels.conv2d
    monkeypatch.setattr(kernels, "conv2d", lambda prepared, *x: right(prepared, *x) + (prepared.algorithm == algorithm))
    monkeypatch.setattr(benchmark, "timings", lambda *_: pytest.fail("timed"))
    with pytest.raises((AssertionError, RuntimeError), match=message):
        measure(replace(TINY, study=study))


def test_integers_are_rounded_to_their_bits():
    sums = np.array([[[[-3, 0]], [[10, 5]]]])
    rounded = ours.rounding_of(sums, 4).apply(sums.astype(np.int32))
    assert rounded.ravel().tolist() == [0, 0, 15, 8]  # 7.5 to even
    assert (ours.rounding_of(np.zeros((1, 2, 1, 1)), 8).scale == 255).all()


def test_expected_sums_are_those_of_the_reference_kernel():
    shape = ConvShape(5, 7, 6, 4, stride=2)
    weight = ours.random_codes(TINY, shape, Way("table", "ternary_twn"))
    x = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 6)).astype(np.uint8)
    reference = kernels.conv2d(kernels.prepare("dense", weight, shape, activation_bits=8), x)
    assert (ours.exact_sums(weight, shape, x) == reference).all() and reference.any()


def test_rows_of_integers_say_how_their_time_divides(rows):
    for row in rows("integers"):
        way = row["way"]
        if way.activation_bits == FLOAT_BITS or way.algorithm == "torch":
            assert not STAGES & row.keys()
            continue
        assert row.keys() >= STAGES and row["tables_ms"] > 0
        if way.algorithm == "table":
            assert 0 < row["least_sums_ms"] < row["min_ms"]


@pytest.mark.parametrize("off", [0, 1, 2])
def test_a_library_of_integers_may_be_off_by_one_step(monkeypatch, peers, off):
    (subject,) = itertools.islice(subjects.integers(replace(TINY, study="integers", algorithms="sparse"), []), 1)
    onednn = next(each for each in subject.contenders if each.way == Way("torch", precision="int8", variant="onednn"))
    y = onednn.call().int_repr().numpy()
    assert y.dtype == np.uint8 and y.max() == 255 and np.unique(y).size > 20
    shape = ConvShape(8, 8, 8, 8)
    work = Work(subjects.convolution(shape, np.ones((8, 8, 3, 3), np.float32)), None, y, shape.weights, 1, 2.0)
    wrong = np.clip(y.astype(int) - off, 0, 255).astype(np.uint8)
    library = libraries.Library(lambda *_: lambda: wrong, onednn=lambda way: False)
    monkeypatch.setitem(libraries.LIBRARIES, "onnxruntime", library)
    found = libraries.contenders(work, [Way("onnxruntime", precision="int8")], [])
    if off < 2:
        assert len(list(found)) == 1
        return
    with pytest.raises(AssertionError, match="ONNX Runtime int8 differs from the reference by 2; allowed: 1"):
        list(found)


@pytest.mark.parametrize("isa, held", [("auto", None), ("avx2", "AVX2"), ("avx512", "AVX512_CORE_VNNI")])
def test_libraries_are_held_to_the_isa_of_the_kernels(monkeypatch, isa, held):
    if isa not in ("auto", *kernels.isas()):
        pytest.skip(f"this machine has no {isa}")
    monkeypatch.setenv(libraries.HELD_TO, "")  # for the test to restore
    monkeypatch.delenv(libraries.HELD_TO)
    alone = []
    monkeypatch.setattr(benchmark, "in_own_process", lambda function, config: alone.append(isa) or function(config))
    config = replace(TINY, study="integers", rounds=1, min_run_ms=0.01, algorithms="sparse", isa=isa)
    found = measure(config)["timings"]
    assert os.environ.get(libraries.HELD_TO) == held and bool(alone) == (held is not None)
    isas = {row["way"].get("variant"): row["isa"] for row in found if row["way"]["algorithm"] == "torch"}
    assert isas == {"channels_last": (held or "").lower(), "onednn": (held or "").lower(), "fbgemm": ""}


@pytest.fixture
def work():
    """A layer of ones."""
    shape = ConvShape(4, 4, 4, 4)
    weight, x = np.ones((4, 4, 3, 3), np.float32), np.ones((1, 4, 4, 4), np.float32)
    y = kernels.conv2d(kernels.prepare("dense", QuantizedWeight(weight.astype(np.int8)), shape), x)
    return Work(subjects.convolution(shape, weight), torch.from_numpy(x), y, shape.weights, 1)


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_wrong_library_is_not_timed(monkeypatch, work, value):
    library = libraries.Library(lambda *_: lambda: np.full((1, 4, 4, 4), value), onednn=lambda way: False)
    monkeypatch.setitem(libraries.LIBRARIES, "onnxruntime", library)
    with pytest.raises(AssertionError, match="ONNX Runtime differs from the reference"):
        list(libraries.contenders(work, [Way("onnxruntime")], []))


def test_absent_libraries_are_skipped_visibly(monkeypatch, capsys, work):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", sys)
    monkeypatch.setitem(sys.modules, "onnx", None)
    skipped = []
    found = list(libraries.contenders(work, STUDIES["layers"].libraries(peers=True), skipped))
    assert skipped == ["torch bf16: left out", "onnxruntime: not installed", "openvino: onnx not installed"]
    assert "skipped onnxruntime: not installed\n" in capsys.readouterr().out
    assert {contender.way.algorithm for contender in found} == {"torch"}


@pytest.fixture
def peers():
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name)


@pytest.mark.parametrize("study", ["layers", "integers", "network", "network_integers"])
def test_libraries_run_where_installed(peers, tmp_path, study):
    found = run(replace(TINY, study=study, peers=True, rounds=1, batch=2, algorithms="sparse"), tmp_path)
    bytes_of = {Way.of(row["way"]): row["weight_bytes"] for row in found.metrics["timings"]}
    assert {way.algorithm for way in bytes_of} >= PEERS.keys()
    if not study.startswith("network"):
        assert bytes_of[Way("onnxruntime")] == 4 * bytes_of[Way("onnxruntime", precision="int8")] > 0
    assert found.provenance["peers"].keys() == {"onnxruntime", "openvino"}


@pytest.mark.parametrize(
    "trial, trouble",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "died of SIGILL"),
        ("raise RuntimeError('no such layer')", "failed in a trial: RuntimeError: no such layer"),
    ],
)
def test_a_library_that_would_end_the_process_is_skipped(peers, monkeypatch, work, trial, trouble):
    monkeypatch.setattr(open_vino, "_TRIAL", trial)
    with pytest.raises(Unusable, match=trouble):
        open_vino.load(work, Way("openvino", precision="int8"))


def test_the_record_says_what_was_measured_and_where(tmp_path):
    config = replace(TINY, rounds=1, isa="scalar", batch=2, algorithms="table sparse")
    record = run(config, tmp_path)
    assert records.load(tmp_path / "records" / "bench" / f"{record.id}.json") == record
    assert record.config == records.changed(config) and "study" not in record.config
    assert record.id == records.run_id("bench", record.config)
    assert record.provenance["options"] == asdict(config)
    assert (record.provenance["threads"], record.provenance["isa"], record.provenance["peers"]) == (1, "scalar", {})
    rows = record.metrics["timings"]
    assert {row["way"]["algorithm"] for row in rows} == {"torch", "table", "sparse"}
    assert {row["isa"] for row in rows if row["way"]["algorithm"] != "torch"} == {"scalar"}
    assert {row["batch"] for row in rows} == {2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"study": "energy"}, "study = 'energy'; allowed: layers, density, codebooks, integers, integer_s"),
        ({"shapes": "vgg"}, "shapes = 'vgg'; allowed: resnet18, resnet20, vgg_small, tiny, sizes"),
        ({"study": "network", "shapes": "sizes"}, "shapes = 'sizes'; allowed: resnet18, resnet20, vgg_small, tiny"),
        ({"density": 0.0}, r"density = 0\.0; allowed: a number from 0.001 to 1"),
        ({"algorithms": "table dense"}, "a word of algorithms = 'dense'; allowed: sparse, table, dataflow, lookup"),
        ({"peers": "no"}, "peers = 'no'; allowed: True, False"),
        ({"rounds": 0}, "rounds = 0; allowed: an integer >= 1"),
        (
            {"study": "network", "outer_layers": "integers"},
            "outer_layers in the study network = 'integers'; allowed: floats",
        ),
        (
            {"study": "layers", "width": 8},
            "width = 8 in the study layers; allowed: 0, the network's own",
        ),
        ({"study": "operations", "processes": 2}, "times nothing, processes = 2; allowed: an integer from 1 to 1"),
        ({"min_run_ms": 0.0}, r"min_run_ms = 0\.0"),
        ({"seed": -1}, "seed = -1"),
        ({"isa": "sse2"}, "isa = 'sse2'; allowed: auto, scalar"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BenchConfig(**options)


@pytest.mark.parametrize("name", ["../../evil", "a b", "x" * 101])
def test_a_name_is_one_word(tmp_path, name):
    with pytest.raises(ValueError, match=r"name = .*; allowed: up to 100 letters"):
        run(TINY, tmp_path, name=name)
    assert list(tmp_path.iterdir()) == []
