"""The open review: how numbers are worded, what compares with what, every question answered on synthetic records."""

import math
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recorded import bench_record, density_record, network_record, train_record

from sbkit import records, review
from sbkit.analysis import Evidence, group_runs
from sbkit.claims import Measured, MissingRecord
from sbkit.conv import QuantizedWeight, save_weights
from sbkit.notebook import expand, load_experiments
from sbkit.repetition import random_codes

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
QUESTIONS = NOTEBOOKS / "questions.toml"


# Top-1 of the review profile's runs beside signed_binary's 80, by the beginning of their names; seeds differ by 0.1.
EFFECTS = {
    "full_precision": 8,
    "binary": 4,
    "zero_one": -6,
    "ternary": 5,
    "ablate_swapped": -10,
    "ablate_random": -1,
    "ablate_regions_8": 1,  # over ablate_random: 2
    "review_post_training": -40,
    "review_binary_irnet": 4.5,
    "ablate_l1_1e-3": -3,
}
DENSITY = {"binary": 1.0, "full_precision": 1.0, "zero_one": 0.3, "signed_binary": 0.35, "ternary_twn": 0.6}


def top1(label, seed):
    effect = next((EFFECTS[key] for key in sorted(EFFECTS, key=len, reverse=True) if label.startswith(key)), 0)
    return 80 + effect + 0.1 * seed + (0.01 * seed if label != "signed_binary" else 0)


