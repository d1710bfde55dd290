"""1,797 digits of 8x8 grey pixels that ship with scikit-learn. Every fifth image of a fixed shuffle is a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sbkit.data.dataset import Dataset


def find(root: Path) -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))[:, None]
    y = torch.from_numpy(digits.target.astype(np.int64))
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(x)))
    test, train = order[:359], order[359:]
    return Dataset("digits", "Digits", x[train], y[train], x[test], y[test], tuple("0123456789"))
