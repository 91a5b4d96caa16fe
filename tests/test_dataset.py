"""Reading a processed data set back: types, text ids, and messages for what is missing."""

import json
from pathlib import Path

import pandas as pd
import pytest

from synprep import dataset, pairing, planning, preprocess
from synprep.errors import TableError
from synprep.params import Preprocess


@pytest.fixture
def processed(write_pair, paths):
    for synapse_id in ("007", "NA"):
        write_pair(synapse_id)
    p = Preprocess(**paths, voxel_size_xy_nm=4.0, axial_to_sagittal_spacing=2.5)
    return preprocess.run(planning.make(pairing.find(p), p, False), p, False), Path(p.proc_data_path)


def test_tables_are_those_of_the_run(processed):
    result, folder = processed
    for path in (folder, folder / "meta.csv"):
        data = dataset.load(path)
        pd.testing.assert_frame_equal(data.meta, result.meta)
        pd.testing.assert_frame_equal(data.sections, result.sections)
        assert data.folder == folder
        assert data.parameters["axial_to_sagittal_spacing"] == 2.5
        assert data.spacing_xyz_nm.tolist() == [4.0, 4.0, 10.0]


def test_only_merged_sets_have_sources(processed, tmp_path):
    _, folder = processed
    assert not dataset.is_merged(folder)
    assert not dataset.is_merged(tmp_path)
    (folder / "run.json").write_text(json.dumps(dataset.read_record(folder) | {"sources": []}))
    assert dataset.is_merged(folder)


def test_means_of_black_sections_stay_missing(processed):
    _, folder = processed
    rows = pd.read_csv(folder / "sections.csv", dtype=str, keep_default_na=False)
    rows.loc[0, ["mean", "std"]] = ""
    rows.to_csv(folder / "sections.csv", index=False)
    data = dataset.load(folder)
    assert data.sections["mean"].isna().sum() == 1
    assert data.meta["synapse_id"].tolist() == ["007", "NA"]


def test_other_columns_are_kept_as_text(processed):
    _, folder = processed
    table_text = (folder / "meta.csv").read_text().splitlines()
    lines = [table_text[0] + ",root_id", *(line + ",0042" for line in table_text[1:])]
    (folder / "meta.csv").write_text("\n".join(lines))
    assert dataset.load(folder).meta["root_id"].tolist() == ["0042", "0042"]


@pytest.mark.parametrize("name", ["meta.csv", "sections.csv", "run.json"])
def test_a_missing_file_is_named(processed, name):
    _, folder = processed
    (folder / name).unlink()
    with pytest.raises(TableError, match=name):
        dataset.load(folder)


def test_a_broken_record_is_named(processed):
    _, folder = processed
    (folder / "run.json").write_text(json.dumps({"counts": 3}))
    with pytest.raises(TableError, match=r"run\.json: not a run record"):
        dataset.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("n_cutout_sections", "n_cut", "no column n_cutout_sections"), ("\n007,", "\n007,x,y", "meta")],
)
def test_a_table_of_another_form_is_refused(processed, old, new, message):
    _, folder = processed
    path = folder / "meta.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TableError, match=message):
        dataset.load(folder)


def test_text_where_a_number_belongs_is_refused(processed):
    _, folder = processed
    path = folder / "sections.csv"
    path.write_text(path.read_text().replace("False", "maybe"))
    with pytest.raises(TableError, match=r"sections\.csv"):
        dataset.load(folder)


def test_a_parameter_that_is_not_recorded_is_named(processed):
    _, folder = processed
    record = json.loads((folder / "run.json").read_text())
    del record["parameters"]["voxel_size_xy_nm"]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(TableError, match=r"run\.json: has no voxel_size_xy_nm"):
        _ = dataset.load(folder).spacing_xyz_nm
