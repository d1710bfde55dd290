"""Figures and tables as a notebook shows them and as the bytes of files."""

import io
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zlib
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fontTools.ttLib import TTFont
from matplotlib import pyplot as plt
from test_notebook import EXPERIMENTS
from test_notebook import root as root  # a fixture

from sbkit.notebook import Run, render
from sbkit.page import items


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would display."""
    objects = []
    monkeypatch.setattr("IPython.display.display", objects.append)
    return objects


@pytest.fixture
def run(root):
    return Run(profile="quick", name="", save=True, configs=(), root=root)


TABLE = pd.DataFrame({"scheme": ["binary", "signed|binary"], "n": [1, 23456], "top1_percent": [81.234567, np.nan]})


def draw(table, *, title="a title"):
    """A figure with a legend and a label at its very bottom, where a footer could collide with them."""
    figure, axis = plt.subplots(figsize=(3.25, 2), layout="constrained")
    axis.plot(table["n"], table["top1_percent"], marker="o", label="x")
    axis.set(xlabel="operations", title=title)
    figure.legend(loc="outside lower center")
    return figure


def test_figure_shows_and_writes(run, shown):
    run.figure(draw, TABLE, "curve", title="another")
    folder = run.folder / "figures"
    assert sorted(file.name for file in folder.iterdir()) == ["curve.csv", "curve.pdf", "curve.png", "curve.svg"]
    image, caption = shown
    assert (image.data, image.width) == ((folder / "curve.png").read_bytes(), 3.25 * 96)
    assert caption.data == "A curve of `n`."
    assert (folder / "curve.csv").read_text() == "scheme,n,top1_percent\nbinary,1,81.2346\nsigned|binary,23456,\n"
    svg = (folder / "curve.svg").read_text()
    assert ">another<" in svg
    assert f">{run.label}<" in svg
    assert plt.get_fignums() == []


def test_pdf_embeds_outlines_and_no_tables_of_layout(run, shown):
    run.figure(draw, TABLE, "curve")
    pdf = (run.folder / "figures/curve.pdf").read_bytes()
    streams = [match[1] for match in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)]
    data = [zlib.decompress(stream) for stream in streams]
    fonts = [set(TTFont(io.BytesIO(font)).keys()) for font in data if font.startswith(b"\0\1\0\0")]  # not Type 3
    assert fonts
    for tables in fonts:
        assert "glyf" in tables
        assert tables.isdisjoint({"GDEF", "GPOS", "GSUB"})


def test_figure_that_is_not_saved_or_fails_writes_nothing(run, shown):
    replace(run, save=False).figure(draw, TABLE, "aside")  # which no catalogue lists
    assert len(shown) == 1
    with pytest.raises(KeyError, match="n"):
        run.figure(draw, TABLE.drop(columns="n"), "curve")
    plt.close("all")
    with pytest.raises(ValueError, match=r"stem = 'a/b'; allowed: "):
        run.figure(draw, TABLE, "a/b")
    assert len(shown) == 1
    assert not run.folder.exists()


def test_footer_lies_below_the_figure_and_is_not_clipped(run, shown):
    """The page is the unlabelled figure, unchanged, above a strip that holds the whole label, wrapped where long."""
    toml = run.root / "notebooks" / "experiments.toml"
    toml.write_text(EXPERIMENTS.replace("digits, 50 % of them", "CIFAR-10 at 32x32 pixels, " * 12))
    run.figure(draw, TABLE, "labelled")
    replace(run, profile="full").figure(draw, TABLE, "plain")
    labelled = matplotlib.image.imread(run.folder / "figures/labelled.png")
    plain = matplotlib.image.imread(run.root / "results/full/figures/plain.png")
    height, width = plain.shape[:2]
    assert (width, height) == (975, 600)
    assert labelled.shape[1] == width and labelled.shape[0] > height + 100
    assert np.array_equal(labelled[:height], plain)
    strip = labelled[height:, :, :3] < 0.99
    assert strip.any()
    assert not strip[[0, -1]].any() and not strip[:, [0, -1]].any()


SAVE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_notebook_render import TABLE, Path, Run, draw
run = Run(profile="quick", name="", save=True, configs=(), root=Path(sys.argv[2]))
run.figure(draw, TABLE, "curve")
run.table(TABLE, "table")
"""


def test_files_are_the_same_bytes_in_every_process_and_under_any_matplotlibrc(run, shown, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run.root, other)
    (tmp_path / "matplotlibrc").write_text(
        "font.family: serif\nsavefig.dpi: 50\naxes.grid: True\nfigure.facecolor: red\ntext.usetex: True"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["MATPLOTLIBRC"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", SAVE, Path(__file__).parent, other], check=True, env=environment)
    run.figure(draw, TABLE, "curve")
    run.table(TABLE, "table")
    names = [f"figures/curve.{suffix}" for suffix in ("csv", "pdf", "png", "svg")]
    names += [f"tables/table.{suffix}" for suffix in ("csv", "md", "tex")]
    for name in names:
        assert (run.folder / name).read_bytes() == (other / "results/quick" / name).read_bytes(), name


# Tables


def test_table_shows_and_writes(run, shown):
    run.table(TABLE, "table")
    folder = run.folder / "tables"
    assert (folder / "table.csv").read_text() == "scheme,n,top1_percent\nbinary,1,81.2346\nsigned|binary,23456,\n"
    assert (folder / "table.md").read_text() == textwrap.dedent(
        r"""        Top-1 &amp; more — quick profile: digits, 50 % of them

        | scheme | n | top1_percent |
        | --- | ---: | ---: |
        | binary | 1 | 81.23 |
        | signed\|binary | 23,456 | – |
        """
    )
    (page,) = shown
    assert page.data.startswith("<p>Top-1 &amp; more — quick profile: digits, 50 % of them</p>\n<table>")
    latex = (folder / "table.tex").read_text()
    assert r"\caption{Top-1 \& more — quick profile: digits, 50 \% of them}" in latex
    assert r"scheme & n & top1\_percent \\" in latex
    assert r"\begin{tabular}{lrr}" in latex
    assert r"\label{tab:table}" in latex


def test_a_wide_table_shows_the_columns_that_are_named_and_saves_all(run, shown):
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


def test_table_keeps_named_row_labels(run, shown):
    run.table(TABLE.set_index("scheme")[["n"]], "indexed")
    assert (run.folder / "tables/indexed.csv").read_text() == "scheme,n\nbinary,1\nsigned|binary,23456\n"
    assert "| scheme " in (run.folder / "tables/indexed.md").read_text()


def test_a_folded_table_opens_below_its_caption(run, shown):
    run.table(TABLE, "table", fold=True)
    assert shown[0].data.startswith("<details><summary>Top-1 &amp; more — quick")
    assert shown[0].data.endswith("</table>\n</details>")


def page(*cells):
    return render.html(render.for_people(pd.DataFrame({"x": cells}), "x"), "")


def test_markdown_is_escaped_and_read_back(run, shown):
    odd = "<script>alert(1)</script> & a | b \\"
    run.table(pd.DataFrame({"<b>x|y": [odd]}), "table")
    text = (run.folder / "tables/table.md").read_text()
    assert "<script" not in text and "<b>" not in text
    assert items.parse_table(text)[::2] == (["<b>x|y"], [[odd]])


def test_html_is_escaped_and_an_interval_stays_in_one_piece():
    assert "&lt;b&gt;&amp;" in page("<b>&")
    assert "1.25\u00a0±\u00a00.30\u00a0(n=3)" in page("1.25 ± 0.30 (n=3)")


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
