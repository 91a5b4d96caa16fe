"""Tables, and reading a processed data set back: types, text ids, and messages for what is missing."""

import csv
import errno
import gzip
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import synprep
from synprep import merge, pairing, preprocess
from synprep._core import files, preflight, problems, record, text_table
from synprep._core.errors import LockedError, OutputError, TableError
from synprep.params import Preprocess


def test_rows_are_sorted_by_id_as_text():
    rows = [record.meta_row(i, (2, 4, 4, 3), {1: 5.0, 2: 0.0, 3: 7.5}, 1) for i in ("9", "10", "007", "NA")]
    meta = record.meta_table(rows)
    assert meta["synapse_id"].tolist() == ["007", "10", "9", "NA"]
    assert meta.to_csv(index=False).splitlines()[:2] == [
        "synapse_id,filename,pre_synaptic_volume,post_synaptic_volume,synaptic_cleft_volume,n_cutout_sections",
        "007,007__2_4_4_3.npy,5.0,7.5,0.0,1",
    ]


def test_tables_without_rows_have_their_columns():
    assert list(record.meta_table([])) == list(record.META_COLUMNS)
    assert list(record.sections_table([])) == list(record.SECTION_COLUMNS)


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
        with record.locked(tmp_path):
            assert no_locks.exists()
            who = (
                rf"process {os.getpid()} on {platform.node()}; wait until it ends, or, if it has died, delete"
            )
            with pytest.raises(LockedError, match=rf"another run is writing .*: {who} {no_locks}"):
                record.locked(tmp_path).__enter__()
        assert not no_locks.exists()


def test_the_file_of_a_process_that_died_here_is_void(no_locks, tmp_path):
    code = "import filelock, os, sys; lock = filelock.SoftFileLock(sys.argv[1]); lock.acquire(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(no_locks)], check=True)
    assert no_locks.exists()
    with record.locked(tmp_path):
        assert no_locks.read_text().startswith(f"{os.getpid()}\n")


