import itertools
import json
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_cut
import pytest
import write_volumes
from conftest import PROJECT
from hypothesis import given, settings
from hypothesis import strategies as st
from write_volumes import EM_FORMATS, ID_FORMATS, write

from synprep._core import arrays, chunk, cut, layers, paths, problems, tables
from synprep._core.chunk import Pair
from synprep._core.cut import Cut, VolumePair
from synprep._core.errors import ChunkError, ParameterError
from synprep._core.volume_settings import Settings

GRID = (8.0, 8.0, 40.0)
PRE, POST, OTHER = 864691135000000437, 864691135000000456, 2**64 - 1  # the first two are one float
MOUSE = PROJECT.parent / "shared" / "data" / "mouse_labels" / "labels_8_8_40.npz"
SEG_MASK_MAP = {key: label for key, label in arrays.MASK_KEYS.items()}


def volumes_of(em, segmentation, cleft, voxel_size_nm=GRID, chunk_shape=(256, 256, 256), **others):
    """What chunks are cut from, as `volume_settings.settings` gives it; the table is not read."""
    others |= {"synapse_table": "", "centre_unit_nm": (1.0, 1.0, 1.0), "chunk_shape": chunk_shape}
    return Settings(em=em, segmentation=segmentation, cleft=cleft, voxel_size_nm=voxel_size_nm, **others)


def random_volumes(rng, shape, n_clefts=3):
    """EM, neurons and clefts; the clefts are a few boxes."""
    em = rng.integers(0, 256, shape, dtype=np.uint8)
    neurons = rng.choice(np.array([0, PRE, POST, OTHER], np.uint64), shape)
    clefts = np.zeros(shape, np.uint64)
    for cleft_id in range(1, n_clefts + 1):
        low = [int(rng.integers(0, n)) for n in shape]
        clefts[tuple(slice(a, a + int(rng.integers(1, 4))) for a in low)] = cleft_id + 2**60
    return em, neurons, clefts


def write_all(folder, volumes, formats=("precomputed", "precomputed", "precomputed"), **where):
    """Write EM, segmentation and clefts; returns what the parameters say of them."""
    specs = []
    for name, array_xyz, store in zip(("em", "segmentation", "cleft"), volumes, formats, strict=True):
        (folder / name).mkdir()
        specs.append(write(store, folder / name, array_xyz, **where))
    return specs


def check(pair, placed, bounds):
    """Compare some sections, and then the whole chunk, with a plain cut."""
    volumes = pair.volumes
    grid_nm, shape, cutout = volumes.voxel_size_nm, volumes.chunk_shape, pair.cutout_pixel_value
    start = plain_cut.start_of(pair.centre_nm, grid_nm, shape)
    em_xyz = plain_cut.em(*placed[0], grid_nm, start, shape, cutout)
    labels = [plain_cut.ids(*one, grid_nm, start, shape) for one in placed[1:]]
    squares = plain_cut.squares(pair.centre_nm, grid_nm, start, shape)
    mask_xyz, cleft_id, distance = plain_cut.mask(*labels, *squares, pair.pre_id, pair.post_id)
    for low, high in (bounds, (0, shape[2])):
        raw = pair.open()
        try:
            assert np.array_equal(raw.em.read(low, high), em_xyz[:, :, low:high])
        except ChunkError as error:
            assert error.kind == "the chunk lies outside of the EM"
            assert (em_xyz[:, :, low:high] == cutout).all()
        assert np.array_equal(raw.mask.read(low, high), mask_xyz[:, :, low:high])
        row = raw.sources_row()
        assert row["cleft_id"] == ("" if cleft_id is None else str(cleft_id))
        assert np.isclose(row["cleft_distance_nm"], distance, atol=1e-3, equal_nan=True)
        assert [row["start_x"], row["start_y"], row["start_z"]] == start


# Against a plain cut


