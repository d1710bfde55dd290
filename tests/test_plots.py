"""Every figure is drawn from the analysis tables; what it shows is read back from its artists."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from recorded import write_ablations, write_codebooks, write_profile

from sbkit import analysis, claims, energy, plots, records, review
from sbkit.conv import RESNET18_SHAPES

matplotlib.use("Agg")

ANCHORS = Path(__file__).parents[1] / "notebooks" / "anchors.toml"


def reductions():
    """Two layers of a network by two algorithms and schemes, as `layer_reductions` has them; a second network."""
    rows = []
    for place, (layer, count) in enumerate((("64→64 @56", 4), ("64→128 @56/2", 1), ("all", 5))):
        for algorithm in ("sparse", "table", "dataflow"):
            for scheme, encoding, skips, factor in (
                ("binary", "two_group", True, 5), ("binary", "signed", True, 9),
                ("signed_binary", "two_group", True, 8), ("signed_binary", "two_group", False, 4),
            ):  # fmt: skip
                paper = (
                    {"binary": 5.3, "signed_binary": 6.65}[scheme] if place == 0 and encoding != "signed" else np.nan
                )
                rows.append(
                    {"network": "resnet18", "layer": layer, "count": count, "algorithm": algorithm, "scheme": scheme}
                    | {"encoding": encoding, "skip_zeros": skips, "reduction": factor + place, "paper": paper}
                )
    first = pd.DataFrame(rows)
    return pd.concat([first, first.assign(network="resnet20", reduction=99.0)], ignore_index=True)


def graphs(adds):
    """Additions of data-flow graphs, so many per weight and position, of every layer of ResNet-18."""
    return {(s.C, s.H, s.K, s.stride): adds * s.weights for s in RESNET18_SHAPES}


MODELLED = [
    energy.Codes("binary", 1.0, adds=graphs(0.35)),
    energy.Codes("binary", 1.0, "rewritten", graphs(0.18)),
    energy.Codes("signed_binary", 0.35, adds=graphs(0.15)),
    energy.Codes("ternary_twn", 0.58),
    energy.Codes("full_precision", 1.0),
]


def robustness():
    """Accuracy that falls with strength, of two schemes and a variant that the figure leaves out."""
    strengths = {"corruption": ("noise", (0, 1, 2, 3)), "attack": ("fgsm", (0, 2 / 255, 4 / 255))}
    return pd.DataFrame(
        [
            {"label": label, "quantizer": label.removesuffix("_regions"), "kind": kind, "test": test, "strength": x}
            | {"n": 3, "top1_mean_percent": start - 5 * place, "top1_half_width_percent": 1.5}
            for label, start in (("binary", 90), ("signed_binary", 80), ("signed_binary_regions", 85))
            for kind, (test, points) in strengths.items()
            for place, x in enumerate(points)
        ]
    )


def linear():
    """Three seeds of two schemes in an MLP, one of one in a transformer."""
    runs = [("mlp", "binary", seed, 80.0 + seed, 1.5) for seed in range(3)]
    runs += [("mlp", "signed_binary", seed, 77.0 + seed, 2.5) for seed in range(3)]
    runs += [("transformer", "binary", 0, 70.0, np.nan)]
    return pd.DataFrame(
        [
            {"model": model, "label": label, "quantizer": label, "seed": seed, "top1_percent": top1}
            | {"top1_mean_percent": top1 - seed + 1, "top1_half_width_percent": half_width}
            for model, label, seed, top1, half_width in runs
        ]
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The table that each figure draws."""
    folder = write_profile(tmp_path_factory.mktemp("profile"))
    train, bench = records.read(folder, "train"), records.read(folder, "bench")
    latent = analysis.latent_bins(analysis.latent_table(train[train["name"] == "signed_binary-s0"]))
    codebooks = write_codebooks(tmp_path_factory.mktemp("codebooks"))
    changes = records.read(write_ablations(tmp_path_factory.mktemp("ablations")), "train")
    weights = analysis.run_weights(train)
    return {
        "quantizers": analysis.response_table(train[train["name"] != "binary_narrow-s0"]),
        "accuracy": analysis.seed_table(train),
        "ablation": analysis.ablation_table(changes),
        "density_accuracy": analysis.density_accuracy_table(changes),
        "codebooks": analysis.codebook_table(*(records.read(codebooks, kind) for kind in ("train", "bench"))),
        "pareto_published": analysis.anchors_table(ANCHORS),
        "pareto": analysis.pareto_table(train),
        "curves": analysis.curves_table(train),
        "density": analysis.density_table(train),
        "latent": latent,
        "common_mode": analysis.common_mode_table(train, weights),
        "unique_filters": analysis.origins_table(weights),
        "reductions_layers": reductions(),
        "operations": analysis.operations_table({name: weights[name] for name in weights if name.endswith("-s0")}),
        "dataflow_graph": analysis.graphs_table(),
        "tradeoff": analysis.tradeoff_table(analysis.newest(bench, "density")),
        "latency": analysis.speed_table(analysis.newest(bench)),
        "speedup": analysis.speedup_table(analysis.newest(bench)),
        "roofline": analysis.roofline_table(analysis.newest(bench)),
        "network": analysis.network_table(analysis.newest(bench, "network")),
        "energy": energy.energy_table(MODELLED),
        "energy_sensitivity": energy.sensitivity_table(MODELLED[2], MODELLED[:1]),
        "review_differences": review.differences_table(analysis.group_runs(train)),
        "robustness": robustness(),
        "linear": linear(),
        "radar": claims.radar_table(analysis.Evidence(analysis.group_runs(train), bench, weights)),
    }