def test_the_file_of_another_host_says_what_to_do(no_locks, tmp_path):
    no_locks.write_text("17\nelsewhere\n")
    with pytest.raises(LockedError, match=rf"process 17 on elsewhere; .* if it has died, delete {no_locks}"):
        record.locked(tmp_path).__enter__()
    no_locks.write_text("")
    with pytest.raises(LockedError, match=rf"that has just started, .*; .* delete {no_locks}"):
        record.locked(tmp_path).__enter__()
    no_locks.unlink()
    with record.locked(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_place_of_a_lock_is_not_waited_for(tmp_path):
    (tmp_path / ".synprep").mkdir()
    os.mkfifo(tmp_path / ".synprep" / "lock")
    with record.read_locked(tmp_path):
        pass
    with pytest.raises(OutputError, match="cannot be written"):
        record.locked(tmp_path).__enter__()


def test_another_error_of_a_lock_is_about_the_folder(monkeypatch, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OutputError, match="cannot be written: Input/output error"):
        record.locked(tmp_path).__enter__()


def git(folder, *arguments):
    settings = ["-c", "user.name=me", "-c", "user.email=me@here"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout that holds the package, with one commit."""
    folder = tmp_path / "checkout"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "preprocess.ipynb").touch()
    for name in ("params/mine.yaml", "synprep/__init__.py"):
        (folder / name).parent.mkdir()
        (folder / name).touch()
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "First")
    monkeypatch.setattr(synprep, "__file__", str(folder / "synprep" / "__init__.py"))
    return folder


def test_the_commit_is_that_of_the_package(checkout, tmp_path, monkeypatch):
    def written():
        return record.versions()["commit"]

    commit = git(checkout, "rev-parse", "HEAD")
    assert (len(commit), written()) == (40, commit)
    git(checkout, "pack-refs", "--all")
    assert written() == commit
    git(checkout, "commit", "--allow-empty", "-m", "Second")
    assert written() == git(checkout, "rev-parse", "HEAD") != commit
    git(checkout, "checkout", "--detach", commit)
    assert written() == commit
    git(checkout, "worktree", "add", "-b", "a/b", str(tmp_path / "other"), commit)
    monkeypatch.setattr(synprep, "__file__", str(tmp_path / "other" / "synprep" / "__init__.py"))
    assert (tmp_path / "other" / ".git").is_file()
    assert written() == commit
    git(checkout, "pack-refs", "--all")
    assert written() == commit


def test_no_commit_is_made_up(checkout):
    head = checkout / ".git" / "HEAD"
    for text in ("ref: refs/heads/unborn", "ref: ../../notebooks/preprocess.ipynb", "nonsense", ""):
        head.write_text(text)
        assert record.versions()["commit"] is None
    head.unlink()
    assert record.versions()["commit"] is None


def test_a_package_in_another_project_s_checkout_has_no_commit(checkout):
    (checkout / "notebooks" / "preprocess.ipynb").unlink()  # such as pip install --target .
    assert record.versions()["commit"] is None


@pytest.mark.parametrize("is_own", [False, True])
def test_nothing_is_run_that_a_checkout_s_settings_name(is_own, checkout, tmp_path, monkeypatch):
    """Neither those of the working folder nor those of the package's own checkout."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o700)
    (checkout / ".gitattributes").write_text("* filter=hostile\n")
    for name in ("core.fsmonitor", "filter.hostile.clean", "core.sshCommand", "core.pager"):
        git(checkout, "config", name, str(program))
    (checkout / "synprep" / "__init__.py").write_text("changed")
    if not is_own:
        monkeypatch.undo()
    monkeypatch.chdir(checkout)
    record.versions()
    assert not (tmp_path / "ran").exists()


def test_table_is_text_with_lf(tmp_path):
    table = pd.DataFrame({"synapse_id": ["007", "NA", "1,5"], "v": [1.0, np.nan, 2.5]})
    record.save_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_bytes() == b'synapse_id,v\n007,1.0\nNA,\n"1,5",2.5\n'
    assert record.read_table(tmp_path / "t.csv").values.tolist() == [
        ["007", "1.0"],
        ["NA", ""],
        ["1,5", "2.5"],
    ]


IDS = [
    "007",
    "NA",
    "1e5",
    "8.6E+17",
    "=1",
    "'1",
    " 1",
    "1 ",
    "a,b",
    'a"b',
    "a\rb",
    "a\nb",
    "a\r\nb",
    "\u2028",
]


@given(st.lists(st.sampled_from(IDS) | st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
@example(IDS)
def test_what_is_written_is_read_again(ids):
    table = pd.DataFrame({"synapse_id": ids, "note": ids[::-1], "v": "1"}, dtype="str")
    with tempfile.TemporaryDirectory() as folder:
        record.save_table(f"{folder}/t.csv", table)
        pd.testing.assert_frame_equal(record.read_table(f"{folder}/t.csv"), table)


def test_what_is_not_unicode_can_be_written(tmp_path):
    table = pd.DataFrame({"synapse_id": ["1"], "em_path": ["caf\udce9/1.npy"]})
    record.save_table(tmp_path / "t.csv", table)
    assert record.read_table(tmp_path / "t.csv").values.tolist() == [["1", r"caf\udce9/1.npy"]]


READERS = [record.read_table, record.read_ids]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id\n1\n", "has no column 'synapse_id'; its columns are id"),
        (b"", "has no header: it is empty"),
        (b" \n\r\n\n", "has no header: it is empty"),
        (b"synapse_id,a\n1,x,9\n2,y,9\n", "line 2 has 3 fields, the header 2"),
        (b"synapse_id,a\n1,x\n2,y,9\n", "line 3 has 3 fields, the header 2"),
        (b'synapse_id,a\n"1",x\n2,y,9\n', "line 3 has 3 fields, the header 2"),
        (b"synapse_id,a\n1,x\n\n2\n", "line 4 has 1 field, the header 2: is the file cut off?"),
        (b"synapse_id\n1,\n", "line 2 has 2 fields, the header 1"),
        (b"synapse_id;a\n1;x\n", "columns are separated by semicolons"),
        (b"synapse_id\ta\n1\tx\n", "columns are separated by tabs"),
        ("synapse_id,a\n1,x\n".encode("utf-16"), "is UTF-16 text"),
        ("synapse_id,a\n1,x\n".encode("utf-16-be"), "is UTF-16 text"),
        (b"synapse_id,a\n1,x\n2,\xe9\n", "line 3 is not UTF-8 text"),
        (b'synapse_id,a\n1,x\n2,"y\n', "is not CSV"),
        (b"synapse_id,a,synapse_id\n1,x,2\n", "has 2 columns 'synapse_id'"),
        (b"PK\x03\x04" + b"x" * 40, "is a zip file or a spreadsheet"),
        (b"\n <html><body>Sign in</body></html>\n", "is a web page"),
        (gzip.compress(b"synapse_id\n" + b"1\n" * 50, mtime=0)[:-9], "is cut off or damaged"),
    ],
)
def test_tables_that_cannot_be_trusted(tmp_path, read, content, reason):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(TableError) as error:
        read(tmp_path / "t.csv")
    assert str(error.value).startswith(f"{tmp_path / 't.csv'}: ") and reason in str(error.value)


@pytest.mark.parametrize("read", READERS)
def test_a_table_that_is_not_there_or_a_folder(tmp_path, read):
    for path, reason in ((tmp_path / "no.csv", "there is no such file"), (tmp_path, "is not a file")):
        with pytest.raises(TableError, match=reason):
            read(path)


def test_a_whole_table_has_no_column_twice_and_no_nul(tmp_path):
    path = tmp_path / "t.csv"
    for content, reason in (
        (b"synapse_id,a,a\n1,x,y\n", "has 2 columns 'a'"),
        (b"synapse_id,a\n1,a value that is long\n2,\0\n", "line 3 holds a NUL byte: is the file damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(TableError, match=reason):
            record.read_table(path)


ODD_TABLES = st.text(alphabet='ab,,,"\n\n\r; #', max_size=20).map(lambda text: f"x,{text}")


@given(ODD_TABLES)
@settings(max_examples=200)
def test_a_whole_table_is_what_its_rows_are(text):
    """However it is read: by pandas, which is fast and lenient, or row by row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.csv")
        path.write_bytes(text.encode())
        try:
            table = text_table.read(path)
        except TableError:
            return
        header = next(csv.reader(io.StringIO(text, newline="")))
        named = [name for name in header if name]
        assert [name for name in table if not name.startswith("Unnamed: ")] == named
        rows = [values for _, values in text_table.rows(path, named)]
        assert table[named].values.tolist() == [[*values] for values in rows]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
@pytest.mark.parametrize("last", ["", "\n", "  "])
def test_other_ways_to_write_the_same(tmp_path, start, end, last):
    lines = [start + "synapse_id,a", "007,x", "", '"NA",y', "007,x" + last]
    (tmp_path / "t.csv").write_bytes("\n".join(lines).replace("\n", end).encode())
    assert record.read_ids(tmp_path / "t.csv") == ["007", "NA"]
    table = record.read_table(tmp_path / "t.csv")
    assert table["synapse_id"].tolist() == ["007", "NA", "007"]
    assert [value.strip() for value in table["a"]] == ["x", "y", "x"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("8.6E+17", "line 3: '8.6E+17': ids stored as floating point lose their last digits"),
        ("864691135341198336.0", "line 3: '864691135341198336.0': ids stored as floating point"),
        ('"=""007"""', "line 3: '=\"007\"': a spreadsheet's way to write text"),
        ("'007", "line 3: \"'007\": a spreadsheet's way to write text"),
        (" 007", "line 3: ' 007': with blanks around it"),
        ("007\u200b", r"line 3: '007\\u200b': with blanks around it"),
        ("007\u00a0", r"line 3: '007\\xa0': with blanks around it"),
        ("0\0" + "07", r"line 3: '0\\x0007': with a NUL byte in it"),
        (",", "line 3: no synapse id"),
    ],
)
def test_listed_ids_that_a_program_has_changed(tmp_path, row, reason):
    path = tmp_path / "ids.csv"
    path.write_text(f"synapse_id,a column of notes on them\n5,\n{row}{',' if row != ',' else ''}\n", "utf-8")
    with pytest.raises(TableError) as error:
        record.read_ids(path)
    assert f"{path}: {reason}" in str(error.value)


def test_a_list_without_ids(tmp_path):
    (tmp_path / "ids.csv").write_text("synapse_id\n")
    with pytest.raises(TableError, match="lists no synapse id"):
        record.read_ids(tmp_path / "ids.csv")


WARNINGS = [
    problems.warning("no cleft voxel", (1, 3)),
    problems.warning("no presynaptic voxel", ()),
    problems.warning("labels outside 0 to 3", range(4, 17)),
    problems.warning("the crop removed all cleft voxels"),
]
DETAILED = problems.warning("cleft is cut off", detail="at x = 0")


def test_the_record_gives_back_what_it_was_given(tmp_path):
    columns = {"cutout_fraction": [0.5], "mean": [np.nan], "std": [1.5], "is_blanked": [True]}
    columns = {name: np.array(column) for name, column in columns.items()}
    row = record.meta_row("007", (2, 4, 4, 1), {1: 5.0, 2: 0.0, 3: 7.5}, 1)
    entry = record.Entry("key", [[1, 2], [3, 4]], [5, 6], row, columns, [*WARNINGS, DETAILED])
    (tmp_path / record.HIDDEN).mkdir()
    record.append_done(tmp_path, entry)
    (found,) = record.read_done(tmp_path).values()
    assert vars(found) | {"sections": 0} == vars(entry) | {"sections": 0}
    for name, column in columns.items():
        np.testing.assert_array_equal(found.sections[name], column)


def test_a_chunk_that_was_recorded_without_a_column_is_not_done(processed):
    _, folder = processed
    path = folder / record.HIDDEN / "record.jsonl"
    lines = {line["row"]["synapse_id"]: line for line in map(json.loads, path.read_text().splitlines())}
    for line in lines.values():
        del line["check"]
    del lines["007"]["sections"]["std"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines.values()))
    assert list(record.read_done(folder)) == ["NA"]


