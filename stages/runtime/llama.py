"""The engine of GGUF models on one sequence: `stages.intent.decode.Engine` by llama.cpp."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from stages.core.errors import InputError
from stages.intent.decode import Engine
from stages.runtime.llama_model import LlamaModel, start

_SEQUENCE = 0


class LlamaEngine(LlamaModel, Engine):
    """A GGUF model and the context of one sequence.

    Args:
        path: the model file.
        context_tokens: longest sequence, prompt and answer together; 0 for the model's own limit.
        threads: threads of a pass over one token.
        batch_threads: threads of a pass over several tokens; 0 for `threads`.
        use_mmap: map the file instead of reading it.

    Raises:
        InputError: the file is not a model that llama.cpp loads; the sentence says why.
    """

    def __init__(
        self,
        path: Path,
        *,
        context_tokens: int = 2048,
        threads: int,
        batch_threads: int = 0,
        use_mmap: bool = True,
    ) -> None:
        started_sec = time.perf_counter()
        super().__init__(path, use_mmap=use_mmap)
        self.context_tokens = min(context_tokens or self.trained_tokens, self.trained_tokens)
        params = lib.llama_context_default_params()
        params.n_ctx = self.context_tokens
        params.n_batch = self.context_tokens
        params.n_seq_max = 1
        params.n_threads = threads
        params.n_threads_batch = batch_threads or threads
        self._context = self._make_context(params)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = self._make_batch()
        self.load_sec = time.perf_counter() - started_sec

    def _make_batch(self) -> Any:
        """A batch of the context's size for one sequence; a pass fills in tokens and positions."""
        size = self.context_tokens
        batch = lib.llama_batch_init(size, 0, 1)
        for index in range(size):
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = _SEQUENCE
        self._tokens = np.ctypeslib.as_array(batch.token, shape=(size,))
        self._positions = np.ctypeslib.as_array(batch.pos, shape=(size,))
        self._wanted = np.ctypeslib.as_array(batch.logits, shape=(size,))
        self._wanted[:] = 0
        return batch

    def close(self) -> None:
        """Frees the model; the engine is of no use afterwards."""
        lib.llama_batch_free(self._batch)
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    def eval_many(
        self, tokens: Sequence[int], n_past: int, wanted: Sequence[int]
    ) -> list[Sequence[float]]:
        """See `Engine`; the logits are llama.cpp's own memory, float32.

        Raises:
            InputError: the sequence is longer than the context.
        """
        count = len(tokens)
        if n_past + count > self.context_tokens:
            raise InputError(
                f"the request takes {n_past + count} tokens and the context holds "
                f"{self.context_tokens}; shorten the catalog or raise the context"
            )
        lib.llama_memory_seq_rm(self._memory, _SEQUENCE, n_past, -1)
        self._batch.n_tokens = count
        self._tokens[:count] = tokens
        self._positions[:count] = range(n_past, n_past + count)
        self._wanted[list(wanted)] = 1
        status = lib.llama_decode(self._context, self._batch)
        self._wanted[:count] = 0
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status} for {count} tokens at {n_past}")
        return [self._logits(self._context, place) for place in wanted]

    def argmax(self, logits: Sequence[float]) -> int:
        """The token with the highest logit."""
        return int(np.argmax(logits))


def backend() -> dict[str, str]:
    """The CPU code that llama.cpp chose on this machine.

    Returns:
        `library`, the file of the CPU backend that is loaded, whose name ends in the instruction
        set where several are shipped; `features`, llama.cpp's own line about it.
    """
    start()
    return {
        "library": _cpu_library(),
        "features": lib.llama_print_system_info().decode("utf-8").strip(),
    }


def _cpu_library() -> str:
    """Name of the mapped CPU backend; empty where the system does not list mapped files."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return ""
    names = {Path(line.split()[-1]).name for line in maps.read_text().splitlines() if line}
    return next((name for name in sorted(names) if name.startswith("libggml-cpu")), "")
