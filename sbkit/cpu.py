"""What torch can do on this CPU, found out by trying where it cannot be asked."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys

import torch

_BF16_TRIAL = "import torch; x = torch.ones(64, 64, dtype=torch.bfloat16); x @ x"


def has_bf16() -> bool:
    """Whether torch has convolutions in bf16 for this CPU; without them it falls back to ones that take forever."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@functools.cache
def bf16_trouble() -> str:
    """Why networks should not compute in bf16 on this CPU; empty where they may. The first call takes a second."""
    if not has_bf16():
        return "torch has no convolutions in it for this CPU"
    return death_in_trial(_BF16_TRIAL)


def death_in_trial(program: str, *arguments: str | os.PathLike) -> str:
    """What a Python program dies of in a process of its own, a signal or an error; empty where it ends well.

    A virtual machine may announce AMX and hide the sizes of its tiles (CPUID leaf 1Dh). oneDNN then computes without
    AMX where it asks for them, and stops the process where it does not.
    """
    trial = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    if trial.returncode >= 0:
        last = trial.stderr.strip().rpartition("\n")[2]
        return f"failed in a trial: {last}" if trial.returncode else ""
    name = signal.Signals(-trial.returncode).name
    return f"died of {name} in a trial; ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 avoids the AMX unit"
