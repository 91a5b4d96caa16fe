"""Compare synprep with the seed's algorithm and with the floor of plain reading and writing, in one run.

Run it from the project's root, `python benchmarks/benchmark.py`; it makes its own data in a temporary folder
(`--folder` to choose the disk), needs about 3 GB there, and prints the tables of docs/speed.md.
"""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from synprep import pairing, preprocess, survey
from synprep._core import execution, files, npy
from synprep._core.synthetic import make_chunk
from synprep.params import CutoutHistogram, Preprocess

SIDE, KEPT = 256, slice(102, 154)


@lru_cache
def standard_chunk(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a chunk of the standard size, with a black section."""
    return make_chunk(number, (SIDE, SIDE, SIDE), black_sections=(110 + number,))


def make_data(folder: Path, n_chunks: int, order: str) -> dict[str, str]:
    """Write four chunks, and links to them for all others; return the folder parameters."""
    for kind in ("em", "mask"):
        (folder / kind).mkdir(parents=True)
    for number in range(4):
        em_xyz, mask_xyz = standard_chunk(number)
        np.save(folder / f"em{number}.npy", np.asarray(em_xyz, order=order))
        np.save(folder / f"mask{number}.npy", np.asarray(mask_xyz, order=order))
    add_links(folder, 0, n_chunks)
    return {"raw_em_data_path": str(folder / "em"), "raw_mask_data_path": str(folder / "mask")}


def make_copies(folder: Path, n_chunks: int, order: str) -> dict[str, str]:
    """Write chunks that share no bytes on the disk, for reading without the cache."""
    paths = make_data(folder, 0, order)
    for number in range(n_chunks):
        shutil.copy(folder / f"em{number % 4}.npy", folder / "em" / f"{number:05}.npy")
        shutil.copy(folder / f"mask{number % 4}.npy", folder / "mask" / f"{number:05}_mask.npy")
    return paths


def add_links(folder: Path, start: int, stop: int) -> None:
    """Let chunks `start` to `stop` stand for the four that are there; no more than four are on the disk."""
    for number in range(start, stop):
        os.link(folder / f"em{number % 4}.npy", folder / "em" / f"{number:05}.npy")
        os.link(folder / f"mask{number % 4}.npy", folder / "mask" / f"{number:05}_mask.npy")


def seed_preprocess(pairs, out: Path) -> None:
    """Do what the seed's loop does, array operation by array operation."""
    for pair in pairs:
        em, mask = np.load(pair.em_path)[:, :, KEPT], np.load(pair.mask_path)[:, :, KEPT]
        fraction = np.sum(em == 0, axis=(0, 1)) / (em.shape[0] * em.shape[1])
        em[:, :, fraction > 0.01] = 0
        tensor = np.zeros((2, *em.shape), dtype=em.dtype)
        tensor[0, ...] = em
        tensor[1, ...] = mask
        for label in (1, 3, 2):
            5 * np.sum(mask == label)
        np.save(out / f"{pair.synapse_id}.npy", tensor)


def seed_survey(pairs) -> None:
    """Do what the seed's three loops do over the same images."""
    for pair in pairs:
        em = np.load(pair.em_path)
        np.histogram(np.sum(em == 0, axis=(0, 1)) / SIDE**2, bins=100)
    intensities = Counter()
    for pair in pairs:
        em = np.load(pair.em_path)
        kept = np.sum(em == 0, axis=(0, 1)) / SIDE**2 <= 0.01
        intensities.update(em[:, :, kept].flatten())
    for pair in pairs:
        em = np.load(pair.em_path)
        kept = np.sum(em == 0, axis=(0, 1)) / SIDE**2 <= 0.01
        mean_z = np.mean(em[:, :, kept], axis=(0, 1))
        mean_z[:-1] / (1e-8 + mean_z[1:])


def floor_one(pair, out: Path | None, is_fortran: bool, contents: bytes) -> None:
    """Read the bytes that must be read, and write the bytes that must be written, as durably."""
    for path in (pair.em_path, pair.mask_path) if out else (pair.em_path,):
        n_bytes = (KEPT.stop - KEPT.start if is_fortran else SIDE) * SIDE * SIDE
        with open(path, "rb", buffering=0) as file:
            file.seek(128 + (KEPT.start * SIDE * SIDE if is_fortran else 0))
            npy._fill(file, npy.reused("input")(n_bytes))
    if out:
        files.save_bytes(out / f"{pair.synapse_id}.npy", contents)


def floor(pairs, out: Path | None, is_fortran: bool) -> None:
    """Read and write in as many threads as synprep uses."""
    contents = bytes(128 + 2 * SIDE * SIDE * (KEPT.stop - KEPT.start))
    with ThreadPoolExecutor(execution.n_cores()) as executor:
        list(executor.map(partial(floor_one, out=out, is_fortran=is_fortran, contents=contents), pairs))


def ours_preprocess(p: Preprocess) -> None:
    """Run synprep as the notebook does."""
    preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)


