"""The options of a benchmark, and the networks whose layers are timed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from sbkit import kernels
from sbkit.bench.studies import STUDIES
from sbkit.checks import choice, number, whole
from sbkit.conv import NETWORK_SHAPES, ConvShape
from sbkit.models import OUTER_LAYERS
from sbkit.schemes import SCHEMES
from sbkit.training.config import MOST
from sbkit.way import KERNELS


class Network(NamedTuple):
    """A network, and the shapes of its quantized layers; those of "tiny" are quicker than its network's."""

    model: str  # for `sbkit.models.build_model`, as are the options; "": layers without a network
    image_size: int  # pixels, of a square image
    options: dict[str, int]
    shapes: tuple[ConvShape, ...]

    @property
    def layers(self) -> tuple[ConvShape, ...]:
        """The last layer of each distinct shape, without the stride-2 layers that begin a stage."""
        return tuple({(s.C, s.H, s.K): s for s in self.shapes if s.stride == 1}.values())


BASE = ConvShape(128, 28, 28, 128)
"""The layer around which the shapes of "sizes" vary one at a time: C, then K, then the image."""

_SIZES = (
    BASE,
    *(replace(BASE, C=C) for C in (32, 64, 256, 512)),
    *(replace(BASE, K=K) for K in (32, 64, 256, 512)),
    *(replace(BASE, H=H, W=H) for H in (7, 14, 56)),
)

NETWORKS: dict[str, Network] = {
    "resnet18": Network("resnet18", 224, {"classes": 1000}, NETWORK_SHAPES["resnet18"]),
    "resnet20": Network("resnet20", 32, {}, NETWORK_SHAPES["resnet20"]),
    "vgg_small": Network("vgg_small", 32, {}, NETWORK_SHAPES["vgg_small"]),
    "tiny": Network("resnet8", 8, {"width": 8}, (ConvShape(8, 8, 8, 8), ConvShape(16, 4, 4, 16))),
    "sizes": Network("", 0, {}, _SIZES),
}
"""By the value of the option `shapes`."""


@dataclass(frozen=True)
class BenchConfig:
    """What to time. Raises ValueError naming a wrong option, its value and what is allowed."""

    study: str = "layers"  # a key of studies.STUDIES
    shapes: str = "resnet18"  # resnet18 | resnet20 | vgg_small | tiny: its stride-1 3x3 shapes, or the network | sizes
    width: int = 0  # channels of the first stage, in the study network_integers alone; 0: the network's own
    density: float = 0.35  # fraction of non-zero codes, signed_binary and zero_one
    ternary_density: float = 0.58  # the same, ternary_twn
    algorithms: str = "sparse table dataflow lookup"  # of the kernels, on layers and at many densities
    peers: bool = True  # ONNX Runtime and OpenVINO as well, where installed; in the studies of layers and networks
    rounds: int = 7  # times every contender is timed, all in turn
    processes: int = 1  # one after the other; each draws codes with the next seed, plans them and times all rounds
    min_run_ms: float = 20.0  # least milliseconds of one timing
    threads: int = 1  # of the kernels, of torch and of its peers
    batch: int = 1  # images
    seed: int = 0  # of codes and activations, and of the contenders' order in each round
    isa: str = "auto"  # of the kernels; auto: the widest usable. avx2 and avx512 hold torch and OpenVINO as well
    outer_layers: str = "floats"  # floats | integers: first layer and shortcuts, in the study network_integers alone
    networks: str = ""  # in the studies trained and integer_codes, the folder of a profile with runs; else empty

    def __post_init__(self):
        choice("study", self.study, STUDIES)
        subject = STUDIES[self.study].subject
        whole_network = subject in ("network", "training", "trained", "codes")
        choice("shapes", self.shapes, [name for name, row in NETWORKS.items() if row.model or not whole_network])
        for name in ("density", "ternary_density"):
            number(name, getattr(self, name), 0.001, 1)
        for algorithm in self.algorithms.split() or [""]:
            choice("a word of algorithms", algorithm, [each for each in KERNELS if each != "dense"])
        choice("peers", self.peers, (True, False))
        number("min_run_ms", self.min_run_ms, 0.001)
        for name in ("rounds", "processes", "threads", "batch"):
            whole(name, getattr(self, name), 1)
        if subject == "operations":
            whole("in the study operations, which times nothing, processes", self.processes, 1, 1)
        of_runs = subject in ("trained", "codes")
        if of_runs != bool(self.networks):
            allowed = "the folder of a profile, such as results/frontier" if of_runs else "an empty text"
            raise ValueError(f"networks = {self.networks!r} in the study {self.study}; allowed: {allowed}")
        if subject == "trained":
            whole("in the study trained, batch", self.batch, 1, 1)
        known = OUTER_LAYERS if self.study == "network_integers" else ("floats",)
        choice(f"outer_layers in the study {self.study}", self.outer_layers, known)
        whole("width", self.width, 0, MOST)
        if self.width and self.study != "network_integers":
            raise ValueError(f"width = {self.width} in the study {self.study}; allowed: 0, the network's own")
        whole("seed", self.seed, 0)
        choice("isa", self.isa, ("auto", *kernels.isas()))

    def density_of(self, scheme: str) -> float:
        """The fraction of non-zero codes of a scheme."""
        row = SCHEMES[scheme]
        if not row.zeros:
            return 1.0
        return self.ternary_density if row.signs == "weight" else self.density
