"""What every figure has to be: as wide as a column or a page, with text that is large enough and that nothing cuts."""

import itertools

from matplotlib import pyplot as plt
from matplotlib.text import Text

from sbkit.figures.style import COLUMN, PAGE


def check(figure):
    """Assert it, and that neighbouring labels of an axis do not overlap; close the figure."""
    assert figure.get_figwidth() in (COLUMN, PAGE)
    assert figure.texts, "a title says what the figure compares"
    figure.canvas.draw()
    groups = [figure.texts, *(legend.get_texts() for legend in figure.legends)]
    groups += [[text for text in (figure._supxlabel, figure._supylabel) if text is not None]]
    for axis in (axis for axis in figure.axes if axis.get_visible()):
        groups += [[axis.title, axis.xaxis.label, axis.yaxis.label], axis.texts, _ticks(axis.xaxis), _ticks(axis.yaxis)]
    page, renderer = figure.bbox.padded(1), figure.canvas.get_renderer()
    for group in groups:
        texts = [text for text in group if text.get_text().strip() and text.get_visible()]
        boxes = {text: Text.get_window_extent(text, renderer) for text in texts}  # without an arrow
        for text, box in boxes.items():
            assert text.get_fontsize() >= 6
            assert page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1), f"cut: {text.get_text()}"
        for one, other in itertools.combinations(texts, 2):
            overlap = boxes[one].padded(-2).overlaps(boxes[other].padded(-2))
            assert not overlap, f"{one.get_text()} lies on {other.get_text()}"
    plt.close(figure)


def _ticks(axis):
    """The labels of ticks that lie within the axis."""
    low, high = sorted(axis.get_view_interval())
    places = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
    return [label for place, label in places if low <= place <= high]


def labels(axis):
    """The texts of an axis's direct labels."""
    return [text.get_text() for text in axis.texts if text.get_text()]
