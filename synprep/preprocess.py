"""A whole data set: raw pairs in, tensors and tables out; resumable, and never stopped by a bad chunk."""

import hashlib
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from synprep import pairing, params, volumes
from synprep._core import (
    arrays,
    chunk,
    dataset,
    execution,
    files,
    first_look,
    lock,
    problems,
    provenance,
    record,
    tables,
    verify,
    work,
)
from synprep._core.chunk import Pair, RawPair
from synprep._core.errors import (
    ChunkError,
    LockedError,
    OutputError,
    ParameterError,
    TableError,
    composed,
    counted,
    listed,
    printable,
)
from synprep._core.paths import HIDDEN, shown
from synprep._core.problems import Problem, grouped
from synprep._core.tables import Entry
from synprep._core.work import Job
from synprep.pairing import Pairing
from synprep.params import Extract, Preprocess

__all__ = [
    "Plan",
    "Problem",
    "Result",
    "extract",
    "grouped",
    "plan",
    "run",
    "verify_arrays",
]

_EXTRACT_MARK = "extract"  # in the hidden folder of raw pairs that extract has made
_PASSED_OVER = "passed over: neither EM nor mask, by folder and filename pattern"
_UNPAIRED = {  # what a pairing holds besides pairs, in words
    "em_only": "EM without mask",
    "mask_only": "mask without EM",
    "passed_over": "neither EM nor mask",
    "hidden": "hidden",
}
_HEADER_BYTES = 128  # of a file
_SECTION_BYTES = 500  # in memory for the numbers of one section, and their text
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
    problems : tuple of Problem
        Why the others cannot be done, and warnings of files that are in no pair.
    done_state : list of int or None
        State of the record of finished chunks when the plan was made.
    unpaired : dict of str to int
        How many files are in no pair: em_only, mask_only, passed_over (neither EM nor mask), hidden; only
        what there is, and of ids only those that were asked for.
    n_not_found : int
        How many ids of `synapse_ids_path` no file has, or no row of the synapse table.
    """

    pairs: tuple[Pair, ...]
    done: dict[str, Entry]
    todo: tuple[Pair, ...]
    problems: tuple[Problem, ...]
    done_state: list[int] | None
    unpaired: dict[str, int] = field(default_factory=dict)
    n_not_found: int = 0


def plan(found: Pairing, p: Preprocess, show_progress: bool = True) -> Plan:
    """Find out what there is to do; all headers are checked, the first chunks looked at, nothing is written.

    Parameters
    ----------
    found : Pairing
        All pairs, see `synprep.pairing.find`.
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
        If none of the ids of `synapse_ids_path` is paired.
    ParameterError
        If outputs would be read as inputs, the output folder holds a merged data set, or the first chunks
        show that a parameter is wrong for all: none has a label, say.
    TableError
        If the table of ids cannot be read, or `meta.csv` is there and of another data set.
    OutputError
        If there is not enough free space for what is to be written.
    """
    _refuse_folder(p)
    _refuse_other_data_set(found, p)
    planned = _plan(found, p, show_progress)
    if not p.volumes:  # these have a preflight of their own
        first_look.refuse_useless(planned.pairs, planned.done, planned.todo, params.content(p))
    return planned


def _plan(found: Pairing, p: Preprocess | Extract, show_progress: bool) -> Plan:
    job = _job(p)
    wanted = frozenset(tables.read_ids(p.synapse_ids_path)) if p.synapse_ids_path else None
    pairs = pairing.select(found.pairs, wanted, p.max_chunks)
    done_state = record.done_state(job.folder)
    found = _asked_for(found, None if p.volumes else wanted, job.folder)  # else they alone were read
    refused = [*found.problems, *_claims(found), *_alike(pairs)]
    refused_ids = {problem.synapse_id for problem in refused}
    usable = [pair for pair in pairs if pair.synapse_id not in refused_ids]
    done = work.find_done(job, usable) if p.resume else {}
    rest = [pair for pair in usable if pair.synapse_id not in done]
    todo, unusable, n_bytes = _preflight(rest, job, show_progress)
    missing = _say_what_is_missing(found, wanted)
    n_not_found = len(missing - found.all_ids() - refused_ids)
    files.refuse_full_disk(job.folder, n_bytes)
    found_problems = (*refused, *unusable, *_unpaired(found))
    unpaired = {name: n for name in _UNPAIRED if (n := len(getattr(found, name)))}
    return Plan(tuple(pairs), done, tuple(todo), found_problems, done_state, unpaired, n_not_found)


def _asked_for(found: Pairing, wanted: frozenset[str] | None, folder: Path) -> Pairing:
    """What was found, without ids that were not asked for and without files of the run's own folder."""
    others = {
        name: tuple(path for path in getattr(found, name) if path.parent != folder)
        for name in ("passed_over", "hidden")
    }
    found = replace(found, **others)
    if wanted is None:
        return found
    asked = set(map(printable, wanted))
    by_id = {
        name: {key: paths for key, paths in getattr(found, name).items() if key in wanted}
        for name in ("em_only", "mask_only", "claimed_twice")
    }
    return replace(found, problems=tuple(one for one in found.problems if one.synapse_id in asked), **by_id)


