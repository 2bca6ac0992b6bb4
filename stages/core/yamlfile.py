"""YAML files read strictly, each value with the line that it stands on."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stages.core.errors import InputError

Keys = tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `2e-4` as a number, as YAML 1.2 and everyone's eye do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        name: The file as messages show it.
        values: The top mapping.
        lines: Line number by the path of keys that leads to a value.
    """

    name: str
    values: dict[str, Any]
    lines: dict[Keys, int]

    def locate(self, *keys: str) -> str:
        """`file:line: dotted.key`; a key that is not there stands where its parent does."""
        known = keys
        while known and known not in self.lines:
            known = known[:-1]
        place = f"{self.name}:{self.lines.get(known, 1)}"
        return f"{place}: {'.'.join(keys)}" if keys else place


def read(path: Path, name: str) -> Document:
    """Read a file whose top level is a mapping with string keys throughout.

    Args:
        path: The file.
        name: What messages call it.

    Raises:
        InputError: It cannot be read, is not YAML, repeats a key, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: cannot be read as text ({error})") from None
    loader = _Loader(text)
    lines: dict[Keys, int] = {}
    try:
        node = loader.get_single_node()
        values = {} if node is None else _construct(loader, node, name, (), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{name}:{line}: not valid YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{name}: not valid YAML ({error})") from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise InputError(f"{name}:1: must be a mapping, key: value")
    return Document(name, values, lines)


def scalar(text: str, name: str) -> Any:
    """One value as YAML reads it: `3` is an int, `[a, b]` a list, `cpu` a string.

    Args:
        text: The value.
        name: Where it was given, for a message.

    Raises:
        InputError: It is not valid YAML.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError:
        raise InputError(f"{name}: {text!r} is not a valid value; put quotes around it") from None
    finally:
        loader.dispose()


def _construct(
    loader: _Loader, node: yaml.Node, name: str, keys: Keys, lines: dict[Keys, int]
) -> Any:
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(loader, item, name, (*keys, str(index)), lines)
            for index, item in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    values: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise InputError(f"{name}:{line}: {'.'.join((*keys, str(key)))}: a key must be text")
        if key in values:
            raise InputError(f"{name}:{line}: {'.'.join((*keys, key))}: given twice")
        lines[(*keys, key)] = line
        values[key] = _construct(loader, value_node, name, (*keys, key), lines)
    return values
