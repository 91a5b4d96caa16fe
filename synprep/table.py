"""The metadata table: its columns, its rows, and the merge of several; no files.

Synapse ids are text, always: "007" is not 7, and "NA" is an id.
"""

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from synprep import labels
from synprep.errors import TableError, counted, listed

META_COLUMNS = {
    "synapse_id": "str",
    "filename": "str",
    "pre_synaptic_volume": "float64",
    "post_synaptic_volume": "float64",
    "synaptic_cleft_volume": "float64",
    "n_cutout_sections": "int64",
}
VOLUME_COLUMNS = {
    labels.PRESYNAPTIC: "pre_synaptic_volume",
    labels.CLEFT: "synaptic_cleft_volume",
    labels.POSTSYNAPTIC: "post_synaptic_volume",
}
SECTION_COLUMNS = {
    "synapse_id": "str",
    "z": "int64",
    "cutout_fraction": "float64",
    "mean": "float64",
    "std": "float64",
    "is_blanked": "bool",
}
PROBLEM_COLUMNS = ("synapse_id", "severity", "stage", "problem", "em_path", "mask_path")


def filename(synapse_id: str, shape_cxyz: Sequence[int]) -> str:
    """File name of a tensor.

    Parameters
    ----------
    synapse_id : str
        Synapse id.
    shape_cxyz : sequence of int
        Shape of the tensor.

    Returns
    -------
    str
        For example ``"1000379__2_256_256_52.npy"``.
    """
    return f"{synapse_id}__{'_'.join(map(str, shape_cxyz))}.npy"


def meta_row(
    synapse_id: str, shape_cxyz: Sequence[int], volumes: Mapping[int, float], n_cutout_sections: int
) -> dict[str, str | float | int]:
    """Row of `meta.csv` for one chunk.

    Parameters
    ----------
    synapse_id : str
        Synapse id.
    shape_cxyz : sequence of int
        Shape of the tensor.
    volumes : mapping of int to float
        Volume by label in the kept sections, in sagittal voxels.
    n_cutout_sections : int
        Number of kept sections that were blanked.

    Returns
    -------
    dict
        Value by column, see `META_COLUMNS`.
    """
    return {
        "synapse_id": synapse_id,
        "filename": filename(synapse_id, shape_cxyz),
        "pre_synaptic_volume": volumes[labels.PRESYNAPTIC],
        "post_synaptic_volume": volumes[labels.POSTSYNAPTIC],
        "synaptic_cleft_volume": volumes[labels.CLEFT],
        "n_cutout_sections": int(n_cutout_sections),
    }


def meta_table(rows: Iterable[Mapping[str, str | float | int]]) -> pd.DataFrame:
    """Metadata table of a data set.

    Parameters
    ----------
    rows : iterable of mapping
        See `meta_row`.

    Returns
    -------
    DataFrame
        Columns as in `META_COLUMNS`, rows sorted by synapse id as text.
    """
    rows = sorted(rows, key=lambda row: row["synapse_id"])
    return pd.DataFrame(rows, columns=list(META_COLUMNS)).astype(META_COLUMNS)


def sections_table(columns: Mapping[str, Mapping[str, Sequence]]) -> pd.DataFrame:
    """Table of the sections of a data set.

    Parameters
    ----------
    columns : mapping of str to mapping of str to sequence
        By synapse id, for each column of `SECTION_COLUMNS` from `cutout_fraction` on, a value per section.

    Returns
    -------
    DataFrame
        Columns as in `SECTION_COLUMNS`, sorted by synapse id as text, then z.
    """
    ids = sorted(columns)
    n_sections = [len(columns[synapse_id]["is_blanked"]) for synapse_id in ids]
    values = {
        "synapse_id": np.repeat(np.array(ids, dtype=object), n_sections),
        "z": np.concatenate([np.zeros(0, int), *map(np.arange, n_sections)]),
    }
    for name, dtype in list(SECTION_COLUMNS.items())[2:]:
        parts = [columns[synapse_id][name] for synapse_id in ids]
        values[name] = np.concatenate([np.zeros(0, dtype), *parts])
    return pd.DataFrame(values).astype(SECTION_COLUMNS)


