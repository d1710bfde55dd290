"""What share of the CPU's own bound the integer kernels reach, and where the rest of their time goes: notebook 08."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.evidence.benchmarks import MAY_USE
from sbkit.tables import spread

STAGES = ("tables", "sums", "finish")
SHOWN = ("signed binary", "signed binary, 16 masks of 8 channels")  # of evidence.integers.FORMS


def bounds_table(table: DataFrame) -> DataFrame:
    """Of the fastest way of each form, layer and number of bits, from `integers_table`, the parts of its time.

    `share` is the least time that its sums can take, over the least time of a whole run, in percent; NaN where no bound
    is known. The STAGES are percent of the time of other runs, which may have been slower. Empty where no record tells
    them.
    """
    if "sums_ms" not in table:
        return DataFrame()
    ours = table[table["sums_ms"].notna()]
    place = ["may_use", "layer", "form", "activation_bits"]
    fastest = benchmarks.fastest(ours, "min_ms", place)
    whole = sum(fastest[f"{stage}_ms"] for stage in STAGES)
    parts = {stage: 100 * fastest[f"{stage}_ms"] / whole for stage in STAGES}
    share = 100 * fastest["least_sums_ms"].astype(float) / fastest["min_ms"]
    return fastest[[*place, "algorithm", "min_ms"]].assign(share=share, **parts).reset_index(drop=True)


def bounds_summary(bounds: DataFrame) -> DataFrame:
    """`bounds_table` of SHOWN for people: a column for each layer, which holds the algorithm, the share and the STAGES.

    What our kernels may use beyond AVX-512 they do not use: rows of all instructions are left out beside those of it.
    """
    held = bounds["may_use"].eq(MAY_USE["avx512"]).any()
    bounds = bounds[bounds["form"].isin(SHOWN) & ~(bounds["may_use"].eq(MAY_USE["auto"]) & held)]
    shares = ["?" if np.isnan(share) else f"{share:.0f}\u00a0%" for share in bounds["share"]]
    texts = [
        f"{row.algorithm} {share} ({row.tables:.0f} + {row.sums:.0f} + {row.finish:.0f})"
        for row, share in zip(bounds.itertuples(), shares, strict=True)
    ]
    found = bounds.assign(text=texts, bits=bounds["activation_bits"])
    return spread(found, ["may_use", "form", "bits"], "layer", "text")
