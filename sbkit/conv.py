"""The two values that cross the borders of this package: what a layer is, and what quantized weights are.

Letters used everywhere: input N, C, H, W; K filters; window R, S; output P, Q. A linear layer is R = S = H = W = 1.
Torch stays on one side of `QuantizedWeight`, C++ on the other; this module needs numpy alone.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sbkit.checks import choice, whole
from sbkit.records import write_atomic


@dataclass(frozen=True)
class ConvShape:
    """Shape of one 2-D convolution: square stride and symmetric zero padding, no dilation, no groups."""

    C: int
    H: int
    W: int
    K: int
    R: int = 3
    S: int = 3
    stride: int = 1
    padding: int = 1
    N: int = 1
    name: str = ""

    def __post_init__(self):
        for field in ("C", "H", "W", "K", "R", "S", "stride", "padding", "N"):
            whole(f"ConvShape.{field}", getattr(self, field), 0 if field == "padding" else 1)
        if self.P < 1 or self.Q < 1:
            raise ValueError(
                f"a {self.R}x{self.S} window does not fit an input of {self.H}x{self.W} with padding {self.padding}"
            )

    @property
    def P(self) -> int:
        """Output height."""
        return (self.H + 2 * self.padding - self.R) // self.stride + 1

    @property
    def Q(self) -> int:
        """Output width."""
        return (self.W + 2 * self.padding - self.S) // self.stride + 1

    @property
    def weights(self) -> int:
        """Number of weights, K·C·R·S."""
        return self.K * self.C * self.R * self.S

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the dense convolution over the whole batch."""
        return self.N * self.P * self.Q * self.weights

    def with_batch(self, N: int) -> ConvShape:
        return replace(self, N=N)


