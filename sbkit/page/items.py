"""What lies in a profile's folder: its records, its figures and tables, and where they come from."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from sbkit.notebook import Run
from sbkit.records import KINDS, Record, load

PAPER = {
    "@id": "https://arxiv.org/abs/2312.01581",
    "@type": "ScholarlyArticle",
    "name": "Signed Binarization: Unlocking Efficiency Through Repetition-Sparsity Trade-Off",
    "author": "Sachit Kuhar, Yash Jain, Alexey Tumanov",
    "identifier": "arXiv:2312.01581",
}

ENLARGED = 1.3  # figures are set in 8 points for print, the page in 16 pixels

Records = dict[str, Record]
"""By kind and name, "train/binary-s0"."""


class Table(NamedTuple):
    """A saved table as text: the column names, each column's alignment (left or right), and the cells of each row."""

    columns: list[str]
    align: list[str]
    rows: list[list[str]]


class Image(NamedTuple):
    """A drawing as a data URI, and its width in CSS pixels."""

    source: Markup
    width: int


class Item(NamedTuple):
    """A figure or table of the catalogue; `image` and `table` are None where the file is missing."""

    name: str
    entry: dict[str, Any]
    image: Image | None
    table: Table | None


def finished_records(folder: Path) -> Records:
    """The records below a profile's folder whose status is ok, sorted by kind and name.

    Raises FileNotFoundError if there are none.
    """
    found = {f"{kind}/{path.stem}": load(path) for kind in KINDS for path in folder.glob(f"records/{kind}/*.json")}
    found = {name: found[name] for name in sorted(found) if found[name].provenance.get("status") == "ok"}
    if not found:
        raise FileNotFoundError(f"{folder / 'records'} holds no finished record; `make reproduce` measures a profile")
    return found


def parse_table(markdown: str) -> Table:
    """The table of a Markdown file as `Run.table` writes it: cells unescaped, the caption above it left out."""
    lines = [line.strip() for line in markdown.splitlines() if line.startswith("|")]
    cells = [
        [unescape(cell.strip().replace(r"\|", "|")) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    ]
    columns, rules, *rows = cells
    return Table(columns, ["right" if rule.endswith(":") else "left" for rule in rules], rows)


def inline_svg(svg: str) -> Image:
    """A drawing of matplotlib's as an image: an SVG of its own cannot disturb the page, nor the page it.

    Paths are kept to a hundredth of a point, and fonts found on telephones are named as well. The URI is text, to stand
    between single quotes; base64 would add a third.
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    points = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(r"\s+", " ", svg).strip().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, Arial, sans-serif")
    for character in "%#&'":  # the percent sign first
        svg = svg.replace(character, f"%{ord(character):02X}")
    return Image(Markup(f"data:image/svg+xml;charset=utf-8,{svg}"), round(ENLARGED * points * 96 / 72))


def items(run: Run) -> list[Item]:
    """Everything that the profile should have drawn, as it lies in its folder."""
    shown = []
    for name, entry in run.drawn().items():
        path = run.folder / f"{name}.{'svg' if name.startswith('figures') else 'md'}"
        text = path.read_text(encoding="utf-8") if path.exists() else None
        image = inline_svg(text) if text and path.suffix == ".svg" else None
        table = parse_table(text) if text and path.suffix == ".md" else None
        shown.append(Item(name, entry, image, table))
    return shown


def notebook_title(root: Path, notebook: str) -> str:
    """What a notebook calls itself: its first line, without the number."""
    cells = json.loads((root / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).partition("\n")[0].lstrip("# ").partition(" · ")[2]


def provenance(found: Records) -> dict[str, str]:
    """When, by what code, on what machine and on what data the records were made: a line each."""
    sources = [record.provenance for record in found.values()]
    days = sorted({source["started_utc"][:10] for source in sources if "started_utc" in source})
    lines = {
        "Measured": " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "",
        "Commits": _counted(map(_commit, sources)),
        "Machine": _counted(map(_machine, sources)),
        "Threads": _counted(str(source["threads"]) for source in sources if "threads" in source),
        "Data": _counted(source["data_label"] for source in sources if source.get("data_label")),
    }
    return {key: line for key, line in lines.items() if line}


def _commit(source: dict[str, Any]) -> str:
    return (source.get("commit") or "unknown")[:10] + (" with uncommitted changes" if source.get("dirty") else "")


def _machine(source: dict[str, Any]) -> str:
    cores = f"{source['cores']} cores" if "cores" in source else ""
    device = source.get("device", "cpu")
    return ", ".join(filter(None, [source.get("cpu"), cores, source.get("isa"), "" if device == "cpu" else device]))


def _counted(values: Iterable[str]) -> str:
    """The distinct values; if there are several, with how often each occurs."""
    counts = Counter(values)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({n} {'record' if n == 1 else 'records'})" for value, n in counts.items())
