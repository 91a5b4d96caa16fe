"""The parameter `volumes`, the synapses that it names, and whether table and volumes fit together."""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from synprep import volumes
from synprep._core import volume_settings
from synprep._core.errors import ChunkError, PairingError, ParameterError, TableError
from synprep._core.paths import project_root

PROJECT = Path(__file__).resolve().parents[1]
GIVEN = {
    "synapse_table": "/data/synapses.csv",
    "centre_unit_nm": [4, 4, 40],
    "em": "precomputed://gs://bucket/em",
    "segmentation": "precomputed:///data/seg",
    "cleft": "contact",
}


def error_of(function, *arguments, kind=ParameterError, **named):
    with pytest.raises(kind) as caught:
        function(*arguments, **named)
    return str(caught.value)


# The parameter


def test_what_is_not_given_has_its_default():
    chosen = volumes.settings(GIVEN)
    assert chosen.centre_unit_nm == (4.0, 4.0, 40.0)
    assert (chosen.id_column, chosen.pre_id_column) == ("id", "pre_pt_root_id")
    assert (chosen.post_id_column, chosen.centre_columns) == ("post_pt_root_id", ("ctr_pt_position",))
    assert (chosen.voxel_size_nm, chosen.chunk_shape) == ((8.0, 8.0, 40.0), (256, 256, 256))
    whole = volumes.settings(GIVEN | {"voxel_size_nm": [8, 8, 40]})
    assert str(whole) == str(chosen)  # 8 is 8.0, also in the hash of what a chunk is cut by
    assert (chosen.id_prefix, chosen.missing_em, chosen.cache_mb) == ("", "error", 512)


def test_settings_can_be_compared():
    layer = {"path": "zarr:///em.zarr", "voxel_size_nm": [8, 8, 40]}
    one, same = (volumes.settings(GIVEN | {"em": dict(layer)}) for _ in range(2))
    assert one == same
    assert one != volumes.settings(GIVEN | {"em": layer | {"axes": "zyx"}})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("precomputed://data/em", f"precomputed://{project_root()}/data/em"),
        ("zarr://~/em.zarr", f"zarr://{Path.home()}/em.zarr"),
        ("n5:///data/em.n5/", "n5:///data/em.n5"),
        ("precomputed://file:///data/em", "precomputed://file:///data/em"),
        ("zarr3://s3://bucket/em.zarr/0", "zarr3://s3://bucket/em.zarr/0"),
        ("precomputed://https://host/em/", "precomputed://https://host/em/"),
        ("graphene://https://host/table/x", "graphene://https://host/table/x"),  # refused where it is opened
        ("data/em.h5", "data/em.h5"),
    ],
)
def test_addresses(address, expected):
    assert volumes.settings(GIVEN | {"em": address}).em == expected
    assert volumes.settings(GIVEN | {"em": {"path": address}}).em == {"path": expected}


