"""Figures: each function draws on the Axes that it is given and returns it; nothing is loaded or computed.

Arrays have the axes (x, y, z); pictures have x to the right and y down.
"""

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from synprep import labels
from synprep.errors import counted, listed
from synprep.volume import Synapse

# Colours that people with colour vision deficiency can tell apart (M. Okabe and K. Ito, Color Universal
# Design, 2008), the same in all pictures.
LABEL_COLOURS = {labels.PRESYNAPTIC: "#56B4E9", labels.CLEFT: "#F0E442", labels.POSTSYNAPTIC: "#D55E00"}
_ON_WHITE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_ON_BLACK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
_DATA, _OTHER = "C0", "C1"


def use_style(dark: bool = False) -> None:
    """Set text sizes and colours of all figures, and let tables show long paths whole.

    Parameters
    ----------
    dark : bool
        True gives light lines on black, as in the seed notebook.
    """
    plt.style.use("dark_background" if dark else "default")
    plt.rcParams.update(
        {
            "font.size": 12,
            "figure.dpi": 72,  # on the screen; files have more, see storage.save_figure
            "axes.titlesize": 14,
            "axes.labelsize": 14,
            "figure.titlesize": 16,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=_ON_BLACK if dark else _ON_WHITE),
            "image.cmap": "gray",
        }
    )
    pd.set_option("display.max_colwidth", None)


def _over(n: int, noun: str, report: Mapping[str, Any]) -> str:
    return f"{counted(n, noun)} of {counted(len(report['synapse_ids']), 'chunk')}"


def cutout_classes(ax: Axes, counts: pd.Series, report: Mapping[str, Any]) -> Axes:
    """Draw how many sections are clean, partly cut out, and black.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    counts : Series
        Column of `synprep.survey.cutout_classes`.
    report : mapping
        See `synprep.survey.cutout_report`.

    Returns
    -------
    Axes
        `ax`.
    """
    ax.barh(counts.index, counts, color=[_DATA if name == "clean" else _OTHER for name in counts.index])
    for row, count in enumerate(counts):
        ax.annotate(f" {count:,} ({count / max(1, counts.sum()):.1%})", (count, row), va="center")
    ax.set_xlim(0, 1.5 * max(1, counts.max()))  # room for the numbers
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("Number of sections")
    ax.set_title(f"Clean and cut, {_over(report['n_sections'], 'section', report)}")
    return ax


def cutout_histogram(ax: Axes, report: Mapping[str, Any]) -> Axes:
    """Draw the number of sections in each bin of the cutout fraction.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    report : mapping
        See `synprep.survey.cutout_report`.

    Returns
    -------
    Axes
        `ax`.
    """
    edges, threshold = np.asarray(report["bin_edges"]), report["cutout_threshold"]
    ax.bar(edges[:-1], report["section_counts"], np.diff(edges), align="edge", color=_DATA)
    ax.axvline(
        threshold, color=_OTHER, linestyle="--", label=f"threshold {threshold:g}: blanked to the right"
    )
    ax.set_yscale("log")
    ax.set_ylim(0.5, 2 * max(1, *report["section_counts"]))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlim(-0.01, 1.01)
    ax.set_xlabel("Cutout fraction of a section")
    ax.set_ylabel("Number of sections")
    ax.set_title(f"Cutout fraction, {_over(report['n_sections'], 'section', report)}")
    ax.legend(loc="upper center")
    return ax


def section_strip(axes: Iterable[Axes], strip: pd.DataFrame, threshold: float) -> Iterable[Axes]:
    """Draw the sections that are nearest to the threshold.

    Parameters
    ----------
    axes : iterable of Axes
        Where to draw, a section each; those that are left over are hidden.
    strip : DataFrame
        See `synprep.survey.strip`.
    threshold : float
        Cutout fraction above which a section is blanked.

    Returns
    -------
    iterable of Axes
        `axes`.
    """
    axes = list(axes)
    for ax in axes:
        ax.set_axis_off()
    for ax, one in zip(axes, strip.itertuples(), strict=False):
        ax.imshow(one.em.T, vmin=0, vmax=255)
        is_blanked = one.cutout_fraction > threshold
        name = f"{one.cutout_fraction:.3%} {'blanked' if is_blanked else 'kept'}"
        ax.set_title(
            f"{name}\n{one.synapse_id}, z = {one.z}", fontsize=12, color=_OTHER if is_blanked else _DATA
        )
    return axes


