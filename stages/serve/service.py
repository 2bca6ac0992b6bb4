"""The queue before the model: bounded, first come first served, answered by one thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from stages.intent.decode import Decoded
from stages.serve.model import IntentModel


class NotReady(Exception):
    """The model is still loading, or the service is draining."""


class QueueFull(Exception):
    """As many requests wait as may."""


class Service:
    """One model and its queue; every method is called from the event loop's thread.

    Args:
        load: loads the model and checks it; runs in the model's thread.
        max_waiting: requests that may be queued or in work at once.
        failed: called with what `load` raised, from the model's thread.
    """

    def __init__(
        self,
        load: Callable[[], IntentModel],
        max_waiting: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._load = load
        self._failed = failed
        self._max_waiting = max_waiting
        self._waiting = 0
        self._draining = False
        self._model: IntentModel | None = None
        self._loaded = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def start(self) -> None:
        """Begins to load the model; `ready` turns true when it has answered the golden request."""
        self._thread.submit(self._start)

    def _start(self) -> None:
        try:
            self._model = self._load()
            self._loaded.set()
        except BaseException as error:
            self._failed(error)

    @property
    def ready(self) -> bool:
        return self._loaded.is_set() and not self._draining

    def drain(self) -> None:
        """Takes no further requests; those accepted are still answered."""
        self._draining = True

    def close(self) -> None:
        """Waits until the model's thread has ended."""
        self._thread.shutdown(wait=True)

    async def answer(self, catalog: Sequence[str], message: str) -> tuple[Decoded, float]:
        """Answers a request when its turn comes.

        Returns:
            The answer, and how long the request waited for the model, in seconds.

        Raises:
            NotReady: The model is not there yet, or not any more.
            QueueFull: Too many requests wait already.
            RequestError: The catalog or the message is refused.
        """
        if not self.ready or self._model is None:
            raise NotReady
        model = self._model
        model.validate(catalog, message)
        if self._waiting >= self._max_waiting:
            raise QueueFull
        queued_sec = time.perf_counter()

        def work() -> tuple[Decoded, float]:
            waited_sec = time.perf_counter() - queued_sec
            return model.answer(catalog, message), waited_sec

        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._thread.submit(work))
        finally:
            self._waiting -= 1
