"""What a Llama's layer does between its matrices, each a single Triton kernel.

The same functions in plain torch are in `stages.runtime.llama_ops`, for a CPU and for the tests
that hold these against them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_WARPS = 4
_BLOCK = 128
# Rows of queries and keys that are multiplied at a time where there are many queries.
_QUERY_ROWS = 64
_KEYS = 64


@triton.jit
def _add_norm_kernel(
    residual,
    delta,
    weight,
    out,
    width,
    eps,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    at = row * width + columns
    value = tl.load(residual + at, mask=inside, other=0.0)
    if ADD:
        value += tl.load(delta + at, mask=inside, other=0.0)
        tl.store(residual + at, value, mask=inside)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / width + eps)
    normed = (wide * scale).to(value.dtype) * tl.load(weight + columns, mask=inside, other=0.0)
    tl.store(out + at, normed, mask=inside)


def add_norm(
    residual: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """See `llama_ops.add_norm`."""
    rows, width = residual.shape
    out = torch.empty_like(residual)
    block = triton.next_power_of_2(width)
    _add_norm_kernel[(rows,)](
        residual,
        residual if delta is None else delta,
        weight,
        out,
        width,
        eps,
        ADD=delta is not None,
        BLOCK=block,
        num_warps=min(16, max(1, block // 256)),
    )
    return out


@triton.jit
def _silu_product_kernel(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up + row * 2 * width + columns, mask=inside, other=0.0)
    up = tl.load(gate_up + (row * 2 + 1) * width + columns, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    activated = (wide * tl.sigmoid(wide)).to(gate.dtype)
    tl.store(out + row * width + columns, activated * up, mask=inside)


def silu_product(gate_up: torch.Tensor) -> torch.Tensor:
    """See `llama_ops.silu_product`."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty((rows, width))
    block = 1024
    grid = (rows, triton.cdiv(width, block))
    _silu_product_kernel[grid](gate_up, out, width, BLOCK=block, num_warps=_WARPS)
    return out


