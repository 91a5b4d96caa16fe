import time

import pytest

from synprep import execution
from synprep.errors import ChunkError


def test_a_failing_item_does_not_stop_the_others(capsys):
    def double(item):
        if item == 2:
            raise ChunkError("bad")
        return 2 * item

    outcomes = list(execution.attempt_all(double, [1, 2, 3], "Doubling"))
    assert [item for item, _ in outcomes] == [1, 2, 3]
    assert [outcomes[0][1], str(outcomes[1][1]), outcomes[2][1]] == [2, "bad", 6]
    assert isinstance(outcomes[1][1], ChunkError)
    assert capsys.readouterr().out.rsplit("\r", 1)[-1] == "Doubling: done\n"


def test_an_error_that_is_not_about_the_item_is_raised():
    def fail(item):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(execution.attempt_all(fail, [1], "Failing", show=False))


def test_threads_keep_the_order():
    def wait(seconds):
        time.sleep(seconds)
        return seconds

    items = [0.05, 0.0, 0.02]
    outcomes = list(execution.attempt_all(wait, items, "Waiting", show=False, n_threads=3))
    assert outcomes == [(item, item) for item in items]


def test_memory_is_the_matter_of_one_item():
    def allocate(item):
        raise MemoryError

    assert str(next(execution.attempt_all(allocate, [1], "x", show=False))[1]) == "does not fit into memory"


def test_nothing_is_printed_when_not_asked(capsys):
    assert list(execution.track("ab", 2, "Passing", show=False)) == ["a", "b"]
    assert capsys.readouterr().out == ""
