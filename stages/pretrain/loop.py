"""The training loop: AdamW, warm-up and cosine, packed rows that do not see each other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask
from transformers import LlamaForCausalLM

from stages.pretrain.packing import ANSWER, PROMPT

Batch = tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]


@dataclass(frozen=True)
class Schedule:
    """How the model is trained.

    Attributes:
        prompt_weight: what a prompt token's loss counts against an answer token's.
        limit_sec: training stops at the first report after so much time, wherever the rate stands.
        decay: weight decay of matrices; norms have none.
    """

    steps: int
    learning_rate: float
    warmup_steps: int
    prompt_weight: float
    limit_sec: float | None = None
    decay: float = 0.1
    clip_norm: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then cosine to a hundredth."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def train(
    model: LlamaForCausalLM,
    batches: Iterator[Batch],
    held_out: list[Batch],
    schedule: Schedule,
    report_every: int,
    progress: Callable[[dict[str, Any]], None],
) -> None:
    """Trains a model in place.

    Args:
        model: float32 weights, on the device to train on.
        batches: endless batches of tokens, documents and targets, `(B, T)` each.
        held_out: batches for the evaluation loss.
        schedule: steps and rates.
        report_every: steps between two reports.
        progress: gets the step, tokens seen, losses, rate and speed of each report.
    """
    device = model.device
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": schedule.decay}, {"params": vectors}],
        lr=schedule.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=device.type == "cuda",
    )
    on_gpu = device.type == "cuda"
    compute = torch.compile(batch_loss, dynamic=False) if on_gpu else batch_loss
    started_sec, tokens_seen = time.monotonic(), 0
    window = torch.zeros((), device=device)
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        batch = next(batches)
        tokens_seen += int((batch[1] > 0).sum())
        with autocast(device):
            loss = compute(model, *on_device(batch, schedule.prompt_weight, device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        window += loss.detach()
        if (step + 1) % report_every == 0 or step + 1 == schedule.steps:
            count = (step % report_every) + 1
            elapsed_sec = time.monotonic() - started_sec
            progress(
                {
                    "step": step + 1,
                    "tokens": tokens_seen,
                    "loss": round(window.item() / count, 5),
                    "held_out_loss": round(held_out_loss(model, held_out, compute), 5),
                    "learning_rate": schedule.rate(step),
                    "elapsed_sec": round(elapsed_sec, 2),
                    "tokens_per_sec": round(tokens_seen / elapsed_sec),
                }
            )
            window.zero_()
            if schedule.limit_sec is not None and elapsed_sec > schedule.limit_sec:
                break


def autocast(device: torch.device) -> Any:
    """bf16 arithmetic on a GPU; on a CPU float32, which is faster there."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def on_device(
    batch: Batch, prompt_weight: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Any]:
    """Token ids, their successors, the weights of the successors `(B, T)`, and the mask."""
    tokens, documents, targets = (
        torch.from_numpy(array.astype(numpy.int64)).to(device, non_blocking=True) for array in batch
    )
    weights = (targets == ANSWER) + prompt_weight * (targets == PROMPT)
    return tokens, tokens.roll(-1, dims=1), weights, row_mask(documents)


def row_mask(documents: torch.Tensor) -> Any:
    """The mask by which a token sees the earlier tokens of its own row, `(B, 1, T, T)`."""
    width = documents.shape[1]

    def sees(b: torch.Tensor, _h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (q >= k) & (documents[b, q] == documents[b, k])

    if documents.is_cuda:
        return _block_mask(sees, len(documents), None, width, width, device=documents.device)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    return (causal & (documents[:, :, None] == documents[:, None, :]))[:, None]


_block_mask = torch.compile(create_block_mask, dynamic=False)


def batch_loss(
    model: LlamaForCausalLM,
    tokens: torch.Tensor,
    successors: torch.Tensor,
    weights: torch.Tensor,
    mask: Any,
) -> torch.Tensor:
    """Weighted mean cross-entropy of a batch."""
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), successors.flatten(), reduction="none"
    )
    return (losses * weights.flatten()).sum() / weights.sum()


def held_out_loss(
    model: LlamaForCausalLM, batches: list[Batch], compute: Callable[..., torch.Tensor]
) -> float:
    """Mean loss of the answers alone over held-out batches.

    Gradients stay enabled, though none is computed: without them the model is compiled once more.
    """
    total = 0.0
    with autocast(model.device):
        for batch in batches:
            total += compute(model, *on_device(batch, 0.0, model.device)).item()
    return total / len(batches)
