"""Requests that come at their time, whether the last is answered or not: h2load's."""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import StageFailed
from stages.loadtest.samples import Sample

_GRACE_SEC = 300


def flood(
    url: str, bodies: Sequence[bytes], per_sec: float, connections: int, lasting_sec: float
) -> list[Sample]:
    """Sends requests at an even pace over many connections that stay open.

    A connection has one request under way; what it should send meanwhile it sends right after.

    Args:
        url: of the route.
        bodies: what to send, a share of the connections each.
        per_sec: requests a second, all connections together.
        connections: all together.
        lasting_sec: how long requests are sent.

    Returns:
        All requests, by their beginning; nobody looked at their answers.

    Raises:
        StageFailed: h2load failed.
    """
    each = max(1, connections // len(bodies))
    every_sec = each * len(bodies) / per_sec
    times = max(1, math.ceil(lasting_sec / every_sec))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "script.txt"
        script.write_text(
            "".join(f"{1e3 * every_sec * turn:.3f}\t{url}\n" for turn in range(times)),
            encoding="utf-8",
        )
        processes = []
        for number, body in enumerate(bodies):
            (folder / f"{number}.json").write_bytes(body)
            processes.append(
                subprocess.Popen(
                    [
                        "h2load", "--h1", "-t", "1", "-c", str(each),
                        # One connection after the other, so that they do not send all at once.
                        "-r", "1", f"--rate-period={max(1, round(1e3 * every_sec / each))}ms",
                        f"--timing-script-file={script}", "-d", str(folder / f"{number}.json"),
                        "-H", "content-type: application/json",
                        f"--log-file={folder / f'{number}.log'}",
                    ],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )  # fmt: skip
        samples: list[Sample] = []
        for number, process in enumerate(processes):
            out, _ = process.communicate(timeout=lasting_sec + _GRACE_SEC)
            if process.returncode != 0:
                last = out.decode(errors="replace").strip().splitlines()[-1:]
                raise StageFailed(f"h2load ended with code {process.returncode}: {last}")
            samples += read_log((folder / f"{number}.log").read_text(encoding="ascii"))
    return sorted(samples)


def read_log(text: str) -> list[Sample]:
    """The requests in a log of h2load: microseconds since the epoch, status, microseconds."""
    samples = []
    for line in text.splitlines():
        start, status, took = line.split("\t")[:3]
        samples.append(Sample(int(start) / 1e6, int(took) / 1e6, max(0, int(status)), None))
    return samples
