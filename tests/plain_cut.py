"""What a chunk that is cut from volumes must be, in plain NumPy and whole numbers, without any store.

A volume is an array with axes x, y, z, and voxel size and offset in nm, whole numbers or fractions.
"""

import math
from fractions import Fraction

import numpy as np

HALF = Fraction(1, 2)


def fractions(numbers):
    return [Fraction(number).limit_denominator(10**6) for number in numbers]


def start_of(centre_nm, grid_nm, shape):
    """First grid voxel of a chunk."""
    sides = zip(fractions(centre_nm), fractions(grid_nm), shape, strict=True)
    return [math.floor(centre / size) - n // 2 for centre, size, n in sides]


def _whole(weights):
    """Turn fractions into whole numbers in proportion, row by row."""
    rows = []
    for row in weights:
        factor = math.lcm(*(weight.denominator for weight in row))
        rows.append([int(weight * factor) for weight in row])
    return np.array(rows, np.int64)


def along(method, n_voxels, voxel, offset, size, start, n):
    """Weights of an axis, (grid voxels, voxels of the volume): zeros if the centre lies outside."""
    rows = []
    for k in range(start, start + n):
        low, centre, high = k * size, (k + HALF) * size, (k + 1) * size
        row = [Fraction(0)] * n_voxels
        if offset <= centre < offset + n_voxels * voxel:
            for i in range(n_voxels):
                row[i] = method(i, voxel, offset, size, low, centre, high)
        rows.append(row)
    return _whole(rows)


def containing(i, voxel, offset, size, low, centre, high):
    return Fraction(int(offset + i * voxel <= centre < offset + (i + 1) * voxel))


def em_xy(i, voxel, offset, size, low, centre, high):
    if (size / voxel).denominator == 1 and ((low - offset) / voxel).denominator == 1:
        return Fraction(int(low <= offset + i * voxel < high))
    distance = abs(offset + (i + HALF) * voxel - centre)
    return max(Fraction(0), 1 - distance / max(size, voxel))


def em_z(i, voxel, offset, size, low, centre, high):
    if size < 2 * voxel:
        return containing(i, voxel, offset, size, low, centre, high)
    return Fraction(int(low <= offset + (i + HALF) * voxel < high))


def _weights(methods, array_xyz, voxel_size_nm, offset_nm, grid_nm, start, shape):
    sides = zip(
        methods,
        array_xyz.shape,
        fractions(voxel_size_nm),
        fractions(offset_nm),
        fractions(grid_nm),
        start,
        shape,
        strict=True,
    )
    return [along(*side) for side in sides]


def em(array_xyz, voxel_size_nm, offset_nm, grid_nm, start, shape, cutout=0):
    """EM of a chunk; what lies outside has the value `cutout`."""
    methods = em_xy, em_xy, em_z
    x, y, z = _weights(methods, array_xyz, voxel_size_nm, offset_nm, grid_nm, start, shape)
    total = np.einsum("ia,jb,kc,abc->ijk", x, y, z, array_xyz.astype(np.int64), optimize=True)
    weight = np.einsum("i,j,k->ijk", x.sum(1), y.sum(1), z.sum(1))
    quotient, rest = np.divmod(total, np.maximum(weight, 1))
    is_up = (2 * rest > weight) | ((2 * rest == weight) & (quotient % 2 == 1))
    return np.where(weight > 0, quotient + is_up, cutout).astype(np.uint8)


def ids(array_xyz, voxel_size_nm, offset_nm, grid_nm, start, shape):
    """Ids at the centres of a chunk's voxels; 0 outside."""
    methods = containing, containing, containing
    axes = _weights(methods, array_xyz, voxel_size_nm, offset_nm, grid_nm, start, shape)
    index = np.ix_(*(axis.argmax(axis=1) for axis in axes))
    is_inside = np.einsum("i,j,k->ijk", *(axis.sum(axis=1) for axis in axes)) > 0
    return np.where(is_inside, array_xyz[index], 0)


def squares(centre_nm, grid_nm, start, shape):
    """Squared distances from the centre in nm, as whole numbers, and the factor that makes them whole."""
    sides = list(zip(fractions(centre_nm), fractions(grid_nm), start, shape, strict=True))
    axes = [[((k + HALF) * size - centre) ** 2 for k in range(s, s + n)] for centre, size, s, n in sides]
    factor = math.lcm(*(square.denominator for axis in axes for square in axis))
    x, y, z = (np.array([int(square * factor) for square in axis], np.int64) for axis in axes)
    return x[:, None, None] + y[None, :, None] + z[None, None, :], factor


def mask(neurons_xyz, clefts_xyz, squares_xyz, factor, pre_id, post_id):
    """Mask of a whole chunk, the cleft's id or None, and its distance in nm."""
    mask_xyz = np.zeros(neurons_xyz.shape, np.uint8)
    mask_xyz[neurons_xyz == post_id] = 3
    mask_xyz[neurons_xyz == pre_id] = 1
    if not clefts_xyz.any():
        return mask_xyz, None, math.nan
    nearest = np.where(clefts_xyz != 0, squares_xyz, np.iinfo(np.int64).max).argmin()
    cleft_id = clefts_xyz.flat[nearest]
    mask_xyz[clefts_xyz == cleft_id] = 2
    return mask_xyz, int(cleft_id), math.sqrt(squares_xyz.flat[nearest] / factor)


def contact(neurons_xyz, squares_xyz, factor, grid_nm, pre_id, post_id):
    """Whether the voxels of a whole chunk are the contact of two neurons."""
    near = []
    for neuron in (pre_id, post_id):
        found = np.argwhere(neurons_xyz == neuron)
        is_near = np.zeros(neurons_xyz.shape, bool)
        for voxel in np.ndindex(neurons_xyz.shape):
            steps = (found - voxel) * np.array(grid_nm, float)
            is_near[voxel] = (np.square(steps).sum(axis=1) <= 400).any()
        near.append(is_near)
    return near[0] & near[1] & (squares_xyz <= 90_000 * factor)
