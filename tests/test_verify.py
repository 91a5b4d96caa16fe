from dataclasses import replace

import numpy as np
import pytest

from synprep import pairing, preprocess
from synprep._core import arrays, dataset, npy, problems, tables
from synprep._core.dataset import Dataset
from synprep._core.verify import check, damaged, verdict
from synprep.params import Preprocess

SPACING = 2.0
SHAPE = (2, 6, 6, 12)
CROP = "central 4 x 4 x 2"  # with the spacing, of a crop of 4 pixels: x and y from 1 to 4, z 5 and 6


def tensor(cleft=((2, 2, 5),), blank=(), shape=SHAPE):
    """A chunk of grey EM with a few labels; cleft voxels at x, y, z, and blanked sections."""
    tensor_cxyz = np.full(shape, 9, np.uint8)
    tensor_cxyz[:-1, :, :, list(blank)] = 0
    tensor_cxyz[-1] = 0
    tensor_cxyz[-1, 1, 1], tensor_cxyz[-1, 4, 4] = 1, 3
    for x, y, z in cleft:
        tensor_cxyz[-1, x, y, z] = 2
    return tensor_cxyz


@pytest.fixture
def write(tmp_path):
    """Write tensors, and return them as a data set whose tables agree with them."""

    def write(tensors):
        rows, sections = [], {}
        for synapse_id, tensor_cxyz in tensors.items():
            np.save(tmp_path / tables.filename(synapse_id, tensor_cxyz.shape), tensor_cxyz)
            volumes = arrays.label_volumes(np.bincount(tensor_cxyz[-1].ravel(), minlength=256), SPACING)
            blanked = ~tensor_cxyz[:-1].any(axis=(0, 1, 2))
            rows.append(tables.meta_row(synapse_id, tensor_cxyz.shape, volumes, blanked.sum()))
            none = np.zeros(len(blanked))
            columns = {"cutout_fraction": none, "mean": none, "std": none, "is_blanked": blanked}
            sections[synapse_id] = columns
        parameters = {"axial_to_sagittal_spacing": SPACING}
        return Dataset(tmp_path, tables.meta_table(rows), tables.sections_table(sections), parameters)

    return write


def run(data, **options):
    return check(data, **{"crop_size": 4, "show_progress": False, **options})


def found(data, **options):
    """Severity and problem by synapse id, or by file name for what is not about a chunk."""
    return {one.synapse_id or one.file: (one.severity, one.text) for one in run(data, **options)}


def test_a_good_set_is_ready(write):
    data = write({"007": tensor(), "NA": tensor(blank=(0, 11))})
    assert found(data) == {}
    assert verdict(run(data), data) == "ready for training: 2 chunks of shape (2, 6, 6, 12)"


@pytest.mark.parametrize(
    ("unfit", "problem"),
    [
        (np.concatenate([tensor()[:1]] * 3 + [tensor()[1:]]), "not two channels: 4"),
        (tensor()[:, :5], "x and y differ: 5, 6"),
        (tensor()[..., 1:11], "no more sections than cutout_poisson_rate: 10, 10"),
        (
            np.pad(tensor()[:, 1:, 1:], ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=7),
            "labels outside 0 to 3: 7",
        ),
        (tensor(cleft=()), "no cleft voxel"),
        (tensor(blank=(5,)), f"no cleft voxel in an imaged section of the {CROP}"),
    ],
)
def test_what_a_model_cannot_train_on(write, unfit, problem):
    data = write({"NA": unfit})
    assert found(data) == {"NA": ("unfit", problem)}
    assert damaged(run(data), data) == {}
    assert verdict(run(data), data) == f"not ready for training: 1 of 1 chunk: {problem.split(': ')[0]} (NA)"


@pytest.mark.parametrize(("label", "name"), [(1, "presynaptic"), (3, "postsynaptic")])
def test_a_lacking_neuron_is_told_though_a_model_can_train(write, label, name):
    lacking = np.where(tensor()[1:] == label, 0, tensor()[1:])
    data = write({"1": tensor(), "2": np.concatenate([tensor()[:1], lacking])})
    assert found(data) == {"2": ("warning", f"no {name} voxel")}
    assert verdict(run(data), data) == (
        f"ready for training: 2 chunks of shape (2, 6, 6, 12); 1 with no {name} voxel (2)"
    )
    assert damaged(run(data), data) == {}
    data = write({"2": np.concatenate([tensor()[:1], lacking]), "3": tensor(cleft=())})
    assert verdict(run(data), data) == "not ready for training: 1 of 2 chunks: no cleft voxel (3)"


