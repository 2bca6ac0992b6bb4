"""The engine of GGUF models: llama.cpp through the low-level calls of its Python binding.

It implements `stages.intent.decode.Engine` on one sequence. The high-level class of the binding is
left aside: it copies all logits of a batch and samples, where an answer needs a few logits of the
last token.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from stages.core.errors import InputError
from stages.intent.decode import Engine
from stages.runtime.gguf_file import Header, read_header

# GGML_LOG_LEVEL_ERROR of ggml.h.
_LOG_ERROR = 4
_SEQUENCE = 0
_messages: list[str] = []


@lib.llama_log_callback
def _keep_errors(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    """Drops llama.cpp's log but for errors, which explain a failed load."""
    if level == _LOG_ERROR:
        _messages.append(text.decode("utf-8", errors="replace").strip())


@functools.cache
def _start() -> None:
    """Loads the CPU backend that suits this machine best, once for the process."""
    lib.llama_log_set(_keep_errors, ctypes.c_void_p(0))
    lib.llama_backend_init()


class LlamaEngine(Engine):
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
        self.path = path
        self.header: Header = read_header(path)
        if not self.header.is_model:
            raise InputError(f"{path} holds no model (it is of another kind of GGUF file)")
        _start()
        started_sec = time.perf_counter()
        self._model = self._load_model(use_mmap)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._vocab_size: int = lib.llama_vocab_n_tokens(self._vocab)
        trained_tokens: int = lib.llama_model_n_ctx_train(self._model)
        self.context_tokens = min(context_tokens or trained_tokens, trained_tokens)
        self._context = self._make_context(threads, batch_threads or threads)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = self._make_batch()
        self._ids = (lib.llama_token * self.context_tokens)()
        self.load_sec = time.perf_counter() - started_sec
        self._bos: int = lib.llama_vocab_bos(self._vocab)
        self._eos: int = lib.llama_vocab_eos(self._vocab)
        if min(self._bos, self._eos) < 0:
            raise InputError(f"{path} names no BOS or no EOS token: an intent model needs both")

    def _load_model(self, use_mmap: bool) -> Any:
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if use_mmap else lib.LLAMA_LOAD_MODE_NONE
        _messages.clear()
        model = lib.llama_model_load_from_file(str(self.path).encode(), params)
        if not model:
            reason = _messages[0] if _messages else "llama.cpp gives no reason"
            raise InputError(f"{self.path} cannot be loaded by llama.cpp: {reason}")
        return model

    def _make_context(self, threads: int, batch_threads: int) -> Any:
        params = lib.llama_context_default_params()
        params.n_ctx = self.context_tokens
        params.n_batch = self.context_tokens
        params.n_seq_max = 1
        params.n_threads = threads
        params.n_threads_batch = batch_threads
        params.no_perf = True
        _messages.clear()
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            lib.llama_model_free(self._model)
            reason = _messages[0] if _messages else "llama.cpp gives no reason"
            raise InputError(f"{self.path}: no context of {params.n_ctx} tokens: {reason}")
        return context

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

    @property
    def bos_id(self) -> int:
        return self._bos

    @property
    def eos_id(self) -> int:
        return self._eos

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no BOS or EOS is added, special tokens in it are plain text."""
        raw = text.encode("utf-8")
        count = lib.llama_tokenize(
            self._vocab, raw, len(raw), self._ids, len(self._ids), False, False
        )
        if count < 0:
            self._ids = (lib.llama_token * -count)()
            count = lib.llama_tokenize(self._vocab, raw, len(raw), self._ids, -count, False, False)
        return self._ids[:count]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids; control tokens have none."""
        ids = (lib.llama_token * len(tokens))(*tokens)
        buffer = ctypes.create_string_buffer(8 * len(tokens) + 8)
        while True:
            size_bytes = lib.llama_detokenize(
                self._vocab, ids, len(tokens), buffer, len(buffer), False, False
            )
            if size_bytes >= 0:
                return buffer.raw[:size_bytes].decode("utf-8", errors="replace")
            buffer = ctypes.create_string_buffer(-size_bytes)

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
        return [
            np.ctypeslib.as_array(
                lib.llama_get_logits_ith(self._context, place), shape=(self._vocab_size,)
            )
            for place in wanted
        ]

    def argmax(self, logits: Sequence[float]) -> int:
        """The token with the highest logit."""
        return int(np.argmax(logits))


def backend() -> dict[str, str]:
    """The CPU code that llama.cpp chose on this machine.

    Returns:
        `library`, the file of the CPU backend that is loaded, whose name ends in the instruction
        set where several are shipped; `features`, llama.cpp's own line about it.
    """
    _start()
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
