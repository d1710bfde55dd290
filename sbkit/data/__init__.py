"""Data sets as uint8 tensors, in memory or mapped from files, and the batches that training takes from them.

A new data set is one file here, whose `find` returns a `Dataset`, and one row in `SOURCES`. From a shell,
`python -m sbkit.data NAME` fetches a data set and says what was found where.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sbkit.checks import choice, whole
from sbkit.data import cifar10, digits, fashion_mnist, image_folder
from sbkit.data.batches import AUGMENTATIONS, batches
from sbkit.data.dataset import Dataset, prepared, with_margin

__all__ = ["AUGMENTATIONS", "SOURCES", "Dataset", "batches", "data_folder", "load"]

SOURCES: dict[str, Callable[..., Dataset]] = {
    "digits": digits.find,
    "fashion_mnist": fashion_mnist.find,
    "cifar10": cifar10.find,
    "image_folder:<path>": image_folder.find,
}
"""`find(root)`, or `find(root, path, image_size)` where the name ends in a path: all images of a data set, verified.

`root` is the folder that keeps files. A source with a path may decode its images in `image_size` pixels, 0 for native.
"""


def load(
    name: str,
    *,
    root: str | os.PathLike | None = None,
    train_images: int = 0,
    validation_images: int = 0,
    image_size: int = 0,
    margin: bool = False,
    seed: int = 0,
) -> Dataset:
    """A verified data set by its name in SOURCES. Files are kept in `root`, by default the repository's `data` folder.

    `validation_images` > 0 holds that many training images out, the same for every seed, which then take the place of
    the test images. `train_images` > 0 keeps that many of the other ones, drawn from `seed`. Both copy images into
    memory. `image_size` > 0 averages pixels
    down to that height and width. With `margin`, which "resized_crop" needs, training images are 8/7 as large, 256
    pixels for 224 (native images stay as they are), and test images are the middle of images of that size.
    Raises ValueError for a wrong name or number and for damaged files, FileNotFoundError for a data set that is not
    here and cannot be fetched. Both say what to do.
    """
    whole("train_images", train_images, 0)
    whole("validation_images", validation_images, 0)
    whole("image_size", image_size, 0)
    kind, _, path = name.partition(":")
    key = f"{kind}:<path>" if path else name
    choice("dataset", key, SOURCES)
    where = [data_folder() if root is None else Path(root)]
    if path:
        where += [Path(path).expanduser(), with_margin(image_size) if margin else image_size]
    data = SOURCES[key](*where)
    options = {"train_images": train_images, "validation_images": validation_images, "image_size": image_size}
    data = prepared(data, **options, margin=margin, seed=seed)
    return replace(data, name=name)


def data_folder() -> Path:
    """`data` in the repository: beside the package, or in the folder that SBKIT_ROOT names."""
    return Path(os.environ.get("SBKIT_ROOT") or Path(__file__).resolve().parents[2]) / "data"
