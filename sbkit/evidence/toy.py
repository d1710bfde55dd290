"""The paper's toy example: two latent filters over six inputs, quantized by each scheme.

Signed binary's first filter takes {0, +1}, its second {0, -1}; its graph is the one the paper prints. The paper gives
no filters for the others, so these are chosen here.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence

from pandas import DataFrame

from sbkit import repetition

FILTERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "binary": ((+1, -1, +1, -1, +1, -1), (-1, -1, -1, +1, -1, +1)),
    "ternary_twn": ((+1, -1, +1, 0, +1, -1), (-1, -1, -1, +1, 0, 0)),
    "signed_binary": ((+1, 0, +1, 0, +1, 0), (-1, -1, -1, 0, 0, 0)),
}


def graphs_table(filters: Mapping[str, Sequence[tuple[int, ...]]] = FILTERS) -> DataFrame:
    """Data-flow graphs of small filters: one row per scheme and input, shared sum or output.

    `parts` are what a sum adds and subtracts, "+ac -e"; a sum is named by its inputs. `codes` are an output's filter.
    `adds` counts the graph's additions and subtractions of two values: a sum of n values takes n - 1, where the
    kernels' accumulators start at zero and take n.
    """
    rows = []
    for scheme, codes in filters.items():
        names = [chr(ord("a") + i) for i in range(len(codes[0]))]
        graph = _graph(codes)
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


def _graph(filters: Sequence[Sequence[int]]) -> repetition.DataflowGraph:
    sets = [[i for i, code in enumerate(row) if code == sign] for row in filters for sign in (1, -1)]
    return repetition.dataflow_graph(sets, len(filters[0]))


# A latent weight of the toy example: its binary code, and its ternary one. Signed binary keeps the positive ternary
# codes of the first filter and the negative ones of the second.
_LATENT = ((1, 1), (1, 0), (-1, 0), (-1, -1))


def _codes(pair: tuple[tuple[int, int], tuple[int, int]]) -> dict[str, tuple[int, int]]:
    (first, first_kept), (second, second_kept) = pair
    return {
        "binary": (first, second),
        "ternary_twn": (first_kept, second_kept),
        "signed_binary": (max(first_kept, 0), min(second_kept, 0)),
    }


_CODES = {pair: _codes(pair) for pair in itertools.product(_LATENT, repeat=2)}  # of one input's weights in both filters


@functools.cache
def _adds(codes: tuple[tuple[int, int], ...]) -> int:
    """Additions of two values in the data-flow graph of two filters; `codes` holds both codes of each input."""
    filters = list(zip(*codes, strict=True))
    return _graph(filters).adds - sum(map(any, filters))


def exists(adds: Mapping[str, int], inputs: int = 6, printed: bool = False) -> bool:
    """Whether some pair of latent filters over so many inputs needs exactly so many additions by each scheme.

    With `printed`, among those whose signed-binary codes are FILTERS' alone. The order of inputs changes no additions.
    """
    if printed:
        columns = zip(*FILTERS["signed_binary"], strict=True)
        tried = itertools.product(*([p for p in _CODES if _CODES[p]["signed_binary"] == column] for column in columns))
    else:
        tried = itertools.combinations_with_replacement(_CODES, inputs)
    return any(
        all(_adds(tuple(sorted(_CODES[p][scheme] for p in pairs))) == wanted for scheme, wanted in adds.items())
        for pairs in tried
    )