@st.composite
def places(draw, store):
    """Voxel size and offset of a volume that is brought onto the grid."""
    sizes = [GRID, GRID, (4, 4, 40), (4, 8, 20), (8, 8, 8), (7.5, 6, 45), (2, 4, 40), (12, 8, 40)]
    size = draw(st.sampled_from(sizes))
    steps = [draw(st.integers(-3, 3)) for _ in size]
    if not store.startswith("precomputed"):
        steps = [step + draw(st.sampled_from([0, 0.5, 0.1])) for step in steps]
    return size, [round(step * length, 3) for step, length in zip(steps, size, strict=True)]


@settings(max_examples=40)
@given(st.data(), st.integers(0, 2**32), st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 9)))
def test_any_chunk_equals_a_plain_cut(data, seed, shape):
    volumes = random_volumes(
        np.random.default_rng(seed), (19, 17, 12), data.draw(st.integers(0, 3), "clefts")
    )
    centre = tuple(data.draw(st.integers(0, 10 * n)) / 10 for n in (100, 90, 300))
    specs, placed = [], []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for number, formats in enumerate((EM_FORMATS, ID_FORMATS, ID_FORMATS)):
            store = data.draw(st.sampled_from(formats))
            place = data.draw(places(store))
            Path(folder, str(number)).mkdir()
            specs.append(write(store, Path(folder, str(number)), volumes[number], *place))
            placed.append((volumes[number], *place))
        patch.setattr(cut, "_SLAB_BYTES", data.draw(st.sampled_from([1, 2000, 1 << 25]), "bytes in memory"))
        pair = VolumePair("a", centre, PRE, POST, volumes_of(*specs, GRID, shape), 9)
        check(
            pair, placed, arrays.crop_bounds(shape[2], 5.0, data.draw(st.integers(0, shape[2]), "sections"))
        )


@pytest.mark.parametrize(
    "stores", list(itertools.zip_longest(EM_FORMATS, ID_FORMATS, fillvalue="precomputed"))
)
def test_every_format(stores, tmp_path):
    volumes = random_volumes(np.random.default_rng(0), (40, 36, 30))
    specs = write_all(tmp_path, volumes, (*stores, stores[1]), offset_nm=(80, -16, 400))
    pair = VolumePair("a", (250.0, 120.0, 1000.0), PRE, POST, volumes_of(*specs, GRID, (20, 20, 20)))
    check(pair, [(array, GRID, (80, -16, 400)) for array in volumes], (8, 13))


