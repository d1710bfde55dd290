"""The accelerator model against sums done by hand, and what is said about its assumptions."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from recorded import train_record

from sbkit import analysis, claims, energy, records
from sbkit.conv import RESNET18_SHAPES, ConvShape
from sbkit.energy import Accelerator, Codes

BINARY, OURS, TERNARY = Codes("binary", 1.0), Codes("signed_binary", 0.25), Codes("ternary_twn", 0.5)
LAYER = ConvShape(16, 8, 8, 16)  # 144 taps, 64 positions: 147,456 multiply-accumulates
SMALL = Accelerator(units=64, filters=16)  # 4 positions a tile: 16 tiles
ADDITION = 2 * 0.9  # pJ: in fp32, with its accumulator
BUFFER = energy.buffer_pj_per_bit(128)


def graphs(adds, encoding="two_group", scheme="signed_binary", density=0.25):
    """Codes with graphs of so many additions per weight and position in every layer of ResNet-18."""
    places = {(s.C, s.H, s.K, s.stride): adds * s.weights for s in RESNET18_SHAPES}
    return Codes(scheme, density, encoding, places)


# Constants


def test_memories_cost_what_horowitz_says_and_lie_between():
    for kib, pj in {8: 10, 32: 20, 1024: 100}.items():
        assert 64 * energy.buffer_pj_per_bit(kib) == pytest.approx(pj)
    assert 64 * energy.buffer_pj_per_bit(16) == pytest.approx(10 * math.sqrt(2))
    for kib in (4, 2048):
        with pytest.raises(ValueError, match=f"a memory of {kib} KiB; allowed: 8 to 1024"):
            energy.buffer_pj_per_bit(kib)


def test_dram_over_arithmetic_is_the_papers():
    evidence = analysis.Evidence(pd.DataFrame(), pd.DataFrame(), {})
    assert claims.dram_over_add(evidence).value == pytest.approx(6400)
    assert round(claims.dram_over_multiply(evidence).value) == 206
    assert claims.dram_over_add(evidence).names == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "quick"}, "variant = 'quick'; allowed: dense, sparse, repetition"),
        ({"storage": "zip"}, "storage = 'zip'; allowed: packed, entropy, words"),
        ({"units": 0}, "units = 0; allowed: 1 or more"),
        ({"filters": 48}, "filters = 48; allowed: a divisor of units = 256"),
        ({"efficiency": 1.5}, "efficiency = 1.5; allowed: from 0 to 1"),
        ({"dram_bytes_per_cycle": 0}, "dram_bytes_per_cycle = 0; allowed: above 0"),
        ({"static_share": -1.0}, "static_share = -1.0; allowed: 0 or more"),
        ({"buffer_kib": 1}, "a memory of 1 KiB"),
    ],
)
def test_an_impossible_machine_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Accelerator(**change)


# One layer, by hand


def test_binary_costs_every_weight():
    cost = energy.layer_cost(LAYER, BINARY, SMALL)
    assert cost.compute_cycles == 16 * 144 == LAYER.macs / 64
    assert cost.arithmetic_pj == pytest.approx(LAYER.macs * ADDITION)
    words, weights, maps = 64 * 144, 16 * 144, 1024 * 32  # words; bits; bits of the inputs, and of the outputs
    assert cost.distribution_cycles == pytest.approx((words + weights * 16 / 32) / 128)
    assert cost.reduction_cycles == 1024 / 128
    dram = weights + 2 * maps
    assert cost.dram_pj == pytest.approx(20 * dram)
    assert cost.dram_cycles == pytest.approx(dram / 8 / 16)
    assert cost.buffer_pj == pytest.approx(BUFFER * (32 * words + 16 * weights + maps + dram))
    assert cost.cycles == cost.compute_cycles and cost.bound_by == "compute"
    assert cost.static_pj == pytest.approx(cost.cycles * 64 * ADDITION * 0.001505 / 0.111)
    assert cost.energy_pj == pytest.approx(cost.arithmetic_pj + cost.buffer_pj + cost.dram_pj + cost.static_pj)


def test_zeros_are_skipped_as_well_as_the_machine_can():
    dense = energy.layer_cost(LAYER, OURS, replace(SMALL, variant="dense"))
    perfect = energy.layer_cost(LAYER, OURS, SMALL)
    half = energy.layer_cost(LAYER, OURS, replace(SMALL, efficiency=0.5))
    for part in ("compute_cycles", "arithmetic_pj"):
        assert getattr(perfect, part) == pytest.approx(0.25 * getattr(dense, part))
        assert getattr(half, part) == pytest.approx((1 - 0.5 * 0.75) * getattr(dense, part))
    signs = 16
    assert dense.dram_pj - energy.layer_cost(LAYER, BINARY, SMALL).dram_pj == pytest.approx(20 * signs)


def test_an_activation_is_read_unless_all_filters_of_a_tile_have_a_zero_there():
    def words(**changes):
        cost = energy.layer_cost(LAYER, Codes("zero_one", 0.25), replace(SMALL, **changes))
        positions = 64 // changes.get("filters", 16)
        return 128 * cost.distribution_cycles - 16 * 144 * (64 / positions) / 32

    assert words() == pytest.approx(64 * 144 * (1 - 0.75**16))
    assert words(filters=1) == pytest.approx(16 * 64 * 144 * 0.25)
    assert words(filters=1, skip_reads=False) == pytest.approx(16 * 64 * 144)
    assert words(variant="dense") == pytest.approx(64 * 144)


def test_incomplete_tiles_take_as_long_as_complete_ones():
    odd = ConvShape(16, 7, 7, 17)  # 49 positions in 13 tiles, 17 filters in 2
    assert energy.layer_cost(odd, BINARY, SMALL).compute_cycles == 2 * 13 * 144


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
    slow = replace(SMALL, dram_bytes_per_cycle=1)
    cost = energy.layer_cost(LAYER, OURS, slow)
    assert cost.bound_by == "dram" and cost.cycles == cost.dram_cycles > cost.compute_cycles
    summed = energy.layer_cost(LAYER, OURS, replace(slow, overlap=False))
    assert summed.cycles == pytest.approx(cost.dram_cycles + cost.compute_cycles)
    assert energy.layer_cost(LAYER, OURS, replace(SMALL, distribution=4)).bound_by == "distribution"
    assert energy.layer_cost(LAYER, OURS, replace(SMALL, reduction=1)).bound_by == "reduction"


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


def test_repetition_costs_the_additions_of_graphs():
    codes = Codes("signed_binary", 0.25, adds={(16, 8, 16, 1): 500})
    cost = energy.layer_cost(LAYER, codes, replace(SMALL, variant="repetition"))
    assert cost.compute_cycles == 16 * 500 / 16
    assert cost.arithmetic_pj == pytest.approx(64 * 500 * ADDITION)
    index, maps, words = 500 * 16, 1024 * 32, 64 * 144
    assert cost.dram_pj == pytest.approx(20 * (index + 2 * maps))
    scratch = (64 * 500 + words) * 32 * 10 / 64
    assert cost.buffer_pj == pytest.approx(BUFFER * (32 * words + 16 * index + maps + index + 2 * maps) + scratch)
    with pytest.raises(ValueError, match="no graph of binary for 16→16 @8"):
        energy.layer_cost(LAYER, BINARY, replace(SMALL, variant="repetition"))


# The network


def test_the_network_is_its_sixteen_layers():
    layers = energy.layer_costs(BINARY, Accelerator())
    assert sum(count for _, count, _ in layers) == 16 and len(layers) == 7
    whole = energy.network_cost(BINARY, Accelerator())
    assert whole.arithmetic_pj == pytest.approx(sum(shape.macs for shape in RESNET18_SHAPES) * ADDITION)
    assert whole.cycles == pytest.approx(sum(count * cost.cycles for _, count, cost in layers))
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


# Tables


def counted(shape, scheme, adds, **more):
    """A row of a benchmark of the study of operations."""
    row = {"contender": "dataflow", "scheme": scheme, "encoding": "two_group", "skip_zeros": True, "density": 0.3}
    place = {"C": shape.C, "H": shape.H, "K": shape.K, "stride": float(shape.stride), "batch": 1}
    return row | place | {"adds": adds * shape.P * shape.Q} | more


def test_codes_are_known_from_training_and_from_a_benchmark():
    shape = RESNET18_SHAPES[4]
    assert shape.stride == 2
    rows = [
        counted(shape, "signed_binary", 70),
        counted(shape, "signed_binary", 90, skip_zeros=False),
        counted(shape, "signed_binary", 50, contender="table"),
        counted(shape, "binary", 200, density=1.0),
        counted(shape, "binary", 110, density=1.0, encoding="rewritten"),
        counted(shape, "ternary_twn", 150, density=0.58),
    ]
    place = (64, 56, 128, 2)
    assert energy.known_codes({"signed_binary": 0.33, "zero_one": 0.2, "binary": 1.0}, pd.DataFrame(rows)) == [
        Codes("signed_binary", 0.33, "two_group", {place: 70}),
        Codes("zero_one", 0.2),
        Codes("binary", 1.0, "two_group", {place: 200}),
        Codes("binary", 1.0, "rewritten", {place: 110}),
        Codes("ternary_twn", 0.58, "two_group", {place: 150}),
    ]
    assert energy.known_codes({"binary": 1.0}, pd.DataFrame()) == [BINARY]


def test_energy_table_adds_up():
    rewritten = graphs(0.2, "rewritten", "binary", 1.0)
    known = [graphs(0.4, scheme="binary", density=1.0), rewritten, graphs(0.1), Codes("full_precision", 1.0), TERNARY]
    table = energy.energy_table(known, Accelerator(batch=2))
    parts = table[[f"{part}_uj" for part in energy.PARTS]].sum(axis=1)
    assert parts.to_list() == pytest.approx(table["energy_uj"].to_list())
    whole = table[table["layer"] == "all"].set_index(["variant", "scheme", "encoding"])
    layers = table[table["layer"] != "all"].groupby(["variant", "scheme", "encoding"], sort=False)
    for column in ("energy_uj", "latency_ms", "count"):
        assert layers[column].sum().to_dict() == pytest.approx(whole[column].to_dict())
    assert (whole["images_per_second"] * whole["latency_ms"]).to_list() == pytest.approx([2000] * len(whole))
    sparse = energy.compare(known[2], known[0], Accelerator(batch=2))
    row = whole.loc["sparse", "signed_binary", "two_group"]
    assert row[["energy_over_binary", "throughput_over_binary"]].to_list() == pytest.approx(list(sparse))
    assert set(whole.loc["repetition"].index) == {
        ("binary", "two_group"), ("binary", "rewritten"), ("signed_binary", "two_group")
    }  # fmt: skip
    assert "full_precision" not in whole.loc["sparse"].index.get_level_values("scheme")


def test_a_table_without_binary_has_no_ratios():
    assert energy.energy_table([OURS])["energy_over_binary"].isna().all()


# What is open


def test_every_alternative_makes_a_machine():
    names = [assumption.name for assumption in energy.ASSUMPTIONS]
    assert len(set(names)) == len(names)
    fields = {field for field in Accelerator.__dataclass_fields__ if field != "clock_mhz"}  # ratios have no unit
    assert {name for name in names if not name.startswith("density: ")} == fields
    for name, _, alternatives in energy.ASSUMPTIONS:
        for value in alternatives if name in fields else ():
            assert getattr(Accelerator(), name) != value
            replace(Accelerator(), **{name: value})


def test_single_changes_and_pairs_of_them():
    single = list(energy.cases(graphs(0.1), graphs(0.4, scheme="binary", density=1.0), Accelerator(), 1))
    count = sum(len(a.alternatives) for a in energy.ASSUMPTIONS if a.name != "density: ternary_twn")
    assert len(single) == count
    assert len(list(energy.cases(OURS, BINARY, Accelerator(), 1))) == count - 1, "no graphs, no repetition"
    [dense] = [case for case in single if case.changes == (("what the array exploits", "dense"),)]
    assert dense.ratios.throughput == 1
    pairs = list(energy.cases(OURS, BINARY, Accelerator(), 2))
    assert len({case.changes for case in pairs}) == len(pairs)
    assert all(first[0] != second[0] for first, second in (case.changes for case in pairs))
    [both] = [c for c in pairs if c.changes == (("units", 1024), ("density of signed binary", 0.35))]
    assert both.ratios == energy.compare(Codes("signed_binary", 0.35), BINARY, Accelerator(units=1024))


def test_sensitivity_puts_what_moves_the_energy_most_first():
    table = energy.sensitivity_table(OURS, [BINARY, TERNARY])
    over_binary = table[table["over"] == "binary"]
    spans = over_binary.groupby("assumption", sort=False)["energy"].agg(lambda values: values.max() - values.min())
    assert spans.is_monotonic_decreasing
    base = over_binary[over_binary["base"]]
    assert len(base) == over_binary["assumption"].nunique()
    assert set(base["energy"]) == {energy.compare(OURS, BINARY, Accelerator()).energy}
    values = over_binary[over_binary["assumption"] == "activation bits in memory"]["value"]
    assert list(values) == ["8", "16", "32"]
    assert set(over_binary["paper_energy"]) == {0.51} and set(over_binary["paper_throughput"]) == {2.86}
    over_ternary = table[table["over"] == "ternary_twn"]
    assert over_ternary["paper_energy"].isna().all()
    assert set(over_ternary["assumption"]) - set(over_binary["assumption"]) == {"density of ternary"}


def test_needs_say_what_was_computed():
    codes = Codes("signed_binary", 0.35)
    table = energy.needs_table(codes, BINARY).set_index("ratio")
    base = energy.compare(codes, BINARY, Accelerator())
    assert table["base"].to_list() == pytest.approx([base.energy, base.throughput, base.latency])
    reading = table["reading"]
    assert reading["energy"].startswith("75% of binary's energy would have to fall with the density (0.35)")  # .49/.65
    assert f"); {(1 - base.energy) / 0.65:.0%} does" in reading["energy"]
    single = list(energy.cases(codes, BINARY, Accelerator(), 1))
    close = [case for case in single if abs(case.ratios.energy / 0.51 - 1) <= 0.05]
    assert f"Within 5% of 0.51: {len(close)} of {len(single)} single changes and" in reading["energy"]
    assert "gives 1 / density: 2.86 here, and 2.86 at the paper's 0.35" in reading["throughput"]
    for case in single:
        [(label, value)] = case.changes
        named = f"{label} = {energy._shown(value)} ({case.ratios.throughput:.2f})" in reading["throughput"]
        assert named or case.ratios.throughput >= 0.95 * base.throughput
    assert "2.86 would be 0.35, 0.78 a throughput of 1.28" in reading["latency"]
    assert "only if 66% of binary's latency is waiting" in reading["latency"]  # (.78-.35)/.65


# From records


def test_modelled_ratios_carry_the_spread_of_trained_densities(evidence):
    found = claims.modelled_energy(evidence)
    expected = energy.compare(Codes("signed_binary", 0.35), BINARY, Accelerator())
    assert (found.value, found.half_width, found.n) == (pytest.approx(expected.energy), pytest.approx(0), 3)
    assert found.names == tuple(f"{scheme}-s{seed}" for scheme in ("signed_binary", "binary") for seed in range(3))
    assert claims.modelled_throughput(evidence).value == pytest.approx(expected.throughput)
    assert claims.modelled_latency(evidence).value == pytest.approx(1 / expected.throughput)


def test_modelled_ratios_need_densities(tmp_path):
    train_record(tmp_path, "signed_binary", 0, 84.0)
    runs = analysis.group_runs(records.read(tmp_path, "train"))
    with pytest.raises(claims.MissingRecord, match="a training run of binary"):
        claims.modelled_energy(analysis.Evidence(runs, pd.DataFrame(), {}))


def test_known_codes_of_a_profile(evidence):
    densities = {codes.scheme: codes.density for codes in claims.known_codes(evidence)}
    assert densities == pytest.approx(
        {"binary": 1.0, "full_precision": 1.0, "signed_binary": 0.35, "ternary_twn": 0.58, "zero_one": 0.3}
    )
    assert claims.known_codes(analysis.Evidence(pd.DataFrame(), pd.DataFrame(), {})) == []


def test_radar_has_the_papers_quantities_and_says_what_is_missing(evidence):
    table = claims.radar_table(evidence)
    assert table["quantity"].to_list() == ["energy", "throughput", "density", "latency", "latency", "accuracy"]
    values = table["value"].to_list()
    assert values[2] == pytest.approx(0.35) and values[4] == pytest.approx(0.5)
    assert values[5] == pytest.approx((83 / 87 + 84.1 / 87.4 + 83.6 / 86.9) / 3)
    assert table["paper"].to_list()[:5] == [0.51, 2.86, 0.35, 0.78, 0.78] and math.isnan(table["paper"].iloc[5])
    nothing = claims.radar_table(analysis.Evidence(analysis.group_runs(pd.DataFrame()), pd.DataFrame(), {}))
    assert nothing["value"].isna().all() and nothing["note"].str.startswith("missing: a ").all()
