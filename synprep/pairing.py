"""Which EM file goes with which mask file, and what to say about the files that do not pair."""

import errno
import heapq
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

from synprep import volumes
from synprep._core.chunk import Pair, Pairing, sample
from synprep._core.errors import PairingError, composed, counted, listed, printable
from synprep._core.paths import HIDDEN
from synprep._core.problems import Problem
from synprep.params import Chunks, Extract
from synprep.volumes import preflight

__all__ = ["Pair", "Pairing", "find", "preflight", "read_id", "sample", "select"]


# What systems put beside files, besides names with a dot: indices, trash, snapshots; in small letters.
_SYSTEM = {"@eadir", "__macosx", "$recycle.bin", "lost+found", "system volume information"}
_SYSTEM |= {"#recycle", "@recycle", "#snapshot", "~snapshot", "@recently-snapshot"}
_LEADS_NOWHERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)

Ids = dict[str, str | None]  # by path


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
        The id, in composed characters (NFC); None if the name does not fit.

    Examples
    --------
    >>> read_id("data_MICrONS__L23__8_8_40__raw_1000379.npy", "*_raw_{synapse_id}.npy")
    '1000379'
    """
    fullmatch, start, end = _matcher(pattern)
    name = composed(filename)
    match = fullmatch(name) if name.startswith(start) and name.endswith(end) else None
    return match[1] if match else None


@lru_cache
def _matcher(pattern: str) -> tuple[Callable[[str], re.Match | None], str, str]:
    """Match of a whole name, and how every name begins and ends that fits."""
    pattern = composed(pattern)
    expression = re.escape(pattern).replace(r"\*", ".*?").replace(re.escape("{synapse_id}"), "(.+?)")
    ends = re.split(r"\*|{synapse_id}", pattern)
    return re.compile(expression, re.DOTALL).fullmatch, ends[0], ends[-1]


def find(sources: Chunks | Extract) -> Pairing:
    """Pair the EM and mask files of two folders, or cut pairs from volumes.

    Both folders are walked with all folders inside them, each once, also those that links lead to; they may
    be the same one. Names that begin with a dot, and those of a system's own folders such as `lost+found`,
    are passed over. A file that fits the mask pattern is never taken for EM, unless both patterns are equal
    and the folders apart. Ids are text and compared exactly, in composed characters (NFC).

    Parameters
    ----------
    sources : Chunks or Extract
        A record with the two folders (absolute paths) and patterns, or with `volumes`: then see
        `synprep.volumes.find`. With an empty `raw_mask_data_path` every EM file makes a pair without mask.

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
    em_ids, em_hidden = _walk(sources.raw_em_data_path, partial(_em_id, sources=sources))
    read_mask_id = partial(read_id, pattern=sources.mask_filename_pattern)
    mask_ids, mask_hidden = _walk(sources.raw_mask_data_path, read_mask_id)
    em, mask = _by_id(em_ids), _by_id(mask_ids)
    twice = _claimed(em, mask)
    both = em.keys() & mask.keys() if sources.raw_mask_data_path else em.keys()
    pairs = [_pair(key, em, mask) for key in sorted(both - twice.keys())]
    em_only, mask_only = em.keys() - both - twice.keys(), mask.keys() - em.keys() - twice.keys()
    pairing = Pairing(
        pairs=tuple(pair for pair in pairs if _is_text(pair.synapse_id)),
        em_only={key: _path(em[key][0]) for key in sorted(em_only)},
        mask_only={key: _path(mask[key][0]) for key in sorted(mask_only)},
        claimed_twice=twice,
        passed_over=tuple(_sorted(_unread(em_ids, mask_ids))),
        problems=tuple(_odd(pair) for pair in pairs if not _is_text(pair.synapse_id)),
        hidden=tuple(_sorted({*em_hidden, *mask_hidden})),
    )
    if not pairing.pairs:
        raise PairingError(_nothing_pairs(sources, em_ids, mask_ids, pairing))
    return pairing


