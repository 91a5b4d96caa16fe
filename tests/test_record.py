"""What is done: lines of the record that are whole, damaged, or of another tool."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from conftest import run_preprocess

from synprep import merge
from synprep._core import files, lock, preflight, problems, provenance, record, tables
from synprep._core.errors import OutputError, TableError
from synprep._core.paths import HIDDEN
from synprep.params import Preprocess

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
    row = tables.meta_row("007", (2, 4, 4, 1), {1: 5.0, 2: 0.0, 3: 7.5}, 1)
    entry = tables.Entry("key", [[1, 2], [3, 4]], [5, 6], row, columns, [*WARNINGS, DETAILED])
    (tmp_path / HIDDEN).mkdir()
    record.append_done(tmp_path, entry)
    (found,) = record.read_done(tmp_path).values()
    assert vars(found) | {"sections": 0} == vars(entry) | {"sections": 0}
    for name, column in columns.items():
        np.testing.assert_array_equal(found.sections[name], column)


def test_a_chunk_that_was_recorded_without_a_column_is_not_done(processed):
    _, folder = processed
    path = folder / HIDDEN / "record.jsonl"
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


def entry_of(synapse_id, n_sections=3, **changed):
    columns = {"cutout_fraction": 0.25, "mean": 127.5, "std": np.nan, "is_blanked": True}
    columns = {name: np.array([value] * n_sections) for name, value in columns.items()}
    row = tables.meta_row(synapse_id, (2, 4, 4, n_sections), {1: 5.0, 2: 0.0, 3: 7.5}, n_sections)
    values = {"key": "k", "inputs": [[1, 2], [3, 4]], "output": [5, 6], "row": row, "sections": columns}
    return tables.Entry(**values | {"warnings": [*WARNINGS, DETAILED]} | changed)


SOURCE = dict(
    zip(tables.SOURCES_COLUMNS, ["1", -1.5, 2, 3.0, -4, 5, 6, "7", "8", "", None, 0, 0.5], strict=True)
)
ENTRIES = [
    entry_of("007"),
    entry_of("NA", 1),
    entry_of("ünï", 0, inputs=[[1.5, 2, 3], [4, 5], "hash"], source=SOURCE | {"synapse_id": "ünï"}),
    entry_of("raw", 0, row={"synapse_id": "raw", "filename": "raw.npy"}, output=[[1, 2], [3, 4]]),
]
LINES = {entry.synapse_id: record._line(entry) for entry in ENTRIES}


def read_lines(folder, content):
    (folder / HIDDEN).mkdir(exist_ok=True)
    (folder / HIDDEN / "record.jsonl").write_bytes(content)
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
    assert (tmp_path / HIDDEN / "record.jsonl").read_bytes() == old
    first, second = old.splitlines(keepends=True)[:2]
    read_lines(tmp_path, first + second + first[:-9] + b"\n" + LINES["NA"])
    record.tidy_done(tmp_path)
    assert (tmp_path / HIDDEN / "record.jsonl").read_bytes() == first + LINES["NA"]


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
    "inputs are a mapping": changed("inputs", to={"a": {}}),
    "state of raw pairs is short": json.dumps(
        without_check(LINES["raw"]) | {"output": [[1, 2], [3]]}
    ).encode(),
    "state of raw pairs is that of a tensor": json.dumps(
        without_check(LINES["raw"]) | {"output": [1, 2]}
    ).encode(),
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
    assert (tmp_path / HIDDEN / "record.jsonl").read_bytes() == LINES["NA"]


def test_damage_in_a_run_is_mended(processed):
    """A line in which a digit changed is not taken, and its chunk is done again."""
    result, folder = processed
    path = folder / HIDDEN / "record.jsonl"
    volume = f'"pre_synaptic_volume":{result.meta["pre_synaptic_volume"][0]}'.encode()
    assert volume in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(volume, volume.replace(b":", b":9")))
    p = Preprocess(**json.loads((folder / "run.json").read_text())["parameters"])
    again = run_preprocess(p)
    assert (again.counts["done"], again.counts["skipped"]) == (1, 1)
    pd.testing.assert_frame_equal(again.meta, result.meta)


@pytest.mark.parametrize("inputs", [[], [{"a": {}}], [[1, 2], [3, "4"]], ["hash"]])
def test_a_chunk_of_other_inputs_is_done_again(processed, inputs):
    _, folder = processed
    path = folder / HIDDEN / "record.jsonl"
    lines = [without_check(line) for line in path.read_text().splitlines()]
    lines[0]["inputs"] = inputs
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    p = Preprocess(**json.loads((folder / "run.json").read_text())["parameters"])
    again = run_preprocess(p)
    assert (again.counts["done"], again.counts["skipped"]) == (1, 1)


def test_without_a_record_nothing_is_done(tmp_path):
    assert record.read_done(tmp_path / "nothing") == {}
    (tmp_path / HIDDEN).touch()
    assert record.read_done(tmp_path) == {}


def test_a_record_that_cannot_be_read_is_one_error(tmp_path):
    (tmp_path / HIDDEN / "record.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"record\.jsonl: cannot be read: "):
        record.read_done(tmp_path)
    for act in (lambda: record.append_done(tmp_path, ENTRIES[0]), lambda: record.sync_done(tmp_path)):
        with pytest.raises(OutputError, match=r"record\.jsonl: cannot be written: "):
            act()


@pytest.mark.parametrize("content", [b"", b"[]", b"7", NESTED, b'{"process": 1}', b"\xff\0", b"{}"])
def test_small_files_that_are_damaged_are_as_none(tmp_path, content):
    (tmp_path / HIDDEN).mkdir()
    for name in ("owner.json", "merged.json", "preflight.json", "../run.json"):
        (tmp_path / HIDDEN / name).write_bytes(content)
    assert lock._owner(tmp_path / HIDDEN / "lock") == "a run that has just started, or a merge that reads it"
    assert merge._own_names(tmp_path) == set()
    assert preflight.kept(tmp_path, "key") is None
    assert provenance.find_record(tmp_path) == {}


def test_a_kept_result_that_is_damaged_is_found_again(tmp_path):
    result = {"layers": {"em": 1.5}, "checks": {"a": [4, 5]}, "warnings": ["w"]}
    preflight.keep(tmp_path, "key", result)
    assert preflight.kept(tmp_path, "key") == result
    path = tmp_path / HIDDEN / "preflight.json"
    path.write_text(path.read_text().replace("4", "5"))
    assert preflight.kept(tmp_path, "key") is None


def test_only_names_are_those_of_a_merge(tmp_path):
    files.save_json(tmp_path / HIDDEN / "merged.json", {"files": ["a.npy", 7, None]})
    assert merge._own_names(tmp_path) == {"a.npy"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_in_place_of_files_are_not_waited_for(tmp_path):
    (tmp_path / HIDDEN).mkdir()
    for name in ("meta.csv", "run.json", f"{HIDDEN}/record.jsonl"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(TableError, match=r"run\.json: it is a named pipe, not a file"):
        provenance.read_record(tmp_path)
    with pytest.raises(OutputError, match=r"record\.jsonl: cannot be read: it is a named pipe, not a file"):
        record.read_done(tmp_path)
    assert tables.save_tables(tmp_path, {"meta.csv": b"a\n"}) == ([], True)
    assert (tmp_path / "meta.csv").read_bytes() == b"a\n"
