"""`papermill --engine sbkit` on small notebooks: what it refuses, what it leaves behind, how it talks to the kernel."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill  # noqa: F401  before the engine, which papermill loads through its entry point
import pytest

from sbkit.notebook import engine
from sbkit.notebook.engine import check_parameters
from sbkit.notebook.parameters import ParameterError

PARAMETERS = (
    'epochs: int = 2  # passes\nrate: float = 1.0  # peak\nname: str = "run"  # stem\nflip: bool = False  # augment'
)

WORK = """
import json, os, pathlib
from ipykernel.connect import get_connection_file
if name == "kill":
    os.kill(os.getpid(), 9)
if name == "raise":
    raise RuntimeError("no luck")
if name == "refuse":
    from sbkit.notebook.parameters import ParameterError
    raise ParameterError("name = 'refuse'; allowed: another")
connection = json.loads(pathlib.Path(get_connection_file()).read_text())
values = [epochs, rate, name, flip, os.environ["SBKIT_BATCH"]]
pathlib.Path("done.json").write_text(json.dumps([values, connection["transport"], connection["ip"]]))
"""


def new_notebook(*sources, passed=None):
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec, "papermill": {"parameters": passed or {}}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


@pytest.fixture
def folder(tmp_path):
    nbformat.write(new_notebook(PARAMETERS, WORK, "'after'"), tmp_path / "in.ipynb")
    return tmp_path


def run_papermill(folder, *options):
    """`workflow/execute.py in.ipynb out.ipynb ...`, papermill's command line with the engine."""
    program = Path(engine.__file__).parents[2] / "workflow" / "execute.py"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder / "t")}
    (folder / "t").mkdir()
    command = [sys.executable, program, "in.ipynb", "out.ipynb", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert list((folder / "t").glob("sbkit-*")) == []
    (folder / "t").rmdir()
    return done


def marks(folder):
    """papermill's mark of the executed notebook, and of each of its code cells (status, exception)."""
    notebook = nbformat.read(folder / "out.ipynb", as_version=4)
    cells = [cell.metadata.papermill for cell in notebook.cells if cell.cell_type == "code"]
    return notebook.metadata.papermill["exception"], [(cell["status"], cell["exception"]) for cell in cells]


def test_good_run_is_marked_and_uses_sockets(folder):
    done = run_papermill(folder, "-p", "epochs", "3", "-p", "rate", "2", "-p", "flip", "True", "-r", "name", "007")
    assert done.returncode == 0, done.stderr
    values, transport, address = json.loads((folder / "done.json").read_text())
    assert values == [3, 2, "007", True, "1"]
    assert marks(folder) == (False, [("completed", False)] * 4)
    if sys.platform != "win32":
        short = len(str(folder / "t")) < 84  # a socket's path is
        assert transport == "ipc"
        assert Path(address).parents[1] == (folder / "t" if short else Path("/tmp"))


def test_bad_parameter_stops_with_one_line_before_anything_is_written(folder):
    done = run_papermill(folder, "-p", "epochs", "abc")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: epochs = 'abc' is of type str; allowed: int"
    assert "Traceback" not in done.stderr
    assert [file.name for file in folder.iterdir()] == ["in.ipynb"]


def test_parameter_that_the_notebook_refuses_is_one_line_too(folder):
    done = run_papermill(folder, "-p", "name", "refuse")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: name = 'refuse'; allowed: another"
    assert "Traceback" not in done.stderr
    completed = ("completed", False)
    assert marks(folder) == (True, [completed, completed, ("failed", True), ("pending", None)])
    (output,) = nbformat.read(folder / "out.ipynb", as_version=4).cells[2].outputs
    assert output.traceback == ["ParameterError: name = 'refuse'; allowed: another"]


def test_killed_kernel_is_marked(folder):
    """papermill alone leaves `exception: null` and the killed cell "completed"."""
    done = run_papermill(folder, "-p", "name", "kill")
    assert done.returncode == 138
    completed = ("completed", False)
    assert marks(folder) == (True, [completed, completed, ("failed", True), ("pending", None)])
    outputs = nbformat.read(folder / "out.ipynb", as_version=4).cells[2].outputs
    assert [output.get("ename") for output in outputs] == ["DeadKernelError"]
    assert not (folder / "done.json").exists()


def test_output_is_written_seldom(monkeypatch):
    clock, saved = [0.0], []
    monkeypatch.setattr(engine.time, "monotonic", lambda: clock[0])
    save = engine._seldom(lambda: saved.append(clock[0]), seconds=2)
    for clock[0] in (0.5, 1.9, 2.1, 3.0, 4.0, 4.2, 60.0):
        save()
    assert saved == [2.1, 4.2, 60.0]


@pytest.mark.parametrize(
    "passed, message",
    [
        ({"epochs": 2.0}, "epochs = 2.0 is of type float; allowed: int"),
        ({"rate": float("inf")}, "rate = inf; allowed: a finite number"),
        ({"name": 7}, r"name = 7 is of type int; allowed: str \(papermill -r NAME VALUE"),
        ({"epochs": [1]}, r"epochs = \[1\] is of type list; allowed: int"),
        ({"Epochs": 1}, r"unknown parameter Epochs \(did you mean epochs\?\)"),
    ],
)
def test_check_parameters(passed, message):
    for good in ({}, {"epochs": 1, "rate": 2, "name": "", "flip": True}):
        check_parameters(new_notebook(PARAMETERS, passed=good))
    with pytest.raises(ParameterError, match=message):
        check_parameters(new_notebook(PARAMETERS, passed=passed))


def test_notebook_without_parameters_takes_none():
    notebook = new_notebook("1")
    notebook.cells[0].metadata.tags = []
    check_parameters(notebook)
    notebook.metadata.papermill.parameters = {"epochs": 1}
    with pytest.raises(ParameterError, match="unknown parameter epochs; allowed: none"):
        check_parameters(notebook)


def test_parameters_cell_out_of_form_is_refused():
    with pytest.raises(ParameterError, match="holds `epochs = 3`; allowed: one `name: type = literal` a line"):
        check_parameters(new_notebook("epochs = 3"))
