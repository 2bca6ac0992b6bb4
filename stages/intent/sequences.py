"""What a scheduler needs of a model that decodes many sequences together."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Part:
    """One sequence's part of a pass.

    Attributes:
        sequence: whose tokens they are.
        tokens: what comes at position `n_past`; what the sequence had there or later is dropped.
        n_past: position of the first.
        wanted: places in `tokens`, ascending, whose logits are asked for; there may be none.
    """

    sequence: int
    tokens: Sequence[int]
    n_past: int
    wanted: Sequence[int]


class Sequences(Protocol):
    """A model and its key-value cache of a fixed number of cells, one a token.

    A cell belongs to one sequence or, after `copy`, to several; it is free when the last of them
    has dropped it.

    Attributes:
        cells: how many tokens all sequences may hold together.
        slots: how many sequences there may be; they are numbered from 0.
        pass_tokens: most tokens of a pass.
        pass_logits: most tokens of a pass whose logits are asked for.
    """

    cells: int
    slots: int
    pass_tokens: int
    pass_logits: int

    def eval_parts(self, parts: Sequence[Part]) -> list[list[Sequence[float]]]:
        """Feeds parts of different sequences in one pass.

        Returns:
            For each part the logits after each token wanted, `(vocabulary,)`; valid until the next
            call.
        """

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Lets an empty sequence begin with the first tokens of another; they share the cells."""

    def drop(self, sequence: int) -> None:
        """Empties a sequence."""

    def save(self, sequence: int, tokens: int) -> Sized:
        """The state of a sequence's first tokens, in memory of its own; its length is in bytes."""

    def restore(self, sequence: int, state: Sized) -> None:
        """Lets an empty sequence begin with what was saved, in cells of its own."""
