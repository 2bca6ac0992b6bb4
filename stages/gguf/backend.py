"""The two engines of the parity gate: transformers for the merged model, llama.cpp for files."""

from __future__ import annotations

from pathlib import Path

import torch

from stages.runtime.hf import HFEngine
from stages.runtime.llama import LlamaEngine


def merged_engine(folder: Path, threads: int) -> HFEngine:
    """The merged model in full precision on the CPU."""
    torch.set_num_threads(threads)
    return HFEngine.load(folder, dtype="float32", device="cpu")


def gguf_engine(path: Path, threads: int) -> LlamaEngine:
    """A GGUF file, mapped."""
    return LlamaEngine(path, threads=threads)
