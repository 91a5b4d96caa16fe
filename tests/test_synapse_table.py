"""What is read from a table of synapses, and what a table that cannot be trusted gets."""

import gzip
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import PROJECT

from synprep._core import synapse_table, text_table
from synprep._core.errors import TableError

HEADER = "id,pre,post,centre"
GOOD = '7,11,12,"[1, 2, 3]"'
REAL = PROJECT.parent / "shared" / "data" / "synapse_table.csv"


@pytest.fixture
def columns(tmp_path):
    """Settings of a table that holds the given lines, or bytes."""

    def write(*lines, content=None, name="synapses.csv", **changed):
        path = tmp_path / name
        path.write_bytes("\n".join([*lines, ""]).encode() if content is None else content)
        known = {
            "synapse_table": str(path),
            "id_column": "id",
            "pre_id_column": "pre",
            "post_id_column": "post",
            "id_prefix": "",
            "centre_columns": ["centre"],
            "centre_unit_nm": [4, 4, 40],
        }
        return SimpleNamespace(**known | changed)

    return write


def only(found):
    assert not found.problems
    (synapse,) = found.synapses
    return synapse


def error_of(columns, wanted=None):
    with pytest.raises(TableError) as caught:
        synapse_table.read(columns, wanted)
    return str(caught.value)


# What is read


def test_a_row_becomes_a_synapse(columns):
    synapse = only(synapse_table.read(columns(HEADER, GOOD)))
    assert synapse == ("7", (4.0, 8.0, 120.0), 11, 12, 2)


@pytest.mark.parametrize(
    ("names", "values", "expected_nm"),
    [
        ("centre", '"[1, 2, 3]"', (4, 8, 120)),
        ("centre", "[1 2 3]", (4, 8, 120)),
        ("centre", '"(1, 2, 3)"', (4, 8, 120)),
        ("centre", "1 2 3", (4, 8, 120)),
        ("centre", "[1.5e+05 2.  -3.25]", (600_000, 8, -130)),
        ("centre", "[  1   2   3]", (4, 8, 120)),
        ("x,y,z", "1,2,3", (4, 8, 120)),
        ("x,y,z", " 1, 2, 3", (4, 8, 120)),
        ("x,y,z", "0.5,-2,1e2", (2, -8, 4000)),
        ("x,y,z,u,v,w", "1,2,3,2,4,4", (6, 12, 140)),
    ],
)
def test_centres(columns, names, values, expected_nm):
    table = columns(f"id,pre,post,{names}", f"7,11,12,{values}", centre_columns=names.split(","))
    assert only(synapse_table.read(table)).centre_nm == expected_nm


@pytest.mark.parametrize("synapse_id", ["007", "NA", "nan", "syn 7", "12e4567", "1e5", "ß", "7.25", "a.b"])
def test_synapse_ids_are_text(columns, synapse_id):
    assert only(synapse_table.read(columns(HEADER, f"{synapse_id},11,12,1 2 3"))).synapse_id == synapse_id


@pytest.mark.parametrize("neuron", [864691135341198293, 648518346349539437, 2**53 + 1, 2**64 - 1])
def test_neuron_ids_are_exact(columns, neuron):
    synapse = only(synapse_table.read(columns(HEADER, f"7,{neuron},{neuron - 2},1 2 3")))
    assert (synapse.pre_id, synapse.post_id) == (neuron, neuron - 2)


def test_prefix_is_put_before_neuron_ids(columns):
    table = columns(HEADER, "7,612345678,012345678,1 2 3", id_prefix="720575940")
    synapse = only(synapse_table.read(table))
    assert (synapse.pre_id, synapse.post_id) == (720575940612345678, 720575940012345678)


def test_without_id_column_the_row_number_is_the_id(columns):
    table = columns("pre,post,centre", "11,12,1 2 3", "", "0,12,1 2 3", "13,14,1 2 3", id_column="")
    found = synapse_table.read(table)
    assert [synapse.synapse_id for synapse in found.synapses] == ["0", "2"]
    assert [problem.synapse_id for problem in found.problems] == ["1"]


def test_synapses_are_sorted_as_text(columns):
    rows = [f"{synapse_id},11,12,1 2 3" for synapse_id in ("9", "10", "007")]
    ids = [synapse.synapse_id for synapse in synapse_table.read(columns(HEADER, *rows)).synapses]
    assert ids == ["007", "10", "9"]


