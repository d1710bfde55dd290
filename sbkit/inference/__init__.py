"""A trained network made ready to run: its quantized convolutions on `kernels`, everything else on torch.

`lower` traces a network (torch.fx) and changes the graph of its calls; a call that no change below knows stays as it
is. In evaluation mode a batch norm is y = factor * x + bias per channel, so it folds into the convolution right before
it: into the scales of a quantized layer (a negative factor makes them negative, which is as good), into the weights of
another. The kernel of a quantized layer adds the bias and, where an addition follows, the other summand, and clamps at
0 where ReLU follows, all before it writes its result. Identities and dropout go. Linear quantized layers become plain
ones that hold the weights they compute with.

Where max pooling stands between convolution and norm, ReLU commutes with it, and so does a norm without a negative
factor; any other norm stays where it is, in torch.

The model in evaluation mode, `fold(model)` and `lower(model, ...)` differ only in how float32 rounds:

    max|difference of two logits| <= LOGIT_BOUND * max|logit|        (measured: up to 1e-5, at every depth and scheme)

`lower` runs one random batch through both and raises if they differ by more than ten times that.

Where activations have learned steps, they are integers from layer to layer (`integers`). Each layer is exact, but the
model's float32 may round to the other side of a tie, and what it computes then differs by a step. Such a network is
held to its model by the norm of the difference of a batch's logits, which must be below ROUNDING_BOUND times that of
the logits (measured: up to 0.02 with 2 bits and narrow layers, 0.002 with 8 bits, 0 on most images).
"""

from __future__ import annotations

from sbkit.inference.folding import fold
from sbkit.inference.layers import KernelConv2d
from sbkit.inference.lowering import LOGIT_BOUND, ROUNDING_BOUND, Network, load, lower

__all__ = ["LOGIT_BOUND", "ROUNDING_BOUND", "KernelConv2d", "Network", "fold", "load", "lower"]
