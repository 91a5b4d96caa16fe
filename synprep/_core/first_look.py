"""A look at the first chunks before a run, in case a parameter is wrong for all of them."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from synprep._core import arrays, chunk, npy, problems
from synprep._core.chunk import Pair
from synprep._core.errors import ChunkError, ParameterError, listed
from synprep._core.npy import NpyFile
from synprep._core.tables import VOLUME_COLUMNS, Entry

_N_FIRST = 8  # chunks are looked at
_N_LABEL_VALUES = 16  # are more than masks have, and fewer than EM has
_N_SECTIONS, _N_VOXELS = 64, 1 << 16  # of a file, which tell EM from masks
_EXCHANGED = (
    "raw_em_data_path and raw_mask_data_path seem to be exchanged: EM has few values, and masks have many"
)


@dataclass(frozen=True)
class _Look:
    """One of the first chunks, as it would be made; one that was done before is not read again."""

    entry: Entry
    is_new: bool = False
    label_values: tuple[int, ...] = ()  # in the kept sections of the mask file
    is_exchanged: bool = False


def refuse_useless(
    pairs: Sequence[Pair], done: Mapping[str, Entry], todo: Iterable[Pair], content: Mapping[str, Any]
) -> None:
    """Stop where none of the first chunks that can be read, or are done, is of use.

    `pairs` are all, also those that cannot be used; `content` has the keywords of `chunk.make`. A
    ParameterError names those that are wrong for all.
    """
    if not todo:
        if not done and _is_unusable_since_exchanged(pairs[0]):
            raise ParameterError(_EXCHANGED)
        return
    usable_ids = {*done, *(pair.synapse_id for pair in todo)}
    tried = islice((pair for pair in pairs if pair.synapse_id in usable_ids), 4 * _N_FIRST)
    looks = (
        _Look(done[one.synapse_id]) if one.synapse_id in done else _look_at(one, content) for one in tried
    )
    _judge([*islice(filter(None, looks), _N_FIRST)], content)


def _look_at(pair: Pair, content: Mapping[str, Any]) -> _Look | None:
    with suppress(ChunkError, MemoryError), pair.open() as raw:
        entry, _, kept = chunk.make(raw, "", **content)
        values = np.flatnonzero(kept.raw_counts).tolist()
        is_exchanged = len(values) > _N_LABEL_VALUES and _are_exchanged(raw.em, raw.mask)
        return _Look(entry, True, tuple(values), is_exchanged)
    return None


def _is_unusable_since_exchanged(pair: Pair) -> bool:
    with suppress(ChunkError, MemoryError), NpyFile(pair.em_path) as em, NpyFile(pair.mask_path) as mask:
        return _are_exchanged(em, mask)
    return False


def _are_exchanged(em: NpyFile, mask: NpyFile) -> bool:
    """Whether the EM looks like labels, and the mask like EM."""
    return _n_values(em) <= _N_LABEL_VALUES < _n_values(mask)


def _n_values(file: NpyFile) -> int:
    """Number of different values among many voxels from the middle of a file."""
    if not file.header.shape:
        return 1
    bounds = arrays.crop_bounds(file.header.shape[-1], 1, _N_SECTIONS)
    values = file.read(*bounds, npy.reused("input")).ravel(order="K")
    return np.unique(values[:: values.size // _N_VOXELS + 1]).size


def _judge(looks: Sequence[_Look], content: Mapping[str, Any]) -> None:
    if not any(one.is_new for one in looks):
        return
    if all(one.is_exchanged for one in looks):
        raise ParameterError(_EXCHANGED)
    has_label = any(one.entry.row[name] for one in looks for name in VOLUME_COLUMNS.values())
    if content["seg_mask_map"] and not has_label:
        raise ParameterError(_no_label(looks, content["seg_mask_map"]))
    if len(looks) == _N_FIRST and all(one.entry.sections["is_blanked"].all() for one in looks):
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
    kinds = {warning.kind for one in looks for warning in one.entry.warnings}
    if not kinds.isdisjoint(problems.REMOVED.values()):
        lines.append("  other sections have labels: see n_sections and axial_to_sagittal_spacing, too")
    return "\n".join(lines)
