"""File contents in and out: arrays, tables, JSON, pictures.

Every file appears under its final name only when it is whole: it is written under a temporary name in the
same folder, flushed to the disk, and renamed.
"""

import io
import itertools
import json
import math
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from synprep.errors import ChunkError, OutputError, TableError

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Header:
    """What the header of an npy file says.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    is_fortran : bool
        True when the first axis varies fastest in the file.
    dtype : dtype
        Type of the values.
    offset : int
        Where the values start, in bytes.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    offset: int


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the name `path` when all went well, and is removed otherwise.

    Parameters
    ----------
    path : str or PathLike
        Final name; its folder is made when missing.

    Yields
    ------
    binary file
        To write to.

    Raises
    ------
    OutputError
        If the file cannot be written: a full disk, a quota, no permission. If only the last step fails since
        another program holds the file open, the new file stays and the error gives its name.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path)
    except OSError as error:
        _remove(temporary)
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    except OutputError:
        raise
    except BaseException:
        _remove(temporary)
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}-{uuid.uuid4().hex}.tmp")


def _rename(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except PermissionError as error:
        raise OutputError(f"{path}: is in use by another program; the new file is {temporary}") from error


def _remove(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink()


def refuse_full_disk(folder: str | os.PathLike, n_bytes: int) -> None:
    """Raise an error if a disk has no room for what is to be written.

    Parameters
    ----------
    folder : str or PathLike
        Absolute path of the output folder; it may be missing.
    n_bytes : int
        How much is to be written.

    Raises
    ------
    OutputError
        If less is free.
    """
    free = shutil.disk_usage(existing(folder)).free
    if n_bytes > free:
        needed = f"the run will write {n_bytes / 1e9:.2f} GB and only {free / 1e9:.2f} GB are free"
        raise OutputError(f"{folder}: {needed}")


def clean_up(folder: str | os.PathLike) -> None:
    """Remove the temporary files that killed runs left in a folder.

    Parameters
    ----------
    folder : str or PathLike
        Folder that no other run is writing to.
    """
    for path in Path(folder).glob(".*.tmp"):
        if re.fullmatch(r"\.\d+-[0-9a-f]{32}\.tmp", path.name):
            _remove(path)


def read_header(path: str | os.PathLike) -> Header:
    """Read the header of an npy file and compare it with the file's size.

    Parameters
    ----------
    path : str or PathLike
        File in npy format, version 1 or 2.

    Returns
    -------
    Header
        What the header says; the values are all there.

    Raises
    ------
    ChunkError
        If the file cannot be opened, is not an npy file, holds Python objects, or is shorter or longer than
        its header says.
    """
    with _opened(path) as file:
        return _parse_header(file, path)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    try:
        with open(path, "rb", buffering=0) as file:
            yield file
    except FileNotFoundError as error:
        raise ChunkError("file is missing", "it was there or is a link that leads nowhere", path) from error
    except OSError as error:
        raise ChunkError("file cannot be read", error.strerror or str(error), path) from error
    except MemoryError as error:
        raise ChunkError("file does not fit into memory", path=path) from error


_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}  # by version of the format


@lru_cache
def _read_text(version: tuple[int, int], text: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read what is usually the same in all files of a data set, and therefore read once."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return read[version](io.BytesIO(text))


def _parse_header(file: IO[bytes], path: str | os.PathLike) -> Header:
    try:
        version = np.lib.format.read_magic(file)
        length = file.read(_LENGTH_BYTES[version])
        text = file.read(int.from_bytes(length, "little"))
        header = Header(*_read_text(version, length + text), file.tell())
    except (ValueError, KeyError, EOFError) as error:
        raise ChunkError("not an npy file", " ".join(str(error).split())[:200], path) from error
    if header.dtype.hasobject:
        raise ChunkError("holds Python objects, which are never loaded", path=path)
    n_bytes = os.fstat(file.fileno()).st_size - header.offset
    n_expected = math.prod(header.shape) * header.dtype.itemsize
    if n_bytes != n_expected:
        kind = "file is cut short" if n_bytes < n_expected else "file is longer than its header says"
        raise ChunkError(kind, f"{n_bytes} bytes of values instead of {n_expected}", path)
    return header


def read_sections(
    path: str | os.PathLike, header: Header, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Read sections of an npy file whose last axis is z.

    Of a Fortran-ordered file only the bytes of these sections are read. A C-ordered file is read as a whole,
    into memory that each thread uses again: the array holds until the thread reads its next file.

    Parameters
    ----------
    path : str or PathLike
        File in npy format.
    header : Header
        Of this file, see `read_header`.
    start, stop : int
        Sections ``start <= z < stop``; by default all.

    Returns
    -------
    (..., z) ndarray
        Type and memory order are those of the header.

    Raises
    ------
    ChunkError
        If the file cannot be read, or has changed since its header was read.
    """
    stop = header.shape[-1] if stop is None else stop
    first, n_bytes = _byte_range(header, start, stop)
    with _opened(path) as file:
        if _parse_header(file, path) != header:
            raise ChunkError("file changed while it was used", path=path)
        file.seek(first)
        values = thread_memory(n_bytes, "input")
        if _fill(file, values) != n_bytes:
            raise ChunkError("file was cut short while it was read", path=path)
    if header.is_fortran:
        return values.view(header.dtype).reshape((*header.shape[:-1], stop - start), order="F")
    return values.view(header.dtype).reshape(header.shape)[..., start:stop]


