import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from functools import partial

import numpy as np
import pytest
import write_volumes
from write_volumes import BLOCK, WRITERS, write

from synprep._core import paths, stores
from synprep._core.errors import ChunkError, ParameterError
from synprep._core.layers import open_layer

GRID = (8, 8, 40)
SHAPE = (19, 17, 12)


def random_array(name="em", shape=SHAPE):
    """EM, or ids with few values, none of them 0."""
    rng = np.random.default_rng(0)
    if "compressed" in name:
        return rng.integers(2**40, 2**40 + 5, shape).astype(np.uint64)
    return rng.integers(1, 256, shape, dtype=np.uint8)


# What is read


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_says_where_it_lies_and_is_read(name, tmp_path):
    array_xyz = random_array(name)
    layer = open_layer(write(name, tmp_path, array_xyz, offset_nm=(-16, 80, 400)), GRID)
    assert (layer.voxel_size_nm, layer.offset_nm) == ((8, 8, 40), (-16, 80, 400))
    assert layer.bounds_nm == ((-16, 136), (80, 216), (400, 880))
    assert (layer.shape_xyz, layer.block_xyz, layer.dtype) == (SHAPE, BLOCK, array_xyz.dtype)
    assert not layer.warning
    for start, stop in [
        ((0, 0, 0), SHAPE),
        ((3, 5, 2), (11, 13, 9)),
        ((18, 16, 11), SHAPE),
        ((2, 2, 2),) * 2,
    ]:
        values_xyz, absent = layer.read(start, stop)
        assert np.array_equal(values_xyz, array_xyz[tuple(map(slice, start, stop))])
        assert values_xyz.dtype == array_xyz.dtype
        assert absent == set()


@pytest.mark.parametrize(
    ("name", "is_fortran"), [("precomputed", True), ("zarr xyz", False), ("OME-Zarr 0.4", True)]
)
def test_memory_has_the_order_of_the_store(name, is_fortran, tmp_path):
    layer = open_layer(write(name, tmp_path, random_array()), GRID)
    memory = np.empty(1000, np.uint8)
    values_xyz, _ = layer.read((0, 0, 0), (5, 4, 3), allocate=lambda n: memory[:n])
    assert layer.is_fortran == values_xyz.flags.f_contiguous == is_fortran
    assert np.shares_memory(values_xyz, memory)


def test_an_ome_zarr_without_translation_begins_half_a_voxel_before_0(tmp_path):
    write("OME-Zarr 0.4", tmp_path, random_array())
    said = json.loads((tmp_path / ".zattrs").read_text())
    del said["multiscales"][0]["datasets"][0]["coordinateTransformations"][1]
    (tmp_path / ".zattrs").write_text(json.dumps(said))
    assert open_layer(f"zarr://{tmp_path}", GRID).offset_nm == (-4, -4, -20)
    at_zero = {"path": f"zarr://{tmp_path}", "offset_nm": [0, 0, 0]}
    assert open_layer(at_zero, GRID).offset_nm == (0, 0, 0)


def test_transformations_of_all_scales_of_an_ome_zarr_come_last(tmp_path):
    write("OME-Zarr 0.5", tmp_path, random_array())
    said = json.loads((tmp_path / "zarr.json").read_text())
    steps = [
        {"type": "scale", "scale": [1, 10, 2, 2]},
        {"type": "translation", "translation": [0, 1, 0, 0.5]},
    ]
    said["attributes"]["ome"]["multiscales"][0]["coordinateTransformations"] = steps
    (tmp_path / "zarr.json").write_text(json.dumps(said))
    layer = open_layer(f"zarr3://{tmp_path}", (16, 16, 40))
    assert layer.voxel_size_nm == (16, 16, 400)
    assert layer.offset_nm == (500, 0, 1000)