@pytest.mark.parametrize("warning", WARNINGS, ids=lambda warning: warning.kind)
def test_warnings_that_were_recorded_as_text_are_understood(warning):
    found = record._warning(warning.text)
    assert found.text == warning.text
    n_labels = len(warning.labels_found or ())
    assert found == warning or n_labels > 10  # of so many the text does not have all


@pytest.fixture
def processed(write_pair, paths):
    for synapse_id in ("007", "NA"):
        write_pair(synapse_id)
    p = Preprocess(**paths, voxel_size_xy_nm=4.0, axial_to_sagittal_spacing=2.5)
    return preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False), Path(p.proc_data_path)


def test_tables_are_those_of_the_run(processed):
    result, folder = processed
    for path in (folder, folder / "meta.csv"):
        data = record.load(path)
        pd.testing.assert_frame_equal(data.meta, result.meta)
        pd.testing.assert_frame_equal(data.sections, result.sections)
        assert data.folder == folder
        assert data.parameters["axial_to_sagittal_spacing"] == 2.5
        assert data.spacing_xyz_nm.tolist() == [4.0, 4.0, 10.0]


def test_means_of_black_sections_stay_missing(processed):
    _, folder = processed
    rows = pd.read_csv(folder / "sections.csv", dtype=str, keep_default_na=False)
    rows.loc[0, ["mean", "std"]] = ""
    rows.to_csv(folder / "sections.csv", index=False)
    data = record.load(folder)
    assert data.sections["mean"].isna().sum() == 1
    assert data.meta["synapse_id"].tolist() == ["007", "NA"]


