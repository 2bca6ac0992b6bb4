"""The routes beside one intent: many messages, catalogs by name, OpenAI's, keys, figures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stages.intent.rows import build_prompt
from stages.runtime.gguf_file import read_header
from tests.stages.in_image.service import CATALOG, MODEL, REQUEST, Server, refused, start

MESSAGE = REQUEST["message"]
PROMPT = build_prompt(CATALOG, MESSAGE)
NAME = "intent"
KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server("--model-name", NAME)
    started.wait("/ready")
    yield started
    code, out, err = started.end()
    assert (code, err) == (0, ""), out + err


def _text(answer: dict[str, Any]) -> str:
    return json.dumps({key: answer[key] for key in ("action", "product", "quantity")})


def _events(body: bytes) -> list[Any]:
    lines = body.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


# ------------------------------------------------------------------ /v1/intent, /v1/catalogs


def test_several_messages_are_answered_each_for_itself(server: Server) -> None:
    messages = [MESSAGE, "no milk after all", "seven ground beef"]
    alone = [_text(server.intent({"catalog": CATALOG, "message": one})[1]) for one in messages]
    status, found, _ = server.intent({"catalog": CATALOG, "messages": messages})
    assert status == 200
    assert [_text(answer) for answer in found["answers"]] == alone
    assert server.intent({"catalog": CATALOG, "messages": []})[0] == 422
    assert server.intent({"catalog": CATALOG, "messages": ["x"] * 33})[0] == 422
    status, found, _ = server.intent({"catalog": CATALOG, "messages": [MESSAGE, " "]})
    assert (status, found["error"]["param"]) == (422, "message")
    assert server.intent({**REQUEST, "messages": [MESSAGE]})[0] == 422


def test_a_catalog_by_name(server: Server) -> None:
    body = json.dumps({"catalog": CATALOG}).encode()
    assert server.call("PUT", "/v1/catalogs/shop-1", body)[0] == 201
    assert server.call("PUT", "/v1/catalogs/shop-1", body)[0] == 200
    status, found, _ = server.call("GET", "/v1/catalogs/shop-1")
    assert (status, found) == (200, {"id": "shop-1", "catalog": CATALOG})
    status, answer, _ = server.intent({"catalog_id": "shop-1", "message": MESSAGE})
    assert status == 200
    assert _text(answer) == _text(server.intent(REQUEST)[1])
    assert server.intent({**REQUEST, "catalog_id": "shop-1"})[0] == 422
    assert server.raw("DELETE", "/v1/catalogs/shop-1")[:2] == (204, b"")
    for method in ("GET", "DELETE"):
        assert server.call(method, "/v1/catalogs/shop-1")[0] == 404
    status, found, _ = server.intent({"catalog_id": "shop-1", "message": MESSAGE})
    assert (status, found["error"]["param"]) == (404, "catalog_id")
    for name, lines in (("a%2Fb", CATALOG), ("x" * 65, CATALOG), ("twice", ["a", "a"])):
        body = json.dumps({"catalog": lines}).encode()
        assert server.call("PUT", f"/v1/catalogs/{name}", body)[0] in (404, 422)


def test_so_many_catalogs_and_no_more() -> None:
    server = Server()
    server.wait("/ready")
    name = server.call("GET", "/v1/models")[1]["data"][0]["id"]
    assert name == "-".join(str(read_header(MODEL).metadata["general.name"]).split())
    body = json.dumps({"catalog": CATALOG}).encode()
    for number in range(256):
        assert server.call("PUT", f"/v1/catalogs/{number}", body)[0] == 201
    status, found, _ = server.call("PUT", "/v1/catalogs/more", body)
    assert status == 409 and "256 catalogs are registered" in found["error"]["message"]
    assert server.call("PUT", "/v1/catalogs/7", body)[0] == 200
    assert server.end()[0] == 0


# ------------------------------------------------------------------ OpenAI's routes


def _chat(**more: Any) -> dict[str, Any]:
    return {"model": NAME, "messages": [{"role": "user", "content": PROMPT}], **more}


def test_models(server: Server) -> None:
    assert [one["id"] for one in server.call("GET", "/v1/models")[1]["data"]] == [NAME]
    assert server.call("GET", f"/v1/models/{NAME}")[1]["object"] == "model"
    status, found, _ = server.call("GET", "/v1/models/gpt-4")
    assert (status, found["error"]["code"]) == (404, "model_not_found")
    assert server.post("/v1/chat/completions", _chat(model="gpt-4"))[0] == 404


def test_a_chat_is_answered_like_an_intent(server: Server) -> None:
    expected = _text(server.intent(REQUEST)[1])
    system = {"role": "system", "content": "Catalog:\n" + "\n".join(CATALOG)}
    parts = [{"type": "text", "text": MESSAGE}]
    chats = [
        [{"role": "user", "content": PROMPT}],
        [{"role": "user", "content": PROMPT + "\n\nAnswer:\n"}],
        [system, {"role": "user", "content": MESSAGE}],
        [{**system, "role": "developer"}, {"role": "user", "content": parts}],
    ]
    for messages in chats:
        status, found, _ = server.post("/v1/chat/completions", _chat(messages=messages))
        assert status == 200, found
        choice = found["choices"][0]
        assert choice["message"]["content"] == expected
        assert (choice["index"], choice["finish_reason"]) == (0, "stop")
        usage = found["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert found["object"] == "chat.completion"


def test_a_stream_adds_up_to_the_answer(server: Server) -> None:
    expected = _text(server.intent(REQUEST)[1])
    request = _chat(stream=True, stream_options={"include_usage": True})
    status, body, headers = server.raw("POST", "/v1/chat/completions", json.dumps(request).encode())
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    *chunks, usage = _events(body)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == expected
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] > 5
    request = {"model": NAME, "prompt": PROMPT, "stream": True}
    events = _events(server.raw("POST", "/v1/completions", json.dumps(request).encode())[1])
    assert [event["choices"][0]["text"] for event in events] == [expected]


def test_completions_of_several_prompts(server: Server) -> None:
    prompts = [PROMPT, build_prompt(CATALOG, "no milk after all")]
    status, found, _ = server.post("/v1/completions", {"model": NAME, "prompt": prompts})
    assert status == 200
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    assert found["choices"][0]["text"] == _text(server.intent(REQUEST)[1])


def test_max_tokens_cuts_the_answer(server: Server) -> None:
    whole = server.post("/v1/chat/completions", _chat())[1]
    count = whole["usage"]["completion_tokens"]
    for limit, reason in ((3, "length"), (count - 1, "length"), (count, "stop")):
        for name in ("max_tokens", "max_completion_tokens"):
            choice = server.post("/v1/chat/completions", _chat(**{name: limit}))[1]["choices"][0]
            assert choice["finish_reason"] == reason
            assert whole["choices"][0]["message"]["content"].startswith(
                choice["message"]["content"]
            )


@pytest.mark.parametrize(
    ("field", "accepted", "refused"),
    [
        ("temperature", 0, 0.7),
        ("top_p", 1, 0.5),
        ("n", 1, 2),
        ("logprobs", False, True),
        ("stop", [], ["}"]),
        ("tools", [], [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}, {"type": "json_schema", "json_schema": {}}),
        ("seed", 7, None),
        ("nonsense", None, 1),
    ],
)
def test_a_field_that_is_not_supported_is_refused_by_name(
    server: Server, field: str, accepted: Any, refused: Any
) -> None:
    assert server.post("/v1/chat/completions", _chat(**{field: accepted}))[0] == 200
    if refused is None:
        return
    status, found, _ = server.post("/v1/chat/completions", _chat(**{field: refused}))
    assert status == 400
    assert found["error"]["param"] == field
    assert found["error"]["code"] == "unsupported_parameter"
    assert found["error"]["message"].startswith(f"{field} is ")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "two butter"}],
        [{"role": "system", "content": "Catalog:\nButter"}],
        [{"role": "user", "content": PROMPT}, {"role": "user", "content": "x"}],
        [{"role": "assistant", "content": PROMPT}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "system", "content": ""}, {"role": "user", "content": "x"}],
    ],
)
def test_a_chat_of_another_kind_is_refused(server: Server, messages: Any) -> None:
    status, found, _ = server.post("/v1/chat/completions", _chat(messages=messages))
    assert status in (400, 422)
    assert found["error"]["type"] == "invalid_request_error"
    assert found["error"]["param"] in ("messages", "catalog")


@pytest.mark.parametrize(
    "text", ["You are a helpful assistant.", "Butter\nMilk", "Catalog: Butter", "catalog:\nButter"]
)
def test_a_system_message_that_is_no_catalog_is_not_taken_for_one(
    server: Server, text: str
) -> None:
    messages = [{"role": "system", "content": text}, {"role": "user", "content": "two butter"}]
    status, found, _ = server.post("/v1/chat/completions", _chat(messages=messages))
    assert (status, found["error"]["param"]) == (400, "messages")
    assert found["error"]["message"] == (
        "the system's message must be the line 'Catalog:' and then the catalog, one product a line"
    )


# ------------------------------------------------------------------ keys


def test_every_route_but_probes_needs_a_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n\nanother-key-that-is-long\n")
    server = Server("--api-keys", str(keys))
    server.wait("/ready")
    body = json.dumps(REQUEST).encode()
    basic = base64.b64encode(f"me:{KEY}".encode()).decode()
    for given in (None, "Bearer wrong", f"Bearer {KEY}x", KEY, "Basic !", "Basic " + "x" * 4000):
        headers = {"Authorization": given} if given else {}
        status, found, replied = server.call("POST", "/v1/intent", body, headers)
        assert status == 401, given
        assert found["error"]["code"] == "invalid_api_key"
        assert KEY not in str(found) and "www-authenticate" in replied
    for given in (
        f"Bearer {KEY}",
        f"bearer {KEY}",
        "Bearer another-key-that-is-long",
        f"Basic {basic}",
    ):
        assert server.call("POST", "/v1/intent", body, {"Authorization": given})[0] == 200
    for path in ("/", "/metrics", "/docs", "/openapi.json", "/v1/models", "/nothing"):
        assert server.raw("GET", path)[0] == 401
    assert server.raw("GET", "/health")[0] == server.raw("GET", "/ready")[0] == 200
    code, out, err = server.end()
    assert code == 0 and KEY not in out + err


def test_keys_that_are_none(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    for content, sentence in (("\n", "holds no API key"), ("short\n", "at least 16")):
        keys.write_text(content)
        refused(start("--model", str(MODEL), "--api-keys", str(keys)), sentence)
    done = start("--model", str(MODEL), "--api-keys", str(tmp_path / "none"))
    refused(done, "cannot be read")


# ------------------------------------------------------------------ figures, page, deadline


def _figures(server: Server) -> dict[str, float]:
    text = server.raw("GET", "/metrics")[1].decode()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_figures(server: Server) -> None:
    catalog = ["Rope (10m)", "Hammer (400g)"]
    before = _figures(server)
    for message in ("two ropes", "a hammer"):
        assert server.intent({"catalog": catalog, "message": message})[0] == 200
    assert server.intent({"catalog": [], "message": "x"})[0] == 422
    assert server.call("GET", "/nothing/" + "x" * 500)[0] == 404
    assert server.call("BREW", "/v1/intent")[0] == 405
    after = _figures(server)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    ok = 'cartwright_requests_total{method="POST",route="/v1/intent",status="200"}'
    bad = 'cartwright_requests_total{method="POST",route="/v1/intent",status="422"}'
    assert (grown[ok], grown[bad]) == (2, 1)
    assert grown["cartwright_answer_passes_count"] == 2
    assert grown["cartwright_answer_passes_sum"] >= 2
    assert grown["cartwright_catalog_cache_hits_total"] == 1
    assert grown["cartwright_catalog_cache_misses_total"] == 1
    assert grown['cartwright_request_duration_seconds_count{route="/v1/intent"}'] == 4
    assert 0 < after["cartwright_kv_bytes"] <= after["cartwright_kv_limit_bytes"]
    assert after["cartwright_ready"] == 1 and after["cartwright_queue_requests"] == 0
    assert any('method="other"' in name for name in after)
    assert not any("nothing" in name for name in after)


def test_the_page_asks_nobody_else(server: Server) -> None:
    status, body, headers = server.raw("GET", "/")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not re.search(rb"https?://", body)


def test_what_would_come_too_late_is_refused() -> None:
    server = Server("--deadline-sec", "0.5", "--queue", "200")
    server.wait("/ready")
    lines = [f"Soap number {number} (250g bar)" for number in range(80)]
    requests = [{"catalog": [*lines, f"Rope {n}"], "message": "add 2"} for n in range(60)]
    with ThreadPoolExecutor(30) as clients:
        replies = list(clients.map(server.intent, requests))
    late = [reply for reply in replies if reply[0] == 503]
    assert late and {status for status, _, _ in replies} <= {200, 503}
    for _, answer, headers in late:
        assert answer["error"]["type"] == "overloaded_error"
        assert headers["retry-after"] == "1"
    # A machine with other work may be late once more.
    assert 200 in (server.intent(REQUEST)[0] for _ in range(20))
    assert server.end()[0] == 0
