import time

import pytest

from synprep import execution
from synprep.errors import ChunkError


def test_a_failing_item_does_not_stop_the_others(capsys):
    def double(item):
        if item == 2:
            raise ChunkError("bad")
        return 2 * item

    outcomes = sorted(execution.attempt_all(double, [1, 2, 3], "Doubling"), key=lambda outcome: outcome[0])
    assert [item for item, _ in outcomes] == [1, 2, 3]
    assert [outcomes[0][1], str(outcomes[1][1]), outcomes[2][1]] == [2, "bad", 6]
    assert isinstance(outcomes[1][1], ChunkError)
    assert capsys.readouterr().out.rsplit("\r", 1)[-1] == "Doubling: done\n"


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

    with execution._opened(2, "") as (executor, n_in_flight):
        outcomes = execution._outcomes(executor, started.append, range(1000), n_in_flight, None)
        for n_done in range(1, 6):
            next(outcomes)
            assert len(started) <= n_done + n_in_flight
        outcomes.close()
    assert len(started) < 20


def test_items_are_announced_before_their_turn():
    events = []
    work = execution.attempt_all(
        lambda item: events.append(("do", item)), range(6), "x", False, 1, announce=lambda i: events.append(i)
    )
    list(work)
    assert [event for event in events if isinstance(event, int)] == list(range(6))
    assert all(events.index(item) < events.index(("do", item)) for item in range(6))
    assert events.index(1) < events.index(("do", 2))


def test_an_error_stops_what_has_not_begun():
    begun = []

    def fail(item):
        begun.append(item)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(execution.attempt_all(fail, range(1000), "Failing", show=False, n_workers=2))
    assert len(begun) < 20


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
