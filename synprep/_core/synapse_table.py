"""A table of synapses: ids as text, centres in nm, and the neurons on both sides."""

import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from synprep._core import problems, text_table
from synprep._core.errors import ChunkError, TableError, listed
from synprep._core.problems import Problem
from synprep._core.text_table import EXPORT_AGAIN, changed, escaped
from synprep._core.volume_settings import Settings

_NO_VALUE = {"", "nan", "none", "null", "na", "<na>", "n/a"}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MAX_ID_DIGITS, _MAX_ID = 20, 2**64 - 1
_BATCH_ROWS = 65_536  # of a parquet file that are in memory at a time
_SURE_BITS = 20  # of a million columns that are whole, one would be taken for rounded


class Synapse(NamedTuple):
    """A row that can be used."""

    synapse_id: str
    centre_nm: tuple[float, float, float]
    pre_id: int
    post_id: int
    line: int  # of the file; in parquet, the row from 0


@dataclass(frozen=True)
class Found:
    """What was asked for and is in the table."""

    synapses: list[Synapse]  # sorted by id as text
    problems: list[Problem]  # of the other rows, in the order of the table
    some_ids: list[str]  # the first few of the table, asked for or not


class _Unusable(NamedTuple):
    line: int
    problem: Problem


def read(chosen: Settings, wanted: Collection[str] | None = None) -> Found:
    """Read the rows with the wanted ids, or all; memory grows with their number, not with that of all rows.

    Raises a TableError if the file cannot be trusted, see `text_table.rows`, or a whole column: ids that went
    through floating point.
    """
    taken, twice, some_ids = {}, {}, []
    for line, synapse_id, pre, post, centre in _rows(chosen):
        if len(some_ids) < 3:
            some_ids.append(synapse_id)
        _refuse_form(synapse_id, chosen, chosen.id_column, line)
        if wanted is not None and synapse_id not in wanted:
            continue
        row = _row(chosen, line, synapse_id, pre, post, centre)
        if synapse_id in taken:
            twice.setdefault(synapse_id, [taken[synapse_id].line]).append(line)
        else:
            taken[synapse_id or line] = row
    several = "synapse id is in several rows"
    taken |= {
        synapse_id: _unusable(chosen, synapse_id, lines, several) for synapse_id, lines in twice.items()
    }
    synapses = sorted(row for row in taken.values() if isinstance(row, Synapse))
    _refuse_rounded(chosen, synapses)
    return Found(synapses, [row.problem for row in taken.values() if isinstance(row, _Unusable)], some_ids)


def _row(
    chosen: Settings, line: int, synapse_id: str, pre: str, post: str, centre: Sequence[str]
) -> Synapse | _Unusable:
    _refuse_form(pre, chosen, chosen.pre_id_column, line)
    _refuse_form(post, chosen, chosen.post_id_column, line)
    try:
        _refuse_name(synapse_id)
        pre_id = _neuron(pre, "presynaptic", chosen.id_prefix)
        post_id = _neuron(post, "postsynaptic", chosen.id_prefix)
        if pre_id == post_id:
            raise ChunkError("presynaptic and postsynaptic neuron are the same", str(pre_id))
        return Synapse(synapse_id, _centre_nm(centre, chosen.centre_unit_nm), pre_id, post_id, line)
    except ChunkError as error:
        return _unusable(chosen, synapse_id, [line], error.kind, error.detail)


def _unusable(
    chosen: Settings, synapse_id: str, lines: Sequence[int], kind: str, detail: str = ""
) -> _Unusable:
    where = f"line{'s' * (len(lines) > 1)} {listed(lines, 10)}"
    error = ChunkError(kind, f"{where}: {detail}" if detail else where, chosen.synapse_table)
    return _Unusable(lines[0], problems.of_error(error, synapse_id=escaped(synapse_id), stage="pairing"))


# Whole columns


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _refuse_form(text: str, chosen: Settings, name: str, line: int) -> None:
    """Refuse the table if an id shows that a program has changed the whole column."""
    if why := changed(text):
        where = f"{chosen.synapse_table}: line {line}: column {name!r} holds {escaped(text)!r}"
        raise TableError(f"{where}: {why}")


def _refuse_rounded(chosen: Settings, synapses: Iterable[Synapse]) -> None:
    """Refuse ids that look whole, but end as only rounded ones do."""
    for name, values in (
        (chosen.id_column, (int(one.synapse_id) for one in synapses if _is_whole(one.synapse_id[:40]))),
        (chosen.pre_id_column, (one.pre_id for one in synapses)),
        (chosen.post_id_column, (one.post_id for one in synapses)),
    ):
        rounded = _all_rounded(values)
        if rounded:
            where = f"{chosen.synapse_table}: column {name!r}"
            why = "floating point and spreadsheets keep 15 or 16 digits"
            raise TableError(f"{where} holds rounded ids ({listed(rounded, 3)}): {why}: {EXPORT_AGAIN}")


