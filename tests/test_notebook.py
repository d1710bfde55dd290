"""`start()` as a kernel sees it and under papermill and nbclient; figures and tables byte for byte."""

import io
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from fontTools.ttLib import TTFont
from matplotlib import pyplot as plt

from sbkit import notebook, records
from sbkit.notebook import Run, start
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
        (["profil: str = 'quick'"], "no parameters cell has run"),
        ([edited("epochs", "epochz")], r"epochz \(did you mean epochs\?\); allowed: profile, name"),
        ([PARAMETERS, "# Parameters\nepochz = 3"], r"unknown parameter epochz \(did you mean epochs\?\)"),
        ([edited("rate: float = 1", "")], "lacks rate; required: profile, name, epochs, rate, seed, flip"),
        ([edited("epochs: int = 2", "epochs: float = 2")], "declares epochs: float; allowed: int"),
        ([edited("epochs: int = 2", "epochs: int = 2.5")], "epochs = 2.5 is of type float; allowed: int"),
        ([edited("rate: float = 1", "rate: float = True")], "rate = True is of type bool; allowed: float"),
        ([edited("flip: bool = True", "flip: bool = 1")], "flip = 1 is of type int; allowed: bool"),
        ([edited("epochs: int = 2", "epochs = 2")], "holds `epochs = 2`; allowed: one `name: type"),
        ([edited("epochs: int = 2", "epochs: int = 1 + len('a')")], "holds `epochs: int = 1 "),
        ([edited("epochs: int = 2", "epochs: list = [2]")], "with a type of str, int, float, bool"),
        ([PARAMETERS + "seed: int = 8"], "declares seed twice"),
        ([PARAMETERS, "# Parameters\nepochs = 'abc'"], "epochs = 'abc' is of type str; allowed: int"),
        ([PARAMETERS, "# Parameters\nname = 7"], "name = 7 is of type int; allowed: str .*-r NAME VALUE"),
        ([PARAMETERS, "# Parameters\nname = None"], "name = None is of type NoneType"),
        ([PARAMETERS, "# Parameters\nrate = float('nan')"], r"`rate = float\('nan'\)` is not a literal"),
        ([PARAMETERS, "# Parameters\nrate = 1e999"], "rate = inf; allowed: a finite number"),
        ([PARAMETERS, "epochs = 3"], "epochs is 3 in this kernel but 2 in the parameters cell"),
        ([PARAMETERS, "# Parameters\nepochs = 0"], "epochs = 0; allowed: an integer >= 1"),
        ([PARAMETERS, "# Parameters\nprofile = 'quik'"], "profile = 'quik'; allowed: interactive, quick, full, or"),
        ([PARAMETERS, "# Parameters\nprofile = '../quick'"], r"profile = '../quick'; allowed"),
        ([PARAMETERS, "# Parameters\nname = '../run'"], r"name = '../run'; allowed: .*letters"),
    ],
)
def test_bad_parameters_are_named_in_one_line_before_anything_is_written(root, cells, message):
    with pytest.raises(ParameterError, match=message) as caught:
        Kernel(*cells).start(First, Second)
    assert caught.value._render_traceback_() == [f"ParameterError: {caught.value}"]
    assert "\n" not in str(caught.value)
    assert not (root / "results").exists()


def test_parse():
    found = parse_parameters('a: int = -3  # help = me\n# more\nb: str = "x # = y"\nc: float = 1\nd: bool = False')
    assert [(p.name, p.type, p.default) for p in found.values()] == [
        ("a", int, -3),
        ("b", str, "x # = y"),
        ("c", float, 1.0),
        ("d", bool, False),
    ]


def test_seeds_every_generator(root):
    torch = pytest.importorskip("torch")

    def draw(seed):
        Kernel(edited("seed: int = 7", f"seed: int = {seed}")).start(First, Second)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first, again, other = draw(7), draw(7), draw(8)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_threads_of_a_producer(root, monkeypatch):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        Kernel(PARAMETERS).start(First, Second)
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        Kernel(PARAMETERS).start(First, Second)
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (1, "1")
    finally:
        torch.set_num_threads(before)
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(ParameterError, match="OMP_NUM_THREADS = 'many'; allowed: an integer >= 1"):
        Kernel(PARAMETERS).start(First, Second)


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


@pytest.mark.parametrize("place", [".", "notebooks"])
def test_papermill_from_root_and_from_the_notebooks_folder(root, producer, place):
    command = [*PAPERMILL, producer, "out.ipynb", "-p", "epochs", 3, "-p", "rate", 2]
    # Without SBKIT_ROOT, the working folder says where the repository is.
    done = execute(command, root / place, unset=["SBKIT_ROOT"])
    assert done.returncode == 0, done.stderr
    assert (root / "results/quick/done.txt").read_text() == "Config(epochs=3, rate=2.0, flip=True, seed=7)"


def test_plain_papermill_shows_one_line_of_a_bad_parameter(root, producer):
    done = execute([*PAPERMILL, producer, "out.ipynb", "-p", "epochz", 3], root)
    assert done.returncode == 1
    outputs = [output for cell in nbformat.read(root / "out.ipynb", 4).cells for output in cell.get("outputs", ())]
    (lines,) = [output.traceback for output in outputs if output.output_type == "error"]
    assert lines == [f"ParameterError: {ALLOWED}"]
    assert f"ParameterError: {ALLOWED}" in done.stderr
    assert not (root / "results").exists()


