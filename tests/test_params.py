import json
import os
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import get_type_hints

import pytest
from conftest import PROJECT
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from synprep import demo, params
from synprep._core import paths, record, rules
from synprep._core.errors import FailedChunksError, ParameterError
from synprep._core.paths import find_problem, project_root, resolve, shown
from synprep._core.problems import Problem, warning

MADE = demo.PATHS


def problems(record_type=params.Preprocess, **passed):
    with pytest.raises(ParameterError) as caught:
        params.from_mapping(record_type, passed, MADE)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{len(lines)} problem{'s' * (len(lines) > 1)}, nothing was done:"
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cutout_threshold", "1e-2", "must be a number, not '1e-2' (text; YAML reads 1e-2 as text"),
        ("cutout_threshold", 1.5, "must be from 0 to 1, not 1.5"),
        ("cutout_threshold", -0.1, "must be from 0 to 1"),
        ("cutout_threshold", float("nan"), "must be a finite number"),
        ("cutout_threshold", 10**400, "must be a finite number"),
        ("cutout_threshold", True, "must be a number, not True"),
        ("cutout_threshold", None, "must be a number, not None"),
        ("cutout_pixel_value", 256, "must be from 0 to 255"),
        ("cutout_pixel_value", 0.0, "must be an integer, not 0.0"),
        ("axial_to_sagittal_spacing", 0, "must be greater than 0"),
        ("n_sections", -1, "must be 0 (from the spacing) or more"),
        ("max_chunks", -1, "must be 0 (all) or more"),
        ("max_chunks", True, "must be an integer, not True"),
        ("max_failures", -1, "must be 0 or more"),
        (
            "resume",
            "yes",
            "must be true or false, not 'yes' (text; write true in YAML, True after papermill's -p)",
        ),
        ("voxel_size_xy_nm", 0, "must be greater than 0"),
        ("voxel_size_xy_nm", 1e300, "must be greater than 0 (from 1e-6 to 1e9), not 1e+300"),
        ("proc_data_path", "", "must not be empty"),
        ("proc_data_path", 7, "must be text, not 7 (put it in quotes)"),
        ("raw_mask_data_path", "", "must not be empty"),
        ("em_filename_pattern", "{id}.npy", "must be a file name with one {synapse_id}"),
        ("em_filename_pattern", "{synapse_id}_{synapse_id}.npy", "must be a file name with one"),
        ("em_filename_pattern", "*{synapse_id}.npy", "with no * that touches it"),
        ("mask_filename_pattern", "{synapse_id}*.npy", "with no * that touches it"),
        ("mask_filename_pattern", "mask/{synapse_id}.npy", "must be a file name"),
        ("mask_filename_pattern", "mask\\{synapse_id}.npy", "must be a file name"),
        ("cut_intensity_with_seg_masks", 1, "must be true or false, not 1"),
        ("seg_mask_map", {"MASK_PRE_SYNAPTIC_NEURON": 1}, "three different values"),
        ("seg_mask_map", dict.fromkeys(params.MASK_KEYS, 1), "three different values"),
        ("seg_mask_map", dict(zip(params.MASK_KEYS, (0, 1, 2), strict=True)), "three different values"),
        (
            "seg_mask_map",
            dict(zip(params.MASK_KEYS, (1, 2, "3"), strict=True)),
            "must be an integer, not '3'",
        ),
        ("output_channel_desc", [], "must be a list of non-empty lists"),
        ("output_channel_desc", [[1], []], "must be a list of non-empty lists"),
        ("output_channel_desc", [[300]], "must be a list of non-empty lists"),
        ("output_channel_desc", [1, 2], "has an entry that must be a list, not 1"),
        ("output_channel_desc", "123", "must be a list, not '123'"),
    ],
)
def test_bad_value(name, value, message):
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name} ")
    assert message in line


@pytest.mark.parametrize(
    ("record_type", "name", "value", "message"),
    [
        (params.Preprocess, "n_workers", "two", "n_workers must be an integer, not 'two'"),
        (params.Preprocess, "n_workers", "nan", "n_workers must be an integer, not 'nan'"),
        (params.Preprocess, "n_workers", "2,5", "n_workers must be an integer, not '2,5'"),
        (
            params.Preprocess,
            "n_workers",
            "2",
            "n_workers must be an integer, not '2' (text: write it without quotes)",
        ),
        (
            params.SectionVariation,
            "example_synapse_id",
            1000379,
            "example_synapse_id must be text, not 1000379 (put it in quotes); papermill's -p makes numbers, "
            "-r passes text",
        ),
        (params.Preprocess, "scheduler", [], "scheduler must be text, not [] (put it in quotes)"),
        (
            params.Preprocess,
            "scheduler",
            None,
            "scheduler must be text, not None (in YAML an empty value, or a bare ~, is none)",
        ),
    ],
)
def test_hints_are_given_where_they_fit(record_type, name, value, message):
    assert problems(record_type, **{name: value}) == [message]