def test_other_columns_are_kept_as_text(processed):
    _, folder = processed
    table_text = (folder / "meta.csv").read_text().splitlines()
    lines = [table_text[0] + ",root_id", *(line + ",0042" for line in table_text[1:])]
    (folder / "meta.csv").write_text("\n".join(lines))
    assert record.load(folder).meta["root_id"].tolist() == ["0042", "0042"]


@pytest.mark.parametrize("name", ["meta.csv", "sections.csv", "run.json"])
def test_a_missing_file_is_named(processed, name):
    _, folder = processed
    (folder / name).unlink()
    with pytest.raises(TableError, match=name):
        record.load(folder)


def test_a_broken_record_is_named(processed):
    _, folder = processed
    (folder / "run.json").write_text(json.dumps({"counts": 3}))
    with pytest.raises(TableError, match=r"run\.json: not a run record"):
        record.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("n_cutout_sections", "n_cut", "no column 'n_cutout_sections'"), ("\n007,", "\n007,x,y", "meta")],
)
def test_a_table_of_another_form_is_refused(processed, old, new, message):
    _, folder = processed
    path = folder / "meta.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TableError, match=message):
        record.load(folder)


WRONG_VALUES = [
    *(
        ("meta.csv", "pre_synaptic_volume", value)
        for value in ("1,234", "20,5", "nan", "inf", "-1", "", "1e999")
    ),
    *(("meta.csv", "n_cutout_sections", value) for value in ("1.5", "-1", "", "True", "10", "NaN")),
    *(("meta.csv", "synapse_id", value) for value in ("7", "7.0", "8.6E+17", " 007", "NA", "")),
    ("meta.csv", "filename", ""),
    *(("sections.csv", "mean", value) for value in ("nan", "-inf", "1,5", "-3", "256")),
    *(("sections.csv", "cutout_fraction", value) for value in ("", "0,5", "1.5")),
    *(("sections.csv", "is_blanked", value) for value in ("TRUE", "1", "", "maybe")),
    *(("sections.csv", "z", value) for value in ("0.5", "-1", "")),
]


def test_values_that_cannot_be_are_named(processed):
    _, folder = processed
    for name, column, value in WRONG_VALUES:
        before = record.read_table(folder / name)
        after = before.copy()
        after.loc[0, column] = value
        record.save_table(folder / name, after)
        with pytest.raises(TableError) as error:
            record.load(folder)
        record.save_table(folder / name, before)
        message = str(error.value)
        assert message.startswith(f"{folder / name}: ") and (value or column) in message, (column, value)
    record.load(folder)


