"""The open review: what its reviewers asked, answered in a sentence that is built from records.

Torch-free. questions.toml lists the questions; each names a function of ANSWERS, which turns records into an `Answer`.
Its words follow from its numbers: an effect is named only where its 95 % interval excludes "no effect". A question
that the records of one profile do not answer is put to the next profile; what none answers says which command would.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas import DataFrame

from sbkit import claims, records
from sbkit.analysis import (
    Evidence,
    Weights,
    beyond,
    changed_options,
    curves_table,
    group_runs,
    interval,
    labelled,
    network_table,
    newest,
    operations_table,
    paired_differences,
    plans_table,
    run_weights,
    seed_table,
    shown,
    shuffled,
    speed_table,
    speedup_table,
    tradeoff_table,
    unique_table,
)
from sbkit.claims import Measured, MissingRecord

LINEAR_MODELS = ("mlp", "transformer")


class Answer(NamedTuple):
    """A sentence, or a part of one, and the numbers in it."""

    text: str
    measured: tuple[Measured, ...]

    @property
    def n(self) -> str:
        """How many runs, rounds or pairs its means are over: `3`, `3 to 25`, or `exact` where it only counts."""
        counts = sorted({value.n for value in self.measured if (value.n, value.half_width) != (1, 0)})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "exact"

    @property
    def labels(self) -> list[str]:
        """The records it rests on, runs of several seeds under one name."""
        return list(dict.fromkeys(records.run_label(name) for value in self.measured for name in value.names))


class Comparison(NamedTuple):
    """Groups of training runs that differ from one of them in stated options."""

    base: str  # label of the group that the others are compared with
    options: tuple[str, ...]  # of the configuration, all of which differ
    also: tuple[str, ...] = ()  # which may differ besides


class Topic(NamedTuple):
    """What training runs are compared for."""

    name: str
    comparisons: tuple[Comparison, ...]


TOPICS: dict[str, Topic] = {
    "R4": Topic(
        "signs of the regions",
        (
            Comparison("signed_binary", ("positive_fraction",)),
            Comparison("signed_binary", ("assignment",)),
            Comparison("signed_binary", ("swap_at",)),
            Comparison("ablate_tap_signs", ("assignment",)),  # learned over random ones of the same small regions
        ),
    ),
    "R10": Topic(
        "schemes",
        (
            Comparison("signed_binary", ("quantizer",)),
            Comparison("signed_binary", ("quantizer", "scale")),  # BWN
            Comparison("signed_binary", ("quantizer", "estimator")),  # IR-Net, whose `standardize` only binary records
        ),
    ),
    "R11": Topic(
        "quantized after training",
        (
            Comparison(
                "signed_binary",
                ("start_from", "learning_rate"),
                ("quantizer", "epochs", "assignment", "region_channels", "scale"),
            ),
        ),
    ),
    "R12": Topic("from trained weights", (Comparison("signed_binary", ("start_from",)),)),
    "R13": Topic(
        "linear layers",
        (
            Comparison("review_mlp_binary", ("quantizer",), ("scale",)),
            Comparison("review_transformer_binary", ("quantizer",), ("scale",)),
        ),
    ),
    "Q1": Topic(
        "size of a region, and its masks",
        (
            Comparison("ablate_random", ("region_channels",)),
            Comparison("signed_binary_learned", ("region_channels",)),
            Comparison("signed_binary_learned", ("region_taps",)),
            Comparison("ablate_tap_signs", ("region_channels",)),
            Comparison("ablate_codebook_8_8", ("codebook_bits",), ("codebook",)),
            Comparison("ablate_codebook_16_16", ("codebook_bits",), ("codebook",)),
            Comparison("binary", ("codebook_bits",), ("codebook", "region_channels", "region_taps")),
        ),
    ),
    "Q2": Topic(
        "gradient",
        (
            Comparison("signed_binary", ("estimator",)),
            Comparison("signed_binary", ("standardize",)),
            Comparison("signed_binary", ("estimator", "standardize")),
        ),
    ),
    "Q3": Topic(
        "distillation",
        (Comparison("signed_binary", ("distill_from",)), Comparison("binary", ("distill_from",))),
    ),
    "Q7": Topic(
        "threshold",
        (
            Comparison("signed_binary", ("delta_factor",)),
            Comparison("signed_binary", ("delta_axis",)),
            Comparison("signed_binary", ("threshold", "delta_factor")),
            Comparison("signed_binary", ("threshold",)),
            Comparison("signed_binary_learned", ("delta_factor",)),
        ),
    ),
    "Q9": Topic("regularizers", (Comparison("signed_binary", ("l1",)), Comparison("signed_binary", ("weight_decay",)))),
    "R1": Topic(
        "rest of the design",
        (
            Comparison("signed_binary", ("scale",)),
            Comparison("signed_binary", ("nonlinearity",)),
            Comparison("signed_binary", ("channel_signs",)),
            Comparison("signed_binary_learned", ("channel_signs",)),
        ),
    ),
}
"""By the question that they answer first."""


# Questions


def load_questions(path: str | Path) -> list[dict[str, Any]]:
    """The [[question]] tables of questions.toml.

    Keys: id, who (asked), question, authors (their answer and its source), experiment (that would answer it), measure
    (a function of ANSWERS), command (that runs the experiment), notebook (which shows more), figure (its stem, or "").
    Raises ValueError naming the question and what is wrong with it.
    """
    keys = {"id", "who", "question", "authors", "experiment", "measure", "command", "notebook", "figure"}
    questions = claims.load_tables(path, "question", keys)
    for question in questions:
        name = question["id"]
        if empty := sorted(key for key in keys - {"figure"} if not question[key]):
            raise ValueError(f"question {name}: {', '.join(empty)} is empty; allowed: any text")
        if question["measure"] not in ANSWERS:
            raise ValueError(f"question {name}: measure = {question['measure']!r}; allowed: {', '.join(ANSWERS)}")
    return questions


def gather(results: Path, profiles: Iterable[str]) -> dict[str, Evidence]:
    """The records of each of these profiles, folders below `results`, in their order; none of one that has none."""
    found = {}
    for profile in profiles:
        train, bench = (records.read(results / profile, kind) for kind in records.KINDS)
        if len(train) or len(bench):
            bench = bench if bench.empty else labelled(bench)  # once, not once for every answer
            found[profile] = Evidence(group_runs(train), bench, run_weights(train) if len(train) else {})
    return found


def answers_table(questions: Iterable[Mapping[str, Any]], evidences: Mapping[str, Evidence]) -> DataFrame:
    """One row per question, answered by the first profile whose records can: id, who, question, authors, experiment,
    answer, n, profile, records, notebook, figure, command.

    Where none can, the answer is the command that would measure it, and `records` says what the last one lacks.
    """
    rows = []
    for question in questions:
        unknown = f"Not measured here; this would: {question['command']}"
        found = {"answer": unknown, "n": "-", "profile": "-", "records": "missing: any record"}
        for profile, evidence in evidences.items():
            try:
                answer = ANSWERS[question["measure"]](evidence)
            except MissingRecord as missing:
                found["records"] = f"missing: {missing}"
            else:
                found = {"answer": _sentence(answer.text), "n": answer.n, "profile": profile}
                found["records"] = ", ".join(answer.labels)
                break
        row = {key: question[key] for key in ("id", "who", "question", "authors", "experiment")}
        rows.append(row | found | {key: question[key] for key in ("notebook", "figure", "command")})
    return DataFrame(rows)


# Words


class Words(NamedTuple):
    """How a number is worded: where its interval lies above `neutral`, below it, and where it holds it."""

    above: str
    below: str
    neither: str
    unit: str
    neutral: float = 0.0


ACCURACY = Words("gained accuracy", "lost accuracy", "made no measurable difference", "points")
SPEED = Words("ran faster", "ran slower", "ran neither measurably faster nor slower", "times as fast", 1.0)
OPERATIONS = Words(
    "needed fewer operations", "needed more operations", "needed about as many operations", "times as few", 1.0
)
BYTES = Words("took more bytes", "took fewer bytes", "took about as many bytes", "times as many", 1.0)
ENERGY = Words("took more energy", "took less energy", "took about as much energy", "times as much", 1.0)
IMAGES = Words("made more images a second", "made fewer images a second", "made about as many", "times as many", 1.0)
REPEATS = Words("repeated more", "repeated less", "repeated neither measurably more nor less", "times as often", 1.0)
KEPT = Words("kept more of it", "kept less of it", "kept no measurably different share", "% of clean accuracy")
CLASSES = Words("came out higher", "came out lower", "did not come out measurably different", "points")


def worded(words: Words, found: Mapping[str, Measured], topic: str = "") -> Answer:
    """`a (+0.5 ± 0.3) and b (+0.4 ± 0.2) gained accuracy, c (-0.1 ± 0.4) made no measurable difference (points, n=3)`.

    Raises MissingRecord for a value of one run, whose interval is open and decides nothing, and for no value at all.
    """
    if not found:
        raise MissingRecord(f"a record of {topic}")
    said: dict[str, list[str]] = {words.above: [], words.below: [], words.neither: []}
    verbs = {1: words.above, -1: words.below, 0: words.neither}
    for what, measured in found.items():
        if math.isnan(measured.half_width):
            raise MissingRecord(f"a second seed beside {', '.join(measured.names)}")
        verb = verbs[beyond(measured.value, measured.half_width, words.neutral)]
        said[verb].append(f"{what} ({_number(words, measured)})")
    clauses = ", ".join(f"{_and(items)} {verb}" for verb, items in said.items() if items)
    answer = Answer("", tuple(found.values()))
    text = f"{clauses} ({words.unit}, {'exact' if answer.n == 'exact' else f'n={answer.n}'})"
    return answer._replace(text=f"{topic}: {text}" if topic else text)


def _number(words: Words, measured: Measured) -> str:
    """The value, with a sign where 0 is neutral, and its half width if it has one."""
    text = f"{measured.value:{'+' if words.neutral == 0 else ''}.2f}"
    return text if measured.n == 1 else f"{text} ± {measured.half_width:.2f}"


def levels(found: Mapping[str, Measured], topic: str, digits: int = 2) -> Answer:
    """`topic a 0.35 ± 0.02 (n=3), b 0.40 ± 0.01 (n=3)`."""
    texts = (f"{what} {shown(value.value, value.half_width, value.n, digits)}" for what, value in found.items())
    return Answer(f"{topic} {', '.join(texts)}", tuple(found.values()))


def joined(*parts: Answer) -> Answer:
    return Answer("; ".join(part.text for part in parts), tuple(value for part in parts for value in part.measured))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _and(items: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def _readable(label: str) -> str:
    """A label within a sentence: no prefix, no underscores, and no commas, which separate the items of a list."""
    for part, text in {"ablate_": "", "review_": "", ",": "", "zero_one": "{0,1}", "_": " "}.items():
        label = label.replace(part, text)
    return label


def _natural(label: str) -> tuple[str, float]:
    """Sorts labels that end in a number by it: ablate_positive_25 before ablate_positive_100."""
    text, number = re.fullmatch(r"(.*?)(\d[\d.]*(?:e-?\d+)?)?", label).groups()
    return text, float(number or 0)


def _beside(label: str, base: str) -> str:
    """A group's name beside its comparison's base: without the words that both begin with."""
    words, known = _readable(label).split(), _readable(base).split()
    while len(words) > 1 and known and words[0] == known[0]:
        words, known = words[1:], known[1:]
    return " ".join(words)


# Training runs


def _group(evidence: Evidence, label: str) -> DataFrame:
    runs = evidence.train[evidence.train["label"] == label]
    if runs.empty:
        raise MissingRecord(f"a training run of {label}")
    return runs


def _paired(ours: DataFrame, theirs: DataFrame, metric: str = "top1_percent") -> Measured:
    """Mean difference of a metric between two groups, paired by seed."""
    differences = paired_differences(ours, theirs, metric)
    if not len(differences):
        raise MissingRecord(f"a seed that {ours['label'].iloc[0]} and {theirs['label'].iloc[0]} share")
    both = set(ours["seed"]) & set(theirs["seed"])
    names = tuple(name for runs in (ours, theirs) for name in runs["name"][runs["seed"].isin(both)])
    return Measured(*interval(differences), len(differences), names)


def _level(runs: DataFrame, metric: str) -> Measured:
    return Measured(*interval(runs[metric]), len(runs), tuple(runs["name"]))


def _compared(train: DataFrame, comparison: Comparison) -> dict[str, DataFrame]:
    """The groups that a comparison compares with its base, by label."""
    base = train[train["label"] == comparison.base]
    found = {}
    groups = train.drop_duplicates("label")
    for label, config in zip(groups["label"], groups["config"], strict=True) if len(base) else ():
        changed = set(changed_options(config, base["config"].iloc[0]))
        required = set(comparison.options)
        if required <= changed <= required | set(comparison.also):
            runs = train[train["label"] == label]
            if set(runs["seed"]) & set(base["seed"]):
                found[label] = runs
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def differences_table(train: DataFrame) -> DataFrame:
    """Top-1 of training runs minus that of the group they are compared with, paired by seed: a row per group.

    `train` has the columns of group_runs. `what` and `over` name the groups for people, `differs` lists the options
    that differ. Empty where nothing is to be compared.
    """
    rows = []
    for question, topic in TOPICS.items():
        for comparison in topic.comparisons:
            base = train[train["label"] == comparison.base]
            for label, runs in _compared(train, comparison).items():
                measured = _paired(runs, base)
                rows.append(
                    {"question": question, "topic": topic.name, "label": label, "what": _beside(label, comparison.base)}
                    | {"quantizer": runs["quantizer"].iloc[0], "over": _readable(comparison.base), "n": measured.n}
                    | {"difference": shown(measured.value, measured.half_width, measured.n)}
                    | {"difference_mean_points": measured.value, "difference_half_width_points": measured.half_width}
                    | {"differs": ", ".join(changed_options(runs["config"].iloc[0], base["config"].iloc[0]))}
                )
    return DataFrame(rows)


def _accuracy(evidence: Evidence, *comparisons: Comparison) -> Answer:
    """The differences in words. Raises MissingRecord for a comparison without runs."""
    by_base: dict[str, dict[str, Measured]] = {}
    for comparison in comparisons:
        base = _group(evidence, comparison.base)
        groups = _compared(evidence.train, comparison)
        if not groups:
            raise MissingRecord(f"training runs that differ from {comparison.base} in {', '.join(comparison.options)}")
        found = {_beside(label, comparison.base): _paired(runs, base) for label, runs in groups.items()}
        by_base.setdefault(comparison.base, {}).update(found)
    parts = []
    for base, found in by_base.items():
        best_first = dict(sorted(found.items(), key=lambda item: -item[1].value))
        parts.append(worded(ACCURACY, best_first, f"over {_readable(base)}"))
    return joined(*parts)


def sign_assignment(evidence: Evidence) -> Answer:
    return _accuracy(evidence, *TOPICS["R4"].comparisons)


def baselines(evidence: Evidence) -> Answer:
    return _accuracy(evidence, *TOPICS["R10"].comparisons)


def post_training(evidence: Evidence) -> Answer:
    """Weights of a full-precision network that are quantized, over signed binary trained from scratch."""
    return _accuracy(evidence, *TOPICS["R11"].comparisons)


def fine_tuning(evidence: Evidence) -> Answer:
    return _accuracy(evidence, *TOPICS["R12"].comparisons)


def linear_layers(evidence: Evidence) -> Answer:
    return _accuracy(evidence, *TOPICS["R13"].comparisons)


def transformers(evidence: Evidence) -> Answer:
    return _accuracy(evidence, TOPICS["R13"].comparisons[1])


def region_size(evidence: Evidence) -> Answer:
    """Regions of a few channels over whole filters, both with random signs."""
    return _accuracy(evidence, *TOPICS["Q1"].comparisons)


def distillation(evidence: Evidence) -> Answer:
    return _accuracy(evidence, *TOPICS["Q3"].comparisons, *TOPICS["R12"].comparisons)


def estimators(evidence: Evidence) -> Answer:
    """Accuracy, and the share of codes that changed in the last epoch."""
    comparisons = TOPICS["Q2"].comparisons
    accuracy = _accuracy(evidence, *comparisons)
    curves = curves_table(evidence.train)
    last = curves.sort_values("epoch").groupby(["label", "seed"]).tail(1).set_index(["label", "seed"])
    compared = [label for comparison in comparisons for label in _compared(evidence.train, comparison)]
    flips = {}
    for label in ("signed_binary", *compared):
        runs = _group(evidence, label)
        percent = 100 * last["flip_fraction"][label].reindex(runs["seed"])
        flips[_readable(label)] = Measured(*interval(percent), len(runs), tuple(runs["name"]))
    return joined(accuracy, levels(flips, "codes flipped by the last epoch, %:"))


def _with_densities(evidence: Evidence, comparisons: Iterable[Comparison]) -> Answer:
    """The differences in words, then the density of the base and the extremes of the groups compared with it."""
    answer = _accuracy(evidence, *comparisons)
    found = {}
    for comparison in comparisons:
        found |= {label: _level(runs, "density") for label, runs in _compared(evidence.train, comparison).items()}
    lowest, highest = (pick(found, key=lambda label: found[label].value) for pick in (min, max))
    plain = _level(_group(evidence, "signed_binary"), "density")
    ends = {f"{_readable(label)} ({end})": found[label] for end, label in (("lowest", lowest), ("highest", highest))}
    return joined(answer, levels({"signed binary": plain} | ends, "density:"))


def thresholds(evidence: Evidence) -> Answer:
    return _with_densities(evidence, TOPICS["Q7"].comparisons)


def regularizers(evidence: Evidence) -> Answer:
    return _with_densities(evidence, TOPICS["Q9"].comparisons)


def linear_table(train: DataFrame) -> DataFrame:
    """Rows of `seed_table` for the networks without convolutions, with `model`, and labels that do not repeat it."""
    found = train[train["model"].isin(LINEAR_MODELS)] if "model" in train else train[:0]
    if found.empty:
        return DataFrame()
    model = found.drop_duplicates("label").set_index("label")["model"]
    table = seed_table(found)
    table.insert(0, "model", table["label"].map(model))
    short = [row.label.removeprefix(f"review_{row.model}_") for row in table.itertuples()]
    return table.assign(label=short)


# Robustness


def _tests(runs: DataFrame) -> DataFrame:
    """Every accuracy of `history["robustness"]`: a row per run, test and strength, 0 being the clean images."""
    rows = []
    for run in runs.itertuples():
        found = records.load(run.path).history.get("robustness")
        if not found:
            continue
        tests = [("corruption", test["corruption"], test["severity"], test) for test in found["corruptions"]]
        tests += [("attack", test["attack"], test["epsilon"], test) for test in found["attacks"]]
        first = {"label": run.label, "quantizer": run.quantizer, "seed": run.seed, "name": run.name}
        for kind, name in dict.fromkeys((kind, name) for kind, name, *_ in tests):
            rows.append(first | {"kind": kind, "test": name, "strength": 0, "top1_percent": found["top1_percent"]})
        for kind, name, strength, test in tests:
            rows.append(
                first | {"kind": kind, "test": name, "strength": strength, "top1_percent": test["top1_percent"]}
            )
    return DataFrame(rows)


def robustness_table(train: DataFrame) -> DataFrame:
    """Accuracy on corrupted and attacked images: mean and 95 % half width of each group, test and strength.

    `kind` is "corruption", whose strength is a severity, or "attack", whose strength is epsilon over the pixels' range;
    strength 0 is the same images as they are. Empty without runs that tested it.
    """
    keys = ["label", "quantizer", "kind", "test", "strength"]
    tests = _tests(group_runs(train))
    rows = []
    for place, runs in tests.groupby(keys, sort=False) if len(tests) else ():
        mean, half_width = interval(runs["top1_percent"])
        row = dict(zip(keys, place, strict=True)) | {"n": len(runs)}
        rows.append(row | {"top1_mean_percent": mean, "top1_half_width_percent": half_width})
    return DataFrame(rows)


def _kept(runs: DataFrame, kind: str) -> dict[str, DataFrame]:
    """What share of its clean accuracy a run keeps, percent, in the mean over strengths: by test, and "all" of a kind.

    Each frame has the columns label, seed, name and kept. Raises MissingRecord for runs that were not tested.
    """
    tests = _tests(runs)
    if tests.empty:
        raise MissingRecord(f"a training run of {runs['label'].iloc[0]} with robustness")
    tests = tests[tests["kind"] == kind]
    keys = ["label", "seed", "name"]
    clean = tests[tests["strength"] == 0].drop_duplicates(keys).set_index(keys)["top1_percent"]
    harmed = tests[tests["strength"] > 0]
    kept = {}
    for test, found in [("all", harmed), *harmed.groupby("test", sort=False)]:
        mean = found.groupby(keys)["top1_percent"].mean()
        kept[test] = (100 * mean / clean).rename("kept").reset_index()
    return kept


def corruptions_and_classes(evidence: Evidence) -> Answer:
    """Signed binary and binary: the share of clean accuracy kept on corrupted images, and accuracy class by class."""
    ours, theirs = _group(evidence, "signed_binary"), _group(evidence, "binary")
    mine, other = _kept(ours, "corruption"), _kept(theirs, "corruption")
    found = {test.replace("_", " "): _paired(mine[test], other[test], "kept") for test in mine}
    found["all corruptions"] = found.pop("all")
    classes = []
    for runs in (ours, theirs):
        percents = [records.load(path).history["per_class_percent"] for path in runs["path"]]
        tested = [[percent for percent in run if percent is not None] for run in percents]
        classes.append(runs.assign(worst=list(map(min, tested)), spread=[max(run) - min(run) for run in tested]))
    gaps = {
        "its worst class": _paired(*classes, "worst"),
        "the spread from its best class to its worst": _paired(*classes, "spread"),
    }
    return joined(
        worded(KEPT, found, "signed binary over binary on corrupted images"),
        worded(CLASSES, gaps, "class by class"),
    )


def attacks(evidence: Evidence) -> Answer:
    """Signed binary and binary under attack: the share of their clean accuracy that they keep, as the two differ."""
    mine, theirs = (_kept(_group(evidence, label), "attack") for label in ("signed_binary", "binary"))
    found = {test: _paired(mine[test], theirs[test], "kept") for test in mine if test != "all"}
    gap = worded(ACCURACY, {"signed binary": _paired(*(_group(evidence, s) for s in ("signed_binary", "binary")))})
    return joined(
        worded(KEPT, {test.upper(): value for test, value in found.items()}, "signed binary over binary under attack"),
        gap._replace(text=f"on clean images {gap.text}"),
    )


# Speed and repetition


def _layers(evidence: Evidence) -> DataFrame:
    """Timings of the layers, one row per layer and contender."""
    bench = newest(evidence.bench)
    if bench.empty:
        raise MissingRecord('a benchmark of the study "layers"')
    return speed_table(bench)


def _of(table: DataFrame, label: str) -> DataFrame:
    found = table[table["label"] == label]
    if found.empty:
        raise MissingRecord(f"a benchmark with {label}")
    return found


def _ratio(table: DataFrame, ours: str, over: str, quantity: Callable[[DataFrame], float]) -> Measured:
    """Exact ratio of a sum over all layers: that of one contender over another's."""
    mine, theirs = _of(table, ours), _of(table, over)
    if set(mine["layer"]) != set(theirs["layer"]):
        raise MissingRecord(f"a benchmark of {ours} and {over} on the same layers")
    return Measured(quantity(mine) / quantity(theirs), 0.0, 1, (mine["name"].iloc[0],))


