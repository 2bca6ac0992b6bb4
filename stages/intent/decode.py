"""Decoding an answer: the walk through the catalog's trie, and free greedy decoding beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stages.intent.prompt import render
from stages.intent.rows import Answer, build_prompt
from stages.intent.trie import AnswerTrie, Quantity, State

Guess = Callable[[Sequence[str]], Answer]
"""What the answer may be, given the products that are still possible; one of them."""


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

    def eval_many(
        self, tokens: Sequence[int], n_past: int, wanted: Sequence[int]
    ) -> Sequence[Sequence[float]]:
        """Feeds tokens at position `n_past` in one pass; what stood there or later is dropped.

        Args:
            tokens: one or more token ids.
            n_past: position of the first.
            wanted: places in `tokens`, ascending.

        Returns:
            The logits after each token wanted, `(vocabulary,)`; valid until the next call.
        """

    def eval(self, tokens: Sequence[int], n_past: int) -> Sequence[float]:
        """As `eval_many`, for the last token alone."""
        return self.eval_many(tokens, n_past, [len(tokens) - 1])[0]

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


def constrained(
    engine: Engine, trie: AnswerTrie, prompt: Sequence[int], guess: Guess | None = None
) -> Decoded:
    """Walks the trie greedily: the model is asked only where it branches.

    Tokens that are forced go through in the same pass as the token before them, and the closing
    ones are never evaluated. So does a guess: one pass over it says at each of its branching points
    what the model chooses there, and the walk goes on from the first where that is something else.
    A guess saves passes where it is right; it changes the answer only where two branches are so
    near a tie that a pass of another shape rounds them otherwise.

    Args:
        engine: the model.
        trie: the answers of a catalog.
        prompt: as `prompt_tokens` gives it.
        guess: asked before the first pass, and again where the model chose otherwise.
    """
    pending, n_past = list(prompt), 0
    walked: list[int] = []
    state: State = trie.root
    guessed: Answer | None = None
    log_probability, passes = 0.0, 0
    while True:
        if guess is not None and not isinstance(state, Answer):
            guessed = _guess_again(trie, walked, state, guess, guessed)
        expected = trie.tokens(guessed)[len(walked) :] if guessed else []
        fed, points, end = _line(trie, state, pending, expected)
        if isinstance(end, Answer) and not points:
            return Decoded(end, math.exp(log_probability), len(prompt), passes)
        places = [place for place, _ in points]
        logits = engine.eval_many(fed[: places[-1] + 1], n_past, places)
        passes += 1
        for (place, children), row in zip(points, logits, strict=True):
            scores = {token: float(row[token]) for token in children}
            chosen = max(scores, key=scores.__getitem__)
            top = scores[chosen]
            log_probability -= math.log(sum(math.exp(score - top) for score in scores.values()))
            if fed[place + 1 : place + 2] != [chosen]:
                break
        walked += [*fed[len(pending) : place + 1], chosen]
        n_past += place + 1
        pending, state = [chosen], children[chosen]


def _line(
    trie: AnswerTrie, state: State, pending: Sequence[int], expected: Sequence[int]
) -> tuple[list[int], list[tuple[int, Mapping[int, State]]], State]:
    """What to feed next: `pending`, then what is forced or expected after it.

    Returns:
        The tokens; the places after which the trie branches, each with the children there; and
        the state at the end.
    """
    fed: list[int] = list(pending)
    points: list[tuple[int, Mapping[int, State]]] = []
    ahead = iter(expected)
    while not isinstance(state, Answer):
        children = trie.children(state)
        likely = next(ahead, None)
        if len(children) > 1:
            points.append((len(fed) - 1, children))
            if likely is None:
                break
            token = likely
        else:
            token = next(iter(children))
        fed.append(token)
        state = children[token]
    return fed, points, state


def _guess_again(
    trie: AnswerTrie, walked: Sequence[int], state: State, guess: Guess, before: Answer | None
) -> Answer:
    """A guess that begins as the walk did."""
    if isinstance(state, Quantity) and before:
        goes_on = str(before.quantity).startswith(str(state.value or ""))
        return Answer(state.action, state.product, before.quantity if goes_on else state.value)
    possible = trie.possible(walked)
    guessed = guess(list(dict.fromkeys(product for _, product in possible)))
    if (guessed.action, guessed.product) in possible:
        return guessed
    action = next(action for action, product in possible if product == guessed.product)
    return replace(guessed, action=action)


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
