"""Reading a processed data set back: types, and messages for what is missing or wrong."""

import json

import pandas as pd
import pytest

from synprep._core import dataset, tables
from synprep._core.errors import TableError


def test_tables_are_those_of_the_run(processed):
    result, folder = processed
    for path in (folder, folder / "meta.csv"):
        data = dataset.load(path)
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
    [("n_cutout_sections", "n_cut", "no column 'n_cutout_sections'"), ("\n007,", "\n007,x,y", "meta")],
)
def test_a_table_of_another_form_is_refused(processed, old, new, message):
    _, folder = processed
    path = folder / "meta.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(TableError, match=message):
        dataset.load(folder)


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
        before = tables.read_table(folder / name)
        after = before.copy()
        after.loc[0, column] = value
        tables.save_table(folder / name, after)
        with pytest.raises(TableError) as error:
            dataset.load(folder)
        tables.save_table(folder / name, before)
        message = str(error.value)
        assert message.startswith(f"{folder / name}: ") and (value or column) in message, (column, value)
    dataset.load(folder)


def test_numbers_may_be_written_in_other_ways(processed):
    _, folder = processed
    before = dataset.load(folder)
    table = tables.read_table(folder / "meta.csv")
    table["pre_synaptic_volume"] += "0"
    table["n_cutout_sections"] += ".0"
    tables.save_table(folder / "meta.csv", table)
    pd.testing.assert_frame_equal(dataset.load(folder).meta, before.meta)


def test_a_parameter_that_is_not_recorded_is_named(processed):
    _, folder = processed
    written = json.loads((folder / "run.json").read_text())
    del written["parameters"]["voxel_size_xy_nm"]
    (folder / "run.json").write_text(json.dumps(written))
    with pytest.raises(TableError, match=r"run\.json: has no voxel_size_xy_nm"):
        _ = dataset.load(folder).spacing_xyz_nm


def test_a_folder_without_a_data_set_says_what_to_run(tmp_path):
    for path in (tmp_path, tmp_path / "meta.csv"):
        with pytest.raises(TableError, match=r"meta\.csv: .* run preprocess with this proc_data_path first"):
            dataset.load(path)
