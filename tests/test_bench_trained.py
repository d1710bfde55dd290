"""Trained networks are timed in the very form whose accuracy is told, which is that of the training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sbkit import records
from sbkit.bench import BenchConfig, run, trained
from sbkit.bench.contender import Work
from sbkit.bench.libraries import LIBRARIES
from sbkit.quantizers import QuantizerConfig
from sbkit.training import TrainConfig
from sbkit.training import run as train
from sbkit.way import AUTO, Way

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
SMALL = {"dataset": "digits", "width": 4, "image_size": 0, "train_images": 0, "epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A profile of three runs: in integers, in full precision, and with quantized weights and activations in floats."""
    folder = tmp_path_factory.mktemp("profile")
    for name, scheme, bits in (("ours", "binary", 6), ("dense", "full_precision", 32), ("neither", "binary", 32)):
        config = TrainConfig(**SMALL, activation_bits=bits, outer_layers="integers" if bits < 32 else "floats")
        train(config, QuantizerConfig(scheme), folder, name=name, progress="none")
    return folder


@pytest.fixture(scope="module")
def record(folder):
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name)
    config = BenchConfig("trained", networks=str(folder), rounds=2, min_run_ms=0.1)
    return run(config, folder, "trained")


def test_each_network_is_timed_in_its_ways(folder, record):
    name = {records.load(path).id: path.stem for path in (folder / "records" / "train").glob("*.json")}
    found = {(name[row["run"]], Way.of(row["way"])) for row in record.metrics["timings"]}
    binary = [Way(AUTO, "binary", encoding, activation_bits=6) for encoding in ("two_group", "rewritten")]
    dense = [Way(library, precision="int8") for library in ("onnxruntime", "openvino")]
    assert found == {*(("ours", way) for way in binary), *(("dense", way) for way in dense)}
    assert record.metrics["skipped"] == ["neither: neither all in integers nor all in floats"]


def test_a_row_tells_accuracy_and_size(folder, record):
    for row in record.metrics["timings"]:
        path = folder / "records" / "train" / ("ours.json" if row["run"].startswith("binary") else "dense.json")
        assert row["model_top1_percent"] == records.load(path).metrics["top1_percent"]
        assert abs(row["top1_percent"] - row["model_top1_percent"]) < (1e-9 if "scheme" in row["way"] else 5)
        assert row["width"] == 4 and min(row["file_bytes"], row["weight_bytes"]) > 0 and row["adds"] > 0
        assert not {"gmacs", "reduction"} & row.keys()


def test_accuracy_is_of_what_is_called():
    class Data:
        x_test, y_test = torch.tensor([[[[0]]], [[[255]]], [[[255]]]], dtype=torch.uint8), torch.tensor([0, 1, 0])
        mean, std = (0.0,), (1.0,)

    x = torch.zeros(1, 1, 1, 1)
    assert trained.top1(lambda: np.array([[0.5, x.item()]]), x, Data) == pytest.approx(200 / 3)


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_library_reads_its_input_anew(library, precision):
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, bias=False)).requires_grad_(False).eval()
    module[0].weight.fill_(1.0)
    x, images = torch.zeros(1, 1, 2, 2), torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2).contiguous()
    work = Work(module, x, None, 1, 1, calibration=images)
    call = LIBRARIES[library].load(work, Way(library, precision=precision))
    for value in (0.5, -1.0, 1.0):
        x.fill_(value)
        assert np.asarray(call()) == pytest.approx(value, abs=0.02)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"study": "trained"}, "networks = '' in the study trained; allowed: the folder of a profile"),
        ({"networks": "results/x"}, "networks = 'results/x' in the study layers; allowed: an empty text"),
        ({"study": "trained", "networks": "x", "batch": 2}, "in the study trained, batch = 2"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        BenchConfig(**options)


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(ValueError, match="holds no records/train; allowed: the folder of a profile"):
        run(BenchConfig("trained", networks=str(tmp_path)), tmp_path)


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*/records/bench/trained*.json")), ids=lambda path: path.stem)
def test_committed_networks_are_as_accurate_as_they_were_trained(path):
    rows = json.loads(path.read_text())["metrics"]["timings"]
    ours = [row for row in rows if "scheme" in row["way"]]
    assert ours and max(abs(row["top1_percent"] - row["model_top1_percent"]) for row in ours) <= 0.05
