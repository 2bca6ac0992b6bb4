"""The event loop's side of the model: how many requests may be there, and who waits for which."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from stages.serve.model import IntentModel
from stages.serve.scheduler import Answered


class NotReady(Exception):
    """The model is still loading, or the service is draining."""


class QueueFull(Exception):
    """As many requests wait as may."""


class TooLate(Exception):
    """The answer does not come, or would not come, within the deadline."""


class _Pace:
    """How long the model takes for a request where others wait for it, lately."""

    _WEIGHT = 0.1

    def __init__(self) -> None:
        self.request_sec = 0.0
        self._since_sec: float | None = None

    def answered(self, others: int) -> None:
        """A request is answered, and so many are left."""
        now_sec = time.perf_counter()
        if self._since_sec is not None:
            took_sec = now_sec - self._since_sec
            known = self.request_sec or took_sec
            self.request_sec = known + self._WEIGHT * (took_sec - known)
        self._since_sec = now_sec if others else None


class Service:
    """One model, its thread, and the thread that makes requests ready for it.

    Every method is called from the event loop's thread, but for `close`.

    Attributes:
        model: once it is loaded.
        waiting: requests queued or in work.
        max_waiting: most that may be.

    Args:
        load: loads the model and checks it; runs in the model's thread.
        max_waiting: requests that may be queued or in work at once.
        deadline_sec: longest that a request may take; what cannot be answered in time by the pace
            of late is refused at once.
        failed: called with what ended the model's thread too early, from that thread.
    """

    def __init__(
        self,
        load: Callable[[], IntentModel],
        max_waiting: int,
        deadline_sec: float,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._load = load
        self._failed = failed
        self._deadline_sec = deadline_sec
        self._pace = _Pace()
        self.max_waiting = max_waiting
        self.waiting = 0
        self._draining = False
        self._closing = threading.Event()
        self.model: IntentModel | None = None
        self._thread = threading.Thread(target=self._work, name="model")
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")

    def start(self) -> None:
        """Begins to load the model; `ready` turns true when it has answered the golden request."""
        self._thread.start()

    def _work(self) -> None:
        try:
            model = self._load()
            self.model = model
            # `close` either sees the model or is seen here.
            if self._closing.is_set():
                model.scheduler.stop()
            model.scheduler.run()
        except BaseException as error:
            self._failed(error)

    @property
    def ready(self) -> bool:
        return self.model is not None and not self._draining

    def drain(self) -> None:
        """Takes no further requests; those accepted are still answered."""
        self._draining = True

    def close(self) -> None:
        """Waits until the service's threads have ended; nobody may wait for an answer any more."""
        self._preparing.shutdown(wait=True)
        self._closing.set()
        if self.model is not None:
            self.model.scheduler.stop()
        self._thread.join()

    def require_room(self, requests: int) -> None:
        """Checks that so many requests more can be answered.

        Raises:
            NotReady: The model is not there yet, or not any more.
            QueueFull: Too many requests wait already.
            TooLate: Those that wait take longer than the deadline.
        """
        self._loaded()
        if self.waiting + requests > self.max_waiting:
            raise QueueFull
        # Of those ahead alone: else a pace that was slow once would refuse everybody for good.
        expected_sec = self.waiting * self._pace.request_sec
        if expected_sec > self._deadline_sec:
            raise TooLate(
                f"the answer would take {expected_sec:.1f} s, and {self._deadline_sec:g} s is the "
                "most: send this request again later"
            )

    def _loaded(self) -> IntentModel:
        if self.model is None or self._draining:
            raise NotReady
        return self.model

    async def answer_all(self, asked: Sequence[tuple[Sequence[str], str]]) -> list[Answered]:
        """Answers requests, all or none; those that are cancelled leave before the next pass.

        Args:
            asked: catalogs and messages.

        Raises:
            NotReady: The model is not there yet, or not any more.
            QueueFull: Too many requests wait already.
            TooLate: The answers do not come within the deadline.
            RequestError: A catalog or a message is refused.
        """
        model = self._loaded()
        for catalog, message in asked:
            model.validate(catalog, message)
        self.require_room(len(asked))
        self.waiting += len(asked)
        answering = [asyncio.ensure_future(self._answer(model, *one)) for one in asked]
        try:
            async with asyncio.timeout(self._deadline_sec):
                return await asyncio.gather(*answering)
        except TimeoutError as error:
            raise TooLate(
                f"the answer did not come within {self._deadline_sec:g} s: send this request again "
                "later"
            ) from error
        finally:
            for one in answering:
                one.cancel()
            self.waiting -= len(asked)

    async def _answer(self, model: IntentModel, catalog: Sequence[str], message: str) -> Answered:
        loop = asyncio.get_running_loop()
        prepare = model.preparer.prepare
        work = await loop.run_in_executor(self._preparing, prepare, catalog, message)
        answered = await asyncio.wrap_future(model.scheduler.submit(work))
        self._pace.answered(self.waiting - 1)
        return answered
