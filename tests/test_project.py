"""The project's own files: what the notebooks look like, what is ignored, what is pinned."""

import ast
import re
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from types import SimpleNamespace
from typing import get_type_hints

import nbformat
import numpy as np
import pytest
import yaml
from conftest import NOTEBOOKS, PROJECT

from synprep import demo, params
from synprep._core.errors import ParameterError

RECORDS = {
    "cutout_histogram": params.CutoutHistogram,
    "intensity_histogram": params.IntensityHistogram,
    "section_variation": params.SectionVariation,
    "inspect_raw": params.InspectRaw,
    "preprocess": params.Preprocess,
    "extract": params.Extract,
    "inspect": params.Inspect,
    "merge": params.Merge,
    "fingerprint": params.Fingerprint,
}
YAML_FILES = sorted((PROJECT / "params").glob("*.yaml"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def cells(path, kind):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def parameters_cell(path):
    (cell,) = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    return cell


def test_every_notebook_has_a_record():
    assert {path.stem for path in NOTEBOOKS} == set(RECORDS)
    assert set(RECORDS.values()) == set(params.RECORDS)


def test_the_test_command_runs_every_notebook():
    options = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert {path for path in options["testpaths"] if path.endswith("ipynb")} == {
        f"notebooks/{path.name}" for path in NOTEBOOKS
    }
    assert "--nbval" in options["addopts"].split()


def test_every_code_cell_was_run_so_that_nbval_compares_it(notebook):
    assert [cell.execution_count for cell in cells(notebook, "code")] == list(
        range(1, len(cells(notebook, "code")) + 1)
    )
    assert not [out for cell in cells(notebook, "code") for out in cell.outputs if out.output_type == "error"]


def test_no_cell_is_exempt_from_the_comparison(notebook):
    """But for the one that prints what this run has moved aside, which the next one does not say."""
    document = nbformat.read(notebook, 4)
    others = [cell for cell in document.cells if cell.metadata.get("tags") != ["nbval-ignore-output"]]
    exempt = [cell.source for cell in document.cells if cell not in others]
    assert all(re.fullmatch(r"for line in (result\.)?history:.*\n    print\(line\)", text) for text in exempt)
    assert bool(exempt) == (notebook.stem in ("preprocess", "merge"))
    document.cells = others
    assert not re.search(r"nbval[_-](ignore|skip|raises)|nbval-", nbformat.writes(document).lower())


def test_no_random_names_are_stored(notebook):
    """As `make notebooks` leaves them: running a notebook again changes nothing where it shows the same."""
    assert {*re.findall('"model_id": "(.*)"', notebook.read_text("utf-8"))} <= {"0"}


def test_title_first_and_one_idea_per_cell(notebook):
    assert nbformat.read(notebook, 4).cells[0].source.startswith("# ")
    for cell in cells(notebook, "code"):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert not re.search(r"^\s*(def|class) ", cell.source, re.MULTILINE)
        if not re.search("^(import|from) ", cell.source) and cell != parameters_cell(notebook):
            assert len(lines) <= 4, cell.source


def test_parameters_cell_agrees_with_the_record(notebook):
    """Names, types and defaults; and each has a comment that says what it is."""
    record = RECORDS[notebook.stem]
    source = parameters_cell(notebook).source
    statements = ast.parse(source).body
    assert len(statements) == len(get_type_hints(record))
    assert {s.target.id for s in statements} == set(get_type_hints(record))
    namespace = {}
    exec(source, namespace)
    for statement in statements:
        name = statement.target.id
        assert ast.unparse(statement.annotation) == _hint_text(get_type_hints(record)[name]), name
    assert record(**{name: namespace[name] for name in get_type_hints(record)}) == record()


def test_figures_are_dark_where_that_is_asked_for(notebook):
    sources = "\n".join(cell.source for cell in cells(notebook, "code"))
    expected = [] if notebook.stem == "merge" else ["figures.use_style(p.dark)"]
    assert [line for line in sources.splitlines() if "use_style(p." in line] == expected


def _hint_text(hint):
    return hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)


def test_papermill_can_read_all_parameters(notebook):
    """A comment with an equals sign, or one that the formatter wraps, drops out of this listing."""
    papermill = pytest.importorskip("papermill")
    found = papermill.inspect_notebook(str(notebook))
    assert set(found) == set(get_type_hints(RECORDS[notebook.stem]))
    assert all(entry["help"] for entry in found.values()), [
        name for name, entry in found.items() if not entry["help"]
    ]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_files_hold_known_parameters_of_the_right_type(path):
    values = yaml.safe_load(path.read_text("utf-8"))
    for record in params.RECORDS:
        is_refused = record is params.Extract and "raw_em_data_path" in values and "volumes" not in values
        with pytest.raises(ParameterError, match="volumes are") if is_refused else nullcontext():
            params.from_mapping(record, values, [*_input_paths(values), *demo.PATHS])


def _input_paths(values):
    single = [value for name, value in values.items() if name.endswith("_path") and value]
    return single + values.get("meta_list", [])


def test_the_template_names_every_parameter_of_a_data_set():
    """Those that people change are set; all others are commented out, with their defaults."""
    text = (PROJECT / "params" / "ds1.yaml").read_text("utf-8")
    given, below = yaml.safe_load(text), text.partition("take the # away from what you change.\n")[2]
    commented = yaml.safe_load(re.sub(r"(?m)^# (?=\w+: )", "", below))
    names = {name for record in params.RECORDS for name in get_type_hints(record)}
    names -= set(get_type_hints(params.Merge))
    assert {*given, *commented} == names - {"volumes"}  # params/volumes.yaml
    assert {*given} == {"raw_em_data_path", "raw_mask_data_path", "proc_data_path", "report_path"}
    for record in params.RECORDS:
        default = record()
        for name in commented.keys() & get_type_hints(record).keys():
            assert getattr(default, name) == commented[name], name


def test_requirements_are_pinned_without_any_index():
    lines = (PROJECT / "requirements.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins[-1] == "-e ."
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^ ]+( ; .+)?", pin) for pin in pins[:-1])
    names = {re.split("==", pin)[0].lower() for pin in pins[:-1]}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {re.split(">=", requirement)[0].lower() for requirement in wanted} <= names
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+>=[0-9.]+", requirement) for requirement in wanted)


def test_what_runs_write_is_ignored_by_git():
    written = [
        "out.ipynb",
        "out/x.ipynb",
        "notebooks/out.ipynb",
        "notebooks/mine.ipynb",
        "data/demo/em/1.npy",
        "params/out.ipynb",
    ]
    result = subprocess.run(["git", "check-ignore", *written], cwd=PROJECT, capture_output=True, text=True)
    if result.returncode == 128:
        pytest.skip("this is not a git checkout")
    assert result.stdout.split() == written
    kept = [f"notebooks/{path.name}" for path in NOTEBOOKS]
    assert subprocess.run(["git", "check-ignore", *kept], cwd=PROJECT, capture_output=True).returncode == 1


def test_the_docs_have_the_table_of_parameters_that_the_records_give():
    page = (PROJECT / "docs" / "parameters.md").read_text("utf-8")
    (table,) = re.findall("<!-- parameters: .*-->\n\n((?:[|].*\n)*)\n<!-- end of parameters -->", page)
    assert table == params.documentation() + "\n", "renew it as CONTRIBUTING.md says"
    assert all(re.fullmatch(r"[|]( [^|]+ [|]){3}", row) for row in table.splitlines()[2:])


def test_the_readme_names_every_notebook():
    readme = (PROJECT / "README.md").read_text("utf-8")
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in readme


def test_the_version_is_in_the_changelog():
    version = subprocess.run(
        [sys.executable, "-c", "import synprep; print(synprep.__version__)"], capture_output=True, text=True
    )
    assert f"## {version.stdout.strip()}" in (PROJECT / "CHANGELOG.md").read_text("utf-8")


PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert links or page.name not in ("README.md", "notebooks.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_show_what_happens_and_keep_each_others_outputs(page):
    for block in re.findall("```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        commands = [line for line in block.splitlines() if "papermill notebooks/" in line]
        outputs = [re.search(r"papermill \S+ (\S+)", command)[1] for command in commands]
        assert len({*outputs}) == len(outputs), block
        assert all("--log-output" in command for command in commands), block


def test_a_model_reads_what_preprocess_writes(tmp_path, monkeypatch):
    """The README's data set class, with stand-ins for what it takes of PyTorch."""
    data = SimpleNamespace(Dataset=object)
    torch = SimpleNamespace(utils=SimpleNamespace(data=data), from_numpy=lambda array: array)
    monkeypatch.setitem(sys.modules, "torch", torch)
    (code,) = re.findall("```python\n(.*?)```", (PROJECT / "README.md").read_text("utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    tensor_cxyz = np.arange(2 * 3 * 3 * 2, dtype=np.uint8).reshape(2, 3, 3, 2)
    np.save(tmp_path / "007__2_3_3_2.npy", tensor_cxyz)
    (tmp_path / "meta.csv").write_text("synapse_id,filename\n007,007__2_3_3_2.npy\n")
    synapses = names["Synapses"](str(tmp_path))
    assert len(synapses) == 1
    em, mask, synapse_id = synapses[0]
    assert synapse_id == "007"
    np.testing.assert_array_equal(em, tensor_cxyz[0] / 255)
    np.testing.assert_array_equal(mask, tensor_cxyz[1])