def _refuse_folder(p: Preprocess) -> None:
    """Refuse a folder of a merged set or of raw pairs, and one where outputs would be found as inputs."""
    is_merged = "sources" in provenance.find_record(p.proc_data_path)
    if is_merged or os.path.exists(Path(p.proc_data_path, HIDDEN, _EXTRACT_MARK)):
        held = "a merged data set" if is_merged else "raw pairs that extract has made"
        raise ParameterError(f"proc_data_path {p.proc_data_path} holds {held}: set another folder")
    name = tables.filename("1", (2, 256, 256, 52))
    for kind in () if p.volumes else ("em", "mask"):
        folder, pattern = getattr(p, f"raw_{kind}_data_path"), getattr(p, f"{kind}_filename_pattern")
        is_inside = Path(os.path.realpath(p.proc_data_path)).is_relative_to(os.path.realpath(folder))
        if is_inside and pairing.read_id(name, pattern):
            raise ParameterError(
                f"proc_data_path {p.proc_data_path} must not be in raw_{kind}_data_path {folder}: "
                f"the next run would take outputs such as {name} for inputs"
            )


def _refuse_other_data_set(found: Pairing, p: Preprocess) -> None:
    """Refuse to replace a table that lists chunks which this input has never had."""
    ids = _listed_ids(p) if p.resume else set()
    strange = sorted(ids - found.all_ids())
    before, now = provenance.find_record(p.proc_data_path).get("parameters", {}), asdict(p)
    if strange and _source(before) != _source(now):
        raise TableError(
            f"{Path(p.proc_data_path, 'meta.csv')} seems to be of another data set: {len(strange)} of its "
            f"{len(ids)} chunks are not in {_source(now)[0]} ({listed(strange, 3)}); set another "
            "proc_data_path, or resume to false to move the old table aside"
        )


def _source(parameters: Mapping[str, Any]) -> list[str | None]:
    """Where a run took its chunks from."""
    if isinstance(volumes := parameters.get("volumes"), Mapping) and volumes:
        return [volumes.get("synapse_table")]
    return [parameters.get(name) for name in ("raw_em_data_path", "em_filename_pattern")]


def _listed_ids(p: Preprocess) -> set[str]:
    path = Path(p.proc_data_path, "meta.csv")
    try:
        return {*tables.read_table(path)["synapse_id"]} if os.path.exists(path) else set()
    except TableError as error:
        raise TableError(f"{error}; if it is moved away, it is written again from what is done") from error


def _claims(found: Pairing) -> list[Problem]:
    """Ids that several files claim, which are not paired; such as tensors of several runs among the EM."""
    claims = []
    for synapse_id, paths in found.claimed_twice.items():
        is_output = re.search(r"__\d+_\d+_\d+_\d+$", synapse_id)
        hint = "named as preprocess names tensors: move them out of the raw folder" if is_output else ""
        problem = Problem(kind="claimed by several files", file=listed(paths), detail=hint)
        claims.append(Pair(synapse_id, None).locate(problem, "pairing"))
    return claims


