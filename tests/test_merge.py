import os

import numpy as np
import pandas as pd
import pytest

from synprep import merge, pairing, planning, preprocess
from synprep.errors import TableError
from synprep.params import Merge, Preprocess


@pytest.fixture
def merged(write_pair, paths, tmp_path):
    """Merge two small data sets that share one chunk."""
    tables = []
    for name, ids in (("one", ("1", "007")), ("two", ("007", "3"))):
        (tmp_path / name).mkdir()
        for synapse_id in ids:
            write_pair(synapse_id, folder=tmp_path / name)
        p = Preprocess(
            **{key: value.replace(str(tmp_path), str(tmp_path / name)) for key, value in paths.items()}
        )
        preprocess.run(planning.make(pairing.find(p), p, show_progress=False), p, show_progress=False)
        tables.append(str(tmp_path / name / "processed" / "meta.csv"))

    def run_merge(**parameters):
        path = tmp_path / "merged" / "meta.csv"
        return merge.run(Merge(**{"meta_list": tables, "merged_meta_path": str(path), **parameters}))

    return run_merge


def test_file_names_load_from_the_merged_folder(merged, tmp_path):
    table, notes = merged()
    assert table["synapse_id"].tolist() == ["007", "1", "3"]
    assert notes == ["1 row that an earlier table has as well: kept once"]
    written = pd.read_csv(tmp_path / "merged" / "meta.csv", dtype=str)
    assert written["filename"].tolist() == [
        "../one/processed/007__2_6_5_5.npy",
        "../one/processed/1__2_6_5_5.npy",
        "../two/processed/3__2_6_5_5.npy",
    ]
    for name in written["filename"]:
        assert np.load(os.path.join(tmp_path / "merged", name)).shape == (2, 6, 5, 5)


def test_values_keep_their_text(merged, tmp_path):
    merged()
    lines = (tmp_path / "one" / "processed" / "meta.csv").read_text().splitlines()
    written = (tmp_path / "merged" / "meta.csv").read_text().splitlines()
    assert [line.split(",", 2)[2] for line in written[:3]] == [line.split(",", 2)[2] for line in lines]


def test_a_merged_table_can_be_merged_again(merged, tmp_path):
    merged()
    again, notes = merged(
        meta_list=[str(tmp_path / "merged" / "meta.csv"), str(tmp_path / "two" / "processed" / "meta.csv")],
        merged_meta_path=str(tmp_path / "meta.csv"),
    )
    assert again["filename"].tolist()[0] == "one/processed/007__2_6_5_5.npy"
    assert notes == ["2 rows that an earlier table has as well: kept once"]


def test_a_missing_array_is_an_error_and_nothing_is_written(merged, tmp_path):
    (tmp_path / "two" / "processed" / "3__2_6_5_5.npy").unlink()
    with pytest.raises(TableError, match=r"1 file named in the tables not found: .*3__2_6_5_5\.npy"):
        merged()
    assert not (tmp_path / "merged").exists()


def test_conflicts_name_the_tables(merged, tmp_path):
    path = tmp_path / "two" / "processed" / "meta.csv"
    path.write_text(path.read_text().replace(",0\n", ",4\n", 1))
    with pytest.raises(
        TableError, match=r"(?s)1 synapse id: 007.*one.processed.meta\.csv.*two.processed.meta\.csv"
    ):
        merged()
    assert merged(on_conflict="last")[0].set_index("synapse_id").loc["007", "n_cutout_sections"] == "4"
