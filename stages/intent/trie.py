"""The set of valid answers for a catalog, as a token trie.

Every answer is one of `2 * len(catalog)` prefixes followed by a quantity, so decoding is a walk:
where a state has one child the token is forced, where it has several the model decides. Prefixes
are a trie built once per catalog; quantities are an automaton over digits, expanded as it is
walked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stages.intent.rows import ACTIONS, MAX_QUANTITY, Answer

Encode = Callable[[str], Sequence[int]]

# A number in which every two digits follow each other: one that is merged would show.
_DIGIT_PAIRS = (
    "".join(str(i) + "".join(f"{i}{j}" for j in range(i + 1, 10)) for i in range(10)) + "0"
)


@dataclass(slots=True, eq=False)
class Prefix:
    """A state before the quantity; `next` maps a token id to the following state."""

    next: dict[int, State] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantity:
    """A state inside the quantity: `value` is the number read so far, 0 before the first digit."""

    action: str
    product: str
    value: int = 0


State = Prefix | Quantity | Answer


class AnswerTrie:
    """Token trie of the complete answers for one catalog.

    Args:
        encode: text to token ids, without BOS or EOS, the way training tokenized completions.
        catalog: product lines, already validated.

    Raises:
        ValueError: the tokenizer merges digits, or a digit with the text around it.
    """

    def __init__(self, encode: Encode, catalog: Sequence[str]) -> None:
        self._digits, self._close = _quantity_tokens(encode)
        self.root = Prefix()
        self._before_quantity: dict[tuple[str, str], tuple[int, ...]] = {}
        for product in catalog:
            for action in ACTIONS:
                tokens = list(encode(Answer(action, product, 1).to_json()))
                if tokens[-2:] != [self._digits[1], self._close]:
                    raise ValueError("the tokenizer merges the quantity with the text around it")
                self._insert(tokens[:-2], Quantity(action, product))
                self._before_quantity[action, product] = tuple(tokens[:-2])

    def _insert(self, tokens: Sequence[int], end: Quantity) -> None:
        node = self.root
        for token in tokens[:-1]:
            child = node.next.get(token)
            if child is None:
                child = node.next[token] = Prefix()
            elif not isinstance(child, Prefix):
                raise ValueError(f"the answers for {child!r} and {end!r} share their tokens")
            node = child
        node.next[tokens[-1]] = end

    def tokens(self, answer: Answer) -> list[int]:
        """The token ids of an answer of the catalog."""
        digits = (self._digits[int(digit)] for digit in str(answer.quantity))
        return [*self._before_quantity[answer.action, answer.product], *digits, self._close]

    def possible(self, walked: Sequence[int]) -> list[tuple[str, str]]:
        """Actions and products, in the catalog's order, whose answers begin with these tokens."""
        begin = tuple(walked)
        return [
            pair for pair, tokens in self._before_quantity.items() if tokens[: len(begin)] == begin
        ]

    def children(self, state: State) -> Mapping[int, State]:
        """The tokens that may follow a state, and where each leads; empty for an `Answer`."""
        if isinstance(state, Prefix):
            return state.next
        if isinstance(state, Answer):
            return {}
        following: dict[int, State] = {}
        for digit, token in enumerate(self._digits):
            value = state.value * 10 + digit
            if 0 < value <= MAX_QUANTITY:
                following[token] = Quantity(state.action, state.product, value)
        if state.value:
            following[self._close] = Answer(state.action, state.product, state.value)
        return following


def _quantity_tokens(encode: Encode) -> tuple[list[int], int]:
    """Token ids of the ten digits and of `}` as they stand at the end of an answer."""
    *before, _, close = encode('"quantity": 1}')
    tokens = list(encode(f'"quantity": {_DIGIT_PAIRS}}}'))
    found = dict(zip(_DIGIT_PAIRS, tokens[len(before) :], strict=False))
    if len(set(found.values())) != 10 or tokens != [
        *before, *(found[digit] for digit in _DIGIT_PAIRS), close
    ]:  # fmt: skip
        raise ValueError("the tokenizer does not split digits: its answers are no trie")
    return [found[str(digit)] for digit in range(10)], close
