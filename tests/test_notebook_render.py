"""Tables as a notebook shows them and as the bytes of files."""

import textwrap

import pandas as pd
import pytest
from test_notebook import TABLE, root, run, shown  # noqa: F401  the fixtures

from sbkit.notebook import render


def test_table_shows_and_writes(run, shown):  # noqa: F811
    run.table(TABLE, "table")
    folder = run.folder / "tables"
    assert (folder / "table.csv").read_text() == "scheme,n,top1_percent\nbinary,1,81.2346\nsigned|binary,23456,\n"
    assert (folder / "table.md").read_text() == textwrap.dedent(
        r"""        Top-1 & more — quick profile: digits, 50 % of them

        | scheme         |      n |   top1_percent |
        |:---------------|-------:|---------------:|
        | binary         |      1 |          81.23 |
        | signed\|binary | 23,456 |              – |
        """
    )
    (page,) = shown
    assert page.data.startswith("<p>Top-1 &amp; more — quick profile: digits, 50 % of them</p>\n<table>")
    latex = (folder / "table.tex").read_text()
    assert r"\caption{Top-1 \& more — quick profile: digits, 50 \% of them}" in latex
    assert r"scheme & n & top1\_percent \\" in latex
    assert r"\begin{tabular}{lrr}" in latex
    assert r"\label{tab:table}" in latex


def test_a_wide_table_shows_the_columns_that_are_named_and_saves_all(run, shown):  # noqa: F811
    wide = pd.DataFrame({f"c{number}": [number] for number in range(8)})
    with pytest.raises(
        ValueError, match=r"table wide would show 8 columns; allowed: at most 7, named by columns= out of"
    ):
        run.table(wide, "wide")
    with pytest.raises(ValueError, match="columns of table wide = 'c9'; allowed: c0, c1"):
        run.table(wide, "wide", columns=["c9"])
    assert shown == [] and not run.folder.exists()
    run.table(wide, "wide", columns=["c7", "c0"])
    assert (run.folder / "tables/wide.csv").read_text().splitlines()[0] == "c0,c1,c2,c3,c4,c5,c6,c7"
    assert (run.folder / "tables/wide.md").read_text().splitlines()[-3].split() == ["|", "c7", "|", "c0", "|"]


def test_table_keeps_named_row_labels(run, shown):  # noqa: F811
    run.table(TABLE.set_index("scheme")[["n"]], "indexed")
    assert (run.folder / "tables/indexed.csv").read_text() == "scheme,n\nbinary,1\nsigned|binary,23456\n"
    assert "| scheme " in (run.folder / "tables/indexed.md").read_text()


def test_a_folded_table_opens_below_its_caption(run, shown):  # noqa: F811
    run.table(TABLE, "table", fold=True)
    assert shown[0].data.startswith("<details><summary>Top-1 &amp; more — quick")
    assert shown[0].data.endswith("</table>\n</details>")


def page(*cells):
    return render.html(render.for_people(pd.DataFrame({"x": cells}), "x"), "")


def test_html_is_escaped_and_an_interval_stays_in_one_piece():
    assert "&lt;b&gt;&amp;" in page("<b>&")
    assert "1.25\u00a0±\u00a00.30" in page("1.25 ± 0.30")


def test_verdicts_have_the_colour_of_their_meaning():
    def colour(verdict):
        found = page(verdict)
        return found.split("background:")[1].split(";")[0] if "background:" in found else None

    same = {
        colour("stronger"): "agrees",
        colour("no effect measured"): "undecided",
        colour("out of reach"): "no record",
    }
    assert all(colour(verdict) == background for background, verdict in same.items())
    assert len({*same, colour("weaker"), colour("opposite")}) == 5
    assert colour("stronger than") is None


def test_a_csv_holds_six_digits_and_whole_integers():
    """The last digits of linear algebra differ between processors."""
    found = set()
    for last in (0, 3e-16, -1e-15):
        shares = [value * (1 + last) for value in (0.07906424111395656, 1234567.891)]
        found.add(render.csv(pd.DataFrame({"share": shares, "n": [12345678, None], "any": [123456789, 0.5]})))
    assert found == {b"share,n,any\n0.0790642,12345678,123456789\n1.23457e+06,,0.5\n"}