def _alike(pairs: Iterable[Pair]) -> list[Problem]:
    """Ids that differ only in case, which would share a file name on many file systems."""
    groups = defaultdict(list)
    for pair in pairs:
        groups[pair.synapse_id.casefold()].append(pair)
    found = []
    for group in (group for group in groups.values() if len(group) > 1):
        ids = listed(pair.synapse_id for pair in group)
        problem = Problem(kind="synapse ids differ only in case, so that files could be mixed up", detail=ids)
        found += [pair.locate(problem, "pairing") for pair in group]
    return found


def _unpaired(found: Pairing) -> Iterator[Problem]:
    """Warn of files without a partner, each, and of those that are neither EM nor mask, together."""
    where = lru_cache(shown)  # of each folder once, since there may be very many files
    known = {"severity": "warning", "stage": "pairing"}
    for name, role in (("em_only", "em_path"), ("mask_only", "mask_path")):
        for synapse_id, path in getattr(found, name).items():
            located = {role: printable(str(PurePosixPath(where(path.parent), path.name)))}
            located |= {"synapse_id": printable(synapse_id), "file": path.name}
            yield Problem(kind=_UNPAIRED[name], **located, **known)
    if found.passed_over:
        names = listed((path.name for path in found.passed_over), 3)
        said = f"{counted(len(found.passed_over), 'file')}: {names}"
        yield Problem(kind=_PASSED_OVER, file=said, **known)


def _preflight(pairs: Sequence[Pair], job: Job, show_progress: bool) -> tuple[list[Pair], list[Problem], int]:
    """Check headers: pairs that can be done, why others cannot, and how many bytes will be written."""
    memory = math.inf if job.p.scheduler else files.memory_bytes()
    check = partial(_check, p=job.p, longest=files.longest_name(job.folder), memory=memory)
    checked = execution.attempt_all(check, pairs, "Checking headers", show_progress, _N_THREADS)
    n_bytes, unusable, free = {}, [], files.free_bytes(job.folder)
    for pair, outcome in sorted(checked, key=lambda outcome: outcome[0].synapse_id):
        if isinstance(outcome, ChunkError):
            unusable.append(pair.locate(problems.of_error(outcome), "preflight"))
        else:
            n_bytes[pair] = outcome
    if any(n <= free for n in n_bytes.values()):  # else the disk is full, whatever the pairs are
        for pair in [pair for pair, n in n_bytes.items() if n > free]:
            found = f"{n_bytes.pop(pair) / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
            problem = Problem(kind="tensor does not fit on the disk", detail=found)
            unusable.append(pair.locate(problem, "preflight"))
    return [*n_bytes], unusable, sum(n_bytes.values())


def _check(pair: Pair, p: Preprocess | Extract, longest: int, memory: float) -> int:
    """Check a pair's id and headers, and that it can be held; return how many bytes will be written."""
    if {"/", "\\"} & {*pair.synapse_id}:
        raise ChunkError("synapse id would leave the output folder", pair.synapse_id)
    with pair.open() as raw:
        name, n_bytes, n_made = _output(raw, p)
        n_read = max(one.header.byte_range(*_bounds(raw.shape, p))[1] for one in (raw.em, raw.mask))
    files.refuse_name(name, longest)
    if n_read + n_made > memory:
        found = f"{(n_read + n_made) / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB"
        raise ChunkError("pair does not fit into memory", found)
    return n_bytes


def _output(raw: RawPair, p: Preprocess | Extract) -> tuple[str, int, int]:
    """Longest name of the files of a chunk, how many bytes they have, and how many are made in memory."""
    if isinstance(p, Extract):
        return chunk.raw_names(raw.synapse_id)[1], 2 * (_HEADER_BYTES + prod(raw.shape)), 0
    start, stop = _bounds(raw.shape, p)
    n_channels = len(p.output_channel_desc) + 1 if p.cut_intensity_with_seg_masks else 2
    shape_cxyz = n_channels, *raw.shape[:2], stop - start
    n_bytes = prod(shape_cxyz)
    name = tables.filename(raw.synapse_id, shape_cxyz)
    return name, _HEADER_BYTES + n_bytes, n_bytes + (stop - start) * _SECTION_BYTES