def write_scales(folder, sizes=((4, 4, 40), (8, 8, 40), (16, 16, 40))):
    arrays = {size: random_array(shape=(8 * 16 // size[0], 6, 4)) for size in sizes}
    for size, array_xyz in arrays.items():
        write("precomputed", folder, array_xyz, size)
    return arrays


@pytest.mark.parametrize(
    ("grid", "chosen"), [((8, 8, 40), 8), ((9, 9, 40), 8), ((16, 16, 40), 16), ((3, 3, 40), 4)]
)
def test_the_scale_that_fits_is_read(grid, chosen, tmp_path):
    arrays = write_scales(tmp_path)
    layer = open_layer(f"precomputed://{tmp_path}", grid)
    assert layer.voxel_size_nm == (chosen, chosen, 40)
    assert layer.scale == f"{chosen}_{chosen}_40"
    assert np.array_equal(layer.read((0, 0, 0), layer.shape_xyz)[0], arrays[chosen, chosen, 40])
    assert bool(layer.warning) == (grid[0] < 4)


@pytest.mark.parametrize(("size", "is_read"), [(12, True), (12.1, False)])
def test_voxels_may_be_1_5_times_as_coarse(size, is_read, tmp_path):
    path = write("precomputed", tmp_path, random_array(), (size, size, 40))
    if is_read:
        assert open_layer(path, GRID).warning
        return
    with pytest.raises(ParameterError, match=r"12.1 x 12.1 x 40 nm, are more than 1.5 times as coarse"):
        open_layer(path, GRID)


def test_a_scale_of_an_ome_zarr(tmp_path):
    fine, coarse = random_array(), random_array(shape=(9, 8, 12))
    write_volumes.write("zarr xyz", tmp_path / "a", fine)
    write_volumes.write("zarr xyz", tmp_path / "b", coarse)
    said = write_volumes.multiscales({"a": ((4, 4, 40), (0, 0, 0)), "b": ((8, 8, 40), (4, 0, 0))})
    said[0]["axes"] = [{"name": name, "unit": "micrometer"} for name in "zyx"]
    for one in said[0]["datasets"]:
        for step in one["coordinateTransformations"]:
            step[step["type"]] = step[step["type"]][1:]
    (tmp_path / ".zattrs").write_text(json.dumps({"multiscales": said}))
    layer = open_layer(f"zarr://{tmp_path}", GRID)
    assert (layer.scale, layer.voxel_size_nm, layer.offset_nm) == ("b", (8, 8, 40), (4, 0, 0))
    # the arrays were written with x first, which their metadata calls z
    assert np.array_equal(layer.read((0, 0, 0), layer.shape_xyz)[0], coarse.T)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_volumes_of_the_zarr_package(zarr_format, tmp_path):
    import zarr

    array_xyz = random_array()
    made = zarr.create_array(
        tmp_path / "em", shape=array_xyz.shape, chunks=BLOCK, dtype="uint8", zarr_format=zarr_format
    )
    made[...] = array_xyz
    name = {2: "zarr", 3: "zarr3"}[zarr_format]
    layer = open_layer({"path": f"{name}://{tmp_path}/em", "voxel_size_nm": GRID, "axes": "xyz"}, GRID)
    assert np.array_equal(layer.read((1, 2, 3), SHAPE)[0], array_xyz[1:, 2:, 3:])


def test_an_ome_zarr_of_the_zarr_package(tmp_path):
    import zarr

    array_xyz = random_array()
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    made = group.create_array(
        "s0", shape=(1, *SHAPE[::-1]), chunks=(1, 2, 3, 4), shards=(1, 4, 6, 8), dtype="uint8"
    )
    made[0] = array_xyz.T
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": write_volumes.multiscales({"s0": (GRID, (8, 0, -40))}),
    }
    layer = open_layer(f"zarr3://{tmp_path}", GRID)
    assert layer.offset_nm == (8, 0, -40)
    assert np.array_equal(layer.read((0, 0, 0), SHAPE)[0], array_xyz)


def test_an_array_that_says_its_axes_and_units_needs_nothing(tmp_path):
    write("n5", tmp_path, random_array())
    path = tmp_path / "attributes.json"
    said = json.loads(path.read_text())
    path.write_text(
        json.dumps(said | {"axes": ["x", "y", "z"], "units": ["nm", "nm", "um"], "resolution": [8, 8, 0.04]})
    )
    layer = open_layer(f"n5://{tmp_path}", GRID)
    assert (layer.voxel_size_nm, layer.offset_nm) == (GRID, (0, 0, 0))
    with pytest.raises(ParameterError, match=r"axes is zyx, but the store says xyz: leave axes out"):
        open_layer({"path": f"n5://{tmp_path}", "axes": "zyx"}, GRID)


def test_paths_from_the_root_and_from_home(tmp_path, monkeypatch):
    write("precomputed", tmp_path / "data" / "em", random_array())
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "data"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "data"))
    named = [
        "precomputed://data/em",
        "precomputed://~/em",
        f"precomputed://{(tmp_path / 'data' / 'em').as_uri()}",
    ]
    for path in named:
        assert open_layer(path, GRID).path == path
        assert open_layer(path, GRID).shape_xyz == SHAPE
    inside = open_layer(f"precomputed://{tmp_path / 'data' / 'em'}", GRID)
    assert inside.identity == open_layer("precomputed://data/em", GRID).identity  # a project may be moved