def test_only_wanted_rows_are_judged(columns):
    rows = ["1,0,12,1 2 3", "2,11,12,1 2 3", "3,8.6E+17,x,", "1,0,0,", "4,11,12,"]
    found = synapse_table.read(columns(HEADER, *rows), {"2", "4", "5"})
    assert [synapse.synapse_id for synapse in found.synapses] == ["2"]
    assert [problem.synapse_id for problem in found.problems] == ["4"]
    assert found.some_ids == ["1", "2", "3"]


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{HEADER}\n{GOOD}\n".encode(),  # byte order mark
        f"{HEADER}\r\n{GOOD}\r\n".encode(),
        f"{HEADER}\r{GOOD}\r".encode(),
        f"{HEADER}\n\n{GOOD}\n\n".encode(),
        f"{HEADER}\n{GOOD}".encode(),  # no line end at the end
        f'{HEADER},note\n{GOOD},"two\nlines, and a comma"\n'.encode(),
        gzip.compress(f"{HEADER}\n{GOOD}\n".encode(), mtime=0),
        gzip.compress(f"{HEADER}\n".encode(), mtime=0) + gzip.compress(f"{GOOD}\n".encode(), mtime=0),
    ],
)
def test_other_ways_to_write_the_same(columns, content):
    assert only(synapse_table.read(columns(content=content))).centre_nm == (4, 8, 120)


# Rows that cannot be used


@pytest.mark.parametrize(
    ("row", "kind", "detail"),
    [
        ("7,11,12,", "no centre", "line 2"),
        ("7,11,12,nan", "no centre", "line 2"),
        ("7,11,12,[nan nan nan]", "no centre", "line 2"),
        ("7,11,12,None", "no centre", "line 2"),
        ("7,11,12,[]", "no centre", "line 2"),
        ('7,11,12,"[1, 2]"', "centre cannot be read", "line 2: [1, 2]"),
        ("7,11,12,1 2 3 4 5 6", "centre cannot be read", "line 2: 1 2 3 4 5 6"),
        ('7,11,12,"365,476 231,192 63,280"', "centre cannot be read", "line 2: 365,476 231,192 63,280"),
        ("7,11,12,1_000 2 3", "centre cannot be read", "line 2: 1_000 2 3"),
        ("7,11,12,inf 2 3", "centre cannot be read", "line 2: inf 2 3"),
        ("7,11,12,1e999 2 3", "centre cannot be read", "line 2: 1e999 2 3"),
        ("7,11,12,POINT Z (1 2 3)", "centre cannot be read", "line 2: POINT Z (1 2 3)"),
        ("7,0,12,1 2 3", "presynaptic id is 0", "line 2"),
        ("7,11,000,1 2 3", "postsynaptic id is 0", "line 2"),
        ("7,,12,1 2 3", "no presynaptic id", "line 2"),
        ("7,11,nan,1 2 3", "no postsynaptic id", "line 2"),
        ("7,-11,12,1 2 3", "presynaptic id is not a whole number", "line 2: -11"),
        ("7,neuron,12,1 2 3", "presynaptic id is not a whole number", "line 2: neuron"),
        ('7,"11,000",12,1 2 3', "presynaptic id is not a whole number", "line 2: 11,000"),
        ("7,²,12,1 2 3", "presynaptic id is not a whole number", "line 2: ²"),
        (f"7,{2**64},12,1 2 3", "presynaptic id does not fit into 64 bits", f"line 2: {2**64}"),
        (f"7,{'9' * 5000},12,1 2 3", "presynaptic id does not fit into 64 bits", f"line 2: {'9' * 200}..."),
        ("7,11,11,1 2 3", "presynaptic and postsynaptic neuron are the same", "line 2: 11"),
        ("7,11,011,1 2 3", "presynaptic and postsynaptic neuron are the same", "line 2: 11"),
        (",11,12,1 2 3", "no synapse id", "line 2"),
        (
            "../7,11,12,1 2 3",
            "synapse id makes no file name",
            "line 2: it holds /, \\ or a control character",
        ),
        (
            "a\\7,11,12,1 2 3",
            "synapse id makes no file name",
            "line 2: it holds /, \\ or a control character",
        ),
        (
            "a\x1b[7m,11,12,1 2 3",
            "synapse id makes no file name",
            "line 2: it holds /, \\ or a control character",
        ),
        (".7,11,12,1 2 3", "synapse id makes no file name", "line 2: names that begin with a dot are hidden"),
    ],
)
def test_a_bad_row_is_a_problem_and_the_others_go_on(columns, row, kind, detail):
    found = synapse_table.read(columns(HEADER, row, '8,11,12,"[1, 2, 3]"'))
    assert [synapse.synapse_id for synapse in found.synapses] == ["8"]
    (problem,) = found.problems
    assert (problem.kind, problem.file, problem.detail) == (kind, "synapses.csv", detail)
    assert (problem.severity, problem.stage) == ("error", "pairing")


