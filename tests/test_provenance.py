"""How a data set was made: the commit of the package, and `run.json`."""

import json
import subprocess

import pytest
from conftest import run_preprocess

import synprep
from synprep._core import dataset, files, provenance
from synprep._core.errors import TableError
from synprep.params import Preprocess


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
        return provenance.versions()["commit"]

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
        assert provenance.versions()["commit"] is None
    head.unlink()
    assert provenance.versions()["commit"] is None


def test_a_package_in_another_project_s_checkout_has_no_commit(checkout):
    (checkout / "notebooks" / "preprocess.ipynb").unlink()  # such as pip install --target .
    assert provenance.versions()["commit"] is None


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
    provenance.versions()
    assert not (tmp_path / "ran").exists()


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
    before = provenance.read_record(folder)
    (folder / "run.json").rename(folder / "run.txt")
    p = Preprocess(**before["parameters"])
    result = run_preprocess(p)
    assert provenance.lasting(provenance.read_record(folder)) == provenance.lasting(before)
    assert result.counts | {"done": 2, "skipped": 0} == before["counts"]


def test_a_corrected_voxel_size_counts(processed):
    _, folder = processed
    p = Preprocess(**provenance.read_record(folder)["parameters"] | {"voxel_size_xy_nm": 8.0})
    run_preprocess(p)
    assert dataset.load(folder).spacing_xyz_nm.tolist() == [8.0, 8.0, 20.0]
    state = files.state(folder / "run.json")
    run_preprocess(p)
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
    p = Preprocess(**provenance.read_record(folder)["parameters"])
    before = provenance.lasting(provenance.read_record(folder))
    edit(folder, *way, to=to)
    run_preprocess(p)
    assert provenance.lasting(provenance.read_record(folder)) == before


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
    p = Preprocess(**provenance.read_record(folder)["parameters"])
    written = edit(folder, *way, to=to)
    run_preprocess(p)
    assert (folder / "run.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("value", [7, "", "yesterday", "2026-13-01", [], "0001-01-01T00:00:00"])
def test_a_time_in_run_json_that_cannot_be_is_refused(processed, value):
    _, folder = processed
    edit(folder, "ended", to=value)
    with pytest.raises(
        TableError, match=r"run\.json: ended is .*, which cannot be \(must be a time such as "
    ):
        dataset.load(folder)


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
    p = Preprocess(**provenance.read_record(folder)["parameters"])
    edit(folder, "parameters", name, to=value)
    with pytest.raises(
        TableError, match=rf"run\.json: {name} is .*, which cannot be.*: correct it, or run prep"
    ):
        dataset.load(folder)
    run_preprocess(p)
    assert dataset.load(folder).parameters[name] == getattr(p, name)