# What is absent


@pytest.mark.parametrize("name", WRITERS)
def test_an_absent_block_is_an_error_or_the_value_that_is_asked_for(name, tmp_path):
    array_xyz = random_array(name)
    spec = write(name, tmp_path, array_xyz, offset_nm=(80, 80, 400), absent=(1, 0, 2))
    layer = open_layer(spec, GRID)
    assert np.array_equal(layer.read((0, 0, 0), (8, 17, 12))[0], array_xyz[:8])
    with pytest.raises(
        ChunkError, match=r"a block of the EM is absent: chunk {.*} stored at .*cutout"
    ) as caught:
        layer.read((0, 0, 0), SHAPE)
    assert caught.value.path == layer.path
    assert str(tmp_path) in caught.value.detail
    assert ("fill value" in caught.value.detail) == (not name.startswith("precomputed"))
    expected_xyz = array_xyz.copy()
    expected_xyz[8:16, :6, 8:] = 7
    values_xyz, absent = layer.read((0, 0, 0), SHAPE, 7)
    assert np.array_equal(values_xyz, expected_xyz)
    assert absent == {(1, 0, 2)}
    assert np.array_equal(layer.read((9, 2, 1), (17, 9, 11), 7)[0], expected_xyz[9:17, 2:9, 1:11])
    assert layer.read((8, 0, 8), (16, 6, 12), 7)[1] == {(1, 0, 2)}


def test_a_store_that_vanishes_is_not_a_store_without_blocks(tmp_path):
    layer = open_layer(write("precomputed", tmp_path / "em", random_array()), GRID)
    shutil.rmtree(tmp_path / "em")
    with pytest.raises(ChunkError, match="there is no such store: it was there when the run began"):
        layer.read((0, 0, 0), SHAPE, 0)


def blocks_of(folder):
    names = ("info", "zarr.json", "attributes.json")
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in names and path.name[0] != "."
    ]


