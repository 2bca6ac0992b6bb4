"""Connections: one whose request does not come is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_SEC = 15.0
"""Longest until a request's head is there, from the connection or its first byte on."""


class TimedProtocol(H11Protocol):
    """Uvicorn's protocol, which itself waits for a request's head for good."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._wait()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self._is_busy():
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # A thousand idle connections would else keep a thousand requests.
        if self.conn.our_state is h11.IDLE:
            self.cycle = self.scope = self.headers = None  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        if self._timer is None and not self._is_busy():
            self._timer = self.loop.call_later(HEAD_TIMEOUT_SEC, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self._is_busy():
            self.transport.close()
