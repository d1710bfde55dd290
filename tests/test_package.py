"""Guards: who may import whom, what loads without torch, thin notebooks, agreeing versions, no machine's paths."""

import ast
import json
import re
import runpy
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pandas
import papermill
import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from sbkit.notebook import expand, load_catalogue, load_experiments, parse_parameters

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# The modules of this package that each module may import. One direction: producers write records, readers draw them.
MAY_IMPORT = {
    "__init__": set(),
    "records": set(),
    "conv": {"records"},
    "quantizers": {"conv"},
    "models": {"conv", "quantizers"},
    "data": {"records"},
    "training": {"conv", "quantizers", "models", "data", "records", "robustness"},
    "robustness": {"data"},
    "repetition": {"conv"},
    "energy": {"conv", "repetition"},
    "kernels": {"conv", "records", "_kernels"},
    "inference": {"conv", "kernels", "models"},
    "bench": {"conv", "inference", "kernels", "models", "quantizers", "records", "repetition"},
    "analysis": {"conv", "energy", "records", "repetition"},
    "claims": {"analysis", "conv", "energy", "repetition"},
    "review": {"analysis", "claims", "conv", "records"},
    "plots": set(),
    "page": {"notebook", "records"},
    "notebook": {"records"},
    "papermill_engine": {"notebook"},
}
TORCH_SIDE = {"quantizers", "models", "data", "robustness", "training", "inference", "bench"}


def imported_names(source):
    """Dotted names that Python source imports, at any depth, `importlib.import_module("x")` included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.literal_eval(node.args[0])


def own_imports(source):
    """Names of the modules of this package that the source imports."""
    return {name.split(".")[1] for name in imported_names(source) if name.startswith("sbkit.")}


@pytest.mark.parametrize("path", sorted((ROOT / "sbkit").glob("*.py")), ids=lambda path: path.stem)
def test_import_graph(path):
    source = path.read_text()
    assert path.stem in MAY_IMPORT, f"add {path.stem} to the import graph"
    imported = own_imports(source)
    if path.stem == "records":
        imported -= {"_kernels"}  # to ask how it was compiled
    assert imported <= MAY_IMPORT[path.stem]
    if path.stem not in TORCH_SIDE | {"kernels"}:
        assert not {name for name in imported_names(source) if re.match(r"torch(vision)?(\.|$)", name)}
    assert not path.stem.startswith(("util", "common", "misc", "helper"))


def test_import_graph_has_no_cycle():
    remaining = {module: set(allowed) for module, allowed in MAY_IMPORT.items()}
    while remaining:
        leaves = {module for module, allowed in remaining.items() if not allowed & remaining.keys()}
        assert leaves, f"a cycle among {sorted(remaining)}"
        remaining = {module: allowed for module, allowed in remaining.items() if module not in leaves}


def python(program):
    """What a program prints in a fresh interpreter at the repository's root."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_of_the_package_is_light():
    loaded = python("import sys; before = set(sys.modules); import sbkit; print(*set(sys.modules) - before)")
    loaded = {name.split(".")[0] for name in loaded if not name.startswith("_editable")}
    assert loaded - sys.stdlib_module_names == {"sbkit"}


WITHOUT = """
import sys
class Missing:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision"} or name == "sbkit._kernels":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing)
"""


def test_readers_need_neither_torch_nor_the_extension():
    modules = "analysis, claims, conv, energy, notebook, page, plots, records, repetition, review"
    assert python(f"{WITHOUT}\nfrom sbkit import {modules}\nprint('loaded')") == ["loaded"]
    with pytest.raises(AssertionError, match="ModuleNotFoundError: torch"):
        python(f"{WITHOUT}\nimport sbkit.quantizers")


def test_only_bindings_include_pybind11_and_only_isa_files_include_intrinsics():
    sources = [path for path in (ROOT / "csrc").iterdir() if path.suffix in {".cpp", ".h", ".hpp"}]
    assert sources
    for path in sources:
        includes = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(), re.MULTILINE)
        if not path.name.startswith("bindings"):
            assert not [name for name in includes if "pybind11" in name or name == "Python.h"], path.name
        if not re.fullmatch(r"(kernels|integer)_\w*(avx2|avx512|neon|scalar)\.cpp", path.name):
            assert not [name for name in includes if re.search(r"intrin\.h|arm_neon|arm_sve", name)], path.name


# Notebooks


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(path):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def source_of(cell):
    return "".join(cell["source"])


