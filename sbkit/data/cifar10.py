"""CIFAR-10: 50,000 and 10,000 colour images of 32x32 pixels.

The files are pickles, which could run any code: each is unpickled only after its SHA-256 was verified.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import torch

from sbkit.data.dataset import Dataset
from sbkit.data.published import download, published

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
SHA256 = {
    "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
}


def find(root: Path) -> Dataset:
    sources = {
        str(root / ARCHIVE): lambda: _unpacked((root / ARCHIVE).read_bytes()),
        URL: lambda: _unpacked(download(URL)),
    }
    files = published("CIFAR-10", SHA256, root / FOLDER, sources)
    meta, *train, test = (pickle.loads(files[name], encoding="latin1") for name in SHA256)
    arrays = []
    for part in (train, [test]):
        arrays.append(torch.from_numpy(np.concatenate([batch["data"] for batch in part]).reshape(-1, 3, 32, 32)))
        arrays.append(torch.tensor([label for batch in part for label in batch["labels"]]))
    return Dataset("cifar10", "CIFAR-10", *arrays, tuple(meta["label_names"]))


def _unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {name: tar.extractfile(f"{FOLDER}/{name}").read() for name in SHA256}