@pytest.mark.parametrize(
    ("record_type", "name", "value"),
    [
        (params.CutoutHistogram, "n_bins", 0),
        (params.CutoutHistogram, "n_rand_samples", 0),
        (params.SectionVariation, "section_index", -1),
        (params.SectionVariation, "example_synapse_id", 83),  # YAML's octal 0123
        (params.SectionVariation, "intensity_slope", float("inf")),
        (params.SectionVariation, "intensity_slope", -1),
        (params.Inspect, "dark", 1),
        (params.Fingerprint, "proc_data_path", ""),
        (params.Fingerprint, "n_workers", -1),
        (params.Fingerprint, "seed", 0.5),
        (params.Merge, "on_conflict", "newest"),
        (params.Merge, "link_mode", "symlink"),
        (params.Merge, "merged_meta_path", "data/merged/sections.csv"),
        (params.Merge, "meta_list", []),
        (params.Merge, "meta_list", "data/ds1/processed/meta.csv"),
    ],
)
def test_bad_value_of_other_notebooks(record_type, name, value):
    (line,) = problems(record_type, **{name: value})
    assert line.startswith(f"{name} ")


def test_unknown_name_is_told_with_the_nearest_one():
    assert problems(cutout_treshold=0.02) == [
        "cutout_treshold is not a parameter; did you mean cutout_threshold?"
    ]
    assert problems(xyzzy=1) == ["xyzzy is not a parameter"]


def test_the_nearest_name_may_be_of_another_notebook():
    text = "reports_path is not a parameter; did you mean report_path"
    others = "cutout_histogram, intensity_histogram, section_variation and 4 more"
    assert problems(reports_path="x") == [f"{text}, a parameter of {others}?"]
    assert problems(params.Inspect, reports_path="x") == [f"{text}?"]


def test_all_problems_are_found_together(tmp_path):
    missing = str(tmp_path / "none")
    lines = problems(cutout_treshold=0.02, max_chunks="3", raw_em_data_path=missing, synapse_ids_path=missing)
    assert [line.split()[0] for line in lines] == [
        "cutout_treshold",
        "max_chunks",
        "raw_em_data_path:",
        "synapse_ids_path:",
    ]
    assert f"there is no folder {missing}" in lines[2]
    assert f"there is no file {missing}" in lines[3]


def test_a_file_in_place_of_a_folder_and_the_other_way_round(tmp_path):
    (tmp_path / "7.npy").touch()
    lines = problems(raw_em_data_path=str(tmp_path / "7.npy"), synapse_ids_path=str(tmp_path))
    assert lines == [
        f"raw_em_data_path: {tmp_path / '7.npy'} is a file, not a folder",
        f"synapse_ids_path: {tmp_path} is a folder, not a file",
    ]


def test_missing_tables_are_found(tmp_path):
    (line,) = problems(params.Merge, meta_list=[str(tmp_path / "meta.csv"), "data/ds1/processed/meta.csv"])
    assert (
        line == f"meta_list: there is no file {tmp_path / 'meta.csv'} (preprocess makes it: run that first)"
    )


def test_a_processed_folder_is_an_output_of_one_notebook_and_an_input_of_others(tmp_path):
    folder = str(tmp_path / "processed")
    assert params.from_mapping(params.Preprocess, {"proc_data_path": folder}, MADE)
    (line,) = problems(params.Fingerprint, proc_data_path=folder)
    made = "preprocess makes it with this proc_data_path, merge with a merged_meta_path in it"
    assert line == f"proc_data_path: there is no folder {folder} ({made}: run that first)"


def test_merged_table_must_not_be_one_of_the_sources():
    path = "data/ds1/processed/meta.csv"
    assert problems(params.Merge, merged_meta_path=path) == [
        "merged_meta_path must not be one of the tables of meta_list"
    ]


def test_equal_patterns_need_folders_apart(tmp_path):
    folder, pattern = str(tmp_path), "{synapse_id}.npy"
    (tmp_path / "mask").mkdir()
    for mask_folder in (folder, str(tmp_path / "mask")):
        (line,) = problems(
            raw_em_data_path=folder, raw_mask_data_path=mask_folder, mask_filename_pattern=pattern
        )
        assert line.startswith("em_filename_pattern and mask_filename_pattern must differ")
    params.Preprocess(raw_em_data_path="a", raw_mask_data_path="b", mask_filename_pattern=pattern)


