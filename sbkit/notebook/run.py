"""One notebook's run: `start(globals())` checks, seeds and finds the folder; the `Run` reads, shows and saves."""

from __future__ import annotations

import functools
import gc
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbkit import records
from sbkit.checks import stem as check_stem
from sbkit.notebook import parameters
from sbkit.notebook.catalogue import drawn, load_catalogue
from sbkit.notebook.experiments import CHECKPOINTS, DEFAULTS, NOTEBOOKS, find_root, load_experiments
from sbkit.notebook.parameters import OneLine, ParameterError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

REFERENCE = "reference/quick"
"""The committed records that a reader shows, and a training run is set beside, unless told otherwise."""


class NoRecords(OneLine, FileNotFoundError):
    """A profile holds no finished record of the kind that a notebook reads."""


def start(namespace: dict[str, Any], *config_classes: type) -> Run:
    """Check the notebook's parameters, seed the generators, set the threads, and find the results folder.

    Call it as `run = start(globals())` in a reader and `run = start(globals(), TrainConfig, QuantizerConfig)` in a
    producer. A reader declares `profile` and `save`, a producer `profile`, `name` and exactly the fields of its config
    classes. A reader's profile "" stands for `interactive` where a person's own training runs lie there, else for
    `reference/quick`. The first number of OMP_NUM_THREADS sets a producer's threads (default 1), and the repository
    becomes its working folder: paths in parameters are relative to that. `seed` seeds Python, numpy and, if imported,
    torch.
    Raises ParameterError naming the parameter, PermissionError naming a folder that cannot be written, and OtherCode
    where this package is another clone's.
    """
    declared, passed = parameters.executed(namespace.get("In", []))
    allowed = _allowed(config_classes)
    parameters.check_names([*declared, *passed], allowed)
    if missing := [name for name in allowed if name not in declared]:
        raise ParameterError(f"the parameters cell lacks {', '.join(missing)}; required: {', '.join(allowed)}")
    for name, parameter in declared.items():
        if parameter.type is not parameters.TYPES.get(allowed[name]):
            kind = parameter.type.__name__
            raise ParameterError(f"the parameters cell declares {name}: {kind}; allowed: {allowed[name]}")
    values = parameters.check(declared, passed)
    for name, value in values.items():
        if namespace.get(name) != value:
            raise ParameterError(
                f"{name} is {namespace.get(name)!r} in this kernel but {value!r} in the parameters cell; "
                "edit that cell and run it again"
            )
    run = _run(values, config_classes)
    if config_classes:
        _set_threads()
        os.chdir(run.root)
        _check_paths(values)
    if config_classes or run.save:
        _check_writable(run.folder)
    _seed(values.get("seed", 0))
    if not gc.get_freeze_count():  # what is imported by now stays for good: the collector need not search it every time
        gc.freeze()
    return run


def _allowed(config_classes: tuple[type, ...]) -> dict[str, str]:
    """Name and type's name of every parameter that a notebook with these configs declares."""
    if not config_classes:
        return {"profile": "str", "save": "bool"}
    allowed = {"profile": "str", "name": "str"}
    for field in (field for config_class in config_classes for field in fields(config_class)):
        allowed[field.name] = getattr(field.type, "__name__", field.type)
    return allowed


def _run(values: Mapping[str, Any], config_classes: tuple[type, ...]) -> Run:
    root, profile = find_root(), values["profile"]
    if not profile and not config_classes:
        by_hand = any((root / "results" / "interactive" / "records" / "train").glob("*.json"))
        profile = "interactive" if by_hand else REFERENCE
    try:
        configs = [cls(**{field.name: values[field.name] for field in fields(cls)}) for cls in config_classes]
        return Run(profile, values.get("name", ""), values.get("save", False), tuple(configs), root)
    except (ValueError, TypeError) as error:
        raise ParameterError(str(error)) from None


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write into the results folder {folder}: {error.strerror}") from error


def _set_threads() -> None:
    given = os.environ.get("OMP_NUM_THREADS", "")
    first = given.partition(",")[0].strip() or "1"  # OpenMP takes a list, a number for each level of nested regions
    if not re.fullmatch("[1-9][0-9]{0,3}", first):
        raise ParameterError(
            f"OMP_NUM_THREADS = {given!r}; allowed: an integer from 1 to 9999, first of a list or alone"
        )
    os.environ["OMP_NUM_THREADS"] = first
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(first))


def _check_paths(values: Mapping[str, Any]) -> None:
    """Called where paths are relative to: in the repository."""
    dataset = values.get("dataset", "")
    folder = dataset.removeprefix("image_folder:") if dataset.startswith("image_folder:") else ""
    paths = {"dataset": folder} | {name: values[name] for name in sorted(CHECKPOINTS & values.keys())}
    for name, path in paths.items():
        if path and not os.path.exists(path):  # nor one that no file can have
            raise ParameterError(
                f"{name} = {values[name]!r}: there is no {Path(path).absolute()}; allowed: a path that exists, "
                "relative to the repository or absolute"
            )


def _seed(seed: int) -> None:
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


