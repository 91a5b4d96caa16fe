import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synprep import merge, pairing, preprocess
from synprep._core import dataset, files, lock, record
from synprep._core.errors import LockedError, OutputError, ParameterError, TableError
from synprep._core.paths import HIDDEN
from synprep._core.tables import read_table, save_table
from synprep.params import Merge, Preprocess

IDS = ["007", "1", "3", "5", "NA"]
SETS = {"one": ("1", "007"), "two": ("007", "3"), "three": ("5", "NA")}


@pytest.fixture
def make_set(write_pair, tmp_path):
    """Preprocess a small data set in a folder of its own, and return the path of its table."""

    def make(name, ids, em_xyz=None, **parameters):
        folder = tmp_path / "lab" / name
        folder.mkdir(parents=True, exist_ok=True)
        for synapse_id in ids:
            write_pair(synapse_id, em_xyz, folder=folder)
        p = Preprocess(
            raw_em_data_path=folder / "em",
            raw_mask_data_path=folder / "mask",
            proc_data_path=folder / "processed",
            **parameters,
        )
        preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
        return str(folder / "processed" / "meta.csv")

    return make


@pytest.fixture
def tables(make_set):
    """Three small data sets; the first two share a chunk."""
    return [make_set(name, ids) for name, ids in SETS.items()]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "lab" / "merged"


@pytest.fixture
def run(tables, folder):
    def run(**parameters):
        values = {"meta_list": tables, "merged_meta_path": str(folder / "meta.csv"), **parameters}
        return merge.run(Merge(**values), show_progress=False)

    return run


def load_all(folder):
    """Load every row with nothing but pandas and NumPy, as a model's data set class does."""
    meta = pd.read_csv(os.path.join(folder, "meta.csv"))
    return [np.load(os.path.join(folder, row.filename)) for row in meta.itertuples()]


def states(folder):
    return {path.name: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in folder.iterdir()}


def rewrite(path, old, new, count=1):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), "utf-8")


MODES = ["reference", "hardlink", "copy"]


class TestResult:
    @pytest.mark.parametrize("mode", MODES)
    def test_every_row_loads_in_every_mode(self, run, folder, tmp_path, mode):
        merged, notes, _ = run(link_mode=mode)
        assert merged["synapse_id"].tolist() == IDS
        assert notes == ["1 row that an earlier table has as well: kept once"]
        arrays = load_all(folder)
        for (_, row), array in zip(merged.iterrows(), arrays, strict=True):
            source = next((tmp_path / "lab").glob(f"[ot]*/processed/{row['synapse_id']}__*.npy"))
            assert np.array_equal(array, np.load(source))

    @pytest.mark.parametrize("mode", MODES)
    def test_it_is_a_data_set_like_a_processed_one(self, run, folder, tables, mode):
        run(link_mode=mode)
        data = dataset.load(folder)
        parts = [dataset.load(path) for path in tables]
        for name in ("meta", "sections"):
            rows = pd.concat([getattr(part, name) for part in parts]).drop_duplicates(
                ["synapse_id", "z"] if name == "sections" else "synapse_id"
            )
            left, right = (
                frame.drop(columns="filename", errors="ignore") for frame in (getattr(data, name), rows)
            )
            pd.testing.assert_frame_equal(left, right.reset_index(drop=True), check_exact=True)
        assert data.parameters["axial_to_sagittal_spacing"] == 5.0
        assert not [name for name in data.parameters if name.endswith("path") or name == "scheduler"]

    @pytest.mark.parametrize("mode", ["hardlink", "copy"])
    def test_linked_and_copied_arrays_outlive_the_sources(self, run, folder, tmp_path, mode):
        merged, *_ = run(link_mode=mode)
        assert merged["filename"].tolist()[0] == "007__2_6_5_5.npy"
        before = load_all(folder)
        for name in SETS:
            shutil.rmtree(tmp_path / "lab" / name)
        assert all(map(np.array_equal, load_all(folder), before))

    def test_references_hold_when_everything_moves_together(self, run, tmp_path):
        merged, *_ = run()
        assert merged["filename"].tolist()[0] == "../one/processed/007__2_6_5_5.npy"
        shutil.move(tmp_path / "lab", tmp_path / "elsewhere")
        assert len(load_all(tmp_path / "elsewhere" / "merged")) == 5

    def test_references_hold_through_a_link_to_a_folder(self, run, folder, tmp_path):
        (tmp_path / "big disk" / "merged").mkdir(parents=True)
        folder.symlink_to(tmp_path / "big disk" / "merged")
        run()
        assert len(load_all(folder)) == 5

    def test_hard_links_take_no_space_and_copies_are_independent(self, run, folder, tables):
        source = os.path.join(os.path.dirname(tables[0]), "1__2_6_5_5.npy")
        run(link_mode="hardlink")
        assert os.path.samefile(folder / "1__2_6_5_5.npy", source)
        run(link_mode="copy")
        assert not os.path.samefile(folder / "1__2_6_5_5.npy", source)
        run(link_mode="hardlink")
        assert os.path.samefile(folder / "1__2_6_5_5.npy", source)

    def test_values_keep_their_text(self, run, folder, tables):
        run()
        with open(tables[0], encoding="utf-8") as file:
            lines = file.read().splitlines()
        written = (folder / "meta.csv").read_text().splitlines()
        assert [line.split(",", 2)[2] for line in written[:3]] == [line.split(",", 2)[2] for line in lines]

    def test_sets_without_rows_make_one_without_rows(self, run, folder, tables):
        for table in tables[:2]:
            for path in (Path(table), Path(table).with_name("sections.csv")):
                path.write_text(path.read_text("utf-8").splitlines()[0] + "\n", "utf-8")
        assert run(meta_list=tables[:2])[1] == []
        data = dataset.load(folder)
        assert (len(data.meta), len(data.sections), data.parameter("voxel_size_xy_nm")) == (0, 0, 8.0)

    def test_a_merged_set_can_be_merged_again(self, run, folder, tables, tmp_path):
        run(meta_list=tables[:2], link_mode="copy")
        again, notes, _ = run(
            meta_list=[str(folder / "meta.csv"), *tables[1:]],
            merged_meta_path=str(tmp_path / "lab" / "meta.csv"),
        )
        assert again["filename"].tolist()[0] == "merged/007__2_6_5_5.npy"
        assert notes == ["2 rows that an earlier table has as well: kept once"]
        assert len(dataset.load(tmp_path / "lab").sections) == 5 * 5


