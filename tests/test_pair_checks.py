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
SEED = 1000379
DOES_NOT_FIT = "the mask may not fit its EM"


@pytest.fixture(scope="module")
def pair():
    return make_chunk(SEED, (96, 96, 20))


def plane(*rows):
    """One section; each row is a tuple of pixels along y."""
    return np.array(rows, dtype=np.uint8)[:, :, None]


def kinds(measures, spacing=5.0):
    return list(pair_checks.warnings(measures, spacing))


def disk(n, radius, centre=(0, 0)):
    """Where pixels of a section are inside a circle around its middle, or another place."""
    x, y = (np.arange(n) - n // 2 - at for at in centre)
    return np.hypot(x[:, None], y) < radius


def drawn(n=96, radius=24, width=3, sections=3, label=1):
    """A round neuron in grain, its membrane just outside of its label; n pixels of 8 nm."""
    em_xyz = np.random.default_rng(0).normal(150, 20, (n, n, sections))
    inside, outside = disk(n, radius), disk(n, radius + width)
    em_xyz[outside & ~inside] = 60
    mask_xyz = np.broadcast_to((inside * label).astype(np.uint8)[..., None], em_xyz.shape)
    return np.clip(em_xyz, 1, 255).astype(np.uint8), mask_xyz.copy()


@pytest.mark.parametrize("label", [1, 3])
@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (7, 0), (0, -7), (-12, 5)])
def test_by_how_much_a_mask_is_shifted(label, dx, dy):
    em_xyz, mask_xyz = drawn(label=label)
    fits, score, x, y = pair_checks.mask_fit(em_xyz, np.roll(mask_xyz, (dx, dy), (0, 1)))
    assert (fits, x, y) == ((dx, dy) == (0, 0), -dx, -dy)
    assert score > 10


@pytest.mark.parametrize(("pixel_nm", "n"), [(2, 4), (4, 2), (8, 2), (12, 2), (16, 2)])
def test_lengths_are_in_nm(pixel_nm, n):
    em_xyz, mask_xyz = (np.repeat(np.repeat(one, n, 0), n, 1) for one in drawn(64, 12, 1.5))
    near, far = (max(1, int(nm / pixel_nm)) for nm in (16, 64))
    assert pair_checks.mask_fit(em_xyz, mask_xyz, pixel_nm=pixel_nm)[0] is True
    moved = pair_checks.mask_fit(em_xyz, np.roll(mask_xyz, far, 0), pixel_nm=pixel_nm)
    assert moved[0] is False
    assert moved[2:] == pytest.approx((-far, 0), abs=near)


@pytest.mark.parametrize("n", [-3, -2, -1, 1, 2, 3])
def test_labels_may_be_narrower_or_wider(n):
    em_xyz, _ = drawn()
    mask_xyz = drawn(radius=24 + n)[1]
    assert pair_checks.mask_fit(em_xyz, mask_xyz)[0] is True


def test_the_border_of_neurons_that_touch_is_between_them():
    """Two halves of all pixels, and a membrane where they meet; nothing is outside."""
    em_xyz = np.random.default_rng(0).normal(150, 20, (96, 96, 3)).clip(1, 255).astype(np.uint8)
    path = 48 + np.rint(8 * np.sin(np.arange(96) / 9)).astype(int)
    x = np.arange(96)[:, None]
    em_xyz[np.abs(x - path) < 2] = 60
    mask_xyz = np.where((x < path)[..., None], np.uint8(1), np.uint8(3)) * np.ones((1, 1, 3), np.uint8)
    assert pair_checks.mask_fit(em_xyz, mask_xyz)[0] is True
    assert pair_checks.mask_fit(em_xyz, mask_xyz[:, ::-1])[0] is False
    assert pair_checks.mask_fit(em_xyz, np.ones_like(mask_xyz))[0] is None  # without a border


def test_a_cleft_is_no_membrane():
    """It is dark, but in no ring."""
    _, mask_xyz = drawn(sections=1)
    mask_xyz[40:60, 70:74] = 2
    regions = pair_checks._regions(mask_xyz.transpose(2, 0, 1), 8.0)[0]
    assert not regions[:, mask_xyz[:, :, 0] == 2].any()
    assert regions.any(axis=(1, 2)).all()


def test_the_border_lies_within_the_section():
    em_xyz, mask_xyz = drawn(sections=2)
    em_xyz[:, :, 0], mask_xyz[:, :, 1] = 150, 0
    assert pair_checks.mask_fit(em_xyz, mask_xyz)[0] is not True


def test_brightness_that_varies_slowly_does_not_matter():
    em_xyz, mask_xyz = drawn()
    wave = 60 * np.sin(np.arange(96) * 2 * np.pi / 50)  # of 400 nm
    shaded = (em_xyz + wave[:, None, None] + wave[None, :, None]).clip(1, 255).astype(np.uint8)
    assert pair_checks.mask_fit(shaded, mask_xyz)[0] is True


