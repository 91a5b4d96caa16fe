import os
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from synprep._core import files, npy
from synprep._core.errors import ChunkError
from synprep._core.npy import NpyFile


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64, ">u2"])
def test_array_comes_back(tmp_path, order, dtype):
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 7, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    with NpyFile(tmp_path / "a.npy") as file:
        header = file.header
        assert (header.shape, header.is_fortran, header.dtype) == ((2, 3, 4), order == "F", np.dtype(dtype))
        assert np.array_equal(file.read(), array)
        assert np.array_equal(file.read(1, 3), array[:, :, 1:3])


def npy_bytes(tmp_path, array):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    return (tmp_path / "x.npy").read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda whole: whole[:-1], "file is cut short: 23 bytes of values instead of 24"),
        (lambda whole: whole + b"x", "file is longer than its header says: 25 bytes"),
        (lambda whole: b"", "not an npy file"),
        (lambda whole: whole[:5], "not an npy file"),
        (lambda whole: whole[:40], "not an npy file"),
        (lambda whole: b"synapse_id,x\n" * 20, "not an npy file"),
        (lambda whole: whole[:6] + b"\x09\x00" + whole[8:], "not an npy file"),
    ],
)
def test_bad_array_files(tmp_path, change, reason):
    path = tmp_path / "bad.npy"
    path.write_bytes(change(npy_bytes(tmp_path, np.zeros((2, 3, 4), np.uint8))))
    with pytest.raises(ChunkError, match=reason) as caught:
        npy.read_header(path)
    assert str(path) in str(caught.value)


def test_python_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    with pytest.raises(ChunkError, match="Python objects, which are never loaded"):
        npy.read_header(tmp_path / "x.npy")


def test_missing_array_file(tmp_path):
    with pytest.raises(ChunkError, match=r"gone\.npy: file is missing"):
        npy.read_header(tmp_path / "gone.npy")


@pytest.fixture
def zeros(tmp_path):
    """Path of a file with zeros."""
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4), np.uint8))
    return tmp_path / "x.npy"


def test_a_file_cut_after_it_was_opened(zeros):
    with NpyFile(zeros) as file:
        os.truncate(zeros, file.header.offset + 5)
        with pytest.raises(ChunkError, match=r"x\.npy: file was cut short while it was read"):
            file.read()


def write_into(path):
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")


def replace_by_another(path):
    np.save(path.with_name("new.npy"), np.ones((2, 3, 4), np.uint8))
    os.replace(path.with_name("new.npy"), path)


def replace_by_one_of_its_time(path):
    """As rsync does that keeps times: size and time are those of the old file."""
    np.save(path.with_name("new.npy"), np.ones((2, 3, 4), np.uint8))
    os.utime(path.with_name("new.npy"), ns=(1, 1))
    os.replace(path.with_name("new.npy"), path)


def append_to(path):
    with open(path, "ab") as file:
        file.write(b"\x01")
    os.utime(path, ns=(1, 1))


CHANGES = [write_into, replace_by_another, replace_by_one_of_its_time, append_to, os.remove]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_after_it_was_opened(zeros, change):
    os.utime(zeros, ns=(1, 1))
    with NpyFile(zeros) as file:
        change(zeros)
        with pytest.raises(ChunkError, match=r"x\.npy: file changed while it was used"):
            file.read()


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read(zeros, monkeypatch, change):
    os.utime(zeros, ns=(1, 1))
    fill = npy._fill
    monkeypatch.setattr(npy, "_fill", lambda file, values: (fill(file, values), change(zeros))[0])
    with NpyFile(zeros) as file, pytest.raises(ChunkError, match=r"x\.npy: file changed while it was used"):
        file.read()


def test_a_file_that_has_its_name_back_when_it_was_read(zeros):
    """What was opened is another one than what had the name before and has it after."""
    os.utime(zeros, ns=(1, 1))
    os.rename(zeros, zeros.with_name("first.npy"))
    replace_by_one_of_its_time(zeros)
    with NpyFile(zeros) as file:
        os.rename(zeros.with_name("first.npy"), zeros)
        with pytest.raises(ChunkError, match=r"x\.npy: file changed while it was used"):
            file.read()


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_between_two_reads(zeros, change):
    os.utime(zeros, ns=(1, 1))
    with NpyFile(zeros) as file:
        assert not file.read(0, 1).any()
        change(zeros)
        with pytest.raises(ChunkError, match=r"x\.npy: file changed while it was used"):
            file.read(1, 2)


