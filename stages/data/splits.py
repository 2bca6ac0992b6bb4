"""An imported file dealt to the splits, and the check that no split leaks into another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from stages.core.errors import InputError, StageFailed
from stages.data.products import SPLITS
from stages.intent.rows import Answer, Row, read_rows

# Below it a split would hold too little to say anything.
MIN_IMPORT_ROWS = 30
# Leaks named in the error; more would bury the first.
NAMED_LEAKS = 5

_NOT_WORD = re.compile(r"[^\w]+")


def import_rows(path: Path, proportions: Mapping[str, int], seed: int) -> dict[str, list[Row]]:
    """Reads a file of rows, drops repeated requests and deals the rest to the splits.

    Rows whose messages are the same but for case, accents and punctuation stay together, and so do
    rows that name the same `template`: nothing that test asks is in train.

    Args:
        path: a JSONL file of the row format.
        proportions: by split, its share of the rows relative to the others.
        seed: of the dealing.

    Raises:
        InputError: the file or a row is bad (file and line are named), the same request has two
            answers, or too few rows are left.
    """
    unique: dict[tuple[tuple[str, ...], str], Answer] = {}
    together = _Together()
    for row in read_rows(path):
        request = (row.catalog, row.message)
        if request not in unique:
            unique[request] = row.answer
            together.put(row)
        elif unique[request] != row.answer:
            raise InputError(
                f"{path}: the same request has two answers, {unique[request].to_json()} and "
                f"{row.completion}: keep one of the rows with the message {row.message!r}"
            )
    if len(unique) < MIN_IMPORT_ROWS:
        raise InputError(
            f"{path} holds {len(unique)} different rows: give at least {MIN_IMPORT_ROWS}, "
            "they are dealt to train, validation and test"
        )
    return _deal(path, together.groups(), len(unique), proportions, seed)


class _Together:
    """Groups of rows that must not be in different splits."""

    def __init__(self) -> None:
        self._rows: list[list[Row]] = []
        self._group_of: dict[str, int] = {}

    def put(self, row: Row) -> None:
        keys = [f"message:{normalize(row.message)}"]
        if (name := template(row)) is not None:
            keys.append(f"template:{name}")
        found = sorted({self._group_of[key] for key in keys if key in self._group_of})
        home = found[0] if found else len(self._rows)
        if not found:
            self._rows.append([])
        for other in found[1:]:  # the row is what joins them
            self._rows[home] += self._rows[other]
            self._rows[other] = []
            self._group_of = {k: home if g == other else g for k, g in self._group_of.items()}
        self._rows[home].append(row)
        self._group_of.update(dict.fromkeys(keys, home))

    def groups(self) -> list[list[Row]]:
        return [rows for rows in self._rows if rows]


def template(row: Row) -> str | None:
    """The template that a row names; rows of people name none."""
    name = row.extra.get("template")
    return name if isinstance(name, str) else None


def _deal(
    path: Path, groups: list[list[Row]], rows: int, proportions: Mapping[str, int], seed: int
) -> dict[str, list[Row]]:
    Random(f"{seed}:import").shuffle(groups)
    total = sum(proportions.values())
    dealt: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for split in ("test", "validation"):
        wanted = max(1, round(rows * proportions[split] / total))
        while groups and len(dealt[split]) < wanted:
            dealt[split] += groups.pop()
    for group in groups:
        dealt["train"] += group
    if not dealt["train"]:
        raise InputError(
            f"{path} has too few different messages to fill train, validation and test: "
            "add rows with other messages"
        )
    return dealt


def normalize(message: str) -> str:
    """A message without case, accents, punctuation and spacing."""
    plain = unicodedata.normalize("NFKD", message.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return _NOT_WORD.sub(" ", plain).strip()


def check_leaks(rows: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """Checks that nothing that validation or test asks is in train.

    Returns:
        How many messages and templates were compared.

    Raises:
        StageFailed: a message or a template is in train too; the first rows are named.
    """
    messages = {normalize(row.message): at for at, row in enumerate(rows["train"], 1)}
    templates = {template(row) for row in rows["train"]} - {None}
    leaks = []
    for split in ("test", "validation"):
        for at, row in enumerate(rows[split], 1):
            twin = messages.get(normalize(row.message))
            if twin is not None:
                leaks.append(f"{split}.jsonl:{at} asks what train.jsonl:{twin} asks")
            elif template(row) in templates:
                leaks.append(f"{split}.jsonl:{at} has train's template {template(row)}")
    if leaks:
        named = "; ".join(leaks[:NAMED_LEAKS])
        raise StageFailed(
            f"{len(leaks)} held-out rows leak into train ({named}): change the seed, or take the "
            "rows out of one of the files"
        )
    held = len(rows["test"]) + len(rows["validation"])
    return {
        "held_out_rows": held,
        "train_messages": len(messages),
        "train_templates": len(templates),
        "leaks": 0,
    }