STEMS = [name.removeprefix("fig_") for name in vars(plots) if name.startswith("fig_")]


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def draw(tables, stem):
    return getattr(plots, f"fig_{stem}")(tables[stem])


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]


@pytest.mark.parametrize("stem", STEMS)
def test_nothing_is_clipped_by_the_page(tables, stem):
    figure = draw(tables, stem)
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    renderer = figure.canvas.get_renderer()
    outside = []
    for text in figure.findobj(matplotlib.text.Text):
        if not text.get_text() or not text.get_visible():
            continue
        box = text.get_window_extent(renderer)
        axis = text.axes
        if isinstance(axis, plt.Axes) and (
            text in axis.texts or text.get_text() in (axis.get_xlabel(), axis.get_title())
        ):
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            outside += [] if inside else [text.get_text()]
    assert not outside


@pytest.mark.parametrize("stem", STEMS)
def test_sizes_are_a_papers(tables, stem):
    figure = draw(tables, stem)
    assert figure.get_size_inches()[0] in (plots.COLUMN, plots.PAGE)
    assert min(t.get_fontsize() for t in figure.findobj(matplotlib.text.Text) if t.get_text()) >= 6


@pytest.mark.parametrize("stem", STEMS)
def test_an_empty_table_is_refused(stem):
    with pytest.raises(ValueError, match=f"fig_{stem} got an empty table"):
        getattr(plots, f"fig_{stem}")(pd.DataFrame())


@pytest.mark.parametrize("stem", STEMS)
def test_the_table_is_left_as_it_was(tables, stem):
    before = tables[stem].copy(deep=True)
    draw(tables, stem)
    pd.testing.assert_frame_equal(tables[stem], before)


def test_the_callers_rc_is_left_as_it_was(tables):
    before = dict(matplotlib.rcParams)
    draw(tables, "accuracy")
    assert dict(matplotlib.rcParams) == before


def test_schemes_differ_in_colour_marker_and_label():
    for field in ("color", "marker", "label"):
        values = [getattr(look, field) for look in plots.STYLE.values()]
        assert len(set(values)) == len(values)


def test_an_unknown_scheme_is_named(tables):
    table = tables["accuracy"].assign(quantizer="xnor")
    with pytest.raises(ValueError, match="no style for xnor; allowed: full_precision"):
        plots.fig_accuracy(table)


def test_accuracy_shows_every_seed_and_the_interval(tables):
    (axis,) = draw(tables, "accuracy").axes
    points = np.concatenate([line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 3])
    assert sorted(points) == sorted(tables["accuracy"]["top1_percent"])
    assert any("signed binary (n=3)" in text for text in texts(axis.figure))