@pytest.fixture
def join(tmp_path):
    """Merge small tables that stand alone, each in a folder named like its keyword."""

    def join(on_conflict="error", **tables):
        for name, table in tables.items():
            (tmp_path / name).mkdir()
            table.to_csv(tmp_path / name / "meta.csv", index=False)
            for synapse_id in table["synapse_id"]:
                np.save(tmp_path / name / f"{synapse_id}.npy", np.zeros((2, 6, 5, 5), np.uint8))
        p = Merge(
            meta_list=[str(tmp_path / name / "meta.csv") for name in tables],
            merged_meta_path=str(tmp_path / "merged.csv"),
            on_conflict=on_conflict,
        )
        merged, notes, _ = merge.run(p, show_progress=False)
        assert notes.pop().endswith(
            "run.json: No such file or directory; preprocess and merge write it beside meta.csv"
        )
        return merged, [note.replace(f"{tmp_path.as_posix()}/", "") for note in notes]

    return join


def text_table(ids, **columns):
    return pd.DataFrame({"synapse_id": ids, "filename": [f"{i}.npy" for i in ids], **columns}, dtype=str)


CONFLICT = {
    "x": text_table(["a", "b"], v=["1", "2"]),
    "y": text_table(["b", "c"], v=["3", "4"]),
}


class TestRows:
    def test_equal_rows_are_kept_once_in_the_order_of_the_tables(self, join):
        merged, notes = join(
            x=text_table(["5", "007"], v=["a", "b"]), y=text_table(["007", "1"], v=["b", "c"])
        )
        assert merged["synapse_id"].tolist() == ["5", "007", "1"]
        assert merged["filename"].tolist() == ["x/5.npy", "x/007.npy", "y/1.npy"]
        assert notes == ["1 row that an earlier table has as well: kept once"]

    def test_ids_that_are_equal_as_numbers_only_are_two(self, join):
        assert join(x=text_table(["007"]), y=text_table(["7"]))[0]["synapse_id"].tolist() == ["007", "7"]

    def test_conflict_is_an_error_that_lists_both_rows(self, join):
        with pytest.raises(
            TableError, match=r"(?s)different values for 1 synapse id: b.*x.meta\.csv.*y.meta\.csv"
        ):
            join(**CONFLICT)

    @pytest.mark.parametrize(
        ("on_conflict", "kept"), [("first", ["x/b.npy", "2"]), ("last", ["y/b.npy", "3"])]
    )
    def test_conflict_is_settled_as_asked(self, join, on_conflict, kept):
        merged, notes = join(on_conflict, **CONFLICT)
        assert merged.set_index("synapse_id").loc["b"].tolist() == kept
        assert notes == [f"different values for 1 synapse id: kept the {on_conflict} row of b"]

    def test_conflict_within_one_table(self, join):
        with pytest.raises(TableError, match="different values for 1 synapse id: a"):
            join(x=text_table(["a", "a"], v=["1", "2"]))

    def test_of_many_conflicts_five_are_shown(self, join):
        ids = [*"abcdefg"]
        with pytest.raises(
            TableError, match="different values for 7 synapse ids: a, b, c, d, e, f, g"
        ) as error:
            join(
                x=text_table(ids, v=ids),
                y=text_table(ids, v=ids[::-1]).iloc[:3],
                z=text_table(ids, v=ids[1:] + ids[:1]),
            )
        lines = str(error.value).splitlines()
        assert [line.split()[0] for line in lines[2:-2]] == [*"aaabbbcccddee"]
        assert lines[-2:] == ["  and 2 more", "  set on_conflict to first or last to keep one row of each"]

    def test_another_file_name_is_a_conflict(self, join):
        with pytest.raises(TableError, match="different values for 1 synapse id: a"):
            join(x=text_table(["a"]), y=text_table(["a"]).assign(filename="a, done again.npy"))

    def test_file_names_are_compared_without_folders(self, join):
        for number, old in enumerate(["../old/a.npy", r"C:\old\a.npy"]):
            tables = {f"x{number}": text_table(["a"]), f"y{number}": text_table(["a"]).assign(filename=old)}
            assert join(**tables)[0]["filename"].tolist() == [f"x{number}/a.npy"]

    def test_column_that_a_table_lacks_stays_empty_and_is_reported(self, join):
        merged, notes = join(x=text_table(["a"], z=["1"]), y=text_table(["b"], w=["2"]))
        assert list(merged) == ["synapse_id", "filename", "z", "w"]
        assert merged[["z", "w"]].values.tolist() == [["1", ""], ["", "2"]]
        assert notes == [
            "x/meta.csv has no column w: left empty in its rows",
            "y/meta.csv has no column z: left empty in its rows",
        ]

    def test_table_without_file_names_is_refused(self, join):
        with pytest.raises(TableError, match=r"x.meta\.csv: has no column 'filename'"):
            join(x=pd.DataFrame({"synapse_id": ["a"]}))


