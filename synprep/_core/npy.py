"""One npy file, opened once: its header is checked, and its values are read section by section."""

import math
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np

from synprep._core import files
from synprep._core.errors import ChunkError

# Where the text of a header starts in a file that begins with these bytes, by version of the format.
_STARTS = {b"\x93NUMPY\1\0": 10, b"\x93NUMPY\2\0": 12, b"\x93NUMPY\3\0": 12}
_MOST = 10_000  # bytes of a text, as many as NumPy reads
# Header of an array of numbers, as it is written: a space stands for any blanks, N for a number. To evaluate
# it as Python, as NumPy does, raises or warns of nearly anything where it is damaged.
_TEXT = (
    rb"""{(?: (?P<quote>['"])(?:"""
    rb"""descr(?P=quote) : (?P<mark>['"])(?P<descr>[<>|=]?[b-zA-Z?]\w*+)(?P=mark)"""
    rb"""|fortran_order(?P=quote) : (?P<order>True|False)"""
    rb"""|shape(?P=quote) : \((?P<shape>(?:(?: N ,){1,32}+(?: N)?+)?+ )\)"""
    rb""") (?:,|(?=}))){3} }\x20*+\n*+"""
)
_HEADER = re.compile(_TEXT.replace(b" ", rb"[ \t\n]*+").replace(b"N", rb"(?:0|[1-9]\d{0,18}+)L?+"))
_SAVE_IT = "save it as npy, with the axes (x, y, z)"
# What a file is that begins with these bytes (letters small), and what to do.
_OTHER_FORMATS = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"bzh": "compressed with bzip2: unpack it",
    b"\xfd7zxz": "compressed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"pk\x03\x04": "a zip file, perhaps npz: take the array out and save it with numpy.save",
    **{bytes([0x80, n]): "a Python pickle: save the array with numpy.save" for n in range(2, 6)},
    **dict.fromkeys((b"<!doctype", b"<html"), "a web page: was a login needed to download it?"),
    b"<?xml": "XML, perhaps a server's message: was a login needed to download it?",
    **dict.fromkeys((b"ii*\0", b"ii+\0", b"mm\0*", b"mm\0+"), f"a TIFF image: {_SAVE_IT}"),
    b"\x89png": f"a PNG image: {_SAVE_IT}",
    b"\xff\xd8\xff": f"a JPEG image: {_SAVE_IT}",
    b"\x89hdf": "an HDF5 file: save its array as npy, with the axes (x, y, z)",
    b"nrrd0": "an NRRD file: save its array as npy, with the axes (x, y, z)",
    b"matlab": "a MATLAB file: save its array as npy, with the axes (x, y, z)",
}
_thread = threading.local()


@dataclass(frozen=True)
class Header:
    """What the header of an npy file says, and where the values start, in bytes."""

    shape: tuple[int, ...]
    is_fortran: bool  # the first axis varies fastest in the file
    dtype: np.dtype
    offset: int

    def byte_range(self, start: int, stop: int) -> tuple[int, int]:
        """Where the bytes begin that must be read for some sections, and how many they are."""
        *plane, n_z = self.shape
        first, last = (start, stop) if self.is_fortran else (0, n_z)
        section_bytes = math.prod(plane) * self.dtype.itemsize
        return self.offset + first * section_bytes, (last - first) * section_bytes


def fresh(n_bytes: int) -> np.ndarray:
    """Memory for `NpyFile.read`."""
    return np.empty(n_bytes, np.uint8)


def reused(use: str) -> Callable[[int], np.ndarray]:
    """Memory for `NpyFile.read` that is this thread's, the same at each call for one use.

    Fresh pages would cost as much as reading into them. What was read holds until the next call.
    """

    def allocate(n_bytes: int) -> np.ndarray:
        if not hasattr(_thread, use) or getattr(_thread, use).nbytes < n_bytes:
            setattr(_thread, use, fresh(n_bytes))
        return getattr(_thread, use)[:n_bytes]

    return allocate


