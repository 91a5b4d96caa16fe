"""A whole data set: raw pairs in, tensors and tables out; resumable, and never stopped by a bad chunk."""

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from math import prod
from operator import methodcaller
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
    "Extracted",
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
    """

    pairs: tuple[Pair, ...]
    done: dict[str, Entry]
    todo: tuple[Pair, ...]
    problems: tuple[Problem, ...]
    done_state: list[int] | None
    unpaired: dict[str, int] = field(default_factory=dict)


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
    pairs, wanted = _choose(found, p)
    _refuse_other_data_set(found, p)
    done_state = record.done_state(p.proc_data_path)
    found = _asked_for(found, wanted, p)
    usable, refused = _usable(found, pairs)
    done = work.find_done(_job(p), usable) if p.resume else {}
    rest = [pair for pair in usable if pair.synapse_id not in done]
    todo, unusable, n_bytes = _preflight(rest, p, show_progress)
    if rest and not todo and not done and not p.volumes:
        first_look.refuse_exchanged(rest[0])
    _say_what_is_missing(found, wanted)
    files.refuse_full_disk(p.proc_data_path, n_bytes)
    if todo and not p.volumes:  # these have a preflight of their own
        known = {*done, *(pair.synapse_id for pair in todo)}
        tried = (pair for pair in usable if pair.synapse_id in known)
        first_look.refuse_useless(tried, done, params.content(p))
    found_problems = (*refused, *unusable, *_unpaired(found))
    return Plan(tuple(pairs), done, tuple(todo), found_problems, done_state, _unpaired_counts(found))


def _choose(found: Pairing, p: Preprocess | Extract) -> tuple[list[Pair], frozenset[str] | None]:
    """Pairs that were asked for, and the ids that were."""
    wanted = frozenset(tables.read_ids(p.synapse_ids_path)) if p.synapse_ids_path else None
    return pairing.select(found.pairs, wanted, p.max_chunks), wanted


def _asked_for(found: Pairing, wanted: frozenset[str] | None, p: Preprocess) -> Pairing:
    """What was found, without ids that were not asked for and without files of the run's own folder."""
    others = {
        name: tuple(path for path in getattr(found, name) if os.path.dirname(path) != p.proc_data_path)
        for name in ("passed_over", "hidden")
    }
    found = replace(found, **others)
    if wanted is None or p.volumes:  # of a synapse table only rows that were asked for are read
        return found
    asked = set(map(printable, wanted))
    by_id = {
        name: {key: paths for key, paths in getattr(found, name).items() if key in wanted}
        for name in ("em_only", "mask_only", "claimed_twice")
    }
    return replace(found, problems=tuple(one for one in found.problems if one.synapse_id in asked), **by_id)


def _usable(found: Pairing, pairs: Iterable[Pair]) -> tuple[list[Pair], list[Problem]]:
    """Pairs whose ids stand for one chunk each, and what is wrong with the others."""
    refused = [*found.problems, *_claims(found), *_alike(pairs)]
    refused_ids = {problem.synapse_id for problem in refused}
    return [pair for pair in pairs if pair.synapse_id not in refused_ids], refused


def _refuse_folder(p: Preprocess) -> None:
    """Refuse a merged data set's folder, and one in which the walk for inputs would find outputs."""
    if "sources" in provenance.find_record(p.proc_data_path):
        raise ParameterError(f"proc_data_path {p.proc_data_path} holds a merged data set: set another folder")
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


def _job(p: Preprocess | Extract) -> Job:
    """What is done with each chunk."""
    workers = {"is_cut": bool(p.volumes), "n_workers": p.n_workers, "scheduler": p.scheduler}
    if isinstance(p, Extract):
        folders = Path(p.raw_em_data_path), Path(p.raw_mask_data_path)
        key, paths = f"extract {p.cutout_pixel_value}", partial(_extracted_paths, folders)
        process = partial(_extract, folders=folders, key=key)
        return Job("Extracting", folders, key, methodcaller("open"), process, paths, **workers)
    folder, key = Path(p.proc_data_path), record.key_of(params.content(p))
    process, paths = partial(_process, p=p, key=key), partial(_tensor_path, folder)
    return Job("Preprocessing", (folder,), key, partial(_open, p=p), process, paths, **workers)