@pytest.mark.parametrize("record_type", [r for r in params.RECORDS if issubclass(r, params.Chunks)])
def test_one_raw_folder_alone_is_not_the_demonstration_s(record_type, tmp_path):
    names = ("raw_em_data_path", "raw_mask_data_path")
    for own, left in (names, names[::-1]):
        for also in ({}, {left: getattr(record_type(), left)}):
            assert problems(record_type, **{own: str(tmp_path)}, **also) == [
                f"{left} is the demonstration's, but {own} is not: set both"
            ]
    both = dict.fromkeys(names, str(tmp_path))
    volumes = {**CHANGED["volumes"], "synapse_table": __file__}
    for given in ({}, both, {**both, names[0]: "data/demo/em", "volumes": volumes}):
        params.from_mapping(record_type, given, MADE)
    if record_type not in (params.Preprocess, params.InspectRaw):
        for em in ("data/demo/em", str(tmp_path)):
            params.from_mapping(record_type, {names[0]: em, names[1]: ""}, MADE)


def test_synapses_of_the_demonstration_are_not_cut_into_own_folders(tmp_path):
    made = (*MADE, params.Extract().volumes["synapse_table"])
    for given in ({}, {"volumes": params.Extract().volumes}):
        values = {**given, "raw_em_data_path": str(tmp_path)}
        with pytest.raises(
            ParameterError, match=r"volumes are the demonstration's, but raw_em_data_path is not: set both$"
        ):
            params.from_mapping(params.Extract, values, made)
    own = {**params.Extract().volumes, "chunk_shape": [32, 32, 32]}
    for values in ({}, {"volumes": own}, {"volumes": own, "raw_em_data_path": str(tmp_path)}):
        params.from_mapping(params.Extract, values, made)


def test_names_of_other_notebooks_are_passed_over():
    record, passed_over = params.from_mapping(
        params.Preprocess, {"n_bins": 5, "meta_list": [], "max_chunks": 2}, MADE
    )
    assert passed_over == ["meta_list", "n_bins"]
    assert record.max_chunks == 2


def test_integers_are_fine_for_floats_and_become_floats():
    record = params.Preprocess(axial_to_sagittal_spacing=4, cutout_threshold=0)
    assert isinstance(record.axial_to_sagittal_spacing, float)
    assert record.axial_to_sagittal_spacing == 4


def test_a_record_made_in_python_checks_itself():
    with pytest.raises(ParameterError, match="cutout_threshold"):
        params.Preprocess(cutout_threshold=2)


def test_a_record_takes_path_objects(tmp_path):
    assert params.Preprocess(proc_data_path=tmp_path).proc_data_path == str(tmp_path)


NOTEBOOK_OF = {
    record_type: "".join(char if char.islower() else f"_{char.lower()}" for char in record_type.__name__)[1:]
    for record_type in params.RECORDS
}


def parameters_cell(record_type):
    """What stands in the notebook's cell that is tagged `parameters`."""
    notebook = json.loads((PROJECT / f"notebooks/{NOTEBOOK_OF[record_type]}.ipynb").read_text("utf-8"))
    tagged = [c for c in notebook["cells"] if c["metadata"].get("tags") == ["parameters"]]
    return "".join(tagged[0]["source"])


WRITTEN = parameters_cell(params.Preprocess)
EVERY_NOTEBOOK = pytest.mark.parametrize("record_type", params.RECORDS, ids=NOTEBOOK_OF.get)


def run_cells(*cells, history=True):
    """A namespace in which these cells were run, one after the other."""
    namespace = {}
    for cell in cells:
        exec(cell, namespace)
    return namespace | {"In": ["", *cells] if history else [""]}


def refused(record_type, namespace):
    with pytest.raises(ParameterError) as caught:
        params.check(record_type, namespace, MADE)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


LACKS = "cutout_threshold: not assigned in the parameters cell"
UNKNOWN = "cutout_treshold is not a parameter; did you mean cutout_threshold?"


