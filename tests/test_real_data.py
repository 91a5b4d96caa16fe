"""The seed's own results on real EM, byte for byte; skipped where that data is not present."""

import hashlib
import json
from pathlib import Path

import pytest

from synprep import pairing, preprocess
from synprep.params import Preprocess

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EXPECTED = DATA / "expected.json"
CASES = [
    (name, mode)
    for name in ("drosophila_medulla", "drosophila_tiny", "drosophila_vnc")
    for mode in ("intensity_and_mask", "cut_channels")
]


@pytest.mark.skipif(not EXPECTED.exists(), reason="the real EM chunks are not distributed with the project")
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_equal_to_the_seed(name, mode, tmp_path):
    p = Preprocess(
        raw_em_data_path=DATA / name / "em",
        raw_mask_data_path=DATA / name / "mask",
        proc_data_path=tmp_path,
        cut_intensity_with_seg_masks=mode == "cut_channels",
    )
    plan = preprocess.plan(pairing.find(p), p, show_progress=False)
    result = preprocess.run(plan, p, show_progress=False)
    expected = json.loads(EXPECTED.read_text())[name][mode]
    assert result.failures == {}
    assert (tmp_path / "meta.csv").read_text() == expected["meta.csv"]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.npy")}
    assert digests == expected["sha256"]
