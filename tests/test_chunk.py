import os

import numpy as np
import pytest
from conftest import labels, process

from synprep import params
from synprep._core import arrays, chunk, files, npy, problems
from synprep._core.chunk import Pair
from synprep._core.errors import ChunkError
from synprep._core.problems import Problem
from synprep.params import Preprocess

EM = np.random.default_rng(0).integers(1, 256, (10, 10, 20), dtype=np.uint8)
MASK = np.random.default_rng(1).integers(0, 4, (10, 10, 20), dtype=np.uint8)
INNER = labels((10, 10, 20))


def test_a_section_exactly_at_the_threshold_stays_and_one_pixel_more_blanks_it(tmp_path):
    em = EM.copy()
    em[0, 0, 8] = 0  # 1 of 100 pixels: exactly 0.01
    em[0, :2, 9] = 0
    result = process(tmp_path, Preprocess(), em, MASK)
    assert result.sections["is_blanked"].tolist() == [False, False, True, False, False]
    assert result.sections["cutout_fraction"].tolist() == [0.0, 0.01, 0.02, 0.0, 0.0]
    assert result.row["n_cutout_sections"] == 1
    assert not result.tensor_cxyz[0, :, :, 2].any()
    assert np.array_equal(result.tensor_cxyz[0, :, :, [0, 1, 3, 4]], np.moveaxis(em, 2, 0)[[7, 8, 10, 11]])
    assert np.array_equal(result.tensor_cxyz[1], MASK[:, :, 7:12])


def test_statistics_leave_cutout_pixels_out(tmp_path):
    em = EM.copy()
    em[0, 0, 8] = 0
    rows = process(tmp_path, Preprocess(), em, MASK).sections
    imaged = em[:, :, 8][em[:, :, 8] > 0]
    assert rows["mean"][1] == pytest.approx(imaged.mean(), rel=1e-12)
    assert rows["std"][1] == pytest.approx(imaged.std(), rel=1e-12)


def test_other_cutout_pixel_value(tmp_path):
    em = EM.copy()
    em[:, :, 8] = 255
    rows = process(tmp_path, Preprocess(cutout_pixel_value=255, cutout_threshold=0.5), em, MASK).sections
    assert rows["is_blanked"].tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("order", ["C", "F"])
def test_both_memory_orders_give_the_same(tmp_path, order):
    expected = process(tmp_path, Preprocess(), EM, MASK)
    ordered = np.asarray(EM, order=order), np.asarray(MASK, order=order)
    result = process(tmp_path, Preprocess(), *ordered)
    assert np.array_equal(result.tensor_cxyz, expected.tensor_cxyz)
    assert result.tensor_cxyz.flags.c_contiguous
    assert result.row == expected.row


@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
@pytest.mark.parametrize("axes", [(4, 3), (3, 4), (4, 4)])
def test_a_channel_axis_of_length_one_is_left_out(tmp_path, orders, axes):
    expected = process(tmp_path, Preprocess(), EM, MASK)
    arrays = (one.reshape(one.shape + (1,) * (n - 3)) for one, n in zip((EM, MASK), axes, strict=True))
    ordered = [np.asarray(one, order=order) for one, order in zip(arrays, orders, strict=True)]
    result = process(tmp_path, Preprocess(), *ordered)
    assert np.array_equal(result.tensor_cxyz, expected.tensor_cxyz)
    assert result.row == expected.row
    with Pair("a", tmp_path / "a.npy", tmp_path / "a_mask.npy").open() as raw:
        assert raw.shape == raw.em.header.shape == raw.mask.header.shape == (10, 10, 20)
        assert np.array_equal(raw.em.read(3, 5), EM[:, :, 3:5])


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, ">i4", np.uint64])
def test_masks_of_any_integer_type(tmp_path, dtype):
    result = process(tmp_path, Preprocess(), EM, MASK.astype(dtype))
    assert result.tensor_cxyz.dtype == np.uint8
    assert np.array_equal(result.tensor_cxyz[1], MASK[:, :, 7:12])


def test_boolean_mask(tmp_path):
    result = process(tmp_path, Preprocess(), EM, MASK > 1)
    assert np.array_equal(result.tensor_cxyz[1], MASK[:, :, 7:12] > 1)


