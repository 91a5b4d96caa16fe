"""The parameters of each notebook: records that check themselves, and paths relative to the project's root.

One record class per notebook. A parameter is declared once, in the type of its field; the check, the absolute
paths, the key by which runs resume and the docs' table follow from that. All parameters of one name mean
the same in every notebook, so that one YAML file per data set serves them all.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pandas as pd
import yaml

from synprep._core import rules, volume_settings
from synprep._core.arrays import MASK_KEYS
from synprep._core.cells import assigned_names
from synprep._core.errors import (
    FailedChunksError,
    ParameterError,
    failure_lines,
    listed,
    nearest,
    raise_problems,
)
from synprep._core.paths import find_problem, resolve, shown
from synprep._core.problems import Problem, decisive, share
from synprep._core.rules import POSITIVE, Facts, at_least, between, declared, one_of, value_problem


def _is_pattern(value: str) -> bool:
    touches = "*{synapse_id}" in value or "{synapse_id}*" in value
    return value.count("{synapse_id}") == 1 and not touches and not {"/", "\\"} & {*value}


_PATTERN = (_is_pattern, "must be a file name with one {synapse_id}, and with no * that touches it")
_LABELS = (
    lambda value: (
        not value or (value.keys() == MASK_KEYS.keys() and len({*value.values()} & {*range(1, 256)}) == 3)
    ),
    f"must give {', '.join(MASK_KEYS)} three different values from 1 to 255, or be empty",
)
_SOME_VOLUMES = (lambda value: len(value) > 0, "must say what to cut chunks from")
_SOME_TABLES = (lambda value: len(value) > 0, "must name at least one table")
_FREE_NAME = (
    lambda value: os.path.basename(value) not in ("sections.csv", "run.json"),
    "must not be named as one of the files beside it",
)

_RAW_FOLDERS = ("raw_em_data_path", "raw_mask_data_path")

# Parameters that several records take.
_NWorkers = Annotated[int, "number of threads", Facts(empty="one per core")]
_Scheduler = Annotated[
    str,
    "a Dask cluster: `tcp://host:8786`, or the path of a scheduler file",
    Facts(path="file or address", empty="threads"),
]
_Seed = Annotated[
    int,
    "of the sample (a smaller sample is the start of a larger one), of the random order in inspect, of the "
    "draws that give the fingerprint's intervals",
]
_ReportPath = Annotated[
    str, "folder for figures, numbers, unusual synapses and `augmenter.yaml`", Facts(path="output")
]
_SynapseIdsPath = Annotated[
    str, "CSV with a column `synapse_id`: process or inspect these", Facts(path="input file", empty="all")
]
_VoxelSize = Annotated[
    float, "edge of a voxel in x and y, in nm; for scale bars and volumes in pictures", Facts(POSITIVE)
]
_SegMaskMap = Annotated[
    dict[str, int],
    "label values in the input; the output always has 1, 2, 3; a 1, 2 or 3 in the input that is not "
    "named becomes background",
    Facts(_LABELS, empty="no labels are expected, masks are copied as they are", decides=True),
]
_NExamples = Annotated[
    int, "raw pairs or synapses to look at, at most those that are there", Facts(between(1, 100))
]
_CutoutPixelValue = Annotated[
    int, "intensity where nothing was imaged or aligned", Facts(between(0, 255), decides=True)
]
_Spacing = Annotated[
    float,
    "z spacing / xy spacing; int(depth // it) + 1 central sections are kept",
    Facts(POSITIVE, decides=True),
]
_MaxChunks = Annotated[int, "process the first few only, as a trial", Facts(empty="all")]
_Dark = Annotated[bool, "true: figures have light lines on black"]
_Resume = Annotated[
    bool,
    "chunks that are finished and unchanged are not done again; false: all are, and a table of "
    "another data set in the folder is moved aside",
]
_MaxFailures = Annotated[
    int,
    "with more failed chunks, or if all failed, the run ends with an error, after all else is written",
    Facts(at_least(0)),
]


@dataclass(frozen=True, kw_only=True)
class Record:
    """The parameters of a notebook, checked, with absolute paths."""

    def __post_init__(self):
        _settle(self)


@dataclass(frozen=True, kw_only=True)
class Chunks(Record):
    """What every notebook that reads raw chunks takes."""

    raw_em_data_path: Annotated[
        str, "folder with EM files, walked with all folders inside it", Facts(path="input folder")
    ] = "data/demo/em"
    raw_mask_data_path: Annotated[
        str,
        "folder with mask files; may be the same one",
        Facts(path="input folder", empty="survey every EM file (exploratory notebooks only)"),
    ] = "data/demo/mask"
    em_filename_pattern: Annotated[
        str, "file name with one `{synapse_id}` and any `*` (shortest match)", Facts(_PATTERN)
    ] = "{synapse_id}.npy"
    mask_filename_pattern: Annotated[
        str, "the same for masks; a file that fits it is never taken for EM", Facts(_PATTERN)
    ] = "{synapse_id}_mask.npy"
    volumes: Annotated[
        dict,
        "chunks are cut from these, around the synapses of a table: `docs/volumes.md`",
        Facts(empty="files"),
    ] = field(default_factory=dict)
    cutout_threshold: Annotated[
        float, "sections with a greater cutout fraction are blanked", Facts(between(0, 1), decides=True)
    ] = 0.01
    cutout_pixel_value: _CutoutPixelValue = 0
    axial_to_sagittal_spacing: _Spacing = 5.0
    n_sections: Annotated[
        int, "number of central sections to keep", Facts(empty="from the spacing", decides=True)
    ] = 0
    n_workers: _NWorkers = 0
    scheduler: _Scheduler = ""
    dark: _Dark = False


@dataclass(frozen=True, kw_only=True)
class Survey(Chunks):
    """What the exploratory notebooks share."""

    n_rand_samples: Annotated[
        int, "chunks to survey, drawn without replacement, at most those there are", Facts(at_least(1))
    ] = 1000
    seed: _Seed = 0
    report_path: _ReportPath = "data/demo/reports"


@dataclass(frozen=True, kw_only=True)
class CutoutHistogram(Survey):
    """Parameters of `cutout_histogram.ipynb`."""

    voxel_size_xy_nm: _VoxelSize = 8.0
    n_bins: Annotated[int, "bins of the cutout histogram, over 0 to 1", Facts(between(1, 100_000))] = 100


@dataclass(frozen=True, kw_only=True)
class IntensityHistogram(Survey):
    """Parameters of `intensity_histogram.ipynb`."""


@dataclass(frozen=True, kw_only=True)
class SectionVariation(Survey):
    """Parameters of `section_variation.ipynb`."""

    example_synapse_id: Annotated[
        str, "chunk of the example in section variation", Facts(empty="first of the sample")
    ] = ""
    section_index: Annotated[
        int, "its section (z index); the next one is compared with it", Facts(at_least(0))
    ] = 13
    intensity_slope: Annotated[
        float,
        "the next section is shown as clip(slope x + intercept, 0, 255)",
        Facts(empty="the ratio of the two sections' means"),
    ] = 0.0
    intensity_intercept: Annotated[float, "intercept of the same, in grey levels (0 to 255)"] = 0.0


@dataclass(frozen=True, kw_only=True)
class Preprocess(Chunks):
    """Parameters of `preprocess.ipynb`."""

    proc_data_path: Annotated[
        str, "folder for tensors and tables; made when missing", Facts(path="output")
    ] = "data/demo/processed"
    synapse_ids_path: _SynapseIdsPath = ""
    max_chunks: _MaxChunks = 0
    voxel_size_xy_nm: _VoxelSize = 8.0
    seg_mask_map: _SegMaskMap = field(default_factory=MASK_KEYS.copy)
    cut_intensity_with_seg_masks: Annotated[
        bool,
        "true: one channel of EM for each entry of `output_channel_desc`, zero outside its labels, and the "
        "mask last",
        Facts(decides=True),
    ] = False
    output_channel_desc: Annotated[
        list[list[int]],
        "label values (1, 2, 3) of each channel when the EM is cut",
        Facts(rules.CHANNELS, decides=True),
    ] = field(default_factory=lambda: [[1], [2], [3]])
    resume: _Resume = True
    verify: Annotated[bool, "true: read every tensor again and compare it with the tables"] = False
    max_failures: _MaxFailures = 0


@dataclass(frozen=True, kw_only=True)
class InspectRaw(Chunks):
    """Parameters of `inspect_raw.ipynb`."""

    voxel_size_xy_nm: _VoxelSize = 8.0
    seg_mask_map: _SegMaskMap = field(default_factory=MASK_KEYS.copy)
    n_examples: _NExamples = 12
    seed: _Seed = 0
    report_path: _ReportPath = "data/demo/reports"


# The demonstration's.
_VOLUMES = {
    "synapse_table": "data/volumes/synapses.csv",
    "id_column": "id",
    "pre_id_column": "pre_pt_root_id",
    "post_id_column": "post_pt_root_id",
    "id_prefix": "",
    "centre_columns": ["ctr_pt_position"],
    "centre_unit_nm": [4, 4, 40],
    "em": "precomputed://data/volumes/em",
    "segmentation": "precomputed://data/volumes/segmentation",
    "cleft": "precomputed://data/volumes/cleft",
    "voxel_size_nm": [8, 8, 40],
    "chunk_shape": [96, 96, 64],
    "missing_em": "cutout",
    "cache_mb": 512,
}


@dataclass(frozen=True, kw_only=True)
class Extract(Record):
    """Parameters of `extract.ipynb`."""

    volumes: Annotated[dict, "in extract: must not be empty", Facts(_SOME_VOLUMES)] = field(
        default_factory=_VOLUMES.copy
    )
    raw_em_data_path: Annotated[str, "in extract: folder for EM files", Facts(path="output")] = (
        "data/extracted/em"
    )
    raw_mask_data_path: Annotated[str, "in extract: folder for mask files", Facts(path="output")] = (
        "data/extracted/mask"
    )
    cutout_pixel_value: _CutoutPixelValue = 0
    voxel_size_xy_nm: _VoxelSize = 8.0
    axial_to_sagittal_spacing: _Spacing = 5.0
    report_path: _ReportPath = "data/demo/reports"
    synapse_ids_path: _SynapseIdsPath = ""
    max_chunks: _MaxChunks = 0
    resume: _Resume = True
    max_failures: _MaxFailures = 0
    n_workers: _NWorkers = 0
    scheduler: _Scheduler = ""
    dark: _Dark = False


@dataclass(frozen=True, kw_only=True)
class Inspect(Record):
    """Parameters of `inspect.ipynb`."""

    proc_data_path: Annotated[
        str, "in inspect and fingerprint: of a processed or merged data set", Facts(path="input folder")
    ] = "data/demo/processed"
    n_examples: _NExamples = 12
    order_by: Annotated[
        str,
        "`worst` (without cleft, most blanked sections, smallest cleft first), `random` (seeded), or "
        "`table` (as in `synapse_ids_path`, else in `meta.csv`)",
        Facts(one_of("worst", "random", "table")),
    ] = "worst"
    synapse_ids_path: _SynapseIdsPath = ""
    seed: _Seed = 0
    report_path: _ReportPath = "data/demo/reports"
    dark: _Dark = False


@dataclass(frozen=True, kw_only=True)
class Merge(Record):
    """Parameters of `merge.ipynb`."""

    meta_list: Annotated[
        list[str], "tables to merge, in the order of the merged rows", Facts(_SOME_TABLES, "input file")
    ] = field(default_factory=lambda: ["data/ds1/processed/meta.csv", "data/ds2/processed/meta.csv"])
    merged_meta_path: Annotated[str, "the merged table", Facts(_FREE_NAME, "output")] = "data/merged/meta.csv"
    on_conflict: Annotated[
        str,
        "an id with different values in two tables: `error`, or keep the `first` or the `last` row",
        Facts(one_of("error", "first", "last")),
    ] = "error"
    link_mode: Annotated[
        str,
        "arrays of a merged set stay in the old folders (`reference`, by relative names), or appear "
        "beside its table (`hardlink`, `copy`)",
        Facts(one_of("reference", "hardlink", "copy")),
    ] = "reference"


@dataclass(frozen=True, kw_only=True)
class Fingerprint(Record):
    """Parameters of `fingerprint.ipynb`."""

    proc_data_path: Annotated[
        str, "in fingerprint by default `data/merged`, and reports beside it", Facts(path="input folder")
    ] = "data/merged"
    report_path: _ReportPath = "data/merged/reports"
    seed: _Seed = 0
    n_workers: _NWorkers = 0
    scheduler: _Scheduler = ""
    dark: _Dark = False


# The notebooks' records, and what to do after each notebook.
_NEXT = {
    CutoutHistogram: "intensity_histogram.ipynb",
    IntensityHistogram: "section_variation.ipynb",
    SectionVariation: "preprocess.ipynb",
    InspectRaw: "cutout_histogram.ipynb",
    Preprocess: "inspect.ipynb",
    Extract: "preprocess.ipynb, with these folders or with the same volumes",
    Inspect: "fingerprint.ipynb, or merge.ipynb if there are several data sets",
    Merge: "fingerprint.ipynb, with the merged folder as proc_data_path",
    Fingerprint: "paste augmenter.yaml into the augmenter's configuration, and train",
}
RECORDS = tuple(_NEXT)
_MADE_BY = {
    "meta_list": "preprocess makes it",
    "proc_data_path": "preprocess makes it with this proc_data_path, merge with a merged_meta_path in it",
}
_IS = {"folder": os.path.isdir, "file": os.path.isfile}


def from_mapping(
    record_type: type[Record],
    passed: Mapping[str, Any],
    will_be_made: Iterable[str] = (),
    problems: Iterable[str] = (),
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
    problems : iterable of str
        What is known to be wrong before; the error says it with all else.

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
    default, own, known = record_type(), declared(record_type), _takers()
    values = {name: _plain(passed.get(name, getattr(default, name))) for name in own}
    problems = [
        *problems,
        *(_unknown(name, record_type) for name in passed if name not in known),
        *_value_problems(record_type, values),
        *_missing_inputs(record_type, values, {resolve(path) for path in will_be_made}),
    ]
    raise_problems(problems or _half_demonstration(default, values))
    return record_type(**values), sorted(name for name in passed if name in known and name not in own)


def from_yaml(record_type: type[Record], path: str | os.PathLike, will_be_made: Iterable[str] = ()) -> Record:
    """Read the record of one notebook from a YAML file, as papermill would pass it.

    Parameters
    ----------
    record_type : type
        One of `RECORDS`.
    path : str or PathLike
        YAML file; a relative path starts from the project's root.
    will_be_made : iterable of str
        As for `from_mapping`.

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

    Values are taken from the notebook's namespace. The parameters cell is the latest one that assigns a
    parameter with its type (``max_chunks: int = 3``): it must assign all parameters and nothing else, so that
    a misspelt name is found and a person's own variables are not mistaken for one. A cell that papermill has
    injected after it adds to it. Where no history of cells is kept, as when pytest compares outputs, or none
    assigns a parameter so, all parameters must have a value, and any name of a parameter counts as passed. A
    line is printed for parameters that only other notebooks take.

    Parameters
    ----------
    record_type : type
        One of `RECORDS`.
    namespace : mapping of str to object
        The notebook's ``globals()``.
    will_be_made : iterable of str
        As for `from_mapping`.

    Returns
    -------
    Record
        Checked, with absolute paths.

    Raises
    ------
    ParameterError
        As `from_mapping`.
    """
    own, cells = [*declared(record_type)], namespace.get("In")
    typed, injected = assigned_names(cells if isinstance(cells, list) else [], own)
    names = {*own, *typed, *injected} if typed else {*_takers()}
    passed = {name: namespace[name] for name in sorted(names) if name in namespace}
    assigned = {*typed, *injected} & {*passed} if typed else {*passed}
    misspelt = {nearest(name, _takers()) for name in {*passed} - {*_takers()}}
    lacking = _lacking([name for name in own if name not in assigned | misspelt])
    record, passed_over = from_mapping(record_type, passed, will_be_made, lacking)
    if passed_over:
        print(f"Passed over, since only other notebooks take them: {', '.join(passed_over)}")
    return record


def as_table(record: Record) -> pd.DataFrame | None:
    """Parameters that are not as by default, as a person would want to see them.

    Parameters
    ----------
    record : Record
        Any record.

    Returns
    -------
    DataFrame or None
        One row per parameter that differs from its default, and of a mapping one per key that does; index
        `parameter`, column `value`; paths inside the project are relative to it. None if none differs, so
        that a notebook shows nothing.
    """
    rows, default = {}, type(record)()
    for name, (_, _, facts) in declared(type(record)).items():
        value, usual = getattr(record, name), getattr(default, name)
        if isinstance(value, Mapping):
            differing = {key: one for key, one in value.items() if one != usual.get(key)}
            rows |= {f"{name}: {key}": str(one) for key, one in differing.items()}
        elif value != usual:
            rows[name] = str(_each_path(shown, value) if facts.path else value)
    return pd.DataFrame({"value": rows}).rename_axis("parameter") if rows else None


def conclude(
    record: Record,
    failures: Mapping[str, str] | None = None,
    found: Iterable[Problem] = (),
    **counts: int,
) -> None:
    """Say at the end of a notebook what came out, whether it can be used, where it is, and what to do next.

    Parameters
    ----------
    record : Record
        The notebook's parameters; where they have `max_failures`, so many failures are accepted, if anything
        came out.
    failures : mapping of str to str, optional
        Reason by synapse id.
    found : iterable of Problem, optional
        What is wrong with chunks that came out: warnings that most of them share, and all that makes them
        unfit for training, are said, and what comes next depends on it.
    **counts : int
        How many chunks are what the name says; the first, how many came out.

    Raises
    ------
    FailedChunksError
        If more chunks failed than are accepted: the first few reasons, and then what is printed otherwise, so
        that it stands below papermill's traceback.
    """
    failures = failures or {}
    n_come_out = next(iter(counts.values()), 0)
    shared = decisive((one for one in found if one.synapse_id not in failures), n_come_out)
    has_come_out = n_come_out > 0
    is_accepted = len(failures) <= (getattr(record, "max_failures", 0) if has_come_out else 0)
    counts = {**counts, "failed": len(failures)}
    outputs = [name for name, (_, _, facts) in declared(type(record)).items() if facts.path == "output"]
    lines = [
        *failure_lines(failures, n_come_out),
        "chunks: " + ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts.items()),
        *(share(same, n_come_out) for same in shared),
        "results: " + ", ".join(shown(getattr(record, name)) for name in outputs),
        "next: " + (_next(record, shared) if is_accepted else _mend(record, len(failures), has_come_out)),
    ]
    if not is_accepted:
        raise FailedChunksError("\n".join(lines))
    print(*lines, sep="\n")


def _next(record: Record, shared: Sequence[Sequence[Problem]]) -> str:
    """What to do when all came out that should: what was found may call for this notebook once more."""
    if any(same[0].severity != "warning" for same in shared):
        return (
            "not ready for training: mend these chunks or leave them out (synapse_ids_path), preprocess "
            "again, and run this again"
        )
    if hints := {same[0].hint: None for same in shared if same[0].hint}:
        return f"see {', '.join(hints)}, and run this again; if all is as it should be, {_NEXT[type(record)]}"
    return _NEXT[type(record)]


def _mend(record: Record, n_failures: int, has_come_out: bool) -> str:
    """What to do when more chunks failed than are accepted."""
    if not hasattr(record, "max_failures"):
        what = "the results are without what failed" if has_come_out else "nothing could be read"
        return f"{what}; mend or remove it, and run this again"
    mend = "mend or remove what failed (problems.csv names all), and run this again"
    if has_come_out:
        return f"{mend}; or accept it with max_failures {n_failures}"
    return mend + ("; max_failures does not apply where none came out" if record.max_failures else "")


def content(record: Record) -> dict[str, object]:
    """Parameters that decide what a tensor and its rows hold.

    Parameters
    ----------
    record : Record
        Any record.

    Returns
    -------
    dict of str to object
        Values by name, in the order of declaration.
    """
    facts_by_name = declared(type(record)).items()
    return {name: getattr(record, name) for name, (_, _, facts) in facts_by_name if facts.decides}


def documentation() -> str:
    """Table of all parameters, for `docs/parameters.md`.

    Returns
    -------
    str
        Markdown; a row per name, with what all records say of it.
    """
    return rules.table(RECORDS, "parameter")


def _takers() -> dict[str, list[str]]:
    """All parameters, and the notebooks that take each."""
    takers = defaultdict(list)
    for record_type in RECORDS:
        notebook = re.sub("(?<=[a-z])(?=[A-Z])", "_", record_type.__name__).lower()
        for name in declared(record_type):
            takers[name].append(notebook)
    return dict(takers)


def _unknown(name: str, record_type: type[Record]) -> str:
    """Say that no notebook takes a parameter, and which may be meant, also if another notebook takes it."""
    takers = _takers()
    if not (near := nearest(name, takers)):
        return f"{name} is not a parameter"
    of = "" if near in declared(record_type) else f", a parameter of {listed(takers[near], 3)}"
    return f"{name} is not a parameter; did you mean {near}{of}?"


def _settle(record: Record) -> None:
    """Check a new record, make its paths absolute, and its integers floats where a float is meant."""
    values = {name: _plain(getattr(record, name)) for name in declared(type(record))}
    raise_problems(_value_problems(type(record), values))
    for name, (hint, _, facts) in declared(type(record)).items():
        value = float(values[name]) if hint is float else values[name]
        value = volume_settings.expanded(value) if name == "volumes" else value
        object.__setattr__(record, name, _each_path(resolve, value) if facts.path else value)


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _each_path(convert: Callable[[str], str], value: str | list[str]) -> str | list[str]:
    """Convert one path or a list of them; empty stays empty, and an address of a scheduler too."""
    if isinstance(value, list | tuple):
        return [convert(path) for path in value]
    return value if value == "" or "://" in value else convert(value)


def _value_problems(record_type: type[Record], values: Mapping[str, Any]) -> list[str]:
    found = {
        name: value_problem(values[name], hint, facts)
        for name, (hint, _, facts) in declared(record_type).items()
    }
    problems = [f"{name} {problem}" for name, problem in found.items() if problem]
    return problems or _joint_problems(record_type, values)


def _joint_problems(record_type: type[Record], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with values that are right one by one."""
    problems = []
    em, mask = (resolve(values.get(name, "")) for name in _RAW_FOLDERS)
    if values.get("volumes"):
        found = volume_settings.find_problems(values["volumes"], SimpleNamespace(**values))
        return [f"volumes: {problem}" for problem in found]
    if record_type in (InspectRaw, Preprocess) and not mask:
        problems.append("raw_mask_data_path must not be empty")
    if values.get("cut_intensity_with_seg_masks") and not values["seg_mask_map"]:
        problems.append("cut_intensity_with_seg_masks needs labels, but seg_mask_map is empty")
    same = em and mask and values["em_filename_pattern"] == values["mask_filename_pattern"]
    if same and (Path(em).is_relative_to(mask) or Path(mask).is_relative_to(em)):
        problems.append(
            "em_filename_pattern and mask_filename_pattern must differ when raw_em_data_path and "
            "raw_mask_data_path are the same folder or one inside the other"
        )
    if resolve(values.get("merged_meta_path", "")) in [resolve(path) for path in values.get("meta_list", [])]:
        problems.append("merged_meta_path must not be one of the tables of meta_list")
    return problems