def _operations(timings: DataFrame) -> float:
    """Multiply-accumulates of the layers over their reductions: proportional to the operations."""
    return float((timings["gmacs"] * timings["median_ms"] / timings["best_reduction"]).sum())


def _bytes(timings: DataFrame) -> float:
    return float(timings["weight_bytes"].sum())


def _speeds(evidence: Evidence, ours: str, *others: str) -> dict[str, Measured]:
    return {f"over {_readable(over)}": claims.bench_speedup(evidence, ours, over) for over in others}


def measured_speed(evidence: Evidence) -> Answer:
    """Signed binary by table: ResNet-18's layers together, over rounds, and whole networks."""
    table = _layers(evidence)
    networks = newest(evidence.bench, "network")
    if networks.empty:
        raise MissingRecord('a benchmark of the study "network"')
    summed = speedup_table(newest(evidence.bench))
    summed = summed[(summed["label"] == "table signed_binary") & (summed["layer"] == "all")]
    layers = {
        f"over {row.over}": Measured(row.speedup, row.speedup_half_width, row.n, (row.name,))
        for row in summed.itertuples()
    }
    layers |= _speeds(evidence, "table signed_binary", "table binary", "table ternary_twn", "table zero_one")
    whole = network_table(networks)
    whole = whole[whole["label"].str.fullmatch("table signed_binary")]
    images = {
        f"{row.model} at batch {row.batch}": Measured(row.speedup, row.speedup_half_width, row.n, (row.name,))
        for row in whole.itertuples()
    }
    noisy = Answer(f"{table['flagged'].sum()} of {len(table)} timings of layers are marked as noisy", ())
    return joined(
        worded(SPEED, layers, "signed binary by table, the layers together"),
        worded(SPEED, images, "whole networks over the best in fp32"),
        noisy,
    )


