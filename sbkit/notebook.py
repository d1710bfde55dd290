"""What every notebook begins with: strict parameters, seeds, threads, folders, and one way to show and save results.

A parameters cell holds one `name: type = literal  # help` a line. A producer declares `profile`, `name` and exactly the
fields of its config dataclasses; a reader declares `profile` and `save`. `start(globals())` refuses anything else,
because papermill runs a misspelt parameter with the default and exits 0.

Importing this module imports nothing heavy: the workflow calls `expand()` at every start.
"""

from __future__ import annotations

import ast
import difflib
import functools
import gc
import io
import json
import math
import os
import random
import re
import shlex
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbkit import records

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

TYPES = {"str": str, "int": int, "float": float, "bool": bool}
NOTEBOOKS = {"train": "02_train.ipynb", "bench": "07_bench.ipynb"}  # the producer of each kind of record
FORMATS = {"figures": ("pdf", "png", "svg", "csv"), "tables": ("csv", "md", "tex")}  # of what a reader saves
READS = (*NOTEBOOKS, "weights")  # what a reader reads: the kinds of records, and weight codes
CHECKPOINTS = {"distill_from", "start_from"}  # parameters of a training run that name what another one leaves

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


# Parameters


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: type
    default: str | int | float | bool

    def checked(self, value: Any) -> str | int | float | bool:
        """The value in the declared type: an int passes for a float, a bool for nothing but a bool.

        Raises TypeError for another type and ValueError for NaN or infinity.
        """
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type:
            hint = " (papermill -r NAME VALUE passes a number as text)" if self.type is str else ""
            raise TypeError(
                f"{self.name} = {value!r} is of type {type(value).__name__}; allowed: {self.type.__name__}{hint}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{self.name} = {value}; allowed: a finite number")
        return value


def parse_parameters(source: str) -> dict[str, Parameter]:
    """The parameters that a cell declares. Raises ValueError or TypeError naming the line that is out of form."""
    declared = {}
    for node in ast.parse(source).body:
        try:
            kind = TYPES[node.annotation.id]
            parameter = Parameter(node.target.id, kind, ast.literal_eval(node.value))
        except (AttributeError, KeyError, ValueError, TypeError):
            raise ValueError(
                f"the parameters cell holds `{ast.unparse(node)}`; "
                f"allowed: one `name: type = literal` a line, type being {', '.join(TYPES)}"
            ) from None
        if parameter.name in declared:
            raise ValueError(f"the parameters cell declares {parameter.name} twice")
        declared[parameter.name] = Parameter(parameter.name, kind, parameter.checked(parameter.default))
    return declared


def check_names(names: Iterable[str], allowed: Iterable[str]) -> None:
    """Raises ValueError for the first name that is not allowed, with the nearest one and all of them."""
    allowed = list(allowed)
    for name in names:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"unknown parameter {name}{hint}; allowed: {', '.join(allowed) or 'none'}")


def _executed_parameters(history: list[str]) -> tuple[dict[str, Parameter], dict[str, Any]]:
    """What the parameters cell declared when it last ran, and the values that papermill injected after it.

    Reads the sources that the kernel executed, not its variables: names left over from an earlier edit of the cell are
    not parameters any more.
    """
    declares_profile = re.compile(r"^profile\s*:", re.MULTILINE)
    last = max((index for index, source in enumerate(history) if declares_profile.search(source)), default=None)
    if last is None:
        raise ValueError("no parameters cell has run; it holds `profile: str = ...` and runs before start(globals())")
    injected = [source for source in history[last + 1 :] if source.startswith("# Parameters")]
    passed = {}
    for node in ast.parse(injected[-1]).body if injected else []:
        try:
            passed[node.targets[0].id] = ast.literal_eval(node.value)
        except ValueError:
            raise ValueError(f"`{ast.unparse(node)}` is not a literal; allowed: str, int, finite float, bool") from None
    return parse_parameters(history[last]), passed


def _allowed(config_classes: tuple[type, ...]) -> dict[str, str]:
    """Name and type's name of every parameter that a notebook with these configs declares."""
    if not config_classes:
        return {"profile": "str", "save": "bool"}
    allowed = {"profile": "str", "name": "str"}
    for field in (field for config_class in config_classes for field in fields(config_class)):
        allowed[field.name] = getattr(field.type, "__name__", field.type)
    return allowed


