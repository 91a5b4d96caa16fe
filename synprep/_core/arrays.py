"""Arrays in, arrays out: crop, blanking, labels, and what is known of the intensities of each section.

Arrays have the axes (x, y, z) or (c, x, y, z); z is the section axis. Bounds are half-open. A histogram has a
row per section and a column per intensity, (z, 256) int64. Cutout pixels have the cutout pixel value; imaged
pixels are all others.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BACKGROUND, PRESYNAPTIC, CLEFT, POSTSYNAPTIC = range(4)
LABELS = {PRESYNAPTIC: "presynaptic", CLEFT: "cleft", POSTSYNAPTIC: "postsynaptic"}

# The seed notebook's names of the labels, which are the keys of the parameter `seg_mask_map`.
MASK_KEYS = {
    "MASK_PRE_SYNAPTIC_NEURON": PRESYNAPTIC,
    "MASK_SYNAPTIC_CLEFT": CLEFT,
    "MASK_POST_SYNAPTIC_NEURON": POSTSYNAPTIC,
}
MASK_CHANNEL = -1
INTENSITIES = np.arange(256, dtype=np.int64)


@dataclass(frozen=True)
class Synapse:
    """Voxels of one synapse, ready to be drawn: EM and labels 0 to 3, both (x, y, z) uint8.

    The centre is the voxel in the middle of the cleft, or of the chunk when there is no cleft; the spacing
    is the voxel size, (3,) float64; the caption has two lines that say what a person should know of it; the
    first section is that of the raw chunk, where that is known; a warning takes the place of the second line.
    """

    synapse_id: str
    em_xyz: np.ndarray
    mask_xyz: np.ndarray
    centre_xyz: tuple[int, int, int]
    spacing_xyz_nm: np.ndarray
    caption: tuple[str, ...]
    first_z: int = 0
    warning: str = ""


def spacing_xyz_nm(voxel_size_xy_nm: float, axial_to_sagittal_spacing: float) -> np.ndarray:
    """Voxel size along x, y and z in nm, (3,) float64."""
    return voxel_size_xy_nm * np.array([1, 1, axial_to_sagittal_spacing])


def crop_bounds(depth: int, axial_to_sagittal_spacing: float, n_sections: int = 0) -> tuple[int, int]:
    """Bounds of the central sections that the crop keeps; never more than there are.

    ``int(depth // spacing) + 1`` sections, so that the kept block is about as long in nm as a chunk with
    equal voxel counts is wide; or `n_sections`, unless that is 0.

    >>> crop_bounds(256, 5.0), crop_bounds(20, 5.0, n_sections=20)
    ((102, 154), (0, 20))
    """
    n_kept = min(n_sections or int(depth // axial_to_sagittal_spacing) + 1, depth)
    start = (depth - n_kept) // 2
    return start, start + n_kept


def standard_labels(seg_mask_map: Mapping[str, int]) -> np.ndarray:
    """Table that gives presynaptic, cleft and postsynaptic voxels the values 1, 2 and 3; (256,) uint8.

    Values that `seg_mask_map` does not name stay as they are, except that 1, 2 and 3, which would be mistaken
    for the three labels, become background. Where it is empty, no labels are expected and all stay.

    >>> standard_labels(dict(zip(MASK_KEYS, (10, 20, 30))))[[0, 1, 10, 20, 30, 40]]
    array([ 0,  0,  1,  2,  3, 40], dtype=uint8)
    """
    new_value = np.arange(256, dtype=np.uint8)
    if not seg_mask_map:
        return new_value
    new_value[list(LABELS)] = BACKGROUND
    for key, label in MASK_KEYS.items():
        new_value[seg_mask_map[key]] = label
    return new_value


def cut_channels(
    em_xyz: np.ndarray, mask_xyz: np.ndarray, output_channel_desc: Sequence[Iterable[int]]
) -> np.ndarray:
    """Tensor with one channel of EM per group of label values, zero outside them, and the mask last."""
    inside = [np.isin(mask_xyz, list(values)) for values in output_channel_desc]
    return np.stack([*(em_xyz * is_inside for is_inside in inside), mask_xyz])


def label_volumes(counts: np.ndarray, axial_to_sagittal_spacing: float) -> dict[int, float]:
    """Volume of labels 1, 2 and 3 in sagittal voxels: voxel count x spacing ratio."""
    return {label: float(counts[label] * axial_to_sagittal_spacing) for label in LABELS}


def label_centre(mask_xyz: np.ndarray, label: int) -> tuple[int, int, int]:
    """Median x, y and z of a label's voxels; the centre of the chunk when there is none."""
    voxels = np.nonzero(mask_xyz == label)
    if voxels[0].size == 0:
        return tuple(n // 2 for n in mask_xyz.shape)
    return tuple(int(np.sort(axis)[axis.size // 2]) for axis in voxels)


def moments(histogram: np.ndarray, cutout_pixel_value: int = 0) -> np.ndarray:
    """What `describe_sections` takes, from the histogram of each section; (4, z) int64.

    By section: number of pixels, number of cutout pixels, sum of the intensities of imaged pixels, sum of
    their squares; as `kernels.copy_and_sum` gives them.
    """
    counts = imaged(histogram, cutout_pixel_value)
    n_cutout = histogram[:, cutout_pixel_value]
    sums = [(counts * INTENSITIES**power).sum(axis=1) for power in (1, 2)]
    return np.stack([histogram.sum(axis=1), n_cutout, *sums])


def describe_sections(moments: np.ndarray, cutout_threshold: float) -> dict[str, np.ndarray]:
    """Cutout fraction, mean and std of the imaged pixels (NaN where there is none), and is_blanked.

    This is where it is decided which sections are blanked: those whose cutout fraction is strictly greater
    than the threshold.
    """
    n_pixels_z, n_cutout_z, *sums_z = moments
    fraction_z = n_cutout_z / n_pixels_z
    mean_z, std_z = mean_and_std_of_sums(n_pixels_z - n_cutout_z, *sums_z)
    is_blanked_z = fraction_z > cutout_threshold
    return {"cutout_fraction": fraction_z, "mean": mean_z, "std": std_z, "is_blanked": is_blanked_z}


def imaged(histogram: np.ndarray, cutout_pixel_value: int = 0) -> np.ndarray:
    """Copy of a histogram, (..., 256), without the cutout pixels."""
    counts = histogram.copy()
    counts[..., cutout_pixel_value] = 0
    return counts


def mean_and_std(
    histogram: np.ndarray, intensities: np.ndarray = INTENSITIES
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation from (..., 256) counts; NaN where no pixel is counted."""
    sums = [(histogram * intensities**power).sum(axis=-1) for power in (0, 1, 2)]
    return mean_and_std_of_sums(*sums)


def mean_and_std_of_sums(
    n_pixels: np.ndarray, total: np.ndarray, total_square: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation from the sums of values and of their squares."""
    n_safe = np.where(n_pixels > 0, n_pixels, 1)
    mean = total / n_safe
    std = np.sqrt(np.maximum(total_square / n_safe - mean * mean, 0.0))
    return np.where(n_pixels > 0, mean, np.nan), np.where(n_pixels > 0, std, np.nan)


def bin_edges(values: np.ndarray, reach: float = 10.0) -> np.ndarray:
    """Edges of equal bins, by the rule of D. Freedman and P. Diaconis (1981).

    Bins are as wide as twice the distance of the quartiles over the cube root of the number of values, and
    end at the outermost value, or at `reach` of these distances from the median, where values may be beyond.
    """
    if len(values) == 0:
        return np.array([-0.5, 0.5])
    low, middle, high = np.percentile(values, [25, 50, 75])
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high), 1e-9):  # most are alike
        return np.histogram_bin_edges(values, 10)
    first = max(values.min(), middle - reach * spread)
    last = min(values.max(), middle + reach * spread)
    return np.linspace(first, last, 1 + math.ceil((last - first) / (2 * spread) * np.cbrt(len(values))))
