"""Verdicts: every claim of the paper beside what the records say, by a written rule.

Torch-free. claims.toml lists the claims; each names a function of MEASURES, which turns records into a value with its
95 % interval, and `verdict` compares that with the paper's value. A claim without a record says which one it lacks.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pandas import DataFrame

from sbkit.analysis import (
    QUANTIZER_OPTIONS,
    Evidence,
    Weights,
    differing_options,
    group_runs,
    interval,
    labelled,
    operations_table,
    paired_differences,
    rounds_by_layer,
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
    names: tuple[str, ...]  # of the records it rests on
    remark: str = ""


class MissingRecord(LookupError):
    """No record measures this; the message says which one would."""


def load_claims(path: str | Path) -> list[dict[str, Any]]:
    """The [[claim]] tables of claims.toml.

    Keys of a claim: id, text, paper (the paper's value), unit, setting, source, how (as measured here), tolerance (in
    `unit`, or "sign": being on the paper's side of `neutral` is enough), measure (a function of this module, "" where
    the claim is out of reach), notebook (which shows it), and if they apply neutral (the value that means no effect)
    and arguments (of the function).
    Raises ValueError naming the claim and what is wrong with it.
    """
    with open(path, "rb") as file:
        claims = tomllib.load(file)["claim"]
    required = {"id", "text", "paper", "unit", "setting", "source", "how", "tolerance", "measure", "notebook"}
    for claim in claims:
        name = claim.get("id", claim)
        if missing := required - claim.keys():
            raise ValueError(f"claim {name} in {path} lacks {', '.join(sorted(missing))}")
        if unknown := claim.keys() - required - {"neutral", "arguments"}:
            raise ValueError(f"claim {name} in {path} holds unknown keys {', '.join(sorted(unknown))}")
        if claim["measure"] not in ("", *MEASURES):
            raise ValueError(f"claim {name}: measure = {claim['measure']!r}; allowed: {', '.join(MEASURES)}, or empty")
        if claim["tolerance"] == "sign" and "neutral" not in claim:
            raise ValueError(f'claim {name}: tolerance = "sign" needs neutral, the value that means no effect')
        if isinstance(claim["tolerance"], str) and claim["tolerance"] != "sign":
            raise ValueError(f'claim {name}: tolerance = {claim["tolerance"]!r}; allowed: a number or "sign"')
    if twice := sorted(i for i in {c["id"] for c in claims} if sum(c["id"] == i for c in claims) > 1):
        raise ValueError(f"{path} holds these ids twice: {', '.join(twice)}")
    return claims


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
    evidence = Evidence(group_runs(train), bench, weights)
    rows = []
    for claim in claims:
        row = {"id": claim["id"], "claim": claim["text"], "paper": claim["paper"], "unit": claim["unit"]}
        found = {"ours": "-", "value": math.nan, "half_width": math.nan, "n": 0, "verdict": "out of reach here"}
        note = claim["how"]
        if claim["measure"]:
            try:
                measured = MEASURES[claim["measure"]](evidence, **claim.get("arguments", {}))
            except MissingRecord as missing:
                found["verdict"] = "missing record"
                note = f"missing: {missing}"
            else:
                value, half_width, n, names, remark = measured
                found = {"ours": shown(*measured[:3]), "value": value, "half_width": half_width, "n": n}
                found["verdict"] = verdict(claim, measured, paper_scale=paper_scale)
                note = f"{note}; records: {', '.join(names)}{'; ' if remark else ''}{remark}"
                if math.isnan(half_width):
                    note = f"missing: a second seed; {note}"
        rows.append(
            row
            | found
            | {"notebook": claim["notebook"], "setting": claim["setting"], "source": claim["source"], "note": note}
        )
    return DataFrame(rows)


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


def trained_density(evidence: Evidence, scheme: str) -> Measured:
    """Fraction of effectual weights in the quantized layers of the trained models."""
    runs = _main_runs(evidence, scheme)
    return Measured(*interval(runs["density"]), len(runs), tuple(runs["name"]))


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
            for layer, weight in layers.items()
            if weight.codes.shape[2:] == (3, 3) and (not channels or weight.codes.shape[:2] == (channels, channels))
        }
        for name, layers in evidence.weights.items()
        if name in names
    }
    kept = {name: layers for name, layers in kept.items() if layers}
    if not kept:
        size = f"a [3, 3, {channels}, {channels}]" if channels else "a 3x3"
        raise MissingRecord(f"codes of a {label} run with {size} layer")
    return kept


def bench_reduction(evidence: Evidence, scheme: str, channels: int = 0, algorithm: str = "table") -> Measured:
    """Arithmetic reduction of a benchmark's random [3, 3, channels, channels] codes, an exact count; 0: the largest."""
    timings = _timings_of(evidence, f"{algorithm} {scheme}", channels)
    best = timings.loc[timings["best_reduction"].idxmax()]
    return Measured(
        float(best["best_reduction"]), 0.0, 1, (best["name"],), "" if channels else f"layer {best['layer']}"
    )


def bench_speedup(evidence: Evidence, ours: str, over: str, channels: int = 0) -> Measured:
    """Summed latency of a benchmark's layers, that of one contender over ours, such as "table binary, signed".

    Over the benchmark's rounds; with `channels`, of the [3, 3, channels, channels] layer alone.
    """
    frames = [_timings_of(evidence, label, channels) for label in (ours, over)]
    if set(frames[0]["layer"]) != set(frames[1]["layer"]):
        raise MissingRecord(f"a benchmark of {ours} and {over} on the same layers")
    mine, theirs = (sum(rounds_by_layer(timings).values()) for timings in frames)
    noisy, count = sum(int(timings["flagged"].sum()) for timings in frames), sum(map(len, frames))
    remark = f"{noisy} of {count} timings noisy" if noisy else ""
    return Measured(*interval(theirs / mine), len(mine), (frames[0]["name"].iloc[0],), remark)


def _timings_of(evidence: Evidence, label: str, channels: int = 0) -> DataFrame:
    """Timings of one contender in the main benchmark: ResNet-18's layers on one thread, named "layers"."""
    bench = evidence.bench
    if not bench.empty:
        bench = bench[(bench["name"] == "layers") & (bench["shapes"] == "resnet18") & (bench["threads"] == 1)]
    if not bench.empty:
        bench = labelled(bench)
        bench = bench[(bench["label"] == label) & (not channels or (bench["K"] == channels) & (bench["C"] == channels))]
    if bench.empty:
        layer = f" on a [3, 3, {channels}, {channels}] layer" if channels else ""
        raise MissingRecord(f'a benchmark named "layers" of resnet18 shapes with {label}{layer}')
    return bench


MEASURES: dict[str, Callable[..., Measured]] = {
    function.__name__: function
    for function in (
        top1_gap,
        top1_gap_equal_effectual,
        trained_density,
        operation_reduction,
        filter_repetition,
        bench_reduction,
        bench_speedup,
    )
}
