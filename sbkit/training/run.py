"""One run and the files it leaves: a record, the weight codes, and a checkpoint that others learn or start from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import asdict, replace
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
from sbkit.training.setup import load_data


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
    Raises what `train` raises, and ValueError where `name` is the record of another configuration, of other images, of
    another teacher or start, and for a folder that cannot be written.
    """
    started = records.start()
    settings = configuration(config, quantizer)
    identity = records.run_id(quantizer.quantizer, settings)
    name = name or identity
    stem("name", name)
    if not os.fspath(folder):
        raise ValueError("folder = ''; allowed: the path of a folder, which is made where it is not there")
    folder = Path(folder)
    path = folder / "records" / "train" / f"{name}.json"
    kept = folder / "checkpoints" / f"{name}.pt"
    weights = folder / "weights" / f"{name}.npz"
    partial = kept.with_suffix(".partial.pt")

    if path.exists():
        record = records.load(path)
        _check_same(path, record, identity, config, quantizer)
        complete = kept.exists() and (weights.exists() or not record.history["layers"])
        if complete and (not config.robustness or "robustness" in record.history):
            if group()[0] == 0 and chosen(progress) != "none":
                top1 = record.metrics["top1_percent"]
                print(f"{name} is finished: top-1 {top1:.2f} %. To train it again, delete {path}", flush=True)
            return record

    for file in (path, kept, weights):
        _check_writable(folder, file.parent)
    result = train(config, quantizer, checkpoint=partial, progress=progress, threads=threads)
    provenance = _provenance(config, quantizer, result, started)
    record = records.Record("train", identity, settings, result.metrics, result.history, provenance)
    if group()[0] == 0:
        if codes := quantized_weights(result.model):
            save_weights(weights, codes)
        state = {"train_config": asdict(replace(config, robustness=False)), "quantizer_config": asdict(quantizer)}
        save_state(kept, state | {"model": result.model.state_dict()})
        records.write(record, path)
        partial.unlink(missing_ok=True)
    return record


def _check_same(
    path: Path, record: records.Record, identity: str, config: TrainConfig, quantizer: QuantizerConfig
) -> None:
    """Raises ValueError unless the record at `path` is of this run: its id, and what it was trained on and from.

    Checkpoints and folders of images have the same name anywhere, so their contents count, where they are still there.
    """
    ours, theirs = options(config, quantizer), record.provenance.get("options", {})
    differ = [f"{key} = {theirs[key]!r}, here {ours[key]!r}" for key in ours if theirs.get(key, ours[key]) != ours[key]]
    if record.id == identity:
        files = {key: Path(getattr(config, option)) for option, key in CHECKPOINTS.items() if getattr(config, option)}
        found = {key: hashlib.sha256(file.read_bytes()).hexdigest() for key, file in files.items() if file.is_file()}
        folder = config.dataset.partition(":")[2]
        if folder and Path(folder).expanduser().exists():
            found["data_sha256"] = load_data(config).sha256
        differ = [f"{key} differs" for key in found if record.provenance.get(key, found[key]) != found[key]]
        if not differ:
            return
    raise ValueError(
        f"{path} is the record {record.id} of another run than {identity} ({'; '.join(differ)}). A finished run is not "
        "trained further: use another name, or delete that file"
    )


def _check_writable(folder: Path, place: Path) -> None:
    """Raises ValueError unless a file can be made at `place`, below `folder`, or where `place` would be made."""
    while not os.path.lexists(place):
        place = place.parent
    try:
        tempfile.TemporaryFile(dir=place).close()  # it has no name, so nothing is left of it
    except OSError as error:
        raise ValueError(f"folder = {str(folder)!r} cannot be written: {error}") from error


def _provenance(
    config: TrainConfig, quantizer: QuantizerConfig, result: TrainResult, started: records.Started
) -> dict[str, Any]:
    extra = {
        "data_label": result.data_label,
        "device": torch.cuda.get_device_name(device()) if torch.cuda.is_available() else "cpu",
        "processes": group()[1],
        "weights_sha256": weights_sha256(result.model),
        **result.checkpoints,
    }
    return records.provenance(
        threads=torch.get_num_threads(),
        started=started,
        options=options(config, quantizer),
        seeds={"seed": config.seed},
        data_sha256=result.data_sha256,
        extra=extra,
    )
