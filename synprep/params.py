"""The parameters of each notebook: records that check themselves, and paths relative to the project's root.

One record class per notebook. All parameters of one name mean the same in every notebook, so that one YAML
file per data set serves them all.
"""

import ast
import difflib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

import pandas as pd
import yaml

from synprep.errors import ParameterError, counted
from synprep.labels import MASK_KEYS
from synprep.paths import resolve, shown

_INPUT_FOLDERS = {"raw_em_data_path", "raw_mask_data_path", "proc_data_path"}  # but see `_missing_inputs`
_INPUT_FILES = {"synapse_ids_path", "meta_list"}
_PATHS = _INPUT_FOLDERS | _INPUT_FILES | {"report_path", "merged_meta_path"}
_PATTERN_RULE = "must be a file name with one {synapse_id}, and with no * that touches it"
_MAY_BE_EMPTY = {"raw_mask_data_path", "synapse_ids_path", "example_synapse_id", "scheduler"}


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """What every notebook that reads raw chunks takes.

    Parameters
    ----------
    raw_em_data_path : str
        Folder with EM files, walked with all folders inside it.
    raw_mask_data_path : str
        Folder with mask files; may be the same one. Empty: no masks (exploratory notebooks only).
    em_filename_pattern, mask_filename_pattern : str
        File name with one ``{synapse_id}`` and any ``*``.
    cutout_threshold : float
        Sections with a greater cutout fraction (0..1) are blanked.
    cutout_pixel_value : int
        Intensity of pixels where nothing was imaged or aligned.
    axial_to_sagittal_spacing : float
        z spacing / xy spacing.
    n_sections : int
        Number of central sections to keep; 0: from the spacing.
    n_workers : int
        Number of threads; 0: one per core.
    scheduler : str
        Address of a Dask scheduler (``tcp://...``), or path of a scheduler file, to work on a cluster instead
        of in threads; empty: threads.

    Raises
    ------
    ParameterError
        If any value has the wrong type or is out of range; all problems are in one message.
    """

    raw_em_data_path: str = "data/demo/em"
    raw_mask_data_path: str = "data/demo/mask"
    em_filename_pattern: str = "{synapse_id}.npy"
    mask_filename_pattern: str = "{synapse_id}_mask.npy"
    cutout_threshold: float = 0.01
    cutout_pixel_value: int = 0
    axial_to_sagittal_spacing: float = 5.0
    n_sections: int = 0
    n_workers: int = 0
    scheduler: str = ""

    def __post_init__(self):
        _settle(self)


@dataclass(frozen=True, kw_only=True)
class Survey(Chunks):
    """What the exploratory notebooks share.

    Parameters
    ----------
    n_rand_samples : int
        How many chunks to survey, at most those that are there.
    seed : int
        Another seed surveys another sample.
    report_path : str
        Folder for the figures (PNG) and numbers (JSON).
    """

    n_rand_samples: int = 1000
    seed: int = 0
    report_path: str = "data/demo/reports"


@dataclass(frozen=True, kw_only=True)
class CutoutHistogram(Survey):
    """Parameters of `cutout_histogram.ipynb`.

    Parameters
    ----------
    n_bins : int
        Number of bins over the cutout fractions 0 to 1.
    """

    n_bins: int = 100


@dataclass(frozen=True, kw_only=True)
class IntensityHistogram(Survey):
    """Parameters of `intensity_histogram.ipynb`."""


