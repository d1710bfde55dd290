"""Guards: who may import whom, what loads without torch, agreeing versions, no machine's paths."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "sbkit").rglob("*.py"))

# The modules and packages of sbkit that each may import, itself aside. One direction: producers write records, evidence
# judges them, figures draw them.
BOTTOM = {"checks", "schemes", "way", "designs", "records", "conv", "tables"}
MAY_IMPORT = {
    "__init__": set(),
    "checks": set(),
    "schemes": set(),
    "cpu": set(),
    "tables": set(),
    "designs": set(),
    "way": {"checks", "schemes"},
    "records": {"checks", "_kernels"},  # the extension, to ask how it was compiled
    "conv": {"checks", "records"},
    "quantizers": {"checks", "conv", "schemes", "way"},
    "models": {"checks", "conv", "quantizers", "way"},
    "data": {"checks", "records"},
    "robustness": {"data"},
    "training": {"checks", "conv", "cpu", "data", "models", "quantizers", "records", "robustness", "way"},
    "encodings": {"checks", "conv", "way"},
    "repetition": {"checks", "conv", "encodings", "schemes"},
    "integers": {"checks", "conv", "encodings", "way", "_kernels"},
    "kernels": {"checks", "conv", "encodings", "integers", "way", "_kernels"},
    "inference": {"checks", "conv", "encodings", "integers", "kernels", "models", "quantizers", "records", "way"},
    "bench": BOTTOM
    | {"cpu", "data", "inference", "integers", "kernels", "models", "quantizers", "repetition", "training"},
    "energy": {"checks", "conv", "schemes"},
    "evidence": BOTTOM | {"energy", "repetition"},
    "figures": BOTTOM | {"energy", "evidence"},
    "notebook": {"checks", "designs", "records", "tables"},
    "page": {"checks", "notebook", "records", "tables"},
    "__main__": {"bench", "checks", "data", "inference", "notebook", "page", "training"},
}
TORCH_SIDE = {"cpu", "quantizers", "models", "data", "robustness", "training", "inference", "bench", "__main__"}


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


def unit(path):
    """The module or package of sbkit that a file belongs to."""
    return path.relative_to(ROOT / "sbkit").parts[0].removesuffix(".py")


def own_imports(source):
    """Names of the modules and packages of sbkit that the source imports."""
    return {name.split(".")[1] for name in imported_names(source) if name.startswith("sbkit.")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "sbkit")))
def test_import_graph(path):
    source, own = path.read_text(), unit(path)
    assert own in MAY_IMPORT, f"add {own} to the import graph"
    assert own_imports(source) - {own} <= MAY_IMPORT[own]
    if own not in TORCH_SIDE | {"kernels", "integers"}:
        assert not {name for name in imported_names(source) if re.match(r"torch(vision)?(\.|$)", name)}


def test_import_graph_is_as_strict_as_the_code():
    """An allowance that nothing uses would let a wrong import pass."""
    used = {own: set() for own in MAY_IMPORT}
    for path in SOURCES:
        used[unit(path)] |= own_imports(path.read_text()) - {unit(path)}
    spare = {own: allowed - used[own] - BOTTOM for own, allowed in MAY_IMPORT.items()}
    assert {own: names for own, names in spare.items() if names} == {}


def test_figures_import_none_of_each_other():
    for path in (path for path in SOURCES if unit(path) == "figures" and path.stem not in ("style", "layout")):
        own = {name.split(".")[2] for name in imported_names(path.read_text()) if name.startswith("sbkit.figures.")}
        assert own <= {"style", "layout"}, path.name


def test_files_and_functions_are_short():
    long = {}
    for path in SOURCES:
        source = path.read_text()
        if (lines := len(source.splitlines())) > 400:
            long[path.name] = lines
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > 60:
                long[f"{path.name}:{node.name}"] = lines
    assert long == {}


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
    readers = [
        path for path in SOURCES if unit(path) not in TORCH_SIDE | {"kernels", "integers"} and path.stem != "__main__"
    ]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in readers]
    modules = ", ".join(".".join(names).removesuffix(".__init__") for names in parts)
    program = f"{WITHOUT}\nimport papermill\nimport {modules}\nprint('loaded')"  # the engine wants papermill first
    assert python(program)[-1] == "loaded"
    with pytest.raises(AssertionError, match="ModuleNotFoundError: torch"):
        python(f"{WITHOUT}\nimport sbkit.quantizers")


def test_only_bindings_include_pybind11_and_only_isa_files_include_intrinsics():
    sources = [path for path in (ROOT / "csrc").iterdir() if path.suffix in {".cpp", ".h", ".hpp"}]
    assert sources
    for path in sources:
        includes = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(), re.MULTILINE)
        if not path.name.startswith("bindings"):
            assert not [name for name in includes if "pybind11" in name or name == "Python.h"], path.name
        if not re.fullmatch(r"(kernels|integer|outer)_\w*(avx2|avx512|neon|scalar)\.cpp", path.name):
            assert not [name for name in includes if re.search(r"intrin\.h|arm_neon|arm_sve", name)], path.name


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
    run = bounds(project["dependencies"])
    test = bounds(project["optional-dependencies"]["test"])
    declared = run | test | {"python": project["requires-python"].removeprefix(">=")}
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


def test_the_build_is_pinned_as_the_rest(pyproject, pins):
    """Outside the Makefile too, which gives the constraints to pip's build environment."""
    build = dict(line.split("==") for line in pyproject["build-system"]["requires"])
    assert build == {name: pins[name] for name in build} and {"cmake", "ninja"} <= pins.keys()


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
    assert points == {"sbkit": "sbkit.notebook.engine:Engine"}


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
