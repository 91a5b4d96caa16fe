"""One chunk, step by step: open a raw pair, keep the central sections, blank them, map the labels."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from synprep._core import arrays, files, npy, problems, tables
from synprep._core.errors import ChunkError, listed, printable
from synprep._core.npy import NpyFile
from synprep._core.paths import shown
from synprep._core.problems import Problem

_name = attrgetter("name")


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

    def warnings(self) -> list[Problem]:
        """What is to be said of what was read: nothing, of files."""
        return []

    def sources_row(self) -> None:
        """Row of `sources.csv`: files have none."""


@dataclass(frozen=True)
class Pair:
    """The files of one chunk; no mask where EM is surveyed without masks."""

    synapse_id: str
    em_path: Path | None
    mask_path: Path | None = None

    def open_em(self) -> NpyFile:
        """Open the EM; raises a ChunkError if it is not uint8 with three axes, or cannot be used."""
        with ExitStack() as stack:
            em = stack.enter_context(_opened(self.em_path))
            shape, dtype = em.header.shape, em.header.dtype
            if len(shape) != 3 or min(shape) < 1:
                kind = "EM must have three axes (x, y, z), none empty"
                raise ChunkError(kind, f"its shape is {shape}", self.em_path)
            if dtype != np.uint8:
                raise ChunkError(
                    "EM must be uint8",
                    f"it is {dtype} (to convert: docs/troubleshooting.md)",
                    self.em_path,
                )
            stack.pop_all()
        return em

    def open(self) -> RawPair:
        """Open both files; raises a ChunkError if one cannot be used or they do not fit together."""
        with ExitStack() as stack:
            em = stack.enter_context(self.open_em())
            mask = stack.enter_context(_opened(self.mask_path))
            if mask.header.dtype.kind not in "bui":
                found = f"it is {mask.header.dtype}"
                raise ChunkError("mask must be integer or boolean", found, self.mask_path)
            if mask.header.shape != em.header.shape:
                found = f"EM {em.header.shape}, mask {mask.header.shape}"
                raise ChunkError("EM and mask must have equal shapes", found, self.mask_path)
            stack.pop_all()
        return RawPair(self.synapse_id, em, mask)

    @property
    def name(self) -> str:
        """What a person knows it by."""
        return self.em_path.name

    def state(self) -> list[list[int] | None]:
        """State of both files now, see `files.state`."""
        return [files.state(self.em_path), files.state(self.mask_path)]

    def locate(self, problem: Problem, stage: str) -> Problem:
        """Say of which chunk a problem is, and at which stage of the work it was found."""
        em_path, mask_path = (
            printable(shown(path)) if path else "" for path in (self.em_path, self.mask_path)
        )
        synapse_id = printable(self.synapse_id)
        return replace(problem, synapse_id=synapse_id, stage=stage, em_path=em_path, mask_path=mask_path)


def _opened(path: Path) -> NpyFile:
    """Open EM or mask; (x, y, z, 1), as CloudVolume saves, is (x, y, z): the bytes are the same."""
    file = NpyFile(path)
    if len(file.header.shape) == 4 and file.header.shape[3] == 1:
        file.header = replace(file.header, shape=file.header.shape[:3])
    return file


@dataclass(frozen=True)
class Pairing:
    """What was found in the input folders, or in a synapse table.

    Parameters
    ----------
    pairs : tuple of Pair
        Sorted by synapse id as text.
    em_only, mask_only : dict of str to Path
        Files whose id has no partner, by synapse id.
    claimed_twice : dict of str to list of Path
        All files of one kind that claim the same id, by synapse id; such ids are not paired.
    passed_over : tuple of Path
        Files that are neither EM nor mask.
    problems : tuple of Problem
        Pairs, or rows of a synapse table, that cannot be used.
    hidden : tuple of Path
        Files and folders whose names begin with a dot, or are those of a system's own folders; what is in
        them is not looked at.
    """

    pairs: tuple[Pair, ...]
    em_only: dict[str, Path]
    mask_only: dict[str, Path]
    claimed_twice: dict[str, list[Path]]
    passed_over: tuple[Path, ...]
    problems: tuple[Problem, ...] = ()
    hidden: tuple[Path, ...] = ()

    @property
    def n_unpaired(self) -> int:
        """Number of EM files without mask and masks without EM."""
        return len(self.em_only) + len(self.mask_only)

    def as_table(self) -> pd.DataFrame | None:
        """Counts and examples, where there are any: columns `count` and `examples` (names).

        None where all is paired, so that a notebook shows nothing.
        """
        twice = [path for paths in self.claimed_twice.values() for path in paths]
        found = {
            "paired": (len(self.pairs), [pair.name for pair in self.pairs]),
            "EM without mask": (len(self.em_only), map(_name, self.em_only.values())),
            "mask without EM": (len(self.mask_only), map(_name, self.mask_only.values())),
            "ids claimed by several files": (len(self.claimed_twice), map(_name, twice)),
            "files passed over": (len(self.passed_over), map(_name, self.passed_over)),
        }
        if self.problems:
            is_of_files = any(one.em_path for one in self.problems)
            what = "pairs" if is_of_files else "rows of the table"
            ids = (one.synapse_id or one.detail for one in self.problems)
            found[f"{what} that cannot be used"] = len(self.problems), ids
        found["hidden files and folders"] = len(self.hidden), map(_name, self.hidden)
        rows = [(what, n, listed(names, 3)) for what, (n, names) in found.items() if n]
        table = pd.DataFrame(rows, columns=["what", "count", "examples"]).set_index("what")
        return None if list(table.index) == ["paired"] else table

    def all_ids(self) -> set[str]:
        """Ids of all files, paired or not."""
        paired = {pair.synapse_id for pair in self.pairs}
        return paired | self.em_only.keys() | self.mask_only.keys() | self.claimed_twice.keys()


def sample(pairs: Sequence[Pair], n_rand_samples: int, seed: int = 0) -> list[Pair]:
    """Draw chunks at random, without replacement.

    Chunks are ordered by a SHA-256 hash of the seed and the synapse id: the same on every machine, and hardly
    changed when chunks are added.

    Parameters
    ----------
    pairs : sequence of Pair
        All chunks.
    n_rand_samples : int
        How many to draw, at most all of them.
    seed : int
        Another seed gives another order.

    Returns
    -------
    list of Pair
        In the order of the draw: a smaller sample is the start of a larger one with the same seed.
    """

    def rank(pair: Pair) -> bytes:
        return hashlib.sha256(f"{seed}:{pair.synapse_id}".encode()).digest()

    return sorted(pairs, key=rank)[:n_rand_samples]


@dataclass(frozen=True)
class Kept:
    """The central sections of a raw pair, in C order, with the labels mapped; `make` blanks them in place."""

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
    """Say which labels are unknown, missing or cut off, where any are expected; may read the whole mask."""
    if not seg_mask_map:
        return
    unknown = np.flatnonzero(kept.counts[4:]) + 4
    if unknown.size:
        yield problems.warning(problems.UNNAMED, unknown)
    absent = {arrays.LABELS[label]: key for key, label in arrays.MASK_KEYS.items() if kept.counts[label] == 0}
    found = np.flatnonzero(kept.raw_counts[1:]) + 1
    whole_xyz = raw.mask.read(allocate=npy.reused("input")) if absent else np.zeros(0)
    removed = [name for name, key in absent.items() if (whole_xyz == seg_mask_map[key]).any()]
    said = ["cleft"] if any(one.kind == problems.NO_CLEFT for one in raw.warnings()) else []
    lacking = [name for name in absent if name not in (*removed, *said)]
    yield from (problems.warning(f"no {name} voxel", found) for name in lacking)
    yield from (problems.warning(problems.REMOVED[name]) for name in removed)
    if sides := _sides(kept.tensor_cxyz[arrays.MASK_CHANNEL], arrays.CLEFT):
        kind = "the cleft touches the crop's edge, and may be cut off"
        yield problems.warning(kind, detail=", ".join(sides))


def _sides(mask_xyz: np.ndarray, label: int) -> list[str]:
    """Sides of a block that have voxels of a label, such as "first x" and "last z"."""
    ends = itertools.product(enumerate("xyz"), (("first", 0), ("last", -1)))
    return [f"{name} {x}" for (axis, x), (name, at) in ends if (mask_xyz.take(at, axis) == label).any()]


def process(raw: RawPair, folder: str | Path, key: str, **content: Any) -> tables.Entry:
    """Turn a raw pair into a tensor, which is written, and its table rows, which are returned; see `make`."""
    entry, tensor_cxyz, _ = make(raw, key, **content)
    path = Path(folder, entry.row["filename"])
    files.save_array(path, tensor_cxyz)
    return replace(entry, output=files.state(path))


def make(
    raw: RawPair,
    key: str,
    *,
    cutout_threshold: float,
    cutout_pixel_value: int,
    axial_to_sagittal_spacing: float,
    n_sections: int,
    seg_mask_map: Mapping[str, int],
    cut_intensity_with_seg_masks: bool,
    output_channel_desc: Sequence[Sequence[int]],
) -> tuple[tables.Entry, np.ndarray, Kept]:
    """Make table rows and tensor of a raw pair, and what both are made of; nothing is written.

    The keywords are the parameters that decide what a tensor and its rows hold; `key` is that of these. The
    arrays hold until this thread makes the next tensor.
    """
    bounds = arrays.crop_bounds(raw.shape[2], axial_to_sagittal_spacing, n_sections)
    kept = keep(raw, bounds, seg_mask_map, cutout_pixel_value, npy.reused("tensor"))
    sections = arrays.describe_sections(kept.moments, cutout_threshold)
    kept.tensor_cxyz[0][:, :, sections["is_blanked"]] = 0
    warnings = [*label_warnings(raw, kept, seg_mask_map), *raw.warnings()]
    if sections["is_blanked"].all():
        warnings.append(problems.warning("every section is blanked"))
    tensor_cxyz = kept.tensor_cxyz
    if cut_intensity_with_seg_masks:
        tensor_cxyz = arrays.cut_channels(*tensor_cxyz, output_channel_desc)
    volumes = arrays.label_volumes(kept.counts, axial_to_sagittal_spacing)
    row = tables.meta_row(raw.synapse_id, tensor_cxyz.shape, volumes, sections["is_blanked"].sum())
    entry = tables.Entry(key, raw.state, [], row, sections, warnings, raw.sources_row())
    return entry, tensor_cxyz, kept


def extract(raw: RawPair, folders: Sequence[str | Path], key: str) -> tables.Entry:
    """Write whole EM and mask of a pair as they are, in Fortran order, as npy files; each into its folder."""
    names = raw_names(raw.synapse_id)
    paths = [Path(folder, name) for folder, name in zip(folders, names, strict=True)]
    for path, part in zip(paths, (raw.em, raw.mask), strict=True):
        files.save_array(path, part.read(allocate=npy.reused("input")), is_fortran=True)
    empty = {name: np.zeros(0, dtype) for name, dtype in tables.SECTION_VALUES.items()}
    row = {"synapse_id": raw.synapse_id, "filename": names[0]}
    output, warnings = [*map(files.state, paths)], raw.warnings()
    return tables.Entry(key, raw.state, output, row, empty, warnings, raw.sources_row())


def raw_names(synapse_id: str) -> tuple[str, str]:
    """File names of EM and mask that are extracted."""
    return f"{synapse_id}.npy", f"{synapse_id}_mask.npy"


def _kernels() -> ModuleType:
    """Compiled loops, imported when the first chunk is there: loading the compiler takes a moment."""
    from synprep._core import kernels

    return kernels