def without_sparsity_support(evidence: Evidence) -> Answer:
    """Signed binary over binary in two groups, its zeros skipped or summed like any other value."""
    table = _layers(evidence)
    parts = []
    for algorithm in ("table", "dataflow"):
        binary = f"{algorithm} binary"
        ours = {"zeros skipped": f"{algorithm} signed_binary", "zeros kept": f"{algorithm} signed_binary, zeros kept"}
        fewer = {what: _ratio(table, binary, label, _operations) for what, label in ours.items()}
        speed = {what: claims.bench_speedup(evidence, label, binary) for what, label in ours.items()}
        parts += [worded(OPERATIONS, fewer, f"by {algorithm}"), worded(SPEED, speed, f"by {algorithm}")]
    answer = joined(*parts)
    return answer._replace(text=f"signed binary over binary, {answer.text}")


def bits_or_repetition(evidence: Evidence) -> Answer:
    """Schemes of the same bit width at different speeds, and 8-bit integers beside them."""
    bits = {}
    for scheme in ("binary", "signed_binary"):
        runs = _group(evidence, scheme)
        bits[_readable(scheme)] = Measured(float(runs["weight_bits"].iloc[0]), 0.0, 1, tuple(runs["name"]))
    table = _layers(evidence)
    plans = plans_table(newest(evidence.bench)).set_index("label")["bits_per_weight"]
    labels = ("table binary", "table binary, signed", "table signed_binary")
    names = {label: tuple(_of(table, label)["name"].unique()) for label in labels}
    read = {_readable(label): Measured(plans[label], 0.0, 1, names[label]) for label in labels}
    speeds = {
        f"{_readable(ours)} over {_readable(over)}": claims.bench_speedup(evidence, ours, over)
        for ours, over in (
            *((labels[2], other) for other in labels[:2]),
            *((ours, "onnxruntime int8") for ours in labels),
        )
    }
    return joined(
        levels(bits, "bits of a code:", digits=0),
        levels(read, "bits that a plan reads for a weight:"),
        worded(SPEED, speeds),
    )


