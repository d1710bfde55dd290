"""Which files of sbkit a notebook or module imports, so that an edit runs again what depends on it and nothing else."""

import ast
import functools
import json
from collections.abc import Iterator
from pathlib import Path


def imported(root: Path, source: str) -> list[str]:
    """Paths below `root`, sorted: what the source at this path imports, at any depth, and what that imports in turn."""
    found, waiting = set(), [source]
    while waiting:
        new = {file for name in _names(root / waiting.pop()) for file in _files(root, name)} - found
        found |= new
        waiting += new
    return sorted(found)


@functools.cache
def _names(path: Path) -> set[str]:
    """Dotted names that begin with sbkit; of `from a import b` also a.b, which may be a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    found = set()
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        found |= {name for name in names if name.partition(".")[0] == "sbkit"}
    return found


def _files(root: Path, name: str) -> Iterator[str]:
    """The module of that name, and the packages in which it lies."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        stem = "/".join(parts[:count])
        yield from (file for file in (f"{stem}.py", f"{stem}/__init__.py") if (root / file).is_file())
