"""Tables: types, text ids, and messages for what cannot be trusted."""

import csv
import gzip
import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synprep._core import tables, text_table
from synprep._core.errors import TableError


def test_rows_are_sorted_by_id_as_text():
    rows = [tables.meta_row(i, (2, 4, 4, 3), {1: 5.0, 2: 0.0, 3: 7.5}, 1) for i in ("9", "10", "007", "NA")]
    meta = tables.meta_table(rows)
    assert meta["synapse_id"].tolist() == ["007", "10", "9", "NA"]
    assert meta.to_csv(index=False).splitlines()[:2] == [
        "synapse_id,filename,pre_synaptic_volume,post_synaptic_volume,synaptic_cleft_volume,n_cutout_sections",
        "007,007__2_4_4_3.npy,5.0,7.5,0.0,1",
    ]


def test_tables_without_rows_have_their_columns():
    assert list(tables.meta_table([])) == list(tables.META_COLUMNS)
    assert list(tables.sections_table([])) == list(tables.SECTION_COLUMNS)


def test_table_is_text_with_lf(tmp_path):
    table = pd.DataFrame({"synapse_id": ["007", "NA", "1,5"], "v": [1.0, np.nan, 2.5]})
    tables.save_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_bytes() == b'synapse_id,v\n007,1.0\nNA,\n"1,5",2.5\n'
    assert tables.read_table(tmp_path / "t.csv").values.tolist() == [
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
        tables.save_table(f"{folder}/t.csv", table)
        pd.testing.assert_frame_equal(tables.read_table(f"{folder}/t.csv"), table)


def test_what_is_not_unicode_can_be_written(tmp_path):
    table = pd.DataFrame({"synapse_id": ["1"], "em_path": ["caf\udce9/1.npy"]})
    tables.save_table(tmp_path / "t.csv", table)
    assert tables.read_table(tmp_path / "t.csv").values.tolist() == [["1", r"caf\udce9/1.npy"]]


READERS = [tables.read_table, tables.read_ids]


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
            tables.read_table(path)


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
    assert tables.read_ids(tmp_path / "t.csv") == ["007", "NA"]
    table = tables.read_table(tmp_path / "t.csv")
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
        tables.read_ids(path)
    assert f"{path}: {reason}" in str(error.value)


def test_a_list_without_ids(tmp_path):
    (tmp_path / "ids.csv").write_text("synapse_id\n")
    with pytest.raises(TableError, match="lists no synapse id"):
        tables.read_ids(tmp_path / "ids.csv")


def test_a_table_that_a_killed_run_has_moved_aside_comes_back(tmp_path):
    contents = {"meta.csv": b"a\n1\n", "sections.csv": b"s\n"}
    (tmp_path / "meta.1.csv").write_bytes(contents["meta.csv"])
    assert tables.save_tables(tmp_path, contents) == ([], True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents
    (tmp_path / "meta.csv").rename(tmp_path / "meta.1.csv")
    note = "meta.csv differs from the one that was there, which is kept as meta.1.csv"
    assert tables.save_tables(tmp_path, contents | {"meta.csv": b"a\n2\n"}) == ([note], True)
    assert (tmp_path / "meta.1.csv").read_bytes() == contents["meta.csv"]
    assert tables.save_tables(tmp_path, contents | {"meta.csv": b"a\n2\n"}) == ([], False)
