"""The part of SynapseCLR's augmenter configuration that data decide, from a data set's fingerprint."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from synprep.errors import StatisticsError, counted

_ABOUT = """What the data decide of the configuration of SynapseCLR's augmenter. Data set: {data_set}. All
numbers, and how each was computed, are in fingerprint.json. Intervals (in parentheses): {intervals}."""
_SCALE = "Grey levels of the arrays (uint8) to 0..1."
_CHECKPOINT = """A pretrained checkpoint wants the mean and standard deviation it was trained with instead
(upstream 0.44 and 0.28). They also set what a model sees where pixels are masked: 0 becomes -mean/std, which
is {masked:.2f} here and -1.57 upstream."""
_SPACING = "z spacing over xy spacing: a parameter that the data set was made with, not measured."
_NATURAL = """Natural rates: random changes of the augmenter that would make sections and chunks differ as
these do. Do not paste them as they are. The data have these differences already, and the augmenter's come on
top; and those are meant to be stronger than nature, so that a model learns to see through them: upstream
trains with what is named last. Each slope is the uniform one that would alone give what is seen in brightness
or in contrast: all else that varies counts as slope, and sections that were equalised hide slopes."""
_SECTIONAL, _GLOBAL = "sectional_intensity_slope_min/max from", "global_intensity_slope_min/max from"
_RATES = {  # by name of the number: its group, what it is called, and what upstream has
    "section_cutout_prob": ("blanked_sections", "section_cutout_prob", "0.5"),
    "cutout_poisson_rate": ("blanked_sections", "cutout_poisson_rate", "10"),
    "section_brightness_half_width": ("section_variation", f"{_SECTIONAL} brightness", "0.9/1.1"),
    "section_contrast_half_width": ("section_variation", f"{_SECTIONAL} contrast", "0.9/1.1"),
    "chunk_brightness_half_width": ("chunk_variation", f"{_GLOBAL} brightness", "0.9/1.1"),
    "chunk_contrast_half_width": ("chunk_variation", f"{_GLOBAL} contrast", "0.9/1.1"),
}


def configuration(record: Mapping[str, Any]) -> str:
    """Text of `augmenter.yaml`.

    Parameters
    ----------
    record : mapping
        See `synprep.fingerprint.run`.

    Returns
    -------
    str
        YAML with four keys: norm_scale, intensity_mean and intensity_std (of imaged pixels), and
        axial_to_sagittal_spacing. What they are from, and the strengths of random changes that the data
        would ask for beside the augmenter's own, are comments.

    Raises
    ------
    StatisticsError
        If there are no imaged pixels, or all have the same intensity.
    """
    intensity = record["numbers"]["intensity"]
    mean, std = (_live(name, intensity[name]) for name in ("intensity_mean", "intensity_std"))
    natural = (_natural(record["numbers"][group][name], *rest) for name, (group, *rest) in _RATES.items())
    parts = [
        *_comment(_ABOUT.format(**record)),
        "",
        *_comment(_SCALE),
        "norm_scale: 255.0",
        "",
        *_comment(_about("Mean", "intensity_mean", intensity)),
        f"intensity_mean: {_digits(mean, 6)}",
        *_comment(_about("Standard deviation", "intensity_std", intensity)),
        f"intensity_std: {_digits(std, 6)}",
        *_comment(_CHECKPOINT.format(masked=-mean / std)),
        "",
        *_comment(_SPACING),
        f"axial_to_sagittal_spacing: {_digits(record['axial_to_sagittal_spacing'])}",
        "",
        *_comment(_NATURAL),
        *(line for text in natural for line in _comment(text, "    ")),
    ]
    return "\n".join(parts) + "\n"


def _live(name: str, number: Mapping[str, Any]) -> float:
    """Value of a key, which must be there and above 0."""
    value = number["value"]
    if value is None or not math.isfinite(value) or value <= 0:
        found = "not known" if value is None else f"{value:g}"
        raise StatisticsError(
            f"{name} is {found}, so there is no augmenter.yaml: the data set has no imaged pixels of "
            "different intensity; look at cutout_pixel_value and cutout_threshold of preprocess"
        )
    return value


def _digits(value: float, precision: int | None = None) -> str:
    """Write a number so that YAML reads it as one, never with an exponent."""
    return np.format_float_positional(value, precision, fractional=False, trim="0")


def _about(what: str, name: str, intensity: Mapping[str, Mapping[str, Any]]) -> str:
    number, with_blanks = intensity[name], intensity[f"{name}_with_blanks"]["value"]
    amounts = ", ".join(counted(n, unit.rstrip("s")) for unit, n in number["over"].items())
    text = f"{what} of imaged pixels on 0..1{_interval(number['interval'])}, from {amounts}."
    return f"{text} Of all pixels, blanked ones as 0, it is {with_blanks:.4f}."


def _interval(interval: Sequence[float] | None) -> str:
    return f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else ""


def _natural(number: Mapping[str, Any], what: str, upstream: str) -> str:
    """Natural strength of one random change, beside upstream's."""
    value = number["value"]
    if number["withheld"]:
        return f"{what}: withheld, {number['withheld']}; upstream {upstream}"
    is_slope = "slope" in what
    text = f"{1 - value:.4f}/{1 + value:.4f}, half-width {value:.4g}" if is_slope else f"{value:.4g}"
    return f"{what}: {text}{_interval(number['interval'])}; upstream {upstream}"


def _comment(text: str, indent: str = "") -> Iterator[str]:
    """Lines of a YAML comment, whatever is in the text."""
    safe = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    yield from (f"# {line}" for line in textwrap.wrap(safe, 100, subsequent_indent=indent))
