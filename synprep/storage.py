"""File contents in and out: arrays, tables, JSON, pictures.

Every file appears under its final name only when it is whole: it is written under a temporary name in the
same folder, flushed to the disk, and renamed.
"""

import itertools
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synprep.errors import ChunkError, TableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    OSError
        If the file cannot be written or renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        If the file cannot be opened, is not an npy file, holds Python objects or is too short or too long.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            header = Header(*read[version](file), file.tell())
            n_bytes = os.fstat(file.fileno()).st_size - header.offset
    except OSError as error:
        raise ChunkError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError) as error:
        raise ChunkError(f"{path}: is not an npy file that NumPy can read ({error})") from error
    if header.dtype.hasobject:
        raise ChunkError(f"{path}: holds Python objects, which are never loaded")
    n_expected = math.prod(header.shape) * header.dtype.itemsize
    if n_bytes != n_expected:
        raise ChunkError(f"{path}: holds {n_bytes} bytes of values, its header says {n_expected}")
    return header


def read_array(path: str | os.PathLike, header: Header) -> np.ndarray:
    """Read the values of an npy file.

    Parameters
    ----------
    path : str or PathLike
        File in npy format.
    header : Header
        Of this file, see `read_header`.

    Returns
    -------
    ndarray
        Shape, type and memory order are those of the header.

    Raises
    ------
    ChunkError
        If the file cannot be read, or is shorter than its header says.
    """
    try:
        values = np.fromfile(path, dtype=header.dtype, count=math.prod(header.shape), offset=header.offset)
        return values.reshape(header.shape, order="F" if header.is_fortran else "C")
    except (OSError, ValueError) as error:
        raise ChunkError(f"{path}: cannot be read: {error}") from error


def save_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write an array in npy format.

    Parameters
    ----------
    path : str or PathLike
        File to write or replace.
    array : ndarray
        Any array without Python objects.
    """
    with replacing(path) as file:
        np.save(file, array, allow_pickle=False)


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
    """Write a table as CSV with LF line ends, without the index.

    Parameters
    ----------
    path : str or PathLike
        File to write or replace.
    table : DataFrame
        Any table.
    """
    with replacing(path) as file:
        file.write(table.to_csv(index=False, lineterminator="\n").encode())


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
        file.write(
            (json.dumps(_plain(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
        )


def _plain(value: Any) -> Any:
    """Turn NumPy values into Python's own, and NaN, which JSON lacks, into None."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_figure(path: str | os.PathLike, figure: "Figure", dpi: int = 150) -> None:
    """Write a figure as PNG.

    Parameters
    ----------
    path : str or PathLike
        File to write or replace; its folder is made when missing.
    figure : Figure
        Matplotlib figure.
    dpi : int
        Pixels per inch; the default makes a picture of 10 inches 1,500 pixels wide.
    """
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=dpi)


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
    """
    path = Path(path)
    if not path.exists():
        return None
    numbered = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(1))
    aside = next(candidate for candidate in numbered if not candidate.exists())
    os.replace(path, aside)
    return aside


def ignores_case(folder: str | os.PathLike) -> bool:
    """Find out whether two names in a folder that differ only in case are one file.

    Parameters
    ----------
    folder : str or PathLike
        Folder to try it in; made when missing.

    Returns
    -------
    bool
        True on most Windows and macOS file systems.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=".case-a", suffix=".tmp", dir=folder) as file:
        name = os.path.basename(file.name)
        return os.path.exists(os.path.join(folder, name.replace("case-a", "CASE-A")))
