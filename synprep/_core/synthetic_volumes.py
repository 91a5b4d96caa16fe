"""Small volumes and a table of synapses, of synthetic chunks that lie side by side."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from synprep._core import stores
from synprep._core.arrays import CLEFT, POSTSYNAPTIC, PRESYNAPTIC

NAMES = ("em", "segmentation", "cleft", "synapses.csv")
ABSENT_BLOCK = (
    "em/8_8_40/1392-1456_928-992_616-632"  # its sections 16 to 31 are those of the sixth chunk alone
)

_CHUNK_SHAPE, _N_IN_A_ROW = (96, 96, 64), 3  # two rows along y
_FIRST_VOXEL, _SHAPE = (1200, 800, 600), (288, 192, 64)
_MARGIN = {"em": (0, 0, 0), "segmentation": (8, 8, 4), "cleft": (8, 8, 4)}  # voxels on each side
_DTYPE = {"em": "uint8", "segmentation": "uint64", "cleft": "uint32"}
_SMALLEST_NEURON = 864_691_135_000_000_001  # ids of this size are rounded by floating point
_HEADER = "id,pre_pt_root_id,post_pt_root_id,ctr_pt_position\n"


def add_chunk(
    folder: str | os.PathLike, number: int, synapse_id: str, em_xyz: np.ndarray, mask_xyz: np.ndarray
) -> None:
    """Write a chunk into the volumes at place `number` (0 to 5), and its row into the table.

    The synapse's number is the id of its cleft, and makes those of the neurons.
    """
    pre = _SMALLEST_NEURON + 422 * int(synapse_id)
    post, place = pre + 211, (number % _N_IN_A_ROW, number // _N_IN_A_ROW, 0)
    start = [a + k * n for a, k, n in zip(_FIRST_VOXEL, place, _CHUNK_SHAPE, strict=True)]
    neurons, clefts = np.zeros(4, np.uint64), np.zeros(4, np.uint32)
    neurons[PRESYNAPTIC], neurons[POSTSYNAPTIC], clefts[CLEFT] = pre, post, int(synapse_id)
    values = {"em": em_xyz, "segmentation": neurons[mask_xyz], "cleft": clefts[mask_xyz]}
    for kind, values_xyz in values.items():
        box = tuple(slice(a, a + n) for a, n in zip(start, _CHUNK_SHAPE, strict=True))
        _open(Path(folder, kind), kind)[(*box, 0)] = values_xyz
    x, y, z = (a + n // 2 for a, n in zip(start, _CHUNK_SHAPE, strict=True))
    with open(Path(folder, "synapses.csv"), "a" if number else "w", encoding="utf-8", newline="\n") as table:
        table.write(_HEADER if not number else "")
        table.write(f'{synapse_id},{pre},{post},"[{2 * x + 1}, {2 * y + 1}, {z}]"\n')  # voxels of 4 x 4 x 40


def _open(folder: Path, kind: str) -> Any:
    """Open a volume, which is made when missing; blocks that hold nothing are written too."""
    is_em, margin = kind == "em", np.array(_MARGIN[kind])
    scale = {
        "key": "8_8_40",
        "resolution": [8, 8, 40],
        "size": (_SHAPE + 2 * margin).tolist(),
        "voxel_offset": (_FIRST_VOXEL - margin).tolist(),
        "chunk_size": [64, 64, 16],
        "encoding": "raw" if is_em else "compressed_segmentation",
    }
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder.as_posix()}/"},
        "multiscale_metadata": {
            "type": "image" if is_em else "segmentation",
            "data_type": _DTYPE[kind],
            "num_channels": 1,
        },
        "scale_metadata": scale if is_em else scale | {"compressed_segmentation_block_size": [8, 8, 8]},
        "store_data_equal_to_fill_value": True,
    }
    return stores.tensorstore().open(spec, open=True, create=True).result()
