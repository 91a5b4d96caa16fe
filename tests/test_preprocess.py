import os

import numpy as np
import pandas as pd
import pytest

from synprep import pairing, preprocess
from synprep.errors import PairingError
from synprep.params import Preprocess


def run(p):
    found = pairing.find(p)
    return preprocess.run(preprocess.choose(found, p), p, show_progress=False)


def test_tensors_and_tables(write_pair, paths, tmp_path):
    for synapse_id in ("9", "10", "007", "NA"):
        write_pair(synapse_id)
    result = run(Preprocess(**paths))
    folder = tmp_path / "processed"
    names = [f"{synapse_id}__2_6_5_5.npy" for synapse_id in ("007", "10", "9", "NA")]
    assert sorted(os.listdir(folder)) == sorted([*names, "meta.csv", "sections.csv"])
    meta = (folder / "meta.csv").read_bytes()
    assert meta.startswith(
        b"synapse_id,filename,pre_synaptic_volume,post_synaptic_volume,synaptic_cleft_volume,n_cutout_sections\n007,007__2_6_5_5.npy,"
    )
    assert b"\r" not in meta
    assert result.meta["filename"].tolist() == names
    assert result.meta["synapse_id"].tolist() == ["007", "10", "9", "NA"]
    sections = pd.read_csv(folder / "sections.csv", dtype={"synapse_id": str}, keep_default_na=False)
    assert list(sections) == ["synapse_id", "z", "cutout_fraction", "mean", "std", "is_blanked"]
    assert sections["synapse_id"].tolist() == [i for i in ("007", "10", "9", "NA") for _ in range(5)]
    assert sections["z"].tolist() == [0, 1, 2, 3, 4] * 4
    assert result.failures == {}
    assert result.notes == (f"4 tensors, meta.csv and sections.csv are in {folder}",)


def test_a_bad_chunk_is_named_and_the_others_are_done(write_pair, paths):
    write_pair("good")
    write_pair("bad", em_xyz=np.zeros((3, 3, 3), np.float32))
    result = run(Preprocess(**paths))
    assert result.meta["synapse_id"].tolist() == ["good"]
    assert list(result.failures) == ["bad"]
    assert "uint8, not float32" in result.failures["bad"]
    assert result.summary()["count"][["chunks processed", "chunks failed"]].tolist() == [1, 1]


def test_all_chunks_bad_gives_empty_tables(write_pair, paths):
    write_pair("bad", em_xyz=np.zeros((3, 3, 3), np.float32))
    result = run(Preprocess(**paths))
    assert len(result.meta) == 0
    assert result.summary()["count"].tolist() == [0, 1, 0, 0, 0, 0]


def test_some_of_the_pairs(write_pair, paths, tmp_path):
    for synapse_id in ("1", "2", "3", "4"):
        write_pair(synapse_id)
    (tmp_path / "ids.csv").write_text("synapse_id,score\n4,1\n2,1\n3,1\n8,1\n")
    p = Preprocess(**paths, synapse_ids_path=str(tmp_path / "ids.csv"), max_chunks=2)
    assert run(p).meta["synapse_id"].tolist() == ["2", "3"]


def test_ids_that_are_not_paired_are_told(write_pair, paths, tmp_path, capsys):
    write_pair("1")
    (tmp_path / "ids.csv").write_text("synapse_id\n1\n8\n9\n")
    run(Preprocess(**paths, synapse_ids_path=str(tmp_path / "ids.csv")))
    assert capsys.readouterr().out == "2 ids of synapse_ids_path not paired: 8, 9\n"


def test_ids_that_differ_in_case(write_pair, paths, monkeypatch):
    write_pair("a1")
    write_pair("A1")
    p = Preprocess(**paths)
    monkeypatch.setattr(preprocess.storage, "ignores_case", lambda folder: False)
    assert run(p).meta["synapse_id"].tolist() == ["A1", "a1"]
    monkeypatch.setattr(preprocess.storage, "ignores_case", lambda folder: True)
    with pytest.raises(PairingError, match="share a file: A1 and a1"):
        run(p)


class TestPreviousTable:
    """No meta.csv describes other arrays than those beside it."""

    def test_the_same_run_again_leaves_no_copy(self, write_pair, paths, tmp_path):
        write_pair("1")
        run(Preprocess(**paths))
        assert len(run(Preprocess(**paths)).notes) == 1
        assert sorted(os.listdir(tmp_path / "processed")) == ["1__2_6_5_5.npy", "meta.csv", "sections.csv"]

    def test_other_rows_keep_the_old_table_under_a_number(self, write_pair, paths, tmp_path):
        write_pair("1")
        run(Preprocess(**paths))
        old = (tmp_path / "processed" / "meta.csv").read_bytes()
        write_pair("0")
        assert (
            run(Preprocess(**paths)).notes[1]
            == "meta.csv differs from the one that was there, which is kept as meta.1.csv"
        )
        assert (tmp_path / "processed" / "meta.1.csv").read_bytes() == old

    def test_the_old_table_is_gone_before_the_first_array_is_written(
        self, write_pair, paths, tmp_path, monkeypatch
    ):
        write_pair("1")
        run(Preprocess(**paths))

        def stop(path, array):
            assert not (tmp_path / "processed" / "meta.csv").exists()
            raise KeyboardInterrupt

        monkeypatch.setattr(preprocess.storage, "save_array", stop)
        with pytest.raises(KeyboardInterrupt):
            run(Preprocess(**paths))
        assert (tmp_path / "processed" / "meta.1.csv").exists()
