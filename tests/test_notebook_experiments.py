"""Experiments and catalogue: their forms, what they expand to, and the committed records that they answer for."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_notebooks import declared_by

from sbkit import records
from sbkit.designs import DESIGNS
from sbkit.notebook import CHECKPOINTS, Run, drawn, expand, find_root, load_catalogue
from sbkit.notebook.run import NoRecords
from sbkit.records import Record

ROOT = Path(__file__).resolve().parents[1]

EXPERIMENTS = """
[small]
title = "digits"
paper_scale = false
seeds = [0, 1]

[small.common]
epochs = 1

[small.train]
binary = { design = "binary" }
fine = { design = "random_signs", delta_factor = 0.5, epochs = 2, seeds = [5] }

[small.bench]
layers = { shapes = "tiny" }

[full]
title = "all"
paper_scale = true
seeds = [0]
"""

CATALOGUE = """
["figures/curve"]
notebook = "03_first"
paper = "Fig. 1"
caption = "A curve."
reads = ["train"]

["tables/table"]
notebook = "03_first"
paper = ""
caption = "Top-1"
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
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository of its own."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "experiments.toml").write_text(EXPERIMENTS)
    (tmp_path / "notebooks" / "catalogue.toml").write_text(CATALOGUE)
    monkeypatch.setenv("SBKIT_ROOT", str(tmp_path))
    return tmp_path


def replaced(root, file, old, new):
    path = root / "notebooks" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# Experiments


def test_root_is_found(root, monkeypatch, tmp_path):
    assert find_root() == root
    monkeypatch.delenv("SBKIT_ROOT")
    monkeypatch.chdir(root / "notebooks")
    assert find_root() == root
    (elsewhere := tmp_path.parent / "elsewhere").mkdir(exist_ok=True)
    monkeypatch.chdir(elsewhere)
    assert find_root() == ROOT
    monkeypatch.setenv("SBKIT_ROOT", str(elsewhere))
    with pytest.raises(FileNotFoundError, match=r"no notebooks/experiments.toml in .*; set SBKIT_ROOT"):
        find_root()


def test_expand(root):
    fine = DESIGNS["random_signs"].options | {"delta_factor": 0.5, "epochs": 2, "quantizer": "signed_binary"}
    assert expand("small") == [
        {"name": name, "notebook": file, "parameters": {"profile": "small", "name": name, **parameters}}
        for name, file, parameters in [
            ("binary-s0", "02_train.ipynb", {"epochs": 1, "quantizer": "binary", "seed": 0}),
            ("binary-s1", "02_train.ipynb", {"epochs": 1, "quantizer": "binary", "seed": 1}),
            ("fine-s5", "02_train.ipynb", fine | {"seed": 5}),
            ("layers", "07_bench.ipynb", {"study": "layers", "shapes": "tiny"}),
        ]
    ]


def test_a_profile_without_runs_says_how_to_add_one(root):
    with pytest.raises(ValueError, match=r"profile full lists no runs; write one below \[mine.train\] in notebooks/"):
        expand("full")
    with pytest.raises(ValueError, match=r"profile = 'other'; allowed: small, full"):
        expand("other")


