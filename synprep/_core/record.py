"""A data set on the disk: its tables, how it was made, what is done, and who is writing to it.

Synapse ids are text, always: "007" is not 7, and "NA" is an id. What lets a run resume is in the hidden
folder `.synprep` inside the output folder: one line of JSON per finished chunk, appended after the chunk's
tensor is in place, with a check sum. A later line replaces an earlier one of the same id; a line that was cut
by a kill, or damaged, is passed over, and its chunk is done again.
"""

import errno
import hashlib
import itertools
import json
import os
import platform
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd

import synprep
from synprep._core import arrays, files, problems, text_table
from synprep._core.errors import LockedError, OutputError, TableError, composed
from synprep._core.paths import is_project, resolve
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
HIDDEN = ".synprep"
_RECORD, _LOCK, _SOFT_LOCK, _OWNER = "record.jsonl", "lock", "softlock", "owner.json"
_LOCK_SECONDS = 0.2  # in which the lock of a run that died is found to be void
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_SYNC_BYTES = 1 << 17  # of the record, some fifty chunks, after which it is flushed to the disk
_PASSING = ("versions", "commit", "started", "ended")  # of run.json: they differ between equal runs
_CHECK = re.compile(rb'{"check":"([0-9a-f]{16})",')  # how a line of the record begins
_TYPES = {"int64": (int,), "float64": (float, int), "bool": (bool,)}  # of JSON, by those of columns
_RANGES = {  # of the values of columns, by how their names begin; others are not negative
    **dict.fromkeys(("centre", "start"), (-(2**62), 2**62)),
    **dict.fromkeys(("cutout", "outside"), (0, 1)),
    **dict.fromkeys(("mean", "std"), (0, 255)),
}
_MAY_LACK = ("mean", "std", "cleft_distance_nm")  # NaN, which is null in JSON
_NAME = re.compile(r"([^/\\]*)__\d+_\d+_\d+_(\d{1,9})\.npy\Z")  # of a tensor: synapse id, number of sections
_RESULT_VERSION = 1  # counted up when the same input and parameters give another result


# Tables


def filename(synapse_id: str, shape_cxyz: Sequence[int]) -> str:
    """File name of a tensor, such as ``"1000379__2_256_256_52.npy"``."""
    return f"{synapse_id}__{'_'.join(map(str, shape_cxyz))}.npy"


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
    rows = sorted(rows, key=lambda row: row["synapse_id"])
    return pd.DataFrame(rows, columns=list(META_COLUMNS)).astype(META_COLUMNS)


def sections_table(columns: Mapping[str, Mapping[str, Sequence]]) -> pd.DataFrame:
    """Table of sections, sorted by synapse id as text, then z.

    `columns` has by synapse id, for each of `SECTION_COLUMNS` from `cutout_fraction` on, a value per section.
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


def sources_table(rows: Iterable[Mapping[str, str | int | float]]) -> pd.DataFrame:
    """Table of what chunks were cut from, sorted by synapse id as text."""
    rows = sorted(rows, key=lambda row: row["synapse_id"])
    return pd.DataFrame(rows, columns=list(SOURCES_COLUMNS)).astype(SOURCES_COLUMNS)


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read a CSV file with a column `synapse_id`; every value is the text that it is in the file."""
    table = text_table.read(path)
    text_table.indices(list(table), ["synapse_id"], path)
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


def save_table(path: str | os.PathLike, table: pd.DataFrame) -> None:
    """Write a table."""
    files.save_bytes(path, table_bytes(table))


