"""Questions: what is wrong with a questions.toml, and whether the committed records bear every answer out."""

import math
from pathlib import Path

import pytest

from sbkit.evidence import questions, runs
from sbkit.evidence.stats import Measured, MissingRecord

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module")
def listed():
    return questions.load_questions(NOTEBOOKS / "questions.toml")


@pytest.fixture(scope="module")
def table(listed, committed):
    return questions.numbers_table(listed, lambda profile: committed(profile.removeprefix("reference/")))


def test_every_question_is_asked_once(listed):
    assert [row["id"] for row in listed] == [f"R{n}" for n in range(1, 15)] + [f"Q{n}" for n in range(1, 11)]
    assert all((NOTEBOOKS / f"{row['notebook']}.ipynb").is_file() for row in listed)


def test_the_committed_records_agree_with_every_answer(table):
    """An answer that fails here needs other words, or its number another sign."""
    wrong = table[~table["holds"].isin(["agrees", "-"])]
    assert wrong.empty, wrong[["id", "what", "ours", "sign", "lacks"]].to_string()


def test_r10_compares_designs_at_the_best_rate_of_their_search(listed):
    """By accuracy on validation images, among the four rates of review_rates; 0.01 is the recipe's."""
    searched = runs.read(NOTEBOOKS.parent / "results/reference/review_rates")
    (row,) = (row for row in listed if row["id"] == "R10")
    compared = [number for number in row["numbers"] if number["profile"] == "review"]
    for selector in [number[side] for number in compared for side in ("ours", "over")]:
        own, design = selector.get("learning_rate", 0.01), {k: v for k, v in selector.items() if k != "learning_rate"}
        tried = {
            rate: runs.find(searched, **design, learning_rate="default" if rate == 0.01 else rate)
            for rate in (0.005, 0.01, 0.02, 0.04)
        }
        top1 = {rate: found["top1_percent"].item() for rate, found in tried.items()}
        assert top1[own] == max(top1.values()), (selector, top1)
    assert len(searched) == 4 * len({str(number["over"]) for number in compared} | {"ours"})


def test_answers_rely_on_signs(listed, table):
    relied = set(table.loc[table["sign"] != "", "id"])
    assert {row["id"] for row in listed} - relied == {"R3", "R14"}, "which are about the paper's text"


def test_answers_are_short(listed):
    for row in listed:
        assert len(row["answer"].split()) <= 4 and 15 < len(row["text"].split()) < 100, row["id"]


@pytest.mark.parametrize(
    ("sign", "low", "high", "word"),
    [
        ("+", 0.1, 0.3, "agrees"),
        ("+", -0.1, 0.3, "undecided"),
        ("+", -0.3, -0.1, "disagrees"),
        ("-", -0.3, -0.1, "agrees"),
        ("-", -0.1, 0.1, "undecided"),
        ("0", -0.1, 0.1, "agrees"),
        ("0", 0.1, 0.3, "disagrees"),
        ("", 0.1, 0.3, "-"),
    ],
)
def test_holds(sign, low, high, word):
    found = Measured((low + high) / 2, (high - low) / 2, 3)
    assert questions.holds(sign, found, 0.0) == word and word in questions.HOLDS
    assert questions.holds(sign, None, 0.0) == "not measured"


ROW = {"what": "speed", "measure": "speedup", "profile": "speed", "sign": "+"}
WAYS = {"ours": {"algorithm": "table", "scheme": "binary"}, "over": {"best": "fp32 library"}}
QUESTION = dict.fromkeys(
    ("who", "question", "authors", "experiment", "answer", "text", "command", "notebook", "figure"), "x"
)
QUESTION |= {"id": "R2", "numbers": [ROW | WAYS]}


def measurer(values):
    def measure(name, arguments):
        if name not in values:
            raise MissingRecord("a benchmark")
        return values[name]

    return measure


def test_own_records_come_first_and_are_said_to_disagree():
    reference = {"reference/speed": measurer({"speedup": Measured(2.0, 0.1, 7)})}
    own = reference | {"mine": measurer({"speedup": Measured(0.5, 0.1, 7)})}
    table = questions.numbers_table([QUESTION], own.__getitem__, "mine")
    assert table.loc[0, ["profile", "holds"]].tolist() == ["mine", "disagrees"]
    text = questions.as_markdown(questions.answers_table([QUESTION], table), table)
    assert questions.DISAGREES in text and "**x.** x" in text
    for lacking in ({}, {"speedup": Measured(0.5, math.nan, 1)}):
        asked = reference | {"mine": measurer(lacking)}
        table = questions.numbers_table([QUESTION], asked.__getitem__, "mine")
        assert table.loc[0, ["profile", "holds"]].tolist() == ["reference/speed", "agrees"]
    fixed = QUESTION | {"numbers": [ROW | WAYS | {"fixed": True}]}
    assert questions.numbers_table([fixed], own.__getitem__, "mine").loc[0, "profile"] == "reference/speed"


def test_what_nothing_measures_is_said():
    table = questions.numbers_table([QUESTION], lambda profile: measurer({}))
    assert table.loc[0, ["ours", "holds", "lacks"]].tolist() == ["-", "not measured", "a benchmark"]
    assert questions.answers_table([QUESTION], table).loc[0, "holds"] == "not measured"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"measure": "guess"}, "question R2: number 'speed': measure = 'guess'; allowed"),
        ({"sign": "up"}, "question R2: number 'speed': sign = 'up'; allowed: \\+, 0, -"),
        ({"ours": {"algorithm": "x"}}, "question R2: number 'speed': algorithm = 'x'; allowed: dense"),
        ({"colour": 1}, "question R2: number 'speed': argument of speedup = 'colour'; allowed: ours, over"),
        ({"neutral": "one"}, "question R2: number 'speed': neutral = 'one'; allowed: a finite number"),
        ({"profile": None}, "question R2: the number 'speed' lacks profile"),
    ],
)
def test_load_questions_names_what_is_wrong(monkeypatch, number, message):
    row = {key: value for key, value in (ROW | WAYS | number).items() if value is not None}
    monkeypatch.setattr(questions, "tables", lambda *_, **__: [QUESTION | {"numbers": [row]}])
    with pytest.raises(ValueError, match=message):
        questions.load_questions("questions.toml")


def test_an_empty_answer_is_refused(monkeypatch):
    monkeypatch.setattr(questions, "tables", lambda *_, **__: [QUESTION | {"answer": " "}])
    with pytest.raises(ValueError, match="question R2: answer = ''; allowed: any text"):
        questions.load_questions("questions.toml")
