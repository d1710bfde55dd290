"""`start()` as a kernel sees it and under papermill and nbclient."""

import os
import random
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import numpy as np
import pytest

from sbkit import notebook, records
from sbkit.notebook import start
from sbkit.notebook.experiments import OtherCode
from sbkit.notebook.parameters import ParameterError, parse_parameters
from sbkit.records import Record

EXPERIMENTS = """
[interactive]
title = "runs by hand"
paper_scale = false
seeds = [0]

[quick]
title = "digits, 50 % of them"
paper_scale = false
seeds = [0]

[quick.train]
binary = { design = "binary" }

[full]
title = "all"
paper_scale = true
seeds = [0]
"""

CATALOGUE = """
["figures/curve"]
notebook = "03_first"
paper = "Fig. 1"
caption = "A curve of `n`."
reads = ["train"]

["tables/table"]
notebook = "03_first"
paper = ""
caption = "Top-1 & more"
reads = ["train"]
"""

PARAMETERS = """\
epochs: int = 2  # passes
# advanced
profile: str = "quick"  # a profile
name: str = "run"  # file stem
rate: float = 1  # peak
flip: bool = True  # augment
seed: int = 7  # of everything
"""
READER = 'profile: str = ""\nsave: bool = False'


@dataclass(frozen=True)
class First:
    epochs: int = 1
    rate: float = 0.5
    seed: int = 0

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"epochs = {self.epochs}; allowed: an integer >= 1")


