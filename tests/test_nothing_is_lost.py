"""Hostile inputs, kills, full disks, two runs at once: what a night of ten thousand chunks brings."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kill_at_every_call import extract

from synprep import merge, pairing, preprocess
from synprep._core import files, record
from synprep._core import npy as npy_file
from synprep._core.errors import OutputError, PairingError
from synprep._core.paths import HIDDEN
from synprep.params import Merge, Preprocess

RUN = """
import json, sys
from synprep import pairing, params, preprocess
p = params.Preprocess(**json.loads(sys.argv[1]))
preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)
"""


# Before it writes a tensor, a run waits until there is a file.
WAIT = """
import os, time
from synprep._core import files
def wait_and_save(*arguments, save=files.save_array):
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
    save(*arguments)
files.save_array = wait_and_save
"""


def run(p):
    return preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)


def start(paths, wait_for=""):
    """Start a run in a plain Python process of its own."""
    code = RUN.replace("p = ", f"{WAIT}p = ", 1) if wait_for else RUN
    command = [sys.executable, "-c", code, json.dumps(paths), str(wait_for)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process, code=0):
    """Wait for the end of a run, and return what it said."""
    said = process.communicate(timeout=120)[1]
    assert process.returncode == code, said
    return said


SHAPE = (6, 5, 20)
EM = np.random.default_rng(0).integers(1, 256, SHAPE, dtype=np.uint8)
MASK = np.random.default_rng(1).integers(0, 4, SHAPE, dtype=np.uint8)


def npy(array, version=None):
    """Bytes of an npy file."""
    with tempfile.TemporaryFile() as file:
        np.lib.format.write_array(file, np.asanyarray(array), version, allow_pickle=True)
        file.seek(0)
        return file.read()


def npz(array):
    with tempfile.TemporaryFile() as file:
        np.savez(file, array)
        file.seek(0)
        return file.read()


def with_header(text, values=b""):
    """An npy file with any header."""
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values


def header_of(shape, descr="|u1"):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


WHOLE = npy(EM)
# Synapse id: bytes of the EM file, bytes of the mask file, and the problem (None: the chunk is good).
CORPUS = {
    "good": (WHOLE, npy(MASK), None),
    "good with spaces": (WHOLE, npy(MASK), None),
    "good.with.dots": (WHOLE, npy(MASK), None),
    "good-ünï-突触": (WHOLE, npy(MASK), None),
    "good,comma'quote\"": (WHOLE, npy(MASK), None),
    "good_fortran": (npy(np.asfortranarray(EM)), npy(np.asfortranarray(MASK)), None),
    "good_version_2": (npy(EM, (2, 0)), npy(MASK, (2, 0)), None),
    "good_big_endian": (WHOLE, npy(MASK.astype(">i4")), None),
    "good_bool": (WHOLE, npy(MASK > 1), None),
    "empty_file": (b"", npy(MASK), "not an npy file"),
    "zero_bytes": (bytes(728), npy(MASK), "not an npy file"),
    "cut_in_magic": (WHOLE[:4], npy(MASK), "not an npy file"),
    "cut_in_header": (WHOLE[:60], npy(MASK), "not an npy file"),
    "cut_after_header": (WHOLE[:128], npy(MASK), "file is cut short"),
    "cut_in_values": (WHOLE[:-1], npy(MASK), "file is cut short"),
    "mask_cut": (WHOLE, npy(MASK)[:-7], "file is cut short"),
    "too_long": (WHOLE + b"\0", npy(MASK), "file is longer than its header says"),
    "text": (b"synapse_id,x\n1,2\n" * 50, npy(MASK), "not an npy file"),
    "npz": (npz(EM), npy(MASK), "not an npy file"),
    "unknown_version": (WHOLE[:6] + b"\x07\x00" + WHOLE[8:], npy(MASK), "not an npy file"),
    "objects": (
        npy(np.array([{}, 1], dtype=object)),
        npy(MASK),
        "holds Python objects, which are never loaded",
    ),
    "object_labels": (WHOLE, npy(np.array([None])), "holds Python objects, which are never loaded"),
    "float_em": (npy(EM.astype(np.float32)), npy(MASK), "EM must be uint8"),
    "uint16_em": (npy(EM.astype(np.uint16)), npy(MASK), "EM must be uint8"),
    "big_endian_em": (npy(EM.astype(">u2")), npy(MASK), "EM must be uint8"),
    "structured_em": (npy(np.zeros(SHAPE, [("a", "u1")])), npy(MASK), "not an npy file"),
    "float_labels": (WHOLE, npy(MASK.astype(float)), "mask must be integer or boolean"),
    "mask_too_high": (WHOLE, npy(MASK.astype(np.uint16) * 200), "mask values must be 0 to 255"),
    "mask_negative": (WHOLE, npy(MASK.astype(np.int8) - 1), "mask values must be 0 to 255"),
    "mask_root_ids": (
        WHOLE,
        npy(MASK.astype(np.uint64) + 648518346349531254),
        "mask values must be 0 to 255",
    ),
    "two_axes": (npy(EM[0]), npy(MASK[0]), "EM must have three axes (x, y, z), none empty"),
    "four_axes": (npy(EM[None]), npy(MASK[None]), "EM must have three axes (x, y, z), none empty"),
    "no_axes": (npy(np.uint8(1)), npy(MASK), "EM must have three axes (x, y, z), none empty"),
    "empty_array": (
        npy(EM[:0, :0, :0]),
        npy(MASK[:0, :0, :0]),
        "EM must have three axes (x, y, z), none empty",
    ),
    "shapes_differ": (WHOLE, npy(MASK[:5]), "EM and mask must have equal shapes"),
    "huge_shape": (
        with_header(header_of("(9999999, 9999999, 9999)"), bytes(600)),
        npy(MASK),
        "file is cut short",
    ),
    "overflowing_shape": (
        with_header(header_of("(4294967296, 4294967296, 2)")),
        npy(MASK),
        "file is cut short",
    ),
    "negative_shape": (
        with_header(header_of("(-2, -3, 100)"), bytes(600)),
        npy(MASK),
        "not an npy file",
    ),
    "shape_of_text": (with_header(header_of("('a', 2, 3)"), bytes(600)), npy(MASK), "not an npy file"),
    "header_is_code": (with_header("__import__('os').abort()"), npy(MASK), "not an npy file"),
    "header_length_lies": (WHOLE[:8] + b"\xff\xff" + WHOLE[10:], npy(MASK), "not an npy file"),
    "header_length_huge": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + WHOLE[10:], npy(MASK), "not an npy file"),
}


def write_corpus(folder):
    for synapse_id, (em, mask, _) in CORPUS.items():
        for kind, name, content in (("em", synapse_id, em), ("mask", f"{synapse_id}_mask", mask)):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{name}.npy").write_bytes(content)


def test_hostile_inputs(tmp_path, paths):
    write_corpus(tmp_path)
    em, mask = tmp_path / "em", tmp_path / "mask"
    expected = {synapse_id: problem for synapse_id, (_, _, problem) in CORPUS.items()}
    for name in ("is_a_folder", "dangling_link", "looping_link", "claimed_twice"):
        (mask / f"{name}_mask.npy").write_bytes(npy(MASK))
    (em / "is_a_folder.npy").mkdir()
    (em / "dangling_link.npy").symlink_to(em / "nowhere")
    (em / "looping_link.npy").symlink_to(em / "looping_link.npy")
    (em / "claimed_twice.npy").write_bytes(WHOLE)
    (em / "below").mkdir()
    (em / "below" / "claimed_twice.npy").write_bytes(WHOLE)
    not_text = os.fsdecode(b"not_text_\xff.npy")
    (em / not_text).write_bytes(WHOLE)
    (mask / not_text.replace(".npy", "_mask.npy")).write_bytes(WHOLE)
    expected |= {
        r"not_text_\udcff": "synapse id is not plain text",
        "is_a_folder": "file cannot be read",
        "dangling_link": "file is missing",
        "looping_link": "file cannot be read",
        "claimed_twice": "claimed by several files",
    }
    assert sum(problem is not None for problem in expected.values()) >= 25

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    p = Preprocess(**paths)
    result = run(p)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB

    good = sorted(synapse_id for synapse_id, problem in expected.items() if problem is None)
    assert result.meta["synapse_id"].tolist() == good
    assert {one.synapse_id: one.kind for one in result.problems if one.severity == "error"} == {
        synapse_id: problem for synapse_id, problem in expected.items() if problem
    }
    for synapse_id, name in zip(result.meta["synapse_id"], result.meta["filename"], strict=True):
        assert name.startswith(synapse_id)
        assert np.array_equal(np.load(tmp_path / "processed" / name)[0], EM[:, :, 7:12])
    written = pd.read_csv(tmp_path / "processed" / "problems.csv", keep_default_na=False)
    assert set(result.failures) <= set(written["synapse_id"])


def test_a_file_that_is_cut_while_it_is_read(tmp_path, paths, write_pair, monkeypatch):
    for synapse_id in ("1", "22", "333"):
        write_pair(synapse_id)
    fill = npy_file._fill

    def cut_and_fill(file, values):
        if os.path.samestat(os.fstat(file.fileno()), os.stat(tmp_path / "em" / "22.npy")):
            os.truncate(tmp_path / "em" / "22.npy", 300)
        return fill(file, values)

    p = Preprocess(**paths)
    plan = preprocess.plan(pairing.find(p), p, show_progress=False)
    monkeypatch.setattr(npy_file, "_fill", cut_and_fill)
    result = preprocess.run(plan, p, show_progress=False)
    assert result.meta["synapse_id"].tolist() == ["1", "333"]
    assert [(one.synapse_id, one.kind, one.stage) for one in result.problems] == [
        ("22", "file was cut short while it was read", "processing")
    ]


def test_a_file_that_vanishes_after_the_headers_were_checked(paths, write_pair, tmp_path):
    write_pair("1")
    write_pair("22")
    p = Preprocess(**paths)
    plan = preprocess.plan(pairing.find(p), p, show_progress=False)
    (tmp_path / "mask" / "1_mask.npy").unlink()
    result = preprocess.run(plan, p, show_progress=False)
    assert result.meta["synapse_id"].tolist() == ["22"]
    assert [(one.synapse_id, one.kind) for one in result.problems] == [("1", "file is missing")]


@pytest.fixture
def nobody(write_pair, paths, monkeypatch):
    """Run as a user without privileges, who may not be able to enter the project's folder, in another one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "notebooks").mkdir()
        (folder / "notebooks" / "preprocess.ipynb").touch()
        (folder / "params").mkdir()
        monkeypatch.chdir(folder)  # a project's root, so that no other is looked for
        for synapse_id in ("1", "22"):
            write_pair(synapse_id, folder=folder)
        here = {key: str(folder / Path(value).name) for key, value in paths.items()}
        run(Preprocess(**{**here, "proc_data_path": str(folder / "first")}))  # all modules are imported now
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder, here
        finally:
            if is_root:
                os.seteuid(0)


