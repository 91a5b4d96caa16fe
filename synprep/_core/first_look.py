"""A look at the first chunks before a run, in case a parameter is wrong for all of them."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from synprep._core import arrays, chunk, npy, problems
from synprep._core.chunk import Pair
from synprep._core.errors import ChunkError, ParameterError, listed
from synprep._core.tables import VOLUME_COLUMNS, Entry

_N_FIRST = 8  # chunks are looked at
_N_LABEL_VALUES = 16  # are more than masks have, and fewer than EM has
_EXCHANGED = (
    "raw_em_data_path and raw_mask_data_path seem to be exchanged: EM has few values, and masks have many"
)


@dataclass(frozen=True)
class _Look:
    """What was seen of one of the first chunks; one that was done before is not read again."""

    has_label: bool
    is_blanked: bool  # every section
    is_new: bool = True
    label_values: tuple[int, ...] = ()  # in the kept sections of the mask file
    is_cropped: bool = False  # it has labels in other sections
    is_exchanged: bool = False  # the EM looks like labels, and the mask like EM


def refuse_useless(
    pairs: Sequence[Pair], done: Mapping[str, Entry], todo: Iterable[Pair], content: Mapping[str, Any]
) -> None:
    """Stop where none of the first chunks that can be read, or are done, is of use.

    `pairs` are all, also those that cannot be used; `content` has the keywords of `chunk.process`. A
    ParameterError names those that are wrong for all.
    """
    if not todo:
        if not done and _is_exchanged(pairs[0]):
            raise ParameterError(_EXCHANGED)
        return
    usable_ids = {*done, *(pair.synapse_id for pair in todo)}
    tried = islice((pair for pair in pairs if pair.synapse_id in usable_ids), 4 * _N_FIRST)
    looks = (
        _look_back(done[one.synapse_id]) if one.synapse_id in done else _look_ahead(one, content)
        for one in tried
    )
    _judge([*islice(filter(None, looks), _N_FIRST)], content)


def _is_exchanged(pair: Pair) -> bool:
    """Whether the EM file of a pair that cannot be used holds labels, and its mask file EM."""
    with suppress(ChunkError, MemoryError):
        return _n_values(pair.em_path) <= _N_LABEL_VALUES < _n_values(pair.mask_path)
    return False


def _n_values(path: Path) -> int:
    """Number of different values in the middle section of a file."""
    with npy.NpyFile(path) as file:
        middle = file.header.shape[-1] // 2 if file.header.shape else 0
        return np.unique(file.read(middle, middle + 1)).size if file.header.shape else 1


def _look_back(entry: Entry) -> _Look:
    has_label = any(entry.row[name] for name in VOLUME_COLUMNS.values())
    return _Look(has_label, bool(entry.sections["is_blanked"].all()), is_new=False)


def _look_ahead(pair: Pair, content: Mapping[str, Any]) -> _Look | None:
    """Read the sections of a pair that will be kept; of a mask that lacks a label there, all."""
    seg_mask_map = content["seg_mask_map"]
    with suppress(ChunkError, MemoryError), pair.open() as raw:
        bounds = arrays.crop_bounds(raw.shape[2], content["axial_to_sagittal_spacing"], content["n_sections"])
        kept = chunk.keep(raw, bounds, seg_mask_map, content["cutout_pixel_value"], npy.reused("tensor"))
        sections = arrays.describe_sections(kept.moments, content["cutout_threshold"])
        kinds = {one.kind for one in chunk.label_warnings(raw, kept, seg_mask_map)}
        values = np.flatnonzero(kept.raw_counts)
        return _Look(
            has_label=bool(kept.counts[[*arrays.LABELS]].any()),
            is_blanked=bool(sections["is_blanked"].all()),
            label_values=tuple(values.tolist()),
            is_cropped=not kinds.isdisjoint(problems.REMOVED.values()),
            is_exchanged=np.unique(kept.tensor_cxyz[0, ::8, ::8]).size <= _N_LABEL_VALUES < values.size,
        )
    return None


def _judge(looks: Sequence[_Look], content: Mapping[str, Any]) -> None:
    if not any(one.is_new for one in looks):
        return
    if all(one.is_exchanged for one in looks):
        raise ParameterError(_EXCHANGED)
    if content["seg_mask_map"] and not any(one.has_label for one in looks):
        raise ParameterError(_no_label(looks, content["seg_mask_map"]))
    if len(looks) == _N_FIRST and all(one.is_blanked for one in looks):
        names = ("cutout_threshold", "cutout_pixel_value")
        see = " and ".join(f"{name} {content[name]}" for name in names)
        raise ParameterError(f"every section of the first {len(looks)} chunks would be blanked: see {see}")


def _no_label(looks: Sequence[_Look], seg_mask_map: Mapping[str, int]) -> str:
    found = sorted({value for one in looks for value in one.label_values})
    where = f"any of the first {len(looks)} chunks" if len(looks) > 1 else "the first chunk"
    lines = [
        f"no label in the kept sections of {where}, so nothing was written:",
        f"  values of the masks in these sections: {listed(found, 20)}",
        f"  seg_mask_map: {seg_mask_map}",
        "  change seg_mask_map; {} says that no labels are expected, and masks are copied as they are",
    ]
    if any(one.is_cropped for one in looks):
        lines.append("  other sections have labels: see n_sections and axial_to_sagittal_spacing, too")
    return "\n".join(lines)
