import errno
import json
import math
import os
import subprocess
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from conftest import labels
from conftest import run_preprocess as run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synprep import pairing, preprocess
from synprep._core import chunk, dataset, errors, files, lock, npy, problems, record, tables
from synprep._core.errors import LockedError, OutputError, ParameterError, TableError
from synprep._core.paths import HIDDEN
from synprep.params import Preprocess


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != HIDDEN)


def snapshot(folder):
    """Every file and folder with its content and modification time."""
    return {
        path: (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


TABLES = ["meta.csv", "problems.csv", "run.json", "sections.csv"]


def test_tensors_and_tables(write_pair, paths, tmp_path):
    for synapse_id in ("9", "10", "007", "NA"):
        write_pair(synapse_id)
    result = run(Preprocess(**paths))
    folder = tmp_path / "processed"
    files = [f"{synapse_id}__2_6_5_5.npy" for synapse_id in ("007", "10", "9", "NA")]
    assert names(folder) == sorted([*files, *TABLES])
    meta = (folder / "meta.csv").read_bytes()
    columns = "synapse_id,filename,pre_synaptic_volume,post_synaptic_volume,synaptic_cleft_volume"
    assert meta.startswith(f"{columns},n_cutout_sections\n007,007__2_6_5_5.npy,".encode())
    assert b"\r" not in meta
    assert result.meta["filename"].tolist() == files
    assert result.meta["synapse_id"].tolist() == ["007", "10", "9", "NA"]
    sections = pd.read_csv(folder / "sections.csv", dtype={"synapse_id": str}, keep_default_na=False)
    assert list(sections) == ["synapse_id", "z", "cutout_fraction", "mean", "std", "is_blanked"]
    assert sections["synapse_id"].tolist() == [i for i in ("007", "10", "9", "NA") for _ in range(5)]
    assert sections["z"].tolist() == [0, 1, 2, 3, 4] * 4
    assert (folder / "problems.csv").read_text() == "synapse_id,severity,stage,problem,em_path,mask_path\n"
    assert result.failures == {}
    assert result.notes == ("4 chunks finished", f"tensors and tables are in {folder}")


def test_what_is_read_next_is_fetched_ahead(write_pair, paths, tmp_path, monkeypatch):
    for synapse_id in ("1", "2"):
        write_pair(synapse_id)
    (tmp_path / "em" / "bad.npy").write_bytes(b"")
    (tmp_path / "mask" / "bad_mask.npy").write_bytes(b"")
    hints = []
    monkeypatch.setattr(npy.NpyFile, "fetch", lambda file, *bounds: hints.append((file.path.name, bounds)))
    assert list(run(Preprocess(**paths)).failures) == ["bad"]
    files = ["1.npy", "1_mask.npy", "2.npy", "2_mask.npy"]
    assert hints == [(name, (7, 12)) for name in files]


OPENS = """
import json, sys
from synprep import pairing, params, preprocess
p, opened = params.Preprocess(**json.loads(sys.argv[1])), []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
plan = preprocess.plan(pairing.find(p), p, show_progress=False)
n_planned = len(opened)
preprocess.run(plan, p, show_progress=False)
folders = p.raw_em_data_path, p.raw_mask_data_path
print(json.dumps([[path for path in part if path.startswith(folders)]
                  for part in (opened[:n_planned], opened[n_planned:])]))
"""


def test_each_file_is_opened_once_to_check_it_and_once_to_read_it(write_pair, paths, tmp_path):
    write_pair("1")
    write_pair("2", mask_xyz=np.ones((6, 5, 20), np.uint8))  # it lacks labels, so the whole mask is read
    command = [sys.executable, "-c", OPENS, json.dumps(paths)]
    planned, run_ = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    inputs = sorted(
        str(tmp_path / name) for name in ("em/1.npy", "em/2.npy", "mask/1_mask.npy", "mask/2_mask.npy")
    )
    assert sorted(planned) == sorted(2 * inputs)  # the first few are looked at as well
    assert sorted(run_) == inputs


def test_run_json_says_what_was_done(write_pair, paths, tmp_path):
    write_pair("1")
    write_pair("bad", em_xyz=np.zeros((3, 3, 3), np.float32))
    result = run(Preprocess(**paths, max_failures=3))
    written = json.loads((tmp_path / "processed" / "run.json").read_text())
    assert written["parameters"]["raw_em_data_path"] == paths["raw_em_data_path"]
    assert written["parameters"]["max_failures"] == 3
    assert written["counts"] == {"paired": 2, "done": 1, "skipped": 0, "failed": 1, "warned": 0}
    assert set(written["versions"]) == {"python", "synprep", "numpy", "pandas"}
    assert written["started"] <= written["ended"]
    assert written["input_fingerprint"] == result.inputs_hash
    assert "commit" in written


def test_the_fingerprint_is_of_names_and_sizes(write_pair, paths, tmp_path):
    write_pair("1")
    p = Preprocess(**paths)
    first = run(p).inputs_hash
    os.utime(tmp_path / "em" / "1.npy", (1, 1))
    assert run(p).inputs_hash == first
    write_pair("2")
    assert run(p).inputs_hash != first


def test_a_bad_chunk_is_named_and_the_others_are_done(write_pair, paths, tmp_path):
    write_pair("good")
    write_pair("bad", em_xyz=np.zeros((3, 3, 3), np.float32))
    result = run(Preprocess(**paths))
    assert result.meta["synapse_id"].tolist() == ["good"]
    assert result.failures == {
        "bad": "EM must be uint8: bad.npy: it is float32 (to convert: docs/troubleshooting.md)"
    }
    (row,) = pd.read_csv(tmp_path / "processed" / "problems.csv").to_dict("records")
    assert [row[name] for name in ("synapse_id", "severity", "stage")] == ["bad", "error", "preflight"]
    assert row["em_path"] == (tmp_path / "em" / "bad.npy").as_posix()
    assert row["mask_path"] == (tmp_path / "mask" / "bad_mask.npy").as_posix()
    assert result.summary()["count"][["chunks processed", "chunks failed"]].tolist() == [1, 1]


def test_a_later_success_removes_the_line(write_pair, paths):
    write_pair("1", em_xyz=np.zeros((3, 3, 3), np.float32))
    assert len(run(Preprocess(**paths)).problems) == 1
    write_pair("1")
    assert len(run(Preprocess(**paths)).problems) == 0


def test_all_chunks_bad_gives_empty_tables(write_pair, paths, tmp_path):
    write_pair("bad", em_xyz=np.zeros((3, 3, 3), np.float32))
    result = run(Preprocess(**paths))
    assert len(result.meta) == 0
    assert result.summary()["count"].tolist() == [1, 0, 1, 0, 0, 0, 0]
    assert names(tmp_path / "processed") == TABLES


def test_warnings_are_rows_and_survive_a_resumed_run(write_pair, paths):
    write_pair("1", mask_xyz=np.zeros((6, 5, 20), np.uint8))
    write_pair("22")
    write_pair("333")
    for _ in range(2):
        result = run(Preprocess(**paths))
        assert [one.synapse_id for one in result.problems] == ["1"] * 3
        assert {one.severity for one in result.problems} == {"warning"}
        assert result.failures == {}
        assert result.counts["warned"] == 1


def test_problems_are_grouped(write_pair, paths):
    for synapse_id in ("1", "2"):
        write_pair(synapse_id, em_xyz=np.zeros((3, 3, 3), np.float32))
    write_pair("3")
    p = Preprocess(**paths)
    grouped = problems.grouped(preprocess.plan(pairing.find(p), p, show_progress=False).problems)
    assert grouped.reset_index().values.tolist() == [["EM must be uint8", "error", 2, "1.npy, 2.npy"]]
    assert problems.grouped([]) is None


def test_some_of_the_pairs(write_pair, paths, tmp_path):
    for synapse_id in ("1", "2", "3", "4"):
        write_pair(synapse_id)
    (tmp_path / "ids.csv").write_text("synapse_id,score\n4,1\n2,1\n3,1\n")
    p = Preprocess(**paths, synapse_ids_path=str(tmp_path / "ids.csv"), max_chunks=2)
    assert run(p).meta["synapse_id"].tolist() == ["2", "3"]


def test_ids_that_are_not_paired_are_told(write_pair, paths, tmp_path, capsys):
    write_pair("1")
    (tmp_path / "ids.csv").write_text("synapse_id\n1\n8\n9\n")
    p = Preprocess(**paths, synapse_ids_path=str(tmp_path / "ids.csv"))
    preprocess.plan(pairing.find(p), p)
    # In a notebook, what comes before the last line of the progress bar is cleared away.
    last = capsys.readouterr().out.split("Checking headers: done\n")[1]
    assert last == "2 ids of synapse_ids_path not paired: 8, 9\n"
    (tmp_path / "em" / "8.npy").touch()
    result = run(p)
    assert (result.tally["unpaired"], result.tally["not_found"]) == (1, 1)
    (tmp_path / "ids.csv").write_text("synapse_id\n1\n")
    assert "not_found" not in run(p).tally


def test_ids_that_differ_only_in_case_are_an_error_each(write_pair, paths):
    for synapse_id in ("a1", "A1", "b", "ß"):
        write_pair(synapse_id)
    result = run(Preprocess(**paths))
    assert result.meta["synapse_id"].tolist() == ["b", "ß"]
    reason = "synapse ids differ only in case, so that files could be mixed up: A1, a1"
    assert result.failures == {"A1": reason, "a1": reason}
    assert {one.stage for one in result.problems} == {"pairing"}
    assert result.counts == {"paired": 4, "done": 2, "skipped": 0, "failed": 2, "warned": 0}
    assert run(Preprocess(**paths)).counts["skipped"] == 2


@pytest.fixture
def strays(write_pair, tmp_path):
    """One pair, two EM files and one mask without partner, four other files, and two hidden ones."""
    write_pair("1")
    em, mask = tmp_path / "em", tmp_path / "mask"
    stray = [em / "7.npy", em / "8.npy", mask / "9_mask.npy", *(em / f"{name}.tif" for name in "abc")]
    for path in [*stray, em / "._1.npy", mask / ".DS_Store", mask / "Thumbs.db"]:
        path.write_bytes(b"x")


def pairing_rows(folder):
    table = pd.read_csv(folder / "problems.csv", keep_default_na=False, dtype=str)
    assert set(table["severity"]) <= {"warning"} and set(table["stage"]) <= {"pairing"}
    return table.set_index("synapse_id")["problem"].to_dict()


def test_files_in_no_pair_are_warnings(strays, paths, tmp_path):
    result = run(Preprocess(**paths))
    rows = pairing_rows(tmp_path / "processed")
    assert rows == {
        "": "passed over: neither EM nor mask, by folder and filename pattern: 4 files: a.tif, b.tif, c.tif "
        "and 1 more",
        "7": "EM without mask: 7.npy",
        "8": "EM without mask: 8.npy",
        "9": "mask without EM: 9_mask.npy",
    }
    counts = {"paired": 1, "done": 1, "skipped": 0, "failed": 0, "warned": 0}
    assert result.counts == counts | {"em_only": 2, "mask_only": 1, "passed_over": 4}
    assert json.loads((tmp_path / "processed" / "run.json").read_text())["counts"] == result.counts
    said = "files that are in no pair: 2 EM without mask, 1 mask without EM, 4 neither EM nor mask, 2 hidden"
    assert result.notes[2:] == (said,)
    assert result.failures == {}
    files = {one.synapse_id: (one.em_path, one.mask_path) for one in result.problems}
    assert files["8"] == ((tmp_path / "em" / "8.npy").as_posix(), "")
    assert files["9"] == ("", (tmp_path / "mask" / "9_mask.npy").as_posix())
    before = snapshot(tmp_path / "processed")
    assert run(Preprocess(**paths)).notes[-1] == said
    assert snapshot(tmp_path / "processed") == before
    (tmp_path / "em" / "8.npy").unlink()
    assert run(Preprocess(**paths)).counts["em_only"] == 1
    assert "8" not in pairing_rows(tmp_path / "processed")


def test_of_files_in_no_pair_those_that_were_asked_for(strays, write_pair, paths, tmp_path):
    for name in ("2", "2\x1b"):
        write_pair(name)
    (tmp_path / "em" / "a").mkdir()
    (tmp_path / "em" / "a" / "2.npy").touch()
    (tmp_path / "ids.csv").write_text("synapse_id\n1\n8\n")
    result = run(Preprocess(**paths, synapse_ids_path=str(tmp_path / "ids.csv")))
    assert [one.synapse_id for one in result.problems] == ["", "8"]
    assert result.counts["em_only"] == 1 and "mask_only" not in result.counts
    result = run(Preprocess(**paths, max_chunks=1))
    assert [one.synapse_id for one in result.problems] == ["", "2", r"2\x1b", "7", "8", "9"]
    assert set(result.failures) == {"2", r"2\x1b"}


def test_outputs_among_inputs_are_not_passed_over(write_pair, paths, tmp_path):
    write_pair("1")
    (tmp_path / "mask" / "notes.txt").touch()
    for folder, n_passed_over in ((tmp_path, 1), (tmp_path / "mask" / "out", 1), (tmp_path / "mask", 0)):
        p = Preprocess(**{**paths, "proc_data_path": str(folder)})
        assert run(p).counts.get("passed_over", 0) == n_passed_over
        before = snapshot(folder)
        assert run(p).counts.get("passed_over", 0) == n_passed_over
        assert snapshot(folder) == before


def test_folders_may_have_names_that_are_not_text(write_pair, paths, tmp_path):
    write_pair("1")
    (tmp_path / "em" / "\udcff").mkdir()
    (tmp_path / "em" / "1.npy").rename(tmp_path / "em" / "\udcff" / "1.npy")
    assert len(run(Preprocess(**paths)).meta) == 1
    (tmp_path / "em" / "\udcff" / "1.npy").write_bytes(b"x")
    assert list(run(Preprocess(**paths)).failures) == ["1"]
    assert r"em/\udcff/1.npy" in (tmp_path / "processed" / "problems.csv").read_text("utf-8")


def test_several_shapes_are_said_with_their_counts(write_pair, paths):
    for synapse_id in ("1", "1__2_3", "3"):
        write_pair(synapse_id)
    assert not any("shapes (" in note for note in run(Preprocess(**paths)).notes)
    write_pair("4", em_xyz=np.ones((5, 5, 20), np.uint8))
    said = "2 shapes (c, x, y, z): 2 x 6 x 5 x 5 (3 chunks), 2 x 5 x 5 x 5 (1 chunk)"
    assert said in run(Preprocess(**paths)).notes


NASTY = [
    "1\r",
    "1\n2",
    ' "3",4 ',
    "NA",
    "\ufeff5",
    "6\udcff",
    "\u2028",
    "8.6E+17",
    "'9",
    "=1+1",
    "e\u0301",
    "\x1b[2J",
]
NASTY += [
    "a\\b",
    "\u202e",
    "a\u00a0",
    "\x85",
    "-",
    "#",
    "$_$",
    "%s",
    "{0}",
    ".hidden",
    "~$x",
    "CON",
    "x" * 300,
]


def is_printable(text):
    controls = {"\u2028", "\u2029", *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))}
    return not any(unicodedata.category(mark) in ("Cc", "Cs") or mark in controls for mark in text)


