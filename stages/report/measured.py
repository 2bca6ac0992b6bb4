"""What every measurement in report.json is given as."""

from __future__ import annotations

from typing import TypedDict


class Rate(TypedDict):
    """A share of `n` trials with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    n: int


class Latency(TypedDict):
    """Whole requests, tokenizing included; `n` requests were timed."""

    p50: float
    p90: float
    p99: float
    n: int