@pytest.mark.parametrize(
    ("em", "mask", "reason"),
    [
        (
            EM.astype(np.float32),
            MASK,
            r"EM must be uint8: it is float32 \(to convert: docs/troubleshooting.md\)",
        ),
        (
            EM.astype(np.uint16),
            MASK,
            r"EM must be uint8: it is uint16 \(to convert: docs/troubleshooting.md\)",
        ),
        (EM[0], MASK, r"EM must have three axes .*: its shape is \(10, 20\)"),
        (EM[None], MASK, "EM must have three axes"),
        (EM[..., None, None], MASK, r"EM must have three axes .*: its shape is \(10, 10, 20, 1, 1\)"),
        (np.stack([EM, EM], axis=3), MASK, r"EM must have three axes .*: its shape is \(10, 10, 20, 2\)"),
        (EM[:0], MASK[:0], "none empty"),
        (EM[..., :0, None], MASK, r"none empty: its shape is \(10, 10, 0\)"),
        (EM, MASK[:0], "equal shapes"),
        (EM, MASK.astype(float), "mask must be integer or boolean: it is float64"),
        (EM, MASK.astype("m8[s]"), "its header is not that of an array of numbers"),
        (EM, MASK.astype("S1"), "mask must be integer or boolean"),
        (EM, MASK.astype(np.longdouble), "mask must be integer or boolean"),
        (EM, MASK[:9], r"equal shapes: EM \(10, 10, 20\), mask \(9, 10, 20\)"),
        (EM, MASK.astype(np.int16) * 100, "mask values must be 0 to 255: they are 0 to 300"),
        (EM, MASK.astype(np.int16) - 1, "mask values must be 0 to 255: they are -1 to 2"),
    ],
)
def test_what_cannot_be_used_is_an_error(tmp_path, em, mask, reason):
    with pytest.raises(ChunkError, match=reason):
        process(tmp_path, Preprocess(), em, mask)


SEG_MASK_MAP = Preprocess().seg_mask_map


def test_sections_can_be_kept_without_blanking_them(tmp_path):
    em = EM.copy()
    em[:, :, 8] = 0
    np.save(tmp_path / "a.npy", em)
    np.save(tmp_path / "a_mask.npy", np.where(MASK == 1, 10, MASK))
    with Pair("a", tmp_path / "a.npy", tmp_path / "a_mask.npy").open() as raw:
        first = chunk.keep(raw, (7, 12), SEG_MASK_MAP | {"MASK_PRE_SYNAPTIC_NEURON": 10}, 0)
        second = chunk.keep(raw, (7, 12), SEG_MASK_MAP, 0)
    assert np.array_equal(first.tensor_cxyz, [em[:, :, 7:12], MASK[:, :, 7:12]])
    assert first.raw_counts[10] == first.counts[1] == (MASK[:, :, 7:12] == 1).sum()
    assert not np.shares_memory(first.tensor_cxyz, second.tensor_cxyz)


NO_CLEFT = np.where(MASK == 2, 0, MASK)  # so that the whole mask is read too


@pytest.mark.parametrize("changed", ["a.npy", "a_mask.npy"])
@pytest.mark.parametrize(
    ("n_reads", "read"), [(0, {"a.npy", "a_mask.npy"}), (1, {"a_mask.npy"}), (2, {"a_mask.npy"})]
)
def test_a_file_that_is_replaced_before_a_read(tmp_path, monkeypatch, changed, n_reads, read):
    """An error if it is still to be read; else it counts as changed, and its chunk is done again."""
    pair, reads = write_pair(tmp_path), []
    before, read_file = pair.state(), npy.NpyFile.read

    def replacing(file, *arguments, **keywords):
        if len(reads) == n_reads:
            replace_later(tmp_path / changed)
        reads.append(file.path.name)
        return read_file(file, *arguments, **keywords)

    monkeypatch.setattr(npy.NpyFile, "read", replacing)
    with pair.open() as raw:
        if changed in read:
            with pytest.raises(ChunkError, match=f"{changed}: file changed while it was used"):
                chunk.process(raw, tmp_path, "key", **params.content(Preprocess()))
            assert not list(tmp_path.glob("*__*"))
        else:
            entry = chunk.process(raw, tmp_path, "key", **params.content(Preprocess()))
            assert entry.inputs == before != pair.state()


def write_pair(folder):
    np.save(folder / "a.npy", EM)
    np.save(folder / "a_mask.npy", NO_CLEFT)
    return Pair("a", folder / "a.npy", folder / "a_mask.npy")


def replace_later(path):
    array = np.load(path)
    np.save(path.with_name("new.npy"), array)
    os.utime(path.with_name("new.npy"), ns=(7, 7))
    os.replace(path.with_name("new.npy"), path)


def test_what_was_read_is_recorded_with_the_state_before(tmp_path, monkeypatch):
    pair, save = write_pair(tmp_path), files.save_array
    before = pair.state()

    def replacing(*arguments):
        save(*arguments)
        replace_later(tmp_path / "a.npy")
        replace_later(tmp_path / "a_mask.npy")

    monkeypatch.setattr(chunk.files, "save_array", replacing)
    with pair.open() as raw:
        entry = chunk.process(raw, tmp_path, "key", **params.content(Preprocess()))
    assert entry.inputs == before
    assert all(old != new for old, new in zip(before, pair.state(), strict=True))


