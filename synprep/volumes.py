"""Raw pairs that are cut from EM, segmentation and cleft volumes around the synapses of a table."""

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from synprep._core import cut, execution, problems, stores, synapse_table, tables, text_table
from synprep._core import preflight as _preflight
from synprep._core.chunk import Pairing, sample
from synprep._core.errors import PairingError, listed
from synprep._core.volume_settings import Settings, documentation, settings
from synprep.params import Extract

__all__ = ["Preflight", "Settings", "documentation", "find", "in_order", "preflight", "runs", "settings"]

_N_SAMPLED = 20
_CELL_NM, _BITS = 64, 21  # of the Morton order: 134 mm along each axis

Item = TypeVar("Item")


def find(p: Any) -> Pairing:
    """Read the synapse table that the parameter `volumes` names.

    Memory grows with the synapses that are asked for: by about 0.6 GB for a million.

    Parameters
    ----------
    p : record of a notebook
        With `volumes`; and with `synapse_ids_path`, where it takes that: only these ids are taken.

    Returns
    -------
    Pairing
        At least one pair; rows that cannot be used are its `problems`.

    Raises
    ------
    ParameterError
        If `volumes` is wrong, or does not fit the other parameters; see `settings`.
    TableError
        If the table cannot be trusted: a missing column, ids stored as floating point, rows with too many or
        too few fields, something else than comma-separated UTF-8 text; with the file and the line.
    PairingError
        If no row can be used, or none is asked for.
    """
    chosen = settings(p.volumes, p)
    ids_path = getattr(p, "synapse_ids_path", "")
    wanted = frozenset(tables.read_ids(ids_path)) if ids_path else None
    found = synapse_table.read(chosen, wanted)
    if not found.synapses:
        raise PairingError(_nothing_usable(found, wanted, chosen))
    cutout = getattr(p, "cutout_pixel_value", 0)
    pairs = tuple(cut.VolumePair(*synapse[:4], chosen, cutout) for synapse in found.synapses)
    return Pairing(pairs, {}, {}, {}, (), tuple(found.problems))


def _nothing_usable(found: synapse_table.Found, wanted: frozenset[str] | None, chosen: Settings) -> str:
    if found.problems:
        kinds = problems.grouped(found.problems)["chunks"].items()
        first = {one.kind: one.detail for one in reversed(found.problems)}
        lines = [f"  {kind}: {n:,}, such as {first[kind]}" for kind, n in kinds]
        return "\n".join([f"no row of {chosen.synapse_table} can be used:", *lines])
    if not found.some_ids:
        return f"{chosen.synapse_table} has no rows"
    return (
        f"none of the {len(wanted or ())} ids of synapse_ids_path ({listed(sorted(wanted or ()), 3)}) is in "
        f"{chosen.synapse_table}; ids that are in column {chosen.id_column!r}: {listed(found.some_ids)}"
    )


def in_order(pairs: Iterable[Item]) -> list[Item]:
    """Put neighbours one after another, so that a block of a volume is fetched about once.

    Parameters
    ----------
    pairs : iterable of pairs
        As `find` makes them: with `centre_nm` and `synapse_id`.

    Returns
    -------
    list of pairs
        Along a Morton curve through the centres, in steps of 64 nm; those at one place by synapse id.
    """
    pairs = sorted(pairs, key=lambda pair: pair.synapse_id)
    centres_nm = np.array([pair.centre_nm for pair in pairs]).reshape(-1, 3)
    cells = np.clip(np.floor(centres_nm / _CELL_NM) + 2 ** (_BITS - 1), 0, 2**_BITS - 1).astype(np.int64)
    codes = np.zeros(len(pairs), np.int64)
    for bit in range(_BITS):
        for axis in range(3):
            codes |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return [pairs[index] for index in np.argsort(codes, kind="stable")]


def runs(pairs: Iterable[Item], length: int = 50) -> list[list[Item]]:
    """Group neighbours, for tasks on a cluster whose workers share no memory.

    Parameters
    ----------
    pairs : iterable of pairs
        As `find` makes them.
    length : int
        Pairs in a run; the last one may be shorter.

    Returns
    -------
    list of list of pairs
        All pairs, in the order of `in_order`.
    """
    ordered = in_order(pairs)
    return [ordered[start : start + length] for start in range(0, len(ordered), length)]


