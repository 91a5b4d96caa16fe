"""What a run is going to do: found out and checked before any array is read; nothing is written."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from synprep import chunk, dataset, execution, ledger, pairing, storage, table
from synprep.errors import (
    ChunkError,
    PairingError,
    ParameterError,
    TableError,
    counted,
    listed,
    printable,
)
from synprep.ledger import Entry
from synprep.pairing import Pair, Pairing
from synprep.params import Preprocess
from synprep.paths import shown

_SEVERITIES = ["error", "unfit", "warning", "note"]  # the worst first
_N_THREADS = 8  # that wait for headers; reading them is all waiting


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Parameters
    ----------
    pairs : tuple of Pair
        Chunks that were asked for, sorted by synapse id.
    done : dict of str to Entry
        Record of those that are finished and unchanged, by synapse id.
    todo : tuple of Pair
        Those that are to be done.
    problems : tuple of dict
        Rows of `problems.csv` for those that cannot be done.
    record_state : list of int or None
        State of the record when the plan was made.
    """

    pairs: tuple[Pair, ...]
    done: dict[str, Entry]
    todo: tuple[Pair, ...]
    problems: tuple[dict[str, str], ...]
    record_state: list[int] | None


def make(found: Pairing, p: Preprocess, show_progress: bool = True) -> Plan:
    """Find out what there is to do.

    Parameters
    ----------
    found : Pairing
        All pairs.
    p : Preprocess
        Parameters.
    show_progress : bool
        Print a progress bar.

    Returns
    -------
    Plan
        Chunks to do, chunks that are done, and problems.

    Raises
    ------
    PairingError
        If none of the ids of `synapse_ids_path` is paired, or two ids would share a file name in the output
        folder because its file system ignores case.
    ParameterError
        If outputs would be read as inputs, or the output folder holds a merged data set.
    TableError
        If the table of ids cannot be read, or `meta.csv` is there and of another data set.
    OutputError
        If there is not enough free space for what is to be written.
    """
    _refuse_folder(p)
    wanted = storage.read_table(p.synapse_ids_path)["synapse_id"] if p.synapse_ids_path else None
    pairs = _choose(found, wanted, p)
    _refuse_other_data_set(found, p)
    record_state = ledger.record_state(p.proc_data_path)
    done = _done(pairs, p) if p.resume else {}
    todo, problems, n_bytes = [], _claims(found), 0
    rest = [pair for pair in pairs if pair.synapse_id not in done]
    checked = execution.attempt_all(_check, rest, "Checking headers", show_progress, _N_THREADS)
    for pair, header in sorted(checked, key=lambda outcome: outcome[0].synapse_id):
        if isinstance(header, ChunkError):
            problems.append(problem_row(pair, "error", "preflight", header.problem))
        else:
            todo.append(pair)
            n_bytes += chunk.n_output_bytes(header, p)
    _say_what_is_missing(found, wanted)
    storage.refuse_full_disk(p.proc_data_path, n_bytes)
    return Plan(tuple(pairs), done, tuple(todo), tuple(problems), record_state)


def _choose(found: Pairing, wanted: Iterable[str] | None, p: Preprocess) -> list[Pair]:
    pairs = pairing.select(found.pairs, wanted, p.max_chunks)
    alike = pairing.ids_that_differ_in_case(pairs)
    if alike and storage.ignores_case(storage.existing(p.proc_data_path)):
        groups = listed(" and ".join(group) for group in alike)
        raise PairingError(f"{p.proc_data_path} ignores case, so these ids would share a file: {groups}")
    return pairs


def _say_what_is_missing(found: Pairing, wanted: Iterable[str] | None) -> None:
    """Print which ids were asked for in vain; after the progress bar, which takes with it what was there."""
    missing = sorted({*(wanted if wanted is not None else ())} - {pair.synapse_id for pair in found.pairs})
    if missing:
        print(f"{counted(len(missing), 'id')} of synapse_ids_path not paired: {listed(missing)}")


def _refuse_folder(p: Preprocess) -> None:
    """Refuse a merged data set's folder, and one in which the walk for inputs would find outputs."""
    if dataset.is_merged(p.proc_data_path):
        raise ParameterError(f"proc_data_path {p.proc_data_path} holds a merged data set: set another folder")
    name = table.filename("1", (2, 256, 256, 52))
    for kind in ("em", "mask"):
        folder, pattern = getattr(p, f"raw_{kind}_data_path"), getattr(p, f"{kind}_filename_pattern")
        is_inside = Path(os.path.realpath(p.proc_data_path)).is_relative_to(os.path.realpath(folder))
        if is_inside and pairing.read_id(name, pattern):
            raise ParameterError(
                f"proc_data_path {p.proc_data_path} must not be in raw_{kind}_data_path {folder}: "
                f"the next run would take outputs such as {name} for inputs"
            )