def start(namespace: dict[str, Any], *config_classes: type) -> Run:
    """Check the notebook's parameters, seed the generators, set the threads, and find the results folder.

    Call it as `run = start(globals())` in a reader and `run = start(globals(), TrainConfig, QuantizerConfig)` in a
    producer. OMP_NUM_THREADS sets a producer's threads (default 1); `seed` seeds Python, numpy and, if imported, torch.
    Raises ValueError or TypeError naming the parameter, and PermissionError naming a folder that cannot be written.
    """
    declared, passed = _executed_parameters(namespace.get("In", []))
    allowed = _allowed(config_classes)
    check_names([*declared, *passed], allowed)
    if missing := [name for name in allowed if name not in declared]:
        raise ValueError(f"the parameters cell lacks {', '.join(missing)}; required: {', '.join(allowed)}")
    values = {}
    for name, parameter in declared.items():
        if parameter.type is not TYPES.get(allowed[name]):
            raise TypeError(f"the parameters cell declares {name}: {parameter.type.__name__}; allowed: {allowed[name]}")
        values[name] = parameter.checked(passed.get(name, parameter.default))
        if namespace.get(name) != values[name]:
            raise ValueError(
                f"{name} is {namespace.get(name)!r} in this kernel but {values[name]!r} in the parameters cell; "
                "edit that cell and run it again"
            )
    run = Run(
        profile=values["profile"],
        name=values.get("name", ""),
        save=values.get("save", False),
        configs=tuple(cls(**{field.name: values[field.name] for field in fields(cls)}) for cls in config_classes),
        root=find_root(),
    )
    if config_classes or run.save:
        _check_writable(run.folder)
    if config_classes:
        _set_threads(os.environ.setdefault("OMP_NUM_THREADS", "1"))
    _seed(values.get("seed", 0))
    if not gc.get_freeze_count():  # what is imported by now stays for good: the collector need not search it every time
        gc.freeze()
    return run


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write into the results folder {folder}: {error.strerror}") from error


def _set_threads(text: str) -> None:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"OMP_NUM_THREADS = {text!r}; allowed: an integer >= 1")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(text))


def _seed(seed: int) -> None:
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


