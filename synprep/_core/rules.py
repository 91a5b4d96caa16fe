"""How parameters are declared: type, meaning, rule, default; what is wrong with a value, and their table."""

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, fields
from types import GenericAlias
from typing import Any, Literal, get_args, get_origin

from synprep._core.paths import find_problem

Rule = tuple[Callable[[Any], bool], str]  # what a value must satisfy beyond its type, and how to say so
POSITIVE = (lambda value: 1e-6 <= value <= 1e9, "must be greater than 0 (from 1e-6 to 1e9)")
CHANNELS = (
    lambda value: value and all(channel and {*channel} <= {*range(256)} for channel in value),
    "must be a list of non-empty lists of label values, such as [[1], [2], [3]]",
)
ANY = (lambda value: True, "")

# Types that are checked by themselves; of other ones, the rule says all.
_TYPES = {str: "text", int: "an integer", float: "a number", bool: "true or false", list: "a list"}
_TYPES |= {dict: "a mapping"}
_NUMBER = re.compile(r"\s*[+-]?([\d_]+\.?[\d_]*|\.[\d_]+)([eE][+-]?\d+)?\s*")


@dataclass(frozen=True)
class Facts:
    """What there is to know of a parameter besides its name, type, meaning and default."""

    rule: Rule = ANY
    path: Literal["", "input folder", "input file", "output", "file or address"] = ""
    empty: str = ""  # what 0 or an empty text stands for; without it, a text must not be empty
    decides: bool = False  # whether it decides what a tensor and its rows hold


def at_least(low: int) -> Rule:
    return lambda value: value >= low, f"must be {low} or more"


def between(low: int, high: int) -> Rule:
    return lambda value: low <= value <= high, f"must be from {low} to {high}"


def one_of(*choices: str) -> Rule:
    return lambda value: value in choices, f"must be {', '.join(choices[:-1])} or {choices[-1]}"


def declared(record_type: type) -> dict[str, tuple[type | GenericAlias, str, Facts]]:
    """Type, meaning and facts of each parameter by name, in the order of declaration."""
    return {one.name: (*get_args(one.type), Facts())[:3] for one in fields(record_type)}


def table(record_types: Iterable[type], what: str) -> str:
    """Markdown for the docs: a row per name, with its first default and what all records say of it."""
    defaults, meanings = {}, {}
    for record_type, one in [(each, one) for each in record_types for one in fields(each)]:
        hint, meaning, facts = declared(record_type)[one.name]
        zero = "0" if hint in (int, float) else "empty"
        meaning += f"; {zero}: {facts.empty}" if facts.empty else ""
        defaults.setdefault(one.name, _default(one))
        meanings.setdefault(one.name, {})[meaning] = None  # a dict keeps each once, in order
    rows = [f"| `{name}` | {defaults[name]} | {'; '.join(meanings[name])} |" for name in defaults]
    return "\n".join([f"| {what} | default | meaning |", "|---|---|---|", *rows])


def _default(one: Field) -> str:
    value = one.default if one.default_factory is MISSING else one.default_factory()
    if value is MISSING:
        return "required"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`" if text not in ("", "{}") else "empty"


# What is wrong with a value; empty when nothing is


def value_problem(value: Any, hint: type | GenericAlias, facts: Facts) -> str:
    """Say what is wrong with one value."""
    accepts, rule = facts.rule
    if problem := type_problem(value, hint):
        return problem
    if not accepts(value):
        return f"{rule}, not {value!r}"
    if value == "" and not facts.empty:
        return "must not be empty"
    if facts.empty and hint in (int, float) and value < 0:
        return f"must be 0 ({facts.empty}) or more, not {value}"
    return _path_problem(value, facts) if facts.path else ""


def _path_problem(value: str | list[str], facts: Facts) -> str:
    """Say how one path or a list of them is written wrongly."""
    if isinstance(value, list | tuple):
        return _first_entry("must not be empty" if path == "" else find_problem(path) for path in value)
    return "" if facts.path == "file or address" and "://" in value else find_problem(value)


def type_problem(value: Any, hint: type | GenericAlias) -> str:
    """Say why a value does not fit a type hint. An int is fine for a float."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind not in _TYPES:
        return ""
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        is_finite = abs(value) <= sys.float_info.max  # an int may be greater than any float
        return "" if is_finite else f"must be a finite number, not {value}"
    wrong = not isinstance(value, (list, tuple) if kind is list else kind)
    if wrong or (kind is int and isinstance(value, bool)):
        return _type_message(value, kind)
    if not inner:
        return ""
    entries = [(entry, inner[-1]) for entry in (value.values() if kind is dict else value)]
    entries += [(key, inner[0]) for key in value] if kind is dict else []
    return _first_entry(type_problem(*entry) for entry in entries)


def _first_entry(problems: Iterable[str]) -> str:
    return next((f"has an entry that {problem}" for problem in problems if problem), "")


def _type_message(value: Any, kind: type) -> str:
    text = f"must be {_TYPES[kind]}, not {value!r}"
    if isinstance(value, str) and kind in (int, float):
        return text + _number_hint(value)
    if isinstance(value, str) and kind is bool:
        return text + " (text; write true in YAML, True after papermill's -p)"
    if value is None:
        return f"{text} (in YAML an empty value, or a bare ~, is none)"
    if kind is not str:
        return text
    is_number = isinstance(value, int | float)
    return f"{text} (put it in quotes)" + ("; papermill's -p makes numbers, -r passes text" * is_number)


def _number_hint(text: str) -> str:
    """Why a text that looks like a number is none; empty if it does not look like one."""
    if not _NUMBER.fullmatch(text):
        return ""
    hint = " (text; YAML reads 1e-2 as text: write 0.01, without quotes)"
    return hint if "e" in text.lower() else " (text: write it without quotes)"
