"""The statistics of batch norms, taken anew in the arithmetic in which a network is tested."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from sbkit.training.processes import share_buffers
from sbkit.training.setup import Setup, layout

BATCHES = 100


@torch.no_grad()
def take_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let every batch norm have the mean statistics of what these batches make of its input, in training mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    model.train()
    for x in batches:
        model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def settle_norms(setup: Setup) -> None:
    """Take the statistics of up to BATCHES batches, the first of the run, in float32.

    Training leaves statistics of what bf16 computes. Integer activations are tested in float32, where a channel of
    small variance can have another mean: 16 masks in ResNet-20 lost 2 points on CIFAR-10 so.
    """
    first = islice(setup.batches(torch.Generator().manual_seed(setup.config.seed)), BATCHES)
    take_statistics(setup.model, (layout(x, setup.config) for x, _ in first))
    share_buffers(setup.model)
