"""Decoding an answer: the walk through the catalog's trie, and free greedy decoding beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stages.intent.prompt import render
from stages.intent.rows import Answer, build_prompt
from stages.intent.trie import AnswerTrie, State


class Engine(Protocol):
    """What decoding needs of a model: one sequence, its cache, and the logits of its last token."""

    @property
    def bos_id(self) -> int: ...

    @property
    def eos_id(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no BOS or EOS is added, special tokens in it are plain text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""

    def eval(self, tokens: Sequence[int], n_past: int) -> Sequence[float]:
        """Feeds tokens at position `n_past` in one pass; what stood there or later is dropped.

        Returns:
            The logits after the last token, `(vocabulary,)`; valid until the next call.
        """

    def argmax(self, logits: Sequence[float]) -> int:
        """The token with the highest logit."""


@dataclass(frozen=True)
class Decoded:
    """One decoded answer.

    Attributes:
        answer: the answer reached; always of the catalog.
        probability: product over the branching points of the chosen token's share among the tokens
            allowed there.
        prompt_tokens: length of the model's input, BOS included.
        passes: forward passes made, the prompt's included.
    """

    answer: Answer
    probability: float
    prompt_tokens: int
    passes: int


def prompt_tokens(engine: Engine, catalog: Sequence[str], message: str) -> list[int]:
    """The model's input for a request, `[BOS] + text`."""
    return [engine.bos_id, *engine.encode(render(build_prompt(catalog, message)))]


def constrained(engine: Engine, trie: AnswerTrie, prompt: Sequence[int]) -> Decoded:
    """Walks the trie greedily: the model is asked only where it branches.

    Tokens that are forced go through in the same pass as the token before them, and the closing
    ones are never evaluated.
    """
    pending, n_past = list(prompt), 0
    state: State = trie.root
    log_probability, passes = 0.0, 0
    while True:
        children = trie.children(state)
        while len(children) == 1:
            token, state = next(iter(children.items()))
            pending.append(token)
            children = trie.children(state)
        if isinstance(state, Answer):
            return Decoded(state, math.exp(log_probability), len(prompt), passes)
        logits = engine.eval(pending, n_past)
        passes += 1
        n_past += len(pending)
        scores = {token: float(logits[token]) for token in children}
        token = max(scores, key=scores.__getitem__)
        top = scores[token]
        log_probability -= math.log(sum(math.exp(score - top) for score in scores.values()))
        pending, state = [token], children[token]


def greedy(engine: Engine, prompt: Sequence[int], max_tokens: int) -> list[int]:
    """Free greedy decoding: the tokens after the prompt, up to EOS (left out) or `max_tokens`."""
    pending, n_past = list(prompt), 0
    generated: list[int] = []
    while len(generated) < max_tokens:
        logits = engine.eval(pending, n_past)
        n_past += len(pending)
        token = engine.argmax(logits)
        if token == engine.eos_id:
            break
        generated.append(token)
        pending = [token]
    return generated
