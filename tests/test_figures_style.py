"""The look is seaborn's and ours, and nobody else's."""

import matplotlib
import pandas as pd
import pytest
import seaborn
from matplotlib import pyplot as plt

from sbkit.figures import style
from sbkit.schemes import SCHEMES


@style.drawn
def fig_nothing(table, width=1.0):
    """A figure of its own size."""
    return plt.figure(figsize=(width, 1))


def test_every_scheme_has_a_look_of_its_own():
    assert list(style.LOOKS) == list(SCHEMES)
    for field in ("color", "marker", "label"):
        assert len({getattr(look, field) for look in style.LOOKS.values()}) == len(SCHEMES)
    assert [look.label for look in style.LOOKS.values()] == [scheme.label for scheme in SCHEMES.values()]
    assert {*style.PALETTE.values()} - {style.GREY} <= {*seaborn.color_palette("colorblind").as_hex()}


def test_a_figure_is_drawn_in_the_style_whatever_the_user_has_set():
    table = pd.DataFrame({"a": [1]})
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "figure.figsize": (1, 1)}):
        before = dict(matplotlib.rcParams)
        figure = fig_nothing(table, width=2.0)
        axis = figure.add_subplot()
        assert dict(matplotlib.rcParams) == before
        with style.styled():
            assert matplotlib.rcParams["axes.facecolor"] == "white" and matplotlib.rcParams[
                "font.size"
            ] == pytest.approx(8)
    assert figure.get_layout_engine() is not None and figure.get_figwidth() == 2
    plt.close(axis.figure)


def test_an_empty_table_is_refused_by_the_figure_s_name():
    with pytest.raises(ValueError, match="fig_nothing got an empty table; allowed: a table of at least one row"):
        fig_nothing(pd.DataFrame())


def test_schemes_come_in_the_order_of_figures():
    assert style.schemes(["signed_binary", "binary", "signed_binary"]) == ["binary", "signed_binary"]
    with pytest.raises(ValueError, match="scheme = 'xnor'; allowed: full_precision, binary"):
        style.schemes(["binary", "xnor"])
