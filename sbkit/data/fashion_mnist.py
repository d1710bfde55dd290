"""Fashion-MNIST: 60,000 and 10,000 clothes of 28x28 grey pixels."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sbkit.data.dataset import Dataset
from sbkit.data.published import download, in_folder, published

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
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


def find(root: Path) -> Dataset:
    sources = {
        str(DEBIAN_FOLDER): lambda: in_folder(DEBIAN_FOLDER, SHA256),
        f"apt-get download {DEBIAN_PACKAGE}": _debian_package,
        URL: lambda: {name: gzip.decompress(download(f"{URL}{name}.gz")) for name in SHA256},
    }
    files = published("Fashion-MNIST", SHA256, root / "FashionMNIST" / "raw", sources)
    x_train, y_train, x_test, y_test = (_array(files[name]) for name in SHA256)
    parts = x_train[:, None], y_train.long(), x_test[:, None], y_test.long()
    return Dataset("fashion_mnist", "Fashion-MNIST", *parts, CLASSES)


def _array(content: bytes) -> Tensor:
    """A file's values, uint8, behind a big-endian header: a magic number that ends in the rank, and each dimension."""
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def _debian_package() -> dict[str, bytes]:
    """Download and unpack Debian's package, which needs apt-get and dpkg-deb but no root rights."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        options = {"cwd": folder, "capture_output": True, "text": True, "check": True, "timeout": 300}
        subprocess.run(["apt-get", "download", "-o", "Acquire::http::Timeout=20", DEBIAN_PACKAGE], **options)
        (package,) = Path(folder).glob(f"{DEBIAN_PACKAGE}_*.deb")
        subprocess.run(["dpkg-deb", "-x", package.name, "unpacked"], **options)
        return in_folder(Path(folder, "unpacked", DEBIAN_FOLDER.relative_to("/")), SHA256)
