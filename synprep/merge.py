"""Several processed data sets become one: a table, its sections, its record; the arrays stay, or follow."""

import filecmp
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from os.path import basename, dirname
from pathlib import Path
from typing import Any

import pandas as pd

from synprep._core import execution, files, lock, npy, provenance, record, tables, text_table
from synprep._core.errors import ChunkError, LockedError, OutputError, TableError, counted, listed
from synprep._core.paths import HIDDEN, shown
from synprep._core.tables import COMPANIONS, META_COLUMNS, SECTION_COLUMNS, SOURCES_COLUMNS
from synprep.params import Merge

# Parameters of preprocess that decide what a chunk means; where the EM is cut, also output_channel_desc.
_MUST_AGREE = ("cut_intensity_with_seg_masks", "axial_to_sagittal_spacing", "voxel_size_xy_nm")
_MAY_DIFFER = ("cutout_threshold", "cutout_pixel_value", "seg_mask_map")  # but a person should know
_UNFINISHED = "a run of preprocess was stopped there, or is not over: run it to its end, then merge"
_OWN_NAMES = "merged.json"  # names of the arrays that merges have put into a folder
_NOTHING = pd.DataFrame({"synapse_id": []}, dtype=str)  # a companion without rows
_N_THREADS = 8  # that wait for headers, or for the state of files

_Parameters = dict[str, dict[str, Any]]  # of preprocess, by path of the table


@dataclass(frozen=True)
class _Source:
    """A table to merge and what stands beside it; the values of the tables are text, as in the files."""

    path: str
    states: list[list[int] | None]  # of its files before they were read
    rows: pd.DataFrame  # of the table; after `_join`, those that are taken from it
    run_json: dict[str, Any]  # its run.json; empty if there is none, or it is of another tool
    lack: str  # why this is not a whole data set; empty if it is
    sections: pd.DataFrame  # of a whole data set
    origins: pd.DataFrame  # its sources.csv; empty if its chunks were not cut from volumes

    @property
    def array_paths(self) -> list[str]:
        """Path of the array of each row."""
        return [os.path.join(dirname(self.path), name) for name in self.rows["filename"]]


class _AloneError(Exception):
    """Why a table is not that of a whole data set."""


