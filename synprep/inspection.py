"""What a person looks at: which synapses, their voxels, and what is unusual in the whole table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial

import numpy as np
import pandas as pd

from synprep import chunk, execution, labels, pair_checks, storage, table, volume
from synprep.dataset import Dataset
from synprep.errors import ChunkError, TableError, counted, listed
from synprep.pairing import Pair
from synprep.params import Chunks, Inspect, InspectRaw, Preprocess

# Beyond the quartiles by this many times their distance: "far out" of J. W. Tukey, Exploratory Data Analysis,
# 1977; taken of logarithms, since volumes spread over decades.
FAR_OUT = 3.0
MANY_BLANKED = 0.25  # of the sections of a chunk
_UNUSUAL_COLUMNS = ["synapse_id", "quantity", "value", "why"]


@dataclass(frozen=True)
class Synapse:
    """Voxels of one synapse, ready to be drawn.

    Parameters
    ----------
    synapse_id : str
        Synapse id.
    em_xyz, mask_xyz : (x, y, z) uint8 ndarray
        EM intensity, and labels 0 to 3.
    centre_xyz : tuple of int
        Voxel in the middle of the cleft; that of the chunk when there is no cleft.
    spacing_xyz_nm : (3,) float64 ndarray
        Voxel size.
    caption : tuple of str
        Lines that say what a person should know of it.
    """

    synapse_id: str
    em_xyz: np.ndarray
    mask_xyz: np.ndarray
    centre_xyz: tuple[int, int, int]
    spacing_xyz_nm: np.ndarray
    caption: tuple[str, ...]


def choose(data: Dataset, p: Inspect) -> pd.DataFrame:
    """Choose the synapses to look at.

    Parameters
    ----------
    data : Dataset
        Processed or merged data set.
    p : Inspect
        Parameters: `n_examples`, `order_by`, `seed`, `synapse_ids_path`.

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
    meta = data.meta.set_index("synapse_id", drop=False)
    if p.synapse_ids_path:
        wanted = storage.read_table(p.synapse_ids_path)["synapse_id"].drop_duplicates()
        known = wanted[wanted.isin(meta.index)]
        if known.empty:
            raise TableError(f"{p.synapse_ids_path}: none of its ids is in the data set: {listed(wanted, 3)}")
        if len(known) < len(wanted):
            strange = wanted[~wanted.isin(meta.index)]
            print(f"{counted(len(strange), 'id')} of synapse_ids_path not in the data set: {listed(strange)}")
        meta = meta.loc[known]
    if p.order_by == "random":
        meta = meta.sample(frac=1, random_state=p.seed)
    if p.order_by == "worst":
        has_cleft = meta["synaptic_cleft_volume"] > 0
        meta = meta.assign(has_cleft=has_cleft, n_imaged=-meta["n_cutout_sections"])
        meta = meta.sort_values(["has_cleft", "n_imaged", "synaptic_cleft_volume"], kind="stable")
    return meta[list(data.meta.columns)].head(p.n_examples).reset_index(drop=True)


def load(data: Dataset, synapse_ids: Iterable[str]) -> tuple[list[Synapse], dict[str, str]]:
    """Load synapses of a processed data set; one that cannot be loaded does not stop the others.

    Parameters
    ----------
    data : Dataset
        Processed or merged data set.
    synapse_ids : iterable of str
        Some of its ids.

    Returns
    -------
    synapses : list of Synapse
        Those that could be loaded, in the order of the ids.
    failures : dict of str to str
        Reason by synapse id for the others.
    """
    return _load_all({synapse_id: partial(load_one, data, synapse_id) for synapse_id in synapse_ids})


def _load_all(loaders: Mapping[str, Callable[[], Synapse]]) -> tuple[list[Synapse], dict[str, str]]:
    work = execution.attempt_all(lambda key: loaders[key](), loaders, "Loading", n_workers=1)
    outcomes = dict(work)
    failures = {key: one.problem for key, one in outcomes.items() if isinstance(one, ChunkError)}
    return [outcomes[key] for key in loaders if key not in failures], failures


def load_one(data: Dataset, synapse_id: str) -> Synapse:
    """Load a synapse of a processed data set.

    Parameters
    ----------
    data : Dataset
        Processed or merged data set.
    synapse_id : str
        One of its ids.

    Returns
    -------
    Synapse
        The EM is the sum of its channels, if it was cut into several.

    Raises
    ------
    ChunkError
        If the file cannot be read or is no tensor.
    """
    row = data.meta[data.meta["synapse_id"] == synapse_id].iloc[0]
    path = data.folder / row["filename"]
    header = storage.read_header(path)
    if len(header.shape) != 4 or header.shape[0] < 2:
        raise ChunkError("not a tensor with the axes (c, x, y, z)", f"its shape is {header.shape}", path)
    tensor_cxyz = storage.read_sections(path, header).copy()
    em_xyz, mask_xyz = tensor_cxyz[:-1].max(axis=0), tensor_cxyz[labels.MASK_CHANNEL]
    blanked = f"{row['n_cutout_sections']} of {mask_xyz.shape[2]} sections blanked"
    volumes = row[list(table.VOLUME_COLUMNS.values())].astype(float)
    caption = (f"{synapse_id}: {blanked}", _volumes_text(volumes * cubic_um(data.spacing_xyz_nm)))
    centre_xyz = volume.label_centre(mask_xyz, labels.CLEFT)
    return Synapse(synapse_id, em_xyz, mask_xyz, centre_xyz, data.spacing_xyz_nm, caption)


