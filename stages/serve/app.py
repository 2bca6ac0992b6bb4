"""The HTTP side: routes, limits, and every refusal as one sentence in one shape."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stages.serve.model import as_plain
from stages.serve.requests import RequestError
from stages.serve.service import NotReady, QueueFull, Service

MAX_BODY_BYTES = 2 << 20
# Read and thrown away after a body was refused.
MAX_DRAINED_BYTES = 64 << 20
BODY_TIMEOUT_SEC = 15.0
_RETRY_SEC = 1

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


class IntentRequest(BaseModel):
    """A shopper's message, and the products that it can be about."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {
                "catalog": ["Butter (250g pack)", "Ground Beef (500g pack)"],
                "message": "please put 2 packs of butter in my cart",
            }
        },
    )

    catalog: Annotated[list[str], Field(description="Product lines, each once.")]
    message: Annotated[str, Field(description="The shopper's words.")]


class IntentResponse(BaseModel):
    """The answer; `product` is a line of the catalog, verbatim."""

    action: Annotated[str, Field(description="`add` or `remove`.")]
    product: str
    quantity: Annotated[int, Field(ge=1)]
    probability: Annotated[
        float, Field(description="The model's share for this answer among those of the catalog.")
    ]
    latency_sec: Annotated[float, Field(description="From the whole request read to the answer.")]
    prompt_tokens: int
    cached_tokens: Annotated[
        int, Field(description="Of the prompt, which were computed before, for the same catalog.")
    ]
    passes: Annotated[int, Field(description="Forward passes of the model.")]


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None


class ErrorResponse(BaseModel):
    """Every refusal: one sentence, its kind, and the field at fault if there is one."""

    error: ErrorDetail


def make_app(service: Service) -> FastAPI:
    """The application around a service; it starts the service and drains it at the end."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.drain()
        await asyncio.to_thread(service.close)

    refusals: dict[int | str, dict[str, Any]] = {
        code: {"model": ErrorResponse, "description": text}
        for code, text in (
            (400, "The body is not JSON."),
            (413, "The body is too large."),
            (422, "The catalog or the message is refused."),
            (429, "The queue is full."),
            (503, "Loading or draining."),
        )
    }
    app = FastAPI(title="Cartwright", summary="Intent of a shopper's message.", lifespan=lifespan)
    app.add_middleware(_Limits)
    _add_refusals(app)

    @app.post("/v1/intent", responses=refusals)
    async def intent(body: IntentRequest, request: Request) -> IntentResponse:
        """What the shopper wants: one action on one line of the catalog."""
        started_sec = time.perf_counter()
        answered = await _unless_gone(service.answer(body.catalog, body.message), request)
        request.state.note = (
            f"lines={len(body.catalog)} tokens={answered.decoded.prompt_tokens} "
            f"cached={answered.cached_tokens} passes={answered.decoded.passes} "
            f"waited={answered.waited_sec * 1e3:.1f}ms"
        )
        return IntentResponse.model_validate(as_plain(answered, time.perf_counter() - started_sec))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: refusals[503]})
    async def ready() -> dict[str, str]:
        """The model has answered its golden request."""
        if not service.ready:
            raise NotReady
        return {"status": "ready"}

    return app


async def _unless_gone(answer: Coroutine[Any, Any, T], request: Request) -> T:
    """An answer, unless its client goes away before: then it is cancelled.

    Raises:
        ClientGone: The client went away.
    """
    answering = asyncio.ensure_future(answer)
    # The body was read: the next that can come is the end of the connection.
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientGone
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


def refusal(
    status: int, message: str, kind: str, param: str | None = None, retry: bool = False
) -> Response:
    """An error response."""
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": param}},
        status_code=status,
        headers={"Retry-After": str(_RETRY_SEC)} if retry else None,
    )


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def bad_request(_request: Request, error: RequestError) -> Response:
        return refusal(422, str(error), "invalid_request_error", error.param)

    @app.exception_handler(RequestValidationError)
    async def bad_shape(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return refusal(400, "the body is not JSON", "invalid_request_error")
        place = [str(part) for part in first["loc"] if part != "body"]
        name = ".".join(place) or None
        return refusal(
            422,
            f"{name or 'body'}: {first['msg']}",
            "invalid_request_error",
            place[0] if place else None,
        )

    @app.exception_handler(QueueFull)
    async def busy(_request: Request, _error: QueueFull) -> Response:
        sentence = "too many requests are waiting: send this one again later"
        return refusal(429, sentence, "overloaded_error", retry=True)

    @app.exception_handler(ClientGone)
    async def gone(_request: Request, _error: ClientGone) -> Response:
        # Nobody reads it; the log has nginx's number for this.
        return refusal(499, "the client went away", "client_error")

    @app.exception_handler(NotReady)
    async def not_ready(_request: Request, _error: NotReady) -> Response:
        sentence = "the model is not ready: it is loading, or the service is stopping"
        return refusal(503, sentence, "unavailable_error", retry=True)

    @app.exception_handler(Exception)
    async def bug(_request: Request, _error: Exception) -> Response:
        sentence = "the service failed on this request; its log says why"
        return refusal(500, sentence, "server_error")

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        sentence = f"{request.method} {request.url.path}: {error.detail}"
        return refusal(error.status_code, sentence, "invalid_request_error")


class _Limits:
    """Reads the whole body before the application does, within its limits; logs one line after."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_sec = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._handle(scope, receive, watched)
        except Exception:
            status = 500
            raise
        finally:
            if scope["path"] not in ("/health", "/ready"):
                took_ms = (time.perf_counter() - started_sec) * 1e3
                note = scope.get("state", {}).get("note", "")
                path = scope["path"].encode("unicode_escape").decode("ascii")[:80]
                line = f"{scope['method']} {path} {status or 'dropped'} {took_ms:.1f}ms {note}"
                print(line.rstrip(), file=sys.stdout, flush=True)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SEC):
                body = await _read_body(scope, receive)
        except TimeoutError:
            sentence = f"the body did not arrive within {BODY_TIMEOUT_SEC:.0f} s"
            await refusal(408, sentence, "timeout_error")(scope, receive, send)
            return
        except _TooLarge:
            sentence = f"the body is larger than {MAX_BODY_BYTES:,} bytes"
            await _refuse_and_drain(refusal(413, sentence, "invalid_request_error"), receive, send)
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


async def _refuse_and_drain(response: Response, receive: Receive, send: Send) -> None:
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