def test_numbers_may_be_written_in_other_ways(processed):
    _, folder = processed
    before = record.load(folder)
    table = record.read_table(folder / "meta.csv")
    table["pre_synaptic_volume"] += "0"
    table["n_cutout_sections"] += ".0"
    record.save_table(folder / "meta.csv", table)
    pd.testing.assert_frame_equal(record.load(folder).meta, before.meta)


def test_a_parameter_that_is_not_recorded_is_named(processed):
    _, folder = processed
    written = json.loads((folder / "run.json").read_text())
    del written["parameters"]["voxel_size_xy_nm"]
    (folder / "run.json").write_text(json.dumps(written))
    with pytest.raises(TableError, match=r"run\.json: has no voxel_size_xy_nm"):
        _ = record.load(folder).spacing_xyz_nm


# Lines of the record that are damaged, or of another tool


def entry_of(synapse_id, n_sections=3, **changed):
    columns = {"cutout_fraction": 0.25, "mean": 127.5, "std": np.nan, "is_blanked": True}
    columns = {name: np.array([value] * n_sections) for name, value in columns.items()}
    row = record.meta_row(synapse_id, (2, 4, 4, n_sections), {1: 5.0, 2: 0.0, 3: 7.5}, n_sections)
    values = {"key": "k", "inputs": [[1, 2], [3, 4]], "output": [5, 6], "row": row, "sections": columns}
    return record.Entry(**values | {"warnings": [*WARNINGS, DETAILED]} | changed)


SOURCE = dict(
    zip(record.SOURCES_COLUMNS, ["1", -1.5, 2, 3.0, -4, 5, 6, "7", "8", "", None, 0, 0.5], strict=True)
)
ENTRIES = [
    entry_of("007"),
    entry_of("NA", 1),
    entry_of("ünï", 0, inputs=[[1.5, 2, 3], [4, 5], "hash"], source=SOURCE | {"synapse_id": "ünï"}),
    entry_of("raw", 0, row={"synapse_id": "raw", "filename": "raw.npy"}, output=[[1, 2], [3, 4]]),
]
LINES = {entry.synapse_id: record._line(entry) for entry in ENTRIES}


def read_lines(folder, content):
    (folder / record.HIDDEN).mkdir(exist_ok=True)
    (folder / record.HIDDEN / "record.jsonl").write_bytes(content)
    return record.read_done(folder)


def without_check(line):
    values = json.loads(line)
    del values["check"]
    return values


def test_whole_lines_are_read_with_and_without_a_check_sum(tmp_path):
    old = [json.dumps(without_check(line)).encode() for line in LINES.values()]
    for content in (b"".join(LINES.values()), b"\n".join(old), b"\r\n".join(old)):
        found = read_lines(tmp_path, content)
        assert {synapse_id: record._line(entry) for synapse_id, entry in found.items()} == LINES


def test_lines_without_a_check_sum_stay_as_they_are(tmp_path):
    old = b"".join(json.dumps(without_check(line)).encode() + b"\n" for line in LINES.values())
    assert list(read_lines(tmp_path, old)) == list(LINES)
    record.tidy_done(tmp_path)
    assert (tmp_path / record.HIDDEN / "record.jsonl").read_bytes() == old
    first, second = old.splitlines(keepends=True)[:2]
    read_lines(tmp_path, first + second + first[:-9] + b"\n" + LINES["NA"])
    record.tidy_done(tmp_path)
    assert (tmp_path / record.HIDDEN / "record.jsonl").read_bytes() == first + LINES["NA"]


def damaged(line, other, rng):
    """A line after one of the accidents that happen to files."""
    start, stop = sorted(rng.integers(0, len(line), 2).tolist())
    bit, position = 1 << int(rng.integers(8)), int(rng.integers(len(line)))
    flipped = line[:position] + bytes([line[position] ^ bit]) + line[position + 1 :]
    return [
        flipped,
        line[:start],
        line[stop:],
        line[:start] + line[stop:],
        line[:start] + bytes(stop - start) + line[stop:],
        line[:start] + rng.bytes(stop - start) + line[stop:],
        line[:start] + other[start:],
        line[:-1] + other,
        line[:start] + line[start:stop] + line[start:],
    ][int(rng.integers(9))]


def test_no_damage_is_taken_for_a_chunk(monkeypatch):
    rng, lines = np.random.default_rng(0), [*LINES.values()]
    for _ in range(1500):
        number, other = rng.integers(0, len(lines), 2).tolist()
        content = damaged(lines[number], lines[other], rng)
        monkeypatch.setattr(record, "_recorded", lambda folder, content=content: content)
        for synapse_id, entry in record.read_done("").items():
            assert record._line(entry) == LINES[synapse_id], content


