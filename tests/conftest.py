import shutil
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from synprep import pairing, params, preprocess
from synprep._core import chunk
from synprep._core.chunk import Pair

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(
    path for path in (PROJECT / "notebooks").glob("*.ipynb") if not path.name.startswith("out")
)

matplotlib.use("agg")


def run_preprocess(p):
    """Run as the notebook does, without progress."""
    return preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)


def process(folder, p, em_xyz, mask_xyz):
    """Write a raw pair into a folder, process it, and load its tensor."""
    np.save(folder / "a.npy", em_xyz)
    np.save(folder / "a_mask.npy", mask_xyz)
    content = params.content(p)
    with Pair("a", folder / "a.npy", folder / "a_mask.npy").open() as raw:
        entry = chunk.process(raw, folder, "key", **content)
    tensor_cxyz = np.load(folder / entry.row["filename"])
    return SimpleNamespace(tensor_cxyz=tensor_cxyz, **vars(entry))


def copy_project(folder):
    """Copy what notebooks need into a folder, without anything that a run writes."""
    for name in ("notebooks", "params"):
        ignore = shutil.ignore_patterns("out*", ".ipynb_checkpoints")
        shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=ignore)


@pytest.fixture
def write_pair(tmp_path):
    """Write a raw pair below the temporary folder, by default a small random one."""

    def write(synapse_id, em_xyz=None, mask_xyz=None, folder=tmp_path):
        rng = np.random.default_rng(len(synapse_id))
        em_xyz = rng.integers(1, 256, (6, 5, 20), dtype=np.uint8) if em_xyz is None else em_xyz
        mask_xyz = rng.integers(0, 4, em_xyz.shape, dtype=np.uint8) if mask_xyz is None else mask_xyz
        for kind, name, array in (("em", synapse_id, em_xyz), ("mask", f"{synapse_id}_mask", mask_xyz)):
            (folder / kind).mkdir(exist_ok=True)
            np.save(folder / kind / f"{name}.npy", array)

    return write


@pytest.fixture
def paths(tmp_path):
    """Folder parameters of the pairs that `write_pair` writes."""
    return {
        "raw_em_data_path": str(tmp_path / "em"),
        "raw_mask_data_path": str(tmp_path / "mask"),
        "proc_data_path": str(tmp_path / "processed"),
    }
