"""Numbers of a data set, from arrays with a row for each chunk; drawing rows gives the intervals."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from synprep._core import arrays
from synprep._core.tables import VOLUME_COLUMNS

Chunks = Mapping[str, np.ndarray]

_PIXELS = {"": "imaged pixels", "_with_blanks": "all pixels, blanked ones as 0"}
_PIXELS |= {f"_{name}": f"imaged pixels with label {name}" for name in arrays.LABELS.values()}
_MODEL = "zero-truncated; see synprep.fingerprint"
_HALF_WIDTH = "half-width of the uniform slopes that would alone give this {}; see docs/fingerprint.md"
N_RESAMPLES = 1000


class _Number(NamedTuple):
    """How much of each chunk it is from (by unit), the value (NaN if unknown), how it is computed."""

    over: dict[str, np.ndarray | None]
    value: float
    how: str
    withheld: str = ""


def numbers(chunks: Chunks, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """All numbers by group and name, with their intervals."""
    intervals = _bootstrap(_values, chunks, seed)
    return {
        group: {name: _as_record(number, intervals.get(name)) for name, number in find(chunks).items()}
        for group, find in _GROUPS.items()
    }


def _values(chunks: Chunks) -> dict[str, float]:
    return {name: number.value for find in _GROUPS.values() for name, number in find(chunks).items()}


def _as_record(number: _Number, interval: list[float] | None) -> dict[str, Any]:
    withheld = number.withheld or ("" if math.isfinite(number.value) else "nothing to take it from")
    return {
        "value": None if withheld else float(number.value),
        "interval": None if withheld else interval,
        "withheld": withheld,
        "how": number.how,
        "over": {unit: int(n.sum()) for unit, n in number.over.items() if n is not None},
    }


def _intensity(chunks: Chunks) -> dict[str, _Number]:
    n_sections, found = chunks["n_sections"], {}
    in_whole_sections = {"": n_sections - chunks["n_blanked"], "_with_blanks": n_sections}
    for group, (end, pixels) in enumerate(_PIXELS.items()):
        sums = chunks["pixels"][:, group]
        over = {"chunks": sums[:, 0] > 0, "sections": in_whole_sections.get(end), "pixels": sums[:, 0]}
        mean, std = arrays.mean_and_std_of_sums(*sums.sum(axis=0))
        found[f"intensity_mean{end}"] = _Number(over, mean / 255, f"mean of {pixels}, on 0..1")
        found[f"intensity_std{end}"] = _Number(over, std / 255, f"standard deviation of {pixels}, on 0..1")
    return found


def _blanked_sections(chunks: Chunks) -> dict[str, _Number]:
    n_sections, n_blanked = chunks["n_sections"], chunks["n_blanked"]
    # Of k blanked among n sections in random order each begins a run if it is first (probability 1/n), or
    # else follows one that is not blanked ((n - 1)/n times (n - k)/(n - 1)).
    n_expected = (n_blanked * (1 + n_sections - n_blanked) / n_sections).sum()
    lengths = [n_blanked.sum() / n if n else math.nan for n in (chunks["n_runs"].sum(), n_expected)]
    probability, rate, reason = _cutout_model(n_sections, n_blanked)
    found = {
        "blanked_chunk_fraction": ((n_blanked > 0).mean(), "share of chunks with blanked sections"),
        "blanked_sections_per_chunk": (n_blanked.mean(), "mean number of blanked sections of a chunk"),
        "blanked_run_length": (lengths[0], "mean length of runs of blanked sections"),
        "blanked_run_length_if_independent": (lengths[1], "the same, had each chunk's lain anywhere"),
        "section_cutout_prob": (probability, _MODEL, reason),
        "cutout_poisson_rate": (rate, _MODEL, reason),
    }
    over = {"chunks": n_sections > 0, "sections": n_sections}
    return {name: _Number(over, *number) for name, number in found.items()}


def _section_variation(chunks: Chunks) -> dict[str, _Number]:
    found = {}
    for what, values in (("brightness", "means"), ("contrast", "stds")):
        sums = chunks[f"{what}_sums"]
        pairs = {"chunks": sums[:, 0] > 0, "section pairs": sums[:, 0]}
        triples = {"chunks": sums[:, 2] > 0, "section triples": sums[:, 2]}
        n_ratios, squares, n_products, products = sums.sum(axis=0)
        variance = squares / n_ratios if n_ratios else math.nan
        correlation = products / n_products / variance if n_products and variance else math.nan
        how = f"root mean square of neighbours' log ratios of {values}"
        found[f"section_{what}_change"] = _Number(pairs, math.sqrt(variance), how)
        how = f"of consecutive log ratios of {values}"
        found[f"section_{what}_autocorrelation"] = _Number(triples, correlation, how)
        width, reason = _slope_half_width(variance / 2), _dependence(correlation, n_products)
        found[f"section_{what}_half_width"] = _Number(pairs, width, _HALF_WIDTH.format("change"), reason)
    return found


def _chunk_variation(chunks: Chunks) -> dict[str, _Number]:
    is_imaged, found = np.isfinite(chunks["brightness"]), {}
    few = "it takes two chunks that share no EM" if len(np.unique(chunks["group"][is_imaged])) < 2 else ""
    for what, values in (("brightness", "means' mean"), ("contrast", "stds' root mean square")):
        over, how = {"chunks": is_imaged}, f"standard deviation of the log of section {values}"
        spread = math.nan if few else np.log(chunks[what][is_imaged]).std(ddof=1)
        found[f"chunk_{what}_spread"] = _Number(over, spread, how, few)
        how = _HALF_WIDTH.format("spread")
        found[f"chunk_{what}_half_width"] = _Number(over, _slope_half_width(spread**2), how, few)
    return found


def _label_volumes(chunks: Chunks) -> dict[str, _Number]:
    found, percents = {}, (5, 25, 50, 75, 95)
    over = {"chunks": np.ones(len(chunks["n_sections"]))}
    for column in VOLUME_COLUMNS.values():
        for percent, value in zip(percents, np.percentile(chunks[column], percents), strict=True):
            found[f"{column}_p{percent:02}"] = _Number(over, value, f"{percent} % quantile, sagittal voxels")
    return found


_GROUPS = {
    "intensity": _intensity,
    "blanked_sections": _blanked_sections,
    "section_variation": _section_variation,
    "chunk_variation": _chunk_variation,
    "label_volumes": _label_volumes,
}


def _cutout_model(n_sections: np.ndarray, n_blanked: np.ndarray) -> tuple[float, float, str]:
    """Estimate `section_cutout_prob` p and `cutout_poisson_rate` r; NaN and the reason if not known.

    A chunk is cut with probability p, and then each of its n sections is blanked with probability r / n. A
    chunk that is cut loses any section with probability t = 1 - (1 - r/n)^n, so that

        P(0) = 1 - p t,   P(k) = p C(n, k) (r/n)^k (1 - r/n)^(n-k) for k > 0

    The share of chunks with blanked sections is p t, not p. Their mean count is r / t (zero-truncated; F. N.
    David and N. L. Johnson, The truncated Poisson, Biometrics 8, 1952): r solves

        sum of r / t_i over chunks with blanked sections = sum of their counts

    and p is the number of these chunks over the sum of t_i over all; with equal depths these are the most
    likely values. Were p above 1, then p = 1 and the mean count for r are. If no chunk has more than one
    blanked section, any small r does, and only the product p r, the mean count, is known.
    """
    is_cut = n_blanked > 0
    if not is_cut.any():
        return math.nan, math.nan, "no chunk has a blanked section"
    if n_blanked.max() == 1:
        reason = "no chunk has more than one blanked section: only their mean number is known"
        return math.nan, math.nan, reason
    depths, n_cut = np.unique(n_sections[is_cut], return_counts=True)
    low, rate = 0.0, float(depths.max())
    for _ in range(40):
        middle = (low + rate) / 2
        is_low = (n_cut * middle / _any_blanked(depths, middle)).sum() < n_blanked.sum()
        low, rate = (middle, rate) if is_low else (low, middle)
    probability = is_cut.sum() / _any_blanked(n_sections, rate).sum()
    return (1.0, n_blanked.mean(), "") if probability > 1 else (probability, rate, "")


def _any_blanked(n_sections: np.ndarray, rate: float) -> np.ndarray:
    """Probability that a chunk that is cut loses a section, t in `_cutout_model`."""
    return 1 - (1 - np.minimum(rate / n_sections, 1)) ** n_sections


def expected_chunks(n_sections: np.ndarray, probability: float, rate: float, most: int) -> np.ndarray:
    """Number of chunks with 0, 1, ... `most` blanked sections that `_cutout_model` expects."""
    expected = np.zeros(most + 1)
    for depth, n_chunks in zip(*np.unique(n_sections, return_counts=True), strict=True):
        binomial = [_binomial(int(depth), k, rate / depth) for k in range(min(most, depth) + 1)]
        expected[: len(binomial)] += n_chunks * probability * np.array(binomial)
        expected[0] += n_chunks * (1 - probability)
    return expected


def _binomial(n: int, k: int, p: float) -> float:
    """Probability of k among n; by logarithms, since the number of ways may be too great for a float."""
    p = min(p, 1 - 1e-12)
    log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log_ways + k * math.log(p) + (n - k) * math.log1p(-p))


def _slope_half_width(variance: float) -> float:
    """Half-width of the uniform slopes that alone would give this variance of a log: docs/fingerprint.md."""
    return math.sqrt(3 * variance)


def _dependence(autocorrelation: float, n_products: float) -> str:
    """Say why sections cannot be taken to vary independently of their neighbours; empty if they can.

    NaN, which sections that are all alike have, is let through; with fewer than 13 products even a
    correlation of 0 would be. See docs/fingerprint.md.
    """
    allowed = 0.1 + 2 * math.sqrt(0.5 / n_products) if n_products else math.inf
    if allowed >= 0.5:
        found = f"{n_products:.0f} triples"
        return f"too few neighbouring sections ({found}) to see whether they vary independently"
    if abs(autocorrelation + 0.5) > allowed:
        found = f"{autocorrelation:.2f}, not by -0.5 (within {allowed:.2f})"
        return f"sections do not vary independently: consecutive log ratios correlate by {found}"
    return ""


def _bootstrap(estimate: Callable, chunks: Chunks, seed: int) -> dict[str, list[float]]:
    """Low and high of 95 percent of what estimates would be with other chunks like these.

    Percentile bootstrap (B. Efron, Bootstrap methods: another look at the jackknife, 1979). Groups of chunks
    that share EM are drawn, not chunks or sections, since those of one group resemble each other; one that is
    drawn twice counts as two. No interval if there is one group, or if more than a tenth of the resamples
    give no value.
    """
    sizes = np.bincount(chunks["group"])
    if len(sizes) < 2:
        return {}
    rng = np.random.default_rng(seed % 2**64)
    members, found = np.split(np.argsort(chunks["group"], kind="stable"), np.cumsum(sizes)[:-1]), []
    for _ in range(N_RESAMPLES):
        drawn = rng.integers(0, len(sizes), len(sizes))
        rows = np.concatenate([members[group] for group in drawn])
        resample = {name: values[rows] for name, values in chunks.items()}
        found.append(estimate(resample | {"group": np.repeat(np.arange(len(drawn)), sizes[drawn])}))
    found = pd.DataFrame(found)
    known = found.loc[:, found.count() >= 0.9 * len(found)]
    return {name: np.percentile(values.dropna(), [2.5, 97.5]).tolist() for name, values in known.items()}
