"""The notebooks as people run them: papermill with YAML files, from any folder, good and bad parameters."""

import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import PROJECT, copy_project, run_nbval, text_of

from synprep import params


def checked(result):
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def literally(folder, *arguments):
    """Run papermill as people do."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def compare(folder, *notebooks):
    """Compare what notebooks have stored with new results, as nbval does; return the number of cells."""
    result = run_nbval(folder, *notebooks)
    assert result.returncode == 0, result.stdout[-3000:]
    return int(re.search(r"(\d+) passed", result.stdout)[1])


def digests(folder):
    """SHA-256 of each file of a result, without the times of the run."""
    files = [path for path in folder.iterdir() if path.is_file() and path.name != "run.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project without anything that a run writes."""
    folder = tmp_path_factory.mktemp("clone")
    copy_project(folder)
    return folder


class TestDataSets:
    """The two demonstration sets, and their merge."""

    @pytest.fixture(scope="class")
    @classmethod
    def processed(cls, papermill, clone):
        """The folders of ds1 (run from the root, then literally) and ds2, from the notebooks' folder."""
        checked(papermill(clone, "notebooks/preprocess.ipynb", "out.ipynb", "-f", "params/ds1.yaml"))
        if not (clone / "notebooks" / "params").exists():
            pytest.skip("links are not checked out here")
        first = digests(clone / "data/ds1/processed")
        shutil.rmtree(clone / "data/ds1/processed")
        checked(literally(clone / "notebooks", "preprocess.ipynb", "out.ipynb", "-f", "params/ds1.yaml"))
        assert digests(clone / "data/ds1/processed") == first
        checked(papermill(clone / "notebooks", "preprocess.ipynb", "out.ipynb", "-f", "params/ds2.yaml"))
        return clone / "data/ds1/processed", clone / "data/ds2/processed"

    @pytest.fixture(scope="class")
    @classmethod
    def merged(cls, papermill, clone, processed):
        """The folder of the merged set."""
        checked(papermill(clone / "notebooks", "merge.ipynb", "out.ipynb", "-f", "params/merge.yaml"))
        return clone / "data/merged"

    def test_the_literal_command_gives_the_same_files(self, processed):
        for folder in processed:
            assert len(digests(folder)) == 4 + len(["meta.csv", "sections.csv", "problems.csv"])

    def test_an_id_keeps_its_zeros(self, processed):
        assert (
            (processed[0] / "meta.csv")
            .read_text()
            .splitlines()[1]
            .startswith("0001007,0001007__2_96_96_13.npy,")
        )

    def test_merged_names_load_from_the_folder_of_the_merged_table(self, merged):
        table = pd.read_csv(merged / "meta.csv", dtype={"synapse_id": str})
        assert table["synapse_id"].tolist() == [
            "0001007",
            "1000348",
            "1000379",
            "1000412",
            "1000550",
            "1000623",
        ]
        for name in table["filename"]:
            assert np.load(merged / name).shape == (2, 96, 96, 13)

    def test_stored_and_executed_notebooks_are_compared_from_their_folder(self, clone, merged):
        """As the README says; what papermill has passed over is told without a history of cells, too."""
        shutil.copy(PROJECT / "pyproject.toml", clone)
        shutil.copy(clone / "notebooks" / "out.ipynb", clone / "out_merge.ipynb")
        assert "only other notebooks take them: proc_data_path, report" in text_of(clone / "out_merge.ipynb")
        n_cells = compare(clone / "notebooks", "merge.ipynb", "../out_merge.ipynb")
        assert n_cells == 8 + 9  # and that with the parameters that papermill has added

    def test_preprocess_does_not_write_into_the_merged_set(self, papermill, clone, merged):
        yaml_files = ["-f", "params/ds1.yaml", "-f", "params/merge.yaml"]
        result = papermill(clone, "notebooks/preprocess.ipynb", "out.ipynb", *yaml_files)
        assert result.returncode != 0
        assert "holds a merged data set" in result.stderr.strip().splitlines()[-1]


