"""A small random Llama with the shipped tokenizer, as the train stage leaves a model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stages.intent.rows import Row, write_rows

TOKENIZER = Path("stages/base/shipped")


def write_model(folder: Path, **changed: Any) -> None:
    """Writes the model; `changed` are values of its configuration."""
    usual: dict[str, Any] = {
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**usual | changed)).save_pretrained(folder)
    for file in TOKENIZER.glob("*token*"):
        shutil.copy(file, folder)


def write_inputs(folder: Path, rows: Mapping[str, Iterable[Row]]) -> dict[str, Path]:
    """A train artifact's `merged/`, and a data folder with one file a split."""
    inputs = {"model": folder / "model", "data": folder / "data"}
    write_model(inputs["model"] / "merged")
    write_data(inputs["data"], rows)
    return inputs


def write_data(folder: Path, rows: Mapping[str, Iterable[Row]]) -> Path:
    """A data folder with one file a split."""
    folder.mkdir()
    for split, some in rows.items():
        write_rows(folder / f"{split}.jsonl", some)
    return folder
