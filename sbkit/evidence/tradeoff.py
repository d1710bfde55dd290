"""The trade-off between repetition and sparsity: what one layer costs at each density of its codes."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame

from sbkit import repetition
from sbkit.evidence import benchmarks, codes
from sbkit.schemes import SCHEMES


def tradeoff_table(bench: DataFrame) -> DataFrame:
    """Cost of one layer against the density of its codes: one row per algorithm, scheme, encoding and density.

    operations_per_weight counts additions and multiplications per weight and output position (2 is dense), of `table`
    with the G of fewest operations, where `group` is the one that was timed. Entropy alone would predict a cost of
    H / log2(table size) per weight: `predicted_operations` and `predicted_ms` are entropy_bits times one constant per
    algorithm, the geometric mean of cost / H over the schemes and densities, each scheme in its cheapest encoding.
    `fewest` and `fastest` mark the densities at which a scheme costs least, and `cheapest_bit` those at which it needs
    the fewest operations per bit of entropy. Empty without a benchmark.
    """
    if bench.empty:
        return DataFrame()
    table = bench[benchmarks.is_ours(bench) & (bench["algorithm"] != "dense")].reset_index(drop=True)
    table["group"] = table["chosen_group"].astype(int)
    table["operations_per_weight"] = 2 / table["best_reduction"]
    lines = ["algorithm", "scheme", "encoding"]
    columns = ["name", "layer", *lines, "group", "density", "entropy_bits", "median_ms", "iqr_ms"]
    table = table[[*columns, "operations_per_weight"]]
    for cost, predicted in (("operations_per_weight", "predicted_operations"), ("median_ms", "predicted_ms")):
        cheapest = table.loc[table.groupby(["algorithm", "scheme", "density"])[cost].idxmin()]
        per_bit = np.log(cheapest[cost] / cheapest["entropy_bits"]).groupby(cheapest["algorithm"]).mean()
        table[predicted] = table["entropy_bits"] * np.exp(table["algorithm"].map(per_bit))
    marks = {
        "fewest": table["operations_per_weight"],
        "fastest": table["median_ms"],
        "cheapest_bit": table["operations_per_weight"] / table["entropy_bits"],
    }
    for mark, cost in marks.items():
        table[mark] = table.index.isin(cost.groupby([table[key] for key in lines]).idxmin())
    return table


def random_table(density: float, channels: int = 16) -> DataFrame:
    """What a density does to random codes of a [3, 3, channels, channels] layer, a row per scheme; binary has none.

    Columns: scheme, density, entropy_bits (a weight), operations_per_weight (of `table` with the best G, in the
    encoding that needs the fewest), and the codes of the first tap (channels, channels).
    """
    rows = []
    for scheme in ("binary", "ternary_twn", "zero_one", "signed_binary"):
        kept = density if SCHEMES[scheme].zeros else 1
        shape, generator = (channels, channels, 3, 3), np.random.default_rng(0)
        weight = repetition.random_codes(scheme, shape, kept, generator)
        forms = [form for form in codes.FORMS if form.algorithm == "table"]
        counted = codes.operations_table({"": {"": weight}}, forms)
        rows.append(
            {"scheme": scheme, "density": weight.density, "entropy_bits": repetition.entropy_bits(weight.codes)}
            | {"operations_per_weight": 2 / counted["reduction"].max(), "codes": weight.codes[:, :, 0, 0].tolist()}
        )
    return DataFrame(rows)