def write_named(folder, names):
    """Write a pair for each name that a file can have here."""
    for kind, end in (("em", ".npy"), ("mask", "_mask.npy")):
        (folder / kind).mkdir()
        for name in {*names, "good"}:
            with suppress(OSError, UnicodeEncodeError):  # too long, or no name here
                np.save(folder / kind / f"{name}{end}", np.ones((2, 2, 2), np.uint8))


@given(names=st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=9), max_size=20))
@example(names=NASTY)
@settings(max_examples=8)
def test_what_is_written_is_read_and_what_is_printed_is_printable(names):
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_named(folder, names)
        roles = {"raw_em_data_path": "em", "raw_mask_data_path": "mask", "proc_data_path": "processed"}
        p = Preprocess(**{role: str(folder / one) for role, one in roles.items()})
        found, result = pairing.find(p), run(p)
        data, written = (
            dataset.load(p.proc_data_path),
            tables.read_table(folder / "processed" / "problems.csv"),
        )
        pd.testing.assert_frame_equal(data.meta, result.meta)
        pd.testing.assert_frame_equal(written, problems.table(result.problems), check_dtype=False)
        n_files = len([one for one in os.scandir(folder / "em") if not one.name.startswith(".")])
        assert len(result.meta) + len(result.failures) == n_files - len(found.claimed_twice)
        printed = [*result.notes, *written.to_numpy().flat, *data.meta["synapse_id"]]
        shown = found.as_table(), problems.grouped(result.problems)
        printed += [text for table in shown if table is not None for text in table["examples"]]
        printed += errors.failure_lines(result.failures, len(result.meta))
        assert [text for text in printed if not is_printable(text)] == []
        assert run(p).counts["done"] == 0


