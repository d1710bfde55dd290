"""Trained codes are those of the right run, beside random codes of the same density, all of them checked."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sbkit import records
from sbkit.bench import BenchConfig, benchmark, codes, measure, ours
from sbkit.conv import load_weights
from sbkit.designs import DESIGNS
from sbkit.way import Way

CIFAR = Path(__file__).parents[1] / "results" / "reference" / "cifar"
CONFIG = BenchConfig("integer_codes", shapes="resnet20", algorithms="table", networks=str(CIFAR))


@pytest.fixture
def profile(tmp_path):
    """A function that copies runs of the committed profile: folder and names, and returns a configuration."""

    def of(*names, **options):
        for name in names:
            for file in (f"records/train/{name}.json", f"weights/{name}.npz"):
                (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CIFAR / file, tmp_path / file)
        return BenchConfig(**vars(CONFIG) | {"networks": str(tmp_path)} | options)

    return of


def test_each_design_is_timed_on_trained_and_random_codes(profile):
    skipped = []
    config = profile("random_signs-s0", "binary-s0")
    found = list(codes.codes(config, skipped))
    assert [subject.columns["layer"] for subject in found] == ["16→16 @32", "32→32 @16", "64→64 @8"]
    names = {records.load(CIFAR / f"records/train/{name}-s0.json").id: name for name in ("random_signs", "binary")}
    expected = [("binary", Way("table", "binary", encoding)) for encoding in ("two_group", "rewritten")]
    expected.append(("random_signs", Way("table", "signed_binary", regions=4)))
    for subject, layer in zip(found, ("layer1.2.conv2", "layer2.2.conv2", "layer3.2.conv2"), strict=True):
        timed = [(names[c.columns["run"]], c.columns["codes"], c.way.options()) for c in subject.contenders]
        six = {"activation_bits": 6}
        assert timed == [(d, kind, way.options() | six) for d, way in expected for kind in ("trained", "random")]
        for contender in subject.contenders:
            weight = load_weights(CIFAR / f"weights/{contender.columns['design']}-s0.npz")[layer]
            exact = contender.columns["density"] == weight.density
            assert (
                exact
                if contender.columns["codes"] == "trained"
                else abs(contender.columns["density"] - weight.density) < 0.03
            )
    assert [text.partition(":")[0] for text in skipped] == ["signed_binary", "learned_signs", "masks_16_of_8"]


def test_a_run_is_known_by_its_configuration_and_its_start(profile):
    """binary_narrow has other shapes, filter_mean is no design, and binary_fp32 a later run of binary."""
    names = ("binary-s0", "binary_fp32-s0", "binary_narrow-s0", "filter_mean-s0", "binary-s1")
    config = profile(*names)
    started = {name: records.load(CIFAR / f"records/train/{name}.json").provenance["started_utc"] for name in names[:2]}
    record, _ = codes.first(config, "binary")
    assert record == records.load(CIFAR / f"records/train/{min(started, key=started.get)}.json")
    assert codes.first(config, "signed_binary") is None
    assert codes.first(profile(seed=1), "binary")[0] == records.load(CIFAR / "records/train/binary-s1.json")


def test_wrong_sums_of_trained_codes_are_not_timed(monkeypatch, profile):
    right = ours.exact_sums
    monkeypatch.setattr(ours, "exact_sums", lambda *args: np.roll(right(*args), 1))
    monkeypatch.setattr(benchmark, "timings", lambda *_: pytest.fail("timed"))
    with pytest.raises(AssertionError, match=r"table, binary, 6-bit activations on .* differs from the reference"):
        measure(profile("binary-s0"))


@pytest.mark.parametrize("options", [{"seed": 5}, {"shapes": "tiny"}])
def test_a_folder_without_such_codes(profile, options):
    with pytest.raises(ValueError, match=r"holds no codes of binary, .*; allowed: a profile's folder with weights/ of"):
        measure(profile("binary-s0", **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": ""}, "networks = '' in the study integer_codes; allowed: the folder of a profile"),
        ({"shapes": "sizes"}, "shapes = 'sizes'; allowed: resnet18, resnet20, vgg_small, tiny"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        BenchConfig(**vars(CONFIG) | options)


def test_the_designs_have_ways():
    ways = {(w.scheme, w.regions, w.codebook_bits) for w in codes.STUDIES["integer_codes"].ways}
    assert {codes.form(DESIGNS[design]) for design in codes.CODES} == ways
