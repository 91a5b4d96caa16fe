"""Run a function over many items: threads on this machine or a Dask cluster, with progress."""

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from synprep.errors import ChunkError, ClusterError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CONNECT_SECONDS = 10  # to find the scheduler, and again to find its workers
_CLUSTER_IN_FLIGHT = 1000  # tasks are small: paths and parameters


def track(items: Iterable[Item], n_items: int, what: str, show: bool = True) -> Iterator[Item]:
    """Pass items on, with a text bar that a single quiet line, or an error, replaces at the end.

    The bar shows chunks per second and the time left, and is drawn at most once a second. In a notebook, all
    that its cell has shown before goes with it: say afterwards what is to stay.

    Parameters
    ----------
    items : iterable
        What to pass on.
    n_items : int
        How many there are.
    what : str
        What is done with the items, for the bar and the last line.
    show : bool
        False prints nothing.

    Yields
    ------
    object
        Each item.
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
    function: Callable[[Item], Result],
    items: Iterable[Item],
    what: str,
    show: bool = True,
    n_workers: int = 0,
    scheduler: str = "",
    announce: Callable[[Item], None] | None = None,
) -> Iterator[tuple[Item, Result | ChunkError]]:
    """Apply a function to every item; an item that fails does not stop the others.

    Only a bounded number of items is under way at a time, so that memory does not grow with their number.

    Parameters
    ----------
    function : callable
        Applied to each item. For a cluster it must be one that can be pickled.
    items : iterable
        Raw pairs, or rows of a table.
    what : str
        What is done, for the progress bar.
    show : bool
        False shows no progress.
    n_workers : int
        Number of threads; 0: one per core.
    scheduler : str
        Address of a Dask scheduler (``tcp://host:port``) or path of a scheduler file, to use a cluster
        instead of threads; empty: threads.
    announce : callable, optional
        Called with each item when it begins to wait for a thread, so that its files can be fetched meanwhile;
        it must not raise. Not called on a cluster.

    Yields
    ------
    item : object
        The item; in the order in which they are finished.
    result : object or ChunkError
        What the function returned, or the error if the item cannot be used. Any other error is raised.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached, or has no workers.
    """
    items = list(items)
    if items:
        with _opened(n_workers or os.cpu_count() or 1, scheduler) as (executor, n_in_flight):
            outcomes = _outcomes(executor, function, items, n_in_flight, None if scheduler else announce)
            yield from track(outcomes, len(items), what, show)
    else:
        yield from track((), 0, what, show)


def _outcomes(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    n_in_flight: int,
    announce: Callable[[Item], None] | None,
) -> Iterator[tuple[Item, Result | ChunkError]]:
    waiting, under_way = iter(items), {}
    try:
        while True:
            for item in itertools.islice(waiting, n_in_flight - len(under_way)):
                if announce:
                    announce(item)
                under_way[executor.submit(_attempt, function, item)] = item
            if not under_way:
                return
            done = wait(under_way, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=_has_failed):  # what is done counts before an error ends it all
                yield under_way.pop(future), _result(future)
    finally:
        for future in under_way:
            future.cancel()


def _has_failed(future: Future) -> bool:
    return future.exception() is not None


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | ChunkError:
    try:
        return function(item)
    except ChunkError as error:
        return error
    except MemoryError:
        return ChunkError("does not fit into memory")


def _result(future):
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
