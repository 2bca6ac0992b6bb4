"""How the routes ask the model: with a deadline, and for as long as the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from stages.serve.metrics import Metrics
from stages.serve.refusals import ClientGone
from stages.serve.scheduler import Answered
from stages.serve.service import NotReady, Service

T = TypeVar("T")


class Ask:
    """Asks the service, and notes what the log and the figures say of it.

    Args:
        service: with the model.
        metrics: where passes are counted.
        model_name: as clients call the model.
    """

    def __init__(self, service: Service, metrics: Metrics, model_name: str) -> None:
        self._service, self._metrics = service, metrics
        self.model_name = model_name

    async def __call__(self, catalog: Sequence[str], message: str, request: Request) -> Answered:
        """The answer to one message; see `Service.answer`.

        Raises:
            ClientGone: The client went away.
        """
        return (await self.all([(catalog, message)], request))[0]

    async def all(
        self, asked: Sequence[tuple[Sequence[str], str]], request: Request
    ) -> list[Answered]:
        """The answers to several, all or none.

        Raises:
            ClientGone: The client went away.
        """
        found = await _unless_gone(self._service.answer_all(asked), request)
        for answered in found:
            self._metrics.passes.observe(answered.decoded.passes)
        first = found[0]
        request.state.note = (
            f"lines={len(asked[0][0])} tokens={first.decoded.prompt_tokens} "
            f"cached={first.cached_tokens} passes={first.decoded.passes} "
            f"waited={first.waited_sec * 1e3:.1f}ms"
        )
        if len(found) > 1:
            request.state.note += f" messages={len(found)}"
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens."""
        if self._service.model is None:
            raise NotReady
        return self._service.model.vocabulary.decode(tokens)


async def _unless_gone(answer: Coroutine[Any, Any, T], request: Request) -> T:
    """An answer, unless its client goes away before: then it is cancelled."""
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