@dataclass(frozen=True, kw_only=True)
class SectionVariation(Survey):
    """Parameters of `section_variation.ipynb`.

    Parameters
    ----------
    example_synapse_id : str
        Chunk of the example; empty: the first of the sample.
    section_index : int
        z index of the example's section; the next one is compared with it.
    intensity_slope, intensity_intercept : float
        Linear transform of the next section's intensities; the intercept is on 0 to 255.
    """

    example_synapse_id: str = ""
    section_index: int = 13
    intensity_slope: float = 1.01
    intensity_intercept: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Preprocess(Chunks):
    """Parameters of `preprocess.ipynb`.

    Parameters
    ----------
    proc_data_path : str
        Folder for the tensors and tables; made when missing.
    synapse_ids_path : str
        CSV file with a column `synapse_id` that names the chunks to process; empty: all.
    max_chunks : int
        Process the first few chunks only, as a trial; 0: all.
    voxel_size_xy_nm : float
        Edge of a voxel in x and y, in nm; for scale bars and volumes in pictures.
    seg_mask_map : dict of str to int
        Label values in the input; the output always has 1, 2 and 3.
    cut_intensity_with_seg_masks : bool
        False: channels are EM and mask. True: one channel of EM for each entry of `output_channel_desc`,
        zero outside its labels, and the mask.
    output_channel_desc : list of list of int
        Label values (1, 2, 3) of each channel when the EM is cut.
    resume : bool
        True: chunks that are finished and unchanged are not done again. False: all are, and a table of
        another data set that is in the folder is moved aside.
    verify : bool
        True: read every tensor again and compare it with the tables.
    max_failures : int
        With more failed chunks than this the run ends with an error, after all else is written.
    """

    proc_data_path: str = "data/demo/processed"
    synapse_ids_path: str = ""
    max_chunks: int = 0
    voxel_size_xy_nm: float = 8.0
    seg_mask_map: dict[str, int] = field(default_factory=lambda: dict(MASK_KEYS))
    cut_intensity_with_seg_masks: bool = False
    output_channel_desc: list[list[int]] = field(default_factory=lambda: [[1], [2], [3]])
    resume: bool = True
    verify: bool = False
    max_failures: int = 0


