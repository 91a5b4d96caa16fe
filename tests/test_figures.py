import io
import json
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import colors
from matplotlib.cbook import is_math_text
from matplotlib.text import Text

from synprep import figures
from synprep._core import text_table
from synprep._core.arrays import Synapse


@pytest.fixture
def ax():
    figures.use_style()
    yield plt.figure().gca()
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


CUTOUT = {
    "synapse_ids": ["a", "b"],
    "n_sections": 8,
    "cutout_threshold": 0.1,
    "bin_edges": [0.0, 0.5, 1.0],
    "section_counts": [6, 2],
    "near_bin_edges": [0.0, 0.1, 0.2],
    "near_section_counts": [5, 1],
}


def test_cutout_histogram(ax):
    assert figures.cutout_histogram(ax, CUTOUT) is ax
    assert [bar.get_height() for bar in ax.patches] == [6, 2]
    assert [bar.get_facecolor() for bar in ax.patches] == [colors.to_rgba("C0"), colors.to_rgba("C1")]
    assert ax.get_yscale() == "log"
    assert ax.lines[0].get_xdata()[0] == 0.1
    assert ax.get_title() == "Cutout fraction, 8 sections of 2 chunks"


def test_near_the_threshold_each_side_has_its_colour(ax):
    assert figures.near_threshold(ax, CUTOUT) is ax
    assert [bar.get_height() for bar in ax.patches] == [5, 1]
    assert [bar.get_x() + bar.get_width() for bar in ax.patches] == [0.1, 0.2]
    assert [bar.get_facecolor() for bar in ax.patches] == [colors.to_rgba("C0"), colors.to_rgba("C1")]
    assert texts(ax) == ["threshold; 6 of 8 sections are here"]


def test_no_section_is_near_the_threshold(ax):
    figures.near_threshold(ax, CUTOUT | {"near_section_counts": [0, 0]})
    ax.figure.canvas.draw()
    assert ax.get_ylim() == (0.5, 2)


COUNTS = np.zeros(256, dtype=np.int64)
COUNTS[[0, 100]] = 1, 3
INTENSITY = {"kept_n_sections_used": 1, "kept_counts": COUNTS, "kept_mean": 100.0, "kept_std": 0.0}
INTENSITY["synapse_ids"] = ["a"]


def test_intensity_histogram_shows_cutout_pixels_apart(ax):
    assert figures.intensity_histogram(ax, INTENSITY) is ax
    imaged, cutout = ax.patches[0].get_data().values, ax.containers[0][0]
    assert (imaged[0], imaged[100]) == (0, 0.75)
    assert (cutout.get_x() + cutout.get_width() / 2, cutout.get_height()) == (0, 0.25)
    assert {"cutout pixels: 25.000 %", "mean 100.0", "within one standard deviation, 0.0"} <= {*texts(ax)}
    assert ax.get_title() == "Intensity, 1 kept section of 1 chunk"


VARIATION = {
    "synapse_ids": ["a"],
    "n_section_pairs": 3,
    "ratios": [0.9, 1.0, 1.1],
    "percentiles": [0.9, 0.95, 1.0, 1.05, 1.1],
}
EXAMPLE = pd.DataFrame({name: np.eye(256, dtype=int)[100] for name in ("one", "two", "two, transformed")})


def test_ratio_histogram(ax):
    assert figures.ratio_histogram(ax, VARIATION) is ax
    assert sum(bar.get_height() for bar in ax.containers[0]) == 3
    assert "median 1.0000" in texts(ax)
    assert ax.get_title() == "Variation of brightness, 3 section pairs of 1 chunk"


def test_bins_by_the_number_of_pairs(ax):
    rng = np.random.default_rng(0)
    few, many = (VARIATION | {"ratios": rng.normal(1, 0.01, n)} for n in (30, 30_000))
    n_bins = [len(figures.ratio_histogram(ax, few).containers[0])]
    ax.clear()
    many["ratios"][0] = 5
    n_bins.append(len(figures.ratio_histogram(ax, many).containers[0]))
    assert n_bins[0] < 12 < 60 < n_bins[1] < 400
    assert "section pairs (1 beyond, in the outer bins)" in texts(ax)
    assert sum(bar.get_height() for bar in ax.containers[0]) == 30_000


def test_example_histograms(ax):
    assert figures.example_histograms(ax, EXAMPLE, "a") is ax
    assert texts(ax) == ["one", "two", "two, transformed"]
    assert ax.lines[0].get_ydata().sum() == 1
    assert ax.lines[0].get_xdata()[ax.lines[0].get_ydata().argmax()] == 101.5  # grey levels 100 to 103


