"""A trained network of `build_model` in one file: its options, codes in few bits, and the rest of its state.

    bytes     what
    14        "sbkit network\\n"
    1         VERSION
    32        SHA-256 of all that follows
    4         length of the header, little-endian
    ...       the header, JSON: {"model": options of build_model, but for USUAL ones, "image": [C, H, W], "classes",
              "mean", "std", "layers": {name: how its codes are packed, which scales it has}, "state": {name: shape}}
    ...       for each layer its codes, scales (float32) and channel signs (a bit each), then the state (float32)

Plans are not in it: they are made for the machine that loads the file. A reader holds every size to the header, and the
header to the length of the file, before it makes an array.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sbkit.checks import choice, number, table, whole
from sbkit.conv import QuantizedWeight
from sbkit.inference.packing import Packing, pack, unpack
from sbkit.models import build_model, quant_layers
from sbkit.quantizers import QuantizerConfig
from sbkit.records import write_atomic

MAGIC, VERSION = b"sbkit network\n", 1
START = len(MAGIC) + 1 + 32 + 4
MOST_BYTES = 2**30
HEADER = {"model": dict, "image": list, "classes": list, "mean": list, "std": list, "layers": dict, "state": dict}
OPTIONS = {  # of build_model, the most that each may be where it is a number
    "name": str, "in_channels": 1024, "classes": 100_000, "image_size": 1024, "width": 4096, "nonlinearity": str,
    "block": str, "activation_bits": 32, "outer_layers": str,
}  # fmt: skip

USUAL = {"outer_layers": "floats"}
"""Values that a file does not name, as files from before the option did not, so that older versions can read it."""


@dataclass(frozen=True, eq=False)
class Saved:
    """What a file holds.

    options  of `build_model`, all but quantizer and seed
    weights  the codes of every quantized layer
    state    the other parameters and statistics, float32, named as in the model's state dict
    image    channels, height, width
    classes  a name for each logit; none if empty
    mean     of an image's channels, in units of [0, 1]: the network takes (image - mean) / std; empty if unknown
    """

    options: dict[str, Any]
    weights: dict[str, QuantizedWeight] = field(repr=False)
    state: dict[str, Tensor] = field(repr=False)
    image: tuple[int, int, int] = (0, 0, 0)
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def check(self) -> None:
        """Raises ValueError naming an option that `build_model` does not have, or what does not fit the options."""
        table("model", self.options, {key: str if kind is str else int for key, kind in OPTIONS.items()})
        for key, most in OPTIONS.items():
            if most is not str:
                whole(f"model.{key}", self.options[key], 0, most)
        if len(self.image) != 3 or self.image[0] != self.options["in_channels"]:
            raise ValueError(f"image = {self.image}; allowed: {self.options['in_channels']} channels, height, width")
        for side in self.image:
            whole("a size of the image", side, 1, OPTIONS["image_size"])
        choice("number of classes", len(self.classes), (0, self.options["classes"]))
        for name in self.classes:
            if not isinstance(name, str):
                raise ValueError(f"class {name!r}; allowed: a text")
        for key in ("mean", "std"):
            choice(f"number of values of {key}", len(getattr(self, key)), (0, self.image[0]))
            for value in getattr(self, key):
                number(key, value, 0, 1e6)

    def model(self) -> nn.Module:
        """The network, in evaluation mode, whose quantized layers are without latent weights.

        Raises ValueError for what `check` refuses, and if the weights or the state are those of another network.
        """
        self.check()
        with torch.device("meta"):  # nothing is allocated
            model = build_model(quantizer=QuantizerConfig("full_precision"), **self.options)
        layers = {name: (*layer.weight.shape, 1, 1)[:4] for name, layer in quant_layers(model).items()}
        if layers != {name: weight.codes.shape for name, weight in self.weights.items()}:
            raise ValueError(f"layers {list(self.weights)[:4]}...; allowed: those of {self.options}")
        shapes = {name: tuple(value.shape) for name, value in rest(model).items()}
        if shapes != {name: tuple(value.shape) for name, value in self.state.items()}:
            raise ValueError(f"state {list(self.state)[:4]}...; allowed: that of {self.options}")
        model = model.to_empty(device="cpu")
        for value in model.state_dict().values():
            value.zero_()
        model.load_state_dict(self.state, strict=False)
        return model.eval().requires_grad_(False)


def rest(model: nn.Module) -> dict[str, Tensor]:
    """The state of a network beside the weights and quantizers of its quantized layers; counts of batches left out."""
    layers = [f"{name}.{part}" for name in quant_layers(model) for part in ("weight", "quantizer.")]
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith(tuple(layers)) and value.dtype.is_floating_point
    }


def write(saved: Saved, path: str | os.PathLike) -> Path:
    layers, parts = {}, []
    for name, weight in saved.weights.items():
        packing, data = pack(weight.codes)
        scales = [weight.scale, weight.negative_scale]
        count = 0 if all((scale == 1).all() for scale in scales) else 1 if np.array_equal(*scales) else 2
        signs = bool((weight.channel_sign < 0).any())
        layers[name] = packing._asdict() | {"scales": count, "channel_signs": signs, "scheme": weight.scheme}
        parts += [data, *(scale.astype("<f4").tobytes() for scale in scales[:count])]
        parts += [np.packbits(weight.channel_sign < 0).tobytes()] if signs else []
    header = {key: getattr(saved, key) for key in ("image", "classes", "mean", "std")}
    options = {key: value for key, value in saved.options.items() if USUAL.get(key) != value}
    header |= {"model": options, "layers": layers}
    header["state"] = {name: list(value.shape) for name, value in saved.state.items()}
    parts += [value.numpy().astype("<f4").tobytes() for value in saved.state.values()]
    text = json.dumps(header, separators=(",", ":")).encode()
    body = b"".join([len(text).to_bytes(4, "little"), text, *parts])
    return write_atomic(path, MAGIC + bytes([VERSION]) + hashlib.sha256(body).digest() + body)


def read(path: str | os.PathLike) -> Saved:
    """What `write` wrote. Raises ValueError naming the file for whatever is wrong with it, OSError if it cannot."""
    size = Path(path).stat().st_size
    try:
        whole("number of bytes", size, START, MOST_BYTES)
        return _parsed(Path(path).read_bytes())
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is not a readable network file: {error or type(error).__name__}") from error


def _parsed(data: bytes) -> Saved:
    if not data.startswith(MAGIC):
        raise ValueError(f"it starts with {data[:14]!r}; allowed: {MAGIC!r}")
    if (version := data[len(MAGIC)]) != VERSION:
        raise ValueError(f"its version is {version}; allowed: {VERSION}, or another version of sbkit")
    body = data[START - 4 :]
    if hashlib.sha256(body).digest() != data[len(MAGIC) + 1 : START - 4]:
        raise ValueError("its checksum does not fit: it is cut or damaged")
    length = int.from_bytes(body[:4], "little")
    whole("length of the header", length, 2, len(body) - 4)
    header = json.loads(body[4 : 4 + length])
    table("header", header, HEADER)
    payload = memoryview(body)[4 + length :]
    layers = {name: _Stored.of(name, facts) for name, facts in header["layers"].items()}
    for name, shape in header["state"].items():
        if not isinstance(shape, list):
            raise ValueError(f"shape of {name} = {shape!r}; allowed: a list")
        for size in shape:
            whole(f"a size of {name}", size, 1, MOST_BYTES)
    due = sum(sum(layer.parts) for layer in layers.values()) + sum(4 * math.prod(s) for s in header["state"].values())
    choice("bytes after the header", len(payload), (due,))
    weights, at = {}, 0
    for name, layer in layers.items():
        size = sum(layer.parts)
        weights[name] = layer.weight(payload[at : at + size])
        at += size
    state = dict(_state(header["state"], payload[at:]))
    plain = {key: tuple(header[key]) for key in ("image", "classes", "mean", "std")}
    saved = Saved(USUAL | header["model"], weights, state, **plain)
    saved.model()  # or the state is another network's
    return saved


def _state(shapes: dict[str, list[int]], data: memoryview) -> Iterator[tuple[str, Tensor]]:
    at = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        value = np.frombuffer(data, "<f4", count, at).astype(np.float32).reshape(shape)
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        yield name, torch.from_numpy(value)
        at += 4 * count


@dataclass(frozen=True)
class _Stored:
    """How a layer is stored."""

    packing: Packing
    scales: int  # 0: all are 1. 1: one a filter. 2: one for +1, one for -1
    channel_signs: bool
    scheme: str

    @classmethod
    def of(cls, name: str, facts: Any) -> _Stored:
        own = {"scales": int, "channel_signs": bool, "scheme": str}
        table(name, facts, {"shape": list, "group": int, "patterns": int, "signs": str} | own)
        packing = Packing.of({key: value for key, value in facts.items() if key not in own}, name)
        choice(f"{name}.scales", facts["scales"], (0, 1, 2))
        return cls(packing, *(facts[key] for key in own))

    @property
    def parts(self) -> tuple[int, int, int]:
        """Bytes of the codes, the scales and the channel signs."""
        K, C, *_ = self.packing.shape
        return sum(self.packing.parts), 4 * K * self.scales, -(-C // 8) if self.channel_signs else 0

    def weight(self, data: memoryview) -> QuantizedWeight:
        codes, scales, _ = self.parts
        K, C, *_ = self.packing.shape
        factors = np.frombuffer(data[codes : codes + scales], "<f4").reshape(self.scales, K)
        negative = np.unpackbits(np.frombuffer(data[codes + scales :], np.uint8), count=C if self.channel_signs else 0)
        return QuantizedWeight(
            unpack(self.packing, bytes(data[:codes])),
            *factors,
            channel_sign=np.where(negative, -1, 1) if self.channel_signs else None,
            scheme=self.scheme,
        )
