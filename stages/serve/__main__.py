"""The service's command line: `python -m stages.serve --model MODEL.gguf`."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from stages.core import hostinfo
from stages.core.artifact import hash_file
from stages.core.errors import CartwrightError, InputError
from stages.intent.rows import MAX_CATALOG_LINES
from stages.runtime.gguf_file import read_header
from stages.serve.app import make_app
from stages.serve.connection import TimedProtocol
from stages.serve.keys import read_keys
from stages.serve.model import (
    DEFAULT_CONTEXT_TOKENS,
    DEFAULT_SLOTS,
    MAX_SLOTS,
    IntentModel,
    load,
)
from stages.serve.service import Service
from stages.serve.trial import try_model

_MAX_CONNECTIONS = 2_000
_IDLE_SEC = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves a model until SIGTERM or SIGINT.

    Returns:
        0 after a signal, when every accepted request is answered; 2 for wrong input, 1 for a bug.
    """
    options = _parse(arguments)
    # Uvicorn repeats the signal that ended it; this handler makes that, and a signal before
    # uvicorn listens to them, a plain exit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        header = read_header(options.model)
        if not header.is_model:
            raise InputError(f"{options.model} is a GGUF file but holds no model")
        _check_hash(options.model, options.sha256)
        if not options.model_name:
            given = str(header.metadata.get("general.name") or options.model.stem)
            options.model_name = "-".join(given.split())
        keys = read_keys(options.api_keys) if options.api_keys else []
        return _serve(options, _listen(options.host, options.port), keys)
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def _check_hash(model: Path, expected: str) -> None:
    """Compares a file with the hash that its manifest has.

    Raises:
        InputError: It is another file.
    """
    if expected and (found := hash_file(model)) != expected.lower():
        raise InputError(
            f"{model} has the SHA-256 {found[:12]}…, its manifest says {expected[:12]}…: copy it "
            "again"
        )


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _serve(options: argparse.Namespace, listener: socket.socket, keys: Sequence[str]) -> int:
    failures: list[BaseException] = []

    def load_model() -> IntentModel:
        if not options.sha256:  # nobody vouches for the file
            try_model(options.model)
        model = load(
            options.model,
            options.threads,
            options.context_tokens,
            options.max_catalog_lines,
            options.slots,
            options.kv_bytes,
        )
        print(
            f"ready: {options.model.name}, {model.context_tokens:,} tokens, at most "
            f"{model.kv_bytes:,} bytes of key-value state",
            flush=True,
        )
        return model

    def failed(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            make_app(
                Service(load_model, options.queue, options.deadline_sec, failed),
                options.model_name,
                keys,
            ),
            http=TimedProtocol,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_IDLE_SEC,
        )
    )
    print(f"listening on http://{options.host}:{options.port}", flush=True)
    try:
        server.run(sockets=[listener])
    except SystemExit as leaving:
        if not failures:
            raise leaving
    if not failures:
        return 0
    if isinstance(failures[0], CartwrightError):
        raise failures[0]
    traceback.print_exception(failures[0])
    return 1


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        InputError: The port is taken, or the address is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot listen on {host}:{port} ({reason}): give another --host or --port"
        ) from error
    return listener


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.serve", description="Answer intent requests over HTTP."
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="a .gguf model")
    parser.add_argument(
        "--sha256",
        default=os.environ.get("CARTWRIGHT_MODEL_SHA256", ""),
        metavar="HEX",
        help="what the model's manifest says of the file; another is refused (default: "
        "CARTWRIGHT_MODEL_SHA256)",
    )
    parser.add_argument(
        "--model-name",
        default="",
        metavar="NAME",
        help="as OpenAI's clients call it (default: the name in the file, else the file's)",
    )
    parser.add_argument("--host", default="0.0.0.0", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port (default: %(default)s)")
    parser.add_argument(
        "--threads",
        type=int,
        default=os.environ.get("CARTWRIGHT_THREADS") or hostinfo.usable_cores(),
        metavar="N",
        help="of the model (default: CARTWRIGHT_THREADS, else the usable cores)",
    )
    parser.add_argument(
        "--max-catalog-lines",
        type=int,
        default=MAX_CATALOG_LINES,
        metavar="N",
        help="catalogs with more lines are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--context-tokens",
        type=int,
        default=DEFAULT_CONTEXT_TOKENS,
        metavar="N",
        help="longest prompt and answer; bounds the memory (default: %(default)s, less if the "
        "model was trained on less)",
    )
    parser.add_argument(
        "--queue",
        type=int,
        default=64,
        metavar="N",
        help="requests that may wait; one more is refused with 429 (default: %(default)s)",
    )
    parser.add_argument(
        "--deadline-sec",
        type=float,
        default=30.0,
        metavar="SEC",
        help="longest that a request may take; later is refused with 503 (default: %(default)g)",
    )
    parser.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        default=os.environ.get("CARTWRIGHT_API_KEYS") or None,
        help="keys, one a line, of which every request but /health and /ready must carry one "
        "(default: the file that CARTWRIGHT_API_KEYS names, if it is set)",
    )
    parser.add_argument(
        "--slots",
        type=int,
        default=DEFAULT_SLOTS,
        metavar="N",
        help=f"requests decoded together, at most {MAX_SLOTS} (default: %(default)s)",
    )
    parser.add_argument(
        "--kv-bytes",
        type=int,
        default=0,
        metavar="N",
        help="bound of all key-value state: a quarter is a cache for requests in work, allocated "
        "at start, the rest is for catalogs that are kept (default: eight times what the longest "
        "request takes, at least 128 MiB)",
    )
    options = parser.parse_args(arguments)
    for name in ("threads", "max_catalog_lines", "context_tokens", "queue", "slots"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if options.slots > MAX_SLOTS:
        parser.error(f"--slots must be at most {MAX_SLOTS}, not {options.slots}")
    if not 0 < options.deadline_sec <= 3_600:
        parser.error(f"--deadline-sec must be above 0 and at most 3600, not {options.deadline_sec}")
    if options.kv_bytes < 0:
        parser.error(f"--kv-bytes must not be negative, not {options.kv_bytes}")
    if not 1 <= options.port <= 65_535:
        parser.error(f"--port must be from 1 to 65535, not {options.port}")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
