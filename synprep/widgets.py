"""Interactive parts of notebooks, for JupyterLab with a running kernel."""

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from synprep import figures, inspection
from synprep.dataset import Dataset
from synprep.errors import ChunkError
from synprep.inspection import Synapse


@dataclass(frozen=True)
class Browser:
    """Controls and a picture, shown when a cell ends with it; the picture alone where nothing is interactive.

    Parameters
    ----------
    controls : tuple of Widget
        What is shown, from top to bottom.
    picture : Image
        One of them.
    """

    controls: tuple[ipywidgets.Widget, ...]
    picture: ipywidgets.Image

    def _repr_mimebundle_(self, **_) -> dict[str, Any]:
        """What Jupyter stores of it."""
        interactive = ipywidgets.VBox(self.controls)._repr_mimebundle_()
        still = base64.b64encode(self.picture.value).decode()
        return {**interactive, "image/png": still, "text/plain": "one section, with controls in JupyterLab"}


def browse(data: Dataset, synapse_ids: Sequence[str]) -> Browser:
    """Choose a synapse, move through its sections, and take the outlines of the labels off.

    Parameters
    ----------
    data : Dataset
        Processed or merged data set.
    synapse_ids : sequence of str
        Synapses to choose from; at least one.

    Returns
    -------
    Browser
        A picture of one section, which begins in the middle of the cleft, and its controls.
    """
    load = lru_cache(maxsize=2)(lambda synapse_id: inspection.load_one(data, synapse_id))
    chosen = ipywidgets.Dropdown(options=list(synapse_ids), description="synapse")
    at = ipywidgets.IntSlider(description="section z", layout={"width": "500px"})
    outlines = ipywidgets.Checkbox(value=True, description="outlines")
    picture = ipywidgets.Image(layout={"align_self": "flex-start", "max_width": "100%"})
    message = ipywidgets.Label()

    def show(*_) -> None:
        try:
            one = load(chosen.value)
        except ChunkError as error:
            picture.value, message.value = b"", str(error)
            return
        at.max = one.em_xyz.shape[2] - 1
        picture.value = section_png(one, at.value, outlines.value)
        is_blanked = not one.em_xyz[:, :, at.value].any()
        message.value = "; ".join([*one.caption, *(["this section is blanked"] if is_blanked else [])])

    def go_to_cleft(*_) -> None:
        show()
        with suppress(ChunkError):
            at.value = load(chosen.value).centre_xyz[2]

    at.observe(show, "value")
    outlines.observe(show, "value")
    chosen.observe(go_to_cleft, "value")
    go_to_cleft()
    return Browser((chosen, at, outlines, picture, message), picture)


def section_png(one: Synapse, z: int, has_outlines: bool = True) -> bytes:
    """Draw one section.

    Parameters
    ----------
    one : Synapse
        What to draw.
    z : int
        Which section.
    has_outlines : bool
        Draw the outlines of the labels.

    Returns
    -------
    bytes
        PNG of 600 pixels.
    """
    figure = Figure(figsize=(6, 6), dpi=100, layout="constrained")
    mask = one.mask_xyz[:, :, z] if has_outlines else None
    figures.section(figure.add_subplot(), one.em_xyz[:, :, z], mask, one.spacing_xyz_nm)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
