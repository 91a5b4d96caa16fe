import hashlib

import numpy as np
import pytest
import yaml
from conftest import PROJECT

from synprep import demo, fingerprint, pairing, params
from synprep._core import record
from synprep._core.synthetic import make_chunk
from synprep._core.verify import check, verdict


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without data, in which the kernel runs."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "preprocess.ipynb").touch()
    (tmp_path / "params").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_the_merged_set_is_made_with_what_it_needs(project, capsys):
    demo.make_missing(params.Fingerprint(proc_data_path="data/merged"))
    assert len(record.load(project / "data/merged").meta) == 6
    assert capsys.readouterr().out == ""


def test_the_readme_shows_the_numbers_of_the_demonstration_data(project, capsys):
    p = params.Fingerprint(proc_data_path="data/merged")
    demo.make_missing(p)
    data = record.load(p.proc_data_path)
    found, _ = fingerprint.run(data, p)
    readme = (PROJECT / "README.md").read_text("utf-8")
    for key, value in yaml.safe_load(fingerprint.configuration(found)).items():
        assert f"\n{key}: {value} " in readme
    for value in found["numbers"]["intensity"]["intensity_mean"]["interval"]:
        assert f"{value:.4f}" in readme
    assert f"\n{verdict(check(data), data)}\n" in readme


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
