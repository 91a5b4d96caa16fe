"""Measured checks of a raw pair: whether its mask fits, its axes are in order, its labels are mixed up.

A warning is a reason to look at the pictures, not a proof. How often each is right and wrong on real pairs,
and what cannot be seen at all, is in docs/pair_checks.md.

Whether a mask fits: neurons end at membranes, which are dark. For rings around the neurons' border, and for
all shifts of the mask within a section, it is measured how much darker the EM is in the ring than in a band
inside the neurons. Where the mask fits, no shift gives more than none. Shifts that are far from none are the
control: a score is a contrast less their mean, in their standard deviations.
"""

import math
from dataclasses import dataclass

import numpy as np

from synprep._core import arrays

N_SECTIONS = 32  # are looked at, evenly spread; all of a chunk that has fewer
N_LEAST = 250  # a mean or a correlation of fewer pixels is NaN
MIN_SCORE = 5.0
COARSE_SPACING = 2.0
RANGE_NM = (3.0, 32.0)  # pixels: of finer ones some are left out, with coarser ones membranes are not seen

# Lengths in nm, from a neuron's border; the inside is negative.
_RING, _RINGS = 8.0, range(-3, 6)  # width, at least a pixel; each ends at so many widths
_BAND = (-72.0, -24.0)
_WINDOW = 100.0  # in the EM, what is larger than two of these is taken out
_SHARE = 0.9  # of the best score of all shifts, that one where the mask is must have
_NEAR, _FAR, _REACH = (16.0, 1), (48.0, 3), (160.0, 10)  # shifts, at least so many pixels
_UNKNOWN = None, math.nan, math.nan, math.nan  # of `mask_fit`


@dataclass(frozen=True)
class PairMeasures:
    """What is measured on a raw pair; None and NaN where there is too little to measure."""

    mask_fits: bool | None
    fit_score: float
    shift_x: float  # pixels by which the mask would have to be moved to fit best
    shift_y: float
    correlation_x: float
    correlation_y: float
    correlation_z: float
    cleft_ratio: float


def measure(
    em_xyz: np.ndarray, mask_xyz: np.ndarray, cutout_pixel_value: int = 0, voxel_size_xy_nm: float = 8.0
) -> PairMeasures:
    """Measure a raw pair: a whole chunk, (x, y, z) uint8, with the standard label values, if with any.

    Of a deep one `N_SECTIONS` evenly spread sections are looked at. Pixels of the intensity
    `cutout_pixel_value` are left out, but what is imaged of a partly cut section counts: with the axes out of
    order a black section is a cut in every plane.
    """
    fit = mask_fit(em_xyz, mask_xyz, cutout_pixel_value, voxel_size_xy_nm)
    correlations = neighbour_correlations(em_xyz, cutout_pixel_value)
    return PairMeasures(*fit, *correlations, cleft_ratio(mask_xyz))


def warnings(measures: PairMeasures, axial_to_sagittal_spacing: float) -> dict[str, str]:
    """Say what may be wrong with a raw pair, in the same words for all chunks, and which numbers tell it.

    Below a spacing of `COARSE_SPACING` the correlations do not tell which axis is z.
    """
    m, found = measures, {}
    if m.mask_fits is False and m.fit_score < MIN_SCORE:
        found["the mask may not fit its EM"] = (
            f"(its borders follow no membranes: score {m.fit_score:.1f}, where one fits at least "
            f"{MIN_SCORE:g}): is it of this chunk, in the same axis order, not flipped, and are membranes "
            "dark in the EM?"
        )
    elif m.mask_fits is False:
        found["the mask may not fit its EM"] = (
            f"(it fits best, with a score of {m.fit_score:.1f}, when it is moved by {m.shift_x:.0f} pixels "
            f"along x and {m.shift_y:.0f} along y): is it shifted?"
        )
    lowest, axis = min((m.correlation_x, "x"), (m.correlation_y, "y"))
    if axial_to_sagittal_spacing >= COARSE_SPACING and lowest < m.correlation_z:
        found["the axes may be out of order"] = (
            f"(neighbouring voxels are least alike along {axis}, correlation {lowest:.2f}, and not along z, "
            f"{m.correlation_z:.2f}, although axial_to_sagittal_spacing is {axial_to_sagittal_spacing:g}): "
            "is it (x, y, z)?"
        )
    if m.cleft_ratio > 1:
        found["label values may be mixed up"] = (
            f"(the cleft has {m.cleft_ratio:.1f} times the voxels of the smaller neuron): is seg_mask_map "
            "right?"
        )
    return found


