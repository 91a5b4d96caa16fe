"""Who is writing: locks, and what takes their place where there are none."""

import errno
import os
import platform
import subprocess
import sys

import pytest

from synprep._core import lock
from synprep._core.errors import LockedError, OutputError


def refusing(number):
    """What flock does on a file system that answers with an error."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


@pytest.fixture(params=["ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS"])
def no_locks(request, monkeypatch, tmp_path):
    """A folder on a file system without locks; the path of the file that takes their place."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", refusing(getattr(errno, request.param)))
    (tmp_path / ".synprep").mkdir()
    return tmp_path / ".synprep" / "softlock"


def test_a_file_system_without_locks_gets_a_file(no_locks, tmp_path):
    for _ in range(2):
        with lock.locked(tmp_path):
            assert no_locks.exists()
            who = (
                rf"process {os.getpid()} on {platform.node()}; wait until it ends, or, if it has died, delete"
            )
            with pytest.raises(LockedError, match=rf"another run is writing .*: {who} {no_locks}"):
                lock.locked(tmp_path).__enter__()
        assert not no_locks.exists()


def test_the_file_of_a_process_that_died_here_is_void(no_locks, tmp_path):
    code = "import filelock, os, sys; lock = filelock.SoftFileLock(sys.argv[1]); lock.acquire(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(no_locks)], check=True)
    assert no_locks.exists()
    with lock.locked(tmp_path):
        assert no_locks.read_text().startswith(f"{os.getpid()}\n")


def test_the_file_of_another_host_says_what_to_do(no_locks, tmp_path):
    no_locks.write_text("17\nelsewhere\n")
    with pytest.raises(LockedError, match=rf"process 17 on elsewhere; .* if it has died, delete {no_locks}"):
        lock.locked(tmp_path).__enter__()
    no_locks.write_text("")
    with pytest.raises(LockedError, match=rf"that has just started, .*; .* delete {no_locks}"):
        lock.locked(tmp_path).__enter__()
    no_locks.unlink()
    with lock.locked(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_place_of_a_lock_is_not_waited_for(tmp_path):
    (tmp_path / ".synprep").mkdir()
    os.mkfifo(tmp_path / ".synprep" / "lock")
    with lock.read_locked(tmp_path):
        pass
    with pytest.raises(OutputError, match="cannot be written"):
        lock.locked(tmp_path).__enter__()


def test_another_error_of_a_lock_is_about_the_folder(monkeypatch, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OutputError, match="cannot be written: Input/output error"):
        lock.locked(tmp_path).__enter__()
