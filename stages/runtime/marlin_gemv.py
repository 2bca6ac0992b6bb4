"""A 4-bit matrix in Marlin's layout, where Marlin's own kernel is slow: few rows, and many.

Marlin's kernel is made for some sixteen rows. With one, where decoding reads weights and little
else, it takes three times as long as its reading; with thousands, a prompt's, it stays behind a
plain matrix product. The kernels here (`marlin_gemv.cu`) read the same packed weights, so that one
copy serves all.

Marlin keeps 16 × 64 weights as 128 words of eight 4-bit values. Word `16 * c + 4 * a + j` has, for
the inputs `2a`, `2a + 1`, `2a + 8` and `2a + 9`, the columns `16 * j + c` (places 0, 4, 1, 5) and
`16 * j + c + 8` (places 2, 6, 3, 7); scales of 64 columns stand in the order `8 * c + 2 * j`, those
of the second column behind those of the first. Source: vLLM's `gptq_marlin_repack` and
`marlin_permute_scales`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MAX_ROWS = 4
"""Most rows that `gemv` takes."""
UNPACK_ROWS = 512
"""From this many rows on the matrix is unpacked.

Chosen, not measured: at 192 rows Marlin's kernel was taken, at 3,072 unpacking was faster, and
nothing in between was tried.
"""
_SOURCE = Path(__file__).with_suffix(".cu")
_MANY_COLUMNS = 4096
_MANY_INPUTS = 4096
_UNPACK_WARPS = 8


def fits(layer: Any) -> bool:
    """Whether a layer of GPTQModel's is one that the kernel can take."""
    return (
        type(layer).__name__ == "MarlinLinear"
        and layer.bits == 4
        and not layer.desc_act
        and layer.scales.shape[0] > 1
        and layer.in_features % (16 * layer.scales.shape[0]) == 0
        and layer.qweight.shape == (layer.in_features // 16, 2 * layer.out_features)
    )


def gemv(hidden: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Multiplies a few rows by a matrix of symmetric 4-bit weights.

    Args:
        hidden: `(rows, inputs)`, at most `MAX_ROWS` rows, float16 or bfloat16.
        weight: `(inputs / 16, columns * 2)`, int32, as Marlin packs it.
        scales: `(groups, columns)`, as Marlin permutes them, of the same type as `hidden`.

    Returns:
        `(rows, columns)`.
    """
    (rows, inputs), columns = hidden.shape, scales.shape[1]
    parts, warps = _shape(rows, inputs, columns)
    out = hidden.new_empty((rows, columns))
    _kernel("gemv", hidden.dtype, rows, parts, warps)(
        grid=(columns // 64 * parts, 1, 1),
        block=(32 * warps, 1, 1),
        args=[
            hidden.contiguous(), weight, scales, out,
            inputs, columns, inputs // scales.shape[0] // 16,
        ],
    )  # fmt: skip
    return out


def _shape(rows: int, inputs: int, columns: int) -> tuple[int, int]:
    """Blocks that share 64 columns, and warps of a block; the best of those tried on an H100."""
    if columns > _MANY_COLUMNS:
        parts, warps = 1, 16
    elif inputs >= _MANY_INPUTS:
        parts, warps = 4, 32
    else:
        parts, warps = 8, 8
    # More rows take more registers.
    return parts, warps if rows == 1 else warps // 2


def unpack(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The matrix itself, `(columns, inputs)` as `torch.nn.functional.linear` takes it.

    Args:
        weight: as for `gemv`.
        scales: likewise; their type is the result's.
    """
    inputs, columns = weight.shape[0] * 16, scales.shape[1]
    out = scales.new_empty((columns, inputs))
    _kernel("unpack", scales.dtype)(
        grid=(-(-inputs // (16 * _UNPACK_WARPS)), columns // 64, 1),
        block=(32 * _UNPACK_WARPS, 1, 1),
        args=[weight, scales, out, inputs, columns, inputs // scales.shape[0] // 16],
    )
    return out


@functools.cache
def _kernel(
    name: str, dtype: torch.dtype, rows: int = 1, parts: int = 1, warps: int = 1
) -> Callable[..., None]:
    """A kernel of `marlin_gemv.cu`, compiled by the compiler that comes with torch."""
    constants = {"ROWS": rows, "PARTS": parts, "WARPS": warps}
    constants["BFLOAT16"] = int(dtype == torch.bfloat16)
    kernel: Callable[..., None] = torch.cuda._compile_kernel(
        _SOURCE.read_text(encoding="utf-8"),
        name,
        nvcc_options=[f"-D{key}={value}" for key, value in constants.items()],
    )
    return kernel
