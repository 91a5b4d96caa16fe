"""Property-based: whatever the chunk, the result is that of a plain reading of the seed's algorithm."""

import numpy as np
import plain_seed
from conftest import process
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from synprep.params import Preprocess

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(2, 30))
PIXELS = st.sampled_from([0, 0, 1, 77, 255])
VALUES = st.sampled_from([0, 1, 2, 3, 4, 255])


@settings(max_examples=200)
@given(
    arrays=SHAPES.flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape, elements=PIXELS), hnp.arrays(np.uint8, shape, elements=VALUES)
        )
    ),
    threshold=st.sampled_from([0.0, 0.01, 0.25, 0.5, 1 / 3, 1.0]),
    spacing=st.integers(2, 7),
    groups=st.none() | st.lists(st.lists(st.integers(1, 3), min_size=1), min_size=1, max_size=3),
    is_fortran=st.booleans(),
)
def test_equal_to_the_seed(tmp_path_factory, arrays, threshold, spacing, groups, is_fortran):
    em, mask = (np.asarray(array, order="F" if is_fortran else "C") for array in arrays)
    p = Preprocess(
        cutout_threshold=threshold,
        axial_to_sagittal_spacing=spacing,
        cut_intensity_with_seg_masks=groups is not None,
        output_channel_desc=groups or [[1]],
    )
    result = process(tmp_path_factory.getbasetemp(), p, em, mask)
    tensor, volumes, n_cutout = plain_seed.preprocess(em, mask, threshold, spacing, groups)
    assert np.array_equal(result.tensor_cxyz, tensor)
    names = ("pre_synaptic_volume", "post_synaptic_volume", "synaptic_cleft_volume")
    assert [result.row[name] for name in names] == volumes
    assert result.row["n_cutout_sections"] == n_cutout
    assert result.row["filename"] == f"a__{'_'.join(map(str, tensor.shape))}.npy"