def test_bounds_of_the_central_crop(write):
    inside = {(x, y, z) for x in (1, 4) for y in (1, 4) for z in (5, 6)}
    outside = [(0, 2, 5), (5, 2, 5), (2, 0, 5), (2, 5, 5), (2, 2, 4), (2, 2, 7)]
    good = {f"in {voxel}": tensor(cleft=[voxel]) for voxel in inside}
    bad = {f"out {voxel}": tensor(cleft=[voxel]) for voxel in outside}
    assert found(write(good | bad)) == dict.fromkeys(bad, ("unfit", f"no cleft voxel in the {CROP}"))


def test_the_usual_crop_is_clipped_to_a_smaller_chunk(write):
    data = write({"1": tensor(cleft=[(0, 0, 0)])})
    assert found(data, crop_size=192) == {}


def test_the_usual_crop_of_a_usual_chunk(write):
    shape = (2, 256, 256, 52)
    data = write({"1": tensor([(32, 223, 44)], shape=shape), "2": tensor([(32, 223, 45)], shape=shape)})
    data.parameters["axial_to_sagittal_spacing"] = 5.0
    (finding,) = [one for one in check(data, show_progress=False) if one.severity == "unfit"]
    assert (finding.synapse_id, finding.text) == ("2", "no cleft voxel in the central 192 x 192 x 38")


def test_cleft_that_is_blanked_in_part_is_fine(write):
    assert found(write({"1": tensor(cleft=[(2, 2, 5), (2, 2, 6)], blank=(5,))})) == {}


def test_cleft_in_imaged_sections_outside_the_crop_does_not_help(write):
    data = write({"1": tensor(cleft=[(2, 2, 5), (2, 2, 9)], blank=(5,))})
    assert found(data) == {"1": ("unfit", f"no cleft voxel in an imaged section of the {CROP}")}


def test_the_rate_must_be_below_the_number_of_sections(write):
    data = write({"1": tensor()})
    assert found(data, cutout_poisson_rate=11.5) == {}
    problem = "no more sections than cutout_poisson_rate: 12, 12.5"
    assert found(data, cutout_poisson_rate=12.5) == {"1": ("unfit", problem)}


def test_chunks_of_another_shape_than_most(write):
    data = write({"1": tensor(), "2": tensor(shape=(2, 5, 5, 12)), "3": tensor()})
    problem = "another shape than most chunks: (2, 5, 5, 12), most have (2, 6, 6, 12)"
    assert found(data) == {"2": ("unfit", problem)}


def change(path, position, value):
    tensor_cxyz = np.load(path)
    tensor_cxyz[position] = value
    np.save(path, tensor_cxyz)


@pytest.mark.parametrize(
    ("position", "value", "problem"),
    [
        ((1, 1, 1, 2), 0, "pre_synaptic_volume is not that of the table: 22.0, 24.0"),
        ((1, 0, 0, 2), 2, "synaptic_cleft_volume is not that of the table: 4.0, 2.0"),
        ((1, 0, 0, 2), 3, "post_synaptic_volume is not that of the table: 26.0, 24.0"),
        ((0, 0, 0, 1), 5, "sections are not blank: z = [1]"),
    ],
)
def test_changed_values(write, tmp_path, position, value, problem):
    data = write({"1": tensor(), "2": tensor(blank=(1, 2))})
    change(tmp_path / "2__2_6_6_12.npy", position, value)
    assert found(data) == {"2": ("error", problem)}


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (tensor()[:, :5], "not of the shape that its name says: (2, 5, 6, 12) uint8"),
        (tensor()[0], "not a uint8 array (c, x, y, z) in C order: (6, 6, 12) uint8"),
        (tensor()[..., :0], "not a uint8 array (c, x, y, z) in C order: (2, 6, 6, 0) uint8"),
        (tensor().astype(float), "not a uint8 array (c, x, y, z) in C order: (2, 6, 6, 12) float64"),
        (
            np.asfortranarray(tensor()),
            "not a uint8 array (c, x, y, z) in C order: (2, 6, 6, 12) uint8, Fortran order",
        ),
    ],
)
def test_foreign_arrays(write, tmp_path, array, problem):
    data = write({"1": tensor()})
    np.save(tmp_path / "1__2_6_6_12.npy", array)
    assert found(data) == {"1": ("error", problem)}


def test_cut_and_missing_files(write, tmp_path):
    data = write({"1": tensor(), "2": tensor(), "3": tensor()})
    path = tmp_path / "1__2_6_6_12.npy"
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "2__2_6_6_12.npy").unlink()
    wrong = found(data)
    assert wrong["1"] == ("error", "file is cut short: 863 bytes of values instead of 864")
    assert wrong["2"][1].startswith("file is missing: ")
    assert sorted(wrong) == ["1", "2"]


