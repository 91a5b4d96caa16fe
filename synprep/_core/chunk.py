"""One chunk, step by step: open a raw pair, keep the central sections, blank them, map the labels."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from synprep._core import arrays, files, npy, problems, record
from synprep._core.errors import ChunkError, printable
from synprep._core.npy import NpyFile
from synprep._core.paths import shown
from synprep._core.problems import Problem


@dataclass(frozen=True)
class RawPair:
    """A raw pair whose files are open and fit together: a context manager."""

    synapse_id: str
    em: NpyFile
    mask: NpyFile

    def __enter__(self) -> "RawPair":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close both files."""
        self.em.close()
        self.mask.close()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of both arrays, (x, y, z)."""
        return self.em.header.shape

    @property
    def state(self) -> list[list[int]]:
        """State of both files when they were opened, see `files.state`."""
        return [self.em.state, self.mask.state]

    def fetch(self, bounds: tuple[int, int]) -> None:
        """Let the operating system fetch sections that are read later."""
        self.em.fetch(*bounds)
        self.mask.fetch(*bounds)


@dataclass(frozen=True)
class Pair:
    """The files of one chunk; no mask where EM is surveyed without masks."""

    synapse_id: str
    em_path: Path | None
    mask_path: Path | None = None

    def open_em(self) -> NpyFile:
        """Open the EM; raises a ChunkError if it is not uint8 with three axes, or cannot be used."""
        with ExitStack() as stack:
            em = stack.enter_context(NpyFile(self.em_path))
            shape, dtype = em.header.shape, em.header.dtype
            if len(shape) != 3 or min(shape) < 1:
                kind = "EM must have three axes (x, y, z), none empty"
                raise ChunkError(kind, f"its shape is {shape}", self.em_path)
            if dtype != np.uint8:
                raise ChunkError("EM must be uint8", f"it is {dtype}", self.em_path)
            stack.pop_all()
        return em

    def open(self) -> RawPair:
        """Open both files; raises a ChunkError if one cannot be used or they do not fit together."""
        with ExitStack() as stack:
            em = stack.enter_context(self.open_em())
            mask = stack.enter_context(NpyFile(self.mask_path))
            if mask.header.dtype.kind not in "bui":
                found = f"it is {mask.header.dtype}"
                raise ChunkError("mask must be integer or boolean", found, self.mask_path)
            if mask.header.shape != em.header.shape:
                found = f"EM {em.header.shape}, mask {mask.header.shape}"
                raise ChunkError("EM and mask must have equal shapes", found, self.mask_path)
            stack.pop_all()
        return RawPair(self.synapse_id, em, mask)

    def state(self) -> list[list[int] | None]:
        """State of both files now, see `files.state`."""
        return [files.state(self.em_path), files.state(self.mask_path)]

    def locate(self, problem: Problem, stage: str) -> Problem:
        """Say of which chunk a problem is, and at which stage of the work it was found."""
        em_path, mask_path = (
            printable(shown(path)) if path else "" for path in (self.em_path, self.mask_path)
        )
        return replace(problem, synapse_id=self.synapse_id, stage=stage, em_path=em_path, mask_path=mask_path)


@dataclass(frozen=True)
class Kept:
    """The central sections of a raw pair, in C order, with the labels mapped; nothing is blanked yet."""

    tensor_cxyz: np.ndarray  # (2, x, y, z) uint8: EM and mask
    moments: np.ndarray  # of the EM, see `arrays.describe_sections`
    raw_counts: np.ndarray  # (256,) int64, voxels by label value in the file
    counts: np.ndarray  # the same by label value in the tensor


def histogram(em: NpyFile) -> np.ndarray:
    """Pixels by section and intensity, (z, 256) int64."""
    return _kernels().count(em.read(allocate=npy.reused("input")))


def keep(
    raw: RawPair,
    bounds: tuple[int, int],
    seg_mask_map: Mapping[str, int],
    cutout_pixel_value: int,
    allocate=npy.fresh,
) -> Kept:
    """Read the sections within bounds, and give the labels their standard values.

    Raises a ChunkError if a file has changed since it was opened, or a mask value does not fit uint8.
    """
    shape_cxyz = (2, *raw.shape[:2], bounds[1] - bounds[0])
    tensor_cxyz = allocate(int(np.prod(shape_cxyz))).reshape(shape_cxyz)
    em_xyz = raw.em.read(*bounds, npy.reused("input"))
    moments = _kernels().copy_and_sum(em_xyz, cutout_pixel_value, tensor_cxyz[0])
    mask_xyz, table = _read_mask(raw, bounds), arrays.standard_labels(seg_mask_map)
    raw_counts = _kernels().copy_and_count(mask_xyz, table, tensor_cxyz[1])
    counts = np.bincount(table, weights=raw_counts, minlength=256).astype(np.int64)
    return Kept(tensor_cxyz, moments, raw_counts, counts)


def _read_mask(raw: RawPair, bounds: tuple[int, int]) -> np.ndarray:
    mask_xyz = raw.mask.read(*bounds, npy.reused("input"))
    # A cast alone would wrap around.
    if mask_xyz.dtype not in (np.uint8, np.bool_) and (mask_xyz.min() < 0 or mask_xyz.max() > 255):
        found = f"they are {mask_xyz.min()} to {mask_xyz.max()}"
        raise ChunkError("mask values must be 0 to 255", found, raw.mask.path)
    return mask_xyz.astype(np.uint8, copy=False)


def label_warnings(raw: RawPair, kept: Kept, seg_mask_map: Mapping[str, int]) -> Iterator[Problem]:
    """Say which labels are unknown or missing; the whole mask is read only if one is missing."""
    unknown = np.flatnonzero(kept.counts[4:]) + 4
    if unknown.size:
        yield problems.warning("labels outside 0 to 3", unknown)
    absent = {arrays.LABELS[label]: key for key, label in arrays.MASK_KEYS.items() if kept.counts[label] == 0}
    found = np.flatnonzero(kept.raw_counts[1:]) + 1
    yield from (problems.warning(f"no {name} voxel", found) for name in absent)
    whole_xyz = raw.mask.read(allocate=npy.reused("input")) if absent else np.zeros(0)
    removed = [name for name, key in absent.items() if (whole_xyz == seg_mask_map[key]).any()]
    yield from (problems.warning(f"the crop removed all {name} voxels") for name in removed)


def process(
    raw: RawPair,
    folder: str | Path,
    key: str,
    *,
    cutout_threshold: float,
    cutout_pixel_value: int,
    axial_to_sagittal_spacing: float,
    n_sections: int,
    seg_mask_map: Mapping[str, int],
    cut_intensity_with_seg_masks: bool,
    output_channel_desc: Sequence[Sequence[int]],
) -> record.Entry:
    """Turn a raw pair into a tensor, which is written, and its table rows, which are returned.

    The keywords are the parameters that decide what a tensor and its rows hold; `key` is that of these.
    """
    bounds = arrays.crop_bounds(raw.shape[2], axial_to_sagittal_spacing, n_sections)
    kept = keep(raw, bounds, seg_mask_map, cutout_pixel_value, npy.reused("tensor"))
    sections = arrays.describe_sections(kept.moments, cutout_threshold)
    kept.tensor_cxyz[0][:, :, sections["is_blanked"]] = 0
    warnings = list(label_warnings(raw, kept, seg_mask_map))
    if sections["is_blanked"].all():
        warnings.append(problems.warning("every section is blanked"))
    tensor_cxyz = kept.tensor_cxyz
    if cut_intensity_with_seg_masks:
        tensor_cxyz = arrays.cut_channels(*tensor_cxyz, output_channel_desc)
    volumes = arrays.label_volumes(kept.counts, axial_to_sagittal_spacing)
    row = record.meta_row(raw.synapse_id, tensor_cxyz.shape, volumes, sections["is_blanked"].sum())
    path = Path(folder, row["filename"])
    files.save_array(path, tensor_cxyz)
    return record.Entry(key, raw.state, files.state(path), row, sections, warnings)


def _kernels() -> ModuleType:
    """Compiled loops, imported when the first chunk is there: loading the compiler takes a moment."""
    from synprep._core import kernels

    return kernels
