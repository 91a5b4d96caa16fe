import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from synprep import figures, pairing, survey
from synprep._core.errors import FailedChunksError, PairingError, ParameterError
from synprep.params import CutoutHistogram, IntensityHistogram, SectionVariation


@pytest.fixture
def surveyed(write_pair, tmp_path):
    """Two chunks of 2 x 2 pixels and 8 and 4 sections; with spacing 2, 5 and 3 are kept."""
    one = np.full((2, 2, 8), 100, dtype=np.uint8)
    one[:, :, 1] = 200
    one[:, :, 2] = 0  # kept (z 1 to 5)
    one[0, 0, 4] = 0  # kept, a quarter cut
    one[0, 0, 7] = 0
    two = np.full((2, 2, 4), 50, dtype=np.uint8)
    two[0, :, 3] = 0  # not kept (z 0 to 2), half cut
    write_pair("one", one)
    write_pair("two", two)

    def run(record_type, **parameters):
        p = record_type(
            raw_em_data_path=str(tmp_path / "em"),
            raw_mask_data_path=str(tmp_path / "mask"),
            axial_to_sagittal_spacing=2,
            **parameters,
        )
        pairs = pairing.find(p).pairs
        return survey.run(pairs, p), p

    return run


def test_cutout_report(surveyed):
    report = survey.cutout_report(*surveyed(CutoutHistogram, n_bins=4, cutout_threshold=0.25))
    assert report["synapse_ids"] == ["one", "two"]
    assert (report["n_chunks"], report["n_sections"], report["cutout_threshold"]) == (2, 12, 0.25)
    assert report["bin_edges"].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert report["section_counts"].tolist() == [8, 2, 1, 1]
    assert report["fraction_at_or_below_threshold"] == 10 / 12
    assert report["fraction_above_threshold"] == pytest.approx(2 / 12)
    assert report["kept_fraction_at_or_below_threshold"] == 7 / 8
    assert report["kept_fraction_above_threshold"] == 1 / 8
    near = report["near_section_counts"]
    assert report["near_bin_edges"].tolist() == pytest.approx(np.linspace(0, 0.5, 41))
    assert {int(n): int(near[n]) for n in np.flatnonzero(near)} == {0: 8, 19: 2, 39: 1}  # edges to the left
    table = survey.cutout_table(report)
    assert table.loc["kept sections", "fraction_above_threshold"] == 1 / 8
    assert table.loc["all sections", "fraction_at_or_below_threshold"] == 10 / 12


def test_cutout_classes(surveyed):
    counts = survey.cutout_classes(surveyed(CutoutHistogram, cutout_threshold=0.25)[0])
    assert counts["all sections"].to_dict() == {"clean": 10, "partly cut": 1, "wholly black": 1}
    assert counts["kept sections"].tolist() == [7, 0, 1]


@pytest.mark.parametrize("threshold", [0, 0.01, 0.07, 0.1, 0.3, 0.7, 1, 1e-300])
def test_near_the_threshold_no_bin_has_sections_of_both_sides(threshold):
    fractions = np.append(np.linspace(0, 1, 101), [threshold, np.nextafter(threshold, 2)]).clip(0, 1)
    sections = pd.DataFrame(
        {"cutout_fraction": fractions, "is_blanked": fractions > threshold, "is_kept": True}
    )
    surveyed = survey.Surveyed((), sections, None, None, 0, None, {})
    report = survey.cutout_report(surveyed, CutoutHistogram(cutout_threshold=threshold))
    is_left = report["near_bin_edges"][1:] <= threshold
    assert report["near_section_counts"][is_left].sum() == (fractions <= threshold).sum()


def test_cutout_that_is_one_area_and_cutout_that_is_scattered(surveyed, tmp_path):
    rng = np.random.default_rng(0)
    for name, depth in (("one", 8), ("two", 4)):
        em = np.full((40, 40, depth), 100, np.uint8)
        if name == "one":
            em[:5, :, 1], em[:2, :, 2], em[-2:, :, 2], em[:, :, 3] = 0, 0, 0, 0
            em[range(40), range(40), 4] = 0  # they touch at corners only
        else:
            em[rng.random(em.shape) < 0.05] = 0
            em[:5, :, 3] = 0  # both
        np.save(tmp_path / "em" / f"{name}.npy", em)
    found, p = surveyed(CutoutHistogram, cutout_threshold=0.01)
    pairs = pairing.find(p).pairs
    areas = survey.cutout_areas(found, pairs, p).set_index(["synapse_id", "z"])["largest_area_fraction"]
    assert areas.round(2)[["one"]].to_dict() == {("one", 1): 1.0, ("one", 2): 0.5, ("one", 4): 0.02}
    assert (areas["two"] < 0.1).tolist().count(True) == 3
    assert areas["two", 3] > 0.6
    text = survey.scattered(survey.cutout_areas(found, pairs, p))
    assert (
        "In 4 of these less than half are. Pixels that are scattered over the tissue are not cut out" in text
    )
    assert "(median of 7 partly cut sections that were read again)" in text
    assert len(survey.cutout_areas(found, pairs, p, n_sections=2)) == 2
    alone = survey.cutout_areas(surveyed(CutoutHistogram, cutout_threshold=0.07)[0], pairs, p)
    assert "scattered" not in survey.scattered(alone)