class TestRecord:
    def test_sources_and_what_they_have_in_common(self, make_set, run, folder, tables):
        other = make_set("four", ["8"], cutout_threshold=0.02, n_workers=1)
        _, notes, _ = run(meta_list=[*tables[:2], other], link_mode="copy", on_conflict="last")
        record = json.loads((folder / "run.json").read_text())
        prints = [
            json.loads((folder / f"../{n}/processed/run.json").read_text())["input_fingerprint"]
            for n in ("one", "two", "four")
        ]
        assert record["sources"] == [
            {
                "table": f"../{name}/processed/meta.csv",
                "n_rows": n,
                "shape": [2, 6, 5, 5],
                "input_fingerprint": fingerprint,
            }
            for name, n, fingerprint in zip(("one", "two", "four"), (1, 2, 1), prints, strict=True)
        ]
        assert (record["table"], record["link_mode"], record["on_conflict"]) == ("meta.csv", "copy", "last")
        assert {"versions", "commit", "started", "ended"} < set(record)
        assert "cutout_threshold" not in record["parameters"]
        assert record["parameters"]["cutout_pixel_value"] == 0
        assert notes[1] == (
            f"cutout_threshold differs: 0.01 in {tables[0]}, 0.01 in {tables[1]}, 0.02 in {other}"
        )

    def test_rows_of_sections_are_from_the_source_of_the_row(self, run, folder, tables):
        meta, sections = (
            os.path.join(os.path.dirname(tables[1]), name) for name in ("meta.csv", "sections.csv")
        )
        changed = read_table(sections)
        changed.loc[changed["synapse_id"] == "007", "mean"] = "1.5"
        save_table(sections, changed)
        changed = read_table(meta).replace({"n_cutout_sections": {"0": "1"}})
        save_table(meta, changed)
        means = {}
        for keep in ("first", "last"):
            run(on_conflict=keep)
            data = dataset.load(folder)
            means[keep] = data.sections.set_index("synapse_id").loc["007", "mean"].unique().tolist()
        assert means["last"] == [1.5]
        assert 1.5 not in means["first"]

    @pytest.mark.parametrize("mode", MODES)
    def test_nothing_is_written_when_nothing_has_changed(self, run, folder, mode):
        first = run(link_mode=mode)
        before = states(folder) | states(folder / HIDDEN)
        again = run(link_mode=mode)
        assert states(folder) | states(folder / HIDDEN) == before
        assert again[1] == first[1]
        pd.testing.assert_frame_equal(again[0], first[0])

    def test_a_table_whose_rows_change_is_kept(self, run, folder, tables):
        run()
        _, notes, history = run(meta_list=tables[:2])
        said = "meta.csv differs from the one that was there, which is kept as meta.1.csv"
        assert history == [f"{said}: 2 of its 5 chunks are left out"]
        assert len(read_table(folder / "meta.1.csv")) == 5
        assert len(dataset.load(folder).sections) == 3 * 5
        assert run()[1:] == (notes, [])  # rows are added at the end

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("sections.csv", "sections.csv: there is no such file"),
            ("run.json", "run.json: No such file or directory"),
        ],
    )
    def test_a_source_of_another_tool_leaves_a_table_alone(self, run, folder, tables, name, reason):
        run()
        os.remove(os.path.join(os.path.dirname(tables[2]), name))
        merged, notes, _ = run()
        assert len(merged) == len(load_all(folder)) == 5
        assert sorted(os.listdir(folder)) == [HIDDEN, "meta.csv"]
        assert notes[1].startswith("no sections.csv and run.json for the merged table: ")
        assert reason in notes[1]
        before = states(folder)
        run()
        assert states(folder) == before

    def test_a_record_of_another_tool_is_not_compared(self, run, folder, tables):
        path = os.path.join(os.path.dirname(tables[2]), "run.json")
        files.save_json(path, {"parameters": {"voxel_size_xy_nm": 4.0}})
        merged, notes, _ = run()
        assert len(merged) == 5
        assert notes[1].endswith("run.json has no axial_to_sagittal_spacing, cut_intensity_with_seg_masks")

    @pytest.mark.parametrize(
        ("name", "column"), [("meta.csv", "n_cutout_sections"), ("sections.csv", "mean")]
    )
    def test_a_column_that_is_not_there_leaves_a_table_alone(self, run, folder, tables, name, column):
        path = os.path.join(os.path.dirname(tables[2]), name)
        save_table(path, read_table(path).drop(columns=column))
        _, notes, _ = run()
        assert f"{name} has no {column}" in notes[-1]
        assert not (folder / "run.json").exists()

    def test_sections_that_are_not_whole_leave_a_table_alone(self, run, folder, tables):
        path = os.path.join(os.path.dirname(tables[2]), "sections.csv")
        save_table(path, read_table(path).iloc[1:])
        _, notes, _ = run()
        assert notes[1].endswith("meta.csv is not whole for 5")
        assert not (folder / "sections.csv").exists()