RECORD = {
    "synapse_ids": ["a", "b"],
    "n_sections": 20,
    "numbers": {
        "blanked_sections": {
            "section_cutout_prob": {"value": 0.5, "withheld": ""},
            "cutout_poisson_rate": {"value": 1.5, "withheld": ""},
        },
        "section_variation": {
            "section_brightness_half_width": {"value": None, "withheld": "too few " * 10},
            "section_contrast_half_width": {"value": 0.01, "withheld": ""},
        },
    },
    "blanked": {"n_chunks": [1, 0, 1], "model": [1.5, 0.3, 0.2]},
    "neighbours": {
        "n_section_pairs": 5,
        "brightness": {"edges": [-0.1, 0.1], "n": [5], "model": None},
        "contrast": {
            "edges": [-0.03, -0.01, 0.01, 0.03],
            "n": [1, 2, 2],
            "model": {"log_ratio": [-0.02, 0.0, 0.02], "n": [0.0, 5.0, 0.0]},
        },
    },
}


def test_blanked_sections(ax):
    assert figures.blanked_sections(ax, RECORD) is ax
    assert [bar.get_height() for bar in ax.patches] == [1, 0, 1]
    assert ax.lines[0].get_ydata().tolist() == [1.5, 0.3, 0.2]
    assert ax.lines[0].get_linestyle() == "None"  # there are no halves of sections
    assert sorted(texts(ax)) == ["chunks", "model: probability 0.50, rate 1.50"]
    assert ax.get_title() == "Blanked sections, 20 sections of 2 chunks"


def test_neighbour_changes_in_percent(ax):
    assert figures.neighbour_changes(ax, RECORD, "contrast") is ax
    found = ax.patches[0].get_data()
    assert found.edges.tolist() == [-3, -1, 1, 3]
    assert found.values.tolist() == [1, 2, 2]
    assert ax.lines[0].get_xdata().tolist() == [-2, 0, 2]
    assert ax.lines[0].get_path_effects()  # seen on bars that are as bright
    assert texts(ax) == ["section pairs", "model: slopes 1 ± 0.0100"]
    assert ax.get_title() == "Contrast, 5 pairs of 2 chunks"


def test_a_withheld_model_is_not_drawn_and_why(ax):
    numbers = {
        name: {"value": None, "withheld": "a reason"}
        for name in ("section_cutout_prob", "cutout_poisson_rate")
    }
    record = {**RECORD, "blanked": {"n_chunks": [2, 0], "model": None}}
    record["numbers"] = {**RECORD["numbers"], "blanked_sections": numbers}
    figures.blanked_sections(ax, record)
    assert [line.get_xdata().size for line in ax.lines] == [0]
    assert texts(ax) == ["chunks", "model: withheld, a reason"]
    ax.clear()
    figures.neighbour_changes(ax, record, "brightness")
    assert [line.get_xdata().size for line in ax.lines] == [0]
    assert texts(ax)[1].replace("\n", " ").startswith("model: withheld, too few too few")
    assert max(map(len, texts(ax)[1].splitlines())) <= 45


def test_legends_are_below_the_data(ax):
    for draw, record in ((figures.blanked_sections, RECORD), (figures.intensity_histogram, INTENSITY)):
        ax.clear()
        draw(ax, record)
        ax.figure.canvas.draw()
        assert ax.get_legend().get_window_extent().y1 < ax.xaxis.label.get_window_extent().y0
        assert ax.get_legend().get_window_extent().y0 >= 0


def test_cutout_classes(ax):
    counts = pd.Series([1500, 500, 0], index=["clean", "partly cut", "wholly black"])
    figures.cutout_classes(ax, counts)
    assert [bar.get_width() for bar in ax.patches] == [1500, 500, 0]
    assert [text.get_text() for text in ax.texts] == [" 1,500 (75.0 %)", " 500 (25.0 %)", " 0 (0.0 %)"]
    assert len({bar.get_facecolor() for bar in ax.patches}) == 2


@pytest.fixture
def strip():
    em = np.zeros((4, 6), np.uint8)
    em[3] = 9
    rows = [("7", 1, 0.01, False, em), ("8", 2, 0.012, True, em)]
    return pd.DataFrame(rows, columns=["synapse_id", "z", "cutout_fraction", "is_blanked", "em"])