def test_an_id_alone_may_have_any_case(write_pair, paths, tmp_path):
    for synapse_id in ("a1", "A1"):
        write_pair(synapse_id)
    (tmp_path / "ids.csv").write_text("synapse_id\nA1\n")
    assert run(Preprocess(**paths, synapse_ids_path=str(tmp_path / "ids.csv"))).failures == {}


def test_planning_writes_nothing(write_pair, paths, tmp_path):
    write_pair("1")
    p = Preprocess(**paths)
    preprocess.plan(pairing.find(p), p, show_progress=False)
    assert not (tmp_path / "processed").exists()


class TestResume:
    """A chunk is done again only if it has to be."""

    @pytest.fixture
    def p(self, write_pair, paths):
        for synapse_id in ("1", "2", "3"):
            write_pair(synapse_id)
        p = Preprocess(**paths)
        run(p)
        return p

    def done(self, p):
        return run(p).counts["done"]

    def test_a_finished_run_writes_nothing_at_all_and_says_so(self, p, tmp_path, capsys):
        before = snapshot(tmp_path / "processed")
        result = preprocess.run(preprocess.plan(pairing.find(p), p), p)
        assert snapshot(tmp_path / "processed") == before
        assert "Preprocessing: 100%|" in (shown := capsys.readouterr().out)
        assert "3/3" in shown
        assert result.notes[0] == "3 chunks finished"
        assert result.counts == {"paired": 3, "done": 0, "skipped": 3, "failed": 0, "warned": 0}

    def test_chunks_of_before_a_warning_was_known_stay_as_they_are(
        self, write_pair, paths, tmp_path, monkeypatch
    ):
        mask_xyz = labels((6, 5, 20))
        mask_xyz[0, 0, 9] = 2
        write_pair("1", mask_xyz=mask_xyz)
        with monkeypatch.context() as patch:
            patch.setattr(chunk, "_sides", lambda *_: [])
            assert run(Preprocess(**paths)).counts["warned"] == 0
        before = snapshot(tmp_path / "processed")
        run(Preprocess(**paths))
        assert snapshot(tmp_path / "processed") == before
        assert run(Preprocess(**paths, resume=False)).counts["warned"] == 1

    def test_tables_are_those_of_an_undisturbed_run(self, p, tmp_path):
        before = {name: (tmp_path / "processed" / name).read_bytes() for name in ("meta.csv", "sections.csv")}
        (tmp_path / "processed" / "2__2_6_5_5.npy").unlink()
        for name in before:
            (tmp_path / "processed" / name).unlink()
        assert self.done(p) == 1
        assert {name: (tmp_path / "processed" / name).read_bytes() for name in before} == before

    def test_a_table_that_was_cut_is_written_again_once_it_is_gone(self, p, tmp_path):
        path = tmp_path / "processed" / "meta.csv"
        content = path.read_bytes()
        path.write_bytes(content[:-20])
        with pytest.raises(TableError, match=r"meta\.csv: line 4 has .*; if it is moved away, it is written"):
            self.done(p)
        path.unlink()
        assert self.done(p) == 0
        assert path.read_bytes() == content

    def test_new_chunks_only(self, p, write_pair):
        write_pair("4")
        assert self.done(p) == 1

    @pytest.mark.parametrize("name", ["em/2.npy", "mask/2_mask.npy"])
    def test_a_changed_input(self, p, tmp_path, name):
        os.utime(tmp_path / name, (1, 1))
        assert self.done(p) == 1
        assert self.done(p) == 0

    def test_a_deleted_output(self, p, tmp_path):
        (tmp_path / "processed" / "2__2_6_5_5.npy").unlink()
        assert self.done(p) == 1

    def test_a_damaged_output(self, p, tmp_path):
        (tmp_path / "processed" / "2__2_6_5_5.npy").write_bytes(b"x")
        assert self.done(p) == 1

    @pytest.mark.parametrize(
        "changed",
        [
            {"cutout_threshold": 0.5},
            {"cutout_pixel_value": 7},
            {"axial_to_sagittal_spacing": 4},
            {"n_sections": 5},
            {
                "seg_mask_map": {
                    "MASK_PRE_SYNAPTIC_NEURON": 3,
                    "MASK_SYNAPTIC_CLEFT": 2,
                    "MASK_POST_SYNAPTIC_NEURON": 1,
                }
            },
            {"cut_intensity_with_seg_masks": True},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_changed_parameters_that_matter(self, p, paths, changed):
        assert self.done(Preprocess(**paths, **changed)) == 3

    def test_other_channels_of_cut_em_are_made_again(self, p, paths):
        cut = {**paths, "cut_intensity_with_seg_masks": True}
        assert self.done(Preprocess(**cut, output_channel_desc=[[1], [2]])) == 3
        assert self.done(Preprocess(**cut, output_channel_desc=[[1], [2, 3]])) == 3
        assert self.done(Preprocess(**cut, output_channel_desc=[[1], [2, 3]])) == 0

    def test_changed_parameters_that_do_not_matter(self, p, paths):
        assert self.done(Preprocess(**paths, voxel_size_xy_nm=4, output_channel_desc=[[1]], n_workers=1)) == 0

    def test_without_resume_all_is_done_again(self, p, paths):
        assert self.done(Preprocess(**paths, resume=False)) == 3

    def test_a_record_line_that_was_cut_is_done_again(self, p, tmp_path):
        path = tmp_path / "processed" / HIDDEN / "record.jsonl"
        path.write_bytes(path.read_bytes()[:-20])
        assert self.done(p) == 1
        assert self.done(p) == 0
        assert len(path.read_bytes().splitlines()) == 3

    def test_superseded_lines_are_removed(self, p, paths, tmp_path):
        run(Preprocess(**paths, resume=False))
        assert len((tmp_path / "processed" / HIDDEN / "record.jsonl").read_bytes().splitlines()) == 3

    def test_chunks_that_are_gone_are_kept_and_told(self, p, tmp_path):
        (tmp_path / "em" / "2.npy").unlink()
        (tmp_path / "processed" / "._1__2_6_5_5.npy").touch()
        result = run(p)
        assert result.meta["synapse_id"].tolist() == ["1", "3"]
        assert (tmp_path / "processed" / "2__2_6_5_5.npy").exists()
        assert "1 array file not in meta.csv, kept: 2__2_6_5_5.npy" in result.notes

    def test_left_overs_are_cleaned_up(self, p, tmp_path):
        left_over = tmp_path / "processed" / f".1-{'0a' * 16}.tmp"
        left_over.touch()
        (tmp_path / "processed" / "2__2_6_5_5.npy").unlink()
        run(p)
        assert not left_over.exists()


def test_an_interrupted_run_says_that_the_same_command_goes_on(write_pair, paths, monkeypatch, capsys):
    for synapse_id in ("1", "2"):
        write_pair(synapse_id)

    def stop(folder, entry):
        append_done(folder, entry)
        raise KeyboardInterrupt

    append_done = record.append_done
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(record, "append_done", stop)
        run(Preprocess(**paths))
    said = "interrupted: what is finished is kept; the same command, or Run All, goes on\n"
    assert capsys.readouterr().out == said
    assert run(Preprocess(**paths)).counts["skipped"] == 1


class TestPreviousTable:
    """No meta.csv describes other arrays than those beside it."""

    @pytest.fixture
    def p(self, write_pair, paths):
        for synapse_id in ("1", "2"):
            write_pair(synapse_id)
        p = Preprocess(**paths)
        run(p)
        return p

    NOTE = "meta.csv differs from the one that was there, which is kept as meta.1.csv"

    def test_doing_all_again_leaves_no_copy(self, p, paths, tmp_path):
        assert run(Preprocess(**paths, resume=False)).history == ()
        assert names(tmp_path / "processed") == ["1__2_6_5_5.npy", "2__2_6_5_5.npy", *TABLES]

    def test_rows_added_at_the_end_leave_no_copy(self, p, write_pair, tmp_path):
        write_pair("3")
        assert run(p).history == ()
        assert not (tmp_path / "processed" / "meta.1.csv").exists()

    def test_an_inserted_row_keeps_the_old_table(self, p, write_pair, tmp_path):
        old = (tmp_path / "processed" / "meta.csv").read_bytes()
        write_pair("0")
        assert run(p).history == (self.NOTE,)
        assert (tmp_path / "processed" / "meta.1.csv").read_bytes() == old
        assert run(p).history == ()

    def test_a_removed_row_keeps_the_old_table(self, p, tmp_path):
        (tmp_path / "em" / "2.npy").unlink()
        assert run(p).history == (f"{self.NOTE}: 1 of its 2 chunks are left out",)

    def test_a_trial_with_another_parameter_says_so_once(self, p, paths):
        trial = Preprocess(**paths, max_chunks=1, cutout_threshold=0.5)
        changed = (
            "done again, since parameters are not those of the last run: cutout_threshold 0.5, before 0.01"
        )
        assert run(trial).history == (f"{self.NOTE}: 1 of its 2 chunks are left out", changed)
        assert run(trial).history == ()

    def test_an_old_table_that_cannot_be_read_is_kept_all_the_same(self, p, paths, write_pair, tmp_path):
        (tmp_path / "processed" / "meta.csv").rename(tmp_path / "processed" / "meta.1.csv")
        (tmp_path / "processed" / "meta.1.csv").write_bytes(b"\xff")
        assert run(p).history == (self.NOTE,)

    def test_the_old_tables_are_gone_before_the_first_array_is_overwritten(
        self, p, paths, tmp_path, monkeypatch
    ):
        old = (tmp_path / "processed" / "meta.csv").read_bytes()

        def stop(path, array):
            assert names(tmp_path / "processed") == [
                "1__2_6_5_5.npy",
                "2__2_6_5_5.npy",
                "meta.1.csv",
                "problems.csv",
            ]
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(files, "save_array", stop)
            run(Preprocess(**paths, cutout_threshold=0.5))
        assert (tmp_path / "processed" / "meta.1.csv").read_bytes() == old
        assert (
            run(p).counts["done"] == 0
        )  # with the old parameters nothing has changed, but the table is back
        assert (tmp_path / "processed" / "meta.csv").read_bytes() == old


class TestRefusals:
    """What would mix data sets or read outputs as inputs."""

    @pytest.mark.parametrize("inside", ["em", "em/processed", "mask"])
    def test_outputs_among_inputs(self, write_pair, paths, tmp_path, inside):
        write_pair("1")
        patterns = {"mask_filename_pattern": "{synapse_id}.npy"} if inside == "mask" else {}
        if patterns:
            (tmp_path / "mask" / "1_mask.npy").rename(tmp_path / "mask" / "1.npy")
        p = Preprocess(**{**paths, "proc_data_path": str(tmp_path / inside)}, **patterns)
        with pytest.raises(ParameterError, match="would take outputs such as 1__2_256"):
            run(p)

    def test_outputs_of_several_runs_among_inputs_are_said_to_be_such(self, write_pair, paths, tmp_path):
        for name in ("1", "1__2_256_256_52"):
            write_pair(name)
        for folder in ("one", "two"):
            (tmp_path / "em" / folder).mkdir()
            (tmp_path / "em" / folder / "1__2_256_256_52.npy").write_bytes(b"x")
        (reason,) = run(Preprocess(**paths)).failures.values()
        assert reason.startswith("claimed by several files: ")
        assert reason.endswith(": named as preprocess names tensors: move them out of the raw folder")

    def test_outputs_that_no_pattern_fits_may_stand_among_inputs(self, write_pair, paths, tmp_path):
        write_pair("1")
        p = Preprocess(**{**paths, "proc_data_path": str(tmp_path / "mask")})
        assert len(run(p).meta) == 1

    def test_inputs_inside_the_output_folder(self, write_pair, paths, tmp_path):
        write_pair("1")
        p = Preprocess(**{**paths, "proc_data_path": str(tmp_path)})
        assert len(run(p).meta) == 1
        assert len(run(p).meta) == 1

    def test_a_table_of_another_data_set(self, write_pair, paths, tmp_path):
        write_pair("1")
        (tmp_path / "processed").mkdir()
        (tmp_path / "processed" / "meta.csv").write_text("synapse_id,filename\n1,a\n7,b\n")
        with pytest.raises(TableError, match=r"another data set: 1 of its 2 chunks .* \(7\); set another"):
            run(Preprocess(**paths))
        assert names(tmp_path / "processed") == ["meta.csv"]
        run(Preprocess(**paths, resume=False))
        assert (tmp_path / "processed" / "meta.1.csv").read_text().endswith("7,b\n")

    def test_a_table_of_the_seed_is_taken_over(self, write_pair, paths, tmp_path):
        write_pair("1")
        write_pair("2")
        (tmp_path / "processed").mkdir()
        (tmp_path / "processed" / "meta.csv").write_text("synapse_id,filename\n1,a\n")
        assert len(run(Preprocess(**paths)).meta) == 2
        assert (tmp_path / "processed" / "meta.1.csv").exists()

    def test_not_enough_space(self, write_pair, paths, tmp_path, monkeypatch):
        write_pair("1")
        usage = type("Usage", (), {"free": 2 * 6 * 5 * 5 + 127})
        monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(OutputError, match=r"the run will write 0\.00 GB and only 0\.00 GB are free"):
            run(Preprocess(**paths))
        assert not (tmp_path / "processed").exists()
        usage.free += 1
        assert len(run(Preprocess(**paths)).meta) == 1

    def test_an_id_that_would_leave_the_folder(self, write_pair, paths):
        write_pair("a\\1")
        write_pair("2")
        result = run(Preprocess(**paths))
        assert result.meta["synapse_id"].tolist() == ["2"]
        assert result.failures == {"a\\1": "synapse id would leave the output folder: a\\1"}


class TestFirstChunks:
    """What would be wrong with all chunks is found in the first eight, before anything is written."""

    def refused(self, paths, tmp_path, **values):
        with pytest.raises(ParameterError) as caught:
            run(Preprocess(**paths, **values))
        assert not (tmp_path / "processed").exists()
        return str(caught.value)

    @pytest.mark.parametrize("n_chunks", [1, 9])
    def test_no_label_in_any(self, write_pair, paths, tmp_path, n_chunks):
        for number in range(n_chunks):
            write_pair(f"{number}")
        other = dict(zip(Preprocess().seg_mask_map, (10, 20, 30), strict=True))
        head, values, given, advice = self.refused(paths, tmp_path, seg_mask_map=other).splitlines()
        where = "any of the first 8 chunks" if n_chunks > 1 else "the first chunk"
        assert head == f"no label in the kept sections of {where}, so nothing was written:"
        assert values == "  values of the masks in these sections: 0, 1, 2, 3"
        assert given == f"  seg_mask_map: {other}"
        assert advice.startswith("  change seg_mask_map; {} says that no labels are expected")

    def test_empty_masks(self, write_pair, paths, tmp_path):
        write_pair("1", mask_xyz=np.zeros((6, 5, 20), np.uint8))
        assert "in these sections: 0\n" in self.refused(paths, tmp_path)

    def test_labels_that_the_crop_removes(self, write_pair, paths, tmp_path):
        mask_xyz = np.zeros((6, 5, 20), np.uint8)
        mask_xyz[:, :, 0] = 1
        write_pair("1", mask_xyz=mask_xyz)
        assert self.refused(paths, tmp_path).endswith("see n_sections and axial_to_sagittal_spacing, too")

    def test_one_label_is_enough(self, write_pair, paths):
        for number in range(8):
            mask_xyz = np.full((6, 5, 20), 9 if number else 2, np.uint8)
            write_pair(f"{number}", mask_xyz=mask_xyz)
        assert len(run(Preprocess(**paths)).meta) == 8

    def test_what_is_done_counts(self, write_pair, paths):
        write_pair("1")
        assert len(run(Preprocess(**paths)).meta) == 1
        write_pair("2", mask_xyz=np.zeros((6, 5, 20), np.uint8))
        assert len(run(Preprocess(**paths)).meta) == 2

    def test_nothing_is_looked_at_where_nothing_is_left_to_do(self, write_pair, paths, monkeypatch):
        write_pair("1")
        run(Preprocess(**paths))
        monkeypatch.setattr(npy.NpyFile, "read", None)
        assert run(Preprocess(**paths)).counts["skipped"] == 1

    def test_chunks_that_cannot_be_read_do_not_count(self, write_pair, paths, tmp_path):
        write_pair("1", mask_xyz=np.full((6, 5, 20), 256))
        assert len(run(Preprocess(**paths)).failures) == 1
        write_pair("2")
        assert list(run(Preprocess(**paths)).meta["synapse_id"]) == ["2"]

    def test_no_labels_are_expected(self, write_pair, paths, tmp_path):
        mask_xyz = np.arange(600, dtype=np.int64).reshape(6, 5, 20) % 7
        write_pair("1", mask_xyz=mask_xyz)
        result = run(Preprocess(**paths, seg_mask_map={}))
        assert result.problems == ()
        tensor_cxyz = np.load(tmp_path / "processed" / "1__2_6_5_5.npy")
        assert np.array_equal(tensor_cxyz[1], mask_xyz[:, :, 7:12])
        assert run(Preprocess(**paths, seg_mask_map={})).counts["skipped"] == 1
        assert run(Preprocess(**paths)).counts["skipped"] == 0  # another key

    def test_no_labels_cannot_cut_the_em(self):
        with pytest.raises(ParameterError, match="cut_intensity_with_seg_masks needs labels"):
            Preprocess(seg_mask_map={}, cut_intensity_with_seg_masks=True)

    def test_every_section_of_eight_chunks_would_be_blanked(self, write_pair, paths, tmp_path):
        em_xyz = np.full((6, 5, 20), 7, np.uint8)
        for number in range(8):
            write_pair(f"{number}", em_xyz=em_xyz)
        said = self.refused(paths, tmp_path, cutout_pixel_value=7)
        assert said == (
            "every section of the first 8 chunks would be blanked: see cutout_threshold 0.01 and "
            "cutout_pixel_value 7"
        )
        assert len(run(Preprocess(**paths, cutout_pixel_value=7, max_chunks=7)).meta) == 7  # a note says it

    @pytest.mark.parametrize("dtype", [np.uint8, np.int64])
    def test_em_and_mask_exchanged(self, write_pair, paths, tmp_path, dtype):
        rng = np.random.default_rng(0)
        for synapse_id in ("1", "2"):
            mask_xyz = rng.integers(0, 256, (6, 5, 20), dtype=np.uint8)
            write_pair(synapse_id, em_xyz=mask_xyz.astype(dtype) % 4, mask_xyz=mask_xyz)
        said = self.refused(paths, tmp_path)
        assert said.startswith("raw_em_data_path and raw_mask_data_path seem to be exchanged")

    def test_16_bit_em_is_not_called_exchanged(self, write_pair, paths):
        em_xyz = np.arange(600, dtype=np.uint16).reshape(6, 5, 20)
        write_pair("1", em_xyz=em_xyz)
        assert list(run(Preprocess(**paths)).failures) == ["1"]


class TestWhatCannotBeHeld:
    """One chunk whose name, tensor or input cannot be held here is left out, and the others are done."""

    def alone(self, paths, synapse_id, stage="preflight", **values):
        """What is said of the one chunk that is left out."""
        result = run(Preprocess(**paths, **values))
        assert list(result.meta["synapse_id"]) == ["1"]
        (one,) = result.problems
        assert (one.synapse_id, one.stage) == (synapse_id, stage)
        return one.text

    @pytest.mark.parametrize("synapse_id", ["x" * 244, "é" * 122])
    def test_a_name_that_is_too_long(self, write_pair, paths, synapse_id):
        write_pair("1")
        write_pair(synapse_id)
        said = self.alone(paths, synapse_id)
        assert said == (
            f"synapse id makes no name that a file can have here: {synapse_id[:20]}... has 257 bytes, "
            "255 are allowed"
        )

    def test_a_file_system_with_shorter_names(self, write_pair, paths, monkeypatch):
        write_pair("1")
        write_pair("x" * 20)
        monkeypatch.setattr(os, "pathconf", lambda path, name: 32)
        assert self.alone(paths, "x" * 20).endswith("has 33 bytes, 32 are allowed")

    @pytest.mark.parametrize("unknown", [-1, OSError, ValueError])
    def test_a_limit_that_is_not_known(self, write_pair, paths, monkeypatch, unknown):
        def pathconf(path, name):
            if unknown == -1:
                return -1
            raise unknown

        monkeypatch.setattr(os, "pathconf", pathconf)
        write_pair("1")
        assert run(Preprocess(**paths)).counts["done"] == 1

    @pytest.mark.parametrize("synapse_id", ["a:b", "con.1", "NUL.", "what?"])
    def test_names_that_windows_refuses(self, write_pair, paths, monkeypatch, synapse_id):
        write_pair("1")
        write_pair(synapse_id)
        assert run(Preprocess(**paths)).counts["done"] == 2
        monkeypatch.setattr(files, "_IS_WINDOWS", True)
        assert self.alone(paths, synapse_id, resume=False).endswith("is none on Windows")

    @pytest.mark.parametrize("code", [errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG])
    def test_names_that_only_the_file_system_refuses(self, write_pair, paths, tmp_path, monkeypatch, code):
        def replace(source, target):
            if "a:b" in str(target):
                raise OSError(code, os.strerror(code))
            rename(source, target)

        rename = os.replace
        monkeypatch.setattr(os, "replace", replace)
        write_pair("1")
        write_pair("a:b")
        said = self.alone(paths, "a:b", "processing")
        assert said.startswith("synapse id makes no name that a file can have here: a:b__2_6_5_5.npy: ")
        assert names(tmp_path / "processed") == ["1__2_6_5_5.npy", *TABLES]

    def test_a_tensor_that_is_larger_than_the_disk(self, write_pair, paths, tmp_path, monkeypatch):
        write_pair("1")
        write_pair("2", em_xyz=np.ones((6, 6, 20), np.uint8))
        usage = type("Usage", (), {"free": 2 * 6 * 5 * 5 + 128})
        monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
        assert self.alone(paths, "2") == "tensor does not fit on the disk: 0.00 GB, 0.00 GB are free"

    def test_a_pair_that_is_larger_than_the_memory(self, write_pair, paths, monkeypatch):
        write_pair("1")
        write_pair("2", em_xyz=np.ones((6, 6, 20), np.uint8))
        monkeypatch.setattr(files, "memory_bytes", lambda: 6 * 5 * (20 + 2 * 5) + 5 * 500)
        assert self.alone(paths, "2") == "pair does not fit into memory: 0.0 GB, this machine has 0.0 GB"

    @pytest.mark.parametrize("is_fortran", [False, True])
    def test_four_terabytes(self, write_pair, paths, tmp_path, is_fortran):
        write_pair("1")
        shape = (2048, 2048, 1_000_000)
        header = {"descr": "|u1", "fortran_order": is_fortran, "shape": shape}
        for name in ("em/2.npy", "mask/2_mask.npy"):
            with open(tmp_path / name, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                try:
                    file.truncate(file.tell() + math.prod(shape))
                except OSError:
                    pytest.skip("files of this size cannot be made here")
        assert self.alone(paths, "2").startswith("pair does not fit into memory: ")
        for name in ("em/2.npy", "mask/2_mask.npy"):
            (tmp_path / name).unlink()  # holes, but other programs may copy them

    def test_a_folder_whose_name_is_too_long(self, write_pair, paths, tmp_path):
        write_pair("1")
        with pytest.raises(OutputError, match="File name too long"):
            run(Preprocess(**paths | {"proc_data_path": f"{tmp_path}/{'x' * 300}"}))


class TestLock:
    """One run at a time."""

    def test_a_second_run_names_the_first(self, write_pair, paths, tmp_path):
        write_pair("1")
        with lock.locked(paths["proc_data_path"]):
            lock.sign(paths["proc_data_path"])
            with pytest.raises(
                LockedError, match=rf"another run is writing to .*: process {os.getpid()} on .*, since"
            ):
                run(Preprocess(**paths))
        assert len(run(Preprocess(**paths)).meta) == 1

    def test_a_finished_data_set_is_locked_as_well(self, write_pair, paths):
        write_pair("1")
        run(Preprocess(**paths))
        with (
            lock.locked(paths["proc_data_path"]),
            pytest.raises(LockedError, match="that has just started"),
        ):
            run(Preprocess(**paths))

    def test_a_run_in_between_is_noticed(self, write_pair, paths):
        write_pair("1")
        p = Preprocess(**paths)
        plan = preprocess.plan(pairing.find(p), p, show_progress=False)
        run(p)
        with pytest.raises(LockedError, match="in the meantime: run again"):
            preprocess.run(plan, p, show_progress=False)