def test_the_path_of_the_table_starts_from_the_project():
    chosen = volumes.settings(GIVEN | {"synapse_table": "data/s.csv"})
    assert chosen.synapse_table == str(project_root() / "data" / "s.csv")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"center_unit_nm": [1, 1, 1]}, "center_unit_nm is not a key; did you mean centre_unit_nm?"),
        ({"zzz": 1}, "zzz is not a key; keys are synapse_table, id_column"),
        ({7: 1}, "7 is not a key"),
        ({"synapse_table": ""}, "synapse_table must not be empty"),
        ({"synapse_table": " s.csv"}, "synapse_table must have no blank at either end, not ' s.csv'"),
        ({"synapse_table": "gs://bucket/s.csv"}, "synapse_table must be a path of this machine, not a URL"),
        ({"synapse_table": None}, "synapse_table must be text, not None (in YAML an empty value"),
        ({"id_column": 7}, "id_column must be text, not 7 (put it in quotes)"),
        ({"pre_id_column": ""}, "pre_id_column must not be empty"),
        ({"id_prefix": 720575940}, "id_prefix must be text, not 720575940 (put it in quotes)"),
        ({"id_prefix": "72-"}, "id_prefix must be digits in quotes"),
        ({"centre_columns": "ctr_pt_position"}, "centre_columns must be a list of one, three or six"),
        ({"centre_columns": ["x", "y"]}, "centre_columns must be a list of one, three or six"),
        ({"centre_columns": ["x", "y", "x"]}, "centre_columns must be a list of one, three or six different"),
        ({"centre_unit_nm": 4}, "centre_unit_nm must be three numbers greater than 0"),
        ({"centre_unit_nm": [4, 4]}, "centre_unit_nm must be three numbers greater than 0"),
        ({"centre_unit_nm": [4, 4, 0]}, "centre_unit_nm must be three numbers greater than 0"),
        ({"centre_unit_nm": [4, 4, float("nan")]}, "centre_unit_nm must be three numbers greater than 0"),
        ({"centre_unit_nm": [4, 4, "1e1"]}, "centre_unit_nm must be three numbers greater than 0"),
        ({"centre_unit_nm": [4, 4, True]}, "centre_unit_nm must be three numbers greater than 0"),
        ({"em": ""}, "em must be FORMAT://LOCATION, without blanks around it, not ''"),
        ({"em": "precomputed://"}, "em must be FORMAT://LOCATION"),
        ({"em": " zarr://em"}, "em must be FORMAT://LOCATION, without blanks around it"),
        ({"em": ["zarr://em"]}, "em must be FORMAT://LOCATION"),
        ({"em": {"voxel_size_nm": [8, 8, 40]}}, "em: path is missing"),
        ({"em": {"path": "zarr://em", "voxel_size": 8}}, "em: voxel_size is not a key; did you mean voxel_"),
        ({"em": {"path": 3}}, "em: path must be FORMAT://LOCATION"),
        *(
            ({"em": {"path": "zarr://em", "voxel_size_nm": size}}, "em: voxel_size_nm must be three numbers")
            for size in (8, [8, 8], ["a", 8, 8], [8, 0, 8], [8, float("nan"), 8], None)
        ),
        *(
            ({"em": {"path": "zarr://em", "offset_nm": offset}}, "em: offset_nm must be three numbers")
            for offset in ([0, 0], [1, 2, float("inf")])
        ),
        *(
            ({"em": {"path": "zarr://em", "axes": axes}}, "em: axes must hold x, y and z once each")
            for axes in ("zy", "xyzz", "")
        ),
        ({"em": {"path": "zarr://em", "axes": ["z", "y", "x"]}}, "em: axes must"),
        ({"voxel_size_nm": [8, 8, -40]}, "voxel_size_nm must be three numbers greater than 0"),
        ({"voxel_size_nm": [8, 9, 40]}, "voxel_size_nm must be equal in x and y, not [8.0, 9.0, 40.0]"),
        ({"chunk_shape": [256, 256, 0]}, "chunk_shape must be three whole numbers from 1 to 4096"),
        ({"chunk_shape": [256, 256, 256.0]}, "chunk_shape must be three whole numbers from 1 to 4096"),
        ({"missing_em": "black"}, "missing_em must be error or cutout, not 'black'"),
        ({"cache_mb": -1}, "cache_mb must be 0 or more, not -1"),
        ({"cache_mb": True}, "cache_mb must be an integer, not True"),
        ({"pre_id_column": "id"}, "must differ, not ['id', 'id', 'post_pt_root_id', 'ctr_pt_position']"),
        ({"segmentation": GIVEN["em"]}, "em and segmentation must not be the same volume"),
        ({"cleft": GIVEN["segmentation"]}, "segmentation and cleft must not be the same volume"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(changed, reason):
    message = error_of(volumes.settings, GIVEN | changed)
    assert reason in message and "in volumes, nothing was done:" in message


@pytest.mark.parametrize("name", ["synapse_table", "centre_unit_nm", "em", "segmentation", "cleft"])
def test_required_keys(name):
    given = {key: value for key, value in GIVEN.items() if key != name}
    message = error_of(volumes.settings, given)
    assert f"{name} is missing" in message
    assert ("never guessed" in message) == (name == "centre_unit_nm")


def test_all_problems_are_in_one_message():
    message = error_of(volumes.settings, {"em": {"pth": 1}, "cache": 3})
    lines = [line.strip() for line in message.splitlines()]
    assert lines[0] == "8 problems in volumes, nothing was done:"
    assert {"em: pth is not a key; did you mean path?", "em: path is missing", "cleft is missing"} < {*lines}


@pytest.mark.parametrize(
    "address",
    [
        "precomputed://s3://AKIA:SECRET@bucket/em",
        "zarr://https://me:SECRET@host/em",
        "precomputed://https://host/em?X-Amz-Signature=SECRET",
        "s3://AKIA:SECRET@bucket/em",
    ],
)
def test_credentials_are_refused_and_not_shown(address):
    for spec in (address, {"path": address}):
        message = error_of(volumes.settings, GIVEN | {"em": spec})
        assert "credentials: they come from the environment alone" in message
        assert "SECRET" not in message


def test_an_at_sign_in_a_path_is_no_credential():
    assert volumes.settings(GIVEN | {"em": "zarr:///data/me@home/em"}).em == "zarr:///data/me@home/em"
    assert volumes.settings(GIVEN | {"em": "zarr://me@home/em"}).em.endswith("/me@home/em")


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        (
            {"axial_to_sagittal_spacing": 4.0},
            "axial_to_sagittal_spacing is 4, but voxel_size_nm [8.0, 8.0, 40.0] makes it 5",
        ),
        ({"axial_to_sagittal_spacing": 5.001}, "axial_to_sagittal_spacing is 5.001, but"),
        ({"voxel_size_xy_nm": 4.0}, "voxel_size_xy_nm is 4, but voxel_size_nm [8.0, 8.0, 40.0] makes it 8"),
        ({"seg_mask_map": {"MASK_SYNAPTIC_CLEFT": 1}}, "seg_mask_map must be"),
        ({"seg_mask_map": {}}, "seg_mask_map must be"),
    ],
)
def test_other_parameters_must_fit(beside, reason):
    assert reason in error_of(volumes.settings, GIVEN, SimpleNamespace(**beside))


