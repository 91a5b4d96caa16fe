import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from synprep import pairing
from synprep._core.errors import PairingError, printable
from synprep.pairing import Pair


@pytest.fixture
def find(tmp_path):
    """Pair the named empty files; names start with the folder."""

    def find_in(
        names, em="em", mask="mask", em_pattern="{synapse_id}.npy", mask_pattern="{synapse_id}_mask.npy"
    ):
        for name in [*names, "em/.keep", "mask/.keep"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return pairing.find(
            SimpleNamespace(
                raw_em_data_path=str(tmp_path / em),
                raw_mask_data_path=mask and str(tmp_path / mask),
                em_filename_pattern=em_pattern,
                mask_filename_pattern=mask_pattern,
                volumes={},
            )
        )

    return find_in


def ids(found):
    return [pair.synapse_id for pair in found.pairs]


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("1000379.npy", "{synapse_id}.npy", "1000379"),
        ("007.npy", "{synapse_id}.npy", "007"),
        ("1000379_mask.npy", "{synapse_id}_mask.npy", "1000379"),
        ("a_mask_mask.npy", "{synapse_id}_mask.npy", "a_mask"),
        ("a b.c-ß.npy", "{synapse_id}.npy", "a b.c-ß"),
        ("data_MICrONS__L23__8_8_40__raw_1000379.npy", "*_raw_{synapse_id}.npy", "1000379"),
        ("data_MICrONS__L23__8_8_40__masks_1000348_mask.npy", "*_masks_{synapse_id}_mask.npy", "1000348"),
        ("x_raw_1_raw_2.npy", "*_raw_{synapse_id}.npy", "1_raw_2"),  # shortest text for *
        ("5_a_b.npy", "{synapse_id}_*.npy", "5"),  # and for the id
        ("1.npy.txt", "{synapse_id}.npy", None),
        ("1.NPY", "{synapse_id}.npy", None),
        (".npy", "{synapse_id}.npy", None),
        ("1xnpy", "{synapse_id}.npy", None),
        ("1_mask.npy", "*_masks_{synapse_id}_mask.npy", None),
        ("re\u0301_1.npy", "r\u00e9_{synapse_id}.npy", "1"),  # a Mac's disk, and Linux
        ("e\u0301.npy", "{synapse_id}.npy", "\u00e9"),
    ],
)
def test_read_id(name, pattern, expected):
    assert pairing.read_id(name, pattern) == expected


def test_pairs_are_sorted_as_text_and_nested_folders_are_walked(find):
    found = find(
        [
            "em/9.npy",
            "em/a/10.npy",
            "em/a/b/007.npy",
            "mask/x/9_mask.npy",
            "mask/10_mask.npy",
            "mask/007_mask.npy",
        ]
    )
    assert ids(found) == ["007", "10", "9"]
    assert found.pairs[1].em_path.parts[-2:] == ("a", "10.npy")
    assert found.pairs[2].mask_path.parts[-2:] == ("x", "9_mask.npy")


def test_what_does_not_pair_is_told_apart(find):
    found = find(
        [
            "em/1.npy",
            "em/2.npy",
            "em/notes.txt",
            "em/1_mask.npy",
            "mask/1_mask.npy",
            "mask/3_mask.npy",
            "mask/3.npy",
        ]
    )
    assert ids(found) == ["1"]
    assert list(found.em_only) == ["2"]
    assert list(found.mask_only) == ["3"]
    assert [path.name for path in found.passed_over] == ["1_mask.npy", "notes.txt", "3.npy"]
    assert [path.name for path in found.hidden] == [".keep", ".keep"]
    assert found.as_table()["count"].tolist() == [1, 1, 1, 3, 2]
    assert found.as_table()["examples"].tolist()[3:] == ["1_mask.npy, notes.txt, 3.npy", ".keep, .keep"]


def test_a_table_of_files_only_where_some_are_not_paired(find):
    found = replace(find(["em/1.npy", "mask/1_mask.npy"]), hidden=())
    assert found.as_table() is None
    assert replace(found, em_only={"2": Path("2.npy")}).as_table()["count"].tolist() == [1, 1]


