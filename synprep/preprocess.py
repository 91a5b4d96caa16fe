"""A whole data set: raw pairs in, tensors and tables out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from synprep import chunk, demo, execution, pairing, storage, table
from synprep.errors import ChunkError, PairingError, counted, listed
from synprep.pairing import Pair, Pairing
from synprep.params import Preprocess
from synprep.paths import resolve, shown


@dataclass(frozen=True)
class Result:
    """What a run did.

    Parameters
    ----------
    meta : DataFrame
        As written to `meta.csv`.
    sections : DataFrame
        As written to `sections.csv`.
    failures : dict of str to str
        Reason by synapse id for each chunk that could not be processed.
    notes : tuple of str
        Where the results are, and what a person should know besides.
    """

    meta: pd.DataFrame
    sections: pd.DataFrame
    failures: dict[str, str]
    notes: tuple[str, ...]

    def summary(self) -> pd.DataFrame:
        """Counts of the run.

        Returns
        -------
        DataFrame
            Index: what is counted; column `count`.
        """
        blanked = self.sections["is_blanked"]
        counts = {
            "chunks processed": len(self.meta),
            "chunks failed": len(self.failures),
            "sections kept": len(self.sections),
            "sections blanked": int(blanked.sum()),
            "chunks with blanked sections": int((self.meta["n_cutout_sections"] > 0).sum()),
            "chunks without cleft": int((self.meta["synaptic_cleft_volume"] == 0).sum()),
        }
        return pd.DataFrame({"count": counts}).rename_axis("what")


def choose(found: Pairing, p: Preprocess) -> list[Pair]:
    """Take the pairs that the parameters ask for, and print which ids were asked for in vain.

    Parameters
    ----------
    found : Pairing
        All pairs.
    p : Preprocess
        Parameters; `synapse_ids_path` and `max_chunks` are read.

    Returns
    -------
    list of Pair
        Sorted by synapse id.

    Raises
    ------
    PairingError
        If none of the ids is paired, or if two ids would share a file name in the output folder because its
        file system ignores case.
    TableError
        If the table of ids cannot be read.
    """
    ids = storage.read_table(p.synapse_ids_path)["synapse_id"] if p.synapse_ids_path else None
    pairs = pairing.select(found.pairs, ids, p.max_chunks)
    vain = sorted(set() if ids is None else {*ids} - {pair.synapse_id for pair in found.pairs})
    if vain:
        print(f"{counted(len(vain), 'id')} of synapse_ids_path not paired: {listed(vain)}")
    alike = pairing.ids_that_differ_in_case(pairs)
    if alike and storage.ignores_case(p.proc_data_path):
        groups = listed(" and ".join(group) for group in alike)
        raise PairingError(f"{p.proc_data_path} ignores case, so these ids would share a file: {groups}")
    return pairs


def run(pairs: Sequence[Pair], p: Preprocess, show_progress: bool = True) -> Result:
    """Process raw pairs and write tensors, `meta.csv` and `sections.csv` into `proc_data_path`.

    A `meta.csv` that is there is moved aside before the first tensor is written, and kept under a numbered
    name if the new one differs.

    Parameters
    ----------
    pairs : sequence of Pair
        What to process.
    p : Preprocess
        Parameters.
    show_progress : bool
        Print a progress bar.

    Returns
    -------
    Result
        Tables, failures and notes.

    Raises
    ------
    OSError
        If the output folder cannot be written.
    """
    folder = Path(p.proc_data_path)
    previous = storage.move_aside(folder / "meta.csv")
    rows, section_tables, failures = [], [], {}
    for pair, result in execution.attempt_all(
        lambda pair: _process_and_save(pair, p), pairs, "Preprocessing", show_progress
    ):
        if isinstance(result, ChunkError):
            failures[pair.synapse_id] = str(result)
        else:
            rows.append(result[0])
            section_tables.append(result[1])
    meta, sections = table.meta_table(rows), table.sections_table(section_tables)
    storage.save_table(folder / "sections.csv", sections)
    storage.save_table(folder / "meta.csv", meta)
    notes = [f"{counted(len(meta), 'tensor')}, meta.csv and sections.csv are in {shown(folder)}"]
    notes += _settle_previous(previous, folder / "meta.csv")
    return Result(meta, sections, failures, tuple(notes))


def _process_and_save(pair: Pair, p: Preprocess) -> tuple[dict, pd.DataFrame]:
    """Process one chunk; only its rows stay in memory."""
    processed = chunk.process(pair, p)
    storage.save_array(Path(p.proc_data_path, processed.row["filename"]), processed.tensor_cxyz)
    return processed.row, processed.sections


def _settle_previous(previous: Path | None, meta_path: Path) -> list[str]:
    """Remove the table that was moved aside if the new one is the same, else say where it is."""
    if previous and previous.read_bytes() == meta_path.read_bytes():
        previous.unlink()
    elif previous:
        return [f"meta.csv differs from the one that was there, which is kept as {previous.name}"]
    return []


def make_demo_tables(meta_list: Sequence[str]) -> None:
    """Process the demonstration sets whose tables are asked for and missing.

    Parameters
    ----------
    meta_list : sequence of str
        Absolute paths of tables; those that are not of a demonstration set are left alone.
    """
    for name in demo.SETS:
        meta_path = resolve(f"data/{name}/processed/meta.csv")
        if meta_path in meta_list and not os.path.exists(meta_path):
            p = Preprocess(**demo.parameters(name))
            demo.make_missing(p, show_progress=False)
            run(pairing.find(p).pairs, p, show_progress=False)
