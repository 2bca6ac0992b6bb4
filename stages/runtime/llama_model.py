"""A GGUF model in llama.cpp, through the low-level calls of its Python binding: weights and text.

What a pass takes, the context, is added by `stages.runtime.llama` for one sequence and by
`stages.runtime.llama_many` for several. The high-level class of the binding is left aside: it
copies all logits of a batch and samples, where an answer needs a few logits of a few tokens.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from stages.core.errors import InputError
from stages.intent.decode import Vocabulary
from stages.runtime.gguf_file import Header, read_header

# GGML_LOG_LEVEL_ERROR of ggml.h.
_LOG_ERROR = 4
_messages: list[str] = []


@lib.llama_log_callback
def _keep_errors(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    """Drops llama.cpp's log but for errors, which explain a failed load."""
    if level == _LOG_ERROR:
        _messages.append(text.decode("utf-8", errors="replace").strip())


@functools.cache
def start() -> None:
    """Loads the CPU backend that suits this machine best, once for the process."""
    lib.llama_log_set(_keep_errors, ctypes.c_void_p(0))
    lib.llama_backend_init()


class LlamaModel(Vocabulary):
    """The weights and the vocabulary of a GGUF file.

    Args:
        path: the model file.
        use_mmap: map the file instead of reading it.

    Raises:
        InputError: the file is not a model that llama.cpp loads; the sentence says why.
    """

    def __init__(self, path: Path, *, use_mmap: bool = True) -> None:
        self.path = path
        self.header: Header = read_header(path)
        if not self.header.is_model:
            raise InputError(f"{path} holds no model (it is of another kind of GGUF file)")
        start()
        self._model = self._load_model(use_mmap)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._vocab_size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.trained_tokens: int = lib.llama_model_n_ctx_train(self._model)
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
            raise InputError(f"{self.path} cannot be loaded by llama.cpp: {_reason()}")
        return model

    def _make_context(self, params: Any) -> Any:
        params.no_perf = True
        _messages.clear()
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            lib.llama_model_free(self._model)
            raise InputError(f"{self.path}: no context of {params.n_ctx} tokens: {_reason()}")
        return context

    def _logits(self, context: Any, place: int) -> Sequence[float]:
        """The logits after a token of the last batch, `(vocabulary,)` float32, llama.cpp's own."""
        return np.ctypeslib.as_array(
            lib.llama_get_logits_ith(context, place), shape=(self._vocab_size,)
        )

    @property
    def bos_id(self) -> int:
        return self._bos

    @property
    def eos_id(self) -> int:
        return self._eos

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no BOS or EOS is added, special tokens in it are plain text."""
        raw = text.encode("utf-8")
        # No vocabulary has more tokens for a text than the text has bytes, and a space before it.
        ids = (lib.llama_token * (len(raw) + 1))()
        count = lib.llama_tokenize(self._vocab, raw, len(raw), ids, len(ids), False, False)
        if count < 0:
            raise RuntimeError(f"llama_tokenize asks room for {-count} tokens of {len(raw)} bytes")
        return ids[:count]

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


def _reason() -> str:
    return _messages[0] if _messages else "llama.cpp gives no reason"