def test_no_section_is_partly_cut(surveyed):
    found, p = surveyed(CutoutHistogram, cutout_threshold=0.5)
    areas = survey.cutout_areas(found, pairing.find(p).pairs, p)
    assert areas.columns.tolist() == ["synapse_id", "z", "cutout_fraction", "largest_area_fraction"]
    assert survey.scattered(areas) == "No section is partly cut."


def test_strip_shows_what_the_threshold_decides(surveyed, tmp_path):
    found, p = surveyed(CutoutHistogram, cutout_threshold=0.25)
    strip = survey.strip(found, pairing.find(p).pairs, n_sections=1)
    assert strip[["synapse_id", "z", "cutout_fraction", "is_blanked"]].to_numpy().tolist() == [
        ["one", 7, 0.25, False],
        ["two", 3, 0.5, True],
    ]
    assert strip["em"][0].tolist() == [[0, 100], [100, 100]]
    assert strip["em"][1].tolist() == [[0, 0], [50, 50]]


def test_intensity_report(surveyed):
    report = survey.intensity_report(*surveyed(IntensityHistogram, cutout_threshold=0.25))
    counts = {int(value): int(report["counts"][value]) for value in np.flatnonzero(report["counts"])}
    assert counts == {0: 2, 50: 12, 100: 22, 200: 4}
    assert report["n_sections_used"] == 10
    imaged = np.repeat([50, 100, 200], [12, 22, 4])
    assert report["mean"] == pytest.approx(imaged.mean(), rel=1e-12)
    assert report["std"] == pytest.approx(imaged.std(), rel=1e-12)
    assert report["intensity_mean"] == pytest.approx(imaged.mean() / 255, rel=1e-12)
    assert report["intensity_std"] == pytest.approx(imaged.std() / 255, rel=1e-12)
    # kept: of the first chunk z 1 to 5 (one blanked, one with a cutout pixel), of the second z 0 to 2
    seen = np.repeat([0, 50, 100, 200], [5, 12, 11, 4]) / 255
    assert report["intensity_mean_with_blanks"] == pytest.approx(seen.mean(), rel=1e-12)
    assert report["intensity_std_with_blanks"] == pytest.approx(seen.std(), rel=1e-12)
    kept = np.repeat([50, 100, 200], [12, 11, 4])
    assert report["kept_n_sections_used"] == 7
    assert report["kept_counts"].sum() == 28
    assert (report["kept_mean"], report["kept_std"]) == pytest.approx((kept.mean(), kept.std()))
    assert report["kept_intensity_mean"] == pytest.approx(kept.mean() / 255)
    table = survey.intensity_table(report)
    assert all(row.startswith("kept sections: ") for row in table.index)
    assert table["mean"].tolist() == pytest.approx([kept.mean(), kept.mean() / 255, seen.mean()])
    assert table["standard deviation"].tolist() == pytest.approx([kept.std(), kept.std() / 255, seen.std()])


def test_blanked_sections_lower_the_mean_that_is_told(surveyed, tmp_path):
    """The kept sections are darker than the others: over two windows blanks would seem to raise the mean."""
    em = np.full((2, 2, 8), 200, np.uint8)
    em[:, :, 1:6], em[:, :, 3] = 40, 0
    for name in ("one", "two"):
        np.save(tmp_path / "em" / f"{name}.npy", em)
        np.save(tmp_path / "mask" / f"{name}_mask.npy", em)
    report = survey.intensity_report(*surveyed(IntensityHistogram))
    _, imaged, with_blanks = survey.intensity_table(report)["mean"]
    assert (imaged, with_blanks) == pytest.approx((40 / 255, 32 / 255))
    assert report["intensity_mean"] > imaged


