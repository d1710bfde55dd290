"""One training loop for every quantization scheme, from a recipe to a record.

`train` trains and measures, `run` also writes the record and the weight codes. From a shell, also on several processes
(N processes share each batch; the folder must be common to all):

    python -m sbkit.training --quantizer signed_binary --folder results/trial
    torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node N -m sbkit.training ...

On a CPU, the same configuration, thread count and instruction set give the same bits, also after an interruption.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import math
import os
import pickle
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from sbkit import records, robustness
from sbkit.conv import save_weights
from sbkit.data import AUGMENTATIONS, Dataset, batches, load
from sbkit.models import (
    MODELS,
    NONLINEARITIES,
    bf16_trouble,
    build_model,
    parameter_counts,
    quant_layers,
    quantized_weights,
    set_progress,
)
from sbkit.quantizers import QuantizerConfig, response

ALLOWED = {
    "model": tuple(MODELS),
    "nonlinearity": tuple(NONLINEARITIES),
    "augment": AUGMENTATIONS,
    "optimizer": ("adam", "sgd"),
    "schedule": ("one_cycle", "cosine", "linear"),
    "precision": ("fp32", "bf16"),
}
PROGRESS = ("auto", "bar", "lines", "none")
CHECKPOINTS = {"distill_from": "teacher_sha256", "start_from": "start_sha256"}  # options that name one: in a provenance
# Younger than the first records, whose ids must not change.
RECORDED_IF_SET = ("l1", "start_from", "double_shortcut", "clamp")
HISTOGRAM_BINS = 41
STEPS_PER_CHECK = 20
DEVICE_BYTES = 4 * 2**30  # training images up to this are kept on the device, more are sent batch by batch


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of one run; the scheme is a `QuantizerConfig`. The defaults are the quick profile's."""

    dataset: str = "fashion_mnist"  # digits | fashion_mnist | cifar10 | image_folder:<path>
    model: str = "resnet8"  # a key of models.MODELS
    width: int = 16  # channels of the first stage; 0: the architecture's own
    nonlinearity: str = "relu"  # a key of models.NONLINEARITIES
    double_shortcut: bool = False  # residual networks: a shortcut around each 3x3 convolution, not each two
    clamp: float = 0.0  # residual networks: what enters a 3x3 convolution is kept within [-clamp, clamp]; 0: not
    image_size: int = 14  # pixels; 0: native
    train_images: int = 8000  # a random subset; 0: all
    augment: str = "none"  # none | crop_flip | resized_crop (of images kept 8/7 as large; tests see their middle)
    epochs: int = 3  # passes over the training images
    batch_size: int = 64  # images a step, all processes together
    optimizer: str = "adam"  # adam | sgd (Nesterov momentum 0.9)
    learning_rate: float = 1e-2  # peak
    weight_decay: float = 0.0  # L2 penalty, all parameters
    l1: float = 0.0  # L1 penalty on the latent weights of quantized layers: l1 * sum |w| is added to the loss
    schedule: str = "one_cycle"  # one_cycle | cosine | linear
    precision: str = "fp32"  # fp32 | bf16 (autocast)
    channels_last: bool = True  # memory layout of activations and weights; faster on CPUs
    distill_from: str = ""  # checkpoint of a full-precision run, the teacher; empty: labels alone
    start_from: str = ""  # checkpoint of a run whose latent weights, and all else that fits, to start from; empty: none
    robustness: bool = False  # test on corrupted and adversarial images, too
    seed: int = 0  # initial weights, fixed signs, subset, order, augmentation

    def __post_init__(self):
        for name, allowed in ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        for name, least in {"width": 0, "image_size": 0, "train_images": 0, "epochs": 1, "batch_size": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: {least} or more")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate = {self.learning_rate}; allowed: a number > 0")
        for name in ("clamp", "weight_decay", "l1"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: a number >= 0")


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What `train` returns: the trained model, scalars, curves, and what it was trained on.

    history["epochs"] holds one dict an epoch: learning_rate is that of its last step, density and flip_fraction are
    over all quantized weights (flip: the code differs from an epoch before), gradient_signal is `_Gradients.signal`,
    seconds leave the test out, latent counts the latent weights of three layers in equal bins from -limit to limit, by
    the sign of their region. Losses are cross-entropies (train_loss with a teacher: the divergence from it), without
    penalties.
    """

    model: nn.Module
    metrics: dict[str, float]
    history: dict[str, Any]
    data_sha256: dict[str, str]
    data_label: str


def effective(config: TrainConfig, quantizer: QuantizerConfig) -> dict[str, Any]:
    """All options that decide the trained network, as a record holds them.

    Of a data set's path only the last part, and of a checkpoint's the name of the run, without `-s<seed>` where that is
    this run's own seed: the seed is then all that sets the runs of one group apart. Options of RECORDED_IF_SET are left
    out while they have their default.
    """
    options = asdict(config) | quantizer.effective()
    del options["robustness"]  # it measures the network
    kind, colon, path = config.dataset.partition(":")
    options["dataset"] = kind + colon + Path(path).name
    for name in CHECKPOINTS:
        options[name] = Path(options[name]).stem.removesuffix(f"-s{config.seed}")
    return {name: value for name, value in options.items() if name not in RECORDED_IF_SET or value}


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


# Training


def train(
    config: TrainConfig,
    quantizer: QuantizerConfig,
    *,
    checkpoint: str | os.PathLike | None = None,
    progress: str = "auto",
    threads: int | None = None,
) -> TrainResult:
    """Train one network and measure it.

    `checkpoint` is written after each epoch; where it exists, training goes on from it, to the same final bits.
    `progress`: "bar", "lines" (one an epoch), "none"; "auto" is a bar on a terminal and lines elsewhere. `threads` sets
    torch's threads, None leaves them. Uses CUDA if present, and all processes of an initialized process group.
    Raises ValueError for what the data or this machine do not allow, and FloatingPointError when the loss is no longer
    finite.
    """
    if progress not in PROGRESS:
        raise ValueError(f"progress = {progress!r}; allowed: {', '.join(PROGRESS)}")
    if progress == "auto":
        progress = "bar" if sys.stderr.isatty() else "lines"
    if threads is not None:
        torch.set_num_threads(threads)
    rank, world_size = _group()
    device = _device()
    if config.precision == "bf16" and device.type == "cpu" and (trouble := bf16_trouble()):
        raise ValueError(f"precision = 'bf16': {trouble}; allowed here: fp32")
    torch.backends.cudnn.deterministic = True
    data = load(
        config.dataset,
        train_images=config.train_images,
        image_size=config.image_size,
        margin=config.augment == "resized_crop",
        seed=config.seed,
    )
    if not world_size <= config.batch_size <= len(data.x_train) or config.batch_size % world_size:
        raise ValueError(
            f"batch_size = {config.batch_size}; allowed: a multiple of the {world_size} process(es), at most the "
            f"{len(data.x_train)} training images"
        )
    model = _build(config, quantizer, data).to(device)
    teacher = _load_teacher(config.distill_from, data, device) if config.distill_from else None
    if config.start_from:
        _start_from(config.start_from, model, config, device)
    optimizer = _optimizer(config, model)
    order = torch.Generator().manual_seed(config.seed)
    identity = {"config": effective(config, quantizer), "data_sha256": data.sha256}
    epochs: list[dict[str, Any]] = []
    if checkpoint is not None and Path(checkpoint).exists():
        state = _load_state(checkpoint, device)
        if state.get("identity") != identity:
            raise ValueError(
                f"{checkpoint} belongs to another configuration or data set; delete it or use another name"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        order.set_state(state["order"].cpu())
        epochs = state["epochs"]

    network = DistributedDataParallel(model) if world_size > 1 else model
    place = device if data.x_train.nbytes <= DEVICE_BYTES else "cpu"
    images = data.x_train.to(place), data.y_train.to(place)
    view = {"mean": data.mean, "std": data.std, "device": device, "rank": rank, "world_size": world_size}
    steps = len(data.x_train) // config.batch_size
    total = steps * config.epochs
    codes, tested = _codes(model), None
    bar = tqdm(total=total, initial=steps * len(epochs), disable=progress != "bar" or rank > 0, unit="step")
    with bar:
        for epoch in range(len(epochs), config.epochs):
            started = time.perf_counter()
            model.train()
            loss_sum = torch.zeros((), device=device)
            gradients = _Gradients(layer.weight for layer in quant_layers(model).values())
            stream = batches(*images, config.batch_size, augment=config.augment, generator=order, **view)
            for step, (x, y) in enumerate(stream, epoch * steps):
                for group in optimizer.param_groups:
                    group["lr"] = schedule_lr(config, step, total)
                set_progress(model, step / total)
                loss = _loss(network, teacher, _layout(x, config), y, config)
                optimizer.zero_grad(set_to_none=True)
                (loss + config.l1 * _l1_norm(model) if config.l1 else loss).backward()
                gradients.add()
                optimizer.step()
                loss_sum += loss.detach()
                bar.update()
                if step % STEPS_PER_CHECK == 0 or step == (epoch + 1) * steps - 1:
                    _check_finite(loss_sum, step, config)
            _share(model, loss_sum)
            seconds = time.perf_counter() - started
            tested = evaluate(model, data, config)
            previous, codes = codes, _codes(model)
            epochs.append(
                {
                    "epoch": epoch + 1,
                    "learning_rate": schedule_lr(config, step, total),
                    "train_loss": float(loss_sum) / steps,
                    "test_loss": tested["loss"],
                    "top1_percent": tested["top1_percent"],
                    "density": _density(codes),
                    "flip_fraction": _flip_fraction(previous, codes),
                    "gradient_signal": gradients.signal(),
                    "seconds": seconds,
                    "latent": {
                        layer: {"limit": h["edges"][-1], "positive": h["positive"], "negative": h["negative"]}
                        for layer, h in _latent(model).items()
                    },
                }
            )
            if checkpoint is not None and rank == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "order": order.get_state()}
                _save_state(checkpoint, state | {"identity": identity, "epochs": epochs})
            if progress == "lines" and rank == 0:
                print(_line(epochs[-1], config), flush=True)

    tested = tested or evaluate(model, data, config)  # a run resumed after its last epoch has not tested yet
    seconds = sum(epoch["seconds"] for epoch in epochs)
    counts = parameter_counts(model)
    density = _density(codes)
    metrics = {
        "top1_percent": tested["top1_percent"],
        "test_loss": tested["loss"],
        "final_train_loss": epochs[-1]["train_loss"],
        "density": density,
        "effectual_weights": round(density * counts["quantized"]),
        "quantized_weights": counts["quantized"],
        "total_parameters": counts["total"],
        "weight_bits": _weight_bits(model),
        "images_per_second": total * config.batch_size / seconds,
        "train_seconds": seconds,
    }
    history = {
        "epochs": epochs,
        "latent": _latent(model),
        "layers": _layers(model),
        "response": response(quantizer),
        "per_class_percent": tested["per_class_percent"],
        "classes": list(data.classes),
    }
    if config.robustness:
        history["robustness"] = robustness.measure(model, data, seed=config.seed)
    return TrainResult(model, metrics, history, data.sha256, data.label)


def _group() -> tuple[int, int]:
    """Rank and number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _build(config: TrainConfig, quantizer: QuantizerConfig, data: Dataset) -> nn.Module:
    _, channels, *size = data.x_test.shape
    model = build_model(
        config.model,
        quantizer=quantizer,
        in_channels=channels,
        classes=len(data.classes),
        image_size=min(size),
        width=config.width,
        nonlinearity=config.nonlinearity,
        double_shortcut=config.double_shortcut,
        clamp=config.clamp,
        seed=config.seed,
    )
    return model.to(memory_format=torch.channels_last) if config.channels_last else model


def _optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    options = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **options)
    return torch.optim.Adam(model.parameters(), **options)


