"""A processed data set, or a merged one: its tables and how it was made; arrays stay on the disk."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synprep import storage
from synprep.errors import TableError
from synprep.paths import resolve
from synprep.table import META_COLUMNS, SECTION_COLUMNS


@dataclass(frozen=True)
class Dataset:
    """Tables of a data set that preprocess or merge has written.

    Parameters
    ----------
    folder : Path
        File names in `meta` start from here.
    meta : DataFrame
        As in `meta.csv`; the columns of `synprep.table.META_COLUMNS` have their types, others are text.
    sections : DataFrame
        As in `sections.csv`, see `synprep.table.SECTION_COLUMNS`.
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
        return self.parameter("voxel_size_xy_nm") * np.array(
            [1, 1, self.parameter("axial_to_sagittal_spacing")]
        )

    def parameter(self, name: str) -> Any:
        """Look up a parameter that the data set was made with.

        Parameters
        ----------
        name : str
            Such as ``"cutout_pixel_value"``.

        Returns
        -------
        object
            Its value.

        Raises
        ------
        TableError
            If it is not recorded, or the sources of a merged data set differ in it.
        """
        if name not in self.parameters:
            raise TableError(f"{self.folder / 'run.json'}: has no {name}; merged data sets must agree in it")
        return self.parameters[name]


def load(proc_data_path: str | Path) -> Dataset:
    """Read the tables of a data set.

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
        If one of the three files is missing or cannot be read, or a column is missing or holds other values
        than it should.
    """
    meta_path = Path(resolve(str(proc_data_path)))
    meta_path = meta_path / "meta.csv" if meta_path.is_dir() else meta_path
    folder = meta_path.parent
    meta = _typed(meta_path, META_COLUMNS)
    return Dataset(folder, meta, _typed(folder / "sections.csv", SECTION_COLUMNS), read_parameters(folder))


def read_parameters(folder: str | Path) -> dict[str, Any]:
    """Read the parameters that a data set was made with.

    Parameters
    ----------
    folder : str or Path
        Folder with `run.json`.

    Returns
    -------
    dict of str to object
        Value by parameter name.

    Raises
    ------
    TableError
        If there is no `run.json`, or it cannot be read.
    """
    return read_record(folder)["parameters"]


def read_record(folder: str | Path) -> dict[str, Any]:
    """Read how a data set was made.

    Parameters
    ----------
    folder : str or Path
        Folder with `run.json`.

    Returns
    -------
    dict of str to object
        What preprocess or merge has written there; parameters is a dict, and a merged data set has sources.

    Raises
    ------
    TableError
        If there is no `run.json`, or it cannot be read.
    """
    path = Path(folder, "run.json")
    try:
        record = json.loads(path.read_text("utf-8"))
        return record | {"parameters": dict(record["parameters"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a run record"
        raise TableError(f"{path}: {reason}; preprocess and merge write it beside meta.csv") from error


def is_merged(folder: str | Path) -> bool:
    """Tell whether a folder holds a merged data set.

    Parameters
    ----------
    folder : str or Path
        Any folder.

    Returns
    -------
    bool
        True if it has a `run.json` that merge has written.
    """
    try:
        return "sources" in read_record(folder)
    except TableError:
        return False


def _typed(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read a table and give its columns their types."""
    table = storage.read_table(path)
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise TableError(f"{path}: has no column {', '.join(lacking)}")
    try:
        values = {name: _numbers(table[name]) for name, dtype in columns.items() if dtype != "str"}
        return table.assign(**values).astype(dict(columns))
    except ValueError as error:
        raise TableError(f"{path}: {error}") from error


def _numbers(text: pd.Series) -> pd.Series:
    """Numbers, or true and false, as pandas writes them; nothing else."""
    return pd.to_numeric(text.replace({"True": "1", "False": "0"}))