def _resnet(H: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[ConvShape, ...]:
    """The 3x3 convolutions of stages of residual blocks; the first stage has images of H x H, the others halve them."""
    shapes, C = [], widths[0]
    for stage, (K, count) in enumerate(zip(widths, blocks, strict=True), 1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            shapes.append(ConvShape(C, H, H, K, stride=stride, name=f"{name}.conv1"))
            C, H = K, H // stride
            shapes.append(ConvShape(C, H, H, K, name=f"{name}.conv2"))
    return tuple(shapes)


NETWORK_SHAPES: dict[str, tuple[ConvShape, ...]] = {
    "resnet18": _resnet(56, (64, 128, 256, 512), (2, 2, 2, 2)),  # at 224x224: 10,985,472 weights
    "resnet34": _resnet(56, (64, 128, 256, 512), (3, 4, 6, 3)),  # at 224x224: 21,086,208 weights
    "resnet20": _resnet(32, (16, 32, 64), (3, 3, 3)),  # the CIFAR network at 32x32: 267,264 weights
    "resnet32": _resnet(32, (16, 32, 64), (5, 5, 5)),  # the CIFAR network at 32x32: 460,800 weights
    "vgg_small": (  # at 32x32: 4,571,136 weights
        ConvShape(128, 32, 32, 128, name="3"),
        ConvShape(128, 16, 16, 256, name="7"),
        ConvShape(256, 16, 16, 256, name="10"),
        ConvShape(256, 8, 8, 512, name="14"),
        ConvShape(512, 8, 8, 512, name="17"),
    ),
}
"""By the name of a network, the shapes of its quantized 3x3 convolutions, in the order they run."""


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """Integer codes of one layer and the factors that turn them back into weights.

    The weight that the network uses is

        w_q[k, c, r, s] = alpha(k, code) * channel_sign[c] * codes[k, c, r, s]

    with alpha = `scale[k]` where the code is +1 and `negative_scale[k]` where it is -1 (only TTQ has two scales).

    codes           int8 (K, C, R, S) in {-1, 0, +1}; a linear layer has R = S = 1
    scale           float32 (K,)
    negative_scale  float32 (K,); equal to `scale` unless given
    channel_sign    int8 (C,) in {-1, +1}, fixed before training; all +1 unless given
    scheme          the quantizer's key, such as "signed_binary"

    Raises ValueError naming the field, its value and what is allowed.
    """

    codes: np.ndarray
    scale: np.ndarray | None = None
    negative_scale: np.ndarray | None = None
    channel_sign: np.ndarray | None = None
    scheme: str = ""

    def __post_init__(self):
        codes = np.ascontiguousarray(self.codes)
        if codes.ndim != 4 or 0 in codes.shape:
            raise ValueError(f"codes have shape {codes.shape}; allowed: (K, C, R, S), no dimension empty")
        if not np.isin(codes, (-1, 0, 1)).all():
            raise ValueError(f"codes hold {np.unique(codes)[:8].tolist()}; allowed: -1, 0, +1")
        K, C = codes.shape[:2]
        scale = np.ones(K, np.float32) if self.scale is None else self.scale
        negative = scale if self.negative_scale is None else self.negative_scale
        sign = np.ones(C, np.int8) if self.channel_sign is None else np.asarray(self.channel_sign)
        if not np.isin(sign, (-1, 1)).all():
            raise ValueError(f"channel_sign holds {np.unique(sign)[:8].tolist()}; allowed: -1, +1")
        for field, value, dtype, length in (
            ("scale", scale, np.float32, K),
            ("negative_scale", negative, np.float32, K),
            ("channel_sign", sign, np.int8, C),
        ):
            value = np.ascontiguousarray(value, dtype)
            if value.shape != (length,):
                raise ValueError(f"{field} has shape {value.shape}; allowed: ({length},)")
            if not np.isfinite(value).all():
                raise ValueError(f"{field} holds {value[~np.isfinite(value)][0]}; allowed: finite float32 numbers")
            object.__setattr__(self, field, value)
        object.__setattr__(self, "codes", codes.astype(np.int8, copy=False))

    def dense(self) -> np.ndarray:
        """The weights the network uses, float32 (K, C, R, S)."""
        alpha = np.where(self.codes > 0, self.scale[:, None, None, None], self.negative_scale[:, None, None, None])
        return alpha * self.codes * self.channel_sign[None, :, None, None]

    @property
    def density(self) -> float:
        """Fraction of non-zero codes."""
        return float(np.count_nonzero(self.codes)) / self.codes.size


def mixes_signs(codes: np.ndarray) -> bool:
    """Whether some filter of codes (K, C, R, S) has both signs."""
    return bool(((codes > 0).any(axis=(1, 2, 3)) & (codes < 0).any(axis=(1, 2, 3))).any())


MOST_WEIGHTS = 2**28
"""The most weights that a file may hold, ten times as many as the largest network above has."""

_FIELDS = {
    "shape": np.int64,
    "positive": np.uint8,
    "negative": np.uint8,
    "scale": np.float32,
    "negative_scale": np.float32,
    "channel_sign": np.int8,
    "scheme": np.str_,
}
_HEADER_BYTES = 4096  # more than the header of an array takes
_MOST_LETTERS = 100  # of a scheme's name


def save_weights(path: str | os.PathLike, weights: Mapping[str, QuantizedWeight]) -> Path:
    """Write layers to one compressed `.npz`, two bit planes per layer (code > 0, code < 0); atomic."""
    arrays = {}
    for name, weight in weights.items():
        values = (
            np.array(weight.codes.shape, np.int64),
            np.packbits(weight.codes > 0),
            np.packbits(weight.codes < 0),
            weight.scale,
            weight.negative_scale,
            weight.channel_sign,
            np.array(weight.scheme),
        )
        arrays |= {f"{name}/{field}": value for field, value in zip(_FIELDS, values, strict=True)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return write_atomic(path, buffer.getvalue())


def load_weights(path: str | os.PathLike) -> dict[str, QuantizedWeight]:
    """Read what `save_weights` wrote, in the same order.

    Raises ValueError naming the file for whatever is wrong with it, OSError for a file that cannot be read. Sizes and
    types are held to each layer's shape before an array is unpacked, so that a small file cannot fill the memory.
    """
    data = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return _read_layers(file)
    except Exception as error:  # zipfile, zlib and numpy's parser of headers raise a dozen kinds
        raise ValueError(f"{path} is not a readable weights file: {error or type(error).__name__}") from error


def _read_layers(file: zipfile.ZipFile) -> dict[str, QuantizedWeight]:
    members = file.namelist()
    names = list(dict.fromkeys(member.rpartition("/")[0] for member in members))
    if sorted(members) != sorted(f"{name}/{field}.npy" for name in names for field in _FIELDS):
        raise ValueError(f"it holds {members[:8]}...; allowed: once for each layer, {', '.join(_FIELDS)}")
    shapes = {name: _read(file, name, "shape", 4).tolist() for name in names}
    for name, shape in shapes.items():
        for size in shape:
            whole(f"a size of {name}", size, 1, MOST_WEIGHTS)
    whole("weights of all layers", sum(map(math.prod, shapes.values())), 0, MOST_WEIGHTS)
    layers = {}
    for name, (K, C, R, S) in shapes.items():
        count = K * C * R * S
        plus, minus = (
            np.unpackbits(_read(file, name, plane, -(-count // 8)), count=count).view(np.int8)
            for plane in ("positive", "negative")
        )
        if (plus & minus).any():
            raise ValueError(f"{name} has a code that is +1 and -1; allowed: one of them")
        lengths = {"scale": K, "negative_scale": K, "channel_sign": C}
        factors = {field: _read(file, name, field, length) for field, length in lengths.items()}
        scheme = str(_read(file, name, "scheme", None))
        layers[name] = QuantizedWeight((plus - minus).reshape(K, C, R, S), **factors, scheme=scheme)
    return layers


def _read(file: zipfile.ZipFile, name: str, field: str, length: int | None) -> np.ndarray:
    """The array `field` of a layer, if it has the field's dtype and `length` elements; None: it is one text."""
    dtype, shape = np.dtype(_FIELDS[field]), () if length is None else (length,)
    most = 4 * _MOST_LETTERS if length is None else length * dtype.itemsize
    member = file.getinfo(f"{name}/{field}.npy")
    whole(f"bytes of {name}/{field}", member.file_size, 1, most + _HEADER_BYTES)
    data = io.BytesIO(file.read(member))  # no more than file_size
    version = np.lib.format.read_magic(data)
    choice(f"version of {name}/{field}", version, ((1, 0),))
    found = np.lib.format.read_array_header_1_0(data)
    right = found[2].kind == "U" and found[2].itemsize > 0 if length is None else found[2] == dtype
    if found[0] != shape or not right:
        raise ValueError(f"{name}/{field} has shape {found[0]}, dtype {found[2]}; allowed: {shape}, {dtype.name}")
    if len(data.getbuffer()) - data.tell() != math.prod(shape) * found[2].itemsize:
        raise ValueError(f"{name}/{field} has {len(data.getbuffer())} bytes; allowed: as many as its shape needs")
    return np.frombuffer(data.getbuffer(), found[2], offset=data.tell()).reshape(shape)
