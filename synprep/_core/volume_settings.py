"""The parameter `volumes`: which table, which volumes, and how chunks are cut from them."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import combinations
from typing import Annotated, Any

from synprep._core.arrays import MASK_KEYS
from synprep._core.errors import nearest, raise_problems
from synprep._core.paths import find_problem, resolve
from synprep._core.rules import Facts, at_least, declared, one_of, table, type_problem, value_problem
from synprep._core.stores import DRIVERS, Triple

_Layer = str | dict


def _is_triple(value: Any, kind: type) -> bool:
    return not type_problem(value, list[kind]) and len(value) == 3


def _are_columns(value: Any) -> bool:
    is_list = not type_problem(value, list[str]) and all(value)
    return is_list and len(value) in (1, 3, 6) and len({*value}) == len(value)


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value == value.strip() and not value.endswith("://")


_DIGITS = (re.compile("[0-9]*").fullmatch, 'must be digits in quotes, such as "720575940", or empty')
_COLUMNS = (_are_columns, "must be a list of one, three or six different names of columns")
_POSITIVE = (
    lambda value: _is_triple(value, float) and min(value) > 0,
    "must be three numbers greater than 0 (x, y, z), such as [8, 8, 40]",
)
_OFFSET = (lambda value: _is_triple(value, float), "must be three numbers (x, y, z)")
_SHAPE = (
    lambda value: _is_triple(value, int) and 1 <= min(value) <= max(value) <= 4096,
    "must be three whole numbers from 1 to 4096 (x, y, z)",
)
_AXES = (
    lambda value: {*"xyz"} <= {*value} and len({*value}) == len(value),
    'must hold x, y and z once each, such as "zyx"',
)
_VOLUME = Facts((_is_address, "must be FORMAT://LOCATION, without blanks around it"))
_SIZE = Facts(_POSITIVE)
_LAYER_KEYS = {
    "path": (_Layer, "", _VOLUME),
    "voxel_size_nm": (Triple, "", _SIZE),
    "offset_nm": (Triple, "", Facts(_OFFSET)),
    "axes": (str, "", Facts(_AXES)),
}
_LAYERS = ("em", "segmentation", "cleft")
_NAMED = re.compile(r"\$|(^|://)~")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The parameter `volumes`, checked, with absolute paths; each key is declared once, here."""

    synapse_table: Annotated[
        str, "CSV (also .gz) or parquet (with pyarrow), one synapse per row", Facts(path="input file")
    ]
    id_column: Annotated[str, "column of synapse ids, as text", Facts(empty="the row's number, from 0")] = (
        "id"
    )
    pre_id_column: Annotated[str, "column of ids of the presynaptic neuron"] = "pre_pt_root_id"
    post_id_column: Annotated[str, "column of ids of the postsynaptic neuron"] = "post_pt_root_id"
    id_prefix: Annotated[
        str, "digits that an export has cut off the ids of both neurons", Facts(_DIGITS, empty="none")
    ] = ""
    centre_columns: Annotated[
        tuple[str, ...],
        'one column of text "[x, y, z]", three columns, or six: two points, whose mean is the centre',
        Facts(_COLUMNS),
    ] = ("ctr_pt_position",)
    centre_unit_nm: Annotated[
        Triple, "nm per unit of these columns, such as [4, 4, 40], or [1, 1, 1] for nm; never guessed", _SIZE
    ]
    em: Annotated[
        _Layer,
        "FORMAT://LOCATION: precomputed, zarr, zarr3 or n5, and a path or a URL; or a mapping with that as "
        "`path`, and `voxel_size_nm`, `offset_nm` (x, y, z) and `axes` where the store does not say them",
        _VOLUME,
    ]
    segmentation: Annotated[_Layer, "the same, of neurons", _VOLUME]
    cleft: Annotated[_Layer, "the same, of clefts; or contact: what is near both neurons", _VOLUME]
    voxel_size_nm: Annotated[Triple, "of the chunks (x, y, z)", _SIZE] = (8.0, 8.0, 40.0)
    chunk_shape: Annotated[
        tuple[int, int, int], "voxels of a whole chunk, before the crop", Facts(_SHAPE)
    ] = (256, 256, 256)
    missing_em: Annotated[
        str, "what EM that the store lacks becomes: error, or cutout", Facts(one_of("error", "cutout"))
    ] = "error"
    cache_mb: Annotated[int, "memory per process for blocks that chunks share", Facts(at_least(0))] = 512


def settings(volumes: Mapping[str, Any], p: Any = None) -> Settings:
    """Check the parameter `volumes`, and that the other parameters of a notebook's record `p` fit it.

    Paths become absolute, also inside FORMAT://LOCATION; URLs stay. Raises a ParameterError with all unknown
    keys (and the nearest known one), missing keys, wrong types and values.
    """
    raise_problems(find_problems(volumes, p), " in volumes")
    return _chosen(volumes)


