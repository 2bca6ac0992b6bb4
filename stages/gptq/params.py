"""The gptq stage's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.core.errors import InputError

BITS = {"gptq": (2, 3, 4, 8), "awq": (4,)}
GROUP_SIZES = (16, 32, 64, 128)
MIN_CALIBRATION_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class Params:
    """How weights are quantized for a GPU, and how far the checkpoint may fall behind.

    Attributes:
        backend: `gptqmodel`, or `auto-gptq`, which was archived in 2025, knows GPTQ with symmetric
            scales only and quantizes on an NVIDIA GPU only.
        method: `gptq` (Frantar et al., 2022) or `awq` (Lin et al., 2023).
        device: `auto` is a GPU if torch is built for one, else the CPU; a GPU that is asked for
            and missing is an error.
        bits: bits of a weight.
        group_size: input features that share a scale.
        desc_act: quantize columns with large activations first; GPTQ only. A little better, and
            slower on most kernels.
        damp_percent: what is added to the Hessian's diagonal, as a share of its mean; GPTQ only.
        symmetric: scales without zero points; GPTQ only. AWQ always has zero points.
        calibration_rows: training rows whose activations the error is weighed by.
        batch_rows: rows of a calibration batch.
        parity_rows: validation rows that merged model and checkpoint answer for the parity gate.
        max_drop: largest accepted drop in exact match against the merged model, as a share.
        seed: which rows are taken.
    """

    backend: Literal["gptqmodel", "auto-gptq"] = "gptqmodel"
    method: Literal["gptq", "awq"] = "gptq"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    bits: int = 4
    group_size: int = 128
    desc_act: bool = False
    damp_percent: float = 0.05
    symmetric: bool = True
    calibration_rows: int = 256
    batch_rows: int = 8
    parity_rows: int = 200
    max_drop: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.backend == "auto-gptq":
            self._check_auto_gptq()
        if self.bits not in BITS[self.method]:
            allowed = ", ".join(map(str, BITS[self.method]))
            raise InputError(f"bits: {self.method} can have {allowed}, not {self.bits}")
        if self.group_size not in GROUP_SIZES:
            allowed = ", ".join(map(str, GROUP_SIZES))
            raise InputError(f"group_size must be one of {allowed}, not {self.group_size}")
        if not 0 < self.damp_percent < 1:
            raise InputError(f"damp_percent must lie between 0 and 1, not {self.damp_percent}")
        if self.calibration_rows < MIN_CALIBRATION_ROWS:
            raise InputError(f"calibration_rows must be at least {MIN_CALIBRATION_ROWS}")
        if self.batch_rows < 1:
            raise InputError(f"batch_rows must be at least 1, not {self.batch_rows}")
        if self.parity_rows < 1:
            raise InputError("parity_rows must be at least 1: nothing is written unchecked")
        if not 0 <= self.max_drop <= 1:
            raise InputError(f"max_drop must be a share from 0 to 1, not {self.max_drop}")

    def _check_auto_gptq(self) -> None:
        if self.method != "gptq":
            raise InputError(f"method {self.method} is not in auto-gptq: set backend to gptqmodel")
        if self.device == "cpu":
            raise InputError(
                "device cpu is not in auto-gptq, which quantizes on an NVIDIA GPU alone: set "
                "backend to gptqmodel"
            )
        # It keeps a zero point less one, unsigned: one of 0 is written over its neighbours.
        if not self.symmetric:
            raise InputError(
                "symmetric: false is not sound in auto-gptq, which damages zero points of 0: set "
                "backend to gptqmodel"
            )
