"""Asking for rows, several at once, until each has one or was given up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from stages.collect.checks import row_of
from stages.collect.progress import Outcome, Progress
from stages.collect.wishes import Wish
from stages.core.errors import StageFailed
from stages.data.leaks import normalize
from stages.intent.rows import Row

ATTEMPTS = 3
# A model that can write none of so many rows will not write the others.
HOPELESS_ROWS = 20


def fill(
    draw: Callable[[int], Wish],
    ask: Callable[[Wish], tuple[str, str]],
    progress: Progress,
    *,
    rows: int,
    source: str,
    concurrency: int,
    tell: Callable[[str], None],
) -> None:
    """Asks for every row that has no outcome yet; outcomes are kept as they come.

    Args:
        draw: the wish of a row's number.
        ask: the model's text for a wish, and why it cannot be used whatever it says, else "".
        progress: gets the outcomes.
        rows: how many rows there are to be.
        source: where the rows are from.
        concurrency: requests at once.
        tell: is given a line now and then.

    Raises:
        StageFailed: nothing that the model wrote can be used; or what `ask` raises.
    """
    kept = [one.row for one in progress.outcomes.values() if one.row is not None]
    taken = {normalize(row.message) for row in kept}
    missing = [index for index in range(rows) if index not in progress.outcomes]
    if len(missing) < rows:
        tell(f"going on after {rows - len(missing):,} of {rows:,} rows")
    lock, stop = threading.Lock(), threading.Event()

    def accept(wish: Wish, text: str) -> Row:
        row = row_of(wish, text, source)
        with lock:
            if normalize(row.message) in taken:
                raise ValueError("the message repeats another row's")
            taken.add(normalize(row.message))
        return row

    def work(index: int) -> Outcome | None:
        wish, rejects = draw(index), []
        for _ in range(ATTEMPTS):
            if stop.is_set():
                return None
            text, reason = ask(wish)
            try:
                if reason:
                    raise ValueError(reason)
                return Outcome(index, accept(wish, text), tuple(rejects))
            except ValueError as error:
                rejects.append({"reason": str(error), "text": text})
        return Outcome(index, None, tuple(rejects))

    queue = iter(missing)
    with ThreadPoolExecutor(concurrency) as pool:
        under_way = {pool.submit(work, index) for index in islice(queue, concurrency)}
        try:
            while under_way:
                ended, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in ended:
                    _keep(future, progress)
                    under_way.remove(future)
                    under_way |= {pool.submit(work, index) for index in islice(queue, 1)}
                    _check_hope(progress)
                    done = len(progress.outcomes)
                    if done % max(1, rows // 20) == 0:
                        tell(f"{done:,} of {rows:,} rows")
        except BaseException:
            # What is under way is paid for: it is waited for and kept.
            stop.set()
            pool.shutdown()
            for future in under_way:
                if future.exception() is None:
                    _keep(future, progress)
            raise


def _keep(future: Future[Outcome | None], progress: Progress) -> None:
    outcome = future.result()
    if outcome is not None:
        progress.add(outcome)


def _check_hope(progress: Progress) -> None:
    outcomes = progress.outcomes
    if len(outcomes) >= HOPELESS_ROWS and all(one.row is None for one in outcomes.values()):
        [(reason, _)] = reasons(outcomes).most_common(1)
        raise StageFailed(
            f"none of the first {len(outcomes)} rows can be used (mostly because {reason}); take "
            "a model that can follow the instruction"
        )


def reasons(outcomes: Mapping[int, Outcome]) -> Counter[str]:
    """How often each reason rejected an attempt."""
    return Counter(reject["reason"] for one in outcomes.values() for reject in one.rejects)
