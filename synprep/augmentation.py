"""How strong the random changes of SynapseCLR's augmenter are in real data: estimates from what was measured.

The augmenter (https://github.com/cellarium-ai/SynapseCLR) blanks sections at random and changes intensities
on 0..1 to intercept + slope x intensity ^ gamma, with one draw per section and one per chunk, all uniform and
independent. Each function here takes what a data set shows, and returns what these draws would have to be to
look like it. A value that cannot be known is NaN, and goes with a reason.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

N_RESAMPLES = 1000
_MIN_SHARE = 0.9  # of the resamples, which must give a value for an interval
_TOLERANCE = 0.1


def cutout_model(n_sections: np.ndarray, n_blanked: np.ndarray) -> tuple[float, float, str]:
    """Estimate how often chunks are cut, and how many sections a cut chunk loses.

    Parameters
    ----------
    n_sections, n_blanked : (n_chunks,) int ndarray
        Number of sections of each chunk, and of those that are blanked.

    Returns
    -------
    probability : float
        Of a chunk to be cut, the augmenter's `section_cutout_prob`.
    rate : float
        Expected number of blanked sections of a chunk that is cut, its `cutout_poisson_rate`.
    reason : str
        Why both are NaN: no blanked section, or never more than one in a chunk; else empty.

    Notes
    -----
    In the model a chunk is cut with probability p, and then each of its n sections is blanked with
    probability r / n, independently. So a chunk without blanked sections was either not cut, or was cut and
    lost nothing:

        P(0) = 1 - p t,   P(k) = p C(n, k) (r/n)^k (1 - r/n)^(n-k) for k > 0,   t = 1 - (1 - r/n)^n

    The share of chunks with blanked sections is p t, not p: with p = 0.5 and r = 1.5 it is 0.39. The rate
    follows from the chunks that have any, whose mean count is r / t (zero-truncated estimate; F. N. David and
    N. L. Johnson, The truncated Poisson, Biometrics 8, 1952): r solves

        sum of r / t_i over chunks with blanked sections = sum of their counts

    and p is the number of these chunks divided by the sum of t_i over all. With chunks of equal depth this is
    the maximum likelihood, and p r is the mean count over all chunks. If p would be greater than 1, both have
    their most likely values at that limit: p = 1, and r is the mean count.

    r / t is 1 where r is 0: with no chunk that has more than one blanked section, any small r does, and only
    the product p r, the mean count, is known.

    What is counted are sections that are missing from the real data. The augmenter's cuts come on top.
    """
    is_cut = n_blanked > 0
    if not is_cut.any():
        return math.nan, math.nan, "no chunk has a blanked section"
    if n_blanked.max() == 1:
        return (
            math.nan,
            math.nan,
            "no chunk has more than one blanked section: only their mean number is known",
        )
    depths, n_cut = np.unique(n_sections[is_cut], return_counts=True)
    n_missing = n_blanked.sum()
    rate = _increasing_root(lambda r: (n_cut * r / _any_blanked(depths, r)).sum() - n_missing, depths.max())
    probability = is_cut.sum() / _any_blanked(n_sections, rate).sum()
    if probability > 1:
        probability, rate = 1.0, n_blanked.mean()
    return float(probability), float(rate), ""


def _any_blanked(n_sections: np.ndarray, rate: float) -> np.ndarray:
    """Probability that a chunk that is cut loses a section, t in `cutout_model`."""
    return 1 - (1 - np.minimum(rate / n_sections, 1)) ** n_sections


def _increasing_root(function: Callable[[float], float], high: float) -> float:
    """Where an increasing function is 0, between 0 and `high`; `high` if it is less than 0 up to there."""
    low = 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return high


def expected_chunks(n_sections: np.ndarray, probability: float, rate: float, most: int) -> np.ndarray:
    """Number of chunks with 0, 1, 2, ... blanked sections that the model expects.

    Parameters
    ----------
    n_sections : (n_chunks,) int ndarray
        Number of sections of each chunk.
    probability, rate : float
        See `cutout_model`.
    most : int
        Greatest number of blanked sections to return.

    Returns
    -------
    (most + 1,) float64 ndarray
        Expected number of chunks; NaN if the model is not known.
    """
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


def run_lengths(is_blanked_z: np.ndarray) -> np.ndarray:
    """Lengths of the runs of blanked sections.

    Parameters
    ----------
    is_blanked_z : (z,) bool ndarray
        Sections of a chunk.

    Returns
    -------
    (n_runs,) int ndarray
        Number of sections in each run of neighbours that are all blanked.

    Examples
    --------
    >>> run_lengths(np.array([True, False, True, True]))
    array([1, 2])
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_blanked_z, [0]]).astype(int)))
    return edges[1::2] - edges[::2]


