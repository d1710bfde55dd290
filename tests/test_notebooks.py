"""The notebooks: thin, clean, prose first; what they save is catalogued; every experiment is a valid configuration."""

import ast
import json
import re
import runpy
import shutil
from pathlib import Path

import papermill
import pytest

from sbkit.notebook import FORMATS, Run, expand, load_catalogue, load_experiments, render
from sbkit.notebook.parameters import parse_parameters

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def imported_names(source):
    """Dotted names that a cell imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(path):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def source_of(cell):
    return "".join(cell["source"])


def parameters_cell(path):
    (cell,) = (cell for cell in code_cells(path) if "parameters" in cell["metadata"].get("tags", []))
    return source_of(cell)


def declared_by(path):
    """The parameters that a notebook declares, by name."""
    return parse_parameters(parameters_cell(path))


def lines_of_code(source):
    return [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_there_are_notebooks():
    assert {"02_train", "07_bench"} < {path.stem for path in NOTEBOOKS}
    assert all(re.match(r"\d\d_[a-z_]+$", path.stem) for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_committed_clean(self, path):
        for cell in code_cells(path):
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert cell["metadata"].keys() <= {"tags"}
        metadata = read(path)["metadata"]
        assert metadata.keys() <= {"kernelspec", "language_info"}
        assert metadata["kernelspec"]["name"] == "python3"

    def test_is_thin(self, path):
        counts = {source_of(cell): len(lines_of_code(source_of(cell))) for cell in code_cells(path)}
        assert sum(counts.values()) <= 120
        del counts[parameters_cell(path)]  # a table of the options, as long as there are options
        assert max(counts.values()) <= 15

    def test_begins_with_words(self, path):
        first = read(path)["cells"][0]
        assert first["cell_type"] == "markdown"
        assert source_of(first).startswith("# ")

    def test_parameters_cell_has_one_line_each(self, path):
        source = parameters_cell(path)
        assert len(lines_of_code(source)) == len(parse_parameters(source))

    def test_papermill_reads_the_parameters_as_python_does(self, path):
        """`papermill --help-notebook` uses a regular expression, which "#" or "=" inside a string defeats."""
        inspected = papermill.inspect_notebook(path)
        assert {
            name: (found["inferred_type_name"], ast.literal_eval(found["default"])) for name, found in inspected.items()
        } == {
            name: (parameter.type.__name__, parameter.default)
            for name, parameter in parse_parameters(parameters_cell(path)).items()
        }
        assert [name for name, found in inspected.items() if not found["help"]] == [], "explain them"

    def test_parameters_are_of_a_producer_or_a_reader(self, path):
        names = list(parse_parameters(parameters_cell(path)))
        assert {"profile", "name"} < set(names) or names == ["profile", "save"]

    def test_imports_only_this_package(self, path):
        for cell in code_cells(path):
            assert not re.search(r"^\s*[%!]", source_of(cell), re.MULTILINE), "a magic or a shell command"
            names = set(imported_names(source_of(cell)))
            assert not {name for name in names if not re.match(r"sbkit(\.|$)|IPython\.display(\.|$)", name)}


READERS = [path for path in NOTEBOOKS if "save" in parameters_cell(path)]


def saved_by(path):
    """What a notebook saves, "figures/<stem>" or "tables/<stem>", in the order of its source."""
    source = "\n".join(map(source_of, code_cells(path)))
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name("run"), attr="figure"), args=[_, _, stem, *_]):
                yield f"figures/{ast.literal_eval(stem)}"
            case ast.Call(func=ast.Attribute(value=ast.Name("run"), attr="table"), args=[_, stem, *_]):
                yield f"tables/{ast.literal_eval(stem)}"


def test_catalogue_lists_what_the_readers_save_in_their_order():
    catalogue = load_catalogue(ROOT)
    by_notebook = {path.stem: [] for path in READERS}
    for name, entry in catalogue.items():
        by_notebook[entry["notebook"]].append(name)
    assert by_notebook == {path.stem: list(saved_by(path)) for path in READERS}
    assert [entry["notebook"] for entry in catalogue.values()] == sorted(e["notebook"] for e in catalogue.values())


def test_captions_are_whole_sentences():
    for name, entry in load_catalogue(ROOT).items():
        assert re.fullmatch(r"\S.{20,}\.", entry["caption"]), name


@pytest.fixture
def execute(monkeypatch):
    """A function that runs a notebook's code in this process, and injects parameters as papermill does."""

    def run(path, **parameters):
        monkeypatch.chdir(path.parent)
        namespace = {"In": [""], "__name__": "__main__"}
        for cell in code_cells(path):
            sources = [source_of(cell)]
            if "parameters" in cell["metadata"].get("tags", []):
                sources.append(
                    "\n".join(["# Parameters", *(f"{key} = {value!r}" for key, value in parameters.items())])
                )
            for source in sources:
                namespace["In"].append(source)
                exec(compile(source, path.name, "exec"), namespace)

    return run


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_reader_runs_on_its_defaults_from_its_own_folder(execute, path, monkeypatch):
    """On the committed records, as in JupyterLab; no figure is rendered. The smoke reproduction runs all in kernels."""
    monkeypatch.setattr(render, "figure", lambda draw, *_: ({"png": b"\x89PNG"}, draw().get_figwidth()))
    execute(path)