def find_problems(volumes: Mapping[str, Any], p: Any = None) -> list[str]:
    """What is wrong with the parameter `volumes`, or does not fit the parameters beside it."""
    required = [one.name for one in fields(Settings) if one.default is MISSING]
    return _problems(volumes, declared(Settings), required) or _misfits(_chosen(volumes), p)


def _chosen(volumes: Mapping[str, Any]) -> Settings:
    return Settings(**{name: _settled(name, value) for name, value in volumes.items()})


def documentation() -> str:
    """Table of all keys of `volumes`, in Markdown, for the docs."""
    return table([Settings], "key")


def _problems(
    values: Mapping[str, Any], keys: Mapping[str, tuple], required: Collection[str], where: str = ""
) -> list[str]:
    """What is wrong with the keys and values of `volumes`, or of one of its layers."""
    found = []
    for name in [name for name in values if name not in keys]:
        near = nearest(name, keys)
        hint = f"did you mean {near}?" if near else f"keys are {', '.join(keys)}"
        found.append(f"{where}{name} is not a key; {hint}")
    found += [f"{where}{name} is missing" for name in required if name not in values]
    for name in [name for name in keys if name in values]:
        value, (hint, _, facts) = values[name], keys[name]
        problem = value_problem(value, hint, facts)
        if facts is _VOLUME and not problem:
            problem = find_problem(_local_path(value))
        if name in _LAYERS and isinstance(value, Mapping):
            found += _problems(value, _LAYER_KEYS, ["path"], f"{name}: ")
        elif _names_a_user(value):
            found.append(f"{where}{name} holds credentials: they come from the environment alone")
        elif problem:
            found.append(f"{where}{name} {problem}")
    if "centre_unit_nm is missing" in found:
        found.append("(the unit of a table is never guessed: [4, 4, 40] is 4 x 4 x 40 nm, [1, 1, 1] is nm)")
    return found


def _local_path(address: str) -> str:
    """The path of FORMAT://PATH; empty where that is a URL."""
    kind, _, location = address.partition("://")
    return location if kind in DRIVERS and "://" not in location else ""


def _names_a_user(value: Any) -> bool:
    """Whether a URL holds a user or a key, as in precomputed://s3://key:secret@bucket/em, or a query."""
    is_url = isinstance(value, str) and "://" in value and not _local_path(value)
    return is_url and ("?" in value or "@" in value.rpartition("://")[2].partition("/")[0])


def expanded(volumes: Mapping[str, Any]) -> dict[str, Any]:
    """The parameter `volumes` with absolute paths where they name environment variables or a home."""
    named = [name for name in ("synapse_table", *_LAYERS) if _NAMED.search(str(volumes.get(name)))]
    return {name: _settled(name, value) if name in named else value for name, value in volumes.items()}


def _settled(name: str, value: Any) -> Any:
    """Make paths absolute, numbers floats where floats are meant, and lists tuples."""
    if name in _LAYERS:
        is_mapping = isinstance(value, Mapping)
        return {**value, "path": _located(value["path"])} if is_mapping else _located(value)
    if name in ("centre_unit_nm", "voxel_size_nm"):
        return tuple(map(float, value))
    if isinstance(value, list):
        return tuple(value)
    return resolve(value) if name == "synapse_table" else value


def _located(address: str) -> str:
    """Make the path of FORMAT://PATH absolute; what else is wrong with an address, its opening says."""
    path = _local_path(address)
    return address.removesuffix(path) + resolve(path)


def _misfits(chosen: Settings, p: Any) -> list[str]:
    """What is wrong with values that are right one by one, also with parameters that the notebook takes."""
    found = []
    columns = [chosen.id_column, chosen.pre_id_column, chosen.post_id_column, *chosen.centre_columns]
    if len({*columns}) < len(columns):
        found.append(
            f"id_column, pre_id_column, post_id_column and centre_columns must differ, not {columns}"
        )
    if chosen.voxel_size_nm[0] != chosen.voxel_size_nm[1]:
        found.append(f"voxel_size_nm must be equal in x and y, not {list(chosen.voxel_size_nm)}")
    for one, other in combinations(_LAYERS, 2):
        if getattr(chosen, one) == getattr(chosen, other):
            found.append(f"{one} and {other} must not be the same volume ({getattr(chosen, one)})")
    size = list(chosen.voxel_size_nm)
    for name, value in (("axial_to_sagittal_spacing", size[2] / size[0]), ("voxel_size_xy_nm", size[0])):
        beside = getattr(p, name, value)
        if not math.isclose(beside, value, rel_tol=1e-6):
            found.append(f"{name} is {beside:g}, but voxel_size_nm {size} makes it {value:.9g}: change one")
    if getattr(p, "seg_mask_map", MASK_KEYS) != MASK_KEYS:
        found.append(f"seg_mask_map must be {MASK_KEYS}, since the mask is made with these values")
    return found