class TestCheck:
    """What a notebook does: its namespace and the cells that were run."""

    @EVERY_NOTEBOOK
    @pytest.mark.parametrize("history", [True, False])
    def test_parameters_cells_of_the_notebooks(self, record_type, history, capsys):
        cell = parameters_cell(record_type)
        assert params.check(record_type, run_cells(cell, history=history), MADE) == record_type()
        assert params.check(record_type, run_cells("x = 1", cell, "y = 2", cell), MADE) == record_type()
        assert capsys.readouterr().out == ""

    @EVERY_NOTEBOOK
    def test_every_line_of_every_notebook_may_not_be_renamed_or_deleted(self, record_type):
        cell = parameters_cell(record_type)
        for name in asdict(record_type()):
            first_run = cell.replace(f"{name}:", f"{name}_s:", 1) if cell.startswith(name) else ""
            first_run = first_run or cell.replace(f"\n{name}:", f"\n{name}_s:", 1)
            for cells in ((first_run,), (cell, first_run), (cell, first_run, "x = 1")):
                lines = refused(record_type, run_cells(*cells))
                assert lines == [f"{name}_s is not a parameter; did you mean {name}?"]
            lines = refused(record_type, run_cells(first_run, history=False))
            assert [line.split(":")[0] for line in lines] == [name]
            deleted = run_cells(cell, first_run.replace(f"{name}_s:", "x: int = 1\ndel x\ny: "))
            assert refused(record_type, deleted)[0].startswith(f"{name}: not assigned")

    @EVERY_NOTEBOOK
    def test_added_lines(self, record_type):
        cell = parameters_cell(record_type)
        assert refused(record_type, run_cells(cell + "\nxyzzy = 1")) == ["xyzzy is not a parameter"]
        assert params.check(record_type, run_cells(cell, "xyzzy = 1"), MADE) == record_type()

    @pytest.mark.parametrize(
        "line",
        [
            "cutout_treshold = 0.5",
            "cutout_treshold: float = 0.5",
            "x = cutout_treshold = 0.5",
            "(max_chunks, [*cutout_treshold]) = 0, [1]",
            "cutout_treshold = 1\ncutout_treshold += 0.5",
            "if (cutout_treshold := 0.5): pass",
            "for cutout_treshold in [1]: pass",
            "with open(__import__('os').devnull) as cutout_treshold: pass",
            "if max_chunks == 0:\n    cutout_treshold = 0.5",
        ],
    )
    def test_ways_to_assign(self, line):
        assert UNKNOWN in refused(params.Preprocess, run_cells(f"{WRITTEN}\n{line}"))

    @pytest.mark.parametrize(
        "line",
        [
            "# cutout_treshold = 0.5",
            "import os as cutout",
            "def cutout(treshold):\n    cutout_treshold = 0.5",
            "assert [cutout_treshold for cutout_treshold in [1]]",
            "cutout_treshold: float",
            "seg_mask_map['MASK_SYNAPTIC_CLEFT'] = 9",
            "max_chunks, n_sections = 0, 0",
        ],
    )
    def test_what_assigns_nothing_new(self, line):
        assert params.check(params.Preprocess, run_cells(f"{WRITTEN}\n{line}"), MADE)

    def test_a_line_that_is_commented_out(self):
        cell = WRITTEN.replace("cutout_threshold", "# cutout_threshold", 1)
        (line,) = refused(params.Preprocess, run_cells(WRITTEN, cell))
        assert line.startswith(LACKS)
        assert len(refused(params.Preprocess, run_cells(cell, history=False))) == 1

    def test_values_come_from_the_namespace(self):
        assert params.check(params.Preprocess, run_cells(WRITTEN, "max_chunks = 3"), MADE).max_chunks == 3

    def test_the_latest_cell_with_types_counts(self):
        (line,) = refused(params.Preprocess, run_cells(WRITTEN, "max_chunks: int = 3"))
        assert line.startswith("raw_em_data_path, raw_mask_data_path, ")
        assert "and 16 more: not assigned in the parameters cell" in line

    def test_own_variables_are_not_mistaken_for_parameters(self):
        params.check(params.Preprocess, run_cells("cutout_treshold = 1", WRITTEN, "n = 2"), MADE)

    def test_what_papermill_injects_is_checked(self):
        injected = "# Parameters\ncutout_treshold = 0.02\n"
        assert refused(params.Preprocess, run_cells(WRITTEN, injected)) == [UNKNOWN]
        assert refused(params.Preprocess, run_cells(WRITTEN, injected, "x = 1", WRITTEN, injected)) == [
            UNKNOWN
        ]
        assert params.check(params.Preprocess, run_cells(injected, WRITTEN), MADE)

    def test_what_papermill_injects_overrides_and_adds(self):
        injected = "# Parameters\ncutout_threshold = 0.02\n"
        cell = WRITTEN.replace("cutout_threshold", "# cutout_threshold", 1)
        for cells in ((WRITTEN, injected), (cell, injected)):
            assert params.check(params.Preprocess, run_cells(*cells), MADE).cutout_threshold == 0.02

    def test_only_the_latest_injected_cell_counts(self):
        cells = ["# Parameters\ncutout_treshold = 0.02\n", "x = 1", "# Parameters\nmax_chunks = 1\n"]
        assert params.check(params.Preprocess, run_cells(WRITTEN, *cells), MADE).max_chunks == 1

    def test_a_person_may_call_the_cell_so_too(self):
        cell = f"# Parameters\n{WRITTEN}"
        assert params.check(params.Preprocess, run_cells(cell), MADE)
        assert UNKNOWN in refused(params.Preprocess, run_cells(f"{cell}\ncutout_treshold = 0.5"))

    def test_names_of_other_notebooks_are_told(self, capsys):
        for more in ((f"{WRITTEN}\nn_bins: int = 5",), (WRITTEN, "# Parameters\nn_bins = 5\n")):
            params.check(params.Preprocess, run_cells(*more), MADE)
            assert capsys.readouterr().out == "Passed over, since only other notebooks take them: n_bins\n"

    def test_names_of_other_notebooks_are_told_without_a_history(self, capsys):
        """As nbval runs the cells, it must come to the same line."""
        cells = ("x = 1", WRITTEN, "# Parameters\nn_bins = 5\nseed = 3\n")
        assert params.check(params.Preprocess, run_cells(*cells, history=False), MADE) == params.Preprocess()
        line = "Passed over, since only other notebooks take them: n_bins, seed\n"
        assert capsys.readouterr().out == line

    @pytest.mark.parametrize("cell", ["x = ", "%time x", "\0", "(" * 5000, "# only a comment", "", 5])
    def test_cells_that_are_not_python(self, cell):
        namespace = run_cells(WRITTEN)
        namespace["In"] += [cell]
        assert params.check(params.Preprocess, namespace, MADE)

    @pytest.mark.parametrize("cells", [None, [], [""], "In", 5])
    def test_no_history(self, cells):
        namespace = run_cells(WRITTEN) | {"In": cells}
        assert params.check(params.Preprocess, namespace, MADE)
        del namespace["cutout_threshold"]
        (line,) = refused(params.Preprocess, namespace)
        assert line.startswith(LACKS)

    def test_in_the_shell_that_notebooks_run_in(self, tmp_path):
        config = Config(HistoryManager={"enabled": False})
        shell = InteractiveShell(config=config, ipython_dir=str(tmp_path))
        wrong = WRITTEN.replace("cutout_threshold:", "cutout_treshold:")
        load = "# %load params.py\n"
        for cells, lines in (
            (("%precision 3\n" + WRITTEN + "\nassert True",), []),
            (("%%capture\n" + WRITTEN, "x = !echo 1", "x =", "x?"), []),
            (("%%capture\n" + wrong,), [UNKNOWN]),
            (("\n\n" + load + wrong,), [UNKNOWN]),
            ((WRITTEN, f"%%writefile {tmp_path}/x.py\nmax_chunks: int = 3", "%time y = 3"), []),
        ):
            with capture_output():
                for cell in cells:
                    shell.run_cell(cell, store_history=True)
            if lines:
                told = refused(params.Preprocess, shell.user_ns)
                assert [one[: len(line)] for one, line in zip(told, lines, strict=True)] == lines
            else:
                assert params.check(params.Preprocess, shell.user_ns, MADE)
        shell.run_cell("In.clear()")
        assert params.check(params.Preprocess, shell.user_ns, MADE)