def test_accuracy_of_one_seed_has_no_interval(tables):
    table = tables["accuracy"]
    table = table[(table["label"] == "binary") & (table["seed"] == 0)].assign(n=1, top1_half_width_percent=np.nan)
    (axis,) = plots.fig_accuracy(table).axes
    assert all(len(line.get_xdata()) == 1 for line in axis.lines)
    assert any("(n=1)" in text for text in texts(axis.figure))


def test_ablation_heads_its_questions_and_keeps_each_interval(tables):
    (axis,) = draw(tables, "ablation").axes
    table = tables["ablation"]
    names = [(text.get_text(), text.get_fontweight()) for text in axis.get_yticklabels()]
    assert [name for name, weight in names if weight == "bold"] == list(dict.fromkeys(table["question"]))
    assert names[1] == ("interleaved (n=2)", "normal")
    ends = sorted(tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2)
    mean, half_width = table["difference_mean_points"], table["difference_half_width_points"]
    assert ends == sorted([(0, 1 * 0), *zip(mean - half_width, mean + half_width, strict=True)])
    heights = [text.get_position()[1] for text in axis.get_yticklabels()]
    assert np.diff(heights).max() <= -1, "rows do not touch"


def test_ablation_stays_readable_with_forty_rows(tables):
    table = tables["ablation"]
    many = pd.concat([table.assign(label=table["label"] + f"_{i}") for i in range(6)], ignore_index=True)
    figure = plots.fig_ablation(many.sort_values("question", kind="stable"))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert len(boxes) > 40
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes))


def labels_overlap(axis):
    """Pairs of an axis' texts that touch."""
    extent = matplotlib.text.Text.get_window_extent  # that of an annotation includes its arrow
    boxes = [extent(text) for text in axis.texts if text.get_text()]
    return [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.shrunk(0.98, 0.9).overlaps(b.shrunk(0.98, 0.9))]


@pytest.mark.parametrize("stem", ["pareto", "pareto_published", "density_accuracy"])
def test_every_point_has_a_label_and_none_touch(tables, stem):
    figure = draw(tables, stem)
    figure.draw_without_rendering()
    labels = [text.get_text() for axis in figure.axes for text in axis.texts if text.get_text()]
    assert len(labels) == len(tables[stem])
    assert not any(labels_overlap(axis) for axis in figure.axes)


def test_published_points_are_hollow_in_panels_of_their_own(tables):
    figure = draw(tables, "pareto_published")
    table = tables["pareto_published"]
    assert [axis.get_title() for axis in figure.axes] == ["CIFAR-10", "ImageNet"]
    assert hollow(figure) == sorted(table["top1_percent"])
    arrows = sum(text.get_text() == "" for axis in figure.axes for text in axis.texts)
    assert arrows == table["bound"].sum() == 2


def test_codebooks_stand_against_bits_and_against_latency(tables):
    figure, table = draw(tables, "codebooks"), tables["codebooks"]
    figure.draw_without_rendering()
    assert not any(labels_overlap(axis) for axis in figure.axes)
    for axis, column, count in zip(figure.axes, ("weight_bits", "time"), (9, 6), strict=True):
        assert len([text for text in axis.texts if text.get_text()]) == count
        points = {(float(x), float(y)) for line in axis.lines for x, y in zip(*line.get_data(), strict=True)}
        assert (
            set(zip(*table.dropna(subset=column)[[column, "difference_mean_points"]].to_numpy().T, strict=True))
            <= points
        )
    alone = plots.fig_codebooks(table.assign(time=np.nan, time_half_width=np.nan))
    assert [axis.get_xlabel() for axis in alone.axes] == ["stored bits a weight"]


def test_density_accuracy_has_a_panel_per_family(tables):
    figure = draw(tables, "density_accuracy")
    table = tables["density_accuracy"]
    assert [axis.get_title() for axis in figure.axes] == list(dict.fromkeys(table["family"])) == ["L1", "threshold"]
    for axis in figure.axes:
        rows = table[table["family"] == axis.get_title()]
        drawn = {float(y) for line in axis.lines for y in line.get_ydata()}
        assert set(rows["top1_mean_percent"]) <= drawn


