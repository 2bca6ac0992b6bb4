"""The header of a GGUF file, read without llama.cpp, so that a bad file gets a clear sentence.

Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stages.core.errors import InputError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT_BYTES = 32
_MAX_ENTRIES = 1 << 24
_MAX_STRING_BYTES = 1 << 27

# Value types of metadata by their number: struct formats; 8 is a string and 9 an array.
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9

# Tensor types by their number: (elements, bytes) of one block.
_BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 36),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
}

# Encoding of the whole file by `general.file_type`.
_ENCODINGS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor's entry: `offset_bytes` counts from the start of the data section."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the tensor's data; None for a type that is not known here."""
        block = _BLOCKS.get(self.type_id)
        return None if block is None else math.ceil(self.elements / block[0]) * block[1]


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself.

    Attributes:
        metadata: key to value; arrays stay lists.
        tensors: in the order of the file.
        data_start_bytes: where the data section begins.
        file_bytes: size of the whole file.
    """

    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    data_start_bytes: int
    file_bytes: int

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def encoding(self) -> str:
        """Encoding of the weights, as in the file's name (`Q4_K_M`); `unknown` if not stated."""
        return _ENCODINGS.get(self.metadata.get("general.file_type", -1), "unknown")

    @property
    def bits_per_weight(self) -> float:
        """Size of the whole file, metadata and vocabulary included, over its weights."""
        return self.file_bytes * 8 / max(1, self.parameters)

    @property
    def is_model(self) -> bool:
        """Whether it holds a model; importance matrices and adapters are GGUF files too."""
        return self.metadata.get("general.type", "model") == "model" and bool(self.tensors)


class _Reader:
    """Reads little-endian values and raises EOFError where the file ends early."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def take(self, count_bytes: int) -> bytes:
        taken = self._stream.read(count_bytes)
        if len(taken) != count_bytes:
            raise EOFError
        return taken

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, limit: int = _MAX_ENTRIES) -> int:
        value = int(self.scalar("Q"))
        if value > limit:
            raise ValueError(f"a count of {value:,} is not plausible")
        return value

    def string(self) -> str:
        return self.take(self.count(_MAX_STRING_BYTES)).decode("utf-8")

    def value(self, type_id: int) -> Any:
        if type_id in _SCALARS:
            return self.scalar(_SCALARS[type_id])
        if type_id == _STRING:
            return self.string()
        if type_id != _ARRAY:
            raise ValueError(f"metadata type {type_id} does not exist")
        item_type, length = self.scalar("I"), self.count()
        if item_type == _ARRAY:
            raise ValueError("a list of lists is not read here")
        if item_type in _SCALARS:
            code = f"<{length}{_SCALARS[item_type]}"
            return list(struct.unpack(code, self.take(struct.calcsize(code))))
        return [self.value(item_type) for _ in range(length)]

    def tensor(self) -> Tensor:
        name = self.string()
        dimensions = self.scalar("I")
        if not 1 <= dimensions <= 4:
            raise ValueError(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self.count(1 << 40) for _ in range(dimensions))
        return Tensor(name, shape, self.scalar("I"), self.scalar("Q"))


def read_header(path: Path) -> Header:
    """Reads a GGUF file's header and checks that the tensor data it announces is there.

    Raises:
        InputError: the file is missing, not a GGUF, of a version that is not read here, damaged in
            its header, or shorter than its tensors need.
    """
    try:
        with path.open("rb") as stream:
            header = _parse(path, stream, path.stat().st_size)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except EOFError:
        raise InputError(
            f"{path} is truncated: the file ends inside its header; copy or download it again"
        ) from None
    except (ValueError, UnicodeDecodeError, struct.error) as error:
        raise InputError(
            f"{path} is a damaged GGUF file ({error}); copy or download it again"
        ) from None
    _check_data(path, header)
    return header


def _parse(path: Path, stream: BinaryIO, file_bytes: int) -> Header:
    magic = stream.read(len(MAGIC))
    if magic != MAGIC:
        found = "it is empty" if not magic else f"it starts with {magic!r} instead of {MAGIC!r}"
        raise InputError(f"{path} is not a GGUF file: {found}")
    reader = _Reader(stream)
    version = reader.scalar("I")
    if version not in _VERSIONS:
        raise InputError(
            f"{path} is GGUF version {version}, which is not read here (2 and 3 are); "
            "convert the model again"
        )
    tensor_count, pair_count = reader.count(), reader.count()
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar("I"))
    tensors = tuple(reader.tensor() for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT_BYTES)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"an alignment of {alignment!r} is not possible")
    data_start = math.ceil(stream.tell() / alignment) * alignment
    return Header(metadata, tensors, data_start, file_bytes)


def _check_data(path: Path, header: Header) -> None:
    """Refuse a file that ends before the data of one of its tensors does."""
    for tensor in header.tensors:
        size_bytes = tensor.size_bytes
        end = header.data_start_bytes + tensor.offset_bytes + (size_bytes or 0)
        if end > header.file_bytes:
            raise InputError(
                f"{path} is truncated: it has {header.file_bytes:,} bytes, and the data of the "
                f"tensor {tensor.name!r} ends at {end:,}; copy or download it again"
            )