def parameters_cell(path):
    (cell,) = (cell for cell in code_cells(path) if "parameters" in cell["metadata"].get("tags", []))
    return source_of(cell)


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
        assert len(source.splitlines()) == len(parse_parameters(source))

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
        assert names[:2] == ["profile", "name"] or names == ["profile", "save"]

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


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_reader_runs_on_its_defaults_from_its_own_folder(path):
    """As in JupyterLab: on the committed records. (The smoke reproduction runs all notebooks from the root.)"""
    run = [sys.executable, "-m", "jupyter", "execute", "--startup_timeout=600", str(path)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_experiments_pass_declared_parameters_of_the_right_type():
    producers = {path.name: parse_parameters(parameters_cell(path)) for path in NOTEBOOKS}
    profiles = load_experiments(ROOT)
    assert {"smoke", "quick", "cifar", "imagenet"} <= profiles.keys()
    for profile in profiles:
        runs = expand(profile)
        assert len({(run["notebook"], run["name"]) for run in runs}) == len(runs)
        for run in runs:
            declared = producers[run["notebook"]]
            for name, value in run["parameters"].items():
                assert name in declared, f"{profile}.{run['name']} passes {name}"
                declared[name].checked(value)


def test_every_run_of_every_profile_is_a_valid_configuration():
    """A scheme's run that sets an option of another scheme would fail only after hours in the queue."""
    pytest.importorskip("torch")
    from sbkit.bench import BenchConfig
    from sbkit.quantizers import QuantizerConfig
    from sbkit.training import TrainConfig

    configs = {"02_train.ipynb": (TrainConfig, QuantizerConfig), "07_bench.ipynb": (BenchConfig,)}
    for run in (run for profile in load_experiments(ROOT) for run in expand(profile)):
        for config in configs[run["notebook"]]:
            fields = config.__dataclass_fields__
            config(**{name: value for name, value in run["parameters"].items() if name in fields})


def test_every_training_run_can_be_started_from_the_command_line():
    """workflow/options.py says the same as the notebook's parameters."""
    pytest.importorskip("torch")
    from sbkit import training
    from sbkit.quantizers import QuantizerConfig

    options = runpy.run_path(ROOT / "workflow" / "options.py")["options"]
    for profile in load_experiments(ROOT):
        for run in expand(profile):
            if run["notebook"] != "02_train.ipynb":
                continue
            found = vars(training._parser().parse_args(options(profile, run["name"])))
            assert (found["folder"], found["name"]) == (f"results/{profile}", run["name"])
            for kind in (training.TrainConfig, QuantizerConfig):
                given = {name: value for name, value in run["parameters"].items() if name in kind.__dataclass_fields__}
                assert kind(**{name: found[name] for name in kind.__dataclass_fields__}) == kind(**given)
    with pytest.raises(ValueError, match="run = 'binary'; allowed in profile imagenet: full_precision-s0, binary-s0"):
        options("imagenet", "binary")


# Packaging

PIP_NAME = {"pytorch": "torch"}  # conda's name: pip's name
CONDA_ONLY = {"python", "pip", "cxx-compiler", "cmake", "ninja", "make", "git", "scikit-build-core"}


def bounds(lines):
    """{name: lower bound} of requirement lines such as `numpy>=1.26`, names as pip has them."""
    found = {}
    for line in lines:
        name, _, bound = line.partition(">=")
        name = canonicalize_name(name.strip())
        found[PIP_NAME.get(name, name)] = bound.split(",")[0].strip()
    return found


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_and_pyproject_agree(pyproject):
    """environment.yml is a flat list: regular expressions read it without a YAML library."""
    text = (ROOT / "environment.yml").read_text()
    channels = text.partition("channels:\n")[2].partition("dependencies:\n")[0]
    assert re.findall(r"- (\S+)", channels)[0] == "conda-forge"
    conda, _, pip_block = text.partition("dependencies:\n")[2].partition("  - pip:\n")
    lines = [re.findall(r"^\s+- ([\w.-]+(?:>=[\w.]+)?)$", block, re.MULTILINE) for block in (conda, pip_block)]
    assert text.rstrip().endswith("- -e .")

    project = pyproject["project"]
    build = bounds(pyproject["build-system"]["requires"])
    run = bounds(project["dependencies"])
    test = bounds(project["optional-dependencies"]["test"])
    declared = build | run | test | {"python": project["requires-python"].removeprefix(">=")}
    found = bounds(lines[0]) | bounds(lines[1])
    assert found.keys() <= declared.keys() | CONDA_ONLY
    assert (run | test).keys() <= found.keys()
    assert {name: bound for name, bound in found.items() if name in declared} == {
        name: bound for name, bound in declared.items() if name in found
    }


@pytest.fixture(scope="module")
def pins():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(r"\w", line)]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_constraints_pin_every_dependency_within_its_bound(pyproject, pins):
    project = pyproject["project"]
    for name, bound in bounds(sum(project["optional-dependencies"].values(), project["dependencies"])).items():
        assert name in pins, f"{name} is not pinned"
        release = tuple(int(part) for part in re.findall(r"\d+", pins[name].partition("+")[0]))
        assert release >= tuple(int(part) for part in bound.split(".")), name


