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


def llama_1b() -> LlamaConfig:
    """Widths of Llama 3.2 1B: 1.24 B parameters with its 16 layers."""
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
    )


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


def widen(model: LlamaForCausalLM, shape: LlamaConfig) -> LlamaForCausalLM:
    """A wider copy with as many layers that computes the same, but for the order of additions.

    The old model lives in the first dimensions of the new one. What the new ones read is random,
    what they write is zero, so that they can learn.

    Args:
        model: the old model.
        shape: widths of the new one: hidden, intermediate, heads, key heads, a head's, vocabulary.

    Raises:
        ValueError: a width of the shape is smaller, or heads are not a multiple as wide.
    """
    old = model.config
    names = ("hidden_size", "intermediate_size", "num_key_value_heads", "head_dim", "vocab_size")
    group, old_group = (c.num_attention_heads // c.num_key_value_heads for c in (shape, old))
    if (
        any(getattr(shape, name) < getattr(old, name) for name in names)
        or group < old_group
        or shape.head_dim % old.head_dim
    ):
        raise ValueError("the new shape must be wider all over, its heads by a whole multiple")
    widths = {name: getattr(shape, name) for name in (*names, "num_attention_heads")}
    share = old.hidden_size / shape.hidden_size
    config = LlamaConfig.from_dict(
        old.to_dict() | widths | {"rms_norm_eps": old.rms_norm_eps * share}
    )
    wide = LlamaForCausalLM(config)
    times = config.head_dim // old.head_dim
    half = torch.arange(old.head_dim // 2)
    # A rotated pair keeps its frequency.
    rotated = torch.cat([half * times, half * times + config.head_dim // 2])
    heads = torch.arange(old.num_attention_heads)
    places = heads // old_group * group + heads % old_group
    queries = _rows(places, rotated, config.head_dim)
    keys = _rows(torch.arange(old.num_key_value_heads), rotated, config.head_dim)
    values = _rows(
        torch.arange(old.num_key_value_heads), torch.arange(old.head_dim), config.head_dim
    )
    mixed = _rows(places, torch.arange(old.head_dim), config.head_dim)
    stream, neurons = torch.arange(old.hidden_size), torch.arange(old.intermediate_size)
    # A norm's mean is over more dimensions now, and most are zero.
    norm = share**0.5
    with torch.no_grad():
        wide.model.embed_tokens.weight.zero_()
        wide.model.embed_tokens.weight[: old.vocab_size, stream] = model.model.embed_tokens.weight
        wide.model.norm.weight[stream] = model.model.norm.weight * norm
        wide.model.norm.weight[old.hidden_size :] = norm
        for new, one in zip(wide.model.layers, model.model.layers, strict=True):
            for name in ("input_layernorm", "post_attention_layernorm"):
                getattr(new, name).weight.fill_(norm)
                getattr(new, name).weight[stream] = getattr(one, name).weight * norm
            attention, before = new.self_attn, one.self_attn
            sharper = (config.head_dim / old.head_dim) ** 0.5
            attention.k_proj.weight[_all_of(keys, config.head_dim)] = 0
            _put(attention.q_proj, before.q_proj.weight * sharper, queries, stream)
            _put(attention.k_proj, before.k_proj.weight, keys, stream)
            _put(attention.v_proj, before.v_proj.weight, values, stream)
            _put(new.mlp.gate_proj, one.mlp.gate_proj.weight, neurons, stream)
            _put(new.mlp.up_proj, one.mlp.up_proj.weight, neurons, stream)
            for layer, weight, columns in (
                (attention.o_proj, before.o_proj.weight, mixed),
                (new.mlp.down_proj, one.mlp.down_proj.weight, neurons),
            ):
                layer.weight.zero_()
                _put(layer, weight, stream, columns)
    return wide


def _rows(heads: torch.Tensor, dims: torch.Tensor, head_width: int) -> torch.Tensor:
    """Rows of a projection that hold some dimensions of some heads."""
    return (heads[:, None] * head_width + dims[None, :]).reshape(-1)


def _all_of(rows: torch.Tensor, head_width: int) -> torch.Tensor:
    """All rows of the heads that some rows belong to."""
    heads = torch.unique(rows // head_width)
    return _rows(heads, torch.arange(head_width), head_width)


def _put(
    layer: torch.nn.Linear, weight: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> None:
    layer.weight[rows[:, None], columns[None, :]] = weight


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
