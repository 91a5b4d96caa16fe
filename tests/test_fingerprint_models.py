"""What is put into a simulation of the augmenter's random changes comes back; what cannot be known, not."""

import math

import numpy as np
import pandas as pd
import pytest

from synprep import fingerprint
from synprep._core import estimates

N_CHUNKS, N_SECTIONS = 200, 52


def blanked(rng, n_sections, probability, rate):
    """Number of blanked sections of each chunk."""
    is_cut = rng.random(n_sections.shape) < probability
    return np.where(is_cut, rng.binomial(n_sections, rate / n_sections), 0)


class TestCutoutModel:
    """2,000 chunks, of equal or of different depths; stated: probability within 0.06, rate within 10 %."""

    @pytest.mark.parametrize(("probability", "rate"), [(0.5, 1.5), (0.5, 10.0), (0.9, 3.0), (0.2, 2.0)])
    @pytest.mark.parametrize("depths", [(52, 53), (20, 257)], ids=["equal", "different"])
    def test_what_was_put_in_comes_back(self, depths, probability, rate):
        rng = np.random.default_rng(1)
        n_sections = rng.integers(*depths, 2000)
        n_blanked = blanked(rng, n_sections, probability, rate)
        found = estimates._cutout_model(n_sections, n_blanked)
        assert found[0] == pytest.approx(probability, abs=0.06)
        assert found[1] == pytest.approx(rate, rel=0.1)
        assert found[2] == ""

    def test_the_share_of_chunks_is_not_the_probability(self):
        rng = np.random.default_rng(1)
        n_sections = np.full(20_000, 52)
        n_blanked = blanked(rng, n_sections, 0.5, 1.5)
        assert (n_blanked > 0).mean() == pytest.approx(0.39, abs=0.01)
        assert estimates._cutout_model(n_sections, n_blanked)[0] == pytest.approx(0.5, abs=0.02)

    def test_the_product_is_the_mean_count(self):
        n_blanked = np.array([0, 0, 0, 0, 1, 1, 2, 5])
        probability, rate, _ = estimates._cutout_model(np.full(8, 10), n_blanked)
        assert probability * rate == pytest.approx(n_blanked.mean(), rel=1e-9)

    def test_the_values_are_the_most_likely_ones(self):
        n_sections, n_blanked = np.full(8, 10), np.array([0, 0, 0, 0, 1, 1, 2, 5])
        best = estimates._cutout_model(n_sections, n_blanked)[:2]

        def likelihood(probability, rate):
            one_chunk = estimates.expected_chunks(np.array([10]), probability, rate, 10)
            return np.log(one_chunk[n_blanked]).sum()

        others = [(best[0] + dp, best[1] + dr) for dp in (-0.01, 0, 0.01) for dr in (-0.01, 0, 0.01)]
        assert max(likelihood(*other) for other in others) == likelihood(*best)

    @pytest.mark.parametrize(
        ("n_blanked", "reason"),
        [
            ([0, 0, 0], "no chunk has a blanked section"),
            ([0, 1, 1], "no chunk has more than one blanked section: only their mean number is known"),
        ],
    )
    def test_what_cannot_be_known(self, n_blanked, reason):
        probability, rate, found = estimates._cutout_model(np.full(3, 20), np.array(n_blanked))
        assert math.isnan(probability)
        assert math.isnan(rate)
        assert found == reason

    def test_at_most_every_chunk_is_cut(self):
        n_blanked = np.array([1, 1, 1, 2, 2, 1])
        assert estimates._cutout_model(np.full(6, 20), n_blanked) == (1.0, pytest.approx(8 / 6), "")

    def test_chunks_that_lose_everything(self):
        found = estimates._cutout_model(np.full(4, 5), np.array([5, 5, 0, 0]))
        assert found[:2] == (0.5, pytest.approx(5))


def test_expected_chunks():
    expected = estimates.expected_chunks(np.array([2, 2, 2, 2, 1]), 0.5, 1.0, 3)
    assert expected.tolist() == pytest.approx([4 * (0.5 + 0.125) + 0.5, 4 * 0.25 + 0.5, 4 * 0.125, 0])
    assert estimates.expected_chunks(np.full(7, 5000), 0.5, 900.0, 5000).sum() == pytest.approx(7)


@pytest.mark.parametrize(
    ("is_blanked", "lengths"),
    [([0, 0], []), ([1, 1, 1], [3]), ([1, 0, 0, 1, 1, 0, 1], [1, 2, 1])],
)
def test_run_lengths(is_blanked, lengths):
    assert fingerprint._run_lengths(np.array(is_blanked, dtype=bool)).tolist() == lengths


