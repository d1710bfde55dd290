"""Time the kernels against torch and its peers: check first, then interleave all contenders in one process.

    studies     one row for each study: which ways it times, and on what
    config      the options of a benchmark, and the networks
    subjects    what every contender of a study computes: a layer, a network, a step of training
    libraries/  the libraries a user would pick, one file each
    ours        our kernels on random codes, and the operations they execute
    benchmark   rounds of timings, and their record

Every contender of a subject computes the same layer or network on the same activations. The packing of activations
counts as run time, the offline packing of weights (`plan_seconds`) does not. Caches are warm. The number of threads is
set and recorded.

ONNX Runtime and OpenVINO are optional: pip install onnx onnxruntime openvino. Where one is missing, the benchmark says
so and goes on.
"""

from sbkit.bench.benchmark import measure, run
from sbkit.bench.config import BenchConfig

__all__ = ["BenchConfig", "measure", "run"]
