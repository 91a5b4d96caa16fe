"""Who is writing to a folder: one run at a time."""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from synprep._core import files, provenance
from synprep._core.errors import LockedError, OutputError
from synprep._core.paths import HIDDEN

_LOCK, _SOFT_LOCK, _OWNER = "lock", "softlock", "owner.json"
_LOCK_SECONDS = 0.2  # in which the lock of a run that died is found to be void
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


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
    try:
        import fcntl
    except ImportError:  # Windows
        return filelock.FileLock(hidden / _LOCK)
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
def read_locked(*folders: str | os.PathLike) -> Iterator[None]:
    """Keep runs that write out of folders while they are merged, where that can be done; nothing is written.

    Raises a LockedError if one is writing to any of them.
    """
    with ExitStack() as stack:
        for folder in folders:
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
    owner = {"process": os.getpid(), "host": platform.node(), "since": provenance.now()}
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