def test_one_folder_for_both(find):
    found = find(["all/1.npy", "all/1_mask.npy", "all/2_mask.npy"], em="all", mask="all")
    assert ids(found) == ["1"]
    assert not found.em_only
    assert list(found.mask_only) == ["2"]
    assert not found.passed_over


def test_mask_folder_inside_the_em_folder(find):
    found = find(["em/1.npy", "em/mask/1_mask.npy"], mask="em/mask")
    assert ids(found) == ["1"]
    assert not found.passed_over


def test_equal_patterns_in_folders_apart(find):
    found = find(["em/1.npy", "mask/1.npy"], mask_pattern="{synapse_id}.npy")
    assert ids(found) == ["1"]
    assert found.pairs[0].mask_path.parts[-2:] == ("mask", "1.npy")


def test_an_id_claimed_twice_is_left_out_and_named(find):
    found = find(["em/1.npy", "em/b/1.npy", "em/2.npy", "mask/1_mask.npy", "mask/2_mask.npy"])
    assert ids(found) == ["2"]
    assert [path.parts[-2:] for path in found.claimed_twice["1"]] == [("em", "1.npy"), ("b", "1.npy")]
    assert found.all_ids() == {"1", "2"}
    assert found.as_table().loc["ids claimed by several files", "count"] == 1
    assert not found.em_only and not found.mask_only


def test_without_mask_folder_every_em_file_is_surveyed(find):
    found = find(["em/1.npy", "em/2.npy", "em/2_mask.npy"], mask="")
    assert ids(found) == ["1", "2"]
    assert found.pairs[0].mask_path is None
    assert not found.em_only


def test_folders_that_are_exchanged_are_called_so(find):
    second = "\n  raw_em_data_path and raw_mask_data_path seem to be exchanged: 2 pairs the other way round"
    with pytest.raises(PairingError, match=f"^no EM file pairs with a mask file{second}"):
        find(["mask/1.npy", "em/1_mask.npy", "mask/2.npy", "em/2_mask.npy", "em/3_mask.npy"])
    with pytest.raises(PairingError) as caught:
        find(["one/1.npy", "two/2_mask.npy"], em="one", mask="two")
    assert "exchanged" not in str(caught.value)


def test_nothing_pairs_says_what_was_read_and_what_to_change(find):
    with pytest.raises(PairingError) as caught:
        find(["em/raw_1.npy", "em/raw_2.npy", "mask/1_mask.npy", "mask/2_mask.npy", "mask/3_mask.npy"])
    message = str(caught.value)
    assert "2 files, 2 are EM by em_filename_pattern '{synapse_id}.npy'" in message
    assert "raw_1.npy: id 'raw_1'" in message and "raw_2.npy: id 'raw_2'" in message
    assert "3 files, 3 are mask by mask_filename_pattern" in message
    assert "1_mask.npy: id '1'" in message and "2_mask.npy: id '2'" in message
    assert "3_mask.npy" not in message
    assert "2 hidden names passed over: .keep, .keep" in message
    for name in ("raw_em_data_path", "raw_mask_data_path", "em_filename_pattern", "mask_filename_pattern"):
        assert name in message.splitlines()[-1]


def test_nothing_fits_shows_names_that_do_not_fit(find):
    with pytest.raises(PairingError, match=r"x\.tif: does not fit"):
        find(["em/x.tif"])


def test_missing_folder(find):
    with pytest.raises(PairingError, match="there is no folder"):
        find([], em="elsewhere")


