"""The graph engine's forward pass, without a GPU: it must give what transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from stages.core.errors import InputError
from stages.runtime.decoder import Decoder, fuse

BASE = Path("stages/base/shipped")
CACHE_TOKENS = 96


def shipped() -> Any:
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()


def scaled() -> Any:
    """A random Llama with what the shipped one lacks: an output head and scaled rotations."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    )
    return LlamaForCausalLM(config).eval()


def position(value: int) -> torch.Tensor:
    return torch.tensor([value])


@pytest.mark.parametrize("load", [shipped, scaled])
def test_every_pass_has_the_logits_of_transformers(load: Any) -> None:
    """A prompt, a filled-up pass and single tokens, for three sequences at once."""
    ids = torch.randint(3, 300, (3, 60), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = load()(ids).logits
    decoder = Decoder(load(), sequences=3, cache_tokens=CACHE_TOKENS)
    got = decoder.forward(ids[:, :40], position(0), torch.tensor([7, 39]))
    torch.testing.assert_close(got, expected[:, [7, 39]], atol=2e-4, rtol=1e-3)
    filled = torch.cat([ids[:, 40:44], torch.full((3, 12), 7)], dim=1)
    got = decoder.forward(filled, position(40), position(3))
    torch.testing.assert_close(got[:, 0], expected[:, 43], atol=2e-4, rtol=1e-3)
    for place in range(44, 60):
        got = decoder.forward(ids[:, place : place + 1], position(place), position(0))
        torch.testing.assert_close(got[:, 0], expected[:, place], atol=2e-4, rtol=1e-3)


def test_what_stood_behind_the_start_is_dropped() -> None:
    ids = torch.randint(3, 300, (1, 30), generator=torch.Generator().manual_seed(2))
    decoder = Decoder(scaled(), sequences=1, cache_tokens=CACHE_TOKENS)
    decoder.forward(ids + 1, position(0), position(29))
    first = decoder.forward(ids, position(0), position(29))
    decoder.forward(ids[:, 20:] + 2, position(20), position(9))
    again = decoder.forward(ids[:, 20:], position(20), position(9))
    torch.testing.assert_close(again, first)


def test_fused_layers_keep_the_model_as_it_was() -> None:
    model = scaled()
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        before = model(ids).logits
        size_bytes = sum(parameter.nbytes for parameter in model.parameters())
        Decoder(model, sequences=1, cache_tokens=CACHE_TOKENS)
        torch.testing.assert_close(model(ids).logits, before)
    attention = model.model.layers[0].self_attn
    shared = attention.q_proj.weight.untyped_storage().data_ptr()
    assert attention.v_proj.weight.untyped_storage().data_ptr() == shared
    assert sum(parameter.nbytes for parameter in model.parameters()) == size_bytes


def test_layers_of_other_kinds_are_called_one_after_the_other() -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(hidden)

    one, other = Doubled(8, 4, bias=False), Doubled(8, 6, bias=False)
    hidden = torch.randn(5, 8)
    joined = fuse((one, other))(hidden)
    torch.testing.assert_close(joined, torch.cat([one(hidden), other(hidden)], dim=-1))


def test_biases_and_other_architectures_are_refused() -> None:
    with pytest.raises(InputError, match="biases"):
        fuse((torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)))
    model = scaled()
    model.config.model_type = "qwen3"
    with pytest.raises(InputError, match="'qwen3'"):
        Decoder(model, sequences=1, cache_tokens=CACHE_TOKENS)
