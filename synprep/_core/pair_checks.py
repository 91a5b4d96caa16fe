"""Measured checks of a raw pair: whether its mask fits, its axes are in order, its labels are mixed up.

A warning is a reason to look at the pictures, not a proof, and nothing here finds presynaptic and
postsynaptic exchanged. The limits come from seven real pairs (serial-section TEM, 9 x 9 x 48 nm; FIB-SEM,
10 nm):

- Relative contrast: 1.07 to 1.84. With a mask that is flipped, turned, transposed, of another chunk, or away
  by 16 voxels or more at most 0.44, by 8 voxels 0.60; one that is 4 voxels away may pass. Labels drawn 1 or
  2 pixels short of the membrane have 0.80 and more; those that cover thin membranes may be warned about.
- Correlations: lowest along z whenever sections are at least twice as far apart as pixels.
- Cleft ratio: 0.01 to 0.33; 3 or more when cleft and a neuron have each other's value.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from synprep._core import arrays

N_SECTIONS = 32  # are looked at, evenly spread; all of a chunk that has fewer
N_RINGS = 3
N_LEAST = 250  # a mean or a correlation of fewer pixels is NaN
MIN_RELATIVE_CONTRAST = 0.7
COARSE_SPACING = 2.0


@dataclass(frozen=True)
class PairMeasures:
    """What is measured on a raw pair; NaN where there is too little to measure."""

    boundary_contrast: float
    relative_contrast: float
    correlation_x: float
    correlation_y: float
    correlation_z: float
    cleft_ratio: float


def measure(em_xyz: np.ndarray, mask_xyz: np.ndarray, cutout_pixel_value: int = 0) -> PairMeasures:
    """Measure a raw pair: a whole chunk, (x, y, z) uint8, with the standard label values.

    Of a deep one `N_SECTIONS` evenly spread sections are looked at. Pixels of the intensity
    `cutout_pixel_value` are left out, but what is imaged of a partly cut section counts: with the axes out of
    order a black section is a cut in every plane.
    """
    has_label_z, has_image_z = mask_xyz.any(axis=(0, 1)), (em_xyz != cutout_pixel_value).any(axis=(0, 1))
    z = _spread(has_label_z & has_image_z)
    contrasts = boundary_contrast(em_xyz[:, :, z], mask_xyz[:, :, z], cutout_pixel_value)
    correlations = neighbour_correlations(em_xyz, cutout_pixel_value)
    return PairMeasures(*contrasts, *correlations, cleft_ratio(mask_xyz))


def warnings(measures: PairMeasures, axial_to_sagittal_spacing: float) -> list[str]:
    """Say which numbers of a raw pair are not as they should be, and what that means.

    The words before the first bracket are the same for all chunks. Below a spacing of `COARSE_SPACING` the
    correlations do not tell which axis is z.
    """
    m, found = measures, []
    if m.relative_contrast < MIN_RELATIVE_CONTRAST:
        found.append(
            f"the mask may not fit its EM (boundary contrast {m.boundary_contrast:.1f} grey levels, "
            f"{m.relative_contrast:.2f} of the EM's standard deviation; where a mask fits, "
            f"{MIN_RELATIVE_CONTRAST} or more): is it of this chunk, in the same axis order, not shifted or "
            "flipped, and are membranes dark in the EM?"
        )
    lowest, axis = min((m.correlation_x, "x"), (m.correlation_y, "y"))
    if axial_to_sagittal_spacing >= COARSE_SPACING and lowest < m.correlation_z:
        found.append(
            f"the axes may be out of order (neighbouring voxels are least alike along {axis}, correlation "
            f"{lowest:.2f}, and not along z, {m.correlation_z:.2f}, although axial_to_sagittal_spacing is "
            f"{axial_to_sagittal_spacing:g}): is it (x, y, z)?"
        )
    if m.cleft_ratio > 1:
        found.append(
            f"label values may be mixed up (the cleft has {m.cleft_ratio:.1f} times the voxels of the "
            "smaller neuron): is seg_mask_map right?"
        )
    return found


def boundary_contrast(
    em_xyz: np.ndarray, mask_xyz: np.ndarray, cutout_pixel_value: int = 0, n_least: int = N_LEAST
) -> tuple[float, float]:
    """How much brighter the neurons are than their boundary: in grey levels, and / the EM's deviation.

    The boundary is membrane and so darker. It is the darkest of `N_RINGS` rings around presynaptic and
    postsynaptic pixels, each one pixel wide: background that shares an edge with a neuron, or with the ring
    before. Rings lie within a section, because with coarse sections the neighbour along z need not be
    membrane; they are several, because labels may end short of the membrane. The cleft, dark itself, is on
    neither side.
    """
    is_imaged = em_xyz != cutout_pixel_value
    is_neuron = (mask_xyz == arrays.PRESYNAPTIC) | (mask_xyz == arrays.POSTSYNAPTIC)
    rings = _rings(is_neuron, ~is_neuron & (mask_xyz != arrays.CLEFT))
    means = [_mean(em_xyz[region & is_imaged], n_least) for region in (is_neuron, *rings)]
    contrast = means[0] - np.fmin.reduce(means[1:])
    return float(contrast), float(contrast / _std(em_xyz[is_imaged]))


def neighbour_correlations(
    em_xyz: np.ndarray, cutout_pixel_value: int = 0, n_least: int = N_LEAST
) -> tuple[float, float, float]:
    """Pearson correlation of neighbouring voxels along x, y and z: least along z when sections are coarse."""
    has_image_z = (em_xyz != cutout_pixel_value).any(axis=(0, 1))
    part_xyz = em_xyz[:, :, _spread(has_image_z)]
    z = _spread(has_image_z[:-1] & has_image_z[1:])
    pairs = (
        (part_xyz[:-1], part_xyz[1:]),
        (part_xyz[:, :-1], part_xyz[:, 1:]),
        (em_xyz[:, :, z], em_xyz[:, :, z + 1]),
    )
    return tuple(_correlation(*pair, cutout_pixel_value, n_least) for pair in pairs)


def cleft_ratio(mask_xyz: np.ndarray) -> float:
    """Voxels of the cleft / of the smaller neuron, which is larger in any chunk that is worth its place."""
    pre, cleft, post = (np.count_nonzero(mask_xyz == label) for label in arrays.LABELS)
    return float(cleft / min(pre, post)) if pre and cleft and post else np.nan


def _spread(is_wanted_z: np.ndarray) -> np.ndarray:
    """Up to `N_SECTIONS` of the wanted sections, evenly spread from the first to the last."""
    z = np.flatnonzero(is_wanted_z)
    return z[np.linspace(0, z.size - 1, min(z.size, N_SECTIONS)).astype(np.int64)]


def _rings(is_inside: np.ndarray, is_outside: np.ndarray) -> Iterator[np.ndarray]:
    grown = is_inside.copy()
    for _ in range(N_RINGS):
        ring = is_outside & _touched(grown) & ~grown
        yield ring
        grown |= ring


def _touched(flags: np.ndarray) -> np.ndarray:
    """Pixels that share an edge with a flagged one of the same section."""
    touched = np.zeros_like(flags)
    touched[1:] |= flags[:-1]
    touched[:-1] |= flags[1:]
    touched[:, 1:] |= flags[:, :-1]
    touched[:, :-1] |= flags[:, 1:]
    return touched


def _mean(values: np.ndarray, n_least: int) -> float:
    return values.mean() if values.size >= max(n_least, 1) else np.nan


def _std(values: np.ndarray) -> float:
    """Standard deviation, NaN where it cannot be divided by."""
    return (values.size and values.std()) or np.nan


def _correlation(first: np.ndarray, second: np.ndarray, left_out: int, n_least: int) -> float:
    is_imaged = (first != left_out) & (second != left_out)
    if np.count_nonzero(is_imaged) < max(n_least, 1):
        return np.nan
    first, second = (array[is_imaged].astype(np.float64) for array in (first, second))
    first -= first.mean()
    second -= second.mean()
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale else np.nan
