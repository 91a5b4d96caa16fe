"""Run a function over many items, with progress."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from synprep.errors import ChunkError

Item = TypeVar("Item")
Result = TypeVar("Result")


def track(items: Iterable[Item], n_items: int, what: str, show: bool = True) -> Iterator[Item]:
    """Pass items on, with a text bar that a single quiet line replaces at the end.

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
    with tqdm(
        total=n_items,
        desc=what,
        unit="chunk",
        file=sys.stdout,
        mininterval=1,
        leave=False,
        ascii=True,
        ncols=80,
        disable=not show,
    ) as bar:
        for item in items:
            yield item
            bar.update()
    if show:
        _clear_cell()
        print(f"{what}: done")


def _clear_cell() -> None:
    """Let the next output replace the bar, where a notebook shows it."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        from IPython.display import clear_output

        clear_output(wait=True)


def attempt_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    what: str,
    show: bool = True,
    n_threads: int = 0,
) -> Iterator[tuple[Item, Result | ChunkError]]:
    """Apply a function to every item; an item that fails does not stop the others.

    Parameters
    ----------
    function : callable
        Applied to each item.
    items : sequence
        Raw pairs or paths.
    what : str
        What is done, for the progress bar.
    show : bool
        False shows no progress.
    n_threads : int
        Threads that wait for files at the same time; 0 does one item after the other.

    Yields
    ------
    item : object
        The item, in the order of `items`.
    result : object or ChunkError
        What the function returned, or the error if the item cannot be used. Any other error is raised.
    """
    with ThreadPoolExecutor(n_threads or 1) as executor:
        map_items = executor.map if n_threads else map
        results = map_items(partial(_attempt, function), items)
        yield from zip(items, track(results, len(items), what, show), strict=True)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | ChunkError:
    try:
        return function(item)
    except ChunkError as error:
        return error
    except MemoryError:
        return ChunkError("does not fit into memory")
