"""What one run trains with: its data, network, teacher, optimizer and order, new or from a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sbkit.cpu import bf16_trouble
from sbkit.data import Dataset, batches, load
from sbkit.models import build_model
from sbkit.quantizers import QuantizerConfig
from sbkit.quantizers.activations import calibrate, learned_steps
from sbkit.training.checkpoint import load_finished, load_state, save_state, start_from
from sbkit.training.config import CHECKPOINTS, TrainConfig, configuration
from sbkit.training.processes import device, group
from sbkit.way import FLOAT_BITS

DEVICE_BYTES = 4 * 2**30  # training images up to this size are kept on the device, more are sent batch by batch


@dataclass
class Setup:
    """One run under way. `epochs` holds the history of the finished epochs, `order` draws the order of the images.

    `checkpoints` holds the sha256 of the files that the options in config.CHECKPOINTS name.
    """

    config: TrainConfig
    quantizer: QuantizerConfig
    data: Dataset
    model: nn.Module
    teacher: nn.Module | None
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    checkpoints: dict[str, str]
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self):
        self.device = next(self.model.parameters()).device
        place = self.device if self.data.x_train.nbytes <= DEVICE_BYTES else "cpu"
        self.images = self.data.x_train.to(place), self.data.y_train.to(place)
        self.steps = len(self.data.x_train) // self.config.batch_size  # an epoch

    def batches(self, order: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The training batches of one epoch, this process's share, in the run's order or another."""
        rank, world_size = group()
        return batches(
            *self.images,
            self.config.batch_size,
            mean=self.data.mean,
            std=self.data.std,
            augment=self.config.augment,
            generator=order or self.order,
            device=self.device,
            rank=rank,
            world_size=world_size,
        )

    def _identity(self) -> dict[str, Any]:
        config = configuration(self.config, self.quantizer)
        return {"config": config, "data_sha256": self.data.sha256} | self.checkpoints

    def save(self, path: str | os.PathLike) -> None:
        """Write a checkpoint from which `resume` goes on to the same final bits."""
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_state(
            path, states | {"order": self.order.get_state(), "identity": self._identity(), "epochs": self.epochs}
        )

    def resume(self, path: str | os.PathLike) -> None:
        """Go on from a checkpoint. Raises ValueError for one of another run."""
        state, _ = load_state(path, self.device, "delete it to start afresh")
        if state.get("identity") != self._identity():
            raise ValueError(
                f"{path} belongs to another configuration, data set, teacher or start; delete it or use another name"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.order.set_state(state["order"].cpu())
            if not isinstance(state["epochs"], list) or not all(isinstance(epoch, dict) for epoch in state["epochs"]):
                raise TypeError("its epochs are not a list of dicts")
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise ValueError(f"{path} is not a readable checkpoint ({reason}); delete it to start afresh") from error
        self.epochs = state["epochs"]


def prepare(config: TrainConfig, quantizer: QuantizerConfig) -> Setup:
    """A run before its first step. Raises ValueError for what the data or this machine do not allow."""
    here = device()
    if config.precision == "bf16" and here.type == "cpu" and (trouble := bf16_trouble()):
        raise ValueError(f"precision = 'bf16': {trouble}; allowed here: fp32")
    torch.backends.cudnn.deterministic = True
    data = load_data(config)
    _, processes = group()
    if not processes <= config.batch_size <= len(data.x_train) or config.batch_size % processes:
        raise ValueError(
            f"batch_size = {config.batch_size}; allowed: a multiple of the {processes} process(es), at most the "
            f"{len(data.x_train)} training images"
        )
    if config.compile:
        _check_compiler()
    model = build(config, quantizer, data).to(here)
    if config.activation_bits < FLOAT_BITS:
        calibrate(model, _first_images(config, data).to(here))
    teacher, checkpoints = None, {}
    if config.distill_from:
        teacher, checkpoints[CHECKPOINTS["distill_from"]] = _teacher(config.distill_from, data, here)
    if config.start_from:
        checkpoints[CHECKPOINTS["start_from"]] = start_from(config.start_from, model, config, here)
    order = torch.Generator().manual_seed(config.seed)
    return Setup(config, quantizer, data, model, teacher, _optimizer(config, model), order, checkpoints)


def _check_compiler() -> None:
    """Raises ValueError unless torch.compile works on this machine: it calls a C++ compiler, with CUDA also Triton."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=device()))
    except Exception as error:  # of a dozen kinds, by what is missing
        reason, _, _ = str(error).strip().partition("\n")
        reason = f"{type(error).__name__}: {reason}"
        raise ValueError(f"compile = True: torch.compile does not work here ({reason}); allowed here: False") from error


def compiled(model: nn.Module) -> nn.Module:
    """The network as torch.compile makes it, one graph; with integer activations, itself with `fused` learned steps.

    The rest of such a network gains nothing, and its batch norms lose. Networks compiled before in this process are
    compiled again where they are called: torch keeps eight programs of a module and refuses a ninth.
    """
    torch.compiler.reset()
    steps = learned_steps(model)
    for step in steps:
        step.fused = True
    return model if steps else torch.compile(model, fullgraph=True)


def layout(x: Tensor, config: TrainConfig) -> Tensor:
    """A batch in the memory layout of the run."""
    return x.contiguous(memory_format=torch.channels_last) if config.channels_last else x


def _first_images(config: TrainConfig, data: Dataset) -> Tensor:
    """The first batch of training images as tests see images: every process has the same."""
    x, y = data.x_train[: config.batch_size], data.y_train[: config.batch_size]
    x, _ = next(batches(x, y, config.batch_size, mean=data.mean, std=data.std, shuffle=False))
    return layout(x, config)


def load_data(config: TrainConfig) -> Dataset:
    return load(
        config.dataset,
        train_images=config.train_images,
        validation_images=config.validation_images,
        image_size=config.image_size,
        margin=config.augment == "resized_crop",
        seed=config.seed,
    )


def build(config: TrainConfig, quantizer: QuantizerConfig, data: Dataset) -> nn.Module:
    """The untrained network of these configurations for this data set. Raises ValueError for images it cannot take."""
    _, channels, H, W = data.x_test.shape
    model = build_model(
        config.model,
        quantizer=quantizer,
        in_channels=channels,
        classes=len(data.classes),
        image_size=min(H, W),
        width=config.width,
        nonlinearity=config.nonlinearity,
        block=config.block,
        activation_bits=config.activation_bits,
        outer_layers=config.outer_layers,
        seed=config.seed,
    )
    if H != W:
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, channels, H, W))
        except RuntimeError as error:
            raise ValueError(
                f"{config.model} needs square images, those of {config.dataset} are {H}x{W} pixels; allowed: "
                "image_size > 0, or a residual network"
            ) from error
    return model.to(memory_format=torch.channels_last) if config.channels_last else model


class Finished(NamedTuple):
    """A run that is done: its network in evaluation mode on the CPU, both configurations, and its data set."""

    model: nn.Module
    config: TrainConfig
    quantizer: QuantizerConfig
    data: Dataset


def finished(option: str, path: str, load: Callable[[TrainConfig], Dataset] = load_data) -> Finished:
    """The run whose checkpoint `option` names by its path; `load` finds its data set.

    Raises FileNotFoundError where there is no file, ValueError for one that is something else or does not fit the data.
    """
    config, quantizer, state, _ = load_finished(option, path, torch.device("cpu"))
    data = load(config)
    model = build(config, quantizer, data)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{path} was trained on other channels, classes or image sizes than {config.dataset} has"
        ) from error
    return Finished(model.eval(), config, quantizer, data)


def _teacher(path: str, data: Dataset, here: torch.device) -> tuple[nn.Module, str]:
    """The full-precision network of the finished run at `path`, frozen, in evaluation mode; the sha256 of the file."""
    config, quantizer, state, sha256 = load_finished("distill_from", path, here)
    if quantizer.quantizer != "full_precision":
        raise ValueError(f"distill_from = {path!r} is a {quantizer.quantizer} network; allowed: full_precision")
    teacher = build(config, quantizer, data).to(here)
    try:
        teacher.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"distill_from = {path!r} was trained on other channels, classes or image sizes") from error
    return teacher.eval().requires_grad_(False), sha256


def _optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **options)
    return torch.optim.Adam(model.parameters(), **options)
