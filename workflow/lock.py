"""One lock for all that changes this folder: whoever finds it held waits.

`python lock.py FILE COMMAND …` runs a command under it; the Snakefile calls `hold`. The lock belongs to the process, so
no kill leaves a stale one behind. Runs before any environment exists, on any Python 3 of a POSIX system.
"""

import errno
import fcntl
import os
import sys


def hold(path: str) -> int:
    """Take the lock for as long as the returned file descriptor is open; where there are no locks, say so and go on."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another make or snakemake works in this folder: waiting", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        print(
            f"no locks on this file system ({error.strerror}): see to it that nothing else works in this folder",
            file=sys.stderr,
        )
    return file


if __name__ == "__main__":
    os.set_inheritable(hold(sys.argv[1]), True)  # the command holds the lock for as long as it lives
    os.execvp(sys.argv[2], sys.argv[2:])
