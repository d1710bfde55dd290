"""Data sets as uint8 tensors, in memory or mapped from files: finding, checking, batching, augmenting.

`load` finds a data set (and fetches it where it can), verifies it and returns all images at once; `batches` shuffles,
crops, flips and normalizes whole batches with tensor operations, so that data never limits training. From a shell,
`python -m sbkit.data NAME` fetches a data set and says what was found where.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gzip
import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sbkit.records import write_atomic

NAMES = ("digits", "fashion_mnist", "cifar10", "image_folder:<path>")
AUGMENTATIONS = ("none", "crop_flip", "resized_crop")
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".webp")
DECODE_BLOCK = 256  # images decoded before they are written
MAX_DECODES = 3  # of one image folder, in one process

FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""sha256 of the four files as unpacked; the .gz files differ between distributors, their content does not."""

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set, in memory; an image folder's images are mapped from a file and read when they are used.

    name      what `load` was asked for
    label     how figures call it, such as "Fashion-MNIST"
    x_train   uint8 (n, C, H, W); x_test likewise, 7/8 as high and wide where x_train has a margin
    y_train   int64 (n,), indices into `classes`; y_test likewise
    mean, std of the training images, one per channel, in units of [0, 1]
    sha256    of the bytes of x_train, y_train, x_test, y_test as loaded, before a subset, a resize or a crop
    """

    name: str
    label: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    sha256: dict[str, str] | None = None


def load(
    name: str,
    *,
    root: str | os.PathLike | None = None,
    train_images: int = 0,
    image_size: int = 0,
    margin: bool = False,
    seed: int = 0,
) -> Dataset:
    """A verified data set; `root` is where files are kept, by default the repository's `data` folder.

    `train_images` > 0 keeps that many training images, drawn from `seed`, in memory. `image_size` > 0 averages pixels
    down to that height and width. With `margin`, which "resized_crop" wants, training images are 8/7 as large, 256
    pixels for 224 (native ones: as they are), and test images the middle of such. Raises ValueError for a wrong name or
    number and for damaged files, FileNotFoundError for a data set that is not here and cannot be fetched; both say what
    to do.
    """
    if train_images < 0 or image_size < 0:
        raise ValueError(f"train_images = {train_images}, image_size = {image_size}; allowed: 0 or more")
    kind, _, path = name.partition(":")
    root = data_folder() if root is None else Path(root)
    size = -(-image_size * 8 // 7) if margin else image_size
    if kind == "image_folder" and path:
        data = _image_folder(Path(path).expanduser(), root / "cache", size)
    elif name in _LOADERS:
        data = _LOADERS[name](root)
    else:
        raise ValueError(f"data set {name!r}; allowed: {', '.join(NAMES)}")

    count, native = len(data.x_train), min(data.x_train.shape[2:])
    if train_images > count:
        raise ValueError(f"train_images = {train_images}; allowed for {name}: 0 (all) to {count}")
    if size > native:
        raise ValueError(
            f"image_size = {image_size} pixels; allowed for {name}: 0 (native) to {_inner(native, margin)}"
        )

    arrays = {key: getattr(data, key) for key in ("x_train", "y_train", "x_test", "y_test")}
    known = data.sha256 or {}
    sha256 = {key: known.get(key) or hashlib.sha256(value.numpy()).hexdigest() for key, value in arrays.items()}
    x_train, y_train, x_test = data.x_train, data.y_train, data.x_test
    if train_images:
        kept = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:train_images]
        x_train, y_train = x_train[kept], y_train[kept]
    if size:
        x_train, x_test = _resize(x_train, size), _resize(x_test, size)
    H, W = x_test.shape[2:]
    h, w = _inner(H, margin), _inner(W, margin)
    x_test = x_test[:, :, (H - h) // 2 :, (W - w) // 2 :][:, :, :h, :w]
    mean, std = data.mean, data.std
    if train_images or not mean:
        mean, std = _mean_std(sum(map(_levels, x_train.split(4096))))
    return replace(data, name=name, x_train=x_train, y_train=y_train, x_test=x_test, mean=mean, std=std, sha256=sha256)


def data_folder() -> Path:
    """`data` in the repository: beside the package, or in the folder that SBKIT_ROOT names."""
    return Path(os.environ.get("SBKIT_ROOT") or Path(__file__).resolve().parents[1]) / "data"


def _inner(side: int, margin: bool = True) -> int:
    """Pixels of a side within its margin, 224 of 256."""
    return side * 7 // 8 if margin else side


def _resize(x: torch.Tensor, size: int) -> torch.Tensor:
    """Mean over areas, uint8 (n, C, H, W) -> (n, C, size, size); in blocks, as floats take four times the memory."""
    if x.shape[2:] == (size, size):
        return x
    blocks = x.split(4096)
    return torch.cat([F.adaptive_avg_pool2d(block.float(), size).round_().to(torch.uint8) for block in blocks])


def _levels(x: torch.Tensor) -> torch.Tensor:
    """How often each channel of x, uint8 (n, C, H, W), has each of the 256 levels: int64 (C, 256)."""
    return torch.stack([torch.bincount(x[:, channel].flatten(), minlength=256) for channel in range(x.shape[1])])


def _mean_std(counts: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in [0, 1], exact from the counts of the levels, int64 (C, 256)."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for count in counts:
        share = count.double() / count.sum()
        mean = (share * levels).sum()
        means.append(float(mean))
        stds.append(float((share * (levels - mean) ** 2).sum().sqrt()))
    return tuple(means), tuple(stds)


# Batches


def batches(
    x: torch.Tensor,
    y: torch.Tensor,
    batch_size: int,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    augment: str = "none",
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch of normalized batches: float32 (n, C, H, W) and int64 (n,) on `device`.

    x uint8 (N, C, H, W), y int64 (N,); of x is read, and sent to `device`, what a batch needs. With `shuffle` the order
    comes from `generator` (a CPU generator) and an incomplete last batch is left out; without it, batches follow the
    data to the end. "crop_flip" pads by 4 pixels (2 where images are smaller than 20), crops back at a random place and
    mirrors every second image. "resized_crop" resizes a window of 8 to 100 % of the area, 3/4 to 4/3 as wide as high,
    to 7/8 of the image's size and mirrors, like torchvision's RandomResizedCrop but with windows between pixels. Of
    each batch, this process gets the images rank, rank + world_size, ...: all processes together see the batches of
    one process.
    """
    if augment not in AUGMENTATIONS:
        raise ValueError(f"augment = {augment!r}; allowed: {', '.join(AUGMENTATIONS)}")
    if (shuffle or augment != "none") and generator is None:
        raise ValueError("generator = None; allowed with shuffle or augmentation: a torch.Generator")
    count = len(x)
    offset = torch.tensor(mean, device=device).view(1, -1, 1, 1) * 255
    factor = 1 / (torch.tensor(std, device=device).view(1, -1, 1, 1).clamp_min(1e-6) * 255)
    order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
    if generator is not None:
        # Drawn even if unused: the order of later epochs is then the same with and without augmentation.
        draws = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    for start in range(0, count - batch_size + 1 if shuffle else count, batch_size):
        indices = order[start : start + batch_size]
        mine = slice(rank, None, world_size)
        images, labels = (all_.index_select(0, indices[mine].to(all_.device)).to(device) for all_ in (x, y))
        if augment != "none":
            draw, apply = _AUGMENT[augment]
            images = apply(images, *(drawn[mine].to(device) for drawn in draw(images, indices, draws)))
        yield (images - offset) * factor, labels


