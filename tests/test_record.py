"""Tables, and reading a processed data set back: types, text ids, and messages for what is missing."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import synprep
from synprep import pairing, preprocess
from synprep._core import problems, record
from synprep._core.errors import TableError
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


@pytest.mark.parametrize(
    ("text", "reason"), [("id\n1\n", "has no column synapse_id; its columns are id"), ("", "cannot be read")]
)
def test_bad_tables(tmp_path, text, reason):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=reason):
        record.read_table(tmp_path / "t.csv")


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
    [("n_cutout_sections", "n_cut", "no column n_cutout_sections"), ("\n007,", "\n007,x,y", "meta")],
)
def test_a_table_of_another_form_is_refused(processed, old, new, message):
    _, folder = processed
    path = folder / "meta.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TableError, match=message):
        record.load(folder)


def test_text_where_a_number_belongs_is_refused(processed):
    _, folder = processed
    path = folder / "sections.csv"
    path.write_text(path.read_text().replace("False", "maybe"))
    with pytest.raises(TableError, match=r"sections\.csv"):
        record.load(folder)


def test_a_parameter_that_is_not_recorded_is_named(processed):
    _, folder = processed
    written = json.loads((folder / "run.json").read_text())
    del written["parameters"]["voxel_size_xy_nm"]
    (folder / "run.json").write_text(json.dumps(written))
    with pytest.raises(TableError, match=r"run\.json: has no voxel_size_xy_nm"):
        _ = record.load(folder).spacing_xyz_nm