def expect_sections(path: str | os.PathLike, header: Header, start: int, stop: int) -> None:
    """Let the operating system fetch sections that are read next, where it can; nothing is waited for.

    Parameters
    ----------
    path : str or PathLike
        File in npy format; if it cannot be opened, reading it will say so.
    header : Header
        Of this file.
    start, stop : int
        As for `read_sections`.
    """
    if not hasattr(os, "posix_fadvise"):  # Windows and macOS
        return
    first, n_bytes = _byte_range(header, start, stop)
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), first, n_bytes, os.POSIX_FADV_WILLNEED)


def _byte_range(header: Header, start: int, stop: int) -> tuple[int, int]:
    """Where the bytes begin that must be read for some sections, and how many they are."""
    *plane, n_z = header.shape
    first, last = (start, stop) if header.is_fortran else (0, n_z)
    section_bytes = math.prod(plane) * header.dtype.itemsize
    return header.offset + first * section_bytes, (last - first) * section_bytes


_thread = threading.local()


def thread_memory(n_bytes: int, use: str) -> np.ndarray:
    """Memory of this thread, the same at each call: fresh pages would cost as much as reading into them.

    Parameters
    ----------
    n_bytes : int
        How much.
    use : str
        Memory for one use is not that for another.

    Returns
    -------
    (n_bytes,) uint8 ndarray
        With anything in it; it holds until the thread calls again for the same use.
    """
    if getattr(_thread, use, np.empty(0)).nbytes < n_bytes:
        setattr(_thread, use, np.empty(n_bytes, np.uint8))
    return getattr(_thread, use)[:n_bytes]


def _fill(file: IO[bytes], values: np.ndarray) -> int:
    """Read until the array is full or the file ends; return the number of bytes."""
    view, n_read = memoryview(values), 0
    while n_read < len(view) and (n_more := file.readinto(view[n_read:])):
        n_read += n_more
    return n_read


def save_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write an array in npy format, in C order.

    Parameters
    ----------
    path : str or PathLike
        File to write or replace.
    array : ndarray
        Any array without Python objects.
    """
    array = np.ascontiguousarray(array)
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)  # np.save would hide why a disk refuses


def copy_file(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Copy a file, with its modification time.

    Parameters
    ----------
    source : str or PathLike
        File to copy.
    path : str or PathLike
        File to write or replace.

    Raises
    ------
    ChunkError
        If the source cannot be read.
    OutputError
        If the copy cannot be written.
    """
    with _opened(source) as file:
        status = os.fstat(file.fileno())
    with replacing(path) as file:
        for block in _blocks(source):
            file.write(block)
    with suppress(OSError):  # the time only saves comparing bytes later
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _blocks(path: str | os.PathLike) -> Iterator[bytes]:
    with _opened(path) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def link_file(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Make a hard link, first under a temporary name.

    Parameters
    ----------
    source : str or PathLike
        File that gets a second name; of a symbolic link, the file that it leads to.
    path : str or PathLike
        The name; a file that has it is replaced.

    Raises
    ------
    OutputError
        If the file system has no hard links, or the link would have to lead to another one.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        os.link(os.path.realpath(source), temporary)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"{path}: cannot be a hard link to {source}: {reason}; set link_mode to copy"
        ) from error
    finally:
        _remove(temporary)  # renaming does nothing where both names are of one file already


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table of chunks with every value as the text that it is in the file.

    Parameters
    ----------
    path : str or PathLike
        CSV file with a column `synapse_id`.

    Returns
    -------
    DataFrame
        All columns are text; nothing is taken for a number or a missing value.

    Raises
    ------
    TableError
        If the file cannot be read or has no column `synapse_id`.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read as a table: {error}") from error
    if "synapse_id" not in table:
        raise TableError(f"{path}: has no column synapse_id; its columns are {', '.join(table.columns)}")
    return table


def save_table(path: str | os.PathLike, table: pd.DataFrame) -> None:
    """Write a table as CSV, see `table_bytes`.

    Parameters
    ----------
    path : str or PathLike
        File to write or replace.
    table : DataFrame
        Any table.
    """
    save_bytes(path, table_bytes(table))


def table_bytes(table: pd.DataFrame) -> bytes:
    """Text of a table.

    Parameters
    ----------
    table : DataFrame
        Any table.

    Returns
    -------
    bytes
        CSV with LF line ends, without the index.
    """
    return table.to_csv(index=False, lineterminator="\n").encode()


