"""Chunks from volumes: the same files as from npy pairs, resumed, merged, on a cluster, and extracted."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import copy_project
from conftest import run_preprocess as run

from synprep import demo, inspection, merge, pairing, params, preprocess, survey
from synprep._core import cut, preflight, stores, tables
from synprep._core.errors import ChunkError, FailedChunksError, OutputError, ParameterError
from synprep._core.paths import HIDDEN
from synprep.params import Extract, InspectRaw, Merge, Preprocess, SectionVariation


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the demonstration volumes."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        demo.make_missing(Extract(), show_progress=False)
    return folder


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


def volumes(**changed):
    return {**demo.VOLUMES, **changed}


def contents(folder, *left_out):
    files = [path for path in folder.iterdir() if path.is_file() and path.name not in left_out]
    return {path.name: path.read_bytes() for path in files}


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.fixture
def processed(here, tmp_path):
    """Parameters of a run from volumes, and its result."""
    p = Preprocess(volumes=volumes(), proc_data_path=str(tmp_path / "processed"))
    return p, run(p)


def extract(p):
    return preprocess.extract(pairing.find(p), p, show_progress=False)


@pytest.fixture
def extracted(here, tmp_path):
    paths = {f"raw_{kind}_data_path": str(tmp_path / kind) for kind in ("em", "mask")}
    p = Extract(**paths, volumes=volumes())
    return p, extract(p)


def test_preprocess_from_volumes_equals_extract_and_preprocess(processed, extracted, tmp_path):
    assert extracted[1].failures == processed[1].failures == {}
    p = replace(
        processed[0],
        volumes={},
        raw_em_data_path=extracted[0].raw_em_data_path,
        raw_mask_data_path=extracted[0].raw_mask_data_path,
        proc_data_path=str(tmp_path / "from_files"),
    )
    run(p)
    expected = contents(tmp_path / "from_files", "run.json", "problems.csv")
    found = contents(tmp_path / "processed", "run.json", "problems.csv", "sources.csv")
    assert len(found) == 6 + 2
    assert {name: found[name] == expected[name] for name in found} == dict.fromkeys(found, True)


def test_raw_pairs_are_whole_chunks_in_fortran_order(extracted, tmp_path):
    em_xyz = np.load(tmp_path / "em" / "0001007.npy")
    assert (em_xyz.shape, em_xyz.dtype, em_xyz.flags.f_contiguous) == ((96, 96, 64), np.uint8, True)
    assert set(np.unique(np.load(tmp_path / "mask" / "0001007_mask.npy"))) == {0, 1, 2, 3}
    assert (extracted[1].meta, extracted[1].tally) == (None, {"cut": 6, "with_warnings": 1})
    assert sorted(contents(tmp_path / "em", *(f"{i}.npy" for i in extracted[1].sources["synapse_id"]))) == [
        "problems.csv",
        "run.json",
        "sources.csv",
    ]


def test_an_id_that_makes_no_file_name_is_left_out(here, tmp_path):
    table = (here / "data" / "volumes" / "synapses.csv").read_text()
    (tmp_path / "s.csv").write_text(table.replace("0001007", "7" * 247))
    paths = {f"raw_{kind}_data_path": str(tmp_path / kind) for kind in ("em", "mask")}
    ids = tmp_path / "ids.csv"
    ids.write_text(f"synapse_id\n1000348\n{'7' * 247}\n")
    given = volumes(synapse_table=str(tmp_path / "s.csv"), chunk_shape=[8, 8, 8])
    result = extract(Extract(**paths, volumes=given, synapse_ids_path=str(ids)))
    assert list(result.sources["synapse_id"]) == ["1000348"]
    (said,) = result.failures.values()
    assert said.endswith("has 256 bytes, 255 are allowed")


def test_sources_say_where_each_chunk_is_from(processed, tmp_path):
    sources = pd.read_csv(tmp_path / "processed" / "sources.csv", dtype=str, keep_default_na=False)
    assert list(sources) == list(tables.SOURCES_COLUMNS)
    row = sources.set_index("synapse_id").loc["0001007"]
    assert row[["centre_x_nm", "start_x", "start_z", "cleft_id"]].tolist() == [
        "9988.0",
        "1200",
        "600",
        "1007",
    ]
    assert len(row["pre_id"]) == 18
    assert sources["missing_blocks"].tolist() == ["0"] * 5 + ["1"]


@pytest.mark.parametrize("what", ["processed", "extracted"])
def test_a_finished_run_writes_nothing_at_all_and_says_so(what, request, tmp_path):
    p, _ = request.getfixturevalue(what)
    before = snapshot(tmp_path)
    again = run(p) if what == "processed" else extract(p)
    assert (again.counts["done"], again.counts["skipped"]) == (0, 6)
    assert snapshot(tmp_path) == before


def test_a_block_that_is_absent_is_an_error_of_its_chunk(here, tmp_path):
    p = Preprocess(volumes=volumes(missing_em="error"), proc_data_path=str(tmp_path / "processed"))
    result = run(p)
    assert list(result.failures) == ["1000623"]
    assert "1392-1456_928-992_616-632" in result.failures["1000623"]
    assert str(here) not in result.failures["1000623"]
    (row,) = pd.read_csv(tmp_path / "processed" / "problems.csv", keep_default_na=False).to_dict("records")
    assert (row["stage"], row["em_path"]) == ("processing", "precomputed://data/volumes/em")


class TestResume:
    """A row that is added does one chunk; one that is changed redoes one."""

    @pytest.fixture
    def table(self, here, tmp_path):
        lines = (here / "data/volumes/synapses.csv").read_text().splitlines()
        path = tmp_path / "synapses.csv"

        def write(*changed):
            path.write_text("\n".join([lines[0], *changed, *lines[3:]]) + "\n")
            return path

        write.lines = lines
        return write

    def p(self, path, tmp_path, **changed):
        where = volumes(synapse_table=str(path), **changed)
        return Preprocess(volumes=where, proc_data_path=str(tmp_path / "processed"))

    def test_an_added_row(self, table, tmp_path):
        first, second = table.lines[1:3]
        assert run(self.p(table(second), tmp_path)).counts["done"] == 5
        assert run(self.p(table(first, second), tmp_path)).counts["done"] == 1

    def test_a_changed_centre(self, table, tmp_path):
        first, second = table.lines[1:3]
        run(self.p(table(first, second), tmp_path))
        moved = first.replace("[", "[1", 1) if "[1" not in first else first.replace(", ", ", 1", 1)
        counts = run(self.p(table(moved, second), tmp_path)).counts
        assert counts["done"] + counts["failed"] == 1
        assert counts["skipped"] == 5

    def test_what_does_not_matter(self, table, tmp_path):
        first, second = table.lines[1:3]
        run(self.p(table(first, second), tmp_path))
        assert run(self.p(table(first, second), tmp_path, cache_mb=1)).counts["done"] == 0
        assert run(self.p(table(first, second), tmp_path, missing_em="error")).counts["skipped"] == 0


def test_a_run_that_is_killed_goes_on(processed, tmp_path):
    p = replace(processed[0], proc_data_path=str(tmp_path / "killed"))
    code = """
