"""`python workflow/execute.py IN.ipynb OUT.ipynb -p NAME VALUE …`: papermill's command line with the sbkit engine.

Two things set it apart from `papermill --engine sbkit`. The engine is found wherever sbkit can be imported, installed
or not: redrawing figures needs no compiler. And a job ends when the process that started it does, so that a batch
killed by force leaves no notebook writing beside those of the next batch.
"""

import os
import threading
import time

from papermill.cli import papermill
from papermill.engines import papermill_engines

from sbkit.papermill_engine import Engine


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # the kernel in turn ends when papermill does


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    papermill_engines.register("sbkit", Engine)
    papermill(default_map={"engine": "sbkit", "progress_bar": False, "log_level": "WARNING"})
