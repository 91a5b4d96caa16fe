"""Tables and people: CSV files that a person may have touched, and tables as notebooks show them."""

import csv
import difflib
import gzip
import io
import os
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import pandas as pd

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
    b"<": "is a web page, not a table: was a login needed to download it?",
}
_INVISIBLE = "\u200b\u2060\ufeff"  # what pasting from a web page or a chat adds
_NO_MARKS = bytes({*range(256)} - {*b",\n"})
# What floating point makes of an id: 8.6469E+17, 9e+17, 864691135000000000.0; 12e4567 may be a hash.
_FLOAT = re.compile(r"[+-]?[0-9]+([.,][0-9]*[eE][+-]?[0-9]+|[eE]\+[0-9]+|\.0*|,0)")
EXPORT_AGAIN = "export the table again, with ids as text or 64-bit integers, and not through a spreadsheet"


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Read a whole table; every value is the text that it is in the file. Raises as `rows` does."""
    _refuse_other_formats(path)
    with _opened(path) as file:
        content = file.read().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise TableError(f"{path}: line {line} holds a NUL byte: is the file damaged?")
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    with _parsed(path, io.BytesIO(content)) as reader:
        header = _header(reader, path)
        indices(header, filter(None, header), path)
        if b'"' not in lines and _is_even(lines, len(header)):  # pandas is far faster, but lenient
            return pd.read_csv(io.BytesIO(lines), dtype=str, keep_default_na=False, index_col=False)
        names = [name or f"Unnamed: {n}" for n, name in enumerate(header)]  # as pandas does
        return pd.DataFrame([*_records(reader, names, path)], columns=names, dtype="str")


def _is_even(lines: bytes, n_fields: int) -> bool:
    """Whether all lines have so many fields, none of them in quotes."""
    marks = (lines if lines.endswith(b"\n") else lines + b"\n").translate(None, _NO_MARKS)
    return not marks.replace(b"," * (n_fields - 1) + b"\n", b"")


def rows(path: str | os.PathLike, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line number and values of some columns, each the text that it is in the file (gzip is unpacked).

    Raises a TableError that names the file, and the line, if there is no such column, a row has more or fewer
    fields than the header, or the file is cut off or something else than comma-separated UTF-8 text.
    """
    _refuse_other_formats(path)
    with _opened(path) as file, _parsed(path, file) as reader:
        header = _header(reader, path)
        positions = indices(header, columns, path)
        for fields in _records(reader, header, path):
            yield reader.line_num, tuple([fields[position] for position in positions])


def is_ended(path: str | os.PathLike) -> bool:
    """Whether the last row of a table has a line end, as those of whole files have that a program wrote."""
    with _opened(path) as file:
        last = deque(file, 1)
    return not last or last[0].endswith((b"\n", b"\r"))


def changed(synapse_id: str) -> str:
    """What a program has done to an id, and what to do; empty if nothing shows."""
    if synapse_id.isascii() and synapse_id.isdigit():
        return ""
    if _FLOAT.fullmatch(synapse_id):
        return f"ids stored as floating point lose their last digits: {EXPORT_AGAIN}"
    if synapse_id.startswith(("=", "'", '"')):
        return f"a spreadsheet's way to write text: {EXPORT_AGAIN}"
    if "\0" in synapse_id:
        return "with a NUL byte in it: is the file damaged?"
    if synapse_id != synapse_id.strip().strip(_INVISIBLE):
        return "with blanks around it: take them out, since ids are compared exactly"
    return ""


def escaped(text: str) -> str:
    """Write control characters as escapes, so that the text can stand in a table; a long text is cut."""
    shown = "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in text[:200])
    return shown + ("..." if len(text) > 200 else "")


