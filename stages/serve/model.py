"""The model as the service asks it: a catalog and a message in, one answer of the catalog out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from stages.core.errors import InputError
from stages.intent import rules
from stages.intent.decode import Decoded, Engine, constrained, prompt_tokens
from stages.intent.rows import (
    MAX_CATALOG_LINES,
    MAX_QUANTITY,
    Answer,
    validate_catalog,
    validate_message,
)
from stages.intent.trie import AnswerTrie
from stages.runtime.gguf_file import read_header

DEFAULT_CONTEXT_TOKENS = 4_096
_KEPT_CATALOGS = 16

# A request that every intent model can be asked; any answer of this catalog is a valid one.
GOLDEN_CATALOG = ("Whole Milk (1l bottle)", "Sourdough Bread (800g loaf)", "Brown Eggs (10 pack)")
GOLDEN_MESSAGE = "Please add 2 Brown Eggs (10 pack) to my cart, thanks!"


class RequestError(InputError):
    """A request that cannot be answered as it stands; `param` names the field at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class _Catalog:
    """A catalog's trie, and the length in tokens of its longest answer."""

    trie: AnswerTrie
    longest_answer_tokens: int


class IntentModel:
    """One loaded model; used by one thread at a time."""

    def __init__(
        self, engine: Engine, context_tokens: int, max_catalog_lines: int = MAX_CATALOG_LINES
    ) -> None:
        self._engine = engine
        self.context_tokens = context_tokens
        self._max_catalog_lines = max_catalog_lines
        self._catalog = lru_cache(maxsize=_KEPT_CATALOGS)(self._prepare)

    def answer(self, catalog: Sequence[str], message: str) -> Decoded:
        """Answers one request that `validate` has passed.

        Raises:
            RequestError: The prompt is too long for the model's context.
        """
        prompt = prompt_tokens(self._engine, catalog, message)
        self._require_room(len(prompt), 0)
        prepared = self._catalog(tuple(catalog))
        self._require_room(len(prompt), prepared.longest_answer_tokens)
        return constrained(self._engine, prepared.trie, prompt, rules.guess(message))

    def check(self) -> None:
        """Asks the golden request.

        Raises:
            InputError: The model cannot answer it: its tokenizer does not suit the answers, or
                its figures are not numbers.
        """
        try:
            decoded = self.answer(GOLDEN_CATALOG, GOLDEN_MESSAGE)
        except (ValueError, RequestError) as error:
            raise InputError(
                f"the model cannot answer ({error}); give a model that the pipeline made"
            ) from error
        # Not-a-number does not survive quantized arithmetic: damaged weights show as logits that
        # are all alike just as well.
        prompt = prompt_tokens(self._engine, GOLDEN_CATALOG, GOLDEN_MESSAGE)
        logits = [float(logit) for logit in self._engine.eval(prompt, 0)]
        if (
            decoded.answer.product not in GOLDEN_CATALOG
            or not all(map(math.isfinite, logits))
            or min(logits) == max(logits)
        ):
            raise InputError(
                "the model's weights are damaged: it gives the same figure for every token, or "
                "none; copy it again or give one that the pipeline made"
            )

    def validate(self, catalog: Sequence[str], message: str) -> None:
        """Checks what can be checked without the model; see `check_request`."""
        check_request(catalog, message, self._max_catalog_lines)

    def _prepare(self, catalog: tuple[str, ...]) -> _Catalog:
        longest = max(
            len(self._engine.encode(Answer("remove", product, MAX_QUANTITY).to_json()))
            for product in catalog
        )
        return _Catalog(AnswerTrie(self._engine.encode, catalog), longest)

    def _require_room(self, prompt_token_count: int, answer_tokens: int) -> None:
        room = self.context_tokens - answer_tokens
        if prompt_token_count > room:
            raise RequestError(
                f"the catalog and the message have {prompt_token_count:,} tokens together: this "
                f"model reads at most {room:,}, send fewer catalog lines",
                "catalog",
            )


def check_request(catalog: Sequence[str], message: str, max_catalog_lines: int) -> None:
    """Checks a catalog and a message.

    Raises:
        RequestError: The catalog or the message is refused.
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
    try:
        validate_message(message)
        message.encode()
    except InputError as error:
        raise RequestError(str(error), "message") from error
    except UnicodeEncodeError as error:
        raise RequestError("the message holds half of a surrogate pair", "message") from error


def load(
    path: Path, threads: int, max_context_tokens: int, max_catalog_lines: int = MAX_CATALOG_LINES
) -> IntentModel:
    """Loads a GGUF file and asks it the golden request.

    Args:
        path: The model.
        threads: Threads of the decoder.
        max_context_tokens: Longest prompt and answer together; less if the model was trained on
            less. The key-value cache of this many tokens is allocated at once.
        max_catalog_lines: Catalogs with more lines are refused.

    Raises:
        InputError: The file is no whole GGUF, or no intent model.
    """
    if not read_header(path).is_model:
        raise InputError(f"{path} is a GGUF file but holds no model")
    # Imported here: the host imports this module, and has no llama.cpp.
    from stages.runtime.llama import LlamaEngine

    engine = LlamaEngine(path, context_tokens=max_context_tokens, threads=threads)
    model = IntentModel(engine, engine.context_tokens, max_catalog_lines)
    model.check()
    return model


def as_plain(decoded: Decoded, latency_sec: float) -> dict[str, str | int | float]:
    """An answer as the service writes it."""
    answer = decoded.answer
    return {
        "action": answer.action,
        "product": answer.product,
        "quantity": answer.quantity,
        "probability": round(min(decoded.probability, 1.0), 6),
        "latency_sec": math.ceil(latency_sec * 1e6) / 1e6,
        "prompt_tokens": decoded.prompt_tokens,
        "passes": decoded.passes,
    }
