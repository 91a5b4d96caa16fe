"""Imports only point down: a module imports modules of lower floors, and `errors` and `labels` serve all."""

import ast
from pathlib import Path

import pytest

FLOORS = [
    {
        "errors",
        "kernels",
        "labels",
        "pair_checks",
        "paths",
        "sections",
        "synthetic",
        "table",
        "volume",
    },
    {"execution", "pairing", "params", "storage"},
    {"chunk", "dataset", "ledger"},
    {"planning"},
    {"figures", "fingerprint", "inspection", "merge", "preprocess", "survey", "verify"},
    {"demo"},
]
PACKAGE = Path(__file__).resolve().parents[1] / "synprep"
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def imported(path):
    """Names of the package's modules that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "synprep":
            names |= (
                {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
            )
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("synprep.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), "relative imports hide the floor"
    return names


def test_every_module_has_a_floor():
    assert set.union(*FLOORS) == set(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module):
    floor = next(number for number, modules in enumerate(FLOORS) if module in modules)
    allowed = set().union({"errors", "labels"}, *FLOORS[:floor])
    assert imported(MODULES[module]) <= allowed


def test_the_reader_of_imports_sees_them():
    assert imported(MODULES["table"]) == {"labels"}
    assert {"storage", "pairing"} < imported(MODULES["preprocess"])
