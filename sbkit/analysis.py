"""Records into tables: means with intervals, ratios, the Pareto front, and a verdict for every claim.

Torch-free. A table is a tidy DataFrame with units in its column names; `sbkit.plots` draws it and the notebooks save it
as CSV beside the figure. `train` and `bench` are frames of `sbkit.records.read`; `weights` is what `run_weights` finds.

Runs that differ in nothing but the seed form one group, named after their files: `signed_binary-s0` and
`signed_binary-s1` are the group `signed_binary`. Every interval is a two-sided 95 % t-interval of the mean over a
group's seeds (or over a benchmark's rounds) and is NaN for n = 1.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame

from sbkit import records, repetition
from sbkit.conv import QuantizedWeight, load_weights

# The fields of QuantizerConfig: a recipe is everything else but the seed. (quantizers.py needs torch; a test compares.)
QUANTIZER_OPTIONS = (
    "quantizer",
    "estimator",
    "scale",
    "delta_factor",
    "delta_axis",
    "region_channels",
    "positive_fraction",
    "assignment",
    "channel_signs",
)

Weights = Mapping[str, Mapping[str, QuantizedWeight]]


# Statistics


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % t-interval; the half width is NaN for n = 1."""
    from scipy.stats import t

    values = np.asarray(list(values), float)
    if values.size == 0:
        raise ValueError("the interval of no values; allowed: at least one")
    if values.size == 1:
        return float(values[0]), math.nan
    return float(values.mean()), float(t.ppf(0.975, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))


def shown(mean: float, half_width: float, n: int, digits: int = 2) -> str:
    """`87.10 ± 0.40 (n=3)`; of one value `87.10 (n=1)`, or `87.10 (exact)` where it has no spread (half width 0)."""
    if n == 1:
        return f"{mean:.{digits}f} ({'exact' if half_width == 0 else 'n=1'})"
    return f"{mean:.{digits}f} ± {half_width:.{digits}f} (n={n})"


# Training runs


def _differing(configs: Iterable[Mapping[str, Any]], ignored: Iterable[str] = ("seed",)) -> list[str]:
    """Keys whose values (absence being one) are not all equal."""
    configs = list(configs)
    keys = {key for config in configs for key in config} - set(ignored)
    return sorted(key for key in keys if len({repr(config.get(key)) for config in configs}) > 1)


def group_runs(train: DataFrame) -> DataFrame:
    """The frame with the columns `label` and `config` (the record's own dict) added, sorted by label and seed.

    Raises ValueError where one label holds two configs, naming the keys that differ, or one seed twice.
    """
    if train.empty:
        return train.assign(label=[], config=[])
    runs = train.assign(
        label=[re.sub(r"-s\d+$", "", name) for name in train["name"]],
        config=[records.load(path).config for path in train["path"]],
    ).sort_values(["label", "seed"], kind="stable", ignore_index=True)
    for label, group in runs.groupby("label"):
        if keys := _differing(group["config"]):
            raise ValueError(f"runs {', '.join(group['name'])} share the label {label} but differ in {', '.join(keys)}")
        if group["seed"].duplicated().any():
            raise ValueError(f"runs {', '.join(group['name'])} of {label} repeat a seed: {group['seed'].tolist()}")
    return runs


def without_ablations(train: DataFrame) -> DataFrame:
    """The runs that compare schemes: all but those named `ablate_<what>`, which vary one scheme."""
    return train[~train["name"].str.startswith("ablate_")]


def scheme_runs(train: DataFrame) -> DataFrame:
    """The runs named after their quantizer: each scheme in its plain form, as the paper describes it."""
    return train[train["name"].str.replace(r"-s\d+$", "", regex=True) == train["quantizer"]]


def metrics_table(record: records.Record) -> DataFrame:
    """One row per scalar metric of one record."""
    rows = [(key, value) for key, value in record.metrics.items() if not isinstance(value, (list, dict))]
    return DataFrame(rows, columns=["metric", "value"])


def seed_table(train: DataFrame) -> DataFrame:
    """One row per run, with its group's mean and interval: what the accuracy figure draws."""
    runs = group_runs(train)
    summary = accuracy_table(train).set_index("label")
    columns = ["label", "quantizer", "seed", "top1_percent", "density", "effectual_weights"]
    return runs[columns].join(summary[["top1_mean_percent", "top1_half_width_percent", "n"]], on="label")