def test_a_place_that_is_hardly_better_does_not_count(monkeypatch):
    em_xyz, mask_xyz = drawn()
    moved = np.roll(mask_xyz, 4, 0)
    fits, best, *shift = pair_checks.mask_fit(em_xyz, moved)
    assert (fits, shift) == (False, [-4, 0])
    monkeypatch.setattr(pair_checks, "_SHARE", 0.1)
    fits, here, *shift = pair_checks.mask_fit(em_xyz, moved)
    assert fits and 5 < here < 0.9 * best
    assert np.hypot(*shift) <= 2


def test_the_best_place_must_be_good(monkeypatch):
    fits, score, *shift = pair_checks.mask_fit(*drawn())
    assert (fits, shift) == (True, [0, 0])
    monkeypatch.setattr(pair_checks, "MIN_SCORE", score + 1)
    assert pair_checks.mask_fit(*drawn())[0] is False


@pytest.mark.parametrize("value", [0, 255])
def test_cutout_pixels_count_on_neither_side(value):
    em_xyz, mask_xyz = drawn()
    em_xyz = em_xyz.clip(1, 254)
    em_xyz[60:] = value
    assert pair_checks.mask_fit(em_xyz, mask_xyz, value)[0] is True
    assert pair_checks.mask_fit(em_xyz, np.roll(mask_xyz, 9, 1), value)[2:] == pytest.approx((0, -9), abs=1)
    em_xyz[:] = value
    assert pair_checks.mask_fit(em_xyz, mask_xyz, value)[0] is None


def test_neurons_that_were_not_imaged_are_not_measured():
    """They would be where the mask is moved to."""
    em_xyz, mask_xyz = drawn(radius=12)
    em_xyz[:72], mask_xyz = 0, np.roll(mask_xyz, 8, 0)
    em_xyz[:, :, 1:] = 0
    assert pair_checks.mask_fit(em_xyz, mask_xyz)[0] is None


def test_too_little_to_measure():
    em_xyz, mask_xyz = drawn(radius=8, sections=1)  # the band has 81 pixels
    fit = pair_checks.mask_fit(em_xyz, mask_xyz)
    assert fit[0] is None and all(map(math.isnan, fit[1:]))
    assert pair_checks.mask_fit(*drawn(), pixel_nm=33)[0] is None
    assert pair_checks.mask_fit(*drawn(8, 3))[0] is None


def test_distances_are_nearly_those_of_euclid():
    point = np.zeros((1, 41, 41), bool)
    point[0, 20, 20] = True
    distance = pair_checks._distance(point, 15)[0]
    true = np.hypot(*np.indices((41, 41)) - 20)
    assert distance[20, 20] == 0 and distance[20, 23] == distance[17, 20] == 3
    assert np.abs(distance - true)[true < 14].max() < 1.6
    assert (distance[true > 17.5] == 16).all()


def test_neighbour_correlations(monkeypatch):
    em_xyz = np.broadcast_to(np.array([1, 3, 1, 3, 1], dtype=np.uint8)[:, None], (2, 5, 4)).copy()
    assert all(map(math.isnan, pair_checks.neighbour_correlations(em_xyz, 255)))
    monkeypatch.setattr(pair_checks, "N_LEAST", 1)
    assert pair_checks.neighbour_correlations(em_xyz) == pytest.approx((1, -1, 1))
    em_xyz[1, 2, 3] = em_xyz[0, :, 0] = 255
    assert pair_checks.neighbour_correlations(em_xyz, 255) == pytest.approx((1, -1, 1))
    assert min(pair_checks.neighbour_correlations(em_xyz)) > -1


def test_sections_that_are_no_neighbours_are_not_compared(monkeypatch):
    monkeypatch.setattr(pair_checks, "N_LEAST", 1)
    em_xyz = np.stack([plane((1, 2, 3, 4))[:, :, 0] * k for k in (1, 0, 1)], axis=2).astype(np.uint8)
    assert pair_checks.neighbour_correlations(em_xyz) == pytest.approx((NAN, 1, NAN), nan_ok=True)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [((1, 1, 1, 2, 3, 3), 0.5), ((1, 2, 2, 3, 3), 2), ((1, 1, 3), NAN), ((2, 3), NAN), ((1, 2), NAN)],
)
def test_cleft_ratio(mask, expected):
    assert pair_checks.cleft_ratio(plane(mask)) == pytest.approx(expected, nan_ok=True)


AS_IT_SHOULD_BE = {
    "mask_fits": True,
    "fit_score": 9.0,
    "shift_x": 0.0,
    "shift_y": 1.0,
    "correlation_x": 0.8,
    "correlation_y": 0.7,
    "correlation_z": 0.3,
    "cleft_ratio": 0.1,
}


