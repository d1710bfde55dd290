"""`start()` in a real IPython shell and under papermill and nbclient; figures and tables byte for byte."""

import ast
import io
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from fontTools.ttLib import TTFont
from matplotlib import pyplot as plt

from sbkit import notebook, records
from sbkit.notebook import Run, drawn, expand, find_root, load_catalogue, load_experiments, parse_parameters, start
from sbkit.records import Record

EXPERIMENTS = """
[small]
title = "digits, 50 % of them"
paper_scale = false
seeds = [0, 1]

[small.common]
epochs = 1

[small.train.binary]
quantizer = "binary"

[small.train.signed_binary]
quantizer = "signed_binary"
epochs = 2
seeds = [5]

[small.bench.layers]
shapes = "tiny"

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
reads = ["train", "bench"]

["figures/toy"]
notebook = "03_first"
paper = ""
caption = "A toy."
reads = []

["figures/speed"]
notebook = "08_second"
paper = ""
caption = "Speed."
reads = ["bench"]
needs = { shapes = "tiny" }

["figures/large"]
notebook = "08_second"
paper = ""
caption = "Speed of large layers."
reads = ["bench"]
needs = { shapes = "large" }
"""

PARAMETERS = """\
profile: str = "small"  # a profile
name: str = "run"  # file stem
epochs: int = 2  # passes
rate: float = 1  # peak
flip: bool = True  # augment
seed: int = 7  # of everything
"""


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
    """A repository of its own, and OMP_NUM_THREADS unset."""
    folder = tmp_path / "repository"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "experiments.toml").write_text(EXPERIMENTS)
    (folder / "notebooks" / "catalogue.toml").write_text(CATALOGUE)
    monkeypatch.setenv("SBKIT_ROOT", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
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
    assert (run.profile, run.name, run.save) == ("small", "run", False)
    assert run.folder == root / "results" / "small"
    assert run.folder.is_dir()
    assert run.label == "small profile: digits, 50 % of them"


def test_reader_reads_references_and_writes_nothing(root):
    run = Kernel('profile: str = "reference/full"\nsave: bool = False').start()
    assert (run.configs, run.name, run.label) == ((), "", "")
    assert run.folder == root / "results" / "reference" / "full"
    assert not (root / "results").exists()


def test_injected_values_replace_defaults(root):
    run = Kernel(PARAMETERS, "# Parameters\nepochs = 5\nrate = 3\nname = 'other'\n").start(First, Second)
    assert (run.configs[0], run.name) == (First(5, 3.0, 7), "other")


def test_only_the_last_edit_of_the_parameters_cell_counts(root):
    kernel = Kernel(PARAMETERS + "epochz: int = 3", "# Parameters\nepochs = 9", PARAMETERS, "tail: int = 3")
    assert kernel.start(First, Second).configs[0].epochs == 2
    kernel.run(edited("epochs: int = 2", "epochs: int = 4"))
    assert kernel.start(First, Second).configs[0].epochs == 4


def test_start_can_run_again(root):
    kernel = Kernel(PARAMETERS)
    assert kernel.start(First, Second) == kernel.start(First, Second)


@pytest.mark.parametrize(
    "cells, error, message",
    [
        ([], ValueError, "no parameters cell has run"),
        (["profil: str = 'small'"], ValueError, "no parameters cell has run"),
        (
            [edited("epochs", "epochz")],
            ValueError,
            r"epochz \(did you mean epochs\?\); allowed: profile, name",
        ),
        ([PARAMETERS, "# Parameters\nepochz = 3"], ValueError, r"unknown parameter epochz \(did you mean epochs\?\)"),
        ([edited("rate: float = 1", "")], ValueError, "lacks rate; required: profile, name, epochs, rate, seed, flip"),
        ([edited("epochs: int = 2", "epochs: float = 2")], TypeError, "declares epochs: float; allowed: int"),
        ([edited("epochs: int = 2", "epochs: int = 2.5")], TypeError, "epochs = 2.5 is of type float; allowed: int"),
        ([edited("epochs: int = 2", "epochs: int = True")], TypeError, "epochs = True is of type bool; allowed: int"),
        ([edited("rate: float = 1", "rate: float = True")], TypeError, "rate = True is of type bool; allowed: float"),
        ([edited("flip: bool = True", "flip: bool = 1")], TypeError, "flip = 1 is of type int; allowed: bool"),
        (
            [edited("epochs: int = 2", "epochs = 2")],
            ValueError,
            "holds `epochs = 2`; allowed: one `name: type",
        ),
        ([edited("epochs: int = 2", "epochs: int = 1 + len('a')")], ValueError, "holds `epochs: int = 1 "),
        ([edited("epochs: int = 2", "epochs: list = [2]")], ValueError, "type being str, int, float, bool"),
        ([PARAMETERS + "seed: int = 8"], ValueError, "declares seed twice"),
        ([PARAMETERS, "# Parameters\nepochs = 'abc'"], TypeError, "epochs = 'abc' is of type str; allowed: int"),
        ([PARAMETERS, "# Parameters\nepochs = 2.0"], TypeError, "epochs = 2.0 is of type float; allowed: int"),
        ([PARAMETERS, "# Parameters\nflip = 'true'"], TypeError, "flip = 'true' is of type str; allowed: bool"),
        ([PARAMETERS, "# Parameters\nname = 7"], TypeError, "name = 7 is of type int; allowed: str .*-r NAME VALUE"),
        ([PARAMETERS, "# Parameters\nname = None"], TypeError, "name = None is of type NoneType"),
        ([PARAMETERS, "# Parameters\nrate = float('nan')"], ValueError, r"`rate = float\('nan'\)` is not a literal"),
        ([PARAMETERS, "# Parameters\nrate = 1e999"], ValueError, "rate = inf; allowed: a finite number"),
        ([PARAMETERS, "epochs = 3"], ValueError, "epochs is 3 in this kernel but 2 in the parameters cell"),
        ([PARAMETERS, "# Parameters\nepochs = 0"], ValueError, "epochs = 0; allowed: an integer >= 1"),
        (
            [PARAMETERS, "# Parameters\nprofile = 'smal'"],
            ValueError,
            "profile = 'smal'; allowed: small, full, or",
        ),
        ([PARAMETERS, "# Parameters\nprofile = '../small'"], ValueError, r"profile = '../small'; allowed"),
        ([PARAMETERS, "# Parameters\nname = '../run'"], ValueError, r"name = '../run'; allowed: letters"),
    ],
)
def test_bad_parameters_are_named_before_anything_is_written(root, cells, error, message):
    with pytest.raises(error, match=message):
        Kernel(*cells).start(First, Second)
    assert not (root / "results").exists()


def test_parse_parameters():
    found = parse_parameters('a: int = -3  # help = me\nb: str = "x # = y"\nc: float = 1\nd: bool = False')
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
    with pytest.raises(ValueError, match="OMP_NUM_THREADS = 'many'; allowed: an integer >= 1"):
        Kernel(PARAMETERS).start(First, Second)


def test_results_folder_that_cannot_be_written_is_named(root):
    (root / "results").write_text("a file, where root itself cannot make a folder")
    with pytest.raises(PermissionError, match=r"results/small"):
        Kernel(PARAMETERS).start(First, Second)
    assert Kernel('profile: str = "small"\nsave: bool = False').start().profile == "small"


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
    """The path of a notebook that writes results/small/done.txt."""
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
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(notebook.__file__).parents[1]), *sys.path])
    command = [sys.executable, "-m", *map(str, command)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("place", [".", "notebooks"])
def test_papermill_from_root_and_from_the_notebooks_folder(root, producer, place):
    command = [*PAPERMILL, producer, "out.ipynb", "-p", "epochs", 3, "-p", "rate", 2]
    # Without SBKIT_ROOT, the working folder says where the repository is.
    done = execute(command, root / place, unset=["SBKIT_ROOT"])
    assert done.returncode == 0, done.stderr
    assert (root / "results/small/done.txt").read_text() == "Config(epochs=3, rate=2.0, flip=True, seed=7)"


@pytest.mark.parametrize(
    "option, message",
    [
        (["epochz", 3], "ValueError: unknown parameter epochz (did you mean epochs?)"),
        (["epochs", "abc"], "TypeError: epochs = 'abc' is of type str; allowed: int"),
    ],
)
def test_plain_papermill_refuses_bad_parameters(root, producer, option, message):
    done = execute([*PAPERMILL, producer, "out.ipynb", "-p", *option], root)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (root / "results").exists()


def test_nbclient_runs_the_defaults_in_the_notebooks_folder(root, producer):
    done = execute(["jupyter", "execute", "--startup_timeout=600", producer], root.parent, unset=["SBKIT_ROOT"])
    assert done.returncode == 0, done.stderr
    assert (root / "results/small/done.txt").read_text() == "Config(epochs=2, rate=1.0, flip=True, seed=7)"


# Records, figures, tables


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would display."""
    objects = []
    monkeypatch.setattr("IPython.display.display", objects.append)
    return objects


@pytest.fixture
def run(root):
    return Run(profile="small", name="", save=True, configs=(), root=root)


TABLE = pd.DataFrame({"scheme": ["binary", "signed|binary"], "n": [1, 23456], "top1_percent": [81.234567, np.nan]})


def draw(table, *, title="a title"):
    """A figure with a legend and a label at its very bottom, where a footer could collide with them."""
    figure, axis = plt.subplots(figsize=(3.25, 2), layout="constrained")
    axis.plot(table["n"], table["top1_percent"], marker="o", label="x")
    axis.set(xlabel="operations", title=title)
    figure.legend(loc="outside lower center")
    return figure


def test_records_of_the_profile(run):
    with pytest.raises(FileNotFoundError, match=r"small/records/train holds no finished record; 02_train.ipynb"):
        run.records("train")
    record = Record("train", "x-1", {"seed": 0}, {"top1_percent": 50.0}, {}, {"status": "ok"})
    records.write(record, run.folder / "records" / "train" / "x-s0.json")
    assert run.records("train")[["name", "top1_percent"]].values.tolist() == [["x-s0", 50.0]]


def test_figure_shows_and_writes(run, shown):
    run.figure(draw, TABLE, "curve", title="another")
    folder = run.folder / "figures"
    assert sorted(file.name for file in folder.iterdir()) == ["curve.csv", "curve.pdf", "curve.png", "curve.svg"]
    image, caption = shown
    assert image.data == (folder / "curve.png").read_bytes()
    assert caption.data == "A curve of `n`."
    assert (folder / "curve.csv").read_text() == "scheme,n,top1_percent\nbinary,1,81.234567\nsigned|binary,23456,\n"
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


def test_unsaved_figure_is_only_shown(run, shown):
    replace(run, save=False).figure(draw, TABLE, "aside")  # which no catalogue lists
    assert len(shown) == 1
    assert not run.folder.exists()


def test_figure_that_fails_writes_nothing(run, shown):
    with pytest.raises(KeyError, match="n"):
        run.figure(draw, TABLE.drop(columns="n"), "curve")
    plt.close("all")
    with pytest.raises(ValueError, match=r"stem = 'a/b'; allowed: letters"):
        run.figure(draw, TABLE, "a/b")
    assert shown == []
    assert not run.folder.exists()


def test_footer_lies_below_the_figure_and_is_not_clipped(run, shown):
    """The page is the unlabelled figure, unchanged, above a strip that holds the whole label."""
    run.figure(draw, TABLE, "labelled")
    replace(run, profile="full").figure(draw, TABLE, "plain")
    labelled = matplotlib.image.imread(run.folder / "figures/labelled.png")
    plain = matplotlib.image.imread(run.root / "results/full/figures/plain.png")
    height, width = plain.shape[:2]
    assert (width, height) == (975, 600)
    assert labelled.shape[1] == width and labelled.shape[0] > height
    assert np.array_equal(labelled[:height], plain)
    strip = labelled[height:, :, :3] < 0.99
    assert strip.any()
    assert not strip[[0, -1]].any() and not strip[:, [0, -1]].any()


def test_long_label_is_wrapped(run, shown):
    toml = run.root / "notebooks" / "experiments.toml"
    toml.write_text(EXPERIMENTS.replace("digits, 50 % of them", "CIFAR-10 at 32x32 pixels, " * 12))
    run.figure(draw, TABLE, "curve")
    image = matplotlib.image.imread(run.folder / "figures/curve.png")[600:, :, :3] < 0.99
    assert image.shape[0] > 100
    assert not image[:, [0, -1]].any()


SAVE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_notebook import TABLE, Path, Run, draw
run = Run(profile="small", name="", save=True, configs=(), root=Path(sys.argv[2]))
run.figure(draw, TABLE, "curve")
run.table(TABLE, "table")
"""


def test_files_are_the_same_bytes_in_every_process(run, shown, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run.root, other)
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", SAVE, Path(__file__).parent, other], check=True, env=environment)
    run.figure(draw, TABLE, "curve")
    run.table(TABLE, "table")
    names = [f"figures/curve.{suffix}" for suffix in ("csv", "pdf", "png", "svg")]
    names += [f"tables/table.{suffix}" for suffix in ("csv", "md", "tex")]
    for name in names:
        assert (run.folder / name).read_bytes() == (other / "results/small" / name).read_bytes(), name


def test_table_shows_and_writes(run, shown):
    run.table(TABLE, "table")
    folder = run.folder / "tables"
    assert (folder / "table.csv").read_text() == "scheme,n,top1_percent\nbinary,1,81.234567\nsigned|binary,23456,\n"
    assert (folder / "table.md").read_text() == textwrap.dedent(
        r"""        Top-1 & more — small profile: digits, 50 % of them

        | scheme         |      n |   top1_percent |
        |:---------------|-------:|---------------:|
        | binary         |      1 |          81.23 |
        | signed\|binary | 23,456 |              – |
        """
    )
    assert [text.data for text in shown] == [(folder / "table.md").read_text()]
    latex = (folder / "table.tex").read_text()
    assert r"\caption{Top-1 \& more — small profile: digits, 50 \% of them}" in latex
    assert r"scheme & n & top1\_percent \\" in latex
    assert r"\begin{tabular}{lrr}" in latex
    assert r"\label{tab:table}" in latex


def test_a_tables_bytes_do_not_depend_on_the_processor(run, shown):
    """The last digits of linear algebra do."""
    found = set()
    for last in (0, 3e-16, -1e-15):
        run.table(pd.DataFrame({"share": [0.07906424111395656, 0.8736908507423411]}) * (1 + last), "table")
        found.add((run.folder / "tables/table.csv").read_text())
    assert found == {"share\n0.07906424111\n0.8736908507\n"}


def test_table_keeps_named_row_labels(run, shown):
    run.table(TABLE.set_index("scheme")[["n"]], "indexed")
    assert (run.folder / "tables/indexed.csv").read_text() == "scheme,n\nbinary,1\nsigned|binary,23456\n"
    assert "| scheme " in (run.folder / "tables/indexed.md").read_text()


# Experiments


def test_root_is_found(root, monkeypatch, tmp_path):
    assert find_root() == root
    monkeypatch.delenv("SBKIT_ROOT")
    monkeypatch.chdir(root / "notebooks")
    assert find_root() == root
    monkeypatch.chdir(tmp_path)
    assert find_root() == Path(notebook.__file__).parents[1]
    monkeypatch.setenv("SBKIT_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no notebooks/experiments.toml in .*; set SBKIT_ROOT"):
        find_root()


def test_expand(root):
    common = {"profile": "small"}
    assert expand("small") == [
        {"name": name, "notebook": file, "parameters": {**common, "name": name, **parameters}}
        for name, file, parameters in [
            ("binary-s0", "02_train.ipynb", {"epochs": 1, "quantizer": "binary", "seed": 0}),
            ("binary-s1", "02_train.ipynb", {"epochs": 1, "quantizer": "binary", "seed": 1}),
            ("signed_binary-s5", "02_train.ipynb", {"epochs": 2, "quantizer": "signed_binary", "seed": 5}),
            ("layers", "07_bench.ipynb", {"shapes": "tiny"}),
        ]
    ]
    assert expand("full") == []


def test_a_checkpoint_is_that_of_another_table_with_the_same_seed(root):
    path = root / "notebooks" / "experiments.toml"

    def expanded(binary, signed_binary):
        path.write_text(
            EXPERIMENTS.replace('quantizer = "binary"', f'quantizer = "binary"\n{binary}').replace(
                "epochs = 2", f"epochs = 2\n{signed_binary}"
            )
        )
        return {run["name"]: run["parameters"] for run in expand("small")}

    runs = expanded("seeds = [5, 6]", 'start_from = "binary"\ndistill_from = "binary"')
    assert runs["signed_binary-s5"]["start_from"] == "results/small/checkpoints/binary-s5.pt"
    assert runs["signed_binary-s5"]["distill_from"] == "results/small/checkpoints/binary-s5.pt"
    assert not {"start_from", "distill_from"} & runs["binary-s5"].keys()
    for named in ("binary", "other", "signed_binary"):  # without the seed, unknown, itself
        message = (
            rf"small.train.signed_binary.start_from = '{named}'; allowed: a training table with seed 5, here: none"
        )
        with pytest.raises(ValueError, match=message):
            expanded("", f'start_from = "{named}"')
    with pytest.raises(
        ValueError, match=r"distill_from = 'other'; allowed: a training table with seed 5, here: binary"
    ):
        expanded("seeds = [5]", 'distill_from = "other"')


def test_an_unknown_profile_names_the_allowed_ones(root):
    with pytest.raises(ValueError, match=r"profile = 'other'; allowed: small, full"):
        expand("other")


@pytest.mark.parametrize(
    "old, new, error, message",
    [
        ("paper_scale = false", "paper_scale = 0", ValueError, "small.paper_scale = 0; allowed: title"),
        ("paper_scale = false", "", ValueError, "small lacks paper_scale"),
        ("[small.common]", "[small.comon]", ValueError, "small.comon = .*; allowed: title, paper_scale, seeds, common"),
        ('shapes = "tiny"', "seed = 3", ValueError, "small.bench.layers sets seed, .*use `seeds`"),
        ("[small.train.binary]", '[small.train."a/b"]', ValueError, "small.train = 'a/b'; allowed: letters"),
        ("title", "title = ", tomllib.TOMLDecodeError, "line 3"),
    ],
)
def test_malformed_experiments_are_refused(root, old, new, error, message):
    assert old in EXPERIMENTS
    (root / "notebooks" / "experiments.toml").write_text(EXPERIMENTS.replace(old, new, 1))
    with pytest.raises(error, match=message):
        load_experiments()


# The catalogue


TINY = [{"shapes": "tiny", "rounds": 5}]


@pytest.mark.parametrize(
    "kinds, runs, expected",
    [
        (["train", "bench", "weights"], TINY, ["figures/curve", "tables/table", "figures/toy", "figures/speed"]),
        (["train"], TINY, ["figures/curve", "tables/table", "figures/toy"]),
        (["bench"], TINY, ["tables/table", "figures/toy", "figures/speed"]),  # `table` reads either
        (["bench"], [{"rounds": 5}], ["tables/table", "figures/toy"]),
        (["weights"], TINY, []),
    ],
)
def test_drawn(root, kinds, runs, expected):
    assert list(load_catalogue()) == ["figures/curve", "tables/table", "figures/toy", "figures/speed", "figures/large"]
    assert list(drawn(load_catalogue(), kinds, runs)) == expected


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('["figures/curve"]', '["plots/curve"]', "'plots/curve' lies in no folder of figures, tables"),
        ('["figures/curve"]', '["figures/../x"]', r"figures = '../x'; allowed: letters"),
        ('paper = "Fig. 1"', "paper = 1", "figures/curve.paper = 1; allowed: notebook, paper, caption, reads, needs"),
        ('paper = "Fig. 1"', 'title = "x"', "figures/curve.title = 'x'; allowed: notebook"),
        ('paper = "Fig. 1"', "", "figures/curve lacks paper"),
        ('reads = ["train"]', 'reads = ["trains"]', "figures/curve.reads holds trains; allowed: train, bench, weights"),
    ],
)
def test_malformed_catalogue_is_refused(root, old, new, message):
    (root / "notebooks" / "catalogue.toml").write_text(CATALOGUE.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"catalogue.toml: .*{message}"):
        load_catalogue()


