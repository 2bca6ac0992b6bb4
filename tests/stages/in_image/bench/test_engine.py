"""The llama.cpp engine on a real file: passes, cache, answers, and files that are refused."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from stages.bench_cpu.dataset import SAMPLE
from stages.core.errors import InputError
from stages.intent.decode import constrained, greedy, prompt_tokens
from stages.intent.rows import Answer, Row, read_rows
from stages.intent.trie import AnswerTrie
from stages.runtime import llama
from stages.runtime.llama import LlamaEngine

MODEL = Path(os.environ["CARTWRIGHT_TEST_GGUF"])
ROWS = read_rows(SAMPLE)


@pytest.fixture(scope="module")
def engine() -> LlamaEngine:
    return LlamaEngine(MODEL, context_tokens=512, threads=1)


def token_by_token(engine: LlamaEngine, row: Row) -> tuple[Answer, float]:
    """The walk through the trie with one pass for each token, forced ones included."""
    trie = AnswerTrie(engine.encode, row.catalog)
    tokens = prompt_tokens(engine, row.catalog, row.message)
    logits, n_past = engine.eval(tokens, 0), len(tokens)
    state, probability = trie.root, 1.0
    while not isinstance(state, Answer):
        children = trie.children(state)
        weights = {token: math.exp(logits[token] - max(logits)) for token in children}
        token = max(weights, key=weights.__getitem__)
        probability *= weights[token] / sum(weights.values())
        state = children[token]
        logits, n_past = engine.eval([token], n_past), n_past + 1
    return state, probability


@pytest.mark.parametrize("row", ROWS[::4], ids=lambda row: row.message)
def test_forced_tokens_in_one_pass_change_no_answer(engine: LlamaEngine, row: Row) -> None:
    prompt = prompt_tokens(engine, row.catalog, row.message)
    decoded = constrained(engine, AnswerTrie(engine.encode, row.catalog), prompt)
    answer, probability = token_by_token(engine, row)
    assert decoded.answer == answer
    assert decoded.probability == pytest.approx(probability, rel=1e-3)
    assert decoded.answer.product in row.catalog
    assert decoded.passes < len(engine.encode(decoded.answer.to_json()))


def test_what_stood_beyond_n_past_is_dropped(engine: LlamaEngine) -> None:
    prompt = prompt_tokens(engine, ROWS[0].catalog, ROWS[0].message)
    engine.eval(prompt[:-5], 0)
    first = list(engine.eval(prompt[-5:], len(prompt) - 5))
    engine.eval(prompt[::-1], len(prompt))
    again = list(engine.eval(prompt[-5:], len(prompt) - 5))
    assert again == first
    assert engine.argmax(again) == engine.argmax(first)


def test_a_pass_of_any_length_gives_what_others_give(engine: LlamaEngine) -> None:
    """llama.cpp as it is has two kernels of attention, a whole logit apart (ADR 15)."""
    prompt = prompt_tokens(engine, ROWS[0].catalog, ROWS[0].message)
    whole = np.array(engine.eval(prompt, 0))
    for size in range(1, min(64, len(prompt))):
        part = np.array(engine.eval(prompt[-size:], len(prompt) - size))
        assert np.abs(part - whole).max() < 1e-3, size


def test_greedy_decoding_is_repeatable(engine: LlamaEngine) -> None:
    prompt = prompt_tokens(engine, ROWS[0].catalog, ROWS[0].message)
    assert greedy(engine, prompt, 12) == greedy(engine, prompt, 12)


def test_context_is_a_bound_with_a_sentence(engine: LlamaEngine) -> None:
    with pytest.raises(InputError, match="takes 513 tokens and the context holds 512"):
        engine.eval([5] * 513, 0)
    with pytest.raises(InputError, match="takes 514 tokens"):
        engine.eval([5] * 4, 510)
    assert len(engine.eval([5] * 512, 0)) == 4096


def test_text_survives_tokens(engine: LlamaEngine) -> None:
    for text in ("Možeš li maknuti 4 komada?", "a\0b", "¿Añades 12 piñas?\n\n</s>", "🛒" * 300):
        assert engine.decode(engine.encode(text)) == text
    long = "jabuka 1234 " * 2_000
    assert engine.decode(engine.encode(long)) == long


def test_backend_is_named() -> None:
    backend = llama.backend()
    assert backend["library"].startswith("libggml-cpu")
    assert "CPU" in backend["features"]


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    content = MODEL.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="truncated"):
        LlamaEngine(cut, threads=1)


def test_reason_of_a_failed_load_is_llama_cpps(tmp_path: Path) -> None:
    content = MODEL.read_bytes()
    odd = tmp_path / "odd.gguf"
    name = b"\x05\0\0\0\0\0\0\0llama"
    odd.write_bytes(content.replace(name, name[:-5] + b"lemma", 1))
    with pytest.raises(InputError, match=r"cannot be loaded by llama\.cpp: .*lemma") as caught:
        LlamaEngine(odd, threads=1)
    assert "\n" not in str(caught.value)
