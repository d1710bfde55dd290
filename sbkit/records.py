"""What a run leaves behind: one small JSON file, written atomically, read back as a tidy table.

A profile's folder holds `records/<kind>/<name>.json`. A record's id hashes the effective config and never the time, so
a repeated run replaces its record and a sweep resumes. This module imports pandas only to build a table.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sbkit.checks import choice

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = 2
KINDS = ("train", "bench")


@dataclass(frozen=True)
class Record:
    """One finished run.

    kind        "train" or "bench"
    id          `run_id(...)` of the effective config
    config      scalars: the options of this run that differ from their defaults
    metrics     scalars, units in the names; a bench record holds its list of timings under "timings"
    history     whatever is drawn but not tabulated: curves, histograms
    provenance  what `provenance()` returns
    schema      version of this layout
    """

    kind: str
    id: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    history: dict[str, Any]
    provenance: dict[str, Any]
    schema: int = SCHEMA

    def __post_init__(self):
        choice("Record.kind", self.kind, KINDS)
        if not isinstance(self.id, str):
            raise TypeError(f"Record.id = {self.id!r}; allowed: a text")
        for field in ("config", "metrics", "history", "provenance"):
            if not isinstance(getattr(self, field), dict):
                raise TypeError(f"Record.{field} is a {type(getattr(self, field)).__name__}; allowed: a dict")
        if not isinstance(self.provenance.get("options", {}), dict):
            raise TypeError(f"Record.provenance.options = {self.provenance['options']!r}; allowed: a dict")
        timings = self.metrics.get("timings", [])
        if not isinstance(timings, list) or not all(isinstance(timing, dict) for timing in timings):
            raise TypeError(f"Record.metrics.timings = {timings!r:.60}; allowed: a list of dicts")


def changed(*configs: Any) -> dict[str, Any]:
    """The fields of these dataclasses that differ from their defaults: a run's configuration.

    An option that is added later keeps the identity of every run made before, as long as its default changes nothing.
    """
    return {
        field.name: value
        for config in configs
        for field in fields(config)
        if (value := getattr(config, field.name)) != field.default
    }


def run_id(slug: str, config: dict[str, Any]) -> str:
    """`slug-1a2b3c4d`: the slug and 8 hexadecimal digits of the sha256 of the config as canonical JSON."""
    text = json.dumps(_plain(config, "config"), sort_keys=True, separators=(",", ":"))
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


# Files


def write_atomic(path: str | os.PathLike, data: bytes) -> Path:
    """Write a whole file or nothing: a reader sees the old bytes or the new ones, whoever else writes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the new name
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write(record: Record, path: str | os.PathLike) -> Path:
    """Write a record as JSON with sorted keys.

    Raises ValueError for NaN or infinity and TypeError for what JSON lacks, naming the key, before anything is written.
    """
    plain = {field: _plain(value, field) for field, value in asdict(record).items()}
    return write_atomic(path, f"{_layout(plain)}\n".encode())