def save_tables(folder: str | os.PathLike, contents: Mapping[str, bytes]) -> tuple[list[str], bool]:
    """Write the tables of a data set that differ from the files there; say which was kept, and if any did.

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
        else:
            files.save_bytes(folder / changed_name, contents[changed_name])
    if old and not is_same:
        return [f"{name} differs from the one that was there, which is kept as {old.name}"], True
    return [], bool(changed)


def differing(folder: str | os.PathLike, contents: Mapping[str, bytes]) -> list[str]:
    """Names of the files of a folder that are missing or hold something else than they are to hold."""
    paths = {name: Path(folder, name) for name in contents}
    return [name for name, path in paths.items() if not path.is_file() or path.read_bytes() != contents[name]]


def unlisted_arrays(folder: str | os.PathLike, filenames: Iterable[str]) -> list[str]:
    """Names of npy files that a table beside them does not list, such as those of chunks that are gone."""
    names = {entry.name for entry in os.scandir(folder) if fnmatchcase(entry.name, "[!.]*.npy")}
    return sorted(names - {*filenames})


# A data set that preprocess or merge has written


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
        As in `sections.csv`.
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
    refuse_misfits(meta_path, meta)
    refuse_cut(meta_path, meta, sections)
    return Dataset(folder, meta, sections, read_record(folder)["parameters"])


def read_record(folder: str | Path) -> dict[str, Any]:
    """What preprocess or merge has written into `run.json`; a TableError if it is missing or wrong."""
    path, record = Path(folder, "run.json"), _read_record(folder)
    for name, value in (record["parameters"] | record).items():
        if not _IS_RIGHT.get(name, lambda value: True)(value):
            shown = json.dumps(value)[:80]
            raise TableError(
                f"{path}: {name} is {shown}, which cannot be: correct it, or run preprocess again"
            )
    return record


def _read_record(folder: str | Path) -> dict[str, Any]:
    path = Path(folder, "run.json")
    try:
        record = files.read_json(path)
        return record | {"parameters": dict(record["parameters"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a run record"
        raise TableError(f"{path}: {reason}; preprocess and merge write it beside meta.csv") from error


def find_record(folder: str | Path) -> dict[str, Any]:
    """As `read_record`, but empty if there is none, and as it is where a parameter is wrong."""
    try:
        return _read_record(folder)
    except TableError:
        return {}


def lasting(run_json: Mapping[str, Any]) -> dict[str, Any]:
    """What `run.json` says, as read from a file, without what differs between runs that do the same."""
    lasts = {name: value for name, value in files.plain(run_json).items() if name not in _PASSING}
    counts = lasts.get("counts")
    if isinstance(counts, dict) and _is_number(counts.get("done")) and _is_number(counts.get("skipped")):
        counts["finished"] = counts.pop("done") + counts.pop("skipped")
    return lasts


def _is_number(value: Any, low: float = 0, high: float = 2**62) -> bool:
    return type(value) in (int, float) and low <= value <= high


def _is_label(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).timestamp() > 0
    except (TypeError, ValueError, OverflowError):
        return False


# Whether what is read back from `run.json` can be right, by its name; see `params` for rules of parameters.
_IS_RIGHT: dict[str, Callable[[Any], bool]] = {
    "voxel_size_xy_nm": lambda value: _is_number(value) and value > 0,
    "axial_to_sagittal_spacing": lambda value: _is_number(value) and value > 0,
    "cutout_threshold": lambda value: _is_number(value, 0, 1),
    "cutout_pixel_value": _is_label,
    "cut_intensity_with_seg_masks": lambda value: type(value) is bool,
    "output_channel_desc": lambda value: (
        type(value) is list
        and len(value) > 0
        and all(type(one) is list and len(one) > 0 and all(map(_is_label, one)) for one in value)
    ),
    "seg_mask_map": lambda value: type(value) is dict and all(map(_is_label, value.values())),
    "volumes": lambda value: type(value) is dict,
    "ended": _is_time,
}


def _typed(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read a table and give its columns their types."""
    table = read_table(path)
    text_table.indices(list(table), columns, path)
    return with_values(path, table, columns).astype(dict(columns))


def with_values(
    path: str | os.PathLike,
    table: pd.DataFrame,
    columns: Mapping[str, str],
    may_be_empty: Collection[str] = _MAY_LACK,
) -> pd.DataFrame:
    """Table of text with the values of the columns that it has; one that cannot be is an error."""
    dtypes = {name: dtype for name, dtype in columns.items() if name in table and dtype != "str"}
    values = {}
    for name, dtype in dtypes.items():
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
    low, high = _range(text.name)
    values = pd.to_numeric(text, errors="coerce")
    is_right, what = (low <= values) & (values <= high), "a number"
    if dtype == "int64":
        is_right, what = is_right & (values % 1 == 0), "a whole number"
    ends = f" from {low} to {high}" if high < 256 else " from 0 up" if low == 0 else ""
    return values, is_right, what + ends


def refuse_misfits(path: str | os.PathLike, meta: pd.DataFrame) -> None:
    """Refuse a table of chunks, with its values, with rows that cannot be of the files that they name."""
    n_cutout = meta.get("n_cutout_sections", itertools.repeat(0))
    for synapse_id, name, n_cut in zip(meta["synapse_id"], meta["filename"], n_cutout, strict=False):
        if why := _misfit(synapse_id, name, n_cut):
            raise TableError(f"{path}: {why}")