def test_reductions_of_layers_draw_one_network(tables):
    figure = draw(tables, "reductions_layers")
    assert [axis.get_title() for axis in figure.axes] == ["dataflow", "table"], "sparse has no repetition to show"
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["64→64 @56\n×4", "64→128 @56/2"]
    assert hollow(figure) == [5.3, 5.3, 6.65, 6.65]
    assert all(axis.get_ylim()[1] > 10 for axis in figure.axes), "the highest is inside"
    other = plots.fig_reductions_layers(tables["reductions_layers"], network="resnet20")
    assert max(other.axes[0].lines[0].get_ydata()) == 99
    with pytest.raises(ValueError, match="network = 'vgg'; allowed: resnet18, resnet20"):
        plots.fig_reductions_layers(tables["reductions_layers"], network="vgg")


def test_pareto_line_joins_the_front(tables):
    (axis,) = draw(tables, "pareto").axes
    table = tables["pareto"]
    front = table[table["front"]]
    assert any(np.array_equal(line.get_xdata(), front["effectual_weights"]) for line in axis.lines)
    assert {"signed binary", "binary narrow"} <= set(texts(axis.figure))


def hollow(figure):
    """Heights of the hollow markers in a figure's panels."""
    lines = [line for axis in figure.axes for line in axis.lines if line.get_markerfacecolor() == "white"]
    return sorted(float(line.get_ydata()[0]) for line in lines)


def test_operations_shows_the_papers_values_hollow_where_its_encoding_is_counted(tables):
    everywhere, with_zeros = [4.52, 5.3, 6.65], [4.52, 6.65]  # binary has no zeros to keep
    assert hollow(draw(tables, "operations")) == pytest.approx(sorted(2 * everywhere + 2 * with_zeros))


def test_operations_names_the_sizes_it_could_draw(tables):
    with pytest.raises(ValueError, match=r"no \[3, 3, 512, 512\] layer in the table; allowed: \[3, 3, 16, 16\]"):
        plots.fig_operations(tables["operations"], channels=512)


def test_other_sizes_carry_no_paper_values(tables):
    figure = plots.fig_operations(tables["operations"], channels=32)
    assert hollow(figure) == []


def test_unique_filters_draws_every_bound(tables):
    (axis,) = draw(tables, "unique_filters").axes
    assert {"512", "1,023", "19,683"} <= set(texts(axis.figure))


def test_unique_filters_compares_trained_codes_with_random_ones_and_the_paper(tables):
    figure = draw(tables, "unique_filters")
    assert hollow(figure) == [512, 1024, 19683]
    table = tables["unique_filters"]
    for codes, style in (("trained", "-"), ("random", ":")):
        ours = table[(table["codes"] == codes) & (table["scheme"] == "binary")].groupby("filters")["unique"].mean()
        assert any(
            line.get_linestyle() == style and list(line.get_ydata()) == list(ours) for line in figure.axes[0].lines
        )


def test_latent_draws_one_run_with_its_fits(tables):
    figure = draw(tables, "latent")
    assert len(figure.axes) == 2 * 4
    assert [axis.get_title() for axis in figure.axes[:4]] == [
        "positive regions", "negative regions", "both, effectual", "both, ineffectual"
    ]  # fmt: skip
    bins = tables["latent"]
    layer = bins["layer"].iloc[0]
    panel = bins[(bins["layer"] == layer) & (bins["region"] == "both") & (bins["part"] == "ineffectual")]
    lines = {line.get_linestyle(): line.get_ydata() for line in figure.axes[3].lines if len(line.get_ydata()) > 2}
    for style, family in (("-", "gaussian"), ("--", "laplacian")):
        assert list(lines[style]) == list(panel[family])[1:-1]
    distance = np.abs((panel["gaussian"] - panel["count"]).cumsum()).max() / panel["count"].sum()
    assert figure.axes[3].texts[0].get_text().startswith(f"G {distance:.3f}\nL ")
    two = pd.concat([tables["latent"], tables["latent"].assign(seed=1)])
    with pytest.raises(ValueError, match="one label and seed"):
        plots.fig_latent(two)