def load(path: str | os.PathLike) -> Record:
    """Read one record. Raises ValueError naming the file if it is damaged or of another version."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse, parse_float=_finite)
        schema = content["schema"]
        if type(schema) is not int:
            raise TypeError(f"its schema is {schema!r}; allowed: {SCHEMA}")
        if schema != SCHEMA:
            advice = "update sbkit" if schema > SCHEMA else "make it again"
            raise ValueError(f"its schema is {schema}, this version of sbkit reads {SCHEMA}: {advice}")
        return Record(**content)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable record: {type(error).__name__}: {error}") from error


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}; allowed: finite numbers and null")


def _plain(value: Any, key: str) -> Any:
    """The value in JSON's own types; numpy scalars and arrays become numbers and lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{key} = {value}; allowed in a record: finite numbers (use None for a missing one)")
        return value
    if isinstance(value, dict):
        return {str(name): _plain(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{key}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{key} is a {type(value).__name__}; allowed in a record: None, bool, int, float, str, list, dict")


def _layout(value: Any, line: str = "\n") -> str:
    """JSON with one dict entry a line and one list of numbers a line: short files whose diffs can be read."""
    inner = f"{line} "
    if isinstance(value, dict) and value:
        entries = (f"{inner}{json.dumps(key)}: {_layout(value[key], inner)}" for key in sorted(value))
        return "{" + ",".join(entries) + line + "}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[" + ",".join(inner + json.dumps(item, sort_keys=True) for item in value) + line + "]"
    return json.dumps(value)


# Tables


def read(folder: str | os.PathLike, kind: str) -> DataFrame:
    """All finished records of one kind below a profile's folder, one row each, sorted by file name.

    Columns: id, name (file stem), path, config (the record's own dict), every option of the run, those that have their
    defaults included (`provenance["options"]`), the scalars of metrics, and of provenance as `provenance_<key>`.
    A record with `metrics["timings"]` gives one row per timing. Of two equal names the more specific value stays:
    timing over metrics over option.
    A record whose status is not "ok" is skipped with a warning. Raises ValueError naming a damaged one.
    """
    from pandas import DataFrame

    choice("kind", kind, KINDS)
    rows = []
    for path in sorted(Path(folder, "records", kind).glob("*.json")):
        record = load(path)
        if record.kind != kind:
            raise ValueError(f"{path} is a record of kind {record.kind!r}; allowed here: {kind!r}")
        status = record.provenance.get("status")
        if status != "ok":
            warnings.warn(f"skipped {path}: its status is {status!r}, not 'ok'", stacklevel=2)
            continue
        row = {"id": record.id, "name": path.stem, "path": str(path), "config": record.config}
        row |= record.provenance.get("options", record.config) | _scalars(record.metrics)
        row |= {f"provenance_{key}": value for key, value in _scalars(record.provenance).items()}
        rows += [row | timing for timing in record.metrics.get("timings", [{}])]
    return DataFrame(rows) if rows else DataFrame(columns=["id", "name", "path", "config"])


def _scalars(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not isinstance(value, (dict, list))}


# Provenance


class Started(NamedTuple):
    """A run's start by two clocks, how busy the machine was, and the code: a checkout may move on before the end."""

    time: float  # seconds since the epoch
    monotonic: float  # seconds of a clock that nobody sets back
    load_average: float  # processes running or waiting, in the mean over a minute
    code: dict[str, Any]  # commit of the checkout, and whether it was dirty


def start() -> Started:
    """Call it before the work; `provenance(started=...)` takes it after the work."""
    import psutil

    return Started(time.time(), time.monotonic(), psutil.getloadavg()[0], _git())


def provenance(
    *,
    threads: int,
    started: Started,
    options: dict[str, Any] | None = None,
    seeds: dict[str, int] | list[int] | int | None = None,
    data_sha256: dict[str, str] | str | None = None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Where the numbers of a record come from. Holds no host name and no path.

    `options` holds every option of the run with its value. `extra` adds keys or replaces them: a benchmark replaces
    "isa", by default the widest instruction set of this CPU, by the one that its kernels ran.
    """
    return {
        "status": "ok",
        **started.code,
        "versions": _versions(),
        "build": _build_info(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "isa": _isa(),
        "threads": threads,
        "options": options or {},
        "seeds": seeds,
        "data_sha256": data_sha256,
        "started_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started.time)),
        "duration_seconds": round(time.monotonic() - started.monotonic, 3),
        "load_average": round(started.load_average, 2),
        "peak_memory_mb": round(_peak_memory_bytes() / 1e6, 1),
        "python": platform.python_version(),
        "platform": platform.platform(),
    } | (extra or {})


def _run(*command: str) -> str | None:
    """A command's output, or None where it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def _git() -> dict[str, Any]:
    """Commit of the checkout this file lies in, and whether the code that computes differs from it."""
    root = Path(__file__).resolve().parents[1]
    found = (_run("git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD") or "").split("\n")
    # An installed copy below another project's checkout must not report that project's commit.
    if len(found) < 2 or Path(found[0]).resolve() != root:
        return {"commit": None, "dirty": None}
    code = ("sbkit", "csrc", "CMakeLists.txt", "pyproject.toml")
    return {"commit": found[1], "dirty": bool(_run("git", "-C", str(root), "status", "--porcelain", "--", *code))}


def _versions() -> dict[str, str]:
    """Versions of this package and of its direct dependencies; empty when it is not installed."""
    try:
        requirements = importlib.metadata.requires("sbkit") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    versions = {}
    for line in ["sbkit", *(line for line in requirements if "extra ==" not in line)]:
        name = re.match(r"[\w.-]+", line)[0]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _build_info() -> dict[str, Any] | None:
    try:
        return importlib.import_module("sbkit._kernels").build_info()
    except ImportError:
        return None


def _proc(file: str, *fields: str) -> str:
    """First value of the first of these fields that a file below /proc has; empty elsewhere than on Linux."""
    try:
        text = Path("/proc", file).read_text()
    except OSError:
        return ""
    found = (re.search(rf"^{field}\s*:\s*(.*\S)", text, re.MULTILINE) for field in fields)
    return next((match[1] for match in found if match), "")


def _cpu() -> str:
    sysctl = _run("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    named = _proc("cpuinfo", "model name", "Model") or (sysctl or "").strip()
    if not named and (part := _proc("cpuinfo", "CPU part")):  # of ARM servers, which have no name there
        named = f"{platform.machine()}, implementer {_proc('cpuinfo', 'CPU implementer')}, part {part}"
    return named or platform.processor() or platform.machine()


def _isa() -> str:
    """Widest instruction set of this CPU, in the kernels' own names."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "neon"
    flags = _proc("cpuinfo", "flags").split()
    return "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "scalar"


def _peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    if kib := _proc("self/status", "VmHWM"):  # getrusage would count the parent's memory before exec as well
        return int(kib.split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