def test_a_checkpoint_is_that_of_another_table_with_the_same_seed(root):
    replaced(root, "experiments.toml", 'design = "binary"', 'design = "binary", seeds = [5, 6]')
    replaced(root, "experiments.toml", "epochs = 2", 'epochs = 2, start_from = "binary", distill_from = "binary"')
    runs = {run["name"]: run["parameters"] for run in expand("small")}
    for option in ("start_from", "distill_from"):
        assert runs["fine-s5"][option] == "results/small/checkpoints/binary-s5.pt"
        assert option not in runs["binary-s5"]
    for named in ("other", "fine"):
        replaced(root, "experiments.toml", 'distill_from = "', f'distill_from = "{named}", l1 = "')
        message = rf"small.train.fine.distill_from, seed 5 = '{named}'; allowed: binary"
        with pytest.raises(ValueError, match=message):
            expand("small")
        replaced(root, "experiments.toml", f'"{named}", l1 = "', '"')


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "paper_scale = false",
            "paper_scale = 0",
            r"small.paper_scale = 0; allowed: title \(str\), paper_scale \(bool",
        ),
        ("paper_scale = false", "", "small lacks paper_scale"),
        ("[small.common]", "[small.comon]", "small.comon = .*; allowed: title"),
        ('shapes = "tiny"', "seed = 3", "small.bench.layers sets seed, .*use `seeds`"),
        ("binary = {", '"a/b" = {', "small.train = 'a/b'; allowed: "),
        ("binary = {", f"{'x' * 99} = {{", "name of a run of small = 'x+-s0'; allowed: up to 100"),
        ('"binary"', '"binarry"', "small.train.binary.design = 'binarry'; allowed: full_precision, binary"),
        ("\n[small]", "tiny = 5\n[small]", "tiny = 5; allowed: a table of title"),
        ("\n[small]", "['a b']", "profile = 'a b'; allowed: up to 100"),
        ("\n[small]", "[data]", "profile = 'data'; allowed: any name but data, reference"),
        ('binary = { design = "binary" }', "binary = 5", "small.train.binary = 5; allowed: a table of parameters"),
        ("epochs = 1", "design = 5", "small.common.design = 5; allowed: full_precision"),
        ("seeds = [5]", "seeds = 5", "small.train.fine.seeds = 5; allowed: a list"),
        ("seeds = [0, 1]", 'seeds = ["a"]', "small.seeds = 'a'; allowed: an integer >= 0"),
        ("title", "title = ", "experiments.toml is not a readable TOML file: TOMLDecodeError: .*line 3"),
    ],
)
def test_malformed_experiments_are_refused(root, old, new, message):
    replaced(root, "experiments.toml", old, new)
    with pytest.raises(ValueError, match=message):
        expand("small")


def test_expand_imports_nothing_heavy():
    program = (
        "import sys; from sbkit.notebook import expand; expand('quick'); "
        "print(*{'torch', 'pandas', 'numpy', 'matplotlib', 'IPython'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "results/reference").glob("*/records/train")), ids=lambda path: path.parts[-3]
)
def test_committed_records_are_those_of_the_experiments(folder):
    """A record's options are the defaults of the parameters cell with what its run in experiments.toml changes.

    Those of CIFAR come from an image folder, and a record names the run that left a checkpoint, not its file. Options
    that a record names and that are gone since were at their defaults in it: its configuration has none of them.
    """
    declared = declared_by(ROOT / "notebooks" / "02_train.ipynb")
    runs = {run["name"]: run["parameters"] for run in expand(folder.parents[1].name)}
    names = {path.stem for path in folder.glob("*.json")}
    assert names <= runs.keys()
    for name in names:
        record = records.load(folder / f"{name}.json")
        options = {key: value for key, value in record.provenance["options"].items() if key in declared}
        expected = {option: declared[option].default for option in options} | runs[name]
        for option in CHECKPOINTS:
            expected[option] = Path(expected[option]).stem.removesuffix(f"-s{expected['seed']}")
        differ = {key for key, value in options.items() if expected[key] != value} - {"dataset"}
        assert not differ, f"{name}: {', '.join(differ)}"
        assert {key: value for key, value in options.items() if value != declared[key].default} == record.config


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
    assert list(drawn(load_catalogue(), kinds, runs)) == expected


@pytest.mark.parametrize(
    "design, runs",
    [
        ("signed_binary", [{"quantizer": "signed_binary", "epochs": 9}]),
        ("random_signs", [{"quantizer": "signed_binary"} | DESIGNS["random_signs"].options]),
        (None, [{"quantizer": "binary"}, {"shapes": "tiny"}, {"quantizer": "signed_binary", "estimator": "sb_ede"}]),
    ],
)
def test_drawn_only_beside_a_run_of_a_design(root, design, runs):
    for named in ("signed_binary", "random_signs"):
        catalogue = load_catalogue()
        catalogue["figures/curve"]["needs"] = {"design": named}
        assert ("figures/curve" in drawn(catalogue, ["train"], runs)) == (named == design)


