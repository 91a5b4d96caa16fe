"""Read a data set again: whether it is what its tables say, and whether a model can train on it.

What a model needs follows SynapseCLR's public code and configuration, which read such data sets
(https://github.com/cellarium-ai/SynapseCLR: `synapse_augmenter.py`, `augmenter_pretrain.yaml`).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from synprep._core import arrays, execution, npy, problems, tables
from synprep._core.dataset import Dataset
from synprep._core.errors import ChunkError, counted, listed
from synprep._core.npy import NpyFile
from synprep._core.problems import Problem

CROP_SIZE = 192  # `final_crop_size`: pixels along x and y that the model sees
CUTOUT_POISSON_RATE = 10.0  # `cutout_poisson_rate`: mean number of sections that are blanked at random

_Row = Mapping[str, Any]  # of meta.csv
_unfit = partial(Problem, severity="unfit")


def check(
    data: Dataset,
    crop_size: int = CROP_SIZE,
    cutout_poisson_rate: float = CUTOUT_POISSON_RATE,
    show_progress: bool = True,
    n_workers: int = 0,
    scheduler: str = "",
) -> list[Problem]:
    """Read every tensor once; find what is damaged, and what a model cannot train on.

    Damaged is a file that is missing, cut short, or not of the type and shape that it should have, and one
    that does not hold what the tables say: volumes, blanked sections. Unfit is a chunk that SynapseCLR's
    augmenter refuses, misreads or makes blank: one with other than two channels, with x unlike y, of another
    shape than most, with no more sections than are blanked at random, with labels outside 0 to 3, or without
    cleft in an imaged section of the central crop. A chunk without presynaptic or postsynaptic voxels
    gets a warning: a model can train on it.

    Parameters
    ----------
    data : Dataset
        See `load`.
    crop_size : int
        Pixels of the central crop along x and y. Along z it is as long in nm: ``crop_size // spacing``
        sections, which is 38 where the spacing is 5. Of a smaller chunk the crop is all there is.
    cutout_poisson_rate : float
        Mean number of sections that the augmenter blanks, each with the probability rate / all sections.
    show_progress : bool
        Print a progress bar.
    n_workers, scheduler : int, str
        Threads (0: one per core), or the address of a Dask scheduler.

    Returns
    -------
    list of Problem
        Severity error is damaged, note is nothing to mend; sorted by severity, then synapse id.
    """
    spacing = data.parameter("axial_to_sagittal_spacing")
    work = partial(examine, spacing=spacing, crop_size=crop_size, rate=cutout_poisson_rate)
    findings, _ = read(data, work, "Verifying", show_progress, n_workers, scheduler)
    return findings


def read(
    data: Dataset, work: Callable[[_Row], Any], what: str, show_progress: bool, n_workers: int, scheduler: str
) -> tuple[list[Problem], dict[str, Any]]:
    """Read every tensor once, with `examine`.

    Returns findings, see `check`; and what was measured, or the ChunkError that says why not, by synapse id.
    """
    found, shapes, measured = [*_of_tables(data)], {}, {}
    outcomes = execution.attempt_all(work, _rows(data), what, show_progress, n_workers, scheduler)
    for row, outcome in outcomes:
        synapse_id = row["synapse_id"]
        if isinstance(outcome, ChunkError):
            found.append(Problem(kind=outcome.kind, detail=outcome.detail, synapse_id=synapse_id))
            measured[synapse_id] = outcome
        else:
            shapes[synapse_id], of_chunk, measured[synapse_id] = outcome
            found += [replace(problem, synapse_id=synapse_id) for problem in of_chunk]
    found += _of_shapes(shapes)
    found.sort(key=lambda one: (problems.SEVERITIES.index(one.severity), one.synapse_id, one.text))
    return found, measured


def _rows(data: Dataset) -> list[dict[str, Any]]:
    """Rows of the table, each with the path, and the sections that are said to be blanked."""
    is_blanked = {key: rows["is_blanked"].to_numpy() for key, rows in data.sections.groupby("synapse_id")}
    rows = data.meta.to_dict("records")
    for row in rows:
        row["path"] = data.folder / row["filename"]
        row["is_blanked"] = is_blanked.get(row["synapse_id"], np.zeros(0, bool))
    return rows


def _of_tables(data: Dataset) -> Iterator[Problem]:
    ids = data.meta["synapse_id"]
    for synapse_id in ids[ids.duplicated()]:
        yield Problem(kind="synapse id is in the table more than once", synapse_id=synapse_id)
    for synapse_id in sorted({*data.sections["synapse_id"]} - {*ids}):
        yield Problem(kind="in the table of sections, but not in that of chunks", synapse_id=synapse_id)
    for name in tables.unlisted_arrays(data.folder, data.meta["filename"]):
        yield Problem(kind="array file that the table does not list", file=name, severity="note")


def _of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Problem]:
    counts = Counter(shapes.values())
    usual = max(counts, key=lambda shape: (counts[shape], shape), default=())
    for synapse_id, shape in shapes.items():
        if shape != usual:
            found = f"{shape}, most have {usual}"
            yield _unfit(kind="another shape than most chunks", detail=found, synapse_id=synapse_id)


def examine(
    row: _Row,
    spacing: float,
    crop_size: int = CROP_SIZE,
    rate: float = CUTOUT_POISSON_RATE,
    measure: Callable[[_Row, np.ndarray], Any] | None = None,
) -> tuple[tuple[int, ...], list[Problem], Any]:
    """Read one tensor; return its shape, its problems, and what is measured of it."""
    from synprep._core import kernels  # loading the compiler takes a moment

    with NpyFile(row["path"]) as file:
        _require_tensor(file.header, row)
        tensor_cxyz = file.read(allocate=npy.reused("input"))
    shape, mask_xyz = tensor_cxyz.shape, tensor_cxyz[arrays.MASK_CHANNEL]
    counts = kernels.count(mask_xyz).sum(axis=0)
    is_imaged_z = np.bitwise_or.reduce(tensor_cxyz[:-1].reshape(-1, shape[-1]), axis=0) > 0
    crop_xyz = (crop_size, crop_size, max(1, int(crop_size // spacing)))
    found = [*_damage(row, arrays.label_volumes(counts, spacing), is_imaged_z)]
    found += [*_unfit_chunk(shape, counts, rate), *_unfit_cleft(mask_xyz, is_imaged_z, crop_xyz)]
    return shape, found, measure(row, tensor_cxyz) if measure else None


def _require_tensor(header: npy.Header, row: _Row) -> None:
    """Refuse what is not a tensor, or not of the shape that its name says, if it says one."""
    found = f"{header.shape} {header.dtype}{', Fortran order' if header.is_fortran else ''}"
    is_tensor = len(header.shape) == 4 and min(header.shape) > 0 and header.dtype == np.uint8
    if not is_tensor or header.is_fortran:
        raise ChunkError("not a uint8 array (c, x, y, z) in C order", found, row["path"])
    said = tables.parsed_filename(row["filename"])
    if said and said[1] != header.shape:
        raise ChunkError("not of the shape that its name says", found, row["path"])


def _damage(row: _Row, volumes: Mapping[int, float], is_imaged_z: np.ndarray) -> Iterator[Problem]:
    for label, column in tables.VOLUME_COLUMNS.items():
        if not math.isclose(volumes[label], row[column]):
            found = f"{volumes[label]}, {row[column]}"
            yield Problem(kind=f"{column} is not that of the table", detail=found)
    is_blanked_z = row["is_blanked"]
    if len(is_blanked_z) != len(is_imaged_z) or is_blanked_z.sum() != row["n_cutout_sections"]:
        yield Problem(kind="the tables of chunks and sections do not agree")
    elif (is_imaged_z & is_blanked_z).any():
        z = np.flatnonzero(is_imaged_z & is_blanked_z).tolist()
        yield Problem(kind="sections are not blank", detail=f"z = {z}")


def _unfit_chunk(shape_cxyz: tuple[int, ...], counts: np.ndarray, rate: float) -> Iterator[Problem]:
    n_channels, n_x, n_y, n_sections = shape_cxyz
    if n_channels != 2:
        yield _unfit(kind="not two channels", detail=f"{n_channels}")
    if n_x != n_y:
        yield _unfit(kind="x and y differ", detail=f"{n_x}, {n_y}")
    if n_sections <= rate:
        yield _unfit(kind="no more sections than cutout_poisson_rate", detail=f"{n_sections}, {rate:g}")
    for label in (arrays.PRESYNAPTIC, arrays.POSTSYNAPTIC):
        if not counts[label]:
            yield Problem(kind=f"no {arrays.LABELS[label]} voxel", severity="warning", stage="result")
    if counts[4:].any():
        yield _unfit(kind="labels outside 0 to 3", detail=listed(np.flatnonzero(counts[4:]) + 4, 10))


def _unfit_cleft(mask_xyz: np.ndarray, is_imaged_z: np.ndarray, crop_xyz: Sequence[int]) -> Iterator[Problem]:
    bounds = [arrays.crop_bounds(n, 1, n_crop) for n, n_crop in zip(mask_xyz.shape, crop_xyz, strict=True)]
    x, y, z = (slice(*bound) for bound in bounds)
    has_cleft_z = (mask_xyz[x, y, z] == arrays.CLEFT).any(axis=(0, 1))
    central = " x ".join(map(str, crop_xyz))
    if not (mask_xyz == arrays.CLEFT).any():
        yield _unfit(kind="no cleft voxel")
    elif not has_cleft_z.any():
        yield _unfit(kind=f"no cleft voxel in the central {central}")
    elif not (has_cleft_z & is_imaged_z[z]).any():
        yield _unfit(kind=f"no cleft voxel in an imaged section of the central {central}")


def verdict(findings: Sequence[Problem], data: Dataset) -> str:
    """Say in one line whether a model can train on a data set.

    Parameters
    ----------
    findings : sequence of Problem
        What `check` has found; warnings are told where there is nothing worse, notes are not.
    data : Dataset
        The data set that was checked.

    Returns
    -------
    str
        Such as ``"ready for training: 12 chunks of shape (2, 256, 256, 52)"``, or ``"not ready for training:
        1 of 12 chunks: no cleft voxel (1000379)"``.
    """
    if data.meta.empty:
        return "not ready for training: the table lists no chunk"
    bad = [one for one in findings if one.severity not in ("warning", "note")]
    told = bad or [one for one in findings if one.severity == "warning"]
    n_chunks = counted(len(data.meta), "chunk")
    n_told = data.meta["synapse_id"].isin([one.synapse_id for one in told]).sum()
    examples = problems.grouped(told)["examples"].items() if told else ()
    kinds = "; ".join(f"{kind} ({ids})" for kind, ids in examples)
    if bad:
        return f"not ready for training: {n_told:,} of {n_chunks}: {kinds}"
    shape = npy.read_header(data.folder / data.meta["filename"].iloc[0]).shape
    return f"ready for training: {n_chunks} of shape {shape}" + (f"; {n_told:,} with {kinds}" if told else "")


def damaged(findings: Sequence[Problem], data: Dataset) -> dict[str, str]:
    """File name and what is damaged by synapse id; what is only unfit is left out."""
    filenames = dict(zip(data.meta["synapse_id"], data.meta["filename"], strict=True))
    texts = {}
    for one in (one for one in findings if one.severity == "error"):
        texts.setdefault(one.synapse_id, []).append(one.text)
    return {key: f"{filenames.get(key, '')}: {'; '.join(texts[key])}" for key in texts}