@triton.jit
def _attend_one_kernel(
    qkv, keys, values, cos, sin, start, out, scale, cache_tokens,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row, kv_head = tl.program_id(0), tl.program_id(1)
    position = tl.load(start).to(tl.int32)
    dims = tl.arange(0, WIDTH)
    other = (dims + WIDTH // 2) % WIDTH
    sign = tl.where(dims < WIDTH // 2, -1.0, 1.0)
    cosine = tl.load(cos + position * WIDTH + dims)
    sine = tl.load(sin + position * WIDTH + dims) * sign
    here = qkv + row * (HEADS + 2 * KV_HEADS) * WIDTH
    # A matrix product needs sixteen rows; those beyond the group are zero and thrown away.
    heads = tl.arange(0, 16)
    mine = heads < GROUP
    head_at = (kv_head * GROUP + heads)[:, None] * WIDTH
    query = tl.load(here + head_at + dims[None, :], mask=mine[:, None], other=0.0)
    turned = tl.load(here + head_at + other[None, :], mask=mine[:, None], other=0.0)
    kind = query.dtype
    rotated = query.to(tl.float32) * cosine[None, :] + turned.to(tl.float32) * sine[None, :]
    query = rotated.to(kind)
    key_at = here + (HEADS + kv_head) * WIDTH
    key = tl.load(key_at + dims).to(tl.float32) * cosine
    key = (key + tl.load(key_at + other).to(tl.float32) * sine).to(kind)
    value = tl.load(here + (HEADS + KV_HEADS + kv_head) * WIDTH + dims)
    cache_at = ((row * KV_HEADS + kv_head) * cache_tokens) * WIDTH
    tl.store(keys + cache_at + position * WIDTH + dims, key)
    tl.store(values + cache_at + position * WIDTH + dims, value)

    # The new token itself begins the running softmax: it is not read back from the cache.
    largest = tl.sum(query.to(tl.float32) * key.to(tl.float32)[None, :], axis=1) * scale
    total = tl.full((16,), 1.0, tl.float32)
    mixed = tl.zeros((16, WIDTH), tl.float32) + value.to(tl.float32)[None, :]
    for first in range(0, position, BLOCK):
        tokens = first + tl.arange(0, BLOCK)
        seen = tokens < position
        token_at = cache_at + tokens[:, None] * WIDTH + dims[None, :]
        block_keys = tl.load(keys + token_at, mask=seen[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(block_keys)) * scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        top = tl.maximum(largest, tl.max(scores, axis=1))
        shrink = tl.exp(largest - top)
        weights = tl.exp(scores - top[:, None])
        block_values = tl.load(values + token_at, mask=seen[:, None], other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(kind), block_values)
        total = total * shrink + tl.sum(weights, axis=1)
        largest = top
    out_at = row * HEADS * WIDTH + head_at + dims[None, :]
    tl.store(out + out_at, (mixed / total[:, None]).to(kind), mask=mine[:, None])


def _attend_one(
    qkv: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    start: torch.Tensor,
) -> torch.Tensor:
    """`attend` for one new token a sequence: rotation, cache and attention at once."""
    rows, kv_heads, cache_tokens, width = keys.shape
    heads = qkv.shape[1] // width - 2 * kv_heads
    out = qkv.new_empty((rows, heads * width))
    _attend_one_kernel[(rows, kv_heads)](
        qkv, keys, values, cos, sin, start, out, width**-0.5, cache_tokens,
        HEADS=heads, KV_HEADS=kv_heads, GROUP=heads // kv_heads, WIDTH=width, BLOCK=_BLOCK,
        num_warps=_WARPS,
    )  # fmt: skip
    return out


@triton.jit
def _keep_kernel(
    qkv, keys, values, cos, sin, start, tokens, cache_tokens,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row, kv_head = tl.program_id(0), tl.program_id(1)
    position = tl.load(start).to(tl.int32) + row % tokens
    dims = tl.arange(0, WIDTH)
    other = (dims + WIDTH // 2) % WIDTH
    sign = tl.where(dims < WIDTH // 2, -1.0, 1.0)
    cosine = tl.load(cos + position * WIDTH + dims)
    sine = tl.load(sin + position * WIDTH + dims) * sign
    here = qkv + row * (HEADS + 2 * KV_HEADS) * WIDTH
    key_at = here + (HEADS + kv_head) * WIDTH
    key = tl.load(key_at + dims)
    rotated = key.to(tl.float32) * cosine + tl.load(key_at + other).to(tl.float32) * sine
    value = tl.load(here + (HEADS + KV_HEADS + kv_head) * WIDTH + dims)
    at = (((row // tokens) * KV_HEADS + kv_head) * cache_tokens + position) * WIDTH + dims
    tl.store(keys + at, rotated.to(key.dtype))
    tl.store(values + at, value)


@triton.jit
def _attend_kernel(
    qkv, keys, values, cos, sin, start, out, scale, tokens, cache_tokens,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block, kv_head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    begin = tl.load(start).to(tl.int32)
    # Heads that share keys stand in one block, token by token.
    rows = block * ROWS + tl.arange(0, ROWS)
    token, head = rows // GROUP, kv_head * GROUP + rows % GROUP
    inside = (token < tokens)[:, None]
    position = begin + token
    dims = tl.arange(0, WIDTH)
    other = (dims + WIDTH // 2) % WIDTH
    sign = tl.where(dims < WIDTH // 2, -1.0, 1.0)
    turn = position[:, None] * WIDTH + dims[None, :]
    cosine = tl.load(cos + turn, mask=inside, other=0.0)
    sine = tl.load(sin + turn, mask=inside, other=0.0) * sign[None, :]
    row = sequence * tokens + token
    here = qkv + (row * (HEADS + 2 * KV_HEADS) + head)[:, None] * WIDTH
    query = tl.load(here + dims[None, :], mask=inside, other=0.0)
    turned = tl.load(here + other[None, :], mask=inside, other=0.0)
    kind = query.dtype
    query = (query.to(tl.float32) * cosine + turned.to(tl.float32) * sine).to(kind)
    cache_at = ((sequence * KV_HEADS + kv_head) * cache_tokens) * WIDTH
    end = begin + tl.minimum((block * ROWS + ROWS - 1) // GROUP + 1, tokens)

    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, WIDTH), tl.float32)
    for first in range(0, end, BLOCK):
        past = first + tl.arange(0, BLOCK)
        there = (past < end)[:, None]
        at = cache_at + past[:, None] * WIDTH + dims[None, :]
        block_keys = tl.load(keys + at, mask=there, other=0.0)
        scores = tl.dot(query, tl.trans(block_keys), input_precision="ieee") * scale
        scores = tl.where(past[None, :] <= position[:, None], scores, float("-inf"))
        top = tl.maximum(largest, tl.max(scores, axis=1))
        shrink = tl.exp(largest - top)
        weights = tl.exp(scores - top[:, None])
        block_values = tl.load(values + at, mask=there, other=0.0)
        mixed *= shrink[:, None]
        mixed += tl.dot(weights.to(kind), block_values, input_precision="ieee")
        total = total * shrink + tl.sum(weights, axis=1)
        largest = top
    out_at = (row * HEADS + head)[:, None] * WIDTH + dims[None, :]
    tl.store(out + out_at, (mixed / total[:, None]).to(kind), mask=inside)


def attend(
    qkv: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    start: torch.Tensor,
) -> torch.Tensor:
    """See `llama_ops.attend`; the time it takes goes by the tokens there are, not by the cache."""
    sequences, kv_heads, cache_tokens, width = keys.shape
    tokens = qkv.shape[0] // sequences
    heads = qkv.shape[1] // width - 2 * kv_heads
    if tokens == 1:
        return _attend_one(qkv, keys, values, cos, sin, start)
    group = heads // kv_heads
    shape = {"HEADS": heads, "KV_HEADS": kv_heads, "WIDTH": width, "num_warps": _WARPS}
    _keep_kernel[(qkv.shape[0], kv_heads)](
        qkv, keys, values, cos, sin, start, tokens, cache_tokens, **shape
    )
    out = qkv.new_empty((qkv.shape[0], heads * width))
    _attend_kernel[(triton.cdiv(group * tokens, _QUERY_ROWS), kv_heads, sequences)](
        qkv, keys, values, cos, sin, start, out, width**-0.5, tokens, cache_tokens,
        GROUP=group, ROWS=_QUERY_ROWS, BLOCK=_KEYS, **shape,
    )  # fmt: skip
    return out
