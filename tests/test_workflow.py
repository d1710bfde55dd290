"""The batch driver end to end, in copies of the repository: what `make reproduce` promises, on the smoke profile."""

import fcntl
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
import psutil
import pytest

from sbkit import notebook, records

ROOT = Path(__file__).resolve().parents[1]
BIN = f"BIN={Path(sys.executable).parent}"
SMOKE = ("reproduce", "PROFILE=smoke", BIN)
RESULTS = Path("results/smoke")
ONE_RUN = "results/smoke/records/train/signed_binary-s0.json"
RUNS = {run["name"]: run for run in notebook.expand("smoke")}
TRAINED = [name for name, run in RUNS.items() if run["notebook"] == notebook.NOTEBOOKS["train"]]
BENCHMARKS = [name for name in RUNS if name not in TRAINED]
CODES = [name for name in TRAINED if RUNS[name]["parameters"]["quantizer"] != "full_precision"]
DRAWING = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - {"02_train", "07_bench"}

# Rules that a change runs, and how many jobs of each.
PAGE = {"page": 1}
READERS = {name[3:]: 1 for name in DRAWING} | PAGE
TRAINING = {rule: 1 for rule in READERS if rule != "speed"} | {
    "train": len(CODES),
    "train_full_precision": len(TRAINED) - len(CODES),
}
OF_BENCHMARKS = dict.fromkeys(("speed", "repetition", "energy", "open_review", "overview"), 1) | PAGE
BENCHMARK = OF_BENCHMARKS | {"bench": len(BENCHMARKS)}
ONE_BENCHMARK = BENCHMARK | {"bench": 1}

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="session")
def copy_sources(tracked_files):
    """A function that makes a folder what a clone would be, but for 1,900 files of results that nothing here reads."""

    def copy(folder):
        for path in tracked_files:
            name = path.relative_to(ROOT)
            if not name.is_relative_to("results/reference"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, folder / name)
        return folder

    return copy


def environment():
    """Without what a `make test` around this test, or its caller, would hand down to the makes below."""
    handed_down = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PROFILE", "RULE", "ARGS", "SBKIT_ROOT"}
    return {name: value for name, value in os.environ.items() if name not in handed_down}


def start(folder, *arguments, **options):
    return subprocess.Popen(
        ["make", *arguments],
        cwd=folder,
        env=environment() | options,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@dataclass
class Done:
    folder: Path
    code: int
    output: str
    cpu_seconds: float


def make(folder, *arguments, **options):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = start(folder, *arguments, **options)
    output, _ = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Done(folder, process.returncode, output, cpu_seconds)


def reproduce(folder, *arguments, **options):
    return make(folder, *SMOKE, *arguments, **options)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, copy_sources):
    """The smoke profile, reproduced once; tests that change it take a copy."""
    done = reproduce(copy_sources(tmp_path_factory.mktemp("smoke")))
    assert done.code == 0, done.output
    return done


@pytest.fixture
def finished(smoke, tmp_path):
    return shutil.copytree(smoke.folder, tmp_path / "copy", symlinks=True)


@pytest.fixture
def fresh(tmp_path, copy_sources):
    return copy_sources(tmp_path / "fresh")


