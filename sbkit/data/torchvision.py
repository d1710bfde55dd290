"""torchvision, also where its compiled part does not fit the installed torch."""

from __future__ import annotations

import sys
from types import ModuleType

import torch

_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # a declaration lasts as long as this object


def import_torchvision() -> ModuleType:
    """The module torchvision. Raises ImportError with what to install where there is none.

    A torchvision built for CUDA beside a CPU torch fails at import, as it registers shape functions for two operators
    that its library did not load to define. Nothing here uses them: declaring both lets the import pass.
    """
    try:
        import torchvision.datasets
    except ImportError as error:
        raise ImportError("this data set needs torchvision: pip install torchvision") from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.datasets
    return torchvision