def _layout(x: Tensor, config: TrainConfig) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if config.channels_last else x


def _autocast(x: Tensor, config: TrainConfig) -> torch.autocast:
    return torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bf16")


def _loss(network: nn.Module, teacher: nn.Module | None, x: Tensor, y: Tensor, config: TrainConfig) -> Tensor:
    """Cross-entropy with the labels, or the Kullback-Leibler divergence KL(teacher || network) at temperature 1."""
    with _autocast(x, config):
        logits = network(x)
        if teacher is None:
            return F.cross_entropy(logits.float(), y)
        with torch.no_grad():
            target = teacher(x)
    target, logits = target.float().log_softmax(1), logits.float().log_softmax(1)
    return F.kl_div(logits, target, log_target=True, reduction="batchmean")


def _l1_norm(model: nn.Module) -> Tensor:
    """Sum of |w| over the latent weights of quantized layers."""
    return sum(layer.weight.abs().sum() for layer in quant_layers(model).values())


def _check_finite(loss_sum: Tensor, step: int, config: TrainConfig) -> None:
    """The sum keeps a NaN, so a check every few steps misses none and rarely waits for the device."""
    if not torch.isfinite(loss_sum):
        raise FloatingPointError(
            f"the loss is {float(loss_sum)} at step {step}: training diverged; lower learning_rate "
            f"(= {config.learning_rate}) or use precision = 'fp32' (= {config.precision!r})"
        )


