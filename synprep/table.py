"""The tables of a data set: their columns and rows; no files.

Synapse ids are text, always: "007" is not 7, and "NA" is an id.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from synprep import labels

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
