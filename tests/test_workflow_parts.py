"""The parts of the batch driver that need no batch: the estimate of its time, what is a job's code, and left out."""

import json
import runpy
from collections import Counter
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[1] / "workflow"


@pytest.fixture(scope="module")
def lines():
    return runpy.run_path(WORKFLOW / "snakemake_logger_plugin_lines" / "__init__.py")


def test_estimate_counts_each_rule_by_its_own_mean_and_jobs_side_by_side(lines):
    estimate = lines["Estimate"](Counter(train=4, draw=2), now=100)
    estimate.finished("train", 10)
    assert estimate.remaining(now=110) == 3 * 10 + 2 * 10  # no drawing has finished: it counts as the mean of all
    estimate.finished("draw", 2)
    assert estimate.remaining(now=112) == 3 * 10 + 1 * 2
    estimate.finished("train", 20)
    assert estimate.remaining(now=116) == (2 * 15 + 1 * 2) / 2  # 32 seconds of work took 16
    for rule in ("train", "train", "draw", "again"):  # a job that failed runs again, beyond the count
        estimate.finished(rule, 1)
    assert estimate.remaining(now=120) == 0


@pytest.mark.parametrize(
    "seconds, text", [(0, "0 s"), (89, "89 s"), (90, "2 minutes"), (5399, "90 minutes"), (5400, "1.5 hours")]
)
def test_seconds_as_people_say_them(lines, seconds, text):
    assert lines["spoken"](seconds) == text


def test_code_of_a_job_is_what_it_imports_at_any_depth(tmp_path):
    files = {
        "sbkit/__init__.py": "",
        "sbkit/a.py": "def later():\n    from sbkit.p import (\n        q as renamed,\n    )\n    import numpy",
        "sbkit/p/__init__.py": "",
        "sbkit/p/q.py": "import sbkit.c, os\nfrom sbkit.a import later",
        "sbkit/p/unused.py": "",
        "sbkit/c.py": "NUMBER = 1",
        "sbkit/d.py": "",
        "n.ipynb": json.dumps(
            {
                "cells": [
                    {"cell_type": "markdown", "source": ["import sbkit.d"]},
                    {"cell_type": "code", "source": ["from sbkit import a\n", "1"]},
                ]
            }
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    imported = runpy.run_path(WORKFLOW / "imports.py")["imported"]
    read = ["sbkit/__init__.py", "sbkit/a.py", "sbkit/c.py", "sbkit/p/__init__.py", "sbkit/p/q.py"]
    assert imported(tmp_path, "n.ipynb") == read
    assert imported(tmp_path, "sbkit/c.py") == []


@pytest.fixture
def left_out(monkeypatch):
    """That function, as the process that starts a batch has it on a CPU without AVX-512."""
    monkeypatch.setenv("SBKIT_LEFT_OUT", "")  # so that it is gone after the test
    monkeypatch.delenv("SBKIT_LEFT_OUT")
    monkeypatch.setenv("SBKIT_ISA", "avx2")
    function = runpy.run_path(WORKFLOW / "instructions.py")["left_out"]
    return lambda isas: function({"name": name, "parameters": {"isa": isa}} for name, isa in isas.items())


def test_what_is_not_usable_is_left_out_and_named_once(left_out, capsys, monkeypatch):
    asked = {"a": "auto", "b": "avx512", "c": "scalar", "d": "avx512", "misspelt": "avx-512", "wrong": ["avx2"]}
    assert left_out(asked) == ["b", "d"]
    assert capsys.readouterr().err == "left out, as avx512 is not usable here: b, d\n"
    monkeypatch.setenv("SBKIT_ISA", "scalar")  # a job on another machine is told
    assert left_out(asked | {"a": "avx2"}) == ["b", "d"] and capsys.readouterr().err == ""


def test_a_person_may_say_what_is_left_out(left_out, monkeypatch):
    for words, names in (("", []), ("a  b", ["a", "b"])):
        monkeypatch.setenv("SBKIT_LEFT_OUT", words)
        assert left_out({"a": "auto", "b": "avx512"}) == names
    monkeypatch.setenv("SBKIT_LEFT_OUT", "a,b")
    with pytest.raises(ValueError, match="a word of SBKIT_LEFT_OUT = 'a,b'; allowed: a, b"):
        left_out({"a": "auto", "b": "avx512"})
