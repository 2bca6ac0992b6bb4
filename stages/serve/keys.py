"""API keys: read from a secret file, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from stages.core.errors import InputError
from stages.serve.body import refuse_and_drain
from stages.serve.refusals import refusal

OPEN_PATHS = ("/health", "/ready")
"""What an orchestrator asks, without a key."""
_MIN_KEY_CHARS = 16


def read_keys(path: Path) -> list[str]:
    """The keys of a file, one a line; empty lines do not count.

    Raises:
        InputError: The file cannot be read, holds no key, or one that is too short or not ASCII.
    """
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"the API keys {path} cannot be read: {error}") from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise InputError(f"{path} holds no API key: write one a line")
    if any(len(key) < _MIN_KEY_CHARS or not key.isprintable() or " " in key for key in keys):
        raise InputError(
            f"{path}: an API key has at least {_MIN_KEY_CHARS} printable characters and no space"
        )
    return keys


class Keys:
    """Lets requests pass that carry a key, as a bearer token or as the password of a browser.

    Args:
        app: what is protected, but for `OPEN_PATHS`.
        keys: as `read_keys` gives them.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        given = _given(dict(scope["headers"]).get(b"authorization", b""))
        # All are compared, so that the time does not say which.
        if sum(hmac.compare_digest(given, key) for key in self._keys):
            await self._app(scope, receive, send)
            return
        response = refusal(
            401,
            "the API key is missing or wrong: send `Authorization: Bearer KEY`",
            code="invalid_api_key",
        )
        response.headers["WWW-Authenticate"] = 'Basic realm="API key as the password"'
        await refuse_and_drain(response, receive, send)


def _given(header: bytes) -> bytes:
    """The key in an `Authorization` header; empty if there is none."""
    scheme, _, value = header.partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""