def test_other_parameters_that_fit():
    fitting = SimpleNamespace(axial_to_sagittal_spacing=40 / 9, voxel_size_xy_nm=9)
    assert volumes.settings(GIVEN | {"voxel_size_nm": [9, 9, 40]}, fitting)
    assert volumes.settings(GIVEN, SimpleNamespace())


def test_every_key_is_explained_in_the_example_and_in_the_docs():
    text = (PROJECT / "params" / "volumes.yaml").read_text("utf-8")
    given = yaml.safe_load(text)
    assert list(given["volumes"]) == list(volume_settings.Settings.__dataclass_fields__)
    assert volumes.settings(given["volumes"], SimpleNamespace(**given))
    lines = text.splitlines()
    for name in given["volumes"]:
        number = next(number for number, line in enumerate(lines) if line.startswith(f"  {name}:"))
        assert "  #" in lines[number] or lines[number - 1].startswith("  # "), name
    assert volumes.documentation() in (PROJECT / "docs" / "volumes.md").read_text("utf-8")


def test_every_example_in_the_docs_is_a_setting():
    parts = (PROJECT / "docs" / "volumes.md").read_text("utf-8").split("```yaml\n")[1:]
    examples = [yaml.safe_load(part.split("```")[0]) for part in parts]
    assert len(examples) >= 5
    for example in examples:
        chosen = volumes.settings(example["volumes"], SimpleNamespace(**example))
        assert chosen.voxel_size_nm[0] == example.get("voxel_size_xy_nm", 8)


# Synapses of the table


