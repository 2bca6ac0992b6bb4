"""Clients that each wait for an answer before they ask again: Locust's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import gevent
from locust import FastHttpUser, task
from locust.env import Environment

from stages.intent.rows import Row
from stages.loadtest.samples import Limits, Sample
from stages.loadtest.servers import Kind, Running

_POLL_SEC = 0.02
_TIMEOUT_SEC = 120.0


def ask(server: Running, rows: Iterator[Row], clients: int, limits: Limits) -> list[Sample]:
    """Asks a server until the limits are met; what is under way then is waited for.

    Args:
        server: the one to ask.
        rows: what to ask, for all clients together; they end early where it ends.
        clients: at once.
        limits: when to stop.

    Returns:
        All requests, in the order of their answers.
    """
    kind, samples, ended = server.kind, list[Sample](), list[bool]()

    class Client(FastHttpUser):
        host = server.address
        network_timeout = connection_timeout = _TIMEOUT_SEC

        def on_stop(self) -> None:
            # Else its connections stay open until they are collected as garbage.
            self.client.client.close()

        @task
        def one(self) -> None:
            row = next(rows, None)
            if row is None:
                ended.append(True)
                gevent.sleep(_POLL_SEC)
                return
            body = json.dumps(kind.body(row)).encode()
            headers = {"Content-Type": "application/json"}
            self.client.post(kind.path, data=body, headers=headers, context={"row": row})

    environment = Environment(user_classes=[Client], stop_timeout=_TIMEOUT_SEC)

    @environment.events.request.add_listener
    def note(
        response_time: float, response: Any, context: dict[str, Row], start_time: float, **_: Any
    ) -> None:
        status = int(getattr(response, "status_code", 0) or 0)
        right = is_right(kind, response.content, context["row"]) if status == 200 else None
        samples.append(Sample(start_time, response_time / 1e3, status, right))

    runner = environment.create_local_runner()
    started_sec = time.monotonic()
    runner.start(clients, spawn_rate=clients)
    while not ended and not limits.met(time.monotonic() - started_sec, len(samples)):
        gevent.sleep(_POLL_SEC)
    runner.quit()
    return samples


def is_right(kind: Kind, content: bytes, row: Row) -> bool:
    """Whether a response's body is the row's answer."""
    try:
        return kind.read(content) == row.answer
    except (ValueError, KeyError, TypeError, IndexError):
        return False
