"""What a person sees of a run: a bar that moves with every step, or a line after every epoch."""

from __future__ import annotations

import os
import sys
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without ipywidgets, tqdm draws the bar as text, and warns of it
    from tqdm.auto import tqdm

PROGRESS = ("auto", "bar", "lines", "none")


def chosen(progress: str) -> str:
    """What "auto" means here: a bar on a terminal and in a notebook that a person runs, else lines.

    In a notebook that a batch runs, SBKIT_BATCH is set; its output is kept, and a bar would fill it.
    """
    if progress != "auto":
        return progress
    if os.environ.get("SBKIT_BATCH"):
        return "lines"
    return "bar" if _in_kernel() or sys.stderr.isatty() else "lines"


def _in_kernel() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def bar(shown: str, *, epochs: int, steps: int, done: int) -> tqdm:
    """The bar of a run, of which `done` epochs lie behind; it shows nothing unless `shown` is "bar"."""
    return tqdm(total=epochs * steps, initial=done * steps, unit="step", disable=shown != "bar")


class Interrupted(KeyboardInterrupt):
    """A run that a person stopped. Its message says how far it came; a notebook shows that line and no traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]
