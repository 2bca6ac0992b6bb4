"""Checkpoints of GPTQModel: refused where they are unsound, loaded on the kernel asked for."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.runtime.folders import PICKLE_SUFFIXES
from stages.runtime.hf import HFEngine, load_tokenizer

METHODS = ("gptq", "awq")


def check(folder: Path) -> dict[str, Any]:
    """Checks a quantized model folder without loading it.

    Returns:
        Its `quantization_config`.

    Raises:
        InputError: it has pickle weights, no or damaged safetensors, or is not quantized by one of
            `METHODS`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'} cannot be read: {error}") from error
    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLE_SUFFIXES:
            raise InputError(f"{path}: pickle weights can run code when loaded; use safetensors")
    quantization = config.get("quantization_config") if isinstance(config, dict) else None
    if not isinstance(quantization, dict) or quantization.get("quant_method") not in METHODS:
        raise InputError(
            f"{folder} is no quantized model: its config names no {' or '.join(METHODS)}"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{folder} has no safetensors weights")
    for path in weights:
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is damaged: {error}; make or fetch it again") from error
        if not names:
            raise InputError(f"{path} holds no tensors")
    return quantization


def load(folder: Path, *, kernel: str, device: str, dtype: str = "auto") -> HFEngine:
    """Loads a checkpoint on one kernel, and on no other.

    Args:
        folder: a checkpoint of the gptq stage, or another of the same layout.
        kernel: GPTQModel's name for it without the method: `torch`, `marlin`, `exllama_v2`,
            `triton`, ...
        device: `cpu`, `cuda` or `cuda:<index>`.
        dtype: type of activations, scales and what is not quantized: `float16`, `bfloat16`, or
            `auto`, the checkpoint's own.

    Raises:
        InputError: the checkpoint is unsound, or the kernel is unknown or cannot take it.
    """
    import torch

    quantization = check(folder)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device is {device} but no GPU is visible here: use device cpu")
    # GPTQModel keeps an exception of its own import, and with it the variables of every function
    # that was running then: the model must not be one of them, or it is never let go.
    backend = _backend(quantization["quant_method"], kernel)
    return HFEngine(_load(folder, kernel, backend, device, dtype), load_tokenizer(folder))


def _backend(method: str, kernel: str) -> Any:
    """GPTQModel's own name of a kernel."""
    from gptqmodel import BACKEND

    name = f"{method}_{kernel}".upper()
    if name not in BACKEND.__members__:
        raise InputError(f"{kernel} is no kernel of {method}")
    return BACKEND[name]


def _load(folder: Path, kernel: str, backend: Any, device: str, dtype: str) -> Any:
    import torch
    from gptqmodel import GPTQModel

    try:
        with _uncompiled():
            loaded = GPTQModel.load(
                str(folder),
                device=device,
                backend=backend,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                trust_remote_code=False,
            )
    except (NotImplementedError, ValueError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the kernel {kernel} cannot take {folder}: {reason}") from error
    return loaded.model


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """Keeps torch from compiling the plain kernels: an image need not have a C++ compiler."""
    name = "TORCHDYNAMO_DISABLE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