CHANGED = {
    "raw_em_data_path": "other/em",
    "raw_mask_data_path": "other/mask",
    "em_filename_pattern": "em_{synapse_id}.npy",
    "mask_filename_pattern": "mask_{synapse_id}.npy",
    "volumes": {
        "synapse_table": "synapses.csv",
        "centre_unit_nm": [1, 1, 1],
        "em": "n5://em",
        "segmentation": "n5://segmentation",
        "cleft": "contact",
    },
    "cutout_threshold": 0.02,
    "cutout_pixel_value": 3,
    "axial_to_sagittal_spacing": 4.0,
    "n_sections": 7,
    "n_workers": 2,
    "scheduler": "tcp://host:8786",
    "proc_data_path": "other/processed",
    "synapse_ids_path": "other/ids.csv",
    "max_chunks": 5,
    "voxel_size_xy_nm": 4.0,
    "seg_mask_map": dict(zip(params.MASK_KEYS, (3, 2, 1), strict=True)),
    "cut_intensity_with_seg_masks": True,
    "output_channel_desc": [[1, 2], [3]],
    "resume": False,
    "verify": True,
    "max_failures": 1,
    "dark": True,
}


class TestKey:
    """By which a run tells whether a chunk was made with other parameters."""

    def key(self, **values):
        return record.key_of(params.content(params.Preprocess(**values)))

    def test_keys_are_those_of_folders_that_were_processed_before(self):
        assert self.key() == "d1a449c78ebda0c5"
        decides = {name: CHANGED[name] for name in params.content(params.Preprocess())}
        assert self.key(**decides) == "13b9b910486ad2a7"

    @pytest.mark.parametrize("name", [f.name for f in fields(params.Preprocess)])
    def test_what_decides_a_tensor_changes_the_key_and_nothing_else_does(self, name):
        decides = {*params.content(params.Preprocess())} - {"output_channel_desc"}
        assert (self.key(**{name: CHANGED[name]}) != self.key()) == (name in decides)

    @pytest.mark.parametrize("name", sorted({*CHANGED} - {"cut_intensity_with_seg_masks"}))
    def test_when_the_em_is_cut_its_channels_decide_too(self, name):
        cut = {"cut_intensity_with_seg_masks": True}
        changed = self.key(**cut, **{name: CHANGED[name]})
        assert (changed != self.key(**cut)) == (name in params.content(params.Preprocess()))