@dataclass(frozen=True, repr=False)
class Preflight:
    """What the volumes are, and whether the synapse table fits them.

    Parameters
    ----------
    layers : list of dict
        For each layer: `layer`, `path`, `scale`, `voxel_size_nm`, `offset_nm`, `bounds_nm` (of x, y and z)
        and `centres_inside` (a share, 0..1).
    checks : dict of str to list of int
        How many synapses of the sample pass, and of how many that could be read, by check.
    warnings : list of str
        What a person should look at before the work begins.
    """

    layers: list[dict[str, Any]]
    checks: dict[str, list[int]]
    warnings: list[str]

    def __repr__(self) -> str:
        tables = self.as_table().T.to_string(), self.checks_table().to_string()
        return "\n\n".join([*tables, *self.warnings])

    def _repr_html_(self) -> str:
        """What Jupyter shows: a column per layer, a row per check, and warnings."""
        tables = text_table.as_html(self.as_table().T), text_table.as_html(self.checks_table())
        return "\n".join([*tables, *(f"<p>{html.escape(warning)}</p>" for warning in self.warnings)])

    def as_table(self) -> pd.DataFrame:
        """A row per layer for a person to read; paths inside the project are relative to it."""
        return pd.DataFrame(map(_shown_layer, self.layers)).set_index("layer")

    def checks_table(self) -> pd.DataFrame:
        """A row per check of the sample: columns `passed`, `of` and `share`."""
        rows = [(what, n, of, f"{100 * n / of:.0f} %") for what, (n, of) in self.checks.items()]
        return pd.DataFrame(rows, columns=["check", "passed", "of", "share"]).set_index("check")


def _shown_layer(layer: dict[str, Any]) -> dict[str, str]:
    bounds = zip("xyz", layer["bounds_nm"], strict=True)
    ranges = {f"{axis} (nm)": f"{low:,.0f} to {high:,.0f}" for axis, (low, high) in bounds}
    return {
        "layer": layer["layer"],
        "volume": stores.Source(layer["path"]).shown,
        "scale": layer["scale"],
        "voxel size (nm)": " x ".join(f"{size:g}" for size in layer["voxel_size_nm"]),
        "offset (nm)": ", ".join(f"{offset:g}" for offset in layer["offset_nm"]),
        **ranges,
        "centres inside": f"{100 * layer['centres_inside']:.1f} %",
    }


def preflight(p: Any, found: Pairing, show_progress: bool = True) -> Preflight | None:
    """See whether table and volumes fit together, before any work.

    All centres are compared with the bounds of the layers. For twenty synapses (those of `pairing.sample`
    with seed 0) the segmentation is read within 500 nm of the centre, and the cleft volume within 200 nm. The
    result is kept in the folder that the notebook writes chunks to, if it does, else in memory, and used
    again while table and layers are the same.

    Parameters
    ----------
    p : record of a notebook
        With `volumes`, which may be empty.
    found : Pairing
        What `find` gave.
    show_progress : bool
        Print a progress bar.

    Returns
    -------
    Preflight or None
        Tables, and warnings of shares under 80 %; it shows itself at the end of a cell. None where chunks are
        files.

    Raises
    ------
    ParameterError
        If no centre is inside a layer, or ids are never found; with the likely cause. If the EM is not uint8,
        or a volume cannot be used.
    ChunkError
        If a store does not answer.
    """
    if not p.volumes:
        return None
    layers = found.pairs[0].layers()
    folder = p.raw_em_data_path if isinstance(p, Extract) else getattr(p, "proc_data_path", "")
    key = _preflight.key_of(found.pairs, layers)
    result = _preflight.kept(folder, key)
    if result is None:
        sampled = sample(found.pairs, _N_SAMPLED, 0)
        result = _preflight.examine(found.pairs, sampled, layers, found.pairs[0].volumes, show_progress)
        _preflight.keep(folder, key, result)
    else:
        list(execution.track((), 0, "Preflight", show_progress))  # the same line as if it were done now
    return Preflight(**result)
