import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synprep import storage
from synprep.errors import ChunkError, OutputError, TableError


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64, ">u2"])
def test_array_comes_back(tmp_path, order, dtype):
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 7, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    header = storage.read_header(tmp_path / "a.npy")
    assert (header.shape, header.is_fortran, header.dtype) == ((2, 3, 4), order == "F", np.dtype(dtype))
    assert np.array_equal(storage.read_sections(tmp_path / "a.npy", header), array)
    part = storage.read_sections(tmp_path / "a.npy", header, 1, 3)
    assert np.array_equal(part, array[:, :, 1:3])


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64, ">u2"])
def test_saved_bytes_are_those_of_numpy(tmp_path, dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    storage.save_array(tmp_path / "ours.npy", array.swapaxes(0, 2))
    np.save(tmp_path / "numpy.npy", np.ascontiguousarray(array.swapaxes(0, 2)))
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), storage.replacing(tmp_path / "a.txt") as file:
        file.write(b"half")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_file_appears_when_it_is_whole_with_usual_permissions(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with storage.replacing(path) as file:
        file.write(b"text")
        assert not path.exists()
    (tmp_path / "plain").touch()
    assert path.read_text() == "text"
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_copy_has_the_bytes_and_the_time_of_its_source(tmp_path):
    (tmp_path / "a").write_bytes(b"text" * 3_000_000)
    os.utime(tmp_path / "a", ns=(5, 1_234_567_891))
    storage.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert (tmp_path / "b").stat().st_mtime_ns == 1_234_567_891


def test_a_source_that_cannot_be_copied_is_named(tmp_path):
    with pytest.raises(ChunkError, match=r"a: file is missing"):
        storage.copy_file(tmp_path / "a", tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_hard_link_replaces_and_leaves_nothing_else(tmp_path):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    for _ in range(2):
        storage.link_file(tmp_path / "a", tmp_path / "b")
        assert os.path.samefile(tmp_path / "a", tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_hard_link_to_a_symbolic_link_is_one_to_the_file(tmp_path):
    (tmp_path / "a").write_text("text")
    (tmp_path / "s").symlink_to("a")
    (tmp_path / "folder").mkdir()
    storage.link_file(tmp_path / "s", tmp_path / "folder" / "b")
    assert (tmp_path / "folder" / "b").read_text() == "text"


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
        storage.read_header(path)
    assert str(path) in str(caught.value)


def test_python_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    with pytest.raises(ChunkError, match="Python objects, which are never loaded"):
        storage.read_header(tmp_path / "x.npy")


def test_missing_array_file(tmp_path):
    with pytest.raises(ChunkError, match=r"gone\.npy: file is missing"):
        storage.read_header(tmp_path / "gone.npy")


def test_a_file_cut_after_its_header_was_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4), np.uint8))
    header = storage.read_header(tmp_path / "x.npy")
    os.truncate(tmp_path / "x.npy", header.offset + 5)
    with pytest.raises(ChunkError, match=r"x\.npy: file is cut short"):
        storage.read_sections(tmp_path / "x.npy", header)


def test_a_file_cut_in_the_middle_of_reading(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4), np.uint8))
    header = storage.read_header(tmp_path / "x.npy")
    monkeypatch.setattr(storage, "_fill", lambda file, values: values.nbytes - 1)
    with pytest.raises(ChunkError, match=r"x\.npy: file was cut short while it was read"):
        storage.read_sections(tmp_path / "x.npy", header)


@pytest.mark.parametrize(("order", "n_bytes"), [("C", 8000), ("F", 1200)])
def test_only_the_kept_sections_of_a_fortran_ordered_file_are_read(tmp_path, monkeypatch, order, n_bytes):
    array = np.asarray(np.arange(8000).reshape(20, 20, 20) % 251, dtype=np.uint8, order=order)
    np.save(tmp_path / "x.npy", array)
    header, fill, read = storage.read_header(tmp_path / "x.npy"), storage._fill, []
    monkeypatch.setattr(storage, "_fill", lambda file, values: read.append(fill(file, values)) or read[-1])
    assert np.array_equal(storage.read_sections(tmp_path / "x.npy", header, 8, 11), array[:, :, 8:11])
    assert read == [n_bytes]


def test_each_thread_reads_into_its_own_memory_again_and_again(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4), np.uint8))
    header = storage.read_header(tmp_path / "x.npy")
    mine = [storage.read_sections(tmp_path / "x.npy", header) for _ in range(2)]
    assert np.shares_memory(*mine)
    with ThreadPoolExecutor(1) as executor:
        other = executor.submit(storage.read_sections, tmp_path / "x.npy", header).result()
    assert not np.shares_memory(mine[0], other)


def test_a_file_replaced_after_its_header_was_read(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4), np.uint8))
    header = storage.read_header(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((4, 3, 2), np.uint8))
    with pytest.raises(ChunkError, match=r"x\.npy: file changed while it was used"):
        storage.read_sections(tmp_path / "x.npy", header)