class NpyFile:
    """An npy file that is open: a context manager.

    Opening raises a ChunkError if the file cannot be opened, is no npy file of numbers, holds Python
    objects, or is shorter or longer than its header says.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path
        with files.reading(path):
            self._file = files.opened(path)
            try:
                self._identity = files.identity(self._file.fileno())  # before anything is read
                self.header = _parse(self._file.read(12 + _MOST), path)  # no more, whatever a header claims
                self._check_length()
            except BaseException:
                self.close()
                raise

    @property
    def state(self) -> list[int]:
        """State of the file when it was opened, see `files.state`."""
        return self._identity[:2]

    def __enter__(self) -> "NpyFile":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_length(self) -> None:
        n_bytes = self.state[0] - self.header.offset
        n_expected = math.prod(self.header.shape) * self.header.dtype.itemsize
        if n_bytes != n_expected:
            kind = "file is cut short" if n_bytes < n_expected else "file is longer than its header says"
            raise ChunkError(kind, f"{n_bytes} bytes of values instead of {n_expected}", self.path)

    def fetch(self, start: int, stop: int) -> None:
        """Let the operating system fetch sections that are read later, if it can; nothing is waited for."""
        if hasattr(os, "posix_fadvise"):  # not on Windows and macOS
            with suppress(OSError):
                where = self.header.byte_range(start, stop)
                os.posix_fadvise(self._file.fileno(), *where, os.POSIX_FADV_WILLNEED)

    def read(
        self, start: int = 0, stop: int | None = None, allocate: Callable[[int], np.ndarray] = fresh
    ) -> np.ndarray:
        """Read the sections ``start <= z < stop`` of a file whose last axis is z; by default all.

        Of a Fortran-ordered file only the bytes of these sections are read. Type and memory order of the
        (..., z) array are those of the file. Raises a ChunkError if there is nothing in it, or it has
        changed since it was opened.
        """
        header, stop = self.header, self.header.shape[-1] if stop is None else stop
        if 0 in header.shape:
            raise ChunkError("array is empty", f"its shape is {header.shape}", self.path)
        first, n_bytes = header.byte_range(start, stop)
        with files.reading(self.path):
            self._file.seek(first)
            values = allocate(n_bytes)
            n_read = _fill(self._file, values)
        if n_read != n_bytes:
            raise ChunkError("file was cut short while it was read", path=self.path)
        if files.identity(self.path) != self._identity:
            raise ChunkError("file changed while it was used", path=self.path)
        if header.is_fortran:
            return values.view(header.dtype).reshape((*header.shape[:-1], stop - start), order="F")
        return values.view(header.dtype).reshape(header.shape)[..., start:stop]


def read_header(path: str | os.PathLike) -> Header:
    """Read the header of a file, which is checked as `NpyFile` does."""
    with NpyFile(path) as file:
        return file.header


def _parse(first: bytes, path: str | os.PathLike) -> Header:
    """Header of a file that begins with these bytes."""
    start = _STARTS.get(first[:8], 8)
    stop = start + int.from_bytes(first[8:start], "little")
    try:
        if start == 8:
            raise ValueError(f"it is {_other_format(first)}")
        if stop > start + _MOST:
            raise ValueError(f"its header claims {stop - start:,} bytes, the most are {_MOST:,}")
        if stop > len(first):
            raise ValueError("it ends within its header")
        header = Header(*_read_text(first[start:stop]), stop)
    except ValueError as error:
        raise ChunkError("not an npy file", str(error), path) from error
    if header.dtype.hasobject:
        raise ChunkError("holds Python objects, which are never loaded", path=path)
    return header


@lru_cache
def _read_text(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read what is usually the same in all files of a data set, and therefore read once."""
    found = _HEADER.fullmatch(text)
    try:
        shape = tuple(int(n) for n in re.findall(rb"\d+", found["shape"]))
        return shape, found["order"] == b"True", np.dtype(found["descr"].decode())
    except Exception as error:  # no match, one without a part, or no such type
        shown = text.decode("latin1").strip()[:200]
        raise ValueError(f"its header is not that of an array of numbers: {shown!a}") from error


def _other_format(first: bytes) -> str:
    """Say what a file is that does not begin as npy files do."""
    if not any(first):
        return "empty" if not first else "zeros where it begins: was it copied to the end?"
    if b"NUMPY" in first[:9]:
        return "an npy file of a later version, or changed where it begins: was it copied as text?"
    known = (what for start, what in _OTHER_FORMATS.items() if first.lower().startswith(start))
    return next(known, f"something that begins with {first[:16]!r}")


def _fill(file: IO[bytes], values: np.ndarray) -> int:
    """Read until the array is full or the file ends; return the number of bytes."""
    view, n_read = memoryview(values), 0
    while n_read < len(view) and (n_more := file.readinto(view[n_read:])):
        n_read += n_more
    return n_read
