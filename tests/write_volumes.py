"""Write arrays as volumes of every format that is read, for tests."""

import itertools
import json

import numpy as np
import tensorstore as ts

BLOCK = (8, 6, 4)
SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 1,
    "minishard_bits": 1,
    "shard_bits": 1,
    "hash": "identity",
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}


def _fill(store_xyz, array_xyz, absent):
    """Write an array, but for one block."""
    target = store_xyz[ts.d[:].translate_to[0]]
    if absent is None:
        target.write(array_xyz).result()
        return
    for block in itertools.product(*(range(-(-n // b)) for n, b in zip(array_xyz.shape, BLOCK, strict=True))):
        box = tuple(
            slice(k * b, min(k * b + b, n)) for k, b, n in zip(block, BLOCK, array_xyz.shape, strict=True)
        )
        if block != absent:
            target[box].write(array_xyz[box]).result()


def _precomputed(folder, array_xyz, size_nm, offset_nm, absent, encoding="raw", sharding=None):
    offset = [round(a / b) for a, b in zip(offset_nm, size_nm, strict=True)]
    scale = {
        "size": list(array_xyz.shape),
        "resolution": list(size_nm),
        "voxel_offset": offset,
        "encoding": encoding,
        "chunk_size": list(BLOCK),
        "sharding": sharding,
    }
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = [4, 4, 4]
    spec = {
        "driver": "neuroglancer_precomputed",
        "store_data_equal_to_fill_value": True,
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "multiscale_metadata": {"type": "image", "data_type": str(array_xyz.dtype), "num_channels": 1},
        "scale_metadata": scale,
    }
    _fill(ts.open(spec, create=True, open=True).result()[..., 0], array_xyz, absent)
    return f"precomputed://{folder}"


def _array(folder, array_xyz, driver, axes, metadata, absent):
    """Write one array with other axes."""
    array, chunks = array_xyz, list(BLOCK)
    if "c" in axes:
        array, chunks = array_xyz[..., None], [*BLOCK, 1]
    order = ["xyzc".index(axis) for axis in axes]
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/"}}
    spec["store_data_equal_to_fill_value"] = True
    spec["metadata"] = metadata(array.transpose(order), [chunks[axis] for axis in order])
    store = ts.open(spec, create=True).result().transpose([axes.index(axis) for axis in "xyzc"[: len(axes)]])
    _fill(store[..., 0] if "c" in axes else store, array_xyz, absent)


def _zarr(array, chunks):
    return {
        "shape": array.shape,
        "chunks": chunks,
        "dtype": array.dtype.str,
        "fill_value": array.dtype.type(0).item(),
    }


def _zarr3(array, chunks):
    grid = {"name": "regular", "configuration": {"chunk_shape": [2 * n for n in chunks]}}
    codec = {"name": "sharding_indexed", "configuration": {"chunk_shape": chunks}}
    dtype = str(array.dtype)
    return {"shape": array.shape, "chunk_grid": grid, "codecs": [codec], "data_type": dtype, "fill_value": 0}


def _n5(array, chunks):
    dtype, compression = str(array.dtype), {"type": "gzip"}
    return {"dimensions": array.shape, "blockSize": chunks, "dataType": dtype, "compression": compression}


def _mapping(name, axes, metadata):
    def write(folder, array_xyz, size_nm, offset_nm, absent):
        _array(folder, array_xyz, name, axes, metadata, absent)
        said = {"voxel_size_nm": list(size_nm), "offset_nm": list(offset_nm), "axes": axes}
        return {"path": f"{name}://{folder}", **said}

    return write


def multiscales(scales):
    """Metadata of an OME-Zarr with axes c, z, y, x in micrometers, from voxel sizes and offsets by path."""
    datasets = []
    for path, (size_nm, offset_nm) in scales.items():
        size = [1.0, *(length / 1000 for length in reversed(size_nm))]
        corner = [-0.5, *(length / 1000 for length in reversed(offset_nm))]
        centre = [a + b / 2 for a, b in zip(corner, size, strict=True)]
        steps = [{"type": "scale", "scale": size}, {"type": "translation", "translation": centre}]
        datasets.append({"path": path, "coordinateTransformations": steps})
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    return [{"version": "0.4", "axes": [{"name": "c", "type": "channel"}, *space], "datasets": datasets}]


def _ome(folder, array_xyz, size_nm, offset_nm, absent, driver="zarr"):
    metadata = {"zarr": _zarr, "zarr3": _zarr3}[driver]
    _array(folder / "s0", array_xyz, driver, "czyx", metadata, absent)
    said = {"multiscales": multiscales({"s0": (size_nm, offset_nm)})}
    if driver == "zarr":
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(said))
    else:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": said}}
        (folder / "zarr.json").write_text(json.dumps(group))
    return f"{driver}://{folder}"


def _with(write, **options):
    return lambda *args: write(*args, **options)


WRITERS = {
    "precomputed": _precomputed,
    "precomputed, sharded": _with(_precomputed, sharding=SHARDING),
    "precomputed, compressed": _with(_precomputed, encoding="compressed_segmentation"),
    "precomputed, compressed and sharded": _with(
        _precomputed, encoding="compressed_segmentation", sharding=SHARDING
    ),
    "precomputed, png": _with(_precomputed, encoding="png"),
    "zarr xyz": _mapping("zarr", "xyz", _zarr),
    "zarr zyxc": _mapping("zarr", "zyxc", _zarr),
    "zarr3 zyx": _mapping("zarr3", "zyx", _zarr3),
    "zarr3 yxz": _mapping("zarr3", "yxz", _zarr3),
    "n5": _mapping("n5", "xyz", _n5),
    "OME-Zarr 0.4": _ome,
    "OME-Zarr 0.5": _with(_ome, driver="zarr3"),
}
EM_FORMATS = [name for name in WRITERS if "compressed" not in name]
ID_FORMATS = [name for name in WRITERS if "png" not in name]


def write(name, folder, array_xyz, size_nm=(8, 8, 40), offset_nm=(0, 0, 0), absent=None):
    """Write a volume; returns what the parameter says of it. `absent` is a block that is left out.

    The offset of precomputed is in whole voxels.
    """
    return WRITERS[name](folder, np.asarray(array_xyz), size_nm, offset_nm, absent)
