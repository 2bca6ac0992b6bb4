"""One model in a process of its own: `python -m stages.bench_cpu.worker`.

It reads one JSON object a line from stdin and writes one a line to stdout. `op` is one of

- `load`: `engine`, `path`, `threads`, `context_tokens`, `dtype`, `use_mmap` → `load_sec`,
  `start_sec`, `before_load_rss_bytes`, `backend`;
- `answer`: `mode` (`constrained`, `known` or `free`), `rows` (JSONL lines) → `samples`, one a row:
  `sec`, `text`, `prompt_tokens`, and `passes` and `probability`, or `tokens`;
- `speed`: `rows`, `tokens` → `samples`: `prompt_tokens`, `prompt_sec`, `decode_tokens`,
  `decode_sec`;
- `distributions`: `rows`, `folder`, `write` → `samples`, as `stages.bench_cpu.divergence`;
- `memory` → `peak_rss_bytes`, `pss_bytes`, `rss_file_bytes`, `rss_anonymous_bytes`.

An `error` in place of these is the user's mistake. The process ends with its input.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.intent import rules
from stages.intent.decode import (
    Engine,
    catalog_tokens,
    constrained,
    greedy,
    prompt_tokens,
    shared_tokens,
)
from stages.intent.rows import Row, parse_row
from stages.intent.trie import AnswerTrie

MAX_FREE_TOKENS = 96


def main() -> int:
    """Serves requests until the input ends."""
    # Libraries may print; what they print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = _Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = worker.operations[request["op"]](request)
        except InputError as error:
            reply = {"error": str(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
    return 0


class _Worker:
    def __init__(self) -> None:
        self.operations: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "load": self._load,
            "answer": self._answer,
            "speed": self._speed,
            "distributions": self._distributions,
            "memory": lambda _request: _memory(),
        }
        self._engine: Engine

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        path, backend = Path(request["path"]), {}
        if request["engine"] == "llama.cpp":
            from stages.runtime import llama

            backend = llama.backend()
            before_bytes, started_sec = _status_bytes("VmRSS"), time.perf_counter()
            self._engine = llama.LlamaEngine(
                path,
                context_tokens=request["context_tokens"],
                threads=request["threads"],
                use_mmap=request["use_mmap"],
            )
        else:
            from stages.runtime.hf import HFEngine

            before_bytes, started_sec = _status_bytes("VmRSS"), time.perf_counter()
            self._engine = HFEngine.load(path, dtype=request["dtype"], device="cpu")
        return {
            "load_sec": time.perf_counter() - started_sec,
            "start_sec": _since_start_sec(),
            "before_load_rss_bytes": before_bytes,
            "backend": backend,
        }

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        modes = {"constrained": self._constrained, "known": self._known, "free": self._free}
        one = modes[request["mode"]]
        return {"samples": [one(parse_row(line)) for line in request["rows"]]}

    def _constrained(self, row: Row) -> dict[str, Any]:
        """A whole request as served, with a catalog that was not seen before."""
        started_sec = time.perf_counter()
        return self._request(row, _trie(self._engine, row), (), started_sec)

    def _known(self, row: Row) -> dict[str, Any]:
        """The same of a catalog that is known: its trie and its part of the prompt are there."""
        trie, head = _trie(self._engine, row), catalog_tokens(self._engine, row.catalog)
        self._engine.eval(head, 0)
        return self._request(row, trie, head, time.perf_counter())

    def _request(
        self, row: Row, trie: AnswerTrie, head: Sequence[int], started_sec: float
    ) -> dict[str, Any]:
        prompt = prompt_tokens(self._engine, row.catalog, row.message)
        known = shared_tokens(head, prompt)
        decoded = constrained(self._engine, trie, prompt, rules.guess(row.message), known)
        text = decoded.answer.to_json()
        return {
            "sec": time.perf_counter() - started_sec,
            "text": text,
            "prompt_tokens": decoded.prompt_tokens,
            "passes": decoded.passes,
            "probability": decoded.probability,
        }

    def _free(self, row: Row) -> dict[str, Any]:
        started_sec = time.perf_counter()
        prompt = prompt_tokens(self._engine, row.catalog, row.message)
        tokens = greedy(self._engine, prompt, MAX_FREE_TOKENS)
        text = self._engine.decode(tokens)
        return {
            "sec": time.perf_counter() - started_sec,
            "text": text,
            "prompt_tokens": len(prompt),
            "tokens": len(tokens),
        }

    def _distributions(self, request: dict[str, Any]) -> dict[str, Any]:
        from stages.bench_cpu import divergence

        rows = [parse_row(line) for line in request["rows"]]
        keep = divergence.write if request["write"] else divergence.compare
        folder = Path(request["folder"])
        return {"samples": [keep(self._engine, row, folder, at) for at, row in enumerate(rows)]}

    def _speed(self, request: dict[str, Any]) -> dict[str, Any]:
        samples = []
        for row in map(parse_row, request["rows"]):
            prompt = prompt_tokens(self._engine, row.catalog, row.message)
            started_sec = time.perf_counter()
            logits = self._engine.eval(prompt, 0)
            prompted_sec = time.perf_counter()
            # The answer's end is passed over: only the time of a one-token pass matters.
            for n_past in range(len(prompt), len(prompt) + request["tokens"]):
                logits = self._engine.eval([self._engine.argmax(logits)], n_past)
            samples.append(
                {
                    "prompt_tokens": len(prompt),
                    "prompt_sec": prompted_sec - started_sec,
                    "decode_tokens": request["tokens"],
                    "decode_sec": time.perf_counter() - prompted_sec,
                }
            )
        return {"samples": samples}


def _trie(engine: Engine, row: Row) -> AnswerTrie:
    try:
        return AnswerTrie(engine.encode, row.catalog)
    except ValueError as error:
        raise InputError(f"this model cannot be decoded over a catalog: {error}") from error


def _status_bytes(field: str) -> int:
    """A field of the process's memory status; 0 where the system does not tell it."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def _memory() -> dict[str, Any]:
    # The kernel's own peak; a parent's is never in it, unlike getrusage's after a fork.
    peak_bytes = _status_bytes("VmHWM")
    if not peak_bytes:
        unit_bytes = 1 if sys.platform == "darwin" else 1024
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
    rollup, pss_bytes = Path("/proc/self/smaps_rollup"), None
    if rollup.is_file():
        lines = rollup.read_text(encoding="ascii").splitlines()
        pss_bytes = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("Pss:"))
    return {
        "peak_rss_bytes": peak_bytes,
        "pss_bytes": pss_bytes,
        # A file on a file system in memory is mapped all the same.
        "rss_file_bytes": _status_bytes("RssFile") + _status_bytes("RssShmem"),
        "rss_anonymous_bytes": _status_bytes("RssAnon"),
    }


def _since_start_sec() -> float | None:
    """Time since the process was started, interpreter and imports included."""
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not (stat.is_file() and uptime.is_file()):
        return None
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return float(uptime.read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    raise SystemExit(main())
