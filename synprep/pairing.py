"""Which EM file goes with which mask file, and what to say about the files that do not pair."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from synprep import volumes
from synprep._core.chunk import Pair, Pairing, sample
from synprep._core.errors import PairingError, listed, printable
from synprep.params import Chunks, Extract

__all__ = ["Pair", "Pairing", "find", "preflight", "read_id", "sample", "select"]


def read_id(filename: str, pattern: str) -> str | None:
    """Read the synapse id from a file name.

    Parameters
    ----------
    filename : str
        File name without folders.
    pattern : str
        File name with one ``{synapse_id}`` and any ``*``. Each ``*`` and the id stand for the shortest text
        that lets the whole pattern fit.

    Returns
    -------
    str or None
        The id; None if the name does not fit, or has bytes that are not text.

    Examples
    --------
    >>> read_id("data_MICrONS__L23__8_8_40__raw_1000379.npy", "*_raw_{synapse_id}.npy")
    '1000379'
    """
    expression = re.escape(pattern).replace(r"\*", ".*?").replace(re.escape("{synapse_id}"), "(.+?)")
    match = re.fullmatch(expression, filename, re.DOTALL)
    return match[1] if match and printable(filename) == filename else None


def find(sources: Chunks) -> Pairing:
    """Pair the EM and mask files of two folders.

    Both folders are walked with all folders inside them; they may be the same one. A file that fits the mask
    pattern is never taken for EM, unless both patterns are equal and the folders apart. Ids are text and
    compared exactly.

    Parameters
    ----------
    sources : Chunks
        A record with the two folders (absolute paths) and patterns. With an empty `raw_mask_data_path`
        every EM file makes a pair without mask.

    Returns
    -------
    Pairing
        At least one pair.

    Raises
    ------
    PairingError
        If a folder does not exist or cannot be read, or nothing pairs; with counts, example names, the ids
        read from them and the parameters to change.
    """
    if sources.volumes:
        return volumes.find(sources)
    patterns = sources.em_filename_pattern, sources.mask_filename_pattern
    em_files = _walk(sources.raw_em_data_path, patterns[:1])
    mask_files = _walk(sources.raw_mask_data_path, patterns[1:])
    mask_ids = {path: read_id(path.name, sources.mask_filename_pattern) for path in mask_files}
    em_ids = {path: _em_id(path.name, sources) for path in em_files}
    em, em_twice = _by_id(em_ids)
    mask, mask_twice = _by_id(mask_ids)
    twice = {key: em_twice.get(key, []) + mask_twice.get(key, []) for key in sorted({*em_twice, *mask_twice})}
    ids = sorted(em.keys() & mask.keys() if sources.raw_mask_data_path else em)
    pairing = Pairing(
        pairs=tuple(Pair(key, em[key], mask.get(key)) for key in ids if key not in twice),
        em_only={key: em[key] for key in sorted(em) if key not in {*ids, *mask, *twice}},
        mask_only={key: mask[key] for key in sorted(mask) if key not in {*em, *twice}},
        claimed_twice=twice,
        passed_over=tuple(sorted(_unread(em_ids, mask_ids))),
    )
    if not pairing.pairs:
        raise PairingError(_nothing_pairs(sources, em_ids, mask_ids, pairing))
    return pairing


def preflight(p: Chunks | Extract, found: Pairing) -> volumes.Preflight | None:
    """Compare a synapse table with its volumes before any work, see `synprep.volumes.preflight`.

    Parameters
    ----------
    p : record of a notebook
        Its output folder, if it has one, keeps the result.
    found : Pairing
        What `find` gave.

    Returns
    -------
    Preflight or None
        None where chunks are files. It shows itself at the end of a cell.

    Raises
    ------
    ParameterError
        If table and volumes do not fit together; with the likely cause.
    """
    if not p.volumes:
        return None
    folder = p.raw_em_data_path if isinstance(p, Extract) else getattr(p, "proc_data_path", "")
    return volumes.preflight(p, found, folder)


def _walk(folder: str, patterns: Sequence[str]) -> list[Path]:
    """All files below a folder, and folders with the name of a file; sorted; none for an empty name."""
    if folder and not os.path.isdir(folder):
        raise PairingError(f"there is no folder {folder}")
    found = []
    for top, folders, files in os.walk(folder, onerror=_raise_unreadable) if folder else []:
        named = [name for name in folders if any(read_id(name, pattern) for pattern in patterns)]
        found += [Path(top, name) for name in files + named]
    return sorted(found)


def _raise_unreadable(error: OSError) -> None:
    raise PairingError(f"{printable(str(error.filename))}: cannot be read: {error.strerror}") from error


def _em_id(filename: str, sources: Chunks) -> str | None:
    equal = sources.em_filename_pattern == sources.mask_filename_pattern
    is_mask = not equal and read_id(filename, sources.mask_filename_pattern)
    return None if is_mask else read_id(filename, sources.em_filename_pattern)


def _by_id(ids: dict[Path, str | None]) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Turn ids by path into paths by id, and all paths of ids that more than one path claims."""
    paths = defaultdict(list)
    for path, synapse_id in ids.items():
        if synapse_id is not None:
            paths[synapse_id].append(path)
    return {key: found[0] for key, found in paths.items()}, {k: v for k, v in paths.items() if len(v) > 1}


