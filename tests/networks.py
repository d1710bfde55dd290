"""Networks that tests of inference share."""

import torch
from torch import nn


@torch.no_grad()
def scatter(model: nn.Module, least: float, generator: torch.Generator) -> None:
    """Give every norm other factors, from `least`, and biases, and TTQ two scales, as training does."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(least, 1.5, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
        elif hasattr(module, "positive_scale"):
            module.positive_scale.fill_(1.3)
            module.negative_scale.fill_(0.6)
