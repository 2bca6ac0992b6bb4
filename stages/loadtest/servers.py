"""The servers: how each is started, asked and understood."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import StageFailed
from stages.intent.prompt import render
from stages.intent.rows import MAX_QUANTITY, Answer, Row, parse_answer
from stages.runtime.gguf_file import read_header

SERVICE = "cartwright"
LLAMA_SERVER = "llama-server"
LLAMA_PYTHON = "llama-cpp-python"
CONTEXT_TOKENS = 2_048
"""Longest prompt and answer of a request to the others; the service has its own default."""
_ANSWER_TOKENS = 128
_READY_WITHIN_SEC = 120.0
_END_WITHIN_SEC = 60.0


@dataclass(frozen=True)
class Kind:
    """A server at one of its settings.

    Attributes:
        name: of the server and its settings.
        words: command line without the port.
        path: of the route that answers.
        ready: of a route that answers once the model is there.
        body: a row as a request.
        read: an answer's text; raises ValueError, KeyError or TypeError if it is none.
    """

    name: str
    words: Sequence[str]
    path: str
    ready: str
    body: Callable[[Row], Mapping[str, Any]]
    read: Callable[[bytes], Answer]


@dataclass(frozen=True)
class Running:
    """A server that has started."""

    kind: Kind
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def service(model: Path, threads: int, arguments: Sequence[str] = ()) -> Kind:
    """The service."""
    return Kind(
        SERVICE,
        [
            sys.executable, "-m", "stages.serve", "--model", str(model), "--host", "127.0.0.1",
            "--threads", str(threads), *arguments,
        ],
        "/v1/intent",
        "/ready",
        lambda row: {"catalog": row.catalog, "message": row.message},
        _read_service,
    )  # fmt: skip


def others(model: Path, threads: int) -> list[Kind]:
    """llama-server and llama-cpp-python's server, each at two settings.

    Both get the prompt that the model was trained on. Its first token is given apart, because the
    shipped model's file does not ask for one.
    """
    metadata = read_header(model).metadata
    bos_id = int(metadata["tokenizer.ggml.bos_token_id"])
    bos = str(metadata["tokenizer.ggml.tokens"][bos_id])
    common = ["--model", str(model), "--host", "127.0.0.1"]

    def to_server(row: Row) -> dict[str, Any]:
        return {
            "prompt": [bos_id, render(row.prompt)],
            "json_schema": schema(row.catalog),
            "n_predict": _ANSWER_TOKENS,
            "temperature": 0,
            "cache_prompt": True,
        }

    def to_python(row: Row) -> dict[str, Any]:
        return {
            "prompt": bos + render(row.prompt),
            "grammar": grammar(row.catalog),
            "max_tokens": _ANSWER_TOKENS,
            "temperature": 0,
        }

    found = [
        Kind(
            f"{LLAMA_SERVER} -np {slots}",
            [
                "llama-server", *common, "-t", str(threads), "-tb", str(threads),
                "-np", str(slots), "-c", str(slots * CONTEXT_TOKENS),
            ],
            "/completion",
            "/health",
            to_server,
            lambda text: parse_answer(json.loads(text)["content"]),
        )
        for slots in (1, 16)
    ]  # fmt: skip
    found += [
        Kind(
            LLAMA_PYTHON + (" --cache" if cache else ""),
            [
                sys.executable, "-m", "llama_cpp.server", *common, "--n_threads", str(threads),
                "--n_threads_batch", str(threads), "--n_ctx", str(CONTEXT_TOKENS),
                "--verbose", "false", "--cache", str(cache).lower(),
            ],
            "/v1/completions",
            "/v1/models",
            to_python,
            lambda text: parse_answer(json.loads(text)["choices"][0]["text"]),
        )
        for cache in (False, True)
    ]  # fmt: skip
    return found


def schema(catalog: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of an answer on a catalog."""
    return {
        "type": "object",
        "properties": {
            "action": {"enum": ["add", "remove"]},
            "product": {"enum": list(catalog)},
            "quantity": {"type": "integer", "minimum": 1, "maximum": MAX_QUANTITY},
        },
        "required": ["action", "product", "quantity"],
        "additionalProperties": False,
    }


def grammar(catalog: Sequence[str]) -> str:
    """The answers on a catalog, spelled as models are trained to, as a grammar of llama.cpp."""
    products = " | ".join(_literal(json.dumps(line)) for line in catalog)
    digits = len(str(MAX_QUANTITY)) - 1
    return (
        f"root ::= {_literal('{')} {_literal(chr(34) + 'action' + chr(34) + ': ')} action "
        f"{_literal(', ' + chr(34) + 'product' + chr(34) + ': ')} product "
        f"{_literal(', ' + chr(34) + 'quantity' + chr(34) + ': ')} [1-9] [0-9]{{0,{digits}}} "
        f"{_literal('}')}\n"
        f"action ::= {_literal(json.dumps('add'))} | {_literal(json.dumps('remove'))}\n"
        f"product ::= {products}\n"
    )


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _read_service(text: bytes) -> Answer:
    found = json.loads(text)
    return Answer(found["action"], found["product"], found["quantity"])


@contextmanager
def running(kinds: Sequence[Kind]) -> Iterator[list[Running]]:
    """Starts servers, waits until all answer, and ends them.

    Raises:
        StageFailed: One ended, or did not answer in time; its last line is in the sentence.
    """
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        started = [_start(kind, folder / f"{place}.log", held) for place, kind in enumerate(kinds)]
        for place, one in enumerate(started):
            _wait(one, folder / f"{place}.log")
        yield started


def _start(kind: Kind, log: Path, held: ExitStack) -> Running:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    # Its log goes to a file, which does not wait for a reader.
    file = held.enter_context(log.open("wb"))
    process = subprocess.Popen(
        [*kind.words, "--port", str(port)], stdout=file, stderr=file, stdin=subprocess.DEVNULL
    )
    held.callback(_end, process)
    return Running(kind, port, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_WITHIN_SEC)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(server: Running, log: Path) -> None:
    until_sec = time.monotonic() + _READY_WITHIN_SEC
    while time.monotonic() < until_sec and server.process.poll() is None:
        with (
            suppress(OSError),
            urllib.request.urlopen(server.address + server.kind.ready, timeout=5),
        ):
            return
        time.sleep(0.1)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no reason"]
    raise StageFailed(f"{server.kind.name} did not start: {lines[-1]}")