def test_a_file_that_changes_before_it_is_opened_again_is_another_one(zeros):
    npy.read_header(zeros)
    replace_by_another(zeros)
    with NpyFile(zeros) as file:
        assert file.read().all()


def make_socket(path):
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/{path.name}")  # the whole path may be too long
    os.close(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has none of these")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "named pipe"),
        (os.mkdir, "folder"),
        (make_socket, "socket"),
        (lambda path: path.symlink_to("/dev/zero"), "device"),
    ],
)
@pytest.mark.parametrize("read", [npy.read_header, lambda path: files.copy_file(path, f"{path}.copy")])
def test_only_files_are_read(tmp_path, make, kind, read):
    make(tmp_path / "a.npy")
    with pytest.raises(ChunkError, match=rf"a\.npy: file cannot be read: it is a {kind}, not a file"):
        read(tmp_path / "a.npy")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_takes_the_name_of_a_file_is_not_waited_for(tmp_path, zeros, monkeypatch):
    status = os.stat(zeros)
    os.mkfifo(tmp_path / "pipe.npy")
    monkeypatch.setattr(npy.files.os, "stat", lambda path: status)
    with pytest.raises(ChunkError, match="not an npy file"):
        npy.read_header(tmp_path / "pipe.npy")


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(ChunkError, match="file cannot be read: embedded null"):
        npy.read_header(f"{tmp_path}/a\0.npy")


def test_the_state_is_that_before_reading(zeros):
    os.utime(zeros, ns=(5, 1_234_567_891))
    with NpyFile(zeros) as file:
        assert file.state == [152, 1_234_567_891]


@pytest.mark.parametrize(("order", "n_bytes"), [("C", 8000), ("F", 1200)])
def test_only_the_kept_sections_of_a_fortran_ordered_file_are_read(tmp_path, monkeypatch, order, n_bytes):
    array = np.asarray(np.arange(8000).reshape(20, 20, 20) % 251, dtype=np.uint8, order=order)
    np.save(tmp_path / "x.npy", array)
    fill, read = npy._fill, []
    monkeypatch.setattr(npy, "_fill", lambda file, values: read.append(fill(file, values)) or read[-1])
    with NpyFile(tmp_path / "x.npy") as file:
        assert np.array_equal(file.read(8, 11), array[:, :, 8:11])
    assert read == [n_bytes]


def read_reusing(path):
    with NpyFile(path) as file:
        return file.read(allocate=npy.reused("test"))


def test_memory_is_fresh_unless_it_is_asked_to_be_reused(zeros):
    with NpyFile(zeros) as file:
        assert not np.shares_memory(file.read(), file.read())
    mine = [read_reusing(zeros) for _ in range(2)]
    assert np.shares_memory(*mine)
    with ThreadPoolExecutor(1) as executor:
        other = executor.submit(read_reusing, zeros).result()
    assert not np.shares_memory(mine[0], other)


def test_memory_for_nothing_can_be_reused():
    assert npy.reused("a use that no other test has")(0).size == 0


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no hints about files")
@pytest.mark.parametrize(("order", "first", "n_bytes"), [("C", 128, 8000), ("F", 128 + 8 * 400, 1200)])
def test_what_is_read_next_is_announced(tmp_path, monkeypatch, order, first, n_bytes):
    np.save(tmp_path / "x.npy", np.zeros((20, 20, 20), np.uint8, order=order))
    hints = []
    monkeypatch.setattr(npy.os, "posix_fadvise", lambda fd, *hint: hints.append(hint))
    with NpyFile(tmp_path / "x.npy") as file:
        file.fetch(8, 11)
    assert hints == [(first, n_bytes, os.POSIX_FADV_WILLNEED)]
