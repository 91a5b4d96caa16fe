"""Figures of the notebooks; nothing is loaded or computed here.

A function that is given an Axes, always first, draws on it and returns it. One that is given none lays out
the whole figure of a notebook, and returns that. Arrays have the axes (x, y, z); pictures have x to the right
and y down.
"""

import io
import math
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.rcsetup import cycler
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from synprep._core import arrays, files, text_table
from synprep._core.arrays import Synapse
from synprep._core.errors import counted, listed, printable

# Colours that people with colour vision deficiency can tell apart (M. Okabe and K. Ito, Color Universal
# Design, 2008), the same in all pictures.
LABEL_COLOURS = {arrays.PRESYNAPTIC: "#56B4E9", arrays.CLEFT: "#F0E442", arrays.POSTSYNAPTIC: "#D55E00"}
_ON_WHITE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_ON_BLACK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
_DATA, _OTHER = "C0", "C1"
_ON_PICTURE = {"color": "white", "path_effects": [withStroke(linewidth=3, foreground="black")]}
_THOUSANDS = "{x:,.0f}"


def use_style(dark: bool = False) -> None:
    """Set text sizes and colours of all figures, and how notebooks show tables.

    Tables show long paths whole and are aligned to the left; their numbers of rows are left out, and what is
    between two $ is not set as mathematics.

    Parameters
    ----------
    dark : bool
        True gives light lines on black, as in the seed notebook.
    """
    plt.style.use("dark_background" if dark else "default")
    plt.rcParams.update(
        {
            "font.size": 12,
            "figure.dpi": 72,  # on the screen; files have more, see `save`
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
    pd.set_option("display.html.use_mathjax", False)
    if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, text_table.as_html)


def save(path: str | os.PathLike, figure: Figure | None, numbers: Mapping[str, Any] | None = None) -> None:
    """Write a figure as PNG and, if they are given, its numbers as JSON.

    Parameters
    ----------
    path : str or PathLike
        Without ``.png`` or ``.json``; its folder is made when missing.
    figure : Figure or None
        A picture of 10 inches becomes 1,500 pixels wide; without one, that of an earlier run is removed.
    numbers : mapping, optional
        Numbers, text, and lists or arrays of them; NaN becomes null.
    """
    if numbers is not None:
        files.save_json(f"{path}.json", numbers)
    if figure is None:
        files.remove(f"{path}.png")
        return
    with files.replacing(f"{path}.png") as file:
        figure.savefig(file, format="png", dpi=150)


def cutout(
    report: Mapping[str, Any], classes: pd.DataFrame, strip: pd.DataFrame, voxel_size_xy_nm: float
) -> Figure:
    """Draw what `survey.cutout_report`, `survey.cutout_classes` and `survey.strip` return."""
    figure = plt.figure(figsize=(18, 9.5))
    above, below = figure.subfigures(2, 1, height_ratios=[9, 5])
    left, middle, right = above.subplots(1, 3, width_ratios=[2, 3, 3])
    cutout_classes(left, classes["all sections"])
    cutout_histogram(middle, report)
    near_threshold(right, report)
    lacking = [
        name for name, side in (("kept", False), ("blanked", True)) if side not in set(strip["is_blanked"])
    ]
    where = f"none is {lacking[0]}" if lacking else "on both sides"
    below.suptitle(f"The sections nearest to the threshold, {where}")
    section_strip(below.subplots(1, 8), strip, voxel_size_xy_nm)
    return figure


def cutout_classes(ax: Axes, counts: pd.Series) -> Axes:
    """Draw how many sections are clean, partly cut out, and black: a column of `survey.cutout_classes`."""
    ax.barh(counts.index, counts, color=[_DATA if name == "clean" else _OTHER for name in counts.index])
    for row, count in enumerate(counts):
        ax.annotate(f" {count:,} ({100 * count / max(1, counts.sum()):.1f} %)", (count, row), va="center")
    ax.set_xlim(0, 1.5 * max(1, counts.max()))  # room for the numbers
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(_THOUSANDS)
    ax.set(title="Clean and cut", xlabel="Number of sections")
    return ax


def cutout_histogram(ax: Axes, report: Mapping[str, Any]) -> Axes:
    """Draw the number of sections in each bin of the cutout fraction: `survey.cutout_report`."""
    edges, threshold = np.asarray(report["bin_edges"]), report["cutout_threshold"]
    colours = np.where(edges[:-1] > threshold, _OTHER, _DATA)  # the bin of the threshold may hold both
    ax.bar(edges[:-1], report["section_counts"], np.diff(edges), align="edge", color=colours)
    label = f"threshold {threshold:g}: blanked to the right"
    ax.axvline(threshold, color=_OTHER, linestyle="--", label=label)
    ax.set_xlim(-0.01, 1.01)
    title = f"Cutout fraction, {_over(report['n_sections'], 'section', report)}"
    return _finish_sections(ax, report["section_counts"], title)


def near_threshold(ax: Axes, report: Mapping[str, Any]) -> Axes:
    """Draw the same near the threshold, in narrow bins and the colours of its sides."""
    edges, counts = np.asarray(report["near_bin_edges"]), np.asarray(report["near_section_counts"])
    colours = np.where(edges[1:] <= report["cutout_threshold"], _DATA, _OTHER)
    ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours)
    label = f"threshold; {counts.sum():,} of {counted(report['n_sections'], 'section')} are here"
    ax.axvline(report["cutout_threshold"], color=_OTHER, linestyle="--", label=label)
    ax.set_xlim(right=min(edges[-1], 1.01))
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return _finish_sections(ax, counts, "Near the threshold")


