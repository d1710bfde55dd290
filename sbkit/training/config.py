"""The recipe of a run, the learning rate of each step, and what of both configurations a record holds."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sbkit.checks import choice, number, switch, whole
from sbkit.data import AUGMENTATIONS
from sbkit.models import BLOCKS, MODELS, NONLINEARITIES, OUTER_LAYERS
from sbkit.quantizers import QuantizerConfig
from sbkit.records import changed
from sbkit.way import FLOAT_BITS, check_bits

MOST = 4096  # channels of the first stage, and pixels of an image's side


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of one run; the scheme is a `QuantizerConfig`. The defaults are the quick profile's."""

    dataset: str = "fashion_mnist"  # digits | fashion_mnist | cifar10 | image_folder:<path>
    model: str = "resnet8"  # a key of models.MODELS
    width: int = 16  # channels of the first stage; 0: the architecture's own
    nonlinearity: str = "relu"  # a key of models.NONLINEARITIES
    block: str = "basic"  # of residual networks, a key of models.BLOCKS: basic | released (the paper's)
    activation_bits: int = FLOAT_BITS  # of what enters a quantized layer: 2 to 8, by learned steps; 32: floats
    outer_layers: str = "floats"  # first convolution and shortcuts: floats | integers (with activation_bits < 32)
    image_size: int = 14  # pixels, height and width; 0: native
    train_images: int = 8000  # images, a random subset; 0: all
    validation_images: int = 0  # of the training images, held out and tested on, for choices; 0: the test set counts
    augment: str = "none"  # none | crop_flip | resized_crop (of images kept 8/7 as large; tests see their middle)
    epochs: int = 3  # passes over the training images
    batch_size: int = 64  # images a step, all processes together
    optimizer: str = "adam"  # adam | sgd (Nesterov momentum 0.9)
    learning_rate: float = 1e-2  # peak, per step; not scaled by the batch size
    weight_decay: float = 0.0  # L2 penalty of all parameters, added to their gradients: weight_decay * w
    l1: float = 0.0  # L1 penalty on the latent weights of quantized layers: l1 * sum |w| is added to the loss
    schedule: str = "one_cycle"  # one_cycle | cosine | linear
    precision: str = "fp32"  # fp32 | bf16 (autocast)
    channels_last: bool = True  # memory layout of activations and weights; faster on CPUs
    compile: bool = False  # by torch.compile: the network, with integer activations its learned steps alone
    distill_from: str = ""  # checkpoint of a full-precision run, the teacher; empty: labels alone
    start_from: str = ""  # checkpoint of a run whose latent weights, and all else that fits, to start from; empty: none
    robustness: bool = False  # test on corrupted and adversarial images, too
    seed: int = 0  # initial weights, fixed signs, subset, order, augmentation

    def __post_init__(self):
        choice("model", self.model, MODELS)
        choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        choice("block", self.block, BLOCKS)
        check_bits(self.activation_bits)
        choice("outer_layers", self.outer_layers, OUTER_LAYERS)
        choice("augment", self.augment, AUGMENTATIONS)
        choice("optimizer", self.optimizer, ("adam", "sgd"))
        choice("schedule", self.schedule, ("one_cycle", "cosine", "linear"))
        choice("precision", self.precision, ("fp32", "bf16"))
        for name in ("width", "image_size"):
            whole(name, getattr(self, name), 0, MOST)
        for name, least in {"train_images": 0, "validation_images": 0, "epochs": 1, "batch_size": 1}.items():
            whole(name, getattr(self, name), least)
        whole("seed", self.seed, 0, 2**32 - 1)  # numpy takes no larger one
        for name in ("channels_last", "compile", "robustness"):
            switch(name, getattr(self, name))
        for name in ("dataset", "distill_from", "start_from"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} = {getattr(self, name)!r}; allowed: a name or path, as a str")
        for name, least in {"learning_rate": 1e-12, "weight_decay": 0, "l1": 0}.items():
            number(name, getattr(self, name), least)


def schedule_lr(config: TrainConfig, step: int, total: int) -> float:
    """Learning rate of step 0, ..., total - 1.

    one_cycle rises linearly from 1/25 of the peak over the first 30 % of the steps, then falls along a cosine; cosine
    and linear fall from the start. All reach 0 at step `total`, one after the last.
    """
    peak, progress = config.learning_rate, step / total
    if config.schedule == "one_cycle":
        if progress < 0.3:
            return peak * (1 + 24 * progress / 0.3) / 25
        progress = (progress - 0.3) / 0.7
    if config.schedule == "linear":
        return peak * (1 - progress)
    return peak * (1 + math.cos(math.pi * progress)) / 2


CHECKPOINTS = {"distill_from": "teacher_sha256", "start_from": "start_sha256"}
"""The options that name a checkpoint, and the key of its sha256 in a record's provenance."""


def _named(config: TrainConfig) -> TrainConfig:
    """The recipe with names in place of paths, and without `robustness`, which measures a network and decides none.

    Only the last part of a data set's path stays. A checkpoint is named by its run, without `-s<seed>` where that is
    this run's own seed: the seed is then all that sets the runs of one group apart.
    """
    kind, colon, path = config.dataset.partition(":")
    names = {option: Path(getattr(config, option)).stem.removesuffix(f"-s{config.seed}") for option in CHECKPOINTS}
    return replace(
        config, dataset=kind + colon + (path and os.path.basename(os.path.abspath(path))), robustness=False, **names
    )


def configuration(config: TrainConfig, quantizer: QuantizerConfig) -> dict[str, Any]:
    """What decides the trained network, as a record's `config`: the options that differ from their defaults."""
    return changed(_named(config), quantizer)


def options(config: TrainConfig, quantizer: QuantizerConfig) -> dict[str, Any]:
    """Every option that decides the trained network, as a record's provenance holds them."""
    values = asdict(_named(config)) | asdict(quantizer)
    del values["robustness"]
    return values
