"""A data set in numbers: what to configure training with, how sure each number is, and what it is from.

All numbers follow from `chunks`, arrays with a row for each chunk; drawing rows gives the intervals. Some
tell what the draws of SynapseCLR's augmenter (https://github.com/cellarium-ai/SynapseCLR) would have to be to
make data look like these: it blanks sections at random, and multiplies intensities with uniform slopes around
1, one per section and one per chunk.
"""

import math
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from synprep._core import arrays, estimates, files, problems, provenance, verify
from synprep._core.dataset import Dataset, load
from synprep._core.errors import ChunkError, FailedChunksError, StatisticsError, TableError, counted, listed
from synprep._core.estimates import Chunks
from synprep._core.paths import shown
from synprep._core.problems import Problem, grouped
from synprep._core.tables import VOLUME_COLUMNS, read_table
from synprep._core.verify import check, verdict
from synprep.params import Fingerprint

__all__ = [
    "as_table",
    "blanked_table",
    "check",
    "configuration",
    "grouped",
    "load",
    "run",
    "save_configuration",
    "verdict",
    "withheld",
]

_Record = Mapping[str, Any]

_FNV_START, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


def run(data: Dataset, p: Fingerprint) -> tuple[dict[str, Any], list[Problem], dict[str, str]]:
    """Read each tensor of a data set once: sum up what arrays and tables say, and `check` them.

    Parameters
    ----------
    data : Dataset
        Data set, see `load`.
    p : Fingerprint
        Parameters.

    Returns
    -------
    record : dict
        What goes into `fingerprint.json`: data set, spacing, counts, groups of chunks that share EM, seed,
        versions; `numbers` by group and name, each with value and interval (None if withheld), the reason if
        so, how, and over how much; `blanked` and `neighbours`, histograms for figures, with what models
        expect.
    findings : list of Problem
        What `check` returns.
    failures : dict of str to str
        Reason by synapse id for each chunk that could not be read, has other than two channels, or not the
        sections that `sections.csv` says; it is left out of all numbers.

    Raises
    ------
    TableError
        If there is no chunk, or merged data sets differ in a parameter.
    FailedChunksError
        If all chunks are left out.
    """
    read, findings, failures = _read(data, p)
    meta = data.meta[data.meta["synapse_id"].isin(read)]
    ids = list(meta["synapse_id"])
    sections = dict(iter(data.sections.groupby("synapse_id")))
    tables = [sections[synapse_id] for synapse_id in ids]
    known = [_describe(rows) for rows in tables]
    chunks = {name: np.array([one[name] for one in known]) for name in known[0]}
    chunks["pixels"] = np.array([read[synapse_id].sums for synapse_id in ids])
    chunks |= {column: meta[column].to_numpy() for column in VOLUME_COLUMNS.values()}
    boxes = _boxes(data, ids)
    chunks["group"] = _groups([read[synapse_id] for synapse_id in ids], boxes)
    numbers = estimates.numbers(chunks, p.seed)
    record = {
        **_about(data, p, ids, chunks, boxes),
        "numbers": numbers,
        "blanked": _count_blanked(chunks, tables, numbers["blanked_sections"]),
        "neighbours": _count_ratios(tables, numbers["section_variation"]),
    }
    return record, findings, failures


class _Pixels(NamedTuple):
    """What is taken from the pixels of a chunk.

    Number of pixels, sum and sum of squares of their intensities, for each of `estimates._PIXELS`, (5, 3)
    int64; a hash of each section that can tell whether two chunks have it, (n,) uint64; the shape (x, y, z).
    """

    sums: np.ndarray
    hashes: np.ndarray
    shape: tuple[int, ...]


def _read(data: Dataset, p: Fingerprint) -> tuple[dict[str, _Pixels], list[Problem], dict[str, str]]:
    """What the pixels of chunks say, by synapse id; what is found; and why chunks are left out."""
    if data.meta.empty:
        raise TableError(f"{data.folder / 'meta.csv'}: lists no chunk")
    cutout, spacing = map(data.parameter, ("cutout_pixel_value", "axial_to_sagittal_spacing"))
    measure = partial(_reduce_pixels, cutout=cutout, labels=_labels_with_em(data))
    work = partial(verify.examine, spacing=spacing, measure=measure)
    findings, measured = verify.read(data, work, "Reading", True, p.n_workers, p.scheduler)
    read, failures = problems.parted(measured.items(), data.meta["synapse_id"])
    if not read:
        raise FailedChunksError(f"no chunk could be read: {listed(failures.values(), 3)}")
    return read, findings, failures


