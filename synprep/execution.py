"""Run a function over many items, with progress."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from synprep.errors import ChunkError, counted

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
        print(f"{what}: {counted(n_items, 'chunk')}")


def _clear_cell() -> None:
    """Let the next output replace the bar, where a notebook shows it."""
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        from IPython.display import clear_output

        clear_output(wait=True)


def attempt_all(
    function: Callable[[Item], Result], items: Sequence[Item], what: str, show: bool = True
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

    Yields
    ------
    item : object
        The item.
    result : object or ChunkError
        What the function returned, or the error if the item cannot be used. Any other error is raised.
    """
    for item in track(items, len(items), what, show):
        try:
            result = function(item)
        except ChunkError as error:
            result = error
        yield item, result