def changed(*way, to):
    """The values of the first line with another one somewhere."""
    values = without_check(LINES["007"])
    inner = values
    for name in way[:-1]:
        inner = inner[name]
    inner[way[-1]] = to
    return json.dumps(values).encode()


NESTED = b"[" * 100_000 + b"]" * 100_000
NOT_CHUNKS = {
    "not JSON": b"synapse",
    "a number": b"7",
    "a list": b"[]",
    "nested": NESTED,
    "nested state": json.dumps(without_check(LINES["007"]))
    .encode()
    .replace(b"[5, 6]", b"[" * 900 + b"]" * 900),
    "state is a mapping": changed("output", to={"a": 1}),
    "state of mappings": changed("inputs", to=[{"a": {}}]),
    "state is missing": changed("output", to=None),
    "state is short": changed("output", to=[5]),
    "state of text": changed("output", to=[5, "6"]),
    "NUL": b"\0" * 80,
    "not UTF-8": changed("key", to="k").replace(b'"k"', b'"\xff"'),
    "UTF-16": json.dumps(without_check(LINES["007"])).encode("utf-16"),
    "surrogate": changed("warnings", to=[["\ud800", None, ""]]),
    "surrogate in a warning of version 0.1.0": changed("warnings", to=["\ud800"]),
    "surrogate id": changed("row", "synapse_id", to="\udcff"),
    "row is a list": changed("row", to=[]),
    "row is empty": changed("row", to={}),
    "row is short": changed("row", to={"synapse_id": "007", "filename": "007__2_4_4_3.npy", "a": 1}),
    "id is a number": changed("row", "synapse_id", to=7),
    "id is not that of the file": changed("row", "synapse_id", to="08"),
    "file name leads elsewhere": changed("row", "filename", to="../007__2_4_4_3.npy"),
    "file name of another depth": changed("row", "filename", to="007__2_4_4_4.npy"),
    "volume is text": changed("row", "pre_synaptic_volume", to="5.0"),
    "volume is NaN": changed("row", "pre_synaptic_volume", to=float("nan")),
    "volume is null": changed("row", "pre_synaptic_volume", to=None),
    "volume is negative": changed("row", "pre_synaptic_volume", to=-5.0),
    "volume is infinite": changed("row", "pre_synaptic_volume", to=float("inf")),
    "volume is huge": changed("row", "pre_synaptic_volume", to=10**400),
    "more digits than Python reads": changed("row", "pre_synaptic_volume", to=0).replace(
        b": 0,", b": 1%s," % (b"0" * 5000), 1
    ),
    "count is a bool": changed("row", "n_cutout_sections", to=True),
    "count is a fraction": changed("row", "n_cutout_sections", to=3.0),
    "count is not that of the sections": changed("row", "n_cutout_sections", to=2),
    "unknown column": changed("row", "colour", to=1),
    "unknown key": changed("colour", to=1),
    "key is a number": changed("key", to=1),
    "check is a number": changed("check", to=1),
    "sections are a list": changed("sections", to=[]),
    "sections are numbers": changed("sections", "mean", to=3),
    "sections of different lengths": changed("sections", "mean", to=[1.0]),
    "sections are text": changed("sections", "mean", to=["1", "2", "3"]),
    "nested sections": changed("sections", "mean", to=[[1], [2], [3]]),
    "mean out of range": changed("sections", "mean", to=[1, 2, 256]),
    "fraction out of range": changed("sections", "cutout_fraction", to=[0, 1, 1.5]),
    "fraction is null": changed("sections", "cutout_fraction", to=[0, 1, None]),
    "blanked is a number": changed("sections", "is_blanked", to=[1, 1, 1]),
    "empty sections are a mapping": json.dumps(
        without_check(LINES["raw"])
        | {"sections": {name: {} for name in ("cutout_fraction", "mean", "std", "is_blanked")}}
    ).encode(),
    "warnings are a text": changed("warnings", to=""),
    "labels are a text": changed("warnings", to=[["no cleft voxel", "", ""]]),
    "warnings are a number": changed("warnings", to=3),
    "warning is short": changed("warnings", to=[["no cleft voxel"]]),
    "warning is a number": changed("warnings", to=[[1, None, ""]]),
    "labels are text": changed("warnings", to=[["no cleft voxel", ["1"], ""]]),
    "source of another chunk": changed("source", to=SOURCE),
    "source is a list": changed("source", to=[]),
    "source lacks a column": changed("source", to={"synapse_id": "007"}),
    "source is NaN": changed("source", to=SOURCE | {"synapse_id": "007", "centre_x_nm": float("nan")}),
    "source start is a bool": changed("source", to=SOURCE | {"synapse_id": "007", "start_x": True}),
}


