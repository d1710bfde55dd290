"""A task in a copy of this process: tests kill it, or run two at once, without another import of torch."""

import os
import traceback
import warnings


def forked(task):
    """Start the task; returns a function that waits for its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which do not come along
        child = os.fork()
    if not child:
        try:
            task()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