def test_section_strip(ax, strip):
    axes = figures.section_strip(ax.figure.subplots(1, 3), strip, 8.0)
    titles = ["1.000 % cut, kept\n7\nz = 1", "1.200 % cut, blanked\n8\nz = 2", ""]
    assert [ax.get_title() for ax in axes] == titles
    assert np.flatnonzero(axes[0].images[0].get_array()[0]).tolist() == [3]  # x to the right
    assert axes[0].images[0].get_extent() == pytest.approx([0, 0.032, 0.048, 0])
    left, right = axes[0].lines[0].get_xdata()
    assert axes[0].texts[-1].get_text() == f"{1000 * (right - left):.0f} nm" == "5 nm"
    assert not axes[2].axison


SECTIONS = pd.DataFrame(
    {"synapse_id": list("aaab"), "mean": [1.0, 2.0, 3.0, 4.0], "is_blanked": [False, True, False, False]}
)


def test_mean_along_z_marks_blanked_sections(ax):
    figures.mean_along_z(ax, SECTIONS)
    means, marks, *_ = ax.lines
    assert np.isnan(means.get_ydata()).tolist() == [False, True, False]
    assert marks.get_xdata().tolist() == [1]
    assert texts(ax) == ["a", "b", "blanked section"]
    ax.clear()
    figures.mean_along_z(ax, SECTIONS[2:])
    assert texts(ax) == ["a", "b"]


@pytest.fixture
def one():
    """Synapse of 10 x 20 x 4 voxels of 8 x 8 x 40 nm: 0.08 x 0.16 x 0.16 µm."""
    em, mask = np.zeros((2, 10, 20, 4), dtype=np.uint8)
    em[7, :, :] = 9
    mask[3:6, 5:9, 1:3] = 2
    return Synapse("7", em, mask, (4, 6, 2), np.array([8, 8, 40]), ("7", "more"))


def test_a_synapse_is_drawn_with_the_true_proportions(ax, one):
    figures.synapse(ax, one)
    gap = 0.04 * 0.16
    extents = [image.get_extent() for image in ax.images]
    assert extents[0] == pytest.approx([0, 0.08, 0.16, 0])  # xy
    assert extents[1] == pytest.approx([0.08 + gap, 0.24 + gap, 0.16, 0])  # z to the right, y down
    assert extents[2] == pytest.approx([0, 0.08, 0.32 + gap, 0.16 + gap])  # x to the right, z down
    assert ax.get_aspect() == 1
    assert np.flatnonzero(ax.images[0].get_array()[0]).tolist() == [7]
    assert np.flatnonzero(ax.images[2].get_array()[0]).tolist() == [7]
    assert ax.images[1].get_array().shape == (20, 4)
    vertices = ax.collections[0].get_paths()[0].vertices
    assert vertices.min(0) == pytest.approx([0.024, 0.040])  # the outline of x 3 to 6, y 5 to 9
    assert vertices.max(0) == pytest.approx([0.048, 0.072])
    assert ax.get_title(loc="left") == "7\nmore"
    assert [text.get_text() for text in ax.texts] == ["z = 2", "x = 4 (blanked)", "y = 6", "20 nm"]


def test_black_planes_have_a_frame_on_black(ax, one):
    figures.synapse(ax, one)
    frames = [(patch.get_x(), patch.get_width(), patch.get_height()) for patch in ax.patches]
    assert frames[0] == pytest.approx((0, 0.08, 0.16))
    assert len(frames) == 3


def test_sections_of_a_raw_chunk_keep_their_number(ax, one):
    figures.synapse(ax, replace(one, first_z=100))
    assert [text.get_text() for text in ax.texts[:3]] == ["z = 102", "x = 4 (blanked)", "y = 6"]


def test_a_warning_takes_the_place_of_the_second_line(ax, one):
    figures.synapse(ax, replace(one, warning="it may not fit"))
    assert ax.get_title(loc="left") == "7\nit may not fit"
    warned = ax._left_title.get_color()
    ax.clear()
    figures.synapse(ax, replace(one, caption=("7", "more", "too much")))
    assert ax.get_title(loc="left") == "7\nmore"
    assert warned != ax._left_title.get_color()


