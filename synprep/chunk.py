"""One chunk: from its files to a tensor and table rows, or to the intensity histogram of its sections."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from synprep import labels, sections, storage, table, volume
from synprep.errors import ChunkError, listed
from synprep.pairing import Pair
from synprep.params import Chunks, Preprocess

# What to look at when most chunks share a warning.
HINTS = {
    "no presynaptic voxel": "seg_mask_map",
    "no cleft voxel": "seg_mask_map",
    "no postsynaptic voxel": "seg_mask_map",
    "labels outside 0 to 3": "seg_mask_map",
    "the crop removed all presynaptic voxels": "n_sections and axial_to_sagittal_spacing",
    "the crop removed all cleft voxels": "n_sections and axial_to_sagittal_spacing",
    "the crop removed all postsynaptic voxels": "n_sections and axial_to_sagittal_spacing",
    "every section is blanked": "cutout_threshold and cutout_pixel_value",
}


@dataclass(frozen=True)
class Processed:
    """The result for one chunk.

    Parameters
    ----------
    tensor_cxyz : (c, x, y, z) uint8 ndarray
        EM channels and, last, the mask. It holds until the thread processes its next chunk.
    row : dict
        Row of `meta.csv`, see `synprep.table.meta_row`.
    sections : dict of str to (z,) ndarray
        Columns of `sections.csv`, see `describe_sections`.
    warnings : list of str
        What a person should look at; each starts with a key of `HINTS`.
    """

    tensor_cxyz: np.ndarray
    row: dict[str, str | float | int]
    sections: dict[str, np.ndarray]
    warnings: list[str]


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
        Tensor, rows and warnings; nothing is written.

    Raises
    ------
    ChunkError
        If one of the files cannot be used or the two do not fit together.
    """
    header, mask_header = check_pair(pair)
    bounds = _bounds(header.shape[2], p)
    shape_cxyz = (2, *header.shape[:2], bounds[1] - bounds[0])
    tensor_cxyz = storage.thread_memory(math.prod(shape_cxyz), "tensor").reshape(shape_cxyz)
    em_xyz, mask_xyz = tensor_cxyz
    em_kept_xyz = storage.read_sections(pair.em_path, header, *bounds)
    described = describe_sections(_kernels().copy_and_sum(em_kept_xyz, p.cutout_pixel_value, em_xyz), p)
    em_xyz[:, :, described["is_blanked"]] = 0
    standard = volume.standard_labels(p.seg_mask_map)
    raw_counts = _copy_mask(pair.mask_path, mask_header, bounds, standard, mask_xyz)
    counts = np.bincount(standard, weights=raw_counts, minlength=256).astype(np.int64)
    warnings = _label_warnings(pair, counts, raw_counts, p.seg_mask_map)
    warnings += ["every section is blanked"] if described["is_blanked"].all() else []
    if p.cut_intensity_with_seg_masks:
        tensor_cxyz = volume.cut_channels(em_xyz, mask_xyz, p.output_channel_desc)
    volumes = volume.label_volumes(counts, p.axial_to_sagittal_spacing)
    row = table.meta_row(pair.synapse_id, tensor_cxyz.shape, volumes, described["is_blanked"].sum())
    return Processed(tensor_cxyz, row, described, warnings)


def expect(pair: Pair, p: Preprocess) -> None:
    """Let the operating system fetch what `process` will read, where it can; nothing is waited for.

    Parameters
    ----------
    pair : Pair
        EM and mask file; if one cannot be used, `process` will say so.
    p : Preprocess
        Parameters.
    """
    with suppress(ChunkError):
        for path, header in zip((pair.em_path, pair.mask_path), check_pair(pair), strict=True):
            storage.expect_sections(path, header, *_bounds(header.shape[2], p))


def _copy_mask(
    path: Path, header: storage.Header, bounds: tuple[int, int], table: np.ndarray, out_xyz: np.ndarray
) -> np.ndarray:
    """Copy the kept sections of a mask file with new label values; return the count of each old value."""
    mask_xyz = storage.read_sections(path, header, *bounds)
    # A cast alone would wrap around.
    if mask_xyz.dtype not in (np.uint8, np.bool_) and (mask_xyz.min() < 0 or mask_xyz.max() > 255):
        found = f"they are {mask_xyz.min()} to {mask_xyz.max()}"
        raise ChunkError("mask values must be 0 to 255", found, path)
    return _kernels().copy_and_count(mask_xyz.astype(np.uint8, copy=False), table, out_xyz)


def _kernels() -> ModuleType:
    """Compiled loops, imported when the first chunk is there: loading the compiler takes a moment."""
    from synprep import kernels

    return kernels