@pytest.mark.parametrize(
    "kept, drawn, left_out",
    [
        (
            ["records/train/signed_binary-s0.json", "weights/signed_binary-s0.npz"],
            {"figures/accuracy.png"},
            {"figures/ablation.png"},
        ),
        (
            ["records/bench"],
            {"figures/speedup.png", "tables/claims.md", "tables/open_review.md", "figures/tradeoff.png"},
            {"figures/accuracy.png", "figures/unique_filters.png", "figures/operations.png"},
        ),
    ],
    ids=["one run", "benchmarks"],
)
def test_few_records_are_enough_to_draw(execute, tmp_path, monkeypatch, kept, drawn, left_out):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    folder = tmp_path / "results" / "reference" / "quick"
    for name in kept:
        copied = folder / name.replace("signed_binary-s0", "of_any_name")
        copied.parent.mkdir(parents=True, exist_ok=True)
        source = ROOT / "results" / "reference" / "quick" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copied)
    monkeypatch.setenv("SBKIT_ROOT", str(tmp_path))
    figure = render.figure  # to PNG alone takes a third of the time
    monkeypatch.setattr(render, "figure", lambda draw, _, *labels: figure(draw, ("png",), *labels))
    monkeypatch.setitem(FORMATS, "figures", ("png", "csv"))
    expected = Run("reference/quick", name="", save=True, configs=(), root=tmp_path).drawn()
    for reader in dict.fromkeys(entry["notebook"] for entry in expected.values()):
        execute(tmp_path / "notebooks" / f"{reader}.ipynb", profile="reference/quick", save=True)
    written = {str(path.relative_to(folder)) for kind in FORMATS for path in folder.glob(f"{kind}/*")}
    assert written >= {f"{name}.{suffix}" for name in expected for suffix in FORMATS[name.partition("/")[0]]}
    assert drawn <= written and not left_out & written


def filled(profiles):
    """Those that list a run: `interactive` and `mine` list none."""
    return [name for name, content in profiles.items() if content["train"] or content["bench"]]


def test_experiments_pass_declared_parameters_of_the_right_type():
    producers = {path.name: parse_parameters(parameters_cell(path)) for path in NOTEBOOKS}
    profiles = load_experiments(ROOT)
    assert {"smoke", "quick", "cifar", "imagenet"} <= profiles.keys()
    for profile in filled(profiles):
        runs = expand(profile)
        assert len({(run["notebook"], run["name"]) for run in runs}) == len(runs)
        for run in runs:
            declared = producers[run["notebook"]]
            for name, value in run["parameters"].items():
                assert name in declared, f"{profile}.{run['name']} passes {name}"
                declared[name].checked(value)


def test_every_run_of_every_profile_is_a_valid_configuration():
    """A scheme's run that sets an option of another scheme would fail only after hours in the queue.

    A benchmark may ask for instructions that are not usable here: the batch leaves it out.
    """
    pytest.importorskip("torch")
    from sbkit.bench import BenchConfig
    from sbkit.kernels import ISAS
    from sbkit.quantizers import QuantizerConfig
    from sbkit.training import TrainConfig

    configs = {"02_train.ipynb": (TrainConfig, QuantizerConfig), "07_bench.ipynb": (BenchConfig,)}
    for run in (run for profile in filled(load_experiments(ROOT)) for run in expand(profile)):
        for config in configs[run["notebook"]]:
            fields = config.__dataclass_fields__
            options = {name: value for name, value in run["parameters"].items() if name in fields}
            assert options.pop("isa", "auto") in ("auto", *ISAS)
            config(**options)


def test_every_training_run_can_be_started_from_the_command_line():
    """workflow/options.py says the same as the notebook's parameters: one run of each set of options of a profile."""
    pytest.importorskip("torch")
    from sbkit.quantizers import QuantizerConfig
    from sbkit.training import TrainConfig
    from sbkit.training.__main__ import parser

    options, parse = runpy.run_path(ROOT / "workflow" / "options.py")["options"], parser().parse_args
    for profile in filled(load_experiments(ROOT)):
        runs = [run for run in expand(profile) if run["notebook"] == "02_train.ipynb"]
        for run in {tuple(run["parameters"]): run for run in runs}.values():
            found = vars(parse(options(profile, run["name"])))
            assert (found["folder"], found["name"]) == (f"results/{profile}", run["name"])
            for kind in (TrainConfig, QuantizerConfig):
                given = {name: value for name, value in run["parameters"].items() if name in kind.__dataclass_fields__}
                assert kind(**{name: found[name] for name in kind.__dataclass_fields__}) == kind(**given)
    with pytest.raises(ValueError, match="run = 'binary'; allowed in profile imagenet: full_precision-s0, binary-s0"):
        options("imagenet", "binary")