def _open(pair: Pair, p: Preprocess) -> RawPair:
    """Open a pair when it begins to wait for a thread, and let the sections be fetched that will be kept."""
    raw = pair.open()
    raw.fetch(_bounds(raw.shape, p))
    return raw


def _process(raw: RawPair, p: Preprocess, key: str) -> Entry:
    return chunk.process(raw, p.proc_data_path, key, **params.content(p))


def _tensor_path(folder: Path, entry: Entry) -> tuple[Path]:
    return (folder / entry.row["filename"],)


def _extract(raw: RawPair, folders: tuple[Path, Path], key: str) -> Entry:
    return chunk.extract(raw, _extracted_paths(folders, raw), key)


def _extracted_paths(folders: tuple[Path, Path], one: Entry | Pair | RawPair) -> tuple[Path, Path]:
    return folders[0] / f"{one.synapse_id}.npy", folders[1] / f"{one.synapse_id}_mask.npy"


def _claims(found: Pairing) -> list[Problem]:
    """Ids that several files claim, which are not paired."""
    kind = "claimed by several files"
    return [
        Pair(synapse_id, None).locate(Problem(kind=kind, file=listed(paths)), "pairing")
        for synapse_id, paths in found.claimed_twice.items()
    ]


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

    def warn(kind: str, synapse_id: str, path: Path, role: str) -> Problem:
        known = {role: printable(str(PurePosixPath(where(path.parent), path.name)))}
        known |= {"synapse_id": printable(synapse_id), "stage": "pairing", "severity": "warning"}
        return Problem(kind=kind, file=path.name, **known)

    yield from (warn("EM without mask", *item, "em_path") for item in found.em_only.items())
    yield from (warn("mask without EM", *item, "mask_path") for item in found.mask_only.items())
    if found.passed_over:
        names = listed((path.name for path in found.passed_over), 3)
        files = f"{counted(len(found.passed_over), 'file')}: {names}"
        yield Problem(kind=_PASSED_OVER, file=files, severity="warning", stage="pairing")


def _unpaired_counts(found: Pairing) -> dict[str, int]:
    counts = {name: len(getattr(found, name)) for name in _UNPAIRED}
    return {name: n for name, n in counts.items() if n}


def _preflight(
    pairs: Sequence[Pair], p: Preprocess, show_progress: bool
) -> tuple[list[Pair], list[Problem], int]:
    """Check headers: pairs that can be done, why others cannot, and how many bytes will be written."""
    limits = {"longest": files.longest_name(p.proc_data_path), "memory": files.memory_bytes()}
    check = partial(_check, p=p, **(limits if not p.scheduler else limits | {"memory": math.inf}))
    checked = execution.attempt_all(check, pairs, "Checking headers", show_progress, _N_THREADS)
    n_bytes, unusable, free = {}, [], files.free_bytes(p.proc_data_path)
    for pair, outcome in sorted(checked, key=lambda outcome: outcome[0].synapse_id):
        if isinstance(outcome, ChunkError):
            unusable.append(pair.locate(problems.of_error(outcome), "preflight"))
        else:
            n_bytes[pair] = outcome
    if any(n <= free for n in n_bytes.values()):  # else the disk is full, whatever the pairs are
        for pair in [pair for pair, n in n_bytes.items() if n > free]:
            found = f"{n_bytes.pop(pair) / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
            unusable.append(
                pair.locate(Problem(kind="tensor does not fit on the disk", detail=found), "preflight")
            )
    return [*n_bytes], unusable, sum(n_bytes.values())


