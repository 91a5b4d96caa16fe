import concurrent.futures
import contextlib
import itertools
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import pytest

from synprep._core import execution
from synprep._core.errors import ChunkError


def test_a_failing_item_does_not_stop_the_others(capsys):
    def double(item):
        if item == 2:
            raise ChunkError("bad")
        return 2 * item

    outcomes = sorted(execution.attempt_all(double, [1, 2, 3], "Doubling"), key=lambda outcome: outcome[0])
    assert [item for item, _ in outcomes] == [1, 2, 3]
    assert [outcomes[0][1], str(outcomes[1][1]), outcomes[2][1]] == [2, "bad", 6]
    assert isinstance(outcomes[1][1], ChunkError)
    shown = capsys.readouterr()
    assert shown.out.rsplit("\r", 1)[-1] == "Doubling: done\n"
    assert shown.err == ""  # which notebooks show in red


def test_an_error_that_is_not_about_the_item_is_raised():
    def fail(item):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(execution.attempt_all(fail, [1], "Failing", show=False))


def test_results_come_as_they_are_finished():
    def wait(seconds):
        time.sleep(seconds)
        return seconds

    outcomes = list(execution.attempt_all(wait, [0.3, 0.0, 0.1], "Waiting", show=False, n_workers=3))
    assert outcomes == [(item, item) for item in (0.0, 0.1, 0.3)]


def test_a_bounded_number_is_under_way():
    started = []

    with execution._opened(2, "") as workers:
        outcomes = execution._outcomes(workers, started.append, range(1000), None)
        for n_done in range(1, 6):
            next(outcomes)
            assert len(started) <= n_done + workers.n_in_flight
        outcomes.close()
    assert len(started) < 20


def test_items_are_prepared_before_their_turn():
    events = []

    def prepare(item):
        events.append(("prepare", item))
        return 10 * item

    work = execution.attempt_all(
        lambda ready: events.append(("do", ready)), range(6), "x", False, 1, prepare=prepare
    )
    assert sorted(item for item, _ in work) == list(range(6))
    assert all(events.index(("prepare", item)) < events.index(("do", 10 * item)) for item in range(6))
    assert events.index(("prepare", 1)) < events.index(("do", 20))


def test_what_cannot_be_prepared_is_an_error_of_that_item_alone():
    def prepare(item):
        if item == 1:
            raise ChunkError("bad")
        return item

    outcomes = dict(execution.attempt_all(lambda ready: ready, range(3), "x", False, prepare=prepare))
    assert (outcomes.pop(0), str(outcomes.pop(1)), outcomes) == (0, "bad", {2: 2})


def test_what_was_prepared_in_vain_is_closed():
    opened, closed = [], []

    def prepare(item):
        opened.append(item)
        return SimpleNamespace(item=item, close=lambda: closed.append(item))

    def fail(ready):
        ready.close()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(execution.attempt_all(fail, range(50), "x", False, 1, prepare=prepare))
    assert len(opened) > 1
    assert sorted(closed) == opened


def test_results_that_come_with_an_error_are_not_lost(monkeypatch):
    def fail_on_some(item):
        if item in (0, 2):
            raise OSError("disk full")
        return item

    def wait_for_all(futures, *_):
        done = concurrent.futures.wait(futures).done
        return SimpleNamespace(done=sorted(done, key=lambda future: future.exception() is None))

    monkeypatch.setattr(execution, "wait", wait_for_all)  # errors first
    work = execution.attempt_all(fail_on_some, range(4), "x", False, 2)
    assert {next(work), next(work)} == {(1, 1), (3, 3)}
    with pytest.raises(OSError, match="disk full"):
        next(work)


def test_an_error_stops_what_has_not_begun():
    begun = []

    def fail(item):
        begun.append(item)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(execution.attempt_all(fail, range(1000), "Failing", show=False, n_workers=2))
    assert len(begun) < 20


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such limit here")
def test_threads_are_as_many_as_the_process_may_use():
    code = "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
    code += "from synprep._core import execution\n"
    code += "with execution._opened(execution.n_cores(), '') as opened: print(opened.n_in_flight)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "2\n"


def test_zero_workers_means_one_per_core(monkeypatch):
    asked = []

    def opened(n_threads, *_):
        asked.append(n_threads)
        return contextlib.nullcontext(execution._Threads(concurrent.futures.ThreadPoolExecutor(1), 1))

    monkeypatch.setattr(execution, "_opened", opened)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    list(execution.attempt_all(str, [1], "x", show=False))
    assert asked == [3]


def test_nothing_to_do_opens_nothing(capsys):
    assert list(execution.attempt_all(str, [], "Idling", scheduler="tcp://127.0.0.1:1")) == []
    assert capsys.readouterr().out.endswith("Idling: done\n")


def test_memory_is_the_matter_of_one_item():
    def allocate(item):
        raise MemoryError

    assert str(next(execution.attempt_all(allocate, [1], "x", show=False))[1]) == "does not fit into memory"


def test_nothing_is_printed_when_not_asked(capsys):
    assert list(execution.track("ab", 2, "Passing", show=False)) == ["a", "b"]
    assert capsys.readouterr().out == ""


CELLS = (
    """
import time
from synprep._core import errors, execution

def items(*seconds):
    for wait in seconds:
        time.sleep(wait)
        yield wait
    if wait == 1:
        raise errors.OutputError("disk full")
""",
    "for _ in execution.track(items(*[0.001] * 1500, 1.2, 1.2), 1502, 'Working'): pass",
    "for _ in execution.track(items(1, 1), 3, 'Failing'): pass",
)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Lines that papermill logs while a notebook runs, with the time of each, and the saved notebook."""
    path = tmp_path_factory.mktemp("logged") / "notebook.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-output", str(path), str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = [(time.monotonic(), line) for line in process.stderr]
    return lines, nbformat.read(path, 4)


def test_the_bar_is_live_in_papermills_log(logged):
    bar = re.compile(r"Working: +\d+%\|[#0-9 ]+\| (\d+)/1502 \[\d\d:\d\d<(\?|\d\d:\d\d, +[\d.]+chunk/s)")
    bars = [(when, int(match[1])) for when, line in logged[0] if (match := bar.match(line))]
    assert [n for _, n in bars][-2:] == [1501, 1502]  # slow items after fast ones are shown at once
    assert min(later - earlier for (earlier, _), (later, _) in itertools.pairwise(bars)) > 0.5
    assert len(bars) >= 4


def test_one_line_or_the_error_stays_in_the_saved_notebook(logged):
    _, worked, failed = (cell.outputs for cell in logged[1].cells if cell.cell_type == "code")
    assert [output.get("text") for output in worked] == ["Working: done\n"]
    assert [output.output_type for output in failed] == ["error"]
