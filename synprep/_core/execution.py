"""Run a function over many items: threads on this machine or a Dask cluster, with progress."""

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from tqdm import tqdm

from synprep._core.errors import ChunkError, ClusterError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CONNECT_SECONDS = 10  # to find the scheduler, and again to find its workers
_CLUSTER_IN_FLIGHT = 1000  # tasks are small: paths and parameters


def track(items: Iterable[Item], n_items: int, what: str, show: bool = True) -> Iterator[Item]:
    """Pass items on, with a text bar that a single quiet line, or an error, replaces at the end.

    The bar shows chunks per second and the time left, and is drawn at most once a second. In a notebook, all
    that its cell has shown before goes with it: say afterwards what is to stay.
    """
    bar = tqdm(
        total=n_items,
        desc=what,
        unit="chunk",
        file=sys.stdout,
        mininterval=1,
        miniters=1,  # looks at the clock at every item, so that slow ones after fast ones are shown at once
        leave=False,
        ascii=True,
        ncols=80,
        disable=not show,
    )
    try:
        with bar:
            for item in items:
                yield item
                bar.update()
    except Exception:
        _clear_cell(show)
        raise
    _clear_cell(show)
    if show:
        print(f"{what}: done")


def _clear_cell(show: bool) -> None:
    """Let the next output replace the bar, and all else in its cell, where a notebook shows it."""
    if show and "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        from IPython.display import clear_output

        clear_output(wait=True)


def attempt_all(
    function: Callable[[Any], Result],
    items: Iterable[Item],
    what: str,
    show: bool = True,
    n_workers: int = 0,
    scheduler: str = "",
    prepare: Callable[[Item], Any] | None = None,
) -> Iterator[tuple[Item, Result | ChunkError]]:
    """Apply a function to every item; an item that fails does not stop the others.

    Only a bounded number of items is under way at a time, so that memory does not grow with their number.
    Items come back in the order in which they are finished, each with what the function returned, or with
    the ChunkError if it cannot be used; any other error is raised.

    With `prepare`, the function gets what that makes of the item: in threads it is called when the item
    begins to wait for one, so that files can be opened and fetched meanwhile, and what it returns is closed
    if its turn never comes. `n_workers` threads, 0 for one per core that this process may use; or a Dask
    cluster, by the address of its scheduler (``tcp://host:port``) or the path of a scheduler file, where
    functions must be picklable.
    """
    items = list(items)
    if scheduler and prepare:
        function, prepare = partial(_in_turn, prepare, function), None
    if items:
        with _opened(n_workers or n_cores(), scheduler) as (executor, n_in_flight):
            outcomes = _outcomes(executor, function, items, n_in_flight, prepare)
            yield from track(outcomes, len(items), what, show)
    else:
        yield from track((), 0, what, show)


def n_cores() -> int:
    """How many cores this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _in_turn(prepare: Callable[[Item], Any], function: Callable[[Any], Result], item: Item) -> Result:
    return function(prepare(item))


def _outcomes(
    executor: Executor,
    function: Callable[[Any], Result],
    items: Iterable[Item],
    n_in_flight: int,
    prepare: Callable[[Item], Any] | None,
) -> Iterator[tuple[Item, Result | ChunkError]]:
    waiting, under_way = iter(items), {}
    try:
        while True:
            for item in itertools.islice(waiting, n_in_flight - len(under_way)):
                ready = _attempt(prepare, item) if prepare else item
                under_way[executor.submit(_attempt, function, ready)] = item, ready
            if not under_way:
                return
            done = wait(under_way, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=_has_failed):  # what is done counts before an error ends it all
                yield under_way.pop(future)[0], _result(future)
    finally:
        for future, (_, ready) in under_way.items():
            if future.cancel() and hasattr(ready, "close"):
                ready.close()


def _has_failed(future: Future) -> bool:
    return future.exception() is not None


def _attempt(function: Callable[[Any], Result], item: Any) -> Result | ChunkError:
    if isinstance(item, ChunkError):  # it could not even be prepared
        return item
    try:
        return function(item)
    except ChunkError as error:
        return error
    except MemoryError:
        return ChunkError("does not fit into memory")


def _result(future: Future) -> Any:
    """Result of a task; a task that kills one worker after the other is given up."""
    try:
        return future.result()
    except Exception as error:
        if type(error).__name__ == "KilledWorker":
            return ChunkError("its worker died again and again")
        raise


@contextmanager
def _opened(n_threads: int, scheduler: str) -> Iterator[tuple[Executor, int]]:
    """Open threads or a connection to a cluster; with the number of items to keep under way."""
    if not scheduler:
        with ThreadPoolExecutor(n_threads) as executor:
            yield executor, 2 * n_threads
        return
    from distributed import Client

    try:
        client = Client(**_address(scheduler), timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        except TimeoutError as error:
            raise ClusterError(f"the Dask scheduler at {scheduler} has no workers") from error
        yield client.get_executor(pure=False), _CLUSTER_IN_FLIGHT


def _address(scheduler: str) -> dict[str, str]:
    if "://" in scheduler:
        return {"address": scheduler}
    if not os.path.isfile(scheduler):
        raise ClusterError(
            f"scheduler {scheduler} is neither an address such as tcp://host:8786 nor a scheduler file"
        )
    return {"scheduler_file": scheduler}
