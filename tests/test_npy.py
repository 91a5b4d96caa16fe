import io
import os
import socket
import struct
import tracemalloc
import warnings
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


def npy_bytes(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=version)
    return file.getvalue()


def with_text(text, values=bytes(24), version=1, n_claimed=None):
    """An npy file with some text as its header, and 24 bytes of values."""
    text = text.encode() if isinstance(text, str) else text
    length = struct.pack("<H" if version == 1 else "<I", len(text) if n_claimed is None else n_claimed)
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + values


def items(descr="'|u1'", order="False", shape="(2, 3, 4)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


GOOD = npy_bytes(np.zeros((2, 3, 4), np.uint8))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.filterwarnings("ignore:Stored array in format")
def test_every_version_of_the_format(tmp_path, version):
    array = np.asfortranarray(np.arange(24).reshape(2, 3, 4), dtype=np.uint8)
    (tmp_path / "a.npy").write_bytes(npy_bytes(array, version))
    with NpyFile(tmp_path / "a.npy") as file:
        assert np.array_equal(file.read(), array)
        assert file.header.is_fortran


@pytest.mark.parametrize(
    "text",
    [
        items() + "\n",
        '{"shape":(2,3,4),"fortran_order":False,"descr":"|u1"}',
        "{ 'fortran_order' : False , 'shape' : ( 2 , 3,\n 4 , ) , 'descr' : 'uint8' }  \n\n",
        items("'u1'"),
        items("'<u1'"),
        items("'B'"),
        items(shape="(2L, 3L, 4L)"),  # of Python 2
        items() + " " * 9900,
    ],
)
def test_headers_that_other_libraries_write(tmp_path, text):
    (tmp_path / "a.npy").write_bytes(with_text(text))
    header = npy.read_header(tmp_path / "a.npy")
    assert (header.shape, header.is_fortran, header.dtype) == ((2, 3, 4), False, np.uint8)


@pytest.mark.parametrize(
    "text",
    [
        items("[('f', 'u1')]"),  # equal to uint8, as NumPy has it
        items("[('', 'u1')]"),
        items("('u1', (2,))", shape="(1, 3, 4)"),
        items("'(2,)u1'", shape="(1, 3, 4)"),
        items("'2u1'", shape="(1, 3, 4)"),
        items("'u1,u1'", shape="(1, 3, 4)"),
        items("'|a1'"),
        items("'|u7'"),
        items("'nothing'"),
        items("'|u1\\0'"),
        items("'\\d'"),
        items("b'|u1'"),
        items("u'|u1'"),
        items("'|u1' ''"),
        items("'|u1\""),
        items("None"),
        items("1"),
        items("'S999999999999999999999999'"),
        items("'U4294967296'"),
        items("'M8'", shape="(2, 3, 4L, )L"),
        items("'|\N{FULLWIDTH LATIN SMALL LETTER U}1'"),
        items(order="0"),
        items(order="None"),
        items(order="Falze"),
        items(shape="[2, 3, 4]"),
        items(shape="(2, 3, -4)"),
        items(shape="(-2, -3, 4)"),
        items(shape="(True, 6, 4)"),
        items(shape="(2, 3, 04)"),
        items(shape="(2, 3, 4.0)"),
        items(shape="(2, 3, 0x4)"),
        items(shape="(2, 3 4)"),
        items(shape="(2, 3, 4"),
        items(shape="(,)"),
        items(shape="(24)"),
        items(shape="24"),
        items(shape="(2, 3, \N{ARABIC-INDIC DIGIT FOUR})"),
        items(shape="(2, 3, 4)" + ")" * 9000),
        items(shape="(" * 9000),
        items(shape="-" * 9000),
        items(shape="(" + "1," * 4900),
        items(shape="(" + "9" * 9000 + ",)"),
        items(shape="(" + "1, " * 3000 + ")"),
        items(shape="(" + "9999999999999999999, " * 300 + ")"),
        items() + "x",
        items() + "\n ",
        " " + items(),
        items().replace("'shape'", "'size'"),
        items().replace("'descr': '|u1', ", ""),
        items().replace("}", "'more': 1}"),
        items().replace("}", "'descr': '|u1'}"),
        items().replace("'descr'", "'shape': (2, 3, 4), 'descr'"),
        items().replace("'descr': '|u1'", "'shape': (2, 3, 4)"),
        "{" * 9999,
        "[" * 9999,
        "",
        "{}",
        "()",
        "\0" * 118,
        b"\xff" * 118,
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_anything_else(tmp_path, text, version):
    (tmp_path / "a.npy").write_bytes(with_text(text, version=version))
    with pytest.raises(
        ChunkError, match=r"a\.npy: not an npy file: its header is not that of an array of"
    ) as caught:
        npy.read_header(tmp_path / "a.npy")
    assert len(caught.value.detail) < 900
    assert caught.value.detail.isprintable()


def test_names_of_types_never_warn():
    """NumPy warns of some names that it knows no more."""
    letters = "bcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ?"
    names = [
        *letters,
        *(a + b for a in letters for b in "0123456789"),
        *np.sctypeDict,
        "str_",
        "int0",
        "long",
    ]
    known = 0
    for name in map(str, names):
        try:
            _, _, dtype = npy._read_text(items(f"'{name}'").encode())
        except ValueError:
            continue
        known += 1
        assert dtype == np.dtype(name)
        assert dtype.fields is dtype.subdtype is None
    assert known > 50


@pytest.mark.parametrize("shape", ["(0, 3, 4)", "(2, 3, 0)", "(0, 9999999999999999999, 9999999999999999999)"])
def test_an_axis_without_length(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(with_text(items(shape=shape), b""))
    with NpyFile(tmp_path / "a.npy") as file, pytest.raises(ChunkError, match=r"empty: its shape is \("):
        file.read()


@pytest.mark.parametrize(
    ("whole", "reason"),
    [
        (GOOD[:-1], "file is cut short: 23 bytes of values instead of 24"),
        (GOOD + b"x", "file is longer than its header says: 25 bytes"),
        (b"", "not an npy file: it is empty$"),
        (bytes(1000), "not an npy file: it is zeros where it begins"),
        (GOOD[:5], "not an npy file"),
        *((GOOD[:n], "not an npy file: it ends within its header") for n in (8, 9, 10, 40, 127)),
        (with_text(items(), version=2)[:10], "not an npy file: it ends within its header"),
        (GOOD[:6] + b"\x09\x00" + GOOD[8:], "not an npy file: it is an npy file of a later version"),
        (GOOD.decode("latin1").encode(), "not an npy file: .* was it copied as text"),
        (b"synapse_id,x\n" * 20, r"not an npy file: it is something that begins with b'synapse_id,x\\nsyn'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer: .* git lfs pull"),
        (b"\x1f\x8b\x08\x00" + GOOD, "compressed with gzip: unpack it"),
        (b"BZh9" + GOOD, "compressed with bzip2"),
        (b"\xfd7zXZ\x00" + GOOD, "compressed with xz"),
        (b"PK\x03\x04" + GOOD, "a zip file, perhaps npz"),
        (b"\x80\x05\x95\x10\x00\x00" + GOOD, "a Python pickle: save the array with numpy.save"),
        (b"<!doctype html>\n<html></html>\n", "a web page: was a login needed"),
        (b"<HTML><HEAD>", "a web page: was a login needed"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML, perhaps a server's message"),
        (b"II*\x00" + GOOD, "a TIFF image"),
        (b"MM\x00*" + GOOD, "a TIFF image"),
        (b"\x89PNG\r\n\x1a\n" + GOOD, "a PNG image"),
        (b"\x89HDF\r\n\x1a\n" + GOOD, "an HDF5 file"),
        (
            with_text(items(), n_claimed=10_001),
            "not an npy file: its header claims 10,001 bytes, the most are 10,000",
        ),
        (with_text(items(), n_claimed=10_000), "not an npy file: it ends within its header"),
        (with_text(items(), n_claimed=2**32 - 1, version=2), "its header claims 4,294,967,295 bytes"),
        (
            with_text(items(shape="(10000, 10000, 10000)")),
            "cut short: 24 bytes of values instead of 1000000000000",
        ),
        (with_text(items(shape="(2, 9999999999999999999, 4)")), "file is cut short: 24 bytes of values"),
        (
            with_text(items(shape="(4294967296, 4294967296, 1)")),
            "file is cut short",
        ),  # 0 if it wrapped around
    ],
)
def test_bad_array_files(tmp_path, whole, reason):
    (tmp_path / "bad.npy").write_bytes(whole)
    with pytest.raises(ChunkError, match=reason) as caught:
        npy.read_header(tmp_path / "bad.npy")
    assert str(tmp_path / "bad.npy") in str(caught.value)


def test_the_length_that_a_header_claims_is_not_read(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        file.write(with_text(items(), version=2, n_claimed=2**30))
        file.truncate(2**30 + 100)
    tracemalloc.start()
    with pytest.raises(ChunkError, match="its header claims 1,073,741,824 bytes"):
        npy.read_header(tmp_path / "a.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


DAMAGED = (
    GOOD,
    npy_bytes(np.zeros((2, 3, 4), ">u2", order="F")),
    npy_bytes(np.zeros((24, 1), np.bool_)),
    npy_bytes(np.zeros(6, [("f", "u1"), ("g", "u1", (3,))])),
    npy_bytes(np.zeros((2, 3, 4), np.uint8), (2, 0)),
    with_text(items(shape="(2L, 3L, 4L)")),
    with_text(items("'|S9'") + " " * 400, version=3),
    with_text(items(shape="(" * 90 + "2, 3, 4" + ")" * 90)),
)


def damaged(rng):
    """A file with a header that is damaged in one or two places."""
    whole = bytearray(DAMAGED[rng.integers(len(DAMAGED))])
    for _ in range(rng.integers(1, 3)):
        at, n = (int(rng.integers(one)) for one in (min(len(whole), 140), 12))
        other = DAMAGED[rng.integers(len(DAMAGED))]
        kind = rng.integers(8)
        if kind == 0:
            whole[at] ^= 1 << rng.integers(8)
        elif kind == 1:
            whole[at] = rng.choice(list(b"0123456789'\"()[]{},:-+.*\\LTFbuOSV<>|? \n\0\xff"))
        elif kind == 2:
            del whole[at : at + n]
        elif kind == 3:
            whole[at:at] = rng.bytes(n)
        elif kind == 4:
            whole[at:at] = whole[at : at + n] * int(rng.integers(1, 50))
        elif kind == 5:
            del whole[at:]
            whole += b"\0"  # so that there is something left to damage
        elif kind == 6:
            whole[8:10] = rng.bytes(2) if rng.integers(2) else struct.pack("<H", len(whole) % 200)
        else:
            whole[at : at + n] = other[at : at + n]
    return bytes(whole)


def test_damaged_headers_are_errors_of_their_file_or_read_as_numpy_reads_them(tmp_path):
    rng, n_read = np.random.default_rng(12), 0
    for number in range(1000):
        path = tmp_path / f"{number}.npy"
        path.write_bytes(damaged(rng))
        try:
            with NpyFile(path) as file:
                header, values = file.header, file.read() if all(file.header.shape or [0]) else None
        except ChunkError:
            continue
        n_read += 1
        with warnings.catch_warnings(action="ignore"):  # of Python 2
            array = np.load(path)
        assert (header.shape, header.dtype) == (array.shape, array.dtype)
        assert values is None or np.array_equal(values, array)
        assert array.flags.f_contiguous if header.is_fortran else array.flags.c_contiguous
    assert n_read > 50


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


def no_memory(n_bytes):
    raise MemoryError


def test_values_that_do_not_fit_into_memory(zeros):
    with NpyFile(zeros) as file, pytest.raises(ChunkError, match=r"x\.npy: file does not fit into memory"):
        file.read(allocate=no_memory)


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
    with pytest.raises(ChunkError, match="not an npy file: it is empty"):
        npy.read_header(tmp_path / "pipe.npy")


def test_a_name_that_no_file_can_have(tmp_path):
    with pytest.raises(ChunkError, match=r"file cannot be read: .*embedded null"):
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