def _check(pair: Pair, p: Preprocess, longest: int, memory: float) -> int:
    """Check a pair's id and headers, and that it can be held; return how many bytes will be written."""
    if {"/", "\\"} & {*pair.synapse_id}:
        raise ChunkError("synapse id would leave the output folder", pair.synapse_id)
    with pair.open() as raw:
        shape_cxyz, start, stop = _output_shape(raw.shape, p), *_bounds(raw.shape, p)
        read = [
            (one.header, stop - start if one.header.is_fortran else raw.shape[2])
            for one in (raw.em, raw.mask)
        ]
    files.refuse_name(tables.filename(pair.synapse_id, shape_cxyz), longest)
    n_input = max(prod(raw.shape[:2]) * depth * header.dtype.itemsize for header, depth in read)
    n_needed = n_input + prod(shape_cxyz) + (stop - start) * _SECTION_BYTES
    if n_needed > memory:
        found = f"{n_needed / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB"
        raise ChunkError("pair does not fit into memory", found)
    return 128 + prod(shape_cxyz)


def _bounds(shape_xyz: tuple[int, int, int], p: Preprocess) -> tuple[int, int]:
    return arrays.crop_bounds(shape_xyz[2], p.axial_to_sagittal_spacing, p.n_sections)


def _output_shape(shape_xyz: tuple[int, int, int], p: Preprocess) -> tuple[int, int, int, int]:
    start, stop = _bounds(shape_xyz, p)
    n_channels = len(p.output_channel_desc) + 1 if p.cut_intensity_with_seg_masks else 2
    return n_channels, *shape_xyz[:2], stop - start


def _say_what_is_missing(found: Pairing, wanted: frozenset[str] | None) -> None:
    """Print which ids were asked for in vain; after the progress bar, which takes with it what was there."""
    missing = sorted((wanted or frozenset()) - {composed(pair.synapse_id) for pair in found.pairs})
    if missing:
        print(f"{counted(len(missing), 'id')} of synapse_ids_path not paired: {listed(missing)}")


