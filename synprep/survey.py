"""Statistics of the sections of many chunks: cutout fraction, intensity, variation between sections."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from synprep import chunk, execution, sections
from synprep.errors import ChunkError, FailedChunksError, PairingError, ParameterError, listed
from synprep.pairing import Pair
from synprep.params import CutoutHistogram, IntensityHistogram, SectionVariation, Survey

_PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Surveyed:
    """What one pass over the chunks found.

    Parameters
    ----------
    synapse_ids : tuple of str
        Chunks that were read, in the order of the sample.
    sections : DataFrame
        One row per section of every chunk, full depth: synapse_id, the columns of
        `synprep.chunk.describe_sections`, and is_kept, True where the crop keeps the section.
    counts : (256,) int64 ndarray
        Pixels by intensity, of the sections at or below the cutout threshold, full depth.
    kept_counts : (256,) int64 ndarray
        Pixels by intensity, of all sections that the crop keeps, with the pixels of blanked sections as 0.
    example : (z, 256) int64 ndarray or None
        Histogram of the example chunk, if one was asked for.
    failures : dict of str to str
        Reason by synapse id for each chunk that could not be read.
    """

    synapse_ids: tuple[str, ...]
    sections: pd.DataFrame
    counts: np.ndarray
    kept_counts: np.ndarray
    example: np.ndarray | None
    failures: dict[str, str]


def run(pairs: Sequence[Pair], p: Survey, example: Pair | None = None) -> Surveyed:
    """Read each EM file once and reduce it to statistics of its sections; masks are not read.

    Parameters
    ----------
    pairs : sequence of Pair
        Chunks of the sample.
    p : Survey
        Parameters.
    example : Pair, optional
        Chunk whose whole histogram is kept; it counts in the statistics only if it is one of `pairs`.

    Returns
    -------
    Surveyed
        Statistics of all chunks that could be read.

    Raises
    ------
    FailedChunksError
        If no chunk could be read.
    """
    survey_one = partial(_survey_chunk, p=p, example=example)
    outcomes = execution.attempt_all(survey_one, pairs, "Surveying", True, p.n_workers, p.scheduler)
    by_id = {pair.synapse_id: outcome for pair, outcome in outcomes}
    by_id = {pair.synapse_id: by_id[pair.synapse_id] for pair in pairs}  # in the order of the sample
    failures = {key: outcome.problem for key, outcome in by_id.items() if isinstance(outcome, ChunkError)}
    read = {key: outcome for key, outcome in by_id.items() if key not in failures}
    if not read:
        raise FailedChunksError(f"no chunk could be read: {listed(failures.values(), 3)}")
    kept_example = read[example.synapse_id].histogram if example and example.synapse_id in read else None
    if example and kept_example is None:
        kept_example = chunk.load_histogram(example.em_path)
    return Surveyed(
        tuple(read),
        pd.concat(
            [pd.DataFrame({"synapse_id": key} | one.sections) for key, one in read.items()], ignore_index=True
        ),
        sum(one.counts for one in read.values()),
        sum(one.kept_counts for one in read.values()),
        kept_example,
        failures,
    )


@dataclass(frozen=True)
class _One:
    """What is kept of one chunk: columns of its sections, counts as in `Surveyed`, an example's histogram."""

    sections: dict[str, np.ndarray]
    counts: np.ndarray
    kept_counts: np.ndarray
    histogram: np.ndarray | None


