"""Benchmarks that ask for instructions which this machine cannot use, such as AVX-512 on most laptops, are left out.

The process that starts a batch decides, says so, and hands its decision down in LEFT_OUT, since the jobs of a cluster
may run on other CPUs than the node that they are sent from. Who sets that variable, as to nothing, decides alone.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from sbkit.checks import choice

LEFT_OUT = "SBKIT_LEFT_OUT"
"""The environment variable: names of benchmarks, separated by spaces."""


def left_out(benchmarks: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of those of a profile's benchmarks, as `expand` has them, that are left out; printed once a batch.

    An `isa` that no machine has is not left out: the benchmark itself refuses it, and names those that there are.
    Raises ValueError for a name in LEFT_OUT that is none of these benchmarks.
    """
    isas = {run["name"]: run["parameters"].get("isa", "auto") for run in benchmarks}
    if LEFT_OUT not in os.environ:
        asked = {name: isa for name, isa in isas.items() if isa != "auto"}
        os.environ[LEFT_OUT] = " ".join(_unusable(asked)) if asked else ""
    names = os.environ[LEFT_OUT].split()
    for name in names:
        choice(f"a word of {LEFT_OUT}", name, isas)
    return names


def _unusable(asked: Mapping[str, Any]) -> list[str]:
    from sbkit import kernels  # imports torch, which takes seconds: only where a benchmark asks

    unusable = [isa for isa in kernels.ISAS if isa not in kernels.isas(activation_bits=8)]
    for isa in unusable:
        if names := [name for name in asked if asked[name] == isa]:
            print(f"left out, as {isa} is not usable here: {', '.join(names)}", file=sys.stderr)
    return [name for name in asked if asked[name] in unusable]
