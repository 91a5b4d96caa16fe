"""A Dask cluster of worker processes over TCP does what threads do, also when a worker dies."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import PROJECT

from synprep import pairing, preprocess
from synprep._core.errors import ClusterError
from synprep.params import Preprocess

distributed = pytest.importorskip("distributed")


def spawn(*arguments):
    command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler in a process of its own; the path of its scheduler file."""
    path = tmp_path / "scheduler.json"
    process = spawn(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(path)
    )
    end = time.monotonic() + 60
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    yield str(path)
    process.kill()
    process.wait()


@pytest.fixture
def workers(scheduler):
    """Two worker processes without a nanny, so that one that is killed stays dead."""
    address = json.loads(Path(scheduler).read_text())["address"]
    processes = [
        spawn("worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard") for _ in range(2)
    ]
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield address, processes
    for process in processes:
        process.kill()
        process.wait()


def digests(folder):
    files = [path for path in folder.iterdir() if path.is_file() and path.name != "run.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(p):
    return preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)


@pytest.fixture
def standard(tmp_path, paths):
    """Forty chunks, links to one, and the digests of a run in threads."""
    rng = np.random.default_rng(0)
    for kind in ("em", "mask"):
        (tmp_path / kind).mkdir()
    np.save(tmp_path / "em.npy", rng.integers(1, 256, (256, 256, 60), dtype=np.uint8))
    np.save(tmp_path / "mask.npy", rng.integers(0, 4, (256, 256, 60), dtype=np.uint8))
    for number in range(40):
        (tmp_path / "em" / f"{number:02}.npy").symlink_to(tmp_path / "em.npy")
        (tmp_path / "mask" / f"{number:02}_mask.npy").symlink_to(tmp_path / "mask.npy")
    (tmp_path / "em" / "bad.npy").write_bytes(b"text")
    (tmp_path / "mask" / "bad_mask.npy").write_bytes(b"text")
    run(Preprocess(**{**paths, "proc_data_path": str(tmp_path / "threads")}))
    return digests(tmp_path / "threads")


def papermill(notebook, folder, values):
    """Run a notebook in a folder of its own; return the folder, where reports are."""
    folder.mkdir(exist_ok=True)
    (folder / "p.yaml").write_text(yaml.safe_dump({**values, "report_path": str(folder)}))
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += [str(PROJECT / "notebooks" / f"{notebook}.ipynb"), "out.ipynb", "-f", "p.yaml"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.mark.parametrize("notebook", ["cutout_histogram", "intensity_histogram", "section_variation"])
def test_the_exploratory_notebooks_give_the_same_numbers(notebook, workers, write_pair, paths, tmp_path):
    for number in range(8):
        write_pair(str(number), np.random.default_rng(number).integers(0, 256, (16, 12, 20), dtype=np.uint8))
    folders = [tmp_path / "threads", tmp_path / "cluster"]
    with ThreadPoolExecutor() as executor:
        values = [{**paths, "scheduler": scheduler} for scheduler in ("", workers[0])]
        list(executor.map(papermill, [notebook] * 2, folders, values))
    reports = [(folder / f"{notebook}.json").read_bytes() for folder in folders]
    assert reports[0] == reports[1]


def test_the_preprocess_notebook_gives_the_same_files(standard, workers, paths, tmp_path):
    papermill("preprocess", tmp_path / "cluster", {**paths, "max_failures": 1, "scheduler": workers[0]})
    assert digests(tmp_path / "processed") == standard


def test_chunks_of_a_worker_that_dies_are_done_by_the_other(standard, workers, paths, tmp_path):
    address, processes = workers

    def kill_half_way():
        while len(list((tmp_path / "processed").glob("*.npy"))) < 15:
            time.sleep(0.002)
        processes[0].send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill_half_way, daemon=True)
    thread.start()
    papermill("preprocess", tmp_path / "cluster", {**paths, "max_failures": 1, "scheduler": address})
    thread.join(10)
    assert processes[0].wait(10) == -signal.SIGKILL
    assert json.loads((tmp_path / "processed" / "run.json").read_text())["counts"]["done"] == 40
    assert digests(tmp_path / "processed") == standard
    assert run(Preprocess(**paths)).counts["skipped"] == 40


def test_a_cluster_without_workers(scheduler, paths, write_pair):
    write_pair("1")
    start = time.monotonic()
    with pytest.raises(ClusterError, match="has no workers"):
        run(Preprocess(**paths, scheduler=scheduler))
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:1", r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        ("nonsense", "neither an address such as tcp://host:8786 nor a scheduler file"),
        ("nonsense://x", "no Dask scheduler answers at nonsense://x"),
    ],
)
def test_a_wrong_address(address, reason, paths, write_pair):
    write_pair("1")
    start = time.monotonic()
    with pytest.raises(ClusterError, match=reason):
        run(Preprocess(**paths, scheduler=address))
    assert time.monotonic() - start < 30
    assert not [name for name in os.listdir(paths["proc_data_path"]) if name.endswith(".npy")]
