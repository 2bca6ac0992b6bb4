"""The engine of GGUF models on many sequences: `stages.intent.sequences.Sequences` by llama.cpp.

All sequences are in one unified cache, so that a pass takes any mix of them, and sequences that
begin alike share cells. A pass goes over the used part of the cache for every token, whosever
cells those are: what nobody works on is better kept outside, by `save`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from stages.core.errors import InputError
from stages.intent.sequences import Part, Sequences
from stages.runtime.llama_model import LlamaModel

# llama.cpp rounds the number of cells up to a multiple of this.
_CELLS_STEP = 256
_KEY_AND_VALUE_BYTES = 2 * 2  # both F16
_MIN_KV_BYTES = 128 << 20
_MIN_PASS_LOGITS = 128
# From some 64 tokens on, a CPU takes as long for a token however many are in the pass, and all wait
# for the end of it; see docs/LOG.md, 2026-11-27.
PASS_TOKENS = 128


class LlamaSequences(LlamaModel, Sequences):
    """A GGUF model and a cache for many sequences; one thread at a time, but for the vocabulary.

    Args:
        path: the model file.
        slots: how many sequences there may be at once.
        context_tokens: longest sequence; less if the model was trained on less.
        kv_bytes: bound of all key-value state, saved states included. A quarter is the cache's, but
            never less than one sequence takes, or more than all of them; 0 for eight sequences, and
            at least 128 MiB.
        threads: threads of a pass.
        pass_tokens: most tokens of a pass.

    Attributes:
        context_tokens: longest sequence.
        token_bytes: key-value state of one token.
        kv_bytes: the bound.
        cache_bytes: size of the cache, all of it allocated at once; the rest is for saved states.

    Raises:
        InputError: the file is not a model that llama.cpp loads, or `kv_bytes` does not hold one
            sequence.
    """

    def __init__(
        self,
        path: Path,
        *,
        slots: int,
        context_tokens: int,
        kv_bytes: int = 0,
        threads: int,
        pass_tokens: int = PASS_TOKENS,
    ) -> None:
        # Most weights are laid out anew: a mapped file would stay in memory beside that.
        super().__init__(path, use_mmap=False)
        self.slots, self.pass_tokens = slots, pass_tokens
        self.context_tokens = min(context_tokens, self.trained_tokens)
        self.token_bytes = self._token_bytes()
        least = _round_up(self.context_tokens)
        self.kv_bytes = kv_bytes or max(8 * least * self.token_bytes, _MIN_KV_BYTES)
        if self.kv_bytes < least * self.token_bytes:
            raise InputError(
                f"{kv_bytes:,} bytes of key-value state are too few: one request of "
                f"{self.context_tokens:,} tokens takes {least * self.token_bytes:,}; give more, or "
                "a shorter context"
            )
        most = _round_up(slots * self.context_tokens)
        quarter = self.kv_bytes // 4 // self.token_bytes // _CELLS_STEP * _CELLS_STEP
        self.cells = max(least, min(quarter, most))
        self.cache_bytes = self.cells * self.token_bytes
        # One more to save from.
        self._scratch = slots
        # llama.cpp wants room for the logits of one token a sequence at least.
        self.pass_logits = max(_MIN_PASS_LOGITS, slots + 1)
        params = lib.llama_context_default_params()
        params.n_ctx = self.cells
        params.n_batch = params.n_ubatch = pass_tokens
        params.n_seq_max = slots + 1
        params.n_outputs_max = self.pass_logits
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        self._context = self._make_context(params)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = self._make_batch()

    def _token_bytes(self) -> int:
        heads: int = lib.llama_model_n_head(self._model)
        architecture = self.header.metadata.get("general.architecture", "llama")
        width: int = self.header.metadata.get(
            f"{architecture}.attention.key_length", lib.llama_model_n_embd(self._model) // heads
        )
        layers: int = lib.llama_model_n_layer(self._model)
        heads_kv: int = lib.llama_model_n_head_kv(self._model)
        return layers * heads_kv * width * _KEY_AND_VALUE_BYTES

    def _make_batch(self) -> Any:
        size = self.pass_tokens
        batch = lib.llama_batch_init(size, 0, 1)
        self._tokens = np.ctypeslib.as_array(batch.token, shape=(size,))
        self._positions = np.ctypeslib.as_array(batch.pos, shape=(size,))
        self._wanted = np.ctypeslib.as_array(batch.logits, shape=(size,))
        for index in range(size):
            batch.n_seq_id[index] = 1
        return batch

    def close(self) -> None:
        """Frees the model; the engine is of no use afterwards."""
        lib.llama_batch_free(self._batch)
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    def eval_parts(self, parts: Sequence[Part]) -> list[list[Sequence[float]]]:
        """See `Sequences`; the logits are llama.cpp's own memory, float32.

        Raises:
            RuntimeError: llama.cpp refused the pass: its cells are used up, or it has more tokens
                or logits than it may.
        """
        begins, end = [], 0
        for part in parts:
            lib.llama_memory_seq_rm(self._memory, part.sequence, part.n_past, -1)
            begin, end = end, end + len(part.tokens)
            if end > self.pass_tokens:
                raise RuntimeError(f"a pass takes {self.pass_tokens} tokens and no more")
            self._tokens[begin:end] = part.tokens
            self._positions[begin:end] = range(part.n_past, part.n_past + len(part.tokens))
            self._wanted[begin:end] = 0
            self._wanted[[begin + place for place in part.wanted]] = 1
            for index in range(begin, end):
                self._batch.seq_id[index][0] = part.sequence
            begins.append(begin)
        self._batch.n_tokens = end
        status = lib.llama_decode(self._context, self._batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status} for a pass of {end} tokens")
        return [
            [self._logits(self._context, begin + place) for place in part.wanted]
            for begin, part in zip(begins, parts, strict=True)
        ]

    def copy(self, source: int, target: int, tokens: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, 0, tokens)

    def drop(self, sequence: int) -> None:
        lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def save(self, sequence: int, tokens: int) -> Sized:
        self.copy(sequence, self._scratch, tokens)
        size_bytes = lib.llama_state_seq_get_size(self._context, self._scratch)
        state = (ctypes.c_uint8 * size_bytes)()
        written = lib.llama_state_seq_get_data(self._context, state, size_bytes, self._scratch)
        self.drop(self._scratch)
        if written != size_bytes:
            raise RuntimeError(f"llama.cpp saved {written} of {size_bytes} bytes")
        return state

    def restore(self, sequence: int, state: Sized) -> None:
        read = lib.llama_state_seq_set_data(self._context, state, len(state), sequence)
        if read != len(state):
            raise RuntimeError(f"llama.cpp restored {read} of {len(state)} bytes")


def _round_up(cells: int) -> int:
    return -(-cells // _CELLS_STEP) * _CELLS_STEP
