"""What data sets must have in common to become one."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from synprep.errors import TableError
from synprep.paths import shown

# Parameters of preprocess that decide what a chunk means; where the EM is cut, also output_channel_desc.
MUST_AGREE = ("cut_intensity_with_seg_masks", "axial_to_sagittal_spacing", "voxel_size_xy_nm")
_MAY_DIFFER = ("cutout_threshold", "cutout_pixel_value", "seg_mask_map")


def require_one_meaning(parameters: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Raise an error if chunks do not mean the same: channels, spacing.

    Parameters
    ----------
    parameters : sequence of (str, mapping)
        Path of the table and parameters of preprocess, of each data set.

    Raises
    ------
    TableError
        With what differs, by data set.
    """
    meanings = [_meaning(values) for _, values in parameters]
    differing = [name for name in _meaning({}) if any(m[name] != meanings[0][name] for m in meanings)]
    if differing:
        lines = pd.DataFrame(meanings)[differing].astype(str)
        lines.insert(0, "table", [shown(path) for path, _ in parameters])
        raise TableError(_with_lines("data sets made with different parameters do not make one", lines))


def _meaning(parameters: Mapping[str, Any]) -> dict[str, Any]:
    is_cut = parameters.get("cut_intensity_with_seg_masks")
    channels = parameters.get("output_channel_desc") if is_cut else "-"
    return {name: parameters.get(name) for name in MUST_AGREE} | {"output_channel_desc": channels}


def require_one_kind(kinds: Mapping[tuple[str, tuple[int, ...], str], int]) -> None:
    """Raise an error if chunks have several shapes or types.

    Parameters
    ----------
    kinds : mapping of (str, tuple of int, str) to int
        Number of chunks by path of their table, shape, and type.

    Raises
    ------
    TableError
        With the numbers.
    """
    if len({(shape, dtype) for _, shape, dtype in kinds}) > 1:
        lines = pd.DataFrame(
            [
                (shown(path), " x ".join(map(str, shape)), dtype, n)
                for (path, shape, dtype), n in kinds.items()
            ],
            columns=["table", "shape", "type", "chunks"],
        )
        raise TableError(_with_lines("chunks of different shape or type do not make one data set", lines))


def _with_lines(text: str, lines: pd.DataFrame) -> str:
    return "\n  ".join([f"{text}:", *lines.to_string(index=False).splitlines()])


def differences(parameters: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Say which parameters differ although the data sets may become one.

    Parameters
    ----------
    parameters : sequence of (str, mapping)
        As for `require_one_meaning`.

    Returns
    -------
    list of str
        One text for each parameter that decides which sections are blanked, or which labels were read.
    """
    notes = []
    for name in _MAY_DIFFER:
        values = [(values.get(name, "several values"), shown(path)) for path, values in parameters]
        if any(value != values[0][0] for value, _ in values):
            notes.append(f"{name} differs: " + ", ".join(f"{value} in {path}" for value, path in values))
    return notes


def in_common(parameters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters that all data sets were made with.

    Parameters
    ----------
    parameters : sequence of mapping
        Parameters of preprocess, of each data set; at least one.

    Returns
    -------
    dict of str to object
        Those that are there in all and equal, without paths and addresses.
    """
    return {
        name: value
        for name, value in parameters[0].items()
        if not name.endswith("_path") and name != "scheduler"
        if all(name in other and other[name] == value for other in parameters)
    }