def as_owner(function):
    """Do something that only the owner of the folder may do."""
    user = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    try:
        function()
    finally:
        os.seteuid(user)


def test_a_file_without_permission(nobody):
    folder, here = nobody
    as_owner(lambda: (folder / "em" / "1.npy").chmod(0))
    result = run(Preprocess(**here))
    assert result.failures == {"1": "file cannot be read: 1.npy: Permission denied"}
    assert result.meta["synapse_id"].tolist() == ["22"]


def test_an_input_folder_without_permission(nobody):
    folder, here = nobody
    as_owner(lambda: (folder / "em" / "below").mkdir(mode=0))
    with pytest.raises(PairingError, match="below: cannot be read: Permission denied"):
        run(Preprocess(**here))


def test_an_output_folder_without_permission(nobody):
    folder, here = nobody
    as_owner(lambda: (folder / "processed").mkdir(mode=0o555))
    with pytest.raises(OutputError, match="cannot be written: Permission denied"):
        run(Preprocess(**here))


def named(calls, *folders):
    """Calls with file names for what was flushed: of a file its later one, of a folder its own."""
    names = {one.st_ino: os.path.basename(path) for _, path, *status in calls for one in status}
    for path in (path for folder in folders for path in (folder, *Path(folder).glob("record.jsonl"))):
        names[os.stat(path).st_ino] = path.name
    return [
        (what, names.get(one.st_ino, "other") if what == "flush" else os.path.basename(one))
        for what, one, *_ in calls
    ]


