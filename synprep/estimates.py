"""The numbers of a data set's fingerprint, from what is known of each of its chunks.

`chunks` has one array per name, with a row for each chunk:

=================================  ==========================================================================
pixels, pixels_with_blanks, ...    (n, 3) number of pixels of a group, sum of intensities, sum of squares
n_sections, n_blanked, n_runs      (n,) sections, those that are blanked, and runs that these make
brightness_sums, contrast_sums     (n, 4) of neighbouring sections, see `synprep.augmentation.ratio_sums`
brightness, contrast               (n,) mean of section means, root mean square of section stds, on 0..1; NaN
                                   where no section is imaged
pre_synaptic_volume, ...           (n,) as in `meta.csv`
=================================  ==========================================================================
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from synprep import augmentation, labels, sections
from synprep.table import VOLUME_COLUMNS

LABELS = {labels.NAMES[label]: label for label in labels.MASK_KEYS.values()}
PIXELS = {"": "imaged pixels", "_with_blanks": "all pixels, blanked ones as 0"}
PIXELS |= {f"_{name}": f"imaged pixels with label {name}" for name in LABELS}
_PERCENTILES = (5, 25, 50, 75, 95)
_WIDTH = "half-width of the uniform slopes that would alone give this {}; see synprep.augmentation"

# All numbers, by group and name: how each is computed, and over what (a key of `_amounts`).
_NUMBERS = {
    "intensity": {
        f"intensity_{short}{end}": (f"{what} of {pixels}, on 0..1", f"pixels{end}")
        for end, pixels in PIXELS.items()
        for short, what in (("mean", "mean"), ("std", "standard deviation"))
    },
    "blanked_sections": {
        "blanked_chunk_fraction": ("share of chunks with blanked sections", "sections"),
        "blanked_sections_per_chunk": ("mean number of blanked sections of a chunk", "sections"),
        "blanked_run_length": ("mean length of runs of blanked sections", "sections"),
        "blanked_run_length_if_independent": ("the same, had each chunk's lain anywhere", "sections"),
        "section_cutout_prob": ("zero-truncated; see synprep.augmentation.cutout_model", "sections"),
        "cutout_poisson_rate": ("zero-truncated; see synprep.augmentation.cutout_model", "sections"),
    },
    "section_variation": {
        "section_brightness_change": ("root mean square of neighbours' log ratios of means", "brightness"),
        "section_brightness_autocorrelation": ("of consecutive log ratios of means", "brightness triples"),
        "section_brightness_half_width": (_WIDTH.format("change"), "brightness"),
        "section_contrast_change": ("root mean square of neighbours' log ratios of stds", "contrast"),
        "section_contrast_autocorrelation": ("of consecutive log ratios of stds", "contrast triples"),
        "section_contrast_half_width": (_WIDTH.format("change"), "contrast"),
    },
    "chunk_variation": {
        "chunk_brightness_spread": ("standard deviation of the log of section means' mean", "imaged"),
        "chunk_brightness_half_width": (_WIDTH.format("spread"), "imaged"),
        "chunk_contrast_spread": (
            "standard deviation of the log of section stds' root mean square",
            "imaged",
        ),
        "chunk_contrast_half_width": (_WIDTH.format("spread"), "imaged"),
    },
    "label_volumes": {
        f"{column}_p{q:02}": (f"{q} % quantile, sagittal voxels", "chunks")
        for column in VOLUME_COLUMNS.values()
        for q in _PERCENTILES
    },
}


def numbers(chunks: Mapping[str, np.ndarray], seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Estimate all numbers, with intervals.

    Parameters
    ----------
    chunks : mapping of str to (n_chunks, ...) ndarray
        See the module.
    seed : int
        Of the resamples that give the intervals.

    Returns
    -------
    dict of str to dict of str to dict
        By group and name: `value` (None if withheld), `interval` (low and high; None if there is none),
        `withheld` (the reason, or empty), `how` it is computed, and `over` how much.
    """
    values, intervals = _estimate(chunks), augmentation.bootstrap(_estimate, chunks, seed)
    reasons, amounts = _reasons(chunks, values), _amounts(chunks)
    found = {group: {} for group in _NUMBERS}
    for group, names in _NUMBERS.items():
        for name, (how, over) in names.items():
            is_known, interval = not reasons[name], intervals[name]
            found[group][name] = {
                "value": values[name] if is_known else None,
                "interval": list(interval) if is_known and interval else None,
                "withheld": reasons[name],
                "how": how,
                "over": amounts[over],
            }
    return found