def change(path, column, value):
    table = read_table(path)
    table.loc[0, column] = value
    save_table(path, table)


class TestSources:
    """Tables that are not whole, and folders that are written to."""

    def test_what_loading_refuses(self, run, folder, tables):
        for name, column, value in (
            ("meta.csv", "post_synaptic_volume", "1,234"),
            ("meta.csv", "post_synaptic_volume", ""),
            ("meta.csv", "n_cutout_sections", "6"),
            ("meta.csv", "synapse_id", "7"),
            ("meta.csv", "filename", ""),
            ("sections.csv", "std", "inf"),
            ("sections.csv", "is_blanked", "FALSE"),
        ):
            path = Path(tables[1]).with_name(name)
            content = path.read_bytes()
            change(path, column, value)
            with pytest.raises(TableError) as loading:
                dataset.load(path.parent)
            with pytest.raises(TableError) as merging:
                run()
            assert str(merging.value) == str(loading.value)
            path.write_bytes(content)
        assert not folder.exists()

    @pytest.mark.parametrize("end", [0, 100, -3])
    def test_a_record_that_was_cut(self, run, folder, tables, end):
        path = Path(tables[1]).with_name("run.json")
        path.write_bytes(path.read_bytes()[:end])
        with pytest.raises(TableError, match=r"two.processed.run\.json: not a run record"):
            run()
        assert not folder.exists()

    @pytest.mark.parametrize("size", ["-8.0", "1e+300"])
    def test_a_record_with_a_parameter_that_cannot_be(self, run, tables, size):
        rewrite(Path(tables[1]).with_name("run.json"), '_nm": 8.0', f'_nm": {size}')
        with pytest.raises(TableError) as error:
            run()
        assert f"run.json: voxel_size_xy_nm is {size}, which cannot be (must be great" in str(error.value)

    def test_raw_pairs_that_were_extracted_there_are_no_chunks(self, run, folder, tables):
        beside = Path(tables[1]).parent
        np.save(beside / "x.npy", np.zeros(3))
        made = next(iter(record.read_done(beside).values()))
        nothing = {name: values[:0] for name, values in made.sections.items()}
        states = [[1, 10**19], [1, 10**19]]
        row = {"synapse_id": "x", "filename": "x.npy"}
        record.append_done(beside, replace(made, row=row, output=states, sections=nothing))
        assert "x" in record.read_done(beside)
        assert len(run()[0]) == 5

    def test_a_table_that_stands_alone_may_lack_values_but_not_hold_wrong_ones(self, join):
        table = text_table(["a"], pre_synaptic_volume=[""], note=["x"])
        assert join(x=table)[0]["pre_synaptic_volume"].tolist() == [""]
        with pytest.raises(
            TableError, match=r"y.meta\.csv: pre_synaptic_volume of a is '20,5', not a number"
        ):
            join(y=table.assign(pre_synaptic_volume="20,5"))

    @pytest.mark.parametrize("synapse_id", ["8.6E+17", '="7"'])
    def test_ids_that_a_spreadsheet_has_changed(self, join, synapse_id):
        with pytest.raises(TableError, match=r"x.meta\.csv: synapse id .*: export the table again"):
            join(x=text_table([synapse_id]).assign(filename="7.npy"))

    def test_a_source_of_which_a_chunk_is_told_twice(self, run, folder, tables):
        path = Path(tables[1]).with_name("sources.csv")
        path.write_text("synapse_id,pre_id\n3,5\n3,6\n")
        with pytest.raises(TableError, match=r"sources\.csv: has more than one row of 3: take"):
            run()
        assert not folder.exists()
        path.write_text("synapse_id,pre_id\n3,5\n")
        run()
        assert read_table(folder / "sources.csv")["pre_id"].tolist() == ["", "", "5", "", ""]

    def test_ids_that_only_look_changed_are_those_of_their_files(self, join):
        assert join(x=text_table(["7.0", "=7"]))[0]["synapse_id"].tolist() == ["7.0", "=7"]

    @pytest.mark.parametrize("alone", [False, True])
    def test_a_table_that_was_cut_anywhere(self, make_set, alone):
        em_xyz = np.full((6, 5, 80), 9, np.uint8)
        em_xyz[..., 28:52] = 0
        path = Path(make_set("one", ["007", "1"], em_xyz))
        content, whole = path.read_bytes(), read_table(path)
        assert content.endswith(b",17\n")  # sections that are blanked: a digit may be cut off
        if alone:
            path.with_name("sections.csv").unlink()
        for end in range(len(content)):
            path.write_bytes(content[:end])
            try:
                source = merge._read(str(path))
            except TableError:
                continue
            n_read = len(source.rows)
            assert source.rows.equals(whole[:n_read]), content[:end]
            is_told = merge._removed(source).startswith(f"{path.as_posix()} lacks ")
            assert n_read == 2 or is_told or (alone and content[:end].endswith(b"\n")), content[:end]

    def test_what_chunks_were_cut_from_is_not_told_of_others(self, run, folder, tables):
        """Such as files beside a table that now has no chunk from volumes, and what an older merge left."""
        path = Path(tables[2]).with_name("sources.csv")
        path.write_text("synapse_id,pre_id\n5,5\n")
        run()
        told = (folder / "sources.csv").read_bytes()
        run(meta_list=tables[:2])
        assert sorted(os.listdir(folder)) == [HIDDEN, "meta.1.csv", "meta.csv", "run.json", "sections.csv"]
        before = states(folder)
        (folder / "sources.csv").write_bytes(told)
        run(meta_list=tables[:2])
        assert states(folder).keys() == before.keys()
        run()
        path.with_name("run.json").unlink()
        run()
        assert sorted(os.listdir(folder)) == [HIDDEN, "meta.1.csv", "meta.csv"]

    def test_rows_that_are_gone_are_told(self, run, tables):
        path = Path(tables[2])
        path.write_text("".join(path.read_text().splitlines(True)[:-1]))
        merged, notes, _ = run()
        assert len(merged) == 4
        assert notes[1].endswith("that sections.csv beside it has, as if rows were removed or cut off: NA")

    @pytest.mark.skipif(sys.platform == "win32", reason="no locks that readers share")
    def test_a_folder_that_a_run_writes_to(self, run, folder, tables):
        with lock.locked(Path(tables[1]).parent), pytest.raises(LockedError, match=r"two.processed: a run"):
            run()
        assert not folder.exists()
        run()

    @pytest.mark.skipif(sys.platform == "win32", reason="no locks that readers share")
    def test_runs_wait_until_the_sources_are_read(self, run, tables, monkeypatch):
        def write(*arguments):
            with pytest.raises(LockedError), lock.locked(Path(tables[1]).parent):
                pass
            return merge_headers(*arguments)

        merge_headers = merge._refuse_kinds
        monkeypatch.setattr(merge, "_refuse_kinds", write)
        run()

    @pytest.mark.parametrize(
        ("mode", "name"),
        [("reference", "meta.csv"), ("hardlink", "sections.csv"), ("copy", ".synprep/record.jsonl")],
    )
    def test_files_that_change_in_the_meantime(self, run, folder, tables, monkeypatch, mode, name):
        """As where locks do not hold, such as between the computers of some networks."""

        def touch(*arguments):
            os.utime(Path(tables[1]).parent / name, (1, 1))
            return merge_headers(*arguments)

        merge_headers = merge._refuse_kinds
        with monkeypatch.context() as patched, pytest.raises(LockedError, match=r"two.*have changed while"):
            patched.setattr(merge, "_refuse_kinds", touch)
            run(link_mode=mode)
        assert not (folder / "meta.csv").exists()
        assert len(run(link_mode=mode)[0]) == 5

    def test_folders_that_can_only_be_read(self, run, tables):
        folders = [Path(table).parent for table in tables]
        for path in (*folders, *(one / HIDDEN for one in folders)):
            path.chmod(0o555)
        try:
            assert len(run()[0]) == 5
        finally:
            for path in (*folders, *(one / HIDDEN for one in folders)):
                path.chmod(0o755)

    @pytest.mark.parametrize(
        ("parameters", "what"), [({}, "lacks 1 finished chunk"), ({"n_sections": 4}, "no such")]
    )
    @pytest.mark.parametrize("is_copy", [False, True])
    def test_a_run_that_was_stopped_half_way(
        self, make_set, run, tables, monkeypatch, parameters, what, is_copy
    ):
        def stop(*arguments):
            raise KeyboardInterrupt

        path = Path(tables[0]).parent
        if is_copy:  # its files have other times than those that are recorded
            run_json = json.loads((path / "run.json").read_text())
            files.save_json(path / "run.json", run_json | {"ended": "2026-11-22T08:15:00+00:00"})
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(preprocess, "_finish", stop)
            make_set("one", ["8"], **parameters)
        if is_copy and not parameters:
            os.utime(path / "run.json")
        with pytest.raises(TableError, match=rf"one.processed.meta\.csv: .*{what}.*: run it to its end"):
            run()
        make_set("one", [], **parameters)
        if not parameters:
            assert len(run()[0]) == 6

    def test_chunks_that_an_earlier_run_has_left_are_no_sign_of_a_stop(self, make_set, run, tables):
        make_set("one", [], max_chunks=1)
        assert len(run()[0]) == 4