def cost_over_density(evidence: Evidence) -> Answer:
    """Where in the study of densities signed binary costs least, by table, beside binary in its best encoding."""
    bench = newest(evidence.bench, "density")
    if bench.empty:
        raise MissingRecord('a benchmark of the study "density"')
    table = tradeoff_table(bench)
    table = table[table["algorithm"] == "table"]
    ours, binary = (table[table["scheme"] == scheme] for scheme in ("signed_binary", "binary"))
    fewest, bit = (ours.loc[ours[mark], "density"].iloc[0] for mark in ("fewest", "cheapest_bit"))
    sparsest = ours["density"].min()
    cheaper = (ours["operations_per_weight"] < binary["operations_per_weight"].min()).sum()
    sooner = (ours["median_ms"] < binary["median_ms"].min()).sum()
    where = "the sparsest codes tried" if fewest == sparsest else "not the sparsest codes tried"
    text = (
        f"by table, signed binary needs the fewest operations at density {fewest:.2g}, {where}, and the fewest per bit "
        f"of entropy at density {bit:.2g}; of {len(ours)} densities it needs fewer operations than binary in its best "
        f"encoding at {cheaper} and less time at {sooner}"
    )
    names = tuple(table["name"].unique())
    return Answer(text, (Measured(float(fewest), 0.0, 1, names),))