def test_what_is_flushed_when(write_pair, paths, tmp_path, disk_calls):
    """A tensor, its name, its line in the record, the folder, the record; then the tables; then run.json."""
    write_pair("1")
    run(Preprocess(**paths))
    out = tmp_path / "processed"
    expected = [("flush", "1__2_6_5_5.npy"), ("rename", "1__2_6_5_5.npy"), ("record", "1")]
    expected += [("flush", "processed"), ("flush", "record.jsonl"), ("flush", HIDDEN)]
    for name in ("problems.csv", "sections.csv", "meta.csv", "run.json"):
        expected += [("flush", name), ("rename", name), ("flush", "processed")]
    found = named(disk_calls, out, out / HIDDEN)
    assert found[found.index(expected[0]) :] == expected


@pytest.mark.parametrize(("sync_bytes", "n_times"), [(1, 4), (1 << 20, 1)])
def test_the_record_is_flushed_once_for_many_chunks(
    write_pair, paths, tmp_path, disk_calls, monkeypatch, sync_bytes, n_times
):
    monkeypatch.setattr(record, "_SYNC_BYTES", sync_bytes)
    for synapse_id in ("1", "22", "333"):
        write_pair(synapse_id)
    run(Preprocess(**paths))
    found = named(disk_calls, tmp_path / "processed" / HIDDEN)
    assert found.count(("flush", "record.jsonl")) == n_times


