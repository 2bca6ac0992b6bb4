"""The client against servers that refuse this and that, over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stages.core.errors import InputError, StageFailed
from stages.runtime import endpoint
from stages.runtime.endpoint import Endpoint, ask_all

SCHEMA = {
    "type": "object",
    "properties": {"message": {"type": "string", "maxLength": 9}},
    "required": ["message"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "user", "content": "hello"}]
Body = dict[str, Any]


def answer(text: str, finish: str = "stop") -> tuple[int, Body]:
    message = {"role": "assistant", "content": text}
    return 200, {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def refuse(status: int, text: str) -> tuple[int, Body]:
    return status, {"error": {"message": text}}


@contextmanager
def serving(
    reply: Callable[[Body], tuple[int, Any]], models: tuple[str, ...] | int = ("big",)
) -> Iterator[tuple[str, list[Body]]]:
    """A server of one answer to each chat; its address, and the requests that it got."""
    got: list[Body] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if isinstance(models, int):
                self.send(*refuse(models, "no list"))
            else:
                self.send(200, {"object": "list", "data": [{"id": name} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append({**body, "authorization": self.headers["Authorization"]})
            self.send(*reply(body))

        def send(self, status: int, value: Any) -> None:
            raw = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            kind = "text/html" if isinstance(value, str) else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", got
    finally:
        server.shutdown()
        server.server_close()


def test_a_reply_held_to_the_schema() -> None:
    with serving(lambda body: answer('{"message": "hi"}')) as (url, got):
        one = Endpoint(url, "secret-key")
        reply = one.ask(MESSAGES, SCHEMA, 0.5)
    assert (one.model, reply.text, reply.complete) == ("big", '{"message": "hi"}', True)
    [body] = got
    assert body["model"] == "big" and body["messages"] == MESSAGES and body["temperature"] == 0.5
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert body["authorization"] == "Bearer secret-key"


def test_what_a_server_refuses_is_left_out_from_then_on() -> None:
    """Length bounds, then the token limit's older name, then temperature, then any schema."""

    def picky(body: Body) -> tuple[int, Body]:
        held = body.get("response_format")
        if held and "maxLength" in json.dumps(held):
            return refuse(400, "Invalid schema: 'maxLength' is not permitted")
        if "max_tokens" in body:
            return refuse(400, "Unsupported parameter: 'max_tokens'")
        if "temperature" in body:
            return refuse(400, "Unsupported value: 'temperature'")
        if held:
            return refuse(422, "response_format: extra fields not permitted")
        return answer('Here:\n```json\n{"message": "hi"}\n```')

    with serving(picky) as (url, got):
        one = Endpoint(url, "")
        assert one.ask(MESSAGES, SCHEMA, 0.0).text == '{"message": "hi"}'
        assert one.structured is False and len(got) == 5
        assert one.ask(MESSAGES, SCHEMA, 0.0).text == '{"message": "hi"}'
        assert len(got) == 6 and set(got[-1]) == {
            "model", "messages", "max_completion_tokens", "authorization",
        }  # fmt: skip


def test_an_answer_at_the_token_limit_is_not_complete() -> None:
    with serving(lambda body: answer('{"mess', "length")) as (url, _):
        assert not Endpoint(url, "").ask(MESSAGES, SCHEMA, 0.0).complete


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    states = iter([status, status])

    def busy(body: Body) -> tuple[int, Body]:
        now = next(states, 200)
        return answer("{}") if now == 200 else refuse(now, "busy")

    with serving(busy) as (url, got):
        assert Endpoint(url, "").ask(MESSAGES, SCHEMA, 0.0).text == "{}"
        assert len(got) == 3


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, InputError, "refused the key (401); set OPENAI_API_KEY"),
        (403, InputError, "refused the key (403)"),
        (404, InputError, "has no model 'big'"),
        (400, InputError, "refused the request (400): Error code: 400"),
        (429, StageFailed, "too many requests"),
        (500, StageFailed, "failed"),
    ],
)
def test_a_refusal_is_one_sentence_without_the_key(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception], says: str
) -> None:
    monkeypatch.setattr(endpoint, "_RETRIES", 1)
    with serving(lambda body: refuse(status, "no: secret-key is bad")) as (url, _):
        one = Endpoint(url, "secret-key")
        with pytest.raises(kind) as caught:
            one.ask(MESSAGES, SCHEMA, 0.0)
    text = str(caught.value)
    assert says in text and url in text and "secret-key" not in text and "\n" not in text


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageFailed, match=r"cannot be reached .*refused.*0\.0\.0\.0"):
        Endpoint("http://user:word@127.0.0.1:9/v1", "")
    with pytest.raises(StageFailed) as caught:
        Endpoint("http://user:word@127.0.0.1:9/v1", "")
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "asked", "says"),
    [
        (("a", "b"), "", "has 2 models, name the one to ask: a, b"),
        (("a", "b"), "c", "has no model 'c'; it has a, b"),
        ((), "", "has 0 models"),
        (404, "", "does not list its models"),
    ],
)
def test_a_model_must_be_one_of_the_endpoint(
    models: tuple[str, ...] | int, asked: str, says: str
) -> None:
    with (
        serving(lambda body: answer("{}"), models) as (url, _),
        pytest.raises(InputError, match=says),
    ):
        Endpoint(url, "", asked)


@pytest.mark.parametrize(("models", "asked"), [(("a:latest", "b"), "a"), (404, "a"), ((), "a")])
def test_a_model_that_the_list_need_not_name(models: tuple[str, ...] | int, asked: str) -> None:
    with serving(lambda body: answer("{}"), models) as (url, _):
        assert Endpoint(url, "", asked).model == asked


def test_a_web_page_is_no_api() -> None:
    with serving(lambda body: (200, "<html>hello</html>"), 404) as (url, _):
        one = Endpoint(url, "", "m")
        with pytest.raises(InputError, match="does not answer as the OpenAI API does"):
            one.ask(MESSAGES, SCHEMA, 0.0)


def test_a_limit_a_minute_is_kept() -> None:
    with serving(lambda body: answer("{}")) as (url, got):
        one = Endpoint(url, "", requests_per_minute=600)
        started_sec = time.monotonic()
        ask_all(one, [MESSAGES] * 6, [SCHEMA] * 6, concurrency=6)
        assert time.monotonic() - started_sec >= 0.49
        assert len(got) == 6


def test_replies_come_in_the_order_of_the_requests() -> None:
    def slow_first(body: Body) -> tuple[int, Body]:
        number = int(body["messages"][0]["content"])
        time.sleep(0.02 * (8 - number))
        return answer(str(number))

    with serving(slow_first) as (url, _):
        requests = [[{"role": "user", "content": str(number)}] for number in range(8)]
        replies = ask_all(Endpoint(url, ""), requests, [SCHEMA] * 8, concurrency=8)
    assert [reply.text for reply in replies] == [str(number) for number in range(8)]
