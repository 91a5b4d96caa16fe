import os
import pickle

import pytest

from synprep._core import errors


def test_listed_says_how_many_were_left_out():
    assert errors.listed("abc") == "a, b, c"
    assert errors.listed(range(7), 2) == "0, 1 and 5 more"


def test_counted():
    assert (errors.counted(1, "chunk"), errors.counted(2000, "chunk")) == ("1 chunk", "2,000 chunks")


def test_an_error_is_shown_as_its_message_alone():
    assert errors.ParameterError("a\n  b")._render_traceback_() == ["ParameterError: a\n  b"]


def test_a_chunk_error_names_file_kind_and_detail():
    error = errors.ChunkError("not an npy file", "no magic", "a/b.npy")
    assert str(error) == "a/b.npy: not an npy file: no magic"
    assert (error.kind, error.detail, error.path) == ("not an npy file", "no magic", "a/b.npy")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.kind) == (str(error), "not an npy file")
    assert str(errors.ChunkError("does not fit into memory")) == "does not fit into memory"


def test_printable_escapes_what_is_not_text():
    assert errors.printable("aé") == "aé"
    assert errors.printable(os.fsdecode(b"a\xff")) == r"a\udcff"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mb\x07\x9b2J", r"a\x1b[31mb\x07\x9b2J"),  # what a terminal takes for commands
        ("a\r\nb\tc\x00\x7f\x85", r"a\r\nb\tc\x00\x7f\x85"),
        ("a\u202enpy.1\u2066\u2028", r"a\u202enpy.1\u2066\u2028"),  # turns text around; ends a line
        ("ß Ω 突触 סינפסה a\u0301 👩\u200d🔬 \\ $", "ß Ω 突触 סינפסה a\u0301 👩\u200d🔬 \\ $"),
    ],
)
def test_printable_keeps_text_and_escapes_what_steers_a_terminal(text, expected):
    assert errors.printable(text) == expected
    assert errors.listed([text]) == expected
    assert str(errors.PairingError(f"{text.replace(chr(10), '')}\n  b")).split("\n") == [
        expected.replace(r"\n", ""),
        "  b",
    ]
    assert str(errors.ChunkError("bad", text)) == f"bad: {expected}"


def test_a_long_item_is_not_printed_whole():
    text = "x" * 50_000_000 + "/1.npy"
    assert errors.listed([text]) == f"{'x' * 200}...{'x' * 74}/1.npy (50,000,006 characters)"
    assert errors.listed(["x" * 255]) == "x" * 255