def test_latency_marks_the_noisy_and_the_best_torch(tables):
    figure = draw(tables, "latency")
    assert sum(text.endswith("*") for text in texts(figure)) == 2
    for axis, best in zip(figure.axes, (1.1, 1.5), strict=True):
        assert any(list(line.get_xdata()) == [best, best] for line in axis.lines)
        [bold] = [text for text in axis.texts if text.get_fontweight() == "bold"]
        assert bold.get_text() == f"{best:.3g}"


def test_latency_groups_contenders_by_kind(tables):
    axis = draw(tables, "latency").axes[0]
    names = [(text.get_text(), text.get_fontweight()) for text in axis.get_yticklabels()]
    headings = [name for name, weight in names if weight == "bold"]
    assert headings == ["full precision", "bfloat16", "8-bit integers", "sparse", "table", "dataflow"]
    at = [name for name, _ in names]
    assert at[at.index("bfloat16") + 1] == "torch"
    assert at[at.index("8-bit integers") + 1] == "ONNX Runtime" and at[at.index("dataflow") + 1] == "signed binary"
    assert len(names) == tables["latency"]["label"].nunique() + len(headings)


def test_a_scheme_has_one_colour_in_every_speed_figure(tables):
    for stem in ("latency", "network", "roofline"):
        colours = {to_hex(bar.get_facecolor()) for axis in draw(tables, stem).axes for bar in axis.patches}
        schemes = {plots.STYLE[scheme].color for scheme in set(tables[stem]["scheme"]) - {""}}
        assert schemes <= colours, stem
        assert colours <= schemes | {"#4d4d4d", "#9a9a9a", "#000000"}, stem


def test_speedup_has_a_panel_per_reference(tables):
    figure = draw(tables, "speedup")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [f"speed over {over}" for over in ("best fp32 torch", "best fp32 of all", "best binary")]
    assert "contiguous" not in " ".join(texts(figure)) and "bfloat16" in texts(figure)
    partial = tables["speedup"][(tables["speedup"]["contender"] != "openvino") | (tables["speedup"]["layer"] != "all")]
    assert len(plots.fig_speedup(partial).axes[0].lines) == len(figure.axes[0].lines) - 2, "no sum, no interval"
    torch_alone = tables["speedup"][tables["speedup"]["label"].isin(["torch contiguous", "torch channels_last"])]
    with pytest.raises(ValueError, match="needs a contender besides torch"):
        plots.fig_speedup(torch_alone)


def test_roofline_shows_the_fraction_of_the_bound_and_the_peak(tables):
    figure = draw(tables, "roofline")
    (axis,) = figure.axes
    bounded = tables["roofline"]["fraction"].notna().sum()
    assert [text.get_text() for text in axis.texts] == ["40 %"] * bounded
    open_bars = [bar.get_height() for bar in axis.patches if bar.get_facecolor()[3] == 0 and bar.get_height()]
    assert sorted(open_bars) == pytest.approx(sorted(tables["roofline"]["bound_gmacs"].dropna()))
    assert any(set(line.get_ydata()) == {1.2} for line in axis.lines)


def test_network_has_a_panel_per_batch_and_names_the_speed(tables):
    figure = draw(tables, "network")
    assert [axis.get_title() for axis in figure.axes] == ["resnet18, batch 1", "resnet18, batch 8"]
    assert {"12.5 (2×)", "10 (2×)"} <= set(texts(figure))


def test_tradeoff_draws_binary_as_lines_and_marks_the_optimum(tables):
    figure = draw(tables, "tradeoff")
    assert [axis.get_title() for axis in figure.axes[:3]] == ["sparse", "table", "dataflow"]
    operations = figure.axes[1]
    lines = {line.get_linestyle(): line for line in operations.lines if len(set(line.get_ydata())) == 1}
    assert [lines[style].get_ydata()[0] for style in ("-", "--", ":")] == pytest.approx([0.4, 0.22, 0.2])
    stars = [line.get_xdata()[0] for line in operations.lines if line.get_marker() == "*"]
    assert list(stars) == [0.05, 0.05]
    assert {"binary, signed", "least cost per bit", "entropy, scaled"} <= set(texts(figure))


