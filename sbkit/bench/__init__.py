"""Time the kernels against torch and its peers: check first, then interleave all contenders in one process.

    studies        one row for each study: which ways it times, and on what
    config         what to time, and the networks
    subjects       what every contender computes: a layer, a network, a step of training
    operations     what is counted and not timed
    contenders/    who computes it: one file for each library, and our kernels
    codes          random codes for our kernels
    timing         rounds of timings, and the rows of a record
    benchmark      a study from its configuration to its record

Every contender of a subject computes the same layer or network on the same activations. The packing of activations
counts as run time, the offline packing of weights (`plan_seconds`) does not. Caches are warm. The number of threads is
set and recorded.

ONNX Runtime and OpenVINO are optional: pip install onnx onnxruntime openvino. Where one is missing, the benchmark says
so and goes on.
"""

from sbkit.bench.benchmark import measure, run
from sbkit.bench.config import BenchConfig

__all__ = ["BenchConfig", "measure", "run"]
