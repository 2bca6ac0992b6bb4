"""The llama.cpp engine of many sequences on a real file: shared cells, saved states, bounds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.bench_cpu.dataset import SAMPLE
from stages.core.errors import InputError
from stages.intent import rules
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.rows import Row, read_rows
from stages.intent.sequences import Part
from stages.intent.trie import AnswerTrie
from stages.runtime.llama import LlamaEngine
from stages.runtime.llama_many import LlamaSequences
from stages.serve.requests import Preparer
from stages.serve.scheduler import Scheduler

MODEL = Path(os.environ["CARTWRIGHT_TEST_GGUF"])
ROWS = read_rows(SAMPLE)


@pytest.fixture(scope="module")
def loaded() -> Iterator[LlamaSequences]:
    engine = LlamaSequences(MODEL, slots=8, context_tokens=512, threads=1, pass_tokens=512)
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded: LlamaSequences) -> LlamaSequences:
    for sequence in range(loaded.slots):
        loaded.drop(sequence)
    return loaded


@pytest.fixture(scope="module")
def prompts(loaded: LlamaSequences) -> list[list[int]]:
    """Up to the middle of a message: what follows is another for each."""
    rows = ROWS[::5][:6]
    return [prompt_tokens(loaded, row.catalog, row.message)[:-12] for row in rows]


def last(engine: LlamaSequences, *parts: tuple[int, Sequence[int], int]) -> list[np.ndarray]:
    """The logits after each part's last token."""
    asked = [Part(seq, tokens, n_past, [len(tokens) - 1]) for seq, tokens, n_past in parts]
    return [np.array(rows[0]) for rows in engine.eval_parts(asked)]


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """The same but for the rounding of other kernels; other texts are some 3 apart."""
    return bool(np.abs(one - other).mean() < 0.4)


def test_sequences_of_one_pass_do_not_see_each_other(
    engine: LlamaSequences, prompts: list[list[int]]
) -> None:
    alone = []
    for prompt in prompts:
        alone += last(engine, (0, prompt, 0))
        engine.drop(0)
    assert not any(close(one, other) for one, other in itertools.pairwise(alone))
    parts = [(sequence, prompt[:50], 0) for sequence, prompt in enumerate(prompts)]
    engine.eval_parts([Part(*part, []) for part in parts])
    rests = [(sequence, prompt[50:], 50) for sequence, prompt in enumerate(prompts)]
    together = last(engine, *rests)
    assert all(close(one, other) for one, other in zip(alone, together, strict=True))


def test_copies_share_what_was_before_and_nothing_after(
    engine: LlamaSequences, prompts: list[list[int]]
) -> None:
    prompt, other = prompts[0], prompts[1]
    (whole,) = last(engine, (0, prompt, 0))
    engine.copy(0, 1, 60)
    engine.eval_parts([Part(1, other[:20], 60, [])])
    # A wrong guess of the copy is dropped; the other still has its own tokens there.
    (copied,) = last(engine, (1, prompt[60:], 60))
    (again,) = last(engine, (0, prompt[-1:], len(prompt) - 1))
    assert close(copied, whole) and close(again, whole)
    engine.drop(0)
    (left,) = last(engine, (1, prompt[-1:], len(prompt) - 1))
    assert close(left, whole)


def test_a_restored_state_is_the_one_that_was_saved(
    engine: LlamaSequences, prompts: list[list[int]]
) -> None:
    prompt = prompts[2]
    (whole,) = last(engine, (0, prompt, 0))
    state = engine.save(0, 64)
    assert 64 * engine.token_bytes < len(state) < 64 * engine.token_bytes * 1.05 + 4096
    engine.drop(0)
    last(engine, (3, prompts[3], 0))
    engine.restore(5, state)
    (restored,) = last(engine, (5, prompt[64:], 64))
    assert close(restored, whole)


def test_small_passes_give_what_others_give(
    engine: LlamaSequences, prompts: list[list[int]]
) -> None:
    prompt = prompts[0]
    (whole,) = last(engine, (0, prompt, 0))
    for size in range(2, 64):
        part = Part(1, prompt[-size:], len(prompt) - size, [size - 1])
        engine.drop(1)
        engine.copy(0, 1, len(prompt) - size)
        assert close(np.array(engine.eval_parts([part])[0][0]), whole)


def test_cells_are_free_again(engine: LlamaSequences) -> None:
    """Ten times what the cache holds, in turn, then all of it at once."""
    for number in range(40):
        sequence = number % engine.slots
        engine.drop(sequence)
        engine.eval_parts([Part(sequence, [5] * 120, 0, [])])
    for sequence in range(engine.slots):
        engine.drop(sequence)
    left = engine.cells
    for sequence in range(engine.slots):
        count = min(left, 512)
        left -= count
        if count:
            engine.eval_parts([Part(sequence, [5] * count, 0, [])])
    # A small pass in a full cache: there is room to fill it up.
    engine.eval_parts([Part(0, [5] * 60, 452, [59])])


def test_more_than_the_cells_is_an_error_and_no_crash() -> None:
    engine = LlamaSequences(
        MODEL, slots=2, context_tokens=512, kv_bytes=512 * 4096, threads=1, pass_tokens=512
    )
    engine.eval_parts([Part(0, [5] * 512, 0, [])])
    with pytest.raises(RuntimeError, match="llama_decode returned"):
        engine.eval_parts([Part(1, [5] * 8, 0, [])])
    engine.close()


def test_the_bound_holds_one_request_at_least() -> None:
    one = 512 * 4096
    with pytest.raises(InputError, match=r"one request of 512 tokens takes 2,097,152"):
        LlamaSequences(MODEL, slots=4, context_tokens=512, kv_bytes=one - 1, threads=1)
    for kv_bytes, cells in ((one, 512), (8 * one, 1024), (100 * one, 2048), (0, 2048)):
        engine = LlamaSequences(MODEL, slots=4, context_tokens=512, kv_bytes=kv_bytes, threads=1)
        assert (engine.cells, engine.kv_bytes) == (cells, kv_bytes or 128 << 20)
        assert engine.cache_bytes <= engine.kv_bytes
        engine.close()


def chosen(rows: list[Row]) -> list[Row]:
    return [row for row in rows for _ in range(2)][::3]


def test_answers_together_are_those_alone(engine: LlamaSequences) -> None:
    rows = chosen(ROWS)
    one = LlamaEngine(MODEL, context_tokens=512, threads=1)
    scheduler, preparer = Scheduler(engine, 4 << 20), Preparer(engine, 512)
    futures = [scheduler.submit(preparer.prepare(row.catalog, row.message)) for row in rows]
    while scheduler.step():
        pass
    for row, future in zip(rows, futures, strict=True):
        trie = AnswerTrie(one.encode, row.catalog)
        prompt = prompt_tokens(one, row.catalog, row.message)
        expected = constrained(one, trie, prompt, rules.guess(row.message))
        answered = future.result(timeout=0)
        # Two branches within rounding of each other may go either way.
        if expected.probability > 0.6:
            assert answered.decoded.answer == expected.answer
            assert answered.decoded.probability == pytest.approx(expected.probability, rel=0.15)
        assert answered.decoded.prompt_tokens == expected.prompt_tokens
    assert scheduler.counts.misses < len(rows)
    assert scheduler.counts.passes < len(rows)
    one.close()
