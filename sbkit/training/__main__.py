"""`python -m sbkit.training`: one run from a shell, alone or, under torchrun, on several processes."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields

import torch
import torch.distributed as dist

from sbkit.quantizers import QuantizerConfig
from sbkit.training.config import TrainConfig
from sbkit.training.processes import device, group
from sbkit.training.progress import PROGRESS, Interrupted
from sbkit.training.run import run


def parser() -> argparse.ArgumentParser:
    """One option per field of the two configurations; names, types and defaults come from there."""
    parser = argparse.ArgumentParser(
        prog="python -m sbkit.training",
        description="Train one network and write its record.",
        epilog="example: python -m sbkit.training --quantizer signed_binary --folder results/trial",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for kind in (TrainConfig, QuantizerConfig):
        options = parser.add_argument_group(kind.__name__, kind.__doc__)
        for field in fields(kind):
            flag, value = f"--{field.name.replace('_', '-')}", field.default
            if isinstance(value, bool):
                options.add_argument(flag, default=value, action=argparse.BooleanOptionalAction, help=" ")
            else:
                options.add_argument(flag, default=value, type=type(value), help=" ")
    parser.add_argument("--folder", required=True, help="where records, weights and checkpoints go")
    parser.add_argument("--name", default="", help="name of the files; the record's id if empty")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads in each process")
    parser.add_argument("--progress", default="auto", choices=PROGRESS, help=" ")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = vars(parser().parse_args(arguments))
    processes = os.environ.get("WORLD_SIZE", "1")
    if not processes.isdecimal():
        sys.exit(f"error: WORLD_SIZE = {processes!r}; allowed: a whole number, as torchrun sets it")
    several = int(processes) > 1
    if several:
        here = device()
        if here.type == "cuda":
            torch.cuda.set_device(here)
        dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        configs = [kind(**{f.name: options[f.name] for f in fields(kind)}) for kind in (TrainConfig, QuantizerConfig)]
        rest = {key: options[key] for key in ("folder", "name", "threads", "progress")}
        record = run(*configs, **rest)
        top1, weights = record.metrics["top1_percent"], record.provenance["weights_sha256"]
        # One write, newline included: the processes share a pipe.
        print(f"rank {group()[0]}: top-1 {top1:.2f} %, weights {weights}\n", end="", flush=True)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(130)  # as shells have it for a process that Ctrl-C ended
    finally:
        if several:
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
