"""The graph engine on CUDA: its kernels, its passes and its answers, held against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.data.generate import generate
from stages.intent import rules
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.trie import AnswerTrie

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")

BASE = Path("stages/base/shipped")


def test_each_kernel_gives_what_plain_torch_gives() -> None:
    from stages.runtime import llama_kernels, llama_ops

    torch.manual_seed(0)
    for rows, width in ((1, 2048), (3, 256), (64, 2048)):
        residual, delta = torch.randn(2, rows, width, device="cuda", dtype=torch.float16)
        weight = torch.rand(width, device="cuda", dtype=torch.float16)
        for given in (None, delta):
            one, other = residual.clone(), residual.clone()
            got = llama_kernels.add_norm(one, given, weight, 1e-5)
            torch.testing.assert_close(got, llama_ops.add_norm(other, given, weight, 1e-5))
            torch.testing.assert_close(one, other)
        both = torch.randn(rows, 2 * width, device="cuda", dtype=torch.float16)
        torch.testing.assert_close(
            llama_kernels.silu_product(both), llama_ops.silu_product(both), atol=2e-3, rtol=2e-3
        )


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(32, 8, 64), (8, 4, 32), (4, 4, 128)])
@pytest.mark.parametrize(
    ("position", "tokens"),
    [(0, 1), (1, 1), (63, 1), (64, 1), (200, 1), (0, 2), (0, 100), (1, 16), (130, 40), (3, 250)],
)
def test_attention_to_the_past(
    heads: int, kv_heads: int, width: int, position: int, tokens: int
) -> None:
    from stages.runtime import llama_kernels, llama_ops

    torch.manual_seed(position)
    half = {"device": "cuda", "dtype": torch.float16}
    qkv = torch.randn(3 * tokens, (heads + 2 * kv_heads) * width, **half)
    cos, sin = torch.rand(2, 256, width, device="cuda")
    keys, values = torch.randn(2, 3, kv_heads, 256, width, **half)
    own_keys, own_values = keys.clone(), values.clone()
    start = torch.tensor([position], device="cuda")
    got = llama_kernels.attend(qkv, own_keys, own_values, cos, sin, start)
    expected = llama_ops.attend(qkv, keys, values, cos, sin, start)
    torch.testing.assert_close(got, expected, atol=4e-3, rtol=4e-3)
    torch.testing.assert_close(own_keys, keys, atol=4e-3, rtol=4e-3)
    torch.testing.assert_close(own_values, values)


def marlin_packed(values: Any, scales: Any) -> tuple[Any, Any]:
    """4-bit values `(inputs, columns)` and scales `(groups, columns)` as Marlin keeps them."""
    inputs, columns = values.shape
    places = []
    for lane in range(32):
        own = [
            16 * row + lane // 4 + 8 * block
            for block in (0, 1)
            for row in (2 * (lane % 4) + step for step in (0, 1, 8, 9))
        ]
        for quarter in range(4):
            places += [256 * quarter + own[i] for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    tiles = values.reshape(inputs // 16, 16, columns // 16, 16).permute(0, 2, 1, 3)
    tiles = tiles.reshape(inputs // 16, columns // 64, 1024)[:, :, torch.tensor(places)]
    eight = tiles.reshape(inputs // 16, columns * 2, 8).long()
    packed = sum(eight[:, :, i] << (4 * i) for i in range(8))
    packed = torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)
    order = torch.tensor([i + 8 * j for i in range(8) for j in range(8)])
    return packed, scales.reshape(-1, columns // 64, 64)[:, :, order].reshape(scales.shape)


SHAPES = [(2048, 3072, 128), (8192, 2048, 128), (256, 512, 64), (2048, 16_384, 32), (768, 256, 64)]


@pytest.mark.parametrize(("inputs", "columns", "group"), SHAPES)
def test_rows_times_a_packed_matrix(inputs: int, columns: int, group: int) -> None:
    from stages.runtime.marlin_gemv import MAX_ROWS, gemv, unpack

    torch.manual_seed(inputs)
    values = torch.randint(0, 16, (inputs, columns))
    scales = torch.rand(inputs // group, columns) / 50
    packed, ordered = (part.cuda() for part in marlin_packed(values, scales))
    for dtype in (torch.bfloat16, torch.float16):
        kept = ordered.to(dtype)
        wide = scales.to(dtype).float().repeat_interleave(group, 0)
        weight = ((values - 8) * wide).cuda()
        for rows in range(1, MAX_ROWS + 1):
            hidden = torch.randn(rows, inputs, device="cuda", dtype=dtype)
            got = gemv(hidden, packed, kept).float()
            expected = hidden.float() @ weight
            assert (got - expected).norm() / expected.norm() < 0.01
        assert torch.equal(unpack(packed, kept), weight.T.to(dtype))


def test_a_batch_finds_the_tokens_of_transformers() -> None:
    from stages.runtime.graph import GraphBatch
    from stages.runtime.hf import HFEngine

    engine = HFEngine.load(BASE, dtype="float32", device="cuda")
    prompts = [prompt_tokens(engine, row.catalog, row.message) for row in generate(3, "train", 40)]
    prompts = [one[:1] + one[-59:] for one in prompts if len(one) >= 60][:4]
    ids = torch.tensor(prompts, device="cuda")
    expected = engine.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, min_new_tokens=24,
        do_sample=False, pad_token_id=engine.eos_id,
    )[:, ids.shape[1] :].cpu()  # fmt: skip
    batch = GraphBatch(engine.model, *ids.shape, 24)
    for _ in range(2):
        batch.read(ids)
        for _ in range(23):
            batch.step()
        # A token whose logit hangs by a hair may differ, and then all behind it.
        assert (batch.tokens() == expected).float().mean() >= 0.9


def test_answers_over_the_trie_are_those_of_the_cpu() -> None:
    from stages.runtime.graph import GraphEngine
    from stages.runtime.hf import HFEngine

    cpu = HFEngine.load(BASE, dtype="float32", device="cpu")
    gpu = HFEngine.load(BASE, dtype="float32", device="cuda")
    graph = GraphEngine(gpu.model, gpu.tokenizer, context_tokens=1024)
    rows = list(generate(5, "validation", 100))
    found = []
    for engine in (cpu, graph):
        found.append(
            [
                constrained(
                    engine,
                    AnswerTrie(engine.encode, row.catalog),
                    prompt_tokens(engine, row.catalog, row.message),
                    rules.guess(row.message),
                )
                for row in rows
            ]
        )
    same = sum(one.answer == other.answer for one, other in zip(*found, strict=True))
    assert same >= len(rows) - 1
    passes = [sum(one.passes for one in side) for side in found]
    assert abs(passes[0] - passes[1]) <= 4
