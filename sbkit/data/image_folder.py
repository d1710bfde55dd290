"""Anybody's images in `train/<class>/` and `test/<class>/` (or `val`), which is ImageNet's layout.

They are decoded once into files in `data/cache`, which serve until a name, size or time below the folder changes. The
files are verified on each load and mapped: processes share them, and read what they use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbkit.data.dataset import Dataset, levels, mean_std
from sbkit.records import write_atomic

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".webp")
DECODE_BLOCK = 256  # images decoded before they are written
MAX_DECODES = 3  # of one image folder, in one process

Images = list[tuple[Path, int]]  # each image's file and the index of its class

log = logging.getLogger(__name__)


def find(root: Path, tree: Path, image_size: int) -> Dataset:
    """The images of `tree` in `image_size` pixels: centre square, mean over areas, enlarged where they are smaller.

    0 leaves them as they are, which must then be one size. A file `tree/label.txt` may hold the name for figures, which
    otherwise is the folder's. Raises FileNotFoundError for a folder without images, ValueError for unreadable ones.
    """
    classes, parts = _listed(tree)
    listing = [f"{path.relative_to(tree).as_posix()} {_stamp(path)}" for images in parts.values() for path, _ in images]
    key = hashlib.sha256("\n".join([str(image_size), *listing]).encode()).hexdigest()[:16]
    stem = root / "cache" / f"{tree.resolve().name}-{key}"
    # Verified outside the lock: of many processes one decodes, and then all verify at the same time.
    tries = 0
    while (kept := _read_cache(stem)) is None:
        tries += 1
        if tries > MAX_DECODES:
            raise OSError(f"{stem}.* were written {MAX_DECODES} times and damaged each time; is the disk failing?")
        with _alone(stem):
            if not _file(stem, "json").exists():
                _write_cache(stem, parts, image_size)
                log.info("%s: decoded %d images to %s-*", tree.name, len(listing), stem)
    index, arrays = kept
    label = tree / "label.txt"
    return Dataset(
        f"image_folder:{tree}",
        label.read_text(encoding="utf-8").strip() if label.exists() else tree.resolve().name,
        **{f"x_{part}": arrays[part] for part in parts},
        **{f"y_{part}": torch.tensor([y for _, y in images], dtype=torch.int64) for part, images in parts.items()},
        classes=classes,
        mean=tuple(index["mean"]),
        std=tuple(index["std"]),
        sha256={f"x_{part}": index[f"x_{part}"]["sha256"] for part in parts},
    )


def _listed(tree: Path) -> tuple[tuple[str, ...], dict[str, Images]]:
    """The classes and {"train": images, "test": images}, both sorted by name."""
    folders = {"train": tree / "train", "test": tree / "test" if (tree / "test").is_dir() else tree / "val"}
    for folder in folders.values():
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist; an image folder holds train/<class>/ and test/<class>/")
    train, test = ({entry.name for entry in folder.iterdir() if entry.is_dir()} for folder in folders.values())
    if unknown := test - train:
        named = ", ".join(sorted(unknown)[:8])
        raise ValueError(f"{folders['test']} holds classes that {folders['train']} lacks: {named}")
    classes, parts = tuple(sorted(train)), {}
    for part, folder in folders.items():
        found = ((path, y) for y, name in enumerate(classes) for path in sorted((folder / name).rglob("*")))
        parts[part] = [(path, y) for path, y in found if path.suffix.lower() in SUFFIXES]
        if not parts[part]:
            raise FileNotFoundError(f"{folder} holds no image; allowed: <class>/*{{{','.join(SUFFIXES)}}}")
    return classes, parts


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


# Decoding


def _decode(paths: list[Path], image_size: int) -> Iterator[np.ndarray]:
    """Blocks of uint8 (n, C, H, W), in order: grey if the first image is, otherwise RGB."""
    from PIL import Image, ImageOps

    with Image.open(paths[0]) as first:
        mode = "L" if first.mode in ("1", "L", "I;16") else "RGB"

    def decode(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                image = image.convert(mode)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path} is not a readable image: {error}") from error
        if image_size:
            enlarge = min(image.size) < image_size  # as some of ImageNet's must be
            method = Image.Resampling.BICUBIC if enlarge else Image.Resampling.BOX
            image = ImageOps.fit(image, (image_size, image_size), method)
        pixels = np.asarray(image)
        return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)

    shape = None
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        for start in range(0, len(paths), DECODE_BLOCK):
            some = paths[start : start + DECODE_BLOCK]
            images = list(pool.map(decode, some))
            shape = shape or images[0].shape
            for path, image in zip(some, images, strict=True):
                if image.shape != shape:
                    raise ValueError(f"{path} has shape {image.shape}, {paths[0]} {shape}; set image_size")
            yield np.ascontiguousarray(np.stack(images))


# The cache: <stem>.x_train and <stem>.x_test hold bare pixels, <stem>.json an index of them behind its own sha256


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}")


@contextlib.contextmanager
def _alone(stem: Path) -> Iterator[None]:
    """One process at a time. The system takes the lock from a process that was killed."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with open(_file(stem, "lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_cache(stem: Path, parts: dict[str, Images], image_size: int) -> None:
    """The pixels of each part, uint8 (n, C, H, W) without any header, and last the index."""
    index = {}
    for part, images in parts.items():
        partial = _file(stem, f"x_{part}.partial")  # one name, so that nothing piles up where runs are killed
        digest, counts = hashlib.sha256(), 0
        try:
            with open(partial, "wb") as file:
                for block in _decode([path for path, _ in images], image_size):
                    file.write(block)
                    digest.update(block)
                    counts = counts + levels(torch.from_numpy(block))
            os.replace(partial, _file(stem, f"x_{part}"))
        finally:
            partial.unlink(missing_ok=True)
        index[f"x_{part}"] = {"shape": [len(images), *block.shape[1:]], "sha256": digest.hexdigest()}
        if part == "train":
            index["mean"], index["std"] = mean_std(counts)
    content = json.dumps(index).encode()
    write_atomic(_file(stem, "json"), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def _read_cache(stem: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The index and the mapped pixels by part; None if there is no cache or a checksum fails."""
    path = _file(stem, "json")
    if not path.exists():
        return None
    try:
        digest, content = path.read_bytes().split(b"\n", 1)
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise ValueError("the index does not fit its checksum")
        index, arrays = json.loads(content), {}
        for part in ("train", "test"):
            known = index[f"x_{part}"]
            array = np.memmap(_file(stem, f"x_{part}"), np.uint8, "r", shape=tuple(known["shape"]))
            if hashlib.sha256(array).hexdigest() != known["sha256"]:
                raise ValueError(f"x_{part} does not fit its checksum")
            arrays[part] = _mapped(array)
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s): decoding again", stem, error)
        path.unlink(missing_ok=True)
        return None
    return index, arrays


def _mapped(array: np.ndarray) -> Tensor:
    """The array as a tensor that nothing may write to. (A mapping that takes writes would count as memory in use.)"""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
