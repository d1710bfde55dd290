"""10_open_review and 00_overview: their tables on the committed records, and that what is drawn stands in them."""

from pathlib import Path

import pandas as pd
import pytest

from sbkit.evidence import runs
from sbkit.evidence.questions import load_questions
from sbkit.figures import open_review, overview

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def review(committed):
    return committed("review")._evidence.train


def test_robustness_starts_at_clean_images(review):
    table = open_review.robustness_table(review)
    clean = table[table["strength"] == 0].groupby("label")["top1_mean_percent"].nunique()
    assert (clean == 1).all() and set(table["kind"]) == {"corruption", "attack"}
    assert set(table.loc[table["plain"], "quantizer"]) >= {"binary", "signed_binary", "zero_one"}
    assert table.loc[table["plain"], "label"].nunique() == table.loc[table["plain"], "quantizer"].nunique()


def test_figures_draw_their_tables(review):
    robust = open_review.fig_robustness(open_review.robustness_table(review))
    assert {"PGD", "gaussian noise"} <= {axis.get_title() for axis in robust.axes}
    with pytest.raises(ValueError, match="fig_robustness got an empty table"):
        open_review.fig_robustness(pd.DataFrame())


def test_nothing_to_compare_gives_empty_tables(tmp_path):
    train = runs.read(tmp_path)
    assert open_review.robustness_table(train).empty


def test_answers_of_a_profile_without_records_are_the_committed_ones():
    listed = [row for row in load_questions(ROOT / "notebooks" / "questions.toml") if row["id"] in ("R12", "R3")]
    answers, numbers = open_review.answers(listed, ROOT / "results", "smoke")
    assert answers.set_index("id")["holds"].to_dict() == {"R3": "-", "R12": "agrees"}
    assert set(numbers["profile"]) == {"reference/review"}


def test_overview_has_its_tables(tmp_path):
    tables = overview.tables(ROOT, tmp_path, {})
    assert list(tables) == ["claims_headline", "claims", "claims_tests", "contradictions", "identities", "inventory"]
    assert set(overview.CLAIMS) <= set(tables["claims"]) and len(overview.CLAIMS) <= 7
    assert all(len(table.columns) <= 7 for stem, table in tables.items() if stem != "claims")
