"""How a data set was made: what `run.json` says, read back and judged; versions, commit and time."""

import json
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import GenericAlias
from typing import Any

import numpy as np
import pandas as pd

import synprep
from synprep._core import files
from synprep._core.errors import TableError
from synprep._core.paths import is_project
from synprep._core.rules import ANY, CHANNELS, POSITIVE, Rule, between, type_problem

_PASSING = ("versions", "commit", "started", "ended")  # of run.json: they differ between equal runs


def read_record(folder: str | Path) -> dict[str, Any]:
    """What preprocess or merge has written into `run.json`; a TableError if it is missing or wrong."""
    path, record = Path(folder, "run.json"), _read_record(folder)
    for name, value in (record["parameters"] | record).items():
        hint, (accepts, rule) = _EXPECTED.get(name, (object, ANY))
        is_of_type = not type_problem(value, hint)
        if not is_of_type or not accepts(value):
            why = f" ({rule})" if is_of_type else ""
            said = f"{name} is {json.dumps(value)[:80]}, which cannot be{why}"
            raise TableError(f"{path}: {said}: correct it, or run preprocess again")
    return record


def _read_record(folder: str | Path) -> dict[str, Any]:
    path = Path(folder, "run.json")
    try:
        record = files.read_json(path)
        return record | {"parameters": {**record["parameters"]}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a run record"
        raise TableError(f"{path}: {reason}; preprocess and merge write it beside meta.csv") from error


def find_record(folder: str | Path) -> dict[str, Any]:
    """As `read_record`, but empty if there is none, and as it is where a parameter is wrong."""
    try:
        return _read_record(folder)
    except TableError:
        return {}


def lasting(run_json: Mapping[str, Any]) -> dict[str, Any]:
    """What `run.json` says, as read from a file, without what differs between runs that do the same."""
    lasts = {name: value for name, value in files.plain(run_json).items() if name not in _PASSING}
    counts = lasts.get("counts")
    if isinstance(counts, dict) and type(counts.get("done")) is type(counts.get("skipped")) is int:
        counts["finished"] = counts.pop("done") + counts.pop("skipped")
    return lasts


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).timestamp() > 0
    except (TypeError, ValueError, OverflowError):
        return False


# Type and rule of what `run.json` says, by its name. A merged set lacks what its sources do not share.
_EXPECTED: dict[str, tuple[type | GenericAlias, Rule]] = {
    "voxel_size_xy_nm": (float, POSITIVE),
    "axial_to_sagittal_spacing": (float, POSITIVE),
    "cutout_threshold": (float, between(0, 1)),
    "cutout_pixel_value": (int, between(0, 255)),
    "cut_intensity_with_seg_masks": (bool, ANY),
    "output_channel_desc": (list[list[int]], CHANNELS),
    "seg_mask_map": (
        dict[str, int],
        (lambda value: {*value.values()} <= {*range(256)}, "must give label values from 0 to 255"),
    ),
    "volumes": (dict, ANY),
    "ended": (object, (_is_time, "must be a time such as 2026-11-22T08:15:00+00:00")),
}


def versions() -> dict[str, dict[str, str] | str | None]:
    """What a result was made with: versions, and the project's commit, None outside a git checkout."""
    numbers = {"python": platform.python_version(), "synprep": synprep.__version__}
    return {"versions": numbers | {"numpy": np.__version__, "pandas": pd.__version__}, "commit": _commit()}


def _commit() -> str | None:
    """Commit of the checkout that the package is in, from git's files: git itself runs what settings name."""
    root = Path(synprep.__file__).resolve().parents[1]
    git = root / ".git"
    try:
        if git.is_file():  # of a worktree
            git = root / git.read_text("utf-8").removeprefix("gitdir: ").strip()
        commit = _resolved(git, (git / "HEAD").read_text("utf-8").strip()) if is_project(root) else ""
    except (OSError, ValueError):
        return None
    return commit if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit) else None


def _resolved(git: Path, head: str) -> str:
    """What a HEAD stands for: itself, or the commit of the branch that it names; empty if it has none."""
    branch = head.removeprefix("ref: ")
    if branch == head:
        return head
    pointer, packed = git / "commondir", ""
    shared = git / pointer.read_text("utf-8").strip() if pointer.is_file() else git
    if (shared / branch).is_file():
        return (shared / branch).read_text("utf-8").strip()
    if (shared / "packed-refs").is_file():
        packed = (shared / "packed-refs").read_text("utf-8")
    return next((line[: line.index(" ")] for line in packed.splitlines() if line.endswith(f" {branch}")), "")


def now() -> str:
    """Time for a run record, such as ``"2026-11-22T08:15:00+00:00"``."""
    return datetime.now(UTC).isoformat(timespec="seconds")
