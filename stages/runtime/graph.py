"""The graph engine: a Llama's passes captured once as CUDA graphs, and replayed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from stages.core.errors import InputError
from stages.runtime.decoder import Decoder
from stages.runtime.hf import encode

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
"""Lengths of the passes that are captured; a pass of another length is filled up."""
_WARM_UP_RUNS = 2


def capture(run: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Captures what `run` launches; what it returns is written anew at each replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_RUNS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool()):
        result = run()
    return graph, result


@functools.cache
def _pool() -> Any:
    """What graphs compute with is let go when they end: all of them share it, one at a time."""
    return torch.cuda.graph_pool_handle()


class GraphEngine:
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
        self._start = torch.zeros(1, dtype=torch.long, device="cuda")
        self._last = torch.zeros(1, dtype=torch.long, device="cuda")
        self._passes = {}
        for length in BUCKETS:
            ids = torch.zeros((1, length), dtype=torch.long, device="cuda")

            def run(ids: torch.Tensor = ids) -> torch.Tensor:
                return decoder.forward(ids, self._start, self._last)[0].float()

            self._passes[length] = (ids, *capture(run))
        self._logits = torch.zeros(decoder.vocabulary, pin_memory=True)

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

    def eval(self, tokens: Sequence[int], n_past: int) -> torch.Tensor:
        """Feeds tokens at `n_past`; returns float32 logits on the CPU, `(vocabulary,)`.

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
        largest = max(self._passes)
        for first in range(0, len(tokens), largest):
            part = list(tokens[first : first + largest])
            ids, graph, logits = self._passes[next(n for n in self._passes if n >= len(part))]
            ids[0, : len(part)] = torch.tensor(part)
            self._start.fill_(n_past + first)
            self._last.fill_(len(part) - 1)
            graph.replay()
        self._logits.copy_(logits)
        return self._logits

    def argmax(self, logits: Sequence[float]) -> int:
        return int(torch.as_tensor(logits).argmax())


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
            keep(decoder.forward(self._prompts, zero, last))

        def step() -> None:
            logits = decoder.forward(token, place + prompt_tokens, zero)
            place.add_(1)
            keep(logits)

        self._read = capture(read)[0]
        place.zero_()
        self._step = capture(step)[0]

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