def _padding(x: torch.Tensor) -> int:
    return 4 if min(x.shape[2:]) >= 20 else 2


def _draw_crop_flip(x: torch.Tensor, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Row and column offset and mirroring of each image of a whole batch, so that every process draws the same."""
    shape = indices.shape
    row, column = torch.randint(2 * _padding(x) + 1, (2, *shape), generator=generator)
    return row, column, torch.randint(2, shape, generator=generator).bool()


def _crop_flip(x: torch.Tensor, row: torch.Tensor, column: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Zero-padded windows of x (n, C, H, W) at (row, column), mirrored where `flip`; row, column, flip are (n,)."""
    H, W = x.shape[2:]
    windows = F.pad(x, (_padding(x),) * 4).unfold(2, H, 1).unfold(3, W, 1)  # (n, C, rows, columns, H, W), a view
    x = windows[torch.arange(len(x), device=x.device), :, row, column]
    return torch.where(flip[:, None, None, None], x.flip(3), x)


def _draw_resized_crop(x: torch.Tensor, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Centre and half height and width of each image's window, in halves of the image's; the latter < 0 mirrors."""
    H, W = x.shape[2:]
    tries = (len(indices), 10)
    area = torch.empty(tries).uniform_(0.08, 1, generator=generator)
    shape = torch.empty(tries).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    height, width = (area / shape * W / H).sqrt(), (area * shape * H / W).sqrt()
    fits = (height <= 1) & (width <= 1)
    first = fits.int().argmax(1, keepdim=True)  # of the tries that fit; where none does, the largest window
    height, width = (
        torch.where(fits.any(1), side.gather(1, first)[:, 0], min(1, 4 / 3 * most))
        for side, most in ((height, W / H), (width, H / W))
    )
    row, column = torch.empty((2, len(indices))).uniform_(-1, 1, generator=generator)
    mirror = 1 - 2 * torch.randint(2, indices.shape, generator=generator)
    return row * (1 - height), column * (1 - width), height, mirror * width


def _resized_crop(
    x: torch.Tensor, row: torch.Tensor, column: torch.Tensor, height: torch.Tensor, width: torch.Tensor
) -> torch.Tensor:
    """Those windows of x (n, C, H, W), bilinear, float32 (n, C, 7/8 H, 7/8 W)."""
    h, w = map(_inner, x.shape[2:])
    rows, columns = ((torch.arange(side, device=x.device) + 0.5) * 2 / side - 1 for side in (h, w))
    down = (row[:, None] + height[:, None] * rows)[:, :, None].expand(-1, h, w)
    across = (column[:, None] + width[:, None] * columns)[:, None, :].expand(-1, h, w)
    grid = torch.stack((across, down), 3)  # (n, h, w, 2), from -1 to 1 over the image
    return F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)


_AUGMENT = {"crop_flip": (_draw_crop_flip, _crop_flip), "resized_crop": (_draw_resized_crop, _resized_crop)}


# Data sets


def _digits(root: Path) -> Dataset:
    """1,797 digits of 8x8 grey pixels that ship with scikit-learn; every fifth image of a fixed shuffle is a test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))[:, None]
    y = torch.from_numpy(digits.target.astype(np.int64))
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(x)))
    test, train = order[:359], order[359:]
    return Dataset("digits", "Digits", x[train], y[train], x[test], y[test], tuple("0123456789"))