def _half_demonstration(default: Record, values: Mapping[str, Any]) -> list[str]:
    """Find inputs that are the demonstration's beside a raw folder that is not: a key that was forgotten."""
    if isinstance(default, Extract):
        is_own = resolve(values["raw_em_data_path"]) != default.raw_em_data_path
        forgotten = is_own and values["volumes"] == _VOLUMES
        return ["volumes are the demonstration's, but raw_em_data_path is not: set both"] if forgotten else []
    if not isinstance(default, Chunks) or values["volumes"] or not values["raw_mask_data_path"]:
        return []
    own = [name for name in _RAW_FOLDERS if resolve(values[name]) != getattr(default, name)]
    left = [name for name in _RAW_FOLDERS if name not in own]
    return [f"{left[0]} is the demonstration's, but {own[0]} is not: set both"] if own and left else []


def _missing_inputs(
    record_type: type[Record], values: Mapping[str, Any], will_be_made: set[str]
) -> list[str]:
    volumes, problems = values.get("volumes"), []
    for name, (_, _, facts) in declared(record_type).items():
        paths = values[name] if isinstance(values[name], list | tuple) else [values[name]]
        if facts.path == "input file" or (facts.path == "input folder" and not volumes):
            problems += _missing(name, paths, facts.path.removeprefix("input "), will_be_made)
    if isinstance(volumes, Mapping) and "synapse_table" in volumes:
        problems += _missing("volumes: synapse_table", [volumes["synapse_table"]], "file", will_be_made)
    return sorted(problems)


def _missing(name: str, paths: Iterable[Any], kind: str, will_be_made: set[str]) -> list[str]:
    given = [resolve(path) for path in paths if isinstance(path, str) and path and not find_problem(path)]
    missing = [path for path in given if path not in will_be_made and not _IS[kind](path)]
    other = "file" if kind == "folder" else "folder"
    hint = f" ({_MADE_BY[name]}: run that first)" if name in _MADE_BY else ""
    return [
        f"{name}: {path} is a {other}, not a {kind}"
        if _IS[other](path)
        else f"{name}: there is no {kind} {path}{hint}"
        for path in missing
    ]


def _lacking(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    line = f"{names[0]}: ... = ..."
    return [f"{listed(names)}: not assigned in the parameters cell (the latest with a line such as {line})"]