def test_drawn_beside_several_designs_or_variants_of_a_scheme(root):
    designs = ("signed_binary", "learned_signs", "binary")
    plain, learned, binary = ({"quantizer": "signed_binary"} | DESIGNS[name].options for name in designs)
    for needs, runs, expected in [
        ({"design": ["signed_binary", "binary"]}, [plain], False),
        ({"design": ["signed_binary", "binary"]}, [binary, plain], True),
        ({"design": "signed_binary", "variant": "signed_binary"}, [plain, binary], False),
        ({"design": "signed_binary", "variant": "signed_binary"}, [plain, learned], True),
        ({"design": "signed_binary", "variant": "signed_binary"}, [learned], False),
        ({"study": "integers", "column": "sums_ms"}, [{"study": "integers"}], True),  # planned
        ({"study": "integers", "column": "sums_ms"}, [{"study": "integers", "columns": ["min_ms"]}], False),
        ({"study": "integers", "column": "sums_ms"}, [{"study": "integers", "columns": ["sums_ms"]}], True),
    ]:
        catalogue = load_catalogue()
        catalogue["figures/curve"]["needs"] = needs
        assert ("figures/curve" in drawn(catalogue, ["train"], runs)) == expected, (needs, runs)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('["figures/curve"]', '["plots/curve"]', "folder of plots/curve = 'plots'; allowed: figures, tables"),
        ('["figures/curve"]', '["figures/../x"]', r"figures = '../x'; allowed: "),
        ('paper = "Fig. 1"', "paper = 1", r"figures/curve.paper = 1; allowed: notebook \(str\), paper \(str\)"),
        ('paper = "Fig. 1"', 'title = "x"', "figures/curve.title = 'x'; allowed: notebook"),
        ('paper = "Fig. 1"', "", "figures/curve lacks paper"),
        ('["train"]', '["trains"]', "figures/curve.reads = 'trains'; allowed: train, bench, weights"),
        ('["figures/curve"]', '"figures/c" = 5\n["figures/curve"]', "figures/c = 5; allowed: a table of notebook"),
        ('shapes = "tiny"', 'design = "x"', "figures/speed.needs.design = 'x'; allowed: full_precision"),
    ],
)
def test_malformed_catalogue_is_refused(root, old, new, message):
    replaced(root, "catalogue.toml", old, new)
    with pytest.raises(ValueError, match=f"catalogue.toml: .*{message}"):
        load_catalogue()


# Records


def test_a_profile_draws_what_its_records_are_enough_for(root):
    run = Run(profile="small", name="", save=True, configs=(), root=root)
    assert run.drawn() == {}
    with pytest.raises(NoRecords, match=r"small/records/bench holds no finished record; 07_bench.ipynb"):
        run.records("bench")
    record = Record("bench", "x-1", {"shapes": "tiny"}, {"speedup": 2.5}, {}, {"status": "ok"})
    records.write(record, run.folder / "records" / "bench" / "x.json")
    assert list(run.drawn()) == ["tables/table", "figures/toy", "figures/speed"]
    assert run.records("bench")[["name", "speedup"]].values.tolist() == [["x", 2.5]]


@pytest.fixture
def quick():
    return Run("reference/quick", name="", save=False, configs=(), root=ROOT)


def test_a_run_stands_beside_the_committed_ones_of_its_configuration(quick):
    committed = records.load(quick.folder / "records/train/binary-s1.json")
    one, several = quick.beside_reference(committed).to_dict("records")
    assert (one["run"], one["top1_percent"], one["runs"]) == ("this run", committed.metrics["top1_percent"], 1)
    frame = quick.records("train")
    assert several["top1_percent"] == frame[frame["name"].str.match(r"binary-s\d")]["top1_percent"].mean()
    assert several["runs"] == 3
    other = Record("train", "x", committed.config | {"epochs": 77}, committed.metrics, {}, {})
    assert len(quick.beside_reference(other)) == 1
