"""Measures: selectors and their errors, and numbers of the committed records."""

import math

import pytest
from pandas import DataFrame

from sbkit.evidence import benchmarks
from sbkit.evidence.gather import Evidence
from sbkit.evidence.measures import MEASURES, Measurer, prepared
from sbkit.evidence.measures.registry import BEST, Group
from sbkit.evidence.stats import COUNTED, MissingRecord
from sbkit.way import Way

SIGNED, BINARY = {"design": "signed_binary"}, {"design": "binary"}
TABLE = {"algorithm": "table", "scheme": "signed_binary"}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("guess", {}, "measure = 'guess'; allowed: .*top1_gap"),
        ("top1_gap", {"ours": SIGNED}, "top1_gap lacks over; allowed: ours, over"),
        ("top1_gap", {"ours": SIGNED, "under": BINARY}, "argument of top1_gap = 'under'; allowed: ours, over"),
        ("top1_gap", {"ours": "signed_binary", "over": BINARY}, "ours = 'signed_binary'; allowed: a table"),
        ("density", {"ours": {"design": "best"}}, "design = 'best'; allowed: .*signed_binary"),
        ("speedup", {"ours": {"algorithm": "tables"}, "over": TABLE}, "algorithm = 'tables'; allowed: dense"),
        ("speedup", {"ours": TABLE, "over": {"best": "library"}}, "best = 'library'; allowed: fp32 library"),
        ("operation_reduction", {"ours": SIGNED, "form": {"scheme": "binary"}}, "field of a form = 'scheme'; allowed"),
    ],
)
def test_a_wrong_selector_is_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        prepared(name, arguments)


def test_selectors_become_values():
    found = prepared("speedup", {"ours": TABLE, "over": {"best": "fp32 library"}, "channels": 64})
    assert found == {"ours": Way("table", "signed_binary"), "over": BEST, "channels": 64}
    assert prepared("density", {"ours": SIGNED | {"l1": 1e-5}})["ours"] == Group("signed_binary", (("l1", 1e-5),))


def test_a_group_is_one_design_and_no_other(committed):
    """The paper's design does not borrow the accuracy of designs with finer signs."""
    measurer = committed("review")

    def sparsity(**ours):
        return measurer("sparsity_at_comparable_accuracy", {"ours": ours, "over": BINARY})

    assert sparsity(design="signed_binary").value == sparsity(design="signed_binary", delta_factor=0.3).value == 0
    assert sparsity(design="learned_signs").value == pytest.approx(1 - 0.331, abs=1e-3)
    with pytest.raises(MissingRecord, match=r"a training run of the design signed_binary, delta_factor = 0\.25"):
        sparsity(design="signed_binary", delta_factor=0.25)


def test_equal_effectual_weights_need_a_model_of_that_size(committed):
    measurer = committed("cifar")
    found = measurer("top1_gap_equal_effectual", {"ours": SIGNED, "over": BINARY})
    assert found.value == pytest.approx(-5.823, abs=1e-3) and any("narrow_9" in name for name in found.names)
    with pytest.raises(MissingRecord, match=r"design zero_one with about .* effectual weights"):
        measurer("top1_gap_equal_effectual", {"ours": {"design": "learned_signs"}, "over": {"design": "zero_one"}})


def test_speed_over_the_best_library_beats_none_by_more_than_over_one(committed):
    measurer = committed("speed")
    best = measurer("speedup", {"ours": TABLE, "over": {"best": "fp32 library"}})
    each = [
        measurer("speedup", {"ours": TABLE, "over": {"algorithm": "torch", "variant": variant}})
        for variant in ("contiguous", "channels_last")
    ]
    assert best.n == 7 and best.of == "rounds" and best.value <= min(row.value for row in each)
    both = [{"algorithm": "table", "scheme": s} for s in ("zero_one", "signed_binary")]
    fewer = measurer("bench_fewer_operations", {"ours": both[0], "over": both[1]})
    assert fewer.value == 1, "exactly, whatever the timings"
    with pytest.raises(MissingRecord, match="a benchmark with table, signed binary, zeros kept, tables of 3 channels"):
        measurer("speedup", {"ours": TABLE | {"group": 3, "skip_zeros": False}, "over": TABLE})
    with pytest.raises(MissingRecord, match="a benchmark of the study density, resnet20"):
        measurer("speedup", {"ours": TABLE, "over": TABLE, "study": "density", "shapes": "resnet20"})


