"""What a person looks at: the order, the voxels, and what is named as unusual."""

import base64
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from synprep import figures, inspection, pairing, preprocess
from synprep._core import chunk, dataset, tables
from synprep._core.errors import ChunkError, TableError
from synprep._core.problems import Problem
from synprep._core.synthetic import make_chunk
from synprep.params import Inspect, InspectRaw, Preprocess


def data_of(rows, n_sections=10):
    """Data set without files: rows of id, presynaptic, cleft and postsynaptic volume, blanked sections."""
    meta = pd.DataFrame(rows, columns=["synapse_id", *tables.VOLUME_COLUMNS.values(), "n_cutout_sections"])
    sections = pd.DataFrame({"synapse_id": np.repeat(meta["synapse_id"].to_numpy(), n_sections)})
    parameters = {"voxel_size_xy_nm": 10.0, "axial_to_sagittal_spacing": 4.0}
    return dataset.Dataset(Path("nowhere"), meta, sections, parameters)


DATA = data_of(
    [("a", 1, 50, 1, 0), ("b", 1, 40, 1, 2), ("c", 1, 0, 1, 0), ("d", 1, 9, 1, 0), ("e", 1, 30, 1, 2)]
)


def chosen(**parameters):
    return "".join(inspection.choose(DATA, Inspect(**parameters))["synapse_id"])


def test_worst_first():
    assert chosen() == "cebda"
    assert chosen(n_examples=2) == "ce"


def test_ids_are_matched_in_composed_characters(tmp_path):
    (tmp_path / "ids.csv").write_text("synapse_id\ne\u0301\n\u00f1\n", "utf-8")
    data = data_of([("\u00e9", 1, 1, 1, 0), ("n\u0303", 1, 1, 1, 0), ("o", 1, 1, 1, 0)])
    rows = inspection.choose(data, Inspect(order_by="table", synapse_ids_path=str(tmp_path / "ids.csv")))
    assert rows["synapse_id"].tolist() == ["\u00e9", "n\u0303"]


def test_random_order_follows_the_seed():
    assert sorted(chosen(order_by="random")) == list("abcde")
    assert chosen(order_by="random", seed=1) == chosen(order_by="random", seed=1)
    assert len({chosen(order_by="random", seed=seed) for seed in range(20)}) > 5


def test_the_order_of_the_table_or_of_given_ids(tmp_path, capsys):
    (tmp_path / "ids.csv").write_text("synapse_id\nd\nx\na\n")
    ids = str(tmp_path / "ids.csv")
    assert chosen(order_by="table") == "abcde"
    assert chosen(order_by="table", synapse_ids_path=ids) == "da"
    assert capsys.readouterr().out == "1 id of synapse_ids_path not in the data set: x\n"
    assert chosen(synapse_ids_path=ids) == "da"  # the smaller cleft first
    (tmp_path / "ids.csv").write_text("synapse_id\nx\n")
    with pytest.raises(TableError, match="none of its ids"):
        chosen(synapse_ids_path=ids)


def test_an_empty_data_set_is_refused():
    with pytest.raises(TableError, match="lists no synapse"):
        inspection.choose(data_of([]), Inspect())


def test_quantities_are_in_cubic_micrometres():
    found = inspection.quantities(DATA)
    assert list(found) == [
        "presynaptic volume (µm³)",
        "cleft volume (µm³)",
        "postsynaptic volume (µm³)",
        "blanked sections",
    ]
    assert found.loc["a"].tolist() == pytest.approx([1e-6, 50e-6, 1e-6, 0])


def test_unusual_synapses_are_named():
    volumes = [10, 11, 12, 13, 14, 1000, 0]
    rows = [(str(number), 5, volume, 5, 0) for number, volume in enumerate(volumes)]
    rows[2] = (*rows[2][:4], 2)  # of 8: a quarter
    rows[3] = (*rows[3][:4], 3)
    found = inspection.unusual(data_of(rows, n_sections=8))
    assert found[["synapse_id", "quantity", "why"]].to_numpy().tolist() == [
        ["6", "cleft volume (µm³)", "none"],
        ["5", "cleft volume (µm³)", "far from the others"],
        ["3", "blanked sections", "more than a quarter of the sections"],
    ]
    assert found["value"].tolist() == pytest.approx([0, 1e-3, 3])


