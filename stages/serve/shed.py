"""What cannot be answered now is refused before anybody reads it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from stages.serve.refusals import unavailable
from stages.serve.service import NotReady, QueueFull, Service, TooLate

ASKING_PATHS = ("/v1/intent", "/v1/chat/completions", "/v1/completions")
"""Routes whose requests the model answers."""


class Shed:
    """Refuses requests to the model while there is no room for one more.

    Under a flood most requests are refused: reading and checking their bodies would take the time
    of those that are answered. The server throws away what still comes of such a body.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in ASKING_PATHS:
            try:
                self._service.require_room(1)
            except (NotReady, QueueFull, TooLate) as error:
                await unavailable(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