ALLOWED = "unknown parameter epochz (did you mean epochs?); allowed: profile, name, epochs, rate, flip, seed"


def test_nbclient_runs_the_defaults_in_the_notebooks_folder(root, producer):
    done = execute(["jupyter", "execute", "--startup_timeout=600", producer], root.parent, unset=["SBKIT_ROOT"])
    assert done.returncode == 0, done.stderr
    assert (root / "results/quick/done.txt").read_text() == "Config(epochs=2, rate=1.0, flip=True, seed=7)"


# Figures


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would display."""
    objects = []
    monkeypatch.setattr("IPython.display.display", objects.append)
    return objects


@pytest.fixture
def run(root):
    return Run(profile="quick", name="", save=True, configs=(), root=root)


TABLE = pd.DataFrame({"scheme": ["binary", "signed|binary"], "n": [1, 23456], "top1_percent": [81.234567, np.nan]})


def draw(table, *, title="a title"):
    """A figure with a legend and a label at its very bottom, where a footer could collide with them."""
    figure, axis = plt.subplots(figsize=(3.25, 2), layout="constrained")
    axis.plot(table["n"], table["top1_percent"], marker="o", label="x")
    axis.set(xlabel="operations", title=title)
    figure.legend(loc="outside lower center")
    return figure


def test_figure_shows_and_writes(run, shown):
    run.figure(draw, TABLE, "curve", title="another")
    folder = run.folder / "figures"
    assert sorted(file.name for file in folder.iterdir()) == ["curve.csv", "curve.pdf", "curve.png", "curve.svg"]
    image, caption = shown
    assert (image.data, image.width) == ((folder / "curve.png").read_bytes(), 3.25 * 96)
    assert caption.data == "A curve of `n`."
    assert (folder / "curve.csv").read_text() == "scheme,n,top1_percent\nbinary,1,81.2346\nsigned|binary,23456,\n"
    svg = (folder / "curve.svg").read_text()
    assert ">another<" in svg
    assert f">{run.label}<" in svg
    assert plt.get_fignums() == []


def test_pdf_embeds_outlines_and_no_tables_of_layout(run, shown):
    run.figure(draw, TABLE, "curve")
    pdf = (run.folder / "figures/curve.pdf").read_bytes()
    streams = [match[1] for match in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)]
    data = [zlib.decompress(stream) for stream in streams]
    fonts = [set(TTFont(io.BytesIO(font)).keys()) for font in data if font.startswith(b"\0\1\0\0")]  # not Type 3
    assert fonts
    for tables in fonts:
        assert "glyf" in tables
        assert tables.isdisjoint({"GDEF", "GPOS", "GSUB"})


def test_figure_that_is_not_saved_or_fails_writes_nothing(run, shown):
    replace(run, save=False).figure(draw, TABLE, "aside")  # which no catalogue lists
    assert len(shown) == 1
    with pytest.raises(KeyError, match="n"):
        run.figure(draw, TABLE.drop(columns="n"), "curve")
    plt.close("all")
    with pytest.raises(ValueError, match=r"stem = 'a/b'; allowed: "):
        run.figure(draw, TABLE, "a/b")
    assert len(shown) == 1
    assert not run.folder.exists()


def test_footer_lies_below_the_figure_and_is_not_clipped(run, shown):
    """The page is the unlabelled figure, unchanged, above a strip that holds the whole label, wrapped where long."""
    toml = run.root / "notebooks" / "experiments.toml"
    toml.write_text(EXPERIMENTS.replace("digits, 50 % of them", "CIFAR-10 at 32x32 pixels, " * 12))
    run.figure(draw, TABLE, "labelled")
    replace(run, profile="full").figure(draw, TABLE, "plain")
    labelled = matplotlib.image.imread(run.folder / "figures/labelled.png")
    plain = matplotlib.image.imread(run.root / "results/full/figures/plain.png")
    height, width = plain.shape[:2]
    assert (width, height) == (975, 600)
    assert labelled.shape[1] == width and labelled.shape[0] > height + 100
    assert np.array_equal(labelled[:height], plain)
    strip = labelled[height:, :, :3] < 0.99
    assert strip.any()
    assert not strip[[0, -1]].any() and not strip[:, [0, -1]].any()


SAVE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_notebook import TABLE, Path, Run, draw
run = Run(profile="quick", name="", save=True, configs=(), root=Path(sys.argv[2]))
run.figure(draw, TABLE, "curve")
run.table(TABLE, "table")
"""


def test_files_are_the_same_bytes_in_every_process_and_under_any_matplotlibrc(run, shown, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run.root, other)
    (tmp_path / "matplotlibrc").write_text(
        "font.family: serif\nsavefig.dpi: 50\naxes.grid: True\nfigure.facecolor: red"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["MATPLOTLIBRC"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", SAVE, Path(__file__).parent, other], check=True, env=environment)
    run.figure(draw, TABLE, "curve")
    run.table(TABLE, "table")
    names = [f"figures/curve.{suffix}" for suffix in ("csv", "pdf", "png", "svg")]
    names += [f"tables/table.{suffix}" for suffix in ("csv", "md", "tex")]
    for name in names:
        assert (run.folder / name).read_bytes() == (other / "results/quick" / name).read_bytes(), name
