import pandas as pd
import pytest

from synprep import table
from synprep.errors import TableError


def text_table(ids, **columns):
    return pd.DataFrame({"synapse_id": ids, "filename": [f"{i}.npy" for i in ids], **columns}, dtype=str)


def test_rows_are_sorted_by_id_as_text():
    rows = [table.meta_row(i, (2, 4, 4, 3), {1: 5.0, 2: 0.0, 3: 7.5}, 1) for i in ("9", "10", "007", "NA")]
    meta = table.meta_table(rows)
    assert meta["synapse_id"].tolist() == ["007", "10", "9", "NA"]
    assert meta.to_csv(index=False).splitlines()[:2] == [
        "synapse_id,filename,pre_synaptic_volume,post_synaptic_volume,synaptic_cleft_volume,n_cutout_sections",
        "007,007__2_4_4_3.npy,5.0,7.5,0.0,1",
    ]


def test_tables_without_rows_have_their_columns():
    assert list(table.meta_table([])) == list(table.META_COLUMNS)
    assert list(table.sections_table([])) == list(table.SECTION_COLUMNS)


def test_merge_keeps_equal_rows_once_in_the_order_of_the_tables():
    one, other = text_table(["5", "007"], v=["a", "b"]), text_table(["007", "1"], v=["b", "c"])
    merged, notes = table.merge([("x/meta.csv", one), ("y/meta.csv", other)])
    assert merged["synapse_id"].tolist() == ["5", "007", "1"]
    assert merged["filename"].tolist() == ["x/5.npy", "x/007.npy", "y/1.npy"]
    assert notes == ["1 row that an earlier table has as well: kept once"]


def test_ids_that_are_equal_as_numbers_only_are_two():
    merged, _ = table.merge([("x/m.csv", text_table(["007"])), ("y/m.csv", text_table(["7"]))])
    assert merged["synapse_id"].tolist() == ["007", "7"]


CONFLICT = [
    ("x/meta.csv", text_table(["a", "b"], v=["1", "2"])),
    ("y/meta.csv", text_table(["b", "c"], v=["3", "4"])),
]


def test_conflict_is_an_error_that_lists_both_rows():
    with pytest.raises(TableError, match=r"(?s)different values for 1 synapse id: b.*x/meta.csv.*y/meta.csv"):
        table.merge(CONFLICT)


@pytest.mark.parametrize(("on_conflict", "kept"), [("first", ("x/b.npy", "2")), ("last", ("y/b.npy", "3"))])
def test_conflict_is_settled_as_asked(on_conflict, kept):
    merged, notes = table.merge(CONFLICT, on_conflict)
    assert merged.set_index("synapse_id").loc["b"].tolist() == list(kept)
    assert notes == [f"different values for 1 synapse id: kept the {on_conflict} row of b"]


def test_conflict_within_one_table():
    with pytest.raises(TableError, match="different values for 1 synapse id: a"):
        table.merge([("x/meta.csv", text_table(["a", "a"], v=["1", "2"]))])


def test_file_names_are_compared_without_folders():
    moved = text_table(["a"]).assign(filename="../old/a.npy")
    merged, _ = table.merge([("x/meta.csv", text_table(["a"])), ("y/meta.csv", moved)])
    assert merged["filename"].tolist() == ["x/a.npy"]


def test_column_that_a_table_lacks_stays_empty_and_is_reported():
    merged, notes = table.merge(
        [("x/meta.csv", text_table(["a"], z=["1"])), ("y/meta.csv", text_table(["b"], w=["2"]))]
    )
    assert list(merged) == ["synapse_id", "filename", "z", "w"]
    assert merged[["z", "w"]].values.tolist() == [["1", ""], ["", "2"]]
    assert notes == [
        "x/meta.csv has no column w: left empty in its rows",
        "y/meta.csv has no column z: left empty in its rows",
    ]


def test_table_without_file_names_is_refused():
    with pytest.raises(TableError, match=r"no column filename in x/meta.csv"):
        table.merge([("x/meta.csv", pd.DataFrame({"synapse_id": ["a"]}))])
