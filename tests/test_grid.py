from fractions import Fraction

import numpy as np
import plain_cut
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synprep._core import grid
from synprep._core.grid import Axis

METHODS = {
    grid.sampled: plain_cut.containing,
    grid.averaged: plain_cut.em_xy,
    grid.stacked: plain_cut.em_z,
}


def dense(weights, n_voxels):
    """Shares of all voxels of a volume, a row for each grid voxel."""
    shares = np.zeros((len(weights.first), n_voxels))
    for row, first, counts in zip(shares, weights.first, weights.weights, strict=True):
        for k in np.flatnonzero(counts):
            row[first + k] += counts[k] / counts.sum()
    return shares


# From the point of a table to the grid


@pytest.mark.parametrize(
    ("centre_nm", "start"),
    [
        (
            (1024, 1024, 10240),
            (0, 0, 128),
        ),  # the centre's voxel has the local index 128, or 128 of 256 sections
        ((1031.9, 1031.9, 10279.9), (0, 0, 128)),
        ((1032, 1032, 10280), (1, 1, 129)),  # on a border: the upper voxel
        ((0, 4, 39), (-128, -128, -128)),
        ((-1, -8, -40.1), (-129, -129, -130)),
    ],
)
def test_where_a_chunk_begins(centre_nm, start):
    assert grid.chunk_start(centre_nm, (8, 8, 40), (256, 256, 256)) == start


@pytest.mark.parametrize("k", [1, 3, 7, 10, 94_321])
@pytest.mark.parametrize("size", [9.2, 7.1, 0.1, 1e-3])
def test_a_centre_on_a_border_is_in_the_upper_voxel_for_all_roundings(k, size):
    assert grid.chunk_start([k * size, size * k, sum([size] * 3)], [size] * 3, [1, 2, 3]) == (k, k - 1, 2)


def test_odd_chunks_have_their_centre_in_the_middle():
    assert grid.chunk_start((84, 84, 420), (8, 8, 40), (21, 1, 20)) == (0, 10, 0)


# Scales


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(4, 4, 40), (8, 8, 40), (16, 16, 40)], 1),
        ([(16, 16, 40), (4, 4, 40)], 1),  # whatever order
        ([(4, 4, 40), (9, 9, 40)], 0),
        ([(4, 4, 40), (8, 9, 40)], 0),  # both x and y
        ([(8.000001, 8, 40)], 0),  # equal but for rounding
        ([(4, 4, 40), (8.000001, 8, 40)], 1),
        ([(10, 10, 40), (12, 12, 40)], 0),
        ([(20, 20, 40), (12, 12, 40)], 1),
        ([(8, 8, 8), (8, 8, 40), (8, 8, 80)], 1),
        ([(8, 8, 8), (8, 8, 16)], 1),
        ([(8, 8, 100), (8, 8, 80)], 1),
        ([(12.1, 12.1, 40), (13, 4, 40)], 0),
    ],
)
def test_choice_of_a_scale(sizes, chosen):
    assert grid.choose_scale(sizes, (8, 8, 40)) == chosen


# One axis


def test_equal_voxels_are_copied():
    weights = grid.averaged(Axis(8, 8, 16, 100), 3, 6)
    assert weights.is_copy
    assert weights.bounds == (1, 4)
    assert weights.weights.tolist() == [[1], [1], [1]]


def test_voxels_that_fit_whole_are_averaged():
    weights = grid.averaged(Axis(8, 4, -4, 100), 1, 3)
    assert not weights.is_copy
    assert weights.first.tolist() == [3, 5]
    assert weights.weights.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("axis", "shares"),
    [
        (Axis(8, 8, 4, 10), [0.5, 0.5]),  # half a voxel apart
        (Axis(8, 4, 2, 10), [0.25, 0.5, 0.25]),  # whole ratio, but not phase
        (Axis(8, 10, 0, 10), [0.3, 0.7]),  # a coarser volume is interpolated
    ],
)
def test_all_else_is_weighed_by_a_triangle(axis, shares):
    weights = dense(grid.averaged(axis, 1, 2), 10)[0]
    assert np.allclose(weights[weights > 0], shares)


@pytest.mark.parametrize(
    ("voxel_nm", "offset_nm", "sections"),
    [
        (40, 0, [1]),
        (40, 20, [1]),  # on a border the upper one
        (40, 21, [0]),
        (30, 0, [2]),  # not twice as fine: never blended
        (20, 0, [2, 3]),
        (20, 10, [1, 2]),  # centres on both borders: the upper one is that of the next voxel
        (8, 0, [5, 6, 7, 8, 9]),
        (15, 0, [3, 4]),
        (100, 0, [0]),
    ],
)
def test_sections_of_an_em(voxel_nm, offset_nm, sections):
    weights = grid.stacked(Axis(40, voxel_nm, offset_nm, 20), 1, 2)
    assert np.flatnonzero(dense(weights, 20)).tolist() == sections
    assert set(weights.weights[weights.weights > 0]) == {1}


