import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import nbformat
import numpy as np
import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from synprep import pairing, params, preprocess
from synprep._core import chunk, record
from synprep._core.chunk import Pair

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(
    path for path in (PROJECT / "notebooks").glob("*.ipynb") if not path.name.startswith("out")
)

SECONDS = 600  # that any one test may take on a slow machine; none may wait for ever

matplotlib.use("agg")
settings.register_profile("no deadline", deadline=None)  # machines are shared
settings.load_profile("no deadline")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background, and so in all that tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Fail a test, or a fixture of it, that takes too long: it waits for what does not come."""
    if not hasattr(signal, "SIGALRM"):  # Windows
        return (yield)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def _give_up(*_):
    raise TimeoutError(f"the test has taken more than {SECONDS} s")


def run_preprocess(p):
    """Run as the notebook does, without progress."""
    return preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)


def labels(shape_xyz, seed=0):
    """Random labels; the cleft is in the middle of the sections that are kept, and gives no warning."""
    mask_xyz = np.random.default_rng(seed).integers(0, 4, shape_xyz, dtype=np.uint8)
    is_inner = np.zeros(shape_xyz, bool)
    middle = shape_xyz[2] // 2
    is_inner[1:-1, 1:-1, middle - 2 : middle + 1] = True
    return np.where((mask_xyz == 2) & ~is_inner, 0, mask_xyz).astype(np.uint8)


def process(folder, p, em_xyz, mask_xyz):
    """Write a raw pair into a folder, process it, and load its tensor."""
    np.save(folder / "a.npy", em_xyz)
    np.save(folder / "a_mask.npy", mask_xyz)
    content = params.content(p)
    with Pair("a", folder / "a.npy", folder / "a_mask.npy").open() as raw:
        entry = chunk.process(raw, folder, "key", **content)
    tensor_cxyz = np.load(folder / entry.row["filename"])
    return SimpleNamespace(tensor_cxyz=tensor_cxyz, **vars(entry))


class Scheduling(LoadFileScheduling):
    """With several workers (`-n`) one has all notebooks, which share `data`; all else goes by file."""

    def _split_scope(self, nodeid):
        path = super()._split_scope(nodeid)
        return "notebooks" if path.endswith(".ipynb") else path


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)


def copy_project(folder):
    """Copy what notebooks need into a folder, without anything that a run writes."""
    for name in ("notebooks", "params"):
        ignore = shutil.ignore_patterns("out*", ".ipynb_checkpoints")
        shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=ignore)


def text_of(path):
    """All that the code cells of an executed notebook show."""
    outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
    return "\n".join(out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in outputs)


def run_nbval(folder, *arguments):
    """Compare notebooks with new results, in a process that loads no plugins but those that this takes."""
    command = [sys.executable, "-m", "pytest", "--nbval"]
    command += ["-p", "nbval.plugin", "-p", "xdist.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="session")
def papermill(tmp_path_factory):
    """Run papermill's command in a folder, in a process of its own (see `papermill_again.py`)."""
    stderr = tmp_path_factory.mktemp("papermill") / "stderr"
    command = [sys.executable, str(PROJECT / "tests" / "papermill_again.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(folder, *arguments):
            arguments = ["--no-progress-bar", *map(str, arguments)]
            print(json.dumps([str(folder), arguments, str(stderr)]), file=process.stdin, flush=True)
            returncode = int(process.stdout.readline())
            return subprocess.CompletedProcess(arguments, returncode, stderr=stderr.read_text())

        yield run
        process.stdin.close()


@pytest.fixture
def write_pair(tmp_path):
    """Write a raw pair below the temporary folder, by default a small random one."""

    def write(synapse_id, em_xyz=None, mask_xyz=None, folder=tmp_path):
        rng = np.random.default_rng(len(synapse_id))
        em_xyz = rng.integers(1, 256, (6, 5, 20), dtype=np.uint8) if em_xyz is None else em_xyz
        mask_xyz = labels(em_xyz.shape, len(synapse_id)) if mask_xyz is None else mask_xyz
        for kind, name, array in (("em", synapse_id, em_xyz), ("mask", f"{synapse_id}_mask", mask_xyz)):
            (folder / kind).mkdir(exist_ok=True)
            np.save(folder / kind / f"{name}.npy", array)

    return write


@pytest.fixture
def disk_calls(monkeypatch):
    """What is flushed to the disk, renamed and recorded, in this order, such as ("rename", "meta.csv")."""
    calls, flush, rename, record_chunk = [], os.fsync, os.replace, record.append_done

    def fsync(descriptor):
        flush(descriptor)
        calls.append(("flush", os.fstat(descriptor)))

    def replace(source, target):
        status = os.stat(source)
        rename(source, target)
        calls.append(("rename", str(target), status))

    def append_done(folder, entry):
        calls.append(("record", entry.synapse_id))
        record_chunk(folder, entry)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(record, "append_done", append_done)
    return calls


@pytest.fixture
def paths(tmp_path):
    """Folder parameters of the pairs that `write_pair` writes."""
    return {
        "raw_em_data_path": str(tmp_path / "em"),
        "raw_mask_data_path": str(tmp_path / "mask"),
        "proc_data_path": str(tmp_path / "processed"),
    }


@pytest.fixture
def processed(write_pair, paths):
    """A run over two small chunks: its result, and its folder."""
    for synapse_id in ("007", "NA"):
        write_pair(synapse_id)
    p = params.Preprocess(**paths, voxel_size_xy_nm=4.0, axial_to_sagittal_spacing=2.5)
    return run_preprocess(p), Path(p.proc_data_path)
