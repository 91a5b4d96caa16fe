"""What is done: one line of JSON per finished chunk, in the hidden folder of an output folder.

This is what lets a run resume. A line is appended after the chunk's tensor is in place, with a check sum. A
later line replaces an earlier one of the same id; a line that was cut by a kill, or damaged, is passed over,
and its chunk is done again.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from synprep._core import files, problems, tables
from synprep._core.errors import OutputError
from synprep._core.paths import HIDDEN
from synprep._core.problems import Problem
from synprep._core.tables import META_COLUMNS, SECTION_VALUES, SOURCES_COLUMNS, Entry

_RECORD = "record.jsonl"
_SYNC_BYTES = 1 << 17  # of the record, some fifty chunks, after which it is flushed to the disk
_CHECK = re.compile(rb'{"check":"([0-9a-f]{16})",')  # how a line of the record begins
_TYPES = {"int64": (int,), "float64": (float, int), "bool": (bool,)}  # of JSON, by those of columns
_RESULT_VERSION = 1  # counted up when the same input and parameters give another result


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
    _require(_fits("key", key, "str") and type(inputs) is list)
    _require(all([*map(type, state)] == [int, int] for state in (output if len(row) == 2 else [output])))
    _require(all(type(one) is list for one in (warnings, *sections.values())))
    _require(sections.keys() == SECTION_VALUES.keys() and len({*map(len, sections.values())}) == 1)
    columns = SECTION_VALUES.items()
    _require(all(_fits(name, value, dtype) for name, dtype in columns for value in sections[name]))
    _require(_fits_row(row, dict(list(META_COLUMNS.items())[: len(row)])) and _is_of(row, **sections))
    _require(
        source is None or (_fits_row(source, SOURCES_COLUMNS) and source["synapse_id"] == row["synapse_id"])
    )
    values = {name: np.array(sections[name], dtype) for name, dtype in columns}
    return Entry(key, inputs, output, row, values, [_warning(one) for one in warnings], source)


def _fits(name: str, value: Any, dtype: str) -> bool:
    """Whether a value of a line can be one of a column: of its type, in its range, a text that is UTF-8."""
    if type(value) is str:
        return dtype == "str" and value.encode() is not None
    if value is None:
        return name in tables.MAY_LACK
    low, high = tables.value_range(name)
    return type(value) in _TYPES.get(dtype, ()) and low <= value <= high


def _fits_row(row: dict[str, Any], columns: Mapping[str, str]) -> bool:
    return row.keys() == columns.keys() and all(_fits(name, row[name], columns[name]) for name in columns)


def _is_of(row: dict[str, Any], is_blanked: Sequence[bool], **_: Sequence) -> bool:
    """Whether a row is of a chunk with these sections; extracted ones have neither sections nor volumes."""
    synapse_id, name = row["synapse_id"], row["filename"]
    if len(row) == 2:
        return name == f"{synapse_id}.npy" and not is_blanked
    said = tables.parsed_filename(name)
    if not said or name != tables.filename(synapse_id, said[1]):
        return False
    return said[1][-1] == len(is_blanked) and row["n_cutout_sections"] == sum(is_blanked)


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
    with files.writing(path), open(path, "ab") as file:
        before = file.tell()
        file.write(_line(entry))
        is_full = file.tell() // _SYNC_BYTES > before // _SYNC_BYTES
    if is_full:
        sync_done(folder)


def sync_done(folder: str | os.PathLike) -> None:
    """Flush the names of tensors, then the record of those that are finished, to the disk."""
    path = Path(folder, HIDDEN, _RECORD)
    files.sync_folder(folder)
    with files.writing(path), suppress(FileNotFoundError), open(path, "rb+") as file:
        os.fsync(file.fileno())
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