def intensity_histogram(ax: Axes, report: Mapping[str, Any], cutout_pixel_value: int = 0) -> Axes:
    """Draw the intensity histogram of imaged pixels, the cutout pixels apart.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    report : mapping
        See `synprep.survey.intensity_report`.
    cutout_pixel_value : int
        Intensity of cutout pixels.

    Returns
    -------
    Axes
        `ax`.
    """
    shares = np.asarray(report["counts"]) / max(1, np.sum(report["counts"]))
    is_cutout = np.arange(256) == cutout_pixel_value
    ax.stairs(
        np.where(is_cutout, 0, shares), np.arange(257) - 0.5, fill=True, color=_DATA, label="imaged pixels"
    )
    label = f"cutout pixels: {shares[cutout_pixel_value]:.3%}"
    ax.bar(cutout_pixel_value, shares[cutout_pixel_value], 1, color=_OTHER, label=label)
    mean, std = report["mean"], report["std"]
    ax.axvline(
        mean,
        color=plt.rcParams["text.color"],
        linestyle="--",
        label=f"mean {mean:.1f}, standard deviation {std:.1f}",
    )
    ax.axvspan(mean - std, mean + std, color="gray", alpha=0.15)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    ax.set_xlim(-2, 257)
    ax.set_xlabel("Intensity (grey level, 0 to 255)")
    ax.set_ylabel("Share of pixels")
    ax.set_title(f"Intensity, {_over(report['n_sections_used'], 'section', report)}")
    ax.legend(loc="upper right")
    return ax


def ratio_histogram(ax: Axes, report: Mapping[str, Any]) -> Axes:
    """Draw the distribution of the ratios of neighbouring sections' mean intensities.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    report : mapping
        See `synprep.survey.variation_report`.

    Returns
    -------
    Axes
        `ax`.
    """
    low, _, median, _, high = report["percentiles"]
    ax.hist(report["ratios"], bins=50, color=_DATA, label="section pairs")
    ax.axvline(median, color=_OTHER, linestyle="--", label=f"median {median:.4f}")
    ax.axvspan(low, high, color="gray", alpha=0.15, label=f"5 to 95%: {low:.4f} to {high:.4f}")
    ax.set_xlabel("Mean intensity of a section / of the next one")
    ax.set_ylabel("Number of section pairs")
    ax.set_title(f"Variation of brightness, {_over(report['n_section_pairs'], 'section pair', report)}")
    ax.legend(loc="upper right")
    return ax


def mean_along_z(ax: Axes, sections: pd.DataFrame, n_chunks: int = 5) -> Axes:
    """Draw the mean intensity of the sections of a few chunks, and mark the sections that are blanked.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    sections : DataFrame
        `sections` of `synprep.survey.Surveyed`.
    n_chunks : int
        How many chunks to draw.

    Returns
    -------
    Axes
        `ax`.
    """
    shown = list(sections.groupby("synapse_id", sort=False))[:n_chunks]
    for number, (synapse_id, rows) in enumerate(shown):
        mean_z, is_blanked_z = rows["mean"].to_numpy(), rows["is_blanked"].to_numpy()
        colour = f"C{number}"
        ax.plot(np.where(is_blanked_z, np.nan, mean_z), color=colour, label=synapse_id)
        blanked = np.flatnonzero(is_blanked_z)
        height = np.full(len(blanked), 0.03 + 0.04 * number)
        ax.plot(
            blanked,
            height,
            "|",
            color=colour,
            markersize=10,
            markeredgewidth=2,
            transform=ax.get_xaxis_transform(),
        )
    ax.margins(y=0.3)  # room for marks and legend
    ax.plot([], [], "|", color="gray", markersize=10, markeredgewidth=2, label="blanked section")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("Section (z)")
    ax.set_ylabel("Mean intensity\n(grey level, imaged pixels)")
    ax.set_title(f"Brightness along z, {counted(len(shown), 'chunk')}")
    ax.legend(loc="upper center", ncols=6)
    return ax


def example_histograms(ax: Axes, counts: pd.DataFrame, synapse_id: str) -> Axes:
    """Draw the intensity histograms of a section and of the next one, before and after the transform.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    counts : DataFrame
        See `synprep.survey.example_table`.
    synapse_id : str
        Chunk that the sections are of.

    Returns
    -------
    Axes
        `ax`.
    """
    styles = ({"color": _DATA}, {"color": "gray", "linestyle": ":"}, {"color": _OTHER})
    for (name, column), style in zip(counts.items(), styles, strict=True):
        by_four = column.to_numpy().reshape(64, 4).sum(axis=1)  # single grey levels are often unused
        ax.plot(counts.index[::4] + 1.5, by_four / max(1, by_four.sum()), label=name, **style)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    ax.set_xlim(-2, 257)
    ax.set_ylim(0)
    ax.set_xlabel("Intensity (grey level, 0 to 255)")
    ax.set_ylabel("Share of imaged pixels\nper 4 grey levels")
    ax.set_title(f"Two sections of chunk {synapse_id}")
    ax.legend(loc="upper right")
    return ax


