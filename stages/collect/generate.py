"""Rows written by a model: `python -m stages.collect.generate --out FILE.jsonl --rows N`.

The endpoint is `OPENAI_BASE_URL`. Our code draws catalog, product, action, quantity, style and
language; the model puts it into words, and each of its messages is checked. Beside FILE:

- `FILE.partial.jsonl` while it runs: what a run that was ended goes on from;
- `FILE.rejects.jsonl` afterwards: every rejected attempt with `index`, `reason`, `text`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.collect import wishes
from stages.collect.fill import fill, reasons
from stages.collect.progress import Progress, replace
from stages.collect.wishes import Wish, Wishes, read_catalog
from stages.core.errors import CartwrightError, InputError, StageFailed
from stages.runtime.endpoint import MAX_CONCURRENCY, Endpoint

TEMPERATURE = 1.0
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Collects rows; returns the exit code (2 for wrong input)."""
    given = _parse(arguments)
    try:
        generate(given)
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on from here", file=sys.stderr, flush=True)
        return EXIT_INTERRUPTED
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.collect.generate",
        description="Rows whose messages are written by a model behind OPENAI_BASE_URL.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="JSONL")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--languages", default="english,croatian,spanish")
    parser.add_argument("--model", default="", help="the only one that the endpoint has")
    parser.add_argument("--catalog", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--requests-per-minute", type=int, default=0, help="0 for no limit")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def generate(given: argparse.Namespace) -> None:
    """Collects the rows of a command line.

    Raises:
        InputError: an option is wrong, the endpoint refuses, or the file is there already.
        StageFailed: the endpoint does not answer, or nothing that it wrote can be used.
    """
    out: Path = given.out
    languages = _languages(given.languages)
    for name, least, most in (
        ("rows", 1, 1_000_000),
        ("concurrency", 1, MAX_CONCURRENCY),
        ("requests_per_minute", 0, 1_000_000),
    ):
        if not least <= getattr(given, name) <= most:
            option = name.replace("_", "-")
            raise InputError(
                f"--{option} must be from {least} to {most:,}, not {getattr(given, name)}"
            )
    partial = out.with_name(f"{out.name}.partial.jsonl")
    if out.exists() and not partial.exists():
        raise InputError(f"{out.name} is there already; name another file, or delete it")
    catalogs = [read_catalog(path) for path in given.catalog]
    endpoint = Endpoint.from_environment(given.model, requests_per_minute=given.requests_per_minute)
    progress = Progress(partial, _settings(endpoint.model, languages, catalogs, given.seed))
    _tell(f"asking {endpoint.model} for {given.rows:,} rows")
    try:
        fill(
            Wishes(languages, catalogs, given.seed).draw,
            lambda wish: _ask(endpoint, wish),
            progress,
            rows=given.rows,
            source=f"endpoint:{endpoint.model}",
            concurrency=given.concurrency,
            tell=_tell,
        )
    except CartwrightError:
        if progress.outcomes:
            _tell(f"{partial.name} keeps what came so far; the same command goes on from it")
        raise
    _publish(out, progress, given.rows)


def _ask(endpoint: Endpoint, wish: Wish) -> tuple[str, str]:
    reply = endpoint.ask(wish.messages, wishes.SCHEMA, TEMPERATURE)
    return reply.text, "" if reply.complete else "the reply was cut off at the token limit"


def _languages(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"[^\W\d_][\w ()-]*", name):
            raise InputError(
                f"--languages {text}: must be names with commas between, as english,german"
            )
    if len(set(names)) < len(names):
        raise InputError(f"--languages {text}: names a language twice")
    return names


def _settings(
    model: str, languages: Sequence[str], catalogs: Sequence[Sequence[str]], seed: int
) -> dict[str, Any]:
    """What decides which rows are asked for: more rows or another speed may go on from fewer."""
    wording = [wishes.SYSTEM, wishes.REGISTERS, wishes.NAMINGS, wishes.NUMBERS]
    return {
        "model": model,
        "languages": list(languages),
        "seed": seed,
        "catalog": _hash(catalogs),
        "wording": _hash(wording),
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:16]


def _publish(out: Path, progress: Progress, rows: int) -> None:
    """Puts rejects and rows in their places, in the rows' order, and says how it went."""
    ordered = [progress.outcomes[index] for index in range(rows)]
    kept = [one.row for one in ordered if one.row is not None]
    rejected = out.with_name(f"{out.name}.rejects.jsonl")
    rejects = [
        json.dumps({"index": one.index, **reject}, ensure_ascii=False)
        for one in ordered
        for reject in one.rejects
    ]
    replace(rejected, rejects)
    if not kept:
        progress.remove()
        raise StageFailed(
            f"none of {rows:,} rows can be used; {rejected.name} has every reply and what is wrong "
            "with it"
        )
    replace(out, (row.to_json() for row in kept))
    progress.remove()
    by_language = Counter(row.language for row in kept)
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(by_language.items(), key=str))
    print(f"{out.name}: {len(kept):,} of {rows:,} rows ({counts})")
    if rejects:
        print(f"{rejected.name}: {len(rejects):,} rejected replies")
        for reason, count in reasons({one.index: one for one in ordered}).most_common():
            print(f"  {count:>6,}  {reason}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
