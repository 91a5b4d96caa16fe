"""Kills runs before every call that changes a folder, resumes them, and compares with undisturbed ones.

A process of its own, which imports everything once: each run is a fork. Prints a line of JSON for each kind
of run: its name, the number of calls, and what was wrong after which of them.
"""

import gc
import itertools
import json
import os
import shutil
import sys
import traceback
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synprep import merge, pairing, preprocess
from synprep._core import chunk, cut, kernels, npy, provenance, record, tables  # noqa: F401 (kernels: compiled before the forks)
from synprep.params import Extract, Merge, Preprocess

KILLED, SHAPE = 77, (6, 5, 20)
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.utime", "os.truncate")


def in_child(act: Callable[[], object], folder: Path, kill_at: int = 0) -> int:
    """Exit code of a fork that does something, and is killed before the call with this number."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    numbers = itertools.count(1)

    def count(event, arguments):
        is_change = event in CHANGES or (event == "open" and is_writing(*arguments))
        if is_change and str(arguments[0]).startswith(str(folder)) and next(numbers) == kill_at:
            if event == "open" and str(arguments[0]).endswith(".jsonl"):  # half of a line
                with open(arguments[0], "ab") as file:
                    file.write(b'{"check":"01')
            os._exit(KILLED)

    sys.addaudithook(count)
    os.fsync = lambda descriptor: None  # slow; a kill before it leaves what one before the next call leaves
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def is_writing(_, mode: str | None, flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if mode is None else bool({*mode} & {*"wax+"})


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def contents(folder: Path) -> dict[str, object]:
    """All that is in a folder, without times."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith("run.json"):
            found[name] = provenance.lasting(json.loads(found[name]))
        if name.endswith("record.jsonl"):
            done = record.read_done((folder / name).parents[1])
            found[name] = {entry.synapse_id: (entry.key, entry.row) for entry in done.values()}
    return found


def arrays_of(found: dict[str, object]) -> dict[str, object]:
    return {name: content for name, content in found.items() if name.endswith(".npy")}


def table_of(found: dict[str, object]) -> object:
    return found.get("meta.csv")


@dataclass
class Sweep:
    """One kind of run, in an output folder that is as it was before whenever it starts."""

    out: Path
    act: Callable[[], object]
    before: Path
    old: dict[str, object]
    new: dict[str, object]

    @classmethod
    def of(cls, folder: Path, first: Callable[[Path], object] | None, act: Callable[[Path], object]):
        out, before = folder / "out", folder / "before"
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)
        out.mkdir()
        if first:
            assert in_child(lambda: first(out), out) == 0
        shutil.copytree(out, before)
        sweep = cls(out, lambda: act(out), before, contents(out), {})
        assert in_child(sweep.act, out) == 0
        sweep.new = contents(out)
        return sweep

    def restore(self) -> None:
        shutil.rmtree(self.out)
        shutil.copytree(self.before, self.out)

    def kill(self, number: int) -> int:
        self.restore()
        return in_child(self.act, self.out, number)

    def fault_after_kill(self) -> str:
        """What is torn, or told wrongly by a table."""
        found = contents(self.out)
        torn = [n for n, array in arrays_of(found).items() if array not in (self.old.get(n), self.new.get(n))]
        if torn:
            return f"torn: {torn}"
        for whole in (self.old, self.new):
            if (
                table_of(found)
                and table_of(found) == table_of(whole)
                and table_of(self.old) != table_of(self.new)
            ):
                wrong = [name for name in arrays_of(whole) if found.get(name) != whole[name]]
                if wrong:
                    return f"the table is not that of {wrong}"
        if table_of(found) not in (None, table_of(self.old), table_of(self.new)):
            return "another table"
        return ""

    def fault_after_resuming(self) -> str:
        """What differs from an undisturbed run, or is written by one more run."""

        def twice():
            self.act()
            resumed = states(self.out)
            self.act()
            assert states(self.out) == resumed, "one more run has written"

        if in_child(twice, self.out):
            return "the resumed run failed"
        found = contents(self.out)
        different = [name for name in found.keys() | self.new.keys() if found.get(name) != self.new.get(name)]
        return f"after resuming: {sorted(different)}" if different else ""

    def faults(self) -> tuple[int, list[str]]:
        """Number of calls, and what was wrong after a kill before one."""
        faults = []
        for number in itertools.count(1):
            code = self.kill(number)
            if code != KILLED:
                return number - 1, faults if code == 0 else [*faults, f"{number}: ended with {code}"]
            for fault in (self.fault_after_kill(), self.fault_after_resuming()):
                faults += [f"{number}: {fault}"] if fault else []