@pytest.mark.parametrize("depth", [1, 4, 40])
@pytest.mark.parametrize("name", ["7", "864691135100034812_and_much_more_text"])
def test_text_stays_inside_its_panel(ax, depth, name):
    em, mask = np.full((2, 64, 64, depth), 9, np.uint8)
    one = Synapse(name, em, mask, (32, 32, 0), np.array([8, 8, 40]), (f"{name}: z 102 to 153 of 256", name))
    figure = figures.contact_sheet([one] * 5, "title")
    figure.canvas.draw()
    cell = figure.bbox.width / 4
    for panel in figure.axes[:5]:
        title = panel._left_title.get_window_extent()
        assert title.x0 // cell == (title.x1 - 1) // cell
        for text, image in zip(panel.texts[1:3], panel.images[1:3], strict=True):
            inside, around = text.get_window_extent(), image.get_window_extent()
            assert inside.width <= around.width + 1 and inside.height <= around.height + 1
    plt.close(figure)


def test_a_small_cleft_is_enlarged(ax, one):
    em, mask = np.full((100, 80, 5), 9, np.uint8), np.zeros((100, 80, 5), np.uint8)
    mask[90:96, 40:44, 2], em[95, 40, 2] = 2, 200
    small = replace(one, em_xyz=em, mask_xyz=mask, centre_xyz=(93, 42, 2), first_z=10)
    figures.synapse(ax, small)
    zoomed = ax.images[3]
    assert ax.texts[-1].get_text() == "z = 12, 2 x"
    left, right, bottom, _ = zoomed.get_extent()
    n_x = zoomed.get_array().shape[1]
    assert (right - left) / n_x == pytest.approx(2 * 0.008)
    assert zoomed.get_array().max() == 200
    frame = ax.patches[-1]  # after those of the planes
    assert frame.get_x() + frame.get_width() == pytest.approx(0.8)  # it ends where the plane does
    assert ax.get_xlim()[1] >= right and ax.get_ylim()[0] >= bottom
    mask[:, 40:44, 2] = 2
    ax.clear()
    figures.synapse(ax, small)
    assert (len(ax.images), len(ax.patches)) == (3, 3)


def test_the_scale_bar_is_as_long_as_it_says(ax, one):
    figures.synapse(ax, one)
    left, right = ax.lines[-1].get_xdata()
    assert right - left == pytest.approx(0.020)


def test_contact_sheet(ax, one):
    figure = figures.contact_sheet([one] * 5, "title")
    assert [len(ax.images) for ax in figure.axes] == [3] * 5 + [0] * 3
    assert not any(ax.axison for ax in figure.axes)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["presynaptic", "cleft", "postsynaptic"]
    assert [line.get_color() for line in legend.get_lines()] == list(figures.LABEL_COLOURS.values())
    assert figure.get_suptitle() == "title"


@pytest.mark.parametrize(
    ("n", "panels", "inches"),
    [(1, 1, (9, 9.5)), (2, 2, (18, 9.5)), (3, 3, (18, 6.5)), (4, 4, (18, 5)), (5, 8, (18, 10))],
)
def test_few_synapses_are_drawn_larger(n, panels, inches, ax, one):
    figure = figures.contact_sheet([one] * n, "title")
    assert (len(figure.axes), tuple(figure.get_size_inches())) == (panels, inches)


def test_names_on_narrow_planes_stay_inside(ax, one):
    narrow = replace(
        one, em_xyz=np.zeros((64, 160, 33), np.uint8), mask_xyz=np.zeros((64, 160, 33), np.uint8)
    )
    figure = figures.contact_sheet([narrow] * 4, "title")
    figure.canvas.draw()
    for text, image in zip(figure.axes[0].texts[:3], figure.axes[0].images, strict=True):
        assert "(blanked)" in text.get_text()
        assert text.get_window_extent().width <= image.get_window_extent().width + 1
    plt.close(figure)


def test_a_contact_sheet_of_nothing(ax):
    assert figures.contact_sheet([], "title") is None


def test_a_single_section_can_be_without_outlines(one):
    def is_coloured(*has_outlines):
        pixels = plt.imread(io.BytesIO(figures.section_png(one, 1, *has_outlines)))
        assert pixels.shape[:2] == (600, 600)
        return np.ptp(pixels[..., :3], axis=-1).any()

    assert is_coloured() and is_coloured(True)
    assert not is_coloured(False)