def blanked_sections(ax: Axes, record: Mapping[str, Any]) -> Axes:
    """Draw how many chunks have how many blanked sections, and what the model of independent cuts expects.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    record : mapping
        See `synprep.fingerprint.run`.

    Returns
    -------
    Axes
        `ax`.
    """
    found, model = record["blanked"]["n_chunks"], record["blanked"]["model"]
    ax.bar(range(len(found)), found, color=_DATA, label="chunks")
    if model is None:
        ax.plot([], [], " ", label="model: withheld")
    else:
        numbers = record["numbers"]["blanked_sections"]
        label = f"model: probability {numbers['section_cutout_prob']['value']:.2f}, "
        label += f"rate {numbers['cutout_poisson_rate']['value']:.2f}"
        ax.plot(range(len(model)), model, "o--", color=_OTHER, label=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, 1.3 * max(found))
    ax.set_xlabel("Blanked sections of a chunk")
    ax.set_ylabel("Number of chunks")
    ax.set_title(f"Blanked sections, {_over(record['n_sections'], 'section', record)}")
    ax.legend(loc="upper right")
    return ax


def neighbour_changes(ax: Axes, record: Mapping[str, Any]) -> Axes:
    """Draw by how much contrast and brightness differ between neighbouring sections.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    record : mapping
        See `synprep.fingerprint.run`.

    Returns
    -------
    Axes
        `ax`.
    """
    neighbours, edges = record["neighbours"], 100 * np.asarray(record["neighbours"]["edges"])
    ax.stairs(neighbours["contrast"], edges, fill=True, color=_DATA, label="contrast")
    ax.stairs(neighbours["brightness"], edges, color=_OTHER, linewidth=2, label="brightness")
    model = neighbours["model"]
    label = "model: withheld"
    if model:
        width = record["numbers"]["section_variation"]["section_contrast_half_width"]["value"]
        label = f"model: slopes 1 ± {width:.4f} (from contrast)"
    points = (100 * np.asarray(model["log_ratio"]), model["n"]) if model else ([], [])
    ax.plot(*points, color="gray", linestyle="--" if model else " ", label=label)
    ax.set_xlabel("Log ratio of a section to the next one (%)")
    ax.set_ylabel("Number of section pairs")
    ax.set_title(f"Neighbouring sections, {_over(neighbours['n_section_pairs'], 'pair', record)}")
    ax.legend(loc="upper right")
    return ax


def sheet(n_pictures: int, n_columns: int = 4) -> tuple[Figure, Sequence[Axes]]:
    """Make a figure for a contact sheet.

    Parameters
    ----------
    n_pictures : int
        Number of pictures.
    n_columns : int
        How many stand side by side.

    Returns
    -------
    figure : Figure
        18 inches wide.
    axes : sequence of Axes
        At least one, row by row.
    """
    n_rows = max(1, -(-n_pictures // n_columns))
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(18, 20 / n_columns * n_rows), squeeze=False)
    return figure, axes.ravel()


def contact_sheet(axes: Iterable[Axes], synapses: Sequence[Synapse]) -> Iterable[Axes]:
    """Draw one synapse on each Axes, and one legend of the labels below.

    Parameters
    ----------
    axes : iterable of Axes
        Where to draw, of one figure; those that are left over are hidden.
    synapses : sequence of Synapse
        What to draw.

    Returns
    -------
    iterable of Axes
        `axes`.
    """
    axes = list(axes)
    for ax, one in itertools.zip_longest(axes, synapses[: len(axes)]):
        ax.set_axis_off() if one is None else synapse(ax, one)
    lines = [Line2D([], [], color=colour, linewidth=3) for colour in LABEL_COLOURS.values()]
    names = [labels.NAMES[label] for label in LABEL_COLOURS]
    axes[0].figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False)
    return axes


def synapse(ax: Axes, one: Synapse) -> Axes:
    """Draw the planes through the centre of a synapse, in true proportions, with outlines of its labels.

    The xy plane is at the upper left; beside it the yz plane with z to the right, below it the xz plane with
    z down, so that equal coordinates face each other.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    one : Synapse
        What to draw.

    Returns
    -------
    Axes
        `ax`.
    """
    width, height, depth = np.array(one.em_xyz.shape) * one.spacing_xyz_nm / 1000
    gap = 0.04 * max(width, height)
    x, y, z = one.centre_xyz
    em_xyz, mask_xyz = one.em_xyz, one.mask_xyz
    _plane(ax, em_xyz[:, :, z], mask_xyz[:, :, z], (0, 0), (width, height), f"z = {z}")
    _plane(ax, em_xyz[x].T, mask_xyz[x].T, (width + gap, 0), (depth, height), f"x = {x}")
    _plane(ax, em_xyz[:, y], mask_xyz[:, y], (0, height + gap), (width, depth), f"y = {y}")
    _scale_bar(ax, width, height)
    ax.set(xlim=(0, width + gap + depth), ylim=(height + gap + depth, 0), aspect="equal")
    ax.set_axis_off()
    ax.set_title("\n".join(one.caption), loc="left", fontsize=12)
    return ax


