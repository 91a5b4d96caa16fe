"""The numbers of a processed data set: against plain NumPy, against a simulation, and when withheld."""

import json
import math
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from synprep import fingerprint, pairing, preprocess
from synprep._core import dataset, estimates, execution, files, npy
from synprep._core.errors import FailedChunksError, TableError
from synprep.params import Fingerprint, Preprocess


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Enough for an interval, and quick; `test_fingerprint_models` sees to the rest."""
    monkeypatch.setattr(estimates, "N_RESAMPLES", 50)


@pytest.fixture
def processed(write_pair, paths):
    """Process the pairs that were written, all sections of them, and load the result."""

    def run(**parameters):
        p = Preprocess(**{**paths, "n_sections": 1000, **parameters})
        preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
        return dataset.load(p.proc_data_path)

    return run


@pytest.fixture
def three(write_pair):
    """Write three random chunks; sections of the last are black, cut by half, and cut by a pixel."""
    rng = np.random.default_rng(0)
    for synapse_id, depth in (("007", 8), ("NA", 20), ("3", 12)):
        em = rng.integers(1, 200, (12, 10, depth), dtype=np.uint8)
        if synapse_id == "NA":
            em[:, :, [2, 3]] = 0
            em[:6, :, 9] = 0
            em[0, 0, 5] = 0
        write_pair(synapse_id, em, rng.integers(0, 5, em.shape, dtype=np.uint8))


def run(data, **parameters):
    record, _, failures = fingerprint.run(data, Fingerprint(n_workers=1, **parameters))
    return record, failures


def numbers(record):
    return {name: number for group in record["numbers"].values() for name, number in group.items()}


def values(record):
    return {name: number["value"] for name, number in numbers(record).items()}


def tensors(data):
    return [np.load(data.folder / name) for name in data.meta["filename"]]


@pytest.mark.parametrize("cutout", [0, 7])
def test_intensities_are_those_of_plain_numpy(processed, three, cutout):
    data = processed(cutout_pixel_value=cutout, cutout_threshold=0.03)
    assert data.meta["n_cutout_sections"].sum() == {0: 3, 7: 0}[cutout]
    is_blanked = [rows["is_blanked"].to_numpy() for _, rows in data.sections.groupby("synapse_id")]
    kept = [tensor[:, :, :, ~blanked] for tensor, blanked in zip(tensors(data), is_blanked, strict=True)]
    em, mask = (np.concatenate([tensor[channel].ravel() for tensor in kept]) for channel in (0, 1))
    everything = np.concatenate([tensor[0].ravel() for tensor in tensors(data)])
    record, failures = run(data)
    assert failures == {}
    for end, pixels in {
        "": em[em != cutout],
        "_with_blanks": everything,
        "_presynaptic": em[(em != cutout) & (mask == 1)],
        "_cleft": em[(em != cutout) & (mask == 2)],
        "_postsynaptic": em[(em != cutout) & (mask == 3)],
    }.items():
        found = numbers(record)[f"intensity_mean{end}"]
        assert found["over"]["pixels"] == len(pixels)
        assert found["value"] == pytest.approx(pixels.mean() / 255, rel=1e-12)
        assert values(record)[f"intensity_std{end}"] == pytest.approx(pixels.std() / 255, rel=1e-9)


def test_blanked_sections_other_than_the_cutout_value_do_not_count(processed, write_pair):
    em = np.full((4, 4, 3), 100, np.uint8)
    em[:2], em[:, :, 1] = 50, 9
    write_pair("1", em)
    found = values(run(processed(cutout_pixel_value=9))[0])
    assert found["intensity_mean"] == pytest.approx(75 / 255)
    assert found["intensity_mean_with_blanks"] == pytest.approx(50 / 255)


def test_a_channel_cut_to_its_labels(processed, write_pair):
    """Of one channel cut out along labels, pixels outside them are not imaged, whatever the cutout value."""
    em, mask = np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4, 3), np.uint8)
    em[:2], mask[:2, :2], mask[2:, :2] = 50, 1, 2
    write_pair("1", em, mask)
    cut = {"cut_intensity_with_seg_masks": True, "output_channel_desc": [[1, 2]], "cutout_pixel_value": 9}
    found = numbers(run(processed(**cut))[0])
    assert found["intensity_mean"]["value"] == pytest.approx(75 / 255)
    assert found["intensity_mean"]["over"] == {"chunks": 1, "sections": 3, "pixels": 24}


def test_counts_and_blanked_sections(processed, three):
    record, _ = run(processed())
    found = numbers(record)
    assert record["synapse_ids"] == ["007", "3", "NA"]
    assert (record["n_chunks"], record["n_sections"], record["n_blanked_sections"]) == (3, 40, 3)
    assert record["spacing_xyz_nm"].tolist() == [8, 8, 40]
    assert found["blanked_chunk_fraction"]["value"] == pytest.approx(1 / 3)
    assert found["blanked_sections_per_chunk"]["value"] == 1
    assert found["blanked_sections_per_chunk"]["over"] == {"chunks": 3, "sections": 40}
    assert found["blanked_run_length"]["value"] == 1.5
    assert found["blanked_run_length_if_independent"]["value"] == pytest.approx(3 / (3 * 18 / 20))
    assert record["blanked"]["n_chunks"].tolist() == [2, 0, 0, 1]
    assert record["blanked"]["n_runs"].tolist() == [0, 1, 1]
    assert record["blanked"]["model"].sum() == pytest.approx(3, rel=0.2)  # of at most three blanked sections


def test_neighbours_are_those_of_one_chunk_without_blanked_sections(processed, three):
    data = processed()
    record, _ = run(data)
    ratios = {"mean": [], "std": []}
    for _, rows in data.sections.groupby("synapse_id"):
        for (_, one), (_, following) in zip(rows.iloc[:-1].iterrows(), rows.iloc[1:].iterrows(), strict=True):
            if not (one["is_blanked"] or following["is_blanked"]):
                for column, found in ratios.items():
                    found.append(math.log(one[column] / following[column]))
    assert len(ratios["mean"]) == 7 + 11 + 14
    for what, column in (("brightness", "mean"), ("contrast", "std")):
        change = numbers(record)[f"section_{what}_change"]
        assert change["over"] == {"chunks": 3, "section pairs": 32}
        assert change["value"] == pytest.approx(np.sqrt(np.mean(np.square(ratios[column]))))
        assert record["neighbours"][what]["n"].sum() == 32
    assert numbers(record)["section_brightness_autocorrelation"]["over"]["section triples"] == 6 + 10 + 11


def test_chunks_relative_to_the_data_set(processed, write_pair):
    slopes, intercepts = np.array([1, 2, 1.5]), np.array([10, 20, 40])
    for synapse_id, slope, intercept in zip("123", slopes, intercepts, strict=True):
        em = np.array([20, 40, 60, 80])[:, None, None] * slope + intercept
        write_pair(synapse_id, np.broadcast_to(em, (4, 4, 5)).astype(np.uint8))
    found = values(run(processed())[0])
    for what, truth in (("brightness", 50 * slopes + intercepts), ("contrast", slopes)):
        spread = np.log(truth).std(ddof=1)
        assert found[f"chunk_{what}_spread"] == pytest.approx(spread)
        assert found[f"chunk_{what}_half_width"] == pytest.approx(spread * math.sqrt(3))


def test_chunks_that_differ_in_contrast_only(processed, write_pair):
    for synapse_id, slope in (("1", 1), ("2", 1.5)):
        em = np.broadcast_to(100 + np.array([-20, 20])[:, None, None] * slope, (2, 4, 5))
        write_pair(synapse_id, em.astype(np.uint8))
    found = values(run(processed())[0])
    assert found["chunk_brightness_half_width"] == pytest.approx(0)
    assert found["chunk_contrast_half_width"] == pytest.approx(math.log(1.5) * math.sqrt(1.5))


def test_label_volumes(processed, three):
    data = processed()
    found = values(run(data)[0])
    for column in ("pre_synaptic_volume", "synaptic_cleft_volume", "post_synaptic_volume"):
        assert found[f"{column}_p50"] == data.meta[column].median()
        assert found[f"{column}_p05"] == pytest.approx(np.percentile(data.meta[column], 5))


PUT_IN = {
    "section_cutout_prob": (0.5, 0.15),
    "cutout_poisson_rate": (4.0, 0.8),
    "section_brightness_half_width": (0.1, 0.005),
    "section_contrast_half_width": (0.1, 0.005),
    "chunk_brightness_half_width": (0.1, 0.02),
    "chunk_contrast_half_width": (0.1, 0.02),
}


def simulate(write_pair, equalise=lambda volume: volume):
    """Write 60 chunks of 30 sections, cut and with uniform slopes as in `PUT_IN`, then equalised."""
    rng, truth = np.random.default_rng(3), {name: value for name, (value, _) in PUT_IN.items()}
    section, chunk = truth["section_contrast_half_width"], truth["chunk_contrast_half_width"]
    for number in range(60):
        tissue = rng.normal(0.5, 0.1, (40, 40)).clip(0.25, 0.75)
        tissue = 0.5 + 0.1 * (tissue - tissue.mean()) / tissue.std()
        volume = tissue[..., None] * rng.uniform(1 - section, 1 + section, 30)
        volume = equalise(volume * rng.uniform(1 - chunk, 1 + chunk))
        em = np.round(255 * volume).clip(1, 255).astype(np.uint8)
        is_cut = rng.random() < truth["section_cutout_prob"]
        em[:, :, rng.random(30) < is_cut * truth["cutout_poisson_rate"] / 30] = 0
        write_pair(f"{number:02}", em, np.ones(em.shape, np.uint8))


def test_a_simulated_data_set_from_pixels_to_estimates(processed, write_pair):
    """From raw files on; stated errors: 5 % for sections, 20 % for chunks."""
    simulate(write_pair)
    found = numbers(run(processed())[0])
    for name, (value, tolerance) in PUT_IN.items():
        assert found[name]["withheld"] == ""
        assert found[name]["value"] == pytest.approx(value, abs=tolerance), name
        low, high = found[name]["interval"]
        assert low - 0.2 * value <= value <= high + 0.2 * value
        assert low < found[name]["value"] < high


class TestSharedEM:
    """Chunks that share EM are not independent of each other: groups are drawn, not chunks."""

    @pytest.fixture
    def block(self):
        return np.random.default_rng(0).integers(1, 200, (8, 7, 30), dtype=np.uint8)

    def groups(self, record):
        return record["n_groups"], record["groups"]

    def test_sections_in_common(self, processed, write_pair, block):
        """Along z the first three are a chain, and the fourth is another place."""
        for synapse_id, start in zip("abc", (0, 8, 15), strict=True):
            write_pair(synapse_id, block[:, :, start : start + 10])
        write_pair("d", block[::-1, :, 20:])
        record, _ = run(processed())
        assert self.groups(record) == (2, [["a", "b", "c"]])
        assert "draws of 2 groups with replacement" in record["intervals"]
        start = "4 chunks, 2 groups: the chunks of a group share EM, told by equal sections; "
        assert record["shared_em"].startswith(start)
        assert "with a shift in x or y goes unseen without sources.csv" in record["shared_em"]

    def test_black_and_uniform_sections_are_no_sign(self, processed, write_pair, block):
        for synapse_id, em in (("a", block[:, :, :10]), ("b", block[:, :, 20:])):
            em = em.copy()
            em[:, :, 0], em[:, :, 1], em[:4, :, 2] = 0, 255, 0
            em[4:, :, 2] = 9  # blanked, and then all alike
            write_pair(synapse_id, em)
        record, _ = run(processed())
        assert self.groups(record) == (2, [])
        assert record["shared_em"].startswith("2 chunks, 2 groups: none share EM, told by equal sections; ")

    def test_copies_of_one_chunk(self, processed, write_pair, block):
        """No spread and no interval, where chunks are one place; before, from 0.4879 to 0.4879."""
        for synapse_id in "abcd":
            write_pair(synapse_id, block)
        record, _ = run(processed())
        assert self.groups(record) == (1, [["a", "b", "c", "d"]])
        assert record["intervals"] == "none, since they come from drawing chunks and all share EM"
        assert {number["interval"] and 1 for number in numbers(record).values()} == {None}
        withheld = numbers(record)["chunk_contrast_half_width"]["withheld"]
        assert withheld == "it takes two chunks that share no EM"

    def test_two_chunks_have_intervals_of_their_spread(self, processed, write_pair, block):
        """Though half of the draws have one of them twice."""
        write_pair("a", block)
        write_pair("b", block[::-1] // 2 + 1)
        assert numbers(run(processed())[0])["chunk_contrast_spread"]["interval"][0] == 0

    def test_copies_do_not_make_intervals_narrower(self, processed, write_pair):
        rng = np.random.default_rng(0)
        chunks = [rng.integers(50 + 5 * low, 250, (8, 7, 5), dtype=np.uint8) for low in range(8)]
        for number, em in enumerate(chunks):
            write_pair(str(number), em)
        alone = numbers(run(processed())[0])["intensity_mean"]["interval"]
        for number, em in enumerate(chunks * 3):
            write_pair(f"copy{number}", em)
        again = numbers(run(processed())[0])["intensity_mean"]["interval"]
        assert np.diff(again) == pytest.approx(np.diff(alone), rel=0.05)

    @pytest.mark.parametrize(
        ("starts", "groups"),
        [
            ([(0, 0, 0), (7, 6, 9), (99, 99, 99)], (2, [["a", "b"]])),
            ([(0, 0, 0), (8, 0, 0), (0, 0, 10)], (3, [])),  # side by side
            ([(0, 0, 0), (7, 0, 0), (14, 0, 0)], (1, [["a", "b", "c"]])),
            ([(0, 0, 0), ("", "", ""), ("one", 0, 0)], (3, [])),
        ],
    )
    def test_overlapping_boxes(self, processed, write_pair, starts, groups):
        rng = np.random.default_rng(0)
        for synapse_id in "abc":
            write_pair(synapse_id, rng.integers(1, 200, (8, 7, 10), dtype=np.uint8))
        data = processed()
        rows = [
            "synapse_id,start_x,start_y,start_z",
            *(f"{i},{x},{y},{z}" for i, (x, y, z) in zip("abc", starts, strict=True)),
        ]
        (data.folder / "sources.csv").write_text("\n".join([*rows, "else,0,0,0", ""]))
        record, _ = run(data)
        assert self.groups(record) == groups
        assert "told by equal sections or overlapping boxes in sources.csv" in record["shared_em"]
        n_known = sum(isinstance(start[0], int) for start in starts)
        assert ("which has 1 of them" in record["shared_em"]) == (n_known == 1)

    def test_a_sources_table_of_another_form(self, processed, write_pair):
        write_pair("a")
        data = processed()
        (data.folder / "sources.csv").write_text("synapse_id,centre\na,1\n")
        assert run(data)[0]["n_groups"] == 1


def test_the_model_of_neighbours_has_the_shape_of_the_data(processed, write_pair):
    simulate(write_pair)
    neighbours = run(processed())[0]["neighbours"]
    for what in ("brightness", "contrast"):
        one, n_pairs = neighbours[what], neighbours["n_section_pairs"]
        centres = (one["edges"][1:] + one["edges"][:-1]) / 2
        model = np.interp(centres, one["model"]["log_ratio"], one["model"]["n"])
        assert model.sum() == pytest.approx(n_pairs, rel=0.02)
        assert one["n"].sum() == n_pairs
        assert np.abs(one["n"] - model).sum() < 0.2 * n_pairs


def shifted(volume):
    return volume + 0.5 - volume.mean(axis=(0, 1))


def scaled(volume):
    return volume * 0.5 / volume.mean(axis=(0, 1))


@pytest.mark.parametrize(("equalise", "visible"), [(shifted, ["contrast"]), (scaled, [])])
def test_sections_that_were_equalised_hide_slopes(processed, write_pair, equalise, visible):
    """Shifted to one mean they hide them from the brightness, scaled to one mean from the contrast too."""
    simulate(write_pair, equalise)
    found = values(run(processed())[0])
    for scope in ("section", "chunk"):
        for what in ("brightness", "contrast"):
            truth, tolerance = PUT_IN[f"{scope}_{what}_half_width"]
            expected = truth if what in visible else 0
            assert found[f"{scope}_{what}_half_width"] == pytest.approx(expected, abs=tolerance)


class TestWithheld:
    """Numbers that cannot be known are None, and say why."""

    def test_no_blanked_section(self, processed, write_pair):
        write_pair("1")
        write_pair("22")
        found = numbers(run(processed())[0])
        for name in ("section_cutout_prob", "cutout_poisson_rate"):
            assert (found[name]["value"], found[name]["interval"]) == (None, None)
            assert found[name]["withheld"] == "no chunk has a blanked section"

    def test_sections_that_drift(self, processed, write_pair):
        steps = np.random.default_rng(0).choice([-3, 3], 100).cumsum() + 100
        em = (np.array([0.5, 1, 1.5])[:, None, None] * steps + np.zeros((3, 3, 1))).astype(np.uint8)
        write_pair("1", em)
        write_pair("2", em)
        found = numbers(run(processed())[0])
        for what in ("brightness", "contrast"):
            number = found[f"section_{what}_half_width"]
            assert number["value"] is None
            assert "sections do not vary independently" in number["withheld"]
        assert found["section_brightness_change"]["value"] == pytest.approx(0.03, rel=0.3)  # still told

    def test_contrasts_that_drift_leave_the_brightness_alone(self, processed, write_pair):
        rng = np.random.default_rng(0)
        for synapse_id in ("1", "2", "3"):
            means = rng.uniform(114, 126, 100)
            drift = np.exp(rng.choice([-0.2, 0.2], 100).cumsum()).clip(0.2, 3)
            em = means + np.array([-30, 30])[:, None, None] * drift + np.zeros((2, 4, 1))
            write_pair(synapse_id, em.round().clip(1, 255).astype(np.uint8))
        found = numbers(run(processed())[0])
        assert found["section_brightness_half_width"]["value"] == pytest.approx(0.05, rel=0.1)
        assert found["section_contrast_half_width"]["value"] is None
        assert "sections do not vary independently" in found["section_contrast_half_width"]["withheld"]
        assert found["section_contrast_autocorrelation"]["value"] > -0.2
        assert found["section_contrast_change"]["value"] > 0.1  # still told

    def test_one_chunk(self, processed, write_pair):
        write_pair("1")
        record, _ = run(processed())
        assert record["intervals"].startswith("none")
        assert {number["interval"] and 1 for number in numbers(record).values()} == {None}
        for what in ("brightness", "contrast"):
            assert (
                numbers(record)[f"chunk_{what}_half_width"]["withheld"]
                == "it takes two chunks that share no EM"
            )
        assert values(record)["intensity_mean"] > 0

    def test_everything_blanked(self, processed, write_pair):
        for synapse_id in ("1", "2"):
            write_pair(synapse_id, np.zeros((4, 4, 6), np.uint8))
        record, _ = run(processed())
        known = {name for name, value in values(record).items() if value is not None}
        assert {"intensity_mean_with_blanks", "blanked_sections_per_chunk"} < known
        assert not known & {"intensity_mean", "section_brightness_change", "chunk_contrast_spread"}
        assert record["neighbours"]["n_section_pairs"] == 0
        assert fingerprint.withheld(record)

    def test_reasons_are_told_once(self, processed, write_pair):
        write_pair("1")
        texts = fingerprint.withheld(run(processed())[0])
        (text,) = [text for text in texts if "blanked section" in text]
        assert text == "section_cutout_prob, cutout_poisson_rate: withheld, no chunk has a blanked section"


class TestFailures:
    """Files that cannot be used are left out and named; tables that cannot are errors."""

    def test_a_bad_file_is_left_out_of_all_numbers(self, processed, three):
        data = processed()
        alone, _ = run(replace(data, meta=data.meta[data.meta["synapse_id"] != "NA"]))
        (data.folder / data.meta["filename"].iloc[2]).write_bytes(b"text")
        record, failures = run(data)
        assert list(failures) == ["NA"]
        assert failures["NA"].startswith("not an npy file: NA__2_12_10_20.npy")
        assert json.dumps(files.plain(record)) == json.dumps(files.plain(alone))

    @pytest.mark.parametrize(
        ("tensor", "reason"),
        [
            (np.zeros((2, 12, 10, 7), np.uint8), "number of sections is not that of the table: .*8 in"),
            (np.zeros((4, 12, 10, 8), np.uint8), r"must have two channels.* it is \(4, 12, 10, 8\)"),
            (np.zeros((12, 10, 8), np.uint8), r"not a uint8 array \(c, x, y, z\).* \(12, 10, 8\) uint8"),
            (np.zeros((2, 12, 10, 8)), r"not a uint8 array \(c, x, y, z\).* \(2, 12, 10, 8\) float64"),
        ],
    )
    def test_a_file_of_another_form(self, processed, three, tensor, reason):
        data = processed()
        np.save(data.folder / "chunk.npy", tensor)
        data.meta.loc[0, "filename"] = "chunk.npy"
        _, failures = run(data)
        assert list(failures) == ["007"]
        with pytest.raises(FailedChunksError, match=reason):
            run(replace(data, meta=data.meta.iloc[:1]))

    def test_a_file_that_is_not_what_its_name_says(self, processed, three):
        data = processed()
        np.save(data.folder / data.meta["filename"].iloc[0], np.zeros((2, 12, 11, 8), np.uint8))
        assert run(data)[1] == {
            "007": "not of the shape that its name says: 007__2_12_10_8.npy: (2, 12, 11, 8) uint8"
        }

    def test_a_file_that_is_gone(self, processed, three):
        data = processed()
        (data.folder / data.meta["filename"].iloc[1]).unlink()
        assert run(data)[1]["3"].startswith("file is missing: 3__2_12_10_12.npy")

    def test_a_chunk_without_sections_is_left_out(self, processed, three):
        data = processed()
        alone, _ = run(replace(data, meta=data.meta[data.meta["synapse_id"] != "007"]))
        record, failures = run(replace(data, sections=data.sections[data.sections["synapse_id"] != "007"]))
        assert failures["007"].endswith("007__2_12_10_8.npy: 0 in sections.csv, 8 in the file")
        assert json.dumps(files.plain(record)) == json.dumps(files.plain(alone))

    def test_a_table_without_chunks(self, processed, three):
        data = processed()
        with pytest.raises(TableError, match=r"meta\.csv: lists no chunk"):
            run(replace(data, meta=data.meta[:0]))

    @pytest.mark.parametrize("name", ["cutout_pixel_value", "axial_to_sagittal_spacing"])
    def test_parameters_that_merged_sets_do_not_share(self, processed, three, name):
        data = processed()
        parameters = {key: value for key, value in data.parameters.items() if key != name}
        with pytest.raises(TableError, match=rf"run\.json: has no {name}; merged data sets must agree in it"):
            run(replace(data, parameters=parameters))

    def test_an_unknown_voxel_size_is_no_obstacle(self, processed, three):
        data = processed()
        parameters = {key: value for key, value in data.parameters.items() if key != "voxel_size_xy_nm"}
        assert run(replace(data, parameters=parameters))[0]["spacing_xyz_nm"] is None


def test_order_and_workers_do_not_matter(processed, three):
    data = processed()
    one, findings = json.dumps(files.plain(run(data)[0])), fingerprint.check(data)
    path = data.folder / "sections.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1], ""]))
    data = dataset.load(data.folder)
    again, found_again, _ = fingerprint.run(data, Fingerprint(n_workers=3))
    assert json.dumps(files.plain(again)) == one
    assert found_again == fingerprint.check(data) == findings
    assert json.dumps(files.plain(run(data, seed=1)[0])) != one


def test_findings_are_those_of_check_and_files_are_read_once(processed, three, monkeypatch):
    data = processed()
    (data.folder / data.meta["filename"].iloc[1]).write_bytes(b"text")
    checked, read, paths = fingerprint.check(data), npy.NpyFile.read, []

    def count(file, **options):
        paths.append(file.path.name)
        return read(file, **options)

    monkeypatch.setattr(npy.NpyFile, "read", count)
    _, findings, failures = fingerprint.run(data, Fingerprint())
    assert findings == checked
    assert {one.synapse_id for one in findings if one.severity == "error"} == failures.keys() == {"3"}
    assert sorted(paths) == ["007__2_12_10_8.npy", "NA__2_12_10_20.npy"]


def test_a_worker_elsewhere_can_do_it(three, processed, monkeypatch):
    """What goes to a cluster can be pickled, and what comes back is small."""

    def attempt_elsewhere(function, items, *_):
        for item in items:
            outcome = pickle.dumps(pickle.loads(pickle.dumps(partial(function, item)))())
            assert len(outcome) < 5000
            yield item, pickle.loads(outcome)

    data = processed()
    here = run(data)
    monkeypatch.setattr(execution, "attempt_all", attempt_elsewhere)
    assert json.dumps(files.plain(run(data))) == json.dumps(files.plain(here))


def test_tables_for_people(processed, three):
    record, _ = run(processed())
    table = fingerprint.as_table(record, "blanked_sections")
    assert list(table.columns) == ["value", "low", "high", "over"]
    low, high = numbers(record)["blanked_sections_per_chunk"]["interval"]
    assert table.loc["blanked_sections_per_chunk"].tolist() == [1.0, low, high, "3 chunks, 40 sections"]
    assert 0 <= low < 1 < high <= 3
    blanked = fingerprint.blanked_table(record)
    assert blanked["found"].tolist() == [2, 0, 0, 1]
    assert blanked["expected"].tolist() == record["blanked"]["model"].tolist()
    blanked = fingerprint.blanked_table({"blanked": {"n_chunks": [3], "model": None}})
    assert blanked["expected"].isna().tolist() == [True]
    assert table.dtypes[["value", "low", "high"]].tolist() == [np.float64] * 3
