"""Seeded synthetic electron-microscopy (EM) chunks with one synapse in the centre.

Every number comes from integer arithmetic and from the counter-based hash of this module, so a seed gives the
same bytes on every machine, operating system and NumPy version from 2.0 on.

Inside the module arrays have the axes (z, x, y), one block of sections at a time, and lengths are counted in
eighths of an xy voxel (`UNIT`). Functions of z use absolute section numbers, so the size of a block has no
influence on the result.
"""

import operator
from collections.abc import Iterable, Mapping

import numpy as np

from synprep._core.arrays import CLEFT
from synprep._core.arrays import POSTSYNAPTIC as POST
from synprep._core.arrays import PRESYNAPTIC as PRE

MIN_SHAPE_XYZ = (64, 64, 8)
FIRST_CELL = 4
MITO, FILAMENT = 1, 2
UNIT, N_BLOCK = 8, 8
PITCH, CORE_MOST, BEND_MOST = 30 * UNIT, 13 * UNIT, 36 * UNIT
INK_MEMBRANE, INK_OBLIQUE, INK_CLEFT, INK_DENSITY, INK_VESICLE = 112, 24, 26, 118, 98
# Directions whose length is a whole number, so that projections need no square root.
DIRECTIONS = ((1, 0, 1), (0, 1, 1), (3, 4, 5), (4, 3, 5), (5, 12, 13), (12, 5, 13), (3, -4, 5), (4, -3, 5))


def _hash(seed, salt, *coords):
    """Return uint64 words that depend on `seed`, `salt` and the broadcast integer arrays `coords`."""
    word = np.array(
        [(seed * 0xB3C1_6E95_27D4_8A6F + salt * 0x71F8_0D3B_A94E_C52D) & 0xFFFF_FFFF_FFFF_FFFF],
        dtype=np.uint64,
    )
    for coord in (0, *coords):
        step = np.atleast_1d(np.asarray(coord, dtype=np.int64)).astype(np.uint64) * np.uint64(
            0x9A2D_57F3_0C6B_E419
        )
        word = (word ^ step) * np.uint64(0xE6D3_918C_4B7F_2A65)
        word = (word ^ (word >> np.uint64(31))) * np.uint64(0xC58F_3A71_D60B_94ED)
        word = word ^ (word >> np.uint64(29))
    return word


def _draw(n, seed, salt, *coords):
    """Return int32 values in ``0 .. n - 1``."""
    return ((_hash(seed, salt, *coords) >> np.uint64(24)) % np.uint64(n)).astype(np.int32)


def _pick(n, seed, salt, *coords):
    return int(_draw(n, seed, salt, *coords)[0])


def _spline(step, at):
    """Return the three quadratic B-spline weights (int32, sum 64) of the lattice points around `at`."""
    t = 2 * (np.asarray(at, dtype=np.int32) % step) + 1
    first, last = (2 * step - t) ** 2 * 8 // step**2, t**2 * 8 // step**2
    return first, 64 - first - last, last