def _finish_sections(ax: Axes, counts: Sequence[int], title: str) -> Axes:
    ax.set_ylim(0.5, 2 * max(1, *counts))  # first, since there may be nothing to draw
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(_THOUSANDS)
    ax.yaxis.set_minor_formatter("")
    return _finish(ax, title, "Cutout fraction of a section", "Number of sections")


def section_strip(axes: Sequence[Axes], strip: pd.DataFrame, voxel_size_xy_nm: float) -> Sequence[Axes]:
    """Draw the sections of `survey.strip`, each on an Axes, in the colour of its side of the threshold."""
    for ax in axes:
        ax.set_axis_off()
        ax.set_anchor("N")
    for ax, one in zip(axes, strip.itertuples(), strict=False):
        _section(ax, one.em, np.zeros_like(one.em), voxel_size_xy_nm)
        name, colour = ("blanked", _OTHER) if one.is_blanked else ("kept", _DATA)
        title = f"{100 * one.cutout_fraction:.3f} % cut, {name}\n{_literal(one.synapse_id)}\nz = {one.z}"
        ax.set_title(title, fontsize=11, color=colour)
    return axes


def intensity(report: Mapping[str, Any], cutout_pixel_value: int = 0) -> Figure:
    """Draw what `survey.intensity_report` returns."""
    figure, ax = plt.subplots(figsize=(12, 5.5))
    intensity_histogram(ax, report, cutout_pixel_value)
    return figure


def intensity_histogram(ax: Axes, report: Mapping[str, Any], cutout_pixel_value: int = 0) -> Axes:
    """Draw the intensities of the kept sections, cutout pixels apart: `survey.intensity_report`."""
    shares = np.asarray(report["kept_counts"]) / max(1, np.sum(report["kept_counts"]))
    cutout_share, mean, std = shares[cutout_pixel_value], report["kept_mean"], report["kept_std"]
    imaged = np.where(np.arange(256) == cutout_pixel_value, 0, shares)
    ax.stairs(imaged, np.arange(257) - 0.5, fill=True, color=_DATA, label="imaged pixels")
    ax.bar(
        cutout_pixel_value, cutout_share, 1, color=_OTHER, label=f"cutout pixels: {100 * cutout_share:.3f} %"
    )
    ax.axvline(mean, color=plt.rcParams["text.color"], linestyle="--", label=f"mean {mean:.1f}")
    label = f"within one standard deviation, {std:.1f}"
    ax.axvspan(mean - std, mean + std, color="gray", alpha=0.25, zorder=0, label=label)
    title = f"Intensity, {_over(report['kept_n_sections_used'], 'kept section', report)}"
    return _finish_shares(ax, title, "Share of pixels")