def test_one_name_has_one_type_and_one_default_in_all_records():
    types, defaults = {}, {}
    for record_type in {*params.RECORDS} - {
        params.Extract,
        params.Fingerprint,
    }:  # their folders are their own
        for name, value in asdict(record_type()).items():
            assert get_type_hints(record_type)[name] == types.setdefault(
                name, get_type_hints(record_type)[name]
            )
            assert value == defaults.setdefault(name, value), name


def test_documentation_has_a_row_for_each_name_with_what_every_record_says():
    rows = dict(row[2:-2].split(" | ", 1) for row in params.documentation().splitlines()[2:])
    assert {*rows} == {f"`{f.name}`" for record_type in params.RECORDS for f in fields(record_type)}
    assert rows["`max_chunks`"] == "`0` | process the first few only, as a trial; 0: all"
    assert rows["`intensity_slope`"].startswith("`0.0` | ")
    assert rows["`intensity_slope`"].endswith("; 0: the ratio of the two sections' means")
    assert rows["`synapse_ids_path`"].startswith("empty | ")
    assert rows["`synapse_ids_path`"].endswith("; empty: all")
    assert rows["`resume`"].startswith("`true` | ")
    assert rows["`output_channel_desc`"].startswith("`[[1], [2], [3]]` | ")
    assert "for tensors and tables" in rows["`proc_data_path`"]
    assert "; in inspect and fingerprint:" in rows["`proc_data_path`"]


def test_yaml_file(tmp_path):
    (tmp_path / "p.yaml").write_text("max_chunks: 4\nn_bins: 7\ncutout_threshold: 0\n")
    assert params.from_yaml(params.Preprocess, tmp_path / "p.yaml", MADE).max_chunks == 4
    (tmp_path / "p.yaml").write_text("cutout_threshold: 1e-2\n")
    with pytest.raises(ParameterError, match="YAML reads 1e-2 as text"):
        params.from_yaml(params.Preprocess, tmp_path / "p.yaml", MADE)


def test_a_yaml_file_that_is_no_mapping(tmp_path):
    (tmp_path / "p.yaml").write_text("- 1\n")
    with pytest.raises(ParameterError, match=r"p\.yaml: must hold lines of the form name: value"):
        params.from_yaml(params.Preprocess, tmp_path / "p.yaml", MADE)


def test_table_shows_what_differs_from_the_defaults(tmp_path):
    """And paths relative to the project, where they are inside."""
    assert params.as_table(params.Merge()) is None
    tables = ["data/ds1/processed/meta.csv", "data/other/meta.csv"]
    table = params.as_table(params.Merge(meta_list=tables, merged_meta_path=tmp_path / "meta.csv"))["value"]
    assert table.to_dict() == {
        "meta_list": "['data/ds1/processed/meta.csv', 'data/other/meta.csv']",
        "merged_meta_path": (tmp_path / "meta.csv").as_posix(),
    }


def test_table_shows_a_key_in_a_row():
    one = params.Extract(volumes={**params.Extract().volumes, "cache_mb": 64, "id_column": "synapse"})
    assert params.as_table(one)["value"].to_dict() == {
        "volumes: id_column": "synapse",
        "volumes: cache_mb": "64",
    }
    labels = {"MASK_PRE_SYNAPTIC_NEURON": 1, "MASK_SYNAPTIC_CLEFT": 5, "MASK_POST_SYNAPTIC_NEURON": 3}
    table = params.as_table(params.Preprocess(seg_mask_map=labels))["value"]
    assert table.to_dict() == {"seg_mask_map: MASK_SYNAPTIC_CLEFT": "5"}


def test_paths_start_from_the_project_wherever_the_kernel_runs(monkeypatch, tmp_path):
    root = Path(__file__).resolve().parents[1]
    for folder in (root, root / "notebooks", tmp_path):
        monkeypatch.chdir(folder)
        assert project_root() == root
        assert resolve("data/x") == str(root / "data" / "x")


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert resolve("~/x") == str(tmp_path / "x")
    assert resolve(str(tmp_path)) == str(tmp_path)
    assert resolve("") == ""
    assert shown(resolve("data/../data/x")) == "data/x"
    assert shown(tmp_path) == tmp_path.as_posix()


