import math
from pathlib import Path

import numpy as np
import pytest

from synprep._core import pair_checks
from synprep._core.pair_checks import PairMeasures
from synprep._core.synthetic import make_chunk

NAN = math.nan
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_EM = sorted(DATA.glob("*/em/*.npy"))
MISFITS = {
    "flipped along x": lambda mask_xyz: mask_xyz[::-1],
    "flipped along y": lambda mask_xyz: mask_xyz[:, ::-1],
    "turned": lambda mask_xyz: mask_xyz[::-1, ::-1],
    "moved along x": lambda mask_xyz: np.roll(mask_xyz, 16, axis=0),
    "moved along y": lambda mask_xyz: np.roll(mask_xyz, 16, axis=1),
}


@pytest.fixture(scope="module")
def pair():
    return make_chunk(7, (96, 96, 32))


def plane(*rows):
    """One section; each row is a tuple of pixels along y."""
    return np.array(rows, dtype=np.uint8)[:, :, None]


def kinds(measures, spacing=5.0):
    return [warning.split(" (")[0] for warning in pair_checks.warnings(measures, spacing)]


@pytest.mark.parametrize(
    ("em", "mask", "expected"),
    [
        ([(200, 40)], [(1, 0)], 160),
        ([(40, 200)], [(0, 3)], 160),
        ([(200,), (40,)], [(1,), (0,)], 160),
        ([(40,), (200,)], [(0,), (1,)], 160),
        ([(100, 200, 40)], [(1, 3, 0)], 110),  # both neurons are inside
        (
            [(1, 30, 10, 20, 200)],
            [(0, 0, 0, 0, 3)],
            190,
        ),  # the second ring is darkest; the fourth does not count
        ([(1, 30, 10, 20, 200)], [(2, 2, 2, 0, 3)], 180),  # the cleft is no boundary
        ([(90, 200, 1)], [(0, 3, 2)], 110),  # and it is not inside
        ([(200, 40)], [(1, 77)], 160),  # any other label is background
        ([(200, 40), (60, 90)], [(1, 0), (0, 0)], 150),  # a pixel that touches with a corner comes second
        ([(200, 0, 0, 40)], [(3, 3, 0, 0)], 160),  # cutout pixels count on neither side
        ([(200, 40)], [(0, 0)], NAN),
        ([(200, 40)], [(1, 1)], NAN),
        ([(200, 40)], [(2, 0)], NAN),
    ],
)
def test_boundary_contrast(em, mask, expected):
    contrast, _ = pair_checks.boundary_contrast(plane(*em), plane(*mask), n_least=1)
    assert contrast == pytest.approx(expected, nan_ok=True)