def indices(header: Sequence[str], columns: Iterable[str], path: str | os.PathLike) -> list[int]:
    """Where the columns stand in a header; a TableError names the nearest if one is missing."""
    for name in columns:
        if name not in header:
            near = difflib.get_close_matches(name, header, 1, 0.5)
            nearest = f" (the nearest is {near[0]!r})" if near else ""
            there = escaped(listed(header, 40))
            raise TableError(f"{path}: has no column {name!r}{nearest}; its columns are {there}")
        if header.count(name) > 1:
            raise TableError(f"{path}: has {header.count(name)} columns {name!r}")
    return [header.index(name) for name in columns]


def magic(path: str | os.PathLike) -> bytes:
    """First bytes of a regular file, unpacked where it is compressed with gzip."""
    if not os.path.isfile(path):
        raise TableError(f"{path}: {'is not a file' if os.path.exists(path) else 'there is no such file'}")
    with _opened(path) as file:
        return file.read(32)


def _refuse_other_formats(path: str | os.PathLike) -> None:
    first = magic(path).lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, what in _OTHER_FORMATS.items():
        if first.startswith(start):
            raise TableError(f"{path}: {what}")
    if b"\0" in first:
        raise TableError(f"{path}: is UTF-16 text or not text at all: save it as CSV in UTF-8")


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a file, unpacked where it is compressed with gzip; say which one cannot be read."""
    try:
        with open(path, "rb") as file:
            is_packed = file.read(2) == _GZIP
        with gzip.open(path) if is_packed else open(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TableError(f"{path}: is cut off or damaged: {error}") from error
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def _parsed(path: str | os.PathLike, file: IO[bytes]) -> Iterator[Iterator[list[str]]]:
    """Read CSV; say which line cannot be read."""
    reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
    try:
        yield reader
    except UnicodeDecodeError as error:
        line = _first_undecodable(path)
        raise TableError(f"{path}: line {line} is not UTF-8 text: save the table as CSV in UTF-8") from error
    except csv.Error as error:
        where = f"{path}: line {reader.line_num}"
        raise TableError(f"{where} is not CSV: {error}; is a quote opened there and not closed?") from error


def _first_undecodable(path: str | os.PathLike) -> int:
    with _opened(path) as file:
        is_text = (line.decode(errors="ignore").encode() == line for line in file)
        return next((number for number, is_right in enumerate(is_text, 1) if not is_right), 0)


def _header(reader: Iterator[list[str]], path: str | os.PathLike) -> list[str]:
    """First line that is not blank."""
    header = next((fields for fields in reader if not _is_blank(fields)), None)
    if header is None:
        raise TableError(f"{path}: has no header: it is empty")
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and mark in header[0]:
            raise TableError(f"{path}: line 1: columns are separated by {name}: save it with commas")
    return header


def _records(reader: Iterator[list[str]], header: Sequence[str], path: str | os.PathLike) -> Iterator:
    """Rows below the header without blank lines; the first that has more or fewer fields is an error."""
    n_fields = len(header)
    for fields in reader:
        if len(fields) == n_fields:
            yield fields
        elif not _is_blank(fields):
            raise TableError(_misfit(fields, header, path, reader.line_num))


def _is_blank(fields: Sequence[str]) -> bool:
    return len(fields) < 2 and not "".join(fields).strip(" \t")


def _misfit(fields: Sequence[str], header: Sequence[str], path: str | os.PathLike, line: int) -> str:
    more = len(fields) > len(header)
    why = "does a value hold a comma without quotes?" if more else "is the file cut off?"
    return f"{path}: line {line} has {counted(len(fields), 'field')}, the header {len(header)}: {why}"


def as_html(table: pd.DataFrame) -> str:
    """HTML of a table for notebooks, whose own style puts everything to the right; nothing for NaN.

    Rows that only have a number are shown without it; an index that has a name is the first column.
    """
    has_name = table.index.name is not None and table.index.name not in table.columns
    is_numbered = table.index.name is None and pd.api.types.is_integer_dtype(table.index)
    shown = table.reset_index() if has_name else table
    text = shown.to_html(justify="left", max_rows=60, na_rep="-", index=not has_name and not is_numbered)
    return text.replace("<td>", '<td style="text-align: left">').replace(
        "<th>", '<th style="text-align: left">'
    )