def _labels_with_em(data: Dataset) -> list[int]:
    """Labels, of those of `kernels.count_by_label`, whose pixels the cutting of EM along labels has left."""
    if not data.parameters.get("cut_intensity_with_seg_masks"):
        return [0, 1, 2, 3, 4]
    return sorted({min(label, 4) for label in data.parameter("output_channel_desc")[0]})


def _reduce_pixels(
    row: Mapping[str, Any], tensor_cxyz: np.ndarray, cutout: int, labels: Sequence[int]
) -> _Pixels | ChunkError:
    from synprep._core import kernels  # loading the compiler takes a moment

    n_channels, *_, n_sections = tensor_cxyz.shape
    if n_channels != 2:
        kind = "must have two channels, intensity and labels (c, x, y, z)"
        return ChunkError(kind, f"it is {tensor_cxyz.shape}", row["path"])
    if n_sections != len(row["is_blanked"]):
        found = f"{len(row['is_blanked'])} in sections.csv, {n_sections} in the file"
        return ChunkError("number of sections is not that of the table", found, row["path"])
    em_xyz, mask_xyz = tensor_cxyz
    counts, blanked = kernels.count_by_label(em_xyz, mask_xyz, row["is_blanked"])
    imaged = np.zeros_like(counts)
    imaged[labels] = arrays.imaged(counts[labels], cutout)
    groups = np.stack([imaged.sum(axis=0), (counts + blanked).sum(axis=0), *imaged[1:4]])
    sums = groups @ np.stack([arrays.INTENSITIES**power for power in (0, 1, 2)], axis=1)
    return _Pixels(sums, _hashes(em_xyz), em_xyz.shape)


def _hashes(em_xyz: np.ndarray) -> np.ndarray:
    """Hash (FNV-1) of each section that is not all of one intensity, such as one that is blanked."""
    hashes_z = _hash_columns(_hash_columns(em_xyz))
    return hashes_z[em_xyz.min(axis=0).min(axis=0) < em_xyz.max(axis=0).max(axis=0)]


def _hash_columns(values: np.ndarray) -> np.ndarray:
    """Hash along the first axis."""
    hashes = np.full(values.shape[1:], _FNV_START)
    for row in values:
        hashes ^= row
        hashes *= _FNV_PRIME
    return hashes


def _describe(rows: pd.DataFrame) -> dict[str, Any]:
    """What is known of a chunk from the table of its sections; for `_sums` see `estimates`."""
    values, ratios = _usable(rows) / 255, _log_ratios(rows)
    brightness, contrast = values[:, np.isfinite(values[0])]
    products = ratios[:, :-1] * ratios[:, 1:]
    parts = [np.isfinite(ratios), ratios**2, np.isfinite(products), products]
    sums = np.stack([np.nansum(part, axis=1) for part in parts], axis=1)
    return {
        "n_sections": len(rows),
        "n_blanked": rows["is_blanked"].sum(),
        "n_runs": len(_run_lengths(rows["is_blanked"])),
        "brightness": brightness.mean() if brightness.size else math.nan,
        "contrast": math.sqrt((contrast**2).mean()) if contrast.size else math.nan,
        "brightness_sums": sums[0],
        "contrast_sums": sums[1],
    }


def _usable(rows: pd.DataFrame) -> np.ndarray:
    """Means and stds of a chunk's sections, (2, z); NaN for those that are blanked or lack one."""
    values = rows[["mean", "std"]].to_numpy().T
    return np.where(~rows["is_blanked"].to_numpy() & (values > 0).all(axis=0), values, np.nan)


def _log_ratios(rows: pd.DataFrame) -> np.ndarray:
    """Log of each section's mean and std over the next one's, (2, z - 1); NaN where one is left out."""
    logs = np.log(_usable(rows))
    return logs[:, :-1] - logs[:, 1:]


def _run_lengths(is_blanked_z: Sequence[bool]) -> np.ndarray:
    """Lengths of the runs of neighbours that are all blanked."""
    edges = np.flatnonzero(np.diff([0, *is_blanked_z, 0]))
    return edges[1::2] - edges[::2]