class Pair(NamedTuple):
    """Stand-in for what cuts a chunk."""

    synapse_id: str
    centre_nm: tuple
    pre_id: int
    post_id: int
    volumes: object = None
    cutout_pixel_value: int = 0


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Write a table, and parameters that name it."""
    monkeypatch.setattr(volumes, "cut", SimpleNamespace(VolumePair=Pair))

    def write(*rows, ids=(), header="id,pre_pt_root_id,post_pt_root_id,ctr_pt_position", **changed):
        (tmp_path / "s.csv").write_text("\n".join([header, *rows, ""]))
        (tmp_path / "ids.csv").write_text("\n".join(["synapse_id", *ids, ""]))
        known = GIVEN | {"synapse_table": str(tmp_path / "s.csv")} | changed
        return SimpleNamespace(
            volumes=known,
            synapse_ids_path=str(tmp_path / "ids.csv") if ids else "",
            proc_data_path=str(tmp_path / "processed"),
        )

    return write


def test_find_gives_pairs_and_the_problems_of_rows(given):
    found = volumes.find(given("8,11,12,1 2 3", "7,11,12,2 2 3", "9,0,12,1 2 3"))
    assert [pair[:4] for pair in found.pairs] == [
        ("7", (8.0, 8.0, 120.0), 11, 12),
        ("8", (4.0, 8.0, 120.0), 11, 12),
    ]
    assert found.pairs[0].volumes is found.pairs[1].volumes
    assert found.pairs[0].volumes == volumes.settings(given().volumes)
    assert found.pairs[0].cutout_pixel_value == 0
    assert [problem.text for problem in found.problems] == ["presynaptic id is 0: s.csv: line 4"]


def test_pairs_know_what_cutout_is(given):
    p = given("8,11,12,1 2 3")
    p.cutout_pixel_value = 255
    assert volumes.find(p).pairs[0].cutout_pixel_value == 255


def test_find_takes_the_ids_that_are_asked_for(given):
    found = volumes.find(given("8,11,12,1 2 3", "7,11,12,2 2 3", "9,0,12,1 2 3", ids=["8", "10"]))
    assert [pair.synapse_id for pair in found.pairs] == ["8"]
    assert found.problems == ()


def test_find_refuses_what_settings_refuse_before_the_table_is_read(given):
    p = given("8,8.6E+17,12,1 2 3")
    p.axial_to_sagittal_spacing = 4.0
    assert "axial_to_sagittal_spacing is 4" in error_of(volumes.find, p)
    del p.axial_to_sagittal_spacing
    assert "floating point" in error_of(volumes.find, p, kind=TableError)


def test_find_says_why_no_row_can_be_used(given):
    message = error_of(volumes.find, given("8,0,12,1 2 3", "7,0,12,1 2 3", "9,1,2,"), kind=PairingError)
    assert "no row of" in message
    assert "presynaptic id is 0: 2, such as line 2" in message and "no centre: 1, such as line 4" in message


def test_find_says_which_ids_are_there_when_none_of_those_asked_for_is(given):
    rows = [f"{number},11,12,1 2 3" for number in range(7)]
    message = error_of(volumes.find, given(*rows, ids=["007", "008"]), kind=PairingError)
    assert "none of the 2 ids of synapse_ids_path (007, 008) is in" in message
    assert "ids that are in column 'id': 0, 1, 2" in message


def test_find_says_that_a_table_is_empty(given):
    assert "has no rows" in error_of(volumes.find, given(), kind=PairingError)


# Neighbours


def at(*points_nm):
    return [Pair(f"{number:03}", tuple(point), 1, 2) for number, point in enumerate(points_nm)]


def test_neighbours_come_one_after_another():
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 100_000, (8, 3))
    points = [centre + rng.uniform(-500, 500, 3) for _ in range(40) for centre in centres]
    ordered = np.array([pair.centre_nm for pair in volumes.in_order(at(*points))])
    n_leaps = (np.abs(np.diff(ordered, axis=0)).max(axis=1) > 5_000).sum()
    assert n_leaps <= 20  # from cluster to cluster; in the order of ids, nearly all of 319 steps


def test_order_is_that_of_the_curve():
    step = 64 * 1024
    corners = [(x, y, z) for z in (0, step) for y in (0, step) for x in (0, step)]
    ordered = volumes.in_order(at(*corners[::-1]))
    assert [pair.centre_nm for pair in ordered] == corners


def test_order_does_not_depend_on_the_order_of_the_input():
    pairs = at((1, 1, 1), (-5000, 7, 9), (1, 1, 1), (1e300, 0, 0), (-1e300, 5, 0))
    expected = volumes.in_order(pairs)
    assert volumes.in_order(pairs[::-1]) == expected
    assert [pair.synapse_id for pair in expected if pair.centre_nm == (1, 1, 1)] == ["000", "002"]


def test_points_below_zero_are_in_order():
    ordered = volumes.in_order(at((-64, 0, 0), (-6400, 0, 0), (0, 0, 0)))
    assert [pair.centre_nm[0] for pair in ordered] == [-6400, -64, 0]


def test_runs_hold_all_pairs_in_order():
    pairs = at(*np.random.default_rng(1).uniform(0, 1e5, (120, 3)))
    runs = volumes.runs(pairs)
    assert [len(run) for run in runs] == [50, 50, 20]
    assert [pair for run in runs for pair in run] == volumes.in_order(pairs)
    assert volumes.runs([]) == [] and volumes.in_order([]) == []


# Preflight


@dataclass
class Layer:
    """Stand-in for an opened volume: an array in memory."""

    values_xyz: np.ndarray
    path: str = "precomputed:///data/x"
    scale: str = "8_8_40"
    voxel_size_nm: tuple = (8.0, 8.0, 40.0)
    offset_nm: tuple = (0.0, 0.0, 0.0)
    identity: str = "a"
    warning: str = ""
    failing: tuple = ()  # numbers of the reads that fail
    reads: list = field(default_factory=list)
    numbers: itertools.count = field(default_factory=itertools.count)

    @property
    def shape_xyz(self):
        return self.values_xyz.shape

    @property
    def dtype(self):
        return self.values_xyz.dtype

    @property
    def bounds_nm(self):
        sides = zip(self.offset_nm, self.voxel_size_nm, self.shape_xyz, strict=True)
        return tuple((offset, offset + n * size) for offset, size, n in sides)

    def read(self, start_xyz, stop_xyz, fill):
        number = next(self.numbers)
        self.reads.append(number)
        if number in self.failing:
            raise ChunkError("block cannot be read", "403", self.path)
        assert all(0 <= a < b <= n for a, b, n in zip(start_xyz, stop_xyz, self.shape_xyz, strict=True))
        return self.values_xyz[tuple(map(slice, start_xyz, stop_xyz))], 0


PRE, POST = 864691135341198293, 864691135341198295


def some_layers(shape=(200, 300, 60), pre=PRE, post=POST):
    """EM, neurons that meet at x = 100 voxels (800 nm), a cleft between them."""
    segmentation = np.zeros(shape, np.uint64)
    segmentation[:100], segmentation[100:] = pre, post
    cleft = np.zeros(shape, np.uint32)
    cleft[98:102] = 5
    em = np.ones(shape, np.uint8)
    return {"em": Layer(em), "segmentation": Layer(segmentation), "cleft": Layer(cleft)}


CENTRES = [
    (200 + number % 3, 300 + 10 * number, 20 + number % 20) for number in range(24)
]  # of 4 x 4 x 40 nm


@pytest.fixture
def look(given, monkeypatch):
    """Preflight of synapses at these centres; further words change the settings."""

    def run(layers=None, centres=CENTRES, ids=f"{PRE},{POST}", folder=None, **changed):
        layers = some_layers() if layers is None else layers
        monkeypatch.setattr(Pair, "layers", lambda pair: layers, raising=False)
        rows = [f"{number},{ids},{x} {y} {z}" for number, (x, y, z) in enumerate(centres)]
        p = given(*rows, **changed)
        p.proc_data_path = p.proc_data_path if folder is None else folder
        return volumes.preflight(p, volumes.find(p), show_progress=False)

    return run


def test_what_fits_passes_without_a_warning(look):
    result = look()
    assert result.warnings == []
    assert list(result.checks.values()) == [[20, 20]] * 3
    assert result.checks_table()["share"].to_dict() == {
        "presynaptic id within 500 nm": "100 %",
        "postsynaptic id within 500 nm": "100 %",
        "cleft within 200 nm": "100 %",
    }


def test_the_table_shows_the_layers(look):
    layers = some_layers()
    layers["em"].path = f"precomputed://{project_root()}/data/em"
    layers["em"].offset_nm = (-80.0, 0.0, 40.0)
    layers["cleft"].path = "precomputed://gs://bucket/cleft"
    table = look(layers).as_table()
    assert list(table.index) == ["em", "segmentation", "cleft"]
    assert table.loc["em"].to_dict() == {
        "volume": "precomputed://data/em",
        "scale": "8_8_40",
        "voxel size (nm)": "8 x 8 x 40",
        "offset (nm)": "-80, 0, 40",
        "x (nm)": "-80 to 1,520",
        "y (nm)": "0 to 2,400",
        "z (nm)": "40 to 2,440",
        "centres inside": "100.0 %",
    }
    assert table.loc["cleft", "volume"] == "precomputed://gs://bucket/cleft"


def test_the_sample_is_the_first_twenty_of_the_draw_with_seed_0(look, monkeypatch):
    drawn = []
    sample = volumes.sample
    monkeypatch.setattr(volumes, "sample", lambda *a: drawn.append(a[1:]) or sample(*a))
    look()
    assert drawn == [(20, 0)]


def test_contact_reads_no_cleft(look):
    layers = some_layers()
    del layers["cleft"]
    assert list(look(layers).checks) == ["presynaptic id within 500 nm", "postsynaptic id within 500 nm"]


@pytest.mark.parametrize(("x_nm", "is_found"), [(800 - 508, False), (800 - 492, True)])
def test_ids_are_looked_for_within_500_nm(look, x_nm, is_found):
    """The postsynaptic neuron starts at 800 nm; the first voxel's centre is at 804."""
    result = look(centres=[(x_nm, 1604, 1220)] * 3, centre_unit_nm=[1, 1, 1])
    assert result.checks["postsynaptic id within 500 nm"] == [3 * is_found, 3]