def test_the_boundary_lies_within_the_section():
    em, mask = plane((200, 200)), plane((1, 1))
    em, mask = np.concatenate([em, em // 2], axis=2), np.concatenate([mask, 0 * mask], axis=2)
    assert math.isnan(pair_checks.boundary_contrast(em, mask, n_least=1)[0])


def test_relative_contrast_is_that_of_imaged_pixels():
    em, mask = plane((200, 100, 255)), plane((1, 0, 0))
    assert pair_checks.boundary_contrast(em, mask, 255, n_least=1) == (100, 100 / 50)
    assert pair_checks.boundary_contrast(em // 2, mask, 127, n_least=1) == (50, 50 / 25)


def test_constant_em_has_no_relative_contrast():
    contrasts = pair_checks.boundary_contrast(plane((9, 9)), plane((1, 0)), n_least=1)
    assert contrasts == pytest.approx((0, NAN), nan_ok=True)


def test_few_pixels_have_no_contrast():
    em, mask = plane((200, 200, 40, 40, 30)), plane((1, 1, 0, 0, 0))
    assert pair_checks.boundary_contrast(em, mask, n_least=1)[0] == 170
    assert math.isnan(pair_checks.boundary_contrast(em, mask, n_least=2)[0])


def test_neighbour_correlations():
    em_xyz = np.broadcast_to(np.array([1, 3, 1, 3, 1], dtype=np.uint8)[:, None], (2, 5, 4)).copy()
    assert pair_checks.neighbour_correlations(em_xyz, n_least=1) == pytest.approx((1, -1, 1))
    em_xyz[1, 2, 3] = em_xyz[0, :, 0] = 255
    assert pair_checks.neighbour_correlations(em_xyz, 255, n_least=1) == pytest.approx((1, -1, 1))
    assert min(pair_checks.neighbour_correlations(em_xyz, n_least=1)) > -1
    assert all(map(math.isnan, pair_checks.neighbour_correlations(em_xyz, 255)))


def test_sections_that_are_no_neighbours_are_not_compared():
    em_xyz = np.stack([plane((1, 2, 3, 4))[:, :, 0] * k for k in (1, 0, 1)], axis=2).astype(np.uint8)
    assert pair_checks.neighbour_correlations(em_xyz, n_least=1) == pytest.approx((NAN, 1, NAN), nan_ok=True)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [((1, 1, 1, 2, 3, 3), 0.5), ((1, 2, 2, 3, 3), 2), ((1, 1, 3), NAN), ((2, 3), NAN), ((1, 2), NAN)],
)
def test_cleft_ratio(mask, expected):
    assert pair_checks.cleft_ratio(plane(mask)) == pytest.approx(expected, nan_ok=True)


AS_IT_SHOULD_BE = {
    "boundary_contrast": 50.0,
    "relative_contrast": 1.0,
    "correlation_x": 0.8,
    "correlation_y": 0.7,
    "correlation_z": 0.3,
    "cleft_ratio": 0.1,
}


@pytest.mark.parametrize(
    ("changed", "spacing", "expected"),
    [
        ({}, 5.0, ""),
        ({"relative_contrast": 0.7}, 5.0, ""),
        (
            {"relative_contrast": 0.69},
            5.0,
            "the mask may not fit its EM (boundary contrast 50.0 grey levels, 0.69 ",
        ),
        ({"relative_contrast": -1.0}, 5.0, "the mask may not fit its EM"),
        ({"correlation_z": 0.7}, 5.0, ""),
        (
            {"correlation_x": 0.28, "correlation_z": 0.79},
            5.0,
            "along x, correlation 0.28, and not along z, 0.79,",
        ),
        (
            {"correlation_y": 0.28, "correlation_z": 0.79},
            2.0,
            "along y, correlation 0.28, and not along z, 0.79,",
        ),
        ({"correlation_x": 0.28, "correlation_z": 0.79}, 1.9, ""),
        ({"cleft_ratio": 1.0}, 5.0, ""),
        ({"cleft_ratio": 3.14}, 5.0, "label values may be mixed up (the cleft has 3.1 times"),
        (dict.fromkeys(AS_IT_SHOULD_BE, NAN), 5.0, ""),
    ],
)
def test_warnings(changed, spacing, expected):
    found = pair_checks.warnings(PairMeasures(**AS_IT_SHOULD_BE | changed), spacing)
    assert len(found) == bool(expected)
    assert expected in "".join(found)


def test_a_pair_in_order_gives_no_warning(pair):
    assert kinds(pair_checks.measure(*pair)) == []


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_mask_that_does_not_fit(misfit, pair):
    em_xyz, mask_xyz = pair
    assert kinds(pair_checks.measure(em_xyz, MISFITS[misfit](mask_xyz))) == ["the mask may not fit its EM"]


def test_inverted_em(pair):
    em_xyz, mask_xyz = pair
    assert kinds(pair_checks.measure(255 - em_xyz, mask_xyz)) == ["the mask may not fit its EM"]


@pytest.mark.parametrize("axes", [(2, 1, 0), (0, 2, 1)])
def test_axes_out_of_order_are_seen_through_a_black_section(axes):
    pair = make_chunk(7, (96, 96, 32), black_sections=(9,))
    measures = pair_checks.measure(*(array.transpose(axes) for array in pair))
    assert kinds(measures) == ["the axes may be out of order"]
    assert kinds(measures, spacing=1.0) == []


def test_exchanged_label_values(pair):
    em_xyz, mask_xyz = pair
    exchanged = np.array([0, 2, 1, 3], dtype=np.uint8)[mask_xyz]
    assert kinds(pair_checks.measure(em_xyz, exchanged)) == ["label values may be mixed up"]


def test_cutouts_change_little(pair):
    cut = make_chunk(7, (96, 96, 32), black_sections=(3, 4, 15), cut_sections={9: 4000, 16: 92})
    assert vars(pair_checks.measure(*cut)) == pytest.approx(vars(pair_checks.measure(*pair)), rel=0.03)


def test_partly_cut_sections_count(pair):
    em_xyz, mask_xyz = pair[0].copy(), pair[1]
    em_xyz[:2] = 0
    assert kinds(pair_checks.measure(em_xyz, mask_xyz[::-1])) == ["the mask may not fit its EM"]


@pytest.mark.parametrize("labelled", [[2], range(200)])
@pytest.mark.parametrize("imaged", [[2, 3], range(200), [*range(0, 200, 2), 3]])
def test_the_little_that_a_deep_chunk_has_is_found(labelled, imaged, pair):
    em_xyz, mask_xyz = np.zeros((96, 96, 200), np.uint8), np.zeros((96, 96, 200), np.uint8)
    em_xyz[:, :, imaged] = pair[0][:, :, 16:17]
    mask_xyz[:, :, labelled] = pair[1][:, :, 16:17]
    measures = pair_checks.measure(em_xyz, mask_xyz)
    assert measures.relative_contrast > pair_checks.MIN_RELATIVE_CONTRAST
    assert measures.correlation_z == pytest.approx(1)


def test_memory_order_does_not_matter(pair):
    fortran = [np.asfortranarray(array) for array in pair]
    assert vars(pair_checks.measure(*fortran)) == pytest.approx(vars(pair_checks.measure(*pair)))


def test_no_more_sections_are_looked_at_than_wanted():
    is_wanted_z = np.ones(200, dtype=bool)
    is_wanted_z[[0, 5]] = False
    z = pair_checks._spread(is_wanted_z)
    assert (z.size, z[0], z[-1]) == (pair_checks.N_SECTIONS, 1, 199)
    assert set(np.diff(z)) <= {6, 7}
    assert pair_checks._spread(is_wanted_z[:7]).tolist() == [1, 2, 3, 4, 6]


@pytest.mark.parametrize("shape", [(64, 64, 8), (64, 64, 1), (1, 64, 64), (64, 1, 64), (1, 1, 1)])
@pytest.mark.parametrize("em_value", [0, 100])
@pytest.mark.parametrize("label", [0, 1, 2, 77])
def test_nothing_to_measure(shape, em_value, label):
    em_xyz, mask_xyz = np.full(shape, em_value, np.uint8), np.full(shape, label, np.uint8)
    measures = pair_checks.measure(em_xyz, mask_xyz)
    assert all(map(math.isnan, vars(measures).values()))
    assert kinds(measures) == []


@pytest.mark.skipif(not REAL_EM, reason="the real EM chunks are not distributed with the project")
@pytest.mark.parametrize("em_path", REAL_EM, ids=lambda path: path.stem)
def test_real_pairs(em_path):
    em_xyz = np.load(em_path)
    mask_xyz = np.load(em_path.parents[1] / "mask" / f"{em_path.stem}_mask.npy")
    spacing = 5.2 if "vnc" in str(em_path) else 1.0
    assert kinds(pair_checks.measure(em_xyz, mask_xyz), spacing) == []
    for misfit in MISFITS.values():
        measures = pair_checks.measure(em_xyz, misfit(mask_xyz))
        assert kinds(measures, spacing) == ["the mask may not fit its EM"]
