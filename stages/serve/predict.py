"""One answer on the command line.

`python -m stages.serve.predict --model MODEL.gguf --catalog FILE --message "add two of ..."`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stages.core import hostinfo
from stages.core.errors import CartwrightError, InputError
from stages.serve.model import DEFAULT_CONTEXT_TOKENS, as_plain, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the answer to one request.

    Returns:
        The exit code: 0 answered, 2 wrong input.
    """
    options = _parse(arguments)
    try:
        catalog = read_catalog(options.catalog)
        model = load(options.model, options.threads, options.context_tokens, slots=1)
        model.validate(catalog, options.message)
        started_sec = time.perf_counter()
        answered = model.answer(catalog, options.message)
        latency_sec = time.perf_counter() - started_sec
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if options.json:
        print(json.dumps(as_plain(answered, latency_sec), ensure_ascii=False))
    else:
        print(answered.decoded.answer.to_json())
    return 0


def read_catalog(name: str) -> list[str]:
    """The lines of a file, or of standard input for `-`; blank lines at the end are dropped."""
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8").rstrip().splitlines()
    except OSError as error:
        raise InputError(f"{name}: the catalog cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: the catalog is not UTF-8 text (byte {error.start})") from error


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.serve.predict", description="Answer one request."
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="a .gguf model")
    parser.add_argument(
        "--catalog", required=True, metavar="FILE", help="one product a line; - for standard input"
    )
    parser.add_argument("--message", required=True, help="the shopper's words")
    parser.add_argument(
        "--json", action="store_true", help="also print probability, latency and passes"
    )
    parser.add_argument(
        "--threads", type=int, default=hostinfo.usable_cores(), help="default: the usable cores"
    )
    parser.add_argument(
        "--context-tokens",
        type=int,
        default=DEFAULT_CONTEXT_TOKENS,
        metavar="N",
        help="longest prompt and answer (default: %(default)s)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
