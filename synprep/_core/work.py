"""Work on the chunks of a run, each recorded when it is in place; the same for tensors and for raw pairs."""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synprep._core import chunk, execution, files, problems, record
from synprep._core.chunk import Pair, RawPair
from synprep._core.errors import ChunkError, FailedChunksError
from synprep._core.paths import HIDDEN
from synprep._core.problems import Problem
from synprep._core.stores import REFUSED
from synprep._core.tables import Entry

_N_IN_VAIN = 20  # chunks that fail for a reason that others share, and none that does not, end a run
_LOOK_AFTER_SECONDS = (0, 0.1, 0.4, 1.5)  # for what a worker of a cluster has written


@dataclass(frozen=True)
class Job:
    """What is done with each chunk, and where it goes; with a scheduler its functions must be picklable."""

    p: Any  # parameters of the notebook
    what: str  # for the progress bar
    product: str  # in words
    folders: tuple[Path, ...]  # of the arrays; tables and record are in the first
    tables: tuple[str, ...]  # names of their files; that of chunks is the first, if there is one
    key: str  # of the parameters that decide what is written
    open: Callable[[Pair], RawPair]
    process: Callable[[RawPair], Entry]

    @property
    def folder(self) -> Path:
        """Where the tables are, and the record of what is done."""
        return self.folders[0]

    def output_paths(self, entry: Entry) -> list[Path]:
        """Files of a finished chunk: a tensor, or EM and mask."""
        names = entry.row["filename"], chunk.raw_names(entry.synapse_id)[1]
        return [folder / name for folder, name in zip(self.folders, names, strict=False)]


def find_done(job: Job, pairs: Iterable[Pair]) -> dict[str, Entry]:
    """Record of the chunks whose parameters, inputs and output are those of the record."""
    entries = record.read_done(job.folder)
    known = {pair: entries[pair.synapse_id] for pair in pairs if pair.synapse_id in entries}
    return {
        pair.synapse_id: entry
        for pair, entry in known.items()
        if entry.key == job.key
        and entry.inputs == pair.state()
        and entry.outputs == [*map(files.state, job.output_paths(entry))]
    }


def tidy(job: Job) -> None:
    """Remove what killed runs, and workers that died, have left."""
    files.clean_up(*job.folders, job.folder / HIDDEN)
    record.tidy_done(job.folder)


def do(
    job: Job, runs: Iterable[list[Pair]], done: Mapping[str, Entry], show_progress: bool
) -> tuple[dict[str, Entry], list[Problem]]:
    """Do what is to be done, and record each chunk when it is; return what is finished, and what failed.

    A run of pairs is the task of one worker, if there is a cluster.
    """
    entries, failed = dict(done), []
    try:
        for pair, outcome in _outcomes(job, runs, len(done), show_progress):
            if isinstance(outcome, ChunkError):
                failed.append(pair.locate(problems.of_error(outcome), "processing"))
            else:
                record.append_done(job.folder, outcome)
                entries[pair.synapse_id] = outcome
            if len(failed) >= _N_IN_VAIN and len(entries) == len(done) and _is_shared(failed, job):
                raise FailedChunksError(_in_vain(failed))
    except KeyboardInterrupt:
        print("interrupted: what is finished is kept; the same command, or Run All, goes on", flush=True)
        raise
    return entries, failed


def _is_shared(failed: Sequence[Problem], job: Job) -> bool:
    """Whether errors are likely to be those of all chunks."""
    return bool(job.p.volumes) or all(one.kind == execution.NOT_SHARED for one in failed)


def _in_vain(failed: Sequence[Problem]) -> str:
    """Say why a run stops that a store answers with errors alone, or whose workers write elsewhere."""
    head = f"the first {len(failed)} chunks all failed, so the run stops; the same command goes on:"
    lines = [f"  {one.synapse_id}: {one.text}" for one in failed[:3]]
    is_refused = any(one.kind == REFUSED for one in failed)
    hint = ["  some buckets answer so for blocks that are absent (403)"] if is_refused else []
    return "\n".join([head, *lines, *hint])


def _outcomes(
    job: Job, runs: Iterable[list[Pair]], n_before: int, show_progress: bool
) -> Iterator[tuple[Pair, Entry | ChunkError]]:
    attempt = partial(execution.attempt_all, what=job.what, show=show_progress)
    if not job.p.scheduler:
        process, pairs = partial(_process, job=job), itertools.chain.from_iterable(runs)
        return attempt(process, pairs, n_workers=job.p.n_workers, prepare=job.open, n_before=n_before)
    n_before = 0 if job.p.volumes else n_before  # chunks; of volumes, runs are counted
    attempt = partial(attempt, partial(_process_run, job=job), scheduler=job.p.scheduler, n_before=n_before)
    return _outcomes_there(attempt, runs, partial(_look, job=job, strangers=set()))


def _process(raw: RawPair, job: Job) -> Entry:
    with raw:
        return job.process(raw)


# On a cluster


def _process_run(pairs: Sequence[Pair], job: Job) -> tuple[str, list[Entry | ChunkError]]:
    """Name of the worker that this is, and what became of each pair."""
    outcomes = [execution.attempt(lambda pair: _process(job.open(pair), job), pair) for pair in pairs]
    return execution.worker_name(), outcomes


def _outcomes_there(
    attempt: Callable, runs: Iterable[list[Pair]], look: Callable
) -> Iterator[tuple[Pair, Entry | ChunkError]]:
    """Work on runs of pairs; on the pairs of a run that kills its workers one by one."""
    alone = []
    for pairs, outcome in attempt(runs):
        if not isinstance(outcome, ChunkError):
            worker, outcomes = outcome
            yield from ((pair, look(pair, one, worker)) for pair, one in zip(pairs, outcomes, strict=True))
        elif len(pairs) == 1:
            yield pairs[0], outcome
        else:
            alone += [[pair] for pair in pairs]
    if alone:
        yield from _outcomes_there(attempt, alone, look)


def _look(
    pair: Pair, outcome: Entry | ChunkError, worker: str, job: Job, strangers: set[str]
) -> Entry | ChunkError:
    """Look whether files are here as a worker has left them; more than once, as networks lag.

    `strangers` are the workers that are known to see other files.
    """
    if isinstance(outcome, ChunkError):
        return outcome
    for seconds in (0,) if worker in strangers else _LOOK_AFTER_SECONDS:
        time.sleep(seconds)
        unseen = [one for one in _files(pair, outcome, job) if files.state(one[1]) != one[2]]
        if not unseen:
            return outcome
        with suppress(OSError):  # opening makes a network file system ask its server again
            os.scandir(unseen[0][1].parent).close()
            open(unseen[0][1], "rb").close()
    strangers.add(worker)
    verb, path, _ = unseen[0]
    return execution.not_shared(f"{verb} by the worker {worker}, not seen here", path)


def _files(pair: Pair, entry: Entry, job: Job) -> Iterator[tuple[str, Path, list[int]]]:
    """Files that were read or written for a chunk, and the state in which they were left."""
    if not job.p.volumes:
        yield from zip(("read", "read"), (pair.em_path, pair.mask_path), entry.inputs, strict=True)
    yield from (("written", *one) for one in zip(job.output_paths(entry), entry.outputs, strict=True))