def _boxes(data: Dataset, synapse_ids: list[str]) -> np.ndarray:
    """First voxel of each chunk, from `sources.csv`; (n, 3) float64, NaN where it is not known."""
    path = data.folder / "sources.csv"
    rows = read_table(path) if path.exists() else pd.DataFrame({"synapse_id": []})
    rows = rows.drop_duplicates("synapse_id").set_index("synapse_id")
    rows = rows.reindex(index=synapse_ids, columns=["start_x", "start_y", "start_z"])
    return rows.apply(pd.to_numeric, errors="coerce").to_numpy(float)


def _groups(read: Sequence[_Pixels], boxes: np.ndarray) -> np.ndarray:
    """Number of the group of each chunk, from 0: chunks that share EM, directly or through others."""
    from scipy.sparse import coo_array, csgraph  # loading them takes a moment
    from scipy.spatial import KDTree

    n_chunks = len(read)
    owners = np.repeat(np.arange(n_chunks), [len(one.hashes) for one in read])
    sections, held = np.unique(np.concatenate([one.hashes for one in read]), return_inverse=True)
    holding = np.stack([owners, n_chunks + held], axis=1)  # a chunk, and a section that it has
    # Boxes of one shape overlap if all three starts differ by less than it.
    known = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    starts = KDTree(boxes[known] / np.max([one.shape for one in read], axis=0))
    overlapping = known[starts.query_pairs(1 - 1e-6, p=np.inf, output_type="ndarray")]
    links, n_nodes = np.concatenate([holding, overlapping]), n_chunks + len(sections)
    graph = coo_array((np.ones(len(links)), links.T), shape=(n_nodes, n_nodes))
    return csgraph.connected_components(graph, directed=False)[1][:n_chunks]


def _about(
    data: Dataset, p: Fingerprint, synapse_ids: list[str], chunks: Chunks, boxes: np.ndarray
) -> dict[str, Any]:
    """What the numbers are from."""
    groups = [list(one) for _, one in pd.Series(synapse_ids).groupby(chunks["group"])]
    n_chunks, n_groups = len(synapse_ids), len(groups)
    return {
        "data_set": shown(data.folder),
        "synapse_ids": synapse_ids,
        "n_chunks": n_chunks,
        "n_sections": int(chunks["n_sections"].sum()),
        "n_blanked_sections": int(chunks["n_blanked"].sum()),
        "axial_to_sagittal_spacing": data.parameter("axial_to_sagittal_spacing"),
        "spacing_xyz_nm": data.spacing_xyz_nm if "voxel_size_xy_nm" in data.parameters else None,
        "cutout_pixel_value": data.parameter("cutout_pixel_value"),
        "seed": p.seed,
        "intervals": _intervals(n_chunks, n_groups, p.seed),
        **provenance.versions(),
        "n_groups": n_groups,
        "groups": [one for one in groups if len(one) > 1],
        "shared_em": _shared_em(data, n_chunks, n_groups, int(np.isfinite(boxes).all(axis=1).sum())),
    }


def _intervals(n_chunks: int, n_groups: int, seed: int) -> str:
    """What the intervals are from."""
    if n_groups == 1:
        why = "there is one" if n_chunks == 1 else "all share EM"
        return f"none, since they come from drawing chunks and {why}"
    what = "chunks" if n_groups == n_chunks else "groups"
    text = f"95 % from {estimates.N_RESAMPLES} draws of {n_groups} {what} with replacement, seed {seed}"
    return text + (f"; too narrow, since {what} are few" if n_groups < 10 else "")


def _shared_em(data: Dataset, n_chunks: int, n_groups: int, n_boxes: int) -> str:
    """What is known of EM that chunks share, of which so many have a box in `sources.csv`."""
    what = "none share EM" if n_groups == n_chunks else "the chunks of a group share EM"
    text = f"{counted(n_chunks, 'chunk')}, {counted(n_groups, 'group')}: {what}, told by equal sections"
    if n_boxes:
        text += " or overlapping boxes in sources.csv"
    if n_boxes < n_chunks:
        text += "; what they share with a shift in x or y goes unseen without sources.csv"
        text += f", which has {n_boxes} of them" if n_boxes else ""
    if data.parameters.get("cut_intensity_with_seg_masks"):
        text += "; EM that is cut along labels is equal only where these are"
    return text