def ours_survey(pairs, p: CutoutHistogram) -> None:
    """Survey once; all three notebooks compute from this pass."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        survey.run(pairs, p)


def drop_cache(folder: Path) -> None:
    """Let the operating system forget the inputs."""
    os.sync()
    for path in [*folder.glob("em/*.npy"), *folder.glob("mask/*.npy")]:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(contestants: dict, n_rounds: int, n_chunks: int, before) -> dict[str, list[float]]:
    """Run the contestants in turn, several rounds; return the times of each per chunk, in ms.

    Each round begins with another one, so that none always follows the same one.
    """
    times, names = {name: [] for name in contestants}, list(contestants)
    for number in range(n_rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            before()
            os.sync()  # nobody pays for what another one has left unwritten
            gc.collect()
            start = time.perf_counter()
            contestants[name]()
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - start) * 1000 / n_chunks)
    return times


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """Median over the rounds of the ratio within a round: what the machine does meanwhile hits both."""
    if one not in times:
        return float("nan")
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def row_of(title: str, times: dict[str, list[float]]) -> list:
    """Row of the table of comparisons: median times, and ratios."""
    medians = [statistics.median(times.get(name, [float("nan")])) for name in ("seed", "synprep", "floor")]
    return [title, *medians, ratio(times, "seed", "synprep"), ratio(times, "synprep", "floor")]


def fresh(folder: Path) -> Path:
    """Make an empty output folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def compare_preprocess(
    folder: Path, order: str, is_cold: bool, n_chunks: int, n_rounds: int
) -> dict[str, list[float]]:
    """Compare preprocessing with the seed's loop and the floor."""
    paths = (make_copies if is_cold else make_data)(folder, n_chunks, order)
    out = folder / "out"
    p = Preprocess(**paths, proc_data_path=str(out))
    pairs = pairing.find(p).pairs
    contestants = {
        "seed": lambda: seed_preprocess(pairs, out),
        "synprep": lambda: ours_preprocess(p),
        "floor": lambda: floor(pairs, out, order == "F"),
    }
    if is_cold:
        del contestants["seed"]

    def before() -> None:
        fresh(out)
        if is_cold:
            drop_cache(folder)

    return compare(contestants, n_rounds, n_chunks, before)


def compare_survey(folder: Path, n_chunks: int, n_rounds: int) -> dict[str, list[float]]:
    """Compare the survey with the seed's three loops and plain reading."""
    paths = make_data(folder, n_chunks, "C")
    p = CutoutHistogram(**paths)
    pairs = pairing.find(p).pairs
    contestants = {
        "seed": lambda: seed_survey(pairs),
        "synprep": lambda: ours_survey(pairs, p),
        "floor": lambda: floor(pairs, None, False),
    }
    return compare(contestants, n_rounds, n_chunks, lambda: None)


CHILD = """
import json, sys, time
start = time.perf_counter()
import numpy as np
from synprep import pairing, params, preprocess
from synprep._core import kernels
tiny = np.zeros((2, 2, 2), np.uint8)
kernels.copy_and_sum(tiny, 0, tiny.copy())
kernels.copy_and_count(tiny, np.arange(256, dtype=np.uint8), tiny.copy())
p = params.Preprocess(**json.loads(sys.argv[1]))
ready = time.perf_counter()
result = preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)
end = time.perf_counter()
with open("/proc/self/status") as status:  # ru_maxrss would count what the parent had
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
print(json.dumps([ready - start, end - ready, peak, result.counts["done"]]))
"""


