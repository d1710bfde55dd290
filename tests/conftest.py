"""Every test runs on one thread, draws to no screen and reaches no network."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# Set before torch or the kernels start a thread pool; the processes that tests start inherit all of it.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["MPLBACKEND"] = "agg"
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"  # the AMX unit stops the process in some virtual machines
for _variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ[_variable] = "http://127.0.0.1:9"  # the discard port: nobody answers
for _variable in [_name for _name in os.environ if _name.startswith("GIT_")]:
    del os.environ[_variable]  # a git hook that runs the tests means its own repository
os.environ.pop("FORCE_COLOR", None)  # Python >= 3.13 would colour the tracebacks that tests read
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "localhost,127.0.0.1,::1"


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tracked_files(tmp_path_factory):
    """Files that git has or would have, uncommitted ones included; of an unpacked archive and another's checkout too.

    An empty repository beside this folder calls all of them untracked, whatever git knows and thinks of `.git`.
    """
    repository = tmp_path_factory.mktemp("git")
    git = ["git", f"--git-dir={repository}/.git", f"--work-tree={ROOT}"]
    for command in (["git", "init", "--quiet", repository], [*git, "ls-files", "--others", "--exclude-standard", "-z"]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name]


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """A figure that a test drew goes with it."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A connection from a test to anything but this machine raises."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("localhost", "127.0.0.1", "::1"):
            raise OSError(f"a test reached for the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def committed():
    """`committed("review")` measures the committed records of a profile, each number once a session."""
    import functools

    from sbkit.evidence.gather import gather
    from sbkit.evidence.measures import Measurer

    return functools.cache(lambda profile: Measurer(gather(ROOT / "results" / "reference" / profile)))
