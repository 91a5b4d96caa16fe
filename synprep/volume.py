"""Pure functions on chunks: which sections to keep, label values, channels, volumes.

Arrays have the axes (x, y, z) or (c, x, y, z); z is the section axis. Bounds are half-open.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synprep import labels


@dataclass(frozen=True)
class Synapse:
    """To be drawn: EM and labels, (x, y, z) uint8; centre voxel; spacing, (3,) float64; lines of caption."""

    synapse_id: str
    em_xyz: np.ndarray
    mask_xyz: np.ndarray
    centre_xyz: tuple[int, int, int]
    spacing_xyz_nm: np.ndarray
    caption: tuple[str, ...]


def crop_bounds(depth: int, axial_to_sagittal_spacing: float, n_sections: int = 0) -> tuple[int, int]:
    """Bounds of the central sections that the crop keeps.

    Parameters
    ----------
    depth : int
        Number of sections of the chunk.
    axial_to_sagittal_spacing : float
        z spacing / xy spacing. ``int(depth // axial_to_sagittal_spacing) + 1`` sections are kept, so that
        the kept block is about as long in nm as the chunk is wide when it was cut with equal voxel counts.
    n_sections : int
        How many sections to keep instead; 0 takes the number from the spacing.

    Returns
    -------
    start, stop : int
        The kept sections are ``start <= z < stop``; never more than `depth`.

    Examples
    --------
    >>> crop_bounds(256, 5.0)
    (102, 154)
    >>> crop_bounds(20, 5.0, n_sections=20)
    (0, 20)
    """
    n_kept = min(n_sections or int(depth // axial_to_sagittal_spacing) + 1, depth)
    start = (depth - n_kept) // 2
    return start, start + n_kept


def standard_labels(seg_mask_map: Mapping[str, int]) -> np.ndarray:
    """Table that gives presynaptic, cleft and postsynaptic voxels the values 1, 2 and 3.

    Parameters
    ----------
    seg_mask_map : mapping of str to int
        Value in the input for each key of `labels.MASK_KEYS`.

    Returns
    -------
    (256,) uint8 ndarray
        Value in the output by value in the input. Values that `seg_mask_map` does not name stay as they are,
        except that 1, 2 and 3, which would be mistaken for the three labels, become background.

    Examples
    --------
    >>> keys = ("MASK_PRE_SYNAPTIC_NEURON", "MASK_SYNAPTIC_CLEFT", "MASK_POST_SYNAPTIC_NEURON")
    >>> standard_labels(dict(zip(keys, (10, 20, 30))))[[0, 1, 10, 20, 30, 40]]
    array([ 0,  0,  1,  2,  3, 40], dtype=uint8)
    """
    new_value = np.arange(256, dtype=np.uint8)
    new_value[list(labels.MASK_KEYS.values())] = labels.BACKGROUND
    for key, label in labels.MASK_KEYS.items():
        new_value[seg_mask_map[key]] = label
    return new_value


def cut_channels(
    em_xyz: np.ndarray, mask_xyz: np.ndarray, output_channel_desc: Sequence[Iterable[int]]
) -> np.ndarray:
    """Tensor with one channel of EM per group of labels, and the mask as the last channel.

    Parameters
    ----------
    em_xyz, mask_xyz : (x, y, z) uint8 ndarray
        EM and mask of the kept sections.
    output_channel_desc : sequence of iterables of int
        Label values of each channel; the EM is zero wherever the mask has none of them.

    Returns
    -------
    (len(output_channel_desc) + 1, x, y, z) uint8 ndarray
        C order.
    """
    inside = [np.isin(mask_xyz, list(values)) for values in output_channel_desc]
    return np.stack([*(em_xyz * is_inside for is_inside in inside), mask_xyz])


def label_counts(mask_xyz: np.ndarray) -> np.ndarray:
    """Number of voxels of each label value.

    Parameters
    ----------
    mask_xyz : (x, y, z) uint8 ndarray
        Mask.

    Returns
    -------
    (256,) int64 ndarray
        Voxel count by value.
    """
    return np.bincount(mask_xyz.ravel(order="K"), minlength=256).astype(np.int64, copy=False)


def label_volumes(counts: np.ndarray, axial_to_sagittal_spacing: float) -> dict[int, float]:
    """Volume of each label in sagittal voxels.

    Parameters
    ----------
    counts : (256,) int64 ndarray
        Voxel count by label value, see `label_counts`.
    axial_to_sagittal_spacing : float
        z spacing / xy spacing.

    Returns
    -------
    dict of int to float
        Voxel count x spacing ratio, that is the volume in cubes of the xy spacing, for labels 1, 2 and 3.
    """
    return {label: float(counts[label] * axial_to_sagittal_spacing) for label in labels.MASK_KEYS.values()}


def label_centre(mask_xyz: np.ndarray, label: int) -> tuple[int, int, int]:
    """Voxel in the middle of a label.

    Parameters
    ----------
    mask_xyz : (x, y, z) uint8 ndarray
        Mask.
    label : int
        Label value.

    Returns
    -------
    tuple of int
        Median x, y and z of the label's voxels; the centre of the chunk when there is none.
    """
    voxels = np.nonzero(mask_xyz == label)
    if voxels[0].size == 0:
        return tuple(n // 2 for n in mask_xyz.shape)
    return tuple(int(np.sort(axis)[axis.size // 2]) for axis in voxels)
