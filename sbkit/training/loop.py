"""The training loop: epochs of steps, a test after each epoch, and what a run has measured at its end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from sbkit import robustness
from sbkit.checks import choice, whole
from sbkit.data import Dataset, batches
from sbkit.models import parameter_counts, quant_layers, set_progress
from sbkit.quantizers import QuantizerConfig, response
from sbkit.training.config import TrainConfig, schedule_lr
from sbkit.training.diagnostics import codes_of, density, flip_fraction, latent_histograms, layer_table, weight_bits
from sbkit.training.norms import settle_norms
from sbkit.training.processes import add_up, group, share_buffers
from sbkit.training.progress import PROGRESS, Interrupted, bar, chosen
from sbkit.training.setup import Setup, compiled, layout, prepare
from sbkit.way import FLOAT_BITS

STEPS_PER_CHECK = 20
TEST_BATCH = 500  # images


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What `train` returns: the trained model, scalars, curves, and what it was trained on.

    With precision = "bf16" and integer activations, metrics and per_class_percent are those of a test after
    `settle_norms`; the tests in history["epochs"] came before.

    history["epochs"] holds one dict an epoch: learning_rate is that of its last step, density and flip_fraction are
    over all quantized weights (flip: the code differs from an epoch before), and seconds leave the test out, but not
    what torch.compile takes in the first epoch. Losses are cross-entropies (train_loss with a teacher: the divergence
    from it), without penalties. `checkpoints` holds the sha256 of the teacher's and the start's file, by their keys in
    the provenance.
    """

    model: nn.Module
    metrics: dict[str, float]
    history: dict[str, Any]
    data_sha256: dict[str, str]
    data_label: str
    checkpoints: dict[str, str]


def train(
    config: TrainConfig,
    quantizer: QuantizerConfig,
    *,
    checkpoint: str | os.PathLike | None = None,
    progress: str = "auto",
    threads: int | None = None,
) -> TrainResult:
    """Train one network and measure it.

    `checkpoint` is written after each epoch; where it exists, training continues from it, to the same final bits.
    `progress` is "bar", "lines" (one an epoch) or "none"; "auto" is a bar on a terminal and in a notebook that a person
    runs, and lines elsewhere. `threads` sets torch's threads, None leaves them. CUDA is used if present, and so are all
    processes of an initialized process group.
    Raises ValueError for what the data or this machine do not allow, FloatingPointError when the loss is no longer
    finite, and, with a checkpoint, Interrupted for a KeyboardInterrupt.
    """
    choice("progress", progress, PROGRESS)
    if threads is not None:
        whole("threads", threads, 1, 1024)  # of many more, the first step would end the process
        torch.set_num_threads(threads)
    setup = prepare(config, quantizer)
    shown = chosen(progress) if group()[0] == 0 else "none"
    if checkpoint is not None and Path(checkpoint).exists():
        setup.resume(checkpoint)
        if shown != "none":
            print(f"continues after epoch {len(setup.epochs)} of {config.epochs}, from {checkpoint}", flush=True)
    try:
        tested = _epochs(setup, checkpoint, shown)
        if _tested_in_float32(config):
            settle_norms(setup)
            tested = None
        return _result(setup, tested or evaluate(setup.model, setup.data, config))
    except KeyboardInterrupt:
        if checkpoint is None:
            raise
        done, total = len(setup.epochs), config.epochs
        reached = f"after epoch {done} of {total}: running it again continues"
        if not done:
            reached = f"in epoch 1 of {total}: running it again starts from the beginning"
        raise Interrupted(f"interrupted {reached}") from None


def _epochs(setup: Setup, checkpoint: str | os.PathLike | None, shown: str) -> dict[str, Any] | None:
    """Train the epochs that are left. Returns the last test, or None where no epoch was left."""
    model, config = setup.model, setup.config
    rank, processes = group()
    network = compiled(model) if config.compile else model
    if processes > 1:
        network = DistributedDataParallel(network)
    codes, tested = codes_of(model), None
    with bar(shown, epochs=config.epochs, steps=setup.steps, done=len(setup.epochs)) as steps:
        for epoch in range(len(setup.epochs), config.epochs):
            steps.set_description(f"epoch {epoch + 1}/{config.epochs}")
            trained = _epoch(setup, network, epoch, steps)
            tested = evaluate(model, setup.data, config)
            previous, codes = codes, codes_of(model)
            row = {
                "epoch": epoch + 1,
                **trained,
                "test_loss": tested["loss"],
                "top1_percent": tested["top1_percent"],
                "density": density(codes),
                "flip_fraction": flip_fraction(previous, codes),
            }
            setup.epochs.append(row)
            if checkpoint is not None and rank == 0:
                setup.save(checkpoint)
            reached = f"loss {row['train_loss']:.4f}  top-1 {row['top1_percent']:.2f} %  density {row['density']:.3f}"
            steps.set_postfix_str(reached)
            if shown == "lines":
                print(f"epoch {epoch + 1}/{config.epochs}  {reached}  {row['seconds']:.1f} s", flush=True)
    return tested


