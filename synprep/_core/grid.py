"""Where a chunk's grid lies, and which voxels of a volume make a voxel of it; one axis at a time.

Voxel k of a volume covers ``offset + k * voxel`` to ``offset + (k + 1) * voxel`` nm; the grid's offset is 0.
Bounds are half-open. What lies on a border, or as near to it as `_NEAR`, belongs to the upper voxel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_NEAR = 1e-6  # of a voxel, or of a ratio


@dataclass(frozen=True)
class Axis:
    """One axis of a grid, and of a volume that is brought onto it."""

    grid_nm: float  # voxel size of the grid
    voxel_nm: float  # of the volume
    offset_nm: float  # corner of the volume's voxel 0
    n_voxels: int  # of the volume

    def positions(self, grid_voxels: np.ndarray) -> np.ndarray:
        """Turn grid voxels, whole or not, into voxels of the volume, not rounded."""
        return (grid_voxels * self.grid_nm - self.offset_nm) / self.voxel_nm


@dataclass(frozen=True)
class Weights:
    """What the voxels of a volume count in each of n grid voxels: k neighbours, from `first` on."""

    first: np.ndarray  # (n,) int64
    weights: np.ndarray  # (n, k) float64; all 0 where the grid voxel lies outside of the volume

    @property
    def is_inside(self) -> np.ndarray:
        """Whether the centre of each grid voxel lies in the volume, (n,) bool."""
        return self.weights.any(axis=1)

    @property
    def inside(self) -> slice:
        """Grid voxels whose centre lies in the volume."""
        inside = np.flatnonzero(self.is_inside)
        return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)

    @property
    def bounds(self) -> tuple[int, int]:
        """Voxels of the volume that are needed; empty if all grid voxels lie outside."""
        counts = self.weights > 0
        if not counts.any():
            return 0, 0
        needed = (self.first[:, None] + np.arange(counts.shape[1]))[counts]
        return int(needed.min()), int(needed.max()) + 1

    @property
    def is_copy(self) -> bool:
        """Whether the grid voxels are neighbouring voxels of the volume, all inside."""
        return self.weights.shape[1] == 1 and bool(self.is_inside.all() and (np.diff(self.first) == 1).all())


def chunk_start(
    centre_nm: Sequence[float], voxel_size_nm: Sequence[float], shape: Sequence[int]
) -> tuple[int, int, int]:
    """First grid voxel of a chunk: the centre's voxel has the local index ``shape // 2``.

    >>> chunk_start((1004.0, 8.0, 0.0), (8, 8, 40), (256, 256, 52))
    (-3, -127, -26)
    """
    sizes = zip(centre_nm, voxel_size_nm, shape, strict=True)
    return tuple(math.floor(centre / voxel + _NEAR) - n // 2 for centre, voxel, n in sizes)


def choose_scale(voxel_sizes_nm: Sequence[Sequence[float]], grid_nm: Sequence[float]) -> int:
    """Choose the coarsest scale that is not coarser in x and y than the grid, or else the finest.

    Among equal ones, the coarsest along z that is not coarser than the grid.

    >>> choose_scale([(4, 4, 40), (8, 8, 40), (16, 16, 40)], (8, 8, 40))
    1
    """

    def rank(number: int) -> tuple[float, ...]:
        x, y, z = voxel_sizes_nm[number]
        is_fine_z = z <= grid_nm[2] * (1 + _NEAR)
        return x * y, is_fine_z, z if is_fine_z else -z

    by_coarseness = [coarseness(size, grid_nm) for size in voxel_sizes_nm]
    fine = [number for number, ratio in enumerate(by_coarseness) if ratio <= 1]
    return max(fine, key=rank) if fine else int(np.argmin(by_coarseness))


def coarseness(voxel_size_nm: Sequence[float], grid_nm: Sequence[float]) -> float:
    """Voxel of a volume / voxel of the grid, the larger one of x and y; 1 if they are equal but for rounding.

    >>> coarseness((4, 12, 80), (8, 8, 40))
    1.5
    """
    ratio = max(voxel_size_nm[0] / grid_nm[0], voxel_size_nm[1] / grid_nm[1])
    return 1.0 if abs(ratio - 1) <= _NEAR else ratio


def sampled(axis: Axis, start: int, stop: int) -> Weights:
    """Weight 1 for the voxel that contains the centre of each grid voxel: labels, and sections of an EM."""
    return _clipped(axis, start, stop, _containing(axis, start, stop), np.ones((stop - start, 1)))


def averaged(axis: Axis, start: int, stop: int) -> Weights:
    """Weights of an EM along x or y: a mean where voxels fit whole, else a triangle around the centre."""
    ratio = axis.grid_nm / axis.voxel_nm
    edge = axis.positions(np.array([float(start)]))[0]
    if _is_whole(edge) and _is_whole(ratio) and round(ratio) >= 1:
        n = round(ratio)
        first = round(edge) + n * np.arange(stop - start)
        return _clipped(axis, start, stop, first, np.ones((stop - start, n)))
    half = max(ratio, 1.0)
    centres = axis.positions(np.arange(start, stop) + 0.5) - 0.5
    first = np.ceil(centres - half).astype(np.int64)
    neighbours = first[:, None] + np.arange(math.ceil(2 * half) + 1)
    weights = 1 - np.abs(neighbours - centres[:, None]) / half
    return _clipped(axis, start, stop, first, np.where(weights > _NEAR, weights, 0.0))


def stacked(axis: Axis, start: int, stop: int) -> Weights:
    """Weights of an EM along z: the section at the centre, or those inside where there are two or more."""
    if axis.grid_nm / axis.voxel_nm < 2 - _NEAR:
        return sampled(axis, start, stop)
    edges = axis.positions(np.arange(start, stop + 1.0)) - 0.5
    limits = np.ceil(edges - _NEAR).astype(np.int64)
    first, n = limits[:-1], np.diff(limits)
    return _clipped(axis, start, stop, first, (np.arange(n.max()) < n[:, None]).astype(np.float64))


def _containing(axis: Axis, start: int, stop: int) -> np.ndarray:
    """Voxel of the volume at the centre of each grid voxel, if it goes so far."""
    return np.floor(axis.positions(np.arange(start, stop) + 0.5) + _NEAR).astype(np.int64)


def _clipped(axis: Axis, start: int, stop: int, first: np.ndarray, weights: np.ndarray) -> Weights:
    """Leave out voxels outside of the volume, and grid voxels whose centre is."""
    centres = _containing(axis, start, stop)[:, None]
    neighbours = first[:, None] + np.arange(weights.shape[1])
    are_inside = [(voxels >= 0) & (voxels < axis.n_voxels) for voxels in (centres, neighbours)]
    return Weights(first, np.where(are_inside[0] & are_inside[1], weights, 0.0))


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) <= _NEAR


def squared_distances(centre_nm: float, grid_nm: float, start: int, stop: int) -> np.ndarray:
    """Squared distance in nm from a centre to that of each grid voxel, along one axis, (n,) float64.

    Rounded so finely that it makes no difference, so that sums over axes do not depend on their order.
    """
    distances = (np.arange(start, stop) + 0.5) * grid_nm - centre_nm
    return np.rint(distances**2 * 65536) / 65536


def ball(radius_nm: float, grid_nm: Sequence[float]) -> np.ndarray:
    """Which grid voxels are at most so far away from the one in the middle, (x, y, z) bool.

    >>> ball(8, (8, 8, 40))[:, :, 0].astype(int)
    array([[0, 1, 0],
           [1, 1, 1],
           [0, 1, 0]])
    """
    reach = [math.floor(radius_nm / size + _NEAR) for size in grid_nm]
    steps = np.ogrid[tuple(slice(-n, n + 1) for n in reach)]
    squares = sum((step * size) ** 2 for step, size in zip(steps, grid_nm, strict=True))
    return squares <= radius_nm**2 * (1 + _NEAR)
