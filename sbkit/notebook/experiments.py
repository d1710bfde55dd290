"""The runs of each profile, as notebooks/experiments.toml lists them."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from sbkit.checks import choice, stem
from sbkit.designs import DESIGNS

NOTEBOOKS = {"train": "02_train.ipynb", "bench": "07_bench.ipynb"}
"""The producer of each kind of record."""

CHECKPOINTS = {"distill_from", "start_from"}
"""Parameters of a training run that name what another one leaves."""

DEFAULT = {"quantizer": "signed_binary"}
"""The scheme of a training run that names none, as `sbkit.quantizers.QuantizerConfig` has it."""

_FORMS = {"title": str, "paper_scale": bool, "seeds": list, "common": dict, "train": dict, "bench": dict}


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
    """The profiles by name, each with title, paper_scale, seeds, common, train, bench.

    Raises ValueError naming the place in the file that is out of form.
    """
    path = (root or find_root()) / "notebooks" / "experiments.toml"
    profiles = tomllib.loads(path.read_text(encoding="utf-8"))
    for profile, content in profiles.items():
        for key, value in content.items():
            if not isinstance(value, _FORMS.get(key, ())):
                raise ValueError(f"experiments.toml: {profile}.{key} = {value!r}; allowed: {', '.join(_FORMS)}")
        if missing := _FORMS.keys() - content.keys() - {"common", "train", "bench"}:
            raise ValueError(f"experiments.toml: {profile} lacks {', '.join(sorted(missing))}")
        content.setdefault("common", {})
        for kind in NOTEBOOKS:
            for name, table in content.setdefault(kind, {}).items():
                _check_table(f"experiments.toml: {profile}.{kind}", name, table)
    return profiles


def _check_table(place: str, name: str, table: dict[str, Any]) -> None:
    stem(place, name)
    if clash := {"profile", "name", "seed"} & table.keys():
        raise ValueError(
            f"{place}.{name} sets {', '.join(sorted(clash))}, "
            "which follow from the table's place; use `seeds` for seeds"
        )
    if "design" in table:
        choice(f"{place}.{name}.design", table["design"], DESIGNS)


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
    runs += [(name, "bench", options) for name, options in content["bench"].items()]
    return [
        {"name": name, "notebook": NOTEBOOKS[kind], "parameters": {"profile": profile, "name": name} | options}
        for name, kind, options in runs
    ]


def _options(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A training table's options, its design resolved."""
    own = dict(own)
    design = own.pop("design", None)
    return DEFAULT | common | (DESIGNS[design].options if design else {}) | own