def _label_warnings(
    pair: Pair, counts: np.ndarray, raw_counts: np.ndarray, seg_mask_map: Mapping[str, int]
) -> list[str]:
    """Say which labels are unknown or missing; the whole mask is read only if one is missing."""
    unknown = np.flatnonzero(counts[4:]) + 4
    warnings = [f"labels outside 0 to 3 ({_found(unknown)})"] if unknown.size else []
    absent = {labels.NAMES[label]: key for key, label in labels.MASK_KEYS.items() if counts[label] == 0}
    if absent:
        found = _found(np.flatnonzero(raw_counts[1:]) + 1)
        warnings += [f"no {name} voxel ({found})" for name in absent]
        whole_xyz = storage.read_sections(pair.mask_path, storage.read_header(pair.mask_path))
        removed = [name for name, key in absent.items() if (whole_xyz == seg_mask_map[key]).any()]
        warnings += [f"the crop removed all {name} voxels" for name in removed]
    return warnings


def _found(values: np.ndarray) -> str:
    return f"labels found: {listed(values.tolist(), 10) or 'none'}"


def check_pair(pair: Pair) -> tuple[storage.Header, storage.Header]:
    """Check the headers of a raw pair; no values are read.

    Parameters
    ----------
    pair : Pair
        EM and mask file.

    Returns
    -------
    em_header, mask_header : Header
        Of both files.

    Raises
    ------
    ChunkError
        If a file cannot be read or is not whole, the EM is not uint8 with three axes, the mask is neither
        integer nor boolean, or the shapes differ.
    """
    em_header, mask_header = _em_header(pair.em_path), storage.read_header(pair.mask_path)
    if mask_header.dtype.kind not in "bui":
        raise ChunkError("mask must be integer or boolean", f"it is {mask_header.dtype}", pair.mask_path)
    if mask_header.shape != em_header.shape:
        shapes = f"EM {em_header.shape}, mask {mask_header.shape}"
        raise ChunkError("EM and mask must have equal shapes", shapes, pair.mask_path)
    return em_header, mask_header


def n_output_bytes(header: storage.Header, p: Preprocess) -> int:
    """Size of the file that a chunk becomes.

    Parameters
    ----------
    header : Header
        Of the EM file.
    p : Preprocess
        Parameters.

    Returns
    -------
    int
        Bytes.
    """
    start, stop = _bounds(header.shape[2], p)
    n_channels = len(p.output_channel_desc) + 1 if p.cut_intensity_with_seg_masks else 2
    return 128 + n_channels * header.shape[0] * header.shape[1] * (stop - start)


def load_histogram(em_path: Path) -> np.ndarray:
    """Load an EM file and count the pixels of each intensity in each section.

    Parameters
    ----------
    em_path : Path
        EM file.

    Returns
    -------
    (z, 256) int64 ndarray
        See `synprep.kernels.count`.

    Raises
    ------
    ChunkError
        If the file cannot be read or is not uint8 with three axes.
    """
    return _kernels().count(storage.read_sections(em_path, _em_header(em_path)))


def load_section(em_path: Path, z: int) -> np.ndarray:
    """Load one section of an EM file.

    Parameters
    ----------
    em_path : Path
        EM file.
    z : int
        Which section.

    Returns
    -------
    (x, y) uint8 ndarray
        A copy.

    Raises
    ------
    ChunkError
        As `load_histogram`.
    """
    return storage.read_sections(em_path, _em_header(em_path), z, z + 1)[:, :, 0].copy()


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


def describe_sections(moments: np.ndarray, p: Chunks) -> dict[str, np.ndarray]:
    """Describe each section of a chunk.

    Parameters
    ----------
    moments : (4, z) int64 ndarray
        See `synprep.sections.moments`.
    p : Chunks
        Parameters of the cutout.

    Returns
    -------
    dict of str to (z,) ndarray
        cutout_fraction, mean and std of the imaged pixels (NaN where there is none), and is_blanked: the
        cutout fraction is strictly greater than the threshold.
    """
    n_pixels_z, n_cutout_z, *sums_z = moments
    fraction_z = n_cutout_z / n_pixels_z
    mean_z, std_z = sections.mean_and_std_of_sums(n_pixels_z - n_cutout_z, *sums_z)
    is_blanked_z = fraction_z > p.cutout_threshold
    return {"cutout_fraction": fraction_z, "mean": mean_z, "std": std_z, "is_blanked": is_blanked_z}


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
    if len(header.shape) != 3 or min(header.shape) < 1:
        kind = "EM must have three axes (x, y, z), none empty"
        raise ChunkError(kind, f"its shape is {header.shape}", em_path)
    if header.dtype != np.uint8:
        raise ChunkError("EM must be uint8", f"it is {header.dtype}", em_path)
    return header
