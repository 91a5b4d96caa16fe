"""The package's exceptions, each shown as one short message instead of a traceback."""

from collections.abc import Iterable


class SynprepError(Exception):
    """Something that the user can mend: the message says what is wrong and what to change."""

    def _render_traceback_(self) -> list[str]:
        """Lines that IPython shows, and papermill prints last, in place of the traceback."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(SynprepError):
    """One or more parameters are unknown, of the wrong type, out of range, or name a missing path."""


class PairingError(SynprepError):
    """EM and mask files could not be paired, or synapse ids cannot be told apart."""


class ChunkError(SynprepError):
    """One raw pair or one of its files cannot be used; the other chunks are not concerned."""


class TableError(SynprepError):
    """A metadata table is missing, malformed, or in conflict with another one."""


class FailedChunksError(SynprepError):
    """Some chunks failed; raised when everything else has been done and written."""


def listed(items: Iterable[object], limit: int = 5) -> str:
    """Join items for a message, and say how many were left out.

    Parameters
    ----------
    items : iterable
        What to list; each item is shown as ``str(item)``.
    limit : int
        How many items are spelled out at most.

    Returns
    -------
    str
        For example ``"a, b, c and 4 more"``.
    """
    texts = [str(item) for item in items]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def counted(n: int, noun: str) -> str:
    """Number and noun for a message.

    Parameters
    ----------
    n : int
        How many.
    noun : str
        In the singular; the plural takes an s.

    Returns
    -------
    str
        For example ``"1 chunk"`` or ``"2,000 chunks"``.
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def raise_failures(failures: dict[str, str]) -> None:
    """Raise one short error if any chunk failed.

    Parameters
    ----------
    failures : dict of str to str
        Reason by synapse id; nothing happens when it is empty.

    Raises
    ------
    FailedChunksError
        With the number of failed chunks and the first few reasons.
    """
    if failures:
        lines = [f"  {synapse_id}: {reason}" for synapse_id, reason in list(failures.items())[:10]]
        more = [f"  and {len(failures) - 10} more"] if len(failures) > 10 else []
        head = f"{counted(len(failures), 'chunk')} failed; all others are done:"
        raise FailedChunksError("\n".join([head, *lines, *more]))
