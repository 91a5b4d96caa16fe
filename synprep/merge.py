"""Several processed data sets become one: a table, its sections, its record; the arrays stay, or follow."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from synprep import agreement, dataset, execution, ledger, links, storage, table
from synprep.errors import ChunkError, TableError, counted, listed
from synprep.links import Link
from synprep.params import Merge
from synprep.paths import shown
from synprep.table import META_COLUMNS, SECTION_COLUMNS

_N_THREADS = 8  # that wait for headers
_COMPANIONS = ("sections.csv", "run.json")  # beside the table of a whole data set
_PASSING = ("versions", "commit", "started", "ended")  # what differs between runs that do the same


@dataclass(frozen=True)
class _Source:
    """A table to merge and what stands beside it; the values of the tables are text, as in the files."""

    path: str
    meta: pd.DataFrame
    sections: pd.DataFrame
    record: dict[str, Any]  # empty if there is none, or it is of another tool
    lack: str  # why this is not a whole data set; empty if it is


@dataclass(frozen=True)
class _Joined:
    """The merged rows; `filename` is an absolute path, the index says which of the sources a row is from."""

    rows: pd.DataFrame
    sources: list[_Source]

    @property
    def used(self) -> list[_Source]:
        """Those that rows are from; all of them when there is no row."""
        return [self.sources[number] for number in self.rows.index.unique()] or self.sources

    @property
    def parameters(self) -> list[tuple[str, dict[str, Any]]]:
        """Path and parameters of those that rows are from, as far as they are known."""
        return [(source.path, source.record["parameters"]) for source in self.used if source.record]


def run(p: Merge, show_progress: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """Merge data sets into one whose file names load from the folder of its table.

    `sections.csv` and `run.json` are written beside the table, so that `synprep.dataset.load` reads the
    result as it reads a processed data set; if a source lacks them, the table stands alone. A table whose
    rows change other than by rows added at its end is kept under a numbered name. If nothing has changed
    since the last time, nothing is written.

    `run.json` holds parameters (of preprocess, without paths: those that all sources have in common), table
    (the name of the merged one), sources (path of the table from here, number of rows taken, shape, and
    fingerprint of the input list), on_conflict, link_mode, versions, commit, started and ended.

    Parameters
    ----------
    p : Merge
        Parameters.
    show_progress : bool
        Print progress bars.

    Returns
    -------
    merged : DataFrame
        As written to `merged_meta_path`: one row per synapse id, all values as text. `filename` is relative
        to the table's folder, with ``/`` between folders; a plain name if arrays were linked or copied.
    notes : list of str
        What a person should know: see `synprep.table.merge`; parameters that differ; what was kept.

    Raises
    ------
    TableError
        If a table cannot be read, ids have different values and `on_conflict` is ``"error"``, a file that
        a row names does not exist or is damaged, chunks differ in shape or type, data sets differ in channels
        or spacing, or the folder belongs to another data set.
    LockedError
        If another run is writing to the folder.
    OutputError
        If the output cannot be written; see also `synprep.links.plan`.
    """
    started, folder = ledger.now(), Path(p.merged_meta_path).parent
    sources = [_read(path) for path in p.meta_list]
    rows, notes = table.merge([(source.path, source.meta) for source in sources], p.on_conflict)
    joined, before = _Joined(rows, sources), _refuse_folder(p)
    shape = _check(joined, show_progress)
    with ledger.locked(folder):
        storage.clean_up(folder)
        todo = links.plan(rows["filename"], folder, p.link_mode, show_progress)
        names = links.names(rows["filename"], folder, p.link_mode)
        merged = rows.assign(filename=names).reset_index(drop=True)
        sections, lack = _sections(joined, shape)
        record = {} if lack else _record(joined, shape, p) | {"started": started}
        contents = _contents(merged, sections, p)
        if todo or _lasting(record) != _lasting(before) or storage.differing(folder, contents):
            notes += _save(contents, record, todo, p, show_progress)
    notes += [*lack, *agreement.differences(joined.parameters), *_strangers(folder, names)]
    for path in p.meta_list:
        notes = [note.replace(path, shown(path)) for note in notes]
    return merged, notes


def _read(path: str) -> _Source:
    """Read a table, and its companions as far as they are there and whole."""
    meta, sections, record, lack = storage.read_table(path), pd.DataFrame(), {}, ""
    folder = Path(path).parent
    try:
        found = dataset.read_record(folder)
        _require(found["parameters"], agreement.MUST_AGREE, folder / "run.json")
        record = found
        sections = storage.read_table(folder / "sections.csv")
        _require(sections, SECTION_COLUMNS, folder / "sections.csv")
        _require(meta, META_COLUMNS, path)
    except TableError as error:
        lack = str(error).replace(str(folder), shown(folder))
    return _Source(path, meta, sections, record, lack)


def _require(found: Iterable[str], names: Iterable[str], path: str | Path) -> None:
    lacking = sorted(set(names) - set(found))
    if lacking:
        raise TableError(f"{path} has no {listed(lacking)}")


def _check(joined: _Joined, show_progress: bool) -> tuple[int, ...] | None:
    """Refuse what cannot be one data set; return the shape that all its chunks have, if there is any."""
    paths = joined.rows["filename"]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise TableError(f"{counted(len(missing), 'file')} named in the tables not found: {listed(missing)}")
    agreement.require_one_meaning(joined.parameters)
    headers = dict(
        execution.attempt_all(storage.read_header, paths, "Reading headers", show_progress, _N_THREADS)
    )
    damaged = [str(headers[path]) for path in paths if isinstance(headers[path], ChunkError)]
    if damaged:
        raise TableError(
            f"{counted(len(damaged), 'file')} named in the tables cannot be used: {listed(damaged)}"
        )
    kinds = [(headers[path].shape, str(headers[path].dtype)) for path in paths]
    tables = [joined.sources[number].path for number in joined.rows.index]
    agreement.require_one_kind(Counter((path, *kind) for path, kind in zip(tables, kinds, strict=True)))
    return kinds[0][0] if kinds else None


def _refuse_folder(p: Merge) -> dict[str, Any]:
    """Return the record of the last merge into this table, if any; refuse the folder of another data set."""
    folder, name = Path(p.merged_meta_path).parent, os.path.basename(p.merged_meta_path)
    there = [companion for companion in _COMPANIONS if (folder / companion).exists()]
    try:
        record = dataset.read_record(folder)
    except TableError:
        record = {}
    if not there or (record.get("table") == name and "sources" in record):
        return record
    owner = f"of the merged table {record['table']}" if "table" in record else "of another data set"
    raise TableError(
        f"{shown(folder)} holds {' and '.join(there)} {owner}, which would be overwritten: "
        "set merged_meta_path to another folder"
    )


def _sections(joined: _Joined, shape: tuple[int, ...] | None) -> tuple[pd.DataFrame, list[str]]:
    """Sections of the merged chunks, each from the source of its row; or why there are none."""
    reasons = [source.lack for source in joined.used if source.lack]
    parts = []
    for number, rows in () if reasons else joined.rows.groupby(level=0, sort=False):
        source = joined.sources[number]
        part = source.sections[source.sections["synapse_id"].isin(rows["synapse_id"])]
        n_sections = part["synapse_id"].value_counts().reindex(rows["synapse_id"], fill_value=0)
        short = n_sections.index[n_sections != shape[-1]]
        reasons += (
            [f"sections.csv beside {source.path} is not whole for {listed(short)}"] if len(short) else []
        )
        parts.append(part[list(SECTION_COLUMNS)])
    if reasons:
        return pd.DataFrame(), [f"no sections.csv and run.json for the merged table: {reasons[0]}"]
    return pd.concat([pd.DataFrame(columns=list(SECTION_COLUMNS)), *parts]), []


def _contents(merged: pd.DataFrame, sections: pd.DataFrame, p: Merge) -> dict[str, bytes]:
    tables = {os.path.basename(p.merged_meta_path): merged, "sections.csv": sections}
    return {name: storage.table_bytes(content) for name, content in tables.items() if len(content.columns)}


def _record(joined: _Joined, shape: tuple[int, ...] | None, p: Merge) -> dict[str, Any]:
    folder = Path(p.merged_meta_path).parent
    n_rows = joined.rows.index.value_counts()
    sources = [
        {
            "table": links.relative(source.path, folder),
            "n_rows": int(n_rows.get(number, 0)),
            "shape": list(shape) if number in n_rows else None,
            "input_fingerprint": source.record.get("input_fingerprint"),
        }
        for number, source in enumerate(joined.sources)
    ]
    return {
        "parameters": agreement.in_common([values for _, values in joined.parameters]),
        "table": os.path.basename(p.merged_meta_path),
        "sources": sources,
        "on_conflict": p.on_conflict,
        "link_mode": p.link_mode,
        **ledger.versions(),
    }


def _lasting(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _PASSING}


def _save(
    contents: Mapping[str, bytes],
    record: Mapping[str, Any],
    todo: Sequence[Link],
    p: Merge,
    show_progress: bool,
) -> list[str]:
    """Write everything; no table is there while the arrays that it describes are replaced."""
    folder, name, old = Path(p.merged_meta_path).parent, os.path.basename(p.merged_meta_path), None
    is_update = any(link.is_update for link in todo)
    if is_update:
        old = storage.move_aside(folder / name)
    for companion in _COMPANIONS if is_update or not record else ():
        storage.remove(folder / companion)
    links.make(todo, folder, p.link_mode, show_progress)
    if record:  # first, since it says that the other files are of a merged set
        storage.save_json(folder / "run.json", {**record, "ended": ledger.now()})
    return storage.save_tables(folder, contents, old)[0]


def _strangers(folder: Path, names: Iterable[str]) -> list[str]:
    strangers = storage.unlisted_arrays(folder, names)
    text = f"{counted(len(strangers), 'array file')} in {shown(folder)} not in the merged table, kept: "
    return [text + listed(strangers, 10)] if strangers else []