def _refuse_other_data_set(found: Pairing, p: Preprocess) -> None:
    """Refuse to replace a table that lists chunks which this input has never had."""
    meta_path = Path(p.proc_data_path, "meta.csv")
    if not p.resume or not meta_path.exists():
        return
    ids = storage.read_table(meta_path)["synapse_id"]
    strange = sorted({*ids} - found.all_ids())
    if strange and _recorded_source(p) != [p.raw_em_data_path, p.em_filename_pattern]:
        raise TableError(
            f"{meta_path} seems to be of another data set: {len(strange)} of its {len(ids)} chunks are not "
            f"in {p.raw_em_data_path} ({listed(strange, 3)}); set another proc_data_path, or resume to false "
            "to move the old table aside"
        )


def _recorded_source(p: Preprocess) -> list[str] | None:
    """EM folder and pattern of the run that wrote the table."""
    try:
        recorded = json.loads(Path(p.proc_data_path, "run.json").read_text("utf-8"))["parameters"]
        return [recorded["raw_em_data_path"], recorded["em_filename_pattern"]]
    except (OSError, ValueError, KeyError):
        return None


def _done(pairs: Iterable[Pair], p: Preprocess) -> dict[str, Entry]:
    record = ledger.read(p.proc_data_path)
    known = {pair.synapse_id: pair for pair in pairs if pair.synapse_id in record}
    return {key: record[key] for key, pair in known.items() if ledger.is_current(record[key], pair, p)}


def _check(pair: Pair) -> storage.Header:
    """Check a pair's id and headers; return that of the EM."""
    if {"/", "\\"} & {*pair.synapse_id}:
        raise ChunkError("synapse id would leave the output folder", pair.synapse_id)
    return chunk.check_pair(pair)[0]


def _claims(found: Pairing) -> list[dict[str, str]]:
    return [
        problem_row(Pair(synapse_id, ""), "error", "pairing", f"claimed by several files: {listed(paths)}")
        for synapse_id, paths in found.claimed_twice.items()
    ]


def problem_row(pair: Pair, severity: str, stage: str, problem: str) -> dict[str, str]:
    """Row of `problems.csv`.

    Parameters
    ----------
    pair : Pair
        The chunk.
    severity : {"error", "warning"}
        An error means that there is no tensor.
    stage : str
        When it was found: pairing, preflight (headers), processing, or result.
    problem : str
        What is wrong, and after a colon or in brackets what was found.

    Returns
    -------
    dict of str to str
        Text by column, see `synprep.table.PROBLEM_COLUMNS`.
    """
    paths = [printable(shown(path)) if path else "" for path in (pair.em_path, pair.mask_path)]
    values = (pair.synapse_id, severity, stage, problem, *paths)
    return dict(zip(table.PROBLEM_COLUMNS, values, strict=True))


def group_problems(rows: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """Group rows of `problems.csv` that share a problem.

    Parameters
    ----------
    rows : iterable of mapping
        See `problem_row`.

    Returns
    -------
    DataFrame
        Index `problem`, without what was found in single chunks; columns `severity`, `chunks` (how many) and
        `examples` (files, or synapse ids). The worst first, then the most frequent; "none" if there are none.
    """
    examples = defaultdict(list)
    for row in rows:
        _, *found = row["problem"].split(": ")
        is_file = found and found[0].endswith(".npy")
        examples[row["severity"], kind_of(row["problem"])].append(found[0] if is_file else row["synapse_id"])
    grouped = sorted(examples.items(), key=lambda item: (_SEVERITIES.index(item[0][0]), -len(item[1])))
    values = [(kind, severity, len(names), listed(names, 3)) for (severity, kind), names in grouped]
    columns = ["problem", "severity", "chunks", "examples"]
    return pd.DataFrame(values or [("none", "", 0, "")], columns=columns).set_index("problem")


def kind_of(problem: str) -> str:
    """What is wrong, without what was found in one chunk.

    Parameters
    ----------
    problem : str
        Such as ``"no cleft voxel (labels found: 1, 3)"``.

    Returns
    -------
    str
        Such as ``"no cleft voxel"``.
    """
    return re.split(r": | \(labels", problem)[0]
