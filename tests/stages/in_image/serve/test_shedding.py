"""What a service without room does with further requests, and what idle connections cost."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.stages.in_image.service import CATALOG, REQUEST, Server

# A catalog that takes the model long enough for others to find the queue full.
LONG = {
    "catalog": [f"Organic Whole Milk number {n} (1l bottle)" for n in range(100)],
    "messages": [f"please add {n} Organic Whole Milk number {n} (1l bottle)" for n in range(1, 9)],
}
CONNECTIONS = 400


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--queue", "8", "--kv-bytes", "20000000")
    server.wait("/ready")
    yield server
    assert server.end()[0] == 0


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def head(length: int, *more: str) -> bytes:
    lines = ["POST /v1/intent HTTP/1.1", "Host: here", "Content-Type: application/json"]
    lines += [f"Content-Length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    text = b""
    while b"\r\n\r\n" not in text:
        text += connection.recv(65_536)
    top, _, body = text.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65_536)
    return int(status.split()[1]), headers, body


def test_no_room_is_said_before_the_body_is_there_and_the_connection_goes_on(
    server: Server,
) -> None:
    body = json.dumps(REQUEST).encode()
    with ThreadPoolExecutor(1) as busy, connect(server) as connection:
        filling = busy.submit(server.intent, LONG)
        while b"cartwright_queue_requests 8.0" not in server.raw("GET", "/metrics")[1]:
            assert not filling.done(), filling.result()
        started_sec = time.perf_counter()
        connection.sendall(head(len(body)))
        status, headers, text = response(connection)
        took_sec = time.perf_counter() - started_sec
        assert status == 429 and headers["retry-after"] == "1"
        assert json.loads(text)["error"]["type"] == "overloaded_error"
        assert not filling.done() and took_sec < 1, took_sec
        # What comes of that body is no request, and the next one is answered.
        connection.sendall(body)
        assert filling.result()[0] == 200
        connection.sendall(head(len(body)) + body)
        status, _, text = response(connection)
        assert status == 200 and json.loads(text)["product"] in CATALOG
    figures = server.raw("GET", "/metrics")[1].decode()
    assert 'cartwright_requests_total{method="POST",route="/v1/intent",status="429"} 1.0' in figures


def test_other_routes_answer_while_there_is_no_room(server: Server) -> None:
    with ThreadPoolExecutor(1) as busy:
        filling = busy.submit(server.intent, LONG)
        while b"cartwright_queue_requests 8.0" not in server.raw("GET", "/metrics")[1]:
            assert not filling.done(), filling.result()
        assert server.call("GET", "/health")[0] == 200
        assert server.call("GET", "/v1/intent")[0] == 405
        assert server.call("PUT", "/v1/catalogs/milk", b'{"catalog": ["Milk"]}')[0] == 201
        assert filling.result()[0] == 200


def resident_bytes(server: Server) -> int:
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * 4096


def test_idle_connections_keep_no_request(server: Server) -> None:
    body = json.dumps(REQUEST).encode()
    connections = [connect(server) for _ in range(CONNECTIONS)]
    try:
        before_bytes = resident_bytes(server)
        # Each has asked something once; with its request it would keep 13 KB.
        for connection in connections:
            connection.sendall(head(len(body)) + body)
            assert response(connection)[0] == 200
        each_bytes = (resident_bytes(server) - before_bytes) / CONNECTIONS
        assert each_bytes < 8_000, each_bytes
    finally:
        for connection in connections:
            connection.close()
