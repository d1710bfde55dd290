"""The accelerator model against sums done by hand, and what is said about its assumptions."""

import math
from dataclasses import replace

import pytest

from sbkit import energy
from sbkit.conv import NETWORK_SHAPES, ConvShape
from sbkit.energy import Accelerator, Codes
from sbkit.schemes import SCHEMES, Scheme

BINARY, OURS, TERNARY = Codes("binary", 1.0), Codes("signed_binary", 0.25), Codes("ternary_twn", 0.5)
LAYER = ConvShape(16, 8, 8, 16)  # 144 taps, 64 positions: 147,456 multiply-accumulates
SMALL = Accelerator(units=64, filters=16)  # 4 positions a tile: 16 tiles
ADDITION = 2 * 0.9  # pJ: in fp32, with its accumulator
FREE = {"dram_bytes_per_cycle": 10**9, "distribution": 10**9, "reduction": 10**9}  # take no time
BUFFER = energy.buffer_pj_per_bit(128)


def graphs(adds, scheme, density):
    """Codes with graphs of so many additions per weight and position in every layer of ResNet-18."""
    places = {(s.C, s.H, s.K, s.stride): adds * s.weights for s in NETWORK_SHAPES["resnet18"]}
    return Codes(scheme, density, places)


# Constants


def test_memories_cost_what_horowitz_says_and_lie_between():
    for kib, pj in {8: 10, 32: 20, 1024: 100}.items():
        assert 64 * energy.buffer_pj_per_bit(kib) == pytest.approx(pj)
    assert 64 * energy.buffer_pj_per_bit(16) == pytest.approx(10 * math.sqrt(2))
    for kib in (4, 2048):
        with pytest.raises(ValueError, match=f"memory, KiB = {kib}; allowed: a number from 8 to 1024"):
            energy.buffer_pj_per_bit(kib)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "quick"}, "variant = 'quick'; allowed: dense, sparse, repetition"),
        ({"storage": "zip"}, "storage = 'zip'; allowed: packed, entropy, words"),
        ({"units": 0}, "units = 0; allowed: an integer >= 1"),
        ({"filters": 48}, "filters = 48; allowed: a divisor of units = 256"),
        ({"efficiency": 1.5}, "efficiency = 1.5; allowed: a number from 0 to 1"),
        ({"dram_bytes_per_cycle": 0}, "dram_bytes_per_cycle = 0; allowed: an integer >= 1"),
        ({"static_share": -1.0}, "static_share = -1.0; allowed: a number >= 0"),
        ({"buffer_kib": 1}, "buffer_kib = 1; allowed: a number from 8 to 1024"),
    ],
)
def test_an_impossible_machine_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Accelerator(**change)


# One layer, by hand


def test_binary_costs_every_weight():
    cost = energy.layer_cost(LAYER, BINARY, SMALL)
    assert cost.cycles == 16 * 144 == LAYER.macs / 64
    assert cost.arithmetic_pj == pytest.approx(LAYER.macs * ADDITION)
    words, weights, maps = 64 * 144, 16 * 144, 1024 * 32  # words; bits; bits of the inputs, and of the outputs
    dram = weights + 2 * maps
    assert cost.dram_pj == pytest.approx(20 * dram)
    assert cost.buffer_pj == pytest.approx(BUFFER * (32 * words + 16 * weights + maps + dram))
    assert cost.static_pj == pytest.approx(cost.cycles * 64 * ADDITION * 0.001505 / 0.111)
    assert cost.energy_pj == pytest.approx(cost.arithmetic_pj + cost.buffer_pj + cost.dram_pj + cost.static_pj)


def test_zeros_are_skipped_as_well_as_the_machine_can():
    free = replace(SMALL, **FREE)
    dense = energy.layer_cost(LAYER, OURS, replace(free, variant="dense"))
    perfect = energy.layer_cost(LAYER, OURS, free)
    half = energy.layer_cost(LAYER, OURS, replace(free, efficiency=0.5))
    for part in ("cycles", "arithmetic_pj"):
        assert getattr(perfect, part) == pytest.approx(0.25 * getattr(dense, part))
        assert getattr(half, part) == pytest.approx((1 - 0.5 * 0.75) * getattr(dense, part))
    signs = 16
    assert dense.dram_pj - energy.layer_cost(LAYER, BINARY, SMALL).dram_pj == pytest.approx(20 * signs)


