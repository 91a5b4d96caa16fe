import numpy as np
import pytest

from synprep._core import arrays

IDENTITY = {"MASK_PRE_SYNAPTIC_NEURON": 1, "MASK_SYNAPTIC_CLEFT": 2, "MASK_POST_SYNAPTIC_NEURON": 3}


@pytest.mark.parametrize(
    ("depth", "spacing", "n_sections", "expected"),
    [
        (256, 5.0, 0, (102, 154)),  # the standard chunk keeps 52 sections
        (255, 5.0, 0, (101, 153)),
        (20, 5.0, 0, (7, 12)),
        (16, 5.0, 0, (6, 10)),
        (11, 5.0, 0, (4, 7)),  # odd depth, odd number kept
        (11, 4.0, 0, (4, 7)),
        (10, 2.5, 0, (2, 7)),
        (7, 1.0, 0, (0, 7)),  # the seed asks for one section more than there is
        (7, 0.5, 0, (0, 7)),
        (1, 5.0, 0, (0, 1)),
        (20, 5.0, 20, (0, 20)),
        (20, 5.0, 99, (0, 20)),
        (21, 5.0, 4, (8, 12)),
    ],
)
def test_crop_keeps_the_central_sections(depth, spacing, n_sections, expected):
    assert arrays.crop_bounds(depth, spacing, n_sections) == expected


def test_identity_map_leaves_all_values():
    mask = np.arange(256, dtype=np.uint8).reshape(4, 4, 16)
    assert np.array_equal(arrays.standard_labels(IDENTITY)[mask], mask)


def test_map_gives_the_standard_values():
    mask = np.array([[[0, 1, 2, 3, 10, 20, 30, 77]]], dtype=np.uint8)
    seg_mask_map = dict(zip(IDENTITY, (10, 20, 30), strict=True))
    assert arrays.standard_labels(seg_mask_map)[mask].tolist() == [[[0, 0, 0, 0, 1, 2, 3, 77]]]


def test_map_may_swap_labels():
    mask = np.array([[[0, 1, 2, 3]]], dtype=np.uint8, order="F")
    seg_mask_map = dict(zip(IDENTITY, (3, 2, 1), strict=True))
    assert arrays.standard_labels(seg_mask_map)[mask].tolist() == [[[0, 3, 2, 1]]]


def test_cut_channels_keep_em_inside_their_labels():
    em, mask = np.array([[[9, 8, 7, 6]]], dtype=np.uint8), np.array([[[0, 1, 2, 3]]], dtype=np.uint8)
    tensor = arrays.cut_channels(em, mask, [[1], [2, 3]])
    assert tensor[:, 0, 0].tolist() == [[0, 8, 0, 0], [0, 0, 7, 6], [0, 1, 2, 3]]
    assert tensor.dtype == np.uint8


def test_volumes():
    counts = np.bincount([0, 1, 1, 2, 3, 3, 3, 255], minlength=256)
    volumes = arrays.label_volumes(counts, 2.5)
    assert volumes == {1: 5.0, 2: 2.5, 3: 7.5}
    assert all(isinstance(value, float) for value in volumes.values())


def test_label_centre_is_the_median_voxel():
    mask = np.zeros((9, 8, 7), dtype=np.uint8)
    mask[2:5, 6, 1] = 2
    assert arrays.label_centre(mask, 2) == (3, 6, 1)
    assert arrays.label_centre(mask, 3) == (4, 4, 3)


def histogram(*rows):
    """Histogram with the given {intensity: count} rows."""
    counts = np.zeros((len(rows), 256), dtype=np.int64)
    for row, values in zip(counts, rows, strict=True):
        for intensity, count in values.items():
            row[intensity] = count
    return counts


def test_moments_leave_cutout_pixels_out_of_the_sums():
    counts = histogram({0: 1, 9: 3}, {9: 4}, {0: 4})
    assert arrays.moments(counts).tolist() == [[4, 4, 4], [1, 0, 4], [27, 36, 0], [243, 324, 0]]
    assert arrays.moments(counts, 9).tolist() == [[4, 4, 4], [3, 4, 0], [0, 0, 0], [0, 0, 0]]


def test_imaged_leaves_the_input_alone():
    counts = histogram({0: 1, 9: 3})
    assert arrays.imaged(counts).sum() == 3
    assert arrays.imaged(counts, 9).sum() == 1
    assert counts.sum() == 4


def test_mean_and_std():
    mean, std = arrays.mean_and_std(histogram({10: 2, 20: 2}, {7: 5}, {}))
    assert mean[:2].tolist() == [15.0, 7.0]
    assert std[:2].tolist() == [5.0, 0.0]
    assert np.isnan(mean[2]) and np.isnan(std[2])


def test_mean_and_std_of_one_histogram_agree_with_numpy():
    em = np.random.default_rng(1).integers(0, 256, (30, 30, 1), dtype=np.uint8)
    mean, std = arrays.mean_and_std(np.bincount(em.ravel(), minlength=256))
    assert mean == pytest.approx(em.mean(), rel=1e-12)
    assert std == pytest.approx(em.std(), rel=1e-12)


class TestBinEdges:
    """As wide as the rule says, and within reach of the quartiles."""

    def test_normal_values(self):
        values = np.random.default_rng(0).normal(size=1000)
        edges = arrays.bin_edges(values)
        assert (edges[0], edges[-1]) == (values.min(), values.max())
        spread = np.subtract(*np.percentile(values, [75, 25]))
        assert np.diff(edges) == pytest.approx(np.full(len(edges) - 1, 2 * spread / 10), rel=0.05)

    def test_a_value_far_away_does_not_make_the_bins_wide_or_many(self):
        values = np.append(np.random.default_rng(0).normal(size=1000), 1e9)
        edges = arrays.bin_edges(values)
        assert len(edges) < 100
        assert edges[-1] < 15

    @pytest.mark.parametrize(
        "values", [[], [2.0], [1.0, 1.0, 1.0], [0.0] * 9 + [5.0], [1, 1 + 1e-15, 1 - 1e-15]]
    )
    def test_values_that_are_alike(self, values):
        values = np.array(values)
        edges = arrays.bin_edges(values)
        assert len(edges) <= 11
        assert np.histogram(values, edges)[0].sum() == len(values)