def _say_what_is_missing(found: Pairing, wanted: frozenset[str] | None) -> frozenset[str]:
    """Print which ids were asked for in vain; after the progress bar, which takes with it what was there."""
    missing = (wanted or frozenset()) - {composed(pair.synapse_id) for pair in found.pairs}
    if missing:
        print(f"{counted(len(missing), 'id')} of synapse_ids_path not paired: {listed(sorted(missing))}")
    return missing


@dataclass(frozen=True)
class Result:
    """What a run did.

    Parameters
    ----------
    meta, sections, sources : DataFrame or None
        As in `meta.csv`, `sections.csv` and `sources.csv`; None where such a run makes none.
    problems : tuple of Problem
        As in `problems.csv`.
    counts : dict of str to int
        Chunks that are paired, done (by this run), skipped (finished before), failed and warned of; and files
        that are em_only, mask_only or passed_over, and ids that are not_found, where there are any.
    inputs_hash : str
        SHA-256 of the input list: which files, of which size, make which chunk.
    notes : tuple of str
        Where the results are, and what a person should know besides.
    history : tuple of str
        What this run has moved aside, and which parameters made it do chunks again; the next one does not say
        it again.
    """

    meta: pd.DataFrame | None
    sections: pd.DataFrame | None
    sources: pd.DataFrame | None
    problems: tuple[Problem, ...]
    counts: dict[str, int]
    inputs_hash: str
    notes: tuple[str, ...]
    history: tuple[str, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Reason by synapse id for each chunk that could not be processed."""
        return problems.failures(self.problems)

    @property
    def tally(self) -> dict[str, int]:
        """What `params.conclude` says of the data set, or of the raw pairs."""
        warned = self.counts["warned"]
        not_found = {name: n for name, n in self.counts.items() if name == "not_found"}
        if self.meta is None:
            return {"cut": len(self.sources), "with_warnings": warned, **not_found}
        blanked = int((self.meta["n_cutout_sections"] > 0).sum())
        unpaired = self.counts.get("em_only", 0) + self.counts.get("mask_only", 0)
        known = {"with_warnings": warned, "with_blanked_sections": blanked, "unpaired": unpaired}
        return {"done": len(self.meta), **known, **not_found}

    def summary(self) -> pd.DataFrame:
        """Counts of the data set, the same whether the run did it all or resumed; index `what`."""
        counts = {
            "chunks paired": self.counts["paired"],
            "chunks processed": len(self.meta),
            "chunks failed": self.counts["failed"],
            "chunks with warnings": self.counts["warned"],
            "chunks with blanked sections": self.tally["with_blanked_sections"],
            "sections kept": len(self.sections),
            "sections blanked": int(self.sections["is_blanked"].sum()),
        }
        return pd.DataFrame({"count": counts}).rename_axis("what")


def run(plan: Plan, p: Preprocess | Extract, show_progress: bool = True) -> Result:
    """Do what is planned: write tensors, `meta.csv`, `sections.csv`, `problems.csv` and `run.json`.

    Each tensor is recorded when it is in place, so that a run that is killed can be resumed. If there is
    nothing to do, and `run.json` says all that it would, nothing is written. A `meta.csv` whose rows change
    other than by rows added at its end is kept under a numbered name; it is moved there before the first
    tensor that it lists is overwritten.

    Parameters
    ----------
    plan : Plan
        What to do.
    p : Preprocess or Extract
        The parameters of the plan.
    show_progress : bool
        Print a progress bar.

    Returns
    -------
    Result
        Tables, problems, counts and notes.

    Raises
    ------
    LockedError
        If another run is writing to the folder, or has done so since the plan was made.
    OutputError
        If the output cannot be written: a full disk, a quota, no permission.
    """
    started, job = provenance.now(), _job(p)
    with lock.locked(job.folder):
        if record.done_state(job.folder) != plan.done_state:
            raise LockedError(f"another run has written to {job.folder} in the meantime: run again")
        changed = _say_changed(plan, job)
        _prepare(plan, job)
        runs = volumes.runs(plan.todo) if p.volumes else [[pair] for pair in plan.todo]
        entries, failed = work.do(job, runs, plan.done, show_progress)
        result = _finish(plan, job, entries, failed, started)
        return replace(result, history=(*result.history, *changed))


def _say_changed(plan: Plan, job: Job) -> list[str]:
    """Say which parameters differ from those of the last run here, where anything is done because of it."""
    before = provenance.find_record(job.folder).get("parameters", {})
    now = files.plain(params.content(job.p))
    changed = [name for name in now if name in before and before[name] != now[name]]
    if not changed or not plan.todo or isinstance(job.p, Extract):
        return []
    texts = [f"{name} {now[name]}, before {before[name]}" for name in changed]
    return [f"done again, since parameters are not those of the last run: {listed(texts)}"]


def _prepare(plan: Plan, job: Job) -> None:
    """Make the folder ready for work, if there is any: a table that will not hold is moved aside."""
    if not plan.todo:
        return
    lock.sign(job.folder)
    work.tidy(job)
    if isinstance(job.p, Extract):
        (job.folder / HIDDEN / _EXTRACT_MARK).touch()
    elif not job.p.resume or not _listed_ids(job.p).isdisjoint(pair.synapse_id for pair in plan.todo):
        tables.set_aside(job.folder / "meta.csv")


def _finish(plan: Plan, job: Job, entries: dict[str, Entry], failed: list[Problem], started: str) -> Result:
    """Write the tables, where they changed, and say what a person should know."""
    found = _all_problems(plan, entries, failed)
    if plan.todo:
        for folder in job.folders[1:]:
            files.sync_folder(folder)
        record.sync_done(job.folder)
    made = _tables(job, entries, found)
    kept, is_changed = _save_tables(job, made)
    counts, inputs_hash = _counts(plan, found, len(failed)), _inputs_hash(plan.pairs, job.p)
    _save_run_json(job, counts, inputs_hash, started, is_changed)
    where = " and ".join(printable(shown(folder)) for folder in job.folders)
    notes = [f"{counted(len(entries), 'chunk')} finished", f"{job.product} are in {where}"]
    notes += [*_say_unpaired(plan), *_say_shapes(entries.values())]
    notes += _say_strangers(job, entries.values())
    meta, sections, sources = map(made.get, ("meta.csv", "sections.csv", "sources.csv"))
    return Result(meta, sections, sources, tuple(found), counts, inputs_hash, tuple(notes), tuple(kept))


def _all_problems(plan: Plan, entries: dict[str, Entry], failed: list[Problem]) -> list[Problem]:
    """Errors of the plan and of the work, and the warnings of finished chunks; in the order of ids."""
    by_id = {pair.synapse_id: pair for pair in plan.pairs}
    warnings = [
        by_id[synapse_id].locate(warning, "result")
        for synapse_id, entry in entries.items()
        for warning in entry.warnings
    ]
    return sorted([*plan.problems, *failed, *warnings], key=lambda one: one.synapse_id)


def _counts(plan: Plan, found: Sequence[Problem], n_failed_now: int) -> dict[str, int]:
    failed = {one.synapse_id for one in found if one.severity == "error"}
    warned = {one.synapse_id for one in found if one.severity == "warning" and one.stage != "pairing"}
    counts = {
        "paired": len(plan.pairs),
        "done": len(plan.todo) - n_failed_now,
        "skipped": len(plan.done),
        "failed": len(failed),
        "warned": len(warned),
    }
    counts |= {name: n for name, n in plan.unpaired.items() if name != "hidden"}
    return counts | ({"not_found": plan.n_not_found} if plan.n_not_found else {})


def _inputs_hash(pairs: Sequence[Pair], p: Preprocess | Extract) -> str:
    """SHA-256 over id, relative path and size of each file; the same where a data set was copied to.

    Of chunks that are cut from volumes, over the id and what they are cut by.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        known = [json.dumps(pair.state())] if p.volumes else _paths_and_sizes(pair, p)
        text = "".join(f"{pair.synapse_id}\t{one}\n" for one in known)
        digest.update(text.encode("utf-8", "backslashreplace"))  # a folder's name may be no text
    return digest.hexdigest()


def _paths_and_sizes(pair: Pair, p: Preprocess) -> Iterator[str]:
    folders = p.raw_em_data_path, p.raw_mask_data_path
    for path, folder, state in zip((pair.em_path, pair.mask_path), folders, pair.state(), strict=True):
        yield f"{path.relative_to(folder).as_posix()}\t{state and state[0]}"


def _tables(job: Job, entries: dict[str, Entry], found: Sequence[Problem]) -> dict[str, pd.DataFrame]:
    """Tables that such a run makes, by the names of their files."""
    make = {
        "meta.csv": lambda: tables.meta_table(entry.row for entry in entries.values()),
        "sections.csv": lambda: tables.sections_table({key: one.sections for key, one in entries.items()}),
        "problems.csv": lambda: problems.table(found),
        "sources.csv": lambda: tables.sources_table(entry.source for entry in entries.values()),
    }
    return {name: make[name]() for name in job.tables}


def _save_tables(job: Job, made: dict[str, pd.DataFrame]) -> tuple[list[str], bool]:
    """Write tables where they changed; say which was kept, and if any did."""
    contents = tables.contents(made | {"sources.csv": made.get("sources.csv")})
    if "meta.csv" in made:
        return tables.save_tables(job.folder, contents)
    changed = tables.differing(job.folder, contents)
    for name in changed:
        files.save_bytes(job.folder / name, contents[name])
    return [], bool(changed)


def _say_unpaired(plan: Plan) -> list[str]:
    """Say how many files are in no pair."""
    texts = [f"{n:,} {_UNPAIRED[name]}" for name, n in plan.unpaired.items()]
    return [f"files that are in no pair: {', '.join(texts)}"] if texts else []


def _say_shapes(entries: Iterable[Entry]) -> list[str]:
    """Say which shapes there are, if there are several, since a model is trained on one."""
    said = [tables.parsed_filename(entry.row["filename"]) for entry in entries]  # None, of raw pairs
    shapes = Counter(" x ".join(map(str, one[1])) for one in said if one)
    ordered = sorted(shapes.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{shape} ({counted(n, 'chunk')})" for shape, n in ordered]
    return [f"{len(shapes)} shapes (c, x, y, z): {listed(texts)}"] if len(shapes) > 1 else []


def _save_run_json(
    job: Job, counts: dict[str, int], inputs_hash: str, started: str, is_changed: bool
) -> None:
    """Write `run.json` if anything was done, or if what was there does not say the same; tidy up before."""
    run_json = {
        "parameters": asdict(job.p),
        **provenance.versions(),
        "counts": counts,
        "input_fingerprint": inputs_hash,
        "started": started,
        "ended": provenance.now(),
    }
    if counts["done"] or is_changed or not _is_recorded(job, run_json):
        work.tidy(job)
        files.save_json(job.folder / "run.json", run_json)


def _is_recorded(job: Job, run_json: dict[str, Any]) -> bool:
    """Whether `run.json` is there and says the same; an older version knew fewer parameters and counts."""
    before, now = provenance.lasting(provenance.find_record(job.folder)), provenance.lasting(run_json)
    counts = before.get("counts")
    if not isinstance(counts, dict):
        return False
    known = files.plain(asdict(type(job.p)())) | before["parameters"]
    before["parameters"] = {name: known[name] for name in now["parameters"]}
    before["counts"] = now["counts"] | {"finished": None} | counts
    return json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True)  # false is not 0


def _say_strangers(job: Job, entries: Iterable[Entry]) -> list[str]:
    """Say which arrays are of chunks that are gone; beside raw pairs there may be any."""
    if "meta.csv" not in job.tables:
        return []
    strangers = tables.unlisted_arrays(job.folder, (entry.row["filename"] for entry in entries))
    n_files = counted(len(strangers), "array file")
    return [f"{n_files} not in meta.csv, kept: {listed(strangers, 10)}"] if strangers else []


def extract(found: Pairing, p: Extract, show_progress: bool = True) -> Result:
    """Write whole chunks that are cut from volumes as raw pairs: npy files in Fortran order.

    Beside the EM files are `problems.csv`, `sources.csv` and `run.json`. A run that is stopped goes on, as
    that of `run` does; when nothing is left to do, nothing is written.

    Parameters
    ----------
    found : Pairing
        Synapses of the table, see `synprep.pairing.find`.
    p : Extract
        Parameters.
    show_progress : bool
        Print a progress bar.

    Returns
    -------
    Result
        Tables, problems, counts and notes.

    Raises
    ------
    PairingError
        If none of the ids of `synapse_ids_path` is in the table.
    OutputError
        If a folder holds npy files that extract has not made, or the output cannot be written.
    LockedError
        If another run is writing to the folder.
    """
    _refuse_foreign(_job(p))
    return run(_plan(found, p, show_progress=False), p, show_progress)


def _refuse_foreign(job: Job) -> None:
    """Refuse folders with arrays that are not of a run of extract."""
    foreign = [path for folder in job.folders for path in folder.glob("[!.]*.npy")]
    if foreign and not (job.folder / HIDDEN / _EXTRACT_MARK).exists():
        raise OutputError(
            f"{shown(foreign[0].parent)} holds npy files that extract has not made, such as "
            f"{foreign[0].name}: set raw_em_data_path and raw_mask_data_path to other folders"
        )


def verify_arrays(p: Preprocess) -> dict[str, str]:
    """Read every tensor again and compare it with the tables, if the parameter `verify` asks for it.

    Parameters
    ----------
    p : Preprocess
        Parameters of the run.

    Returns
    -------
    dict of str to str
        File name and problems by synapse id for each damaged tensor; empty if there is none.
    """
    if not p.verify:
        return {}
    data = dataset.load(p.proc_data_path)
    return verify.damaged(verify.check(data, n_workers=p.n_workers, scheduler=p.scheduler), data)


# What is done with a chunk


def _job(p: Preprocess | Extract) -> Job:
    """What is done with each chunk: a tensor is made of it, or a raw pair."""
    if isinstance(p, Extract):
        what, product, folders = "Extracting", "raw pairs", (p.raw_em_data_path, p.raw_mask_data_path)
        key, make, own_tables = f"extract {p.cutout_pixel_value}", _extract, ()
    else:
        what, product, folders = "Preprocessing", "tensors and tables", (p.proc_data_path,)
        key, make, own_tables = record.key_of(params.content(p)), _process, ("meta.csv", "sections.csv")
    return Job(
        p=p,
        what=what,
        product=product,
        folders=tuple(map(Path, folders)),
        tables=(*own_tables, "problems.csv", *(("sources.csv",) if p.volumes else ())),
        key=key,
        open=partial(_open, p=p),
        process=partial(make, p=p, key=key),
    )


def _open(pair: Pair, p: Preprocess | Extract) -> RawPair:
    """Open a pair when it begins to wait for a thread, and let the sections be fetched that will be kept."""
    raw = pair.open()
    for file in (raw.em, raw.mask):
        file.fetch(*_bounds(raw.shape, p))
    return raw


def _bounds(shape_xyz: tuple[int, int, int], p: Preprocess | Extract) -> tuple[int, int]:
    if isinstance(p, Extract):
        return 0, shape_xyz[2]
    return arrays.crop_bounds(shape_xyz[2], p.axial_to_sagittal_spacing, p.n_sections)


def _process(raw: RawPair, p: Preprocess, key: str) -> Entry:
    return chunk.process(raw, p.proc_data_path, key, **params.content(p))


def _extract(raw: RawPair, p: Extract, key: str) -> Entry:
    return chunk.extract(raw, (p.raw_em_data_path, p.raw_mask_data_path), key)
