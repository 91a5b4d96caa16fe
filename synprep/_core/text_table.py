"""Tables that a person may have touched: CSV files, row by row, and what tells that one cannot be trusted."""

import csv
import difflib
import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter

from synprep._core.errors import TableError, counted, listed

_GZIP = b"\x1f\x8b"
# What a file is that begins with these bytes, and what to do.
_OTHER_FORMATS = {
    b"\xff\xfe": "is UTF-16 text: save it as CSV in UTF-8",
    b"\xfe\xff": "is UTF-16 text: save it as CSV in UTF-8",
    b"PK\x03\x04": "is a zip file or a spreadsheet (xlsx): save it as CSV, with ids as text",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet (xls): save it as CSV, with ids as text",
    b"PAR1": "is a parquet file: save it as CSV",
    b"ARROW1": "is a feather file: save it as CSV",
    b"BZh": "is compressed with bzip2: unpack it, or compress it with gzip",
    b"\xfd7zXZ": "is compressed with xz: unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: unpack it, or compress it with gzip",
    b"\x93NUMPY": "is a NumPy array, not a table",
    b"\x80\x04": "is a Python pickle, not a table",
    b"\x80\x05": "is a Python pickle, not a table",
    b"version https://git-lfs": "is a Git LFS pointer: fetch the file with git lfs pull",
    b"<!DOCTYPE": "is a web page, not a table: was a login needed to download it?",
    b"<html": "is a web page, not a table: was a login needed to download it?",
}


def rows(path: str | os.PathLike, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line number and values of some columns, each the text that it is in the file (gzip is unpacked).

    Raises a TableError that names the file, and the line, if there is no such column, a row has more or fewer
    fields than the header, or the file is cut off or something else than comma-separated UTF-8 text.
    """
    with _opened(path) as reader:
        header = next(reader, [])
        _refuse_other_separator(header, path)
        pick, n_fields = _picker(indices(header, columns, path)), len(header)
        for fields in reader:
            if len(fields) != n_fields:
                if not fields:  # an empty line
                    continue
                raise TableError(_misfit(fields, header, path, reader.line_num))
            yield reader.line_num, pick(fields)


def indices(header: Sequence[str], columns: Iterable[str], path: str | os.PathLike) -> list[int]:
    """Where the columns stand in a header; a TableError names the nearest if one is missing."""
    for name in columns:
        if name not in header:
            near = difflib.get_close_matches(name, header, 1, 0.5)
            nearest = f" (the nearest is {near[0]!r})" if near else ""
            there = f"its columns are {listed(header, 40)}" if any(header) else "it is empty"
            raise TableError(f"{path}: has no column {name!r}{nearest}; {there}")
        if header.count(name) > 1:
            raise TableError(f"{path}: has {header.count(name)} columns {name!r}")
    return [header.index(name) for name in columns]


def magic(path: str | os.PathLike) -> bytes:
    """First bytes of a regular file, unpacked where it is compressed with gzip."""
    if not os.path.isfile(path):
        raise TableError(f"{path}: {'is not a file' if os.path.exists(path) else 'there is no such file'}")
    with _named(path), _unpacked(path) as file:
        return file.read(32)


def _picker(positions: list[int]):
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda fields: tuple(fields[position] for position in positions)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Iterator[list[str]]]:
    first = magic(path)
    for start, what in _OTHER_FORMATS.items():
        if first.lower().startswith(start.lower()):
            raise TableError(f"{path}: {what}")
    if b"\0" in first:
        raise TableError(f"{path}: is UTF-16 text or not text at all: save it as CSV in UTF-8")
    with _unpacked(path) as file:
        reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
        with _named(path, reader):
            yield reader


def _unpacked(path: str | os.PathLike) -> io.BufferedIOBase:
    with open(path, "rb") as file:
        is_packed = file.read(2) == _GZIP
    return gzip.open(path) if is_packed else open(path, "rb")


@contextmanager
def _named(path: str | os.PathLike, reader=None) -> Iterator[None]:
    """Say which file, and which line, cannot be read."""
    where = f"{path}: line {reader.line_num + 1}" if reader else str(path)
    try:
        yield
    except UnicodeDecodeError as error:
        line = _first_undecodable(path)
        raise TableError(f"{path}: line {line} is not UTF-8 text: save the table as CSV in UTF-8") from error
    except csv.Error as error:
        where = f"{path}: line {reader.line_num}"
        raise TableError(f"{where} is not CSV: {error}; is a quote opened there and not closed?") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TableError(f"{path}: is cut off or damaged: {error}") from error
    except OSError as error:
        raise TableError(f"{where} cannot be read: {error.strerror or error}") from error


def _first_undecodable(path: str | os.PathLike) -> int:
    with _unpacked(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _refuse_other_separator(header: Sequence[str], path: str | os.PathLike) -> None:
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and mark in header[0]:
            raise TableError(f"{path}: line 1: columns are separated by {name}: save it with commas")


def _misfit(fields: Sequence[str], header: Sequence[str], path: str | os.PathLike, line: int) -> str:
    more = len(fields) > len(header)
    why = "does a value hold a comma without quotes?" if more else "is the file cut off?"
    return f"{path}: line {line} has {counted(len(fields), 'field')}, the header {len(header)}: {why}"
