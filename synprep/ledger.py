"""What runs have done in an output folder: the record that lets a run resume, and the lock.

Both live in the hidden folder `.synprep` inside the output folder. The record has one line of JSON per
finished chunk, appended after the chunk's tensor is in place; a later line replaces an earlier one of the
same id, and a line that was cut by a kill is ignored.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import filelock
import numpy as np
import pandas as pd

import synprep
from synprep import params, storage
from synprep.errors import LockedError, OutputError
from synprep.pairing import Pair
from synprep.params import Preprocess
from synprep.paths import project_root
from synprep.table import SECTION_COLUMNS

HIDDEN = ".synprep"
_RECORD, _LOCK, _OWNER = "record.jsonl", "lock", "owner.json"

# Counted up when the same input and parameters give another result.
_RESULT_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A finished chunk.

    Parameters
    ----------
    key : str
        Of the parameters that it was made with, see `key_of`.
    inputs : list of list of int
        Size and modification time (ns) of EM and mask before they were read.
    output : list of int
        Size and modification time (ns) of the tensor.
    row : dict
        Row of `meta.csv`.
    sections : dict of str to (z,) ndarray
        Columns of `sections.csv`.
    warnings : list of str
        What a person should look at.
    """

    key: str
    inputs: list[list[int]]
    output: list[int]
    row: dict[str, str | float | int]
    sections: dict[str, np.ndarray]
    warnings: list[str]

    @property
    def synapse_id(self) -> str:
        """Synapse id of the chunk."""
        return self.row["synapse_id"]


def key_of(content: Mapping[str, object]) -> str:
    """Key of the parameters that decide what a tensor and its rows hold, see `synprep.params.content`.

    Parameters
    ----------
    content : mapping of str to object
        Values by name, in the order of declaration.

    Returns
    -------
    str
        Equal for parameters that give equal results from equal inputs.
    """
    values = dict(content)
    is_cut, groups = values.pop("cut_intensity_with_seg_masks"), values.pop("output_channel_desc")
    matter = [_RESULT_VERSION, [*values.values()], groups if is_cut else None]
    return hashlib.sha256(json.dumps(matter, sort_keys=True).encode()).hexdigest()[:16]


