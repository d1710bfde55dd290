"""Fashion-MNIST: 60,000 and 10,000 clothes of 28x28 grey pixels, verified against SHA256 on every load."""

from __future__ import annotations

import gzip
import hashlib
import logging
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sbkit.data.dataset import Dataset
from sbkit.data.torchvision import import_torchvision
from sbkit.records import write_atomic

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""sha256 of the four files as unpacked. The .gz files differ between distributors, their content does not."""

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

log = logging.getLogger(__name__)


def find(root: Path) -> Dataset:
    raw = root / "FashionMNIST" / "raw"
    if not all((raw / name).exists() for name in SHA256):
        _obtain(raw)
    x_train, y_train, x_test, y_test = (_read(raw / name, digest) for name, digest in SHA256.items())
    parts = x_train[:, None], y_train.long(), x_test[:, None], y_test.long()
    return Dataset("fashion_mnist", "Fashion-MNIST", *parts, CLASSES)


def _read(path: Path, sha256: str) -> Tensor:
    """One raw file: a big-endian header (magic number ending in the rank, then each dimension), then uint8 values."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{path} is damaged: its sha256 is {found}, expected {sha256}. Delete it and load again.")
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def _obtain(raw: Path) -> None:
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
                contents = _verified(fetch())
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
        f"these files (or their .gz) into {raw}: {', '.join(SHA256)}"
    )


def _verified(folder: Path) -> dict[str, bytes]:
    """The contents of the four files in a folder, each plain or as .gz."""
    contents = {}
    for name, sha256 in SHA256.items():
        path = folder / name
        content = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"{name} differs from the published file (sha256 {sha256})")
        contents[name] = content
    return contents


def _fetch_debian_package(folder: Path) -> Path:
    """Download and unpack Debian's package, which needs apt-get and dpkg-deb but no root rights."""
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
