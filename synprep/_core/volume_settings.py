"""The parameter `volumes`: which table, which volumes, and how chunks are cut from them."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import combinations
from typing import Annotated, Any, get_args

from synprep._core.arrays import MASK_KEYS
from synprep._core.errors import meant, raise_problems
from synprep._core.paths import find_problem, resolve
from synprep._core.rules import Rule

FORMATS = ("precomputed", "zarr", "zarr3", "n5")

_Triple, _Shape, _Layer = tuple[float, float, float], tuple[int, int, int], str | dict


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_triple(value: Any, is_one: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(is_one, value))


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value == value.strip() and not value.endswith("://")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _are_columns(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and all(map(_is_name, value))
    return is_list and len(value) in (1, 3, 6) and len({*value}) == len(value)


_PATH = (lambda v: _is_address(v) and "://" not in v, "must be the path of a file, without blanks around it")
_COLUMN = (_is_name, "must be the name of a column")
_ID_COLUMN = (lambda v: isinstance(v, str), "must be the name of a column, or empty: the row's number")
_DIGITS = (
    lambda v: isinstance(v, str) and (v == "" or (v.isascii() and v.isdigit())),
    'must be digits in quotes, such as "720575940", or empty',
)
_COLUMNS = (_are_columns, "must be a list of one, three or six different names of columns")
_SIZE = (
    lambda v: _is_triple(v, lambda one: _is_number(one) and one > 0),
    "must be three numbers greater than 0 (x, y, z), such as [8, 8, 40]",
)
_OFFSET = (lambda v: _is_triple(v, _is_number), "must be three numbers (x, y, z)")
_SHAPE = (
    lambda v: _is_triple(v, lambda one: type(one) is int and 1 <= one <= 4096),
    "must be three whole numbers from 1 to 4096 (x, y, z)",
)
_AXES = (
    lambda v: isinstance(v, str) and {*"xyz"} <= {*v} and len({*v}) == len(v),
    'must hold x, y and z once each, such as "zyx"',
)
_ADDRESS = (_is_address, "must be FORMAT://LOCATION, without blanks around it")
_ABSENT = (lambda v: v in ("error", "cutout"), "must be error or cutout")
_MEGABYTES = (lambda v: type(v) is int and v >= 0, "must be a whole number, 0 or more")
_LAYER_RULES = {"path": _ADDRESS, "voxel_size_nm": _SIZE, "offset_nm": _OFFSET, "axes": _AXES}
_LAYERS = ("em", "segmentation", "cleft")
_NAMED = re.compile(r"\$|(^|://)~")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The parameter `volumes`, checked, with absolute paths; each key is declared once, here."""

    synapse_table: Annotated[str, "CSV (also .gz) or parquet (with pyarrow), one synapse per row", _PATH]
    id_column: Annotated[
        str, "column of synapse ids, as text; empty: the row's number, from 0", _ID_COLUMN
    ] = "id"
    pre_id_column: Annotated[str, "column of ids of the presynaptic neuron", _COLUMN] = "pre_pt_root_id"
    post_id_column: Annotated[str, "column of ids of the postsynaptic neuron", _COLUMN] = "post_pt_root_id"
    id_prefix: Annotated[str, "digits that an export has cut off the ids of both neurons", _DIGITS] = ""
    centre_columns: Annotated[
        tuple[str, ...],
        'one column of text "[x, y, z]", three columns, or six: two points, whose mean is the centre',
        _COLUMNS,
    ] = ("ctr_pt_position",)
    centre_unit_nm: Annotated[
        _Triple, "nm per unit of these columns, such as [4, 4, 40], or [1, 1, 1] for nm; never guessed", _SIZE
    ]
    em: Annotated[
        _Layer,
        "FORMAT://LOCATION: precomputed, zarr, zarr3 or n5, and a path or a URL; or a mapping with that as "
        "`path`, and `voxel_size_nm`, `offset_nm` (x, y, z) and `axes` where the store does not say them",
        _ADDRESS,
    ]
    segmentation: Annotated[_Layer, "the same, of neurons", _ADDRESS]
    cleft: Annotated[_Layer, "the same, of clefts; or contact: what is near both neurons", _ADDRESS]
    voxel_size_nm: Annotated[_Triple, "of the chunks (x, y, z)", _SIZE] = (8.0, 8.0, 40.0)
    chunk_shape: Annotated[_Shape, "voxels of a whole chunk, before the crop", _SHAPE] = (256, 256, 256)
    missing_em: Annotated[str, "what EM that the store lacks becomes: error, or cutout", _ABSENT] = "error"
    cache_mb: Annotated[int, "memory per process for blocks that chunks share", _MEGABYTES] = 512