@pytest.fixture
def small(write_pair, tmp_path):
    """Two small chunks of one's own, and the start of a YAML file for them."""
    write_pair("1", np.full((4, 4, 20), 90, np.uint8))
    write_pair("007", np.full((4, 4, 20), 110, np.uint8))
    return {
        "raw_em_data_path": str(tmp_path / "em"),
        "raw_mask_data_path": str(tmp_path / "mask"),
        "proc_data_path": str(tmp_path / "made" / "processed"),
        "report_path": str(tmp_path / "made" / "reports"),
    }


@pytest.fixture
def run(papermill, tmp_path):
    """Run a notebook with the values of a YAML file; its output is out.ipynb."""

    def run(notebook, values, *options):
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(values))
        path = PROJECT / "notebooks" / f"{notebook}.ipynb"
        return papermill(tmp_path, path, "out.ipynb", "-f", "p.yaml", *options)

    return run


def test_a_misspelt_parameter_fails_before_any_work(small, run, tmp_path):
    result = run("preprocess", {**small, "cutout_treshold": 0.02, "max_chunks": "3"})
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-3:]
    assert last[0] == "ParameterError: 2 problems, nothing was done:"
    assert last[1].strip() == "cutout_treshold is not a parameter; did you mean cutout_threshold?"
    assert last[2].strip().startswith("max_chunks must be an integer, not '3'")
    assert not (tmp_path / "made").exists()


def test_nothing_pairs(small, run, tmp_path):
    result = run("preprocess", {**small, "mask_filename_pattern": "{synapse_id}_seg.npy"})
    assert result.returncode != 0
    assert "change one of raw_em_data_path" in result.stderr.strip().splitlines()[-1]
    assert "1_mask.npy: does not fit" in result.stderr
    assert not (tmp_path / "made").exists()


def test_a_bad_chunk_is_raised_after_all_others_are_written(small, run, tmp_path):
    (tmp_path / "em" / "1.npy").write_bytes(b"text")
    for notebook in ("preprocess", "cutout_histogram"):
        result = run(notebook, small)
        assert result.returncode != 0
        last = result.stderr.strip().splitlines()[-5:]
        assert last[0] == "FailedChunksError: 1 chunk failed; all others are done:"
        assert re.match(r"  1: not an npy file: 1\.npy: ", last[1])
        assert [line.split(": ")[0] for line in last[2:]] == ["chunks", "results", "next"]
    files = sorted(os.listdir(tmp_path / "made" / "processed"))
    assert files == [".synprep", "007__2_4_4_5.npy", "meta.csv", "problems.csv", "run.json", "sections.csv"]
    assert json.loads((tmp_path / "made/reports/cutout_histogram.json").read_text())["synapse_ids"] == ["007"]


def test_all_chunks_bad(small, run, tmp_path):
    for name in ("1", "007"):
        (tmp_path / "em" / f"{name}.npy").write_bytes(b"text")
    assert run("inspect_raw", small).returncode != 0
    text = text_of(tmp_path / "out.ipynb")
    assert "0 pairs: 0 without warnings" in text and "Empty DataFrame" not in text and "<Figure" not in text
    assert os.listdir(tmp_path / "made" / "reports") == ["inspect_raw.json"]
    result = run("preprocess", {**small, "max_failures": 5})
    assert result.returncode != 0
    text = text_of(tmp_path / "out.ipynb")
    assert "Empty DataFrame" not in text and "<Figure" not in text
    last = result.stderr.strip().splitlines()[-6:]
    assert last[0] == "FailedChunksError: 2 chunks failed; there are no others:"
    assert last[-1].endswith("; max_failures does not apply where none came out")
    assert "problems.csv" in os.listdir(tmp_path / "made" / "processed")


