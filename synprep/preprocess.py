"""A whole data set: raw pairs in, tensors and tables out; resumable, and never stopped by a bad chunk."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from synprep import chunk, execution, ledger, params, planning, storage, table
from synprep.errors import ChunkError, LockedError, counted, listed
from synprep.ledger import Entry
from synprep.pairing import Pair
from synprep.params import Preprocess
from synprep.paths import shown
from synprep.planning import Plan


@dataclass(frozen=True)
class Result:
    """What a run did.

    Parameters
    ----------
    meta, sections, problems : DataFrame
        As in `meta.csv`, `sections.csv` and `problems.csv`.
    counts : dict of str to int
        Chunks that are paired, done (by this run), skipped (finished before), failed and warned of.
    input_fingerprint : str
        See `synprep.ledger.fingerprint`.
    notes : tuple of str
        Where the results are, and what a person should know besides.
    """

    meta: pd.DataFrame
    sections: pd.DataFrame
    problems: pd.DataFrame
    counts: dict[str, int]
    input_fingerprint: str
    notes: tuple[str, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Reason by synapse id for each chunk that could not be processed."""
        errors = self.problems[self.problems["severity"] == "error"]
        return dict(zip(errors["synapse_id"], errors["problem"], strict=True))

    def summary(self) -> pd.DataFrame:
        """Counts of the data set; the same whether the run did it all or resumed.

        Returns
        -------
        DataFrame
            Index: what is counted; column `count`.
        """
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
    nothing to do, nothing is written. A `meta.csv` whose rows change other than by rows added at its end is
    kept under a numbered name; it is moved there before the first tensor that it lists is overwritten.

    Parameters
    ----------
    plan : Plan
        What to do, see `synprep.planning.make`.
    p : Preprocess
        The parameters of the plan.
    show_progress : bool
        Print a progress bar.

    Returns
    -------
    Result
        Tables, counts and notes.

    Raises
    ------
    LockedError
        If another run is writing to the folder, or has done so since the plan was made.
    OutputError
        If the output cannot be written: a full disk, a quota, no permission.
    """
    started, folder = ledger.now(), Path(p.proc_data_path)
    with ledger.locked(folder):
        if ledger.record_state(folder) != plan.record_state:
            raise LockedError(f"another run has written to {folder} in the meantime: run again")
        old = _prepare(plan, p)
        entries, problems = dict(plan.done), list(plan.problems)
        work = execution.attempt_all(
            partial(_process_and_save, p=p),
            plan.todo,
            "Preprocessing",
            show_progress,
            p.n_workers,
            p.scheduler,
            partial(chunk.expect, p=p),
        )
        for pair, outcome in work:
            if isinstance(outcome, ChunkError):
                problems.append(planning.problem_row(pair, "error", "processing", outcome.problem))
            else:
                ledger.append(folder, outcome)
                entries[pair.synapse_id] = outcome
        return _finish(plan, p, entries, problems, old, started)


def _prepare(plan: Plan, p: Preprocess) -> Path | None:
    """Make the folder ready for work, if there is any; return where the table went that will not hold."""
    folder = Path(p.proc_data_path)
    if not plan.todo:
        return None
    ledger.sign(folder)
    storage.clean_up(folder)
    ledger.tidy(folder)
    if p.resume and not _listed_ids(folder) & {pair.synapse_id for pair in plan.todo}:
        return None
    aside = storage.move_aside(folder / "meta.csv")
    for name in ("sections.csv", "run.json"):
        storage.remove(folder / name)
    return aside


def _listed_ids(folder: Path) -> set[str]:
    path = folder / "meta.csv"
    return {*storage.read_table(path)["synapse_id"]} if path.exists() else set()


def _process_and_save(pair: Pair, p: Preprocess) -> Entry:
    """Process one chunk and write its tensor; what is returned is small."""
    inputs = ledger.input_state(pair)
    processed = chunk.process(pair, p)
    path = Path(p.proc_data_path, processed.row["filename"])
    storage.save_array(path, processed.tensor_cxyz)
    output = ledger.file_state(path)
    key = ledger.key_of(params.content(p))
    return Entry(key, inputs, output, processed.row, processed.sections, processed.warnings)


def _finish(
    plan: Plan, p: Preprocess, entries: dict[str, Entry], problems: list, old: Path | None, started: str
) -> Result:
    """Write the tables, where they changed, and say what a person should know."""
    folder = Path(p.proc_data_path)
    by_id = {pair.synapse_id: pair for pair in plan.pairs}
    problems += [
        planning.problem_row(by_id[synapse_id], "warning", "result", warning)
        for synapse_id, entry in entries.items()
        for warning in entry.warnings
    ]
    tables = {
        "meta.csv": table.meta_table(entry.row for entry in entries.values()),
        "sections.csv": table.sections_table({key: entry.sections for key, entry in entries.items()}),
        "problems.csv": table.problems_table(problems),
    }
    contents = {name: storage.table_bytes(content) for name, content in tables.items()}
    notes, is_changed = storage.save_tables(folder, contents, old)
    counts = _counts(plan, tables["problems.csv"])
    fingerprint = ledger.fingerprint(plan.pairs, p)
    is_idle = counts["done"] == 0 and not is_changed
    if not is_idle:
        storage.clean_up(folder)  # of workers that died
        ledger.tidy(folder)
        storage.save_json(folder / "run.json", _provenance(p, counts, fingerprint, started))
    head = f"{counted(len(entries), 'chunk')} finished: {counts['done']} now, {counts['skipped']} before"
    head += "; nothing was left to do, nothing was written" if is_idle else ""
    notes = [
        head,
        f"tensors and tables are in {shown(folder)}",
        *notes,
        *_strangers(folder, tables["meta.csv"]),
    ]
    notes += shared_warnings(tables["problems.csv"], len(entries))
    return Result(*tables.values(), counts, fingerprint, tuple(notes))


def _counts(plan: Plan, problems: pd.DataFrame) -> dict[str, int]:
    severities = {name: set(rows["synapse_id"]) for name, rows in problems.groupby("severity")}
    n_failed = len(severities.get("error", ()))
    return {
        "paired": len(plan.pairs),
        "done": len(plan.todo) - sum(problems["stage"] == "processing"),
        "skipped": len(plan.done),
        "failed": n_failed,
        "warned": len(severities.get("warning", ())),
    }


def _strangers(folder: Path, meta: pd.DataFrame) -> list[str]:
    strangers = storage.unlisted_arrays(folder, meta["filename"])
    n_files = counted(len(strangers), "array file")
    return [f"{n_files} not in meta.csv, kept: {listed(strangers, 10)}"] if strangers else []


def shared_warnings(problems: pd.DataFrame, n_chunks: int) -> list[str]:
    """Say once what most chunks share, with the parameter to look at.

    Parameters
    ----------
    problems : DataFrame
        As in `problems.csv`.
    n_chunks : int
        Number of chunks that were processed.

    Returns
    -------
    list of str
        One text for each warning that more than half of the chunks have.
    """
    warnings = problems[problems["severity"] == "warning"]["problem"]
    texts = []
    for kind, same in warnings.groupby(warnings.map(planning.kind_of)):
        found = same.str.extract(r"labels found: (.*)\)")[0].dropna()
        values = sorted({value for text in found for value in text.split(", ")}, key=lambda v: (len(v), v))
        detail = f"; labels found: {listed(values, 10)}" if values else ""
        if 2 * len(same) > n_chunks:
            share = f"{len(same):,} of {counted(n_chunks, 'chunk')}"
            texts.append(f"{share}: {kind}{detail}: see {chunk.HINTS[kind]}")
    return texts


def _provenance(p: Preprocess, counts: dict[str, int], fingerprint: str, started: str) -> dict:
    return {
        "parameters": asdict(p),
        **ledger.versions(),
        "counts": counts,
        "input_fingerprint": fingerprint,
        "started": started,
        "ended": ledger.now(),
    }
