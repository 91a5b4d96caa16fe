"""Run a function over many items: threads on this machine or a Dask cluster, with progress."""

import asyncio
import itertools
import json
import logging
import os
import pickle
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

import synprep
from synprep._core.errors import ChunkError, ClusterError, SynprepError

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

NOT_SHARED = "not seen by both the client and a worker"  # kind of an error about a file

_CONNECT_SECONDS = 10  # to find the scheduler
_ANSWER_SECONDS = 15  # for it to say what workers it has
_LOOK_SECONDS = 5  # without a result, before it is asked
_SAY_SECONDS = 30  # between lines that say that there are no workers
_CLOSE_SECONDS = 5
_CLUSTER_IN_FLIGHT = 1000  # tasks are small: paths and parameters
_LOGGERS = ("distributed.client", "distributed.batched", "distributed.core", "tornado.application")

# What a cluster is asked to evaluate: not this package, whose absence would hang or kill a worker.
_TASK = "__import__('pickle').loads(task)()"
_SOFTWARE = (
    "'Python %d.%d, ' % __import__('sys').version_info[:2]"
    " + ', '.join(f'{name} {__import__(name).__version__}' for name in ('numpy', 'synprep'))"
)


def track(
    items: Iterable[Item], n_items: int, what: str, show: bool = True, n_before: int = 0
) -> Iterator[Item]:
    """Pass items on, with a text bar that a single quiet line, or an error, replaces at the end.

    The bar shows chunks per second and the time left, and is drawn at most once a second; it begins with the
    number of items that were done before. In a notebook, all that its cell has shown before goes with it: say
    afterwards what is to stay, and have one bar in a cell.
    """
    bar = tqdm(
        total=n_before + n_items,
        initial=n_before,
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
    n_before: int = 0,
) -> Iterator[tuple[Item, Result | ChunkError]]:
    """Apply a function to every item; an item that fails does not stop the others.

    Only a bounded number of items is under way at a time, so that memory does not grow with their number.
    Items come back in the order in which they are finished, each with what the function returned, or with
    the ChunkError if it cannot be used; any other error is raised.

    `n_workers` threads, 0 for one per core that this process may use; or a Dask cluster, by the address of
    its scheduler (``tcp://host:port``) or the path of a scheduler file, where functions must be picklable.
    With `prepare`, which is for threads alone, the function gets what that makes of an item when it begins to
    wait for one, so that files can be opened and fetched meanwhile; what it returns is closed if its turn
    never comes. `n_before` items were done before, and count in the bar.
    """
    items = list(items)
    if items:
        with _opened(n_workers or n_cores(), scheduler, show) as workers:
            yield from track(_outcomes(workers, function, items, prepare), len(items), what, show, n_before)
    else:
        yield from track((), 0, what, show, n_before)


def attempt(function: Callable[[Any], Result], item: Any) -> Result | ChunkError:
    """Apply a function to an item, and return the error if it cannot be used."""
    if isinstance(item, ChunkError):  # it could not even be prepared
        return item
    try:
        return function(item)
    except ChunkError as error:
        return _seen_there(error)
    except MemoryError:
        return ChunkError("does not fit into memory")


