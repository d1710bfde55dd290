"""Every figure is drawn from the analysis tables; what it shows is read back from its artists."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from test_analysis import write_profile

from sbkit import analysis, plots, records

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The table that each figure draws."""
    folder = write_profile(tmp_path_factory.mktemp("profile"))
    train, bench = records.read(folder, "train"), records.read(folder, "bench")
    latent = analysis.latent_table(train[train["name"] == "signed_binary-s0"])
    weights = analysis.run_weights(train)
    return {
        "quantizers": analysis.response_table(train[train["name"] != "binary_narrow-s0"]),
        "accuracy": analysis.seed_table(train),
        "ablation": analysis.paired_table(train, "signed_binary"),
        "pareto": analysis.pareto_table(train),
        "curves": analysis.curves_table(train),
        "density": analysis.density_table(train),
        "latent": latent,
        "unique_filters": analysis.unique_table(weights),
        "operations": analysis.operations_table({name: weights[name] for name in weights if name.endswith("-s0")}),
        "dataflow_graph": analysis.graphs_table(),
        "tradeoff": analysis.tradeoff_table(analysis.newest(bench, "density")),
        "latency": analysis.speed_table(analysis.newest(bench)),
        "speedup": analysis.speedup_table(analysis.newest(bench)),
        "roofline": analysis.roofline_table(analysis.newest(bench)),
        "network": analysis.network_table(analysis.newest(bench, "network")),
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


def test_the_table_is_left_as_it_was(tables):
    for stem in STEMS:
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


def test_latent_draws_one_run(tables):
    assert len(draw(tables, "latent").axes) == 4
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
    assert headings == ["full precision", "8-bit integers", "sparse", "table", "dataflow"]
    at = [name for name, _ in names]
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
    assert "torch contiguous" not in texts(figure)
    partial = tables["speedup"][(tables["speedup"]["contender"] != "openvino") | (tables["speedup"]["layer"] != "all")]
    assert len(plots.fig_speedup(partial).axes[0].lines) == len(figure.axes[0].lines) - 2, "no sum, no interval"
    torch_alone = tables["speedup"][tables["speedup"]["contender"] == "torch"]
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
