"""The intensity histogram of each section, and all that follows from it.

A histogram has one row per section and one column per intensity, 0 to 255: shape (n_sections, 256), int64;
`synprep.kernels.count` makes it. Cutout pixels have the cutout pixel value; imaged pixels are all others.
"""

import numpy as np

INTENSITIES = np.arange(256, dtype=np.int64)


def moments(histogram: np.ndarray, cutout_pixel_value: int = 0) -> np.ndarray:
    """Sums from which fraction, mean and standard deviation of each section follow.

    Parameters
    ----------
    histogram : (z, 256) int64 ndarray
        See `synprep.kernels.count`.
    cutout_pixel_value : int
        Intensity of pixels where nothing was imaged or aligned.

    Returns
    -------
    (4, z) int64 ndarray
        By section: number of pixels, number of cutout pixels, sum of the intensities of imaged pixels, sum of
        their squares; what `synprep.kernels.copy_and_sum` gives.
    """
    counts = imaged(histogram, cutout_pixel_value)
    n_cutout = histogram[:, cutout_pixel_value]
    sums = [(counts * INTENSITIES**power).sum(axis=1) for power in (1, 2)]
    return np.stack([histogram.sum(axis=1), n_cutout, *sums])


def imaged(histogram: np.ndarray, cutout_pixel_value: int = 0) -> np.ndarray:
    """Leave the cutout pixels out of a histogram.

    Parameters
    ----------
    histogram : (..., 256) int64 ndarray
        Pixel counts by intensity.
    cutout_pixel_value : int
        Intensity of pixels where nothing was imaged or aligned.

    Returns
    -------
    (..., 256) int64 ndarray
        A copy whose count at `cutout_pixel_value` is 0.
    """
    counts = histogram.copy()
    counts[..., cutout_pixel_value] = 0
    return counts


def mean_and_std(
    histogram: np.ndarray, intensities: np.ndarray = INTENSITIES
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the intensity.

    Parameters
    ----------
    histogram : (..., 256) int64 ndarray
        Pixel counts by intensity.
    intensities : (256,) ndarray
        Intensity of each column; by default 0 to 255.

    Returns
    -------
    mean, std : (...) float64 ndarray
        The standard deviation is that of the population. NaN where no pixel is counted.
    """
    sums = [(histogram * intensities**power).sum(axis=-1) for power in (0, 1, 2)]
    return mean_and_std_of_sums(*sums)


def mean_and_std_of_sums(
    n_pixels: np.ndarray, total: np.ndarray, total_square: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation from sums.

    Parameters
    ----------
    n_pixels, total, total_square : (...) ndarray
        Number of pixels, sum of their intensities, sum of the squares of their intensities.

    Returns
    -------
    mean, std : (...) float64 ndarray
        The standard deviation is that of the population. NaN where no pixel is counted.
    """
    n_safe = np.where(n_pixels > 0, n_pixels, 1)
    mean = total / n_safe
    std = np.sqrt(np.maximum(total_square / n_safe - mean * mean, 0.0))
    return np.where(n_pixels > 0, mean, np.nan), np.where(n_pixels > 0, std, np.nan)


def neighbour_ratios(mean_z: np.ndarray, is_usable_z: np.ndarray) -> np.ndarray:
    """Mean intensity of a section divided by that of the next one.

    Parameters
    ----------
    mean_z : (z,) float64 ndarray
        Mean intensity of each section; sections whose mean is NaN or 0 take part in no ratio.
    is_usable_z : (z,) bool ndarray
        False for other sections to leave out, such as those above the cutout threshold.

    Returns
    -------
    (n_section_pairs,) float64 ndarray
        One ratio for each two sections that are both usable and neighbours in the chunk.

    Examples
    --------
    >>> neighbour_ratios(np.array([2.0, 4.0, 0.0, 5.0]), np.array([True, True, False, True]))
    array([0.5])
    """
    is_usable_z = is_usable_z & (mean_z > 0)
    is_pair = is_usable_z[:-1] & is_usable_z[1:]
    return mean_z[:-1][is_pair] / mean_z[1:][is_pair]


def nearest_to_threshold(cutout_fraction: np.ndarray, cutout_threshold: float, n_sections: int) -> np.ndarray:
    """Find the sections that show what the threshold decides: those nearest to it on both sides.

    Parameters
    ----------
    cutout_fraction : (n,) float ndarray
        Cutout fraction of each section of one chunk or of several; NaN is passed over.
    cutout_threshold : float
        Sections whose cutout fraction is strictly greater are blanked.
    n_sections : int
        How many to find on each side, at most.

    Returns
    -------
    (n_found,) int64 ndarray
        Positions in `cutout_fraction`, in the order of the fraction, equal ones in their own order: first the
        sections at or below the threshold, then those above it.

    Examples
    --------
    >>> nearest_to_threshold(np.array([0.5, 0.0, 0.02, 0.009, 0.01]), 0.01, 2)
    array([3, 4, 2, 0])
    """
    order = np.argsort(cutout_fraction, kind="stable")
    below = order[cutout_fraction[order] <= cutout_threshold]
    above = order[cutout_fraction[order] > cutout_threshold]
    return np.concatenate([below[max(0, below.size - n_sections) :], above[:n_sections]])


def linear_transform(slope: float, intercept: float) -> np.ndarray:
    """Transform the intensities 0 to 255.

    Parameters
    ----------
    slope, intercept : float
        Of the transform; the intercept is on 0 to 255.

    Returns
    -------
    (256,) float64 ndarray
        ``clip(slope * intensity + intercept, 0, 255)`` of each intensity.
    """
    return np.clip(slope * INTENSITIES + intercept, 0.0, 255.0)


def transformed_histogram(counts: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Histogram of the intensities after a linear transform.

    The pixels of each intensity are spread evenly over the width of its bin before the transform, as they
    were before they were rounded; otherwise rounding leaves gaps and spikes that are not in the data.

    Parameters
    ----------
    counts : (256,) int64 ndarray
        Pixel counts by intensity.
    slope, intercept : float
        Of the transform; the slope is greater than 0.

    Returns
    -------
    (256,) float64 ndarray
        Pixel counts by transformed intensity, those outside 0 to 255 in the first and the last bin.
    """
    edges = np.arange(257) - 0.5
    below = np.concatenate([[0], np.cumsum(counts)])
    inner = np.interp(edges[1:-1], slope * edges + intercept, below)
    return np.diff(np.concatenate([[0], inner, below[-1:]]))