def not_measured(measures: PairMeasures, has_labels: bool = True) -> list[str]:
    """Say what could not be measured on a raw pair; nothing of labels where there are none."""
    m = measures
    along = [axis for axis in "xyz" if math.isnan(getattr(m, f"correlation_{axis}"))]
    parts = {
        "whether the mask fits (there are too few imaged pixels inside and around neurons, or pixels are "
        f"larger than {RANGE_NM[1]:g} nm)": has_labels and m.mask_fits is None,
        f"correlation along {', '.join(along)} (too few imaged pixels)": along,
        "cleft_ratio (a label is missing)": has_labels and math.isnan(m.cleft_ratio),
    }
    return [text for text, is_lacking in parts.items() if is_lacking]


def mask_fit(
    em_xyz: np.ndarray, mask_xyz: np.ndarray, left_out: int = 0, pixel_nm: float = 8.0
) -> tuple[bool | None, float, float, float]:
    """Whether the mask fits, its score, and the shift along x and y (pixels) that has it.

    Another ring fits nearly as well where the mask is moved by as much, if borders are few and straight:
    a mask fits where it is unless another place is clearly better.
    """
    every = max(1, round(RANGE_NM[0] / pixel_nm))
    em_xyz, mask_xyz, pixel_nm = em_xyz[::every, ::every], mask_xyz[::every, ::every], every * pixel_nm
    is_neuron_z = ((mask_xyz == arrays.PRESYNAPTIC) | (mask_xyz == arrays.POSTSYNAPTIC)).any(axis=(0, 1))
    z = _spread(is_neuron_z & (em_xyz != left_out).any(axis=(0, 1)))
    if not z.size or pixel_nm > RANGE_NM[1]:
        return _UNKNOWN
    near, far, reach = (max(nm / pixel_nm, n_least) for nm, n_least in (_NEAR, _FAR, _REACH))
    shifts = np.arange(-int(reach), int(reach) + 1)
    distance = np.hypot(shifts[:, None], shifts)
    planes = (array[:, :, z].transpose(2, 0, 1) for array in (em_xyz, mask_xyz))
    scores = _scores(_contrasts(*planes, left_out, pixel_nm, shifts), distance >= far)
    if not scores.size:
        return _UNKNOWN
    scores = np.nan_to_num(np.fmax.reduce(scores), nan=-np.inf)  # of the best ring
    here = np.where(distance <= near, scores, -np.inf)
    fits = bool(here.max() >= max(MIN_SCORE, _SHARE * scores.max()))
    best = here if fits else scores
    x, y = np.unravel_index(best.argmax(), best.shape)
    return fits, float(best[x, y]), float(every * shifts[x]), float(every * shifts[y])


def _contrasts(
    em_zxy: np.ndarray, mask_zxy: np.ndarray, left_out: int, pixel_nm: float, shifts: np.ndarray
) -> np.ndarray:
    """By ring and shift along x and y: mean EM of the band - that of the ring; NaN for few pixels."""
    from scipy.fft import next_fast_len  # few notebooks need it

    size = [next_fast_len(n + int(shifts[-1]), real=True) for n in em_zxy.shape[1:]]
    sums = counts = 0
    mean = em_zxy[em_zxy != left_out].mean()
    for em, regions in zip(em_zxy, _regions(mask_zxy, pixel_nm), strict=True):
        is_imaged = (em != left_out).astype(np.float32)
        detail = _detail((em - np.float32(mean)) * is_imaged, is_imaged, round(_WINDOW / pixel_nm))
        moved = np.conj(np.fft.rfft2(regions.astype(np.float32), size))
        sums = sums + np.fft.rfft2(detail, size) * moved  # a product here is a sum over pixels by shift
        counts = counts + np.fft.rfft2(is_imaged, size) * moved
    sums, counts = (np.fft.irfft2(one, size)[:, shifts][:, :, shifts] for one in (sums, counts))
    means = sums / np.where(counts > N_LEAST - 0.5, counts, np.nan)
    return means[0] - means[1:]


def _scores(contrasts: np.ndarray, is_control: np.ndarray) -> np.ndarray:
    """Scores of the rings whose contrast is known for no shift and most of the control, and varies."""
    is_known, middle = np.isfinite(contrasts), len(is_control) // 2
    contrasts = contrasts[is_known[:, middle, middle] & (is_known[:, is_control].mean(axis=1) > 0.5)]
    control = contrasts[:, is_control]
    mean, std = (of(control, axis=1)[:, None, None] for of in (np.nanmean, np.nanstd))
    return ((contrasts - mean) / np.where(std > 0, std, np.nan))[(std > 0)[:, 0, 0]]


