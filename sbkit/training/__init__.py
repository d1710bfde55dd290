"""Training, from a recipe and a scheme to a record: the same for every quantization scheme.

`train` trains one network and measures it; `run` also writes the record and the weight codes. From a shell, also on
several processes that share each batch (the folder must be common to all):

    python -m sbkit.training --quantizer signed_binary --folder results/trial
    torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node N -m sbkit.training ...

On a CPU, the same configuration, thread count and instruction set give the same bits, also after an interruption.
"""

from sbkit.training.checkpoint import weights_sha256
from sbkit.training.config import TrainConfig, configuration, options, schedule_lr
from sbkit.training.loop import TrainResult, evaluate, train
from sbkit.training.progress import PROGRESS, Interrupted
from sbkit.training.run import run

__all__ = [
    "PROGRESS", "Interrupted", "TrainConfig", "TrainResult", "configuration", "evaluate", "options", "run",
    "schedule_lr", "train", "weights_sha256",
]  # fmt: skip
