"""Widths at equal latency and at equal accuracy, against ratios done by hand."""

import pytest
from pandas import DataFrame, Series

from sbkit.evidence.widths import may_be, must_be

# Milliseconds of dense networks by round and width: four times as long at twice the width.
ROUNDS = DataFrame({8: [1.0, 1.1], 16: [4.0, 4.4], 32: [16.0, 17.6]})
LEAST = ROUNDS.min()


def test_a_width_is_interpolated_in_the_logarithms():
    found = may_be(32, 2.0, Series([2.0, 4.4]), LEAST, ROUNDS)
    assert found.value == pytest.approx(32 / (8 * 2**0.5))
    assert found.each == pytest.approx([32 / (8 * 2**0.5), 2])
    assert str(found) == "2.83; 2.41 ± 5.26 (n=2)"


def test_beyond_the_dense_widths_the_end_is_told():
    assert str(may_be(16, 0.5, Series([0.5, 0.5]), LEAST, ROUNDS)) == "> 2.00"
    assert str(may_be(16, 17.0, Series([17.0, 99.0]), LEAST, ROUNDS)) == "< 0.50"
    assert str(may_be(16, 17.0, Series([17.0, 17.0]), LEAST, ROUNDS)) == "< 0.50"
    assert str(may_be(16, 1.0, Series([0.9, 4.4]), LEAST, ROUNDS)) == "2.00; partly > 2.00"
    assert str(may_be(16, 1.0, Series([0.9, 99.0]), LEAST, ROUNDS)) == "2.00; partly > 2.00 and < 0.50"


def test_a_dense_width_that_is_slower_than_a_wider_one_does_not_count():
    rounds = ROUNDS.assign(narrow=1.5).rename(columns={"narrow": 4})
    found = may_be(32, 2.0, Series([2.0, 4.4]), rounds.min(), rounds)
    assert found.value == pytest.approx(32 / (8 * 2**0.5)) and found.ends == (4, 1)


def test_a_round_in_which_a_wider_one_is_faster_takes_the_line_below():
    stray = DataFrame({8: [1.0, 3.0], 16: [4.0, 2.0], 32: [16.0, 16.0]})
    assert may_be(16, 4.0, Series([4.0, 16.0]), stray.min(), stray).each == pytest.approx([1, 0.5])


def test_rounds_that_only_one_has_do_not_count():
    assert may_be(16, 4.0, Series([4.0, 4.4, 9.0]), LEAST, ROUNDS).each.size == 2
    assert str(may_be(16, 4.0, Series([4.0]), LEAST, ROUNDS)) == "1.00 (n=1)"


def test_equal_accuracy_is_by_means_and_by_paired_seeds():
    top1 = DataFrame({8: [80.0, 81.0, 79.0], 16: [84.0, 85.0, 83.0]}, index=[0, 1, 2])
    found = must_be(16, Series([82.0, 85.0, 50.0], index=[0, 1, 7]), top1)
    assert found.value == pytest.approx(2**0.25)
    assert found.each == pytest.approx([2**0.5, 1])
    assert str(must_be(16, Series([70.0], index=[2]), top1)) == "> 2.00 (n=1)"
    assert str(must_be(16, Series([82.0], index=[0]), top1)) == "1.41 (n=1)"
    assert must_be(16, Series([82.0], index=[9]), top1) is None


def test_a_wider_network_that_is_no_more_accurate_does_not_count():
    top1 = DataFrame({8: [80.0], 16: [79.0], 32: [84.0]})
    assert must_be(32, Series([82.0]), top1).value == pytest.approx(2)
