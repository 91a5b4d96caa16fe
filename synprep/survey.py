"""Statistics of the sections of many chunks: cutout fraction, intensity, variation between sections."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from synprep._core import arrays, chunk, execution, problems
from synprep._core.chunk import Pair
from synprep._core.errors import (
    FailedChunksError,
    PairingError,
    ParameterError,
    composed,
    counted,
    listed,
)
from synprep.params import CutoutHistogram, SectionVariation, Survey

_PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Surveyed:
    """What one pass over the chunks found.

    Parameters
    ----------
    synapse_ids : tuple of str
        Chunks that were read, in the order of the sample.
    sections : DataFrame
        One row per section of every chunk, full depth: synapse_id, z, cutout_fraction, mean and std of the
        imaged pixels, is_blanked, and is_kept, True where the crop keeps the section.
    counts : (256,) int64 ndarray
        Pixels by intensity, of the sections that are not blanked, full depth.
    kept_counts : (256,) int64 ndarray
        The same, of the sections that the crop keeps.
    n_kept_blanked : int
        Number of pixels of the blanked sections that the crop keeps.
    example : (z, 256) int64 ndarray or None
        Histogram of the example chunk, if one was asked for.
    failures : dict of str to str
        Reason by synapse id for each chunk that could not be read.
    """

    synapse_ids: tuple[str, ...]
    sections: pd.DataFrame
    counts: np.ndarray
    kept_counts: np.ndarray
    n_kept_blanked: int
    example: np.ndarray | None
    failures: dict[str, str]


def run(pairs: Sequence[Pair], p: Survey, example: Pair | None = None) -> Surveyed:
    """Read each EM file and reduce it to statistics of its sections; masks are not read.

    Parameters
    ----------
    pairs : sequence of Pair
        Chunks of the sample.
    p : Survey
        Parameters.
    example : Pair, optional
        Chunk whose whole histogram is kept, for which it is read by itself; it counts in the statistics only
        if it is one of `pairs`.

    Returns
    -------
    Surveyed
        Statistics of all chunks that could be read.

    Raises
    ------
    FailedChunksError
        If no chunk could be read.
    """
    survey_one = partial(_survey_chunk, p=p)
    outcomes = execution.attempt_all(survey_one, pairs, "Surveying", True, p.n_workers, p.scheduler)
    by_id = ((pair.synapse_id, outcome) for pair, outcome in outcomes)
    read, failures = problems.parted(by_id, [pair.synapse_id for pair in pairs])
    if not read:
        raise FailedChunksError(f"no chunk could be read: {listed(failures.values(), 3)}")
    sections, counts, kept_counts, n_kept_blanked = zip(*read.values(), strict=True)
    return Surveyed(
        tuple(read),
        pd.concat(sections, ignore_index=True),
        sum(counts),
        sum(kept_counts),
        sum(n_kept_blanked),
        None if example is None else _histogram(example),
        failures,
    )


def _survey_chunk(pair: Pair, p: Survey) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, int]:
    """Of one chunk what `Surveyed` has of all: sections, counts, kept_counts, n_kept_blanked."""
    histogram = _histogram(pair)
    z = np.arange(len(histogram))
    start, stop = arrays.crop_bounds(len(z), p.axial_to_sagittal_spacing, p.n_sections)
    is_kept = (start <= z) & (z < stop)
    columns = arrays.describe_sections(arrays.moments(histogram, p.cutout_pixel_value), p.cutout_threshold)
    sections = pd.DataFrame({"synapse_id": pair.synapse_id, "z": z, **columns, "is_kept": is_kept})
    is_blanked = columns["is_blanked"]
    counts, kept_counts = (histogram[rows].sum(axis=0) for rows in (~is_blanked, is_kept & ~is_blanked))
    return sections, counts, kept_counts, int(histogram[is_kept & is_blanked].sum())


def _histogram(pair: Pair) -> np.ndarray:
    """Pixels of a chunk by section and intensity, (z, 256) int64."""
    with pair.open_em() as em:
        return chunk.histogram(em)


def cutout_report(surveyed: Surveyed, p: CutoutHistogram) -> dict[str, Any]:
    """Histogram of the cutout fraction of sections, and the exact shares on both sides of the threshold.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.
    p : CutoutHistogram
        Parameters.

    Returns
    -------
    dict
        The record `cutout_histogram.json`: bins over 0 to 1, counts of sections, the same in narrow bins near
        the threshold (a section at an edge belongs to the bin on its left), and fractions of sections at or
        below, and above, the threshold: of all sections, and of those that the crop keeps.
    """
    fractions, is_above = surveyed.sections["cutout_fraction"], surveyed.sections["is_blanked"]
    is_kept = surveyed.sections["is_kept"]
    section_counts, bin_edges = np.histogram(fractions, bins=p.n_bins, range=(0.0, 1.0))
    near_edges = p.cutout_threshold + (p.cutout_threshold or 0.01) * (np.arange(-20, 21) / 20)
    near_counts = np.histogram(-fractions, -near_edges[::-1])[0][::-1]
    return {
        "synapse_ids": list(surveyed.synapse_ids),
        "n_chunks": len(surveyed.synapse_ids),
        "n_sections": len(fractions),
        "cutout_threshold": p.cutout_threshold,
        "bin_edges": bin_edges,
        "section_counts": section_counts,
        "near_bin_edges": near_edges,
        "near_section_counts": near_counts,
        "fraction_at_or_below_threshold": float((~is_above).mean()),
        "fraction_above_threshold": float(is_above.mean()),
        "kept_fraction_at_or_below_threshold": float((~is_above)[is_kept].mean()),
        "kept_fraction_above_threshold": float(is_above[is_kept].mean()),
    }


def cutout_table(report: dict[str, Any]) -> pd.DataFrame:
    """Fractions of sections of a cutout report, a row each for all and for kept sections."""
    columns = ["fraction_at_or_below_threshold", "fraction_above_threshold"]
    values = [[report[name] for name in columns], [report[f"kept_{name}"] for name in columns]]
    return pd.DataFrame(values, index=["all sections", "kept sections"], columns=columns)


def cutout_classes(surveyed: Surveyed) -> pd.DataFrame:
    """Count the sections that are clean, partly cut out, and wholly black.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.

    Returns
    -------
    DataFrame
        Number of sections; rows clean (not blanked: real tissue has a few pixels of the cutout value),
        partly cut, and wholly black (cutout fraction 1); columns `all sections` and `kept sections`.
    """
    sections = surveyed.sections
    is_black = sections["cutout_fraction"] == 1
    is_clean = ~sections["is_blanked"] & ~is_black
    classes = {"clean": is_clean, "partly cut": ~is_clean & ~is_black, "wholly black": is_black}
    counts = {name: [one.sum(), (one & sections["is_kept"]).sum()] for name, one in classes.items()}
    return pd.DataFrame.from_dict(counts, orient="index", columns=["all sections", "kept sections"])


def strip(surveyed: Surveyed, pairs: Sequence[Pair], n_sections: int = 4) -> pd.DataFrame:
    """Load the sections whose cutout fraction is nearest to the threshold, to see what it decides.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.
    pairs : sequence of Pair
        The chunks that were surveyed.
    n_sections : int
        How many sections to load on each side of the threshold, at most.

    Returns
    -------
    DataFrame
        synapse_id, z (full depth), cutout_fraction, is_blanked, em ((x, y) uint8 ndarray); in the order of
        the fraction.

    Raises
    ------
    ChunkError
        If a file cannot be read any more.
    """
    nearest = _nearest(surveyed.sections, n_sections)
    columns = ["synapse_id", "z", "cutout_fraction", "is_blanked"]
    return nearest[columns].assign(em=_load(nearest, pairs))


def _load(rows: pd.DataFrame, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """EM of the section that each row names, (x, y) uint8; each file is opened once."""
    by_id, em = {pair.synapse_id: pair for pair in pairs}, {}
    for synapse_id, of_chunk in rows.groupby("synapse_id"):
        with by_id[synapse_id].open_em() as file:
            em |= {row: file.read(z, z + 1)[:, :, 0].copy() for row, z in of_chunk["z"].items()}
    return [em[row] for row in rows.index]


def _nearest(sections: pd.DataFrame, n_sections: int) -> pd.DataFrame:
    """Sections nearest to the threshold: the last that are not blanked, then the first that are."""
    ordered = sections.sort_values("cutout_fraction", kind="stable")
    kept, blanked = ordered[~ordered["is_blanked"]], ordered[ordered["is_blanked"]]
    return pd.concat([kept.tail(n_sections), blanked.head(n_sections)]).reset_index(drop=True)


def cutout_areas(
    surveyed: Surveyed, pairs: Sequence[Pair], p: CutoutHistogram, n_sections: int = 50
) -> pd.DataFrame:
    """Measure whether the cutout pixels of partly cut sections are one area, or scattered over the tissue.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.
    pairs : sequence of Pair
        The chunks that were surveyed.
    p : CutoutHistogram
        Parameters.
    n_sections : int
        How many sections to load, at most: evenly from all, in the order of the fraction.

    Returns
    -------
    DataFrame
        synapse_id, z, cutout_fraction (above the threshold, less than 1), and largest_area_fraction: the
        share of the section's cutout pixels in the largest area of such pixels that touch along an edge.

    Raises
    ------
    ChunkError
        If a file cannot be read any more.
    """
    from scipy import ndimage  # few notebooks need it

    is_partly_cut = surveyed.sections["is_blanked"] & (surveyed.sections["cutout_fraction"] < 1)
    rows = surveyed.sections[is_partly_cut].sort_values("cutout_fraction", kind="stable")
    rows = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), n_sections)).astype(int)]
    shares = []
    for em_xy in _load(rows, pairs):
        areas, _ = ndimage.label(em_xy == p.cutout_pixel_value)
        sizes = np.bincount(areas.ravel())[1:]
        shares.append(sizes.max() / sizes.sum())
    columns = rows[["synapse_id", "z", "cutout_fraction"]].reset_index(drop=True)
    return columns.assign(largest_area_fraction=np.array(shares, dtype=float))


def scattered(areas: pd.DataFrame) -> str:
    """Say whether sections would be blanked for pixels that are dark, and not cut out: `cutout_areas`."""
    if areas.empty:
        return "No section is partly cut."
    shares = areas["largest_area_fraction"]
    text = (
        f"Of the cutout pixels of a section {100 * shares.median():.1f} % are one connected area "
        f"(median of {counted(len(areas), 'partly cut section')} that were read again)."
    )
    if n_scattered := (shares < 0.5).sum():
        text += (
            f" In {n_scattered} of these less than half are. Pixels that are scattered over the tissue are "
            "not cut out: the tissue has the cutout pixel value, as after a contrast stretch that saturates. "
            "Such sections are blanked all the same; to keep them raise cutout_threshold, or stretch less."
        )
    return text


def intensity_report(surveyed: Surveyed, p: Survey) -> dict[str, Any]:
    """Intensity histogram of the sections that are not blanked, with mean and standard deviation.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.
    p : Survey
        Parameters.

    Returns
    -------
    dict
        The record `intensity_histogram.json`. Whole depth: counts of pixels by intensity; mean and std of
        imaged pixels on 0..255 and on 0..1. Of the sections that the crop keeps: the same with `kept_` before
        the name; and mean and std on 0..1 of all their pixels with blanked ones as 0.
    """
    blanked = surveyed.n_kept_blanked * (arrays.INTENSITIES == 0)
    mean_with_blanks, std_with_blanks = arrays.mean_and_std(surveyed.kept_counts + blanked)
    is_used = ~surveyed.sections["is_blanked"]
    return {
        "synapse_ids": list(surveyed.synapse_ids),
        "n_sections_used": int(is_used.sum()),
        "counts": surveyed.counts,
        **_of_imaged(surveyed.counts, p.cutout_pixel_value),
        "intensity_mean_with_blanks": float(mean_with_blanks / 255),
        "intensity_std_with_blanks": float(std_with_blanks / 255),
        "kept_n_sections_used": int((is_used & surveyed.sections["is_kept"]).sum()),
        "kept_counts": surveyed.kept_counts,
        **_of_imaged(surveyed.kept_counts, p.cutout_pixel_value, "kept_"),
    }


def _of_imaged(counts: np.ndarray, cutout_pixel_value: int, prefix: str = "") -> dict[str, float]:
    """Mean and std of imaged pixels on 0..255 and on 0..1, by name after the prefix."""
    mean, std = map(float, arrays.mean_and_std(arrays.imaged(counts, cutout_pixel_value)))
    numbers = {"mean": mean, "std": std, "intensity_mean": mean / 255, "intensity_std": std / 255}
    return {f"{prefix}{name}": value for name, value in numbers.items()}


def intensity_table(report: dict[str, Any]) -> pd.DataFrame:
    """Mean and standard deviation in the kept sections: imaged pixels on both scales, and with blanks."""
    rows = {
        "imaged pixels, 0 to 255": ("kept_mean", "kept_std"),
        "imaged pixels, 0 to 1": ("kept_intensity_mean", "kept_intensity_std"),
        "all pixels, blanked ones as 0, 0 to 1": ("intensity_mean_with_blanks", "intensity_std_with_blanks"),
    }
    values = {f"kept sections: {row}": [report[name] for name in names] for row, names in rows.items()}
    return pd.DataFrame.from_dict(values, orient="index", columns=["mean", "standard deviation"])


def variation_report(surveyed: Surveyed) -> dict[str, Any]:
    """Ratios of the mean intensities of neighbouring sections.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.

    Returns
    -------
    dict
        The record `section_variation.json`: mean of section z / mean of section z + 1 for all neighbours that
        are not blanked, means over imaged pixels; and the ratios' mean, std and percentiles.
    """
    sections = surveyed.sections
    means = sections["mean"].where(~sections["is_blanked"] & (sections["mean"] > 0))
    following = means.groupby(sections["synapse_id"]).shift(-1)
    ratios = (means / following).dropna().to_numpy()
    some = ratios if ratios.size else np.array([np.nan])
    return {
        "synapse_ids": list(surveyed.synapse_ids),
        "n_section_pairs": len(ratios),
        "ratios": ratios,
        "mean": float(some.mean()),
        "std": float(some.std()),
        "percentiles": np.percentile(some, _PERCENTILES),
    }


def variation_table(report: dict[str, Any]) -> pd.DataFrame:
    """One column of numbers of a variation report: mean, std and percentiles of the ratios."""
    percentiles = {f"{q} %": value for q, value in zip(_PERCENTILES, report["percentiles"], strict=True)}
    numbers = {"mean": report["mean"], "standard deviation": report["std"], **percentiles}
    return pd.DataFrame({"ratio": numbers})


def choose_example(pairs: Sequence[Pair], sampled: Sequence[Pair], p: SectionVariation) -> Pair:
    """Find the chunk of the example and check that it has the section and a next one.

    Parameters
    ----------
    pairs, sampled : sequence of Pair
        All chunks, and those of the sample.
    p : SectionVariation
        Parameters; without `example_synapse_id` the first chunk of the sample is taken.

    Returns
    -------
    Pair
        The chunk.

    Raises
    ------
    PairingError
        If `example_synapse_id` is not paired.
    ParameterError
        If `section_index` or the section after it is not in the chunk.
    """
    by_id = {composed(pair.synapse_id): pair for pair in pairs}
    wanted = composed(p.example_synapse_id or sampled[0].synapse_id)
    if wanted not in by_id:
        raise PairingError(f"example_synapse_id {wanted!r} is not paired; ids that are: {listed(by_id)}")
    with by_id[wanted].open_em() as em:
        n_sections = em.header.shape[2]
    if p.section_index + 1 >= n_sections:
        raise ParameterError(
            f"section_index must be from 0 to {n_sections - 2} for chunk {wanted}, which has {n_sections} "
            f"sections, not {p.section_index}"
        )
    return by_id[wanted]


def example_table(surveyed: Surveyed, p: SectionVariation) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the intensities of one section with those of the next one under a linear transform.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run` with an example.
    p : SectionVariation
        Parameters: section, slope and intercept.

    Returns
    -------
    counts : DataFrame
        Index: intensity 0 to 255; one column of pixel counts each for the section, the next section, and the
        next section after ``clip(slope * intensity + intercept, 0, 255)``. Without a slope it is the ratio of
        the means of both sections, and its name says so.
    numbers : DataFrame
        Mean and standard deviation of the imaged pixels of the three.
    """
    histograms = arrays.imaged(surveyed.example, p.cutout_pixel_value)
    section, following = histograms[p.section_index], histograms[p.section_index + 1]
    names = [f"section {p.section_index}", f"section {p.section_index + 1}"]
    moments = [arrays.mean_and_std(counts) for counts in (section, following)]
    slope, how = _slope(p.intensity_slope, moments[0][0], moments[1][0])
    intercept = p.intensity_intercept
    names.append(f"{names[1]}, {how}")
    transformed = np.clip(slope * arrays.INTENSITIES + intercept, 0.0, 255.0)
    columns = [section, following, _transformed(following, slope, intercept)]
    moments.append(arrays.mean_and_std(following, transformed))
    counts = pd.DataFrame(dict(zip(names, columns, strict=True))).rename_axis("intensity")
    return counts, pd.DataFrame(moments, index=names, columns=["mean", "std"]).astype(float)


def _slope(wanted: float, mean: float, next_mean: float) -> tuple[float, str]:
    """Slope that is wanted, or else that the means suggest, and what it makes of the next section."""
    if wanted:
        return wanted, "transformed"
    if not (mean > 0 and next_mean > 0):
        return 1.0, "slope 1: one has no imaged pixels"
    return float(mean / next_mean), f"times the ratio of means, {mean / next_mean:.4f}"


def _transformed(counts: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Histogram of the intensities after a linear transform, (256,) float64; those outside at the ends.

    The pixels of each intensity are spread evenly over the width of its bin before the transform, as they
    were before they were rounded; otherwise rounding leaves gaps and spikes that are not in the data.
    """
    edges = np.arange(257) - 0.5
    below = np.concatenate([[0], np.cumsum(counts)])
    inner = np.interp(edges[1:-1], slope * edges + intercept, below)
    return np.diff(np.concatenate([[0], inner, below[-1:]]))
