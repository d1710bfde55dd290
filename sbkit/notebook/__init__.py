"""What every notebook begins with: strict parameters, seeds, threads, folders, and one way to show and save results.

    parameters   what a parameters cell may hold, and how a wrong value is refused
    run          `start(globals())` and the `Run` that it returns
    render       figures and tables as the bytes of files and as HTML
    experiments  the runs that notebooks/experiments.toml lists
    catalogue    the figures and tables that notebooks/catalogue.toml lists
    engine       `papermill --engine sbkit`

Importing this package imports nothing heavy: the workflow calls `expand` at every start.
"""

from sbkit.notebook.catalogue import FORMATS, READS, drawn, load_catalogue
from sbkit.notebook.experiments import CHECKPOINTS, NOTEBOOKS, expand, find_root, load_experiments
from sbkit.notebook.run import Run, start

__all__ = [
    "CHECKPOINTS", "FORMATS", "NOTEBOOKS", "READS", "Run", "drawn", "expand", "find_root", "load_catalogue",
    "load_experiments", "start",
]  # fmt: skip
