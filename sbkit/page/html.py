"""results/<profile>/index.html: verdicts and three figures first, then everything else folded by notebook.

It reads what the readers saved and the records behind it; the same results give the same bytes.
"""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from sbkit.notebook import FORMATS, Run
from sbkit.page import verdicts
from sbkit.page.items import PAPER, finished_records, items, notebook_title, provenance
from sbkit.records import write_atomic

HEADLINE = "tables/claims_headline"
"""The table that stands first."""

FRONT = ("figures/speedup", "figures/pareto", "figures/tradeoff")
"""The figures that stand open on the page, where the profile has them."""

SYMBOLS = {
    "stronger": "▲",
    "agrees": "●",
    "weaker": "▽",
    "no effect measured": "○",
    "opposite": "×",
    "no record": "?",
    "out of reach": "–",
}
"""By verdict, so that a reader needs no colour to tell them apart."""


def page(run: Run) -> str:
    """The whole of index.html. Raises FileNotFoundError if the profile has no finished record."""
    found = finished_records(run.folder)
    shown = {item.name: item for item in items(run)}
    yours = verdicts.compared(run)
    notebooks = dict.fromkeys(item.entry["notebook"] for item in shown.values())
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["with_code"] = _with_code
    return environment.get_template("page.html.jinja").render(
        profile=run.profile,
        table=run.profile.rpartition("/")[2],
        experiment=run.experiment,
        paper=PAPER,
        symbols=SYMBOLS,
        headline=shown.get(HEADLINE),
        front=[shown[name] for name in FRONT if name in shown],
        notebooks={name: notebook_title(run.root, name) for name in notebooks},
        items=list(shown.values()),
        yours=verdicts.as_table(yours),
        equal=int(yours["same"].sum()),
        formats=FORMATS,
        provenance=provenance(found),
        records=found,
    )


def _with_code(text: str) -> Markup:
    """The text escaped, its `code` set as such and `**bold**` as such."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text))


def write_notebooks(folder: Path) -> None:
    """Each executed notebook of a profile's folder as HTML beside it, where it is newer than that."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(embed_images=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    for path in sorted(folder.glob("executed/*.ipynb")):
        page = path.with_suffix(".html")
        if not page.exists() or page.stat().st_mtime < path.stat().st_mtime:
            write_atomic(page, exporter.from_filename(str(path))[0].encode())
