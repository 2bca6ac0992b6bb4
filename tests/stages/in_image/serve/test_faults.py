"""What clients and hosts do to a service, and what it must not do then."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.core.artifact import hash_file
from tests.stages.in_image.service import CATALOG, MODEL, REQUEST, Server, refused, start

HEAD = b"POST /v1/intent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def _waiting(server: Server) -> float:
    text = server.raw("GET", "/metrics")[1].decode()
    (line,) = (one for one in text.splitlines() if one.startswith("cartwright_queue_requests "))
    return float(line.split()[1])


def test_600_clients_that_go_away_free_their_places() -> None:
    """Some before their request was read, some in the queue, some while it is decoded."""
    server = Server("--queue", "400")
    server.wait("/ready")
    dice = random.Random(5)

    def leave(number: int) -> None:
        lines = [*CATALOG, *(f"Soap number {number} {n} (250g bar)" for n in range(30))]
        body = json.dumps({"catalog": lines, "message": "add 2"}).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(dice.choice((0.0, 0.002, 0.02, 0.1)))

    with ThreadPoolExecutor(24) as clients:
        list(clients.map(leave, range(600)))
    ended_sec = time.monotonic()
    while _waiting(server):
        assert time.monotonic() - ended_sec < 10, "places are still taken"
        time.sleep(0.05)
    print(f"free after {time.monotonic() - ended_sec:.2f} s")
    assert server.intent(REQUEST)[0] == 200
    code, out, err = server.end()
    assert (code, err) == (0, ""), err
    assert " 499 " in out and " 500 " not in out


def test_slow_senders_are_closed_and_others_are_served() -> None:
    server = Server()
    server.wait("/ready")
    started_sec = time.monotonic()
    slow = []
    for number in range(200):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        # Nothing, a part of the head, a whole head with a part of the body.
        begin = (b"", HEAD, HEAD + b"Content-Length: 900\r\n\r\n{")[number % 3]
        connection.sendall(begin)
        slow.append(connection)
    worst_sec, open_ones = 0.0, list(slow)
    while open_ones and time.monotonic() - started_sec < 45:
        begin_sec = time.monotonic()
        assert server.intent(REQUEST)[0] == 200
        worst_sec = max(worst_sec, time.monotonic() - begin_sec)
        for connection in open_ones[:]:
            connection.setblocking(False)
            try:
                if not connection.recv(4_096):
                    open_ones.remove(connection)
                else:
                    connection.send(b"x")
            except BlockingIOError:
                try:
                    if time.monotonic() - started_sec < 12:
                        connection.send(b"x")  # still a byte now and then
                except OSError:
                    open_ones.remove(connection)
            except OSError:
                open_ones.remove(connection)
        time.sleep(0.3)
    took_sec = time.monotonic() - started_sec
    print(f"closed after {took_sec:.1f} s, others waited at most {worst_sec:.2f} s")
    assert not open_ones and took_sec < 30
    assert worst_sec < 5
    assert server.end()[0] == 0


def test_sigterm_with_32_in_flight_loses_none_ten_times() -> None:
    lines = [f"Soap number {number} (250g bar)" for number in range(20)]
    body = json.dumps({"catalog": lines, "message": "add 2"}).encode()
    for _ in range(10):
        server = Server()
        server.wait("/ready")
        clients = [
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(32)
        ]
        for client in clients:
            client.request("POST", "/v1/intent", body, {"Content-Type": "application/json"})
        # Probes that come after them are answered after they were read.
        assert server.call("GET", "/health")[0] == server.call("GET", "/health")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert [client.getresponse().status for client in clients] == [200] * 32
        server.process.communicate(timeout=60)
        assert server.process.returncode == 0


def test_a_file_that_is_not_its_manifests_is_refused(tmp_path: Path) -> None:
    whole, sound = MODEL.read_bytes(), hash_file(MODEL)
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(start("--model", str(damaged), "--sha256", sound), "copy it again")
    server = Server("--sha256", sound.upper())
    server.wait("/ready")
    assert server.end()[0] == 0
