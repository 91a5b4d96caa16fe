"""The demonstration data sets: small, synthetic, the same on every machine, made on first use."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synprep import merge, pairing, preprocess
from synprep._core import execution, files, synthetic_volumes
from synprep._core.paths import resolve
from synprep._core.synthetic import make_chunk
from synprep.params import Chunks, Extract, Fingerprint, Inspect, Merge, Preprocess


@dataclass(frozen=True)
class _DemoChunk:
    """One chunk; its seed is the number in its id. Of a section that is partly cut: z, number of pixels."""

    synapse_id: str
    shape_xyz: tuple[int, int, int]
    black_sections: tuple[int, ...] = ()
    cut_sections: tuple[tuple[int, int], ...] = ()

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """EM and mask."""
        return make_chunk(int(self.synapse_id), self.shape_xyz, self.black_sections, self.cut_sections)


@dataclass(frozen=True)
class _DemoSet:
    """A raw data set, in `data/<name>`, and the patterns that its file names fit."""

    chunks: tuple[_DemoChunk, ...]
    em_filename_pattern: str = "{synapse_id}.npy"
    mask_filename_pattern: str = "{synapse_id}_mask.npy"


# With 160 x 160 pixels the usual threshold of 1 % is 256 pixels: one section is just below it, one exactly at
# it, one just above. The last chunk has the standard size, where 1 % is 655.36 pixels.
_DEMO_CHUNKS = (
    _DemoChunk("0001007", (160, 160, 64), black_sections=(30,), cut_sections=((9, 9000),)),
    _DemoChunk("1000348", (160, 160, 64), cut_sections=((28, 255), (34, 257))),
    _DemoChunk("1000379", (160, 160, 64), black_sections=(3, 4, 5), cut_sections=((29, 256),)),
    _DemoChunk("1000412", (160, 160, 64)),
    _DemoChunk("1000550", (160, 160, 64), black_sections=(26, 27), cut_sections=((50, 1200),)),
    _DemoChunk("1000623", (256, 256, 256), (40, 41, 110, 111), ((125, 655), (140, 656), (200, 20000))),
)
_SMALL_CHUNKS = (
    _DemoChunk("0001007", (96, 96, 64), black_sections=(32,)),
    _DemoChunk("1000348", (96, 96, 64), cut_sections=((29, 92), (34, 93))),
    _DemoChunk("1000379", (96, 96, 64), black_sections=(2, 3)),
    _DemoChunk("1000412", (96, 96, 64), cut_sections=((31, 2500),)),
    _DemoChunk("1000550", (96, 96, 64)),
    _DemoChunk("1000623", (96, 96, 64), black_sections=(28, 33)),
)
SETS = {
    "demo": _DemoSet(_DEMO_CHUNKS),
    "ds1": _DemoSet(_SMALL_CHUNKS[:4]),
    "ds2": _DemoSet(_SMALL_CHUNKS[2:], "*_raw_{synapse_id}.npy", "*_masks_{synapse_id}_mask.npy"),
}

_MERGED, _VOLUMES = "data/merged", "data/volumes"

# The parameter `volumes` of the demonstration, as in params/volumes.yaml. The volumes hold the chunks of ds1
# and ds2; the EM of the last one lacks a block.
VOLUMES = Extract().volumes

# Input paths that the notebooks make when they are missing.
PATHS = (
    *(f"data/{name}/{kind}" for name in SETS for kind in ("em", "mask")),
    *(f"data/{name}/processed{file}" for name in (*SETS, "volumes") for file in ("", "/meta.csv")),
    VOLUMES["synapse_table"],
    _MERGED,
)


def parameters(name: str) -> dict[str, str]:
    """Values of the folder and pattern parameters for a set of `SETS`, for any record that takes them."""
    return {
        "raw_em_data_path": f"data/{name}/em",
        "raw_mask_data_path": f"data/{name}/mask",
        "proc_data_path": f"data/{name}/processed",
        "em_filename_pattern": SETS[name].em_filename_pattern,
        "mask_filename_pattern": SETS[name].mask_filename_pattern,
    }


def make_missing(p: Any, show_progress: bool = True) -> None:
    """Make the demonstration sets that a notebook reads, where they do not exist yet.

    Parameters
    ----------
    p : record of `synprep.params`
        Raw sets are made for every record that names their folders, or volumes for one that names their
        table; processed and merged ones for those that read them. Folders that are not of a demonstration set
        are left alone.
    show_progress : bool
        Print a progress bar of a raw set or of volumes, and at the end one line, the same whether anything
        was missing or not. Of processed and merged sets nothing is printed.
    """
    if volumes := getattr(p, "volumes", {}):  # instead of raw pairs
        if resolve(volumes.get("synapse_table", "")) == resolve(VOLUMES["synapse_table"]):
            _make_volumes(show_progress)
    elif isinstance(p, Chunks):
        for name in SETS:
            folders = {resolve(f"data/{name}/{kind}") for kind in ("em", "mask")}
            if folders & {p.raw_em_data_path, p.raw_mask_data_path}:
                _make_raw(name, show_progress)
    if isinstance(p, Inspect | Fingerprint):
        _make_processed([p.proc_data_path])
    if isinstance(p, Merge):
        _make_processed(p.meta_list)


def _make_raw(name: str, show_progress: bool) -> None:
    demo_set, what = SETS[name], f"Demonstration data in data/{name}"
    patterns = {"em": demo_set.em_filename_pattern, "mask": demo_set.mask_filename_pattern}
    with _making(f"data/{name}", patterns, demo_set.chunks, what, show_progress) as (folder, chunks):
        for one in chunks:
            for kind, array in zip(patterns, one.arrays(), strict=True):
                filename = patterns[kind].replace("{synapse_id}", one.synapse_id)
                filename = filename.replace("*", "data_MICrONS__L23__8_8_40_")
                files.save_array(folder / kind / filename, array)


def _make_volumes(show_progress: bool) -> None:
    names, what = synthetic_volumes.NAMES, f"Demonstration volumes in {_VOLUMES}"
    with _making(_VOLUMES, names, _SMALL_CHUNKS, what, show_progress) as (folder, chunks):
        for number, one in enumerate(chunks):
            synthetic_volumes.add_chunk(folder, number, one.synapse_id, *one.arrays())
        (folder / synthetic_volumes.ABSENT_BLOCK).unlink(missing_ok=True)


@contextmanager
def _making(
    path: str, names: Iterable[str], chunks: Sequence[_DemoChunk], what: str, show_progress: bool
) -> Iterator[tuple[Path, Iterator[_DemoChunk]]]:
    """Give a temporary folder, and what to write there: no chunk where all these names are in `path`.

    All is renamed in the end, so that what is in `path` is whole.
    """
    folder = Path(resolve(path))
    temporary = folder / f".making-{os.getpid()}"
    missing = () if all((folder / name).exists() for name in names) else chunks
    try:
        yield temporary, execution.track(missing, len(chunks), what, show_progress)
        for name in names:
            if not (folder / name).exists():
                os.rename(temporary / name, folder / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_processed(paths: Sequence[str]) -> None:
    """Make the processed and merged sets whose tables, or the tables' folders, have these paths."""
    for name in SETS:
        if _is_missing(f"data/{name}/processed", paths):
            _process(Preprocess(**parameters(name)))
    if _is_missing(f"{_VOLUMES}/processed", paths):
        _process(Preprocess(volumes=VOLUMES, proc_data_path=f"{_VOLUMES}/processed"))
    if _is_missing(_MERGED, paths):
        _make_processed(Merge().meta_list)
        merge.run(Merge(), show_progress=False)


def _process(p: Preprocess) -> None:
    make_missing(p, show_progress=False)
    preprocess.run(preprocess.plan(pairing.find(p), p, show_progress=False), p, show_progress=False)


def _is_missing(folder: str, paths: Sequence[str]) -> bool:
    folder = resolve(folder)
    meta_path = os.path.join(folder, "meta.csv")
    return bool({folder, meta_path} & {*paths}) and not os.path.exists(meta_path)
