"""EM, segmentation and cleft volumes: the scale that fits a grid, and boxes of its voxels.

Volumes are read strictly: a block that is absent, or a server that does not answer, is never taken for zeros.
"""

import hashlib
import itertools
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from synprep._core import grid, stores
from synprep._core.errors import ChunkError, ParameterError, listed
from synprep._core.paths import project_root
from synprep._core.stores import DRIVERS, Source, Triple

_NANOMETRES = {
    **dict.fromkeys(("angstrom", "Å"), 0.1),
    **dict.fromkeys(("nanometer", "nanometre", "nm"), 1.0),
    **dict.fromkeys(("micrometer", "micrometre", "micron", "um", "µm"), 1e3),
    **dict.fromkeys(("millimeter", "millimetre", "mm"), 1e6),
    **dict.fromkeys(("meter", "metre", "m"), 1e9),
}
_COARSEST = 1.5 + 1e-6  # voxel of a volume / voxel of the grid, and a little for rounding
_LEAST_NM, _MOST_NM = 1e-3, 1e9  # edges that a voxel can have
_ENCODINGS = ("raw", "jpeg", "png", "compressed_segmentation")
_AS_MAPPING = "write the volume as a mapping with path and"
_opening = threading.Lock()


@dataclass(frozen=True)
class Layer:
    """An EM, segmentation or cleft volume that is open, at one scale; axes are x, y, z."""

    path: str  # as given, FORMAT://LOCATION
    scale: str  # its name in the store
    voxel_size_nm: Triple
    offset_nm: Triple  # corner of voxel 0
    shape_xyz: tuple[int, int, int]
    block_xyz: tuple[int, int, int]
    dtype: np.dtype
    is_fortran: bool  # x varies fastest in its blocks, not z
    identity: str  # hash of path, scale, voxel size, offset, axes and what the store says of itself
    warning: str  # empty, or that its voxels are coarser than the grid's
    _store: Any = field(repr=False, compare=False)
    _source: Source = field(repr=False, compare=False)
    _folder: str = field(repr=False, compare=False)  # of the store: what it says of this scale is there

    @property
    def bounds_nm(self) -> tuple[tuple[float, float], ...]:
        """Where the volume begins and ends along x, y and z."""
        sides = zip(self.offset_nm, self.voxel_size_nm, self.shape_xyz, strict=True)
        return tuple((offset, offset + n * size) for offset, size, n in sides)

    @property
    def format(self) -> str:
        """Format, such as "zarr"."""
        return self._source.format

    def read(
        self,
        start_xyz: Sequence[int],
        stop_xyz: Sequence[int],
        fill: int | None = None,
        allocate: Callable[[int], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, set[tuple[int, ...]]]:
        """Read a box of voxels that lies in the volume, (x, y, z), and say which of its blocks are absent.

        An absent block holds the value `fill`, or raises a ChunkError if there is none, as all does that
        goes wrong. The memory order is the store's; `allocate` as for `npy.NpyFile.read`.
        """
        shape = [stop - start for start, stop in zip(start_xyz, stop_xyz, strict=True)]
        n_bytes = int(np.prod(shape)) * self.dtype.itemsize
        memory = allocate(n_bytes) if allocate else np.empty(n_bytes, np.uint8)
        values = memory.view(self.dtype).reshape(shape, order="F" if self.is_fortran else "C")
        if not n_bytes:
            return values, set()
        absent = stores.wait(self._source, self._reading(values, start_xyz, start_xyz, stop_xyz))
        if absent and fill is None:
            raise self._absent_error(absent)
        return values, self._read_blocks(values, start_xyz, stop_xyz, fill) if absent else set()

    def _reading(
        self, values: np.ndarray, first: Sequence[int], start: Sequence[int], stop: Sequence[int]
    ) -> Any:
        """Begin to read a box into an array whose first voxel is `first`."""
        part = tuple(slice(a - c, b - c) for a, b, c in zip(start, stop, first, strict=True))
        target = stores.tensorstore().array(values[part], copy=False)
        return target.write(self._store[tuple(map(slice, start, stop))])

    def _absent_error(self, absent: str) -> ChunkError:
        choice = "with missing_em: cutout it becomes cutout"
        if self.format != "precomputed":
            choice += f" ({self.format} stores no block that holds nothing but the fill value)"
        absent = absent.replace(f"{project_root()}/", "")
        return ChunkError("a block of the EM is absent", f"{absent}; {choice}", self.path)

    def _read_blocks(
        self, values: np.ndarray, start: Sequence[int], stop: Sequence[int], fill: int
    ) -> set[tuple[int, ...]]:
        """Read a box block by block; those that are absent hold `fill`, and are returned."""
        values[...] = fill
        sides, readings = zip(start, stop, self.block_xyz, strict=True), {}
        for block in itertools.product(*(range(a // n, -(-b // n)) for a, b, n in sides)):
            corner = np.multiply(block, self.block_xyz)
            low, high = np.maximum(corner, start), np.minimum(corner + self.block_xyz, stop)
            readings[block] = self._reading(values, start, low, high)
        absent = {block for block, reading in readings.items() if stores.wait(self._source, reading)}
        if stores.read_json(self._source, self._folder) is None:  # then all blocks are absent
            raise ChunkError("there is no such store", "it was there when the run began", self.path)
        return absent


@lru_cache
def open_layers(specs: str, grid_nm: Triple, cache_mb: int) -> dict[str, Layer]:
    """Open volumes by name, "em" and others, once per process; `specs` is JSON.

    Raises as `open_layer`, with the key of `volumes`, and if the EM is not uint8, or another volume does not
    hold integers.
    """
    opened = {}
    for name, spec in json.loads(specs).items():
        try:
            layer = opened[name] = open_layer(spec, grid_nm, cache_mb)
            if name == "em" and layer.dtype != np.uint8:
                raise layer._source.error(f"must be uint8; it is {layer.dtype}")
            if layer.dtype.kind not in "bui":
                raise layer._source.error(f"must hold integers; it is {layer.dtype}")
        except ParameterError as error:
            raise ParameterError(f"volumes: {name}: {error}") from error
        except ChunkError as error:
            raise ChunkError(error.kind, error.detail, f"volumes: {name}: {error.path}") from error
    return opened


def open_layer(spec: str | Mapping[str, Any], grid_nm: Sequence[float], cache_mb: int = 512) -> Layer:
    """Open a volume at the scale that fits a grid.

    Raises a ParameterError that says how to write it, or a ChunkError if the store does not answer.
    """
    source = stores.parse(spec, cache_mb)
    with _opening:  # so that threads share one cache
        try:
            return _opened(source, _scales(source), grid_nm)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise source.error(f"what its store says of it cannot be read: {error!r}") from error


def _warning(source: Source, scale: "_Scale", grid_nm: Sequence[float]) -> str:
    """Say that voxels are coarser than the grid's; raises a ParameterError if they are much coarser."""
    coarseness, size = grid.coarseness(scale.voxel_size_nm, grid_nm), _shown(scale.voxel_size_nm)
    if coarseness > _COARSEST:
        found = f"its finest voxels, {size} nm, are more than 1.5 times as coarse"
        raise source.error(f"{found} as voxel_size_nm, {_shown(grid_nm)}")
    return f"its voxels, {size} nm, are coarser than those of the chunks" if coarseness > 1 else ""


def _opened(source: Source, scales: Sequence["_Scale"], grid_nm: Sequence[float]) -> Layer:
    if not scales:
        raise source.error("its store says no scales")
    scale = scales[grid.choose_scale([one.voxel_size_nm for one in scales], grid_nm)]
    warning = _warning(source, scale, grid_nm)
    _agree(source, scale)
    if source.format == "precomputed" and (name := stores.packed_block(source, scale.name)):
        remedy = "unpack them, with gunzip -r, or write them with compress=False"
        raise source.error(f"its blocks are compressed files, such as {scale.name}/{name}: {remedy}")
    store = _turned(source, stores.open_array(source, scale.folder, **scale.options), scale.axes)
    place = scale.name, scale.voxel_size_nm, scale.offset_nm
    said = [source.shown, *place, scale.axes, scale.metadata or stores.read_json(source, scale.folder)]
    order = store.chunk_layout.inner_order
    return Layer(
        source.path,
        *place,
        shape_xyz=tuple(map(int, store.shape)),
        block_xyz=tuple(map(int, store.chunk_layout.read_chunk.shape)),
        dtype=store.dtype.numpy_dtype,
        is_fortran=order.index(0) > order.index(2),
        identity=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16],
        warning=warning,
        _store=store,
        _source=source,
        _folder=scale.folder,
    )


def _agree(source: Source, scale: "_Scale") -> None:
    """Raise a ParameterError if the parameter says something else than the store."""
    for key in ("voxel_size_nm", "offset_nm", "axes"):
        said, stored = getattr(source, key), getattr(scale, key)
        if said and said != stored:
            said, stored = (one if key == "axes" else _shown(one) for one in (said, stored))
            raise source.error(f"{key} is {said}, but the store says {stored}: leave {key} out")


def _turned(source: Source, store: Any, axes: str) -> Any:
    """Give an array the axes x, y and z, beginning at voxel 0."""
    if len(axes) != store.rank:
        raise source.error(f"axes is {axes!r}, but the array has {store.rank} axes")
    for number in reversed(range(len(axes))):
        if axes[number] not in "xyz":
            if store.shape[number] != 1:
                raise source.error(f"axis {axes[number]} has {store.shape[number]} values; it must have one")
            store = store[(slice(None),) * number + (store.domain[number].inclusive_min,)]
    kept = [axis for axis in axes if axis in "xyz"]
    store = store.transpose([kept.index(axis) for axis in "xyz"])
    return store[stores.tensorstore().d[:].translate_to[0]]


def _shown(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


# What the store says


@dataclass(frozen=True)
class _Scale:
    """One array of a store, and where it lies."""

    name: str
    voxel_size_nm: Triple
    offset_nm: Triple  # corner of voxel 0
    axes: str
    folder: str = ""  # below the store: what it says of the array is there
    options: Mapping[str, Any] = field(default_factory=dict)  # for tensorstore
    metadata: Any = None  # what the store says of it, if that has been read

    def __post_init__(self):
        is_placed = all(map(math.isfinite, self.offset_nm))
        if not is_placed or not all(_LEAST_NM <= size <= _MOST_NM for size in self.voxel_size_nm):
            found = f"{_shown(self.voxel_size_nm)} nm, from {_shown(self.offset_nm)} nm"
            raise ValueError(f"voxels of {found}")


def _scales(source: Source) -> list[_Scale]:
    """Scales that a store has, by what it says and what the parameter adds."""
    metadata = stores.read_json(source, "")
    if source.format == "precomputed" and metadata:
        return _precomputed_scales(source, metadata)
    attributes = (metadata or {}).get("attributes") or {}
    if source.format == "zarr" and metadata is None:
        attributes = stores.read_json(source, "", ".zattrs") or {}
    if multiscales := attributes.get("ome", attributes).get("multiscales"):
        return [_ome_scale(source, multiscales[0], dataset) for dataset in multiscales[0]["datasets"]]
    if metadata is None:
        raise _not_there(source)
    if metadata.get("node_type") == "group" or (source.format == "n5" and "dimensions" not in metadata):
        raise source.error("is a group that says no scales: name one of its arrays")
    return [_array_scale(source)]


def _not_there(source: Source) -> Exception:
    """Error about a store that is not there, or has another format."""
    for name, (_, file) in [*DRIVERS.items(), ("zarr", ("zarr", ".zgroup"))]:
        if stores.read_json(source, "", file) is not None:
            if name == source.format:
                return source.error("is a group that says no scales: name one of its arrays")
            return source.error(f"is {name}: write {name}://{source.location}")
    return ChunkError("there is no such store", f"it has no {DRIVERS[source.format][1]}", source.path)


def _precomputed_scales(source: Source, info: Mapping[str, Any]) -> list[_Scale]:
    strange = {one["encoding"] for one in info["scales"]} - {*_ENCODINGS}
    if strange:
        remedy = "write it again as compressed_segmentation, with igneous or cloud-volume"
        raise source.error(f"encoding {listed(sorted(strange))} is not read: {remedy}")
    about = {key: info.get(key) for key in ("type", "data_type", "num_channels")}
    scales = []
    for number, one in enumerate(info["scales"]):
        size = tuple(map(float, one["resolution"]))
        offset = tuple(a * b for a, b in zip(size, one.get("voxel_offset", (0, 0, 0)), strict=True))
        scales.append(_Scale(one["key"], size, offset, "xyzc", "", {"scale_index": number}, [about, one]))
    return scales


def _ome_scale(source: Source, multiscale: Mapping[str, Any], dataset: Mapping[str, Any]) -> _Scale:
    """Scale of an OME-Zarr, whose translation is the centre of voxel 0."""
    axes = multiscale["axes"]
    names = "".join(axis["name"][0].lower() for axis in axes)
    units = {name: _NANOMETRES.get(axis.get("unit")) for name, axis in zip(names, axes, strict=True)}
    if not all(units[name] for name in "xyz"):
        advice = (
            f"name one of its arrays, such as {source.path}/{dataset['path']}, with voxel_size_nm and axes"
        )
        raise source.error(f"its axes have no unit of length: {advice}")
    size, centre, is_placed = np.ones(len(axes)), np.zeros(len(axes)), False
    for step in (*dataset["coordinateTransformations"], *multiscale.get("coordinateTransformations", ())):
        size, centre = size * step.get("scale", 1), centre * step.get("scale", 1) + step.get("translation", 0)
        is_placed |= "translation" in step
    size_nm = tuple(_nm(size[names.index(name)] * units[name]) for name in "xyz")
    centre_nm = (centre[names.index(name)] * units[name] for name in "xyz")
    corner_nm = tuple(_nm(point - length / 2) for point, length in zip(centre_nm, size_nm, strict=True))
    is_said = source.offset_nm and not is_placed
    folder = dataset["path"]
    return _Scale(folder, size_nm, source.offset_nm if is_said else corner_nm, names, folder)


def _array_scale(source: Source) -> _Scale:
    """Scale of a single array, by its labels and units, if it has them, and what the parameter says."""
    store = stores.open_array(source, "")
    labels = store.domain.labels
    axes = "".join(labels) if {*"xyz"} <= {*labels} else source.axes
    if not axes:
        raise source.error(f"the store does not say its axes: {_AS_MAPPING} axes, such as 'zyx'")
    by_axis = dict(zip(axes, store.dimension_units, strict=False))
    units = [by_axis.get(name) for name in "xyz"]
    if all(unit and unit.base_unit in _NANOMETRES for unit in units):
        size = tuple(_nm(unit.multiplier * _NANOMETRES[unit.base_unit]) for unit in units)
    elif not (size := source.voxel_size_nm):
        raise source.error(f"the store does not say its voxel size: {_AS_MAPPING} voxel_size_nm (x, y, z)")
    return _Scale("", size, source.offset_nm or (0.0, 0.0, 0.0), axes)


def _nm(length: float) -> float:
    return round(float(length), 6)  # 0.0072 micrometers are 7.2 nm
