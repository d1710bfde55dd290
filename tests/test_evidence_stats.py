"""Intervals against scipy's own, and what is made of them."""

import math

import pandas as pd
import pytest
from scipy import stats as scipy_stats

from sbkit.evidence.stats import Measured, exact, interval, measured, shown, summary, two_sided


@pytest.mark.parametrize("values", [(1.0, 2.0, 3.0), (87.0, 87.4, 86.9, 88.1, 87.0), (0.1, -7.0)])
def test_the_interval_is_students(values):
    mean, half_width = interval(values)
    low, high = scipy_stats.t.interval(0.95, len(values) - 1, loc=mean, scale=scipy_stats.sem(values))
    assert (mean - half_width, mean + half_width) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval_and_none_has_no_mean():
    mean, half_width = interval([5.0])
    assert mean == 5 and math.isnan(half_width)
    with pytest.raises(ValueError, match="no values; allowed: at least one"):
        interval([])


def test_a_number_for_people_says_n():
    assert shown(87.1, 0.4, 3) == "87.10 ± 0.40 (n=3)"
    assert shown(87.1, math.nan, 1) == "87.10 (n=1)"
    assert str(exact(1023)) == "1023.00 (exact)" and shown(1.234, 0.1, 2, digits=1) == "1.2 ± 0.1 (n=2)"


def test_a_measured_number_knows_its_ends_and_its_records():
    found = measured([1.0, 3.0], ["a-s0", "a-s1"])
    assert found == Measured(2.0, found.half_width, 2, ("a-s0", "a-s1"))
    assert found.low == 2 - found.half_width and found.high == 2 + found.half_width


def test_a_summary_keeps_the_order_of_groups():
    frame = pd.DataFrame({"group": ["b", "b", "a"], "top1": [1.0, 3.0, 7.0]})
    found = summary(frame, ["group"], "top1")
    assert found.columns.tolist() == ["group", "top1_mean", "top1_half_width", "n"]
    assert found["group"].tolist() == ["b", "a"] and found["n"].tolist() == [2, 1]
    assert found["top1_mean"].tolist() == [2, 7]
    assert found["top1_half_width"][0] == pytest.approx(interval([1, 3])[1]) and math.isnan(found["top1_half_width"][1])


def test_two_sided_p_is_scipys():
    values = [1.2, 0.7, 1.9, 1.1]
    mean, half_width = interval(values)
    assert two_sided(mean - 0.5, half_width, 4) == pytest.approx(scipy_stats.ttest_1samp(values, 0.5).pvalue)
    assert two_sided(half_width, half_width, 4) == pytest.approx(0.05)