@dataclass(frozen=True, kw_only=True)
class InspectRaw(Chunks):
    """Parameters of `inspect_raw.ipynb`.

    Parameters
    ----------
    voxel_size_xy_nm : float
        Edge of a voxel in x and y, in nm; for scale bars and volumes.
    seg_mask_map : dict of str to int
        Label values in the input.
    n_examples : int
        How many raw pairs to look at, at most those that are there.
    seed : int
        Another seed looks at others.
    report_path : str
        Folder for the figure (PNG) and the numbers (JSON).
    """

    voxel_size_xy_nm: float = 8.0
    seg_mask_map: dict[str, int] = field(default_factory=lambda: dict(MASK_KEYS))
    n_examples: int = 12
    seed: int = 0
    report_path: str = "data/demo/reports"


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Parameters of `inspect.ipynb`.

    Parameters
    ----------
    proc_data_path : str
        Folder of a processed or merged data set.
    n_examples : int
        How many synapses to look at.
    order_by : str
        ``"worst"``: without cleft, most blanked sections, smallest cleft first; ``"random"``; ``"table"``:
        as in `synapse_ids_path`, or else in `meta.csv`.
    synapse_ids_path : str
        CSV file with a column `synapse_id`: look at these only; empty: all.
    seed : int
        Of the random order.
    report_path : str
        Folder for the figures (PNG) and the list of unusual synapses (CSV).

    Raises
    ------
    ParameterError
        If any value has the wrong type or is out of range; all problems are in one message.
    """

    proc_data_path: str = "data/demo/processed"
    n_examples: int = 12
    order_by: str = "worst"
    synapse_ids_path: str = ""
    seed: int = 0
    report_path: str = "data/demo/reports"

    def __post_init__(self):
        _settle(self)


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Parameters of `merge.ipynb`.

    Parameters
    ----------
    meta_list : list of str
        The `meta.csv` files to merge, in the order of the merged rows.
    merged_meta_path : str
        The table to write.
    on_conflict : str
        What to do when an id has different values in two tables: ``"error"``, or keep the ``"first"`` or
        the ``"last"`` row.
    link_mode : str
        Where the arrays are: ``"reference"``, in the old folders, by relative names; ``"hardlink"``, beside
        the merged table as hard links; ``"copy"``, beside it as copies.

    Raises
    ------
    ParameterError
        If any value has the wrong type or is out of range; all problems are in one message.
    """

    meta_list: list[str] = field(
        default_factory=lambda: ["data/ds1/processed/meta.csv", "data/ds2/processed/meta.csv"]
    )
    merged_meta_path: str = "data/merged/meta.csv"
    on_conflict: str = "error"
    link_mode: str = "reference"

    def __post_init__(self):
        _settle(self)


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Parameters of `fingerprint.ipynb`.

    Parameters
    ----------
    proc_data_path : str
        Folder of a processed or merged data set.
    report_path : str
        Folder for the figure (PNG), the numbers (JSON) and the configuration (YAML).
    seed : int
        Of the resamples that give the intervals.
    n_workers : int
        Number of threads; 0: one per core.
    scheduler : str
        As for `Chunks`.

    Raises
    ------
    ParameterError
        If any value has the wrong type or is out of range; all problems are in one message.
    """

    proc_data_path: str = "data/demo/processed"
    report_path: str = "data/demo/reports"
    seed: int = 0
    n_workers: int = 0
    scheduler: str = ""

    def __post_init__(self):
        _settle(self)


Record = Chunks | Inspect | Merge | Fingerprint
RECORDS = (
    CutoutHistogram,
    IntensityHistogram,
    SectionVariation,
    InspectRaw,
    Preprocess,
    Inspect,
    Merge,
    Fingerprint,
)

# What a value must satisfy beyond its type, and how to say so.
_RULES = {
    "cutout_threshold": (lambda v: 0 <= v <= 1, "must be from 0 to 1"),
    "cutout_pixel_value": (lambda v: 0 <= v <= 255, "must be from 0 to 255"),
    "axial_to_sagittal_spacing": (lambda v: v > 0, "must be greater than 0"),
    "n_sections": (lambda v: v >= 0, "must be 0 (from the spacing) or more"),
    "n_workers": (lambda v: v >= 0, "must be 0 (one per core) or more"),
    "n_rand_samples": (lambda v: v >= 1, "must be at least 1"),
    "intensity_slope": (lambda v: v > 0, "must be greater than 0"),
    "n_bins": (lambda v: 1 <= v <= 100_000, "must be from 1 to 100000"),
    "section_index": (lambda v: v >= 0, "must be 0 or more"),
    "max_chunks": (lambda v: v >= 0, "must be 0 (all) or more"),
    "max_failures": (lambda v: v >= 0, "must be 0 or more"),
    "voxel_size_xy_nm": (lambda v: v > 0, "must be greater than 0"),
    "on_conflict": (lambda v: v in ("error", "first", "last"), "must be error, first or last"),
    "n_examples": (lambda v: 1 <= v <= 100, "must be from 1 to 100"),
    "order_by": (lambda v: v in ("worst", "random", "table"), "must be worst, random or table"),
    "link_mode": (
        lambda v: v in ("reference", "hardlink", "copy"),
        "must be reference, hardlink or copy",
    ),
    "merged_meta_path": (
        lambda v: os.path.basename(v) not in ("sections.csv", "run.json"),
        "must not be named as one of the files beside it",
    ),
    "meta_list": (lambda v: len(v) > 0, "must name at least one table"),
    "seg_mask_map": (
        lambda v: v.keys() == MASK_KEYS.keys() and len({*v.values()} & {*range(1, 256)}) == 3,
        f"must give {', '.join(MASK_KEYS)} three different values from 1 to 255",
    ),
    "output_channel_desc": (
        lambda v: v and all(channel and {*channel} <= {*range(256)} for channel in v),
        "must be a list of non-empty lists of label values, such as [[1], [2], [3]]",
    ),
    "em_filename_pattern": (lambda v: _is_pattern(v), _PATTERN_RULE),
    "mask_filename_pattern": (lambda v: _is_pattern(v), _PATTERN_RULE),
}


def _is_pattern(pattern: str) -> bool:
    touches = "*{synapse_id}" in pattern or "{synapse_id}*" in pattern
    return pattern.count("{synapse_id}") == 1 and not touches and not {"/", "\\"} & {*pattern}


def _type_problem(value: Any, hint: type | GenericAlias) -> str:
    """Say why a value does not fit a type hint; empty when it fits. An int is fine for a float."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return "" if math.isfinite(value) else f"must be a finite number, not {value}"
    wrong = not isinstance(value, (list, tuple) if kind is list else kind)
    if wrong or (kind is int and isinstance(value, bool)):
        return _type_message(value, kind)
    items = [*value.values(), *value] if kind is dict else value if kind is list else []
    hints = [inner[1]] * len(value) + [inner[0]] * len(value) if kind is dict else inner * len(items)
    problems = [_type_problem(item, item_hint) for item, item_hint in zip(items, hints, strict=True)]
    return next((f"has an entry that {problem}" for problem in problems if problem), "")