@pytest.mark.parametrize(("z_nm", "is_found"), [(1419, False), (1421, True)])
def test_clefts_are_looked_for_within_200_nm_of_the_centre_in_all_directions(look, z_nm, is_found):
    layers = some_layers()
    layers["cleft"].values_xyz[:] = 0
    layers["cleft"].values_xyz[100, 200, 40] = 5  # its centre: 804, 1604, 1620 nm
    result = look(layers, centres=[(804, 1604, z_nm)] * 3, centre_unit_nm=[1, 1, 1])
    assert result.checks["cleft within 200 nm"] == [3 * is_found, 3]


def test_layers_of_other_voxel_sizes_and_offsets_are_looked_at_in_nm(look):
    layers = some_layers()
    segmentation = np.zeros((100, 150, 100), np.uint64)
    segmentation[:10], segmentation[20:] = PRE, POST
    layers["segmentation"] = Layer(
        segmentation, voxel_size_nm=(16.0, 16.0, 20.0), offset_nm=(480.0, 0.0, 160.0)
    )
    result = look(layers)
    assert result.checks["presynaptic id within 500 nm"] == [20, 20]
    assert result.checks["postsynaptic id within 500 nm"] == [20, 20]


def test_a_centre_outside_of_the_segmentation_is_not_found(look):
    result = look(centres=[*CENTRES, (100_000, 400, 20), (-9, 400, 20)])
    assert all(n < 20 <= of for n, of in result.checks.values())
    assert result.as_table()["centres inside"].tolist() == ["92.3 %"] * 3


