"""Bodies of requests: read whole before the application sees them, within limits."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.serve.refusals import refusal

MAX_BODY_BYTES = 2 << 20
# Read and thrown away after a body was refused.
MAX_DRAINED_BYTES = 64 << 20
BODY_TIMEOUT_SEC = 15.0


class BodyLimits:
    """Reads the whole body before the application does, within its limits."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SEC):
                body = await _read_body(scope, receive)
        except TimeoutError:
            sentence = f"the body did not arrive within {BODY_TIMEOUT_SEC:.0f} s"
            response = refusal(408, sentence, "timeout_error")
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        except _TooLarge:
            sentence = f"the body is larger than {MAX_BODY_BYTES:,} bytes"
            await refuse_and_drain(refusal(413, sentence), receive, send)
            return
        if body is None:
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


async def refuse_and_drain(response: Response, receive: Receive, send: Send) -> None:
    """Answers at once and ends the response when the body has come, within limits.

    Closed earlier, the connection would be reset under a client that still sends, and most clients
    then report the reset instead of the answer.
    """
    response.headers["Connection"] = "close"
    headers = response.raw_headers
    start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    left = MAX_DRAINED_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(BODY_TIMEOUT_SEC):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):  # the end, or the client went away
                    break
    await send({"type": "http.response.body", "body": b""})


class _TooLarge(Exception):
    """The body has more bytes than are read."""


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The request's body; None if the client went away."""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise _TooLarge
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge
        if not message.get("more_body", False):
            return bytes(body)