def test_dataflow_graph_counts_additions_and_greys_unused_inputs(tables):
    figure = draw(tables, "dataflow_graph")
    titles = [axis.get_title().splitlines()[0] for axis in figure.axes]
    assert titles == ["binary: 7 adds", "ternary (TWN): 6 adds", "signed binary: 3 adds"]
    grey = [[text.get_text() for text in axis.texts if text.get_color() == "0.7"] for axis in figure.axes]
    assert grey == [[], [], ["d", "f"]]
    assert sum(line.get_linestyle() == "--" for line in figure.axes[2].lines) == 2  # the negative filter's


@pytest.mark.parametrize("stem", ["latency", "speedup", "roofline"])
def test_speed_figures_draw_one_benchmark(tables, stem):
    table = pd.concat([tables[stem], tables[stem].assign(name="other")])
    with pytest.raises(ValueError, match="the table holds layers, other"):
        getattr(plots, f"fig_{stem}")(table)


def test_spread_keeps_order_and_gap():
    moved = plots._spread(np.array([1.0, 1.01, 5.0, 0.99]), 0.5)
    np.testing.assert_allclose(moved, [1.0, 1.5, 5.0, 0.5])
    assert plots._spread(np.array([]), 0.5).size == 0


def test_spread_moves_as_little_as_possible():
    from scipy.optimize import isotonic_regression

    positions = np.random.default_rng(0).normal(size=40)
    order = np.argsort(positions)
    grid = 0.2 * np.arange(40)
    expected = isotonic_regression(positions[order] - grid).x + grid
    np.testing.assert_allclose(plots._spread(positions, 0.2)[order], expected)


def test_energy_stacks_its_parts_and_leaves_full_precision_out(tables):
    figure = draw(tables, "energy")
    energies, speeds = figure.axes
    rows = tables["energy"]
    rows = rows[(rows["layer"] == "all") & (rows["scheme"] != "full_precision")]
    assert sorted(bar.get_width() for bar in speeds.patches) == pytest.approx(sorted(rows["images_per_second"]))
    ends = {}
    for bar in energies.patches:
        ends[bar.get_y()] = max(ends.get(bar.get_y(), 0), bar.get_x() + bar.get_width())
    assert sorted(ends.values()) == pytest.approx(sorted(rows["energy_uj"] / 1e3))
    names = [(text.get_text(), text.get_fontweight()) for text in energies.get_yticklabels()]
    assert [name for name, weight in names if weight == "bold"] == [
        "every weight (dense)", "effectual weights (sparse)", "data-flow graphs (repetition)"
    ]  # fmt: skip
    assert [name for name, _ in names][-3:] == ["binary", "binary, rewritten", "signed binary"]
    ratio = rows.set_index(["variant", "scheme"]).loc[("sparse", "signed_binary"), "energy_over_binary"].item()
    assert any(text.endswith(f"({ratio:.2f}×)") for text in texts(figure))


def test_energy_sensitivity_shows_base_paper_and_the_outermost(tables):
    figure = draw(tables, "energy_sensitivity")
    assert hollow(figure) == [1, 1]
    for axis, ratio, paper in zip(figure.axes, ("energy", "throughput"), (0.51, 2.86), strict=True):
        upright = [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [0, 1]]
        base = tables["energy_sensitivity"].loc[tables["energy_sensitivity"]["base"], ratio].iloc[0]
        assert upright == pytest.approx([base, paper])
    named = {text.get_text() for text in figure.axes[0].texts}
    assert {"paper 0.51", "dense", "int16", "8", "words"} <= named
    assert "activation bits in memory (32)" in texts(figure)
    two = pd.concat([tables["energy_sensitivity"], tables["energy_sensitivity"].assign(over="ternary_twn")])
    with pytest.raises(ValueError, match="draws one pair of schemes"):
        plots.fig_energy_sensitivity(two)