def test_an_activation_is_read_unless_all_filters_of_a_tile_have_a_zero_there():
    def words(**changes):
        machine = replace(SMALL, **FREE | {"distribution": 1} | changes)  # which is then the slowest part
        positions = 64 // changes.get("filters", 16)
        return energy.layer_cost(LAYER, Codes("zero_one", 0.25), machine).cycles - 16 * 144 * (64 / positions) / 32

    assert words() == pytest.approx(64 * 144 * (1 - 0.75**16))
    assert words(filters=1) == pytest.approx(16 * 64 * 144 * 0.25)
    assert words(filters=1, skip_reads=False) == pytest.approx(16 * 64 * 144)
    assert words(variant="dense") == pytest.approx(64 * 144)


def test_incomplete_tiles_take_as_long_as_complete_ones():
    odd = ConvShape(16, 7, 7, 17)  # 49 positions in 13 tiles, 17 filters in 2
    assert energy.layer_cost(odd, BINARY, replace(SMALL, **FREE)).cycles == 2 * 13 * 144


def test_what_does_not_fit_comes_from_dram_again():
    layer = ConvShape(256, 16, 16, 256)  # 589,824 bits of weights; 2,097,152 bits of inputs, as many of outputs
    inputs, weights = 256 * 16 * 16 * 32, layer.weights
    for kib, bits in {
        1024: weights + inputs,  # all fits in half of it, 4,194,304 bits
        128: min(weights + 2 * inputs, inputs + 4 * weights),  # 524,288 bits
        32: min(weights + 5 * inputs, inputs + 16 * weights),  # 131,072 bits
    }.items():
        cost = energy.layer_cost(layer, BINARY, Accelerator(buffer_kib=kib))
        assert cost.dram_pj == pytest.approx(20 * (bits + inputs)), kib


def test_latency_is_the_slowest_part_or_a_sum():
    def cycles(layer=LAYER, **changes):
        return energy.layer_cost(layer, BINARY, replace(SMALL, **FREE | changes)).cycles

    words, weights, maps = 64 * 144, 16 * 144, 1024 * 32
    array, dram = 16 * 144, (weights + 2 * maps) / 8
    assert cycles() == array
    assert cycles(distribution=1) == pytest.approx(words + weights * 16 / 32)
    assert cycles(dram_bytes_per_cycle=1) == pytest.approx(dram)
    assert cycles(dram_bytes_per_cycle=1, overlap=False) == pytest.approx(dram + array)
    assert cycles(ConvShape(1, 8, 8, 16, 1, 1, padding=0), reduction=1) == 1024


def test_a_multiplier_costs_each_operation():
    with_multiplier = energy.layer_cost(LAYER, OURS, replace(SMALL, multiply="fp32", accumulate="int32"))
    assert with_multiplier.arithmetic_pj == pytest.approx(LAYER.macs * 0.25 * (3.7 + 2 * 0.1))


@pytest.mark.parametrize(
    ("codes", "packed", "entropy", "words"),
    [
        (BINARY, 1, 1, 8),
        (OURS, 1, 0.811278, 1 + 0.25 * 8),  # H(1/4)
        (Codes("zero_one", 0.5), 1, 1, 1 + 0.5 * 8),
        (TERNARY, 2, 1 + 0.5, 1 + 0.5 * 8),
        (Codes("full_precision", 1.0), 32, 32, 32),
    ],
)
def test_bits_of_a_weight(codes, packed, entropy, words):
    for storage, bits in {"packed": packed, "entropy": entropy, "words": words}.items():
        found = energy.weight_bits(codes, Accelerator(storage=storage, activation_bits=8))
        assert found == pytest.approx(bits, abs=1e-6), storage


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packed_bits_and_signs_are_the_schemes_own(scheme, monkeypatch):
    made_up = Scheme("made_up", "made up", "{-2, 0, 1}", zeros=True, signs=SCHEMES[scheme].signs)
    monkeypatch.setitem(SCHEMES, "made_up", made_up)
    for key in (scheme, "made_up"):
        row = SCHEMES[key]
        codes, machine = Codes(key, 0.5), replace(SMALL, multiply="none")
        assert energy.weight_bits(codes, machine) == row.stored_bits
        signs = 16 if row.signs == "filter" else 0
        maps = 2 * 1024 * 32
        bits = LAYER.weights * row.stored_bits + signs + maps
        assert energy.layer_cost(LAYER, codes, machine).dram_pj == pytest.approx(20 * bits)