def test_nothing_inside_names_the_unit_that_would_fit(look):
    message = error_of(look, centre_unit_nm=[8, 8, 400])
    assert "none of the 24 centres is inside em (precomputed:///data/x):" in message
    assert "em covers x 0 to 1,600, y 0 to 2,400, z 0 to 2,400 nm" in message
    assert "with centre_unit_nm [8, 8, 400] the centres are at x 1,600 to 1,616, y 2,400 to 4,240" in message
    lines = [line.strip() for line in message.splitlines()]
    assert {"with centre_unit_nm [4, 4, 40]: 100%", "with centre_unit_nm [1, 1, 1]: 100%"} < {*lines}
    assert "with centre_unit_nm [8, 8, 40]: 0%" in lines
    assert sum(line.startswith("with centre_unit_nm") for line in lines) == 4  # one says where they are


def test_the_voxel_of_the_em_is_among_the_units(look):
    layers = some_layers()
    layers["em"].voxel_size_nm = (7.5, 7.5, 33.0)
    message = error_of(look, layers, centres=[(100_000, 300, 20)])
    assert "with centre_unit_nm [7.5, 7.5, 33]: 0%" in message
    assert "with centre_unit_nm [4, 4, 40]:" not in message  # that is the one it has


def test_a_layer_that_lies_elsewhere_is_named(look):
    layers = some_layers()
    layers["cleft"].offset_nm = (1e6, 0.0, 0.0)
    assert "none of the 24 centres is inside cleft" in error_of(look, layers)


