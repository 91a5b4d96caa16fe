import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from synprep import figures


@pytest.fixture
def ax():
    figures.use_style()
    yield plt.figure().gca()
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_cutout_histogram(ax):
    report = {
        "synapse_ids": ["a", "b"],
        "n_sections": 8,
        "cutout_threshold": 0.1,
        "bin_edges": [0.0, 0.5, 1.0],
        "section_counts": [6, 2],
    }
    assert figures.cutout_histogram(ax, report) is ax
    assert [bar.get_height() for bar in ax.patches] == [0.75, 0.25]
    assert ax.get_yscale() == "log"
    assert ax.lines[0].get_xdata()[0] == 0.1
    assert ax.get_title() == "Cutout fraction, 8 sections of 2 chunks"


def test_intensity_histogram_shows_cutout_pixels_apart(ax):
    counts = np.zeros(256, dtype=np.int64)
    counts[[0, 100]] = 1, 3
    report = {"synapse_ids": ["a"], "n_sections_used": 1, "counts": counts, "mean": 100.0, "std": 0.0}
    assert figures.intensity_histogram(ax, report) is ax
    imaged, cutout = ax.patches[0].get_data().values, ax.containers[0][0]
    assert (imaged[0], imaged[100]) == (0, 0.75)
    assert (cutout.get_x() + cutout.get_width() / 2, cutout.get_height()) == (0, 0.25)
    assert "cutout pixels: 25.000%" in texts(ax)


def test_ratio_histogram(ax):
    report = {
        "synapse_ids": ["a"],
        "n_section_pairs": 3,
        "ratios": [0.9, 1.0, 1.1],
        "percentiles": [0.9, 0.95, 1.0, 1.05, 1.1],
    }
    assert figures.ratio_histogram(ax, report) is ax
    assert sum(bar.get_height() for bar in ax.containers[0]) == 3
    assert "median 1.0000" in texts(ax)
    assert ax.get_title() == "Variation of brightness, 3 section pairs of 1 chunk"


def test_example_histograms(ax):
    counts = pd.DataFrame({name: np.eye(256, dtype=int)[100] for name in ("one", "two", "two, transformed")})
    assert figures.example_histograms(ax, counts, "a") is ax
    assert texts(ax) == ["one", "two", "two, transformed"]
    assert ax.lines[0].get_ydata().sum() == 1
    assert ax.lines[0].get_xdata()[ax.lines[0].get_ydata().argmax()] == 101.5  # grey levels 100 to 103


RECORD = {
    "synapse_ids": ["a", "b"],
    "n_sections": 20,
    "numbers": {
        "blanked_sections": {"section_cutout_prob": {"value": 0.5}, "cutout_poisson_rate": {"value": 1.5}},
        "section_variation": {"sectional_intensity_slope_half_width": {"value": 0.01}},
    },
    "blanked": {"n_chunks": [1, 0, 1], "model": [1.5, 0.3, 0.2]},
    "neighbours": {
        "n_section_pairs": 5,
        "edges": [-0.03, -0.01, 0.01, 0.03],
        "brightness": [0, 5, 0],
        "contrast": [1, 2, 2],
        "model": {"log_ratio": [-0.02, 0.0, 0.02], "n": [0.0, 5.0, 0.0]},
    },
}


def test_blanked_sections(ax):
    assert figures.blanked_sections(ax, RECORD) is ax
    assert [bar.get_height() for bar in ax.patches] == [1, 0, 1]
    assert ax.lines[0].get_ydata().tolist() == [1.5, 0.3, 0.2]
    assert sorted(texts(ax)) == ["chunks", "model: probability 0.50, rate 1.50"]
    assert ax.get_title() == "Blanked sections, 20 sections of 2 chunks"


def test_neighbour_changes_in_percent(ax):
    assert figures.neighbour_changes(ax, RECORD) is ax
    contrast, brightness = (patch.get_data() for patch in ax.patches)
    assert contrast.edges.tolist() == [-3, -1, 1, 3]
    assert (contrast.values.tolist(), brightness.values.tolist()) == ([1, 2, 2], [0, 5, 0])
    assert ax.lines[0].get_xdata().tolist() == [-2, 0, 2]
    assert texts(ax) == ["contrast", "brightness", "model: slopes 1 ± 0.0100"]
    assert ax.get_title() == "Neighbouring sections, 5 pairs of 2 chunks"


def test_a_withheld_model_is_not_drawn(ax):
    record = {**RECORD, "blanked": {"n_chunks": [2, 0], "model": None}}
    record["neighbours"] = {**RECORD["neighbours"], "model": None}
    for draw in (figures.blanked_sections, figures.neighbour_changes):
        ax.clear()
        draw(ax, record)
        assert [line.get_xdata().size for line in ax.lines] == [0]
        assert "model: withheld" in texts(ax)


def test_planes_are_drawn_with_the_true_proportions(ax):
    tensor = np.zeros((2, 10, 20, 4), dtype=np.uint8)
    tensor[0, 7, :, :] = 9
    tensor[1, 3:6, 5:9, 1:3] = 2
    axes = figures.planes(ax.figure.subplots(1, 3), tensor, (4, 6, 2), (8, 8, 40))
    assert [ax.get_title() for ax in axes] == ["z = 2", "y = 6", "x = 4"]
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [
        ("x (µm)", "y (µm)"),
        ("x (µm)", "z (µm)"),
        ("y (µm)", "z (µm)"),
    ]
    assert axes[0].images[0].get_extent() == pytest.approx([0, 0.08, 0.16, 0])
    assert axes[1].images[0].get_extent() == pytest.approx([0, 0.08, 0.16, 0])
    assert axes[2].images[0].get_extent() == pytest.approx([0, 0.16, 0.16, 0])
    assert np.flatnonzero(axes[0].images[0].get_array()[0]).tolist() == [7]  # x to the right
    low, high = (
        axes[0].collections[0].get_paths()[0].vertices.min(0),
        axes[0].collections[0].get_paths()[0].vertices.max(0),
    )
    assert low == pytest.approx([0.024, 0.040])  # the outline of x 3 to 6, y 5 to 9
    assert high == pytest.approx([0.048, 0.072])
    legend = ax.figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["presynaptic", "cleft", "postsynaptic"]
    assert [line.get_color() for line in legend.get_lines()] == list(figures.LABEL_COLOURS.values())


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