def test_labels_are_those_at_the_centre():
    first = grid.sampled(Axis(8, 5, 0, 100), 0, 4).first
    assert first.tolist() == [0, 2, 4, 5]  # 4, 12, 20 and 28 nm; 20 is on a border
    assert grid.sampled(Axis(8, 8, 4, 100), 1, 3).first.tolist() == [1, 2]


@pytest.mark.parametrize("size", [9.2, 7.1, 0.3, 40])
def test_borders_hold_for_all_roundings(size):
    n = 3000
    labels = grid.sampled(Axis(size, size, size / 2, 2 * n), n, 2 * n)  # all centres are on borders
    assert labels.first.tolist() == list(range(n, 2 * n))
    sections = grid.stacked(Axis(size, size / 2, size / 4, 6 * n), n, 2 * n)  # all edges are at centres
    assert sections.first.tolist() == list(range(2 * n - 1, 4 * n - 1, 2))
    assert sections.weights.tolist() == [[1, 1]] * n


def test_what_lies_outside_needs_nothing():
    for weigh in METHODS:
        weights = weigh(Axis(8, 4, 0, 10), 5, 9)  # the volume ends at 40 nm
        assert not weights.is_inside.any()
        assert weights.bounds == (0, 0)
        assert weigh(Axis(8, 4, 0, 10), 4, 9).is_inside.tolist() == [True, False, False, False, False]


def test_weights_are_shared_out_inside_the_volume():
    assert np.allclose(dense(grid.averaged(Axis(8, 10, 0, 4), 4, 6), 4), [[0, 0, 0, 1], [0, 0, 0, 0]])
    assert np.allclose(dense(grid.averaged(Axis(24, 8, 0, 5), 1, 2), 5), [[0, 0, 0, 0.5, 0.5]])


sizes = st.sampled_from([1, 2, 3, 4, 5, 7.5, 8, 9.2, 10, 11.9, 16, 20, 40, 50])


@settings(max_examples=300)
@given(
    st.sampled_from(list(METHODS)),
    sizes,
    sizes,
    st.integers(-2000, 2000).map(lambda n: n / 10),
    st.integers(1, 30),
    st.integers(-12, 12),
    st.integers(1, 6),
    st.sampled_from([0, 1_000, 123_456]),
)
def test_weights_equal_plain_ones(weigh, grid_nm, voxel_nm, offset_nm, n_voxels, start, n, far):
    exact = [*plain_cut.fractions((voxel_nm, offset_nm, grid_nm))]
    plain = plain_cut.along(METHODS[weigh], n_voxels, *exact, start, n)
    plain = plain / np.maximum(plain.sum(axis=1, keepdims=True), 1)
    offset_nm += far * grid_nm  # the same far from the origin
    weights = weigh(Axis(grid_nm, voxel_nm, offset_nm, n_voxels), start + far, start + far + n)
    assert np.allclose(dense(weights, n_voxels), plain, atol=1e-5)
    used = np.flatnonzero(plain.any(axis=0))
    assert weights.bounds == ((used[0], used[-1] + 1) if used.size else (0, 0))
    assert weights.is_inside.tolist() == plain.any(axis=1).tolist()


# Distances


@given(st.integers(-5, 5), st.integers(1, 6), st.floats(-50, 50).map(lambda x: round(x, 2)))
def test_squared_distances(start, n, centre):
    found = grid.squared_distances(centre, 8, start, start + n)
    plain = [(Fraction(2 * k + 1, 2) * 8 - Fraction(str(centre))) ** 2 for k in range(start, start + n)]
    assert np.allclose(found, [float(square) for square in plain], atol=1e-4)


def test_sums_of_squares_do_not_depend_on_their_order():
    a, b, c = (grid.squared_distances(centre, 9.2, 0, 50) for centre in (1.23, 4.56, 7.89))
    assert ((a[:, None] + b) + c[0] == a[:, None] + (b + c[0])).all()


@pytest.mark.parametrize("grid_nm", [(8, 8, 40), (8, 8, 8), (4, 4, 20), (25, 10, 10)])
def test_a_ball_holds_what_is_near_its_middle(grid_nm):
    found = grid.ball(20, grid_nm)
    steps = np.argwhere(found) - np.array(found.shape) // 2
    plain = [step for step in np.ndindex(19, 19, 19) if (((np.array(step) - 9) * grid_nm) ** 2).sum() <= 400]
    assert {tuple(step) for step in steps} == {(x - 9, y - 9, z - 9) for x, y, z in plain}
    assert all(found.any(axis=axis).any(axis=0)[[0, -1]].all() for axis in range(3))  # no more than it needs