def test_a_missing_one_of_three_coordinates_is_no_centre(columns):
    table = columns("id,pre,post,x,y,z", "7,11,12,1,,3", centre_columns=["x", "y", "z"])
    assert [problem.kind for problem in synapse_table.read(table).problems] == ["no centre"]


def test_a_missing_one_of_two_points_is_no_centre(columns):
    names = "x,y,z,u,v,w"
    table = columns(f"id,pre,post,{names}", "7,11,12,1,2,3,,,", centre_columns=names.split(","))
    assert [problem.kind for problem in synapse_table.read(table).problems] == ["no centre"]


def test_an_id_in_a_problem_can_be_printed_and_written(columns):
    content = f'{HEADER}\n"a\rb\x1b",11,12,1 2 3\n'.encode()
    (problem,) = synapse_table.read(columns(content=content)).problems
    assert problem.synapse_id == "a\\rb\\x1b"


@pytest.mark.parametrize("first", ["7,11,12,1 2 3", "7,0,12,1 2 3"])
def test_an_id_that_is_there_twice_is_not_used(columns, first):
    found = synapse_table.read(columns(HEADER, first, "8,11,12,1 2 3", "7,11,12,1 2 3", "7,11,13,1 2 3"))
    assert [synapse.synapse_id for synapse in found.synapses] == ["8"]
    (problem,) = found.problems
    assert (problem.synapse_id, problem.kind) == ("7", "synapse id is in several rows")
    assert problem.detail == "lines 2, 4, 5"


def test_twice_is_counted_among_the_wanted(columns):
    table = columns(HEADER, "7,11,12,1 2 3", "7,11,12,1 2 3", "8,11,12,1 2 3")
    assert synapse_table.read(table, {"8"}).problems == []


def test_rows_without_id_are_not_each_others_double(columns):
    found = synapse_table.read(columns(HEADER, ",11,12,1 2 3", GOOD, ",11,12,1 2 3"))
    assert [problem.detail for problem in found.problems] == ["line 2", "line 4"]


# Tables that cannot be trusted


@pytest.mark.parametrize(
    "neuron",
    [
        "8.6469E+17",
        "8.6469e17",
        "9E+17",
        "864691135000000000.0",
        "864691135341198293.",
        "8,6469E+17",
        "864691135000000000,0",
        "11.0",
        "-1.0",
    ],
)
@pytest.mark.parametrize("row", ["7,{},12,1 2 3", "7,11,{},1 2 3"])
def test_ids_that_were_floats_refuse_the_table(columns, neuron, row):
    if "," in neuron:
        neuron = f'"{neuron}"'
    message = error_of(columns(HEADER, GOOD, row.format(neuron)))
    assert "synapses.csv: line 3: column 'p" in message
    assert neuron.strip('"') in message and "ids stored as floating point lose their last digits" in message


def test_synapse_ids_that_were_floats_refuse_the_table_also_where_others_are_wanted(columns):
    message = error_of(columns(HEADER, GOOD, "8.6469E+17,11,12,1 2 3"), {"7"})
    assert "line 3: column 'id' holds '8.6469E+17'" in message


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ('"=""007"""', "a spreadsheet's way to write text"),
        ("'007", "a spreadsheet's way to write text"),
        (" 007", "with blanks around it"),
        ("007 ", "with blanks around it"),
        ("007\u00a0", "with blanks around it"),
    ],
)
@pytest.mark.parametrize("row", ["{},11,12,1 2 3", "7,{},12,1 2 3", "7,11,{},1 2 3"])
def test_what_a_spreadsheet_does_to_ids_refuses_the_table(columns, field, reason, row):
    message = error_of(columns(HEADER, row.format(field)))
    assert "synapses.csv: line 2: column" in message and reason in message


