"""Layers that tests of the kernels share: awkward shapes, masks of a codebook, and an independent convolution."""

import numpy as np

from sbkit.conv import ConvShape

SHAPES = [
    ConvShape(1, 1, 1, 1, name="one pixel"),
    ConvShape(5, 9, 9, 6, N=2, name="odd channels, two images"),
    ConvShape(3, 8, 8, 4, stride=2, name="stride 2"),
    ConvShape(3, 5, 32, 4, stride=2, name="stride 2, 16 pairs of columns"),
    ConvShape(2, 4, 17, 3, 1, 1, stride=2, padding=0, name="1x1, stride 2, 8 pairs of columns"),
    ConvShape(8, 14, 14, 12, name="14x14"),
    ConvShape(3, 17, 33, 3, name="around the vector width"),
    ConvShape(12, 1, 1, 10, 1, 1, padding=0, N=19, name="linear, batch"),
    ConvShape(1, 23, 19, 5, 7, 7, stride=2, padding=3, name="7x7 window, stride 2"),
    ConvShape(3, 13, 12, 2, 6, 5, padding=2, name="6x5 window"),
    ConvShape(4, 11, 13, 2, 5, 3, stride=3, padding=4, N=3, name="5x3 window, stride 3, padding 4"),
    ConvShape(17, 5, 5, 3, 1, 1, stride=2, padding=0, name="1x1, stride 2 beyond the window"),
    ConvShape(2, 2, 9, 2, 2, 7, padding=0, name="one output row"),
    ConvShape(3, 4, 4, 2, padding=7, name="padding wider than the image"),
]


def masked(masks: np.ndarray, shape: ConvShape, rng: np.random.Generator, signs=(1,)) -> np.ndarray:
    """Codes (K, C, R, S): each filter and tap draws one of the masks (count, channels) and a sign for every region."""
    regions = (shape.K, -(-shape.C // masks.shape[1]), shape.R, shape.S)
    drawn = masks[rng.integers(len(masks), size=regions)] * rng.choice(signs, (*regions, 1))  # (K, regions, R, S, C)
    return drawn.transpose(0, 1, 4, 2, 3).reshape(shape.K, -1, shape.R, shape.S)[:, : shape.C].astype(np.int8)


def convolve(weights: np.ndarray, x: np.ndarray, shape: ConvShape) -> np.ndarray:
    """In double precision: padded windows and one einsum."""
    pad = shape.padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (shape.R, shape.S), axis=(2, 3))
    return np.einsum("kcrs,ncpqrs->nkpq", weights, windows[:, :, :: shape.stride, :: shape.stride], optimize=True)