def test_nothing_unusual_gives_an_empty_table(tmp_path):
    found = inspection.unusual(data_of([("a", 1, 1, 1, 0)]))
    assert found.empty
    inspection.save_unusual(tmp_path / "new" / "unusual.csv", found)
    assert (tmp_path / "new" / "unusual.csv").read_bytes() == b"synapse_id,quantity,value,why\n"


@pytest.fixture
def raw(write_pair, paths):
    em = np.full((6, 5, 20), 100, np.uint8)
    em[:, :, 8] = 0
    em[3:, :, 9] = 0
    mask = np.zeros((6, 5, 20), np.uint8)
    mask[4, 1, 9:12], mask[0, 0, 10], mask[5, 4, 0] = 2, 1, 3
    write_pair("007", em, mask)
    write_pair("8")
    return paths


def test_a_processed_synapse(raw):
    p = Preprocess(**raw, voxel_size_xy_nm=100.0)
    preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
    data = inspection.load(p.proc_data_path)
    (one,), failures = inspection.load_synapses(data, ["007"])
    assert (one.synapse_id, failures) == ("007", {})
    assert one.em_xyz.shape == one.mask_xyz.shape == (6, 5, 5)
    assert one.centre_xyz == (4, 1, 3)  # z 10 of the chunk
    assert one.spacing_xyz_nm.tolist() == [100, 100, 500]
    assert one.caption == ("007: 2 of 5 sections blanked", "pre 0.005, cleft 0.015, post 0 µm³")


def test_an_id_that_stands_twice_is_loaded_once(raw):
    p = Preprocess(**raw)
    preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
    data = inspection.load(p.proc_data_path)
    twice = replace(data, meta=pd.concat([data.meta, data.meta]))
    chosen_ids = inspection.choose(twice, Inspect())["synapse_id"]
    assert len(inspection.load_synapses(twice, chosen_ids)[0]) == 2


def test_channels_of_a_cut_chunk_are_put_together(raw):
    p = Preprocess(**raw, cut_intensity_with_seg_masks=True, output_channel_desc=[[1, 2], [2, 3]])
    preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
    (one,), _ = inspection.load_synapses(inspection.load(p.proc_data_path), ["007"])
    assert one.em_xyz[4, 1].tolist() == [0, 0, 0, 100, 100]  # of the cleft, in both channels
    assert one.em_xyz[0, 0].tolist() == [0, 0, 0, 100, 0]


def test_loaded_synapses_do_not_share_memory_and_bad_files_are_named(raw):
    p = Preprocess(**raw)
    preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
    data = inspection.load(p.proc_data_path)
    synapses, _ = inspection.load_synapses(data, ["8", "007"])
    assert [one.synapse_id for one in synapses] == ["8", "007"]
    assert not np.array_equal(synapses[0].em_xyz, synapses[1].em_xyz)
    (data.folder / data.meta["filename"][0]).write_bytes(b"x")
    synapses, failures = inspection.load_synapses(data, ["007", "8"])
    assert [one.synapse_id for one in synapses] == ["8"]
    assert "not an npy file" in failures["007"]
    (data.folder / data.meta["filename"][0]).unlink()
    _, failures = inspection.load_synapses(data, ["007"])
    assert failures["007"].endswith("a tensor is made again by preprocess")


def test_arrays_that_are_no_tensors_are_named(raw):
    p = Preprocess(**raw)
    data = preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
    path = Path(p.proc_data_path, data.meta["filename"][0])
    tensor_cxyz = np.load(path)
    for array in (tensor_cxyz.astype("S3"), tensor_cxyz / 7, tensor_cxyz[0], tensor_cxyz[:, :0]):
        np.save(path, array)
        _, failures = inspection.load_synapses(inspection.load(p.proc_data_path), ["007"])
        assert failures["007"].split(":")[0] in (
            "not a uint8 tensor with the axes (c, x, y, z)",
            "array is empty",
        )


