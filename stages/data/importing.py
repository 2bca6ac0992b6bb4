"""A file of the user's own rows: its formats, its checks, and what is left out of it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.data.leaks import people
from stages.data.splits import deal, together
from stages.intent.rows import (
    Answer,
    Row,
    parse_answer,
    split_prompt,
    validate_catalog,
    validate_message,
)

# Below it a split would hold too little to say anything.
MIN_IMPORT_ROWS = 30

_PAPER = ("prompt", "completion")
_EXPORT = ("catalog", "message", "action", "product", "quantity")
_FORMATS = "prompt and completion, or catalog, message, action, product and quantity"
# Digits that are read as a number; more is no quantity and is refused as the text it is.
_MAX_DIGITS = 9


@dataclass(frozen=True)
class Reject:
    """A row that was left out.

    Attributes:
        line: where the row begins in the file, from 1.
        kind: what was wrong, one of few words that can be counted.
        reason: the same as a clause.
    """

    line: int
    kind: str
    reason: str


@dataclass(frozen=True)
class Imported:
    """The rows of a file by split, and what became of the others.

    Attributes:
        rows: by split.
        rejects: the rows that were skipped, in their order.
        repeated: rows left out because an earlier one is the same request with the same answer.
        groups: how many sets of rows there are that stay in one split.
        largest_group: rows in the largest.
    """

    rows: dict[str, list[Row]]
    rejects: list[Reject]
    repeated: int
    groups: int
    largest_group: int

    def counts(self) -> dict[str, Any]:
        """What statistics.json says of the import."""
        return {
            "repeated": self.repeated,
            "skipped": dict(sorted(Counter(one.kind for one in self.rejects).items())),
            "groups": self.groups,
            "largest_group": self.largest_group,
        }


class _BadRow(ValueError):
    def __init__(self, kind: str, reason: str | Exception) -> None:
        super().__init__(str(reason))
        self.kind = kind


# A row as it is in the file, or what keeps it from being read.
_Record = dict[str, Any] | _BadRow


def import_rows(
    path: Path, proportions: Mapping[str, int], seed: int, *, skip_invalid: bool = False
) -> Imported:
    """Reads a file of rows, drops repeated requests and deals the rest to the splits.

    A file named `.csv` is read as CSV with a header row, any other as JSONL. A row has `prompt` and
    `completion`, or `catalog`, `message`, `action`, `product` and `quantity`, where the catalog is
    a list (JSONL) or text with a line, or " | ", between products. Both may have `language`; other
    keys are kept. Rows that ask alike stay in one split, as `splits.together` has it.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        proportions: by split, its share of the rows relative to the others.
        seed: of the dealing.
        skip_invalid: leave bad rows out and go on.

    Raises:
        InputError: the file cannot be read; a row is bad, has another answer than an earlier one
            for the same request, or is an evaluation message (file and line are named); or too few
            rows are left.
    """
    unique: dict[tuple[tuple[str, ...], str], tuple[int, Answer]] = {}
    rows: list[Row] = []
    rejects: list[Reject] = []
    repeated = 0
    for line, record in _records(path):
        try:
            row = _row(record)
            first, answer = unique.get((row.catalog, row.message), (0, row.answer))
            if answer != row.answer:
                raise _BadRow(
                    "two answers",
                    f"the same request has two answers, {answer.to_json()} in line {first} and "
                    f"{row.completion} here: keep one of the rows with the message {row.message!r}",
                )
            if first:
                repeated += 1
                continue
            if (twin := people().twin(row)) is not None:
                raise _BadRow(
                    "evaluation", f"the row {twin}, which is for evaluation only: take it out"
                )
        except _BadRow as bad:
            if not skip_invalid:
                raise InputError(f"{path}:{line}: {bad}") from bad
            rejects.append(Reject(line, bad.kind, str(bad)))
            continue
        unique[row.catalog, row.message] = (line, row.answer)
        rows.append(row)
    _check_count(path, len(rows), rejects)
    groups = together(rows)
    try:
        dealt = deal(groups, proportions, seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Imported(dealt, rejects, repeated, len(groups), max(map(len, groups)))


def _check_count(path: Path, count: int, rejects: Sequence[Reject]) -> None:
    if not count and not rejects:
        raise InputError(f"{path} holds no rows: a dataset needs at least one")
    if not count:
        first = rejects[0]
        raise InputError(
            f"{path} holds no good row, all {len(rejects)} were skipped; the first is line "
            f"{first.line}: {first.reason}"
        )
    if count < MIN_IMPORT_ROWS:
        skipped = f" and {len(rejects)} that were skipped" if rejects else ""
        raise InputError(
            f"{path} holds {count} different rows{skipped}: give at least {MIN_IMPORT_ROWS}, "
            "they are dealt to train, validation and test"
        )


def _records(path: Path) -> Iterator[tuple[int, _Record]]:
    """The rows of a file, each with the line where it begins."""
    lines = _lines(path)
    yield from _csv_records(path, lines) if path.suffix.lower() == ".csv" else _json_records(lines)


def _lines(path: Path) -> Iterator[str]:
    """The physical lines of a file with their ends, without the byte order mark."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}:{number}: the line is not UTF-8 text: save the file as UTF-8"
                    ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _json_records(lines: Iterator[str]) -> Iterator[tuple[int, _Record]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            yield number, _BadRow("json", "the row is not JSON")
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            yield number, _BadRow("json", "the row is not a JSON object")


def _csv_records(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, _Record]]:
    header: list[str] | None = None
    for number, cells in _csv_cells(path, lines):
        if header is None:
            header = _header(f"{path}:{number}", cells)
        elif len(cells) != len(header):
            reason = f"the row has {len(cells)} cells and the header {len(header)}"
            yield number, _BadRow("cells", reason)
        else:
            record: dict[str, Any] = {
                # What is not one of ours is kept where it says something.
                name: cell
                for name, cell in zip(header, cells, strict=True)
                if cell.strip() or name in (*_PAPER, *_EXPORT)
            }
            digits = record.get("quantity", "").strip()
            if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
                record["quantity"] = int(digits)
            for name in ("action", "product", "language"):
                if name in record:
                    record[name] = record[name].strip()
            yield number, record


