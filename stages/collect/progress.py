"""What has been collected so far, in a file that only grows, so that `kill -9` loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.intent.rows import Row, parse_row


@dataclass(frozen=True)
class Outcome:
    """What became of one row.

    Attributes:
        index: its place in the file.
        row: None if every attempt was rejected.
        rejects: `reason` and raw `text` of each rejected attempt.
    """

    index: int
    row: Row | None
    rejects: tuple[Mapping[str, str], ...] = ()


class Progress:
    """The outcomes on disk.

    The file's first line names the settings; each other line is one outcome. A last line that a
    kill cut off is dropped.

    Args:
        path: the file; made with the first outcome if it is not there.
        settings: what decides which rows are asked for, as JSON values.

    Raises:
        InputError: the file was begun with other settings, or is none of this kind.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings = dict(settings)
        self.outcomes: dict[int, Outcome] = {}
        if path.exists():
            self._load()

    def _load(self) -> None:
        raw = self._path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.truncate(self._path, len(whole))
        lines = whole.decode("utf-8").splitlines()
        if not lines:
            return
        try:
            begun = json.loads(lines[0])["settings"]
            found = [_outcome(json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{self._path.name} is damaged or not ours; delete it to start from the beginning"
            ) from None
        differs = [name for name in self._settings if begun.get(name) != self._settings[name]]
        if differs:
            raise InputError(
                f"{self._path.name} was begun with another {' and '.join(differs)}; give the same "
                "again, or delete it to start from the beginning"
            )
        self.outcomes = {one.index: one for one in found}

    def add(self, outcome: Outcome) -> None:
        """Keeps an outcome; it is on disk when this returns."""
        lines = []
        if not self._path.exists() or self._path.stat().st_size == 0:
            lines.append(json.dumps({"settings": self._settings}, ensure_ascii=False))
        record = {
            "index": outcome.index,
            "row": None if outcome.row is None else outcome.row.to_json(),
            "rejects": list(outcome.rejects),
        }
        lines.append(json.dumps(record))
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self.outcomes[outcome.index] = outcome

    def remove(self) -> None:
        """Takes the file away, once what is in it stands elsewhere."""
        self._path.unlink(missing_ok=True)


def _outcome(record: Mapping[str, Any]) -> Outcome:
    row = record["row"]
    return Outcome(
        index=record["index"],
        row=None if row is None else parse_row(row),
        rejects=tuple(record["rejects"]),
    )


def replace(path: Path, lines: Iterable[str]) -> None:
    """Writes a file so that no moment shows half of it; without lines there is no file."""
    written = list(lines)
    if not written:
        path.unlink(missing_ok=True)
        return
    # No surrogate can be written as UTF-8, and a model's raw text may hold one.
    temporary = path.with_name(f"{path.name}.tmp")
    text = "".join(f"{line}\n" for line in written)
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    temporary.replace(path)
