"""The batch driver end to end, in copies of the repository: what `make reproduce` promises, on the smoke profile."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import nbformat
import psutil
import pytest

from sbkit import notebook, records

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ("reproduce", "PROFILE=smoke")
RESULTS = Path("results/smoke")
ONE_RUN = "results/smoke/records/train/signed_binary-s0.json"
RUNS = {run["name"]: run for run in notebook.expand("smoke")}
TRAINED = [name for name, run in RUNS.items() if run["notebook"] == notebook.NOTEBOOKS["train"]]
BENCHMARKS = [name for name in RUNS if name not in TRAINED]
CODES = [name for name in TRAINED if RUNS[name]["parameters"]["quantizer"] != "full_precision"]
# 11_frontier draws only where a profile has timed its own trained networks.
NOT_DRAWING = {"02_train", "07_bench", "11_frontier"}
DRAWING = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - NOT_DRAWING
WAITING = "another make or snakemake works in this folder: waiting\n"

# Rules that a change runs, and how many jobs of each.
PAGE = {"page": 1}
READERS = {name[3:]: 1 for name in DRAWING} | PAGE
TRAINING = {rule: 1 for rule in READERS if rule != "speed"} | {
    "train": len(CODES),
    "train_full_precision": len(TRAINED) - len(CODES),
}
ONE_BENCHMARK = dict.fromkeys(("bench", "speed", "energy", "open_review", "overview", "page"), 1)

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """An environment with all that this one has but sbkit, so that copies run their own code."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is put on sys.path; that folder's own .pth files, an editable sbkit's too, are not read.
    (packages / "outer.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    (folder / "share").symlink_to(Path(sys.prefix) / "share")  # nbconvert's templates
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def copy_sources(tracked_files):
    """A function that makes a folder a clone with compiled kernels and without committed results."""

    def copy(folder):
        for path in tracked_files:
            name = path.relative_to(ROOT)
            if not name.is_relative_to("results/reference"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, folder / name)
        shutil.copy2(find_spec("sbkit._kernels").origin, folder / "sbkit")
        return folder

    return copy


@pytest.fixture(scope="session")
def start(python):
    """A function that starts `make`, or another program, in a folder."""

    def start(folder, *command, **variables):
        handed_down = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PROFILE", "RULE", "ARGS", "SBKIT_ROOT"}
        environment = {name: value for name, value in os.environ.items() if name not in handed_down | {"PYTHONPATH"}}
        if command[0] == "make" and not any(word.startswith("PYTHON=") for word in command):
            command = (*command, f"BIN={python.parent}")
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, cwd=folder, env=environment | variables, text=True, **streams)

    return start


@pytest.fixture(scope="session")
def make(start):
    """A function that runs make and returns what it prints."""

    def make(folder, *arguments, fails=False, **variables):
        process = start(folder, "make", *arguments, **variables)
        output, _ = process.communicate()
        assert (process.returncode != 0) == fails, output
        return output

    return make


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, copy_sources, make):
    """The smoke profile, reproduced once, and what make printed."""
    folder = copy_sources(tmp_path_factory.mktemp("smoke"))
    return folder, make(folder, *SMOKE)


