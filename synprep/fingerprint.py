"""A processed data set in numbers: what to configure training with, how sure each is, what it is from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from synprep import augmentation, estimates, execution, ledger, sections, storage
from synprep.dataset import Dataset
from synprep.errors import ChunkError, FailedChunksError, TableError, counted, listed
from synprep.params import Fingerprint
from synprep.paths import shown
from synprep.table import VOLUME_COLUMNS


class _Item(NamedTuple):
    """A tensor to read, and which of its sections the table calls blanked."""

    synapse_id: str
    path: Path
    is_blanked_z: np.ndarray


def run(data: Dataset, p: Fingerprint) -> tuple[dict[str, Any], dict[str, str]]:
    """Read each tensor of a data set once, and sum up what its arrays and tables say.

    Parameters
    ----------
    data : Dataset
        Data set, see `synprep.dataset.load`.
    p : Fingerprint
        Parameters.

    Returns
    -------
    record : dict
        The record `fingerprint.json`: the data set and its spacing, counts, seed, versions; `numbers`, see
        `synprep.estimates.numbers`; `blanked` and `neighbours`, histograms that `synprep.figures` draws, with
        what the models of `synprep.augmentation` expect.
    failures : dict of str to str
        Reason by synapse id for each chunk that could not be read; it is left out of all numbers.

    Raises
    ------
    TableError
        If `sections.csv` lacks a chunk of `meta.csv`, there is no chunk, or a parameter that is needed is not
        known, since merged data sets differ in it.
    FailedChunksError
        If no chunk could be read.
    """
    by_id = _sections_by_id(data)
    pixels, failures = _read(data, by_id, p)
    read = data.meta[data.meta["synapse_id"].isin(pixels)]
    rows = [by_id[synapse_id] for synapse_id in read["synapse_id"]]
    chunks = {column: read[column].to_numpy() for column in VOLUME_COLUMNS.values()}
    chunks |= _stacked(pixels[synapse_id] for synapse_id in read["synapse_id"])
    chunks |= _stacked(_describe_sections(one) for one in rows)
    numbers = estimates.numbers(chunks, p.seed)
    record = _about(data, p, list(read["synapse_id"]), chunks) | {
        "numbers": numbers,
        "blanked": _blanked_counts(chunks, rows, numbers["blanked_sections"]),
        "neighbours": _ratio_counts(rows, numbers["section_variation"]),
    }
    return record, failures


def _sections_by_id(data: Dataset) -> dict[str, pd.DataFrame]:
    by_id = dict(iter(data.sections.sort_values("z", kind="stable").groupby("synapse_id")))
    lacking = [synapse_id for synapse_id in data.meta["synapse_id"] if synapse_id not in by_id]
    if lacking:
        raise TableError(f"{data.folder / 'sections.csv'}: has no sections of {listed(lacking)}")
    if data.meta.empty:
        raise TableError(f"{data.folder / 'meta.csv'}: lists no chunk")
    return by_id


def _read(
    data: Dataset, by_id: Mapping[str, pd.DataFrame], p: Fingerprint
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Sums over the pixels of each chunk; failures."""
    work = partial(_count, cutout=data.parameter("cutout_pixel_value"), inside=_label_rows(data))
    items = [
        _Item(synapse_id, data.folder / filename, by_id[synapse_id]["is_blanked"].to_numpy())
        for synapse_id, filename in zip(data.meta["synapse_id"], data.meta["filename"], strict=True)
    ]
    pixels, failures = {}, {}
    for item, outcome in execution.attempt_all(work, items, "Reading", True, p.n_workers, p.scheduler):
        if isinstance(outcome, ChunkError):
            failures[item.synapse_id] = outcome.problem
        else:
            pixels[item.synapse_id] = outcome
    if not pixels:
        raise FailedChunksError(f"no chunk could be read: {listed(failures.values(), 3)}")
    return pixels, dict(sorted(failures.items()))


def _label_rows(data: Dataset) -> list[int]:
    """Rows of `count_by_label` whose pixels were not zeroed by cutting the EM along labels."""
    if not data.parameters.get("cut_intensity_with_seg_masks"):
        return [0, 1, 2, 3, 4]
    return sorted({min(label, 4) for label in data.parameter("output_channel_desc")[0]})


def _count(item: _Item, cutout: int, inside: Sequence[int]) -> dict[str, np.ndarray]:
    """Number of pixels of a tensor, their sum and sum of squares by group."""
    from synprep import kernels  # loading the compiler takes a moment

    header = storage.read_header(item.path)
    _check(header, item)
    em_xyz, mask_xyz = storage.read_sections(item.path, header)
    imaged, blanked = kernels.count_by_label(em_xyz, mask_xyz, item.is_blanked_z)
    as_it_is = (imaged + blanked).sum(axis=0)
    imaged[:, cutout] = 0
    imaged[[row for row in range(5) if row not in inside]] = 0
    groups = [imaged.sum(axis=0), as_it_is, *(imaged[label] for label in estimates.LABELS.values())]
    powers = np.stack([sections.INTENSITIES**power for power in (0, 1, 2)])
    return {f"pixels{end}": powers @ group for end, group in zip(estimates.PIXELS, groups, strict=True)}


def _check(header: storage.Header, item: _Item) -> None:
    if header.dtype != np.uint8 or len(header.shape) != 4 or header.shape[0] != 2:
        kind = "must be uint8 with two channels, intensity and labels (c, x, y, z)"
        raise ChunkError(kind, f"it is {header.dtype} {header.shape}", item.path)
    if header.shape[3] != len(item.is_blanked_z):
        found = f"{len(item.is_blanked_z)} in sections.csv, {header.shape[3]} in the file"
        raise ChunkError("number of sections is not that of the table", found, item.path)


