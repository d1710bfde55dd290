"""`python lock.py FILE COMMAND …`: run the command alone among all that name the same lock file; wait while one runs.

The lock belongs to the process, so no kill leaves a stale one behind. Runs before any environment exists, on any
Python 3 of a POSIX system.
"""

import fcntl
import os
import sys

file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another make works in this folder: waiting", file=sys.stderr)
    fcntl.flock(file, fcntl.LOCK_EX)
os.set_inheritable(file, True)  # the command holds the lock for as long as it lives
os.execvp(sys.argv[2], sys.argv[2:])
