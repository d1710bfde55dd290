"""The committed results for people: results/reference/README.md, and the tables that README.md and docs/ show.

notebooks/gallery.toml lists what the gallery shows and the sentence beside it, written by hand. A page that shows a
table of the committed results marks its place, and `fill` puts the columns in that the mark names, or all of them:

    <!-- table: results/reference/quick/tables/accuracy.csv: label, top1, density -->
    <!-- end of table -->

Headline claims as several profiles judge them, one column a profile, are marked by profiles and by ids of claims:

    <!-- claims: cifar_block, cifar: C12, C14 -->
    <!-- end of table -->
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from sbkit.checks import choice, tables
from sbkit.records import write_atomic
from sbkit.tables import cell, markdown

FOLDER = Path("results", "reference")
_MARK = re.compile(
    r"(?P<begin><!-- (?:table: (?P<file>\S+\.csv)(?:: (?P<columns>[^>]*?))?"
    r"|claims: (?P<profiles>[^:>]+): (?P<ids>[^:>]+)) -->\n)"
    r"(?:(?!<!-- ).)*(?P<end><!-- end of table -->)",
    re.DOTALL,
)
_FORMS = {"profile": str, "title": str, "text": str}


def load(root: Path) -> list[dict[str, Any]]:
    """The [[item]] tables of gallery.toml: profile, title, text, and `figure` (a stem) or `table` with its `columns`.

    Raises ValueError naming the item and what is wrong with it.
    """
    own = {"figure": str, "table": str, "columns": list}
    items = tables(root / "notebooks" / "gallery.toml", "item", _FORMS | own, optional=own)
    for item in items:
        if item.keys() - _FORMS.keys() not in ({"figure"}, {"table", "columns"}):
            raise ValueError(
                f"gallery.toml: item {item['title']} has the keys {', '.join(sorted(item))}; "
                "allowed: profile, title, text, and figure or table with columns"
            )
    return items


def markdown_table(path: Path, columns: list[str]) -> str:
    """Some columns of a committed CSV, or all where none is named, as a Markdown table, for a page that GitHub renders.

    Raises ValueError for a file without rows, and naming a column that it lacks.
    """
    if not (rows := _rows(path)):
        raise ValueError(f"{path.name} has no rows; allowed: one or more")
    columns = columns or list(rows[0])
    if missing := [column for column in columns if column not in rows[0]]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; allowed: {', '.join(rows[0])}")
    return markdown(columns, ([_cell(row[column]) for column in columns] for row in rows))


def claims_table(root: Path, profiles: list[str], ids: list[str]) -> str:
    """The headline claims of these ids, what the paper says of them, and what the records of each profile say.

    Raises ValueError naming a profile without that table, and an id that it lacks.
    """
    paths = {path.parents[1].name: path for path in sorted((root / FOLDER).glob("*/tables/claims_headline.csv"))}
    judged, rows = {}, []
    for profile in profiles:
        choice("profile", profile, paths)
        judged[profile] = {row["id"]: row for row in _rows(paths[profile])}
        for name in ids:
            choice(f"claim of {profile}", name, judged[profile])
    for name in ids:
        words = judged[profiles[0]][name]
        rows.append([words["claim"], _cell(words["paper"]), *(_judged(judged[profile][name]) for profile in profiles)])
    return markdown(["claim", "paper", *profiles], rows)


def _judged(row: dict[str, str]) -> str:
    """Our number and its verdict, unless that is "no record": then there is no number, or one seed alone."""
    return _cell(row["ours"]) + ("" if row["verdict"] == "no record" else f", {row['verdict']}")


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _cell(text: str) -> str:
    return cell(float(text) if re.fullmatch(r"-?\d+\.\d{4,}", text) else text)


def fill(text: str, root: Path) -> str:
    """A page with every marked table as its files hold it now. Raises ValueError for a mark that is none."""

    def names(listed: str | None) -> list[str]:
        return [name.strip() for name in listed.split(",")] if listed else []

    def filled(mark: re.Match) -> str:
        if mark["file"]:
            table = markdown_table(root / mark["file"], names(mark["columns"]))
        else:
            table = claims_table(root, names(mark["profiles"]), names(mark["ids"]))
        return f"{mark['begin']}{table}\n{mark['end']}"

    page, whole = _MARK.subn(filled, text)
    begun = len(re.findall(r"^<!-- (?:table|claims):", text, re.MULTILINE))
    if whole != begun:
        raise ValueError(
            f"{begun} marks begin a table and {whole} are whole; allowed: <!-- table: FILE.csv -->, "
            "<!-- table: FILE.csv: column, column --> or <!-- claims: profile, profile: id, id -->, "
            "and <!-- end of table -->"
        )
    return page


def gallery(root: Path) -> str:
    """The whole of results/reference/README.md."""
    parts = [
        "# Gallery: what the committed records show",
        "This page is generated by `make gallery` from the records in this folder and from the sentences in "
        "[gallery.toml](../../notebooks/gallery.toml). All other figures, and the page of a profile, are drawn by "
        "`make figures PROFILE=<folder>`. A mean stands with its 95 % interval and n; "
        "[docs/results.md](../../docs/results.md) says how both are made.",
    ]
    for item in load(root):
        parts.append(f"## {item['title']}\n\n{item['text'].strip()}")
        if "figure" in item:
            parts.append(f"![{item['title']}](gallery/{item['profile']}-{item['figure']}.png)")
        else:
            parts.append(
                markdown_table(root / FOLDER / item["profile"] / "tables" / f"{item['table']}.csv", item["columns"])
            )
        parts.append(f"Records: [{item['profile']}]({item['profile']}/records).")
    return "\n\n".join(parts) + "\n"


def write(root: Path) -> None:
    """Write the gallery with its pictures, and fill the tables of README.md and docs/.

    Raises FileNotFoundError for a figure that `make figures` has not drawn yet.
    """
    pictures = {}
    for item in load(root):
        if "figure" in item:
            source = root / FOLDER / item["profile"] / "figures" / f"{item['figure']}.png"
            pictures[f"{item['profile']}-{item['figure']}.png"] = source.read_bytes()
    page = gallery(root)
    for old in (root / FOLDER / "gallery").glob("*.png"):
        old.unlink()
    for name, data in pictures.items():
        write_atomic(root / FOLDER / "gallery" / name, data)
    write_atomic(root / FOLDER / "README.md", page.encode())
    for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        write_atomic(path, fill(path.read_text(encoding="utf-8"), root).encode())
