"""The gguf stage's parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.core.errors import InputError

# What llama-quantize makes from F16; F16 itself is always written.
ENCODINGS = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
    "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS",
    "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS",
)  # fmt: skip
NEEDS_IMATRIX = ("IQ3_XXS", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS")
MIN_IMATRIX_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class Params:
    """What to make, how to name it, and how far it may fall behind the merged model.

    Attributes:
        encodings: quantizations to make beside F16.
        imatrix: weigh the quantization error by activations on training rows.
        imatrix_rows: training rows for it.
        parity_rows: validation rows that every model answers for the parity gate.
        max_drop: largest accepted drop in exact match against the merged model, as a share (0.02 is
            two points).
        max_drop_by_encoding: exceptions to it, as `Q2_K=0.2`.
        min_f16_agreement: smallest accepted share of rows on which the F16 file gives the merged
            model's answer.
        model_name: base name, with words apart (`Cartwright Intent`).
        finetune: what it was tuned for, if the name should say so.
        version: `v` and numbers, as in the file's name.
        license: SPDX identifier of the weights' license.
        languages: ISO 639 codes for the metadata.
        description: one sentence for the metadata.
        threads: 0 for all usable cores.
        seed: which rows are taken.
    """

    encodings: tuple[str, ...] = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
    imatrix: bool = True
    imatrix_rows: int = 512
    parity_rows: int = 200
    max_drop: float = 0.02
    max_drop_by_encoding: tuple[str, ...] = ("Q3_K_M=0.05", "Q2_K=0.2")
    min_f16_agreement: float = 0.99
    model_name: str = "Cartwright Intent"
    finetune: str = ""
    version: str = "v1.0"
    license: str = "apache-2.0"
    languages: tuple[str, ...] = ("en", "hr", "es")
    description: str = "Reads a shopper's message and a catalog, answers with a cart action as JSON"
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.encodings:
            if name not in ENCODINGS:
                raise InputError(f"encodings: {name!r} is none of {', '.join(ENCODINGS)}")
            if name in NEEDS_IMATRIX and not self.imatrix:
                raise InputError(f"encodings: {name} needs an importance matrix: set imatrix")
        if len(set(self.encodings)) != len(self.encodings):
            raise InputError("encodings: one is listed twice")
        if self.imatrix and self.imatrix_rows < MIN_IMATRIX_ROWS:
            raise InputError(f"imatrix_rows must be at least {MIN_IMATRIX_ROWS}")
        if self.parity_rows < 1:
            raise InputError("parity_rows must be at least 1: files are never written unchecked")
        if not 0 <= self.max_drop <= 1:
            raise InputError(f"max_drop must be a share from 0 to 1, not {self.max_drop}")
        if not 0 <= self.min_f16_agreement <= 1:
            raise InputError("min_f16_agreement must be a share from 0 to 1")
        self.exceptions()
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9 ]*", self.model_name):
            raise InputError(f"model_name must be words and digits, not {self.model_name!r}")
        if not re.fullmatch(r"[A-Za-z0-9 ]*", self.finetune):
            raise InputError(f"finetune must be words and digits, not {self.finetune!r}")
        if not re.fullmatch(r"v\d+(\.\d+)*", self.version):
            raise InputError(f"version must be like v1.0, not {self.version!r}")
        if self.threads < 0:
            raise InputError(f"threads must be 0 (all cores) or more, not {self.threads}")

    def exceptions(self) -> dict[str, float]:
        """The accepted drop of the encodings that have their own.

        Raises:
            InputError: an entry is not `ENCODING=SHARE`.
        """
        found = {}
        for entry in self.max_drop_by_encoding:
            name, _, share = entry.partition("=")
            try:
                found[name] = float(share)
            except ValueError:
                found[name] = -1.0
            if name not in ENCODINGS or not 0 <= found[name] <= 1:
                raise InputError(
                    f"max_drop_by_encoding: {entry!r} is not an encoding, '=' and a share (0 to 1)"
                )
        return found

    def accepted_drop(self, encoding: str) -> float:
        """Largest accepted drop in exact match of an encoding, as a share."""
        return self.exceptions().get(encoding, self.max_drop)