def _fashion_mnist(root: Path) -> Dataset:
    """60,000 and 10,000 clothes of 28x28 grey pixels; verified against FASHION_MNIST_SHA256 on every load."""
    raw = root / "FashionMNIST" / "raw"
    if not all((raw / name).exists() for name in FASHION_MNIST_SHA256):
        _obtain_fashion_mnist(raw)
    x_train, y_train, x_test, y_test = (_read_idx(raw / name, digest) for name, digest in FASHION_MNIST_SHA256.items())
    return Dataset(
        "fashion_mnist", "Fashion-MNIST", x_train[:, None], y_train.long(), x_test[:, None], y_test.long(),
        FASHION_MNIST_CLASSES,
    )  # fmt: skip


def _read_idx(path: Path, sha256: str) -> torch.Tensor:
    """One raw file: a big-endian header (magic number ending in the rank, then each dimension), then uint8 values."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{path} is damaged: its sha256 is {found}, expected {sha256}. Delete it and load again.")
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def _obtain_fashion_mnist(raw: Path) -> None:
    """Put the four raw files into `raw` from the first source that has them all, intact.

    Files arrive in a temporary folder, are verified and then moved into place one by one, so two processes that do this
    at once both succeed.
    """
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        sources = {
            str(raw): lambda: raw,
            str(DEBIAN_FOLDER): lambda: DEBIAN_FOLDER,
            f"apt-get download {DEBIAN_PACKAGE}": lambda: _fetch_debian_package(Path(temporary)),
            "torchvision's download": lambda: _fetch_torchvision(Path(temporary)),
        }
        for source, fetch in sources.items():
            try:
                contents = _read_fashion_mnist(fetch())
            except (OSError, EOFError, ValueError, ImportError, RuntimeError, subprocess.SubprocessError) as error:
                detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
                problems.append(f"  {source}: {detail[-1] if detail else type(error).__name__}")
                continue
            for name, content in contents.items():
                write_atomic(raw / name, content)
            log.info("Fashion-MNIST: found in %s, unpacked to %s", source, raw)
            return
    raise FileNotFoundError(
        "Fashion-MNIST was not found:\n" + "\n".join(problems) + f"\nInstall Debian's package {DEBIAN_PACKAGE}, or put "
        f"these files (or their .gz) into {raw}: {', '.join(FASHION_MNIST_SHA256)}"
    )


def _read_fashion_mnist(folder: Path) -> dict[str, bytes]:
    """The four verified files of a folder, each plain or as .gz."""
    contents = {}
    for name, sha256 in FASHION_MNIST_SHA256.items():
        path = folder / name
        content = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"{name} differs from the published file (sha256 {sha256})")
        contents[name] = content
    return contents


def _fetch_debian_package(folder: Path) -> Path:
    """Download and unpack Debian's package; needs apt-get and dpkg-deb but no root rights."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not installed")
    options = {"cwd": folder, "capture_output": True, "text": True, "check": True, "timeout": 300}
    subprocess.run(["apt-get", "download", "-o", "Acquire::http::Timeout=20", DEBIAN_PACKAGE], **options)
    (package,) = folder.glob(f"{DEBIAN_PACKAGE}_*.deb")
    subprocess.run(["dpkg-deb", "-x", package.name, "unpacked"], **options)
    return folder / "unpacked" / DEBIAN_FOLDER.relative_to("/")


