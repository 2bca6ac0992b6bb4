"""The parity gate: does a file still give the answers of the model that it was made from?"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core.errors import InputError, StageFailed
from stages.intent import rules
from stages.intent.decode import Engine, constrained, prompt_tokens
from stages.intent.metrics import FIELDS, Score, rate, score
from stages.intent.rows import Row, parse_answer
from stages.intent.trie import AnswerTrie

_NAMED_ROWS = 20
_REPORT_EVERY_SEC = 3.0
_FIELDS = ("action", "product", "quantity")


@dataclass(frozen=True)
class Parity:
    """One model's answers beside the merged model's, on the same rows.

    Attributes:
        name: encoding of the model.
        exact: its exact-match share.
        drop: the merged model's exact-match share less its own.
        agreement: share of rows on which each field, and the whole answer (`exact`), is the merged
            model's, right or wrong.
        lost: rows, counted from 1, that the merged model has right and this one has not.
        gained: the reverse.
    """

    name: str
    exact: float
    drop: float
    agreement: dict[str, dict[str, float | int]]
    lost: tuple[int, ...]
    gained: tuple[int, ...]

    def to_record(self) -> dict[str, Any]:
        """As parity.json has it."""
        return {
            "name": self.name,
            "exact": self.exact,
            "drop": self.drop,
            "agreement": self.agreement,
            "lost_rows": list(self.lost),
            "gained_rows": list(self.gained),
        }


def sample(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """A seeded choice of rows, kept in their order; all of them where there are no more."""
    if len(rows) <= count:
        return list(rows)
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), count))]


def answers(name: str, engine: Engine, rows: Sequence[Row]) -> list[str]:
    """An engine's answer to each row, as it is served: constrained to the catalog.

    Args:
        name: of the model, for the lines of progress.
        engine: the model.
        rows: what to answer.

    Raises:
        InputError: the model's tokenizer makes no trie of a catalog.
    """
    given, shown_sec = [], time.monotonic()
    for number, row in enumerate(rows, 1):
        prompt = prompt_tokens(engine, row.catalog, row.message)
        try:
            trie = AnswerTrie(engine.encode, row.catalog)
        except ValueError as error:
            raise InputError(f"the model cannot be decoded over a catalog: {error}") from error
        decoded = constrained(engine, trie, prompt, rules.guess(row.message))
        given.append(decoded.answer.to_json())
        if time.monotonic() - shown_sec >= _REPORT_EVERY_SEC:
            shown_sec = time.monotonic()
            print(f"parity {name}: row {number}/{len(rows)}", flush=True)
    return given


def compare(
    name: str, rows: Sequence[Row], reference: Sequence[str], answers: Sequence[str]
) -> Parity:
    """Holds a model's answers (JSON texts) against the merged model's.

    Args:
        name: encoding of the model.
        rows: the rows answered, in order.
        reference: the merged model's answers.
        answers: this model's answers.
    """
    expected = [score(row, text).exact for row, text in zip(rows, reference, strict=True)]
    got = [score(row, text).exact for row, text in zip(rows, answers, strict=True)]
    same = [_same_fields(*pair) for pair in zip(reference, answers, strict=True)]
    numbered = list(enumerate(zip(expected, got, strict=True), 1))
    return Parity(
        name=name,
        exact=sum(got) / len(rows),
        drop=(sum(expected) - sum(got)) / len(rows),
        agreement={field: rate(getattr(one, field) for one in same) for field in FIELDS},
        lost=tuple(number for number, (was, now) in numbered if was and not now),
        gained=tuple(number for number, (was, now) in numbered if now and not was),
    )


def _same_fields(reference: str, answer: str) -> Score:
    """Which fields two answers share, as a score of one against the other."""
    one, other = parse_answer(reference), parse_answer(answer)
    equal = {field: getattr(one, field) == getattr(other, field) for field in _FIELDS}
    return Score(valid=True, in_catalog=True, **equal)


def gate(parity: Parity, accepted_drop: float, min_agreement: float) -> None:
    """Refuses a file that fell too far behind.

    Args:
        parity: the comparison.
        accepted_drop: largest accepted drop in exact match, as a share.
        min_agreement: smallest accepted share of whole answers that are the merged model's.

    Raises:
        StageFailed: either bound is broken; the sentence names the rows.
    """
    merged = parity.exact + parity.drop
    # A share of rows is a ratio of integers: the margin only absorbs its rounding.
    if parity.drop > accepted_drop + 1e-9:
        raise StageFailed(
            f"parity gate: {parity.name} has {parity.exact:.1%} of the held-out rows exactly "
            f"right, the merged model {merged:.1%}: a drop of {parity.drop:.1%}, more than the "
            f"{accepted_drop:.1%} that the profile accepts; validation rows lost: "
            f"{_named(parity.lost)}"
        )
    agreement = float(parity.agreement["exact"]["value"])
    if agreement < min_agreement - 1e-9:
        changed = sorted({*parity.lost, *parity.gained})
        raise StageFailed(
            f"parity gate: {parity.name} gives the merged model's answer on {agreement:.1%} of the "
            f"held-out rows, less than the {min_agreement:.1%} that the profile asks for; "
            f"validation rows whose score changed: {_named(changed)}"
        )


def _named(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_NAMED_ROWS])) or "none"
    rest = len(numbers) - _NAMED_ROWS
    return f"{shown} and {rest} more" if rest > 0 else shown


def check_tokens(
    name: str,
    texts: Sequence[str],
    reference: Iterable[Sequence[int]],
    ids: Iterable[Sequence[int]],
) -> None:
    """Refuses a file whose tokenizer reads a text differently from the merged model's.

    Args:
        name: the file.
        texts: the texts.
        reference: their token ids by the merged model's tokenizer.
        ids: their token ids by the file's tokenizer.

    Raises:
        StageFailed: the first text that differs, and where.
    """
    for number, (text, one, other) in enumerate(zip(texts, reference, ids, strict=True), 1):
        if list(one) == list(other):
            continue
        place = next(
            (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
            min(len(one), len(other)),
        )
        raise StageFailed(
            f"parity gate: {name} tokenizes text {number} differently from the merged model, "
            f"from token {place} ({list(one[place : place + 4])} became "
            f"{list(other[place : place + 4])}) in {text[:80]!r}"
        )