def section(ax: Axes, em: np.ndarray, mask: np.ndarray | None, spacing_xyz_nm: np.ndarray) -> Axes:
    """Draw one section, with a scale bar.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    em : (x, y) uint8 ndarray
        EM.
    mask : (x, y) uint8 ndarray or None
        Labels to outline; None: no outlines.
    spacing_xyz_nm : (3,) ndarray
        Voxel size in nm.

    Returns
    -------
    Axes
        `ax`.
    """
    width, height = np.array(em.shape) * spacing_xyz_nm[:2] / 1000
    _plane(ax, em, np.zeros_like(em) if mask is None else mask, (0, 0), (width, height), "")
    _scale_bar(ax, width, height)
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.set_axis_off()
    return ax


def section_png(one: Synapse, z: int, has_outlines: bool = True) -> bytes:
    """Draw one section with a scale bar, for `inspection.browse`; PNG of 600 x 600 pixels."""
    figure = Figure(figsize=(6, 6), dpi=100, layout="constrained")
    mask = one.mask_xyz[:, :, z] if has_outlines else None
    section(figure.add_subplot(), one.em_xyz[:, :, z], mask, one.spacing_xyz_nm)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


_ON_PICTURE = {"color": "white", "path_effects": [Stroke(linewidth=3, foreground="black"), Normal()]}


def _plane(ax: Axes, em: np.ndarray, mask: np.ndarray, origin, size, name: str) -> None:
    """Draw one plane at a place (µm); the first axis of the arrays goes to the right, the second down."""
    (left, top), (width, height) = origin, size
    ax.imshow(em.T, extent=(left, left + width, top + height, top), vmin=0, vmax=255)
    right = left + (np.arange(em.shape[0]) + 0.5) * width / em.shape[0]
    down = top + (np.arange(em.shape[1]) + 0.5) * height / em.shape[1]
    for label, colour in LABEL_COLOURS.items():
        is_inside = np.equal(mask.T, label)
        if min(em.shape) > 1 and is_inside.any() and not is_inside.all():
            ax.contour(right, down, is_inside, [0.5], colors=colour, linewidths=1.5)
    name += "" if em.any() else " (blanked)"
    ax.annotate(name, (left, top), (3, -3), textcoords="offset points", va="top", **_ON_PICTURE)


def _scale_bar(ax: Axes, width: float, height: float) -> None:
    """Draw a bar of a round length at the lower left of a picture; sizes in µm."""
    lengths_nm = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    length_nm = max(length for length in lengths_nm if length == 1 or length <= 300 * width)
    left, bottom = 0.04 * width, 0.95 * height
    ax.plot(
        [left, left + length_nm / 1000], [bottom, bottom], linewidth=4, solid_capstyle="butt", **_ON_PICTURE
    )
    at = (left, bottom), (0, 4)
    ax.annotate(f"{length_nm} nm", *at, textcoords="offset points", va="bottom", **_ON_PICTURE)


def distribution(ax: Axes, values: pd.Series, unusual: pd.DataFrame) -> Axes:
    """Draw the distribution of a quantity over a data set, with the ids of unusual synapses in the legend.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    values : Series
        Column of `synprep.inspection.quantities`.
    unusual : DataFrame
        See `synprep.inspection.unusual`.

    Returns
    -------
    Axes
        `ax`.
    """
    top = max(values.max(), 1e-6)
    bins = (
        np.histogram_bin_edges(values, "auto", (0, top))
        if values.dtype == float
        else np.arange(top + 2) - 0.5
    )
    ax.hist(values, bins, color=_DATA, edgecolor=plt.rcParams["axes.facecolor"])
    for why, rows in unusual[unusual["quantity"] == values.name].groupby("why", sort=False):
        ax.plot(
            rows["value"],
            np.zeros(len(rows)),
            "^",
            color=_OTHER,
            clip_on=False,
            label=f"{why}: {listed(rows['synapse_id'], 3)}",
        )
    if ax.get_legend_handles_labels()[0]:
        ax.set_ylim(top=1.3 * ax.get_ylim()[1])  # room for the legend
        ax.legend(loc="upper right")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=values.dtype != float))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    name = values.name[0].upper() + values.name[1:]
    ax.set_xlabel(name)
    ax.set_ylabel("Number of synapses")
    ax.set_title(f"{name.split(' (')[0]}, {counted(len(values), 'synapse')}")
    return ax