# One notebook's run


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
            _check_stem("name", self.name)

    @property
    def folder(self) -> Path:
        """Where this profile's records, weights, figures and tables lie."""
        return self.root / "results" / self.profile

    def drawn(self) -> dict[str, dict[str, Any]]:
        """The catalogue's entries that the records and weights in this profile's folder are enough for."""
        patterns = {kind: f"records/{kind}/*.json" for kind in NOTEBOOKS} | {"weights": "weights/*.npz"}
        kinds = [kind for kind, pattern in patterns.items() if any(self.folder.glob(pattern))]
        runs = [records.load(path).config | {"name": path.stem} for path in self.folder.glob("records/*/*.json")]
        return drawn(self.catalogue, kinds, runs)

    @functools.cached_property
    def experiment(self) -> dict[str, Any]:
        """The profile's table in experiments.toml."""
        return load_experiments(self.root)[self.profile.rpartition("/")[2]]

    @functools.cached_property
    def catalogue(self) -> dict[str, dict[str, Any]]:
        """All of `load_catalogue`."""
        return load_catalogue(self.root)

    @property
    def label(self) -> str:
        """What every figure says of its scale; empty for a profile at the paper's own scale."""
        table = self.profile.rpartition("/")[2]
        return "" if self.paper_scale else f"{table} profile: {self.experiment['title']}"

    @property
    def paper_scale(self) -> bool:
        """Whether the profile has the networks, data and schedule of the paper's main results."""
        return self.experiment["paper_scale"]

    def records(self, kind: str) -> DataFrame:
        """This profile's finished records, as `records.read` gives them. Raises FileNotFoundError if there are none."""
        frame = records.read(self.folder, kind)
        if frame.empty:
            raise FileNotFoundError(
                f"{self.folder / 'records' / kind} holds no finished record; {NOTEBOOKS[kind]} writes them, "
                f"and a profile reference/<name> reads the committed ones"
            )
        return frame

    def commands(self, groups: DataFrame) -> DataFrame:
        """What trains each group of runs again, its first seed: label, command.

        `groups` has the columns of analysis.group_runs. Options are left out that have the notebook's default.
        """
        from pandas import DataFrame

        cells = json.loads((self.root / "notebooks" / NOTEBOOKS["train"]).read_text(encoding="utf-8"))["cells"]
        source = next("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
        defaults = {name: parameter.default for name, parameter in parse_parameters(source).items()}
        rows = []
        for label, runs in groups.groupby("label"):
            words = ["papermill --engine sbkit", f"notebooks/{NOTEBOOKS['train']}", "out.ipynb"]
            options = runs["config"].iloc[0]
            for name, value in options.items():
                if value and name in CHECKPOINTS:  # the record names the run, the option what it left
                    value = f"results/{self.profile.rpartition('/')[2]}/checkpoints/{value}-s{options['seed']}.pt"
                elif name == "dataset":  # the record names a folder, which should lie in data/
                    value = value.replace("image_folder:", "image_folder:data/")
                if value != defaults[name]:
                    words.append(f"-{'r' if isinstance(value, str) else 'p'} {name} {shlex.quote(str(value))}")
            rows.append({"label": label, "command": " ".join(words)})
        return DataFrame(rows)

    def figure(self, fig_function: Callable[..., Figure], table: DataFrame, stem: str, **options: Any) -> None:
        """Show `fig_function(table, **options)` with the catalogue's caption below it.

        If `save`, write figures/<stem>.{pdf,png,svg} and the table as .csv: the same bytes in every process.
        """
        from IPython.display import Image, Markdown, display

        _check_stem("stem", stem)
        formats = ("png", "pdf", "svg") if self.save else ("png",)
        files = _render(fig_function(table, **options), formats, stem, self.label)
        display(Image(files["png"], width=640, alt=stem))
        if caption := self._caption(f"figures/{stem}"):
            display(Markdown(caption))
        if self.save:
            files["csv"] = _csv(table)
            self._write("figures", stem, files)

    def table(self, frame: DataFrame, stem: str) -> None:
        """Show a table with the catalogue's caption.

        If `save`, write tables/<stem>.{csv,md,tex}, the CSV in full precision, the others rounded.
        """
        from IPython.display import Markdown, display

        _check_stem("stem", stem)
        caption = " — ".join(text for text in (self._caption(f"tables/{stem}"), self.label) if text)
        markdown = _markdown(frame, caption)
        display(Markdown(markdown))
        if self.save:
            files = {"csv": _csv(frame), "md": markdown.encode(), "tex": _latex(frame, stem, caption).encode()}
            self._write("tables", stem, files)

    def _caption(self, name: str) -> str:
        """The catalogue's caption; empty for what a person draws on the side."""
        return self.catalogue.get(name, {}).get("caption", "")

    def _write(self, folder: str, stem: str, files: Mapping[str, bytes]) -> None:
        for suffix, data in files.items():
            records.write_atomic(self.folder / folder / f"{stem}.{suffix}", data)


def _check_stem(what: str, stem: str) -> None:
    if not _NAME.fullmatch(stem):
        raise ValueError(f"{what} = {stem!r}; allowed: letters, digits, '_', '.', '-', starting with a letter or digit")


# Without these a file holds the time and the version that wrote it.
_METADATA = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
_FOOTER_POINTS = 6


def _render(figure: Figure, formats: Iterable[str], stem: str, label: str) -> dict[str, bytes]:
    """The figure as a file's bytes in each format, the label in grey below it, and the figure closed.

    A figure that was saved before may give other bytes: the order of the formats counts.
    """
    import matplotlib
    from fontTools.subset import Options
    from matplotlib import pyplot
    from matplotlib.transforms import Bbox

    # A PDF places each glyph itself: a font's tables of kerning and ligatures serve nothing in it, and cutting them
    # down to the glyphs used takes longer than drawing the page. Neither library has a setting for that.
    dropped = getattr(Options, "_drop_tables_default", ())
    Options._drop_tables_default = sorted({*dropped, "GDEF", "GPOS", "GSUB"})
    width, height = figure.get_size_inches()
    # DejaVu Sans takes about 0.6 em a character. The strip is added below the page, so no layout can collide with it.
    lines = textwrap.wrap(label, int(width * 72 / (0.6 * _FOOTER_POINTS)))
    strip = len(lines) * 1.6 * _FOOTER_POINTS / 72  # inches; whole pixels at 300 dpi, or the page would be blurred
    figure.text(0.5, -strip / height, "\n".join(lines), size=_FOOTER_POINTS, color="0.4", ha="center", va="bottom")
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    page, files = Bbox([[0, -strip], [width, height]]), {}
    settings = {"svg.hashsalt": stem, "svg.fonttype": "none", "pdf.fonttype": 42}
    # The layout stays as it is now: with any engine left, saving would draw everything once more to find it.
    with matplotlib.rc_context(settings | {"figure.constrained_layout.use": False, "figure.autolayout": False}):
        figure.set_layout_engine(None)
        for legend in figure.legends:  # a figure's legend follows the saved page, not the figure, unless told where
            if legend.get_bbox_to_anchor() is figure.bbox:
                legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
        for format in formats:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=format, dpi=300, bbox_inches=page, metadata=_METADATA[format])
            files[format] = buffer.getvalue()
    pyplot.close(figure)
    return files


