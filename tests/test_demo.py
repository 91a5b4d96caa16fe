import hashlib
import io
import os
from contextlib import redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import PROJECT

from synprep import demo, fingerprint, pairing, params, volumes
from synprep._core import dataset, synthetic_volumes
from synprep._core.errors import ChunkError
from synprep._core.synthetic import make_chunk
from synprep._core.verify import verdict


def project_in(folder):
    """A project without data."""
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "preprocess.ipynb").touch()
    (folder / "params").mkdir()
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without data, in which the kernel runs."""
    monkeypatch.chdir(tmp_path)
    return project_in(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The data folder of a project in which the merged set, and that of volumes, were made when missing."""
    folder = project_in(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        for name in ("volumes/processed", "merged"):
            demo.make_missing(params.Fingerprint(proc_data_path=f"data/{name}"))
    assert printed.getvalue() == ""
    return folder / "data"


@pytest.mark.parametrize("name", ["ds1", "ds2"])
def test_sets_pair_with_their_parameters(project, name):
    p = params.Preprocess(**demo.parameters(name))
    demo.make_missing(p, show_progress=False)
    found = pairing.find(p)
    assert [pair.synapse_id for pair in found.pairs] == [chunk.synapse_id for chunk in demo.SETS[name].chunks]
    assert not found.passed_over
    assert sorted(path.name for path in (project / "data" / name).iterdir()) == ["em", "mask"]


def test_names_of_the_second_set_are_those_of_real_data(project):
    demo.make_missing(params.Preprocess(**demo.parameters("ds2")), show_progress=False)
    assert (project / "data/ds2/em/data_MICrONS__L23__8_8_40__raw_1000379.npy").exists()
    assert (project / "data/ds2/mask/data_MICrONS__L23__8_8_40__masks_1000379_mask.npy").exists()


def test_a_set_that_is_there_is_left_alone_and_the_line_is_the_same(project, capsys):
    p = params.Preprocess(**demo.parameters("ds1"))
    demo.make_missing(p)
    first = capsys.readouterr().out.rsplit("\r", 1)[-1]
    (project / "data/ds1/em/1000379.npy").unlink()
    demo.make_missing(p)
    assert capsys.readouterr().out.rsplit("\r", 1)[-1] == first == "Demonstration data in data/ds1: done\n"
    assert not (project / "data/ds1/em/1000379.npy").exists()


def test_processed_sets_are_made_by_folder_or_table(project, capsys):
    demo.make_missing(params.Inspect(proc_data_path="data/mine"))
    assert not (project / "data").exists()
    demo.make_missing(params.Inspect(proc_data_path="data/ds1/processed"))
    demo.make_missing(params.Merge(meta_list=["data/mine/meta.csv", "data/ds2/processed/meta.csv"]))
    for name in ("ds1", "ds2"):
        assert (project / "data" / name / "processed" / "sections.csv").exists()
    assert not (project / "data/demo").exists()
    assert not (project / "data/merged").exists()
    assert capsys.readouterr().out == ""


def test_what_preprocess_writes_is_not_made(project):
    demo.make_missing(params.Preprocess(**demo.parameters("ds1")), show_progress=False)
    assert (project / "data/ds1/em").is_dir()
    assert not (project / "data/ds1/processed").exists()


def test_the_merged_set_is_made_with_what_it_needs(made):
    assert len(dataset.load(made / "merged").meta) == 6


def test_the_readme_shows_the_numbers_of_the_demonstration_data(made):
    p = params.Fingerprint(proc_data_path=str(made / "merged"))
    data = dataset.load(p.proc_data_path)
    found, findings, _ = fingerprint.run(data, p)
    page = (PROJECT / "docs/training.md").read_text("utf-8")
    for key, value in yaml.safe_load(fingerprint.configuration(found)).items():
        assert f"\n{key}: {value} " in page
    for value in found["numbers"]["intensity"]["intensity_mean"]["interval"]:
        assert f"{value:.4f}" in page
    assert f"\n{verdict(findings, data)}\n" in page


def test_other_folders_are_left_alone(project, capsys):
    demo.make_missing(params.Preprocess(raw_em_data_path="data/mine/em", raw_mask_data_path="data/mine/mask"))
    assert not (project / "data").exists()
    assert capsys.readouterr().out == ""


def test_the_two_small_sets_overlap():
    one, two = ({chunk.synapse_id for chunk in demo.SETS[name].chunks} for name in ("ds1", "ds2"))
    assert len(one & two) == 2
    assert len(one | two) == 6


def test_demonstration_data_has_sections_on_both_sides_of_the_threshold():
    for chunk in demo.SETS["demo"].chunks[1:3] + demo.SETS["demo"].chunks[-1:]:
        n_pixels = chunk.shape_xyz[0] * chunk.shape_xyz[1]
        assert any(0.0095 < n / n_pixels <= 0.01 for _, n in chunk.cut_sections)
    assert 256 / (160 * 160) == 0.01
    assert demo.SETS["demo"].chunks[-1].shape_xyz == (256, 256, 256)


@pytest.mark.parametrize("name", ["demo", "ds1", "ds2"])
def test_yaml_files_point_at_the_sets(name):
    with open(params.resolve(f"params/{name}.yaml")) as file:
        values = yaml.safe_load(file)
    defaults = {
        name: getattr(params.Preprocess(), name) for name in ("em_filename_pattern", "mask_filename_pattern")
    }
    expected = demo.parameters(name)
    assert {key: values.get(key, defaults.get(key)) for key in expected} == expected


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A record with the volumes of a project of its own, and the pairs that are cut from them."""
    folder = project_in(tmp_path_factory.mktemp("volumes"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        p = SimpleNamespace(volumes=demo.VOLUMES | {"missing_em": "error"}, proc_data_path="")
        demo.make_missing(p, show_progress=False)
        found = volumes.find(p)
        yield SimpleNamespace(p=p, found=found, folder=folder / "data" / "volumes")


def test_volumes_are_made_once_and_the_line_is_the_same(cut, monkeypatch, capsys):
    assert sorted(os.listdir(cut.folder)) == sorted(synthetic_volumes.NAMES)
    monkeypatch.setattr(synthetic_volumes, "add_chunk", None)
    demo.make_missing(cut.p)
    line = capsys.readouterr().out.rsplit("\r", 1)[-1]
    assert line == "Demonstration volumes in data/volumes: done\n"
    assert not (cut.folder.parent / "demo").exists()


def test_volumes_that_were_made_in_part_are_not_there(project, monkeypatch):
    add_chunk = synthetic_volumes.add_chunk

    def fail_at_the_second(folder, number, *chunk):
        add_chunk(folder, number, *chunk)
        if number:
            raise OSError("disk full")

    monkeypatch.setattr(synthetic_volumes, "add_chunk", fail_at_the_second)
    with pytest.raises(OSError, match="disk full"):
        demo.make_missing(SimpleNamespace(volumes=demo.VOLUMES), show_progress=False)
    assert not os.listdir(project / "data" / "volumes")


def test_other_volumes_are_left_alone(project, capsys):
    for table in ("data/mine/synapses.csv", "/elsewhere/synapses.csv"):
        demo.make_missing(SimpleNamespace(volumes=demo.VOLUMES | {"synapse_table": table}))
    demo.make_missing(SimpleNamespace(volumes={"em": demo.VOLUMES["em"]}))
    assert not (project / "data").exists()
    assert capsys.readouterr().out == ""


def test_table_and_volumes_fit(cut):
    found = volumes.preflight(cut.p, cut.found, show_progress=False)
    assert {layer["layer"]: layer["centres_inside"] for layer in found.layers} == {
        "em": 1,
        "segmentation": 1,
        "cleft": 1,
    }
    assert [*found.checks.values()] == [[6, 6]] * 3
    assert found.warnings == []
    em, segmentation = (layer["offset_nm"] for layer in found.layers[:2])
    assert all(one != other for one, other in zip(em, segmentation, strict=True))


def test_ids_are_those_that_floating_point_would_round(cut):
    ids = [number for pair in cut.found.pairs for number in (pair.pre_id, pair.post_id)]
    assert len({*ids}) == 2 * len(cut.found.pairs) == 12
    assert all(len(str(number)) == 18 and int(float(number)) != number for number in ids)


def test_chunks_that_are_cut_are_those_of_the_small_sets(cut):
    chunks = {one.synapse_id: one for name in ("ds1", "ds2") for one in demo.SETS[name].chunks}
    assert [pair.synapse_id for pair in cut.found.pairs] == sorted(chunks)
    assert not cut.found.problems
    for pair in cut.found.pairs[:-1]:
        em_xyz, mask_xyz = chunks[pair.synapse_id].arrays()
        with pair.open() as raw:
            assert np.array_equal(raw.em.read(), em_xyz)
            assert np.array_equal(raw.mask.read(), mask_xyz)
            assert raw.warnings() == []
            assert raw.sources_row()["cleft_id"] == str(int(pair.synapse_id))
            assert raw.sources_row()["missing_blocks"] == 0


def test_of_one_chunk_a_block_is_absent_where_sections_are_kept(cut):
    pair, (_, block) = cut.found.pairs[-1], synthetic_volumes.ABSENT_BLOCK.rsplit("/", 1)
    with pair.open() as raw, pytest.raises(ChunkError, match="a block of the EM is absent.*" + block):
        raw.em.read(25, 38)
    p = SimpleNamespace(volumes=demo.VOLUMES)
    with volumes.find(p).pairs[-1].open() as raw:
        is_absent = raw.em.read() != demo.SETS["ds2"].chunks[-1].arrays()[0]
        assert raw.mask.read().any()
        (warning,) = raw.warnings()
        assert warning.text == "blocks of the em volume are absent, and cutout: 1 block"
        assert raw.sources_row()["missing_blocks"] == 1
    assert is_absent[:64, 32:, 16:32].mean() > 0.8  # all but what is cutout anyway
    is_absent[:64, 32:, 16:32] = False
    assert not is_absent.any()


def test_volumes_are_the_same_on_every_machine(cut):
    layers = cut.found.pairs[0].layers()
    digests = {}
    for name, layer in layers.items():
        values_xyz, absent = layer.read((0, 0, 0), layer.shape_xyz, 0)
        assert absent == ({(3, 2, 1)} if name == "em" else set())
        digests[name] = digest(np.ascontiguousarray(values_xyz))
    table = hashlib.sha256((cut.folder / "synapses.csv").read_bytes()).hexdigest()[:16]
    assert digests | {"table": table} == {
        "em": "a9ec7772394bd6ec",
        "segmentation": "08b4e055432f74f2",
        "cleft": "22c312637a60fb95",
        "table": "0a39a69ac8614c95",
    }


def test_the_processed_set_of_the_volumes_is_made_like_those_of_files(made):
    cut, merged = (dataset.load(made / name) for name in ("volumes/processed", "merged"))
    assert [*cut.meta["synapse_id"]] == [*merged.meta["synapse_id"]]
    for name in cut.meta["filename"][:-1]:  # of the last one a block is absent
        from_files = next(made.glob(f"ds*/processed/{name}"))
        assert (made / "volumes/processed" / name).read_bytes() == from_files.read_bytes()


def test_the_yaml_file_has_the_volumes_of_the_demonstration():
    values = yaml.safe_load((PROJECT / "params" / "volumes.yaml").read_text("utf-8"))
    assert values["volumes"] == demo.VOLUMES
    assert demo.VOLUMES["synapse_table"] in demo.PATHS


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def test_chunks_are_the_same_on_every_machine():
    em, mask = make_chunk(1000379, (96, 96, 40), black_sections=(2,), cut_sections=((5, 93),))
    assert (digest(em), digest(mask)) == ("3efe9e6d68de293e", "c7a740fe3cbe2c56")


@pytest.mark.parametrize("seed", range(6))
def test_chunks_have_what_a_person_expects(seed):
    em, mask = make_chunk(seed, (96, 80, 40), black_sections=(3,), cut_sections={7: 50, 9: 0})
    assert em.shape == mask.shape == (96, 80, 40)
    assert em.dtype == mask.dtype == np.uint8
    assert [int((em[:, :, z] == 0).sum()) for z in (3, 7, 8, 9)] == [96 * 80, 50, 0, 0]
    assert set(np.unique(mask[:, :, 16:24])) == {0, 1, 2, 3}
    correlation = [
        np.corrcoef(
            em.take(range(10, 30), 2).take(range(1, n), a).ravel(),
            em.take(range(10, 30), 2).take(range(n - 1), a).ravel(),
        )[0, 1]
        for a, n in ((0, 96), (1, 80))
    ]
    across = np.corrcoef(em[:, :, 10:30].ravel(), em[:, :, 11:31].ravel())[0, 1]
    assert across < min(correlation) - 0.1


@pytest.mark.parametrize("n_pixels", [1, 50, 256, 9000])
def test_a_cut_is_one_ragged_region_in_a_corner(n_pixels):
    em, _ = make_chunk(5, (160, 120, 8), cut_sections={2: n_pixels})
    cut = em[:, :, 2] == 0
    for axis in (0, 1):  # the corner comes first
        cut = cut if cut.take(0, axis).any() else np.flip(cut, axis)
    assert cut.sum() == n_pixels
    assert (cut[1:] <= cut[:-1]).all()
    assert (cut[:, 1:] <= cut[:, :-1]).all()
    assert n_pixels == 1 or len(set(np.diff(cut.sum(axis=0)))) > 2


def test_labels_are_brighter_inside_than_on_their_membranes():
    em, mask = make_chunk(4)
    inside = em[(mask == 1) | (mask == 3)].mean()
    label = mask[:, :, 30] == 1
    grown = label.copy()
    grown[1:] |= label[:-1]
    grown[:-1] |= label[1:]
    assert inside - em[:, :, 30][grown & ~label].mean() > 25


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"shape_xyz": (32, 64, 8)}, "at least"),
        ({"shape_xyz": (64, 64)}, "three lengths"),
        ({"black_sections": (64,)}, "z = 64"),
        ({"cut_sections": {-1: 9}}, "z = -1"),
    ],
)
def test_impossible_chunks(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        make_chunk(0, **arguments)