@pytest.mark.parametrize(
    ("black_z", "z"), [([], 3), ([3], 2), ([1, 2, 3], 4), ([3, 4, 5], 2), ([1, 2, 3, 4, 5], 3), ([0, 6], 3)]
)
def test_the_section_that_is_drawn_shows_the_cleft(black_z, z):
    """The nearest to its middle that is not black; the middle, where all of the cleft is in black."""
    em, mask = np.ones((2, 4, 4, 7), np.uint8)
    em[:, :, black_z], mask[...] = 0, 0
    mask[2, 1, 1:6] = 2
    assert inspection._centre(em, mask) == (2, 1, z)


def test_a_raw_pair_is_cropped_but_not_blanked(raw):
    del raw["proc_data_path"]
    p = InspectRaw(**raw, seg_mask_map=dict(zip(Preprocess().seg_mask_map, (1, 2, 3), strict=True)))
    synapses, checks, found, failures = inspection.load_raw(pairing.find(p).pairs, p)
    one = synapses[0]
    assert failures == {}
    assert one.em_xyz.shape == (6, 5, 5)
    assert one.em_xyz[0, 0].tolist() == [100, 0, 100, 100, 100]
    assert one.em_xyz[5, 0].tolist() == [100, 0, 0, 100, 100]
    assert one.caption == ("007: z 7 to 11 of 20", "pre 2.6e-06, cleft 7.7e-06, post 0 µm³")
    assert (one.first_z, one.centre_xyz) == (7, (4, 1, 3))
    said = ["the crop removed all postsynaptic voxels"]
    said += ["the cleft touches the crop's edge, and may be cut off: last z"]
    assert checks.loc["007", "warnings"][1:] == said
    assert one.warning == "label values may be mixed up (+ 2)"
    kinds = [problem.kind for problem in found]
    assert kinds[:2] == ["label values may be mixed up", "the crop removed all postsynaptic voxels"]
    assert kinds[3].startswith("not measured: whether the mask fits (there are too few")
    assert {problem.synapse_id for problem in found} == {"007", "8"}
    assert checks.loc["007", ["n_sections", "n_kept_sections"]].tolist() == [20, 5]


@pytest.fixture
def two_pairs(write_pair, paths):
    em, mask = make_chunk(1000379, (96, 96, 40))
    write_pair("good", em, mask)
    write_pair("moved", em, np.roll(mask, 16, axis=0))
    del paths["proc_data_path"]
    return InspectRaw(**paths, n_sections=2)  # too few to see the mask fit in small chunks


def test_checks_of_whole_raw_pairs(two_pairs):
    synapses, checks, _, _ = inspection.load_raw(pairing.find(two_pairs).pairs, two_pairs)
    assert checks.index.tolist() == ["good", "moved"]
    assert checks["mask_fits"].tolist() == [True, False]
    assert checks["shift_x"].tolist() == [0, -16]
    warnings = checks.loc["moved", "warnings"]
    assert "the mask may not fit its EM" in [text.split(" (")[0] for text in warnings]
    assert all(one.warning for one in synapses)  # the cleft is cut off


def test_checks_are_told_with_one_line_for_what_is_alike(two_pairs):
    _, checks, found, _ = inspection.load_raw(pairing.find(two_pairs).pairs, two_pairs)
    cut_off = (
        "the cleft touches the crop's edge, and may be cut off: see n_sections and axial_to_sagittal_spacing"
    )
    assert inspection.tell(checks, found) == [
        "2 pairs: 0 without warnings, 2 with warnings, 0 without warnings but not wholly measured",
        "the crop keeps 2 of 40 sections: 2 pairs",
        f"2 of 2 chunks (good, moved): {cut_off}",
        "1 of 2 chunks (moved): the mask may not fit its EM: see the files' pairing and axes' order",
    ]
    checks.at["good", "warnings"], checks.at["good", "not_measured"] = [], ["c"]
    note = Problem(kind="not measured: c", severity="note", synapse_id="good")
    first, *_, last = inspection.tell(checks, [*found, note])
    assert first == "2 pairs: 0 without warnings, 1 with warnings, 1 without warnings but not wholly measured"
    assert last == "1 of 2 chunks (good): not measured: c"
    assert inspection.tell(checks[:0], []) == [
        "0 pairs: 0 without warnings, 0 with warnings, 0 without warnings but not wholly measured"
    ]