@pytest.mark.parametrize("damage", ["cut", "emptied", "scrambled"])
@pytest.mark.parametrize("name", WRITERS)
def test_damaged_blocks_are_never_values(name, damage, tmp_path):
    spec = write(name, tmp_path, random_array(name))
    for path in blocks_of(tmp_path):
        content = path.read_bytes()
        path.write_bytes(
            {"cut": content[: len(content) // 2], "emptied": b"", "scrambled": os.urandom(99)}[damage]
        )
    layer = open_layer(spec, GRID)
    for fill in (None, 0):
        with pytest.raises(ChunkError, match=r"^\S+: the store cannot be used: \S"):
            layer.read((0, 0, 0), SHAPE, fill)


# What makes a chunk current


def test_identity(tmp_path):
    arrays = write_scales(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    spec = write("zarr xyz", tmp_path / "c", random_array())
    path = f"precomputed://{tmp_path / 'a'}"
    base = open_layer(path, GRID).identity
    others = [
        open_layer(path, (16, 16, 40)),  # another scale
        open_layer(f"precomputed://{tmp_path / 'b'}", GRID),  # another path
        open_layer(spec, GRID),
        open_layer(spec | {"offset_nm": [0, 0, 8]}, GRID),
        open_layer(spec | {"voxel_size_nm": [8, 8, 41]}, GRID),
        open_layer(spec | {"axes": "zyx"}, GRID),
    ]
    assert len({base, *(layer.identity for layer in others)}) == 7
    write("precomputed", tmp_path / "a", next(iter(arrays.values())), (64, 64, 40))
    assert open_layer(path, GRID).identity == base  # another scale has come
    said = json.loads((tmp_path / "a" / "info").read_text())
    said["scales"][1]["voxel_offset"] = [0, 1, 0]
    (tmp_path / "a" / "info").write_text(json.dumps(said))
    stores._context.cache_clear()
    assert open_layer(path, GRID).identity != base
    zarray = json.loads((tmp_path / "c" / ".zarray").read_text())
    (tmp_path / "c" / ".zarray").write_text(json.dumps(zarray | {"shape": [9, 9, 9]}))
    assert open_layer(spec, GRID).identity != others[2].identity


# Parameters that cannot be


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("em", "em: must be FORMAT://LOCATION, with FORMAT one of precomputed, zarr, zarr3, n5"),
        ("gs://bucket/em", "must be FORMAT://LOCATION"),
        ("precomputed:/data/em", "must be FORMAT://LOCATION"),
        ("precomputed://", "must be FORMAT://LOCATION"),
        ("precomputd://em", "did you mean precomputed?"),
        ("zarr2://em", "did you mean zarr"),
        (
            "graphene://https://x.org/table",
            "changes with every edit: take a flat segmentation of the version",
        ),
        ("hdf5://em.h5", "HDF5 is not read: convert it to zarr or precomputed"),
        ("zarr://data/em.h5", "HDF5 is not read"),
        ("zarr://data/em.TIF", "TIFF is not read"),
        ("precomputed://ftp://host/em", "must have a path, or a URL: file:///..., http, https, gs or s3"),
        ("precomputed://file://data/em", "must have a path, or a URL"),
    ],
)
def test_a_parameter_that_cannot_be_says_how_to_write_it(spec, message):
    with pytest.raises(ParameterError) as caught:
        open_layer(spec, GRID)
    assert message in str(caught.value)


def damaged(name, change):
    def make(folder):
        spec = write(name, folder, random_array())
        path = folder / {"precomputed": "info", "OME-Zarr 0.4": ".zattrs"}.get(name, "zarr.json")
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))
        return spec

    return make


def scale(**said):
    return lambda info: info["scales"][0].update(said)


def without(name, *keys, **said):
    def make(folder):
        spec = write(name, folder, random_array()) | said
        return {key: value for key, value in spec.items() if key not in keys}

    return make