def run(p: Merge, show_progress: bool = True) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Merge data sets into one whose file names load from the folder of its table.

    `sections.csv` and `run.json` are written beside the table, so that the result is read as a processed data
    set is; if a source lacks them, the table stands alone. A table whose rows change other than by rows added
    at its end is kept under a numbered name. If nothing has changed since the last time, nothing is written.

    `run.json` holds parameters (of preprocess, without paths: those that all sources have in common), table
    (the name of the merged one), sources (path of the table from here, number of rows taken, shape, and
    hash of the input list), on_conflict, link_mode, versions, commit, started and ended.

    Parameters
    ----------
    p : Merge
        Parameters.
    show_progress : bool
        Print a progress bar: of what takes longest, since a cell can have one.

    Returns
    -------
    merged : DataFrame
        As written to `merged_meta_path`: one row per synapse id, all values as text. Columns in the order of
        their first appearance; one that a table lacks is empty in its rows. `filename` is relative to the
        table's folder, with ``/`` between folders; a plain name if arrays were linked or copied.
    notes : list of str
        What a person should know: rows that are equal or in conflict, columns that tables lack, why there are
        no sections, parameters that differ, arrays that the table does not list.
    history : list of str
        What was moved aside now, which the next time is not said again.

    Raises
    ------
    TableError
        If a table cannot be read, ids have different values and `on_conflict` is ``"error"``, a file that
        a row names does not exist or is damaged, chunks differ in shape or type, data sets differ in channels
        or spacing, the folder belongs to another data set, or arrays to be linked or copied have names that
        are equal but for case.
    LockedError
        If another run is writing to the folder.
    OutputError
        If the output cannot be written: a file that no merge has put there has the name of an array but other
        content, a hard link would have to cross file systems, or there is not enough space for copies.
    """
    started, folder = provenance.now(), Path(p.merged_meta_path).parent
    others = [one for one in map(dirname, p.meta_list) if os.path.realpath(one) != os.path.realpath(folder)]
    with lock.read_locked(*dict.fromkeys(others)):
        return _merge(p, started, show_progress)


def _merge(p: Merge, started: str, show_progress: bool) -> tuple[pd.DataFrame, list[str], list[str]]:
    folder, name = Path(p.merged_meta_path).parent, Path(p.merged_meta_path).name
    history, read = [], [_read(path) for path in p.meta_list]
    sources, notes = _join(read, p.on_conflict)
    notes += [note for note in map(_removed, read) if note]
    used = [source for source in sources if len(source.rows)] or sources
    known = {shown(source.path): source.run_json["parameters"] for source in used if source.run_json}
    array_paths = [path for source in used for path in source.array_paths]
    before = _refuse_folder(folder, name)
    _refuse_parameters(known)
    is_reference = p.link_mode == "reference"
    shape = _refuse_kinds(used, array_paths, show_progress and is_reference)
    with lock.locked(folder):
        files.clean_up(folder, folder / HIDDEN)
        todo = _plan(array_paths, folder, p.link_mode)
        merged = pd.concat([source.rows for source in sources], ignore_index=True)
        name_of = partial(_relative, folder=folder) if is_reference else basename
        merged["filename"] = [*map(name_of, array_paths)]
        sections, lack = _merged_sections(used, shape)
        run_json = {} if lack else _record(sources, known, shape, p) | {"started": started}
        origins = None if lack else _merged_origins(used)
        contents = tables.contents({name: merged, "sections.csv": sections, "sources.csv": origins})
        if not is_reference:
            _put(todo, p, show_progress)
        is_recorded = provenance.lasting(run_json) == provenance.lasting(before)
        if todo or not is_recorded or tables.differing(folder, contents):
            history = _write(folder, sources, contents, run_json)
    return merged, notes + _notes(lack, known, folder, merged["filename"]), history


def _read(path: str) -> _Source:
    """Read and check a table, and its companions as far as they are there."""
    folder, states = Path(path).parent, _states(path)
    if not os.path.exists(path) and record.done_state(folder):
        raise TableError(f"{path}: there is no such file, but finished chunks: {_UNFINISHED}")
    rows = tables.read_table(path, ["synapse_id", "filename"])
    run_json, lack, sections, origins = {}, "", _NOTHING, _NOTHING
    try:
        run_json = _run_json(folder)
        _require(rows, META_COLUMNS, path)
        sections = _companion(folder / "sections.csv", SECTION_COLUMNS, SECTION_COLUMNS)
        if (folder / "sources.csv").exists():
            origins = _origins(folder / "sources.csv")
    except _AloneError as error:
        lack = str(error).replace(str(folder), shown(folder))
    may_be_empty = META_COLUMNS if lack else ()
    tables.refuse_misfits(path, tables.with_values(path, rows, META_COLUMNS, may_be_empty))
    tables.refuse_cut(path, rows, None if lack else sections)
    _refuse_unfinished(path, rows, run_json)
    return _Source(path, states, rows, run_json, lack, sections, origins)


def _states(path: str) -> list[list[int] | None]:
    """State of a table, and of what preprocess and merge write beside it."""
    folder = Path(path).parent
    return [*(files.state(folder / name) for name in (path, *COMPANIONS)), record.done_state(folder)]


def _run_json(folder: Path) -> dict[str, Any]:
    """Record of a source; one that is damaged is an error."""
    try:
        found = provenance.read_record(folder)
    except TableError as error:
        if isinstance(error.__cause__, OSError | KeyError | TypeError):  # there is none, or of another tool
            raise _AloneError(error) from error
        raise
    _require(found["parameters"], _MUST_AGREE, folder / "run.json")
    return found


def _companion(
    path: Path,
    columns: dict[str, str],
    needed: Iterable[str],
    may_be_empty: Iterable[str] = tables.MAY_LACK,
) -> pd.DataFrame:
    """Table beside that of chunks; one that is damaged is an error."""
    if not path.exists():
        raise _AloneError(f"{path}: there is no such file")
    table = text_table.read(path)
    _require(table, needed, path)
    tables.with_values(path, table, columns, may_be_empty)
    return table


def _origins(path: Path) -> pd.DataFrame:
    """What chunks were cut from, if they were; a merged table has rows that are empty."""
    origins = _companion(path, SOURCES_COLUMNS, ["synapse_id"], SOURCES_COLUMNS)
    twice = origins["synapse_id"][origins["synapse_id"].duplicated()]
    if len(twice):
        raise TableError(f"{path}: has more than one row of {listed(twice)}: take the wrong one out")
    return origins


def _require(found: Iterable[str], names: Iterable[str], path: str | Path) -> None:
    lacking = sorted(set(names) - set(found))
    if lacking:
        raise _AloneError(f"{path} has no {listed(lacking)}")


def _refuse_unfinished(path: str, rows: pd.DataFrame, run_json: dict[str, Any]) -> None:
    """Refuse a table that lacks chunks which preprocess has finished since it was written."""
    folder = Path(path).parent
    unlisted = {*tables.unlisted_arrays(folder, rows["filename"])}
    if not unlisted or "ended" not in run_json:
        return
    ended_ns = 1e9 * (datetime.fromisoformat(run_json["ended"]).timestamp() + 1)  # it is rounded down
    written_ns = min(ended_ns, (files.state(folder / "run.json") or [0, 0])[1])  # a copy may be younger
    late = [
        entry.synapse_id
        for entry in record.read_done(folder).values()
        if len(entry.outputs) == 1  # a tensor, not a raw pair that was extracted there
        and entry.row["filename"] in unlisted
        and entry.output[1] > written_ns
    ]
    if late:
        n_late = counted(len(late), "finished chunk")
        raise TableError(f"{path}: lacks {n_late} ({listed(late)}): {_UNFINISHED}")


def _removed(source: _Source) -> str:
    """Say which chunks a table lacks that stand in the table of sections beside it."""
    ids = sorted({*source.sections["synapse_id"]} - {*source.rows["synapse_id"]})
    lacks = f"{shown(source.path)} lacks {counted(len(ids), 'chunk')} that sections.csv beside it has"
    return f"{lacks}, as if rows were removed or cut off: {listed(ids)}" if ids else ""


def _join(sources: Sequence[_Source], on_conflict: str) -> tuple[list[_Source], list[str]]:
    """Take one row per synapse id, and fill missing columns; file names are compared without folders."""
    joined = pd.concat([source.rows for source in sources], keys=range(len(sources))).droplevel(1).fillna("")
    compared = joined.assign(filename=joined["filename"].str.split(r"[/\\]", regex=True).str[-1])
    ids = compared.drop_duplicates()["synapse_id"]
    conflicting = sorted(ids[ids.duplicated()].unique())
    if conflicting and on_conflict == "error":
        raise TableError(_conflicts(joined, conflicting, sources))
    kept = joined[~joined["synapse_id"].duplicated(keep="last" if on_conflict == "last" else "first")]
    n_equal = int(compared.duplicated().sum())
    notes = [f"{counted(n_equal, 'row')} that an earlier table has as well: kept once"] if n_equal else []
    if conflicting:
        kept_rows = f"kept the {on_conflict} row of {listed(conflicting)}"
        notes.append(f"different values for {counted(len(conflicting), 'synapse id')}: {kept_rows}")
    notes += [
        f"{shown(source.path)} has no column {column}: left empty in its rows"
        for source in sources
        for column in joined.columns.difference(source.rows.columns, sort=False)
    ]
    return [replace(source, rows=kept[kept.index == n]) for n, source in enumerate(sources)], notes


def _conflicts(joined: pd.DataFrame, ids: Sequence[str], sources: Sequence[_Source]) -> str:
    rows = joined[joined["synapse_id"].isin(ids[:5])].sort_values("synapse_id", kind="stable")
    rows.insert(sources[0].rows.shape[1], "source table", [sources[number].path for number in rows.index])
    head = f"different values for {counted(len(ids), 'synapse id')}: {listed(ids, 50)}"
    more = [f"and {len(ids) - 5} more"] if len(ids) > 5 else []
    return _with_lines(head, rows, *more, "set on_conflict to first or last to keep one row of each")


def _with_lines(head: str, lines: pd.DataFrame, *more: str) -> str:
    return "\n  ".join([head, *lines.to_string(index=False).splitlines(), *more])


def _refuse_folder(folder: Path, name: str) -> dict[str, Any]:
    """Return the record of the last merge into this table, if any; refuse the folder of another data set."""
    there = [companion for companion in COMPANIONS if (folder / companion).exists()]
    run_json = provenance.find_record(folder)
    run_json = run_json if "sources" in run_json else {}
    if there and run_json.get("table") != name:
        owner = f"the merged table {run_json['table']}" if "table" in run_json else "another data set"
        raise TableError(
            f"{shown(folder)} holds {' and '.join(there)} of {owner}, which would be overwritten: "
            "set merged_meta_path to another folder"
        )
    return run_json


def _refuse(
    error: type[Exception], items: Sequence[object], noun: str, what: str, hint: str = "", limit: int = 5
) -> None:
    """Raise an error that counts and lists items, if there are any."""
    if items:
        raise error(f"{counted(len(items), noun)} {what}: {listed(items, limit)}{hint}")


def _refuse_parameters(known: _Parameters) -> None:
    """Refuse chunks that do not mean the same: other channels, other spacing."""
    are_cut = all(values["cut_intensity_with_seg_masks"] for values in known.values())
    differing = _differing(known, (*_MUST_AGREE, "output_channel_desc") if are_cut else _MUST_AGREE)
    if differing:
        lines = pd.DataFrame({"table": [*known], **differing}).astype(str)
        head = "data sets made with different parameters do not make one:"
        remedy = "preprocess them again with the same values, or leave those that differ out of meta_list"
        raise TableError(_with_lines(head, lines, remedy))


def _differing(known: _Parameters, names: Iterable[str]) -> dict[str, list[Any]]:
    """Values by name, of parameters that differ; a merged set has no value where its sources differ."""
    columns = {name: [values.get(name, "several values") for values in known.values()] for name in names}
    return {name: values for name, values in columns.items() if any(v != values[0] for v in values)}


def _refuse_kinds(used: Sequence[_Source], array_paths: Sequence[str], show: bool) -> tuple[int, ...]:
    """Refuse damaged arrays, and several shapes or types; return the shape, empty if there is none."""
    missing = [path for path in array_paths if not os.path.isfile(path)]
    _refuse(TableError, missing, "file", "named in the tables not found")
    headers = dict(execution.attempt_all(npy.read_header, array_paths, "Reading headers", show, _N_THREADS))
    damaged = [headers[path] for path in array_paths if isinstance(headers[path], ChunkError)]
    _refuse(TableError, damaged, "file", "named in the tables cannot be used")
    kinds = Counter(
        (source.path, headers[path].shape, str(headers[path].dtype))
        for source in used
        for path in source.array_paths
    )
    if len({(shape, dtype) for _, shape, dtype in kinds}) > 1:
        lines = [(shown(path), " x ".join(map(str, shape)), *rest) for (path, shape, *rest) in kinds]
        lines = pd.DataFrame(lines, columns=["table", "shape", "type"]).assign(chunks=[*kinds.values()])
        raise TableError(_with_lines("chunks of different shape or type do not make one data set:", lines))
    return next((shape for _, shape, _ in kinds), ())


def _plan(array_paths: Sequence[str], folder: Path, link_mode: str) -> dict[str, str]:
    """Tell what is to be done, see `_task`, for each array that is not yet in the folder as it is to be."""
    if link_mode == "reference":
        return {}
    _refuse_shared_names(array_paths, folder)
    compare = partial(_task, folder=folder, link_mode=link_mode, own=_own_names(folder))
    tasks = dict(execution.attempt_all(compare, array_paths, "", False, _N_THREADS))
    todo = {path: tasks[path] for path in array_paths if tasks[path] != "keep"}
    foreign = [basename(path) for path in todo if todo[path] == "foreign"]
    what = f"in {shown(folder)} with the name of an array to be put there, but with other content"
    hint = "; move it away, or set another merged_meta_path"
    _refuse(OutputError, foreign, "file", f"{what} and not of a merge", hint)
    if link_mode == "hardlink":
        device = os.stat(folder).st_dev
        away = [shown(path) for path in todo if os.stat(path).st_dev != device]
        what = f"on another file system than {shown(folder)}, which hard links cannot reach"
        _refuse(OutputError, away, "file", what, "; set link_mode to copy", 3)
    else:
        files.refuse_full_disk(folder, sum(os.path.getsize(path) for path in todo))
    return todo


def _refuse_shared_names(array_paths: Sequence[str], folder: Path) -> None:
    """Refuse equal names, also but for case: the folder may move to a file system that ignores it."""
    by_name = defaultdict(list)
    for path in array_paths:
        by_name[basename(path).casefold()].append(path)
    shared = [" and ".join(map(shown, paths)) for paths in by_name.values() if len(paths) > 1]
    what = f"in {shown(folder)} would stand for several chunks"
    _refuse(TableError, shared, "file name", what, "; set link_mode to reference")


def _task(path: str, folder: Path, link_mode: str, own: set[str]) -> str:
    """Compare an array with what is there: "keep" it, "make" it, "replace" other content, or "foreign".

    A copy is taken for the same as its source if size and modification time are equal, or else all bytes.
    """
    target = folder / basename(path)
    if not os.path.lexists(target):
        return "make"
    if os.path.samefile(dirname(path), folder):  # it is the source itself
        return "keep"
    is_link = os.path.samestat(os.stat(path), os.lstat(target))
    if not is_link and not _has_same_bytes(path, target):
        return "replace" if target.name in own else "foreign"
    is_right = is_link if link_mode == "hardlink" else not is_link and not os.path.islink(target)
    return "keep" if is_right else "make"


def _has_same_bytes(path: str, target: Path) -> bool:
    try:
        return files.state(path) == files.state(target) or filecmp.cmp(path, target, False)
    except OSError:
        return False


def _own_names(folder: Path) -> set[str]:
    try:
        found = files.read_json(folder / HIDDEN / _OWN_NAMES)["files"]
        return {name for name in found if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _relative(path: str, folder: Path) -> str:
    """Way from a folder to a file, with ``/``; absolute where there is none, as between Windows drives."""
    try:
        way = os.path.relpath(path, folder)
        real = os.path.realpath(path)
        if os.path.realpath(os.path.join(folder, way)) != real:  # a folder on the way is a symbolic link
            way = os.path.relpath(real, os.path.realpath(folder))
        return Path(way).as_posix()
    except ValueError:
        return Path(path).as_posix()


def _merged_sections(used: Sequence[_Source], shape: tuple[int, ...]) -> tuple[pd.DataFrame | None, str]:
    """Sections of the merged chunks, each from the source of its row; or why there are none."""
    for source in used:
        if lack := source.lack or _short_of_sections(source, shape):
            return None, lack
    return pd.concat([_of_rows(source.sections, source)[[*SECTION_COLUMNS]] for source in used]), ""


def _short_of_sections(source: _Source, shape: tuple[int, ...]) -> str:
    """Say which rows lack sections; empty if none does."""
    ids = _of_rows(source.sections, source)["synapse_id"]
    n_sections = ids.value_counts().reindex(source.rows["synapse_id"], fill_value=0)
    short = [synapse_id for synapse_id, n in n_sections.items() if n != shape[-1]]
    return f"sections.csv beside {shown(source.path)} is not whole for {listed(short)}" if short else ""


def _merged_origins(used: Sequence[_Source]) -> pd.DataFrame | None:
    """What the merged chunks were cut from, if any was; empty for the others."""
    if all(source.origins.empty for source in used):
        return None
    ids = pd.concat([source.rows["synapse_id"] for source in used])
    known = pd.concat([_of_rows(source.origins, source) for source in used]).fillna("")
    columns = [name for name in SOURCES_COLUMNS if name != "synapse_id"]
    known = known.set_index("synapse_id").reindex(ids, columns=columns, fill_value="")
    return known.reset_index()


def _of_rows(table: pd.DataFrame, source: _Source) -> pd.DataFrame:
    """Rows of a companion that are of the rows that are taken."""
    return table[table["synapse_id"].isin(source.rows["synapse_id"])]


def _record(sources: list[_Source], known: _Parameters, shape: tuple[int, ...], p: Merge) -> dict[str, Any]:
    first, *_ = known.values()
    left_out = {"scheduler", *_differing(known, first)}
    return {
        "parameters": {k: v for k, v in first.items() if k not in left_out and not k.endswith("_path")},
        "table": basename(p.merged_meta_path),
        "sources": [
            {
                "table": _relative(source.path, Path(p.merged_meta_path).parent),
                "n_rows": len(source.rows),
                "shape": list(shape) if len(source.rows) else None,
                "input_fingerprint": source.run_json.get("input_fingerprint"),
            }
            for source in sources
        ],
        "on_conflict": p.on_conflict,
        "link_mode": p.link_mode,
        **provenance.versions(),
    }


def _put(todo: dict[str, str], p: Merge, show: bool) -> None:
    """Link or copy arrays; no table is there while those that it describes are replaced."""
    folder = Path(p.merged_meta_path).parent
    if "replace" in todo.values():
        tables.set_aside(p.merged_meta_path)
    if todo:
        own = sorted(_own_names(folder).union(map(basename, todo)))
        files.save_json(folder / HIDDEN / _OWN_NAMES, {"files": own})
    is_link = p.link_mode == "hardlink"
    put, what = (files.link_file, "Linking") if is_link else (files.copy_file, "Copying")
    work = execution.attempt_all(lambda path: put(path, folder / basename(path)), todo, what, show)
    failed = [outcome for _, outcome in work if isinstance(outcome, ChunkError)]
    files.sync_folder(folder)
    _refuse(OutputError, failed, "file", "not copied")


def _write(
    folder: Path, sources: Iterable[_Source], contents: dict[str, bytes | None], run_json: dict[str, Any]
) -> list[str]:
    """Write the tables and their record; say what was moved aside."""
    _refuse_changed(sources, folder)
    if run_json:  # first, since it says that the other files are of a merged set; so it is removed last
        files.save_json(folder / "run.json", {**run_json, "ended": provenance.now()})
    kept, _ = tables.save_tables(folder, contents)
    if not run_json:
        files.remove(folder / "run.json")
    return kept


def _refuse_changed(sources: Iterable[_Source], folder: Path) -> None:
    """Refuse sources that were written to since they were read; those beside the merged table are locked."""
    others = [
        one.path for one in sources if Path(one.path).parent != folder and _states(one.path) != one.states
    ]
    if others:
        why = "while they were read: a run writes there; wait until it ends, then merge again"
        raise LockedError(f"{listed(map(shown, others))} or files beside have changed {why}")


def _notes(lack: str, known: _Parameters, folder: Path, names: Iterable[str]) -> list[str]:
    """What a person should know, beside what joining and writing have told."""
    notes = [f"no sections.csv and run.json for the merged table: {lack}"] if lack else []
    for name, values in _differing(known, _MAY_DIFFER).items():
        each = [f"{value} in {path}" for value, path in zip(values, known, strict=True)]
        notes.append(f"{name} differs: {', '.join(each)}")
    strangers = tables.unlisted_arrays(folder, names)
    if strangers:
        text = f"{counted(len(strangers), 'array file')} in {shown(folder)} not in the merged table, kept"
        notes.append(f"{text}: {listed(strangers, 10)}")
    return notes
