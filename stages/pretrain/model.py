"""The shipped model's shape, and how it is saved."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from stages.pretrain import tokenizer


def build(vocabulary: int, hidden: int = 256, layers: int = 8) -> LlamaForCausalLM:
    """A Llama with fresh weights; 7.34 M parameters with the 4,096-piece vocabulary.

    Every width is a multiple of 256, the block of llama.cpp's K-quants.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        head_dim=32,
        max_position_embeddings=tokenizer.MAX_POSITIONS,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.BOS,
        eos_token_id=tokenizer.EOS,
        pad_token_id=tokenizer.PAD,
        initializer_range=0.02,
    )
    return LlamaForCausalLM(config)


def load(folder: Path) -> LlamaForCausalLM:
    """The model of a folder in float32, to be trained on."""
    return LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )


def grow(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """A deeper copy that computes the same: each old layer is followed by copies that add nothing.

    The copies' output projections are zero, and with them their share of the residual stream.

    Raises:
        ValueError: the model has more layers already.
    """
    old = model.config.num_hidden_layers
    if layers < old:
        raise ValueError(f"the model has {old} layers: it cannot be grown to {layers}")
    config = LlamaConfig.from_dict(model.config.to_dict() | {"num_hidden_layers": layers})
    grown = LlamaForCausalLM(config)
    grown.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    grown.model.norm.load_state_dict(model.model.norm.state_dict())
    previous = -1
    for index, layer in enumerate(grown.model.layers):
        source = index * old // layers
        layer.load_state_dict(model.model.layers[source].state_dict())
        if source == previous:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
        previous = source
    return grown


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Writes config.json, generation_config.json and bf16 model.safetensors into a folder."""
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.BOS,
        eos_token_id=tokenizer.EOS,
        pad_token_id=tokenizer.PAD,
        do_sample=False,
    )
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