def file_state(path: str | os.PathLike) -> list[int] | None:
    """Size and modification time of a file.

    Parameters
    ----------
    path : str or PathLike
        File.

    Returns
    -------
    list of int or None
        Bytes and nanoseconds; None if there is no such file.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def record_state(folder: str | os.PathLike) -> list[int] | None:
    """State of the record of a folder, to see whether another run has written to it.

    Parameters
    ----------
    folder : str or PathLike
        Output folder.

    Returns
    -------
    list of int or None
        `file_state` of the record.
    """
    return file_state(Path(folder, HIDDEN, _RECORD))


def input_state(pair: Pair) -> list[list[int] | None]:
    """State of the files of a pair.

    Parameters
    ----------
    pair : Pair
        EM and mask file.

    Returns
    -------
    list
        `file_state` of both.
    """
    return [file_state(pair.em_path), file_state(pair.mask_path)]


def is_current(entry: Entry, pair: Pair, p: Preprocess) -> bool:
    """Tell whether a finished chunk needs not be done again.

    Parameters
    ----------
    entry : Entry
        Record of the chunk.
    pair : Pair
        Its files now.
    p : Preprocess
        Parameters now.

    Returns
    -------
    bool
        True if parameters, inputs and output are those of the record.
    """
    key = key_of(params.content(p))
    output = file_state(Path(p.proc_data_path, entry.row["filename"]))
    return entry.key == key and entry.inputs == input_state(pair) and entry.output == output


def read(folder: str | os.PathLike) -> dict[str, Entry]:
    """Read the record of a folder.

    Parameters
    ----------
    folder : str or PathLike
        Output folder.

    Returns
    -------
    dict of str to Entry
        Latest entry by synapse id; empty without a record.
    """
    path = Path(folder, HIDDEN, _RECORD)
    lines = path.read_bytes().splitlines() if path.is_file() else []
    entries = {}
    for line in lines:
        try:
            values = json.loads(line)
            values["sections"] = {key: _array(key, column) for key, column in values["sections"].items()}
            entry = Entry(**values)
        except (ValueError, TypeError, KeyError):
            continue
        entries[entry.synapse_id] = entry
    return entries


def append(folder: str | os.PathLike, entry: Entry) -> None:
    """Add a finished chunk to the record.

    Parameters
    ----------
    folder : str or PathLike
        Output folder, locked by this run.
    entry : Entry
        The chunk; its tensor is in place.

    Raises
    ------
    OutputError
        If the record cannot be written.
    """
    path = Path(folder, HIDDEN, _RECORD)
    try:
        with open(path, "ab") as file:
            file.write(_line(entry))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def tidy(folder: str | os.PathLike) -> None:
    """Rewrite the record without cut or superseded lines, if it has any.

    Parameters
    ----------
    folder : str or PathLike
        Output folder, locked by this run.
    """
    path, entries = Path(folder, HIDDEN, _RECORD), read(folder)
    tidied = b"".join(_line(entry) for entry in entries.values())
    if path.is_file() and len(tidied) != path.stat().st_size:
        with storage.replacing(path) as file:
            file.write(tidied)


def _array(name: str, column: list) -> np.ndarray:
    return np.array(column, dtype=SECTION_COLUMNS[name])


def _line(entry: Entry) -> bytes:
    return json.dumps(storage.plain(vars(entry)), separators=(",", ":")).encode() + b"\n"


@contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keep other runs out of a folder; the lock of a run that died does not count.

    Parameters
    ----------
    folder : str or PathLike
        Output folder; made when missing.

    Raises
    ------
    LockedError
        If another run has the lock; the message names it.
    OutputError
        If the folder cannot be written.
    """
    hidden = Path(folder, HIDDEN)
    try:
        hidden.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(hidden / _LOCK)
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise LockedError(
            f"another run is writing to {folder}: {_owner(hidden)}; wait until it ends"
        ) from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        (hidden / _OWNER).unlink(missing_ok=True)
        lock.release()


def sign(folder: str | os.PathLike) -> None:
    """Leave word who is writing to a folder, for the message of `locked`.

    Parameters
    ----------
    folder : str or PathLike
        Output folder, locked by this run.
    """
    storage.save_json(
        Path(folder, HIDDEN, _OWNER), {"process": os.getpid(), "host": platform.node(), "since": now()}
    )


def _owner(hidden: Path) -> str:
    try:
        owner = json.loads((hidden / _OWNER).read_text())
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "a run that has just started"


def fingerprint(pairs: Sequence[Pair], p: Preprocess) -> str:
    """Fingerprint of an input list: which files, of which size, make which chunk.

    Parameters
    ----------
    pairs : sequence of Pair
        Chunks, sorted by synapse id.
    p : Preprocess
        Parameters, for the folders that the paths start from.

    Returns
    -------
    str
        SHA-256 over id, relative path and size of each file; the same where a data set was copied to.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        for path, folder in ((pair.em_path, p.raw_em_data_path), (pair.mask_path, p.raw_mask_data_path)):
            size = (file_state(path) or [None])[0]
            relative = Path(path).relative_to(folder).as_posix()
            digest.update(f"{pair.synapse_id}\t{relative}\t{size}\n".encode())
    return digest.hexdigest()


def versions() -> dict[str, dict[str, str] | str | None]:
    """What a result was made with, for its run record.

    Returns
    -------
    dict
        versions: of Python, synprep, NumPy and pandas; commit: of the project, None outside a git checkout.
    """
    numbers = {"python": platform.python_version(), "synprep": synprep.__version__}
    return {"versions": numbers | {"numpy": np.__version__, "pandas": pd.__version__}, "commit": _commit()}


def _commit() -> str | None:
    command = ["git", "-C", str(project_root()), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def now() -> str:
    """Time for a run record.

    Returns
    -------
    str
        Such as ``"2026-11-22T08:15:00+00:00"``.
    """
    return datetime.now(UTC).isoformat(timespec="seconds")
