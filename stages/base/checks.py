"""What a base model folder must be before any stage loads it. Reads headers, never weights."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.runtime.folders import PICKLE_SUFFIXES, TOKENIZER_FILES

ARCHITECTURE = "LlamaForCausalLM"
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "LICENSE*",
    "USE_POLICY*",
    "model*.safetensors",
    *TOKENIZER_FILES,
)
# Bytes of one value, for the types that weights to be tuned may have.
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_MAX_HEADER_BYTES = 100_000_000
"""Source: the limit of the safetensors format's own reader."""

_DIMENSIONS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


@dataclass(frozen=True)
class Facts:
    """What the checks found out about a model.

    Attributes:
        parameters: number of weights, tied ones counted once.
        dtypes: the weights' types in safetensors' spelling.
    """

    parameters: int
    weights_bytes: int
    dtypes: tuple[str, ...]
    layers: int
    hidden: int
    vocabulary: int


def check(folder: Path) -> Facts:
    """Checks a model folder.

    Raises:
        InputError: it is no folder, has pickle weights or code, is no Llama, has no tokenizer, or
            its weights are missing, truncated or of other shapes than its configuration says.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; the base must be a model folder")
    _refuse_code(folder)
    config = _read_json(folder / "config.json")
    _check_config(folder, config)
    _check_tokenizer(folder, config["vocab_size"])
    tensors = _read_weights(folder)
    _check_shapes(folder, tensors, config)
    return Facts(
        parameters=sum(math.prod(shape) for shape, _ in tensors.values()),
        weights_bytes=sum(math.prod(s) * DTYPE_BYTES[dtype] for s, dtype in tensors.values()),
        dtypes=tuple(sorted({dtype for _, dtype in tensors.values()})),
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        vocabulary=config["vocab_size"],
    )


def _refuse_code(folder: Path) -> None:
    """Refuses what could run when the folder is loaded."""
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLE_SUFFIXES:
            raise InputError(
                f"{path}: pickle weights can run code when they are loaded; "
                "convert them to safetensors and remove this file"
            )
        if path.suffix == ".py":
            raise InputError(f"{path}: a base model may bring no code of its own; remove the file")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in _read_json(folder / name):
            raise InputError(
                f"{folder / name}: has auto_map, so the model runs code of its own; "
                "use a model that transformers knows"
            )


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    path = folder / "config.json"
    if config.get("architectures") != [ARCHITECTURE]:
        raise InputError(
            f"{path}: architectures is {config.get('architectures')!r}; only {ARCHITECTURE} is "
            "built, converted and served here"
        )
    if "quantization_config" in config:
        raise InputError(f"{path}: the model is quantized; give the full-precision weights")
    for name in _DIMENSIONS:
        value = config.get(name)
        if type(value) is not int or value < 1:
            raise InputError(f"{path}: {name} must be a positive whole number, not {value!r}")
    if config["hidden_size"] % config["num_attention_heads"] and "head_dim" not in config:
        raise InputError(f"{path}: num_attention_heads does not divide hidden_size")


def _check_tokenizer(folder: Path, vocabulary: int) -> None:
    present = [name for name in TOKENIZER_FILES[:2] if (folder / name).is_file()]
    if not present:
        raise InputError(
            f"{folder}: has no tokenizer; put tokenizer.json or tokenizer.model beside config.json"
        )
    if not (folder / "tokenizer_config.json").is_file():
        raise InputError(
            f"{folder}: has no tokenizer_config.json, which names the tokenizer's kind"
        )
    if "tokenizer.json" in present:
        path = folder / "tokenizer.json"
        model = _read_json(path).get("model")
        ids = model.get("vocab") if isinstance(model, dict) else None
        if not isinstance(ids, dict) or not ids:
            raise InputError(f"{path}: holds no vocabulary; copy the file again from its source")
        if max(ids.values()) >= vocabulary:
            raise InputError(
                f"{path}: has token ids up to {max(ids.values())}, but the model's vocabulary is "
                f"{vocabulary}; the tokenizer is another model's"
            )


Tensors = dict[str, tuple[tuple[int, ...], str]]
"""Shape and type by tensor name."""


def _read_weights(folder: Path) -> Tensors:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise InputError(f"{folder}: has no model*.safetensors; only safetensors weights are read")
    tensors: Tensors = {}
    for path in files:
        tensors |= read_header(path)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        mapping = _read_json(index).get("weight_map")
        if not isinstance(mapping, dict):
            raise InputError(f"{index}: has no weight_map; copy the file again from its source")
        missing = sorted({str(name) for name in mapping.values()} - {path.name for path in files})
        if missing:
            raise InputError(f"{folder}: {missing[0]} is missing, which {index.name} lists")
    return tensors


def read_header(path: Path) -> Tensors:
    """Shapes and types in a safetensors file.

    Raises:
        InputError: it is not one, is truncated, or a tensor's bytes do not fit its shape.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else _MAX_HEADER_BYTES + 1
        text = stream.read(length) if length <= _MAX_HEADER_BYTES else b""
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {
            name: (tuple(entry["shape"]), entry["dtype"], *entry["data_offsets"])
            for name, entry in header.items()
        }
    except (ValueError, AttributeError, KeyError, TypeError):
        raise InputError(
            f"{path}: is not a safetensors file; copy it again from its source"
        ) from None
    end = max((entry[3] for entry in entries.values()), default=0)
    if 8 + length + end != size_bytes:
        raise InputError(
            f"{path}: has {size_bytes} bytes where its header says {8 + length + end}; "
            "it is truncated or damaged, copy it again from its source"
        )
    for name, (shape, dtype, start, stop) in entries.items():
        if dtype not in DTYPE_BYTES:
            raise InputError(
                f"{path}: {name} is of type {dtype}; weights must be {', '.join(DTYPE_BYTES)}"
            )
        if stop - start != math.prod(shape) * DTYPE_BYTES[dtype]:
            raise InputError(f"{path}: the bytes of {name} do not fit its shape {list(shape)}")
    return {name: (shape, dtype) for name, (shape, dtype, _, _) in entries.items()}


def _check_shapes(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    for name, shape in _expected_shapes(config).items():
        if name not in tensors:
            raise InputError(f"{folder}: the weights lack {name}, which config.json asks for")
        if tensors[name][0] != shape:
            raise InputError(
                f"{folder}: {name} has shape {list(tensors[name][0])} where config.json asks for "
                f"{list(shape)}"
            )


def _expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama and their shapes."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    mlp, vocabulary = config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or hidden // heads
    keys = (config.get("num_key_value_heads") or heads) * head
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}input_layernorm.weight": (hidden,),
            f"{at}post_attention_layernorm.weight": (hidden,),
            f"{at}self_attn.q_proj.weight": (heads * head, hidden),
            f"{at}self_attn.k_proj.weight": (keys, hidden),
            f"{at}self_attn.v_proj.weight": (keys, hidden),
            f"{at}self_attn.o_proj.weight": (hidden, heads * head),
            f"{at}mlp.gate_proj.weight": (mlp, hidden),
            f"{at}mlp.up_proj.weight": (mlp, hidden),
            f"{at}mlp.down_proj.weight": (hidden, mlp),
        }
    return shapes


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent}: has no {path.name}; it is no model folder") from None
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return value