def accuracy_table(train: DataFrame) -> DataFrame:
    """One row per group: top-1 mean, 95 % half width, extremes, and the mean density and size of its models."""
    rows = []
    for label, group in group_runs(train).groupby("label"):
        mean, half_width = interval(group["top1_percent"])
        rows.append(
            {
                "label": label,
                "quantizer": group["quantizer"].iloc[0],
                "n": len(group),
                "top1": shown(mean, half_width, len(group)),
                "top1_mean_percent": mean,
                "top1_half_width_percent": half_width,
                "top1_min_percent": group["top1_percent"].min(),
                "top1_max_percent": group["top1_percent"].max(),
                "density": group["density"].mean(),
                "effectual_weights": group["effectual_weights"].mean(),
                "weight_bits": group["weight_bits"].iloc[0],
            }
        )
    return DataFrame(rows)


def paired_table(train: DataFrame, baseline: str = "binary") -> DataFrame:
    """Top-1 of each group minus that of `baseline` with the same seed, over the seeds that both have.

    `differs` lists the options that both configs have with different values: a difference has one cause only if it
    names one. Options that only one of two quantizers has are its own.
    Groups without a common seed are left out. Raises ValueError for a baseline that is not among the labels.
    """
    runs = group_runs(train)
    groups = dict(list(runs.groupby("label"))) if len(runs) else {}
    if baseline not in groups:
        raise ValueError(f"baseline = {baseline!r}; allowed: {', '.join(groups) or 'none, there are no runs'}")
    rows = []
    for label, group in groups.items():
        if label == baseline:
            continue
        differences = _paired(group, groups[baseline])
        if not len(differences):
            continue
        configs = [group["config"].iloc[0], groups[baseline]["config"].iloc[0]]
        own = configs[0].keys() ^ configs[1].keys()
        mean, half_width = interval(differences)
        rows.append(
            {
                "label": label,
                "baseline": baseline,
                "n": len(differences),
                "difference": shown(mean, half_width, len(differences)),
                "difference_mean_points": mean,
                "difference_half_width_points": half_width,
                "differs": ", ".join(_differing(configs, ("seed", *own))),
            }
        )
    return DataFrame(rows)


def _paired(group: DataFrame, baseline: DataFrame, metric: str = "top1_percent") -> np.ndarray:
    ours, theirs = (frame.set_index("seed")[metric] for frame in (group, baseline))
    return (ours - theirs).dropna().to_numpy(float)


def pareto_front(cost: Iterable[float], value: Iterable[float]) -> np.ndarray:
    """Which points no other point beats: none has at most their cost and at least their value, and betters one."""
    points = list(zip(cost, value, strict=True))
    return np.array(
        [not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points) for cost, value in points]
    )


def pareto_table(train: DataFrame) -> DataFrame:
    """Group means of top-1 against effectual weights; `front` marks those that no other group beats in both."""
    table = accuracy_table(train)
    columns = ["label", "quantizer", "n", "effectual_weights", "top1_mean_percent", "top1_half_width_percent"]
    front = pareto_front(table["effectual_weights"], table["top1_mean_percent"])
    return table[columns].assign(front=front).sort_values("effectual_weights", ignore_index=True)


def _from_history(train: DataFrame, rows_of: Callable[[dict], Iterable[dict]]) -> DataFrame:
    """One row per item that `rows_of(history)` yields, with the run's label, quantizer and seed in front."""
    runs = group_runs(train)
    return DataFrame(
        [
            {"label": run.label, "quantizer": run.quantizer, "seed": run.seed} | row
            for run in runs.itertuples()
            for row in rows_of(records.load(run.path).history)
        ]
    )


def curves_table(train: DataFrame) -> DataFrame:
    """One row per run and epoch, as training recorded them."""
    return _from_history(
        train, lambda history: ({k: v for k, v in epoch.items() if k != "latent"} for epoch in history["epochs"])
    )


def density_table(train: DataFrame) -> DataFrame:
    """One row per run and quantized layer, in the network's order; full precision has none."""
    return _from_history(
        train,
        lambda history: (
            {"depth": depth, "layer": layer["name"], "density": layer["density"]}
            for depth, layer in enumerate(history.get("layers", []), start=1)
        ),
    )


def latent_table(train: DataFrame) -> DataFrame:
    """Histograms of latent weights: one row per run, recorded layer, sign of the region and bin.

    `left` and `right` are the bin's edges, `count` all weights in it, `effectual` those with a non-zero code. A sign
    without regions is left out.
    """

    def rows_of(history: dict) -> Iterable[dict]:
        for layer, histogram in history.get("latent", {}).items():
            edges = histogram["edges"]
            for region in ("positive", "negative"):
                counts, effectual = histogram[region], histogram[f"{region}_effectual"]
                if any(counts):
                    for row in zip(edges[:-1], edges[1:], counts, effectual, strict=True):
                        bin_ = dict(zip(("left", "right", "count", "effectual"), row, strict=True))
                        yield {"layer": layer, "region": region} | bin_

    return _from_history(train, rows_of)


