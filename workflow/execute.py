"""`python workflow/execute.py IN.ipynb OUT.ipynb -p NAME VALUE …`: papermill's command line with the sbkit engine.

Two things set it apart from `papermill --engine sbkit`. The engine is found wherever sbkit can be imported, installed
or not: redrawing figures needs no compiler. And a job ends when the process that started it does, so that a batch
killed by force leaves no notebook writing beside those of the next batch.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time

import psutil

# Importing papermill imports jsonschema, which would spend most of that time on the grammar of a URI format, which
# notebooks do not use, if this package is there.
sys.modules.setdefault("rfc3987_syntax", None)

from papermill.cli import papermill  # noqa: E402
from papermill.engines import papermill_engines  # noqa: E402

from sbkit.notebook.engine import Engine  # noqa: E402


def clean_up() -> None:
    """End the kernel, then remove the folder of its sockets: a kernel that lives could still put a file there."""
    kernels = psutil.Process().children(recursive=True)  # one that has just started does not watch papermill
    for kernel in kernels:
        with contextlib.suppress(psutil.NoSuchProcess):
            kernel.kill()
    psutil.wait_procs(kernels, timeout=10)
    if Engine.folder:
        shutil.rmtree(Engine.folder, ignore_errors=True)


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    clean_up()
    os._exit(1)


def terminate(*_) -> None:
    """Leave by way of `finally`, once: whoever ends a batch may send the signal twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    papermill_engines.register("sbkit", Engine)
    # A kernel that starts from a cold or shared disk can need more than papermill's 60 seconds.
    try:
        papermill(default_map={"engine": "sbkit", "progress_bar": False, "log_level": "WARNING", "start_timeout": 600})
    finally:
        clean_up()