def test_names_need_not_say_a_shape(write, tmp_path):
    data = write({"1": tensor()})
    (tmp_path / "1__2_6_6_12.npy").rename(tmp_path / "chunk__7.npy")
    data.meta["filename"] = "chunk__7.npy"
    assert found(data) == {}


@pytest.mark.parametrize("wrong", ["meta", "sections"])
def test_tables_that_do_not_agree(write, wrong):
    data = write({"1": tensor(), "2": tensor(blank=(3,))})
    if wrong == "meta":
        data = replace(data, meta=data.meta.assign(n_cutout_sections=0))
    else:
        data = replace(data, sections=data.sections[:-1])
    assert found(data) == {"2": ("error", "the tables of chunks and sections do not agree")}


def test_sections_of_no_chunk(write):
    data = write({"1": tensor(), "2": tensor()})
    wrong = found(replace(data, meta=data.meta[:1]))
    assert wrong["2"] == ("error", "in the table of sections, but not in that of chunks")
    assert wrong["2__2_6_6_12.npy"][0] == "note"


def test_an_id_that_is_there_twice(write):
    data = write({"1": tensor(), "2": tensor()})
    assert found(replace(data, meta=data.meta.iloc[[0, 1, 1]])) == {
        "2": ("error", "synapse id is in the table more than once")
    }


def test_files_that_the_table_does_not_list_are_noted(write, tmp_path):
    data = write({"1": tensor()})
    np.save(tmp_path / "old.npy", tensor())
    assert found(data) == {"old.npy": ("note", "array file that the table does not list: old.npy")}
    assert verdict(run(data), data).startswith("ready for training: 1 chunk of")
    grouped = problems.grouped(run(data))
    assert grouped["examples"].tolist() == ["old.npy"]


def test_the_worst_is_first_and_all_is_in_one_line(write, tmp_path):
    data = write({str(i): tensor(cleft=()) for i in range(4)} | {"8": tensor()})
    change(tmp_path / "8__2_6_6_12.npy", (1, 1, 1, 2), 0)
    change(tmp_path / "3__2_6_6_12.npy", (1, 1, 1, 2), 0)
    np.save(tmp_path / "old.npy", tensor())
    findings = run(data)
    assert [one.severity for one in findings] == ["error"] * 2 + ["unfit"] * 4 + ["note"]
    assert [one.synapse_id for one in findings] == ["3", "8", "0", "1", "2", "3", ""]
    assert verdict(findings, data) == (
        "not ready for training: 5 of 5 chunks: pre_synaptic_volume is not that of the table (3, 8); "
        "no cleft voxel (0, 1, 2 and 1 more)"
    )
    text = "pre_synaptic_volume is not that of the table: 22.0, 24.0"
    assert damaged(findings, data) == {i: f"{i}__2_6_6_12.npy: {text}" for i in ("3", "8")}
    severities = problems.grouped(findings)["severity"]
    assert severities.tolist() == ["error", "unfit", "note"]


def test_an_empty_table_is_not_ready(write):
    data = write({})
    assert verdict(run(data), data) == "not ready for training: the table lists no chunk"


def test_values_of_a_file_are_read_once(write, monkeypatch):
    read, paths = npy.NpyFile.read, []

    def count(file, **options):
        paths.append(file.path.name)
        return read(file, **options)

    monkeypatch.setattr(npy.NpyFile, "read", count)
    run(write({"1": tensor(), "2": tensor()}))
    assert sorted(paths) == ["1__2_6_6_12.npy", "2__2_6_6_12.npy"]


@pytest.mark.parametrize(
    ("channels", "n_channels", "unfit"),
    [
        ({}, 2, []),
        ({"output_channel_desc": [[1, 2, 3]], "cut_intensity_with_seg_masks": True}, 2, []),
        ({"cut_intensity_with_seg_masks": True}, 4, ["not two channels: 4"]),
    ],
)
def test_what_preprocess_writes(write_pair, paths, channels, n_channels, unfit):
    """Nothing that it writes is damaged; four channels are unfit, one of all labels is not."""
    em_xyz = np.full((6, 6, 60), 9, np.uint8)
    em_xyz[:, :, 30] = 0
    write_pair("007", em_xyz)
    p = Preprocess(**paths, **channels)
    preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
    data = dataset.load(p.proc_data_path)
    assert data.meta["filename"].tolist() == [f"007__{n_channels}_6_6_13.npy"]
    assert [one.text for one in run(data, crop_size=192)] == unfit