def two_meanings_of_a_bit(evidence: Evidence) -> Answer:
    """Signed binary over {0,1}, which has one meaning of a set bit; and a sign for every few channels of a filter."""
    table = _layers(evidence)
    ours, over = "table signed_binary", "table zero_one"
    layers = _of(table, ours).merge(newest(evidence.bench)[["layer", "K"]].drop_duplicates())
    signs = layers["K"].sum() / 8 / _bytes(layers)
    finer = [label for label in table["label"].unique() if label.startswith(f"{ours}, sign per")]
    if not finer:
        raise MissingRecord("a benchmark of signed binary with a sign for every few channels")
    return joined(
        worded(OPERATIONS, {"signed binary": _ratio(table, over, ours, _operations)}, "over {0,1}, both by table"),
        worded(SPEED, _speeds(evidence, ours, over)),
        worded(BYTES, {"its plans": _ratio(table, ours, over, _bytes)}),
        Answer(f"a bit for the sign of each filter would add {100 * signs:.2g} % to that", ()),
        worded(ACCURACY, {"signed binary": claims.top1_gap(evidence, "signed_binary", "zero_one")}),
        worded(SPEED, {_readable(label): claims.bench_speedup(evidence, label, ours) for label in finer}),
    )


def learned_repetition(evidence: Evidence) -> Answer:
    """Trained codes over the same codes shuffled within each filter: how often a 3x3 filter repeats, and operations."""
    repeats, fewer = {}, {}
    for scheme in ("binary", "ternary_twn", "signed_binary"):
        trained = _codes(evidence, scheme)
        both = [trained, {name: shuffled(layers) for name, layers in trained.items()}]
        ours, theirs = (unique_table(weights).groupby("name")["unique"].sum() for weights in both)
        repeats[_readable(scheme)] = Measured(*interval(theirs / ours), len(ours), tuple(ours.index))
        tables = [operations_table(weights, ["table"]).groupby("name") for weights in both]
        ours, theirs = (table["adds"].sum() + table["multiplies"].sum() for table in tables)
        fewer[_readable(scheme)] = Measured(*interval(theirs / ours), len(ours), tuple(ours.index))
    return joined(
        worded(REPEATS, repeats, "3x3 filters of trained codes over shuffled ones"),
        worded(OPERATIONS, fewer, "by table, trained codes over shuffled ones"),
    )


