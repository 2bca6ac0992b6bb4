"""One row times a 4-bit matrix in Marlin's layout: a Triton kernel for decoding a single sequence.

Marlin's own kernel is made for sixteen rows and more; with one, its set-up takes longer than its
reading. This one reads the same packed weights, so that both can be used on one copy.

Marlin keeps 16 × 64 weights as 128 words of eight 4-bit values. Word `16 * c + 4 * a + j` has, for
the inputs `2a, 2a + 1, 2a + 8, 2a + 9`, the columns `16 * j + c` and `16 * j + c + 8`, in the
order below; scales of 64 columns stand in the order `8 * c + 2 * j`. Source: the repacking kernel
of vLLM's `gptq_marlin_repack` and `marlin_permute_scales`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_CONFIGS = [
    triton.Config({"TILES": tiles, "PARTS": parts}, num_warps=warps)
    for tiles, parts, warps in (
        (128, 1, 4),
        (64, 2, 4),
        (64, 2, 8),
        (128, 2, 8),
        (32, 4, 4),
        (64, 4, 8),
        (32, 2, 2),
        (32, 8, 8),
    )
]


@triton.jit
def _weight(words, place: tl.constexpr):
    """The 4-bit values at a place of some words, less eight, as float32.

    Put into a float's mantissa, they need no conversion.
    """
    bits = ((words >> (4 * place)) & 0xF) | 0x4B000000
    return bits.to(tl.float32, bitcast=True) - 8388616.0


@triton.autotune(configs=_CONFIGS, key=["inputs", "columns"])
@triton.jit
def _gemv_kernel(
    hidden,
    weight,
    scales,
    out,
    inputs,
    columns,
    group_tiles,
    TILES: tl.constexpr,
    PARTS: tl.constexpr,
):
    program = tl.program_id(0)
    tile = program // (8 // PARTS)
    first = (program % (8 // PARTS)) * PARTS
    word = tl.arange(0, 16 * PARTS)
    pair = 2 * ((word // 4) % 4)
    scale_at = tile * 64 + 8 * (first + word // 16) + 2 * (word % 4)
    word_at = tile * 128 + 16 * first + word
    one = tl.zeros((TILES, 16 * PARTS), tl.float32)
    other = tl.zeros((TILES, 16 * PARTS), tl.float32)
    tiles = inputs // 16
    for begin in range(0, tiles, TILES):
        row = (begin + tl.arange(0, TILES))[:, None]
        inside = row < tiles
        words = tl.load(weight + row * columns * 2 + word_at[None, :], mask=inside, other=0)
        at = hidden + row * 16 + pair[None, :]
        x0 = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        x1 = tl.load(at + 1, mask=inside, other=0.0).to(tl.float32)
        x2 = tl.load(at + 8, mask=inside, other=0.0).to(tl.float32)
        x3 = tl.load(at + 9, mask=inside, other=0.0).to(tl.float32)
        scale = scales + (row // group_tiles) * columns + scale_at[None, :]
        part = _weight(words, 0) * x0 + _weight(words, 4) * x1
        part += _weight(words, 1) * x2 + _weight(words, 5) * x3
        one += part * tl.load(scale, mask=inside, other=0.0).to(tl.float32)
        part = _weight(words, 2) * x0 + _weight(words, 6) * x1
        part += _weight(words, 3) * x2 + _weight(words, 7) * x3
        other += part * tl.load(scale + 1, mask=inside, other=0.0).to(tl.float32)
    part = tl.arange(0, PARTS)[:, None]
    column = tile * 64 + first + part + 16 * tl.arange(0, 4)[None, :]
    kind = out.dtype.element_ty
    one = tl.sum(tl.reshape(tl.sum(one, axis=0), (PARTS, 4, 4)), axis=1)
    other = tl.sum(tl.reshape(tl.sum(other, axis=0), (PARTS, 4, 4)), axis=1)
    tl.store(out + column, one.to(kind))
    tl.store(out + column + 8, other.to(kind))


def gemv(hidden: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Multiplies one row by a matrix of symmetric 4-bit weights.

    Args:
        hidden: `(1, inputs)`, float16 or bfloat16.
        weight: `(inputs / 16, columns * 2)`, int32, as Marlin packs it.
        scales: `(groups, columns)`, as Marlin permutes them; two groups or more.

    Returns:
        `(1, columns)`.
    """
    inputs, columns = hidden.shape[1], scales.shape[1]
    out = hidden.new_empty((1, columns))
    _gemv_kernel[lambda config: (columns // 64 * (8 // config["PARTS"]),)](
        hidden, weight, scales, out, inputs, columns, inputs // scales.shape[0] // 16
    )
    return out