def _all_rounded(values: Iterable[int]) -> list[int]:
    """Different ids, if all of them end as rounded ones do and are too many for chance; else none."""
    seen, bits = {}, 0.0
    for value in values:
        step = _rounding_step(value)
        if step == 1:
            return []
        if value not in seen:
            seen[value], bits = None, bits + math.log2(step)
    return list(seen) if bits >= _SURE_BITS else []


def _rounding_step(value: int) -> int:
    """Distance between ids that would stay apart, if this one was rounded as it seems; 1 if it was not."""
    decimal = 10 ** max(0, len(str(value)) - 15)  # a spreadsheet keeps 15 digits
    if value % decimal == 0:
        return decimal
    binary = max(1, int(math.ulp(float(value))))
    return binary if value % binary == 0 else 1


# Values of one row


def _refuse_name(synapse_id: str) -> None:
    """Refuse an id that could not be the name of a file, or of one that is looked at."""
    if not synapse_id:
        raise ChunkError("no synapse id")
    if {"/", "\\"} & {*synapse_id} or not synapse_id.isprintable():
        raise ChunkError("synapse id makes no file name", "it holds /, \\ or a control character")
    if synapse_id.startswith("."):
        raise ChunkError("synapse id makes no file name", "names that begin with a dot are hidden")


def _neuron(text: str, side: str, prefix: str) -> int:
    if text.lower() in _NO_VALUE:
        raise ChunkError(f"no {side} id")
    if not _is_whole(text):
        raise ChunkError(f"{side} id is not a whole number", escaped(text))
    if not text.strip("0"):
        raise ChunkError(f"{side} id is 0")
    digits = prefix + text
    if len(digits.lstrip("0")) > _MAX_ID_DIGITS or int(digits) > _MAX_ID:
        raise ChunkError(f"{side} id does not fit into 64 bits", escaped(digits))
    return int(digits)


def _centre_nm(values: Sequence[str], unit_nm: Sequence[float]) -> tuple[float, float, float]:
    """Point that one text, three numbers or six (two points) give, in nm."""
    texts = values[0].strip(" \t[]()").replace(",", " ").split() if len(values) == 1 else values
    if not texts or any(text.strip().lower() in _NO_VALUE for text in texts):
        raise ChunkError("no centre")
    numbers = [float(text) if _NUMBER.fullmatch(text.strip()) else math.nan for text in texts]
    n_wanted = max(len(values), 3)  # one text holds three, too
    if len(numbers) != n_wanted or not all(map(math.isfinite, numbers)):
        raise ChunkError("centre cannot be read", escaped(" ".join(values)))
    points = zip(numbers[:3], numbers[-3:], unit_nm, strict=True)
    return tuple((one + other) / 2 * unit for one, other, unit in points)


# Rows of a file


def _rows(chosen: Settings) -> Iterator[tuple[int, str, str, str, Sequence[str]]]:
    """Line, synapse id, pre and post id and centre of each row, as text."""
    names = [chosen.pre_id_column, chosen.post_id_column, *chosen.centre_columns]
    is_numbered = not chosen.id_column
    names = names if is_numbered else [chosen.id_column, *names]
    is_parquet = text_table.magic(chosen.synapse_table).startswith(b"PAR1")
    rows = _parquet_rows(chosen, names) if is_parquet else text_table.rows(chosen.synapse_table, names)
    for number, (line, values) in enumerate(rows):
        synapse_id, pre, post, *centre = (str(number), *values) if is_numbered else values
        yield line, synapse_id, pre, post, centre


def _parquet_rows(chosen: Settings, names: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    path = chosen.synapse_table
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise TableError(f"{path}: is a parquet file: pip install pyarrow, or save it as CSV") from error
    try:
        with parquet.ParquetFile(path) as file:
            text_table.indices(file.schema_arrow.names, names, path)
            for name in names[: len(names) - len(chosen.centre_columns)]:
                if pa.types.is_floating(file.schema_arrow.field(name).type):
                    reason = "ids stored as floating point lose their last digits"
                    raise TableError(f"{path}: column {name!r}: {reason}: {EXPORT_AGAIN}")
            batches = map(pa.RecordBatch.to_pydict, file.iter_batches(_BATCH_ROWS, columns=names))
            parts = (zip(*(map(_text, batch[name]) for name in names), strict=True) for batch in batches)
            yield from enumerate(chain.from_iterable(parts))
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{os.fspath(path)}: cannot be read as parquet: {error}") from error


def _text(value: Any) -> str:
    return "" if value is None else str(value)
