"""Decoding an answer on an engine of one sequence: the walk through the catalog, or free greedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stages.intent.prompt import render
from stages.intent.rows import build_prompt
from stages.intent.trie import AnswerTrie
from stages.intent.walk import Decoded, Guess, Walk


class Vocabulary(Protocol):
    """Text to tokens and back; several threads may ask at once."""

    @property
    def bos_id(self) -> int: ...

    @property
    def eos_id(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no BOS or EOS is added, special tokens in it are plain text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""


class Engine(Vocabulary, Protocol):
    """What decoding needs of a model: one sequence, its cache, and the logits of its last token."""

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


def prompt_tokens(vocabulary: Vocabulary, catalog: Sequence[str], message: str) -> list[int]:
    """The model's input for a request, `[BOS] + text`."""
    return [vocabulary.bos_id, *vocabulary.encode(render(build_prompt(catalog, message)))]


def catalog_tokens(vocabulary: Vocabulary, catalog: Sequence[str]) -> list[int]:
    """The beginning of a catalog's prompts, up to the message."""
    return [vocabulary.bos_id, *vocabulary.encode(build_prompt(catalog, ""))]


def shared_tokens(head: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens of a catalog's are a prompt's as well, all of it but the last at most.

    That is all of `head`, but for a tokenizer that merges its end with the message's beginning.
    """
    longest = min(len(head), len(prompt) - 1)
    differ = (place for place in range(longest) if head[place] != prompt[place])
    return next(differ, longest)


def constrained(
    engine: Engine,
    trie: AnswerTrie,
    prompt: Sequence[int],
    guess: Guess | None = None,
    known_tokens: int = 0,
) -> Decoded:
    """The answer at the end of a `Walk`; see there.

    Args:
        engine: the model.
        trie: the answers of a catalog.
        prompt: as `prompt_tokens` gives it.
        guess: asked before the first pass, and again where the model chose otherwise.
        known_tokens: of the prompt, what the engine has in its cache; never all of it.
    """
    walk = Walk(trie, prompt, guess)
    while (feed := walk.feed) is not None:
        known = max(0, known_tokens - feed.n_past)
        wanted = [place - known for place in feed.wanted]
        walk.take(engine.eval_many(feed.tokens[known:], feed.n_past + known, wanted))
    return walk.decoded


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
