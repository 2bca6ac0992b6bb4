"""Who is refused before the model is asked, on the service's own threads and a slow engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from stages.intent.sequences import Part
from stages.serve.model import IntentModel
from stages.serve.service import Service, TooLate
from tests.stages.hash_engines import Many

PASS_SEC = 0.02
REQUEST = ((("Milk (1L)", "Bread (500g)"), "two milks"),)


class Slow(Many):
    """Takes its time for a pass, and one request at a time."""

    cache_bytes, context_tokens = 0, 1_000

    def __init__(self) -> None:
        super().__init__(slots=1)

    def eval_parts(self, parts: Sequence[Part]) -> list[list[Sequence[float]]]:
        time.sleep(PASS_SEC)
        return super().eval_parts(parts)


def test_what_would_take_too_long_by_the_pace_is_refused_at_once() -> None:
    failures: list[BaseException] = []

    async def ask(service: Service) -> None:
        while not service.ready:
            await asyncio.sleep(0.01)
        # No pace is known yet: as many as wait, nobody is refused for it.
        many = asyncio.create_task(service.answer_all(REQUEST * 500))
        await asyncio.sleep(0)
        assert service.waiting == 500
        few = asyncio.create_task(service.answer_all(REQUEST * 3))
        await asyncio.sleep(0)
        assert service.waiting == 503
        many.cancel()
        assert len(await few) == 3
        # A request takes a pass at least, and 500 more than the deadline.
        many = asyncio.create_task(service.answer_all(REQUEST * 500))
        await asyncio.sleep(0)
        with pytest.raises(TooLate, match=r"the answer would take \d+\.\d s, and 5 s is the most"):
            service.answer_all(REQUEST).send(None)  # it does not wait for anything
        assert service.waiting == 500
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        # Nobody waits: the same pace refuses nobody.
        assert len(await service.answer_all(REQUEST)) == 1
        assert service.waiting == 0

    engine: Any = Slow()
    service = Service(lambda: IntentModel(engine, 10_000), 600, 5.0, failures.append)
    service.start()
    try:
        asyncio.run(ask(service))
    finally:
        service.close()
    assert failures == []