def n_cores() -> int:
    """How many cores this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


@dataclass(frozen=True)
class _Threads:
    """Threads of this process."""

    executor: ThreadPoolExecutor
    n_in_flight: int
    look_seconds: None = None

    def submit(self, function: Callable[[Any], Result], item: Any) -> Future:
        """Let an item be attempted when its turn comes."""
        return self.executor.submit(attempt, function, item)

    def result(self, future: Future) -> Any:
        """What became of an item."""
        return future.result()


def _outcomes(
    workers: "_Threads | _Cluster",
    function: Callable[[Any], Result],
    items: Iterable[Item],
    prepare: Callable[[Item], Any] | None,
) -> Iterator[tuple[Item, Any]]:
    waiting, under_way = iter(items), {}
    try:
        while True:
            for item in itertools.islice(waiting, workers.n_in_flight - len(under_way)):
                ready = attempt(prepare, item) if prepare else item
                under_way[workers.submit(function, ready)] = item, ready
            if not under_way:
                return
            while not (done := wait(under_way, workers.look_seconds, FIRST_COMPLETED).done):
                workers.look()
            for future in sorted(done, key=_has_failed):  # what is done counts before an error ends it all
                yield under_way.pop(future)[0], workers.result(future)
    finally:
        for future, (_, ready) in under_way.items():
            if future.cancel() and hasattr(ready, "close"):
                ready.close()


def _has_failed(future: Future) -> bool:
    return future.cancelled() or future.exception() is not None


@contextmanager
def _opened(n_threads: int, scheduler: str, show: bool = True) -> Iterator["_Threads | _Cluster"]:
    """Open threads or a connection to a cluster."""
    if not scheduler:
        with ThreadPoolExecutor(n_threads) as executor:
            yield _Threads(executor, 2 * n_threads)
        return
    with _quiet():
        client = _connect(scheduler)
        try:
            yield _Cluster(scheduler, client, show)
        finally:
            with suppress(OSError):  # such as a timeout, if the scheduler is gone
                client.close(timeout=_CLOSE_SECONDS)


# A Dask cluster


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tracebacks of a lost connection, or of tasks that are given up, out of what a person reads."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, was_disabled in zip(loggers, before, strict=True):
            logger.disabled = was_disabled


def _connect(scheduler: str) -> "Client":
    from distributed import Client

    address = _address(scheduler)
    try:
        with ThreadPoolExecutor(1) as thread:  # since a notebook's own thread has an event loop
            thread.submit(asyncio.run, _knock(address)).result()
        return Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # of all kinds, by scheme
        where = scheduler if address == scheduler else f"{address}, which {scheduler} names"
        reason = str(error) or f"no answer within {_CONNECT_SECONDS} s"
        raise ClusterError(f"no Dask scheduler answers at {where}: {reason}") from error


async def _knock(address: str) -> None:
    """See whether anyone answers: a client whose address is wrong would not be closed by Dask."""
    from distributed import Security
    from distributed.comm import connect

    options = Security().get_connection_args("client")
    connecting = connect(address, timeout=_CONNECT_SECONDS, **options)
    await (await asyncio.wait_for(connecting, _CONNECT_SECONDS)).close()


def _address(scheduler: str) -> str:
    """Address of a scheduler: as given, or in its file, which may be about to be written."""
    if "://" in scheduler:
        return scheduler
    stop = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            return str(json.loads(Path(scheduler).read_text("utf-8"))["address"])
        except FileNotFoundError as error:
            problem, cause = "is neither an address such as tcp://host:8786 nor a scheduler file", error
        except (OSError, ValueError, LookupError, TypeError) as error:
            problem, cause = f"is not the file that a Dask scheduler writes: {error}", error
        if time.monotonic() > stop:
            raise ClusterError(f"scheduler {scheduler} {problem}") from cause
        time.sleep(0.1)


class _Cluster:
    """Workers of a Dask cluster, which may come and go."""

    n_in_flight = _CLUSTER_IN_FLIGHT

    def __init__(self, scheduler: str, client: "Client", show: bool):
        self.scheduler, self.client, self.show = scheduler, client, show
        self.executor = client.get_executor(pure=False)
        self.look_seconds, self.said = _LOOK_SECONDS, -_SAY_SECONDS

    def submit(self, function: Callable[[Any], Result], item: Any) -> Future:
        """Let an item be attempted by any worker."""
        task = partial(_attempt_there, function, item, synprep.__version__)
        return self.executor.submit(eval, _TASK, {"task": pickle.dumps(task)})

    def result(self, future: Future) -> Any:
        """What became of an item; one that kills worker after worker is given up."""
        if future.cancelled():
            raise self._lost()
        error = future.exception()
        if error is None:
            return future.result()
        if type(error).__name__ == "KilledWorker":
            return ChunkError("its worker died again and again", "is there enough memory?")
        if not isinstance(error, SynprepError):
            self._compare(error)
        raise error

    def look(self) -> None:
        """Find out why nothing comes: say that there are no workers, or raise that the scheduler is lost."""
        try:
            n_workers = len(self.client.nthreads(callback_timeout=_ANSWER_SECONDS))
        except Exception as error:
            raise self._lost() from error
        if not n_workers and self.show and time.monotonic() - self.said >= _SAY_SECONDS:
            tqdm.write(f"the Dask scheduler at {self.scheduler} has no workers: waiting for them")
            self.said = time.monotonic()

    def _lost(self) -> ClusterError:
        text = "is lost, or was restarted; what is done is recorded"
        return ClusterError(f"the Dask scheduler at {self.scheduler} {text}")

    def _compare(self, error: BaseException) -> None:
        """Raise an error that names a worker with other software than there is here, if there is one."""
        here, why = eval(_SOFTWARE), f"({type(error).__name__}: {error})"
        for worker, there in self.client.run(eval, _SOFTWARE, on_error="return").items():
            if there != here:
                found = f"worker {worker} has {there}, and here is {here}"
                raise ClusterError(f"{found}: install the same on all {why}") from error
        if isinstance(error, ImportError | pickle.UnpicklingError) or "Can't get attribute" in str(error):
            raise ClusterError(f"a worker has another synprep: install the same on all {why}") from error


def _attempt_there(function: Callable[[Any], Result], item: Any, version: str) -> Result | ChunkError:
    """Attempt an item on a worker of a cluster."""
    if version != synprep.__version__:
        found = f"worker {worker_name()} has synprep {synprep.__version__}, and here is {version}"
        raise ClusterError(f"{found}: install the same version on all")
    try:
        return attempt(function, item)
    except SynprepError as error:
        raise type(error)(f"on the worker {worker_name()}: {error}") from error


def worker_name() -> str:
    """Name of the worker of a cluster that works on this, and of its machine; empty where there is none."""
    try:
        return f"{sys.modules['distributed'].get_worker().name} ({platform.node()})"
    except (KeyError, ValueError):  # only who has a cluster has imported the module
        return ""


def _seen_there(error: ChunkError) -> ChunkError:
    """Tell apart an error about a file that a worker cannot read from one about what the file holds."""
    path, worker = error.path.rpartition("://")[2], worker_name()
    if not worker or not os.path.isabs(path) or os.access(path, os.R_OK):
        return error
    found = ": ".join(part for part in (error.kind, error.detail) if part)
    return not_shared(f"on the worker {worker}: {found}", path)


def not_shared(found: str, path: str | os.PathLike) -> ChunkError:
    """Error about a file that a worker sees in another way than the client."""
    folder = os.path.dirname(path)
    return ChunkError(NOT_SHARED, f"{found}: is {folder} on a disk that client and workers share?", path)
