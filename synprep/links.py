"""Arrays of other folders as seen from one folder: by relative names, as hard links, or as copies."""

import filecmp
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from synprep import execution, ledger, storage
from synprep.errors import ChunkError, OutputError, TableError, counted, listed
from synprep.paths import shown

_RECORD = "merged.json"  # names of the arrays that merges have put into a folder
_N_THREADS = 8  # that wait for the state of files


@dataclass(frozen=True)
class Link:
    """A file that is to appear in the folder.

    Parameters
    ----------
    source : str
        Path of the array.
    target : Path
        Where it is to appear, under the same name.
    is_update : bool
        True if an earlier merge has put an array with other content there.
    """

    source: str
    target: Path
    is_update: bool


def names(paths: Iterable[str], folder: Path, link_mode: str) -> list[str]:
    """Names of arrays as seen from a folder.

    Parameters
    ----------
    paths : iterable of str
        Absolute paths of the arrays.
    folder : Path
        Folder, which exists.
    link_mode : {"reference", "hardlink", "copy"}
        How the arrays come to the folder.

    Returns
    -------
    list of str
        See `relative`; plain names unless the mode is ``"reference"``.
    """
    is_reference = link_mode == "reference"
    return [relative(path, folder) if is_reference else os.path.basename(path) for path in paths]


def relative(path: str, folder: Path) -> str:
    """Way from a folder to a file.

    Parameters
    ----------
    path : str
        Absolute path of a file.
    folder : Path
        Absolute path of a folder, which exists.

    Returns
    -------
    str
        Relative path with ``/`` between folders; absolute where there is no way, such as between two Windows
        drives.
    """
    try:
        way = os.path.relpath(path, folder)
        real = os.path.realpath(path)
        if os.path.realpath(os.path.join(folder, way)) != real:  # a folder on the way is a symbolic link
            way = os.path.relpath(real, os.path.realpath(folder))
        return Path(way).as_posix()
    except ValueError:
        return Path(path).as_posix()


def plan(paths: Iterable[str], folder: Path, link_mode: str, show_progress: bool = True) -> list[Link]:
    """Find out which files are still to appear in a folder; nothing is written.

    A file that is there already, as it is to be, is left alone. A copy is taken for the same as its source if
    size and modification time are equal, or else all bytes.

    Parameters
    ----------
    paths : iterable of str
        Absolute paths of the arrays.
    folder : Path
        Folder, which exists.
    link_mode : {"reference", "hardlink", "copy"}
        How the arrays come to the folder.
    show_progress : bool
        Print a progress bar.

    Returns
    -------
    list of Link
        In the order of `paths`; none for ``"reference"``.

    Raises
    ------
    TableError
        If two arrays would have one name, on a file system that ignores case also names that differ in case.
    OutputError
        If a file with other content that no merge has put there has the name of an array; if a hard link
        would have to cross file systems; or if there is not enough free space for the copies.
    """
    if link_mode == "reference":
        return []
    paths = list(paths)
    _refuse_shared_names(paths, folder)
    compare = partial(_state, folder=folder, link_mode=link_mode)
    states = dict(execution.attempt_all(compare, paths, "Comparing files", show_progress, _N_THREADS))
    others = {path for path in paths if states[path] == "other"}
    _refuse_foreign([_target(path, folder) for path in paths if path in others], folder)
    todo = [path for path in paths if states[path] != "right"]
    if link_mode == "hardlink":
        _refuse_other_disk(todo, folder)
    else:
        storage.refuse_full_disk(folder, sum(os.path.getsize(path) for path in todo))
    return [Link(path, _target(path, folder), path in others) for path in todo]


def _target(path: str, folder: Path) -> Path:
    return folder / os.path.basename(path)


def _refuse_shared_names(paths: Iterable[str], folder: Path) -> None:
    key = str.casefold if storage.ignores_case(folder) else str
    groups = defaultdict(list)
    for path in paths:
        groups[key(os.path.basename(path))].append(path)
    shared = [" and ".join(map(shown, group)) for group in groups.values() if len(group) > 1]
    if shared:
        raise TableError(
            f"{counted(len(shared), 'file name')} in {shown(folder)} would stand for several chunks: "
            f"{listed(shared)}; set link_mode to reference"
        )


def _state(path: str, folder: Path, link_mode: str) -> str:
    """Tell what is there: "missing", "right", the right content in another way ("again"), or "other"."""
    target = _target(path, folder)
    if not os.path.lexists(target):
        return "missing"
    if os.path.samefile(os.path.dirname(path), folder):  # it is the source itself
        return "right"
    is_link = os.path.samestat(os.stat(path), os.lstat(target))
    if not is_link and not _same_content(path, target):
        return "other"
    is_copy = not is_link and not os.path.islink(target)
    return "right" if (is_link if link_mode == "hardlink" else is_copy) else "again"


def _same_content(path: str, target: Path) -> bool:
    try:
        return ledger.file_state(path) == ledger.file_state(target) or filecmp.cmp(path, target, False)
    except OSError:
        return False


def _refuse_foreign(targets: Iterable[Path], folder: Path) -> None:
    own = _own_names(folder)
    foreign = [target.name for target in targets if target.name not in own]
    if foreign:
        raise OutputError(
            f"{counted(len(foreign), 'file')} in {shown(folder)} with the name of an array to be put there, "
            f"but with other content and not of a merge: {listed(foreign)}; "
            "move it away, or set another merged_meta_path"
        )


def _refuse_other_disk(paths: Iterable[str], folder: Path) -> None:
    device = os.stat(folder).st_dev
    away = [shown(path) for path in paths if os.stat(path).st_dev != device]
    if away:
        raise OutputError(
            f"{counted(len(away), 'file')} on another file system than {shown(folder)}, which hard links "
            f"cannot reach: {listed(away, 3)}; set link_mode to copy"
        )


def make(links: Sequence[Link], folder: Path, link_mode: str, show_progress: bool = True) -> None:
    """Make hard links or copies; each appears when it is whole, and replaces what was there.

    Parameters
    ----------
    links : sequence of Link
        See `plan`.
    folder : Path
        Folder, locked by this run.
    link_mode : {"reference", "hardlink", "copy"}
        As for `plan`.
    show_progress : bool
        Print a progress bar.

    Raises
    ------
    OutputError
        If a file cannot be linked or written, or its source cannot be read.
    """
    if not links:
        return
    own = sorted(_own_names(folder) | {link.target.name for link in links})
    storage.save_json(folder / ledger.HIDDEN / _RECORD, {"files": own})
    what = {"hardlink": "Linking", "copy": "Copying"}[link_mode]
    work = execution.attempt_all(partial(_make_one, link_mode=link_mode), links, what, show_progress)
    failed = [str(outcome) for _, outcome in work if isinstance(outcome, ChunkError)]
    if failed:
        raise OutputError(f"{counted(len(failed), 'file')} not copied: {listed(failed)}")


def _make_one(link: Link, link_mode: str) -> None:
    if link_mode == "hardlink":
        storage.link_file(link.source, link.target)
    else:
        storage.copy_file(link.source, link.target)


def _own_names(folder: Path) -> set[str]:
    try:
        return {*json.loads((folder / ledger.HIDDEN / _RECORD).read_text("utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
