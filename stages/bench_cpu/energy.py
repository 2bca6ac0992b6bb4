"""The energy that a processor counts itself, where the system lets it be read.

Linux tells it below /sys/class/powercap (RAPL, of Intel's and AMD's packages) to root alone, unless
the files are made readable; virtual machines have no such counters, and containers have them hidden
unless they are started with `--security-opt systempaths=unconfined`.
"""

from __future__ import annotations

import re
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
# `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it.
_PACKAGE = re.compile(r"[a-z-]+:\d+")


class Energy:
    """Counters of all packages: what other programs use is in them, too.

    Args:
        folder: where the system has them.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        packages = [one for one in sorted(folder.glob("*")) if _PACKAGE.fullmatch(one.name)]
        self._counters = [
            (one / "energy_uj", range_uj)
            for one in packages
            if (range_uj := _number(one / "max_energy_range_uj")) is not None
        ]

    def read(self) -> list[int]:
        """The counters now, in microjoules; empty where there are none or one cannot be read."""
        found = [_number(path) for path, _ in self._counters]
        return [one for one in found if one is not None] if None not in found else []

    def joules_since(self, before: list[int]) -> float | None:
        """What was used since `read` gave `before`; None where it cannot be read.

        A counter that has begun anew meanwhile is taken to have done so once.
        """
        now = self.read()
        if not before or len(now) != len(before):
            return None
        ranges = (range_uj for _, range_uj in self._counters)
        used_uj = (
            (end - begin) % (range_uj + 1)
            for begin, end, range_uj in zip(before, now, ranges, strict=True)
        )
        return sum(used_uj) / 1e6


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