import json, sys
from synprep import pairing, params, preprocess
p = params.Preprocess(**json.loads(sys.argv[1]))
preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
"""
    values = {"volumes": p.volumes, "proc_data_path": p.proc_data_path, "n_workers": 1}
    for n_files in (1, 3, 5):
        child = subprocess.Popen([sys.executable, "-c", code, json.dumps(values)])
        while child.poll() is None and len(list((tmp_path / "killed").glob("*.npy"))) < n_files:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
    run(p)
    left_out = ("run.json",)
    assert contents(tmp_path / "killed", *left_out) == contents(tmp_path / "processed", *left_out)


def test_merge_carries_what_chunks_were_cut_from(processed, write_pair, tmp_path):
    rng = np.random.default_rng(0)
    shape = (96, 96, 64)
    write_pair("x", rng.integers(1, 256, shape, dtype=np.uint8), rng.integers(0, 4, shape, dtype=np.uint8))
    paths = {f"raw_{kind}_data_path": str(tmp_path / kind) for kind in ("em", "mask")}
    run(Preprocess(**paths, proc_data_path=str(tmp_path / "files")))
    tables = [str(tmp_path / name / "meta.csv") for name in ("files", "processed")]
    p = Merge(meta_list=tables, merged_meta_path=str(tmp_path / "merged" / "meta.csv"))
    merge.run(p, show_progress=False)
    sources = pd.read_csv(tmp_path / "merged" / "sources.csv", dtype=str, keep_default_na=False)
    assert sources["synapse_id"].tolist() == ["x", *processed[1].meta["synapse_id"]]
    assert sources.loc[0, "pre_id"] == "" and len(sources.loc[1, "pre_id"]) == 18
    before = snapshot(tmp_path / "merged")
    merge.run(p, show_progress=False)
    assert snapshot(tmp_path / "merged") == before


@pytest.mark.parametrize("is_damaged", [False, True])
def test_preprocess_of_files_where_volumes_were_tells_no_sources(processed, extracted, tmp_path, is_damaged):
    for path in (tmp_path / "em").glob("*.npy"):
        path.write_bytes(path.read_bytes()[: 1000 if is_damaged else None])
    paths = {name: getattr(extracted[0], name) for name in ("raw_em_data_path", "raw_mask_data_path")}
    p = replace(processed[0], volumes={}, **paths)
    assert len(run(p).failures) == 6 * is_damaged
    beside = {path.name for path in (tmp_path / "processed").glob("*.[cj]*")}
    assert beside - {"meta.1.csv"} == {"meta.csv", "sections.csv", "problems.csv", "run.json"}
    before = snapshot(tmp_path / "processed")
    run(p)
    assert snapshot(tmp_path / "processed") == before


def test_preprocess_refuses_a_folder_of_raw_pairs(extracted):
    p = Preprocess(volumes=volumes(), proc_data_path=extracted[0].raw_em_data_path)
    before = snapshot(Path(p.proc_data_path))
    with pytest.raises(ParameterError, match="holds raw pairs that extract has made: set another folder"):
        run(p)
    assert snapshot(Path(p.proc_data_path)) == before


def test_surveys_and_inspect_raw_take_volumes_too(here, capsys):
    p = SectionVariation(volumes=volumes())
    pairs = pairing.find(p).pairs
    surveyed = survey.run(pairs, p, survey.choose_example(pairs, pairs, p))
    assert (len(surveyed.synapse_ids), surveyed.failures) == (6, {})
    assert len(surveyed.sections) == 6 * 64
    synapses, checks, _, failures = inspection.load_raw(pairs[:2], InspectRaw(volumes=volumes()))
    assert (len(synapses), failures) == (2, {})
    assert synapses[0].em_xyz.shape == (96, 96, 13)
    assert checks["mask_fits"].tolist() == [True, True]


def test_a_cluster_gives_the_same_files(processed, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0", "processes": False}
    with distributed.LocalCluster(**options) as cluster:
        run(
            replace(
                processed[0],
                proc_data_path=str(tmp_path / "cluster"),
                scheduler=cluster.scheduler_address,
            )
        )
    assert contents(tmp_path / "cluster", "run.json") == contents(tmp_path / "processed", "run.json")


def test_folders_with_foreign_arrays_are_refused(extracted, tmp_path):
    p = extracted[0]
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "mine.npy", np.zeros(3))
    for name in ("raw_em_data_path", "raw_mask_data_path"):
        values = {"raw_em_data_path": str(tmp_path / "new"), name: str(tmp_path / "other")}
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / "._ghost.npy").touch()  # of a Mac's disk
        with pytest.raises(
            OutputError, match=r"other holds npy files that extract has not made, such as mine"
        ):
            extract(replace(p, **values))
    np.save(tmp_path / "em" / "mine.npy", np.zeros(3))
    assert extract(p).counts["skipped"] == 6  # what is added later to its own folder is left alone
    assert (tmp_path / "em" / "mine.npy").exists()


@pytest.mark.parametrize("n_good", [0, 1])
def test_a_store_that_answers_with_errors_alone_ends_the_run(here, tmp_path, monkeypatch, n_good):
    """After twenty chunks; one success, before or now, and it goes on to the end."""
    header, first = (here / "data/volumes/synapses.csv").read_text().splitlines()[:2]
    rows = [first.replace("0001007", f"{number:02}", 1) for number in range(30)]
    (tmp_path / "synapses.csv").write_text("\n".join([header, *rows]) + "\n")
    where = volumes(synapse_table=str(tmp_path / "synapses.csv"))
    p = Preprocess(volumes=where, proc_data_path=str(tmp_path / "processed"), n_workers=1)
    read = cut.Cut._read_em

    def refuse(one, *arguments):
        if n_good and one.synapse_id == "00":
            return read(one, *arguments)
        raise ChunkError(stores.REFUSED, "PERMISSION_DENIED: 403", "em")

    monkeypatch.setattr(cut.Cut, "_read_em", refuse)
    if n_good:
        assert len(run(p).failures) == 29
        return
    with pytest.raises(FailedChunksError, match=r"first 20 chunks all failed(?s:.*)absent \(403\)"):
        run(p)
    monkeypatch.setattr(cut.Cut, "_read_em", read)
    assert run(p).counts["done"] == 30


def test_extract_needs_volumes():
    with pytest.raises(ParameterError, match="volumes must say what to cut chunks from"):
        Extract(volumes={})


def test_the_preflight_is_kept_beside_the_output(here, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preflight, "_in_memory", {})
    assert pairing.preflight(Preprocess(), None) is None
    p = Preprocess(volumes=volumes(), proc_data_path=str(tmp_path / "processed"))
    found = pairing.find(p)
    shown = pairing.preflight(p, found)
    assert "presynaptic id within 500 nm" in repr(shown) and "100 %" in shown._repr_html_()
    assert os.listdir(tmp_path / "processed") == [HIDDEN]
    line = capsys.readouterr().out.rsplit("\r", 1)[-1]
    monkeypatch.setattr(preflight, "examine", None)
    assert repr(pairing.preflight(p, found)) == repr(shown)
    assert capsys.readouterr().out.rsplit("\r", 1)[-1] == line == "Preflight: done\n"


def test_the_preflight_of_extract_is_kept_beside_the_em(here, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "_in_memory", {})
    p = Extract(volumes=volumes(), raw_em_data_path=tmp_path / "em", raw_mask_data_path=tmp_path / "mask")
    assert pairing.preflight(p, pairing.find(p), show_progress=False)
    assert (tmp_path / "em" / HIDDEN / "preflight.json").is_file()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"synapse_table": "data/volumes/none.csv"}, "volumes: synapse_table: there is no file"),
        ({"centre_unit_nm": "4"}, "volumes: centre_unit_nm"),
        ({"clefts": "contact"}, "volumes: clefts is not a key; did you mean cleft?"),
    ],
)
def test_volumes_are_checked_with_the_other_parameters(here, changed, message):
    with pytest.raises(ParameterError, match=message):
        params.from_mapping(Preprocess, {"volumes": volumes(**changed)})


@pytest.mark.parametrize("key", ["em", "segmentation", "cleft"])
def test_a_store_that_is_not_there_is_named_with_its_key(here, key):
    p = Preprocess(volumes=volumes(**{key: "precomputed://data/none"}))
    said = rf"^volumes: {key}: precomputed://.*data/none: there is no such store: it has no info"
    with pytest.raises(ChunkError, match=said):
        pairing.preflight(p, pairing.find(p), show_progress=False)


def test_anisotropy_must_be_that_of_the_voxels(here):
    with pytest.raises(ParameterError, match=r"axial_to_sagittal_spacing is 4, but voxel_size_nm"):
        Preprocess(volumes=volumes(), axial_to_sagittal_spacing=4)
