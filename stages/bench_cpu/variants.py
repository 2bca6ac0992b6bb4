"""What is measured: the GGUF models of a folder and the transformers baseline."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.bench_cpu.params import DTYPES
from stages.core.errors import InputError
from stages.runtime.folders import gguf_models, transformers_folder
from stages.runtime.gguf_file import read_header

LLAMA_CPP = "llama.cpp"
TRANSFORMERS = "transformers"
_DTYPE_BITS = {"float32": 32, "bfloat16": 16, "float16": 16}


@dataclass(frozen=True)
class Variant:
    """One model as one engine runs it.

    Attributes:
        name: short and unique.
        engine: `llama.cpp` or `transformers`.
        path: file or folder.
        encoding: of the weights as they are computed with.
        size_bytes: on disk.
        memory_bytes: of the weights once loaded.
        bits_per_weight: of the file; of the dtype for transformers.
        parameters: number of weights.
        dtype: for transformers, else empty.
    """

    name: str
    engine: str
    path: Path
    encoding: str
    size_bytes: int
    memory_bytes: int
    bits_per_weight: float
    parameters: int
    dtype: str = ""

    def to_record(self) -> dict[str, Any]:
        """The variant's own part of its entry in metrics.json."""
        return {
            "name": self.name,
            "file": self.path.name if self.engine == LLAMA_CPP else None,
            "encoding": self.encoding,
            "engine": self.engine,
            "size_bytes": self.size_bytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "parameters": self.parameters,
        }


def gguf_variants(path: Path) -> list[Variant]:
    """The GGUF models of a folder, or the one that is given as a file, largest first.

    They are named by their encoding, or by their file where that is ambiguous or unknown.

    Raises:
        InputError: there is none, or a file is no sound GGUF.
    """
    files = gguf_models(path)
    headers = {file: read_header(file) for file in files}
    encodings = [header.encoding for header in headers.values()]
    return [
        Variant(
            name=(
                header.encoding
                if header.encoding != "unknown" and encodings.count(header.encoding) == 1
                else file.stem
            ),
            engine=LLAMA_CPP,
            path=file,
            encoding=header.encoding,
            size_bytes=header.file_bytes,
            memory_bytes=header.file_bytes,
            bits_per_weight=header.bits_per_weight,
            parameters=header.parameters,
        )
        for file, header in headers.items()
    ]


def transformers_variants(path: Path, dtypes: Sequence[str]) -> list[Variant]:
    """The baseline: a model folder in each dtype.

    Raises:
        InputError: the folder holds no model or no safetensors weights.
    """
    folder = transformers_folder(path)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} holds no *.safetensors weights")
    size_bytes = sum(file.stat().st_size for file in files)
    parameters = sum(_parameters(file) for file in files)
    return [
        Variant(
            name=f"transformers {DTYPES[dtype]}",
            engine=TRANSFORMERS,
            path=folder,
            encoding=DTYPES[dtype],
            size_bytes=size_bytes,
            memory_bytes=parameters * _DTYPE_BITS[dtype] // 8,
            bits_per_weight=float(_DTYPE_BITS[dtype]),
            parameters=parameters,
            dtype=dtype,
        )
        for dtype in dtypes
    ]


def _parameters(file: Path) -> int:
    """Number of weights in a safetensors file: a JSON header of a stated length comes first."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            tensors = json.loads(stream.read(length))
    except (struct.error, ValueError) as error:
        raise InputError(f"{file} is no sound safetensors file: {error}") from error
    return sum(math.prod(t["shape"]) for name, t in tensors.items() if name != "__metadata__")