def test_checks_are_saved_as_the_notebook_does(two_pairs, tmp_path):
    _, checks, _, _ = inspection.load_raw(pairing.find(two_pairs).pairs, two_pairs)
    checks = checks.astype({"mask_fits": object})
    checks.at["good", "mask_fits"], checks.at["good", "shift_x"] = None, np.nan
    figures.save(tmp_path / "a", plt.figure(), checks.reset_index().to_dict("list"))
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["synapse_id"] == ["good", "moved"]
    assert saved["mask_fits"] == [None, False]
    assert saved["shift_x"][0] is None
    assert len(saved["warnings"]) == 2 and saved["not_measured"] == [[], []]
    assert "mask" in saved["warnings"][1][0]


def test_a_pair_without_neurons_is_not_measured(write_pair, paths):
    em, mask = make_chunk(1000379, (96, 96, 20))
    write_pair("1", em, mask * (mask == 2))
    del paths["proc_data_path"]
    (one,), checks, _, _ = inspection.load_raw(pairing.find(InspectRaw(**paths)).pairs, InspectRaw(**paths))
    assert checks["mask_fits"].tolist() == [None]
    said = [text.split(" (")[0] for text in checks.loc["1", "not_measured"]]
    assert said == ["whether the mask fits", "cleft_ratio"]
    assert one.warning.startswith("no presynaptic voxel")


def test_what_cannot_be_read_beyond_the_crop_is_said(write_pair, paths, monkeypatch):
    """As of volumes with absent blocks outside of the sections that preprocess reads."""
    em, mask = make_chunk(1000379, (96, 96, 40))
    write_pair("1", em, mask)
    keep = chunk.keep

    def fail(raw, bounds, *rest):
        if bounds == (0, 40):
            raise ChunkError("blocks of the em volume are absent", "3", "somewhere")
        return keep(raw, bounds, *rest)

    monkeypatch.setattr(chunk, "keep", fail)
    del paths["proc_data_path"]
    p = InspectRaw(**paths, n_sections=20)
    _, checks, _, failures = inspection.load_raw(pairing.find(p).pairs, p)
    assert (failures, checks["mask_fits"].tolist()) == ({}, [True])
    said = "sections that the crop leaves out (blocks of the em volume are absent: somewhere: 3)"
    assert checks.loc["1", "not_measured"] == [said]


def test_where_no_labels_are_expected_they_are_not_measured(write_pair, paths):
    em, mask = make_chunk(7, (96, 96, 24))
    write_pair("1", em, np.ascontiguousarray(mask[::-1, ::-1]))
    del paths["proc_data_path"]
    p = InspectRaw(**paths, n_sections=24, seg_mask_map={})
    (one,), checks, _, _ = inspection.load_raw(pairing.find(p).pairs, p)
    assert (len(one.caption), one.warning) == (2, "")
    assert checks.loc["1", ["warnings", "not_measured"]].tolist() == [[], []]
    assert checks[["mask_fits", "fit_score", "shift_x", "shift_y", "cleft_ratio"]].isna().all(axis=None)
    assert checks[["correlation_x", "correlation_y", "correlation_z"]].notna().all(axis=None)


def test_widgets_are_loaded_with_the_first_browser():
    code = "import sys; from synprep import inspection; print('ipywidgets' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


@pytest.fixture
def browsed(write_pair, paths):
    """Two processed chunks; the cleft of the first is in section 1 of 5, and section 2 is blanked."""
    figures.use_style()
    em, mask = np.full((40, 40, 20), 100, np.uint8), np.zeros((40, 40, 20), np.uint8)
    em[:, :, 9] = 0
    mask[10:20, 5:9, 8] = 2
    write_pair("007", em, mask)
    write_pair("8", em[:, :, :15], mask[:, :, :15])
    p = Preprocess(**paths)
    preprocess.run(preprocess.plan(pairing.find(p), p, False), p, False)
    return inspection.load(p.proc_data_path)


