"""What a person looks at: which synapses, their voxels, and what is unusual in the whole table.

`data` is a processed or merged data set, as `load` returns it.
"""

import base64
import html
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from synprep._core import arrays, chunk, execution, npy, pair_checks, problems, tables
from synprep._core.arrays import Synapse
from synprep._core.chunk import Kept, RawPair
from synprep._core.dataset import Dataset, load
from synprep._core.errors import ChunkError, TableError, composed, counted, listed
from synprep._core.npy import NpyFile
from synprep._core.pair_checks import PairMeasures
from synprep._core.problems import Problem
from synprep.pairing import Pair
from synprep.params import Extract, Inspect, InspectRaw, from_mapping

if TYPE_CHECKING:
    import ipywidgets

__all__ = [
    "browse",
    "choose",
    "links",
    "load",
    "load_raw",
    "load_synapses",
    "quantities",
    "save_unusual",
    "tell",
    "unusual",
]

# Beyond the quartiles by this many times their distance: "far out" of J. W. Tukey, Exploratory Data Analysis,
# 1977; taken of logarithms, since volumes spread over decades.
_FAR_OUT = 3.0
_MANY_BLANKED = 1 / 4  # of the sections of a chunk
_BLANKED = "blanked sections"
_CHECKED = ("n_sections", "n_kept_sections", "warnings", "not_measured")  # beside what is measured
_NEUROGLANCER = "https://neuroglancer-demo.appspot.com/#!"


def choose(data: Dataset, p: Inspect) -> pd.DataFrame:
    """Choose the synapses to look at, by `n_examples`, `order_by`, `seed` and `synapse_ids_path`.

    Returns
    -------
    DataFrame
        The first `n_examples` rows of `meta.csv` in the order that was asked for. Worst first: without cleft,
        then by the number of blanked sections, most first, then by the volume of the cleft, smallest first.

    Raises
    ------
    TableError
        If the table of ids cannot be read, none of its ids is in the data set, or the data set is empty.
    """
    if data.meta.empty:
        raise TableError(f"{data.folder / 'meta.csv'}: lists no synapse")
    meta = _asked_for(data.meta, p.synapse_ids_path) if p.synapse_ids_path else data.meta
    if p.order_by == "random":
        meta = meta.sample(frac=1, random_state=p.seed)
    if p.order_by == "worst":
        cleft, n_blanked = meta["synaptic_cleft_volume"], meta["n_cutout_sections"]
        meta = meta.iloc[np.lexsort([cleft, -n_blanked, cleft > 0])]  # the last key is compared first
    return meta.head(p.n_examples).reset_index(drop=True)


def _asked_for(meta: pd.DataFrame, synapse_ids_path: str) -> pd.DataFrame:
    """Rows of the ids in a table of ids, in its order; ids that are not in the data set are printed."""
    wanted = pd.Series(tables.read_ids(synapse_ids_path))
    meta = meta.set_index(meta["synapse_id"].map(composed), drop=False)
    is_known = wanted.isin(meta.index)
    strange = wanted[~is_known]
    if not is_known.any():
        raise TableError(f"{synapse_ids_path}: none of its ids is in the data set: {listed(wanted, 3)}")
    if not strange.empty:
        print(f"{counted(len(strange), 'id')} of synapse_ids_path not in the data set: {listed(strange)}")
    return meta.loc[wanted[is_known]]


def load_synapses(data: Dataset, synapse_ids: Iterable[str]) -> tuple[list[Synapse], dict[str, str]]:
    """Load synapses of a data set; one that cannot be loaded does not stop the others.

    Returns
    -------
    synapses : list of Synapse
        Those that could be loaded, in the order of the ids; the EM is put together if it was cut by labels.
    failures : dict of str to str
        Reason by synapse id for the others.
    """
    return _load_all(partial(_load_one, data), synapse_ids)


