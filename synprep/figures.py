"""Figures: each function draws on the Axes that it is given and returns it; nothing is loaded or computed.

Arrays have the axes (x, y, z); pictures have x to the right and y down.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from synprep import labels
from synprep.errors import counted

# Colours that people with colour vision deficiency can tell apart (M. Okabe and K. Ito, Color Universal
# Design, 2008), the same in all pictures.
LABEL_COLOURS = {labels.PRESYNAPTIC: "#56B4E9", labels.CLEFT: "#F0E442", labels.POSTSYNAPTIC: "#D55E00"}
_DATA, _OTHER = "#0072B2", "#D55E00"


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
            "axes.titlesize": 14,
            "axes.labelsize": 14,
            "figure.titlesize": 16,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "image.cmap": "gray",
        }
    )
    pd.set_option("display.max_colwidth", None)


def _over(n: int, noun: str, report: Mapping[str, Any]) -> str:
    return f"{counted(n, noun)} of {counted(len(report['synapse_ids']), 'chunk')}"


def cutout_histogram(ax: Axes, report: Mapping[str, Any]) -> Axes:
    """Draw the share of sections in each bin of the cutout fraction.

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
    shares = np.asarray(report["section_counts"]) / report["n_sections"]
    ax.bar(edges[:-1], shares, np.diff(edges), align="edge", color=_DATA, label="sections")
    ax.axvline(threshold, color=_OTHER, linestyle="--", label=f"threshold {threshold:g}")
    ax.set_yscale("log")
    ax.set_ylim(0.5 / report["n_sections"], 1.5)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    ax.set_xlim(-0.01, 1.01)
    ax.set_xlabel("Cutout fraction of a section")
    ax.set_ylabel("Share of sections")
    ax.set_title(f"Cutout fraction, {_over(report['n_sections'], 'section', report)}")
    ax.legend(loc="upper center")
    return ax


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
    ax.axvline(mean, color="gray", linestyle="--", label=f"mean {mean:.1f}, standard deviation {std:.1f}")
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
    ax.axvspan(low, high, color="gray", alpha=0.15, label=f"5 to 95 %: {low:.4f} to {high:.4f}")
    ax.set_xlabel("Mean intensity of a section / of the next one")
    ax.set_ylabel("Number of section pairs")
    ax.set_title(f"Variation of brightness, {_over(report['n_section_pairs'], 'section pair', report)}")
    ax.legend(loc="upper right")
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
        width = record["numbers"]["section_variation"]["sectional_intensity_slope_half_width"]["value"]
        label = f"model: slopes 1 ± {width:.4f}"
    points = (100 * np.asarray(model["log_ratio"]), model["n"]) if model else ([], [])
    ax.plot(*points, color="gray", linestyle="--" if model else " ", label=label)
    ax.set_xlabel("Log ratio of a section to the next one (%)")
    ax.set_ylabel("Number of section pairs")
    ax.set_title(f"Neighbouring sections, {_over(neighbours['n_section_pairs'], 'pair', record)}")
    ax.legend(loc="upper right")
    return ax


def planes(
    axes: Sequence[Axes], tensor_cxyz: np.ndarray, centre_xyz: Sequence[int], spacing_xyz_nm: Sequence[float]
) -> Sequence[Axes]:
    """Draw the xy, xz and yz planes through a point of a chunk, with outlines and a legend of the labels.

    Parameters
    ----------
    axes : sequence of 3 Axes
        Where to draw.
    tensor_cxyz : (c, x, y, z) uint8 ndarray
        First channel EM, last channel mask.
    centre_xyz : sequence of int
        Voxel that the planes go through.
    spacing_xyz_nm : sequence of float
        Voxel size along each axis, in nm.

    Returns
    -------
    sequence of Axes
        `axes`.
    """
    em_xyz, mask_xyz = tensor_cxyz[0], tensor_cxyz[labels.MASK_CHANNEL]
    for ax, normal in zip(axes, (2, 1, 0), strict=True):
        shown = [axis for axis in range(3) if axis != normal]
        at = centre_xyz[normal]
        _plane(ax, em_xyz.take(at, normal), mask_xyz.take(at, normal), [spacing_xyz_nm[a] for a in shown])
        ax.set_xlabel(f"{'xyz'[shown[0]]} (µm)")
        ax.set_ylabel(f"{'xyz'[shown[1]]} (µm)")
        ax.set_title(f"{'xyz'[normal]} = {at}")
    lines = [Line2D([], [], color=colour, linewidth=3) for colour in LABEL_COLOURS.values()]
    names = [labels.NAMES[label] for label in LABEL_COLOURS]
    axes[0].figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False)
    return axes


def _plane(ax: Axes, em: np.ndarray, mask: np.ndarray, spacing_nm: Sequence[float]) -> None:
    """Draw one plane; the first axis of the arrays goes to the right, the second down."""
    width, height = (n * nm / 1000 for n, nm in zip(em.shape, spacing_nm, strict=True))
    ax.imshow(em.T, extent=(0, width, height, 0), vmin=0, vmax=255, interpolation="nearest")
    x, y = ((np.arange(n) + 0.5) * nm / 1000 for n, nm in zip(em.shape, spacing_nm, strict=True))
    for label, colour in LABEL_COLOURS.items():
        is_inside = np.equal(mask.T, label)
        if is_inside.any() and not is_inside.all():
            ax.contour(x, y, is_inside, [0.5], colors=colour, linewidths=1.5)