def _count_blanked(chunks: Chunks, tables: Sequence[pd.DataFrame], numbers: _Record) -> dict[str, Any]:
    """Chunks by number of blanked sections, found and expected by the model; runs of these by length."""
    n_chunks = np.bincount(chunks["n_blanked"], minlength=4)
    model = [numbers[name]["value"] for name in ("section_cutout_prob", "cutout_poisson_rate")]
    expected = (
        estimates.expected_chunks(chunks["n_sections"], *model, len(n_chunks) - 1) if all(model) else None
    )
    lengths = np.concatenate([_run_lengths(rows["is_blanked"]) for rows in tables])
    return {"n_chunks": n_chunks, "model": expected, "n_runs": np.bincount(lengths, minlength=1)}


def _count_ratios(tables: Sequence[pd.DataFrame], numbers: _Record) -> dict[str, Any]:
    """Histograms of neighbours' log ratios, outer bins with all beyond; and what slopes would give."""
    ratios = np.concatenate([_log_ratios(rows) for rows in tables], axis=1)
    ratios = ratios[:, np.isfinite(ratios[0])]
    found = {"n_section_pairs": ratios.shape[1]}
    for what, values in zip(("brightness", "contrast"), ratios, strict=True):
        edges = arrays.bin_edges(values)
        counts, model = np.histogram(values.clip(edges[0], edges[-1]), edges)[0], None
        if width := numbers[f"section_{what}_half_width"]["value"]:
            # The difference of two uniform draws has the shape of a triangle.
            peak = len(values) * (edges[1] - edges[0]) / (2 * width)
            model = {"log_ratio": [-2 * width, 0.0, 2 * width], "n": [0.0, peak, 0.0]}
        found[what] = {"edges": edges, "n": counts, "model": model}
    return found


def as_table(record: _Record, group: str) -> pd.DataFrame:
    """Numbers of one group for a person to read.

    Parameters
    ----------
    record : mapping
        See `run`.
    group : {"intensity", "blanked_sections", "section_variation", "chunk_variation", "label_volumes"}
        Key of its `numbers`.

    Returns
    -------
    DataFrame
        Index: name; columns value, low and high (float; NaN where there is none), and over.
    """
    rows = {
        name: [number["value"], *(number["interval"] or [None, None]), _amounts(number)]
        for name, number in record["numbers"][group].items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "over"])
    return table.astype({"value": float, "low": float, "high": float})


def _amounts(number: _Record) -> str:
    return ", ".join(counted(n, unit.rstrip("s")) for unit, n in number["over"].items())


def blanked_table(record: _Record) -> pd.DataFrame:
    """Number of chunks by number of blanked sections.

    Parameters
    ----------
    record : mapping
        See `run`.

    Returns
    -------
    DataFrame
        Index: number of blanked sections; columns found, and expected by the model (float; NaN if withheld).
    """
    columns = {"found": record["blanked"]["n_chunks"], "expected": record["blanked"]["model"]}
    return pd.DataFrame(columns).astype({"expected": float}).rename_axis("blanked sections")


def withheld(record: _Record) -> list[str]:
    """Say which numbers are withheld, and why.

    Parameters
    ----------
    record : mapping
        See `run`.

    Returns
    -------
    list of str
        One text for each reason, with the names of its numbers.
    """
    names = defaultdict(list)
    for name, number in _by_name(record).items():
        names[number["withheld"]].append(name)
    return [f"{', '.join(same)}: withheld, {reason}" for reason, same in names.items() if reason]


def _by_name(record: _Record) -> dict[str, dict[str, Any]]:
    return {name: number for group in record["numbers"].values() for name, number in group.items()}


_ABOUT = """What the data decide of the configuration of SynapseCLR's augmenter. Data set: {data_set}. All
numbers, and how each was computed, are in fingerprint.json. Intervals (in parentheses): {intervals}.
{shared_em}."""
_SCALE = "Grey levels of the arrays (uint8) to 0..1."
_CHECKPOINT = """A pretrained checkpoint wants the mean and standard deviation it was trained with instead
(upstream 0.44 and 0.28). They also set what a model sees where pixels are masked: 0 becomes -mean/std, which
is {masked:.2f} here and -1.57 upstream."""
_SPACING = "z spacing over xy spacing: a parameter that the data set was made with, not measured."
_NATURAL = """Natural rates: random changes of the augmenter that would make sections and chunks differ as
these do. Do not paste them as they are. The data have these differences already, and the augmenter's come on
top; and those are meant to be stronger than nature, so that a model learns to see through them: upstream
trains with what is named last. Each slope is the uniform one that would alone give what is seen in brightness
or in contrast: all else that varies counts as slope, and sections that were equalised hide slopes."""
_RATES = {  # what is named, upstream's value, and the number that it is from
    "section_cutout_prob": ("0.5", "section_cutout_prob"),
    "cutout_poisson_rate": ("10", "cutout_poisson_rate"),
    "sectional_intensity_slope_min/max from brightness": ("0.9/1.1", "section_brightness_half_width"),
    "sectional_intensity_slope_min/max from contrast": ("0.9/1.1", "section_contrast_half_width"),
    "global_intensity_slope_min/max from brightness": ("0.9/1.1", "chunk_brightness_half_width"),
    "global_intensity_slope_min/max from contrast": ("0.9/1.1", "chunk_contrast_half_width"),
}