def _stacked(rows: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """One array per name, with a row for each chunk."""
    rows = list(rows)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _describe_sections(rows: pd.DataFrame) -> dict[str, Any]:
    """What is known of a chunk from the table of its sections, see `synprep.estimates`."""
    usable = rows.loc[_is_usable(rows), ["mean", "std"]] / 255
    return {
        "n_sections": len(rows),
        "n_blanked": rows["is_blanked"].sum(),
        "n_runs": len(augmentation.run_lengths(rows["is_blanked"].to_numpy())),
        "brightness_sums": augmentation.ratio_sums(_log_ratios(rows, "mean")),
        "contrast_sums": augmentation.ratio_sums(_log_ratios(rows, "std")),
        "brightness": usable["mean"].mean(),
        "contrast": math.sqrt((usable["std"] ** 2).mean()),
    }


def _is_usable(rows: pd.DataFrame) -> pd.Series:
    return ~rows["is_blanked"] & (rows["mean"] > 0) & (rows["std"] > 0)


def _log_ratios(rows: pd.DataFrame, column: str) -> np.ndarray:
    return augmentation.log_ratios(rows[column].to_numpy(), _is_usable(rows).to_numpy())


def _about(
    data: Dataset, p: Fingerprint, synapse_ids: list[str], chunks: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What the numbers are from."""
    spacing = data.parameter("axial_to_sagittal_spacing")
    return {
        "data_set": shown(data.folder),
        "synapse_ids": synapse_ids,
        "n_chunks": len(synapse_ids),
        "n_sections": int(chunks["n_sections"].sum()),
        "n_blanked_sections": int(chunks["n_blanked"].sum()),
        "axial_to_sagittal_spacing": spacing,
        "spacing_xyz_nm": data.spacing_xyz_nm if "voxel_size_xy_nm" in data.parameters else None,
        "cutout_pixel_value": data.parameter("cutout_pixel_value"),
        "seed": p.seed,
        "intervals": _about_intervals(len(synapse_ids), p.seed),
        **ledger.versions(),
    }


def _about_intervals(n_chunks: int, seed: int) -> str:
    if n_chunks == 1:
        return "none, since they come from drawing chunks and there is one"
    text = f"95 % from {augmentation.N_RESAMPLES} draws of {n_chunks} chunks with replacement, seed {seed}"
    return text + ("; too narrow, since chunks are few" if n_chunks < 10 else "")


def _blanked_counts(
    chunks: Mapping[str, np.ndarray], rows: Sequence[pd.DataFrame], numbers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Chunks by number of blanked sections, found and expected by the model; runs of these by length."""
    n_chunks = np.bincount(chunks["n_blanked"], minlength=4)
    probability, rate = (numbers[name]["value"] for name in ("section_cutout_prob", "cutout_poisson_rate"))
    most = len(n_chunks) - 1
    model = rate and augmentation.expected_chunks(chunks["n_sections"], probability, rate, most)
    lengths = np.concatenate([augmentation.run_lengths(one["is_blanked"].to_numpy()) for one in rows])
    return {"n_chunks": n_chunks, "model": model, "n_runs": np.bincount(lengths, minlength=1)}


def _ratio_counts(rows: Sequence[pd.DataFrame], numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Histograms of neighbours' log ratios, outer bins with all beyond; and what slopes would give."""
    ratios = {
        name: np.concatenate([_log_ratios(one, column) for one in rows])
        for name, column in (("brightness", "mean"), ("contrast", "std"))
    }
    ratios = {name: values[np.isfinite(values)] for name, values in ratios.items()}
    changes = [numbers[f"section_{name}_change"]["value"] or 0.0 for name in ratios]
    reach, n_pairs = 4 * max(changes) or 1.0, len(ratios["contrast"])
    edges = np.linspace(-reach, reach, 2 * min(30, 3 + int(n_pairs ** (1 / 3))))
    width = numbers["section_contrast_half_width"]["value"]
    peak = n_pairs * (edges[1] - edges[0]) / (2 * width) if width else 0.0
    return {
        "n_section_pairs": n_pairs,
        "edges": edges,
        **{name: np.histogram(values.clip(-reach, reach), edges)[0] for name, values in ratios.items()},
        "model": {"log_ratio": [-2 * width, 0.0, 2 * width], "n": [0.0, peak, 0.0]} if width else None,
    }


def as_table(record: Mapping[str, Any], group: str) -> pd.DataFrame:
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
    numbers = record["numbers"][group]
    rows = {
        name: [number["value"], *(number["interval"] or [None, None]), _over_text(number["over"])]
        for name, number in numbers.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "over"])
    return table.astype({"value": float, "low": float, "high": float})


def _over_text(over: Mapping[str, int]) -> str:
    return ", ".join(counted(n, unit.rstrip("s")) for unit, n in over.items())


def blanked_table(record: Mapping[str, Any]) -> pd.DataFrame:
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


def withheld(record: Mapping[str, Any]) -> list[str]:
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
    names = {}
    for name, number in (item for group in record["numbers"].values() for item in group.items()):
        if number["withheld"]:
            names.setdefault(number["withheld"], []).append(name)
    return [f"{', '.join(same)}: withheld, {reason}" for reason, same in names.items()]