def variation(
    report: Mapping[str, Any], counts: pd.DataFrame, synapse_id: str, sections: pd.DataFrame
) -> Figure:
    """Draw what `survey.variation_report` and `survey.example_table` return, and the sections surveyed.

    Parameters
    ----------
    report : mapping
        See `survey.variation_report`.
    counts : DataFrame
        Counts of `survey.example_table`.
    synapse_id : str
        Chunk of the example.
    sections : DataFrame
        `sections` of `survey.Surveyed`.
    """
    figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(12, 15.5))
    ratio_histogram(top, report)
    example_histograms(middle, counts, synapse_id)
    mean_along_z(bottom, sections)
    return figure


def ratio_histogram(ax: Axes, report: Mapping[str, Any]) -> Axes:
    """Draw the ratios of neighbouring sections' mean intensities: `survey.variation_report`."""
    low, _, median, _, high = report["percentiles"]
    ratios = np.asarray(report["ratios"])
    edges = arrays.bin_edges(ratios)
    n_beyond = np.sum((ratios < edges[0]) | (ratios > edges[-1]))
    label = "section pairs" + (f" ({n_beyond} beyond, in the outer bins)" if n_beyond else "")
    ax.hist(ratios.clip(edges[0], edges[-1]), edges, color=_DATA, label=label)
    ax.axvline(median, color=_OTHER, linestyle="--", label=f"median {median:.4f}", **_on_data())
    ax.axvspan(low, high, color="gray", alpha=0.25, zorder=0, label=f"5 to 95 %: {low:.4f} to {high:.4f}")
    title = f"Variation of brightness, {_over(report['n_section_pairs'], 'section pair', report)}"
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    xlabel = "Mean intensity of a section / of the next one"
    return _finish(ax, title, xlabel, "Number of section pairs", n_columns=3)


def example_histograms(ax: Axes, counts: pd.DataFrame, synapse_id: str) -> Axes:
    """Draw the intensity histograms of two sections and of the transformed one: `survey.example_table`."""
    styles = ({"color": _DATA}, {"color": "gray", "linestyle": ":"}, {"color": _OTHER})
    for (name, column), style in zip(counts.items(), styles, strict=True):
        by_four = column.to_numpy().reshape(64, 4).sum(axis=1)  # single grey levels are often unused
        ax.plot(counts.index[::4] + 1.5, by_four / max(1, by_four.sum()), label=name, **style)
    ax.set_ylim(0)
    title = f"Two sections of chunk {_literal(synapse_id)}"
    return _finish_shares(ax, title, "Share of imaged pixels\nper 4 grey levels")


def mean_along_z(ax: Axes, sections: pd.DataFrame, n_chunks: int = 5) -> Axes:
    """Draw the mean intensity of the sections of the first few chunks, and mark those that are blanked."""
    mark = {"linestyle": "", "marker": "|", "markersize": 10, "markeredgewidth": 2}
    shown = list(sections.groupby("synapse_id", sort=False))[:n_chunks]
    for number, (synapse_id, rows) in enumerate(shown):
        colour, is_blanked_z = f"C{number}", rows["is_blanked"].to_numpy()
        ax.plot(np.where(is_blanked_z, np.nan, rows["mean"]), color=colour, label=_literal(synapse_id))
        blanked = np.flatnonzero(is_blanked_z)
        height = np.full(len(blanked), 0.03 + 0.04 * number)  # a row of marks for each chunk
        ax.plot(blanked, height, color=colour, transform=ax.get_xaxis_transform(), **mark)
    ax.margins(y=0.3)  # room for marks
    if any(rows["is_blanked"].any() for _, rows in shown):
        ax.plot([], [], color="gray", label="blanked section", **mark)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"Brightness along z, {counted(len(shown), 'chunk')}"
    return _finish(ax, title, "Section (z)", "Mean intensity\n(grey level, imaged pixels)", n_columns=3)


