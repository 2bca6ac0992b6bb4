"""The graph engine: a Llama's passes captured once as CUDA graphs, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from stages.core.errors import InputError
from stages.intent.decode import Engine
from stages.runtime.decoder import Decoder
from stages.runtime.hf import encode

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
"""Lengths of the passes that are captured; a pass of another length is filled up."""
_MOST_WANTED = 8
_TOKENS_AT = 1 + _MOST_WANTED
_WARM_UP_RUNS = 2


def capture(run: Callable[[], Any], pool: Any) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Captures what `run` launches; what it returns is written anew at each replay.

    Graphs that share a pool are replayed one at a time: what they compute with lies in one place.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_RUNS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = run()
    return graph, result


def _parts(count: int, wanted: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts tokens into passes that are captured, none with more wanted than a pass gives."""
    first = 0
    while first < count:
        end = min(first + BUCKETS[-1], count)
        here = [place for place in wanted if first <= place < end]
        if len(here) > _MOST_WANTED:
            end = here[_MOST_WANTED]
        yield first, end
        first = end


class GraphEngine(Engine):
    """One sequence, as `stages.intent.decode.Engine` asks for it, each pass a replayed graph.

    Args:
        model: a transformers `LlamaForCausalLM` on a GPU; see `Decoder`.
        tokenizer: the tokenizer of its folder.
        context_tokens: longest prompt with its answer.

    Raises:
        InputError: the model is on no GPU.
    """

    def __init__(self, model: Any, tokenizer: Any, context_tokens: int) -> None:
        if model.device.type != "cuda":
            raise InputError("the graph engine needs a GPU: CUDA graphs are what it is made of")
        self.tokenizer = tokenizer
        self.context_tokens = context_tokens
        # A pass that is filled up may write behind the context.
        decoder = Decoder(model, 1, context_tokens + BUCKETS[-1])
        # What goes in, in one copy: the position, the places wanted, the tokens.
        self._given = torch.zeros(_TOKENS_AT + BUCKETS[-1], dtype=torch.long).pin_memory()
        self._given_array = self._given.numpy()
        self._input = torch.zeros_like(self._given, device="cuda")
        self._logits = torch.zeros((_MOST_WANTED, decoder.vocabulary)).pin_memory()
        start, wanted = self._input[:1], self._input[1:_TOKENS_AT]
        pool = torch.cuda.graph_pool_handle()

        def run(length: int) -> torch.Tensor:
            ids = self._input[None, _TOKENS_AT : _TOKENS_AT + length]
            return decoder.forward(ids, start, wanted[:length])[0].float()

        self._passes = {length: capture(partial(run, length), pool) for length in BUCKETS}

    @property
    def bos_id(self) -> int:
        return int(self.tokenizer.bos_token_id)

    @property
    def eos_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def encode(self, text: str) -> list[int]:
        return encode(self.tokenizer, text)

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
        return text

    def eval_many(
        self, tokens: Sequence[int], n_past: int, wanted: Sequence[int]
    ) -> list[Sequence[float]]:
        """See `Engine`; the logits are float32 arrays.

        Raises:
            ValueError: no token is given.
            InputError: the tokens do not fit into the context.
        """
        if not tokens:
            raise ValueError("eval needs at least one token")
        if n_past + len(tokens) > self.context_tokens:
            raise InputError(
                f"{n_past + len(tokens):,} tokens do not fit into a context of "
                f"{self.context_tokens:,}: shorten the catalog or raise context_tokens"
            )
        found = []
        for first, end in _parts(len(tokens), wanted):
            here = [place - first for place in wanted if first <= place < end]
            given = self._given_array
            given[0] = n_past + first
            given[1:_TOKENS_AT] = 0  # else places of a longer pass would stay
            given[1 : 1 + len(here)] = here
            given[_TOKENS_AT : _TOKENS_AT + end - first] = tokens[first:end]
            length = next(length for length in BUCKETS if length >= end - first)
            graph, logits = self._passes[length]
            self._input.copy_(self._given, non_blocking=True)
            graph.replay()
            kept = self._logits[: len(here)]
            kept.copy_(logits[: len(here)], non_blocking=True)
            torch.cuda.current_stream().synchronize()
            found.append(kept.numpy() if end == len(tokens) else kept.numpy().copy())
        return [row for part in found for row in part]

    def argmax(self, logits: Sequence[float]) -> int:
        return int(np.argmax(logits))


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    """Place of the largest of each row, `(rows, 1)`: in two steps, the first in parallel."""
    rows, width = logits.shape
    part = next(size for size in (256, 128, 64, 32, 1) if width % size == 0)
    largest, place = logits.view(rows, -1, part).max(-1)
    best = largest.argmax(-1, keepdim=True)
    return best * part + place.gather(1, best)


class GraphBatch:
    """Greedy decoding of a batch of equally long prompts, all of it replayed graphs.

    Args:
        model: as for `GraphEngine`.
        sequences: prompts of a batch.
        prompt_tokens: length of each.
        new_tokens: tokens to decode, whatever they are.
    """

    def __init__(self, model: Any, sequences: int, prompt_tokens: int, new_tokens: int) -> None:
        decoder = Decoder(model, sequences, prompt_tokens + new_tokens)
        long = {"dtype": torch.long, "device": "cuda"}
        self.new_tokens = new_tokens
        self._prompts = torch.zeros((sequences, prompt_tokens), **long)
        self._tokens = torch.zeros((sequences, new_tokens), **long)
        token = torch.zeros((sequences, 1), **long)
        place, zero = torch.zeros(1, **long), torch.zeros(1, **long)
        last = torch.full((1,), prompt_tokens - 1, **long)

        def keep(logits: torch.Tensor) -> None:
            token.copy_(_argmax(logits))
            self._tokens.index_copy_(1, place, token)

        def read() -> None:
            place.zero_()
            keep(decoder.forward(self._prompts, zero, last)[:, 0])

        def step() -> None:
            logits = decoder.forward(token, place + prompt_tokens, zero)[:, 0]
            place.add_(1)
            keep(logits)

        # What the graphs read and write has to live as long as they do.
        self._kept = token, place, zero, last
        pool = torch.cuda.graph_pool_handle()
        self._read = capture(read, pool)[0]
        place.zero_()
        self._step = capture(step, pool)[0]

    def read(self, prompts: torch.Tensor) -> None:
        """Takes the prompts, `(sequences, prompt tokens)`, and finds each one's first new token."""
        self._prompts.copy_(prompts)
        self._read.replay()

    def step(self) -> None:
        """Finds the next token of each sequence; at most `new_tokens - 1` times after `read`."""
        self._step.replay()

    def tokens(self) -> torch.Tensor:
        """What was found, `(sequences, new tokens)`, on the CPU."""
        return self._tokens.cpu()