def test_few_inside_is_a_warning(look):
    far = [(90_000, 300 + number, 20) for number in range(12)]
    warnings = look(centres=CENTRES + far).warnings
    assert "em: only 66.7% of the centres are inside" in warnings[0]
    assert "with centre_unit_nm [1, 1, 1]: 67%" in warnings[0]


def test_few_ids_found_is_a_warning(look):
    layers = some_layers()
    layers["segmentation"].values_xyz[:, 150:] = 7
    layers["cleft"].values_xyz[:] = 0
    warnings = look(layers).warnings
    assert any(one.startswith("presynaptic id within 500 nm: only ") for one in warnings)
    assert "cleft within 200 nm: only 0 of 20" in warnings


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"centre_unit_nm": [8, 8, 40]},
            "centre_unit_nm [8, 8, 40] is not the table's unit: ids of 20 of 20",
        ),
        (
            {"ids": "341198293,341198295"},
            'a prefix was cut off the ids of the table: set id_prefix to "864691135"',
        ),
        ({"ids": "41198293,41198295", "id_prefix": "3"}, 'set id_prefix to "8646911353"'),
        ({"id_prefix": "1"}, 'id_prefix "1" is put before ids that are whole: set it to ""'),
        ({"ids": "21,22"}, "the segmentation is of another version than the table (asked for 21, 22, 21 and"),
    ],
)
def test_ids_that_are_never_found_name_the_likely_cause(look, change, reason):
    layers = some_layers(shape=(400, 300, 60)) if "centre_unit_nm" in change else some_layers()
    if "centre_unit_nm" in change:
        change = change | {"centres": [(200, 20 + number, 20) for number in range(24)]}
        layers["segmentation"].values_xyz[135:] = 7
    message = error_of(look, layers, **change)
    assert "of none of the 20 synapses looked at, in segmentation" in message
    assert reason in message


def test_layers_that_are_exchanged_are_named(look):
    layers = some_layers()
    layers["segmentation"], layers["cleft"] = layers["cleft"], layers["segmentation"]
    assert "segmentation and cleft are exchanged" in error_of(look, layers)


def test_a_segmentation_that_cannot_hold_the_ids_is_named(look):
    layers = some_layers()
    layers["segmentation"].values_xyz = layers["segmentation"].values_xyz.astype(np.uint32)
    assert "segmentation holds uint32, which cannot hold an id such as" in error_of(look, layers)


