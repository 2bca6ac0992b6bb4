"""The task: rows, prompt, trie, decoding and metrics, on the standard library alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stages.core.errors import InputError
from stages.intent.decode import (
    Engine,
    catalog_tokens,
    constrained,
    greedy,
    prompt_tokens,
    shared_tokens,
)
from stages.intent.metrics import score, summarize, wilson
from stages.intent.rows import (
    MAX_QUANTITY,
    Answer,
    Row,
    parse_answer,
    parse_row,
    read_rows,
    validate_catalog,
    write_rows,
)
from stages.intent.trie import AnswerTrie
from tests.stages.hash_engines import One

CATALOG = ("Yogurt (500g container)", "Ground Beef (500g pack)", "Ground Beef (250g pack)")
ROW = Row(
    CATALOG, "Hej, makni 4 Ground Beef (500g pack)!", Answer("remove", CATALOG[1], 4), "croatian"
)


class WordEngine(Engine):
    """A real engine over a small vocabulary: it scores tokens by how well they continue `target`.

    Words are merged greedily (so product names are multi-character tokens), digits are not.
    """

    bos_id, eos_id = 1, 2

    def __init__(self, target: str) -> None:
        self.pieces = ['{"', '": ', '": "', '", "', "action", "product", "quantity", "Ground Beef"]
        self.pieces += [chr(code) for code in range(32, 127)] + ["\n", "č", "š", "ž"]
        self.target = [*self.encode(target), self.eos_id]
        self.evaluated: list[int] = []
        self.calls = 0

    def encode(self, text: str) -> list[int]:
        tokens = []
        while text:
            piece = max((p for p in self.pieces if text.startswith(p)), key=len)
            tokens.append(self.pieces.index(piece) + 3)
            text = text[len(piece) :]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.pieces[token - 3] for token in tokens)

    def eval_many(
        self, tokens: Sequence[int], n_past: int, wanted: Sequence[int]
    ) -> list[list[float]]:
        self.calls += 1
        self.evaluated = [*self.evaluated[:n_past], *tokens]
        return [self._logits(self.evaluated[: n_past + place + 1]) for place in wanted]

    def _logits(self, fed: Sequence[int]) -> list[float]:
        cue = self.encode("Answer:\n")
        start = max(i + len(cue) for i in range(len(fed)) if fed[i : i + len(cue)] == cue)
        done = fed[start:]
        logits = [0.0] * (len(self.pieces) + 3)
        if self.target[: len(done)] == done and len(done) < len(self.target):
            logits[self.target[len(done)]] = 5.0
        return logits

    def argmax(self, logits: Sequence[float]) -> int:
        return max(range(len(logits)), key=logits.__getitem__)


def test_row_survives_its_own_format() -> None:
    assert parse_row(ROW.to_json()) == ROW


def test_row_format_is_the_papers_byte_for_byte() -> None:
    record = json.loads(ROW.to_json())
    assert list(record) == ["prompt", "completion", "language"]
    assert record["prompt"].startswith(
        "Catalog:\nYogurt (500g container)\nGround Beef (500g pack)\n"
    )
    assert record["prompt"].endswith("\n\nUser:\nHej, makni 4 Ground Beef (500g pack)!")
    assert record["completion"] == (
        '{"action": "remove", "product": "Ground Beef (500g pack)", "quantity": 4}'
    )


@pytest.mark.parametrize("quantity", ["0", "-1", "1.5", '"three"', "1000000000000", "true", "null"])
def test_bad_quantity_is_refused_with_file_and_line(tmp_path: Path, quantity: str) -> None:
    completion = f'{{"action": "add", "product": "{CATALOG[0]}", "quantity": {quantity}}}'
    bad = json.dumps({"prompt": ROW.prompt, "completion": completion})
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{ROW.to_json()}\n{bad}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.jsonl:2: quantity must be a whole number"):
        read_rows(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"completion": "{}"}', "'prompt' is missing"),
        (json.dumps({"prompt": "hi", "completion": "{}"}), "prompt is not 'Catalog:'"),
        (json.dumps({"prompt": ROW.prompt, "completion": "{}"}), "exactly action, product"),
        (
            json.dumps({"prompt": ROW.prompt, "completion": Answer("add", "Cheese", 1).to_json()}),
            "'Cheese' is not in the row's catalog",
        ),
        (
            json.dumps(
                {"prompt": ROW.prompt, "completion": ROW.completion.replace("remove", "eat")}
            ),
            "action must be one of",
        ),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_bad_rows_say_what_is_wrong(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"rows\.jsonl:1: .*{says}"):
        read_rows(path)


def test_empty_missing_and_binary_datasets_are_refused(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.jsonl", tmp_path / "binary.jsonl"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="holds no rows"):
        read_rows(empty)
    with pytest.raises(InputError, match="not UTF-8"):
        read_rows(binary)
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path / "missing.jsonl")


def test_written_rows_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [ROW, ROW])
    assert read_rows(path) == [ROW, ROW]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "empty"),
        (["Milk", "Milk"], "line 2 is a duplicate"),
        ([f"Product {i}" for i in range(5_000)], "5,000 lines"),
        (["Milk", "  "], "line 2 is empty"),
        (["Milk\nUser:"], "line break"),
        (["Milk\x00"], "control character"),
        (["M" * 201], "longer than 200"),
    ],
)
def test_bad_catalogs_are_refused(lines: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        validate_catalog(lines)


@pytest.mark.parametrize("quantity", [1, 7, 10, 11, 99, 100, 4_321, MAX_QUANTITY])
@pytest.mark.parametrize("action", ["add", "remove"])
def test_constrained_walk_reaches_every_kind_of_answer(action: str, quantity: int) -> None:
    for product in CATALOG:
        wanted = Answer(action, product, quantity)
        engine = WordEngine(wanted.to_json())
        trie = AnswerTrie(engine.encode, CATALOG)
        found = constrained(engine, trie, prompt_tokens(engine, CATALOG, "whatever"))
        assert found.answer == wanted
        assert found.passes == engine.calls <= 3 + len(str(quantity)) + 1
        assert 0.5 < found.probability <= 1.0


def test_constrained_answer_is_in_the_catalog_whatever_the_model_wants() -> None:
    for wish in ('{"action": "add", "product": "Cheese", "quantity": 2}', "no", '{"action": "buy"'):
        engine = WordEngine(wish)
        trie = AnswerTrie(engine.encode, CATALOG)
        answer = constrained(engine, trie, prompt_tokens(engine, CATALOG, "x")).answer
        assert answer.product in CATALOG
        assert parse_answer(answer.to_json()) == answer


def test_constrained_feeds_the_text_that_greedy_decoding_would_have_written() -> None:
    wanted = Answer("remove", CATALOG[2], 12)
    engine = WordEngine(wanted.to_json())
    prompt = prompt_tokens(engine, CATALOG, "x")
    free = greedy(engine, prompt, 64)
    assert engine.decode(free) == wanted.to_json()
    engine.evaluated = []
    constrained(engine, AnswerTrie(engine.encode, CATALOG), prompt)
    fed = engine.evaluated[len(prompt) :]
    assert fed == free[: len(fed)]


@pytest.mark.parametrize("quantity", [1, 12, 120, MAX_QUANTITY])
def test_a_guess_changes_the_passes_and_never_the_answer(quantity: int) -> None:
    rules_of_thumb = [
        Answer(action, product, number)
        for action in ("add", "remove")
        for product in CATALOG
        for number in (1, 2, 12, 1200, MAX_QUANTITY)
    ]
    for wanted in (Answer("remove", CATALOG[1], quantity), Answer("add", CATALOG[0], quantity)):
        engine = WordEngine(wanted.to_json())
        trie = AnswerTrie(engine.encode, CATALOG)
        prompt = prompt_tokens(engine, CATALOG, "x")
        plain = constrained(engine, trie, prompt)
        for guessed in rules_of_thumb:

            def guess(products: Sequence[str], guessed: Answer = guessed) -> Answer:
                product = guessed.product if guessed.product in products else products[0]
                return replace(guessed, product=product)

            engine.calls, engine.evaluated = 0, []
            found = constrained(engine, trie, prompt, guess)
            assert found.answer == plain.answer == wanted
            assert math.isclose(found.probability, plain.probability)
            assert found.passes == engine.calls <= plain.passes
            if guessed == wanted:
                assert found.passes == 1


def test_what_the_engine_knows_of_a_prompt_is_not_fed_again() -> None:
    engine = One()
    trie = AnswerTrie(engine.encode, CATALOG)
    prompt = prompt_tokens(engine, CATALOG, "two of them")
    head = catalog_tokens(engine, CATALOG)
    known = shared_tokens(head, prompt)
    assert known == len(head) < len(prompt)
    assert shared_tokens(prompt, prompt) == len(prompt) - 1
    assert shared_tokens([*head[:-1], head[-1] + 1], prompt) == known - 1
    cold = constrained(engine, trie, prompt)
    engine.held = head
    assert constrained(engine, trie, prompt, known_tokens=known) == cold
    engine.held = [0] * known
    assert constrained(engine, trie, prompt, known_tokens=known).probability != cold.probability


def test_a_guess_is_asked_again_for_what_is_left_where_it_was_wrong() -> None:
    engine = WordEngine(Answer("remove", CATALOG[2], 3).to_json())
    trie = AnswerTrie(engine.encode, CATALOG)
    asked: list[tuple[str, ...]] = []

    def guess(products: Sequence[str]) -> Answer:
        asked.append(tuple(products))
        return Answer("add", products[0], 3)

    found = constrained(engine, trie, prompt_tokens(engine, CATALOG, "x"), guess)
    assert found.answer == Answer("remove", CATALOG[2], 3)
    # Wrong about the action, then about the first letter, then about the size.
    assert asked == [CATALOG, CATALOG, CATALOG[1:], CATALOG[2:]]
    assert found.passes == 4


def test_no_quantity_beyond_the_limit_and_none_with_a_leading_zero() -> None:
    engine = WordEngine("")
    trie = AnswerTrie(engine.encode, CATALOG[:1])
    seen = set()
    stack = [trie.root]
    while stack:
        state = stack.pop()
        if isinstance(state, Answer):
            seen.add((state.action, state.quantity))
        stack.extend(trie.children(state).values())
    assert seen == {(a, q) for a in ("add", "remove") for q in range(1, MAX_QUANTITY + 1)}


def test_tokenizer_that_merges_digits_is_refused() -> None:
    engine = WordEngine("")
    engine.pieces.append("11")
    with pytest.raises(ValueError, match="does not split digits"):
        AnswerTrie(engine.encode, CATALOG)


def test_score_separates_the_fields() -> None:
    right = score(ROW, ROW.completion)
    assert right.exact and right.valid and right.in_catalog
    wrong = score(ROW, Answer("add", CATALOG[1], 4).to_json())
    assert (wrong.action, wrong.product, wrong.quantity, wrong.exact) == (False, True, True, False)
    invented = score(ROW, Answer("remove", "Cheese", 4).to_json())
    assert invented.valid and not invented.in_catalog
    assert not score(ROW, "Sure! " + ROW.completion).valid


def test_wilson_interval_matches_published_values() -> None:
    # 81 of 263: Newcombe (1998), Table I, score method: 0.2553 to 0.3662.
    low, high = wilson(81, 263)
    assert math.isclose(low, 0.2553, abs_tol=5e-5) and math.isclose(high, 0.3662, abs_tol=5e-5)
    assert wilson(0, 20)[0] == 0.0 and wilson(20, 20)[1] == 1.0


def test_summary_counts_by_language() -> None:
    rows = [ROW, ROW, Row(CATALOG, "x", ROW.answer, "english")]
    texts = [ROW.completion, "nonsense", Answer("remove", "Cheese", 4).to_json()]
    summary = summarize(rows, [score(r, t) for r, t in zip(rows, texts, strict=True)])
    assert summary["exact"]["value"] == pytest.approx(1 / 3)
    assert summary["invalid_json"] == 1 and summary["invented_products"] == 1
    assert summary["by_language"]["croatian"]["n"] == 2
