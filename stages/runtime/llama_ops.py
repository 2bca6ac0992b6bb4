"""What a Llama's layer does between its matrices, in plain torch.

Shapes: `rows` is sequences × new tokens, sequence by sequence; caches are
`(sequences, KV heads, cache tokens, head width)`. Every sequence of a batch is at one position.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def add_norm(
    residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Adds `delta` to `residual`, in place, and gives its root-mean-square norm times `weight`.

    Args:
        residual: `(rows, hidden)`.
        delta: the same shape, or None to add nothing.
        weight: `(hidden,)`.
        eps: added to the mean square.
    """
    if delta is not None:
        residual += delta
    wide = residual.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * scale).to(residual.dtype) * weight


def silu_product(gate_up: torch.Tensor) -> torch.Tensor:
    """`silu(gate) * up` of `(rows, 2 * width)`, gates first; gives `(rows, width)`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def attend(
    qkv: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    start: torch.Tensor,
) -> torch.Tensor:
    """Rotates queries and keys, writes keys and values to the caches, and attends to the past.

    Args:
        qkv: `(rows, (heads + 2 * KV heads) * width)`: queries, keys, values.
        keys: cache of keys, written at `start` and behind it.
        values: cache of values, likewise.
        cos: `(cache tokens, width)`, float32.
        sin: likewise.
        start: `(1,)`, position of the first new token.

    Returns:
        `(rows, heads * width)`.
    """
    sequences, kv_heads, cache_tokens, width = keys.shape
    tokens = qkv.shape[0] // sequences
    heads = qkv.shape[1] // width - 2 * kv_heads
    positions = start + torch.arange(tokens, device=qkv.device)
    split = qkv.view(sequences, tokens, heads + 2 * kv_heads, width).transpose(1, 2)
    turned = _rotate(split[:, : heads + kv_heads], cos[positions], sin[positions])
    keys.index_copy_(2, positions, turned[:, heads:])
    values.index_copy_(2, positions, split[:, heads + kv_heads :])
    # Queries that share a key head stand in one row, so that no key is repeated.
    group = heads // kv_heads
    queries = turned[:, :heads].reshape(sequences, kv_heads, group * tokens, width)
    seen = torch.arange(cache_tokens, device=qkv.device)[None, :] <= positions[:, None]
    mixed = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=seen.repeat(group, 1)
    )
    return (
        mixed.reshape(sequences, heads, tokens, width)
        .transpose(1, 2)
        .reshape(sequences * tokens, heads * width)
    )


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of `(sequences, heads, tokens, width)`."""
    wide = heads.float()
    one, other = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-other, one), dim=-1) * sin).to(heads.dtype)