def test_an_empty_segmentation_is_named(look):
    layers = some_layers(pre=0, post=0)
    assert "segmentation is empty (0) around all centres" in error_of(look, layers)


@pytest.mark.parametrize(("n", "is_error"), [(4, False), (5, True)])
def test_one_side_that_is_never_found_is_an_error_from_five_synapses_on(look, n, is_error):
    def run():
        return look(centres=CENTRES[:n], ids=f"{PRE},33")

    if is_error:
        message = error_of(run)
        assert message.startswith("postsynaptic id within 500 nm: of none of the 5 synapses")
        assert "pre_id_column 'pre_pt_root_id' or post_id_column 'post_pt_root_id' holds ids of" in message
    else:
        assert "postsynaptic id within 500 nm: only 0 of 4" in run().warnings


def test_what_a_layer_warns_of_is_said(look):
    layers = some_layers()
    layers["segmentation"].warning = "its voxels are coarser than the chunks'"
    assert look(layers).warnings == ["segmentation: its voxels are coarser than the chunks'"]


def test_a_mask_of_clefts_may_be_boolean(look):
    layers = some_layers()
    layers["cleft"].values_xyz = layers["cleft"].values_xyz > 0
    assert look(layers).warnings == []


def test_a_block_that_cannot_be_read_is_a_warning(look):
    layers = some_layers()
    layers["segmentation"].failing = (3, 7)
    result = look(layers)
    assert result.checks["presynaptic id within 500 nm"] == [18, 18]
    assert (
        "2 of 20 synapses could not be read: precomputed:///data/x: block cannot be read"
        in result.warnings[0]
    )


def test_a_store_that_cannot_be_read_at_all_is_an_error(look):
    layers = some_layers()
    layers["segmentation"].failing = range(20)
    assert "block cannot be read: 403" in error_of(look, layers, kind=ChunkError)


# What is kept


def reads_of(look, folder=None, change=lambda layers: None, **changed):
    layers = some_layers()
    change(layers)
    result = look(layers, folder=folder, **changed)
    return result, len(layers["segmentation"].reads)


@pytest.mark.parametrize("folder", [None, ""])
def test_the_result_is_used_again_while_table_and_layers_are_the_same(look, folder, monkeypatch):
    monkeypatch.setattr(volumes._preflight, "_in_memory", {})
    first, n_reads = reads_of(look, folder)
    again, n_again = reads_of(look, folder)
    assert (n_reads, n_again) == (20, 0)
    assert again == first


@pytest.mark.parametrize(
    "changed",
    [
        {"centres": CENTRES[1:]},
        {"centres": [(x, y + 1, z) for x, y, z in CENTRES]},
        {"ids": f"{POST},{PRE}"},
        {"change": lambda layers: setattr(layers["cleft"], "identity", "b")},
        {"change": lambda layers: layers.pop("cleft")},
    ],
)
def test_another_table_or_layer_is_looked_at(look, changed):
    reads_of(look)
    assert reads_of(look, **changed)[1] == 20


def test_the_result_is_in_the_hidden_folder_of_the_output(look, tmp_path):
    reads_of(look)
    assert (tmp_path / "processed" / ".synprep" / "preflight.json").is_file()
    assert [path.name for path in (tmp_path / "processed").iterdir()] == [".synprep"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"key": 3}', b"\xff"])
def test_a_damaged_result_is_made_again(look, tmp_path, damage):
    reads_of(look)
    path = tmp_path / "processed" / ".synprep" / "preflight.json"
    key = json.loads(path.read_bytes())["key"]
    path.write_bytes(damage)
    assert reads_of(look)[1] == 20
    path.write_text(json.dumps({"key": key}))
    assert reads_of(look)[1] == 20


def test_an_error_is_not_kept(look, tmp_path):
    error_of(look, ids="21,22")
    assert not (tmp_path / "processed").exists()