@dataclass(frozen=True)
class Run:
    """One execution of a notebook.

    profile  a table of experiments.toml, "quick", or its committed results, "reference/quick"
    name     file stem of the record that a producer writes; "" lets the record's id name it
    save     whether a reader writes its figures and tables
    configs  instances of the config classes given to `start`, in that order
    root     the repository
    """

    profile: str
    name: str
    save: bool
    configs: tuple[Any, ...]
    root: Path

    def __post_init__(self):
        experiments = load_experiments(self.root)
        reference, _, table = self.profile.rpartition("/")
        if table not in experiments or reference not in ("", "reference"):
            allowed = ", ".join(experiments)
            raise ValueError(f"profile = {self.profile!r}; allowed: {allowed}, or reference/<one of them>")
        if self.name:
            check_stem("name", self.name)

    @property
    def folder(self) -> Path:
        """Where this profile's records, weights, figures and tables lie."""
        return self.root / "results" / self.profile

    @property
    def table_name(self) -> str:
        """The profile's name in experiments.toml."""
        return self.profile.rpartition("/")[2]

    @functools.cached_property
    def experiment(self) -> dict[str, Any]:
        """The profile's table in experiments.toml."""
        return load_experiments(self.root)[self.table_name]

    @functools.cached_property
    def catalogue(self) -> dict[str, dict[str, Any]]:
        """All of `load_catalogue`."""
        return load_catalogue(self.root)

    @property
    def by_hand(self) -> bool:
        """Whether experiments.toml lists no run of this profile, so that people's own runs are all it holds."""
        return not self.experiment["train"] and not self.experiment["bench"]

    @property
    def label(self) -> str:
        """What every figure says of its scale; empty for a profile at the paper's own scale."""
        return "" if self.experiment["paper_scale"] else f"{self.table_name} profile: {self.experiment['title']}"

    def drawn(self) -> dict[str, dict[str, Any]]:
        """The catalogue's entries that the records and weights in this profile's folder are enough for."""
        patterns = {kind: f"records/{kind}/*.json" for kind in NOTEBOOKS} | {"weights": "weights/*.npz"}
        kinds = [kind for kind, pattern in patterns.items() if any(self.folder.glob(pattern))]
        found = [records.load(path) for path in self.folder.glob("records/*/*.json")]
        runs = [
            DEFAULTS[record.kind]
            | record.config
            | {"robustness": "robustness" in record.history}
            | {"columns": set().union(*record.metrics.get("timings", []))}
            for record in found
        ]
        return drawn(self.catalogue, kinds, runs)

    def records(self, kind: str) -> DataFrame:
        """This profile's finished records, as `records.read` gives them. Raises NoRecords if there are none."""
        frame = records.read(self.folder, kind)
        if frame.empty:
            raise NoRecords(
                f"{self.folder / 'records' / kind} holds no finished record; {NOTEBOOKS[kind]} writes them, "
                f"and a profile reference/<name> reads the committed ones"
            )
        return frame

    @staticmethod
    def metrics(record: records.Record) -> DataFrame:
        """The numbers of a record, one a row: columns metric, value."""
        from pandas import DataFrame

        rows = [(name, value) for name, value in record.metrics.items() if not isinstance(value, (list, dict))]
        return DataFrame(rows, columns=["metric", "value"])

    def beside_reference(self, record: records.Record) -> DataFrame:
        """Top-1 of a training run, and of the committed runs with its configuration, whatever their seeds.

        Columns run, top1_percent (the mean over runs), runs. The second row is left out where there is no such run.
        """
        from pandas import DataFrame

        rows = [("this run", record.metrics["top1_percent"], 1)]
        committed = records.read(self.root / "results" / REFERENCE, "train")
        alike = [config | {"seed": 0} == record.config | {"seed": 0} for config in committed["config"]]
        if len(same := committed[alike]):
            rows.append((f"committed, {REFERENCE}", same["top1_percent"].mean(), len(same)))
        return DataFrame(rows, columns=["run", "top1_percent", "runs"])

    def figure(self, draw: Callable[..., Figure], table: DataFrame, stem: str, **options: Any) -> None:
        """Show `draw(table, **options)` with the catalogue's caption below it, 96 pixels of the screen an inch.

        If `save`, write figures/<stem>.{pdf,png,svg} and the table as .csv: the same bytes in every process, whatever
        the user's matplotlibrc.
        """
        from IPython.display import Image, Markdown, display

        from sbkit.notebook import render

        check_stem("stem", stem)
        formats = ("png", "pdf", "svg") if self.save else ("png",)
        files, inches = render.figure(functools.partial(draw, table, **options), formats, stem, self.label)
        display(Image(files["png"], width=round(96 * inches), alt=stem))
        if caption := self._caption(f"figures/{stem}"):
            display(Markdown(caption))
        if self.save:
            self._write("figures", stem, files | {"csv": render.csv(table)})

    def table(self, frame: DataFrame, stem: str, columns: Sequence[str] | None = None, fold: bool = False) -> None:
        """Show a table with the catalogue's caption. `fold` shows the caption alone, which opens the table.

        `columns` are those shown, at most seven, in their order; None: all. If `save`, write tables/<stem> as .csv, .md
        and .tex: the CSV holds every column, numbers to six digits, the other two what is shown.
        Raises ValueError for more than seven columns and for one that the table lacks.
        """
        from IPython.display import HTML, display

        from sbkit.notebook import render

        check_stem("stem", stem)
        title = self._caption(f"tables/{stem}") or (stem.replace("_", " ") if fold else "")
        caption = " — ".join(filter(None, (title, self.label)))
        shown = render.for_people(frame, stem, columns)
        display(HTML(render.html(shown, caption, fold)))
        if self.save:
            markdown, latex = render.as_markdown(shown, caption), render.latex(shown, stem, caption)
            files = {"csv": render.csv(frame), "md": markdown.encode(), "tex": latex.encode()}
            self._write("tables", stem, files)

    def _caption(self, name: str) -> str:
        """The catalogue's caption; empty for what a person draws on the side."""
        return self.catalogue.get(name, {}).get("caption", "")

    def _write(self, folder: str, stem: str, files: Mapping[str, bytes]) -> None:
        for suffix, data in files.items():
            records.write_atomic(self.folder / folder / f"{stem}.{suffix}", data)
