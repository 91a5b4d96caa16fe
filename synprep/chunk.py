"""One chunk: from its files to a tensor and table rows, or to the intensity histogram of its sections."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from synprep import sections, storage, table, volume
from synprep.errors import ChunkError
from synprep.pairing import Pair
from synprep.params import Chunks, Preprocess


@dataclass(frozen=True)
class Processed:
    """The result for one chunk.

    Parameters
    ----------
    tensor_cxyz : (c, x, y, z) uint8 ndarray
        EM channels and, last, the mask.
    row : dict
        Row of `meta.csv`, see `synprep.table.meta_row`.
    sections : DataFrame
        Rows of `sections.csv`, see `section_rows`.
    """

    tensor_cxyz: np.ndarray
    row: dict[str, str | float | int]
    sections: pd.DataFrame


def process(pair: Pair, p: Preprocess) -> Processed:
    """Turn a raw pair into a tensor and its table rows.

    Parameters
    ----------
    pair : Pair
        EM and mask file.
    p : Preprocess
        Parameters.

    Returns
    -------
    Processed
        Tensor and rows; nothing is written.

    Raises
    ------
    ChunkError
        If one of the files cannot be used or the two do not fit together.
    """
    em_xyz, mask_xyz = load_pair(pair, p)
    rows = section_rows(pair.synapse_id, sections.intensity_histogram(em_xyz), p)
    em_xyz = volume.blank(em_xyz, rows["is_blanked"].to_numpy())
    mask_xyz = volume.standard_labels(mask_xyz, p.seg_mask_map)
    if p.cut_intensity_with_seg_masks:
        tensor_cxyz = volume.cut_channels(em_xyz, mask_xyz, p.output_channel_desc)
    else:
        tensor_cxyz = volume.intensity_and_mask(em_xyz, mask_xyz)
    volumes = volume.label_volumes(volume.label_counts(mask_xyz), p.axial_to_sagittal_spacing)
    row = table.meta_row(pair.synapse_id, tensor_cxyz.shape, volumes, rows["is_blanked"].sum())
    return Processed(tensor_cxyz, row, rows)


def load_pair(pair: Pair, p: Chunks) -> tuple[np.ndarray, np.ndarray]:
    """Load the central sections of a raw pair.

    Parameters
    ----------
    pair : Pair
        EM and mask file.
    p : Chunks
        Parameters of the crop.

    Returns
    -------
    em_xyz, mask_xyz : (x, y, z) uint8 ndarray
        EM, and mask with the label values of the input.

    Raises
    ------
    ChunkError
        If a file cannot be read, the EM is not uint8 with three axes, the mask is neither integer nor boolean
        or has values outside 0..255, or the shapes differ.
    """
    em_header, mask_header = _em_header(pair.em_path), storage.read_header(pair.mask_path)
    if mask_header.dtype.kind not in "bui":
        raise ChunkError(f"{pair.mask_path}: a mask must be integer or boolean, not {mask_header.dtype}")
    if mask_header.shape != em_header.shape:
        raise ChunkError(f"EM and mask must have equal shapes, not {em_header.shape} and {mask_header.shape}")
    kept = slice(*_bounds(em_header.shape[2], p))
    em_xyz = storage.read_array(pair.em_path, em_header)[:, :, kept]
    mask_xyz = storage.read_array(pair.mask_path, mask_header)[:, :, kept]
    return em_xyz, _as_uint8(mask_xyz, pair.mask_path)


def load_histogram(em_path: Path) -> np.ndarray:
    """Load an EM file and count the pixels of each intensity in each section.

    Parameters
    ----------
    em_path : Path
        EM file.

    Returns
    -------
    (z, 256) int64 ndarray
        See `synprep.sections.intensity_histogram`.

    Raises
    ------
    ChunkError
        If the file cannot be read or is not uint8 with three axes.
    """
    return sections.intensity_histogram(storage.read_array(em_path, _em_header(em_path)))


def depth(em_path: Path) -> int:
    """Number of sections of an EM file; only its header is read.

    Parameters
    ----------
    em_path : Path
        EM file.

    Returns
    -------
    int
        Length of the z axis.

    Raises
    ------
    ChunkError
        As `load_histogram`.
    """
    return _em_header(em_path).shape[2]


def section_rows(synapse_id: str, histogram: np.ndarray, p: Chunks) -> pd.DataFrame:
    """Describe each section of a chunk.

    Parameters
    ----------
    synapse_id : str
        Synapse id.
    histogram : (z, 256) int64 ndarray
        Pixel counts by intensity.
    p : Chunks
        Parameters of the cutout.

    Returns
    -------
    DataFrame
        Columns synapse_id, z (row of `histogram`), cutout_fraction, mean and std of the imaged pixels (NaN
        where there is none), and is_blanked: the cutout fraction is strictly greater than the threshold.
    """
    fraction_z = sections.cutout_fraction(histogram, p.cutout_pixel_value)
    mean_z, std_z = sections.mean_and_std(sections.imaged(histogram, p.cutout_pixel_value))
    return pd.DataFrame(
        {
            "synapse_id": synapse_id,
            "z": np.arange(len(histogram)),
            "cutout_fraction": fraction_z,
            "mean": mean_z,
            "std": std_z,
            "is_blanked": fraction_z > p.cutout_threshold,
        }
    ).astype(table.SECTION_COLUMNS)


def is_kept(n_sections: int, p: Chunks) -> np.ndarray:
    """Tell which sections of a chunk the crop keeps.

    Parameters
    ----------
    n_sections : int
        Number of sections of the chunk.
    p : Chunks
        Parameters of the crop.

    Returns
    -------
    (n_sections,) bool ndarray
        True for the central sections.
    """
    start, stop = _bounds(n_sections, p)
    z = np.arange(n_sections)
    return (start <= z) & (z < stop)


def _bounds(n_sections: int, p: Chunks) -> tuple[int, int]:
    return volume.crop_bounds(n_sections, p.axial_to_sagittal_spacing, p.n_sections)


def _em_header(em_path: Path) -> storage.Header:
    header = storage.read_header(em_path)
    if len(header.shape) != 3 or 0 in header.shape:
        raise ChunkError(
            f"{em_path}: EM must have three axes (x, y, z), none empty; its shape is {header.shape}"
        )
    if header.dtype != np.uint8:
        raise ChunkError(f"{em_path}: EM must be uint8, not {header.dtype}")
    return header


def _as_uint8(mask_xyz: np.ndarray, path: Path) -> np.ndarray:
    """Cast a mask after looking at its range, since a cast alone would wrap around."""
    if mask_xyz.dtype not in (np.uint8, np.bool_) and (mask_xyz.min() < 0 or mask_xyz.max() > 255):
        raise ChunkError(f"{path}: mask values must be 0 to 255, not {mask_xyz.min()} to {mask_xyz.max()}")
    return mask_xyz.astype(np.uint8, copy=False)
