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

    Rows whose messages are the same but for case, accents and punctuation stay together, so that
    no test message is in train.

    Args:
        path: a JSONL file of the row format.
        proportions: by split, its share of the rows relative to the others.
        seed: of the dealing.

    Raises:
        InputError: the file or a row is bad (file and line are named), the same request has two
            answers, or too few rows are left.
    """
    unique: dict[tuple[tuple[str, ...], str], Answer] = {}
    groups: dict[str, list[Row]] = {}
    for row in read_rows(path):
        request = (row.catalog, row.message)
        if request not in unique:
            unique[request] = row.answer
            groups.setdefault(normalize(row.message), []).append(row)
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
    return _deal(path, list(groups.values()), len(unique), proportions, seed)


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
    templates = {row.extra["template"] for row in rows["train"] if "template" in row.extra}
    leaks = []
    for split in ("test", "validation"):
        for at, row in enumerate(rows[split], 1):
            twin = messages.get(normalize(row.message))
            if twin is not None:
                leaks.append(f"{split}.jsonl:{at} asks what train.jsonl:{twin} asks")
            elif row.extra.get("template") in templates:
                leaks.append(f"{split}.jsonl:{at} has train's template {row.extra['template']}")
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
