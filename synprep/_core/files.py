"""Files: a whole one or none.

Every file appears under its final name only when it is whole: it is written under a temporary name in the
same folder, flushed to the disk, and renamed. Its name is on the disk for certain when the folder has been
flushed too (`sync_folder`): at once for tables and other small files, in batches for arrays.
"""

import errno
import itertools
import json
import math
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from synprep._core.errors import ChunkError, OutputError

_NO_NAME = "synapse id makes no name that a file can have here"
_NAME_ERRORS = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG)
_IS_WINDOWS = os.name == "nt"
_NOT_ON_WINDOWS = re.compile(r'^(con|prn|aux|nul|com\d|lpt\d)\.|[<>:"|?*]|[. ]$', re.IGNORECASE)
_DISK_ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
# A pipe that took the file's name a moment ago is not waited for.
_READ = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_BINARY"))
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the name `path` when all went well, and is removed otherwise.

    The folder is made when missing. If only the last step fails, since another program holds the old file
    open, the new one stays and the error gives its name.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        _remove_quietly(temporary)
        raise
    with writing(path):
        _take_name(temporary, path)


@contextmanager
def writing(path: str | os.PathLike, what: str = "written") -> Iterator[None]:
    """Turn what goes wrong while a file is written, renamed or removed into an error about it."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be {what}: {error.strerror or error}") from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}-{uuid.uuid4().hex}.tmp")


def _take_name(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except PermissionError as error:
        raise OutputError(f"{path}: is in use by another program; the new file is {temporary}") from error
    except OSError as error:
        _remove_quietly(temporary)
        if error.errno in _NAME_ERRORS:
            raise ChunkError(_NO_NAME, error.strerror, path) from error
        raise


def _remove_quietly(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink()


@contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turn what goes wrong while an input file is read into an error about it."""
    try:
        yield
    except FileNotFoundError as error:
        why = "it was there or is a link that leads nowhere; a tensor is made again by preprocess"
        raise ChunkError("file is missing", why, path) from error
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        raise ChunkError("file cannot be read", getattr(error, "strerror", "") or str(error), path) from error
    except MemoryError as error:
        raise ChunkError("file does not fit into memory", path=path) from error


def opened(path: str | os.PathLike) -> IO[bytes]:
    """Open a file to be read; a pipe or device, which might never answer, and a folder are an OSError."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        what = f"it is a {_KINDS.get(stat.S_IFMT(mode), 'device')}, not a file"
        raise OSError(errno.EINVAL, what)
    number = os.open(path, _READ)
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(number, True)  # what is on tape is waited for
    return open(number, "rb", buffering=0)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Read a whole file; an OSError as those of `opened`."""
    with opened(path) as file:
        return file.read()


def state(path: str | os.PathLike | int) -> list[int] | None:
    """Size (bytes) and modification time (ns) of a file or an open one; None if there is no such file."""
    known = identity(path)
    return known and known[:2]


def identity(path: str | os.PathLike | int) -> list[int] | None:
    """State of a file, and what tells it from another one that takes its name."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name that no file can have is a ValueError
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def free_bytes(folder: str | os.PathLike) -> int:
    """What is free where a folder is or will be."""
    return shutil.disk_usage(_existing(folder)).free


def memory_bytes() -> float:
    """Memory of this machine; infinite where it cannot be known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return math.inf