@pytest.mark.parametrize("line", NOT_CHUNKS.values(), ids=NOT_CHUNKS.keys())
def test_lines_that_cannot_be_of_a_chunk_are_passed_over(tmp_path, line):
    found = read_lines(tmp_path, line + b"\n" + LINES["NA"])
    assert list(found) == ["NA"]
    record.tidy_done(tmp_path)
    assert (tmp_path / record.HIDDEN / "record.jsonl").read_bytes() == LINES["NA"]


def test_damage_in_a_run_is_mended(processed):
    """A line in which a digit changed is not taken, and its chunk is done again."""
    result, folder = processed
    path = folder / record.HIDDEN / "record.jsonl"
    volume = f'"pre_synaptic_volume":{result.meta["pre_synaptic_volume"][0]}'.encode()
    assert volume in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(volume, volume.replace(b":", b":9")))
    p = Preprocess(**json.loads((folder / "run.json").read_text())["parameters"])
    again = preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
    assert (again.counts["done"], again.counts["skipped"]) == (1, 1)
    pd.testing.assert_frame_equal(again.meta, result.meta)


def test_without_a_record_nothing_is_done(tmp_path):
    assert record.read_done(tmp_path / "nothing") == {}
    (tmp_path / record.HIDDEN).touch()
    assert record.read_done(tmp_path) == {}


