"""`papermill --engine sbkit`: refuses wrong parameters before anything is written, and talks to the kernel by sockets.

papermill itself only warns of an unknown parameter, checks no type, draws free TCP ports that two notebooks starting
together can both draw, and leaves no mark in the executed notebook when the kernel is killed.

papermill loads this module through its entry point; code that imports it directly imports papermill first.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from click import ClickException
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.engines import NBClientEngine
from papermill.utils import find_first_tagged_cell_index
from traitlets.config import Config

from sbkit.notebook.parameters import ParameterError, check, parse_parameters


class Refused(ClickException, ParameterError):
    """A ParameterError that papermill's command line prints as one line, `Error: ...`, and exits 1."""


def check_parameters(notebook: NotebookNode) -> None:
    """Raises Refused if a passed parameter is not what the notebook's parameters cell declares."""
    index = find_first_tagged_cell_index(notebook, "parameters")
    try:
        declared = parse_parameters(notebook.cells[index].source) if index >= 0 else {}
        check(declared, notebook.metadata.papermill.get("parameters", {}))
    except ParameterError as error:
        raise Refused(str(error)) from None


def _seldom(save: Callable[..., None], seconds: float = 2.0) -> Callable[..., None]:
    """`save`, skipped while the last call that was not is younger than this."""
    due = time.monotonic() + seconds

    def wrapped(**kwargs: Any) -> None:
        nonlocal due
        if time.monotonic() >= due:
            save(**kwargs)
            due = time.monotonic() + seconds

    return wrapped


class Engine(NBClientEngine):
    """papermill's own engine with strict parameters, IPC transport where the system has it, and a mark of death.

    papermill writes the whole notebook before and after each cell, which for short cells with large figures takes a
    tenth of the time: here at most every two seconds, and when the last cell has run.
    """

    folder: str | None = None
    """The folder of this process's sockets. Whoever ends the process at once removes it."""

    @classmethod
    def execute_notebook(cls, nb: NotebookNode, kernel_name: str, *args: Any, **kwargs: Any) -> NotebookNode:
        # The first write of the output happens inside the base class's method.
        check_parameters(nb)
        os.environ["SBKIT_BATCH"] = "1"  # the kernel inherits it: training then prints lines, not a bar
        return super().execute_notebook(nb, kernel_name, *args, **kwargs)

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name: str, **kwargs: Any) -> None:
        if sys.platform == "win32":
            return cls._execute(nb_man, kernel_name, **kwargs)
        # A socket's path is limited to 104 bytes on macOS, where $TMPDIR is long: then /tmp.
        short = len(os.fsencode(tempfile.gettempdir())) + len("/sbkit-12345678/k-5") < 104
        cls.folder = folder = tempfile.mkdtemp(prefix="sbkit-", dir=None if short else "/tmp")
        config = Config()
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = f"{folder}/k"
        config.KernelManager.connection_file = f"{folder}/kernel.json"  # a folder of Jupyter's may not be writable
        try:
            return cls._execute(nb_man, kernel_name, config=config, **kwargs)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    def _execute(cls, nb_man, kernel_name: str, **kwargs: Any) -> None:
        papermill = nb_man.nb.metadata.papermill
        nb_man.save = _seldom(nb_man.save)
        try:
            # All is written when the last cell has run. A kernel that is asked to end would be interrupted first, which
            # it at times reports as an error, and then spend time on taking apart what it imported.
            super().execute_managed_notebook(nb_man, kernel_name, shutdown_kernel="immediate", **kwargs)
        except BaseException as error:  # a killed kernel, a time-out, Ctrl-C: papermill would leave `exception` null
            papermill["exception"] = True
            begun = [cell for cell in nb_man.nb.cells if cell.metadata.papermill["start_time"]]
            for cell in begun[-1:]:
                nb_man.cell_exception(cell)
                cell.outputs.append(new_output("error", ename=type(error).__name__, evalue=str(error), traceback=[]))
            raise
        finally:
            del nb_man.save  # papermill's own, which ends by writing all
        papermill["exception"] = bool(papermill["exception"])
        for output in (output for cell in nb_man.nb.cells for output in cell.get("outputs", ())):
            if (
                output.output_type == "error" and output.ename == ParameterError.__name__
            ):  # a value that `start` refused
                raise Refused(output.evalue)
