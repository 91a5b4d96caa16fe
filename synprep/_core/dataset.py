"""A data set that preprocess or merge has written, read back."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synprep._core import arrays, tables
from synprep._core.errors import TableError
from synprep._core.paths import resolve
from synprep._core.provenance import read_record
from synprep._core.tables import META_COLUMNS, SECTION_COLUMNS


@dataclass(frozen=True)
class Dataset:
    """Tables of a data set that preprocess or merge has written; the arrays stay on the disk.

    Parameters
    ----------
    folder : Path
        File names in `meta` start from here.
    meta : DataFrame
        As in `meta.csv`; the columns that preprocess writes have their types, others are text.
    sections : DataFrame
        As in `sections.csv`, sorted by synapse id and z.
    parameters : dict of str to object
        Parameters of preprocess that the data set was made with; of a merged one, those that all its sources
        have in common.
    """

    folder: Path
    meta: pd.DataFrame
    sections: pd.DataFrame
    parameters: dict[str, Any]

    @property
    def spacing_xyz_nm(self) -> np.ndarray:
        """Voxel size along x, y and z in nm, (3,) float64."""
        names = ("voxel_size_xy_nm", "axial_to_sagittal_spacing")
        return arrays.spacing_xyz_nm(*map(self.parameter, names))

    def parameter(self, name: str) -> Any:
        """Value of a parameter that the data set was made with; a TableError if it is not known."""
        if name not in self.parameters:
            raise TableError(f"{self.folder / 'run.json'}: has no {name}; merged data sets must agree in it")
        return self.parameters[name]


def load(proc_data_path: str | Path) -> Dataset:
    """Read the tables of a data set that preprocess or merge has written.

    Parameters
    ----------
    proc_data_path : str or Path
        Folder with `meta.csv`, `sections.csv` and `run.json`, or the path of its `meta.csv`; a relative path
        starts from the project's root.

    Returns
    -------
    Dataset
        Its tables and parameters.

    Raises
    ------
    TableError
        If one of the three files is missing, cannot be read or is cut off; a column is missing or holds other
        values than it should; or a synapse id is not that of its file name.
    """
    meta_path = Path(resolve(str(proc_data_path)))
    meta_path = meta_path / "meta.csv" if meta_path.is_dir() else meta_path
    folder = meta_path.parent
    if not os.path.exists(meta_path):
        raise TableError(f"{meta_path}: is missing: run preprocess with this proc_data_path first")
    meta, sections = _typed(meta_path, META_COLUMNS), _typed(folder / "sections.csv", SECTION_COLUMNS)
    tables.refuse_misfits(meta_path, meta)
    tables.refuse_cut(meta_path, meta, sections)
    sections = sections.sort_values(["synapse_id", "z"], kind="stable")
    return Dataset(folder, meta, sections, read_record(folder)["parameters"])


def _typed(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read a table and give its columns their types."""
    table = tables.read_table(path, columns)
    return tables.with_values(path, table, columns).astype(dict(columns))
