"""From rows to packed training batches: several whole rows side by side, never cut."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import sentencepiece

from stages.data.corpus import corpus
from stages.intent.prompt import render
from stages.intent.rows import Row
from stages.pretrain.tokenizer import BOS, EOS, PAD

OPEN_LINES = 32
"""Lines being filled at once: enough that less than 1 % of a batch is padding."""

NOTHING, PROMPT, ANSWER = 0, 1, 2


@dataclass(frozen=True)
class Packed:
    """Packed rows, each array `(lines, width)`.

    Attributes:
        tokens: token ids.
        documents: which row of its line a token belongs to, from 1; 0 is padding. Attention stays
            within a row.
        targets: what the token's successor is: `NOTHING` to learn, `PROMPT` text or `ANSWER`.
    """

    tokens: numpy.ndarray
    documents: numpy.ndarray
    targets: numpy.ndarray


def encode(processor: sentencepiece.SentencePieceProcessor, row: Row) -> tuple[list[int], int]:
    """Token ids of a row, `[BOS] prompt answer [EOS]`, and how many of them the prompt has."""
    prompt = [BOS, *processor.encode(render(row.prompt))]
    return [*prompt, *processor.encode(row.completion), EOS], len(prompt)


def pack(rows: Iterable[tuple[list[int], int]], width: int) -> Packed:
    """Packs encoded rows into lines of `width` tokens, best fit first; longer rows are left out."""
    lines = list(_fill(rows, width))
    tokens = numpy.full((len(lines), width), PAD, dtype=numpy.uint16)
    documents = numpy.zeros((len(lines), width), dtype=numpy.uint8)
    targets = numpy.full((len(lines), width), NOTHING, dtype=numpy.uint8)
    for index, line in enumerate(lines):
        start = 0
        for number, (ids, prompt) in enumerate(line, 1):
            end = start + len(ids)
            tokens[index, start:end] = ids
            documents[index, start:end] = number
            targets[index, start : start + prompt - 1] = PROMPT
            targets[index, start + prompt - 1 : end - 1] = ANSWER
            start = end
    return Packed(tokens, documents, targets)


def _fill(
    rows: Iterable[tuple[list[int], int]], width: int
) -> Iterator[list[tuple[list[int], int]]]:
    free: list[int] = []
    lines: list[list[tuple[list[int], int]]] = []
    for ids, prompt in rows:
        if len(ids) > width:
            continue
        fitting = [(room, at) for at, room in enumerate(free) if room >= len(ids)]
        if fitting:
            at = min(fitting)[1]
        else:
            if len(lines) == OPEN_LINES:
                fullest = free.index(min(free))
                free.pop(fullest)
                yield lines.pop(fullest)
            at = len(lines)
            free.append(width)
            lines.append([])
        free[at] -= len(ids)
        lines[at].append((ids, prompt))
    yield from lines


@dataclass(frozen=True)
class Shard:
    """One piece of the corpus; its rows depend on the seed and the number alone."""

    seed: int
    number: int
    rows: int
    width: int
    tokenizer: Path


def make(shard: Shard) -> Packed:
    """Generates, tokenizes and packs a shard."""
    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(shard.tokenizer / "tokenizer.model")
    )
    rows = corpus(seed=shard.seed, shard=shard.number, count=shard.rows)
    return pack((encode(processor, row) for row in rows), shard.width)


def stream(
    pool: Executor, first: Shard, ahead: int, batch: int
) -> Iterator[tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]]:
    """Endless batches `(batch, width)` of tokens, documents and targets, in the same order always.

    Args:
        pool: makes the shards; its size changes the speed only.
        first: the shard to begin with; the following ones have the following numbers.
        ahead: shards in the making at once.
        batch: lines of a batch.
    """
    numbers = itertools.count(first.number)
    pending = deque(pool.submit(make, replace(first, number=next(numbers))) for _ in range(ahead))
    rest: Packed | None = None
    while True:
        shard = pending.popleft().result()
        pending.append(pool.submit(make, replace(first, number=next(numbers))))
        arrays = [shard.tokens, shard.documents, shard.targets]
        if rest is not None:
            before = (rest.tokens, rest.documents, rest.targets)
            arrays = [numpy.concatenate(pair) for pair in zip(before, arrays, strict=True)]
        whole = len(arrays[0]) // batch * batch
        for start in range(0, whole, batch):
            tokens, documents, targets = (array[start : start + batch] for array in arrays)
            yield tokens, documents, targets
        rest = Packed(*(array[whole:] for array in arrays))
