"""Rows, heads, labels and ticks that figures share."""

import math

import numpy as np
import pytest
from drawing import check
from matplotlib import pyplot as plt
from pandas import DataFrame

from sbkit.figures import layout, style

NAMES = ["a", "a name of\ntwo lines", "b", "c"]
HEADINGS = ["first", "first", "second", "second"]


@style.drawn
def fig_forest(table, title="Four rows", handles=()):
    """A forest plot of NAMES."""
    figure, axis = plt.subplots(figsize=(style.COLUMN, 0.4 + layout.rows_height(NAMES, HEADINGS)))
    heights = layout.rows(axis, NAMES, HEADINGS)
    looks = [style.LOOKS["binary"]] * 4
    layout.forest(axis, heights, table["mean"], table["half_width"], looks, faint=table["mean"] < 0)
    layout.points_axis(axis)
    layout.head(figure, title, handles)
    return figure


@pytest.fixture()
def table():
    return DataFrame({"mean": [1.0, -1.0, 3.0, -20.0], "half_width": [0.5, 0.25, math.nan, 2.0]})


def test_rows_stand_below_bold_headings(table):
    figure = fig_forest(table)
    (axis,) = figure.axes
    bold = [text.get_text() for text in axis.get_yticklabels() if text.get_fontweight() == "bold"]
    assert bold == ["first", "second"]
    heights = dict(zip([text.get_text() for text in axis.get_yticklabels()], axis.get_yticks(), strict=True))
    assert heights["first"] > heights["a"] > heights[NAMES[1]] > heights["second"] > heights["b"] > heights["c"]
    check(figure)


def test_the_head_adds_its_own_height_and_wraps(table):
    plain = fig_forest(table).get_figheight()
    long = "A title that is certainly too long for the width of one column of a paper"
    handles = [*layout.scheme_handles(style.LOOKS), layout.handle("paper", **style.PAPER)]
    figure = fig_forest(table, title=long, handles=handles)
    assert figure.texts[0].get_text().count("\n") == 1 and figure.get_figheight() > plain + 0.3
    assert len(figure.legends) == 1
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1
    assert legend.y1 <= figure.texts[0].get_window_extent().y0 + 1, "the legend lies below the title"
    assert figure.axes[0].get_window_extent().y1 <= legend.y0 + 1, "and above the axes"
    check(figure)


def test_spread_keeps_order_and_gap_and_moves_as_little_as_possible():
    moved = layout.spread([3.0, 0.0, 0.1, 0.2], 1.0)
    assert moved == pytest.approx([3, -0.9, 0.1, 1.1])
    assert layout.spread([0.0, 5.0, 9.0], 1.0).tolist() == [0, 5, 9] and layout.spread([], 1.0).size == 0
    positions = np.random.default_rng(0).uniform(0, 3, 12)
    moved = layout.spread(positions, 0.5)
    assert (np.diff(moved[np.argsort(positions)]) >= 0.5 - 1e-9).all()
    assert moved.mean() == pytest.approx(positions.mean())


def test_direct_labels_do_not_touch():
    y = np.array([1.0, 1.01, 1.02, 5.0])
    with style.styled():
        figure, (left, right) = plt.subplots(1, 2, figsize=(style.PAGE, 2))
        left.plot(range(4), y, "o")
        layout.label_points(left, NAMES[::2] + NAMES[::2], ["k"] * 4, range(4), y, layout.make_room(left, 3, 0.5))
        right.plot(range(4), y)
        layout.label_ends(right, [(name, "k", 3, value) for name, value in zip("abcd", y, strict=True)])
        layout.head(figure, "Labels")
    assert left.get_xlim()[1] > 4 and max(left.get_xticks()) <= 3.2
    check(figure)


def test_counts_and_ticks_are_plain_numbers():
    assert [layout.count(value) for value in (0.5, 12, 1200, 3_000_000)] == ["0.5", "12", "1.2k", "3M"]
    _, axis = plt.subplots()
    axis.set_xscale("log")
    layout.plain_log(axis.xaxis, 20, 90)
    assert axis.get_xticks().tolist() == [20, 30, 40, 60] and not axis.get_xticks(minor=True).size
    axis.set_ylim(-5, 120)
    layout.percent_axis(axis)
    assert axis.get_ylim() == (0, 100)
    plt.close(axis.figure)


def test_long_names_are_cut_between_options():
    name = "full precision, batch_size = 128, learning_rate = 0.1"
    assert layout.short(name, 24) == "full precision, …"
    assert layout.short(name, 32, lines=2).split("\n")[1] == "batch_size\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}128, …"
    assert layout.short("binary") == "binary"


def test_sliders_stand_still_where_a_page_is_saved_or_ipywidgets_lacks(monkeypatch):
    moved = []
    layout.sliders(lambda density=0.4: moved.append(density), True, density=(0, 1, 0.1))
    monkeypatch.setattr(layout.importlib.util, "find_spec", lambda name: None)
    layout.sliders(lambda density=0.5: moved.append(density), False, density=(0, 1, 0.1))
    assert moved == [0.4, 0.5]
