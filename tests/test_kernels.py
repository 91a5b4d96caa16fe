import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from synprep._core import arrays, kernels

SHAPES = [(1, 1, 1), (3, 5, 7), (16, 9, 4), (5, 300, 2), (131, 2, 3), (258, 3, 2), (144, 2, 19)]


def random_array(shape, order):
    return np.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), order=order)


def plain_counts(array):
    return [[int((array[:, :, z] == value).sum()) for value in range(256)] for z in range(array.shape[2])]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_count(order, shape):
    array = random_array(shape, order)
    counts = kernels.count(array)
    assert counts.dtype == np.int64
    assert counts.flags.c_contiguous
    assert counts.tolist() == plain_counts(array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_copy_and_count(order, shape):
    array = random_array(shape, order)
    table = np.random.default_rng(1).integers(0, 256, 256, dtype=np.uint8)
    out = np.empty(shape, np.uint8)
    assert kernels.copy_and_count(array, table, out).tolist() == np.sum(plain_counts(array), axis=0).tolist()
    assert np.array_equal(out, table[array])


@pytest.mark.parametrize("stranger", [None, 4, 255])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [*SHAPES, (8, 600, 1)])
def test_labels_that_stay_as_they_are(order, shape, stranger):
    array = random_array(shape, order) % 4
    if stranger is not None:
        array[-1, -1, -1] = stranger
    array = np.asarray(array, order=order)
    out = np.empty(shape, np.uint8)
    counts = kernels.copy_and_count(array, np.arange(256, dtype=np.uint8), out)
    assert counts.tolist() == np.bincount(array.ravel(), minlength=256).tolist()
    assert np.array_equal(out, array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("value", [0, 1, 2, 3])
def test_counts_of_labels_do_not_overflow(order, value):
    array = np.full((2, 70_000, 2), value, np.uint8, order=order)
    counts = kernels.copy_and_count(array, np.arange(256, dtype=np.uint8), array.copy())
    assert counts[value] == counts.sum() == 280_000


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_count_by_label(order, shape):
    em = random_array(shape, order)
    mask = np.asarray(np.random.default_rng(1).integers(0, 6, shape, dtype=np.uint8), order=order)
    is_blanked = np.arange(shape[2]) % 3 == 1
    mask[0], mask[-1] = 2, 255
    counts = kernels.count_by_label(em, mask, is_blanked)
    expected = np.zeros((2, 5, 256), int)
    np.add.at(expected, (is_blanked[None, None].astype(int), np.minimum(mask, 4), em), 1)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_slices_along_z(order):
    part = random_array((9, 8, 20), order)[:, :, 7:12]
    out = np.empty(part.shape, np.uint8)
    counts = kernels.copy_and_count(part, np.arange(256, dtype=np.uint8), out)
    assert np.array_equal(out, part)
    assert kernels.count(part).tolist() == plain_counts(part)
    assert counts.tolist() == np.sum(plain_counts(part), axis=0).tolist()


@pytest.mark.parametrize("left_out", [0, 7, 255])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_copy_and_sum_agrees_with_the_histogram(order, shape, left_out):
    array = random_array(shape, order)
    array[0] = left_out
    out = np.empty(shape, np.uint8)
    expected = arrays.moments(kernels.count(array), left_out)
    assert kernels.copy_and_sum(array, left_out, out).tolist() == expected.tolist()
    assert np.array_equal(out, array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_sums_do_not_overflow(order):
    array = np.full((3, 70_000, 2), 255, np.uint8, order=order)[:, :66_000]
    out = np.empty(array.shape, np.uint8)
    assert kernels.copy_and_sum(array, 0, out)[3].tolist() == [3 * 66_000 * 255**2] * 2


# Where compiled loops are kept

READ_ONLY = """
import os, sys, numba, numpy, tempfile
numba.njit(lambda x: x + 1)(1)  # all of the compiler is loaded while its files can be read
if os.getuid() == 0:
    os.setuid(65534)
os.chdir(sys.argv[1])
sys.path.insert(0, sys.argv[1])
import synprep
from synprep._core import cut_kernels, kernels
assert synprep.__file__.startswith(sys.argv[1])
print(kernels.count(numpy.full((2, 3, 1), 7, numpy.uint8))[0, 7], os.listdir())
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="no such users here")
def test_without_a_folder_that_can_be_written():
    """As in a container: neither the package's, nor that of the user."""
    with tempfile.TemporaryDirectory() as name:
        package = Path(name, "synprep")
        source = Path(__file__).parents[1] / "synprep"
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
        folders = [path for path in (Path(name), *Path(name).rglob("*")) if path.is_dir()]
        for folder in folders:
            folder.chmod(0o555)
        cache = ("NUMBA", "XDG", "PYTHONPATH")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(cache)}
        environment["HOME"] = "/nonexistent"
        command = [sys.executable, "-P", "-c", READ_ONLY, name]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
        for folder in folders:
            folder.chmod(0o755)
    assert (done.stderr, done.stdout) == ("", "6 ['synprep']\n")


def test_a_user_without_a_home_gets_no_folder_of_that_name(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user id that has no name
    assert kernels.compiled(lambda x: x)._cache.cache_path is None


@pytest.fixture
def new(tmp_path, monkeypatch):
    """A function that is compiled anew at each call, or read from the folder beside its file."""
    path = tmp_path / "module.py"
    path.write_text("def add(x):\n    return x + 1\n")
    spec = importlib.util.spec_from_file_location("module", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "module", module)
    return lambda: kernels.compiled(module.add)


def hits(function):
    assert function(1) == 2
    return sum(function.stats.cache_hits.values())


def test_compiled_loops_are_kept(new):
    assert [hits(new()), hits(new())] == [0, 1]


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"text", 10, -1])
def test_what_was_kept_and_is_damaged_is_compiled_again(kind, content, new, tmp_path):
    hits(new())
    (path,) = (tmp_path / "__pycache__").glob(f"*.{kind}")
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:content])
    assert [hits(new()), hits(new())] == [0, 1]


def test_what_was_kept_and_cannot_be_read_is_compiled_again(new, tmp_path):
    hits(new())
    (path,) = (tmp_path / "__pycache__").glob("*.nbi")
    path.unlink()
    path.mkdir()
    assert [hits(new()), hits(new())] == [0, 0]


@pytest.mark.parametrize("step", ["_save_index", "_save_data"])
def test_a_full_disk_keeps_nothing(step, new, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, step, fail)
    assert [hits(new()), hits(new())] == [0, 0]
