"""Tables of a data set: their columns and what can stand in them; made, read, judged and written.

Synapse ids are text, always: "007" is not 7, and "NA" is an id.
"""

import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synprep._core import arrays, files, text_table
from synprep._core.errors import TableError, composed, counted
from synprep._core.problems import Problem

META_COLUMNS = {
    "synapse_id": "str",
    "filename": "str",
    "pre_synaptic_volume": "float64",
    "post_synaptic_volume": "float64",
    "synaptic_cleft_volume": "float64",
    "n_cutout_sections": "int64",
}
VOLUME_COLUMNS = {
    arrays.PRESYNAPTIC: "pre_synaptic_volume",
    arrays.CLEFT: "synaptic_cleft_volume",
    arrays.POSTSYNAPTIC: "post_synaptic_volume",
}
SECTION_COLUMNS = {
    "synapse_id": "str",
    "z": "int64",
    "cutout_fraction": "float64",
    "mean": "float64",
    "std": "float64",
    "is_blanked": "bool",
}
SECTION_VALUES = dict(list(SECTION_COLUMNS.items())[2:])  # all but what says which section it is
SOURCES_COLUMNS = {
    "synapse_id": "str",
    "centre_x_nm": "float64",
    "centre_y_nm": "float64",
    "centre_z_nm": "float64",
    "start_x": "int64",
    "start_y": "int64",
    "start_z": "int64",
    "pre_id": "str",
    "post_id": "str",
    "cleft_id": "str",
    "cleft_distance_nm": "float64",
    "missing_blocks": "int64",
    "outside_fraction": "float64",
}
_RANGES = {  # of the values of columns, by how their names begin; others are not negative
    **dict.fromkeys(("centre", "start"), (-(2**62), 2**62)),
    **dict.fromkeys(("cutout", "outside"), (0, 1)),
    **dict.fromkeys(("mean", "std"), (0, 255)),
}
# What describes the same arrays beside a table of chunks: `run.json`, which says whose they are, last.
COMPANIONS = ("sections.csv", "sources.csv", "run.json")
MAY_LACK = ("mean", "std", "cleft_distance_nm")  # NaN, which is null in JSON
_NAME = re.compile(r"([^/\\]*)__(\d{1,9})_(\d{1,9})_(\d{1,9})_(\d{1,9})\.npy\Z", re.ASCII)  # of a tensor


@dataclass(frozen=True)
class Entry:
    """A finished chunk."""

    key: str  # of the parameters that it was made with
    inputs: list[list[int]]  # state of EM and mask before they were read, see `files.state`
    output: list  # state of the tensor, or those of the EM and mask that were extracted
    row: dict[str, str | float | int]  # of `meta.csv`
    sections: dict[str, np.ndarray]  # columns of `sections.csv`
    warnings: list[Problem]
    source: dict[str, str | int | float] | None = None  # row of `sources.csv`, if it was cut from volumes

    @property
    def synapse_id(self) -> str:
        """Synapse id of the chunk."""
        return self.row["synapse_id"]

    @property
    def outputs(self) -> list[list[int]]:
        """State of each file that was written."""
        return [self.output] if int in map(type, self.output) else self.output


def filename(synapse_id: str, shape_cxyz: Sequence[int]) -> str:
    """File name of a tensor, such as ``"1000379__2_256_256_52.npy"``."""
    return f"{synapse_id}__{'_'.join(map(str, shape_cxyz))}.npy"


def parsed_filename(name: str) -> tuple[str, tuple[int, ...]] | None:
    """Synapse id and shape that the file name of a tensor says, in any folder; None if it says none."""
    found = _NAME.search(name)
    return found and (found[1], tuple(map(int, found.groups()[1:])))


def meta_row(
    synapse_id: str, shape_cxyz: Sequence[int], volumes: Mapping[int, float], n_cutout_sections: int
) -> dict[str, str | float | int]:
    """Row of `meta.csv` for one chunk; volumes by label, of the kept sections, in sagittal voxels."""
    return {
        "synapse_id": synapse_id,
        "filename": filename(synapse_id, shape_cxyz),
        "pre_synaptic_volume": volumes[arrays.PRESYNAPTIC],
        "post_synaptic_volume": volumes[arrays.POSTSYNAPTIC],
        "synaptic_cleft_volume": volumes[arrays.CLEFT],
        "n_cutout_sections": int(n_cutout_sections),
    }


def meta_table(rows: Iterable[Mapping[str, str | float | int]]) -> pd.DataFrame:
    """Metadata table, sorted by synapse id as text."""
    return _sorted_by_id(rows, META_COLUMNS)


