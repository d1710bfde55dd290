"""The paper's toy example: two latent filters over six inputs, quantized by each scheme.

Signed binary's first filter takes {0, +1}, its second {0, -1}; its graph is the one the paper prints. The paper gives
no filters for the others, so these are chosen here.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping

from pandas import DataFrame

from sbkit import repetition
from sbkit.evidence.paper import PAPER

FILTERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "binary": ((+1, -1, +1, -1, +1, -1), (-1, -1, -1, +1, -1, +1)),
    "ternary_twn": ((+1, -1, +1, 0, +1, -1), (-1, -1, -1, +1, 0, 0)),
    "signed_binary": ((+1, 0, +1, 0, +1, 0), (-1, -1, -1, 0, 0, 0)),
}


def graphs_table(filters: Mapping[str, Iterable[tuple[int, ...]]] = FILTERS) -> DataFrame:
    """Data-flow graphs of small filters: one row per scheme and input, shared sum or output.

    `parts` are what a sum adds and subtracts, "+ac -e"; a sum is named by its inputs. `codes` are an output's filter.
    `adds` counts the graph's additions and subtractions of two values: a sum of n values takes n - 1, where the
    kernels' accumulators start at zero and take n.
    """
    rows = []
    for scheme, codes in filters.items():
        inputs = len(next(iter(codes)))
        names = [chr(ord("a") + i) for i in range(inputs)]
        sets = [[i for i, code in enumerate(row) if code == sign] for row in codes for sign in (1, -1)]
        graph = repetition.dataflow_graph(sets, inputs)
        found = [{"kind": "input", "name": name, "parts": "", "codes": ""} for name in names]
        for first, second in graph.nodes:
            parts = f"+{names[first]} +{names[second]}"
            names.append("".join(sorted(names[first] + names[second])))
            found.append({"kind": "sum", "name": names[-1], "parts": parts, "codes": ""})
        for number, row in enumerate(codes):
            plus, minus = graph.sums[2 * number : 2 * number + 2]
            parts = " ".join([f"+{names[value]}" for value in plus] + [f"-{names[value]}" for value in minus])
            shown_codes = " ".join("-0+"[code + 1] for code in row)
            found.append({"kind": "output", "name": f"y{number + 1}", "parts": parts, "codes": shown_codes})
        adds = sum(max(len(row["parts"].split()) - 1, 0) for row in found)
        rows += [{"scheme": scheme, "adds": adds} | row for row in found]
    return DataFrame(rows)


def adds_table(graphs: DataFrame) -> DataFrame:
    """Additions of each scheme's graph in `graphs_table`, without sharing, and as the paper counts its own toy."""
    rows = []
    for scheme, graph in graphs.groupby("scheme", sort=False):
        codes = graph.loc[graph["kind"] == "output", "codes"]
        apart = sum(len(re.findall(r"[-+]", row)) - 1 for row in codes)
        rows.append(
            {"scheme": scheme, "filters": " | ".join(codes), "adds_without_sharing": apart}
            | {"adds": graph["adds"].iloc[0], "paper": PAPER.get(f"toy_{scheme}", math.nan)}
        )
    return DataFrame(rows)


# A latent weight of the toy example: its binary code, and its ternary one. Signed binary keeps the positive ternary
# codes of the first filter and the negative ones of the second.
_LATENT = ((1, 1), (1, 0), (-1, 0), (-1, -1))
_PAIRS = tuple(itertools.product(_LATENT, repeat=2))  # of one input's weights in both filters


@functools.cache
def _codes(pair: tuple[tuple[int, int], tuple[int, int]]) -> dict[str, tuple[int, int]]:
    (first, first_kept), (second, second_kept) = pair
    return {
        "binary": (first, second),
        "ternary_twn": (first_kept, second_kept),
        "signed_binary": (max(first_kept, 0), min(second_kept, 0)),
    }


@functools.cache
def _adds(codes: tuple[tuple[int, int], ...]) -> int:
    """Additions of two values in the data-flow graph of two filters; `codes` holds both codes of each input."""
    filters = list(zip(*codes, strict=True))
    sets = [[i for i, code in enumerate(row) if code == sign] for row in filters for sign in (1, -1)]
    return repetition.dataflow_graph(sets, len(codes)).adds - sum(any(row) for row in filters)


def pairs_with(adds: Mapping[str, int], inputs: int = 6, printed: bool = False) -> tuple[int, int]:
    """How many pairs of latent filters need exactly so many additions by each scheme, and how many were tried.

    All pairs over so many inputs are tried; with `printed`, those whose signed-binary codes are the printed ones.
    Additions do not depend on the order of the inputs, so each choice of columns is counted with its permutations.
    """
    if printed:
        columns = zip(*FILTERS["signed_binary"], strict=True)
        allowed = [[pair for pair in _PAIRS if _codes(pair)["signed_binary"] == column] for column in columns]
        choices = ((pairs, 1) for pairs in itertools.product(*allowed))
    else:
        choices = (
            (pairs, math.factorial(inputs) // math.prod(map(math.factorial, map(pairs.count, set(pairs)))))
            for pairs in itertools.combinations_with_replacement(_PAIRS, inputs)
        )
    found = total = 0
    for pairs, orders in choices:
        total += orders
        codes = [_codes(pair) for pair in pairs]
        if all(_adds(tuple(sorted(c[scheme] for c in codes))) == wanted for scheme, wanted in adds.items()):
            found += orders
    return found, total