def renamed(name, other):
    def make(folder):
        spec = write(name, folder, random_array())
        path = spec if isinstance(spec, str) else spec["path"]
        return f"{other}://{path.partition('://')[2]}"

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (renamed("zarr xyz", "precomputed"), "is zarr: write zarr://"),
        (renamed("zarr3 zyx", "zarr"), "is zarr3: write zarr3://"),
        (renamed("precomputed", "n5"), "is precomputed: write precomputed://"),
        (renamed("OME-Zarr 0.4", "zarr3"), "is zarr: write zarr://"),
        (renamed("n5", "zarr3"), "is n5: write n5://"),
        (
            without("zarr xyz", "voxel_size_nm"),
            "does not say its voxel size: write the volume as a mapping with path and",
        ),
        (
            without("zarr xyz", "axes"),
            "does not say its axes: write the volume as a mapping with path and axes",
        ),
        (without("n5", "axes"), "does not say its axes"),
        (without("zarr xyz", axes="zyxc"), "axes is 'zyxc', but the array has 3 axes"),
        (without("zarr xyz", axes="tcxyz"), "axes is 'tcxyz', but the array has 3 axes"),
        (
            lambda folder: {
                "path": write("precomputed", folder, random_array()),
                "voxel_size_nm": [4, 4, 40],
            },
            "voxel_size_nm is 4 x 4 x 40, but the store says 8 x 8 x 40: leave voxel_size_nm out",
        ),
        (
            lambda folder: {"path": write("OME-Zarr 0.4", folder, random_array()), "offset_nm": [4, 4, 40]},
            "offset_nm is 4 x 4 x 40, but the store says 0 x 0 x 0",
        ),
        (
            lambda folder: write("precomputed", folder, random_array(), (13, 13, 40)),
            "its finest voxels, 13 x 13 x 40 nm, are more than 1.5 times as coarse as voxel_size_nm",
        ),
        (
            damaged("precomputed", lambda info: info["scales"][0].update(encoding="compresso")),
            "encoding compresso is not read: write it again as compressed_segmentation",
        ),
        (
            damaged("precomputed", lambda info: info.pop("scales")),
            "what its store says of it cannot be read: KeyError('scales')",
        ),
        (damaged("precomputed", lambda info: info["scales"].clear()), "says no scales"),
        (
            damaged("precomputed", lambda info: info.update(num_channels=3)),
            "axis c has 3 values; it must have one",
        ),
        (damaged("precomputed", lambda info: info["scales"][0].update(resolution=[8, 8])), "cannot be read"),
        (damaged("precomputed", lambda info: info["scales"][0].update(key=5)), "cannot be read"),
        *(
            (damaged("precomputed", scale(resolution=size)), f"voxels of {shown} nm, from ")
            for size, shown in (
                ([0, 8, 40], "0 x 8 x 40"),
                ([8, -8, 40], "8 x -8 x 40"),
                ([8, 8, 1e-300], "8 x 8 x 1e-300"),
                ([float("inf"), 8, 40], "inf x 8 x 40"),
            )
        ),
        (
            damaged("OME-Zarr 0.4", lambda said: said["multiscales"][0]["axes"][1].pop("unit")),
            "s0, with voxel_size_nm and axes",
        ),
        (
            damaged("OME-Zarr 0.4", lambda said: said.pop("multiscales")),
            "is a group that says no scales: name one of its arrays",
        ),
        (
            damaged("OME-Zarr 0.5", lambda said: said["attributes"].pop("ome")),
            "is a group that says no scales",
        ),
        (damaged("OME-Zarr 0.4", lambda said: said["multiscales"][0]["axes"].pop()), "cannot be read"),
        (damaged("OME-Zarr 0.4", lambda said: said["multiscales"][0]["axes"][0].update(name="")), "be read"),
        (damaged("OME-Zarr 0.4", lambda said: said["multiscales"][0]["axes"][0].update(name="z")), "be read"),
    ],
)
def test_a_store_that_does_not_fit_says_what_to_write(make, message, tmp_path):
    spec = make(tmp_path)
    with pytest.raises(ParameterError) as caught:
        open_layer(spec, GRID)
    assert message in str(caught.value)
    assert str(caught.value).startswith((spec if isinstance(spec, str) else spec["path"]) + ": ")


def test_metadata_that_is_no_json(tmp_path):
    (tmp_path / "info").write_text("<html>please log in</html>")
    with pytest.raises(ChunkError, match="the store cannot be used: Expecting value"):
        open_layer(f"precomputed://{tmp_path}", GRID)


def test_blocks_that_cloud_volume_has_compressed_are_not_absent(tmp_path):
    write("precomputed", tmp_path, random_array())
    for path in blocks_of(tmp_path):
        path.rename(f"{path}.gz")
    with pytest.raises(
        ParameterError, match=r"its blocks are compressed files, such as 8_8_40/\S+\.gz: unpack them"
    ):
        open_layer(f"precomputed://{tmp_path}", GRID)