@pytest.mark.skipif(not MOUSE.exists(), reason="the real segmentation is not part of the project")
@pytest.mark.parametrize(
    "stores", [("precomputed", "precomputed, compressed and sharded"), ("zarr xyz", "zarr3 zyx")]
)
def test_real_neurites(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(write_volumes, "BLOCK", (64, 64, 32))
    neurons = np.load(MOUSE)["labels"].astype(np.uint64) << np.uint64(30)
    rng = np.random.default_rng(0)
    em, clefts = rng.integers(0, 256, neurons.shape, dtype=np.uint8), np.zeros_like(neurons)
    for cleft_id in range(1, 400):
        x, y, z = (int(rng.integers(0, n)) for n in neurons.shape)
        clefts[x : x + 20, y : y + 12, z : z + 4] = cleft_id
    specs = write_all(tmp_path, (em, neurons, clefts), (stores[0], *stores[1:] * 2))
    volumes = volumes_of(*specs, GRID, (128, 128, 100))
    around = [np.pad(array, ((64, 64), (64, 64), (50, 50))) for array in (em, neurons, clefts)]
    for _ in range(6):
        ids = []
        while len(ids) < 2:  # where two neurites meet
            x, y, z = rng.integers([20, 270, 5], [290, 370, 50]).tolist()
            there, counts = np.unique(
                neurons[x - 9 : x + 9, y - 9 : y + 9, z - 2 : z + 2], return_counts=True
            )
            ids = there[(there > 0) & (counts > 300)][:2].tolist()
        pair = VolumePair("a", (8.0 * x + 3, 8.0 * y, 40.0 * z + 39), *ids, volumes)
        box = slice(x, x + 128), slice(y, y + 128), slice(z, z + 100)
        start = x - 64, y - 64, z - 50
        squares = plain_cut.squares(pair.centre_nm, GRID, start, volumes.chunk_shape)
        mask_xyz, cleft_id, _ = plain_cut.mask(*(one[box] for one in around[1:]), *squares, *ids)
        assert [(mask_xyz == label).any() for label in range(4)] == [True] * 4
        with pair.open() as raw:
            assert np.array_equal(raw.em.read(40, 61), around[0][box][:, :, 40:61])
            assert np.array_equal(raw.mask.read(40, 61), mask_xyz[:, :, 40:61])
            assert np.array_equal(raw.mask.read(), mask_xyz)
            assert raw.sources_row()["cleft_id"] == str(cleft_id)


def test_4_nm_to_8_nm_is_the_mean(tmp_path):
    em = np.random.default_rng(0).integers(0, 256, (40, 40, 4), dtype=np.uint8)
    spec = write("precomputed", tmp_path, em, (4, 4, 40))
    pair = VolumePair("a", (80.0, 80.0, 80.0), PRE, POST, volumes_of(spec, spec, spec, GRID, (20, 20, 4)))
    means = em.reshape(20, 2, 20, 2, 4).mean(axis=(1, 3))
    em_xyz = pair.open().em.read()
    assert np.abs(em_xyz - means).max() <= 0.5
    assert np.array_equal(em_xyz, np.rint(means))  # halves to even


def test_em_and_labels_stay_on_one_grid(tmp_path):
    x, y = np.meshgrid(np.arange(80), np.arange(80), indexing="ij")
    is_disc = ((x - 41.3) ** 2 + (y - 37.8) ** 2 < 20**2)[..., None]
    disc = np.repeat(is_disc, 3, axis=2)
    specs = write_all(
        tmp_path, (disc * np.uint8(200), disc * np.uint64(PRE), disc * np.uint64(0)), size_nm=(7.5, 7.5, 40)
    )
    pair = VolumePair("a", (300.0, 300.0, 60.0), PRE, POST, volumes_of(*specs, GRID, (70, 70, 2)))
    expected = (np.argwhere(disc[:, :, 0]).mean(axis=0) + 0.5) * 7.5
    raw = pair.open()
    for array_xyz in (raw.em.read(), raw.mask.read()):
        weights = array_xyz[:, :, 0].astype(float)
        centre = [np.average(np.arange(70), weights=weights.sum(axis=axis)) for axis in (1, 0)]
        found = (np.array(centre) + 0.5 + [raw.sources_row()[f"start_{axis}"] for axis in "xy"]) * 8
        assert np.abs(found - expected).max() < 0.1 * 8


# The cleft


def cleft_pair(folder, voxels, centre_nm=(80.0, 80.0, 400.0), shape=(20, 20, 20), neurons=None):
    """Pair of a volume of 20 x 20 x 20 voxels, with the cleft ids of some voxels."""
    clefts = np.zeros((20, 20, 20), np.uint64)
    for voxel, cleft_id in voxels.items():
        clefts[voxel] = cleft_id
    neurons = np.full(clefts.shape, PRE, np.uint64) if neurons is None else neurons
    specs = write_all(folder, (np.ones(clefts.shape, np.uint8), neurons, clefts))
    return VolumePair("a", centre_nm, PRE, POST, volumes_of(*specs, GRID, shape))


def read_sections(monkeypatch):
    """List that takes the volume and sections of whatever is read."""
    read, seen = layers.Layer.read, []

    def spy(layer, start, stop, *rest):
        seen.append((layer.path.rpartition("/")[2], start[2], stop[2]))
        return read(layer, start, stop, *rest)

    monkeypatch.setattr(layers.Layer, "read", spy)
    return seen


def test_the_nearest_cleft_in_nm_not_in_voxels(tmp_path):
    raw = cleft_pair(
        tmp_path, {(10, 10, 12): 5, (17, 10, 10): 6}
    ).open()  # 2 sections are 100 nm, 7 voxels 60
    assert (raw.mask.read() == 2).sum() == 1
    row = raw.sources_row()
    assert row["cleft_id"] == "6"
    assert row["cleft_distance_nm"] == round((60**2 + 4**2 + 20**2) ** 0.5, 3)


@pytest.mark.parametrize("store", ["precomputed", "zarr xyz"])
def test_of_equally_near_clefts_the_first_is_taken(store, tmp_path):
    clefts = np.zeros((20, 20, 20), np.uint64)
    clefts[9, 10, 10], clefts[10, 9, 9], clefts[10, 10, 9], clefts[10, 10, 10] = 8, 5, 4, 3
    specs = write_all(tmp_path, (np.ones(clefts.shape, np.uint8), clefts, clefts), (store,) * 3)
    raw = VolumePair("a", (80.0, 80.0, 400.0), PRE, POST, volumes_of(*specs, GRID, (20, 20, 20))).open()
    raw.mask.read()
    assert raw.sources_row()["cleft_id"] == "8"


def test_a_cleft_nearer_than_the_edge_of_the_sections_is_final(tmp_path, monkeypatch):
    raw = cleft_pair(tmp_path, {(10, 10, 11): 5, (10, 10, 13): 6}).open()
    seen = read_sections(monkeypatch)
    raw.mask.read(8, 13)
    assert {(first, last) for _, first, last in seen} == {(8, 13)}
    assert raw.sources_row()["cleft_id"] == "5"


def test_a_cleft_beyond_the_edge_may_be_nearer(tmp_path):
    voxels = {(0, 0, 11): 5, (10, 10, 7): 6}  # 126 nm and, in the first section that is left out, 100 nm
    for bounds in ((8, 13), (0, 20)):
        folder = tmp_path / str(bounds[0])
        folder.mkdir()
        raw = cleft_pair(folder, voxels).open()
        raw.mask.read(*bounds)
        assert raw.sources_row()["cleft_id"] == "6"


def test_no_cleft_in_the_whole_chunk(tmp_path):
    raw = cleft_pair(tmp_path, {(0, 0, 0): 5}, shape=(10, 10, 10)).open()
    assert not (raw.mask.read(4, 6) == 2).any()
    assert [one.text for one in raw.warnings()] == ["no cleft in the whole chunk"]
    assert raw.sources_row()["cleft_id"] == ""
    assert np.isnan(raw.sources_row()["cleft_distance_nm"])


@pytest.mark.parametrize(("cleft_z", "said"), [(19, ["the crop removed all cleft voxels"]), (None, [])])
def test_a_lacking_cleft_is_said_once(tmp_path, cleft_z, said):
    voxels = {} if cleft_z is None else {(10, 10, cleft_z): 5}
    neurons = np.full((20, 20, 20), PRE, np.uint64)
    neurons[10:] = POST
    raw = cleft_pair(tmp_path, voxels, neurons=neurons).open()
    kept = chunk.keep(raw, (8, 13), SEG_MASK_MAP, 0)
    assert [one.kind for one in chunk.label_warnings(raw, kept, SEG_MASK_MAP)] == said
    far = "the nearest cleft is more than 200 nm from the centre"
    assert [one.kind for one in raw.warnings()] == [far if said else "no cleft in the whole chunk"]


def test_a_far_cleft_is_taken_with_a_warning(tmp_path):
    raw = cleft_pair(tmp_path, {(10, 10, 16): 5}).open()
    assert not (raw.mask.read(8, 13) == 2).any()
    assert [one.text for one in raw.warnings()] == [
        "the nearest cleft is more than 200 nm from the centre: 260 nm"
    ]
    assert [(one.severity, one.detail) for one in raw.warnings()] == [("warning", "260 nm")]
    assert (raw.mask.read() == 2).sum() == 1


def test_the_cleft_lies_on_the_presynaptic_and_this_on_the_postsynaptic_neuron(tmp_path):
    neurons = np.full((20, 20, 20), POST, np.uint64)
    neurons[:10] = PRE
    raw = cleft_pair(tmp_path, {(9, 9, 9): 1, (10, 9, 9): 1}, neurons=neurons).open()
    mask_xyz = raw.mask.read()
    assert mask_xyz[8:12, 9, 9].tolist() == [1, 2, 2, 3]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int32, np.int64])
