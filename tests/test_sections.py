import numpy as np
import pytest

from synprep import sections


def histogram(*rows):
    """Histogram with the given {intensity: count} rows."""
    counts = np.zeros((len(rows), 256), dtype=np.int64)
    for row, values in zip(counts, rows, strict=True):
        for intensity, count in values.items():
            row[intensity] = count
    return counts


def test_moments_leave_cutout_pixels_out_of_the_sums():
    counts = histogram({0: 1, 9: 3}, {9: 4}, {0: 4})
    assert sections.moments(counts).tolist() == [[4, 4, 4], [1, 0, 4], [27, 36, 0], [243, 324, 0]]
    assert sections.moments(counts, 9).tolist() == [[4, 4, 4], [3, 4, 0], [0, 0, 0], [0, 0, 0]]


def test_imaged_leaves_the_input_alone():
    counts = histogram({0: 1, 9: 3})
    assert sections.imaged(counts).sum() == 3
    assert sections.imaged(counts, 9).sum() == 1
    assert counts.sum() == 4


def test_mean_and_std():
    mean, std = sections.mean_and_std(histogram({10: 2, 20: 2}, {7: 5}, {}))
    assert mean[:2].tolist() == [15.0, 7.0]
    assert std[:2].tolist() == [5.0, 0.0]
    assert np.isnan(mean[2]) and np.isnan(std[2])


def test_mean_and_std_of_one_histogram_agree_with_numpy():
    em = np.random.default_rng(1).integers(0, 256, (30, 30, 1), dtype=np.uint8)
    mean, std = sections.mean_and_std(np.bincount(em.ravel(), minlength=256))
    assert mean == pytest.approx(em.mean(), rel=1e-12)
    assert std == pytest.approx(em.std(), rel=1e-12)


def test_ratios_are_of_true_neighbours_only():
    mean_z = np.array([2.0, 4.0, 8.0, 2.0, 1.0])
    usable = np.array([True, True, False, True, True])
    assert sections.neighbour_ratios(mean_z, usable).tolist() == [0.5, 2.0]


def test_ratios_pass_over_sections_without_a_mean():
    mean_z = np.array([2.0, np.nan, 3.0, 0.0, 5.0, 4.0])
    assert sections.neighbour_ratios(mean_z, np.ones(6, dtype=bool)).tolist() == [1.25]
    assert sections.neighbour_ratios(np.array([1.0]), np.array([True])).size == 0


def test_mean_and_std_of_other_intensities():
    mean, std = sections.mean_and_std(histogram({10: 1, 20: 1})[0], sections.linear_transform(0.5, 1.0))
    assert (mean, std) == (8.5, 2.5)


def test_linear_transform_clips():
    moved = sections.linear_transform(1.1, -5)
    assert moved[[0, 100, 255]].tolist() == pytest.approx([0.0, 105.0, 255.0])


def test_transformed_histogram_moves_and_clips_all_pixels():
    counts = histogram({0: 1, 100: 2, 250: 3})[0]
    moved = sections.transformed_histogram(counts, 1.0, 10.0)
    assert {int(value): float(moved[value]) for value in np.flatnonzero(moved)} == {
        10: 1.0,
        110: 2.0,
        255: 3.0,
    }
    moved = sections.transformed_histogram(counts, 1.0, -10.0)
    assert {int(value): float(moved[value]) for value in np.flatnonzero(moved)} == {0: 1.0, 90: 2.0, 240: 3.0}


def test_transformed_histogram_spreads_a_level_over_its_new_width():
    moved = sections.transformed_histogram(histogram({100: 6})[0], 3.0, 0.0)
    assert {int(v): float(moved[v]) for v in np.flatnonzero(moved)} == pytest.approx({255: 6.0})
    moved = sections.transformed_histogram(histogram({50: 6})[0], 3.0, 0.0)
    assert {int(v): float(moved[v]) for v in np.flatnonzero(moved)} == pytest.approx(
        {149: 2.0, 150: 2.0, 151: 2.0}
    )


@pytest.mark.parametrize(
    ("fractions", "n_sections", "expected"),
    [
        ([0.5, 0.0, 0.02, 0.009, 0.01], 2, [3, 4, 2, 0]),  # a section at the threshold is not above it
        ([0.5, 0.0, 0.02, 0.009, 0.01], 1, [4, 2]),
        ([0.5, 0.0, 0.02, 0.009, 0.01], 9, [1, 3, 4, 2, 0]),
        ([0.5, 0.0, 0.02, 0.009, 0.01], 0, []),
        ([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 2, [3, 5, 0, 2]),
        ([np.nan, 0.0], 2, [1]),
        ([0.0, 0.0], 1, [1]),
        ([1.0], 1, [0]),
        ([], 3, []),
    ],
)
def test_nearest_to_threshold(fractions, n_sections, expected):
    assert sections.nearest_to_threshold(np.array(fractions), 0.01, n_sections).tolist() == expected
