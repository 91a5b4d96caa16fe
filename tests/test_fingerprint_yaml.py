"""The YAML for the augmenter: four live keys, all else comments, never a NaN."""

import copy
import math

import pytest
import yaml

from synprep import fingerprint
from synprep._core.errors import StatisticsError

KEYS = ["norm_scale", "intensity_mean", "intensity_std", "axial_to_sagittal_spacing"]


def number(value, withheld="", interval=(0.25, 0.5)):
    return {
        "value": value,
        "withheld": withheld,
        "interval": interval,
        "over": {"chunks": 6, "pixels": 1234567},
    }


@pytest.fixture
def record():
    return {
        "data_set": "data/demo/processed",
        "intervals": "95 %",
        "shared_em": "6 chunks, 6 groups",
        "axial_to_sagittal_spacing": 5.0,
        "numbers": {
            "intensity": {
                "intensity_mean": number(0.4567891234),
                "intensity_std": number(0.16),
                "intensity_mean_with_blanks": number(0.43),
                "intensity_std_with_blanks": number(0.19),
            },
            "blanked_sections": {"section_cutout_prob": number(0.5), "cutout_poisson_rate": number(1.5)},
            "section_variation": {
                "section_brightness_half_width": number(0.005),
                "section_contrast_half_width": number(None, "no reason", None),
            },
            "chunk_variation": {
                "chunk_brightness_half_width": number(0.02),
                "chunk_contrast_half_width": number(0.01, interval=None),
            },
        },
    }


def test_four_live_keys(record):
    values = yaml.safe_load(fingerprint.configuration(record))
    assert list(values) == KEYS
    assert list(values.values()) == [255.0, 0.456789, 0.16, 5.0]
    assert {type(value) for value in values.values()} == {float}


def test_all_else_is_a_comment(record):
    lines = fingerprint.configuration(record).splitlines()
    assert [line.split(":")[0] for line in lines if line and not line.startswith("#")] == KEYS
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(
    "text",
    [
        "Mean of imaged pixels on 0..1 (0.25 to 0.5), from 6 chunks, 1,234,567 pixels. Of all pixels, "
        "blanked ones as 0, it is 0.4300.",
        "A pretrained checkpoint wants the mean and standard deviation it was trained with instead "
        "(upstream 0.44 and 0.28).",
        "0 becomes -mean/std, which is -2.85 here and -1.57 upstream.",
        "Do not paste them as they are.",
        "section_cutout_prob: 0.5 (0.25 to 0.5); upstream 0.5",
        "cutout_poisson_rate: 1.5 (0.25 to 0.5); upstream 10",
        "sectional_intensity_slope_min/max from brightness: 0.9950/1.0050, half-width 0.005 (0.25 to 0.5); "
        "upstream 0.9/1.1",
        "sectional_intensity_slope_min/max from contrast: withheld, no reason; upstream 0.9/1.1",
        "global_intensity_slope_min/max from brightness: 0.9800/1.0200, half-width 0.02 (0.25 to 0.5); "
        "upstream 0.9/1.1",
        "global_intensity_slope_min/max from contrast: 0.9900/1.0100, half-width 0.01; upstream 0.9/1.1",
    ],
)
def test_comments(record, text):
    lines = fingerprint.configuration(record).splitlines()
    assert text in " ".join(" ".join(line.lstrip("# ") for line in lines).split())


@pytest.mark.parametrize("name", ["intensity_mean", "intensity_std"])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, 0.0, -0.1])
def test_a_live_value_that_is_not_known_is_an_error(record, name, value):
    record["numbers"]["intensity"][name]["value"] = value
    with pytest.raises(StatisticsError, match=rf"^{name} is .*, so there is no augmenter\.yaml"):
        fingerprint.configuration(record)


@pytest.mark.parametrize(("value", "read"), [(1e-7, 1e-7), (1 / 3, 0.333333), (0.1, 0.1), (1.0, 1.0)])
def test_numbers_are_read_as_numbers(record, value, read):
    """An exponent without a dot would be read as text."""
    record["numbers"]["intensity"]["intensity_std"]["value"] = value
    record["axial_to_sagittal_spacing"] = 1e22 if value == 1 else value
    values = yaml.safe_load(fingerprint.configuration(record))
    assert values["intensity_std"] == read
    assert values["axial_to_sagittal_spacing"] == record["axial_to_sagittal_spacing"]


HOSTILE = "x\nintensity_mean: 9\r\nkey: 1\x85a: 1\u2028b: 1\x00\x07\ufeff\udcff: {0} {intervals}"


@pytest.mark.parametrize("where", ["data_set", "intervals", "withheld"])
def test_no_text_becomes_a_key(record, where):
    expected = yaml.safe_load(fingerprint.configuration(record))
    hostile = copy.deepcopy(record)
    if where == "withheld":
        hostile["numbers"]["blanked_sections"]["section_cutout_prob"] = number(None, HOSTILE, None)
    else:
        hostile[where] = HOSTILE
    text = fingerprint.configuration(hostile)
    assert yaml.safe_load(text.encode()) == expected


def test_everything_withheld(record):
    for group in ("blanked_sections", "section_variation", "chunk_variation"):
        record["numbers"][group] = {name: number(None, "a", None) for name in record["numbers"][group]}
    text = fingerprint.configuration(record)
    assert list(yaml.safe_load(text)) == KEYS
    assert "nan" not in text.lower().split()


def test_the_file_holds_the_text(record, tmp_path):
    path = tmp_path / "reports" / "augmenter.yaml"
    text = fingerprint.save_configuration(path, record)
    assert text == fingerprint.configuration(record)
    assert path.read_bytes() == text.encode()


def test_a_file_that_is_there_stays_if_a_value_is_not_known(record, tmp_path):
    path = tmp_path / "augmenter.yaml"
    fingerprint.save_configuration(path, record)
    before = path.read_bytes()
    record["numbers"]["intensity"]["intensity_mean"]["value"] = None
    with pytest.raises(StatisticsError):
        fingerprint.save_configuration(path, record)
    assert path.read_bytes() == before
