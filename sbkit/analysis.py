"""Records into tables: means with intervals, ratios, the Pareto front.

Torch-free. A table is a tidy DataFrame with units in its column names; `sbkit.plots` draws it and the notebooks save it
as CSV beside the figure. `train` and `bench` are frames of `sbkit.records.read`; `weights` is what `run_weights` finds.

Runs that differ in nothing but the seed form one group, named after their files: `signed_binary-s0` and
`signed_binary-s1` are the group `signed_binary`. Every interval is a two-sided 95 % t-interval of the mean over a
group's seeds (or over a benchmark's rounds) and is NaN for n = 1.
"""

from __future__ import annotations

import functools
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame

from sbkit import records, repetition
from sbkit.conv import (
    RESNET18_SHAPES,
    RESNET20_SHAPES,
    RESNET32_SHAPES,
    RESNET34_SHAPES,
    QuantizedWeight,
    load_weights,
    mixes_signs,
)

# The fields of QuantizerConfig: a recipe is everything else but the seed. (quantizers.py needs torch; a test compares.)
QUANTIZER_OPTIONS = (
    "quantizer",
    "estimator",
    "scale",
    "threshold",
    "delta_factor",
    "delta_axis",
    "region_channels",
    "region_taps",
    "codebook_bits",
    "codebook",
    "positive_fraction",
    "assignment",
    "swap_at",
    "channel_signs",
    "standardize",
)

Weights = Mapping[str, Mapping[str, QuantizedWeight]]


class Evidence(NamedTuple):
    """All that a claim or a question is judged by."""

    train: DataFrame  # with the columns of group_runs
    bench: DataFrame
    weights: Weights


# Statistics


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % t-interval; the half width is NaN for n = 1."""
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take a second to import

    values = np.asarray(list(values), float)
    if values.size == 0:
        raise ValueError("the interval of no values; allowed: at least one")
    if values.size == 1:
        return float(values[0]), math.nan
    return float(values.mean()), float(stdtrit(values.size - 1, 0.975) * values.std(ddof=1) / math.sqrt(values.size))


def shown(mean: float, half_width: float, n: int, digits: int = 2) -> str:
    """`87.10 ± 0.40 (n=3)`; of one value `87.10 (n=1)`, or `87.10 (exact)` where it has no spread (half width 0)."""
    if n == 1:
        return f"{mean:.{digits}f} ({'exact' if half_width == 0 else 'n=1'})"
    return f"{mean:.{digits}f} ± {half_width:.{digits}f} (n={n})"


def beyond(mean: float, half_width: float, neutral: float = 0.0) -> int:
    """The side of `neutral` on which the whole interval lies, +1 or -1; 0 where it holds `neutral` or is not known."""
    return int(mean - half_width > neutral) - int(mean + half_width < neutral)


# Training runs


def differing_options(configs: Iterable[Mapping[str, Any]], ignored: Iterable[str] = ("seed",)) -> list[str]:
    """Keys whose values (absence being one) are not all equal."""
    configs = list(configs)
    keys = {key for config in configs for key in config} - set(ignored)
    return sorted(key for key in keys if len({repr(config.get(key)) for config in configs}) > 1)


def same_recipe(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two configs differ in the seed and the quantizer's options alone."""
    return not differing_options([ours, theirs], ("seed", *QUANTIZER_OPTIONS))