def load_raw(
    pairs: Iterable[Pair], p: InspectRaw | Extract
) -> tuple[list[Synapse], pd.DataFrame, list[Problem], dict[str, str]]:
    """Load the sections of raw pairs that preprocess would keep, and measure the whole chunks.

    What extract does not take, such as `n_sections`, is as by default.

    Returns
    -------
    synapses : list of Synapse
        Those that could be loaded, with the labels mapped as preprocess would map them; nothing is blanked.
    checks : DataFrame
        Index synapse_id; `mask_fits` (True, False, or None where it could not be measured), `fit_score`,
        `shift_x` and `shift_y` (pixels by which the mask would have to be moved to fit best), correlations of
        neighbours along x, y and z, `cleft_ratio`, `n_sections` and `n_kept_sections`, `warnings` and
        `not_measured` (lists of texts).
    found : list of Problem
        What `tell` says of them: warnings, and, as notes, what could not be measured.
    failures : dict of str to str
        Reason by synapse id for the others.
    """
    if isinstance(p, Extract):
        p, _ = from_mapping(InspectRaw, vars(p))
    by_id = {pair.synapse_id: pair for pair in pairs}
    loaded, failures = _load_all(lambda synapse_id: _load_raw_one(by_id[synapse_id], p), by_id)
    names = [*(one.name for one in fields(PairMeasures)), *_CHECKED]
    checks = pd.DataFrame([row for _, row, _ in loaded], [one.synapse_id for one, *_ in loaded], names)
    found = [problem for *_, of_chunk in loaded for problem in of_chunk]
    return [one for one, *_ in loaded], checks.rename_axis("synapse_id"), found, failures


def _load_all(load_one: Callable[[str], Any], synapse_ids: Iterable[str]) -> tuple[list[Any], dict[str, str]]:
    synapse_ids = list(dict.fromkeys(synapse_ids))
    outcomes = execution.attempt_all(load_one, synapse_ids, "Loading", n_workers=1)
    loaded, failures = problems.parted(outcomes, synapse_ids)
    return list(loaded.values()), failures


def _load_one(data: Dataset, synapse_id: str) -> Synapse:
    row = data.meta[data.meta["synapse_id"] == synapse_id].iloc[0]
    path = data.folder / row["filename"]
    with NpyFile(path) as file:
        shape, dtype = file.header.shape, file.header.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[0] < 2:
            raise ChunkError("not a uint8 tensor with the axes (c, x, y, z)", f"it is {dtype} {shape}", path)
        tensor_cxyz = file.read()
    em_xyz, mask_xyz = tensor_cxyz[:-1].max(axis=0), tensor_cxyz[arrays.MASK_CHANNEL]
    blanked = f"{row['n_cutout_sections']} of {mask_xyz.shape[2]} sections blanked"
    volumes = row[list(tables.VOLUME_COLUMNS.values())]
    caption = _caption(f"{synapse_id}: {blanked}", volumes, data.spacing_xyz_nm)
    return Synapse(synapse_id, em_xyz, mask_xyz, _centre(em_xyz, mask_xyz), data.spacing_xyz_nm, caption)


