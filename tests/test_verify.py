import re

import numpy as np
import pytest

from synprep import pairing, planning, preprocess
from synprep.params import Preprocess
from synprep.verify import verify_outputs


@pytest.fixture
def verify(write_pair, paths):
    """Process three chunks, one with a blanked section, and verify them."""
    em_xyz = np.full((6, 5, 20), 9, np.uint8)
    em_xyz[:, :, 8] = 0
    write_pair("1", em_xyz)
    write_pair("2", em_xyz)
    write_pair("3")
    p = Preprocess(**paths)
    result = preprocess.run(planning.make(pairing.find(p), p, show_progress=False), p, show_progress=False)

    def run(meta=result.meta, sections=result.sections):
        return verify_outputs(
            p.proc_data_path, meta, sections, p.axial_to_sagittal_spacing, show_progress=False
        )

    run.result = result
    return run


def change(path, position, value):
    tensor = np.load(path)
    tensor[position] = value
    np.save(path, tensor)


def test_all_is_right(verify):
    assert verify() == {}


@pytest.mark.parametrize(
    ("position", "value", "problem"),
    [
        ((1, slice(None), slice(None), 2), 0, "_volume is not that of the table"),
        ((0, 0, 0, 1), 5, r"sections are not blank: z = \[1\]"),
    ],
)
def test_changed_values(verify, tmp_path, position, value, problem):
    change(tmp_path / "processed" / "2__2_6_5_5.npy", position, value)
    wrong = verify()
    assert list(wrong) == ["2"]
    assert re.search(problem, wrong["2"])


def test_damaged_missing_and_foreign_files(verify, tmp_path):
    folder = tmp_path / "processed"
    (folder / "1__2_6_5_5.npy").write_bytes((folder / "1__2_6_5_5.npy").read_bytes()[:-1])
    (folder / "2__2_6_5_5.npy").unlink()
    np.save(folder / "3__2_6_5_5.npy", np.zeros((2, 5, 6, 5), np.uint8))
    wrong = verify()
    assert "1__2_6_5_5.npy: file is cut short" in wrong["1"]
    assert "2__2_6_5_5.npy: file is missing" in wrong["2"]
    assert "not an array of the shape and type of its name: (2, 5, 6, 5) uint8" in wrong["3"]


def test_tables_that_do_not_agree(verify):
    meta = verify.result.meta.assign(n_cutout_sections=[1, 0, 0])
    assert list(verify(meta=meta)) == ["2"]
    assert "do not agree" in verify(meta=meta)["2"]