def test_thin_chunks_can_be_drawn(ax, one):
    thin = replace(one, em_xyz=one.em_xyz[:, :, :1], mask_xyz=one.mask_xyz[:, :, :1], centre_xyz=(4, 6, 0))
    figures.synapse(ax, thin)
    assert len(ax.images) == 3


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 2.5], [0, 0], [3, 7]])
def test_distribution(ax, values):
    column = pd.Series(values, index=["a", "b"], name="cleft volume (µm³)")
    row = {"synapse_id": "b", "quantity": column.name, "value": values[1], "why": "far from the others"}
    other = {"synapse_id": "a", "quantity": "another", "value": 1, "why": "none"}
    figures.distribution(ax, column, pd.DataFrame([row, other]))
    assert sum(bar.get_height() for bar in ax.patches) == 2
    assert texts(ax) == ["far from the others: b"]
    if column.dtype == int:
        assert ax.lines[0].get_xdata().tolist() == [values[1]]
        assert ax.get_xlabel() == "Cleft volume (µm³)"
    else:
        assert ax.get_xlabel() == "Cleft volume (10⁻³ µm³)"
        assert ax.get_xscale() == "log"


def test_long_ids_of_unusual_synapses_stay_inside():
    synapse_ids = [f"86469113500010{n:05}" for n in range(9)]
    quantities = pd.DataFrame({name: np.arange(1.0, 10) for name in "abcd"}, index=synapse_ids)
    rows = [(one, "d", 3.0, "more than a quarter of the sections") for one in synapse_ids]
    unusual = pd.DataFrame(rows, columns=["synapse_id", "quantity", "value", "why"])
    figure = figures.distributions(quantities, unusual)
    figure.canvas.draw()
    legend = figure.axes[3].get_legend().get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.width
    assert figure.axes[3].bbox.width > 0.35 * figure.bbox.width
    plt.close(figure)


def test_synapses_without_a_label_are_counted_beside_the_axis(ax):
    values = np.append(10.0 ** np.arange(-4, 0, 0.01), [0, 0, 0])
    column = pd.Series(values, [str(number) for number in range(403)], name="cleft volume (µm³)")
    rows = [("402", column.name, 0.0, "none"), ("399", column.name, values[399], "far from the others")]
    figures.distribution(ax, column, pd.DataFrame(rows, columns=["synapse_id", "quantity", "value", "why"]))
    *bins, none = ax.patches
    widths = [(bar.get_x() + bar.get_width()) / bar.get_x() for bar in bins]
    assert widths == pytest.approx([widths[0]] * len(bins))
    assert (sum(bar.get_height() for bar in bins), none.get_height()) == (400, 3)
    assert bins[0].get_x() == pytest.approx(0.1)
    at_none, far = ax.lines[0].get_xdata()[0], ax.lines[1].get_xdata()[0]
    assert none.get_x() < at_none < none.get_x() + none.get_width() < bins[0].get_x()
    assert far == pytest.approx(1000 * values[399])
    assert {text.get_text() for text in ax.get_xticklabels()} == {"none: 3", "0.1", "1", "10", "100"}
    assert texts(ax) == ["none: 402", "far from the others: 399"]


@pytest.mark.parametrize("values", [[0.0, 0.0], [0.004], [0.004] * 5, [1e-4, 1e-4, 1e-4, 5.0], [7e-3, 8e-3]])
def test_volumes_that_are_alike_or_few_have_a_readable_axis(ax, values):
    column = pd.Series(values, name="cleft volume (µm³)")
    figures.distribution(ax, column, pd.DataFrame(columns=["synapse_id", "quantity", "value", "why"]))
    assert sum(bar.get_height() for bar in ax.patches) == len(values)
    assert ax.get_legend() is None
    assert 1 <= len(ax.get_xticks()) <= 9


@pytest.mark.parametrize(("dark", "colour"), [(False, "white"), (True, "black")])
def test_style(dark, colour):
    figures.use_style(dark)
    assert plt.rcParams["figure.facecolor"] == colour
    assert [plt.rcParams[name] for name in ("font.size", "axes.labelsize", "figure.titlesize")] == [
        12,
        14,
        16,
    ]
    figures.use_style()