def _walk(top: str, read: Callable[[str], str | None]) -> tuple[Ids, list[str]]:
    """Read the ids of all files below a folder, and of folders with the name of a file; and what is hidden.

    What a run has left beside its record of what is done is neither.
    """
    if top and not os.path.isdir(top):
        raise PairingError(f"there is no folder {top}")
    ids, hidden = {}, []
    for entry, is_folder, is_ours in _below(top) if top else ():
        synapse_id = None if is_folder is None else read(entry.name)
        if synapse_id is not None:
            ids[entry.path] = synapse_id
        elif is_folder is None and not is_ours:
            hidden.append(entry.path)
        elif is_folder is False:
            if entry.is_symlink():
                _refuse_unreadable(entry.path)
            if not is_ours:
                ids[entry.path] = None
    return ids, hidden


def _below(top: str) -> Iterator[tuple[os.DirEntry, bool | None, bool]]:
    """All that is below a folder; whether it is one, and whether it is in one that a run has written to.

    What is hidden is None instead of a folder, and is not entered. Links to folders are followed after all
    else, so that every folder is walked once, and by its own path if it has one here; one that leads to a
    folder that it is in would only come back.
    """
    waiting, links, seen = [(top, os.path.realpath(top))], [], set()
    while waiting or links:
        folder, real = waiting.pop() if waiting else heapq.heappop(links)
        if real in seen:
            continue
        seen.add(real)
        is_ours = os.path.lexists(os.path.join(folder, HIDDEN))
        for entry in _entries(folder):
            is_folder = None if _is_hidden(entry.name) else _is_folder(entry)
            if is_folder and not _is_link(entry):
                waiting.append((entry.path, os.path.join(real, entry.name)))
            elif is_folder:
                target = os.path.realpath(entry.path)
                if not Path(real).is_relative_to(target):
                    heapq.heappush(links, (entry.path, target))
            yield entry, is_folder, is_ours


def _entries(folder: str) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise PairingError(f"{folder}: cannot be read: {error.strerror}") from error


def _is_hidden(name: str) -> bool:
    return name[0] == "." or name.lower() in _SYSTEM


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link, of which more is said where it is a chunk's
        return False


def _refuse_unreadable(link: str) -> None:
    """Raise an error if a link, for all that is known, leads to a folder."""
    try:
        os.stat(link)
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise PairingError(f"{link}: cannot be read: {error.strerror}") from error


def _is_link(entry: os.DirEntry) -> bool:
    return entry.is_symlink() or getattr(entry, "is_junction", bool)()


def _em_id(filename: str, sources: Chunks) -> str | None:
    equal = sources.em_filename_pattern == sources.mask_filename_pattern
    is_mask = not equal and read_id(filename, sources.mask_filename_pattern)
    return None if is_mask else read_id(filename, sources.em_filename_pattern)


def _by_id(ids: Ids) -> dict[str, list[str]]:
    """Turn ids by path into paths by id."""
    paths = defaultdict(list)
    for path, synapse_id in ids.items():
        if synapse_id is not None:
            paths[synapse_id].append(path)
    return dict(paths)


def _claimed(em: Mapping[str, list[str]], mask: Mapping[str, list[str]]) -> dict[str, list[Path]]:
    """Ids that several files of one kind claim, with these files."""
    several = defaultdict(list)
    for key, paths in chain(em.items(), mask.items()):
        if len(paths) > 1:
            several[key] += _sorted(paths)
    return dict(sorted(several.items()))


def _sorted(paths: Iterable[str]) -> list[Path]:
    """Paths in the order of their folders' names."""
    return [_path(path) for path in sorted(paths, key=lambda path: path.replace(os.sep, "\0"))]


def _path(path: str) -> Path:
    folder, _, name = path.rpartition(os.sep)
    return _folder(folder + os.sep) / name


_folder = lru_cache(Path)  # most of the time of many names would go into parsing that of their folder


def _pair(synapse_id: str, em: Mapping[str, list[str]], mask: Mapping[str, list[str]]) -> Pair:
    mask_path = _path(mask[synapse_id][0]) if synapse_id in mask else None
    return Pair(synapse_id, _path(em[synapse_id][0]), mask_path)