WRONG_PATHS = {
    "$NOPE/x": "must name environment variables that are set",
    "${NOPE}/x": "must name environment variables that are set",
    "$EMPTY/x": "must name environment variables that are set and not empty",
    "data/$(pwd)/x": "must name environment variables",
    "%USERPROFILE%/x": "must have $NAME in place of %NAME%",
    "gs://bucket/x": "not a URL, not 'gs://bucket/x'",
    "file:///x": "not a URL",
    "s3:/bucket": "not a URL",
    "me@host:/x": "not a URL",
    "$BUCKET/x": "not a URL, not '$BUCKET/x' (that is 'gs://bucket/x')",
    " data/x": "must have no blank at either end",
    "data/x\u00a0": "must have no blank at either end",
    "\ufeffdata/x": "must have no blank at either end",
    "data/x\n": "must be text without control characters",
    "data/\0x": "must be text without control characters",
    "data/\ud800": "must be text without control characters",
    "~nosuchuser/x": "for the home of a user that there is (a folder: ./~NAME)",
}
WRONG_OFF_WINDOWS = {
    "C:\\em": "must have no drive letter, since this is not Windows",
    "C:/em": "must have no drive letter",
    "data\\em": "must have / between folders, since this is not Windows",
}


@pytest.fixture
def variables(monkeypatch, tmp_path):
    for name, value in (("SCRATCH", str(tmp_path)), ("EMPTY", ""), ("BUCKET", "gs://bucket")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOPE", raising=False)
    monkeypatch.setattr(paths, "_IS_WINDOWS", False)


PATHS = [
    (record_type, name)
    for record_type in params.RECORDS
    for name, (_, _, facts) in rules.declared(record_type).items()
    if facts.path
]


@pytest.mark.parametrize(("record_type", "name"), PATHS, ids=lambda value: getattr(value, "__name__", value))
def test_paths_that_would_make_a_folder_of_that_name(record_type, name, variables):
    is_list, is_address = name == "meta_list", name == "scheduler"
    for path, message in (WRONG_PATHS | WRONG_OFF_WINDOWS).items():
        if is_address and "://" in path:
            continue
        lines = problems(record_type, **{name: ["data/ds1/processed/meta.csv", path] if is_list else path})
        assert [line.startswith(f"{name} {'has an entry that ' * is_list}must") for line in lines] == [True]
        assert message in lines[0]


@pytest.mark.parametrize(("record_type", "name"), PATHS, ids=lambda value: getattr(value, "__name__", value))
def test_names_of_environment_variables_are_expanded(record_type, name, variables, tmp_path):
    for path in ("$SCRATCH/a", "${SCRATCH}/a", f"{tmp_path}/a"):
        record = record_type(**{name: [path] if name == "meta_list" else path})
        value = getattr(record, name)
        assert value == ([str(tmp_path / "a")] if name == "meta_list" else str(tmp_path / "a"))
        assert str(tmp_path / "a") in str(asdict(record)[name])  # what run.json records


def test_an_address_is_no_path():
    assert params.Preprocess(scheduler="tcp://host:8786").scheduler == "tcp://host:8786"
    assert (
        params.as_table(params.Preprocess(scheduler="tls://host:1"))["value"]["scheduler"] == "tls://host:1"
    )


def test_a_list_of_paths_has_no_empty_one():
    assert problems(params.Merge, meta_list=[""]) == ["meta_list has an entry that must not be empty"]


def test_drive_letters_are_right_on_windows(monkeypatch):
    monkeypatch.setattr(paths, "_IS_WINDOWS", True)
    assert [find_problem(path) for path in WRONG_OFF_WINDOWS] == [""] * 3
    assert find_problem("\\\\server\\c$\\em") == ""
    assert "not a URL" in find_problem("gs://bucket")


def test_what_was_resolved_stays_wherever_the_project_is(tmp_path, monkeypatch):
    root = tmp_path / "$cratch 100% ~x"
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "preprocess.ipynb").touch()
    (root / "params").mkdir()
    monkeypatch.chdir(root)
    for path in ("data/x", "./~x", "data/cost$/x", "20%/x", "12:30/x"):
        assert find_problem(path) == find_problem(resolve(path)) == ""
        assert resolve(resolve(path)) == resolve(path) == os.path.abspath(root / path)
    assert "must name environment variables" in find_problem(str(root / "$NOPE"))


def test_volumes_name_environment_variables_too(variables, tmp_path):
    given = CHANGED["volumes"] | {
        "synapse_table": "$SCRATCH/s.csv",
        "em": {"path": "n5://${SCRATCH}/em", "axes": "zyx"},
        "segmentation": "n5://s3://bucket/segmentation",
    }
    recorded = params.Preprocess(volumes=given).volumes
    assert recorded == given | {
        "synapse_table": str(tmp_path / "s.csv"),
        "em": {"path": f"n5://{tmp_path}/em", "axes": "zyx"},
    }
    assert params.Preprocess(volumes=CHANGED["volumes"]).volumes == CHANGED["volumes"]
    (tmp_path / "s.csv").touch()
    assert params.from_mapping(params.Preprocess, {"volumes": given})


