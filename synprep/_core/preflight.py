"""Do a synapse table and its volumes fit together? What centres, and a few synapses, tell before any work."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from synprep._core import execution, files
from synprep._core.cut import VolumePair
from synprep._core.errors import ChunkError, ParameterError, counted, listed
from synprep._core.layers import Layer
from synprep._core.paths import HIDDEN
from synprep._core.stores import Triple
from synprep._core.volume_settings import Settings

_NEURON_NM, _CLEFT_NM = 500, 200  # how far from the centre to look
PRE, POST = f"presynaptic id within {_NEURON_NM} nm", f"postsynaptic id within {_NEURON_NM} nm"
CLEFT = f"cleft within {_CLEFT_NM} nm"
_ENOUGH = 0.8  # a smaller share gets a warning
_FEW = 5  # synapses; from here on it is an error if one side alone is never found
_USUAL_UNITS_NM = ((1.0, 1.0, 1.0), (4.0, 4.0, 40.0), (8.0, 8.0, 40.0))
_N_THREADS = 8  # that wait for the stores
_NAME, _VERSION = "preflight.json", 1
_in_memory: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class _Near:
    """Ids around the centre of a synapse, without 0."""

    synapse: VolumePair
    neurons: frozenset[int]
    clefts: frozenset[int] = frozenset()

    @property
    def asked(self) -> tuple[int, int]:
        """Ids of the table."""
        return self.synapse.pre_id, self.synapse.post_id


def examine(
    synapses: Sequence[VolumePair],
    sample: Sequence[VolumePair],
    layers: Mapping[str, Layer],
    chosen: Settings,
    show: bool,
) -> dict[str, Any]:
    """Compare all centres, and the ids of a sample, with `layers`: "em", "segmentation", perhaps "cleft".

    Returns `layers`, a row for each; `checks`, how many of the sample pass each, and of how many; `warnings`.
    Raises a ParameterError that names the likely cause if they do not fit, a ChunkError if nothing can be
    read.
    """
    centres_nm = np.array([synapse.centre_nm for synapse in synapses])
    rows = [_row(name, layer, centres_nm) for name, layer in layers.items()]
    warnings = [f"{name}: {layer.warning}" for name, layer in layers.items() if layer.warning]
    warnings += [_outside(row, layers, centres_nm, chosen) for row in rows if row["centres_inside"] < _ENOUGH]
    near, failed = _look(sample, layers, show)
    checks = _checks(near, "cleft" in layers)
    _refuse_strangers(near, checks, layers, chosen)
    warnings += [f"{what}: only {n} of {of}" for what, (n, of) in checks.items() if n < _ENOUGH * of]
    if failed:
        warnings.append(f"{len(failed)} of {counted(len(sample), 'synapse')} could not be read: {failed[0]}")
    return {"layers": rows, "checks": checks, "warnings": warnings}


# Where the layers are


def _are_inside(layer: Layer, points_nm: np.ndarray) -> np.ndarray:
    start, stop = np.transpose(layer.bounds_nm)
    return ((points_nm >= start) & (points_nm < stop)).all(axis=-1)


def _row(name: str, layer: Layer, centres_nm: np.ndarray) -> dict[str, Any]:
    names = ("path", "scale", "voxel_size_nm", "offset_nm", "bounds_nm")
    where = {one: getattr(layer, one) for one in names}
    return files.plain({"layer": name, **where, "centres_inside": _are_inside(layer, centres_nm).mean()})


def _outside(
    row: Mapping[str, Any], layers: Mapping[str, Layer], centres_nm: np.ndarray, chosen: Settings
) -> str:
    """Warning of a layer that holds too few centres; an error if it holds none."""
    name, share = row["layer"], row["centres_inside"]
    others = [
        f"with centre_unit_nm {_text(unit)}: {_are_inside(layers[name], moved_nm).mean():.0%}"
        for unit, moved_nm in _other_units(centres_nm, layers["em"], chosen)
    ]
    if share == 0:
        raise ParameterError(_nothing_inside(name, layers[name], centres_nm, chosen, others))
    return f"{name}: only {share:.1%} of the centres are inside ({'; '.join(others)})"


def _other_units(centres_nm: np.ndarray, em: Layer, chosen: Settings) -> Iterator[tuple[Triple, np.ndarray]]:
    """Units that a table could be in, and where the centres would be with each."""
    units = dict.fromkeys([*_USUAL_UNITS_NM, tuple(map(float, em.voxel_size_nm))])
    for unit in units:
        if unit != tuple(chosen.centre_unit_nm):
            yield unit, centres_nm / chosen.centre_unit_nm * unit


def _nothing_inside(
    name: str, layer: Layer, centres_nm: np.ndarray, chosen: Settings, others: Sequence[str]
) -> str:
    extent = np.transpose([centres_nm.min(axis=0), centres_nm.max(axis=0)]).tolist()
    lines = [
        f"none of the {counted(len(centres_nm), 'centre')} is inside {name} ({layer.path}):",
        f"  {name} covers {_box(layer.bounds_nm)} nm;",
        f"  with centre_unit_nm {_text(chosen.centre_unit_nm)} the centres are at {_box(extent)} nm.",
        "  Shares that other units would put inside:",
        *(f"    {other}" for other in others),
        f"  If none fits: is centre_unit_nm another one, is {name} of another data set, or are its "
        "voxel_size_nm and offset_nm wrong?",
    ]
    return "\n".join(lines)


def _box(bounds_nm: Iterable[Sequence[float]]) -> str:
    axes = zip("xyz", bounds_nm, strict=True)
    return ", ".join(f"{axis} {low:,.0f} to {high:,.0f}" for axis, (low, high) in axes)


def _text(values: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


# What is around the centres


def _look(
    sample: Sequence[VolumePair], layers: Mapping[str, Layer], show: bool
) -> tuple[list[_Near], list[ChunkError]]:
    """Read around each centre; what cannot be read is told apart, and an error if nothing can."""
    outcomes = execution.attempt_all(partial(_near, layers=layers), sample, "Preflight", show, _N_THREADS)
    near, failed = [], []
    for _, outcome in sorted(outcomes, key=lambda one: one[0].synapse_id):
        (failed if isinstance(outcome, ChunkError) else near).append(outcome)
    if not near:
        raise failed[0]
    return near, failed


def _near(synapse: VolumePair, layers: Mapping[str, Layer]) -> _Near:
    neurons = _ids_near(layers["segmentation"], synapse.centre_nm, _NEURON_NM)
    if "cleft" not in layers:
        return _Near(synapse, neurons)
    return _Near(synapse, neurons, _ids_near(layers["cleft"], synapse.centre_nm, _CLEFT_NM))


def _ids_near(layer: Layer, centre_nm: Sequence[float], radius_nm: float) -> frozenset[int]:
    """Ids, without 0, of voxels whose centres are within a radius of a point."""
    size, offset, centre = (np.array(one, float) for one in (layer.voxel_size_nm, layer.offset_nm, centre_nm))
    start = np.maximum(np.floor((centre - radius_nm - offset) / size), 0).astype(int)
    stop = np.minimum(np.ceil((centre + radius_nm - offset) / size), layer.shape_xyz).astype(int)
    if (start >= stop).any():
        return frozenset()
    values_xyz, _ = layer.read(tuple(start.tolist()), tuple(stop.tolist()), 0)
    grid = np.ogrid[tuple(map(slice, start, stop))]
    squares = [
        (offset[axis] + (grid[axis] + 0.5) * size[axis] - centre[axis]) ** 2
        for axis in range(values_xyz.ndim)
    ]
    near = values_xyz[sum(squares) <= radius_nm**2]
    return frozenset(pd.unique(near).tolist()) - {0}


def _checks(near: Sequence[_Near], has_clefts: bool) -> dict[str, list[int]]:
    """How many synapses pass each check, and of how many."""
    passed = {
        PRE: sum(one.synapse.pre_id in one.neurons for one in near),
        POST: sum(one.synapse.post_id in one.neurons for one in near),
    }
    passed |= {CLEFT: sum(bool(one.clefts) for one in near)} if has_clefts else {}
    return {what: [n, len(near)] for what, n in passed.items()}


# Why ids are never found


def _refuse_strangers(
    near: Sequence[_Near], checks: Mapping[str, Sequence[int]], layers: Mapping[str, Layer], chosen: Settings
) -> None:
    never = [what for what in (PRE, POST) if checks[what][0] == 0]
    if len(never) == 2 or (never and len(near) >= _FEW):
        head = f"{' and '.join(never)}: of none of the {counted(len(near), 'synapse')} looked at"
        lines = [f"{head}, in segmentation {layers['segmentation'].path}. Likely causes:"]
        raise ParameterError("\n".join([*lines, *(f"  {cause}" for cause in _causes(near, layers, chosen))]))


def _causes(near: Sequence[_Near], layers: Mapping[str, Layer], chosen: Settings) -> list[str]:
    """Likely causes, those that can be shown first; the last resort is another version."""
    shown = [
        *_wrong_unit(near, layers, chosen),
        *_wrong_prefix(near, chosen),
        *_wrong_layer(near),
        *_too_narrow(near, layers["segmentation"]),
    ]
    if shown:
        return shown
    there = sorted(set().union(*(one.neurons for one in near)))
    if not there:
        return [
            "segmentation is empty (0) around all centres: is centre_unit_nm right, and are the volume's "
            "voxel_size_nm and offset_nm?"
        ]
    asked = [neuron for one in near for neuron in one.asked]
    return [
        f"the segmentation is of another version than the table (asked for {listed(asked, 3)}; there are "
        f"{listed(there, 3)})",
        f"pre_id_column {chosen.pre_id_column!r} or post_id_column {chosen.post_id_column!r} holds ids of "
        "something else, such as supervoxels",
        "ids were rounded before they came into the table: by a spreadsheet, or as floating point",
    ]


def _n_known(near: Iterable[_Near]) -> int:
    return sum(not one.neurons.isdisjoint(one.asked) for one in near)


def _wrong_unit(near: Sequence[_Near], layers: Mapping[str, Layer], chosen: Settings) -> Iterator[str]:
    """Look again where the centres would be with other units."""
    centres_nm = np.array([one.synapse.centre_nm for one in near])
    for unit, moved_nm in _other_units(centres_nm, layers["em"], chosen):
        again = []
        for one, centre_nm in zip(near, moved_nm, strict=True):
            with suppress(ChunkError):
                again.append(_Near(one.synapse, _ids_near(layers["segmentation"], centre_nm, _NEURON_NM)))
        if _n_known(again) > max(_n_known(near), len(near) // 2):
            found = f"ids of {_n_known(again)} of {len(near)} are found with {_text(unit)}"
            yield f"centre_unit_nm {_text(chosen.centre_unit_nm)} is not the table's unit: {found}"


def _wrong_prefix(near: Sequence[_Near], chosen: Settings) -> Iterator[str]:
    """Look for ids that end as those of the table, or for those without the prefix that was put before."""
    asked = [(str(neuron), one.neurons) for one in near for neuron in one.asked]
    longer = [
        there.removesuffix(neuron)
        for neuron, neurons in asked
        for there in map(str, neurons)
        if there.endswith(neuron) and there != neuron
    ]
    shorter = [neuron for neuron, neurons in asked if int(neuron.removeprefix(chosen.id_prefix)) in neurons]
    prefix = max(longer, key=longer.count, default="")
    if longer.count(prefix) > len(near) // 2:
        yield f'a prefix was cut off the ids of the table: set id_prefix to "{prefix}{chosen.id_prefix}"'
    if chosen.id_prefix and len(shorter) > len(near) // 2:
        yield f'id_prefix "{chosen.id_prefix}" is put before ids that are whole: set it to ""'


def _wrong_layer(near: Sequence[_Near]) -> Iterator[str]:
    if _n_known(_Near(one.synapse, one.clefts) for one in near) > len(near) // 2:
        yield "segmentation and cleft are exchanged: the ids are in the cleft volume"


def _too_narrow(near: Sequence[_Near], layer: Layer) -> Iterator[str]:
    largest = max(max(one.asked) for one in near)
    if np.dtype(layer.dtype).kind != "b" and largest > np.iinfo(layer.dtype).max:
        yield f"segmentation holds {layer.dtype}, which cannot hold an id such as {largest}"


# The result is kept


def key_of(synapses: Iterable[VolumePair], layers: Mapping[str, Layer]) -> str:
    """Key of a table's rows and of layers, equal while they are the same."""
    digest = hashlib.sha256(json.dumps([_VERSION, [[n, one.identity] for n, one in layers.items()]]).encode())
    for one in synapses:
        digest.update(f"{one.synapse_id}\t{one.centre_nm}\t{one.pre_id}\t{one.post_id}\n".encode())
    return digest.hexdigest()


def kept(folder: str | os.PathLike, key: str) -> dict[str, Any] | None:
    """Result that was kept in an output folder (none: in memory) under this key."""
    if key in _in_memory:
        return _in_memory[key]
    with suppress(OSError, ValueError, KeyError):
        found = files.read_json(Path(folder, HIDDEN, _NAME)) if folder else {}
        result = {name: found[name] for name in ("layers", "checks", "warnings")}
        if (found["key"], found["check"]) == (key, _check_sum(result)):
            return result
    return None


def _check_sum(result: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result).encode()).hexdigest()[:16]


def keep(folder: str | os.PathLike, key: str, result: dict[str, Any]) -> None:
    """Keep a result in an output folder, or in memory where there is none."""
    if folder:
        kept_result = {"key": key, "check": _check_sum(result), **result}
        files.save_json(Path(folder, HIDDEN, _NAME), kept_result)
    else:
        _in_memory[key] = result