def test_tables_of_notebooks_are_aligned_to_the_left(monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    figures.use_style()
    shown, _ = shell.display_formatter.format(pd.DataFrame({"value": ["a <b>"]}, index=["name"]))
    assert '<td style="text-align: left">a &lt;b&gt;</td>' in shown["text/html"]
    assert '<th style="text-align: left">name</th>' in shown["text/html"]
    assert shown["text/plain"].split() == ["value", "name", "a", "<b>"]


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (pd.DataFrame({"a": [0.5, np.nan]}, index=["x", "y"]), ["y", "-"]),
        (pd.DataFrame({"a": ["$p$"]}, index=pd.Index(["x"], name="id")), ["id", "a", "x", "$p$"]),
        (pd.DataFrame({"a": [1.0, 2.0]}, index=[5, 9]), ["a", "1.0", "2.0"]),
        (pd.DataFrame({"id": ["7"]}, index=pd.Index(["x"], name="id")), ["id", "id", "x", "7"]),
    ],
)
def test_what_tables_of_notebooks_leave_out(table, row):
    """Numbers of rows, a row for the index's name, NaN, their size; and $ are no mathematics."""
    figures.use_style()
    text = text_table.as_html(table)
    shown = [*filter(None, re.sub(r"<style.*?</style>|<[^>]*>", "\n", text).split())]
    assert shown[-len(row) :] == row
    assert "mathjax_ignore" in text and "columns" not in text


def test_the_figure_of_each_notebook(ax, strip):
    """Every part is on its own Axes."""
    classes = pd.DataFrame({"all sections": [7, 1], "kept sections": [3, 1]}, index=["clean", "partly cut"])
    quantities = pd.DataFrame({name: [1.0, 2.5] for name in "abcd"}, index=["7", "8"])
    unusual = pd.DataFrame(columns=["synapse_id", "quantity", "value", "why"])
    drawn = {
        figures.cutout(CUTOUT, classes, strip, 8.0): [
            "Clean and cut",
            "Cutout fraction",
            "Near the threshold",
            "1.000 % cut",
        ],
        figures.intensity(INTENSITY): ["Intensity"],
        figures.variation(VARIATION, EXAMPLE, "a", SECTIONS): [
            "Variation of brightness",
            "Two sections of chunk a",
            "Brightness along z",
        ],
        figures.fingerprint(RECORD): ["Blanked sections", "Brightness", "Contrast"],
        figures.distributions(quantities, unusual): ["A", "B", "C", "D"],
    }
    for figure, titles in drawn.items():
        assert [ax.get_title().split(", ")[0] for ax in figure.axes][: len(titles)] == titles
    assert next(iter(drawn)).axes[0].patches[0].get_width() == 7  # of all sections


@pytest.mark.parametrize(
    ("rows", "where"), [([0, 1], "on both sides"), ([0], "none is blanked"), ([1], "none is kept")]
)
def test_the_heading_of_the_strip_says_which_side_is_empty(ax, strip, rows, where):
    classes = pd.DataFrame({"all sections": [7]}, index=["clean"])
    heading = figures.cutout(CUTOUT, classes, strip.iloc[rows], 8.0).subfigs[1].get_suptitle()
    assert heading == f"The sections nearest to the threshold, {where}"


def test_a_figure_is_saved_with_its_numbers(tmp_path):
    figure = plt.figure(figsize=(4, 2))
    figures.save(tmp_path / "new" / "alone", figure)
    figures.save(f"{tmp_path}/new/one.two", figure, {"a": [np.nan, 1]})
    plt.close(figure)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "alone.png",
        "one.two.json",
        "one.two.png",
    ]
    assert plt.imread(tmp_path / "new" / "one.two.png").shape[:2] == (300, 600)
    assert json.loads((tmp_path / "new" / "one.two.json").read_text()) == {"a": [None, 1]}
    figures.save(tmp_path / "new" / "alone", None)
    figures.save(tmp_path / "newer" / "alone", None)  # a folder that is not there
    assert len(list((tmp_path / "new").iterdir())) == 2


@pytest.mark.parametrize("synapse_id", [r"$\frac{$", "_a$_$"])
def test_ids_are_drawn_as_they_are(ax, one, strip, synapse_id):
    strip["synapse_id"] = synapse_id
    unusual = pd.DataFrame({"synapse_id": [synapse_id], "quantity": "a", "value": 1.0, "why": "none"})
    figures.section_strip([ax, *ax.figure.subplots(1, 2)], strip, 8.0)
    drawn = [
        ax.figure,
        figures.contact_sheet([replace(one, caption=(synapse_id, "more"))], "title"),
        figures.variation(VARIATION, EXAMPLE, synapse_id, SECTIONS.assign(synapse_id=synapse_id)),
        figures.distributions(pd.DataFrame({name: [1.0] for name in "abcd"}), unusual),
    ]
    for figure in drawn:
        figure.savefig(io.BytesIO())  # where mathematics that is none is an error
        texts = [text.get_text() for text in figure.findobj(Text)]
        found = [text for text in texts if synapse_id in text.replace(r"\$", "$")]
        assert found and not any(is_math_text(text) for text in found)