def _csv_cells(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that has any, and the physical line where it begins."""
    reader = csv.reader(lines, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # Where the next row begins is not known: there is no skipping this one.
            raise InputError(f"{path}:{number}: the row is not CSV: {error}") from error
        if any(cell.strip() for cell in cells):
            yield number, [cell.replace("\r\n", "\n") for cell in cells]


def _header(place: str, cells: Sequence[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise InputError(f"{place}: the columns are not apart by commas: save the file with commas")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{place}: the header has two columns {name!r}: rename one")
    wanted = _PAPER if set(_PAPER) & set(names) else _EXPORT
    for name in wanted:
        if name not in names:
            raise InputError(
                f"{place}: the header has no column {name!r}: name the columns {_FORMATS}"
            )
    return names


def _row(record: _Record) -> Row:
    """The row that a record says.

    Raises:
        _BadRow: what is wrong with it.
    """
    if isinstance(record, _BadRow):
        raise record
    keys: Sequence[str]
    if any(key in record for key in _PAPER):
        keys, (catalog, message, answer) = _PAPER, _from_paper(record)
    elif any(key in record for key in _EXPORT):
        keys, (catalog, message, answer) = _EXPORT, _from_export(record)
    else:
        raise _BadRow("keys", f"the row has other keys than {_FORMATS}")
    language = record.get("language")
    if language is not None and not isinstance(language, str):
        raise _BadRow("language", "the key 'language' is not text")
    try:
        validate_catalog(catalog)
    except InputError as error:
        raise _BadRow("catalog", error) from error
    try:
        validate_message(message)
    except InputError as error:
        raise _BadRow("message", error) from error
    if answer.product not in catalog:
        raise _BadRow("product", f"the product {answer.product!r} is not in the row's catalog")
    extra = {key: v for key, v in record.items() if key not in (*keys, "language")}
    row = Row(catalog, message, answer, language, extra)
    try:
        row.to_json().encode()
    except UnicodeEncodeError as error:
        raise _BadRow("text", "the row holds half of a surrogate pair, which is no text") from error
    return row


def _from_paper(record: Mapping[str, Any]) -> tuple[tuple[str, ...], str, Answer]:
    for key in _PAPER:
        if not isinstance(record.get(key), str):
            raise _BadRow("keys", f"the key {key!r} is missing or not text")
    try:
        catalog, message = split_prompt(record["prompt"])
    except ValueError as error:
        raise _BadRow("prompt", error) from error
    return catalog, message, _answer(record["completion"])


def _from_export(record: Mapping[str, Any]) -> tuple[tuple[str, ...], str, Answer]:
    for key in _EXPORT:
        if key not in record:
            raise _BadRow("keys", f"the key {key!r} is missing")
    if not isinstance(record["message"], str):
        raise _BadRow("message", "the key 'message' is not text")
    answer = _answer(json.dumps({key: record[key] for key in ("action", "product", "quantity")}))
    return _catalog(record["catalog"]), record["message"], answer


def _answer(text: str) -> Answer:
    try:
        return parse_answer(text)
    except ValueError as error:
        raise _BadRow("answer", error) from error


def _catalog(value: object) -> tuple[str, ...]:
    """Catalog lines from a list, or from text with line ends or, where it has none, " | "."""
    if isinstance(value, str):
        lines = value.splitlines() if len(value.splitlines()) > 1 else value.split(" | ")
        return tuple(line.strip() for line in lines if line.strip())
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return tuple(value)
    raise _BadRow("catalog", "the key 'catalog' is neither a list of texts nor text")