def write_inputs(folder: Path) -> dict[str, str]:
    for number, synapse_id in enumerate(("1", "22", "bad")):
        rng = np.random.default_rng(number)
        em_xyz = rng.integers(1, 256, SHAPE, dtype=np.uint8)
        em_xyz[:2, :, 8] = 0
        for kind, name, array in (
            ("em", synapse_id, em_xyz.astype(np.float32) if synapse_id == "bad" else em_xyz),
            ("mask", f"{synapse_id}_mask", rng.integers(0, 4, SHAPE, dtype=np.uint8)),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            np.save(folder / kind / f"{name}.npy", array)
    return {"raw_em_data_path": str(folder / "em"), "raw_mask_data_path": str(folder / "mask")}


def run(paths: dict[str, str], out: Path, **changed) -> None:
    p = Preprocess(**paths, proc_data_path=str(out), n_workers=1, **changed)
    preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)


def join(sets: list[Path], out: Path, link_mode: str) -> None:
    tables = [str(folder / "meta.csv") for folder in sets]
    merge.run(Merge(meta_list=tables, merged_meta_path=str(out / "meta.csv"), link_mode=link_mode), False)


class Drawn(chunk.RawPair):
    """A raw pair that is not of files."""

    @property
    def state(self):
        return [[0.0, 0.0, 0.0], [1, 2], "hash"]

    def close(self, *_):
        """Do nothing: there are no files."""

    __exit__ = close

    def sources_row(self):
        values = (self.synapse_id, 0.0, 0.0, 0.0, 0, 0, 0, "1", "2", "3", 1.5, 0, 0.0)
        return dict(zip(tables.SOURCES_COLUMNS, values, strict=True))


@dataclass(frozen=True)
class DrawnPair(cut.VolumePair):
    """One whose chunk needs no volumes."""

    def open(self):
        header = npy.Header(SHAPE, True, np.dtype(np.uint8), 0)
        values = np.full(SHAPE, len(self.synapse_id), np.uint8, order="F")
        part = cut.CutArray("drawn", header, lambda *_: values)
        return Drawn(self.synapse_id, part, part)

    def state(self):
        return self.open().state


def extract(out: Path) -> None:
    volumes = namedtuple("Volumes", "chunk_shape")(SHAPE)
    pairs = tuple(DrawnPair(name, (0.0, 0.0, 0.0), 1, 2, volumes) for name in ("1", "22"))
    found = chunk.Pairing(pairs=pairs, em_only={}, mask_only={}, claimed_twice={}, passed_over=())
    paths = {f"raw_{kind}_data_path": str(out / kind) for kind in ("em", "mask")}
    preprocess.extract(found, Extract(**paths, n_workers=1), False)


def sweeps(folder: Path) -> dict[str, tuple[Callable[[Path], object] | None, Callable[[Path], object]]]:
    """What was done before, if anything, and what is killed, by name."""
    paths, sets = write_inputs(folder / "raw"), {name: folder / name for name in ("a", "changed_a", "b")}
    (folder / "some.csv").write_text("synapse_id\n22\n")
    run(paths, sets["a"], max_chunks=1, cutout_threshold=0.5)
    run(paths, sets["changed_a"], max_chunks=1)
    run(paths, sets["b"], synapse_ids_path=str(folder / "some.csv"))
    one, two = [sets["a"], sets["b"]], [sets["changed_a"], sets["b"]]
    return {
        "preprocess": (None, lambda out: run(paths, out)),
        "preprocess one more": (lambda out: run(paths, out, max_chunks=1), lambda out: run(paths, out)),
        "preprocess with another threshold": (
            lambda out: run(paths, out, cutout_threshold=0.5),
            lambda out: run(paths, out),
        ),
        "preprocess with the same table": (
            lambda out: run(paths, out, cutout_threshold=1),
            lambda out: run(paths, out, cutout_threshold=1, cutout_pixel_value=7),
        ),
        "preprocess with another voxel size": (
            lambda out: run(paths, out),
            lambda out: run(paths, out, voxel_size_xy_nm=4),
        ),
        "merge by reference": (None, lambda out: join(one, out, "reference")),
        "merge copies": (None, lambda out: join(one, out, "copy")),
        "merge hard links": (None, lambda out: join(one, out, "hardlink")),
        "merge changed arrays": (
            lambda out: join(one, out, "copy"),
            lambda out: join(two, out, "copy"),
        ),
        "extract": (None, extract),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    runs = sweeps(folder)
    gc.collect()
    gc.freeze()  # so that forks share their memory
    for name, (first, act) in runs.items():
        if sys.argv[2:] not in ([], [name]):
            continue
        n_calls, faults = Sweep.of(folder, first, act).faults()
        print(json.dumps([name, n_calls, faults]), flush=True)


if __name__ == "__main__":
    main()
