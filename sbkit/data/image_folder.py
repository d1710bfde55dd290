"""Anybody's images in `train/<class>/` and `test/<class>/` (or `val`), which is ImageNet's layout.

They are decoded once into files in `data/cache`, which serve until a name, size or time below the folder changes. The
files are verified on each load and mapped: processes share them, and read what they use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import math
import mmap
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbkit.data.dataset import Dataset, levels, mean_std
from sbkit.records import write_atomic

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP", "GIF", "TIFF")  # of what has such a name; no other decoder is run
SYSTEM = ("__MACOSX", "lost+found", "System Volume Information")
DECODE_BLOCK = 256  # images decoded before they are written
MAX_DECODES = 3  # of one image folder, in one process

Images = list[tuple[Path, int]]  # each image's file and the index of its class

log = logging.getLogger(__name__)


def find(root: Path, tree: Path, image_size: int) -> Dataset:
    """The images of `tree` in `image_size` pixels: centre square, mean over areas, enlarged where they are smaller.

    0 leaves them as they are, which must then be one size. A file `tree/label.txt` may hold the name for figures, one
    line; otherwise it is the folder's. Images are grey where all are, otherwise RGB: upright as EXIF says, 16 bits
    brought to 8, transparent pixels on white, of animations the first picture, colour profiles not applied. What is
    hidden, a system's or no image by its name is left out with a warning.
    Raises FileNotFoundError for a folder without images, ValueError for what cannot be read or converted.
    """
    classes, parts = _listed(tree)
    home = tree.resolve()
    listing = [f"{path.relative_to(tree)} {_stamp(path)}" for images in parts.values() for path, _ in images]
    key = hashlib.sha256(os.fsencode("\n".join([str(image_size), str(home), *listing]))).hexdigest()[:16]
    stem = root / "cache" / f"{home.name[:40]}-{key}"
    # Verified outside the lock: of many processes one decodes, and then all verify at the same time.
    tries = 0
    while (kept := _read_cache(stem, parts)) is None:
        tries += 1
        if tries > MAX_DECODES:
            raise OSError(f"{stem}.* were written {MAX_DECODES} times and damaged each time; is the disk failing?")
        with _alone(stem):
            if not _file(stem, "json").exists():
                _write_cache(stem, parts, image_size)
                log.info("%s: decoded %d images to %s-*", tree.name, len(listing), stem)
    labels = {f"y_{part}": torch.tensor([y for _, y in images], dtype=torch.int64) for part, images in parts.items()}
    return Dataset(f"image_folder:{tree}", _label(tree), classes=classes, **kept, **labels)


def _label(tree: Path) -> str:
    path = tree / "label.txt"
    try:
        label = (path.read_text(encoding="utf-8").strip() if path.exists() else "") or tree.resolve().name
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    if not label.isprintable():
        raise ValueError(f"the label {label!r} of {tree} is not one line of printable text; write one into {path}")
    return label


# The images of a folder


def _listed(tree: Path) -> tuple[tuple[str, ...], dict[str, Images]]:
    """The classes and {"train": images, "test": images}, both sorted by name."""
    folders = {"train": tree / "train", "test": tree / "test" if (tree / "test").is_dir() else tree / "val"}
    found, left_out = {}, []
    for part, folder in folders.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist; an image folder holds train/<class>/ and test/<class>/")
        entries = sorted(folder.iterdir())
        kept = [entry for entry in entries if entry.is_dir() and not _of_system(entry.name)]
        left_out += [entry for entry in entries if entry not in kept]
        found[part] = {entry.name: _images(entry, left_out) for entry in kept}
        if not any(found[part].values()):
            raise FileNotFoundError(f"{folder} holds no image; allowed: <class>/*{{{','.join(SUFFIXES)}}}")
    if unknown := found["test"].keys() - found["train"].keys():
        named = ", ".join(sorted(unknown)[:8])
        raise ValueError(f"{folders['test']} holds classes that {folders['train']} lacks: {named}")
    for name, images in found["train"].items():
        if not images or not name.isprintable():  # a name that is not UTF-8 has no printable form
            what = "a class without images" if name.isprintable() else "a class whose name is not printable UTF-8"
            raise ValueError(f"{str(folders['train'] / name)!r} is {what}; fill, rename or remove it")
    if left_out:
        named = ", ".join(str(path.relative_to(tree)) for path in left_out[:8])
        log.warning("%s: left out %d hidden or foreign files and folders: %s", tree, len(left_out), named)
    classes = tuple(found["train"])
    if untested := [name for name in classes if not found["test"].get(name)]:
        log.warning("%s has no images of: %s", folders["test"], ", ".join(untested[:8]))
    return classes, {
        part: [(p, y) for y, name in enumerate(classes) for p in of.get(name, ())] for part, of in found.items()
    }


def _of_system(name: str) -> bool:
    """Whether a file or folder is hidden, or made by an operating or storage system (`@eaDir`, `#recycle`, `$...`)."""
    return name.startswith((".", "@", "#", "$")) or name in SYSTEM


def _images(folder: Path, left_out: list[Path]) -> list[Path]:
    """All images below a folder, sorted. What is no image by its name, or a system's, is added to `left_out`."""
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        if os.path.realpath(parent) in seen:
            raise ValueError(f"{parent} leads back to a folder whose images count already")
        seen.add(os.path.realpath(parent))
        left_out += [Path(parent, name) for name in folders if _of_system(name)]
        folders[:] = [name for name in folders if not _of_system(name)]
        for name in files:
            fits = name.lower().endswith(SUFFIXES) and not _of_system(name)
            (found if fits else left_out).append(Path(parent, name))
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _stamp(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a file")
    return f"{status.st_size} {status.st_mtime_ns}"


# Decoding


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The image at `path`; whatever goes wrong with it names the file."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except Exception as error:  # decoders raise errors of every kind for damaged and oversized images
        raise ValueError(f"{path} is not a readable image: {error}") from error


def _is_grey(path: Path) -> bool:
    with _opened(path) as image:
        return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def pixels(path: Path, mode: str, image_size: int) -> np.ndarray:
    """One image, uint8 (C, H, W), of mode "L" or "RGB", as `find` converts it.

    Raises ValueError naming a file that cannot be read or converted.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
            raise ValueError(f"mode {image.mode} of {image.format} has no stated range of levels")
        if image.mode.startswith("I") and image.format == "TIFF":  # which Pillow reads as if they were full and upright
            bits, meaning = (image.tag_v2.get(tag) for tag in (258, 262))
            if bits != (16,) or meaning != 1:
                raise ValueError(f"levels of {bits} bits, photometric interpretation {meaning}; allowed: 16 bits, 1")
        clear = image.info.get("transparency")
        if isinstance(clear, tuple) and any(level > 255 and level % 257 for level in clear):  # of 16-bit colours
            raise ValueError(f"transparent colour {clear}, which 8 bits cannot tell from others")
        if image.mode.startswith("I"):  # 16 bits
            values = np.asarray(image).astype(np.int64)
            values[values == image.info.get("transparency", -1)] = 65535
            image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert(mode)
        if image_size:
            enlarge = min(image.size) < image_size  # as some of ImageNet's must be
            method = Image.Resampling.BICUBIC if enlarge else Image.Resampling.BOX
            image = ImageOps.fit(image, (image_size, image_size), method)
        values = np.asarray(image)
    return values[None] if mode == "L" else values.transpose(2, 0, 1)


def _blocks(parts: dict[str, Images], image_size: int) -> Iterator[tuple[str, np.ndarray]]:
    """The part and uint8 (n, C, H, W), all images in order: one C, H and W for both parts."""
    every = [path for images in parts.values() for path, _ in images]
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        some = (every[start : start + DECODE_BLOCK] for start in range(0, len(every), DECODE_BLOCK))
        mode = "L" if all(all(pool.map(_is_grey, paths)) for paths in some) else "RGB"
        shape = None
        for part, images in parts.items():
            for start in range(0, len(images), DECODE_BLOCK):
                paths = [path for path, _ in images[start : start + DECODE_BLOCK]]
                block = list(pool.map(partial(pixels, mode=mode, image_size=image_size), paths))
                shape = shape or block[0].shape
                for path, image in zip(paths, block, strict=True):
                    if image.shape != shape:
                        raise ValueError(f"{path} has shape {image.shape}, {every[0]} {shape}; set image_size")
                yield part, np.ascontiguousarray(np.stack(block))


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
    for part, blocks in itertools.groupby(_blocks(parts, image_size), lambda found: found[0]):
        partial = _file(stem, f"x_{part}.partial")  # one name, so that nothing piles up where runs are killed
        digest, counts = hashlib.sha256(), 0
        try:
            with open(partial, "wb") as file:
                for _, block in blocks:
                    file.write(block)
                    digest.update(block)
                    counts = counts + levels(torch.from_numpy(block))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, _file(stem, f"x_{part}"))
        finally:
            partial.unlink(missing_ok=True)
        index[f"x_{part}"] = {"shape": [len(parts[part]), *block.shape[1:]], "sha256": digest.hexdigest()}
        if part == "train":
            index["mean"], index["std"] = mean_std(counts)
    content = json.dumps(index).encode()
    write_atomic(_file(stem, "json"), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def _read_cache(stem: Path, parts: dict[str, Images]) -> dict[str, Any] | None:
    """x_train, x_test (mapped), mean, std and sha256 of a Dataset; None where there is no cache or it is damaged."""
    path = _file(stem, "json")
    if not path.exists():
        return None
    try:
        digest, content = path.read_bytes().split(b"\n", 1)
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise ValueError("the index does not fit its checksum")
        index = json.loads(content)
        found = {key: tuple(map(float, index[key])) for key in ("mean", "std")} | {"sha256": {}}
        channels = index["x_train"]["shape"][1]
        if any(len(found[key]) != channels or not all(map(math.isfinite, found[key])) for key in ("mean", "std")):
            raise ValueError("its mean or std is not a finite number for each channel")
        for part, images in parts.items():
            n, C, H, W = index[f"x_{part}"]["shape"]
            x = found[f"x_{part}"] = _mapped(_file(stem, f"x_{part}"), (n, C, H, W))
            found["sha256"][f"x_{part}"] = hashlib.sha256(x.numpy()).hexdigest()
            if n != len(images) or found["sha256"][f"x_{part}"] != index[f"x_{part}"]["sha256"]:
                raise ValueError(f"x_{part} does not fit its checksum")
        return found
    except Exception as error:  # whatever the index holds
        log.warning("%s is damaged (%s: %s): decoding again", stem, type(error).__name__, error)
        path.unlink(missing_ok=True)
        return None


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """uint8 pixels of a file, read where they are used. What is written to them stays in this process's memory.

    Linux would count a mapping that takes writes as memory in use, unless it is told not to reserve any. Where it does
    so nevertheless (strict overcommit), the mapping takes no writes. No tensor can refuse them: a warning says so.
    """
    flags = mmap.MAP_PRIVATE | (0x4000 if sys.platform == "linux" else 0)  # MAP_NORESERVE, which Python 3.13 names
    with open(path, "rb") as file, warnings.catch_warnings():
        size = file.fileno(), math.prod(shape)
        try:
            pixels = mmap.mmap(*size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            log.warning("%s is too large to be mapped for writing here: a write to it would end the process", path)
            warnings.filterwarnings("ignore", "The given buffer is not writable")  # torch, without the name
            pixels = mmap.mmap(*size, flags=flags, prot=mmap.PROT_READ)
        return torch.frombuffer(pixels, dtype=torch.uint8).view(shape)