def longest_name(folder: str | os.PathLike) -> int:
    """How many bytes a file name may have where a folder is or will be."""
    try:
        return os.pathconf(_existing(folder), "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows
        return 255


def refuse_name(name: str, longest: int) -> None:
    """Raise a ChunkError if no file can have a name that was made of a synapse id."""
    n_bytes = len(name.encode("utf-8", "replace"))
    if n_bytes > longest > 0:
        raise ChunkError(_NO_NAME, f"{name[:20]}... has {n_bytes} bytes, {longest} are allowed")
    if _IS_WINDOWS and _NOT_ON_WINDOWS.search(name):
        raise ChunkError(_NO_NAME, f"{name} is none on Windows")


def refuse_full_disk(folder: str | os.PathLike, n_bytes: int) -> None:
    """Raise an error if less is free where a folder is or will be than is to be written."""
    free = free_bytes(folder)
    if n_bytes > free:
        needed = f"the run will write {n_bytes / 1e9:.2f} GB and only {free / 1e9:.2f} GB are free"
        raise OutputError(f"{folder}: {needed}")


def _existing(folder: str | os.PathLike) -> Path:
    return next(path for path in (Path(folder), *Path(folder).parents) if os.path.isdir(path))


def clean_up(*folders: str | os.PathLike) -> None:
    """Remove the temporary files that killed runs left in folders that no other run is writing to."""
    for folder in folders:
        for path in Path(folder).glob(".*.tmp"):
            if re.fullmatch(r"\.\d+-[0-9a-f]{32}\.tmp", path.name):
                _remove_quietly(path)


def sync_folder(folder: str | os.PathLike) -> None:
    """Flush the names in a folder to the disk, so that renamed files keep them when the power fails.

    Passed over where it cannot be done, as on Windows and on some network file systems.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        os.close(descriptor)


def save_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file."""
    with replacing(path) as file:
        file.write(content)
    sync_folder(Path(path).parent)


def save_array(path: str | os.PathLike, array: np.ndarray, is_fortran: bool = False) -> None:
    """Write an array in npy format, in C order unless it is to be in Fortran order."""
    array = np.asarray(array, order="F" if is_fortran else "C")
    header = np.lib.format.header_data_from_array_1_0(array)
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, header | {"fortran_order": is_fortran})
        file.write((array.T if is_fortran else array).data)  # np.save would hide why a disk refuses


def save_json(path: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Write a flat record as JSON; NaN becomes null."""
    text = json.dumps(plain(record), indent=1, allow_nan=False, ensure_ascii=False)
    save_bytes(path, (text + "\n").encode("utf-8", "backslashreplace"))  # bytes of names that are no text


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read a JSON file that holds a mapping; an OSError or a ValueError if there is none."""
    try:
        found = json.loads(read_bytes(path).decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("not a mapping")
    return found


def plain(value: Any) -> Any:
    """Turn a value into one that JSON can hold; NaN and infinity, which it lacks, become None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def copy_file(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Copy a file, with its modification time."""
    with reading(source):
        status = os.stat(source)
        content = read_bytes(source)
    with replacing(path) as file:
        file.write(content)
    with suppress(OSError):  # the time only saves comparing bytes later
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def link_file(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Give a file a second name, a hard link; of a symbolic link, the file that it leads to."""
    temporary = _temporary(Path(path))
    try:
        with writing(path, f"a hard link to {source} (else set link_mode to copy)"):
            os.link(os.path.realpath(source), temporary)
            os.replace(temporary, path)
    finally:
        _remove_quietly(temporary)  # renaming does nothing where both names are of one file already


def move_aside(path: str | os.PathLike) -> Path | None:
    """Give a file, if it is there, the next free numbered name: ``meta.csv`` becomes ``meta.1.csv``."""
    path = Path(path)
    if not path.exists():
        return None
    aside = next(one for one in _numbered(path) if not one.exists())
    rename(path, aside)
    return aside


def rename(path: str | os.PathLike, to: str | os.PathLike) -> None:
    """Give a file another name in its folder."""
    with writing(path, "renamed or removed"):
        os.replace(path, to)
    sync_folder(Path(path).parent)


def last_aside(path: str | os.PathLike) -> Path | None:
    """The numbered name under which a file was last kept; None if there is none."""
    *_, last = None, *itertools.takewhile(Path.exists, _numbered(Path(path)))
    return last if last and last.is_file() else None


def _numbered(path: Path) -> Iterator[Path]:
    return (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(1))


def remove(path: str | os.PathLike) -> None:
    """Remove a file, if it is there."""
    with writing(path, "renamed or removed"):
        Path(path).unlink(missing_ok=True)
    sync_folder(Path(path).parent)
