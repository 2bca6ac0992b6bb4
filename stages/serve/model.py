"""The model as the service asks it: a catalog and a message in, one answer of the catalog out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import InputError
from stages.intent.decode import prompt_tokens
from stages.intent.rows import MAX_CATALOG_LINES
from stages.intent.sequences import Part
from stages.runtime.gguf_file import read_header
from stages.serve.requests import Preparer, RequestError, check_request
from stages.serve.scheduler import Answered, Scheduler

if TYPE_CHECKING:
    from stages.runtime.llama_many import LlamaSequences

DEFAULT_CONTEXT_TOKENS = 4_096
DEFAULT_SLOTS = 16
MAX_SLOTS = 64

# A request that every intent model can be asked; any answer of this catalog is a valid one.
GOLDEN_CATALOG = ("Whole Milk (1l bottle)", "Sourdough Bread (800g loaf)", "Brown Eggs (10 pack)")
GOLDEN_MESSAGE = "Please add 2 Brown Eggs (10 pack) to my cart, thanks!"


class IntentModel:
    """One loaded model, what makes requests ready for it, and the scheduler of its passes.

    Attributes:
        context_tokens: longest prompt and answer together.
        vocabulary: the model's; for any thread.
        max_catalog_lines: catalogs with more are refused.
        cache_bytes: key-value state of the requests in work, allocated at once.
        kv_bytes: bound of all key-value state.
        preparer: for one thread.
        scheduler: its `run` is for the model's thread, as `answer` and `check` are.

    Args:
        engine: the model, a `stages.runtime.llama_many.LlamaSequences`.
        kept_bytes: most that catalogs' states may take outside the engine's cache.
        max_catalog_lines: catalogs with more lines are refused.
    """

    def __init__(
        self, engine: LlamaSequences, kept_bytes: int, max_catalog_lines: int = MAX_CATALOG_LINES
    ) -> None:
        self._engine = self.vocabulary = engine
        self.cache_bytes = engine.cache_bytes
        self.context_tokens = engine.context_tokens
        self.kv_bytes = engine.cache_bytes + kept_bytes
        self.max_catalog_lines = max_catalog_lines
        self.preparer = Preparer(engine, engine.context_tokens)
        self.scheduler = Scheduler(engine, kept_bytes)

    def validate(self, catalog: Sequence[str], message: str) -> None:
        """Checks what can be checked without the model; see `check_request`."""
        check_request(catalog, message, self.max_catalog_lines)

    def answer(self, catalog: Sequence[str], message: str) -> Answered:
        """Answers one request that `validate` has passed, where the scheduler does not run.

        Raises:
            RequestError: The prompt is too long for the model's context.
        """
        future = self.scheduler.submit(self.preparer.prepare(catalog, message))
        while self.scheduler.step():
            pass
        return future.result()

    def check(self) -> None:
        """Asks the golden request.

        Raises:
            InputError: The model cannot answer it: its tokenizer does not suit the answers, or
                its figures are not numbers.
        """
        try:
            decoded = self.answer(GOLDEN_CATALOG, GOLDEN_MESSAGE).decoded
        except (ValueError, RequestError) as error:
            raise InputError(
                f"the model cannot answer ({error}); give a model that the pipeline made"
            ) from error
        # Not-a-number does not survive quantized arithmetic: damaged weights show as logits that
        # are all alike just as well.
        prompt = prompt_tokens(self._engine, GOLDEN_CATALOG, GOLDEN_MESSAGE)
        prompt = prompt[: self._engine.pass_tokens]
        rows = self._engine.eval_parts([Part(0, prompt, 0, [len(prompt) - 1])])
        logits = [float(logit) for logit in rows[0][0]]
        self._engine.drop(0)
        if (
            decoded.answer.product not in GOLDEN_CATALOG
            or not all(map(math.isfinite, logits))
            or min(logits) == max(logits)
        ):
            raise InputError(
                "the model's weights are damaged: it gives the same figure for every token, or "
                "none; copy it again or give one that the pipeline made"
            )


def load(
    path: Path,
    threads: int,
    max_context_tokens: int,
    max_catalog_lines: int = MAX_CATALOG_LINES,
    slots: int = DEFAULT_SLOTS,
    kv_bytes: int = 0,
) -> IntentModel:
    """Loads a GGUF file and asks it the golden request.

    Args:
        path: The model.
        threads: Threads of the decoder.
        max_context_tokens: Longest prompt and answer together; less if the model was trained on
            less.
        max_catalog_lines: Catalogs with more lines are refused.
        slots: Requests that are decoded together.
        kv_bytes: Bound of all key-value state. A quarter is the cache of the requests in work,
            which is allocated at once, but never less than one request's; the rest is for the
            catalogs that are kept. 0 for eight times `max_context_tokens`, and at least 128 MiB.

    Raises:
        InputError: The file is no whole GGUF, or no intent model; `kv_bytes` is less than one
            request's.
    """
    if not read_header(path).is_model:
        raise InputError(f"{path} is a GGUF file but holds no model")
    # Imported here: the host imports this module, and has no llama.cpp.
    from stages.runtime.llama_many import LlamaSequences

    engine = LlamaSequences(
        path, slots=slots, context_tokens=max_context_tokens, kv_bytes=kv_bytes, threads=threads
    )
    model = IntentModel(engine, engine.kv_bytes - engine.cache_bytes, max_catalog_lines)
    model.check()
    return model


def as_plain(answered: Answered, latency_sec: float) -> dict[str, str | int | float]:
    """An answer as the service writes it."""
    decoded = answered.decoded
    answer = decoded.answer
    return {
        "action": answer.action,
        "product": answer.product,
        "quantity": answer.quantity,
        "probability": round(min(decoded.probability, 1.0), 6),
        "latency_sec": math.ceil(latency_sec * 1e6) / 1e6,
        "prompt_tokens": decoded.prompt_tokens,
        "cached_tokens": answered.cached_tokens,
        "passes": decoded.passes,
    }