def test_ids_of_any_integer_type(dtype, tmp_path):
    neurons = np.zeros((20, 20, 20), dtype)
    neurons[0], neurons[1], neurons[2] = 7, 100, np.iinfo(dtype).max
    (tmp_path / "is").mkdir()
    clefts = write("zarr xyz", tmp_path / "is", neurons == 7)
    specs = [
        *write_all(tmp_path, (np.ones(neurons.shape, np.uint8), neurons, neurons), ("zarr xyz",) * 3)[:2],
        clefts,
    ]
    top = int(np.iinfo(dtype).max)
    raw = VolumePair("a", (80.0, 80.0, 400.0), 100, top, volumes_of(*specs, GRID, (20, 20, 20))).open()
    assert raw.mask.read()[:4, 0, 0].tolist() == [2, 1, 3, 0]
    assert raw.sources_row()["cleft_id"] == "1"
    far = VolumePair(
        "a", (80.0, 80.0, 400.0), 2**64 - 1, 2**33 + 100, volumes_of(*specs, GRID, (20, 20, 20))
    ).open()
    assert set(np.unique(far.mask.read())) == {0, 2}  # ids are never cut to the type of the volume


@settings(max_examples=10)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(8, 8, 40), (25, 10, 10), (9.2, 9.2, 48), (8, 8, 160)]),
    st.integers(0, 400),
)
def test_contact_equals_a_plain_one(seed, grid_nm, x_nm):
    rng = np.random.default_rng(seed)
    neurons = rng.choice(np.array([0, OTHER, PRE, POST], np.uint64), (80, 6, 8), p=[0.4, 0.4, 0.1, 0.1])
    em = np.ones(neurons.shape, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        specs = write_all(Path(folder), (em, neurons, neurons), size_nm=grid_nm)
        volumes = volumes_of(*specs[:2], "contact", grid_nm, (80, 5, 6))
        pair = VolumePair("a", (float(x_nm), 30.0, 4.0 * grid_nm[2] - 1), PRE, POST, volumes)
        raw = pair.open()
        parts = [raw.mask.read(2, 4), raw.mask.read()]
        start = plain_cut.start_of(pair.centre_nm, grid_nm, volumes.chunk_shape)
        labels = plain_cut.ids(neurons, grid_nm, (0, 0, 0), grid_nm, start, volumes.chunk_shape)
        squares, factor = plain_cut.squares(pair.centre_nm, grid_nm, start, volumes.chunk_shape)
        is_contact = plain_cut.contact(labels, squares, factor, grid_nm, PRE, POST)
        mask_xyz = np.where(is_contact, 2, (labels == PRE) + 3 * (labels == POST))
        assert np.array_equal(parts[1], mask_xyz)
        assert np.array_equal(parts[0], mask_xyz[:, :, 2:4])
        row = raw.sources_row()
        assert row["cleft_id"] == ("contact" if is_contact.any() else "")
        if is_contact.any():
            assert np.isclose(
                row["cleft_distance_nm"], np.sqrt(squares[is_contact].min() / factor), atol=1e-3
            )
        else:
            assert "no cleft in the whole chunk" in [one.kind for one in raw.warnings()]


# What is outside or absent


def test_what_lies_outside_is_cutout_with_a_warning(tmp_path):
    specs = write_all(tmp_path, random_volumes(np.random.default_rng(0), (20, 20, 20)))
    volumes = volumes_of(*specs, GRID, (20, 20, 20))
    raw = VolumePair("a", (0.0, 80.0, 400.0), PRE, POST, volumes, 255).open()
    em_xyz = raw.em.read(8, 13)
    assert (em_xyz[:10] == 255).all()
    assert (raw.mask.read(8, 13)[:10] == 0).all()
    texts = [one.text for one in raw.warnings()]
    assert "part of the chunk lies outside of the EM, and is cutout: 50 %" in texts
    assert raw.sources_row()["outside_fraction"] == 0.5


def test_the_share_outside_is_that_of_the_sections_that_were_read(tmp_path):
    specs = write_all(tmp_path, random_volumes(np.random.default_rng(0), (20, 20, 20)))
    raw = VolumePair("a", (80.0, 80.0, 200.0), PRE, POST, volumes_of(*specs, GRID, (20, 20, 20))).open()
    raw.em.read(8, 13)
    assert raw.sources_row()["outside_fraction"] == 0
    raw.em.read()
    assert raw.sources_row()["outside_fraction"] == 0.25


@pytest.mark.parametrize("centre", [(-80.0, 80.0, 400.0), (80.0, 80.0, 1200.0), (1e9, 80.0, 400.0)])
def test_a_chunk_that_lies_outside_is_an_error(centre, tmp_path):
    specs = write_all(tmp_path, random_volumes(np.random.default_rng(0), (20, 20, 20)))
    raw = VolumePair("a", centre, PRE, POST, volumes_of(*specs, GRID, (20, 20, 20))).open()
    with pytest.raises(
        ChunkError, match=r"the chunk lies outside of the EM: its centre is .* goes from 0 to 160, 0"
    ):
        raw.em.read()


def absent_specs(folder, stores=("precomputed",) * 3, of=("em", "segmentation", "cleft")):
    """Volumes that lack one block in the middle, and what they would hold."""
    volumes = random_volumes(np.random.default_rng(0), (24, 18, 12))
    specs = []
    for name, array_xyz, store in zip(("em", "segmentation", "cleft"), volumes, stores, strict=True):
        (folder / name).mkdir()
        specs.append(write(store, folder / name, array_xyz, absent=(1, 1, 1) if name in of else None))
    return specs, volumes


@pytest.mark.parametrize("store", ["precomputed", "zarr3 zyx"])
def test_a_missing_block_of_em(store, tmp_path):
    specs, (em, *_) = absent_specs(tmp_path, (store, "precomputed", "precomputed"), of=("em",))
    volumes = volumes_of(*specs, GRID, (24, 18, 12))
    pair = VolumePair("a", (96.0, 72.0, 240.0), PRE, POST, volumes, 7)
    with pytest.raises(ChunkError, match=r"a block of the EM is absent: chunk .*missing_em: cutout"):
        pair.open().em.read(4, 8)
    assert np.array_equal(pair.open().em.read(0, 4), em[:, :, :4])
    raw = replace(pair, volumes=replace(volumes, missing_em="cutout")).open()
    em[8:16, 6:12, 4:8] = 7
    assert np.array_equal(raw.em.read(5, 7), em[:, :, 5:7])
    raw.mask.read(5, 7)
    assert raw.sources_row()["missing_blocks"] == 1


@pytest.mark.parametrize(("store", "n_warnings"), [("precomputed", 2), ("zarr xyz", 0)])
def test_missing_blocks_of_labels_are_background(store, n_warnings, tmp_path):
    specs, volumes = absent_specs(tmp_path, ("precomputed", store, store), of=("segmentation", "cleft"))
    pair = VolumePair("a", (96.0, 72.0, 240.0), PRE, POST, volumes_of(*specs, GRID, (24, 18, 12)))
    for array_xyz in volumes[1:]:
        array_xyz[8:16, 6:12, 4:8] = 0
    check(pair, [(array, GRID, (0, 0, 0)) for array in volumes], (4, 8))
    raw = pair.open()
    raw.em.read(4, 8)
    raw.mask.read(4, 8)
    texts = [one.text for one in raw.warnings() if "absent" in one.kind]
    expected = [
        f"blocks of the {name} volume are absent, and background: 1 block"
        for name in ("segmentation", "cleft")
    ]
    assert texts == expected[:n_warnings]
    assert raw.sources_row()["missing_blocks"] == 2


# Which volumes


@pytest.mark.parametrize(
    ("which", "dtype", "message"),
    [
        (0, np.uint16, "em: .*: must be uint8; it is uint16"),
        (1, np.float32, "segmentation: .*: must hold integers"),
        (2, np.float32, "cleft: "),
    ],
)
def test_volumes_of_the_wrong_type(which, dtype, message, tmp_path):
    volumes = list(random_volumes(np.random.default_rng(0), (20, 20, 20)))
    volumes[which] = volumes[which].astype(dtype)
    specs = write_all(tmp_path, volumes)
    with pytest.raises(ParameterError, match=message):
        VolumePair("a", (80.0, 80.0, 400.0), PRE, POST, volumes_of(*specs)).open()


def test_which_volume_an_error_is_about(tmp_path):
    em = write("precomputed", tmp_path, random_volumes(np.random.default_rng(0), (20, 20, 20))[0])
    with pytest.raises(
        ParameterError, match=r"^volumes: segmentation: graphene://x: changes with every edit"
    ):
        VolumePair("a", (80.0, 80.0, 80.0), PRE, POST, volumes_of(em, "graphene://x", "contact")).open()
    with pytest.raises(ParameterError, match=r"^volumes: em: contact: must be FORMAT://LOCATION"):
        VolumePair("a", (80.0, 80.0, 80.0), PRE, POST, volumes_of("contact", em, "contact")).open()


# As a raw pair


def test_state_is_what_a_chunk_is_cut_by(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    specs = write_all(tmp_path / "a", random_volumes(np.random.default_rng(0), (20, 20, 20)))
    others = write_all(tmp_path / "b", random_volumes(np.random.default_rng(0), (20, 20, 20)))
    volumes = volumes_of(*specs, GRID, (20, 20, 20))
    pair = VolumePair("a", (80.0, 80.0, 400.0), PRE, POST, volumes)
    assert json.loads(json.dumps(pair.state())) == pair.state() == pair.open().state
    changed = [
        replace(pair, centre_nm=(80.0, 80.0, 400.1)),
        replace(pair, pre_id=OTHER),
        replace(pair, post_id=OTHER),
    ]
    for change in (
        {"em": others[0]},
        {"segmentation": others[1]},
        {"cleft": others[2]},
        {"cleft": "contact"},
        {"voxel_size_nm": (8.0, 8.0, 41.0)},
        {"chunk_shape": (20, 20, 10)},
        {"missing_em": "cutout"},
    ):
        changed.append(replace(pair, volumes=replace(volumes, **change)))
    assert len({json.dumps(one.state()) for one in [pair, *changed]}) == len(changed) + 1
    for change in ({"cache_mb": 7}, {"synapse_table": "/b.csv"}, {"centre_unit_nm": (4.0, 4.0, 40.0)}):
        assert replace(pair, synapse_id="b", volumes=replace(volumes, **change)).state() == pair.state()
    assert replace(pair, cutout_pixel_value=1).state() == pair.state()


def test_a_pair_travels_to_another_process(tmp_path):
    specs = write_all(tmp_path, random_volumes(np.random.default_rng(0), (20, 20, 20)), ("zarr xyz",) * 3)
    pair = VolumePair("a", (80.0, 80.0, 400.0), PRE, POST, volumes_of(*specs, GRID, (20, 20, 20)))
    pair.open()
    copy = pickle.loads(pickle.dumps(pair))
    assert copy == pair
    assert np.array_equal(copy.open().mask.read(), pair.open().mask.read())


def test_a_problem_is_located(tmp_path):
    spec = {"path": "zarr://data/neurons", "axes": "zyx"}
    pair = VolumePair(
        "a", (80.0, 80.0, 400.0), PRE, POST, volumes_of("precomputed://gs://b/em", spec, "contact")
    )
    absolute = f"zarr://{paths.project_root() / 'data' / 'neurons'}"
    for volumes in (pair.volumes, replace(pair.volumes, segmentation=absolute)):
        problem = replace(pair, volumes=volumes).locate(problems.warning("something"), "processing")
        assert (problem.synapse_id, problem.stage) == ("a", "processing")
        assert (problem.em_path, problem.mask_path) == ("precomputed://gs://b/em", "zarr://data/neurons")


@pytest.mark.parametrize("cut_intensity_with_seg_masks", [False, True])
def test_a_tensor_equals_that_of_the_same_pair_in_files(cut_intensity_with_seg_masks, tmp_path):
    em, neurons, clefts = random_volumes(np.random.default_rng(5), (30, 30, 30))
    em[:, :, 14] = 0
    specs = write_all(tmp_path, (em, neurons, clefts), ("precomputed", "zarr xyz", "n5"))
    specs[0] = write("zarr3 yxz", tmp_path / "coarse", em, (11, 8, 40), (4, 0, 0))
    pair = VolumePair("a", (120.0, 128.0, 600.0), PRE, POST, volumes_of(*specs, GRID, (21, 20, 25)))
    with pair.open() as whole:
        np.save(tmp_path / "a.npy", whole.em.read())
        np.save(tmp_path / "a_mask.npy", whole.mask.read())
    results = []
    for one, folder in ((pair, "volumes"), (Pair("a", tmp_path / "a.npy", tmp_path / "a_mask.npy"), "files")):
        with one.open() as raw:
            raw.em.fetch(0, 25)
            assert raw.shape == raw.em.header.shape == raw.mask.header.shape == (21, 20, 25)
            entry = chunk.process(
                raw,
                tmp_path / folder,
                "key",
                cutout_threshold=0.01,
                cutout_pixel_value=0,
                axial_to_sagittal_spacing=5.0,
                n_sections=0,
                seg_mask_map=SEG_MASK_MAP,
                cut_intensity_with_seg_masks=cut_intensity_with_seg_masks,
                output_channel_desc=[[1], [2], [3]],
            )
        results.append(
            (entry.row, entry.sections, np.load(tmp_path / folder / entry.row["filename"]), entry.warnings)
        )
        with one.open_em() as em_file:
            assert (
                np.array_equal(chunk.histogram(em_file), arrays.imaged(chunk.histogram(em_file), 0)) is False
            )
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][2], results[1][2])
    assert results[0][3] == results[1][3]
    for name, column in results[0][1].items():
        assert np.array_equal(column, results[1][1][name], equal_nan=True)


