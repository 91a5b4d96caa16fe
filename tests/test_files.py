import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from synprep._core import files
from synprep._core.errors import ChunkError, OutputError


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64, ">u2"])
def test_saved_bytes_are_those_of_numpy(tmp_path, dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    files.save_array(tmp_path / "ours.npy", array.swapaxes(0, 2))
    np.save(tmp_path / "numpy.npy", np.ascontiguousarray(array.swapaxes(0, 2)))
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "a.txt") as file:
        file.write(b"half")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_file_appears_when_it_is_whole_with_usual_permissions(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with files.replacing(path) as file:
        file.write(b"text")
        assert not path.exists()
    (tmp_path / "plain").touch()
    assert path.read_text() == "text"
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_copy_has_the_bytes_and_the_time_of_its_source(tmp_path):
    (tmp_path / "a").write_bytes(b"text" * 3_000_000)
    os.utime(tmp_path / "a", ns=(5, 1_234_567_891))
    files.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert (tmp_path / "b").stat().st_mtime_ns == 1_234_567_891


def test_a_source_that_cannot_be_copied_is_named(tmp_path):
    with pytest.raises(ChunkError, match=r"a: file is missing"):
        files.copy_file(tmp_path / "a", tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_hard_link_replaces_and_leaves_nothing_else(tmp_path):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    for _ in range(2):
        files.link_file(tmp_path / "a", tmp_path / "b")
        assert os.path.samefile(tmp_path / "a", tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_hard_link_to_a_symbolic_link_is_one_to_the_file(tmp_path):
    (tmp_path / "a").write_text("text")
    (tmp_path / "s").symlink_to("a")
    (tmp_path / "folder").mkdir()
    files.link_file(tmp_path / "s", tmp_path / "folder" / "b")
    assert (tmp_path / "folder" / "b").read_text() == "text"


def test_a_file_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.x\.txt: cannot be written: "):
        files.save_bytes(tmp_path / "file" / "x.txt", b"")


def test_a_file_in_use_leaves_the_new_one_under_the_name_in_the_error(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError("in use")

    (tmp_path / "meta.csv").write_text("old")
    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OutputError, match="is in use by another program; the new file is") as caught:
        files.save_bytes(tmp_path / "meta.csv", b"new")
    assert Path(str(caught.value).split("the new file is ")[1]).read_text() == "new"
    assert (tmp_path / "meta.csv").read_text() == "old"


def test_left_overs_of_killed_runs_are_removed_and_nothing_else(tmp_path):
    left_over = tmp_path / f".123-{'0a' * 16}.tmp"
    for path in (left_over, tmp_path / ".mine.tmp", tmp_path / "1.tmp", tmp_path / "1.npy"):
        path.touch()
    files.clean_up(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "1.npy", "1.tmp"]


def test_temporary_names_are_of_the_form_that_is_cleaned_up(tmp_path):
    with files.replacing(tmp_path / "x") as file:
        file.write(b"")
        files.clean_up(tmp_path)
        assert list(tmp_path.iterdir()) == []
        (tmp_path / Path(file.name).name).touch()


def test_existing_folder(tmp_path):
    assert files._existing(tmp_path / "a" / "b") == tmp_path


def test_json_holds_numpy_values_and_null_for_nan(tmp_path):
    record = {
        "a": np.arange(2),
        "b": np.float64(0.5),
        "c": float("nan"),
        "d": ["é"],
        "e": {"f": np.array([np.nan])},
    }
    files.save_json(tmp_path / "r.json", record)
    assert json.loads((tmp_path / "r.json").read_text("utf-8")) == {
        "a": [0, 1],
        "b": 0.5,
        "c": None,
        "d": ["é"],
        "e": {"f": [None]},
    }


def test_names_that_are_no_text_come_back(tmp_path):
    record = {"raw_em_data_path": "/data/caf\udce9"}
    files.save_json(tmp_path / "r.json", record)
    assert json.loads((tmp_path / "r.json").read_text("utf-8")) == record


def test_move_aside_takes_the_next_free_number(tmp_path):
    assert files.move_aside(tmp_path / "meta.csv") is None
    for number in (1, 2):
        (tmp_path / "meta.csv").write_text(str(number))
        assert files.move_aside(tmp_path / "meta.csv") == tmp_path / f"meta.{number}.csv"
    assert (tmp_path / "meta.1.csv").read_text() == "1"
    assert not (tmp_path / "meta.csv").exists()


def test_a_file_that_cannot_be_renamed_or_removed_is_one_error(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "in use")

    (tmp_path / "meta.csv").touch()
    files.remove(tmp_path / "nothing")
    monkeypatch.setattr(files.os, "replace", refuse)
    monkeypatch.setattr(files.Path, "unlink", refuse)
    for act in (files.move_aside, files.remove):
        with pytest.raises(OutputError, match=r"meta\.csv: cannot be renamed or removed: in use"):
            act(tmp_path / "meta.csv")


def test_left_overs_are_removed_in_several_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f".1-{'0a' * 16}.tmp").touch()
    files.clean_up(tmp_path / "a", tmp_path / "b", tmp_path / "nothing")
    assert not [*tmp_path.glob("*/.*")]


def test_the_last_file_that_was_kept(tmp_path):
    assert files.last_aside(tmp_path / "meta.csv") is None
    for name in ("meta.csv", "meta.1.csv", "meta.2.csv", "meta.4.csv"):
        (tmp_path / name).touch()
    assert files.last_aside(tmp_path / "meta.csv") == tmp_path / "meta.2.csv"
    (tmp_path / "meta.3.csv").mkdir()
    (tmp_path / "meta.4.csv").unlink()
    assert files.last_aside(tmp_path / "meta.csv") is None


def test_folders_are_made_and_a_full_disk_leaves_nothing(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    with pytest.raises(OutputError, match=r"c\.txt: cannot be written: no space$"), files.replacing(path):
        raise OSError(28, "no space")
    with pytest.raises(OutputError, match=r"c\.txt: cannot be written: nobody knows$"), files.replacing(path):
        raise OSError("nobody knows")
    assert list(path.parent.iterdir()) == []


def test_an_input_that_cannot_be_read_is_named(tmp_path):
    for error, reason in ((OSError(5, "bad disk"), "bad disk"), (OSError("nobody knows"), "nobody knows")):
        with pytest.raises(ChunkError, match=f"x: file cannot be read: {reason}$"), files.reading("x"):
            raise error


def test_a_disk_that_is_too_small_is_said_before(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_500_000_000))
    files.refuse_full_disk(tmp_path / "new", 1_500_000_000)
    message = "new: the run will write 2.25 GB and only 1.50 GB are free$"
    with pytest.raises(OutputError, match=message):
        files.refuse_full_disk(tmp_path / "new", 2_250_000_000)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", ValueError), (b"[]", ValueError), (b"[" * 100_000, ValueError), (None, FileNotFoundError)],
)
def test_json_that_is_no_mapping_is_an_error(tmp_path, content, error):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(error):
        files.read_json(tmp_path / "a.json")


def test_json_is_read_back(tmp_path):
    files.save_json(tmp_path / "a.json", {"ü": [1, None]})
    assert files.read_json(tmp_path / "a.json") == {"ü": [1, None]}


def test_a_hard_link_that_cannot_be_is_one_error(tmp_path):
    with pytest.raises(
        OutputError, match=r"b: cannot be a hard link to .*a \(else set link_mode to copy\): No such"
    ):
        files.link_file(tmp_path / "a", tmp_path / "b")


def test_folders_are_flushed_after_each_change_of_names(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(files, "sync_folder", flushed.append)
    files.save_bytes(tmp_path / "meta.csv", b"")
    files.move_aside(tmp_path / "meta.csv")
    files.rename(tmp_path / "meta.1.csv", tmp_path / "meta.csv")
    files.remove(tmp_path / "meta.csv")
    assert flushed == [tmp_path] * 4