@pytest.mark.parametrize(
    ("changed", "spacing", "expected"),
    [
        ({}, 5.0, ""),
        ({"mask_fits": False, "fit_score": 4.94}, 5.0, "(its borders follow no membranes: score 4.9, where"),
        (
            {"mask_fits": False, "shift_x": -8.0},
            5.0,
            "(it fits best, with a score of 9.0, when it is moved by -8 pixels along x and 1 along y)",
        ),
        ({"mask_fits": None, "fit_score": NAN}, 5.0, ""),
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
        (dict.fromkeys(AS_IT_SHOULD_BE, NAN) | {"mask_fits": None}, 5.0, ""),
    ],
)
def test_warnings(changed, spacing, expected):
    found = pair_checks.warnings(PairMeasures(**AS_IT_SHOULD_BE | changed), spacing)
    assert len(found) == bool(expected)
    assert expected in "".join(f"{kind} {why}" for kind, why in found.items())


def test_a_pair_in_order_gives_no_warning(pair):
    assert kinds(pair_checks.measure(*pair)) == []


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_mask_that_does_not_fit(misfit, pair):
    em_xyz, mask_xyz = pair
    assert kinds(pair_checks.measure(em_xyz, MISFITS[misfit](mask_xyz))) == [DOES_NOT_FIT]


def test_inverted_em(pair):
    em_xyz, mask_xyz = pair
    assert kinds(pair_checks.measure(255 - em_xyz, mask_xyz)) == [DOES_NOT_FIT]


@pytest.mark.parametrize("axes", [(2, 1, 0), (0, 2, 1)])
def test_axes_out_of_order_are_seen_through_a_black_section(axes):
    pair = make_chunk(SEED, (96, 96, 20), black_sections=(9,))
    measures = pair_checks.measure(*(array.transpose(axes) for array in pair))
    assert kinds(measures) == ["the axes may be out of order"]
    assert kinds(measures, spacing=1.0) == []


def test_exchanged_label_values(pair):
    em_xyz, mask_xyz = pair
    exchanged = np.array([0, 2, 1, 3], dtype=np.uint8)[mask_xyz]
    assert kinds(pair_checks.measure(em_xyz, exchanged)) == ["label values may be mixed up"]


def test_cutouts_change_little(pair):
    cut = make_chunk(SEED, (96, 96, 20), black_sections=(3, 4, 15), cut_sections={9: 4000, 12: 92})
    assert vars(pair_checks.measure(*cut)) == pytest.approx(vars(pair_checks.measure(*pair)), rel=0.1)


def test_partly_cut_sections_count(pair):
    em_xyz, mask_xyz = pair[0].copy(), pair[1]
    em_xyz[:2] = 0
    assert kinds(pair_checks.measure(em_xyz, mask_xyz[::-1])) == [DOES_NOT_FIT]


@pytest.mark.parametrize("labelled", [[2], range(200)])
@pytest.mark.parametrize("imaged", [[2, 3], range(200), [*range(0, 200, 2), 3]])
def test_the_little_that_a_deep_chunk_has_is_found(labelled, imaged, pair):
    em_xyz, mask_xyz = np.zeros((96, 96, 200), np.uint8), np.zeros((96, 96, 200), np.uint8)
    em_xyz[:, :, imaged] = pair[0][:, :, 10:11]
    mask_xyz[:, :, labelled] = pair[1][:, :, 10:11]
    measures = pair_checks.measure(em_xyz, mask_xyz)
    assert measures.mask_fits is True
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
    assert measures.mask_fits is None
    assert all(math.isnan(value) for value in vars(measures).values() if value is not None)
    assert kinds(measures) == []
    said = [text.split(" (")[0] for text in pair_checks.not_measured(measures)]
    assert said == ["whether the mask fits", "correlation along x, y, z", "cleft_ratio"]


def test_what_was_not_measured(pair):
    em_xyz, mask_xyz = pair
    assert pair_checks.not_measured(pair_checks.measure(*pair)) == []
    alone = pair_checks.not_measured(pair_checks.measure(em_xyz[:, :, 10:11], mask_xyz[:, :, 10:11] % 2))
    assert alone == ["correlation along z (too few imaged pixels)", "cleft_ratio (a label is missing)"]


def test_without_labels_nothing_about_them_is_measured_or_lacking(pair):
    measures = pair_checks.measure(pair[0], np.zeros_like(pair[1]))
    assert measures.mask_fits is None and measures.correlation_z > 0.1
    assert kinds(measures) == pair_checks.not_measured(measures, has_labels=False) == []


@pytest.mark.skipif(not REAL_EM, reason="the real EM chunks are not distributed with the project")
@pytest.mark.parametrize("em_path", REAL_EM, ids=lambda path: path.stem)
def test_real_pairs(em_path):
    em_xyz = np.load(em_path)
    mask_xyz = np.load(em_path.parents[1] / "mask" / f"{em_path.stem}_mask.npy")
    spacing, pixel_nm = (5.2, 9.2) if "vnc" in str(em_path) else (1.0, 10.0)
    assert kinds(pair_checks.measure(em_xyz, mask_xyz, 0, pixel_nm), spacing) == []
    every = 16 if em_xyz.shape[2] > 100 else 4  # some sections are enough
    for misfit in MISFITS.values():
        part = em_xyz[:, :, ::every], misfit(mask_xyz)[:, :, ::every]
        assert pair_checks.mask_fit(*part, pixel_nm=pixel_nm)[0] is False