def save_tables(
    folder: str | os.PathLike, contents: Mapping[str, bytes], old: Path | None = None
) -> tuple[list[str], bool]:
    """Write the tables of a data set that differ from the files there.

    Models index the table of chunks by row: unless the new one only has more rows at its end, the old one is
    kept under a numbered name.

    Parameters
    ----------
    folder : str or PathLike
        Folder of the data set.
    contents : mapping of str to bytes
        Text of each table by file name, see `table_bytes`; the table of chunks first.
    old : Path, optional
        Where the old table of chunks went, if it was moved aside before.

    Returns
    -------
    notes : list of str
        Which table was kept, if one was.
    is_changed : bool
        False if every file was as it is to be.
    """
    folder, changed = Path(folder), differing(folder, contents)
    name, content = next(iter(contents.items()))
    if name in changed and (folder / name).exists() and not content.startswith((folder / name).read_bytes()):
        old = move_aside(folder / name)
    for changed_name in reversed(changed):  # the table of chunks last: when it is there, all else is
        save_bytes(folder / changed_name, contents[changed_name])
    if old and old.read_bytes() == content:
        remove(old)
    elif old:
        return [f"{name} differs from the one that was there, which is kept as {old.name}"], True
    return [], bool(changed)


def differing(folder: str | os.PathLike, contents: Mapping[str, bytes]) -> list[str]:
    """Tell which files of a folder are missing or hold something else.

    Parameters
    ----------
    folder : str or PathLike
        Folder.
    contents : mapping of str to bytes
        What each file is to hold, by name.

    Returns
    -------
    list of str
        Their names, in the order of `contents`.
    """
    paths = {name: Path(folder, name) for name in contents}
    return [name for name, path in paths.items() if not path.exists() or path.read_bytes() != contents[name]]


def unlisted_arrays(folder: str | os.PathLike, filenames: Iterable[str]) -> list[str]:
    """Find array files that a table does not list, such as those of chunks that are gone.

    Parameters
    ----------
    folder : str or PathLike
        Folder of the table.
    filenames : iterable of str
        What the table lists.

    Returns
    -------
    list of str
        Names of the other npy files in the folder, sorted.
    """
    return sorted({entry.name for entry in os.scandir(folder) if entry.name.endswith(".npy")} - {*filenames})


def save_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file.

    Parameters
    ----------
    path : str or PathLike
        File to write or replace.
    content : bytes
        What it is to hold.
    """
    with replacing(path) as file:
        file.write(content)


def save_json(path: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Write a flat record as JSON.

    Parameters
    ----------
    path : str or PathLike
        File to write or replace; its folder is made when missing.
    record : mapping
        Numbers, text and lists or NumPy arrays of them. NaN becomes null.
    """
    with replacing(path) as file:
        file.write((json.dumps(plain(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


def plain(value: Any) -> Any:
    """Turn a value into one that JSON can hold.

    Parameters
    ----------
    value : object
        Mapping, list, tuple, NumPy array or scalar, or a plain value.

    Returns
    -------
    object
        Python's own types; NaN and infinity, which JSON lacks, become None.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def move_aside(path: str | os.PathLike) -> Path | None:
    """Give a file a numbered name, so that a new one can take its own.

    Parameters
    ----------
    path : str or PathLike
        For example ``meta.csv``, which becomes ``meta.1.csv`` or the next number that is free.

    Returns
    -------
    Path or None
        The numbered name; None if there was no file.

    Raises
    ------
    OutputError
        If the file cannot be renamed, since another program holds it open or the folder cannot be written.
    """
    path = Path(path)
    if not path.exists():
        return None
    numbered = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(1))
    aside = next(candidate for candidate in numbered if not candidate.exists())
    with _reporting(path):
        os.replace(path, aside)
    return aside


def remove(path: str | os.PathLike) -> None:
    """Remove a file, if it is there.

    Parameters
    ----------
    path : str or PathLike
        File.

    Raises
    ------
    OutputError
        If it cannot be removed, since another program holds it open or the folder cannot be written.
    """
    with _reporting(path):
        Path(path).unlink(missing_ok=True)


@contextmanager
def _reporting(path: str | os.PathLike) -> Iterator[None]:
    """Say which file cannot be renamed or removed."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be renamed or removed: {error.strerror or error}") from error


def existing(folder: str | os.PathLike) -> Path:
    """Folder itself, or the nearest one above it that exists.

    Parameters
    ----------
    folder : str or PathLike
        Absolute path.

    Returns
    -------
    Path
        A folder on the file system where `folder` is or will be.
    """
    return next(path for path in (Path(folder), *Path(folder).parents) if path.is_dir())


def ignores_case(folder: str | os.PathLike) -> bool:
    """Find out whether two names in a folder that differ only in case are one file.

    Parameters
    ----------
    folder : str or PathLike
        Folder to try it in.

    Returns
    -------
    bool
        True on most Windows and macOS file systems.
    """
    with tempfile.NamedTemporaryFile(prefix=".case-a", suffix=".tmp", dir=folder) as file:
        name = os.path.basename(file.name)
        return os.path.exists(os.path.join(folder, name.replace("case-a", "CASE-A")))
