"""The metadata tables of several data sets become one."""

import os
from pathlib import Path

import pandas as pd

from synprep import storage, table
from synprep.errors import TableError, counted, listed
from synprep.params import Merge
from synprep.paths import shown


def run(p: Merge) -> tuple[pd.DataFrame, list[str]]:
    """Merge metadata tables into one whose file names load from its own folder; no array is copied.

    Parameters
    ----------
    p : Merge
        Parameters.

    Returns
    -------
    merged : DataFrame
        As written to `merged_meta_path`: one row per synapse id, all values as text. `filename` is relative
        to the table's folder, with ``/`` between folders.
    notes : list of str
        What a person should know, see `synprep.table.merge`.

    Raises
    ------
    TableError
        If a table cannot be read, ids have different values and `on_conflict` is ``"error"``, or a file that
        a row names does not exist.
    """
    tables = [(path, storage.read_table(path)) for path in p.meta_list]
    merged, notes = table.merge(tables, p.on_conflict)
    missing = [path for path in merged["filename"] if not os.path.isfile(path)]
    if missing:
        raise TableError(f"{counted(len(missing), 'file')} named in the tables not found: {listed(missing)}")
    folder = os.path.dirname(p.merged_meta_path)
    merged["filename"] = [_relative(path, folder) for path in merged["filename"]]
    storage.save_table(p.merged_meta_path, merged)
    for path in p.meta_list:
        notes = [note.replace(path, shown(path)) for note in notes]
    return merged, notes


def _relative(path: str, folder: str) -> str:
    """Path from a folder; absolute where there is no way, such as between two Windows drives."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return Path(path).as_posix()