def test_accepted_failures_and_a_resumed_run(small, run, tmp_path):
    (tmp_path / "em" / "1.npy").write_bytes(b"text")
    for expected in (
        "Preprocessing:   0%|",
        "Preprocessing: 100%|",
    ):
        assert expected in checked(run("preprocess", {**small, "max_failures": 1}, "--log-output")).stderr
        assert "1 chunk finished\n" in text_of(tmp_path / "out.ipynb")
    assert "not an npy file" in text_of(tmp_path / "out.ipynb")


def test_verify_names_a_damaged_tensor(small, run, tmp_path):
    checked(run("preprocess", {**small, "verify": True}))
    path = tmp_path / "made" / "processed" / "1__2_4_4_5.npy"
    tensor, times = np.load(path), path.stat()
    tensor[1] = 1
    np.save(path, tensor)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # what no resumed run would notice
    result = run("preprocess", {**small, "verify": True})
    assert result.returncode != 0
    assert re.match("  1: .*_volume is not that of the table", result.stderr.strip().splitlines()[-4])


def test_own_data_with_one_file_for_all_notebooks(small, run, tmp_path):
    values = {**small, "n_bins": 7, "section_index": 3, "cutout_threshold": 0, "axial_to_sagittal_spacing": 4}
    for notebook in ("cutout_histogram", "intensity_histogram", "section_variation", "preprocess"):
        checked(run(notebook, values))
        assert "Passed over, since only other notebooks take them: " in text_of(tmp_path / "out.ipynb")
    reports = tmp_path / "made" / "reports"
    names = ("cutout_histogram", "intensity_histogram", "section_variation")
    assert sorted(os.listdir(reports)) == [f"{name}.{end}" for name in names for end in ("json", "png")]
    cutout, intensity, variation = (json.loads((reports / f"{name}.json").read_text()) for name in names)
    assert cutout["section_counts"] == [40, 0, 0, 0, 0, 0, 0]
    assert (intensity["mean"], intensity["std"]) == (100.0, 10.0)
    assert variation["percentiles"] == [1.0] * 5
    meta = (tmp_path / "made" / "processed" / "meta.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in meta[1:]] == ["007__2_4_4_6.npy", "1__2_4_4_6.npy"]


def test_a_fingerprint_of_own_data(write_pair, small, run, tmp_path):
    for synapse_id in ("1", "007"):
        write_pair(synapse_id, np.random.default_rng(len(synapse_id)).integers(1, 255, (8, 8, 20), np.uint8))
    refused = run("fingerprint", small)
    assert "proc_data_path: there is no folder" in refused.stderr.strip().splitlines()[-1]
    for notebook in ("preprocess", "fingerprint"):
        checked(run(notebook, small))
    reports = tmp_path / "made" / "reports"
    assert sorted(os.listdir(reports)) == ["augmenter.yaml", "fingerprint.json", "fingerprint.png"]
    values = yaml.safe_load((reports / "augmenter.yaml").read_text())
    assert list(values) == ["norm_scale", "intensity_mean", "intensity_std", "axial_to_sagittal_spacing"]
    (tmp_path / "made" / "processed" / "1__2_8_8_5.npy").write_bytes(b"text")
    result = run("fingerprint", small)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-6:]
    assert last[0] == "FailedChunksError: 1 chunk failed; all others are done:"
    assert last[1].strip().startswith("1: not an npy file: 1__2_8_8_5.npy")
    assert last[3].startswith("1 of 1 chunk")
    assert json.loads((reports / "fingerprint.json").read_text())["synapse_ids"] == ["007"]


