"""A Dask cluster of worker processes over TCP does what threads do, also when a worker dies."""

import concurrent.futures
import hashlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import PROJECT

from synprep import pairing, preprocess, survey
from synprep._core import chunk, execution, files, record, tables, work
from synprep._core.errors import ChunkError, ClusterError, FailedChunksError, OutputError
from synprep.params import CutoutHistogram, Extract, Preprocess

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
    """A scheduler in a process of its own; the path of its scheduler file, and the process."""
    path = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(path)]
    process = spawn("scheduler", *options)
    stop = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size) and time.monotonic() < stop:
        time.sleep(0.05)
    try:
        yield str(path), process
    finally:
        end(process)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler with two workers."""
    with opened_scheduler(tmp_path_factory.mktemp("cluster")) as (path, _):
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


def test_the_exploratory_notebooks_get_the_same_numbers(cluster, write_pair, paths):
    """All that their reports are made of."""
    for number in range(8):
        write_pair(str(number), np.random.default_rng(number).integers(0, 256, (16, 12, 20), dtype=np.uint8))
    p = CutoutHistogram(raw_em_data_path=paths["raw_em_data_path"], raw_mask_data_path="")
    pairs = pairing.find(p).pairs
    records = (p, replace(p, scheduler=cluster))
    here, there = (vars(survey.run(pairs, one, example=pairs[3])) for one in records)
    assert len(here["synapse_ids"]) == 8 and here["example"].any()
    for name, value in here.items():
        np.testing.assert_array_equal(there[name], value)


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


# Files that workers and client do not share


@pytest.fixture(scope="module")
def near():
    """The address of a scheduler in this process, with a worker that is a thread of it."""
    options = {"n_workers": 1, "threads_per_worker": 1}
    with distributed.LocalCluster(**options, processes=False, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def after_work(monkeypatch):
    """Let something happen to the files of a chunk, and to what is known of it, before the client looks."""
    monkeypatch.setattr(work, "_LOOK_AFTER_SECONDS", (0, 0.1))
    process_chunk = chunk.process

    def act_after(act):
        def process(raw, folder, *arguments, **values):
            entry = process_chunk(raw, folder, *arguments, **values)
            return act(entry, Path(folder, entry.row["filename"])) or entry

        monkeypatch.setattr(chunk, "process", process)

    return act_after


def write_another(entry, path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[::-1])
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("act", [lambda entry, path: path.unlink(), write_another])
def test_what_a_worker_has_written_elsewhere_is_not_done(act, near, after_work, write_pair, paths):
    """On a disk of its own, where the client may have the file of an earlier run."""
    for synapse_id in ("1", "22"):
        write_pair(synapse_id)
    after_work(act)
    result = run(Preprocess(**paths, scheduler=near))
    out, host = paths["proc_data_path"], platform.node()
    expected = (
        rf"{execution.NOT_SHARED}: 1__2_6_5_5\.npy: written by the worker \S+ \({host}\), not seen here: "
        rf"is {out} on a disk that client and workers share\?"
    )
    assert sorted(result.failures) == ["1", "22"]
    assert re.fullmatch(expected, result.failures["1"])
    assert (len(result.meta), record.read_done(out)) == (0, {})
    assert "not seen here" in Path(out, "problems.csv").read_text()


def test_what_a_worker_has_read_elsewhere_is_not_done(near, after_work, write_pair, paths):
    write_pair("1")
    after_work(lambda entry, path: replace(entry, inputs=[entry.inputs[0], [1, 1]]))
    failure = run(Preprocess(**paths, scheduler=near)).failures["1"]
    assert re.search(rf"1_mask\.npy: read by .*: is {paths['raw_mask_data_path']} on a disk", failure)


def test_what_comes_late_is_done(near, after_work, write_pair, paths):
    def hide(entry, path):
        path.rename(path.with_suffix(".late"))
        threading.Timer(0.02, path.with_suffix(".late").rename, [path]).start()

    write_pair("1")
    after_work(hide)
    assert run(Preprocess(**paths, scheduler=near)).counts["done"] == 1


def test_a_run_ends_early_if_nothing_is_seen_here(near, after_work, write_pair, paths, capfd):
    for number in range(30):
        write_pair(f"{number:02}")
    after_work(lambda entry, path: path.unlink())
    with pytest.raises(FailedChunksError, match=r"the first 20 chunks all failed(.|\n)*not seen here"):
        run(Preprocess(**paths, scheduler=near))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["em", "mask"])
def test_pairs_that_a_worker_has_extracted_elsewhere_are_not_done(kind, near, monkeypatch, tmp_path):
    monkeypatch.setattr(work, "_LOOK_AFTER_SECONDS", (0,))
    p = Extract(raw_em_data_path=str(tmp_path / "em"), raw_mask_data_path=str(tmp_path / "mask"))
    pair, out = (
        chunk.Pair("1", tmp_path / "em" / "1.npy"),
        (tmp_path / "em" / "1.npy", tmp_path / "mask" / "1_mask.npy"),
    )
    for path in out:
        path.parent.mkdir()
        path.write_bytes(b"x")
    row = {"synapse_id": "1", "filename": "1.npy"}
    entry = tables.Entry("key", [], [*map(files.state, out)], row, {}, [])
    object.__setattr__(p, "volumes", {"em": "any"})  # whose files are not looked at
    assert work._look(pair, entry, "w", preprocess._job(p), set()) is entry
    out[kind == "mask"].unlink()
    error = work._look(pair, entry, "w", preprocess._job(p), set())
    assert error.path == str(out[kind == "mask"])
    assert error.kind == execution.NOT_SHARED


def test_a_file_that_a_worker_cannot_read_is_an_error_that_names_it(near, write_pair, paths):
    for synapse_id in ("1", "2"):
        write_pair(synapse_id)
    p = Preprocess(**paths, scheduler=near)
    planned = preprocess.plan(pairing.find(p), p, show_progress=False)
    em_path = Path(paths["raw_em_data_path"], "1.npy")
    em_path.unlink()
    failures = preprocess.run(planned, p, show_progress=False).failures
    expected = rf"1\.npy: on the worker \S+ \(.*\): file is missing: .*: is {em_path.parent} on a disk"
    assert re.search(expected, failures.pop("1"))
    assert failures == {}


def test_a_disk_that_is_full_is_that_of_a_worker(near, monkeypatch, write_pair, paths):
    def fail(*_):
        raise OutputError("disk full")

    write_pair("1")
    monkeypatch.setattr(chunk.files, "save_array", fail)
    with pytest.raises(OutputError, match=r"on the worker \S+ \(.*\): disk full"):
        run(Preprocess(**paths, scheduler=near))


def test_pairs_of_a_run_that_kills_workers_are_done_one_by_one():
    def attempt(runs):
        for run_ in runs:
            done = "w", [int(one) for one in run_]
            yield run_, ChunkError("its worker died again and again") if "3" in run_ else done

    runs = [["1", "2"], ["3", "4"]]
    outcomes = dict(work._outcomes_there(attempt, runs, lambda pair, outcome, worker: outcome))
    assert str(outcomes.pop("3")) == "its worker died again and again"
    assert outcomes == {"1": 1, "2": 2, "4": 4}


# Schedulers and workers that are not there, or not of the same kind


def attempt(scheduler, items=(1,), function=str, show=False):
    return dict(execution.attempt_all(function, items, "Working", show, scheduler=scheduler))


def test_nobody_waits_long_for_a_scheduler():
    """To be found, or until it is known to be lost."""
    assert 2 * execution._CONNECT_SECONDS < 30
    lost = execution._LOOK_SECONDS + execution._ANSWER_SECONDS + execution._CLOSE_SECONDS
    assert lost < 30


@pytest.fixture
def empty(monkeypatch):
    """A cluster whose scheduler is in this process, and has no workers."""
    monkeypatch.setattr(execution, "_LOOK_SECONDS", 0.02)
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        yield cluster


def test_a_cluster_without_workers_is_waited_for(empty, capsys):
    timer = threading.Timer(0.3, empty.scale, [1])
    timer.start()
    assert attempt(empty.scheduler_address, show=True) == {1: "1"}
    timer.join()
    assert capsys.readouterr().out.count("has no workers: waiting for them") == 1


def test_waiting_for_workers_says_so_again(empty, capsys, monkeypatch):
    monkeypatch.setattr(execution, "_SAY_SECONDS", 0.05)
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        attempt(empty.scheduler_address, show=True)
    assert capsys.readouterr().out.count("has no workers: waiting for them") > 2


def test_a_scheduler_that_is_lost(tmp_path, monkeypatch, capfd):
    """It stands still, such as behind a network that is cut; then it dies."""
    for name in ("LOOK", "ANSWER", "CLOSE"):
        monkeypatch.setattr(execution, f"_{name}_SECONDS", 0.3)
    with opened_scheduler(tmp_path) as (path, process):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            threading.Timer(0.3, process.send_signal, [number]).start()
            with pytest.raises(ClusterError, match=r"Dask scheduler at .* is lost, or was restarted"):
                attempt(path)
            process.send_signal(signal.SIGCONT)
    assert capfd.readouterr().err == ""


def test_a_worker_without_the_package_is_named(monkeypatch):
    code = "import sys; sys.modules['synprep'] = None; from distributed.cli import dask_worker as d; d.main()"
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        command = [sys.executable, "-c", code, address, "--no-nanny", "--no-dashboard"]
        worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pytest.raises(
            ClusterError, match=r"worker tcp://.* has .*synprep.*, and here is Python .*synprep"
        ):
            attempt(address)
        end(worker)


def test_a_worker_with_another_version_is_named(near, monkeypatch):
    versions = iter(["2.0", "1.0"])

    class Package:
        __version__ = property(lambda self: next(versions, "1.0"))

    monkeypatch.setattr(execution, "synprep", Package())
    with pytest.raises(ClusterError, match=r"worker \S+ \(.*\) has synprep 1\.0, and here is 2\.0: install"):
        attempt(near)


def test_a_task_that_kills_workers_is_given_up():
    class KilledWorker(Exception):  # noqa: N818, as Dask calls it
        pass

    future = concurrent.futures.Future()
    future.set_exception(KilledWorker())
    assert execution._Cluster.result(None, future).kind == "its worker died again and again"


def test_a_scheduler_file_that_is_about_to_be_written(near, tmp_path):
    path = tmp_path / "scheduler.json"
    threading.Timer(0.2, path.write_text, ["{"]).start()
    threading.Timer(0.4, path.write_text, [json.dumps({"address": near})]).start()
    assert attempt(str(path)) == {1: "1"}


@pytest.mark.parametrize("content", [b"", b"text", b"[1]", b"{}", b"\xff\xfe"])
def test_what_is_not_a_scheduler_file(content, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_CONNECT_SECONDS", 0.1)
    path = tmp_path / "scheduler.json"
    path.write_bytes(content)
    with pytest.raises(ClusterError, match=r"scheduler\.json is not the file that a Dask scheduler writes"):
        attempt(str(path))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:1", r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        ("nonsense", "neither an address such as tcp://host:8786 nor a scheduler file"),
        ("nonsense://x", "no Dask scheduler answers at nonsense://x"),
        ("tls://127.0.0.1:1", "TLS expects a `ssl_context`"),
        ("inproc://x", "no Dask scheduler answers at inproc://x"),
        ("tcp://", "missing port number"),
    ],
)
def test_a_wrong_address(address, reason, paths, write_pair, monkeypatch, capfd):
    monkeypatch.setattr(execution, "_CONNECT_SECONDS", 0.5)
    write_pair("1")
    with pytest.raises(ClusterError, match=reason):
        run(Preprocess(**paths, scheduler=address))
    assert not [name for name in os.listdir(paths["proc_data_path"]) if name.endswith(".npy")]
    assert capfd.readouterr().err == ""


def test_a_server_that_is_no_scheduler(monkeypatch):
    monkeypatch.setattr(execution, "_CONNECT_SECONDS", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ClusterError, match=r"within 0\.5 s"),
    ):
        attempt(f"tcp://127.0.0.1:{server.getsockname()[1]}")
