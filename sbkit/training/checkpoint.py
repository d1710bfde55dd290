"""Checkpoints: of a run under way, to continue from, and of a finished run, which others learn or start from."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sbkit.models import quant_layers
from sbkit.quantizers import QuantizerConfig
from sbkit.records import write_atomic
from sbkit.training.config import TrainConfig


def save_state(path: str | os.PathLike, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getbuffer())


def load_state(path: str | os.PathLike, device: torch.device, advice: str) -> tuple[dict[str, Any], str]:
    """What `save_state` wrote, and the sha256 of the file. Raises ValueError, with this advice, for a damaged file."""
    try:
        content = Path(path).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:  # torch leaves its checksums unchecked
            if part := archive.testzip():
                raise ValueError(f"the checksum of {part} does not fit")
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except Exception as error:  # torch and zipfile raise errors of every kind for a damaged file
        unsafe = isinstance(error, pickle.UnpicklingError)  # torch would advise to load it nevertheless
        reason = "it holds more than tensors" if unsafe else (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is not a readable checkpoint ({reason}); {advice}") from error
    return state, hashlib.sha256(content).hexdigest()


def load_finished(
    option: str, path: str, device: torch.device
) -> tuple[TrainConfig, QuantizerConfig, dict[str, Tensor], str]:
    """Both configurations and the model's state of the finished run that `option` names by its checkpoint, whose sha256
    is the last.

    Raises FileNotFoundError where there is none, ValueError for a file that is something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{option} = {path!r} is not a file; allowed: checkpoints/<name>.pt of a finished run")
    state, sha256 = load_state(path, device, f"{option} needs checkpoints/<name>.pt of a finished run: make it again")
    model = state.get("model")
    if not {"train_config", "quantizer_config"} <= set(state) or not isinstance(model, dict):
        raise ValueError(f"{option} = {path!r} is not the checkpoint of a finished run, checkpoints/<name>.pt")
    if not all(isinstance(value, Tensor) and _is_plain(value, device) for value in model.values()):
        raise ValueError(f"{option} = {path!r} holds weights that are not finite float32 numbers")
    try:
        return (
            TrainConfig(**state["train_config"]),
            QuantizerConfig(**state["quantizer_config"]),
            state["model"],
            sha256,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{option} = {path!r} is of another version of sbkit: {error}") from error


def _is_plain(value: Tensor, device: torch.device) -> bool:
    """Whether it is of a kind that a network's state has: nothing that loading would convert or stop at."""
    dense = value.layout is torch.strided and value.device.type == device.type
    return dense and value.dtype in (torch.float32, torch.int64, torch.bool) and bool(value.isfinite().all())


@torch.no_grad()
def start_from(path: str, model: nn.Module, config: TrainConfig, device: torch.device) -> str:
    """Give the model the weights of the finished run at `path`, of any scheme, and the signs that follow from them.

    All parameters and the statistics of batch norms that both networks have, by name and shape, are taken; the signs of
    regions and channels stay those of this run. Returns the sha256 of the file.
    Raises ValueError where a layer's latent weights do not fit.
    """
    kept, _, state, sha256 = load_finished("start_from", path, device)
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
    return sha256


def weights_sha256(model: nn.Module) -> str:
    """sha256 over all parameters and buffers, in order: equal for two models that agree in every bit."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