def settings(volumes: Mapping[str, Any], p: Any = None) -> Settings:
    """Check the parameter `volumes`, and that the other parameters of a notebook's record `p` fit it.

    Paths become absolute, also inside FORMAT://LOCATION; URLs stay. Raises a ParameterError with all unknown
    keys (and the nearest known one), missing keys, wrong types and values.
    """
    raise_problems(find_problems(volumes, p), " in volumes")
    return _chosen(volumes)


def find_problems(volumes: Mapping[str, Any], p: Any = None) -> list[str]:
    """What is wrong with the parameter `volumes`, or does not fit the parameters beside it."""
    rules = {one.name: get_args(one.type)[2] for one in fields(Settings)}
    required = [one.name for one in fields(Settings) if one.default is MISSING]
    return _problems(volumes, rules, required) or _misfits(_chosen(volumes), p)


def _chosen(volumes: Mapping[str, Any]) -> Settings:
    return Settings(**{name: _settled(name, value) for name, value in volumes.items()})


def documentation() -> str:
    """Table of all keys of `volumes`, in Markdown, for the docs."""
    rows = []
    for one in fields(Settings):
        value = list(one.default) if isinstance(one.default, tuple) else one.default
        default = "required" if value is MISSING else f"`{value}`" if value != "" else "empty"
        rows.append(f"| `{one.name}` | {default} | {get_args(one.type)[1]} |")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _problems(
    values: Mapping[str, Any], rules: Mapping[str, Rule], required: Collection[str], where: str = ""
) -> list[str]:
    """What is wrong with the keys and values of `volumes`, or of one of its layers."""
    keys = f"; keys are {', '.join(rules)}"
    found = [
        f"{where}{name} is not a key{meant(name, rules) or keys}" for name in values if name not in rules
    ]
    found += [f"{where}{name} is missing" for name in required if name not in values]
    for name in [name for name in rules if name in values]:
        value, (accepts, rule) = values[name], rules[name]
        if name in _LAYERS and isinstance(value, Mapping):
            found += _problems(value, _LAYER_RULES, ["path"], f"{name}: ")
        elif _names_a_user(value):
            found.append(f"{where}{name} holds credentials: they come from the environment alone")
        elif not accepts(value):
            found.append(f"{where}{name} {rule}, not {value!r}")
        elif problem := _path_problem(name, value):
            found.append(f"{where}{name} {problem}")
    if "centre_unit_nm is missing" in found:
        found.append("(the unit of a table is never guessed: [4, 4, 40] is 4 x 4 x 40 nm, [1, 1, 1] is nm)")
    return found


def _local_path(address: str) -> str:
    """The path of FORMAT://PATH; empty where that is a URL."""
    kind, _, location = address.partition("://")
    return location if kind in FORMATS and "://" not in location else ""


def _names_a_user(value: Any) -> bool:
    """Whether a URL holds a user or a key, as in precomputed://s3://key:secret@bucket/em, or a query."""
    is_url = isinstance(value, str) and "://" in value and not _local_path(value)
    return is_url and ("?" in value or "@" in value.rpartition("://")[2].partition("/")[0])


def _path_problem(name: str, value: Any) -> str:
    """How the path of the table or of a volume is written wrongly; a URL of a volume is right."""
    if name == "synapse_table":
        return find_problem(value)
    return find_problem(_local_path(value)) if name in ("path", *_LAYERS) else ""


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