def test_nothing_there(tmp_path):
    with pytest.raises(ChunkError, match="there is no such store: it has no info"):
        open_layer(f"precomputed://{tmp_path / 'nothing'}", GRID)


# Servers


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, and does something else for files whose name matches."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.asked, self.answer, self.concerned = Counter(), None, "-"  # block names have a -
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, *_):
        """Say nothing of clients that went away."""

    @property
    def path(self):
        return f"precomputed://http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked[self.path] += 1
        if (
            server.answer
            and server.concerned in self.path
            and not server.answer(self, server.asked[self.path])
        ):
            return
        super().do_GET()


def status(code, n_times=10**6):
    def answer(handler, n_asked):
        if n_asked > n_times:
            return True
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return False

    return answer


def cut_short(handler, _):
    handler.send_response(200)
    handler.send_header("Content-Length", "192")
    handler.end_headers()
    handler.wfile.write(b"x" * 100)
    handler.close_connection = True


def wrong_page(handler, _):
    handler.send_response(200)
    handler.send_header("Content-Length", "9")
    handler.end_headers()
    handler.wfile.write(b"log in...")


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setitem(stores._TRIES, "initial_delay", "1ms")
    monkeypatch.setitem(stores._TRIES, "max_delay", "2ms")
    stores._context.cache_clear()
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as running:
        yield running
        running.shutdown()
    stores._context.cache_clear()


def serve(server, tmp_path):
    array_xyz = random_array()
    write("precomputed", tmp_path / "served", array_xyz)
    return array_xyz


@pytest.mark.parametrize(
    ("answer", "message", "n_asked"),
    [
        (status(404), r"a block of the EM is absent: chunk .* stored at http://.*/8_8_40/\d+-\d+_", 1),
        (status(403), "the store refuses access: .*Forbidden", 1),
        (status(401), "the store refuses access: .*Unauthorized", 1),
        (status(410), "there is no such store: .*Gone", 1),
        (status(503), "the store does not answer: .*All 3 retry attempts failed: Service Unavailable", 4),
        (status(500), "the store does not answer", 4),
        (status(429), "the store does not answer", 4),
        (cut_short, "the store does not answer: .*partial file", 4),
        (wrong_page, "the store cannot be used: .*Expected chunk length", 1),
    ],
)
def test_servers_that_do_not_give_a_block(server, tmp_path, answer, message, n_asked):
    serve(server, tmp_path)
    layer = open_layer(server.path, GRID)
    server.answer = answer
    with pytest.raises(ChunkError, match=message):
        layer.read((0, 0, 0), BLOCK)
    assert server.asked["/8_8_40/0-8_0-6_0-4"] == n_asked
    if "absent" not in message:
        with pytest.raises(ChunkError, match=message):  # nothing but absent is ever filled
            layer.read((0, 0, 0), SHAPE, 0)


def test_a_server_that_answers_at_the_third_try(server, tmp_path):
    array_xyz = serve(server, tmp_path)
    server.answer = status(503, 2)
    values_xyz, absent = open_layer(server.path, GRID).read((0, 0, 0), BLOCK)
    assert np.array_equal(values_xyz, array_xyz[:8, :6, :4])
    assert not absent
    assert server.asked["/8_8_40/0-8_0-6_0-4"] == 3


def test_one_absent_block_of_a_server(server, tmp_path):
    array_xyz = serve(server, tmp_path)
    server.answer, server.concerned = status(404), "/8-16_0-6_4-8"
    values_xyz, absent = open_layer(server.path, GRID).read((0, 0, 0), SHAPE, 3)
    array_xyz[8:16, :6, 4:8] = 3
    assert np.array_equal(values_xyz, array_xyz)
    assert absent == {(1, 0, 1)}
    assert max(server.asked[path] for path in server.asked if "-" in path and path[-7:] != "0-6_4-8") == 1


