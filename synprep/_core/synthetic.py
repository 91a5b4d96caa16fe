"""Seeded synthetic electron-microscopy (EM) chunks with one synapse in the centre.

A seed gives the same bytes on every machine and with every NumPy version from 2.0 on: noise comes from a
hash of integers, the rest from sums, products, quotients and comparisons, which are rounded alike everywhere.
Only the terms of a matrix product may be added in any order; their factors are multiples of 1/1024, so that
nothing is rounded.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from synprep._core.arrays import CLEFT, POSTSYNAPTIC, PRESYNAPTIC

Plane = np.ndarray  # what a section holds for each of its pixels, (x, y)
MIN_SHAPE_XYZ = (64, 64, 8)
ANISOTROPY = 5  # distance of two sections in pixels
N_CELLS, FIRST_CELL = 14, 4
GREY_MEMBRANE, GREY_DENSITY, GREY_CLEFT, GREY_MITOCHONDRION, GREY_RIM, GREY_LUMEN = 38, 25, 115, 84, 42, 175
FOR_CELL, FOR_SYNAPSE, FOR_PATH, FOR_TEXTURE, FOR_TONE, FOR_VESICLE, FOR_GRAIN, FOR_DRIFT, FOR_CUT = range(9)


def _noise(shape: tuple[int, ...], *key: int) -> np.ndarray:
    """Return whole numbers in -128..127 (int64) that depend on `key` alone: splitmix64 of key and counter."""
    n = math.prod(shape)
    word = np.ones(1, np.uint64)
    for part in (*(np.uint64(int(k) % 2**64) for k in key), np.arange(-(-n // 8), dtype=np.uint64)):
        word = (word ^ part) * 0x9E3779B97F4A7C15
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB
        word = word ^ (word >> 31)
    return word.astype("<u8").view(np.int8)[:n].reshape(shape).astype(np.int64)


def _spline(n: int, step: int, start: int = 0) -> np.ndarray:
    """Return quadratic B-spline weights (m, n): `m` numbers, `step` pixels apart, make `n` smooth ones."""
    at = np.arange(start, start + n) / step
    far = np.abs(at - np.arange(-1, (start + n) // step + 3)[:, None])
    tail = np.maximum(0, 1.5 - far)
    return np.rint(1024 * np.where(far < 0.5, 0.75 - np.square(far), np.square(tail) / 2)) / 1024


def _smooth(lattice: np.ndarray, x: np.ndarray, y: np.ndarray) -> Plane:
    """Return the plane that the weights `x` and `y` make of a lattice; `@` would start threads for each."""
    return np.einsum("xb,by->xy", np.einsum("ax,ab->xb", x, lattice), y)


def _texture(seed: int, z: int, plane: tuple[int, int]) -> Plane:
    """Return the fine texture of a section, about -70 to 70."""
    x, y = (_spline(n, 6) for n in plane)
    return _smooth(_noise((len(x), len(y)), seed, FOR_TEXTURE, z), x, y)


def _cells(seed: int, shape_xyz: tuple[int, int, int]) -> Iterator[tuple[Plane, Plane]]:
    """Yield of each section the cell of every pixel, and how high its field is there.

    Each cell has a smooth random field, and a pixel belongs to the cell whose field is highest.
    """
    fields = []
    for cell in range(N_CELLS):
        size, *starts = _noise((4,), seed, FOR_CELL, cell) + 128
        step = 24 + size // 16
        steps = (step, step, 1 + 4 * step // ANISOTROPY)  # along z four times as long
        x, y, z = (_spline(n, m, start % m) for n, m, start in zip(shape_xyz, steps, starts, strict=True))
        lattice = _noise((len(z), len(x), len(y)), seed, FOR_CELL, cell, 1)
        fields.append((np.einsum("kz,kab->zab", z, lattice), x, y))
    for z in range(shape_xyz[2]):
        label, height = np.zeros(shape_xyz[:2], np.uint8), np.full(shape_xyz[:2], -np.inf)
        for cell, (lattice, x, y) in enumerate(fields):
            field = _smooth(lattice[z], x, y)
            is_higher = field > height
            np.copyto(height, field, where=is_higher)
            np.copyto(label, FIRST_CELL + cell, where=is_higher)
        yield label, height


def _add_synapse(seed: int, dz: int, axis: np.ndarray, texture: Plane, label: Plane, height: Plane) -> Plane:
    """Write the synapse into a section `dz` pixels off the centre; return the distance from the cleft.

    Each neuron is a ball with a tube along z that follows `axis`, and its field competes with the cells'. The
    distance, in pixels, is negative on the presynaptic side.
    """
    size, turn, tilt, bow, side = _noise((5,), seed, FOR_SYNAPSE) / 128
    radius = int(np.interp(min(label.shape), (64, 96, 160, 256), (16, 20, 20, 26))) + 2 * size
    half = 0.62 * radius + 0.3 * max(0, abs(dz) - radius)  # from the cleft to the middle of a neuron
    width = max(radius * radius - 0.5 * dz * dz, 0.2 * radius * radius)
    x, y = (np.arange(n) - n // 2 - at for n, at in zip(label.shape, axis, strict=True))
    cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    along = (cos * x[:, None] + sin * y) * np.copysign(1, side) + tilt * dz / 4
    aside = np.square(cos * y - sin * x[:, None])
    gap = along + bow * aside / (4 * radius) + texture / 48
    from_pre, from_post, from_organ = (np.square(along + d) + aside for d in (half, -half, 1.75 * half))
    pre, post = 130 - 65 * from_pre / width, 130 - 65 * from_post / width
    label[(pre > height) & (gap < 0)] = PRESYNAPTIC
    label[(post > height) & (gap >= 0)] = POSTSYNAPTIC
    label[(np.minimum(pre, post) > height) & (np.abs(gap) < 2)] = CLEFT
    height[label < FIRST_CELL] = 0
    height[(label == PRESYNAPTIC) & (from_organ + dz * dz / 2 < 0.09 * radius * radius)] = np.inf
    return gap


def _edges(label: np.ndarray) -> np.ndarray:
    """Return where a neighbour along one of the last two axes, x and y, carries another label."""
    edge = np.zeros(label.shape, bool)
    for low, high in ((np.s_[..., :-1, :], np.s_[..., 1:, :]), (np.s_[..., :-1], np.s_[..., 1:])):
        differs = label[low] != label[high]
        edge[low] |= differs
        edge[high] |= differs
    return edge


def _grown(flag: Plane, n: int) -> Plane:
    for _ in range(n):
        flag = flag | _edges(flag)
    return flag


def _add_vesicles(grey: Plane, seed: int, z: int, label: Plane, gap: Plane, is_free: Plane) -> None:
    """Draw vesicles into the bouton, most of them near the cleft, and a few into every fourth cell."""
    x, y = (np.arange(4, n - 6, 6) for n in label.shape)
    shift_x, shift_y, chance = _noise((3, x.size, y.size), seed, FOR_VESICLE, z)
    x, y = x[:, None] + shift_x % 3, y + shift_y % 3
    limit = np.where(label % 4 == 0, -90, -128)  # chances below these are 15 % and none
    limit = np.where(label == PRESYNAPTIC, 120 + 4 * gap, limit)
    is_wanted = is_free[x, y] & (chance < limit[x, y])
    for dx, dy in itertools.product(range(-2, 3), repeat=2):
        square = dx * dx + dy * dy
        if square < 8:
            grey[x[is_wanted] + dx, y[is_wanted] + dy] = GREY_LUMEN if square < 3 else GREY_RIM


def _drawn(seed: int, z: int, label_zxy: np.ndarray, height: Plane, gap: Plane, texture: Plane) -> Plane:
    """Return the section as a perfect microscope would show it (float64)."""
    label, before = label_zxy[z], label_zxy[max(z - 1, 0)]
    edge = _edges(label)
    membrane, near = edge | (_grown(edge, 1) & (texture > 20)), _grown(edge, 2)
    mitochondria = (height > 70) & ~near
    tone = 117.0 + 7 * (_noise((FIRST_CELL + N_CELLS,), seed, FOR_TONE) % 8)
    tone[[PRESYNAPTIC, CLEFT, POSTSYNAPTIC]] = 132, 132, 142
    grey = tone[label]
    grey[label != before] -= 30  # membranes that are cut obliquely
    grey[mitochondria] = GREY_MITOCHONDRION + texture[mitochondria] / 3
    grey[mitochondria & _edges(mitochondria)] = GREY_MEMBRANE
    _add_vesicles(grey, seed, z, label, gap, ~near & ~_grown(mitochondria, 3))
    grey[membrane] = GREY_MEMBRANE
    grey[(label == POSTSYNAPTIC) & (gap < 6 + texture / 16)] = GREY_DENSITY
    grey[(label == CLEFT) & ~edge] = GREY_CLEFT
    return grey + texture / 4


def _imaged(seed: int, z: int, grey: Plane) -> Plane:
    """Return the picture (uint8) of a section: grain, blur, its own brightness and contrast."""
    grey = np.pad(grey + 0.55 * _noise(grey.shape, seed, FOR_GRAIN, z), 1, mode="edge")
    grey = grey[:-2] + 2 * grey[1:-1] + grey[2:]
    grey = (grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]) / 16
    gain, shift = _noise((2,), seed, FOR_DRIFT, z)
    return np.clip((grey - 128) * (1 + gain / 6000) + 128 + shift / 48, 1, 255).astype(np.uint8)


def _cut_order(seed: int, z: int, plane: tuple[int, int]) -> np.ndarray:
    """Return the flat indices of a section's pixels in the order in which a torn corner swallows them."""
    sides = []
    for axis, n in enumerate(plane):
        torn = _noise((n,), seed, FOR_CUT, z, axis)
        sides.append(np.cumsum(1 + np.maximum(0, torn - 64) // 2)[:: 1 if torn[0] < 0 else -1])
    # Both sides rise strictly, so the pixels before any pixel in this order are connected with it.
    return np.argsort(sides[0][:, None] + sides[1], axis=None, kind="stable")


def make_chunk(
    seed: int,
    shape_xyz: tuple[int, int, int] = (128, 128, 64),
    black_sections: Iterable[int] = (),
    cut_sections: Mapping[int, int] | Iterable[tuple[int, int]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Make a synthetic EM chunk with one synapse in its centre, and the labels of that synapse, both uint8.

    The picture imitates a volume of 8 x 8 x 40 nm voxels: neurites with dark membranes, mitochondria and
    vesicles, grain, and sections that differ a little in brightness and contrast. It is made for
    demonstrations and tests; nothing can be measured on it about real tissue.

    Imaged pixels lie in 1..255; 0 is not imaged. Black sections are wholly 0, and cut ones in as many pixels
    as is said, one connected ragged region in a corner; both keep their labels. Outer membranes are
    background.
    """
    if len(shape_xyz) != 3 or any(n < least for n, least in zip(shape_xyz, MIN_SHAPE_XYZ, strict=False)):
        raise ValueError(f"shape_xyz must hold three lengths of at least {MIN_SHAPE_XYZ}, got {shape_xyz}")
    n_x, n_y, n_z = shape_xyz
    n_cut_z = dict.fromkeys(black_sections, n_x * n_y) | dict(cut_sections)
    for z in n_cut_z:
        if not 0 <= z < n_z:
            raise ValueError(f"a black or cut section must lie in 0..{n_z - 1}, got z = {z}")
    em_zxy, label_zxy = np.empty((2, n_z, n_x, n_y), np.uint8)
    path = _spline(n_z, 1 + 50 // ANISOTROPY)
    path = np.einsum("kz,ka->za", path, _noise((len(path), 2), seed, FOR_PATH)) / 4
    for z, (label, height) in enumerate(_cells(seed, shape_xyz)):
        texture, axis = _texture(seed, z, (n_x, n_y)), path[z] - path[n_z // 2]
        gap = _add_synapse(seed, (z - n_z // 2) * ANISOTROPY, axis, texture, label, height)
        label_zxy[z] = label
        em_zxy[z] = _imaged(seed, z, _drawn(seed, z, label_zxy, height, gap, texture))
    for z, n_pixels in n_cut_z.items():
        em_zxy[z].flat[_cut_order(seed, z, (n_x, n_y))[:n_pixels]] = 0
    label_zxy[(label_zxy > POSTSYNAPTIC) | (_edges(label_zxy) & (label_zxy != CLEFT))] = 0
    return np.ascontiguousarray(em_zxy.transpose(1, 2, 0)), np.ascontiguousarray(label_zxy.transpose(1, 2, 0))