def _is_text(synapse_id: str) -> bool:
    return printable(synapse_id) == synapse_id


def _odd(pair: Pair) -> Problem:
    """Say of a pair that its id could not be written into a table, or not be read back."""
    detail = "control characters, or bytes that are not UTF-8: rename its files"
    problem = Problem(kind="synapse id is not plain text", file=printable(pair.name), detail=detail)
    return pair.locate(problem, "pairing")


def _unread(em_ids: Ids, mask_ids: Ids) -> list[str]:
    """Files that are neither EM nor mask, once each, whatever names links give to their folders."""
    real, read, unread = {}, set(), {}
    for path, synapse_id in chain(em_ids.items(), mask_ids.items()):
        folder, _, name = path.rpartition(os.sep)
        if folder not in real:
            real[folder] = os.path.realpath(folder + os.sep)
        if synapse_id is None:
            unread.setdefault((real[folder], name), path)
        else:
            read.add((real[folder], name))
    return [path for key, path in unread.items() if key not in read]


def _nothing_pairs(sources: Chunks, em_ids: Ids, mask_ids: Ids, pairing: Pairing) -> str:
    """Say why nothing pairs and what to change."""
    lines = ["no EM file pairs with a mask file" if sources.raw_mask_data_path else "there is no EM file"]
    kinds = [("em", "EM", em_ids), ("mask", "mask", mask_ids)]
    for name, kind, ids in kinds if sources.raw_mask_data_path else kinds[:1]:
        pattern = getattr(sources, f"{name}_filename_pattern")
        n_fit = sum(synapse_id is not None for synapse_id in ids.values())
        lines.append(f"  {getattr(sources, f'raw_{name}_data_path')}: {len(ids)} files, ")
        lines[-1] += f"{n_fit} are {kind} by {name}_filename_pattern {pattern!r}"
        for path, synapse_id in heapq.nsmallest(2, ids.items(), key=lambda item: (item[1] is None, item[0])):
            read = f"id {printable(synapse_id)!r}" if synapse_id else "does not fit"
            lines.append(f"    {printable(os.path.basename(path))}: {read}")
    if pairing.claimed_twice:
        lines.append(f"  claimed by several files: {listed(pairing.claimed_twice)}")
    lines += [f"  {one.text}" for one in pairing.problems[:3]]
    if pairing.hidden:
        names = listed((path.name for path in pairing.hidden), 3)
        lines.append(f"  {counted(len(pairing.hidden), 'hidden name')} passed over: {names}")
    if sources.raw_mask_data_path and (n_pairs := _n_exchanged(sources, em_ids, mask_ids)):
        folders = "raw_em_data_path and raw_mask_data_path seem to be exchanged"
        lines.insert(1, f"  {folders}: {counted(n_pairs, 'pair')} the other way round")
        return "\n".join(lines)
    names = "raw_em_data_path, raw_mask_data_path, em_filename_pattern, mask_filename_pattern"
    return "\n".join([*lines, f"  change one of {names}"])


def _n_exchanged(sources: Chunks, em_files: Iterable[str], mask_files: Iterable[str]) -> int:
    """How many ids would pair if each folder were the other one."""
    em = {_em_id(os.path.basename(path), sources) for path in mask_files}
    mask = {read_id(os.path.basename(path), sources.mask_filename_pattern) for path in em_files}
    return len((em & mask) - {None})


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
    wanted = None if synapse_ids is None else {composed(synapse_id) for synapse_id in synapse_ids}
    selected = [pair for pair in pairs if wanted is None or composed(pair.synapse_id) in wanted]
    if not selected:
        there = listed((pair.synapse_id for pair in pairs), 3)
        raise PairingError(
            f"none of the {len(wanted)} ids of synapse_ids_path ({listed(sorted(wanted), 3)}) is paired; "
            f"ids that are: {there}"
        )
    return selected[: max_chunks or None]
