"""Trained networks, each with the accuracy that it has in the form in which it is timed.

The runs of a profile have left records and checkpoints. A network with integer activations runs on our kernels; one in
full precision is a rival, which each library runs in 8-bit integers, their ranges taken from training images. All run
on one image at a time, and classify the whole test set so before they are timed.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbkit import inference, records
from sbkit.bench import libraries, ours
from sbkit.bench.config import BenchConfig
from sbkit.bench.contender import Contender, Subject, Work, skip
from sbkit.bench.libraries import onnx_runtime
from sbkit.bench.studies import STUDIES
from sbkit.checks import choice
from sbkit.data import Dataset, batches
from sbkit.integers import ENCODINGS_OF
from sbkit.models import conv_shapes, quantized_weights
from sbkit.schemes import SCHEMES
from sbkit.training.config import TrainConfig
from sbkit.training.setup import Finished, finished, load_data
from sbkit.way import AUTO, FLOAT_BITS, Way

CALIBRATION = 500
"""Training images whose ranges the activations of a library's integers take."""


def trained(config: BenchConfig, skipped: list[str]) -> Iterator[Subject]:
    """All trained networks below `config.networks` as contenders of one subject. Their rows hold, beside other columns,

    run                 the id of the training record
    width               channels of the first stage, 0 for the architecture's own
    top1_percent        of the test set, as timed
    model_top1_percent  the same of the network that was trained, from its record
    file_bytes          of the network in one file, an .sbk of ours or an ONNX model

    Networks that are neither are skipped: weights in few bits with activations in floats, or the other way round.
    Raises ValueError for a folder without records, and for networks that take images of several shapes.
    """
    found = [(records.load(path), path) for path in sorted(Path(config.networks, "records", "train").glob("*.json"))]
    found.sort(key=lambda each: each[0].config.get("seed", 0))  # runs of one seed share their images
    if not found:
        raise ValueError(f"networks = {config.networks!r} holds no records/train; allowed: the folder of a profile")
    x, contenders = None, []
    for record, path in found:
        run = finished("networks", str(Path(config.networks, "checkpoints", f"{path.stem}.pt")), _images)
        coded = run.quantizer.quantizer != "full_precision"
        if coded != (run.config.activation_bits < FLOAT_BITS):
            skip(f"{path.stem}: neither all in integers nor all in floats", skipped)
            continue
        image = 1, *run.data.x_test.shape[1:]
        x = torch.zeros(image) if x is None else x
        choice(f"shape of an image of {path.stem}", image, [tuple(x.shape)])
        told = {"run": record.id, "width": run.config.width, "model_top1_percent": record.metrics["top1_percent"]}
        mine = _ours(config, run, x) if coded else _rivals(config, run, x, skipped)
        contenders += [_told(each, told, x, run.data) for each in mine]
        print(f"{path.stem}: model {told['model_top1_percent']:.2f} %", flush=True)
    columns = {"layer": "network", "model": run.config.model, "batch": 1, "weight_bytes": 0, "adds": 0, "multiplies": 0}
    yield Subject(columns | dict(zip("CHW", x.shape[1:], strict=True)) | {"K": len(run.data.classes)}, 0, contenders)


def _told(contender: Contender, told: dict[str, Any], x: Tensor, data: Dataset) -> Contender:
    """The contender with what is told of its run and the accuracy that it has on the test set, which goes through x."""
    return contender._replace(columns=contender.columns | told | {"top1_percent": top1(contender.call, x, data)})


def top1(call: Callable[[], Any], x: Tensor, data: Dataset) -> float:
    """The percentage of test images whose class has the largest logit when each is copied into x and `call` runs."""
    right = 0
    with torch.inference_mode():
        for image, label in batches(data.x_test, data.y_test, 1, mean=data.mean, std=data.std, shuffle=False):
            x.copy_(image)
            right += int(np.argmax(np.asarray(call())) == int(label))
    return 100 * right / len(data.y_test)


def _images(config: TrainConfig) -> Dataset:
    """`load_data`, which reads nothing again for a run on the images of the run before."""
    names = "dataset", "image_size", "train_images", "validation_images", "augment", "seed"
    return _of_images(replace(TrainConfig(), **{name: getattr(config, name) for name in names}))


_of_images = functools.lru_cache(maxsize=1)(load_data)


def _ours(config: BenchConfig, run: Finished, x: Tensor) -> Iterator[Contender]:
    """The network on our kernels: binary in each encoding that integers have, so that it is never held to its worst."""
    weights = quantized_weights(run.model)
    quantizer = run.quantizer
    for encoding in ("two_group",) if SCHEMES[quantizer.quantizer].zeros else ENCODINGS_OF["table"]:
        way = Way(
            AUTO,
            quantizer.quantizer,
            encoding,
            regions=quantizer.region_channels,
            codebook_bits=quantizer.codebook_bits,
            activation_bits=run.config.activation_bits,
        )
        lowered = inference.lower(run.model, x, encoding=encoding, isa=config.isa, threads=config.threads)
        with tempfile.TemporaryDirectory() as folder:
            data = run.data
            path = lowered.save(Path(folder, "net.sbk"), classes=data.classes, mean=data.mean, std=data.std)
            columns = ours.network_columns(lowered, weights) | {"file_bytes": path.stat().st_size}
        yield Contender(way, lowered.bind(x), columns)


def _rivals(config: BenchConfig, run: Finished, x: Tensor, skipped: list[str]) -> Iterator[Contender]:
    """The network in 8-bit integers by each library that runs here."""
    data = run.data
    folded = inference.fold(run.model)
    some = slice(0, CALIBRATION)
    view = {"mean": data.mean, "std": data.std, "shuffle": False}
    calibration, _ = next(batches(data.x_train[some], data.y_train[some], CALIBRATION, **view))
    x.copy_(calibration[:1])
    with torch.no_grad():
        y = folded(x).numpy()
    shapes = conv_shapes(run.model, *x.shape[1:3])
    work = Work(folded, x, y, sum(shape.weights for shape in shapes), config.threads, calibration=calibration)
    dense = sum(shape.macs for shape in shapes)
    ways = STUDIES[config.study].libraries(config.peers)
    for contender in list(libraries.contenders(work, ways, skipped)):  # all are checked before x is another image
        size = len(onnx_runtime.model(work, contender.way.precision))
        columns = contender.columns | {"adds": dense, "multiplies": dense, "file_bytes": size}
        yield contender._replace(columns=columns)