def _load_raw_one(pair: Pair, p: InspectRaw) -> tuple[Synapse, dict[str, Any], list[Problem]]:
    with pair.open() as raw:
        n_sections = raw.shape[2]
        start, stop = arrays.crop_bounds(n_sections, p.axial_to_sagittal_spacing, p.n_sections)
        kept = chunk.keep(raw, (start, stop), p.seg_mask_map, p.cutout_pixel_value)
        of_labels = [*chunk.label_warnings(raw, kept, p.seg_mask_map), *raw.warnings()]
        measures, lacking = _measure(raw, kept, p)
    told = pair_checks.warnings(measures, p.axial_to_sagittal_spacing)
    texts = [f"{kind} {why}" for kind, why in told.items()] + [problem.text for problem in of_labels]
    warnings = [*map(problems.warning, told), *of_labels]
    not_measured = [Problem(kind=f"not measured: {text}", severity="note") for text in lacking]
    found = [replace(problem, synapse_id=pair.synapse_id) for problem in (*warnings, *not_measured)]
    counts = {"n_sections": n_sections, "n_kept_sections": stop - start}
    checks = asdict(measures) | counts | {"warnings": texts, "not_measured": lacking}
    em_xyz, mask_xyz = kept.tensor_cxyz
    spacing_xyz_nm = arrays.spacing_xyz_nm(p.voxel_size_xy_nm, p.axial_to_sagittal_spacing)
    volumes = arrays.label_volumes(kept.counts, p.axial_to_sagittal_spacing).values()
    caption = _caption(f"{pair.synapse_id}: z {start} to {stop - 1} of {n_sections}", volumes, spacing_xyz_nm)
    short = _short([problem.kind for problem in warnings], measures.mask_fits is None and bool(lacking))
    centre_xyz = _centre(em_xyz, mask_xyz)
    one = Synapse(pair.synapse_id, em_xyz, mask_xyz, centre_xyz, spacing_xyz_nm, caption, start, short)
    return one, checks, found


def _centre(em_xyz: np.ndarray, mask_xyz: np.ndarray) -> tuple[int, int, int]:
    """Middle of the cleft; where that section is black, in the nearest one that shows the cleft."""
    x, y, z = arrays.label_centre(mask_xyz, arrays.CLEFT)
    if not em_xyz[:, :, z].any():
        shows_it_z = em_xyz.any(axis=(0, 1)) & (mask_xyz == arrays.CLEFT).any(axis=(0, 1))
        z = min(np.flatnonzero(shows_it_z).tolist() or [z], key=lambda other: abs(other - z))
    return x, y, z


def _measure(raw: RawPair, kept: Kept, p: InspectRaw) -> tuple[PairMeasures, list[str]]:
    """Measure a whole chunk, or the kept sections where no more can be read; and say what is lacking."""
    has_labels, lacking = bool(p.seg_mask_map), []
    try:
        whole = chunk.keep(raw, (0, raw.shape[2]), p.seg_mask_map, p.cutout_pixel_value, npy.reused("tensor"))
    except ChunkError as error:  # in sections that preprocess does not read
        whole, lacking = kept, [f"sections that the crop leaves out ({problems.of_error(error).text})"]
    em_xyz, mask_xyz = whole.tensor_cxyz
    measures = pair_checks.measure(em_xyz, mask_xyz * has_labels, p.cutout_pixel_value, p.voxel_size_xy_nm)
    return measures, lacking + pair_checks.not_measured(measures, has_labels)


def _short(kinds: Sequence[str], is_not_measured: bool) -> str:
    """What stands on a picture: the first kind of warning, and how many more there are."""
    if not kinds:
        return "not measured whether the mask fits" if is_not_measured else ""
    return kinds[0] + (f" (+ {len(kinds) - 1})" if len(kinds) > 1 else "")


def _cubic_um(spacing_xyz_nm: np.ndarray) -> float:
    """Size of a sagittal voxel, the unit of the volumes in `meta.csv`, in cubic micrometres."""
    return float(spacing_xyz_nm[0] / 1000) ** 3


def _caption(what: str, volumes: Iterable[float], spacing_xyz_nm: np.ndarray) -> tuple[str, str]:
    """What is drawn, and how large its labels are, from their volumes in sagittal voxels."""
    named = zip(("pre", "cleft", "post"), volumes, strict=True)
    sizes = [f"{name} {volume * _cubic_um(spacing_xyz_nm):.2g}" for name, volume in named]
    return what, f"{', '.join(sizes)} µm³"