def browse(data, synapse_ids):
    return inspection.browse(data, synapse_ids, figures.section_png)


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png))


def test_the_browser_begins_in_the_cleft_of_the_first_synapse(browsed):
    _, at, outlines, picture, message = browse(browsed, ["007", "8"]).box.children
    assert (at.value, at.min, at.max, outlines.value) == (1, 0, 4, True)
    assert pixels(picture.value).shape[:2] == (600, 600)
    assert message.value.startswith("007: 1 of 5 sections blanked; pre 0")


def test_the_browser_moves_through_the_sections(browsed):
    _, at, _, picture, message = browse(browsed, ["007"]).box.children
    before = picture.value
    at.value = 2
    assert picture.value != before
    assert message.value.endswith("; this section is blanked")
    at.value = 1
    assert picture.value == before


def test_the_browser_takes_outlines_off(browsed):
    _, _, outlines, picture, _ = browse(browsed, ["007"]).box.children

    def is_coloured():
        return bool(np.ptp(pixels(picture.value)[..., :3], axis=-1).any())

    assert is_coloured()
    outlines.value = False
    assert not is_coloured()


def test_the_browser_knows_the_depth_of_each_synapse(browsed):
    chosen, at, *_, message = browse(browsed, ["007", "8"]).box.children
    at.value = 4
    chosen.value = "8"
    assert at.max == 3
    assert message.value.startswith("8: ")


def test_the_browser_says_which_file_cannot_be_read(browsed):
    (browsed.folder / browsed.meta["filename"][1]).write_bytes(b"x")
    chosen, _, _, picture, message = browse(browsed, ["007", "8"]).box.children
    chosen.value = "8"
    assert "not an npy file" in message.value
    assert picture.value == b""
    chosen.value = "007"
    assert message.value.startswith("007: ")


def test_the_browser_is_a_picture_where_nothing_is_interactive(browsed):
    browser = browse(browsed, ["007"])
    bundle = browser._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == browser.picture.value
    assert "application/vnd.jupyter.widget-view+json" in bundle


PUBLIC = {
    "em": "precomputed://gs://bucket/em",
    "segmentation": {"path": "zarr://https://host/neurons", "voxel_size_nm": [8, 8, 40]},
    "cleft": "contact",
}
SOURCE = {"synapse_id": "a", "pre_id": "864691135341198293", "post_id": "2", "cleft_id": "contact"}
SOURCE |= {f"centre_{axis}_nm": number for axis, number in zip("xyz", ("1.5", "2", "3"), strict=True)}


def test_public_volumes_are_linked_to(tmp_path):
    data = replace(DATA, folder=tmp_path, parameters={**DATA.parameters, "volumes": PUBLIC})
    assert inspection.links(data, ["a"]) is None  # no sources.csv
    tables.save_table(tmp_path / "sources.csv", pd.DataFrame([SOURCE]))
    links = inspection.links(data, ["b", "a"])
    assert list(links.urls) == ["a"]
    state = json.loads(unquote(links.urls["a"].split("#!")[1]))
    assert state["position"] == [1.5, 2, 3]
    em, neurons = state["layers"]
    assert (em["source"], neurons["source"]) == (PUBLIC["em"], "zarr://https://host/neurons")
    assert neurons["segments"] == ["864691135341198293", "2"]
    assert links._repr_html_().startswith(f'<a href="{links.urls["a"]}"')
    assert repr(links) == f"a: {links.urls['a']}"


@pytest.mark.parametrize("em", ["precomputed://data/volumes/em", None])
def test_volumes_on_a_disk_are_not(tmp_path, em):
    tables.save_table(tmp_path / "sources.csv", pd.DataFrame([SOURCE]))
    volumes = {**PUBLIC, "em": em} if em else {}
    data = replace(DATA, folder=tmp_path, parameters={**DATA.parameters, "volumes": volumes})
    assert inspection.links(data, ["a"]) is None