def _codes(evidence: Evidence, scheme: str) -> Weights:
    """Codes of a scheme's runs."""
    found = {name: evidence.weights[name] for name in _group(evidence, scheme)["name"] if name in evidence.weights}
    if not found:
        raise MissingRecord(f"codes of a {scheme} run")
    return found


def other_hardware(evidence: Evidence) -> Answer:
    """The analytic accelerator under its base assumptions, and what the timings here were taken on."""
    timings = newest(evidence.bench)
    if timings.empty:
        raise MissingRecord('a benchmark of the study "layers"')
    machines = timings[["provenance_isa", "provenance_cpu"]].drop_duplicates()
    timed = _and([f"{row.provenance_isa} of {row.provenance_cpu}" for row in machines.itertuples()])
    return joined(
        worded(ENERGY, {"signed binary": claims.modelled_energy(evidence)}, "modelled, over binary"),
        worded(IMAGES, {"it": claims.modelled_throughput(evidence)}),
        Answer(f"timings here are of {timed}", ()),
    )


def against_ttq(evidence: Evidence) -> Answer:
    """TTQ and signed binary under one recipe: accuracy, density, and operations by table on the trained codes."""
    schemes = ("ternary_ttq", "signed_binary")
    gap = {_readable(schemes[0]): claims.top1_gap(evidence, *schemes)}
    density = {_readable(scheme): claims.trained_density(evidence, scheme) for scheme in schemes}
    reduction = {}
    for scheme in schemes:
        operations = operations_table(_codes(evidence, scheme), ["table"])
        mean = operations.groupby("name")["reduction"].mean()
        reduction[_readable(scheme)] = Measured(*interval(mean), len(mean), tuple(mean.index))
    return joined(
        worded(ACCURACY, gap, "over signed binary"),
        levels(density, "density:"),
        levels(reduction, "arithmetic reduction by table, mean of the layers:"),
    )


