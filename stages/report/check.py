"""Holds JSON to the types of `stages.report.schema`: a file that a user names may be anything."""

from __future__ import annotations

import math
import types
import typing
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.report.records import read_json
from stages.report.schema import SCHEMA_VERSION, Report

_PLAIN = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def read_report(path: Path) -> Report:
    """The report of a report.json, or of the folder that holds one.

    Raises:
        InputError: It cannot be read, is of another schema, or not as the report stage writes it.
    """
    file = path / "report.json" if path.is_dir() else path
    value = read_json(file)
    version = value.get("schema") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        found = f"one of schema {version}" if isinstance(version, int) else "something else"
        raise InputError(
            f"{file} is no report of schema {SCHEMA_VERSION} but {found}; make it with "
            "`invoke report`, or with `invoke bench-cpu` from GGUF files"
        )
    try:
        check(value, Report)
    except ValueError as error:
        raise InputError(f"{file}: {error}; make it again with `invoke report`") from None
    return typing.cast(Report, value)


def check(value: Any, kind: Any, where: str = "") -> None:
    """Compares a value with a type, down to its leaves.

    Args:
        value: What `json.loads` gave.
        kind: A TypedDict, `list[...]`, `dict[str, ...]`, a union with None, a plain type or `Any`.
        where: The value's place, for the sentence.

    Raises:
        ValueError: They differ; the sentence names the place.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if origin in (types.UnionType, typing.Union):
        if value is not None or type(None) not in parts:
            (inner,) = (part for part in parts if part is not type(None))
            check(value, inner, where)
    elif typing.is_typeddict(kind):
        _check_record(value, kind, where)
    elif origin is list:
        _expect(isinstance(value, list), where, "a list")
        for number, one in enumerate(value):
            check(one, parts[0], f"{where}[{number}]")
    elif origin is dict:
        _expect(isinstance(value, dict), where, "an object")
        for name, one in value.items():
            check(one, parts[1], _below(where, name))
    else:
        _expect(_is_plain(value, kind), where, _PLAIN[kind])


def _check_record(value: Any, kind: Any, where: str) -> None:
    _expect(isinstance(value, dict), where, "an object")
    fields = typing.get_type_hints(kind)
    missing, unknown = sorted(fields.keys() - value.keys()), sorted(value.keys() - fields.keys())
    if missing:
        raise ValueError(f"{_below(where, missing[0])} is missing")
    if unknown:
        raise ValueError(f"{_below(where, unknown[0])} is unknown")
    for name, inner in fields.items():
        check(value[name], inner, _below(where, name))


def _is_plain(value: Any, kind: type) -> bool:
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _expect(holds: bool, where: str, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{where or 'the whole'} must be {wanted}")


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