def test_a_file_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.x\.txt: cannot be written: "):
        storage.save_bytes(tmp_path / "file" / "x.txt", b"")


def test_a_file_in_use_leaves_the_new_one_under_the_name_in_the_error(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError("in use")

    (tmp_path / "meta.csv").write_text("old")
    monkeypatch.setattr(storage.os, "replace", refuse)
    with pytest.raises(OutputError, match="is in use by another program; the new file is") as caught:
        storage.save_bytes(tmp_path / "meta.csv", b"new")
    assert Path(str(caught.value).split("the new file is ")[1]).read_text() == "new"
    assert (tmp_path / "meta.csv").read_text() == "old"


def test_left_overs_of_killed_runs_are_removed_and_nothing_else(tmp_path):
    left_over = tmp_path / f".123-{'0a' * 16}.tmp"
    for path in (left_over, tmp_path / ".mine.tmp", tmp_path / "1.tmp", tmp_path / "1.npy"):
        path.touch()
    storage.clean_up(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "1.npy", "1.tmp"]


def test_temporary_names_are_of_the_form_that_is_cleaned_up(tmp_path):
    with storage.replacing(tmp_path / "x") as file:
        file.write(b"")
        storage.clean_up(tmp_path)
        assert list(tmp_path.iterdir()) == []
        (tmp_path / Path(file.name).name).touch()


def test_existing_folder(tmp_path):
    assert storage.existing(tmp_path / "a" / "b") == tmp_path


def test_table_is_text_with_lf(tmp_path):
    table = pd.DataFrame({"synapse_id": ["007", "NA", "1,5"], "v": [1.0, np.nan, 2.5]})
    storage.save_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_bytes() == b'synapse_id,v\n007,1.0\nNA,\n"1,5",2.5\n'
    assert storage.read_table(tmp_path / "t.csv").values.tolist() == [
        ["007", "1.0"],
        ["NA", ""],
        ["1,5", "2.5"],
    ]


@pytest.mark.parametrize(
    ("text", "reason"), [("id\n1\n", "has no column synapse_id; its columns are id"), ("", "cannot be read")]
)
def test_bad_tables(tmp_path, text, reason):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=reason):
        storage.read_table(tmp_path / "t.csv")


def test_json_holds_numpy_values_and_null_for_nan(tmp_path):
    record = {
        "a": np.arange(2),
        "b": np.float64(0.5),
        "c": float("nan"),
        "d": ["é"],
        "e": {"f": np.array([np.nan])},
    }
    storage.save_json(tmp_path / "r.json", record)
    assert json.loads((tmp_path / "r.json").read_text("utf-8")) == {
        "a": [0, 1],
        "b": 0.5,
        "c": None,
        "d": ["é"],
        "e": {"f": [None]},
    }


def test_move_aside_takes_the_next_free_number(tmp_path):
    assert storage.move_aside(tmp_path / "meta.csv") is None
    for number in (1, 2):
        (tmp_path / "meta.csv").write_text(str(number))
        assert storage.move_aside(tmp_path / "meta.csv") == tmp_path / f"meta.{number}.csv"
    assert (tmp_path / "meta.1.csv").read_text() == "1"
    assert not (tmp_path / "meta.csv").exists()


def test_ignores_case_agrees_with_the_file_system(tmp_path):
    answer = storage.ignores_case(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").touch()
    assert answer == (tmp_path / "A").exists()


def test_a_file_that_cannot_be_renamed_or_removed_is_one_error(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "in use")

    (tmp_path / "meta.csv").touch()
    storage.remove(tmp_path / "nothing")
    monkeypatch.setattr(storage.os, "replace", refuse)
    monkeypatch.setattr(storage.Path, "unlink", refuse)
    for act in (storage.move_aside, storage.remove):
        with pytest.raises(OutputError, match=r"meta\.csv: cannot be renamed or removed: in use"):
            act(tmp_path / "meta.csv")


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no hints about files")
@pytest.mark.parametrize(("order", "first", "n_bytes"), [("C", 128, 8000), ("F", 128 + 8 * 400, 1200)])
def test_what_is_read_next_is_announced(tmp_path, monkeypatch, order, first, n_bytes):
    np.save(tmp_path / "x.npy", np.zeros((20, 20, 20), np.uint8, order=order))
    hints = []
    monkeypatch.setattr(storage.os, "posix_fadvise", lambda fd, *hint: hints.append(hint))
    storage.expect_sections(tmp_path / "x.npy", storage.read_header(tmp_path / "x.npy"), 8, 11)
    assert hints == [(first, n_bytes, os.POSIX_FADV_WILLNEED)]
    storage.expect_sections(tmp_path / "gone.npy", storage.read_header(tmp_path / "x.npy"), 8, 11)