class TestRefusals:
    def test_a_missing_array(self, run, folder, tmp_path):
        (tmp_path / "lab" / "two" / "processed" / "3__2_6_5_5.npy").unlink()
        with pytest.raises(TableError, match=r"1 file named in the tables not found: .*3__2_6_5_5\.npy"):
            run()
        assert not folder.exists()

    def test_a_damaged_array(self, run, folder, tmp_path):
        path = tmp_path / "lab" / "two" / "processed" / "3__2_6_5_5.npy"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(TableError, match=r"1 file named in the tables cannot be used: .*cut short"):
            run()
        assert not folder.exists()

    def test_conflicts_name_the_tables(self, run, tmp_path):
        rewrite(tmp_path / "lab" / "two" / "processed" / "meta.csv", ",0\n", ",4\n")
        with pytest.raises(
            TableError, match=r"(?s)1 synapse id: 007.*one.processed.meta\.csv.*two.processed.meta\.csv"
        ):
            run()
        merged, *_ = run(on_conflict="last")
        assert merged.set_index("synapse_id").loc["007", "n_cutout_sections"] == "4"

    def test_different_shapes_are_shown_by_table(self, make_set, run, folder, tables):
        other = make_set("four", ["8", "9"], np.full((6, 6, 20), 9, np.uint8))
        with pytest.raises(TableError) as error:
            run(meta_list=[tables[0], other])
        assert [line.split() for line in str(error.value).splitlines()[1:]] == [
            ["table", "shape", "type", "chunks"],
            [tables[0], "2", "x", "6", "x", "5", "x", "5", "uint8", "2"],
            [other, "2", "x", "6", "x", "6", "x", "5", "uint8", "2"],
        ]
        assert not folder.exists()

    def test_different_types_are_shown_by_table(self, run, tables):
        path = os.path.join(os.path.dirname(tables[1]), "3__2_6_5_5.npy")
        np.save(path, np.load(path).astype(np.float32))
        with pytest.raises(TableError, match=r"(?s)shape or type .* float32 +1"):
            run()

    def test_a_data_set_of_which_no_row_is_taken_does_not_matter(self, make_set, run, folder, tables):
        other = make_set("four", ["007", "1"], np.full((6, 6, 20), 9, np.uint8), voxel_size_xy_nm=4.0)
        assert len(run(meta_list=[other, tables[0]], on_conflict="last")[0]) == 2
        assert dataset.load(folder).parameters["voxel_size_xy_nm"] == 8.0

    @pytest.mark.parametrize(
        ("parameters", "shown"),
        [
            ({"voxel_size_xy_nm": 4.0}, [["voxel_size_xy_nm"], ["8.0"], ["4.0"]]),
            (
                {"axial_to_sagittal_spacing": 4.5},
                [["axial_to_sagittal_spacing"], ["5.0"], ["4.5"]],
            ),
            (
                {"cut_intensity_with_seg_masks": True, "output_channel_desc": [[1, 2, 3]]},
                [["cut_intensity_with_seg_masks"], ["False"], ["True"]],
            ),
        ],
    )
    def test_different_meaning_is_shown_by_table(self, make_set, run, folder, tables, parameters, shown):
        other = make_set("four", ["8"], **parameters)
        with pytest.raises(TableError) as error:
            run(meta_list=[tables[0], other])
        *lines, remedy = [line.split() for line in str(error.value).splitlines()[1:]]
        assert remedy[:2] == ["preprocess", "them"]
        assert lines == [
            [name, *values] for name, values in zip(("table", tables[0], other), shown, strict=True)
        ]
        assert not folder.exists()

    def test_labels_of_channels_do_not_matter_where_the_em_is_not_cut(
        self, make_set, run, folder, tables, tmp_path
    ):
        other = make_set("four", ["8"], output_channel_desc=[[1, 2]])
        assert len(run(meta_list=[tables[0], other])[0]) == 3
        run(meta_list=[str(folder / "meta.csv"), tables[2]], merged_meta_path=str(tmp_path / "meta.csv"))
        assert len(dataset.load(tmp_path).meta) == 5

    def test_the_folder_of_a_processed_set(self, run, tables, tmp_path):
        path = tmp_path / "lab" / "two" / "processed"
        before = states(path)
        with pytest.raises(TableError, match=r"sections\.csv and run\.json of another data set, which would"):
            run(merged_meta_path=str(path / "all.csv"))
        (path / "run.json").unlink()
        with pytest.raises(TableError, match=r"holds sections\.csv of another data set, which would"):
            run(merged_meta_path=str(path / "all.csv"))
        assert states(path) == {name: state for name, state in before.items() if name != "run.json"}
        (path / "sections.csv").rename(path / "sources.csv")
        with pytest.raises(TableError, match=r"holds sources\.csv of another data set, which would"):
            run(merged_meta_path=str(path / "all.csv"))

    def test_two_merged_tables_in_one_folder(self, run, folder):
        run()
        with pytest.raises(TableError, match=r"run\.json of the merged table meta\.csv, which would be"):
            run(merged_meta_path=str(folder / "other.csv"))
        assert not (folder / "other.csv").exists()

    def test_preprocess_does_not_write_into_a_merged_set(self, run, make_set, folder, tmp_path):
        run()
        p = Preprocess(
            raw_em_data_path=tmp_path / "lab/one/em",
            raw_mask_data_path=tmp_path / "lab/one/mask",
            proc_data_path=folder,
        )
        with pytest.raises(ParameterError, match="holds a merged data set"):
            preprocess.plan(pairing.find(p), p, show_progress=False)

    def test_a_folder_that_another_run_writes_to(self, run, folder):
        with lock.locked(folder), pytest.raises(LockedError):
            run()


