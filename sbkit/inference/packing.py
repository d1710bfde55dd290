"""Integer codes in few bits: as indices into the patterns that a layer has, and signs.

At each tap of a filter, `group` neighbouring channels form a region. A region is a sign times a pattern, whose first
non-zero code is +1. Stored are the distinct patterns, 2 bits a code; the index of each region's pattern, in as many
bits as the number of patterns needs and at least 1; and the signs, 1 bit each, for the widest parts of the layer that
share one. The group is the one that needs the fewest bytes: {0, 1} takes 1 bit a weight, binary 1, 16 masks of 8
channels half a bit and an eighth for the signs of regions.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from sbkit.checks import choice, table, whole
from sbkit.conv import MOST_WEIGHTS

GROUPS = (1, 2, 4, 8, 16)
MOST_PATTERNS = 2**16
SIGNS = ("layer", "filter", "channels", "region")
"""What shares a sign: everything, which then is +1; a filter; `group` channels of a filter; these at each tap."""


class Packing(NamedTuple):
    """How the codes (K, C, R, S) of one layer are stored."""

    shape: tuple[int, int, int, int]
    group: int
    patterns: int  # how many there are
    signs: str  # of SIGNS

    @classmethod
    def of(cls, facts: Any, name: str) -> Packing:
        """From a file's table. Raises ValueError for what `pack` does not write, naming the layer."""
        table(name, facts, {"shape": list, "group": int, "patterns": int, "signs": str})
        shape = facts["shape"]
        if len(shape) != 4:
            raise ValueError(f"{name}.shape = {shape}; allowed: K, C, R, S")
        for size in shape:
            whole(f"a size of {name}", size, 1, MOST_WEIGHTS)
        whole(f"weights of {name}", math.prod(shape), 1, MOST_WEIGHTS)
        choice(f"{name}.group", facts["group"], [group for group in GROUPS if shape[1] % group == 0])
        whole(f"{name}.patterns", facts["patterns"], 1, MOST_PATTERNS)
        choice(f"{name}.signs", facts["signs"], SIGNS)
        return cls(tuple(shape), facts["group"], facts["patterns"], facts["signs"])

    @property
    def regions(self) -> tuple[int, int, int, int]:
        K, C, R, S = self.shape
        return K, R, S, C // self.group

    @property
    def index_bits(self) -> int:
        return max(1, (self.patterns - 1).bit_length())

    @property
    def sign_shape(self) -> tuple[int, int, int, int]:
        K, R, S, blocks = self.regions
        wide = {"layer": (0, 0, 0, 0), "filter": (K, 1, 1, 1), "channels": (K, 1, 1, blocks)}
        return wide.get(self.signs, (K, R, S, blocks))

    @property
    def parts(self) -> tuple[int, int, int]:
        """Bytes of the patterns, the indices and the signs."""
        bits = 2 * self.patterns * self.group, math.prod(self.regions) * self.index_bits, math.prod(self.sign_shape)
        return tuple(-(-count // 8) for count in bits)


def pack(codes: np.ndarray) -> tuple[Packing, bytes]:
    """Codes int8 (K, C, R, S) in {-1, 0, +1} in the fewest bytes."""
    found = [_packed(codes, group) for group in GROUPS if codes.shape[1] % group == 0]
    return min(filter(None, found), key=lambda item: len(item[1]))


def _packed(codes: np.ndarray, group: int) -> tuple[Packing, bytes] | None:
    K, C, R, S = codes.shape
    regions = codes.transpose(0, 2, 3, 1).reshape(K, R, S, C // group, group)
    first = np.take_along_axis(regions, (regions != 0).argmax(-1)[..., None], -1)[..., 0]  # 0 where all codes are
    powers = 3 ** np.arange(group)
    numbers = (regions * np.where(first < 0, -1, 1)[..., None] + 1) @ powers
    patterns, indices = np.unique(numbers, return_inverse=True)
    if len(patterns) > MOST_PATTERNS:
        return None
    for signs, axes in zip(SIGNS, ((0, 1, 2, 3), (1, 2, 3), (1, 2), ()), strict=True):
        negative = (first < 0).any(axes, keepdims=True)
        if not (negative & (first > 0).any(axes, keepdims=True)).any() and not (signs == "layer" and negative.any()):
            break
    packing = Packing(codes.shape, group, len(patterns), signs)
    written = [
        _to_bytes(patterns[:, None] // powers % 3, 2),
        _to_bytes(indices, packing.index_bits),
        _to_bytes(negative, 1) if signs != "layer" else b"",
    ]
    return packing, b"".join(written)


def unpack(packing: Packing, data: bytes) -> np.ndarray:
    """The codes. Raises ValueError for data that `pack` does not write; it has the bytes of `packing.parts`."""
    patterns_bytes, indices_bytes, _ = packing.parts
    patterns = _from_bytes(data[:patterns_bytes], 2, (packing.patterns, packing.group))
    indices = _from_bytes(data[patterns_bytes : patterns_bytes + indices_bytes], packing.index_bits, packing.regions)
    if patterns.max() > 2 or indices.max() >= packing.patterns:
        raise ValueError(
            f"codes hold {patterns.max()} and pattern {indices.max()}; allowed: up to 2 and {packing.patterns - 1}"
        )
    codes = (patterns.astype(np.int8) - 1)[indices]  # (K, R, S, blocks, group)
    if packing.signs != "layer":
        negative = _from_bytes(data[patterns_bytes + indices_bytes :], 1, packing.sign_shape)
        codes *= np.where(negative, np.int8(-1), np.int8(1))[..., None]
    K, C, R, S = packing.shape
    return np.ascontiguousarray(codes.reshape(K, R, S, C).transpose(0, 3, 1, 2))


def _to_bytes(values: np.ndarray, bits: int) -> bytes:
    return np.packbits((values.reshape(-1, 1) >> np.arange(bits)) & 1).tobytes()


def _from_bytes(data: bytes, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers of so many bits, int32."""
    planes = np.unpackbits(np.frombuffer(data, np.uint8), count=math.prod(shape) * bits).reshape(-1, bits)
    return (planes.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(1, dtype=np.int32).reshape(shape)