def _epoch(setup: Setup, network: nn.Module, epoch: int, bar: tqdm) -> dict[str, Any]:
    """Train one epoch, 0, 1, ...: its seconds, mean loss and last learning rate."""
    model, config, steps = setup.model, setup.config, setup.steps
    total = steps * config.epochs
    started = time.perf_counter()
    model.train()
    loss_sum = torch.zeros((), device=setup.device)
    latent = [layer.weight for layer in quant_layers(model).values()]
    for step, (x, y) in enumerate(setup.batches(), epoch * steps):
        for parameters in setup.optimizer.param_groups:
            parameters["lr"] = schedule_lr(config, step, total)
        set_progress(model, step / total)
        loss = _loss(network, setup.teacher, layout(x, config), y, config)
        setup.optimizer.zero_grad(set_to_none=True)
        (loss + config.l1 * sum(weight.abs().sum() for weight in latent) if config.l1 else loss).backward()
        setup.optimizer.step()
        loss_sum += loss.detach()
        bar.update()
        last = step == (epoch + 1) * steps - 1
        if (step % STEPS_PER_CHECK == 0 or last) and not torch.isfinite(loss_sum):  # the sum keeps a NaN
            raise FloatingPointError(
                f"the loss is {float(loss_sum)} at step {step}: training diverged; lower learning_rate "
                f"(= {config.learning_rate}) or use precision = 'fp32' (= {config.precision!r})"
            )
    add_up(loss_sum)
    share_buffers(model)
    return {
        "learning_rate": schedule_lr(config, step, total),
        "train_loss": float(loss_sum / group()[1]) / steps,
        "seconds": time.perf_counter() - started,
    }


def _tested_in_float32(config: TrainConfig) -> bool:
    """Whether a network that trains in bf16 is tested in float32: one of integer activations, as kernels run them. In
    bf16 some would move to the next integer.
    """
    return config.precision == "bf16" and config.activation_bits < FLOAT_BITS


def _autocast(x: Tensor, config: TrainConfig, *, training: bool = True) -> torch.autocast:
    enabled = config.precision == "bf16" and (training or not _tested_in_float32(config))
    return torch.autocast(x.device.type, torch.bfloat16, enabled=enabled)


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


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """Test set: top1_percent, mean cross-entropy loss, and per_class_percent (None for a class without test images)."""
    rank, processes = group()
    device = next(model.parameters()).device
    classes = len(data.classes)
    correct, count = torch.zeros(2, classes, dtype=torch.float64, device=device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    view = {"mean": data.mean, "std": data.std, "device": device, "rank": rank, "world_size": processes}
    model.eval()
    for x, y in batches(data.x_test, data.y_test, TEST_BATCH, shuffle=False, **view):
        with _autocast(x, config, training=False):
            logits = model(layout(x, config)).float()
        loss_sum += F.cross_entropy(logits, y, reduction="sum")
        correct += torch.bincount(y[logits.argmax(1) == y], minlength=classes)
        count += torch.bincount(y, minlength=classes)
    add_up(correct, count, loss_sum)
    per_class = zip(correct.tolist(), count.tolist(), strict=True)
    return {
        "top1_percent": float(100 * correct.sum() / count.sum()),
        "loss": float(loss_sum / count.sum()),
        "per_class_percent": [100 * right / images if images else None for right, images in per_class],
    }


def _result(setup: Setup, tested: dict[str, Any]) -> TrainResult:
    """What a run has measured when its last epoch is done."""
    model, data, config = setup.model, setup.data, setup.config
    codes, counts = codes_of(model), parameter_counts(model)
    seconds = sum(epoch["seconds"] for epoch in setup.epochs)
    metrics = {
        "top1_percent": tested["top1_percent"],
        "test_loss": tested["loss"],
        "final_train_loss": setup.epochs[-1]["train_loss"],
        "density": density(codes),
        "effectual_weights": round(density(codes) * counts["quantized"]),
        "quantized_weights": counts["quantized"],
        "total_parameters": counts["total"],
        "weight_bits": weight_bits(model),
        "images_per_second": setup.steps * config.epochs * config.batch_size / seconds,
        "train_seconds": seconds,
    }
    history = {
        "epochs": setup.epochs,
        "latent": latent_histograms(model, codes),
        "layers": layer_table(codes),
        "response": response(setup.quantizer),
        "per_class_percent": tested["per_class_percent"],
        "classes": list(data.classes),
    }
    if config.robustness:
        history["robustness"] = robustness.measure(model, data, seed=config.seed)
    return TrainResult(model, metrics, history, data.sha256, data.label, setup.checkpoints)
