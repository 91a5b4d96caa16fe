from dataclasses import replace

import pytest

from synprep._core import problems
from synprep._core.errors import ChunkError
from synprep._core.problems import Problem


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(kind="bad"), "bad"),
        (
            Problem(kind="EM must be uint8", file="a.npy", detail="it is int8"),
            "EM must be uint8: a.npy: it is int8",
        ),
        (problems.warning("no cleft voxel", (1, 3)), "no cleft voxel (labels found: 1, 3)"),
        (problems.warning("no cleft voxel", ()), "no cleft voxel (labels found: none)"),
        (problems.warning("every section is blanked"), "every section is blanked"),
        (problems.of_error(ChunkError("bad", "7: 8", "x/a.npy")), "bad: a.npy: 7: 8"),
        (problems.of_error(ChunkError("bad", "\x1b[2J", "x/a\udcff")), r"bad: a\udcff: \x1b[2J"),
    ],
)
def test_text(problem, text):
    assert problem.text == text


def test_at_most_ten_labels_are_spelled_out():
    assert (
        problems.warning("x", range(12)).text == "x (labels found: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more)"
    )


def test_table_has_errors_first_then_sorts_by_id():
    found = [
        Problem(kind="w", severity="warning", synapse_id="1"),
        Problem(kind="e", synapse_id="9", stage="pairing", em_path="a", mask_path="b"),
        Problem(kind="f", synapse_id="10"),
    ]
    assert problems.table(found).values.tolist() == [
        ["10", "error", "", "f", "", ""],
        ["9", "error", "pairing", "e", "a", "b"],
        ["1", "warning", "", "w", "", ""],
    ]
    assert list(problems.table([])) == ["synapse_id", "severity", "stage", "problem", "em_path", "mask_path"]


def test_groups_are_of_one_kind_the_worst_first():
    found = [
        problems.warning("no cleft voxel", (1,)),
        Problem(kind="small", detail="3", synapse_id="1"),
        Problem(kind="cut", file="1.npy", synapse_id="1"),
        Problem(kind="cut", file="2.npy", synapse_id="2"),
        Problem(kind="odd", severity="unfit", synapse_id="5"),
    ]
    assert problems.grouped(found).reset_index().values.tolist() == [
        ["cut", "error", 2, "1.npy, 2.npy"],
        ["small", "error", 1, "1"],
        ["odd", "unfit", 1, "5"],
        ["no cleft voxel", "warning", 1, ""],
    ]
    assert problems.grouped([]) is None


def shares(found, n_chunks):
    return [problems.share(same, n_chunks) for same in problems.decisive(found, n_chunks)]


def test_what_is_worse_than_a_warning_is_said_of_few_chunks_too():
    found = [
        Problem(kind="x and y differ", severity="unfit", synapse_id="7"),
        Problem(kind="array file that the table does not list", severity="note"),
        Problem(kind="EM without mask", severity="warning", stage="pairing", synapse_id="8"),
        Problem(kind="every section is blanked", severity="warning", synapse_id="9"),
    ]
    assert shares(found, 3) == ["1 of 3 chunks (7): x and y differ"]


def test_what_most_chunks_share_is_said_once():
    found = [
        replace(problems.warning("no cleft voxel", (1, 3)), synapse_id="7"),
        replace(problems.warning("no cleft voxel", (3, 255)), synapse_id="8"),
        replace(problems.warning("every section is blanked"), synapse_id="9"),
    ]
    said = "2 of 3 chunks (7, 8): no cleft voxel; labels found: 1, 3, 255: see seg_mask_map"
    assert shares(found[:3], 3) == [said]
    assert shares(found[:3], 4) == []
    assert shares(found[2:3], 1) == [
        "1 of 1 chunk (9): every section is blanked: see cutout_threshold and cutout_pixel_value"
    ]