def _has_index(frame: DataFrame) -> bool:
    """Whether the row labels say anything: those that only count rows have no name."""
    return any(name is not None for name in frame.index.names)


def _csv(frame: DataFrame) -> bytes:
    # Ten digits: the last of sixteen differ between processors, and a redrawn file is to be the committed one.
    return frame.to_csv(index=_has_index(frame), lineterminator="\n", float_format="%.10g").encode()


def _cell(value: Any) -> str:
    """A value for people: four significant digits, no exponent for large numbers, a dash where there is none."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _for_people(frame: DataFrame) -> tuple[DataFrame, list[str]]:
    """The frame as text, its row labels made columns, and each column's alignment."""
    if _has_index(frame):
        frame = frame.reset_index()
    align = ["right" if kind in "iuf" else "left" for kind in (dtype.kind for dtype in frame.dtypes)]
    return frame.astype(object).map(_cell), align


def _markdown(frame: DataFrame, caption: str) -> str:
    text, align = _for_people(frame)
    text = text.map(lambda cell: cell.replace("|", "\\|"))
    body = text.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"{caption}\n\n{body}\n" if caption else f"{body}\n"


def _latex(frame: DataFrame, stem: str, caption: str) -> str:
    text, align = _for_people(frame)
    style = text.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", caption)
    columns = "".join(side[0] for side in align)
    return style.to_latex(
        hrules=True, column_format=columns, position="t", label=f"tab:{stem}", caption=escaped or None
    )


# Experiments


def find_root() -> Path:
    """The folder that holds notebooks/experiments.toml: $SBKIT_ROOT, else above the working folder or this package."""
    if chosen := os.environ.get("SBKIT_ROOT"):
        starts = [Path(chosen).resolve()]
    else:
        starts = [Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents]
    for folder in starts:
        if (folder / "notebooks" / "experiments.toml").is_file():
            return folder
    raise FileNotFoundError(f"no notebooks/experiments.toml in {starts[0]}; set SBKIT_ROOT to the repository")


def load_experiments(root: Path | None = None) -> dict[str, dict[str, Any]]:
    """The profiles of notebooks/experiments.toml: title, paper_scale, seeds, common, train, bench; checked for form."""
    path = (root or find_root()) / "notebooks" / "experiments.toml"
    forms = {"title": str, "paper_scale": bool, "seeds": list, "common": dict, "train": dict, "bench": dict}
    profiles = tomllib.loads(path.read_text(encoding="utf-8"))
    for profile, content in profiles.items():
        for key, value in content.items():
            if not isinstance(value, forms.get(key, ())):
                raise ValueError(f"experiments.toml: {profile}.{key} = {value!r}; allowed: {', '.join(forms)}")
        if missing := forms.keys() - content.keys() - {"common", "train", "bench"}:
            raise ValueError(f"experiments.toml: {profile} lacks {', '.join(sorted(missing))}")
        content.setdefault("common", {})
        for kind in NOTEBOOKS:
            for name, table in content.setdefault(kind, {}).items():
                _check_stem(f"experiments.toml: {profile}.{kind}", name)
                if clash := {"profile", "name", "seed"} & table.keys():
                    raise ValueError(
                        f"experiments.toml: {profile}.{kind}.{name} sets {', '.join(sorted(clash))}, "
                        "which follow from the table's place; use `seeds` for seeds"
                    )
    return profiles