def _regions(mask_zxy: np.ndarray, pixel_nm: float) -> np.ndarray:
    """The band and the rings of each section, (z, region, x, y).

    They lie within a section, because with coarse sections the neighbour along z need not be membrane. The
    cleft, dark itself, is in none; where neurons touch, the border is between them.
    """
    width = max(_RING / pixel_nm, 1)
    n = math.ceil(max(-_BAND[0] / pixel_nm, _RINGS[-1] * width))
    is_cleft = mask_zxy == arrays.CLEFT
    neurons = [mask_zxy == label for label in (arrays.PRESYNAPTIC, arrays.POSTSYNAPTIC)]
    outside = _distance(neurons[0] | neurons[1], n)
    for is_neuron in neurons:
        outside[is_neuron] = 1 - _distance(~is_neuron, n)[is_neuron]
    outside[is_cleft] = n + 1
    band = _BAND[0] / pixel_nm, _BAND[1] / pixel_nm
    ends = [band, *(((k - 1) * width, k * width) for k in _RINGS)]
    return np.stack([(outside > low) & (outside <= high) for low, high in ends], axis=1)


def _distance(flags_zxy: np.ndarray, n: int) -> np.ndarray:
    """Pixels to the nearest flagged one of the section, n + 1 beyond n; in steps that make octagons."""
    distance, reached = np.where(flags_zxy, 0, n + 1).astype(np.int16), flags_zxy
    for step in range(1, n + 1):
        grown = _touched(reached, has_corners=step % 2 == 0)
        distance[grown & ~reached] = step
        reached = grown
    return distance


def _touched(flags_zxy: np.ndarray, has_corners: bool) -> np.ndarray:
    """Flagged pixels and those that share an edge with one, or a corner."""
    touched = flags_zxy.copy()
    touched[:, 1:] |= flags_zxy[:, :-1]
    touched[:, :-1] |= flags_zxy[:, 1:]
    source = touched.copy() if has_corners else flags_zxy
    touched[:, :, 1:] |= source[:, :, :-1]
    touched[:, :, :-1] |= source[:, :, 1:]
    return touched


def _detail(em: np.ndarray, is_imaged: np.ndarray, n: int) -> np.ndarray:
    """EM, 0 where it is not imaged, less its mean in the window of n pixels to all sides."""
    return em - is_imaged * _box(em, n) / np.maximum(_box(is_imaged, n), 1)


def _box(plane: np.ndarray, n: int) -> np.ndarray:
    for _ in range(2):
        sums = np.cumsum(np.pad(plane, ((n + 1, n), (0, 0))), axis=0, dtype=np.float64)
        plane = (sums[2 * n + 1 :] - sums[: -2 * n - 1]).T
    return plane


def neighbour_correlations(em_xyz: np.ndarray, cutout_pixel_value: int = 0) -> tuple[float, float, float]:
    """Pearson correlation of neighbouring voxels along x, y and z: least along z when sections are coarse."""
    has_image_z = (em_xyz != cutout_pixel_value).any(axis=(0, 1))
    part_xyz = em_xyz[:, :, _spread(has_image_z)]
    z = _spread(has_image_z[:-1] & has_image_z[1:])
    pairs = (
        (part_xyz[:-1], part_xyz[1:]),
        (part_xyz[:, :-1], part_xyz[:, 1:]),
        (em_xyz[:, :, z], em_xyz[:, :, z + 1]),
    )
    return tuple(_correlation(*pair, cutout_pixel_value) for pair in pairs)


def cleft_ratio(mask_xyz: np.ndarray) -> float:
    """Voxels of the cleft / of the smaller neuron, which is larger in any chunk that is worth its place."""
    pre, cleft, post = (np.count_nonzero(mask_xyz == label) for label in arrays.LABELS)
    return float(cleft / min(pre, post)) if pre and cleft and post else np.nan


def _spread(is_wanted_z: np.ndarray) -> np.ndarray:
    """Up to `N_SECTIONS` of the wanted sections, evenly spread from the first to the last."""
    z = np.flatnonzero(is_wanted_z)
    return z[np.linspace(0, z.size - 1, min(z.size, N_SECTIONS)).astype(np.int64)]


def _correlation(first: np.ndarray, second: np.ndarray, left_out: int) -> float:
    is_imaged = (first != left_out) & (second != left_out)
    if np.count_nonzero(is_imaged) < N_LEAST:
        return np.nan
    first, second = (array[is_imaged].astype(np.float64) for array in (first, second))
    first -= first.mean()
    second -= second.mean()
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale else np.nan
