"""What the GPU says of itself through NVML, and what its memory can do."""

from __future__ import annotations

import os
from typing import Any

import pynvml
import torch

_COPY_BYTES = 1 << 30
_COPIES = 20


class Meter:
    """One GPU's counters: the one that torch calls `cuda:0`."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(0).uuid)
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(
            uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        )

    def energy_joules(self) -> float:
        """Energy that the whole GPU has used since its driver was loaded."""
        millijoules: int = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        return millijoules / 1e3

    def process_bytes(self) -> int | None:
        """Memory that this process holds on the GPU, its CUDA context included.

        None where the driver does not tell, as in some containers.
        """
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
            if process.pid == os.getpid():
                return None if process.usedGpuMemory is None else int(process.usedGpuMemory)
        return None

    def describe(self) -> dict[str, Any]:
        """Name, driver, clocks and power limit."""
        power_milliwatts: int = pynvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)
        return {
            "gpu": torch.cuda.get_device_name(0),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "cuda": torch.version.cuda,
            "power_limit_watts": power_milliwatts / 1e3,
            "sm_clock_mhz": pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_MEM),
        }


def copy_bytes_per_sec() -> float:
    """Bytes read and written a second by copying within the GPU's memory: its bandwidth here."""
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best_sec = float("inf")
    for _ in range(_COPIES):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        best_sec = min(best_sec, begin.elapsed_time(end) / 1e3)
    return 2 * _COPY_BYTES / best_sec
