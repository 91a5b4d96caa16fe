"""The demonstration data sets: small, synthetic, the same on every machine, made on first use."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from synprep import execution, storage
from synprep.pairing import Sources
from synprep.paths import resolve
from synprep.synthetic import make_chunk


@dataclass(frozen=True)
class DemoChunk:
    """How one chunk is made.

    Parameters
    ----------
    synapse_id : str
        Synapse id; the number that it spells is the seed.
    shape_xyz : tuple of int
        Shape.
    black_sections : tuple of int
        Sections that are wholly cut out.
    cut_sections : tuple of (int, int)
        Sections that are partly cut out, and how many of their pixels.
    """

    synapse_id: str
    shape_xyz: tuple[int, int, int]
    black_sections: tuple[int, ...] = ()
    cut_sections: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class DemoSet:
    """A demonstration data set; its folder is `data/<name>`.

    Parameters
    ----------
    chunks : tuple of DemoChunk
        Its chunks.
    em_filename_pattern, mask_filename_pattern : str
        Patterns that its file names fit.
    """

    chunks: tuple[DemoChunk, ...]
    em_filename_pattern: str = "{synapse_id}.npy"
    mask_filename_pattern: str = "{synapse_id}_mask.npy"


# With 160 x 160 pixels the usual threshold of 1 % is 256 pixels: one section is just below it, one exactly at
# it, one just above. The last chunk has the standard size, where 1 % is 655.36 pixels.
_DEMO_CHUNKS = (
    DemoChunk("0001007", (160, 160, 64), black_sections=(30,), cut_sections=((9, 9000),)),
    DemoChunk("1000348", (160, 160, 64), cut_sections=((28, 255), (34, 257))),
    DemoChunk("1000379", (160, 160, 64), black_sections=(3, 4, 5), cut_sections=((29, 256),)),
    DemoChunk("1000412", (160, 160, 64)),
    DemoChunk("1000550", (160, 160, 64), black_sections=(26, 27), cut_sections=((50, 1200),)),
    DemoChunk("1000623", (256, 256, 256), (40, 41, 110, 111), ((125, 655), (140, 656), (200, 20000))),
)
_SMALL_CHUNKS = (
    DemoChunk("0001007", (96, 96, 64), black_sections=(32,)),
    DemoChunk("1000348", (96, 96, 64), cut_sections=((29, 92), (34, 93))),
    DemoChunk("1000379", (96, 96, 64), black_sections=(2, 3)),
    DemoChunk("1000412", (96, 96, 64), cut_sections=((31, 2500),)),
    DemoChunk("1000550", (96, 96, 64)),
    DemoChunk("1000623", (96, 96, 64), black_sections=(28, 33)),
)
SETS = {
    "demo": DemoSet(_DEMO_CHUNKS),
    "ds1": DemoSet(_SMALL_CHUNKS[:4]),
    "ds2": DemoSet(_SMALL_CHUNKS[2:], "*_raw_{synapse_id}.npy", "*_masks_{synapse_id}_mask.npy"),
}

MERGED = "data/merged"

# Input paths that the notebooks make when they are missing.
PATHS = (
    *(f"data/{name}/{path}" for name in SETS for path in ("em", "mask", "processed", "processed/meta.csv")),
    MERGED,
)


def parameters(name: str) -> dict[str, str]:
    """Parameters of a demonstration set.

    Parameters
    ----------
    name : str
        Key of `SETS`.

    Returns
    -------
    dict of str to str
        Values of the folder and pattern parameters by name, for any record that takes them.
    """
    return {
        "raw_em_data_path": f"data/{name}/em",
        "raw_mask_data_path": f"data/{name}/mask",
        "proc_data_path": f"data/{name}/processed",
        "em_filename_pattern": SETS[name].em_filename_pattern,
        "mask_filename_pattern": SETS[name].mask_filename_pattern,
    }


def make_missing(sources: Sources, show_progress: bool = True) -> None:
    """Make the demonstration sets that the parameters point at, where their folders do not exist yet.

    Parameters
    ----------
    sources : Sources
        A record with absolute paths; folders that are not of a demonstration set are left alone.
    show_progress : bool
        Print a progress bar, and at the end one line, the same whether anything was missing or not.
    """
    wanted = {sources.raw_em_data_path, sources.raw_mask_data_path}
    for name, demo_set in SETS.items():
        folders = {resolve(f"data/{name}/{kind}") for kind in ("em", "mask")}
        if wanted & folders:
            missing = () if all(map(os.path.isdir, folders)) else demo_set.chunks
            what = f"Demonstration data in data/{name}"
            _make(name, execution.track(missing, len(demo_set.chunks), what, show_progress))


def _make(name: str, chunks: Iterable[DemoChunk]) -> None:
    """Write a set under a temporary name and rename its folders, so that a set that is there is whole."""
    folder = Path(resolve(f"data/{name}"))
    temporary = folder / f".making-{os.getpid()}"
    for chunk in chunks:
        em_xyz, mask_xyz = make_chunk(
            int(chunk.synapse_id), chunk.shape_xyz, chunk.black_sections, chunk.cut_sections
        )
        storage.save_array(temporary / "em" / _filename(SETS[name].em_filename_pattern, chunk), em_xyz)
        storage.save_array(temporary / "mask" / _filename(SETS[name].mask_filename_pattern, chunk), mask_xyz)
    for kind in ("em", "mask"):
        if (temporary / kind).is_dir() and not (folder / kind).exists():
            os.rename(temporary / kind, folder / kind)
    shutil.rmtree(temporary, ignore_errors=True)


def _filename(pattern: str, chunk: DemoChunk) -> str:
    return pattern.replace("{synapse_id}", chunk.synapse_id).replace("*", "data_MICrONS__L23__8_8_40_")
