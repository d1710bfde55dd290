"""CIFAR-10: 50,000 and 10,000 colour images of 32x32 pixels. torchvision checks each file's MD5 on every load."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from sbkit.data.dataset import Dataset
from sbkit.data.torchvision import import_torchvision

log = logging.getLogger(__name__)


def find(root: Path) -> Dataset:
    CIFAR10 = import_torchvision().datasets.CIFAR10
    folder = root / CIFAR10.base_folder
    if not folder.exists():
        _download(CIFAR10, root, folder)
    try:
        train, test = (CIFAR10(root, train=train) for train in (True, False))
    except RuntimeError as error:
        raise ValueError(f"{folder} is incomplete or damaged ({error}). Delete it and load again.") from error
    arrays = []
    for part in (train, test):
        x = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))  # (n, H, W, C) -> (n, C, H, W)
        arrays += [torch.from_numpy(x), torch.tensor(part.targets)]
    return Dataset("cifar10", "CIFAR-10", *arrays, tuple(train.classes))


def _download(CIFAR10: type, root: Path, folder: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as temporary:
        try:
            CIFAR10(temporary, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"CIFAR-10 is not in {folder} and its download failed ({error}). Unpack {CIFAR10.filename} from "
                f"{CIFAR10.url} into {root}."
            ) from error
        # Another process may have put the same verified files there meanwhile.
        with contextlib.suppress(OSError):
            os.rename(Path(temporary) / CIFAR10.base_folder, folder)
    log.info("CIFAR-10: downloaded to %s", folder)