def running(process):
    """Zombies do not: who has to bury an orphan, and when, is not the batch driver's business."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def planned(folder):
    """Rule -> number of jobs that the driver would run now."""
    done = reproduce(folder, "ARGS=--dry-run")
    assert done.code == 0, done.output
    table = re.search(r"^job +count\n[- ]+\n(.*?)^total", done.output, re.MULTILINE | re.DOTALL)
    jobs = dict(line.split() for line in table[1].splitlines()) if table else {}
    return {rule: int(count) for rule, count in jobs.items() if rule != "all"}


def catalogued():
    """Every figure and table file that the smoke profile should draw."""
    parameters = [run["parameters"] for run in RUNS.values()]
    entries = notebook.drawn(notebook.load_catalogue(ROOT), notebook.READS, parameters)
    return {f"{name}.{suffix}" for name in entries for suffix in notebook.FORMATS[name.partition("/")[0]]}


def files_in(folder, *kinds):
    return {str(path.relative_to(folder)) for kind in kinds for path in (folder / kind).rglob("*.*")}


def test_everything_declared_is_there(smoke):
    folder = smoke.folder / RESULTS
    assert files_in(folder, "figures", "tables") == catalogued()
    assert files_in(folder, "weights") == {f"weights/{name}.npz" for name in CODES}
    assert files_in(folder, "executed") == {f"executed/{name}.ipynb" for name in {*RUNS, *DRAWING}}
    for name in RUNS:
        kind = "train" if name in TRAINED else "bench"
        record = records.load(folder / "records" / kind / f"{name}.json")
        assert record.provenance["status"] == "ok"
    page = (folder / "index.html").read_text()
    assert page.count("<img") == sum(name.endswith(".svg") for name in catalogued()) and "Missing:" not in page
    assert (folder / "ro-crate-metadata.json").is_file()
    assert smoke.output.splitlines()[-3:] == [
        "figures   results/smoke/figures",
        "tables    results/smoke/tables",
        "overview  results/smoke/index.html",
    ]


def test_benchmark_runs_alone(smoke):
    spans = {}
    for path in (smoke.folder / RESULTS / "executed").iterdir():
        times = nbformat.read(path, 4).metadata.papermill
        spans[path.stem] = [datetime.fromisoformat(times[key]) for key in ("start_time", "end_time")]
    for benchmark in BENCHMARKS:
        begin, end = spans.pop(benchmark)
        beside = [name for name, (other_begin, other_end) in spans.items() if other_begin < end and begin < other_end]
        assert beside == []


def test_second_run_does_nothing_within_seconds(smoke):
    done = reproduce(smoke.folder)
    assert done.code == 0
    assert "Nothing to be done" in done.output
    assert done.cpu_seconds < smoke.cpu_seconds / 20


# What is edited: file, old text, new text, the jobs that then run.
CHANGES = {
    "notebook": ("notebooks/05_weights.ipynb", "density", "density ", {"weights": 1} | PAGE),
    "claims": ("notebooks/claims.toml", "\n", "\n# edited\n", {"overview": 1} | PAGE),
    "anchors": ("notebooks/anchors.toml", "\n", "\n# edited\n", {"accuracy": 1} | PAGE),
    "questions": ("notebooks/questions.toml", "\n", "\n# edited\n", {"open_review": 1} | PAGE),
    "caption": ("notebooks/catalogue.toml", "after every epoch", "after each epoch", {"accuracy": 1} | PAGE),
    "template": ("sbkit/page.html.jinja", "\n", "\n<!-- edited -->\n", PAGE),
    "title": ("notebooks/experiments.toml", "digits 8x8", "digits", READERS),
    "training parameter": ("notebooks/experiments.toml", "epochs = 2", "epochs = 1", TRAINING),
    "benchmark parameter": ("notebooks/experiments.toml", "min_run_ms = 1.0", "min_run_ms = 2.0", ONE_BENCHMARK),
    "plots": ("sbkit/plots.py", "\n", "\n# edited\n", READERS),
    "training": ("sbkit/training.py", "\n", "\n# edited\n", TRAINING),
    "kernels": ("sbkit/kernels.py", "\n", "\n# edited\n", BENCHMARK),
    "licence": ("LICENSE", "\n", "\nedited\n", {}),
}


@pytest.mark.parametrize(("name", "old", "new", "expected"), CHANGES.values(), ids=CHANGES)
def test_change_reruns_only_what_depends_on_it(finished, name, old, new, expected):
    text = (finished / name).read_text()
    assert old in text
    (finished / name).write_text(text.replace(old, new, 1))
    assert planned(finished) == expected


def test_touched_but_unchanged_reruns_nothing(finished):
    for path in (finished / "notebooks").iterdir():
        path.touch()
    assert planned(finished) == {}


def test_run_killed_by_force_continues(fresh):
    process = start(fresh, *SMOKE, f"RULE={ONE_RUN}")
    executed = fresh / RESULTS / "executed" / "signed_binary-s0.ipynb"
    while not executed.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    [scheduler] = [child for child in family if child.cmdline()[1:3] == ["-m", "snakemake"]]
    scheduler.kill()
    deadline = time.monotonic() + 120
    while outliving := [child for child in family if running(child)]:
        assert time.monotonic() < deadline, f"outlived the batch that started them: {outliving}"
        time.sleep(0.1)
    process.communicate()
    assert process.returncode != 0
    assert any((fresh / ".snakemake" / "locks").iterdir())

    done = reproduce(fresh, f"RULE={ONE_RUN}")
    assert done.code == 0, done.output
    assert records.load(fresh / ONE_RUN).provenance["status"] == "ok"


def test_two_at_once_take_turns(finished):
    (finished / RESULTS / "figures" / "speedup.csv").unlink()
    with open(finished / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until both have met a lock: how soon the other starts is chance
        both = [start(finished, *SMOKE) for _ in range(2)]
        assert [process.stdout.readline() for process in both] == ["another make works in this folder: waiting\n"] * 2
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted("Nothing to be done" in output for output in outputs) == [False, True]


def test_failed_notebook_is_kept_with_its_traceback(finished):
    path = finished / "notebooks" / "08_speed.ipynb"
    document = nbformat.read(path, 4)
    document.cells.append(nbformat.v4.new_code_cell("raise RuntimeError('on purpose')"))
    nbformat.write(document, path)
    done = reproduce(finished)
    assert done.code != 0
    assert f"failed, kept with its traceback: {RESULTS}/executed/08_speed.ipynb\n" in done.output
    kept = nbformat.read(finished / RESULTS / "executed" / "08_speed.ipynb", 4)
    assert kept.metadata.papermill.exception is True
    [error] = kept.cells[-1].outputs
    assert (error.ename, error.evalue) == ("RuntimeError", "on purpose")
    assert any("raise RuntimeError" in re.sub(r"\x1b\[[0-9;]*m", "", line) for line in error.traceback)


def test_slurm_profile_through_a_submit_command(fresh, tmp_path):
    """The cluster's profile with another executor: jobs go through a queue's command and come back as files."""
    submit = tmp_path / "submit"
    submit.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/submitted\nsh "$1" > "$1.log" 2>&1 &\necho $!\n')
    submit.chmod(0o755)
    done = reproduce(
        fresh,
        f"RULE={ONE_RUN} benchmarks",
        "ARGS=--workflow-profile workflow/profiles/slurm --executor cluster-generic "
        f"--cluster-generic-submit-cmd {submit} --seconds-between-status-checks 1",
    )
    assert done.code == 0, done.output
    assert (fresh / ONE_RUN).is_file()
    jobs = len((tmp_path / "submitted").read_text().split())
    assert jobs == 1 + len(BENCHMARKS)  # the data set is obtained here, not on a node


def test_figures_redraw_from_records_without_torch(finished, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    reference = finished / "results" / "reference" / "smoke"
    for kind in ("records", "weights"):
        shutil.copytree(finished / RESULTS / kind, reference / kind)
    done = make(finished, "figures", "PROFILE=smoke", BIN, PYTHONPATH=str(tmp_path))
    assert done.code == 0, done.output
    assert (reference / "index.html").is_file()
    drawn = files_in(reference, "figures", "tables")
    assert drawn == catalogued()
    different = [name for name in drawn if (reference / name).read_bytes() != (finished / RESULTS / name).read_bytes()]
    assert [name for name in different if not name.startswith("tables/open_review")] == []  # which name the profile


def test_one_run_of_any_name_is_enough_to_redraw(finished):
    reference = finished / "results" / "reference" / "smoke"
    for kind, suffix in (("records/train", "json"), ("weights", "npz")):
        (reference / kind).mkdir(parents=True)
        shutil.copy(finished / RESULTS / kind / f"signed_binary-s0.{suffix}", reference / kind / f"mine.{suffix}")
    done = make(finished, "figures", "PROFILE=smoke", BIN)
    assert done.code == 0, done.output
    drawn = files_in(reference, "figures", "tables")
    assert "figures/accuracy.png" in drawn and "figures/ablation.png" not in drawn


def test_benchmarks_alone_are_enough_to_redraw(finished):
    reference = finished / "results" / "reference" / "smoke"
    shutil.copytree(finished / RESULTS / "records" / "bench", reference / "records" / "bench")
    done = make(finished, "figures", "PROFILE=smoke", BIN)
    assert done.code == 0, done.output
    drawn = files_in(reference, "figures", "tables")
    assert {"figures/speedup.png", "tables/claims.md", "tables/open_review.md", "figures/tradeoff.png"} <= drawn
    assert not {"figures/accuracy.png", "figures/unique_filters.png", "figures/operations.png"} & drawn


def test_unknown_profile_names_the_allowed_ones(fresh):
    done = make(fresh, "reproduce", "PROFILE=quik", BIN)
    assert done.code != 0
    assert f"profile = 'quik'; allowed: {', '.join(notebook.load_experiments())}" in done.output


def test_old_python_is_refused(fresh, tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(
        f'#!/bin/sh\ncase $1 in -c) exit 1;; --version) echo Python 3.9.2;; *) exec {sys.executable} "$@";; esac\n'
    )
    old.chmod(0o755)
    done = make(fresh, "setup", f"PYTHON={old}", CONDA_PREFIX="")
    assert done.code != 0
    assert f"sbkit needs Python >= 3.11; {old} is Python 3.9.2" in done.output
    assert not (fresh / ".venv").exists()