@pytest.mark.parametrize(
    "name",
    [
        ".Trash-1000/files/1.npy",
        ".stversions/1.npy",
        "a/.snapshot/hourly/1.npy",
        "._1.npy",
        ".1.npy.icloud",
        "@eaDir/1.npy",
        "__MACOSX/._1.npy",
        "__MACOSX/1.npy",
        "$RECYCLE.BIN/S-1-5/1.npy",
        "$Recycle.Bin/1.npy",
        "lost+found/1.npy",
        "System Volume Information/1.npy",
        "#recycle/1.npy",
    ],
)
def test_hidden_names_are_passed_over_and_counted(find, name):
    kept = find(["em/1.npy", "mask/1_mask.npy"])
    found = find([f"em/{name}", f"mask/{name.replace('1.npy', '1_mask.npy')}"])
    assert found.pairs == kept.pairs
    assert len(found.hidden) == len(kept.hidden) + 2
    assert not (found.em_only or found.mask_only or found.claimed_twice or found.passed_over)
    assert found.as_table().loc["hidden files and folders", "count"] == 4


def test_the_input_folder_itself_may_be_hidden(find):
    names = [".data/@eaDir/em/1.npy", ".data/@eaDir/mask/1_mask.npy"]
    assert ids(find(names, em=".data/@eaDir/em", mask=".data/@eaDir/mask")) == ["1"]


def test_a_hidden_folder_is_not_entered(find, tmp_path, monkeypatch):
    (tmp_path / "em" / ".Trashes").mkdir(parents=True)
    (tmp_path / "em" / "lost+found").mkdir()
    scanned, scandir = [], os.scandir

    def refuse_hidden(folder):
        scanned.append(os.path.basename(folder))
        assert scanned[-1] in ("em", "mask", "a")  # as root, permissions would not refuse
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse_hidden)
    assert ids(find(["em/a/1.npy", "mask/1_mask.npy"])) == ["1"]
    assert scanned == ["em", "a", "mask"]


def test_a_folder_that_cannot_be_read_is_an_error(find, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(folder):
        if os.path.basename(folder) == "a\x1b":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PairingError, match=r"em/a\\x1b: cannot be read: Permission denied"):
        find(["em/a\x1b/1.npy", "mask/1_mask.npy"])


def test_a_link_that_cannot_be_followed(find, tmp_path, monkeypatch):
    """It may lead to a folder of chunks; but if it has the name of a file, that chunk alone is concerned."""
    (tmp_path / "em").mkdir()
    (tmp_path / "em" / "2.npy").symlink_to("secret")
    stat = os.stat

    def refuse(path, *arguments, **more):
        if os.path.islink(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, *arguments, **more)

    names = ["em/1.npy", "mask/1_mask.npy", "mask/2_mask.npy"]
    monkeypatch.setattr(os, "stat", refuse)
    assert ids(find(names)) == ["1", "2"]
    (tmp_path / "em" / "more").symlink_to("secret")
    with pytest.raises(PairingError, match="em/more: cannot be read: Permission denied"):
        find(names)


def test_what_a_run_has_left_is_not_passed_over(find):
    found = find(["em/1.npy", "em/run.json", "em/.synprep/record.jsonl", "mask/1_mask.npy"])
    assert ids(found) == ["1"]
    assert not found.passed_over
    assert [path.parts[-2:] for path in found.hidden] == [("mask", ".keep")]


