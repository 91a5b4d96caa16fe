"""Read a processed data set again and compare it with its tables."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from synprep import execution, labels, storage, volume
from synprep.errors import ChunkError
from synprep.table import VOLUME_COLUMNS


def verify_outputs(
    folder: str | Path,
    meta: pd.DataFrame,
    sections: pd.DataFrame,
    axial_to_sagittal_spacing: float,
    show_progress: bool = True,
) -> dict[str, str]:
    """Read every tensor again and compare it with the tables.

    Parameters
    ----------
    folder : str or Path
        Folder of the tensors.
    meta, sections : DataFrame
        As in `meta.csv` and `sections.csv`.
    axial_to_sagittal_spacing : float
        z spacing / xy spacing that the volumes were computed with.
    show_progress : bool
        Print a progress bar.

    Returns
    -------
    dict of str to str
        What is wrong, with the file, by synapse id; empty if all is right.
    """
    is_blanked = {key: rows["is_blanked"].to_numpy() for key, rows in sections.groupby("synapse_id")}
    check = partial(_check_row, folder=Path(folder), is_blanked=is_blanked, spacing=axial_to_sagittal_spacing)
    outcomes = execution.attempt_all(check, meta.to_dict("records"), "Verifying", show_progress)
    return {row["synapse_id"]: str(outcome) for row, outcome in outcomes if outcome}


def _check_row(
    row: Mapping, folder: Path, is_blanked: Mapping[str, np.ndarray], spacing: float
) -> ChunkError | None:
    """Compare one tensor with its rows."""
    path = folder / row["filename"]
    header = storage.read_header(path)
    shape = tuple(map(int, row["filename"].removesuffix(".npy").rsplit("__", 1)[-1].split("_")))
    if (header.shape, header.dtype, header.is_fortran) != (shape, np.dtype(np.uint8), False):
        found = f"{header.shape} {header.dtype}"
        return ChunkError("not an array of the shape and type of its name", found, path)
    tensor_cxyz = storage.read_sections(path, header)
    volumes = volume.label_volumes(volume.label_counts(tensor_cxyz[labels.MASK_CHANNEL]), spacing)
    for label, column in VOLUME_COLUMNS.items():
        if volumes[label] != row[column]:
            return ChunkError(f"{column} is not that of the table", f"{volumes[label]}, {row[column]}", path)
    is_imaged_z = tensor_cxyz[:-1].any(axis=(0, 1, 2))
    blanked_z = is_blanked.get(row["synapse_id"], np.zeros(0, bool))
    if len(blanked_z) != shape[-1] or blanked_z.sum() != row["n_cutout_sections"]:
        return ChunkError("meta.csv and sections.csv do not agree", path=path)
    wrong_z = np.flatnonzero(is_imaged_z & blanked_z)
    return ChunkError("sections are not blank", f"z = {wrong_z.tolist()}", path) if wrong_z.size else None