_TYPE_NAMES = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


def _type_message(value: Any, kind: type) -> str:
    text = f"must be {_TYPE_NAMES[kind]}, not {value!r}"
    if isinstance(value, str) and kind in (int, float):
        return text + " (text; YAML reads 1e-2 as text: write 0.01, without quotes)"
    if isinstance(value, str) and kind is bool:
        return text + " (text; write true in YAML, True after papermill's -p)"
    return text + (" (put it in quotes)" if kind is str and value is not None else "")


def _value_problems(record_type: type[Record], values: Mapping[str, Any]) -> list[str]:
    problems = {}
    for name, hint in get_type_hints(record_type).items():
        value = values[name]
        accepts, rule = _RULES.get(name, (lambda v: True, ""))
        problem = _type_problem(value, hint)
        if not problem and value == "" and name not in _MAY_BE_EMPTY:
            problem = "must not be empty"
        if not problem and not accepts(value):
            problem = f"{rule}, not {value!r}"
        if problem:
            problems[name] = f"{name} {problem}"
    return [*problems.values(), *([] if problems else _joint_problems(record_type, values))]


def _joint_problems(record_type: type[Record], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with values that are right one by one."""
    problems = []
    em, mask = values.get("raw_em_data_path"), values.get("raw_mask_data_path")
    if record_type in (InspectRaw, Preprocess) and not mask:
        problems.append("raw_mask_data_path must not be empty")
    same = em and mask and values["em_filename_pattern"] == values["mask_filename_pattern"]
    if same and _overlap(resolve(em), resolve(mask)):
        problems.append(
            "em_filename_pattern and mask_filename_pattern must differ when raw_em_data_path and "
            "raw_mask_data_path are the same folder or one inside the other"
        )
    if resolve(values.get("merged_meta_path", "")) in [resolve(path) for path in values.get("meta_list", [])]:
        problems.append("merged_meta_path must not be one of the tables of meta_list")
    return problems


def _overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def _settle(record: Record) -> None:
    """Check a new record, make its paths absolute, and its integers floats where a float is meant."""
    values = {name: _plain(getattr(record, name)) for name in get_type_hints(type(record))}
    _raise_problems(_value_problems(type(record), values))
    for name, hint in get_type_hints(type(record)).items():
        value = float(values[name]) if hint is float else values[name]
        if name in _PATHS:
            value = [resolve(path) for path in value] if isinstance(value, list | tuple) else resolve(value)
        object.__setattr__(record, name, value)


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _raise_problems(problems: list[str]) -> None:
    if problems:
        raise ParameterError(
            "\n".join(
                [f"{counted(len(problems), 'problem')}, nothing was done:", *map("  {}".format, problems)]
            )
        )


def from_mapping(
    record_type: type[Record], passed: Mapping[str, Any], will_be_made: Iterable[str] = ()
) -> tuple[Record, list[str]]:
    """Make a record from named values, and check everything before any work.

    Parameters
    ----------
    record_type : type
        One of `RECORDS`.
    passed : mapping of str to object
        Values by parameter name; what is missing has its default.
    will_be_made : iterable of str
        Input paths, relative to the project's root, that may be missing now.

    Returns
    -------
    record : Record
        Checked, with absolute paths.
    passed_over : list of str
        Names in `passed` that only other notebooks take.

    Raises
    ------
    ParameterError
        One message with all unknown names (and the nearest known one), wrong types, values out of range and
        input paths that do not exist.
    """
    default = record_type()
    own = get_type_hints(record_type)
    known = {name for other in RECORDS for name in get_type_hints(other)}
    problems = [_unknown(name, own, known) for name in passed if name not in known]
    values = {name: _plain(passed.get(name, getattr(default, name))) for name in own}
    problems += _value_problems(record_type, values)
    problems += _missing_inputs(record_type, values, {resolve(path) for path in will_be_made})
    _raise_problems(problems)
    return record_type(**values), sorted(name for name in passed if name in known and name not in own)


def _unknown(name: str, own: Iterable[str], known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, own, 1) or difflib.get_close_matches(name, known, 1)
    return f"{name} is not a parameter" + (f"; did you mean {near[0]}?" if near else "")


def _missing_inputs(
    record_type: type[Record], values: Mapping[str, Any], will_be_made: set[str]
) -> list[str]:
    problems, outputs = [], {"proc_data_path"} if record_type is Preprocess else set()
    for name in values.keys() & (_INPUT_FOLDERS | _INPUT_FILES) - outputs:
        exists, kind = (os.path.isdir, "folder") if name in _INPUT_FOLDERS else (os.path.isfile, "file")
        paths = values[name] if isinstance(values[name], list | tuple) else [values[name]]
        for path in (resolve(path) for path in paths if isinstance(path, str) and path):
            if path not in will_be_made and not exists(path):
                problems.append(f"{name}: there is no {kind} {path}")
    return sorted(problems)


def from_yaml(record_type: type[Record], path: str | os.PathLike, will_be_made: Iterable[str] = ()) -> Record:
    """Read the record of one notebook from a YAML file, as papermill would pass it.

    Parameters
    ----------
    record_type : type
        One of `RECORDS`.
    path : str or PathLike
        YAML file; a relative path starts from the project's root.
    will_be_made : iterable of str
        Input paths, relative to the project's root, that may be missing now.

    Returns
    -------
    Record
        Checked, with absolute paths.

    Raises
    ------
    ParameterError
        As `from_mapping`, or if the file cannot be read.
    """
    try:
        passed = yaml.safe_load(Path(resolve(os.fspath(path))).read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ParameterError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(passed, dict):
        raise ParameterError(f"{path}: must hold lines of the form name: value")
    return from_mapping(record_type, passed, will_be_made)[0]


def check(
    record_type: type[Record], namespace: Mapping[str, Any], will_be_made: Iterable[str] = ()
) -> Record:
    """Check the parameters of a notebook before any work.

    Values are taken from the notebook's namespace. Names that papermill passed are read from the latest cell
    that it injected, so that a misspelt one is found and a person's own variables are not mistaken for one.
    A line is printed for parameters that only other notebooks take.

    Parameters
    ----------
    record_type : type
        One of `RECORDS`.
    namespace : mapping of str to object
        The notebook's ``globals()``.
    will_be_made : iterable of str
        Input paths, relative to the project's root, that may be missing now.

    Returns
    -------
    Record
        Checked, with absolute paths.

    Raises
    ------
    ParameterError
        As `from_mapping`.
    """
    names = {*get_type_hints(record_type), *_injected_names(namespace.get("In", ()))}
    passed = {name: namespace[name] for name in sorted(names) if name in namespace}
    record, passed_over = from_mapping(record_type, passed, will_be_made)
    if passed_over:
        print(f"Passed over, since only other notebooks take them: {', '.join(passed_over)}")
    return record


def _injected_names(cells: Iterable[str]) -> set[str]:
    injected = [cell for cell in cells if cell.startswith("# Parameters\n")]
    assigned = ast.parse(injected[-1]).body if injected else []
    return {target.id for statement in assigned for target in getattr(statement, "targets", [])}


def as_table(record: Record) -> pd.DataFrame:
    """Parameters as a person would want to see them.

    Parameters
    ----------
    record : Record
        Any record.

    Returns
    -------
    DataFrame
        One row per parameter, index `parameter`, column `value`; paths as `shown` gives them.
    """
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    for name in values.keys() & (_PATHS):
        value = values[name]
        values[name] = [shown(path) for path in value] if isinstance(value, list) else value and shown(value)
    table = pd.DataFrame({"value": [str(value) for value in values.values()]}, index=list(values))
    return table.rename_axis("parameter")