def test_intensities_where_no_kept_section_is_imaged(surveyed, tmp_path):
    for path in (tmp_path / "em").iterdir():
        np.save(path, np.zeros_like(np.load(path)))
    report = survey.intensity_report(*surveyed(IntensityHistogram))
    assert np.isnan(report["kept_mean"])
    assert report["intensity_mean_with_blanks"] == 0
    figures.intensity(report)
    plt.close("all")


@pytest.mark.parametrize("cutout", [0, 7])
def test_zeros_that_are_not_cutout_count_as_intensities(surveyed, tmp_path, cutout):
    em = np.full((2, 2, 8), cutout, np.uint8)
    em[:, :, :5] = 30
    em[0, 0, 3] = 0
    for name in ("one", "two"):
        np.save(tmp_path / "em" / f"{name}.npy", em)
        np.save(tmp_path / "mask" / f"{name}_mask.npy", em)
    report = survey.intensity_report(
        *surveyed(IntensityHistogram, cutout_pixel_value=cutout, cutout_threshold=0.3)
    )
    imaged = 2 * [30] * 15 + (2 * [0] if cutout else [])
    assert report["kept_mean"] == pytest.approx(np.mean(imaged))
    assert report["intensity_mean_with_blanks"] == pytest.approx(30 * 15 / 20 / 255)


def test_variation_report(surveyed):
    result, _ = surveyed(SectionVariation, cutout_threshold=0.25)
    report = survey.variation_report(result)
    assert report["ratios"].tolist() == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert report["n_section_pairs"] == 7
    assert report["mean"] == pytest.approx(6.5 / 7)
    assert report["std"] == pytest.approx(np.std([0.5] + [1.0] * 6))
    assert report["percentiles"].tolist() == np.percentile([0.5] + [1.0] * 6, [5, 25, 50, 75, 95]).tolist()
    assert survey.variation_table(report).loc["50 %", "ratio"] == 1.0


@pytest.mark.parametrize(
    ("means", "blanked", "ratios"),
    [
        ([2.0, 4.0, 8.0, 2.0, 1.0], [2], [0.5, 2.0]),
        ([2.0, math.nan, 3.0, 0.0, 5.0, 4.0], [], [1.25]),
        ([1.0], [], []),
    ],
)
def test_ratios_are_of_true_neighbours_only(means, blanked, ratios):
    """Never across a section that is blanked or has no mean, nor from one chunk to the next."""
    one = pd.DataFrame({"mean": means, "is_blanked": np.isin(np.arange(len(means)), blanked)})
    sections = pd.concat([one.assign(synapse_id=key) for key in ("b", "a")], ignore_index=True)
    report = survey.variation_report(survey.Surveyed(("b", "a"), sections, None, None, 0, None, {}))
    assert report["ratios"].tolist() == 2 * ratios


def test_variation_without_any_neighbours(surveyed, tmp_path):
    for path in (tmp_path / "em").iterdir():
        np.save(path, np.zeros_like(np.load(path)))
    report = survey.variation_report(surveyed(SectionVariation)[0])
    assert report["n_section_pairs"] == 0
    assert np.isnan(report["mean"])


def test_a_chunk_that_cannot_be_read_is_left_out_and_named(surveyed, tmp_path):
    (tmp_path / "em" / "two.npy").write_bytes(b"")
    result, p = surveyed(CutoutHistogram)
    assert result.synapse_ids == ("one",)
    assert list(result.failures) == ["two"]
    assert survey.cutout_report(result, p)["n_sections"] == 8


def test_no_chunk_can_be_read(surveyed, tmp_path):
    for path in (tmp_path / "em").iterdir():
        path.write_bytes(b"")
    with pytest.raises(FailedChunksError, match=r"no chunk could be read: .*one\.npy"):
        surveyed(CutoutHistogram)


def test_masks_are_not_read(surveyed, tmp_path):
    for path in (tmp_path / "mask").iterdir():
        path.write_bytes(b"")
    assert surveyed(CutoutHistogram)[0].failures == {}