@pytest.fixture
def finished(smoke, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(smoke[0], tmp_path / "copy", symlinks=True)


def planned(output):
    """Rule -> number of jobs of a dry run."""
    table = re.search(r"^job +count\n[- ]+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
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
    folder, output = smoke[0] / RESULTS, smoke[1]
    assert files_in(folder, "figures", "tables") == catalogued()
    assert files_in(folder, "weights") == {f"weights/{name}.npz" for name in CODES}
    assert files_in(folder, "executed") == {
        f"executed/{name}.{s}" for name in {*RUNS, *DRAWING} for s in ("ipynb", "html")
    }
    for name in RUNS:
        kind = "train" if name in TRAINED else "bench"
        assert records.load(folder / "records" / kind / f"{name}.json").provenance["status"] == "ok"
    page = (folder / "index.html").read_text()
    assert "Missing:" not in page and (folder / "ro-crate-metadata.json").is_file()
    jobs = [
        re.fullmatch(r"\[ *(\d+)/(\d+)\] \S.*, \d+ s(; (\d+) left, about .*)?\n", line)
        for line in output.splitlines(True)
    ]
    counts = [(int(job[1]), int(job[2]), int(job[4] or 0)) for job in jobs if job]
    total = len(counts)
    assert counts == [(done, total, total - done) for done in range(1, total + 1)] and total > len(RUNS) + len(DRAWING)
    assert output.splitlines()[-3:] == [
        "figures   results/smoke/figures",
        "tables    results/smoke/tables",
        "overview  results/smoke/index.html",
    ]


def test_benchmarks_run_alone(smoke):
    spans = {}
    for path in (smoke[0] / RESULTS / "executed").glob("*.ipynb"):
        times = nbformat.read(path, 4).metadata.papermill
        spans[path.stem] = [datetime.fromisoformat(times[key]) for key in ("start_time", "end_time")]
    for benchmark in BENCHMARKS:
        begin, end = spans.pop(benchmark)
        beside = [name for name, (other_begin, other_end) in spans.items() if other_begin < end and begin < other_end]
        assert beside == []


def test_nothing_to_do_after_what_changes_no_input(smoke, make):
    for path in [*(smoke[0] / "notebooks").iterdir(), smoke[0] / "LICENSE"]:
        path.touch()
    (smoke[0] / "README.md").write_text("edited")
    assert "Nothing to be done" in make(smoke[0], *SMOKE)


# What is edited: file, old text, new text; and the jobs that then run.
CHANGES = {
    "readers": (
        {
            "notebooks/05_weights.ipynb": ("density", "density "),
            "notebooks/claims.toml": ("\n", "\n# edited\n"),
            "notebooks/questions.toml": ("\n", "\n# edited\n"),
            "sbkit/figures/accuracy.py": ("\n", "\n# edited\n"),
        },
        {"weights": 1, "overview": 1, "open_review": 1, "accuracy": 1} | PAGE,
    ),
    "template": ({"sbkit/page/page.html.jinja": ("\n", "\n<!-- edited -->\n")}, PAGE),
    "title": ({"notebooks/experiments.toml": ("digits 8x8", "digits")}, READERS),
    "parameters": (
        {"notebooks/experiments.toml": ("epochs = 2\n\n[smoke.train]", "epochs = 1\n\n[smoke.train]")},
        TRAINING,
    ),
    "benchmark parameter": ({"notebooks/experiments.toml": ("min_run_ms = 1.0", "min_run_ms = 2.0")}, ONE_BENCHMARK),
    # 07_bench imports the training, for the benchmark of trained networks.
    "training": (
        {"sbkit/training/loop.py": ("\n", "\n# edited\n")},
        TRAINING | {"speed": 1, "bench": len(BENCHMARKS)},
    ),
    "kernels": ({"csrc/rows.cpp": ("\n", "\n// edited\n")}, ONE_BENCHMARK | {"bench": len(BENCHMARKS)}),
}


@pytest.mark.parametrize(("edits", "expected"), CHANGES.values(), ids=CHANGES)
def test_change_reruns_only_what_depends_on_it(smoke, make, edits, expected):
    before = {name: ((smoke[0] / name).read_text(), (smoke[0] / name).stat()) for name in edits}
    try:
        for name, (old, new) in edits.items():
            assert old in before[name][0]
            (smoke[0] / name).write_text(before[name][0].replace(old, new, 1))
        assert planned(make(smoke[0], *SMOKE, "ARGS=--dry-run")) == expected
    finally:
        for name, (text, stat) in before.items():
            (smoke[0] / name).write_text(text)
            os.utime(smoke[0] / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_batch_that_is_ended_or_killed_leaves_nothing_running_and_continues(tmp_path, copy_sources, start, make):
    """SIGTERM to make alone, as `kill` and a stopping container send it, and then SIGKILL to the scheduler."""
    folder, temporary = copy_sources(tmp_path / "fresh"), tmp_path / "t"
    temporary.mkdir()
    executed = folder / RESULTS / "executed" / "signed_binary-s0.ipynb"
    for number in (signal.SIGTERM, signal.SIGKILL):
        executed.unlink(missing_ok=True)
        process = start(folder, "make", *SMOKE, f"RULE={ONE_RUN}", TMPDIR=str(temporary))
        while not executed.exists():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        family = psutil.Process(process.pid).children(recursive=True)
        [scheduler] = [child for child in family if child.cmdline()[1:3] == ["-m", "snakemake"]]
        os.kill(scheduler.pid if number == signal.SIGKILL else process.pid, number)
        deadline = time.monotonic() + 120
        while outliving := [child for child in family if running(child)]:
            assert time.monotonic() < deadline, f"outlived the batch that started them: {outliving}"
            time.sleep(0.1)
        process.communicate()
        assert process.returncode != 0 and not (folder / ONE_RUN).exists()
        assert list(temporary.glob("sbkit-*")) == []
    assert any((folder / ".snakemake" / "locks").iterdir())

    make(folder, *SMOKE, f"RULE={ONE_RUN}")
    assert records.load(folder / ONE_RUN).provenance["status"] == "ok"


def running(process):
    """Zombies do not: who has to bury an orphan, and when, is not the batch driver's business."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_two_at_once_take_turns(finished, python, start):
    """A make and a snakemake that was started by hand."""
    (finished / RESULTS / "index.html").unlink()
    by_hand = (python, "-m", "snakemake", "--config", "profile=smoke", "--logger", "lines")
    with open(finished / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until both have met a lock: how soon the other starts is chance
        both = [start(finished, "make", *SMOKE), start(finished, *by_hand, PYTHONPATH="workflow")]
        for process in both:
            while process.stdout.readline() != WAITING:
                assert process.poll() is None
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted("Nothing to be done" in output for output in outputs) == [False, True]


def test_failed_notebook_is_kept_with_its_traceback(finished, make):
    path = finished / "notebooks" / "08_speed.ipynb"
    document = nbformat.read(path, 4)
    first = [index for index, cell in enumerate(document.cells) if cell.cell_type == "code"][1]
    document.cells.insert(first, nbformat.v4.new_code_cell("raise RuntimeError('on purpose')"))
    nbformat.write(document, path)
    nowhere = str(path / "home")  # caches that nobody can write change nothing
    output = make(finished, *SMOKE, fails=True, HOME=nowhere, XDG_CACHE_HOME="", RULE="speed")
    assert f"failed, kept with its traceback: {RESULTS}/executed/08_speed.ipynb\n" in output
    kept = nbformat.read(finished / RESULTS / "executed" / "08_speed.ipynb", 4)
    assert kept.metadata.papermill.exception is True
    outputs = [output for cell in kept.cells for output in cell.get("outputs", ())]
    [error] = [output for output in outputs if output.output_type == "error"]
    assert (error.ename, error.evalue) == ("RuntimeError", "on purpose")


def test_slurm_profile_through_a_submit_command(finished, make, tmp_path):
    """The cluster's profile with another executor: jobs go through a queue's command and come back as files."""
    for name in (ONE_RUN, *files_in(finished, "results/data")):
        (finished / name).unlink()
    submit = tmp_path / "submit"
    submit.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/submitted\nsh "$1" > "$1.log" 2>&1 &\necho $!\n')
    submit.chmod(0o755)
    profile = "--workflow-profile workflow/profiles/slurm --executor cluster-generic --latency-wait 5"
    options = f"--cluster-generic-submit-cmd {submit} --seconds-between-status-checks 1"
    make(finished, *SMOKE, f"RULE={ONE_RUN}", f"ARGS={profile} {options}")
    assert (finished / ONE_RUN).is_file()
    assert len((tmp_path / "submitted").read_text().split()) == 1  # the data set is obtained here, not on a node


def test_figures_redraw_from_records_without_torch(finished, make, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    reference = finished / "results" / "reference" / "smoke"
    for kind in ("records", "weights"):
        shutil.copytree(finished / RESULTS / kind, reference / kind)
    make(finished, "figures", "PROFILE=smoke", "RULE=weights speed", PYTHONPATH=str(tmp_path))
    drawn = files_in(reference, "figures", "tables")
    assert {"figures/density.svg", "tables/speedup.tex"} <= drawn < catalogued()
    assert [name for name in drawn if (reference / name).read_bytes() != (finished / RESULTS / name).read_bytes()] == []


@pytest.fixture
def sources(tmp_path, copy_sources):
    return copy_sources(tmp_path / "fresh")


def test_unknown_profile_names_the_allowed_ones(sources, make):
    for profile in ("quik", "smoke;touch injected $(touch injected)"):
        output = make(sources, "reproduce", f"PROFILE={profile.replace('$', '$$')}", fails=True)
        assert f"profile = {profile!r}; allowed: {', '.join(notebook.load_experiments())}" in output
    assert not (sources / "injected").exists() and not (sources / "results").exists()


def test_benchmarks_of_instructions_that_are_not_usable_here_are_left_out_and_named(sources, make):
    widths = ("bench", "PROFILE=widths", "ARGS=-n")
    output = make(sources, *widths, SBKIT_ISA="avx2")
    assert "left out, as avx512 is not usable here: resnet20_8_avx512, " in output
    assert planned(output) == {"bench": len(notebook.expand("widths")) // 2, "benchmarks": 1}
    record = sources / "results/widths/records/bench/resnet20_8_avx512.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    left_out = {"SBKIT_LEFT_OUT": "resnet20_8_avx512"}
    output = make(sources, *widths, fails=True, **left_out)
    assert f"{record.relative_to(sources)}: left out of this batch, but recorded before" in output


def test_a_rule_is_words_and_nothing_that_a_shell_runs(sources, make):
    rule = "benchmarks;touch injected $(touch injected)"
    output = make(sources, "reproduce", "PROFILE=smoke", f"RULE={rule.replace('$', '$$')}", fails=True)
    assert "No rule to produce" in output and not (sources / "injected").exists()
    shown = make(sources, "--dry-run", "reproduce", "redraw", "RULE=all;touch injected")
    assert shown.count("-- $RULE") == 2 and "injected" not in shown


def test_environment_of_another_clone_is_refused(sources, python, start, make, tmp_path):
    """As in a copied folder, whose environment finds the first folder's package before anything on the path."""
    other = shutil.copytree(ROOT / "sbkit", tmp_path / "first" / "sbkit", ignore=shutil.ignore_patterns("*.so"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\nfrom importlib.util import spec_from_file_location\nclass Editable:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        return spec_from_file_location(name, {str(other / '__init__.py')!r}) if name == 'sbkit' else None\n"
        "sys.meta_path.insert(0, Editable)\n"
    )
    hooked = {"PYTHONPATH": str(tmp_path / "site")}
    for target in ("reproduce", "figures", "test", "gallery"):
        output = make(sources, target, "PROFILE=smoke", fails=True, **hooked)
        assert f"runs the code in {other}, not that " in output
    by_hand = start(sources, python, "-m", "snakemake", "-n", **hooked)
    assert f"this environment runs the code in {other}, not that in {sources / 'sbkit'}" in by_hand.communicate()[0]
    shutil.rmtree(other)  # as of a folder that was moved with its environment
    assert re.search(r"cannot import sbkit \(.*\)\. Remove the .*\.venv", make(sources, "setup", fails=True, **hooked))


def test_old_python_is_refused(sources, make, tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(
        f'#!/bin/sh\ncase $1 in -c) exit 1;; --version) echo Python 3.9.2;; *) exec {sys.executable} "$@";; esac\n'
    )
    old.chmod(0o755)
    output = make(sources, "setup", f"PYTHON={old}", fails=True, CONDA_PREFIX="")
    assert f"sbkit needs Python >= 3.11; {old} is Python 3.9.2" in output
    assert not (sources / ".venv").exists()