@dataclass(frozen=True)
class Result:
    """What a run did.

    Parameters
    ----------
    meta, sections : DataFrame
        As in `meta.csv` and `sections.csv`.
    problems : tuple of Problem
        As in `problems.csv`.
    counts : dict of str to int
        Chunks that are paired, done (by this run), skipped (finished before), failed and warned of; and files
        that are em_only, mask_only or passed_over, where there are any.
    inputs_hash : str
        SHA-256 of the input list: which files, of which size, make which chunk.
    notes : tuple of str
        Where the results are, and what a person should know besides.
    """

    meta: pd.DataFrame
    sections: pd.DataFrame
    problems: tuple[Problem, ...]
    counts: dict[str, int]
    inputs_hash: str
    notes: tuple[str, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Reason by synapse id for each chunk that could not be processed."""
        return problems.failures(self.problems)

    @property
    def tally(self) -> dict[str, int]:
        """What `params.conclude` says of the data set."""
        blanked = int((self.meta["n_cutout_sections"] > 0).sum())
        unpaired = self.counts.get("em_only", 0) + self.counts.get("mask_only", 0)
        known = {"with_warnings": self.counts["warned"], "with_blanked_sections": blanked}
        return {"done": len(self.meta), **known, "unpaired": unpaired}

    def summary(self) -> pd.DataFrame:
        """Counts of the data set, the same whether the run did it all or resumed; index `what`."""
        counts = {
            "chunks paired": self.counts["paired"],
            "chunks processed": len(self.meta),
            "chunks failed": self.counts["failed"],
            "chunks with warnings": self.counts["warned"],
            "chunks with blanked sections": int((self.meta["n_cutout_sections"] > 0).sum()),
            "sections kept": len(self.sections),
            "sections blanked": int(self.sections["is_blanked"].sum()),
        }
        return pd.DataFrame({"count": counts}).rename_axis("what")


def run(plan: Plan, p: Preprocess, show_progress: bool = True) -> Result:
    """Do what is planned: write tensors, `meta.csv`, `sections.csv`, `problems.csv` and `run.json`.

    Each tensor is recorded when it is in place, so that a run that is killed can be resumed. If there is
    nothing to do, and `run.json` says all that it would, nothing is written. A `meta.csv` whose rows change
    other than by rows added at its end is kept under a numbered name; it is moved there before the first
    tensor that it lists is overwritten.

    Parameters
    ----------
    plan : Plan
        What to do.
    p : Preprocess
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
    started, folder = provenance.now(), Path(p.proc_data_path)
    with lock.locked(folder):
        if record.done_state(folder) != plan.done_state:
            raise LockedError(f"another run has written to {folder} in the meantime: run again")
        _prepare(plan, p)
        entries, failed = _do(plan, p, show_progress)
        return _finish(plan, p, entries, failed, started)


def _do(plan: Plan, p: Preprocess | Extract, show_progress: bool) -> tuple[dict[str, Entry], list[Problem]]:
    runs = volumes.runs(plan.todo) if p.volumes else [[pair] for pair in plan.todo]
    return work.do(_job(p), runs, plan.done, show_progress)


def _prepare(plan: Plan, p: Preprocess) -> None:
    """Make the folder ready for work, if there is any: a table that will not hold is moved aside."""
    folder = Path(p.proc_data_path)
    if not plan.todo:
        return
    lock.sign(folder)
    work.tidy(_job(p))
    if p.resume and not _listed_ids(p) & {pair.synapse_id for pair in plan.todo}:
        return
    files.move_aside(folder / "meta.csv")
    for name in ("sections.csv", "sources.csv", "run.json"):
        files.remove(folder / name)


def _finish(
    plan: Plan, p: Preprocess, entries: dict[str, Entry], failed: list[Problem], started: str
) -> Result:
    """Write the tables, where they changed, and say what a person should know."""
    folder = Path(p.proc_data_path)
    if plan.todo:
        record.sync_done(folder)
    found = _all_problems(plan, entries, failed)
    meta = tables.meta_table(entry.row for entry in entries.values())
    sections = tables.sections_table({key: entry.sections for key, entry in entries.items()})
    by_name = {"meta.csv": meta, "sections.csv": sections, "problems.csv": problems.table(found)}
    if p.volumes:
        by_name["sources.csv"] = tables.sources_table(entry.source for entry in entries.values())
    contents = tables.contents(by_name)
    kept, is_changed = tables.save_tables(folder, contents)
    counts, inputs_hash = _counts(plan, found, len(failed)), _inputs_hash(plan.pairs, p)
    _save_run_json(p, _provenance(p, counts, inputs_hash, started), is_changed)
    where = f"tensors and tables are in {printable(shown(folder))}"
    notes = [f"{counted(len(entries), 'chunk')} finished", where, *kept]
    notes += [*_say_unpaired(plan), *_say_shapes(entries.values())]
    notes += [*_strangers(folder, meta), *problems.shared(found, len(entries))]
    return Result(meta, sections, tuple(found), counts, inputs_hash, tuple(notes))


def _all_problems(plan: Plan, entries: dict[str, Entry], failed: list[Problem]) -> list[Problem]:
    """Errors of the plan and of the work, and the warnings of finished chunks; in the order of ids."""
    by_id = {pair.synapse_id: pair for pair in plan.pairs}
    warnings = [
        by_id[synapse_id].locate(warning, "result")
        for synapse_id, entry in entries.items()
        for warning in entry.warnings
    ]
    return sorted([*plan.problems, *failed, *warnings], key=lambda one: one.synapse_id)


def _counts(plan: Plan, found: Iterable[Problem], n_failed_now: int) -> dict[str, int]:
    found = list(found)
    counts = {
        "paired": len(plan.pairs),
        "done": len(plan.todo) - n_failed_now,
        "skipped": len(plan.done),
        "failed": len({one.synapse_id for one in found if one.severity == "error"}),
        "warned": len(
            {one.synapse_id for one in found if one.severity == "warning" and one.stage != "pairing"}
        ),
    }
    return counts | {name: n for name, n in plan.unpaired.items() if name != "hidden"}


def _inputs_hash(pairs: Sequence[Pair], p: Preprocess | Extract) -> str:
    """SHA-256 over id, relative path and size of each file; the same where a data set was copied to.

    Of chunks that are cut from volumes, over the id and what they are cut by.
    """
    digest = hashlib.sha256()
    if p.volumes:
        lines = (f"{pair.synapse_id}\t{json.dumps(pair.state())}\n" for pair in pairs)
        digest.update("".join(lines).encode())
        return digest.hexdigest()
    for pair in pairs:
        for path, folder in ((pair.em_path, p.raw_em_data_path), (pair.mask_path, p.raw_mask_data_path)):
            size = (files.state(path) or [None])[0]
            relative = Path(path).relative_to(folder).as_posix()
            line = f"{pair.synapse_id}\t{relative}\t{size}\n"
            digest.update(line.encode("utf-8", "backslashreplace"))  # a folder's name may be no text
    return digest.hexdigest()


def _provenance(p: Preprocess | Extract, counts: dict[str, int], inputs_hash: str, started: str) -> dict:
    return {
        "parameters": asdict(p),
        **provenance.versions(),
        "counts": counts,
        "input_fingerprint": inputs_hash,
        "started": started,
        "ended": provenance.now(),
    }


def _say_unpaired(plan: Plan) -> list[str]:
    """Say how many files are in no pair."""
    texts = [f"{n:,} {_UNPAIRED[name]}" for name, n in plan.unpaired.items()]
    return [f"files that are in no pair: {', '.join(texts)}"] if texts else []


def _say_shapes(entries: Iterable[Entry]) -> list[str]:
    """Say which shapes there are, if there are several, since a model is trained on one."""
    names = (entry.row["filename"].removeprefix(entry.synapse_id) for entry in entries)
    shapes = Counter(name.strip("_").removesuffix(".npy").replace("_", " x ") for name in names)
    ordered = sorted(shapes.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{shape} ({counted(n, 'chunk')})" for shape, n in ordered]
    return [f"{len(shapes)} shapes (c, x, y, z): {listed(texts)}"] if len(shapes) > 1 else []


def _save_run_json(p: Preprocess | Extract, run_json: dict[str, Any], is_changed: bool) -> None:
    """Write `run.json` if anything was done, or if what was there does not say the same; tidy up before."""
    job = _job(p)
    if run_json["counts"]["done"] or is_changed or not _is_recorded(p, run_json):
        work.tidy(job)
        files.save_json(job.folder / "run.json", run_json)


def _is_recorded(p: Preprocess | Extract, run_json: dict[str, Any]) -> bool:
    """Whether `run.json` is there and says the same; an older version knew fewer parameters and counts."""
    before, now = provenance.lasting(provenance.find_record(_job(p).folder)), provenance.lasting(run_json)
    usual = {"parameters": files.plain(asdict(type(p)())), "counts": now["counts"] | {"finished": None}}
    for name, values in usual.items():
        found = before.get(name)
        before[name] = values | found if isinstance(found, dict) else None
    if before["parameters"]:  # and others that this one does not know
        before["parameters"] = {key: before["parameters"][key] for key in now["parameters"]}
    return json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True)  # false is not 0


def _strangers(folder: Path, meta: pd.DataFrame) -> list[str]:
    strangers = tables.unlisted_arrays(folder, meta["filename"])
    n_files = counted(len(strangers), "array file")
    return [f"{n_files} not in meta.csv, kept: {listed(strangers, 10)}"] if strangers else []


@dataclass(frozen=True)
class Extracted:
    """What `extract` did.

    Parameters
    ----------
    sources : DataFrame
        As in `sources.csv`.
    problems : tuple of Problem
        As in `problems.csv`.
    counts : dict of str to int
        As those of `Result`.
    notes : tuple of str
        Where the pairs are, and what a person should know besides.
    """

    sources: pd.DataFrame
    problems: tuple[Problem, ...]
    counts: dict[str, int]
    notes: tuple[str, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Reason by synapse id for each chunk that could not be cut."""
        return problems.failures(self.problems)

    @property
    def tally(self) -> dict[str, int]:
        """What `params.conclude` says of the pairs."""
        return {"cut": len(self.sources), "with_warnings": self.counts["warned"]}


def extract(found: Pairing, p: Extract, show_progress: bool = True) -> Extracted:
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
    Extracted
        Tables, counts and notes.

    Raises
    ------
    PairingError
        If none of the ids of `synapse_ids_path` is in the table.
    OutputError
        If a folder holds npy files that extract has not made, or the output cannot be written.
    LockedError
        If another run is writing to the folder.
    """
    started, job = provenance.now(), _job(p)
    pairs, wanted = _choose(found, p)
    usable, refused = _usable(found, pairs)
    usable, unnamed = _named(usable, job)
    _say_what_is_missing(found, wanted)
    with lock.locked(job.folder):
        _refuse_foreign(job)
        done = work.find_done(job, usable) if p.resume else {}
        todo = tuple(pair for pair in usable if pair.synapse_id not in done)
        n_voxels = prod(todo[0].volumes.chunk_shape) if todo else 0
        files.refuse_full_disk(job.folder, 2 * len(todo) * (128 + n_voxels))
        plan = Plan(tuple(pairs), done, todo, (*refused, *unnamed), None)
        if todo:
            lock.sign(job.folder)
            work.tidy(job)
        entries, failed = _do(plan, p, show_progress)
        return _finish_extracting(plan, p, entries, failed, started)


def _named(pairs: Iterable[Pair], job: Job) -> tuple[list[Pair], list[Problem]]:
    """Pairs whose ids make names of files, and why the others do not."""
    named, problems_found, longest = [], [], files.longest_name(job.folder)
    for pair in pairs:
        try:
            files.refuse_name(job.output_paths(pair)[1].name, longest)
            named.append(pair)
        except ChunkError as error:
            problems_found.append(pair.locate(problems.of_error(error), "preflight"))
    return named, problems_found


def _refuse_foreign(job: Job) -> None:
    """Refuse folders with arrays that are not of a run of extract; leave the mark of one."""
    mark = job.folder / HIDDEN / _EXTRACT_MARK
    foreign = [path for folder in job.folders for path in folder.glob("[!.]*.npy")]
    if foreign and not mark.exists():
        raise OutputError(
            f"{shown(foreign[0].parent)} holds npy files that extract has not made, such as "
            f"{foreign[0].name}: set raw_em_data_path and raw_mask_data_path to other folders"
        )
    if not mark.exists():
        mark.touch()


def _finish_extracting(
    plan: Plan, p: Extract, entries: dict[str, Entry], failed: list[Problem], started: str
) -> Extracted:
    folder, found = _job(p).folder, _all_problems(plan, entries, failed)
    if plan.todo:
        files.sync_folder(p.raw_mask_data_path)
        record.sync_done(folder)
    sources = tables.sources_table(entry.source for entry in entries.values())
    by_name = {"sources.csv": sources, "problems.csv": problems.table(found)}
    contents = tables.contents(by_name)
    changed, counts = tables.differing(folder, contents), _counts(plan, found, len(failed))
    for name in changed:
        files.save_bytes(folder / name, contents[name])
    run_json = _provenance(p, counts, _inputs_hash(plan.pairs, p), started)
    _save_run_json(p, run_json, bool(changed))
    where = f"{shown(p.raw_em_data_path)} and {shown(p.raw_mask_data_path)}"
    notes = [f"{counted(len(entries), 'chunk')} finished", f"raw pairs are in {where}"]
    return Extracted(sources, tuple(found), counts, (*notes, *problems.shared(found, len(entries))))


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
