"""How a layer or a network was executed: a contender's identity, from the benchmark to the figure.

A `Way` stands in benchmark records and in notebooks/claims.toml and questions.toml as a table of the fields that differ
from their defaults, such as {algorithm = "table", scheme = "binary", encoding = "signed"}. Code compares the fields;
`label` is for people, and nothing reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sbkit.checks import choice, whole
from sbkit.schemes import CODED, SCHEMES

KERNELS = ("dense", "sparse", "table", "dataflow", "lookup")
"""The algorithms of `sbkit.kernels`; a layer's codes are data to all of them. `lookup` takes integers alone."""

PEERS = {"torch": "torch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""By key, the name of what a user would run instead."""

AUTO = "auto"
"""The algorithm of a network whose layers have each the kernels' faster one."""

TRAINING = "training"
"""The algorithm of a training step, which has a design for a variant."""

ENCODINGS = {
    "two_group": "two groups",
    "rewritten": "rewritten",
    "signed": "signed patterns",
    "codebook": "codebook",
}
"""By key, the name of how codes become sums; `sbkit.kernels.prepare` says what each means."""

LEAST_BITS, MOST_BITS = 2, 8
"""Of an integer activation."""
FLOAT_BITS = 32
"""What `activation_bits` says of floats."""

PRECISIONS = ("fp32", "bf16", "int8")

# Channels that may share a table, by what its patterns are made of, or a tile of `dataflow`; csrc/ holds the same.
MOST_CHANNELS = {"subsets": 10, "ternary": 6, "codebook": 16, "dataflow": 32}
MOST_PATTERNS = 1024
"""Entries of one table."""


def check_bits(activation_bits: Any) -> None:
    """Raises ValueError unless it is 2 to 8, or 32 for floats."""
    if type(activation_bits) is not int or activation_bits not in (*range(LEAST_BITS, MOST_BITS + 1), FLOAT_BITS):
        raise ValueError(
            f"activation_bits = {activation_bits!r}; allowed: an integer from {LEAST_BITS} to {MOST_BITS}, "
            f"or {FLOAT_BITS} for floats"
        )


@dataclass(frozen=True)
class Way:
    """One way to execute a layer or a network. A library has no scheme; a kernel has one."""

    algorithm: str  # one of KERNELS or PEERS, AUTO or TRAINING
    scheme: str = ""  # of the codes, a key of SCHEMES
    encoding: str = "two_group"  # a key of ENCODINGS
    skip_zeros: bool = True  # False: without what the paper calls sparsity support
    group: int = 0  # channels a table that were asked for; 0: the plan chose
    regions: int = 0  # channels that share a sign within a filter; 0: the scheme's own signs
    codebook_bits: int = 0  # b: a region holds one of 2^b patterns at each tap; 0: any
    precision: str = "fp32"  # of the arithmetic, one of PRECISIONS
    activation_bits: int = FLOAT_BITS  # of an activation: 2 to 8, or 32 for a float
    variant: str = ""  # of a library, its memory layout or form; of a training step, the design

    def __post_init__(self):
        choice("algorithm", self.algorithm, (*KERNELS, AUTO, *PEERS, TRAINING))
        coded = self.algorithm in (*KERNELS, AUTO)
        choice("scheme", self.scheme, CODED if coded else ("", *SCHEMES))
        choice("encoding", self.encoding, ENCODINGS)
        choice("precision", self.precision, PRECISIONS)
        choice("skip_zeros", self.skip_zeros, (True, False))
        for name in ("group", "regions", "codebook_bits"):
            whole(name, getattr(self, name), 0)
        check_bits(self.activation_bits)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Way:
        """The way of a table of fields. Raises ValueError naming an unknown one or a wrong value."""
        for name in options:
            choice("field of a way", name, [field.name for field in fields(cls)])
        if "algorithm" not in options:
            raise ValueError(
                f"a way {dict(options)} lacks its algorithm; allowed: one of {', '.join((*KERNELS, *PEERS))}"
            )
        return cls(**options)

    def options(self) -> dict[str, Any]:
        """The fields that differ from their defaults, the algorithm among them: what `of` takes."""
        return {
            field.name: asdict(self)[field.name] for field in fields(self) if getattr(self, field.name) != field.default
        }

    def __str__(self) -> str:
        """The options as JSON: what a saved table holds."""
        return json.dumps(self.options())

    def label(self) -> str:
        """The name for people: `table, binary, signed patterns`, `ONNX Runtime int8`."""
        if self.algorithm in PEERS:
            words = [PEERS[self.algorithm], self.variant.replace("_", " ")]
            words += [self.precision] if self.precision != "fp32" and self.precision != self.variant else []
            return " ".join(filter(None, words))
        scheme = SCHEMES[self.scheme].label if self.scheme else ""
        parts = [self.variant.replace("_", " ")] if self.algorithm == TRAINING else [self.algorithm, scheme]
        parts += [ENCODINGS[self.encoding]] if self.encoding != "two_group" else []
        parts += [] if self.skip_zeros else ["zeros kept"]
        parts += [f"{2**self.codebook_bits} patterns"] if self.codebook_bits else []
        parts += [f"regions of {self.regions} channels"] if self.regions else []
        parts += [f"tables of {self.group} channels"] if self.group and not self.regions else []
        parts += [f"{self.activation_bits}-bit activations"] if self.activation_bits < FLOAT_BITS else []
        parts += [self.precision] if self.precision != "fp32" else []
        return ", ".join(parts)
