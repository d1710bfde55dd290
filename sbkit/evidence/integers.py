"""Timings of integers by the form of their codes, and which library in 8 bits each is compared with."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.evidence.benchmarks import MAY_USE
from sbkit.way import FLOAT_BITS

FORMS = {
    ("signed_binary", 8, 4): "signed binary, 16 masks of 8 channels",
    ("signed_binary", 0, 0): "signed binary",
    ("signed_binary", 4, 0): "signed binary, a sign for 4 channels",
    ("binary", 0, 0): "binary",
    ("ternary_twn", 0, 0): "ternary",
}
"""By scheme, regions and codebook_bits of a way, the form of its codes."""

ALIKE, ANY, BINARY = "best int8, same instructions", "best int8, any instructions", "best binary"
FLOATS = "full precision, torch"


def integers_table(bench: DataFrame, study: str = "integers") -> DataFrame:
    """Timings of the newest benchmark of a study of integers for each of MAY_USE, with two more columns:

    may_use  a value of MAY_USE
    form     ours: a value of FORMS; libraries in 8 bits: ALIKE, or ANY where they may use more; all floats: ""

    Networks stand in the order of their names and widths. Empty without such a benchmark.
    """
    table = benchmarks.find_each(bench, study)
    if table.empty:
        return table
    uses = list(MAY_USE.values())
    table = table.sort_values(["model", "width"], kind="stable")
    table = table.sort_values("may_use", key=lambda column: column.map(uses.index), kind="stable", ignore_index=True)
    form = [FORMS.get((way.scheme, way.regions, way.codebook_bits), "") for way in table["way"]]
    libraries = np.where((table["may_use"] == MAY_USE["auto"]) | (table["isa"] != ""), ALIKE, ANY)
    table["form"] = np.where(table["precision"] == "int8", libraries, form)
    floats = (table["activation_bits"] == FLOAT_BITS) & (table["precision"] != "int8")
    return table.assign(form=table["form"].where(~floats, ""))
