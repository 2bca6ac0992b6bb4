"""Every refusal as one sentence in one shape, the one of OpenAI's errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from stages.serve.requests import RequestError
from stages.serve.service import NotReady, QueueFull, TooLate

_RETRY_SEC = 1


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """Every refusal: one sentence, its kind, and the field at fault if there is one."""

    error: ErrorDetail


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


class Refused(Exception):
    """A request that is refused as it stands.

    Attributes:
        status: of the response.
        param: the field at fault.
        code: OpenAI's word for it, where there is one.
    """

    def __init__(
        self, status: int, sentence: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(sentence)
        self.status, self.param, self.code = status, param, code


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of these refusals."""
    texts = {
        400: "The body is not JSON, or a field of it is not supported.",
        401: "The API key is missing or wrong.",
        404: "There is none of that name.",
        409: "As many catalogs are registered as may be.",
        413: "The body is too large.",
        422: "The catalog or the message is refused.",
        429: "The queue is full.",
        503: "Loading or draining, or the answer would come too late.",
    }
    return {one: {"model": ErrorResponse, "description": texts[one]} for one in statuses}


def refusal(
    status: int,
    sentence: str,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
    retry: bool = False,
) -> JSONResponse:
    """An error response."""
    return JSONResponse(
        {"error": {"message": sentence, "type": kind, "param": param, "code": code}},
        status_code=status,
        headers={"Retry-After": str(_RETRY_SEC)} if retry else None,
    )


def unavailable(error: NotReady | QueueFull | TooLate) -> JSONResponse:
    """The refusal of what cannot be answered now, and may be later."""
    if isinstance(error, QueueFull):
        sentence = "too many requests are waiting: send this one again later"
        return refusal(429, sentence, "overloaded_error", retry=True)
    if isinstance(error, TooLate):
        return refusal(503, str(error), "overloaded_error", retry=True)
    sentence = "the model is not ready: it is loading, or the service is stopping"
    return refusal(503, sentence, "unavailable_error", retry=True)


def add_refusals(app: FastAPI) -> None:
    """Answers what the routes raise."""

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        return refusal(error.status, str(error), param=error.param, code=error.code)

    @app.exception_handler(RequestError)
    async def bad_request(_request: Request, error: RequestError) -> Response:
        return refusal(422, str(error), param=error.param)

    @app.exception_handler(RequestValidationError)
    async def bad_shape(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return refusal(400, "the body is not JSON")
        place = [str(part) for part in first["loc"] if part not in ("body", "path")]
        name = ".".join(place) or None
        return refusal(422, f"{name or 'body'}: {first['msg']}", param=place[0] if place else None)

    @app.exception_handler(QueueFull)
    @app.exception_handler(TooLate)
    @app.exception_handler(NotReady)
    async def not_now(_request: Request, error: NotReady | QueueFull | TooLate) -> Response:
        return unavailable(error)

    @app.exception_handler(ClientGone)
    async def gone(_request: Request, _error: ClientGone) -> Response:
        # Nobody reads it; the log has nginx's number for this.
        return refusal(499, "the client went away", "client_error")

    @app.exception_handler(Exception)
    async def bug(_request: Request, _error: Exception) -> Response:
        sentence = "the service failed on this request; its log says why"
        return refusal(500, sentence, "server_error")

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        response = refusal(
            error.status_code, f"{request.method} {request.url.path}: {error.detail}"
        )
        response.headers.update(error.headers or {})
        return response
