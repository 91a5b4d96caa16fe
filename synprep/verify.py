"""Read a data set again: whether it is what its tables say, and whether a model can train on it.

What a model needs follows SynapseCLR's public code and configuration, which read such data sets
(https://github.com/cellarium-ai/SynapseCLR: `synapse_augmenter.py`, `augmenter_pretrain.yaml`).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from synprep import execution, labels, planning, storage, volume
from synprep.dataset import Dataset
from synprep.errors import ChunkError, counted, listed
from synprep.table import VOLUME_COLUMNS

CROP_SIZE = 192  # `final_crop_size`: pixels along x and y that the model sees
CUTOUT_POISSON_RATE = 10.0  # `cutout_poisson_rate`: mean number of sections that are blanked at random

_SEVERITIES = ["error", "unfit", "note"]
_Row = Mapping[str, Any]  # of meta.csv
_Problem = tuple[str, str, str]  # severity, what is wrong, and what was found


def check(
    data: Dataset,
    crop_size: int = CROP_SIZE,
    cutout_poisson_rate: float = CUTOUT_POISSON_RATE,
    show_progress: bool = True,
    n_workers: int = 0,
    scheduler: str = "",
) -> pd.DataFrame:
    """Read every tensor once; find what is damaged, and what a model cannot train on.

    Damaged is a file that is missing, cut short, or not of the type and shape that it should have, and one
    that does not hold what the tables say: volumes, blanked sections. Unfit is a chunk that SynapseCLR's
    augmenter refuses, misreads or makes blank: one with other than two channels, with x unlike y, of another
    shape than most, with no more sections than are blanked at random, with labels outside 0 to 3, or without
    cleft in an imaged section of the central crop.

    Parameters
    ----------
    data : Dataset
        See `synprep.dataset.load`.
    crop_size : int
        Pixels of the central crop along x and y. Along z it is as long in nm: ``crop_size // spacing``
        sections, which is 38 where the spacing is 5. Of a smaller chunk the crop is all there is.
    cutout_poisson_rate : float
        Mean number of sections that the augmenter blanks, each with the probability rate / all sections.
    show_progress, n_workers, scheduler : bool, int, str
        See `synprep.execution.attempt_all`.

    Returns
    -------
    DataFrame
        A row per finding, sorted by severity, then synapse id. Columns, all text: synapse_id; severity: error
        (damaged), unfit, or note (nothing to mend); problem: what is wrong, after a colon what was found;
        filename.
    """
    spacing = data.parameter("axial_to_sagittal_spacing")
    examine = partial(_examine, spacing=spacing, crop_size=crop_size, rate=cutout_poisson_rate)
    work = execution.attempt_all(examine, _rows(data), "Verifying", show_progress, n_workers, scheduler)
    found, shapes = [*_of_tables(data)], []
    for row, outcome in work:
        if isinstance(outcome, ChunkError):
            found.append((row, ("error", *outcome.args[:2])))
        else:
            shapes.append((row, outcome[0]))
            found += [(row, problem) for problem in outcome[1]]
    rows = [
        (row["synapse_id"], severity, f"{kind}: {detail}" if detail else kind, row["filename"])
        for row, (severity, kind, detail) in [*found, *_of_shapes(shapes)]
    ]
    rows.sort(key=lambda row: (_SEVERITIES.index(row[1]), row[0], row[2]))
    return pd.DataFrame(rows, columns=["synapse_id", "severity", "problem", "filename"], dtype="str")


def _rows(data: Dataset) -> list[dict[str, Any]]:
    """Rows of the table, each with the path, and the sections that are said to be blanked."""
    is_blanked = {key: rows["is_blanked"].to_numpy() for key, rows in data.sections.groupby("synapse_id")}
    rows = data.meta.to_dict("records")
    for row in rows:
        row["path"] = data.folder / row["filename"]
        row["is_blanked"] = is_blanked.get(row["synapse_id"], np.zeros(0, bool))
    return rows


def _of_tables(data: Dataset) -> Iterator[tuple[_Row, _Problem]]:
    for row in data.meta[data.meta["synapse_id"].duplicated()].to_dict("records"):
        yield row, ("error", "synapse id is in the table more than once", "")
    for synapse_id in sorted({*data.sections["synapse_id"]} - {*data.meta["synapse_id"]}):
        row = {"synapse_id": synapse_id, "filename": ""}
        yield row, ("error", "in the table of sections, but not in that of chunks", "")
    for name in storage.unlisted_arrays(data.folder, data.meta["filename"]):
        row = {"synapse_id": "", "filename": name}
        yield row, ("note", "array file that the table does not list", name)


def _of_shapes(shapes: Sequence[tuple[_Row, tuple[int, ...]]]) -> Iterator[tuple[_Row, _Problem]]:
    counts = Counter(shape for _, shape in shapes)
    usual = max(counts, key=lambda shape: (counts[shape], shape), default=())
    for row, shape in shapes:
        if shape != usual:
            yield row, ("unfit", "another shape than most chunks", f"{shape}, most have {usual}")


def _examine(row: _Row, spacing: float, crop_size: int, rate: float) -> tuple[tuple, list[_Problem]]:
    """Read one tensor; return its shape, and its problems."""
    from synprep import kernels  # loading the compiler takes a moment

    header = storage.read_header(row["path"])
    _require_tensor(header, row["filename"])
    tensor_cxyz = storage.read_sections(row["path"], header)
    mask_xyz = tensor_cxyz[labels.MASK_CHANNEL]
    counts = kernels.count(mask_xyz).sum(axis=0)
    is_imaged_z = np.bitwise_or.reduce(tensor_cxyz[:-1].reshape(-1, header.shape[-1]), axis=0) > 0
    crop_xyz = (crop_size, crop_size, max(1, int(crop_size // spacing)))
    problems = [*_damage(row, volume.label_volumes(counts, spacing), is_imaged_z)]
    problems += [*_unfit(header.shape, counts, rate), *_unfit_cleft(mask_xyz, is_imaged_z, crop_xyz)]
    return header.shape, problems


def _require_tensor(header: storage.Header, filename: str) -> None:
    """Refuse what is not a tensor, or not of the shape that its name says, if it says one."""
    found = f"{header.shape} {header.dtype}{', Fortran order' if header.is_fortran else ''}"
    is_tensor = len(header.shape) == 4 and min(header.shape) > 0 and header.dtype == np.uint8
    if not is_tensor or header.is_fortran:
        raise ChunkError("not a uint8 array (c, x, y, z) in C order", found)
    named = re.search(r"__(\d+)_(\d+)_(\d+)_(\d+)\.npy$", filename)
    if named and tuple(map(int, named.groups())) != header.shape:
        raise ChunkError("not of the shape that its name says", found)


def _damage(row: _Row, volumes: Mapping[int, float], is_imaged_z: np.ndarray) -> Iterator[_Problem]:
    for label, column in VOLUME_COLUMNS.items():
        if not math.isclose(volumes[label], row[column]):
            yield "error", f"{column} is not that of the table", f"{volumes[label]}, {row[column]}"
    is_blanked_z = row["is_blanked"]
    if len(is_blanked_z) != len(is_imaged_z) or is_blanked_z.sum() != row["n_cutout_sections"]:
        yield "error", "the tables of chunks and sections do not agree", ""
    elif (is_imaged_z & is_blanked_z).any():
        yield "error", "sections are not blank", f"z = {np.flatnonzero(is_imaged_z & is_blanked_z).tolist()}"


def _unfit(shape_cxyz: tuple[int, ...], counts: np.ndarray, rate: float) -> Iterator[_Problem]:
    n_channels, n_x, n_y, n_sections = shape_cxyz
    if n_channels != 2:
        yield "unfit", "not two channels", f"{n_channels}"
    if n_x != n_y:
        yield "unfit", "x and y differ", f"{n_x}, {n_y}"
    if n_sections <= rate:
        yield "unfit", "no more sections than cutout_poisson_rate", f"{n_sections}, {rate:g}"
    if counts[4:].any():
        yield "unfit", "labels outside 0 to 3", listed(np.flatnonzero(counts[4:]) + 4, 10)


def _unfit_cleft(
    mask_xyz: np.ndarray, is_imaged_z: np.ndarray, crop_xyz: Sequence[int]
) -> Iterator[_Problem]:
    bounds = [volume.crop_bounds(n, 1, n_crop) for n, n_crop in zip(mask_xyz.shape, crop_xyz, strict=True)]
    x, y, z = (slice(*bound) for bound in bounds)
    has_cleft_z = (mask_xyz[x, y, z] == labels.CLEFT).any(axis=(0, 1))
    central = " x ".join(map(str, crop_xyz))
    if not (mask_xyz == labels.CLEFT).any():
        yield "unfit", "no cleft voxel", ""
    elif not has_cleft_z.any():
        yield "unfit", f"no cleft voxel in the central {central}", ""
    elif not (has_cleft_z & is_imaged_z[z]).any():
        yield "unfit", f"no cleft voxel in an imaged section of the central {central}", ""


def verdict(findings: pd.DataFrame, data: Dataset) -> str:
    """Say in one line whether a model can train on a data set.

    Parameters
    ----------
    findings : DataFrame
        What `check` has found; notes do not count.
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
    bad = findings[findings["severity"] != "note"]
    n_chunks = counted(len(data.meta), "chunk")
    if bad.empty:
        shape = storage.read_header(data.folder / data.meta["filename"].iloc[0]).shape
        return f"ready for training: {n_chunks} of shape {shape}"
    n_bad = data.meta["synapse_id"].isin(bad["synapse_id"]).sum()
    grouped = planning.group_problems(bad.to_dict("records"))
    kinds = "; ".join(f"{kind} ({examples})" for kind, examples in grouped["examples"].items())
    return f"not ready for training: {n_bad:,} of {n_chunks}: {kinds}"


def damaged(findings: pd.DataFrame) -> dict[str, str]:
    """Pick what is damaged; what is only unfit is left out.

    Parameters
    ----------
    findings : DataFrame
        What `check` has found.

    Returns
    -------
    dict of str to str
        File name and problems by synapse id; empty if no file is damaged.
    """
    errors = findings[findings["severity"] == "error"]
    texts = (errors["filename"] + ": " + errors["problem"]).groupby(errors["synapse_id"])
    return {synapse_id: "; ".join(group) for synapse_id, group in texts}