def test_a_table_is_moved_aside_for_certain_before_an_array_is_replaced(
    write_pair, paths, tmp_path, disk_calls
):
    for synapse_id in ("1", "22"):
        write_pair(synapse_id)
    run(Preprocess(**paths))
    disk_calls.clear()
    run(Preprocess(**paths, cutout_threshold=0.5))
    out = tmp_path / "processed"
    found = named(disk_calls, out, out / HIDDEN)
    first = found.index(("rename", "meta.1.csv"))
    assert found[first + 1] == ("flush", "processed")
    assert found.index(("rename", "1__2_6_5_5.npy")) > first


def assert_whole_when_renamed(calls):
    """Every file had all its bytes when it was flushed, before it was given its name."""
    for number, (what, path, *status) in enumerate(calls):
        if what == "rename":
            flushed = [one for kind, one, *_ in calls[:number] if kind == "flush"]
            sizes = [one.st_size for one in flushed if one.st_ino == status[0].st_ino]
            assert sizes[-1:] == [status[0].st_size], path


def test_files_are_whole_on_the_disk_before_they_have_their_names(write_pair, paths, tmp_path, disk_calls):
    for synapse_id in ("1", "22"):
        write_pair(synapse_id)
    p = Preprocess(**paths)
    run(p)
    tables = [str(tmp_path / "processed" / "meta.csv")]
    to = str(tmp_path / "merged" / "meta.csv")
    merge.run(Merge(meta_list=tables, merged_meta_path=to, link_mode="copy"), show_progress=False)
    assert_whole_when_renamed(disk_calls)
    found = named(disk_calls, tmp_path / "merged")
    first = found.index(("rename", "merged.json"))  # of the merge
    last = max(found.index(("rename", f"{name}__2_6_5_5.npy"), first) for name in ("1", "22"))
    assert found[last + 1 : last + 4] == [("flush", "merged"), ("flush", "run.json"), ("rename", "run.json")]


