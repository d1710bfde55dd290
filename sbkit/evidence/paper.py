"""The paper's numbers, each once: claims, figures and the accelerator model ask here.

Source: Kuhar, Jain, Tumanov, arXiv 2312.01581: its abstracts, the authors' replies in its open review (ICLR 2024, forum
1dY11GyZdp), and a radar figure on the authors' pages. Figures and sections are named as the replies name them; the full
text was not read. A ratio is of signed binary to binary unless its key names another.
"""

from __future__ import annotations

import math

PAPER: dict[str, float] = {
    # speed on a CPU: abstract, reply to reviewer 1
    "speedup_over_binary": 1.26,
    "speedup_over_ternary": 1.75,
    "latency": 0.78,  # Fig. 2
    "row_signed_binary": 1.32,  # a row of latencies in a reply, whose meaning is not known
    "row_ternary": 0.54,
    "layer_512_signed_binary": 1.25,  # a [3, 3, 512, 512] layer, reply to reviewer 2
    "layer_512_zero_one": 1.29,
    # hardware that is not described: abstract, reply to reviewer 2
    "energy": 0.51,
    "throughput": 2.86,
    "energy_on_asic": 0.5,
    # trained networks
    "density": 0.35,
    "sparsity": 0.69,
    "top1_final": 66.2,  # percent, ResNet-18 on ImageNet
    "top1_ablation": 61.94,
    "top1_zero_one": 55.23,
    "gain_over_zero_one": 6.71,  # points, 61.94 over 55.23
    "gain_over_zero_one_in_words": 6.0,  # "6 %"
    "gain_at_equal_effectual": 2.5,
    "gap_at_equal_total": 0.0,
    # arithmetic reduction: Fig. 11 and replies
    "reduction_64_binary": 5.3,
    "reduction_64_signed_binary": 6.65,
    "reduction_64_ternary_twn": 4.52,
    "reduction_512_signed_binary": 14.51,
    "reduction_512_zero_one": 14.61,
    "reduction_largest": 15.0,
    # {0,1} over signed binary in a [3, 3, 512, 512] layer: ratios of the numbers above
    "zero_one_operations": 14.61 / 14.51,
    "zero_one_speed": 1.29 / 1.25,
    # distinct 3x3 filters, and how often one repeats in a [3, 3, 256, 256] layer
    "patterns_binary": 512,
    "patterns_signed_binary": 1024,
    "patterns_ternary_twn": 19683,
    "repeats_binary": 128,
    "repeats_signed_binary": 64,
    "repeats_ternary_twn": 3.32,
    "repeats_over_binary": 0.5,
    "repeats_over_ternary": 19.3,
    # the toy example: additions
    "toy_binary": 8,
    "toy_ternary_twn": 6,
    "toy_signed_binary": 4,
    "one": 1,  # one output; one example that exists
    # quoted from others: DRAM access over an operation, gains from sparsity on a CPU
    "dram_over_add": 6400,
    "dram_over_multiply": 206,
    "sparsity_gain_of_others": 1.64,
}


def reduction(scheme: str, channels: int) -> float:
    """The paper's arithmetic reduction of a [3, 3, channels, channels] layer, NaN where it states none."""
    return PAPER.get(f"reduction_{channels}_{scheme}", math.nan)
