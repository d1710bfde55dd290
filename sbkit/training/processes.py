"""The processes that train one network together, and the device of each. One process is a group of its own."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def group() -> tuple[int, int]:
    """Rank and number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def device() -> torch.device:
    """A GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def add_up(*values: Tensor) -> None:
    """Replace each value by its sum over all processes."""
    if group()[1] > 1:
        for value in values:
            dist.all_reduce(value)


def share_buffers(model: nn.Module) -> None:
    """Give all processes the batch statistics of rank 0."""
    if group()[1] > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
