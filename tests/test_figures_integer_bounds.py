"""The share of the CPU's bound and the parts of a run's time, done by hand on two ways of two layers."""

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame

from sbkit.figures import integer_bounds

PLACE = {"may_use": "AVX2 alone", "form": "signed binary", "activation_bits": 6}
LIBRARY = PLACE | {"layer": "one", "form": "best int8", "algorithm": "onnxruntime", "min_ms": 1.0}


def row(layer, algorithm, whole, least, tables, sums, finish):
    stages = {"tables_ms": tables, "sums_ms": sums, "finish_ms": finish}
    return PLACE | {"layer": layer, "algorithm": algorithm, "min_ms": whole, "least_sums_ms": least} | stages


@pytest.fixture
def bounds():
    rows = [
        LIBRARY,
        row("one", "table", 4.0, 2.4, 1.0, 3.0, 1.0),
        row("one", "lookup", 5.0, 5.0, 1.0, 3.0, 1.0),
        row("two", "lookup", 2.0, None, 0.5, 1.0, 0.5),
        row("two", "table", 3.0, 1.0, 0.5, 1.0, 0.5),
    ]
    return integer_bounds.bounds_table(DataFrame(rows))


def test_the_fastest_way_of_a_layer_counts(bounds):
    assert list(bounds["algorithm"]) == ["table", "lookup"]
    np.testing.assert_allclose(bounds["share"], [100 * 2.4 / 4, np.nan])
    np.testing.assert_allclose(bounds[["tables", "sums", "finish"]], [[20, 60, 20], [25, 50, 25]])


def test_people_see_a_column_for_each_layer(bounds):
    found = integer_bounds.bounds_summary(bounds)
    assert list(found) == ["may_use", "form", "bits", "one", "two"]
    assert found.iloc[0].tolist() == [*PLACE.values(), "table 60\u00a0% (20 + 60 + 20)", "lookup ? (25 + 50 + 25)"]


def test_people_see_neither_other_forms_nor_all_instructions_beside_those_of_avx512(bounds):
    others = [bounds.assign(may_use=use) for use in ("all instructions", "AVX-512 without AMX")]
    found = integer_bounds.bounds_summary(pd.concat([bounds, bounds.assign(form="binary"), *others]))
    assert found["may_use"].tolist() == ["AVX2 alone", "AVX-512 without AMX"]
    assert len(integer_bounds.bounds_summary(others[0])) == 1


def test_older_records_have_no_table():
    assert integer_bounds.bounds_table(DataFrame([LIBRARY])).empty
    assert integer_bounds.bounds_table(DataFrame()).empty