@pytest.mark.parametrize("path", [*WRONG_PATHS, *WRONG_OFF_WINDOWS])
def test_volumes_refuse_paths_that_are_written_wrongly(path, variables):
    local = [("em", f"n5://{path}"), ("em", {"path": f"zarr://{path}"})] if "://" not in path else []
    for name, value in (("synapse_table", path), *local):
        with pytest.raises(ParameterError, match=f"volumes: {name}") as caught:
            params.Preprocess(volumes=CHANGED["volumes"] | {name: value})
        assert "must" in str(caught.value)


def test_a_project_above_the_working_folder_comes_first(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "preprocess.ipynb").touch()
    (tmp_path / "params").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_root() == tmp_path


def test_records_can_be_written_as_json():
    for record_type in params.RECORDS:
        assert json.loads(json.dumps(asdict(record_type())))
        assert all(f.name == f.name.lower() for f in fields(record_type))


def test_import_needs_neither_papermill_nor_jupyter():
    code = (
        "import sys, synprep.params; print(sorted({'papermill', 'IPython', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_notebook_ends_with_what_came_out(capsys):
    for record_type in params.RECORDS:  # all say where results are, and what comes next
        params.conclude(record_type(), done=1200, with_warnings=3)
        chunks, *lines = capsys.readouterr().out.splitlines()
        assert chunks == "chunks: 1,200 done, 3 with warnings, 0 failed"
        assert [line.split(": ")[0] for line in lines] == ["results", "next"]
        assert all(line.partition(": ")[2] for line in lines)


def test_what_failed_and_was_accepted_is_named_above_it(capsys):
    params.conclude(params.Preprocess(max_failures=1), {"7": "file is cut short: 7.npy"}, done=3)
    assert capsys.readouterr().out.splitlines() == [
        "1 chunk failed; all others are done:",
        "  7: file is cut short: 7.npy",
        "chunks: 3 done, 1 failed",
        "results: data/demo/processed",
        "next: inspect.ipynb",
    ]


NO_CLEFT = [replace(warning("no cleft voxel", (1, label)), synapse_id=f"{label}") for label in (3, 1)]
UNFIT = [Problem(kind="x and y differ", severity="unfit", synapse_id="7")]


@pytest.mark.parametrize(
    ("record", "n_done", "found", "said", "after"),
    [
        (
            params.Preprocess(),
            2,
            NO_CLEFT,
            "2 of 2 chunks (3, 1): no cleft voxel; labels found: 1, 3: see seg_mask_map",
            "see seg_mask_map, and run this again; if all is as it should be, inspect.ipynb",
        ),
        (params.Preprocess(), 4, NO_CLEFT, None, "inspect.ipynb"),
        (
            params.Fingerprint(),
            4,
            UNFIT,
            "1 of 4 chunks (7): x and y differ",
            "not ready for training: mend these chunks or leave them out (synapse_ids_path), preprocess "
            "again, and run this again",
        ),
    ],
)
def test_what_comes_next_depends_on_what_most_chunks_share(record, n_done, found, said, after, capsys):
    params.conclude(record, {}, found, done=n_done)
    _, *shared, _, last = capsys.readouterr().out.splitlines()
    assert shared == ([said] if said else [])
    assert last == f"next: {after}"


def test_what_is_wrong_with_a_chunk_that_failed_is_said_once(capsys):
    params.conclude(params.Preprocess(max_failures=1), {"7": "damaged"}, UNFIT, done=1)
    assert "x and y differ" not in capsys.readouterr().out


MEND = "mend or remove what failed (problems.csv names all), and run this again"


@pytest.mark.parametrize(
    ("record", "n_done", "after"),
    [
        (params.Preprocess(max_failures=1), 3, f"{MEND}; or accept it with max_failures 12"),
        (params.Preprocess(max_failures=99), 0, f"{MEND}; max_failures does not apply where none came out"),
        (params.Preprocess(), 0, MEND),
        (params.Extract(), 3, f"{MEND}; or accept it with max_failures 12"),
        (params.Inspect(), 3, "the results are without what failed; mend or remove it, and run this again"),
        (params.InspectRaw(), 0, "nothing could be read; mend or remove it, and run this again"),
    ],
)
def test_more_failures_than_are_accepted_end_in_one_error(record, n_done, after, capsys):
    with pytest.raises(FailedChunksError) as caught:
        params.conclude(record, {f"id{n}": "bad" for n in range(12)}, done=n_done)
    head, *failed, more, chunks, results, last = str(caught.value).splitlines()
    assert head == f"12 chunks failed; {'all others are done' if n_done else 'there are no others'}:"
    assert failed == [f"  id{n}: bad" for n in range(10)]
    assert (more, chunks) == ("  and 2 more", f"chunks: {n_done} done, 12 failed")
    assert results.startswith("results: data/")
    assert last == f"next: {after}"
    assert capsys.readouterr().out == ""  # a terminal shows the error last, below papermill's traceback