def _misfit(synapse_id: str, name: str, n_cutout_sections: float) -> str:
    """Why a row of a table of chunks cannot be that of the file that it names; empty if it can."""
    found, shown_id = _NAME.search(name), text_table.escaped(synapse_id)
    if not synapse_id or not name:
        return f"a row has no {'filename' if synapse_id else 'synapse_id'}: {shown_id}{name}"
    if found and found[1] != synapse_id:
        return f"synapse id {shown_id!r} has the file {name!r}: was the id changed by another program?"
    if not found and synapse_id not in name and (why := text_table.changed(synapse_id)):
        return f"synapse id {shown_id!r}: {why}"
    if found and n_cutout_sections > int(found[2]):
        return f"n_cutout_sections of {shown_id} is {n_cutout_sections}, of {int(found[2])} sections"
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


# What is done


@dataclass(frozen=True)
class Entry:
    """A finished chunk."""

    key: str  # of the parameters that it was made with
    inputs: list[list[int]]  # state of EM and mask before they were read, see `files.state`
    output: list[int]  # state of the tensor
    row: dict[str, str | float | int]  # of `meta.csv`
    sections: dict[str, np.ndarray]  # columns of `sections.csv`
    warnings: list[Problem]
    source: dict[str, str | int | float] | None = None  # row of `sources.csv`, if it was cut from volumes

    @property
    def synapse_id(self) -> str:
        """Synapse id of the chunk."""
        return self.row["synapse_id"]


def key_of(content: Mapping[str, Any]) -> str:
    """Key of the parameters that decide what a tensor and its rows hold, by name in the order of declaration.

    Equal for parameters that give equal results from equal inputs: groups of channels count only where the
    EM is cut into them.
    """
    values = dict(content)
    is_cut, groups = values.pop("cut_intensity_with_seg_masks"), values.pop("output_channel_desc")
    matter = [_RESULT_VERSION, list(values.values()), groups if is_cut else None]
    return hashlib.sha256(json.dumps(matter, sort_keys=True).encode()).hexdigest()[:16]


def done_state(folder: str | os.PathLike) -> list[int] | None:
    """State of the record of finished chunks, to see whether another run has written to it."""
    return files.state(Path(folder, HIDDEN, _RECORD))


def read_done(folder: str | os.PathLike) -> dict[str, Entry]:
    """Finished chunks by synapse id, as recorded in an output folder; a damaged line is passed over."""
    return {synapse_id: entry for synapse_id, (entry, _) in _read_lines(folder).items()}


def _read_lines(folder: str | os.PathLike) -> dict[str, tuple[Entry, bytes]]:
    """Finished chunks and their lines, by synapse id."""
    found = {}
    for line in _recorded(folder).split(b"\n"):
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            entry = _entry(**_values(line))
            found[entry.synapse_id] = entry, line + b"\n"
    return found


def _recorded(folder: str | os.PathLike) -> bytes:
    path = Path(folder, HIDDEN, _RECORD)
    try:
        return files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


def _values(line: bytes) -> dict[str, Any]:
    """Values of a line whose check sum is right; version 0.1.0 wrote none."""
    if found := _CHECK.match(line):
        line = b"{" + line[found.end() :]
        _require(found[1] == _check_sum(line))
    return json.loads(line.decode())


def _check_sum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


def _require(is_right: bool) -> None:
    if not is_right:
        raise ValueError


def _entry(
    key: str,
    inputs: list,
    output: list,
    row: dict[str, Any],
    sections: dict[str, list],
    warnings: list,
    source: dict[str, Any] | None = None,
) -> Entry:
    """Finished chunk from the values of a line; an error if they cannot be those of one."""
    _require(_fits("key", key, "str") and _is_state(inputs) and _is_state(output))
    _require(len(row) == 2 or [*map(type, output)] == [int, int])
    columns = dict(list(SECTION_COLUMNS.items())[2:])
    _require(all(type(one) is list for one in (warnings, *sections.values())))
    _require(sections.keys() == columns.keys() and len({*map(len, sections.values())}) == 1)
    _require(all(_fits(name, value, columns[name]) for name in columns for value in sections[name]))
    _require(_fits_row(row, dict(list(META_COLUMNS.items())[: len(row)])) and _is_of(row, **sections))
    _require(
        source is None or (_fits_row(source, SOURCES_COLUMNS) and source["synapse_id"] == row["synapse_id"])
    )
    values = {name: np.array(sections[name], dtype) for name, dtype in columns.items()}
    return Entry(key, inputs, output, row, values, [_warning(one) for one in warnings], source)


