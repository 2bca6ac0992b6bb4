"""Requests decoded together, on an engine whose logits are a hash of all that a sequence holds.

So an answer is right only if every token before it was in the right place of the right sequence.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence, Sized
from concurrent.futures import CancelledError, Future

import pytest

from stages.intent import rules
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.trie import AnswerTrie
from stages.intent.walk import Decoded
from stages.serve.requests import Preparer
from stages.serve.scheduler import Answered, Scheduler
from tests.stages.hash_engines import PASS_TOKENS, Many, One

CATALOGS = [
    [f"{what} ({size}g)" for what in ("Milk", "Rye Bread", "Butter") for size in sizes]
    for sizes in ((1, 10), (250, 500), (20, 30, 40))
]
MESSAGES = ["two milks", "no bread", "makni 12 Butter (250g), hvala", "quita la leche " * 4, "x"]


class Asked:
    """A scheduler, and how requests come to it."""

    def __init__(self, engine: Many, kept: int = 10_000) -> None:
        self.engine = engine
        self.scheduler = Scheduler(engine, kept)
        self.preparer = Preparer(engine, engine.cells)

    def __call__(self, catalog: Sequence[str], message: str) -> Future[Answered]:
        return self.scheduler.submit(self.preparer.prepare(catalog, message))

    def finish(self) -> None:
        while self.scheduler.step():
            pass
        assert self.engine.used == 0
        assert self.scheduler._free_cells == self.engine.cells
        assert sorted(self.scheduler._free_sequences) == list(range(self.engine.slots))


def alone(catalog: Sequence[str], message: str) -> Decoded:
    engine = One()
    trie = AnswerTrie(engine.encode, catalog)
    prompt = prompt_tokens(engine, catalog, message)
    return constrained(engine, trie, prompt, rules.guess(message))


def same(answered: Answered, decoded: Decoded) -> bool:
    return (answered.decoded.answer, answered.decoded.probability) == (
        decoded.answer,
        decoded.probability,
    )


@pytest.mark.parametrize("kept", [0, 150, 10_000])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"slots": 1},
        {"slots": 40},
        {"cells": 330},
        {"pass_tokens": 16, "pass_logits": 2},
        {"pass_tokens": 130, "pass_logits": 3, "slots": 9, "cells": 900},
    ],
)
def test_answers_together_are_those_alone(limits: dict[str, int], kept: int) -> None:
    asked = Asked(Many(**limits), kept)
    rng = random.Random(5)
    requests = [(rng.choice(CATALOGS), rng.choice(MESSAGES)) for _ in range(60)]
    futures = []
    for catalog, message in requests:
        futures.append(asked(catalog, message))
        for _ in range(rng.choice((0, 0, 1, 3))):
            asked.scheduler.step()
    asked.finish()
    for (catalog, message), future in zip(requests, futures, strict=True):
        assert same(future.result(timeout=0), alone(catalog, message))
    counts = asked.scheduler.counts
    assert counts.hits + counts.misses == len(requests)
    assert counts.kept_bytes <= kept
    assert counts.passes == len(asked.engine.passes)
    if kept == 10_000:
        assert counts.misses == counts.kept == len(CATALOGS)


def test_a_catalog_is_computed_once_for_all_that_ask_at_once() -> None:
    asked = Asked(Many(slots=8))
    work = [asked.preparer.prepare(CATALOGS[0], message) for message in MESSAGES]
    futures = [asked.scheduler.submit(one) for one in work]
    asked.finish()
    size = len(work[0].prefix)
    assert asked.engine.decode(work[0].prefix[1:]).endswith("\n\nUser:\n")
    assert [future.result().cached_tokens for future in futures] == [0, size, size, size, size]
    counts = asked.scheduler.counts
    assert (counts.hits, counts.misses) == (4, 1)
    later = asked(CATALOGS[0], "later")
    asked.engine.passes.clear()
    asked.finish()
    assert later.result().cached_tokens == size
    assert sum(asked.engine.passes[0].values()) < len("later\n\nAnswer:\n") + 60


def test_long_prompts_keep_nobody_waiting_and_come_to_their_end() -> None:
    long = [[f"Product number {n} of {k}" for n in range(40)] for k in range(3)]
    asked = Asked(Many(cells=20_000, slots=8))
    slow = [asked(catalog, "add 2") for catalog in long]
    assert len(asked.preparer.prepare(long[0], "add 2").prefix) > 5 * PASS_TOKENS
    asked.scheduler.step()
    assert asked.engine.passes == [{7: PASS_TOKENS}]
    # Two that have to be computed too, and one whose catalog is there.
    quick = [asked(CATALOGS[0], message) for message in ("x", "y", "z")]
    for _ in range(2 + alone(CATALOGS[0], "x").passes):
        asked.scheduler.step()
        assert sum(asked.engine.passes[-1].values()) <= PASS_TOKENS
        assert asked.engine.passes[-1][7] >= PASS_TOKENS // 8, "the oldest comes on in every pass"
    assert quick[0].done()
    while not all(future.done() for future in quick):
        asked.scheduler.step()
    assert not any(future.done() for future in slow)
    # Those without an end of short ones do not stop it either.
    for number in range(60):
        if slow[0].done():
            break
        for _ in range(3):
            asked(CATALOGS[number % 3], "x")
        asked.scheduler.step()
        assert slow[0].done() or asked.engine.passes[-1].get(7), "it comes on in every pass"
    assert slow[0].done()
    asked.finish()
    for catalog, future in zip(long, slow, strict=True):
        assert same(future.result(), alone(catalog, "add 2"))


def test_a_pass_has_few_requests_but_more_of_one_catalog() -> None:
    asked = Asked(Many(slots=40, cells=20_000))
    for catalog in CATALOGS:
        asked(catalog, "x")
    asked.finish()
    feed = asked.preparer.prepare(CATALOGS[0], "x").walk.feed
    assert feed is not None
    left = len(feed.tokens) - len(asked.preparer.prepare(CATALOGS[0], "x").prefix)
    few = -(-(PASS_TOKENS // 2) // left)
    more = -(-PASS_TOKENS // left)
    for catalogs, expected in ((CATALOGS, few), (CATALOGS[:1], more)):
        for number in range(12):
            asked(catalogs[number % len(catalogs)], "x")
        asked.scheduler.step()
        assert len(asked.scheduler._active) in (expected, expected - 1)
        asked.finish()


def test_a_request_alone_has_the_whole_pass() -> None:
    asked = Asked(Many())
    asked([f"Product number {n}" for n in range(60)], "add 2")
    asked.scheduler.step()
    assert asked.engine.passes == [{3: PASS_TOKENS}]


def test_who_does_not_fit_waits_and_nobody_passes_it() -> None:
    small, large = ["Milk"], [f"Product number {n}" for n in range(15)]
    asked = Asked(Many(cells=600, slots=9))
    futures = [asked(catalog, "add 2") for catalog in (large, large[::-1], small)]
    order: list[int] = []
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: order.append(number))
    asked.scheduler.step()
    assert len(asked.scheduler._active) == 1
    asked.finish()
    assert order[0] == 0
    assert futures[0].result().waited_sec < futures[1].result().waited_sec


def test_cancelled_requests_are_gone_before_the_next_pass() -> None:
    asked = Asked(Many(slots=2))
    long = [f"Product number {n}" for n in range(90)]
    working, staying, queued = (asked(c, "add 2") for c in (long, CATALOGS[0], CATALOGS[1]))
    asked.scheduler.step()
    assert [one.future for one in asked.scheduler._active] == [working, staying]
    assert working.cancel() and queued.cancel()
    replacing = asked(CATALOGS[2], "add 3")
    asked.scheduler.step()
    assert working not in [one.future for one in asked.scheduler._active]
    assert asked.engine.passes[-1].get(0), "the one beside it went on"
    assert asked.engine.used == sum(len(held) for held in asked.engine.held)
    asked.finish()
    for future, catalog, message in (
        (staying, CATALOGS[0], "add 2"),
        (replacing, CATALOGS[2], "add 3"),
    ):
        assert same(future.result(), alone(catalog, message))
    with pytest.raises(CancelledError):
        queued.result()
    assert asked.scheduler.counts.hits + asked.scheduler.counts.misses == 3


def test_a_catalog_that_was_begun_is_finished_for_those_who_wait() -> None:
    asked = Asked(Many(pass_tokens=28))
    first, second, third = (asked(CATALOGS[0], message) for message in ("one", "two", "three"))
    asked.scheduler.step()
    asked.scheduler.step()
    assert first.cancel()
    asked.scheduler.step()
    assert asked.engine.passes[-1] == {2: 28}
    assert second.cancel()
    asked.finish()
    assert same(third.result(), alone(CATALOGS[0], "three"))
    assert third.result().cached_tokens == 3 * 28
    # Nothing was computed twice.
    prompt = asked.preparer.prepare(CATALOGS[0], "three")
    fed = sum(sum(sizes.values()) for sizes in asked.engine.passes)
    assert fed <= prompt.prompt_tokens + 2 * prompt.answer_tokens


def test_a_failed_pass_fails_its_requests_and_no_later_ones() -> None:
    asked = Asked(Many())
    futures = [asked(CATALOGS[0], "one"), asked(CATALOGS[1], "two")]
    asked.engine.broken = True
    asked.scheduler.step()
    for future in futures:
        with pytest.raises(RuntimeError, match="broken"):
            future.result(timeout=0)
    asked.engine.broken = False
    later = asked(CATALOGS[0], "three")
    asked.finish()
    assert same(later.result(), alone(CATALOGS[0], "three"))


def test_a_state_that_cannot_be_restored_fails_its_request_alone() -> None:
    class Forgetful(Many):
        def restore(self, sequence: int, state: Sized) -> None:
            raise RuntimeError("broken")

    asked = Asked(Forgetful())
    asked(CATALOGS[0], "one")
    asked.finish()
    unlucky = asked(CATALOGS[0], "two")
    asked.finish()
    with pytest.raises(RuntimeError, match="broken"):
        unlucky.result(timeout=0)
    lucky = asked(CATALOGS[1], "three")
    asked.finish()
    assert same(lucky.result(timeout=0), alone(CATALOGS[1], "three"))


def test_a_thread_works_until_everything_is_answered() -> None:
    asked = Asked(Many())
    thread = threading.Thread(target=asked.scheduler.run)
    thread.start()
    first = asked(CATALOGS[0], "one").result(timeout=10)
    assert same(first, alone(CATALOGS[0], "one"))
    futures = [asked(catalog, message) for catalog in CATALOGS for message in MESSAGES]
    asked.scheduler.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert all(future.done() for future in futures)


def test_a_walk_that_fails_fails_alone() -> None:
    asked = Asked(Many())
    broken = asked.preparer.prepare(CATALOGS[0], "one")
    broken.walk.take = lambda _logits: 1 / 0  # type: ignore[method-assign]
    unlucky, lucky = asked.scheduler.submit(broken), asked(CATALOGS[0], "two")
    asked.finish()
    with pytest.raises(ZeroDivisionError):
        unlucky.result(timeout=0)
    assert same(lucky.result(timeout=0), alone(CATALOGS[0], "two"))


def test_a_bug_that_ends_the_thread_leaves_nobody_waiting() -> None:
    class Buggy(Many):
        def drop(self, sequence: int) -> None:
            raise ZeroDivisionError

    asked = Asked(Buggy(slots=1))
    futures = [asked(catalog, "one") for catalog in CATALOGS]
    with pytest.raises(ZeroDivisionError):
        asked.scheduler.run()
    for future in futures:
        with pytest.raises(RuntimeError, match="thread has ended"):
            future.result(timeout=0)
    with pytest.raises(RuntimeError, match="thread has ended"):
        asked(CATALOGS[0], "two")