# Codes


def run_weights(train: DataFrame) -> dict[str, dict[str, QuantizedWeight]]:
    """Codes of the runs that left any, by run name: `weights/<name>.npz` beside the folder of records."""
    files = {
        name: Path(path).parents[2] / "weights" / f"{name}.npz"
        for name, path in zip(train["name"], train["path"], strict=True)
    }
    return {name: load_weights(file) for name, file in files.items() if file.is_file()}


def _layers(weights: Weights) -> Iterable[tuple[dict[str, Any], QuantizedWeight]]:
    for name, layers in weights.items():
        for depth, (layer, weight) in enumerate(layers.items(), start=1):
            K, C, R, S = weight.codes.shape
            yield (
                {
                    "name": name,
                    "label": re.sub(r"-s\d+$", "", name),
                    "scheme": weight.scheme,
                    "depth": depth,
                    "layer": layer,
                    "K": K,
                    "C": C,
                    "R": R,
                    "S": S,
                    "density": weight.density,
                },
                weight,
            )


def unique_table(weights: Weights) -> DataFrame:
    """Distinct 3x3 filters of each 3x3 layer, beside the number its scheme can tell apart."""
    rows = []
    for row, weight in _layers(weights):
        if (row["R"], row["S"]) == (3, 3):
            found = repetition.unique_filters(weight.codes)
            bound = repetition.pattern_bound(weight.scheme)
            rows.append(
                row | {"filters": found.total, "unique": found.unique, "repetition": found.repetition, "bound": bound}
            )
    return DataFrame(rows)


def operations_table(weights: Weights) -> DataFrame:
    """Arithmetic reduction of each layer and each way to execute it, per output position (`repetition.operations`).

    `way` is sparse, table, "table, zeros kept" (no sparsity support) or, for codes without zeros, "table, rewritten".
    `group` is the table's G of fewest operations, from 1 to 10 channels.
    """
    rows = []
    for row, weight in _layers(weights):
        ways = {"sparse": ("sparse", {}), "table": ("table", {})}
        if weight.codes.all():
            ways["table, rewritten"] = ("table", {"encoding": "rewritten"})
        else:
            ways["table, zeros kept"] = ("table", {"skip_zeros": False})
        for way, (algorithm, options) in ways.items():
            group = repetition.best_group(weight, **options) if algorithm == "table" else 1
            adds, multiplies = repetition.operations(weight, algorithm, group=group, **options)
            reduction = repetition.reduction(weight, algorithm, group=group, **options)
            rows.append(
                row | {"way": way, "group": group, "adds": adds, "multiplies": multiplies, "reduction": reduction}
            )
    return DataFrame(rows)


# Quantizers

_RESPONSE = ("w", "forward", "gradient_start", "gradient_middle", "gradient_end")


def response_table(train: DataFrame) -> DataFrame:
    """One row per group, kind of filter (`beta` is +1 or -1, or empty where there is one kind) and latent weight."""
    first = group_runs(train).drop_duplicates("label")
    rows = _from_history(
        first,
        lambda history: (
            {"beta": curve["beta"]} | dict(zip(_RESPONSE, values, strict=True))
            for curve in history.get("response", [])
            for values in zip(*(curve[key] for key in _RESPONSE), strict=True)
        ),
    )
    return rows.drop(columns="seed", errors="ignore")


# Benchmarks


def contender_label(contender: str, variant: str, encoding: str, skip_zeros: bool) -> str:
    """How a contender is called in tables and figures: `torch channels_last`, `table binary, rewritten`."""
    kept = "" if contender == "torch" or skip_zeros else ", zeros kept"
    return f"{contender} {variant}{', rewritten' if encoding == 'rewritten' else ''}{kept}"


def newest(bench: DataFrame) -> DataFrame:
    """The timings of the benchmark that started last: a speed figure shows one run on one machine."""
    return bench[bench["provenance_started_utc"] == bench["provenance_started_utc"].max()]


def speed_table(bench: DataFrame) -> DataFrame:
    """One row per benchmark, layer and contender: latency, spread, dense-equivalent throughput.

    `reference` marks the layer's best fp32 torch, the faster of contiguous and channels_last. Raises ValueError if the
    timings come from several machines.
    """
    table = records.one_machine(bench).reset_index(drop=True)
    table = table.assign(
        label=[contender_label(row.contender, row.variant, row.encoding, row.skip_zeros) for row in table.itertuples()]
    )
    torch = table[table["contender"] == "torch"]
    best = torch.loc[torch.groupby(["name", "layer"])["median_ms"].idxmin()].index
    columns = ["name", "layer", "label", "contender", "scheme", "encoding", "skip_zeros", "group", "threads"]
    columns += ["median_ms", "iqr_ms", "min_ms", "round_ms", "gmacs", "reduction", "best_reduction"]
    columns += ["weight_bytes", "flagged"]
    return table[columns].assign(reference=table.index.isin(best))