def test_drawn_only_beside_a_run_of_a_name(root):
    catalogue = load_catalogue()
    catalogue["figures/curve"]["needs"] = {"name": "binary"}
    for names, expected in ((["binary-s0", "x"], True), (["binary"], True), (["binary_mean-s0", "mine"], False)):
        found = drawn(catalogue, ["train"], [{"seed": 0, "name": name} for name in names])
        assert ("figures/curve" in found) == expected, names


def test_drawn_by_a_profile(run):
    assert run.drawn() == {}
    records.write(Record("bench", "x-1", {"shapes": "large"}, {}, {}, {}), run.folder / "records" / "bench" / "x.json")
    assert list(run.drawn()) == ["tables/table", "figures/toy", "figures/large"]


def test_expand_is_quick_and_imports_nothing_heavy():
    program = (
        "import sys, time; begun = time.process_time(); from sbkit.notebook import expand; expand('quick'); "
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'IPython'}; "
        "print(time.process_time() - begun, *sorted(heavy & set(sys.modules)))"
    )
    done = execute(["timeit", "-n1", "-r1", program], Path(notebook.__file__).parents[1])
    seconds, *heavy = done.stdout.split("\n")[0].split()
    assert heavy == []
    assert float(seconds) < 0.5


def test_commands_train_what_the_records_hold():
    """The options of a command, with the notebook's defaults for the others, are the recorded configuration."""
    from sbkit import analysis
    from sbkit.quantizers import QuantizerConfig
    from sbkit.training import TrainConfig, effective

    root = find_root()
    run = Run("reference/quick", name="", save=False, configs=(), root=root)
    groups = analysis.group_runs(records.read(run.folder, "train"))
    table = run.commands(groups).set_index("label")["command"]
    cells = nbformat.read(root / "notebooks" / "02_train.ipynb", as_version=4)["cells"]
    declared = parse_parameters(next(c["source"] for c in cells if "parameters" in c["metadata"].get("tags", ())))
    assert set(table.index) == set(groups["label"])
    for label, command in table.items():
        words = shlex.split(command)
        assert words[:5] == ["papermill", "--engine", "sbkit", "notebooks/02_train.ipynb", "out.ipynb"]
        options = {name: parameter.default for name, parameter in declared.items()}
        for flag, name, text in zip(words[5::3], words[6::3], words[7::3], strict=True):
            options[name] = text if flag == "-r" else declared[name].checked(ast.literal_eval(text))
        configs = [
            kind(**{field.name: options[field.name] for field in fields(kind) if field.name in options})
            for kind in (TrainConfig, QuantizerConfig)
        ]
        assert effective(*configs) == groups[groups["label"] == label]["config"].iloc[0]
