"""What a person sees of a run: a bar that moves with every step, or a line after every epoch."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

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


class Progress:
    """Shows the steps of a run, of which `done` epochs lie behind. `kind` is "bar", "lines" or "none"."""

    def __init__(self, kind: str, *, epochs: int, steps: int, done: int):
        self.kind, self.epochs, self.bar = kind, epochs, None
        if kind == "bar":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # without ipywidgets, tqdm draws the bar as text, and warns of it
                from tqdm.auto import tqdm

            self.bar = tqdm(total=epochs * steps, initial=done * steps, unit="step")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def step(self, epoch: int) -> None:
        """One more step, in epoch 1, 2, ..."""
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.update()

    def epoch(self, row: dict[str, Any]) -> None:
        """One more epoch, as the history of a run holds it."""
        figures = f"loss {row['train_loss']:.4f}  top-1 {row['top1_percent']:.2f} %  density {row['density']:.3f}"
        if self.bar is not None:
            self.bar.set_postfix_str(figures)
        elif self.kind == "lines":
            print(f"epoch {row['epoch']}/{self.epochs}  {figures}  {row['seconds']:.1f} s", flush=True)


class Interrupted(KeyboardInterrupt):
    """A run that a person stopped. Its message says how far it came; a notebook shows that line and no traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]
