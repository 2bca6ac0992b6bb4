"""The rows that are asked: a test split, a user's own file, or the sample that ships here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import InputError
from stages.intent.rows import Row, read_rows

SAMPLE = Path(__file__).with_name("sample.jsonl")


def dataset_file(folder: Path | None) -> Path:
    """The JSONL file of a folder: `test.jsonl`, or the only one there is; ours without a folder.

    Raises:
        InputError: the folder has none, or several and none is `test.jsonl`.
    """
    if folder is None:
        return SAMPLE
    if folder.is_file():
        return folder
    if (folder / "test.jsonl").is_file():
        return folder / "test.jsonl"
    files = sorted(folder.glob("*.jsonl"))
    if len(files) != 1:
        raise InputError(f"{folder} has {len(files)} *.jsonl files and no test.jsonl: which one?")
    return files[0]


def choose(path: Path, count: int, seed: int) -> list[Row]:
    """A seeded choice of rows in a seeded order, so that any first part of it is one as well.

    Args:
        path: JSONL file.
        count: rows to take; 0 for all.
        seed: of the order.
    """
    rows = read_rows(path)
    random.Random(seed).shuffle(rows)
    return rows[:count] if count else rows


def cycle(rows: Sequence[str], start: int, count: int) -> list[str]:
    """`count` rows from `start` on, from the beginning again after the last."""
    return [rows[(start + i) % len(rows)] for i in range(count)]
