"""Verdicts: every claim of the paper beside what the records say, by a written rule.

Torch-free. claims.toml lists the claims; each names a function of MEASURES, which turns records into a value with its
95 % interval, or of ARITHMETIC, which reckons with the paper's own numbers, and `verdict` compares that with the
paper's value. A claim without a record says which one it lacks. claims.toml also lists the paper's figures and tables,
and `inventory_table` says where their counterparts are.
"""

from __future__ import annotations

import functools
import itertools
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pandas import DataFrame

from sbkit import energy, repetition
from sbkit.analysis import (
    QUANTIZER_OPTIONS,
    TOY_FILTERS,
    Evidence,
    Weights,
    differing_options,
    graphs_table,
    group_runs,
    interval,
    labelled,
    newest,
    operations_table,
    paired_differences,
    rounds_by_layer,
    same_recipe,
    shown,
    unique_table,
)

VERDICTS = (
    "reproduced",
    "reproduced at smaller scale",
    "direction only",
    "not reproduced",
    "contradicted",
    "missing record",
    "out of reach here",
)


class Measured(NamedTuple):
    """What the records say of a claim. The half width is 0 for an exact count and NaN where one run leaves it open."""

    value: float
    half_width: float
    n: int
    names: tuple[str, ...]  # of the records it rests on; empty for what needs none and thus has no scale
    remark: str = ""


class MissingRecord(LookupError):
    """No record measures this; the message says which one would."""


_CLAIM = {"id", "text", "paper", "unit", "setting", "source", "how", "tolerance", "measure", "notebook"}
_ITEM = {"item", "content", "setting", "claims", "note"}


