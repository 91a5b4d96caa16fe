"""What a value must be: its type, and rules beyond that; and how to say that it is not."""

import sys
from collections.abc import Callable
from types import GenericAlias
from typing import Any, get_args, get_origin

Rule = tuple[Callable[[Any], bool], str]  # what a value must satisfy beyond its type, and how to say so
AT_LEAST_1 = (lambda value: value >= 1, "must be at least 1")
POSITIVE = (lambda value: value > 0, "must be greater than 0")
NOT_NEGATIVE = (lambda value: value >= 0, "must be 0 or more")
CHANNELS = (
    lambda value: value and all(channel and {*channel} <= {*range(256)} for channel in value),
    "must be a list of non-empty lists of label values, such as [[1], [2], [3]]",
)
ANY = (lambda value: True, "")


def between(low: int, high: int) -> Rule:
    return lambda value: low <= value <= high, f"must be from {low} to {high}"


def one_of(*choices: str) -> Rule:
    return lambda value: value in choices, f"must be {', '.join(choices[:-1])} or {choices[-1]}"


def type_problem(value: Any, hint: type | GenericAlias) -> str:
    """Say why a value does not fit a type hint; empty when it fits. An int is fine for a float."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        is_finite = abs(value) <= sys.float_info.max  # an int may be greater than any float
        return "" if is_finite else f"must be a finite number, not {value}"
    wrong = not isinstance(value, (list, tuple) if kind is list else kind)
    if wrong or (kind is int and isinstance(value, bool)):
        return _type_message(value, kind)
    if not inner:
        return ""
    items = [*value.values(), *value] if kind is dict else value if kind is list else []
    hints = [inner[1]] * len(value) + [inner[0]] * len(value) if kind is dict else inner * len(items)
    problems = [type_problem(item, item_hint) for item, item_hint in zip(items, hints, strict=True)]
    return next((f"has an entry that {problem}" for problem in problems if problem), "")


def _type_message(value: Any, kind: type) -> str:
    names = {str: "text", int: "an integer", float: "a number", bool: "true or false", list: "a list"}
    text = f"must be {names.get(kind, 'a mapping')}, not {value!r}"
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
    try:
        float(text.replace("_", ""))
    except ValueError:
        return ""
    if not any(map(str.isdigit, text)):  # nan
        return ""
    hint = " (text; YAML reads 1e-2 as text: write 0.01, without quotes)"
    return hint if "e" in text.lower() else " (text: write it without quotes)"
