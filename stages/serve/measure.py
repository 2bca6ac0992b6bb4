"""What the service's engine gains, on one's own model and rows.

`python -m stages.serve.measure --model FILE --rows test.jsonl --out samples.json`

Each row is asked in turn of an engine that computes the whole prompt, of the service's engine that
does not know the catalog, and of the same when it does; then token by token, for the answer that
all should give. Blocks of 20 rows are asked one at a time and many at once. Figures are of one run
on one machine: they are compared within it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from stages.core import hostinfo
from stages.core.errors import CartwrightError, InputError
from stages.intent import rules
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.rows import Answer, Row, read_rows
from stages.intent.trie import AnswerTrie
from stages.serve.model import DEFAULT_CONTEXT_TOKENS, IntentModel, load
from stages.serve.scheduler import Answered

_BLOCK_ROWS = 20
_RATE_TOKENS = 512
Request = tuple[Sequence[str], str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints figures as JSON, and writes every sample.

    Returns:
        The exit code: 0 measured, 2 wrong input.
    """
    options = _parse(arguments)
    try:
        _check_out(options.out)
        rows = read_rows(options.rows)[: options.limit]
        if len(rows) < _BLOCK_ROWS:
            raise InputError(
                f"{options.rows} holds {len(rows)} rows: the measurement needs at least "
                f"{_BLOCK_ROWS}"
            )
        model = load(options.model, options.threads, DEFAULT_CONTEXT_TOKENS)
        # Imported here as in `load`.
        from stages.runtime.llama import LlamaEngine

        engine = LlamaEngine(options.model, threads=options.threads)
        alone = _Alone(engine)
        samples = [_sample(row, alone, model) for row in rows]
        rates = _rates(rows, alone, model, options.clients)
        figures = _figures(samples, alone.token_rates()) | {"rows": len(rows), "rates": rates}
        _write(options.out, json.dumps({"figures": figures, "samples": samples}, indent=1))
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    print(json.dumps(figures, indent=1))
    return 0


def _check_out(path: Path) -> None:
    """Refuses a place that cannot be written to, before minutes are spent on what goes there."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(
            f"--out {path} cannot be written: name a file in a folder that is there and writable"
        )


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"--out {path} cannot be written ({error.strerror}): name another file"
        ) from error


class _Alone:
    """One request at a time, the whole prompt computed; tries are kept as the service does."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self._tries: dict[tuple[str, ...], AnswerTrie] = {}

    def _trie(self, catalog: Sequence[str]) -> AnswerTrie:
        key = tuple(catalog)
        if key not in self._tries:
            self._tries[key] = AnswerTrie(self.engine.encode, catalog)
        return self._tries[key]

    def answer(self, catalog: Sequence[str], message: str) -> Answer:
        prompt = prompt_tokens(self.engine, catalog, message)
        return constrained(self.engine, self._trie(catalog), prompt, rules.guess(message)).answer

    def token_by_token(self, row: Row) -> tuple[Answer, float]:
        """The answer of one pass a token, and the least lead of a chosen token, in logits."""
        trie, fed = self._trie(row.catalog), prompt_tokens(self.engine, row.catalog, row.message)
        logits, n_past, least = self.engine.eval(fed, 0), len(fed), float("inf")
        state: Any = trie.root
        while not isinstance(state, Answer):
            children = trie.children(state)
            ranked = sorted(children, key=lambda token: float(logits[token]), reverse=True)
            if len(ranked) > 1:
                least = min(least, float(logits[ranked[0]]) - float(logits[ranked[1]]))
            state = children[ranked[0]]
            logits, n_past = self.engine.eval([ranked[0]], n_past), n_past + 1
        return state, least

    def token_rates(self) -> tuple[float, float]:
        """Tokens a second of a long prompt, and of one token at a time; the best of ten."""
        tokens = [self.engine.bos_id] * _RATE_TOKENS
        prefill_sec = min(_timed(lambda: self.engine.eval(tokens, 0))[1] for _ in range(10))
        decode_sec = min(_timed(lambda: self.engine.eval(tokens[:1], 200))[1] for _ in range(10))
        return _RATE_TOKENS / prefill_sec, 1 / decode_sec


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started_sec = time.perf_counter()
    done = work()
    return done, time.perf_counter() - started_sec


