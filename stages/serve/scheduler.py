"""Requests decoded together: one thread, one cache, a pass for all of them at a time.

A request waits in a queue, is admitted when its cells are free, takes part in passes until its walk
is over, and leaves. Its catalog's part of the prompt is computed once: requests on one catalog
share its cells, and when it is computed its key-value state is saved too, outside the cache, for
the requests that come after these. Among the states that are kept, those used last stay.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence, Sized
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass, field, replace

from stages.intent.sequences import Part, Sequences
from stages.intent.walk import Decoded, Feed
from stages.serve.kept import Kept
from stages.serve.requests import Work

# A long prompt lets those go first of which it is so many times as long.
_MUCH_LONGER = 4


@dataclass(frozen=True)
class Answered:
    """An answer and how it came about.

    Attributes:
        cached_tokens: of the prompt, which were not computed for this request.
        waited_sec: from `submit` until the request was admitted.
        tokens: token ids of the answer.
    """

    decoded: Decoded
    cached_tokens: int
    waited_sec: float
    tokens: Sequence[int]


@dataclass(frozen=True)
class Counts:
    """What a scheduler did so far.

    Attributes:
        hits: requests admitted whose catalog was there, or in work.
        misses: requests admitted whose catalog had to be computed.
        kept: catalogs kept outside the cache.
        kept_bytes: their size.
        passes: passes of the model.
    """

    hits: int
    misses: int
    kept: int
    kept_bytes: int
    passes: int


@dataclass(eq=False)
class _Catalog:
    """A catalog in work: its users in order of arrival; the first computes what is missing."""

    prefix: tuple[int, ...]
    is_whole: bool = False
    users: list[_Active] = field(default_factory=list)


@dataclass(eq=False)
class _Active:
    """An admitted request; of its walk's feed, `done` tokens went through the model already."""

    work: Work
    feed: Feed
    future: Future[Answered]
    sequence: int
    catalog: _Catalog
    waited_sec: float
    cached_tokens: int = 0
    done: int = 0
    logits: list[Sequence[float]] = field(default_factory=list)
    passes: int = 0

    @property
    def left(self) -> int:
        return len(self.feed.tokens) - self.done

    def part(self, most_tokens: int, most_logits: int) -> Part:
        """The next tokens of the feed, within limits."""
        end = self.done + min(self.left, most_tokens)
        wanted = [place for place in self.feed.wanted if self.done <= place < end]
        if len(wanted) > most_logits:
            end = wanted[most_logits]
            wanted = wanted[:most_logits]
        return Part(
            self.sequence,
            self.feed.tokens[self.done : end],
            self.feed.n_past + self.done,
            [place - self.done for place in wanted],
        )


