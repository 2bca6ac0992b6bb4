"""What a request is before the model sees it, and what is kept of earlier ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import pytest

from stages.intent.decode import prompt_tokens
from stages.serve.kept import Kept
from stages.serve.requests import Preparer, RequestError
from tests.stages.hash_engines import Characters


def test_a_request_that_can_never_fit_is_refused() -> None:
    preparer = Preparer(Characters(), 300)
    preparer.prepare(["Milk"], "add 2")
    with pytest.raises(RequestError, match=r"have \d+ tokens together: this model reads at most"):
        preparer.prepare([f"Product number {n}" for n in range(20)], "add 2")
    longest = next(n for n in count(1) if not _fits(preparer, "x" * n))
    work = preparer.prepare(["Milk"], "x" * (longest - 1))
    assert work.prompt_tokens + work.answer_tokens == 300


def _fits(preparer: Preparer, message: str) -> bool:
    try:
        preparer.prepare(["Milk"], message)
    except RequestError:
        return False
    return True


def test_a_prefix_is_what_all_messages_share_whatever_the_tokenizer_merges() -> None:
    class Merging(Characters):
        """The line end before a letter is one token with it."""

        def encode(self, text: str) -> list[int]:
            plain = super().encode(text)
            merged: list[int] = []
            for token in plain:
                if merged and merged[-1] == 13 and chr(token - 3) in "az":
                    merged[-1] = 300 + token
                else:
                    merged.append(token)
            return merged

    for message, whole in (("add 2", False), ("no milk", True)):
        vocabulary = Merging()
        work = Preparer(vocabulary, 1_000).prepare(["Milk"], message)
        prompt = prompt_tokens(vocabulary, ["Milk"], message)
        assert list(work.prefix) == prompt[: len(work.prefix)]
        head = len("Catalog:\nMilk\n\nUser:\n") + 1
        assert len(work.prefix) == head - (not whole)


def test_kept_is_bounded_and_lets_go_of_what_was_not_used_for_longest() -> None:
    kept: Kept[str, str] = Kept(10)

    def put(names: Iterable[str]) -> None:
        for name in names:
            kept.put(name, name.upper(), 4)

    put("ab")
    assert kept.get("a") == "A" and kept.size == 8
    put("c")
    assert kept.get("b") is None and kept.get("a") == "A" and kept.get("c") == "C"
    kept.put("large", "", 11)
    assert kept.get("large") is None and (len(kept), kept.size) == (2, 8)
    kept.put("most", "", 10)
    assert (len(kept), kept.size) == (1, 10)
    kept.put("most", "again", 10)
    assert (kept.get("most"), kept.size) == ("", 10)