def test_repetition_costs_the_additions_of_graphs():
    codes = Codes("signed_binary", 0.25, adds={(16, 8, 16, 1): 500})
    cost = energy.layer_cost(LAYER, codes, replace(SMALL, variant="repetition"))
    assert energy.layer_cost(LAYER, codes, replace(SMALL, variant="repetition", **FREE)).cycles == 16 * 500 / 16
    assert cost.arithmetic_pj == pytest.approx(64 * 500 * ADDITION)
    index, maps, words = 500 * 16, 1024 * 32, 64 * 144
    assert cost.dram_pj == pytest.approx(20 * (index + 2 * maps))
    scratch = (64 * 500 + words) * 32 * 10 / 64
    assert cost.buffer_pj == pytest.approx(BUFFER * (32 * words + 16 * index + maps + index + 2 * maps) + scratch)
    with pytest.raises(ValueError, match=r"graph of binary for \(C, H, K, stride\) = \(16, 8, 16, 1\); allowed"):
        energy.layer_cost(LAYER, BINARY, replace(SMALL, variant="repetition"))


# The network


def test_the_network_is_its_sixteen_layers():
    shapes = NETWORK_SHAPES["resnet18"]
    whole = energy.network_cost(BINARY, Accelerator())
    assert whole.arithmetic_pj == pytest.approx(sum(shape.macs for shape in shapes) * ADDITION)
    each = [energy.layer_cost(shape, BINARY, Accelerator()).cycles for shape in shapes]
    assert len(each) == 16 and whole.cycles == pytest.approx(sum(each))
    weights = [shape.weights for shape in energy.FULL_PRECISION_SHAPES]
    assert (weights[0], sum(weights[1:4]), weights[4]) == (9_408, 172_032, 512_000)
    exact = energy.network_cost(BINARY, Accelerator(whole_network=True)).arithmetic_pj - whole.arithmetic_pj
    macs = sum(shape.macs for shape in energy.FULL_PRECISION_SHAPES)
    assert exact == pytest.approx(macs * (ADDITION + 3.7))


def test_a_batch_costs_arithmetic_per_image_and_weights_once():
    one, eight = (energy.network_cost(OURS, Accelerator(batch=n)) for n in (1, 8))
    assert eight.arithmetic_pj == pytest.approx(8 * one.arithmetic_pj)
    assert eight.dram_pj < 8 * one.dram_pj


def test_perfect_skipping_with_nothing_in_the_way_is_one_over_density():
    free = Accelerator(dram_bytes_per_cycle=10**6, distribution=10**6, reduction=10**6)
    found = energy.compare(OURS, BINARY, free)
    assert found.throughput == pytest.approx(4) and found.latency == pytest.approx(0.25)
    assert 0.25 < found.energy < 1, "memories do not shrink"
    same = energy.compare(BINARY, BINARY, Accelerator())
    assert (same.energy, same.throughput) == (1, 1)
    dense = energy.compare(OURS, BINARY, replace(free, variant="dense"))
    assert dense.energy == pytest.approx(1, abs=1e-4) and dense.throughput == 1


# What is open


def test_every_alternative_makes_a_machine():
    names = [assumption.name for assumption in energy.ASSUMPTIONS]
    assert len(set(names)) == len(names)
    fields = set(Accelerator.__dataclass_fields__)
    assert {name for name in names if not name.startswith("density: ")} == fields
    for name, _, alternatives in energy.ASSUMPTIONS:
        for value in alternatives if name in fields else ():
            assert getattr(Accelerator(), name) != value
            replace(Accelerator(), **{name: value})


def test_each_alternative_is_tried_alone():
    single = list(energy.single_changes(graphs(0.1, *OURS[:2]), graphs(0.4, *BINARY[:2]), Accelerator()))
    count = sum(len(a.alternatives) for a in energy.ASSUMPTIONS if a.name != "density: ternary_twn")
    assert len(single) == len({(assumption.name, value) for assumption, value, _ in single}) == count
    found = {(assumption.name, value): ratios for assumption, value, ratios in single}
    assert found["variant", "dense"].throughput == 1
    assert found["units", 1024] == energy.compare(OURS, BINARY, Accelerator(units=1024))
    assert found["density: signed_binary", 0.35] == energy.compare(Codes("signed_binary", 0.35), BINARY, Accelerator())
    without = list(energy.single_changes(OURS, BINARY, Accelerator()))
    assert len(without) == count - 1, "no graphs, no repetition"