def _fits(name: str, value: Any, dtype: str) -> bool:
    """Whether a value of a line can be one of a column: of its type, in its range, a text that is UTF-8."""
    if type(value) is str:
        return dtype == "str" and value.encode() is not None
    if value is None:
        return name in _MAY_LACK
    low, high = _range(name)
    return type(value) in _TYPES.get(dtype, ()) and low <= value <= high


def _range(name: str) -> tuple[float, float]:
    return _RANGES.get(name.split("_")[0], (0, 2**62))


def _fits_row(row: dict[str, Any], columns: Mapping[str, str]) -> bool:
    return row.keys() == columns.keys() and all(_fits(name, row[name], columns[name]) for name in columns)


def _is_state(value: list) -> bool:
    """Whether a value can be the state of files, or what a chunk is cut by: lists of numbers and texts."""
    items = [one for item in value for one in (item if type(item) is list else [item])]
    return type(value) is list and all(type(one) in (int, float, str, type(None)) for one in items)


def _is_of(row: dict[str, Any], is_blanked: Sequence[bool], **_: Sequence) -> bool:
    """Whether a row is of a chunk with these sections; extracted ones have neither sections nor volumes."""
    synapse_id, name = row["synapse_id"], row["filename"]
    if len(row) == 2:
        return name == f"{synapse_id}.npy" and not is_blanked
    shape = re.fullmatch(r"__\d+_\d+_\d+_(\d+)\.npy", name.removeprefix(synapse_id), re.ASCII)
    is_whole = bool(shape) and name.startswith(synapse_id) and int(shape[1]) == len(is_blanked)
    return is_whole and row["n_cutout_sections"] == sum(is_blanked)


def _warning(recorded: list | str) -> Problem:
    """Warning of a line of the record; version 0.1.0 wrote it as the text that is in `problems.csv`."""
    if not isinstance(recorded, str):
        kind, labels, detail = recorded
        _require(_fits("kind", kind, "str") and _fits("detail", detail, "str"))
        _require(labels is None or type(labels) is list)
        _require(all(_fits("label", label, "int64") for label in labels or ()))
        return problems.warning(kind, labels, detail)
    _require(_fits("kind", recorded, "str"))
    kind, _, found = recorded.removesuffix(")").partition(" (labels found: ")
    labels = [int(label) for label in found.split(", ") if label.isdecimal()]
    known = problems.warning(kind, labels if found else None)
    return known if known.text == recorded else problems.warning(recorded)


def append_done(folder: str | os.PathLike, entry: Entry) -> None:
    """Add a finished chunk, whose tensor is in place, to the record of a folder that this run has locked.

    Record and tensors' names are flushed to the disk once for many chunks: a chunk whose line or tensor is
    lost when the power fails is done again.
    """
    path = Path(folder, HIDDEN, _RECORD)
    try:
        with open(path, "ab") as file:
            before = file.tell()
            file.write(_line(entry))
            is_full = file.tell() // _SYNC_BYTES > before // _SYNC_BYTES
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    if is_full:
        sync_done(folder)


def sync_done(folder: str | os.PathLike) -> None:
    """Flush the names of tensors, then the record of those that are finished, to the disk."""
    path = Path(folder, HIDDEN, _RECORD)
    files.sync_folder(folder)
    try:
        with suppress(FileNotFoundError), open(path, "rb+") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    files.sync_folder(path.parent)


def tidy_done(folder: str | os.PathLike) -> None:
    """Rewrite the record without damaged or superseded lines, if it has any."""
    tidied = b"".join(line for _, line in _read_lines(folder).values())
    if tidied != _recorded(folder):
        files.save_bytes(Path(folder, HIDDEN, _RECORD), tidied)


def _line(entry: Entry) -> bytes:
    warnings = [[one.kind, one.labels_found, one.detail] for one in entry.warnings]
    values = files.plain(vars(entry) | {"warnings": warnings})
    if entry.source is None:
        del values["source"]
    line = json.dumps(values, separators=(",", ":")).encode()
    return b'{"check":"%s",%s\n' % (_check_sum(line), line[1:])


