"""Requests as they were measured, and the arithmetic on them; nothing here measures."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.core.figures import percentile


class Sample(NamedTuple):
    """One request.

    Attributes:
        start_sec: since the epoch.
        took_sec: until the whole answer was there.
        status: of the response; 0 if none came.
        right: whether the answer is the row's; None if nobody looked, or it is not 200.
    """

    start_sec: float
    took_sec: float
    status: int
    right: bool | None

    @property
    def end_sec(self) -> float:
        return self.start_sec + self.took_sec


class Limits(NamedTuple):
    """How long to ask: at least so long and so often, at most so long."""

    least_sec: float
    least_requests: int
    most_sec: float

    def met(self, past_sec: float, requests: int) -> bool:
        """Whether to stop after so long and so many requests."""
        enough = past_sec >= self.least_sec and requests >= self.least_requests
        return enough or past_sec >= self.most_sec


def per_second(samples: Sequence[Sample]) -> float:
    """Answers (200) a second, from the first request to the last answer."""
    answered = [one for one in samples if one.status == 200]
    if not answered:
        return 0.0
    began_sec = min(one.start_sec for one in samples)
    return len(answered) / (max(one.end_sec for one in answered) - began_sec)


def took(samples: Iterable[Sample], share: float, statuses: Sequence[int] = (200,)) -> float | None:
    """Percentile of the time that requests with some statuses took (seconds); None without any."""
    found = [one.took_sec for one in samples if one.status in statuses]
    return percentile(found, share) if found else None


def statuses(samples: Iterable[Sample]) -> dict[str, int]:
    """How many requests ended with which status; `none` where there was no response."""
    counts = Counter(one.status for one in samples)
    return {str(status or "none"): counts[status] for status in sorted(counts)}


def normal_after_sec(
    probes: Sequence[Sample], end_sec: float, usual_sec: float, run: int = 10
) -> float | None:
    """When a service was as quick again as before (seconds after the flood's end).

    Args:
        probes: requests of one client, one after the other.
        end_sec: when the flood ended, since the epoch.
        usual_sec: below which nine of ten answers were before.
        run: so many requests in a row must be answered, nine of ten within 1.5 times that.

    Returns:
        The beginning of the first such run; None if there was none.
    """
    for begin in range(len(probes) - run + 1):
        part = probes[begin : begin + run]
        slow_sec = percentile([one.took_sec for one in part], 0.9)
        if all(one.status == 200 for one in part) and slow_sec <= 1.5 * usual_sec:
            return max(0.0, part[0].start_sec - end_sec)
    return None


def write(path: Path, groups: Iterable[tuple[Mapping[str, Any], Sequence[Sample]]]) -> None:
    """Writes samples as compressed JSONL: one line a group, its samples as lists in `samples`."""
    # No time and no name in the header: the same samples give the same bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for group, samples in groups:
            listed = [
                [round(one.start_sec, 6), round(one.took_sec, 6), one.status, one.right]
                for one in samples
            ]
            file.write(json.dumps({**group, "samples": listed}).encode() + b"\n")


def read(path: Path) -> list[tuple[dict[str, Any], list[Sample]]]:
    """What `write` wrote."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        groups = [json.loads(line) for line in lines]
    return [(group, [Sample(*one) for one in group.pop("samples")]) for group in groups]