def expected_runs(n_sections: np.ndarray, n_blanked: np.ndarray) -> np.ndarray:
    """Number of runs that blanked sections would make if they lay anywhere in their chunk, independently.

    Parameters
    ----------
    n_sections, n_blanked : (n_chunks,) int ndarray
        Number of sections of each chunk, and of those that are blanked.

    Returns
    -------
    (n_chunks,) float64 ndarray
        Expected number of runs.

    Notes
    -----
    A run begins at a blanked section that is the first of the chunk or follows one that is not blanked. Of
    the k blanked among n sections in random order, each is first with probability 1/n, else (n - 1)/n, and
    then follows one that is not blanked with probability (n - k)/(n - 1): k (1 + n - k) / n runs.
    """
    return n_blanked * (1 + n_sections - n_blanked) / n_sections


def log_ratios(values_z: np.ndarray, is_usable_z: np.ndarray) -> np.ndarray:
    """Logarithm of the ratio of a section's value to that of the next one.

    Parameters
    ----------
    values_z : (z,) float64 ndarray
        A value of each section of a chunk, such as its mean intensity.
    is_usable_z : (z,) bool ndarray
        False for sections to leave out, such as blanked ones; all others have values above 0.

    Returns
    -------
    (z - 1,) float64 ndarray
        NaN where one of the two sections is left out: no pair reaches across it.

    Examples
    --------
    >>> log_ratios(np.array([1.0, 1.0, 0.0, 2.0]), np.array([True, True, False, True]))
    array([ 0., nan, nan])
    """
    logs_z = np.log(np.where(is_usable_z, values_z, 1.0))
    is_pair = is_usable_z[:-1] & is_usable_z[1:]
    return np.where(is_pair, logs_z[:-1] - logs_z[1:], np.nan)


def ratio_sums(ratios_z: np.ndarray) -> np.ndarray:
    """Sums from which the variance and the autocorrelation of a chunk's log ratios follow.

    Parameters
    ----------
    ratios_z : (z - 1,) float64 ndarray
        See `log_ratios`.

    Returns
    -------
    (4,) float64 ndarray
        Number of ratios, sum of their squares; number of pairs of consecutive ratios, sum of their products.
    """
    products_z = ratios_z[:-1] * ratios_z[1:]
    return np.array(
        [item for part in (ratios_z**2, products_z) for item in (np.isfinite(part).sum(), np.nansum(part))]
    )


def variance_and_autocorrelation(sums: np.ndarray) -> tuple[float, float]:
    """Variance and lag-1 autocorrelation of log ratios whose mean is 0.

    Parameters
    ----------
    sums : (4,) float64 ndarray
        See `ratio_sums`, added up over chunks.

    Returns
    -------
    variance, autocorrelation : float
        NaN where there are no ratios, or no consecutive ones.
    """
    n_ratios, squares, n_products, products = sums
    variance = squares / n_ratios if n_ratios else math.nan
    return variance, products / n_products / variance if n_products and variance else math.nan


