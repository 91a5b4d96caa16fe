"""Compare preprocessing from volumes with plain reads of the same boxes, and with extract + preprocess.

Run it from the project's root, `python benchmarks/volumes.py`; it makes its own volumes in a temporary folder
(`--folder` to choose the disk), needs about 3 GB there, and prints the tables of docs/volumes.md.
"""

import argparse
import gc
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import tensorstore as ts
from benchmark import KEPT, SIDE, fresh, print_table, standard_chunk

from synprep import pairing, preprocess, volumes
from synprep._core import execution, files, layers, npy, stores
from synprep.params import Extract, Preprocess

SHAPE = (3 * SIDE, 3 * SIDE, SIDE + 64)  # voxels of the volumes, of 8 x 8 x 40 nm
BLOCKS = {"em": (64, 64, 32), "segmentation": (64, 64, 32), "cleft": (64, 64, 32)}
DTYPES = {"em": "uint8", "segmentation": "uint64", "cleft": "uint32"}
FIRST_ID = 864_691_135_000_000_000
JITTER = (40, 40, 10)  # voxels between a table's centre and that of its chunk, at most
TENSOR = bytes(128 + 2 * SIDE * SIDE * (KEPT.stop - KEPT.start))
READS, BYTES = (f"/tensorstore/kvstore/file/{name}" for name in ("read", "bytes_read"))


# Volumes and tables


def create(folder: Path, kind: str, encoding: str) -> ts.TensorStore:
    """Make an empty volume; blocks that hold nothing are written too."""
    is_em = kind == "em"
    scale = {"resolution": [8, 8, 40], "size": SHAPE, "chunk_size": BLOCKS[kind], "voxel_offset": [0, 0, 0]}
    scale["encoding"] = "raw" if is_em else encoding
    if scale["encoding"] == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder / kind}/"},
        "multiscale_metadata": {"type": "image", "data_type": DTYPES[kind], "num_channels": 1},
        "scale_metadata": scale,
        "store_data_equal_to_fill_value": True,
    }
    return ts.open(spec, create=True).result()[..., 0]


def ids_of(number: int) -> tuple[int, int]:
    """Ids of the neurons of the chunk at a place."""
    return FIRST_ID + 2 * number + 1, FIRST_ID + 2 * number + 2