def tell(checks: pd.DataFrame, found: Iterable[Problem]) -> list[str]:
    """Say in lines what `load_raw` has found: counts, what the crop keeps, warnings, what was not measured.

    Parameters
    ----------
    checks : DataFrame
        See `load_raw`.
    found : iterable of Problem
        See `load_raw`; one line for all of one kind.

    Returns
    -------
    list of str
        The first line counts pairs: those with warnings, those of which something could not be measured, and
        those that are neither.
    """
    has_warning, is_lacking = (checks[name].map(bool).to_numpy(bool) for name in ("warnings", "not_measured"))
    n_good = int((~has_warning & ~is_lacking).sum())
    lines = [
        f"{counted(len(checks), 'pair')}: {n_good} without warnings, {has_warning.sum()} with warnings, "
        f"{(is_lacking & ~has_warning).sum()} without warnings but not wholly measured"
    ]
    counts = checks[["n_kept_sections", "n_sections"]].value_counts()
    lines += [
        f"the crop keeps {kept} of {n} sections: {counted(times, 'pair')}"
        for (kept, n), times in counts.items()
    ]
    return lines + [problems.share(same, len(checks)) for same in problems.by_kind(found)]


def links(data: Dataset, synapse_ids: Iterable[str]) -> "_Links | None":
    """Links to Neuroglancer, for chunks that were cut from volumes with a public address.

    Parameters
    ----------
    data : Dataset
        Its run must have had `volumes`, and `sources.csv` is beside its table.
    synapse_ids : iterable of str
        Synapses to link to.

    Returns
    -------
    object or None
        For the end of a cell: one link per synapse, to its centre, with both neurons and the cleft selected.
        None where the volumes are on a disk, or chunks are files.
    """
    volumes = data.parameters.get("volumes") or {}
    layers = {name: volumes.get(name) for name in ("em", "segmentation", "cleft")}
    addresses = {name: one["path"] if isinstance(one, Mapping) else one for name, one in layers.items()}
    public = {name: one for name, one in addresses.items() if one and one.count("://") == 2}
    path = data.folder / "sources.csv"
    if "em" not in public or not path.exists():
        return None
    rows = tables.read_table(path).set_index("synapse_id")
    wanted = [synapse_id for synapse_id in synapse_ids if synapse_id in rows.index]
    return _Links({one: _NEUROGLANCER + quote(json.dumps(_view(rows.loc[one], public))) for one in wanted})


def _view(row: pd.Series, public: Mapping[str, str]) -> dict[str, Any]:
    """State of Neuroglancer: where to look, in nm, and what is selected in which volume."""
    segments = {"segmentation": [row["pre_id"], row["post_id"]], "cleft": [row["cleft_id"]]}
    return {
        "dimensions": {axis: [1e-9, "m"] for axis in "xyz"},
        "position": [float(row[f"centre_{axis}_nm"]) for axis in "xyz"],
        "crossSectionScale": 8,
        "layers": [
            {"type": "image", "name": name, "source": source}
            if name == "em"
            else {"type": "segmentation", "name": name, "source": source, "segments": segments[name]}
            for name, source in public.items()
        ],
    }


@dataclass(frozen=True)
class _Links:
    """What `links` shows."""

    urls: dict[str, str]

    def __repr__(self) -> str:
        return "\n".join(f"{synapse_id}: {url}" for synapse_id, url in self.urls.items())

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        items = self.urls.items()
        return "<br>".join(f'<a href="{url}" target="_blank">{html.escape(one)}</a>' for one, url in items)


def quantities(data: Dataset) -> pd.DataFrame:
    """Quantities of all synapses whose distribution is worth a look.

    Returns
    -------
    DataFrame
        Index synapse_id; volumes of presynaptic, cleft and postsynaptic voxels in cubic micrometres, and the
        number of blanked sections.
    """
    meta = data.meta.set_index("synapse_id")
    size = _cubic_um(data.spacing_xyz_nm)
    volumes = {
        f"{arrays.LABELS[label]} volume (µm³)": meta[column] * size
        for label, column in tables.VOLUME_COLUMNS.items()
    }
    return pd.DataFrame(volumes | {_BLANKED: meta["n_cutout_sections"]})