class TestExample:
    """One section of one chunk beside the next one."""

    def choose(self, surveyed, **parameters):
        _, p = surveyed(SectionVariation, **parameters)
        pairs = pairing.find(p).pairs
        return survey.choose_example(pairs, pairs[1:], p), p

    def test_default_is_the_first_of_the_sample(self, surveyed):
        assert self.choose(surveyed, section_index=2)[0].synapse_id == "two"

    def test_any_paired_chunk_can_be_asked_for(self, surveyed):
        assert self.choose(surveyed, section_index=6, example_synapse_id="one")[0].synapse_id == "one"

    def test_unknown_chunk(self, surveyed):
        with pytest.raises(
            PairingError, match="example_synapse_id '7' is not paired; ids that are: one, two"
        ):
            self.choose(surveyed, example_synapse_id="7")

    def test_section_without_a_next_one(self, surveyed):
        with pytest.raises(
            ParameterError, match="section_index must be from 0 to 2 for chunk two, which has 4"
        ):
            self.choose(surveyed, section_index=3)

    @pytest.mark.parametrize("n_sampled", [1, 2])
    def test_histograms(self, surveyed, n_sampled):
        transform = {"intensity_slope": 1, "intensity_intercept": -100}
        pair, p = self.choose(surveyed, section_index=0, example_synapse_id="one", **transform)
        sampled = pairing.find(p).pairs[-n_sampled:]  # the example is one of the sample, or not
        result = survey.run(sampled, p, pair)
        assert len(result.synapse_ids) == n_sampled
        counts, numbers = survey.example_table(result, p)
        assert counts.loc[100].tolist() == [4, 0, 4]
        assert counts.loc[200].tolist() == [0, 4, 0]
        assert numbers["mean"].tolist() == [100.0, 200.0, 100.0]

    @pytest.mark.parametrize(
        ("values", "mean", "how"),
        [
            (({90: 2}, {100: 2}), 90.0, "times the ratio of means, 0.9000"),
            (({90: 2}, {0: 2}), math.nan, "slope 1: one has no imaged pixels"),
            (({0: 2}, {100: 2}), 100.0, "slope 1: one has no imaged pixels"),
        ],
    )
    def test_the_slope_is_the_ratio_of_means(self, values, mean, how):
        surveyed = survey.Surveyed((), pd.DataFrame(), None, None, 0, np.stack([*map(counts_of, values)]), {})
        counts, numbers = survey.example_table(surveyed, SectionVariation(section_index=0))
        assert numbers.index[2] == counts.columns[2] == f"section 1, {how}"
        assert numbers["mean"].iloc[2] == pytest.approx(mean, nan_ok=True)


@pytest.mark.parametrize(
    ("fractions", "n_sections", "expected"),
    [
        ([0.5, 0.0, 0.02, 0.009, 0.01], 2, [3, 4, 2, 0]),  # a section at the threshold is not above it
        ([0.5, 0.0, 0.02, 0.009, 0.01], 1, [4, 2]),
        ([0.5, 0.0, 0.02, 0.009, 0.01], 9, [1, 3, 4, 2, 0]),
        ([0.5, 0.0, 0.02, 0.009, 0.01], 0, []),
        ([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 2, [3, 5, 0, 2]),
        ([0.0, 0.0], 1, [1]),
        ([1.0], 1, [0]),
        ([], 3, []),
    ],
)
def test_sections_nearest_to_the_threshold(fractions, n_sections, expected):
    columns = {"z": range(len(fractions)), "cutout_fraction": fractions}
    columns["is_blanked"] = np.array(fractions, dtype=float) > 0.01
    assert survey._nearest(pd.DataFrame(columns), n_sections)["z"].tolist() == expected


def counts_of(values):
    """Histogram of {intensity: count}."""
    counts = np.zeros(256, dtype=np.int64)
    counts[list(values)] = list(values.values())
    return counts


@pytest.mark.parametrize(
    ("counts", "slope", "intercept", "moved"),
    [
        ({0: 1, 100: 2, 250: 3}, 1.0, 10.0, {10: 1.0, 110: 2.0, 255: 3.0}),  # clipped, none is lost
        ({0: 1, 100: 2, 250: 3}, 1.0, -10.0, {0: 1.0, 90: 2.0, 240: 3.0}),
        ({100: 6}, 3.0, 0.0, {255: 6.0}),
        ({50: 6}, 3.0, 0.0, {149: 2.0, 150: 2.0, 151: 2.0}),  # spread over its new width
    ],
)
def test_a_transformed_histogram(counts, slope, intercept, moved):
    found = survey._transformed(counts_of(counts), slope, intercept)
    assert {int(v): float(found[v]) for v in np.flatnonzero(found)} == pytest.approx(moved)


def test_numbers_of_the_transformed_section_are_clipped():
    example = np.stack([counts_of({7: 2}), counts_of({10: 1, 20: 1, 250: 2})])
    surveyed = survey.Surveyed((), pd.DataFrame(), None, None, 0, example, {})
    p = SectionVariation(section_index=0, intensity_slope=1.1, intensity_intercept=-5)
    transformed = np.array([6.0, 17.0, 255.0, 255.0])
    numbers = survey.example_table(surveyed, p)[1].iloc[2]
    assert numbers.tolist() == pytest.approx([transformed.mean(), transformed.std()])
