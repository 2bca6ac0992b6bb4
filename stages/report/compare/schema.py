"""What comparison.json holds. Shares are from 0 to 1, sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import TypedDict

from stages.report.measured import Rate

SCHEMA_VERSION = 1


class Side(TypedDict):
    """One of the two reports: `host` and `settings` are names and values for people."""

    label: str
    profile: str
    recommended: str
    sentence: str
    data_sha256: str | None
    noise: float
    noise_warning: str | None
    host: list[list[str]]


class Difference(TypedDict):
    """One figure of the first side against the second's.

    `change` is a difference of shares for `exact`, else the second's over the first's less one;
    `low` to `high` its interval, null where there is none. `differs` is whether that excludes 0, or
    without an interval, whether the change is beyond what two runs of one file show.
    """

    first: float
    second: float
    change: float
    low: float | None
    high: float | None
    differs: bool


class Median(TypedDict):
    """A median with its 95 % interval, in seconds."""

    p50: float
    low: float
    high: float


class Pair(TypedDict):
    """A variant that both sides have; what the plots draw is `*_rates` and `*_latency_sec`."""

    name: str
    same_file: bool | None
    exact: Difference
    latency: Difference
    memory: Difference
    size: Difference
    exact_rates: list[Rate]
    latency_sec: list[Median]


class Comparison(TypedDict):
    """The whole of comparison.json.

    `same_host` is whether both were measured on one kind of machine; `same_rows` whether on the
    same rows, null where that is not known. `latency_by` is `noise` where the interval of a
    latency is of the A/A noise (the same rows were timed), else `intervals`.
    """

    schema: int
    sentences: list[str]
    sides: list[Side]
    same_host: bool
    same_rows: bool | None
    latency_by: str
    pairs: list[Pair]
    only: list[list[str]]
