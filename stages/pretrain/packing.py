"""From generated texts to packed training batches: several whole texts in a line, never cut."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy
import sentencepiece

from stages.data.corpus import corpus
from stages.pretrain.disguise import disguise, letter_pieces
from stages.pretrain.tokenizer import BOS, EOS, PAD

OPEN_LINES = 32
"""Lines being filled at once: enough that less than 1 % of a batch is padding."""

NOTHING, PROMPT, ANSWER = 0, 1, 2


@dataclass(frozen=True)
class Packed:
    """Packed texts, each array `(lines, width)`.

    Attributes:
        tokens: token ids.
        documents: which text of its line a token belongs to, from 1; 0 is padding. Attention stays
            within a text.
        targets: what the token's successor is: `NOTHING` to learn, `PROMPT` text or `ANSWER`.
    """

    tokens: numpy.ndarray
    documents: numpy.ndarray
    targets: numpy.ndarray


Encoded = tuple[list[int], list[int]]
"""Token ids of a text, `[BOS] given answer [EOS] given answer [EOS] ...`, and each one's role."""


def encode(processor: sentencepiece.SentencePieceProcessor, parts: Sequence[str]) -> Encoded:
    """Tokenizes the parts of a text apart.

    Returns:
        The ids, and for each whether it is `PROMPT` or `ANSWER`, EOS being the answer's.
    """
    ids, roles = [BOS], [PROMPT]
    for at, part in enumerate(parts):
        pieces = processor.encode(part)
        if at % 2:
            pieces.append(EOS)
        ids += pieces
        roles += [ANSWER if at % 2 else PROMPT] * len(pieces)
    return ids, roles


def pack(texts: Iterable[Encoded], width: int) -> Packed:
    """Packs texts into lines of `width` tokens, best fit first; longer ones are left out."""
    lines = list(_fill(texts, width))
    tokens = numpy.full((len(lines), width), PAD, dtype=numpy.uint16)
    documents = numpy.zeros((len(lines), width), dtype=numpy.uint8)
    targets = numpy.full((len(lines), width), NOTHING, dtype=numpy.uint8)
    for index, line in enumerate(lines):
        start = 0
        for number, (ids, roles) in enumerate(line, 1):
            end = start + len(ids)
            tokens[index, start:end] = ids
            documents[index, start:end] = number
            targets[index, start : end - 1] = roles[1:]
            start = end
    return Packed(tokens, documents, targets)


def _fill(texts: Iterable[Encoded], width: int) -> Iterator[list[Encoded]]:
    free: list[int] = []
    lines: list[list[Encoded]] = []
    for ids, roles in texts:
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
        lines[at].append((ids, roles))
    yield from lines


@dataclass(frozen=True)
class Shard:
    """One piece of the corpus; its texts depend on the seed and the number alone.

    Attributes:
        disguised: share of the texts whose goods are renamed.
    """

    seed: int
    number: int
    texts: int
    width: int
    tokenizer: Path
    disguised: float


def make(shard: Shard) -> Packed:
    """Generates, tokenizes and packs a shard."""
    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(shard.tokenizer / "tokenizer.model")
    )
    seed = shard_seed(shard.seed, shard.number)
    rng = Random(seed)
    pieces = letter_pieces([processor.id_to_piece(i) for i in range(processor.vocab_size())])

    def texts() -> Iterator[Sequence[str]]:
        for parts in corpus(seed, shard.texts):
            yield disguise(parts, pieces, rng) if rng.random() < shard.disguised else parts

    return pack((encode(processor, parts) for parts in texts()), shard.width)


def shard_seed(seed: int, number: int) -> int:
    """The generator's seed for a shard: no two shards of any two data seeds share one."""
    return seed * 1_000_000_000 + number


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
