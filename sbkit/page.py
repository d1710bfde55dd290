"""The overview page of a profile, and the list of its files that machines read.

    python -m sbkit.page --profile quick

writes results/quick/index.html, one file that a browser opens offline: verdicts, figures, tables, and where each comes
from; and results/quick/ro-crate-metadata.json, an RO-Crate of the profile's files and of the notebooks that made them.
It reads what the readers saved and the records behind it; the same results give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from sbkit.notebook import FORMATS, NOTEBOOKS, Run, find_root
from sbkit.records import KINDS, Record, load, run_label, write_atomic

SYMBOLS = {
    "reproduced": "●",
    "reproduced at smaller scale": "•",
    "direction only": "→",
    "not reproduced": "○",
    "contradicted": "×",
    "missing record": "?",
    "out of reach here": "–",
}
"""By verdict, from the best to none, so that a reader needs no colour to tell them apart."""

HEADLINES = {"tables/claims": "Verdicts", "tables/open_review": "The open review"}
"""The tables that stand first on the page, not with their notebooks, and their headings."""

PAPER = {
    "@id": "https://arxiv.org/abs/2312.01581",
    "@type": "ScholarlyArticle",
    "name": "Signed Binarization: Unlocking Efficiency Through Repetition-Sparsity Trade-Off",
    "author": "Sachit Kuhar, Yash Jain, Alexey Tumanov",
    "identifier": "arXiv:2312.01581",
}
LICENCE = {"@id": "https://spdx.org/licenses/MIT", "@type": "CreativeWork", "name": "MIT License"}
MEDIA_TYPES = {
    "csv": "text/csv",
    "html": "text/html",
    "ipynb": "application/x-ipynb+json",
    "json": "application/json",
    "md": "text/markdown",
    "npz": "application/x-npz",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tex": "application/x-tex",
}

ENLARGED = 1.3  # figures are set in 8 points for print, the page in 16 pixels

Records = dict[str, Record]  # by kind and name, "train/binary-s0"


class Table(NamedTuple):
    """A saved table as text: cells of a row, the column names, and each column's alignment, left or right."""

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
    provenance: dict[str, str]


# What lies in a profile's folder


def finished_records(folder: Path) -> Records:
    """The records below a profile's folder whose status is ok, sorted by kind and name."""
    found = {f"{kind}/{path.stem}": load(path) for kind in KINDS for path in folder.glob(f"records/{kind}/*.json")}
    return {name: found[name] for name in sorted(found) if found[name].provenance.get("status") == "ok"}


