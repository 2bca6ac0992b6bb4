"""A vocabulary of characters, and engines whose logits are a hash of all that a sequence holds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence, Sized
from itertools import count

from stages.intent.decode import Engine, Vocabulary
from stages.intent.sequences import Part, Sequences

PASS_TOKENS = 128


class Characters(Vocabulary):
    """A token for each character."""

    bos_id, eos_id, size = 1, 2, 400

    def encode(self, text: str) -> list[int]:
        return [ord(one) + 3 for one in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(token - 3) for token in tokens)

    def logits(self, tokens: Sequence[int]) -> list[float]:
        """Of what follows these tokens: different for any other tokens."""
        seed = zlib.crc32(repr(list(tokens)).encode())
        return [zlib.crc32(b"%d %d" % (seed, token)) / 2**30 for token in range(self.size)]


class One(Characters, Engine):
    def __init__(self) -> None:
        self.held: list[int] = []

    def eval_many(
        self, tokens: Sequence[int], n_past: int, wanted: Sequence[int]
    ) -> list[list[float]]:
        self.held[n_past:] = tokens
        return [self.logits(self.held[: n_past + place + 1]) for place in wanted]

    def argmax(self, logits: Sequence[float]) -> int:
        return max(range(len(logits)), key=logits.__getitem__)


class Many(Characters, Sequences):
    """Keeps the rules of `Sequences`, and a record of the passes."""

    def __init__(
        self,
        cells: int = 5_000,
        slots: int = 4,
        pass_tokens: int = PASS_TOKENS,
        pass_logits: int = 128,
    ) -> None:
        self.cells, self.slots = cells, slots
        self.pass_tokens, self.pass_logits = pass_tokens, pass_logits
        self.held: list[list[tuple[int, int]]] = [[] for _ in range(slots)]
        self.cell = count()
        self.passes: list[dict[int, int]] = []
        self.broken = False

    @property
    def used(self) -> int:
        return len({cell for held in self.held for cell, _ in held})

    def eval_parts(self, parts: Sequence[Part]) -> list[list[Sequence[float]]]:
        if self.broken:
            raise RuntimeError("broken")
        sizes = {part.sequence: len(part.tokens) for part in parts}
        assert len(sizes) == len(parts) and min(sizes.values()) > 0
        assert sum(sizes.values()) <= self.pass_tokens
        assert sum(len(part.wanted) for part in parts) <= self.pass_logits
        self.passes.append(sizes)
        rows: list[list[Sequence[float]]] = []
        for part in parts:
            held = self.held[part.sequence]
            assert part.n_past <= len(held), "a gap"
            held[part.n_past :] = [(next(self.cell), token) for token in part.tokens]
            tokens = [token for _, token in held]
            rows.append([self.logits(tokens[: part.n_past + place + 1]) for place in part.wanted])
        assert self.used <= self.cells
        return rows

    def copy(self, source: int, target: int, tokens: int) -> None:
        assert not self.held[target] and len(self.held[source]) >= tokens
        self.held[target] = self.held[source][:tokens]

    def drop(self, sequence: int) -> None:
        self.held[sequence] = []

    def save(self, sequence: int, tokens: int) -> Sized:
        """The state of tokens is the tokens."""
        assert len(self.held[sequence]) >= tokens
        return tuple(token for _, token in self.held[sequence][:tokens])

    def restore(self, sequence: int, state: Sized) -> None:
        assert isinstance(state, tuple) and not self.held[sequence]
        self.held[sequence] = [(next(self.cell), token) for token in state]
        assert self.used <= self.cells
