"""What every contender of a study computes: a layer, a network or a step of training, with all its contenders.

Each function takes a configuration, and a list to which it adds what cannot run on this machine, and why. It raises
AssertionError if a contender computes anything else than the reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sbkit import inference
from sbkit.bench import libraries, ours
from sbkit.bench.codes import codes
from sbkit.bench.config import NETWORKS, BenchConfig
from sbkit.bench.contender import Contender, Subject, Work, dense, layer, skip
from sbkit.bench.studies import STUDIES
from sbkit.bench.trained import trained
from sbkit.conv import ConvShape
from sbkit.cpu import bf16_trouble
from sbkit.designs import DESIGNS
from sbkit.models import conv_shapes
from sbkit.quantizers import QuantizerConfig
from sbkit.way import Way


def layers(config: BenchConfig, skipped: list[str]) -> Iterator[Subject]:
    """Single layers of a network."""
    study = STUDIES[config.study]
    for shape in NETWORKS[config.shapes].layers[study.layers]:
        shape = shape.with_batch(config.batch)
        generator = np.random.default_rng(config.seed)
        # Activations are small integers: every order of summation gives the same floats.
        x = generator.integers(-4, 5, (shape.N, shape.C, shape.H, shape.W)).astype(np.float32)
        binary = ours.random_codes(config, shape, Way("dense", "binary"))  # to a library all weights are alike
        y = ours.exact_sums(binary, shape, x)
        work = Work(convolution(shape, binary.dense()), torch.from_numpy(x), y, shape.weights, config.threads)
        contenders = [
            *libraries.contenders(work, study.libraries(config.peers), skipped),
            *ours.on_layer(config, shape, x),
        ]
        yield layer(shape, contenders)


def integers(config: BenchConfig, skipped: list[str]) -> Iterator[Subject]:
    """Single layers of a network on unsigned 8-bit integers; whatever computes in floats gets the same values."""
    study = STUDIES[config.study]
    ways = study.libraries(config.peers)
    for shape in NETWORKS[config.shapes].layers[study.layers]:
        shape = shape.with_batch(config.batch)
        x = np.random.default_rng(config.seed).integers(0, 256, (shape.N, shape.C, shape.H, shape.W), np.uint8)
        binary = ours.random_codes(config, shape, Way("dense", "binary"))  # to a library all weights are alike
        sums = ours.exact_sums(binary, shape, x).astype(np.int32)
        rounding = ours.rounding_of(sums, 8)
        module, floats = convolution(shape, binary.dense()), x.astype(np.float32)
        size = shape.weights, config.threads
        of_floats = Work(module, torch.from_numpy(floats), sums.astype(np.float32), *size)
        of_integers = Work(module, torch.from_numpy(x), rounding.apply(sums), *size, 1 / float(rounding.scale[0]))
        contenders = []
        for work, precision in ((of_floats, "fp32"), (of_integers, "int8")):
            contenders += libraries.contenders(work, [way for way in ways if way.precision == precision], skipped)
        contenders += ours.on_layer(config, shape, floats)
        yield layer(shape, contenders)


def convolution(shape: ConvShape, weight: np.ndarray) -> nn.Conv2d:
    """A torch layer with this weight (K, C, R, S), without gradients."""
    window = shape.R, shape.S
    module = nn.utils.skip_init(nn.Conv2d, shape.C, shape.K, window, shape.stride, shape.padding, bias=False)
    module.requires_grad_(False).weight.copy_(torch.from_numpy(weight))
    return module.eval()


def network(config: BenchConfig, skipped: list[str]) -> Iterator[Subject]:
    """A whole network, its batch norms folded, on random images; the right logits are those of `inference.fold`.

    Libraries run it in full precision or in 8-bit integers, our kernels on codes of their own.
    """
    model, shapes, columns = _network(config)
    image = (config.batch, 3, columns["H"], columns["W"])
    x = torch.from_numpy(np.random.default_rng(config.seed).standard_normal(image, dtype=np.float32))
    ours.fit(model, x)
    folded = inference.fold(model)
    with FlopCounterMode(display=False) as flops:
        y = folded(x).numpy()
    work = Work(folded, x, y, sum(shape.weights for shape in shapes), config.threads)
    contenders = [
        *libraries.contenders(work, STUDIES[config.study].libraries(config.peers), skipped),
        *ours.on_network(config, shapes, x),
    ]
    yield Subject({"layer": "network"} | columns, flops.get_total_flops() // 2, contenders)


def _network(config: BenchConfig, design: str = "full_precision") -> tuple[nn.Module, list[ConvShape], dict[str, Any]]:
    """A network of a design, the shapes of its quantized layers, and the columns of its rows."""
    name, size, options, _ = NETWORKS[config.shapes]
    model = ours.build(config, quantizer=QuantizerConfig(**DESIGNS[design].options))
    shapes = conv_shapes(model, 3, size)
    columns = {"model": name, "C": 3, "H": size, "W": size, "K": options.get("classes", 10)}
    return model, shapes, columns | dense(shapes, config.batch)


def training(config: BenchConfig, skipped: list[str]) -> Iterator[Subject]:
    """A step of Adam on one batch of random images, in fp32 and, by autocast, in bf16 where the CPU can."""
    size = NETWORKS[config.shapes].image_size
    generator = torch.Generator().manual_seed(config.seed)
    x = torch.randn(config.batch, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (config.batch,), generator=generator)

    def contender(way: Way) -> Contender:
        model = _network(config, way.variant)[0].to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        call = functools.partial(_step, model, optimizer, x, y, way.precision == "bf16")
        return Contender(way, call, {})

    if trouble := bf16_trouble():
        skip(f"torch bf16: {trouble}", skipped)
    ways = [way for way in STUDIES[config.study].ways if not (trouble and way.precision == "bf16")]
    columns = {"layer": "training step"} | _network(config)[2]
    yield Subject(columns, 3 * columns["adds"] * config.batch, [contender(way) for way in ways])


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, bf16: bool) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(x)
        loss = nn.functional.cross_entropy(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


SUBJECTS: dict[str, Callable[[BenchConfig, list[str]], Iterator[Subject]]] = {
    "layer": layers,
    "integers": integers,
    "codes": codes,
    "network": network,
    "trained": trained,
    "training": training,
}
"""By `Study.subject`; the subject "operations" is not among them, as nothing is timed there."""