@dataclass(frozen=True)
class Second:
    flip: "bool" = False
    seed: "int" = 0


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of its own."""
    folder = tmp_path / "repository"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "experiments.toml").write_text(EXPERIMENTS)
    (folder / "notebooks" / "catalogue.toml").write_text(CATALOGUE)
    monkeypatch.setenv("SBKIT_ROOT", str(folder))
    monkeypatch.chdir(folder / "notebooks")  # as in JupyterLab; `start` of a producer changes it
    return folder


class Kernel:
    """The part of a Jupyter kernel that `start` sees: executed sources in `In`, variables in the namespace."""

    def __init__(self, *cells):
        self.namespace = {"In": [""]}
        for cell in cells:
            self.run(cell)

    def run(self, cell):
        self.namespace["In"].append(cell)
        exec(cell, self.namespace)

    def start(self, *config_classes):
        self.namespace["In"].append("run = start(globals(), ...)")
        return start(self.namespace, *config_classes)


def edited(old, new):
    assert old in PARAMETERS
    return PARAMETERS.replace(old, new)


# Parameters


def test_producer(root):
    run = Kernel(PARAMETERS).start(First, Second)
    assert run.configs == (First(2, 1.0, 7), Second(True, 7))
    assert isinstance(run.configs[0].rate, float)
    assert (run.profile, run.name, run.save) == ("quick", "run", False)
    assert run.folder == root / "results" / "quick"
    assert run.folder.is_dir()
    assert run.label == "quick profile: digits, 50 % of them"
    assert Path.cwd() == root


def test_reader_reads_references_and_writes_nothing(root):
    run = Kernel('profile: str = "reference/full"\nsave: bool = False').start()
    assert (run.configs, run.name, run.label) == ((), "", "")
    assert run.folder == root / "results" / "reference" / "full"
    assert not (root / "results").exists()


def test_a_reader_without_a_profile_opens_on_runs_by_hand_where_there_are_any(root):
    assert Kernel(READER).start().profile == "reference/quick"
    record = Record("train", "x-1", {}, {}, {}, {"status": "ok"})
    records.write(record, root / "results/interactive/records/train/x.json")
    run = Kernel(READER).start()
    assert (run.profile, run.by_hand, replace(run, profile="quick").by_hand) == ("interactive", True, False)
    with pytest.raises(ParameterError, match="profile = ''; allowed: interactive, quick, full, or reference/"):
        Kernel(edited('"quick"', '""')).start(First, Second)


def test_injected_values_replace_defaults(root):
    run = Kernel(PARAMETERS, "# Parameters\nepochs = 5\nrate = 3\nname = 'other'\n").start(First, Second)
    assert (run.configs[0], run.name) == (First(5, 3.0, 7), "other")


def test_only_the_last_edit_of_the_parameters_cell_counts(root):
    kernel = Kernel(PARAMETERS + "epochz: int = 3", "# Parameters\nepochs = 9", PARAMETERS, "tail: int = 3")
    assert kernel.start(First, Second).configs[0].epochs == 2
    kernel.run(edited("epochs: int = 2", "epochs: int = 4"))
    assert kernel.start(First, Second).configs[0].epochs == 4
    assert kernel.start(First, Second).configs[0].epochs == 4


@pytest.mark.parametrize(
    "cells, message",
    [
        ([], "no parameters cell has run"),
        ([edited("epochs", "epochz")], r"epochz \(did you mean epochs\?\); allowed: profile, name"),
        ([PARAMETERS, "# Parameters\nepochz = 3"], r"unknown parameter epochz \(did you mean epochs\?\)"),
        ([edited("rate: float = 1", "")], "lacks rate; required: profile, name, epochs, rate, seed, flip"),
        ([edited("epochs: int = 2", "epochs: float = 2")], "declares epochs: float; allowed: int"),
        ([edited("rate: float = 1", "rate: float = True")], "rate = True is of type bool; allowed: float"),
        ([edited("flip: bool = True", "flip: bool = 1")], "flip = 1 is of type int; allowed: bool"),
        ([edited("epochs: int = 2", "epochs: int = 1 + len('a')")], "holds `epochs: int = 1 "),
        ([edited("epochs: int = 2", "epochs: list = [2]")], "with a type of str, int, float, bool"),
        ([PARAMETERS + "seed: int = 8"], "declares seed twice"),
        ([PARAMETERS, "# Parameters\nepochs = 'abc'"], "epochs = 'abc' is of type str; allowed: int"),
        ([PARAMETERS, "# Parameters\nname = 7"], "name = 7 is of type int; allowed: str .*-r NAME VALUE"),
        ([PARAMETERS, "# Parameters\nrate = float('nan')"], r"`rate = float\('nan'\)` is not a literal"),
        ([PARAMETERS, "# Parameters\nrate = 1e999"], "rate = inf; allowed: a finite number"),
        ([PARAMETERS, "epochs = 3"], "epochs is 3 in this kernel but 2 in the parameters cell"),
        ([PARAMETERS, "# Parameters\nepochs = 0"], "epochs = 0; allowed: an integer >= 1"),
        ([PARAMETERS, "# Parameters\nprofile = 'quik'"], "profile = 'quik'; allowed: interactive, quick, full, or"),
        ([PARAMETERS, "# Parameters\nname = '../run'"], r"name = '../run'; allowed: .*letters"),
    ],
)
def test_bad_parameters_are_named_in_one_line_before_anything_is_written(root, cells, message):
    with pytest.raises(ParameterError, match=message) as caught:
        Kernel(*cells).start(First, Second)
    assert caught.value._render_traceback_() == [f"ParameterError: {caught.value}"]
    assert "\n" not in str(caught.value)
    assert not (root / "results").exists()


def test_a_default_is_read_as_python_reads_it():
    found = parse_parameters('a: int = -3  # help = me\n# more\nb: str = "x # = y"\nc: float = 1')
    assert [parameter.default for parameter in found.values()] == [-3, "x # = y", 1.0]


def test_seeds_every_generator(root):
    torch = pytest.importorskip("torch")

    def draw(seed):
        Kernel(edited("seed: int = 7", f"seed: int = {seed}")).start(First, Second)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first, again, other = draw(7), draw(7), draw(8)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("given, expected", [("2", 2), ("2,1", 2), (" 3 , 1", 3), ("", 1), (" ", 1), (None, 1)])
def test_threads_of_a_producer_are_those_of_openmp(root, monkeypatch, given, expected):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    try:
        Kernel(PARAMETERS).start(First, Second)
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (expected, str(expected))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("given", ["many", "0", "-1", "2.5", "0,2", "99999999999", "0x2"])
def test_threads_that_are_none_are_refused(root, monkeypatch, given):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    with pytest.raises(ParameterError, match=f"OMP_NUM_THREADS = '{given}'; allowed: an integer from 1 to 9999"):
        Kernel(PARAMETERS).start(First, Second)
    assert not (root / "results").exists()


@dataclass(frozen=True)
class Paths:
    dataset: str = "digits"
    distill_from: str = ""


@pytest.mark.parametrize(
    "name, value, path",
    [
        ("dataset", "image_folder:data/pictures", "data/pictures"),
        ("distill_from", "results/a/fp.pt", "results/a/fp.pt"),
        ("distill_from", "{root}/a b/é.pt", "a b/é.pt"),
    ],
)
def test_paths_are_relative_to_the_repository(root, name, value, path):
    value = value.format(root=root)
    defaults = {"profile": "quick", "name": "", "dataset": "digits", "distill_from": ""} | {name: value}
    kernel = Kernel("\n".join(f"{key}: str = {default!r}" for key, default in defaults.items()))
    with pytest.raises(
        ParameterError, match=f"{name} = '.*': there is no {root / path}; allowed: .* relative to the repo"
    ):
        kernel.start(Paths)
    assert not (root / "results").exists()
    (root / path).parent.mkdir(parents=True)
    (root / path).touch()
    assert getattr(kernel.start(Paths).configs[0], name) == value


def test_the_code_of_another_clone_is_refused(root):
    (root / "sbkit").mkdir()
    for kernel, configs in ((Kernel(READER), []), (Kernel(PARAMETERS), [First, Second])):
        with pytest.raises(
            OtherCode, match=f"runs the code in .*sbkit, not that in {root}/sbkit: remove a copied .venv"
        ):
            kernel.start(*configs)
    (root / "sbkit").rmdir()
    (root / "sbkit").symlink_to(Path(notebook.__file__).parents[1])
    assert Kernel(READER).start().root == root


def test_results_folder_that_cannot_be_written_is_named(root):
    (root / "results").write_text("a file, where root itself cannot make a folder")
    with pytest.raises(PermissionError, match=r"results/quick"):
        Kernel(PARAMETERS).start(First, Second)
    assert Kernel(READER).start().profile == "reference/quick"


# Real kernels

NOTEBOOK_CELLS = (
    PARAMETERS,
    """
    from dataclasses import dataclass

    from sbkit.notebook import start


    @dataclass(frozen=True)
    class Config:
        epochs: int = 1
        rate: float = 0.5
        flip: bool = False
        seed: int = 0
    """,
    "run = start(globals(), Config)",
    "(run.folder / 'done.txt').write_text(repr(run.configs[0]))",
)


@pytest.fixture
def producer(root):
    """The path of a notebook that writes results/quick/done.txt."""
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source).strip()) for source in NOTEBOOK_CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = root / "notebooks" / "producer.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), path)
    return path


PAPERMILL = ("papermill", "--no-progress-bar", "--start-timeout", 600)


def execute(command, cwd, unset=()):
    """Run a module's command line in a fresh process with this package importable."""
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(notebook.__file__).parents[2]), *sys.path])
    command = [sys.executable, "-m", *map(str, command)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_plain_papermill_shows_one_line_of_a_bad_parameter(root, producer):
    done = execute([*PAPERMILL, producer, "out.ipynb", "-p", "epochz", 3], root)
    assert done.returncode == 1
    outputs = [output for cell in nbformat.read(root / "out.ipynb", 4).cells for output in cell.get("outputs", ())]
    (lines,) = [output.traceback for output in outputs if output.output_type == "error"]
    assert lines == [f"ParameterError: {ALLOWED}"]
    assert f"ParameterError: {ALLOWED}" in done.stderr
    assert not (root / "results").exists()


ALLOWED = "unknown parameter epochz (did you mean epochs?); allowed: profile, name, epochs, rate, flip, seed"


def test_nbclient_runs_the_defaults(root, producer):
    done = execute(["jupyter", "execute", "--startup_timeout=600", producer], root.parent, unset=["SBKIT_ROOT"])
    assert done.returncode == 0, done.stderr
    assert (root / "results/quick/done.txt").read_text() == "Config(epochs=2, rate=1.0, flip=True, seed=7)"