def _fetch_torchvision(folder: Path) -> Path:
    import_torchvision().datasets.FashionMNIST(folder, download=True)
    return folder / "FashionMNIST" / "raw"


def _cifar10(root: Path) -> Dataset:
    """50,000 and 10,000 colour images of 32x32 pixels; torchvision checks the MD5 of every batch file on every load."""
    CIFAR10 = import_torchvision().datasets.CIFAR10
    folder = root / CIFAR10.base_folder
    if not folder.exists():
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
    try:
        train, test = (CIFAR10(root, train=train) for train in (True, False))
    except RuntimeError as error:
        raise ValueError(f"{folder} is incomplete or damaged ({error}). Delete it and load again.") from error
    arrays = []
    for part in (train, test):
        x = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))  # (n, H, W, C) -> (n, C, H, W)
        arrays += [torch.from_numpy(x), torch.tensor(part.targets)]
    return Dataset("cifar10", "CIFAR-10", *arrays, tuple(train.classes))


_LOADERS = {"digits": _digits, "fashion_mnist": _fashion_mnist, "cifar10": _cifar10}


def _image_folder(tree: Path, cache: Path, image_size: int) -> Dataset:
    """Images in `tree/train/<class>/` and `tree/test/<class>/` (or `val`); ImageNet's layout.

    Decoded once, in `image_size` pixels (centre square, mean over areas; what is smaller is enlarged) or, if that is 0,
    as they are, into files in `cache`, which serve until a name, size or time below `tree` changes. They are verified
    on each load and mapped: processes share them, and read what they use. A file `tree/label.txt` may hold the name for
    figures; otherwise it is the folder's.
    """
    train = tree / "train"
    test = tree / "test" if (tree / "test").is_dir() else tree / "val"
    for part in (train, test):
        if not part.is_dir():
            raise FileNotFoundError(f"{part} does not exist; an image folder holds train/<class>/ and test/<class>/")
    classes = tuple(sorted(entry.name for entry in train.iterdir() if entry.is_dir()))
    unknown = {entry.name for entry in test.iterdir() if entry.is_dir()} - set(classes)
    if unknown:
        raise ValueError(f"{test} holds classes that {train} lacks: {', '.join(sorted(unknown)[:8])}")
    files, labels = {}, {}
    for key, part in (("train", train), ("test", test)):
        found = {name: sorted((part / name).rglob("*")) for name in classes}
        images = [(path, y) for y, name in enumerate(classes) for path in found[name] if _is_image(path)]
        if not images:
            raise FileNotFoundError(f"{part} holds no image; allowed: <class>/*{{{','.join(IMAGE_SUFFIXES)}}}")
        files[f"x_{key}"], labels[f"y_{key}"] = zip(*images, strict=True)

    listing = [f"{path.relative_to(tree).as_posix()} {_stamp(path)}" for paths in files.values() for path in paths]
    key = hashlib.sha256("\n".join([str(image_size), *listing]).encode()).hexdigest()[:16]
    stem = cache / f"{tree.resolve().name}-{key}"
    # Verified outside the lock: of many processes one decodes, and then all verify at the same time.
    tries = 0
    while (kept := _read_cache(stem)) is None:
        tries += 1
        if tries > MAX_DECODES:
            raise OSError(f"{stem}.* were written {MAX_DECODES} times and damaged each time; is the disk failing?")
        with _alone(stem):
            if not _file(stem, "json").exists():
                _write_cache(stem, files, image_size)
                log.info("%s: decoded %d images to %s-*", tree.name, len(listing), stem)
    index, arrays = kept
    label = tree / "label.txt"
    label = label.read_text(encoding="utf-8").strip() if label.exists() else tree.resolve().name
    return Dataset(
        f"image_folder:{tree}",
        label,
        **arrays,
        **{name: torch.tensor(y, dtype=torch.int64) for name, y in labels.items()},
        classes=classes,
        mean=tuple(index["mean"]),
        std=tuple(index["std"]),
        sha256={name: index[name]["sha256"] for name in files},
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}")