def test_the_end_says_that_a_result_is_of_no_use(write_pair, small, run, tmp_path):
    """With one of three label values wrong, which is an error for no chunk."""
    mask = np.full((8, 8, 20), 1, np.uint8)
    mask[4:, :, :] = 30
    for synapse_id in ("1", "007"):
        em = np.random.default_rng(len(synapse_id)).integers(1, 255, (8, 8, 20), np.uint8)
        write_pair(synapse_id, em, mask)
    keys = params.Preprocess().seg_mask_map
    values = {**small, "seg_mask_map": dict(zip(keys, (1, 20, 30), strict=True))}
    no_cleft = "2 of 2 chunks (007, 1): no cleft voxel; labels found: 1, 30: see seg_mask_map"
    again = "seg_mask_map, and run this again; if all is as it should be,"
    checked(run("inspect_raw", values))
    text = text_of(tmp_path / "out.ipynb")
    assert text.count(no_cleft) == 2 and text.endswith(f"{again} cutout_histogram.ipynb\n")
    assert "chunks: 2 looked at, 2 with warnings, 0 unpaired, 0 failed\n" in text
    checked(run("preprocess", values))
    assert text_of(tmp_path / "out.ipynb").splitlines()[-4:] == [
        "chunks: 2 done, 2 with warnings, 0 with blanked sections, 0 unpaired, 0 failed",
        no_cleft,
        f"results: {(tmp_path / 'made' / 'processed').as_posix()}",
        f"next: see {again} inspect.ipynb",
    ]
    checked(run("fingerprint", values))
    assert text_of(tmp_path / "out.ipynb").splitlines()[-5:] == [
        "chunks: 2 fingerprinted, 0 failed",
        "2 of 2 chunks (007, 1): no cleft voxel: see seg_mask_map",
        "2 of 2 chunks (007, 1): no more sections than cutout_poisson_rate",
        f"results: {(tmp_path / 'made' / 'reports').as_posix()}",
        "next: not ready for training: mend these chunks or leave them out (synapse_ids_path), preprocess "
        "again, and run this again",
    ]


def test_executed_notebooks_are_compared_outside_of_the_project(small, run, tmp_path):
    """With keys that other notebooks take, ids that are not there, and tables that the first run replaces."""
    for name in ("processed", "merged"):
        (tmp_path / "made" / name).mkdir(parents=True)
        (tmp_path / "made" / name / "meta.csv").write_text("synapse_id,filename\n1,a\n")
    (tmp_path / "ids.csv").write_text("synapse_id\n1\n007\nnone\n")
    values = {**small, "n_bins": 7, "synapse_ids_path": str(tmp_path / "ids.csv"), "link_mode": "copy"}
    values |= {"meta_list": [str(tmp_path / "made" / "processed" / "meta.csv")], "verify": True}
    values |= {"merged_meta_path": str(tmp_path / "made" / "merged" / "meta.csv")}
    names = [f"{name}.ipynb" for name in ("preprocess", "merge", "inspect")]
    for name in names:
        checked(run(name.removesuffix(".ipynb"), values))
        assert "Passed over, since only" in text_of(tmp_path / "out.ipynb")
        os.rename(tmp_path / "out.ipynb", tmp_path / name)
    for name, line in zip(
        names, ("1 id of synapse_ids_path not paired: none", "Copying: done", ""), strict=True
    ):
        assert line in text_of(tmp_path / name)
        assert ("which is kept as meta.1.csv" in text_of(tmp_path / name)) == (name != "inspect.ipynb")
    assert "0 unpaired, 1 not found, 0 failed\n" in text_of(tmp_path / "preprocess.ipynb")
    assert "1 id of synapse_ids_path not in the data set: none" in text_of(tmp_path / "inspect.ipynb")
    compare(tmp_path, *names)


def test_a_second_run_all_is_not_disturbed_by_own_variables(small, run, tmp_path):
    """Run All twice in one kernel, with variables of one's own in between."""
    checked(run("preprocess", small))
    notebook = nbformat.read(tmp_path / "out.ipynb", 4)
    own = nbformat.v4.new_code_cell("cutout_treshold = 1; max_chunk = 'x'; n_bins = 'none'")
    notebook.cells = [*notebook.cells, own, *copy.deepcopy(notebook.cells)]
    for cell in notebook.cells:
        cell.id = os.urandom(4).hex()
    nbformat.write(notebook, tmp_path / "twice.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", "twice.ipynb"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