def expand(profile: str) -> list[dict[str, Any]]:
    """The runs of a profile, each a dict of name, notebook (file name in notebooks/) and parameters to pass.

    Training runs are named `<table>-s<seed>`, benchmarks `<table>`. A training table that another one names under
    `distill_from` or `start_from` stands for the checkpoint of its run with the same seed, a path below the root.
    Raises ValueError for an unknown profile, and for such a name of no other table, or of one without that seed.
    """
    experiments = load_experiments()
    if profile not in experiments:
        raise ValueError(f"profile = {profile!r}; allowed: {', '.join(experiments)}")
    content = experiments[profile]
    tables = {table: {"seeds": content["seeds"]} | content["common"] | own for table, own in content["train"].items()}
    seeds = {table: options.pop("seeds") for table, options in tables.items()}
    runs = []
    for table, options in tables.items():
        for seed in seeds[table]:
            checkpoints = {}
            for option in CHECKPOINTS & options.keys():
                allowed = [other for other in tables if other != table and seed in seeds[other]]
                if options[option] not in allowed:
                    raise ValueError(
                        f"experiments.toml: {profile}.train.{table}.{option} = {options[option]!r}; "
                        f"allowed: a training table with seed {seed}, here: {', '.join(allowed) or 'none'}"
                    )
                checkpoints[option] = f"results/{profile}/checkpoints/{options[option]}-s{seed}.pt"
            runs.append((f"{table}-s{seed}", "train", options | checkpoints | {"seed": seed}))
    runs += [(table, "bench", options) for table, options in content["bench"].items()]
    return [
        {"name": name, "notebook": NOTEBOOKS[kind], "parameters": {"profile": profile, "name": name} | options}
        for name, kind, options in runs
    ]


def load_catalogue(root: Path | None = None) -> dict[str, dict[str, Any]]:
    """Every figure and table that the readers save, "figures/<stem>" or "tables/<stem>", as notebooks/catalogue.toml
    lists them in reading order.

    Keys of an entry: notebook (the stem of its file), paper (which of the paper's figures and tables it answers, or
    empty), caption, reads (of READS), needs (options that a run of the profile must have).
    Raises ValueError naming the entry and what is wrong with it.
    """
    path = (root or find_root()) / "notebooks" / "catalogue.toml"
    forms = {"notebook": str, "paper": str, "caption": str, "reads": list, "needs": dict}
    catalogue = tomllib.loads(path.read_text(encoding="utf-8"))
    for name, entry in catalogue.items():
        folder, _, stem = name.partition("/")
        if folder not in FORMATS:
            raise ValueError(f"catalogue.toml: {name!r} lies in no folder of {', '.join(FORMATS)}")
        _check_stem(f"catalogue.toml: {folder}", stem)
        entry.setdefault("needs", {})
        for key, value in entry.items():
            if not isinstance(value, forms.get(key, ())):
                raise ValueError(f"catalogue.toml: {name}.{key} = {value!r}; allowed: {', '.join(forms)}")
        if missing := forms.keys() - entry.keys():
            raise ValueError(f"catalogue.toml: {name} lacks {', '.join(sorted(missing))}")
        if unknown := set(entry["reads"]) - set(READS):
            raise ValueError(f"catalogue.toml: {name}.reads holds {', '.join(unknown)}; allowed: {', '.join(READS)}")
    return catalogue


def drawn(
    catalogue: Mapping[str, dict[str, Any]], kinds: Collection[str], runs: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The entries of a catalogue that a profile with these kinds of records, of runs with these options, draws.

    An entry is drawn if there is any of the kinds that it reads and, where it needs options, a run with them. One that
    reads nothing is drawn beside the others of its notebook. Of a run's `name` the seed does not count.
    """
    kinds = set(kinds)
    runs = [{**run, "name": records.run_label(run.get("name", ""))} for run in runs]
    readers = {entry["notebook"] for entry in catalogue.values() if kinds.intersection(entry["reads"])}
    return {
        name: entry
        for name, entry in catalogue.items()
        if entry["notebook"] in readers
        and (not entry["reads"] or kinds.intersection(entry["reads"]))
        and (not entry["needs"] or any(entry["needs"].items() <= run.items() for run in runs))
    }