def _along_z(seed, salt, z, step, *coords):
    """Return noise in -127 .. 127 (int32) that is smooth along z and independent between `coords`."""
    weights = _spline(step, z)
    parts = [w * (_draw(255, seed, salt, z // step + k, *coords) - 127) for k, w in enumerate(weights)]
    return (parts[0] + parts[1] + parts[2]) >> 6


def _stretch(lattice, step, n):
    """Interpolate the last axis of an int32 lattice to `n` points, `step` apart on the lattice."""
    first, middle, last = _spline(step, np.arange(step))
    out = lattice[..., :-2, None] * first
    out += lattice[..., 1:-1, None] * middle
    out += lattice[..., 2:, None] * last
    out >>= 6
    return out.reshape(*lattice.shape[:-1], -1)[..., :n]


def _field(seed, salt, z, plane, step, step_z, gain):
    """Return a smooth random field (int32, shape (len(z), *plane)) of at most ``127 * gain // 16``."""
    corner_x, corner_y = (np.arange(-(-n // step) + 2) for n in plane)
    lattice = _along_z(seed, salt, z[:, None, None], step_z, corner_x[:, None], corner_y) * gain
    lattice = _stretch(lattice.swapaxes(1, 2), step, plane[0]).swapaxes(1, 2)
    return _stretch(np.ascontiguousarray(lattice), step, plane[1]) >> 4


def _warped(seed, z, plane, anisotropy):
    """Return the warped x and y (int32, eighths of a voxel) of every voxel of the sections `z`."""
    coarse, fine = max(1, 50 // anisotropy), max(1, 10 // anisotropy)
    grids = np.meshgrid(*(np.arange(n, dtype=np.int32) * UNIT for n in plane), indexing="ij")
    for salt, grid in enumerate(grids):
        far = _field(seed, 10 + salt, z, plane, 44, coarse, 29)
        yield grid + far + _field(seed, 12 + salt, z, plane, 14, fine, 7)


def _sites(seed, plane):
    """Return resting x, resting y and cell label (int32) of each cell site; some neighbours share a label."""
    n_x, n_y = (n * UNIT // PITCH + 5 for n in plane)
    index = np.arange(n_x * n_y, dtype=np.int32)
    i, j, kind = index // n_y, index % n_y, _draw(8, seed, 20, index)
    parent = np.where((kind < 3) & (i + 1 < n_x), index + n_y, index)
    parent = np.where((kind == 3) & (j + 1 < n_y), index + 1, parent)
    rest_y = j * PITCH + (i & 1) * (PITCH // 2)  # odd columns are shifted, which hides the grid
    return i * PITCH - 3 * PITCH // 2, rest_y - 3 * PITCH // 2, parent[parent[parent]] + FIRST_CELL


def _squares(place, k, x, y, reach):
    """Return a window of the block and the squared distances (int32) from site `k` in it."""
    spot = [p[:, k, None, None] for p in place]
    ends = [((int(p.min()) - reach) // UNIT, (int(p.max()) + reach) // UNIT + 1) for p in spot]
    win = (slice(None), *(slice(max(0, low), max(0, high)) for low, high in ends))
    return win, (x[win] - spot[0]) ** 2 + (y[win] - spot[1]) ** 2


def _cells(seed, sites, x, y, z, anisotropy):
    """Return the cell label (int16) and mitochondria (uint8) of every voxel."""
    index, step, rows = np.arange(sites[0].size), max(1, 40 // anisotropy), z[:, None]
    place = [sites[a] + _along_z(seed, 21 + a, rows, step, index) * 3 // 4 for a in (0, 1)]
    scale = 8 + _draw(14, seed, 23, index) + (_along_z(seed, 24, rows, step, index) >> 6)
    best, label = np.full(x.shape, 1 << 30, np.int32), np.zeros(x.shape, np.int16)
    for k in index:
        win, square = _squares(place, k, x, y, PITCH + BEND_MOST)
        square *= scale[:, k, None, None]
        near = square < best[win]  # strictly less: of two equally near sites the first keeps the voxel
        np.copyto(best[win], square, where=near)
        np.copyto(label[win], sites[2][k], where=near, casting="unsafe")
    core = _along_z(seed, 25, rows, 2 * step, index) - 22
    return label, _mitochondria(sites, place, core, label, x, y)


def _mitochondria(sites, place, core, label, x, y):
    core = np.where(core > 0, np.minimum(2 * core + 36, CORE_MOST), 0) ** 2
    organ = np.zeros(label.shape, np.uint8)
    for k in np.flatnonzero(core.any(axis=0)):
        win, square = _squares(place, k, x, y, CORE_MOST + BEND_MOST)
        organ[win] |= (square < core[:, k, None, None]) & (label[win] == sites[2][k])
    return organ


def _frame(seed, salt, k, dx, dy):
    """Return the offsets `dx`, `dy` along and across a random direction."""
    mx, my, norm = DIRECTIONS[_pick(len(DIRECTIONS), seed, salt, k)]
    norm *= 1 - 2 * _pick(2, seed, salt + 1, k)
    return (dx * mx + dy * my) // norm, (dx * my - dy * mx) // norm


def _add_axons(seed, label, organ, x, y, z, shape_zxy, anisotropy, first):
    """Lay axons that run within the section plane, slowly rising through the sections, over the cells."""
    n_z, n_x, n_y = shape_zxy
    for k in range(n_z * anisotropy // 40 + 1):
        radius, rise = 7 * UNIT + _pick(9 * UNIT, seed, 32, k), _pick(9, seed, 33, k) - 4
        height = (z[:, None, None] - _pick(n_z, seed, 34, k)) * (anisotropy * UNIT)
        if np.abs(height).min() > radius + abs(rise) * max(n_x, n_y):
            continue
        dx, dy = x - _pick(n_x * UNIT, seed, 35, k), y - _pick(n_y * UNIT, seed, 36, k)
        along, across = _frame(seed, 30, k, dx, dy)
        square = across**2 + (height - along * rise // 16) ** 2
        tube, beyond = square < radius**2, np.maximum(0, np.abs(along % 2048 - 1024) - 360)
        body = square + beyond**2 < (radius * 5 // 8) ** 2
        lines = ((across + along // 64) % 60 < 9) * np.uint8(FILAMENT)
        np.copyto(label, first + k, where=tube)
        np.copyto(organ, np.where(body, np.uint8(MITO), lines), where=tube)


def _edges(label, axes=(1, 2)):
    """Return where an x or y neighbour carries another label (bool, one voxel on either side)."""
    edge = np.zeros(label.shape, bool)
    for axis in axes:
        low, high = (slice(None),) * axis + (slice(-1),), (slice(None),) * axis + (slice(1, None),)
        differs = label[low] != label[high]
        edge[low] |= differs
        edge[high] |= differs
    return edge


def _grown(flag, n=1):
    for _ in range(n):
        flag = flag | _edges(flag)
    return flag


def _depth(pre, post):
    """Return the steps (int8; 99: none) from the contact of the partners to each of their voxels."""
    depth = np.full(pre.shape, 99, np.int8)
    flag = (pre & _grown(post)) | (post & _grown(pre))
    for k in range(12 if flag.any() else 0):
        depth[flag & (pre | post) & (depth == 99)] = k
        # Turns of a square and of a cross keep a slanted cleft as thick as an upright one.
        for axes in ((1, 2),) if k & 1 else ((1,), (2,)):
            flag = flag | _edges(flag, axes)
    return depth


def _add_synapse(seed, label, organ, x, y, z, centre, shape_zxy, anisotropy):
    """Write bouton, cleft and spine into `label`; return signed distance and depth from the cleft."""
    size = (min(27, 8 + min(shape_zxy[1:]) // 8) * 16 + _pick(17, seed, 42)) * UNIT // 16
    dz = (z - shape_zxy[0] // 2)[:, None, None]
    bulge = size**2 - np.minimum(np.abs(dz) * anisotropy * UNIT, 2 * size) ** 2 * 5 // 8
    half = np.minimum(size * 5 // 8 + np.maximum(0, np.abs(dz) * anisotropy - 20), size * 3 // 2)
    along, across = _frame(seed, 40, 0, x - centre[0], y - centre[1])
    along = along - np.clip(dz * (_pick(17, seed, 43) - 8), -size, size)
    pre = (along + half) ** 2 + across**2 - np.maximum(bulge, (size * 7 // 16) ** 2)
    post = (along - half) ** 2 + across**2 - np.maximum(bulge, (size * 6 // 16) ** 2)
    bow = across**2 // (size * (5 + _pick(6, seed, 44)))
    gap = (pre - post) // (4 * half) + (1 - 2 * _pick(2, seed, 45)) * bow
    np.copyto(label, PRE, where=(pre < 0) & (gap < 0))
    np.copyto(label, POST, where=(post < 0) & (gap >= 0))
    far = (along + half * 15 // 8) ** 2 + (across - size // 4) ** 2 < (size * 5 // 16) ** 2
    np.copyto(organ, (far & (label == PRE)) * np.uint8(MITO), where=label < FIRST_CELL)
    depth = _depth(label == PRE, label == POST)
    np.copyto(label, CLEFT, where=depth < 2)
    return gap, depth


def _vesicles(seed, z, label, gap, clear, kind, rough):
    """Return the indices (section, x, y) of the centres of the vesicles in the sections `z`."""
    corner = [np.arange(1, n // 5 - 1) for n in label.shape[1:]]
    at = (z[:, None, None], corner[0][:, None], corner[1])
    i = np.broadcast_to(np.arange(z.size)[:, None, None], (z.size, corner[0].size, corner[1].size))
    spot = (i, at[1] * 5 + _draw(2, seed, 60, *at), at[2] * 5 + _draw(2, seed, 61, *at))
    chance = _draw(256, seed, 62, *at)
    near = (label[spot] == PRE) & (gap[spot] < -6 * UNIT) & (chance < 350 + gap[spot])
    other = (kind[label[spot]] == 0) & (label[spot] >= FIRST_CELL) & (chance < 45 + 6 * rough[spot])
    keep = (near | other) & clear[spot]
    return tuple(axis[keep] for axis in spot)


def _stamp(ink, spots, offsets, value):
    for dx, dy in offsets:
        ink[spots[0], spots[1] + dx, spots[2] + dy] = value


def _stain_mitochondria(ink, mito, label, rough, x, y):
    at = np.nonzero(mito)
    turn = label[at] & 3
    stripe = np.where(turn & 1, x[at], y[at]) + np.where(turn & 2, x[at], -x[at]) // 2 + rough[at] // 2
    ink[at] = np.where(stripe % 44 < 20, 88, 40)
    np.copyto(ink, 108, where=mito & _edges(mito))


def _ink(seed, z, label, organ, gap, depth, kind, rough, x, y):
    """Return the stain (int16) of membranes, organelles, vesicles and the synapse."""
    edge = _edges(label)
    thick, near = _grown(edge), _grown(edge, 2)
    ink = (edge | (thick & (rough > 9))) * np.int16(INK_MEMBRANE)
    np.copyto(ink, 30, where=(organ == FILAMENT) & ~near)
    mito = (organ == MITO) & ~near
    _stain_mitochondria(ink, mito, label, rough, x, y)
    clear = ~near & ~_grown(mito, 3)
    vesicles = _vesicles(seed, z, label, gap, clear, kind, rough)
    _stamp(ink, vesicles, [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)], -18)
    rim = [(a, b) for a in range(-2, 3) for b in range(-2, 3) if max(abs(a), abs(b)) == 2 and abs(a * b) < 4]
    _stamp(ink, vesicles, rim, INK_VESICLE)
    np.copyto(ink, INK_MEMBRANE, where=depth < 4)
    np.copyto(ink, INK_DENSITY, where=(label == POST) & (depth > 2) & (depth < 8 + rough // 8))
    np.copyto(ink, INK_CLEFT, where=label == CLEFT)
    return ink, edge


def _blurred(values):
    """Return int16 `values` blurred in x and y with the weights 1, 2, 1."""
    for axis in (1, 2):
        wide = np.pad(values, [(0, 0)] + [(int(a == axis),) * 2 for a in (1, 2)], mode="edge")
        parts = [wide[(slice(None),) * axis + (slice(k, k + values.shape[axis]),)] for k in range(3)]
        values = parts[0] + 2 * parts[1] + parts[2]
    return values >> 4


def _developed(seed, z, base, ink):
    """Return the picture (uint8): blurred stain and grain, drifting contrast, a few extreme pixels."""
    n, rows = base[0].size, z[:, None]
    # A stated byte order makes the eight grain bytes of a word the same everywhere.
    grain = _hash(seed, 70, rows, np.arange(-(-n // 8))).astype("<u8").view(np.uint8)[:, :n]
    grain = grain.astype(np.int16).reshape(base.shape) - 128
    grey = base + _blurred(grain * 9 // 16 - ink)
    gain, shift = (_draw(m, seed, 71, z, m)[:, None, None] for m in (41, 3072))
    grey = np.clip(((grey.astype(np.int32) - 128) * (gain + 1004) + shift >> 10) + 127, 1, 255).astype(
        np.uint8
    )
    for salt, value in ((73, 255), (74, 1)):
        lone = _draw(n, seed, salt, rows, np.arange(n // 6000 + 1))
        grey.reshape(z.size, -1)[np.arange(z.size)[:, None], lone] = value
    return grey


def _block(seed, z, shape_zxy, anisotropy, centre, sites):
    """Return picture and mask (uint8, axes z, x, y) of the sections `z[1:]`; `z[0]` only lends its labels."""
    plane = shape_zxy[1:]
    x, y = _warped(seed, z, plane, anisotropy)
    label, organ = _cells(seed, sites, x, y, z, anisotropy)
    n_cells = sites[0].size + FIRST_CELL
    _add_axons(seed, label, organ, x, y, z, shape_zxy, anisotropy, n_cells)
    gap, depth = _add_synapse(seed, label, organ, x, y, z, centre, shape_zxy, anisotropy)
    kind = _draw(8, seed, 50, np.arange(n_cells + shape_zxy[0] * anisotropy // 40 + 1))
    tone = (117 + 7 * _draw(8, seed, 51, np.arange(kind.size))).astype(np.int16)
    tone[[PRE, CLEFT, POST]] = 142, 142, 154
    rough = _field(seed, 52, z, plane, 6, 1, 6).astype(np.int16)
    ink, edge = _ink(seed, z, label, organ, gap, depth, kind, rough, x, y)
    ink[1:] += ((label[1:] != label[:-1]) & ~edge[1:] & (ink[1:] < 30)) * np.int16(INK_OBLIQUE)
    grey = _developed(seed, z, tone[label] + rough // 2, ink)
    outside = (label > POST) | ((label != CLEFT) & (edge | (depth < 4)))
    return grey[1:], np.where(outside, 0, label).astype(np.uint8)[1:]


def _cut_order(seed, z, plane):
    """Return the flat indices (x, y) of a section in the order in which a torn corner swallows them."""
    sides = []
    for a, n in enumerate(plane):
        at, step = np.arange(n), 1 + _pick(6, seed, 80, z, a)
        torn = _draw(4 * step, seed, 81, z, a, at) * (_draw(3, seed, 82, z, a, at // 7) == 0)
        sides.append(np.cumsum(step + torn, dtype=np.int64)[:: 1 - 2 * _pick(2, seed, 83, z, a)])
    # Both sides rise strictly, so the pixels before any pixel in this order are connected with it.
    return np.argsort(sides[0][:, None] + sides[1], axis=None, kind="stable")


def _checked(shape_xyz, black_sections, cut_sections, anisotropy):
    """Return shape, anisotropy, black sections and cuts as Python integers, or raise ValueError."""
    shape = tuple(operator.index(n) for n in shape_xyz)
    if len(shape) != 3 or any(n < least for n, least in zip(shape, MIN_SHAPE_XYZ, strict=False)):
        raise ValueError(f"shape_xyz must hold three lengths of at least {MIN_SHAPE_XYZ}, got {shape}")
    ratio = operator.index(anisotropy)
    if not 1 <= ratio <= 20:
        raise ValueError(f"anisotropy must be a whole number from 1 to 20, got {ratio}")
    pairs = cut_sections.items() if isinstance(cut_sections, Mapping) else cut_sections
    black, cuts = [operator.index(z) for z in black_sections], [tuple(map(operator.index, p)) for p in pairs]
    sections = black + [z for z, _ in cuts]
    for k, z in enumerate(sections):
        if not 0 <= z < shape[2]:
            raise ValueError(f"a black or cut section must lie in 0..{shape[2] - 1}, got z = {z}")
        if z in sections[:k]:
            raise ValueError(f"a section may be named once among black and cut sections, got z = {z} twice")
    for z, n_pixels in cuts:
        if not 0 <= n_pixels <= shape[0] * shape[1]:
            raise ValueError(f"n_pixels must lie in 0..{shape[0] * shape[1]}, got {n_pixels} for z = {z}")
    return shape, ratio, black, cuts


def make_chunk(
    seed: int,
    shape_xyz: tuple[int, int, int] = (128, 128, 64),
    black_sections: Iterable[int] = (),
    cut_sections: Mapping[int, int] | Iterable[tuple[int, int]] = (),
    anisotropy: int = 5,
) -> tuple[np.ndarray, np.ndarray]:
    """Make a synthetic EM chunk with one synapse in its centre, and the labels of that synapse.

    The picture imitates a volume of 8 x 8 x 40 nm voxels: neurites with dark membranes, mitochondria and
    vesicles, grain that differs from section to section, and sections that differ a little in brightness and
    contrast. It is made for demonstrations and tests; nothing can be measured on it about real tissue.

    Parameters
    ----------
    seed : int
        Any whole number. The same arguments give the same bytes on every machine.
    shape_xyz : tuple of int, default (128, 128, 64)
        Size of the chunk in voxels, at least (64, 64, 8); z is the section axis.
    black_sections : iterable of int, default ()
        Sections whose picture is wholly 0. Without any, every section is imaged.
    cut_sections : mapping of int to int, or iterable of pairs, default ()
        ``{z: n_pixels}`` or ``((z, n_pixels), ...)``: exactly `n_pixels` pixels of section z are 0.
        They form one connected ragged region in a corner. Without any, no section is cut.
    anisotropy : int, default 5
        Distance of two sections in xy voxels, 1 to 20; 5 stands for 40 nm sections and 8 nm pixels.

    Returns
    -------
    em_xyz : numpy.ndarray
        Grey values, uint8, shape `shape_xyz`, C order. Imaged pixels lie in 1..255; 0 means not imaged.
    mask_xyz : numpy.ndarray
        Labels, uint8, shape `shape_xyz`, C order: 0 background, 1 presynaptic neuron, 2 synaptic cleft,
        3 postsynaptic neuron. Outer membranes are background. Black and cut sections keep their labels.

    Raises
    ------
    ValueError
        If `shape_xyz` is too small or not three lengths, `anisotropy` is out of range, a section lies outside
        the chunk or is named twice, or `n_pixels` is not in 0..x*y.
    TypeError
        If one of the numbers is not a whole number.

    Examples
    --------
    >>> em_xyz, mask_xyz = make_chunk(7, (64, 64, 8), black_sections=(0,), cut_sections={1: 41})
    >>> em_xyz.shape, int((em_xyz == 0).sum()), mask_xyz[:, :, 4].max().item()
    ((64, 64, 8), 4137, 3)
    """
    shape, anisotropy, black, cuts = _checked(shape_xyz, black_sections, cut_sections, anisotropy)
    seed, (n_x, n_y, n_z) = operator.index(seed), shape
    shape_zxy, plane = (n_z, n_x, n_y), (n_x, n_y)
    sites = _sites(seed, plane)
    centre = [int(c[0, n_x // 2, n_y // 2]) for c in _warped(seed, np.array([n_z // 2]), plane, anisotropy)]
    em_zxy, mask_zxy = np.empty(shape_zxy, np.uint8), np.empty(shape_zxy, np.uint8)
    for low in range(0, n_z, N_BLOCK):
        z = np.arange(low - 1, min(low + N_BLOCK, n_z), dtype=np.int32)
        em_zxy[z[1:]], mask_zxy[z[1:]] = _block(seed, z, shape_zxy, anisotropy, centre, sites)
    for z, n_pixels in cuts + [(z, n_x * n_y) for z in black]:
        em_zxy[z].reshape(-1)[_cut_order(seed, z, plane)[:n_pixels]] = 0
    return np.ascontiguousarray(em_zxy.transpose(1, 2, 0)), np.ascontiguousarray(mask_zxy.transpose(1, 2, 0))