class _Gradients:
    """What the gradients of some parameters over several batches have in common."""

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = list(parameters)
        self.sums = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares, self.batches = 0.0, 0

    def add(self) -> None:
        """Count the gradients that the parameters hold now."""
        for total, parameter in zip(self.sums, self.parameters, strict=True):
            total += parameter.grad
            self.squares = self.squares + parameter.grad.square().sum()
        self.batches += 1

    def signal(self) -> float | None:
        """Share of a gradient's squared norm that is common to the batches, without bias; None of fewer than two.

        1 if all gradients g are the same and 0 on average if they are independent with mean 0:
        (n |mean g|^2 - mean |g|^2) / ((n - 1) mean |g|^2). The rest is noise.
        """
        n = self.batches
        if n < 2 or not self.squares:
            return None
        square_of_sum = sum(float(total.square().sum()) for total in self.sums)
        return (square_of_sum / float(self.squares) - 1) / (n - 1)


def _share(model: nn.Module, loss_sum: Tensor) -> None:
    """Mean loss of all processes, and rank 0's batch statistics for all of them."""
    _, world_size = _group()
    if world_size > 1:
        dist.all_reduce(loss_sum)
        loss_sum /= world_size
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """Test set: top1_percent, mean cross-entropy loss, and per_class_percent (None for a class without test images)."""
    rank, world_size = _group()
    device = next(model.parameters()).device
    classes = len(data.classes)
    correct, count = torch.zeros(2, classes, dtype=torch.float64, device=device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    view = {"mean": data.mean, "std": data.std, "device": device, "rank": rank, "world_size": world_size}
    model.eval()
    for x, y in batches(data.x_test, data.y_test, 500, shuffle=False, **view):
        with _autocast(x, config):
            logits = model(_layout(x, config)).float()
        loss_sum += F.cross_entropy(logits, y, reduction="sum")
        correct += torch.bincount(y[logits.argmax(1) == y], minlength=classes)
        count += torch.bincount(y, minlength=classes)
    if world_size > 1:
        for value in (correct, count, loss_sum):
            dist.all_reduce(value)
    return {
        "top1_percent": float(100 * correct.sum() / count.sum()),
        "loss": float(loss_sum / count.sum()),
        # A class without test images has no accuracy: None.
        "per_class_percent": [
            100 * c / n if n else None for c, n in zip(correct.tolist(), count.tolist(), strict=True)
        ],
    }


def _line(epoch: dict[str, Any], config: TrainConfig) -> str:
    return (
        f"epoch {epoch['epoch']}/{config.epochs}  loss {epoch['train_loss']:.4f}  top-1 {epoch['top1_percent']:.2f} %  "
        f"density {epoch['density']:.3f}  {epoch['seconds']:.1f} s"
    )


# What the weights look like


def _codes(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: weight.codes for name, weight in quantized_weights(model).items()}


def _density(codes: dict[str, np.ndarray]) -> float:
    """Non-zero share of all quantized weights; 1 in full precision."""
    if not codes:
        return 1.0
    return sum(int(np.count_nonzero(c)) for c in codes.values()) / sum(c.size for c in codes.values())


def _weight_bits(model: nn.Module) -> float:
    """Stored bits per quantized weight, with learned region signs, without scales."""
    layers = quant_layers(model).values()
    return sum(q.weight.numel() * q.quantizer.weight_bits for q in layers) / sum(q.weight.numel() for q in layers)


def _flip_fraction(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> float:
    """Share of the codes that differ; 0 in full precision."""
    if not after:
        return 0.0
    return sum(int(np.count_nonzero(before[n] != after[n])) for n in after) / sum(c.size for c in after.values())


def _layers(model: nn.Module) -> list[dict[str, Any]]:
    """Per quantized layer: its shape, its density and how many distinct R x S patterns its K * C filter slices show."""
    layers = []
    for name, codes in _codes(model).items():
        K, C, R, S = codes.shape
        patterns = np.unique(codes.reshape(K * C, R * S).view(f"V{R * S}"))
        shape = {"K": K, "C": C, "R": R, "S": S, "weights": codes.size}
        layers.append({"name": name, **shape, "density": _density({name: codes}), "unique_3x3": len(patterns)})
    return layers


def _latent(model: nn.Module) -> dict[str, dict[str, list]]:
    """Histograms of the latent weights of the first, middle and last quantized layer.

    {layer: {"edges", "positive", "negative", "positive_effectual", "negative_effectual"}}: counts in the regions of
    sign factor beta = +1 and -1, and how many of them have a non-zero code. Without sign factors all regions are
    positive, in full precision all weights are effectual.
    """
    layers, codes = quant_layers(model), _codes(model)
    names = list(layers)
    histograms = {}
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        layer = layers[name]
        w = layer.weight.detach().float()
        beta = layer.quantizer.signs(w) if hasattr(layer.quantizer, "signs") else torch.ones(())
        w, beta = w.cpu().numpy(), beta.cpu().numpy()
        positive = np.broadcast_to(beta > 0, w.shape)
        effectual = codes[name].reshape(w.shape) != 0 if name in codes else np.ones_like(positive)
        limit = float(np.abs(w).max())
        edges = np.linspace(-limit, limit, HISTOGRAM_BINS + 1)
        groups = {
            "positive": positive,
            "negative": ~positive,
            "positive_effectual": positive & effectual,
            "negative_effectual": ~positive & effectual,
        }
        counts = {key: np.histogram(w[group], edges)[0].tolist() for key, group in groups.items()}
        histograms[name] = {"edges": edges.tolist(), **counts}
    return histograms


# Checkpoints


def _save_state(path: str | os.PathLike, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    records.write_atomic(path, buffer.getbuffer())


def _load_state(path: str | os.PathLike, device: torch.device) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise ValueError(f"{path} is not a readable checkpoint; delete it to start afresh") from error


def _load_kept(option: str, path: str, device: torch.device) -> tuple[TrainConfig, QuantizerConfig, dict[str, Tensor]]:
    """What `run` kept at `path`, which `option` names: the two configurations and the state of the model."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{option} = {path!r} does not exist; allowed: checkpoints/<name>.pt of a finished run")
    state = _load_state(path, device)
    if not {"train_config", "quantizer_config", "model"} <= set(state):
        raise ValueError(f"{option} = {path!r} is not the checkpoint of a finished run, checkpoints/<name>.pt")
    return TrainConfig(**state["train_config"]), QuantizerConfig(**state["quantizer_config"]), state["model"]


def _load_teacher(path: str, data: Dataset, device: torch.device) -> nn.Module:
    """The full-precision network that `run` kept at `path`: frozen, in evaluation mode."""
    config, quantizer, state = _load_kept("distill_from", path, device)
    if quantizer.quantizer != "full_precision":
        raise ValueError(f"distill_from = {path!r} is a {quantizer.quantizer} network; allowed: full_precision")
    teacher = _build(config, quantizer, data).to(device)
    try:
        teacher.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"distill_from = {path!r} was trained on other channels, classes or image sizes") from error
    return teacher.eval().requires_grad_(False)


@torch.no_grad()
def _start_from(path: str, model: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Give the model the weights that `run` kept at `path`, of any scheme, and the signs that follow from them.

    Taken are all parameters and the statistics of batch norms that both networks have, by name and shape; the signs of
    regions and channels stay those of this run. Raises ValueError where a layer's latent weights do not fit.
    """
    kept, _, state = _load_kept("start_from", path, device)
    own, layers = model.state_dict(), quant_layers(model)
    fixed = {f"{name}.quantizer.{buffer}" for name in layers for buffer, _ in layers[name].quantizer.named_buffers()}
    fits = {key: state[key] for key in own if key in state and state[key].shape == own[key].shape and key not in fixed}
    if missing := [f"{name}.weight" for name in layers if f"{name}.weight" not in fits]:
        raise ValueError(
            f"start_from = {path!r} is a {kept.model} of width {kept.width}, which lacks {missing[0]} of this "
            f"{config.model} of width {config.width}; allowed: the same model and width"
        )
    model.load_state_dict(own | fits)
    for layer in layers.values():
        layer.quantizer.initialize(layer.weight)


def weights_sha256(model: nn.Module) -> str:
    """sha256 over all parameters and buffers, in order: equal for two models that agree in every bit."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# A run and its record


def run(
    config: TrainConfig,
    quantizer: QuantizerConfig,
    folder: str | os.PathLike,
    *,
    name: str = "",
    progress: str = "auto",
    threads: int | None = None,
) -> records.Record:
    """Train and write, below `folder`: records/train/<name>.json, weights/<name>.npz (none in full precision) and
    checkpoints/<name>.pt, which `distill_from` and `start_from` take. `name` is the record's id unless given.

    A killed run goes on from checkpoints/<name>.partial.pt, which goes away with success. Of several processes, rank 0
    writes.
    """
    started = records.start()
    options = effective(config, quantizer)
    identity = records.run_id(quantizer.quantizer, options)
    name = name or identity
    folder = Path(folder)
    partial = folder / "checkpoints" / f"{name}.partial.pt"
    result = train(config, quantizer, checkpoint=partial, progress=progress, threads=threads)
    rank, world_size = _group()
    extra = {
        "data_label": result.data_label,
        "device": torch.cuda.get_device_name(_device()) if torch.cuda.is_available() else "cpu",
        "processes": world_size,
        "weights_sha256": weights_sha256(result.model),
    }
    for option, key in CHECKPOINTS.items():
        if path := getattr(config, option):
            extra[key] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    provenance = records.provenance(
        threads=torch.get_num_threads(),
        started=started,
        seeds={"seed": config.seed},
        data_sha256=result.data_sha256,
        extra=extra,
    )
    record = records.Record("train", identity, options, result.metrics, result.history, provenance)
    if rank == 0:
        weights = quantized_weights(result.model)
        if weights:
            save_weights(folder / "weights" / f"{name}.npz", weights)
        state = {"train_config": asdict(config), "quantizer_config": asdict(quantizer)}
        _save_state(folder / "checkpoints" / f"{name}.pt", state | {"model": result.model.state_dict()})
        records.write(record, folder / "records" / "train" / f"{name}.json")
        partial.unlink(missing_ok=True)
    return record


def _parser() -> argparse.ArgumentParser:
    """One option per field of the two configurations; names, types and defaults come from there."""
    parser = argparse.ArgumentParser(
        prog="python -m sbkit.training",
        description="Train one network and write its record.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for kind in (TrainConfig, QuantizerConfig):
        group = parser.add_argument_group(kind.__name__, kind.__doc__)
        for field in fields(kind):
            flag, value = f"--{field.name.replace('_', '-')}", field.default
            if isinstance(value, bool):
                group.add_argument(flag, default=value, action=argparse.BooleanOptionalAction, help=" ")
            else:
                group.add_argument(flag, default=value, type=type(value), help=" ")
    parser.add_argument("--folder", required=True, help="where records, weights and checkpoints go")
    parser.add_argument("--name", default="", help="name of the files; the record's id if empty")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads in each process")
    parser.add_argument("--progress", default="auto", choices=PROGRESS, help=" ")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = vars(_parser().parse_args(arguments))
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        device = _device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        configs = [kind(**{f.name: options[f.name] for f in fields(kind)}) for kind in (TrainConfig, QuantizerConfig)]
        rest = {key: options[key] for key in ("folder", "name", "threads", "progress")}
        record = run(*configs, **rest)
        top1, weights = record.metrics["top1_percent"], record.provenance["weights_sha256"]
        # One write, newline included: the processes share a pipe.
        print(f"rank {_group()[0]}: top-1 {top1:.2f} %, weights {weights}\n", end="", flush=True)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    finally:
        if several:
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