def test_a_record_that_cannot_be_read_is_one_error(tmp_path):
    (tmp_path / record.HIDDEN / "record.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"record\.jsonl: cannot be read: "):
        record.read_done(tmp_path)
    for act in (lambda: record.append_done(tmp_path, ENTRIES[0]), lambda: record.sync_done(tmp_path)):
        with pytest.raises(OutputError, match=r"record\.jsonl: cannot be written: "):
            act()


@pytest.mark.parametrize("content", [b"", b"[]", b"7", NESTED, b'{"process": 1}', b"\xff\0", b"{}"])
def test_small_files_that_are_damaged_are_as_none(tmp_path, content):
    (tmp_path / record.HIDDEN).mkdir()
    for name in ("owner.json", "merged.json", "preflight.json", "../run.json"):
        (tmp_path / record.HIDDEN / name).write_bytes(content)
    assert (
        record._owner(tmp_path / record.HIDDEN / "lock")
        == "a run that has just started, or a merge that reads it"
    )
    assert merge._own_names(tmp_path) == set()
    assert preflight.kept(tmp_path, "key") is None
    assert record.find_record(tmp_path) == {}


def test_a_kept_result_that_is_damaged_is_found_again(tmp_path):
    result = {"layers": {"em": 1.5}, "checks": {"a": [4, 5]}, "warnings": ["w"]}
    preflight.keep(tmp_path, "key", result)
    assert preflight.kept(tmp_path, "key") == result
    path = tmp_path / record.HIDDEN / "preflight.json"
    path.write_text(path.read_text().replace("4", "5"))
    assert preflight.kept(tmp_path, "key") is None


def test_only_names_are_those_of_a_merge(tmp_path):
    files.save_json(tmp_path / record.HIDDEN / "merged.json", {"files": ["a.npy", 7, None]})
    assert merge._own_names(tmp_path) == {"a.npy"}


def test_a_table_that_a_killed_run_has_moved_aside_comes_back(tmp_path):
    contents = {"meta.csv": b"a\n1\n", "sections.csv": b"s\n"}
    (tmp_path / "meta.1.csv").write_bytes(contents["meta.csv"])
    assert record.save_tables(tmp_path, contents) == ([], True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents
    (tmp_path / "meta.csv").rename(tmp_path / "meta.1.csv")
    note = "meta.csv differs from the one that was there, which is kept as meta.1.csv"
    assert record.save_tables(tmp_path, contents | {"meta.csv": b"a\n2\n"}) == ([note], True)
    assert (tmp_path / "meta.1.csv").read_bytes() == contents["meta.csv"]
    assert record.save_tables(tmp_path, contents | {"meta.csv": b"a\n2\n"}) == ([], False)


# run.json


def again(p):
    return preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)


def edit(folder, *way, to=None):
    """Give `run.json` another value somewhere, or none."""
    path = folder / "run.json"
    inner = written = json.loads(path.read_text())
    for name in way[:-1]:
        inner = inner[name]
    if to is None:
        del inner[way[-1]]
    else:
        inner[way[-1]] = to
    path.write_text(json.dumps(written))
    return path.stat().st_mtime_ns


def test_a_run_json_that_is_missing_is_written_again(processed):
    _, folder = processed
    before = record.read_record(folder)
    (folder / "run.json").rename(folder / "run.txt")
    p = Preprocess(**before["parameters"])
    result = again(p)
    assert record.lasting(record.read_record(folder)) == record.lasting(before)
    assert result.counts | {"done": 2, "skipped": 0} == before["counts"]


def test_a_corrected_voxel_size_counts(processed):
    _, folder = processed
    p = Preprocess(**record.read_record(folder)["parameters"] | {"voxel_size_xy_nm": 8.0})
    again(p)
    assert record.load(folder).spacing_xyz_nm.tolist() == [8.0, 8.0, 20.0]
    state = files.state(folder / "run.json")
    again(p)
    assert files.state(folder / "run.json") == state


@pytest.mark.parametrize(
    ("way", "to"),
    [
        (("counts", "paired"), 7),
        (("counts", "done"), 1),
        (("counts", "failed"), "many"),
        (("counts", "done"), "many"),
        (("counts", "em_only"), 3),
        (("counts",), 3),
        (("counts",), None),
        (("parameters", "max_failures"), 9),
        (("parameters", "voxel_size_xy_nm"), None),  # the run has another one than the default
        (("input_fingerprint",), "0"),
        (("input_fingerprint",), None),
        (("more",), "than is written"),
    ],
)
def test_what_differs_in_run_json_is_written(processed, way, to):
    _, folder = processed
    p = Preprocess(**record.read_record(folder)["parameters"])
    before = record.lasting(record.read_record(folder))
    edit(folder, *way, to=to)
    again(p)
    assert record.lasting(record.read_record(folder)) == before


@pytest.mark.parametrize(
    ("way", "to"),
    [
        (("parameters", "volumes"), None),  # which version 0.1.0 did not know
        (("parameters", "smoothing"), 3),  # which this one does not know
        (("counts", "warned"), None),
        (("versions", "numpy"), "1.0"),
        (("commit",), "0"),
        (("started",), "2020"),
        (("ended",), None),
    ],
)
def test_what_differs_between_equal_runs_and_versions_does_not_count(processed, way, to):
    _, folder = processed
    p = Preprocess(**record.read_record(folder)["parameters"])
    written = edit(folder, *way, to=to)
    again(p)
    assert (folder / "run.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("value", [7, "", "yesterday", "2026-13-01", [], "0001-01-01T00:00:00"])
def test_a_time_in_run_json_that_cannot_be_is_refused(processed, value):
    _, folder = processed
    edit(folder, "ended", to=value)
    with pytest.raises(TableError, match=r"run\.json: ended is .*, which cannot be"):
        record.load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("voxel_size_xy_nm", value) for value in (0, -5, float("nan"), float("inf"), "8", True, [8])),
        *(("axial_to_sagittal_spacing", value) for value in (0, -5.0, float("nan"), 10**400, "5")),
        *(("cutout_pixel_value", value) for value in (-1, 256, 0.5, False)),
        *(("cutout_threshold", value) for value in (-0.1, 2, "0.01")),
        ("cut_intensity_with_seg_masks", 1),
        *(("output_channel_desc", value) for value in ({}, [], [1], [[]], [[256]], [["1"]])),
        *(("seg_mask_map", value) for value in ([1], {"MASK_SYNAPTIC_CLEFT": "2"})),
        ("volumes", ["em"]),
    ],
)
def test_parameters_of_run_json_that_cannot_be_are_refused(processed, name, value):
    _, folder = processed
    p = Preprocess(**record.read_record(folder)["parameters"])
    edit(folder, "parameters", name, to=value)
    with pytest.raises(
        TableError, match=rf"run\.json: {name} is .*, which cannot be: correct it, or run prep"
    ):
        record.load(folder)
    again(p)
    assert record.load(folder).parameters[name] == getattr(p, name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_in_place_of_files_are_not_waited_for(tmp_path):
    (tmp_path / record.HIDDEN).mkdir()
    for name in ("meta.csv", "run.json", f"{record.HIDDEN}/record.jsonl"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(TableError, match=r"run\.json: it is a named pipe, not a file"):
        record.read_record(tmp_path)
    with pytest.raises(OutputError, match=r"record\.jsonl: cannot be read: it is a named pipe, not a file"):
        record.read_done(tmp_path)
    assert record.save_tables(tmp_path, {"meta.csv": b"a\n"}) == ([], True)
    assert (tmp_path / "meta.csv").read_bytes() == b"a\n"


def test_a_folder_without_a_data_set_says_what_to_run(tmp_path):
    for path in (tmp_path, tmp_path / "meta.csv"):
        with pytest.raises(TableError, match=r"meta\.csv: .* run preprocess with this proc_data_path first"):
            record.load(path)