def neighbours(number: int) -> np.ndarray:
    """Ids of the neurites around a synapse, (x, y, z) uint64: boxes of about half a micrometre."""
    x, y, z = (np.arange(SIDE, dtype=np.uint64) // n for n in (60, 45, 50))
    return np.uint64(FIRST_ID + 1000 * (number + 1)) + np.add.outer(np.add.outer(64 * x, 8 * y), z)


def make_volumes(folder: Path, encoding: str) -> dict[str, str]:
    """Write nine chunks side by side, and nine cut ones below; return what the parameter says of them."""
    stored = {kind: create(folder, kind, encoding) for kind in DTYPES}
    for number, (k, j, i) in enumerate(itertools.product(range(2), range(3), range(3))):
        em_xyz, mask_xyz = standard_chunk(number % 4)
        pre, post = ids_of(number)
        neurons_xyz = np.where(mask_xyz == 1, np.uint64(pre), neighbours(number))
        neurons_xyz[mask_xyz == 3] = post
        clefts_xyz = (mask_xyz == 2) * np.uint32(number + 1)
        box = tuple(
            slice(n * SIDE, min(n * SIDE + SIDE, stop)) for n, stop in zip((i, j, k), SHAPE, strict=True)
        )
        depth = box[2].stop - box[2].start
        for kind, array_xyz in (("em", em_xyz), ("segmentation", neurons_xyz), ("cleft", clefts_xyz)):
            stored[kind][box].write(array_xyz[:, :, :depth]).result()
    return {kind: f"precomputed://{folder / kind}" for kind in DTYPES}


def make_table(path: Path, n_rows: int, n_places: int, shape: tuple[int, int, int]) -> None:
    """Write a table of synapses around the nine centres; from row `n_places` on, places come again."""
    rng, rows = np.random.default_rng(0), []
    for place in range(n_places):
        number = place % 9
        centre = np.array([SIDE * (number % 3), SIDE * (number // 3), 0]) + SIDE // 2
        centre = centre + rng.integers(-np.array(JITTER), JITTER, endpoint=True)
        low = np.array(shape) // 2
        rows.append((*ids_of(number), *np.clip(centre, low, np.array(SHAPE) - low)))
    lines = [",".join(map(str, (f"{row:06}", *rows[row % n_places]))) for row in range(n_rows)]
    path.write_text("\n".join(["id,pre,post,x,y,z", *lines]) + "\n")


def parameter(table: Path, stored: dict[str, str], **others) -> dict:
    """Value of the parameter `volumes`."""
    columns = {"pre_id_column": "pre", "post_id_column": "post", "centre_columns": ["x", "y", "z"]}
    return {"synapse_table": str(table), "centre_unit_nm": [8, 8, 40], **columns, **stored, **others}


# Contestants


def forget() -> None:
    """Close the volumes and drop the blocks that are in memory."""
    layers.open_layers.cache_clear()
    stores._context.cache_clear()
    gc.collect()


def run(p: Preprocess) -> None:
    """Preprocess as the notebook does."""
    found = preprocess.plan(pairing.find(p), p, show_progress=False)
    result = preprocess.run(found, p, show_progress=False)
    assert not result.failures, result.failures


def extract_and_run(extracting: Extract, p: Preprocess) -> None:
    """Write raw pairs, and preprocess these."""
    preprocess.extract(pairing.find(extracting), extracting, show_progress=False)
    run(p)


def floor(p: Preprocess, reuse: bool, out: Path | None = None) -> None:
    """Read the boxes that a run must read, in its order, threads and cache.

    Into new memory, as tensorstore does by itself, or into memory that is used again. With `out`, write
    as many bytes as a run does, as durably.
    """
    chosen = volumes.settings(p.volumes, p)
    context = ts.Context({"cache_pool": {"total_bytes_limit": chosen.cache_mb << 20}})
    specs = [
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": p.volumes[kind].partition("://")[2] + "/"},
            "recheck_cached_data": False,
        }
        for kind in DTYPES
    ]
    opened = [ts.open(spec, read=True, context=context).result()[..., 0] for spec in specs]
    one = partial(floor_one, opened=opened, reuse=reuse, out=out)
    with ThreadPoolExecutor(execution.n_cores()) as executor:
        list(executor.map(one, volumes.in_order(pairing.find(p).pairs)))


def floor_one(pair, opened: list, reuse: bool, out: Path | None) -> None:
    """Read the kept sections of EM, segmentation and clefts around one synapse."""
    x, y, z = (round(c / size) - SIDE // 2 for c, size in zip(pair.centre_nm, (8, 8, 40), strict=True))
    for volume in opened:
        box = volume[x : x + SIDE, y : y + SIDE, z + KEPT.start : z + KEPT.stop]
        if reuse:
            dtype = box.dtype.numpy_dtype
            values = npy.reused("floor")(box.size * dtype.itemsize).view(dtype).reshape(box.shape, order="F")
            ts.array(values, copy=False).write(box).result()
        else:
            box.read().result()
    if out:
        files.save_bytes(out / f"{pair.synapse_id}.npy", TENSOR)


# Measurements


def compare(contestants: dict[str, Callable], n_rounds: int, before: Callable) -> dict[str, list[tuple]]:
    """Run the contestants in turn, several rounds; return seconds and CPU seconds of each.

    Each round begins with another one, so that none always follows the same one.
    """
    spent, names = {name: [] for name in contestants}, list(contestants)
    for number in range(n_rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            before()
            os.sync()  # nobody pays for what another one has left unwritten
            start, cpu_start = time.perf_counter(), time.process_time()
            contestants[name]()
            if number:  # the first round warms up
                spent[name].append((time.perf_counter() - start, time.process_time() - cpu_start))
    return spent


def rows_of(spent: dict[str, list[tuple]], n_synapses: int) -> list[list]:
    """Rows of the table of comparisons: medians, and ratios within a round to preprocess from volumes."""
    rows, ours = [], spent["preprocess from volumes"]
    for name, theirs in spent.items():
        seconds, cpu = (statistics.median(column) * 1000 / n_synapses for column in zip(*theirs, strict=True))
        ratios = [
            statistics.median(a[column] / b[column] for a, b in zip(ours, theirs, strict=True))
            for column in (0, 1)
        ]
        rows.append([name, seconds, ratios[0], cpu, ratios[1]])
    return rows


def compare_all(folder: Path, stored: dict[str, str], n_synapses: int, n_rounds: int) -> list[list]:
    """Compare preprocess from volumes with plain reads, and with extract + preprocess."""
    make_table(folder / "synapses.csv", n_synapses, n_synapses, (SIDE,) * 3)
    chosen, out = parameter(folder / "synapses.csv", stored), folder / "out"
    paths = {f"raw_{kind}_data_path": str(folder / "out" / kind) for kind in ("em", "mask")}
    p = Preprocess(volumes=chosen, proc_data_path=str(out / "processed"))
    of_files = Preprocess(**paths, proc_data_path=str(out / "processed"))
    contestants = {
        "preprocess from volumes": partial(run, p),
        "plain reads": partial(floor, p, False),
        "plain reads into reused memory": partial(floor, p, True),
        "the same, and tensors written": partial(floor, p, True, out),
        "extract, then preprocess": partial(extract_and_run, Extract(volumes=chosen, **paths), of_files),
    }

    def before() -> None:
        fresh(out)
        forget()

    rows = rows_of(compare(contestants, n_rounds, before), n_synapses)
    shutil.rmtree(out)
    return rows


def metric(name: str) -> int:
    """Count of tensorstore: files that were read, or their bytes, since the process began."""
    return ts.experimental_collect_matching_metrics(name)[0]["values"][0]["value"]


def fetched(p: Preprocess) -> tuple[int, int]:
    """Blocks and bytes that a run fetches."""
    forget()
    shutil.rmtree(p.proc_data_path, ignore_errors=True)
    before = metric(READS), metric(BYTES)
    run(p)
    return metric(READS) - before[0], metric(BYTES) - before[1]


def compare_fetched(folder: Path, stored: dict[str, str], cache_mbs: list[int]) -> list[list]:
    """Blocks that are fetched with caches of some sizes, against one that holds all: each block once."""
    rows = []
    for cache_mb in (1 << 14, *cache_mbs):
        chosen = parameter(folder / "synapses.csv", stored, cache_mb=cache_mb)
        rows.append([cache_mb, *fetched(Preprocess(volumes=chosen, proc_data_path=str(folder / "out")))])
    _, *distinct = rows[0]
    return [
        [cache_mb, n, n / distinct[0], n_bytes >> 20, n_bytes / distinct[1]] for cache_mb, n, n_bytes in rows
    ]


CHILD = """
import json, sys, time
from synprep import pairing, params, preprocess
p = params.Preprocess(**json.loads(sys.argv[1]))
start = time.perf_counter()
result = preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)
seconds = time.perf_counter() - start
assert not result.failures, result.failures
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([seconds, int(status["VmHWM"].split()[0]) / 1024]))  # ru_maxrss is at least the parent's
"""


def scaling(folder: Path, stored: dict[str, str], n_synapses_list: list[int]) -> list[list]:
    """Time per synapse and peak memory in a process of its own, for growing numbers of synapses."""
    rows, shape = [], (64, 64, 64)
    for n_synapses in n_synapses_list:
        table = folder / f"synapses{n_synapses}.csv"
        make_table(table, n_synapses, min(n_synapses_list), shape)
        p = {"volumes": parameter(table, stored, chunk_shape=shape), "proc_data_path": str(folder / "out")}
        fresh(folder / "out")
        command = [sys.executable, "-c", CHILD, json.dumps(p)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        seconds, peak = json.loads(answer)
        rows.append([n_synapses, seconds / n_synapses * 1000, peak])
    return [[*row, row[2] / rows[0][2]] for row in rows]


def main() -> None:
    """Run all comparisons and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=None, help="where to make the data")
    parser.add_argument("--encoding", default="compressed_segmentation", help="or raw: of ids and clefts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--synapses", type=int, default=48)
    parser.add_argument("--cache", type=int, nargs="+", default=[512, 128])
    parser.add_argument("--scale", type=int, nargs="+", default=[200, 2000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        stored = make_volumes(folder, arguments.encoding)
        n_cores = execution.n_cores()
        print(f"{n_cores} cores, {arguments.synapses} synapses, {arguments.rounds} rounds; medians:\n")
        rows = compare_all(folder, stored, arguments.synapses, arguments.rounds)
        head = ["", "ms per synapse", "volumes / this", "CPU ms per synapse", "CPU, volumes / this"]
        print_table(head, rows)
        head = ["cache, MB", "files fetched", "of each, times", "MiB fetched", "of each byte, times"]
        print_table(head, compare_fetched(folder, stored, arguments.cache))
        head = ["synapses", "ms per synapse", "peak MiB", "peak / first"]
        print_table(head, scaling(folder, stored, arguments.scale))


if __name__ == "__main__":
    main()
