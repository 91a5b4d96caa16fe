"""One chunk that is cut from volumes, around a synapse of a table: a raw pair that is read on demand.

Sections are counted in the chunk, from 0; nothing is read but those that are asked for, and what it takes to
find the cleft.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np

from synprep._core import arrays, grid, layers, npy, problems, stores, tables
from synprep._core.errors import ChunkError, counted
from synprep._core.layers import Layer
from synprep._core.problems import Problem
from synprep._core.stores import Triple
from synprep._core.volume_settings import Settings

CONTACT = "contact"  # the cleft is where the neurons touch
_CONTACT_NM, _CONTACT_FARTHEST_NM = 20.0, 300.0  # from both neurons, from the centre
_FAR_NM = 200.0  # a cleft that is farther from the centre may be another one
_SLAB_BYTES = 32 << 20  # of a volume that are in memory at a time
_NEAR = 1e-3  # square nanometres, below which squares are equal

Allocate = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class VolumePair:
    """One synapse of a table, whose EM and mask are cut from volumes when they are read."""

    synapse_id: str
    centre_nm: Triple
    pre_id: int
    post_id: int
    volumes: Settings = field(hash=False)
    cutout_pixel_value: int = 0

    @property
    def name(self) -> str:
        """What a person knows it by."""
        return self.synapse_id

    def layers(self) -> dict[str, Layer]:
        """Opened volumes by name, once per process; no cleft if it is the contact."""
        names = ("em", "segmentation") if self.volumes.cleft == CONTACT else ("em", "segmentation", "cleft")
        specs = {name: getattr(self.volumes, name) for name in names}
        return layers.open_layers(json.dumps(specs), self.volumes.voxel_size_nm, self.volumes.cache_mb)

    def open(self) -> "Cut":
        """Open the volumes; nothing is read yet."""
        return Cut(self)

    def open_em(self) -> AbstractContextManager["CutArray"]:
        """Open the EM; nothing is read yet."""
        return nullcontext(Cut(self).em)

    def state(self) -> list[Any]:
        """What the chunk is cut by: as long as this is equal, so are EM and mask."""
        return [[*self.centre_nm], [self.pre_id, self.post_id], self._identity()]

    def _identity(self) -> str:
        """Hash of all that decides what is cut around a synapse, but the cutout pixel value."""
        parts = {name: layer.identity for name, layer in self.layers().items()}
        parts |= {
            name: getattr(self.volumes, name) for name in ("voxel_size_nm", "chunk_shape", "missing_em")
        }
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def locate(self, problem: Problem, stage: str) -> Problem:
        """Say of which chunk a problem is, and at which stage of the work it was found."""
        paths = [stores.parse(spec).shown for spec in (self.volumes.em, self.volumes.segmentation)]
        return replace(problem, synapse_id=self.synapse_id, stage=stage, em_path=paths[0], mask_path=paths[1])


@dataclass(frozen=True)
class CutArray:
    """EM or mask of a chunk, to be used as an `npy.NpyFile`; volumes stay open."""

    path: str
    header: npy.Header
    _read: Callable[[range, Allocate], np.ndarray]

    def fetch(self, start: int, stop: int) -> None:
        """Do nothing: what is read is fetched in one go."""

    def read(self, start: int = 0, stop: int | None = None, allocate: Allocate = npy.fresh) -> np.ndarray:
        """Read the sections ``start <= z < stop``; by default all."""
        return self._read(range(self.header.shape[2])[start:stop], allocate)


@dataclass(frozen=True)
class _Cleft:
    """What was found near the centre; without id if nothing was."""

    cleft_id: str = ""
    distance_nm: float = math.nan
    contact: Sequence[np.ndarray] = ()  # x, y and z of its voxels in the chunk, if it is one


class Cut:
    """A chunk that is cut from volumes, to be used as a `chunk.RawPair`, and what is found meanwhile."""

    def __init__(self, pair: VolumePair):
        volumes, self._pair, self.synapse_id = pair.volumes, pair, pair.synapse_id
        self._layers, self._grid_nm = pair.layers(), volumes.voxel_size_nm
        self.shape = volumes.chunk_shape
        self._start = grid.chunk_start(pair.centre_nm, self._grid_nm, self.shape)
        self._em_fill = pair.cutout_pixel_value if volumes.missing_em == "cutout" else None
        header = npy.Header(self.shape, True, np.dtype(np.uint8), 0)
        self.em = CutArray(self._layers["em"].path, header, self._read_em)
        self.mask = CutArray(self._layers["segmentation"].path, header, self._read_mask)
        self._cleft: _Cleft | None = None  # not looked for yet
        self._em_sections, self._outside_fraction = range(0), 0.0
        self._absent = defaultdict(set)  # blocks, by name of the volume and sections that were asked for

    def __enter__(self) -> "Cut":
        return self

    def __exit__(self, *_) -> None:
        """Do nothing: volumes stay open."""

    @property
    def state(self) -> list[Any]:
        """What the chunk is cut by."""
        return self._pair.state()

    def _read_em(self, sections: range, allocate: Allocate) -> np.ndarray:
        """Read sections of the EM; raises a ChunkError if all lie outside, or a block is absent."""
        weights = self._weights("em", sections)
        n_inside = math.prod(int(axis.is_inside.sum()) for axis in weights)
        if not n_inside:
            raise ChunkError("the chunk lies outside of the EM", self._where(), self.em.path)
        self._em_sections = sections
        self._outside_fraction = 1 - n_inside / math.prod((*self.shape[:2], len(sections)))
        if all(axis.is_copy for axis in weights):
            return self._read("em", weights, sections, allocate)
        em_xyz, fill = self._empty("em", sections, allocate), self._pair.cutout_pixel_value
        for part, axes, source_xyz in self._parts("em", weights, sections):
            means = [(axis.first - axis.bounds[0], axis.weights) for axis in axes]
            _kernels().resample(source_xyz, means, fill, em_xyz[:, :, part])
        return em_xyz

    def _where(self) -> str:
        centre = ", ".join(f"{number:g}" for number in self._pair.centre_nm)
        bounds = ", ".join(f"{low:g} to {high:g}" for low, high in self._layers["em"].bounds_nm)
        return f"its centre is {centre} nm; the EM goes from {bounds} nm"

    def _read_mask(self, sections: range, allocate: Allocate) -> np.ndarray:
        """Read sections of the mask: neurons, with the cleft on top."""
        mask_xyz = self._neurons(sections, allocate)
        if self._cleft is None:
            self._cleft = self._nearest_cleft(sections) if "cleft" in self._layers else self._find_contact()
        if len(self._cleft.contact):
            x, y, z = self._cleft.contact
            is_here = (sections.start <= z) & (z < sections.stop)
            mask_xyz[x[is_here], y[is_here], z[is_here] - sections.start] = arrays.CLEFT
        elif self._cleft.cleft_id:
            self._mark("cleft", {int(self._cleft.cleft_id): arrays.CLEFT}, sections, mask_xyz)
        return mask_xyz

    def _neurons(self, sections: range, allocate: Allocate) -> np.ndarray:
        mask_xyz = self._empty("segmentation", sections, allocate)
        mask_xyz[...] = arrays.BACKGROUND
        labels = {self._pair.pre_id: arrays.PRESYNAPTIC, self._pair.post_id: arrays.POSTSYNAPTIC}
        self._mark("segmentation", labels, sections, mask_xyz)
        return mask_xyz

    def _mark(self, name: str, labels: Mapping[int, int], sections: range, mask_xyz: np.ndarray) -> None:
        for part, ids_xyz, axes in self._ids(name, sections):
            _kernels().mark(ids_xyz, axes, labels, mask_xyz[part])

    def _nearest_cleft(self, sections: range) -> _Cleft:
        """Find the cleft; beyond some sections only if none in them is nearer than their edge."""
        found = self._nearest(sections)
        centre, size, first = self._pair.centre_nm[2], self._grid_nm[2], self._start[2]
        edges = [centre - (first + sections.start) * size if sections.start else math.inf]
        edges += [(first + sections.stop) * size - centre if sections.stop < self.shape[2] else math.inf]
        if found is None or math.sqrt(found[0]) >= min(edges):
            found = self._nearest(range(self.shape[2]))
        return _Cleft(str(found[2]), math.sqrt(found[0])) if found else _Cleft()

    def _nearest(self, sections: range) -> tuple[float, tuple[int, int, int], int] | None:
        """Squared distance, voxel and id of the nearest cleft in some sections."""
        squares, nearest = self._squares(sections), []
        for part, ids_xyz, axes in self._ids("cleft", sections):
            there = [axis[inside] for axis, inside in zip(squares, part, strict=True)]
            if found := _kernels().nearest(ids_xyz, axes, there):
                voxel = tuple(inside.start + k for inside, k in zip(part, found[1], strict=True))
                nearest.append((found[0], voxel, found[2]))
        return min(nearest, default=None)

    def _find_contact(self) -> _Cleft:
        """Find the voxels where the neurons touch, in as many sections as it takes."""
        from scipy import ndimage  # few data sets need it

        squares, reach = self._squares(range(self.shape[2])), _CONTACT_NM + _CONTACT_FARTHEST_NM
        near = x, y, z = [np.flatnonzero(axis <= reach**2 + _NEAR) for axis in squares]
        if not all(axis.size for axis in near):
            return _Cleft()
        neurons_xyz = self._neurons(range(z[0], z[-1] + 1), npy.fresh)[np.ix_(x, y)]
        ball = grid.ball(_CONTACT_NM, self._grid_nm)
        squares_xyz = squares[0][x, None, None] + squares[1][y, None] + squares[2][z]
        is_contact = squares_xyz <= _CONTACT_FARTHEST_NM**2 + _NEAR
        for label in (arrays.PRESYNAPTIC, arrays.POSTSYNAPTIC):
            is_contact &= ndimage.binary_dilation(neurons_xyz == label, ball, mask=is_contact)
        if not is_contact.any():
            return _Cleft()
        voxels = [axis[k] for axis, k in zip(near, np.nonzero(is_contact), strict=True)]
        return _Cleft(CONTACT, math.sqrt(squares_xyz[is_contact].min()), voxels)

    # Parts of volumes

    def _ids(self, name: str, sections: range) -> Iterator[tuple]:
        """Read ids part by part: the part of the sections that they cover, ids, where each grid voxel is."""
        for part, axes, ids_xyz in self._parts(name, self._weights(name, sections), sections):
            if ids_xyz.size:
                x, y, z = (axis.inside for axis in axes)
                places = [axis.first[axis.inside] - axis.bounds[0] for axis in axes]
                yield (x, y, slice(part.start + z.start, part.start + z.stop)), ids_xyz, places

    def _parts(
        self, name: str, weights: Sequence[grid.Weights], sections: range
    ) -> Iterator[tuple[slice, list[grid.Weights], np.ndarray]]:
        """Read a volume so that it does not take too much memory: sections, weights, voxels."""
        n_voxels = math.prod(high - low for low, high in (axis.bounds for axis in weights))
        n_bytes = max(1, n_voxels * self._layers[name].dtype.itemsize)
        n, (x, y, z) = max(1, len(sections) * _SLAB_BYTES // n_bytes), weights
        for start in range(0, len(sections), n):
            part = slice(start, start + n)
            axes = [x, y, grid.Weights(z.first[part], z.weights[part])]
            yield part, axes, self._read(name, axes, sections, npy.reused("volume"))

    def _bounds(self, sections: range) -> list[tuple[int, int]]:
        """Grid voxels of some sections, along x, y and z."""
        x, y, z = self._start
        return [(x, x + self.shape[0]), (y, y + self.shape[1]), (z + sections.start, z + sections.stop)]

    def _weights(self, name: str, sections: range) -> list[grid.Weights]:
        """How the voxels of a volume make those of some sections, along x, y and z."""
        layer = self._layers[name]
        methods = (grid.averaged, grid.averaged, grid.stacked) if name == "em" else (grid.sampled,) * 3
        axes = map(grid.Axis, self._grid_nm, layer.voxel_size_nm, layer.offset_nm, layer.shape_xyz)
        sides = zip(methods, axes, self._bounds(sections), strict=True)
        return [weigh(axis, *bounds) for weigh, axis, bounds in sides]

    def _squares(self, sections: range) -> list[np.ndarray]:
        """Squared distances from the centre in nm, along each axis, for some sections."""
        sides = zip(self._pair.centre_nm, self._grid_nm, self._bounds(sections), strict=True)
        return [grid.squared_distances(centre, size, *bounds) for centre, size, bounds in sides]

    def _read(
        self, name: str, weights: Sequence[grid.Weights], sections: range, allocate: Allocate
    ) -> np.ndarray:
        """Read what grid voxels need of a volume, and note which blocks are absent."""
        low, high = zip(*(axis.bounds for axis in weights), strict=True)
        fill = self._em_fill if name == "em" else arrays.BACKGROUND
        values_xyz, absent = self._layers[name].read(low, high, fill, allocate)
        self._absent[name, sections] |= absent
        return values_xyz

    def _empty(self, name: str, sections: range, allocate: Allocate) -> np.ndarray:
        """Memory for some sections, in the order of a volume."""
        shape, order = (*self.shape[:2], len(sections)), "F" if self._layers[name].is_fortran else "C"
        return allocate(math.prod(shape)).reshape(shape, order=order)

    # What was found

    def warnings(self) -> list[Problem]:
        """What is to be said of the sections that have been read."""
        found = []
        if self._outside_fraction:
            share = f"{100 * self._outside_fraction:.3g} %"
            kind = "part of the chunk lies outside of the EM, and is cutout"
            found.append(problems.warning(kind, detail=share))
        for name, layer in self._layers.items():
            blocks = set().union(*(blocks for (of, _), blocks in self._absent.items() if of == name))
            if blocks and layer.format == "precomputed":
                becomes = "cutout" if name == "em" else "background"
                kind = f"blocks of the {name} volume are absent, and {becomes}"
                found.append(problems.warning(kind, detail=counted(len(blocks), "block")))
        if self._cleft and not self._cleft.cleft_id:
            found.append(problems.warning(problems.NO_CLEFT))
        elif self._cleft and self._cleft.distance_nm > _FAR_NM:
            kind = f"the nearest cleft is more than {_FAR_NM:g} nm from the centre"
            found.append(problems.warning(kind, detail=f"{self._cleft.distance_nm:.0f} nm"))
        return found

    def sources_row(self) -> dict[str, str | int | float]:
        """Row of `sources.csv`, after EM and mask have been read."""
        pair, cleft = self._pair, self._cleft or _Cleft()
        absent = [len(blocks) for (_, read), blocks in self._absent.items() if read == self._em_sections]
        values = (
            pair.synapse_id,
            *pair.centre_nm,
            *self._start,
            str(pair.pre_id),
            str(pair.post_id),
            cleft.cleft_id,
            round(cleft.distance_nm, 3),
            sum(absent),
            round(self._outside_fraction, 6),
        )
        return dict(zip(tables.SOURCES_COLUMNS, values, strict=True))


def _kernels() -> ModuleType:
    """Compiled loops, imported when the first chunk is there: loading the compiler takes a moment."""
    from synprep._core import cut_kernels

    return cut_kernels