def test_the_model_has_a_range_and_no_interval(committed):
    found = committed("review")("modelled_energy", {"ours": SIGNED, "over": BINARY})
    assert found.low < found.value < found.high and found.of == "assumptions" and found.n > 20
    assert str(found) == "0.73 (0.37 to 0.97)"
    latency, throughput = (
        committed("review")(f"modelled_{name}", {"ours": SIGNED, "over": BINARY}) for name in ("latency", "throughput")
    )
    assert latency.low == pytest.approx(1 / throughput.high) and latency.high == pytest.approx(1 / throughput.low)


def test_an_untrained_network_is_denser(committed):
    measurer = committed("review")
    untrained, trained = (measurer(name, {"ours": SIGNED}).value for name in ("untrained_density", "density"))
    assert untrained == pytest.approx(0.435, abs=0.005) and trained < untrained - 0.08


def test_differences_turn_their_sign_with_their_groups(committed):
    measurer = committed("review")
    for name, more in (("kept_gap", {"kind": "attack"}), ("worst_class_gap", {}), ("flips_gap", {}), ("top1_gap", {})):
        there, back = (
            measurer(name, {"ours": ours, "over": over} | more) for ours, over in ((SIGNED, BINARY), (BINARY, SIGNED))
        )
        assert (there.value, there.half_width) == pytest.approx((-back.value, back.half_width)), name
    with pytest.raises(ValueError, match="kind = 'attacks'; allowed: corruption, attack"):
        measurer("kept_gap", {"ours": SIGNED, "over": BINARY, "kind": "attacks"})


def test_what_no_record_measures_is_missing(tmp_path):
    from sbkit.evidence.gather import gather

    measurer = Measurer(gather(tmp_path))
    ours = {"ours": SIGNED, "over": BINARY}
    for name, arguments in (("top1_gap", ours), ("filter_repetition", ours), ("modelled_energy", ours)):
        with pytest.raises(MissingRecord, match="a training run of the design signed_binary"):
            measurer(name, arguments)
    with pytest.raises(MissingRecord, match="a benchmark of the study layers, resnet18"):
        measurer("speedup", {"ours": TABLE, "over": TABLE})


def test_every_measure_says_what_it_counts(committed):
    reckoned = Measurer(Evidence(None, None, {}))
    assert reckoned("distinct_patterns", {"scheme": "signed_binary"}).value == 1023
    assert [reckoned("toy_exists", {"printed": printed}).value for printed in (False, True)] == [1, 0]
    assert reckoned("paper_ratio", {"numerator": "row_signed_binary", "denominator": "row_ternary"}).of == "exact"
    with pytest.raises(ValueError, match="paper = 'speed'; allowed: speedup_over_binary"):
        reckoned("paper_value", {"key": "speed"})
    for name in ("speedup", "top1_gap"):
        assert MEASURES[name].neutral is not None and MEASURES[name].unit
    assert committed("review")("density", {"ours": SIGNED}).of in COUNTED
    assert not math.isnan(committed("review")("code_bits", {"scheme": "binary"}).value)


def test_intervals_of_pooled_benchmarks_count_processes():
    rows = [{"way": TABLE, "round_ms": [1.0, 2.0, 3.0, 7.0, 8.0, 90.0], "processes": 2}]
    rows += [{"way": TABLE, "round_ms": [1.0, 2.0, 3.0], "processes": None}]
    table = benchmarks.timed(DataFrame(rows))
    pooled, alone = table["round_ms"]
    assert list(pooled) == [2, 8] and alone == [1, 2, 3] and list(table["of"]) == ["processes", "rounds"]