def _unread(em_ids: dict[Path, str | None], mask_ids: dict[Path, str | None]) -> set[Path]:
    read = {path for ids in (em_ids, mask_ids) for path, synapse_id in ids.items() if synapse_id is not None}
    return {*em_ids, *mask_ids} - read


def _nothing_pairs(sources: Chunks, em_ids: dict, mask_ids: dict, pairing: Pairing) -> str:
    """Say why nothing pairs and what to change."""
    lines = ["no EM file pairs with a mask file" if sources.raw_mask_data_path else "there is no EM file"]
    kinds = [("em", "EM", em_ids), ("mask", "mask", mask_ids)]
    for name, kind, ids in kinds if sources.raw_mask_data_path else kinds[:1]:
        pattern = getattr(sources, f"{name}_filename_pattern")
        n_fit = sum(synapse_id is not None for synapse_id in ids.values())
        lines.append(f"  {getattr(sources, f'raw_{name}_data_path')}: {len(ids)} files, ")
        lines[-1] += f"{n_fit} are {kind} by {name}_filename_pattern {pattern!r}"
        for path, synapse_id in sorted(ids.items(), key=lambda item: item[1] is None)[:2]:
            lines.append(
                f"    {printable(path.name)}: " + (f"id {synapse_id!r}" if synapse_id else "does not fit")
            )
    if pairing.claimed_twice:
        lines.append(f"  claimed by several files: {listed(pairing.claimed_twice)}")
    names = "raw_em_data_path, raw_mask_data_path, em_filename_pattern, mask_filename_pattern"
    return "\n".join([*lines, f"  change one of {names}"])


def select(
    pairs: Sequence[Pair], synapse_ids: Iterable[str] | None = None, max_chunks: int = 0
) -> list[Pair]:
    """Take the chunks that were asked for.

    Parameters
    ----------
    pairs : sequence of Pair
        Sorted by synapse id.
    synapse_ids : iterable of str, optional
        Ids to take; None takes all.
    max_chunks : int
        Take the first few only; 0 takes all.

    Returns
    -------
    list of Pair
        In the order of `pairs`.

    Raises
    ------
    PairingError
        If none of `synapse_ids` is among the pairs.
    """
    wanted = None if synapse_ids is None else set(synapse_ids)
    selected = [pair for pair in pairs if wanted is None or pair.synapse_id in wanted]
    if not selected:
        there = listed((pair.synapse_id for pair in pairs), 3)
        raise PairingError(
            f"none of the {len(wanted)} ids of synapse_ids_path ({listed(sorted(wanted), 3)}) is paired; "
            f"ids that are: {there}"
        )
    return selected[: max_chunks or None]
