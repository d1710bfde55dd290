"""Records: what is refused, what a reader sees while others write, and where provenance comes from."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from sbkit import records
from sbkit.records import Record

RECORD = Record(
    kind="train",
    id="signed_binary-00000000",
    config={"quantizer": "signed_binary", "seed": 0, "density": 0.5},
    metrics={"top1_percent": 81.25, "density": 0.375},
    history={"epochs": [{"epoch": 1, "train_loss": 0.5}], "edges": [0.0, 0.5]},
    provenance={
        **{"status": "ok", "cpu": "A", "isa": "avx2", "versions": {"torch": "2"}},
        "options": {"quantizer": "signed_binary", "seed": 0, "density": 0.5, "epochs": 3},
    },
)


@dataclass(frozen=True)
class Options:
    width: int = 16
    name: str = "relu"
    clamp: float = 0.0


def test_a_configuration_is_what_differs_from_the_defaults():
    assert records.changed(Options(), Options(clamp=2.0)) == {"clamp": 2.0}
    assert records.changed(Options(width=8, name="relu")) == {"width": 8}


def test_id_hashes_the_config_alone():
    same = records.run_id("sb", {"seed": 0, "quantizer": "binary"})
    assert same == records.run_id("sb", {"quantizer": "binary", "seed": np.int64(0)})
    assert re.fullmatch(r"sb-[0-9a-f]{8}", same)
    assert same != records.run_id("sb", {"quantizer": "binary", "seed": 1})
    # Pinned: another hash would orphan every committed record.
    assert records.run_id("sb", {"seed": 0}) == "sb-bd048884"


def test_round_trip(tmp_path):
    path = records.write(RECORD, tmp_path / "new" / "run.json")
    assert records.load(path) == RECORD
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]
    assert '  "edges": [0.0, 0.5],' in path.read_text().splitlines()  # a list of numbers is one line


def test_numpy_values_become_plain(tmp_path):
    history = {"counts": np.arange(3), "mean": np.float32(0.5), "pair": (1, 2), 7: True}
    path = records.write(replace(RECORD, history=history), tmp_path / "run.json")
    assert records.load(path).history == {"counts": [0, 1, 2], "mean": 0.5, "pair": [1, 2], "7": True}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
@pytest.mark.parametrize("wrap, key", [(lambda v: v, "metrics.loss"), (lambda v: [{"x": v}], r"metrics.loss\[0\].x")])
def test_non_finite_is_refused_before_writing(tmp_path, value, wrap, key):
    with pytest.raises(ValueError, match=key):
        records.write(replace(RECORD, metrics={"loss": wrap(value)}), tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


def test_what_json_lacks_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"config\.root is a .*Path"):
        records.write(replace(RECORD, config={"root": tmp_path}), tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind_is_refused(tmp_path):
    for refused in (lambda: replace(RECORD, kind="test"), lambda: records.read(tmp_path, "test")):
        with pytest.raises(ValueError, match=r"'test'; allowed: train, bench"):
            refused()


@pytest.mark.parametrize("step, advice", [(1, "update sbkit"), (-1, "make it again")])
def test_another_schema_is_refused(tmp_path, step, advice):
    path = records.write(replace(RECORD, schema=records.SCHEMA + step), tmp_path / "run.json")
    with pytest.raises(
        ValueError, match=rf"run\.json.*schema is {records.SCHEMA + step}.*reads {records.SCHEMA}: {advice}"
    ):
        records.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"metrics"', '"metric"'),
        lambda text: text.replace(f'"schema": {records.SCHEMA}', '"schema": "two"'),
        lambda text: "[" * 100_000,
        lambda text: re.sub(r'"history": \{.*?\n \}', '"history": null', text, flags=re.DOTALL),
        lambda text: text.replace('"signed_binary-', '"\udcff'),
        lambda text: re.sub(r'"options": \{.*?\}', '"options": 5', text, flags=re.DOTALL),
        lambda text: re.sub(r'"top1_percent": [0-9.]+', '"timings": [5]', text),
        lambda text: text.replace('"kind": "train"', '"kind": ["train"]'),
        lambda text: text.replace(f'"schema": {records.SCHEMA}', f'"schema": {"9" * 5000}'),
        lambda text: re.sub(r'"top1_percent": [0-9.]+', '"top1_percent": NaN', text),
        lambda text: re.sub(r'"top1_percent": [0-9.]+', '"top1_percent": 1e999', text),
        lambda text: re.sub(r'"id": "[^"]*"', '"id": 3', text),
    ],
    ids=[
        *("empty", "half", "list", "renamed", "text schema", "nested", "null", "not UTF-8", "options", "timings"),
        *("kind", "digits", "not a number", "no finite number", "id"),
    ],
)
def test_damaged_file_is_named(tmp_path, damage):
    path = records.write(RECORD, tmp_path / "run.json")
    path.write_text(damage(path.read_text()), errors="surrogateescape")
    with pytest.raises(ValueError, match=r"run\.json is not a readable record"):
        records.load(path)


def test_a_record_among_those_of_another_kind_is_refused(tmp_path):
    records.write(RECORD, tmp_path / "records" / "bench" / "run.json")
    with pytest.raises(ValueError, match=r"run\.json is a record of kind 'train'; allowed here: 'bench'"):
        records.read(tmp_path, "bench")


def test_train_frame(tmp_path):
    for name in ("b", "a"):
        records.write(RECORD, tmp_path / "records" / "train" / f"{name}.json")
    frame = records.read(tmp_path, "train")
    assert frame["name"].tolist() == ["a", "b"]
    row = frame.iloc[0].to_dict()
    assert row.pop("path") == str(tmp_path / "records" / "train" / "a.json")
    assert row == {
        "id": RECORD.id,
        "name": "a",
        "config": RECORD.config,
        "epochs": 3,  # an option that has its default
        "quantizer": "signed_binary",
        "seed": 0,
        "density": 0.375,  # the metric, not the option of the same name
        "top1_percent": 81.25,
        "provenance_status": "ok",
        "provenance_cpu": "A",
        "provenance_isa": "avx2",
    }


def test_bench_frame_has_a_row_per_timing(tmp_path):
    timings = [{"layer": "l1", "latency_ms": 1.0, "seed": 9}, {"layer": "l2", "latency_ms": 2.0}]
    bench = replace(RECORD, kind="bench", metrics={"timings": timings, "contenders": 3})
    records.write(bench, tmp_path / "records" / "bench" / "layers.json")
    frame = records.read(tmp_path, "bench")
    assert frame[["name", "layer", "latency_ms", "contenders"]].values.tolist() == [
        ["layers", "l1", 1.0, 3],
        ["layers", "l2", 2.0, 3],
    ]
    assert frame["seed"].tolist() == [9, 0]
    assert "timings" not in frame


def test_folder_without_records_gives_an_empty_frame(tmp_path):
    frame = records.read(tmp_path, "train")
    assert frame.empty and list(frame) == ["id", "name", "path", "config"]


@pytest.mark.parametrize("provenance", [{"status": "failed"}, {}])
def test_unfinished_record_is_skipped_with_a_warning(tmp_path, provenance):
    records.write(RECORD, tmp_path / "records" / "train" / "good.json")
    records.write(replace(RECORD, provenance=provenance), tmp_path / "records" / "train" / "bad.json")
    with pytest.warns(UserWarning, match=rf"skipped .*bad\.json: its status is {provenance.get('status')!r}"):
        assert records.read(tmp_path, "train")["name"].tolist() == ["good"]


def test_a_reader_never_sees_a_torn_file(tmp_path):
    """Two threads write: `write_atomic` shares nothing, so that they might as well be processes."""
    path, enough = tmp_path / "run.json", threading.Event()

    def hammer(digit):
        while not enough.is_set():
            records.write(replace(RECORD, id=str(digit), history={"filling": [digit] * 2000}), path)

    writers = [threading.Thread(target=hammer, args=[digit]) for digit in (1, 2)]
    for writer in writers:
        writer.start()
    reads = {"1": 0, "2": 0}
    try:
        while min(reads.values()) < 20:
            assert all(writer.is_alive() for writer in writers)
            if path.exists():
                record = records.load(path)
                assert record.history["filling"] == [int(record.id)] * 2000
                reads[record.id] += 1
    finally:
        enough.set()
        for writer in writers:
            writer.join()
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = records.write_atomic(tmp_path / "file", b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        records.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_provenance(tmp_path, monkeypatch):
    system, _, *rest = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((system, "name-of-this-machine", *rest)))
    monkeypatch.setattr(platform, "_uname_cache", None)
    monkeypatch.setattr(socket, "gethostname", platform.node)
    assert platform.node() == "name-of-this-machine"
    begun = time.monotonic()
    started = records.start()._replace(time=0.0, monotonic=begun - 60, load_average=0.25)  # a clock that was set
    found = records.provenance(threads=2, started=started, seeds=[3], data_sha256={"x": "ab"}, extra={"isa": "scalar"})
    assert 59.99 < found["duration_seconds"] < 60.01 + time.monotonic() - begun
    assert (found["load_average"], found["threads"], found["seeds"], found["status"]) == (0.25, 2, [3], "ok")
    assert (found["data_sha256"], found["isa"]) == ({"x": "ab"}, "scalar")
    assert found["cpu"] and found["python"] == platform.python_version()
    assert 10 < found["peak_memory_mb"] < 1e5
    text = json.dumps(found)
    assert "name-of-this-machine" not in text
    assert not re.search(r'"(/|[A-Z]:\\)', text), "an absolute path"
    records.write(replace(RECORD, provenance=found), tmp_path / "run.json")


@pytest.mark.parametrize(
    "cpuinfo, name",
    [
        ("vendor_id : GenuineIntel\nmodel name\t: Some CPU @ 2 GHz\n", "Some CPU @ 2 GHz"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd40\n", f"{platform.machine()}, implementer 0x41, part 0xd40"),
    ],
)
def test_a_cpu_is_named_as_it_names_itself(monkeypatch, cpuinfo, name):
    monkeypatch.setattr(records.Path, "read_text", lambda self: cpuinfo)
    assert records._cpu() == name


def test_peak_memory_is_that_of_this_process():
    program = (
        "from sbkit.records import _peak_memory_bytes as peak; before = peak(); "
        "block = b'x' * 200_000_000; grown = peak(); del block; print(before, grown, peak())"
    )
    parent = b"x" * 400_000_000  # must not count
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    del parent
    before, grown, after = map(int, output.stdout.split())
    assert 1e6 < before < 2e8
    assert 1.9e8 < grown - before < 2.1e8
    assert after > 0.99 * grown  # the system's own count is approximate


def test_git_commit_is_that_of_this_checkout_alone(tmp_path, monkeypatch):
    module = tmp_path / "checkout" / "sbkit" / "records.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(records, "__file__", str(module))
    assert records._git() == {"commit": None, "dirty": None}

    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # nobody's signatures and hooks
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def git(folder, *arguments):
        command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    checkout = module.parents[1]
    git(checkout, "init")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-m", "first")
    assert records._git() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "notes.txt").write_text("not code")
    assert records._git()["dirty"] is False
    started = records.start()
    module.write_text("x = 1\n")
    assert records._git()["dirty"] is True
    assert records.provenance(threads=1, started=started)["dirty"] is False, "what ran is what was there at the start"

    installed = checkout / "venv" / "sbkit" / "records.py"
    monkeypatch.setattr(records, "__file__", str(installed))
    installed.parent.mkdir(parents=True)
    assert records._git() == {"commit": None, "dirty": None}