def configuration(record: _Record) -> str:
    """Text of `augmenter.yaml`.

    Parameters
    ----------
    record : mapping
        See `run`.

    Returns
    -------
    str
        YAML with four keys: norm_scale, intensity_mean and intensity_std (of imaged pixels), and
        axial_to_sagittal_spacing. What they are from, and the strengths of random changes that would make
        data look so, are comments.

    Raises
    ------
    StatisticsError
        If there are no imaged pixels, or all have the same intensity.
    """
    numbers = _by_name(record)
    mean, std = (_positive(name, numbers[name]["value"]) for name in ("intensity_mean", "intensity_std"))
    parts = [
        _comment(_ABOUT.format(**record)) + "\n",
        _comment(_SCALE),
        "norm_scale: 255.0\n",
        _comment(_origin("Mean", "intensity_mean", numbers)),
        f"intensity_mean: {_digits(mean, 6)}",
        _comment(_origin("Standard deviation", "intensity_std", numbers)),
        f"intensity_std: {_digits(std, 6)}",
        _comment(_CHECKPOINT.format(masked=-mean / std)) + "\n",
        _comment(_SPACING),
        f"axial_to_sagittal_spacing: {_digits(record['axial_to_sagittal_spacing'])}\n",
        _comment(_NATURAL),
        *(_comment(_rate(what, *upstream, numbers), "    ") for what, upstream in _RATES.items()),
    ]
    return "\n".join(parts) + "\n"


def save_configuration(path: str | Path, record: _Record) -> str:
    """Write `augmenter.yaml`, whole or not at all.

    Parameters
    ----------
    path : str or Path
        File to write or replace; its folder is made when missing.
    record : mapping
        See `run`.

    Returns
    -------
    str
        What was written, see `configuration`, which may raise as well.
    """
    text = configuration(record)
    files.save_bytes(path, text.encode())
    return text


def _positive(name: str, value: float | None) -> float:
    if value is None or not math.isfinite(value) or value <= 0:
        found = "not known" if value is None else f"{value:g}"
        raise StatisticsError(
            f"{name} is {found}, so there is no augmenter.yaml: the data set has no imaged pixels of "
            "different intensity; look at cutout_pixel_value and cutout_threshold of preprocess"
        )
    return value


def _digits(value: float, precision: int | None = None) -> str:
    """Write a number so that YAML reads it as one, never with an exponent."""
    return np.format_float_positional(value, precision, fractional=False, trim="0")


def _origin(what: str, name: str, numbers: _Record) -> str:
    number, with_blanks = numbers[name], numbers[f"{name}_with_blanks"]["value"]
    text = f"{what} of imaged pixels on 0..1{_interval(number)}, from {_amounts(number)}."
    return f"{text} Of all pixels, blanked ones as 0, it is {with_blanks:.4f}."


def _interval(number: _Record) -> str:
    return " ({:.4g} to {:.4g})".format(*number["interval"]) if number["interval"] else ""


def _rate(what: str, upstream: str, name: str, numbers: _Record) -> str:
    """Natural strength of one random change, beside upstream's."""
    number, value = numbers[name], numbers[name]["value"]
    if number["withheld"]:
        return f"{what}: withheld, {number['withheld']}; upstream {upstream}"
    bounds = f"{1 - value:.4f}/{1 + value:.4f}, half-width " if name.endswith("half_width") else ""
    return f"{what}: {bounds}{value:.4g}{_interval(number)}; upstream {upstream}"


def _comment(text: str, indent: str = "") -> str:
    """Lines of a YAML comment, whatever is in the text."""
    safe = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return "\n".join(f"# {line}" for line in textwrap.wrap(safe, 100, subsequent_indent=indent))
