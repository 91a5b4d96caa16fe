"""Every notebook with the YAML files for it, an unknown parameter, and stored outputs that are wrong."""

import json
import re
import secrets

import nbformat
import pytest
import yaml
from conftest import NOTEBOOKS, PROJECT, copy_project, run_nbval, text_of


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project without anything that a run writes."""
    folder = tmp_path_factory.mktemp("clone")
    copy_project(folder)
    return folder


# A notebook that takes nothing of a file but where its results go does what it does with another file. And
# preprocess must not write into a merged set.
SETS = ("demo", "ds1", "ds2", "volumes")
YAML = dict.fromkeys((path.stem for path in NOTEBOOKS), SETS) | {
    "extract": ("volumes",),
    "merge": ("merge", "ds1"),  # the one that it is for, and one that it passes over
    "inspect": (*SETS, "merge"),
    "fingerprint": (*SETS, "merge"),
}
RUNS = [(path, name) for path in NOTEBOOKS for name in YAML[path.stem]]


@pytest.mark.parametrize(("notebook", "yaml_name"), RUNS, ids=lambda value: getattr(value, "stem", value))
def test_every_notebook_runs_with_the_yaml_files_for_it(papermill, clone, notebook, yaml_name):
    out = clone / "out" / f"{notebook.stem}_{yaml_name}.ipynb"
    out.parent.mkdir(exist_ok=True)
    result = papermill(clone, notebook.relative_to(PROJECT), out, "-f", f"params/{yaml_name}.yaml")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Error" not in text_of(out)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_refuses_an_unknown_parameter(papermill, notebook, tmp_path):
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"cutout_treshold": 0.02}))
    result = papermill(tmp_path, notebook, "out.ipynb", "-f", "p.yaml")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert re.search(r"did you mean cutout_threshold(\?$|, a parameter of cutout_histogram, )", last)


def test_a_changed_number_is_noticed_in_every_notebook(tmp_path):
    """What nbval compares is really compared: one digit of the last number of each notebook.

    The cells show what they have stored, without any work, and stand in one notebook.
    """
    together = nbformat.v4.new_notebook(metadata=nbformat.read(NOTEBOOKS[0], 4).metadata)
    expected = []
    for path in NOTEBOOKS:
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        for cell in cells:
            cell.source = SHOW_AGAIN.format(outputs=json.dumps(cell.outputs))
        expected.append(len(together.cells) + change_last_number(cells))
        together.cells += cells
    for cell in together.cells:
        cell.id = secrets.token_hex(4)
    nbformat.write(together, tmp_path / "together.ipynb")
    result = run_nbval(tmp_path, "--rootdir", tmp_path, "together.ipynb")
    failed = re.findall(r"^FAILED together\.ipynb::Cell (\d+)", result.stdout, re.MULTILINE)
    assert list(map(int, failed)) == expected, result.stdout[-2000:] + result.stderr


SHOW_AGAIN = """
import json
from IPython.display import display

for output in json.loads({outputs!r}):
    if "data" in output:
        display(output["data"], raw=True)
    else:
        print(output["text"], end="")
"""


def change_last_number(cells):
    """Change a digit in what some cells show; return which cell it is."""
    for number, cell in reversed(list(enumerate(cells))):
        for out in reversed(cell.outputs):
            texts = out.get("data", out)
            kinds = [kind for kind in ("text/html", "text/plain", "text") if kind in texts]
            numbers = re.findall(r"\d+\.\d+|\d{2,}", texts[kinds[0]]) if "image/png" not in texts else []
            if numbers:
                other = numbers[-1][:-1] + str(9 - int(numbers[-1][-1]))
                for kind in kinds:
                    texts[kind] = texts[kind].replace(numbers[-1], other)
                return number
    raise ValueError("no number")
