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

    Each dimension, neuron and head becomes several that hold the same; what reads them shares its
    weight out among them at random, so that each copy learns something of its own (Net2Net, Chen,
    Goodfellow, Shlens, 2015). Neurons left over read at random and write nothing yet.

    Args:
        model: the old model.
        shape: widths of the new one: hidden, intermediate, heads, key heads, a head's, vocabulary.

    Raises:
        ValueError: neurons or vocabulary are fewer, or another width is no multiple of the old.
    """
    old = model.config
    group, old_group = (c.num_attention_heads // c.num_key_value_heads for c in (shape, old))
    names = ("hidden_size", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size")
    if (
        any(getattr(shape, name) % getattr(old, name) for name in names[:3])
        or any(getattr(shape, name) < getattr(old, name) for name in names[3:])
        or group % old_group
    ):
        raise ValueError("the new shape must be a whole multiple of the old, or wider, all over")
    widths = {name: getattr(shape, name) for name in (*names, "num_attention_heads")}
    config = LlamaConfig.from_dict(old.to_dict() | widths)
    wide = LlamaForCausalLM(config)
    # What each new dimension, key head, head, value dimension and neuron is a copy of.
    stream = torch.arange(config.hidden_size) % old.hidden_size
    key_heads = torch.arange(config.num_key_value_heads) % old.num_key_value_heads
    heads = (key_heads[:, None] * old_group + torch.arange(group) % old_group).reshape(-1)
    dims = torch.arange(config.head_dim) % old.head_dim
    used = config.intermediate_size // old.intermediate_size * old.intermediate_size
    neurons = torch.arange(used) % old.intermediate_size
    values, mixed = (_rows(copied, dims, old.head_dim) for copied in (key_heads, heads))
    # A rotated pair keeps its frequency; pairs between two of the old ones are new.
    times = config.head_dim // old.head_dim
    half = torch.arange(old.head_dim // 2)
    rotated = torch.cat([half * times, half * times + config.head_dim // 2])
    sharper = times**0.5
    with torch.no_grad():
        wide.model.embed_tokens.weight.zero_()
        wide.model.embed_tokens.weight[: old.vocab_size] = model.model.embed_tokens.weight[
            :, stream
        ]
        # The head is the embedding, and adds up what all copies hold.
        wide.model.norm.weight[:] = (
            model.model.norm.weight[stream] * old.hidden_size / config.hidden_size
        )
        for new, one in zip(wide.model.layers, model.model.layers, strict=True):
            for name in ("input_layernorm", "post_attention_layernorm"):
                getattr(new, name).weight[:] = getattr(one, name).weight[stream]
            attention, before = new.self_attn, one.self_attn
            for layer, weight, copied in (
                (attention.q_proj, before.q_proj.weight * sharper, heads),
                (attention.k_proj, before.k_proj.weight, key_heads),
            ):
                rows = _rows(copied, torch.arange(old.head_dim), old.head_dim)
                places = _rows(torch.arange(len(copied)), rotated, config.head_dim)
                if layer is attention.k_proj:
                    layer.weight.zero_()
                layer.weight[places] = _shared_out(weight[rows], stream)
            attention.v_proj.weight[:] = _shared_out(before.v_proj.weight[values], stream)
            attention.o_proj.weight[:] = _shared_out(before.o_proj.weight[stream], mixed)
            for name in ("gate_proj", "up_proj"):
                weight = getattr(one.mlp, name).weight[neurons]
                getattr(new.mlp, name).weight[:used] = _shared_out(weight, stream)
            new.mlp.down_proj.weight[:, :used] = _shared_out(
                one.mlp.down_proj.weight[stream], neurons
            )
            new.mlp.down_proj.weight[:, used:] = 0
    return wide


def _rows(heads: torch.Tensor, dims: torch.Tensor, head_width: int) -> torch.Tensor:
    """Rows of a projection that hold some dimensions of some heads."""
    return (heads[:, None] * head_width + dims[None, :]).reshape(-1)


def _shared_out(weight: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """A matrix `(out, in)` for an input that has old column `columns[i]` at its place `i`.

    The copies' weights add up to the old one. Their differences are random and as large as their
    equal shares are, so that they round differently too.
    """
    share = (weight.float() / columns.bincount())[:, columns]
    noise = torch.randn_like(share) * share.std()
    sums = noise.new_zeros(weight.shape).index_add_(1, columns, noise)
    return (share + noise - (sums / columns.bincount())[:, columns]).to(weight.dtype)


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