def load_tables(path: str | Path, kind: str, required: set[str], optional: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The tables [[kind]] of a TOML file, told apart by their `id` or, where none is required, their `kind`.

    Raises ValueError for a missing, an unknown or a repeated name.
    """
    with open(path, "rb") as file:
        tables = tomllib.load(file).get(kind, [])
    key = "id" if "id" in required else kind
    for table in tables:
        name = table.get(key, table)
        if missing := required - table.keys():
            raise ValueError(f"{kind} {name} in {path} lacks {', '.join(sorted(missing))}")
        if unknown := table.keys() - required - set(optional):
            raise ValueError(f"{kind} {name} in {path} holds unknown keys {', '.join(sorted(unknown))}")
    names = [table[key] for table in tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} holds these {key}s twice: {', '.join(twice)}")
    return tables


def load_claims(path: str | Path) -> list[dict[str, Any]]:
    """The [[claim]] tables of claims.toml.

    Keys of a claim: id, text, paper (the paper's value), unit, setting, source, how (as measured here), tolerance (in
    `unit`, or "sign": being on the paper's side of `neutral` is enough), measure (a function of this module, "" where
    nothing here measures it and `how` says why), notebook (which shows it), and if they apply
      neutral    the value that means no effect
      arguments  of the function
      command    what would measure it: the claim is out of the reach of small records; always given if measure is ""
      headline   true for those that the README shows
    Raises ValueError naming the claim and what is wrong with it.
    """
    claims = load_tables(path, "claim", _CLAIM, ("neutral", "arguments", "command", "headline"))
    known = {claim["id"] for claim in claims}
    for claim in claims:
        name, measure, tolerance = claim["id"], claim["measure"], claim["tolerance"]
        if measure not in ("", *MEASURES, *ARITHMETIC):
            allowed = ", ".join((*MEASURES, *ARITHMETIC))
            raise ValueError(f"claim {name}: measure = {measure!r}; allowed: {allowed}, or empty")
        if measure == "" and not claim.get("command"):
            raise ValueError(f'claim {name}: measure = "" needs command, what would measure it')
        if measure and not math.isfinite(claim["paper"]):
            raise ValueError(f"claim {name}: paper = {claim['paper']}; allowed: a number, or nan without measure")
        if measure in ARITHMETIC and (unknown := set(claim["arguments"].values()) - known):
            raise ValueError(f"claim {name}: arguments name {', '.join(sorted(unknown))}; allowed: ids of claims")
        if tolerance == "sign" and "neutral" not in claim:
            raise ValueError(f'claim {name}: tolerance = "sign" needs neutral, the value that means no effect')
        if isinstance(tolerance, str) and tolerance != "sign":
            raise ValueError(f'claim {name}: tolerance = {tolerance!r}; allowed: a number or "sign"')
    return claims


def load_inventory(path: str | Path) -> list[dict[str, Any]]:
    """The [[item]] tables of claims.toml: the paper's figures, tables and sections.

    Keys: item ("Fig. 4", as the catalogue's `paper` names it), content, setting, claims (ids of those it carries; "C8"
    stands for C8-binary and the like too), note (how what answers it here differs, or why nothing does; may be empty).
    Raises ValueError naming the item and what is wrong with it.
    """
    return load_tables(path, "item", _ITEM)


def verdict(claim: Mapping[str, Any], measured: Measured, *, paper_scale: bool) -> str:
    """Compare a measured value and its 95 % interval with the paper's value.

    With `neutral` (an effect is claimed), the interval lying wholly on a side of it:
      on the other side than the paper's value              contradicted
      on the paper's side, and the mean within tolerance    reproduced (at smaller scale, unless `paper_scale`)
      on the paper's side, the mean below or above that     direction only
      on neither                                            not reproduced
    Without `neutral` (equality is claimed), the interval lying wholly
      outside paper ± tolerance                             contradicted
      inside paper ± tolerance                              reproduced (at smaller scale, unless `paper_scale`)
      otherwise                                             not reproduced
    One run of something that varies with the seed has no interval and decides nothing: missing record.
    Where the value is reckoned from the paper's other numbers, "contradicted" says that it contradicts itself.
    """
    if math.isnan(measured.half_width):
        return "missing record"
    paper, tolerance = claim["paper"], claim["tolerance"]
    low, high = measured.value - measured.half_width, measured.value + measured.half_width
    if "neutral" in claim:
        neutral = claim["neutral"]
        above = paper > neutral
        same_side = low > neutral if above else high < neutral
        supported = same_side and (tolerance == "sign" or abs(measured.value - paper) <= tolerance)
        if same_side and not supported:
            return "direction only"
        opposed = high < neutral if above else low > neutral
    else:
        supported = paper - tolerance <= low and high <= paper + tolerance
        opposed = high < paper - tolerance or low > paper + tolerance
    if supported:
        return "reproduced" if paper_scale else "reproduced at smaller scale"
    return "contradicted" if opposed else "not reproduced"


def claims_table(
    claims: Iterable[Mapping[str, Any]],
    train: DataFrame,
    bench: DataFrame,
    weights: Weights,
    *,
    paper_scale: bool = False,
) -> DataFrame:
    """One row per claim: the paper's value, ours, the verdict, and the records it rests on (or what is missing).

    `paper_scale` says that these records have the networks and data of the claims' settings (ImageNet, ResNet-18).
    """
    claims = list(claims)
    evidence = Evidence(group_runs(train), bench if bench.empty else labelled(bench), weights)
    papers = {claim["id"]: claim["paper"] for claim in claims}

    @functools.cache  # several claims may rest on one value
    def measured_by(name: str, **arguments) -> Measured:
        return ARITHMETIC[name](papers, **arguments) if name in ARITHMETIC else MEASURES[name](evidence, **arguments)

    rows = []
    for claim in claims:
        row = {"id": claim["id"], "claim": claim["text"], "paper": claim["paper"], "unit": claim["unit"]}
        found = {"ours": "-", "value": math.nan, "half_width": math.nan, "n": 0, "verdict": "out of reach here"}
        note = claim["how"]
        if claim["measure"]:
            try:
                measured = measured_by(claim["measure"], **claim.get("arguments", {}))
            except MissingRecord as missing:
                if not claim.get("command"):
                    found["verdict"] = "missing record"
                note = f"missing: {missing}"
            else:
                value, half_width, n, names, remark = measured
                text = shown(value, half_width, n, digits=2 if names or value % 1 else 0)
                found = {"ours": text, "value": value, "half_width": half_width, "n": n}
                found["verdict"] = verdict(claim, measured, paper_scale=paper_scale or not names)
                note = "; ".join(part for part in (note, names and f"records: {', '.join(names)}", remark) if part)
                if math.isnan(half_width):
                    note = f"missing: a second seed; {note}"
        if found["verdict"] == "out of reach here":
            note = f"{note}; what would measure it: {claim['command']}"
        rows.append(
            row
            | found
            | {"notebook": claim["notebook"], "setting": claim["setting"], "source": claim["source"], "note": note}
        )
    return DataFrame(rows)


def headline_table(claims: Iterable[Mapping[str, Any]], table: DataFrame) -> DataFrame:
    """The rows of `claims_table` that the README shows: those of claims with headline = true."""
    chosen = table["id"].isin([claim["id"] for claim in claims if claim.get("headline")])
    return table.loc[chosen, ["id", "claim", "paper", "unit", "ours", "verdict", "notebook"]].reset_index(drop=True)


def inventory_table(
    items: Iterable[Mapping[str, Any]], table: DataFrame, catalogue: Mapping[str, Mapping[str, Any]]
) -> DataFrame:
    """One row per figure and table of the paper: what answers it here, and the verdicts of the claims that it carries.

    `table` is that of `claims_table`, `catalogue` of the figures and tables that are drawn, by "figures/<stem>".
    Raises ValueError for an item that names a claim which is not in the table.
    """
    rows = []
    for item in items:
        verdicts = []
        for name in item["claims"]:
            of_claim = table.loc[table["id"].str.fullmatch(rf"{name}(-.*)?"), "verdict"].tolist()
            if not of_claim:
                raise ValueError(f"item {item['item']}: claims name {name}; allowed: C8, or C8-binary")
            verdicts += of_claim
        here = {name: entry for name, entry in catalogue.items() if item["item"] in entry["paper"].split(", ")}
        counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts]
        rows.append(
            {
                "item": item["item"],
                "content": item["content"],
                "setting": item["setting"],
                "here": ", ".join(here) or "-",
                "notebook": ", ".join(dict.fromkeys(entry["notebook"] for entry in here.values())) or "-",
                "claims": ", ".join(item["claims"]) or "-",
                "verdict": ", ".join(counts) or "no number to check",
                "note": item["note"],
            }
        )
    return DataFrame(rows)


# Training runs


def _main_runs(evidence: Evidence, label: str) -> DataFrame:
    """The runs of the group that bears a quantizer's own name: the main grid of a profile."""
    train = evidence.train
    runs = train[train["label"] == label]
    if runs.empty:
        raise MissingRecord(f"a training run of {label}")
    return runs


def _check_recipe(ours: DataFrame, theirs: DataFrame, allowed: Iterable[str] = ()) -> None:
    """Raises ValueError if the two groups differ in more than the quantizer and the allowed options."""
    configs = [ours["config"].iloc[0], theirs["config"].iloc[0]]
    if keys := differing_options(configs, ("seed", *QUANTIZER_OPTIONS, *allowed)):
        labels = f"{ours['label'].iloc[0]} and {theirs['label'].iloc[0]}"
        raise ValueError(f"{labels} do not compare: their recipes differ in {', '.join(keys)}")


def top1_gap(evidence: Evidence, scheme: str, over: str) -> Measured:
    """Top-1 of one scheme minus that of another, paired by seed, in points."""
    ours, theirs = _main_runs(evidence, scheme), _main_runs(evidence, over)
    _check_recipe(ours, theirs)
    return _gap(ours, theirs)


def top1_gap_equal_effectual(evidence: Evidence, scheme: str, over: str) -> Measured:
    """Top-1 of a scheme minus that of another quantizer's model of as many effectual weights (within 15 %), in points.

    The other model differs in width or depth alone; of several the nearest in effectual weights counts.
    """
    ours = _main_runs(evidence, scheme)
    effectual = ours["effectual_weights"].mean()
    others = evidence.train[evidence.train["quantizer"] == over]
    size = others.groupby("label")["effectual_weights"].mean()
    close = (size / effectual - 1).abs()
    if close.empty or close.min() > 0.15:
        raise MissingRecord(f"a {over} run with about {effectual:,.0f} effectual weights")
    theirs = others[others["label"] == close.idxmin()]
    _check_recipe(ours, theirs, allowed=("width", "model"))
    return _gap(ours, theirs)


def _gap(ours: DataFrame, theirs: DataFrame) -> Measured:
    differences = paired_differences(ours, theirs)
    labels = [frame["label"].iloc[0] for frame in (ours, theirs)]
    if not len(differences):
        raise MissingRecord(f"a seed that {labels[0]} and {labels[1]} share")
    both = set(ours["seed"]) & set(theirs["seed"])
    names = [name for frame in (ours, theirs) for name in frame["name"][frame["seed"].isin(both)]]
    return Measured(*interval(differences), len(differences), tuple(names))


def top1(evidence: Evidence, scheme: str, dataset: str, model: str) -> Measured:
    """Top-1 in percent of a scheme's runs of one model on one data set (an image_folder's path does not matter)."""
    runs = _main_runs(evidence, scheme)
    recipe = runs["config"].iloc[0]
    if (recipe["dataset"].partition(":")[0], recipe["model"]) != (dataset, model):
        raise MissingRecord(f"a training run of {scheme}, {model} on {dataset}")
    return Measured(*interval(runs["top1_percent"]), len(runs), tuple(runs["name"]))


def trained_density(evidence: Evidence, scheme: str) -> Measured:
    """Fraction of effectual weights in the quantized layers of the trained models."""
    runs = _main_runs(evidence, scheme)
    return Measured(*interval(runs["density"]), len(runs), tuple(runs["name"]))


def comparable_sparsity(evidence: Evidence, over: str, points: float) -> Measured:
    """The highest sparsity (1 - density) of signed binary at a top-1 of at most `points` below that of `over`.

    Of the groups that differ from signed_binary in options of the quantizer alone, top-1 paired by seed, in the mean;
    0 if there is none.
    """
    theirs, plain = _main_runs(evidence, over), _main_runs(evidence, "signed_binary")
    _check_recipe(plain, theirs)
    found = []
    for label, runs in evidence.train[evidence.train["quantizer"] == "signed_binary"].groupby("label"):
        gap = paired_differences(runs, theirs)
        if len(gap) and same_recipe(runs["config"].iloc[0], plain["config"].iloc[0]):
            found.append((gap.mean(), label, runs))
    if not found:
        raise MissingRecord(f"a seed that signed_binary and {over} share")
    best, label, runs = max(found, key=lambda group: group[0])
    close = [(1 - runs["density"].mean(), label, runs) for gap, label, runs in found if gap >= -points]
    if not close:
        remark = f"the nearest, {label}, is {-best:.2f} points below {over}"
        return Measured(0.0, math.nan if len(runs) == 1 else 0.0, len(runs), tuple(runs["name"]), remark)
    _, label, runs = max(close, key=lambda group: group[0])
    return Measured(*interval(1 - runs["density"]), len(runs), tuple(runs["name"]), f"that of {label}")


# Codes


def operation_reduction(evidence: Evidence, scheme: str, channels: int, way: str = "table") -> Measured:
    """Arithmetic reduction of the trained [3, 3, channels, channels] layers: mean of a run, then of runs."""
    table = operations_table(_main_weights(evidence, scheme, channels), [way])
    per_run = table.groupby("name")["reduction"].mean()
    return Measured(*interval(per_run), len(per_run), tuple(per_run.index))


def filter_repetition(evidence: Evidence, scheme: str, over: str) -> Measured:
    """How often a 3x3 filter occurs in the largest square layer that both have: one scheme's count over another's."""
    per_scheme = []
    for label in (scheme, over):
        table = unique_table(_main_weights(evidence, label))
        largest = table.sort_values("filters", kind="stable").groupby("name").tail(1)
        per_scheme.append(largest.set_index(largest["name"].str.extract(r"-s(\d+)$")[0].astype(int)))
    ours, theirs = per_scheme
    seeds = ours.index.intersection(theirs.index)
    if seeds.empty:
        raise MissingRecord(f"a seed whose codes {scheme} and {over} both kept")
    ours, theirs = ours.loc[seeds], theirs.loc[seeds]
    if not (ours["filters"] == theirs["filters"]).all():
        raise ValueError(f"{scheme} and {over} do not compare: their largest layers differ in size")
    return Measured(*interval(ours["repetition"] / theirs["repetition"]), len(seeds), (*ours["name"], *theirs["name"]))


def _main_weights(evidence: Evidence, label: str, channels: int = 0) -> Weights:
    """Codes of a main group's runs; with `channels`, only their [3, 3, channels, channels] layers."""
    names = set(_main_runs(evidence, label)["name"])
    kept = {
        name: {
            layer: weight
            for layer, weight in evidence.weights[name].items()
            if weight.codes.shape[2:] == (3, 3) and (not channels or weight.codes.shape[:2] == (channels, channels))
        }
        for name in evidence.weights
        if name in names
    }
    kept = {name: layers for name, layers in kept.items() if layers}
    if not kept:
        size = f"a [3, 3, {channels}, {channels}]" if channels else "a 3x3"
        raise MissingRecord(f"codes of a {label} run with {size} layer")
    return kept


# Benchmarks


def bench_reduction(
    evidence: Evidence, scheme: str, channels: int = 0, algorithm: str = "table", over: str = ""
) -> Measured:
    """Arithmetic reduction of a benchmark's random [3, 3, channels, channels] codes, an exact count; 0: the largest.

    With `over`, the reduction of one scheme over that of another.
    """
    timings = _timings_of(evidence, f"{algorithm} {scheme}", channels)
    best = timings.loc[timings["best_reduction"].idxmax()]
    value = float(best["best_reduction"])
    if over:
        value /= bench_reduction(evidence, over, channels, algorithm).value
    return Measured(value, 0.0, 1, (best["name"],), "" if channels else f"layer {best['layer']}")


def bench_speedup(evidence: Evidence, ours: str, over: str, channels: int = 0, benchmark: str = "layers") -> Measured:
    """Summed latency of a benchmark's layers: that of `over` over that of `ours`, such as "table binary, signed".

    Over the benchmark's rounds; with `channels`, of the [3, 3, channels, channels] layer alone.
    """
    frames = [_timings_of(evidence, label, channels, benchmark) for label in (ours, over)]
    if set(frames[0]["layer"]) != set(frames[1]["layer"]):
        raise MissingRecord(f"a benchmark of {ours} and {over} on the same layers")
    mine, theirs = (sum(rounds_by_layer(timings).values()) for timings in frames)
    noisy, count = sum(int(timings["flagged"].sum()) for timings in frames), sum(map(len, frames))
    remark = f"{noisy} of {count} timings noisy" if noisy else ""
    return Measured(*interval(theirs / mine), len(mine), (frames[0]["name"].iloc[0],), remark)


def _timings_of(evidence: Evidence, label: str, channels: int = 0, benchmark: str = "layers") -> DataFrame:
    """Timings of one contender in a benchmark of ResNet-18 on one thread: its "layers", or the whole "network"."""
    bench = evidence.bench
    if not bench.empty:
        bench = bench[(bench["name"] == benchmark) & (bench["shapes"] == "resnet18") & (bench["threads"] == 1)]
    if not bench.empty:
        bench = bench if "label" in bench else labelled(bench)
        bench = bench[(bench["label"] == label) & (not channels or (bench["K"] == channels) & (bench["C"] == channels))]
    if bench.empty:
        layer = f" on a [3, 3, {channels}, {channels}] layer" if channels else ""
        raise MissingRecord(f'a benchmark named "{benchmark}" of resnet18 shapes with {label}{layer}')
    return bench


# The accelerator model


def known_codes(evidence: Evidence) -> list[energy.Codes]:
    """What the model knows of each scheme: the mean density of its main runs, and the graphs that were counted last."""
    train = evidence.train
    main = train[train["label"] == train["quantizer"]] if len(train) else DataFrame({"quantizer": [], "density": []})
    densities = main.groupby("quantizer", sort=False)["density"].mean()
    return energy.known_codes(densities.to_dict(), newest(evidence.bench, "operations"))


def _modelled(evidence: Evidence, scheme: str, over: str, ratio: str) -> Measured:
    """A ratio of `energy.Ratios` under the base assumptions: one value per trained density of `scheme`."""
    ours, theirs = _main_runs(evidence, scheme), _main_runs(evidence, over)
    reference = energy.Codes(over, theirs["density"].mean())
    values = [
        getattr(energy.compare(energy.Codes(scheme, density), reference, energy.Accelerator()), ratio)
        for density in ours["density"]
    ]
    return Measured(*interval(values), len(values), (*ours["name"], *theirs["name"]), "the model takes their densities")


def modelled_energy(evidence: Evidence, scheme: str = "signed_binary", over: str = "binary") -> Measured:
    """Energy of a scheme's ResNet-18 over that of another's, at the trained densities."""
    return _modelled(evidence, scheme, over, "energy")


def modelled_throughput(evidence: Evidence, scheme: str = "signed_binary", over: str = "binary") -> Measured:
    """Images a second of a scheme's ResNet-18 over those of another's, batch 1."""
    return _modelled(evidence, scheme, over, "throughput")


def modelled_latency(evidence: Evidence, scheme: str = "signed_binary", over: str = "binary") -> Measured:
    """Latency of a scheme's ResNet-18 over that of another's, batch 1."""
    return _modelled(evidence, scheme, over, "latency")


def top1_ratio(evidence: Evidence, scheme: str = "signed_binary", over: str = "binary") -> Measured:
    """Top-1 of one scheme over that of another, paired by seed."""
    ours, theirs = _main_runs(evidence, scheme), _main_runs(evidence, over)
    _check_recipe(ours, theirs)
    paired = ours.merge(theirs, on="seed", suffixes=("", "_over"))
    if paired.empty:
        raise MissingRecord(f"a seed that {scheme} and {over} share")
    ratios = paired["top1_percent"] / paired["top1_percent_over"]
    return Measured(*interval(ratios), len(ratios), (*paired["name"], *paired["name_over"]))


def radar_table(evidence: Evidence) -> DataFrame:
    """Signed binary over binary in the paper's five quantities: what its radar draws.

    Columns: quantity, source (model, trained, or measured on this CPU), value with half_width and n, paper (NaN where
    it states none), higher_is_better, and note: the records, or which one is missing, with NaN for a value.
    """
    graphs = {"ours": "dataflow binary", "over": "dataflow signed_binary"}  # this way round: a latency, not a speed
    rows = []
    for quantity, source, measure, arguments in (
        ("energy", "model", modelled_energy, {}),
        ("throughput", "model", modelled_throughput, {}),
        ("density", "trained", trained_density, {"scheme": "signed_binary"}),
        ("latency", "model", modelled_latency, {}),
        ("latency", "CPU, data-flow graphs", bench_speedup, graphs),
        ("accuracy", "trained", top1_ratio, {}),
    ):
        try:
            value, half_width, n, names, _ = measure(evidence, **arguments)
            note = f"records: {', '.join(names)}"
        except MissingRecord as missing:
            value, half_width, n, note = math.nan, math.nan, 0, f"missing: {missing}"
        better = quantity in ("throughput", "accuracy")
        rows.append(
            {"quantity": quantity, "source": source, "value": value, "half_width": half_width, "n": n}
            | {"paper": energy.PAPER.get(quantity, math.nan), "higher_is_better": better, "note": note}
        )
    return DataFrame(rows)


# What needs no record: constants, combinatorics and the paper's toy example


def _exact(value: float, remark: str = "") -> Measured:
    return Measured(float(value), 0.0, 1, (), remark)


def dram_over_add(evidence: Evidence) -> Measured:
    """Energy of 32 bits from DRAM over that of a 32-bit integer addition."""
    return _exact(energy.DRAM_PJ / energy.ADD_PJ["int32"], "Horowitz 2014, Fig. 1.1.9")


def dram_over_multiply(evidence: Evidence) -> Measured:
    """Energy of 32 bits from DRAM over that of a 32-bit integer multiplication."""
    return _exact(energy.DRAM_PJ / energy.MULTIPLY_PJ["int32"], "Horowitz 2014, Fig. 1.1.9")


def distinct_patterns(evidence: Evidence, scheme: str) -> Measured:
    """How many 3x3 filters a scheme can tell apart."""
    return _exact(repetition.pattern_bound(scheme))


def uniform_repetition(evidence: Evidence, scheme: str, channels: int) -> Measured:
    """The 2-D filters of a [3, 3, channels, channels] layer over those that a scheme can tell apart."""
    return _exact(channels**2 / repetition.pattern_bound(scheme))


def toy_adds(evidence: Evidence, scheme: str) -> Measured:
    """Additions of a scheme's data-flow graph of the toy filters; signed binary's is the one that the paper prints."""
    graphs = graphs_table()
    return _exact(graphs.loc[graphs["scheme"] == scheme, "adds"].iloc[0])


def toy_outputs(evidence: Evidence, scheme: str) -> Measured:
    """Different outputs of that graph."""
    graphs = graphs_table()
    return _exact(graphs.loc[(graphs["scheme"] == scheme) & (graphs["kind"] == "output"), "parts"].nunique())


# A latent weight of the toy example: its binary code, and its ternary one. Signed binary keeps the positive ternary
# codes of the first filter and the negative ones of the second.
_LATENT = ((1, 1), (1, 0), (-1, 0), (-1, -1))
_LATENT_PAIRS = tuple(itertools.product(_LATENT, repeat=2))  # of one input's weights in both filters


@functools.cache
def _toy_codes(pair: tuple[tuple[int, int], tuple[int, int]]) -> dict[str, tuple[int, int]]:
    (first, first_kept), (second, second_kept) = pair
    return {
        "binary": (first, second),
        "ternary_twn": (first_kept, second_kept),
        "signed_binary": (max(first_kept, 0), min(second_kept, 0)),
    }


@functools.cache
def _pair_adds(codes: tuple[tuple[int, int], ...]) -> int:
    """Additions of two values in the data-flow graph of two filters; `codes` holds both codes of each input."""
    filters = list(zip(*codes, strict=True))
    sets = [[i for i, code in enumerate(row) if code == sign] for row in filters for sign in (1, -1)]
    return repetition.dataflow_graph(sets, len(codes)).adds - sum(any(row) for row in filters)


def toy_exists(
    evidence: Evidence, binary: int, ternary_twn: int, signed_binary: int, inputs: int = 6, printed: bool = False
) -> Measured:
    """1 if some pair of latent filters needs exactly so many additions by each scheme, else 0, and what share does.

    All pairs over so many inputs are tried; with `printed`, those whose signed-binary codes are the printed ones.
    Additions do not depend on the order of the inputs, so each choice of columns is counted with its permutations.
    """
    wanted = {"signed_binary": signed_binary, "binary": binary, "ternary_twn": ternary_twn}
    found = total = 0
    if printed:
        columns = zip(*TOY_FILTERS["signed_binary"], strict=True)
        allowed = [[p for p in _LATENT_PAIRS if _toy_codes(p)["signed_binary"] == column] for column in columns]
        choices = ((pairs, 1) for pairs in itertools.product(*allowed))
    else:
        choices = (
            (pairs, math.factorial(inputs) // math.prod(map(math.factorial, map(pairs.count, set(pairs)))))
            for pairs in itertools.combinations_with_replacement(_LATENT_PAIRS, inputs)
        )
    for pairs, orders in choices:
        total += orders
        codes = [_toy_codes(pair) for pair in pairs]
        if all(_pair_adds(tuple(sorted(c[scheme] for c in codes))) == adds for scheme, adds in wanted.items()):
            found += orders
    return _exact(found > 0, f"{found:,} of {total:,} pairs of latent filters")


# The paper's own numbers. `papers` holds the paper's value of each claim


def ratio_of_claims(papers: Mapping[str, float], denominator: str, numerator: str = "") -> Measured:
    """One of the paper's values over another; without a numerator, the inverse."""
    return _exact((papers[numerator] if numerator else 1) / papers[denominator])


def difference_of_claims(papers: Mapping[str, float], minuend: str, subtrahend: str) -> Measured:
    """One of the paper's values minus another."""
    return _exact(papers[minuend] - papers[subtrahend])


ARITHMETIC: dict[str, Callable[..., Measured]] = {
    function.__name__: function for function in (ratio_of_claims, difference_of_claims)
}

MEASURES: dict[str, Callable[..., Measured]] = {
    function.__name__: function
    for function in (
        top1_gap,
        top1_gap_equal_effectual,
        top1,
        trained_density,
        comparable_sparsity,
        operation_reduction,
        filter_repetition,
        bench_reduction,
        bench_speedup,
        distinct_patterns,
        uniform_repetition,
        toy_adds,
        toy_outputs,
        toy_exists,
        modelled_energy,
        modelled_throughput,
        modelled_latency,
        dram_over_add,
        dram_over_multiply,
    )
}
