"""What would be otherwise on Windows, as far as another system can show it."""

import ntpath
import os
import subprocess
import sys
from pathlib import PureWindowsPath
from types import SimpleNamespace

import pytest
from conftest import PROJECT

from synprep import inspection, merge, pairing, params, preprocess
from synprep._core import paths as core_paths

WITHOUT = """
import asyncio, os, sys  # asyncio is another one there

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in (
    "O_NONBLOCK", "posix_fadvise", "mkfifo", "sched_getaffinity", "pathconf", "sysconf", "getuid", "fchmod"
):
    delattr(os, name)

import warnings

warnings.simplefilter("ignore")  # that there are no locks but files
from synprep import *
from synprep import __all__

em, mask, processed, merged = sys.argv[1:]
p = params.Preprocess(raw_em_data_path=em, raw_mask_data_path=mask, proc_data_path=processed)
for expected in (2, 0):
    plan = preprocess.plan(pairing.find(p), p)
    assert len(plan.todo) == expected
    assert not preprocess.run(plan, p).failures
tables = [os.path.join(processed, "meta.csv")]
table, *_ = merge.run(params.Merge(meta_list=tables, merged_meta_path=merged, link_mode="copy"))
data = inspection.load(os.path.dirname(merged))
print(len(__all__), len(table), len(inspection.load_synapses(data, table["synapse_id"])[0]))
"""


def test_nothing_needs_what_windows_lacks(write_pair, paths, tmp_path):
    """Modules and functions that only POSIX has are taken away before the package is imported."""
    write_pair("a")
    write_pair("bc")
    arguments = [*paths.values(), str(tmp_path / "merged" / "meta.csv")]
    result = subprocess.run([sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.endswith(" 2 2\n")


@pytest.fixture
def on_windows(monkeypatch):
    """Paths as they are there, with the project in C:\\em project."""
    values = {"USERPROFILE": r"C:\Users\Ada", "DATA": r"D:\em"}
    fake = SimpleNamespace(path=ntpath, environ=values, PathLike=os.PathLike, name="nt")
    monkeypatch.setattr(core_paths, "os", fake)
    monkeypatch.setattr(core_paths, "Path", PureWindowsPath)
    monkeypatch.setattr(core_paths, "_IS_WINDOWS", True)
    monkeypatch.setattr(core_paths, "project_root", lambda: PureWindowsPath(r"C:\em project"))
    monkeypatch.setenv("USERPROFILE", values["USERPROFILE"])


@pytest.mark.parametrize(
    ("written", "absolute", "for_people"),
    [
        ("data/x", r"C:\em project\data\x", "data/x"),
        (r"data\x", r"C:\em project\data\x", "data/x"),
        (r"c:\EM Project\data\x", r"C:\em project\data\x", "data/x"),
        (r"D:\em\raw", r"D:\em\raw", "D:/em/raw"),
        ("D:/em/../raw", r"D:\raw", "D:/raw"),
        (r"\\server\c$\em", r"\\server\c$\em", "//server/c$/em"),
        (r"~\em", r"C:\Users\Ada\em", "C:/Users/Ada/em"),
        ("$DATA/raw", r"D:\em\raw", "D:/em/raw"),
    ],
)
def test_paths(on_windows, written, absolute, for_people):
    assert core_paths.find_problem(written) == ""
    assert core_paths.resolve(written) == core_paths.resolve(absolute) == absolute
    assert core_paths.shown(absolute) == for_people


def test_percent_signs_are_no_variables(on_windows):
    assert core_paths.find_problem(r"%USERPROFILE%\em").startswith("must have $NAME in place of %NAME%")


def with_crlf(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return path


def test_line_ends_of_windows(write_pair, paths, tmp_path):
    """YAML, a table of ids, and tables of a data set that a spreadsheet has saved."""
    for synapse_id in ("007", "1", "2"):
        write_pair(synapse_id)
    text = "".join(f"{name}: '{path}'  # a folder\n" for name, path in paths.items())
    (tmp_path / "p.yaml").write_text(f"{text}synapse_ids_path: '{tmp_path / 'ids.csv'}'\n")
    (tmp_path / "ids.csv").write_text("synapse_id\n007\n2\n")
    with_crlf(tmp_path / "ids.csv")
    p = params.from_yaml(params.Preprocess, with_crlf(tmp_path / "p.yaml"))
    meta = preprocess.run(preprocess.plan(pairing.find(p), p), p).meta
    assert meta["synapse_id"].tolist() == ["007", "2"]
    for name in ("meta.csv", "sections.csv", "problems.csv", "run.json"):
        with_crlf(tmp_path / "processed" / name)
    tables = [str(tmp_path / "processed" / "meta.csv")]
    merged, *_ = merge.run(
        params.Merge(meta_list=tables, merged_meta_path=str(tmp_path / "merged" / "meta.csv"))
    )
    assert merged["synapse_id"].tolist() == ["007", "2"]
    assert b"\r" not in (tmp_path / "merged" / "sections.csv").read_bytes()
    chosen = inspection.choose(
        inspection.load(tmp_path / "processed"), params.Inspect(proc_data_path=p.proc_data_path)
    )
    assert sorted(chosen["synapse_id"]) == ["007", "2"]


def test_the_first_commands_need_neither_make_nor_bash():
    """README says how each of them reads on Windows."""
    text = (PROJECT / "README.md").read_text("utf-8")
    commands = text.partition("## Without make")[2].partition("In JupyterLab")[0]
    assert r".venv\Scripts\Activate.ps1" in commands
    assert not {"make", "bash", "&&", "\\", "rm", "cp"} & {*commands.split()}
