"""The frontier for people."""

import math

import pytest
from drawing import check
from pandas import DataFrame

from sbkit.evidence.frontier import DENSE, Trade
from sbkit.evidence.stats import Measured
from sbkit.figures import frontier

ROWS = [
    (DENSE, "full_precision", 8, 8, 0.1, 20, 80),
    (DENSE, "full_precision", 16, 8, 0.3, 90, 85),
    ("binary, 6 bits", "binary", 16, 6, 0.2, 10, 84),
    ("random fine signs, 4 bits", "random_signs", 16, 4, 0.15, 8, 83),
]


@pytest.fixture
def points():
    columns = ["family", "design", "width", "bits", "ms", "kilobytes", "top1_percent"]
    rows = DataFrame(ROWS, columns=columns)
    more = {"way": "some", "operations": 1.2e6, "top1_half_width": 0.5, "n": 3, "lost_points": 0.01, "front": True}
    return rows.assign(may_use="all instructions", **more)


def test_figure(points):
    check(frontier.fig_frontier(points))


def test_people_see_networks_from_fast_to_slow(points):
    found = frontier.points_summary(points)
    assert list(found["ms"]) == ["0.100", "0.150", "0.200", "0.300"]
    assert found["network"].iloc[1] == "random fine signs, 4 bits, width 16"
    assert (found["top1"].iloc[0], found["operations"].iloc[0]) == ("80.00 ± 0.50 (n=3)", "1.2M")


@pytest.mark.parametrize(
    "times, text",
    [
        ((1.5, 1.2, 1.9), "1.50 (1.20 to 1.90)"),
        ((1.5, 0.0, math.inf), "1.50 (< 0.50 to > 2.00)"),
        ((math.inf, 2.0, math.inf), "> 2.00 (2.00 to > 2.00)"),
        ((0.0, 0.0, 0.5), "< 0.50 (< 0.50 to 0.50)"),
    ],
)
def test_speed_beyond_a_line(times, text):
    assert frontier.times_text(Trade(Measured(1.0, 0.1, 3), *times, (0.5, 2.0))) == text