def test_both_folders_of_raw_pairs_are_flushed_before_the_tables(tmp_path, disk_calls):
    extract(tmp_path)
    found = named(disk_calls, tmp_path / "em", tmp_path / "mask", tmp_path / "em" / HIDDEN)
    first = found.index(("rename", "problems.csv"))
    for name in ("em", "mask"):
        arrays = [path.name for path in (tmp_path / name).glob("*.npy")]
        last = max(found.index(("rename", one)) for one in arrays)
        assert ("flush", name) in found[last:first]
    assert ("flush", "record.jsonl") in found[found.index(("record", "22")) : first]
    assert_whole_when_renamed(disk_calls)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES])
def test_file_systems_that_cannot_flush_a_folder_are_passed_over(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "no")

    monkeypatch.setattr(files.os, "fsync", refuse)
    files.sync_folder(tmp_path)
    monkeypatch.setattr(files.os, "open", refuse)
    files.sync_folder(tmp_path)


def test_a_disk_that_fails_while_a_folder_is_flushed_is_an_error(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OutputError, match="cannot be written: Input/output error"):
        files.sync_folder(tmp_path)


@pytest.mark.parametrize("name", ["em/1.npy", "mask/1_mask.npy"])
def test_an_input_that_changes_while_its_tensor_is_written_is_done_again(
    write_pair, paths, tmp_path, monkeypatch, name
):
    write_pair("1")
    save = files.save_array
    with monkeypatch.context() as patched:

        def touch_and_save(path, array):
            os.utime(tmp_path / name, (1, 1))
            save(path, array)

        patched.setattr(files, "save_array", touch_and_save)
        run(Preprocess(**paths))
    assert [run(Preprocess(**paths)).counts["done"] for _ in range(2)] == [1, 0]


N_CHUNKS = 32


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    """Chunks of the standard size, which are links to three; and the bytes of an undisturbed run."""
    folder = tmp_path_factory.mktemp("standard")
    rng = np.random.default_rng(0)
    for kind in ("em", "mask", "source"):
        (folder / kind).mkdir()
    for number in range(3):
        em = rng.integers(1, 256, (256, 256, 256), dtype=np.uint8)
        em[:, :, 120 + number] = 0
        np.save(folder / "source" / f"em{number}.npy", em)
        np.save(folder / "source" / f"mask{number}.npy", rng.integers(0, 4, em.shape, dtype=np.uint8))
    for number in range(N_CHUNKS):
        (folder / "em" / f"{number:02}.npy").symlink_to(folder / "source" / f"em{number % 3}.npy")
        (folder / "mask" / f"{number:02}_mask.npy").symlink_to(folder / "source" / f"mask{number % 3}.npy")
    paths = {"raw_em_data_path": str(folder / "em"), "raw_mask_data_path": str(folder / "mask")}
    p = Preprocess(**paths, proc_data_path=str(folder / "undisturbed"))
    run(p)
    tensors = [
        (folder / "undisturbed" / f"{number:02}__2_256_256_52.npy").read_bytes() for number in range(3)
    ]
    tables = {
        name: (folder / "undisturbed" / name).read_bytes()
        for name in ("meta.csv", "sections.csv", "problems.csv")
    }
    for path in (folder / "undisturbed").glob("*.npy"):
        path.unlink()
    return folder, paths, tensors, tables


def n_right(folder, tensors):
    """Number of tensors with a final name, all of which must be whole and right."""
    found = list(folder.glob("*.npy"))
    for path in found:
        assert path.read_bytes() == tensors[int(path.name[:2]) % 3], path.name
    return len(found)


def wait_for_work(process, folder, n_tensors):
    """Wait until there are so many tensors and another one is being written."""
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if len(list(folder.glob("*.npy"))) >= n_tensors and any(folder.glob(".*.tmp")):
            break
        time.sleep(0.002)


