"""The package's exceptions, each shown as one short message instead of a traceback; and words of messages."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike

# Control characters, marks that end a line or turn its direction, and bytes of a file name that are not text.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 300  # characters of one item in a message


class SynprepError(Exception):
    """Something that the user can mend: the message says what is wrong and what to change."""

    def __str__(self) -> str:
        return "\n".join(map(printable, super().__str__().split("\n")))

    def _render_traceback_(self) -> list[str]:
        """Lines that IPython shows, and papermill prints last, in place of the traceback."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(SynprepError):
    """One or more parameters are unknown, of the wrong type, out of range, or name a missing path."""


class PairingError(SynprepError):
    """EM and mask files could not be paired, or synapse ids cannot be told apart."""


class ChunkError(SynprepError):
    """One raw pair or one of its files cannot be used; the other chunks are not concerned.

    `kind` says what is wrong, in the same words for all chunks; `detail` what was found in this one; `path`
    is the file, if it is about one.
    """

    def __init__(self, kind: str, detail: str = "", path: str | PathLike = ""):
        super().__init__(kind, detail, str(path))
        self.kind, self.detail, self.path = self.args

    def __str__(self) -> str:
        return ": ".join(printable(part) for part in (self.path, self.kind, self.detail) if part)


class TableError(SynprepError):
    """A metadata table is missing, malformed, or in conflict with another one."""


class OutputError(SynprepError):
    """The output cannot be written: a full disk, a folder without permission, a file that is in use."""


class LockedError(SynprepError):
    """Another run is writing to the same folder."""


class ClusterError(SynprepError):
    """The Dask cluster cannot be used."""


class StatisticsError(SynprepError):
    """A number that is asked for cannot be known from the data."""


class FailedChunksError(SynprepError):
    """Some chunks failed; raised when everything else has been done and written."""


def listed(items: Iterable[object], limit: int = 5) -> str:
    """Join items for a message, and say how many were left out: "a, b, c and 4 more"."""
    items = list(items)
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(_shortened(str(item)) for item in items[:limit]) + more


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return printable(text)
    return f"{printable(text[:200])}...{printable(text[-80:])} ({len(text):,} characters)"


def printable(text: str) -> str:
    """Write as escapes what a line of text cannot hold: what steers a terminal, or is no text at all."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def composed(text: str) -> str:
    """Text in composed characters (NFC), in which ids and names are compared: disks of Macs take é apart."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def counted(n: int, noun: str) -> str:
    """Number and noun, which takes an s in the plural: "1 chunk", "2,000 chunks"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def failure_lines(failures: Mapping[str, str], n_come_out: int) -> list[str]:
    """Say how many chunks failed, and why the first few did, by synapse id; nothing if none did."""
    if not failures:
        return []
    others = "all others are done" if n_come_out else "there are no others"
    head = f"{counted(len(failures), 'chunk')} failed; {others}:"
    lines = [f"  {synapse_id}: {reason}" for synapse_id, reason in list(failures.items())[:10]]
    more = [f"  and {len(failures) - 10} more"] if len(failures) > 10 else []
    return [printable(line) for line in (head, *lines, *more)]


def raise_problems(problems: Sequence[str], where: str = "") -> None:
    """Raise one error with all problems of parameters, if there are any."""
    if problems:
        head = f"{counted(len(problems), 'problem')}{where}, nothing was done:"
        raise ParameterError("\n".join([head, *(f"  {problem}" for problem in problems)]))


def nearest(name: object, known: Iterable[str]) -> str:
    """The known name that is most like one that is not known; empty if none is like it."""
    return next(iter(difflib.get_close_matches(str(name), known, 1)), "")