def test_radar_turns_ratios_into_advantages(tables):
    figure = draw(tables, "radar")
    radar, bars = figure.axes
    table = tables["radar"].drop_duplicates("quantity")
    ours = next(line for line in radar.lines if line.get_marker() == "o")
    expected = [row.value if row.higher_is_better else 1 / row.value for row in table.itertuples()]
    assert list(ours.get_ydata())[:-1] == pytest.approx(expected)
    assert np.isnan(next(line for line in radar.lines if line.get_marker() == "D").get_ydata()).sum() == 1, "accuracy"
    assert [line.get_ydata()[0] for line in radar.lines if line.get_marker() == "X"] == pytest.approx([2.0])
    ends = [bar.get_x() + bar.get_width() for bar in bars.patches]
    assert ends == pytest.approx(list(tables["radar"]["value"]))
    assert [line.get_xdata()[0] for line in bars.lines if line.get_marker() == "D"] == [0.51, 2.86, 0.35, 0.78, 0.78]


def test_radar_leaves_out_what_no_record_measures(tables):
    table = tables["radar"]
    measured = table.assign(value=table["value"].where(table["quantity"] != "throughput"))
    radar, bars = plots.fig_radar(measured).axes
    assert len(bars.patches) == len(table) - 1 and len(radar.get_xticks()) == 4
    with pytest.raises(ValueError, match="fig_radar got no value"):
        plots.fig_radar(table.assign(value=np.nan))


def test_review_differences_pales_what_holds_zero_and_heads_each_question(tables):
    ablations = [
        {"question": "Q7", "topic": "threshold", "what": "delta 0.2", "quantizer": "signed_binary", "n": 3}
        | {"over": "signed binary", "difference_mean_points": 0.4, "difference_half_width_points": 0.5},
        {"question": "Q3", "topic": "distillation", "what": "distilled", "quantizer": "binary", "n": 1}
        | {"over": "binary", "difference_mean_points": -30.0, "difference_half_width_points": np.nan},
    ]
    table = pd.concat([tables["review_differences"], pd.DataFrame(ablations)], ignore_index=True)
    figure = plots.fig_review_differences(table)
    headings = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert headings == ["R10 schemes", "Q7 threshold", "Q3 distillation, over binary"]
    means = [line for axis in figure.axes for line in axis.lines if line.get_marker() in ("s", "o", "P", "^", "D")]
    shown = {float(line.get_xdata()[0]): line.get_alpha() for line in means}
    assert list(shown) == pytest.approx(list(table["difference_mean_points"]))
    assert (shown[0.4], shown[-30.0]) == (0.4, 0.4), "an interval that holds zero, and one run"
    certain = table["difference_mean_points"].abs() > table["difference_half_width_points"]
    assert [alpha == 1 for alpha in shown.values()] == certain.tolist() and certain.any()
    ends = sorted(
        end for axis in figure.axes for line in axis.lines if len(line.get_xdata()) == 2 for end in line.get_xdata()
    )
    assert {-0.1, 0.9} <= {round(end, 6) for end in ends if end == end}


def test_review_differences_draws_a_single_question(tables):
    (axis,) = plots.fig_review_differences(tables["review_differences"]).axes
    assert axis.get_yticklabels()[0].get_text() == "", "the heading's row"


def test_robustness_has_a_panel_per_test_and_a_line_per_scheme(tables):
    figure = draw(tables, "robustness")
    assert [axis.get_title() for axis in figure.axes] == ["noise", "FGSM"]
    for axis, strengths in zip(figure.axes, ([0, 1, 2, 3], [0, 2, 4]), strict=True):
        lines = [container.lines[0] for container in axis.containers]
        assert [list(line.get_xdata()) for line in lines] == [pytest.approx(strengths)] * 2
        assert [line.get_ydata()[0] for line in lines] == [90, 80], "the variant is left to the table"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["binary", "signed binary"]


def test_linear_has_a_panel_per_network_and_no_interval_for_one_run(tables):
    figure = draw(tables, "linear")
    assert [axis.get_title() for axis in figure.axes] == ["MLP", "transformer"]
    ends = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == "None"]
    assert ends == [[79.5, 82.5], [75.5, 80.5]]
    assert all(np.isnan(line.get_xdata()).all() for line in figure.axes[1].lines if line.get_marker() == "None")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["binary", "signed binary"]