def check_raw(synapses: Iterable[Synapse], p: InspectRaw) -> tuple[pd.DataFrame, list[str]]:
    """Measure whether masks fit their EM and whether the axes are in order.

    Parameters
    ----------
    synapses : iterable of Synapse
        Result of `load_raw`.
    p : InspectRaw
        Parameters.

    Returns
    -------
    measures : DataFrame
        Index synapse_id; the numbers of `synprep.pair_checks.PairMeasures`.
    warnings : list of str
        What the numbers mean, where they are not as they should be; with the id.
    """
    measured = {
        one.synapse_id: pair_checks.measure(one.em_xyz, one.mask_xyz, p.cutout_pixel_value)
        for one in synapses
    }
    rows = {synapse_id: asdict(measures) for synapse_id, measures in measured.items()}
    warnings = [
        f"{synapse_id}: {warning}"
        for synapse_id, measures in measured.items()
        for warning in pair_checks.warnings(measures, p.axial_to_sagittal_spacing)
    ]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("synapse_id"), warnings


def cubic_um(spacing_xyz_nm: np.ndarray) -> float:
    """Size of a sagittal voxel, the unit of the volumes in `meta.csv`.

    Parameters
    ----------
    spacing_xyz_nm : (3,) ndarray
        Voxel size in nm; x and y are equal.

    Returns
    -------
    float
        Cube of the xy spacing, in cubic micrometres.
    """
    return float(spacing_xyz_nm[0] / 1000) ** 3


def _volumes_text(volumes_um3: Sequence[float]) -> str:
    parts = [f"{name} {value:.2g}" for name, value in zip(("pre", "cleft", "post"), volumes_um3, strict=True)]
    return f"{', '.join(parts)} µm³"


def load_raw(pairs: Iterable[Pair], p: InspectRaw) -> tuple[list[Synapse], dict[str, str]]:
    """Load the sections of raw pairs that preprocess would keep; nothing is blanked.

    Parameters
    ----------
    pairs : iterable of Pair
        EM and mask files.
    p : InspectRaw
        Parameters.

    Returns
    -------
    synapses : list of Synapse
        Those that could be loaded, with the labels mapped as preprocess would map them; its warnings are in
        the caption.
    failures : dict of str to str
        Reason by synapse id for the others.
    """
    return _load_all({pair.synapse_id: partial(_load_raw_one, pair, p) for pair in pairs})


def _load_raw_one(pair: Pair, p: InspectRaw) -> Synapse:
    shared = {f.name: getattr(p, f.name) for f in fields(Chunks)} | {"seg_mask_map": p.seg_mask_map}
    processed = chunk.process(pair, Preprocess(**shared | {"cutout_threshold": 1.0}))
    em_xyz, mask_xyz = processed.tensor_cxyz.copy()
    centre_xyz = volume.label_centre(mask_xyz, labels.CLEFT)
    spacing_xyz_nm = p.voxel_size_xy_nm * np.array([1, 1, p.axial_to_sagittal_spacing])
    volumes = [processed.row[column] * cubic_um(spacing_xyz_nm) for column in table.VOLUME_COLUMNS.values()]
    caption = (pair.synapse_id, _volumes_text(volumes), *processed.warnings)
    return Synapse(pair.synapse_id, em_xyz, mask_xyz, centre_xyz, spacing_xyz_nm, caption)


def quantities(data: Dataset) -> pd.DataFrame:
    """Quantities of all synapses whose distribution is worth a look.

    Parameters
    ----------
    data : Dataset
        Processed or merged data set.

    Returns
    -------
    DataFrame
        Index synapse_id; volumes of presynaptic, cleft and postsynaptic voxels in cubic micrometres, and the
        number of blanked sections.
    """
    meta = data.meta.set_index("synapse_id")
    size = cubic_um(data.spacing_xyz_nm)
    volumes = {
        f"{labels.NAMES[label]} volume (µm³)": meta[column] * size
        for label, column in table.VOLUME_COLUMNS.items()
    }
    return pd.DataFrame(volumes | {"blanked sections": meta["n_cutout_sections"]})


def unusual(data: Dataset) -> pd.DataFrame:
    """Name what is far from the rest of the data set.

    Parameters
    ----------
    data : Dataset
        Processed or merged data set.

    Returns
    -------
    DataFrame
        synapse_id, quantity (a column of `quantities`), value, why: a volume of zero, or one whose logarithm
        is beyond the quartiles by more than `FAR_OUT` times their distance; or more than `MANY_BLANKED` of
        the sections blanked. In the order of the quantities, then by value.
    """
    found = quantities(data)
    n_sections = data.sections.groupby("synapse_id").size().reindex(found.index, fill_value=0)
    parts = [_far_out(column) for name, column in found.items() if name != "blanked sections"]
    blanked = found["blanked sections"]
    many = blanked[blanked > MANY_BLANKED * n_sections]
    parts.append(_named(many, f"more than {MANY_BLANKED:.0%} of the sections"))
    return pd.concat(parts, ignore_index=True)


def _far_out(column: pd.Series) -> pd.DataFrame:
    positive = np.log(column[column > 0])
    low, high = positive.quantile([0.25, 0.75])
    reach = FAR_OUT * (high - low)
    is_far = (positive < low - reach) | (positive > high + reach)
    far = column[positive.index[is_far]].sort_values()
    return pd.concat([_named(column[column == 0], "none"), _named(far, "far from the others")])


def _named(column: pd.Series, why: str) -> pd.DataFrame:
    rows = column.rename("value").rename_axis("synapse_id").reset_index()
    return rows.assign(quantity=column.name, why=why)[_UNUSUAL_COLUMNS]