def problems_table(rows: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """Table of errors and warnings.

    Parameters
    ----------
    rows : iterable of mapping
        Text by column, see `PROBLEM_COLUMNS`; severity is "error" or "warning".

    Returns
    -------
    DataFrame
        Errors first, then sorted by synapse id as text.
    """
    rows = sorted(rows, key=lambda row: (row["severity"], row["synapse_id"]))
    return pd.DataFrame(rows, columns=list(PROBLEM_COLUMNS)).astype("str")


def merge(
    tables: Sequence[tuple[str, pd.DataFrame]], on_conflict: str = "error"
) -> tuple[pd.DataFrame, list[str]]:
    """Merge tables, keyed by synapse id.

    Parameters
    ----------
    tables : sequence of (str, DataFrame)
        Path and content of each table, in the order of the merged rows. All values are text, as
        `synprep.storage.read_table` gives them.
    on_conflict : {"error", "first", "last"}
        What to do when an id has different values in two rows: raise, or keep the first or the last row.
        File names are compared without their folders.

    Returns
    -------
    merged : DataFrame
        One row per id. Columns in the order of their first appearance; a column that a table lacks is empty
        in its rows. `filename` is joined to the folder of the table that the row is from; the index is that
        table's position in `tables`.
    notes : list of str
        What a person should know: equal rows left out, conflicts settled, columns that tables lack.

    Raises
    ------
    TableError
        If a table has no column `filename`, or if ids have different values and `on_conflict` is
        ``"error"``; all are listed.
    """
    without = [path for path, table in tables if "filename" not in table]
    if without:
        raise TableError(f"no column filename in {listed(without)}")
    parts = [table.assign(**{_SOURCE: path}) for path, table in tables]
    joined = pd.concat(parts, keys=range(len(parts))).droplevel(1).fillna("")
    compared = joined.drop(columns=_SOURCE).assign(filename=joined["filename"].map(_last_part))
    ids = compared.drop_duplicates()["synapse_id"]
    conflicting = sorted(ids[ids.duplicated()].unique())
    if conflicting and on_conflict == "error":
        raise TableError(_conflicts(joined, conflicting))
    keep = "last" if on_conflict == "last" else "first"
    merged = joined[~joined["synapse_id"].duplicated(keep=keep)].copy()
    folders = merged.pop(_SOURCE).map(os.path.dirname)
    merged["filename"] = [os.path.join(*parts) for parts in zip(folders, merged["filename"], strict=True)]
    return merged, _merge_notes(tables, joined, compared, conflicting, on_conflict)


_SOURCE = "source table"


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _merge_notes(tables, joined, compared, conflicting: list[str], on_conflict: str) -> list[str]:
    n_equal = int(compared.duplicated().sum())
    equal = [f"{counted(n_equal, 'row')} that an earlier table has as well: kept once"] if n_equal else []
    settled = (
        f"different values for {counted(len(conflicting), 'synapse id')}: kept the {on_conflict} row of "
    )
    settled += listed(conflicting)
    lacking = [
        f"{path} has no column {column}: left empty in its rows"
        for path, table in tables
        for column in joined.columns.difference([*table.columns, _SOURCE], sort=False)
    ]
    return equal + ([settled] if conflicting else []) + lacking


def _conflicts(joined: pd.DataFrame, ids: Sequence[str]) -> str:
    """List the ids whose values differ, with the values."""
    rows = joined[joined["synapse_id"].isin(ids[:5])].sort_values("synapse_id", kind="stable")
    lines = [f"different values for {counted(len(ids), 'synapse id')}: {listed(ids, 50)}"]
    lines += rows.to_string(index=False).splitlines()
    lines += [f"and {len(ids) - 5} more"] if len(ids) > 5 else []
    return "\n  ".join([*lines, "set on_conflict to first or last to keep one row of each"])
