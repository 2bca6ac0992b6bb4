"""One answer's walk through a catalog's trie, apart from the engine that gives the logits.

It says what to feed and takes the logits, so that one walk serves an engine of one sequence
(`stages.intent.decode.constrained`) and a pass that many walks share (`stages.serve.scheduler`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from stages.intent.rows import Answer
from stages.intent.trie import AnswerTrie, Quantity, State

Guess = Callable[[Sequence[str]], Answer]
"""What the answer may be, given the products that are still possible; one of them."""


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


@dataclass(frozen=True)
class Feed:
    """What a walk asks of the model.

    Attributes:
        tokens: what comes at position `n_past`; what stood there or later is dropped.
        n_past: position of the first.
        wanted: places in `tokens`, ascending, whose logits are asked for; the last place is one.
    """

    tokens: Sequence[int]
    n_past: int
    wanted: Sequence[int]


class Walk:
    """A greedy walk: the model is asked only where the trie branches.

    Tokens that are forced go through in the same pass as the token before them, and the closing
    ones are never evaluated. So does a guess: one pass over it says at each of its branching points
    what the model chooses there, and the walk goes on from the first where that is something else.
    A guess saves passes where it is right; it changes the answer only where two branches are so
    near a tie that a pass of another shape rounds them otherwise.

    Attributes:
        feed: what to feed next; None when the walk is over.

    Args:
        trie: the answers of a catalog.
        prompt: as `stages.intent.decode.prompt_tokens` gives it.
        guess: asked at once, and again where the model chose otherwise.
    """

    def __init__(self, trie: AnswerTrie, prompt: Sequence[int], guess: Guess | None = None) -> None:
        self._trie = trie
        self._guess = guess
        self._prompt_tokens = len(prompt)
        self._pending, self._n_past = list(prompt), 0
        self._walked: list[int] = []
        self._state: State = trie.root
        self._guessed: Answer | None = None
        self._log_probability, self._passes = 0.0, 0
        self._fed: list[int] = []
        self._points: list[tuple[int, Mapping[int, State]]] = []
        self.feed: Feed | None = self._next()

    def take(self, logits: Sequence[Sequence[float]]) -> None:
        """Goes on by the logits of the last `feed`.

        Args:
            logits: those after each token wanted, `(vocabulary,)` each.
        """
        self._passes += 1
        for (place, children), row in zip(self._points, logits, strict=True):
            scores = {token: float(row[token]) for token in children}
            chosen = max(scores, key=scores.__getitem__)
            top = scores[chosen]
            self._log_probability -= math.log(
                sum(math.exp(score - top) for score in scores.values())
            )
            if self._fed[place + 1 : place + 2] != [chosen]:
                break
        self._walked += [*self._fed[len(self._pending) : place + 1], chosen]
        self._n_past += place + 1
        self._pending, self._state = [chosen], children[chosen]
        self.feed = self._next()

    @property
    def decoded(self) -> Decoded:
        """The answer, when the walk is over."""
        assert isinstance(self._state, Answer)
        probability = math.exp(self._log_probability)
        return Decoded(self._state, probability, self._prompt_tokens, self._passes)

    @property
    def tokens(self) -> list[int]:
        """Token ids of the answer, when the walk is over."""
        return self._trie.tokens(self.decoded.answer)

    def _next(self) -> Feed | None:
        if self._guess is not None and not isinstance(self._state, Answer):
            self._guessed = _guess_again(
                self._trie, self._walked, self._state, self._guess, self._guessed
            )
        expected = self._trie.tokens(self._guessed)[len(self._walked) :] if self._guessed else []
        self._fed, self._points, end = _line(self._trie, self._state, self._pending, expected)
        if not self._points:
            self._state = end
            return None
        places = [place for place, _ in self._points]
        return Feed(self._fed[: places[-1] + 1], self._n_past, places)


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