@pytest.mark.parametrize(
    "change",
    [lambda neuron: int(float(neuron)), lambda neuron: neuron // 1000 * 1000],
    ids=["through float64", "through a spreadsheet"],
)
@pytest.mark.parametrize("side", ["pre", "post"])
def test_ids_that_were_rounded_and_look_whole_refuse_the_table(columns, change, side):
    neurons = [864691135341198293 + 7919 * number for number in range(4)]
    rows = [f"{neuron % 97},{change(neuron)},11,1 2 3" for neuron in neurons]
    header = HEADER if side == "pre" else "id,post,pre,centre"
    message = error_of(columns(header, *rows))
    assert f"column {side!r} holds rounded ids (8646911353" in message


def test_one_round_id_is_not_a_rounded_column(columns):
    rows = ["1,864691135341198336,11,1 2 3", "2,864691135341198336,12,1 2 3", "3,864691135341198337,11,1 2 3"]
    assert len(synapse_table.read(columns(HEADER, *rows)).synapses) == 3
    assert len(synapse_table.read(columns(HEADER, *rows[:2])).synapses) == 2  # no more than chance


def test_a_few_round_ids_may_be_chance_however_often_they_are_there(columns):
    rows = [f"{number},{864691135341198336 + 128 * (number % 2)},11,1 2 3" for number in range(30)]
    assert len(synapse_table.read(columns(HEADER, *rows)).synapses) == 30


def test_small_round_ids_are_not_rounded(columns):
    rows = [f"{number},{number}000000000,11,1 2 3" for number in range(1, 40)]
    assert len(synapse_table.read(columns(HEADER, *rows)).synapses) == 39


def test_a_missing_column_is_named_with_the_nearest_and_those_there(columns):
    message = error_of(columns("id,pre_root_id,post,centre", GOOD, pre_id_column="pre_pt_root_id"))
    assert "synapses.csv: has no column 'pre_pt_root_id' (the nearest is 'pre_root_id')" in message
    assert "its columns are id, pre_root_id, post, centre" in message


def test_a_column_that_is_there_twice_is_refused(columns):
    assert "has 2 columns 'pre'" in error_of(columns("id,pre,pre,post,centre", "7,11,12,13,1 2 3"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no header: it is empty"),
        (b"\n\n", "has no header: it is empty"),
        (f"{HEADER}\n{GOOD}\n8,11,12,1 2 3,4\n".encode(), "line 3 has 5 fields, the header 4"),
        (f"{HEADER}\n8,11,12,1 2 3,4\n".encode(), "line 2 has 5 fields, the header 4"),
        (f"{HEADER}\n{GOOD},\n".encode(), "line 2 has 5 fields, the header 4"),
        (f"{HEADER}\n8,11,12,[1, 2, 3]\n".encode(), "does a value hold a comma without quotes?"),
        (f"{HEADER}\n{GOOD}\n8,11\n".encode(), "line 3 has 2 fields, the header 4: is the file cut off?"),
        (b"id;pre;post;centre\n7;11;12;1 2 3\n", "columns are separated by semicolons"),
        (b"id\tpre\tpost\tcentre\n7\t11\t12\t1 2 3\n", "columns are separated by tabs"),
        (f"{HEADER}\n{GOOD}\n".encode("utf-16"), "is UTF-16 text"),
        (f"{HEADER}\n{GOOD}\n".encode("utf-16-le"), "is UTF-16 text"),
        (f"{HEADER}\n{GOOD}\n8,11,12,ß\n".encode("latin-1"), "line 3 is not UTF-8 text"),
        (f'{HEADER}\n{GOOD}\n8,"11,12,1 2 3\n'.encode(), "is not CSV"),
        (f'{HEADER}\n{GOOD}\n8,"11"2,12,1 2 3\n'.encode(), "line 3 is not CSV"),
        (f'{HEADER}\n{GOOD}\n8,11,12,"{"1" * 200_000}"\n'.encode(), "line 3 is not CSV"),
        (gzip.compress(f"{HEADER}\n{GOOD}\n".encode() * 50, mtime=0)[:-12], "is cut off or damaged"),
        (
            gzip.compress(f"{HEADER}\n{GOOD}\n".encode() * 50, mtime=0)[:40] + b"x" * 40,
            "is cut off or damaged",
        ),
        (b"PK\x03\x04" + b"x" * 40, "is a zip file or a spreadsheet"),
        (b"\xd0\xcf\x11\xe0" + b"x" * 40, "is a spreadsheet"),
        (b"\x93NUMPY\x01\x00", "is a NumPy array"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"<!doctype html><html></html>\n", "is a web page"),
        (b"\xef\xbb\xbf\r\n<head><title>Sign in</title>\n", "is a web page"),
        (b"\x80\x04\x95\x00", "is a Python pickle"),
        (b"BZh91AY", "is compressed with bzip2"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(columns, content, reason):
    message = error_of(columns(content=content))
    assert "synapses.csv" in message and reason in message


def test_a_missing_file_and_a_folder_are_refused(columns, tmp_path):
    table = columns(HEADER)
    assert "there is no such file" in error_of(SimpleNamespace(**vars(table) | {"synapse_table": "/no.csv"}))
    assert "is not a file" in error_of(SimpleNamespace(**vars(table) | {"synapse_table": str(tmp_path)}))


def test_a_line_after_a_value_of_two_lines_is_numbered_as_in_the_file(columns):
    content = f'{HEADER},note\n{GOOD},"a\nb"\n8,0,12,1 2 3,\n'.encode()
    (problem,) = synapse_table.read(columns(content=content)).problems
    assert problem.detail == "line 4"


# Parquet


def test_parquet_without_pyarrow_is_refused(columns, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in error_of(columns(content=b"PAR1", name="synapses.parquet"))


def write_parquet(path, **columns):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path, row_group_size=1)
    return path.read_bytes()


def test_parquet_gives_what_csv_gives(columns, tmp_path):
    content = write_parquet(
        tmp_path / "t",
        note=[1.5, 2.5],
        id=[7, 8],
        pre=[864691135341198293, 11],
        post=["864691135341198295", "0"],
        centre=[[1, 2, 3], [1, 2, 3]],
    )
    found = synapse_table.read(columns(content=content))
    assert found.synapses == [("7", (4, 8, 120), 864691135341198293, 864691135341198295, 0)]
    assert [(one.synapse_id, one.detail) for one in found.problems] == [("8", "line 1")]


def test_parquet_with_floats_for_ids_is_refused(columns, tmp_path):
    content = write_parquet(tmp_path / "t", id=[7], pre=[1.0], post=[2], centre=["1 2 3"])
    message = error_of(columns(content=content))
    assert "column 'pre': ids stored as floating point lose their last digits" in message


def test_parquet_with_missing_values_has_bad_rows(columns, tmp_path):
    content = write_parquet(
        tmp_path / "t",
        id=[7, 8, 9],
        pre=[None, 1, 1],
        post=[2, 2, 2],
        centre=[[1.0, 2, 3], None, [1, None, 3]],
    )
    kinds = [problem.kind for problem in synapse_table.read(columns(content=content)).problems]
    assert kinds == ["no presynaptic id", "no centre", "no centre"]


def test_parquet_that_lacks_a_column_or_is_damaged_is_refused(columns, tmp_path):
    content = write_parquet(tmp_path / "t", id=[7], pre_id=[1], post=[2], centre=["1 2 3"])
    assert "has no column 'pre' (the nearest is 'pre_id')" in error_of(columns(content=content))
    assert "cannot be read as parquet" in error_of(columns(content=content[:50]))


# Real rows, and many


@pytest.mark.skipif(not REAL.exists(), reason="the real table is not here")
def test_the_real_table_gives_the_same_centres_from_nm_and_from_voxels():
    real = SimpleNamespace(
        synapse_table=str(REAL),
        id_column="id",
        pre_id_column="pre_root_id",
        post_id_column="post_root_id",
        id_prefix="",
    )
    places = {"ctr_pt_{}_nm": [1, 1, 1], "ctr_pos_{}_vx": [4, 4, 40]}
    found = []
    for name, unit in places.items():
        real.centre_columns, real.centre_unit_nm = [name.format(axis) for axis in "xyz"], unit
        found.append(synapse_table.read(real))
    assert found[0] == found[1] and len(found[0].synapses) == 200 and found[0].problems == []
    (one,) = [synapse for synapse in found[0].synapses if synapse.synapse_id == "1484"]
    assert one[1:4] == ((365476, 231192, 63280), 648518346349539437, 648518346349531254)


_PEAK = """
import json, resource, sys
from types import SimpleNamespace
from synprep._core import synapse_table
columns = SimpleNamespace(**json.loads(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = synapse_table.read(columns, {"5", "77"})
print(len(found.synapses), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_memory_stays_flat_when_few_rows_are_wanted(columns):
    rows = "\n".join(f"{number},{number + 1},{number + 2},1 2 3" for number in range(200_000))
    table = columns(content=f"{HEADER}\n{rows}\n".encode())
    command = [sys.executable, "-c", _PEAK, json.dumps(vars(table))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed[0] == "2"
    assert int(printed[1]) < 4_000  # kB; all rows would take 80 MB


def test_a_reader_that_stops_early_closes_the_file(columns):
    rows = text_table.rows(columns(HEADER, GOOD, GOOD).synapse_table, ["id"])
    assert next(rows) == (2, ("7",))
    rows.close()
