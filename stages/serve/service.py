"""The event loop's side of the model: how many requests may be there, and who waits for which."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from stages.serve.model import IntentModel
from stages.serve.scheduler import Answered


class NotReady(Exception):
    """The model is still loading, or the service is draining."""


class QueueFull(Exception):
    """As many requests wait as may."""


class Service:
    """One model, its thread, and the thread that makes requests ready for it.

    Every method is called from the event loop's thread, but for `close`.

    Args:
        load: loads the model and checks it; runs in the model's thread.
        max_waiting: requests that may be queued or in work at once.
        failed: called with what ended the model's thread too early, from that thread.
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
        self._closing = threading.Event()
        self._model: IntentModel | None = None
        self._thread = threading.Thread(target=self._work, name="model")
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")

    def start(self) -> None:
        """Begins to load the model; `ready` turns true when it has answered the golden request."""
        self._thread.start()

    def _work(self) -> None:
        try:
            model = self._load()
            self._model = model
            # `close` either sees the model or is seen here.
            if self._closing.is_set():
                model.scheduler.stop()
            model.scheduler.run()
        except BaseException as error:
            self._failed(error)

    @property
    def ready(self) -> bool:
        return self._model is not None and not self._draining

    def drain(self) -> None:
        """Takes no further requests; those accepted are still answered."""
        self._draining = True

    def close(self) -> None:
        """Waits until the service's threads have ended; nobody may wait for an answer any more."""
        self._preparing.shutdown(wait=True)
        self._closing.set()
        if self._model is not None:
            self._model.scheduler.stop()
        self._thread.join()

    async def answer(self, catalog: Sequence[str], message: str) -> Answered:
        """Answers a request; one that is cancelled leaves the model before its next pass.

        Raises:
            NotReady: The model is not there yet, or not any more.
            QueueFull: Too many requests wait already.
            RequestError: The catalog or the message is refused.
        """
        model = self._model
        if model is None or self._draining:
            raise NotReady
        model.validate(catalog, message)
        if self._waiting >= self._max_waiting:
            raise QueueFull
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            prepare = model.preparer.prepare
            work = await loop.run_in_executor(self._preparing, prepare, catalog, message)
            return await asyncio.wrap_future(model.scheduler.submit(work))
        finally:
            self._waiting -= 1