@pytest.mark.parametrize(
    ("links", "paths"),
    [
        ({"em/link": "elsewhere"}, ["em/1.npy", "em/link/2.npy"]),
        ({f"em/{name}": "elsewhere" for name in "hgfaedcb"}, ["em/1.npy", "em/a/2.npy"]),  # once
        ({"em/0": "em/sub"}, ["em/1.npy", "em/sub/2.npy"]),  # its own path before a link's
        ({"em/sub/loop": "em", "em/up": ".", "em/self": "em/self"}, ["em/1.npy", "em/sub/2.npy"]),
        ({"em/link": "elsewhere", "elsewhere/back": "em"}, ["em/1.npy", "em/link/2.npy"]),
        ({"em/link": "elsewhere", "elsewhere/more": "further"}, ["em/1.npy", "em/link/more/2.npy"]),
        ({"em/.link": "elsewhere", "em/nowhere": "nothing"}, ["em/1.npy"]),
        ({"em": "elsewhere"}, ["em/2.npy"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_links_to_folders_are_followed_once(find, tmp_path, links, paths):
    for path in paths:
        where = [folder for name, folder in links.items() if f"{name}/2.npy" == path or "more" in path]
        real = tmp_path / (where[-1] if where else os.path.dirname(path)) / os.path.basename(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        real.touch()
    for name, folder in links.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / folder)
    found = find(["mask/1_mask.npy", "mask/2_mask.npy", "3.npy"])
    assert [str(pair.em_path.relative_to(tmp_path)) for pair in found.pairs] == paths
    assert not (found.claimed_twice or found.em_only)


def test_one_folder_under_two_names_has_nothing_to_pass_over(find, tmp_path):
    (tmp_path / "mask").mkdir()
    (tmp_path / "em").symlink_to(tmp_path / "mask")
    found = find(["mask/1.npy", "mask/1_mask.npy", "mask/notes.txt"])
    assert ids(found) == ["1"]
    assert [path.name for path in found.passed_over] == ["notes.txt"]


def test_names_that_differ_in_normalisation_pair(find):
    found = find(["em/\u00e91.npy", "mask/e\u03011_mask.npy", "em/e\u03012.npy", "mask/e\u03012_mask.npy"])
    assert ids(found) == ["\u00e91", "\u00e92"]
    assert found.pairs[1].em_path.name == "e\u03012.npy"  # the file's own name
    assert pairing.select(found.pairs, ["e\u03011"]) == [found.pairs[0]]
    assert list(find(["em/e\u03011.npy"]).claimed_twice) == ["\u00e91"]


@pytest.mark.parametrize("synapse_id", ["1\r", "1\n2", "\x1b[2J", "\x85", "\u202e1", "1\udcff"])
def test_an_id_that_is_not_plain_text_is_refused_alone(find, synapse_id):
    found = find(["em/2.npy", "mask/2_mask.npy", f"em/{synapse_id}.npy", f"mask/{synapse_id}_mask.npy"])
    assert ids(found) == ["2"]
    (problem,) = found.problems
    assert (problem.severity, problem.stage) == ("error", "pairing")
    assert problem.text.startswith("synapse id is not plain text: ")
    shown = [problem.synapse_id, problem.text, problem.em_path, problem.mask_path]
    assert all(text and text == printable(text) for text in shown)
    assert found.as_table().loc["pairs that cannot be used", "count"] == 1


def test_what_is_not_text_outside_the_id_does_not_matter(find):
    found = find(["em/\udcff/\udcff_1.npy", "mask/\r/1_mask.npy"], em_pattern="*_{synapse_id}.npy")
    assert ids(found) == ["1"]
    assert found.as_table()["examples"].iloc[0] == r"\udcff_1.npy"


PAIRS = [Pair(text, None) for text in ("007", "1", "7", "NA", "a")]


def test_select_takes_the_first_few_of_the_ids():
    assert pairing.select(PAIRS) == PAIRS
    assert pairing.select(PAIRS, max_chunks=2) == PAIRS[:2]
    assert pairing.select(PAIRS, ["NA", "7", "other"]) == [PAIRS[2], PAIRS[3]]
    assert pairing.select(PAIRS, ["NA", "7"], 1) == [PAIRS[2]]


def test_select_nothing_is_an_error_with_both_kinds_of_ids():
    with pytest.raises(PairingError, match=r"none of the 2 ids .*\(8, 9\).*007, 1, 7 and 2 more"):
        pairing.select(PAIRS, ["8", "9"])


def test_sample_is_seeded_without_replacement_and_a_prefix_of_a_larger_one():
    every = pairing.sample(PAIRS, 1000)
    assert sorted(every, key=PAIRS.index) == PAIRS
    assert every != PAIRS
    assert pairing.sample(PAIRS, 3) == every[:3]
    assert pairing.sample(reversed(PAIRS), 1000) == every
    assert len({tuple(p.synapse_id for p in pairing.sample(PAIRS, 5, seed)) for seed in range(9)}) > 1


def test_sample_is_the_same_on_every_machine():
    assert [pair.synapse_id for pair in pairing.sample(PAIRS, 5, 0)] == ["7", "007", "a", "NA", "1"]
