import pandas as pd
import pytest

from sbkit.tables import spread


def test_spread_keeps_the_order_of_rows_and_columns_and_refuses_two_values_for_a_cell():
    rows = [("b", 2, "z", "1"), ("b", 2, "a", "2"), ("a", 10, "z", "3"), ("b", 1, "a", "4")]
    table = pd.DataFrame(rows, columns=["name", "width", "form", "text"])
    wide = spread(table, ["name", "width"], "form", "text")
    assert wide.columns.tolist() == ["name", "width", "z", "a"] and wide.columns.name is None
    assert wide.fillna("-").values.tolist() == [["b", 2, "1", "2"], ["a", 10, "3", "-"], ["b", 1, "-", "4"]]
    with pytest.raises(ValueError, match="duplicate"):
        spread(pd.concat([table, table]), ["name", "width"], "form", "text")