def unusual(data: Dataset) -> pd.DataFrame:
    """Name what is far from the rest of the data set.

    Returns
    -------
    DataFrame
        synapse_id, quantity (a column of `quantities`), value, why: a volume of zero, or one whose logarithm
        is beyond the quartiles by more than three times their distance; or more than a quarter of the
        sections blanked. In the order of the quantities, then by value.
    """
    found = quantities(data)
    n_sections = data.sections.groupby("synapse_id").size().reindex(found.index, fill_value=0)
    many = found[_BLANKED][found[_BLANKED] > _MANY_BLANKED * n_sections]
    parts = [_far_out(column) for _, column in found.drop(columns=_BLANKED).items()]
    parts.append(_named(many, "more than a quarter of the sections"))
    return pd.concat(parts, ignore_index=True)


def _far_out(column: pd.Series) -> pd.DataFrame:
    positive = np.log(column[column > 0])
    low, high = positive.quantile([0.25, 0.75])
    reach = _FAR_OUT * (high - low)
    is_far = (positive < low - reach) | (positive > high + reach)
    far = column[positive.index[is_far]].sort_values()
    return pd.concat([_named(column[column == 0], "none"), _named(far, "far from the others")])


def _named(column: pd.Series, why: str) -> pd.DataFrame:
    rows = column.rename("value").rename_axis("synapse_id").reset_index()
    return rows.assign(quantity=column.name, why=why)[["synapse_id", "quantity", "value", "why"]]


def save_unusual(path: str | os.PathLike, rows: pd.DataFrame) -> None:
    """Write what `unusual` returned as CSV; the folder is made when missing."""
    tables.save_table(path, rows)


def browse(
    data: Dataset, synapse_ids: Sequence[str], draw_png: Callable[[Synapse, int, bool], bytes]
) -> "_Browser":
    """Choose a synapse, move through its sections, and take the outlines of the labels off, in JupyterLab.

    Parameters
    ----------
    synapse_ids : sequence of str
        Synapses to choose from; at least one.
    draw_png : callable
        Draws a section of a synapse, with or without outlines: `synprep.figures.section_png`.

    Returns
    -------
    object
        For the end of a cell: a picture of one section, at first in the middle of the cleft, and controls;
        the picture alone where nothing is interactive.
    """
    import ipywidgets  # here, since few notebooks need it

    load_one = lru_cache(maxsize=2)(partial(_load_one, data))
    chosen = ipywidgets.Dropdown(options=list(synapse_ids), description="synapse")
    at = ipywidgets.IntSlider(description="section z", layout={"width": "500px"})
    outlines = ipywidgets.Checkbox(value=True, description="outlines")
    picture = ipywidgets.Image(layout={"align_self": "flex-start", "max_width": "100%"})
    message = ipywidgets.HTML()  # a Label would show mathematics

    def show(*_) -> None:
        try:
            one = load_one(chosen.value)
        except ChunkError as error:
            picture.value, message.value = b"", html.escape(str(error))
            return
        at.max = one.em_xyz.shape[2] - 1
        picture.value = draw_png(one, at.value, outlines.value)
        is_blanked = not one.em_xyz[:, :, at.value].any()
        said = [*one.caption, *(["this section is blanked"] if is_blanked else [])]
        message.value = html.escape("; ".join(said))

    def go_to_cleft(*_) -> None:
        show()
        with suppress(ChunkError):
            at.value = load_one(chosen.value).centre_xyz[2]

    at.observe(show, "value")
    outlines.observe(show, "value")
    chosen.observe(go_to_cleft, "value")
    go_to_cleft()
    return _Browser(ipywidgets.VBox([chosen, at, outlines, picture, message]), picture)


@dataclass(frozen=True)
class _Browser:
    """What `browse` shows."""

    box: "ipywidgets.VBox"
    picture: "ipywidgets.Image"

    def _repr_mimebundle_(self, **_) -> dict[str, Any]:
        """What Jupyter stores of it."""
        still = base64.b64encode(self.picture.value).decode()
        as_text = "one section, with controls in JupyterLab"
        return {**self.box._repr_mimebundle_(), "image/png": still, "text/plain": as_text}