def speedup_table(bench: DataFrame) -> DataFrame:
    """Speed of each contender over the layer's best fp32 torch; 2 is twice as fast.

    One row per benchmark, layer and contender, and one with layer = "all" for the sum of the layers' latencies. The
    mean and 95 % half width are over rounds, each round's ratio taken within the round.
    """
    table = speed_table(bench)
    rows = []
    for name, timings in table.groupby("name", sort=False):
        best = _rounds(timings[timings["reference"]])
        for label, contender in timings.groupby("label", sort=False):
            ours = _rounds(contender)
            ratios = {layer: best[layer] / ours[layer] for layer in ours}
            ratios["all"] = sum(best[layer] for layer in ours) / sum(ours.values())
            for layer, ratio in ratios.items():
                mean, half_width = interval(ratio)
                rows.append(
                    {
                        "name": name,
                        "layer": layer,
                        "label": label,
                        "contender": contender["contender"].iloc[0],
                        "scheme": contender["scheme"].iloc[0],
                        "n": len(ratio),
                        "speedup": mean,
                        "speedup_half_width": half_width,
                    }
                )
    return DataFrame(rows)


def _rounds(timings: DataFrame) -> dict[str, np.ndarray]:
    """Milliseconds of each round, by layer; every layer once."""
    return {row.layer: np.array(row.round_ms) for row in timings.itertuples()}


# Claims

VERDICTS = (
    "reproduced",
    "reproduced at smaller scale",
    "direction only",
    "not reproduced",
    "contradicted",
    "missing record",
    "out of reach here",
)


class Evidence(NamedTuple):
    """All that a claim is judged by."""

    train: DataFrame  # with the columns of group_runs
    bench: DataFrame
    weights: Weights


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
    if keys := _differing(configs, ("seed", *QUANTIZER_OPTIONS, *allowed)):
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
    differences = _paired(ours, theirs)
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


def operation_reduction(evidence: Evidence, scheme: str, channels: int) -> Measured:
    """Arithmetic reduction by `table` of the trained [3, 3, channels, channels] layers: mean of a run, then of runs."""
    table = operations_table(_main_weights(evidence, scheme, channels))
    per_run = table[table["way"] == "table"].groupby("name")["reduction"].mean()
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


def bench_reduction(evidence: Evidence, scheme: str, channels: int) -> Measured:
    """Fewest operations of `table` on a benchmark's random [3, 3, channels, channels] codes: an exact count."""
    timings = _table_timings(evidence, scheme)
    timings = timings[(timings["K"] == channels) & (timings["C"] == channels)]
    if timings.empty:
        raise MissingRecord(f"a benchmark of a [3, 3, {channels}, {channels}] layer of {scheme}")
    first = timings.iloc[0]
    return Measured(float(first["best_reduction"]), 0.0, 1, (first["name"],))


def bench_speedup(evidence: Evidence, scheme: str, over: str, over_encoding: str = "two_group") -> Measured:
    """Summed latency of a benchmark's layers, another scheme's over this one's, both by `table`; over its rounds."""
    ours, theirs = _table_timings(evidence, scheme), _table_timings(evidence, over, over_encoding)
    if set(ours["layer"]) != set(theirs["layer"]):
        raise MissingRecord(f"a benchmark of {scheme} and {over} on the same layers")
    ratio = sum(_rounds(theirs).values()) / sum(_rounds(ours).values())
    noisy = int(ours["flagged"].sum() + theirs["flagged"].sum())
    remark = f"{noisy} of {len(ours) + len(theirs)} timings noisy" if noisy else ""
    return Measured(*interval(ratio), len(ratio), (ours["name"].iloc[0],), remark)


def _table_timings(evidence: Evidence, scheme: str, encoding: str = "two_group") -> DataFrame:
    """Timings of `table` on a scheme, zeros skipped, in the main benchmark: ResNet-18's layers, named "layers"."""
    bench = evidence.bench
    if not bench.empty:
        bench = bench[(bench["name"] == "layers") & (bench["shapes"] == "resnet18") & (bench["contender"] == "table")]
        bench = bench[(bench["scheme"] == scheme) & (bench["encoding"] == encoding) & bench["skip_zeros"].astype(bool)]
    if bench.empty:
        raise MissingRecord(f'a benchmark named "layers" of resnet18 shapes with {scheme}, {encoding}')
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
