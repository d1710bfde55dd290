"""One run and the files it leaves: a record, the weight codes, and a checkpoint that others learn or start from."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sbkit import records
from sbkit.checks import stem
from sbkit.conv import save_weights
from sbkit.models import quantized_weights
from sbkit.quantizers import QuantizerConfig
from sbkit.training.checkpoint import save_state, weights_sha256
from sbkit.training.config import CHECKPOINTS, TrainConfig, configuration, options
from sbkit.training.loop import TrainResult, train
from sbkit.training.processes import device, group
from sbkit.training.progress import chosen


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

    A run that was stopped continues from checkpoints/<name>.partial.pt, which goes away with success. A run that is
    finished is not trained again: its record is returned. Of several processes, rank 0 writes.
    Raises what `train` raises, and ValueError where `name` is the record of another configuration.
    """
    started = records.start()
    settings = configuration(config, quantizer)
    identity = records.run_id(quantizer.quantizer, settings)
    name = name or identity
    stem("name", name)
    folder = Path(folder)
    path = folder / "records" / "train" / f"{name}.json"
    kept = folder / "checkpoints" / f"{name}.pt"
    weights = folder / "weights" / f"{name}.npz"
    partial = kept.with_suffix(".partial.pt")

    if path.exists():
        record = records.load(path)
        if record.id != identity:
            raise ValueError(_clash(path, record, identity, options(config, quantizer)))
        complete = kept.exists() and (weights.exists() or not record.history["layers"])
        if complete and (not config.robustness or "robustness" in record.history):
            if group()[0] == 0 and chosen(progress) != "none":
                top1 = record.metrics["top1_percent"]
                print(f"{name} is finished: top-1 {top1:.2f} %. To train it again, delete {path}", flush=True)
            return record

    result = train(config, quantizer, checkpoint=partial, progress=progress, threads=threads)
    provenance = _provenance(config, quantizer, result, started)
    record = records.Record("train", identity, settings, result.metrics, result.history, provenance)
    if group()[0] == 0:
        if codes := quantized_weights(result.model):
            save_weights(weights, codes)
        state = {"train_config": asdict(config), "quantizer_config": asdict(quantizer)}
        save_state(kept, state | {"model": result.model.state_dict()})
        records.write(record, path)
        partial.unlink(missing_ok=True)
    return record


def _clash(path: Path, record: records.Record, identity: str, ours: dict[str, Any]) -> str:
    """What tells the record at `path` from this run, whose id and options are given."""
    theirs = record.provenance.get("options", {})
    differ = [f"{key} = {theirs[key]!r}, here {ours[key]!r}" for key in ours if theirs.get(key, ours[key]) != ours[key]]
    return (
        f"{path} is the record {record.id} of another configuration than {identity} ({'; '.join(differ)}); use another "
        "name, or delete that file"
    )


def _provenance(
    config: TrainConfig, quantizer: QuantizerConfig, result: TrainResult, started: records.Started
) -> dict[str, Any]:
    extra = {
        "data_label": result.data_label,
        "device": torch.cuda.get_device_name(device()) if torch.cuda.is_available() else "cpu",
        "processes": group()[1],
        "weights_sha256": weights_sha256(result.model),
    }
    for option, key in CHECKPOINTS.items():
        if path := getattr(config, option):
            extra[key] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return records.provenance(
        threads=torch.get_num_threads(),
        started=started,
        options=options(config, quantizer),
        seeds={"seed": config.seed},
        data_sha256=result.data_sha256,
        extra=extra,
    )
