"""What is wrong with a chunk, as data until it is printed or written; and tables of it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import basename
from typing import Any

import pandas as pd

from synprep._core.errors import ChunkError, counted, listed, printable

COLUMNS = ("synapse_id", "severity", "stage", "problem", "em_path", "mask_path")
SEVERITIES = ("error", "unfit", "warning", "note")  # the worst first

NO_CLEFT = "no cleft in the whole chunk"  # that was cut from volumes
UNNAMED = "labels that are not in seg_mask_map"
REMOVED = {name: f"the crop removed all {name} voxels" for name in ("presynaptic", "cleft", "postsynaptic")}

# Parameters, and what else, to look at, by the kind of a warning.
_LABELS, _CROP = "seg_mask_map", "n_sections and axial_to_sagittal_spacing"
HINTS = {
    "no presynaptic voxel": _LABELS,
    "no cleft voxel": _LABELS,
    "no postsynaptic voxel": _LABELS,
    UNNAMED: _LABELS,
    "labels outside 0 to 3": _LABELS,  # the same, as 0.1.0 has recorded it; and of tensors
    **dict.fromkeys(REMOVED.values(), _CROP),
    "the cleft touches the crop's edge, and may be cut off": _CROP,
    "every section is blanked": "cutout_threshold and cutout_pixel_value",
    "the mask may not fit its EM": "the files' pairing and axes' order",
    "the axes may be out of order": "the axes' order (x, y, z)",
    "label values may be mixed up": _LABELS,
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with one chunk."""

    kind: str  # the same words for all chunks
    file: str = ""  # name of the file, if it is about one, or of several
    detail: str = ""  # what was found in this chunk
    labels_found: tuple[int, ...] | None = None  # label values, if it is about labels
    severity: str = "error"  # no tensor, or a damaged one; unfit: for a model; warning: look at it; note
    stage: str = ""  # pairing, preflight (headers), processing, result
    synapse_id: str = ""
    em_path: str = ""  # as shown
    mask_path: str = ""

    @property
    def text(self) -> str:
        """What is wrong, and what was found, for a person."""
        found = f" (labels found: {listed(self.labels_found or (), 10) or 'none'})"
        parts = [part for part in (self.kind, self.file, self.detail) if part]
        return printable(": ".join(parts)) + ("" if self.labels_found is None else found)

    @property
    def hint(self) -> str:
        """Parameters, or what else, to look at; empty if there is nothing."""
        return HINTS.get(self.kind, "")


def of_error(error: ChunkError, **known: str) -> Problem:
    """Problem that an error is about, with other fields of it."""
    return Problem(kind=error.kind, file=printable(basename(error.path)), detail=error.detail, **known)


def parted(
    outcomes: Iterable[tuple[str, Any]], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What was made of items, and why others could not be used, each by name, in the order of the names."""
    made = dict(outcomes)
    errors = {name: made[name] for name in names if isinstance(made[name], ChunkError)}
    failures = {name: of_error(error).text for name, error in errors.items()}
    return {name: made[name] for name in names if name not in errors}, failures


def failures(problems: Iterable[Problem]) -> dict[str, str]:
    """Reason by synapse id for each chunk that could not be made."""
    return {one.synapse_id: one.text for one in problems if one.severity == "error"}


def table(problems: Iterable[Problem]) -> pd.DataFrame:
    """Rows of `problems.csv`: errors first, then sorted by synapse id as text."""
    ordered = sorted(problems, key=lambda one: (one.severity, one.synapse_id))
    rows = [
        (one.synapse_id, one.severity, one.stage, one.text, one.em_path, one.mask_path) for one in ordered
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype("str")


def grouped(problems: Iterable[Problem]) -> pd.DataFrame | None:
    """Group problems of one kind, the worst first, then the most frequent.

    Parameters
    ----------
    problems : iterable of Problem
        Of any chunks.

    Returns
    -------
    DataFrame or None
        Index `problem`; columns `severity`, `chunks` (how many) and `examples` (files, or synapse ids). None
        if there is no problem, so that a notebook shows nothing.
    """
    rows = [
        (same[0].kind, same[0].severity, len(same), listed(map(_example, same), 3))
        for same in by_kind(problems)
    ]
    columns = ["problem", "severity", "chunks", "examples"]
    return pd.DataFrame(rows, columns=columns).set_index("problem") if rows else None


def by_kind(problems: Iterable[Problem]) -> list[list[Problem]]:
    """Problems of one kind together, the worst first, then the most frequent."""
    groups = defaultdict(list)
    for one in problems:
        groups[one.severity, one.kind].append(one)
    return sorted(groups.values(), key=lambda same: (SEVERITIES.index(same[0].severity), -len(same)))


def _example(one: Problem) -> str:
    return one.file if one.file.endswith(".npy") or not one.synapse_id else one.synapse_id


def decisive(problems: Iterable[Problem], n_chunks: int) -> list[list[Problem]]:
    """Problems that decide what to do next, by kind: warnings of most chunks, and all that is worse."""
    told = by_kind(one for one in problems if one.severity != "note" and one.stage != "pairing")
    return [same for same in told if same[0].severity != "warning" or 2 * len(same) > n_chunks]


def share(same: Sequence[Problem], n_chunks: int) -> str:
    """Say once what chunks have in common, with the parameters to look at."""
    kind, hint = same[0].kind, same[0].hint
    labels = sorted({label for one in same for label in one.labels_found or ()})
    is_about_labels = any(one.labels_found is not None for one in same)
    found = f"; labels found: {listed(labels, 10) or 'none'}" if is_about_labels else ""
    where = f"{len(same):,} of {counted(n_chunks, 'chunk')} ({listed(map(_example, same), 3)})"
    return f"{where}: {kind}{found}" + (f": see {hint}" if hint else "")


def warning(kind: str, labels_found: Iterable[int] | None = None, detail: str = "") -> Problem:
    """Warning about a chunk; where it is, the caller adds."""
    labels = None if labels_found is None else tuple(int(label) for label in labels_found)
    return Problem(kind=kind, labels_found=labels, detail=detail, severity="warning")