def test_a_pair_that_cannot_be_used_leaves_no_file_open(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", EM)
    np.save(tmp_path / "a_mask.npy", MASK[:9])
    closed, close = [], npy.NpyFile.close
    monkeypatch.setattr(npy.NpyFile, "close", lambda file: closed.append(file.path.name) or close(file))
    with pytest.raises(ChunkError, match="equal shapes"):
        Pair("a", tmp_path / "a.npy", tmp_path / "a_mask.npy").open()
    with pytest.raises(ChunkError, match="three axes"):
        np.save(tmp_path / "b.npy", EM[0])
        Pair("b", tmp_path / "b.npy").open_em()
    assert sorted(closed) == ["a.npy", "a_mask.npy", "b.npy"]


def test_a_problem_is_located():
    located = Pair("7", None).locate(Problem(kind="bad"), "pairing")
    assert (located.synapse_id, located.stage, located.em_path, located.text) == ("7", "pairing", "", "bad")


class TestWarnings:
    """What does not fail but should be seen."""

    @pytest.fixture
    def warnings_of(self, tmp_path):
        def texts(mask, em=EM, **parameters):
            warnings = process(tmp_path, Preprocess(**parameters), em, mask).warnings
            assert {warning.severity for warning in warnings} <= {"warning"}
            return [warning.text for warning in warnings]

        return texts

    def test_none(self, warnings_of):
        assert warnings_of(INNER) == []

    def test_unknown_labels(self, warnings_of):
        mask = INNER.copy()
        mask[0, 0, 8], mask[0, 0, 9] = 9, 77
        assert warnings_of(mask) == ["labels that are not in seg_mask_map (labels found: 9, 77)"]

    def test_missing_labels(self, warnings_of):
        assert warnings_of(np.where(INNER == 2, 0, INNER)) == ["no cleft voxel (labels found: 1, 3)"]
        found = "(labels found: none)"
        names = ("presynaptic", "cleft", "postsynaptic")
        assert warnings_of(np.zeros_like(INNER)) == [f"no {name} voxel {found}" for name in names]

    def test_labels_found_are_those_of_the_input(self, warnings_of):
        mask = np.where(INNER == 2, 0, INNER) * 10
        seg_mask_map = dict(zip(Preprocess().seg_mask_map, (10, 20, 30), strict=True))
        assert warnings_of(mask, seg_mask_map=seg_mask_map) == ["no cleft voxel (labels found: 10, 30)"]

    def test_a_label_that_the_crop_removed(self, warnings_of):
        mask = np.where(INNER == 2, 0, INNER)
        mask[3, 3, 2] = 2
        assert warnings_of(mask) == ["the crop removed all cleft voxels"]
        mask[mask == 3] = 0
        assert warnings_of(mask) == [
            "no postsynaptic voxel (labels found: 1)",
            "the crop removed all cleft voxels",
        ]

    @pytest.mark.parametrize(
        ("voxel", "sides"),
        [((0, 3, 9), "first x"), ((-1, 3, 9), "last x"), ((3, 0, 9), "first y"), ((3, -1, 9), "last y")],
    )
    def test_a_cleft_at_the_edge_of_the_chunk(self, warnings_of, voxel, sides):
        mask = INNER.copy()
        mask[voxel] = 2
        assert warnings_of(mask) == [f"the cleft touches the crop's edge, and may be cut off: {sides}"]

    def test_a_cleft_at_the_edge_of_the_kept_sections(self, warnings_of):
        start, stop = arrays.crop_bounds(INNER.shape[2], Preprocess().axial_to_sagittal_spacing)
        mask = INNER.copy()
        mask[3, 3, start - 2 : stop + 2] = 2
        said = "the cleft touches the crop's edge, and may be cut off"
        assert warnings_of(mask) == [f"{said}: first z, last z"]
        mask[3, 3, [start, stop - 1]] = 0  # what is outside of the crop does not count
        assert warnings_of(mask) == []

    def test_all_blanked(self, warnings_of):
        assert warnings_of(INNER, em=np.zeros_like(EM)) == ["every section is blanked"]

    def test_each_has_a_hint(self, tmp_path):
        removed, edge = np.zeros((2, *INNER.shape), np.uint8)
        removed[0, 0, :4] = 9, 1, 2, 3
        edge[0, 0, 9:11] = 2, 200
        masks = (removed, edge, np.zeros_like(INNER))
        found = [process(tmp_path, Preprocess(), np.zeros_like(EM), mask).warnings for mask in masks]
        warnings = [warning for one in found for warning in one]
        of_pairs = {
            "the mask may not fit its EM",
            "the axes may be out of order",
            "label values may be mixed up",
            "labels outside 0 to 3",  # in records of 0.1.0
        }
        assert {warning.kind for warning in warnings} == set(problems.HINTS) - of_pairs
        assert all(warning.hint for warning in warnings)
