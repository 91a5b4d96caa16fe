"""The house: doors over one private floor; imports only point down, and notebooks come in by the doors."""

import ast
import importlib
import json
from pathlib import Path

import pytest

import synprep

PACKAGE = Path(synprep.__file__).resolve().parent
NOTEBOOKS = sorted((PACKAGE.parent / "notebooks").glob("*.ipynb"))

# Doors, by what they may import besides `_core`.
FRONT = ("params", "volumes", "pairing")
DOORS = {
    "params": (),
    "volumes": ("params",),
    "pairing": ("params", "volumes"),
    **dict.fromkeys(("survey", "preprocess", "inspection", "merge", "fingerprint", "figures"), FRONT),
}
DOORS["demo"] = tuple(DOORS)

# `_core`, from the lowest floor up: a module imports modules of lower floors.
FLOORS = (
    ("errors", "arrays", "cells", "grid", "kernels", "paths"),
    (
        "cut_kernels",
        "execution",
        "files",
        "pair_checks",
        "problems",
        "rules",
        "stores",
        "synthetic",
        "text_table",
    ),
    ("layers", "npy", "provenance", "synthetic_volumes", "tables", "volume_settings"),
    ("chunk", "cut", "dataset", "estimates", "lock", "record", "synapse_table"),
    ("first_look", "preflight", "verify", "work"),
)


def modules(folder):
    return {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}


def imported(source):
    """Modules of the package that code imports, with dots: "pairing", "_core.errors"."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the floor"
            if node.module in ("synprep", "synprep._core"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif node.module.startswith("synprep."):
                names.add(node.module)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("synprep.")}
    return {name.removeprefix("synprep.") for name in names}


def test_every_module_has_its_place():
    assert modules(PACKAGE).keys() == set(DOORS) == set(synprep.__all__)
    assert modules(PACKAGE / "_core").keys() == {name for floor in FLOORS for name in floor}
    assert len(FLOORS) <= 5


@pytest.mark.parametrize("name", sorted(DOORS))
def test_doors_import_what_is_below(name):
    allowed = {*DOORS[name], *(f"_core.{module}" for floor in FLOORS for module in floor)}
    assert imported(modules(PACKAGE)[name].read_text("utf-8")) <= allowed


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_imports_within_core_point_down(floor):
    allowed = {f"_core.{module}" for lower in FLOORS[:floor] for module in lower}
    for name in FLOORS[floor]:
        assert imported(modules(PACKAGE / "_core")[name].read_text("utf-8")) <= allowed, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_come_in_by_the_doors(path):
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    source = "\n".join("".join(cell["source"]) for cell in cells)
    assert imported(source) <= set(DOORS)
    assert "._" not in source, "what begins with an underscore is not for notebooks"


@pytest.mark.parametrize("name", sorted(DOORS))
def test_doors_say_what_is_public(name):
    """What is public has a docstring; a door that opens onto names of `_core` lists all of its own too."""
    tree = ast.parse(modules(PACKAGE)[name].read_text("utf-8"))
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own = {one for one in own if not one.startswith("_")}
    door = importlib.import_module(f"synprep.{name}")
    public = getattr(door, "__all__", own)
    assert own <= set(public)
    assert all(getattr(door, one).__doc__ for one in public if callable(getattr(door, one)))


def test_the_reader_of_imports_sees_them():
    source = "from synprep import pairing\nfrom synprep._core import files\nimport synprep.params\n"
    source += "def f():\n    from synprep._core.errors import ChunkError\n"
    assert imported(source) == {"pairing", "_core.files", "params", "_core.errors"}
