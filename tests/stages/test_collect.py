"""Rows from outside, up to the network: what is asked for, what is kept, what a kill leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.collect import fetch, generate
from stages.collect.checks import row_of
from stages.collect.fill import ATTEMPTS, HOPELESS_ROWS, fill
from stages.collect.progress import Outcome, Progress
from stages.collect.wishes import Wish, Wishes, read_catalog
from stages.core.errors import InputError, StageFailed
from stages.intent.rows import Answer, parse_row, read_rows

SETTINGS = {"model": "m", "seed": 1}
WISH = Wish(
    catalog=("Whole Milk (1L)", "Butter (250g pack)", "Rye Bread"),
    answer=Answer("add", "Butter (250g pack)", 3),
    language="english",
    register="terse",
    naming="short",
    number="digits",
)


def said(message: object) -> str:
    return json.dumps({"message": message})


# ---------------------------------------------------------------- what is asked for


def test_the_same_number_gives_the_same_wish() -> None:
    first, second = (Wishes(["english", "german"], [], seed=4) for _ in range(2))
    assert [first.draw(at) for at in range(50)] == [second.draw(49 - at) for at in range(50)][::-1]
    assert Wishes(["english", "german"], [], seed=5).draw(0) != first.draw(0)


def test_wishes_are_of_their_catalog_and_of_every_kind() -> None:
    wishes = [Wishes(["english", "german"], [], seed=1).draw(at) for at in range(300)]
    for wish in wishes:
        assert wish.answer.product in wish.catalog and 5 <= len(wish.catalog) <= 20
        assert wish.answer.product in wish.prompt and wish.language in wish.prompt
    assert {wish.answer.action for wish in wishes} == {"add", "remove"}
    assert {wish.language for wish in wishes} == {"english", "german"}
    assert {1, 2, 3} < {wish.answer.quantity for wish in wishes}


def test_a_catalog_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "shop.txt"
    file.write_text("\ufeffMilk\n\n  Bread \nMilk\nEggs (6)\n", encoding="utf-8")
    lines = read_catalog(file)
    assert lines == ("Milk", "Bread", "Eggs (6)")
    wish = Wishes(["english"], [lines], seed=1).draw(0)
    assert set(wish.catalog) == set(lines) and wish.answer.product in lines


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"Milk\n", "holds 1 products"),
        (b"Milk\n\xff\n", "not UTF-8"),
        (b"Milk\nBr\x07ead\n", "control character"),
        (b"Milk\n" + b"x" * 300, "longer than 200"),
    ],
)
def test_a_catalog_that_is_none(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "shop.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_catalog(file)
    assert "shop.txt" in str(caught.value)


# ---------------------------------------------------------------- what is kept


def test_a_message_becomes_a_row_of_the_format() -> None:
    row = row_of(WISH, said("  3 butter,\nplease "), "endpoint:m")
    assert row.message == "3 butter, please"
    assert row.answer == WISH.answer and row.catalog == WISH.catalog and row.language == "english"
    assert row.extra["source"] == "endpoint:m" and row.extra["slice"]["register"] == "terse"
    assert parse_row(row.to_json()) == row


@pytest.mark.parametrize(
    "message",
    ["3 butter", "three butters pls", "3 of the 250g butter", "ubaci 3 maslaca", "butter x3 :)"],
)
def test_messages_that_are_kept(message: str) -> None:
    assert row_of(WISH, said(message), "s").message == message


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("add 3 butter", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["add 3 butter"]', "no text"),
        ('{"text": "add 3 butter"}', "no text"),
        (said(3), "no text"),
        (said("  \n "), "empty"),
        (said("3 !!"), "no letter"),
        (said("butter " * 60), "longer than"),
        (said("3 butter \ud800"), "no text"),
        (said("3 butter \x00 \x07"), "no text"),
        (said('{"action": "add"} 3 butter'), "JSON or field names"),
        (said("butter, quantity: 3"), "JSON or field names"),
        (said("The shopper wants to put into the cart: 3 × Butter"), "copy of the prompt"),
        (said("Butter (250g pack)"), "copy of the prompt"),
        (said("of Whole Milk (1L), Butter (250g pack), Rye Bread give 3"), "lists the catalog"),
        (said("add 4 butter"), "another number"),
    ],
)
def test_replies_that_are_rejected(reply: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        row_of(WISH, reply, "s")


# ---------------------------------------------------------------- what a kill leaves


def run(
    progress: Progress, ask: Callable[[Wish], tuple[str, str]], rows: int = 12, concurrency: int = 3
) -> list[str]:
    told: list[str] = []
    draw = Wishes(["english"], [], seed=1).draw
    fill(
        draw, ask, progress, rows=rows, source="s", concurrency=concurrency, tell=told.append
    )  # fmt: skip
    return told


def test_each_row_gets_an_outcome_and_a_second_run_asks_for_none(tmp_path: Path) -> None:
    def ask(wish: Wish) -> tuple[str, str]:
        asked.append(wish)
        return said(
            f"please {wish.answer.action} the {wish.answer.product} for number {letters(wish)}"
        ), ""

    asked: list[Wish] = []
    path = tmp_path / "partial.jsonl"
    run(Progress(path, SETTINGS), ask)
    assert len(asked) == 12
    again = Progress(path, SETTINGS)
    assert sorted(again.outcomes) == list(range(12))
    told = run(again, ask)
    assert len(asked) == 12 and told == ["going on after 12 of 12 rows"]
    run(again, ask, rows=15)
    assert len(asked) == 15


def letters(wish: Wish) -> str:
    """A word of its own for each wish, without digits."""
    return "".join(chr(97 + ord(letter) % 26) for letter in repr(wish))[-40:]


def test_a_line_that_a_kill_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "partial.jsonl"
    progress = Progress(path, SETTINGS)
    row = row_of(WISH, said("3 butter"), "s")
    progress.add(Outcome(0, row))
    progress.add(Outcome(1, None, ({"reason": "r", "text": "t"},)))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = Progress(path, SETTINGS).outcomes
        assert len(kept) == max(0, whole[:cut].count(b"\n") - 1)
        assert all(one == progress.outcomes[at] for at, one in kept.items())
        Progress(path, SETTINGS).add(Outcome(7, row))
        assert Progress(path, SETTINGS).outcomes[7].row == row


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"settings": {"model": "m", "seed": 2}}\n', "another seed"),
        ('{"settings": {"model": "n", "seed": 2}}\n', "another model and seed"),
        ('{"prompt": "x"}\n', "damaged or not ours"),
        ("what is this\n", "damaged or not ours"),
    ],
)
def test_a_partial_file_of_something_else(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "rows.jsonl.partial.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=says) as caught:
        Progress(path, SETTINGS)
    assert path.name in str(caught.value)
    assert path.read_text(encoding="utf-8") == content


def test_a_message_is_kept_once(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "p", SETTINGS)
    run(progress, lambda wish: (said("the usual, PLEASE!"), ""), rows=4)
    kept = [one for one in progress.outcomes.values() if one.row is not None]
    assert len(kept) == 1
    for one in progress.outcomes.values():
        if one.row is None:
            assert [reject["reason"] for reject in one.rejects] == [
                "the message repeats another row's"
            ] * ATTEMPTS
    again = Progress(tmp_path / "p", SETTINGS)
    run(again, lambda wish: (said("The usual - please"), ""), rows=6)
    assert [one.row for one in again.outcomes.values() if one.row is not None] == [kept[0].row]


def test_an_endpoint_that_fails_ends_the_run_and_what_came_is_kept(tmp_path: Path) -> None:
    answers = iter(range(100))

    def ask(wish: Wish) -> tuple[str, str]:
        if next(answers) >= 5:
            raise StageFailed("the endpoint is down")
        return said(f"take the {wish.answer.product} {letters(wish)}"), ""

    with pytest.raises(StageFailed, match="down"):
        run(Progress(tmp_path / "p", SETTINGS), ask)
    assert len(Progress(tmp_path / "p", SETTINGS).outcomes) == 5


def test_a_model_that_can_write_nothing_is_not_asked_for_ever(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "p", SETTINGS)
    with pytest.raises(StageFailed, match=f"first {HOPELESS_ROWS} rows .* not JSON"):
        run(progress, lambda wish: ("hm", ""), rows=1_000)
    assert len(progress.outcomes) < 2 * HOPELESS_ROWS


def test_rows_and_rejects_stand_in_the_order_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    progress = Progress(tmp_path / "rows.jsonl.partial.jsonl", SETTINGS)
    for index in (3, 0, 2):
        row = row_of(WISH, said(f"butter {'x' * index}"), "s")
        rejects = ({"reason": "why", "text": "half a \ud800"},) * index
        progress.add(Outcome(index, row, rejects))
    progress.add(Outcome(1, None, ({"reason": "no", "text": "t"},) * 3))
    generate._publish(out, progress, 4)
    assert [row.message for row in read_rows(out)] == ["butter", "butter xx", "butter xxx"]
    rejected = tmp_path / "rows.jsonl.rejects.jsonl"
    lines = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
    assert [one["index"] for one in lines] == [1, 1, 1, 2, 2, 3, 3, 3]
    assert capsys.readouterr().out.splitlines() == [
        "rows.jsonl: 3 of 4 rows (english 3)",
        "rows.jsonl.rejects.jsonl: 8 rejected replies",
        "       5  why",
        "       3  no",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {out.name, rejected.name}


def test_no_row_at_all_is_a_failure_that_keeps_the_replies(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "rows.jsonl.partial.jsonl", SETTINGS)
    progress.add(Outcome(0, None, ({"reason": "no", "text": "t"},)))
    with pytest.raises(StageFailed, match=r"none of 1 rows can be used; rows.jsonl.rejects.jsonl"):
        generate._publish(tmp_path / "rows.jsonl", progress, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl.rejects.jsonl"]


# ---------------------------------------------------------------- from a dataset's files

GOOD = {
    "prompt": "Catalog:\nMilk\nBread\n\nUser:\ntwo milk",
    "completion": '{"action":"add","product":"Milk","quantity":2}',
    "language": "english",
}


def dataset(tmp_path: Path, name: str, text: str) -> Path:
    folder = tmp_path / "dataset"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.jsonl", json.dumps(GOOD) + "\n\n"),
        ("train.json", json.dumps([GOOD])),
        ("train.json", json.dumps(GOOD) + "\n"),
        ("data.jsonl", json.dumps({**GOOD, "completion": json.loads(GOOD["completion"])})),
        (
            "train.csv",
            'prompt,completion,language,note\n"'
            + GOOD["prompt"]
            + '","'
            + GOOD["completion"].replace('"', '""')
            + '",english,\n',
        ),
    ],
)
def test_a_dataset_of_each_kind_becomes_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    folder = dataset(tmp_path, name, text)
    out = tmp_path / "rows.jsonl"
    assert fetch.main(["--id", str(folder), "--out", str(out)]) == 0
    [row] = read_rows(out)
    assert row.prompt == GOOD["prompt"] and row.answer == Answer("add", "Milk", 2)
    assert row.completion == '{"action": "add", "product": "Milk", "quantity": 2}'
    assert row.extra == {"source": "folder:dataset"} and row.language == "english"
    assert "rows.jsonl: 1 rows (english 1)" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob("*.rejects.jsonl"))


def test_records_that_are_no_rows_are_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {**GOOD, "completion": "add milk"}
    text = "\n".join([json.dumps(GOOD), json.dumps(bad), "{torn", json.dumps({"text": "x"})])
    folder = dataset(tmp_path, "a.jsonl", text)
    out = tmp_path / "rows.jsonl"
    assert fetch.main(["--id", str(folder), "--out", str(out)]) == 0
    assert len(read_rows(out)) == 1
    rejects = [
        json.loads(line)
        for line in (tmp_path / "rows.jsonl.rejects.jsonl").read_text().splitlines()
    ]
    assert [one["index"] for one in rejects] == [2, 3, 4]
    assert "not JSON" in rejects[0]["reason"] and rejects[1]["text"] == "{torn"
    assert "3 records are no rows; the first is record 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "arguments", "says"),
    [
        ({}, [], "has 0 files"),
        ({"a.jsonl": "", "b.csv": ""}, [], "a.jsonl, b.csv"),
        ({"a.jsonl": ""}, ["--file", "c.jsonl"], "has no c.jsonl"),
        ({"a.jsonl": "{}"}, [], "holds no row"),
        ({"a.jsonl": ""}, [], "it is empty"),
        ({"a.json": "[1, 2"}, [], "damaged"),
        ({"a.parquet": "PAR1"}, [], "only Parquet"),
        ({"a.jsonl": json.dumps(GOOD)}, ["--revision", "main"], "--revision"),
    ],
)
def test_a_dataset_without_rows(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    arguments: list[str],
    says: str,
) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, text in files.items():
        dataset(tmp_path, name, text)
    out = tmp_path / "rows.jsonl"
    assert fetch.main(["--id", str(folder), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_what_is_there_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dataset(tmp_path, "a.jsonl", json.dumps(GOOD))
    out = tmp_path / "rows.jsonl"
    out.write_text("mine")
    assert fetch.main(["--id", str(folder), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err and out.read_text() == "mine"