def fingerprint(record: Mapping[str, Any]) -> Figure:
    """Draw the blanked sections and the differences between sections in what `fingerprint.run` returns."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(18, 6))
    blanked_sections(left, record)
    neighbour_changes(middle, record, "brightness")
    neighbour_changes(right, record, "contrast")
    return figure


def blanked_sections(ax: Axes, record: Mapping[str, Any]) -> Axes:
    """Draw how many chunks have how many blanked sections, and what the model of independent cuts expects."""
    found, model = record["blanked"]["n_chunks"], record["blanked"]["model"]
    probability, rate = (
        record["numbers"]["blanked_sections"][name] for name in ("section_cutout_prob", "cutout_poisson_rate")
    )
    ax.bar(range(len(found)), found, color=_DATA, label="chunks")
    if model is None:
        _withheld(ax, probability)
    else:
        label = f"model: probability {probability['value']:.2f}, rate {rate['value']:.2f}"
        ax.plot(range(len(model)), model, "o", color=_OTHER, markersize=9, label=label)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    title = f"Blanked sections, {_over(record['n_sections'], 'section', record)}"
    return _finish(ax, title, "Blanked sections of a chunk", "Number of chunks")


def neighbour_changes(ax: Axes, record: Mapping[str, Any], what: str) -> Axes:
    """Draw by how much the brightness or the contrast differs between neighbouring sections."""
    neighbours = record["neighbours"][what]
    edges, model = 100 * np.asarray(neighbours["edges"]), neighbours["model"]
    half_width = record["numbers"]["section_variation"][f"section_{what}_half_width"]
    ax.stairs(neighbours["n"], edges, fill=True, color=_DATA, label="section pairs")
    if model is None:
        _withheld(ax, half_width)
    else:
        label = f"model: slopes 1 ± {half_width['value']:.4f}"
        log_ratio = 100 * np.asarray(model["log_ratio"])
        ax.plot(log_ratio, model["n"], "--", color=_OTHER, linewidth=2, label=label, **_on_data())
    ax.set_ylim(0)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"{what.capitalize()}, {_over(record['neighbours']['n_section_pairs'], 'pair', record)}"
    return _finish(ax, title, "Log ratio of a section to the next one (%)", "Number of section pairs")


def _withheld(ax: Axes, number: Mapping[str, Any]) -> None:
    """Say in the legend why a model is not drawn."""
    text = textwrap.fill(f"model: withheld, {number['withheld'] or 'all are alike'}", 45)
    ax.plot([], [], " ", label=text)


def contact_sheet(synapses: Sequence[Synapse], title: str) -> Figure | None:
    """Draw synapses, four in a row (fewer are larger), and one legend of the labels below; of none, None."""
    if not synapses:
        return None
    n_columns = min(4, len(synapses))
    n_rows = math.ceil(len(synapses) / n_columns)
    width = min(9, 18 / n_columns)
    size = (n_columns * width, n_rows * (width + 0.5))
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, one in zip(axes.flat, synapses, strict=False):
        synapse(ax, one)
    lines = [Line2D([], [], color=colour, linewidth=3) for colour in LABEL_COLOURS.values()]
    names = [arrays.LABELS[label] for label in LABEL_COLOURS]
    figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    return figure


def synapse(ax: Axes, one: Synapse) -> Axes:
    """Draw the planes through the centre of a synapse, in true proportions, with outlines of its labels.

    The xy plane is at the upper left; beside it the yz plane with z to the right, below it the xz plane with
    z down, so that equal coordinates face each other. A cleft that is small in the xy plane is drawn once
    more at the lower right, enlarged. Sections are counted in the raw chunk where that is known.
    """
    width, height, depth = _size_um(one)
    gap = 0.04 * max(width, height)
    x, y, z = one.centre_xyz
    em_xyz, mask_xyz, corner = one.em_xyz, one.mask_xyz, (width + gap, height + gap)
    _plane(ax, em_xyz[:, :, z], mask_xyz[:, :, z], (0, 0), (width, height), f"z = {z + one.first_z}")
    _plane(ax, em_xyz[x].T, mask_xyz[x].T, (corner[0], 0), (depth, height), f"x = {x}")
    _plane(ax, em_xyz[:, y], mask_xyz[:, y], (0, corner[1]), (width, depth), f"y = {y}")
    _scale_bar(ax, width, height)
    side = max(depth, _zoom(ax, one, corner))
    ax.set(xlim=(0, corner[0] + side), ylim=(corner[1] + side, 0), aspect="equal", anchor="NW")
    ax.set_axis_off()
    _fit_names(ax, width, depth)
    lines = (*one.caption[:1], one.warning) if one.warning else one.caption[:2]
    size = min(12, _cell_points(ax)[0] / (0.54 * max(10, *map(len, lines))))  # so wide is a character
    style = {"fontsize": size, "color": _OTHER} if one.warning else {"fontsize": size}
    ax.set_title("\n".join(map(_literal, lines)), loc="left", **style)
    return ax


def section_png(one: Synapse, z: int, has_outlines: bool = True) -> bytes:
    """Draw one section with a scale bar, for `inspection.browse`; PNG of 600 x 600 pixels."""
    figure = Figure(figsize=(6, 6), dpi=100, layout="constrained")
    ax = figure.add_subplot()
    ax.set_axis_off()
    em, mask = one.em_xyz[:, :, z], one.mask_xyz[:, :, z]
    _section(ax, em, mask if has_outlines else np.zeros_like(mask), one.spacing_xyz_nm[0])
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def distributions(quantities: pd.DataFrame, unusual: pd.DataFrame) -> Figure:
    """Draw the four columns of `inspection.quantities`, with what `inspection.unusual` returns."""
    figure, axes = plt.subplots(2, 2, figsize=(14, 10))
    for ax, name in zip(axes.flat, quantities, strict=True):
        distribution(ax, quantities[name], unusual)
    return figure


def distribution(ax: Axes, values: pd.Series, unusual: pd.DataFrame) -> Axes:
    """Draw one column of `inspection.quantities`, with the ids of unusual synapses in the legend.

    Volumes are in 0.001 µm³, on a logarithmic axis; synapses that have none are counted beside it.
    """
    name, marks = values.name[0].upper() + values.name[1:], unusual[unusual["quantity"] == values.name]
    at = marks["value"]
    if values.dtype != float:
        ax.hist(values, np.arange(max(1, values.max()) + 2) - 0.5, color=_DATA, edgecolor=_background())
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    else:
        at_none = _logarithmic(ax, 1000 * values)
        at, name = (1000 * at).where(at > 0, at_none), name.replace("µm³", "10⁻³ µm³")
    for why, rows in marks.groupby("why", sort=False):
        lines = textwrap.wrap(f"{why}: {listed(rows['synapse_id'], 3)}", 50, break_long_words=False)
        label = "\n".join(map(_literal, lines))
        ax.plot(at[rows.index], np.zeros(len(rows)), "^", color=_OTHER, clip_on=False, label=label)
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_formatter(_THOUSANDS)
    title = f"{name.split(' (')[0]}, {counted(len(values), 'synapse')}"
    return _finish(ax, title, name, "Number of synapses")


def _logarithmic(ax: Axes, values: pd.Series) -> float:
    """Draw a histogram on a logarithmic axis, with the number of zeros left of it; return where that is."""
    powers = np.log10(values[values > 0])
    edges = arrays.bin_edges(powers, math.inf)
    edges = edges if len(edges) <= 100 else np.linspace(edges[0], edges[-1], 100)
    low, high = 10 ** edges[[0, -1]]
    step = 10 ** max(edges[1] - edges[0], 0.05 * (edges[-1] - edges[0]))
    ax.set_xscale("log")
    counts, n_none = np.histogram(powers, edges)[0], int((values <= 0).sum())
    ax.bar(10 ** edges[:-1], counts, np.diff(10**edges), align="edge", color=_DATA, edgecolor=_background())
    locator = LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)) if high > 10 * low else MaxNLocator(5)
    ticks = locator.tick_values(low, high) if len(powers) else []
    ticks = {tick: f"{tick:g}" for tick in ticks if low <= tick <= high}
    at_none = low / step**1.5
    if n_none:
        ax.bar(low / step**2, n_none, low / step - low / step**2, align="edge", color=_OTHER)
        ticks[at_none] = f"none: {n_none:,}"
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.xaxis.set_minor_locator(NullLocator())
    return at_none


def _background() -> str:
    return plt.rcParams["axes.facecolor"]


def _on_data() -> dict[str, Any]:
    """What makes a line stand out from bars that are as bright."""
    return {"path_effects": [withStroke(linewidth=4, foreground=_background())]}


def _literal(text: str) -> str:
    """Text from data, drawn as it is: no mathematics for its $, and in a legend whatever it begins with."""
    blank = " " if text.startswith("_") else ""
    return blank + printable(text).replace("$", r"\$")


def _over(n: int, noun: str, report: Mapping[str, Any]) -> str:
    return f"{counted(n, noun)} of {counted(len(report['synapse_ids']), 'chunk')}"


def _finish(ax: Axes, title: str, xlabel: str, ylabel: str, n_columns: int = 1) -> Axes:
    """Set the texts, and put the legend, data before lines, below the axis, where it covers nothing."""
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if handles := sorted(ax.get_legend_handles_labels()[0], key=lambda one: isinstance(one, Line2D)):
        below = ax.transAxes + ScaledTranslation(0, -50 / 72, ax.figure.dpi_scale_trans)
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
        ax.legend(handles=handles, **place, ncols=n_columns, frameon=False)
    return ax


def _finish_shares(ax: Axes, title: str, ylabel: str) -> Axes:
    """Finish shares of pixels over the intensity."""
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
    ax.set_xlim(-2, 257)
    return _finish(ax, title, "Intensity (grey level, 0 to 255)", ylabel, n_columns=3)


def _size_um(one: Synapse) -> np.ndarray:
    return np.array(one.em_xyz.shape) * one.spacing_xyz_nm / 1000


def _section(ax: Axes, em: np.ndarray, mask: np.ndarray, voxel_size_xy_nm: float) -> None:
    width, height = np.array(em.shape) * voxel_size_xy_nm / 1000
    _plane(ax, em, mask, (0, 0), (width, height), "")
    _scale_bar(ax, width, height)


def _plane(
    ax: Axes,
    em: np.ndarray,
    mask: np.ndarray,
    origin: tuple[float, float],
    size: tuple[float, float],
    name: str,
) -> None:
    """Draw one plane at a place (µm); the first axis of the arrays goes to the right, the second down."""
    (left, top), (width, height) = origin, size
    ax.imshow(em.T, extent=(left, left + width, top + height, top), vmin=0, vmax=255)
    ax.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="gray"))  # around black on black
    right = left + (np.arange(em.shape[0]) + 0.5) * width / em.shape[0]
    down = top + (np.arange(em.shape[1]) + 0.5) * height / em.shape[1]
    for label, colour in LABEL_COLOURS.items():
        is_inside = np.equal(mask.T, label)
        if min(em.shape) > 1 and is_inside.any() and not is_inside.all():
            ax.contour(right, down, is_inside, [0.5], colors=colour, linewidths=1.5)
    name += "" if em.any() else " (blanked)"
    ax.annotate(name, (left, top), (3, -3), textcoords="offset points", va="top", **_ON_PICTURE)


def _zoom(ax: Axes, one: Synapse, corner: tuple[float, float]) -> float:
    """Draw a small cleft of the xy plane enlarged, with its upper left at a corner; return how long it is."""
    (width, height, depth), pixel, (*at, z) = _size_um(one), one.spacing_xyz_nm[0] / 1000, one.centre_xyz
    em, mask = one.em_xyz[:, :, z], one.mask_xyz[:, :, z]
    found = np.nonzero(mask == arrays.CLEFT)
    if not found[0].size:
        return 0
    longest = max(np.ptp(axis) + 1 for axis in found)
    side = min(max(depth, 0.45 * max(width, height)), max(width, height))
    times = int(min(side / pixel / max(1.5 * longest, 16), 8))
    if times < 2:
        return 0
    n = [min(int(side / pixel / times), length) for length in em.shape]
    starts = [min(max(int(k) - m // 2, 0), length - m) for k, m, length in zip(at, n, em.shape, strict=True)]
    part = tuple(slice(start, start + m) for start, m in zip(starts, n, strict=True))
    size = (times * n[0] * pixel, times * n[1] * pixel)
    _plane(ax, em[part], mask[part], corner, size, f"z = {z + one.first_z}, {times} x")
    frame = Rectangle([start * pixel for start in starts], n[0] * pixel, n[1] * pixel, fill=False)
    ax.add_patch(frame).set(edgecolor="white", path_effects=_ON_PICTURE["path_effects"])
    return max(size)


def _fit_names(ax: Axes, width: float, depth: float) -> None:
    """Turn and shrink what is written on narrow and on thin planes, so that it stays inside."""
    room = zip(_cell_points(ax), (ax.get_xlim(), ax.get_ylim()), strict=True)
    scale = min(points / abs(high - low) for points, (low, high) in room)  # points per µm
    thickness = scale * depth
    for text in ax.texts[1:3]:  # yz and xz
        text.set_fontsize(min(12, max(4, 0.7 * thickness)))
    if thickness < 60:
        ax.texts[1].set(rotation=90)
    for text in ax.texts[0:3:2]:  # xy and xz
        widest = scale * width / (0.6 * len(text.get_text()))  # so wide is a character
        text.set_fontsize(max(4, min(text.get_fontsize(), widest)))


def _cell_points(ax: Axes) -> np.ndarray:
    """Width and height of the part of the figure that an Axes has, about, in points."""
    spec = ax.get_subplotspec()
    n_rows, n_columns = spec.get_gridspec().get_geometry() if spec else (1, 1)
    return 72 * ax.figure.get_size_inches() * (0.94 / n_columns, 0.85 / n_rows)


def _scale_bar(ax: Axes, width: float, height: float) -> None:
    """Draw a bar of a round length at the lower left of a picture; sizes in µm."""
    lengths_nm = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    length_nm = max(length for length in lengths_nm if length == 1 or length <= 300 * width)
    left, bottom = 0.04 * width, 0.95 * height
    right = left + length_nm / 1000
    outline = [withStroke(linewidth=7, foreground="black")]
    bar = {"linewidth": 4, "solid_capstyle": "butt", "color": "white", "path_effects": outline}
    ax.plot([left, right], [bottom, bottom], **bar)
    offset = {"xytext": (0, 4), "textcoords": "offset points"}
    ax.annotate(f"{length_nm} nm", (left, bottom), va="bottom", **offset, **_ON_PICTURE)