def test_threads_and_their_order_make_no_difference(tmp_path):
    rng = np.random.default_rng(0)
    volumes = random_volumes(rng, (60, 60, 40), 40)
    specs = write_all(
        tmp_path, volumes, ("precomputed", "zarr xyz", "precomputed, compressed"), size_nm=(6, 6, 30)
    )
    shared = volumes_of(*specs, GRID, (20, 20, 20), cache_mb=1)
    centres = [tuple(map(float, rng.integers(100, (300, 300, 900)))) for _ in range(30)]
    pairs = [VolumePair(str(k), centre, PRE, POST, shared) for k, centre in enumerate(centres)]

    def read(pair):
        with pair.open() as raw:
            return raw.em.read(8, 13).copy(), raw.mask.read(8, 13).copy(), raw.sources_row()

    alone = [read(pair) for pair in pairs]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(read, pairs[::-1]))[::-1]
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])
        assert str(a[2]) == str(b[2])


def test_volumes_are_opened_once(tmp_path, monkeypatch):
    specs = write_all(tmp_path, random_volumes(np.random.default_rng(0), (20, 20, 20)))
    opened, open_layer = [], layers.open_layer
    monkeypatch.setattr(layers, "open_layer", lambda *args: opened.append(args) or open_layer(*args))
    for k in range(3):
        VolumePair(str(k), (80.0, 80.0, 400.0), PRE, POST, volumes_of(*specs, GRID, (20, 20, 20))).open()
    assert len(opened) == 3


def test_a_row_has_the_columns_of_the_table(tmp_path):
    specs = write_all(tmp_path, random_volumes(np.random.default_rng(0), (20, 20, 20)))
    raw = VolumePair("007", (81.5, 80.0, 401.0), PRE, POST, volumes_of(*specs, GRID, (20, 20, 20))).open()
    raw.em.read()
    raw.mask.read()
    row = raw.sources_row()
    assert list(row) == list(tables.SOURCES_COLUMNS)
    assert list(row.values())[:9] == ["007", 81.5, 80.0, 401.0, 0, 0, 0, str(PRE), str(POST)]
    assert isinstance(raw, Cut)