def parse_table(markdown: str) -> Table:
    """The table of a Markdown file as `Run.table` writes it: cells unescaped, the caption above it left out."""
    lines = [line.strip() for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    columns, rules, *rows = cells
    return Table(columns, ["right" if rule.endswith(":") else "left" for rule in rules], rows)


def with_units(table: Table) -> Table:
    """A table whose units stand behind the paper's values, not in a column of their own."""
    if "unit" not in table.columns:
        return table
    unit, paper = table.columns.index("unit"), table.columns.index("paper")
    rows = [[*row] for row in table.rows]
    for row in rows:
        row[paper] = f"{row[paper]} {row[unit]}".removesuffix(" -")
    kept = [index for index in range(len(table.columns)) if index != unit]
    return Table(*([line[index] for index in kept] for line in table[:2]), [[row[i] for i in kept] for row in rows])


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


def rests_on(entry: dict[str, Any], rows: Iterable[dict[str, str]], found: Records) -> Records:
    """The records behind a figure or table: those that its CSV names, by name, by label and seed, or by label.

    Where it names none, all that its notebook reads for it.
    """
    kinds = {"train" if kind == "weights" else kind for kind in entry["reads"]}
    read = {
        name: record
        for name, record in found.items()
        if record.kind in kinds and all(record.config.get(key, value) == value for key, value in entry["needs"].items())
    }
    named = set()
    for row in rows:
        seed = f"-s{row['seed']}" if row.get("seed") else ""
        named.add(row.get("name") or f"{row.get('label', '')}{seed}")
    chosen = {name: read[name] for name in read if named & {_stem(name), run_label(_stem(name))}}
    return chosen or read


def _stem(name: str) -> str:
    return name.partition("/")[2]


def provenance(found: Records) -> dict[str, str]:
    """Which records, when, by what code, on what machine and data, a line each; empty where nothing was read."""
    if not found:
        return {}
    seeds: dict[str, list[str]] = {}
    for stem in map(_stem, found):
        label = run_label(stem)
        seeds.setdefault(label, []).append(stem.removeprefix(label).removeprefix("-"))
    sources = [record.provenance for record in found.values()]
    days = sorted({source["started_utc"][:10] for source in sources if "started_utc" in source})
    lines = {
        "Records": ", ".join(" ".join([label, *filter(None, of_label)]) for label, of_label in seeds.items()),
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


def items(run: Run, found: Records) -> list[Item]:
    """Everything that the profile should have drawn, as it lies in its folder."""
    shown = []
    for name, entry in run.drawn().items():
        data = run.folder / f"{name}.csv"
        rows = list(csv.DictReader(data.read_text(encoding="utf-8").splitlines())) if data.exists() else []
        path = run.folder / f"{name}.{'svg' if name.startswith('figures') else 'md'}"
        text = path.read_text(encoding="utf-8") if path.exists() else None
        image = inline_svg(text) if text and path.suffix == ".svg" else None
        table = parse_table(text) if text and path.suffix == ".md" else None
        shown.append(Item(name, entry, image, table, provenance(rests_on(entry, rows, found))))
    return shown


# The page


def notebook_title(root: Path, notebook: str) -> str:
    """What a notebook calls itself: its first line, without the number."""
    cells = json.loads((root / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).partition("\n")[0].lstrip("# ").partition(" · ")[2]


def notebook_link(run: Run, notebook: str) -> str:
    """From the profile's folder to the executed notebook, or to its source where executed ones are not committed."""
    return f"../../../notebooks/{notebook}.ipynb" if _is_reference(run) else f"executed/{notebook}.ipynb"


def _is_reference(run: Run) -> bool:
    return run.profile.startswith("reference/")


def _with_code(text: str) -> Markup:
    """The text escaped, its `code` set as such."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def verdict_counts(shown: Iterable[Item]) -> dict[str, int]:
    """How many claims have each verdict, from the best to none."""
    for item in shown:
        if item.name == "tables/claims" and item.table:
            column = item.table.columns.index("verdict")
            counts = Counter(row[column] for row in item.table.rows)
            return {verdict: counts.pop(verdict) for verdict in SYMBOLS if verdict in counts} | counts
    return {}


def page(run: Run) -> str:
    """The whole of index.html. Raises FileNotFoundError if the profile has no finished record."""
    found = _some_records(run)
    shown = items(run, found)
    table = run.profile.rpartition("/")[2]
    notebooks = dict.fromkeys(item.entry["notebook"] for item in shown)
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
        table=table,
        experiment=run.experiment,
        paper=PAPER,
        symbols=SYMBOLS,
        counts=verdict_counts(shown),
        headlines=[
            (HEADLINES[item.name], item._replace(table=item.table and with_units(item.table)))
            for item in shown
            if item.name in HEADLINES
        ],
        notebooks={name: (notebook_title(run.root, name), notebook_link(run, name)) for name in notebooks},
        items=[item for item in shown if item.name not in HEADLINES],
        formats=FORMATS,
        provenance=provenance(found),
        records=found,
    )


def _some_records(run: Run) -> Records:
    if found := finished_records(run.folder):
        return found
    raise FileNotFoundError(f"{run.folder / 'records'} holds no finished record; `make reproduce` measures a profile")


# The RO-Crate


def crate(run: Run) -> str:
    """The whole of ro-crate-metadata.json: files, and one action for each notebook, from what it read to what it made.

    Raises FileNotFoundError if the profile has no finished record.
    """
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    found = _some_records(run)
    dates = [record.provenance["started_utc"] for record in found.values() if "started_utc" in record.provenance]
    crate = ROCrate(version="1.2")
    crate.name = f"sbkit, profile {run.profile}"
    crate.description = (
        "Claims of the paper on signed binarization beside what was measured, "
        f"at this scale: {run.experiment['title']}. "
        "Records of training and benchmark runs, weight codes, and the figures and tables drawn from them."
    )
    crate.root_dataset["datePublished"] = max(dates)  # of the newest record; the library's own is the time of writing
    crate.license = crate.add(ContextEntity(crate, LICENCE["@id"], LICENCE))
    crate.root_dataset["citation"] = crate.add(ContextEntity(crate, PAPER["@id"], PAPER))

    def add(path: Path, **properties: str) -> Any:
        name = path.relative_to(run.folder).as_posix()
        properties = {"name": name, "encodingFormat": MEDIA_TYPES[path.suffix[1:]]} | properties
        return crate.add_file(path, name, properties=properties)

    def act(notebook: str, reads: list[Any], made: list[Any]) -> None:
        source = {
            "@type": "SoftwareSourceCode",
            "name": f"notebooks/{notebook}.ipynb",
            "description": notebook_title(run.root, notebook),
            "programmingLanguage": "Python",
        }
        instrument = crate.add(ContextEntity(crate, f"#{notebook}", source))
        crate.add_action(instrument, f"#run-{notebook}", reads, made, {"name": f"{notebook} on {run.profile}"})

    files = {}
    for name, record in found.items():
        created = {"dateCreated": record.provenance["started_utc"]} if "started_utc" in record.provenance else {}
        files[name] = add(run.folder / "records" / f"{name}.json", **created)
    weights = {f"weights/{path.stem}": add(path) for path in sorted(run.folder.glob("weights/*.npz"))}
    for kind, notebook in NOTEBOOKS.items():
        made = [file for name, file in files.items() if name.startswith(kind)]
        if made:
            act(Path(notebook).stem, [], made + (list(weights.values()) if kind == "train" else []))
    files |= weights

    read: dict[str, dict[str, Any]] = {}
    made: dict[str, list[Any]] = {}
    for name, entry in run.drawn().items():
        paths = [run.folder / f"{name}.{suffix}" for suffix in FORMATS[name.partition("/")[0]]]
        of_entry = [add(path, description=entry["caption"]) for path in paths if path.exists()]
        made.setdefault(entry["notebook"], []).extend(of_entry)
        kinds = tuple(entry["reads"])
        read.setdefault(entry["notebook"], {}).update({key: files[key] for key in files if key.startswith(kinds)})
    for notebook in made:
        act(notebook, list(read[notebook].values()), made[notebook])

    executed = [] if _is_reference(run) else sorted(run.folder.glob("executed/*.ipynb"))
    for path in [*executed, run.folder / "index.html"]:
        add(path)
    return json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sbkit.page", description="Write a profile's page and RO-Crate.")
    parser.add_argument("--profile", required=True, help="a profile of experiments.toml, or reference/<one of them>")
    run = Run(parser.parse_args(arguments).profile, name="", save=True, configs=(), root=find_root())
    write_atomic(run.folder / "index.html", page(run).encode())
    write_atomic(run.folder / "ro-crate-metadata.json", f"{crate(run)}\n".encode())


if __name__ == "__main__":
    main()
