"""torch: contiguous or channels_last activations, in float32 or bf16, a frozen network, and its int8."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sbkit.bench.contender import Unusable, Work
from sbkit.cpu import bf16_trouble, death_in_trial
from sbkit.way import Way


def load(work: Work, way: Way) -> Callable[[], Tensor]:
    """Activations and weights have the way's layout and precision before and after, as inside a network.

    Raises Unusable for bf16 where torch cannot compute in it, for int8 where the variant, an engine, does not run.
    """
    if way.precision == "int8":
        if trouble := int8_trouble(way.variant):
            raise Unusable(trouble)
        quantized = convolution_of_integers if work.output_scale else _network_of_integers
        return quantized(work, way.variant)
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


def _network_of_integers(work: Work, engine: str) -> Callable[[], Tensor]:
    """With weights in 8 bits and a scale per filter, activations in 8 bits and the range that they have on x."""
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    before = torch.backends.quantized.engine
    try:
        torch.backends.quantized.engine = engine
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # its successor needs a compiler at run time
            mapping = get_default_qconfig_mapping(engine)
            observed = quantize_fx.prepare_fx(copy.deepcopy(work.module), mapping, (work.x,))
            observed(work.x)
            quantized = quantize_fx.convert_fx(observed)
    finally:
        torch.backends.quantized.engine = before
    return functools.partial(quantized, work.x.contiguous(memory_format=torch.channels_last))


_INT8_TRIAL = """
import sys, warnings, torch
from torch import nn
from sbkit.bench.contender import Work
from sbkit.bench.libraries import pytorch
warnings.simplefilter("ignore")
layer = nn.Conv2d(64, 64, 3, padding=1, bias=False).requires_grad_(False)
x = torch.zeros(1, 64, 8, 8, dtype=torch.uint8)
pytorch.convolution_of_integers(Work(layer, x, None, 0, 1, 1.0), sys.argv[1])()
"""


@functools.cache
def int8_trouble(engine: str) -> str:
    """Why torch cannot convolve integers by an engine here; empty where it can. The first call takes seconds."""
    if engine not in torch.backends.quantized.supported_engines:
        return f"torch was built without {engine}"
    return death_in_trial(_INT8_TRIAL, engine) if engine == "onednn" else ""  # FBGEMM has no use for AMX


def convolution_of_integers(work: Work, engine: str) -> Callable[[], Tensor]:
    """With weights packed by an engine, "onednn" or "fbgemm", and activations in channels_last."""
    module, before = work.module, torch.backends.quantized.engine
    scales, zeros = (torch.full((len(module.weight),), value, dtype=torch.double) for value in (1, 0))
    place = module.stride, module.padding, module.dilation, module.groups
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # their successors need a compiler at run time
        weight = torch.quantize_per_channel(module.weight, scales, zeros.long(), 0, torch.qint8)
        x = torch._make_per_tensor_quantized_tensor(work.x, 1.0, 0).contiguous(memory_format=torch.channels_last)
    try:
        torch.backends.quantized.engine = engine
        packed = torch.ops.quantized.conv2d_prepack(weight, None, *place)
    finally:
        torch.backends.quantized.engine = before
    return functools.partial(torch.ops.quantized.conv2d, x, packed, work.output_scale, 0)
