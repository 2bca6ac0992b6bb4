"""Finding the models in a folder that a stage or a user points at."""

from __future__ import annotations

from pathlib import Path

from stages.core.errors import InputError
from stages.runtime.gguf_file import read_header

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What stays as it is from base to served model, byte for byte."""

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Weights that can run code when they are loaded."""


def transformers_folder(path: Path) -> Path:
    """The folder with `config.json`.

    It is a train artifact's `merged/`, a gptq artifact's `checkpoint/`, or the folder itself.

    Raises:
        InputError: none of them holds a model.
    """
    for folder in (path / "merged", path / "checkpoint", path):
        if (folder / "config.json").is_file():
            return folder
    raise InputError(
        f"{path} holds no model: there is no config.json in it, in its merged/ or checkpoint/"
    )


def gguf_models(path: Path) -> list[Path]:
    """The GGUF models of a folder, or the one that is given as a file; largest first.

    Importance matrices and adapters are GGUF files too and are passed over.

    Raises:
        InputError: there is none, or a file is no sound GGUF.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    models = [file for file in files if read_header(file).is_model]
    if not models:
        raise InputError(f"{path} holds no GGUF model")
    return sorted(models, key=lambda file: (-file.stat().st_size, file.name))