def test_kills_at_random_moments(standard):
    folder, paths, tensors, tables = standard
    out = folder / "killed"
    paths = {**paths, "proc_data_path": str(out)}
    moments, n_before = random.Random(7), 0
    for kill in range(5):
        process = start(paths)
        wait_for_work(process, out, n_before + moments.choice([0, 1, 1, 2]))
        time.sleep(moments.uniform(0, 0.06))
        assert process.poll() is None, f"kill {kill} came too late: {process.communicate()[1]}"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        n_now = n_right(out, tensors)
        assert n_now >= n_before
        assert not (out / "meta.csv").exists()
        n_before = n_now
    assert 2 <= n_before < N_CHUNKS  # it was always in the middle of its work
    recorded = record.read_done(out).values()  # workers may have been killed between a tensor and its line
    n_recorded = sum(files.state(out / entry.row["filename"]) == entry.output for entry in recorded)
    finish(start(paths))
    assert n_right(out, tensors) == N_CHUNKS
    assert {name: (out / name).read_bytes() for name in tables} == tables
    counts = json.loads((out / "run.json").read_text())["counts"]
    assert counts["done"] + counts["skipped"] == N_CHUNKS
    assert counts["skipped"] == n_recorded
    others = sorted(path.name for path in out.iterdir() if path.suffix != ".npy")
    assert others == [HIDDEN, "meta.csv", "problems.csv", "run.json", "sections.csv"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forks")
def test_kills_before_every_call_that_changes_a_folder(tmp_path):
    """Nothing is torn, no table tells of other arrays, and the next run makes all as if none was killed."""
    script = Path(__file__).with_name("kill_at_every_call.py")
    said = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    found = {name: (n_calls, faults) for name, n_calls, faults in map(json.loads, said.stdout.splitlines())}
    assert {name: faults for name, (_, faults) in found.items() if faults} == {}, said.stderr
    assert len(found) == 10 and min(n_calls for n_calls, _ in found.values()) >= 8


def test_a_full_disk(write_pair, paths, tmp_path):
    """A limit on the size of files stands for the disk: a tensor does not fit, small files do."""
    write_pair("1")
    write_pair("2", np.full((40, 40, 20), 9, np.uint8))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
    command = [sys.executable, "-c", limit + RUN, json.dumps({**paths, "n_workers": 1})]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("synprep._core.errors.OutputError: ")
    assert last.endswith("2__2_40_40_5.npy: cannot be written: File too large")
    out = tmp_path / "processed"
    assert sorted(path.name for path in out.iterdir()) == [HIDDEN, "1__2_6_5_5.npy"]
    assert run(Preprocess(**paths)).counts == {
        "paired": 2,
        "done": 1,
        "skipped": 1,
        "failed": 0,
        "warned": 0,
    }
    assert np.load(out / "2__2_40_40_5.npy").shape == (2, 40, 40, 5)


def test_a_record_that_does_not_fit(write_pair, paths, tmp_path, monkeypatch):
    """A line of the record that was cut by a full disk does not spoil the next one."""
    for synapse_id in ("1", "22"):
        write_pair(synapse_id)
    line = record._line
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def cut(folder, entry):
            (Path(folder) / HIDDEN / "record.jsonl").write_bytes(line(entry)[:50])
            raise KeyboardInterrupt

        patched.setattr(record, "append_done", cut)
        run(Preprocess(**paths))
    assert run(Preprocess(**paths)).counts["done"] == 2
    assert run(Preprocess(**paths)).counts["done"] == 0


def test_the_second_of_two_runs_stops_and_the_first_goes_on(standard):
    folder, paths, tensors, tables = standard
    out = folder / "twice"
    paths = {**paths, "proc_data_path": str(out)}
    first = start(paths, folder / "go")
    while first.poll() is None and not (out / HIDDEN / "owner.json").exists():
        time.sleep(0.01)
    second = start(paths)
    last = finish(second, 1).strip().splitlines()[-1]
    assert last.startswith(
        f"synprep._core.errors.LockedError: another run is writing to {out}: process {first.pid} on "
    )
    (folder / "go").touch()
    finish(first)
    assert n_right(out, tensors) == N_CHUNKS
    assert {name: (out / name).read_bytes() for name in tables} == tables
