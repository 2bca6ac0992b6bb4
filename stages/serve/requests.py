"""A request before the model sees it: checked, in tokens, with the walk that it will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.core.errors import InputError
from stages.intent import rules
from stages.intent.decode import Vocabulary, catalog_tokens, prompt_tokens, shared_tokens
from stages.intent.rows import (
    MAX_QUANTITY,
    Answer,
    validate_catalog,
    validate_message,
)
from stages.intent.trie import AnswerTrie
from stages.intent.walk import Walk
from stages.serve.kept import Kept

# Tries take some 350 bytes a token of their answers.
_KEPT_TRIE_TOKENS = 64_000


class RequestError(InputError):
    """A request that cannot be answered as it stands; `param` names the field at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class Work:
    """A request in the model's terms.

    Attributes:
        prefix: the prompt's tokens up to the message, the same for all messages to a catalog.
        prompt_tokens: length of the whole prompt.
        answer_tokens: length of the catalog's longest answer.
        walk: at its beginning.
    """

    prefix: tuple[int, ...]
    prompt_tokens: int
    answer_tokens: int
    walk: Walk


@dataclass(frozen=True)
class _Catalog:
    trie: AnswerTrie
    prefix: tuple[int, ...]
    answer_tokens: int


class Preparer:
    """Makes requests ready, apart from the model's thread; used by one thread.

    Args:
        vocabulary: the model's.
        context_tokens: longest prompt and answer together.
    """

    def __init__(self, vocabulary: Vocabulary, context_tokens: int) -> None:
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._catalogs: Kept[tuple[str, ...], _Catalog] = Kept(_KEPT_TRIE_TOKENS)

    def prepare(self, catalog: Sequence[str], message: str) -> Work:
        """Makes a request ready that `check_request` has passed.

        Raises:
            RequestError: Prompt and answer are too long for the model's context.
        """
        prompt = prompt_tokens(self._vocabulary, catalog, message)
        self._require_room(len(prompt), 0)
        prepared = self._catalog(tuple(catalog))
        self._require_room(len(prompt), prepared.answer_tokens)
        prefix = prepared.prefix[: shared_tokens(prepared.prefix, prompt)]
        walk = Walk(prepared.trie, prompt, rules.guess(message))
        return Work(prefix, len(prompt), prepared.answer_tokens, walk)

    def _catalog(self, catalog: tuple[str, ...]) -> _Catalog:
        found = self._catalogs.get(catalog)
        if found is None:
            found, tokens = self._make(catalog)
            self._catalogs.put(catalog, found, tokens)
        return found

    def _make(self, catalog: tuple[str, ...]) -> tuple[_Catalog, int]:
        """A catalog's trie and prefix; and the tokens of its answers, all together."""
        trie = AnswerTrie(self._vocabulary.encode, catalog)
        lengths = [len(trie.tokens(Answer("remove", line, MAX_QUANTITY))) for line in catalog]
        prefix = tuple(catalog_tokens(self._vocabulary, catalog))
        return _Catalog(trie, prefix, max(lengths)), 2 * sum(lengths)

    def _require_room(self, prompt_token_count: int, answer_tokens: int) -> None:
        room = self._context_tokens - answer_tokens
        if prompt_token_count > room:
            raise RequestError(
                f"the catalog and the message have {prompt_token_count:,} tokens together: this "
                f"model reads at most {room:,}, send fewer catalog lines",
                "catalog",
            )


def check_catalog(catalog: Sequence[str], max_catalog_lines: int) -> None:
    """Checks a catalog.

    Raises:
        RequestError: The catalog is refused.
    """
    try:
        validate_catalog(catalog)
    except InputError as error:
        raise RequestError(str(error), "catalog") from error
    if len(catalog) > max_catalog_lines:
        raise RequestError(
            f"the catalog has {len(catalog):,} lines: this service accepts at most "
            f"{max_catalog_lines:,}",
            "catalog",
        )


def check_request(catalog: Sequence[str], message: str, max_catalog_lines: int) -> None:
    """Checks a catalog and a message.

    Raises:
        RequestError: The catalog or the message is refused.
    """
    check_catalog(catalog, max_catalog_lines)
    try:
        validate_message(message)
        message.encode()
    except InputError as error:
        raise RequestError(str(error), "message") from error
    except UnicodeEncodeError as error:
        raise RequestError("the message holds half of a surrogate pair", "message") from error