def write_review(folder):
    """Records of every training run of the profile `review`, with the configurations that training would record."""
    training = pytest.importorskip("sbkit.training")
    from sbkit.quantizers import QuantizerConfig

    for run in expand("review"):
        if run["notebook"] != "02_train.ipynb":
            continue
        kinds = (training.TrainConfig, QuantizerConfig)
        options = run["parameters"]
        configs = [kind(**{k: v for k, v in options.items() if k in kind.__dataclass_fields__}) for kind in kinds]
        config = training.effective(*configs)
        label, _, seed = run["name"].rpartition("-s")
        score, scheme = top1(label, int(seed)), options["quantizer"]
        density = DENSITY.get(scheme, 0.8) - (0.2 if label in ("ablate_delta_0.3", "ablate_l1_1e-3") else 0)
        history = {
            "epochs": [{"epoch": e, "top1_percent": score, "flip_fraction": 0.4 / e} for e in (1, 2)],
            "per_class_percent": [score - 30, score, score + 10, None],
        }
        if options.get("robustness"):
            harm = 2 if scheme == "binary" else 3
            history["robustness"] = {
                "images": 1000,
                "top1_percent": score,
                "corruptions": [
                    {"corruption": name, "severity": s, "top1_percent": score - harm * s}
                    for name in ("gaussian_noise", "contrast")
                    for s in (1, 2, 3)
                ],
                "attacks": [
                    {"attack": name, "epsilon": e / 255, "top1_percent": score - harm * e}
                    for name in ("fgsm", "pgd")
                    for e in (2, 4)
                ],
            }
        bits = 32 if scheme == "full_precision" else 2 if scheme.startswith("ternary") else 1
        metrics = {"top1_percent": score, "density": density, "effectual_weights": 1000, "total_parameters": 2000}
        metrics["weight_bits"] = bits
        provenance = {"status": "ok", "cpu": "test", "commit": "c0ffee", "dirty": False, "started_utc": "2026"}
        record = records.Record("train", run["name"], config, metrics, history, provenance)
        records.write(record, folder / "records" / "train" / f"{run['name']}.json")
        if label in ("binary", "signed_binary", "ternary_twn", "ternary_ttq"):
            generator = np.random.default_rng(int(seed))
            codes = {f"conv{K}": random_codes(label, (K, K, 3, 3), density, generator) for K in (8, 16)}
            save_weights(folder / "weights" / f"{run['name']}.npz", codes)
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder: reference/review with all its training runs, reference/quick with the benchmarks alone."""
    folder = tmp_path_factory.mktemp("results")
    write_review(folder / "reference" / "review")
    quick = folder / "reference" / "quick"
    bench_record(quick)
    density_record(quick)
    network_record(quick, 1)
    return folder


@pytest.fixture(scope="module")
def runs(results):
    return group_runs(records.read(results / "reference" / "review", "train"))


@pytest.fixture(scope="module")
def whole(results):
    """The training runs and the benchmarks in one evidence."""
    train, bench = review.gather(results, ["reference/review", "reference/quick"]).values()
    return train._replace(bench=bench.bench)


# Questions


def test_every_concern_and_question_is_asked_once_and_has_its_own_answer():
    questions = review.load_questions(QUESTIONS)
    assert [q["id"] for q in questions] == [f"R{i}" for i in range(1, 15)] + [f"Q{i}" for i in range(1, 11)]
    assert sorted(q["measure"] for q in questions) == sorted(review.ANSWERS)
    assert {q["id"] for q in questions} >= review.TOPICS.keys()


def test_questions_name_what_exists():
    from sbkit import plots

    profiles = load_experiments()
    for question in review.load_questions(QUESTIONS):
        assert (NOTEBOOKS / f"{question['notebook']}.ipynb").is_file(), question["id"]
        assert not question["figure"] or hasattr(plots, f"fig_{question['figure']}"), question["id"]
        program, _, profile = question["command"].partition(" PROFILE=")
        assert program in ("make reproduce", "make bench", "make test") and profile in ("", *profiles)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": "guess"}, "question R1: measure = 'guess'; allowed: parts_of_the_design"),
        ({"colour": "red"}, "question R1 in .* holds unknown keys colour"),
        ({"who": ""}, "question R1: who is empty; allowed: any text"),
        ({"command": None}, "question R1 in .* lacks command"),
    ],
)
def test_load_questions_names_what_is_wrong(tmp_path, change, message):
    question = tomllib.loads(QUESTIONS.read_text())["question"][0] | change
    path = tmp_path / "questions.toml"
    path.write_text("[[question]]\n" + "".join(f'{k} = "{v}"\n' for k, v in question.items() if v is not None))
    with pytest.raises(ValueError, match=message):
        review.load_questions(path)


def test_load_questions_refuses_an_id_twice(tmp_path):
    path = tmp_path / "questions.toml"
    path.write_text(QUESTIONS.read_text() * 2)
    with pytest.raises(ValueError, match="twice: Q1, Q10"):
        review.load_questions(path)


# Words


def of(value, half_width, n=3):
    return Measured(value, half_width, n, ("a-s0", "a-s1", "b-s0"))


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        (of(0.5, 0.4), "x (+0.50 ± 0.40) gained accuracy (points, n=3)"),
        (of(0.5, 0.5), "x (+0.50 ± 0.50) made no measurable difference (points, n=3)"),
        (of(-0.5, 0.6), "x (-0.50 ± 0.60) made no measurable difference (points, n=3)"),
        (of(-0.5, 0.4, 5), "x (-0.50 ± 0.40) lost accuracy (points, n=5)"),
        (of(2.0, 0.0, 1), "x (+2.00) gained accuracy (points, exact)"),
    ],
)
def test_an_effect_is_named_only_where_its_interval_excludes_none(measured, text):
    assert review.worded(review.ACCURACY, {"x": measured}).text == text


def test_one_run_decides_nothing():
    with pytest.raises(MissingRecord, match="a second seed beside a-s0"):
        review.worded(review.ACCURACY, {"x": of(0.5, 0.4), "y": Measured(9.0, math.nan, 1, ("a-s0",))})


def test_ratios_are_neutral_at_one_and_items_share_a_verb():
    found = {"a": of(1.26, 0.1), "b": of(0.9, 0.05, 25), "c": of(1.5, 0.2), "d": of(1.0, 0.1)}
    answer = review.worded(review.SPEED, found, "layers")
    assert answer.text == (
        "layers: a (1.26 ± 0.10) and c (1.50 ± 0.20) ran faster, b (0.90 ± 0.05) ran slower, "
        "d (1.00 ± 0.10) ran neither measurably faster nor slower (times as fast, n=3 to 25)"
    )
    assert (answer.n, answer.labels) == ("3 to 25", ["a", "b"])


# Comparisons


def test_every_ablation_of_the_review_profile_is_compared(runs):
    table = review.differences_table(runs)
    special = {label for label in runs["label"] if label.startswith(("ablate_", "review_"))}
    bases = {comparison.base for topic in review.TOPICS.values() for comparison in topic.comparisons}
    assert special - bases <= set(table["label"])
    assert not table["label"].duplicated().any(), "each group once, under the question that it answers first"
    by_label = table.set_index("label")
    assert by_label.loc["ablate_swapped", ["question", "differs"]].tolist() == ["R4", "swap_at"]
    assert by_label.loc["ablate_regions_8", ["question", "over"]].tolist() == ["Q1", "random"]
    transformer = by_label.loc["review_transformer_signed_binary", ["what", "over"]]
    assert transformer.tolist() == ["signed binary", "transformer binary"]
    assert by_label.loc["review_binary_irnet", "question"] == "R10"
    assert by_label.loc["review_binary_distilled", ["question", "over"]].tolist() == ["Q3", "binary"]
    assert set(by_label.index[by_label["question"] == "R11"]) == {
        "review_post_training", "review_post_training_regions", "review_post_training_binary",
    }  # fmt: skip


def test_differences_are_paired_by_seed(runs):
    row = review.differences_table(runs).set_index("label").loc["ablate_regions_8"]
    assert (row["n"], row["difference_mean_points"]) == (3, pytest.approx(2.0))
    assert row["difference_half_width_points"] == pytest.approx(0, abs=1e-9)


def test_a_run_that_differs_in_two_ways_is_compared_with_neither(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 80.0)
    train_record(tmp_path, "ablate_swapped", 0, 70.0, quantizer="signed_binary", swap_at=0.5)
    train_record(tmp_path, "ablate_both", 0, 60.0, quantizer="signed_binary", swap_at=0.5, epochs=9)
    runs = group_runs(records.read(tmp_path, "train"))
    assert review.differences_table(runs)["label"].tolist() == ["ablate_swapped"]


def test_a_group_without_a_common_seed_is_not_compared(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 80.0)
    train_record(tmp_path, "binary", 1, 70.0)
    assert review.differences_table(group_runs(records.read(tmp_path, "train"))).empty


# Answers


def test_every_question_is_answered_by_the_first_profile_that_can(results):
    evidences = review.gather(results, ["interactive", "reference/review", "reference/quick"])
    assert list(evidences) == ["reference/review", "reference/quick"], "a profile without records has no say"
    table = review.answers_table(review.load_questions(QUESTIONS), evidences).set_index("id")
    assert table.loc["R4", "profile"] == "reference/review" and table.loc["R8", "profile"] == "reference/quick"
    assert table.loc["R4", "n"] == "3" and table.loc["R8", "n"] == "exact"
    assert "ablate_swapped" in table.loc["R4", "records"]
    unanswered = table[table["profile"] == "-"]
    assert set(unanswered.index) == {"R1", "R3", "R6", "R9", "Q6"}, "these need runs and benchmarks of one profile"
    assert unanswered["answer"].str.startswith("Not measured here; this would: make ").all()
    assert unanswered.loc["R9", "records"] == "missing: a training run of signed_binary"


def test_the_profile_asked_first_wins(whole):
    questions = [question for question in review.load_questions(QUESTIONS) if question["id"] in ("R4", "R5")]
    lesser = whole._replace(train=whole.train[whole.train["label"] != "ablate_swapped"])
    table = review.answers_table(questions, {"quick": lesser, "reference/review": whole})
    assert table["profile"].tolist() == ["reference/review", "quick"], "R4 needs a swap"


def test_without_records_every_question_shows_its_command():
    table = review.answers_table(review.load_questions(QUESTIONS), {})
    commands = [question["command"] for question in review.load_questions(QUESTIONS)]
    assert table["answer"].tolist() == [f"Not measured here; this would: {command}" for command in commands]
    assert (table["n"] == "-").all() and (table["records"] == "missing: any record").all()


@pytest.fixture(scope="module")
def answers(whole):
    table = review.answers_table(review.load_questions(QUESTIONS), {"review": whole})
    assert (table["profile"] == "review").all(), table[["id", "records"]][table["profile"] != "review"]
    assert table["answer"].str.endswith(".").all() and not table["answer"].str.contains("nan").any()
    return table.set_index("id")["answer"]


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("R1", ["signed binary over {0,1} (+5.99 ± 0.02) gained", "over binary (-4.01 ± 0.02) lost", "(1.26 ± 0.00)"]),
        ("R2", ["over table binary (1.26 ± 0.00)", "over table {0,1} (0.96 ± 0.00) ran slower", "resnet18 at batch 1"]),
        ("R3", ["240 of 240 training runs (80 groups) name", "107 of 107 rows of benchmarks"]),
        ("R4", ["random (-0.99 ± 0.02) and swapped (-9.99 ± 0.02) lost accuracy", "positive 25 (+0.01 ± 0.02)"]),
        ("R5", ["skipped (1.26 ± 0.00) and zeros kept (1.11 ± 0.00) ran faster", "kept (1.00 ± 0.00) ran neither"]),
        ("R6", ["binary 1 (exact), signed binary 1 (exact)", "table binary over onnxruntime int8 (0.67 ± 0.00)"]),
        ("R8", ["at density 0.05, the sparsest codes tried"]),
        ("R9", ["signed binary (1.00) needed about as many", "sign per 4 channels (0.81 ± 0.00) ran slower"]),
        ("R10", ["binary irnet (+4.51 ± 0.02)", "gained accuracy", "{0,1} (-5.99 ± 0.02) lost accuracy"]),
        ("R11", ["Over signed binary: post training (-39.99 ± 0.02)", "post training binary"]),
        ("R12", ["from binary (+0.01 ± 0.02)", "made no measurable difference"]),
        ("R13", ["Over mlp binary: full precision (", "over transformer binary: "]),
        ("Q1", ["Over random: regions 8 (+2.00 ± 0.00), regions 16"]),
        ("Q2", ["sb ede standardized (+0.01", "flipped by the last epoch, %: signed binary 20.00 ± 0.00 (n=3)"]),
        ("Q3", ["over binary: distilled", "Over signed binary: ", "from full precision"]),
        ("Q4", ["all corruptions (-", "kept less", "worst class (-4.01 ± 0.02) came out lower", "did not come out"]),
        ("Q5", ["Over transformer binary: "]),
        ("Q6", ["took less energy", "made more images a second", "timings here are of avx2 of test"]),
        ("Q7", ["delta 0.3 (lowest) 0.15 ± 0.00 (n=3)", "signed binary 0.35"]),
        ("Q8", ["ternary ttq (+5.01 ± 0.02) gained accuracy", "density: ternary ttq 0.80", "arithmetic reduction"]),
        ("Q9", ["l1 1e-3 (-2.99 ± 0.02) lost accuracy", "l1 1e-3 (lowest) 0.15"]),
        ("Q10", ["FGSM (-", "PGD (-", "kept less of it", "on clean images signed binary (-4.01 ± 0.02) lost accuracy"]),
    ],
)  # fmt: skip
def test_answers_hold_their_numbers(answers, question, parts):
    for part in parts:
        assert part in answers[question]


def test_repetition_is_learned_where_shuffling_destroys_it(tmp_path):
    generator = np.random.default_rng(0)
    for seed in (0, 1):
        for scheme in ("binary", "ternary_twn", "signed_binary"):
            signs = np.array([1, -1, 1, 1, -1, 1, -1, -1, 1], np.int8)
            random = random_codes(scheme, (16, 16, 3, 3), 1.0 if scheme == "binary" else 0.5, generator)
            same = QuantizedWeight(np.tile(signs, (16, 16, 1)).reshape(16, 16, 3, 3), scheme=scheme)
            codes = same if scheme == "binary" else random
            train_record(tmp_path, scheme, seed, 80.0, codes={"conv": codes})
    (evidence,) = review.gather(tmp_path.parent, [tmp_path.name]).values()
    answer = review.learned_repetition(evidence)
    assert answer.measured[0].value > 50, "one pattern in all filters"
    assert answer.measured[2].value == pytest.approx(1, abs=0.1), "independent codes have no order to lose"
    before = {name: layers["conv"].codes.copy() for name, layers in evidence.weights.items()}
    review.learned_repetition(evidence)
    assert all((evidence.weights[name]["conv"].codes == codes).all() for name, codes in before.items())


def test_points_without_a_name_are_counted(whole):
    train = whole.train.assign(dataset=[None, *whole.train["dataset"][1:]])
    counts = [review.named_points(whole._replace(train=frame)).measured[0].value for frame in (whole.train, train)]
    assert counts == [len(train), len(train) - 1]
    assert review.named_points(whole).text.startswith(f"{len(train)} of {len(train)} training runs (")


def test_records_of_changed_code_are_counted(whole):
    assert f"{whole.train.shape[0]} of these from unchanged code" in review.specification(whole).text
    dirty = whole._replace(train=whole.train.assign(provenance_dirty=True))
    assert "0 of these from unchanged code" in review.specification(dirty).text


# Tables of its figures


def test_robustness_table_begins_at_the_clean_images(runs):
    table = review.robustness_table(runs)
    binary = table[(table["label"] == "binary") & (table["test"] == "contrast")].set_index("strength")
    assert binary.index.tolist() == [0, 1, 2, 3]
    clean, harmed = binary.loc[0, "top1_mean_percent"], binary.loc[3, "top1_mean_percent"]
    assert (clean, harmed) == (pytest.approx(84.11), pytest.approx(78.11))
    assert set(zip(table["kind"], table["test"], strict=True)) == {
        ("corruption", "gaussian_noise"), ("corruption", "contrast"), ("attack", "fgsm"), ("attack", "pgd"),
    }  # fmt: skip
    assert set(table["n"]) == {3}
    assert review.robustness_table(runs[runs["label"] == "ablate_random"]).empty


def test_the_share_of_clean_accuracy_is_compared(runs):
    binary = runs[runs["label"] == "binary"]
    kept = review._kept(binary, "corruption")
    assert list(kept) == ["all", "gaussian_noise", "contrast"]
    expected = [100 * (score - 4) / score for score in binary["top1_percent"]]
    assert kept["contrast"]["kept"].tolist() == pytest.approx(expected)


def test_linear_table_names_network_and_scheme(runs):
    table = review.linear_table(runs)
    assert set(table["model"]) == {"mlp", "transformer"}
    assert set(table["label"]) == {"full_precision", "binary", "zero_one", "signed_binary", "signed_binary_regions"}
    assert len(table) == 27 and set(table["n"]) == {3}
    assert review.linear_table(runs[runs["model"] == "resnet8"]).empty


def test_a_comparison_without_runs_says_which_it_lacks():
    empty = Evidence(group_runs(pd.DataFrame()), pd.DataFrame(), {})
    for answer in review.ANSWERS.values():
        with pytest.raises(MissingRecord, match=r"^(a|benchmarks|training) "):
            answer(empty)
