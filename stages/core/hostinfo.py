"""The machine that a stage runs on: what a figure in a manifest has to be read against."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def _cpuinfo() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo; empty where there is none."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None


def cpu_model() -> str:
    """Marketing name of the CPU as the kernel gives it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Instruction-set flags of the CPU, sorted (`flags` on x86, `Features` on arm64)."""
    info = _cpuinfo()
    return sorted((info.get("flags") or info.get("Features") or "").split())


def usable_cores() -> int:
    """Cores that this process may use: its affinity mask and its control group's CPU quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    quota = _cgroup_cpus()
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _cgroup_cpus() -> float | None:
    version_2 = _read(_CGROUP / "cpu.max")
    if version_2:
        quota, period = version_2.split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us = _read(_CGROUP / "cpu/cpu.cfs_quota_us")
    period_us = _read(_CGROUP / "cpu/cpu.cfs_period_us")
    if quota_us and period_us and int(quota_us) > 0:
        return int(quota_us) / int(period_us)
    return None


def memory_total_bytes() -> int:
    """Physical memory of the machine in bytes."""
    text = _read(_MEMINFO)
    for line in (text or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limit_bytes() -> int:
    """Memory that this process may use: the control group's limit or else the machine's."""
    limit = _read(_CGROUP / "memory.max") or _read(_CGROUP / "memory/memory.limit_in_bytes")
    total = memory_total_bytes()
    return min(int(limit), total) if limit and limit != "max" else total


def gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each NVIDIA GPU that is visible here; empty without a driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    fields = ("name", "driver_version", "memory.total")
    done = subprocess.run(
        [command, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        return []
    rows = ([cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines())
    return [dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows]


def describe() -> dict[str, Any]:
    """All of it, as the manifest records it."""
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu_model": cpu_model(),
        "cpu_flags": cpu_flags(),
        "usable_cores": usable_cores(),
        "memory_limit_bytes": memory_limit_bytes(),
        "gpus": gpus(),
    }
