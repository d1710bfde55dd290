"""results/<profile>/ro-crate-metadata.json: files, and one action for each notebook, from what it read to what it made.

An RO-Crate is a folder of research data described for machines (https://w3id.org/ro/crate).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sbkit.notebook import FORMATS, NOTEBOOKS, Run
from sbkit.page.items import PAPER, finished_records, notebook_title

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


def crate(run: Run) -> str:
    """The whole of ro-crate-metadata.json. Raises FileNotFoundError if the profile has no finished record."""
    from rocrate.rocrate import ROCrate

    found = finished_records(run.folder)
    crate = ROCrate(version="1.2")
    crate.name = f"sbkit, profile {run.profile}"
    crate.description = (
        "Claims of the paper on signed binarization beside what was measured, "
        f"at this scale: {run.experiment['title']}. "
        "Records of training and benchmark runs, weight codes, and the figures and tables drawn from them."
    )
    dates = [record.provenance["started_utc"] for record in found.values() if "started_utc" in record.provenance]
    crate.root_dataset["datePublished"] = max(dates)  # the library's own is the time of writing
    crate.license = _entity(crate, LICENCE["@id"], LICENCE)
    crate.root_dataset["citation"] = _entity(crate, PAPER["@id"], PAPER)

    files = {}
    for name, record in found.items():
        created = {"dateCreated": record.provenance["started_utc"]} if "started_utc" in record.provenance else {}
        files[name] = _file(crate, run, run.folder / "records" / f"{name}.json", **created)
    for path in sorted(run.folder.glob("weights/*.npz")):
        files[f"weights/{path.stem}"] = _file(crate, run, path)
    for kind, notebook in NOTEBOOKS.items():
        kinds = ("train/", "weights/") if kind == "train" else (f"{kind}/",)
        if any(name.startswith(f"{kind}/") for name in found):
            _act(crate, run, Path(notebook).stem, [], [files[name] for name in files if name.startswith(kinds)])
    _readers(crate, run, files)
    # JupyterLab leaves files of its own beside executed notebooks.
    executed = (path for path in run.folder.glob("executed/*") if path.suffix in (".html", ".ipynb"))
    for path in [*sorted(executed), run.folder / "index.html"]:
        _file(crate, run, path)
    return json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False)


def _readers(crate: Any, run: Run, files: dict[str, Any]) -> None:
    """What each reader read and drew."""
    read: dict[str, dict[str, Any]] = {}
    made: dict[str, list[Any]] = {}
    for name, entry in run.drawn().items():
        paths = [run.folder / f"{name}.{suffix}" for suffix in FORMATS[name.partition("/")[0]]]
        drawn = [_file(crate, run, path, description=entry["caption"]) for path in paths if path.exists()]
        made.setdefault(entry["notebook"], []).extend(drawn)
        kinds = tuple(f"{kind}/" for kind in entry["reads"])
        read.setdefault(entry["notebook"], {}).update({key: files[key] for key in files if key.startswith(kinds)})
    for notebook in made:
        _act(crate, run, notebook, list(read[notebook].values()), made[notebook])


def _entity(crate: Any, name: str, properties: dict[str, Any]) -> Any:
    from rocrate.model import ContextEntity

    return crate.add(ContextEntity(crate, name, properties))


def _file(crate: Any, run: Run, path: Path, **properties: str) -> Any:
    """A file of the profile's folder."""
    name = path.relative_to(run.folder).as_posix()
    properties = {"name": name, "encodingFormat": MEDIA_TYPES[path.suffix[1:]]} | properties
    return crate.add_file(path, name, properties=properties)


def _act(crate: Any, run: Run, notebook: str, reads: list[Any], made: list[Any]) -> None:
    """What a notebook read and made."""
    source = {
        "@type": "SoftwareSourceCode",
        "name": f"notebooks/{notebook}.ipynb",
        "description": notebook_title(run.root, notebook),
        "programmingLanguage": "Python",
    }
    instrument = _entity(crate, f"#{notebook}", source)
    crate.add_action(instrument, f"#run-{notebook}", reads, made, {"name": f"{notebook} on {run.profile}"})
