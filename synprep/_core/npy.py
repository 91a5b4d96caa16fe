"""One npy file, opened once: its header is checked, and its values are read section by section."""

import io
import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np

from synprep._core import files
from synprep._core.errors import ChunkError

_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}  # by version of the format
_thread = threading.local()


@dataclass(frozen=True)
class Header:
    """What the header of an npy file says, and where the values start, in bytes."""

    shape: tuple[int, ...]
    is_fortran: bool  # the first axis varies fastest in the file
    dtype: np.dtype
    offset: int


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

    Opening raises a ChunkError if the file cannot be opened, is no npy file, holds Python objects, or is
    shorter or longer than its header says.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path
        with files.reading(path):
            self._file = files.opened(path)
        try:
            with files.reading(path):
                self._identity = files.identity(self._file.fileno())  # before anything is read
                self.header = _parse_header(self._file, path)
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
                where = self._byte_range(start, stop)
                os.posix_fadvise(self._file.fileno(), *where, os.POSIX_FADV_WILLNEED)

    def read(
        self, start: int = 0, stop: int | None = None, allocate: Callable[[int], np.ndarray] = fresh
    ) -> np.ndarray:
        """Read the sections ``start <= z < stop`` of a file whose last axis is z; by default all.

        Of a Fortran-ordered file only the bytes of these sections are read. Type and memory order of the
        (..., z) array are those of the file. Raises a ChunkError if the file has changed since it was opened.
        """
        header, stop = self.header, self.header.shape[-1] if stop is None else stop
        first, n_bytes = self._byte_range(start, stop)
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

    def _byte_range(self, start: int, stop: int) -> tuple[int, int]:
        """Where the bytes begin that must be read for some sections, and how many they are."""
        *plane, n_z = self.header.shape
        first, last = (start, stop) if self.header.is_fortran else (0, n_z)
        section_bytes = math.prod(plane) * self.header.dtype.itemsize
        return self.header.offset + first * section_bytes, (last - first) * section_bytes


def read_header(path: str | os.PathLike) -> Header:
    """Read the header of a file, which is checked as `NpyFile` does."""
    with NpyFile(path) as file:
        return file.header


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
    return header


def _fill(file: IO[bytes], values: np.ndarray) -> int:
    """Read until the array is full or the file ends; return the number of bytes."""
    view, n_read = memoryview(values), 0
    while n_read < len(view) and (n_more := file.readinto(view[n_read:])):
        n_read += n_more
    return n_read
