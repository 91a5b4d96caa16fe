"""A Dask cluster of worker processes over TCP does what threads do, also when a worker dies."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import PROJECT

from synprep import pairing, preprocess
from synprep._core import execution
from synprep._core.errors import ClusterError
from synprep.params import Preprocess

distributed = pytest.importorskip("distributed")


def spawn(*arguments):
    command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def spawn_worker(address):
    """Start a worker process without a nanny, so that one that is killed stays dead."""
    return spawn("worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard")


def end(process):
    process.kill()
    process.wait()


@contextmanager
def opened_scheduler(folder):
    """A scheduler in a process of its own; the path of its scheduler file."""
    path = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(path)]
    process = spawn("scheduler", *options)
    stop = time.monotonic() + 60
    while not path.exists() and time.monotonic() < stop:
        time.sleep(0.05)
    try:
        yield str(path)
    finally:
        end(process)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler with two workers."""
    with opened_scheduler(tmp_path_factory.mktemp("cluster")) as path:
        address = json.loads(Path(path).read_text())["address"]
        workers = [spawn_worker(address) for _ in range(2)]
        wait_for_workers(address, 2)
        yield address
        for worker in workers:
            end(worker)


@pytest.fixture
def third_worker(cluster):
    worker = spawn_worker(cluster)
    wait_for_workers(cluster, 3)
    yield worker
    end(worker)


def wait_for_workers(address, n_workers):
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(n_workers, timeout=60)


def digests(folder):
    files = [path for path in folder.iterdir() if path.is_file() and path.name != "run.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(p):
    return preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    """Parameters of forty chunks, links to one, and of one bad one; and the digests of a run in threads."""
    folder = tmp_path_factory.mktemp("standard")
    rng = np.random.default_rng(0)
    for kind in ("em", "mask"):
        (folder / kind).mkdir()
    np.save(folder / "em.npy", rng.integers(1, 256, (256, 256, 60), dtype=np.uint8))
    np.save(folder / "mask.npy", rng.integers(0, 4, (256, 256, 60), dtype=np.uint8))
    for number in range(40):
        (folder / "em" / f"{number:02}.npy").symlink_to(folder / "em.npy")
        (folder / "mask" / f"{number:02}_mask.npy").symlink_to(folder / "mask.npy")
    (folder / "em" / "bad.npy").write_bytes(b"text")
    (folder / "mask" / "bad_mask.npy").write_bytes(b"text")
    paths = {"raw_em_data_path": str(folder / "em"), "raw_mask_data_path": str(folder / "mask")}
    run(Preprocess(**paths, proc_data_path=str(folder / "threads")))
    return paths, digests(folder / "threads")


@pytest.fixture
def run_notebook(papermill, tmp_path):
    """Run a notebook in a new folder below the temporary one, where its report goes to."""

    def run_in(folder, notebook, values):
        folder = tmp_path / folder
        folder.mkdir()
        (folder / "p.yaml").write_text(yaml.safe_dump({**values, "report_path": str(folder)}))
        path = PROJECT / "notebooks" / f"{notebook}.ipynb"
        result = papermill(folder, path, "out.ipynb", "-f", "p.yaml")
        assert result.returncode == 0, result.stderr[-3000:]
        return folder

    return run_in


@pytest.mark.parametrize("notebook", ["cutout_histogram", "intensity_histogram", "section_variation"])
def test_the_exploratory_notebooks_give_the_same_numbers(notebook, cluster, run_notebook, write_pair, paths):
    for number in range(8):
        write_pair(str(number), np.random.default_rng(number).integers(0, 256, (16, 12, 20), dtype=np.uint8))
    folders = (
        run_notebook("threads", notebook, paths),
        run_notebook("cluster", notebook, {**paths, "scheduler": cluster}),
    )
    reports = [(folder / f"{notebook}.json").read_bytes() for folder in folders]
    assert reports[0] == reports[1]


def test_the_preprocess_notebook_gives_the_same_files(standard, cluster, run_notebook, tmp_path):
    inputs, expected = standard
    out = tmp_path / "processed"
    values = {**inputs, "proc_data_path": str(out), "max_failures": 1, "scheduler": cluster}
    run_notebook("cluster", "preprocess", values)
    assert digests(out) == expected


def test_chunks_of_a_worker_that_dies_are_done_by_the_others(
    standard, cluster, third_worker, run_notebook, tmp_path
):
    inputs, expected = standard
    out = tmp_path / "processed"
    p = {**inputs, "proc_data_path": str(out)}

    def kill_half_way():
        while len(list(out.glob("*.npy"))) < 15:
            time.sleep(0.002)
        third_worker.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill_half_way, daemon=True)
    thread.start()
    run_notebook("cluster", "preprocess", {**p, "max_failures": 1, "scheduler": cluster})
    thread.join(10)
    assert third_worker.wait(10) == -signal.SIGKILL
    assert json.loads((out / "run.json").read_text())["counts"]["done"] == 40
    assert digests(out) == expected
    assert run(Preprocess(**p)).counts["skipped"] == 40


def test_nobody_waits_long_for_a_cluster():
    """For the scheduler, and again for its workers."""
    assert 2 * execution._CONNECT_SECONDS < 30


def test_a_cluster_without_workers(paths, write_pair, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_CONNECT_SECONDS", 4)
    write_pair("1")
    with opened_scheduler(tmp_path) as scheduler:
        start = time.monotonic()
        with pytest.raises(ClusterError, match="has no workers"):
            run(Preprocess(**paths, scheduler=scheduler))
        assert time.monotonic() - start < 12


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:1", r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        ("nonsense", "neither an address such as tcp://host:8786 nor a scheduler file"),
        ("nonsense://x", "no Dask scheduler answers at nonsense://x"),
    ],
)
def test_a_wrong_address(address, reason, paths, write_pair, monkeypatch):
    monkeypatch.setattr(execution, "_CONNECT_SECONDS", 1)
    write_pair("1")
    start = time.monotonic()
    with pytest.raises(ClusterError, match=reason):
        run(Preprocess(**paths, scheduler=address))
    assert time.monotonic() - start < 10
    assert not [name for name in os.listdir(paths["proc_data_path"]) if name.endswith(".npy")]
