"""A model behind any OpenAI-compatible endpoint, asked for JSON.

The endpoint is `OPENAI_BASE_URL`; the key comes as a secret and is never printed or kept.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from json import JSONDecoder
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stages.core.errors import CartwrightError, InputError, StageFailed
from stages.runtime.secret import read_secret

BASE_URL_VARIABLE = "OPENAI_BASE_URL"
KEY_FILE = Path("/run/secrets/openai_api_key")
MAX_CONCURRENCY = 64
# Room for a model that thinks aloud before it answers.
REPLY_TOKENS = 1_000
_TIMEOUT_SEC = 120
# The SDK waits 0.5 s before the first and up to 8 s before the others, or as long as it is told.
_RETRIES = 5
_SERVER_WORDS_CHARS = 200


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: its words; without a schema, the first JSON object in them if there is one.
        complete: whether it came to an end by itself.
    """

    text: str
    complete: bool


class Endpoint:
    """One model of an endpoint; may be asked from several threads.

    Args:
        base_url: root of the API, which usually ends in `/v1`.
        key: may be empty, for a server that asks for none.
        model: empty for the only one that the endpoint has.
        requests_per_minute: a limit to keep; 0 for none.

    Attributes:
        model: the name that is asked for.
        structured: whether replies are held to a JSON schema; false once the server refused.

    Raises:
        InputError: the key is refused, or the endpoint has no such model, or is none.
        StageFailed: it cannot be reached.
    """

    def __init__(
        self, base_url: str, key: str, model: str = "", *, requests_per_minute: int = 0
    ) -> None:
        import openai

        self._openai = openai
        self._key = key
        self._where = _without_password(base_url)
        # Its retries cover refused connections, time-outs, 408, 409, 429 and 5xx.
        self._client = openai.OpenAI(
            base_url=base_url, api_key=key or "none", timeout=_TIMEOUT_SEC, max_retries=_RETRIES
        )
        self.structured = True
        self._with_temperature = True
        self._with_lengths = True
        self._limit = "max_tokens"
        self._lock = threading.Lock()
        self._interval_sec = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next_sec = 0.0
        self.model = model
        self.model = self._choose(model)

    @classmethod
    def from_environment(cls, model: str = "", *, requests_per_minute: int = 0) -> Endpoint:
        """The endpoint that the environment names, with the key that came as a secret.

        Raises:
            InputError: none is named; otherwise as for the class.
        """
        base_url = os.environ.get(BASE_URL_VARIABLE, "")
        if not base_url:
            raise InputError(
                f"{BASE_URL_VARIABLE} is not set; give the root of an OpenAI-compatible API, "
                "such as http://localhost:8000/v1"
            )
        return cls(base_url, read_secret(KEY_FILE), model, requests_per_minute=requests_per_minute)

    def ask(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], temperature: float
    ) -> Reply:
        """One chat completion, held to a JSON schema where the server can do that.

        What a server refuses (a schema, or a length in it, a temperature, the older name of the
        token limit) is left out from then on.

        Raises:
            InputError: the request, the key or the model is refused.
            StageFailed: the endpoint did not answer, retries included.
        """
        while True:
            options = self._options(schema, temperature)
            self._wait_for_turn()
            try:
                reply = self._client.chat.completions.create(
                    model=self.model,
                    messages=list(messages),  # type: ignore[arg-type]
                    **options,
                )
            except self._openai.OpenAIError as error:
                if self._leave_out(error, options):
                    continue
                raise self._explained(error) from None
            choices = getattr(reply, "choices", None)
            if not choices:
                raise self._no_api()
            text = choices[0].message.content or ""
            if "response_format" not in options:
                text = first_object(text)
            return Reply(text, choices[0].finish_reason != "length")

    def _options(self, schema: Mapping[str, Any], temperature: float) -> dict[str, Any]:
        options: dict[str, Any] = {self._limit: REPLY_TOKENS}
        if self._with_temperature:
            options["temperature"] = temperature
        if self.structured:
            held = dict(schema) if self._with_lengths else _without_lengths(schema)
            options["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": held},
            }
        return options

    def _leave_out(self, error: Exception, options: Mapping[str, Any]) -> bool:
        """Whether the request may be tried again without what the server objects to."""
        if getattr(error, "status_code", None) not in (400, 422):
            return False
        words = str(error).lower()
        if "max_tokens" in options and "max_tokens" in words:
            self._limit = "max_completion_tokens"
        elif "temperature" in options and "temperature" in words:
            self._with_temperature = False
        elif "response_format" in options and "maxlength" in words and self._with_lengths:
            self._with_lengths = False
        elif "response_format" in options:
            self.structured = False
        else:
            return False
        return True

    def _wait_for_turn(self) -> None:
        with self._lock:
            now_sec = time.monotonic()
            turn_sec = max(now_sec, self._next_sec)
            self._next_sec = turn_sec + self._interval_sec
        time.sleep(turn_sec - now_sec)

    def _choose(self, model: str) -> str:
        """The model to ask for, checked against the endpoint's list if it has one."""
        try:
            page = self._client.with_options(max_retries=1, timeout=15).models.list()
            names = [str(one.id) for one in page.data]
        except (self._openai.NotFoundError, self._openai.InternalServerError) as error:
            if model:  # Some servers keep no list.
                return model
            raise InputError(
                f"{self._where} does not list its models ({error.status_code}); name the one to ask"
            ) from None
        except self._openai.OpenAIError as error:
            raise self._explained(error) from None
        except (AttributeError, TypeError):
            raise self._no_api() from None
        if model:
            # Ollama lists `name:latest` and answers to `name`. A server with one model answers to
            # any name, which would put another model's figures under this one.
            if names and model not in names and f"{model}:latest" not in names:
                raise InputError(f"{self._where} has no model {model!r}; it has {_listed(names)}")
            return model
        if len(names) != 1:
            raise InputError(
                f"{self._where} has {len(names)} models, name the one to ask: {_listed(names)}"
            )
        return names[0]

    def _explained(self, error: Exception) -> CartwrightError:
        """An error of the SDK in one sentence, without the key."""
        if isinstance(error, self._openai.APIConnectionError):
            return self._unreachable(error)
        where, status = self._where, getattr(error, "status_code", 0)
        words = " ".join(str(getattr(error, "message", error)).split())[:_SERVER_WORDS_CHARS]
        if self._key:
            words = words.replace(self._key, "***")
        refusals = {
            400: f"refused the request (400): {words}",
            # What servers say here may quote the key.
            401: "refused the key (401); set OPENAI_API_KEY to one that it accepts",
            403: "refused the key (403); set OPENAI_API_KEY to one that may use this model",
            404: f"has no model {self.model!r}, or no chat completions ({words}); check the name "
            f"and {BASE_URL_VARIABLE}",
            422: f"refused the request (422): {words}",
        }
        if status in refusals:
            return InputError(f"{where} {refusals[status]}")
        if status == 429:
            return StageFailed(
                f"{where} still has too many requests after {_RETRIES} retries; ask for fewer at "
                f"once or a minute, or check the account ({words})"
            )
        return StageFailed(f"{where} failed ({words}); try again later")

    def _unreachable(self, error: Exception) -> StageFailed:
        if isinstance(error, self._openai.APITimeoutError):
            return StageFailed(
                f"{self._where} did not answer in time, retries included; try again with fewer "
                "requests at once"
            )
        return StageFailed(
            f"{self._where} cannot be reached ({error.__cause__ or 'no reason'}); check "
            f"{BASE_URL_VARIABLE}, and that a server on this machine listens on 0.0.0.0, for "
            "containers do not see its 127.0.0.1"
        )

    def _no_api(self) -> InputError:
        return InputError(
            f"{self._where} does not answer as the OpenAI API does; {BASE_URL_VARIABLE} must be "
            "its root, which usually ends in /v1"
        )


def ask_all(
    endpoint: Endpoint,
    requests: Sequence[Sequence[Mapping[str, str]]],
    schemas: Sequence[Mapping[str, Any]],
    *,
    concurrency: int,
) -> list[Reply]:
    """The replies to many requests at temperature 0, in their order; the first error ends it.

    Raises:
        InputError: as `Endpoint.ask`.
        StageFailed: the same.
    """
    with ThreadPoolExecutor(concurrency) as pool:
        futures = [
            pool.submit(endpoint.ask, messages, schema, 0.0)
            for messages, schema in zip(requests, schemas, strict=True)
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def first_object(text: str) -> str:
    """The first JSON object within prose or a code fence; the text itself if there is none."""
    start = text.find("{")
    if start < 0:
        return text
    try:
        _, length = JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError):
        return text
    return text[start : start + length]


def _without_lengths(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema whose texts may be of any length, for servers that cannot bound them."""
    fields = {
        name: {key: value for key, value in one.items() if key != "maxLength"}
        for name, one in schema["properties"].items()
    }
    return {**schema, "properties": fields}


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(sorted(names)[:10])
    return few + (f" and {len(names) - 10} more" if len(names) > 10 else "") if names else "none"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else url