def sections_table(columns: Mapping[str, Mapping[str, Sequence]]) -> pd.DataFrame:
    """Table of sections, sorted by synapse id as text, then z.

    `columns` has by synapse id, for each of `SECTION_VALUES`, a value per section.
    """
    ids = sorted(columns)
    n_sections = [len(columns[synapse_id]["is_blanked"]) for synapse_id in ids]
    values = {
        "synapse_id": np.repeat(np.array(ids, dtype=object), n_sections),
        "z": np.concatenate([np.zeros(0, int), *map(np.arange, n_sections)]),
    }
    for name, dtype in SECTION_VALUES.items():
        parts = [columns[synapse_id][name] for synapse_id in ids]
        values[name] = np.concatenate([np.zeros(0, dtype), *parts])
    return pd.DataFrame(values).astype(SECTION_COLUMNS)


def sources_table(rows: Iterable[Mapping[str, str | int | float]]) -> pd.DataFrame:
    """Table of what chunks were cut from, sorted by synapse id as text."""
    return _sorted_by_id(rows, SOURCES_COLUMNS)


def _sorted_by_id(rows: Iterable[Mapping[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    rows = sorted(rows, key=lambda row: row["synapse_id"])
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def read_table(path: str | os.PathLike, columns: Iterable[str] = ("synapse_id",)) -> pd.DataFrame:
    """Read a CSV file that must have some columns; every value is the text that it is in the file."""
    table = text_table.read(path)
    text_table.indices(list(table), columns, path)
    return table


def read_ids(path: str | os.PathLike) -> list[str]:
    """Synapse ids that a person has listed, each once, in composed characters; changed ones are an error."""
    ids = {}
    for line, (synapse_id,) in text_table.rows(path, ["synapse_id"]):
        if why := text_table.changed(synapse_id) if synapse_id else "no synapse id":
            held = f"{text_table.escaped(synapse_id)!r}: " if synapse_id else ""
            raise TableError(f"{path}: line {line}: {held}{why}")
        ids[composed(synapse_id)] = None
    if not ids:
        raise TableError(f"{path}: lists no synapse id")
    return list(ids)


def table_bytes(table: pd.DataFrame) -> bytes:
    """Text of a table: CSV with LF line ends, without the index; what is not Unicode stands as escapes."""
    end = "\r\n\0"  # what a line end has makes a value be quoted: a carriage return must be
    text = table.to_csv(index=False, lineterminator=end)
    return text.replace(end, "\n").encode("utf-8", "backslashreplace")


def contents(by_name: Mapping[str, pd.DataFrame | None]) -> dict[str, bytes | None]:
    """Text of each table, by the name of its file; None of one that is not to be there."""
    return {name: None if table is None else table_bytes(table) for name, table in by_name.items()}


def save_table(path: str | os.PathLike, table: pd.DataFrame) -> None:
    """Write a table."""
    files.save_bytes(path, table_bytes(table))


def save_tables(folder: str | os.PathLike, contents: Mapping[str, bytes | None]) -> tuple[list[str], bool]:
    """Write the tables of a data set that differ from the files there; say which was kept, and if any did.

    A table without contents is removed: an earlier run or merge had it, and this one has not.

    Models index the table of chunks, the first of `contents`, by row: unless the new one only has more rows
    at its end, the old one is kept under a numbered name. Where none is there, this run, or one that was
    killed, has moved it before: it is the last one that was kept.
    """
    folder, changed = Path(folder), differing(folder, contents)
    name, content = next(iter(contents.items()))
    there, old = folder / name, None
    if not there.exists():
        old = files.last_aside(there)
    elif name in changed and there.is_file() and not content.startswith(there.read_bytes()):
        old = files.move_aside(there)
    is_same = old is not None and old.read_bytes() == content
    for changed_name in reversed(changed):  # the table of chunks last: when it is there, all else is
        if is_same and changed_name == name:
            files.rename(old, there)
        elif contents[changed_name] is None:
            files.remove(folder / changed_name)
        else:
            files.save_bytes(folder / changed_name, contents[changed_name])
    if old and not is_same:
        said = f"{name} differs from the one that was there, which is kept as {old.name}"
        return [said + _say_left_out(there, old)], True
    return [], bool(changed)


def _say_left_out(path: Path, old: Path) -> str:
    """Say how many chunks of an old table a new one does not list; nothing of one that cannot be read."""
    with suppress(TableError):
        ids = {*read_table(old)["synapse_id"]}
        if left_out := ids - {*read_table(path)["synapse_id"]}:
            return f": {len(left_out):,} of its {counted(len(ids), 'chunk')} are left out"
    return ""


def differing(folder: str | os.PathLike, contents: Mapping[str, bytes | None]) -> list[str]:
    """Names of the files of a folder that hold something else than they are to hold: None is no file."""
    paths = {name: Path(folder, name) for name in contents}
    there = {name: path.read_bytes() if path.is_file() else None for name, path in paths.items()}
    return [name for name in contents if there[name] != contents[name]]


def set_aside(path: str | os.PathLike) -> None:
    """Move a table of chunks aside, and remove its companions: what they describe is going to change."""
    files.move_aside(path)
    for name in COMPANIONS:
        files.remove(Path(path).with_name(name))


def unlisted_arrays(folder: str | os.PathLike, filenames: Iterable[str]) -> list[str]:
    """Names of npy files that a table beside them does not list, such as those of chunks that are gone."""
    names = {entry.name for entry in os.scandir(folder) if fnmatchcase(entry.name, "[!.]*.npy")}
    return sorted(names - {*filenames})


def with_values(
    path: str | os.PathLike,
    table: pd.DataFrame,
    columns: Mapping[str, str],
    may_be_empty: Collection[str] = MAY_LACK,
) -> pd.DataFrame:
    """Table of text with the values of the columns that it has; one that cannot be is an error."""
    values = {}
    for name, dtype in columns.items():
        if dtype == "str" or name not in table:
            continue
        values[name], is_right, what = _judged(table[name], dtype)
        is_wrong = ~is_right & (table[name] != "") if name in may_be_empty else ~is_right
        if is_wrong.any():
            row = table.loc[is_wrong.idxmax()]
            held = f"{name} of {text_table.escaped(row['synapse_id'])} is {text_table.escaped(row[name])!r}"
            raise TableError(f"{path}: {held}, not {what}: was it cut off, or changed by another program?")
    return table.assign(**values)


def _judged(text: pd.Series, dtype: str) -> tuple[pd.Series, pd.Series, str]:
    """Values of a column of text, which of them are right, and what they are to be."""
    if dtype == "bool":
        return text == "True", text.isin(["True", "False"]), "True or False"
    low, high = value_range(text.name)
    values = pd.to_numeric(text, errors="coerce")
    is_right, what = (low <= values) & (values <= high), "a number"
    if dtype == "int64":
        is_right, what = is_right & (values % 1 == 0), "a whole number"
    ends = f" from {low} to {high}" if high < 256 else " from 0 up" if low == 0 else ""
    return values, is_right, what + ends


def value_range(name: str) -> tuple[float, float]:
    return _RANGES.get(name.split("_")[0], (0, 2**62))


def refuse_misfits(path: str | os.PathLike, meta: pd.DataFrame) -> None:
    """Refuse a table of chunks, with its values, with rows that cannot be of the files that they name."""
    n_cutout = meta.get("n_cutout_sections", itertools.repeat(0))
    for synapse_id, name, n_cut in zip(meta["synapse_id"], meta["filename"], n_cutout, strict=False):
        if why := _misfit(synapse_id, name, n_cut):
            raise TableError(f"{path}: {why}")


def _misfit(synapse_id: str, name: str, n_cutout_sections: float) -> str:
    """Why a row of a table of chunks cannot be that of the file that it names; empty if it can."""
    shown_id = text_table.escaped(synapse_id)
    if not synapse_id or not name:
        return f"a row has no {'filename' if synapse_id else 'synapse_id'}: {shown_id}{name}"
    if said := parsed_filename(name):
        named_id, (*_, n_sections) = said
        if named_id != synapse_id:
            return f"synapse id {shown_id!r} has the file {name!r}: was the id changed by another program?"
        if n_cutout_sections > n_sections:
            return f"n_cutout_sections of {shown_id} is {n_cutout_sections}, of {n_sections} sections"
    elif synapse_id not in name and (why := text_table.changed(synapse_id)):
        return f"synapse id {shown_id!r}: {why}"
    return ""


def refuse_cut(path: str | os.PathLike, meta: pd.DataFrame, sections: pd.DataFrame | None) -> None:
    """Refuse a table of chunks without line end at its end, unless its last row agrees with the sections."""
    if text_table.is_ended(path):
        return
    for last in () if sections is None else meta.tail(1).to_dict("records"):
        is_blanked = sections["is_blanked"][sections["synapse_id"] == last["synapse_id"]].astype(str)
        if (is_blanked == "True").sum() == float(last["n_cutout_sections"]):
            return
    why = "there is no sections.csv of it" if sections is None else "sections.csv does not confirm it"
    raise TableError(
        f"{path}: its last line has no line end, and {why}: is the file cut off? If not, put a line end there"
    )
