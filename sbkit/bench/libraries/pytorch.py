"""torch: contiguous or channels_last activations, in float32 or bf16, and a frozen network."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sbkit.bench.contender import Unusable, Work
from sbkit.cpu import bf16_trouble
from sbkit.way import Way


def load(work: Work, way: Way) -> Callable[[], Tensor]:
    """Activations and weights have the way's layout and precision before and after, as inside a network.

    Raises Unusable for bf16 where torch cannot compute in it.
    """
    if way.precision == "bf16" and (trouble := bf16_trouble()):
        raise Unusable(trouble)
    if way.variant == "frozen":
        return functools.partial(_frozen(work), work.x)
    dtype = torch.bfloat16 if way.precision == "bf16" else torch.float32
    layout = torch.channels_last if way.variant == "channels_last" else torch.contiguous_format
    module = copy.deepcopy(work.module).to(dtype, memory_format=layout)
    x = work.x.to(dtype).contiguous(memory_format=layout)
    if isinstance(module, nn.Conv2d):  # a single layer, without the time that a module takes to call its function
        weight = module.weight.detach()
        return functools.partial(nn.functional.conv2d, x, weight, stride=module.stride, padding=module.padding)
    return functools.partial(module, x)


def _frozen(work: Work) -> Callable[[Tensor], Tensor]:
    """The traced module, which torch has fused what it can of."""
    with warnings.catch_warnings(), torch.inference_mode():
        # torch.compile, its successor, needs a compiler at run time.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(work.module, work.x, check_trace=False)
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))