def in_child(paths: dict[str, str]) -> list[float]:
    """Start-up and run time (s), peak memory (MiB) and chunks done, of a run in a process of its own."""
    command = [sys.executable, "-c", CHILD, json.dumps(paths)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def scaling(folder: Path, n_chunks_list: list[int]) -> list[list[float]]:
    """Time per chunk, peak memory, and time of a resumed run, for growing numbers of chunks."""
    paths = make_data(folder, 0, "C") | {"proc_data_path": str(folder / "out"), "n_sections": 8}
    rows, n_before = [], 0
    for n_chunks in n_chunks_list:
        add_links(folder, n_before, n_chunks)
        n_before = n_chunks
        fresh(folder / "out")
        start_up, seconds, peak, _ = in_child(paths)
        _, resumed, _, n_done = in_child(paths)
        assert n_done == 0
        rows.append([n_chunks, seconds / n_chunks * 1000, peak, resumed, resumed / seconds, start_up])
    return rows


def pairing_names(folder: Path, n_names_list: list[int]) -> list[list[float]]:
    """Time of pairing growing numbers of names, beside that of walking the same folders; medians of three."""
    roles = {"raw_em_data_path": "em", "raw_mask_data_path": "mask", "proc_data_path": "out"}
    p = Preprocess(**{role: str(folder / name) for role, name in roles.items()})
    rows, n_before = [], 0
    for n_names in n_names_list:
        add_names(folder, n_before, n_names // 2)
        n_before = n_names // 2
        contestants = {
            "find": lambda: pairing.find(p),
            "walk": lambda: [list(os.walk(folder / name)) for name in ("em", "mask")],
        }
        times = compare(contestants, 3, 1, lambda: None)  # ms in all
        seconds = [statistics.median(times[name]) / 1000 for name in ("find", "walk")]
        rows.append([n_names, *seconds, seconds[0] / n_names * 1e6, ratio(times, "find", "walk")])
    return rows


def add_names(folder: Path, start: int, stop: int) -> None:
    """Write empty files for pairs `start` to `stop`, a thousand in a folder."""
    for number in range(start, stop):
        for kind, end in (("em", ".npy"), ("mask", "_mask.npy")):
            path = folder / kind / f"{number // 1000:04}" / f"{number:07}{end}"
            if number % 1000 == 0 or number == start:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def import_time() -> float:
    """Seconds that importing synprep adds to NumPy, pandas and matplotlib; median of five."""
    before = "import time, numpy, pandas, matplotlib.pyplot; start = time.perf_counter()"
    modules = "from synprep import figures, merge, preprocess, survey"
    command = [sys.executable, "-c", f"{before}; {modules}; print(time.perf_counter() - start)"]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(5))


def print_table(head: list[str], rows: list[list]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        cells = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in row]
        cells = ["" if cell == "nan" else cell for cell in cells]
        print("| " + " | ".join(cells) + " |")
    print()


def main() -> None:
    """Run all comparisons and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=None, help="where to make the data")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chunks", type=int, default=48)
    parser.add_argument("--scale", type=int, nargs="+", default=[50, 500, 2000])
    parser.add_argument("--names", type=int, nargs="+", help="pair so many empty files, and nothing else")
    arguments = parser.parse_args()
    if arguments.names:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            head = ["names", "pairing, s", "walking, s", "pairing, µs per name", "pairing / walking"]
            print_table(head, pairing_names(Path(name), sorted(arguments.names)))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for title, order, is_cold in (
            ("preprocess", "C", False),
            ("preprocess, Fortran order", "F", False),
            ("preprocess, cold", "C", True),
            ("preprocess, Fortran order, cold", "F", True),
        ):
            times = compare_preprocess(folder / title, order, is_cold, arguments.chunks, arguments.rounds)
            rows.append(row_of(title, times))
            shutil.rmtree(folder / title)
        rows.append(row_of("survey, three statistics", compare_survey(folder / "survey", 4, 3)))
        print(f"{execution.n_cores()} cores, {arguments.rounds} rounds; medians, ms per chunk:\n")
        print_table(["", "seed", "synprep", "floor", "seed / synprep", "synprep / floor"], rows)
        head = ["chunks", "ms per chunk", "peak MiB", "resumed run, s", "resumed / first", "start-up, s"]
        print_table(head, scaling(folder / "scaling", arguments.scale))
        print(f"importing synprep adds {import_time():.2f} s to NumPy, pandas and matplotlib")


if __name__ == "__main__":
    main()