def test_a_store_that_a_server_no_longer_has(server, tmp_path):
    serve(server, tmp_path)
    layer = open_layer(server.path, GRID)
    server.answer, server.concerned = status(404), ""
    with pytest.raises(ChunkError, match="there is no such store"):
        layer.read((0, 0, 0), SHAPE, 0)
    with pytest.raises(ChunkError, match="there is no such store: it has no info"):
        open_layer(server.path, GRID)


@pytest.mark.parametrize(
    ("code", "kind"), [(403, "the store refuses access"), (503, "the store does not answer")]
)
def test_a_store_that_cannot_be_opened(server, code, kind):
    server.answer, server.concerned = status(code), ""
    with pytest.raises(ChunkError, match=kind):
        open_layer(server.path, GRID)


def test_a_port_where_nobody_listens(server):
    path = server.path
    server.shutdown()
    server.server_close()
    with pytest.raises(ChunkError, match="the store does not answer"):
        open_layer(path, GRID)


def test_neighbours_share_what_was_fetched(server, tmp_path):
    serve(server, tmp_path)
    layer = open_layer(server.path, GRID)
    for first in range(0, 11):
        layer.read((first, first // 2, 0), (first + 8, first // 2 + 8, 12))
    open_layer(server.path, GRID).read((0, 0, 0), SHAPE)
    blocks = [n for path, n in server.asked.items() if "-" in path]
    assert len(blocks) == 27
    assert set(blocks) == {1}


def test_a_silent_server_is_given_up(server, tmp_path):
    """In a process of its own: the bound is read once, when tensorstore is imported."""
    serve(server, tmp_path)
    silent = threading.Event()
    server.answer = lambda *_: silent.wait(20)
    code = (
        "from synprep._core import stores, layers\n"
        "stores._SILENT_SECONDS = 1\n"
        "stores._TRIES.update(max_retries=1, initial_delay='1ms', max_delay='1ms')\n"
        f"layer = layers.open_layer({server.path!r}, (8, 8, 40))\n"
        "try: layer.read((0, 0, 0), (8, 6, 4))\n"
        "except Exception as error: print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TENSORSTORE")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    silent.set()
    assert "the store does not answer" in done.stdout, done.stderr
    assert "Timeout was reached" in done.stdout


def test_bounds_for_a_block():
    delays = [2, 4, 8]  # at most, between four tries, and as much again at random
    assert stores._TRIES == {"max_retries": 3, "initial_delay": "2s", "max_delay": "8s"}
    assert sum(delays) <= 30
    stores.tensorstore()
    for name in ("LOW_SPEED_TIME", "CONNECT_TIMEOUT"):
        assert os.environ[f"TENSORSTORE_CURL_{name}_SECONDS"] == "60"


# Where a store is


@pytest.mark.parametrize(
    ("path", "environment", "place"),
    [
        ("http://host/em/", {}, {"driver": "http", "base_url": "http://host/em/"}),
        ("https://host:8/a/em", {}, {"driver": "http", "base_url": "https://host:8/a/em/"}),
        ("gs://bucket/a/em", {}, {"driver": "gcs", "bucket": "bucket", "path": "a/em/"}),
        ("gs://bucket", {}, {"driver": "gcs", "bucket": "bucket", "path": ""}),
        ("s3://bucket/em", {}, {"aws_credentials": {"type": "anonymous"}}),
        ("s3://bucket/em", {"AWS_ACCESS_KEY_ID": "id"}, {"aws_credentials": {"type": "environment"}}),
        (
            "s3://bucket/em",
            {"AWS_PROFILE": "lab", "AWS_ENDPOINT_URL": "http://here", "AWS_REGION": "eu"},
            {
                "driver": "s3",
                "bucket": "bucket",
                "path": "em/",
                "endpoint": "http://here",
                "aws_region": "eu",
            },
        ),
    ],
)
def test_where_a_store_is(path, environment, place, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = stores._kvstore(stores.parse(f"precomputed://{path}"))
    assert found.items() >= place.items()
    below = stores._kvstore(stores.parse(f"zarr://{path}"), "s0")
    key = "base_url" if "http" in path[:5] else "path"
    assert below[key] == found[key] + "s0/"
