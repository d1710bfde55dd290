"""results/<profile>/ro-crate-metadata.json: files, and one action for each notebook, from what it read to what it made.

An RO-Crate is a folder of research data described for machines (https://w3id.org/ro/crate).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sbkit.notebook import FORMATS, NOTEBOOKS, Run
from sbkit.page.items import PAPER, Records, finished_records, notebook_title

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


class _Crate:
    """An RO-Crate that grows by the files of one profile."""

    def __init__(self, run: Run, found: Records):
        from rocrate.model import ContextEntity
        from rocrate.rocrate import ROCrate

        self.run, self.crate, self._entity = run, ROCrate(version="1.2"), ContextEntity
        dates = [record.provenance["started_utc"] for record in found.values() if "started_utc" in record.provenance]
        self.crate.name = f"sbkit, profile {run.profile}"
        self.crate.description = (
            "Claims of the paper on signed binarization beside what was measured, "
            f"at this scale: {run.experiment['title']}. "
            "Records of training and benchmark runs, weight codes, and the figures and tables drawn from them."
        )
        self.crate.root_dataset["datePublished"] = max(dates)  # the library's own is the time of writing
        self.crate.license = self._add_entity(LICENCE["@id"], LICENCE)
        self.crate.root_dataset["citation"] = self._add_entity(PAPER["@id"], PAPER)

    def _add_entity(self, name: str, properties: dict[str, Any]) -> Any:
        return self.crate.add(self._entity(self.crate, name, properties))

    def file(self, path: Path, **properties: str) -> Any:
        """A file of the profile's folder."""
        name = path.relative_to(self.run.folder).as_posix()
        properties = {"name": name, "encodingFormat": MEDIA_TYPES[path.suffix[1:]]} | properties
        return self.crate.add_file(path, name, properties=properties)

    def act(self, notebook: str, reads: list[Any], made: list[Any]) -> None:
        """What a notebook read and made."""
        source = {
            "@type": "SoftwareSourceCode",
            "name": f"notebooks/{notebook}.ipynb",
            "description": notebook_title(self.run.root, notebook),
            "programmingLanguage": "Python",
        }
        instrument = self._add_entity(f"#{notebook}", source)
        action = {"name": f"{notebook} on {self.run.profile}"}
        self.crate.add_action(instrument, f"#run-{notebook}", reads, made, action)


def crate(run: Run) -> str:
    """The whole of ro-crate-metadata.json. Raises FileNotFoundError if the profile has no finished record."""
    found = finished_records(run.folder)
    crate = _Crate(run, found)
    files = _produced(crate, found)
    read: dict[str, dict[str, Any]] = {}
    made: dict[str, list[Any]] = {}
    for name, entry in run.drawn().items():
        paths = [run.folder / f"{name}.{suffix}" for suffix in FORMATS[name.partition("/")[0]]]
        of_entry = [crate.file(path, description=entry["caption"]) for path in paths if path.exists()]
        made.setdefault(entry["notebook"], []).extend(of_entry)
        kinds = tuple(entry["reads"])
        read.setdefault(entry["notebook"], {}).update({key: files[key] for key in files if key.startswith(kinds)})
    for notebook in made:
        crate.act(notebook, list(read[notebook].values()), made[notebook])
    for path in [*sorted(run.folder.glob("executed/*.*")), run.folder / "index.html"]:
        crate.file(path)
    return json.dumps(crate.crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False)


def _produced(crate: _Crate, found: Records) -> dict[str, Any]:
    """What the producers left, by kind and name, and what each of them did."""
    files = {}
    for name, record in found.items():
        created = {"dateCreated": record.provenance["started_utc"]} if "started_utc" in record.provenance else {}
        files[name] = crate.file(crate.run.folder / "records" / f"{name}.json", **created)
    weights = {f"weights/{path.stem}": crate.file(path) for path in sorted(crate.run.folder.glob("weights/*.npz"))}
    for kind, notebook in NOTEBOOKS.items():
        made = [file for name, file in files.items() if name.startswith(kind)]
        if made:
            crate.act(Path(notebook).stem, [], made + (list(weights.values()) if kind == "train" else []))
    return files | weights