def _sample(row: Row, alone: _Alone, model: IntentModel) -> dict[str, Any]:
    request = row.catalog, row.message
    recomputed, recomputed_sec = _timed(lambda: alone.answer(*request))
    cold, cold_sec = _timed(lambda: model.answer(*request))
    warm, warm_sec = _timed(lambda: model.answer(*request))
    reference, lead = alone.token_by_token(row)
    return {
        "recomputed_sec": recomputed_sec,
        "cold_sec": cold_sec,
        "warm_sec": warm_sec,
        "prompt_tokens": warm.decoded.prompt_tokens,
        "cold_cached_tokens": cold.cached_tokens,
        "warm_cached_tokens": warm.cached_tokens,
        "passes": warm.decoded.passes,
        "lead_logits": lead,
        "same": [
            one == reference for one in (recomputed, cold.decoded.answer, warm.decoded.answer)
        ],
        "exact": [
            one == row.answer
            for one in (reference, recomputed, cold.decoded.answer, warm.decoded.answer)
        ],
    }


def _figures(samples: list[dict[str, Any]], token_rates: tuple[float, float]) -> dict[str, Any]:
    prefill, decode = token_rates
    limits_sec = [
        (one["prompt_tokens"] - one["warm_cached_tokens"]) / prefill + one["passes"] / decode
        for one in samples
    ]
    unknown = [one["cold_sec"] for one in samples if not one["cold_cached_tokens"]]
    same = [sum(column) for column in zip(*(one["same"] for one in samples), strict=True)]
    exact = [sum(column) for column in zip(*(one["exact"] for one in samples), strict=True)]
    return {
        "p50_sec": {
            "recomputed": median(one["recomputed_sec"] for one in samples),
            "cold": median(unknown),
            "warm": median(one["warm_sec"] for one in samples),
        },
        "passes_p50": median(one["passes"] for one in samples),
        "passes_mean": sum(one["passes"] for one in samples) / len(samples),
        "prefill_tokens_per_sec": prefill,
        "decode_tokens_per_sec": decode,
        "share_of_limit_p50": median(
            limit_sec / one["warm_sec"] for limit_sec, one in zip(limits_sec, samples, strict=True)
        ),
        "same_as_token_by_token": dict(zip(("recomputed", "cold", "warm"), same, strict=True)),
        "exact": dict(zip(("token_by_token", "recomputed", "cold", "warm"), exact, strict=True)),
        "lead_logits_where_not_the_same": [
            round(one["lead_logits"], 3) for one in samples if not all(one["same"])
        ],
    }


def _rates(
    rows: list[Row], alone: _Alone, model: IntentModel, clients: int
) -> dict[str, dict[str, Any]]:
    """Requests a second: one after the other with the prompt computed, and `clients` at once."""
    kinds: dict[str, list[list[Request]]] = {"one catalog": [], "20 catalogs": []}
    for begin in range(0, len(rows) - _BLOCK_ROWS + 1, _BLOCK_ROWS):
        block = rows[begin : begin + _BLOCK_ROWS]
        catalog = max((row.catalog for row in block), key=len)
        kinds["20 catalogs"].append([(row.catalog, row.message) for row in block])
        kinds["one catalog"].append(
            [
                (catalog, f"add {number + 1} {catalog[number % len(catalog)]}, please")
                for number in range(_BLOCK_ROWS)
            ]
        )
    figures: dict[str, dict[str, Any]] = {}
    for kind, blocks in kinds.items():
        recomputed_sec = together_sec = 0.0
        answers = same = 0
        for block in blocks:
            _many(model, block, clients)  # every catalog is known from here on
            expected, took_sec = _timed(lambda block=block: [alone.answer(*one) for one in block])
            recomputed_sec += took_sec
            found, took_sec = _timed(lambda block=block: _many(model, block * 3, clients))
            together_sec += took_sec / 3
            answers += len(block)
            same += sum(
                one.decoded.answer == other for one, other in zip(found, expected, strict=False)
            )
        figures[kind] = {
            "recomputed_per_sec": answers / recomputed_sec,
            "together_per_sec": answers / together_sec,
            "same_answers": f"{same} of {answers}",
        }
    return figures


def _many(model: IntentModel, requests: Sequence[Request], clients: int) -> list[Answered]:
    """Answers requests of which so many are there at any time, in the order they came."""
    left, futures = deque(requests), []
    while True:
        while left and sum(not one.done() for one in futures) < clients:
            futures.append(model.scheduler.submit(model.preparer.prepare(*left.popleft())))
        if not model.scheduler.step() and not left:
            return [one.result() for one in futures]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.serve.measure", description="Measure the service's engine."
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="a .gguf model")
    parser.add_argument("--rows", type=Path, required=True, metavar="FILE", help="a JSONL dataset")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="where every sample goes, JSON"
    )
    parser.add_argument("--limit", type=int, default=600, help="rows (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="at once (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=hostinfo.usable_cores(), help="default: the usable cores"
    )
    options = parser.parse_args(arguments)
    for name, least in (("limit", _BLOCK_ROWS), ("clients", 1), ("threads", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}, not {getattr(options, name)}")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