def dependence(autocorrelation: float, n_products: int) -> str:
    """Say why sections cannot be taken to vary independently of their neighbours, if so.

    Parameters
    ----------
    autocorrelation : float
        See `variance_and_autocorrelation`.
    n_products : int
        Number of pairs of consecutive ratios that it is from.

    Returns
    -------
    str
        The reason; empty when sections may be taken to be independent.

    Notes
    -----
    Of independent sections two consecutive log ratios share one, with opposite signs: a - b and b - c. Their
    correlation is -1/2. If it is -(1 - f)/2, neighbouring sections correlate by f, and the variance of the
    ratios is 2 (1 - f) instead of 2 times that of sections: half-widths taken from it are off by the factor
    sqrt(1 - f). A correlation that is within 0.1 of -0.5 is f from -0.2 to 0.2, and half-widths off by a
    tenth at most: this is let through. Sampling moves the correlation too, of n independent sections with a
    standard error of sqrt(1/(2 n)) (M. S. Bartlett, On the theoretical specification and sampling properties
    of autocorrelated time-series, 1946, for a moving average with correlation -1/2), whatever the
    distribution: two of these are let through besides. With fewer than 13 even a correlation of 0 would be.
    """
    allowed = _TOLERANCE + 2 * math.sqrt(0.5 / n_products) if n_products else math.inf
    if allowed >= 0.5:
        return (
            f"too few neighbouring sections ({n_products:.0f} triples) to see whether they vary independently"
        )
    if abs(autocorrelation + 0.5) > allowed:  # NaN, which sections that are all alike have, is not
        return (
            f"sections do not vary independently: consecutive log ratios correlate by {autocorrelation:.2f}, "
            f"not by -0.5 (within {allowed:.2f})"
        )
    return ""


def slope_half_width(variance: float) -> float:
    """Half-width of the uniform slopes around 1 that would alone give a variance.

    Parameters
    ----------
    variance : float
        Of the logarithm of brightness (mean of imaged pixels) or of contrast (their standard deviation), over
        sections or over chunks. Of sections: half the variance of the log ratios of neighbours.

    Returns
    -------
    float
        Slopes are from 1 minus this to 1 plus this.

    Notes
    -----
    A slope a multiplies mean and standard deviation of a section alike. Uniform in 1 -+ w it has the variance
    w^2/3, and for small w so has its logarithm: a standard deviation of w/sqrt(3), within w^2/4 of itself.
    Tissue hardly changes from a section to the next, so that the log ratio of neighbours, log a - log a', has
    twice this variance. The mean of n sections' slopes adds w^2/n to the square of the half-width of chunks.

    It is neither an upper nor a lower limit. Tissue, and all else that varies, counts as if it were slopes.
    Sections that were shifted to one mean hide slopes from the brightness, and those that were scaled to one
    hide them from both.
    """
    return math.sqrt(3 * variance)


def bootstrap(
    estimate: Callable[[dict[str, np.ndarray]], Mapping[str, float]],
    chunks: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, tuple[float, float] | None]:
    """Intervals of estimates: 95 percent of what they would be with other chunks like these.

    Parameters
    ----------
    estimate : callable
        Takes arrays like `chunks`, returns values by name; NaN for what cannot be estimated.
    chunks : mapping of str to (n_chunks, ...) ndarray
        What is known of each chunk.
    seed : int
        Of the resamples; any integer.

    Returns
    -------
    dict of str to (float, float) or None
        By name, the 2.5th and 97.5th percentile of the estimates from `N_RESAMPLES` resamples. None with a
        single chunk, or if more than a tenth of the resamples give no value.

    Notes
    -----
    Percentile bootstrap (B. Efron, Bootstrap methods: another look at the jackknife, 1979). Chunks are drawn
    with replacement, as many as there are: sections of one chunk resemble each other, so drawing sections
    would make the intervals too narrow. With fewer than about ten chunks they are too narrow all the same.
    """
    n_chunks = len(next(iter(chunks.values())))
    if n_chunks < 2:
        return dict.fromkeys(estimate(dict(chunks)))
    rng = np.random.default_rng(seed % 2**64)
    draws = (rng.integers(0, n_chunks, n_chunks) for _ in range(N_RESAMPLES))
    found = [estimate({name: values[drawn] for name, values in chunks.items()}) for drawn in draws]
    return {name: _middle(np.array([values[name] for values in found])) for name in found[0]}


def _middle(values: np.ndarray) -> tuple[float, float] | None:
    known = values[np.isfinite(values)]
    if len(known) < _MIN_SHARE * len(values):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