def test_independent_runs_agree_with_all_arrangements():
    arrangements = [
        np.array([a, b, c, d], bool) for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)
    ]
    for k in range(5):
        n_runs = [len(fingerprint._run_lengths(one)) for one in arrangements if one.sum() == k]
        chunks = {"n_sections": np.full(2, 4), "n_blanked": np.full(2, k), "n_runs": np.full(2, 1)}
        found = estimates._blanked_sections(chunks)["blanked_run_length_if_independent"].value
        expected = k / np.mean(n_runs) if k else math.nan
        assert found == pytest.approx(expected, nan_ok=True)


def table(brightness_z, is_blanked_z=None, contrast_z=None):
    """Table of the sections of a chunk."""
    brightness_z = np.asarray(brightness_z, float)
    return pd.DataFrame(
        {
            "mean": brightness_z,
            "std": brightness_z if contrast_z is None else contrast_z,
            "is_blanked": np.zeros(brightness_z.shape, bool) if is_blanked_z is None else is_blanked_z,
        }
    )


def variation(values_cz):
    """Numbers of the differences between the sections of chunks (rows)."""
    known = [fingerprint._describe(table(values_z)) for values_z in values_cz]
    names = ("brightness_sums", "contrast_sums")
    return estimates._section_variation({name: np.array([one[name] for one in known]) for name in names})


class TestRatios:
    """Log ratios of neighbours, their variance and their correlation."""

    def test_no_ratio_reaches_across_a_section_that_is_left_out(self):
        rows = table(np.exp([0.0, 1.0, 3.0, 4.0, 4.5, 7.0]), [False, False, True, False, False, False])
        ratios = fingerprint._log_ratios(rows)
        for row, what in enumerate(("brightness", "contrast")):
            expected = [-1, math.nan, math.nan, -0.5, -2.5]
            assert ratios[row].tolist() == pytest.approx(expected, nan_ok=True)
            sums = fingerprint._describe(rows)[f"{what}_sums"]
            assert sums.tolist() == pytest.approx([3, 1 + 0.25 + 6.25, 1, 1.25])

    @pytest.mark.parametrize("left_out", [math.nan, 0.0])
    def test_sections_without_brightness_or_contrast_are_left_out(self, left_out):
        values = [left_out, 1.0, 1.0, 1.0]
        for rows in (table(values, contrast_z=np.ones(4)), table(np.ones(4), contrast_z=values)):
            assert np.isnan(fingerprint._log_ratios(rows)[0]).tolist() == [True, False, False]
            assert fingerprint._describe(rows)["contrast_sums"].tolist() == [2, 0, 1, 0]

    def test_values_of_blanked_sections_do_not_matter(self):
        rows = table([math.nan, 0.0, -1.0], np.ones(3, bool))
        assert fingerprint._describe(rows)["brightness_sums"].tolist() == [0, 0, 0, 0]

    def test_a_single_section(self):
        assert fingerprint._describe(table([5.0]))["contrast_sums"].tolist() == [0, 0, 0, 0]

    @pytest.mark.parametrize(
        ("sums", "change", "autocorrelation"),
        [([4, 16, 2, -4], 2, -0.5), ([1, 9, 0, 0], 3, math.nan), ([0, 0, 0, 0], math.nan, math.nan)],
    )
    def test_variance_and_autocorrelation(self, sums, change, autocorrelation):
        parts = np.array([sums, np.zeros(4)], float)
        found = estimates._section_variation({"brightness_sums": parts, "contrast_sums": parts})
        for what in ("brightness", "contrast"):
            assert found[f"section_{what}_change"].value == pytest.approx(change, nan_ok=True)
            correlation = found[f"section_{what}_autocorrelation"].value
            assert correlation == pytest.approx(autocorrelation, nan_ok=True)


def autocorrelation(values_cz):
    """Autocorrelation of the log ratios of chunks (rows), and how many products it is from."""
    found = variation(np.exp(values_cz))["section_contrast_autocorrelation"]
    return found.value, int(found.over["section triples"].sum())


class TestDependence:
    """Sections that vary independently are let through, others are not."""

    @pytest.mark.parametrize("shape", [(2, 13), (10, 13), (200, 52)])
    def test_independent_sections(self, shape):
        """Of 100 data sets of any size hardly one is refused, and the standard error is the stated one."""
        rng = np.random.default_rng(0)
        found = [autocorrelation(rng.uniform(size=shape)) for _ in range(100 if shape[0] < 100 else 10)]
        assert np.mean([estimates._dependence(*one) == "" for one in found]) >= 0.99
        if shape[0] == 10:
            expected = math.sqrt(0.5 / found[0][1])
            assert np.std([correlation for correlation, _ in found]) == pytest.approx(expected, rel=0.2)

    @pytest.mark.parametrize("shape", [(10, 13), (200, 52)])
    def test_a_random_walk(self, shape):
        rng = np.random.default_rng(0)
        found = estimates._dependence(*autocorrelation(rng.normal(size=shape).cumsum(axis=1)))
        assert "sections do not vary independently" in found
        assert "not by -0.5" in found

    def test_neighbours_that_correlate_by_a_half(self):
        """Means of two neighbours: the log ratios do not correlate at all."""
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(200, 53))
        assert estimates._dependence(*autocorrelation(noise[:, 1:] + noise[:, :-1])) != ""

    @pytest.mark.parametrize("correlation", [-0.61, -0.39])
    def test_the_tolerance_is_for_large_data_sets(self, correlation):
        assert estimates._dependence(correlation, 100_000) != ""
        assert estimates._dependence(correlation, 1_000) == ""

    @pytest.mark.parametrize(("correlation", "n_products"), [(math.nan, 0), (-0.5, 12)])
    def test_too_few(self, correlation, n_products):
        assert estimates._dependence(correlation, n_products).startswith("too few neighbouring sections")

    def test_sections_that_are_all_alike(self):
        assert estimates._dependence(*autocorrelation(np.zeros((2, 13)))) == ""

    def test_thirteen_will_do(self):
        assert estimates._dependence(-0.5, 13) == ""


