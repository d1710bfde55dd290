"""The runs of each profile, as notebooks/experiments.toml lists them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sbkit.checks import choice, stem, table, toml, whole
from sbkit.designs import DESIGNS
from sbkit.notebook.parameters import OneLine

NOTEBOOKS = {"train": "02_train.ipynb", "bench": "07_bench.ipynb"}
"""The producer of each kind of record."""

CHECKPOINTS = {"distill_from", "start_from"}
"""Parameters of a training run that name what another one leaves."""

DEFAULTS = {"train": {"quantizer": "signed_binary"}, "bench": {"study": "layers"}}
"""By kind of record, what a run is that does not say so, as `QuantizerConfig` and `BenchConfig` have it."""

_FORMS = {"title": str, "paper_scale": bool, "seeds": list, "common": dict, "train": dict, "bench": dict}
_TAKEN = ("data", "reference")  # folders of results/ that are no profile's
_PLACED = ("profile", "name", "seed")  # parameters that follow from a table's place


class OtherCode(OneLine, ImportError):
    """The imported package is not the repository's: its environment was copied, or made for another clone."""


def find_root() -> Path:
    """The folder that holds notebooks/experiments.toml: $SBKIT_ROOT, else above the working folder or this package.

    Raises FileNotFoundError if there is none, and OtherCode if the folder has an sbkit that is not this package.
    """
    package = Path(__file__).resolve().parents[1]
    if chosen := os.environ.get("SBKIT_ROOT"):
        starts = [Path(chosen).resolve()]
    else:
        starts = [Path.cwd(), *Path.cwd().parents, *package.parents]
    for folder in starts:
        if (folder / "notebooks" / "experiments.toml").is_file():
            own = folder / "sbkit"
            if own.is_dir() and not own.samefile(package):
                raise OtherCode(
                    f"this environment runs the code in {package}, not that in {own}: remove a copied .venv and type "
                    f"make setup, or type python -m pip install -e {folder} in an environment of your own"
                )
            return folder
    raise FileNotFoundError(f"no notebooks/experiments.toml in {starts[0]}; set SBKIT_ROOT to the repository")


def load_experiments(root: Path | None = None) -> dict[str, dict[str, Any]]:
    """The profiles by name, each with title, paper_scale, seeds, common, train, bench.

    Raises ValueError naming the place in the file that is out of form.
    """
    profiles = toml((root or find_root()) / "notebooks" / "experiments.toml")
    for profile, content in profiles.items():
        place = f"experiments.toml: {profile}"
        stem("experiments.toml: profile", profile)
        if profile in _TAKEN:
            raise ValueError(f"experiments.toml: profile = {profile!r}; allowed: any name but {', '.join(_TAKEN)}")
        table(place, content, _FORMS, optional=("common", "train", "bench"))
        for kind in ("common", *NOTEBOOKS):
            content.setdefault(kind, {})
        _check_options(f"{place}.common", content["common"])
        for seed in content["seeds"]:
            whole(f"{place}.seeds", seed, 0)
        for kind in NOTEBOOKS:
            for name, options in content[kind].items():
                stem(f"{place}.{kind}", name)
                _check_options(f"{place}.{kind}.{name}", options)
    return profiles


def _check_options(place: str, options: Any) -> None:
    """Their names and values are checked against the notebook's parameters."""
    if not isinstance(options, dict):
        raise ValueError(f"{place} = {options!r}; allowed: a table of parameters")
    if clash := [name for name in _PLACED if name in options]:
        raise ValueError(f"{place} sets {', '.join(clash)}, which follow from its place; use `seeds` for seeds")
    if "design" in options:
        choice(f"{place}.design", options["design"], DESIGNS)
    if not isinstance(seeds := options.get("seeds", []), list):
        raise ValueError(f"{place}.seeds = {seeds!r}; allowed: a list of integers")
    for seed in seeds:
        whole(f"{place}.seeds", seed, 0)


def expand(profile: str) -> list[dict[str, Any]]:
    """The runs of a profile, each a dict of name, notebook (file name in notebooks/) and parameters to pass.

    Training runs are named `<table>-s<seed>`, benchmarks `<table>`. A table's `design` stands for the options of that
    design, and the table's other options replace or extend them. A training table that another one names under
    `distill_from` or `start_from` stands for the checkpoint of its run with the same seed, a path below the root.
    Raises ValueError for an unknown profile, for one without tables, and for a checkpoint of no such run.
    """
    experiments = load_experiments()
    choice("profile", profile, experiments)
    content = experiments[profile]
    if not content["train"] and not content["bench"]:
        raise ValueError(
            f"profile {profile} lists no runs; write one below [mine.train] in notebooks/experiments.toml, such as "
            'binary = { design = "binary" }, and type make reproduce PROFILE=mine'
        )
    tables = {name: _options(content["common"], own) for name, own in content["train"].items()}
    seeds = {name: options.pop("seeds", content["seeds"]) for name, options in tables.items()}
    runs = []
    for name, options in tables.items():
        for seed in seeds[name]:
            checkpoints = {}
            for option in CHECKPOINTS & options.keys():
                others = [other for other in tables if other != name and seed in seeds[other]]
                choice(f"experiments.toml: {profile}.train.{name}.{option}, seed {seed}", options[option], others)
                checkpoints[option] = f"results/{profile}/checkpoints/{options[option]}-s{seed}.pt"
            runs.append((f"{name}-s{seed}", "train", options | checkpoints | {"seed": seed}))
    runs += [(name, "bench", DEFAULTS["bench"] | options) for name, options in content["bench"].items()]
    for name, _, _ in runs:
        stem(f"experiments.toml: name of a run of {profile}", name)
    return [
        {"name": name, "notebook": NOTEBOOKS[kind], "parameters": {"profile": profile, "name": name} | options}
        for name, kind, options in runs
    ]


def _options(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A training table's options, its design resolved."""
    design = (common | own).get("design")
    options = DEFAULTS["train"] | common | (DESIGNS[design].options if design else {}) | own
    return {name: value for name, value in options.items() if name != "design"}