class Scheduler:
    """Runs passes; `submit` and `counts` are for any thread, the rest for the model's.

    Args:
        engine: the model; its cells are for the requests in work.
        kept_bytes: most that the states of catalogs may take outside the cache.
    """

    def __init__(self, engine: Sequences, kept_bytes: int) -> None:
        self._engine = engine
        self._kept: Kept[tuple[int, ...], Sized] = Kept(kept_bytes)
        self._changed = threading.Condition()
        self._queue: deque[tuple[Work, Future[Answered], float]] = deque()
        self._is_stopping = self._has_ended = False
        self._active: list[_Active] = []
        self._catalogs: dict[tuple[int, ...], _Catalog] = {}
        self._free_cells = engine.cells
        self._free_sequences = list(range(engine.slots))
        self._hits = self._misses = self._passes = 0

    @property
    def counts(self) -> Counts:
        return Counts(self._hits, self._misses, len(self._kept), self._kept.size, self._passes)

    def submit(self, work: Work) -> Future[Answered]:
        """Queues a request; a future that is cancelled gives up its place before the next pass.

        Args:
            work: with the answer it needs no more cells than the cache has.
        """
        future: Future[Answered] = Future()
        with self._changed:
            if self._has_ended:
                raise RuntimeError("the model's thread has ended")
            self._queue.append((work, future, time.perf_counter()))
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Lets `run` end when everything that was submitted is answered."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def run(self) -> None:
        """Works until `stop`; if a bug ends it before, whoever waits is told."""
        try:
            while True:
                while self.step():
                    pass
                with self._changed:
                    self._changed.wait_for(lambda: self._queue or self._is_stopping)
                    if not self._queue:
                        return
        finally:
            with self._changed:
                self._has_ended = True
                left = [one.future for one in self._active] + [one[1] for one in self._queue]
            for future in left:
                if future.set_running_or_notify_cancel():
                    future.set_exception(RuntimeError("the model's thread has ended"))

    def step(self) -> bool:
        """Drops what was cancelled, admits what fits, and runs one pass.

        Returns:
            Whether a request was in work.
        """
        for active in self._active[:]:
            if active.future.cancelled():
                self._leave(active)
        try:
            self._admit()
            if not self._active:
                return False
            self._pass()
        except RuntimeError as error:
            # The engine refused: whose fault it is, nobody knows.
            for active in self._active[:]:
                self._fail(active, error)
        return True

    # ------------------------------------------------------------------ coming and going

    def _admit(self) -> None:
        """First come, first served: what does not fit lets nothing pass."""
        while True:
            with self._changed:
                while self._queue and self._queue[0][1].cancelled():
                    self._queue.popleft()
                if not self._queue:
                    return
                if not self._fits(self._queue[0][0]):
                    assert self._active, "a request does not fit the empty cache"
                    return
                work, future, since_sec = self._queue.popleft()
            self._enter(work, future, time.perf_counter() - since_sec)

    def _fits(self, work: Work) -> bool:
        """Whether there is a sequence and room for it, and the next pass is not full yet.

        A pass goes over every cell in use for every token, whosever they are: so there are few
        requests at a time, and twice as many where they share a catalog's cells.
        """
        _, short = self._ready()
        full = self._engine.pass_tokens
        return (
            sum(one.left for one in short) < (full if work.prefix in self._catalogs else full // 2)
            and bool(self._free_sequences)
            and self._missing_cells(work) <= self._free_cells
        )

    def _missing_cells(self, work: Work) -> int:
        shared = work.prefix in self._catalogs
        return _cells(work) + (0 if shared else len(work.prefix))

    def _enter(self, work: Work, future: Future[Answered], waited_sec: float) -> None:
        """Gives a request a sequence, its cells, and what there is of its catalog."""
        assert work.walk.feed is not None
        self._free_cells -= self._missing_cells(work)
        catalog = self._catalogs.setdefault(work.prefix, _Catalog(work.prefix))
        sequence = self._free_sequences.pop()
        active = _Active(work, work.walk.feed, future, sequence, catalog, waited_sec)
        self._active.append(active)
        catalog.users.append(active)
        state = None if len(catalog.users) > 1 else self._kept.get(work.prefix)
        if catalog.is_whole:
            self._share(catalog, active)
        elif state is not None:
            self._engine.restore(sequence, state)
            active.done = active.cached_tokens = len(work.prefix)
            catalog.is_whole = True
        elif len(catalog.users) == 1:
            self._misses += 1
            return
        self._hits += 1

    def _share(self, catalog: _Catalog, active: _Active) -> None:
        """Lets a request begin with a catalog that another has in its sequence."""
        self._engine.copy(catalog.users[0].sequence, active.sequence, len(catalog.prefix))
        active.done = active.cached_tokens = len(catalog.prefix)

    def _leave(self, active: _Active) -> None:
        """Frees what a request has; what it computed of a catalog goes to the next user."""
        catalog = active.catalog
        was_first = catalog.users[0] is active
        catalog.users.remove(active)
        if catalog.users:
            first = catalog.users[0]
            if was_first and not catalog.is_whole and active.done:
                self._engine.copy(active.sequence, first.sequence, active.done)
                first.done = first.cached_tokens = active.done
        else:
            del self._catalogs[catalog.prefix]
            self._free_cells += len(catalog.prefix)
        self._engine.drop(active.sequence)
        self._active.remove(active)
        self._free_sequences.append(active.sequence)
        self._free_cells += _cells(active.work)

    def _fail(self, active: _Active, error: Exception) -> None:
        self._leave(active)
        if active.future.set_running_or_notify_cancel():
            active.future.set_exception(error)

    # ------------------------------------------------------------------ passes

    def _pass(self) -> None:
        plan = self._plan()
        rows = self._engine.eval_parts([part for _, part in plan])
        self._passes += 1
        for (active, part), logits in zip(plan, rows, strict=True):
            active.passes += 1
            active.done += len(part.tokens)
            # The engine's own memory is overwritten by the next pass.
            active.logits += [copy(row) for row in logits] if active.left else logits
        for active, _ in plan:
            catalog = active.catalog
            if not catalog.is_whole and active.done >= len(catalog.prefix):
                self._complete(catalog)
        for active, _ in plan:
            if not active.left:
                self._advance(active)

    def _ready(self) -> tuple[list[_Active], list[_Active]]:
        """Who does not wait for another to compute its catalog: with much left, and with little."""
        ready = [one for one in self._active if one.catalog.is_whole or one.catalog.users[0] is one]
        full = self._engine.pass_tokens
        return [x for x in ready if x.left > full], [x for x in ready if x.left <= full]

    def _plan(self) -> list[tuple[_Active, Part]]:
        """Who has how much of the next pass.

        First come, first served: the short ones, then the long ones; but a quarter is for long ones
        whatever there is, and where there are both the pass is no longer than it has to be. A long
        one that is much longer than others lets them go first, but for a half of that quarter. So
        nobody waits for a long prompt, and every long prompt comes to its end.
        """
        long, short = self._ready()
        tokens, logits = self._engine.pass_tokens, self._engine.pass_logits
        oldest, for_long = None, 0
        if long:
            oldest, for_long = long[0], tokens // 4
            # Stable: otherwise in the order they came.
            long.sort(key=lambda one: _MUCH_LONGER * one.left > oldest.left)
            if short:
                asked = sum(one.left for one in short) + for_long
                tokens = min(tokens, max(tokens // 2, asked))
        plan = []
        for active in [*short, *long]:
            kept = for_long // 2 if active in long else for_long
            if active is oldest:
                kept = for_long = 0
            part = active.part(max(0, tokens - kept), logits)
            if part.tokens:
                plan.append((active, part))
                tokens -= len(part.tokens)
                logits -= len(part.wanted)
        return plan

    def _complete(self, catalog: _Catalog) -> None:
        """A catalog's state is there: it is saved, and those who waited for it begin with it."""
        catalog.is_whole = True
        size, sequence = len(catalog.prefix), catalog.users[0].sequence
        state = self._engine.save(sequence, size)
        self._kept.put(catalog.prefix, state, len(state))
        for waiting in catalog.users[1:]:
            self._share(catalog, waiting)

    def _advance(self, active: _Active) -> None:
        """Takes a walk on by the logits of its whole feed."""
        walk = active.work.walk
        try:
            walk.take(active.logits)
        except Exception as error:
            self._fail(active, error)
            return
        if walk.feed is not None:
            active.feed, active.done, active.logits = walk.feed, 0, []
            return
        decoded = replace(walk.decoded, passes=active.passes)
        self._leave(active)
        if active.future.set_running_or_notify_cancel():
            active.future.set_result(
                Answered(decoded, active.cached_tokens, active.waited_sec, walk.tokens)
            )


def _cells(work: Work) -> int:
    """The cells that a request does not share."""
    return work.prompt_tokens - len(work.prefix) + work.answer_tokens
