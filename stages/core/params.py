"""From plain values, read from YAML or JSON, to a stage's frozen parameter dataclass."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stages.core.errors import InputError

T = TypeVar("T")
Locate = Callable[[str | None], str]
"""Where a parameter was written, for a message: `Locate("seed") == "demo.yaml:4: train.seed"`."""


def build(params_type: type[T], values: Mapping[str, Any], locate: Locate) -> T:
    """Make a parameter object, each value of exactly the declared type.

    Types are strict: a bool is no int, 3 is no string. Two conversions lose nothing and are
    made: an int where a float is declared, a list where a tuple is.

    Args:
        params_type: A frozen dataclass; its `__post_init__` checks the ranges.
        values: Plain values by parameter name.
        locate: Where a parameter was given; with None, where the whole set was.

    Raises:
        InputError: A parameter is unknown, missing, of another type or out of its range.
    """
    fields = {field.name: field for field in dataclasses.fields(params_type)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(params_type)
    converted = {}
    for name, value in values.items():
        if name not in fields:
            known = ", ".join(sorted(fields)) or "none"
            raise InputError(f"{locate(name)}: unknown parameter; the stage has: {known}")
        try:
            converted[name] = convert(value, hints[name])
        except TypeError as error:
            raise InputError(f"{locate(name)}: {error}") from None
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in values and not has_default:
            raise InputError(f"{locate(name)}: required parameter is missing")
    try:
        return params_type(**converted)
    except InputError as error:
        culprit = _named_in(str(error), fields)
        sentence = str(error).removeprefix(f"{culprit}: ").removeprefix(f"{culprit} ")
        raise InputError(f"{locate(culprit)}: {sentence}") from None


def _named_in(message: str, names: Mapping[str, Any]) -> str | None:
    """The parameter that a range error speaks of: the first word of it that is one's name."""
    for word in message.replace(":", " ").replace(",", " ").split():
        if word.strip("`'\"") in names:
            return word.strip("`'\"")
    return None


def convert(value: Any, hint: Any) -> Any:
    """The value as the declared type.

    Raises:
        TypeError: It is of another type; the message says what was expected and what was found.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, arguments)
    if origin is typing.Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
        raise TypeError(f"must be one of {', '.join(map(repr, arguments))}, not {value!r}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"must be a list of {arguments[0].__name__}, not {_shown(value)}")
        return tuple(convert(item, arguments[0]) for item in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError(f"must be {_WORDS.get(hint, str(hint))}, not {_shown(value)}")
    return value


def _convert_union(value: Any, choices: tuple[Any, ...]) -> Any:
    if value is None and type(None) in choices:
        return None
    problem = TypeError("")
    for choice in choices:
        try:
            return convert(value, choice)
        except TypeError as error:
            problem = error
    raise problem


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    type(None): "empty",
}


def _shown(value: Any) -> str:
    kind = "mapping" if isinstance(value, dict) else type(value).__name__
    return f"the {kind} {value!r}" if value is not None else "empty"


def as_plain(params: Any) -> dict[str, Any]:
    """A parameter object as JSON-able values, defaults included."""
    plain = dataclasses.asdict(params)
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()
    }
