"""The files of published data sets: SHA-256 decides, and the first source that has all of them intact serves."""

from __future__ import annotations

import gzip
import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from sbkit.data.torchvision import import_torchvision
from sbkit.records import write_atomic

log = logging.getLogger(__name__)


def published(
    label: str, sha256: dict[str, str], kept: Path, sources: dict[str, Callable[[], dict[str, bytes]]]
) -> dict[str, bytes]:
    """The contents of the files that `sha256` names with their checksums: from `kept`, else from the first source.

    A source returns contents by name. What it raises, a missing file and a wrong checksum make way for the next. What
    one has is written to `kept`, each file atomically, so two processes that do this at once both succeed.
    Raises FileNotFoundError, which says why each source failed, where none has all files.
    """
    problems = []
    for source, read in ({str(kept): lambda: in_folder(kept, sha256)} | sources).items():
        try:
            found = read()
            contents = {name: _verified(name, found[name], digest) for name, digest in sha256.items()}
        except Exception as error:  # damaged files and failed downloads raise errors of every kind
            reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            problems.append(f"  {source}: {reason[-1] if reason else type(error).__name__}")
            continue
        for name, content in contents.items():
            if not (kept / name).exists() or (kept / name).read_bytes() != content:
                level = logging.WARNING if (kept / name).exists() else logging.INFO
                log.log(level, "%s: %s is written from %s", label, write_atomic(kept / name, content), source)
        return contents
    raise FileNotFoundError(
        f"{label} was not found:\n" + "\n".join(problems) + f"\nPut these files (or their .gz) into {kept}: "
        f"{', '.join(sha256)}"
    )


def in_folder(folder: Path, sha256: dict[str, str]) -> dict[str, bytes]:
    """The contents of files in a folder, each plain or, where that is absent or damaged, from its .gz."""
    contents = {}
    for name, digest in sha256.items():
        plain, packed = folder / name, folder / f"{name}.gz"
        contents[name] = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        if plain.exists() and packed.exists() and hashlib.sha256(contents[name]).hexdigest() != digest:
            contents[name] = gzip.decompress(packed.read_bytes())
    return contents


def _verified(name: str, content: bytes, sha256: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{name} is damaged: its sha256 is {found}, the published file's {sha256}")
    return content


def download(url: str) -> bytes:
    """What torchvision's downloader finds at a URL; it shows its progress."""
    utils = import_torchvision().datasets.utils
    with tempfile.TemporaryDirectory() as folder:
        utils.download_url(url, folder, filename="file")
        return Path(folder, "file").read_bytes()