def test_pinned_packages_take_every_python_this_one_takes(pyproject, pins):
    oldest = pyproject["project"]["requires-python"].removeprefix(">=") + ".0"
    allowed = {}
    for package in metadata.distributions():
        name, version = canonicalize_name(package.name), package.version.partition("+")[0]
        if pins.get(name) == version:
            allowed[f"{name}=={version}"] = package.metadata.get("Requires-Python", "")
    if len(allowed) < len(pins) / 2:
        pytest.skip("this environment was not made from constraints.txt")
    assert {pin: pythons for pin, pythons in allowed.items() if oldest not in SpecifierSet(pythons)} == {}


def test_version_is_written_once_over(pyproject):
    assert python("import sbkit; print(sbkit.__version__)") == [pyproject["project"]["version"]]


def test_engine_is_an_entry_point(pyproject):
    points = pyproject["project"]["entry-points"]["papermill.engine"]
    assert points == {"sbkit": "sbkit.papermill_engine:Engine"}


def test_licence_and_citation(pyproject):
    assert pyproject["project"]["license"] in (ROOT / "LICENSE").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    for key in ("cff-version:", "title:", "authors:", "version:", "license:"):
        assert re.search(rf"^{key}", citation, re.MULTILINE), key
    assert re.search(rf"^version: [\"']?{re.escape(pyproject['project']['version'])}[\"']?$", citation, re.MULTILINE)


def test_no_file_names_a_path_of_one_machine(tracked_files):
    homes = re.compile(rb"(?<![\w.])/(?:home|Users|root|work|mnt|scratch)/\w|[A-Z]:\\Users")
    found = []
    for path in tracked_files:
        if path != Path(__file__) and (match := homes.search(path.read_bytes())):
            found.append(f"{path.relative_to(ROOT)}: {match[0]!r}")
    assert found == []


def test_no_large_or_binary_result_is_tracked(tracked_files):
    assert [path.name for path in tracked_files if path.stat().st_size > 2_000_000] == []
    assert [path.name for path in tracked_files if path.suffix in {".so", ".pt", ".pyc", ".zip", ".gz"}] == []


def test_readme_shows_the_committed_tables():
    """Where this fails, `python workflow/readme.py` puts the tables in again."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- table: results/reference/quick/tables/claims_headline.md -->" in readme
    filled = runpy.run_path(ROOT / "workflow" / "readme.py")["filled"]
    assert filled(readme) == readme
    emptied = re.sub(r"(<!-- table: \S+ -->\n).*?(<!-- end of table -->)", r"\1\2", readme, flags=re.DOTALL)
    assert len(emptied) < len(readme) and filled(emptied) == readme


def test_the_readmes_claims_have_the_verdicts_of_all_claims():
    headline, every = (
        pandas.read_csv(ROOT / "results" / "reference" / "quick" / "tables" / f"{stem}.csv", index_col="id")
        for stem in ("claims_headline", "claims")
    )
    assert len(headline) > 10
    pandas.testing.assert_frame_equal(headline, every.loc[headline.index])


def test_readme_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", readme) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_interval_in_the_readme_is_in_a_committed_table():
    """`1.92 ± 0.08`, to the digits shown and up to the sign ("below"), must be a mean and half width of some table."""
    folder = ROOT / "results" / "reference"
    names = {"value": "half_width", "speedup": "speedup_half_width"}
    names |= {"difference_mean_points": "difference_half_width_points", "top1_mean_percent": "top1_half_width_percent"}
    names |= {"time": "time_half_width", "overhead_percent": "half_width_percent"}
    interval = r"(\d+\.(\d+)) ± (\d+\.\d+)"
    known, written = [], set()
    for path in [*folder.glob("*/tables/*.csv"), *folder.glob("*/figures/*.csv")]:
        table = pandas.read_csv(path)
        if path.parent.name == "tables":
            written |= set(re.findall(interval, path.read_text(encoding="utf-8")))
        for mean, half_width in names.items():
            if {mean, half_width} <= set(table):
                known += zip(table[mean].abs(), table[half_width], strict=True)
    shown = set(re.findall(interval, (ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(shown) > 15
    for mean, digits, half_width in shown - written:
        n = len(digits)
        assert (mean, half_width) in {(f"{m:.{n}f}", f"{h:.{n}f}") for m, h in known}, f"{mean} ± {half_width}"