class TestFiles:
    """Linking and copying."""

    @pytest.mark.parametrize("mode", ["hardlink", "copy"])
    def test_a_file_of_something_else_is_never_overwritten(self, run, folder, tmp_path, mode):
        folder.mkdir()
        np.save(folder / "1__2_6_5_5.npy", np.zeros((2, 6, 5, 5), np.uint8))
        (folder / "3__2_6_5_5.npy").symlink_to(tmp_path / "disk that is not there")
        before = states(folder)
        with pytest.raises(
            OutputError, match=r"2 files in .* and not of a merge: 1__2_6_5_5\.npy, 3__2_6_5_5\.npy;"
        ):
            run(link_mode=mode)
        assert {name: states(folder)[name] for name in before} == before
        assert not (folder / "meta.csv").exists()

    @pytest.mark.parametrize("mode", ["hardlink", "copy"])
    def test_arrays_that_were_processed_again_follow(self, run, folder, tables, mode):
        run(link_mode=mode)
        for table, name in ((tables[2], "5__2_6_5_5.npy"), (tables[0], "1__2_6_5_5.npy")):
            source = os.path.join(os.path.dirname(table), name)
            files.save_array(source, np.load(source)[:, ::-1])
            before = states(folder)
            run(link_mode=mode)
            changed = {name for name, state in states(folder).items() if before[name] != state}
            assert [name for name in changed if name.endswith(".npy")] == [name]
            assert np.array_equal(np.load(folder / name), np.load(source))

    def test_copies_with_the_time_of_their_source_are_not_read_again(self, run, monkeypatch):
        run(link_mode="copy")
        monkeypatch.setattr(merge.filecmp, "cmp", None)
        run(link_mode="copy")

    def test_no_table_describes_arrays_that_are_being_replaced(self, run, folder, tables, monkeypatch):
        Path(tables[0]).with_name("sources.csv").write_text("synapse_id,pre_id\n1,5\n")
        run(link_mode="copy")
        source = os.path.join(os.path.dirname(tables[2]), "5__2_6_5_5.npy")
        files.save_array(source, np.load(source)[:, ::-1])

        def stop(*arguments):
            raise OutputError("disk full")

        with monkeypatch.context() as patched, pytest.raises(OutputError):
            patched.setattr(files, "copy_file", stop)
            run(link_mode="copy")
        assert not {"meta.csv", "sections.csv", "sources.csv", "run.json"} & {*os.listdir(folder)}
        run(link_mode="copy")
        assert np.array_equal(np.load(folder / "5__2_6_5_5.npy"), np.load(source))
        assert len(dataset.load(folder).meta) == 5

    def test_equal_files_are_taken_over(self, run, folder, tables):
        """As after a run that was killed, or where a data set was copied without its times."""
        folder.mkdir()
        target = folder / "1__2_6_5_5.npy"
        shutil.copyfile(os.path.join(os.path.dirname(tables[0]), target.name), target)
        os.utime(target, (1, 1))
        run(link_mode="copy")
        assert target.stat().st_mtime == 1

    def test_a_symbolic_link_is_no_copy(self, run, folder, tables):
        folder.mkdir()
        source = os.path.join(os.path.dirname(tables[0]), "1__2_6_5_5.npy")
        for mode in ("copy", "hardlink"):
            (folder / "1__2_6_5_5.npy").unlink(missing_ok=True)
            (folder / "1__2_6_5_5.npy").symlink_to(source)
            run(link_mode=mode)
            assert not (folder / "1__2_6_5_5.npy").is_symlink()

    def test_arrays_that_no_table_lists_are_named(self, run, folder, tables):
        run(link_mode="copy")
        _, notes, _ = run(meta_list=tables[:2], link_mode="copy")
        assert notes[-1].endswith("not in the merged table, kept: 5__2_6_5_5.npy, NA__2_6_5_5.npy")

    def test_names_that_would_be_one_file(self, run, tmp_path):
        for name, synapse_id in (("two", "3"), ("three", "NA")):
            path = tmp_path / "lab" / name / "processed"
            (path / f"{synapse_id}__2_6_5_5.npy").rename(path / "chunk.npy")
            rewrite(path / "meta.csv", f"{synapse_id}__2_6_5_5.npy", "chunk.npy")
        for mode in ("hardlink", "copy"):
            with pytest.raises(
                TableError, match=r"1 file name in .*two.*chunk\.npy and .*three.*chunk\.npy; set link_mode"
            ):
                run(link_mode=mode)
        assert len(run()[0]) == 5

    @pytest.mark.parametrize("mode", ["hardlink", "copy"])
    def test_names_that_differ_only_in_case(self, make_set, run, folder, mode):
        """On every file system, since the folder may move to one that ignores case."""
        tables = [make_set("a", ["x1"]), make_set("b", ["X1"])]
        with pytest.raises(
            TableError, match=r"1 file name in .* would stand for several chunks: .*/x1__.* and .*/X1__"
        ):
            run(meta_list=tables, link_mode=mode)
        assert sorted(os.listdir(folder)) == [HIDDEN]
        assert run(meta_list=tables)[0]["synapse_id"].tolist() == ["x1", "X1"]

    def test_a_link_to_another_file_system(self, run, folder, monkeypatch):
        def refuse(source, target):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
        with pytest.raises(
            OutputError,
            match=r"cannot be a hard link to .* \(else set link_mode to copy\): .*cross-device link",
        ):
            run(link_mode="hardlink")
        assert sorted(os.listdir(folder)) == [HIDDEN]

    @pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
    def test_another_file_system_is_noticed_beforehand(self, run, folder, tmp_path):
        if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("needs a second file system")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
            with pytest.raises(
                OutputError, match=r"5 files on another file system than .*; set link_mode to copy"
            ):
                run(merged_meta_path=f"{other}/meta.csv", link_mode="hardlink")
            run(merged_meta_path=f"{other}/meta.csv", link_mode="copy")
            assert len(load_all(other)) == 5

    def test_not_enough_space(self, run, folder, monkeypatch):
        usage = type("Usage", (), {"free": 5 * (128 + 2 * 6 * 5 * 5) - 1})
        monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(OutputError, match=r"the run will write 0\.00 GB and only 0\.00 GB are free"):
            run(link_mode="copy")
        assert sorted(os.listdir(folder)) == [HIDDEN]
        run(link_mode="hardlink")
        usage.free += 1
        run(link_mode="copy")

    def test_a_table_beside_the_arrays_that_it_lists(self, run, tables, tmp_path):
        """A source without companions may share its folder with the merged table."""
        folder = tmp_path / "lab" / "one" / "processed"
        for name in ("sections.csv", "run.json"):
            (folder / name).unlink()
        before = {path.name: path.stat().st_ino for path in folder.glob("*.npy")}
        merged, *_ = run(merged_meta_path=str(folder / "all.csv"), link_mode="copy")
        assert set(merged["filename"]) <= set(os.listdir(folder))
        assert {name: (folder / name).stat().st_ino for name in before} == before
