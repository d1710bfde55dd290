"""What every contender of a study computes: a layer, a network or a step of training, with all its contenders.

Each function takes a configuration, the floats that a vector holds (`lanes`), and a list to which it adds what cannot
run on this machine, and why. It raises AssertionError if a contender computes anything else than the reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from sbkit import inference, kernels
from sbkit.bench.codes import random_codes
from sbkit.bench.config import NETWORKS, BenchConfig
from sbkit.bench.contender import Contender, Subject, Work, skip
from sbkit.bench.contenders import libraries, ours
from sbkit.bench.studies import STUDIES
from sbkit.conv import ConvShape
from sbkit.cpu import bf16_trouble
from sbkit.designs import DESIGNS
from sbkit.models import build_model, conv_shapes, parameter_counts
from sbkit.quantizers import QuantizerConfig
from sbkit.way import Way


def layers(config: BenchConfig, lanes: int, skipped: list[str]) -> Iterator[Subject]:
    """Single layers of a network."""
    for shape in NETWORKS[config.shapes].layers[STUDIES[config.study].layers]:
        yield _layer(config, shape.with_batch(config.batch), lanes, skipped)


def _layer(config: BenchConfig, shape: ConvShape, lanes: int, skipped: list[str]) -> Subject:
    study = STUDIES[config.study]
    generator = np.random.default_rng(config.seed)
    # Activations are small integers: every order of summation gives the same floats.
    x = generator.integers(-4, 5, (shape.N, shape.C, shape.H, shape.W)).astype(np.float32)
    binary = random_codes(config, shape, Way("dense", "binary"))  # to a library all weights are alike
    y = kernels.conv2d(kernels.prepare("dense", binary, shape), x)
    module = _convolution(shape, binary.dense())
    contenders = []
    for threads in (1, config.threads) if study.beside_one_thread else (config.threads,):
        work = Work(module, torch.from_numpy(x), y, shape.weights, threads)
        contenders += libraries(work, study.libraries(config.peers), skipped)
        contenders += ours.on_layer(config, shape, x, threads, lanes)
    dense = shape.macs // shape.N
    columns = {
        **{"layer": f"{shape.C}→{shape.K} @{shape.H}", "C": shape.C, "H": shape.H, "W": shape.W, "K": shape.K},
        **{"batch": shape.N, "weight_bytes": 4 * shape.weights, "adds": dense, "multiplies": dense},
    }
    return Subject(columns, shape.macs, contenders)


def _convolution(shape: ConvShape, weight: np.ndarray) -> nn.Conv2d:
    window = shape.R, shape.S
    module = nn.utils.skip_init(nn.Conv2d, shape.C, shape.K, window, shape.stride, shape.padding, bias=False)
    module.requires_grad_(False).weight.copy_(torch.from_numpy(weight))
    return module.eval()


def network(config: BenchConfig, lanes: int, skipped: list[str]) -> Iterator[Subject]:
    """A whole network, its batch norms folded, on random images; the right logits are those of `inference.fold`."""
    name, size, options, _ = NETWORKS[config.shapes]
    full = QuantizerConfig("full_precision")
    model = build_model(name, quantizer=full, seed=config.seed, image_size=size, **options)
    shapes = conv_shapes(model, 3, size)
    generator = np.random.default_rng(config.seed)
    x = torch.from_numpy(generator.standard_normal((config.batch, 3, size, size), dtype=np.float32))
    folded = inference.fold(model)
    y, macs = _counted(folded, x)
    weights, dense = sum(shape.weights for shape in shapes), sum(shape.macs for shape in shapes)
    work = Work(folded, x, y.numpy(), weights, config.threads)
    contenders = [
        *libraries(work, STUDIES[config.study].libraries(config.peers), skipped),
        *ours.on_network(config, model, shapes, x),
    ]
    columns = {
        **{"layer": "network", "model": name, "C": 3, "H": size, "W": size, "K": y.shape[1], "batch": config.batch},
        **{"weight_bytes": 4 * weights, "adds": dense, "multiplies": dense},
    }
    yield Subject(columns, macs, contenders)


def _counted(folded: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """The logits, and the multiply-accumulates of all convolutions and linear layers."""
    macs = []

    def note(layer, _, y):
        macs.append(y.numel() * layer.weight[0].numel())

    counted = [module for module in folded.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(note) for module in counted]
    y = folded(x)
    for hook in hooks:
        hook.remove()
    return y, sum(macs)


def training(config: BenchConfig, lanes: int, skipped: list[str]) -> Iterator[Subject]:
    """A step of Adam on one batch of random images, in fp32 and, by autocast, in bf16 where the CPU can."""
    name, size, options, _ = NETWORKS[config.shapes]
    generator = torch.Generator().manual_seed(config.seed)
    x = torch.randn(config.batch, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (config.batch,), generator=generator)

    def contender(way: Way) -> Contender:
        quantizer = QuantizerConfig(**DESIGNS[way.variant].options)
        model = build_model(name, quantizer=quantizer, seed=config.seed, image_size=size, **options)
        model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        call = functools.partial(_step, model, optimizer, x, y, way.precision == "bf16")
        return Contender(way, call, config.threads, {})

    model = build_model(name, quantizer=QuantizerConfig("full_precision"), image_size=size, **options)
    dense = sum(shape.macs for shape in conv_shapes(model, 3, size))
    columns = {
        **{"layer": "training step", "model": name, "C": 3, "H": size, "W": size, "K": options.get("classes", 10)},
        **{"batch": config.batch, "weight_bytes": 4 * parameter_counts(model)["quantized"]},
        **{"adds": dense, "multiplies": dense},
    }
    if trouble := bf16_trouble():
        skip(f"torch bf16: {trouble}", skipped)
    ways = [way for way in STUDIES[config.study].ways if not (trouble and way.precision == "bf16")]
    yield Subject(columns, 3 * dense * config.batch, [contender(way) for way in ways])


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, bf16: bool) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(x)
        loss = nn.functional.cross_entropy(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


SUBJECTS: dict[str, Callable[[BenchConfig, int, list[str]], Iterator[Subject]]] = {
    "layer": layers,
    "network": network,
    "training": training,
}
"""By `Study.subject`; the subject "operations" is not among them, as nothing is timed there."""
