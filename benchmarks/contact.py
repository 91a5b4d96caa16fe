"""Compare `cleft: contact` with the cleft labels of raw masks: overlap and volume.

Run it from the project's root, `python benchmarks/contact.py FOLDER X Y Z`: masks `*_mask.npy` with labels
1, 2 and 3, and their voxel size in nm. In the segmentation that is made of a mask, cleft voxels belong to the
nearer neuron.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import tensorstore as ts
from benchmark import print_table

from synprep._core.cut import VolumePair
from synprep._core.volume_settings import Settings


def to_label(mask_xyz: np.ndarray, label: int, at_nm: np.ndarray, size_nm: np.ndarray) -> np.ndarray:
    """Distance of some voxels to the nearest one with a label within 500 nm, in nm."""
    label_nm = np.argwhere(mask_xyz == label) * size_nm
    is_near = ((label_nm >= at_nm.min(0) - 500) & (label_nm <= at_nm.max(0) + 500)).all(1)
    return np.sqrt([((label_nm[is_near] - point) ** 2).sum(1).min() for point in at_nm])


def write(folder: Path, array_xyz: np.ndarray, size_nm: np.ndarray) -> dict:
    """Write a zarr3 volume; return what the parameter says of it."""
    metadata = {"shape": array_xyz.shape, "data_type": str(array_xyz.dtype)}
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/"}, "metadata": metadata}
    ts.open(spec, create=True).result().write(array_xyz).result()
    return {"path": f"zarr3://{folder}", "voxel_size_nm": size_nm.tolist(), "axes": "xyz"}


def contact(mask_xyz: np.ndarray, size_nm: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Where synprep puts the cleft, from the labels 1 and 3 alone, around a voxel."""
    shape = tuple(2 * n for n in mask_xyz.shape)  # so that all of the mask is in the chunk
    with tempfile.TemporaryDirectory() as name:
        em = write(Path(name, "em"), np.full(mask_xyz.shape, 100, np.uint8), size_nm)
        segmentation = write(Path(name, "segmentation"), mask_xyz.astype(np.uint64), size_nm)
        settings = Settings(
            synapse_table="",
            centre_unit_nm=(1.0, 1.0, 1.0),
            em=em,
            segmentation=segmentation,
            cleft="contact",
            voxel_size_nm=tuple(size_nm.tolist()),
            chunk_shape=shape,
        )
        pair = VolumePair("1", tuple((centre + 0.5) * size_nm), 1, 3, settings)
        cut_xyz = pair.open().mask.read()
    box = tuple(slice(n - k, 2 * n - k) for k, n in zip(centre, mask_xyz.shape, strict=True))
    return cut_xyz[box] == 2


def row_of(path: Path, size_nm: np.ndarray) -> list:
    """Row of the table."""
    mask_xyz = np.load(path)
    is_cleft, at = mask_xyz == 2, np.argwhere(mask_xyz == 2)
    from_pre, from_post = (to_label(mask_xyz, label, at * size_nm, size_nm) for label in (1, 3))
    mask_xyz[is_cleft] = np.where(from_pre < from_post, 1, 3)
    centre = at[np.argmin((((at - at.mean(0)) * size_nm) ** 2).sum(1))]  # of the cleft's own voxels
    is_contact = contact(mask_xyz, size_nm, centre)
    n_both, n_cleft, n_contact = (np.sum(one) for one in (is_contact & is_cleft, is_cleft, is_contact))
    apart = statistics.median(from_pre + from_post)
    return [path.stem.removesuffix("_mask"), n_cleft, apart, n_both / n_cleft, n_contact / n_cleft]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("voxel_size_nm", type=float, nargs=3)
    arguments = parser.parse_args()
    head = ["", "cleft voxels", "neurons apart, nm", "overlap / cleft", "contact / cleft"]
    paths = sorted(arguments.folder.glob("*_mask.npy"))
    print_table(head, [row_of(path, np.array(arguments.voxel_size_nm)) for path in paths])


if __name__ == "__main__":
    main()
