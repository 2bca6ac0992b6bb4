"""A Llama's forward pass over a static cache, in few kernels, from any linear layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stages.core.errors import InputError, StageFailed
from stages.runtime import llama_ops

Linear = Callable[[torch.Tensor], torch.Tensor]

_MARLIN = ("MarlinLinear", "AwqMarlinLinear")
_MARLIN_TILE = 64
"""Columns of a tile; Marlin's packed columns can be put side by side in whole tiles."""
_FUSION_TOLERANCE = 0.02


@dataclass(frozen=True)
class _Layer:
    norm_in: torch.Tensor
    qkv: Linear
    out: Linear
    norm_mlp: torch.Tensor
    gate_up: Linear
    down: Linear


class Decoder:
    """The forward pass of a transformers `LlamaForCausalLM`, whatever its linear layers are.

    Layers that read the same input become one where they can (plain and Marlin). The weights of
    fused Marlin layers move here: the model itself is of no use afterwards.

    Args:
        model: the model, on the device to run on.
        sequences: sequences of a batch, all at one position.
        cache_tokens: length of the static cache.

    Raises:
        InputError: the model is no Llama, or its layers have what a Llama's do not.
        StageFailed: fused layers do not give what they gave apart.
    """

    def __init__(self, model: Any, sequences: int, cache_tokens: int) -> None:
        config = model.config
        if config.model_type != "llama":
            raise InputError(f"the graph engine runs Llama models, not {config.model_type!r}")
        self.model = model
        self.device = model.device
        self.vocabulary = config.vocab_size
        self._eps = config.rms_norm_eps
        self._embedding = model.get_input_embeddings().weight
        self._head = model.get_output_embeddings()
        self._norm = model.model.norm.weight
        if not hasattr(model, "cartwright_layers"):
            model.cartwright_layers = [_layer(one) for one in model.model.layers]
        self._layers: list[_Layer] = model.cartwright_layers
        width = model.model.layers[0].self_attn.head_dim
        shape = (len(self._layers), sequences, config.num_key_value_heads, cache_tokens, width)
        self._keys = torch.zeros(shape, dtype=self._embedding.dtype, device=self.device)
        self._values = torch.zeros_like(self._keys)
        positions = torch.arange(cache_tokens, device=self.device)[None]
        wide = torch.zeros(1, device=self.device)
        cos, sin = model.model.rotary_emb(wide, positions)
        self._cos, self._sin = cos[0].contiguous(), sin[0].contiguous()

    @torch.inference_mode()
    def forward(self, ids: torch.Tensor, start: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Feeds tokens; what stood in the cache at `start` or later is dropped.

        Args:
            ids: `(sequences, tokens)`; those after the last wanted may be anything.
            start: `(1,)`, position of the first token.
            wanted: `(wanted,)`, places of the tokens whose logits are wanted.

        Returns:
            Logits, `(sequences, wanted, vocabulary)`.
        """
        if ids.is_cuda:
            from stages.runtime import llama_kernels

            ops: Any = llama_kernels
        else:
            ops = llama_ops
        sequences, tokens = ids.shape
        residual = functional.embedding(ids.reshape(-1), self._embedding)
        delta = None
        for layer, keys, values in zip(self._layers, self._keys, self._values, strict=True):
            normed = ops.add_norm(residual, delta, layer.norm_in, self._eps)
            mixed = ops.attend(layer.qkv(normed), keys, values, self._cos, self._sin, start)
            normed = ops.add_norm(residual, layer.out(mixed), layer.norm_mlp, self._eps)
            delta = layer.down(ops.silu_product(layer.gate_up(normed)))
        hidden = ops.add_norm(residual, delta, self._norm, self._eps)
        hidden = hidden.view(sequences, tokens, -1)
        if tokens > 1:
            hidden = hidden.index_select(1, wanted).reshape(sequences * len(wanted), -1)
        logits: torch.Tensor = self._head(hidden.view(-1, hidden.shape[-1]))
        return logits.view(sequences, -1, self.vocabulary)


def _layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        norm_in=layer.input_layernorm.weight,
        qkv=fuse((attention.q_proj, attention.k_proj, attention.v_proj)),
        out=_quick(attention.o_proj),
        norm_mlp=layer.post_attention_layernorm.weight,
        gate_up=fuse((mlp.gate_proj, mlp.up_proj)),
        down=_quick(mlp.down_proj),
    )


@torch.inference_mode()
def fuse(modules: Sequence[nn.Module]) -> Linear:
    """One function for layers that read the same input: their outputs side by side.

    Plain layers share one matrix afterwards, Marlin's too; others are called one after the other.

    Raises:
        InputError: a layer has a bias.
        StageFailed: the fused layer gives something else.
    """
    if any(getattr(module, "bias", None) is not None for module in modules):
        raise InputError("the graph engine runs layers without biases, as a Llama's are")
    if all(type(module) is nn.Linear for module in modules):
        return _fuse_plain(modules)
    if len({type(module) for module in modules}) == 1 and _can_fuse_marlin(modules):
        return _fuse_marlin(modules)

    def one_by_one(hidden: torch.Tensor) -> torch.Tensor:
        return torch.cat([module(hidden) for module in modules], dim=-1)

    return one_by_one


def _fuse_plain(modules: Sequence[Any]) -> Linear:
    weight = torch.cat([module.weight for module in modules])
    parts = weight.split([module.out_features for module in modules])
    for module, part in zip(modules, parts, strict=True):
        module.weight = nn.Parameter(part, requires_grad=False)
    return partial(functional.linear, weight=weight)


def _can_fuse_marlin(modules: Sequence[Any]) -> bool:
    return type(modules[0]).__name__ in _MARLIN and all(
        getattr(module, "_marlin_tile_padding", None) is None
        and module.out_features % _MARLIN_TILE == 0
        and not module.desc_act
        for module in modules
    )


def _fuse_marlin(modules: Sequence[Any]) -> Linear:
    """Packed weights, scales and zero points of a Marlin layer are laid out by tiles of columns."""
    first = modules[0]
    hidden = torch.randn(2, first.in_features, device=first.qweight.device).to(first.scales.dtype)
    apart = torch.cat([module(hidden) for module in modules], dim=-1)
    fused = copy.copy(first)
    fused._parameters, fused._buffers = dict(first._parameters), dict(first._buffers)
    fused.out_features = sum(module.out_features for module in modules)
    for name in ("qweight", "scales", "qzeros"):
        parts = [getattr(module, name) for module in modules]
        if parts[0].numel():
            joined = nn.Parameter(torch.cat([part.data for part in parts], 1), requires_grad=False)
            fused._parameters[name] = joined
            fused._buffers.pop(name, None)
            for part in parts:
                part.data = part.data.new_empty(0)
    together = fused(hidden)
    difference = (together - apart).float().norm() / apart.float().norm()
    if not difference <= _FUSION_TOLERANCE:
        raise StageFailed(
            f"{type(first).__name__}: fused layers differ from the same apart by {difference:.1%}; "
            "this version of the kernel packs its weights otherwise"
        )
    return _quick(fused)


def _quick(module: Any) -> Linear:
    """A layer that few rows, and many, pass by kernels made for them, where there are any."""
    if type(module).__name__ not in _MARLIN:
        return module  # type: ignore[no-any-return]
    from stages.runtime import marlin_gemv

    if not marlin_gemv.fits(module):
        return module  # type: ignore[no-any-return]

    def rows(hidden: torch.Tensor) -> torch.Tensor:
        if len(hidden) <= marlin_gemv.MAX_ROWS:
            return marlin_gemv.gemv(hidden, module.qweight, module.scales)
        if len(hidden) >= marlin_gemv.UNPACK_ROWS:
            matrix = marlin_gemv.unpack(module.qweight, module.scales)
            return functional.linear(hidden, matrix)
        return module(hidden)  # type: ignore[no-any-return]

    return rows