# The design as a whole, and how it is described


def parts_of_the_design(evidence: Evidence) -> Answer:
    """What the quantizer, the estimator and the kernel are worth, each with the others as they are."""
    ours = _group(evidence, "signed_binary")
    schemes = {f"signed binary over {_readable(s)}": _paired(ours, _group(evidence, s)) for s in ("binary", "zero_one")}
    quantizer = claims.bench_speedup(evidence, "table signed_binary", "table binary")
    kernel = claims.bench_speedup(evidence, "table signed_binary", "sparse signed_binary")
    estimator = _accuracy(evidence, TOPICS["Q2"].comparisons[0])
    return joined(
        worded(ACCURACY, schemes, "the quantizer"),
        worded(SPEED, {"signed binary over binary": quantizer}, "the quantizer with the same kernel"),
        estimator._replace(text=f"the estimator, {estimator.text}"),
        worded(SPEED, {"sums that are shared over sums that only skip zeros": kernel}, "the kernel"),
    )


def _complete(frame: DataFrame, *columns: str) -> int:
    """How many rows have a value in all of these columns."""
    return int(frame.reindex(columns=columns).notna().all(axis=1).sum())


def named_points(evidence: Evidence) -> Answer:
    """How many points of the figures say what they are of."""
    train, bench = evidence.train, evidence.bench
    if train.empty or bench.empty:
        raise MissingRecord("a training run and a benchmark")
    named = _complete(train, "model", "dataset", "width", "quantizer", "seed", "top1_percent")
    timed = _complete(bench, "study", "shapes", "layer", "contender", "threads", "batch")
    text = (
        f"{named} of {len(train)} training runs ({train['label'].nunique()} groups) name their network, width, data "
        f"set, scheme, seed and metric, and {timed} of {len(bench)} rows of benchmarks their study, network, layer, "
        "contender, threads and batch"
    )
    return Answer(text, (Measured(float(named), 0.0, 1, ("all",)),))


