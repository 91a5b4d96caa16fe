import base64
import io

import matplotlib.image
import numpy as np
import pytest

from synprep import dataset, pairing, planning, preprocess, widgets
from synprep.params import Preprocess


@pytest.fixture
def data(write_pair, paths):
    """Two processed chunks; the cleft of the first is in section 1 of 5, and section 2 is blanked."""
    em, mask = np.full((40, 40, 20), 100, np.uint8), np.zeros((40, 40, 20), np.uint8)
    em[:, :, 9] = 0
    mask[10:20, 5:9, 8] = 2
    write_pair("007", em, mask)
    write_pair("8", em[:, :, :15], mask[:, :, :15])
    p = Preprocess(**paths)
    preprocess.run(planning.make(pairing.find(p), p, False), p, False)
    return dataset.load(p.proc_data_path)


def pixels(png):
    return matplotlib.image.imread(io.BytesIO(png))


def test_it_begins_in_the_cleft_of_the_first_synapse(data):
    _, at, outlines, picture, message = widgets.browse(data, ["007", "8"]).controls
    assert (at.value, at.min, at.max, outlines.value) == (1, 0, 4, True)
    assert pixels(picture.value).shape[:2] == (600, 600)
    assert message.value.startswith("007: 1 of 5 sections blanked; pre 0")


def test_the_slider_moves_through_the_sections(data):
    _, at, _, picture, message = widgets.browse(data, ["007"]).controls
    before = picture.value
    at.value = 2
    assert picture.value != before
    assert message.value.endswith("; this section is blanked")
    at.value = 1
    assert picture.value == before


def test_outlines_can_be_taken_off(data):
    _, _, outlines, picture, _ = widgets.browse(data, ["007"]).controls

    def is_coloured():
        return bool(np.ptp(pixels(picture.value)[..., :3], axis=-1).any())

    assert is_coloured()
    outlines.value = False
    assert not is_coloured()


def test_another_synapse_has_its_own_depth(data):
    chosen, at, *_, message = widgets.browse(data, ["007", "8"]).controls
    at.value = 4
    chosen.value = "8"
    assert at.max == 3
    assert message.value.startswith("8: ")


def test_a_file_that_cannot_be_read_is_said(data):
    (data.folder / data.meta["filename"][1]).write_bytes(b"x")
    chosen, _, _, picture, message = widgets.browse(data, ["007", "8"]).controls
    chosen.value = "8"
    assert "not an npy file" in message.value
    assert picture.value == b""
    chosen.value = "007"
    assert message.value.startswith("007: ")


def test_where_nothing_is_interactive_the_picture_is_shown(data):
    browser = widgets.browse(data, ["007"])
    bundle = browser._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == browser.picture.value
    assert "application/vnd.jupyter.widget-view+json" in bundle