# Who is writing


@contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keep other runs out of a folder, which is made when missing; the lock of a run that died is void.

    Raises a LockedError that names the other run, or an OutputError if the folder cannot be written.
    """
    hidden = Path(folder, HIDDEN)
    try:
        hidden.mkdir(parents=True, exist_ok=True)
        lock = _lock(hidden)
        lock.acquire(timeout=_LOCK_SECONDS)
    except filelock.Timeout as error:
        raise LockedError(_busy(folder, Path(error.lock_file))) from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        (hidden / _OWNER).unlink(missing_ok=True)
        lock.release()


def _lock(hidden: Path) -> filelock.BaseFileLock:
    """Lock of a folder; where its file system has no locks, a file that is there while a run is."""
    if os.name == "nt":
        return filelock.FileLock(hidden / _LOCK)
    import fcntl

    with open(hidden / _LOCK, "ab", opener=_without_waiting) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            pass  # another run has it
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return filelock.SoftFileLock(hidden / _SOFT_LOCK)
    return filelock.FileLock(hidden / _LOCK)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, and a pipe in its place without waiting for what is at its other end."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


@contextmanager
def read_locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keep runs that write out of a folder while it is merged, where that can be done; nothing is written.

    Raises a LockedError if one is writing to it.
    """
    with ExitStack() as stack:
        try:
            import fcntl

            file = stack.enter_context(open(Path(folder, HIDDEN, _LOCK), "rb", opener=_without_waiting))
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(_busy(folder, Path(file.name))) from error
        except (OSError, ImportError):  # no run was ever here; no such locks on this file system; Windows
            pass
        if (soft := Path(folder, HIDDEN, _SOFT_LOCK)).exists():
            raise LockedError(_busy(folder, soft))
        yield


def _busy(folder: str | os.PathLike, lock_path: Path) -> str:
    advice = f", or, if it has died, delete {lock_path}" if lock_path.name == _SOFT_LOCK else ""
    return f"another run is writing to {folder}: {_owner(lock_path)}; wait until it ends{advice}"


def sign(folder: str | os.PathLike) -> None:
    """Leave word who is writing to a folder, for the message of `locked`."""
    owner = {"process": os.getpid(), "host": platform.node(), "since": now()}
    files.save_json(Path(folder, HIDDEN, _OWNER), owner)


def _owner(lock_path: Path) -> str:
    try:
        if lock_path.name == _SOFT_LOCK:
            process, host, *_ = lock_path.read_text().splitlines()
            return f"process {process} on {host}"
        owner = files.read_json(lock_path.with_name(_OWNER))
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "a run that has just started, or a merge that reads it"


# How it was made


def versions() -> dict[str, dict[str, str] | str | None]:
    """What a result was made with: versions, and the project's commit, None outside a git checkout."""
    numbers = {"python": platform.python_version(), "synprep": synprep.__version__}
    return {"versions": numbers | {"numpy": np.__version__, "pandas": pd.__version__}, "commit": _commit()}


def _commit() -> str | None:
    """Commit of the checkout that the package is in, from git's files: git itself runs what settings name."""
    root = Path(synprep.__file__).resolve().parents[1]
    git = root / ".git"
    try:
        if git.is_file():  # of a worktree
            git = root / git.read_text("utf-8").removeprefix("gitdir: ").strip()
        commit = _resolved(git, (git / "HEAD").read_text("utf-8").strip()) if is_project(root) else ""
    except (OSError, ValueError):
        return None
    return commit if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit) else None


def _resolved(git: Path, head: str) -> str:
    """What a HEAD stands for: itself, or the commit of the branch that it names; empty if it has none."""
    branch = head.removeprefix("ref: ")
    if branch == head:
        return head
    pointer, packed = git / "commondir", ""
    shared = git / pointer.read_text("utf-8").strip() if pointer.is_file() else git
    if (shared / branch).is_file():
        return (shared / branch).read_text("utf-8").strip()
    if (shared / "packed-refs").is_file():
        packed = (shared / "packed-refs").read_text("utf-8")
    return next((line[: line.index(" ")] for line in packed.splitlines() if line.endswith(f" {branch}")), "")


def now() -> str:
    """Time for a run record, such as ``"2026-11-22T08:15:00+00:00"``."""
    return datetime.now(UTC).isoformat(timespec="seconds")
