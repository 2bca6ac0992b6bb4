"""OpenAI's chat and text completions, as its client library sends them.

A prompt is a catalog and a message in the form that models are trained on (`build_prompt`); in a
chat the catalog may stand in the system's message. The completion is the answer's JSON. What asks
for another completion than the most probable one is refused by its name.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from stages.intent.prompt import ANSWER_CUE
from stages.intent.rows import build_prompt, split_prompt
from stages.serve.asking import Ask
from stages.serve.refusals import Refused, documented
from stages.serve.scheduler import Answered

# What may be sent without a consequence, and what else only with a value that asks for nothing.
_IGNORED = frozenset(
    {"user", "seed", "metadata", "prompt_cache_key", "safety_identifier", "service_tier"}
)
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "temperature": (0,),
    "top_p": (1,),
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "stop": ([],),
    "store": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "response_format": ({"type": "text"}, {"type": "json_object"}),
}


class _Options(BaseModel):
    """What chat and text completions have in common; other fields are looked at by name."""

    model_config = ConfigDict(extra="allow")

    model: str
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.get("include_usage"))


class _Text(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class _ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user"]
    content: str | list[_Text]
    name: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(_Options):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[_ChatMessage], Field(min_length=1, max_length=2)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None


class CompletionRequest(_Options):
    """The body of `/v1/completions`."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=32)]


def make_router(ask: Ask) -> APIRouter:
    """The routes `/v1/models`, `/v1/chat/completions` and `/v1/completions`."""
    router = APIRouter()
    created = int(time.time())
    refusals = documented(400, 401, 404, 413, 422, 429, 503)

    def about_model(name: str) -> dict[str, Any]:
        if name != ask.model_name:
            raise Refused(
                404,
                f"the model {name!r} is not served here: {ask.model_name!r} is",
                "model",
                "model_not_found",
            )
        return {"id": name, "object": "model", "created": created, "owned_by": "cartwright"}

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [about_model(ask.model_name)]}

    @router.get("/v1/models/{name}", responses=documented(404))
    async def model(name: str) -> dict[str, Any]:
        """The model, if it is the one that is served."""
        return about_model(name)

    @router.post("/v1/chat/completions", response_model=None, responses=refusals)
    async def chat(body: ChatRequest, request: Request) -> Response | dict[str, Any]:
        """The answer to a prompt, as the message of an assistant."""
        about_model(body.model)
        _refuse_unsupported(body)
        prompt = _chat_prompt(body.messages)
        answered = await ask(*_split(prompt, "messages"), request)
        text, reason = _cut(ask, answered, body.max_completion_tokens or body.max_tokens)
        reply = _Reply("chat.completion", "chatcmpl", body.model, [answered])
        if not body.stream:
            message = {"role": "assistant", "content": text, "refusal": None}
            return reply.whole([{"message": message, "finish_reason": reason}])
        deltas = [
            ({"role": "assistant", "content": ""}, None),
            ({"content": text}, None),
            ({}, reason),
        ]
        chunks = [[{"delta": delta, "finish_reason": end}] for delta, end in deltas]
        return reply.stream("chat.completion.chunk", chunks, body.includes_usage)

    @router.post("/v1/completions", response_model=None, responses=refusals)
    async def complete(body: CompletionRequest, request: Request) -> Response | dict[str, Any]:
        """The answers to one prompt or several."""
        about_model(body.model)
        _refuse_unsupported(body)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        found = await ask.all([_split(prompt, "prompt") for prompt in prompts], request)
        cut = [_cut(ask, answered, body.max_tokens) for answered in found]
        reply = _Reply("text_completion", "cmpl", body.model, found)
        choices = [{"text": text, "finish_reason": reason} for text, reason in cut]
        if not body.stream:
            return reply.whole(choices)
        return reply.stream("text_completion", [choices], body.includes_usage)

    return router


def _refuse_unsupported(body: _Options) -> None:
    for name, value in (body.model_extra or {}).items():
        if value is None or name in _IGNORED or value in _NEUTRAL.get(name, ()):
            continue
        sentence = f"{name} is not supported: the answer is the most probable one of the catalog"
        if name in _NEUTRAL:
            sentence = f"{name} is supported as {json.dumps(_NEUTRAL[name][0])} only: leave it out"
        raise Refused(400, sentence, name, "unsupported_parameter")


def _chat_prompt(messages: Sequence[_ChatMessage]) -> str:
    """The prompt of a chat: the user's message alone, or with the catalog as the system's."""
    *systems, user = messages
    if user.role != "user" or any(system.role == "user" for system in systems):
        raise Refused(400, "a chat is one message of the user's, after one of the system's or none",
                      "messages")  # fmt: skip
    if not systems:
        return user.text
    expected = build_prompt((), "").partition("\n")[0]
    head, _, catalog = systems[0].text.strip().partition("\n")
    if head.rstrip() != expected:
        raise Refused(400, f"the system's message must be the line {expected!r} and then the "
                      "catalog, one product a line", "messages")  # fmt: skip
    return build_prompt(catalog.strip("\n").split("\n"), user.text)


def _split(prompt: str, param: str) -> tuple[tuple[str, ...], str]:
    try:
        return split_prompt(prompt.removesuffix(ANSWER_CUE))
    except ValueError as error:
        raise Refused(400, f"{param}: {error}", param) from error


def _cut(ask: Ask, answered: Answered, max_tokens: int | None) -> tuple[str, str]:
    """The completion and why it ends where it does."""
    if max_tokens is None or max_tokens >= len(answered.tokens):
        return answered.decoded.answer.to_json(), "stop"
    return ask.text(answered.tokens[:max_tokens]), "length"


class _Reply:
    """Answers in OpenAI's words."""

    def __init__(self, kind: str, prefix: str, model: str, found: Sequence[Answered]) -> None:
        self._head = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }
        read = sum(answered.decoded.prompt_tokens for answered in found)
        written = sum(len(answered.tokens) for answered in found)
        self._usage = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {
                "cached_tokens": sum(answered.cached_tokens for answered in found)
            },
        }

    def whole(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "choices": _numbered(choices), "usage": self._usage}

    def stream(
        self, kind: str, chunks: Sequence[Sequence[dict[str, Any]]], includes_usage: bool
    ) -> Response:
        """Server-sent events; they begin when the answer is there, for it comes at once."""
        head = {**self._head, "object": kind}

        async def events() -> AsyncIterator[str]:
            for choices in chunks:
                yield _event({**head, "choices": _numbered(choices)})
            if includes_usage:
                yield _event({**head, "choices": [], "usage": self._usage})
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


def _numbered(choices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"index": index, "logprobs": None, **one} for index, one in enumerate(choices)]


def _event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"
