"""What is refused, in which words, and what is not."""

import numpy as np
import pytest

from sbkit import checks


def test_numbers_of_numpy_are_numbers():
    for value in (3, np.int64(3), np.uint8(3)):
        checks.whole("n", value, 1, 3)
        checks.number("x", value, 1, 3)
    for value in (0.5, np.float32(0.5), np.float64(0.5)):
        checks.number("x", value, 0)


@pytest.mark.parametrize("value", [0, True, np.True_, 2.0, "2", None, np.float32(2), np.array([2]), 5])
def test_what_is_no_integer_in_range_is_refused(value):
    with pytest.raises(ValueError, match=r"n = .*; allowed: an integer from 1 to 4"):
        checks.whole("n", value, 1, 4)


@pytest.mark.parametrize("value", [0, 1, np.True_, None, "True"])
def test_what_is_no_bool_is_refused(value):
    checks.switch("b", True), checks.switch("b", False)
    with pytest.raises(ValueError, match=r"b = .*; allowed: True, False"):
        checks.switch("b", value)


@pytest.mark.parametrize("value", [-1, False, np.False_, float("nan"), np.float32("inf"), "1", 1j, np.zeros(1)])
def test_what_is_no_finite_number_in_range_is_refused(value):
    with pytest.raises(ValueError, match=r"x = .*; allowed: a number >= 0"):
        checks.number("x", value, 0)


@pytest.mark.parametrize(
    "value", ["", ".", "..", "../x", "a/b", "a b", "-x", "a\n", "é", "a" * 101, "a.partial", None, 3, ["a"]]
)
def test_a_stem_is_one_word(value):
    for good in ("a", "a-s0", "4.8_b", "x" * 100, "a.partial.b"):
        checks.stem("name", good)
    with pytest.raises(ValueError, match=r"name = .*; allowed: up to 100 letters"):
        checks.stem("name", value)


@pytest.mark.parametrize(
    "value, message",
    [
        (5, r"t = 5; allowed: a table of a \(str\), b \(list\)"),
        ({"a": 1}, r"t\.a = 1; allowed: a \(str\), b \(list\)"),
        ({"c": 1}, r"t\.c = 1; allowed: a \(str\)"),
        ({"b": []}, r"t lacks a; allowed: a \(str\)"),
    ],
)
def test_a_table_has_a_form(value, message):
    checks.table("t", {"a": "x"}, {"a": str, "b": list}, optional=["b"])
    with pytest.raises(ValueError, match=message):
        checks.table("t", value, {"a": str, "b": list}, optional=["b"])


@pytest.mark.parametrize(
    "data", [b"a = \xff", b"a = ", b"a = " + b"[" * 100_000, b"\0", b"a = 1\na = 2", b"\xff\xfea\0"]
)
def test_a_damaged_toml_file_is_named(tmp_path, data):
    (tmp_path / "x.toml").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.toml is not a readable TOML file: \w+Error: "):
        checks.toml(tmp_path / "x.toml")