class TestSlopes:
    """200 chunks of 52 sections; stated: within 3 %."""

    @pytest.mark.parametrize("slope", [0.1, 0.02, 0.005, 0.003])
    def test_what_was_put_in_comes_back(self, slope):
        slopes = np.random.default_rng(2).uniform(1 - slope, 1 + slope, (N_CHUNKS, N_SECTIONS))
        found = variation(0.45 * slopes)
        for what in ("brightness", "contrast"):
            assert found[f"section_{what}_half_width"].withheld == ""
            assert found[f"section_{what}_half_width"].value == pytest.approx(slope, rel=0.03)
            assert found[f"section_{what}_change"].value == pytest.approx(slope * math.sqrt(2 / 3), rel=0.03)
        assert estimates._slope_half_width(np.log(slopes).var()) == pytest.approx(slope, rel=0.03)

    def test_nothing_known(self):
        assert math.isnan(estimates._slope_half_width(math.nan))


class TestBootstrap:
    """Intervals of what other chunks would have given."""

    @staticmethod
    def mean(chunks):
        return {"mean": chunks["x"].mean()}

    def test_the_interval_of_a_mean(self):
        x = np.random.default_rng(0).normal(size=400)
        low, high = estimates._bootstrap(self.mean, {"x": x, "group": np.arange(400)}, 0)["mean"]
        width = 2 * 1.96 * x.std() / math.sqrt(400)
        assert high - low == pytest.approx(width, rel=0.1)
        assert (low + high) / 2 == pytest.approx(x.mean(), abs=0.01)

    def test_the_rows_of_a_chunk_stay_together(self):
        chunks = {"x": np.arange(5), "y": np.arange(5), "group": np.arange(5)}
        found = estimates._bootstrap(lambda c: {"differ": float((c["x"] != c["y"]).sum())}, chunks, 0)
        assert found == {"differ": [0.0, 0.0]}

    @pytest.mark.parametrize("seed", [0, -1, 2**70])
    def test_a_seed_gives_one_answer(self, seed):
        chunks = {"x": np.arange(9.0) ** 2, "group": np.arange(9)}
        first = estimates._bootstrap(self.mean, chunks, seed)
        assert first == estimates._bootstrap(self.mean, chunks, seed)
        assert first != estimates._bootstrap(self.mean, chunks, seed + 1)

    def test_one_chunk_has_no_interval(self):
        assert estimates._bootstrap(self.mean, {"x": np.array([3.0]), "group": np.array([0])}, 0) == {}

    def test_the_chunks_of_a_group_stay_together(self):
        """And a group that is drawn twice counts as two."""
        groups, drawn = [[1, 5, 1], [2], [3]], []

        def look(chunks):
            drawn.append([chunks["x"][chunks["group"] == number].tolist() for number in range(3)])
            assert len(chunks["x"]) == len(chunks["group"]) == sum(map(len, drawn[-1]))
            return {"n_groups": len(np.unique(chunks["group"]))}

        chunks = {"x": np.array([1, 2, 5, 3, 1]), "group": np.array([0, 1, 0, 2, 0])}
        assert estimates._bootstrap(look, chunks, 0) == {"n_groups": [3.0, 3.0]}
        assert all(one in groups for draw in drawn for one in draw)
        assert [groups[0], groups[0], groups[2]] in drawn

    def test_what_most_resamples_do_not_give_has_no_interval(self):
        def rarely(chunks):
            return {"rare": 1.0 if 3 in chunks["x"] else math.nan}

        assert estimates._bootstrap(rarely, {"x": np.arange(5), "group": np.arange(5)}, 0) == {}

    def test_intervals_hold_the_truth(self):
        """Of 100 data sets with 100 chunks each, about 95 have an interval around the true rate."""
        rng, hits = np.random.default_rng(0), 0
        for seed in range(100):
            chunks = {"x": rng.binomial(52, 3 / 52, 100), "group": np.arange(100)}
            low, high = estimates._bootstrap(self.mean, chunks, seed)["mean"]
            hits += low <= 3 <= high
        assert 88 <= hits <= 99