def specification(evidence: Evidence) -> Answer:
    """What a record says of how it came about; the method itself is specified in the docstrings of quantizers.py."""
    files = pd.concat([evidence.train, evidence.bench]).drop_duplicates("path") if len(evidence.train) else DataFrame()
    if files.empty:
        raise MissingRecord("a training run")
    traced = _complete(files, "id", "provenance_commit", "provenance_started_utc")
    clean = files.reindex(columns=["provenance_dirty"])["provenance_dirty"].eq(False).sum()
    text = (
        f"the method is specified in sbkit/quantizers.py, and {traced} of {len(files)} records name their "
        f"configuration and the commit that wrote them, {clean} of these from unchanged code"
    )
    return Answer(text, (Measured(float(traced), 0.0, 1, ("all",)),))


ANSWERS: dict[str, Callable[[Evidence], Answer]] = {
    function.__name__: function
    for function in (
        parts_of_the_design,
        measured_speed,
        named_points,
        sign_assignment,
        without_sparsity_support,
        bits_or_repetition,
        learned_repetition,
        cost_over_density,
        two_meanings_of_a_bit,
        baselines,
        post_training,
        fine_tuning,
        linear_layers,
        specification,
        region_size,
        estimators,
        distillation,
        corruptions_and_classes,
        transformers,
        other_hardware,
        thresholds,
        against_ttq,
        regularizers,
        attacks,
    )
}