def _estimate(chunks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """All numbers; NaN for what cannot be known."""
    parts = (_intensity, _blanked_sections, _section_variation, _chunk_variation, _label_volumes)
    return {name: float(value) for part in parts for name, value in part(chunks).items()}


def _intensity(chunks: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for end in PIXELS:
        mean, std = sections.mean_and_std_of_sums(*chunks[f"pixels{end}"].sum(axis=0))
        found |= {f"intensity_mean{end}": mean / 255, f"intensity_std{end}": std / 255}
    return found


def _blanked_sections(chunks: Mapping[str, np.ndarray]) -> dict[str, float]:
    n_sections, n_blanked, n_runs = (chunks[name] for name in ("n_sections", "n_blanked", "n_runs"))
    probability, rate, _ = augmentation.cutout_model(n_sections, n_blanked)
    n_expected = augmentation.expected_runs(n_sections, n_blanked).sum()
    return {
        "blanked_chunk_fraction": (n_blanked > 0).mean(),
        "blanked_sections_per_chunk": n_blanked.mean(),
        "blanked_run_length": n_blanked.sum() / n_runs.sum() if n_expected else math.nan,
        "blanked_run_length_if_independent": n_blanked.sum() / n_expected if n_expected else math.nan,
        "section_cutout_prob": probability,
        "cutout_poisson_rate": rate,
    }


def _section_variation(chunks: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for what in ("brightness", "contrast"):
        sums = chunks[f"{what}_sums"].sum(axis=0)
        variance, autocorrelation = augmentation.variance_and_autocorrelation(sums)
        found[f"section_{what}_change"] = math.sqrt(variance)
        found[f"section_{what}_autocorrelation"] = autocorrelation
        found[f"section_{what}_half_width"] = augmentation.slope_half_width(variance / 2)
    return found


def _chunk_variation(chunks: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for what in ("brightness", "contrast"):
        spread = _spread(_known(chunks[what]))
        found[f"chunk_{what}_spread"] = spread
        found[f"chunk_{what}_half_width"] = augmentation.slope_half_width(spread**2)
    return found


def _spread(values: np.ndarray) -> float:
    return np.log(values).std(ddof=1) if values.size > 1 else math.nan


def _label_volumes(chunks: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for column in VOLUME_COLUMNS.values():
        quantiles = np.percentile(chunks[column], _PERCENTILES)
        found |= {f"{column}_p{q:02}": value for q, value in zip(_PERCENTILES, quantiles, strict=True)}
    return found


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _reasons(chunks: Mapping[str, np.ndarray], values: Mapping[str, float]) -> dict[str, str]:
    """Why numbers are withheld; empty for those that are not."""
    reasons = {
        name: "" if math.isfinite(value) else "nothing to take it from" for name, value in values.items()
    }
    *_, cutout = augmentation.cutout_model(chunks["n_sections"], chunks["n_blanked"])
    reasons |= {"section_cutout_prob": cutout, "cutout_poisson_rate": cutout}
    for what in ("brightness", "contrast"):
        n_products = int(chunks[f"{what}_sums"][:, 2].sum())
        autocorrelation = values[f"section_{what}_autocorrelation"]
        reasons[f"section_{what}_half_width"] = augmentation.dependence(autocorrelation, n_products)
    few = "it takes two chunks" if _known(chunks["brightness"]).size < 2 else ""
    return reasons | dict.fromkeys(_NUMBERS["chunk_variation"], few)


def _amounts(chunks: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """How much numbers are from, with the units in the plural."""
    n_sections = chunks["n_sections"]
    found = {
        "chunks": _amount(np.ones_like(n_sections)),
        "sections": _amount(n_sections, "sections"),
        "imaged": _amount(np.isfinite(chunks["brightness"])),
    }
    counted_sections = {"": n_sections - chunks["n_blanked"], "_with_blanks": n_sections}
    for end in PIXELS:
        amount = _amount(counted_sections[end], "sections") if end in counted_sections else {}
        found[f"pixels{end}"] = amount | _amount(chunks[f"pixels{end}"][:, 0], "pixels")
    for what in ("brightness", "contrast"):
        found[what] = _amount(chunks[f"{what}_sums"][:, 0], "section pairs")
        found[f"{what} triples"] = _amount(chunks[f"{what}_sums"][:, 2], "section triples")
    return found


def _amount(n: np.ndarray, unit: str = "chunks") -> dict[str, int]:
    return {"chunks": int(np.count_nonzero(n)), unit: int(n.sum())}
