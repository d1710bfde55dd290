"""README, docs and gallery: they show what the committed tables hold, their links lead somewhere, their code runs."""

import re
from pathlib import Path

import pandas
import pytest

from sbkit.page import gallery

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), REFERENCE / "README.md"]


def test_readme_is_one_screen_long():
    assert (ROOT / "README.md").stat().st_size <= 9_000


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
class TestPage:
    def test_shows_the_committed_tables(self, path):
        """Where this fails, `make gallery` puts the tables in again."""
        text = path.read_text(encoding="utf-8")
        expected = gallery.gallery(ROOT) if path.parent == REFERENCE else gallery.fill(text, ROOT)
        assert text == expected

    def test_links_lead_somewhere(self, path):
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))]
        local = [link for link in links if link and "://" not in link]
        assert [link for link in local if not (path.parent / link).exists()] == []

    def test_every_interval_is_in_a_committed_table(self, path):
        """`1.92 ± 0.08`, to the digits shown and up to the sign ("below"), is a mean and half width of some table."""
        text = path.read_text(encoding="utf-8").replace("\u00a0", " ")
        unknown = [f"{m} ± {h}" for m, digits, h in INTERVAL.findall(text) if not known(m, len(digits), h)]
        assert unknown == []


INTERVAL = re.compile(r"(\d+\.(\d+)) ± (\d+\.\d+)")
_TABLES: dict[str, set] = {}


def known(mean, digits, half_width):
    """Whether a committed table holds this interval, as text or as two columns of numbers."""
    if not _TABLES:
        _TABLES["written"], _TABLES["numbers"] = set(), set()
        for path in [*REFERENCE.glob("*/tables/*.csv"), *REFERENCE.glob("*/figures/*.csv")]:
            _TABLES["written"] |= {(m, h) for m, _, h in INTERVAL.findall(path.read_text(encoding="utf-8"))}
            table = pandas.read_csv(path)
            for column in (name for name in table if name.endswith("half_width")):
                stem = column.removesuffix("half_width").rstrip("_")
                for other in table.select_dtypes("number"):
                    if other != column and (not stem or stem in other or other in stem):
                        _TABLES["numbers"] |= set(zip(table[other].abs(), table[column], strict=True))
    if (mean, half_width) in _TABLES["written"]:
        return True
    shown = {(f"{m:.{digits}f}", f"{h:.{digits}f}") for m, h in _TABLES["numbers"]}
    return (mean, half_width) in shown


def test_the_readmes_python_runs_as_it_stands():
    [program] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    namespace = {}
    exec(f"import torch\n{program}", namespace)
    y, network, torch = (namespace[name] for name in ("y", "network", "torch"))
    assert y.shape == (1, 16, 32, 32) and network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            '[[item]]\nprofile = "quick"\ntitle = "A"\ntext = "B"\n',
            r"item A has the keys profile, text, title; allowed: profile, title, text, and",
        ),
        ("item = 5", r"item = 5; allowed: tables \[\[item\]\]"),
        ("item = [5]", r"item 1 = 5; allowed: a table of profile \(str\)"),
    ],
)
def test_gallery_refuses_an_item_of_another_form(tmp_path, text, message):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "gallery.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        gallery.load(tmp_path)


@pytest.mark.parametrize("columns, last", [("", "| faster | 1.26 |"), (": ours", "| 1.26 |")])
def test_a_mark_is_filled(tmp_path, columns, last):
    (tmp_path / "claims.csv").write_text("claim,ours\nfaster,1.26\n")
    begins, ends = f"a\n<!-- table: claims.csv{columns} -->\n", "<!-- end of table -->\nb"
    assert gallery.fill(f"{begins}old\n{ends}", tmp_path).splitlines()[-3] == last
    for text in (begins, begins.replace(".csv", "") + ends, "<!-- claims: quick -->\n" + ends):
        with pytest.raises(ValueError, match=r"1 marks begin a table and 0 are whole; allowed: <!-- table: FILE"):
            gallery.fill(text, tmp_path)
    for first in (begins, "<!-- claims: quick: C1 -->\n"):  # without its end it must not reach for that of the next
        with pytest.raises(ValueError, match="2 marks begin a table and 1 are whole"):
            gallery.fill(f"{first}prose\n{begins}{ends}", tmp_path)


def test_a_mark_of_claims_sets_profiles_side_by_side(tmp_path):
    rows = {"large": "-1.5 (n=1),no record", "small": "-1.50 ± 0.21 (n=3),opposite"}
    for profile, row in rows.items():
        path = tmp_path / gallery.FOLDER / profile / "tables" / "claims_headline.csv"
        path.parent.mkdir(parents=True)
        path.write_text(f"id,claim,paper,ours,verdict\nC1,fast,1.26,-,no record\nC15,as accurate,0.0,{row}\n")
    begins, ends = "<!-- claims: large, small: C15 -->\n", "<!-- end of table -->\n"
    assert gallery.fill(begins + ends, tmp_path).splitlines()[1:-1] == [
        "| claim | paper | large | small |",
        "| --- | --- | --- | --- |",
        "| as accurate | 0.0 | -1.5\u00a0(n=1) | -1.50\u00a0±\u00a00.21\u00a0(n=3), opposite |",
    ]
    for wrong, message in (
        (begins.replace("C15", "C9"), "claim of large = 'C9'; allowed: C1, C15"),
        (begins.replace("small", "tiny"), "profile = 'tiny'; allowed: large, small"),
        (begins.replace("small", ""), "profile = ''; allowed: large, small"),
    ):
        with pytest.raises(ValueError, match=message):
            gallery.fill(wrong + ends, tmp_path)


def test_a_table_names_a_missing_column(tmp_path):
    path = tmp_path / "claims.csv"
    path.write_text("claim,ours\nfaster,1.26 ± 0.03\n")
    assert gallery.markdown_table(path, ["claim", "ours"]).splitlines()[-1] == "| faster | 1.26\u00a0±\u00a00.03 |"
    with pytest.raises(ValueError, match=r"claims\.csv has no column verdict; allowed: claim, ours"):
        gallery.markdown_table(path, ["claim", "verdict"])
    path.write_text("claim,ours\n")
    with pytest.raises(ValueError, match=r"claims\.csv has no rows"):
        gallery.markdown_table(path, [])
