"""Compiled loops over the voxels of volumes; they run outside Python's lock, so that threads work together.

Volumes may be in C order or in Fortran order.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from synprep._core.kernels import compiled, is_fortran


def resample(source_xyz: np.ndarray, axes: Sequence, fill: int, out_xyz: np.ndarray) -> None:
    """Bring an EM, uint8, onto a grid: weighted means, rounded half to even; `fill` where no weight is.

    `axes` has by axis, x, y and z, the first voxel (n,) and the weights (n, k) of each voxel of the grid.
    """
    if is_fortran(source_xyz):
        source_xyz, axes, out_xyz = source_xyz.T, axes[::-1], out_xyz.T
    (first_a, weights_a), (first_b, weights_b), (first_c, weights_c) = axes
    _resample(source_xyz, first_a, weights_a, first_b, weights_b, first_c, weights_c, fill, out_xyz)


def mark(
    ids_xyz: np.ndarray, axes: Sequence[np.ndarray], labels: Mapping[int, int], out_xyz: np.ndarray
) -> None:
    """Write into a mask, uint8, the labels of one or two ids, ``{id: label}``, where these are.

    `axes` has by axis, x, y and z, the voxel of the ids for each voxel of the mask, (n,) int64.
    """
    (id_1, label_1), *_, (id_2, label_2) = [*labels.items(), *labels.items()]
    ids_xyz = _unsigned(ids_xyz)
    if is_fortran(ids_xyz):
        ids_xyz, axes, out_xyz = ids_xyz.T, axes[::-1], out_xyz.T
    ids = np.uint64(id_1), np.uint64(id_2)
    _mark(ids_xyz, *axes, *ids, np.uint8(label_1), np.uint8(label_2), out_xyz)


def nearest(
    ids_xyz: np.ndarray, axes: Sequence[np.ndarray], squares: Sequence[np.ndarray]
) -> tuple[float, tuple[int, int, int], int] | None:
    """Find the nearest voxel of a grid whose id is not 0: its squared distance, x, y and z, and id; or None.

    `axes` as for `mark`; `squares` has the squared distances along each axis, (n,) float64. Of equally near
    voxels the first is taken, in the order of x, then y, then z.
    """
    ids_xyz, shape = _unsigned(ids_xyz), [len(axis) for axis in axes]
    ranks = np.array([shape[1] * shape[2], shape[2], 1])
    if is_fortran(ids_xyz):
        ids_xyz, axes, squares, ranks = ids_xyz.T, axes[::-1], squares[::-1], ranks[::-1].copy()
    square, rank, found = _nearest(ids_xyz, *axes, *squares, ranks)
    return (square, tuple(int(k) for k in np.unravel_index(rank, shape)), int(found)) if found else None


def _unsigned(ids: np.ndarray) -> np.ndarray:
    return ids.view(f"u{ids.dtype.itemsize}")  # fewer types to compile for; -1 is the largest id


@compiled
def _resample(source, first_a, weights_a, first_b, weights_b, first_c, weights_c, fill, out):
    """Three axes in the order of memory; a row of sums over the first two, then the means along it."""
    n_a, n_b, n_c = out.shape
    row = np.empty(source.shape[2], np.float64)
    total_c = np.empty(n_c, np.float64)
    for c in range(n_c):
        total_c[c] = weights_c[c].sum()
    for a in range(n_a):
        total_a = weights_a[a].sum()
        for b in range(n_b):
            total = total_a * weights_b[b].sum()
            row[:] = 0
            for i in range(weights_a.shape[1]):
                for j in range(weights_b.shape[1]):
                    weight = weights_a[a, i] * weights_b[b, j]
                    if weight > 0:
                        neighbours = source[first_a[a] + i, first_b[b] + j]
                        for k in range(row.size):
                            row[k] += weight * neighbours[k]
            for c in range(n_c):
                value = 0.0
                for k in range(weights_c.shape[1]):
                    if weights_c[c, k] > 0:
                        value += weights_c[c, k] * row[first_c[c] + k]
                weight = total * total_c[c]
                if weight > 0:
                    # Finely rounded first, so that a half is a half.
                    out[a, b, c] = np.uint8(np.rint(np.rint(value / weight * 1048576.0) / 1048576.0))
                else:
                    out[a, b, c] = fill


@compiled
def _mark(ids, axis_a, axis_b, axis_c, id_1, id_2, label_1, label_2, out):
    row = np.empty(axis_c.size, np.uint64)
    for a in range(axis_a.size):
        for b in range(axis_b.size):
            line, labels = ids[axis_a[a], axis_b[b]], out[a, b]
            for c in range(row.size):
                row[c] = line[axis_c[c]]
            for c in range(row.size):  # without branches, since ids change as they like
                labels[c] = label_1 if row[c] == id_1 else (label_2 if row[c] == id_2 else labels[c])


@compiled
def _nearest(ids, axis_a, axis_b, axis_c, squares_a, squares_b, squares_c, ranks):
    best, best_rank, best_id = np.inf, 0, np.uint64(0)
    for a in range(axis_a.size):
        for b in range(axis_b.size):
            so_far = squares_a[a] + squares_b[b]
            if so_far > best:
                continue
            row = ids[axis_a[a], axis_b[b]]
            for c in range(axis_c.size):
                square = so_far + squares_c[c]
                if row[axis_c[c]] != 0 and square <= best:
                    rank = a * ranks[0] + b * ranks[1] + c * ranks[2]
                    if square < best or rank < best_rank:
                        best, best_rank, best_id = square, rank, np.uint64(row[axis_c[c]])
    return best, best_rank, best_id
