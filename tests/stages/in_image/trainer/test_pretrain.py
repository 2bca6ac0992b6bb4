"""Pre-training: a model made deeper, and a training that is told when to end."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy
import pytest
import torch
from transformers import LlamaConfig

from stages.pretrain import loop, model
from stages.pretrain.packing import ANSWER

VOCABULARY = 64


def _model(layers: int) -> Any:
    torch.manual_seed(1)
    return model.build(VOCABULARY, hidden=64, layers=layers)


def test_a_grown_model_computes_the_same_and_can_learn_more() -> None:
    small = _model(layers=2)
    large = model.grow(small, layers=5)
    tokens = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(large(tokens).logits, small(tokens).logits)
    large(input_ids=tokens, labels=tokens).loss.backward()
    assert len(large.model.layers) == 5
    assert all(layer.self_attn.o_proj.weight.grad.any() for layer in large.model.layers)
    with pytest.raises(ValueError, match="5 layers"):
        model.grow(large, layers=4)


def test_a_widened_model_computes_the_same_and_all_of_it_can_learn() -> None:
    torch.manual_seed(0)
    small = model.build(VOCABULARY, hidden=128, layers=2)
    shape = LlamaConfig(
        vocab_size=3 * VOCABULARY + 8,
        hidden_size=512,
        intermediate_size=768,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=64,
    )
    large = model.widen(small, shape)
    tokens = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        same = large(tokens).logits[..., :VOCABULARY]
        torch.testing.assert_close(same, small(tokens).logits, atol=1e-4, rtol=1e-4)
    mlp = large.model.layers[0].mlp
    assert not torch.equal(mlp.gate_proj.weight[:, :128], mlp.gate_proj.weight[:, 128:256])
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)
    for _ in range(2):
        large(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    attention, mlp = large.model.layers[0].self_attn, large.model.layers[0].mlp
    for layer in (attention.q_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
        assert layer.weight.grad[-1].any(), "a new head or neuron does not learn"
    for layer in (attention.o_proj, mlp.down_proj):
        assert layer.weight.grad[-1].any(), "a new dimension does not learn"
    with pytest.raises(ValueError, match="all over"):
        model.widen(large, LlamaConfig(**shape.to_dict() | {"vocab_size": 100}))


def test_a_model_is_widened_where_half_precision_is_the_default() -> None:
    torch.manual_seed(0)
    small = model.build(VOCABULARY, hidden=128, layers=1)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=small.config.intermediate_size,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
    )
    tokens = torch.arange(24).reshape(2, 12)
    torch.set_default_dtype(torch.float16)
    try:
        large = model.widen(copy.deepcopy(small).half(), shape).float()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(large(tokens).logits, small(tokens).logits, atol=0.02, rtol=0.02)


def test_training_ends_at_its_limit_and_reports_the_step() -> None:
    ids = numpy.arange(32, dtype=numpy.uint16).reshape(2, 16)
    documents = numpy.ones_like(ids, dtype=numpy.uint8)
    batch = (ids, documents, documents * ANSWER)
    points: list[dict[str, Any]] = []
    for limit_sec in (0.0, None):
        schedule = loop.Schedule(6, 1e-3, 1, 0.1, limit_sec=limit_sec)
        loop.train(_model(2), itertools.repeat(batch), [batch], schedule, 2, points.append)
    assert [point["step"] for point in points] == [2, 2, 4, 6]