@contextlib.contextmanager
def _alone(stem: Path) -> Iterator[None]:
    """One process at a time; a killed one lets go."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with open(_file(stem, "lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_cache(stem: Path, files: dict[str, tuple[Path, ...]], image_size: int) -> None:
    """The pixels of each part, uint8 (n, C, H, W) without any header, and last an index of them behind its sha256."""
    index = {}
    for name, paths in files.items():
        partial = _file(stem, f"{name}.partial")  # one name, so that nothing piles up where runs are killed
        digest, levels = hashlib.sha256(), 0
        try:
            with open(partial, "wb") as file:
                for block in _decode(paths, image_size):
                    file.write(block)
                    digest.update(block)
                    levels = levels + _levels(torch.from_numpy(block))
            os.replace(partial, _file(stem, name))
        finally:
            partial.unlink(missing_ok=True)
        index[name] = {"shape": [len(paths), *block.shape[1:]], "sha256": digest.hexdigest()}
        if name == "x_train":
            index["mean"], index["std"] = _mean_std(levels)
    content = json.dumps(index).encode()
    write_atomic(_file(stem, "json"), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def _mapped(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor that nothing may write to. (A mapping that takes writes would count as memory in use.)"""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _read_cache(stem: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """The index that `_write_cache` wrote, and its arrays, mapped; None if there is none or a checksum fails."""
    path = _file(stem, "json")
    if not path.exists():
        return None
    try:
        digest, content = path.read_bytes().split(b"\n", 1)
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise ValueError("the index does not fit its checksum")
        index, arrays = json.loads(content), {}
        for name in ("x_train", "x_test"):
            array = np.memmap(_file(stem, name), np.uint8, "r", shape=tuple(index[name]["shape"]))
            if hashlib.sha256(array).hexdigest() != index[name]["sha256"]:
                raise ValueError(f"{name} does not fit its checksum")
            arrays[name] = _mapped(array)
    except (OSError, ValueError) as error:
        log.warning("%s is damaged (%s): decoding again", stem, error)
        path.unlink(missing_ok=True)
        return None
    return index, arrays


def _decode(paths: tuple[Path, ...], image_size: int) -> Iterator[np.ndarray]:
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


# torchvision


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled part does not fit the installed torch.

    A torchvision built for CUDA beside a CPU torch fails at import, as it registers shape functions for two operators
    that its library did not load to define. Nothing here uses them: declaring both lets the import pass.
    """
    try:
        import torchvision
    except ImportError as error:
        raise ImportError("this data set needs torchvision: pip install torchvision") from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # a declaration lasts as long as this object


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sbkit.data", description="Find, fetch and verify a data set.")
    parser.add_argument("name", help=", ".join(NAMES))
    parser.add_argument("--root", help="folder that keeps the files (default: the repository's data folder)")
    parser.add_argument("--image-size", type=int, default=0, help="pixels, 0 native: an image folder is decoded in it")
    parser.add_argument("--margin", action="store_true", help="8/7 of that, as augment = resized_crop wants")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        data = load(options.name, root=options.root, image_size=options.image_size, margin=options.margin)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    print(f"{data.label}: {len(data.classes)} classes, mean {data.mean}, standard deviation {data.std}")
    for key, digest in data.sha256.items():
        print(f"  {key:8s}{tuple(getattr(data, key).shape)!s:24s} sha256 {digest}")


if __name__ == "__main__":
    main()