def changed_options(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Options but the seed that two configs set differently, where absence counts as a value.

    Of two quantizers the options that only one of them has are its own and do not count.
    """
    own = (ours.keys() ^ theirs.keys()) & set(QUANTIZER_OPTIONS) if ours["quantizer"] != theirs["quantizer"] else ()
    return differing_options([ours, theirs], ("seed", *own))


def group_runs(train: DataFrame) -> DataFrame:
    """The frame with the columns `label` and `config` (the record's own dict) added, sorted by label and seed.

    Raises ValueError where one label holds two configs, naming the keys that differ, or one seed twice.
    """
    if train.empty:
        return train.assign(label=[], config=[])
    runs = train.assign(
        label=[records.run_label(name) for name in train["name"]],
        config=[records.load(path).config for path in train["path"]],
    ).sort_values(["label", "seed"], kind="stable", ignore_index=True)
    for label, group in runs.groupby("label"):
        if keys := differing_options(group["config"]):
            raise ValueError(f"runs {', '.join(group['name'])} share the label {label} but differ in {', '.join(keys)}")
        if group["seed"].duplicated().any():
            raise ValueError(f"runs {', '.join(group['name'])} of {label} repeat a seed: {group['seed'].tolist()}")
    return runs


def without_ablations(train: DataFrame) -> DataFrame:
    """The runs that compare schemes.

    Left out are those named `ablate_<what>`, which vary one scheme, and `review_<what>`, which answer a reviewer.
    """
    return train[~train["name"].str.startswith(("ablate_", "review_"))]


def without_reviews(train: DataFrame) -> DataFrame:
    """The runs that compare schemes or vary one: all but those named `review_<what>`, which answer a reviewer."""
    return train[~train["name"].str.startswith("review_")]


def scheme_runs(train: DataFrame) -> DataFrame:
    """The runs named after their quantizer: each scheme in its plain form, as the paper describes it.

    All runs of a profile that has none such, as that of a person who plays, or has only benchmarks.
    """
    if train.empty:
        return train
    plain = train[train["name"].map(records.run_label) == train["quantizer"]]
    return train if plain.empty else plain


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
    """One row per group: top-1 mean, 95 % half width, extremes, and the density and size of its models.

    `effectual_weights` are the non-zero ones of the quantized layers, mean over runs; `total_parameters` all that the
    network trains, layers in full precision included.
    """
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
                "total_parameters": group["total_parameters"].iloc[0],
                "weight_bits": group["weight_bits"].iloc[0],
            }
        )
    return DataFrame(rows)


def paired_table(train: DataFrame, baseline: str = "binary") -> DataFrame:
    """Top-1 of each group minus that of `baseline` with the same seed, over the seeds that both have.

    `differs` lists the `changed_options`: a difference has one cause only if it names one. `total_ratio` is the number
    of parameters over the baseline's, `effectual_ratio` that of effectual weights.
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
        differences = paired_differences(group, groups[baseline])
        if not len(differences):
            continue
        base = groups[baseline]
        mean, half_width = interval(differences)
        rows.append(
            {
                "label": label,
                "baseline": baseline,
                "n": len(differences),
                "difference": shown(mean, half_width, len(differences)),
                "difference_mean_points": mean,
                "difference_half_width_points": half_width,
                "total_ratio": group["total_parameters"].iloc[0] / base["total_parameters"].iloc[0],
                "effectual_ratio": group["effectual_weights"].mean() / base["effectual_weights"].mean(),
                "differs": ", ".join(changed_options(group["config"].iloc[0], base["config"].iloc[0])),
            }
        )
    return DataFrame(rows)


def paired_differences(group: DataFrame, baseline: DataFrame, metric: str = "top1_percent") -> np.ndarray:
    ours, theirs = (frame.set_index("seed")[metric] for frame in (group, baseline))
    return (ours - theirs).dropna().to_numpy(float)


def learning_rate_table(train: DataFrame) -> DataFrame:
    """Top-1 by learning rate: a row per design and seed that was trained at several, a column per rate.

    A design is all options but the rate. `best` is the rate of its highest top-1. Empty where no design has two.
    """
    runs = group_runs(train)
    searched: dict[str, list] = {}
    for run in runs.itertuples():
        searched.setdefault(json.dumps(run.config | {"learning_rate": None}, sort_keys=True), []).append(run)
    found = [group for group in searched.values() if len(group) > 1]
    if not found:
        return DataFrame()
    shown = ("quantizer", "region_channels", "region_taps", "optimizer", "weight_decay", "precision", "batch_size")
    rates = sorted({run.learning_rate for group in found for run in group})
    rows = []
    for group in found:
        top1 = {run.learning_rate: run.top1_percent for run in group}
        config = group[0].config
        rows.append(
            {name: config.get(name) for name in (*shown, "epochs", "seed")}
            | {f"{rate:g}": top1.get(rate, math.nan) for rate in rates}
            | {"best": max(top1, key=top1.get)}
        )
    return DataFrame(rows).dropna(axis="columns", how="all")


def size_reading(train: DataFrame) -> str:
    """A sentence: signed binary against the binary network nearest in total, and the one nearest in effectual weights.

    Raises KeyError without runs of both.
    """
    groups = dict(list(group_runs(train).groupby("label")))
    ours = groups["signed_binary"]
    binary = [group for group in groups.values() if group["quantizer"].iloc[0] == "binary"]
    rivals = [group for group in binary if "codebook_bits" not in group["config"].iloc[0]]
    parts = []
    for size, column in (("total parameters", "total_parameters"), ("effectual weights", "effectual_weights")):
        rival = min(rivals, key=lambda group: abs(math.log(group[column].mean() / ours[column].mean())))
        differences = paired_differences(ours, rival)
        mean, half_width = interval(differences)
        found = {1: "more accurate", -1: "less accurate", 0: "not told apart"}[beyond(mean, half_width)]
        name = rival["label"].iloc[0].replace("_", " ")
        parts.append(
            f"has {ours[column].mean() / rival[column].mean():.2f} times the {size} of {name} and is {found} "
            f"({shown(mean, half_width, len(differences))} points)"
        )
    return f"Signed binary {'; it '.join(parts)}."


# The options that each question is about, in the order in which tables show them. Which of Tables 3 and 5 is about the
# estimator and which about the threshold is not known, nor that they are. A run belongs to the last question that one
# of the options it changes belongs to: regions are assigned at random, but are no test of the assignment.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "assignment and split (Tables 2, 4)": ("positive_fraction", "assignment", "swap_at"),
    "estimator (Tables 3, 5?)": ("estimator", "standardize"),
    "threshold (Tables 3, 5?)": ("threshold", "delta_factor", "delta_axis"),
    "non-linearity": ("nonlinearity",),
    "regularisation": ("l1", "weight_decay"),
    "scale": ("scale",),
    "distillation": ("distill_from",),
    "regions and signs (beyond the paper)": ("region_channels", "region_taps", "channel_signs"),
    "pattern codebooks (beyond the paper)": ("codebook_bits", "codebook"),
    "arithmetic of training": ("precision",),
}
OTHER = "other options"


def _question(options: Iterable[str]) -> str:
    options = set(options)
    return ([OTHER] + [question for question, own in QUESTIONS.items() if options & set(own)])[-1]


def ablation_table(train: DataFrame, baseline: str = "signed_binary") -> DataFrame:
    """`paired_table` of the baseline's quantizer by question, the best first: what one change of the design is worth.

    Runs named `review_<what>` are left out. `setting` is what the run sets otherwise, `density` the mean of its models.
    Empty where nothing was changed, or where no run is the baseline.
    """
    runs = group_runs(without_reviews(train))
    if baseline not in set(runs["label"]):
        return DataFrame()
    runs = runs[runs["quantizer"] == runs.loc[runs["label"] == baseline, "quantizer"].max()]
    table = paired_table(runs.drop(columns=["label", "config"]), baseline)
    if table.empty:
        return table
    configs = runs.drop_duplicates("label").set_index("label")["config"]
    density = runs.groupby("label")["density"].mean()
    table = table.assign(
        quantizer=runs["quantizer"].iloc[0],
        question=table["differs"].str.split(", ").map(_question),
        setting=[
            ", ".join(f"{option} = {configs[row.label].get(option, 'default')}" for option in row.differs.split(", "))
            for row in table.itertuples()
        ],
        density=table["label"].map(density),
    )
    order = {question: place for place, question in enumerate([*QUESTIONS, OTHER])}
    table = table.sort_values("difference_mean_points", ascending=False, kind="stable")
    table = table.sort_values("question", key=lambda column: column.map(order), kind="stable", ignore_index=True)
    first = ["question", "label", "quantizer", "setting"]
    return table[first + [column for column in table if column not in first]]


# By family the group that it starts from and the options of which its members change some, and nothing else.
_DENSITY_FAMILIES = {
    "threshold": ("signed_binary", QUESTIONS["threshold (Tables 3, 5?)"]),
    "threshold, learned signs": ("signed_binary_learned", ("delta_factor",)),
    "L1": ("signed_binary", ("l1",)),
    "weight decay": ("signed_binary", ("weight_decay",)),
}


def density_accuracy_table(train: DataFrame) -> DataFrame:
    """Density and top-1 of signed-binary designs and of the groups that change their threshold or regularisation alone.

    One row per group and family, the family's start in it if it has another member; means and 95 % half widths over
    seeds, densest last.
    """
    groups = dict(list(group_runs(without_reviews(train)).groupby("label")))
    rows = []
    for family, (start, options) in _DENSITY_FAMILIES.items():
        members = []
        for group in groups.values() if start in groups else ():
            changed = changed_options(group["config"].iloc[0], groups[start]["config"].iloc[0])
            members += [group] if set(changed) <= set(options) else []
        for group in members if len(members) > 1 else ():
            spread = {name: interval(group[name]) for name in ("density", "top1_percent")}
            rows.append(
                {"family": family, "label": group["label"].iloc[0], "quantizer": group["quantizer"].iloc[0]}
                | {"n": len(group), "density": spread["density"][0], "density_half_width": spread["density"][1]}
                | {"top1_mean_percent": spread["top1_percent"][0]}
                | {"top1_half_width_percent": spread["top1_percent"][1]}
            )
    return DataFrame(rows).sort_values(["family", "density"], ignore_index=True) if rows else DataFrame()


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
    return table[columns].assign(front=front).sort_values("effectual_weights", kind="stable", ignore_index=True)


NETWORKS = {
    "resnet18": RESNET18_SHAPES,
    "resnet34": RESNET34_SHAPES,
    "resnet20": RESNET20_SHAPES,
    "resnet32": RESNET32_SHAPES,
}
"""By model, the quantized layers of the published networks."""


def anchors_table(path: str | Path) -> DataFrame:
    """Published accuracies of anchors.toml against the effectual weights of their networks' quantized layers.

    `bound` marks those whose source states no density: they have at most that many.
    Raises ValueError naming an anchor whose network is not one of NETWORKS.
    """
    rows = []
    for anchor in tomllib.loads(Path(path).read_text(encoding="utf-8"))["anchor"]:
        if anchor["network"] not in NETWORKS:
            raise ValueError(f"network = {anchor['network']!r} of {anchor['method']}; allowed: {', '.join(NETWORKS)}")
        weights = sum(shape.weights for shape in NETWORKS[anchor["network"]])
        rows.append(
            {key: anchor[key] for key in ("data", "network", "method", "scheme")}
            | {"top1_percent": anchor.get("top1_percent", 100 - anchor.get("error_percent", math.nan))}
            | {"quantized_weights": weights, "density": anchor.get("density", math.nan)}
            | {"effectual_weights": weights * anchor.get("density", 1.0), "bound": "density" not in anchor}
            | {key: anchor[key] for key in ("setting", "source")}
        )
    return DataFrame(rows)


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


PARTS = ("all", "effectual", "ineffectual")


def _layers_in_order(column: pd.Series) -> pd.Series:
    """Key of a sort by columns: numbers within the names of layers count as such, so that VGG's 3 precedes its 10."""
    if column.name != "layer":
        return column
    return column.str.replace(r"\d+", lambda number: number[0].zfill(4), regex=True)


def _latent_fits(latent: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Bins and fits of `latent_bins` and `latent_fits`; one row of fits for each run of bins."""
    keys = ["label", "quantizer", "seed", "layer"]
    sums = latent.groupby([*keys, "left", "right"], sort=False, as_index=False)[["count", "effectual"]].sum()
    wide = pd.concat([latent, sums.assign(region="both")], ignore_index=True).rename(columns={"count": "all"})
    wide["ineffectual"] = wide["all"] - wide["effectual"]
    keys += ["region"]
    bins = wide.melt([*keys, "left", "right"], PARTS, "part", "count")
    keys += ["part"]
    bins = bins[bins.groupby(keys)["count"].transform("sum") > 0]
    bins = bins.sort_values([*keys, "left"], key=_layers_in_order, kind="stable", ignore_index=True)
    fits = bins[keys].drop_duplicates().reset_index(drop=True)
    shape = (len(fits), len(bins) // max(len(fits), 1))
    left, right, counts = (bins[name].to_numpy(float).reshape(shape) for name in ("left", "right", "count"))
    weights = counts.sum(axis=1)
    middle = (left + right) / 2
    mean = (counts * middle).sum(axis=1) / weights
    fits["weights"] = weights.astype(int)
    fits["mean"] = mean
    fits["std"] = np.sqrt((counts * (middle - mean[:, None]) ** 2).sum(axis=1) / weights)
    below = counts.cumsum(axis=1) / weights[:, None]
    for family in _CDF:
        probability, likelihood = _maximum_likelihood(counts, np.column_stack([left, right[:, -1:]]), family)
        bins[family] = (probability * weights[:, None]).ravel()
        fits[f"ks_{family}"] = np.abs(probability.cumsum(axis=1) - below).max(axis=1)
        fits[f"likelihood_{family}"] = likelihood / weights
    fits["difference"] = fits.pop("likelihood_gaussian") - fits.pop("likelihood_laplacian")
    return bins, fits[(counts > 0).sum(axis=1) >= 3].reset_index(drop=True)


def _gaussian_cdf(z: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return ndtr(z)


def _laplacian_cdf(z: np.ndarray) -> np.ndarray:
    tail = np.exp(-np.abs(z)) / 2
    return np.where(z < 0, tail, 1 - tail)


_CDF = {"gaussian": _gaussian_cdf, "laplacian": _laplacian_cdf}  # of location 0 and scale 1


def _maximum_likelihood(counts: np.ndarray, edges: np.ndarray, family: str) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each bin (fits, bins), the outermost being open, and log-likelihood in nats (fits,) of a family.

    Location and log scale climb in steps that halve where none of the eight neighbours is better: the likelihood of
    binned data has one maximum in both families, whose densities are log-concave.
    """

    def probabilities(location: np.ndarray, scale: np.ndarray) -> np.ndarray:
        z = (edges - location[..., None]) / scale[..., None]
        z[..., 0], z[..., -1] = -np.inf, np.inf
        left, right = z[..., :-1], z[..., 1:]
        mirrored = left > 0  # both families are symmetric, and the lower tail keeps its digits
        cdf = _CDF[family]
        found = cdf(np.where(mirrored, -left, right)) - cdf(np.where(mirrored, -right, left))
        return np.maximum(found, 1e-300)

    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    weights = counts.sum(axis=1)
    location = (counts * middle).sum(axis=1) / weights
    scale = (
        np.sqrt((counts * (middle - location[:, None]) ** 2).sum(axis=1) / weights) + np.diff(edges).mean(axis=1) / 9
    )
    step = np.full(len(counts), 0.5)
    moves = np.array([(0, 0), *((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b)], float)[:, :, None]
    for _ in range(40):
        locations, scales = location + scale * step * moves[:, 0], scale * np.exp(step * moves[:, 1])
        likelihood = (counts * np.log(probabilities(locations, scales))).sum(axis=-1)
        best = likelihood.argmax(axis=0), np.arange(len(counts))
        step = np.where(best[0] == 0, step / 2, step)
        location, scale = locations[best], scales[best]
    found = probabilities(location, scale)
    return found, (counts * np.log(found)).sum(axis=1)


def latent_bins(latent: DataFrame) -> DataFrame:
    """The histograms of `latent_table` in parts, each bin beside what a fitted Gaussian and Laplacian would hold.

    One row per run, layer, region (`positive`, `negative` or `both` together), part (`all` weights, the `effectual` or
    the `ineffectual` ones) and bin. `gaussian` and `laplacian` are the numbers of weights that the distribution of the
    largest likelihood, given the counts, expects in the bin.
    """
    return _latent_fits(latent)[0]


def latent_fits(latent: DataFrame) -> DataFrame:
    """How well a Gaussian and a Laplacian fit, over all runs: a row per group, layer, region and part of `latent_bins`.

    n runs of `weights` weights in the mean; `mean` and `std` of a weight with the mean's half width over runs; largest
    distance of each fitted distribution function from the counts' at a bin's edge (Kolmogorov-Smirnov); and
    `difference`, log-likelihood of the Gaussian minus that of the Laplacian, nats per weight. `better` is the family
    that the interval of the difference favours. Parts with fewer than three occupied bins are left out.
    """
    fits = _latent_fits(latent)[1]
    rows = []
    for keys, runs in fits.groupby(["label", "quantizer", "layer", "region", "part"], sort=False):
        mean, mean_half = interval(runs["mean"])
        difference, half = interval(runs["difference"])
        rows.append(
            dict(zip(("label", "quantizer", "layer", "region", "part"), keys, strict=True))
            | {"n": len(runs), "weights": runs["weights"].mean()}
            | {"mean": mean, "mean_half_width": mean_half, "std": runs["std"].mean()}
            | {"ks_gaussian": runs["ks_gaussian"].mean(), "ks_laplacian": runs["ks_laplacian"].mean()}
            | {"difference": difference, "difference_half_width": half}
            | {"better": {1: "Gaussian", -1: "Laplacian", 0: "undecided"}[beyond(difference, half)]}
        )
    return DataFrame(rows)


def latent_reading(fits: DataFrame) -> str:
    """Whether the paper's statement on latent weights holds in the layers of `latent_fits`, in words."""
    n = fits["n"].min()
    together = {part: fits[(fits["region"] == "both") & (fits["part"] == part)] for part in PARTS}
    regions = fits[(fits["region"] != "both") & (fits["part"] == "all")]
    off_zero = [beyond(row.mean, row.mean_half_width) != 0 for row in regions.itertuples()]
    statements = {
        "the effectual weights of both regions together are nearer a Laplacian in": (
            together["effectual"]["better"] == "Laplacian",
            together["effectual"]["ks_laplacian"],
        ),
        "the ineffectual ones nearer a Gaussian in": (
            together["ineffectual"]["better"] == "Gaussian",
            together["ineffectual"]["ks_gaussian"],
        ),
        "a single region has a mean other than zero in": (np.array(off_zero), None),
        "and is not Laplacian but nearer a Gaussian in": (regions["better"] == "Gaussian", regions["ks_gaussian"]),
    }
    parts = []
    for text, (holds, distance) in statements.items():
        off = "" if distance is None else f" (distance {distance.median():.2f})"
        parts.append(f"{text} {int(holds.sum())} of {len(holds)}{off}")
    shares = [holds.mean() for holds, _ in statements.values()]
    verdict = "holds" if min(shares) == 1 else "does not hold" if max(shares) == 0 else "holds in part"
    return f"Over {n} runs the paper's statement {verdict}: {', '.join(parts)}."


# Codes


class _WeightFiles(Mapping):
    """Files of codes by run name, each read when it is first asked for."""

    def __init__(self, files: dict[str, Path]):
        self._files = files
        self._read = functools.cache(load_weights)

    def __getitem__(self, name: str) -> dict[str, QuantizedWeight]:
        return self._read(self._files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def run_weights(train: DataFrame) -> Mapping[str, dict[str, QuantizedWeight]]:
    """Codes of the runs that left any, by run name: `weights/<name>.npz` beside the folder of records."""
    files = {
        name: Path(path).parents[2] / "weights" / f"{name}.npz"
        for name, path in zip(train["name"], train["path"], strict=True)
    }
    return _WeightFiles({name: file for name, file in files.items() if file.is_file()})


def _layers(weights: Weights) -> Iterable[tuple[dict[str, Any], QuantizedWeight]]:
    for name, layers in weights.items():
        for depth, (layer, weight) in enumerate(layers.items(), start=1):
            K, C, R, S = weight.codes.shape
            yield (
                {
                    "name": name,
                    "label": records.run_label(name),
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


PAPER_UNIQUE = {"binary": 512, "signed_binary": 1024, "ternary_twn": 19683}
"""By scheme, the distinct 3x3 filters that the paper counts on in a [3, 3, 256, 256] layer."""


def shuffled(layers: Mapping[str, QuantizedWeight], seed: int = 0) -> dict[str, QuantizedWeight]:
    """The codes with those of each filter in a random order: no density and no sign of a filter changes."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, weight in layers.items():
        filters = generator.permuted(weight.codes.reshape(len(weight.codes), -1), axis=1)
        found[name] = replace(weight, codes=filters.reshape(weight.codes.shape))
    return found


def _redrawn(layers: Mapping[str, QuantizedWeight], seed: int = 0) -> dict[str, QuantizedWeight]:
    """Random codes of the same scheme, shape and density."""
    generator = np.random.default_rng(seed)
    return {
        name: repetition.random_codes(weight.scheme, weight.codes.shape, weight.density, generator)
        for name, weight in layers.items()
    }


def origins_table(weights: Weights) -> DataFrame:
    """`unique_table` of trained codes, of random ones of the same density, and of the trained ones shuffled.

    `codes` says which. Shuffling is within each filter. `paper` is the paper's number of distinct filters, which it
    gives for [3, 3, 256, 256] layers; for each of its schemes that has weights a layer of that size with random codes
    of their mean density comes last.
    """
    made = {"trained": weights}
    made |= {
        codes: {name: remake(layers, seed) for seed, (name, layers) in enumerate(weights.items())}
        for codes, remake in (("random", _redrawn), ("shuffled", shuffled))
    }
    tables = [unique_table(found).assign(codes=codes) for codes, found in made.items()]
    densities = tables[0].groupby("scheme")["density"].mean() if len(tables[0]) else {}
    for scheme in [scheme for scheme in PAPER_UNIQUE if scheme in densities]:
        codes = repetition.random_codes(scheme, (256, 256, 3, 3), densities[scheme], np.random.default_rng(0))
        tables.append(unique_table({scheme: {"random": codes}}).assign(codes="random", paper=PAPER_UNIQUE[scheme]))
    return pd.concat(tables, ignore_index=True)


def spectrum(weight: QuantizedWeight) -> tuple[float, float]:
    """(leading share, effective rank) of a layer's weights as a matrix W, a row per filter.

    With the singular values s_i of W and p_i = s_i^2 / sum s^2: max p, the share of what all filters have in common (a
    filter of a layer whose filters are all copies of one has 1), and exp(entropy of p) over the number of singular
    values, 1 where all are equal (Roy and Vetterli, EUSIPCO 2007). Channel signs change neither.
    """
    squares = np.linalg.svd(weight.dense().reshape(len(weight.codes), -1).astype(float), compute_uv=False) ** 2
    if not squares.any():
        return math.nan, 0.0
    p = squares[squares > 0] / squares.sum()
    return float(p.max()), float(np.exp(-(p * np.log(p)).sum()) / len(squares))


def imbalance(weight: QuantizedWeight) -> float:
    """|sum of w| over sqrt(sum of w^2), the mean over a layer's filters that are not all zero; NaN if all are.

    It is the mean of a filter's output over its standard deviation, for independent inputs whose own mean and standard
    deviation are equal: about 0.8 for weights of random signs, the root of their number for n weights of one sign.
    """
    w = weight.dense().reshape(len(weight.codes), -1).astype(float)
    w = w[w.any(axis=1)]
    return float(np.mean(np.abs(w.sum(1)) / np.sqrt((w**2).sum(1)))) if len(w) else math.nan


def common_mode_table(train: DataFrame, weights: Weights, baseline: str = "binary") -> DataFrame:
    """What the filters of a layer have in common, beside the accuracy: a row per group of quantized runs.

    `leading_share` and `effective_rank` are `spectrum` and `imbalance` is that of a filter's outputs, means over a
    run's layers; `flips_percent` of the codes changed in the last epoch; `signal_percent` of a gradient's squared norm
    is common to the batches of an epoch, mean over all epochs (left out where no record says it). Means and 95 % half
    widths over seeds, the smallest share first. Of groups with codes those that differ from the baseline in the
    quantizer's options alone; empty without the baseline.
    """
    runs = group_runs(train)
    base = runs[runs["label"] == baseline]
    rows = []
    for label, group in runs.groupby("label") if len(base) else ():
        group = group[group["name"].isin(list(weights))]
        if group.empty or not same_recipe(group["config"].iloc[0], base["config"].iloc[0]):
            continue
        layers = [weights[name].values() for name in group["name"]]
        spectra = np.array([np.nanmean([(*spectrum(w), imbalance(w)) for w in run], 0) for run in layers])
        histories = [records.load(path).history["epochs"] for path in group["path"]]
        epochs = [DataFrame(epochs, columns=["flip_fraction", "gradient_signal"], dtype=float) for epochs in histories]
        row = {"label": label, "quantizer": group["quantizer"].iloc[0], "n": len(group)}
        measured = {
            "leading_share": spectra[:, 0],
            "effective_rank": spectra[:, 1],
            "imbalance": spectra[:, 2],
            "flips_percent": [100 * run["flip_fraction"].iloc[-1] for run in epochs],
            "signal_percent": [100 * run["gradient_signal"].mean() for run in epochs],
            "density": group["density"],
            "top1_percent": group["top1_percent"],
        }
        if np.isnan(measured["signal_percent"]).all():
            del measured["signal_percent"]
        for name, values in measured.items():
            row[name], row[f"{name}_half_width"] = interval(values)
        rows.append(row)
    return DataFrame(rows).sort_values("leading_share", kind="stable", ignore_index=True) if rows else DataFrame()


def repetition_table(origins: DataFrame) -> DataFrame:
    """`origins_table` by scheme and layer size: distinct filters, mean and 95 % interval over runs.

    A run's number is the mean of its layers of that size. `bound` is how many the scheme can tell apart, which makes
    `least_repetition` the fewest times that a filter occurs on average; `over_random` and `over_shuffled` are the
    trained number over the others of the same run. Below 1, training has made filters repeat.
    """
    rows = []
    for (scheme, filters), found in origins.groupby(["scheme", "filters"], sort=True):
        unique = found.groupby(["codes", "name"])["unique"].mean().unstack(0)
        bound = found["bound"].iloc[0]
        row = {"scheme": scheme, "filters": filters, "bound": bound, "least_repetition": filters / bound}
        row |= {"paper": found["paper"].max() if "paper" in found else math.nan, "n": len(unique)}
        for codes in ("trained", "random", "shuffled"):
            row[codes] = shown(*interval(unique[codes]), len(unique), 1) if codes in unique else math.nan
        for codes in ("random", "shuffled"):
            ratio = interval(unique["trained"] / unique[codes]) if "trained" in unique else (math.nan, math.nan)
            row |= {f"over_{codes}": ratio[0], f"over_{codes}_half_width": ratio[1]}
        rows.append(row)
    return DataFrame(rows)


def repetition_reading(origins: DataFrame, scheme: str = "binary") -> str:
    """Whether training makes the 3x3 filters of a scheme's networks repeat, in words."""
    ours = origins[(origins["scheme"] == scheme) & origins["paper"].isna()]
    largest = ours["filters"].max()
    parts = []
    for size, layers in (("all layers", ours), (f"the largest layers ({largest:,})", ours[ours["filters"] == largest])):
        sums = layers.groupby(["codes", "name"])["unique"].sum().unstack(0)
        ratios = {codes: interval(sums["trained"] / sums[codes]) for codes in ("random", "shuffled")}
        sides = {beyond(*ratio, 1.0) for ratio in ratios.values()}
        found = {(-1,): "fewer than either", (1,): "more than either"}.get(tuple(sides), "not fewer than both")
        texts = [f"{shown(*ratio, len(sums))} times those of {codes} ones" for codes, ratio in ratios.items()]
        parts.append(f"in {size} {' and '.join(texts)}, {found}")
    return f"Distinct 3x3 filters of trained {scheme.replace('_', ' ')} codes: {'; '.join(parts)}."


# The paper's toy example: two latent filters over six inputs, quantized by each scheme. Signed binary's first filter
# takes {0,+1}, its second {0,-1}; its graph is the one the paper prints.
TOY_FILTERS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "binary": ((+1, -1, +1, -1, +1, -1), (-1, -1, -1, +1, -1, +1)),
    "ternary_twn": ((+1, -1, +1, 0, +1, -1), (-1, -1, -1, +1, 0, 0)),
    "signed_binary": ((+1, 0, +1, 0, +1, 0), (-1, -1, -1, 0, 0, 0)),
}


def graphs_table(filters: Mapping[str, Iterable[tuple[int, ...]]] = TOY_FILTERS) -> DataFrame:
    """Data-flow graphs of small filters: one row per scheme and input, shared sum or output.

    `parts` are what a sum adds and subtracts, "+ac -e"; a sum is named by its inputs. `codes` are an output's filter.
    `adds` counts the graph's additions and subtractions of two values (a sum of n values takes n - 1, where the
    kernels' accumulators start at zero and take n).
    """
    rows = []
    for scheme, codes in filters.items():
        inputs = len(next(iter(codes)))
        names = [chr(ord("a") + i) for i in range(inputs)]
        sets = [[i for i, code in enumerate(row) if code == sign] for row in codes for sign in (1, -1)]
        graph = repetition.dataflow_graph(sets, inputs)
        found = [{"kind": "input", "name": name, "parts": "", "codes": ""} for name in names]
        for first, second in graph.nodes:
            parts = f"+{names[first]} +{names[second]}"
            names.append("".join(sorted(names[first] + names[second])))
            found.append({"kind": "sum", "name": names[-1], "parts": parts, "codes": ""})
        for number, row in enumerate(codes):
            plus, minus = graph.sums[2 * number : 2 * number + 2]
            parts = " ".join([f"+{names[value]}" for value in plus] + [f"-{names[value]}" for value in minus])
            shown_codes = " ".join("-0+"[code + 1] for code in row)
            found.append({"kind": "output", "name": f"y{number + 1}", "parts": parts, "codes": shown_codes})
        adds = sum(max(len(row["parts"].split()) - 1, 0) for row in found)
        rows += [{"scheme": scheme, "adds": adds} | row for row in found]
    return DataFrame(rows)


PAPER_TOY_ADDS = {"binary": 8, "signed_binary": 4, "ternary_twn": 6}
"""The additions that the paper counts in a toy example whose filters it does not give."""


def toy_adds_table(graphs: DataFrame) -> DataFrame:
    """Additions of each scheme's toy graph in `graphs_table`, without sharing, and as the paper counts its own toy."""
    rows = []
    for scheme, graph in graphs.groupby("scheme", sort=False):
        codes = graph.loc[graph["kind"] == "output", "codes"]
        apart = sum(len(re.findall(r"[-+]", row)) - 1 for row in codes)
        rows.append(
            {"scheme": scheme, "filters": " | ".join(codes), "adds_without_sharing": apart}
            | {"adds": graph["adds"].iloc[0], "paper": PAPER_TOY_ADDS.get(scheme, math.nan)}
        )
    return DataFrame(rows)


# Algorithm and options of each way to execute a layer.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "sparse": ("sparse", {}),
    "table": ("table", {}),
    "table, zeros kept": ("table", {"skip_zeros": False}),
    "table, rewritten": ("table", {"encoding": "rewritten"}),
    "table, signed": ("table", {"encoding": "signed"}),
    "dataflow": ("dataflow", {}),
    "dataflow, zeros kept": ("dataflow", {"skip_zeros": False}),
    "dataflow, rewritten": ("dataflow", {"encoding": "rewritten"}),
}

# Data-flow graphs of trained codes are built here in plain Python: of tiles of so many channels, in square layers of up
# to so many codes a tap (beyond, a benchmark's plans count).
_TILE = 4
_MOST_FOR_DATAFLOW = 64 * 64

# The paper's arithmetic reductions by (channels, scheme): Fig. 11 and the authors' replies.
PAPER_REDUCTIONS = {
    (64, "binary"): 5.3,
    (64, "signed_binary"): 6.65,
    (64, "ternary_twn"): 4.52,
    (512, "signed_binary"): 14.51,
    (512, "zero_one"): 14.61,
}


def _applies(way: str, weight: QuantizedWeight) -> bool:
    """Whether these codes can be executed in this way, and it is another than the plain one."""
    codes = weight.codes
    K, C = codes.shape[:2]
    if way.startswith("dataflow") and (K != C or K * C > _MOST_FOR_DATAFLOW):
        return False
    one_scale = np.array_equal(weight.scale, weight.negative_scale)
    if way.endswith("rewritten"):
        return bool(codes.all()) and one_scale
    if way.endswith("zeros kept"):
        return not codes.all()
    if way.endswith("signed"):
        return mixes_signs(codes) and one_scale
    return True


def _paper_reduction(scheme: str, channels: int, way: str) -> float:
    """The paper's reduction of a [3, 3, channels, channels] layer, NaN where it states none.

    It describes binary and ternary in two groups; whether its values skip zeros it does not say.
    """
    two_groups = way in ("table", "dataflow") or way.endswith("zeros kept")
    return PAPER_REDUCTIONS.get((channels, scheme), math.nan) if two_groups else math.nan


def operations_table(weights: Weights, ways: Iterable[str] = tuple(WAYS)) -> DataFrame:
    """Arithmetic reduction of each layer and each way to execute it, per output position (`repetition.operations`).

    `way` is a key of WAYS: an algorithm, with "zeros kept" the same without sparsity support, and for codes with both
    signs in a filter its other encodings. `group` is the table's G of fewest operations, or the channels of a tile of
    `dataflow`, which is counted in square layers of at most 64 channels alone. `paper` is the paper's reduction, where
    it names the layer and the way is not another encoding.
    """
    rows = []
    for row, weight in _layers(weights):
        square = row["C"] if row["K"] == row["C"] and (row["R"], row["S"]) == (3, 3) else 0
        for way in (way for way in ways if _applies(way, weight)):
            algorithm, options = WAYS[way]
            # `sparse` has no use of a group.
            group = repetition.best_group(weight, **options) if algorithm == "table" else _TILE
            counts = repetition.operations(weight, algorithm, group=group, **options)
            rows.append(
                row
                | {"way": way, "group": group, "adds": counts.adds, "multiplies": counts.multiplies}
                | {"reduction": 2 * weight.codes.size / counts.total if counts.total else math.inf}
                | {"paper": _paper_reduction(row["scheme"], square, way)}
            )
    return DataFrame(rows)


def reductions_table(operations: DataFrame, bench: DataFrame) -> DataFrame:
    """The paper's arithmetic reductions beside ours: a row per layer, scheme, encoding and origin of the codes.

    `codes` are random ones of the benchmark (the exact counts of its plans) or the trained ones of `operations` (the
    mean over layers and runs), where either has a layer of that shape.
    """
    keys, ways = ["C", "scheme", "codes"], ["dataflow", "dataflow, zeros kept", "table", "table, zeros kept"]
    found = []
    if not operations.empty:
        square = (operations["K"] == operations["C"]) & (operations["R"] == 3) & (operations["S"] == 3)
        found.append(operations[square].assign(codes="trained"))
    if not bench.empty:
        table = labelled(bench)
        way = table["label"].str.replace(r" \w+", "", n=1, regex=True)  # of "table binary, signed": "table, signed"
        random = table.assign(codes="random", way=way, reduction=table["best_reduction"])
        found.append(random[random["K"] == random["C"]])
    rows = []
    for (C, scheme, codes), counted in pd.concat(found).groupby(keys) if found else ():
        if (C, scheme) not in PAPER_REDUCTIONS:
            continue
        reduction = counted.groupby("way")["reduction"].mean()
        for encoding in repetition.ENCODINGS:
            of_encoding = [way if encoding == "two_group" else f"{way}, {encoding}" for way in ways]
            if set(of_encoding) & set(reduction.index):
                rows.append(
                    {"layer": f"[3, 3, {C}, {C}]", "scheme": scheme, "encoding": encoding, "codes": codes}
                    | {"density": counted["density"].mean(), "paper": PAPER_REDUCTIONS[C, scheme]}
                    | {way: reduction.get(name, math.nan) for way, name in zip(ways, of_encoding, strict=True)}
                )
    return DataFrame(rows, columns=["layer", "scheme", "encoding", "codes", "density", "paper", *ways])


def layer_reductions(bench: DataFrame) -> DataFrame:
    """Arithmetic reduction of every layer of a network, from a benchmark of the study of operations.

    A row per network, distinct layer and way, and in place of a layer "all" for those of the network together. `count`
    is how often the network has the layer. `paper` is the paper's value, where it names the layer and the way.
    Empty without such a benchmark.
    """
    if bench.empty:
        return DataFrame()
    table = labelled(bench).rename(columns={"shapes": "network", "contender": "algorithm"})
    table["dense"] = 2 * table["macs"] * table["count"]
    table["own"] = (table["adds"] + table["multiplies"]) * table["count"]
    way = ["label", "algorithm", "scheme", "encoding", "skip_zeros"]
    whole = table.groupby(["network", *way], sort=False, as_index=False)[["count", "dense", "own"]].sum()
    tables = []
    for network, layers in table.groupby("network", sort=False):
        tables += [layers, whole[whole["network"] == network].assign(layer="all", K=0, C=0)]
    found = pd.concat(tables, ignore_index=True)
    paper = [
        _paper_reduction(row.scheme, row.C if row.C == row.K else 0, re.sub(r" \w+", "", row.label, count=1))
        for row in found.itertuples()
    ]
    found = found.assign(reduction=found["dense"] / found["own"], paper=paper).astype({"count": int})
    return found[["network", "layer", "count", *way, "density", "reduction", "paper"]]


def layers_table(reductions: DataFrame) -> DataFrame:
    """`layer_reductions` for people: a row per network and layer, a column per way."""
    if reductions.empty:
        return reductions
    place = ["network", "layer", "count"]
    wide = reductions.pivot(index=place, columns="label", values="reduction")
    order = reductions[place].drop_duplicates().itertuples(index=False, name=None)
    return wide.loc[list(order), reductions["label"].unique()].reset_index().rename_axis(columns=None)


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

_PEERS = ("torch", "onnxruntime", "openvino")  # what a user would run instead
# What the absence of a column means: records of earlier versions lack some.
_ABSENT = {"study": "layers", "precision": "fp32", "regions": 0, "codebook_bits": 0, "model": "", "on_threads": 1}
_ABSENT |= dict.fromkeys(("bound_ms", "roofline_fraction", "entropy_bits"), math.nan)
_COUNTS = ("group", "regions", "codebook_bits", "on_threads", "weight_bytes", "adds", "multiplies")


def labelled(bench: DataFrame) -> DataFrame:
    """The timings with every column present, and `label`: `torch channels_last`, `table binary, rewritten`.

    Of timings that would share a label in one layer all but the first name their group: they were made to compare it.
    """
    table = bench.reset_index(drop=True)
    table = table.assign(**{key: table[key].fillna(value) if key in table else value for key, value in _ABSENT.items()})
    # Rows of other studies lack some columns, which makes floats of these counts.
    counts = [name for name in _COUNTS if name in table and table[name].notna().all()]
    table = table.astype(dict.fromkeys(counts, int))
    labels, seen = [], set()
    for row in table.itertuples():
        details = [f"{row.contender} {row.variant}"]
        if row.contender not in _PEERS:
            details += [row.encoding] if row.encoding != "two_group" else []
            details += [] if row.skip_zeros else ["zeros kept"]
            regions = "pattern" if row.scheme == "binary" else "sign"
            details += [f"{regions} per {row.regions:.0f} channels"] if row.regions else []
            details += [f"{row.codebook_bits:.0f}-bit codebook"] if row.codebook_bits else []
            details += [row.precision] if row.precision != "fp32" else []
        place = (row.name, row.layer, row.model, row.batch, row.density, row.on_threads)
        details += [f"G = {row.group}"] if (place, *details) in seen else []
        seen.add((place, *details))
        labels.append(", ".join(details))
    return table.assign(label=labels)


def newest(bench: DataFrame, study: str = "layers") -> DataFrame:
    """The timings of a study's benchmark that started last, of those on one thread; empty if there is none.

    A speed figure shows one run on one machine. Of networks it is the last benchmark of each network and batch, of
    operations that of each network; the study of threads has one thread and several in one benchmark.
    """
    if bench.empty:
        return bench
    studies = bench["study"].fillna("layers") if "study" in bench else "layers"
    found = bench[(studies == study) & ((bench["threads"] == 1) | (study == "threads"))]
    started = found["provenance_started_utc"]
    if study in ("network", "operations"):
        return found[started == started.groupby([found["shapes"], found["batch"]]).transform("max")]
    return found[started == started.max()]


_PLACE = ["name", "layer", "model", "batch"]  # what all contenders of one comparison share


def speed_table(bench: DataFrame) -> DataFrame:
    """One row per benchmark, layer and contender: latency, spread, dense-equivalent throughput.

    `reference` marks the layer's best fp32 torch, the faster of contiguous and channels_last, and `reference_fp32` the
    best of all that run it in fp32. Raises ValueError if the timings come from several machines.
    """
    table = labelled(records.one_machine(bench))
    peers = table["contender"].isin(_PEERS) & (table["precision"] == "fp32")
    best = _fastest(table[peers & (table["contender"] == "torch")])
    columns = [*_PLACE, "label", "contender", "scheme", "encoding", "skip_zeros", "regions", "group", "precision"]
    columns += ["threads", "density", "median_ms", "iqr_ms", "min_ms", "round_ms", "gmacs", "reduction"]
    columns += ["best_reduction", "weight_bytes", "plan_seconds", "bound_ms", "roofline_fraction", "flagged"]
    return table[columns].assign(
        reference=table.index.isin(best), reference_fp32=table.index.isin(_fastest(table[peers]))
    )


def _fastest(timings: DataFrame) -> pd.Index:
    """Index of the fastest timing of each place: what a person who knows them all would pick."""
    return pd.Index(timings.groupby(_PLACE, sort=False)["median_ms"].idxmin())


def speedup_table(bench: DataFrame) -> DataFrame:
    """Speed of each contender over the fastest of a set of references, layer by layer; 2 is twice as fast.

    One row per benchmark, reference (`over`), contender and layer, and two more in place of a layer: "all" for the sum
    of the layers' latencies, "geometric mean" for that of the layers' ratios, of a contender that ran on all layers.
    The mean and 95 % half width are over rounds, each round's ratio taken within the round.

    over  "best fp32 torch"; "best fp32 of all", ONNX Runtime and OpenVINO included, where the benchmark has them;
          "best binary", the fastest encoding of binary by `table`
    """
    table = speed_table(bench)
    rows = []
    for name, timings in table.groupby("name", sort=False):
        references = {"best fp32 torch": timings[timings["reference"]]}
        if set(timings["contender"]) & set(_PEERS[1:]):
            references["best fp32 of all"] = timings[timings["reference_fp32"]]
        binary = timings[(timings["contender"] == "table") & (timings["scheme"] == "binary")]
        references["best binary"] = timings.loc[_fastest(binary)]
        for over, reference in references.items():
            best = rounds_by_layer(reference)
            for _, contender in timings.groupby("label", sort=False):
                ours = rounds_by_layer(contender)
                if not ours.keys() <= best.keys():
                    continue
                ratios = {layer: best[layer] / ours[layer] for layer in ours}
                if ours.keys() == best.keys():
                    typical = np.exp(np.mean([np.log(ratio) for ratio in ratios.values()], axis=0))
                    ratios["all"] = sum(best.values()) / sum(ours.values())
                    ratios["geometric mean"] = typical
                first = contender.iloc[0]
                for layer, ratio in ratios.items():
                    mean, half_width = interval(ratio)
                    rows.append(
                        {
                            "name": name,
                            "over": over,
                            "layer": layer,
                            **{key: first[key] for key in ("label", "contender", "scheme", "precision")},
                            "n": len(ratio),
                            "speedup": mean,
                            "speedup_half_width": half_width,
                        }
                    )
    return DataFrame(rows)


def speedup_summary(speedup: DataFrame) -> DataFrame:
    """`speedup_table` for people: one row per contender and reference, a column per layer and way to sum up."""
    texts = speedup.assign(text=[shown(row.speedup, row.speedup_half_width, row.n) for row in speedup.itertuples()])
    layers = list(dict.fromkeys(speedup["layer"]))
    order = list(dict.fromkeys(zip(texts["over"], texts["label"], strict=True)))
    wide = texts.pivot(index=["over", "label"], columns="layer", values="text")
    return wide.loc[order, layers].reset_index().rename_axis(columns=None)


def rounds_by_layer(timings: DataFrame) -> dict[str, np.ndarray]:
    """Milliseconds of each round, by layer; every layer once."""
    return {layer: np.array(rounds) for layer, rounds in zip(timings["layer"], timings["round_ms"], strict=True)}


def threads_table(bench: DataFrame) -> DataFrame:
    """Speed of each contender on several threads over its own on one, in a benchmark of the study of threads.

    One row per contender, a column per layer and "all" for the sum of the layers' latencies: mean ± 95 % interval over
    rounds, each round's ratio taken within the round.
    """
    if bench.empty:
        return DataFrame()
    table = labelled(records.one_machine(bench))
    rows = []
    for label, timings in table.groupby("label", sort=False):
        one, several = (rounds_by_layer(timings[timings["on_threads"] == n]) for n in (1, timings["on_threads"].max()))
        ratios = {layer: one[layer] / several[layer] for layer in one}
        ratios["all"] = sum(one.values()) / sum(several.values())
        rows.append({"label": label} | {layer: shown(*interval(r), len(r)) for layer, r in ratios.items()})
    return DataFrame(rows)


def training_table(bench: DataFrame) -> DataFrame:
    """What a training step of each design costs over that of the same network in full precision.

    A row per network, precision and design: median milliseconds, images a second, and `overhead` in percent over full
    precision in the same arithmetic, mean and 95 % half width over rounds, each round's ratio taken within the round.
    `time` is that of the step over the one of full precision in fp32, likewise. Empty without a benchmark of training.
    """
    if bench.empty:
        return DataFrame()
    rows = []
    for _, timings in labelled(records.one_machine(bench)).groupby(_PLACE, sort=False):
        full = timings[timings["variant"] == "full_precision"].set_index("precision")["round_ms"].map(np.array)
        for row in timings.itertuples():
            rounds = np.array(row.round_ms)
            mean, half_width = interval(100 * (rounds / full[row.precision] - 1))
            rows.append(
                {"model": row.model, "batch": row.batch, "precision": row.precision, "design": row.variant}
                | {"median_ms": row.median_ms, "images_per_second": 1e3 * row.batch / row.median_ms}
                | {"flagged": row.flagged, "time": shown(*interval(rounds / full["fp32"]), len(rounds))}
                | {"overhead": shown(mean, half_width, len(rounds))}
                | {"overhead_percent": mean, "half_width_percent": half_width}
            )
    return DataFrame(rows)


def plans_table(bench: DataFrame) -> DataFrame:
    """What each contender reads instead of fp32 weights and how long its offline packing took, over all layers.

    weight_bytes; bits_per_weight, those bytes over the number of weights; plan_ms; `groups` names G per layer.
    """
    table = speed_table(bench)
    weights = table.loc[table["reference"], "weight_bytes"].sum() / 4  # fp32 torch reads 4 bytes a weight
    rows = []
    for label, timings in table.groupby("label", sort=False):
        whole = timings["layer"].nunique() == table["layer"].nunique()
        rows.append(
            {
                "label": label,
                "weight_bytes": timings["weight_bytes"].sum(),
                "bits_per_weight": 8 * timings["weight_bytes"].sum() / weights if whole else math.nan,
                "plan_ms": 1e3 * timings["plan_seconds"].sum(),
                "groups": ", ".join(map(str, timings["group"])) if timings["group"].any() else "-",
            }
        )
    return DataFrame(rows)


def roofline_table(bench: DataFrame) -> DataFrame:
    """Throughput per layer beside what the machine allows: 1e9 dense-equivalent multiply-accumulates a second.

    One row per layer for the best fp32 contender and, of each scheme with one sign a filter, its fastest encoding by
    `table`. `bound_gmacs` is what the table's loads and adds alone would allow, `fraction` is `gmacs` over it, and
    `fma_gmacs` the peak of fp32 multiply-accumulates of one core. Empty where the benchmark recorded no bound.
    """
    if bench.empty:
        return DataFrame()
    table = speed_table(bench)
    if not table["bound_ms"].notna().any():
        return DataFrame()
    files = bench.drop_duplicates("path").set_index("name")["path"]
    peaks = {name: records.load(path).metrics["peaks"] for name, path in files.items()}
    bounded = table[table["bound_ms"].notna() & (table["regions"] == 0)]
    fastest = bounded.loc[bounded.groupby([*_PLACE, "scheme"], sort=False)["median_ms"].idxmin()]
    chosen = pd.concat([table[table["reference_fp32"]], fastest])
    columns = [*_PLACE, "label", "contender", "scheme", "encoding", "precision", "group", "median_ms", "gmacs"]
    return chosen[columns].assign(
        bound_gmacs=chosen["gmacs"] / chosen["roofline_fraction"],
        fraction=chosen["roofline_fraction"],
        fma_gmacs=chosen["name"].map(lambda name: peaks[name]["fma_gmacs"]),
    )


def network_table(bench: DataFrame) -> DataFrame:
    """One row per network, batch and contender of benchmarks of whole networks: milliseconds per image.

    `speedup` is over the fastest fp32 contender (marked `reference_fp32`), mean and 95 % half width over rounds.
    """
    if bench.empty:
        return DataFrame()
    rows = []
    for _, timings in speed_table(bench).groupby(_PLACE, sort=False):
        best = np.array(timings.loc[timings["reference_fp32"], "round_ms"].iloc[0])
        for row in timings.itertuples():
            mean, half_width = interval(best / np.array(row.round_ms))
            rows.append(
                {
                    **{key: getattr(row, key) for key in ("name", "model", "batch", "label", "contender", "scheme")},
                    **{key: getattr(row, key) for key in ("encoding", "precision", "threads", "reference_fp32")},
                    "ms_per_image": row.median_ms / row.batch,
                    "iqr_ms_per_image": row.iqr_ms / row.batch,
                    "flagged": row.flagged,
                    "n": len(row.round_ms),
                    "speedup": mean,
                    "speedup_half_width": half_width,
                }
            )
    return DataFrame(rows)


def codebook_table(train: DataFrame, bench: DataFrame) -> DataFrame:
    """What pattern codebooks cost in accuracy and save in bits and time: a row per design, and two for comparison.

    Designs are the groups of binary's recipe that have random signs per region of G channels at one tap: `masks` tells
    how many a region chooses among. Those of binary have a codebook of signs. The others are binary and the paper's
    signed binary. Empty if no group has a codebook.

    weight_bits  stored bits a weight
    difference   of top-1 to binary's at the same seed, points, also as two numbers
    same_bits    the same to binary with a codebook of as many patterns for as many channels, the more accurate of its
                 designs
    latency      of the benchmark's layers together, binary in its fastest encoding being 1, by the fastest algorithm
                 and encoding of codes like these (`ran`), over rounds; as two numbers `time`, `time_half_width`. Codes
                 of regions of any mask have the density of Delta = mean |w|. NaN without such a benchmark, as of
                 random masks, which are denser
    """
    groups = dict(list(group_runs(train).groupby("label")))
    if "binary" not in groups:
        return DataFrame()
    configs = {label: group["config"].iloc[0] for label, group in groups.items()}
    configs = {label: config for label, config in configs.items() if same_recipe(config, configs["binary"])}
    with_codebook = [label for label, config in configs.items() if "codebook_bits" in config]
    if not with_codebook:
        return DataFrame()
    designs = [label for label, config in configs.items() if _TAP_SIGNS.items() <= config.items()]
    designs += [label for label in with_codebook if label not in designs]
    rivals = {
        (configs[label]["codebook_bits"], configs[label]["region_channels"]): groups[label]
        for label in sorted(with_codebook, key=lambda label: groups[label]["top1_percent"].mean())  # the best last
        if configs[label]["quantizer"] == "binary"
    }
    times = _codebook_times(newest(bench, "codebooks"))
    rows = []
    for label in ("binary", "signed_binary", *designs):
        if label not in configs:
            continue
        group, config = groups[label], configs[label]
        bits, G = config.get("codebook_bits", 0), config.get("region_channels", 0)
        like = G if bits else 4 * (G > 0)
        masks = "any mask"
        if bits:
            masks = f"{2**bits} {config.get('codebook', 'masks')}"
            masks += " of ±1" * (config["quantizer"] == "binary")
        timed = (config["quantizer"], bits, like)
        if timed[0] == "signed_binary" and config.get("codebook") == "random":
            timed = None  # the benchmark has the sparsest masks
        time, time_half_width, rounds, ran = times.get(timed, (math.nan, math.nan, 0, ""))
        differences = paired_differences(group, groups["binary"])
        mean, half_width = interval(differences) if len(differences) else (math.nan, math.nan)
        same_bits = []
        if config["quantizer"] == "signed_binary" and (bits, G) in rivals:
            same_bits = paired_differences(group, rivals[bits, G])
        rows.append(
            {
                "label": label,
                "quantizer": config["quantizer"],
                "channels": G,
                "masks": masks,
                "weight_bits": group["weight_bits"].iloc[0],
                "density": group["density"].mean(),
                "top1_mean_percent": group["top1_percent"].mean(),
                "n": len(group),
                "difference": shown(mean, half_width, len(differences)) if len(differences) else "",
                "same_bits": shown(*interval(same_bits), len(same_bits)) if len(same_bits) else "",
                "latency": shown(time, time_half_width, rounds) if rounds else "",
                "ran": ran,
                "difference_mean_points": mean,
                "difference_half_width_points": half_width,
                "time": time,
                "time_half_width": time_half_width,
            }
        )
    order = {"by": ["channels", "weight_bits"], "ascending": [True, False]}
    return DataFrame(rows).sort_values(**order, kind="stable", ignore_index=True)


_TAP_SIGNS = {"region_taps": 1, "assignment": "random", "threshold": "mean", "delta_factor": 1.0}


def _codebook_times(bench: DataFrame) -> dict[tuple[str, int, int], tuple[float, float, int, str]]:
    """(scheme, b, G) -> time relative to binary's best, its half width, rounds, and the contender that took it."""
    if bench.empty:
        return {}
    table = labelled(records.one_machine(bench))
    totals = {label: sum(rounds_by_layer(timings).values()) for label, timings in table.groupby("label", sort=False)}
    kinds = table[table["scheme"] != ""].drop_duplicates("label").groupby(["scheme", "codebook_bits", "regions"])
    fastest = {kind: min(rows["label"], key=lambda label: np.median(totals[label])) for kind, rows in kinds}
    binary = totals[fastest["binary", 0, 0]]
    return {kind: (*interval(totals[label] / binary), len(binary), label) for kind, label in fastest.items()}


def tradeoff_table(bench: DataFrame) -> DataFrame:
    """Cost of one layer against the density of its codes: one row per algorithm, scheme, encoding and density.

    operations_per_weight counts additions and multiplications per weight and output position (2 is dense), of `table`
    with the G of fewest operations, where `group` is the one that was timed. Entropy alone would predict a cost of
    H / log2(table size) per weight: `predicted_operations` and `predicted_ms` are entropy_bits times one constant per
    algorithm, the geometric mean of cost / H over the schemes and densities, each scheme in its cheapest encoding.
    `fewest` and `fastest` mark the densities at which a scheme costs least, and `cheapest_bit` those at which it needs
    the fewest operations per bit of entropy.
    """
    if bench.empty:
        return DataFrame()
    table = labelled(records.one_machine(bench)).rename(columns={"contender": "algorithm"})
    table = table[table["algorithm"].isin(repetition.ALGORITHMS)].reset_index(drop=True)
    columns = ["name", "layer", "algorithm", "scheme", "encoding", "group", "density", "entropy_bits"]
    table = table[[*columns, "median_ms", "iqr_ms"]].assign(operations_per_weight=2 / table["best_reduction"])
    lines = ["algorithm", "scheme", "encoding"]
    for cost, predicted in (("operations_per_weight", "predicted_operations"), ("median_ms", "predicted_ms")):
        cheapest = table.loc[table.groupby(["algorithm", "scheme", "density"])[cost].idxmin()]
        per_bit = np.log(cheapest[cost] / cheapest["entropy_bits"]).groupby(cheapest["algorithm"]).mean()
        table[predicted] = table["entropy_bits"] * np.exp(table["algorithm"].map(per_bit))
    marks = {
        "fewest": table["operations_per_weight"],
        "fastest": table["median_ms"],
        "cheapest_bit": table["operations_per_weight"] / table["entropy_bits"],
    }
    for mark, cost in marks.items():
        table[mark] = table.index.isin(cost.groupby([table[key] for key in lines]).idxmin())
    return table


def tradeoff_reading(tradeoff: DataFrame, algorithm: str = "table") -> str:
    """Two sentences that say what `tradeoff_table` holds: where signed binary costs least, and how far entropy goes."""
    table = tradeoff[tradeoff["algorithm"] == algorithm]
    ours = table[table["scheme"] == "signed_binary"].sort_values("density")
    binary = table[table["scheme"] == "binary"]
    best = binary.loc[binary["operations_per_weight"].idxmin()]
    fewest, bit = ours[ours["fewest"]].iloc[0], ours[ours["cheapest_bit"]].iloc[0]

    def where(cost: str) -> str:
        cheaper = ours.loc[ours[cost] < binary[cost].min(), "density"]
        listed = f" ({', '.join(f'{density:.2g}' for density in cheaper)})" if len(cheaper) else ""
        return f"at {len(cheaper)} of {len(ours)} densities{listed}"

    errors = []
    for name, rows in tradeoff.groupby("algorithm"):
        off = [
            (rows[cost] / rows[predicted]).map(math.log).abs().median()
            for cost, predicted in (("operations_per_weight", "predicted_operations"), ("median_ms", "predicted_ms"))
        ]
        errors.append(f"{name} {math.expm1(off[0]):.0%} and {math.expm1(off[1]):.0%}")
    return (
        f"By {algorithm}, signed binary needs the fewest operations at density {fewest.density:.2g} "
        f"({fewest.operations_per_weight:.3g} a weight; binary in its best encoding, {best.encoding}: "
        f"{best.operations_per_weight:.3g}), fewer than that binary {where('operations_per_weight')}, and less time "
        f"{where('median_ms')}; per bit of entropy it is cheapest at density {bit.density:.2g}. "
        f"Entropy times one constant misses operations and latency by, in the median: {'; '.join(errors)}."
    )