def _survey_chunk(pair: Pair, p: Survey, example: Pair | None) -> _One:
    histogram = chunk.load_histogram(pair.em_path)
    described = chunk.describe_sections(sections.moments(histogram, p.cutout_pixel_value), p)
    described["is_kept"] = chunk.is_kept(len(histogram), p)
    is_kept, is_blanked = described["is_kept"], described["is_blanked"]
    kept_counts = histogram[is_kept & ~is_blanked].sum(axis=0)
    kept_counts[0] += histogram[is_kept & is_blanked].sum()
    counts = histogram[~is_blanked].sum(axis=0)
    return _One(described, counts, kept_counts, histogram if pair == example else None)


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
        The record `cutout_histogram.json`: bins over 0 to 1, counts of sections, and fractions of sections at
        or below, and above, the threshold: of all sections, and of those that the crop keeps.
    """
    fractions, kept = surveyed.sections["cutout_fraction"], surveyed.sections["is_kept"]
    section_counts, bin_edges = np.histogram(fractions, bins=p.n_bins, range=(0.0, 1.0))
    is_above = fractions > p.cutout_threshold
    return {
        "synapse_ids": list(surveyed.synapse_ids),
        "n_chunks": len(surveyed.synapse_ids),
        "n_sections": len(fractions),
        "cutout_threshold": p.cutout_threshold,
        "bin_edges": bin_edges,
        "section_counts": section_counts,
        "fraction_at_or_below_threshold": float((~is_above).mean()),
        "fraction_above_threshold": float(is_above.mean()),
        "kept_fraction_at_or_below_threshold": float((~is_above)[kept].mean()),
        "kept_fraction_above_threshold": float(is_above[kept].mean()),
    }


def cutout_classes(surveyed: Surveyed, p: CutoutHistogram) -> pd.DataFrame:
    """Count the sections that are clean, partly cut out, and wholly black.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.
    p : CutoutHistogram
        Parameters.

    Returns
    -------
    DataFrame
        Number of sections; rows clean (cutout fraction at or below the threshold: real tissue has a few such
        pixels), partly cut, and wholly black (1); columns `all sections` and `kept sections`.
    """
    fractions, is_kept = surveyed.sections["cutout_fraction"], surveyed.sections["is_kept"]
    is_black = fractions == 1
    is_clean = (fractions <= p.cutout_threshold) & ~is_black
    classes = {"clean": is_clean, "partly cut": ~is_clean & ~is_black, "wholly black": is_black}
    counts = {name: [one.sum(), (one & is_kept).sum()] for name, one in classes.items()}
    return pd.DataFrame.from_dict(counts, orient="index", columns=["all sections", "kept sections"])


def strip(surveyed: Surveyed, pairs: Sequence[Pair], p: CutoutHistogram, n_sections: int = 4) -> pd.DataFrame:
    """Load the sections whose cutout fraction is nearest to the threshold, to see what it decides.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.
    pairs : sequence of Pair
        The chunks that were surveyed.
    p : CutoutHistogram
        Parameters.
    n_sections : int
        How many sections to load on each side of the threshold, at most.

    Returns
    -------
    DataFrame
        synapse_id, z (full depth), cutout_fraction, is_blanked, em ((x, y) uint8 ndarray); by the fraction.

    Raises
    ------
    ChunkError
        If a file cannot be read any more.
    """
    z = surveyed.sections.groupby("synapse_id", sort=False).cumcount()
    columns = surveyed.sections[["synapse_id", "cutout_fraction", "is_blanked"]].assign(z=z)
    fractions = columns["cutout_fraction"].to_numpy()
    nearest = columns.iloc[sections.nearest_to_threshold(fractions, p.cutout_threshold, n_sections)]
    paths = {pair.synapse_id: pair.em_path for pair in pairs}
    em = [chunk.load_section(paths[one.synapse_id], one.z) for one in nearest.itertuples()]
    return nearest[["synapse_id", "z", "cutout_fraction", "is_blanked"]].assign(em=em).reset_index(drop=True)


def intensity_report(surveyed: Surveyed, p: IntensityHistogram) -> dict[str, Any]:
    """Intensity histogram of the sections at or below the threshold, with mean and standard deviation.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.
    p : IntensityHistogram
        Parameters.

    Returns
    -------
    dict
        The record `intensity_histogram.json`: counts of pixels by intensity; mean and std of imaged pixels on
        0..255 and on 0..1; the latter also over all pixels of the kept sections with blanked ones as 0.
    """
    mean, std = sections.mean_and_std(sections.imaged(surveyed.counts, p.cutout_pixel_value))
    mean_with_blanks, std_with_blanks = sections.mean_and_std(surveyed.kept_counts)
    return {
        "synapse_ids": list(surveyed.synapse_ids),
        "n_sections_used": int((~surveyed.sections["is_blanked"]).sum()),
        "counts": surveyed.counts,
        "mean": float(mean),
        "std": float(std),
        "intensity_mean": float(mean / 255),
        "intensity_std": float(std / 255),
        "intensity_mean_with_blanks": float(mean_with_blanks / 255),
        "intensity_std_with_blanks": float(std_with_blanks / 255),
    }


def variation_report(surveyed: Surveyed) -> dict[str, Any]:
    """Ratios of the mean intensities of neighbouring sections.

    Parameters
    ----------
    surveyed : Surveyed
        Result of `run`.

    Returns
    -------
    dict
        The record `section_variation.json`: mean of section z / mean of section z + 1 for all neighbours at
        or below the threshold, means over imaged pixels; and the ratios' mean, std and percentiles 5, 25, 50,
        75 and 95.
    """
    by_chunk = surveyed.sections.groupby("synapse_id", sort=False)
    ratios = np.concatenate(
        [
            sections.neighbour_ratios(rows["mean"].to_numpy(), ~rows["is_blanked"].to_numpy())
            for _, rows in by_chunk
        ]
    )
    some = ratios if ratios.size else np.array([np.nan])
    return {
        "synapse_ids": list(surveyed.synapse_ids),
        "n_section_pairs": len(ratios),
        "ratios": ratios,
        "mean": float(some.mean()),
        "std": float(some.std()),
        "percentiles": np.percentile(some, _PERCENTILES),
    }


def cutout_table(report: dict[str, Any]) -> pd.DataFrame:
    """Numbers of a cutout report for a person to read.

    Parameters
    ----------
    report : dict
        See `cutout_report`.

    Returns
    -------
    DataFrame
        Fractions of sections; a row each for all and for kept sections.
    """
    columns = ["fraction_at_or_below_threshold", "fraction_above_threshold"]
    values = [[report[name] for name in columns], [report[f"kept_{name}"] for name in columns]]
    return pd.DataFrame(values, index=["all sections", "kept sections"], columns=columns)


def intensity_table(report: dict[str, Any]) -> pd.DataFrame:
    """Numbers of an intensity report for a person to read.

    Parameters
    ----------
    report : dict
        See `intensity_report`.

    Returns
    -------
    DataFrame
        Mean and standard deviation, a row each for imaged pixels on 0..255 and on 0..1, and for all pixels of
        the kept sections with blanked ones as 0.
    """
    rows = {
        "imaged pixels, 0 to 255": (report["mean"], report["std"]),
        "imaged pixels, 0 to 1": (report["intensity_mean"], report["intensity_std"]),
        "with blanked sections, 0 to 1": (
            report["intensity_mean_with_blanks"],
            report["intensity_std_with_blanks"],
        ),
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "standard deviation"])


def variation_table(report: dict[str, Any]) -> pd.DataFrame:
    """Numbers of a variation report for a person to read.

    Parameters
    ----------
    report : dict
        See `variation_report`.

    Returns
    -------
    DataFrame
        One column of numbers: how many ratios, their mean, standard deviation and percentiles.
    """
    percentiles = {f"{q} %": value for q, value in zip(_PERCENTILES, report["percentiles"], strict=True)}
    numbers = {"mean": report["mean"], "standard deviation": report["std"], **percentiles}
    return pd.DataFrame({"ratio": {"section pairs": report["n_section_pairs"], **numbers}})


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
    by_id = {pair.synapse_id: pair for pair in pairs}
    wanted = p.example_synapse_id or sampled[0].synapse_id
    if wanted not in by_id:
        raise PairingError(f"example_synapse_id {wanted!r} is not paired; ids that are: {listed(by_id)}")
    n_sections = chunk.depth(by_id[wanted].em_path)
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
        next section after ``clip(slope * intensity + intercept, 0, 255)``.
    numbers : DataFrame
        Mean and standard deviation of the imaged pixels of the three.
    """
    histograms = sections.imaged(surveyed.example, p.cutout_pixel_value)
    section, following = histograms[p.section_index], histograms[p.section_index + 1]
    transform = p.intensity_slope, p.intensity_intercept
    names = [f"section {p.section_index}", f"section {p.section_index + 1}"]
    names.append(f"{names[1]}, transformed")
    columns = [section, following, sections.transformed_histogram(following, *transform)]
    moments = [sections.mean_and_std(counts) for counts in (section, following)]
    moments.append(sections.mean_and_std(following, sections.linear_transform(*transform)))
    counts = pd.DataFrame(dict(zip(names, columns, strict=True))).rename_axis("intensity")
    return counts, pd.DataFrame(moments, index=names, columns=["mean", "std"]).astype(float)
